"""A simulated camera as a driver: what the run engine may ask of a camera, of `simulators.camera` or its like."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cartoseq.drivers.capabilities import Fault, Frame, Identity, Region
from cartoseq.drivers.errors import DeviceFault, LimitError
from cartoseq.drivers.stops import Actions
from cartoseq.streaming.errors import InputError

#: How long after its exposure a picture is awaited, as with cameras that Micro-Manager drives.
MARGIN_S: Final = 5.0


class Sensor(Protocol):
    """What takes the pictures: `simulators.camera.CameraSim` has these."""

    width_px: int
    height_px: int
    bit_depth: int

    def expose(self, now_s: float, exposure_s: float) -> float:
        """Begin a picture; return when it is there, infinity where it is lost."""

    def read(self, now_s: float, exposure_s: float) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The picture whose exposure has ended: grey values, shape (height, width)."""


class SimulatedCamera:
    """The driver of a simulated camera.

    Args:
        sensor: The camera.
        name: The device's name in messages.
    """

    def __init__(self, sensor: Sensor, name: str) -> None:
        self.name = name
        self.width_px, self.height_px = sensor.width_px, sensor.height_px
        self.bit_depth = sensor.bit_depth
        self._sensor = sensor
        self._exposure_s = 0.01
        self._region: Region | None = None
        self._number = 0
        self._actions = Actions(name)

    async def open(self) -> Identity:
        """Say that it is no real one."""
        return Identity("Cartoseq", "simulated camera")

    async def close(self) -> None:
        """End what is under way."""
        self._actions.stop()

    async def make_safe(self) -> None:
        """End a stream."""
        self._actions.stop()

    async def read_faults(self) -> list[Fault]:
        """Tell none: a frame that does not come is an error of `snap`."""
        return []

    async def clear_faults(self) -> None:
        """Do nothing: there are none."""

    async def configure(
        self,
        exposure_ms: float,
        region: Region | None = None,
        trigger: Literal["software", "external"] = "software",
    ) -> None:
        """Set exposure and the part of the sensor (none: all).

        Raises:
            LimitError: exposure or region cannot be; nothing was set.
            InputError: an external trigger was asked for; it has none.
        """
        if not 0 < exposure_ms < math.inf:
            raise LimitError(self.name, f"an exposure of {exposure_ms} ms cannot be")
        if region is not None and not (
            region.x >= 0
            and region.y >= 0
            and 0 < region.width <= self.width_px - region.x
            and 0 < region.height <= self.height_px - region.y
        ):
            raise LimitError(
                self.name, f"{region} is not within the sensor of {self.width_px} × {self.height_px} pixels"
            )
        if trigger == "external":
            raise InputError(self.name, "the simulated camera has no external trigger")
        self._exposure_s = exposure_ms / 1000
        self._region = region

    async def snap(self) -> Frame:
        """Take one picture.

        Raises:
            DeviceFault: it did not come in time.
            Stopped: it was stopped meanwhile.
        """
        return await self._actions.do(self._snap())

    async def _snap(self) -> Frame:
        loop = asyncio.get_running_loop()
        begin_s, exposure_s = loop.time(), self._exposure_s
        number, self._number = self._number, self._number + 1
        ready_s = self._sensor.expose(begin_s, exposure_s)
        patience_s = exposure_s + MARGIN_S
        await asyncio.sleep(min(ready_s - begin_s, patience_s))
        if ready_s - begin_s > patience_s:
            raise DeviceFault(self.name, "no picture", f"no picture within {patience_s:.3g} s", remedy="Take it again.")
        pixels = self._sensor.read(loop.time(), exposure_s)
        if (part := self._region) is not None:
            pixels = pixels[part.y : part.y + part.height, part.x : part.x + part.width].copy()
        return Frame(pixels, exposure_s * 1000, begin_s, number)

    async def stream(self, count: int) -> AsyncIterator[Frame]:
        """Take so many pictures in a row.

        Raises:
            LimitError: there is no such number.
            DeviceFault: a picture did not come in time.
            Stopped: it was stopped meanwhile.
        """
        if count < 1:
            raise LimitError(self.name, f"expected at least one picture, found {count}")
        for _ in range(count):
            yield await self.snap()
