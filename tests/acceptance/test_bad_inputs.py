"""What a user can get wrong in the input: each gives one clear message, its exit code, and no traceback."""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from cartoseq.controller import cli, mapping, workers
from cartoseq.controller.config import thaw
from cartoseq.controller.sources import open_source
from cartoseq.controller.supervisor import Ending, Outcome

Change = Callable[[Path], None]
EXPERIMENT = "experiment.toml"
MASK = "chip.barcodeToPos.h5"
DATASET = "bpMatrix_1"


# Ways to break a file.


def text(name: str, edit: Callable[[str], str]) -> Change:
    """Edit a whole text file."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(edit((folder / name).read_text()).encode())

    return change


def write(name: str, content: str | bytes) -> Change:
    """Put something else into a file."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def both(*changes: Change) -> Change:
    """One change after another."""

    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def remove(name: str) -> Change:
    """Remove a file."""
    return lambda folder: (folder / name).unlink()


def folder_instead(name: str) -> Change:
    """Put a folder where a file should be."""
    return both(remove(name), lambda folder: (folder / name).mkdir())


def forbidden(name: str) -> Change:
    """Take away the right to read a file."""
    return lambda folder: (folder / name).chmod(0)


def replace(name: str, old: str, new: str) -> Change:
    """Replace one place of a text file."""

    def edit(content: str) -> str:
        assert old in content
        return content.replace(old, new, 1)

    return text(name, edit)


def append(name: str, more: str) -> Change:
    """Add to the end of a text file."""
    return text(name, lambda content: content + more)


def line(name: str, number: int, edit: Callable[[str], str]) -> Change:
    """Edit one line, counted from 1."""

    def change(content: str) -> str:
        lines = content.split("\n")
        lines[number - 1] = edit(lines[number - 1])
        return "\n".join(lines)

    return text(name, change)


def cut(name: str, keep: float) -> Change:
    """Keep the beginning of a file only."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])

    return change


def gzipped(name: str, then: Callable[[bytes], bytes]) -> Change:
    """Compress a file, then damage the compressed bytes."""

    def change(folder: Path) -> None:
        packed = gzip.compress((folder / name).read_bytes(), mtime=0)
        (folder / f"{name}.gz").write_bytes(then(packed))
        replace(EXPERIMENT, f'"{name}"', f'"{name}.gz"')(folder)

    return change


def half(content: bytes) -> bytes:
    """The first half."""
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """The checksum at the end of a gzip file, altered."""
    return content[:-8] + bytes([content[-8] ^ 0xFF]) + content[-7:]


def overwritten(content: bytes) -> bytes:
    """Zeros in the middle, as a broken copy leaves them."""
    middle = len(content) // 2
    return content[:middle] + bytes(200) + content[middle + 200 :]


def mask(edit: Callable[[h5py.File], None]) -> Change:
    """Edit the chip's HDF5 file."""

    def change(folder: Path) -> None:
        with h5py.File(folder / MASK, "r+") as file:
            edit(file)

    return change


