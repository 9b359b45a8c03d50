"""References: genes, paralogs, files, and a real one."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from cartoseq.simulators.genome import (
    OVERLAPPING,
    SHARED_SEQUENCE,
    UNIQUE,
    Gene,
    Genome,
    GenomeSettings,
    classify_genes,
    make_genome,
    read_genome,
    write_genome,
)


@pytest.fixture(scope="module")
def genome() -> Genome:
    return make_genome(GenomeSettings(bases=600_000, contigs=3, genes=60, paralog_share=0.2), seed=4)


def test_genes_lie_apart_in_order_and_on_both_strands(genome: Genome) -> None:
    assert len(genome.genes) == 60
    assert sum(contig.size for contig in genome.contigs) == pytest.approx(600_000, abs=3)
    assert 10 < sum(gene.strand for gene in genome.genes) < 50
    for contig in range(3):
        edges = [edge for gene in genome.genes if gene.contig == contig for exon in gene.exons for edge in exon]
        assert edges == sorted(edges)
        assert edges[-1] < genome.contigs[contig].size
    assert all(len(gene.exons) >= 2 for gene in genome.genes)


def test_introns_begin_with_gt_and_end_with_ag(genome: Genome) -> None:
    for gene in genome.genes:
        contig = genome.contigs[gene.contig]
        for (_, start), (end, _) in zip(gene.exons[:-1], gene.exons[1:], strict=True):
            left, right = contig[start : start + 2].tolist(), contig[end - 2 : end].tolist()
            assert (left, right) == (([1, 3], [0, 1]) if gene.strand else ([2, 3], [0, 2]))


def test_paralogs_are_near_identical_and_classed_as_sharing_sequence(genome: Genome) -> None:
    members = np.flatnonzero(genome.families >= 0)
    assert members.size == 12
    assert (genome.gene_classes[members] == SHARED_SEQUENCE).all()
    assert (genome.gene_classes[genome.families < 0] == UNIQUE).all()
    for family in range(int(genome.families.max()) + 1):
        first, *others = (genome.transcript(int(member)) for member in np.flatnonzero(genome.families == family))
        for other in others:
            # Two members that both diverged from a founder are up to twice as far apart.
            assert 0.89 < np.mean(first == other) < 0.995


def test_repeats_make_words_come_twice() -> None:
    def distinct_share(repeat_share: float) -> float:
        contig = make_genome(GenomeSettings(400_000, 1, 10, repeat_share, 0.0), seed=1).contigs[0]
        words = np.lib.stride_tricks.sliding_window_view(contig, 16).astype(np.uint64)
        packed = words @ (np.uint64(4) ** np.arange(16, dtype=np.uint64))
        return np.unique(packed).size / packed.size

    assert distinct_share(0.0) > 0.9995
    # Copies differ from each other in 10 to 30 % of their bases: one pair of words in twenty survives.
    assert distinct_share(0.2) < 0.995


def test_files_come_back_as_they_went(genome: Genome, tmp_path: Path) -> None:
    write_genome(genome, tmp_path / "g.fa.gz", tmp_path / "g.gtf.gz")
    back = read_genome(tmp_path / "g.fa.gz", tmp_path / "g.gtf.gz")
    assert back.genes == genome.genes
    assert back.contig_names == genome.contig_names
    np.testing.assert_array_equal(back.gene_classes, genome.gene_classes)
    for one, other in zip(back.contigs, genome.contigs, strict=True):
        np.testing.assert_array_equal(one, other)
    with gzip.open(tmp_path / "g.fa.gz", "rt") as file:
        assert max(len(line) for line in file) == 61


def test_too_many_genes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        make_genome(GenomeSettings(bases=50_000, genes=100), seed=1)


def test_the_longest_transcript_is_taken_and_plain_text_will_do(tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">one some words\nACGTN\nacgtACGTACGT\n>two\nAAAA\n")
    exon = 'one\tx\texon\t{}\t{}\t.\t-\t.\tgene_id "G"; transcript_id "{}"; gene_symbol "name";\n'
    short = exon.format(1, 4, "short")
    long = exon.format(10, 12, "long") + exon.format(1, 3, "long")
    (tmp_path / "g.gtf").write_text("#comment\n" + short + long + 'absent\tx\texon\t1\t2\t.\t+\t.\tgene_id "H";\n')
    genome = read_genome(tmp_path / "g.fa", tmp_path / "g.gtf")
    assert genome.contig_names == ("one", "two")
    assert genome.contigs[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]
    assert genome.genes == (Gene("G", "name", 0, 1, ((0, 3), (9, 12))),)
    assert genome.transcript(0).tolist() == [1, 2, 3, 1, 2, 3]
    assert genome.exons.tolist() == [[0, 0, 3], [0, 0, 4], [0, 9, 12]]


def test_genes_whose_exons_overlap_on_one_strand_are_told() -> None:
    contig = np.random.default_rng(1).integers(0, 4, 2000, dtype=np.uint8)
    spans = [
        (0, ((0, 300),)),
        (0, ((200, 500),)),
        (1, ((250, 600),)),
        (0, ((700, 900), (1200, 1300))),
        (0, ((950, 990),)),
    ]
    genes = [Gene(str(number), str(number), 0, strand, exons) for number, (strand, exons) in enumerate(spans)]
    assert classify_genes([contig], genes).tolist() == [OVERLAPPING, OVERLAPPING, UNIQUE, UNIQUE, UNIQUE]


def test_a_reverse_complement_copy_counts_as_shared() -> None:
    contig = np.random.default_rng(2).integers(0, 4, 3000, dtype=np.uint8)
    contig[2000:2300] = 3 - contig[100:400][::-1]
    genes = [Gene("a", "a", 0, 0, ((100, 400),)), Gene("b", "b", 0, 1, ((600, 900),))]
    assert classify_genes([contig], genes).tolist() == [SHARED_SEQUENCE, UNIQUE]


def test_a_real_reference_is_read(real_data: Path) -> None:
    folder = real_data / "reference_dm6"
    genome = read_genome(folder / "dm6.small.fa.gz", folder / "dm6.small.gtf.gz")
    assert len(genome.genes) == 167
    assert genome.contig_names == ("chr2L", "chr2R")
    assert genome.genes[0].name == "CG11023"
    assert np.count_nonzero(genome.gene_classes == UNIQUE) > 140
