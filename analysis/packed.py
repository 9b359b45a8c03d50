"""What the kernels of placing pass to each other: packed text, introns, packed reads, hits and alignments.

Named tuples of arrays: numba takes them as they are, and a kernel's signature stays readable.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.leaf import inlined_leaf


class Text(NamedTuple):
    """The genome: 2 bits a base (A0 C1 G2 T3), the first base least significant.

    Attributes:
        words: 32 bases a word, uint64.
        unknown: One bit per base, set where the base is not known, uint64.
        unknown_blocks: One bit for each block of 1,024 bases, set if it holds an unknown base, uint64.
    """

    words: NDArray[np.uint64]
    unknown: NDArray[np.uint64]
    unknown_blocks: NDArray[np.uint64]


class Introns(NamedTuple):
    """Annotated introns in the text, half-open.

    Attributes:
        starts: Ascending, int64.
        ends: The end of each, int64.
        by_end: Their order by end, int64.
        start_of_block: First intron that starts in each block of 2,048 bases or later, uint32.
        end_of_block: First in `by_end` that ends there or later, uint32.
        edges: One bit per 128 bases, set where an intron starts or ends among them, uint64.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    by_end: NDArray[np.int64]
    start_of_block: NDArray[np.uint32]
    end_of_block: NDArray[np.uint32]
    edges: NDArray[np.uint64]


class Reads(NamedTuple):
    """A batch of packed reads; only the first `lengths.size` rows are in use.

    Attributes:
        words: Reads and their reverse complements, uint64, shape (2, rows, words).
        lost: Their no-calls, 01 per base, the same shape.
        lengths: Bases of each, uint16.
        needed: Bases of each that must align, uint16.
    """

    words: NDArray[np.uint64]
    lost: NDArray[np.uint64]
    lengths: NDArray[np.uint16]
    needed: NDArray[np.uint16]


class Hits(NamedTuple):
    """Where the seeds of each read say that it lies.

    Attributes:
        places: diagonal * 2 + strand of each hit: where the first base of the read (strand 1: of its reverse
            complement) would lie; uint64, shape (rows, most hits).
        counts: Hits of each read, int64.
        bounds: Seeds that neither overlap nor are repeats: a place that none of them names differs from the read so
            many times, uint8.
        repeats: 1 where a seed is a repeat whose list is cut, 2 where there is no hit but from such, uint8.
    """

    places: NDArray[np.uint64]
    counts: NDArray[np.int64]
    bounds: NDArray[np.uint8]
    repeats: NDArray[np.uint8]


class Limits(NamedTuple):
    """What is accepted.

    Attributes:
        mismatch_rate: Most mismatches per aligned base.
        score_difference: Least score by which the best place beats any other.
        aligned_share: Share of a read's bases that must align.
        aligned_least: Least bases that must align.
        seen_difference: Least score by which the best place beats all that were seen where repeats may hide others; 0:
            such reads have no place.
    """

    mismatch_rate: float
    score_difference: int
    aligned_share: float
    aligned_least: int
    seen_difference: int


class Trimming(NamedTuple):
    """What ends a template, or is cut off its front.

    Attributes:
        adapters: Codes of each adapter, uint8, shape (adapters, 32).
        adapter_bases: How many of them count, int64, shape (adapters,).
        adapter_overlap: Least bases of an adapter at the template's end.
        adapter_mismatch_rate: Mismatches allowed per compared base.
        run: Bases of a run of A or T that are a tail.
        run_mismatches: Others allowed in it.
        tails: Whether a run of A ends a read.
        heads: Whether a run of T is cut off the front.
    """

    adapters: NDArray[np.uint8]
    adapter_bases: NDArray[np.int64]
    adapter_overlap: int
    adapter_mismatch_rate: float
    run: int
    run_mismatches: int
    tails: bool
    heads: bool


class Genes(NamedTuple):
    """Where genes and exons lie in the text.

    Attributes:
        segments: Global position where each segment starts, and its first entry; one more at the end; int64, shape
            (segments + 1, 2).
        entries: gene * 4 + strand * 2 + exonic of each gene in a segment, uint64.
        segment_of_block: Segment of each 128th base, uint32.
    """

    segments: NDArray[np.int64]
    entries: NDArray[np.uint64]
    segment_of_block: NDArray[np.uint32]


class Placements(NamedTuple):
    """Where reads were placed.

    Attributes:
        status: UNMAPPED, UNIQUE or MULTIPLE of `alignment`, uint8.
        strands: 1 where the reverse complement was aligned, uint8.
        confidence: 0-60, uint8.
        rows: Alignments, int64, shape (rows, alignment.ROW).
    """

    status: NDArray[np.uint8]
    strands: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    rows: NDArray[np.int64]


class Scratch(NamedTuple):
    """Working space of the kernels, so that they need allocate nothing.

    Attributes:
        bytes_: For packing four bases a byte, uint8, shape (2, 8, rows).
        run: For runs of one base, uint64, a word more than a read has.
        few: Hashes of the first seeds of a group of reads, uint64, shape (GROUP, FEW).
        few_offsets: Where they lie in the reads, int64, the same shape.
        few_slots: Their slots of the seed table, uint64, the same shape.
        seeds: Hashes of all seeds of a few reads, uint64, shape (ALL_GROUP, bases).
        offsets: Where they lie, int64, the same shape.
        slots: Their slots of the seed table, uint64, the same shape.
        marks: Mismatches, uint64, three times the words of a read.
        keys: Places to try, uint64.
        votes: Seeds that name them, int64.
        rows: Two alignments, int64, shape (2, ROW).
        cells: For gapped alignment, int64, shape (6, 2 * BAND + 1).
        genes: Genes of a read, with their exonic and spanned bases, int64, shape (3, MAX_GENES).
    """

    bytes_: NDArray[np.uint8]
    run: NDArray[np.uint64]
    few: NDArray[np.uint64]
    few_offsets: NDArray[np.int64]
    few_slots: NDArray[np.uint64]
    seeds: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    slots: NDArray[np.uint64]
    marks: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    votes: NDArray[np.int64]
    rows: NDArray[np.int64]
    cells: NDArray[np.int64]
    genes: NDArray[np.int64]


@inlined_leaf
def signed(number: Any) -> int:
    """Return an unsigned number as a signed one: numba's int() leaves it unsigned, and mixing the two makes a float."""
    return int(np.int64(number))


@inlined_leaf
def window(words: NDArray[np.uint64], at: np.uint64) -> np.uint64:
    """Return the 32 bases from `at` on; one word beyond the last is read."""
    word = at >> np.uint64(5)
    shift = (at & np.uint64(31)) << np.uint64(1)
    high = (words[word + np.uint64(1)] << (np.uint64(63) - shift)) << np.uint64(1)
    both: np.uint64 = (words[word] >> shift) | high
    return both
