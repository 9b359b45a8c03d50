"""Spatial barcodes: from a read's CID to the spot that it came from.

A CID is accepted as it stands, or with one substitution if exactly one spot of the chip is that close
(ST_BarcodeMap's rule). Two candidates are no answer: the read is counted as ambiguous. A barcode with one no-call
is tried with each of the four bases at that place and nowhere else; one with more no-calls is not tried.

Two barcodes that differ in one base share the low bases or the high bases. So the candidates of a read lie in one
bucket of table A (keyed by the low bases) and one bucket of table B (keyed by the high bases); see
:mod:`cartoseq.analysis.barcodeindex` for the tables. The buckets are sorted. A small one is compared eight
entries at a time, first those where the barcode should stand if all were spread evenly; a large one, as barcodes of a
skewed composition make it, is asked for each of the at most three substitutions of each base by bisection, so the work
per read is bounded whatever the composition.

The reads go through in small batches: all exact look-ups first, with the table's cache lines asked for ahead of
time, then the reads that failed, while table A's lines are still near.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.barcodeindex import SHARED_BY_SPOTS, SPOT_BITS, BarcodeIndex
from cartoseq.analysis.barcodestore import open_index
from cartoseq.analysis.entries import LANES, equal_entries, lowest_bit, near_entries
from cartoseq.analysis.lowlevel import prefetch
from cartoseq.streaming.kernel import inlined, kernel

__all__ = [
    "AMBIGUOUS",
    "BARCODE_N",
    "CORRECTED",
    "CORRECTED_N",
    "EXACT",
    "NO_SPOT",
    "UNMATCHED",
    "BarcodeIndex",
    "locate",
    "open_index",
]

NO_SPOT = 0xFFFFFFFF

EXACT = 0
CORRECTED = 1
CORRECTED_N = 2
AMBIGUOUS = 3
UNMATCHED = 4
BARCODE_N = 5

# Buckets up to these sizes are compared entry by entry, larger ones by bisection.
SMALL_FOR_EXACT = 32
SMALL_FOR_CORRECTION = 256

# A uint64 scalar within a kernel: numba's range() hands them out, which no type checker knows.
U64 = Any

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_LANES = np.uint64(LANES)
_SMALL_EXACT = np.uint64(SMALL_FOR_EXACT)
_SMALL_CORRECTION = np.uint64(SMALL_FOR_CORRECTION)
_SPOT_MASK = np.uint64((1 << SPOT_BITS) - 1)
_SHARED = np.uint32(SHARED_BY_SPOTS)
_NO_SPOT = np.uint32(NO_SPOT)
_NOWHERE = np.uint64(0xFFFFFFFFFFFFFFFF)
# One bit for each base: the low bit of its two.
_BASES = np.uint64(0x5555555555555555)
# Reads looked up together: small enough for their lines of table A to stay in the second-level cache.
_BATCH = np.uint64(512)
# How many reads ahead a line is asked for; twice that for the bucket's bounds, which must be there first.
_AHEAD = np.uint64(12)
# Bits of a share of a bucket.
_SHARE_BITS = np.uint64(16)


def locate(
    cids: NDArray[np.uint64],
    n_counts: NDArray[np.uint8],
    n_positions: NDArray[np.uint8],
    index: BarcodeIndex,
    max_mismatch: int,
    spots_out: NDArray[np.uint32],
    verdicts_out: NDArray[np.uint8],
) -> int:
    """Find the spot of each read.

    Args:
        cids: Packed barcodes, 2 bits a base, shape (n,).
        n_counts: No-calls in each barcode, shape (n,).
        n_positions: Base position of the no-call where there is one, shape (n,).
        index: The chip's barcodes.
        max_mismatch: 0 or 1 substitutions allowed. A no-call counts as one.
        spots_out: Out: spot number, or ``NO_SPOT``, shape (n,).
        verdicts_out: Out: ``EXACT``, ``CORRECTED`` (one substitution), ``CORRECTED_N`` (placed by trying an N),
            ``AMBIGUOUS`` (several spots fit), ``UNMATCHED``, or ``BARCODE_N`` (no-calls, and no unique spot).

    Returns:
        How many table entries were compared with a barcode: the work done, in entries.

    Raises:
        ValueError: more than one mismatch asked for, or arrays of different lengths.
    """
    if max_mismatch not in (0, 1):
        raise ValueError(f"barcodes are corrected by 0 or 1 substitutions, not by {max_mismatch}")
    if not cids.size == n_counts.size == n_positions.size == spots_out.size == verdicts_out.size:
        raise ValueError("one no-call count, position, spot and verdict per barcode")
    if index.barcodes == 0:
        spots_out.fill(NO_SPOT)
        verdicts_out[:] = np.where(n_counts == 0, UNMATCHED, BARCODE_N)
        return 0
    return int(
        _locate(
            cids,
            n_counts,
            n_positions,
            index.a_offsets,
            index.a_entries,
            index.a_spots,
            index.b_offsets,
            index.b_entries,
            np.uint64(2 * index.barcode_length),
            np.uint64(index.a_bits),
            np.uint64(index.b_bits),
            max_mismatch == 1,
            spots_out,
            verdicts_out,
        )
    )


@kernel
def _locate(
    cids: NDArray[np.uint64],
    n_counts: NDArray[np.uint8],
    n_positions: NDArray[np.uint8],
    a_offsets: NDArray[np.uint32],
    a_entries: NDArray[np.uint64],
    a_spots: NDArray[np.uint32],
    b_offsets: NDArray[np.uint32],
    b_entries: NDArray[Any],
    key_bits: U64,
    a_bits: U64,
    b_bits: U64,
    correct: bool,
    spots_out: NDArray[np.uint32],
    verdicts_out: NDArray[np.uint8],
) -> U64:
    # A table of narrow entries holds the spot in the entry's low bits, one of wide entries in an array of its own.
    shift = _ZERO if a_spots.size > 0 else np.uint64(SPOT_BITS)
    pending = np.empty(_BATCH, np.uint64)
    waiting = np.empty(_BATCH, np.uint64)
    resolved = np.empty(_BATCH, np.uint64)
    crowded = np.empty(_BATCH, np.uint64)
    work = _ZERO
    first = _ZERO
    reads = np.uint64(cids.size)
    while first < reads:
        end = min(first + _BATCH, reads)
        failed, compared = _look_up_exact(
            cids, n_counts, first, end, a_offsets, a_entries, a_spots, key_bits, a_bits, shift, pending, spots_out,
            verdicts_out,
        )  # fmt: skip
        work += compared
        if not correct:
            for k in range(failed):
                read = pending[k]
                verdicts_out[read] = UNMATCHED if n_counts[read] == np.uint8(0) else BARCODE_N
        elif failed > _ZERO:
            waits, crowds, compared = _correct(
                cids, n_counts, n_positions, failed, a_offsets, a_entries, a_spots, b_offsets, b_entries, key_bits,
                a_bits, b_bits, shift, pending, waiting, resolved, crowded, spots_out, verdicts_out,
            )  # fmt: skip
            work += compared
            if crowds > _ZERO:
                waits, compared = _correct_crowded(
                    cids, n_counts, n_positions, crowded, crowds, a_offsets, a_entries, a_spots, b_offsets, b_entries,
                    key_bits, a_bits, b_bits, shift, waiting, resolved, waits, spots_out, verdicts_out,
                )  # fmt: skip
                work += compared
            work += _resolve(
                n_counts, waiting, resolved, waits, a_offsets, a_entries, a_spots, key_bits, a_bits, shift, spots_out,
                verdicts_out,
            )  # fmt: skip
        first = end
    return work


@inlined
def _prefetch_eight(entries: NDArray[Any], at: U64) -> None:
    """Ask for the lines of eight entries, which are compared at once."""
    prefetch(entries, at)
    prefetch(entries, at + (_LANES - _ONE))


@inlined
def _is_deep(entries: NDArray[Any], bits: U64) -> Any:
    """Whether most buckets of a table have more entries than are compared at once."""
    return np.uint64(entries.size) >> bits >= _LANES


@inlined
def _window(start: U64, stop: U64, rest: U64, rest_bits: U64, is_deep: bool) -> U64:
    """From where on the eight entries of a sorted bucket lie that ``rest`` should be among."""
    if not is_deep:
        return start
    size = stop - start
    share = rest >> (rest_bits - _SHARE_BITS) if rest_bits >= _SHARE_BITS else rest << (_SHARE_BITS - rest_bits)
    before = max((share * size) >> _SHARE_BITS, _LANES >> _ONE) - (_LANES >> _ONE)
    return start + min(before, max(size, _LANES) - _LANES)


@inlined
def _prefetch_window(
    offsets: NDArray[np.uint32], entries: NDArray[Any], cid: U64, key_bits: U64, bits: U64, is_deep: bool
) -> None:
    """Ask for the lines of table A that :func:`_find_soon` compares first."""
    bucket = cid & ((_ONE << bits) - _ONE)
    start = np.uint64(offsets[bucket])
    stop = np.uint64(offsets[bucket + _ONE])
    _prefetch_eight(entries, _window(start, stop, cid >> bits, key_bits - bits, is_deep))


@inlined
def _prefetch_rest(offsets: NDArray[np.uint32], entries: NDArray[Any], bucket: U64) -> None:
    """Ask for the lines of a deep bucket, all of which are compared; of a very deep one, the first."""
    start, stop = np.uint64(offsets[bucket]), np.uint64(offsets[bucket + _ONE])
    for at in range(start, min(stop, start + _TWO * _TWO * _LANES), _LANES):
        prefetch(entries, at)


@kernel
def _look_up_exact(
    cids: NDArray[np.uint64],
    n_counts: NDArray[np.uint8],
    first: U64,
    end: U64,
    a_offsets: NDArray[np.uint32],
    a_entries: NDArray[np.uint64],
    a_spots: NDArray[np.uint32],
    key_bits: U64,
    a_bits: U64,
    shift: U64,
    pending_out: NDArray[np.uint64],
    spots_out: NDArray[np.uint32],
    verdicts_out: NDArray[np.uint8],
) -> tuple[U64, U64]:
    """Place the reads that stand in the table as they are; list the others that may be corrected."""
    bucket_mask = (_ONE << a_bits) - _ONE
    is_deep = _is_deep(a_entries, a_bits)
    last = end - _ONE
    failed = _ZERO
    work = _ZERO
    for ahead in range(first, min(first + _TWO * _AHEAD, end)):
        prefetch(a_offsets, cids[ahead] & bucket_mask)
    for ahead in range(first, min(first + _AHEAD, end)):
        _prefetch_window(a_offsets, a_entries, cids[ahead], key_bits, a_bits, is_deep)
    for read in range(first, end):
        prefetch(a_offsets, cids[min(read + _TWO * _AHEAD, last)] & bucket_mask)
        _prefetch_window(a_offsets, a_entries, cids[min(read + _AHEAD, last)], key_bits, a_bits, is_deep)
        cid = cids[read]
        bucket = cid & bucket_mask
        start = np.uint64(a_offsets[bucket])
        stop = np.uint64(a_offsets[bucket + _ONE])
        at, found, compared = _find_soon(a_entries, start, stop, cid >> a_bits, key_bits - a_bits, shift, is_deep)
        work += compared
        # Found or not is not foreseen either: the read is listed, and the list is longer only if it is not found.
        spot = a_spots[at] if shift == _ZERO else np.uint32(a_entries[at] & _SPOT_MASK)
        pending_out[failed] = read
        if n_counts[read] != np.uint8(0):
            spots_out[read] = _NO_SPOT
            verdicts_out[read] = BARCODE_N
            failed += np.uint64(n_counts[read] == np.uint8(1))
        elif spot == _SHARED and found != _ZERO:
            spots_out[read] = _NO_SPOT
            verdicts_out[read] = AMBIGUOUS
        else:
            spots_out[read] = spot | np.uint32(found - _ONE)
            verdicts_out[read] = EXACT
            failed += _ONE - found
    return failed, work


@kernel
def _correct(
    cids: NDArray[np.uint64],
    n_counts: NDArray[np.uint8],
    n_positions: NDArray[np.uint8],
    failed: U64,
    a_offsets: NDArray[np.uint32],
    a_entries: NDArray[np.uint64],
    a_spots: NDArray[np.uint32],
    b_offsets: NDArray[np.uint32],
    b_entries: NDArray[Any],
    key_bits: U64,
    a_bits: U64,
    b_bits: U64,
    shift: U64,
    pending: NDArray[np.uint64],
    waiting: NDArray[np.uint64],
    resolved: NDArray[np.uint64],
    crowded: NDArray[np.uint64],
    spots_out: NDArray[np.uint32],
    verdicts_out: NDArray[np.uint8],
) -> tuple[U64, U64, U64]:
    """Place the pending reads by one substitution, or by a base for their no-call, where only one spot fits.

    Reads with a large bucket are left to the next kernel, in ``crowded``; those with a hit in table B, whose spot
    still has to be looked up, are listed in ``waiting``, with the barcode that was hit in ``resolved``.
    """
    a_mask = (_ONE << a_bits) - _ONE
    low_bits = key_bits - b_bits
    low_mask = (_ONE << low_bits) - _ONE
    is_deep = _is_deep(a_entries, a_bits)
    last = failed - _ONE
    work = _ZERO
    waits = _ZERO
    crowds = _ZERO
    for ahead in range(min(_TWO * _AHEAD, failed)):
        prefetch(b_offsets, cids[pending[ahead]] >> low_bits)
    for ahead in range(min(_AHEAD, failed)):
        _prefetch_eight(b_entries, np.uint64(b_offsets[cids[pending[ahead]] >> low_bits]))
    for k in range(failed):
        prefetch(b_offsets, cids[pending[min(k + _TWO * _AHEAD, last)]] >> low_bits)
        soon = cids[pending[min(k + _AHEAD, last)]]
        _prefetch_eight(b_entries, np.uint64(b_offsets[soon >> low_bits]))
        if is_deep:
            _prefetch_rest(a_offsets, a_entries, soon & a_mask)
        read = pending[k]
        cid = cids[read]
        a_start = np.uint64(a_offsets[cid & a_mask])
        a_stop = np.uint64(a_offsets[(cid & a_mask) + _ONE])
        b_start = np.uint64(b_offsets[cid >> low_bits])
        b_stop = np.uint64(b_offsets[(cid >> low_bits) + _ONE])
        if a_stop - a_start > _SMALL_CORRECTION or b_stop - b_start > _SMALL_CORRECTION:
            crowded[crowds] = read
            crowds += _ONE
            continue
        work += a_stop - a_start + b_stop - b_start
        has_n = n_counts[read] != np.uint8(0)
        # The bases that may differ: any, or the one that was not called. In table B only the low bases may differ
        # that table A's bucket fixed: so each candidate is counted once.
        allowed = _ONE << (_TWO * np.uint64(n_positions[read])) if has_n else _BASES
        a_hits, a_at = _scan(a_entries, a_start, a_stop, cid >> a_bits, shift, allowed >> a_bits, True)
        b_hits, b_at = _scan(b_entries, b_start, b_stop, cid & low_mask, _ZERO, allowed & a_mask, False)
        spot = a_spots[a_at] if shift == _ZERO else np.uint32(a_entries[a_at] & _SPOT_MASK)
        # Which of these it is no branch predictor foresees, either: listed is every read, and counted those that wait.
        waiting[waits] = read
        resolved[waits] = cid & ~low_mask | np.uint64(b_entries[b_at])
        waits += np.uint64(a_hits == _ZERO) & np.uint64(b_hits == _ONE)
        hits = a_hits + b_hits
        is_a = np.uint64(a_hits == _ONE) & np.uint64(b_hits == _ZERO)
        if has_n or spot == _SHARED:
            if hits != _ONE:
                verdicts_out[read] = _without_spot(hits, has_n)
            elif is_a != _ZERO:
                _accept(read, spot, has_n, spots_out, verdicts_out)
        else:
            spots_out[read] = spot | np.uint32(is_a - _ONE)
            verdicts_out[read] = np.uint8(CORRECTED) if hits == _ONE else _without_spot(hits, False)
    return waits, crowds, work


@kernel
def _correct_crowded(
    cids: NDArray[np.uint64],
    n_counts: NDArray[np.uint8],
    n_positions: NDArray[np.uint8],
    crowded: NDArray[np.uint64],
    crowds: U64,
    a_offsets: NDArray[np.uint32],
    a_entries: NDArray[np.uint64],
    a_spots: NDArray[np.uint32],
    b_offsets: NDArray[np.uint32],
    b_entries: NDArray[Any],
    key_bits: U64,
    a_bits: U64,
    b_bits: U64,
    shift: U64,
    waiting: NDArray[np.uint64],
    resolved: NDArray[np.uint64],
    waits: U64,
    spots_out: NDArray[np.uint32],
    verdicts_out: NDArray[np.uint8],
) -> tuple[U64, U64]:
    """The same for the reads of large buckets: every substitution is looked for by bisection."""
    a_mask = (_ONE << a_bits) - _ONE
    low_bits = key_bits - b_bits
    low_mask = (_ONE << low_bits) - _ONE
    work = _ZERO
    for k in range(crowds):
        read = crowded[k]
        cid = cids[read]
        has_n = n_counts[read] != np.uint8(0)
        allowed = _ONE << (_TWO * np.uint64(n_positions[read])) if has_n else _BASES
        start = np.uint64(a_offsets[cid & a_mask])
        stop = np.uint64(a_offsets[(cid & a_mask) + _ONE])
        a_hits, a_at, compared = _try_variants(
            a_entries, start, stop, cid >> a_bits, shift, allowed >> a_bits, key_bits - a_bits, has_n
        )
        work += compared
        start = np.uint64(b_offsets[cid >> low_bits])
        stop = np.uint64(b_offsets[(cid >> low_bits) + _ONE])
        b_hits, b_at, compared = _try_variants(
            b_entries, start, stop, cid & low_mask, _ZERO, allowed & a_mask, a_bits, False
        )
        work += compared
        if a_hits + b_hits != _ONE:
            verdicts_out[read] = _without_spot(a_hits + b_hits, has_n)
        elif a_hits == _ONE:
            spot = a_spots[a_at] if shift == _ZERO else np.uint32(a_entries[a_at] & _SPOT_MASK)
            _accept(read, spot, has_n, spots_out, verdicts_out)
        else:
            waiting[waits] = read
            resolved[waits] = cid & ~low_mask | np.uint64(b_entries[b_at])
            waits += _ONE
    return waits, work


@kernel
def _resolve(
    n_counts: NDArray[np.uint8],
    waiting: NDArray[np.uint64],
    resolved: NDArray[np.uint64],
    waits: U64,
    a_offsets: NDArray[np.uint32],
    a_entries: NDArray[np.uint64],
    a_spots: NDArray[np.uint32],
    key_bits: U64,
    a_bits: U64,
    shift: U64,
    spots_out: NDArray[np.uint32],
    verdicts_out: NDArray[np.uint8],
) -> U64:
    """Look up in table A the spots of the barcodes that were hit in table B."""
    is_deep = _is_deep(a_entries, a_bits)
    a_mask = (_ONE << a_bits) - _ONE
    work = _ZERO
    for ahead in range(waits):
        prefetch(a_offsets, resolved[ahead] & a_mask)
    for ahead in range(min(_AHEAD, waits)):
        _prefetch_window(a_offsets, a_entries, resolved[ahead], key_bits, a_bits, is_deep)
    for k in range(waits):
        _prefetch_window(a_offsets, a_entries, resolved[min(k + _AHEAD, waits - _ONE)], key_bits, a_bits, is_deep)
        cid = resolved[k]
        start = np.uint64(a_offsets[cid & a_mask])
        stop = np.uint64(a_offsets[(cid & a_mask) + _ONE])
        at, _, compared = _find_soon(a_entries, start, stop, cid >> a_bits, key_bits - a_bits, shift, is_deep)
        work += compared
        spot = a_spots[at] if shift == _ZERO else np.uint32(a_entries[at] & _SPOT_MASK)
        read = waiting[k]
        _accept(read, spot, n_counts[read] != np.uint8(0), spots_out, verdicts_out)
    return work


@inlined
def _without_spot(hits: U64, has_n: bool) -> int:
    """The verdict where no barcode fits, or several do."""
    if has_n:
        return BARCODE_N
    return UNMATCHED if hits == _ZERO else AMBIGUOUS


@inlined
def _accept(read: U64, spot: Any, has_n: bool, spots_out: NDArray[np.uint32], verdicts_out: NDArray[np.uint8]) -> None:
    """One barcode fits: it is the read's, unless several spots of the chip carry it."""
    if spot != _SHARED:
        spots_out[read] = spot
        verdicts_out[read] = CORRECTED_N if has_n else CORRECTED
    else:
        verdicts_out[read] = BARCODE_N if has_n else AMBIGUOUS


