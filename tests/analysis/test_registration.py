from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.analysis.registration import ChipPose, RegisteredScan, lay, register_scan
from cartoseq.analysis.tilefolder import TileFolder
from cartoseq.analysis.tissueimages import TissueImages, read_tissue_images, write_tissue_images
from cartoseq.analysis.trackcross import Registration, track_lines_um
from cartoseq.simulators import chipimage
from cartoseq.simulators.chipimage import Pose, Scene, render
from cartoseq.streaming.errors import InputError

from ..scans import HEIGHT_UM, PIXEL_UM, WIDTH_UM, Microscope, in_tissue, scan, scene

#: Tile numbers of a scan to and fro: the sixth picture is the third from the right in the second row.
SLIPPED, BLURRED = 6, 7
SLIP_UM = (14.0, -9.0)


def crossings(of: Scene) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.stack(np.meshgrid(of.lines_x_um, of.lines_y_um), axis=-1).reshape(-1, 2)


def off_um(found: RegisteredScan, true: Scene) -> float:
    """How far the crossings are from where they truly lie, the worst."""
    points = crossings(true)
    return float(np.hypot(*(found.pose.to_stage(points) - true.pose.to_stage(points)).T).max())


def overlap_share(images: TissueImages) -> float:
    """Intersection over union of the mask and the true tissue."""
    rows, columns = np.indices(images.mask.shape)
    truth = in_tissue(np.stack([columns + 0.5, rows + 0.5], axis=-1) * images.cell_um)
    return float((images.mask & truth).sum() / (images.mask | truth).sum())


@pytest.mark.parametrize(
    ("seed", "mirrored", "quarter_turns"),
    [
        (1, False, 0),
        (2, False, 0),
        (3, True, 0),
        (4, False, 1),
        (5, True, 1),
        (6, False, 2),
        (7, False, 3),
        (8, True, 3),
    ],
)
def test_a_scan_of_any_pose_is_registered_with_its_tissue(
    tmp_path: Path, seed: int, mirrored: bool, quarter_turns: int
) -> None:
    true = scene(seed, mirrored, quarter_turns)
    summary = scan(tmp_path, Microscope(true, seed=1000 * seed), mirrored=mirrored, quarter_turns=quarter_turns)
    assert summary["bad"] == []
    found = register_scan(TileFolder(tmp_path / "tissue"))
    assert off_um(found, true) < 5 * PIXEL_UM
    points = crossings(true)
    assert np.allclose(found.pose.to_chip(found.pose.to_stage(points)), points)
    assert np.allclose(found.pose.matrix @ [300.0, 200.0, 1.0], found.pose.to_stage(np.array([[300.0, 200.0]]))[0])
    assert found.qc.passed
    assert found.qc.template_recall > 0.98
    assert found.qc.out_of_place == 0
    assert found.qc.good_fields == sum(len(field.crossings_px) > 3 for field in found.fields) >= 8
    assert all(field.found <= field.wanted for field in found.fields)
    write_tissue_images(found)
    images = read_tissue_images(tmp_path / "tissue")
    assert images is not None
    assert overlap_share(images) >= 0.95
    # The picture of the chip as it would be, had it been laid straight under a large camera.
    straight = Scene(
        WIDTH_UM,
        HEIGHT_UM,
        true.lines_x_um,
        true.lines_y_um,
        true.nuclei_um,
        true.radii_um,
        true.brightness,
        Pose(),
    )
    whole = render(
        straight,
        WIDTH_UM / 2,
        HEIGHT_UM / 2,
        0.0,
        width_px=round(WIDTH_UM),
        height_px=round(HEIGHT_UM),
        pixel_um=1.0,
        light=600.0,
        seed=1,
    )
    assert images.picture.shape == whole.shape
    assert images.picture.dtype == np.uint16
    seen = images.picture > 0
    assert seen.mean() > 0.95
    assert np.corrcoef(images.picture[seen], whole[seen])[0, 1] > 0.9


@pytest.fixture(scope="module")
def upset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scene]:
    """A scan in which the stage slipped at one tile and the focus was off at another."""
    folder = tmp_path_factory.mktemp("upset")
    true = scene(11)
    scan(folder, Microscope(true, slips_um={SLIPPED: SLIP_UM}, blurs_um={BLURRED: 6.0}))
    return folder / "tissue", true


@pytest.fixture
def tiles(upset: tuple[Path, Scene], tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(upset[0], tmp_path / "tissue"))


