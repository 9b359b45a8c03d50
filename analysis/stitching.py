"""Where the tiles of a scan truly lie.

Each pair of neighbours is compared where they overlap, and all pairs together are solved by least squares. The stage
says where each tile was taken; the overlaps say how far neighbours are off. What an overlap shows may tell one
direction only (a single track line does not tell a shift along itself), or none: then the stage's word stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import spsolve

from cartoseq.analysis.pictures import LEAST_PEAK, Picture, shift_between
from cartoseq.analysis.trackcross import Tile

Floats = NDArray[np.float64]

#: An overlap narrower than this is not compared, in pixels.
LEAST_OVERLAP_PX: Final = 24
#: Two views of the same place agree at least so well, as a correlation.
LEAST_AGREEMENT: Final = 0.3
#: An overlap that the solved places contradict by more is taken for a mistake, and left out, in micrometres.
MOST_SEAM_UM: Final = 2.0
#: How far the stage may be off, against a small error of an overlap: it decides where nothing else does.
_STAGE_UM: Final = 20.0
_OVERLAP_UM: Final = 0.3
#: A direction is told if moving so far along it makes the views agree so much less.
_PROBE_PX: Final = 6
_LEAST_DROP: Final = 0.1


@dataclass(frozen=True)
class Overlap:
    """Two neighbours, compared.

    Attributes:
        first: Number of the tile on the left, or above.
        second: Number of the other.
        side: ``h`` side by side, ``v`` one above the other.
        deviation_um: By how much the second lies elsewhere than the stage says, seen from the first: x and y.
        tells: Whether the overlap tells x, and y, at all.
        agreement: Correlation of the two views at that place.
    """

    first: int
    second: int
    side: Literal["h", "v"]
    deviation_um: tuple[float, float]
    tells: tuple[bool, bool]
    agreement: float


def measure_overlaps(
    tiles: Sequence[Tile], cells: Mapping[tuple[int, int], int], pixel_um: float
) -> tuple[Overlap, ...]:
    """Compare all neighbours of a scan where they overlap.

    Args:
        tiles: Where the stage says that they lie; pixels much finer than a micrometre hold more noise than view, and
            are joined before (`analysis.pictures.coarse_binning`).
        cells: Number of the tile at each row and column.
        pixel_um: Size of a pixel.

    Returns:
        The pairs that tell x or y; those that tell nothing are left out.
    """
    found = []
    for (row, column), second in sorted(cells.items()):
        for side, first in (("h", cells.get((row, column - 1))), ("v", cells.get((row - 1, column)))):
            if first is not None:
                overlap = _compare(tiles, first, second, "h" if side == "h" else "v", pixel_um)
                if overlap is not None:
                    found.append(overlap)
    return tuple(found)


def _compare(
    tiles: Sequence[Tile], first: int, second: int, side: Literal["h", "v"], pixel_um: float
) -> Overlap | None:
    one, two = tiles[first], tiles[second]
    apart_px = np.array([two.y_um - one.y_um, two.x_um - one.x_um]) / pixel_um
    rows, columns = (round(float(step)) for step in apart_px)
    before, after = _shared(one.pixels, two.pixels, rows, columns)
    found = shift_of_views(before, after)
    if found is None:
        return None
    # What lies at (row, column) of the shared part of the first lies moved by the shift in the second, which therefore
    # was taken as much to the other side.
    off_px = np.array([rows - found.down_px, columns - found.right_px]) - apart_px
    off_um = float(off_px[1]) * pixel_um, float(off_px[0]) * pixel_um
    return Overlap(first, second, side, off_um, found.tells, found.agreement)


@dataclass(frozen=True)
class Shift:
    """How far the content of one view is moved against that of another.

    Attributes:
        down_px: Rows.
        right_px: Columns.
        tells: Whether the views tell x (columns), and y (rows), at all; what they do not tell is noise.
        agreement: Their correlation at this shift.
    """

    down_px: float
    right_px: float
    tells: tuple[bool, bool]
    agreement: float

    @property
    def length_px(self) -> float:
        """How far, in the directions that the views tell."""
        return math.hypot(self.right_px if self.tells[0] else 0.0, self.down_px if self.tells[1] else 0.0)


def shift_of_views(before: Picture, after: Picture) -> Shift | None:
    """Compare two views of the same place; nothing if they are too small, or have nothing in common.

    Args:
        before: Grey values, shape (rows, columns); see `measure_overlaps` for the size of pixels.
        after: The same shape.
    """
    if min(before.shape) < LEAST_OVERLAP_PX:
        return None
    down_px, right_px, peak = shift_between(before, after)
    at = (round(down_px), round(right_px))
    agreement = _agreement(before, after, *at)
    if peak < LEAST_PEAK or agreement < LEAST_AGREEMENT:
        return None
    tells = (
        _told(before, after, at, (0, _PROBE_PX), agreement),
        _told(before, after, at, (_PROBE_PX, 0), agreement),
    )
    return Shift(down_px, right_px, tells, agreement) if any(tells) else None


def _shared(one: Picture, two: Picture, rows: int, columns: int) -> tuple[Picture, Picture]:
    """The parts of two pictures that show the same, the second taken so many pixels below and to the right."""
    height, width = one.shape
    up, left = max(rows, 0), max(columns, 0)
    tall, wide = max(height - abs(rows), 0), max(width - abs(columns), 0)
    second_up, second_left = max(-rows, 0), max(-columns, 0)
    return (
        one[up : up + tall, left : left + wide],
        two[second_up : second_up + tall, second_left : second_left + wide],
    )


def _agreement(before: Picture, after: Picture, down: int, right: int) -> float:
    """Pearson's correlation of two views, the second moved back by a shift; nothing in common is zero."""
    one, two = _shared(before, after, -down, -right)
    if min(one.shape) < LEAST_OVERLAP_PX // 2:
        return 0.0
    first, second = (view.astype(np.float64) - np.mean(view) for view in (one, two))
    norm = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return float(np.sum(first * second)) / norm if norm > 0 else 0.0


