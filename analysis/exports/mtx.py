"""The matrix-market folder of the single-cell field (as Cell Ranger 3 lays it out), with a table of positions.

``matrix.mtx.gz`` holds features by bins, ``features.tsv.gz`` and ``barcodes.tsv.gz`` name them, and
``tissue_positions.csv`` says where the bins lie, with the columns of Space Ranger 2. scanpy's ``read_10x_mtx`` and
Seurat's ``Read10X`` open the folder. It is described in ``docs/formats/mtx.md``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from cartoseq import __version__
from cartoseq.analysis.exports.compressed import gzip_writer
from cartoseq.analysis.exports.expression import OMICS, ExpressionTable
from cartoseq.analysis.exports.matrix import BinMatrix, bin_matrix

_ROWS_PER_WRITE = 1 << 20


def write_mtx(folder: Path, table: ExpressionTable) -> None:
    """Write a table, at the bin that it has, as a matrix-market folder. Same table, same bytes.

    The folder is made beside its place and moved there whole; an old one is replaced.

    Raises:
        OSError: the disk is full or refuses; the old folder, if any, is still there.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        _write_all(partial, table, bin_matrix(table))
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _write_all(folder: Path, table: ExpressionTable, matrix: BinMatrix) -> None:
    kind = "Gene Expression" if table.omics == OMICS["rna"] else "Genome Window"
    features = zip(table.feature_ids.tolist(), table.feature_names.tolist(), strict=True)
    _write_lines(folder / "features.tsv.gz", (f"{name}\t{symbol}\t{kind}" for name, symbol in features))
    _write_lines(folder / "barcodes.tsv.gz", matrix.barcodes)

    with gzip_writer(folder / "matrix.mtx.gz") as stream:
        stream.write(
            "%%MatrixMarket matrix coordinate integer general\n"
            f'%metadata_json: {{"software_version": "cartoseq-{__version__}", "format_version": 2}}\n'
            f"{table.feature_ids.size} {matrix.x.size} {matrix.data.size}\n".encode()
        )
        columns = np.repeat(np.arange(1, matrix.x.size + 1), np.diff(matrix.indptr))
        for start in range(0, matrix.data.size, _ROWS_PER_WRITE):
            part = slice(start, start + _ROWS_PER_WRITE)
            rows = {"row": matrix.indices[part] + 1, "column": columns[part], "value": matrix.data[part]}
            stream.write(pl.DataFrame(rows).write_csv(separator=" ", include_header=False).encode())

    step = table.bin_size
    positions = pl.DataFrame(
        {
            "barcode": matrix.barcodes,
            # No tissue is segmented: every bin with a molecule is in it.
            "in_tissue": np.ones(matrix.x.size, np.int8),
            "array_row": matrix.y // step,
            "array_col": matrix.x // step,
            "pxl_row_in_fullres": matrix.centres[:, 1],
            "pxl_col_in_fullres": matrix.centres[:, 0],
        }
    )
    (folder / "tissue_positions.csv").write_text(positions.write_csv(), encoding="utf-8")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with gzip_writer(path) as stream:
        stream.write("".join(f"{line}\n" for line in lines).encode())
