"""Clusters out of FASTQ files: their reads kept in step, their names paired, and blocks filled with them.

The reads of a cluster lie in as many files, at the same place in the order; a fault of one is a fault of the cluster.
What was filled before the first cluster at fault stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from cartoseq.drivers.basecalls.fastqbytes import LENGTH, fill_calls, names_begin_with, pair_names
from cartoseq.drivers.basecalls.fastqfile import FastqFile, place_of_record
from cartoseq.drivers.basecalls.groupednames import GroupedNames
from cartoseq.drivers.basecalls.growing import Follow
from cartoseq.streaming.block import BaseCallBlock
from cartoseq.streaming.errors import InputError

LONGEST_READ = 65535
"""Most bases of a read that a block takes."""

_MGI_NAME = re.compile(rb"(\S*?L([0-9]))C([0-9]{3})R([0-9]{3})[0-9]+")
_ILLUMINA_NAME = re.compile(rb"([^:\s]+:[^:\s]+:[^:\s]+:([0-9]{1,4}):)([0-9]{1,9}):[0-9]+:[0-9]+")


class FileSequence:
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
        """Bytes read so far, as the files lie on disk."""
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
        """Close the file being read."""
        if self._file is not None:
            self._file.close()


class Clusters:
    """The reads of each cluster, out of as many sequences of files.

    Attributes:
        streams: The files of each read.
        limits: The fewest and the most bases that each read may have in its file.
        fixed: Whether all records of a read have the same number of bases.
        grouped: What the names hold besides.
        reads: Clusters taken so far.
    """

    def __init__(
        self,
        streams: Sequence[FileSequence],
        limits: Sequence[tuple[int, int]],
        fixed: bool,
        grouped: GroupedNames | None,
    ) -> None:
        self.streams = tuple(streams)
        self.limits = tuple(limits)
        self.fixed = fixed
        self.grouped = grouped
        self.reads = 0

    def first_lengths(self) -> list[int]:
        """Check the first record of each file; the bases of each read's first record.

        Raises:
            InputError: a file is missing, is no FASTQ, or its first record does not fit.
        """
        return [stream.first_length(*limits) for stream, limits in zip(self.streams, self.limits, strict=True)]

    def available(self, wanted: int) -> int:
        """The number of records, up to ``wanted``, that can be taken of every read now; 0 at the end of all."""
        more = [stream.more() for stream in self.streams]
        if not any(more):
            return 0
        if not all(more):
            short, long = self.streams[more.index(False)], self.streams[more.index(True)]
            raise InputError(
                short.file.path,
                f"ends after {short.file.taken:,} records, and {long.file.path} has more: "
                f"{self.reads:,} clusters have all their reads",
                remedy="One of the files is incomplete, or they are not of the same library; copy them again.",
            )
        return min(wanted, *(stream.file.available for stream in self.streams))

    def take(self, count: int) -> None:
        """Go on behind the next ``count`` clusters."""
        for stream in self.streams:
            stream.file.take(count)
        self.reads += count


class Filling:
    """A block being filled.

    Attributes:
        filled: Clusters in it so far.

    Args:
        clusters: Where they come from.
        read_lengths: Bases of each read, those in the name included; for reads of differing length a first guess.
        room: Clusters of a full block.
    """

    def __init__(self, clusters: Clusters, read_lengths: Sequence[int], room: int) -> None:
        self.filled = 0
        self._source = clusters
        self._streams = clusters.streams
        self._grouped = clusters.grouped
        self._in_name = 0 if self._grouped is None else self._grouped.length
        self._lane, self._tile = 0, 0
        self._lane_begin = self._tile_begin = np.empty(0, dtype=np.uint8)
        self._room = room
        # Reads of fixed length share one matrix; otherwise each has its own, which grows with its longest record.
        lengths = list(read_lengths)
        self._rows = lengths
        if clusters.fixed:
            calls = np.empty((sum(lengths), self._room), dtype=np.uint8)
            self._calls = [calls] * len(lengths)
            self._first_rows = [sum(lengths[:i]) for i in range(len(lengths))]
        else:
            self._calls = [np.zeros((length, self._room), dtype=np.uint8) for length in lengths]
            self._first_rows = [0] * len(lengths)
            self._rows = [0] * len(lengths)

    def fill(self) -> None:
        """Take records until the block is full or the files end.

        Raises:
            InputError: the next record is at fault; ``filled`` clusters before it are well.
        """
        source = self._source
        while self.filled < self._room:
            count = source.available(self._room - self.filled)
            if count == 0:
                return
            if self.filled == 0:
                self._note_place(self._streams[0].file)
            well, failure = self._pairing(count)
            for number in range(len(self._streams)):
                well, failure = self._fill_read(number, well, failure)
            self._check_place(self._streams[0].file, well)
            source.take(well)
            self.filled += well
            if failure is not None:
                raise failure

    def block(self, library: int, first_cluster: int) -> BaseCallBlock:
        """The filled part."""
        if self._source.fixed:
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
                    f"{_spell(one.key(one.first + well))}, record {one.taken + well + 1:,} of {one.path}",
                    place=place_of_record(other.taken + well + 1),
                    remedy="The files are not of the same reads in the same order; give the files as sequenced.",
                )
        return well, failure

    def _fill_read(self, number: int, count: int, failure: InputError | None) -> tuple[int, InputError | None]:
        """Fill one read's rows; a failure nearer than the one known so far takes its place."""
        file = self._streams[number].file
        shortest, longest = self._source.limits[number]
        in_name = self._in_name
        if not self._source.fixed and count > 0:
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
            self._calls[number] = np.zeros((rows, self._room), dtype=np.uint8)
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
