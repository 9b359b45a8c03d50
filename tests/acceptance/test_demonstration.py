"""What `./run` shows: an instrument images a tissue and sequences it; picture, mask and map tell of the same one."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import cartoseq as library
from cartoseq.simulators.experiment import cells_um

from .conftest import Cartoseq

READS = 30_000


@pytest.fixture(scope="module")
def demonstration(cartoseq: Cartoseq, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Its folder, and what it said."""
    folder = tmp_path_factory.mktemp("demonstration") / "demo"
    done = cartoseq("demo", "--reads", READS, "--out", folder)
    return folder, done.stdout + done.stderr


def test_it_leaves_pictures_maps_and_a_report_and_says_where(demonstration: tuple[Path, str]) -> None:
    folder, said = demonstration
    run = folder / "run"
    for name in ("images/tissue/registered.ome.tif", "images/tissue/mask.tif", "maps.h5", "report.html", "recipe.toml"):
        assert (run / name).stat().st_size > 0
    for name in ("images/tissue/registered.ome.tif", "maps.h5", "report.html"):
        assert str(run / name) in said
    assert "Every device is safe." in said
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    ended = [event for event in events if event["event"] == "ended" and "reason" in event]
    assert [event["reason"] for event in ended] == ["completed"]
    assert json.loads((run / "qc.json").read_text())["libraries"]["rna"]["counters"]["reads_total"] == READS


def test_the_camera_sees_the_tissue_that_is_sequenced(demonstration: tuple[Path, str]) -> None:
    folder, _ = demonstration
    run = library.open_run(folder / "run")
    assert run.images is not None
    assert run.images.qc["passed"]
    mask = tifffile.imread(folder / "run" / "images" / "tissue" / "mask.tif") > 0
    numbers = json.loads((folder / "run" / "images" / "tissue" / "registration.json").read_text())
    cell_um = numbers["mask"]["cell_um"]

    cells = cells_um(folder / "simulated")
    assert cells is not None
    columns, rows = np.minimum((cells / cell_um).astype(int), [mask.shape[1] - 1, mask.shape[0] - 1]).T
    assert mask[rows, columns].mean() > 0.98

    spatial = run.libraries["rna"]
    spots_a_cell = round(cell_um / 0.5)
    total = spatial.total(spots_a_cell)
    height, width = min(total.shape[0], mask.shape[0]), min(total.shape[1], mask.shape[1])
    inside = total[:height, :width][mask[:height, :width]].sum() / total[:height, :width].sum()
    assert inside > 0.9  # the rest is ambient, and diffuses over the edge
    assert mask.mean() < 0.85


def test_where_cells_lie_is_known_of_simulated_experiments_only(
    demonstration: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = demonstration
    cells = cells_um(folder / "simulated")
    assert cells is not None
    with h5py.File(folder / "simulated" / "truth" / "truth.h5") as truth:
        assert cells[:, 0] == pytest.approx(truth["cells/x"][()] * 0.5)
        assert cells[:, 1] == pytest.approx(truth["cells/y"][()] * 0.5)
    assert cells_um(tmp_path) is None
