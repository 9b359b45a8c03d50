"""The chip: which spot each spatial barcode belongs to, and where the spots are.

A spot has a 30-bit number that keeps neighbours together: its upper bits name a *shard*, a patch of the chip of at
most 65,536 spots, its low 16 bits the spot in it. Two kinds of frame:

* ``lattice``: whole-number coordinates, at most 32,768 a side. The number is made of the coordinates (patches of
  256 x 256) and no table is needed.
* ``listed``: fractional coordinates, or a wider chip. Spots are numbered along a Z-order curve, and the frame keeps
  their coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.chiptables import OTHER_LENGTH, Piece, Table, open_mask, open_records, open_text
from cartoseq.streaming.errors import InputError

NO_SPOT = 0xFFFFFFFF
MAX_SIDE = 1 << 15
# The last of the 30-bit numbers stays free: the barcode index marks with it barcodes of several spots.
MAX_SPOTS = (1 << 30) - 1
# Of so many random barcodes some have another base than A at their end; A is packed as 0.
_ENOUGH_BARCODES = 1000

_MASK_SUFFIXES = (".h5", ".hdf5")
_KNOWN_SUFFIXES = (".barcodetopos.h5", ".h5", ".hdf5", ".bin", ".txt", ".tsv", ".csv", ".gz")


class FrameKind(StrEnum):
    """How spots are numbered: from whole coordinates, or along a list."""

    LATTICE = "lattice"
    LISTED = "listed"


@dataclass(frozen=True, eq=False)
class ChipFrame:
    """Where the spots of a chip are.

    Attributes:
        kind: ``lattice`` or ``listed``.
        origin_x: Least x that the chip has, a whole number of lattice steps (or of the table's unit).
        origin_y: Least y.
        width: Steps in x: ``origin_x <= x < origin_x + width``.
        height: Steps in y.
        pitch_um: Micrometres a step, if known.
        x: Listed frames: x of every spot, float64, shape (spots,). Else None.
        y: Listed frames: y of every spot.
        name: The chip's serial number or name.
    """

    kind: FrameKind
    origin_x: int
    origin_y: int
    width: int
    height: int
    pitch_um: float | None = None
    x: NDArray[np.float64] | None = None
    y: NDArray[np.float64] | None = None
    name: str = ""

    @property
    def shards(self) -> int:
        """One more than the greatest shard number (``spot >> 16``) that a spot can have."""
        if self.x is not None:
            return (self.x.size + 0xFFFF) >> 16
        return (((self.height - 1) >> 8) << 7 | ((self.width - 1) >> 8)) + 1

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """(least x, least y, end of x, end of y): the ends are not included."""
        return self.origin_x, self.origin_y, self.origin_x + self.width, self.origin_y + self.height

    def coordinates(self, spots: NDArray[np.uint32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The chip's coordinates of some spots: int32 on a lattice, float64 on a list."""
        if self.x is not None and self.y is not None:
            return self.x[spots], self.y[spots]
        spots = np.asarray(spots, np.uint32)
        shard = spots >> np.uint32(16)
        x = (shard & np.uint32(0x7F)) << np.uint32(8) | spots & np.uint32(0xFF)
        y = (shard >> np.uint32(7)) << np.uint32(8) | (spots >> np.uint32(8)) & np.uint32(0xFF)
        return x.astype(np.int32) + np.int32(self.origin_x), y.astype(np.int32) + np.int32(self.origin_y)

    def lattice_spots(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.uint32]:
        """The spot numbers of whole coordinates inside a lattice frame, uint32.

        Raises:
            ValueError: a listed frame, whose spots have no number by coordinate.
        """
        if self.kind is not FrameKind.LATTICE:
            raise ValueError("only a lattice numbers its spots by coordinate")
        across = (np.asarray(x) - self.origin_x).astype(np.uint32)
        down = (np.asarray(y) - self.origin_y).astype(np.uint32)
        shard = (down >> np.uint32(8)) << np.uint32(7) | across >> np.uint32(8)
        local = (down & np.uint32(0xFF)) << np.uint32(8) | across & np.uint32(0xFF)
        return shard << np.uint32(16) | local

    def write(self, group: Any) -> None:
        """Write the frame into an HDF5 group (h5py)."""
        group.attrs["kind"] = str(self.kind)
        group.attrs["name"] = self.name
        for key in ("origin_x", "origin_y", "width", "height"):
            group.attrs[key] = np.int64(getattr(self, key))
        if self.pitch_um is not None:
            group.attrs["pitch_um"] = float(self.pitch_um)
        if self.x is not None and self.y is not None:
            group.create_dataset("x", data=self.x, track_times=False)
            group.create_dataset("y", data=self.y, track_times=False)

    @classmethod
    def read(cls, group: Any) -> ChipFrame:
        """Read a frame that :meth:`write` wrote.

        Raises:
            InputError: the group holds no chip frame.
        """
        try:
            kind = FrameKind(group.attrs["kind"])
            listed = kind is FrameKind.LISTED
            return cls(
                kind=kind,
                origin_x=int(group.attrs["origin_x"]),
                origin_y=int(group.attrs["origin_y"]),
                width=int(group.attrs["width"]),
                height=int(group.attrs["height"]),
                pitch_um=float(group.attrs["pitch_um"]) if "pitch_um" in group.attrs else None,
                x=group["x"][:].astype(np.float64) if listed else None,
                y=group["y"][:].astype(np.float64) if listed else None,
                name=str(group.attrs["name"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            problem = f"expected a chip frame: {error}"
            raise InputError(group.file.filename, problem, place=f"group {group.name}") from error


@dataclass(frozen=True)
class ChipOptions:
    """How a chip's table is to be read; what is None is told by the file or its kind.

    Attributes:
        barcode_column: Text tables: name in the header, or number from 1, of the barcode's column.
        x_column: Likewise of x.
        y_column: Likewise of y.
        one_based: The table counts from 1. Coordinates are moved to count from 0.
        add_shift: ``barcodeToPos.h5``: add the shifts of ``dnbInfo`` (by default x is the column and y the row).
        barcode_length: Masks: bases in a barcode (by default as ``dnbInfo`` says, or 25). Text tables: checked.
        pitch_um: Micrometres between neighbouring places.
        name: The chip's serial number or name (by default the file's).
    """

    barcode_column: str | int | None = None
    x_column: str | int | None = None
    y_column: str | int | None = None
    one_based: bool = False
    add_shift: bool = False
    barcode_length: int | None = None
    pitch_um: float | None = None
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Chip:
    """A chip's barcodes as its table lists them.

    Attributes:
        cids: Packed barcodes, uint64, shape (n,), in the file's order.
        spots: The spot of each, uint32, shape (n,).
        barcode_length: Bases in a barcode.
        frame: Where the spots are.
    """

    cids: NDArray[np.uint64]
    spots: NDArray[np.uint32]
    barcode_length: int
    frame: ChipFrame


def read_chip(path: str | Path, options: ChipOptions | None = None) -> Chip:
    """Read a chip's table of barcodes: ``barcodeToPos.h5``, ``.bin`` or text (see :mod:`.chiptables`).

    Raises:
        InputError: the file is missing, unreadable or malformed; the message says where and what to do.
    """
    path = Path(path)
    options = options or ChipOptions()
    table = _open(path, options)
    name = options.name if options.name is not None else _name_of(path)
    pitch = options.pitch_um if options.pitch_um is not None else table.pitch_um
    if options.barcode_length not in (None, table.barcode_length):
        problem = f"expected barcodes of {options.barcode_length} bases, found {table.barcode_length}"
        raise InputError(path, problem, remedy=OTHER_LENGTH)
    least_x, least_y = int(np.floor(table.extent[0])), int(np.floor(table.extent[1]))
    width, height = int(table.extent[2]) - least_x + 1, int(table.extent[3]) - least_y + 1
    fits = width <= MAX_SIDE and height <= MAX_SIDE and min(width, height) < MAX_SIDE
    if table.integral and fits:
        frame = ChipFrame(FrameKind.LATTICE, least_x, least_y, width, height, pitch, name=name)
        cids, spots = _number_lattice(table, frame)
    else:
        cids, spots, x, y = _number_listed(path, table)
        frame = ChipFrame(FrameKind.LISTED, least_x, least_y, width, height, pitch, x, y, name)
    if not cids.size:
        raise InputError(path, "the table has no barcodes", remedy="Copy or download the file again.")
    if cids.size > MAX_SPOTS:
        raise _too_large(path, cids.size)
    longest = (int(cids.max()).bit_length() + 1) // 2
    if longest < table.barcode_length and cids.size >= _ENOUGH_BARCODES:
        problem = (
            f"expected barcodes of {table.barcode_length} bases, found {cids.size:,} and none longer than {longest}"
        )
        raise InputError(path, problem, remedy=OTHER_LENGTH)
    return Chip(cids, spots, table.barcode_length, frame)


def _open(path: Path, options: ChipOptions) -> Table:
    if not path.exists():
        raise InputError(path, "there is no such file", remedy="Check the chip's path.")
    if not path.is_file():
        raise InputError(path, "expected a file, found a folder", remedy="Give the table of the chip's barcodes.")
    if options.barcode_length is not None and not 2 <= options.barcode_length <= 32:
        problem = f"a barcode has 2 to 32 bases, barcode_length is {options.barcode_length}"
        raise InputError(path, problem, remedy="Correct barcode_length.")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(path, f"the file cannot be read: {error.strerror}", remedy="Check its permissions.") from error
    if not head:
        raise InputError(path, "the file is empty", remedy="Copy or download the file again.")
    suffix = path.suffix.lower()
    is_hdf5 = head == b"\x89HDF\r\n\x1a\n"
    if is_hdf5 and suffix not in _MASK_SUFFIXES:
        problem = f"the file ends in {suffix or 'nothing'}, but it is an HDF5 file"
        raise InputError(path, problem, remedy="A mask in HDF5 is named .h5: rename it.")
    if suffix in _MASK_SUFFIXES:
        return open_mask(
            path,
            barcode_length=options.barcode_length,
            add_shift=options.add_shift,
            one_based=options.one_based,
        )
    if suffix == ".bin":
        return open_records(path, barcode_length=options.barcode_length, one_based=options.one_based)
    return open_text(
        path,
        barcode_column=options.barcode_column,
        x_column=options.x_column,
        y_column=options.y_column,
        one_based=options.one_based,
    )


def _name_of(path: Path) -> str:
    """The file's name without the suffixes of tables: a mask's is the chip's serial number."""
    name = path.name
    while (suffix := next((end for end in _KNOWN_SUFFIXES if name.lower().endswith(end)), "")) and name != suffix:
        name = name[: -len(suffix)]
    return name


def _number_lattice(table: Table, frame: ChipFrame) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Fill arrays of the most that may come: untouched pages cost nothing, and nothing is copied."""
    cids = np.empty(table.most, np.uint64)
    spots = np.empty(table.most, np.uint32)
    at = 0
    for piece in table.pieces:
        end = at + piece.cids.size
        cids[at:end] = piece.cids
        spots[at:end] = frame.lattice_spots(piece.x, piece.y)
        at = end
    return cids[:at], spots[:at]


def _number_listed(
    path: Path, table: Table
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float64], NDArray[np.float64]]:
    """Number the places along a Z-order curve; barcodes of one place share its number."""
    pieces: Sequence[Piece] = list(table.pieces)
    if sum(piece.cids.size for piece in pieces) > MAX_SPOTS:
        raise _too_large(path, sum(piece.cids.size for piece in pieces))
    cids = np.concatenate([piece.cids for piece in pieces])
    x = np.concatenate([piece.x for piece in pieces]).astype(np.float64)
    y = np.concatenate([piece.y for piece in pieces]).astype(np.float64)
    order = np.lexsort((x, y, _z_order(x, y)))
    x, y = x[order], y[order]
    new = np.ones(order.size, bool)
    new[1:] = (x[1:] != x[:-1]) | (y[1:] != y[:-1])
    spots = np.empty(order.size, np.uint32)
    spots[order] = (np.cumsum(new) - 1).astype(np.uint32)
    return cids, spots, x[new], y[new]


def _z_order(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint64]:
    side = max(float(x.max() - x.min()), float(y.max() - y.min())) or 1.0
    codes: list[NDArray[np.uint64]] = []
    for values in (x, y):
        spread = ((values - values.min()) / side * 0xFFFF).astype(np.uint64)
        for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
            spread = (spread | spread << np.uint64(shift)) & np.uint64(mask)
        codes.append(spread)
    return codes[0] | codes[1] << np.uint64(1)


def _too_large(path: Path, size: int) -> InputError:
    problem = f"the chip has {size:,} barcodes, more than {MAX_SPOTS:,}"
    return InputError(path, problem, remedy="Split the table by regions of the chip and run them apart.")
