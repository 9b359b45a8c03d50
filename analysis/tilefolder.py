"""A folder of tiles, as an imaging step leaves it: ``tiles.json`` and the pictures (docs/formats/pictures.md)."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, overload

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cartoseq.analysis.pictures import Picture, binned
from cartoseq.analysis.trackcross import PATTERN_STEPS, Tile
from cartoseq.streaming.errors import InputError

# What it finds wrong with a file is told as one error; its log is for who asks for it.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

Floats = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]

SCHEMA: Final = 1
_AGAIN: Final = "Take the pictures again, or copy the folder again from where it came."
#: So many pictures are kept in memory.
_KEPT: Final = 48


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class CameraFacts(_Table):
    """The camera that took the pictures."""

    name: str = ""
    maker: str = ""
    model: str = ""
    serial_number: str = ""


class ChannelFacts(_Table):
    """One picture of each tile."""

    name: str
    exposure_ms: Positive
    light: str = ""
    power_mw: float | None = None


class ChipPlace(_Table):
    """The chip, and how its holder lays it on the stage.

    The corner is that of the chip as it lies: its least x and y on the stage. A chip may lie mirrored, its x running
    backwards, and then turned by right angles, x towards y.
    """

    corner_um: tuple[Number, Number]
    width_um: Positive
    height_um: Positive
    pitch_nm: int = 500
    mirrored: bool = False
    quarter_turns: Annotated[int, Field(ge=0, le=3)] = 0


class ScanFacts(_Table):
    """What holds for all tiles."""

    taken: str = ""
    duration_s: float | None = None
    camera: CameraFacts = CameraFacts()
    pixel_um: Positive
    width_px: Annotated[int, Field(ge=32)]
    height_px: Annotated[int, Field(ge=32)]
    bit_depth: Annotated[int, Field(ge=8, le=16)]
    rows: Count
    columns: Count
    overlap_percent: Annotated[float, Field(ge=0, lt=50)]
    channels: Annotated[tuple[ChannelFacts, ...], Field(min_length=1)]
    chip: ChipPlace


class TileFacts(_Table):
    """One tile: where it was taken, how well, and its pictures, one of each channel."""

    row: Annotated[int, Field(ge=0)]
    column: Annotated[int, Field(ge=0)]
    x_um: Number
    y_um: Number
    sharpness: float = 0.0
    saturated: float = 0.0
    takes: int = 1
    fault: str = ""
    files: Annotated[tuple[str, ...], Field(min_length=1)]


class _TilesFile(_Table):
    schema_number: Annotated[Literal[1], Field(alias="schema")]
    scan: ScanFacts
    reports: Annotated[tuple[TileFacts, ...], Field(min_length=1)]


class TileFolder:
    """The tiles of a scan; pictures are read when they are asked for, and some of them kept.

    Args:
        path: The folder.

    Raises:
        InputError: there is no ``tiles.json``, or it does not fit its format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _read(path / "tiles.json")
        self.scan: ScanFacts = content.scan
        self.tiles: tuple[TileFacts, ...] = content.reports
        self.centres_um: Floats = np.array([(tile.x_um, tile.y_um) for tile in self.tiles])
        """Where the stage says that each tile was taken, shape (tiles, 2)."""
        self._kept: OrderedDict[tuple[int, int, int], Picture] = OrderedDict()

    def picture(self, number: int, channel: int = 0, binning: int = 1) -> Picture:
        """The picture of a tile, or means over squares of its pixels; pixels left over at the far edges are cut off.

        Args:
            number: Of the tile, from 0.
            channel: From 0.
            binning: Side of the squares.

        Raises:
            InputError: the file is missing, broken, or of another shape than the scan's.
        """
        key = (number, channel, binning)
        if key not in self._kept:
            self._kept[key] = binned(self._read(number, channel), binning)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _read(self, number: int, channel: int) -> Picture:
        path = self.path / self.tiles[number].files[channel]
        try:
            pixels = tifffile.imread(path)
        except FileNotFoundError:
            raise InputError(path, "the picture is missing, but tiles.json names it", remedy=_AGAIN) from None
        except PermissionError:
            raise
        except Exception as error:  # tifffile raises whatever a broken byte leads to
            raise InputError(path, f"the picture cannot be read as TIFF: {error}", remedy=_AGAIN) from error
        shape = (self.scan.height_px, self.scan.width_px)
        if pixels.shape != shape or pixels.dtype not in (np.uint8, np.uint16):
            problem = f"expected {shape[1]} x {shape[0]} grey values, found shape {pixels.shape} of {pixels.dtype}"
            raise InputError(path, problem, remedy=_AGAIN)
        return pixels

    def views(self, centres_um: Floats, channel: int = 0, binning: int = 1) -> Views:
        """The tiles at given places, as a sequence that reads each when it is asked for."""
        return Views(self, centres_um, channel, binning)


