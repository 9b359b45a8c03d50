"""A sequencing library: molecules of cDNA with their barcodes, amplified, and the reads that a sequencer makes of them.

A molecule has a spot (whose CID it carries), a molecular barcode (MID), and a fragment of 100 bases: of the spliced
transcript near its 3' end (exonic), of an intron, of the other strand (antisense), or of no gene (intergenic). PCR
copies it. Some reads carry no molecule that could be counted: no CID of this chip, an adapter, the chip's own DNA, or a
MID that cannot be read. The shares and rates are those of a published run (SS200000135TL_D1, mouse brain, 1.0 G reads;
SAW manual 4.1, chapter 3) except where ``LibrarySettings`` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.chip import Chip
from cartoseq.simulators.expression import Effects, draw_genes
from cartoseq.simulators.genome import Genome
from cartoseq.simulators.tissue import Tissue, land_molecules

#: Where a molecule's fragment comes from.
EXONIC: Final = 0
INTRONIC: Final = 1
ANTISENSE: Final = 2
INTERGENIC: Final = 3
ORIGINS: Final = ("exonic", "intronic", "antisense", "intergenic")
#: What a read is.
MOLECULE: Final = 0
UNREADABLE_MID: Final = 1
ADAPTER: Final = 2
CHIP_DNA: Final = 3
OFF_CHIP: Final = 4
READ_KINDS: Final = ("molecule", "unreadable_mid", "adapter", "chip_dna", "off_chip")
NO_GENE: Final = 0xFFFFFFFF
_COMPLEMENT: Final = np.array([3, 2, 1, 0, 4], dtype=np.uint8)


@dataclass(frozen=True)
class LibrarySettings:
    """What the library is like, and how well it is read.

    Attributes:
        mean_copies: Reads per molecule, over all molecules; saturation is 1 - 1 / mean_copies.
        copy_shape: Shape of the gamma distribution of PCR yield (the published curve is fitted by 0.54; the default is
            more even, so that fewer molecules hang on a single read).
        singleton_floor: Share of the reads of molecules that are always a molecule's only one (published: 0.072).
        mid_length: Bases of a MID, at most 16.
        template_length: Bases of cDNA read.
        cid_error: Wrong bases per CID base. Exact : one-mismatch = 69.67 : 14.66 gives 0.84 %, chip table and library
            together; here all of it is drawn per read.
        mid_error: Wrong bases per MID base. Not published. The cDNA's 0.58 % holds reverse transcription and the
            mouse's differences from the reference as well, so less is assumed for a synthetic barcode.
        template_error: Wrong bases per cDNA base (mismatches per mapped base in the published run).
        n_rate: Bases that were not called.
        off_chip_share: Reads without a CID of this chip (100 % less the 85.9 % that exact and one-mismatch imply).
        adapter_share: Reads of short inserts that run into the adapter.
        chip_dna_share: Reads of the chip's own DNA nanoballs.
        unreadable_mid_share: Reads whose MID has low quality (nearly all), an N, or is poly-A.
        intronic_share: Of the molecules.
        antisense_share: Of the molecules; published 17.6 % of the mapped reads, overlapping the intergenic 18.9 %.
        intergenic_share: Of the molecules; with antisense 18.9 %.
        three_prime_distance: Mean bases between a fragment's end and its transcript's.
        tail_share: Exonic fragments that reach 1 to 40 bases into the poly-A tail.
        q30_cid: Share of CID bases of quality 30 and more; likewise for MID and cDNA.
        q30_mid: See above.
        q30_template: See above.
    """

    mean_copies: float = 3.33
    copy_shape: float = 3.0
    singleton_floor: float = 0.01
    mid_length: int = 10
    template_length: int = 100
    cid_error: float = 0.0084
    mid_error: float = 0.003
    template_error: float = 0.0058
    n_rate: float = 1e-5
    off_chip_share: float = 0.141
    adapter_share: float = 0.0081
    chip_dna_share: float = 0.0452
    unreadable_mid_share: float = 0.0084
    intronic_share: float = 0.080
    antisense_share: float = 0.050
    intergenic_share: float = 0.139
    three_prime_distance: float = 250.0
    tail_share: float = 0.03
    q30_cid: float = 0.917
    q30_mid: float = 0.895
    q30_template: float = 0.911

    def __post_init__(self) -> None:
        if not 4 <= self.mid_length <= 16:
            raise ValueError(f"MIDs of {self.mid_length} bases: 4 to 16 are possible")
        if not 20 <= self.template_length <= 1000:
            raise ValueError(f"templates of {self.template_length} bases: 20 to 1000 are possible")
        if self.molecule_share <= 0 or self.exonic_share < 0:
            raise ValueError("the shares of reads, or those of molecules, add up to more than 1")
        if self.copy_shape <= 0 or self.mean_copies <= 1 or self.amplified_mean <= 1:
            raise ValueError(
                f"mean_copies {self.mean_copies}, copy_shape {self.copy_shape} and singleton_floor "
                f"{self.singleton_floor} cannot go together: copies must average more than 1, floor x copies less"
            )

    @property
    def molecule_share(self) -> float:
        """Share of the reads that belong to a molecule and carry its MID."""
        return 1.0 - self.off_chip_share - self.adapter_share - self.chip_dna_share - self.unreadable_mid_share

    @property
    def exonic_share(self) -> float:
        """Share of the molecules that are exonic."""
        return 1.0 - self.intronic_share - self.antisense_share - self.intergenic_share

    @property
    def amplified_mean(self) -> float:
        """Mean copies of the molecules that are not of the floor."""
        floor = self.singleton_floor
        if floor * self.mean_copies >= 1:
            return 0.0
        return (1.0 - floor) * self.mean_copies / (1.0 - floor * self.mean_copies)


@dataclass(frozen=True)
class Molecules:
    """The molecules of a library; every array has shape (n,).

    Attributes:
        x: Spot column, int32.
        y: Spot row, int32.
        genes: Gene number or ``NO_GENE``, uint32.
        mids: MID code, 2 bits a base A0 C1 G2 T3, first base most significant, uint32.
        origins: ``EXONIC`` and so on, uint8.
        copies: Reads made with its MID, at least 1, uint32.
        places: First base of the fragment in the ``Templates`` pool (its last if ``reverse``), int64.
        reverse: The fragment is the reverse complement of the pool, bool.
        starts: First base of the fragment in the spliced transcript (exonic and antisense), -1 otherwise, int32.
        ambient: The molecule landed far from its cell, bool.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    genes: NDArray[np.uint32]
    mids: NDArray[np.uint32]
    origins: NDArray[np.uint8]
    copies: NDArray[np.uint32]
    places: NDArray[np.int64]
    reverse: NDArray[np.bool_]
    starts: NDArray[np.int32]
    ambient: NDArray[np.bool_]


