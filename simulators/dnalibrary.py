"""A DNA library of a section: fragments of the cells' genomes, each with the allele of its haplotype and clone.

A fragment comes from a cell (every copy of every base of its genome is as likely as any other), moves a little, and is
captured like a molecule of RNA. GC content decides how well it is amplified; which way it goes differs from run to run
(whole-genome libraries show correlations of coverage and GC from -0.3 to +0.8) and is drawn from the seed. What is read
is the fragment's first ``template_length`` bases from its 5' end, on either strand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.chip import Chip
from cartoseq.simulators.clones import GENOMES, STEP_BP, Clones
from cartoseq.simulators.genome import Genome
from cartoseq.simulators.library import INTERGENIC, NO_GENE, LibrarySettings, Molecules, distinct_mids
from cartoseq.simulators.tissue import Tissue, land

#: GC content is that of so many bases around: what a fragment of a usual library spans.
_GC_BP: Final = 400
_COMPLEMENT: Final = np.array([3, 2, 1, 0, 4], dtype=np.uint8)


@dataclass(frozen=True)
class DnaSettings:
    """What a DNA library is like.

    Attributes:
        template_length: Bases of a fragment that are read.
        diffusion_um: Standard deviation of the way a fragment goes, per axis: the genome is large, and held.
        ambient_share: Share of the fragments that land anywhere on the chip.
        gc_bias: How much coverage changes over one standard deviation of GC content, as a log; the sign is the run's.
        gc_curvature: How much both extremes of GC content lose, as a log at one standard deviation.
    """

    template_length: int = 100
    diffusion_um: float = 2.0
    ambient_share: float = 0.02
    gc_bias: float = 0.25
    gc_curvature: float = 0.05

    def __post_init__(self) -> None:
        if not 20 <= self.template_length <= 1000:
            raise ValueError(f"templates of {self.template_length} bases: 20 to 1000 are possible")
        if self.diffusion_um < 0 or not 0 <= self.ambient_share < 1:
            raise ValueError(f"diffusion_um {self.diffusion_um}, ambient_share {self.ambient_share}: 0 and more")


@dataclass(frozen=True)
class Fragments:
    """Fragments of DNA, as captured; every array has shape (n,).

    Attributes:
        x: Spot column, int32.
        y: Spot row, int32.
        contig: Contig, int64.
        left: Leftmost base of what is read, 0-based, int64. Across a junction: of the stretch of the reference whose
            place it takes; where it really lies, :func:`five_prime_ends` tells.
        reverse: It is read from its right end, as the reverse complement, bool.
        genome: ``NORMAL``, ``CLONE_A`` and so on: the genome of the cell that it left, uint8.
        haplotype: 0 maternal, 1 paternal; uint8.
        junction: Number of the rearrangement that it spans, -1 for none, int8.
        ambient: It landed anywhere, bool.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    contig: NDArray[np.int64]
    left: NDArray[np.int64]
    reverse: NDArray[np.bool_]
    genome: NDArray[np.uint8]
    haplotype: NDArray[np.uint8]
    junction: NDArray[np.int8]
    ambient: NDArray[np.bool_]

    def position(self, template_length: int) -> NDArray[np.int64]:
        """Where the 5' end of each lies on its contig, if it is across no junction."""
        return self.left + np.where(self.reverse, template_length - 1, 0)


@dataclass(frozen=True)
class FivePrimeEnds:
    """Where fragments begin, as a mapper sees it; every array has shape (n,).

    Attributes:
        contig: Contig, int64.
        position: The base that is read first, 0-based, int64.
        reverse: From there on, the read runs against the direction of the contig, bool.
    """

    contig: NDArray[np.int64]
    position: NDArray[np.int64]
    reverse: NDArray[np.bool_]


