"""The index of a chip's barcodes: two tables of buckets in which a barcode with one wrong base is still found.

Half-key pigeonhole: two barcodes that differ in one base agree in all low bases or in all high bases. Table A puts
each barcode into a bucket named by its low ``a_bits`` and keeps the rest of the barcode with its spot; table B puts
it into a bucket named by its high ``b_bits`` and keeps the low part alone. Both are stored as CSR: the offsets of
the buckets, and the entries, sorted within each bucket. There are no false positives.

An entry of table A is one uint64, ``rest << 30 | spot``, and one of table B a uint32, where the parts fit: 12 bytes a
barcode and the offsets. Long barcodes, and small chips (whose tables should be small too), keep rest, spot and low
part apart, in 20 bytes; whichever layout takes fewer bytes is chosen.

A barcode that the chip has at several spots is kept once, without a spot: it is never guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.lowlevel import empty_table, prefetch
from cartoseq.streaming.kernel import kernel

SPOT_BITS = 30
# The spot number of a barcode that several spots carry: the last one, which no chip frame gives to a spot.
SHARED_BY_SPOTS = (1 << SPOT_BITS) - 1

# Entries a bucket should hold on average: fewer cost offsets, more cost comparisons.
_MEAN_ENTRIES = 5.0

Entry = TypeVar("Entry", bound=np.generic)
# A uint64 scalar within a kernel: numba's range() hands them out, which no type checker knows.
U64 = Any

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_SMALL_SORT = np.uint64(48)
_AHEAD = np.uint64(24)
_SHARED_64 = np.uint64(SHARED_BY_SPOTS)
_SHARED_32 = np.uint32(SHARED_BY_SPOTS)
_SPOT_MASK = np.uint64((1 << SPOT_BITS) - 1)
_SPOT_BITS = np.uint64(SPOT_BITS)


@dataclass(frozen=True, eq=False)
class BarcodeIndex:
    """The barcodes of a chip, ready to be looked up.

    Attributes:
        barcode_length: Bases in a barcode.
        a_bits: Low bits of a packed barcode that name its bucket in table A.
        b_bits: High bits that name its bucket in table B.
        a_offsets: uint32, shape (2**a_bits + 1,): where each bucket of table A begins.
        a_entries: uint64, shape (barcodes,): ``rest << 30 | spot``, or the rest alone in the wide layout.
        a_spots: uint32, shape (barcodes,) in the wide layout, else empty.
        b_offsets: uint32, shape (2**b_bits + 1,).
        b_entries: uint32, or uint64 in the wide layout, shape (barcodes,): the barcode without its high bits.
        shared_barcodes: Barcodes that stand at more than one spot. They are kept, but lead to no spot.
    """

    barcode_length: int
    a_bits: int
    b_bits: int
    a_offsets: NDArray[np.uint32]
    a_entries: NDArray[np.uint64]
    a_spots: NDArray[np.uint32]
    b_offsets: NDArray[np.uint32]
    b_entries: NDArray[Any]
    shared_barcodes: int

    @property
    def barcodes(self) -> int:
        """Distinct barcodes in the index."""
        return int(self.a_entries.size)

    @property
    def nbytes(self) -> int:
        """Bytes that the tables take in memory."""
        tables = (self.a_offsets, self.a_entries, self.a_spots, self.b_offsets, self.b_entries)
        return sum(table.nbytes for table in tables)

    @property
    def bytes_per_barcode(self) -> float:
        """Bytes in memory for each distinct barcode."""
        return self.nbytes / max(self.barcodes, 1)

    @classmethod
    def build(
        cls,
        cids: NDArray[np.uint64],
        spots: NDArray[np.uint32],
        barcode_length: int,
        *,
        a_bits: int | None = None,
        b_bits: int | None = None,
    ) -> BarcodeIndex:
        """Index the barcodes of a chip.

        Args:
            cids: Packed barcodes, shape (n,), n < 2**30.
            spots: The spot of each, below 2**30 - 1, shape (n,).
            barcode_length: Bases in a barcode, 2 to 32.
            a_bits: Bucket bits of table A, even; by default chosen for the number of barcodes.
            b_bits: Bucket bits of table B, even; by default chosen likewise.

        Raises:
            ValueError: a length, count or spot number outside these limits.
        """
        if not 2 <= barcode_length <= 32:
            raise ValueError(f"a barcode has 2 to 32 bases, not {barcode_length}")
        if cids.size != spots.size or cids.size > SHARED_BY_SPOTS:
            raise ValueError("one spot per barcode, and fewer than 2**30 of them")
        if spots.size and int(spots.max()) >= SHARED_BY_SPOTS:
            raise ValueError(f"spot numbers end at {SHARED_BY_SPOTS - 1}, found {int(spots.max())}")
        chosen = choose_layout(cids.size, barcode_length)
        a = chosen.a_bits if a_bits is None else a_bits
        b = chosen.b_bits if b_bits is None else b_bits
        key_bits = 2 * barcode_length
        if a % 2 or b % 2 or not 2 <= a <= 30 or not 2 <= b <= 30 or a + b > key_bits:
            raise ValueError(f"bucket bits {a} and {b} do not fit a barcode of {key_bits} bits")
        wide = key_bits - a > 64 - SPOT_BITS or key_bits - b > 32 or (a_bits is None and b_bits is None and chosen.wide)
        bits = (np.uint64(key_bits), np.uint64(a), np.uint64(b))
        a_offsets = empty_table((1 << a) + 1, np.uint32)
        a_entries = empty_table(cids.size, np.uint64)
        cursor = empty_table(a_offsets.size, np.uint32)
        if wide:
            a_spots = empty_table(cids.size, np.uint32)
            kept, shared = _build_wide_a(cids, spots, bits[1], a_offsets, cursor, a_entries, a_spots)
            b_entries: NDArray[Any] = empty_table(cids.size, np.uint64)
        else:
            a_spots = np.empty(0, np.uint32)
            kept, shared = _build_narrow_a(cids, spots, bits[1], a_offsets, cursor, a_entries)
            b_entries = empty_table(cids.size, np.uint32)
        b_offsets = empty_table((1 << b) + 1, np.uint32)
        _build_b(cids, bits[0] - bits[2], b_offsets, empty_table(b_offsets.size, np.uint32), b_entries)
        return cls(
            barcode_length=barcode_length,
            a_bits=a,
            b_bits=b,
            a_offsets=a_offsets,
            a_entries=_trimmed(a_entries, int(kept)),
            a_spots=_trimmed(a_spots, int(kept)) if wide else a_spots,
            b_offsets=b_offsets,
            b_entries=_trimmed(b_entries, int(kept)),
            shared_barcodes=int(shared),
        )


@dataclass(frozen=True)
class IndexLayout:
    """How an index of some size is laid out: bucket bits, and whether its entries are wide."""

    a_bits: int
    b_bits: int
    wide: bool


def choose_layout(barcodes: int, barcode_length: int) -> IndexLayout:
    """Choose bucket bits for a few entries per bucket, and the entry layout that takes fewer bytes."""
    key_bits = 2 * barcode_length
    half = 2 * (barcode_length // 2)
    a = min(_even_bits(barcodes, _MEAN_ENTRIES), half)
    b = min(_even_bits(barcodes, _MEAN_ENTRIES), key_bits - a)
    narrow_a = max(a, key_bits - (64 - SPOT_BITS))
    narrow_b = max(b, key_bits - 32)
    narrow_bytes = 12 * barcodes + 4 * (2**narrow_a + 2**narrow_b)
    wide_bytes = 20 * barcodes + 4 * (2**a + 2**b)
    if narrow_a <= 30 and narrow_b <= 30 and narrow_a + narrow_b <= key_bits and narrow_bytes <= wide_bytes:
        return IndexLayout(narrow_a, narrow_b, wide=False)
    return IndexLayout(a, b, wide=True)


def _even_bits(barcodes: int, mean_entries: float) -> int:
    """The even number of bits that comes nearest to so many entries a bucket."""
    return min(max(2 * round(math.log2(max(barcodes, 1) / mean_entries) / 2), 2), 30)


def _trimmed(table: NDArray[Entry], size: int) -> NDArray[Entry]:
    """The table without the room that repeated barcodes left at its end."""
    if table.size == size:
        return table
    trimmed = empty_table(size, table.dtype)
    trimmed[:] = table[:size]
    return trimmed


@kernel
def _count_buckets(cids: NDArray[np.uint64], shift: U64, mask: U64, offsets: NDArray[np.uint32]) -> None:
    """Find where each bucket begins."""
    n = np.uint64(cids.size)
    offsets[:] = np.uint32(0)
    for i in range(n):
        prefetch(offsets, ((cids[min(i + _AHEAD, n - _ONE)] >> shift) & mask) + _ONE)
        offsets[((cids[i] >> shift) & mask) + _ONE] += np.uint32(1)
    for bucket in range(np.uint64(1), np.uint64(offsets.size)):
        offsets[bucket] += offsets[bucket - _ONE]


@kernel
def _build_narrow_a(
    cids: NDArray[np.uint64],
    spots: NDArray[np.uint32],
    a_bits: U64,
    offsets: NDArray[np.uint32],
    cursor: NDArray[np.uint32],
    entries: NDArray[Any],
) -> tuple[U64, U64]:
    mask = (_ONE << a_bits) - _ONE
    _count_buckets(cids, _ZERO, mask, offsets)
    n = np.uint64(cids.size)
    cursor[:] = offsets
    for i in range(n):
        prefetch(cursor, cids[min(i + np.uint64(2) * _AHEAD, n - _ONE)] & mask)
        prefetch(entries, np.uint64(cursor[cids[min(i + _AHEAD, n - _ONE)] & mask]))
        bucket = cids[i] & mask
        entries[np.uint64(cursor[bucket])] = (cids[i] >> a_bits) << _SPOT_BITS | np.uint64(spots[i])
        cursor[bucket] += np.uint32(1)
    kept = _ZERO
    shared = _ZERO
    start = _ZERO
    for bucket in range(np.uint64(offsets.size) - _ONE):
        stop = np.uint64(offsets[bucket + _ONE])
        _sort(entries, start, stop)
        first = kept
        for i in range(start, stop):
            entry = entries[i]
            if kept > first and entries[kept - _ONE] >> _SPOT_BITS == entry >> _SPOT_BITS:
                held = entries[kept - _ONE]
                if held != entry and held & _SPOT_MASK != _SHARED_64:
                    entries[kept - _ONE] = held | _SPOT_MASK
                    shared += _ONE
            else:
                entries[kept] = entry
                kept += _ONE
        offsets[bucket] = np.uint32(first)
        start = stop
    offsets[offsets.size - 1] = np.uint32(kept)
    return kept, shared


@kernel
def _build_wide_a(
    cids: NDArray[np.uint64],
    spots: NDArray[np.uint32],
    a_bits: U64,
    offsets: NDArray[np.uint32],
    cursor: NDArray[np.uint32],
    entries: NDArray[Any],
    entry_spots: NDArray[np.uint32],
) -> tuple[U64, U64]:
    mask = (_ONE << a_bits) - _ONE
    _count_buckets(cids, _ZERO, mask, offsets)
    cursor[:] = offsets
    for i in range(np.uint64(cids.size)):
        bucket = cids[i] & mask
        to = np.uint64(cursor[bucket])
        entries[to] = cids[i] >> a_bits
        entry_spots[to] = spots[i]
        cursor[bucket] += np.uint32(1)
    kept = _ZERO
    shared = _ZERO
    start = _ZERO
    for bucket in range(np.uint64(offsets.size) - _ONE):
        stop = np.uint64(offsets[bucket + _ONE])
        _sort_pairs(entries, entry_spots, start, stop)
        first = kept
        for i in range(start, stop):
            entry = entries[i]
            spot = entry_spots[i]
            if kept > first and entries[kept - _ONE] == entry:
                if entry_spots[kept - _ONE] != spot and entry_spots[kept - _ONE] != _SHARED_32:
                    entry_spots[kept - _ONE] = _SHARED_32
                    shared += _ONE
            else:
                entries[kept] = entry
                entry_spots[kept] = spot
                kept += _ONE
        offsets[bucket] = np.uint32(first)
        start = stop
    offsets[offsets.size - 1] = np.uint32(kept)
    return kept, shared


@kernel
def _build_b(
    cids: NDArray[np.uint64],
    low_bits: U64,
    offsets: NDArray[np.uint32],
    cursor: NDArray[np.uint32],
    entries: NDArray[Any],
) -> None:
    low_mask = (_ONE << low_bits) - _ONE
    bucket_mask = np.uint64(offsets.size - 1) - _ONE
    _count_buckets(cids, low_bits, bucket_mask, offsets)
    n = np.uint64(cids.size)
    cursor[:] = offsets
    for i in range(n):
        prefetch(cursor, cids[min(i + np.uint64(2) * _AHEAD, n - _ONE)] >> low_bits)
        prefetch(entries, np.uint64(cursor[cids[min(i + _AHEAD, n - _ONE)] >> low_bits]))
        bucket = cids[i] >> low_bits
        entries[np.uint64(cursor[bucket])] = cids[i] & low_mask
        cursor[bucket] += np.uint32(1)
    kept = _ZERO
    start = _ZERO
    for bucket in range(np.uint64(offsets.size) - _ONE):
        stop = np.uint64(offsets[bucket + _ONE])
        _sort(entries, start, stop)
        first = kept
        for i in range(start, stop):
            if kept == first or entries[kept - _ONE] != entries[i]:
                entries[kept] = entries[i]
                kept += _ONE
        offsets[bucket] = np.uint32(first)
        start = stop
    offsets[offsets.size - 1] = np.uint32(kept)


@kernel
def _sort(values: NDArray[Any], start: U64, stop: U64) -> None:
    if stop - start > _SMALL_SORT:
        values[start:stop].sort()
        return
    for i in range(start + _ONE, stop):
        value = values[i]
        to: U64 = i
        while to > start and values[to - _ONE] > value:
            values[to] = values[to - _ONE]
            to -= _ONE
        values[to] = value


@kernel
def _sort_pairs(values: NDArray[Any], partners: NDArray[np.uint32], start: U64, stop: U64) -> None:
    if stop - start > _SMALL_SORT:
        order = np.argsort(values[start:stop])
        values[start:stop] = values[start:stop][order]
        partners[start:stop] = partners[start:stop][order]
        return
    for i in range(start + _ONE, stop):
        value = values[i]
        partner = partners[i]
        to: U64 = i
        while to > start and values[to - _ONE] > value:
            values[to] = values[to - _ONE]
            partners[to] = partners[to - _ONE]
            to -= _ONE
        values[to] = value
        partners[to] = partner
