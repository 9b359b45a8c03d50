"""10,000 real Visium read pairs through the command line, held against STARsolo's counts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import cartoseq as package

EXPERIMENT = """
[chip]
barcodes = "visium-v1_coordinates.txt"
one_based = true

[[library]]
name = "rna"
layer = "rna"
read_structures = ["16C12M", "90T"]
reads = [["vy3C_10k_R1.fq.gz", "vy3C_10k_R2.fq.gz"]]
genome = "ref_mm_chrM_rRNA.fa"
genes = "ref_mm_chrM_rRNA.gtf"
"""


@pytest.fixture(scope="module")
def run(real_data, cartoseq, tmp_path_factory):
    folder = tmp_path_factory.mktemp("visium")
    for path in (real_data / "rna_visium").iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)
            (folder / path.name).chmod(0o644)
    (folder / "experiment.toml").write_text(EXPERIMENT)
    cartoseq("map", folder / "experiment.toml", "--out", folder / "RUN")
    return folder / "RUN"


@pytest.fixture(scope="module")
def expected(real_data):
    """STARsolo's counts: shape (genes, spots), with the genes' and the spots' names."""
    folder = real_data / "rna_visium" / "expected_starsolo"
    genes = [line.split("\t")[0] for line in (folder / "features.tsv").read_text().splitlines()]
    barcodes = (folder / "barcodes.tsv").read_text().split()
    counts = np.zeros((len(genes), len(barcodes)), int)
    for line in (folder / "matrix.mtx").read_text().splitlines()[3:]:
        gene, spot, count = map(int, line.split())
        counts[gene - 1, spot - 1] = count
    return genes, barcodes, counts


def _counts(run, genes, barcodes, real_data):
    place = {}
    for line in (real_data / "rna_visium" / "visium-v1_coordinates.txt").read_text().splitlines():
        barcode, x, y = line.split("\t")
        place[int(x) - 1, int(y) - 1] = barcode
    spots = {barcode: number for number, barcode in enumerate(barcodes)}
    spatial = package.open_run(run).maps.libraries["rna"].map
    counts = np.zeros((len(genes), len(barcodes)), int)
    for number, gene in enumerate(spatial.feature_ids.tolist()):
        for row in range(spatial.offsets[number], spatial.offsets[number + 1]):
            spot = spots[place[int(spatial.x[row]), int(spatial.y[row])]]
            counts[genes.index(gene), spot] += int(spatial.molecules[row])
    return counts


def test_every_barcode_is_decided_as_the_field_does(run):
    counters = json.loads((run / "qc.json").read_text())["libraries"]["rna"]["counters"]
    assert counters["reads_total"] == 10_000
    assert counters["located_exact"] == 9_378
    assert counters["located_corrected"] == 270
    assert counters["ambiguous"] == 0
    assert counters["unmatched"] + counters["barcode_n"] == 352


def test_counts_are_within_the_bands_of_an_independent_aligner(run, expected, real_data):
    genes, barcodes, theirs = expected
    ours = _counts(run, genes, barcodes, real_data)
    assert theirs.sum() == 2_912
    assert abs(int(ours.sum()) - 2_912) <= 291
    for gene, mine, other in zip(genes, ours.sum(axis=1), theirs.sum(axis=1), strict=True):
        if other >= 100:
            assert abs(int(mine) - int(other)) <= 0.2 * other, gene
    seen = (ours > 0) | (theirs > 0)
    assert (
        np.corrcoef(ours[seen], theirs[seen])[0, 1] >= 0.94 or np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] >= 0.94
    )


def test_every_level_of_the_counters_adds_up(run):
    from cartoseq.analysis import counters as names

    library = json.loads((run / "qc.json").read_text())["libraries"]["rna"]
    counters = library["counters"]
    names.check(counters, "rna")
    assert counters["molecules"] == counters["molecules_distinct"] - counters["molecules_collapsed"]
    assert library["saturation"] == pytest.approx(1 - counters["molecules"] / counters["assigned"])
