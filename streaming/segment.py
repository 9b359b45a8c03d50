"""One file of the log: frames from its RUN record to its FOOTER, and how to tell a torn tail from rot.

A segment is named by its first index (``0000000000000042.log``) and holds, one after the other without gaps: a RUN
record (JSON: the run's descriptor), DATA and END records, COMMIT marks (header only: "everything below this index was
on the medium when I was written"), and once it is full a FOOTER (JSON: offsets, sources, CRC of CRCs) that ends with
its own length and ``SEAL``.

Torn or rotten? After a power loss the unsynced end of the last segment may hold anything. A frame that does not check
is therefore a torn tail, and cut off, unless a later COMMIT mark says that it had been synced: then acknowledged data
has changed on the medium, and that is an error, never skipped.
"""

from __future__ import annotations

import json
import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from crc32c import crc32c

from cartoseq.streaming.disk import Disk, DiskFile
from cartoseq.streaming.errors import CorruptionError, DiskError, VersionError
from cartoseq.streaming.header import HEADER_BYTES, KEPT, MAGIC, SCHEMA_JSON, RecordHeader, RecordKind

_TRAILER = struct.Struct("<I4s")
_SEAL = b"SEAL"
_NAME = re.compile(r"[0-9]{16}\.log")
_SEARCH_BYTES = 1 << 20
_OPEN_FILES = 8
_REMEDY = "The medium changed data that was safely written: copy the log elsewhere and check the disk."


@dataclass(slots=True)
class SourceSpan:
    """What a segment holds of one source.

    Attributes:
        first: Its first sequence number here.
        last: Its last.
        ended: Whether its END is here.
        clusters: Clusters of its blocks here, all together.
    """

    first: int
    last: int
    ended: bool
    clusters: int


@dataclass(slots=True)
class Segment:
    """Where the records of one file lie.

    Attributes:
        path: The file.
        first_index: Log index of the first record.
        run: The run's number.
        descriptor: The run's descriptor, as the RUN record holds it.
        offsets: Byte offset of each record.
        sizes: Bytes of each record, header and payload.
        spans: By source.
        crc_of_crcs: CRC32C over the header CRCs of the records, in order.
        end: Offset after the last good frame.
        committed: Log index below which all is known to be on the medium.
        sealed: A FOOTER closes the file.
    """

    path: Path
    first_index: int
    run: int
    descriptor: Mapping[str, object]
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    spans: dict[int, SourceSpan] = field(default_factory=dict)
    crc_of_crcs: int = 0
    end: int = 0
    committed: int = 0
    sealed: bool = False

    @property
    def next_index(self) -> int:
        """Log index after the last record."""
        return self.first_index + len(self.offsets)

    def add(self, header: RecordHeader, header_crc: bytes, offset: int) -> None:
        """Take note of a record that lies at ``offset``."""
        size = HEADER_BYTES + header.payload_bytes
        self.offsets.append(offset)
        self.sizes.append(size)
        self.crc_of_crcs = crc32c(header_crc, self.crc_of_crcs)
        ended = header.kind is RecordKind.END
        clusters = header.count if header.kind is RecordKind.DATA else 0
        span = self.spans.get(header.source)
        if span is None:
            self.spans[header.source] = SourceSpan(header.sequence, header.sequence, ended, clusters)
        else:
            span.last = header.sequence
            span.ended = ended
            span.clusters += clusters
        self.end = offset + size


def segment_name(first_index: int) -> str:
    """File name of the segment that starts at an index."""
    return f"{first_index:016d}.log"


def first_index_of(name: str) -> int | None:
    """Index in a segment's file name; ``None`` if it is another file."""
    return int(name[:16]) if _NAME.fullmatch(name) else None


def footer_payload(segment: Segment) -> bytes:
    """JSON that seals a segment, ended by its length and ``SEAL`` so that it is found from the end of the file."""
    text = json.dumps(
        {
            "first_index": segment.first_index,
            "records": len(segment.offsets),
            "crc_of_crcs": segment.crc_of_crcs,
            "sources": {str(source): asdict(span) for source, span in sorted(segment.spans.items())},
            "offsets": segment.offsets.tolist(),
            "sizes": segment.sizes.tolist(),
        },
        separators=(",", ":"),
    ).encode()
    return text + _TRAILER.pack(len(text) + _TRAILER.size, _SEAL)


