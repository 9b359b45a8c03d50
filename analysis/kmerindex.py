"""Where each sampled word of the genome occurs: a hash table of canonical k-mers, built once, read by every mapper.

A k-mer and its reverse complement are one key (the smaller of the two). Only words in which the bases around the middle
one differ are kept: the bases beside it in one bit of their codes, those two away in the other, and so on, each halving
what is kept. A word and its reverse complement agree on that, so reads and genome keep the same words without agreeing
on positions; and it is seen for thirty words at once in a few instructions, where a hash takes that many for each.
Repeats of one, two or four bases are never kept; they tell no place. A key has one slot:

    fingerprint 29 bits | truncated 1 | listed 1 | strand 1 | position 32

`strand` is 1 where the reverse complement is the key. A key that occurs more than once is *listed*: its position is an
offset into the postings, `count, position * 2 + strand, ...`. Beyond MAX_POSTINGS occurrences the list is cut and the
slot says *truncated*: a repeat, which can suggest a place but cannot show that no other is as good.

Annotated junctions are indexed as well: the bases on both sides of an intron, joined. Their k-mers have positions
beyond the genome, `junction_base + intron * junction_stride + offset`.

Texts hold 2 bits a base (A0 C1 G2 T3), the first base least significant, 32 bases a word.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.bitcount import count_bits, lowest_bit
from cartoseq.analysis.leaf import inlined_leaf, leaf
from cartoseq.analysis.lowlevel import prefetch
from cartoseq.analysis.packed import Hits, Introns, Reads, Scratch, signed, window
from cartoseq.streaming.kernel import kernel

EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
MAX_POSTINGS = 8
"""Places kept of a word that occurs more than once."""
MIN_OVERHANG = 6
"""A junction k-mer has at least so many bases on either side: fewer would often equal the intron's own bases."""
LOAD = 0.5
"""Filled share of the table: a word that is not there is known to be missing after 2.5 slots, at 0.7 after 6."""
FEW = 3
"""Seeds that are looked up first: the first, the last and one in the middle of the read."""
GROUP = 64
"""Reads whose lookups of few seeds run side by side."""
ALL_GROUP = 8
"""Reads whose lookups of all seeds run side by side."""
SPARSE = np.uint64(32)
"""Of a read of so many bases only every second base can begin a seed, of twice as many every third, and so on."""
FEW_HITS = FEW * MAX_POSTINGS
NO_SEED = np.uint64(0xFFFFFFFFFFFFFFFF)

_LOW = np.uint64(0xFFFFFFFF)
_LISTED = np.uint64(1 << 33)
_TRUNCATED = np.uint64(1 << 34)

_BATCH = 256


class KmerIndex(NamedTuple):
    """Seed table of one genome; read-only after building.

    Attributes:
        k: Bases in a word, odd, at most 31.
        sampling: One key of `sampling` is kept: 1, 2, 4 or 8.
        slots: Hash table, uint64.
        postings: Lists of the keys that occur more than once, uint64.
        junction_base: Position of the first junction word.
        junction_stride: Positions per junction.
    """

    k: int
    sampling: int
    slots: NDArray[np.uint64]
    postings: NDArray[np.uint64]
    junction_base: int
    junction_stride: int


def build_index(
    text: NDArray[np.uint64],
    unknown: NDArray[np.uint64],
    bases: int,
    introns: NDArray[np.int64],
    k: int,
    sampling: int,
) -> KmerIndex:
    """Index a packed text and its annotated junctions.

    Args:
        text: 2-bit packed text.
        unknown: One bit per base of the text, set where the base is not known.
        bases: Length of the text.
        introns: Start and end of each intron in the text, half-open, int64, shape (introns, 2).
        k: Bases in a word, odd.
        sampling: One key of this many is kept: 1, 2, 4 or 8.
    """
    flank = k - MIN_OVERHANG
    starts, ends = np.ascontiguousarray(introns[:, 0]), np.ascontiguousarray(introns[:, 1])
    pairs = np.uint64(sampling.bit_length() - 1)
    sampled = _count_sampled(text, unknown, np.uint64(bases), starts, ends, k, flank, pairs)
    slots = np.full(max(64, int(sampled / LOAD) + 1), EMPTY, dtype=np.uint64)
    counts = np.zeros(slots.size, dtype=np.uint8)
    _fill(text, unknown, np.uint64(bases), starts, ends, k, flank, pairs, slots, counts, np.empty(0, np.uint64), 0)
    postings = np.zeros(max(1, _list_offsets(slots, counts)), dtype=np.uint64)
    counts[:] = 0
    _fill(text, unknown, np.uint64(bases), starts, ends, k, flank, pairs, slots, counts, postings, 1)
    return KmerIndex(k, sampling, slots, postings, bases, 2 * flank)


