"""GEF: the square-bin gene expression file of the Stereo-seq field (HDF5), version 4.

``/geneExp/binN/expression`` lists (x, y, count) gene by gene and ``/geneExp/binN/gene`` says which rows are whose;
``/wholeExp/binN`` is the picture of molecules and genes per bin; ``/stat/gene`` ranks the genes. The layout is that of
SAW 8 files and of the writer in geftools (``bgef_writer.cpp``); every attribute has shape (1,), because Stereopy
indexes it. A DNA library is written with genomic windows as its genes and ``omics`` ``Genomics``: gefpy and Stereopy
open it. The layout is described in ``docs/formats/gef.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.atomic import replace_atomically
from cartoseq.analysis.exports.expression import DEFAULT_RESOLUTION_NM, ExpressionTable, aggregate
from cartoseq.streaming.errors import InputError

GEF_VERSION = 4
#: Version of the geftools writer whose layout this is.
GEFTOOL_VERSION = (1, 1, 3)
#: Bins that a GEF holds precomputed, unless told.
GEF_BINS = (1, 20, 50, 100, 200)
#: Bin at which genes are ranked by their spatial concentration (E10).
STATISTICS_BIN = 100

_NAME_BYTES = 64
_CHUNK_ROWS = 1 << 16
_IMAGE_CHUNK = 256
_BAND_CELLS = 1 << 25

#: Some rows: x, y and count.
_Rows = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def write_gef(
    path: Path, table: ExpressionTable, *, bin_sizes: Sequence[int] = GEF_BINS, compression: int | None = 1
) -> None:
    """Write a square-bin GEF of version 4, whole or not at all.

    Beside the table itself, memory is bounded by a few million rows, whatever the size of the chip.

    Args:
        path: The file; an old one is replaced.
        table: What to write; every bin is made of it.
        bin_sizes: Bins to write; each a multiple of the table's.
        compression: Level of gzip, or None.

    Raises:
        InputError: a name is longer than 64 bytes, or a bin is no multiple of the table's.
    """
    bins = sorted(set(bin_sizes))
    if not bins:
        raise InputError(path, "expected at least one bin size, found none")
    ids = _fixed_names(table.feature_ids, path)
    names = _fixed_names(table.feature_names, path)
    filters: dict[str, Any] = {} if compression is None else {"compression": "gzip", "compression_opts": compression}
    with replace_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        _write_root(file, table)
        for bin_size in bins:
            _write_expression(file, table, ids, names, bin_size, filters)
        occupied = {bin_size: _write_whole(file, table, bin_size, filters) for bin_size in bins}
        _write_area(file, table, occupied.get(table.bin_size))
        _write_statistics(file, table, names, filters)


def read_gef(path: Path, *, bin_size: int = 1) -> ExpressionTable:
    """Read one bin of a square-bin GEF, of version 2 to 4.

    Genes without rows are kept. A bin that the file does not hold is made of bin 1.

    Raises:
        InputError: the file is missing, is no square-bin GEF, contradicts itself, or holds neither the bin nor bin 1.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", remedy="Give the path of a .gef file.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(path, "expected a GEF, which is an HDF5 file; this is none") from error
    with file:
        if "geneExp" not in file:
            kind = "a cell-bin GEF" if "cellBin" in file else "another HDF5 file"
            raise InputError(path, f"expected a square-bin GEF with the group /geneExp, found {kind}")
        held = f"bin{bin_size}"
        if held in file["geneExp"]:
            return _read_bin(file, path, bin_size)
        if "bin1" not in file["geneExp"]:
            present = ", ".join(sorted(file["geneExp"], key=lambda name: (len(name), name))) or "nothing"
            raise InputError(path, f"expected {held} (or bin1), found {present}", place="/geneExp")
        return _read_bin(file, path, 1).rebinned(bin_size)


def _write_root(file: h5py.File, table: ExpressionTable) -> None:
    attributes = file.attrs
    attributes["version"] = np.array([GEF_VERSION], "<u4")
    attributes["geftool_ver"] = np.array(GEFTOOL_VERSION, "<u4")
    attributes["omics"] = np.array([table.omics.encode()], "S32")
    attributes["bin_type"] = np.array([b"Bin"], "S32")
    attributes.create("sn", table.chip, dtype=h5py.string_dtype())