def matrix(make: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Put another matrix, made of the chip's own, into its HDF5 file."""

    def edit(file: h5py.File) -> None:
        values = file[DATASET][...]
        del file[DATASET]
        file[DATASET] = make(values)

    return mask(edit)


def other_barcodes(bases: int) -> Change:
    """Other barcodes of so many bases at the same places."""
    chance = np.random.default_rng(99)
    return matrix(lambda old: np.where(old > 0, chance.integers(1, 4**bases, old.shape, np.uint64), old))


def damaged_chunk(folder: Path) -> None:
    with h5py.File(folder / MASK) as file:
        chunk = file[DATASET].id.get_chunk_info(0)
    content = bytearray((folder / MASK).read_bytes())
    content[chunk.byte_offset + 100 : chunk.byte_offset + 200] = bytes(100)
    (folder / MASK).write_bytes(content)


def table(name: str, content: str | bytes) -> Change:
    """Another chip table of another kind."""
    return both(write(name, content), replace(EXPERIMENT, MASK, name))


def genes(*columns: object) -> Change:
    """One row of GTF only."""
    return write("genes.gtf", "\t".join(map(str, columns)) + "\n")


CID = "ACGTACGTACGTACGTACGTACGTA"
SECOND_LIBRARY = """
[[library]]
name = "{name}"
layer = "dna"
read_structures = ["{structure}", "100T"]
reads = [["{one}", "dna_2.fq"]]
genome = "genome.fa"
"""


def second_library(name: str = "dna", structure: str = "25C10M", one: str = "dna_1.fq") -> Change:
    """A second library on the chip, with reads of its own unless told otherwise."""

    def change(folder: Path) -> None:
        for number in (1, 2):
            (folder / f"dna_{number}.fq").write_bytes((folder / f"rna_{number}.fq").read_bytes())
        append(EXPERIMENT, SECOND_LIBRARY.format(name=name, structure=structure, one=one))(folder)

    return change


# What is wrong, and what the message must say of it: file, place, what was found and what was expected.

BAD_EXPERIMENTS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "missing": (remove(EXPERIMENT), ("experiment.toml", "no such experiment file")),
    "a folder": (folder_instead(EXPERIMENT), ("experiment.toml", "folder")),
    "empty": (write(EXPERIMENT, ""), ("experiment.toml", "[chip]", "[[library]]")),
    "no TOML": (replace(EXPERIMENT, "[chip]", "[chip"), ("experiment.toml", "line 1")),
    "no text": (write(EXPERIMENT, b"name = \xff\xfe"), ("experiment.toml", "byte 7", "UTF-8")),
    "unknown key": (replace(EXPERIMENT, "genes =", "gens ="), ("line 10", "gens", 'Did you mean "genes"?')),
    "wrong type": (replace(EXPERIMENT, 'name = "rna"', "name = 3"), ("line 5", "library[0].name", "text", "found 3")),
    "no library": (write(EXPERIMENT, f'[chip]\nbarcodes = "{MASK}"\n'), ("experiment.toml", "[[library]]")),
    "bad read structure": (
        replace(EXPERIMENT, "25C10M", "25C10Q"),
        ("line 7", "library[0].read_structures", "25C10Q", "'10Q'"),
    ),
    "barcode too long": (replace(EXPERIMENT, "25C10M", "33C2M"), ("line 7", "33 bases", "more than the 32", "32C")),
    "RNA without genes": (replace(EXPERIMENT, 'genes = "genes.gtf"', ""), ("library[0].genes", "rna")),
    "one file for two reads": (
        replace(EXPERIMENT, '["rna_1.fq", "rna_2.fq"]', '["rna_1.fq"]'),
        ("line 8", "library[0].reads[0]", "expected 2 files", '"25C10M", "100T"', "found 1"),
    ),
    "named file missing": (remove("genome.fa"), ("line 9", "library[0].genome", "there is no file", "genome.fa")),
    "named file a folder": (folder_instead("genes.gtf"), ("line 10", "library[0].genes", "genes.gtf is a folder")),
    "reads a folder": (folder_instead("rna_2.fq"), ("line 8", "library[0].reads[0][1]", "rna_2.fq is a folder")),
    "chip of no known kind": (table("chip.png", "x"), ("line 2", "chip.barcodes", "chip.png", ".h5")),
    "one file in two libraries": (
        second_library(one="rna_1.fq"),
        ("line 16", "library[1].reads[0][0]", "rna_1.fq is given twice", "library[0].reads[0][0]"),
    ),
    "two libraries of one name": (second_library(name="RNA"), ("line 13", "library[1].name", "RNA", "library[0]")),
    "libraries of two barcode lengths": (
        second_library(structure="24C10M"),
        ("line 15", "library[1].read_structures", "24 bases", "25"),
    ),
    "several faults": (
        both(remove("genome.fa"), append(EXPERIMENT, "\n[run]\nchekpoint_s = 3\n")),
        ("line 9", "genome.fa", "and 1 more", "line 13", "chekpoint_s", 'Did you mean "checkpoint_s"?'),
    ),
}

