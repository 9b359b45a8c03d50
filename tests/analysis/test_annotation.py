"""A GTF file becomes genes, exons and introns, or an error that names file and line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cartoseq.analysis.annotation import Annotation, read_annotation
from cartoseq.streaming.errors import InputError

CONTIGS = ["chr1", "chr2"]
LENGTHS = [1000, 500]


def row(contig: str, feature: str, start: object, end: object, strand: str, attributes: str) -> str:
    return f"{contig}\ttest\t{feature}\t{start}\t{end}\t.\t{strand}\t.\t{attributes}\n"


def read(tmp_path: Path, text: str, *, contigs: list[str] = CONTIGS) -> Annotation:
    path = tmp_path / "genes.gtf"
    path.write_text(text)
    return read_annotation(path, contigs, LENGTHS)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "genes.gtf") in str(caught.value)
    return str(caught.value)


EXON = row("chr1", "exon", 11, 20, "+", 'gene_id "A"; transcript_id "A1";')


def test_exons_of_one_gene_merge_and_leave_introns_between_them(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "# comment\n\n"
        + row("chr1", "exon", 101, 150, "-", 'gene_id "B"; transcript_id "B1"; gene_name "beta";')
        + row("chr1", "exon", 11, 20, "-", 'gene_id "B"; transcript_id "B1";')
        + row("chr1", "exon", 16, 30, "-", 'gene_id "B"; transcript_id "B2";')
        + row("chr1", "exon", 101, 140, "-", 'gene_id "B"; transcript_id "B2";')
        + row("chr2", "CDS", 1, 3, "+", "")
        + row("chr2", "exon", 5, 9, "+", 'gene_id "C"; transcript_id "C1"; gene_symbol "gamma";'),
    )
    assert found.gene_ids.tolist() == ["B", "C"]
    assert found.gene_names.tolist() == ["beta", "gamma"]
    assert found.exons.tolist() == [[0, 0, 1, 10, 30], [0, 0, 1, 100, 150], [1, 1, 0, 4, 9]]
    assert found.spans.tolist() == [[0, 0, 1, 10, 150], [1, 1, 0, 4, 9]]
    assert found.introns.tolist() == [[0, 20, 100], [0, 30, 100]]


def test_a_gene_row_gives_the_span_and_a_gene_without_a_name_shows_its_id(tmp_path: Path) -> None:
    found = read(tmp_path, row("chr1", "gene", 1, 900, "+", 'gene_id "A";') + EXON)
    assert found.spans.tolist() == [[0, 0, 0, 0, 900]]
    assert found.gene_names.tolist() == ["A"]


def test_a_gene_on_two_contigs_keeps_one_number_and_two_spans(tmp_path: Path) -> None:
    found = read(tmp_path, EXON + EXON.replace("chr1", "chr2"))
    assert found.gene_ids.tolist() == ["A"]
    assert found.spans.tolist() == [[0, 0, 0, 10, 20], [0, 1, 0, 10, 20]]
    assert found.introns.size == 0


def test_unquoted_attributes_and_gzip_are_read(tmp_path: Path) -> None:
    path = tmp_path / "genes.gtf.gz"
    path.write_bytes(gzip.compress(row("chr1", "exon", 11, 20, "+", "transcript_id T; gene_id 7").encode(), mtime=0))
    assert read_annotation(path, CONTIGS, LENGTHS).gene_ids.tolist() == ["7"]


def test_rows_on_other_contigs_are_counted_and_named(tmp_path: Path) -> None:
    found = read(tmp_path, EXON + EXON.replace("chr1", "chrUn") * 2)
    assert (found.skipped_rows, found.skipped_contigs) == (2, ("chrUn",))


def test_no_common_contig_is_an_error_with_both_sides_names_and_the_prefix_hint(tmp_path: Path) -> None:
    message = refusal(tmp_path, EXON.replace("chr1", "1"))
    assert "it has 1; the genome has chr1, chr2" in message
    assert 'prefix "chr"' in message
    assert "prefix" not in refusal(tmp_path, EXON.replace("chr1", "NC_1"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# only\n", "only comments"),
        (EXON + row("chr1", "exon", 30, 21, "+", 'gene_id "A";'), "line 2: start 30 is after end 21"),
        (EXON + row("chr1", "exon", 0, 21, "+", 'gene_id "A";'), "line 2: start 0 is before 1"),
        (EXON + row("chr2", "exon", 490, 501, "+", 'gene_id "A";'), "line 2: exon ends at 501, but chr2 has only 500"),
        ("#c\n" + EXON + row("chr1", "exon", 5, 6, "+", 'transcript_id "A";'), "line 3: this exon row has no gene_id"),
        (EXON + row("chr1", "exon", "x", 21, "+", 'gene_id "A";'), "line 2: expected a whole number as start"),
        (EXON + row("chr1", "exon", 1, "2.5", "+", 'gene_id "A";'), "line 2: expected a whole number as end"),
        (EXON + row("chr1", "exon", 1, 2, "x", 'gene_id "A";'), "line 2: expected strand"),
        (EXON + "chr1\t10\t20\n", "line 2: expected nine columns with tabs between them, as GTF has, found 3"),
        (row("chr1", "gene", 1, 900, "+", 'gene_id "A";'), "there is no exon row"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_missing_file_and_a_cut_gzip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_annotation(tmp_path / "none.gtf", CONTIGS, LENGTHS)
    path = tmp_path / "cut.gtf.gz"
    path.write_bytes(gzip.compress(EXON.encode() * 50, mtime=0)[:-9])
    with pytest.raises(InputError, match="the compressed file is cut off"):
        read_annotation(path, CONTIGS, LENGTHS)


def test_the_fly_annotation_with_exon_rows_only(real_data: Path) -> None:
    path = real_data / "reference_dm6" / "dm6.small.gtf.gz"
    found = read_annotation(path, ["chr2L", "chr2R"], [1_000_001, 1_000_001])
    assert len(found.gene_ids) == 167
    assert found.gene_names[0] == "CG11023"
    assert len(found.introns) == 557
