"""Clones: what each genome has of every place, and what carries which variant."""

from __future__ import annotations

import numpy as np
import pytest

from cartoseq.simulators.clones import (
    CLONE_A,
    CLONE_B,
    GERMLINE,
    MIRRORED_A,
    NORMAL,
    Clones,
    CloneSettings,
    make_clones,
)
from cartoseq.simulators.genome import Genome, GenomeSettings, make_genome, read_genome

HUMAN_LIKE = GenomeSettings(bases=6_000_000, contigs=22, genes=300)


@pytest.fixture(scope="module")
def genome() -> Genome:
    return make_genome(HUMAN_LIKE, 1)


@pytest.fixture(scope="module")
def clones(genome: Genome) -> Clones:
    return make_clones(CloneSettings(), genome, 1)


def at(clones: Clones, chromosome: int, share: float) -> list[list[int]]:
    """Copies of both haplotypes in each genome."""
    contig = np.array([chromosome - 1])
    position = np.array([int(share * clones.contig_lengths[chromosome - 1])])
    return clones.copies(contig, position)[0].tolist()


def test_each_genome_has_the_copies_of_its_events(clones: Clones) -> None:
    assert at(clones, 4, 0.5) == [[1, 1], [1, 1], [1, 1], [1, 1]]
    assert at(clones, 7, 0.9) == [[1, 1], [2, 1], [2, 1], [2, 1]]
    assert at(clones, 10, 0.1) == [[1, 1], [1, 0], [1, 0], [0, 1]]
    assert at(clones, 1, 0.39) == [[1, 1]] * 4
    assert at(clones, 1, 0.41) == [[1, 1], [1, 2], [1, 2], [1, 2]]
    assert at(clones, 8, 0.8) == [[1, 1], [1, 1], [3, 1], [1, 1]]
    assert at(clones, 12, 0.57) == [[1, 1], [1, 1], [7, 1], [1, 1]]
    assert at(clones, 9, 0.2) == [[1, 1], [1, 1], [2, 0], [1, 1]]


def test_segments_cover_every_contig_once(clones: Clones) -> None:
    segments = clones.segments
    for contig, length in enumerate(clones.contig_lengths.tolist()):
        starts, ends = segments.start[segments.contig == contig], segments.end[segments.contig == contig]
        assert starts[0] == 0
        assert ends[-1] == length
        assert np.array_equal(starts[1:], ends[:-1])


def test_a_window_has_the_mean_of_its_bases(clones: Clones) -> None:
    window_bp = 7_000
    windows = clones.window_copies(window_bp)
    first = 0
    for contig, length in enumerate(clones.contig_lengths.tolist()):
        places = np.arange(0, length, 10)
        copies = clones.copies(np.full(places.size, contig), places).sum(axis=2)
        count = -(-length // window_bp)
        for genome in (NORMAL, CLONE_A, CLONE_B, MIRRORED_A):
            sums = np.bincount(places // window_bp, weights=copies[:, genome], minlength=count)
            expected = sums / np.bincount(places // window_bp, minlength=count)
            np.testing.assert_allclose(windows[first : first + count, genome], expected, atol=0.02)
        first += count
    assert first == windows.shape[0]


def test_what_carries_a_variant_follows_from_where_it_arose(clones: Clones) -> None:
    loci = clones.loci
    copies = clones.copies(loci.contig, loci.position)
    assert np.array_equal(copies.sum(axis=2), loci.copies)
    own = np.take_along_axis(copies, loci.haplotype[:, None, None], axis=2)[:, :, 0]
    germline = loci.clone == GERMLINE
    assert np.array_equal(loci.alternative_copies[germline], own[germline])
    of_a, of_b = loci.clone == CLONE_A, loci.clone == CLONE_B
    assert not loci.alternative_copies[of_a, NORMAL].any()
    assert (loci.alternative_copies[of_a, CLONE_A] > 0).all()
    assert not loci.alternative_copies[of_b][:, [NORMAL, CLONE_A, MIRRORED_A]].any()
    assert (loci.alternative_copies[of_b, CLONE_B] > 0).all()
    # What arose in B is younger than the gains of A, and older than those of B unless it is late.
    gained_in_a = of_b & (own[:, CLONE_A] == 2)
    assert gained_in_a.sum() > 3
    assert (loci.alternative_copies[gained_in_a, CLONE_B] == 1).all()
    gained_in_b = of_b & ~loci.late & (own[:, CLONE_A] == 1)
    assert (own[gained_in_b, CLONE_B] == 3).any()
    assert np.array_equal(loci.alternative_copies[gained_in_b, CLONE_B], own[gained_in_b, CLONE_B])
    late = loci.late & of_b
    assert late.any()
    assert (loci.alternative_copies[late, CLONE_B] == 1).all()


def test_variants_differ_from_the_reference_and_stand_on_places_of_their_own(genome: Genome, clones: Clones) -> None:
    loci = clones.loci
    assert (loci.reference != loci.alternative).all()
    stands = [genome.contigs[c][p] for c, p in zip(loci.contig.tolist(), loci.position.tolist(), strict=True)]
    assert np.array_equal(stands, loci.reference)
    places = loci.contig * 10**9 + loci.position
    assert (np.diff(places) > 0).all()
    assert loci.position.size == pytest.approx(6e6 / 1500 + 2 * 6e6 / 20_000, rel=0.05)


def test_five_drivers_lie_in_last_exons(genome: Genome, clones: Clones) -> None:
    drivers = np.flatnonzero(clones.loci.driver != "")
    assert drivers.size == 5
    genes = {gene.gene_id: gene for gene in genome.genes}
    for number in drivers.tolist():
        gene = genes[str(clones.loci.driver[number])]
        start, end = gene.exons[0] if gene.strand else gene.exons[-1]
        assert gene.contig == clones.loci.contig[number]
        assert start <= clones.loci.position[number] < end


def test_the_same_events_lie_on_a_genome_of_few_contigs(real_data) -> None:
    folder = real_data / "reference_dm6"
    genome = read_genome(folder / "dm6.small.fa.gz", folder / "dm6.small.gtf.gz")
    clones = make_clones(CloneSettings(), genome, 1)
    shares = (clones.segments.end - clones.segments.start)[:, None] * clones.segments.copies.sum(axis=2)
    human_like = make_clones(CloneSettings(), make_genome(HUMAN_LIKE, 2), 2)
    sizes = (human_like.segments.end - human_like.segments.start)[:, None] * human_like.segments.copies.sum(axis=2)
    ours = shares.sum(axis=0) / clones.contig_lengths.sum()
    theirs = sizes.sum(axis=0) / human_like.contig_lengths.sum()
    np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_the_same_seed_gives_the_same_clones(genome: Genome, clones: Clones) -> None:
    again = make_clones(CloneSettings(), genome, 1)
    assert np.array_equal(again.loci.position, clones.loci.position)
    assert again.rearrangements == clones.rearrangements
    assert make_clones(CloneSettings(), genome, 2).rearrangements != clones.rearrangements


def test_variants_that_are_too_near_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 100 bases apart"):
        CloneSettings(germline_every_bp=10)
