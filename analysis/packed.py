"""What the kernels of placing pass to each other: packed text, introns, packed reads, hits and alignments.

Named tuples of arrays: numba takes them as they are, and a kernel's signature stays readable.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Text(NamedTuple):
    """The genome: 2 bits a base (A0 C1 G2 T3), the first base least significant.

    Attributes:
        words: 32 bases a word, uint64.
        unknown: One bit per base, set where the base is not known, uint64.
        unknown_blocks: 1 for each block of 1,024 bases that holds an unknown base, uint8.
    """

    words: NDArray[np.uint64]
    unknown: NDArray[np.uint64]
    unknown_blocks: NDArray[np.uint8]


class Introns(NamedTuple):
    """Annotated introns in the text, half-open.

    Attributes:
        starts: Ascending, int64.
        ends: The end of each, int64.
        by_end: Their order by end, int64.
        start_of_block: First intron that starts in each block of 2,048 bases or later, uint32.
        end_of_block: First in `by_end` that ends there or later, uint32.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    by_end: NDArray[np.int64]
    start_of_block: NDArray[np.uint32]
    end_of_block: NDArray[np.uint32]


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
    """

    mismatch_rate: float
    score_difference: int


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