@inlined_leaf
def _hash(key: np.uint64) -> np.uint64:
    """Scramble a key: the low half gives the fingerprint, the high half the slot."""
    h = key * np.uint64(0x9E3779B97F4A7C15)
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xD6E8FEB86659FD93)
    return h ^ (h >> np.uint64(29))


@inlined_leaf
def _home(h: np.uint64, n_slots: np.uint64) -> np.uint64:
    return ((h >> np.uint64(32)) * n_slots) >> np.uint64(32)


@inlined_leaf
def _fingerprint(h: np.uint64) -> np.uint64:
    return (h >> np.uint64(3)) & np.uint64(0x1FFFFFFF)


@leaf
def sampled_words(bases: np.uint64, pairs: np.uint64) -> np.uint64:
    """Mark the sampled words among those around 32 bases, 01 each: bit 2j for the one whose middle is base j + pairs.

    Args:
        bases: The bases, the first least significant.
        pairs: So many pairs of bases must differ, the first beside the middle, each one farther out.
    """
    marks = np.uint64(0x5555555555555555) >> (pairs << np.uint64(2))
    for away in range(np.uint64(1), pairs + np.uint64(1)):
        unlike = bases ^ (bases >> (away << np.uint64(2)))
        bit = np.uint64(1) - (away & np.uint64(1))
        marks &= unlike >> (((pairs - away) << np.uint64(1)) + bit)
    return marks


@kernel
def _count_sampled(
    text: NDArray[np.uint64],
    unknown: NDArray[np.uint64],
    bases: np.uint64,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    k: int,
    flank: int,
    pairs: np.uint64,
) -> int:
    """Return how many words of the text and its junctions are sampled."""
    hashes = np.empty(_BATCH, np.uint64)
    places = np.empty(_BATCH, np.uint64)
    total = 0
    state = np.zeros(4, np.uint64)
    while True:
        n = _next_sampled(text, unknown, bases, starts, ends, k, flank, pairs, state, hashes, places)
        if n == 0:
            return total
        total += n


@leaf
def _next_sampled(
    text: NDArray[np.uint64],
    unknown: NDArray[np.uint64],
    bases: np.uint64,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    k: int,
    flank: int,
    pairs: np.uint64,
    state: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
    places: NDArray[np.uint64],
) -> int:
    """Roll on to the next sampled words.

    Args:
        text: Packed text; then `unknown`, `bases`, intron `starts` and `ends`, `k`, `flank` as in `build_index`.
        unknown: See above.
        bases: See above.
        starts: See above.
        ends: See above.
        k: See above.
        flank: Bases of each exon in a junction.
        pairs: Pairs of bases that differ in a sampled word.
        state: In and out: next position (through the text, then through the junctions), known bases in a row, the word,
            its reverse complement.
        hashes: Out: hashes, as many as fit.
        places: Out: position * 2 + strand.

    Returns:
        How many were written; 0 at the end.
    """
    n = 0
    limit = hashes.size
    position, run, forward, reverse = state[0], state[1], state[2], state[3]
    stride = np.uint64(2 * flank)
    end = bases + np.uint64(starts.size) * stride
    top = np.uint64(2 * (k - 1))
    word_mask = (np.uint64(1) << np.uint64(2 * k)) - np.uint64(1)
    back = np.uint64(k - 1)
    around = np.uint64(k - 1) - (pairs << np.uint64(1))
    while position < end and n < limit:
        at = position
        if position >= bases:
            junction = (position - bases) // stride
            offset = (position - bases) - junction * stride
            if offset == np.uint64(0):
                run = np.uint64(0)
            left = offset < np.uint64(flank)
            if left:
                at = np.uint64(starts[junction]) + offset - np.uint64(flank)
            else:
                at = np.uint64(ends[junction]) + offset - np.uint64(flank)
        base = (text[at >> np.uint64(5)] >> ((at & np.uint64(31)) << np.uint64(1))) & np.uint64(3)
        if (unknown[at >> np.uint64(6)] >> (at & np.uint64(63))) & np.uint64(1):
            run = np.uint64(0)
        else:
            run += np.uint64(1)
        forward = (forward >> np.uint64(2)) | (base << top)
        reverse = ((reverse << np.uint64(2)) | (np.uint64(3) - base)) & word_mask
        if run >= np.uint64(k) and sampled_words(forward >> around, pairs) & np.uint64(1):
            hashes[n] = _hash(min(forward, reverse))
            places[n] = ((position - back) << np.uint64(1)) | np.uint64(reverse < forward)
            n += 1
        position += np.uint64(1)
    state[0], state[1], state[2], state[3] = position, run, forward, reverse
    return n


