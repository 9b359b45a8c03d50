"""Alignment of packed reads at the places that their seeds name.

A read is laid on the text at a diagonal and compared word by word: exclusive or, fold, count. Its score is the best
stretch of +1 per match and -2 per mismatch, so that template-switch oligos, tails and adapters are clipped away.
Where the stretch ends near an annotated intron, the rest of the read is tried on the intron's other side (-1 per
junction). A read that no diagonal takes in whole is laid once more with gaps: banded Smith-Waterman with affine gaps
(-4 to open, -1 per base, at most 8 bases off the diagonal).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.bitcount import count_bits, lowest_bit
from cartoseq.analysis.leaf import inlined_leaf, leaf
from cartoseq.analysis.lowlevel import prefetch
from cartoseq.analysis.packed import Hits, Introns, Limits, Placements, Reads, Scratch, Text, signed, window

MISMATCH = 2
GAP_OPEN = 4
GAP_EXTEND = 1
JUNCTION = 1
BAND = 8
MAX_BLOCKS = 4
INTRON_BLOCK_SHIFT = 11
EDGE_SHIFT = np.uint64(7)
NEAR_JUNCTION = 12
"""A clip this near to an intron may be its doing."""
SAME_PLACE = 16
"""Two alignments that begin or end within so many bases of each other are one place, as are the two sides of a gap that
is no longer: stretches of a read whose diagonals are so near."""
LONGEST_INTRON = 1 << 20
"""Exons of one read are not farther apart."""
GROUP = np.uint64(32)
"""Reads whose places are asked of memory together."""
LEAST_BOUND = 4
"""A place that only words with a cut list could name is passed over if it differs from the read at least so often."""
SEEN_CONFIDENCE = 10
"""Confidence of a read whose place is the best by far of those that were seen, where others may be hidden."""
MAX_CANDIDATES = 64
MAX_TRIED = 12
MOST_COMPARED = 12
"""Places of a read's few seeds that are compared with each other at once; reads with more are looked at closely."""

UNMAPPED, UNIQUE, MULTIPLE = 0, 1, 2

_ONES = np.uint64(0x5555555555555555)

# Columns of an alignment row: the read is oriented along the text, its stretch [FROM, TO).
SCORE, MISMATCHES, FROM, TO, BLOCKS, FIRST_BLOCK = 0, 1, 2, 3, 4, 5
# Each block is three columns: text start, text end, diagonal.
ROW = FIRST_BLOCK + 3 * MAX_BLOCKS


@leaf
def compare(
    reads: NDArray[np.uint64],
    lost: NDArray[np.uint64],
    row_at: int,
    length: int,
    text: Text,
    diagonal: int,
    marks: NDArray[np.uint64],
    marks_at: int,
) -> int:
    """Mark the mismatches of a read laid on the text.

    Args:
        reads: Packed reads, flat.
        lost: Their no-calls: mismatches.
        row_at: First word of the read, oriented along the text.
        length: Its bases.
        text: The genome; its unknown bases are mismatches.
        diagonal: Where the read's first base lies. Outside the text everything mismatches.
        marks: Out: 01 per mismatch, one word per 32 bases.
        marks_at: First word to write.

    Returns:
        How many mismatches there are.
    """
    words = (length + 31) // 32
    rest = length & 31
    if diagonal < 0 or diagonal + length + 64 > text.words.size * 32:
        for w in range(words):
            marks[marks_at + w] = _ONES
        if rest:
            marks[marks_at + words - 1] &= (np.uint64(1) << np.uint64(2 * rest)) - np.uint64(1)
        return length
    at = np.uint64(diagonal)
    first, last = at >> np.uint64(10), (at + np.uint64(length)) >> np.uint64(10)
    uncertain = (
        (text.unknown_blocks[first >> np.uint64(6)] >> (first & np.uint64(63)))
        | (text.unknown_blocks[last >> np.uint64(6)] >> (last & np.uint64(63)))
    ) & np.uint64(1) != np.uint64(0)
    total = np.uint64(0)
    for w in range(words):
        here = at + np.uint64(32 * w)
        x = reads[row_at + w] ^ window(text.words, here)
        x = ((x | (x >> np.uint64(1))) & _ONES) | lost[row_at + w]
        if uncertain:
            for i in range(32):
                place = here + np.uint64(i)
                if (text.unknown[place >> np.uint64(6)] >> (place & np.uint64(63))) & np.uint64(1):
                    x |= np.uint64(1) << np.uint64(2 * i)
        if w == words - 1 and rest:
            x &= (np.uint64(1) << np.uint64(2 * rest)) - np.uint64(1)
        marks[marks_at + w] = x
        total += count_bits(x)
    return signed(total)


