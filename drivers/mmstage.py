"""Stages and focus drives through Micro-Manager (`drivers.mmcore`); positions in micrometres.

Tested with Micro-Manager's demonstration stages. Not yet on hardware.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from cartoseq.drivers.capabilities import XY, Fault, Identity, Range, XYLimits
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.drivers.motion import POLL_S, SEARCH_POLL_S, Motion, await_rest, check_arrival, check_within
from cartoseq.streaming.errors import InputError

if TYPE_CHECKING:
    from pymmcore import CMMCore

_STAGE_DEVICE: Final = 5  # MM::StageDevice
_XY_STAGE_DEVICE: Final = 6  # MM::XYStageDevice


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
        await self._axis.core.close()

    async def make_safe(self) -> None:
        """Stop it."""
        await self.stop()

    async def home(self) -> None:
        """Find the reference position.

        Raises:
            DeviceFault: the stage cannot, or does not come to rest in time.
            Stopped: it was stopped meanwhile.
        """
        await self._axis.home(max(axis.high - axis.low for axis in (self.limits.x_um, self.limits.y_um)))

    async def position(self) -> XY:
        """Where it is."""
        return XY(*await self._axis.core.call(self.name, lambda core: core.getXYPosition(self._axis.label)))

    async def move_to(self, x_um: float, y_um: float) -> None:
        """Move, and return when it is at rest there.

        Raises:
            LimitError: the target is outside the travel; nothing was sent.
            StallError: it came to rest on its way.
            PositionError: it is somewhere else.
            DeviceFault: it refuses, or does not come to rest in time.
            Stopped: it was stopped meanwhile.
            Busy: it moves already.
        """
        check_within(self.name, "X", x_um, self.limits.x_um)
        check_within(self.name, "Y", y_um, self.limits.y_um)
        await self._axis.move_to(
            {"X": x_um, "Y": y_um}, self._place_um, lambda core: core.setXYPosition(self._axis.label, x_um, y_um)
        )

    async def _place_um(self) -> dict[str, float]:
        place = await self.position()
        return {"X": place.x_um, "Y": place.y_um}

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
        await self._axis.core.close()

    async def make_safe(self) -> None:
        """Stop it."""
        await self.stop()

    async def position_um(self) -> float:
        """Where it is."""
        return await self._axis.core.call(self.name, lambda core: core.getPosition(self._axis.label))

    async def move_to_um(self, z_um: float) -> None:
        """Move, and return when it is at rest there.

        Raises:
            LimitError: the target is outside the travel; nothing was sent.
            StallError: it came to rest on its way.
            PositionError: it is somewhere else.
            DeviceFault: it refuses, or does not come to rest in time.
            Stopped: it was stopped meanwhile.
            Busy: it moves already.
        """
        check_within(self.name, "Z", z_um, self.limits_um)
        await self._axis.move_to({"Z": z_um}, self._place_um, lambda core: core.setPosition(self._axis.label, z_um))

    async def _place_um(self) -> dict[str, float]:
        return {"Z": await self.position_um()}

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
        self.motion = Motion(name, self._halt, self._is_moving)
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

    async def move_to(
        self,
        target_um: dict[str, float],
        place_um: Callable[[], Awaitable[dict[str, float]]],
        begin: Callable[[CMMCore], object],
    ) -> None:
        async def move() -> None:
            start_um = await place_um()
            distance_um = max(abs(to - start_um[axis]) for axis, to in target_um.items())
            await self._do(begin, distance_um, POLL_S)
            check_arrival(self._name, start_um, target_um, await place_um(), self._tolerance_um)

        await self.motion.run(move())

    async def home(self, travel_um: float) -> None:
        # To a limit, and back to the reference.
        await self.motion.run(self._do(lambda core: core.home(self.label), 2 * travel_um, SEARCH_POLL_S))

    async def stop(self) -> None:
        await self.motion.stop(0.0)

    async def _do(self, begin: Callable[[CMMCore], object], distance_um: float, poll_s: float) -> None:
        await self.core.call(self._name, begin)
        # The speed is a lower bound, so it is asked from the start whether it is there.
        expected_s = distance_um / self._speed_um_per_s
        await await_rest(self._name, self._is_moving, self._halt, expected_s, poll_from_start_s=poll_s)

    async def _is_moving(self) -> bool:
        return await self.core.call(self._name, lambda core: core.deviceBusy(self.label))

    def _halt(self) -> None:
        self.core.interrupt(self._name, lambda core: core.stop(self.label))
