"""Registration of a scan to its chip: where the tiles lie, how the chip lies, and how good the pictures are.

From a folder of tiles: the tiles are put where their overlaps say (`analysis.stitching`), their track lines are found
and fitted to the chip's pattern (`analysis.trackcross`), and every crossing that the pattern has within the pictures is
looked for. The chip's place in its holder says what lines cannot tell: mirrored or not, and by how many right angles it
is turned. Pictures and a mask in the chip's own coordinates follow (`analysis.tissuemask`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cartoseq.analysis.pictures import coarse_binning
from cartoseq.analysis.stitching import Overlap, measure_overlaps, place_tiles, seams_um
from cartoseq.analysis.tilefolder import ChipPlace, TileFolder
from cartoseq.analysis.trackcross import (
    LEAST_RECALL,
    Expected,
    Registration,
    Tile,
    find_lines,
    register,
    track_lines_um,
)
from cartoseq.streaming.errors import InputError

Floats = NDArray[np.float64]
Say = Callable[[str], None]

#: A field of view counts as good with more track crossings than this [IPR: GoodFOVCount].
LEAST_CROSSINGS: Final = 3
#: A crossing of the pattern counts as found if a crossing in a picture is so near, in pixels [IPR: TemplateRecall].
CROSSING_PX: Final = 5.0
#: A picture is clear if its lines are at most so much wider than those of the clearest quarter of all.
MOST_WIDENING: Final = 1.3
#: A tile counts as out of place beyond this distance from where the stage says, in micrometres.
MOST_MOVED_UM: Final = 5.0
#: Shares that pass.
LEAST_STITCH: Final = 0.9
LEAST_CLARITY: Final = 0.9
#: Crossings so near to the edge of a tile are not asked for, in pixels.
_EDGE_PX: Final = 10.0
_BLOCK_PX: Final = 512


@dataclass(frozen=True)
class ChipPose:
    """How a chip lies on the stage.

    Chip coordinates count from the chip's corner, along its own x and y. Mirrored, then turned by right angles (x
    towards y), the chip fills a rectangle again; the fit says how this rectangle lies on the stage.

    Attributes:
        fit: stage = offset + scale * turn(rotation) * rectangle.
        width_um: Of the chip, along its own x.
        height_um: Along its own y.
        mirrored: Whether its x runs backwards.
        quarter_turns: By how many right angles it is turned.
    """

    fit: Registration
    width_um: float
    height_um: float
    mirrored: bool
    quarter_turns: int

    def to_stage(self, chip_um: Floats) -> Floats:
        """Stage coordinates of chip points, shape (n, 2)."""
        return self.fit.to_stage(lay(chip_um, self.width_um, self.height_um, self.mirrored, self.quarter_turns))

    def to_chip(self, stage_um: Floats) -> Floats:
        """Chip coordinates of stage points, shape (n, 2)."""
        laid = self.fit.to_chip(stage_um)
        # Back by the turns that are left to a whole one, from the rectangle as it lies.
        sides = (self.width_um, self.height_um) if self.quarter_turns % 2 == 0 else (self.height_um, self.width_um)
        back = lay(laid, *sides, mirrored=False, quarter_turns=-self.quarter_turns % 4)
        return lay(back, self.width_um, self.height_um, self.mirrored, 0)

    @property
    def matrix(self) -> Floats:
        """Chip to stage: stage = matrix @ (x, y, 1), shape (2, 3)."""
        zero, x, y = self.to_stage(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        return np.column_stack([x - zero, y - zero, zero])


def lay(points_um: Floats, width_um: float, height_um: float, mirrored: bool, quarter_turns: int) -> Floats:
    """Mirror a rectangle with its points, and turn it by right angles (x towards y); its corner is (0, 0) again.

    Args:
        points_um: In the rectangle's coordinates, shape (n, 2).
        width_um: Of the rectangle.
        height_um: See above.
        mirrored: Whether x is turned round first.
        quarter_turns: 0 to 3.
    """
    x, y = points_um[:, 0], points_um[:, 1]
    if mirrored:
        x = width_um - x
    for _ in range(quarter_turns):
        x, y = height_um - y, x
        width_um, height_um = height_um, width_um
    return np.column_stack([x, y])


@dataclass(frozen=True)
class Field:
    """What is known of one tile (field of view) after registration.

    Attributes:
        row: Of the scan.
        column: Of the scan.
        x_um: Its centre on the stage, as the overlaps say.
        y_um: See above.
        moved_um: How far that is from where the stage says: x and y.
        crossings_px: Where track lines of the pattern cross in it: column and row, shape (n, 2).
        stray: How many crossings were found that the pattern does not have.
        wanted: How many crossings the pattern has in it.
        found: How many of these were found.
        line_width_um: Median width of the lines that cross; nothing without any.
        clear: Whether it is as sharp as its like; nothing where it has no lines to tell by.
        fault: What was wrong with it when it was taken; empty for a good one.
    """

    row: int
    column: int
    x_um: float
    y_um: float
    moved_um: tuple[float, float]
    crossings_px: Floats
    stray: int
    wanted: int
    found: int
    line_width_um: float | None
    clear: bool | None
    fault: str

    @property
    def good(self) -> bool:
        """Whether it shows enough crossings."""
        return len(self.crossings_px) > LEAST_CROSSINGS

    @property
    def out_of_place(self) -> bool:
        """Whether the stage was not where it said."""
        return math.hypot(*self.moved_um) > MOST_MOVED_UM


@dataclass(frozen=True)
class ImageQc:
    """How good a scan is, in numbers.

    Attributes:
        fields: How many tiles there are.
        good_fields: How many show more than `LEAST_CROSSINGS` crossings.
        line_recall: Share of the pattern's lines within the pictures that were found.
        template_recall: Share of the pattern's crossings within the pictures found within `CROSSING_PX`.
        stitch_score: Share of the compared overlaps that agree with the solved places.
        seam_um: Root mean square of what these overlaps are still off.
        overlaps: How many overlaps could be compared.
        out_of_place: How many tiles lie elsewhere than the stage says.
        clarity: Share of the tiles that show crossings, or should, that are clear.
        line_width_um: Median width of the lines over all tiles.
    """

    fields: int
    good_fields: int
    line_recall: float
    template_recall: float
    stitch_score: float
    seam_um: float
    overlaps: int
    out_of_place: int
    clarity: float
    line_width_um: float

    @property
    def track_cross_passed(self) -> bool:
        """Whether enough of the pattern is seen."""
        return self.template_recall >= LEAST_RECALL

    @property
    def stitch_passed(self) -> bool:
        """Whether the tiles fit together."""
        return self.stitch_score >= LEAST_STITCH

    @property
    def clarity_passed(self) -> bool:
        """Whether enough tiles are sharp."""
        return self.clarity >= LEAST_CLARITY

    @property
    def passed(self) -> bool:
        """Whether the scan passes altogether."""
        return self.track_cross_passed and self.stitch_passed and self.clarity_passed


@dataclass(frozen=True)
class RegisteredScan:
    """A scan that is registered to its chip.

    Attributes:
        folder: Its tiles.
        chip: The chip, and how its holder lays it.
        pose: How it lies.
        lines_um: Its track lines along y (their x), and along x (their y).
        fields: One of each tile, in the order in which they were taken.
        overlaps: Neighbours that were compared.
        agreeing: Which of these agree with the solved places, shape (overlaps,).
        qc: How good the scan is.
    """

    folder: TileFolder
    chip: ChipPlace
    pose: ChipPose
    lines_um: tuple[Floats, Floats]
    fields: tuple[Field, ...]
    overlaps: tuple[Overlap, ...]
    agreeing: NDArray[np.bool_]
    qc: ImageQc

    @cached_property
    def centres_um(self) -> Floats:
        """Where the tiles lie, shape (tiles, 2)."""
        return np.array([(field.x_um, field.y_um) for field in self.fields])

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height of the chip."""
        return self.chip.width_um, self.chip.height_um

    def shape(self, pixel_um: float) -> tuple[int, int]:
        """Rows and columns of a picture of the whole chip."""
        width_um, height_um = self.size_um
        return math.ceil(height_um / pixel_um - 1e-9), math.ceil(width_um / pixel_um - 1e-9)