@kernel
def _fill(
    text: NDArray[np.uint64],
    unknown: NDArray[np.uint64],
    bases: np.uint64,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    k: int,
    flank: int,
    pairs: np.uint64,
    slots: NDArray[np.uint64],
    counts: NDArray[np.uint8],
    postings: NDArray[np.uint64],
    second: int,
) -> None:
    """Enter every sampled word: first time its slot and count, second time (`second` = 1) the lists."""
    hashes = np.empty(_BATCH, np.uint64)
    places = np.empty(_BATCH, np.uint64)
    state = np.zeros(4, np.uint64)
    n_slots = np.uint64(slots.size)
    listed = np.uint64(1) << np.uint64(33)
    low = np.uint64(0xFFFFFFFF)
    while True:
        n = _next_sampled(text, unknown, bases, starts, ends, k, flank, pairs, state, hashes, places)
        if n == 0:
            return
        for i in range(n):
            prefetch(slots, _home(hashes[i], n_slots))
        for i in range(n):
            print_ = _fingerprint(hashes[i])
            at = _home(hashes[i], n_slots)
            while slots[at] != EMPTY and (slots[at] >> np.uint64(35)) != print_:
                at += np.uint64(1)
                if at == n_slots:
                    at = np.uint64(0)
            if second == 0:
                if slots[at] == EMPTY:
                    strand = (places[i] & np.uint64(1)) << np.uint64(32)
                    slots[at] = (print_ << np.uint64(35)) | strand | (places[i] >> np.uint64(1))
                if counts[at] <= MAX_POSTINGS:
                    counts[at] += np.uint8(1)
            elif slots[at] & listed and counts[at] < MAX_POSTINGS:
                offset = slots[at] & low
                postings[offset + np.uint64(1) + np.uint64(counts[at])] = places[i]
                counts[at] += np.uint8(1)
                postings[offset] = np.uint64(counts[at])


@leaf
def _list_offsets(slots: NDArray[np.uint64], counts: NDArray[np.uint8]) -> int:
    """Turn the slots of keys that occur more than once into offsets of lists; return the length of all lists."""
    total = 0
    for at in range(slots.size):
        if counts[at] > 1 and slots[at] != EMPTY:
            kept = min(signed(counts[at]), MAX_POSTINGS)
            flags = np.uint64(1) << np.uint64(33)
            if counts[at] > MAX_POSTINGS:
                flags |= np.uint64(1) << np.uint64(34)
            slots[at] = ((slots[at] >> np.uint64(35)) << np.uint64(35)) | flags | np.uint64(total)
            total += kept + 1
    return total