@inlined
def _find(entries: NDArray[Any], start: U64, stop: U64, rest: U64, shift: U64) -> tuple[U64, U64]:
    """Where a sorted bucket holds ``rest``, or ``_NOWHERE``; and the entries compared."""
    at = start
    work = _ONE
    while stop - at > _SMALL_EXACT:
        middle = at + ((stop - at) >> _ONE)
        work += _ONE
        if np.uint64(entries[middle]) >> shift <= rest:
            at = middle
        else:
            stop = middle
    while at < stop and np.uint64(entries[at]) >> shift < rest:
        at += _ONE
        work += _ONE
    return (at if at < stop and np.uint64(entries[at]) >> shift == rest else _NOWHERE), work


@inlined
def _find_soon(
    entries: NDArray[Any], start: U64, stop: U64, rest: U64, rest_bits: U64, shift: U64, is_deep: bool
) -> tuple[U64, U64, U64]:
    """As :func:`_find`, without a branch where ``rest``, or the gap that it would stand in, is where it should be.

    Returns:
        A legal place, whether ``rest`` stands there (1, else 0), and the entries compared.
    """
    at = _window(start, stop, rest, rest_bits, is_deep)
    if at + _LANES <= np.uint64(entries.size):
        size = min(stop - at, _LANES)
        equal = equal_entries(entries, at, shift, rest) & ((_ONE << size) - _ONE)
        if equal != _ZERO or stop - start <= _LANES or _brackets(entries, at, rest, shift):
            return at + (lowest_bit(equal) & (_LANES - _ONE)), np.uint64(equal != _ZERO), size
    at, work = _find(entries, start, stop, rest, shift)
    found = at != _NOWHERE
    return at if found else _ZERO, np.uint64(found), work


