"""Pictures of a map: molecules per square bin, as PNG.

Pixels are square and whole, y points down as on the chip. The colours are sequential and safe for colour-blind
readers, dark where there is nothing. The scale ends at the 99.5 % quantile of the occupied bins, so that a
few bright ones do not darken the tissue; the colour bar says so with a pointed end.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.atomic import replace_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cartoseq.analysis.chip import ChipFrame
    from cartoseq.analysis.maps import SpatialMap

#: Colours of each layer.
COLOURS = {"rna": "viridis", "dna": "cividis"}
#: A picture has at most this many bins a side.
LARGEST_SIDE = 500
#: A picture is not made coarser than this many bins a side for the sake of fuller bins.
SMALLEST_SIDE = 100

_TARGET_PIXELS = 640
_QUANTILE = 0.995
_INK = "#222222"
_DPI = 100


@dataclass(frozen=True)
class Picture:
    """What a picture shows.

    Args:
        image: Counts per bin, rows are y, columns are x, shape (rows, columns).
        title: Above the picture.
        unit: What the numbers are, beside the colour bar.
        bin_size: Side of a bin, in steps of the chip.
        pixel: Side of a bin, in ``length_unit``.
        length_unit: ``um`` or ``spots``.
        colours: Name of a matplotlib colour map.
    """

    image: NDArray[Any]
    title: str
    unit: str
    bin_size: float
    pixel: float
    length_unit: str
    colours: str = "viridis"

    def _repr_png_(self) -> bytes:
        """How a notebook shows it."""
        return draw_png(self)

    def save(self, path: str | Path) -> None:
        """Write it as PNG."""
        write_png(Path(path), self)


def readable_bin(frame: ChipFrame, molecules: int) -> float:
    """A bin (in steps of the frame) at which a map of the whole chip reads well.

    It is 1, 2 or 5 times a power of ten: the smallest with at most 500 bins a side, or a larger one, down to 100
    bins a side, until a bin holds four molecules on average.
    """
    width, height = max(frame.width, 1), max(frame.height, 1)
    longer = max(width, height)
    steps = _round_numbers()
    size = next(steps)
    while longer / size > LARGEST_SIDE:
        size = next(steps)
    for larger in steps:
        if longer / larger < SMALLEST_SIDE or molecules * size * size >= 4 * width * height:
            break
        size = larger
    return size


def picture_of_map(spatial: SpatialMap, *, bin_size: float | None = None, feature: str | int | None = None) -> Picture:
    """Describe the picture of a map's totals, or of one feature.

    Args:
        spatial: The map.
        bin_size: Side of a bin, in steps of the chip; a readable one if None.
        feature: Gene or window, by number, identifier or name; all of them if None.

    Raises:
        KeyError: the map has no such feature.
    """
    frame = spatial.frame
    if bin_size is None:
        rows = [slice(None)] if feature is None else _rows_of(spatial, feature)
        bin_size = readable_bin(frame, sum(int(spatial.molecules[part].sum(dtype=np.uint64)) for part in rows))
    image = spatial.total(bin_size) if feature is None else spatial.feature_image(feature, bin_size)
    what = "all windows" if spatial.layer == "dna" else "all genes"
    if feature is not None:
        first = int(spatial.features_named(feature)[0])
        name, number = str(spatial.feature_names[first]), str(spatial.feature_ids[first])
        what = name if name == number else f"{name} ({number})"
    return Picture(
        image=image,
        title=f"{what} · {spatial.library}" + (f" · {frame.name}" if frame.name else ""),
        unit=f"molecules per bin {bin_size:g}",
        bin_size=bin_size,
        pixel=bin_size * (frame.pitch_um or 1.0),
        length_unit="um" if frame.pitch_um else "spots",
        colours=COLOURS[spatial.layer],
    )


def _rows_of(spatial: SpatialMap, feature: str | int) -> list[slice]:
    """Where the rows of a feature are; several features may share a name."""
    found = spatial.features_named(feature).tolist()
    return [slice(int(spatial.offsets[f]), int(spatial.offsets[f + 1])) for f in found]


def draw_png(picture: Picture) -> bytes:
    """Draw a picture as PNG. Same picture, same bytes (of one matplotlib)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _draw(picture)
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def draw_plain_png(picture: Picture) -> bytes:
    """Draw the bins alone, without title, scale bar and colour bar, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = picture.image.shape
    zoom = max(1, _TARGET_PIXELS // 2 // max(rows, columns))
    figure = Figure(figsize=(columns * zoom / _DPI, rows * zoom / _DPI), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(
        picture.image,
        cmap=picture.colours,
        vmin=0,
        vmax=brightest(picture.image),
        interpolation="nearest",
        aspect="auto",
    )
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def write_png(path: Path, picture: Picture) -> None:
    """Draw a picture into a file, whole or not at all."""
    data = draw_png(picture)
    with replace_atomically(Path(path)) as temporary:
        temporary.write_bytes(data)


def brightest(image: NDArray[Any]) -> float:
    """Where the colour scale ends: the 99.5 % quantile of the occupied bins."""
    occupied = image[image > 0]
    if occupied.size == 0:
        return 1.0
    return float(max(1.0, np.quantile(occupied, _QUANTILE, method="inverted_cdf")))


def _draw(picture: Picture) -> Figure:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows, columns = picture.image.shape
    longer = max(rows, columns)
    # A bin is a whole number of pixels, so that no bin looks wider than its neighbour.
    zoom = max(1, _TARGET_PIXELS // longer)
    width, height = columns * zoom, rows * zoom
    left, right, top, bottom = 20, 110, 40, 52
    total_width = max(left + width + right, 360)
    total_height = height + top + bottom
    figure = Figure(figsize=(total_width / _DPI, total_height / _DPI), dpi=_DPI, facecolor="white")

    def place(x: float, y: float, w: float, h: float) -> Axes:
        """Axes at pixels counted from the upper left corner."""
        return figure.add_axes((x / total_width, 1 - (y + h) / total_height, w / total_width, h / total_height))

    axes = place(left, top, width, height)
    end = brightest(picture.image)
    shown = axes.imshow(
        picture.image, cmap=colormaps[picture.colours], vmin=0, vmax=end, interpolation="nearest", aspect="equal"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
        spine.set_linewidth(0.6)
    figure.text(left / total_width, 1 - 26 / total_height, picture.title, color=_INK, fontsize=13)

    bar_axes = place(left + width + 16, top, 14, max(60, min(height, 260)))
    bar = figure.colorbar(shown, cax=bar_axes, extend="max" if picture.image.max(initial=0) > end else "neither")
    bar.set_label(picture.unit, color=_INK, fontsize=11)
    bar.ax.tick_params(labelsize=10, colors=_INK, length=3)
    bar.outline.set_linewidth(0.4)
    _scale_bar(figure, picture, zoom, left, top + height, total_width, total_height)
    return figure


def _scale_bar(
    figure: Figure, picture: Picture, zoom: int, left: int, below: int, total_width: int, total_height: int
) -> None:
    """A bar of a round length under the picture, a fifth of its width or a little less."""
    from matplotlib.lines import Line2D

    length = round_length(picture.image.shape[1] * picture.pixel / 4)
    pixels = length / picture.pixel * zoom
    y = 1 - (below + 18) / total_height
    ends = (left / total_width, (left + pixels) / total_width)
    figure.add_artist(Line2D(ends, (y, y), color=_INK, linewidth=2.5, solid_capstyle="butt"))
    text = length_text(length, picture.length_unit)
    figure.text(ends[0], 1 - (below + 38) / total_height, text, color=_INK, fontsize=11)


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(longest))
    return next(step * power for step in (5, 2, 1) if step * power <= longest * (1 + 1e-9))


def length_text(length: float, unit: str) -> str:
    """A length for people: µm, mm from 1,000 µm on, or spots."""
    if unit == "spots":
        return f"{length:g} " + ("spot" if length == 1 else "spots")
    return f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"


def _round_numbers() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10