@inlined_leaf
def _seed(reads: NDArray[np.uint64], plus_at: np.uint64, minus_at: np.uint64, k: np.uint64) -> np.uint64:
    """Return the hash of a read's word, its lowest bit set if the reverse complement is the key.

    (The fingerprint and the slot do not hold the lowest bit.) `plus_at` is the word's first base in all reads,
    `minus_at` that of its reverse complement.
    """
    word_mask = (np.uint64(1) << (k << np.uint64(1))) - np.uint64(1)
    plus = window(reads, plus_at) & word_mask
    minus = window(reads, minus_at) & word_mask
    return (_hash(min(plus, minus)) & ~np.uint64(1)) | np.uint64(minus < plus)


@inlined_leaf
def _find(slots: NDArray[np.uint64], h: np.uint64, slot: np.uint64) -> np.uint64:
    """Return the slot of a hash, EMPTY where the key is not in the genome; `slot` is what its home holds."""
    print_ = _fingerprint(h)
    if slot != EMPTY and (slot >> np.uint64(35)) != print_:
        n_slots = np.uint64(slots.size)
        at = _home(h, n_slots)
        while slot != EMPTY and (slot >> np.uint64(35)) != print_:
            at += np.uint64(1)
            if at == n_slots:
                at = np.uint64(0)
            slot = slots[at]
    return slot


@inlined_leaf
def _diagonal(
    place: np.uint64,
    read_strand: np.uint64,
    offset: Any,
    length: Any,
    k: int,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    junction_base: np.uint64,
    junction_stride: np.uint64,
) -> np.uint64:
    """Return diagonal * 2 + strand: where the first base of the read (strand 1: of its reverse complement) would lie.

    A junction word gives the diagonal of the exon that holds more of the read.
    """
    position = place >> np.uint64(1)
    strand = (place ^ read_strand) & np.uint64(1)
    at = np.uint64(offset)
    if strand:
        at = np.uint64(length - k - offset)
    if position >= junction_base:
        junction = (position - junction_base) // junction_stride
        within = (position - junction_base) - junction * junction_stride
        flank = junction_stride >> np.uint64(1)
        left = flank - within + at
        if left + left >= np.uint64(length):
            position = np.uint64(starts[junction]) + within - flank
        else:
            position = np.uint64(ends[junction]) + within - flank
    return ((position - at) << np.uint64(1)) | strand


@inlined_leaf
def _next_seed(
    reads: NDArray[np.uint64],
    lost: NDArray[np.uint64],
    read_at: np.uint64,
    begin: np.uint64,
    end: np.uint64,
    k: np.uint64,
    pairs: np.uint64,
) -> Any:
    """Return the offset of the first sampled word without a no-call that begins in [begin, end), or `end`.

    `read_at` is the read's first base in all reads. From that of the reverse complement, words are looked at from the
    read's end.
    """
    word_mask = (np.uint64(1) << (k << np.uint64(1))) - np.uint64(1)
    around = (k >> np.uint64(1)) - pairs
    at = begin
    while at < end:
        marks = sampled_words(window(reads, read_at + at + around), pairs)
        while marks:
            offset: np.uint64 = at + (lowest_bit(marks) >> np.uint64(1))
            if offset >= end:
                return end
            if (window(lost, read_at + offset) & word_mask) == np.uint64(0):
                return offset
            marks &= marks - np.uint64(1)
        at += np.uint64(32) - (pairs << np.uint64(1))
    return end


