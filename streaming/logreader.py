"""Reading a log: by index or from end to end, finished or still growing, from any process, without changing a byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from crc32c import crc32c

from cartoseq.streaming.disk import Disk, RealDisk
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.header import HEADER_BYTES, RecordHeader
from cartoseq.streaming.segment import (
    OpenFiles,
    Segment,
    corrupt,
    first_indexes,
    holds_records,
    open_segment,
    read_footer,
    read_index,
    scan,
    segment_name,
    was_synced,
)


class LogReader:
    """Reads a log, finished or still growing: only what is known to be on the medium, and never changing anything.

    Args:
        folder: The log's folder.
        disk: The file layer.

    Raises:
        InputError: there is no log here.
        CorruptionError: durable data no longer reads as it was written.
        VersionError: written by a version that this program does not know.
    """

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk: Disk = disk if disk is not None else RealDisk()
        self._files = OpenFiles(self._disk)
        self._segments: list[Segment] = []
        try:
            self._refresh()
            if not self._segments:
                raise InputError(folder, "no log segment is here", remedy="Give the log folder of a run.")
        except FileNotFoundError as error:
            raise InputError(folder, "there is no such folder", remedy="Give the log folder of a run.") from error
        except Exception:
            self.close()
            raise

    @property
    def run(self) -> int:
        """The run's number."""
        return self._segments[0].run

    @property
    def descriptor(self) -> Mapping[str, object]:
        """What the run is, as it was declared when the log began."""
        return self._segments[0].descriptor

    @property
    def end(self) -> int:
        """Index after the last durable record, looked up anew."""
        self._refresh()
        return self._segments[-1].committed

    def read(self, index: int) -> tuple[RecordHeader, memoryview]:
        """Read a record: its header and its payload. The payload is writable memory of its own.

        Raises:
            IndexError: not durable yet.
            CorruptionError: it no longer reads as it was written.
        """
        if index >= self._segments[-1].committed:
            self._refresh()
        if not 0 <= index < self._segments[-1].committed:
            raise IndexError(f"record {index} of {self._segments[-1].committed} durable ones")
        header, frame = read_index(self._files, self._segments, index)
        return header, frame[HEADER_BYTES:]

    def records(self, start: int = 0) -> Iterator[tuple[int, RecordHeader, memoryview]]:
        """Go through the log from an index to its present end: index, header and payload of each record."""
        index = start
        while index < self._segments[-1].committed or index < self.end:
            header, payload = self.read(index)
            yield index, header, payload
            index += 1

    def __iter__(self) -> Iterator[tuple[int, RecordHeader, memoryview]]:
        return self.records()

    def verify(self) -> int:
        """Read every record and compare each sealed segment with its footer.

        Returns:
            How many records there are.

        Raises:
            CorruptionError: a record, or a segment as a whole, no longer reads as it was written.
        """
        end = self.end
        for segment in self._segments:
            crc = 0
            for index in range(segment.first_index, min(segment.next_index, end)):
                _, frame = read_index(self._files, self._segments, index)
                crc = crc32c(frame[HEADER_BYTES - 4 : HEADER_BYTES], crc)
            if segment.sealed and crc != segment.crc_of_crcs:
                raise corrupt(segment.path, 0, "the footer's checksum of checksums does not fit the records")
        return end

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refresh(self) -> None:
        """Look for what was added. The open segment is walked anew: its unsynced end may have been taken back."""
        if self._segments and not self._segments[-1].sealed:
            self._segments.pop()
        firsts = first_indexes(self._disk, self._folder)
        for place, first_index in enumerate(firsts[len(self._segments) :], start=len(self._segments)):
            path = self._folder / segment_name(first_index)
            last = place == len(firsts) - 1
            expected = self._segments[-1].next_index if self._segments else 0
            if first_index != expected:
                raise corrupt(path, 0, f"the segment that starts with record {expected} is missing before it")
            segment = self._look(path, first_index, last=last)
            if segment is None:
                return
            self._segments.append(segment)

    def _look(self, path: Path, first_index: int, *, last: bool) -> Segment | None:
        """Read one segment; ``None`` if it is just being created."""
        file = self._files.open(path)
        ends: list[int] = []
        while True:
            try:
                segment = open_segment(file, path, first_index)
            except ValueError as error:
                if last and not holds_records(file):
                    self._files.drop(path)
                    return None
                raise corrupt(path, 0, str(error)) from error
            if read_footer(file, segment):
                return segment
            problem = scan(file, segment, whole=False)
            if not last:
                raise corrupt(path, segment.end, f"sealed segment: {problem or 'the footer is missing'}")
            if not problem or not was_synced(file, segment):
                return segment
            # The writer may have finished this very record between the two looks; rot stays where it is.
            if segment.end in ends:
                raise corrupt(path, segment.end, f"record {segment.next_index}: {problem}")
            ends.append(segment.end)
