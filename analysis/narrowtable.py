"""Tables of molecules whose key has at most 52 bits: the kernels for slots of 6.4 bytes.

A shard's table is a list of pages of 64 lines; a line is 64 bytes and has ten slots::

    10 x uint32 tag | 10 x uint16 upper and count | uint32 header

**The key is not kept whole: where it lies says the rest** (quotienting; Knuth 6.4, exercise 13). A key of 52 bits
is turned, by steps that can be undone, into 32 evenly spread bits *H* above 20 bits *L*. Its home line, of n, is
``H * n >> 32``. All H of one home lie in a range shorter than 2**(32 - k), where 2**k <= n; a slot keeps the place in
this range above L: its low 32 bits are the tag, the others stand in the uint16 above a count of ``k - 4`` bits. So a
table of 2**8 lines, the least, counts to 14 in place and one of 2**14 to 1,022.

**A key has a choice of lines:** the home and three others of its page, whose numbers differ from the home's by bits of
the key. It goes to the one of the first two that is less full; only if both are full, to the third or the fourth. So
lines fill evenly, and hardly any is full before nearly all are. The header keeps two bits a slot that tell the choice,
above them the number of slots in use. Slots fill from the left and are never freed: where the first two lines are
not both full, a key that is in neither is new.

**What does not fit is spilled** to the table of wide slots (:mod:`cartoseq.analysis.widetable`): a molecule with more
copies than its slot can count, whose slot then has all bits of the count set, and one whose four lines are full. Four
shards spill into one table. Rows for it have two words: the turned key; the shard's place among the four above a 32-bit
count.

L holds the low bits of the feature as they are: the molecules of one gene are found by their tags.

``table`` holds four uint64 per shard: address of the list of page addresses, lines, slots in use, 2**52 // lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cartoseq.analysis.entries import lowest_bit
from cartoseq.analysis.rawmemory import (
    equal_words,
    highest_bit,
    load16,
    load32,
    load64,
    prefetch_address,
    store16,
    store32,
)
from cartoseq.streaming.kernel import inlined, kernel

KEY_BITS = 52
COUNT_BITS = 12
COUNT_MAX = (1 << COUNT_BITS) - 1
LINE_SLOTS = 10
LEAST_LINES = 256
"""Fewer would leave a slot too few bits to count with."""
FILL_LIMIT = 0.94
SPILL_GROUP = 4
"""Shards, one beside the other, that spill into one table: most would not fill a page of their own."""

_L_BITS = np.uint64(20)
_L_MASK = np.uint64((1 << 20) - 1)
_MASK32 = np.uint64(0xFFFFFFFF)
_KEY_MASK = np.uint64((1 << KEY_BITS) - 1)
_FACTOR_1 = 0x9E3779B1
_FACTOR_2 = 0x85EBCA6B
_MULTIPLY_1, _DIVIDE_1 = np.uint64(_FACTOR_1), np.uint64(pow(_FACTOR_1, -1, 1 << 32))
_MULTIPLY_2, _DIVIDE_2 = np.uint64(_FACTOR_2), np.uint64(pow(_FACTOR_2, -1, 1 << 32))
_SPREAD = np.uint64(0xC2B2AE3D27D4EB4F)
_COUNT_BITS = np.uint64(COUNT_BITS)
_COUNT_MAX = np.uint64(COUNT_MAX)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_SLOTS = np.uint64(LINE_SLOTS)
_LINES = np.uint64(64)
_LINE_BYTES = np.uint64(64)
_UPPERS = np.uint64(40)
_HEADER = np.uint64(60)
_USED_SHIFT = np.uint64(20)
_USED_ONE = np.uint64(1 << 20)
_MOST_QUOTIENT_BITS = np.uint64(16)
_PERCENT = np.uint64(100)
_FULL_LINE_PERCENT = np.uint64(round(100 * FILL_LIMIT * LINE_SLOTS))

# Reads between asking for what a read needs and using it: its lines, and before that the address of their page.
_LINES_AHEAD = np.uint64(12)
_PAGES_AHEAD = np.uint64(24)
_RING = 32


@inlined
def _turned(key: Any, feature_shift: Any) -> Any:
    """H above L: the key's bits turned around so that the feature is lowest, and the upper 32 of them spread."""
    around = (key >> feature_shift) | (key << (np.uint64(KEY_BITS) - feature_shift))
    low = around & _L_MASK
    high = (around >> _L_BITS) & _MASK32
    high = (high * _MULTIPLY_1) & _MASK32
    high ^= high >> np.uint64(16)
    high = (high * _MULTIPLY_2) & _MASK32
    high = (high + ((low * _SPREAD) >> np.uint64(32))) & _MASK32
    return (high << _L_BITS) | low