def read_at(file: DiskFile, offset: int, size: int) -> memoryview:
    """Read ``size`` bytes at ``offset`` into fresh writable memory; fewer at the end of the file."""
    target = np.empty(size, np.uint8).data
    return target[: file.read_into(target, offset)]


def corrupt(path: Path, offset: int, problem: str) -> CorruptionError:
    """Error for data that changed on the medium."""
    return CorruptionError(f"{path}: offset {offset}: {problem}. {_REMEDY}")


def read_frame(file: DiskFile, offset: int, run: int | None) -> tuple[RecordHeader, memoryview]:
    """Read and check one whole frame of unknown size.

    Returns:
        The header, and header and payload as one buffer.

    Raises:
        ValueError: no good frame of this run lies here.
        VersionError: a frame of a version that this program does not know.
    """
    header = RecordHeader.unpack(read_at(file, offset, HEADER_BYTES))
    if run is not None and header.run != run:
        raise ValueError(f"record of run {header.run:016x}, expected run {run:016x}")
    size = HEADER_BYTES + header.payload_bytes
    if offset + size > file.size():
        raise ValueError(f"the file ends in the middle of a record of {size} bytes")
    frame = read_at(file, offset, size)
    if frame.nbytes != size or crc32c(frame[HEADER_BYTES:]) != header.payload_crc:
        raise ValueError("payload checksum does not fit its bytes")
    return header, frame


def read_record(file: DiskFile, segment: Segment, index: int) -> tuple[RecordHeader, memoryview]:
    """Read and check one record of a known segment.

    Raises:
        CorruptionError: the record no longer reads as it was written.
    """
    place = index - segment.first_index
    offset, size = segment.offsets[place], segment.sizes[place]
    frame = read_at(file, offset, size)
    try:
        header = RecordHeader.unpack(frame)
    except ValueError as error:
        raise corrupt(segment.path, offset, f"record {index}: {error}") from error
    if header.run != segment.run or header.kind not in KEPT or HEADER_BYTES + header.payload_bytes != size:
        raise corrupt(segment.path, offset, f"record {index}: another record lies here")
    if frame.nbytes != size or crc32c(frame[HEADER_BYTES:]) != header.payload_crc:
        raise corrupt(segment.path, offset, f"record {index}: payload checksum does not fit its bytes")
    return header, frame


def open_segment(file: DiskFile, path: Path, first_index: int) -> Segment:
    """Read the RUN record at the start of a segment.

    Raises:
        ValueError: there is no good one.
        VersionError: written by a version that this program does not know.
    """
    try:
        header, frame = read_frame(file, 0, None)
    except VersionError as error:
        raise VersionError(f"{path}: {error}") from error
    if header.kind is not RecordKind.RUN or header.schema != SCHEMA_JSON or header.sequence != first_index:
        raise ValueError("the segment does not start with its run descriptor")
    content = json.loads(bytes(frame[HEADER_BYTES:]))
    return Segment(path, first_index, header.run, content["descriptor"], end=frame.nbytes, committed=first_index)


def read_footer(file: DiskFile, segment: Segment) -> bool:
    """Fill a segment from its FOOTER, if it has a good one at its end; say whether it has."""
    size = file.size()
    if size < segment.end + HEADER_BYTES + _TRAILER.size:
        return False
    length, seal = _TRAILER.unpack(read_at(file, size - _TRAILER.size, _TRAILER.size))
    at = size - length - HEADER_BYTES
    if seal != _SEAL or at < segment.end:
        return False
    try:
        header, frame = read_frame(file, at, segment.run)
    except ValueError:
        return False
    if header.kind is not RecordKind.FOOTER or header.sequence != segment.first_index:
        return False
    content = json.loads(bytes(frame[HEADER_BYTES : -_TRAILER.size]))
    segment.offsets = array("Q", content["offsets"])
    segment.sizes = array("Q", content["sizes"])
    segment.spans = {int(source): SourceSpan(**span) for source, span in content["sources"].items()}
    segment.crc_of_crcs = content["crc_of_crcs"]
    segment.end = size
    segment.committed = segment.next_index
    segment.sealed = True
    return True