def register_scan(folder: TileFolder, chip: ChipPlace | None = None, say: Say = lambda text: None) -> RegisteredScan:
    """Register the tiles of a folder to the chip; its first channel must show the track lines.

    Args:
        folder: The tiles.
        chip: How the chip lies in its holder; as `tiles.json` says if None.
        say: Told what goes on.

    Raises:
        InputError: a picture cannot be read, or the lines that are found do not fit the chip; how many tiles show
            lines stands in the message.
    """
    scan = folder.scan
    chip = chip or scan.chip
    cells = {(tile.row, tile.column): number for number, tile in enumerate(folder.tiles)}
    say(f"comparing the overlaps of {len(cells)} tiles")
    binning = coarse_binning(scan.pixel_um)
    raw = folder.views(folder.centres_um, binning=binning)
    overlaps = measure_overlaps(raw, cells, raw.pixel_um)
    centres_um, agreeing = place_tiles(folder.centres_um, overlaps)
    say("looking for the track lines")
    tiles = folder.views(centres_um, binning=binning)
    lines = [find_lines(tile, tiles.pixel_um) for tile in tiles]
    template = track_lines_um(chip.width_um, chip.pitch_nm), track_lines_um(chip.height_um, chip.pitch_nm)
    try:
        fit = register(tiles, lines, tiles.pixel_um, _expected(chip, template))
    except ValueError as error:
        seen = sum(bool(found.crossings) for found in lines)
        raise InputError(
            folder.path,
            f"the pictures cannot be registered: {error} ({seen} of {len(lines)} tiles show crossing lines)",
            remedy="Check focus, stain, pitch, and how the chip lies in its holder; the pictures stay as they are.",
        ) from error
    pose = ChipPose(fit, chip.width_um, chip.height_um, chip.mirrored, chip.quarter_turns)
    crossings = [found.crossings_in(tile, tiles.pixel_um) for found, tile in zip(lines, tiles, strict=True)]
    fields, recall = _fields(folder, centres_um, crossings, pose, template)
    qc = _qc(fields, fit, recall, overlaps, agreeing, centres_um - folder.centres_um)
    return RegisteredScan(folder, chip, pose, template, fields, overlaps, agreeing, qc)