@inlined
def _turned_back(turned: Any, feature_shift: Any) -> Any:
    """The key again."""
    low = turned & _L_MASK
    high = ((turned >> _L_BITS) - ((low * _SPREAD) >> np.uint64(32))) & _MASK32
    high = (high * _DIVIDE_2) & _MASK32
    high ^= high >> np.uint64(16)
    high = (high * _DIVIDE_1) & _MASK32
    around = (high << _L_BITS) | low
    return ((around << feature_shift) | (around >> (np.uint64(KEY_BITS) - feature_shift))) & _KEY_MASK


@inlined
def _count_bits(lines: Any) -> Any:
    return min(highest_bit(lines), _MOST_QUOTIENT_BITS) - np.uint64(4)


@inlined
def _line(pages: Any, line: Any) -> Any:
    """The address of a line."""
    return load64(pages + ((line >> np.uint64(6)) << np.uint64(3))) + (line & np.uint64(63)) * _LINE_BYTES


@inlined
def _part(turned: Any, home: Any, inverse: Any) -> Any:
    """What a slot keeps of a key: its place in the range of its home, above L."""
    return (((turned >> _L_BITS) - ((home * inverse) >> _L_BITS)) << _L_BITS) | (turned & _L_MASK)


@inlined
def _other(part: Any, choice: Any) -> Any:
    """By which bits the address, or number, of the choice-th line differs from that of the home (line number)."""
    return (part >> (np.uint64(14) + np.uint64(6) * choice)) & np.uint64(63) if choice != _ZERO else _ZERO


@inlined
def _slot_part(line: Any, slot: Any, count_bits: Any) -> Any:
    upper = load16(line + _UPPERS + slot * np.uint64(2)) >> count_bits
    return (upper << np.uint64(32)) | load32(line + slot * np.uint64(4))


@inlined
def _fill(line: Any, slot: Any, part: Any, choice: Any, count: Any, count_bits: Any) -> None:
    """Put a key into the first free slot."""
    store32(line + slot * np.uint64(4), part)
    store16(line + _UPPERS + slot * np.uint64(2), ((part >> np.uint64(32)) << count_bits) | count)
    store32(line + _HEADER, (load32(line + _HEADER) | (choice << (slot * np.uint64(2)))) + _USED_ONE)


@inlined
def _held_in(line: Any, header: Any, part: Any, choice: Any, count_bits: Any) -> Any:
    """The slot of a line that holds a key by this choice, or 10."""
    same = equal_words(line, line, part & _MASK32) & ((_ONE << (header >> _USED_SHIFT)) - _ONE)
    while same != _ZERO:
        slot = lowest_bit(same)
        if _slot_part(line, slot, count_bits) == part and ((header >> (slot * np.uint64(2))) & np.uint64(3)) == choice:
            return slot
        same &= same - _ONE
    return _SLOTS


@kernel
def _search(home: Any, part: Any, count_bits: Any) -> Any:
    """The line and slot that hold a key, or else those to take for it.

    Returns:
        line, slot (10 where all four lines are full), choice, and 1 where the key is held.
    """
    second = home ^ (_other(part, _ONE) * _LINE_BYTES)
    header, second_header = load32(home + _HEADER), load32(second + _HEADER)
    slot = _held_in(home, header, part, _ZERO, count_bits)
    if slot < _SLOTS:
        return home, slot, _ZERO, _ONE
    slot = _held_in(second, second_header, part, _ONE, count_bits)
    if slot < _SLOTS:
        return second, slot, _ONE, _ONE
    used, second_used = header >> _USED_SHIFT, second_header >> _USED_SHIFT
    if second_used < used:
        return second, second_used, _ONE, _ZERO
    line, choice = home, _ZERO
    while used == _SLOTS and choice < np.uint64(3):
        choice = max(choice + _ONE, np.uint64(2))
        line = home ^ (_other(part, choice) * _LINE_BYTES)
        header = load32(line + _HEADER)
        slot = _held_in(line, header, part, choice, count_bits)
        if slot < _SLOTS:
            return line, slot, choice, _ONE
        used = header >> _USED_SHIFT
    return line, used, choice, _ZERO