@dataclass(frozen=True)
class ReadPlan:
    """What each read of the library is, in the order of reading.

    Attributes:
        kinds: ``MOLECULE`` and so on, uint8, shape (reads,).
        molecules: The molecule; for the other kinds the one that lends spot and fragment, uint32, shape (reads,).
    """

    kinds: NDArray[np.uint8]
    molecules: NDArray[np.uint32]


@dataclass(frozen=True)
class Templates:
    """All sequence that fragments are cut from: chromosomes, then transcripts, each with a poly-A tail.

    Attributes:
        pool: Codes, uint8.
        contig_starts: Where each chromosome begins in the pool, int64.
        transcript_starts: Where each gene's transcript begins, int64.
        transcript_lengths: Without the tail, int64.
    """

    pool: NDArray[np.uint8]
    contig_starts: NDArray[np.int64]
    transcript_starts: NDArray[np.int64]
    transcript_lengths: NDArray[np.int64]


def make_templates(genome: Genome, template_length: int) -> Templates:
    """Lay out the pool; the tails are as long as a template."""
    tail = np.zeros(template_length, dtype=np.uint8)
    transcripts = [genome.transcript(gene) for gene in range(len(genome.genes))]
    parts = [*genome.contigs, *(part for transcript in transcripts for part in (transcript, tail))]
    contig_sizes = np.array([contig.size for contig in genome.contigs], dtype=np.int64)
    lengths = np.array([transcript.size for transcript in transcripts], dtype=np.int64)
    contig_starts = np.cumsum(contig_sizes) - contig_sizes
    transcript_starts = contig_sizes.sum() + np.cumsum(lengths + template_length) - (lengths + template_length)
    return Templates(np.concatenate(parts), contig_starts, transcript_starts, lengths)


