"""Maps: how many molecules of each feature lie at each spot, in memory and on disk (``maps.h5``).

A feature is a gene of an RNA library or a genomic window of a DNA library. A row says: at (x, y) of the chip, so many
molecules of this feature were found, by so many reads. Rows are grouped by feature (``offsets`` is a CSR index) and
lie by (y, x) within a feature. Coordinates are absolute chip coordinates; a bin of size N that holds (x, y) is named by
its corner ``floor(x / N) * N, floor(y / N) * N``, as in GEM and GEF files. On a listed frame, N is in the unit of that
frame's coordinates and need not be whole. The file's layout is in ``docs/formats/maps.md``.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.atomic import replace_atomically
from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.dnaevidence import DnaEvidence, read_evidence, write_evidence
from cartoseq.analysis.filefaults import hdf5_fault
from cartoseq.analysis.maprows import PLACE_BITS, Sums, add_to_image, offsets_of, row_keys, sum_equal, sum_parts
from cartoseq.analysis.molecules import Molecules
from cartoseq.analysis.sealed import is_intact, seal, seal_of
from cartoseq.streaming.errors import DiskError, InputError

if TYPE_CHECKING:
    import h5py

FORMAT = "cartoseq-maps"
VERSION = 1
_MAGIC = b"CSQMAPS1"
_MAKE_ANEW = "Make it again from the run's log, with `cartoseq replay`."

Layer = Literal["rna", "dna"]
LAYERS: tuple[Layer, ...] = ("rna", "dna")


@dataclass(frozen=True)
class BinGrid:
    """The bins that cover a chip frame: pixel (row, column) is the bin (first_row + row, first_column + column).

    The corner of that bin on the chip is ``((first_column + column) * bin_size, (first_row + row) * bin_size)``.
    """

    bin_size: float
    first_column: int
    first_row: int
    columns: int
    rows: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of an image."""
        return self.rows, self.columns


def bin_grid(frame: ChipFrame, bin_size: float) -> BinGrid:
    """The bins of one size that cover a whole chip frame.

    Raises:
        ValueError: the bin size is not positive, or not whole on a lattice frame.
    """
    size = float(bin_size)
    if not size > 0 or not math.isfinite(size):
        raise ValueError(f"A bin size must be positive; got {bin_size}.")
    if frame.kind is FrameKind.LATTICE and size != int(size):
        raise ValueError(f"On a lattice chip a bin size is a whole number of spots; got {bin_size}.")
    left, top, right, bottom = frame.extent
    first_column, first_row = math.floor(left / size), math.floor(top / size)
    columns, rows = math.ceil(right / size) - first_column, math.ceil(bottom / size) - first_row
    return BinGrid(size, first_column, first_row, max(1, columns), max(1, rows))


@dataclass(frozen=True)
class Binned:
    """A map summed into square bins; rows by feature, then (y, x), where x and y are the bins' corners."""

    bin_size: float
    feature_ids: NDArray[np.str_]
    feature_names: NDArray[np.str_]
    offsets: NDArray[np.int64]
    x: NDArray[Any]
    y: NDArray[Any]
    molecules: NDArray[np.uint32]
    reads: NDArray[np.uint32]


