"""Which gene an aligned read counts for.

A gene is *exonic* for a read if at least half of the aligned bases lie in its exons (the rule of SAW), and *spanned*
if at least half lie between its ends. One exonic gene on the read's strand: the read is its. Two: neither's.
None exonic, one spanned on the read's strand: intronic. Otherwise, a spanned gene on the other strand: antisense.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.leaf import leaf
from cartoseq.analysis.lowlevel import prefetch
from cartoseq.analysis.packed import Genes, Scratch, signed

ASSIGNED, MULTI_GENE, ANTISENSE, INTRONIC, INTERGENIC, MULTI_MAPPED, UNMAPPED = 0, 1, 2, 3, 4, 5, 6
"""Verdicts of a template, as in the counts of a run."""
NO_GENE = 0xFFFFFFFF
FORWARD, REVERSE, UNSTRANDED = 0, 1, 2
MAX_GENES = 32
"""Genes considered for one read; a read in more is MULTI_GENE."""

_SCORE, _FROM, _TO, _BLOCKS, _FIRST_BLOCK = 0, 2, 3, 4, 5
_MISMATCHES = 1
_BLOCK_SHIFT = 7
_GROUP = np.uint64(32)


@leaf
def _fetch_segments(
    status: NDArray[np.uint8],
    rows: NDArray[np.int64],
    in_text: Genes,
    first: Any,
) -> None:
    """Ask memory for what `call_genes` will look at for a group of reads: one step for all of them, then the next."""
    segments, entries, segment_of_block = in_text.segments, in_text.entries, in_text.segment_of_block
    end = min(first + _GROUP, np.uint64(status.size))
    for r in range(first, end):
        if status[r] == 1:
            prefetch(segment_of_block, rows[r, _FIRST_BLOCK] >> _BLOCK_SHIFT)
    for r in range(first, end):
        if status[r] == 1:
            segment = np.uint64(segment_of_block[np.uint64(rows[r, _FIRST_BLOCK] >> _BLOCK_SHIFT)])
            prefetch(segments, segment << np.uint64(1))
    for r in range(first, end):
        if status[r] == 1:
            segment = np.uint64(segment_of_block[np.uint64(rows[r, _FIRST_BLOCK] >> _BLOCK_SHIFT)])
            prefetch(entries, segments[segment, 1])


@leaf
def call_genes(
    status: NDArray[np.uint8],
    strands: NDArray[np.uint8],
    rows: NDArray[np.int64],
    in_text: Genes,
    library_strand: int,
    verdicts: NDArray[np.uint8],
    genes: NDArray[np.uint32],
    scratch: Scratch,
) -> None:
    """Give each placed read its verdict and gene.

    Args:
        status: 0 unmapped, 1 one place, 2 several, shape (n,).
        strands: 1 where the read's reverse complement was aligned.
        rows: Alignments, shape (n, columns of `alignment`).
        in_text: Where genes lie.
        library_strand: FORWARD if reads lie as their transcript, REVERSE if opposite, UNSTRANDED.
        verdicts: Out, shape (n,).
        genes: Out: gene of ASSIGNED and INTRONIC reads, else NO_GENE.
        scratch: Working space.
    """
    segments, entries, segment_of_block = in_text.segments, in_text.entries, in_text.segment_of_block
    seen, exonic, spanned = scratch.genes[0], scratch.genes[1], scratch.genes[2]
    one = np.uint64(1)
    n = np.uint64(status.size)
    flip = 1 if library_strand == REVERSE else 0
    for r in range(n):
        if r % _GROUP == np.uint64(0):
            _fetch_segments(status, rows, in_text, np.uint64(r))
        genes[r] = NO_GENE
        if status[r] != 1:
            verdicts[r] = UNMAPPED if status[r] == 0 else MULTI_MAPPED
            continue
        begin, end = rows[r, _FIRST_BLOCK], rows[r, _FIRST_BLOCK + 1]
        segment = np.uint64(segment_of_block[begin >> _BLOCK_SHIFT])
        while segments[segment + one, 0] <= begin:
            segment += one
        first_entry, next_entry = segments[segment, 1], segments[segment + one, 1]
        if rows[r, _BLOCKS] == 1 and end <= segments[segment + one, 0] and next_entry - first_entry <= 1:
            # Most reads: all of it in one segment of one gene, or of none.
            verdicts[r] = INTERGENIC
            if next_entry > first_entry:
                entry = signed(entries[first_entry])
                if library_strand != UNSTRANDED and ((entry >> 1) & 1) != signed(strands[r]) ^ flip:
                    verdicts[r] = ANTISENSE
                else:
                    verdicts[r] = ASSIGNED if entry & 1 else INTRONIC
                    genes[r] = np.uint32(entry >> 2)
            continue
        count = 0
        total = 0
        overfull = False
        for b in range(rows[r, _BLOCKS]):
            begin, end = rows[r, _FIRST_BLOCK + 3 * b], rows[r, _FIRST_BLOCK + 3 * b + 1]
            total += end - begin
            segment = np.uint64(segment_of_block[begin >> _BLOCK_SHIFT])
            while segments[segment + one, 0] <= begin:
                segment += one
            while segments[segment, 0] < end:
                overlap = min(end, segments[segment + one, 0]) - max(begin, segments[segment, 0])
                for e in range(segments[segment, 1], segments[segment + one, 1]):
                    key = signed(entries[e] >> np.uint64(1))
                    at = 0
                    while at < count and seen[at] != key:
                        at += 1
                    if at == count:
                        if count == MAX_GENES:
                            overfull = True
                            continue
                        seen[at] = key
                        exonic[at] = 0
                        spanned[at] = 0
                        count += 1
                    spanned[at] += overlap
                    if entries[e] & np.uint64(1):
                        exonic[at] += overlap
                segment += one
        sense_exonic, sense_spanned, antisense = 0, 0, 0
        exonic_gene, spanned_gene = np.int64(NO_GENE), np.int64(NO_GENE)
        for at in range(count):
            if 2 * spanned[at] < total:
                continue
            strand = signed(strands[r]) ^ flip
            if library_strand != UNSTRANDED and (seen[at] & 1) != strand:
                antisense += 1
                continue
            sense_spanned += 1
            spanned_gene = seen[at] >> 1
            if 2 * exonic[at] >= total:
                sense_exonic += 1
                exonic_gene = seen[at] >> 1
        if overfull or sense_exonic > 1 or (sense_exonic == 0 and sense_spanned > 1):
            verdicts[r] = MULTI_GENE
        elif sense_exonic == 1:
            verdicts[r] = ASSIGNED
            genes[r] = np.uint32(exonic_gene)
        elif sense_spanned == 1:
            verdicts[r] = INTRONIC
            genes[r] = np.uint32(spanned_gene)
        elif antisense:
            verdicts[r] = ANTISENSE
        else:
            verdicts[r] = INTERGENIC


@leaf
def call_places(status: NDArray[np.uint8], verdicts: NDArray[np.uint8], genes: NDArray[np.uint32]) -> None:
    """Give each placed read its verdict where no genes are asked for.

    Args:
        status: 0 unmapped, 1 one place, 2 several, shape (n,).
        verdicts: Out, shape (n,).
        genes: Out: NO_GENE.
    """
    for r in range(np.uint64(status.size)):
        verdicts[r] = ASSIGNED if status[r] == 1 else MULTI_MAPPED if status[r] == 2 else UNMAPPED
        genes[r] = NO_GENE


@leaf
def describe(
    status: NDArray[np.uint8],
    strands: NDArray[np.uint8],
    rows: NDArray[np.int64],
    lengths: NDArray[np.uint16],
    heads: NDArray[np.uint16],
    positions: NDArray[np.uint64],
    far_positions: NDArray[np.uint64],
    mismatches: NDArray[np.uint8],
    aligned_from: NDArray[np.uint16],
    aligned_to: NDArray[np.uint16],
) -> None:
    """Write where each placed read lies.

    Args:
        status: 0 unmapped, else placed, shape (n,).
        strands: 1 where the read's reverse complement was aligned.
        rows: Alignments.
        lengths: Bases of each trimmed read.
        heads: Bases cut off its front.
        positions: Out: global position of the read's first base, were it aligned.
        far_positions: Out: the same, counted from the last aligned base.
        mismatches: Out: substitutions and gap bases, at most 255.
        aligned_from: Out: first aligned base of the read, counted from the template's first.
        aligned_to: Out: one beyond the last.
    """
    for r in range(status.size):
        if status[r] == 0:
            positions[r] = 0
            far_positions[r] = 0
            mismatches[r] = 0
            aligned_from[r] = 0
            aligned_to[r] = 0
            continue
        length, head = signed(lengths[r]), signed(heads[r])
        begin, end = rows[r, _FROM], rows[r, _TO]
        mismatches[r] = np.uint8(min(rows[r, _MISMATCHES], 255))
        first, last = rows[r, _FIRST_BLOCK], rows[r, _FIRST_BLOCK + 3 * rows[r, _BLOCKS] - 2]
        if strands[r]:
            positions[r] = np.uint64(last - end + length - 1 + head)
            far_positions[r] = np.uint64(first - begin + length - 1 + head)
            aligned_from[r] = np.uint16(head + length - end)
            aligned_to[r] = np.uint16(head + length - begin)
        else:
            positions[r] = np.uint64(first - begin - head)
            far_positions[r] = np.uint64(last - end - head)
            aligned_from[r] = np.uint16(head + begin)
            aligned_to[r] = np.uint16(head + end)