@leaf
def few_seeds(reads: Reads, index: KmerIndex, introns: Introns, hits: Hits, scratch: Scratch) -> None:
    """Look up the first, the last and a middle seed of each read.

    Args:
        reads: The batch.
        index: The seed table.
        introns: As it was built with.
        hits: Out: at most FEW_HITS places, counts and bounds of each read; `repeats` is left alone.
        scratch: Working space.
    """
    at: Any
    length: Any
    offset: Any
    lengths, slots, postings = reads.lengths, index.slots, index.postings
    starts, ends = introns.starts, introns.ends
    k = index.k
    n = lengths.size
    pairs = count_bits(np.uint64(index.sampling - 1))
    n_slots = np.uint64(slots.size)
    flat, flat_lost = reads.words.reshape(-1), reads.lost.reshape(-1)
    row_bases = np.uint64(32 * reads.words.shape[2])
    reverse_at = row_bases * np.uint64(reads.words.shape[1])
    width = np.uint64(k)
    hashes, offsets, found_slots = (
        scratch.few.reshape(-1),
        scratch.few_offsets.reshape(-1),
        scratch.few_slots.reshape(-1),
    )
    places, most = hits.places.reshape(-1), hits.places.shape[1]
    base, stride = np.uint64(index.junction_base), np.uint64(index.junction_stride)
    none, one = np.uint64(0), np.uint64(1)
    for first in range(0, n, GROUP):
        last = min(first + GROUP, n)
        for r in range(first, last):
            length = np.uint64(lengths[np.uint64(r)])
            words = length - width + one if length >= width else none
            plus = np.uint64(r) * row_bases
            minus = reverse_at + plus
            low = _next_seed(flat, flat_lost, plus, none, words, width, pairs)
            # The last one is the first of the reverse complement; none if it is the same.
            others = words - low - one if words > low else none
            high = words - one - _next_seed(flat, flat_lost, minus, none, others, width, pairs)
            begin = max(words >> one, low + one)
            middle = high
            if begin < high and others > none:
                middle = _next_seed(flat, flat_lost, plus, begin, high, width, pairs)
            for s in range(FEW):
                at = np.uint64((r - first) * FEW + s)
                offset = low if s == 0 else middle if s == 1 else high
                hashes[at] = NO_SEED
                if (s == 0 and low < words) or (
                    others > none and ((s == 1 and middle < high) or (s == 2 and high > low))
                ):
                    hashes[at] = _seed(flat, plus + offset, minus + length - width - offset, width)
                    offsets[at] = np.int64(offset)
        # In a loop of nothing else, so that the processor waits for some dozens of them at once.
        lookups = np.uint64((last - first) * FEW)
        for lookup in range(lookups):
            found_slots[lookup] = slots[_home(hashes[lookup], n_slots)]
        for lookup in range(lookups):
            slot = EMPTY
            if hashes[lookup] != NO_SEED:
                slot = _find(slots, hashes[lookup], found_slots[lookup])
                if slot != EMPTY and slot & _LISTED:
                    prefetch(postings, slot & _LOW)
            found_slots[lookup] = slot
        for r in range(first, last):
            row = np.uint64(r * most)
            count = np.uint64(0)
            bound = 0
            beyond = 0
            bases = signed(lengths[np.uint64(r)])
            for s in range(FEW):
                seed = np.uint64((r - first) * FEW + s)
                h, slot, seed_at = hashes[seed], found_slots[seed], offsets[seed]
                if h == NO_SEED or (slot != EMPTY and slot & _TRUNCATED):
                    continue
                if seed_at >= beyond:
                    bound += 1
                    beyond = seed_at + k
                if slot == EMPTY:
                    continue
                if slot & _LISTED:
                    entry = slot & _LOW
                    for i in range(postings[entry]):
                        place = postings[entry + np.uint64(1) + i]
                        places[row + count] = _diagonal(place, h, seed_at, bases, k, starts, ends, base, stride)
                        count += np.uint64(1)
                else:
                    place = ((slot & _LOW) << np.uint64(1)) | ((slot >> np.uint64(32)) & np.uint64(1))
                    places[row + count] = _diagonal(place, h, seed_at, bases, k, starts, ends, base, stride)
                    count += np.uint64(1)
            hits.counts[np.uint64(r)] = np.int64(count)
            hits.bounds[np.uint64(r)] = np.uint8(bound)


