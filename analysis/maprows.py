"""Rows of a map: keys that sort them by feature and place, sums of equal keys, and images of them.

The key of a row is ``feature << 30 | place``. On a lattice the place is ``y << 15 | x`` from the frame's origin; on a
listed frame it is the spot's rank by (y, x).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.streaming.kernel import kernel

PLACE_BITS = 30

Sums = tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint32]]
"""Keys, molecules, reads."""


def offsets_of(features: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
    """The CSR index of sorted feature numbers, shape (count + 1,)."""
    return np.searchsorted(features, np.arange(count + 1, dtype=np.uint64)).astype(np.int64)


def sum_equal(keys: NDArray[np.uint64], molecules: NDArray[np.uint32], reads: NDArray[np.uint32]) -> Sums:
    """The different keys in rising order, and the sums of each. ``keys`` is used up."""
    if _is_sorted(keys):
        molecules, reads = molecules.copy(), reads.copy()
    else:
        order = np.argsort(keys)
        keys, molecules, reads = keys[order], molecules[order], reads[order]
    n = _sum_runs(keys, molecules, reads)
    if 2 * n >= keys.shape[0]:
        return keys[:n], molecules[:n], reads[:n]
    return keys[:n].copy(), molecules[:n].copy(), reads[:n].copy()  # lets most of the memory go


def sum_parts(parts: list[Sums]) -> Sums:
    """The sums of several parts together. The list is emptied, so that the rows lie in memory twice and not more."""
    if len(parts) == 1:
        return parts.pop()
    columns = tuple([part[column] for part in parts] for column in range(3))
    parts.clear()
    joined: list[NDArray[Any]] = []
    for part_columns, dtype in zip(columns, (np.uint64, np.uint32, np.uint32), strict=True):
        joined.append(np.concatenate([np.zeros(0, dtype), *part_columns]))
        part_columns.clear()
    order = np.argsort(joined[0])
    for column in range(3):
        joined[column] = joined[column][order]
    keys, molecules, reads = joined
    n = _sum_runs(keys, molecules, reads)
    return keys[:n], molecules[:n], reads[:n]


@kernel
def _is_sorted(keys: NDArray[np.uint64]) -> bool:
    """Whether no key is smaller than the one before."""
    falls = 0
    for i in range(1, keys.shape[0]):
        falls += keys[i] < keys[i - 1]
    return falls == 0


@kernel
def row_keys(
    features: NDArray[np.uint64], spots: NDArray[np.uint32], ranks: NDArray[np.uint32], keys: NDArray[np.uint64]
) -> None:
    """``feature << 30 | place``: rows of a map in order. A place is y, x of a lattice spot, or a listed spot's rank."""
    for i in range(spots.shape[0]):
        spot = np.uint64(spots[i])
        if ranks.shape[0]:
            place = np.uint64(ranks[spot])
        else:
            x = (((spot >> np.uint64(16)) & np.uint64(0x7F)) << np.uint64(8)) | (spot & np.uint64(0xFF))
            y = ((spot >> np.uint64(23)) << np.uint64(8)) | ((spot >> np.uint64(8)) & np.uint64(0xFF))
            place = (y << np.uint64(15)) | x
        keys[i] = (features[i] << np.uint64(30)) | place


@kernel
def _sum_runs(keys: NDArray[np.uint64], molecules: NDArray[np.uint32], reads: NDArray[np.uint32]) -> int:
    """Sum the rows of each key, which lie together, in place; sums stop at 2**32 - 1. Returns the number of keys."""
    most = np.uint64(0xFFFFFFFF)
    n = 0
    i = 0
    while i < keys.shape[0]:
        key = keys[i]
        some_molecules = np.uint64(0)
        some_reads = np.uint64(0)
        while i < keys.shape[0] and keys[i] == key:
            some_molecules += np.uint64(molecules[i])
            some_reads += np.uint64(reads[i])
            i += 1
        keys[n] = key
        molecules[n] = min(some_molecules, most)
        reads[n] = min(some_reads, most)
        n += 1
    return n


@kernel
def add_to_image(
    x: NDArray[Any],
    y: NDArray[Any],
    molecules: NDArray[np.uint32],
    bin_size: float,
    first_column: int,
    first_row: int,
    image: NDArray[np.uint32],
) -> None:
    """Add rows to an image of bins that covers them (rounding at its far edge falls into the last bin)."""
    for i in range(x.shape[0]):
        column = np.int64(np.floor(x[i] / bin_size)) - first_column
        row = np.int64(np.floor(y[i] / bin_size)) - first_row
        image[min(row, image.shape[0] - 1), min(column, image.shape[1] - 1)] += molecules[i]