@dataclass(frozen=True)
class SpatialMap:
    """Molecules per feature and spot of one library.

    Attributes:
        library: The library's name.
        layer: "rna" (features are genes) or "dna" (features are genomic windows).
        feature_ids: Unique names, shape (features,), str.
        feature_names: Names for people (gene symbols), shape (features,), str.
        offsets: Rows ``offsets[f]`` to ``offsets[f + 1]`` belong to feature f; shape (features + 1,).
        x: Absolute chip coordinate of each row: int32 on a lattice, float64 on a listed frame.
        y: As x.
        molecules: Distinct molecules of the row.
        reads: Reads of the row (copies summed; sums above 2**32 - 1 stay there).
        frame: The chip frame that x and y lie in.
    """

    library: str
    layer: Layer
    feature_ids: NDArray[np.str_]
    feature_names: NDArray[np.str_]
    offsets: NDArray[np.int64]
    x: NDArray[Any]
    y: NDArray[Any]
    molecules: NDArray[np.uint32]
    reads: NDArray[np.uint32]
    frame: ChipFrame

    def __post_init__(self) -> None:
        rows = self.x.shape[0]
        if any(column.shape != (rows,) for column in (self.y, self.molecules, self.reads)):
            raise ValueError(f"Map {self.library}: its columns have different lengths.")
        if self.offsets.shape != (self.feature_ids.shape[0] + 1,) or self.feature_names.shape != self.feature_ids.shape:
            raise ValueError(f"Map {self.library}: offsets and features do not fit each other.")
        if int(self.offsets[0]) != 0 or int(self.offsets[-1]) != rows or bool(np.any(np.diff(self.offsets) < 0)):
            raise ValueError(f"Map {self.library}: the offsets do not cover its {rows} rows in order.")

        left, top, right, bottom = self.frame.extent
        for values, least, end in ((self.x, left, right), (self.y, top, bottom)):
            if rows and (values.min() < least or values.max() >= end):
                raise ValueError(f"Map {self.library}: it has rows outside the chip.")

    @property
    def rows(self) -> int:
        """Number of (feature, spot) rows."""
        return int(self.x.shape[0])

    @property
    def total_molecules(self) -> int:
        """Molecules of the whole map."""
        return int(self.molecules.sum(dtype=np.uint64))

    def total(self, bin_size: float = 1) -> NDArray[np.uint32]:
        """Molecules per bin, all features together.

        Args:
            bin_size: Side of a bin in the frame's unit; whole on a lattice.

        Returns:
            uint32, shape (rows, columns) = ``bin_grid(frame, bin_size).shape``; which bin a pixel is, the grid says.
        """
        return self._image(slice(0, self.rows), bin_grid(self.frame, bin_size))

    def feature_image(self, feature: int | str, bin_size: float = 1) -> NDArray[np.uint32]:
        """Molecules per bin of one feature, by index, id or name; features that share the name are summed.

        Returns:
            As :meth:`total`.

        Raises:
            KeyError: no feature is called so.
        """
        grid = bin_grid(self.frame, bin_size)
        image = np.zeros(grid.shape, np.uint32)
        for found in self.features_named(feature):
            self._image(slice(int(self.offsets[found]), int(self.offsets[found + 1])), grid, image)
        return image

    def binned(self, bin_size: float) -> Binned:
        """The map summed into square bins, feature by feature; the sums are the map's."""
        grid = bin_grid(self.frame, bin_size)
        features = self.feature_ids.shape[0]
        cells = grid.rows * grid.columns
        if max(1, features) * cells >= 1 << 64:
            raise ValueError(f"Bins of {bin_size} are too many: {grid.rows} x {grid.columns} for {features} features.")
        rows, columns = _axis_bins(self.y, grid.first_row, grid), _axis_bins(self.x, grid.first_column, grid)
        keys = np.repeat(np.arange(features, dtype=np.uint64) * np.uint64(cells), np.diff(self.offsets))
        keys += rows.astype(np.uint64) * np.uint64(grid.columns) + columns.astype(np.uint64)
        keys, molecules, reads = sum_equal(keys, self.molecules, self.reads)
        feature, cell = np.divmod(keys, np.uint64(cells))
        row, column = np.divmod(cell.astype(np.int64), grid.columns)
        return Binned(
            bin_size=bin_size,
            feature_ids=self.feature_ids,
            feature_names=self.feature_names,
            offsets=offsets_of(feature, features),
            x=((column + grid.first_column) * grid.bin_size).astype(self.x.dtype),
            y=((row + grid.first_row) * grid.bin_size).astype(self.y.dtype),
            molecules=molecules,
            reads=reads,
        )

    def _image(self, rows: slice, grid: BinGrid, image: NDArray[np.uint32] | None = None) -> NDArray[np.uint32]:
        if image is None:
            image = np.zeros(grid.shape, np.uint32)
        x, y, molecules = self.x[rows], self.y[rows], self.molecules[rows]
        add_to_image(x, y, molecules, grid.bin_size, grid.first_column, grid.first_row, image)
        return image

    def features_named(self, feature: int | str) -> NDArray[np.int64]:
        """Indexes of the features with this index, id, or (where no id fits) name; a name may be shared by several.

        Raises:
            KeyError: no feature is called so.
        """
        if not isinstance(feature, str):
            if not 0 <= int(feature) < self.feature_ids.shape[0]:
                raise KeyError(f"{self.library} has {self.feature_ids.shape[0]} features; not number {feature}.")
            return np.array([int(feature)], dtype=np.int64)
        found = np.flatnonzero(self.feature_ids == feature)
        if found.size == 0:
            found = np.flatnonzero(self.feature_names == feature)
        if found.size == 0:
            raise KeyError(f"{self.library} has no feature called {feature!r}.")
        return found.astype(np.int64)


