"""Cameras through Micro-Manager (`drivers.mmcore`): grey pictures of 8 or 16 bits.

Tested with Micro-Manager's demonstration camera. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from cartoseq.drivers.capabilities import Fault, Frame, Identity, Region
from cartoseq.drivers.errors import DeviceError, DeviceFault, LimitError, Stopped
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.drivers.stops import Actions
from cartoseq.streaming.errors import InputError

if TYPE_CHECKING:
    from pymmcore import CMMCore

_CAMERA_DEVICE: Final = 2  # MM::CameraDevice
_MARGIN_S: Final = 5.0
_LONGEST_POLL_S: Final = 0.02
_SHORTEST_POLL_S: Final = 0.001


@dataclass(frozen=True)
class TriggerSetting:
    """The property by which a camera is told what starts a picture; adapters name it as they like.

    Attributes:
        label: Its name: ``TriggerMode``, ``TRIGGER SOURCE``, ...
        software: Its value for pictures that the computer starts.
        external: Its value for pictures that a pulse starts.
    """

    label: str
    software: str
    external: str


class MicroManagerCamera:
    """A camera of a Micro-Manager configuration.

    Args:
        core: The core; cameras and stages share it.
        name: The device's name in messages.
        label: The camera's label in the configuration.
        trigger: How it is told what starts a picture; without, there is no external trigger.
        trigger_timeout_s: How long a pulse may be awaited.
    """

    def __init__(
        self,
        core: MicroManagerCore,
        name: str,
        *,
        label: str = "Camera",
        trigger: TriggerSetting | None = None,
        trigger_timeout_s: float = 60.0,
    ) -> None:
        self.name = name
        self.width_px = 0
        self.height_px = 0
        self.bit_depth = 0
        self._core = core
        self._label = label
        self._trigger = trigger
        self._trigger_timeout_s = trigger_timeout_s
        self._external = False
        self._exposure_ms = 0.0
        self._number = 0
        self._actions = Actions(name)

    async def open(self) -> Identity:
        """Load the configuration, and hold that the camera is in it and takes grey pictures.

        Raises:
            InputError: there is no such camera, or it takes others.
            Disconnected: the configuration cannot be loaded.
        """
        await self._core.open()
        try:
            identity = await self._core.identify(self.name, self._label, _CAMERA_DEVICE)
            await self._core.call(self.name, self._look)
        except BaseException:
            await self._core.close()
            raise
        return identity

    async def close(self) -> None:
        """Let go of it."""
        self._actions.stop()
        try:
            with contextlib.suppress(DeviceError):  # it may be gone
                await self._core.call(self.name, self._end)
        finally:
            await self._core.close()

    async def make_safe(self) -> None:
        """End a stream."""
        self._actions.stop()
        await self._core.call(self.name, self._end)

    async def configure(
        self,
        exposure_ms: float,
        region: Region | None = None,
        trigger: Literal["software", "external"] = "software",
    ) -> None:
        """Set exposure, the part of the sensor (none: all), and what starts a picture.

        Raises:
            LimitError: exposure or region cannot be; nothing was set.
            InputError: there is no external trigger.
            DeviceFault: the camera refuses, or takes another region.
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
        if trigger == "external" and self._trigger is None:
            raise InputError(self.name, "it has no external trigger", remedy="Name its trigger property.")

        def set_up(core: CMMCore) -> tuple[float, list[int], tuple[float, float]]:
            limits_ms = (0.0, math.inf)
            if core.hasProperty(self._label, "Exposure") and core.hasPropertyLimits(self._label, "Exposure"):
                limits_ms = (
                    core.getPropertyLowerLimit(self._label, "Exposure"),
                    core.getPropertyUpperLimit(self._label, "Exposure"),
                )
                if not limits_ms[0] <= exposure_ms <= limits_ms[1]:
                    return 0.0, [], limits_ms
            core.setExposure(self._label, exposure_ms)
            core.setCameraDevice(self._label)
            core.clearROI()
            if region is not None:
                core.setROI(self._label, region.x, region.y, region.width, region.height)
            if self._trigger is not None:
                value = self._trigger.external if trigger == "external" else self._trigger.software
                core.setProperty(self._label, self._trigger.label, value)
            core.waitForDevice(self._label)
            return core.getExposure(self._label), list(core.getROI(self._label)), limits_ms

        taken_ms, taken, limits_ms = await self._core.call(self.name, set_up)
        if not taken:
            raise LimitError(self.name, f"{exposure_ms} ms is outside {limits_ms[0]:g} to {limits_ms[1]:g} ms")
        wanted = region or Region(0, 0, self.width_px, self.height_px)
        if taken != [wanted.x, wanted.y, wanted.width, wanted.height]:
            raise DeviceFault(
                self.name,
                "region",
                f"expected {wanted}, found {Region(*taken)}",
                remedy="Many sensors take multiples of 4 or 8 pixels only.",
            )
        self._exposure_ms = taken_ms
        self._external = trigger == "external"

    async def snap(self) -> Frame:
        """Take one picture.

        Raises:
            DeviceFault: the camera failed, or gave no picture in time.
            Stopped: it was stopped meanwhile.
        """
        return await self._actions.do(self._snap())

    async def _snap(self) -> Frame:
        time_s = _now_s()

        def take(core: CMMCore) -> Any:
            core.setCameraDevice(self._label)
            core.snapImage()
            return core.getImage()

        try:
            async with asyncio.timeout(self._patience_s()):
                pixels = await self._core.call(self.name, take)
        except TimeoutError as error:
            raise self._no_picture() from error
        self._number += 1
        return Frame(pixels, self._exposure_ms, time_s, self._number - 1)

    async def stream(self, count: int) -> AsyncIterator[Frame]:
        """Take so many pictures in a row.

        Raises:
            LimitError: there is no such number.
            DeviceFault: a picture was lost, did not come in time, or the buffer ran over.
            Stopped: it was stopped meanwhile.
        """
        if count < 1:
            raise LimitError(self.name, f"expected at least one picture, found {count}")
        stops = self._actions.stops
        exposure_s = self._exposure_ms / 1e3
        poll_s = min(max(exposure_s / 4, _SHORTEST_POLL_S), _LONGEST_POLL_S)
        first, self._number = self._number, self._number + count
        began_s = _now_s()
        await self._core.call(self.name, lambda core: self._core.sequences.begin(core, self._label, count))
        try:
            for expected in range(count):
                if self._actions.stops != stops:
                    raise Stopped(self.name, "the stream was stopped before its end")
                pixels, tags = await self._actions.do(self._next_picture(poll_s))
                number = int(tags.get("ImageNumber", expected))
                if number != expected:
                    raise DeviceFault(
                        self.name, "lost", f"expected picture {expected} of {count}, found {number}: one was lost"
                    )
                end_s = began_s + float(tags["ElapsedTime-ms"]) / 1e3 if "ElapsedTime-ms" in tags else _now_s()
                yield Frame(pixels, self._exposure_ms, max(began_s, end_s - exposure_s), first + number)
        finally:
            await self._core.call(self.name, self._end)

    async def _next_picture(self, poll_s: float) -> tuple[Any, dict[str, str]]:
        deadline_s = _now_s() + self._patience_s()
        while (popped := await self._core.call(self.name, self._pop)) is None:
            if _now_s() > deadline_s:
                raise self._no_picture()
            await asyncio.sleep(poll_s)
        return popped

    async def read_faults(self) -> list[Fault]:
        """What keeps it from answering."""
        return await self._core.faults(self.name, self._label)

    async def clear_faults(self) -> None:
        """Nothing to clear: Micro-Manager knows no faults as such."""

    # --------------------------------------------------------------------------------------------------- in the thread

    def _look(self, core: CMMCore) -> None:
        core.setCameraDevice(self._label)
        core.clearROI()
        if core.getNumberOfComponents() != 1 or core.getBytesPerPixel() not in (1, 2):
            raise InputError(
                self.name,
                f"expected grey pictures of 8 or 16 bits, found {core.getNumberOfComponents()} components"
                f" in {core.getBytesPerPixel()} bytes",
                remedy="Set its pixel type in the Micro-Manager configuration.",
            )
        self.width_px, self.height_px = core.getImageWidth(), core.getImageHeight()
        self.bit_depth = core.getImageBitDepth()
        self._exposure_ms = core.getExposure(self._label)

    def _pop(self, core: CMMCore) -> tuple[Any, dict[str, str]] | None:
        """Take the next picture of a stream, with what Micro-Manager says of it; nothing while there is none."""
        import pymmcore

        if core.isBufferOverflowed():
            raise DeviceFault(
                self.name,
                "overflow",
                "pictures come faster than they are taken away: the buffer ran over",
                remedy="Give Micro-Manager a larger buffer, or slow the camera.",
            )
        running = core.isSequenceRunning(self._label)  # asked first: the last picture may come in between
        if core.getRemainingImageCount() == 0:
            if not running:
                raise DeviceFault(self.name, "lost", "the camera ended the stream before its last picture")
            return None
        metadata = pymmcore.Metadata()
        pixels = core.popNextImageMD(metadata)
        return pixels, {key: metadata.GetSingleTag(key).GetValue() for key in metadata.GetKeys()}

    def _end(self, core: CMMCore) -> None:
        self._core.sequences.end(core, self._label)

    # --------------------------------------------------------------------------------------------------- from the loop

    def _patience_s(self) -> float:
        return self._exposure_ms / 1e3 + _MARGIN_S + (self._trigger_timeout_s if self._external else 0.0)

    def _no_picture(self) -> DeviceFault:
        return DeviceFault(
            self.name,
            "no picture",
            f"no picture within {self._patience_s():.3g} s",
            remedy="Check the trigger cable." if self._external else "Check the camera's cable and power.",
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