BAD_CHIPS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no HDF5": (write(MASK, "barcodes\n"), (MASK, "not an HDF5 file")),
    "empty": (write(MASK, ""), (MASK, "the file is empty")),
    "cut": (cut(MASK, 0.5), (MASK, "cut off")),
    "with a damaged chunk": (damaged_chunk, (MASK, f"dataset {DATASET}, rows 0 to", "cannot be read")),
    "without matrix": (mask(lambda file: file.move(DATASET, "other")), (MASK, DATASET, "found other")),
    "with a matrix of one row of numbers": (
        matrix(lambda old: old.ravel()),
        (MASK, f"dataset {DATASET}", "rows and columns", "found 90000 of uint64"),
    ),
    "with fractional numbers": (
        matrix(lambda old: old.astype(np.float64)),
        (MASK, f"dataset {DATASET}", "64-bit whole numbers", "found 300 x 300 x 1 of float64"),
    ),
    "with numbers of 32 bits": (
        matrix(lambda old: old.astype(np.uint32)),
        (MASK, f"dataset {DATASET}", "64-bit", "found 300 x 300 x 1 of uint32"),
    ),
    "without spots": (matrix(np.zeros_like), (MASK, "no barcodes")),
    "of another library": (
        other_barcodes(25),
        (MASK, "no spot matches", "of the first 3,000 reads of library rna", "Is this the chip", "called chip"),
    ),
    "with longer barcodes than the reads": (
        replace(EXPERIMENT, "25C10M", "20C5S10M"),
        (MASK, f"dataset {DATASET}, rows", "expected barcodes of 20 bases", "found one of 25"),
    ),
    "with shorter barcodes than the reads": (
        other_barcodes(20),
        (MASK, "expected barcodes of 25 bases, found 8", "none longer than 20"),
    ),
    "in HDF5 under another name": (
        lambda folder: table("chip.txt", (folder / MASK).read_bytes())(folder),
        ("chip.txt", "HDF5", ".h5"),
    ),
    "a table with shorter barcodes than the reads": (
        table("chip.txt", f"{CID[:20]}\t1\t1\n"),
        ("chip.txt", "20 bases", "25"),
    ),
    "a table of mixed lengths": (
        table("chip.txt", f"{CID}\t1\t1\n{CID[:24]}\t1\t2\n"),
        ("chip.txt", "line 2", "expected a barcode of 25 bases", "found 24"),
    ),
    "a table with a strange base": (
        table("chip.txt", f"{CID}\t1\t1\n{CID[:24]}X\t1\t2\n"),
        ("chip.txt", "line 2", "A, C, G and T", f"{CID[:24]}X"),
    ),
    "a table with a coordinate in words": (
        table("chip.csv", f"{CID},1,1\n{CID[::-1]},1,two\n"),
        ("chip.csv", "line 2", "y", "'two'", "not a number"),
    ),
    "a table without y": (table("chip.tsv", f"{CID}\t1\n"), ("chip.tsv", "line 1", "barcode, x and y", "2 columns")),
    "a table with a negative place": (table("chip.tsv", f"{CID}\t-4\t1\n"), ("chip.tsv", "line 1", "x = -4")),
    "a table with a short line": (
        table("chip.csv", f"barcode,x,y\n{CID},1,1\n{CID[::-1]},1\n"),
        ("chip.csv", "line 3", "no y"),
    ),
    "a table of headings only": (table("chip.csv", "barcode,x,y\n"), ("chip.csv", "no barcodes")),
    "a table with unknown headings": (
        table("chip.csv", f"code,across,down\n{CID},1,1\n"),
        ("chip.csv", "line 1", "barcode", "code, across, down"),
    ),
    "a picture under a table's name": (
        table("chip.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 9),
        ("chip.txt", "not a text table"),
    ),
    "a table cut in gzip": (
        table("chip.txt.gz", half(gzip.compress("".join(f"{CID}\t{i}\t1\n" for i in range(9000)).encode()))),
        ("chip.txt.gz", "cut off"),
    ),
    "a table damaged in gzip": (
        table("chip.txt.gz", overwritten(gzip.compress("".join(f"{CID}\t{i}\t1\n" for i in range(9000)).encode()))),
        ("chip.txt.gz", "damaged"),
    ),
    "a .bin mask cut in a record": (
        table("chip.bin", bytes(24)),
        ("chip.bin", "record 2", "16 bytes", "24 bytes", "cut off"),
    ),
    "a .bin mask with an impossible place": (
        table("chip.bin", np.array([5, 0xFFFFFFF0_00000001], "<u8").tobytes()),
        ("chip.bin", "records 1 to 1", "y = 4294967280 is outside 0 to 2147483647"),
    ),
}

