from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

import cartoseq
from cartoseq.analysis.tissueimages import read_tissue_images
from cartoseq.streaming.errors import InputError


def test_a_run_gives_its_registered_picture_mask_and_quality(run_with_images, finished_run):
    images = cartoseq.open_run(run_with_images).images
    assert images is not None
    assert images.qc["passed"] is True
    assert images.picture.shape == (375, 475)
    assert images.mask.shape == (300, 380)
    assert images.channels == ("nuclei",)
    # Where the mask says tissue, the picture is brighter.
    whole = images.picture[:375, :475]
    rows, columns = np.indices(whole.shape)
    under = images.mask[(rows * 4 + 2) // 5, (columns * 4 + 2) // 5]
    assert whole[under].mean() > 1.5 * whole[~under].mean()
    assert cartoseq.open_run(finished_run).images is None


@pytest.mark.parametrize("listed", [False, True])
def test_counts_under_tissue_are_those_of_the_spots_there(make_run, run_with_images, tmp_path, listed):
    spatial = cartoseq.open_run(make_run(tmp_path / "run", side=(3800, 3000), listed=listed)).libraries["rna"]
    images = cartoseq.open_run(run_with_images).images
    counts = images.counts(spatial)
    molecules = reads = 0
    for x, y, n, r in zip(spatial.x, spatial.y, spatial.molecules, spatial.reads, strict=True):
        # A spot of a lattice is a square, and its middle counts; a listed one is a point.
        half = 0.0 if listed else 0.5
        row, column = (int((at + half) * 0.5 // 5) for at in (y - 2000, x - 1000))
        if images.mask[row, column]:
            molecules, reads = molecules + int(n), reads + int(r)
    assert 0 < molecules < spatial.total_molecules
    assert (counts.molecules, counts.reads) == (molecules, reads)
    assert counts.molecules_total == counts.molecules_per_cell.sum() == spatial.total_molecules
    assert counts.reads_total == spatial.reads.sum()


def test_spots_beyond_the_pictured_chip_are_not_under_tissue(make_run, run_with_images, tmp_path):
    spatial = cartoseq.open_run(make_run(tmp_path / "run", side=(8000, 8000))).libraries["rna"]
    counts = cartoseq.open_run(run_with_images).images.counts(spatial)
    assert counts.molecules_total == spatial.total_molecules
    assert counts.molecules_per_cell.sum() < counts.molecules_total


def test_without_a_pitch_nothing_is_said_of_tissue(make_run, run_with_images, tmp_path):
    spatial = cartoseq.open_run(make_run(tmp_path / "run", pitch_um=None)).libraries["rna"]
    assert cartoseq.open_run(run_with_images).images.counts(spatial) is None


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("registration.json", b"{", r"registration\.json: no longer reads as it was written"),
        ("registration.json", b'{"schema": 7}', r"registration\.json: expected schema 1, found 7"),
        ("mask.tif", b"II*\0", r"mask\.tif: this cannot be read as TIFF"),
        ("mask.tif", None, r"mask\.tif: the file is missing, but registration\.json names it"),
        ("registered.ome.tif", None, r"registered\.ome\.tif: the file is missing"),
    ],
)
def test_damaged_results_are_told_with_the_remedy(
    tmp_path: Path, name: str, damage: bytes | None, message: str
) -> None:
    folder = tmp_path / "tissue"
    folder.mkdir()
    numbers = {
        "schema": 1,
        "image": {"channels": [{"name": "nuclei"}]},
        "picture": {"file": "registered.ome.tif", "pixel_um": 1.0, "width_px": 30, "height_px": 20},
        "mask": {"file": "mask.tif", "cell_um": 5.0, "columns": 6, "rows": 4},
    }
    (folder / "registration.json").write_text(json.dumps(numbers))
    tifffile.imwrite(folder / "mask.tif", np.zeros((4, 6), np.uint8))
    tifffile.imwrite(folder / "registered.ome.tif", np.zeros((1, 20, 30), np.uint16))
    whole = read_tissue_images(folder)
    assert whole is not None
    assert (whole.mask.shape, whole.picture.shape) == ((4, 6), (20, 30))
    if damage is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(damage)
    with pytest.raises(InputError, match=f"{message}.*cartoseq register"):
        _used(folder)


def _used(folder: Path) -> None:
    images = read_tissue_images(folder)
    assert images is not None
    assert images.mask.size
    assert images.picture.size
