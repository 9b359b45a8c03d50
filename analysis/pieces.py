"""Pieces of a read: the stretches in which it lies on the genome without a gap, so that each base has its place.

Placing a read names one line, the place of its first base; base i lies i bases along it only while no gap comes before.
Here the few reads of which single bases are asked are taken apart:

* A read that was aligned over a gap or a junction lies on two lines. It changes from one to the other where most of its
  bases fit; where several changes fit equally well, the bases between them have no place.
* What was clipped off is looked for within ``BAND`` bases of the line: an insertion or deletion is mostly the cause.
* A clip of up to ``END_CLIP`` bases is no clip: local alignment drops the last bases of a read wherever one of the last
  two differs, and with them the very alleles that are looked for. (bwa mem's clipping penalty does the same.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.alignment import BAND, MISMATCH, text_code
from cartoseq.analysis.leaf import leaf
from cartoseq.analysis.packed import Text, signed

MAX_PIECES = 3
END_CLIP = 3
LEAST_SCORE = 12
"""Least score (+1 a match, -2 a mismatch) of a clipped stretch beside its line: by chance it is rarely reached."""
MISMATCHES_OF_TEN = 1
"""A read on two lines fits them but for so many of ten bases; else it lies on more than two."""

# Columns of a piece: its first base in the template, one beyond its last, and where the template's first base would
# lie on its line.
BEGIN, END, LINE = 0, 1, 2


@leaf
def last_called(calls: NDArray[np.uint8], read: Any) -> int:
    """The number of bases up to the last one that was called.

    Args:
        calls: BCL bytes of the template, shape (bases, clusters).
        read: The cluster.
    """
    length: int = calls.shape[0]
    while length > 0 and calls[length - 1, read] == np.uint8(0):
        length -= 1
    return length


@leaf
def _fits(calls: NDArray[np.uint8], read: Any, base: int, reverse: int, line: int, text: Text) -> bool:
    """Whether a base of a read is the genome's where it would lie on a line."""
    call = calls[base, read]
    code = signed(call & np.uint8(3))
    place = line - base if reverse else line + base
    return call != np.uint8(0) and text_code(text, place) == (3 - code if reverse else code)


@leaf
def _look_beside(
    calls: NDArray[np.uint8],
    read: Any,
    begin: int,
    end: int,
    reverse: int,
    line: int,
    text: Text,
    piece: NDArray[np.int64],
) -> None:
    """Find a clipped stretch [begin, end) beside the line; a piece without bases if there is none, or two."""
    most, second = 0, 0
    for shift in range(-BAND, BAND + 1):
        if shift == 0:
            continue
        score, start, best, best_from, best_to = 0, begin, 0, begin, begin
        for base in range(begin, end):
            score += 1 if _fits(calls, read, base, reverse, line + shift, text) else -MISMATCH
            if score <= 0:
                score, start = 0, base + 1
            elif score > best:
                best, best_from, best_to = score, start, base + 1
        if best > most:
            most, second = best, most
            piece[BEGIN], piece[END], piece[LINE] = best_from, best_to, line + shift
        elif best > second:
            second = best
    if most < LEAST_SCORE or most == second:
        piece[BEGIN], piece[END] = 0, 0


@leaf
def _change_lines(
    calls: NDArray[np.uint8],
    read: Any,
    begin: int,
    end: int,
    reverse: int,
    near: int,
    far: int,
    text: Text,
    pieces: NDArray[np.int64],
) -> None:
    """Part a read that begins on one line and ends on another; no pieces if it does not fit the two."""
    fitting = 0
    for base in range(begin, end):
        fitting += _fits(calls, read, base, reverse, far, text)
    most, first, last = fitting, begin, begin
    for base in range(begin, end):
        fitting += _fits(calls, read, base, reverse, near, text)
        fitting -= _fits(calls, read, base, reverse, far, text)
        if fitting > most:
            most, first, last = fitting, base + 1, base + 1
        elif fitting == most:
            last = base + 1
    if 10 * (end - begin - most) <= MISMATCHES_OF_TEN * (end - begin):
        pieces[0, BEGIN], pieces[0, END], pieces[0, LINE] = begin, first, near
        pieces[1, BEGIN], pieces[1, END], pieces[1, LINE] = last, end, far


@leaf
def pieces_of_read(
    calls: NDArray[np.uint8],
    read: Any,
    near: int,
    far: int,
    reverse: int,
    aligned_from: int,
    aligned_to: int,
    text: Text,
    pieces: NDArray[np.int64],
) -> None:
    """Take one read apart.

    Args:
        calls: BCL bytes of the template, shape (bases, clusters).
        read: The cluster.
        near: Where its first base lies, judged by its first aligned base.
        far: The same, judged by its last aligned base.
        reverse: 1 where it lies on the reverse strand: base i at near - i.
        aligned_from: First aligned base.
        aligned_to: One beyond the last.
        text: The genome.
        pieces: Out: int64, shape (MAX_PIECES, 3); those not needed end at 0.
    """
    for i in range(MAX_PIECES):
        pieces[i, BEGIN], pieces[i, END], pieces[i, LINE] = 0, 0, 0
    length = last_called(calls, read)
    if near != far:
        _change_lines(calls, read, aligned_from, aligned_to, reverse, near, far, text, pieces)
        return
    pieces[0, BEGIN], pieces[0, END], pieces[0, LINE] = aligned_from, aligned_to, near
    if aligned_from <= END_CLIP:
        pieces[0, BEGIN] = 0
    else:
        _look_beside(calls, read, 0, aligned_from, reverse, near, text, pieces[1])
        if pieces[1, END] > 0 and pieces[1, BEGIN] <= END_CLIP:
            pieces[1, BEGIN] = 0
    if length - aligned_to <= END_CLIP:
        pieces[0, END] = max(length, aligned_to)
    else:
        _look_beside(calls, read, aligned_to, length, reverse, near, text, pieces[2])
        if pieces[2, END] > 0 and length - pieces[2, END] <= END_CLIP:
            pieces[2, END] = length
