"""GC strata: how many fragments begin where the genome has so much G and C, and how many places there are.

Amplification and sequencing favour some composition, differently in every library, so a copy number must be held
against what the run itself shows: fragments per place, by the percentage of G and C in the ``fragment_bp`` bases of
the genome from the fragment's 5' end on (Benjamini and Speed 2012, who count fragments by their own GC). Everything
here is derived from the exact set of molecules when the maps are drawn; no state is kept.

A stretch of which less than half is known has no stratum, and is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.bitcount import count_bits
from cartoseq.analysis.molecules import Molecules
from cartoseq.analysis.packed import Text, signed, window
from cartoseq.analysis.reference import Reference
from cartoseq.analysis.windows import Windows
from cartoseq.streaming.kernel import kernel

STRATA: Final = 101
"""One for each percent of G and C."""
COARSE: Final = 21
"""Strata of a window: five percent each, the last is 100 %."""
COARSE_PERCENT: Final = 5
MOST_FRAGMENT_BP: Final = 500
"""So that a stretch ends within the unknown bases around a contig."""
PLACE_STEP: Final = 32
"""Every so many bases, a place of the genome is counted."""
_NONE: Final = 255


@dataclass(frozen=True)
class GcStrata:
    """Fragments and places by their GC.

    Attributes:
        fragment_bp: Bases of the genome, from a fragment's 5' end on, whose GC is meant.
        place_step: Of the genome's places, every so many-th was counted.
        fragments: Fragments of each percent, uint64, shape (STRATA,).
        places: Places of each percent, uint64, shape (STRATA,).
        window_fragments: Fragments of each window by coarse strata, uint32, shape (windows, COARSE).
        window_places: Places of each window by coarse strata, uint32, shape (windows, COARSE).
    """

    fragment_bp: int
    place_step: int
    fragments: NDArray[np.uint64]
    places: NDArray[np.uint64]
    window_fragments: NDArray[np.uint32]
    window_places: NDArray[np.uint32]


def genome_strata(reference: Reference, windows: Windows, fragment_bp: int) -> GcStrata:
    """Count the places of a genome; there are no fragments yet.

    Args:
        reference: The genome.
        windows: Its windows.
        fragment_bp: Bases of a stretch, at most MOST_FRAGMENT_BP.
    """
    places = np.zeros(STRATA, np.uint64)
    window_places = np.zeros((windows.ids.size, COARSE), np.uint32)
    for offset, length in zip(reference.contig_offsets.tolist(), reference.contig_lengths.tolist(), strict=True):
        at = np.arange(offset, offset + length, PLACE_STEP, dtype=np.uint64)
        _count(_strata_of(at, np.zeros(at.size, np.uint8), reference, fragment_bp), at, windows, places, window_places)
    empty = np.zeros_like(places), np.zeros_like(window_places)
    return GcStrata(fragment_bp, PLACE_STEP, empty[0], places, empty[1], window_places)


def add_fragments(
    strata: GcStrata, molecules: Molecules, reference: Reference, windows: Windows, position_bits: int
) -> None:
    """Count fragments into strata.

    Args:
        strata: In and out: its counts of fragments.
        molecules: The fragments, whose features are ``strand << position_bits | position``.
        reference: The genome.
        windows: Its windows.
        position_bits: Bits of a position.
    """
    mask = np.uint64((1 << position_bits) - 1)
    features = molecules.features.astype(np.uint64)
    at, strands = features & mask, (features >> np.uint64(position_bits)).astype(np.uint8)
    percents = _strata_of(at, strands, reference, strata.fragment_bp)
    _count(percents, at, windows, strata.fragments, strata.window_fragments)


def _strata_of(
    at: NDArray[np.uint64], strands: NDArray[np.uint8], reference: Reference, fragment_bp: int
) -> NDArray[np.uint8]:
    """The percentage of G and C from each place on, uint8; 255 where too little is known."""
    percents = np.empty(at.size, np.uint8)
    text = Text(reference.text, reference.unknown, reference.unknown_blocks)
    gc_percents(at, strands, fragment_bp, text, percents)
    return percents


def _count(
    percents: NDArray[np.uint8],
    at: NDArray[np.uint64],
    windows: Windows,
    strata: NDArray[np.uint64],
    window_strata: NDArray[np.uint32],
) -> None:
    known = percents != _NONE
    percents, at = percents[known], at[known]
    strata += np.bincount(percents, minlength=STRATA).astype(np.uint64)
    count_in_windows(windows.windows_of(at), percents, window_strata)


@kernel
def count_in_windows(
    windows: NDArray[np.uint32], percents: NDArray[np.uint8], window_strata: NDArray[np.uint32]
) -> None:
    """Add one for each window and percentage.

    Args:
        windows: uint32, shape (n,).
        percents: 0 to 100, uint8, shape (n,).
        window_strata: In and out: uint32, shape (windows, COARSE).
    """
    for i in range(windows.size):
        window_strata[windows[i], percents[i] // np.uint8(COARSE_PERCENT)] += np.uint32(1)


@kernel
def gc_percents(
    at: NDArray[np.uint64], strands: NDArray[np.uint8], bases: int, text: Text, percents: NDArray[np.uint8]
) -> None:
    """Write the percentage of G and C in the stretch that begins at each place.

    Args:
        at: Global positions, uint64, shape (n,).
        strands: 1 where the stretch lies before its place, on the reverse strand; uint8.
        bases: Bases of the stretch, the place's own included.
        text: The genome.
        percents: Out: 0 to 100, half and more rounded up; 255 where less than half of the bases is known.
    """
    ones = np.uint64(0x5555555555555555)
    one = np.uint64(1)
    end_of_text = (text.words.size - 2) * 32
    for i in range(at.size):
        first = signed(at[i])
        if strands[i]:
            first -= bases - 1
        if first < 0 or first + bases > end_of_text:
            percents[i] = np.uint8(_NONE)
            continue
        low, high = np.uint64(first) >> np.uint64(10), np.uint64(first + bases) >> np.uint64(10)
        uncertain = (
            (text.unknown_blocks[low >> np.uint64(6)] >> (low & np.uint64(63)))
            | (text.unknown_blocks[high >> np.uint64(6)] >> (high & np.uint64(63)))
        ) & one
        strong, known = 0, bases
        for step in range(0, bases, 32):
            here = np.uint64(first + step)
            # G and C are the codes whose two bits differ.
            marks = window(text.words, here)
            marks = (marks ^ (marks >> one)) & ones
            if bases - step < 32:
                marks &= (one << np.uint64(2 * (bases - step))) - one
            if uncertain:
                for j in range(min(32, bases - step)):
                    place = here + np.uint64(j)
                    if (text.unknown[place >> np.uint64(6)] >> (place & np.uint64(63))) & one:
                        known -= 1
                        marks &= ~(one << np.uint64(2 * j))
            strong += signed(count_bits(marks))
        percents[i] = np.uint8(_NONE) if 2 * known < bases else np.uint8((200 * strong + known) // (2 * known))
