from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cartoseq.controller.actions import Focus, Image
from cartoseq.controller.imaging import Optics, ScanImager
from cartoseq.controller.plan import tiles
from cartoseq.controller.recipe import Area, Channel
from cartoseq.drivers.capabilities import XY, Frame, Range, XYLimits
from cartoseq.drivers.errors import DeviceFault
from cartoseq.simulators.chipimage import Pose, Scene, render, track_lines_um
from cartoseq.simulators.clock import run_virtual

from ..scans import Microscope as ChipMicroscope
from ..scans import scan, scene

CHANNEL = Channel(name="nuclei", light="green", power_mw=10, exposure_ms=20)
AREA = Area(x_um=0, y_um=0, width_um=900, height_um=700)
PIXELS = (256, 200)


class Microscope:
    """Stage, focus, light and camera over a simulated chip; each can be told to go wrong at one picture."""

    name = "microscope"
    limits = XYLimits(Range(0, 10_000), Range(0, 10_000))
    limits_um = Range(-200, 200)

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        n = 900
        self.scene = Scene(
            900,
            700,
            track_lines_um(900),
            track_lines_um(700),
            rng.uniform(0, 1, (n, 2)) * [900, 700],
            rng.uniform(2.5, 4, n),
            rng.uniform(0.5, 1.5, n),
            Pose((1_000, 1_000)),
            focus_um=12.0,
            tilt=(0.01, -0.005),
        )
        self.x_um = self.y_um = self.z_um = 0.0
        self.lit = False
        self.pictures = 0
        self.light = 500.0
        self.upsets: dict[int, dict[str, float]] = {}
        self.moves: list[tuple[float, float]] = []
        self.slip_um = 0.0

    async def move_to(self, x_um: float, y_um: float) -> None:
        self.moves.append((x_um, y_um))
        self.x_um, self.y_um = x_um, y_um
        self.slip_um = 0.0

    async def position(self) -> XY:
        return XY(self.x_um, self.y_um)

    async def move_to_um(self, z_um: float) -> None:
        self.z_um = z_um

    async def position_um(self) -> float:
        return self.z_um

    async def configure(self, exposure_ms: float, region: Any = None, trigger: str = "software") -> None:
        self.exposure_ms = exposure_ms

    async def set_power_mw(self, power_mw: float) -> None:
        self.power = power_mw

    async def set_emission(self, on: bool) -> None:
        self.lit = on

    async def snap(self) -> Frame:
        assert self.lit
        self.pictures += 1
        upset = self.upsets.get(self.pictures, {})
        pixels = render(
            self.scene,
            self.x_um + upset.get("slip_um", 0.0),
            self.y_um,
            self.z_um + upset.get("defocus_um", 0.0),
            width_px=PIXELS[0],
            height_px=PIXELS[1],
            pixel_um=1.0,
            light=self.light * upset.get("light", 1.0),
            seed=self.pictures,
        )
        return Frame(pixels, self.exposure_ms, asyncio.get_running_loop().time(), self.pictures)


def imager(folder: Path) -> tuple[ScanImager, Microscope]:
    scope: Any = Microscope()
    return ScanImager(scope, scope, scope, {"green": scope}, Optics(1.0, *PIXELS, 12, (1_000, 1_000)), folder), scope


def image_action(most_retakes: int = 2) -> Image:
    across, down = tiles(AREA, PIXELS, 20)
    return Image((CHANNEL,), AREA, 20, across, down, most_retakes, 0)


def test_the_focus_is_found_over_a_tilted_chip(tmp_path: Path) -> None:
    found, scope = imager(tmp_path)
    facts = run_virtual(found.focus(Focus(CHANNEL, AREA, 9, 60)))
    assert facts["points"] >= 8
    assert found.surface is not None
    for x_um, y_um in ((1_100, 1_100), (1_800, 1_200), (1_450, 1_600)):
        height = float(found.surface @ [1, x_um, y_um])
        assert height == pytest.approx(scope.scene.sharp_at_um(x_um, y_um), abs=1.0)


