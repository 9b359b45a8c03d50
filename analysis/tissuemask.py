"""Where on the chip the tissue lies, from registered pictures of its nuclei."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cartoseq.analysis.pictures import noise_variance
from cartoseq.analysis.trackcross import Pose, Tile

Floats = NDArray[np.float64]

#: Nuclei stand so near that over this distance (a standard deviation) they make one tissue.
SMOOTHING_UM: Final = 20.0
SMALLEST_UM2: Final = 10_000.0
_LINE_HALF_WIDTH_UM: Final = 4.0
#: An empty picture lies 2.3 times its noise above its darkest hundredth.
_LEAST_LIGHT: Final = 4.0


@dataclass(frozen=True)
class TissueMask:
    """The tissue on the chip.

    Attributes:
        mask: 1 where there is tissue, bool, shape (rows, columns): chip y by chip x.
        seen: Where there is a picture, the same shape.
        cell_um: Width and height of a cell of the mask.
    """

    mask: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    cell_um: float

    @property
    def area_um2(self) -> float:
        """How much tissue there is."""
        return float(self.mask.sum()) * self.cell_um**2


def tissue_mask(
    tiles: Sequence[Tile],
    pose: Pose,
    pixel_um: float,
    size_um: tuple[float, float],
    lines_um: tuple[Floats, Floats],
    cell_um: float = 5.0,
) -> TissueMask:
    """Find the tissue.

    Every pixel is put where it lies on the chip; the chip's lines are left out. The density of light is smoothed, and
    the tissue is where it exceeds half of what it is within the tissue; holes belong to it. Where the light is much the
    same all over, the tissue is everywhere, or nowhere if it is no more than noise.

    Args:
        tiles: The pictures.
        pose: How the chip lies.
        pixel_um: Size of a pixel.
        size_um: Width and height of the chip.
        lines_um: Its lines along y (their x), and along x (their y).
        cell_um: Size of the mask's cells.
    """
    columns, rows = (int(np.ceil(length / cell_um)) for length in size_um)
    # One darkness for all: a tile full of tissue has none of its own.
    dark = min(float(np.percentile(tile.pixels, 1)) for tile in tiles)
    bright = max(float(np.percentile(tile.pixels, 99)) for tile in tiles)
    light, count, seen = np.zeros(rows * columns), np.zeros(rows * columns), np.zeros(rows * columns, np.bool_)
    for tile in tiles:
        height, width = tile.pixels.shape
        grey = np.clip(tile.pixels - dark, 0.0, max(bright - dark, 1.0)).ravel()
        x_um = tile.x_um + (np.arange(width) - (width - 1) / 2) * pixel_um
        y_um = tile.y_um + (np.arange(height) - (height - 1) / 2) * pixel_um
        chip = pose.to_chip(np.stack(np.meshgrid(x_um, y_um), axis=-1).reshape(-1, 2))
        inside = (chip >= 0).all(axis=1) & (chip < np.array(size_um)).all(axis=1)
        chip, grey = chip[inside], grey[inside]
        cell = (chip[:, 1] // cell_um).astype(np.intp) * columns + (chip[:, 0] // cell_um).astype(np.intp)
        seen[cell] = True
        clear = _far_from(chip[:, 0], lines_um[0]) & _far_from(chip[:, 1], lines_um[1])
        light += np.bincount(cell[clear], weights=grey[clear], minlength=light.size)
        count += np.bincount(cell[clear], minlength=count.size)
    known = (count > 0).reshape(rows, columns)
    pictured = seen.reshape(rows, columns)
    density = (light / np.maximum(count, 1)).reshape(rows, columns)
    sigma = SMOOTHING_UM / cell_um
    weight = ndimage.gaussian_filter(known.astype(np.float64), sigma)
    smooth = np.where(weight > 0.05, ndimage.gaussian_filter(density, sigma) / np.maximum(weight, 0.05), 0.0)
    noise = min(math.sqrt(noise_variance(tile.pixels.astype(np.float64))) for tile in tiles)
    mask = pictured & (smooth > _tissue_level(smooth[pictured], noise))
    mask = ndimage.binary_fill_holes(mask)
    labels, found = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labels, np.arange(1, found + 1))
    large = np.flatnonzero(sizes * cell_um**2 >= SMALLEST_UM2) + 1
    return TissueMask(np.isin(labels, large), pictured, cell_um)


def _far_from(values: Floats, lines: Floats) -> NDArray[np.bool_]:
    if not lines.size:
        return np.ones(values.size, np.bool_)
    after = np.searchsorted(lines, values)
    below = np.abs(values - lines[np.maximum(after - 1, 0)])
    above = np.abs(values - lines[np.minimum(after, lines.size - 1)])
    far: NDArray[np.bool_] = np.minimum(below, above) > _LINE_HALF_WIDTH_UM
    return far


def _tissue_level(density: Floats, noise: float) -> float:
    """What light exceeds where there is tissue, above the darkest hundredth of the pixels."""
    low, high = _classes(density)
    if low < high / 2:
        return (low + high) / 2
    return 0.0 if high > _LEAST_LIGHT * noise else math.inf


def half_level(values: Floats) -> float:
    """Half-way between empty and full."""
    low, high = _classes(values)
    return (low + high) / 2


def _classes(values: Floats) -> tuple[float, float]:
    """The two classes by Otsu's threshold (N. Otsu, 1979), each by its median; one class is told twice."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    if np.isnan(between[:-1]).all():
        return float(np.median(values)), float(np.median(values))
    split = centres[int(np.nanargmax(between[:-1]))]
    low, high = values[values <= split], values[values > split]
    return float(np.median(low)), float(np.median(high))
