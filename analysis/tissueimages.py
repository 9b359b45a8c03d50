"""What a run keeps of its registered tissue pictures: the picture and the mask in chip coordinates, and the numbers.

::

    RUN/images/tissue/ tiles.json, r...c...-CHANNEL.ome.tif   as they were taken
                       registered.ome.tif                     the chip as a whole
                       mask.tif                               255 where there is tissue
                       registration.json                      places, pose and quality

``docs/formats/pictures.md`` explains every number. ``registration.json`` is written last: it names the other two.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from cartoseq import __version__
from cartoseq.analysis.atomic import replace_atomically, write_text_atomically
from cartoseq.analysis.chip import ChipFrame
from cartoseq.analysis.maps import SpatialMap
from cartoseq.analysis.registration import Field, RegisteredScan, picture_blocks
from cartoseq.analysis.stitching import Overlap
from cartoseq.analysis.tissuemask import TissueMask, tissue_mask
from cartoseq.streaming.errors import InputError

SCHEMA: Final = 1
PICTURE: Final = "registered.ome.tif"
MASK: Final = "mask.tif"
NUMBERS: Final = "registration.json"
#: Size of the pixels of the registered picture, and of the mask's cells, in micrometres, unless asked otherwise.
PIXEL_UM: Final = 1.0
CELL_UM: Final = 5.0
_AGAIN: Final = "Make it again with `cartoseq register`."
_TISSUE: Final = 255
_ROWS_AT_ONCE: Final = 1 << 22


def write_tissue_images(scan: RegisteredScan, pixel_um: float = PIXEL_UM, cell_um: float = CELL_UM) -> TissueMask:
    """Write picture, mask and numbers beside the tiles, each whole or not at all.

    Args:
        scan: The registered scan.
        pixel_um: Size of a pixel of the picture.
        cell_um: Size of a cell of the mask.

    Raises:
        InputError: a tile cannot be read.
        OSError: the disk is full or refuses.
    """
    folder, facts = scan.folder, scan.folder.scan
    tiles = folder.views(scan.centres_um, binning=max(1, math.floor(cell_um / 2 / facts.pixel_um + 1e-9)))
    mask = tissue_mask(tiles, scan.pose, tiles.pixel_um, scan.size_um, scan.lines_um, cell_um)
    names = [channel.name for channel in facts.channels]
    with replace_atomically(folder.path / PICTURE) as temporary:
        _write_picture(temporary, scan, pixel_um, names)
    with replace_atomically(folder.path / MASK) as temporary:
        tifffile.imwrite(
            temporary,
            mask.mask.astype(np.uint8) * np.uint8(_TISSUE),
            photometric="minisblack",
            resolution=(10_000 / cell_um, 10_000 / cell_um),
            resolutionunit="CENTIMETER",
            metadata=None,
            software=None,
        )
    numbers = registration_numbers(scan, mask, pixel_um)
    write_text_atomically(folder.path / NUMBERS, json.dumps(numbers, indent=1) + "\n")
    return mask


def _write_picture(path: Path, scan: RegisteredScan, pixel_um: float, names: Sequence[str]) -> None:
    height, width = scan.shape(pixel_um)
    picture = tifffile.memmap(
        path,
        shape=(len(names), height, width),
        dtype=np.uint16,
        photometric="minisblack",
        bigtiff=len(names) * height * width * 2 > 3_900_000_000,
        ome=True,
        metadata={
            "axes": "CYX",
            "PhysicalSizeX": pixel_um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": pixel_um,
            "PhysicalSizeYUnit": "µm",
            "SignificantBits": scan.folder.scan.bit_depth,
            "Channel": {"Name": list(names)},
        },
    )
    for channel in range(len(names)):
        for rows, columns, grey in picture_blocks(scan, pixel_um, channel):
            picture[channel, rows, columns] = grey
    picture.flush()


def registration_numbers(scan: RegisteredScan, mask: TissueMask, pixel_um: float) -> dict[str, Any]:
    """All that ``registration.json`` holds; see docs/formats/pictures.md."""
    facts, qc, fit = scan.folder.scan, scan.qc, scan.pose.fit
    height, width = scan.shape(pixel_um)
    return {
        "schema": SCHEMA,
        "cartoseq": __version__,
        "image": {
            **facts.model_dump(exclude={"chip"}, mode="json"),
            "channel_count": len(facts.channels),
            "pitch_nm": scan.chip.pitch_nm,
        },
        "chip": scan.chip.model_dump(mode="json"),
        "qc": {
            "passed": qc.passed,
            "track_cross_passed": qc.track_cross_passed,
            "stitch_passed": qc.stitch_passed,
            "clarity_passed": qc.clarity_passed,
            "fields": qc.fields,
            "good_fields": qc.good_fields,
            "line_recall": round(qc.line_recall, 4),
            "template_recall": round(qc.template_recall, 4),
            "stitch_score": round(qc.stitch_score, 4),
            "seam_um": round(qc.seam_um, 3),
            "overlaps": qc.overlaps,
            "out_of_place": qc.out_of_place,
            "clarity": round(qc.clarity, 4),
            "line_width_um": round(qc.line_width_um, 3),
        },
        "pose": {
            "rotation_deg": round(fit.rotation_deg, 5),
            "scale": round(fit.scale, 7),
            "offset_um": [round(value, 3) for value in fit.offset_um],
            "mirrored": scan.chip.mirrored,
            "quarter_turns": scan.chip.quarter_turns,
            "matrix": scan.pose.matrix.tolist(),
            "lines": fit.lines,
            "residual_um": round(fit.residual_um, 3),
            "worst_um": round(fit.worst_um, 3),
        },
        "template": {
            "lines_x_um": scan.lines_um[0].round(3).tolist(),
            "lines_y_um": scan.lines_um[1].round(3).tolist(),
        },
        "stitch": {
            "horizontal_um": _matrix(scan, "h"),
            "vertical_um": _matrix(scan, "v"),
            "disagreeing": [
                [_cell(scan, pair.first), _cell(scan, pair.second)]
                for pair, agrees in zip(scan.overlaps, scan.agreeing, strict=True)
                if not agrees
            ],
        },
        "tiles": [_tile(field) for field in scan.fields],
        "picture": {"file": PICTURE, "pixel_um": pixel_um, "width_px": width, "height_px": height},
        "mask": {
            "file": MASK,
            "cell_um": mask.cell_um,
            "columns": mask.mask.shape[1],
            "rows": mask.mask.shape[0],
            "area_um2": mask.area_um2,
            "seen": round(float(mask.seen.mean()), 4),
        },
    }


def _matrix(scan: RegisteredScan, side: str) -> list[list[list[float | None] | None]]:
    """Deviation of each tile's overlap with its left (or upper) neighbour: x and y, none where it tells nothing."""
    facts = scan.folder.scan
    result: list[list[list[float | None] | None]] = [[None] * facts.columns for _ in range(facts.rows)]
    for pair in scan.overlaps:
        if pair.side == side:
            row, column = _cell(scan, pair.second)
            result[row][column] = _told(pair)
    return result


