"""A block of base calls: one row per cycle, one column per cluster, one byte each.

The byte is the BCL byte: ``base | quality << 2`` with A0 C1 G2 T3; 0 is no call. The reads of a cluster follow each
other: 50 cycles of read 1, then 100 of read 2. Clusters keep the order of their source. A payload is a 64-byte block
header and then the calls, cycle by cycle (``docs/formats/block.md``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cartoseq.streaming.errors import InputError
from cartoseq.streaming.header import Buffer

BLOCK_HEADER_BYTES = 64
MAX_READS = 4

_STRUCT = struct.Struct("<HHIHBB4HHHIIQ24x")
_REMEDY = "The block was not written by this release of Cartoseq."


@dataclass(frozen=True, slots=True, eq=False)
class BaseCallBlock:
    """Base calls of some clusters of one tile.

    Attributes:
        library: Which library, by the run's configuration; below 65536.
        lane: Lane of the flow cell; below 65536.
        tile: Tile of the lane; below 2**32.
        first_cluster: Number of the first cluster in its source, from 0.
        first_cycle: Cycle number of the first row; below 65536.
        read_lengths: Cycles of each read, one to four reads.
        calls: BCL bytes, uint8, shape (cycles, clusters), C-contiguous. A whole-read block has
            ``sum(read_lengths)`` cycles; a block of a run under way may have fewer.
    """

    library: int
    lane: int
    tile: int
    first_cluster: int
    first_cycle: int
    read_lengths: tuple[int, ...]
    calls: NDArray[np.uint8]

    def __post_init__(self) -> None:
        calls = self.calls
        if calls.dtype != np.uint8 or calls.ndim != 2 or not calls.flags.c_contiguous:
            raise ValueError(
                f"calls must be C-contiguous uint8 (cycles, clusters), not {calls.dtype} of shape {calls.shape}"
            )
        for name, value, limit in (
            ("library", self.library, 1 << 16),
            ("lane", self.lane, 1 << 16),
            ("tile", self.tile, 1 << 32),
            ("first_cluster", self.first_cluster, 1 << 64),
            ("first_cycle", self.first_cycle, 1 << 16),
            ("clusters", calls.shape[1], 1 << 32),
            ("cycles", calls.shape[0], 1 << 16),
            *(("read length", length, 1 << 16) for length in self.read_lengths),
        ):
            if not 0 <= value < limit:
                raise ValueError(f"{name} is {value}, expected 0 to {limit - 1}")
        if not 1 <= len(self.read_lengths) <= MAX_READS:
            raise ValueError(f"{len(self.read_lengths)} reads per cluster, expected 1 to {MAX_READS}")
        if calls.shape[0] > sum(self.read_lengths):
            raise ValueError(f"{calls.shape[0]} cycles, more than the reads' {sum(self.read_lengths)}")

    @property
    def cycles(self) -> int:
        """Rows of ``calls``."""
        return int(self.calls.shape[0])

    @property
    def clusters(self) -> int:
        """Columns of ``calls``."""
        return int(self.calls.shape[1])

    def payload(self) -> list[Buffer]:
        """Return the block header and the calls as two buffers; the calls are not copied."""
        lengths = [*self.read_lengths, *[0] * (MAX_READS - len(self.read_lengths))]
        header = _STRUCT.pack(
            self.library,
            self.lane,
            self.tile,
            self.first_cycle,
            len(self.read_lengths),
            0,
            *lengths,
            self.cycles,
            0,
            self.clusters,
            0,
            self.first_cluster,
        )
        return [header, self.calls.reshape(-1).data]

    @classmethod
    def from_payload(cls, buffer: Buffer, calls: Buffer | None = None) -> BaseCallBlock:
        """View a payload as a block: ``calls`` shares the buffer's memory, and is writable if the buffer is.

        Args:
            buffer: The payload, or its block header if the calls come apart.
            calls: The calls, if they come apart.

        Raises:
            InputError: the sizes do not fit each other.
        """
        view = memoryview(buffer)
        if calls is None:
            view, rest = view[:BLOCK_HEADER_BYTES], view[BLOCK_HEADER_BYTES:]
        else:
            rest = memoryview(calls)
        if view.nbytes != BLOCK_HEADER_BYTES:
            raise InputError(
                "block", f"a block header has {BLOCK_HEADER_BYTES} bytes, here are {view.nbytes}", remedy=_REMEDY
            )
        fields = _STRUCT.unpack(view)
        library, lane, tile, first_cycle, reads = fields[:5]
        lengths, cycles, clusters, first_cluster = fields[6:10], fields[10], fields[12], fields[14]
        if rest.nbytes != cycles * clusters:
            raise InputError(
                "block",
                f"{cycles} cycles of {clusters} clusters need {cycles * clusters} bytes, here are {rest.nbytes}",
                remedy=_REMEDY,
            )
        matrix = np.frombuffer(rest, np.uint8) if rest.nbytes else np.empty(0, np.uint8)
        if fields[5] or fields[11] or fields[13] or any(lengths[reads:]):
            raise InputError("block", "reserved bytes of the block header are not zero", remedy=_REMEDY)
        try:
            return cls(
                library, lane, tile, first_cluster, first_cycle, lengths[:reads], matrix.reshape(cycles, clusters)
            )
        except ValueError as error:
            raise InputError("block", str(error), remedy=_REMEDY) from error
