"""DNA libraries: fragments in proportion to copies, alleles of their haplotype, sequences across junctions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cartoseq.simulators.chip import ChipSettings, make_chip
from cartoseq.simulators.clones import CLONE_B, GENOMES, NORMAL, CloneSettings, make_clones
from cartoseq.simulators.dnalibrary import (
    DnaSettings,
    draw_fragments,
    five_prime_ends,
    fragment_pool,
    gc_weights,
    sightings,
)
from cartoseq.simulators.genome import GenomeSettings, make_genome
from cartoseq.simulators.tissue import TissueSettings, make_tissue

EVEN = DnaSettings(gc_bias=0.0, gc_curvature=0.0)
COUNT = 400_000


@pytest.fixture(scope="module")
def genome():
    return make_genome(GenomeSettings(bases=3_000_000, contigs=22, genes=200), 3)


@pytest.fixture(scope="module")
def clones(genome):
    return make_clones(CloneSettings(), genome, 3)


@pytest.fixture(scope="module")
def chip():
    return make_chip(ChipSettings(width=1200, height=1200), 3)


@pytest.fixture(scope="module")
def tissue(genome):
    return make_tissue(TissueSettings(tumour_share=0.6), 1200, 1200, 500, genome.families, 3)


@pytest.fixture(scope="module")
def fragments(chip, tissue, genome, clones):
    return draw_fragments(EVEN, chip, tissue, genome, clones, COUNT, 3)


def test_every_genome_gives_fragments_in_proportion_to_its_copies(clones, fragments):
    window_bp = 10_000
    windows = clones.window_copies(window_bp)
    counts_of = -(-clones.contig_lengths // window_bp)
    firsts = np.cumsum(counts_of) - counts_of
    window = firsts[fragments.contig] + fragments.left // window_bp
    number_in_contig = np.concatenate([np.arange(count) for count in counts_of])
    bases = np.minimum(window_bp, np.repeat(clones.contig_lengths, counts_of) - number_in_contig * window_bp)
    # At the end of a contig there is no room for a fragment to begin.
    inner = bases == window_bp
    for number in range(len(GENOMES)):
        counts = np.bincount(window[fragments.genome == number], minlength=bases.size)[inner]
        expected = (windows[:, number] * bases)[inner]
        expected *= counts.sum() / expected.sum()
        chi_square = ((counts - expected) ** 2 / expected).sum()
        freedom = counts.size - 1
        assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_cells_with_more_dna_give_more_fragments(tissue, clones, fragments):
    cells = np.bincount(tissue.cells.genomes, minlength=4)
    per_cell = np.bincount(fragments.genome, minlength=4) / cells
    windows = clones.window_copies(1_000).mean(axis=0)
    # Capture differs from place to place, so this is only near.
    assert per_cell[CLONE_B] / per_cell[NORMAL] == pytest.approx(windows[CLONE_B] / windows[NORMAL], rel=0.12)


def test_which_way_gc_goes_is_the_runs(genome):
    content = np.concatenate([_gc(contig) for contig in genome.contigs])
    signs = set()
    for seed in range(12):
        weights = np.concatenate(gc_weights(DnaSettings(gc_curvature=0.0), genome, seed))
        signs.add(np.sign(np.corrcoef(weights, content)[0, 1]))
    assert signs == {-1.0, 1.0}
    assert np.allclose(np.concatenate(gc_weights(EVEN, genome, 1)), 1.0)


def _gc(contig):
    strong = (contig == 1) | (contig == 2)
    middles = np.arange(0, contig.size, 200) + 100
    return np.array([strong[max(0, middle - 200) : middle + 200].mean() for middle in middles.tolist()])


def test_a_variant_is_seen_as_often_as_copies_carry_it(clones, fragments):
    seen = sightings(EVEN, clones, fragments, 3)
    left, position = fragments.left[seen.fragment], clones.loci.position[seen.locus]
    assert np.array_equal(fragments.contig[seen.fragment], clones.loci.contig[seen.locus])
    assert ((position >= left) & (position < left + 100)).all()
    genome = fragments.genome[seen.fragment]
    carried, copies = clones.loci.alternative_copies[seen.locus, genome], clones.loci.copies[seen.locus, genome]
    for share in (0.0, 0.25, 1 / 3, 0.5, 2 / 3, 0.75, 1.0):
        members = np.isclose(carried / copies, share)
        expected, count = share, np.count_nonzero(members)
        if count < 50:
            continue
        error = np.sqrt(max(expected * (1 - expected), 0) / count)
        assert abs(seen.alternative[members].mean() - expected) <= 5 * error + 1e-12
    assert np.count_nonzero(np.isclose(carried / copies, 0.5)) > 1_000


def test_every_sighting_is_one_of_those_that_a_plain_search_finds(clones, fragments):
    few = replace(fragments, **{name: column[:3_000] for name, column in vars(fragments).items()})
    seen = sightings(EVEN, clones, few, 3)
    expected = [
        (number, locus)
        for number in range(3_000)
        if few.junction[number] < 0
        for locus in np.flatnonzero(
            (clones.loci.contig == few.contig[number])
            & (clones.loci.position >= few.left[number])
            & (clones.loci.position < few.left[number] + 100)
        ).tolist()
    ]
    assert list(zip(seen.fragment.tolist(), seen.locus.tolist(), strict=True)) == expected


def test_a_fragment_is_cut_from_the_pool_with_its_alleles(genome, clones, fragments):
    few = replace(fragments, **{name: column[:5_000] for name, column in vars(fragments).items()})
    seen = sightings(EVEN, clones, few, 3)
    pool, places = fragment_pool(EVEN, genome, clones, few, seen)
    for number in range(5_000):
        place = int(places[number])
        cut = pool[place - 99 : place + 1] if few.reverse[number] else pool[place : place + 100]
        left = int(few.left[number])
        expected = genome.contigs[few.contig[number]][left : left + 100].copy()
        if few.junction[number] >= 0:
            continue
        for at in np.flatnonzero((seen.fragment == number) & seen.alternative).tolist():
            locus = int(seen.locus[at])
            expected[clones.loci.position[locus] - left] = clones.loci.alternative[locus]
        assert np.array_equal(cut, expected)


@pytest.mark.parametrize("number", range(5))
def test_a_fragment_across_a_junction_goes_on_at_its_other_side(genome, clones, fragments, number):
    found = clones.rearrangements[number]
    one = replace(fragments, **{name: column[:1].copy() for name, column in vars(fragments).items()})
    one.contig[0], one.left[0] = found.break_contig, found.break_place - 30
    one.junction[0], one.reverse[0] = number, False
    pool, places = fragment_pool(EVEN, genome, clones, one, sightings(EVEN, clones, one, 3))
    cut = pool[places[0] : places[0] + 100]
    first = genome.contigs[found.contig_a]
    if found.reversed_a:
        before = np.array([3, 2, 1, 0, 4])[first[found.place_a : found.place_a + 30][::-1]]
    else:
        before = first[found.place_a - 30 : found.place_a]
    assert np.array_equal(cut[:30], before)
    other = genome.contigs[found.contig_b]
    if found.reversed_b:
        expected = np.array([3, 2, 1, 0, 4])[other[found.place_b - 70 : found.place_b][::-1]]
    else:
        expected = other[found.place_b : found.place_b + 70]
    assert np.array_equal(cut[30:], expected)


def test_junctions_are_spanned_by_the_genomes_that_have_them(chip, tissue, genome, clones):
    fragments = draw_fragments(EVEN, chip, tissue, genome, clones, 3_000_000, 5)
    across = np.flatnonzero(fragments.junction >= 0)
    assert across.size > 10
    for number in across.tolist():
        found = clones.rearrangements[int(fragments.junction[number])]
        assert fragments.genome[number] in found.genomes
        assert fragments.haplotype[number] == found.haplotype
        assert 0 < found.break_place - fragments.left[number] < 100
    # Each of a carrier's junctions is crossed as often as any other place of one copy is.
    for number, found in enumerate(clones.rearrangements):
        carriers = np.isin(fragments.genome, found.genomes)
        bases = np.array([clones.window_copies(10**9)[:, one] @ clones.contig_lengths for one in range(len(GENOMES))])
        expected = 99 * (np.bincount(fragments.genome[carriers], minlength=len(GENOMES)) / bases).sum()
        assert abs(np.count_nonzero(fragments.junction == number) - expected) < 5 * np.sqrt(expected)


def test_no_copy_with_a_junction_shows_the_reference_where_it_breaks(chip, tissue, genome, clones):
    fragments = draw_fragments(EVEN, chip, tissue, genome, clones, 3_000_000, 5)
    for found in clones.rearrangements:
        over = (fragments.contig == found.break_contig) & (fragments.haplotype == found.haplotype)
        over &= (fragments.left > found.break_place - 100) & (fragments.left < found.break_place)
        over &= np.isin(fragments.genome, found.genomes)
        assert over.any()
        assert (fragments.junction[over] >= 0).all()


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("reverse", [False, True])
def test_a_fragment_across_a_junction_begins_where_its_first_bases_lie(genome, clones, fragments, number, reverse):
    found = clones.rearrangements[number]
    one = replace(fragments, **{name: column[:1].copy() for name, column in vars(fragments).items()})
    one.contig[0], one.left[0] = found.break_contig, found.break_place - 45
    one.junction[0], one.reverse[0] = number, reverse
    pool, places = fragment_pool(EVEN, genome, clones, one, sightings(EVEN, clones, one, 3))
    complement, place = np.array([3, 2, 1, 0, 4]), int(places[0])
    read = complement[pool[place - 99 : place + 1][::-1]] if reverse else pool[place : place + 100]
    ends = five_prime_ends(EVEN, clones, one)
    contig, position = genome.contigs[int(ends.contig[0])], int(ends.position[0])
    lies = (
        complement[contig[position - 39 : position + 1][::-1]] if ends.reverse[0] else contig[position : position + 40]
    )
    assert np.array_equal(read[:40], lies)


def test_the_other_fragments_begin_at_their_left_or_right_end(clones, fragments):
    ends, plain = five_prime_ends(EVEN, clones, fragments), fragments.junction < 0
    assert np.array_equal(ends.reverse[plain], fragments.reverse[plain])
    assert np.array_equal(ends.position[plain], (fragments.left + 99 * fragments.reverse)[plain])


def test_fragments_are_spread_evenly_up_to_the_end_of_a_contig(chip, tissue, genome, clones):
    fragments = draw_fragments(EVEN, chip, tissue, genome, clones, 1_000_000, 7)
    from_end = clones.contig_lengths[fragments.contig] - 100 - fragments.left
    assert from_end.min() == 0
    counts = np.bincount(from_end[from_end < 400], minlength=400).reshape(40, 10).sum(axis=1)
    expected = counts.mean()
    assert expected > 50
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


def test_no_fragment_holds_an_unknown_base(chip, tissue, genome, clones):
    contigs = [contig.copy() for contig in genome.contigs]
    contigs[0][20_100:60_050] = 4
    fragments = draw_fragments(EVEN, chip, tissue, replace(genome, contigs=tuple(contigs)), clones, 100_000, 3)
    left = fragments.left[fragments.contig == 0]
    assert left.size > 1_000
    assert not ((left + 100 > 20_100) & (left < 60_050)).any()
    unknown = tuple(np.full_like(contig, 4) for contig in contigs)
    with pytest.raises(ValueError, match="no stretch of 100 bases"):
        draw_fragments(EVEN, chip, tissue, replace(genome, contigs=unknown), clones, 10, 3)


def test_the_same_seed_gives_the_same_fragments(chip, tissue, genome, clones, fragments):
    again = draw_fragments(EVEN, chip, tissue, genome, clones, COUNT, 3)
    assert all(np.array_equal(getattr(again, name), column) for name, column in vars(fragments).items())


def test_a_template_longer_than_a_contig_is_refused(chip, tissue, genome, clones):
    with pytest.raises(ValueError, match="has no room"):
        draw_fragments(DnaSettings(template_length=1000), chip, tissue, genome, _short(clones), 10, 1)


def _short(clones):
    lengths = clones.contig_lengths.copy()
    lengths[0] = 500
    return replace(clones, contig_lengths=lengths)
