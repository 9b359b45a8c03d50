"""GEM: the gene expression text of the Stereo-seq field, one (gene, x, y) a line.

Version 0.2 (SAW 8) has a column ``geneName``, version 0.1 (SAW 7) has none; older and derived files come without
header lines, without column names, with ``ExonCount``, ``CellID`` or other columns. A file may say that its origin is
elsewhere: the coordinate on the chip is x + OffsetX, y + OffsetY. The format is described in ``docs/formats/gem.md``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cartoseq.analysis.atomic import replace_atomically
from cartoseq.analysis.exports.compressed import gzip_writer, read_maybe_gzip
from cartoseq.analysis.exports.expression import OMICS, ExpressionTable, aggregate
from cartoseq.streaming.errors import InputError

GEM_VERSION = "GEMv0.2"

#: What the columns are called by those who write them (in lower case), and what they are.
_COLUMNS = {
    "geneid": "id",
    "gene": "id",
    "genename": "name",
    "x": "x",
    "y": "y",
    "midcount": "count",
    "midcounts": "count",
    "umicount": "count",
    "umicounts": "count",
    "exoncount": "exon",
}
_NUMBERS = ("x", "y", "count", "exon")


def write_gem(path: Path, table: ExpressionTable) -> None:
    """Write a GEM of version 0.2, whole or not at all; gzip where the name ends with ``.gz``.

    The table's origin becomes OffsetX and OffsetY. The column ``ExonCount`` is written where the table has it.
    Same table, same bytes.

    Raises:
        InputError: a name of a feature holds a tab or a line break.
    """
    path = Path(path)
    for number, name in enumerate([*table.feature_ids.tolist(), *table.feature_names.tolist()]):
        if any(character in name for character in "\t\n\r"):
            raise InputError(path, f"the name {name!r} cannot be written into a table", place=f"feature {number + 1}")
    step = table.bin_size
    offset_x, offset_y = (value // step * step for value in table.origin)
    writer = gzip_writer if path.name.endswith(".gz") else _plain_writer
    with replace_atomically(path) as temporary, writer(temporary) as stream:
        stream.write(
            f"#FileFormat={GEM_VERSION}\n#SortedBy=None\n#BinType=Bin\n#BinSize={step}\n#Omics={table.omics}\n"
            f"#Stereo-seqChip={table.chip}\n#OffsetX={offset_x}\n#OffsetY={offset_y}\n".encode()
        )
        exon = "" if table.exon_counts is None else "\tExonCount"
        stream.write(f"geneID\tgeneName\tx\ty\tMIDCount{exon}\n".encode())
        for block in table.blocks(step, 1 << 20):
            features = block.features()
            columns = {
                "geneID": block.feature_ids[features],
                "geneName": block.feature_names[features],
                "x": block.x.astype(np.int64) - offset_x,
                "y": block.y.astype(np.int64) - offset_y,
                "MIDCount": block.counts,
            }
            if block.exon_counts is not None:
                columns["ExonCount"] = block.exon_counts
            lines = pl.DataFrame(columns).write_csv(separator="\t", include_header=False, quote_style="never")
            stream.write(lines.encode())


def read_gem(path: Path) -> ExpressionTable:
    """Read a GEM of version 0.1 or 0.2, plain or gzip, with or without header lines and column names.

    Rows of one gene and bin are added up; genes keep the order in which they appear. Columns of no use here
    (``CellID``, labels) are passed over. The table's origin is the file's OffsetX, OffsetY, which is added to x, y.

    Raises:
        InputError: the file is missing, is no GEM, or has a line that does not fit; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", remedy="Give the path of a .gem or .gem.gz file.")
    data = read_maybe_gzip(path)
    head = _read_head(data, path)
    frame = _parse(data, head, path)
    if frame.height and int(frame.select(pl.min("count")).item()) < 1:
        row = int(frame.select((pl.col("count") < 1).arg_max()).item())
        raise InputError(path, "expected a molecule count of at least 1", place=f"line {head.lines + row + 1}")

    ids = frame.select("id").unique(maintain_order=True).with_row_index("feature")
    features = frame.select("id").join(ids, on="id", how="left", maintain_order="left")["feature"].to_numpy()
    names = frame.unique("id", keep="first", maintain_order=True)["name"].to_list()
    exon = frame["exon"].to_numpy().astype(np.uint32) if "exon" in frame.columns else None
    table = ExpressionTable(
        feature_ids=np.array(ids["id"].to_list(), np.str_),
        feature_names=np.array(names, np.str_),
        offsets=np.zeros(ids.height + 1, np.int64),
        x=np.zeros(0, np.int32),
        y=np.zeros(0, np.int32),
        counts=_counts(frame["count"], path),
        exon_counts=exon,
        bin_size=head.bin_size,
        chip=head.chip,
        omics=head.omics,
        origin=(head.offset_x, head.offset_y),
    )
    x, y = frame["x"].to_numpy() + head.offset_x, frame["y"].to_numpy() + head.offset_y
    return aggregate(table, features.astype(np.int64), x, y, head.bin_size, source=str(path))


