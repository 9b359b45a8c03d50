"""Registration of pictures to the chip by its track lines.

The lines are straight across a picture and cross at right angles. In each picture their common direction is where sums
along the lines vary most; their places are the peaks of these sums. The distances of the lines follow a known pattern
of nine that repeats along both sides of the chip [CellBin], so that lines of all tiles together tell scale, direction
and place of the chip.

The pattern reads the same backwards, and is the same along both sides: lines alone cannot tell a mirrored chip, nor one
turned by a right angle, nor one moved by a whole period (1.47 mm at a pitch of 500 nm). How the chip lies in its holder
(`Expected`) settles these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.pictures import Picture

Floats = NDArray[np.float64]

#: Distances between track lines in steps of the lattice, by its pitch in nanometres; they repeat [CellBin].
PATTERN_STEPS: Final = {
    500: (240, 300, 330, 390, 390, 330, 300, 240, 420),
    600: (192, 240, 288, 312, 312, 288, 240, 192, 384),
    715: (112, 144, 208, 224, 224, 208, 144, 112, 160),
}
#: Directions are looked for so far from the expected one, in degrees.
WIDEST_TURN_DEG: Final = 5.0
#: A peak of the sums is a line if it stands out by so many robust standard deviations.
LEAST_CONTRAST: Final = 8.0
#: A registration needs so many lines that fit, and so large a share of those that should be in the pictures.
LEAST_LINES: Final = 6
LEAST_RECALL: Final = 0.6
_COARSE_DEG: Final = 0.25
_FINE_DEG: Final = 0.02
_SMOOTHING_PX: Final = 25
_STRIP_PX: Final = 32
_AROUND_PX: Final = 81
_MOST_STRETCH: Final = 0.02
_VOTE_UM: Final = 15.0
#: The width of a line is taken over so many pixels to both sides.
_WIDTH_PX: Final = 6
#: A line found may be so far from where the pattern has one, in micrometres, once the chip's place is known.
MOST_RESIDUAL_UM: Final = 5.0


def track_lines_um(length_um: float, pitch_nm: int = 500) -> Floats:
    """Where a chip's track lines lie along one side, in micrometres from its corner, ascending.

    Raises:
        ValueError: no pattern is known for this pitch.
    """
    if pitch_nm not in PATTERN_STEPS:
        raise ValueError(f"pitch {pitch_nm} nm: track lines are known for {sorted(PATTERN_STEPS)}")
    steps = np.array(PATTERN_STEPS[pitch_nm]) * (pitch_nm / 1000)
    places = np.cumsum(np.tile(steps, int(length_um // steps.sum()) + 1))
    result: Floats = places[places < length_um]
    return result


class Pose(Protocol):
    """How a chip lies on the stage."""

    def to_stage(self, chip_um: Floats) -> Floats:
        """Stage coordinates of chip points, shape (n, 2)."""

    def to_chip(self, stage_um: Floats) -> Floats:
        """Chip coordinates of stage points, shape (n, 2)."""


@dataclass(frozen=True)
class Tile:
    """A picture and where it was taken.

    Attributes:
        pixels: Grey values, shape (height, width).
        x_um: The optical axis on the stage.
        y_um: See above.
    """

    pixels: Picture
    x_um: float
    y_um: float


@dataclass(frozen=True)
class Lines:
    """The track lines of one tile.

    Attributes:
        direction_deg: Of the chip's x, counter-clockwise from the stage's.
        across_x_um: Of the lines along the chip's y: distance from the stage's origin along the direction, shape (n,).
        across_y_um: Of those along the chip's x: distance at right angles to it, shape (m,).
        contrast: Of the weakest line that counted.
        widths_x_um: Of the same lines as `across_x_um`, each where it is clearest: the area of its profile over its
            height, not a number where that cannot be told. It grows as the picture leaves the focus, whatever else is
            in it.
        widths_y_um: See above.
    """

    direction_deg: float
    across_x_um: Floats
    across_y_um: Floats
    contrast: float
    widths_x_um: Floats
    widths_y_um: Floats

    @property
    def crossings(self) -> int:
        """How many points there are where two lines cross."""
        return self.across_x_um.size * self.across_y_um.size

    def crossings_in(self, tile: Tile, pixel_um: float) -> tuple[Floats, Floats]:
        """Where on the stage the lines cross within the tile, and the widths of the two lines: both of shape (n, 2)."""
        first, second = (np.array(_normal(self.direction_deg, axis)) for axis in (0, 1))
        across_x, across_y = (grid.reshape(-1, 1) for grid in np.meshgrid(self.across_x_um, self.across_y_um))
        widths = np.stack(np.meshgrid(self.widths_x_um, self.widths_y_um), axis=-1).reshape(-1, 2)
        points = across_x * first + across_y * second
        height, width = tile.pixels.shape
        away = np.abs(points - np.array([tile.x_um, tile.y_um]))
        inside = (away <= np.array([width, height]) * pixel_um / 2).all(axis=1)
        return points[inside], widths[inside]


@dataclass(frozen=True)
class Expected:
    """How the chip should lie, by its holder.

    Attributes:
        offset_um: Its corner on the stage, to less than a third of a period.
        rotation_deg: Its turn, within `WIDEST_TURN_DEG`.
        mirrored: Whether its x runs backwards on the stage.
        lines_x_um: Its lines along y: their x on the chip, ascending.
        lines_y_um: Its lines along x: their y.
    """

    offset_um: tuple[float, float]
    rotation_deg: float
    mirrored: bool
    lines_x_um: Floats
    lines_y_um: Floats


@dataclass(frozen=True)
class Registration:
    """Where the chip lies on the stage: stage = offset + scale * turn(rotation) * mirror * chip.

    Attributes:
        offset_um: Its corner.
        rotation_deg: Its turn.
        scale: Stage micrometres per chip micrometre.
        mirrored: Whether its x runs backwards.
        lines: How many lines were found and fit.
        recall: Share of the pattern's lines within the pictures that were found.
        residual_um: Root mean square distance of found lines from the pattern's.
        worst_um: The greatest.
    """

    offset_um: tuple[float, float]
    rotation_deg: float
    scale: float
    mirrored: bool
    lines: int
    recall: float
    residual_um: float
    worst_um: float

    @property
    def matrix(self) -> Floats:
        """Takes chip to stage directions, shape (2, 2)."""
        angle = math.radians(self.rotation_deg)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix: Floats = self.scale * turn @ np.diag([-1.0 if self.mirrored else 1.0, 1.0])
        return matrix

    def to_stage(self, chip_um: Floats) -> Floats:
        """Stage coordinates of chip points, shape (n, 2)."""
        result: Floats = chip_um @ self.matrix.T + np.array(self.offset_um)
        return result

    def to_chip(self, stage_um: Floats) -> Floats:
        """Chip coordinates of stage points, shape (n, 2)."""
        result: Floats = (stage_um - np.array(self.offset_um)) @ np.linalg.inv(self.matrix).T
        return result


def find_lines(tile: Tile, pixel_um: float, expected_deg: float = 0.0) -> Lines:
    """Find the track lines of a tile.

    The picture is cut into strips across the lines. A line is a peak in every strip, moved from strip to strip by its
    direction: where the strips add up to the greatest energy lies the direction, and the peaks of that sum are the
    lines, at the tile's centre.

    Args:
        tile: The picture.
        pixel_um: Size of a pixel.
        expected_deg: The direction to look around.
    """
    strips = [_strips(tile.pixels), _strips(tile.pixels.T)]
    coarse = expected_deg + np.arange(-WIDEST_TURN_DEG, WIDEST_TURN_DEG + _COARSE_DEG / 2, _COARSE_DEG)
    best = coarse[int(np.argmax([_energy(strips, angle) for angle in coarse]))]
    fine = best + np.arange(-_COARSE_DEG, _COARSE_DEG + _FINE_DEG / 2, _FINE_DEG)
    direction = float(fine[int(np.argmax([_energy(strips, angle) for angle in fine]))])
    angle = math.radians(direction)
    places, contrasts, widths = [], [], []
    for axis, (tops, profiles) in enumerate(strips):
        aligned = _aligned(tops, profiles, direction if axis == 0 else -direction)
        found, contrast = _peaks(aligned.sum(axis=0))
        middle = (profiles.shape[1] - 1) / 2
        normal = _normal(direction, axis)
        # A line that meets the tile's middle row (or column) there lies nearer to the centre by the cosine.
        along = (found - middle) * pixel_um * math.cos(angle)
        places.append(tile.x_um * normal[0] + tile.y_um * normal[1] + along)
        contrasts.append(contrast)
        widths.append(_widths(aligned, found) * pixel_um)
    return Lines(direction, places[0], places[1], min(contrasts), widths[0], widths[1])


def _normal(direction_deg: float, axis: int) -> tuple[float, float]:
    """The direction of the chip's x (axis 0) or y (axis 1) on the stage."""
    angle = math.radians(direction_deg)
    return (math.cos(angle), math.sin(angle)) if axis == 0 else (-math.sin(angle), math.cos(angle))


