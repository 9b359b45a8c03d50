"""FASTQ files as a source of base calls: what sequencers and their software write, read into blocks.

One to four files a cluster (read 1, read 2, ...), or several of each one after another, become blocks of base calls:
block k always holds the records from ``k * clusters_per_block`` on, so that a reader started again after a fault skips
what was already sent. Stereo-seq's grouped form, with the barcodes in the names, is read into the same blocks
(:mod:`cartoseq.drivers.basecalls.groupednames`). What is accepted is in ``docs/formats/fastq.md``.

Names: MGI's ``@<slide>L<lane>C<column>R<row><read>`` gives the lane, and the field of view as tile
``column * 1000 + row``; Illumina's ``@<machine>:<run>:<flow cell>:<lane>:<tile>:<x>:<y>`` gives both. Other names are
accepted. A block whose clusters are of several lanes or tiles, or whose names do not tell, has lane or tile 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

import numpy as np

from cartoseq.drivers.basecalls.fastqbytes import LENGTH, fill_calls, names_begin_with, pair_names
from cartoseq.drivers.basecalls.fastqfile import CHUNK_BYTES, FastqFile
from cartoseq.drivers.basecalls.groupednames import GroupedNames
from cartoseq.drivers.basecalls.growing import Follow
from cartoseq.streaming.block import MAX_READS, BaseCallBlock
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.readstructure import ReadStructure

CLUSTERS_PER_BLOCK = 32768

_LONGEST_READ = 65535
_MGI_NAME = re.compile(rb"(\S*?L([0-9]))C([0-9]{3})R([0-9]{3})[0-9]+")
_ILLUMINA_NAME = re.compile(rb"([^:\s]+:[^:\s]+:[^:\s]+:([0-9]{1,4}):)([0-9]{1,9}):[0-9]+:[0-9]+")


class FastqSource(Iterator[BaseCallBlock]):
    """Blocks of base calls out of FASTQ files: an iterator, and a context manager that closes the files.

    The inputs are checked when it is made: every file exists, is FASTQ, and its first record fits the read structure.
    (Followed files: only the first of each read, whose first record is waited for.) A fault further on raises when it
    is met, after a block, possibly a short one, with all records before it.

    Attributes:
        structures: The read structures.
        read_lengths: Bases of each read as its first record has them; of a grouped source with those of the name.
        reads: Clusters handed out or skipped so far.

    Args:
        paths_per_read: For each read of a cluster its files, in order.
        structures: For each read what its bases mean.
        grouped: The barcodes are in the names: one read, whose structure begins with the CID and the MID of the name.
        library: Number that the blocks bear.
        clusters_per_block: Clusters of every block but the last.
        skip_blocks: So many blocks are passed over: inflated and counted, not checked.
        follow: The files may be growing: how to wait, and what declares their end.
        chunk_bytes: Text is handled in pieces of about this size.

    Raises:
        InputError: the inputs do not fit each other, or a file is missing or at fault.
        RunError: waiting for a followed file was stopped.
    """

    def __init__(
        self,
        paths_per_read: Sequence[Sequence[Path]],
        structures: Sequence[ReadStructure],
        *,
        grouped: GroupedNames | None = None,
        library: int = 0,
        clusters_per_block: int = CLUSTERS_PER_BLOCK,
        skip_blocks: int = 0,
        follow: Follow | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        _check_inputs(paths_per_read, structures, grouped)
        if clusters_per_block < 1 or skip_blocks < 0 or chunk_bytes < 1:
            raise ValueError("clusters_per_block and chunk_bytes must be positive, skip_blocks not negative")
        self.structures = tuple(structures)
        self.reads = 0
        self._library = library
        self._clusters_per_block = clusters_per_block
        self._skip_blocks = skip_blocks
        self._grouped = grouped
        self._follow = follow
        in_name = grouped.length if grouped is not None else 0
        self._limits = [
            (rs.minimum_length - in_name, _LONGEST_READ if rs.fixed_length is None else rs.fixed_length - in_name)
            for rs in structures
        ]
        self._fixed = all(rs.fixed_length is not None for rs in structures)
        self._streams = [_FileSequence(paths, follow, chunk_bytes) for paths in paths_per_read]
        try:
            lengths = [stream.first_length(*limits) for stream, limits in zip(self._streams, self._limits, strict=True)]
        except BaseException:
            self.close()
            raise
        self.read_lengths = tuple(in_name + length for length in lengths)
        self._blocks = self._make_blocks()

    def __iter__(self) -> FastqSource:
        return self

    def __next__(self) -> BaseCallBlock:
        return next(self._blocks)

    def __enter__(self) -> FastqSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, as the files lie on disk."""
        return sum(stream.bytes_read for stream in self._streams)

    @property
    def bytes_total(self) -> int:
        """Bytes of all files as they are on disk now; those of a followed file still grow."""
        return sum(path.stat().st_size if path.exists() else 0 for stream in self._streams for path in stream.paths)

    @property
    def progress(self) -> tuple[int, int]:
        """(bytes read, bytes in all), for a bar or an estimate of the time left."""
        return self.bytes_read, self.bytes_total

    def close(self) -> None:
        """Close the files."""
        for stream in self._streams:
            stream.close()

    def _make_blocks(self) -> Iterator[BaseCallBlock]:
        with closing(self):
            self._skip()
            clusters = self._clusters_per_block
            while clusters == self._clusters_per_block:
                first_cluster = self.reads
                filling = _Filling(self)
                failure: InputError | None = None
                try:
                    filling.fill()
                except InputError as error:
                    failure = error
                clusters = filling.filled
                if clusters > 0:
                    yield filling.block(self._library, first_cluster)
                if failure is not None:
                    raise failure

    def _skip(self) -> None:
        wanted = self._skip_blocks * self._clusters_per_block
        while self.reads < wanted:
            count = self._available(wanted - self.reads)
            if count == 0:
                break
            self._take(count)
        if self._skip_blocks > 0 and self.reads <= wanted - self._clusters_per_block:
            raise InputError(
                self._streams[0].file.path,
                f"holds {self.reads:,} reads, and {self._skip_blocks} blocks of {self._clusters_per_block:,} were "
                "read of it before",
                remedy="The file has changed since the run began; put the same file back.",
            )

    def _available(self, wanted: int) -> int:
        """The number of records, up to ``wanted``, that can be taken of every read now; 0 at the end of all."""
        more = [stream.more() for stream in self._streams]
        if not any(more):
            return 0
        if not all(more):
            short, long = self._streams[more.index(False)], self._streams[more.index(True)]
            raise InputError(
                short.file.path,
                f"ends after {short.file.taken:,} records, and {long.file.path} has more: "
                f"{self.reads:,} clusters have all their reads",
                remedy="One of the files is incomplete, or they are not of the same library; copy them again.",
            )
        return min(wanted, *(stream.file.available for stream in self._streams))

    def _take(self, count: int) -> None:
        for stream in self._streams:
            stream.file.take(count)
        self.reads += count


