"""Templates to genes, or to places in the genome: the stages of one batch of reads.

Pack and trim; look up the first, last and middle seed; accept what fits at the one place they name; look up all seeds
of the rest and align at every place they name. Then ask which gene the place belongs to. Every read is decided by
itself: batches, threads and order change nothing.

Confidence is 20 for each mismatch by which the second-best place is known to be worse, at most 60; 0 for reads that are
not uniquely placed. It is a lower bound: a read that fits at once is not compared with what cannot be as good.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis import alignment, genecall, kmerindex, template
from cartoseq.analysis.leaf import leaf
from cartoseq.analysis.packed import Hits, Introns, Limits, Placements, Reads, Scratch, Text
from cartoseq.analysis.reference import Reference
from cartoseq.streaming.errors import InputError

ASSIGNED: Final = genecall.ASSIGNED
MULTI_GENE: Final = genecall.MULTI_GENE
ANTISENSE: Final = genecall.ANTISENSE
INTRONIC: Final = genecall.INTRONIC
INTERGENIC: Final = genecall.INTERGENIC
MULTI_MAPPED: Final = genecall.MULTI_MAPPED
UNMAPPED: Final = genecall.UNMAPPED
NO_GENE: Final = np.uint32(0xFFFFFFFF)

BATCH: Final = 4096
MAX_HITS: Final = 192
_STRANDS: Final = {"forward": genecall.FORWARD, "reverse": genecall.REVERSE, "unstranded": genecall.UNSTRANDED}


@dataclass(frozen=True)
class AssignSettings:
    """How templates are trimmed, placed and counted.

    Attributes:
        layer: "rna" asks for genes, "dna" for places.
        strand: Whether reads lie as their transcript ("forward": Stereo-seq, Visium, Drop-seq), opposite, or either.
        min_aligned_fraction: Least share of the trimmed template that must align (STAR: outFilterMatchNminOverLread).
        min_aligned_bases: Least bases that must align.
        max_mismatch_rate: Most mismatches per aligned base.
        min_score_difference: Least score (+1 a match, -2 a mismatch) by which the best place must beat any other: 3 is
            one mismatch.
        trim_poly_a: Length of an A run that ends a template (T at the front instead for "reverse", both for
            "unstranded"); 0 trims none. Not used for DNA.
        poly_a_mismatches: Other bases allowed in the run.
        adapters: Sequences that end a template, at most 32 bases of each are compared.
        adapter_min_overlap: Least bases of an adapter at the template's end.
        adapter_mismatch_rate: Mismatches allowed per compared base.
    """

    layer: Literal["rna", "dna"] = "rna"
    strand: Literal["forward", "reverse", "unstranded"] = "forward"
    min_aligned_fraction: float = 0.66
    min_aligned_bases: int = 20
    max_mismatch_rate: float = 0.1
    min_score_difference: int = 3
    trim_poly_a: int = 15
    poly_a_mismatches: int = 1
    adapters: tuple[str, ...] = field(default=())
    adapter_min_overlap: int = 8
    adapter_mismatch_rate: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.min_aligned_fraction <= 1:
            raise InputError(
                "min_aligned_fraction", f"expected a share above 0 and at most 1, got {self.min_aligned_fraction}"
            )
        if not 1 <= self.min_aligned_bases <= template.MAX_BASES:
            raise InputError("min_aligned_bases", f"expected 1-{template.MAX_BASES}, got {self.min_aligned_bases}")
        if not 0 <= self.max_mismatch_rate < 1:
            raise InputError("max_mismatch_rate", f"expected a rate from 0 to below 1, got {self.max_mismatch_rate}")
        if self.min_score_difference < 1:
            raise InputError("min_score_difference", f"expected at least 1, got {self.min_score_difference}")
        if self.trim_poly_a and not 2 <= self.trim_poly_a <= 100:
            raise InputError("trim_poly_a", f"expected 0 (off) or 2-100 bases, got {self.trim_poly_a}")
        if not 0 <= self.poly_a_mismatches <= max(0, self.trim_poly_a // 2 - 1):
            raise InputError("poly_a_mismatches", f"expected less than half the run, got {self.poly_a_mismatches}")
        for adapter in self.adapters:
            if len(adapter) < self.adapter_min_overlap or set(adapter) - set("ACGT"):
                raise InputError(
                    "adapters", f"expected at least {self.adapter_min_overlap} bases of A, C, G, T, got {adapter!r}"
                )


@dataclass(frozen=True)
class Assignments:
    """What became of the templates of one block; arrays over clusters.

    Attributes:
        verdicts: ASSIGNED ... UNMAPPED, uint8.
        genes: Gene of ASSIGNED and INTRONIC reads, else NO_GENE; uint32.
        positions: Global position of the template's first base (the fragment's 5' end), clipped bases counted in:
            base i lies at position + i, on strand 1 at position - i. 0 where unmapped. For MULTI_MAPPED one of the
            places. uint64.
        strands: 0 forward, 1 reverse; uint8.
        mismatches: Substitutions and gap bases in the aligned part, uint8.
        confidence: 0-60, uint8.
        aligned_from: First aligned base of the template, uint16.
        aligned_to: One beyond the last, uint16.
    """

    verdicts: NDArray[np.uint8]
    genes: NDArray[np.uint32]
    positions: NDArray[np.uint64]
    strands: NDArray[np.uint8]
    mismatches: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    aligned_from: NDArray[np.uint16]
    aligned_to: NDArray[np.uint16]


def assign(
    bases: NDArray[np.uint8],
    reference: Reference,
    settings: AssignSettings,
    wanted: NDArray[np.bool_] | None = None,
) -> Assignments:
    """Place the templates of a block and say which gene each counts for.

    Args:
        bases: BCL bytes of the template cycles, C-contiguous, shape (bases, clusters); may be cut at any cycle.
        reference: From `open_reference`.
        settings: How.
        wanted: Which clusters to place, shape (clusters,); the others come out as unmapped. None: all.

    Raises:
        InputError: the template has more bases than can be placed, or genes are asked of a genome without any.
    """
    if bases.shape[0] > template.MAX_BASES:
        raise InputError(
            "template",
            f"has {bases.shape[0]} bases, at most {template.MAX_BASES} can be placed",
            remedy="Shorten the T segment of the read structure and skip (S) the rest.",
        )
    if settings.layer == "rna" and not reference.has_genes:
        raise InputError("layer", 'is "rna", but the reference has no genes', remedy="Give the library a GTF file.")
    calls = np.ascontiguousarray(bases)
    n = calls.shape[1]
    result = make_assignments(n)
    batch = _batch_of_thread(calls.shape[0], min(n, BATCH))
    for first in range(0, n, BATCH):
        batch.run(calls, first, min(BATCH, n - first), reference, settings, wanted, result)
    return result


def make_assignments(n: int) -> Assignments:
    """Return room for what is found out about `n` templates."""
    return Assignments(
        verdicts=np.empty(n, np.uint8),
        genes=np.empty(n, np.uint32),
        positions=np.empty(n, np.uint64),
        strands=np.empty(n, np.uint8),
        mismatches=np.empty(n, np.uint8),
        confidence=np.empty(n, np.uint8),
        aligned_from=np.empty(n, np.uint16),
        aligned_to=np.empty(n, np.uint16),
    )


def make_scratch(bases: int, rows: int) -> Scratch:
    """Return working space for batches of reads.

    Args:
        bases: Longest read.
        rows: Most reads of a batch.
    """
    words = -(-bases // 32) + 1
    return Scratch(
        bytes_=np.zeros((2, 8, rows), np.uint8),
        run=np.zeros(words + 1, np.uint64),
        few=np.zeros((kmerindex.GROUP, kmerindex.FEW), np.uint64),
        few_offsets=np.zeros((kmerindex.GROUP, kmerindex.FEW), np.int64),
        few_slots=np.zeros((kmerindex.GROUP, kmerindex.FEW), np.uint64),
        seeds=np.zeros((kmerindex.ALL_GROUP, 32 * words), np.uint64),
        offsets=np.zeros((kmerindex.ALL_GROUP, 32 * words), np.int64),
        slots=np.zeros((kmerindex.ALL_GROUP, 32 * words), np.uint64),
        marks=np.zeros(3 * words, np.uint64),
        keys=np.zeros(alignment.MAX_CANDIDATES, np.uint64),
        votes=np.zeros(alignment.MAX_CANDIDATES, np.int64),
        rows=np.zeros((2, alignment.ROW), np.int64),
        cells=np.zeros((6, 2 * alignment.BAND + 1), np.int64),
        genes=np.zeros((3, genecall.MAX_GENES), np.int64),
    )


@leaf
def place_reads(
    reads: Reads,
    few: Hits,
    every: Hits,
    index: kmerindex.KmerIndex,
    text: Text,
    introns: Introns,
    limits: Limits,
    placed: Placements,
    open_reads: NDArray[np.int64],
    scratch: Scratch,
) -> None:
    """Place a batch of trimmed reads: by a few seeds where that is enough, by all where it is not.

    One kernel for the stages, since handing some forty arrays to each from Python costs as much as a stage.

    Args:
        reads: The batch; the reverse complements are written here.
        few: Room for the places that the few seeds name.
        every: Room for those that all seeds name; counts, bounds and repeats are those of `few`.
        index: The seed table.
        text: The genome.
        introns: Annotated introns.
        limits: What is accepted.
        placed: Out: where the reads lie.
        open_reads: Working space, int64.
        scratch: Working space.
    """
    n = reads.lengths.size
    words, lost = reads.words, reads.lost
    template.reverse_reads(words[0, :n], lost[0, :n], reads.lengths, words[1, :n], lost[1, :n], scratch)
    for r in range(n):
        few.repeats[r] = 0
    kmerindex.few_seeds(reads, index, introns, few, scratch)
    left = alignment.check_candidates(reads, few, text, limits, placed, open_reads, scratch)
    left = alignment.resolve(open_reads[:left], reads, few, text, introns, limits, placed, False, scratch)
    chosen = open_reads[:left]
    kmerindex.all_seeds(chosen, reads, index, introns, every, scratch)
    alignment.resolve(chosen, reads, every, text, introns, limits, placed, True, scratch)


PlaceArguments: TypeAlias = tuple[
    Reads, Hits, Hits, kmerindex.KmerIndex, Text, Introns, Limits, Placements, NDArray[np.int64], Scratch
]


class Batch:
    """Scratch arrays of one thread; every batch uses them again."""

    def __init__(self, bases: int, size: int) -> None:
        self.bases, self.size = bases, size
        words = -(-bases // 32) + 1
        # Reads and their reverse complements; a word more than all, since a window reads one beyond its own.
        self.reads = np.zeros((2, size, words), np.uint64)
        self.lost = np.zeros((2, size, words), np.uint64)
        self.lengths = np.zeros(size, np.uint16)
        self.heads = np.zeros(size, np.uint16)
        self.needed = np.zeros(size, np.uint16)
        self.few_hits = np.zeros((size, kmerindex.FEW_HITS), np.uint64)
        self.bounds = np.zeros(size, np.uint8)
        self.status = np.zeros(size, np.uint8)
        self.rows = np.zeros((size, alignment.ROW), np.int64)
        self.open_reads = np.zeros(size, np.int64)
        self.hits = np.zeros((size, MAX_HITS), np.uint64)
        self.hit_counts = np.zeros(size, np.int64)
        self.repeats = np.zeros(size, np.uint8)
        self.scratch = make_scratch(bases, size)

    def run(
        self,
        calls: NDArray[np.uint8],
        first: int,
        n: int,
        reference: Reference,
        settings: AssignSettings,
        wanted: NDArray[np.bool_] | None,
        result: Assignments,
    ) -> None:
        """Decide the reads [first, first + n) of a block."""
        forward, no_calls = self.reads[0, :n], self.lost[0, :n]
        lengths, heads = self.lengths[:n], self.heads[:n]
        template.pack_reads(calls, first, forward, no_calls, lengths, self.scratch)
        if wanted is not None:
            lengths *= wanted[first : first + n]
        heads[:] = 0
        self._trim(forward, no_calls, lengths, heads, settings)
        place_reads(*self.to_place(first, n, reference, settings, result))
        self.describe(first, n, reference, settings, result)

    def to_place(
        self, first: int, n: int, reference: Reference, settings: AssignSettings, result: Assignments
    ) -> PlaceArguments:
        """Return what `place_reads` is given for the packed reads [first, first + n)."""
        lengths, status, rows = self.lengths[:n], self.status[:n], self.rows[:n]
        needed = self.needed[:n]
        template.count_needed(lengths, settings.min_aligned_fraction, settings.min_aligned_bases, needed)
        reads = Reads(self.reads, self.lost, lengths, needed)
        text = Text(reference.text, reference.unknown, reference.unknown_blocks)
        introns = Introns(
            reference.intron_starts,
            reference.intron_ends,
            reference.introns_by_end,
            reference.intron_start_of_block,
            reference.intron_end_of_block,
            reference.intron_edges,
        )
        limits = Limits(float(settings.max_mismatch_rate), int(settings.min_score_difference))
        here = slice(first, first + n)
        placed = Placements(status, result.strands[here], result.confidence[here], rows)
        few = Hits(self.few_hits, self.hit_counts, self.bounds, self.repeats)
        every = few._replace(places=self.hits)
        return reads, few, every, reference.index, text, introns, limits, placed, self.open_reads, self.scratch

    def _trim(
        self,
        forward: NDArray[np.uint64],
        no_calls: NDArray[np.uint64],
        lengths: NDArray[np.uint16],
        heads: NDArray[np.uint16],
        settings: AssignSettings,
    ) -> None:
        for adapter in settings.adapters:
            codes = np.array(["ACGT".index(letter) for letter in adapter], dtype=np.uint8)
            template.trim_adapter(forward, codes, settings.adapter_min_overlap, settings.adapter_mismatch_rate, lengths)
        if settings.layer == "rna" and settings.trim_poly_a:
            run, others = settings.trim_poly_a, settings.poly_a_mismatches
            if settings.strand != "reverse":
                template.trim_tails(forward, no_calls, 0, run, others, lengths, self.scratch)
            if settings.strand != "forward":
                template.trim_heads(forward, no_calls, 3, run, others, lengths, heads)

    def describe(self, first: int, n: int, reference: Reference, settings: AssignSettings, result: Assignments) -> None:
        """Write where the placed reads [first, first + n) lie, and which genes they count for."""
        here = slice(first, first + n)
        status, rows = self.status[:n], self.rows[:n]
        genecall.describe(
            status,
            result.strands[here],
            rows,
            self.lengths[:n],
            self.heads[:n],
            result.positions[here],
            result.mismatches[here],
            result.aligned_from[here],
            result.aligned_to[here],
        )
        if settings.layer == "dna":
            result.genes[here] = NO_GENE
            result.verdicts[here] = np.array([UNMAPPED, ASSIGNED, MULTI_MAPPED], np.uint8)[status]
            return
        genecall.call_genes(
            status,
            result.strands[here],
            rows,
            reference.segments,
            reference.entries,
            reference.segment_of_block,
            _STRANDS[settings.strand],
            result.verdicts[here],
            result.genes[here],
            self.scratch,
        )


_kept = threading.local()


def _batch_of_thread(bases: int, size: int) -> Batch:
    """Return this thread's scratch arrays: memory that is new for each block would first have to be mapped."""
    batch: Batch | None = getattr(_kept, "batch", None)
    if batch is None or batch.bases != bases or batch.size < size:
        batch = _kept.batch = Batch(bases, size)
    return batch
