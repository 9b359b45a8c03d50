"""Pictures that lay the microscope's view of a tissue and the map of its molecules over each other, as PNG.

Both are drawn in the chip's coordinates, y downwards. The outline of the tissue is that of its mask; the outline of a
map is where its molecules are half as dense as they are within it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cartoseq.analysis.charts import OKABE_ITO
from cartoseq.analysis.exports.picture import brightest, length_text, round_length
from cartoseq.analysis.tissueimages import TissueCounts, TissueImages
from cartoseq.analysis.tissuemask import SMOOTHING_UM, half_level

#: A picture has at most this many pixels a side.
LARGEST_SIDE: Final = 640
_DPI: Final = 100
_INK: Final = "#222222"


@dataclass(frozen=True)
class Outline:
    """The border of an area.

    Attributes:
        area: The area, bool, shape (rows, columns), over the whole chip.
        name: In the legend.
        colour: As matplotlib reads it.
    """

    area: NDArray[np.bool_]
    name: str
    colour: str


def tissue_outline(images: TissueImages) -> Outline:
    """The border of the tissue, as the microscope sees it."""
    return Outline(images.mask, "tissue in the picture", OKABE_ITO["orange"])


def map_outline(counts: TissueCounts, cell_um: float, name: str) -> Outline:
    """The border of a map of molecules."""
    density = ndimage.gaussian_filter(counts.molecules_per_cell.astype(np.float64), SMOOTHING_UM / cell_um)
    area = density > half_level(density.ravel()) if counts.molecules_per_cell.any() else np.zeros(density.shape, bool)
    return Outline(area, f"{name} molecules", OKABE_ITO["sky"])


def draw_tissue(images: TissueImages, outlines: Sequence[Outline]) -> bytes:
    """The registered picture in grey with some outlines, as PNG. Same picture, same bytes (of one matplotlib)."""
    grey = shrunk(images.picture)
    seen = grey[grey > 0]
    low, high = (float(np.quantile(seen, share)) for share in (0.01, 0.995)) if seen.size else (0.0, 1.0)
    return _draw(grey, "gray", low, max(high, low + 1), _width_um(images), outlines)


def draw_map(images: TissueImages, counts: TissueCounts, colours: str, outlines: Sequence[Outline]) -> bytes:
    """Molecules in the mask's cells (or means over several) with some outlines, as PNG."""
    image = shrunk(counts.molecules_per_cell)
    return _draw(image, colours, 0.0, brightest(image), _width_um(images), outlines)


def _width_um(images: TissueImages) -> float:
    return float(images.numbers["chip"]["width_um"])


def shrunk(image: NDArray[Any]) -> NDArray[np.float64]:
    """Means over squares, so that no side is longer than `LARGEST_SIDE`; at the far edges, over what there is."""
    step = -(-max(image.shape) // LARGEST_SIDE)
    rows, columns = (-(-length // step) for length in image.shape)
    sums = np.add.reduceat(image, np.arange(0, image.shape[0], step), axis=0, dtype=np.float64)
    sums = np.add.reduceat(sums, np.arange(0, image.shape[1], step), axis=1)
    tall = np.minimum(step, image.shape[0] - step * np.arange(rows))
    wide = np.minimum(step, image.shape[1] - step * np.arange(columns))
    means: NDArray[np.float64] = sums / np.outer(tall, wide)
    return means


def _draw(
    image: NDArray[np.float64],
    colours: str,
    low: float,
    high: float,
    width_um: float,
    outlines: Sequence[Outline],
) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows, columns = image.shape
    zoom = max(1.0, LARGEST_SIDE / max(rows, columns))
    width, height, below = columns * zoom, rows * zoom, 48
    figure = Figure(figsize=(width / _DPI, (height + below) / _DPI), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((0, below / (height + below), 1, height / (height + below)))
    axes.set_axis_off()
    extent = (0.0, float(columns), float(rows), 0.0)
    axes.imshow(image, cmap=colours, vmin=low, vmax=high, extent=extent, interpolation="nearest", aspect="auto")
    for outline in outlines:
        if outline.area.any() and not outline.area.all():
            down, across = outline.area.shape
            y, x = (np.arange(down) + 0.5) * rows / down, (np.arange(across) + 0.5) * columns / across
            axes.contour(x, y, outline.area.astype(np.float64), [0.5], colors=[outline.colour], linewidths=1.6)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    length_um = round_length(width_um / 4)
    bar = length_um / width_um
    at = 28 / (height + below)
    figure.add_artist(Line2D((0.01, 0.01 + bar), (at, at), color=_INK, linewidth=2.5, solid_capstyle="butt"))
    figure.text(0.01, 8 / (height + below), length_text(length_um, "um"), color=_INK, fontsize=11)
    lines = [Line2D([], [], color=outline.colour, linewidth=2, label=outline.name) for outline in outlines]
    if lines:
        figure.legend(handles=lines, loc="lower right", ncols=len(lines), frameon=False, fontsize=11)
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()