def _write_area(file: h5py.File, table: ExpressionTable, occupied: int | None) -> None:
    """The area of the bins of the table that hold a molecule, in nm²."""
    bins = table.bins if occupied is None else occupied
    file.attrs["gef_area"] = np.array([bins * float(_resolution_nm(table) * table.bin_size) ** 2], "<f4")


def _write_expression(
    file: h5py.File,
    table: ExpressionTable,
    ids: NDArray[np.bytes_],
    names: NDArray[np.bytes_],
    bin_size: int,
    filters: dict[str, Any],
) -> None:
    """One bin: its rows, in blocks, and the table of genes."""
    # The width of a count depends on the largest, and the rows are too many to keep: aggregate once to know the
    # numbers, once more to write.
    rows = largest = largest_exon = 0
    for block in table.blocks(bin_size):
        rows += block.rows
        largest = max(largest, _maximum(block.counts))
        if block.exon_counts is not None:
            largest_exon = max(largest_exon, _maximum(block.exon_counts))
    group = file.create_group(f"geneExp/bin{bin_size}")
    dtype = np.dtype([("x", "<i4"), ("y", "<i4"), ("count", _narrowest(largest))])
    expression = group.create_dataset("expression", (rows,), dtype, **_row_storage(rows, filters))
    exon = None
    if table.exon_counts is not None:
        exon = group.create_dataset("exon", (rows,), _narrowest(largest_exon), **_row_storage(rows, filters))
        exon.attrs["maxExon"] = np.array([largest_exon], "<u4")
    counts = np.zeros(table.feature_ids.size, np.int64)
    feature = row = 0
    for block in table.blocks(bin_size):
        counts[feature : feature + block.feature_ids.size] = np.diff(block.offsets)
        feature += block.feature_ids.size
        packed = np.empty(block.rows, dtype)
        packed["x"], packed["y"], packed["count"] = block.x, block.y, block.counts
        expression[row : row + block.rows] = packed
        if exon is not None:
            exon[row : row + block.rows] = block.exon_counts
        row += block.rows
    left, top, right, bottom = _bounds(table, bin_size)
    for key, value in (("minX", left), ("minY", top), ("maxX", right), ("maxY", bottom)):
        expression.attrs[key] = np.array([value], "<i4")
    expression.attrs["maxExp"] = np.array([largest], "<u4")
    expression.attrs["resolution"] = np.array([_resolution_nm(table)], "<u4")

    # As geftools does it, only genes that have rows are listed.
    seen = np.flatnonzero(counts)
    genes = np.zeros(
        seen.size, [("geneID", f"S{_NAME_BYTES}"), ("geneName", f"S{_NAME_BYTES}"), ("offset", "<u4"), ("count", "<u4")]
    )
    if rows > np.iinfo(np.uint32).max:
        raise InputError(file.filename, f"a GEF holds at most 4,294,967,295 rows; bin {bin_size} has {rows:,}")
    genes["geneID"], genes["geneName"] = ids[seen], names[seen]
    genes["count"] = counts[seen]
    genes["offset"] = np.cumsum(counts[seen]) - counts[seen]
    group.create_dataset("gene", data=genes, **_row_storage(seen.size, filters))


