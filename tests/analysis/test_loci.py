"""Known loci: what of a VCF is a locus, what is left out, and what is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pysam
import pytest

from cartoseq.analysis.loci import SKIPPED, UNPHASED, read_loci, told
from cartoseq.analysis.reference import build_reference
from cartoseq.streaming.errors import InputError

SEQUENCES = {"one": "ACGTACGTNACGGTAACCGTTGCA" * 4, "two": "TTGACCGATTACAGGCATTAGCCA" * 4}
HEAD = (
    "##fileformat=VCFv4.2\n##contig=<ID=one>\n##contig=<ID=two>\n##contig=<ID=three>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tsample\n"
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in SEQUENCES.items()))
    return build_reference(path, None)


def vcf(folder, *rows, name="known.vcf"):
    text = HEAD + "".join("\t".join((*row[:5], ".", ".", ".", "GT", row[5])) + "\n" for row in rows)
    path = folder / name
    if name.endswith(".gz"):
        with pysam.BGZFile(str(path), "wb") as stream:
            stream.write(text.encode())
    else:
        path.write_text(text)
    return path


ROWS = (
    ("two", "3", "rs2", "G", "T", "1|0"),
    ("one", "1", "rs1", "A", "c", "0|1"),
    ("one", "2", ".", "C", "T", "0/1"),
    ("one", "4", "hom", "T", "A", "1|1"),
    ("one", "3", "indel", "GT", "G", "0|1"),
    ("one", "5", "many", "A", "C,T", "0|1"),
    ("one", "9", "unknown", "A", "T", "0|1"),
    ("one", "1", "again", "A", "G", "1|0"),
    ("three", "1", "elsewhere", "A", "G", "1|0"),
    ("one", "6", "symbol", "C", "<DEL>", "0|1"),
)


@pytest.mark.parametrize("name", ["known.vcf", "known.vcf.gz"])
def test_loci_lie_in_the_order_of_the_genome_and_the_rest_is_counted(reference, tmp_path, name):
    loci = read_loci(vcf(tmp_path, *ROWS, name=name), reference)
    assert loci.ids.tolist() == ["rs1", "one:2", "hom", "rs2"]
    assert loci.positions.tolist() == [0, 1, 3, 2]
    assert loci.contigs.tolist() == [0, 0, 0, 1]
    assert ["ACGT"[base] for base in loci.refs] == ["A", "C", "T", "G"]
    assert ["ACGT"[base] for base in loci.alts] == ["C", "T", "A", "T"]
    assert loci.haplotypes.tolist() == [1, UNPHASED, UNPHASED, 0]
    assert np.array_equal(loci.places, reference.contig_offsets[loci.contigs] + loci.positions)
    assert loci.skipped == {
        "other_contig": 1,
        "not_single_base": 2,
        "several_alternatives": 1,
        "unknown_reference": 1,
        "given_twice": 1,
    }
    assert len(loci) + sum(loci.skipped.values()) == len(ROWS)
    assert all(words in told(loci.skipped) for words in SKIPPED.values())


def test_a_binary_file_holds_the_same_loci(reference, tmp_path):
    text = vcf(tmp_path, *ROWS[:4])
    with (
        pysam.VariantFile(str(text)) as source,
        pysam.VariantFile(str(tmp_path / "a.bcf"), "wb", header=source.header) as target,
    ):
        for record in source:
            target.write(record)
    one, other = read_loci(text, reference), read_loci(tmp_path / "a.bcf", reference)
    assert one.ids.tolist() == other.ids.tolist()
    assert np.array_equal(one.haplotypes, other.haplotypes)


def test_a_file_of_another_genome_is_refused_with_its_line(reference, tmp_path):
    path = vcf(tmp_path, ROWS[0], ROWS[1], ("one", "2", ".", "G", "T", "0|1"))
    with pytest.raises(InputError, match=r"line 9.*REF is G at one:2, and the genome has C"):
        read_loci(path, reference)


def test_a_position_beyond_its_contig_is_refused(reference, tmp_path):
    with pytest.raises(InputError, match=r"line 7.*position 97 lies outside one"):
        read_loci(vcf(tmp_path, ("one", "97", ".", "G", "T", "0|1")), reference)


def test_a_file_without_a_locus_is_refused_and_says_why(reference, tmp_path):
    with pytest.raises(InputError, match="1 rows on contigs that the genome does not have"):
        read_loci(vcf(tmp_path, ROWS[8]), reference)
    with pytest.raises(InputError, match="no rows at all"):
        read_loci(vcf(tmp_path), reference)


@pytest.mark.parametrize("text", ["", "hello\n", HEAD + "one\t1\n"])
def test_what_is_no_vcf_is_refused(reference, tmp_path, text, capfd):
    path = tmp_path / "known.vcf"
    path.write_text(text)
    with pytest.raises(InputError, match="no VCF, or damaged"):
        read_loci(path, reference)
    assert capfd.readouterr().err == ""


def test_a_file_of_plain_gzip_is_refused_and_says_what_to_do(reference, tmp_path):
    path = tmp_path / "known.vcf.gz"
    path.write_bytes(gzip.compress(HEAD.encode()))
    with pytest.raises(InputError, match="bgzip it"):
        read_loci(path, reference)


def test_a_missing_file_is_refused(reference, tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_loci(tmp_path / "known.vcf", reference)
