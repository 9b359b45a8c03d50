"""Rehearsals: steps of the fold on nothing at all, which compile the kernels of a first start.

``python -m cartoseq.analysis.rehearsal STEP`` does one step, in a process of its own beside the one that will need its
kernels. That one finds them on disk or, while they are still being compiled, waits for them (`streaming.kernel`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from cartoseq.analysis import alignment, genecall, kmerindex
from cartoseq.analysis.assign import AssignSettings, arrays_of, assign, assign_reads, make_batch, rules_of
from cartoseq.analysis.kmerindex import EMPTY, KmerIndex
from cartoseq.analysis.molecules import MoleculeSet
from cartoseq.analysis.narrowtable import add_narrow
from cartoseq.analysis.packed import Placements
from cartoseq.analysis.reference import Reference
from cartoseq.streaming.kernel import compile_inner, is_kept

_BASES = 100


def place() -> None:
    """Place no reads at all: half of all compiling, and one kernel."""
    assign(np.zeros((_BASES, 0), np.uint8), _empty_reference(), AssignSettings())


def count_and_align() -> None:
    """Count a molecule; then compile the stages of placing from the last to the first, until the two steps meet."""
    molecules = MoleculeSet(feature_bits=16, mid_bits=20)
    molecules.add(np.zeros(1, np.uint32), np.zeros(1, np.uint64), np.zeros(1, np.uint64))
    reference = _empty_reference()
    text, introns, genes = arrays_of(reference)
    batch, rules = make_batch(_BASES, 1), rules_of(AssignSettings())
    reads, rows, chosen, scratch = batch.reads, batch.rows, batch.open_reads, batch.scratch
    bytes_, numbers = np.zeros(1, np.uint8), np.zeros(1, np.uint16)
    placed = Placements(batch.status, bytes_, bytes_, rows)
    compile_inner(
        genecall.call_genes, batch.status, bytes_, rows, genes, rules.strand, bytes_, np.zeros(1, np.uint32), scratch
    )
    positions = np.zeros(1, np.uint64)
    compile_inner(
        genecall.describe, batch.status, bytes_, rows, numbers, numbers, positions, positions, bytes_, numbers, numbers
    )
    compile_inner(alignment.resolve, chosen, reads, batch.few, text, introns, rules.limits, placed, False, scratch)
    compile_inner(kmerindex.all_seeds, chosen, reads, reference.index, introns, batch.every, scratch)
    compile_inner(alignment.check_candidates, reads, batch.few, text, rules.limits, placed, chosen, scratch)


_STEPS: dict[str, tuple[Callable[[], None], Callable[..., Any]]] = {
    "place": (place, assign_reads),
    "count": (count_and_align, add_narrow),
}


def missing_steps() -> list[str]:
    """The steps whose kernels are not on disk, the longest first: known by a kernel of each."""
    return [name for name, (_, last) in _STEPS.items() if not is_kept(last)]


def _empty_reference() -> Reference:
    """A genome without a base that is known; its arrays are of the same kinds as those of any other."""
    none = np.zeros(0, np.int64)
    return Reference(
        contig_names=(),
        contig_lengths=none,
        contig_offsets=none,
        gene_ids=np.zeros(0, np.str_),
        gene_names=np.zeros(0, np.str_),
        has_genes=True,
        skipped_rows=0,
        skipped_contigs=(),
        text=np.zeros(2, np.uint64),
        unknown=np.zeros(2, np.uint64),
        unknown_blocks=np.zeros(1, np.uint64),
        bases=0,
        index=KmerIndex(27, 1, np.full(64, EMPTY, np.uint64), np.zeros(1, np.uint64), 0, 1),
        intron_starts=none,
        intron_ends=none,
        introns_by_end=none,
        intron_start_of_block=np.zeros(1, np.uint32),
        intron_end_of_block=np.zeros(1, np.uint32),
        intron_edges=np.zeros(1, np.uint64),
        segments=np.zeros((2, 2), np.int64),
        entries=np.zeros(0, np.uint64),
        segment_of_block=np.zeros(1, np.uint32),
    )


if __name__ == "__main__":
    _STEPS[sys.argv[1]][0]()
