"""Genomic windows: what a DNA map counts molecules in.

A molecule of a DNA library is known by where its 5' end lies and on which strand; the set of molecules keeps both. A
map sums them in windows of one width, cut from the start of each contig; the last window of a contig is what remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.molecules import Molecules


@dataclass(frozen=True)
class Windows:
    """Windows over a genome, numbered through all contigs in order.

    Attributes:
        ids: ``chr1:0-1000000``: contig, start and end, 0-based, end exclusive; str, shape (windows,).
        window_bp: Width of a window, in base pairs.
        contig_offsets: Global position of each contig's first base, int64.
        contig_lengths: Bases of each contig, int64.
        first_window: Number of each contig's first window, int64.
    """

    ids: NDArray[np.str_]
    window_bp: int
    contig_offsets: NDArray[np.int64]
    contig_lengths: NDArray[np.int64]
    first_window: NDArray[np.int64]

    def windows_of(self, positions: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The window of each global position, uint32.

        A position outside every contig (the end of a clipped read may lie there) belongs to the nearest base.
        """
        places = positions.astype(np.int64)
        ends = self.contig_offsets + self.contig_lengths
        # Between two contigs, each has the half of the gap that is nearer.
        borders = (ends[:-1] + self.contig_offsets[1:] + 1) // 2
        contigs = np.searchsorted(borders, places, side="right")
        inside = np.clip(places - self.contig_offsets[contigs], 0, self.contig_lengths[contigs] - 1)
        windows: NDArray[np.uint32] = (self.first_window[contigs] + inside // self.window_bp).astype(np.uint32)
        return windows

    def in_windows(self, molecules: Molecules, position_bits: int) -> Molecules:
        """The same molecules with their window for feature, in the same order.

        Args:
            molecules: Their features are ``strand << position_bits | position``.
            position_bits: Bits of a position.
        """
        mask = np.uint64((1 << position_bits) - 1)
        return replace(molecules, features=self.windows_of(molecules.features.astype(np.uint64) & mask))


def window_features(
    contig_names: Sequence[str],
    contig_lengths: Sequence[int] | NDArray[np.int64],
    window_bp: int,
    contig_offsets: Sequence[int] | NDArray[np.int64] | None = None,
) -> Windows:
    """Cut contigs into windows.

    Args:
        contig_names: Names, in the order of their global positions.
        contig_lengths: Bases of each, at least 1.
        window_bp: Width of a window.
        contig_offsets: Global position of each contig's first base; without it, contigs follow without a gap.

    Raises:
        ValueError: the width, or a length, is not positive.
    """
    lengths = np.asarray(contig_lengths, np.int64)
    if window_bp < 1 or bool(np.any(lengths < 1)):
        raise ValueError(
            f"Windows need a width and contigs of at least one base; got {window_bp} and {lengths.tolist()}."
        )
    if contig_offsets is None:
        contig_offsets = np.cumsum(lengths) - lengths
    counts = -(-lengths // window_bp)
    ids = [
        f"{name}:{start}-{min(start + window_bp, length)}"
        for name, length in zip(contig_names, lengths.tolist(), strict=True)
        for start in range(0, length, window_bp)
    ]
    return Windows(
        ids=np.array(ids, np.str_),
        window_bp=window_bp,
        contig_offsets=np.asarray(contig_offsets, np.int64),
        contig_lengths=lengths,
        first_window=np.cumsum(counts) - counts,
    )
