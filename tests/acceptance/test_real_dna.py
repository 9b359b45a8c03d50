"""4,745 real single-cell genome reads through the command line, held against the authors' own alignment."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import anndata
import h5py
import numpy as np
import pysam
import pytest

import cartoseq as package
from cartoseq.analysis import counters as names
from cartoseq.analysis.assign import ASSIGNED, assign
from cartoseq.analysis.exports.gef import read_gef
from cartoseq.controller.config import load_experiment
from cartoseq.controller.folding import make_fold
from cartoseq.controller.sources import open_source

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
mid_collapse = "off"
"""
LEAST_QUALITY = 10
INSERTION, DELETION, SOFT_CLIP = 1, 2, 4


@pytest.fixture(scope="module")
def run(real_data, cartoseq, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sperm")
    for name in ("sperm_R1.fastq.gz", "sperm_R2.fastq.gz", "mini_ref.fa"):
        shutil.copyfile(real_data / "dna_spermseq" / name, folder / name)
    barcodes = (real_data / "dna_spermseq" / "cell_barcodes.txt").read_text().split()
    # The cells have no coordinates: a square of ten by ten.
    (folder / "cells.tsv").write_text(
        "".join(f"{barcode}\t{number % 10}\t{number // 10}\n" for number, barcode in enumerate(barcodes))
    )
    (folder / "experiment.toml").write_text(EXPERIMENT)
    cartoseq("map", folder / "experiment.toml", "--out", folder / "RUN")
    return folder / "RUN"


@pytest.fixture(scope="module")
def aligned(real_data):
    """The authors' alignments, by the read's name."""
    with pysam.AlignmentFile(str(real_data / "dna_spermseq" / "GenotypeSperm.bam")) as file:
        return {read.query_name: read for read in file}


@pytest.fixture(scope="module")
def placed(run):
    """For each read that has a place: its name, chromosome, 5' end (0-based) and whether it is reversed."""
    experiment = load_experiment(run.parent / "experiment.toml")
    library = make_fold(experiment).libraries[0]
    reference = library.reference
    with gzip.open(run.parent / "sperm_R2.fastq.gz", "rt") as stream:
        read_names = [line[1:].split()[0] for line in stream.read().splitlines()[0::4]]
    with open_source(experiment, 0) as blocks:
        (block,) = blocks
    found = assign(np.ascontiguousarray(block.calls[24:]), reference, library.settings.assign)
    places = {}
    for number in np.flatnonzero(found.verdicts == ASSIGNED).tolist():
        reverse = bool(found.strands[number])
        # The end itself may be clipped off and lie outside the contig; the middle of what aligns is in it.
        end = int(found.positions[number])
        inside = (int(found.aligned_from[number]) + int(found.aligned_to[number])) // 2
        middle = end - inside if reverse else end + inside
        contig = int(np.searchsorted(reference.contig_offsets, middle, side="right")) - 1
        chromosome, start, _ = str(reference.contig_names[contig]).split("_")
        offset = int(start) - 1 - int(reference.contig_offsets[contig])
        places[read_names[number]] = chromosome, end + offset, reverse
    return places


def fragment_end(read):
    """The 5' end of an alignment (0-based), clipped bases counted in."""
    operation, length = read.cigartuples[-1 if read.is_reverse else 0]
    clipped = length if operation == SOFT_CLIP else 0
    return read.reference_end - 1 + clipped if read.is_reverse else read.reference_start - clipped


def test_reads_are_placed_where_the_authors_placed_them(aligned, placed):
    sure = {name for name, read in aligned.items() if read.mapping_quality >= LEAST_QUALITY}
    assert len(sure) == 4_745
    both = sorted(sure & placed.keys())
    assert len(both) >= 0.98 * len(sure)
    alike = exact = 0
    for name in both:
        read = aligned[name]
        chromosome, end, reverse = placed[name]
        gaps = sum(length for operation, length in read.cigartuples if operation in (INSERTION, DELETION))
        distance = abs(end - fragment_end(read))
        # A fragment's end is counted out from what aligns: where one aligner bridges a gap and the other does not, the
        # ends differ by that gap.
        same = chromosome == read.reference_name and reverse == read.is_reverse
        alike += same and distance in (0, gaps)
        exact += same and distance == 0
    assert alike >= 0.995 * len(both)
    assert exact >= 0.98 * len(both)


def test_every_barcode_is_found_and_every_level_of_the_counters_adds_up(run, placed):
    library = json.loads((run / "qc.json").read_text())["libraries"]["dna"]
    counters = library["counters"]
    names.check(counters, "dna")
    assert counters["reads_total"] == counters["located_exact"] == 4_745
    assert counters["assigned"] == len(placed)
    assert library["layer"] == "dna"


def test_molecules_are_fragments_of_one_place_strand_and_barcode(run, aligned, placed):
    fragments = {
        (read.get_tag("XC"), read.get_tag("XM"), *placed[name]) for name, read in aligned.items() if name in placed
    }
    counters = json.loads((run / "qc.json").read_text())["libraries"]["dna"]["counters"]
    assert counters["molecules"] == counters["molecules_distinct"] == len(fragments)
    theirs = {
        (read.get_tag("XC"), read.get_tag("XM"), read.reference_name, fragment_end(read), read.is_reverse)
        for name, read in aligned.items()
        if name in placed
    }
    assert len(fragments) == pytest.approx(len(theirs), rel=0.002)


def test_the_map_in_windows_holds_every_molecule_in_its_cell(run, real_data, aligned, placed):
    spatial = package.open_run(run).libraries["dna"]
    counters = json.loads((run / "qc.json").read_text())["libraries"]["dna"]["counters"]
    assert spatial.total_molecules == counters["molecules"]
    assert int(spatial.reads.sum()) == counters["assigned"]
    assert len(spatial.feature_ids) == 4_258
    barcodes = (real_data / "dna_spermseq" / "cell_barcodes.txt").read_text().split()
    window = np.repeat(spatial.feature_ids, np.diff(spatial.offsets)).tolist()
    reads = {}
    for contig, x, y, count in zip(window, spatial.x, spatial.y, spatial.reads, strict=True):
        chromosome = contig.split("_")[0]
        key = barcodes[int(y) * 10 + int(x)], chromosome
        reads[key] = reads.get(key, 0) + int(count)
    expected = {}
    for name in placed:
        key = aligned[name].get_tag("XC"), placed[name][0]
        expected[key] = expected.get(key, 0) + 1
    assert reads == expected


def test_exports_and_report_are_of_a_genome(run, cartoseq):
    cartoseq("export", run, "--format", "gef", "--format", "gem", "--format", "h5ad", "--format", "mtx", "--bin", "1")
    spatial = package.open_run(run).libraries["dna"]
    (gef,) = run.glob("exports/*.gef")
    with h5py.File(gef) as file:
        assert file.attrs["omics"][0] == b"Genomics"
    table = read_gef(gef)
    assert table.omics == "Genomics"
    assert int(table.counts.sum()) == spatial.total_molecules
    (gem,) = run.glob("exports/*.gem.gz")
    text = gzip.decompress(gem.read_bytes()).decode()
    assert "#Omics=Genomics\n" in text
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    column = rows[0].index("MIDCount")
    assert sum(int(row[column]) for row in rows[1:]) == spatial.total_molecules
    (h5ad,) = run.glob("exports/*.h5ad")
    assert int(anndata.read_h5ad(h5ad).X.sum()) == spatial.total_molecules
    (mtx,) = run.glob("exports/*.mtx")
    assert mtx.is_dir()
    (picture,) = run.glob("exports/*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    report = (run / "report.html").read_text()
    assert "DNA: genome windows" in report
    assert "genome window (1,000,000 bp) in which its 5&#39; end lies" in report
    assert f"{spatial.total_molecules:,}" in report
    assert Path(cartoseq("report", run).stdout.strip()) == run / "report.html"
