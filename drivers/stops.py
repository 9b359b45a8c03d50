"""Stops: how what a driver is doing ends at once when it is stopped.

Whatever changes a device or takes time is done as an action. A stop cancels all actions of the driver: whoever sleeps
or awaits a reply wakes, nothing of theirs goes out any more, since that would undo the stop, and who awaits them gets
`Stopped`. Then the driver writes the device's own stop with `Transport.interrupt`, which waits for nothing; and what it
does after that to see the stop through is no action, so that no further stop ends it. Queries are none either.

Two things are stopped in another way. A stop of one axis halts all axes of some controllers, so the drivers of the
others, which nobody stopped, learn of it from the line (`drivers.sharedhalt`). A stream of pictures is at rest between
two of them, where there is no action to cancel: it looks at `Actions.stops`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from cartoseq.drivers.errors import Busy, DeviceFault, Disconnected, Stopped

T = TypeVar("T")

_OFF_S: Final = 2.0
_OFF_POLL_S: Final = 0.05


class Actions:
    """What one driver is doing.

    Args:
        device: The device's name in messages.
        one_at_a_time: Whether there may be but one action.
        abandon: Is called when an action's caller was cancelled, so that nobody watches the device any more; it may
            raise `Disconnected`.
        remedy: What to do after a stop: a full sentence.
    """

    def __init__(
        self,
        device: str,
        *,
        one_at_a_time: bool = False,
        abandon: Callable[[], object] = lambda: None,
        remedy: str = "",
    ) -> None:
        #: How often the driver was stopped.
        self.stops = 0
        self._device = device
        self._one_at_a_time = one_at_a_time
        self._abandon = abandon
        self._remedy = remedy
        self._tasks: set[asyncio.Task[Any]] = set()

    async def do(self, action: Coroutine[Any, Any, T]) -> T:
        """Do something to its end, or to the next stop.

        Raises:
            Busy: there may be but one action, and another is under way; nothing was done.
            Stopped: `stop` ended it.
        """
        if self._one_at_a_time and self._tasks:
            action.close()
            raise Busy(self._device, "is at work already", remedy="Await what it does, or stop it.")
        stops = self.stops
        task = asyncio.ensure_future(action)
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self.stops == stops:
                with contextlib.suppress(Disconnected):
                    self._abandon()
            elif not (caller and caller.cancelling()):
                raise Stopped(self._device, "was stopped before it was done", remedy=self._remedy) from None
            raise
        finally:
            self._tasks.discard(task)

    def stop(self) -> None:
        """End every action that has begun; not to be called from within one."""
        self.stops += 1
        for task in self._tasks:
            task.cancel()


async def see_off(
    is_on: Callable[[], Awaitable[bool]], switch_off: Callable[[], Awaitable[object]], fault: Callable[[], DeviceFault]
) -> None:
    """Return when a device that was stopped says that it is off.

    Args:
        is_on: Asks it.
        switch_off: Switches it off again: a command of another task may have gone out just after the stop.
        fault: What to raise if it stays on.

    Raises:
        DeviceFault: it stays on.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + _OFF_S
    while await is_on():
        if loop.time() > deadline_s:
            raise fault()
        await asyncio.sleep(_OFF_POLL_S)
        await switch_off()