@kernel
def _add_many(turned: Any, more: Any, entry: Any, table: Any, histogram: Any) -> Any:
    """Add copies of one key to a shard with room.

    Returns:
        The copies to spill: 0 for none, else all that the molecule has that are not spilled already.
    """
    lines = table[entry + _ONE]
    count_bits = _count_bits(lines)
    full = (_ONE << count_bits) - _ONE
    number = ((turned >> _L_BITS) * lines) >> np.uint64(32)
    home = _line(table[entry], number)
    part = _part(turned, number, table[entry + np.uint64(3)])
    line, slot, choice, held = _search(home, part, count_bits)
    if held != _ZERO:
        at = line + _UPPERS + slot * np.uint64(2)
        value = load16(at)
        count = value & full
        if count == full:
            return more
        histogram[count] -= _ONE
        if count + more >= full:
            store16(at, value | full)
            return count + more
        store16(at, value + more)
        histogram[count + more] += _ONE
        return _ZERO
    if slot == _SLOTS:
        return more
    _fill(line, slot, part, choice, min(more, full), count_bits)
    table[entry + np.uint64(2)] += _ONE
    if more >= full:
        return more
    histogram[more] += _ONE
    return _ZERO


@inlined
def _member(entry: Any) -> Any:
    """The place of a shard in its spill group, as a spilled row has it above the count."""
    return ((entry >> np.uint64(2)) & np.uint64(SPILL_GROUP - 1)) << np.uint64(32)


@inlined
def _is_full(entry: Any, table: Any) -> Any:
    return table[entry + np.uint64(2)] * _PERCENT >= table[entry + _ONE] * _FULL_LINE_PERCENT


