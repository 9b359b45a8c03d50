"""One chip in every kind of table: the same map. And a list of beads anywhere, with fractional coordinates."""

from __future__ import annotations

import gzip
import json

import anndata
import h5py
import numpy as np
import pytest
from scipy.io import mmread

import cartoseq as package
from cartoseq.analysis.exports.gef import read_gef
from cartoseq.analysis.exports.gem import read_gem
from cartoseq.analysis.maps import read_maps
from cartoseq.analysis.snapshot import write_snapshot
from cartoseq.controller.config import load_experiment
from cartoseq.controller.folding import make_fold
from cartoseq.controller.sources import open_source
from cartoseq.simulators.chip import ChipSettings
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.simulators.genome import GenomeSettings

NAMED = '"\nname = "B01"\npitch_um = 0.5'
MASK = "chip.barcodeToPos.h5"


def spelled(codes):
    """Barcodes as text: 2 bits a base, A0 C1 T2 G3, the first base lowest."""
    letters = np.frombuffer(b"ACTG", np.uint8)[(codes[:, None] >> np.arange(0, 50, 2, dtype=np.uint64)) & np.uint64(3)]
    return [row.tobytes().decode() for row in letters]


@pytest.fixture(scope="module")
def simulated_chip(tmp_path_factory):
    """A simulated experiment, and its chip: codes, barcodes, x and y of every spot."""
    folder = tmp_path_factory.mktemp("kinds")
    settings = ExperimentSettings(
        seed=12, reads=12_000, chip=ChipSettings(width=300, height=250), genome=GenomeSettings(genes=60)
    )
    experiment = simulate_experiment(folder, settings)
    with h5py.File(folder / MASK) as file:
        codes = file["bpMatrix_1"][:, :, 0]
    y, x = np.nonzero(codes)
    return experiment, codes[y, x], spelled(codes[y, x]), x, y


def write_rank_2(path, codes, barcodes, x, y):
    matrix = np.zeros((250, 300), np.uint64)
    matrix[y, x] = codes
    with h5py.File(path, "w") as file:
        file["bpMatrix_1"] = matrix


def write_records(path, codes, barcodes, x, y):
    records = np.empty(codes.size, [("cid", "<u8"), ("x", "<u4"), ("y", "<u4")])
    records["cid"], records["x"], records["y"] = codes, x, y
    records.tofile(path)


def write_lines(path, codes, barcodes, x, y):
    path.write_text("".join(f"{b}\t{i}\t{j}\n" for b, i, j in zip(barcodes, x, y, strict=True)))


def write_csv_with_header(path, codes, barcodes, x, y):
    rows = "".join(f"{j},s{i},{b},{i}\n" for b, i, j in zip(barcodes, x, y, strict=True))
    path.write_text(f"Y,spot,CID,X\n{rows}")


def write_gzipped_from_one(path, codes, barcodes, x, y):
    # Another order of lines is the same chip.
    lines = [f"{b}\t{i + 1}\t{j + 1}\n" for b, i, j in zip(barcodes, x, y, strict=True)]
    path.write_bytes(gzip.compress("".join(reversed(lines)).encode(), 1))


KINDS = {
    "rank2.barcodeToPos.h5": (write_rank_2, ""),
    "mask.bin": (write_records, ""),
    "mask.txt": (write_lines, ""),
    "table.csv": (write_csv_with_header, ""),
    "numbered.csv": (write_csv_with_header, "\nbarcode_column = 2\nx_column = 3\ny_column = 0"),
    "table.tsv.gz": (write_gzipped_from_one, "\none_based = true"),
}


def folded(experiment, maps):
    """The map of an experiment's reads, made in this process."""
    experiment = load_experiment(experiment)
    fold = make_fold(experiment)
    with open_source(experiment, 0) as blocks:
        for block in blocks:
            fold.libraries[0].add(block)
    write_snapshot(maps, maps.with_suffix(".json"), fold)
    return fold.libraries[0]


@pytest.fixture(scope="module")
def of_mask(simulated_chip, tmp_path_factory):
    """The map by the mask that the simulator writes (rank 3)."""
    experiment, *_ = simulated_chip
    named = experiment.with_name("named.toml")
    named.write_text(experiment.read_text().replace(f'{MASK}"', MASK + NAMED))
    maps = tmp_path_factory.mktemp("mask") / "maps.h5"
    library = folded(named, maps)
    assert library.molecules.molecules > 2_000
    return maps


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_table_gives_the_same_file(kind, simulated_chip, of_mask, tmp_path):
    experiment, *chip = simulated_chip
    write, options = KINDS[kind]
    write(experiment.with_name(kind), *chip)
    other = experiment.with_name(f"{kind}.toml")
    other.write_text(experiment.read_text().replace(f'{MASK}"', kind + NAMED + options))
    folded(other, tmp_path / "maps.h5")
    assert (tmp_path / "maps.h5").read_bytes() == of_mask.read_bytes()


