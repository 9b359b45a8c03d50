"""Tables of molecules whose key has up to 96 bits: the kernels for slots of 16 bytes.

A slot is two uint64: the upper 64 bits of the key; the lower 32 bits of it above a 32-bit count. A stored molecule has
a count of at least one, so that an empty slot (0) is never taken for key 0. Sorting slots as numbers sorts them by key.

A shard's table is a list of pages of 64 lines; a line is 64 bytes and has four slots, filled from the left. A key is
looked for in its home line and, while lines are full, in the next. Nothing is ever removed, so that the first empty
slot ends a search, and a line is nearly always the whole cost of a read. The line is asked for some reads ahead.

``table`` holds four uint64 per shard: address of the list of page addresses, lines, slots in use, slots to fill at
most.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cartoseq.analysis.rawmemory import load64, prefetch_address, store64
from cartoseq.streaming.kernel import inlined, kernel

KEY_BITS = 96
LINE_SLOTS = 4
FILL_LIMIT = 0.9
COUNT_MAX = (1 << 32) - 1

_ONE = np.uint64(1)
_AHEAD = 32
_RING = 64


@inlined
def _line(pages: Any, line: Any) -> Any:
    """The address of a line."""
    return load64(pages + ((line >> np.uint64(6)) << np.uint64(3))) + ((line & np.uint64(63)) << np.uint64(6))


@inlined
def _home(upper: Any, lower: Any, lines: Any) -> Any:
    """The home line of a key; multiplied so often that neighbouring keys and skewed features part."""
    mixed = (upper ^ (lower * np.uint64(0xC2B2AE3D27D4EB4F))) * np.uint64(0x9E3779B97F4A7C15)
    mixed = mixed ^ (mixed >> np.uint64(32))
    mixed = mixed * np.uint64(0xD6E8FEB86659FD93)
    return ((mixed >> np.uint64(32)) * lines) >> np.uint64(32)


@inlined
def wide_key(feature: Any, local: Any, mid: Any, mid_bits: Any) -> Any:
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


@inlined
def _find(upper: Any, lower: Any, line: Any, pages: Any, lines: Any) -> Any:
    """Where a key is, or the empty slot that it would take; begin at its home line. And what stands there."""
    while True:
        address = _line(pages, line)
        end = address + np.uint64(64)
        while address < end:
            value = load64(address + np.uint64(8))
            if value == np.uint64(0) or ((value >> np.uint64(32)) == lower and load64(address) == upper):
                return address, value
            address += np.uint64(16)
        line += _ONE
        if line == lines:
            line = np.uint64(0)


@kernel
def add_wide(
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
        histogram: uint64, shape (copies + 1,): molecules by copies, the last bin for all above.
        fresh: Out: 1 for a new molecule, 0 for a further copy; uint8, shape (n,).

    Returns:
        n, or the index of the first read that was not counted.
    """
    n = spots.shape[0]
    uppers = np.empty(_RING, np.uint64)
    lowers = np.empty(_RING, np.uint64)
    homes = np.empty(_RING, np.uint64)
    last_bin = np.uint64(histogram.shape[0] - 1)
    for ahead in range(first, n + _AHEAD):
        if ahead < n:
            spot = np.uint64(spots[ahead])
            entry = (spot >> np.uint64(16)) << np.uint64(2)
            if table[entry + _ONE] != np.uint64(0):
                upper, lower = wide_key(features[ahead], spot & np.uint64(0xFFFF), mids[ahead], mid_bits)
                home = _home(upper, lower, table[entry + _ONE])
                prefetch_address(_line(table[entry], home))
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
        entry = (np.uint64(spots[i]) >> np.uint64(16)) << np.uint64(2)
        if table[entry + np.uint64(2)] >= table[entry + np.uint64(3)]:
            return i
        address, value = _find(upper, lower, homes[slot], table[entry], table[entry + _ONE])
        if value == np.uint64(0):
            store64(address, upper)
            store64(address + np.uint64(8), (lower << np.uint64(32)) | _ONE)
            table[entry + np.uint64(2)] += _ONE
            histogram[1] += _ONE
            fresh[i] = 1
        else:
            count = value & np.uint64(0xFFFFFFFF)
            if count < np.uint64(0xFFFFFFFF):
                store64(address + np.uint64(8), value + _ONE)
            if count < last_bin:
                histogram[count] -= _ONE
                histogram[count + _ONE] += _ONE
            fresh[i] = 0
    return n


@kernel
def merge_wide(slots: Any, shards: Any, first: Any, most: Any, table: Any, histogram: Any, fresh: Any) -> Any:
    """Add whole slots, counts and all; stop where a shard must grow.

    Args:
        slots: uint64, shape (n, 2).
        shards: The shard of each, uint32, shape (n,).
        first: Where to begin.
        most: At this count copies stop being counted, uint64.
        table: uint64, shape (shards * 4,).
        histogram: uint64, molecules by copies, the last bin for all above.
        fresh: Out: 1 where the molecule was not there before; uint8, shape (n,).

    Returns:
        n, or the index of the first slot that was not added.
    """
    last_bin = np.uint64(histogram.shape[0] - 1)
    for i in range(first, slots.shape[0]):
        entry = np.uint64(shards[i]) << np.uint64(2)
        if table[entry + np.uint64(2)] >= table[entry + np.uint64(3)]:
            return i
        upper = slots[i, 0]
        lower = slots[i, 1] >> np.uint64(32)
        more = slots[i, 1] & np.uint64(0xFFFFFFFF)
        lines = table[entry + _ONE]
        address, value = _find(upper, lower, _home(upper, lower, lines), table[entry], lines)
        count = value & np.uint64(0xFFFFFFFF)
        total = min(count + more, most)
        store64(address, upper)
        store64(address + np.uint64(8), (lower << np.uint64(32)) | total)
        histogram[min(total, last_bin)] += _ONE
        if value == np.uint64(0):
            table[entry + np.uint64(2)] += _ONE
            fresh[i] = 1
        else:
            histogram[min(count, last_bin)] -= _ONE
            fresh[i] = 0
    return slots.shape[0]


@kernel
def take_out_wide(shards: Any, table: Any, slots: Any, shards_out: Any) -> int:
    """Copy the used slots of some shards.

    Args:
        shards: int64, shape (m,).
        table: uint64, shape (shards * 4,).
        slots: Out: uint64, shape (used, 2).
        shards_out: Out: the shard of each, uint32, shape (used,).

    Returns:
        How many there were.
    """
    found = 0
    for shard in shards:
        entry = np.uint64(shard) << np.uint64(2)
        for line in range(np.uint64(0), table[entry + _ONE]):
            address = _line(table[entry], line)
            for _ in range(LINE_SLOTS):
                value = load64(address + np.uint64(8))
                if value != np.uint64(0):
                    slots[found, 0] = load64(address)
                    slots[found, 1] = value
                    shards_out[found] = shard
                    found += 1
                address += np.uint64(16)
    return found


@kernel
def part_members(slots: Any, member: Any, mine: Any, others: Any) -> int:
    """Part slots (uint64, shape (n, 2)) by whether the lower half of their key is ``member``; return how many are."""
    found = 0
    for i in range(slots.shape[0]):
        if slots[i, 1] >> np.uint64(32) == member:
            mine[found, 0], mine[found, 1] = slots[i, 0], slots[i, 1]
            found += 1
        else:
            others[i - found, 0], others[i - found, 1] = slots[i, 0], slots[i, 1]
    return found
