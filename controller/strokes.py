"""Strokes of the pump, each moved once and accounted for, whatever happens on its way.

A stroke is noted before it begins, with where the plunger stands. Broken off or failed, it stays open until the plunger
has been asked how far it came: by that, and not by what was meant, the ledger is kept. A pump whose last stroke failed
is initialised before the next, which empties it to waste, by the ledger as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cartoseq.controller.actions import Draw, Push
from cartoseq.controller.bench import SAFE_DEADLINE_S, Bench
from cartoseq.controller.ledger import Ledger
from cartoseq.controller.runjournal import RunJournal
from cartoseq.drivers.capabilities import SyringePump
from cartoseq.drivers.errors import DeviceError

#: Plunger readings may be off by a step or so.
VOLUME_TOLERANCE_UL: Final = 0.5
#: Longer than a step of the slowest plunger takes.
_REST_POLL_S: Final = 1.0
_REST_LIMIT_S: Final = 600.0


@dataclass(frozen=True)
class _Stroke:
    """A stroke that was begun and is not accounted for; step 0 is an initialisation."""

    step: int
    way: str
    reagent: str
    from_ul: float
    volume_ul: float


class Strokes:
    """The strokes of one run's pump.

    Args:
        bench: Whose pump it is.
        journal: Where strokes are noted, and what they delivered.
        ledger: What was delivered so far, and from now on.

    Attributes:
        is_in_doubt: Whether nobody saw how the last stroke ended: the pump must be initialised before the next.
    """

    def __init__(self, bench: Bench, journal: RunJournal, ledger: Ledger) -> None:
        self._bench = bench
        self._journal = journal
        self._ledger = ledger
        self._open: _Stroke | None = None
        self.is_in_doubt = False

    @property
    def _pump(self) -> SyringePump:
        assert self._bench.pump is not None
        return self._bench.pump

    async def do(self, step: int, action: Draw | Push) -> None:
        """One stroke of the pump, or what is left of it; what it delivered is in the ledger whatever happens.

        Args:
            step: The number of the action.
            action: What is to be moved.

        Raises:
            DeviceError: the pump failed; what it moved is accounted for as soon as it can be asked.
        """
        pump, way = self._pump, _way_of(action)
        if self.is_in_doubt:
            await self.initialize("its last stroke failed")
        left_ul = action.volume_ul - self._ledger.delivered_ul.get(step, 0.0)
        if way != "draw":
            # After a fault, what the pump held went to waste with its initialisation.
            left_ul = min(left_ul, self._ledger.held_ul)
        if left_ul <= VOLUME_TOLERANCE_UL:
            return
        from_ul = await pump.plunger_ul()
        self._journal.note("stroke", step=step, way=way, from_ul=round(from_ul, 3), volume_ul=round(left_ul, 3))
        self._open = _Stroke(step, way, _reagent_of(action), from_ul, left_ul)
        port = self._bench.waste_port if way == "waste" else self._bench.flow_cell_port
        stroke = pump.aspirate if way == "draw" else pump.dispense
        try:
            await stroke(left_ul, port, action.flow_ul_per_s)
        except BaseException:
            # Broken off or failed: once at rest, the plunger tells how far it came. If it cannot be asked now, the
            # stroke stays open until it can.
            self.is_in_doubt = True
            await self._try_to_settle()
            raise
        self._open = None
        self._account(step, way, _reagent_of(action), left_ul)

    async def settle_noted(self, step: int, action: Draw | Push, from_ul: float, volume_ul: float) -> float:
        """Account for a stroke that the journal has as begun and not as delivered; return how much was moved.

        Raises:
            DeviceError: the pump cannot be asked.
        """
        self._open = _Stroke(step, _way_of(action), _reagent_of(action), from_ul, volume_ul)
        return await self._settle()

    async def initialize(self, why: str) -> None:
        """Initialise the pump; what it holds goes to waste.

        Raises:
            DeviceError: the pump failed.
        """
        pump = self._pump
        await self._settle()
        self._journal.note("initialize", device=pump.name, why=why)
        self.is_in_doubt = True
        held_ul = self._ledger.held_ul
        if held_ul > 0:
            # A stroke to waste: if it fails on its way, the plunger tells what went.
            self._open = _Stroke(0, "waste", "", await pump.plunger_ul(), held_ul)
        await pump.initialize()
        self.is_in_doubt, self._open = False, None
        if held_ul > 0:
            self._account(0, "waste", "", held_ul)

    async def come_to_rest(self) -> float:
        """Wait until the plunger does not move any more; return where it is.

        Raises:
            DeviceError: the pump cannot be asked.
        """
        loop = asyncio.get_running_loop()
        limit_s = loop.time() + _REST_LIMIT_S
        before = await self._pump.plunger_ul()
        while True:
            await asyncio.sleep(_REST_POLL_S)
            now = await self._pump.plunger_ul()
            if now == before or loop.time() > limit_s:
                return now
            before = now

    async def settle_at_the_end(self, failures: Mapping[str, str]) -> str:
        """Account for a stroke that is still open when the run has ended, or say that it cannot be.

        Args:
            failures: The devices that could not be made safe.

        Returns:
            What is not known, for a person; empty where all is.
        """
        if self._open is None:
            return ""
        try:
            with contextlib.suppress(DeviceError, TimeoutError):
                async with asyncio.timeout(SAFE_DEADLINE_S):
                    await self._settle(at_rest=self._pump.name not in failures)
        except OSError:
            return ""  # the stroke is open in the journal as well
        unknown = ""
        if (stroke := self._open) is not None:
            unknown = f"how much of a stroke of {stroke.volume_ul:.1f} ul ({stroke.way}) was moved is not known"
            with contextlib.suppress(OSError):
                volume_ul = round(stroke.volume_ul, 3)
                self._journal.note("not accounted for", step=stroke.step, way=stroke.way, volume_ul=volume_ul)
        return unknown

    async def _settle(self, *, at_rest: bool = False) -> float:
        """Account for the stroke that is open by where the plunger is; return how much of it was moved.

        Args:
            at_rest: Whether the plunger is known to be at rest.

        Raises:
            DeviceError: the pump cannot be asked; the stroke stays open.
        """
        if (stroke := self._open) is None:
            return 0.0
        plunger_ul = await self._pump.plunger_ul() if at_rest else await self.come_to_rest()
        moved_ul = (plunger_ul - stroke.from_ul) * (1 if stroke.way == "draw" else -1)
        moved_ul = min(stroke.volume_ul, max(0.0, moved_ul))
        self._open = None
        self._account(stroke.step, stroke.way, stroke.reagent, moved_ul)
        return moved_ul

    async def _try_to_settle(self) -> None:
        """Stop the plunger and account for its stroke, if the pump answers in time."""
        stopped = False
        # A journal that the disk does not take has the stroke open: whoever takes the run up asks the plunger.
        with contextlib.suppress(OSError):
            with contextlib.suppress(DeviceError, TimeoutError):
                async with asyncio.timeout(SAFE_DEADLINE_S):
                    await self._pump.stop()
                    stopped = True
            with contextlib.suppress(DeviceError, TimeoutError):
                async with asyncio.timeout(SAFE_DEADLINE_S):
                    await self._settle(at_rest=stopped)

    def _account(self, step: int, way: str, reagent: str, volume_ul: float) -> None:
        self._ledger.add(step, way, volume_ul, reagent)
        self._journal.note("delivered", step=step, way=way, reagent=reagent, volume_ul=round(volume_ul, 3))


def _way_of(action: Draw | Push) -> str:
    return "draw" if isinstance(action, Draw) else action.to


def _reagent_of(action: Draw | Push) -> str:
    return action.reagent if isinstance(action, Draw) else ""