@kernel
def add_narrow(
    spots: Any,
    features: Any,
    mids: Any,
    first: Any,
    mid_bits: Any,
    table: Any,
    histogram: Any,
    fresh: Any,
    spilled: Any,
    spilled_reads: Any,
) -> Any:
    """Count reads from ``first`` on; stop before the read whose shard must grow.

    Args:
        spots: uint32, shape (n,).
        features: uint64, shape (n,).
        mids: uint64, shape (n,).
        first: Where to begin.
        mid_bits: uint64.
        table: uint64, shape (shards * 4,).
        histogram: uint64, shape (copies + 1,): molecules by copies. A spilled molecule is in none of its bins.
        fresh: Out: 1 for a new molecule, 0 for a further copy or a spilled one; uint8, shape (n,).
        spilled: Out: rows to spill, uint64, shape (n, 2).
        spilled_reads: Out: the read of each such row, int64, shape (n,).

    Returns:
        n, or the index of the first read that was not counted; and the number of rows to spill.
    """
    n = np.uint64(spots.shape[0])
    turneds = np.empty(_RING, np.uint64)
    parts = np.empty(_RING, np.uint64)
    homes = np.empty(_RING, np.uint64)
    ring = np.uint64(_RING - 1)
    feature_shift = mid_bits + np.uint64(16)
    spills = 0
    start = np.uint64(first)
    # Three reads at a time: one whose page is asked for, an earlier one whose lines are, and one that is counted.
    for far in range(start, n + _PAGES_AHEAD):
        if far < n:
            spot = np.uint64(spots[far])
            entry = (spot >> np.uint64(16)) << np.uint64(2)
            lines = table[entry + _ONE]
            if lines != _ZERO:
                key = (features[far] << feature_shift) | ((spot & np.uint64(0xFFFF)) << mid_bits) | mids[far]
                turned = _turned(key, feature_shift)
                turneds[far & ring] = turned
                number = ((turned >> _L_BITS) * lines) >> np.uint64(32)
                prefetch_address(table[entry] + ((number >> np.uint64(6)) << np.uint64(3)))
        if far < start + _PAGES_AHEAD - _LINES_AHEAD:
            continue
        ahead = far - (_PAGES_AHEAD - _LINES_AHEAD)
        if ahead < n:
            entry = (np.uint64(spots[ahead]) >> np.uint64(16)) << np.uint64(2)
            lines = table[entry + _ONE]
            if lines != _ZERO:
                turned = turneds[ahead & ring]
                number = ((turned >> _L_BITS) * lines) >> np.uint64(32)
                home = _line(table[entry], number)
                part = _part(turned, number, table[entry + np.uint64(3)])
                prefetch_address(home)
                prefetch_address(home ^ (_other(part, _ONE) * _LINE_BYTES))
                parts[ahead & ring] = part
                homes[ahead & ring] = home
        if ahead < start + _LINES_AHEAD:
            continue
        i = ahead - _LINES_AHEAD
        spot = np.uint64(spots[i])
        entry = (spot >> np.uint64(16)) << np.uint64(2)
        if _is_full(entry, table):
            return np.int64(i), spills
        home = homes[i & ring]
        part = parts[i & ring]
        count_bits = _count_bits(table[entry + _ONE])
        full = (_ONE << count_bits) - _ONE
        # New or seen before, here or there, is a coin toss that no branch predictor wins: all is done by the same
        # instructions, but for the few keys that they leave to the search.
        second = home ^ (_other(part, _ONE) * _LINE_BYTES)
        header, second_header = load32(home + _HEADER), load32(second + _HEADER)
        used, second_used = header >> _USED_SHIFT, second_header >> _USED_SHIFT
        equal = equal_words(home, second, part & _MASK32)
        same = equal & ((_ONE << used) - _ONE)
        second_same = (equal >> np.uint64(16)) & ((_ONE << second_used) - _ONE)
        # The sign of a difference is a comparison that the compiler cannot turn into a branch.
        second_taken = (same - _ONE) & ((_ZERO - second_same) | (second_used - used))
        choice = second_taken >> np.uint64(63)
        choose = _ZERO - choice
        line = home ^ ((home ^ second) & choose)
        header ^= (header ^ second_header) & choose
        slot = lowest_bit(same | (second_same & choose) | (_ONE << (header >> _USED_SHIFT)))
        is_held = (_ZERO - (same | second_same)) >> np.uint64(63)
        value = load16(line + _UPPERS + slot * np.uint64(2))
        wrong = (value >> count_bits) ^ (part >> np.uint64(32))
        wrong |= ((header >> (slot * np.uint64(2))) & np.uint64(3)) ^ choice
        if slot == _SLOTS or wrong * is_held != _ZERO:
            line, slot, choice, is_held = _search(home, part, count_bits)
            value = load16(line + _UPPERS + slot * np.uint64(2))
            header = load32(line + _HEADER)
        count = (value & full) * is_held
        if slot == _SLOTS or count + _ONE >= full:
            key = (features[i] << feature_shift) | ((spot & np.uint64(0xFFFF)) << mid_bits) | mids[i]
            turned = _turned(key, feature_shift)
            new = histogram[1]
            more = _add_many(turned, _ONE, entry, table, histogram)
            fresh[i] = histogram[1] - new
            if more != _ZERO:
                spilled[spills, 0] = turned
                spilled[spills, 1] = _member(entry) | more
                spilled_reads[spills] = i
                spills += 1
            continue
        store32(line + slot * np.uint64(4), part)
        store16(line + _UPPERS + slot * np.uint64(2), ((part >> np.uint64(32)) << count_bits) | (count + _ONE))
        store32(line + _HEADER, (header | (choice << (slot * np.uint64(2)))) + _USED_ONE * (_ONE - is_held))
        histogram[count] -= is_held
        histogram[count + _ONE] += _ONE
        table[entry + np.uint64(2)] += _ONE - is_held
        fresh[i] = _ONE - is_held
    return np.int64(n), spills