def _strips(pixels: Picture) -> tuple[Floats, Floats]:
    """The darker part of each strip of rows, without its slow changes: what is long and thin down the strip remains.

    Returns:
        The strips' middles, from the picture's; and their profiles, shape (strips, columns).
    """
    rows = pixels.shape[0] // _STRIP_PX
    first = (pixels.shape[0] - rows * _STRIP_PX) // 2
    cut = pixels[first : first + rows * _STRIP_PX].reshape(rows, _STRIP_PX, -1)
    profiles = np.sort(cut, axis=1)[:, _STRIP_PX // 8 : 3 * _STRIP_PX // 8].mean(axis=1)  # nuclei are above
    window = _SMOOTHING_PX
    padded = np.pad(profiles, ((0, 0), (window // 2, window // 2)), mode="edge")
    base = np.median(np.lib.stride_tricks.sliding_window_view(padded, window, axis=1), axis=2)
    middles = first + (np.arange(rows) + 0.5) * _STRIP_PX - 0.5 - (pixels.shape[0] - 1) / 2
    return middles, profiles - base


def _aligned(middles: Floats, profiles: Floats, direction_deg: float) -> Floats:
    """The strips, each moved to where the lines meet the picture's middle; shape (strips, columns)."""
    columns = np.arange(profiles.shape[1], dtype=np.float64)
    slope = math.tan(math.radians(direction_deg))
    # Down the picture a line at right angles to the direction moves to the left.
    moved = [
        np.interp(columns - middle * slope, columns, profile, left=0.0, right=0.0)
        for middle, profile in zip(middles, profiles, strict=True)
    ]
    return np.array(moved).reshape(-1, columns.size)


def _energy(strips: Sequence[tuple[Floats, Floats]], direction_deg: float) -> float:
    """How well the strips of both axes agree on a direction."""
    first = _aligned(*strips[0], direction_deg).sum(axis=0)
    second = _aligned(*strips[1], -direction_deg).sum(axis=0)
    return float(np.sum(np.maximum(first, 0) ** 3) + np.sum(np.maximum(second, 0) ** 3))


def _peaks(sums: Floats) -> tuple[Floats, float]:
    """Places of the lines in sums, to a fraction of a pixel, and the contrast of the weakest."""
    away = np.abs(sums - np.median(sums))
    # Beside an empty part of the picture the nuclei of another would stand out like lines: the spread is that of the
    # surroundings too.
    padded = np.pad(away, _AROUND_PX // 2, mode="reflect")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, _AROUND_PX), axis=1)
    contrast = sums / np.maximum(1.4826 * np.maximum(around, np.median(away)), 1e-9)
    # A peak at the very edge may be the flank of a line outside.
    inner = contrast[3:-3]
    higher = (inner >= contrast[2:-4]) & (inner > contrast[4:-2]) & (inner >= contrast[:-6]) & (inner > contrast[6:])
    found = np.flatnonzero(higher & (inner >= LEAST_CONTRAST)) + 3
    places = []
    for at in found:
        near = np.maximum(sums[at - 3 : at + 4], 0.0)
        places.append(at + float(np.dot(near, np.arange(-3, 4)) / near.sum()))
    return np.array(places), float(contrast[found].min()) if found.size else 0.0


def _widths(aligned: Floats, places: Floats) -> Floats:
    """Widths of the lines, in pixels; not a number at the picture's edge, or where a line stands out in no strip.

    Nuclei beside a line widen its profile: it is taken in each strip by itself, where the line stands out at all, and
    the lower quartile counts.
    """
    least = LEAST_CONTRAST * 1.4826 * float(np.median(np.abs(aligned)))
    widths = np.full(places.size, np.nan)
    for number, at in enumerate(np.rint(places).astype(np.intp)):
        if _WIDTH_PX <= at < aligned.shape[1] - _WIDTH_PX:
            near = np.maximum(aligned[:, at - _WIDTH_PX : at + _WIDTH_PX + 1], 0.0)
            height = near[:, _WIDTH_PX - 1 : _WIDTH_PX + 2].max(axis=1)
            seen = height > least
            if seen.any():
                widths[number] = np.quantile(near[seen].sum(axis=1) / height[seen], 0.25)
    return widths


def register(tiles: Sequence[Tile], lines: Sequence[Lines], pixel_um: float, expected: Expected) -> Registration:
    """Find how the chip lies, from the lines of all tiles.

    Args:
        tiles: The pictures.
        lines: What `find_lines` found in each.
        pixel_um: Size of a pixel.
        expected: How it should lie.

    Raises:
        ValueError: too few lines were found, or they do not fit the pattern.
    """
    useful = [found for found in lines if found.crossings]
    if not useful:
        raise ValueError("no tile shows track lines of both directions")
    direction = float(np.median([found.direction_deg for found in useful]))
    points = [_points(tiles, lines, axis) for axis in (0, 1)]
    patterns = (-expected.lines_x_um[::-1] if expected.mirrored else expected.lines_x_um, expected.lines_y_um)
    start = _first_fit(points, patterns, direction, expected.offset_um)
    inverse = _refined(points, patterns, start)
    chip = [_along(points[axis], inverse, axis) for axis in (0, 1)]
    scale = 1.0 / math.hypot(inverse[0], inverse[1])
    off = np.concatenate([scale * np.abs(chip[axis] - _nearest(patterns[axis], chip[axis])) for axis in (0, 1)])
    good = off <= MOST_RESIDUAL_UM
    recall = _recall(tiles, points, inverse, patterns, pixel_um)
    if good.sum() < LEAST_LINES or recall < LEAST_RECALL:
        raise ValueError(
            f"only {recall:.0%} of the lines that should be there fit the chip's pattern, {int(good.sum())} in all"
        )
    a, b, c, d = (float(value) for value in inverse)
    norm = a * a + b * b
    return Registration(
        ((-a * c + b * d) / norm, (-b * c - a * d) / norm),
        math.degrees(math.atan2(b, a)),
        scale,
        expected.mirrored,
        int(good.sum()),
        recall,
        float(np.sqrt(np.mean(off[good] ** 2))),
        float(off[good].max()),
    )


def _points(tiles: Sequence[Tile], lines: Sequence[Lines], axis: int) -> Floats:
    """Where each line of an axis is nearest to its tile's centre, on the stage, shape (n, 2)."""
    found = []
    for tile, tile_lines in zip(tiles, lines, strict=True):
        normal = np.array(_normal(tile_lines.direction_deg, axis))
        places = tile_lines.across_x_um if axis == 0 else tile_lines.across_y_um
        centre = np.array([tile.x_um, tile.y_um])
        found.append(centre + (places - centre @ normal)[:, None] * normal)
    return np.concatenate(found)


# A stage point (x, y) lies at a x + b y + c along the chip's x, and at -b x + a y + d along its y: four numbers, so
# that every line found is one linear equation.


def _along(points: Floats, inverse: Floats, axis: int) -> Floats:
    a, b, c, d = inverse
    result: Floats = points @ np.array([a, b]) + c if axis == 0 else points @ np.array([-b, a]) + d
    return result


def _nearest(pattern: Floats, values: Floats) -> Floats:
    after = np.clip(np.searchsorted(pattern, values), 1, pattern.size - 1)
    below, above = pattern[after - 1], pattern[after]
    return np.where(values - below <= above - values, below, above)


def _first_fit(
    points: Sequence[Floats], patterns: Sequence[Floats], direction_deg: float, corner_um: tuple[float, float]
) -> Floats:
    """The scale and the two shifts of the pattern that most lines agree with, near where the chip should be."""
    best, result = -1, np.zeros(4)
    places = [points[axis] @ np.array(_normal(direction_deg, axis)) for axis in (0, 1)]
    guesses = [float(np.dot(corner_um, _normal(direction_deg, axis))) for axis in (0, 1)]
    for scale in 1.0 + np.arange(-_MOST_STRETCH, _MOST_STRETCH + 5e-4, 1e-3):
        votes, shifts = 0, []
        for axis in (0, 1):
            pattern = scale * patterns[axis]
            period = float(pattern[9] - pattern[0]) if pattern.size > 9 else 1e9
            shift = (places[axis][:, None] - pattern[None, :]).ravel()
            shift = np.sort(shift[np.abs(shift - guesses[axis]) <= period / 3])
            ends = np.searchsorted(shift, shift + _VOTE_UM)
            if not shift.size:
                raise ValueError("no line lies where the chip is expected")
            top = int(np.argmax(ends - np.arange(shift.size)))
            votes += int(ends[top]) - top
            shifts.append(float(np.median(shift[top : ends[top]])))
        if votes > best:
            best = votes
            angle = math.radians(direction_deg)
            turn = np.array([math.cos(angle), math.sin(angle)])
            result = np.array([*turn, -shifts[0], -shifts[1]]) / scale
    return result


def _refined(points: Sequence[Floats], patterns: Sequence[Floats], start: Floats) -> Floats:
    """Least squares over the lines that fit, with ever narrower bounds."""
    inverse = start
    for limit_um in (30.0, 20.0, 12.0, 8.0, MOST_RESIDUAL_UM, MOST_RESIDUAL_UM, MOST_RESIDUAL_UM):
        rows, values = [], []
        for axis in (0, 1):
            chip = _along(points[axis], inverse, axis)
            on_pattern = _nearest(patterns[axis], chip)
            keep = np.abs(chip - on_pattern) <= limit_um
            x, y = points[axis][keep].T
            zero, one = np.zeros(x.size), np.ones(x.size)
            rows.append(np.column_stack([x, y, one, zero] if axis == 0 else [y, -x, zero, one]))
            values.append(on_pattern[keep])
        design = np.concatenate(rows)
        if np.linalg.matrix_rank(design) < 4:
            raise ValueError(f"only {len(design)} lines fit the chip's pattern")
        inverse = np.linalg.lstsq(design, np.concatenate(values), rcond=None)[0]
    return inverse


def _recall(
    tiles: Sequence[Tile], points: Sequence[Floats], inverse: Floats, patterns: Sequence[Floats], pixel_um: float
) -> float:
    """Share of the lines that should be well inside a tile and were found there."""
    expected = found = 0
    for tile in tiles:
        half = 0.4 * min(tile.pixels.shape) * pixel_um
        centre = np.array([[tile.x_um, tile.y_um]])
        for axis in (0, 1):
            middle = float(_along(centre, inverse, axis)[0])
            wanted = patterns[axis][np.abs(patterns[axis] - middle) <= half]
            near = points[axis][np.abs(points[axis] - centre).max(axis=1) <= max(tile.pixels.shape) * pixel_um]
            chip = _along(near, inverse, axis)
            expected += wanted.size
            if chip.size:
                found += int(sum(np.min(np.abs(chip - place)) <= MOST_RESIDUAL_UM for place in wanted))
    return found / expected if expected else 0.0
