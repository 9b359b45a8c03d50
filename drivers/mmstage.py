"""Stages and focus drives through Micro-Manager (`drivers.mmcore`); positions in micrometres.

Tested with Micro-Manager's demonstration stages. Not yet on hardware.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cartoseq.drivers.axes import AxesFocus, AxesStage
from cartoseq.drivers.capabilities import Fault, Identity, Range, XYLimits
from cartoseq.drivers.limits import check_within
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.drivers.motion import POLL_S, SEARCH_POLL_S, Motion, await_rest, check_arrivals
from cartoseq.streaming.errors import InputError

if TYPE_CHECKING:
    from pymmcore import CMMCore

_STAGE: Final = 5  # MM::StageDevice
_XY_STAGE: Final = 6  # MM::XYStageDevice


class MicroManagerStage(AxesStage):
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
        limits_um = {"X": limits.x_um, "Y": limits.y_um}
        super().__init__(name, _Axes(core, name, label, limits_um, speed_um_per_s, tolerance_um))


class MicroManagerFocus(AxesFocus):
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
        super().__init__(name, _Axes(core, name, label, {"Z": Range(low_um, high_um)}, speed_um_per_s, tolerance_um))


class _Axes:
    """The two axes of a stage, or the one of a focus drive, which have one label in the configuration."""

    def __init__(
        self,
        core: MicroManagerCore,
        name: str,
        label: str,
        limits_um: dict[str, Range],
        speed_um_per_s: float,
        tolerance_um: float,
    ) -> None:
        if not (0 < speed_um_per_s < math.inf and 0 < tolerance_um < math.inf):
            raise InputError(name, f"expected a speed and a tolerance above 0, found {speed_um_per_s}, {tolerance_um}")
        self.limits_um = limits_um
        self._core = core
        self._name = name
        self._label = label
        self._is_focus = len(limits_um) == 1
        self._speed_um_per_s = speed_um_per_s
        self._tolerance_um = tolerance_um
        self._motion = Motion(name, self._halt, self._is_moving)

    async def open(self) -> Identity:
        await self._core.open()
        try:
            return await self._core.identify(self._name, self._label, _STAGE if self._is_focus else _XY_STAGE)
        except BaseException:
            await self._core.close()
            raise

    async def close(self) -> None:
        await self._core.close()

    async def positions_um(self) -> dict[str, float]:
        def ask(core: CMMCore) -> Sequence[float]:
            return (core.getPosition(self._label),) if self._is_focus else core.getXYPosition(self._label)

        return dict(zip(self.limits_um, await self._core.call(self._name, ask), strict=True))

    async def move_to(self, target_um: dict[str, float]) -> None:
        for axis, value_um in target_um.items():
            check_within(self._name, axis, value_um, self.limits_um[axis])
        await self._motion.run(self._move(target_um))

    async def home(self) -> None:
        await self._motion.run(self._find_home())

    async def stop(self) -> None:
        await self._motion.stop(0.0)

    async def read_faults(self) -> list[Fault]:
        return await self._core.faults(self._name, self._label)

    async def clear_faults(self) -> None:
        pass  # Micro-Manager knows no faults as such

    async def _move(self, target_um: dict[str, float]) -> None:
        def begin(core: CMMCore) -> None:
            (core.setPosition if self._is_focus else core.setXYPosition)(self._label, *target_um.values())

        start_um = await self.positions_um()
        await self._core.call(self._name, begin)
        await self._rest(max(abs(to - start_um[axis]) for axis, to in target_um.items()), POLL_S)
        check_arrivals(self._name, start_um, target_um, await self.positions_um(), self._tolerance_um)

    async def _find_home(self) -> None:
        await self._core.call(self._name, lambda core: core.home(self._label))
        # To a limit, and back to the reference.
        await self._rest(2 * max(limits.high - limits.low for limits in self.limits_um.values()), SEARCH_POLL_S)

    async def _rest(self, distance_um: float, poll_s: float) -> None:
        # The speed is a lower bound, so it is asked from the start whether it is there.
        expected_s = distance_um / self._speed_um_per_s
        await await_rest(self._name, self._is_moving, self._halt, expected_s, poll_from_start_s=poll_s)

    async def _is_moving(self) -> bool:
        return await self._core.call(self._name, lambda core: core.deviceBusy(self._label))

    def _halt(self) -> None:
        self._core.interrupt(self._name, lambda core: core.stop(self._label))
