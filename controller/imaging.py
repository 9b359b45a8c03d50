"""The imaging stage: finds the focus over the chip, takes the tiles in rows to and fro, and takes a bad tile again.

A tile is bad if it is much less sharp than its like, if too much of it is saturated, or if it does not lie where its
neighbours, of which it shows a strip again, say that it lies. It is taken again, after its focus was looked for anew or
the stage was sent away and back, before the chip leaves the stage. Pictures are OME-TIFF files with the stage's place,
the size of a pixel and the exposure, so that stitching programs open them.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from cartoseq.analysis.atomic import write_text_atomically
from cartoseq.analysis.pictures import (
    best_of_sweep,
    binned,
    coarse_binning,
    fit_surface,
    focus_score,
    gradient_energy,
    saturated_share,
)
from cartoseq.analysis.stitching import shift_of_views
from cartoseq.controller.actions import Focus, Image
from cartoseq.controller.bench import Bench
from cartoseq.controller.instrument import Imaging, Instrument
from cartoseq.controller.recipe import Channel, ChipFacts
from cartoseq.controller.scan import SWEEP_COARSE, SWEEP_FINE, focus_places, tile_places
from cartoseq.drivers.capabilities import Camera, FocusStage, Frame, Identity, Laser, XYStage
from cartoseq.drivers.errors import DeviceFault

Floats = NDArray[np.float64]

#: A tile is not sharp if its score is below this share of the median of its like: tiles taken before that hold at most
#: so many times more or less light. A tile full of nuclei and an empty one score differently however sharp they are;
#: light stays the same out of focus.
LEAST_SHARPNESS: Final = 0.5
LIKE_LIGHT: Final = 1.5
#: A tile is overexposed if more of its pixels hold the greatest value.
MOST_SATURATED: Final = 0.01
#: A tile is out of place if its overlap with a neighbour is off by more, in micrometres.
MOST_DEVIATION_UM: Final = 5.0
_LIKE_TILES: Final = 5


@dataclass(frozen=True)
class Optics:
    """What a picture shows.

    Attributes:
        pixel_um: Size of a pixel on the chip.
        width_px: Of a picture.
        height_px: See above.
        bit_depth: Of a grey value.
        chip_um: The chip's corner on the stage, where the holder puts it: the least x and y of the chip as it lies.
        chip_size_um: Width and height of the chip, along its own x and y; nothing: the area that is imaged.
        pitch_nm: Distance of the chip's neighbouring spots, which decides that of its track lines.
        mirrored: Whether the chip lies with its x running backwards.
        quarter_turns: By how many right angles it is then turned, x towards y.
    """

    pixel_um: float
    width_px: int
    height_px: int
    bit_depth: int
    chip_um: tuple[float, float]
    chip_size_um: tuple[float, float] | None = None
    pitch_nm: int = 500
    mirrored: bool = False
    quarter_turns: int = 0


def optics_of(imaging: Imaging, chip: ChipFacts | None) -> Optics:
    """What the pictures of an instrument show.

    Args:
        imaging: The instrument's table.
        chip: The recipe's, which gives width and height as the chip lies.
    """
    size_um = (chip.width_um, chip.height_um) if chip is not None else None
    if size_um is not None and imaging.chip_quarter_turns % 2:
        size_um = size_um[::-1]
    return Optics(
        imaging.pixel_um,
        imaging.width_px,
        imaging.height_px,
        imaging.bit_depth,
        (imaging.chip_x_um, imaging.chip_y_um),
        size_um,
        chip.pitch_nm if chip is not None else 500,
        imaging.chip_mirrored,
        imaging.chip_quarter_turns,
    )


def imager_of(
    instrument: Instrument, chip: ChipFacts | None, bench: Bench, folder: Path, camera: Identity | None = None
) -> ScanImager | None:
    """What takes the pictures of an instrument; nothing where it has no camera or no stage.

    Args:
        instrument: The instrument.
        chip: The recipe's.
        bench: Its devices.
        folder: Where the pictures go.
        camera: What the camera said of itself.
    """
    imaging = instrument.imaging
    if imaging is None or bench.camera is None or bench.stage is None:
        return None
    return ScanImager(bench.stage, bench.focus, bench.camera, bench.lasers, optics_of(imaging, chip), folder, camera)


@dataclass(frozen=True)
class TileReport:
    """What is known of a tile.

    Attributes:
        row: Of the scan.
        column: Of the scan.
        x_um: The optical axis on the stage.
        y_um: See above.
        z_um: Height of the focus.
        sharpness: `analysis.pictures.focus_score` of the first channel.
        mean_grey: Mean of the same.
        dark_grey: Of its darkest hundredth, the brightest.
        saturated: Share of saturated pixels, the worst channel's.
        deviation_um: How far its overlaps are off, the worse of left and upper neighbour; nothing if unknown.
        takes: How often it was taken.
        fault: What is still wrong with it; empty for a good tile.
        files: Its pictures.
    """

    row: int
    column: int
    x_um: float
    y_um: float
    z_um: float
    sharpness: float
    mean_grey: float
    dark_grey: float
    saturated: float
    deviation_um: float | None
    takes: int
    fault: str
    files: tuple[str, ...]


class ScanImager:
    """Takes pictures for the run engine.

    Args:
        stage: Moves the chip.
        focus: Moves the objective; nothing where the focus is fixed.
        camera: Takes pictures.
        lasers: By name.
        optics: What a picture shows.
        folder: Where the pictures go.
        identity: Who the camera says that it is, for the record.
    """

    def __init__(
        self,
        stage: XYStage,
        focus: FocusStage | None,
        camera: Camera,
        lasers: dict[str, Laser],
        optics: Optics,
        folder: Path,
        identity: Identity | None = None,
    ) -> None:
        self.stage = stage
        self.focus_stage = focus
        self.camera = camera
        self.lasers = lasers
        self.optics = optics
        self.folder = folder
        self.identity = identity
        self.surface: Floats | None = None
        """Height of focus: z = a + b x + c y, on the stage."""

    # ---------------------------------------------------------------------------------------------------------- focus

    async def focus(self, action: Focus) -> dict[str, Any]:
        """Find the height of focus at points over the area, and lay a plane through them.

        Raises:
            DeviceFault: at too few points was there a sharpest picture within the sweep.
            DeviceError: a device failed.
        """
        points = np.array(focus_places(action.area, action.points))
        corner = np.array(self.optics.chip_um)
        found, heights, lost = [], [], 0
        for x_um, y_um in points + corner:
            await self.stage.move_to(float(x_um), float(y_um))
            height_um = await self._sweep(action.channel, action.sweep_um, await self._height(x_um, y_um))
            if height_um is None:
                lost += 1
            else:
                found.append((x_um, y_um))
                heights.append(height_um)
        if len(found) < max(1, math.ceil(len(points) / 2)):
            name = self.focus_stage.name if self.focus_stage is not None else "focus"
            raise DeviceFault(
                name,
                "focus",
                f"no sharpest picture within {action.sweep_um:g} um at {lost} of {len(points)} points",
                remedy="Check light and chip, or widen the sweep.",
            )
        self.surface = fit_surface(np.array(found), np.array(heights))
        fitted = np.column_stack([np.ones(len(found)), np.array(found)]) @ self.surface
        return {
            "points": len(found),
            "lost": lost,
            "surface": [float(f"{value:.6g}") for value in self.surface],
            "rms_um": round(float(np.sqrt(np.mean((fitted - np.array(heights)) ** 2))), 3),
        }

    async def _height(self, x_um: float, y_um: float) -> float:
        if self.surface is not None:
            return float(self.surface @ np.array([1.0, x_um, y_um]))
        return await self.focus_stage.position_um() if self.focus_stage is not None else 0.0

    async def _sweep(self, channel: Channel, sweep_um: float, around_um: float) -> float | None:
        """The height of the sharpest picture: coarse steps over the sweep, then fine ones; none at an end."""
        if self.focus_stage is None:
            return 0.0
        step_um = sweep_um / (SWEEP_COARSE - 1)
        coarse = around_um + step_um * _steps(SWEEP_COARSE)
        try:
            best = best_of_sweep(coarse, await self._scores(channel, coarse))
            fine = best + step_um / 2 * _steps(SWEEP_FINE)
            return best_of_sweep(fine, await self._scores(channel, fine))
        except ValueError:
            return None

    async def _scores(self, channel: Channel, heights_um: Floats) -> Floats:
        limits = self.focus_stage.limits_um if self.focus_stage is not None else None
        scores = []
        for height_um in heights_um:
            assert self.focus_stage is not None
            assert limits is not None
            if height_um not in limits:
                scores.append(0.0)
                continue
            await self.focus_stage.move_to_um(float(height_um))
            scores.append(gradient_energy((await self._snap(channel)).pixels))
        return np.array(scores)

    # ---------------------------------------------------------------------------------------------------------- tiles

    async def image(self, action: Image) -> dict[str, Any]:
        """Take the tiles of an area; the reports of all are written beside them.

        Raises:
            DeviceError: a device failed.
        """
        name = f"cycle-{action.cycle:03d}" if action.cycle else "tissue"
        folder = self.folder / name
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        reports: list[TileReport] = []
        begun_s = asyncio.get_running_loop().time()
        pictures: dict[tuple[int, int], NDArray[Any]] = {}
        for row, column, x_um, y_um in self.places(action):
            report = await self._tile(action, folder, row, column, x_um, y_um, reports, pictures)
            reports.append(report)
            for old in [key for key in pictures if key[0] < row - 1]:
                del pictures[old]
        summary = {
            "tiles": len(reports),
            "taken_again": sum(report.takes > 1 for report in reports),
            "bad": [f"{report.row},{report.column}: {report.fault}" for report in reports if report.fault],
            "worst_deviation_um": max((report.deviation_um or 0.0 for report in reports), default=0.0),
            "folder": name,
        }
        content = {
            "schema": 1,
            **summary,
            "scan": self._scan(action, asyncio.get_running_loop().time() - begun_s),
            "reports": [asdict(report) for report in reports],
        }
        text = json.dumps(content, indent=1) + "\n"
        await asyncio.to_thread(write_text_atomically, folder / "tiles.json", text)
        return summary

    def _scan(self, action: Image, duration_s: float) -> dict[str, Any]:
        """What holds for all tiles, as `analysis.tilefolder` reads it."""
        optics, identity = self.optics, self.identity or Identity("", "")
        area = action.area
        # An area of its own says nothing of how far the chip goes on: to its end, at least.
        seen_um = (area.x_um + area.width_um, area.y_um + area.height_um)
        width_um, height_um = optics.chip_size_um or (seen_um[::-1] if optics.quarter_turns % 2 else seen_um)
        return {
            "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "duration_s": round(duration_s, 3),
            "camera": {
                "name": self.camera.name,
                "maker": identity.maker,
                "model": identity.model,
                "serial_number": identity.serial_number,
            },
            "pixel_um": optics.pixel_um,
            "width_px": optics.width_px,
            "height_px": optics.height_px,
            "bit_depth": optics.bit_depth,
            "rows": action.tiles_y,
            "columns": action.tiles_x,
            "overlap_percent": action.overlap_percent,
            "channels": [
                {
                    "name": channel.name,
                    "light": channel.light,
                    "power_mw": channel.power_mw,
                    "exposure_ms": channel.exposure_ms,
                }
                for channel in action.channels
            ],
            "chip": {
                "corner_um": list(optics.chip_um),
                "width_um": width_um,
                "height_um": height_um,
                "pitch_nm": optics.pitch_nm,
                "mirrored": optics.mirrored,
                "quarter_turns": optics.quarter_turns,
            },
        }

    def places(self, action: Image) -> list[tuple[int, int, float, float]]:
        """Row, column and stage position of every tile, in the order in which they are taken."""
        optics = self.optics
        tile_um = (optics.width_px * optics.pixel_um, optics.height_px * optics.pixel_um)
        return [
            (row, column, optics.chip_um[0] + x_um, optics.chip_um[1] + y_um)
            for row, column, x_um, y_um in tile_places(
                action.area, tile_um, action.overlap_percent, action.tiles_x, action.tiles_y
            )
        ]

    async def _tile(
        self,
        action: Image,
        folder: Path,
        row: int,
        column: int,
        x_um: float,
        y_um: float,
        reports: Sequence[TileReport],
        pictures: dict[tuple[int, int], NDArray[Any]],
    ) -> TileReport:
        height_um = await self._height(x_um, y_um)
        takes = 0
        while True:
            takes += 1
            await self.stage.move_to(x_um, y_um)
            if self.focus_stage is not None:
                await self.focus_stage.move_to_um(height_um)
            frames = [await self._snap(channel) for channel in action.channels]
            pixels = frames[0].pixels
            sharpness = focus_score(pixels)
            mean_grey, dark_grey = float(pixels.mean()), float(np.percentile(pixels, 1))
            saturated = max(saturated_share(frame.pixels, self.optics.bit_depth) for frame in frames)
            deviation_um = self._deviation(action, row, column, pixels, pictures)
            like = _like(mean_grey, dark_grey, reports)
            fault = self._fault(sharpness, like, saturated, deviation_um)
            if not fault or takes > action.most_retakes:
                break
            if fault.startswith("not sharp"):
                found = await self._sweep(action.channels[0], 20.0, height_um)
                height_um = found if found is not None else height_um
            elif fault.startswith("out of place"):
                # Away and back: a slipped axis finds its place anew, or says that it cannot.
                step_um = self.optics.width_px * self.optics.pixel_um / 4
                away = x_um + step_um if x_um + step_um in self.stage.limits.x_um else x_um - step_um
                await self.stage.move_to(away, y_um)
        pictures[row, column] = pixels
        files = []
        for channel, frame in zip(action.channels, frames, strict=True):
            path = folder / f"r{row:03d}c{column:03d}-{channel.name}.ome.tif"
            await asyncio.to_thread(self._write, path, channel, frame, x_um, y_um, height_um)
            files.append(path.name)
        return TileReport(
            row,
            column,
            round(x_um, 3),
            round(y_um, 3),
            round(height_um, 3),
            float(f"{sharpness:.4g}"),
            round(mean_grey, 2),
            round(dark_grey, 2),
            round(saturated, 5),
            None if deviation_um is None else round(deviation_um, 2),
            takes,
            fault,
            tuple(files),
        )

    def _fault(self, sharpness: float, like: Sequence[float], saturated: float, deviation_um: float | None) -> str:
        if saturated > MOST_SATURATED:
            return f"saturated: {saturated:.1%} of the pixels"
        if len(like) == _LIKE_TILES and sharpness < LEAST_SHARPNESS * float(np.median(like)):
            return f"not sharp: {sharpness:.3g}, its like have {float(np.median(like)):.3g}"
        if deviation_um is not None and deviation_um > MOST_DEVIATION_UM:
            return f"out of place by {deviation_um:.1f} um"
        return ""

    def _deviation(
        self,
        action: Image,
        row: int,
        column: int,
        pixels: NDArray[Any],
        pictures: dict[tuple[int, int], NDArray[Any]],
    ) -> float | None:
        """How far the tile's overlaps with neighbours already taken are off; the worst that can be measured."""
        worst: float | None = None
        for down, right in ((0, -1), (0, 1), (-1, 0)):
            neighbour = pictures.get((row + down, column + right))
            if neighbour is None:
                continue
            mine, others = _overlap(pixels, neighbour, down, right, action.overlap_percent)
            binning = coarse_binning(self.optics.pixel_um)
            shift = shift_of_views(binned(others, binning), binned(mine, binning))
            if shift is not None:
                worst = max(worst or 0.0, shift.length_px * self.optics.pixel_um * binning)
        return worst

    async def _snap(self, channel: Channel) -> Frame:
        laser = self.lasers[channel.light]
        await self.camera.configure(channel.exposure_ms)
        await laser.set_power_mw(channel.power_mw)
        await laser.set_emission(True)
        try:
            return await self.camera.snap()
        finally:
            await laser.set_emission(False)

    def _write(self, path: Path, channel: Channel, frame: Frame, x_um: float, y_um: float, z_um: float) -> None:
        tifffile.imwrite(
            path,
            frame.pixels,
            ome=True,
            metadata={
                "axes": "YX",
                "PhysicalSizeX": self.optics.pixel_um,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": self.optics.pixel_um,
                "PhysicalSizeYUnit": "µm",
                "SignificantBits": self.optics.bit_depth,
                "Channel": {"Name": channel.name},
                "Plane": {
                    "PositionX": x_um,
                    "PositionXUnit": "µm",
                    "PositionY": y_um,
                    "PositionYUnit": "µm",
                    "PositionZ": z_um,
                    "PositionZUnit": "µm",
                    "ExposureTime": frame.exposure_ms,
                    "ExposureTimeUnit": "ms",
                },
            },
        )


def _like(mean_grey: float, dark_grey: float, reports: Sequence[TileReport]) -> list[float]:
    """How sharp the last good tiles are that hold about as much light."""
    dark = min([dark_grey, *(report.dark_grey for report in reports)])
    light = mean_grey - dark
    return [
        report.sharpness
        for report in reports
        if not report.fault and light / LIKE_LIGHT <= report.mean_grey - dark <= light * LIKE_LIGHT
    ][-_LIKE_TILES:]


def _steps(count: int) -> Floats:
    """So many steps of one, around zero."""
    return np.arange(count, dtype=np.float64) - (count - 1) / 2


def _overlap(
    pixels: NDArray[Any], neighbour: NDArray[Any], down: int, right: int, overlap_percent: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The strips that a tile and its neighbour share, as cut from each."""
    height, width = pixels.shape
    rows, columns = round(height * overlap_percent / 100), round(width * overlap_percent / 100)
    if right < 0:
        return pixels[:, :columns], neighbour[:, width - columns :]
    if right > 0:
        return pixels[:, width - columns :], neighbour[:, :columns]
    return pixels[:rows], neighbour[height - rows :]
