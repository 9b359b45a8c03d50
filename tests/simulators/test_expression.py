"""What changes each gene, and the genes that molecules are drawn of."""

from __future__ import annotations

import numpy as np
import pytest

from cartoseq.simulators.clones import CLONE_B, CLONE_OF_GENOME, NORMAL, CloneSettings, make_clones
from cartoseq.simulators.expression import BOTH, CLONE, NEIGHBOURHOOD, NONE, draw_effects, draw_genes, no_effects
from cartoseq.simulators.genome import GenomeSettings, make_genome
from cartoseq.simulators.tissue import TissueSettings, make_tissue


@pytest.fixture(scope="module")
def genome():
    return make_genome(GenomeSettings(bases=6_000_000, contigs=22, genes=600), 1)


@pytest.fixture(scope="module")
def clones(genome):
    return make_clones(CloneSettings(), genome, 1)


@pytest.fixture(scope="module")
def effects(genome, clones):
    return draw_effects(genome, clones, 1)


def test_a_gene_is_of_the_class_of_what_changes_it(effects):
    by_clone, around = effects.clone_log2_fold.any(axis=1), effects.density_log2_fold != 0
    assert np.array_equal(effects.classes == NONE, ~by_clone & ~around)
    assert np.array_equal(effects.classes == CLONE, by_clone & ~around)
    assert np.array_equal(effects.classes == NEIGHBOURHOOD, ~by_clone & around)
    assert np.array_equal(effects.classes == BOTH, by_clone & around)
    assert np.bincount(effects.classes, minlength=4).min() >= 20


def test_dosage_changes_most_genes_of_altered_stretches_and_no_other(genome, clones, effects):
    contig = np.array([gene.contig for gene in genome.genes])
    middle = np.array([(gene.exons[0][0] + gene.exons[-1][1]) // 2 for gene in genome.genes])
    copies = clones.copies(contig, middle).sum(axis=2)[:, :3]
    altered = (copies != 2).any(axis=1)
    sensitive = effects.dosage_slope > 0
    assert not sensitive[~altered].any()
    assert sensitive[altered].mean() == pytest.approx(0.7, abs=0.1)
    expected = effects.dosage_slope[:, None] * np.log2(copies / 2)
    np.testing.assert_allclose(effects.clone_log2_fold[sensitive], expected[sensitive])


def test_molecules_follow_programme_clone_and_surroundings(genome, effects):
    tissue = make_tissue(TissueSettings(tumour_share=0.6), 1200, 1200, 500, genome.families, 1)
    programmes, clone = tissue.cells.programmes, CLONE_OF_GENOME[tissue.cells.genomes]
    density = tissue.cells.tumour_density
    for of_clone, low, high in ((CLONE_B, 5 / 12, 6 / 12), (NORMAL, 1 / 12, 2 / 12)):
        members = np.flatnonzero((clone == of_clone) & (density >= low) & (density < high))
        programme = np.bincount(programmes[members]).argmax()
        cell = members[programmes[members] == programme][0]
        genes = draw_genes(tissue, effects, np.full(200_000, cell), 3)
        fold = effects.clone_log2_fold[:, of_clone] + (low + high) / 2 * effects.density_log2_fold
        expected = tissue.expression[programme] * 2**fold
        expected *= genes.size / expected.sum()
        counts = np.bincount(genes, minlength=expected.size)
        assert (np.abs(counts - expected) < 6 * np.sqrt(expected) + 6).all()


def test_without_a_tumour_a_programme_alone_decides(genome):
    tissue = make_tissue(TissueSettings(), 600, 600, 500, genome.families, 1)
    programme = int(tissue.cells.programmes[0])
    genes = draw_genes(tissue, no_effects(len(genome.genes)), np.zeros(100_000, np.int64), 3)
    expected = tissue.expression[programme] * genes.size
    assert (np.abs(np.bincount(genes, minlength=expected.size) - expected) < 6 * np.sqrt(expected) + 6).all()
