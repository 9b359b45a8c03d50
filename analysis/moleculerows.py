"""Molecules as rows: what all tables of molecules give out, and how rows are taken apart and put in order.

A shard holds the molecules of one tile of 256 x 256 spots in a table of its own. Its key is exact::

    feature | local (16 bits: the spot within the shard) | MID

A *narrow* row is one uint64: 52 bits of key above a 12-bit count. A *wide* row is two uint64: the upper 64 bits of a
96-bit key; the lower 32 bits of it above a 32-bit count. Sorting rows as numbers sorts them by feature, spot, MID.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cartoseq.streaming.kernel import kernel

LOCAL_BITS = 16


@kernel
def first_misfit(spots: Any, features: Any, mids: Any, feature_bits: Any, mid_bits: Any) -> int:
    """Index of the first read whose spot, feature or MID has too many bits for the key, or -1."""
    over_spot, over_feature, over_mid = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(spots.shape[0]):
        over_spot |= np.uint64(spots[i]) >> np.uint64(30)
        over_feature |= features[i] >> feature_bits
        over_mid |= mids[i] >> mid_bits
    if feature_bits >= np.uint64(64):
        over_feature = np.uint64(0)
    if (over_spot | over_feature | over_mid) == np.uint64(0):
        return -1
    for i in range(spots.shape[0]):
        if (np.uint64(spots[i]) >> np.uint64(30)) != np.uint64(0) or (mids[i] >> mid_bits) != np.uint64(0):
            return i
        if feature_bits < np.uint64(64) and (features[i] >> feature_bits) != np.uint64(0):
            return i
    return -1


@kernel
def unpack(slots: Any, shard: Any, mid_bits: Any, spots: Any, features: Any, mids: Any, copies: Any) -> None:
    """Take slots (uint64, shape (n, words)) of one shard apart into spots, features, MIDs and copies."""
    mid_mask = (np.uint64(1) << mid_bits) - np.uint64(1)
    base = np.uint64(shard) << np.uint64(16)
    low_bits = np.uint64(16) + mid_bits
    for i in range(slots.shape[0]):
        if slots.shape[1] == 1:
            key = slots[i, 0] >> np.uint64(12)
            copies[i] = slots[i, 0] & np.uint64(0xFFF)
            mids[i] = key & mid_mask
            spots[i] = base | ((key >> mid_bits) & np.uint64(0xFFFF))
            features[i] = key >> low_bits
        else:
            upper = slots[i, 0]
            lower = slots[i, 1] >> np.uint64(32)
            copies[i] = slots[i, 1] & np.uint64(0xFFFFFFFF)
            low64 = (upper << np.uint64(32)) | lower
            mids[i] = low64 & mid_mask
            spots[i] = base | ((low64 >> mid_bits) & np.uint64(0xFFFF))
            if low_bits >= np.uint64(32):
                features[i] = upper >> (low_bits - np.uint64(32))
            else:
                features[i] = (upper << (np.uint64(32) - low_bits)) | (lower >> low_bits)


@kernel
def count_buckets(features: Any, shift: Any, counts: Any) -> None:
    """Add the number of molecules per ``features >> shift`` to ``counts[bucket + 1]`` (int64)."""
    for i in range(features.shape[0]):
        counts[np.uint64(np.uint64(features[i]) >> shift) + np.uint64(1)] += 1


@kernel
def scatter(
    shift: Any,
    offsets: Any,
    spots: Any,
    features: Any,
    mids: Any,
    copies: Any,
    spots_out: Any,
    features_out: Any,
    mids_out: Any,
    copies_out: Any,
) -> None:
    """Place each molecule at the next free row of its bucket; stable."""
    for i in range(spots.shape[0]):
        bucket = np.uint64(np.uint64(features[i]) >> shift)
        row = offsets[bucket]
        offsets[bucket] = row + 1
        spots_out[row] = spots[i]
        features_out[row] = features[i]
        mids_out[row] = mids[i]
        copies_out[row] = copies[i]


@kernel
def sort_buckets(ends: Any, spots: Any, features: Any, mids: Any, copies: Any) -> None:
    """Sort the rows of each bucket by feature, stably; ``ends[b]`` is where bucket b ends (int64)."""
    begin = 0
    for bucket in range(ends.shape[0]):
        end = ends[bucket]
        ordered = True
        for row in range(begin + 1, end):
            if features[row] < features[row - 1]:
                ordered = False
                break
        if not ordered:
            order = np.argsort(features[begin:end], kind="mergesort")
            spots[begin:end] = spots[begin:end][order]
            features[begin:end] = features[begin:end][order]
            mids[begin:end] = mids[begin:end][order]
            copies[begin:end] = copies[begin:end][order]
        begin = end