@inlined
def _brackets(entries: NDArray[Any], at: U64, rest: U64, shift: U64) -> Any:
    """Whether ``rest`` lies between the first and the last of eight sorted entries, so that it can be nowhere else."""
    return (np.uint64(entries[at]) >> shift < rest) & (np.uint64(entries[at + (_LANES - _ONE)]) >> shift > rest)


@inlined
def _scan(
    entries: NDArray[Any], start: U64, stop: U64, rest: U64, shift: U64, allowed: U64, or_equal: bool
) -> tuple[U64, U64]:
    """Count a bucket's entries within one allowed substitution of ``rest``, up to two; and where one is."""
    hits = _ZERO
    found: U64 = _ZERO
    at = start
    while at < stop:
        if at + _LANES <= np.uint64(entries.size):
            near = near_entries(entries, at, shift, rest, allowed) & ((_ONE << min(stop - at, _LANES)) - _ONE)
            if not or_equal:
                near &= ~equal_entries(entries, at, shift, rest)
            hits += np.uint64(near != _ZERO) + np.uint64(near & (near - _ONE) != _ZERO)
            found = at + lowest_bit(near) if near != _ZERO else found
            at += _LANES
        else:  # the last entries of the table
            difference = np.uint64(entries[at]) >> shift ^ rest
            bases = (difference | difference >> _ONE) & _BASES
            if (bases & (bases - _ONE)) | (bases & ~allowed) == _ZERO and (or_equal or bases != _ZERO):
                found = at
                hits += _ONE
            at += _ONE
    return min(hits, _TWO), found


@kernel
def _try_variants(
    entries: NDArray[Any], start: U64, stop: U64, rest: U64, shift: U64, allowed: U64, bits: U64, or_equal: bool
) -> tuple[U64, U64, U64]:
    """Ask a large bucket for each allowed substitution of ``rest`` by bisection."""
    hits = _ZERO
    found: U64 = _ZERO
    work = _ZERO
    if or_equal:
        at, work = _find(entries, start, stop, rest, shift)
        if at != _NOWHERE:
            hits += _ONE
            found = at
    bit = _ZERO
    while bit < bits:
        if (allowed >> bit) & _ONE != _ZERO:
            for change in range(_ONE, np.uint64(4)):
                at, compared = _find(entries, start, stop, rest ^ (change << bit), shift)
                work += compared
                if at != _NOWHERE:
                    hits += _ONE
                    found = at
        bit += _TWO
    return hits, found, work