def _told(before: Picture, after: Picture, at: tuple[int, int], step: tuple[int, int], agreement: float) -> bool:
    """Whether the views agree much less some way along a direction."""
    beside = max(_agreement(before, after, at[0] + sign * step[0], at[1] + sign * step[1]) for sign in (-1, 1))
    return beside < (1 - _LEAST_DROP) * agreement


def place_tiles(centres_um: Floats, overlaps: Sequence[Overlap]) -> tuple[Floats, NDArray[np.bool_]]:
    """Find the places that the overlaps agree with best.

    Args:
        centres_um: Where the stage says that the tiles lie, shape (tiles, 2).
        overlaps: Of `measure_overlaps`.

    Returns:
        The places, shape (tiles, 2); and which overlaps agree with them within `MOST_SEAM_UM`, shape (overlaps,).
    """
    keep = np.ones(len(overlaps), np.bool_)
    moved = np.zeros_like(centres_um)
    # One mistaken overlap pulls its neighbours along: the worst leave first.
    for limit_um in (8 * MOST_SEAM_UM, 4 * MOST_SEAM_UM, 2 * MOST_SEAM_UM, MOST_SEAM_UM):
        moved = np.column_stack([_solve(len(centres_um), overlaps, keep, axis) for axis in (0, 1)])
        keep = seams_um(moved, overlaps) <= limit_um
    return centres_um + moved, keep


def seams_um(moved_um: Floats, overlaps: Sequence[Overlap]) -> Floats:
    """By how much each overlap contradicts how far the tiles were moved; shape (overlaps,)."""
    off = [
        max(
            abs(moved_um[pair.second, axis] - moved_um[pair.first, axis] - pair.deviation_um[axis])
            for axis in (0, 1)
            if pair.tells[axis]
        )
        for pair in overlaps
    ]
    return np.array(off, np.float64)


def _solve(tiles: int, overlaps: Sequence[Overlap], keep: NDArray[np.bool_], axis: int) -> Floats:
    """How far each tile lies from where the stage says, along an axis: weighted least squares by normal equations."""
    told = [pair for pair, kept in zip(overlaps, keep, strict=True) if kept and pair.tells[axis]]
    first = np.array([pair.first for pair in told], np.intp)
    second = np.array([pair.second for pair in told], np.intp)
    off = np.array([pair.deviation_um[axis] for pair in told], np.float64)
    number = np.arange(len(told))
    ones = np.ones(len(told))
    differences = sparse.csr_matrix(
        (np.concatenate([-ones, ones]), (np.concatenate([number, number]), np.concatenate([first, second]))),
        shape=(len(told), tiles),
    )
    links = differences.T @ differences
    trust = (_OVERLAP_UM / _STAGE_UM) ** 2
    moved: Floats = np.atleast_1d(spsolve((links + trust * sparse.identity(tiles)).tocsc(), differences.T @ off))
    # Overlaps tell how tiles lie to each other. Where all of them lie, most of them tell: one that slipped has no say.
    _, part = csgraph.connected_components(links, directed=False)
    for linked in range(int(part.max()) + 1):
        moved[part == linked] -= np.median(moved[part == linked])
    return moved