class Views(Sequence[Tile]):
    """Tiles of a folder at given places; see `TileFolder.views`."""

    def __init__(self, folder: TileFolder, centres_um: Floats, channel: int, binning: int) -> None:
        self._folder, self._channel, self._binning = folder, channel, binning
        self.pixel_um = folder.scan.pixel_um * binning
        """Size of their pixels."""
        # What is cut off at the far edges moves the centre.
        over = np.array([folder.scan.width_px % binning, folder.scan.height_px % binning])
        self._centres_um = centres_um - over / 2 * folder.scan.pixel_um

    def __len__(self) -> int:
        """How many tiles there are."""
        return len(self._centres_um)

    @overload
    def __getitem__(self, number: int) -> Tile: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Tile]: ...
    def __getitem__(self, number: int | slice) -> Tile | Sequence[Tile]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        x_um, y_um = self._centres_um[number]
        return Tile(self._folder.picture(number, self._channel, self._binning), float(x_um), float(y_um))


def _read(path: Path) -> _TilesFile:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(path.parent, "there is no tiles.json: no scan ended here", remedy=_AGAIN) from None
    except UnicodeDecodeError as error:
        raise InputError(path, f"this is no text: {error.reason}", remedy=_AGAIN) from error
    try:
        content: Any = json.loads(text)
        found = _TilesFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InputError(path, first["msg"], place=f"key {place}", remedy=_AGAIN) from error
    except ValueError as error:
        raise InputError(path, f"this is no JSON: {error}", remedy=_AGAIN) from error
    _check(found, path)
    return found


def _check(content: _TilesFile, path: Path) -> None:
    """What a single key cannot tell.

    Raises:
        InputError: it does not hold together.
    """
    scan, seen = content.scan, set()
    if scan.chip.pitch_nm not in PATTERN_STEPS:
        known = ", ".join(str(pitch) for pitch in PATTERN_STEPS)
        problem = f"no track lines are known for a pitch of {scan.chip.pitch_nm} nm"
        raise InputError(path, problem, place="key scan.chip.pitch_nm", remedy=f"Known are {known} nm.")
    for number, tile in enumerate(content.reports):
        place = f"key reports.{number}"
        if tile.row >= scan.rows or tile.column >= scan.columns or (tile.row, tile.column) in seen:
            problem = f"row {tile.row}, column {tile.column} is there twice, or outside {scan.rows} x {scan.columns}"
            raise InputError(path, problem, place=place, remedy=_AGAIN)
        seen.add((tile.row, tile.column))
        if len(tile.files) != len(scan.channels):
            problem = f"expected {len(scan.channels)} files, one of each channel, found {len(tile.files)}"
            raise InputError(path, problem, place=place, remedy=_AGAIN)
        if any(Path(name).name != name for name in tile.files):
            raise InputError(path, "a file lies outside the folder", place=place, remedy=_AGAIN)
