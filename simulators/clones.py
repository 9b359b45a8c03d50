"""The clones of a tumour: what each one's genome has, haplotype by haplotype.

Normal cells, a clone A and a clone B that came out of A, as in a glioma with a few large events (which ones, and how
many copies they leave, stand in ``EVENTS``). A fourth genome is A's *mirrored* twin: the same number of copies of
everything, but it lost the other haplotype of the chromosome that A lost; copy number cannot tell the two apart, allele
counts can.

Chromosomes are named as a human's. On a genome with 22 contigs and more they are its contigs; any other genome is cut
into 22 pieces in a human's proportions, so that the same events lie on any reference. Edges of events are rounded to
whole ``STEP_BP``. Coordinates are 0-based and half-open.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.genome import HUMAN_MBP, UNIQUE, Genome

#: Genomes of cells.
NORMAL: Final = 0
CLONE_A: Final = 1
CLONE_B: Final = 2
MIRRORED_A: Final = 3
GENOMES: Final = ("normal", "A", "B", "A mirrored")
#: The clone that each genome is counted as: copy number does not tell A from its mirrored twin.
CLONE_OF_GENOME: Final = np.array([0, 1, 2, 1], dtype=np.uint8)
CLONES: Final = ("normal", "A", "B")
#: Where a variant of the germline arose.
GERMLINE: Final = -1
#: What carries what arose in clone A or B, by genome.
_DESCENDANTS: Final = {CLONE_A: (CLONE_A, CLONE_B, MIRRORED_A), CLONE_B: (CLONE_B,)}

STEP_BP: Final = 200
CENTROMERE: Final = 0.4


@dataclass(frozen=True)
class Event:
    """A change of copy number: from ``first`` to ``last`` of a chromosome (shares of its length), in a clone.

    Attributes:
        name: As the field says it.
        genomes: The genomes that have it.
        chromosome: 1 to 22.
        first: Where it begins.
        last: Where it ends.
        maternal: Copies of the maternal haplotype that it leaves.
        paternal: Copies of the paternal one.
    """

    name: str
    genomes: tuple[int, ...]
    chromosome: int
    first: float
    last: float
    maternal: int
    paternal: int


_IN_A: Final = _DESCENDANTS[CLONE_A]
_IN_B: Final = _DESCENDANTS[CLONE_B]
EVENTS: Final = (
    Event("+7", _IN_A, 7, 0.0, 1.0, 2, 1),
    Event("-10", (CLONE_A, CLONE_B), 10, 0.0, 1.0, 1, 0),
    Event("-10 mirrored", (MIRRORED_A,), 10, 0.0, 1.0, 0, 1),
    Event("+1q", _IN_A, 1, CENTROMERE, 1.0, 1, 2),
    Event("8q x4", _IN_B, 8, CENTROMERE, 1.0, 3, 1),
    Event("-17p", _IN_B, 17, 0.0, CENTROMERE, 0, 1),
    Event("-13", _IN_B, 13, 0.0, 1.0, 1, 0),
    Event("+20", _IN_B, 20, 0.0, 1.0, 2, 1),
    Event("12q amplified x8", _IN_B, 12, 0.55, 0.60, 7, 1),
    Event("9p neutral LOH", _IN_B, 9, 0.0, CENTROMERE, 2, 0),
    Event("3p deletion", _IN_A, 3, 0.20, 0.213, 1, 0),
)


@dataclass(frozen=True)
class CloneSettings:
    """How many variants there are.

    Attributes:
        germline_every_bp: Mean distance of heterozygous variants of the germline.
        somatic_every_bp: Mean distance of the somatic variants of each clone.
        late_share: Share of the somatic variants that came after the changes of copy number, and so are on one copy.
    """

    germline_every_bp: int = 1_500
    somatic_every_bp: int = 20_000
    late_share: float = 0.3

    def __post_init__(self) -> None:
        if min(self.germline_every_bp, self.somatic_every_bp) < 100:
            raise ValueError("variants are at least 100 bases apart on average")
        if not 0 <= self.late_share <= 1:
            raise ValueError(f"late_share {self.late_share}: a share, 0 to 1")


@dataclass(frozen=True)
class Segments:
    """Stretches of the genome in which no genome's copies change; they cover every contig.

    Attributes:
        contig: Contig of each, int64, ascending with start.
        start: First base.
        end: One beyond the last.
        copies: Copies of the maternal and the paternal haplotype, int64, shape (segments, genomes, 2).
    """

    contig: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    copies: NDArray[np.int64]


@dataclass(frozen=True)
class Loci:
    """Single-base variants, ascending by contig and position; every array has shape (loci,) unless it says another.

    Attributes:
        contig: Contig, int64.
        position: Position, 0-based, int64.
        reference: Code of the reference's base, uint8.
        alternative: Code of the other base, uint8.
        haplotype: The haplotype that carries it: 0 maternal, 1 paternal; int64.
        clone: ``CLONE_A`` or ``CLONE_B`` that it arose in, or ``GERMLINE``; int64.
        late: It is on one copy of its haplotype only, bool.
        driver: Identifier of the gene that it drives, or "".
        alternative_copies: Copies that carry it, int64, shape (loci, genomes).
        copies: All copies there are, int64, shape (loci, genomes).
    """

    contig: NDArray[np.int64]
    position: NDArray[np.int64]
    reference: NDArray[np.uint8]
    alternative: NDArray[np.uint8]
    haplotype: NDArray[np.int64]
    clone: NDArray[np.int64]
    late: NDArray[np.bool_]
    driver: NDArray[np.str_]
    alternative_copies: NDArray[np.int64]
    copies: NDArray[np.int64]


@dataclass(frozen=True)
class Rearrangement:
    """A junction: the bases before ``place_a`` are followed by those at ``place_b``.

    A deletion leaves one junction. An inversion leaves two, one at each end, and so does a balanced translocation, one
    in each of the chromosomes that it makes.

    Attributes:
        kind: "deletion", "inversion" or "translocation".
        genomes: Which genomes have it.
        haplotype: On which haplotype, one copy of it.
        contig_a: Contig of the first part, which ends before ``place_a``.
        place_a: See above.
        contig_b: Contig of the second part.
        place_b: Where it begins; where it is ``reversed_b``, the base after the one that it begins with.
        reversed_b: The second part runs backwards, as its reverse complement.
        reversed_a: The first part runs backwards, as its reverse complement; ``place_a`` is then the base that it ends
            with.
    """

    kind: str
    genomes: tuple[int, ...]
    haplotype: int
    contig_a: int
    place_a: int
    contig_b: int
    place_b: int
    reversed_b: bool
    reversed_a: bool = False

    @property
    def break_contig(self) -> int:
        """The contig on which the copy that has it leaves the reference."""
        return self.contig_b if self.reversed_a else self.contig_a

    @property
    def break_place(self) -> int:
        """The base of the reference that does not follow there on the base before it."""
        return self.place_b if self.reversed_a else self.place_a


@dataclass(frozen=True)
class Clones:
    """What the genomes of a section's cells are.

    Attributes:
        contig_lengths: Bases of each contig of the reference, int64.
        segments: Copy number.
        loci: Single-base variants.
        rearrangements: Junctions.
    """

    contig_lengths: NDArray[np.int64]
    segments: Segments
    loci: Loci
    rearrangements: tuple[Rearrangement, ...]

    def copies(self, contig: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Copies of each haplotype at some places, shape (n, genomes, 2)."""
        return _copies_at(self.segments, self.contig_lengths, contig, position)

    def window_copies(self, window_bp: int) -> NDArray[np.float64]:
        """Mean total copies in windows of one width, cut from the start of each contig; shape (windows, genomes)."""
        counts = -(-self.contig_lengths // window_bp)
        firsts = np.cumsum(counts) - counts
        sums = np.zeros((int(counts.sum()), len(GENOMES)))
        bases = np.zeros(sums.shape[0])
        totals = self.segments.copies.sum(axis=2)
        rows = zip(self.segments.contig.tolist(), self.segments.start.tolist(), self.segments.end.tolist(), strict=True)
        for number, (contig, start, end) in enumerate(rows):
            windows = np.arange(start // window_bp, -(-end // window_bp))
            shared = np.minimum(end, (windows + 1) * window_bp) - np.maximum(start, windows * window_bp)
            sums[firsts[contig] + windows] += np.outer(shared, totals[number])
            bases[firsts[contig] + windows] += shared
        return sums / bases[:, None]


def make_clones(settings: CloneSettings, genome: Genome, seed: int) -> Clones:
    """Lay the events over a reference and draw the variants.

    Raises:
        ValueError: the reference is too short for a rearrangement.
    """
    rng = np.random.default_rng([seed, 1_111])
    lengths = np.array([contig.size for contig in genome.contigs], dtype=np.int64)
    chromosomes = _chromosomes(lengths)
    segments = _segments(lengths, chromosomes)
    loci = _draw_loci(rng, settings, genome, lengths, segments, chromosomes)
    return Clones(lengths, segments, loci, _rearrangements(rng, lengths, chromosomes))


def _copies_at(
    segments: Segments, lengths: NDArray[np.int64], contig: NDArray[np.int64], position: NDArray[np.int64]
) -> NDArray[np.int64]:
    offsets = np.cumsum(lengths) - lengths
    firsts = offsets[segments.contig] + segments.start
    return segments.copies[np.searchsorted(firsts, offsets[contig] + position, side="right") - 1]


# --- where chromosomes lie --------------------------------------------------------------------------------------------

Pieces = list[tuple[int, int, int]]
"""(contig, start, end) of what makes up a stretch."""


def _chromosomes(lengths: NDArray[np.int64]) -> list[Pieces]:
    """The pieces of each chromosome 1 to 22: a contig each, or the contigs cut up in a human's proportions."""
    if lengths.size >= len(HUMAN_MBP):
        return [[(contig, 0, int(lengths[contig]))] for contig in range(len(HUMAN_MBP))]
    edges = np.round(np.cumsum([0, *HUMAN_MBP]) / sum(HUMAN_MBP) * lengths.sum() / STEP_BP).astype(np.int64) * STEP_BP
    edges[-1] = lengths.sum()
    return [_pieces(lengths, first, last) for first, last in itertools.pairwise(edges.tolist())]


def _pieces(lengths: NDArray[np.int64], first: int, last: int) -> Pieces:
    """The part of each contig that a stretch of all of them laid end to end covers."""
    ends = np.cumsum(lengths)
    pieces = []
    for contig, (start, end) in enumerate(zip((ends - lengths).tolist(), ends.tolist(), strict=True)):
        if max(first, start) < min(last, end):
            pieces.append((contig, max(first, start) - start, min(last, end) - start))
    return pieces


def _stretch(chromosome: Pieces, first: float, last: float) -> Pieces:
    """The part of a chromosome between two shares of its length, in whole steps."""
    total = sum(end - start for _, start, end in chromosome)
    low, high = (round(share * total / STEP_BP) * STEP_BP for share in (first, last))
    high = total if last == 1.0 else high
    part, done = [], 0
    for contig, start, end in chromosome:
        cut = (max(start, start + low - done), min(end, start + high - done))
        if cut[0] < cut[1]:
            part.append((contig, *cut))
        done += end - start
    return part


def _segments(lengths: NDArray[np.int64], chromosomes: list[Pieces]) -> Segments:
    laid = [
        (event, piece)
        for event in EVENTS
        for piece in _stretch(chromosomes[event.chromosome - 1], event.first, event.last)
    ]
    rows = []
    for contig, length in enumerate(lengths.tolist()):
        inside = {edge for _, (where, *edges) in laid if where == contig for edge in edges}
        edges = sorted({0, length, *inside})
        rows += [(contig, start, end) for start, end in itertools.pairwise(edges)]
    contig, start, end = np.array(rows, dtype=np.int64).T
    copies = np.ones((len(rows), len(GENOMES), 2), dtype=np.int64)
    for event, (where, first, last) in laid:
        members = (contig == where) & (start >= first) & (end <= last)
        for member in event.genomes:
            copies[members, member] = (event.maternal, event.paternal)
    return Segments(contig, start, end, copies)


# --- variants ---------------------------------------------------------------------------------------------------------


def _draw_loci(
    rng: np.random.Generator,
    settings: CloneSettings,
    genome: Genome,
    lengths: NDArray[np.int64],
    segments: Segments,
    chromosomes: list[Pieces],
) -> Loci:
    offsets = np.cumsum(lengths) - lengths
    drivers = _place_drivers(rng, genome, chromosomes)
    taken = np.array([offsets[contig] + position for contig, position, _, _ in drivers], dtype=np.int64)
    places, clones = [taken], [np.array([clone for _, _, clone, _ in drivers], dtype=np.int64)]
    for arose_in, every in (
        (GERMLINE, settings.germline_every_bp),
        (CLONE_A, settings.somatic_every_bp),
        (CLONE_B, settings.somatic_every_bp),
    ):
        drawn = rng.choice(int(lengths.sum()), size=int(lengths.sum()) // every, replace=False)
        places.append(drawn)
        clones.append(np.full(drawn.size, arose_in, dtype=np.int64))
    # Where two fall on one base, the first of them stays: a driver, or one of the germline. None stands on an N.
    bases = np.concatenate(genome.contigs)
    place, first = np.unique(np.concatenate(places), return_index=True)
    place, first = place[bases[place] < 4], first[bases[place] < 4]
    clone = np.concatenate(clones)[first]
    names = np.array([*(gene for *_, gene in drivers), ""], dtype=np.str_)
    driver = names[np.minimum(first, len(drivers))]
    contig = np.searchsorted(offsets, place, side="right") - 1
    position = place - offsets[contig]
    reference = bases[place].astype(np.int64)
    alternative = (reference + rng.integers(1, 4, place.size)) % 4
    copies = _copies_at(segments, lengths, contig, position)
    haplotype = rng.integers(0, 2, place.size)
    # What arose in a clone arose on a haplotype that it has: it must be there to be seen.
    somatic = clone != GERMLINE
    origin = np.where(somatic, clone, NORMAL)
    has = copies[np.arange(place.size), origin]
    haplotype = np.where(has[np.arange(place.size), haplotype] == 0, 1 - haplotype, haplotype)
    late = somatic & (driver == "") & (rng.random(place.size) < settings.late_share)
    # A later gain in a nested clone would have to say which copy it doubled: no late variant where that happens.
    unlike = np.any(copies[:, CLONE_A] != copies[:, CLONE_B], axis=1)
    late &= ~((clone == CLONE_A) & unlike)
    of_haplotype = np.take_along_axis(copies, haplotype[:, None, None], axis=2)[:, :, 0]
    carries = np.zeros((contig.size, len(GENOMES)), dtype=np.bool_)
    carries[clone == GERMLINE] = True
    for arose_in, genomes in _DESCENDANTS.items():
        carries[np.ix_(clone == arose_in, genomes)] = True
    carrying = np.where(carries, np.where(late[:, None], np.minimum(of_haplotype, 1), of_haplotype), 0)
    # B's variants are younger than A's gains: each is on one of A's copies, and on what B made of that one.
    of_a, of_b = np.maximum(of_haplotype[:, CLONE_A], 1), of_haplotype[:, CLONE_B]
    early_b = (clone == CLONE_B) & ~late
    carrying[early_b, CLONE_B] = (-(-of_b // of_a))[early_b]
    codes = (reference.astype(np.uint8), alternative.astype(np.uint8))
    return Loci(contig, position, *codes, haplotype, clone, late, driver, carrying, copies.sum(axis=2))


#: Drivers: the clone that has them and the chromosome that their gene lies on.
_DRIVERS: Final = ((CLONE_A, 7), (CLONE_A, 10), (CLONE_B, 17), (CLONE_B, 8), (CLONE_B, 2))


def _place_drivers(
    rng: np.random.Generator, genome: Genome, chromosomes: list[Pieces]
) -> list[tuple[int, int, int, str]]:
    """(contig, position, clone, gene) of each driver: in the last exon of a gene that is told from all others."""
    drivers: list[tuple[int, int, int, str]] = []
    for clone, chromosome in _DRIVERS:
        genes = [
            gene
            for number, gene in enumerate(genome.genes)
            if genome.gene_classes[number] == UNIQUE
            and gene.gene_id not in {name for *_, name in drivers}
            and any(
                gene.contig == contig and start <= gene.exons[0][0] and gene.exons[-1][1] <= end
                for contig, start, end in chromosomes[chromosome - 1]
            )
        ]
        if not genes:
            continue
        gene = genes[int(rng.integers(len(genes)))]
        start, end = gene.exons[0] if gene.strand else gene.exons[-1]
        drivers.append((gene.contig, int(rng.integers(start, end)), clone, gene.gene_id))
    return drivers


def _rearrangements(
    rng: np.random.Generator, lengths: NDArray[np.int64], chromosomes: list[Pieces]
) -> tuple[Rearrangement, ...]:
    """The junctions of a deletion of A (an event of its own), and of an inversion and a translocation of B."""

    def at(chromosome: int, share: float) -> tuple[int, int]:
        piece = _stretch(chromosomes[chromosome - 1], share, 1.0)[0]
        return piece[0], piece[1]

    deletion = next(event for event in EVENTS if event.name == "3p deletion")
    stretch = _stretch(chromosomes[deletion.chromosome - 1], deletion.first, deletion.last)
    if not stretch:
        raise ValueError(f"a reference of {lengths.sum():,} bases is too short for clones with rearrangements")
    (a, first, _), (b, _, last) = stretch[0], stretch[-1]
    inner = float(rng.uniform(0.3, 0.4)), float(rng.uniform(0.5, 0.6))
    (c, left), (d, right) = at(5, inner[0]), at(5, inner[1])
    (e, there), (f, other) = at(2, float(rng.uniform(0.6, 0.8))), at(14, float(rng.uniform(0.4, 0.6)))
    turned, moved = int(rng.integers(2)), int(rng.integers(2))
    return (
        Rearrangement("deletion", deletion.genomes, 1, a, first, b, last, False),
        Rearrangement("inversion", _IN_B, turned, c, left, d, right, True),
        Rearrangement("translocation", _IN_B, moved, e, there, f, other, False),
        Rearrangement("inversion", _IN_B, turned, c, left, d, right, False, reversed_a=True),
        Rearrangement("translocation", _IN_B, moved, f, other, e, there, False),
    )
