"""What motor drivers share: checks before a move, how long it may take, how its end is awaited, and how it is stopped.

A move is started, most of its computed time is slept through, then the device is asked until it is at rest, and last
its position is held against the target. A stop writes its bytes at once and ends the task that awaits the move, which
raises `Stopped`. A move whose end can no longer be watched, because its caller was cancelled or the line failed, is
stopped as well: nothing moves unwatched.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from cartoseq.drivers.errors import (
    DeviceFault,
    Disconnected,
    LinkError,
    PositionError,
    StallError,
)
from cartoseq.drivers.stops import Actions

#: A move may take so much longer than its computed time, and so many seconds on top.
SLACK: Final = 1.5
MARGIN_S: Final = 2.0
#: How often a device is asked whether it is at rest.
POLL_S: Final = 0.02
#: The same while it searches a switch.
SEARCH_POLL_S: Final = 0.1
_SLEPT_THROUGH: Final = 0.8
_STOP_AGAIN_S: Final = 0.5
_TRIES: Final = 3


def travel_s(distance: float, speed: float, acceleration: float) -> float:
    """Return how long a move from rest to rest takes with a trapezoidal profile of the speed.

    It is ``d/v + v/a`` where the full speed is reached (``d >= v**2/a``), else ``2*sqrt(d/a)``.

    Args:
        distance: How far, in any unit of length; its sign does not count.
        speed: Full speed in that unit per second, above 0.
        acceleration: In that unit per second squared; infinite where there is no ramp.
    """
    distance = abs(distance)
    if distance >= speed * (speed / acceleration):
        return distance / speed + speed / acceleration
    return 2 * math.sqrt(distance / acceleration)


def check_arrival(
    device: str, axis: str, start_um: float, target_um: float, found_um: float, tolerance_um: float, wire: str
) -> None:
    """Hold that an axis is where it was sent.

    Args:
        device: The device's name.
        axis: The axis.
        start_um: Where it was before the move.
        target_um: Where it was sent.
        found_um: Where it came to rest.
        tolerance_um: How far off it may be.
        wire: The last bytes on the line.

    Raises:
        StallError: it stopped on its way.
        PositionError: it is somewhere else.
    """
    if abs(found_um - target_um) <= tolerance_um:
        return
    low_um, high_um = sorted((start_um, target_um))
    on_its_way = low_um - tolerance_um <= found_um <= high_um + tolerance_um
    raise (StallError if on_its_way else PositionError)(
        device,
        axis,
        f"{axis} came to rest at {found_um:.10g} um after a move from {start_um:.10g} to {target_um:.10g} um",
        remedy="Look for an obstacle, a limit switch or a hand at the joystick, then home the device.",
        wire=wire,
    )


def check_arrivals(
    device: str,
    start_um: Mapping[str, float],
    target_um: Mapping[str, float],
    found_um: Mapping[str, float],
    tolerance_um: float,
    wire: str = "",
) -> None:
    """Do `check_arrival` for every axis of a move, by their names; raises what it raises."""
    for axis, to_um in target_um.items():
        check_arrival(device, axis, start_um[axis], to_um, found_um[axis], tolerance_um, wire)


async def begin(send: Callable[[], Awaitable[object]], has_begun: Callable[[], Awaitable[bool]]) -> None:
    """Send a move to an absolute target; if the line fails, ask the device whether it took it before sending it again.

    Args:
        send: Sends the move, once.
        has_begun: Whether the device moves, or is at the target already.

    Raises:
        LinkError: it could not be sent.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            await send()
            return
        except Disconnected:
            raise
        except LinkError:
            if await has_begun():
                return
            if not tries_left:
                raise


async def await_rest(
    device: str,
    is_moving: Callable[[], Awaitable[bool]],
    halt: Callable[[], None],
    expected_s: float,
    *,
    poll_from_start_s: float = 0.0,
) -> None:
    """Return when a move has ended by the device's own word.

    Args:
        device: The device's name.
        is_moving: Asks it.
        halt: Stops it, once the move has taken too long.
        expected_s: How long the move takes by its distance, speed and acceleration.
        poll_from_start_s: Ask from the start, so often, since it may take much less (a search for a switch). At 0 most
            of the expected time is slept through.

    Raises:
        DeviceFault: it moves for too long; it was told to stop.
    """
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    deadline_s = begun_s + SLACK * expected_s + MARGIN_S
    if not poll_from_start_s:
        await asyncio.sleep(_SLEPT_THROUGH * expected_s)
    while await is_moving():
        if loop.time() >= deadline_s:
            halt()
            raise DeviceFault(
                device,
                "moving",
                f"still moving {loop.time() - begun_s:.3g} s after the start of a move that takes {expected_s:.3g} s",
                remedy="It was told to stop. Check its speed in the instrument file, and the mechanics.",
            )
        await asyncio.sleep(poll_from_start_s or POLL_S)


async def come_to_rest(
    device: str, is_moving: Callable[[], Awaitable[bool]], halt: Callable[[], None], limit_s: float
) -> None:
    """Return when a device that was stopped says that it is at rest; a line that fails meanwhile is borne.

    Args:
        device: The device's name.
        is_moving: Asks it.
        halt: Stops it; said again now and then, since the stop may have been lost.
        limit_s: How long it may take to slow down.

    Raises:
        DeviceFault: it goes on moving.
        LinkError: it cannot be told, or asked.
    """
    loop = asyncio.get_running_loop()
    begun_s = said_s = loop.time()
    while True:
        failure: LinkError | None = None
        try:
            if not await is_moving():
                return
        except Disconnected:
            raise
        except LinkError as error:
            failure = error
        now_s = loop.time()
        if now_s - begun_s > SLACK * limit_s + MARGIN_S:
            raise failure or DeviceFault(
                device,
                "moving",
                f"still moving {now_s - begun_s:.3g} s after it was told to stop",
                remedy="Cut its power by the emergency switch.",
            )
        if now_s - said_s >= _STOP_AGAIN_S:
            said_s = now_s
            halt()
        await asyncio.sleep(POLL_S)


class Motion:
    """The move that a device is doing, one at a time, and how it is ended.

    Args:
        device: The device's name.
        halt: Writes the device's stop at once, without waiting for anything.
        is_moving: Asks the device whether it moves.
    """

    def __init__(self, device: str, halt: Callable[[], None], is_moving: Callable[[], Awaitable[bool]]) -> None:
        self._device = device
        self._halt = halt
        self._is_moving = is_moving
        self._actions = Actions(device, one_at_a_time=True, abandon=halt)

    async def run(self, move: Coroutine[Any, Any, None]) -> None:
        """Do a move to its end.

        Raises:
            Busy: another is under way; nothing was done.
            Stopped: `stop` ended it.
        """
        try:
            await self._actions.do(move)
        except LinkError:
            with contextlib.suppress(Disconnected):
                self._halt()
            raise

    async def stop(self, limit_s: float) -> None:
        """Stop at once, end the move that is awaited, and return when the device says that it is at rest.

        Args:
            limit_s: How long it may take to slow down.

        Raises:
            DeviceFault: it goes on moving.
            LinkError: it cannot be told, or asked.
        """
        self._actions.stop()
        self._halt()
        await come_to_rest(self._device, self._is_moving, self._halt, limit_s)

    async def rest(self, limit_s: float) -> None:
        """Stop what still moves from before, and return when it is at rest; at rest, nothing is sent.

        Raises:
            DeviceFault: it goes on moving.
        """
        if await self._is_moving():
            self._halt()
            await come_to_rest(self._device, self._is_moving, self._halt, limit_s)