def scan(file: DiskFile, segment: Segment, *, whole: bool) -> str:
    """Walk an unsealed segment from ``segment.end`` and add the records found.

    Args:
        file: The open segment.
        segment: Grown in place.
        whole: Check payloads too, not only headers.

    Returns:
        Why the walk ended before the end of the file; empty if it did not.

    Raises:
        VersionError: a frame of a version that this program does not know.
    """
    size = file.size()
    while segment.end < size:
        at = segment.end
        try:
            if whole:
                header, frame = read_frame(file, at, segment.run)
            else:
                frame = read_at(file, at, HEADER_BYTES)
                header = RecordHeader.unpack(frame)
                if header.run != segment.run:
                    return f"record of run {header.run:016x}"
                if at + HEADER_BYTES + header.payload_bytes > size:
                    return "the file ends in the middle of a record"
        except ValueError as error:
            return str(error)
        if header.kind is RecordKind.COMMIT:
            if not segment.committed <= header.sequence <= segment.next_index:
                return f"mark for index {header.sequence} after {segment.next_index} records"
            segment.committed = header.sequence
            segment.end = at + HEADER_BYTES
        elif header.kind in KEPT:
            span = segment.spans.get(header.source)
            if span is not None and (header.sequence != span.last + 1 or span.ended):
                return f"record {header.sequence} of source {header.source} after its record {span.last}"
            segment.add(header, bytes(frame[HEADER_BYTES - 4 : HEADER_BYTES]), at)
        elif header.kind is RecordKind.FOOTER:
            return "a footer that is not whole"
        else:
            return f"a {header.kind.name} record in the middle of a segment"
    return ""


def was_synced(file: DiskFile, segment: Segment) -> bool:
    """Whether a COMMIT mark after ``segment.end`` says that the record lost there had been synced."""
    return any(
        header.kind is RecordKind.COMMIT and header.run == segment.run and header.sequence > segment.next_index
        for header in _headers_after(file, segment.end)
    )


def holds_records(file: DiskFile) -> bool:
    """Whether a file without a good RUN record holds the header of any record all the same."""
    return any(header.kind is not RecordKind.RUN for header in _headers_after(file, 1))


def _headers_after(file: DiskFile, offset: int) -> list[RecordHeader]:
    """Every good header in the rest of a file, wherever it starts."""
    found: list[RecordHeader] = []
    size = file.size()
    while offset < size:
        chunk = bytes(read_at(file, offset, min(_SEARCH_BYTES, size - offset)))
        at = chunk.find(MAGIC)
        while at >= 0:
            if at + HEADER_BYTES <= len(chunk):
                try:
                    found.append(RecordHeader.unpack(chunk[at : at + HEADER_BYTES]))
                except (ValueError, VersionError):
                    at = chunk.find(MAGIC, at + 1)
                    continue
            at = chunk.find(MAGIC, at + 1)
        if offset + len(chunk) >= size:
            break
        offset += len(chunk) - HEADER_BYTES + 1
    return found


class OpenFiles:
    """A few files held open for reading, the least recently used closed first."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._open: dict[Path, DiskFile] = {}

    def open(self, path: Path) -> DiskFile:
        """Open a file, or return it if it is open."""
        file = self._open.pop(path, None)
        if file is None:
            file = self._disk.open(path)
            while len(self._open) >= _OPEN_FILES:
                self.drop(next(iter(self._open)))
        self._open[path] = file
        return file

    def drop(self, path: Path) -> None:
        """Close a file."""
        self._open.pop(path).close()

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self.drop(next(iter(self._open)))


def first_indexes(disk: Disk, folder: Path) -> list[int]:
    """First indexes of the segments in a folder, in order."""
    return sorted(first for first in map(first_index_of, disk.names(folder)) if first is not None)


def read_index(files: OpenFiles, segments: list[Segment], index: int) -> tuple[RecordHeader, memoryview]:
    """Read and check the record at a log index; see :func:`read_record`."""
    segment = segment_of(segments, index)
    return read_record(files.open(segment.path), segment, index)


def segment_of(segments: list[Segment], index: int) -> Segment:
    """Segment that holds a log index."""
    return segments[bisect_right(segments, index, key=lambda segment: segment.first_index) - 1]


def disk_error(folder: Path, error: OSError) -> DiskError:
    """Error for a disk that does not take or give data."""
    return DiskError(f"{folder}: {error.strerror or error}. Free some space or check the disk: the run waits.")
