"""The log: every block of a run, in order, checksummed, on the medium before anybody hears of it.

One process appends (``LogWriter``), any number read (``LogReader``), also while it grows. Wire bytes are disk bytes.
Records are made durable in groups by one ``fdatasync``; a new segment by ``fsync`` of file and folder. A write or sync
that fails is undone by cutting the file back, the caller hears of it by a ``DiskError``, and appending goes on where it
was as soon as the disk takes data again: what was durable stays, what was not is sent again by its source.
After a failed sync the kernel may have dropped the pages and call the next sync a success (the PostgreSQL "fsyncgate"
finding, 2018): so the whole unsynced group is written anew, never trusted. Layout: ``docs/formats/log.md``.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from crc32c import crc32c

from cartoseq.streaming.disk import Disk, DiskFile, RealDisk
from cartoseq.streaming.errors import InputError, RunError
from cartoseq.streaming.header import (
    HEADER_BYTES,
    KEPT,
    SCHEMA_JSON,
    Buffer,
    RecordHeader,
    RecordKind,
    bytes_in,
)
from cartoseq.streaming.logreader import LogReader
from cartoseq.streaming.segment import (
    OpenFiles,
    Segment,
    corrupt,
    disk_error,
    first_indexes,
    footer_payload,
    holds_records,
    open_segment,
    read_footer,
    read_index,
    scan,
    segment_name,
    segment_of,
    was_synced,
)

__all__ = ["SEGMENT_BYTES", "LogReader", "LogWriter"]

SEGMENT_BYTES = 128 << 20


class SourceState(NamedTuple):
    """What the log holds of a source: the number that its next record must have, its end, and its clusters so far."""

    next_sequence: int
    ended: bool
    clusters: int


_NOTHING = SourceState(0, False, 0)


class LogWriter:
    """The one writer of a run's log. Opening it recovers what a crash left.

    Args:
        folder: The log's folder; made if absent.
        descriptor: What the run is; ``descriptor["run"]`` is its 64-bit number. Kept in every segment. A log that
            exists keeps its own descriptor.
        segment_bytes: Size at which a segment is sealed.
        disk: The file layer.

    Raises:
        InputError: the descriptor has no run number, or is not JSON.
        RunError: another process writes this log, or it belongs to another run.
        CorruptionError: durable data no longer reads as it was written.
        VersionError: written by a version that this program does not know.
        DiskError: the disk does not take data.
    """

    def __init__(
        self,
        folder: Path,
        descriptor: Mapping[str, object],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        disk: Disk | None = None,
    ) -> None:
        run = descriptor.get("run")
        if not isinstance(run, int) or not 0 <= run < 1 << 64:
            raise InputError("run descriptor", f"key run is {run!r}, expected a whole number below 2**64")
        try:
            json.dumps(descriptor)
        except (TypeError, ValueError) as error:
            raise InputError("run descriptor", f"it is not JSON ({error})") from error
        self.run = run
        self.descriptor = descriptor
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._disk: Disk = disk if disk is not None else RealDisk()
        self._segments: list[Segment] = []
        self._file: DiskFile | None = None
        self._pending: list[tuple[RecordHeader, bytes, int]] = []
        self._end = 0
        self._durable_end = 0
        self._torn = False
        self._uncertain = False
        self._leftover: Path | None = None
        self._sources: dict[int, SourceState] = {}
        self._durable_sources: dict[int, SourceState] = {}
        self._readers = OpenFiles(self._disk)
        try:
            self._disk.make_folder(folder)
            self._lock = self._disk.lock(folder / "lock")
        except OSError as error:
            raise disk_error(folder, error) from error
        try:
            self._recover()
        except OSError as error:
            self._release()
            raise disk_error(folder, error) from error
        except Exception:
            self._release()
            raise

    @property
    def durable_index(self) -> int:
        """Index after the last record that is on the medium."""
        return self._segments[-1].next_index if self._segments else 0

    @property
    def next_index(self) -> int:
        """Index that the next record gets."""
        return self.durable_index + len(self._pending)

    def next_sequence(self, source: int) -> int:
        """Sequence number that the next record of a source must have."""
        return self._sources.get(source, _NOTHING).next_sequence

    def ended(self, source: int) -> bool:
        """Whether the log holds the END of a source."""
        return self._sources.get(source, _NOTHING).ended

    def clusters(self, source: int) -> int:
        """Clusters that the blocks of a source hold, all together: where a reader that starts again goes on."""
        return self._sources.get(source, _NOTHING).clusters

    @property
    def sources(self) -> tuple[int, ...]:
        """Sources with at least one record."""
        return tuple(sorted(self._sources))

    def free_bytes(self) -> int:
        """Bytes that the log's disk can still take."""
        try:
            return self._disk.free_bytes(self._folder)
        except OSError as error:
            raise disk_error(self._folder, error) from error

    def append(self, header: RecordHeader, *buffers: Buffer) -> int:
        """Append a DATA or END record. It is not durable before :meth:`sync`.

        Returns:
            Its log index.

        Raises:
            DiskError: the disk did not take it; the log is as it was before.
            ValueError: the record does not follow its source's last, or its sizes do not fit.
        """
        if header.kind not in KEPT or header.run != self.run or self.ended(header.source):
            raise ValueError(f"{header.kind.name} record of run {header.run} does not belong in the log of {self.run}")
        if header.sequence != self.next_sequence(header.source):
            raise ValueError(f"record {header.sequence} of source {header.source} is not the next one")
        if header.payload_bytes != bytes_in(buffers):
            raise ValueError(f"header says {header.payload_bytes} bytes, the payload has {bytes_in(buffers)}")
        packed = header.pack()
        size = HEADER_BYTES + header.payload_bytes
        try:
            self._mend()
            if self._file is not None and self._in_segment() and self._end + size > self._segment_bytes:
                self._seal()
            if self._file is None:
                self._create()
            self._write(packed, *buffers)
        except OSError as error:
            raise disk_error(self._folder, error) from error
        self._pending.append((header, packed[HEADER_BYTES - 4 :], self._end))
        self._end += size
        clusters = self.clusters(header.source) + (header.count if header.kind is RecordKind.DATA else 0)
        self._sources[header.source] = SourceState(header.sequence + 1, header.kind is RecordKind.END, clusters)
        return self.next_index - 1

    def sync(self) -> None:
        """Return when all appended records are on the medium.

        Raises:
            DiskError: they are not, and have been taken out of the log again: ``next_index`` and
                :meth:`next_sequence` are back at what is durable.
        """
        if not self._pending:
            return
        try:
            self._sync_pending()
        except OSError as error:
            raise disk_error(self._folder, error) from error
        self._mark()

    @property
    def uncertain(self) -> bool:
        """Whether a sync failed and a crash now could bring records back that were taken out: see :meth:`mend`."""
        return self._uncertain

    def mend(self) -> None:
        """Make sure that what a failed sync took out of the log stays out.

        Raises:
            DiskError: the disk does not take it yet.
        """
        try:
            self._mend()
        except OSError as error:
            raise disk_error(self._folder, error) from error

    def read(self, index: int) -> tuple[RecordHeader, memoryview]:
        """Read a durable record: its header, and header and payload as one buffer.

        Raises:
            IndexError: not durable yet.
            CorruptionError: it no longer reads as it was written.
            DiskError: the disk does not give it.
        """
        if not 0 <= index < self.durable_index:
            raise IndexError(f"record {index} of {self.durable_index} durable ones")
        try:
            return read_index(self._readers, self._segments, index)
        except OSError as error:
            raise disk_error(self._folder, error) from error

    def record_bytes(self, index: int) -> int:
        """Size of a record, header and payload, in bytes."""
        segment = segment_of(self._segments, index)
        return segment.sizes[index - segment.first_index]

    def close(self) -> None:
        """Sync, seal the last segment and let go of the log.

        Raises:
            DiskError: the last records could not be made durable.
        """
        try:
            self.sync()
            self._mend()
            if self._file is not None and self._in_segment():
                self._seal()
        except OSError as error:
            raise disk_error(self._folder, error) from error
        finally:
            self._release()

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _in_segment(self) -> int:
        """Records in the open segment."""
        return len(self._segments[-1].offsets) + len(self._pending)

    def _write(self, *buffers: Buffer) -> None:
        """Write all of it at the end of the open segment, or cut the segment back and raise."""
        assert self._file is not None
        parts = [memoryview(part) for part in buffers if memoryview(part).nbytes]
        at = self._end
        try:
            while parts:
                count = self._file.write(parts, at)
                if count <= 0:
                    raise OSError(errno.EIO, "nothing was written")
                at += count
                while parts and count >= parts[0].nbytes:
                    count -= parts.pop(0).nbytes
                if count:
                    parts[0] = parts[0][count:]
        except OSError:
            self._cut()
            raise

    def _cut(self) -> None:
        """Cut what lies beyond the end; if that fails too, leave it to the next write."""
        try:
            if self._file is not None:
                self._file.truncate(self._end)
        except OSError:
            self._torn = True

    def _mend(self) -> None:
        """Cut what a failure left; after a failed sync durably, else a crash could bring the lost records back."""
        if self._file is not None:
            if self._torn:
                self._file.truncate(self._end)
            if self._uncertain:
                self._file.sync()
        self._torn = self._uncertain = False

    def _sync_pending(self) -> None:
        """Make the open segment durable, or take its unsynced records out again and raise."""
        assert self._file is not None
        try:
            self._file.sync()
        except OSError:
            self._pending.clear()
            self._sources = dict(self._durable_sources)
            self._end = self._durable_end
            self._cut()
            self._uncertain = True
            raise
        for header, header_crc, offset in self._pending:
            self._segments[-1].add(header, header_crc, offset)
        self._pending.clear()
        self._durable_sources = dict(self._sources)
        self._durable_end = self._end

    def _mark(self) -> None:
        """Note in the segment what is durable. A mark that cannot be written costs nothing but its information."""
        try:
            self._mend()
            self._write(RecordHeader(RecordKind.COMMIT, self.run, sequence=self.durable_index).pack())
        except OSError:
            return
        self._end += HEADER_BYTES
        self._durable_end = self._end

    def _seal(self) -> None:
        """Make the open segment durable, and close it with its footer."""
        assert self._file is not None
        if self._pending:
            self._sync_pending()
        segment = self._segments[-1]
        footer = footer_payload(segment)
        self._write(_json_header(RecordKind.FOOTER, self.run, segment.first_index, footer), footer)
        try:
            self._file.sync()
        except OSError:
            self._cut()
            raise
        segment.sealed = True
        self._file.close()
        self._file = None

    def _create(self) -> None:
        """Start a segment: file, descriptor and folder entry are durable before the first record is written."""
        if self._leftover is not None:
            self._disk.remove(self._leftover)
            self._leftover = None
        first_index = self.next_index
        path = self._folder / segment_name(first_index)
        text = json.dumps(
            {"format": "cartoseq-log", "first_index": first_index, "descriptor": self.descriptor},
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        self._file = self._disk.create(path)
        self._end = 0
        try:
            self._write(_json_header(RecordKind.RUN, self.run, first_index, text), text)
            self._file.sync()
            self._disk.sync_folder(self._folder)
        except OSError:
            self._file.close()
            self._file = None
            self._torn = False
            self._leftover = path
            raise
        self._end = self._durable_end = HEADER_BYTES + len(text)
        self._segments.append(Segment(path, first_index, self.run, self.descriptor, end=self._end))

    def _recover(self) -> None:
        """Find the segments, cut the torn tail of the last, and make sure that what stays is on the medium."""
        firsts = first_indexes(self._disk, self._folder)
        for place, first_index in enumerate(firsts):
            path = self._folder / segment_name(first_index)
            last = place == len(firsts) - 1
            if first_index != self.next_index:
                raise corrupt(path, 0, f"the segment that starts with record {self.next_index} is missing before it")
            file = self._disk.open(path, write=last)
            try:
                segment = self._recover_segment(file, path, first_index, last=last)
                if segment is not None and not segment.sealed:
                    self._file, self._end = file, segment.end
            finally:
                if self._file is not file:
                    file.close()
            if segment is None:
                self._disk.remove(path)
                self._disk.sync_folder(self._folder)
                return
            self._adopt(segment)
        if self._segments:
            self.descriptor = self._segments[0].descriptor
        if self._file is not None:
            self._disk.sync_folder(self._folder)
            self._durable_end = self._end
            if self._segments[-1].committed < self.durable_index:
                self._mark()

    def _recover_segment(self, file: DiskFile, path: Path, first_index: int, *, last: bool) -> Segment | None:
        """Read one segment; ``None`` if a crash came between its creation and its first record."""
        try:
            segment = open_segment(file, path, first_index)
        except ValueError as error:
            if last and not holds_records(file):
                return None
            raise corrupt(path, 0, str(error)) from error
        if segment.run != self.run:
            raise RunError(
                f"{self._folder}: this is the log of run {segment.run:016x}, not of run {self.run:016x}. "
                "Give each run a folder of its own."
            )
        if read_footer(file, segment):
            return segment
        problem = scan(file, segment, whole=True)
        if not last:
            raise corrupt(path, segment.end, f"sealed segment: {problem or 'the footer is missing'}")
        if problem:
            if was_synced(file, segment):
                raise corrupt(path, segment.end, f"record {segment.next_index}: {problem}")
            file.truncate(segment.end)
        file.sync()
        return segment

    def _adopt(self, segment: Segment) -> None:
        for source, span in segment.spans.items():
            if span.first != self.next_sequence(source) or self.ended(source):
                raise corrupt(
                    segment.path,
                    0,
                    f"source {source} goes on with record {span.first}, expected {self.next_sequence(source)}",
                )
            self._sources[source] = SourceState(span.last + 1, span.ended, self.clusters(source) + span.clusters)
        self._segments.append(segment)
        self._durable_sources = dict(self._sources)

    def _release(self) -> None:
        self._readers.close()
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.close()


def _json_header(kind: RecordKind, run: int, first_index: int, text: bytes) -> bytes:
    return RecordHeader(
        kind, run, sequence=first_index, payload_bytes=len(text), payload_crc=crc32c(text), schema=SCHEMA_JSON
    ).pack()