def test_a_focus_beyond_the_sweep_is_no_focus(tmp_path: Path) -> None:
    found, scope = imager(tmp_path)
    scope.z_um = -100.0
    with pytest.raises(DeviceFault, match="no sharpest picture within 60 um"):
        run_virtual(found.focus(Focus(CHANNEL, AREA, 4, 60)))


async def _scan(found: ScanImager, action: Image) -> dict[str, Any]:
    await found.focus(Focus(CHANNEL, AREA, 9, 60))
    return await found.image(action)


def test_tiles_are_taken_to_and_fro_and_written_with_their_place(tmp_path: Path) -> None:
    found, scope = imager(tmp_path)
    action = image_action()
    summary = run_virtual(_scan(found, action))
    assert (summary["tiles"], summary["taken_again"], summary["bad"]) == (action.tiles_x * action.tiles_y, 0, [])
    assert summary["worst_deviation_um"] < 4.0
    places = found.places(action)
    assert [place[1] for place in places[: 2 * action.tiles_x]] == [
        *range(action.tiles_x),
        *reversed(range(action.tiles_x)),
    ]
    reports = json.loads((tmp_path / "tissue" / "tiles.json").read_text())["reports"]
    with tifffile.TiffFile(tmp_path / "tissue" / reports[3]["files"][0]) as file:
        assert file.is_ome
        assert file.asarray().shape == PIXELS[::-1]
        tree = ElementTree.fromstring(file.ome_metadata or "")
    pixels = next(element for element in tree.iter() if element.tag.endswith("}Pixels"))
    plane = next(element for element in tree.iter() if element.tag.endswith("}Plane"))
    assert float(pixels.attrib["PhysicalSizeX"]) == 1.0
    assert float(plane.attrib["PositionX"]) == pytest.approx(places[3][2])
    assert float(plane.attrib["ExposureTime"]) == 20
    assert not scope.lit


@pytest.mark.parametrize(
    ("upset", "fault"),
    [({"defocus_um": 25.0}, "not sharp"), ({"slip_um": 20.0}, "out of place"), ({"light": 40.0}, "saturated")],
)
def test_a_bad_tile_is_found_and_taken_again(tmp_path: Path, upset: dict[str, float], fault: str) -> None:
    def upset_at_tile(number: int, scope: Microscope, found: ScanImager) -> None:
        real = scope.snap
        seen: list[int] = []

        async def snap() -> Frame:
            if len(scope.moves) == before + number and not seen:
                seen.append(1)
                scope.upsets[scope.pictures + 1] = upset
            return await real()

        before = len(scope.moves)
        scope.snap = snap  # type: ignore[method-assign]

    async def main(most_retakes: int, folder: Path) -> dict[str, Any]:
        found, scope = imager(folder)
        await found.focus(Focus(CHANNEL, AREA, 9, 60))
        upset_at_tile(8, scope, found)
        return await found.image(image_action(most_retakes))

    good = run_virtual(main(2, tmp_path / "again"))
    assert good["taken_again"] >= 1
    assert good["bad"] == []
    bad = run_virtual(main(0, tmp_path / "once"))
    assert any(fault in text for text in bad["bad"])


def test_a_tissue_that_leaves_tiles_empty_makes_no_tile_bad(tmp_path: Path) -> None:
    """An empty tile has another sharpness than one full of nuclei, and its overlaps hold little to compare."""
    summary = scan(tmp_path, ChipMicroscope(scene(31)), most_retakes=1)
    assert summary["tiles"] == 16
    assert (summary["bad"], summary["taken_again"]) == ([], 0)
    content = json.loads((tmp_path / "tissue" / "tiles.json").read_text())
    light = [report["mean_grey"] - report["dark_grey"] for report in content["reports"]]
    assert max(light) > 8 * min(light)
    assert content["scan"]["chip"]["corner_um"] == [3000.0, 2000.0]
