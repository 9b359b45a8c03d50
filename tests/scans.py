"""A simulated chip under the microscope, scanned tile by tile by the controller's own imaging stage."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cartoseq.controller.actions import Image
from cartoseq.controller.imaging import Optics, ScanImager
from cartoseq.controller.plan import tiles
from cartoseq.controller.recipe import Area, Channel
from cartoseq.drivers.capabilities import XY, Frame, Identity, Range, XYLimits
from cartoseq.simulators.chipimage import Scene, laid_pose, render, track_lines_um
from cartoseq.simulators.clock import run_virtual

WIDTH_UM, HEIGHT_UM = 1_900.0, 1_500.0
CORNER_UM = (3_000.0, 2_000.0)
PIXEL_UM = 1.5
SIDE_PX = 400
OVERLAP_PERCENT = 15.0
CHANNELS = (Channel(name="nuclei", light="green", power_mw=10, exposure_ms=20),)


def in_tissue(chip_um: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A lobed tissue, off the chip's middle so that a mirrored or turned one lies elsewhere."""
    away = (chip_um - [0.45 * WIDTH_UM, 0.55 * HEIGHT_UM]) / [0.36 * WIDTH_UM, 0.34 * HEIGHT_UM]
    inside: NDArray[np.bool_] = (away**2).sum(-1) < 1 + 0.15 * np.sin(5 * np.arctan2(away[..., 1], away[..., 0]))
    return inside


@dataclass
class Microscope:
    """Stage, light and camera over a simulated chip.

    Attributes:
        scene: What lies on the stage.
        slips_um: By how much the stage is off at a picture, by its number from 1.
        blurs_um: By how much the focus is off at a picture.
    """

    scene: Scene
    pixel_um: float = PIXEL_UM
    side_px: int = SIDE_PX
    seed: int = 0
    slips_um: dict[int, tuple[float, float]] = field(default_factory=dict)
    blurs_um: dict[int, float] = field(default_factory=dict)
    name: str = "microscope"
    limits: ClassVar[XYLimits] = XYLimits(Range(0, 20_000), Range(0, 20_000))
    x_um: float = 0.0
    y_um: float = 0.0
    pictures: int = 0
    exposure_ms: float = 0.0

    async def move_to(self, x_um: float, y_um: float) -> None:
        self.x_um, self.y_um = x_um, y_um

    async def position(self) -> XY:
        return XY(self.x_um, self.y_um)

    async def configure(self, exposure_ms: float, region: Any = None, trigger: str = "software") -> None:
        self.exposure_ms = exposure_ms

    async def set_power_mw(self, power_mw: float) -> None:
        pass

    async def set_emission(self, on: bool) -> None:
        pass

    async def snap(self) -> Frame:
        self.pictures += 1
        slip = self.slips_um.get(self.pictures, (0.0, 0.0))
        pixels = render(
            self.scene,
            self.x_um + slip[0],
            self.y_um + slip[1],
            self.blurs_um.get(self.pictures, 0.0),
            width_px=self.side_px,
            height_px=self.side_px,
            pixel_um=self.pixel_um,
            light=600.0,
            seed=self.seed + self.pictures,
        )
        return Frame(pixels, self.exposure_ms, asyncio.get_running_loop().time(), self.pictures)


def scene(seed: int, mirrored: bool = False, quarter_turns: int = 0) -> Scene:
    """A chip of random pose near where its holder puts it: its rectangle's corner near `CORNER_UM`."""
    rng = np.random.default_rng(seed)
    nuclei = rng.uniform(0, 1, (9_000, 2)) * [WIDTH_UM, HEIGHT_UM]
    nuclei = nuclei[in_tissue(nuclei)]
    turn_deg, scale = rng.uniform(-3, 3), rng.uniform(0.985, 1.015)
    away_um = rng.uniform(-60, 60, 2)
    corner_um = (CORNER_UM[0] + float(away_um[0]), CORNER_UM[1] + float(away_um[1]))
    return Scene(
        WIDTH_UM,
        HEIGHT_UM,
        track_lines_um(WIDTH_UM),
        track_lines_um(HEIGHT_UM),
        nuclei,
        rng.uniform(2.5, 4, len(nuclei)),
        rng.uniform(0.5, 1.5, len(nuclei)),
        laid_pose(corner_um, turn_deg, WIDTH_UM, HEIGHT_UM, mirrored, quarter_turns, scale),
    )


def scan(
    folder: Path,
    microscope: Microscope,
    *,
    mirrored: bool = False,
    quarter_turns: int = 0,
    most_retakes: int = 0,
    channels: tuple[Channel, ...] = CHANNELS,
) -> dict[str, Any]:
    """Scan the whole chip into `folder/tissue`; what the imaging stage says of it."""
    size_um = (WIDTH_UM, HEIGHT_UM) if quarter_turns % 2 == 0 else (HEIGHT_UM, WIDTH_UM)
    area = Area(x_um=-100, y_um=-100, width_um=size_um[0] + 200, height_um=size_um[1] + 200)
    side = microscope.side_px * microscope.pixel_um
    across, down = tiles(area, (side, side), OVERLAP_PERCENT)
    optics = Optics(
        microscope.pixel_um,
        microscope.side_px,
        microscope.side_px,
        12,
        CORNER_UM,
        (WIDTH_UM, HEIGHT_UM),
        500,
        mirrored,
        quarter_turns,
    )
    device: Any = microscope
    imager = ScanImager(device, None, device, {"green": device}, optics, folder, Identity("Maker", "Model 1", "SN7"))
    return run_virtual(imager.image(Image(channels, area, OVERLAP_PERCENT, across, down, most_retakes, 0)))