@dataclass(frozen=True)
class LibraryMap:
    """One library of ``maps.h5``: its map, and what else was counted on the way.

    Attributes:
        map: The molecules per feature and spot.
        totals: Counters by name (``reads_total``, ``located``, ...): attributes of the library's group.
        copies: ``copies[k]`` molecules were read k times; index 0 is unused, the last bin holds all above. uint64.
        saturation: Points of the saturation curve, shape (n, 2), uint64: reads, distinct molecules.
        located: Located reads per bin, shape (rows, columns), uint32.
        located_bin: The bin size of ``located``, in the unit of the frame's coordinates.
        base_counts: Calls per cycle, shape (cycles, 5), uint64: A C G T N.
        quality_counts: Calls per cycle and quality, shape (cycles, 64), uint64.
        dna: What it says of the genome: alleles, junctions, GC; None where nothing was asked.
    """

    map: SpatialMap
    totals: Mapping[str, int] = field(default_factory=dict)
    copies: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(2, np.uint64))
    saturation: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 2), np.uint64))
    located: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 0), np.uint32))
    located_bin: float = 1
    base_counts: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 5), np.uint64))
    quality_counts: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 64), np.uint64))
    dna: DnaEvidence | None = None


@dataclass(frozen=True)
class Maps:
    """The whole of ``maps.h5``: one chip, its libraries, and the place in the log that they stand for."""

    frame: ChipFrame
    libraries: Mapping[str, LibraryMap]
    log_position: int = 0
    generation: int = 0


# --------------------------------------------------------------------------------------------------- from the molecules


def build_map(
    molecules: Molecules | Iterable[Molecules],
    frame: ChipFrame,
    feature_ids: Sequence[str] | NDArray[np.str_],
    feature_names: Sequence[str] | NDArray[np.str_],
    *,
    library: str,
    layer: Layer,
) -> SpatialMap:
    """Count molecules and their reads per feature and spot.

    The map does not depend on how the molecules are ordered or cut into parts.

    Args:
        molecules: All of them, or parts of them (``MoleculeSet.parts``), each after any collapse; features are numbers
            into ``feature_ids``.
        frame: Where the spots are.
        feature_ids: Unique names of the features, in order.
        feature_names: Their names for people.
        library: Name of the library.
        layer: "rna" or "dna".

    Raises:
        ValueError: a feature has no name.
    """
    parts = [molecules] if isinstance(molecules, Molecules) else molecules
    places = None if frame.x is None or frame.y is None else np.lexsort((frame.x, frame.y))
    ranks = np.zeros(0, np.uint32)
    if places is not None:
        ranks = np.empty(places.shape[0], np.uint32)
        ranks[places] = np.arange(places.shape[0], dtype=np.uint32)
    sums: list[Sums] = []
    for part in parts:
        keys = np.empty(len(part), np.uint64)
        row_keys(part.features.astype(np.uint64, copy=False), part.spots, ranks, keys)
        sums.append(sum_equal(keys, np.ones(len(part), np.uint32), part.copies))
    keys, counts, reads = sum_parts(sums)
    ids = as_names(feature_ids)
    if keys.size and int(keys[-1]) >> PLACE_BITS >= ids.shape[0]:
        raise ValueError(
            f"A molecule has feature number {int(keys[-1]) >> PLACE_BITS}; there are {ids.shape[0]} features."
        )
    starts = np.arange(ids.shape[0] + 1, dtype=np.uint64) << np.uint64(PLACE_BITS)
    offsets = np.searchsorted(keys, starts).astype(np.int64)
    place = (keys & np.uint64((1 << PLACE_BITS) - 1)).astype(np.uint32)
    del keys
    if places is None:
        x = (place & np.uint32(0x7FFF)).astype(np.int32) + np.int32(frame.origin_x)
        y = (place >> np.uint32(15)).astype(np.int32) + np.int32(frame.origin_y)
    else:
        x, y = frame.coordinates(places[place].astype(np.uint32))
    return SpatialMap(library, layer, ids, as_names(feature_names), offsets, x, y, counts, reads, frame)


