"""Dense totals: molecules per bin as reads come in, for the live view.

A total is a small image per zoom level, kept beside the exact set of molecules and derived from it: it counts the reads
that were the first of their molecule. It is no part of the run's state; after a restart it is drawn anew from the set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.chip import ChipFrame
from cartoseq.analysis.maps import BinGrid, bin_grid
from cartoseq.analysis.molecules import MoleculeSet
from cartoseq.streaming.kernel import kernel


class DenseTotals:
    """Molecules per bin of one size, all features together.

    Args:
        frame: Where the spots are.
        bin_size: Side of a bin in the frame's unit; whole on a lattice.
    """

    def __init__(self, frame: ChipFrame, bin_size: float) -> None:
        self.frame = frame
        self.grid: BinGrid = bin_grid(frame, bin_size)
        self.image: NDArray[np.uint32] = np.zeros(self.grid.shape, np.uint32)
        x: NDArray[np.float64]
        y: NDArray[np.float64]
        if frame.x is None or frame.y is None:
            x = np.arange(frame.width, dtype=np.float64) + frame.origin_x
            y = np.arange(frame.height, dtype=np.float64) + frame.origin_y
        else:
            x, y = frame.x, frame.y
        # One entry per lattice step, or per listed spot.
        self._columns = np.minimum(np.floor(x / bin_size) - self.grid.first_column, self.grid.columns - 1).astype(
            np.uint32
        )
        self._rows = np.minimum(np.floor(y / bin_size) - self.grid.first_row, self.grid.rows - 1).astype(np.uint32)

    def add(self, spots: NDArray[np.uint32], fresh: NDArray[np.uint8]) -> None:
        """Count the reads that ``MoleculeSet.add`` marked as the first of their molecule."""
        listed = self.frame.x is not None
        _add(spots, fresh, self._columns, self._rows, listed, self.image)

    def draw(self, molecules: MoleculeSet) -> None:
        """Start anew from a set."""
        self.image.fill(0)
        for part in molecules.parts():
            self.add(part.spots, np.ones(len(part), np.uint8))

    def snapshot(self) -> NDArray[np.uint32]:
        """A copy of the image, uint32, shape (rows, columns) of ``grid``."""
        return self.image.copy()


@kernel
def _add(
    spots: NDArray[np.uint32],
    fresh: NDArray[np.uint8],
    columns: NDArray[np.uint32],
    rows: NDArray[np.uint32],
    listed: bool,
    image: NDArray[np.uint32],
) -> None:
    """Add ``fresh`` (0 or 1) at the bin of each spot."""
    for i in range(spots.shape[0]):
        spot = np.uint64(spots[i])
        x = (((spot >> np.uint64(16)) & np.uint64(0x7F)) << np.uint64(8)) | (spot & np.uint64(0xFF))
        y = ((spot >> np.uint64(23)) << np.uint64(8)) | ((spot >> np.uint64(8)) & np.uint64(0xFF))
        if listed:
            x = spot
            y = spot
        image[np.uint64(rows[y]), np.uint64(columns[x])] += np.uint32(fresh[i])
