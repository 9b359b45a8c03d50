"""Bins by features: the count matrix that single-cell tools work on, made of an expression table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.exports.expression import ExpressionTable

_WINDOW = re.compile(r"(.+):(\d+)-(\d+)")


@dataclass(frozen=True)
class BinMatrix:
    """Counts in CSR form: one row per bin with a molecule, by y, then x; one column per feature.

    Args:
        x: Left edge of each bin on the chip, in spots, shape (bins,).
        y: Upper edge of each bin on the chip, in spots, shape (bins,).
        indptr: First value of each bin, shape (bins + 1,).
        indices: Feature of each value, ascending within a bin, shape (values,).
        data: Molecules, int32, shape (values,).
        centres: Centre of each bin, (x, y), in ``unit``, float64, shape (bins, 2).
        unit: ``um``, or ``spots`` where the chip's pitch is unknown.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    indptr: NDArray[Any]
    indices: NDArray[Any]
    data: NDArray[np.int32]
    centres: NDArray[np.float64]
    unit: str

    @property
    def barcodes(self) -> list[str]:
        """A name for each bin: its corner, ``x_y``."""
        return [f"{x}_{y}" for x, y in zip(self.x.tolist(), self.y.tolist(), strict=True)]


def bin_matrix(table: ExpressionTable) -> BinMatrix:
    """Turn the table around: from gene by gene to bin by bin."""
    left, top = (int(table.x.min()), int(table.y.min())) if table.rows else (0, 0)
    packed = ((table.y.astype(np.int64) - top) << 32) | (table.x.astype(np.int64) - left)
    bins, place, sizes = np.unique(packed, return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    index = np.int32 if table.rows <= np.iinfo(np.int32).max else np.int64
    x = ((bins & 0xFFFFFFFF) + left).astype(np.int32)
    y = ((bins >> 32) + top).astype(np.int32)
    centres = np.column_stack([x, y]) + (table.bin_size - 1) / 2
    if table.resolution_nm is not None:
        centres *= table.resolution_nm / 1000
    return BinMatrix(
        x=x,
        y=y,
        indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(index),
        indices=table.features()[order].astype(index),
        data=table.counts[order].astype(np.int32),
        centres=centres,
        unit="spots" if table.resolution_nm is None else "um",
    )


def genome_windows(table: ExpressionTable) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]] | None:
    """Chromosome, start and end (0-based, end exclusive) of every feature; None unless all are genome windows."""
    found = [_WINDOW.fullmatch(name) for name in table.feature_ids.tolist()]
    windows = [match for match in found if match is not None]
    if not windows or len(windows) < len(found):
        return None
    starts, ends = (np.array([int(match[part]) for match in windows], np.int64) for part in (2, 3))
    return [match[1] for match in windows], starts, ends
