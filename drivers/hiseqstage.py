"""The XY stage of a HiSeq 2500: an MDrive moves X, a ViX drive moves Y, each on its own line."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from cartoseq.drivers.capabilities import NOTICE, XY, Fault, Identity, XYLimits
from cartoseq.drivers.errors import DeviceError
from cartoseq.drivers.mdrive import MDriveAxis
from cartoseq.drivers.vix import VixAxis


class HiSeqStage:
    """Both axes as one stage. Its origin is home.

    Args:
        name: Of the device, in messages.
        x: The X axis.
        y: The Y axis.
    """

    def __init__(self, name: str, *, x: MDriveAxis, y: VixAxis) -> None:
        self.name = name
        self.x = x
        self.y = y

    @property
    def limits(self) -> XYLimits:
        """Allowed travel."""
        return XYLimits(self.x.limits_um, self.y.limits_um)

    async def open(self) -> Identity:
        """Connect to both drives and set them up."""
        await self.x.open()
        try:
            await self.y.open()
        except BaseException:
            await self.x.close()
            raise
        return Identity("Illumina", "HiSeq 2500 stage (MDrive, ViX)", notice=NOTICE)

    async def close(self) -> None:
        """Let go of both lines."""
        try:
            await self.x.close()
        finally:
            await self.y.close()

    async def home(self) -> None:
        """Find the home switch of Y, then that of X.

        Raises:
            NotInitialized: one was not found.
            Stopped: a stop ended it.
        """
        await self.y.home()
        await self.x.home()

    async def position(self) -> XY:
        """Where it is. Raises `Busy` while Y moves."""
        return XY(await self.x.position_um(), await self.y.position_um())

    async def move_to(self, x_um: float, y_um: float) -> None:
        """Move both axes at once and return when they are at rest at the target.

        Raises:
            LimitError: the target is outside the travel; nothing was sent.
            NotInitialized: an axis must be homed first.
            StallError: an axis stopped short of the target.
            PositionError: an axis is somewhere else.
            OverTemperature: the Y drive or its motor is too hot.
            Stopped: a stop ended it.
            Busy: it moves already.
        """
        self.x.check(x_um)
        self.y.check(y_um)
        await _both(self.x.move_to_um(x_um), self.y.move_to_um(y_um))

    async def stop(self) -> None:
        """Stop both axes at once, and return when they are at rest; if one cannot be told, the other is."""
        await _both(self.x.stop(), self.y.stop(), to_the_end=True)

    async def make_safe(self) -> None:
        """Stop."""
        await self.stop()

    async def read_faults(self) -> list[Fault]:
        """What both drives complain of."""
        return [*await self.x.read_faults(), *await self.y.read_faults()]

    async def clear_faults(self) -> None:
        """Clear what can be cleared in both."""
        await self.x.clear_faults()
        await self.y.clear_faults()


async def _both(
    first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None], *, to_the_end: bool = False
) -> None:
    """Do both at once; where one fails, end the other (or let it go to its end), and raise the first failure."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.ALL_COMPLETED if to_the_end else asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for kind in (DeviceError, Exception):
        for outcome in outcomes:
            if isinstance(outcome, kind):
                raise outcome
