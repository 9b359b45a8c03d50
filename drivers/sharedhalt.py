"""Moves on a controller whose stop halts all of its axes, also those of other devices on its line.

Nobody stopped the drivers of those others: they learn of the halt from the line's count of stops, and raise `Stopped`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from cartoseq.drivers.errors import Stopped
from cartoseq.drivers.motion import await_rest, begin, check_arrivals
from cartoseq.drivers.transport import Transport


class Controller(Protocol):
    """Some axes of such a controller."""

    name: str
    transport: Transport

    async def positions_um(self) -> dict[str, float]:
        """Where each axis is."""

    async def is_moving(self) -> bool:
        """Whether one of them moves."""

    def halt(self) -> None:
        """Stop all axes of the controller at once."""


class HaltWatch:
    """Whether the controller was halted since this was made.

    Args:
        controller: The controller.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._halts = controller.transport.interrupts

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Stopped: it was halted.
        """
        if self._controller.transport.interrupts != self._halts:
            raise Stopped(self._controller.name, "the move was ended by a halt of the whole controller")


async def move_there(
    controller: Controller,
    target_um: dict[str, float],
    send: Callable[[], Awaitable[None]],
    expected_s: Callable[[dict[str, float]], float],
    tolerance_um: float,
) -> None:
    """Move axes to an absolute target, and return when they are at rest there.

    Args:
        controller: The controller.
        target_um: Where each axis is sent.
        send: Sends the move, once.
        expected_s: How long a move over these distances takes.
        tolerance_um: How far from its target an axis may come to rest.

    Raises:
        Stopped: the controller was halted meanwhile.
        StallError: an axis stopped on its way.
        PositionError: an axis is somewhere else.
        DeviceFault: it moves for too long; it was told to stop.
        LinkError: the move could not be sent, or watched.
    """
    watch = HaltWatch(controller)
    start_um = await controller.positions_um()

    def is_there(found_um: dict[str, float]) -> bool:
        return all(abs(found_um[axis] - to) <= tolerance_um for axis, to in target_um.items())

    async def has_begun() -> bool:
        watch.check()
        return await controller.is_moving() or is_there(await controller.positions_um())

    await begin(send, has_begun)
    duration_s = expected_s({axis: to - start_um[axis] for axis, to in target_um.items()})
    await await_rest(controller.name, controller.is_moving, controller.halt, duration_s)
    found_um = await controller.positions_um()
    if not is_there(found_um):
        watch.check()
    check_arrivals(controller.name, start_um, target_um, found_um, tolerance_um, controller.transport.dump())