BAD_READS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "empty": (write("rna_1.fq", ""), ("rna_1.fq", "holds no reads: it is empty")),
    "nothing but empty lines": (write("rna_1.fq", "\n\n"), ("rna_1.fq", "holds no reads.")),
    "FASTA": (write("rna_2.fq", ">chr1\nACGT\n"), ("rna_2.fq", "is not FASTQ", "FASTA")),
    "BAM": (write("rna_2.fq", gzip.compress(b"BAM\1" + bytes(99))), ("rna_2.fq", "is not FASTQ", "BAM", "samtools")),
    "a zip archive": (write("rna_2.fq", b"PK\3\4" + bytes(99)), ("rna_2.fq", "is not FASTQ", "zip")),
    "text": (write("rna_2.fq", "Dear customer,\n"), ("rna_2.fq", "is not FASTQ", "'Dear customer,'", "@")),
    "cut in gzip": (gzipped("rna_2.fq", half), ("rna_2.fq.gz", "record 1,", "(line 5,", "cut off")),
    "with a wrong gzip checksum": (gzipped("rna_1.fq", flipped), ("rna_1.fq.gz", "record ", "checksum is wrong")),
    "damaged in gzip": (gzipped("rna_1.fq", overwritten), ("rna_1.fq.gz", "record 1,", "damaged", "`gzip -t`")),
    "no gzip but by name": (
        both(write("rna_1.fq.gz", "not packed\n"), replace(EXPERIMENT, "rna_1.fq", "rna_1.fq.gz")),
        ("rna_1.fq.gz", "'not packed'"),
    ),
    "fewer second reads": (
        text("rna_2.fq", lambda content: "".join(content.splitlines(keepends=True)[: 4 * 2500])),
        ("rna_2.fq", "ends after 2,500 records", "rna_1.fq has more"),
    ),
    "names that do not pair": (
        line("rna_2.fq", 4 * 2000 + 1, lambda _: "@other/2"),
        ("rna_2.fq", "record 2,001 (line 8,001)", "the name other does not pair with", "record 2,001 of", "rna_1.fq"),
    ),
    "a read too short": (
        both(
            line("rna_2.fq", 4 * 1000 + 2, lambda bases: bases[:-3]),
            line("rna_2.fq", 4 * 1000 + 4, lambda qualities: qualities[:-3]),
        ),
        ("rna_2.fq", "record 1,001 (line 4,001)", "has 97 bases", "says 100"),
    ),
    "longer than the structure": (
        replace(EXPERIMENT, '"100T"', '"90T"'),
        ("rna_2.fq", "record 1", "has 100 bases", "says 90", "10 more"),
    ),
    "shorter than the structure": (
        replace(EXPERIMENT, '"100T"', '"110T"'),
        ("rna_2.fq", "record 1", "has 100 bases", "says 110"),
    ),
    "exchanged": (
        replace(EXPERIMENT, '"rna_1.fq", "rna_2.fq"', '"rna_2.fq", "rna_1.fq"'),
        ("rna_2.fq", "record 1", "has 100 bases", "says 35", "order of the files"),
    ),
    "not grouped": (
        both(
            replace(EXPERIMENT, '["25C10M", "100T"]', '["25C10M100T"]\ngrouped_names = "ACTG-first-low"'),
            replace(EXPERIMENT, '["rna_1.fq", "rna_2.fq"]', '["rna_2.fq"]'),
        ),
        ("rna_2.fq", "record 1", "does not end in the hexadecimal digits", "25 bases"),
    ),
    "with Windows line ends": (
        text("rna_1.fq", lambda content: content.replace("\n", "\r\n")),
        ("rna_1.fq", "record 1 (line 1)", "Windows"),
    ),
    "with one Windows line end": (
        line("rna_1.fq", 4 * 1500 + 2, lambda s: s + "\r"),
        ("rna_1.fq", "record 1,501 (line 6,001)", "Windows"),
    ),
    "with an empty line between": (
        line("rna_1.fq", 4 * 700, lambda s: s + "\n"),
        ("rna_1.fq", "record 701 (line 2,801)", "empty line"),
    ),
    "with a quality shorter than the sequence": (
        line("rna_1.fq", 4 * 700 + 4, lambda s: s[:-1]),
        ("rna_1.fq", "record 701", "35 bases and 34 qualities"),
    ),
    "with a strange base": (
        line("rna_1.fq", 4 * 700 + 2, lambda s: "R" + s[1:]),
        ("rna_1.fq", "record 701", "'R' at base 1", "A C G T N"),
    ),
    "with a strange quality": (
        line("rna_1.fq", 4 * 700 + 4, lambda s: "\x07" + s[1:]),
        ("rna_1.fq", "record 701", "quality at base 1", "byte 0x07"),
    ),
    "with a missing plus": (
        line("rna_1.fq", 4 * 700 + 3, lambda _: "-"),
        ("rna_1.fq", "record 701", "expected + on the third line", "found '-'"),
    ),
    "with a last record cut": (
        cut("rna_2.fq", 0.9999),
        ("rna_2.fq", "record 3,000 (line 11,997)", "ends in the middle of", "cut off"),
    ),
}