def draw_copies(settings: LibrarySettings, reads: int, seed: int) -> NDArray[np.uint32]:
    """Copies of each molecule, adding up to ``reads``: zero-truncated gamma-Poisson, then the singletons."""
    rng = np.random.default_rng([seed, 606])
    singletons = round(reads * settings.singleton_floor)
    wanted = reads - singletons
    mean = _untruncated_mean(settings.amplified_mean, settings.copy_shape)
    parts: list[NDArray[np.uint32]] = []
    total = 0
    while total < wanted:
        batch = int((wanted - total) / mean * 1.2) + 1000
        drawn = rng.poisson(rng.gamma(settings.copy_shape, mean / settings.copy_shape, batch))
        drawn = drawn[drawn > 0]
        parts.append(drawn.astype(np.uint32))
        total += int(drawn.sum())
    copies = np.concatenate(parts) if parts else np.empty(0, np.uint32)
    ends = np.cumsum(copies, dtype=np.int64)
    last = int(np.searchsorted(ends, wanted))
    copies = copies[: last + 1]
    if wanted:
        copies[-1] -= ends[last] - wanted
    return np.concatenate([copies, np.ones(singletons, dtype=np.uint32)])


def _untruncated_mean(truncated_mean: float, shape: float) -> float:
    """Mean of the negative binomial whose mean over the non-zero values is ``truncated_mean``, by bisection."""
    low, high = 1e-9, truncated_mean
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _truncated_mean(middle, shape) > truncated_mean else (middle, high)
    return 0.5 * (low + high)


def _truncated_mean(mean: float, shape: float) -> float:
    return float(mean / -np.expm1(shape * np.log(shape / (shape + mean))))


def draw_molecules(
    settings: LibrarySettings,
    chip: Chip,
    tissue: Tissue,
    genome: Genome,
    templates: Templates,
    effects: Effects,
    copies: NDArray[np.uint32],
    seed: int,
) -> Molecules:
    """Draw a molecule for each entry of ``copies``; no two share spot, gene and MID.

    Raises:
        ValueError: no cell on the chip, or no sequence between the genes.
    """
    count = copies.size
    landings = land_molecules(tissue, chip.cids > 0, count, seed)
    genes = draw_genes(tissue, effects, landings.cells, seed)
    rng = np.random.default_rng([seed, 707])
    bounds = np.cumsum([settings.exonic_share, settings.intronic_share, settings.antisense_share])
    origins = np.searchsorted(bounds, rng.random(count), side="right").astype(np.uint8)
    places = np.zeros(count, dtype=np.int64)
    starts = np.full(count, -1, dtype=np.int32)
    _place_introns(rng, settings, genome, templates, origins, genes, places)
    _place_spliced(rng, settings, templates, origins, genes, places, starts)
    reverse = origins == ANTISENSE
    strands = np.array([gene.strand for gene in genome.genes], dtype=np.bool_)
    intronic = origins == INTRONIC
    reverse[intronic] = strands[genes[intronic]]
    intergenic = np.flatnonzero(origins == INTERGENIC)
    places[intergenic] = _place_intergenic(rng, settings, genome, templates, intergenic.size)
    reverse[intergenic] = rng.random(intergenic.size) < 0.5
    genes[intergenic] = NO_GENE
    places[reverse] += settings.template_length - 1
    mids = distinct_mids(rng, settings.mid_length, landings.x, landings.y, genes)
    return Molecules(landings.x, landings.y, genes, mids, origins, copies, places, reverse, starts, landings.ambient)