def _expected(chip: ChipPlace, template: tuple[Floats, Floats]) -> Expected:
    """The rectangle that the chip fills in its holder, with the lines as they lie there."""
    places = []
    for axis, lines in enumerate(template):
        points = np.zeros((lines.size, 2))
        points[:, axis] = lines
        laid = lay(points, chip.width_um, chip.height_um, chip.mirrored, chip.quarter_turns)
        places.append(np.sort(laid[:, (axis + chip.quarter_turns) % 2]))
    if chip.quarter_turns % 2:
        places.reverse()
    return Expected(chip.corner_um, 0.0, False, places[0], places[1])


def _fields(
    folder: TileFolder,
    centres_um: Floats,
    crossings: Sequence[tuple[Floats, Floats]],
    pose: ChipPose,
    template: tuple[Floats, Floats],
) -> tuple[tuple[Field, ...], float]:
    """What is known of each tile, and the share of the pattern's crossings within the pictures that were found."""
    scan = folder.scan
    size_px = np.array([scan.width_px, scan.height_px])
    limit_um = CROSSING_PX * scan.pixel_um
    pattern = pose.to_stage(np.stack(np.meshgrid(*template), axis=-1).reshape(-1, 2))
    asked, seen = (np.zeros(len(pattern), np.bool_) for _ in range(2))
    fields = []
    for tile, centre, (points, widths) in zip(folder.tiles, centres_um, crossings, strict=True):
        inside = (np.abs(pattern - centre) <= (size_px / 2 - _EDGE_PX) * scan.pixel_um).all(axis=1)
        found = _near(pattern[inside], points, limit_um)
        asked |= inside
        seen[inside] |= found
        right = _near(points, pattern, limit_um)
        known = widths[right][~np.isnan(widths[right])]
        fields.append(
            Field(
                row=tile.row,
                column=tile.column,
                x_um=float(centre[0]),
                y_um=float(centre[1]),
                moved_um=(float(centre[0] - tile.x_um), float(centre[1] - tile.y_um)),
                crossings_px=(points[right] - centre) / scan.pixel_um + (size_px - 1) / 2,
                stray=int((~right).sum()),
                wanted=int(inside.sum()),
                found=int(found.sum()),
                line_width_um=float(np.median(known)) if known.size else None,
                clear=False if inside.any() else None,
                fault=tile.fault,
            )
        )
    return _judged(fields), float(seen.sum() / asked.sum()) if asked.any() else 0.0


def _judged(fields: Sequence[Field]) -> tuple[Field, ...]:
    """The same, with their clearness: a tile is as clear as its lines are narrow, against the narrowest quarter."""
    widths = [field.line_width_um for field in fields if field.line_width_um is not None]
    if not widths:
        return tuple(fields)
    widest_um = MOST_WIDENING * float(np.quantile(widths, 0.25))
    return tuple(
        field if field.line_width_um is None else replace(field, clear=field.line_width_um <= widest_um)
        for field in fields
    )


