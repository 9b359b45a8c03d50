"""Open-addressing tables of molecules: the kernels under :class:`cartoseq.analysis.molecules.MoleculeSet`.

A shard holds the molecules of one tile of 256 x 256 spots in a table of its own. Its key is exact::

    feature | local (16 bits: the spot within the shard) | MID

A *narrow* slot is one uint64: 52 bits of key above a 12-bit count. A *wide* slot is two uint64: the upper 64 bits of a
96-bit key; the lower 32 bits of it above a 32-bit count. A stored molecule has a count of at least one, so that an
empty slot (0) is never taken for key 0. Sorting slots as numbers sorts them by feature, spot, MID.

Slots lie in buckets of one 64-byte cache line (8 narrow, 4 wide), filled from the left. A key is looked for in its home
bucket and, while buckets are full, in the next. Nothing is ever removed, so that the first empty slot ends a search,
and a line is nearly always the whole cost of a read. The line is asked for some reads ahead.

``table`` holds four uint64 per shard: address of the slots in memory, buckets, used slots, slots to fill at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cartoseq.streaming.kernel import inlined, kernel

LOCAL_BITS = 16
NARROW_KEY_BITS = 52
NARROW_COUNT_BITS = 12
NARROW_COUNT_MAX = (1 << NARROW_COUNT_BITS) - 1
WIDE_KEY_BITS = 96
WIDE_COUNT_MAX = (1 << 32) - 1
NARROW_BUCKET = 8
WIDE_BUCKET = 4
BUCKET_BYTES = 64
HISTOGRAM_BINS = NARROW_COUNT_MAX + 1
"""Copies are counted up to this; the last bin holds that many and all above."""

_AHEAD = 32
_RING = 64


def _define_load(_context: Any, _address: Any) -> tuple[Any, Any]:
    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return types.uint64(types.uint64), generate


def _define_store(_context: Any, _address: Any, _value: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


def _define_prefetch(_context: Any, _address: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        for_writing, keep_close, data = (ir.Constant(word, value) for value in (1, 3, 1))
        builder.call(function, [builder.inttoptr(arguments[0], byte), for_writing, keep_close, data])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


def _define_scan(_context: Any, _address: Any, _key: Any) -> tuple[Any, Any]:
    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        lanes, word, byte = ir.VectorType(ir.IntType(64), NARROW_BUCKET), ir.IntType(64), ir.IntType(8)
        slots = builder.load(builder.inttoptr(arguments[0], lanes.as_pointer()))
        slots.align = BUCKET_BYTES
        shift = ir.Constant(lanes, [NARROW_COUNT_BITS] * NARROW_BUCKET)
        first = builder.insert_element(ir.Constant(lanes, ir.Undefined), arguments[1], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), NARROW_BUCKET), [0] * NARROW_BUCKET)
        everywhere = builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), zeros)
        equal = builder.icmp_unsigned("==", builder.lshr(slots, shift), everywhere)
        empty = builder.icmp_unsigned("==", slots, ir.Constant(lanes, [0] * NARROW_BUCKET))
        equal = builder.and_(equal, builder.not_(empty))  # an empty slot looks like key 0
        found = builder.zext(builder.bitcast(equal, byte), word)
        free = builder.zext(builder.bitcast(empty, byte), word)
        return builder.or_(found, builder.shl(free, ir.Constant(word, 8)))

    return types.uint64(types.uint64, types.uint64), generate


def _define_lowest(_context: Any, _mask: Any) -> tuple[Any, Any]:
    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


_load = cast(Callable[[Any], Any], intrinsic(_define_load))
_store = cast(Callable[[Any, Any], None], intrinsic(_define_store))
_prefetch = cast(Callable[[Any], None], intrinsic(_define_prefetch))
_scan = cast(Callable[[Any, Any], Any], intrinsic(_define_scan))
"""Where a narrow bucket holds a key (bits 0-7, one at most) and where it is empty (bits 8-15)."""
_lowest = cast(Callable[[Any], Any], intrinsic(_define_lowest))
"""Number of the lowest bit that is set."""


@inlined
def _home(mixed: Any, buckets: Any) -> Any:
    """The home bucket of a key; two multiplications, so that neighbouring keys and skewed features part."""
    mixed = mixed * np.uint64(0x9E3779B97F4A7C15)
    mixed = mixed ^ (mixed >> np.uint64(32))
    mixed = mixed * np.uint64(0xD6E8FEB86659FD93)
    return ((mixed >> np.uint64(32)) * buckets) >> np.uint64(32)


@inlined
def _wide_key(feature: Any, local: Any, mid: Any, mid_bits: Any) -> Any:
    """The upper 64 and the lower 32 of the 96 bits ``feature | local | mid``."""
    low_bits = np.uint64(16) + mid_bits
    low = (local << mid_bits) | mid
    if low_bits >= np.uint64(32):
        shift = low_bits - np.uint64(32)
        upper = (low >> np.uint64(32)) | (feature << shift)
        lower = low & np.uint64(0xFFFFFFFF)
    else:
        upper = feature >> (np.uint64(32) - low_bits)
        lower = (low | (feature << low_bits)) & np.uint64(0xFFFFFFFF)
    return upper, lower


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
def add_narrow(
    spots: Any, features: Any, mids: Any, first: Any, mid_bits: Any, table: Any, histogram: Any, fresh: Any
) -> Any:
    """Count reads from ``first`` on; stop before the read whose shard must grow.

    Args:
        spots: uint32, shape (n,).
        features: uint64, shape (n,).
        mids: uint64, shape (n,).
        first: Where to begin.
        mid_bits: uint64.
        table: uint64, shape (shards * 4,).
        histogram: uint64, shape (HISTOGRAM_BINS,): molecules by copies.
        fresh: Out: 1 for a new molecule, 0 for a further copy; uint8, shape (n,).

    Returns:
        n, or the index of the first read that was not counted.
    """
    n = spots.shape[0]
    keys = np.empty(_RING, np.uint64)
    homes = np.empty(_RING, np.uint64)
    local_shift = mid_bits
    feature_shift = mid_bits + np.uint64(16)
    line = np.uint64(64)
    for ahead in range(first, n + _AHEAD):
        if ahead < n:
            spot = np.uint64(spots[ahead])
            entry = (spot >> np.uint64(16)) << np.uint64(2)
            key = (features[ahead] << feature_shift) | ((spot & np.uint64(0xFFFF)) << local_shift) | mids[ahead]
            home = table[entry] + _home(key, table[entry + np.uint64(1)]) * line
            _prefetch(home)
            slot = np.uint64(ahead) & np.uint64(_RING - 1)
            keys[slot] = key
            homes[slot] = home
        i = ahead - _AHEAD
        if i < first:
            continue
        slot = np.uint64(i) & np.uint64(_RING - 1)
        key = keys[slot]
        bucket = homes[slot]
        entry = (np.uint64(spots[i]) >> np.uint64(16)) << np.uint64(2)
        if table[entry + np.uint64(2)] >= table[entry + np.uint64(3)]:
            return i
        seen = _scan(bucket, key)
        while seen == np.uint64(0):
            bucket += line
            if bucket >= table[entry] + table[entry + np.uint64(1)] * line:
                bucket = table[entry]
            seen = _scan(bucket, key)
        # New or seen before is a coin toss that no branch predictor wins: both are done by the same instructions.
        held = seen & np.uint64(0xFF)
        is_held = np.uint64(held != np.uint64(0))
        address = bucket + ((_lowest(seen) & np.uint64(7)) << np.uint64(3))
        value = _load(address)
        count = value & np.uint64(0xFFF)
        if count < np.uint64(0xFFF):
            _store(address, (value | (key << np.uint64(12))) + np.uint64(1))
            histogram[count] -= is_held
            histogram[count + np.uint64(1)] += np.uint64(1)
        table[entry + np.uint64(2)] += np.uint64(1) - is_held
        fresh[i] = np.uint64(1) - is_held
    return n


@kernel
def add_wide(
    spots: Any, features: Any, mids: Any, first: Any, mid_bits: Any, table: Any, histogram: Any, fresh: Any
) -> Any:
    """As :func:`add_narrow`, for wide slots."""
    n = spots.shape[0]
    uppers = np.empty(_RING, np.uint64)
    lowers = np.empty(_RING, np.uint64)
    homes = np.empty(_RING, np.uint64)
    line = np.uint64(64)
    last_bin = np.uint64(histogram.shape[0] - 1)
    for ahead in range(first, n + _AHEAD):
        if ahead < n:
            spot = np.uint64(spots[ahead])
            entry = (spot >> np.uint64(16)) << np.uint64(2)
            upper, lower = _wide_key(features[ahead], spot & np.uint64(0xFFFF), mids[ahead], mid_bits)
            mixed = upper ^ (lower * np.uint64(0xC2B2AE3D27D4EB4F))
            home = table[entry] + _home(mixed, table[entry + np.uint64(1)]) * line
            _prefetch(home)
            slot = np.uint64(ahead) & np.uint64(_RING - 1)
            uppers[slot] = upper
            lowers[slot] = lower
            homes[slot] = home
        i = ahead - _AHEAD
        if i < first:
            continue
        slot = np.uint64(i) & np.uint64(_RING - 1)
        upper = uppers[slot]
        lower = lowers[slot]
        bucket = homes[slot]
        entry = (np.uint64(spots[i]) >> np.uint64(16)) << np.uint64(2)
        if table[entry + np.uint64(2)] >= table[entry + np.uint64(3)]:
            return i
        searching = True
        while searching:
            address = bucket
            end = bucket + line
            while address < end:
                value = _load(address + np.uint64(8))
                if value == np.uint64(0):
                    _store(address, upper)
                    _store(address + np.uint64(8), (lower << np.uint64(32)) | np.uint64(1))
                    table[entry + np.uint64(2)] += np.uint64(1)
                    histogram[1] += np.uint64(1)
                    fresh[i] = 1
                    searching = False
                    break
                if (value >> np.uint64(32)) == lower and _load(address) == upper:
                    count = value & np.uint64(0xFFFFFFFF)
                    if count < np.uint64(0xFFFFFFFF):
                        _store(address + np.uint64(8), value + np.uint64(1))
                    if count < last_bin:
                        histogram[count] -= np.uint64(1)
                        histogram[count + np.uint64(1)] += np.uint64(1)
                    fresh[i] = 0
                    searching = False
                    break
                address += np.uint64(16)
            if searching:
                bucket = end
                if bucket >= table[entry] + table[entry + np.uint64(1)] * line:
                    bucket = table[entry]
    return n


@kernel
def merge_narrow(slots: Any, first: Any, shard: Any, table: Any, histogram: Any) -> Any:
    """Add whole slots (uint64, shape (n, 1)) of one shard, counts and all; stop where the shard must grow."""
    entry = np.uint64(shard) << np.uint64(2)
    line = np.uint64(64)
    for i in range(first, slots.shape[0]):
        if table[entry + np.uint64(2)] >= table[entry + np.uint64(3)]:
            return i
        key = slots[i, 0] >> np.uint64(12)
        more = slots[i, 0] & np.uint64(0xFFF)
        address = table[entry] + _home(key, table[entry + np.uint64(1)]) * line
        end = table[entry] + table[entry + np.uint64(1)] * line
        while True:
            value = _load(address)
            if value == np.uint64(0):
                _store(address, slots[i, 0])
                table[entry + np.uint64(2)] += np.uint64(1)
                histogram[more] += np.uint64(1)
                break
            if (value >> np.uint64(12)) == key:
                count = value & np.uint64(0xFFF)
                total = min(count + more, np.uint64(0xFFF))
                _store(address, (key << np.uint64(12)) | total)
                histogram[count] -= np.uint64(1)
                histogram[total] += np.uint64(1)
                break
            address += np.uint64(8)
            if address >= end:
                address = table[entry]
    return slots.shape[0]


@kernel
def merge_wide(slots: Any, first: Any, shard: Any, table: Any, histogram: Any) -> Any:
    """As :func:`merge_narrow`, for wide slots (uint64, shape (n, 2))."""
    entry = np.uint64(shard) << np.uint64(2)
    line = np.uint64(64)
    last_bin = np.uint64(histogram.shape[0] - 1)
    for i in range(first, slots.shape[0]):
        if table[entry + np.uint64(2)] >= table[entry + np.uint64(3)]:
            return i
        upper = slots[i, 0]
        lower = slots[i, 1] >> np.uint64(32)
        more = slots[i, 1] & np.uint64(0xFFFFFFFF)
        mixed = upper ^ (lower * np.uint64(0xC2B2AE3D27D4EB4F))
        address = table[entry] + _home(mixed, table[entry + np.uint64(1)]) * line
        end = table[entry] + table[entry + np.uint64(1)] * line
        while True:
            value = _load(address + np.uint64(8))
            if value == np.uint64(0):
                _store(address, upper)
                _store(address + np.uint64(8), slots[i, 1])
                table[entry + np.uint64(2)] += np.uint64(1)
                histogram[min(more, last_bin)] += np.uint64(1)
                break
            if (value >> np.uint64(32)) == lower and _load(address) == upper:
                count = value & np.uint64(0xFFFFFFFF)
                total = min(count + more, np.uint64(0xFFFFFFFF))
                _store(address + np.uint64(8), (lower << np.uint64(32)) | total)
                histogram[min(count, last_bin)] -= np.uint64(1)
                histogram[min(total, last_bin)] += np.uint64(1)
                break
            address += np.uint64(16)
            if address >= end:
                address = table[entry]
    return slots.shape[0]


@kernel
def move_in(slots: Any, shard: Any, table: Any) -> None:
    """Put slots (uint64, shape (n, words)), all different, into the empty table of a shard."""
    entry = np.uint64(shard) << np.uint64(2)
    line = np.uint64(64)
    narrow = slots.shape[1] == 1
    end = table[entry] + table[entry + np.uint64(1)] * line
    for i in range(slots.shape[0]):
        mixed = slots[i, 0] >> np.uint64(12)
        if not narrow:
            mixed = slots[i, 0] ^ ((slots[i, 1] >> np.uint64(32)) * np.uint64(0xC2B2AE3D27D4EB4F))
        address = table[entry] + _home(mixed, table[entry + np.uint64(1)]) * line
        # The word with the count tells an empty slot: the only word of a narrow one, the second of a wide one.
        while _load(address if narrow else address + np.uint64(8)) != np.uint64(0):
            address += np.uint64(8) if narrow else np.uint64(16)
            if address >= end:
                address = table[entry]
        _store(address, slots[i, 0])
        if not narrow:
            _store(address + np.uint64(8), slots[i, 1])
    table[entry + np.uint64(2)] = np.uint64(slots.shape[0])


@kernel
def compact(shard: Any, table: Any, slots: Any) -> int:
    """Copy the used slots of a shard, in table order, to ``slots`` (uint64, shape (used, words)); return how many."""
    entry = np.uint64(shard) << np.uint64(2)
    address = table[entry]
    end = address + table[entry + np.uint64(1)] * np.uint64(64)
    words = slots.shape[1]
    found = 0
    while address < end:
        if words == 1:
            value = _load(address)
            if value != np.uint64(0):
                slots[found, 0] = value
                found += 1
            address += np.uint64(8)
        else:
            value = _load(address + np.uint64(8))
            if value != np.uint64(0):
                slots[found, 0] = _load(address)
                slots[found, 1] = value
                found += 1
            address += np.uint64(16)
    return found


@kernel
def find_feature(feature: Any, shards: Any, first: Any, feature_shift: Any, table: Any, spots: Any, found: Any) -> Any:
    """List the spots of one feature's molecules in narrow shards, from ``shards[first]`` on.

    Args:
        feature: uint64.
        shards: int64, shape (n,).
        first: Where to begin in ``shards``.
        feature_shift: Bits below the feature in a key, uint64.
        table: uint64, shape (shards * 4,).
        spots: Out: uint32; a shard is begun only if all its molecules would fit.
        found: How many of ``spots`` are taken already.

    Returns:
        The number of shards done, and how many of ``spots`` are taken.
    """
    mid_bits = feature_shift - np.uint64(16)
    shift = feature_shift + np.uint64(12)
    for number in range(first, shards.shape[0]):
        entry = np.uint64(shards[number]) << np.uint64(2)
        if spots.shape[0] - found < np.int64(table[entry + np.uint64(2)]):
            return number, found
        base = np.uint64(shards[number]) << np.uint64(16)
        address = table[entry]
        end = address + table[entry + np.uint64(1)] * np.uint64(64)
        while address < end:
            value = _load(address)
            if (value >> shift) == feature and value != np.uint64(0):
                spots[found] = base | ((value >> (mid_bits + np.uint64(12))) & np.uint64(0xFFFF))
                found += 1
            address += np.uint64(8)
    return shards.shape[0], found


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