def _place_spliced(
    rng: np.random.Generator,
    settings: LibrarySettings,
    templates: Templates,
    origins: NDArray[np.uint8],
    genes: NDArray[np.uint32],
    places: NDArray[np.int64],
    starts: NDArray[np.int32],
) -> None:
    """Place exonic and antisense fragments: gamma-distributed distance from the transcript's end."""
    members = np.flatnonzero((origins == EXONIC) | (origins == ANTISENSE))
    lengths = templates.transcript_lengths[genes[members]]
    room = np.maximum(lengths - settings.template_length, 0)
    distance = rng.gamma(2.0, settings.three_prime_distance / 2.0, members.size).astype(np.int64)
    # A distance beyond the 5' end wraps round, so that short transcripts are covered evenly.
    start = room - distance % (room + 1)
    into_tail = (rng.random(members.size) < settings.tail_share) & (origins[members] == EXONIC)
    overhang = rng.integers(1, min(41, settings.template_length), members.size)
    start = np.where(into_tail & (room > 0), room + overhang, start)
    starts[members] = start
    places[members] = templates.transcript_starts[genes[members]] + start


def _place_introns(
    rng: np.random.Generator,
    settings: LibrarySettings,
    genome: Genome,
    templates: Templates,
    origins: NDArray[np.uint8],
    genes: NDArray[np.uint32],
    places: NDArray[np.int64],
) -> None:
    """Place intronic fragments inside an intron of their gene, clear of every exon; without one they become exonic."""
    covered = _cumulated_cover(genome, templates, genome.exons)
    introns: list[list[tuple[int, int]]] = []
    for gene in genome.genes:
        offset = int(templates.contig_starts[gene.contig])
        gaps = zip(gene.exons[:-1], gene.exons[1:], strict=True)
        introns.append([(offset + left[1], offset + right[0]) for left, right in gaps])
    spare = settings.template_length
    usable = [[(start, end - spare) for start, end in gaps if end - start > spare] for gaps in introns]
    counts = np.array([len(gaps) for gaps in usable], dtype=np.int64)
    firsts = np.cumsum(counts) - counts
    flat = np.array([gap for gaps in usable for gap in gaps], dtype=np.int64).reshape(-1, 2)
    members = np.flatnonzero(origins == INTRONIC)
    origins[members[counts[genes[members]] == 0]] = EXONIC
    members = np.flatnonzero(origins == INTRONIC)
    for _ in range(8):
        if not members.size:
            return
        owners = genes[members]
        chosen = flat[firsts[owners] + (rng.random(members.size) * counts[owners]).astype(np.int64)]
        room = chosen[:, 1] - chosen[:, 0] + 1
        place = chosen[:, 0] + (rng.random(members.size) * room).astype(np.int64)
        places[members] = place
        members = members[covered[place + spare] > covered[place]]
    origins[members] = EXONIC


def _place_intergenic(
    rng: np.random.Generator, settings: LibrarySettings, genome: Genome, templates: Templates, count: int
) -> NDArray[np.int64]:
    """Places of fragments that touch no gene and no N, and stay within a chromosome."""
    spans = [(gene.contig, gene.exons[0][0], gene.exons[-1][1]) for gene in genome.genes]
    covered = _cumulated_cover(genome, templates, np.concatenate([np.array(spans, dtype=np.int64), genome.exons]))
    total = sum(contig.size for contig in genome.contigs)
    places = np.empty(count, dtype=np.int64)
    todo = np.arange(count)
    for _ in range(500):
        if not todo.size:
            return places
        drawn = rng.integers(0, total - settings.template_length, todo.size)
        # The base before a chromosome counts as covered, so a fragment over a border is refused.
        free = covered[drawn + settings.template_length] == covered[drawn]
        places[todo[free]] = drawn[free]
        todo = todo[~free]
    raise ValueError("no room for intergenic fragments: genes cover the genome; set intergenic_share to 0")