@leaf
def _next_mark(marks: NDArray[np.uint64], marks_at: int, at: int, end: int) -> int:
    """Return the first mismatch in [at, end), or `end`."""
    result = end
    if at < end:
        w = at >> 5
        x = marks[marks_at + w] & (np.uint64(0xFFFFFFFFFFFFFFFF) << np.uint64(2 * (at & 31)))
        last = (end - 1) >> 5
        while x == np.uint64(0) and w < last:
            w += 1
            x = marks[marks_at + w]
        if x:
            result = min(end, w * 32 + signed(lowest_bit(x) >> np.uint64(1)))
    return result


@leaf
def best_stretch(marks: NDArray[np.uint64], marks_at: int, begin: int, end: int) -> tuple[int, int, int, int]:
    """Return score, start, end and mismatches of the best stretch within [begin, end); the leftmost of equals."""
    best, best_from, best_to, best_mismatches = 0, begin, begin, 0
    score, start, mismatches = 0, begin, 0
    at = begin
    if begin >= end:
        return best, best_from, best_to, best_mismatches
    word = begin >> 5
    last = (end - 1) >> 5
    x = marks[marks_at + word] & (np.uint64(0xFFFFFFFFFFFFFFFF) << np.uint64(2 * (begin & 31)))
    # What is left cannot make up for what was lost: no better stretch follows.
    while score + (end - at) > best:
        while x == np.uint64(0) and word < last:
            word += 1
            x = marks[marks_at + word]
        mark = end
        if x:
            mark = min(end, word * 32 + signed(lowest_bit(x) >> np.uint64(1)))
            x &= x - np.uint64(1)
        score += mark - at
        if score > best:
            best, best_from, best_to, best_mismatches = score, start, mark, mismatches
        score -= MISMATCH
        mismatches += 1
        at = mark + 1
        if score <= 0:
            score, start, mismatches = 0, at, 0
    return best, best_from, best_to, best_mismatches


@leaf
def best_ending(marks: NDArray[np.uint64], marks_at: int, begin: int, end: int) -> tuple[int, int, int]:
    """Return score, start and mismatches of the best stretch that begins at or after `begin` and ends at `end`."""
    score, start, mismatches = 0, begin, 0
    at = begin
    while at < end:
        mark = _next_mark(marks, marks_at, at, end)
        score += mark - at
        if mark == end:
            break
        score -= MISMATCH
        mismatches += 1
        at = mark + 1
        if score <= 0:
            score, start, mismatches = 0, at, 0
    return score, start, mismatches


@leaf
def best_beginning(marks: NDArray[np.uint64], marks_at: int, begin: int, end: int) -> tuple[int, int, int]:
    """Return score, end and mismatches of the best stretch that begins at `begin` and ends at or before `end`."""
    best, best_to, best_mismatches = 0, begin, 0
    score, mismatches = 0, 0
    at = begin
    while score + (end - at) > best:
        mark = _next_mark(marks, marks_at, at, end)
        score += mark - at
        if score > best:
            best, best_to, best_mismatches = score, mark, mismatches
        score -= MISMATCH
        mismatches += 1
        at = mark + 1
    return best, best_to, best_mismatches


@leaf
def _copy(words: NDArray[np.uint64], source: int, target: int, size: int) -> None:
    for i in range(size):
        words[target + i] = words[source + i]


