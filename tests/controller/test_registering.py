from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cartoseq.analysis.runfolder import RunFolder
from cartoseq.analysis.tissueimages import read_tissue_images
from cartoseq.controller import cli
from cartoseq.controller.recipe import Channel
from cartoseq.controller.registering import register_imaged, register_run
from cartoseq.streaming.errors import InputError

from ..scans import HEIGHT_UM, PIXEL_UM, WIDTH_UM, Microscope, scan, scene

CHANNELS = (
    Channel(name="nuclei", light="green", power_mw=10, exposure_ms=20),
    Channel(name="if488", light="green", power_mw=10, exposure_ms=50),
)
MADE = ("mask.tif", "registered.ome.tif", "registration.json")


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose tissue was taken, in two channels, and not yet registered."""
    run = tmp_path_factory.mktemp("run")
    scan(run / "images", Microscope(scene(21)), channels=CHANNELS)
    return run


@pytest.fixture
def run(scanned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scanned, tmp_path / "RUN"))


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "images" / "tissue").iterdir())}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cartoseq", *arguments])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_run_gets_picture_mask_and_numbers_and_keeps_its_tiles(run: Path) -> None:
    raw = contents(run)
    said: list[str] = []
    scan_found = register_run(run, said.append, pixel_um=2.0)
    first = contents(run)
    assert sorted(first.keys() - raw.keys()) == list(MADE)
    assert {name: first[name] for name in raw} == raw
    assert any("of 16 tiles show more than 3 track crossings" in line for line in said)
    assert "image QC: passed" in said
    with tifffile.TiffFile(run / "images" / "tissue" / "registered.ome.tif") as file:
        assert file.is_ome
        assert file.series[0].axes == "CYX"
        assert file.series[0].shape == (2, HEIGHT_UM / 2, WIDTH_UM / 2)
        assert 'PhysicalSizeX="2.0"' in (file.ome_metadata or "")
        assert 'Name="if488"' in (file.ome_metadata or "")
    mask: NDArray[np.uint8] = tifffile.imread(run / "images" / "tissue" / "mask.tif")
    assert set(np.unique(mask).tolist()) == {0, 255}
    numbers = json.loads(first["registration.json"])
    assert numbers["schema"] == 1
    assert numbers["qc"]["good_fields"] == scan_found.qc.good_fields
    assert numbers["image"]["channel_count"] == 2
    images = read_tissue_images(run / "images" / "tissue")
    assert images is not None
    assert images.channels == ("nuclei", "if488")
    # Both channels show the same nuclei, with noise of their own.
    assert np.corrcoef(images.pictures[0].ravel(), images.pictures[1].ravel())[0, 1] > 0.9
    # Again, it is the same; an OME-TIFF has a number of its own each time.
    pictures = images.pictures.copy()
    register_run(run, said.append, pixel_um=2.0)
    again = read_tissue_images(run / "images" / "tissue")
    assert again is not None
    assert np.array_equal(again.pictures, pictures)
    assert {name: data for name, data in contents(run).items() if name != MADE[1]} == {
        name: data for name, data in first.items() if name != MADE[1]
    }


def test_the_command_registers_again_as_it_is_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "register", str(run), "--pixel-um", "4") == 0
    said = capsys.readouterr()
    assert "image QC: passed" in said.out
    images = read_tissue_images(run / "images" / "tissue")
    assert images is not None
    assert images.pixel_um == 4.0
    assert images.picture.shape == (375, 475)
    before = contents(run)
    # A chip of another pitch has other lines, and then nothing is written.
    assert call(monkeypatch, "register", str(run), "--pitch-nm", "715") == 3
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"cartoseq: {run / 'images' / 'tissue'}: the pictures cannot be registered: ")
    assert complaint.count("\n") == 1
    assert contents(run) == before


def test_how_the_chip_lies_is_told_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = scene(22, mirrored=True, quarter_turns=2)
    # The instrument file did not know.
    scan(tmp_path / "images", Microscope(true))
    assert call(monkeypatch, "register", str(tmp_path), "--pixel-um", "4", "--mirrored", "--quarter-turns", "2") == 0
    images = read_tissue_images(tmp_path / "images" / "tissue")
    assert images is not None
    pose = images.numbers["pose"]
    assert (pose["mirrored"], pose["quarter_turns"]) == (True, 2)
    corners = np.array([[0.0, 0.0, 1.0], [WIDTH_UM, 0.0, 1.0], [0.0, HEIGHT_UM, 1.0]])
    found = corners @ np.array(pose["matrix"]).T
    assert np.abs(found - true.pose.to_stage(corners[:, :2])).max() < 5 * PIXEL_UM


def test_a_run_without_pictures_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"RUN: this run has no pictures of its tissue.*images/tissue.*Name the folder"
    ):
        register_run(tmp_path / "RUN", print)
    (tmp_path / "RUN" / "images" / "tissue").mkdir(parents=True)
    with pytest.raises(InputError, match=r"there is no tiles\.json"):
        register_run(tmp_path / "RUN", print)


def test_a_tile_that_breaks_while_the_picture_is_written_leaves_what_was_there(run: Path) -> None:
    register_run(run, lambda text: None, pixel_um=4.0)
    # The second channel is read only when the picture is made.
    broken = run / "images" / "tissue" / "r001c001-if488.ome.tif"
    broken.write_bytes(broken.read_bytes()[:9000])
    before = contents(run)
    with pytest.raises(InputError, match=r"r001c001-if488\.ome\.tif: the picture cannot be read as TIFF"):
        register_run(run, lambda text: None, pixel_um=4.0)
    assert contents(run) == before


def test_at_the_end_of_a_run_the_tissue_is_registered_once(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    register_imaged(RunFolder(run), said.append)
    assert "image QC: passed" in said
    said.clear()
    register_imaged(RunFolder(run), said.append)
    register_imaged(RunFolder(tmp_path / "without pictures"), said.append)
    assert said == []


def test_a_tissue_that_cannot_be_registered_ends_no_run(run: Path) -> None:
    next((run / "images" / "tissue").glob("*.tif")).write_bytes(b"")
    before = contents(run)
    said: list[str] = []
    register_imaged(RunFolder(run), said.append)
    assert said[-1].startswith("The tissue is not registered: ")
    assert "the picture cannot be read as TIFF" in said[-1]
    assert contents(run) == before