BAD_REFERENCES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "genome empty": (write("genome.fa", ""), ("genome.fa", "the file is empty")),
    "genome no FASTA": (write("genome.fa", "ACGT\n"), ("genome.fa", "not FASTA", "expected '>'", "found 'A'")),
    "genome of two-bit kind": (write("genome.fa", b"\x43\x27\x41\x1a" + bytes(99)), ("genome.fa", "not FASTA")),
    "genome with a contig twice": (
        text("genome.fa", lambda content: content * 2),
        ("genome.fa", "record 5", "two contigs are named chr1"),
    ),
    "genome with a strange letter": (
        line("genome.fa", 2, lambda s: "AC!" + s[3:]),
        ("genome.fa", "contig chr1", "'!' at base 3"),
    ),
    "genome with a header only": (append("genome.fa", ">chrE\n"), ("genome.fa", "contig chrE", "no sequence")),
    "genome cut in gzip": (gzipped("genome.fa", half), ("genome.fa.gz", "cut off")),
    "genome damaged in gzip": (gzipped("genome.fa", overwritten), ("genome.fa.gz", "damaged")),
    "genome with a wrong gzip checksum": (gzipped("genome.fa", flipped), ("genome.fa.gz", "damaged", "checksum")),
    "genes empty": (write("genes.gtf", ""), ("genes.gtf", "the file is empty")),
    "genes of comments only": (write("genes.gtf", "# nothing\n"), ("genes.gtf", "only comments")),
    "genes cut in gzip": (gzipped("genes.gtf", half), ("genes.gtf.gz", "cut off")),
    "genes damaged in gzip": (gzipped("genes.gtf", overwritten), ("genes.gtf.gz", "damaged")),
    "genes without exons": (
        text("genes.gtf", lambda content: content.replace("\texon\t", "\tCDS\t")),
        ("genes.gtf", "exon"),
    ),
    "genes of another genome": (
        genes("chrX9", "a", "exon", 1, 90, ".", "+", ".", 'gene_id "g";'),
        ("genes.gtf", "it has chrX9; the genome has chr1, chr2, chr3 and 1 more"),
    ),
    "genes of the genome under other names": (
        genes("1", "a", "exon", 1, 90, ".", "+", ".", 'gene_id "g";'),
        ("genes.gtf", "it has 1; the genome has chr1", '"chr"'),
    ),
    "genes in BED": (write("genes.gtf", "chr1\t1\t90\tg\t0\t+\n"), ("genes.gtf", "line 1", "nine", "found 6", "BED")),
    "genes in GFF3": (
        write("genes.gtf", "##gff-version 3\nchr1\ta\texon\t1\t90\t.\t+\t.\tID=e1;Parent=t1\n"),
        ("genes.gtf", "line 2", "gene_id", "GFF3"),
    ),
    "an exon without its gene": (
        genes("chr1", "a", "exon", 1, 90, ".", "+", ".", 'note "g";'),
        ("genes.gtf", "line 1", "exon", "no gene_id"),
    ),
    "an exon beyond the contig": (
        genes("chr1", "a", "exon", 1, 999999999, ".", "+", ".", 'gene_id "g";'),
        ("genes.gtf", "line 1", "exon ends at 999,999,999", "chr1 has only"),
    ),
    "an exon that ends before it starts": (
        genes("chr1", "a", "exon", 90, 1, ".", "+", ".", 'gene_id "g";'),
        ("genes.gtf", "line 1", "start 90 is after end 1"),
    ),
    "an exon before the first base": (
        genes("chr1", "a", "exon", 0, 90, ".", "+", ".", 'gene_id "g";'),
        ("genes.gtf", "line 1", "start 0"),
    ),
    "an exon that starts in words": (
        genes("chr1", "a", "exon", "one", 90, ".", "+", ".", 'gene_id "g";'),
        ("genes.gtf", "line 1", "whole number", "'one'"),
    ),
    "an exon on no strand": (
        genes("chr1", "a", "exon", 1, 90, ".", "x", ".", 'gene_id "g";'),
        ("genes.gtf", "line 1", "strand", "'x'"),
    ),
}