@kernel
def merge_narrow(rows: Any, first: Any, shard: Any, table: Any, histogram: Any, spilled: Any) -> Any:
    """Add rows of one shard, counts and all; stop where the shard must grow.

    Args:
        rows: Turned keys above a 12-bit count, uint64, shape (n,).
        first: Where to begin.
        shard: uint64.
        table: uint64, shape (shards * 4,).
        histogram: uint64, molecules by copies.
        spilled: Out: rows to spill, uint64, shape (n, 2).

    Returns:
        n, or the index of the first row that was not added; and the number of rows to spill.
    """
    entry = np.uint64(shard) << np.uint64(2)
    member = _member(entry)
    spills = 0
    for i in range(first, rows.shape[0]):
        if _is_full(entry, table):
            return i, spills
        turned = rows[i] >> _COUNT_BITS
        more = _add_many(turned, rows[i] & _COUNT_MAX, entry, table, histogram)
        if more != _ZERO:
            spilled[spills, 0] = turned
            spilled[spills, 1] = member | more
            spills += 1
    return rows.shape[0], spills


@kernel
def spread(shard: Any, old_lines: Any, table: Any, old: Any, spilled: Any) -> Any:
    """Put the molecules of a shard to their places, after its table has become larger.

    Args:
        shard: uint64.
        old_lines: The lines that it had; the pages that hold them come first in its list. uint64.
        table: uint64, shape (shards * 4,), of the larger table.
        old: Room for a copy of the old lines: uint64, shape (old_lines * 8,).
        spilled: Out: rows to spill, uint64, shape (n, 2). Those that were spilled before are not among them.

    Returns:
        The number of rows to spill.
    """
    entry = np.uint64(shard) << np.uint64(2)
    pages = table[entry]
    for number in range(_ZERO, old_lines):
        line = _line(pages, number)
        for word in range(_ZERO, np.uint64(8)):
            old[number * np.uint64(8) + word] = load64(line + word * np.uint64(8))
        store32(line + _HEADER, _ZERO)
    old_address = np.uint64(old.ctypes.data)
    old_bits = _count_bits(old_lines)
    old_full = (_ONE << old_bits) - _ONE
    old_inverse = np.uint64(1 << KEY_BITS) // old_lines
    lines = table[entry + _ONE]
    inverse = table[entry + np.uint64(3)]
    count_bits = _count_bits(lines)
    member = _member(entry)
    spills = 0
    placed = _ZERO
    for old_number in range(_ZERO, old_lines):
        old_line = old_address + old_number * _LINE_BYTES
        choices = load32(old_line + _HEADER)
        for old_slot in range(_ZERO, choices >> _USED_SHIFT):
            count = load16(old_line + _UPPERS + old_slot * np.uint64(2)) & old_full
            if count == old_full:
                continue
            old_part = _slot_part(old_line, old_slot, old_bits)
            old_home = old_number ^ _other(old_part, (choices >> (old_slot * np.uint64(2))) & np.uint64(3))
            high = (old_part >> _L_BITS) + ((old_home * old_inverse) >> _L_BITS)
            turned = (high << _L_BITS) | (old_part & _L_MASK)
            number = (high * lines) >> np.uint64(32)
            home = _line(pages, number)
            part = _part(turned, number, inverse)
            second = home ^ (_other(part, _ONE) * _LINE_BYTES)
            used, second_used = load32(home + _HEADER) >> _USED_SHIFT, load32(second + _HEADER) >> _USED_SHIFT
            choice = (second_used - used) >> np.uint64(63)
            line = home ^ ((home ^ second) & (_ZERO - choice))
            slot = used - (used - second_used) * choice
            if slot == _SLOTS:
                line, slot, choice, _ = _search(home, part, count_bits)
            if slot == _SLOTS:
                spilled[spills, 0] = turned
                spilled[spills, 1] = member | count
                spills += 1
            else:
                _fill(line, slot, part, choice, count, count_bits)
                placed += _ONE
    table[entry + np.uint64(2)] = placed
    return spills


