"""Several libraries of one chip in one run: read side by side, counted apart, in files of their own."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

import cartoseq as package
from cartoseq.analysis import counters as names
from cartoseq.analysis.snapshot import library_map
from cartoseq.controller.config import load_experiment
from cartoseq.controller.folding import make_fold
from cartoseq.controller.sources import open_source
from cartoseq.simulators.chip import ChipSettings
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.simulators.genome import GenomeSettings

READS = 12_000
FORMATS = ("gef", "gem", "h5ad", "mtx")
#: Two samples of RNA with other sequencing lanes, and a DNA library, whose reads are pieces of the genome.
LIBRARIES = """
[[library]]
name = "left"
layer = "rna"
read_structures = ["25C10M", "100T"]
reads = [["left_1.fq.gz", "left_2.fq.gz"]]
genome = "genome.fa.gz"
genes = "genes.gtf.gz"

[[library]]
name = "right"
layer = "rna"
read_structures = ["25C10M", "100T"]
reads = [["right_1.fq.gz", "right_2.fq.gz"]]
genome = "genome.fa.gz"
genes = "genes.gtf.gz"
mid_collapse = "off"

[[library]]
name = "dna"
layer = "dna"
read_structures = ["25C", "80T"]
reads = [["dna_1.fq.gz", "dna_2.fq.gz"]]
genome = "genome.fa.gz"
window_bp = 100_000
"""
RUN = "\n[run]\nblock_clusters = 1000\n"


def records(path):
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return list(zip(*[iter(lines)] * 4, strict=True))


def write(path, kept):
    path.write_bytes(gzip.compress("".join("\n".join(record) + "\n" for record in kept).encode(), 1, mtime=0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("libraries")
    settings = ExperimentSettings(
        seed=31, reads=2 * READS, chip=ChipSettings(width=400, height=400), genome=GenomeSettings(genes=60)
    )
    simulate_experiment(folder, settings)
    reads = [records(folder / f"rna_{number}.fq.gz") for number in (1, 2)]
    for number in (0, 1):
        # The second sample is a third larger than what is left of the first.
        write(folder / f"left_{number + 1}.fq.gz", reads[number][: 2 * READS * 3 // 7])
        write(folder / f"right_{number + 1}.fq.gz", reads[number][2 * READS * 3 // 7 :])
    fasta = gzip.decompress((folder / "genome.fa.gz").read_bytes()).decode()
    contig = max(("".join(part.split("\n")[1:]) for part in fasta.split(">")[1:]), key=len)
    starts = np.random.default_rng(4).integers(0, len(contig) - 80, READS // 2)
    write(folder / "dna_1.fq.gz", [(name, b[:25], p, q[:25]) for name, b, p, q in reads[0][: READS // 2]])
    write(
        folder / "dna_2.fq.gz",
        [
            (name, contig[start : start + 80], "+", "I" * 80)
            for (name, *_), start in zip(reads[1], starts.tolist(), strict=False)
        ],
    )
    chip = '[chip]\nbarcodes = "chip.barcodeToPos.h5"\n'
    (folder / "all.toml").write_text(chip + LIBRARIES + RUN)
    for part in LIBRARIES.split("[[library]]")[1:]:
        name = part.split('"')[1]
        (folder / f"{name}.toml").write_text(f"{chip}\n[[library]]{part}{RUN}")
    return folder


@pytest.fixture(scope="module")
def broken(folder, cartoseq):
    """A run that ended at a fault in the reads of one library: what it said, and its counters."""
    path = folder / "right_2.fq.gz"
    whole = path.read_bytes()
    lines = gzip.decompress(whole).decode().split("\n")
    lines[4 * 5_000] = "@another/2"
    path.write_bytes(gzip.compress("\n".join(lines).encode(), 1, mtime=0))
    try:
        done = cartoseq("map", folder / "all.toml", "--out", folder / "RUN", code=3)
    finally:
        path.write_bytes(whole)
    return done.stderr, json.loads((folder / "RUN" / "qc.json").read_text())


@pytest.fixture(scope="module")
def run(folder, broken, cartoseq):
    """The same run, gone on with when the reads were mended."""
    cartoseq("map", folder / "all.toml", "--out", folder / "RUN", "--resume")
    return folder / "RUN"


def test_a_fault_in_one_library_is_named_and_what_came_before_is_counted(broken):
    said, counted = broken
    assert "right_2.fq.gz" in said
    assert "record 5001" in said.replace(",", "")
    assert counted["complete"] is False
    assert counted["libraries"]["right"]["counters"]["reads_total"] == 5_000


def test_libraries_are_read_side_by_side_and_end_apart(run):
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    # Of the run after it was mended.
    events = events[max(number for number, event in enumerate(events) if event["event"] == "started") :]
    started = [event["process"] for event in events if event["event"] == "process started"]
    assert sorted(started) == ["binner", "reader-dna", "reader-left", "reader-right", "recorder"]
    # All had been started before the first of them ended.
    first_end = next(number for number, event in enumerate(events) if event["event"] == "process ended")
    assert sum(event["event"] == "process started" for event in events[:first_end]) == 5


@pytest.mark.parametrize("name", ["left", "right", "dna"])
def test_each_library_counts_as_it_does_alone(name, run, folder):
    experiment = load_experiment(folder / f"{name}.toml")
    (library,) = make_fold(experiment).libraries
    with open_source(experiment, 0) as blocks:
        for block in blocks:
            library.add(block)
    alone = library_map(library)
    together = package.open_run(run).maps.libraries[name]
    for column in ("feature_ids", "offsets", "x", "y", "molecules", "reads"):
        assert np.array_equal(getattr(alone.map, column), getattr(together.map, column)), column
    for column in ("copies", "saturation", "located", "base_counts", "quality_counts"):
        assert np.array_equal(getattr(alone, column), getattr(together, column)), column
    counters = json.loads((run / "qc.json").read_text())["libraries"][name]["counters"]
    assert counters == dict(alone.totals)
    names.check(counters, name)
    assert counters["molecules"] > 2_000


def test_one_file_holds_the_maps_of_all(run):
    opened = package.open_run(run)
    assert list(opened.libraries) == ["left", "right", "dna"]
    assert [opened.libraries[name].layer for name in opened.libraries] == ["rna", "rna", "dna"]
    totals = {name: opened.libraries[name].total_molecules for name in opened.libraries}
    assert totals["right"] > totals["left"]
    table = opened.genes
    assert {name: table.filter(library=name)["molecules"].sum() for name in totals} == totals


def test_exports_and_report_name_their_library(run, cartoseq):
    options = [option for name in FORMATS for option in ("--format", name)]
    written = cartoseq("export", run, *options).stdout.split()
    files = sorted(path.rsplit("/", 1)[1] for path in written)
    assert len(files) == 12
    for name in ("left", "right", "dna"):
        assert [file.split(".")[-1] for file in files if file.startswith(f"{name}.")] == ["gz", "h5ad", "mtx", "gef"]
        assert list((run / "exports").glob(f"{name}.*.png"))
    report = (run / "report.html").read_text()
    assert "3 libraries" in report
    qc = json.loads((run / "qc.json").read_text())["libraries"]
    for name in ("left", "right", "dna"):
        assert f'id="{name}"' in report or f">{name}<" in report
        assert f"{qc[name]['counters']['reads_total']:,}" in report


def test_one_library_is_exported_alone_and_a_gene_by_its_libraries(run, cartoseq, tmp_path):
    cartoseq("export", run, "--format", "gem", "--library", "right", "--out", tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["right.bin1.gem.gz"]
    gene = package.open_run(run).libraries["left"].feature_names[0]
    cartoseq("export", run, "--format", "png", "--gene", gene, "--out", tmp_path / "gene")
    assert {path.name.split(".")[0] for path in (tmp_path / "gene").iterdir()} == {"left", "right"}


def test_the_summary_tells_of_each(run, cartoseq):
    lines = cartoseq("qc", run).stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["left", "right", "dna"]


def test_a_replay_needs_no_file_of_reads(run, folder, cartoseq, tmp_path):
    reads = sorted(folder.glob("*_[12].fq.gz"))
    try:
        for path in reads:
            path.rename(path.with_suffix(".away"))
        cartoseq("replay", run, "--out", tmp_path / "RUN")
    finally:
        for path in reads:
            path.with_suffix(".away").rename(path)
    for name in ("maps.h5", "qc.json", "report.html"):
        assert (tmp_path / "RUN" / name).read_bytes() == (run / name).read_bytes()
