"""What a user can get wrong: each gives one clear message, its exit code, and no traceback."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A tiny sound experiment with plain text files, which each test breaks in one place."""
    folder = simulate_experiment(tmp_path_factory.mktemp("sound"), ExperimentSettings(seed=3, reads=3_000)).parent
    for name in ("rna_1.fq", "rna_2.fq", "genes.gtf", "genome.fa"):
        (folder / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
        (folder / f"{name}.gz").unlink()
    text = (folder / "experiment.toml").read_text()
    (folder / "experiment.toml").write_text(re.sub(r"\.(fq|gtf|fa)\.gz", r".\1", text))
    shutil.rmtree(folder / "truth")
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "experiment"))


# Ways to break a file.


def text(name: str, edit: Callable[[str], str]) -> Change:
    """Edit a whole text file."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(edit((folder / name).read_text()).encode())

    return change


def write(name: str, content: str | bytes) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def replace(name: str, old: str, new: str) -> Change:
    def edit(content: str) -> str:
        assert old in content
        return content.replace(old, new, 1)

    return text(name, edit)


def line(name: str, number: int, edit: Callable[[str], str]) -> Change:
    """Edit one line, counted from 1."""

    def change(content: str) -> str:
        lines = content.split("\n")
        lines[number - 1] = edit(lines[number - 1])
        return "\n".join(lines)

    return text(name, change)


def cut(name: str, keep: float) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])

    return change


def gzipped(name: str, then: Callable[[bytes], bytes]) -> Change:
    """Compress a file, then damage the compressed bytes."""

    def change(folder: Path) -> None:
        packed = gzip.compress((folder / name).read_bytes(), mtime=0)
        (folder / f"{name}.gz").write_bytes(then(packed))
        replace("experiment.toml", f'"{name}"', f'"{name}.gz"')(folder)

    return change


def flipped(content: bytes) -> bytes:
    """The checksum at the end of a gzip file, altered."""
    return content[:-8] + bytes([content[-8] ^ 0xFF]) + content[-7:]


def mask(edit: Callable[[h5py.File], None]) -> Change:
    def change(folder: Path) -> None:
        with h5py.File(folder / "chip.barcodeToPos.h5", "r+") as file:
            edit(file)

    return change


def other_chip(file: h5py.File) -> None:
    """Other barcodes at the same places."""
    values = file["bpMatrix_1"][...]
    chance = np.random.default_rng(99)
    file["bpMatrix_1"][...] = np.where(values > 0, chance.integers(1, 4**25, values.shape, np.uint64), values)


def no_spots(file: h5py.File) -> None:
    file["bpMatrix_1"][...] = 0


def no_matrix(file: h5py.File) -> None:
    del file["bpMatrix_1"]


def table(name: str, content: str | bytes) -> Change:
    """Another chip table of another kind."""

    def change(folder: Path) -> None:
        write(name, content)(folder)
        replace("experiment.toml", "chip.barcodeToPos.h5", name)(folder)

    return change


CID = "ACGTACGTACGTACGTACGTACGTA"
EXPERIMENT = "experiment.toml"
BAD: dict[str, tuple[Change, tuple[str, ...]]] = {
    # The experiment file.
    "experiment missing": (remove(EXPERIMENT), ("experiment.toml", "no such")),
    "experiment empty": (write(EXPERIMENT, ""), ("experiment.toml", "chip")),
    "experiment no TOML": (replace(EXPERIMENT, "[chip]", "[chip"), ("experiment.toml", "line 1")),
    "unknown key": (replace(EXPERIMENT, "genes =", "gens ="), ("gens", "genes", "line")),
    "wrong type": (replace(EXPERIMENT, 'name = "rna"', "name = 3"), ("name", "line")),
    "no library": (
        write(EXPERIMENT, '[chip]\nbarcodes = "chip.barcodeToPos.h5"\n'),
        ("library",),
    ),
    "bad read structure": (replace(EXPERIMENT, "25C10M", "25C10Q"), ("25C10Q", "read structure", "line")),
    "barcode too long": (replace(EXPERIMENT, "25C10M", "33C2M"), ("33", "32")),
    "RNA without genes": (replace(EXPERIMENT, 'genes = "genes.gtf"', ""), ("genes", "rna")),
    "one file for two reads": (
        replace(EXPERIMENT, '["rna_1.fq", "rna_2.fq"]', '["rna_1.fq"]'),
        ("reads", "read_structures"),
    ),
    "named file missing": (remove("genome.fa"), ("genome.fa", "library[0].genome", "line")),
    # The chip.
    "chip no HDF5": (write("chip.barcodeToPos.h5", "barcodes\n"), ("chip.barcodeToPos.h5", "HDF5")),
    "chip empty": (write("chip.barcodeToPos.h5", ""), ("chip.barcodeToPos.h5", "empty")),
    "chip without matrix": (mask(no_matrix), ("chip.barcodeToPos.h5", "bpMatrix_1")),
    "chip without spots": (mask(no_spots), ("chip.barcodeToPos.h5",)),
    "wrong chip": (mask(other_chip), ("no spot matches", "of the first 3,000 reads", "Is this the chip")),
    "chip of other barcode length": (table("chip.txt", f"{CID[:20]}\t1\t1\n"), ("chip.txt", "20 bases", "25")),
    "table of mixed lengths": (table("chip.txt", f"{CID}\t1\t1\n{CID[:24]}\t1\t2\n"), ("chip.txt", "line 2", "24")),
    "table with a strange base": (table("chip.txt", f"{CID}\t1\t1\n{CID[:24]}X\t1\t2\n"), ("chip.txt", "line 2", "X")),
    "table with a coordinate in words": (
        table("chip.csv", f"{CID},1,1\n{CID[::-1]},1,two\n"),
        ("chip.csv", "line 2", "two"),
    ),
    "table without y": (table("chip.tsv", f"{CID}\t1\n"), ("chip.tsv", "column")),
    "table with a negative place": (table("chip.tsv", f"{CID}\t-4\t1\n"), ("chip.tsv", "line 1", "-4")),
    "table cut in gzip": (
        table("chip.txt.gz", gzip.compress(f"{CID}\t1\t1\n".encode() * 1000)[:-12]),
        ("chip.txt.gz", "cut"),
    ),
    "mask cut in a record": (table("chip.bin", bytes(24)), ("chip.bin", "16")),
    # Reads.
    "reads empty": (write("rna_1.fq", ""), ("rna_1.fq", "empty")),
    "reads no FASTQ": (write("rna_2.fq", ">chr1\nACGT\n"), ("rna_2.fq", "record 1", "FASTQ")),
    "reads cut in gzip": (gzipped("rna_2.fq", lambda b: b[: len(b) // 2]), ("rna_2.fq.gz", "cut")),
    "reads with a wrong gzip checksum": (gzipped("rna_1.fq", flipped), ("rna_1.fq.gz", "record")),
    "reads no gzip inside": (gzipped("rna_1.fq", lambda b: b[:200] + b"\0" * 200 + b[400:]), ("rna_1.fq.gz",)),
    "fewer second reads": (
        text("rna_2.fq", lambda content: "".join(content.splitlines(keepends=True)[: 4 * 2500])),
        ("rna_2.fq", "2,500", "rna_1.fq"),
    ),
    "names that do not pair": (
        line("rna_2.fq", 4 * 2000 + 1, lambda _: "@other/2"),
        ("record 2,001", "rna_2.fq", "other"),
    ),
    "a read too short": (
        both(
            line("rna_2.fq", 4 * 1000 + 2, lambda bases: bases[:-3]),
            line("rna_2.fq", 4 * 1000 + 4, lambda qualities: qualities[:-3]),
        ),
        ("rna_2.fq", "record 1,001", "97", "100"),
    ),
    "reads longer than the structure": (replace(EXPERIMENT, '"100T"', '"90T"'), ("rna_2.fq", "100", "90")),
    "reads shorter than the structure": (replace(EXPERIMENT, '"100T"', '"110T"'), ("rna_2.fq", "100", "110")),
    "Windows line ends": (
        text("rna_1.fq", lambda content: content.replace("\n", "\r\n")),
        ("rna_1.fq", "Windows", "record 1"),
    ),
    "one Windows line end": (line("rna_1.fq", 4 * 1500 + 2, lambda s: s + "\r"), ("rna_1.fq", "record 1,501")),
    "quality shorter than sequence": (line("rna_1.fq", 4 * 700 + 4, lambda s: s[:-1]), ("rna_1.fq", "record 701")),
    "a strange base": (line("rna_1.fq", 4 * 700 + 2, lambda s: "R" + s[1:]), ("rna_1.fq", "record 701", "R")),
    "a strange quality": (line("rna_1.fq", 4 * 700 + 4, lambda s: "\x07" + s[1:]), ("rna_1.fq", "record 701")),
    "a missing plus": (line("rna_1.fq", 4 * 700 + 3, lambda _: "-"), ("rna_1.fq", "record 701", "+")),
    "a last record cut": (cut("rna_2.fq", 0.9999), ("rna_2.fq", "record 3,000")),
    # References.
    "genome empty": (write("genome.fa", ""), ("genome.fa", "empty")),
    "genome no FASTA": (write("genome.fa", "ACGT\n"), ("genome.fa", "FASTA")),
    "genome with a contig twice": (
        text("genome.fa", lambda content: content * 2),
        ("genome.fa", "twice"),
    ),
    "genome cut in gzip": (gzipped("genome.fa", lambda b: b[: len(b) // 2]), ("genome.fa.gz", "cut")),
    "genes empty": (write("genes.gtf", ""), ("genes.gtf",)),
    "genes without exons": (
        text("genes.gtf", lambda content: content.replace("\texon\t", "\tCDS\t")),
        ("genes.gtf", "exon"),
    ),
    "genes of another genome": (
        write("genes.gtf", 'chrX9\ta\texon\t1\t90\t.\t+\t.\tgene_id "g";\n'),
        ("genes.gtf", "chrX9"),
    ),
    "an exon without its gene": (
        write("genes.gtf", 'chr1\ta\texon\t1\t90\t.\t+\t.\tnote "g";\n'),
        ("genes.gtf", "line 1", "gene_id"),
    ),
    "an exon beyond the contig": (
        write("genes.gtf", 'chr1\ta\texon\t1\t999999999\t.\t+\t.\tgene_id "g";\n'),
        ("genes.gtf", "line 1", "999,999,999"),
    ),
    "an exon that ends before it starts": (
        write("genes.gtf", 'chr1\ta\texon\t90\t1\t.\t+\t.\tgene_id "g";\n'),
        ("genes.gtf", "line 1"),
    ),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_gives_one_clear_message(name, folder, cartoseq, tmp_path):
    change, parts = BAD[name]
    change(folder)
    done = cartoseq("map", folder / EXPERIMENT, "--out", tmp_path / "RUN", code=3)
    assert "Traceback" not in done.stdout + done.stderr
    message = done.stderr[done.stderr.index("cartoseq: ") :]
    for part in parts:
        assert part in message, message


def test_what_came_before_the_damage_is_mapped_and_the_run_goes_on_when_it_is_mended(folder, cartoseq, tmp_path):
    whole = (folder / "rna_2.fq").read_text()
    line("rna_2.fq", 4 * 2000 + 1, lambda _: "@other/2")(folder)
    with (folder / EXPERIMENT).open("a") as stream:
        stream.write("\n[run]\nblock_clusters = 300\n")
    run = tmp_path / "RUN"
    cartoseq("map", folder / EXPERIMENT, "--out", run, code=3)
    assert '"reads_total": 2000' in (run / "qc.json").read_text()
    (folder / "rna_2.fq").write_text(whole)
    cartoseq("map", folder / EXPERIMENT, "--out", run, "--resume")
    assert '"reads_total": 3000' in (run / "qc.json").read_text()


# Commands on runs.


@pytest.fixture(scope="module")
def run(sound, cartoseq, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(sound, folder / "experiment")
    cartoseq("map", folder / "experiment" / EXPERIMENT, "--out", folder / "RUN")
    return folder / "RUN"


def test_a_folder_in_use_is_not_overwritten(run, cartoseq):
    done = cartoseq("map", run.parent / "experiment" / EXPERIMENT, "--out", run, code=3)
    assert "--resume" in done.stderr


def test_resume_needs_a_run(run, cartoseq, tmp_path):
    done = cartoseq("map", run.parent / "experiment" / EXPERIMENT, "--out", tmp_path, "--resume", code=3)
    assert "no run" in done.stderr


def test_resume_needs_the_same_experiment(run, cartoseq, tmp_path):
    other = shutil.copytree(run.parent / "experiment", tmp_path / "other")
    done = cartoseq("map", other / EXPERIMENT, "--out", run, "--resume", code=3)
    assert "not the one" in done.stderr


def test_a_complete_run_has_nothing_to_resume(run, cartoseq):
    done = cartoseq("map", run.parent / "experiment" / EXPERIMENT, "--out", run, "--resume")
    assert "complete" in done.stderr


@pytest.mark.parametrize("command", [("export", "--format", "gef"), ("report",), ("qc",), ("replay", "--out", "R")])
def test_commands_on_a_folder_that_is_no_run(command, cartoseq, tmp_path):
    name, *options = command
    done = cartoseq(name, tmp_path, *options, code=3)
    assert "no run" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_gene_names_near_ones(run, cartoseq):
    done = cartoseq("export", run, "--format", "png", "--gene", "Gene99999x", code=3)
    assert "Gene99999x" in done.stderr


def test_an_unknown_library_names_the_known(run, cartoseq):
    done = cartoseq("export", run, "--format", "gem", "--library", "protein", code=3)
    assert "protein" in done.stderr
    assert "rna" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("export", "RUN", "--format", "bam"), ("map",), ("fly",), ("map", "e.toml"), ("demo", "--reads", "many")],
)
def test_wrong_usage_is_told_with_the_usage(arguments, cartoseq):
    done = cartoseq(*arguments, code=2)
    assert "Usage" in done.stderr or "No such command" in done.stderr


def test_a_damaged_log_is_named_with_file_and_offset(run, cartoseq, tmp_path):
    damaged = tmp_path / "RUN"
    shutil.copytree(run, damaged)
    segment = sorted((damaged / "log").iterdir(), key=lambda path: path.stat().st_size)[-1]
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(bytes(content))
    done = cartoseq("replay", damaged, "--out", tmp_path / "RUN2", code=5)
    assert segment.name in done.stderr
    assert "offset" in done.stderr or "byte" in done.stderr
