"""Collapse of molecular barcodes: errors of reading and copying that look like molecules of their own.

Within one spot and feature, barcodes are taken by falling number of reads (ties: the smaller packed barcode first);
each that is still there takes in all later ones at a Hamming distance of at most one, with their reads. This is
Drop-seq's edit-distance collapse (``DigitalExpression`` with ``EDIT_DISTANCE=1``), here ``greedy``. SAW (``handleBam``,
``deDupUmi``) does the same, but only where a spot and feature have at least five different barcodes: ``saw``. What a
barcode took in does not raise its rank, in either.

Collapse does not merge: it is derived from the exact set whenever a map is made, never accumulated.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.molecules import Molecules
from cartoseq.streaming.kernel import inlined, kernel

CollapseMethod = Literal["off", "saw", "greedy"]

_LEAST_MIDS: dict[str, int] = {"saw": 5, "greedy": 2}
# Above so many barcodes in a group, neighbours are looked up and not all pairs compared.
_PAIRWISE = 64


def collapse_mids(molecules: Molecules, method: CollapseMethod, mid_length: int) -> Molecules:
    """Merge barcodes one substitution apart, per spot and feature.

    Args:
        molecules: All molecules of each (feature, spot) together, as the set gives them.
        method: ``off`` leaves them, ``greedy`` or ``saw`` as above.
        mid_length: Bases of a barcode; without any (0) nothing is merged.

    Returns:
        The molecules that are left, in the same order; the reads of the others are added to their copies.

    Raises:
        ValueError: an unknown method.
    """
    if method == "off" or mid_length == 0 or len(molecules) == 0:
        if method not in ("off", *_LEAST_MIDS):
            raise ValueError(f"Unknown collapse of molecular barcodes: {method!r}.")
        return molecules
    if method not in _LEAST_MIDS:
        raise ValueError(f"Unknown collapse of molecular barcodes: {method!r}.")
    copies = molecules.copies.astype(np.uint64)
    _collapse(molecules.spots, molecules.features, molecules.mids, copies, _LEAST_MIDS[method], mid_length)
    kept: NDArray[np.intp] = np.flatnonzero(copies)
    return Molecules(
        molecules.spots[kept],
        molecules.features[kept],
        molecules.mids[kept],
        np.minimum(copies[kept], np.uint64(0xFFFFFFFF)).astype(np.uint32),
    )


@inlined
def _within_one(one: Any, other: Any) -> Any:
    """Whether two packed barcodes differ in one base at most: their differing bits lie in one pair."""
    bits = one ^ other
    pairs = (bits | (bits >> np.uint64(1))) & np.uint64(0x5555555555555555)
    return (pairs & (pairs - np.uint64(1))) == np.uint64(0)


@kernel
def _collapse(spots: Any, features: Any, mids: Any, copies: Any, least_mids: Any, mid_length: Any) -> None:
    """Move reads to the barcodes that stay (in place); those taken in are left with no copies.

    Args:
        spots: uint32, shape (n,).
        features: uint32 or uint64, shape (n,).
        mids: uint64, shape (n,).
        copies: uint64, shape (n,); in and out.
        least_mids: Groups of fewer barcodes stay as they are.
        mid_length: Bases of a barcode.
    """
    n = spots.shape[0]
    first = 0
    while first < n:
        end = first + 1
        while end < n and spots[end] == spots[first] and features[end] == features[first]:
            end += 1
        size = end - first
        if size >= least_mids and _any_close(mids, first, end):
            _collapse_group(mids[first:end], copies[first:end], mid_length)
        first = end


@kernel
def _any_close(mids: Any, first: Any, end: Any) -> bool:
    """Whether a group of a few barcodes has any two that could merge; large groups are taken to have."""
    if end - first > 16:
        return True
    for i in range(first, end):
        for j in range(i + 1, end):
            if _within_one(mids[i], mids[j]):
                return True
    return False


@kernel
def _collapse_group(mids: Any, copies: Any, mid_length: Any) -> None:
    """Collapse the barcodes of one spot and feature, in place."""
    n = mids.shape[0]
    by_mid = np.argsort(mids, kind="mergesort")
    falling = np.uint64(0xFFFFFFFFFFFFFFFF) - copies[by_mid]
    # Ranks in the order of taking, as places in by_mid.
    order = np.argsort(falling, kind="mergesort")
    taken = np.zeros(n, np.uint8)
    if n <= _PAIRWISE:
        for rank in range(n):
            keeper = order[rank]
            if taken[keeper]:
                continue
            for later in range(rank + 1, n):
                candidate = order[later]
                if not taken[candidate] and _within_one(mids[by_mid[keeper]], mids[by_mid[candidate]]):
                    taken[candidate] = 1
                    copies[by_mid[keeper]] += copies[by_mid[candidate]]
                    copies[by_mid[candidate]] = np.uint64(0)
        return
    # Many barcodes: look up each possible neighbour. One that is there and not taken is a later one, since an earlier
    # one would have taken this keeper in.
    in_order = mids[by_mid]
    for rank in range(n):
        keeper = order[rank]
        if taken[keeper]:
            continue
        for position in range(mid_length):
            for change in range(1, 4):
                neighbour = in_order[keeper] ^ (np.uint64(change) << np.uint64(2 * position))
                candidate = np.searchsorted(in_order, neighbour)
                if candidate < n and in_order[candidate] == neighbour and not taken[candidate]:
                    taken[candidate] = 1
                    copies[by_mid[keeper]] += copies[by_mid[candidate]]
                    copies[by_mid[candidate]] = np.uint64(0)
