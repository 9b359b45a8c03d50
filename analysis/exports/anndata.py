"""AnnData: the ``.h5ad`` file that scanpy and squidpy open, written with h5py alone.

The layout is AnnData's on-disk format: every element says its ``encoding-type`` and ``encoding-version``. One row per
square bin, one column per gene (or window of the genome), counts as a CSR matrix of whole numbers, the bins' centres
in ``obsm["spatial"]``. The file is described in ``docs/formats/h5ad.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cartoseq import __version__
from cartoseq.analysis.atomic import replace_atomically
from cartoseq.analysis.exports.expression import ExpressionTable
from cartoseq.analysis.exports.matrix import bin_matrix, genome_windows

_CHUNK = 1 << 18


def write_h5ad(path: Path, table: ExpressionTable, *, library: str = "", compression: int | None = 1) -> None:
    """Write a table, at the bin that it has, as AnnData; whole or not at all. Same table, same bytes.

    Args:
        path: The file; an old one is replaced.
        table: What to write, rebinned as wanted.
        library: The library's name, kept in ``uns``.
        compression: Level of gzip, or None.
    """
    matrix = bin_matrix(table)
    with replace_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        filters = {} if compression is None else {"compression": "gzip", "compression_opts": compression}
        _encoding(file, "anndata", "0.1.0")
        counts = file.create_group("X")
        _encoding(counts, "csr_matrix", "0.1.0")
        counts.attrs["shape"] = np.array([matrix.x.size, table.feature_ids.size], np.int64)
        for name, values in (("data", matrix.data), ("indices", matrix.indices), ("indptr", matrix.indptr)):
            _array(counts, name, values, filters)
        _frame(file, "obs", matrix.barcodes, {"x": matrix.x, "y": matrix.y}, filters)
        _frame(file, "var", table.feature_ids.tolist(), _feature_columns(table), filters)
        _array(_mapping(file, "obsm"), "spatial", matrix.centres, filters)
        for name in ("layers", "obsp", "varm", "varp"):
            _mapping(file, name)
        about = _mapping(_mapping(file, "uns"), "cartoseq")
        facts = {"chip": table.chip, "library": library, "omics": table.omics, "spatial_unit": matrix.unit}
        for name, text in facts.items():
            _string(about, name, text)
        _string(about, "version", __version__)
        _number(about, "bin_size", table.bin_size)
        if table.resolution_nm is not None:
            _number(about, "resolution_um", table.resolution_nm / 1000)


def _feature_columns(table: ExpressionTable) -> dict[str, Sequence[str] | NDArray[Any]]:
    columns: dict[str, Sequence[str] | NDArray[Any]] = {"gene_name": table.feature_names.tolist()}
    windows = genome_windows(table)
    if windows is not None:
        columns["chrom"], columns["start"], columns["end"] = windows
    return columns


def _encoding(item: h5py.HLObject, kind: str, version: str) -> None:
    item.attrs["encoding-type"] = kind
    item.attrs["encoding-version"] = version


def _mapping(parent: h5py.Group, name: str) -> h5py.Group:
    group = parent.create_group(name)
    _encoding(group, "dict", "0.1.0")
    return group


def _array(parent: h5py.Group, name: str, values: NDArray[Any], filters: Mapping[str, Any]) -> None:
    storage: dict[str, Any] = {"track_times": False}
    if values.size:
        storage |= {"chunks": (min(_CHUNK, values.shape[0]), *values.shape[1:]), **filters}
    _encoding(parent.create_dataset(name, data=values, **storage), "array", "0.2.0")


def _strings(parent: h5py.Group, name: str, texts: Sequence[str]) -> None:
    data = np.array(texts, dtype=object)
    dataset = parent.create_dataset(name, data=data, dtype=h5py.string_dtype(), track_times=False)
    _encoding(dataset, "string-array", "0.2.0")


def _string(parent: h5py.Group, name: str, text: str) -> None:
    dataset = parent.create_dataset(name, data=text, dtype=h5py.string_dtype(), track_times=False)
    _encoding(dataset, "string", "0.2.0")


def _number(parent: h5py.Group, name: str, value: float) -> None:
    _encoding(parent.create_dataset(name, data=value, track_times=False), "numeric-scalar", "0.2.0")


def _frame(
    parent: h5py.Group,
    name: str,
    index: Sequence[str],
    columns: Mapping[str, Sequence[str] | NDArray[Any]],
    filters: Mapping[str, Any],
) -> None:
    group = parent.create_group(name)
    _encoding(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", np.array(list(columns), dtype=object), dtype=h5py.string_dtype())
    _strings(group, "_index", index)
    for column, values in columns.items():
        if isinstance(values, np.ndarray):
            _array(group, column, values, filters)
        else:
            _strings(group, column, values)