@leaf
def _copy_row(source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
    for i in range(source.size):
        target[i] = source[i]


@leaf
def _count_marks(marks: NDArray[np.uint64], marks_at: int, begin: int, end: int) -> int:
    count = 0
    at = _next_mark(marks, marks_at, begin, end)
    while at < end:
        count += 1
        at = _next_mark(marks, marks_at, at + 1, end)
    return count


@leaf
def _holds_edge(introns: Introns, begin: int, end: int) -> bool:
    """Tell whether an intron may start or end in [begin, end] of the text: a look at a few bits that are at hand."""
    edge = np.uint64(0)
    for block in range(np.uint64(max(begin, 0)) >> EDGE_SHIFT, (np.uint64(max(end, 0)) >> EDGE_SHIFT) + np.uint64(1)):
        edge |= introns.edges[block >> np.uint64(6)] >> (block & np.uint64(63))
    return bool(edge & np.uint64(1) != np.uint64(0))


@leaf
def _near_intron(introns: Introns, diagonal: int, length: int) -> bool:
    """Tell whether an intron starts or ends where a read would lie."""
    starts, ends, by_end = introns.starts, introns.ends, introns.by_end
    if starts.size == 0 or diagonal < 0 or not _holds_edge(introns, diagonal, diagonal + length):
        return False
    i = signed(introns.start_of_block[diagonal >> INTRON_BLOCK_SHIFT])
    while i < starts.size and starts[i] <= diagonal:
        i += 1
    if i < starts.size and starts[i] < diagonal + length:
        return True
    i = signed(introns.end_of_block[diagonal >> INTRON_BLOCK_SHIFT])
    while i < starts.size and ends[by_end[i]] <= diagonal:
        i += 1
    return bool(i < starts.size and ends[by_end[i]] < diagonal + length)


@leaf
def align_at(
    reads: NDArray[np.uint64],
    lost: NDArray[np.uint64],
    row_at: int,
    length: int,
    text: Text,
    introns: Introns,
    diagonal: int,
    least: int,
    marks: NDArray[np.uint64],
    row: NDArray[np.int64],
) -> None:
    """Align a read without gaps at a diagonal, and over annotated introns where that is better.

    Args:
        reads: As in `compare`, as are `lost`, `row_at`, `length` and `text`.
        lost: No-calls.
        row_at: First word of the read.
        length: Its bases.
        text: The genome.
        introns: Annotated introns.
        diagonal: Where the read's first base lies.
        least: Matches below which a place is of no interest, unless an intron may add to them: then the score is the
            number of matches, which no stretch can exceed, and nothing is aligned.
        marks: Scratch, three times the words of a read.
        row: Out: the alignment.
    """
    starts, ends, by_end = introns.starts, introns.ends, introns.by_end
    stride = marks.size // 3
    here, trial, chosen = 0, stride, 2 * stride
    matches = length - compare(reads, lost, row_at, length, text, diagonal, marks, here)
    if matches < least and not _near_intron(introns, diagonal, length):
        row[SCORE] = matches
        row[MISMATCHES], row[FROM], row[TO], row[BLOCKS] = 0, 0, 0, 0
        return
    score, begin, end, mismatches = best_stretch(marks, here, 0, length)
    row[FIRST_BLOCK] = diagonal + begin
    row[FIRST_BLOCK + 1] = diagonal + end
    row[FIRST_BLOCK + 2] = diagonal
    blocks = 1
    while starts.size and score > 0 and blocks < MAX_BLOCKS and length - end >= 3:
        last = FIRST_BLOCK + 3 * (blocks - 1)
        along = row[last + 2]
        low = begin if blocks == 1 else row[last] - along
        block_mismatches = mismatches if blocks == 1 else _count_marks(marks, here, low, end)
        without = score - ((end - low) - (MISMATCH + 1) * block_mismatches)
        best, best_x, best_along, best_begin, best_end, best_left, best_right = score, -1, 0, 0, 0, 0, 0
        first = max(along + low + 1, along + end - NEAR_JUNCTION)
        if not _holds_edge(introns, first, along + end + NEAR_JUNCTION):
            break
        i = signed(introns.start_of_block[first >> INTRON_BLOCK_SHIFT])
        while i < starts.size and starts[i] < first:
            i += 1
        while i < starts.size and starts[i] <= along + min(end + NEAR_JUNCTION, length - 1):
            x = starts[i] - along
            if blocks == 1:
                left_score, left_begin, left_mismatches = best_ending(marks, here, 0, x)
            else:
                left_begin = low
                left_mismatches = _count_marks(marks, here, low, x)
                left_score = (x - low) - (MISMATCH + 1) * left_mismatches
            if left_score > 0:
                beyond = along + ends[i] - starts[i]
                compare(reads, lost, row_at, length, text, beyond, marks, trial)
                right_score, right_end, right_mismatches = best_beginning(marks, trial, x, length)
                if right_score > 0 and without + left_score + right_score - JUNCTION > best:
                    best = without + left_score + right_score - JUNCTION
                    best_x, best_along, best_begin, best_end = x, beyond, left_begin, right_end
                    best_left, best_right = left_mismatches, right_mismatches
                    _copy(marks, trial, chosen, stride)
            i += 1
        if best_x < 0:
            break
        mismatches += best_left + best_right - block_mismatches
        score = best
        if blocks == 1:
            begin = best_begin
            row[last] = along + begin
        row[last + 1] = along + best_x
        row[last + 3] = best_along + best_x
        row[last + 4] = best_along + best_end
        row[last + 5] = best_along
        end = best_end
        here, chosen = chosen, here
        blocks += 1
    here_is_first = blocks == 1
    while starts.size and score > 0 and blocks < MAX_BLOCKS and begin >= 3:
        along = row[FIRST_BLOCK + 2]
        if not here_is_first:
            compare(reads, lost, row_at, length, text, along, marks, here)
            here_is_first = True
        high = row[FIRST_BLOCK + 1] - along
        block_mismatches = _count_marks(marks, here, begin, high)
        without = score - ((high - begin) - (MISMATCH + 1) * block_mismatches)
        best, best_x, best_along, best_begin, best_end, best_left, best_right = score, -1, 0, 0, 0, 0, 0
        first = along + max(1, begin - NEAR_JUNCTION)
        if not _holds_edge(introns, first, along + begin + NEAR_JUNCTION):
            break
        i = signed(introns.end_of_block[first >> INTRON_BLOCK_SHIFT])
        while i < starts.size and ends[by_end[i]] < first:
            i += 1
        while i < starts.size and ends[by_end[i]] <= along + min(begin + NEAR_JUNCTION, high - 1):
            j = by_end[i]
            x = ends[j] - along
            if blocks == 1:
                right_score, right_end, right_mismatches = best_beginning(marks, here, x, length)
            else:
                right_end = high
                right_mismatches = _count_marks(marks, here, x, high)
                right_score = (high - x) - (MISMATCH + 1) * right_mismatches
            if right_score > 0:
                beyond = along - (ends[j] - starts[j])
                compare(reads, lost, row_at, length, text, beyond, marks, trial)
                left_score, left_begin, left_mismatches = best_ending(marks, trial, 0, x)
                if left_score > 0 and without + left_score + right_score - JUNCTION > best:
                    best = without + left_score + right_score - JUNCTION
                    best_x, best_along, best_begin, best_end = x, beyond, left_begin, right_end
                    best_left, best_right = left_mismatches, right_mismatches
                    _copy(marks, trial, chosen, stride)
            i += 1
        if best_x < 0:
            break
        mismatches += best_left + best_right - block_mismatches
        score = best
        if blocks == 1:
            end = best_end
            row[FIRST_BLOCK + 1] = along + end
        row[FIRST_BLOCK] = along + best_x
        for column in range(FIRST_BLOCK + 3 * blocks - 1, FIRST_BLOCK - 1, -1):
            row[column + 3] = row[column]
        begin = best_begin
        row[FIRST_BLOCK] = best_along + begin
        row[FIRST_BLOCK + 1] = best_along + best_x
        row[FIRST_BLOCK + 2] = best_along
        here, chosen = chosen, here
        blocks += 1
    row[SCORE] = score
    row[MISMATCHES] = mismatches
    row[FROM] = begin
    row[TO] = end
    row[BLOCKS] = blocks


@leaf
def text_code(text: Text, at: int) -> int:
    """Return the base at a place of the text, 4 where it is not known or outside."""
    code = 4
    if at >= 0 and at < (text.words.size - 1) * 32:
        place = np.uint64(at)
        if (text.unknown[place >> np.uint64(6)] >> (place & np.uint64(63))) & np.uint64(1) == np.uint64(0):
            code = signed(
                (text.words[place >> np.uint64(5)] >> ((place & np.uint64(31)) << np.uint64(1))) & np.uint64(3)
            )
    return code


@leaf
def align_gapped(
    reads: NDArray[np.uint64],
    lost: NDArray[np.uint64],
    row_at: int,
    length: int,
    text: Text,
    diagonal: int,
    cells: NDArray[np.int64],
    row: NDArray[np.int64],
) -> None:
    """Align a read with gaps, at most BAND bases off a diagonal; gap bases count as mismatches.

    Three scores per cell (match, gap in the read, gap in the text), each with where its path began and how many
    differences it has, so that no matrix is kept.

    Args:
        reads: As in `compare`, as are `lost`, `row_at`, `length` and `text`.
        lost: No-calls.
        row_at: First word of the read.
        length: Its bases.
        text: The genome.
        diagonal: Where the read's first base lies.
        cells: Scratch, int64, shape (6, 2 * BAND + 1): scores of the paths that end in a match, in text bases that the
            read lacks, in read bases that the text lacks; then what they carry.
        row: Out: the alignment; its block has the diagonal on which it begins.
    """
    width = 2 * BAND + 1
    low = -1_000_000
    # A path carries the read base that it began at << 32 | its band column << 16 | its differences.
    for column in range(width):
        for line in range(6):
            cells[line, column] = low if line < 3 else 0
    best, best_from, best_i, best_j = 0, 0, 0, 0
    for i in range(length):
        shift = np.uint64(2 * (i & 31))
        base = signed((reads[row_at + (i >> 5)] >> shift) & np.uint64(3))
        no_call = (lost[row_at + (i >> 5)] >> shift) & np.uint64(1) != np.uint64(0)
        # Row i holds cells whose last read base is i; column j is text base diagonal + i + j - BAND.
        left_match, left_skipped = low, low
        left_match_from, left_skipped_from = 0, 0
        for j in range(width):
            # Diagonal move: the same column of the row before (all three states).
            before, before_from = cells[0, j], cells[3, j]
            if cells[1, j] > before:
                before, before_from = cells[1, j], cells[4, j]
            if cells[2, j] > before:
                before, before_from = cells[2, j], cells[5, j]
            if before <= 0:
                before, before_from = 0, (i << 32) | (j << 16)
            equal = not no_call and text_code(text, diagonal + i + j - BAND) == base
            new_match = before + (1 if equal else -MISMATCH)
            new_match_from = before_from + (0 if equal else 1)
            # A read base more than the text: from column j + 1 of the row before.
            new_added, new_added_from = low, 0
            if j + 1 < width:
                new_added, new_added_from = cells[0, j + 1] - GAP_OPEN - GAP_EXTEND, cells[3, j + 1] + 1
                if cells[2, j + 1] - GAP_EXTEND > new_added:
                    new_added, new_added_from = cells[2, j + 1] - GAP_EXTEND, cells[5, j + 1] + 1
            # A text base more than the read: from column j - 1 of this row.
            new_skipped, new_skipped_from = left_match - GAP_OPEN - GAP_EXTEND, left_match_from + 1
            if left_skipped - GAP_EXTEND > new_skipped:
                new_skipped, new_skipped_from = left_skipped - GAP_EXTEND, left_skipped_from + 1
            left_match, left_match_from = new_match, new_match_from
            left_skipped, left_skipped_from = new_skipped, new_skipped_from
            cells[0, j], cells[3, j] = new_match, new_match_from
            cells[2, j], cells[5, j] = new_added, new_added_from
            cells[1, j], cells[4, j] = new_skipped, new_skipped_from
            if new_match > best:
                best, best_from, best_i, best_j = new_match, new_match_from, i, j
    begin = best_from >> 32
    column = (best_from >> 16) & 0xFFFF
    row[SCORE] = best
    row[MISMATCHES] = best_from & 0xFFFF
    row[FROM] = begin
    row[TO] = best_i + 1 if best > 0 else begin
    row[BLOCKS] = 1
    row[FIRST_BLOCK] = diagonal + begin + column - BAND
    row[FIRST_BLOCK + 1] = diagonal + best_i + best_j - BAND + 1 if best > 0 else row[FIRST_BLOCK]
    row[FIRST_BLOCK + 2] = diagonal + column - BAND


@leaf
def _most_named(places: NDArray[np.uint64], count: int) -> tuple[Any, int]:
    """Return the place that most seeds name, and how many seeds any other place may have at most.

    To those that name a place come those that name one near it on its strand, since an intron may join the two.
    Without a place, or with too many to look at quickly, the second number is so high that none can be accepted.
    """
    top = np.uint64(0)
    named = 255
    if 0 < count <= MOST_COMPARED:
        most = 0
        for a in range(count):
            votes = 0
            for b in range(count):
                votes += places[a] == places[b]
            if votes > most:
                most = votes
                top = places[a]
        named = 0
        for a in range(count):
            if places[a] != top:
                votes = 0
                for b in range(count):
                    away = abs(signed(places[a] >> np.uint64(1)) - signed(places[b] >> np.uint64(1)))
                    same_strand = (places[a] ^ places[b]) & np.uint64(1) == np.uint64(0)
                    votes += same_strand and away < LONGEST_INTRON
                named = max(named, votes)
    return top, named


@leaf
def check_candidates(
    reads: Reads,
    hits: Hits,
    text: Text,
    limits: Limits,
    found: Placements,
    open_reads: NDArray[np.int64],
    scratch: Scratch,
) -> int:
    """Accept reads whose few seeds name a place where they fit so well that no other place can be as good.

    Any other place differs from the read in every seed that was looked up and does not name it: in `hits.bounds` of
    them, less those that do.

    Args:
        reads: The batch.
        hits: What the few seeds name.
        text: The genome.
        limits: What is accepted.
        found: Out: UNIQUE or UNMAPPED, and where.
        open_reads: Out: rows of the reads that need another look, int64.
        scratch: Working space.

    Returns:
        How many reads need another look.
    """
    lengths, needed = reads.lengths, reads.needed
    places, most = hits.places.reshape(-1), np.uint64(hits.places.shape[1])
    marks = scratch.marks
    flat, flat_lost = reads.words.reshape(-1), reads.lost.reshape(-1)
    row_words, reverse_at = reads.words.shape[2], reads.words.shape[1] * reads.words.shape[2]
    n = np.uint64(lengths.size)
    last_word = np.uint64(text.words.size - 1)
    left = 0
    for r in range(n):
        if r % GROUP == np.uint64(0):
            for ahead in range(r, min(r + GROUP, n)):
                # Mostly the place that the read is compared with.
                word = min(places[ahead * most] >> np.uint64(6), last_word)
                prefetch(text.words, word)
                prefetch(text.words, min(word + (np.uint64(lengths[ahead]) >> np.uint64(5)), last_word))
        found.status[r] = UNMAPPED
        found.strands[r] = 0
        found.confidence[r] = 0
        length = signed(lengths[r])
        if length < signed(needed[r]):
            continue
        count = hits.counts[r]
        top, named = places[r * most], 0
        for h in range(np.uint64(1), np.uint64(count)):
            if places[r * most + h] != top:
                named = 255
        if named or count == 0:
            top, named = _most_named(places[r * most : (r + np.uint64(1)) * most], count)
        accepted = False
        if named < signed(hits.bounds[r]):
            strand = top & np.uint64(1)
            diagonal = signed(top >> np.uint64(1))
            row_at = signed(r) * row_words + (reverse_at if strand else 0)
            total = compare(flat, flat_lost, row_at, length, text, diagonal, marks, 0)
            margin = (MISMATCH + 1) * (signed(hits.bounds[r]) - named - total)
            if margin >= limits.score_difference and total <= limits.mismatch_rate * length:
                score, begin, end, mismatches = length, 0, length, 0
                if total:
                    score, begin, end, mismatches = best_stretch(marks, 0, 0, length)
                # A clip of three bases or more may be a junction's doing.
                if end - begin >= signed(needed[r]) and begin < 3 and length - end < 3:
                    accepted = True
                    found.status[r] = UNIQUE
                    found.strands[r] = np.uint8(strand)
                    found.confidence[r] = np.uint8(min(60, 20 * (margin // (MISMATCH + 1))))
                    row = found.rows[r]
                    row[SCORE], row[MISMATCHES], row[FROM], row[TO], row[BLOCKS] = score, mismatches, begin, end, 1
                    row[FIRST_BLOCK] = diagonal + begin
                    row[FIRST_BLOCK + 1] = diagonal + end
                    row[FIRST_BLOCK + 2] = diagonal
        if not accepted:
            open_reads[left] = signed(r)
            left += 1
    return left


@leaf
def _same_place(a: NDArray[np.int64], a_strand: int, b: NDArray[np.int64], b_strand: int) -> bool:
    """Tell whether two alignments are of one place: on one strand, an end or a diagonal within a few bases."""
    a_last, b_last = FIRST_BLOCK + 3 * a[BLOCKS] - 3, FIRST_BLOCK + 3 * b[BLOCKS] - 3
    near = abs(a[FIRST_BLOCK] - b[FIRST_BLOCK]) <= SAME_PLACE or abs(a[a_last + 1] - b[b_last + 1]) <= SAME_PLACE
    near |= abs(a[FIRST_BLOCK + 2] - b[FIRST_BLOCK + 2]) <= SAME_PLACE
    near |= abs(a[a_last + 2] - b[b_last + 2]) <= SAME_PLACE
    return a_strand == b_strand and near


@inlined_leaf
def _fits(row: NDArray[np.int64], needed: int, rate: float) -> bool:
    aligned = row[TO] - row[FROM]
    return bool(aligned >= needed and row[MISMATCHES] <= rate * aligned)


@leaf
def resolve(
    chosen: NDArray[np.int64],
    reads: Reads,
    hits: Hits,
    text: Text,
    introns: Introns,
    limits: Limits,
    placed: Placements,
    last: bool,
    scratch: Scratch,
) -> int:
    """Place reads by their seeds: every place named is aligned, the best wins if it is clearly the best.

    Args:
        chosen: In and out: rows of the reads, int64; those that stay open move to the front.
        reads: The batch.
        hits: What the seeds name.
        text: The genome.
        introns: Annotated introns.
        limits: What is accepted.
        placed: Out, in the chosen rows: UNIQUE or MULTIPLE, and where; UNMAPPED ones are left alone.
        last: Whether all seeds were looked up. Else only a place is accepted that no hidden one can match, no gaps are
            tried, and the rest stays open.
        scratch: Working space.

    Returns:
        How many reads stay open.
    """
    lengths, needed, places = reads.lengths, reads.needed, hits.places
    rate, least_difference = limits.mismatch_rate, limits.score_difference
    keys, votes, marks, cells = scratch.keys, scratch.votes, scratch.marks, scratch.cells
    best, trial = scratch.rows[0], scratch.rows[1]
    flat, flat_lost = reads.words.reshape(-1), reads.lost.reshape(-1)
    row_words, reverse_at = reads.words.shape[2], reads.words.shape[1] * reads.words.shape[2]
    left = 0
    for c in range(chosen.size):
        if c + 8 < chosen.size:
            for h in range(min(hits.counts[chosen[c + 8]], 4)):
                prefetch(text.words, places[chosen[c + 8], h] >> np.uint64(6))
        r = chosen[c]
        if not last:
            chosen[left] = r
            left += 1
        if hits.counts[r] == 0:
            continue
        length = signed(lengths[r])
        found = 0
        for h in range(hits.counts[r]):
            key = places[r, h]
            at = 0
            while at < found and keys[at] != key:
                at += 1
            if at < found:
                votes[at] += 1
            elif found < MAX_CANDIDATES:
                keys[found] = key
                votes[found] = 1
                found += 1
        tried = min(found, MAX_TRIED)
        for a in range(tried):  # the most voted to the front, ties by place
            top = a
            for b in range(a + 1, found):
                if votes[b] > votes[top] or (votes[b] == votes[top] and keys[b] < keys[top]):
                    top = b
            keys[a], keys[top] = keys[top], keys[a]
            votes[a], votes[top] = votes[top], votes[a]
        best[SCORE] = 0
        best_strand = 0
        interesting = signed(needed[r]) - int(rate * needed[r])
        second = 0
        # Where a repeat hides places, those that are seen are held against the best by their scores, not by bounds.
        by_score = last and limits.seen_difference > 0 and hits.repeats[r] > 0
        for gapped in range(2):
            if gapped == 1 and (not last or (best[SCORE] > 0 and _fits(best, signed(needed[r]), rate))):
                break
            for a in range(tried if gapped == 0 else min(tried, 4)):
                strand = signed(keys[a] & np.uint64(1))
                diagonal = signed(keys[a] >> np.uint64(1))
                row_at = r * row_words + (reverse_at if strand else 0)
                if gapped == 0:
                    covered = False
                    if best[SCORE] > 0 and strand == best_strand:
                        for b in range(best[BLOCKS]):
                            covered |= best[FIRST_BLOCK + 3 * b + 2] == diagonal
                    if covered:
                        continue
                    least = interesting
                    if not by_score and best[SCORE] > 0 and _fits(best, signed(needed[r]), rate):
                        least = max(least, best[SCORE] - least_difference + 1)
                        # A place differs from the read in every seed that does not name it, or a place near it that
                        # an intron may join to it.
                        named = 0
                        for b in range(found):
                            if (keys[b] ^ keys[a]) & np.uint64(1) == np.uint64(0):
                                away = abs(signed(keys[b] >> np.uint64(1)) - diagonal)
                                named += votes[b] if away < LONGEST_INTRON else 0
                        ceiling = length - (MISMATCH + 1) * max(0, signed(hits.bounds[r]) - named)
                        if best[SCORE] - ceiling >= least_difference:
                            second = max(second, ceiling)
                            continue
                    align_at(flat, flat_lost, row_at, length, text, introns, diagonal, least, marks, trial)
                else:
                    align_gapped(flat, flat_lost, row_at, length, text, diagonal, cells, trial)
                if trial[SCORE] <= 0:
                    continue
                if trial[BLOCKS] == 0:
                    if least > interesting:
                        second = max(second, trial[SCORE])
                    continue
                same = best[SCORE] > 0 and _same_place(best, best_strand, trial, strand)
                if trial[SCORE] > best[SCORE]:
                    if not same:
                        second = max(second, best[SCORE])
                    _copy_row(trial, best)
                    best_strand = strand
                elif not same:
                    second = max(second, trial[SCORE])
        if best[SCORE] <= 0 or not _fits(best, signed(needed[r]), rate):
            continue
        seen = best[SCORE] - second
        margin = seen
        if not last or hits.repeats[r]:
            hidden = (best[TO] - best[FROM]) - (MISMATCH + 1) * signed(hits.bounds[r])
            margin = min(margin, best[SCORE] - hidden)
        if not last:
            if margin < least_difference:
                continue
            left -= 1
        placed.strands[r] = np.uint8(best_strand)
        _copy_row(best, placed.rows[r])
        far_from_hidden = hits.repeats[r] < 2 and signed(hits.bounds[r]) >= LEAST_BOUND
        if margin >= least_difference and (not last or hits.repeats[r] < 2):
            placed.status[r] = UNIQUE
            placed.confidence[r] = np.uint8(min(60, 20 * (margin // (MISMATCH + 1))))
        elif limits.seen_difference and seen >= limits.seen_difference and far_from_hidden:
            placed.status[r] = UNIQUE
            placed.confidence[r] = np.uint8(SEEN_CONFIDENCE)
        else:
            placed.status[r] = MULTIPLE
    return left
