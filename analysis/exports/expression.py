"""What an expression file of the field holds: how many molecules of each feature lie in each square bin of the chip.

The GEF, GEM, AnnData and matrix-market files all tell the same table in different words. A bin of size N has the
coordinates of its corner, ``floor(x / N) * N`` on the chip, as in GEF files. Features are genes, or windows of the
genome for a DNA library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cartoseq.streaming.errors import InputError
from cartoseq.streaming.kernel import kernel

if TYPE_CHECKING:
    from cartoseq.analysis.maps import SpatialMap

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt32 = NDArray[np.uint32]

#: What the field calls the two layers, as GEF and GEM headers have it.
OMICS = {"rna": "Transcriptomics", "dna": "Genomics"}
#: Distance of two spots on Stereo-seq chips: 0.5 µm.
DEFAULT_RESOLUTION_NM = 500
#: Rows aggregated at once; bounds the memory of re-binning.
ROWS_PER_BLOCK = 1 << 22

_COORDINATE_LIMIT = 1 << 31


@dataclass(frozen=True)
class ExpressionTable:
    """Molecules per feature and square bin; rows of one feature follow each other, ordered by y, then x.

    Args:
        feature_ids: Gene identifiers, or windows as ``chr1:0-1000000``, shape (features,).
        feature_names: Names for people, shape (features,).
        offsets: First row of each feature, and the number of rows at the end, shape (features + 1,).
        x: Left edge of the bin on the chip, in spots, shape (rows,).
        y: Upper edge of the bin on the chip, in spots, shape (rows,).
        counts: Molecules, at least 1, shape (rows,).
        exon_counts: Those of them that are exonic, where a file told them apart, shape (rows,).
        bin_size: Side of a bin, in spots.
        chip: Name (serial number) of the chip; empty if unknown.
        omics: ``Transcriptomics`` or ``Genomics``.
        resolution_nm: Distance of two spots, in nm; None if unknown.
        origin: Chip coordinates (x, y) that a GEM file calls 0, 0.
    """

    feature_ids: NDArray[np.str_]
    feature_names: NDArray[np.str_]
    offsets: Int64
    x: Int32
    y: Int32
    counts: UInt32
    exon_counts: UInt32 | None = None
    bin_size: int = 1
    chip: str = ""
    omics: str = OMICS["rna"]
    resolution_nm: int | None = None
    origin: tuple[int, int] = (0, 0)

    @property
    def rows(self) -> int:
        """Number of (feature, bin) pairs with a molecule."""
        return int(self.x.size)

    @property
    def molecules(self) -> int:
        """Sum of all counts."""
        return int(self.counts.sum(dtype=np.uint64))

    @property
    def features_seen(self) -> int:
        """Number of features with a molecule anywhere."""
        return int(np.count_nonzero(np.diff(self.offsets)))

    @property
    def bins(self) -> int:
        """Number of bins with a molecule."""
        return int(self.molecules_per_bin().size)

    def molecules_per_bin(self) -> Int64:
        """Molecules of each bin that has any, by x, then y, shape (bins,)."""
        if self.rows == 0:
            return np.zeros(0, np.int64)
        left, top = int(self.x.min()), int(self.y.min())
        packed = ((self.x.astype(np.int64) - left) << 32) | (self.y.astype(np.int64) - top)
        order = np.argsort(packed)
        packed = packed[order]
        starts = np.flatnonzero(np.concatenate([[True], packed[1:] != packed[:-1]]))
        return np.add.reduceat(self.counts[order].astype(np.int64), starts)

    def features(self) -> Int64:
        """The feature of every row, shape (rows,)."""
        return np.repeat(np.arange(self.feature_ids.size, dtype=np.int64), np.diff(self.offsets))

    def blocks(self, bin_size: int, rows_per_block: int = ROWS_PER_BLOCK) -> Iterator[ExpressionTable]:
        """The table at a larger bin, some features at a time, so that memory stays bounded.

        Every feature is whole in one block; features without rows are in it too, so the blocks' features follow
        each other to the full list.

        Raises:
            InputError: the bin is no multiple of this table's bin.
        """
        _check_multiple(self.bin_size, bin_size)
        features = self.feature_ids.size
        first = 0
        while first < features:
            reach = int(self.offsets[first]) + rows_per_block
            last = max(first + 1, int(np.searchsorted(self.offsets, reach, side="right")) - 1)
            yield self._aggregate(first, min(last, features), bin_size)
            first = last

    def rebinned(self, bin_size: int) -> ExpressionTable:
        """The whole table at a larger bin.

        Raises:
            InputError: the bin is no multiple of this table's bin.
        """
        if bin_size == self.bin_size:
            return self
        parts = list(self.blocks(bin_size))
        if not parts:
            return replace(self, bin_size=bin_size)
        ends = np.cumsum([0] + [part.rows for part in parts])
        offsets = np.concatenate(
            [np.zeros(1, np.int64)] + [part.offsets[1:] + end for part, end in zip(parts, ends[:-1], strict=True)]
        )
        exons = [part.exon_counts for part in parts if part.exon_counts is not None]
        return replace(
            self,
            offsets=offsets,
            x=np.concatenate([part.x for part in parts]),
            y=np.concatenate([part.y for part in parts]),
            counts=np.concatenate([part.counts for part in parts]),
            exon_counts=np.concatenate(exons) if self.exon_counts is not None else None,
            bin_size=bin_size,
        )

    def _aggregate(self, first: int, last: int, bin_size: int) -> ExpressionTable:
        """Features first to last (exclusive) at another bin."""
        start, stop = int(self.offsets[first]), int(self.offsets[last])
        rows = slice(start, stop)
        exons = None if self.exon_counts is None else self.exon_counts[rows]
        part = replace(
            self,
            feature_ids=self.feature_ids[first:last],
            feature_names=self.feature_names[first:last],
            offsets=self.offsets[first : last + 1] - start,
            x=self.x[rows],
            y=self.y[rows],
            counts=self.counts[rows],
            exon_counts=exons,
        )
        return part if bin_size == self.bin_size else _binned(part, bin_size)


def aggregate(
    like: ExpressionTable, features: Int64, x: Int64, y: Int64, bin_size: int, *, source: str = "expression table"
) -> ExpressionTable:
    """Sort rows by feature, y, x and add up those that share a bin.

    Args:
        like: Where all else comes from: the features, counts parallel to the rows, and what is said about the chip.
        features: Feature number of each row, shape (rows,).
        x: Chip coordinate of each row, shape (rows,).
        y: Chip coordinate of each row, shape (rows,).
        bin_size: Side of a bin, in spots.
        source: The file to name in an error.

    Raises:
        InputError: a sum or a coordinate does not fit into 32 bits.
    """
    column, row = x // bin_size, y // bin_size
    order = _order(features, row, column)
    features, column, row = features[order], column[order], row[order]
    new = np.ones(order.size, np.bool_)
    if order.size:
        new[1:] = (features[1:] != features[:-1]) | (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    starts = np.flatnonzero(new)
    kept_features = features[starts]
    corner_x, corner_y = column[starts] * bin_size, row[starts] * bin_size
    if starts.size and max(np.abs(corner_x).max(), np.abs(corner_y).max()) >= _COORDINATE_LIMIT:
        raise InputError(source, "a coordinate does not fit into 32 bits")
    per_feature = np.bincount(kept_features, minlength=like.feature_ids.size)
    return replace(
        like,
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(per_feature, dtype=np.int64)]),
        x=corner_x.astype(np.int32),
        y=corner_y.astype(np.int32),
        counts=_sums(like.counts[order], starts, source),
        exon_counts=None if like.exon_counts is None else _sums(like.exon_counts[order], starts, source),
        bin_size=bin_size,
    )


@kernel
def bin_rows(
    offsets: Int64,
    x: Int32,
    y: Int32,
    counts: UInt32,
    exons: UInt32,
    bin_size: int,
    first_column: int,
    columns: int,
    out_offsets: Int64,
    out_x: Int32,
    out_y: Int32,
    out_counts: UInt32,
    out_exons: UInt32,
) -> bool:
    """Add up the rows of each feature that share a square bin. Rows come and go by feature, y, x.

    Args:
        offsets: First row of each feature, shape (features + 1,).
        x: Coordinates, shape (rows,).
        y: Coordinates, shape (rows,).
        counts: At least 1, shape (rows,).
        exons: Shape (rows,).
        bin_size: Side of a bin.
        first_column: The leftmost bin: least x divided by the side, rounded down.
        columns: Bins from the leftmost to the rightmost.
        out_offsets: Out: as ``offsets``.
        out_x: Out: left edge of each bin, shape (rows,); as many as ``out_offsets`` says are filled.
        out_y: Out: upper edge of each bin, shape (rows,).
        out_counts: Out: sums, shape (rows,).
        out_exons: Out: sums, shape (rows,).

    Returns:
        Whether every sum fits into 32 bits.
    """
    sums = np.zeros(columns, np.uint64)
    exon_sums = np.zeros(columns, np.uint64)
    touched = np.empty(columns, np.int64)
    written = 0
    out_offsets[0] = 0
    for feature in range(offsets.shape[0] - 1):
        i = offsets[feature]
        end = offsets[feature + 1]
        while i < end:
            # The rows of one line of bins follow each other; a sum per column is enough.
            top = np.int64(y[i]) // bin_size * bin_size
            found = 0
            while i < end and np.int64(y[i]) < top + bin_size:
                column = np.int64(x[i]) // bin_size - first_column
                if sums[column] == 0:
                    touched[found] = column
                    found += 1
                sums[column] += np.uint64(counts[i])
                exon_sums[column] += np.uint64(exons[i])
                i += 1
            if found > 1:
                touched[:found].sort()
            for k in range(found):
                column = touched[k]
                if sums[column] > np.uint64(0xFFFFFFFF):
                    return False
                out_x[written] = (column + first_column) * bin_size
                out_y[written] = top
                out_counts[written] = sums[column]
                out_exons[written] = exon_sums[column]
                sums[column] = 0
                exon_sums[column] = 0
                written += 1
        out_offsets[feature + 1] = written
    return True


def _binned(table: ExpressionTable, bin_size: int) -> ExpressionTable:
    """The table at a larger bin; its rows are in order, so nothing is sorted."""
    if table.rows == 0:
        return replace(table, bin_size=bin_size)
    first, last = int(table.x.min()) // bin_size, int(table.x.max()) // bin_size
    if max(abs(first), abs(int(table.y.min()) // bin_size)) * bin_size >= _COORDINATE_LIMIT:
        raise InputError("expression table", "the corner of a bin does not fit into 32 bits")
    exons = table.counts if table.exon_counts is None else table.exon_counts
    offsets = np.empty_like(table.offsets)
    x, y = np.empty(table.rows, np.int32), np.empty(table.rows, np.int32)
    counts, exon_sums = np.empty(table.rows, np.uint32), np.empty(table.rows, np.uint32)
    fits = bin_rows(
        np.ascontiguousarray(table.offsets),
        np.ascontiguousarray(table.x),
        np.ascontiguousarray(table.y),
        np.ascontiguousarray(table.counts),
        np.ascontiguousarray(exons),
        bin_size,
        first,
        last - first + 1,
        offsets,
        x,
        y,
        counts,
        exon_sums,
    )
    if not fits:
        raise InputError("expression table", "the molecules of one bin do not fit into 32 bits")
    rows = int(offsets[-1])
    return replace(
        table,
        offsets=offsets,
        x=x[:rows].copy(),
        y=y[:rows].copy(),
        counts=counts[:rows].copy(),
        exon_counts=None if table.exon_counts is None else exon_sums[:rows].copy(),
        bin_size=bin_size,
    )


def _order(features: Int64, row: Int64, column: Int64) -> NDArray[np.intp]:
    """The order by feature, row, column."""
    if features.size == 0:
        return np.zeros(0, np.intp)
    top, left = int(row.min()), int(column.min())
    height, width = int(row.max()) - top + 1, int(column.max()) - left + 1
    if (int(features.max()) + 1) * height * width >= 1 << 62:
        return np.lexsort((column, row, features))
    # One number that sorts as the three do: several times faster than sorting by each in turn.
    return np.argsort((features * height + (row - top)) * width + (column - left))


def _sums(counts: UInt32, starts: Int64, source: str) -> UInt32:
    if starts.size == 0:
        return np.zeros(0, np.uint32)
    sums = np.add.reduceat(counts.astype(np.uint64), starts)
    if int(sums.max()) > np.iinfo(np.uint32).max:
        raise InputError(source, "the molecules of one bin do not fit into 32 bits")
    return sums.astype(np.uint32)


def _check_multiple(present: int, wanted: int) -> None:
    if wanted < 1 or wanted % present:
        raise InputError(
            f"bin {wanted}",
            f"the table is at bin {present}, and only a multiple of that can be made of it",
            remedy=f"Ask for bin {present} or a multiple.",
        )


def table_of_map(spatial: SpatialMap, *, resolution_um: float | None = None) -> ExpressionTable:
    """The table of a library's map at bin 1, on a whole-number grid of spots.

    On a lattice chip the spots are that grid. A listed chip gives coordinates of its own. Where they are whole
    numbers, and no resolution is asked for, they are the grid. Else they are taken as steps of the chip's pitch (as µm
    where it has none), divided by the resolution and rounded to the nearest spot; rows that meet there are added up.

    Args:
        spatial: The map.
        resolution_um: Distance of two spots of the grid on a listed chip; 0.5 µm unless told. A lattice chip keeps
            its own pitch.

    Raises:
        InputError: a coordinate does not fit into 32 bits at this resolution, or the resolution is not positive.
    """
    frame = spatial.frame
    x, y = spatial.x, spatial.y
    lattice = frame.kind == "lattice"
    whole = lattice or (resolution_um is None and bool(np.all(x == np.rint(x)) and np.all(y == np.rint(y))))
    if resolution_um is not None and not resolution_um > 0:
        raise InputError(f"resolution {resolution_um}", "expected a positive distance in µm")
    step_um = frame.pitch_um if whole else resolution_um or DEFAULT_RESOLUTION_NM / 1000
    table = ExpressionTable(
        feature_ids=spatial.feature_ids,
        feature_names=spatial.feature_names,
        offsets=spatial.offsets,
        x=x.astype(np.int32, copy=False) if lattice else np.zeros(spatial.rows, np.int32),
        y=y.astype(np.int32, copy=False) if lattice else np.zeros(spatial.rows, np.int32),
        counts=spatial.molecules,
        chip=frame.name,
        omics=OMICS[spatial.layer],
        resolution_nm=None if step_um is None else max(1, round(step_um * 1000)),
        origin=(frame.origin_x, frame.origin_y) if whole else (0, 0),
    )
    if lattice:
        return table
    per_step = 1.0 if whole or step_um is None else (frame.pitch_um or 1.0) / step_um
    return aggregate(
        table,
        table.features(),
        np.rint(x * per_step).astype(np.int64),
        np.rint(y * per_step).astype(np.int64),
        1,
        source=frame.name or "chip",
    )