def _write_whole(file: h5py.File, table: ExpressionTable, bin_size: int, filters: dict[str, Any]) -> int:
    """The picture of one bin: molecules and genes of each, band by band of columns. Returns how many hold any."""
    expression = file[f"geneExp/bin{bin_size}/expression"]
    left, top, right, bottom = (int(expression.attrs[key][0]) for key in ("minX", "minY", "maxX", "maxY"))
    columns, rows = (right - left) // bin_size + 1, (bottom - top) // bin_size + 1
    band = max(1, min(columns, _BAND_CELLS // rows))

    def bands() -> Iterator[_Band]:
        for first in range(0, columns, band):
            shape = (min(band, columns - first), rows)
            yield _band(_row_chunks(expression, table, bin_size), bin_size, left + first * bin_size, top, shape, first)

    # The widths of the numbers depend on the largest; a picture of one band is kept, a larger one is made twice.
    kept: list[_Band] = []
    most_molecules = most_genes = occupied = 0
    for part in bands():
        most_molecules = max(most_molecules, int(part.molecules.max()))
        most_genes = max(most_genes, int(part.genes.max()))
        occupied += int(np.count_nonzero(part.genes))
        if band == columns:
            kept.append(part)
    genecount = "<u2" if most_genes <= 0xFFFF else "<u4"
    dtype = np.dtype([("MIDcount", _narrowest(most_molecules)), ("genecount", genecount)])
    whole = file.require_group("wholeExp").create_dataset(
        f"bin{bin_size}",
        (columns, rows),
        dtype,
        chunks=(min(_IMAGE_CHUNK, columns), min(_IMAGE_CHUNK, rows)),
        track_times=False,
        **filters,
    )
    for part in kept or bands():
        picture = np.empty(part.molecules.shape, dtype)
        picture["MIDcount"], picture["genecount"] = part.molecules, part.genes
        whole[part.first : part.first + len(picture)] = picture
    for key, value in (("minX", left), ("lenX", columns * bin_size), ("minY", top), ("lenY", rows * bin_size)):
        whole.attrs[key] = np.array([value], "<i4")
    whole.attrs["maxMID"] = np.array([most_molecules], "<u4")
    whole.attrs["maxGene"] = np.array([most_genes], "<u4")
    whole.attrs["number"] = np.array([occupied], "<u8")
    whole.attrs["resolution"] = np.array([_resolution_nm(table)], "<u4")
    return occupied


@dataclass(frozen=True)
class _Band:
    """Some columns of the picture, from the column ``first`` on; arrays of shape (columns, rows)."""

    first: int
    molecules: NDArray[np.uint32]
    genes: NDArray[np.uint32]


def _band(chunks: Iterator[_Rows], bin_size: int, left: int, top: int, shape: tuple[int, int], first: int) -> _Band:
    width, rows = shape
    molecules = np.zeros(width * rows, np.uint32)
    genes = np.zeros(width * rows, np.uint32)
    right = left + width * bin_size
    for x, y, counts in chunks:
        inside = (
            slice(None)
            if width * bin_size > int(x.max()) - left and int(x.min()) >= left
            else (np.flatnonzero((x >= left) & (x < right)))
        )
        cell = (x[inside].astype(np.int64) - left) // bin_size * rows + (y[inside].astype(np.int64) - top) // bin_size
        np.add.at(molecules, cell, counts[inside].astype(np.uint32))
        np.add.at(genes, cell, np.uint32(1))
    return _Band(first, molecules.reshape(shape), genes.reshape(shape))


def _row_chunks(expression: h5py.Dataset, table: ExpressionTable, bin_size: int) -> Iterator[_Rows]:
    """The rows of a bin: from memory where the table has this bin, else from the file just written."""
    step = _CHUNK_ROWS * 16
    for start in range(0, expression.shape[0], step):
        stop = start + step
        if bin_size == table.bin_size:
            yield table.x[start:stop], table.y[start:stop], table.counts[start:stop]
        else:
            part = expression[start:stop]
            yield part["x"], part["y"], part["count"]


def _write_statistics(
    file: h5py.File, table: ExpressionTable, names: NDArray[np.bytes_], filters: dict[str, Any]
) -> None:
    """Genes by molecules, with E10: the share (%) of a gene's molecules in the fullest tenth of its bins."""
    bin_size = STATISTICS_BIN if STATISTICS_BIN % table.bin_size == 0 else table.bin_size
    totals = np.zeros(table.feature_ids.size, np.int64)
    concentration = np.zeros(table.feature_ids.size, np.float32)
    feature = 0
    for block in table.blocks(bin_size):
        for start, stop in zip(block.offsets[:-1].tolist(), block.offsets[1:].tolist(), strict=True):
            if stop > start:
                counts = np.sort(block.counts[start:stop].astype(np.int64))
                totals[feature] = counts.sum()
                fullest = counts[counts.size - counts.size // 10 :]
                concentration[feature] = 100.0 * fullest.sum() / totals[feature]
            feature += 1
    seen = np.flatnonzero(totals)
    order = seen[np.lexsort((seen, -totals[seen]))]
    statistics = np.zeros(order.size, [("gene", f"S{_NAME_BYTES}"), ("MIDcount", "<u4"), ("E10", "<f4")])
    statistics["gene"] = names[order]
    statistics["MIDcount"] = np.minimum(totals[order], np.iinfo(np.uint32).max)
    statistics["E10"] = concentration[order]
    dataset = file.create_group("stat").create_dataset("gene", data=statistics, **_row_storage(order.size, filters))
    shares = concentration[order] if order.size else np.zeros(1, np.float32)
    for key, value in (("minE10", shares.min()), ("maxE10", shares.max()), ("cutoff", 0.1)):
        dataset.attrs[key] = np.array([value], "<f4")


def _resolution_nm(table: ExpressionTable) -> int:
    """A GEF must say one: that of Stereo-seq chips where it is unknown."""
    return DEFAULT_RESOLUTION_NM if table.resolution_nm is None else table.resolution_nm


def _bounds(table: ExpressionTable, bin_size: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom corner of the occupied bins."""
    if table.rows == 0:
        return 0, 0, 0, 0
    left, right = int(table.x.min()) // bin_size, int(table.x.max()) // bin_size
    top, bottom = int(table.y.min()) // bin_size, int(table.y.max()) // bin_size
    return left * bin_size, top * bin_size, right * bin_size, bottom * bin_size


def _row_storage(rows: int, filters: dict[str, Any]) -> dict[str, Any]:
    """How a list of rows is stored; an empty one cannot be chunked."""
    if rows == 0:
        return {"track_times": False}
    return {"chunks": (min(rows, _CHUNK_ROWS),), "track_times": False, **filters}


def _narrowest(maximum: int) -> str:
    if maximum <= 0xFF:
        return "|u1"
    return "<u2" if maximum <= 0xFFFF else "<u4"


def _maximum(counts: NDArray[np.uint32]) -> int:
    return int(counts.max()) if counts.size else 0


def _fixed_names(names: NDArray[np.str_], path: Path) -> NDArray[np.bytes_]:
    encoded = [str(name).encode() for name in names]
    for number, name in enumerate(encoded):
        if len(name) > _NAME_BYTES:
            raise InputError(
                path,
                f"a GEF holds names of at most {_NAME_BYTES} bytes; {name.decode()!r} has {len(name)}",
                place=f"feature {number + 1}",
                remedy="Shorten it in the annotation, or write .gem or .h5ad instead.",
            )
    return np.array(encoded, f"S{_NAME_BYTES}")


def _read_bin(file: h5py.File, path: Path, bin_size: int) -> ExpressionTable:
    place = f"/geneExp/bin{bin_size}"
    group = file[place]
    for name in ("expression", "gene"):
        if name not in group:
            raise InputError(path, f"expected the data set {name}, found {', '.join(group) or 'nothing'}", place=place)
    expression, genes = group["expression"], group["gene"][:]
    columns = expression.dtype.names or ()
    if not {"x", "y", "count"} <= set(columns):
        raise InputError(path, f"expected the columns x, y, count, found {columns}", place=f"{place}/expression")
    fields = genes.dtype.names or ()
    id_field = "geneID" if "geneID" in fields else "gene"
    if not {id_field, "offset", "count"} <= set(fields):
        raise InputError(path, f"expected geneID (or gene), offset, count, found {fields}", place=f"{place}/gene")
    name_field = "geneName" if "geneName" in fields else id_field
    starts, counts = genes["offset"].astype(np.int64), genes["count"].astype(np.int64)
    rows = expression.shape[0]
    if int(counts.sum()) != rows or (genes.size and not np.array_equal(starts, np.cumsum(counts) - counts)):
        raise InputError(
            path,
            f"the genes claim {int(counts.sum()):,} rows one after the other, the list has {rows:,}",
            place=f"{place}/gene",
            remedy="The file is damaged or was written by a faulty program.",
        )
    packed = expression[:]
    exon = group["exon"][:].astype(np.uint32) if "exon" in group else None
    resolution = expression.attrs.get("resolution")
    table = ExpressionTable(
        feature_ids=np.array([name.decode() for name in genes[id_field].tolist()], np.str_),
        feature_names=np.array([name.decode() for name in genes[name_field].tolist()], np.str_),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        x=np.ascontiguousarray(packed["x"].astype(np.int32)),
        y=np.ascontiguousarray(packed["y"].astype(np.int32)),
        counts=np.ascontiguousarray(packed["count"].astype(np.uint32)),
        exon_counts=exon,
        bin_size=bin_size,
        chip=_text(file.attrs.get("sn", "")),
        omics=_text(file.attrs.get("omics", "Transcriptomics")),
        resolution_nm=int(np.ravel(resolution)[0]) if resolution is not None else None,
    )
    # Other writers order rows within a gene as they please.
    return aggregate(
        table, table.features(), table.x.astype(np.int64), table.y.astype(np.int64), bin_size, source=str(path)
    )


def _text(value: object) -> str:
    """An attribute as text: bytes or str, alone or in an array of one."""
    first = np.ravel(np.asarray(value, dtype=object))[0]
    return first.decode() if isinstance(first, bytes) else str(first)
