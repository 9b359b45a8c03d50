"""Libraries: copies, molecules, the plan of reads."""

from __future__ import annotations

import numpy as np
import pytest

from cartoseq.simulators.chip import ChipSettings, make_chip
from cartoseq.simulators.expression import no_effects
from cartoseq.simulators.genome import Genome, GenomeSettings, make_genome
from cartoseq.simulators.library import (
    ANTISENSE,
    EXONIC,
    INTERGENIC,
    INTRONIC,
    MOLECULE,
    NO_GENE,
    ORIGINS,
    LibrarySettings,
    Molecules,
    Templates,
    draw_copies,
    draw_molecules,
    expected_loss,
    make_templates,
    plan_reads,
    split_reads,
)
from cartoseq.simulators.tissue import TissueSettings, make_tissue

LIBRARY = LibrarySettings()


@pytest.fixture(scope="module")
def genome() -> Genome:
    return make_genome(GenomeSettings(bases=400_000, contigs=2, genes=40), seed=1)


@pytest.fixture(scope="module")
def templates(genome: Genome) -> Templates:
    return make_templates(genome, LIBRARY.template_length)


@pytest.fixture(scope="module")
def molecules(genome: Genome, templates: Templates) -> Molecules:
    chip = make_chip(ChipSettings(300, 300), seed=1)
    tissue = make_tissue(TissueSettings(), 300, 300, 500, genome.families, seed=1)
    copies = draw_copies(LIBRARY, 60_000, seed=1)
    return draw_molecules(LIBRARY, chip, tissue, genome, templates, no_effects(len(genome.genes)), copies, seed=1)


def test_copies_add_up_with_the_mean_asked_for() -> None:
    copies = draw_copies(LIBRARY, 400_000, seed=1)
    assert copies.sum() == 400_000
    assert copies.min() == 1
    assert copies.mean() == pytest.approx(LIBRARY.mean_copies, rel=0.01)


def test_the_published_saturation_is_reached_with_the_published_copy_numbers() -> None:
    settings = LibrarySettings(copy_shape=0.54, singleton_floor=0.072, mean_copies=1 / (1 - 0.775))
    copies = draw_copies(settings, 400_000, seed=1)
    assert 1 - copies.size / copies.sum() == pytest.approx(0.775, abs=0.005)


def test_the_least_reads_give_one_molecule() -> None:
    assert draw_copies(LibrarySettings(singleton_floor=0.0), 1, seed=1).tolist() == [1]
    assert draw_copies(LIBRARY, 7, seed=1).sum() == 7


def test_no_two_molecules_share_spot_gene_and_mid(molecules: Molecules) -> None:
    keys = np.stack([molecules.x, molecules.y, molecules.genes, molecules.mids], axis=1)
    assert np.unique(keys, axis=0).shape == keys.shape
    assert not np.isin(molecules.mids, [0, 0x55555, 0xAAAAA, 0xFFFFF]).any()
    assert molecules.mids.max() < 4**10


def test_crowded_spots_still_get_distinct_mids(genome: Genome, templates: Templates) -> None:
    settings = LibrarySettings(mid_length=4)
    chip = make_chip(ChipSettings(60, 60), seed=1)
    tissue = make_tissue(TissueSettings(), 60, 60, 500, genome.families, seed=1)
    effects, copies = no_effects(len(genome.genes)), np.ones(20_000, dtype=np.uint32)
    crowd = draw_molecules(settings, chip, tissue, genome, templates, effects, copies, seed=1)
    keys = np.stack([crowd.x, crowd.y, crowd.genes, crowd.mids], axis=1)
    assert np.unique(keys, axis=0).shape == keys.shape


def test_origins_come_in_their_shares(molecules: Molecules) -> None:
    shares = np.bincount(molecules.origins, minlength=len(ORIGINS)) / molecules.origins.size
    np.testing.assert_allclose(shares, [0.731, 0.08, 0.05, 0.139], atol=0.015)


def test_fragments_lie_where_their_origin_says(genome: Genome, templates: Templates, molecules: Molecules) -> None:
    length = LIBRARY.template_length
    first = molecules.places - np.where(molecules.reverse, length - 1, 0)
    exonic = molecules.origins == EXONIC
    assert not molecules.reverse[exonic].any()
    assert molecules.reverse[molecules.origins == ANTISENSE].all()
    on_transcript = exonic | (molecules.origins == ANTISENSE)
    starts = first[on_transcript] - templates.transcript_starts[molecules.genes[on_transcript]]
    np.testing.assert_array_equal(starts, molecules.starts[on_transcript])
    overhang = starts + length - templates.transcript_lengths[molecules.genes[on_transcript]]
    assert overhang.max() == 40
    assert np.mean(overhang > 0) == pytest.approx(0.03 * 0.731 / 0.781, abs=0.01)
    total = sum(contig.size for contig in genome.contigs)
    exon, gene_span = np.zeros(total, dtype=np.bool_), np.zeros(total, dtype=np.bool_)
    for gene in genome.genes:
        offset = templates.contig_starts[gene.contig]
        gene_span[offset + gene.exons[0][0] : offset + gene.exons[-1][1]] = True
        for start, end in gene.exons:
            exon[offset + start : offset + end] = True
    for place in first[molecules.origins == INTRONIC]:
        assert not exon[place : place + length].any()
        assert gene_span[place : place + length].all()
    for place in first[molecules.origins == INTERGENIC]:
        assert not gene_span[place : place + length].any()
        assert place + length <= total
    assert (molecules.genes[molecules.origins == INTERGENIC] == NO_GENE).all()


def test_fragments_crowd_at_the_three_prime_end(templates: Templates, molecules: Molecules) -> None:
    exonic = molecules.origins == EXONIC
    to_end = templates.transcript_lengths[molecules.genes[exonic]] - molecules.starts[exonic] - 100
    assert 200 < to_end.mean() < 300


def test_the_plan_has_every_copy_once_and_every_kind_in_its_number(molecules: Molecules) -> None:
    reads = 75_000
    counts = split_reads(LIBRARY, reads)
    copies = draw_copies(LIBRARY, counts[MOLECULE], seed=2)
    plan = plan_reads(LIBRARY, copies, reads, seed=2)
    assert sum(counts) == reads
    assert np.bincount(plan.kinds).tolist() == list(counts)
    of_molecules = plan.molecules[plan.kinds == MOLECULE]
    np.testing.assert_array_equal(np.bincount(of_molecules, minlength=copies.size), copies)
    # Random order: neighbours of one molecule are no more common than chance.
    assert np.mean(np.diff(plan.molecules.astype(np.int64)) == 0) < 0.001


def test_the_expected_loss_matches_a_closed_case() -> None:
    ones = np.ones(10, dtype=np.uint32)
    assert expected_loss(LIBRARY, ones) == pytest.approx(0.0187, abs=0.0003)
    assert expected_loss(LIBRARY, np.full(10, 2, dtype=np.uint32)) == pytest.approx(0.0187**2, rel=0.05)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to more than 1"):
        LibrarySettings(off_chip_share=0.95)
    with pytest.raises(ValueError, match="cannot go together"):
        LibrarySettings(mean_copies=20, singleton_floor=0.1)
    with pytest.raises(ValueError, match="MIDs of 17 bases"):
        LibrarySettings(mid_length=17)
