"""Write the maps of a run as files that other programs open."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cartoseq.analysis.chip import ChipFrame
from cartoseq.analysis.exports.anndata import write_h5ad
from cartoseq.analysis.exports.expression import ExpressionTable, table_of_map
from cartoseq.analysis.exports.gef import GEF_BINS, write_gef
from cartoseq.analysis.exports.gem import write_gem
from cartoseq.analysis.exports.mtx import write_mtx
from cartoseq.analysis.maps import SpatialMap
from cartoseq.analysis.run import Run, open_run, unknown_feature
from cartoseq.analysis.runfolder import FULL_DISK, unwritable_folder
from cartoseq.streaming.errors import DiskError, InputError

#: What can be written, and what it is for.
FORMATS = {
    "gef": "square-bin GEF: Stereopy, StereoMap",
    "gem": "GEM text, gzip: Stereopy, Spateo",
    "h5ad": "AnnData: scanpy, squidpy",
    "mtx": "matrix-market folder: scanpy, Seurat",
    "png": "picture",
}

#: A matrix is made at the largest of these bins that leaves some bins a side and is no coarser than a cell cluster.
_MATRIX_BINS = (50, 20)
_FEWEST_BINS = 20
_COARSEST_UM = 100.0


def export_run(
    run_folder: str | Path,
    formats: Sequence[str],
    *,
    library: str | None = None,
    bin_size: float | None = None,
    gene: str | None = None,
    out: str | Path | None = None,
) -> list[Path]:
    """Write maps of a run: ``RUN/exports/rna.bin50.h5ad`` and so on. Each file appears whole or not at all.

    A GEF holds the bins 1, 20, 50, 100, 200 (and ``bin_size``); a GEM is at bin 1 unless told; matrices (h5ad, mtx)
    are at :func:`matrix_bin` and pictures at a bin that reads well, unless told.

    Args:
        run_folder: The folder of the run.
        formats: Some of ``gef``, ``gem``, ``h5ad``, ``mtx``, ``png``.
        library: Name of one library; every one if None.
        bin_size: Side of a bin, in spots; a whole number, but for pictures of a chip with real-valued coordinates.
        gene: Gene (or genome window) that the picture shows, by name or identifier; all molecules if None.
        out: Folder to write to instead of ``RUN/exports``.

    Returns:
        What was written, in the order of libraries and formats.

    Raises:
        InputError: no run, no map yet, or an unknown format, library, gene or bin.
        DiskError: the disk is full or refuses; nothing half-written is left.
    """
    _check(formats, bin_size, gene)
    run = open_run(run_folder)
    names = [library] if library is not None else list(run.libraries)
    maps = [run.library(name).map for name in names]
    if gene is not None:
        maps_with_gene = [spatial for spatial in maps if _has(spatial, gene)]
        if not maps_with_gene:
            raise unknown_feature(gene, maps, run.folder.path)
    folder = Path(out) if out is not None else run.folder.exports
    _make(folder)
    whole_bin = None if bin_size is None else int(bin_size)
    written: list[Path] = []
    try:
        for spatial in maps:
            tables: dict[int, ExpressionTable] = {}
            for name in dict.fromkeys(formats):
                if name == "png":
                    if gene is None or _has(spatial, gene):
                        written.append(_write_picture(run, spatial, folder, bin_size, gene))
                else:
                    written.append(_write_table(spatial, folder, name, whole_bin, tables))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DiskError(
            f"{folder}: an export could not be written: {reason}. What was exported before is whole."
        ) from error
    return written


def matrix_bin(frame: ChipFrame) -> int:
    """The bin of a matrix unless told: 50, 20 or 1 spots, with at least 20 bins a side and at most 100 µm wide."""
    longer = max(frame.width, frame.height)
    for size in _MATRIX_BINS:
        if longer >= size * _FEWEST_BINS and size * (frame.pitch_um or 0.5) <= _COARSEST_UM:
            return size
    return 1


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise DiskError(f"{folder}: the disk is full. Free some space and try again.") from error
        raise unwritable_folder(folder, error) from error


def _check(formats: Sequence[str], bin_size: float | None, gene: str | None) -> None:
    if not formats:
        raise InputError("formats", f"expected some of {', '.join(FORMATS)}, found none")
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"format {name!r}", f"expected one of {', '.join(FORMATS)}")
    if bin_size is not None and not 0 < bin_size < math.inf:
        raise InputError(f"bin {bin_size:g}", "expected a number of spots above 0")
    if bin_size is not None and bin_size != int(bin_size) and set(formats) != {"png"}:
        problem = "a table's bin is a whole number of spots, 1 or more"
        raise InputError(f"bin {bin_size:g}", problem, remedy="Only pictures of real-valued chips take others.")
    if gene is not None and "png" not in formats:
        raise InputError(
            f"gene {gene!r}", "only a picture shows one gene", remedy="Add the format png, or leave it out."
        )


def _has(spatial: SpatialMap, gene: str) -> bool:
    try:
        spatial.features_named(gene)
    except KeyError:
        return False
    return True


def _write_table(
    spatial: SpatialMap, folder: Path, name: str, bin_size: int | None, tables: dict[int, ExpressionTable]
) -> Path:
    """Write one table; those already made for this library are kept in ``tables``, by bin."""

    def at(size: int) -> ExpressionTable:
        if 1 not in tables:
            tables[1] = table_of_map(spatial)
        if size not in tables:
            tables[size] = tables[1].rebinned(size)
        return tables[size]

    if name == "gef":
        path = folder / f"{spatial.library}.gef"
        write_gef(path, at(1), bin_sizes=sorted({*GEF_BINS, bin_size or 1}))
    elif name == "gem":
        path = folder / f"{spatial.library}.bin{bin_size or 1}.gem.gz"
        write_gem(path, at(bin_size or 1))
    else:
        size = bin_size or matrix_bin(spatial.frame)
        path = folder / f"{spatial.library}.bin{size}.{name}"
        if name == "h5ad":
            write_h5ad(path, at(size), library=spatial.library)
        else:
            write_mtx(path, at(size))
    return path


def _write_picture(run: Run, spatial: SpatialMap, folder: Path, bin_size: float | None, gene: str | None) -> Path:
    try:
        picture = run.picture(gene, library=spatial.library, bin_size=bin_size)
    except ValueError as error:
        raise InputError(f"bin {bin_size:g}", str(error)) from error
    # A window's name holds a colon, and a gene's may hold anything.
    about = "" if gene is None else "." + re.sub(r"[^A-Za-z0-9_.+-]+", "_", gene)
    path = folder / f"{spatial.library}{about}.bin{picture.bin_size:g}.png"
    picture.save(path)
    return path