def _cumulated_cover(genome: Genome, templates: Templates, intervals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of bases before each place of the chromosomes that an interval covers, that are N, or end a chromosome."""
    total = sum(contig.size for contig in genome.contigs)
    edges = np.zeros(total + 1, dtype=np.int32)
    offsets = templates.contig_starts[intervals[:, 0]]
    np.add.at(edges, offsets + intervals[:, 1], 1)
    np.add.at(edges, offsets + intervals[:, 2], -1)
    covered = np.cumsum(edges)[:total] > 0
    covered |= templates.pool[:total] > 3
    covered[templates.contig_starts[1:] - 1] = True
    return np.concatenate([[0], np.cumsum(covered)])


def distinct_mids(
    rng: np.random.Generator, length: int, x: NDArray[np.int32], y: NDArray[np.int32], genes: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """Random MIDs, none of one base only, so that (spot, gene, MID) names one molecule."""
    values = 1 << (2 * length)
    single = np.array([value * (values - 1) // 3 for value in range(4)], dtype=np.uint32)
    mids = rng.integers(0, values, x.size, dtype=np.uint64).astype(np.uint32)
    redo = np.flatnonzero(np.isin(mids, single))
    while True:
        mids[redo] = rng.integers(0, values, redo.size, dtype=np.uint64).astype(np.uint32)
        order = np.lexsort((mids, genes, x, y))
        columns = [column[order] for column in (mids, genes, x, y)]
        same = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
        redo = np.union1d(order[1:][same], np.flatnonzero(np.isin(mids, single)))
        if not redo.size:
            return mids


def plan_reads(settings: LibrarySettings, copies: NDArray[np.uint32], reads: int, seed: int) -> ReadPlan:
    """Put the reads of all molecules and all the others in random order."""
    rng = np.random.default_rng([seed, 808])
    counts = split_reads(settings, reads)
    kinds = np.repeat(np.arange(len(READ_KINDS), dtype=np.uint8), counts)
    molecules = np.empty(reads, dtype=np.uint32)
    molecules[: counts[MOLECULE]] = np.repeat(np.arange(copies.size, dtype=np.uint32), copies)
    molecules[counts[MOLECULE] :] = rng.integers(0, copies.size, reads - counts[MOLECULE])
    order = rng.permutation(reads)
    return ReadPlan(kinds[order], molecules[order])


def split_reads(settings: LibrarySettings, reads: int) -> tuple[int, ...]:
    """How many reads there are of each kind, in the order of ``READ_KINDS``."""
    shares = (settings.unreadable_mid_share, settings.adapter_share, settings.chip_dna_share, settings.off_chip_share)
    others = tuple(round(reads * share) for share in shares)
    if reads <= sum(others):
        raise ValueError(f"{reads} reads are too few for the shares asked for")
    return (reads - sum(others), *others)


def expected_loss(settings: LibrarySettings, copies: NDArray[np.uint32]) -> float:
    """Share of the molecules that no reader can place: two or more wrong CID bases in every one of their reads.

    One N counts as one wrong base. Published shape (0.54) and floor (0.072) at saturation 0.70 give 0.9 %.
    """
    length, wrong = 25, settings.cid_error + settings.n_rate
    right = 1.0 - wrong
    lost = 1.0 - right**length - length * wrong * right ** (length - 1)
    histogram = np.bincount(copies)
    return float((histogram * lost ** np.arange(histogram.size)).sum() / copies.size)