def test_a_shifted_tile_is_found_and_put_where_it_lies(upset: tuple[Path, Scene]) -> None:
    found = register_scan(TileFolder(upset[0]))
    slipped = found.fields[SLIPPED - 1]
    assert [field.out_of_place for field in found.fields] == [field is slipped for field in found.fields]
    assert slipped.moved_um == pytest.approx(SLIP_UM, abs=1.0)
    for field in found.fields:
        assert field is slipped or np.hypot(*field.moved_um) < PIXEL_UM
    assert off_um(found, upset[1]) < 5 * PIXEL_UM
    assert found.qc.stitch_passed
    assert found.qc.seam_um < 0.75
    assert "out of place" in slipped.fault


def test_a_blurred_tile_is_not_clear(upset: tuple[Path, Scene]) -> None:
    found = register_scan(TileFolder(upset[0]))
    blurred = found.fields[BLURRED - 1]
    assert [field for field in found.fields if field.clear is False] == [blurred]
    assert blurred.line_width_um is not None
    assert blurred.line_width_um > 1.3 * found.qc.line_width_um


def test_crossings_are_told_in_the_pixels_of_their_tile(upset: tuple[Path, Scene]) -> None:
    folder = TileFolder(upset[0])
    found = register_scan(folder)
    for field, tile in zip(found.fields, folder.tiles, strict=True):
        slip = SLIP_UM if field is found.fields[SLIPPED - 1] else (0.0, 0.0)
        centre = np.array([tile.x_um, tile.y_um]) + slip
        truth = (upset[1].pose.to_stage(crossings(upset[1])) - centre) / PIXEL_UM + (folder.scan.width_px - 1) / 2
        away = np.hypot(*(field.crossings_px[:, None] - truth[None]).transpose(2, 0, 1))
        assert (away.min(axis=1, initial=np.inf) < 1.0).all()


def test_the_numbers_hold_what_the_scan_was(upset: tuple[Path, Scene], tiles: Path) -> None:
    found = register_scan(TileFolder(tiles))
    write_tissue_images(found, pixel_um=2.5, cell_um=10.0)
    images = read_tissue_images(tiles)
    assert images is not None
    numbers = images.numbers
    assert numbers["image"]["camera"] == {
        "name": "microscope",
        "maker": "Maker",
        "model": "Model 1",
        "serial_number": "SN7",
    }
    assert (numbers["image"]["rows"], numbers["image"]["columns"]) == (4, 4)
    assert numbers["image"]["channels"][0]["exposure_ms"] == 20
    assert (images.pixel_um, images.cell_um, images.channels) == (2.5, 10.0, ("nuclei",))
    assert images.pictures.shape == (1, 600, 760)
    assert images.mask.shape == (150, 190)
    stitch = numbers["stitch"]
    assert [row[0] for row in stitch["horizontal_um"]] == [None] * 4
    assert stitch["vertical_um"][0] == [None] * 4
    # Seen from the left and upper neighbours the tile lies off by the slip, seen by the right and lower ones by as much
    # to the other side; an overlap may tell one direction only.
    row, column = found.fields[SLIPPED - 1].row, found.fields[SLIPPED - 1].column
    told = 0
    for pair, sign in (
        (stitch["horizontal_um"][row][column], 1),
        (stitch["vertical_um"][row][column], 1),
        (stitch["horizontal_um"][row][column + 1], -1),
        (stitch["vertical_um"][row + 1][column], -1),
    ):
        for off_um, slip_um in zip(pair, SLIP_UM, strict=True):
            if off_um is not None:
                told += 1
                assert off_um == pytest.approx(sign * slip_um, abs=1.5)
    assert told >= 5
    assert numbers["pose"]["rotation_deg"] == pytest.approx(upset[1].pose.rotation_deg, abs=0.05)
    assert numbers["pose"]["scale"] == pytest.approx(upset[1].pose.scale, abs=1e-3)


def _without_lines(tiles: Path) -> None:
    import tifffile

    rng = np.random.default_rng(1)
    for path in tiles.glob("*.tif"):
        tifffile.imwrite(path, rng.integers(90, 110, (400, 400)).astype(np.uint16))


def _edited(change: dict[str, Any], where: str = "") -> Any:
    def edit(tiles: Path) -> None:
        content = json.loads((tiles / "tiles.json").read_text())
        table = content
        for key in where.split(".") if where else []:
            table = table[int(key)] if key.isdigit() else table[key]
        table.update(change)
        (tiles / "tiles.json").write_text(json.dumps(content))

    return edit


