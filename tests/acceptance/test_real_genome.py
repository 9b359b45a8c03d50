"""Simulated transcripts of real genes: 2 Mb of the fly's genome with its real introns, through the whole program."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import cartoseq as package
from cartoseq.analysis import counters as names
from cartoseq.simulators.chip import ChipSettings
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.simulators.library import LibrarySettings

EXONIC, INTRONIC = 0, 1
UNIQUE = 0


@pytest.fixture(scope="module")
def mapped(real_data, cartoseq, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fly")
    reference = real_data / "reference_dm6"
    settings = ExperimentSettings(
        seed=6,
        reads=100_000,
        chip=ChipSettings(width=600, height=600),
        fasta=reference / "dm6.small.fa.gz",
        # Genes lie in introns of genes of the other strand here: what is antisense to one is sense to another.
        library=LibrarySettings(antisense_share=0.0, intergenic_share=0.05),
        gtf=reference / "dm6.small.gtf.gz",
    )
    experiment = simulate_experiment(folder, settings)
    cartoseq("map", experiment, "--out", folder / "RUN")
    with h5py.File(folder / "truth" / "truth.h5") as file:
        wanted = [f"molecules/{name}" for name in ("x", "y", "gene", "origin", "readable")]
        truth = {name: file[name][...] for name in (*wanted, "genes/id", "genes/class")}
    return folder / "RUN", truth


def per_gene_and_place(mapped):
    """Molecules found, and molecules that could be read, by gene and bin of 50 spots; each of shape (genes, bins)."""
    run, truth = mapped
    spatial = package.open_run(run).libraries["rna"]
    ids = [name.decode() for name in truth["genes/id"]]
    number = np.array([ids.index(name) for name in spatial.feature_ids.tolist()])
    gene = number[np.repeat(np.arange(len(number)), np.diff(spatial.offsets))]
    keep = np.isin(truth["molecules/origin"], (EXONIC, INTRONIC)) & (truth["molecules/readable"] > 0)

    def binned(gene, x, y, weights=None):
        flat = (gene.astype(np.int64) * 12 + y // 50) * 12 + x // 50
        return np.bincount(flat, weights, len(ids) * 144).reshape(len(ids), 144)

    there = binned(*(truth[f"molecules/{name}"][keep] for name in ("gene", "x", "y")))
    return binned(gene, spatial.x, spatial.y, spatial.molecules), there


def test_the_molecules_of_genes_with_a_sequence_of_their_own_are_recovered(mapped):
    found, there = per_gene_and_place(mapped)
    unique = mapped[1]["genes/class"] == UNIQUE
    assert unique.sum() == 151
    assert there[unique].sum() > 15_000
    assert found[unique].sum() == pytest.approx(there[unique].sum(), rel=0.01)
    filled = unique & (there.sum(axis=1) >= 100)
    assert filled.sum() > 30
    for ours, theirs in zip(found[filled], there[filled], strict=True):
        assert ours.sum() == pytest.approx(theirs.sum(), rel=0.05)
    assert np.corrcoef(found[unique].ravel(), there[unique].ravel())[0, 1] >= 0.999


def test_only_genes_that_share_their_sequence_lose_molecules(mapped):
    found, there = (counts.sum(axis=1) for counts in per_gene_and_place(mapped))
    assert 0.97 <= found.sum() / there.sum() <= 1.01
    run, truth = mapped
    lost = np.flatnonzero(there - found > 10)
    assert (truth["genes/class"][lost] != UNIQUE).all()
    counters = json.loads((run / "qc.json").read_text())["libraries"]["rna"]["counters"]
    names.check(counters, "rna")
    assert counters["multi_mapped"] > 0
    assert 0 < counters["assigned_intronic"] < 0.1 * counters["assigned"]