@pytest.fixture(scope="module")
def beads(simulated_chip):
    """Where each spot lies as a bead, in micrometres: a mirrored, skewed and unsteady image of the chip."""
    _, _, _, x, y = simulated_chip
    chance = np.random.default_rng(3)
    across = np.round(4_000 - 12.5 * x + 2 * y + chance.uniform(-3, 3, x.size), 3)
    down = np.round(20 + 11.0 * y + chance.uniform(-3, 3, x.size), 3)
    return across, down


@pytest.fixture(scope="module")
def run_of_beads(simulated_chip, beads, cartoseq):
    experiment, _, barcodes, *_ = simulated_chip
    rows = (f"{b},{i},{j}\n" for b, i, j in zip(barcodes, *(axis.tolist() for axis in beads), strict=True))
    experiment.with_name("beads.csv").write_text("barcode,xcoord,ycoord\n" + "".join(rows))
    listed = experiment.with_name("beads.toml")
    listed.write_text(experiment.read_text().replace(f'{MASK}"', 'beads.csv"\npitch_um = 1.0'))
    run = experiment.parent / "RUN"
    cartoseq("map", listed, "--out", run)
    every = [option for name in ("gef", "gem", "h5ad", "mtx") for option in ("--format", name)]
    cartoseq("export", run, *every)
    return run


def test_molecules_lie_at_their_beads(simulated_chip, beads, run_of_beads, of_mask):
    _, _, _, x, y = simulated_chip
    bead_of = {(int(i), int(j)): (a, d) for i, j, a, d in zip(x, y, *(axis.tolist() for axis in beads), strict=True)}

    def entries(spatial, place):
        feature = np.repeat(spatial.feature_ids, np.diff(spatial.offsets)).tolist()
        rows = zip(feature, spatial.x.tolist(), spatial.y.tolist(), spatial.molecules.tolist(), strict=True)
        return {(name, *place(i, j)): count for name, i, j, count in rows}

    on_lattice = read_maps(of_mask).libraries["rna"].map
    on_beads = package.open_run(run_of_beads).libraries["rna"]
    assert on_beads.rows == on_lattice.rows
    assert entries(on_beads, lambda i, j: (i, j)) == entries(on_lattice, lambda i, j: bead_of[i, j])


def test_a_list_of_beads_is_exported_and_reported(run_of_beads, cartoseq):
    spatial = package.open_run(run_of_beads).libraries["rna"]
    molecules = spatial.total_molecules
    (gef,) = run_of_beads.glob("exports/*.gef")
    (gem,) = run_of_beads.glob("exports/*.gem.gz")
    of_gef, of_gem = read_gef(gef), read_gem(gem)
    assert of_gef.molecules == of_gem.molecules == molecules
    # Tables have whole coordinates: those of a grid of 0.5 µm.
    assert of_gef.resolution_nm == 500
    names = np.repeat(spatial.feature_ids, np.diff(spatial.offsets)).tolist()
    x, y = (np.rint(2 * axis).astype(int).tolist() for axis in (spatial.x, spatial.y))
    rows = set(zip(names, x, y, strict=True))
    for table in (of_gef, of_gem):
        found = np.repeat(table.feature_ids, np.diff(table.offsets)).tolist()
        assert set(zip(found, table.x.tolist(), table.y.tolist(), strict=True)) == rows
    (h5ad,) = run_of_beads.glob("exports/*.h5ad")
    data = anndata.read_h5ad(h5ad)
    assert int(data.X.sum()) == molecules
    assert data.uns["cartoseq"]["spatial_unit"] == "um"
    left, top, right, bottom = spatial.frame.extent
    centres, size = data.obsm["spatial"], int(data.uns["cartoseq"]["bin_size"])
    assert (centres >= (left - size, top - size)).all()
    assert (centres <= (right + size, bottom + size)).all()
    (mtx,) = run_of_beads.glob("exports/*.mtx")
    assert int(mmread(mtx / "matrix.mtx.gz").sum()) == molecules
    picture = cartoseq("export", run_of_beads, "--format", "png", "--bin", "37.5").stdout.strip()
    assert picture.endswith("rna.bin37.5.png")
    counters = json.loads((run_of_beads / "qc.json").read_text())["libraries"]["rna"]["counters"]
    assert f"{counters['reads_total']:,}" in (run_of_beads / "report.html").read_text()