@kernel
def take_out(shard: Any, table: Any, rows: Any) -> Any:
    """Copy the molecules of a shard that are not spilled to ``rows``, as :func:`merge_narrow` takes them; how many."""
    entry = np.uint64(shard) << np.uint64(2)
    lines = table[entry + _ONE]
    if lines == _ZERO:
        return 0
    count_bits = _count_bits(lines)
    full = (_ONE << count_bits) - _ONE
    found = 0
    for number in range(_ZERO, lines):
        line = _line(table[entry], number)
        header = load32(line + _HEADER)
        for slot in range(_ZERO, header >> _USED_SHIFT):
            count = load16(line + _UPPERS + slot * np.uint64(2)) & full
            part = _slot_part(line, slot, count_bits)
            home = number ^ _other(part, (header >> (slot * np.uint64(2))) & np.uint64(3))
            high = (part >> _L_BITS) + ((home * table[entry + np.uint64(3)]) >> _L_BITS)
            if count != full:
                rows[found] = (((high << _L_BITS) | (part & _L_MASK)) << _COUNT_BITS) | count
                found += 1
    return found


@kernel
def turn(rows: Any, feature_shift: Any) -> None:
    """Turn the keys of rows, in place, from how they sort to how the tables keep them."""
    for i in range(rows.shape[0]):
        rows[i] = (_turned(rows[i] >> _COUNT_BITS, feature_shift) << _COUNT_BITS) | (rows[i] & _COUNT_MAX)


@kernel
def turn_back(rows: Any, feature_shift: Any) -> None:
    """Undo :func:`turn`."""
    for i in range(rows.shape[0]):
        rows[i] = (_turned_back(rows[i] >> _COUNT_BITS, feature_shift) << _COUNT_BITS) | (rows[i] & _COUNT_MAX)


@kernel
def rows_of_spilled(spilled: Any, rows: Any) -> None:
    """Write spilled molecules (uint64, shape (n, 2)) as rows of one word."""
    for i in range(spilled.shape[0]):
        rows[i] = (spilled[i, 0] << _COUNT_BITS) | (spilled[i, 1] & _MASK32)


@kernel
def find_feature(
    feature: Any, shards: Any, first: Any, feature_bits: Any, mid_bits: Any, table: Any, spots: Any, found: Any
) -> Any:
    """List the spots of one feature's molecules that are not spilled, from ``shards[first]`` on.

    Args:
        feature: uint64.
        shards: int64, shape (n,).
        first: Where to begin in ``shards``.
        feature_bits: uint64.
        mid_bits: uint64.
        table: uint64, shape (shards * 4,).
        spots: Out: uint32; a shard is begun only if all its molecules would fit.
        found: How many of ``spots`` are taken already.

    Returns:
        The number of shards done, and how many of ``spots`` are taken.
    """
    feature_shift = mid_bits + np.uint64(16)
    seen_mask = (_ONE << min(feature_bits, _L_BITS)) - _ONE
    seen = feature & seen_mask
    for index in range(first, shards.shape[0]):
        entry = np.uint64(shards[index]) << np.uint64(2)
        if spots.shape[0] - found < np.int64(table[entry + np.uint64(2)]):
            return index, found
        base = np.uint64(shards[index]) << np.uint64(16)
        count_bits = _count_bits(table[entry + _ONE])
        full = (_ONE << count_bits) - _ONE
        for number in range(_ZERO, table[entry + _ONE]):
            line = _line(table[entry], number)
            header = load32(line + _HEADER)
            for slot in range(_ZERO, header >> _USED_SHIFT):
                if load32(line + slot * np.uint64(4)) & seen_mask == seen:
                    part = _slot_part(line, slot, count_bits)
                    home = number ^ _other(part, (header >> (slot * np.uint64(2))) & np.uint64(3))
                    high = (part >> _L_BITS) + ((home * table[entry + np.uint64(3)]) >> _L_BITS)
                    key = _turned_back((high << _L_BITS) | (part & _L_MASK), feature_shift)
                    count = load16(line + _UPPERS + slot * np.uint64(2)) & full
                    if key >> feature_shift == feature and count != full:
                        spots[found] = base | ((key >> mid_bits) & np.uint64(0xFFFF))
                        found += 1
    return shards.shape[0], found