def _told(pair: Overlap) -> list[float | None]:
    return [round(off, 3) if tells else None for off, tells in zip(pair.deviation_um, pair.tells, strict=True)]


def _cell(scan: RegisteredScan, number: int) -> list[int]:
    return [scan.fields[number].row, scan.fields[number].column]


def _tile(field: Field) -> dict[str, Any]:
    return {
        "row": field.row,
        "column": field.column,
        "x_um": round(field.x_um, 3),
        "y_um": round(field.y_um, 3),
        "moved_um": [round(value, 3) for value in field.moved_um],
        "out_of_place": field.out_of_place,
        "good": field.good,
        "crossings_px": field.crossings_px.round(2).tolist(),
        "stray_crossings": field.stray,
        "template_crossings": field.wanted,
        "template_found": field.found,
        "line_width_um": None if field.line_width_um is None else round(field.line_width_um, 3),
        "clear": field.clear,
        "fault": field.fault,
    }


@dataclass(frozen=True)
class TissueImages:
    """The registered pictures of a run.

    Args:
        path: The folder that holds them.
        numbers: All that ``registration.json`` holds.
    """

    path: Path
    numbers: dict[str, Any]

    @property
    def qc(self) -> dict[str, Any]:
        """How good the pictures are."""
        return dict(self.numbers["qc"])

    @property
    def channels(self) -> tuple[str, ...]:
        """What each picture is called; the first shows the track lines."""
        return tuple(channel["name"] for channel in self.numbers["image"]["channels"])

    @property
    def pixel_um(self) -> float:
        """Size of a pixel of the pictures: (row, column) lies at ((column + 0.5), (row + 0.5)) times it on the chip."""
        return float(self.numbers["picture"]["pixel_um"])

    @property
    def cell_um(self) -> float:
        """Size of a cell of the mask."""
        return float(self.numbers["mask"]["cell_um"])

    @cached_property
    def pictures(self) -> NDArray[np.uint16]:
        """The chip in its own coordinates: uint16, shape (channels, rows = y, columns = x); read as it is used.

        Raises:
            InputError: the file is missing, broken, or not the one that was written.
        """
        facts = self.numbers["picture"]
        path = self.path / facts["file"]
        found = _opened(path)
        shape = (len(self.channels), facts["height_px"], facts["width_px"])
        if found.dtype != np.uint16 or found.size != math.prod(shape):
            raise InputError(path, f"expected shape {shape}, found {found.shape}", remedy=_AGAIN)
        return found.reshape(shape)

    @property
    def picture(self) -> NDArray[np.uint16]:
        """The first channel of `pictures`, shape (rows, columns)."""
        first: NDArray[np.uint16] = self.pictures[0]
        return first

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Where there is tissue: bool, shape (rows = y, columns = x), cells of `cell_um`.

        Raises:
            InputError: the file is missing, broken, or not the one that was written.
        """
        facts = self.numbers["mask"]
        path = self.path / facts["file"]
        found = _opened(path)
        if found.shape != (facts["rows"], facts["columns"]):
            problem = f"expected shape ({facts['rows']}, {facts['columns']}), found {found.shape}"
            raise InputError(path, problem, remedy=_AGAIN)
        tissue: NDArray[np.bool_] = found != 0
        return tissue

    def counts(self, spatial: SpatialMap) -> TissueCounts | None:
        """How a map lies on the tissue; nothing where the chip's pitch is unknown."""
        pitch_um = spatial.frame.pitch_um
        if pitch_um is None:
            return None
        mask, cells = self.mask, self.mask.size
        molecules, reads = np.zeros(cells), np.zeros(cells)
        for start in range(0, spatial.rows, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            x_um, y_um = chip_um(spatial.frame, pitch_um, spatial.x[part], spatial.y[part])
            column, row = (np.floor(along / self.cell_um).astype(np.int64) for along in (x_um, y_um))
            inside = (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
            cell = row[inside] * mask.shape[1] + column[inside]
            molecules += np.bincount(cell, spatial.molecules[part][inside], cells)
            reads += np.bincount(cell, spatial.reads[part][inside], cells)
        return TissueCounts(
            molecules.astype(np.int64).reshape(mask.shape),
            reads.astype(np.int64).reshape(mask.shape),
            int(spatial.molecules.sum(dtype=np.uint64)),
            int(spatial.reads.sum(dtype=np.uint64)),
            mask,
        )


@dataclass(frozen=True)
class TissueCounts:
    """How a map lies on the tissue.

    Attributes:
        molecules_per_cell: Of the map, in each cell of the mask, int64, shape (rows, columns).
        reads_per_cell: Reads of these molecules.
        molecules_total: Of the map, also outside the mask's frame.
        reads_total: Of all molecules of the map.
        mask: Where there is tissue, shape (rows, columns).
    """

    molecules_per_cell: NDArray[np.int64]
    reads_per_cell: NDArray[np.int64]
    molecules_total: int
    reads_total: int
    mask: NDArray[np.bool_]

    @property
    def molecules(self) -> int:
        """Under tissue."""
        return int(self.molecules_per_cell[self.mask].sum())

    @property
    def reads(self) -> int:
        """Of the molecules under tissue."""
        return int(self.reads_per_cell[self.mask].sum())


def chip_um(
    frame: ChipFrame, pitch_um: float, x: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where spots lie on the chip, in micrometres from its corner: a spot's middle is half a pitch from its edges."""
    middle = 0.5 if frame.x is None else 0.0
    return (x - frame.origin_x + middle) * pitch_um, (y - frame.origin_y + middle) * pitch_um


def read_tissue_images(folder: Path) -> TissueImages | None:
    """Open the registered pictures in a folder of tiles; nothing where nothing was registered.

    Raises:
        InputError: ``registration.json`` is damaged, or of another schema.
    """
    path = folder / NUMBERS
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(path, f"no longer reads as it was written: {error}", remedy=_AGAIN) from error
    found = numbers.get("schema", "none") if isinstance(numbers, dict) else "none"
    if found != SCHEMA:
        raise InputError(path, f"expected schema {SCHEMA}, found {found}", remedy=_AGAIN)
    return TissueImages(folder, numbers)


def _opened(path: Path) -> NDArray[Any]:
    try:
        return tifffile.memmap(path, mode="r")
    except FileNotFoundError:
        raise InputError(path, "the file is missing, but registration.json names it", remedy=_AGAIN) from None
    except PermissionError:
        raise
    except Exception as error:  # tifffile raises whatever a broken byte leads to
        raise InputError(path, f"this cannot be read as TIFF: {error}", remedy=_AGAIN) from error
