"""Templates to genes, or to places in the genome: the stages of one batch of reads.

Pack and trim; look up the first, last and middle seed; accept what fits at the one place they name; look up all seeds
of the rest and align at every place they name. Then ask which gene the place belongs to. Every read is decided by
itself: batches, threads and order change nothing.

Confidence is 20 for each mismatch by which the second-best place is known to be worse, at most 60; 0 for reads that are
not uniquely placed. It is a lower bound: a read that fits at once is not compared with what cannot be as good. It is
10 where repeats may hide places that were not seen (`min_seen_difference`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis import alignment, genecall, kmerindex, template
from cartoseq.analysis.leaf import leaf
from cartoseq.analysis.packed import Genes, Hits, Introns, Limits, Placements, Reads, Scratch, Text, Trimming
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

BATCH: Final = 1024
"""Reads whose stages follow on each other: what is kept of so many stays in the processor's second cache."""
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
        min_seen_difference: Least score by which the best place must beat any other that was seen, where repeats may
            hide some that were not; 0 counts such a read as of several places.
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
    min_seen_difference: int = 0
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
        if self.min_seen_difference < 0:
            raise InputError("min_seen_difference", f"expected 0 (off) or a score, got {self.min_seen_difference}")
        if self.trim_poly_a and not 2 <= self.trim_poly_a <= 100:
            raise InputError("trim_poly_a", f"expected 0 (off) or 2-100 bases, got {self.trim_poly_a}")
        if not 0 <= self.poly_a_mismatches <= max(0, self.trim_poly_a // 2 - 1):
            raise InputError("poly_a_mismatches", f"expected less than half the run, got {self.poly_a_mismatches}")
        for adapter in self.adapters:
            if len(adapter) < self.adapter_min_overlap or set(adapter) - set("ACGT"):
                raise InputError(
                    "adapters", f"expected at least {self.adapter_min_overlap} bases of A, C, G, T, got {adapter!r}"
                )


class Assignments(NamedTuple):
    """What became of the templates of one block; arrays over clusters.

    Attributes:
        verdicts: ASSIGNED ... UNMAPPED, uint8.
        genes: Gene of ASSIGNED and INTRONIC reads, else NO_GENE; uint32.
        positions: Global position of the template's first base (the fragment's 5' end), clipped bases counted in:
            base i lies at position + i, on strand 1 at position - i. 0 where unmapped. For MULTI_MAPPED one of the
            places. uint64.
        far_positions: The same, judged by the last aligned base: another place than `positions` where there is a gap or
            a junction between. uint64.
        strands: 0 forward, 1 reverse; uint8.
        mismatches: Substitutions and gap bases in the aligned part, uint8.
        confidence: 0-60, uint8.
        aligned_from: First aligned base of the template, uint16.
        aligned_to: One beyond the last, uint16.
    """

    verdicts: NDArray[np.uint8]
    genes: NDArray[np.uint32]
    positions: NDArray[np.uint64]
    far_positions: NDArray[np.uint64]
    strands: NDArray[np.uint8]
    mismatches: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    aligned_from: NDArray[np.uint16]
    aligned_to: NDArray[np.uint16]


class Batch(NamedTuple):
    """Working space of one thread for the reads that are placed together.

    Attributes:
        reads: The reads and their reverse complements.
        heads: Bases cut off the front of each, uint16.
        few: Places that the few seeds name.
        every: Places that all seeds name; counts, bounds and repeats are those of `few`.
        status: UNMAPPED, UNIQUE or MULTIPLE of `alignment`, uint8.
        rows: Alignments, int64, shape (rows, alignment.ROW).
        open_reads: Reads that need another look, int64.
        scratch: Of the stages.
    """

    reads: Reads
    heads: NDArray[np.uint16]
    few: Hits
    every: Hits
    status: NDArray[np.uint8]
    rows: NDArray[np.int64]
    open_reads: NDArray[np.int64]
    scratch: Scratch


class Rules(NamedTuple):
    """The settings as the kernels take them.

    Attributes:
        trimming: What is cut off the templates.
        limits: What is accepted.
        genes: Whether genes are asked for, or places.
        strand: On which strand of its gene a read lies, FORWARD, REVERSE or UNSTRANDED of `genecall`.
    """

    trimming: Trimming
    limits: Limits
    genes: bool
    strand: int


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
    found = Assignments(
        verdicts=np.empty(n, np.uint8),
        genes=np.empty(n, np.uint32),
        positions=np.empty(n, np.uint64),
        far_positions=np.empty(n, np.uint64),
        strands=np.empty(n, np.uint8),
        mismatches=np.empty(n, np.uint8),
        confidence=np.empty(n, np.uint8),
        aligned_from=np.empty(n, np.uint16),
        aligned_to=np.empty(n, np.uint16),
    )
    if wanted is None:
        wanted = np.ones(n, np.bool_)
    text, introns, genes = arrays_of(reference)
    batch = _batch_of_thread(calls.shape[0])
    assign_reads(calls, wanted, rules_of(settings), reference.index, text, introns, genes, batch, found)
    return found


@leaf
def assign_reads(
    calls: NDArray[np.uint8],
    wanted: NDArray[np.bool_],
    rules: Rules,
    index: kmerindex.KmerIndex,
    text: Text,
    introns: Introns,
    genes: Genes,
    batch: Batch,
    found: Assignments,
) -> None:
    """Decide the reads of a block, batch by batch: by a few seeds where that is enough, by all where it is not.

    One kernel for the stages, since handing some forty arrays to each from Python costs as much as a stage.

    Args:
        calls: BCL bytes, C-contiguous, shape (bases, clusters).
        wanted: Which clusters to place.
        rules: What is cut off, accepted and asked for.
        index: The seed table.
        text: The genome.
        introns: Annotated introns.
        genes: Where genes lie.
        batch: Working space.
        found: Out.
    """
    words, lost, scratch = batch.reads.words, batch.reads.lost, batch.scratch
    for first in range(0, calls.shape[1], batch.status.size):
        n = min(batch.status.size, calls.shape[1] - first)
        end = first + n
        lengths, heads, status, rows = batch.reads.lengths[:n], batch.heads[:n], batch.status[:n], batch.rows[:n]
        reads = Reads(words, lost, lengths, batch.reads.needed[:n])
        strands = found.strands[first:end]
        placed = Placements(status, strands, found.confidence[first:end], rows)
        template.pack_reads(calls, first, words[0, :n], lost[0, :n], lengths, scratch)
        for r in range(n):
            if not wanted[first + r]:
                lengths[r] = np.uint16(0)
            batch.few.repeats[r] = np.uint8(0)
        template.trim_reads(words[0, :n], lost[0, :n], lengths, heads, rules.trimming, scratch)
        template.count_needed(lengths, rules.limits, reads.needed)
        template.reverse_reads(words[0, :n], lost[0, :n], lengths, words[1, :n], lost[1, :n], scratch)
        kmerindex.few_seeds(reads, index, introns, batch.few, scratch)
        left = alignment.check_candidates(reads, batch.few, text, rules.limits, placed, batch.open_reads, scratch)
        chosen = batch.open_reads[:left]
        left = alignment.resolve(chosen, reads, batch.few, text, introns, rules.limits, placed, False, scratch)
        chosen = batch.open_reads[:left]
        kmerindex.all_seeds(chosen, reads, index, introns, batch.every, scratch)
        alignment.resolve(chosen, reads, batch.every, text, introns, rules.limits, placed, True, scratch)
        genecall.describe(
            status,
            strands,
            rows,
            lengths,
            heads,
            found.positions[first:end],
            found.far_positions[first:end],
            found.mismatches[first:end],
            found.aligned_from[first:end],
            found.aligned_to[first:end],
        )
        verdicts, gene_of_read = found.verdicts[first:end], found.genes[first:end]
        if rules.genes:
            genecall.call_genes(status, strands, rows, genes, rules.strand, verdicts, gene_of_read, scratch)
        else:
            genecall.call_places(status, verdicts, gene_of_read)


def arrays_of(reference: Reference) -> tuple[Text, Introns, Genes]:
    """Return the arrays of a reference as the kernels take them."""
    return (
        Text(reference.text, reference.unknown, reference.unknown_blocks),
        Introns(
            reference.intron_starts,
            reference.intron_ends,
            reference.introns_by_end,
            reference.intron_start_of_block,
            reference.intron_end_of_block,
            reference.intron_edges,
        ),
        Genes(reference.segments, reference.entries, reference.segment_of_block),
    )


def rules_of(settings: AssignSettings) -> Rules:
    """Return the settings as the kernels take them."""
    adapters = np.zeros((len(settings.adapters), 32), np.uint8)
    for row, adapter in zip(adapters, settings.adapters, strict=True):
        row[: len(adapter[:32])] = ["ACGT".index(letter) for letter in adapter[:32]]
    tailed = settings.layer == "rna" and settings.trim_poly_a > 0
    return Rules(
        Trimming(
            adapters,
            np.array([len(adapter[:32]) for adapter in settings.adapters], np.int64),
            settings.adapter_min_overlap,
            float(settings.adapter_mismatch_rate),
            settings.trim_poly_a,
            settings.poly_a_mismatches,
            tailed and settings.strand != "reverse",
            tailed and settings.strand != "forward",
        ),
        Limits(
            float(settings.max_mismatch_rate),
            settings.min_score_difference,
            float(settings.min_aligned_fraction),
            settings.min_aligned_bases,
            settings.min_seen_difference,
        ),
        settings.layer == "rna",
        _STRANDS[settings.strand],
    )


def make_batch(bases: int, rows: int = BATCH) -> Batch:
    """Return working space for batches of reads.

    Args:
        bases: Longest read.
        rows: Reads of a batch.
    """
    # A word more than all, since a window reads one beyond its own.
    words = -(-bases // 32) + 1
    few = Hits(
        places=np.zeros((rows, kmerindex.FEW_HITS), np.uint64),
        counts=np.zeros(rows, np.int64),
        bounds=np.zeros(rows, np.uint8),
        repeats=np.zeros(rows, np.uint8),
    )
    return Batch(
        reads=Reads(
            words=np.zeros((2, rows, words), np.uint64),
            lost=np.zeros((2, rows, words), np.uint64),
            lengths=np.zeros(rows, np.uint16),
            needed=np.zeros(rows, np.uint16),
        ),
        heads=np.zeros(rows, np.uint16),
        few=few,
        every=few._replace(places=np.zeros((rows, MAX_HITS), np.uint64)),
        status=np.zeros(rows, np.uint8),
        rows=np.zeros((rows, alignment.ROW), np.int64),
        open_reads=np.zeros(rows, np.int64),
        scratch=make_scratch(bases, rows),
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


_kept = threading.local()


def _batch_of_thread(bases: int) -> Batch:
    """Return this thread's working space: memory that is new for each block would first have to be mapped."""
    batch: Batch | None = getattr(_kept, "batch", None)
    if batch is None or _kept.bases != bases:
        batch = _kept.batch = make_batch(bases)
        _kept.bases = bases
    return batch
