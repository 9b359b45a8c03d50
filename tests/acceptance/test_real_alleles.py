"""Alleles of 100 real sperm cells at 589 known loci, through the command line, held against the authors' own table.

The authors' program is Drop-seq's GenotypeSperm: reads of mapping quality 10 and more, calls of base quality 10 and
more, one row for each cell and locus, reads and molecular barcodes of each base counted.
"""

from __future__ import annotations

import shutil

import pytest

import cartoseq as package

EXPERIMENT = """
[chip]
barcodes = "cells.tsv"
name = "sperm"

[[library]]
name = "dna"
layer = "dna"
read_structures = ["14C10M", "+T"]
reads = [["sperm_R1.fastq.gz", "sperm_R2.fastq.gz"]]
genome = "mini_ref.fa"
loci = "known.vcf"
mid_collapse = "off"
"""
BASES = "ACGT"


@pytest.fixture(scope="module")
def source(real_data):
    return real_data / "dna_spermseq"


@pytest.fixture(scope="module")
def cells(source):
    return (source / "cell_barcodes.txt").read_text().split()


@pytest.fixture(scope="module")
def contigs(source):
    """Sequence of each contig, by its name: ``chr1_START_END``, a part of the chromosome."""
    sequences = {}
    for line in (source / "mini_ref.fa").read_text().split():
        if line.startswith(">"):
            name = line[1:]
        else:
            sequences[name] = sequences.get(name, "") + line.upper()
    return sequences


@pytest.fixture(scope="module")
def loci(source, contigs):
    """Contig and position in it (1-based) of each locus of the authors' list."""
    rows = [line.split("\t") for line in (source / "snp_intervals.txt").read_text().splitlines() if line[0] != "@"]
    wanted = {(row[0], int(row[1])) for row in rows}
    parts = [(name, *name.split("_")) for name in contigs]
    return {
        (chromosome, position): (name, position - int(start) + 1)
        for chromosome, position in wanted
        for name, of, start, end in parts
        if of == chromosome and int(start) <= position <= int(end)
    }


@pytest.fixture(scope="module")
def run(source, cells, contigs, loci, cartoseq, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alleles")
    for name in ("sperm_R1.fastq.gz", "sperm_R2.fastq.gz", "mini_ref.fa"):
        shutil.copyfile(source / name, folder / name)
    # The cells have no coordinates: a square of ten by ten.
    (folder / "cells.tsv").write_text(
        "".join(f"{barcode}\t{number % 10}\t{number // 10}\n" for number, barcode in enumerate(cells))
    )
    rows = ["##fileformat=VCFv4.2", *(f"##contig=<ID={name}>" for name in contigs)]
    rows.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    for contig, position in loci.values():
        ref = contigs[contig][position - 1]
        # The list names places only: which base is the alternative makes no difference to the counts of the four.
        rows.append(f"{contig}\t{position}\t.\t{ref}\t{'A' if ref != 'A' else 'C'}\t.\t.\t.")
    (folder / "known.vcf").write_text("\n".join(rows) + "\n")
    (folder / "experiment.toml").write_text(EXPERIMENT)
    cartoseq("map", folder / "experiment.toml", "--out", folder / "RUN")
    return package.open_run(folder / "RUN")


def test_every_row_of_the_authors_table_is_found_and_no_other(run, source, cells, loci):
    lines = (source / "expected_GenotypeSperm.result.txt").read_text().splitlines()
    columns, *rows = (line.split("\t") for line in lines)
    assert columns[3:] == ["rA", "rC", "rG", "rT", "rN", "A", "C", "G", "T", "N"]
    expected = {(row[0], int(row[1]), row[2]): [int(value) for value in row[3:7] + row[8:12]] for row in rows}
    assert all(row[7] == row[12] == "0" for row in rows)
    named = {place: known for known, place in loci.items()}
    table = run.alleles("dna")
    found = {}
    for row in table.iter_rows(named=True):
        chromosome, position = named[row["contig"], row["position"]]
        cell = cells[int(row["y"]) * 10 + int(row["x"])]
        counts = [row[f"{base}_reads"] for base in BASES] + [row[f"{base}_molecules"] for base in BASES]
        found[chromosome, position, cell] = counts
    assert len(expected) == 619
    assert found == expected


def test_the_bases_of_each_row_are_those_of_the_locus_or_others(run):
    table = run.alleles("dna")
    for row in table.iter_rows(named=True):
        molecules = {base: row[f"{base}_molecules"] for base in BASES}
        assert row["ref_molecules"] == molecules.pop(row["ref"])
        assert row["alt_molecules"] == molecules.pop(row["alt"])
        assert row["other_molecules"] == sum(molecules.values())
    assert table["undecided_molecules"].sum() == 0


def test_the_counters_tell_what_became_of_the_bases_on_loci(run):
    evidence = run.qc["libraries"]["dna"]["evidence"]
    table = run.alleles("dna")
    assert evidence["locus_bases"] == sum(table[f"{base}_reads"].sum() for base in BASES)
    assert evidence["locus_reads_unresolved"] == 0
    assert evidence["clipped_reads"] >= evidence["clips_placed"]
    assert evidence["clips_placed"] == evidence["clips_near"] + evidence["split_reads"]
