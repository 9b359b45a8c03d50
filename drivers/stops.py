"""Stops: how the actions of one driver learn that it was stopped while they were under way.

A driver begins an `Action` for everything that changes the device or takes time. A stop ends all of them: whoever
sleeps wakes, and no command of theirs is sent again, since sending it would undo the stop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cartoseq.drivers.errors import Disconnected, LinkError, Stopped

T = TypeVar("T")


class Stops:
    """The stops of one driver.

    Args:
        name: The device's name in messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._now = asyncio.Event()

    def stop(self) -> Action:
        """End every action that has begun; return one that no later stop ends, to see the stop through."""
        self._now.set()
        self._now = asyncio.Event()
        return Action(self._name, asyncio.Event())

    def begin(self) -> Action:
        """Begin an action, which ends with the next stop."""
        return Action(self._name, self._now)


class Action:
    """Something that takes several exchanges, or time; `Stops.begin` makes it."""

    def __init__(self, name: str, stop: asyncio.Event) -> None:
        self._name = name
        self._stop = stop

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Stopped: the driver was stopped since the action began.
        """
        if self._stop.is_set():
            raise Stopped(self._name, "was stopped before it was done")

    async def sleep(self, duration_s: float) -> None:
        """Sleep, but no longer than to the next stop.

        Raises:
            Stopped: there was one.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(duration_s):
                await self._stop.wait()
        self.check()

    async def repeat(self, exchange: Callable[[], Awaitable[T]], *, tries: int = 3) -> T:
        """Do an exchange, and again where the line failed: for queries, and commands that set a value.

        Args:
            exchange: One exchange.
            tries: How often in all.

        Raises:
            LinkError: the last one's; that of a line that is gone at once.
            Stopped: the driver was stopped meanwhile.
        """
        while True:
            tries -= 1
            self.check()
            try:
                return await exchange()
            except LinkError as error:
                self.check()
                if tries <= 0 or isinstance(error, Disconnected):
                    raise
