"""Rehearsals: steps of the fold on nothing at all, which compile the kernels of a first start.

``python -m cartoseq.analysis.rehearsal STEP`` does one step, in a process of its own beside the one that will need its
kernels. That one finds them on disk or, while they are still being compiled, waits for them (`streaming.kernel`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from cartoseq.analysis.alignment import resolve
from cartoseq.analysis.assign import AssignSettings, Batch, PlaceArguments, make_assignments, place_reads
from cartoseq.analysis.kmerindex import EMPTY, KmerIndex
from cartoseq.analysis.molecules import MoleculeSet
from cartoseq.analysis.narrowtable import add_narrow
from cartoseq.analysis.reference import Reference
from cartoseq.streaming.kernel import compile_inner, is_kept

_BASES = 100


def place() -> None:
    """Place a read without bases: half of all compiling, and one kernel."""
    place_reads(*_nothing_to_place())


def align_and_count() -> None:
    """Take a part of that off the other process, then do what comes after: ask for a gene, count a molecule."""
    reads, few, _, _, text, introns, limits, placed, open_reads, scratch = _nothing_to_place()
    compile_inner(resolve, open_reads, reads, few, text, introns, limits, placed, False, scratch)
    Batch(_BASES, 1).describe(0, 1, _empty_reference(), AssignSettings(), make_assignments(1))
    molecules = MoleculeSet(feature_bits=16, mid_bits=20)
    molecules.add(np.zeros(1, np.uint32), np.zeros(1, np.uint64), np.zeros(1, np.uint64))


_STEPS: dict[str, tuple[Callable[[], None], Callable[..., Any]]] = {
    "place": (place, place_reads),
    "align": (align_and_count, add_narrow),
}


def missing_steps() -> list[str]:
    """The steps whose kernels are not on disk, the longest first: known by the kernel that a step compiles last."""
    return [name for name, (_, last) in _STEPS.items() if not is_kept(last)]


def _nothing_to_place() -> PlaceArguments:
    return Batch(_BASES, 1).to_place(0, 1, _empty_reference(), AssignSettings(), make_assignments(1))


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
