"""A simulated tissue, mapped, held against what was emitted: molecules, places, losses and their causes."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import cartoseq as package
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.simulators.genome import GenomeSettings

UNIQUE, EXONIC, INTRONIC = 0, 0, 1
BIN = 50


@pytest.fixture(scope="module")
def mapped(cartoseq, tmp_path_factory):
    """The run of a simulated experiment, and its truth."""
    folder = tmp_path_factory.mktemp("tissue")
    settings = ExperimentSettings(seed=21, reads=1_000_000, genome=GenomeSettings(genes=100), read_truth=True)
    experiment = simulate_experiment(folder, settings)
    cartoseq("map", experiment, "--out", folder / "RUN")
    with h5py.File(folder / "truth" / "truth.h5") as file:
        truth = {
            name: file[name][...]
            for name in (
                "molecules/x",
                "molecules/y",
                "molecules/gene",
                "molecules/origin",
                "molecules/copies",
                "molecules/readable",
                "genes/id",
                "genes/class",
                "reads/kind",
                "reads/x",
                "reads/y",
            )
        }
    return folder / "RUN", truth


def _per_bin(x, y, gene, weight, genes, side):
    bins = -(-side // BIN)
    flat = (gene.astype(np.int64) * bins + y // BIN) * bins + x // BIN
    return np.bincount(flat, weight, genes * bins * bins).reshape(genes, -1)


def _found(mapped):
    """Molecules found per gene of the truth and bin; shape (genes, bins)."""
    run, truth = mapped
    spatial = package.open_run(run).libraries["rna"]
    ids = [name.decode() for name in truth["genes/id"]]
    number = np.array([ids.index(name) for name in spatial.feature_ids.tolist()])
    gene = number[np.repeat(np.arange(len(number)), np.diff(spatial.offsets))]
    return _per_bin(spatial.x, spatial.y, gene, spatial.molecules, len(ids), int(spatial.frame.width))


def _truly(mapped, *, readable):
    """Molecules of the kinds that the map counts: emitted, or those of them with a read that anyone could place."""
    run, truth = mapped
    keep = np.isin(truth["molecules/origin"], (EXONIC, INTRONIC))
    if readable:
        keep &= truth["molecules/readable"] > 0
    columns = [truth[f"molecules/{name}"][keep] for name in ("x", "y", "gene")]
    side = int(package.open_run(run).maps.frame.width)
    return _per_bin(*columns, None, truth["genes/id"].size, side)


def test_every_molecule_of_a_uniquely_mappable_gene_is_at_its_place(mapped):
    unique = mapped[1]["genes/class"] == UNIQUE
    found, emitted = _found(mapped)[unique], _truly(mapped, readable=False)[unique]
    assert abs(found.sum() / emitted.sum() - 1) <= 0.005
    assert np.corrcoef(found.ravel(), emitted.ravel())[0, 1] >= 0.999
    # A molecule all of whose reads have two wrong bases in the CID cannot be placed by anyone: about 0.5 % of them.
    # With a handful of molecules a bin, that alone pulls a gene's correlation below the bar.
    correlation = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(found, emitted, strict=True)])
    well_filled = emitted.mean(axis=1) >= 4
    assert well_filled.sum() >= 15
    assert correlation[well_filled].min() >= 0.999
    assert np.median(correlation) >= 0.999


def test_no_gene_loses_molecules_that_can_be_read(mapped):
    unique = mapped[1]["genes/class"] == UNIQUE
    found = _found(mapped)[unique].sum(axis=1)
    readable = _truly(mapped, readable=True)[unique].sum(axis=1)
    assert (found >= 0.999 * readable).all()


def test_over_all_genes_little_is_lost_and_the_causes_are_named(mapped):
    assert 0.9 <= _found(mapped).sum() / _truly(mapped, readable=False).sum() <= 1.01
    run, _ = mapped
    counters = json.loads((run / "qc.json").read_text())["libraries"]["rna"]["counters"]
    assert counters["multi_mapped"] > 0  # paralogs and repeats
    assert counters["unmapped"] > 0  # adapters, the chip's own DNA
    assert counters["unmatched"] > 0.1 * counters["reads_total"]  # no barcode of the chip


def test_almost_no_read_lies_at_a_wrong_place(mapped):
    """Reads that are located, less those located where they come from: at most one in ten thousand."""
    from cartoseq.analysis.barcodes import pack_cids
    from cartoseq.analysis.locate import CORRECTED_N, locate
    from cartoseq.controller.config import load_experiment
    from cartoseq.controller.folding import open_chip
    from cartoseq.controller.sources import open_source

    run, truth = mapped
    experiment = load_experiment(run.parent / "experiment.toml")
    index, frame = open_chip(experiment)
    wrong = located = right = 0
    with open_source(experiment, 0) as blocks:
        for block in blocks:
            n = block.clusters
            cids, counts, places = np.empty(n, np.uint64), np.empty(n, np.uint8), np.empty(n, np.uint8)
            pack_cids(block.calls, np.arange(25), cids, counts, places)
            spots, verdicts = np.empty(n, np.uint32), np.empty(n, np.uint8)
            locate(cids, counts, places, index, 1, spots, verdicts)
            here = verdicts <= CORRECTED_N
            x, y = frame.coordinates(spots[here])
            which = np.flatnonzero(here) + block.first_cluster
            same = (x == truth["reads/x"][which]) & (y == truth["reads/y"][which])
            located += int(here.sum())
            right += int(same.sum())
            wrong += int((~same).sum())
    assert right + wrong == located > 800_000
    assert wrong <= 1e-4 * located
    on_chip = int((truth["reads/x"] >= 0).sum())
    assert right >= 0.97 * on_chip