def _axis_bins(values: NDArray[Any], first: int, grid: BinGrid) -> NDArray[np.int64]:
    """The bin of each coordinate on one axis, counted from the grid's first."""
    if values.dtype == np.int32:
        return (values.astype(np.int64) // int(grid.bin_size)) - first
    bins: NDArray[np.int64] = np.floor(values / grid.bin_size).astype(np.int64) - first
    return bins


# ------------------------------------------------------------------------------------------------------------- the file


def write_maps(path: Path, maps: Maps) -> None:
    """Write ``maps.h5`` whole or not at all: beside it, synced, then renamed over it. Same maps, same bytes.

    Raises:
        DiskError: the disk is full or refuses.
        ValueError: a library's name cannot be the name of an HDF5 group.
    """
    import h5py

    path = Path(path)
    try:
        with replace_atomically(path) as temporary:
            with h5py.File(temporary, "w", track_order=False) as file:
                _write(file, maps)
            seal(temporary, _MAGIC, VERSION)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        full = " Free some space; the older maps are still whole." if error.errno == errno.ENOSPC else ""
        raise DiskError(f"{path}: the maps could not be written: {reason}.{full}") from error


def read_maps(path: Path) -> Maps:
    """Read ``maps.h5``.

    Raises:
        InputError: there is no such file, it is no map, it is of a newer version, or it is damaged.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(path, "there is no such file", remedy="A run writes maps.h5 at its first checkpoint.")
    found = seal_of(path, _MAGIC)
    if found is not None and not is_intact(path, found):
        raise InputError(path, "the maps are damaged: their checksum is wrong", remedy=_MAKE_ANEW)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if not h5py.is_hdf5(path):
            problem = "expected maps (HDF5), found something else"
            raise InputError(path, problem, remedy="Name a run, or its maps.h5.") from error
        raise InputError(path, hdf5_fault(path, error), remedy=_MAKE_ANEW) from error
    with file:
        if file.attrs.get("format") != FORMAT:
            raise InputError(
                path,
                f"expected format {FORMAT!r}, found {file.attrs.get('format', 'none')!r}",
                place="attribute format",
                remedy="This HDF5 file holds other data: name a run, or its maps.h5.",
            )
        version = int(file.attrs.get("version", 0))
        if not 1 <= version <= VERSION:
            remedy = "Read it with the version of Cartoseq that wrote it, or a newer one."
            raise InputError(
                path, f"version {version}; this program reads up to {VERSION}", place="attribute version", remedy=remedy
            )
        try:
            return _read(file)
        except (KeyError, ValueError, OSError) as error:
            raise InputError(path, f"damaged maps: {error}", remedy=_MAKE_ANEW) from error


def _write(file: h5py.File, maps: Maps) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["version"] = np.int64(VERSION)
    file.attrs["log_position"] = np.int64(maps.log_position)
    file.attrs["generation"] = np.int64(maps.generation)
    maps.frame.write(file.create_group("chip"))
    libraries = file.create_group("libraries")
    for name in sorted(maps.libraries):
        library = maps.libraries[name]
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise ValueError(f"A library of a maps file cannot be called {name!r}.")
        group = libraries.create_group(name)
        group.attrs["layer"] = library.map.layer
        for total in sorted(library.totals):
            group.attrs[total] = np.int64(library.totals[total])
        _dataset(group, "feature_id", _fixed_bytes(library.map.feature_ids))
        _dataset(group, "feature_name", _fixed_bytes(library.map.feature_names))
        _dataset(group, "offset", library.map.offsets.astype(np.int64, copy=False))
        coordinate = np.int32 if maps.frame.kind == "lattice" else np.float64
        _dataset(group, "x", library.map.x.astype(coordinate, copy=False))
        _dataset(group, "y", library.map.y.astype(coordinate, copy=False))
        _dataset(group, "molecules", library.map.molecules.astype(np.uint32, copy=False))
        _dataset(group, "reads", library.map.reads.astype(np.uint32, copy=False))
        _dataset(group, "copies", library.copies.astype(np.uint64, copy=False))
        _dataset(group, "saturation", library.saturation.astype(np.uint64, copy=False))
        located = _dataset(group, "located", library.located.astype(np.uint32, copy=False))
        located.attrs["bin"] = np.float64(library.located_bin)
        cycles = group.create_group("cycles")
        _dataset(cycles, "base_counts", library.base_counts.astype(np.uint64, copy=False))
        _dataset(cycles, "quality_counts", library.quality_counts.astype(np.uint64, copy=False))
        if library.dna is not None:
            write_evidence(group.create_group("dna"), library.dna, maps.frame)


def _read(file: h5py.File) -> Maps:
    frame = ChipFrame.read(file["chip"])
    libraries: dict[str, LibraryMap] = {}
    for name in sorted(file["libraries"]):
        group = file["libraries"][name]
        layer = str(group.attrs["layer"])
        if layer not in LAYERS:
            raise ValueError(f"library {name} has the unknown layer {layer!r}")
        spatial = SpatialMap(
            library=name,
            layer=layer,
            feature_ids=_text(group["feature_id"][()]),
            feature_names=_text(group["feature_name"][()]),
            offsets=group["offset"][()],
            x=group["x"][()],
            y=group["y"][()],
            molecules=group["molecules"][()],
            reads=group["reads"][()],
            frame=frame,
        )
        libraries[name] = LibraryMap(
            map=spatial,
            totals={key: int(value) for key, value in group.attrs.items() if key != "layer"},
            copies=group["copies"][()],
            saturation=group["saturation"][()],
            located=group["located"][()],
            located_bin=float(group["located"].attrs["bin"]),
            base_counts=group["cycles/base_counts"][()],
            quality_counts=group["cycles/quality_counts"][()],
            dna=read_evidence(group["dna"]) if "dna" in group else None,
        )
    return Maps(frame, libraries, int(file.attrs["log_position"]), int(file.attrs["generation"]))


def _dataset(group: h5py.Group, name: str, values: NDArray[Any]) -> h5py.Dataset:
    return group.create_dataset(name, data=values, track_times=False)


def _fixed_bytes(names: NDArray[np.str_]) -> NDArray[np.bytes_]:
    encoded = [str(name).encode() for name in names]
    return np.array(encoded, dtype=f"S{max((len(name) for name in encoded), default=1) or 1}")


def _text(names: NDArray[np.bytes_]) -> NDArray[np.str_]:
    return np.array([bytes(name).decode() for name in names], dtype=np.str_)


def as_names(names: Sequence[str] | NDArray[np.str_]) -> NDArray[np.str_]:
    """Names as a NumPy array of str."""
    return np.array(list(names), dtype=np.str_)
