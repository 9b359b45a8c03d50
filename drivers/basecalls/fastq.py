"""FASTQ files as a source of base calls: what sequencers and their software write, read into blocks.

One to four files a cluster (read 1, read 2, ...), or several of each one after another, become blocks of base calls:
block k always holds the records from ``k * clusters_per_block`` on, and a reader started again after a fault skips the
reads that were already sent. Stereo-seq's grouped form, with the barcodes in the names, is read into the same blocks
(:mod:`cartoseq.drivers.basecalls.groupednames`). What is accepted is in ``docs/formats/fastq.md``.

Names: MGI's ``@<slide>L<lane>C<column>R<row><read>`` gives the lane, and the field of view as tile
``column * 1000 + row``; Illumina's ``@<machine>:<run>:<flow cell>:<lane>:<tile>:<x>:<y>`` gives both. Other names are
accepted. A block whose clusters are of several lanes or tiles, or whose names do not tell, has lane or tile 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

from cartoseq.drivers.basecalls.fastqclusters import LONGEST_READ, Clusters, FileSequence, Filling
from cartoseq.drivers.basecalls.fastqfile import CHUNK_BYTES
from cartoseq.drivers.basecalls.groupednames import GroupedNames
from cartoseq.drivers.basecalls.growing import Follow
from cartoseq.streaming.block import MAX_READS, BaseCallBlock
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.readstructure import ReadStructure

CLUSTERS_PER_BLOCK = 32768


class FastqSource(Iterator[BaseCallBlock]):
    """Blocks of base calls out of FASTQ files: an iterator, and a context manager that closes the files.

    The inputs are checked when it is made: every file exists, is FASTQ, and its first record fits the read structure.
    (Followed files: only the first of each read, whose first record is waited for.) A fault further on raises when it
    is met, after a block, possibly a short one, with all records before it.

    Attributes:
        structures: The read structures.
        grouped: What the names hold, if the barcodes are in them.
        read_lengths: Bases of each read as its first record has them; of a grouped source with those of the name.

    Args:
        paths_per_read: For each read of a cluster its files, in order.
        structures: For each read what its bases mean.
        grouped: The barcodes are in the names: one read, whose structure begins with the CID and the MID of the name.
        library: Number that the blocks bear.
        clusters_per_block: Clusters of every block but the last.
        skip_reads: So many reads are passed over: inflated and counted, not checked. Blocks begin behind them.
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
        skip_reads: int = 0,
        follow: Follow | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        _check_inputs(paths_per_read, structures, grouped)
        if clusters_per_block < 1 or skip_reads < 0 or chunk_bytes < 1:
            raise ValueError("clusters_per_block and chunk_bytes must be positive, skip_reads not negative")
        self.structures = tuple(structures)
        self.grouped = grouped
        self._library = library
        self._clusters_per_block = clusters_per_block
        self._skip_reads = skip_reads
        in_name = grouped.length if grouped is not None else 0
        self._clusters = Clusters(
            [FileSequence(paths, follow, chunk_bytes) for paths in paths_per_read],
            [
                (rs.minimum_length - in_name, LONGEST_READ if rs.fixed_length is None else rs.fixed_length - in_name)
                for rs in structures
            ],
            fixed=all(rs.fixed_length is not None for rs in structures),
            grouped=grouped,
        )
        try:
            self.read_lengths = tuple(in_name + length for length in self._clusters.first_lengths())
        except BaseException:
            self.close()
            raise
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
    def reads(self) -> int:
        """Clusters handed out or skipped so far."""
        return self._clusters.reads

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, as the files lie on disk."""
        return sum(stream.bytes_read for stream in self._clusters.streams)

    @property
    def bytes_total(self) -> int:
        """Bytes of all files as they are on disk now; those of a followed file still grow."""
        return sum(
            path.stat().st_size if path.exists() else 0 for stream in self._clusters.streams for path in stream.paths
        )

    @property
    def progress(self) -> tuple[int, int]:
        """(bytes read, bytes in all), for a bar or an estimate of the time left."""
        return self.bytes_read, self.bytes_total

    def close(self) -> None:
        """Close the files."""
        for stream in self._clusters.streams:
            stream.close()

    def _make_blocks(self) -> Iterator[BaseCallBlock]:
        with closing(self):
            self._skip()
            filled = self._clusters_per_block
            while filled == self._clusters_per_block:
                first_cluster = self.reads
                filling = Filling(self._clusters, self.read_lengths, self._clusters_per_block)
                failure: InputError | None = None
                try:
                    filling.fill()
                except InputError as error:
                    failure = error
                filled = filling.filled
                if filled > 0:
                    yield filling.block(self._library, first_cluster)
                if failure is not None:
                    raise failure

    def _skip(self) -> None:
        while self.reads < self._skip_reads:
            count = self._clusters.available(self._skip_reads - self.reads)
            if count == 0:
                raise InputError(
                    self._clusters.streams[0].file.path,
                    f"holds {self.reads:,} reads, and {self._skip_reads:,} were read of it before",
                    remedy="The file has changed since the run began; put the same file back.",
                )
            self._clusters.take(count)


def open_fastq(
    paths_per_read: Sequence[Sequence[Path]],
    structures: Sequence[ReadStructure],
    *,
    grouped: GroupedNames | None = None,
    library: int = 0,
    clusters_per_block: int = CLUSTERS_PER_BLOCK,
    skip_reads: int = 0,
    follow: Follow | None = None,
) -> FastqSource:
    """Open FASTQ files as an iterator of blocks: see :class:`FastqSource`."""
    return FastqSource(
        paths_per_read,
        structures,
        grouped=grouped,
        library=library,
        clusters_per_block=clusters_per_block,
        skip_reads=skip_reads,
        follow=follow,
    )


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