def open_fastq(
    paths_per_read: Sequence[Sequence[Path]],
    structures: Sequence[ReadStructure],
    *,
    grouped: GroupedNames | None = None,
    library: int = 0,
    clusters_per_block: int = CLUSTERS_PER_BLOCK,
    skip_blocks: int = 0,
    follow: Follow | None = None,
) -> FastqSource:
    """Open FASTQ files as an iterator of blocks: see :class:`FastqSource`."""
    return FastqSource(
        paths_per_read,
        structures,
        grouped=grouped,
        library=library,
        clusters_per_block=clusters_per_block,
        skip_blocks=skip_blocks,
        follow=follow,
    )


class _FileSequence:
    """The files of one read, one after another."""

    def __init__(self, paths: Sequence[Path], follow: Follow | None, chunk_bytes: int) -> None:
        self.paths = tuple(paths)
        self._follow = follow
        self._chunk_bytes = chunk_bytes
        self._position = 0
        self._bytes_before = 0
        self._file: FastqFile | None = None

    @property
    def file(self) -> FastqFile:
        """The file being read."""
        if self._file is None:
            self._file = FastqFile(self.paths[self._position], self._follow, self._chunk_bytes)
        return self._file

    @property
    def bytes_read(self) -> int:
        return self._bytes_before + (0 if self._file is None else self._file.bytes_read)

    def first_length(self, shortest: int, longest: int) -> int:
        """Check the first record of each file (of followed ones, of the first); the bases of the very first."""
        for path in self.paths[1:] if self._follow is None else ():
            with closing(FastqFile(path, None, self._chunk_bytes)) as file:
                _check_first_record(file, shortest, longest)
        return _check_first_record(self.file, shortest, longest)

    def more(self) -> bool:
        """Make at least one record of the current file available, going on to the next at its end."""
        while not self.file.more():
            if self._position + 1 == len(self.paths):
                return False
            self._bytes_before += self.file.bytes_read
            self.close()
            self._file = None
            self._position += 1
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Filling:
    """A block being filled."""

    def __init__(self, source: FastqSource) -> None:
        self.filled = 0
        self._source = source
        self._streams = source._streams
        self._grouped = source._grouped
        self._in_name = 0 if self._grouped is None else self._grouped.length
        self._lane, self._tile = 0, 0
        self._lane_begin = self._tile_begin = np.empty(0, dtype=np.uint8)
        self._clusters = source._clusters_per_block
        # Reads of fixed length share one matrix; otherwise each has its own, which grows with its longest record.
        lengths = source.read_lengths
        self._rows = list(lengths)
        if source._fixed:
            calls = np.empty((sum(lengths), self._clusters), dtype=np.uint8)
            self._calls = [calls] * len(lengths)
            self._first_rows = [sum(lengths[:i]) for i in range(len(lengths))]
        else:
            self._calls = [np.zeros((length, self._clusters), dtype=np.uint8) for length in lengths]
            self._first_rows = [0] * len(lengths)
            self._rows = [0] * len(lengths)

    def fill(self) -> None:
        """Take records until the block is full or the files end.

        Raises:
            InputError: the next record is at fault; ``filled`` clusters before it are well.
        """
        source = self._source
        while self.filled < self._clusters:
            count = source._available(self._clusters - self.filled)
            if count == 0:
                return
            if self.filled == 0:
                self._note_place(self._streams[0].file)
            well, failure = self._pairing(count)
            for number in range(len(self._streams)):
                well, failure = self._fill_read(number, well, failure)
            self._check_place(self._streams[0].file, well)
            source._take(well)
            self.filled += well
            if failure is not None:
                raise failure

    def block(self, library: int, first_cluster: int) -> BaseCallBlock:
        """The filled part."""
        if self._source._fixed:
            calls = self._calls[0][:, : self.filled]
        else:
            calls = np.concatenate(
                [calls[:rows, : self.filled] for calls, rows in zip(self._calls, self._rows, strict=True)]
            )
        return BaseCallBlock(
            library=library,
            lane=self._lane,
            tile=self._tile,
            first_cluster=first_cluster,
            first_cycle=1,
            read_lengths=tuple(self._rows),
            calls=np.ascontiguousarray(calls),
        )

    def _pairing(self, count: int) -> tuple[int, InputError | None]:
        one = self._streams[0].file
        well, failure = count, None
        for stream in self._streams[1:]:
            other = stream.file
            paired = pair_names(one.text, one.records, one.first, other.text, other.records, other.first, well)
            if paired < well:
                well = paired
                failure = InputError(
                    other.path,
                    f"the name {_spell(other.key(other.first + well))} does not pair with "
                    f"{_spell(one.key(one.first + well))}, record {one.taken + well + 1} of {one.path}",
                    place=f"record {other.taken + well + 1}",
                    remedy="The files are not of the same reads in the same order; give the files as sequenced.",
                )
        return well, failure

    def _fill_read(self, number: int, count: int, failure: InputError | None) -> tuple[int, InputError | None]:
        """Fill one read's rows; a failure nearer than the one known so far takes its place."""
        file = self._streams[number].file
        shortest, longest = self._source._limits[number]
        in_name = self._in_name
        if not self._source._fixed and count > 0:
            lengths = file.records[LENGTH, file.first : file.first + count]
            self._reserve(number, in_name + min(int(lengths.max()), longest))
        calls, row = self._calls[number], self._first_rows[number]
        well = count
        if self._grouped is not None:
            well = self._grouped.fill(file, count, calls, self.filled)
            if well < count:
                failure = self._grouped.explain(file, file.first + well)
        rows = self._rows[number] - in_name
        filled = fill_calls(
            file.text, file.records, file.first, well, shortest, rows, calls, row + in_name, self.filled
        )
        if filled < well:
            failure = file.explain_record(file.first + filled, shortest, longest)
        return filled, failure

    def _reserve(self, number: int, rows: int) -> None:
        self._rows[number] = max(self._rows[number], rows)
        old = self._calls[number]
        if rows > old.shape[0]:
            self._calls[number] = np.zeros((rows, self._clusters), dtype=np.uint8)
            self._calls[number][: old.shape[0]] = old

    def _note_place(self, file: FastqFile) -> None:
        """Take lane and tile of the block's first record."""
        match = _MGI_NAME.match(file.name(file.first))
        if match is not None:
            self._lane, self._tile = int(match[2]), int(match[3]) * 1000 + int(match[4])
            tile_end = match.end(4)
        else:
            match = _ILLUMINA_NAME.match(file.name(file.first))
            if match is None:
                return
            self._lane, self._tile = int(match[2]), int(match[3])
            tile_end = match.end(3) + 1
        begin = np.frombuffer(match.string, dtype=np.uint8).copy()
        self._lane_begin, self._tile_begin = begin[: match.end(1)], begin[:tile_end]

    def _check_place(self, file: FastqFile, count: int) -> None:
        """Forget lane or tile if not all records share it."""
        if self._tile != 0 and not names_begin_with(file.text, file.records, file.first, count, self._tile_begin):
            self._tile = 0
        if (
            self._tile == 0
            and self._lane != 0
            and not names_begin_with(file.text, file.records, file.first, count, self._lane_begin)
        ):
            self._lane = 0