def _first(tiles: Path) -> Path:
    return min(tiles.glob("*.tif"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_lines, r"tissue: the pictures cannot be registered: .*lines.*\(0 of 16 tiles show crossing lines\)"),
        (lambda tiles: (tiles / "tiles.json").unlink(), "there is no tiles.json: no scan ended here"),
        (lambda tiles: (tiles / "tiles.json").write_text("{"), "tiles.json: this is no JSON"),
        (lambda tiles: (tiles / "tiles.json").write_bytes(b"\xff\xfe"), "tiles.json: this is no text"),
        (lambda tiles: (tiles / "tiles.json").write_text("[]"), "tiles.json: key the whole: "),
        (_edited({"schema": 2}), "tiles.json: key schema: "),
        (_edited({"reports": []}), "tiles.json: key reports: "),
        (_edited({"pixel_um": 0}, "scan"), "tiles.json: key scan.pixel_um: "),
        (_edited({"chip": {}}, "scan"), "tiles.json: key scan.chip.corner_um: "),
        (_edited({"pitch_nm": 501}, "scan.chip"), "no track lines are known for a pitch of 501 nm"),
        (_edited({"row": 9}, "reports.2"), "key reports.2: row 9, column 2 is there twice, or outside 4 x 4"),
        (_edited({"column": 1}, "reports.0"), "key reports.1: row 0, column 1 is there twice"),
        (_edited({"files": ["../x.tif"]}, "reports.0"), "key reports.0: a file lies outside the folder"),
        (_edited({"files": ["a", "b"]}, "reports.0"), "expected 1 files, one of each channel, found 2"),
        (_edited({"width_px": 200}, "scan"), r"expected 200 x 400 grey values, found shape \(400, 400\) of uint16"),
        (lambda tiles: _first(tiles).unlink(), "r000c000-nuclei.ome.tif: the picture is missing"),
        (lambda tiles: _first(tiles).write_bytes(b"no TIFF"), "r000c000-nuclei.ome.tif: the picture cannot be read"),
        (
            lambda tiles: _first(tiles).write_bytes(_first(tiles).read_bytes()[:9000]),
            "r000c000-nuclei.ome.tif: the picture cannot be read",
        ),
    ],
)
def test_bad_input_is_one_clear_message(tiles: Path, damage: Any, message: str) -> None:
    damage(tiles)
    with pytest.raises(InputError, match=message) as caught:
        register_scan(TileFolder(tiles))
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_the_wrong_pitch_or_holder_does_not_fit(upset: tuple[Path, Scene]) -> None:
    folder = TileFolder(upset[0])
    chip = folder.scan.chip
    for wrong in ({"pitch_nm": 715}, {"corner_um": (9_000.0, 9_000.0)}):
        with pytest.raises(InputError, match="cannot be registered"):
            register_scan(folder, chip.model_copy(update=wrong))


# ------------------------------------------------------------------------------------------------------- the parts


def test_track_lines_lie_where_the_simulated_chip_has_them() -> None:
    for pitch_nm in (500, 600, 715):
        assert np.allclose(track_lines_um(4_321.0, pitch_nm), chipimage.track_lines_um(4_321.0, pitch_nm))
    with pytest.raises(ValueError, match="pitch 501 nm"):
        track_lines_um(1_000.0, 501)


@given(
    st.booleans(), st.integers(0, 3), st.floats(1, 1e4), st.floats(1, 1e4), st.floats(0, 1), st.floats(0, 1), st.data()
)
def test_a_pose_is_undone(
    mirrored: bool, turns: int, width: float, height: float, x: float, y: float, data: st.DataObject
) -> None:
    offset = data.draw(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)))
    fit = Registration(offset, data.draw(st.floats(-5, 5)), data.draw(st.floats(0.98, 1.02)), False, 9, 1.0, 0.0, 0.0)
    point = np.array([[x * width, y * height]])
    laid = lay(point, width, height, mirrored, turns)
    sides = (width, height) if turns % 2 == 0 else (height, width)
    assert (laid >= -1e-9).all()
    assert (laid <= np.array(sides) + 1e-9).all()
    pose = ChipPose(fit, width, height, mirrored, turns)
    assert np.allclose(pose.to_chip(pose.to_stage(point)), point, atol=1e-6)
    # A mirrored chip has its x and y the other way round.
    assert np.sign(np.linalg.det(pose.matrix[:, :2])) == (-1 if mirrored else 1)