def _near(points: Floats, others: Floats, limit: float) -> NDArray[np.bool_]:
    """Which points have one of the others within a distance."""
    if not len(points) or not len(others):
        return np.zeros(len(points), np.bool_)
    away = np.hypot(*(points[:, None, :] - others[None, :, :]).transpose(2, 0, 1))
    near: NDArray[np.bool_] = away.min(axis=1) <= limit
    return near


def _qc(
    fields: Sequence[Field],
    fit: Registration,
    recall: float,
    overlaps: Sequence[Overlap],
    agreeing: NDArray[np.bool_],
    moved_um: Floats,
) -> ImageQc:
    seams = seams_um(moved_um, overlaps)[agreeing]
    told = [field.clear for field in fields if field.clear is not None]
    widths = [field.line_width_um for field in fields if field.line_width_um is not None]
    return ImageQc(
        fields=len(fields),
        good_fields=sum(field.good for field in fields),
        line_recall=fit.recall,
        template_recall=recall,
        # A single tile has nothing to disagree with.
        stitch_score=float(agreeing.mean()) if agreeing.size else 1.0,
        seam_um=float(np.sqrt(np.mean(seams**2))) if seams.size else 0.0,
        overlaps=len(overlaps),
        out_of_place=sum(field.out_of_place for field in fields),
        clarity=sum(told) / len(told) if told else 0.0,
        line_width_um=float(np.median(widths)) if widths else 0.0,
    )


def picture_blocks(
    scan: RegisteredScan, pixel_um: float, channel: int = 0
) -> Iterator[tuple[slice, slice, NDArray[np.uint16]]]:
    """The picture of the whole chip in chip coordinates, block by block, so that it never lies in memory as a whole.

    Between pixels it is interpolated linearly; where tiles overlap they are blended, each with less weight towards its
    edge. Where there is no tile it is zero.

    Args:
        scan: The scan.
        pixel_um: Size of a pixel: that at (row, column) shows the chip at ((column + 0.5), (row + 0.5)) times it.
        channel: From 0.

    Yields:
        Rows, columns, and grey values there.
    """
    tiles = scan.folder.views(scan.centres_um, channel, max(1, math.floor(pixel_um / scan.folder.scan.pixel_um + 1e-9)))
    height, width = scan.shape(pixel_um)
    facts = scan.folder.scan
    half_um = np.array([facts.width_px, facts.height_px]) * facts.pixel_um / 2
    for top in range(0, height, _BLOCK_PX):
        for left in range(0, width, _BLOCK_PX):
            rows, columns = slice(top, min(top + _BLOCK_PX, height)), slice(left, min(left + _BLOCK_PX, width))
            y, x = np.mgrid[rows, columns]
            stage = scan.pose.to_stage(np.column_stack([x.ravel() + 0.5, y.ravel() + 0.5]) * pixel_um)
            low, high = stage.min(axis=0), stage.max(axis=0)
            near = ((scan.centres_um + half_um >= low) & (scan.centres_um - half_um <= high)).all(axis=1)
            light, weight = np.zeros(len(stage)), np.zeros(len(stage))
            for number in np.flatnonzero(near):
                _add(tiles[int(number)], tiles.pixel_um, stage, light, weight)
            grey = np.divide(light, weight, out=np.zeros_like(light), where=weight > 0)
            yield rows, columns, np.rint(grey).astype(np.uint16).reshape(y.shape)


def _add(tile: Tile, pixel_um: float, stage: Floats, light: Floats, weight: Floats) -> None:
    """Add what a tile shows at some stage points, by its weight there."""
    height, width = tile.pixels.shape
    column = (stage[:, 0] - tile.x_um) / pixel_um + (width - 1) / 2
    row = (stage[:, 1] - tile.y_um) / pixel_um + (height - 1) / 2
    # From the edge of the outermost pixels, so that the weight is never zero within the tile.
    edge = np.minimum(np.minimum(column, width - 1 - column), np.minimum(row, height - 1 - row)) + 0.5
    inside = np.flatnonzero(edge > 0)
    if inside.size:
        values = ndimage.map_coordinates(
            tile.pixels.astype(np.float32), (row[inside], column[inside]), order=1, mode="nearest"
        )
        light[inside] += edge[inside] * values
        weight[inside] += edge[inside]