@dataclass(frozen=True)
class Sightings:
    """Which fragments cover which variant; every array has shape (n,).

    Attributes:
        fragment: Number of the fragment, int64, ascending.
        locus: Number of the locus, int64.
        alternative: The fragment carries the other base, bool.
    """

    fragment: NDArray[np.int64]
    locus: NDArray[np.int64]
    alternative: NDArray[np.bool_]


def gc_weights(settings: DnaSettings, genome: Genome, seed: int) -> tuple[NDArray[np.float64], ...]:
    """How likely a fragment is in each step of ``STEP_BP`` bases of each contig, for one copy; mean about 1."""
    rng = np.random.default_rng([seed, 1_515])
    sign = 1.0 if rng.random() < 0.5 else -1.0
    contents = [_gc_of_steps(contig) for contig in genome.contigs]
    every = np.concatenate(contents)
    middle, spread = float(every.mean()), max(float(every.std()), 1e-6)
    weights = []
    for content in contents:
        deviation = np.clip((content - middle) / spread, -3.0, 3.0)
        weights.append(np.exp(sign * settings.gc_bias * deviation - settings.gc_curvature * deviation**2))
    return tuple(weights)


def _gc_of_steps(contig: NDArray[np.uint8]) -> NDArray[np.float64]:
    strong = np.concatenate([[0], np.cumsum((contig == 1) | (contig == 2), dtype=np.int64)])
    middles = np.arange(0, contig.size, STEP_BP) + STEP_BP // 2
    first, last = np.clip(middles - _GC_BP // 2, 0, contig.size), np.clip(middles + _GC_BP // 2, 0, contig.size)
    content: NDArray[np.float64] = (strong[last] - strong[first]) / np.maximum(last - first, 1)
    return content


def draw_fragments(
    settings: DnaSettings, chip: Chip, tissue: Tissue, genome: Genome, clones: Clones, count: int, seed: int
) -> Fragments:
    """Draw ``count`` captured fragments.

    None of them holds an unknown base of the reference.

    Raises:
        ValueError: no cell fits on the chip, a contig is shorter than a template, or no stretch as long is known.
    """
    length = settings.template_length
    sizes = clones.contig_lengths
    if int(sizes.min()) < length:
        raise ValueError(f"a contig of {sizes.min()} bases has no room for a fragment of {length}")
    rng = np.random.default_rng([seed, 1_616])
    starts_in_step = _starts_in_steps(genome, length)
    of_steps = _step_weights(gc_weights(settings, genome, seed), clones, starts_in_step)
    steps = [np.arange(0, size, STEP_BP) for size in sizes.tolist()]
    contig_of_step = np.repeat(np.arange(sizes.size), [step.size for step in steps])
    start_of_step = np.concatenate(steps)
    # A cell gives as much as its genome has.
    content = of_steps.sum(axis=(0, 2))
    if not content.min() > 0:
        raise ValueError(f"no stretch of {length} bases of the reference is known")
    weights = content[tissue.cells.genomes]
    reach_um = float(np.hypot(settings.diffusion_um, tissue.settings.cell_radius_um))
    landed = land(rng, tissue, chip.cids > 0, weights, reach_um, settings.ambient_share, count)
    of_cell = tissue.cells.genomes[landed.cells]
    at = np.empty(count, np.int64)
    haplotype = np.empty(count, np.uint8)
    for number in range(len(GENOMES)):
        members = np.flatnonzero(of_cell == number)
        # Steps of both haplotypes in turn, so that one draw tells both.
        cumulated = np.cumsum(of_steps[:, number].ravel())
        drawn = np.searchsorted(cumulated, rng.random(members.size) * cumulated[-1], side="right")
        at[members], haplotype[members] = drawn // 2, drawn % 2
    contig = contig_of_step[at]
    left = start_of_step[at] + (rng.random(count) * np.concatenate(starts_in_step)[at]).astype(np.int64)
    reverse = rng.random(count) < 0.5
    fragments = Fragments(
        landed.x, landed.y, contig, left, reverse, of_cell, haplotype, np.full(count, -1, np.int8), landed.ambient
    )
    return _across_junctions(rng, settings, clones, fragments)


def _starts_in_steps(genome: Genome, template_length: int) -> list[NDArray[np.int64]]:
    """In each step of each contig, how many of its first bases a fragment may begin at.

    It may not leave the contig; a step from which it may reach an unknown base has none.
    """
    parts = []
    for contig in genome.contigs:
        starts = np.arange(0, contig.size, STEP_BP, dtype=np.int64)
        room = np.clip(contig.size - template_length + 1 - starts, 0, STEP_BP)
        unknown = np.concatenate([[0], np.cumsum(contig > 3, dtype=np.int64)])
        reach = np.minimum(starts + STEP_BP + template_length - 1, contig.size)
        parts.append(np.where(unknown[reach] == unknown[starts], room, 0))
    return parts


def _step_weights(
    weights: tuple[NDArray[np.float64], ...], clones: Clones, starts_in_step: list[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Fragments expected of each step, genome and haplotype; shape (steps, genomes, 2)."""
    parts = []
    for contig, (of_copy, allowed) in enumerate(zip(weights, starts_in_step, strict=True)):
        starts = np.arange(of_copy.size, dtype=np.int64) * STEP_BP
        copies = clones.copies(np.full(starts.size, contig), starts)
        parts.append(copies * (of_copy * allowed / STEP_BP)[:, None, None])
    return np.concatenate(parts)


def _across_junctions(
    rng: np.random.Generator, settings: DnaSettings, clones: Clones, fragments: Fragments
) -> Fragments:
    """Let the fragments that reach a break on a copy that has it go on at its other side.

    As many places of a fragment cross a junction as cross the break in the reference: one takes the other's place.
    """
    junction = fragments.junction.copy()
    length = settings.template_length
    for number, found in enumerate(clones.rearrangements):
        before = found.break_place - fragments.left
        reaches = (fragments.contig == found.break_contig) & (before > 0) & (before < length)
        reaches &= (fragments.haplotype == found.haplotype) & np.isin(fragments.genome, found.genomes)
        members = np.flatnonzero(reaches)
        place = clones.copies(np.full(1, found.break_contig), np.full(1, found.break_place - 1))[0]
        copies = np.maximum(place[fragments.genome[members], found.haplotype], 1)
        junction[members[rng.random(members.size) * copies < 1.0]] = number
    return Fragments(
        fragments.x,
        fragments.y,
        fragments.contig,
        fragments.left,
        fragments.reverse,
        fragments.genome,
        fragments.haplotype,
        junction,
        fragments.ambient,
    )


def five_prime_ends(settings: DnaSettings, clones: Clones, fragments: Fragments) -> FivePrimeEnds:
    """Where each fragment begins; of one across a junction, on the side of the junction that it begins on."""
    contig, position = fragments.contig.copy(), fragments.position(settings.template_length)
    reverse = fragments.reverse.copy()
    for number, found in enumerate(clones.rearrangements):
        members = np.flatnonzero(fragments.junction == number)
        first = found.break_place - fragments.left[members]
        second = settings.template_length - first
        # The base of each part that lies farthest from the junction.
        far_a = found.place_a + first - 1 if found.reversed_a else found.place_a - first
        far_b = found.place_b - second if found.reversed_b else found.place_b + second - 1
        from_b = fragments.reverse[members]
        contig[members] = np.where(from_b, found.contig_b, found.contig_a)
        position[members] = np.where(from_b, far_b, far_a)
        reverse[members] = np.where(from_b, not found.reversed_b, found.reversed_a)
    return FivePrimeEnds(contig, position, reverse)


def sightings(settings: DnaSettings, clones: Clones, fragments: Fragments, seed: int) -> Sightings:
    """Which fragments cover which variants, and with which base: truth for allele counts.

    Fragments across a junction are left out: what they show of its far side is another place's.
    """
    rng = np.random.default_rng([seed, 1_717])
    loci, sizes = clones.loci, clones.contig_lengths
    offsets = np.cumsum(sizes) - sizes
    places = offsets[loci.contig] + loci.position
    left = offsets[fragments.contig] + fragments.left
    first = np.searchsorted(places, left)
    counts = np.searchsorted(places, left + settings.template_length) - first
    counts[fragments.junction >= 0] = 0
    fragment = np.repeat(np.arange(left.size), counts)
    locus = np.arange(fragment.size) - np.repeat(np.cumsum(counts) - counts, counts) + first[fragment]
    genome = fragments.genome[fragment]
    carried = loci.alternative_copies[locus, genome]
    on_haplotype = fragments.haplotype[fragment] == loci.haplotype[locus]
    # A late variant is on one of the haplotype's copies.
    copies = clones.copies(loci.contig, loci.position)[locus, genome, loci.haplotype[locus]]
    alternative = on_haplotype & (rng.random(fragment.size) * np.maximum(copies, 1) < carried)
    return Sightings(fragment, locus, alternative)


def fragment_pool(
    settings: DnaSettings, genome: Genome, clones: Clones, fragments: Fragments, seen: Sightings
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The sequence that fragments are cut from: the contigs, and then each fragment that differs from them.

    Returns:
        The pool, codes, uint8; and the first base of each fragment in it (its last if it is reversed), int64.
    """
    length = settings.template_length
    sizes = clones.contig_lengths
    offsets = np.cumsum(sizes) - sizes
    pool = np.concatenate(genome.contigs)
    places = offsets[fragments.contig] + fragments.left
    changed = seen.fragment[seen.alternative]
    own = np.union1d(changed, np.flatnonzero(fragments.junction >= 0))
    rows = pool[places[own][:, None] + np.arange(length)]
    row_of = np.searchsorted(own, changed)
    locus = seen.locus[seen.alternative]
    column = clones.loci.position[locus] - fragments.left[changed]
    rows[row_of, column] = clones.loci.alternative[locus]
    for row in np.flatnonzero(fragments.junction[own] >= 0).tolist():
        found = clones.rearrangements[int(fragments.junction[own[row]])]
        kept = found.break_place - int(fragments.left[own[row]])
        end = int(offsets[found.contig_a]) + found.place_a
        if found.reversed_a:
            rows[row, :kept] = _COMPLEMENT[pool[end : end + kept][::-1]]
        else:
            rows[row, :kept] = pool[end - kept : end]
        start = int(offsets[found.contig_b]) + found.place_b
        if found.reversed_b:
            rows[row, kept:] = _COMPLEMENT[pool[start - (length - kept) : start][::-1]]
        else:
            rows[row, kept:] = pool[start : start + length - kept]
    places[own] = pool.size + np.arange(own.size) * length
    places[fragments.reverse] += length - 1
    return np.concatenate([pool, rows.ravel()]), places


def molecules_of(
    library: LibrarySettings,
    fragments: Fragments,
    places: NDArray[np.int64],
    copies: NDArray[np.uint32],
    seed: int,
) -> Molecules:
    """Fragments as molecules that are copied and read.

    Args:
        library: How they are copied and read.
        fragments: The fragments.
        places: Where each begins in the pool, from :func:`fragment_pool`.
        copies: Reads of each.
        seed: Seed.
    """
    rng = np.random.default_rng([seed, 1_818])
    none = np.full(fragments.x.size, NO_GENE, dtype=np.uint32)
    origins = np.full(fragments.x.size, INTERGENIC, dtype=np.uint8)
    starts = np.full(fragments.x.size, -1, dtype=np.int32)
    mids = distinct_mids(rng, library.mid_length, fragments.x, fragments.y, none)
    return Molecules(
        fragments.x, fragments.y, none, mids, origins, copies, places, fragments.reverse, starts, fragments.ambient
    )
