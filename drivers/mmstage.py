"""Stages and focus drives through Micro-Manager (`drivers.mmcore`); positions in micrometres.

Tested with Micro-Manager's demonstration stages. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from cartoseq.drivers.capabilities import XY, Fault, Identity, Range, XYLimits
from cartoseq.drivers.errors import DeviceFault, LimitError, StallError
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.drivers.stops import Action, Stops
from cartoseq.streaming.errors import InputError

_STAGE_DEVICE: Final = 5  # MM::StageDevice
_XY_STAGE_DEVICE: Final = 6  # MM::XYStageDevice
_MARGIN_S: Final = 2.0
_POLL_S: Final = 0.02


class MicroManagerStage:
    """An XY stage of a Micro-Manager configuration.

    Args:
        core: The core; cameras and stages share it.
        name: The device's name in messages.
        limits: Allowed travel; Micro-Manager does not tell it.
        speed_um_per_s: Speed along an axis, by which the time of a move is computed: rather too low.
        label: The stage's label in the configuration.
        tolerance_um: How far from its target it may come to rest, along each axis.
    """

    def __init__(
        self,
        core: MicroManagerCore,
        name: str,
        *,
        limits: XYLimits,
        speed_um_per_s: float,
        label: str = "XY",
        tolerance_um: float = 1.0,
    ) -> None:
        self.name = name
        self.limits = limits
        self._axis = _Axis(core, name, label, speed_um_per_s, tolerance_um)

    async def open(self) -> Identity:
        """Load the configuration, and hold that the stage is in it."""
        return await self._axis.open(_XY_STAGE_DEVICE)

    async def close(self) -> None:
        """Let go of it."""
        await self._axis.close()

    async def make_safe(self) -> None:
        """Stop it."""
        await self.stop()

    async def home(self) -> None:
        """Find the reference position.

        Raises:
            DeviceFault: the stage cannot, or does not come to rest in time.
            Stopped: it was stopped meanwhile.
        """
        travel_um = max(axis.high - axis.low for axis in (self.limits.x_um, self.limits.y_um))
        axis = self._axis
        action = axis.stops.begin()
        await axis.core.call(self.name, lambda core: core.home(axis.label))
        # To a limit, and back to the reference.
        await axis.rest(action, 2 * travel_um, first_s=0.0)

    async def position(self) -> XY:
        """Where it is."""
        x_um, y_um = await self._axis.core.call(self.name, lambda core: core.getXYPosition(self._axis.label))
        return XY(x_um, y_um)

    async def move_to(self, x_um: float, y_um: float) -> None:
        """Move, and return when it is at rest there.

        Raises:
            LimitError: outside the limits; nothing was sent.
            StallError: it came to rest elsewhere.
            DeviceFault: it refuses, or does not come to rest in time.
            Stopped: it was stopped meanwhile.
        """
        if x_um not in self.limits.x_um or y_um not in self.limits.y_um:
            raise LimitError(self.name, f"({x_um}, {y_um}) µm is outside the travel {self.limits}")
        axis = self._axis
        action = axis.stops.begin()
        begin = await self.position()
        action.check()
        await axis.core.call(self.name, lambda core: core.setXYPosition(axis.label, x_um, y_um))
        await axis.rest(action, max(abs(x_um - begin.x_um), abs(y_um - begin.y_um)))
        end = await self.position()
        axis.hold(max(abs(x_um - end.x_um), abs(y_um - end.y_um)), f"({x_um}, {y_um})", f"({end.x_um}, {end.y_um})")

    async def stop(self) -> None:
        """Stop at once, wherever it is."""
        await self._axis.stop()

    async def read_faults(self) -> list[Fault]:
        """What keeps it from answering."""
        return await self._axis.core.faults(self.name, self._axis.label)

    async def clear_faults(self) -> None:
        """Nothing to clear: Micro-Manager knows no faults as such."""


class MicroManagerFocus:
    """A focus drive of a Micro-Manager configuration.

    Args:
        core: The core; cameras and stages share it.
        name: The device's name in messages.
        low_um: Least allowed position.
        high_um: Greatest allowed position.
        speed_um_per_s: By which the time of a move is computed: rather too low.
        label: The drive's label in the configuration.
        tolerance_um: How far from its target it may come to rest.
    """

    def __init__(
        self,
        core: MicroManagerCore,
        name: str,
        *,
        low_um: float,
        high_um: float,
        speed_um_per_s: float,
        label: str = "Z",
        tolerance_um: float = 0.2,
    ) -> None:
        self.name = name
        self.limits_um = Range(low_um, high_um)
        self._axis = _Axis(core, name, label, speed_um_per_s, tolerance_um)

    async def open(self) -> Identity:
        """Load the configuration, and hold that the drive is in it."""
        return await self._axis.open(_STAGE_DEVICE)

    async def close(self) -> None:
        """Let go of it."""
        await self._axis.close()

    async def make_safe(self) -> None:
        """Stop it."""
        await self.stop()

    async def position_um(self) -> float:
        """Where it is."""
        return await self._axis.core.call(self.name, lambda core: core.getPosition(self._axis.label))

    async def move_to_um(self, z_um: float) -> None:
        """Move, and return when it is at rest there.

        Raises:
            LimitError: outside the limits; nothing was sent.
            StallError: it came to rest elsewhere.
            DeviceFault: it refuses, or does not come to rest in time.
            Stopped: it was stopped meanwhile.
        """
        if z_um not in self.limits_um:
            raise LimitError(self.name, f"{z_um} µm is outside {self.limits_um.low} to {self.limits_um.high} µm")
        axis = self._axis
        action = axis.stops.begin()
        begin_um = await self.position_um()
        action.check()
        await axis.core.call(self.name, lambda core: core.setPosition(axis.label, z_um))
        await axis.rest(action, abs(z_um - begin_um))
        end_um = await self.position_um()
        axis.hold(abs(z_um - end_um), f"{z_um}", f"{end_um}")

    async def stop(self) -> None:
        """Stop at once, wherever it is."""
        await self._axis.stop()

    async def read_faults(self) -> list[Fault]:
        """What keeps it from answering."""
        return await self._axis.core.faults(self.name, self._axis.label)

    async def clear_faults(self) -> None:
        """Nothing to clear: Micro-Manager knows no faults as such."""


class _Axis:
    """What a stage and a focus drive have in common: to be opened, to come to rest, and to be stopped."""

    def __init__(
        self, core: MicroManagerCore, name: str, label: str, speed_um_per_s: float, tolerance_um: float
    ) -> None:
        if not (0 < speed_um_per_s < math.inf and 0 < tolerance_um < math.inf):
            raise InputError(name, f"expected a speed and a tolerance above 0, found {speed_um_per_s}, {tolerance_um}")
        self.core = core
        self.label = label
        self.stops = Stops(name)
        self._name = name
        self._speed_um_per_s = speed_um_per_s
        self._tolerance_um = tolerance_um

    async def open(self, kind: int) -> Identity:
        await self.core.open()
        try:
            return await self.core.identify(self._name, self.label, kind)
        except BaseException:
            await self.core.close()
            raise

    async def close(self) -> None:
        self.stops.stop()
        await self.core.close()

    async def rest(self, action: Action, distance_um: float, *, first_s: float | None = None) -> None:
        """Wait until it is at rest: sleep most of the time that the way takes, then ask."""
        move_s = distance_um / self._speed_um_per_s
        deadline_s = _now_s() + move_s + _MARGIN_S
        # The speed is a lower bound, so half of it is slept at most.
        await action.sleep(move_s / 2 if first_s is None else first_s)
        while await self.core.call(self._name, lambda core: core.deviceBusy(self.label)):
            if _now_s() > deadline_s:
                await self.core.call(self._name, lambda core: core.stop(self.label))
                raise DeviceFault(
                    self._name,
                    "busy",
                    f"not at rest {move_s + _MARGIN_S:.3g} s after a move of {distance_um:.6g} µm began",
                )
            await action.sleep(_POLL_S)
        action.check()

    async def stop(self) -> None:
        action = self.stops.stop()
        await self.core.call(self._name, lambda core: core.stop(self.label))
        deadline_s = _now_s() + _MARGIN_S
        while await self.core.call(self._name, lambda core: core.deviceBusy(self.label)):
            if _now_s() > deadline_s:
                raise DeviceFault(self._name, "busy", f"not at rest {_MARGIN_S} s after a stop")
            await action.sleep(_POLL_S)

    def hold(self, off_um: float, wanted: str, found: str) -> None:
        if not off_um <= self._tolerance_um:
            raise StallError(self._name, "position", f"expected {wanted} µm, found {found} µm at rest")


def _now_s() -> float:
    return asyncio.get_running_loop().time()