KINDS = {"experiment": BAD_EXPERIMENTS, "chip": BAD_CHIPS, "reads": BAD_READS, "reference": BAD_REFERENCES}
BAD = {f"{kind}: {name}": bad for kind, kinds in KINDS.items() for name, bad in kinds.items()}

#: One for each way that a message takes to the user; all others are called for in this process, which is quicker.
THROUGH_THE_SHELL = (
    "experiment: no TOML",
    "experiment: several faults",
    "chip: with a damaged chunk",
    "chip: of another library",
    "chip: a table cut in gzip",
    "reads: empty",
    "reads: fewer second reads",
    "reads: with a wrong gzip checksum",
    "reference: genome damaged in gzip",
    "reference: an exon without its gene",
)


@pytest.fixture
def in_this_process(monkeypatch, capsys):
    """Call the command line here; what the processes of a run would do is done here too, one after another."""

    def prepare(run, *_arguments, **_options):
        experiment = thaw(run.settings.read_text(), run.settings)
        workers.prepare(run, experiment, lambda _phase: None, look_at_reads=True)
        return True

    def supervise(run, libraries, *_arguments, **_options):
        experiment = thaw(run.settings.read_text(), run.settings)
        for number in range(len(libraries)):
            with open_source(experiment, number) as blocks:
                for _ in blocks:
                    pass
        return Ending(Outcome.FINISHED)

    monkeypatch.setattr(mapping, "prepare", prepare)
    monkeypatch.setattr(mapping, "supervise", supervise)

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cartoseq", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(str(ended.value.code)), capsys.readouterr().err

    return call


def the_message(said: str) -> str:
    """The one message at the end of what was said: where, what is wrong, and what to do, and no more."""
    assert "Traceback" not in said
    assert said.count("cartoseq: ") == 1, said
    message = said[said.index("cartoseq: ") + len("cartoseq: ") :]
    first, *others = message.rstrip("\n").split("\n")
    assert re.search(r"\S[.?] [A-Z].*[.?]$", first), message
    # Several faults are only listed where all can be mended at once: in the experiment file.
    assert not others or f"{EXPERIMENT}: " in first, message
    for inner in ("Errno", "Error(", "Exception", "b'", "<class", "None", "nan"):
        assert inner not in message, message
    return message


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_gives_one_clear_message(name, folder, in_this_process, tmp_path):
    change, parts = BAD[name]
    change(folder)
    code, said = in_this_process("map", folder / EXPERIMENT, "--out", tmp_path / "RUN")
    message = the_message(said)
    assert code == 3
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("name", THROUGH_THE_SHELL)
def test_the_message_reaches_the_user_whichever_process_finds_the_fault(name, folder, cartoseq, tmp_path):
    change, parts = BAD[name]
    change(folder)
    done = cartoseq("map", folder / EXPERIMENT, "--out", tmp_path / "RUN", code=3)
    message = the_message(done.stderr)
    for part in parts:
        assert part in message, message
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("name", [EXPERIMENT, MASK, "rna_1.fq", "genome.fa", "genes.gtf"])
def test_a_file_that_may_not_be_read_is_named(name, folder, in_this_process, tmp_path):
    forbidden(name)(folder)
    if os.access(folder / name, os.R_OK):
        pytest.skip("this user may read every file")
    code, said = in_this_process("map", folder / EXPERIMENT, "--out", tmp_path / "RUN")
    assert code == 3
    assert f"{name}: " in the_message(said)
    assert "Permission denied" in said


def test_what_came_before_the_damage_is_mapped_and_the_run_goes_on_when_it_is_mended(folder, cartoseq, tmp_path):
    whole = (folder / "rna_2.fq").read_text()
    line("rna_2.fq", 4 * 2000 + 1, lambda _: "@other/2")(folder)
    append(EXPERIMENT, "\n[run]\nblock_clusters = 300\n")(folder)
    run = tmp_path / "RUN"
    done = cartoseq("map", folder / EXPERIMENT, "--out", run, code=3)
    assert "record 2,001 (line 8,001): the name other does not pair" in the_message(done.stderr)
    assert '"reads_total": 2000' in (run / "qc.json").read_text()
    (folder / "rna_2.fq").write_text(whole)
    cartoseq("map", folder / EXPERIMENT, "--out", run, "--resume")
    assert '"reads_total": 3000' in (run / "qc.json").read_text()
    assert '"complete": true' in (run / "qc.json").read_text()