def _check_inputs(
    paths_per_read: Sequence[Sequence[Path]], structures: Sequence[ReadStructure], grouped: GroupedNames | None
) -> None:
    notation = " ".join(map(str, structures))
    if not 1 <= len(structures) <= MAX_READS:
        raise InputError(
            notation or "read structures",
            f"{len(structures)} read structures, and a cluster has 1 to {MAX_READS} reads",
            remedy="Give one for each read that is to be taken.",
        )
    if len(paths_per_read) != len(structures):
        raise InputError(
            notation,
            f"{len(structures)} read structures for FASTQ files of {len(paths_per_read)} reads",
            remedy="Give one read structure for each read, in the same order.",
        )
    for number, paths in enumerate(paths_per_read, start=1):
        if not paths:
            raise InputError(notation, f"read {number} has no FASTQ files", remedy="Give at least one for each read.")
    if grouped is not None:
        if len(structures) != 1:
            raise InputError(
                notation,
                "grouped FASTQ has the barcodes in the names and one read, and here are several",
                remedy="Give one read structure, which begins with the CID and the MID of the name.",
            )
        grouped.check(structures[0])


def _check_first_record(file: FastqFile, shortest: int, longest: int) -> int:
    """The bases of a file's first record, checked.

    Raises:
        InputError: there is none, or it has not as many as the read structure says.
    """
    if not file.more():
        return shortest
    length = int(file.records[LENGTH, file.first])
    if not shortest <= length <= longest:
        raise file.explain_record(file.first, shortest, longest)
    return length


def _spell(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