@leaf
def all_seeds(
    chosen: NDArray[np.int64], reads: Reads, index: KmerIndex, introns: Introns, hits: Hits, scratch: Scratch
) -> None:
    """Look up every seed of some reads.

    Args:
        chosen: Rows of the reads, int64, shape (m,).
        reads: The batch.
        index: The seed table.
        introns: As it was built with.
        hits: Out, in the chosen rows: as many places as there is room for, counts, bounds and repeats. Places that
            repeats with a cut list name stand there only if there are no others.
        scratch: Working space.
    """
    length: Any
    seed: Any
    offset: Any
    lengths, slots, postings = reads.lengths, index.slots, index.postings
    starts, ends = introns.starts, introns.ends
    places, k = hits.places, index.k
    pairs = count_bits(np.uint64(index.sampling - 1))
    n_slots = np.uint64(slots.size)
    most = places.shape[1]
    flat, flat_lost = reads.words.reshape(-1), reads.lost.reshape(-1)
    row_bases = np.uint64(32 * reads.words.shape[2])
    reverse_at = row_bases * np.uint64(reads.words.shape[1])
    width = np.uint64(k)
    hashes, offsets, found_slots = scratch.seeds.reshape(-1), scratch.offsets.reshape(-1), scratch.slots.reshape(-1)
    room = scratch.seeds.shape[1]
    base, stride = np.uint64(index.junction_base), np.uint64(index.junction_stride)
    for first in range(0, chosen.size, ALL_GROUP):
        last = min(first + ALL_GROUP, chosen.size)
        for c in range(first, last):
            r = chosen[c]
            length = np.uint64(lengths[r])
            plus = np.uint64(r) * row_bases
            minus = reverse_at + plus + length - width
            words = length - width + np.uint64(1) if length >= width else np.uint64(0)
            begin = np.uint64((c - first) * room)
            seed = begin
            apart = np.uint64(1) + length // SPARSE
            offset = _next_seed(flat, flat_lost, plus, np.uint64(0), words, width, pairs)
            while offset < words:
                h = _seed(flat, plus + offset, minus - offset, width)
                hashes[seed], offsets[seed] = h, np.int64(offset)
                seed += np.uint64(1)
                offset = _next_seed(flat, flat_lost, plus, offset + apart, words, width, pairs)
            hits.counts[r] = np.int64(seed - begin)
        for c in range(first, last):
            begin = np.uint64((c - first) * room)
            for lookup in range(begin, begin + np.uint64(hits.counts[chosen[c]])):
                found_slots[lookup] = slots[_home(hashes[lookup], n_slots)]
        for c in range(first, last):
            begin = np.uint64((c - first) * room)
            for lookup in range(begin, begin + np.uint64(hits.counts[chosen[c]])):
                slot = _find(slots, hashes[lookup], found_slots[lookup])
                if slot != EMPTY and slot & _LISTED:
                    prefetch(postings, slot & _LOW)
                found_slots[lookup] = slot
        for c in range(first, last):
            r = chosen[c]
            begin = np.uint64((c - first) * room)
            seeds = np.uint64(hits.counts[r])
            bases = signed(lengths[r])
            count = 0
            bound = 0
            beyond = 0
            repeat = 0
            for tier in range(2):
                if tier == 1 and (count > 0 or repeat == 0):
                    break
                for lookup in range(begin, begin + seeds):
                    h, slot, seed_at = hashes[lookup], found_slots[lookup], offsets[lookup]
                    cut = slot != EMPTY and slot & _TRUNCATED != np.uint64(0)
                    if tier == 0:
                        if cut:
                            repeat = 1
                            continue
                        if seed_at >= beyond:
                            bound += 1
                            beyond = seed_at + k
                        if slot == EMPTY:
                            continue
                    elif not cut:
                        continue
                    if slot & _LISTED:
                        entry = slot & _LOW
                        for i in range(postings[entry]):
                            if count < most:
                                place = postings[entry + np.uint64(1) + i]
                                places[r, count] = _diagonal(place, h, seed_at, bases, k, starts, ends, base, stride)
                                count += 1
                    elif count < most:
                        place = ((slot & _LOW) << np.uint64(1)) | ((slot >> np.uint64(32)) & np.uint64(1))
                        places[r, count] = _diagonal(place, h, seed_at, bases, k, starts, ends, base, stride)
                        count += 1
                if tier == 1 and count > 0:
                    repeat = 2
            hits.counts[r] = count
            hits.bounds[r] = min(bound, 255)
            hits.repeats[r] = repeat
