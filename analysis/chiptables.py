"""The files in which a chip's barcodes and their places are published, read piece by piece.

* ``SN.barcodeToPos.h5``: the Stereo-seq mask. Dataset ``bpMatrix_1``, uint64, (rows = y, cols = x[, barcodes per
  spot]); a value is a packed barcode, 0 is an empty place. Its attribute ``dnbInfo`` holds row shift, column shift,
  barcode length and pitch in nm. Read by whole chunk rows, so memory does not grow with the chip.
* ``.bin``: ST_BarcodeMap's mask: packed little-endian records of barcode (u64), x (u32), y (u32), no header.
* text: one barcode a line, with its coordinates: ST_BarcodeMap's ``.txt``, Visium coordinate lists and
  ``tissue_positions``, bead lists. Tabs or commas, with or without a header, gzipped or not.

Every defect is an :class:`InputError` that names the file, the place and what to do.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from isal import igzip, igzip_lib
from numpy.typing import NDArray

from cartoseq.analysis.filefaults import COPY_AGAIN, gzip_fault, hdf5_fault
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.kernel import kernel

if TYPE_CHECKING:
    import polars as pl

MAX_COORDINATE = 2**31 - 1
DATASET = "bpMatrix_1"
DEFAULT_BARCODE_LENGTH = 25
DEFAULT_PITCH_NM = 500

BIN_RECORD = np.dtype([("cid", "<u8"), ("x", "<u4"), ("y", "<u4")])
_BIN_RECORDS_AT_ONCE = 1 << 22
_SLAB_BYTES = 256 << 20
_TEXT_BYTES = 64 << 20

_BARCODE_NAMES = ("barcode", "barcodes", "cid", "bead_barcode", "bead", "bc", "cb", "cell_bc")
_X_NAMES = ("array_col", "x", "xcoord", "x_coord", "xcoords", "col", "column", "x_um", "pos_x", "sb_x")
_Y_NAMES = ("array_row", "y", "ycoord", "y_coord", "ycoords", "row", "y_um", "pos_y", "sb_y")
_NAME_THEM = "Name the three columns in the chip's settings (barcode_column, x_column, y_column)."
_MAKE_ANEW = "Copy or download the file again."
OTHER_LENGTH = "Correct the C segments of the read structures, or give the table of this library's chip."


class Piece(NamedTuple):
    """Some barcodes of a table: packed (uint64), and their coordinates (int64 or float64), all of shape (n,)."""

    cids: NDArray[np.uint64]
    x: NDArray[np.int64] | NDArray[np.float64]
    y: NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """A chip's table, opened: what is known of the whole, and its pieces.

    Attributes:
        barcode_length: Bases in a barcode.
        most: No more barcodes than this will come.
        extent: (least x, least y, greatest x, greatest y), inclusive.
        integral: All coordinates are whole numbers.
        pitch_um: Distance of neighbouring lattice places, where the file or its kind tells.
        pieces: The barcodes, in the file's order. Can be gone through once.
    """

    barcode_length: int
    most: int
    extent: tuple[float, float, float, float]
    integral: bool
    pitch_um: float | None
    pieces: Iterator[Piece]


# --- barcodeToPos.h5 ---------------------------------------------------------------------------------------------


def open_mask(path: Path, *, barcode_length: int | None, add_shift: bool, one_based: bool) -> Table:
    """Open a ``barcodeToPos.h5``: x is the column and y the row, moved by the file's shifts if so wished.

    Raises:
        InputError: no HDF5, no such dataset, a dataset of another shape or type, an impossible attribute.
    """
    import h5py  # as long to import as numpy, and only a chip that is not indexed yet is read

    if not h5py.is_hdf5(path):
        raise InputError(path, "this is not an HDF5 file, or it is cut off", remedy=_MAKE_ANEW)
    try:
        with h5py.File(path, "r") as file:
            if DATASET not in file or not isinstance(file[DATASET], h5py.Dataset):
                found = ", ".join(sorted(file)) or "nothing"
                raise InputError(
                    path, f"expected a dataset {DATASET}, found {found}", remedy="Give the mask barcodeToPos.h5."
                )
            dataset = file[DATASET]
            if dataset.ndim not in (2, 3) or dataset.dtype.kind not in "ui" or dataset.dtype.itemsize != 8:
                found = f"{' x '.join(map(str, dataset.shape)) or 'one'} of {dataset.dtype}"
                problem = f"expected 64-bit whole numbers in rows and columns, found {found}"
                raise InputError(path, problem, place=f"dataset {DATASET}", remedy="Give the mask barcodeToPos.h5.")
            if 0 in dataset.shape:
                raise InputError(path, "the mask has no places", place=f"dataset {DATASET}", remedy=_MAKE_ANEW)
            rows, columns = dataset.shape[:2]
            most = int(np.prod(dataset.shape))
            told = [int(value) for value in np.ravel(dataset.attrs.get("dnbInfo", ()))]
    except OSError as error:
        raise InputError(path, hdf5_fault(path, error), remedy=_MAKE_ANEW) from error
    row_shift, column_shift = (told[0], told[1]) if add_shift and len(told) >= 2 else (0, 0)
    if add_shift and len(told) < 2:
        raise InputError(
            path,
            "the mask has no dnbInfo, so its shifts are unknown",
            place=f"dataset {DATASET}",
            remedy="Switch add_shift off: x is then the column and y the row.",
        )
    base = 1 if one_based else 0
    least_x, least_y = column_shift - base, row_shift - base
    if least_x + columns > MAX_COORDINATE or least_y + rows > MAX_COORDINATE or least_x < -base or least_y < -base:
        problem = f"the shifts {column_shift} (column) and {row_shift} (row) lead out of the range of coordinates"
        raise InputError(path, problem, place="attribute dnbInfo", remedy="Switch add_shift off.")
    length = barcode_length or (told[2] if len(told) > 2 and 2 <= told[2] <= 32 else DEFAULT_BARCODE_LENGTH)
    pitch_nm = told[3] if len(told) > 3 and told[3] > 0 else DEFAULT_PITCH_NM
    return Table(
        barcode_length=length,
        most=most,
        extent=(least_x, least_y, least_x + columns - 1, least_y + rows - 1),
        integral=True,
        pitch_um=pitch_nm / 1000,
        pieces=_mask_pieces(path, length, least_x, least_y),
    )


def _mask_pieces(path: Path, barcode_length: int, least_x: int, least_y: int) -> Iterator[Piece]:
    import h5py

    with h5py.File(path, "r") as file:
        dataset = file[DATASET]
        rows, columns = dataset.shape[:2]
        row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
        at_once = dataset.chunks[0] if dataset.chunks else max(_SLAB_BYTES // row_bytes, 1)
        for first in range(0, rows, at_once):
            place = f"dataset {DATASET}, rows {first} to {min(first + at_once, rows) - 1}"
            try:
                slab = dataset[first : first + at_once].astype(np.uint64, copy=False)
            except OSError as error:
                raise InputError(path, hdf5_fault(path, error), place=place, remedy=_MAKE_ANEW) from error
            slab = np.ascontiguousarray(slab).reshape(slab.shape[0], columns, -1)
            occupied = int(np.count_nonzero(slab))
            cids, x, y = np.empty(occupied, np.uint64), np.empty(occupied, np.int64), np.empty(occupied, np.int64)
            _collect_occupied(slab, np.int64(least_x), np.int64(least_y + first), cids, x, y)
            _check_keys(path, cids, barcode_length, place)
            yield Piece(cids, x, y)


@kernel
def _collect_occupied(
    slab: NDArray[np.uint64],
    least_x: Any,
    least_y: Any,
    cids_out: NDArray[np.uint64],
    x_out: NDArray[np.int64],
    y_out: NDArray[np.int64],
) -> None:
    at = 0
    for row in range(slab.shape[0]):
        for column in range(slab.shape[1]):
            for segment in range(slab.shape[2]):
                cid = slab[row, column, segment]
                if cid != np.uint64(0):
                    cids_out[at] = cid
                    x_out[at] = least_x + column
                    y_out[at] = least_y + row
                    at += 1


def _check_keys(path: Path, cids: NDArray[np.uint64], barcode_length: int, place: str) -> None:
    if barcode_length < 32 and cids.size and int(cids.max()) >> (2 * barcode_length):
        found = (int(cids.max()).bit_length() + 1) // 2
        problem = f"expected barcodes of {barcode_length} bases, found one of {found} or more"
        raise InputError(path, problem, place=place, remedy=OTHER_LENGTH)


# --- .bin --------------------------------------------------------------------------------------------------------


def open_records(path: Path, *, barcode_length: int | None, one_based: bool) -> Table:
    """Open ST_BarcodeMap's ``.bin`` mask; it is read twice, first for its extent.

    Raises:
        InputError: an empty or truncated file, or one with impossible barcodes or coordinates.
    """
    size = path.stat().st_size
    if size == 0:
        raise InputError(path, "the file is empty", remedy=_MAKE_ANEW)
    if size % BIN_RECORD.itemsize:
        problem = f"expected records of {BIN_RECORD.itemsize} bytes, the file ends inside one ({size:,} bytes)"
        place = f"record {size // BIN_RECORD.itemsize + 1}"
        raise InputError(path, problem, place=place, remedy="The file is cut off, or not a .bin mask: copy it again.")
    length = barcode_length or DEFAULT_BARCODE_LENGTH
    base = 1 if one_based else 0
    least = [2**63, 2**63]
    greatest = [-1, -1]
    first = 0
    for records in _records(path):
        place = f"records {first + 1} to {first + records.size}"
        _check_keys(path, records["cid"], length, place)
        for axis, name in enumerate("xy"):
            low, high = int(records[name].min()) - base, int(records[name].max()) - base
            if low < 0 or high > MAX_COORDINATE:
                bad = low if low < 0 else high
                remedy = "Check one_based." if low < 0 else "Give a .bin mask, or the table under its own suffix."
                raise InputError(
                    path, f"{name} = {bad + base} is outside {base} to {MAX_COORDINATE}", place=place, remedy=remedy
                )
            least[axis], greatest[axis] = min(least[axis], low), max(greatest[axis], high)
        first += records.size
    return Table(
        barcode_length=length,
        most=size // BIN_RECORD.itemsize,
        extent=(least[0], least[1], greatest[0], greatest[1]),
        integral=True,
        pitch_um=DEFAULT_PITCH_NM / 1000,
        pieces=(
            Piece(
                np.ascontiguousarray(records["cid"]).astype(np.uint64, copy=False),
                records["x"].astype(np.int64) - base,
                records["y"].astype(np.int64) - base,
            )
            for records in _records(path)
        ),
    )


def _records(path: Path) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        while (records := np.fromfile(file, BIN_RECORD, _BIN_RECORDS_AT_ONCE)).size:
            yield records


# --- text --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextLayout:
    """How a text table is written: separator, columns, header lines before the first barcode."""

    separator: str
    columns: int
    barcode: int
    x: int
    y: int
    header_lines: int


def open_text(
    path: Path,
    *,
    barcode_column: str | int | None,
    x_column: str | int | None,
    y_column: str | int | None,
    one_based: bool,
) -> Table:
    """Read a text table whole, in pieces of bounded size, and hold its packed barcodes and coordinates.

    Raises:
        InputError: an empty or truncated file, columns that cannot be told, or a line that is no barcode and place.
    """
    pieces: list[Piece] = []
    layout: TextLayout | None = None
    length = 0
    for block, first_line in _line_blocks(path):
        if layout is None:
            head = block[: 1 << 16].decode("utf-8", "replace").splitlines()
            layout = text_layout(path, head, (barcode_column, x_column, y_column))
        skip = layout.header_lines if first_line == 1 else 0
        piece, length = _parse_block(path, block, first_line, skip, layout, length, 1 if one_based else 0)
        if piece.cids.size:
            pieces.append(piece)
    if not pieces:
        raise InputError(path, "the table has no barcodes", remedy=_MAKE_ANEW)
    return Table(
        barcode_length=length,
        most=sum(piece.cids.size for piece in pieces),
        extent=(
            min(float(piece.x.min()) for piece in pieces),
            min(float(piece.y.min()) for piece in pieces),
            max(float(piece.x.max()) for piece in pieces),
            max(float(piece.y.max()) for piece in pieces),
        ),
        integral=all(piece.x.dtype == np.int64 and piece.y.dtype == np.int64 for piece in pieces),
        pitch_um=None,
        pieces=iter(pieces),
    )


def _line_blocks(path: Path) -> Iterator[tuple[bytes, int]]:
    """Whole lines, some 64 MB at a time, with the number of the first one (from 1)."""
    line = 1
    held = b""
    with path.open("rb") as raw:
        gzipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: Any = _gunzip(raw) if gzipped else raw
        while True:
            try:
                block = file.read(_TEXT_BYTES)
            except (EOFError, OSError, zlib.error, _GzipError) as error:
                place = f"after line {line - 1:,}" if line > 1 else ""
                raise InputError(path, gzip_fault(error), place=place, remedy=COPY_AGAIN) from error
            if not block:
                break
            block = held + block
            end = block.rfind(b"\n") + 1
            block, held = block[:end], block[end:]
            if block:
                yield block, line
                line += block.count(b"\n")
    if held:
        yield held, line


# The library has no types of its own.
_gunzip: Any = igzip.open
_GzipError: Any = igzip_lib.error


def text_layout(
    path: Path, head: Sequence[str], wanted: tuple[str | int | None, str | int | None, str | int | None]
) -> TextLayout:
    """Tell separator, header and columns from a table's first lines and the columns that were asked for.

    Args:
        path: The file, for messages.
        head: Its first lines.
        wanted: Barcode, x and y column: a name of the header, a number from 1, or None for the usual ones.

    Raises:
        InputError: the columns cannot be told.
    """
    if any("\x00" in line for line in head):
        raise InputError(
            path,
            "this is not a text table",
            remedy="Save it as plain text (UTF-8), with tabs or commas between columns.",
        )
    header_lines = 0
    for line in head:
        if line.strip("\ufeff \r\n") and not line.startswith("#"):
            break
        header_lines += 1
    else:
        raise InputError(path, "the table is empty", remedy=_MAKE_ANEW)
    first = head[header_lines].lstrip("\ufeff").rstrip("\r\n")
    if not first.isprintable() and "\t" not in first:
        raise InputError(path, "this is not a text table", place="line 1", remedy="Check the file's kind and suffix.")
    separator = next((mark for mark in "\t,; " if mark in first), "\t")
    fields = [field.strip().strip('"') for field in first.split(separator)]
    place = f"line {header_lines + 1}"
    if len(fields) < 3:
        problem = f"expected a barcode, x and y, found {len(fields)} column{'s' * (len(fields) != 1)}: {first[:60]!r}"
        raise InputError(path, problem, place=place, remedy="Give a table with barcodes and coordinates.")
    has_header = not any(_is_number(field) for field in fields) and not any(_is_barcode(field) for field in fields)
    columns = (
        _named_columns(path, fields, wanted, place)
        if has_header
        else _usual_columns(path, fields, separator, wanted, place)
    )
    return TextLayout(separator, max(len(fields), max(columns) + 1), *columns, header_lines + has_header)


def _named_columns(
    path: Path, fields: list[str], wanted: Sequence[str | int | None], place: str
) -> tuple[int, int, int]:
    lowered = [field.lower() for field in fields]
    found = []
    for column, usual in zip(wanted, (_BARCODE_NAMES, _X_NAMES, _Y_NAMES), strict=True):
        if column is None:
            at = next((lowered.index(name) for name in usual if name in lowered), -1)
        elif isinstance(column, int) or column.isdecimal():
            at = int(column) - 1 if 1 <= int(column) <= len(fields) else -1
        else:
            at = lowered.index(column.lower()) if column.lower() in lowered else -1
        if at < 0:
            missing = f"no column {column}" if column is not None else f"no column named like {usual[0]}"
            raise InputError(path, f"{missing} among {', '.join(fields)}", place=place, remedy=_NAME_THEM)
        found.append(at)
    return found[0], found[1], found[2]


def _usual_columns(
    path: Path, fields: list[str], separator: str, wanted: Sequence[str | int | None], place: str
) -> tuple[int, int, int]:
    if len(fields) == 6 and separator == "," and fields[1] in ("0", "1"):
        usual = (0, 3, 2)  # Visium's tissue_positions_list: barcode, in_tissue, array_row, array_col, pixels
    elif len(fields) >= 5:
        usual = (0, 3, 4)
    else:
        usual = (0, 1, 2)
    if len(fields) == 4 and None in wanted:
        raise InputError(path, "4 columns without a header: which are x and y?", place=place, remedy=_NAME_THEM)
    found = []
    for column, at in zip(wanted, usual, strict=True):
        if column is None:
            found.append(at)
        elif (isinstance(column, int) or column.isdecimal()) and 1 <= int(column) <= len(fields):
            found.append(int(column) - 1)
        else:
            problem = f"no column {column}: the table has no header and {len(fields)} columns"
            raise InputError(path, problem, place=place, remedy="Give the column's number, from 1.")
    return found[0], found[1], found[2]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_barcode(text: str) -> bool:
    bases = text.rpartition("-")[0] or text
    return len(bases) >= 8 and not set(bases) - set("ACGTN")


def _parse_block(
    path: Path, block: bytes, first_line: int, skip: int, layout: TextLayout, length: int, base: int
) -> tuple[Piece, int]:
    """Parse whole lines with polars: a row a line, so a row tells its line."""
    import polars as pl  # takes a quarter of a second, and only the tables of a text chip need it

    if b'"' in block:
        block = block.replace(b'"', b"")
    names = [f"column{i}" for i in range(layout.columns)]
    for _ in range(skip):
        block = block[block.find(b"\n") + 1 or len(block) :]
    if not block.strip():
        return Piece(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64)), length
    frame = pl.read_csv(
        io.BytesIO(block),
        has_header=False,
        separator=layout.separator,
        quote_char=None,
        infer_schema=False,
        truncate_ragged_lines=True,
        schema=dict.fromkeys(names, pl.String),
        encoding="utf8-lossy",
    ).select(
        pl.col(names[layout.barcode]).alias("barcode"),
        pl.col(names[layout.x]).alias("x"),
        pl.col(names[layout.y]).alias("y"),
        pl.all_horizontal(pl.col(names).is_null()).alias("blank"),
    )
    lines = np.arange(first_line + skip, first_line + skip + frame.height)
    if frame["blank"].any():
        lines = lines[~frame["blank"].to_numpy()]
        frame = frame.filter(~pl.col("blank"))
    barcodes = frame["barcode"].fill_null("").str.strip_chars()
    if barcodes.str.contains("-", literal=True).any():
        barcodes = barcodes.str.replace(r"-\d+$", "")  # Cell and Space Ranger's "-1": the sample's number
    cids, length = _pack_text(path, barcodes, lines, length)
    x = _coordinates(path, frame["x"], "x", lines, base)
    y = _coordinates(path, frame["y"], "y", lines, base)
    return Piece(cids, x, y), length


def _pack_text(
    path: Path, barcodes: pl.Series, lines: NDArray[np.int64], length: int
) -> tuple[NDArray[np.uint64], int]:
    lengths = barcodes.str.len_bytes().to_numpy()
    length = length or int(lengths[0])
    place = f"line {lines[0]}"
    if length > 32 or length < 2:
        problem = f"a barcode has 2 to 32 bases, found {length}: {barcodes[0][:50]!r}"
        raise InputError(path, problem, place=place, remedy=_NAME_THEM)
    if (odd := np.flatnonzero(lengths != length)).size:
        row = int(odd[0])
        problem = f"expected a barcode of {length} bases as before, found {lengths[row]}: {barcodes[row]!r}"
        remedy = "All barcodes of a chip are equally long: correct the line, or name the barcode column."
        raise InputError(path, problem, place=f"line {lines[row]}", remedy=remedy)
    text = np.frombuffer(barcodes.str.join("").item().encode(), np.uint8).reshape(-1, length)
    cids = np.empty(len(text), np.uint64)
    bad = int(_pack_ascii(text.copy(), cids))
    if bad >= 0:
        problem = f"expected bases A, C, G and T, found {barcodes[bad]!r}"
        raise InputError(
            path, problem, place=f"line {lines[bad]}", remedy="Correct the line or name the barcode column."
        )
    return cids, length


@kernel
def _pack_ascii(text: NDArray[np.uint8], cids_out: NDArray[np.uint64]) -> int:
    """Pack rows of ASCII; the first row that holds another character than ACGT, or -1."""
    for row in range(text.shape[0]):
        cid = np.uint64(0)
        for base in range(text.shape[1]):
            letter = text[row, base]
            if letter != 65 and letter != 67 and letter != 71 and letter != 84:
                return row
            cid |= np.uint64((letter >> np.uint8(1)) & np.uint8(3)) << np.uint64(2 * base)
        cids_out[row] = cid
    return -1


def _coordinates(
    path: Path, column: pl.Series, name: str, lines: NDArray[np.int64], base: int
) -> NDArray[np.int64] | NDArray[np.float64]:
    import polars as pl

    if column.null_count():
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        problem = f"too few columns: there is no {name}"
        raise InputError(path, problem, place=f"line {lines[row]}", remedy="Complete the line, or remove it.")
    text = column.str.strip_chars()
    whole = text.cast(pl.Int64, strict=False)
    if not whole.null_count():
        values: NDArray[np.int64] | NDArray[np.float64] = whole.to_numpy().astype(np.int64)
    else:
        fractional = text.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
        if (bad := np.flatnonzero(~np.isfinite(fractional))).size:
            row = int(bad[0])
            problem = f"{name} = {text[row]!r} is not a number"
            raise InputError(path, problem, place=f"line {lines[row]}", remedy="Correct the line, or name the column.")
        integral = bool((fractional == np.floor(fractional)).all()) and float(np.abs(fractional).max()) < 2**53
        values = fractional.astype(np.int64) if integral else fractional
    if (bad := np.flatnonzero((values < base) | (values > MAX_COORDINATE))).size:
        row = int(bad[0])
        problem = f"{name} = {text[row]} is outside {base} to {MAX_COORDINATE}"
        remedy = "Coordinates are not negative; check one_based and move the table's origin."
        raise InputError(path, problem, place=f"line {lines[row]}", remedy=remedy)
    return values - base if base else values