@dataclass(frozen=True)
class _Head:
    """What stands above the rows, and what the columns are."""

    lines: int
    start: int
    columns: tuple[str, ...]
    chip: str = ""
    omics: str = OMICS["rna"]
    bin_size: int = 1
    offset_x: int = 0
    offset_y: int = 0


def _read_head(data: bytes, path: Path) -> _Head:
    settings: dict[str, str] = {}
    start = lines = 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start) + 1 or len(data)
        key, _, value = data[start + 1 : end].decode("utf-8", "replace").strip().partition("=")
        settings[key.strip()] = value.strip()
        start = end
        lines += 1
    end = data.find(b"\n", start) + 1 or len(data)
    first = data[start:end].decode("utf-8", "replace").rstrip("\r\n").split("\t")
    version = settings.get("FileFormat", GEM_VERSION)
    if version not in ("GEMv0.1", GEM_VERSION):
        raise InputError(path, f"expected GEMv0.1 or GEMv0.2, found {version}", place="header line FileFormat")
    numbers = {key: _header_number(settings, key, path) for key in ("BinSize", "OffsetX", "OffsetY")}
    names = tuple(_COLUMNS.get(cell.strip().lower(), f"_{number}") for number, cell in enumerate(first))
    if {"id", "x", "y", "count"} <= set(names):
        start, lines = end, lines + 1
    else:
        names = _columns_by_content(first, path, lines + 1)
    return _Head(
        lines=lines,
        start=start,
        columns=names,
        chip=settings.get("Stereo-seqChip", ""),
        omics=settings.get("Omics", OMICS["rna"]),
        bin_size=max(1, numbers["BinSize"] or 1),
        offset_x=numbers["OffsetX"] or 0,
        offset_y=numbers["OffsetY"] or 0,
    )


def _header_number(settings: dict[str, str], key: str, path: Path) -> int | None:
    text = settings.get(key)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise InputError(path, f"expected a whole number, found {text!r}", place=f"header line {key}") from error


def _columns_by_content(first: list[str], path: Path, line: int) -> tuple[str, ...]:
    """The columns of a file that does not name them: a second column that is no number is the gene's name."""
    leading = ("id",) if len(first) > 1 and _is_number(first[1]) else ("id", "name")
    expected = (*leading, "x", "y", "count")
    cells = first[len(leading) : len(expected)]
    if len(first) < len(expected) or not all(_is_number(cell) for cell in cells):
        raise InputError(
            path,
            "expected the columns geneID [geneName] x y MIDCount, separated by tabs, found "
            + repr("\t".join(first))[:120],
            place=f"line {line}",
            remedy="Is this a GEM file?",
        )
    return expected + tuple(f"_{number}" for number in range(len(expected), len(first)))


def _is_number(text: str) -> bool:
    return text.strip().lstrip("-").isdecimal()


def _parse(data: bytes, head: _Head, path: Path) -> pl.DataFrame:
    """The rows: id, name, x, y, count and perhaps exon."""
    wanted = [column for column in head.columns if not column.startswith("_")]
    schema = {column: pl.Int64 if column in _NUMBERS else pl.String for column in head.columns}
    body = data[head.start :]
    if not body.strip():
        frame = pl.DataFrame(schema=schema)
    else:
        try:
            frame = pl.read_csv(
                io.BytesIO(body),
                separator="\t",
                has_header=False,
                schema=schema,
                quote_char=None,
            )
        except pl.exceptions.PolarsError as error:
            raise _bad_line(body, head, path) from error
    frame = frame.select(wanted)
    if any(frame[column].null_count() for column in wanted if column in _NUMBERS):
        raise _bad_line(body, head, path)
    if "name" not in wanted:
        frame = frame.with_columns(name=pl.col("id"))
    return frame.with_columns(pl.col("id", "name").fill_null(""))


def _bad_line(body: bytes, head: _Head, path: Path) -> InputError:
    """Find the line that does not fit, now that one is known to be there."""
    for number, line in enumerate(body.split(b"\n"), head.lines + 1):
        cells = line.decode("utf-8", "replace").rstrip("\r").split("\t")
        if cells == [""]:
            continue
        if len(cells) != len(head.columns):
            problem = f"expected {len(head.columns)} columns, found {len(cells)}"
            return InputError(path, problem, place=f"line {number}")
        for column, cell in zip(head.columns, cells, strict=True):
            if column in _NUMBERS and not _is_number(cell):
                return InputError(path, f"expected a whole number, found {cell!r}", place=f"line {number}, {column}")
    return InputError(path, "the rows are no table of tab-separated text")


def _counts(column: pl.Series, path: Path) -> NDArray[np.uint32]:
    counts = column.to_numpy()
    if counts.size and int(counts.max()) > np.iinfo(np.uint32).max:
        raise InputError(path, "a molecule count does not fit into 32 bits")
    return counts.astype(np.uint32)


@contextmanager
def _plain_writer(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as stream:
        yield stream
