"""Syringe pumps of the Cavro family (XP 3000, XCalibur, XLP 6000) and the Kloehn VersaPump 3, on a serial line.

9600 or 38400 baud, several pumps on one line, each with its switch; `cavrocodec` has the two framings. A pump runs a
string of commands that ends in ``R``, answers at once, and works on; ``Q`` tells whether it is at rest, and its error.

A stroke is one string: ``V`` top speed, the valve, and ``A`` the absolute place of the plunger in steps. Volumes are
``steps / steps_per_stroke * barrel``. The place is read before and after each stroke. A stroke is never sent twice,
but for OEM framing, where a repeat is marked and the pump does not run it again.

Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from typing import Final

from cartoseq.drivers import cavrocodec as codec
from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.cavrocodec import DialectName, Framing
from cartoseq.drivers.cavroline import REINITIALIZE, CavroLine
from cartoseq.drivers.errors import (
    Busy,
    DeviceFault,
    Disconnected,
    LimitError,
    LinkError,
    PositionError,
    ReplyTimeout,
    StallError,
)
from cartoseq.drivers.limits import check_within
from cartoseq.drivers.motion import come_to_rest
from cartoseq.drivers.stops import Actions
from cartoseq.drivers.transport import Transport
from cartoseq.streaming.errors import InputError

PORTS: Final = {"input": "I", "output": "O", "bypass": "B"}

_POLL_S: Final = 0.05
#: A long stroke is looked at so often, so that a stall is known before its end.
_LOOK_S: Final = 5.0
#: A stroke may take so much longer than its computed time, and so many seconds on top, for ramps.
_SLACK: Final = 1.25
_MARGIN_S: Final = 3.0
_VALVE: Final[dict[DialectName, re.Pattern[str]]] = {
    "cavro": re.compile(r"[IOBE]|[IO][1-9][0-9]?"),
    "kloehn": re.compile(r"[IOB]"),
}
_INITIALIZE: Final = re.compile(r"([IOBE][0-9]*)?[ZYW][0-9,]*")
_NUMBER: Final = r"-?[0-9]{1,9}"


class CavroPump:
    """A syringe pump.

    Args:
        transport: The line; pumps with different switches may share it. With OEM framing it has no probe, since a
            probe between a command and its repeat would make the pump run the repeat.
        name: The device's name in messages.
        barrel_ul: What the syringe holds at full stroke; of all barrels together where one plunger moves several.
        switch: The address switch, 0 to 14.
        framing: As the pump is set: "dt" or "oem".
        dialect: Whose pump it is: "cavro" or "kloehn".
        repeats: Whose scheme of OEM sequence bytes it follows; the dialect's if not given.
        steps_per_stroke: Steps of the position in a full stroke: 3000 (XP 3000, XCalibur), 6000 (XLP), 24000 or 48000
            with `step_mode` 1; 48000 in the HiSeq's Kloehn pumps.
        half_steps_per_stroke: Units of the speed in a full stroke; 6000 for Cavro, `steps_per_stroke` for Kloehn if
            not given.
        step_mode: Cavro's ``N``, set when opened and initialised: 0 normal, 1 fine; left as it is if not given.
        ports: The valve command for each port name: ``I``, ``O``, ``B``, ``E`` of a three-way valve; of a
            distribution valve ``I3`` (clockwise to port 3), ``O3`` (counter-clockwise), or just ``3`` for ``I3``.
        initialize: The command that finds the plunger's zero; ``Z`` or ``W4`` if not given. It may begin with a valve
            command: ``OW4``.
        initialize_s: How long that may take.
        valve_s: How long the valve may take; Kloehn's recovers from stalls by itself, which takes longer.
        max_flow_ul_per_s: A limit below the pump's own, such as the tubing's.
        reply_s: How long an answer may take.

    Raises:
        InputError: a setting is none that the pump could have.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        barrel_ul: float,
        switch: int = 0,
        framing: Framing = "dt",
        dialect: DialectName = "cavro",
        repeats: DialectName | None = None,
        steps_per_stroke: int = 3000,
        half_steps_per_stroke: int | None = None,
        step_mode: int | None = None,
        ports: Mapping[str, str | int] = PORTS,
        initialize: str | None = None,
        initialize_s: float = 60.0,
        valve_s: float = 10.0,
        max_flow_ul_per_s: float = math.inf,
        reply_s: float = 0.5,
    ) -> None:
        self.name = name
        self.barrel_ul = barrel_ul
        self._transport = transport
        self._switch = switch
        self._framing = framing
        self._line = CavroLine(
            transport,
            name,
            switch=switch,
            framing=framing,
            dialect=dialect,
            repeats=repeats or dialect,
            reply_s=reply_s,
        )
        self._dialect = self._line.dialect
        self._steps = steps_per_stroke
        self._speed_units = half_steps_per_stroke or self._dialect.half_steps_per_stroke or steps_per_stroke
        self._step_mode = step_mode
        self._valves = {port: f"I{text}" if str(text).isdecimal() else str(text) for port, text in ports.items()}
        self._initialize = initialize or self._dialect.initialize
        self._initialize_s = initialize_s
        self._valve_s = valve_s
        speeds = self._dialect.speeds
        per_unit_ul = barrel_ul / self._speed_units if self._speed_units > 0 else math.nan
        self.flow_ul_per_s = Range(speeds.low * per_unit_ul, min(speeds.high * per_unit_ul, max_flow_ul_per_s))
        self._initialized = False
        # Unlike a move of `Motion`, a stroke whose line fails is not halted: after a halt the pump must be initialised,
        # and the stroke may not have begun.
        self._actions = Actions(name, one_at_a_time=True, abandon=self._halt, remedy=REINITIALIZE)
        self._check_settings(dialect)

    def _check_settings(self, dialect: DialectName) -> None:
        wrong = ""
        if not (math.isfinite(self.barrel_ul) and self.barrel_ul > 0):
            wrong = f"barrel_ul is {self.barrel_ul}, expected a volume above 0"
        elif not 0 <= self._switch <= codec.HIGHEST_SWITCH:
            wrong = f"switch is {self._switch}, expected 0 to {codec.HIGHEST_SWITCH}"
        elif min(self._steps, self._speed_units) <= 0:
            wrong = "a full stroke has no steps"
        elif not self.flow_ul_per_s.low <= self.flow_ul_per_s.high:
            wrong = f"max_flow_ul_per_s is below {self.flow_ul_per_s.low:.3g}, the least flow of the pump"
        elif not _INITIALIZE.fullmatch(self._initialize):
            wrong = f"initialize is {self._initialize!r}, expected Z, Y or W with operands"
        elif self._step_mode not in (None, 0, 1) or (self._step_mode is not None and dialect != "cavro"):
            wrong = f"step_mode is {self._step_mode}, expected 0 or 1, of a Cavro pump"
        for port, valve in self._valves.items():
            if not _VALVE[dialect].fullmatch(valve):
                wrong = f"port {port} is {valve!r}, which is no valve command of a {self._dialect.maker} pump"
        if wrong:
            raise InputError(self.name, wrong)

    # -------------------------------------------------------------------------------------------------- every device

    async def open(self) -> Identity:
        """Connect, identify, and hold that dialect and steps are the pump's; strokes wait for `initialize`.

        Raises:
            LinkError: nobody answers.
            DeviceFault: it is not the pump that is configured.
            InputError: the line has a probe, which OEM framing does not bear.
        """
        if self._framing == "oem" and self._transport.probe is not None:
            raise InputError(self.name, "the line has a probe, expected none with OEM framing")
        async with self._transport.opening():
            try:
                return await self._identify()
            except ReplyTimeout as error:
                raise ReplyTimeout(
                    self.name,
                    error.problem,
                    remedy="Check its power, its cable, its baud rate, its address switch "
                    f"(expected {self._switch:X}), and whether it is set to {self._framing.upper()} framing.",
                    wire=error.wire,
                ) from error

    async def _identify(self) -> Identity:
        self._initialized = False
        firmware = await self._line.identify()
        if not firmware:
            raise self._not_ours("it tells no firmware")
        model = "syringe pump"
        if self._dialect is codec.DIALECTS["kloehn"]:
            protocol = (await self._line.ask("~P", ".*")).data
            if protocol.strip() not in ("1", "2"):
                raise self._not_ours(f"it answers the query ~P with {protocol!r}")
        else:
            model = (await self._line.ask("?76", ".*")).data.strip() or model
        await self._set_step_mode()
        position = await self._position()
        if not 0 <= position <= self._steps:
            raise self._not_ours(f"its plunger stands at step {position} of {self._steps}")
        self._line.held_error = 0
        return Identity(self._dialect.maker, model, firmware=firmware.strip(), notice=NOTICE)

    async def close(self) -> None:
        """Let go of the line."""
        await self._transport.close()

    async def make_safe(self) -> None:
        """Stop the plunger: see `stop`."""
        await self.stop()

    async def read_faults(self) -> list[Fault]:
        """The error that the pump holds."""
        error = (await self._line.ask("Q")).error or self._line.held_error
        return [Fault(str(error), self._line.text(error))] if error else []

    async def clear_faults(self) -> None:
        """Forget errors that the pump tells once; the others end with `initialize`."""
        await self._line.ask("Q")
        self._line.held_error = 0

    # --------------------------------------------------------------------------------------------------- the capability

    async def initialize(self) -> None:
        """Find the plunger's zero.

        Raises:
            DeviceFault: it failed, or took longer than `initialize_s`.
            Busy: the pump is at work.
            Stopped: it was stopped meanwhile.
        """
        await self._actions.do(self._find_zero())

    async def plunger_ul(self) -> float:
        """Volume in the barrel, as the plunger's place tells it; also while it moves."""
        return await self._position() * self.barrel_ul / self._steps

    async def aspirate(self, volume_ul: float, port: str, flow_ul_per_s: float) -> None:
        """Draw a volume in through a port; the flow is rounded to the nearest whole speed of the pump.

        Raises:
            LimitError: there is no such port, flow, or room in the barrel; nothing was moved.
            NotInitialized: it was not initialised since it was opened or stopped.
            StallError: the plunger stopped short.
            PositionError: the plunger is somewhere else.
            LinkError: the line failed; the message tells where the plunger is, if that could be asked.
            Busy: the pump is at work.
            Stopped: it was stopped meanwhile.
        """
        await self._stroke(volume_ul, port, flow_ul_per_s, 1)

    async def dispense(self, volume_ul: float, port: str, flow_ul_per_s: float) -> None:
        """Push a volume out through a port; raises what `aspirate` does."""
        await self._stroke(volume_ul, port, flow_ul_per_s, -1)

    async def turn_valve(self, port: str) -> None:
        """Turn the pump's valve to a port, without a stroke.

        Raises:
            LimitError: there is no such port.
            DeviceFault: the valve failed.
            Busy: the pump is at work.
            Stopped: it was stopped meanwhile.
        """
        await self._actions.do(self._turn(self._valve(port)))

    async def stop(self) -> None:
        """Stop the plunger at once; a turn of the valve is finished. Strokes wait for `initialize` then.

        Raises:
            LinkError: it cannot be told, or asked.
            DeviceFault: it goes on.
        """
        self._actions.stop()
        self._halt()
        await come_to_rest(self.name, self._is_at_work, self._halt, self._valve_s)

    # ----------------------------------------------------------------------------------------------------- the actions

    def _halt(self) -> None:
        """Write the stop. Raises `Disconnected`."""
        self._initialized = False
        self._line.halt()

    async def _is_at_work(self) -> bool:
        return not (await self._line.ask("Q")).ready

    async def _find_zero(self) -> None:
        self._initialized = False
        await self._must_be_ready()
        error = await self._line.order_again(f"{self._initialize}R")
        if error not in self._dialect.uninitialized:  # those are what it is to end
            self._check(error)
        self._check(await self._until_ready(0.0, self._initialize_s, "to find its zero"))
        await self._set_step_mode()
        self._line.held_error = 0
        position = await self._position()
        if position > self._tolerance:
            raise PositionError(
                self.name,
                "position",
                f"stands at step {position} after it was initialised",
                wire=self._transport.dump(),
            )
        self._initialized = True

    async def _turn(self, valve: str) -> None:
        await self._must_be_ready()
        self._check(await self._line.order_again(f"{valve}R"))
        error = await self._until_ready(0.0, self._valve_s, "to turn its valve")
        self._check(error or self._line.held_error)

    async def _stroke(self, volume_ul: float, port: str, flow_ul_per_s: float, direction: int) -> None:
        valve = self._valve(port)
        if valve == "B":
            raise LimitError(self.name, f"port {port} is the bypass, through which no stroke can go")
        if not (math.isfinite(volume_ul) and 0 < volume_ul <= self.barrel_ul):
            raise LimitError(self.name, f"a stroke of {volume_ul:g} ul does not fit a barrel of {self.barrel_ul:g} ul")
        check_within(self.name, "flow", flow_ul_per_s, self.flow_ul_per_s, "ul/s")
        steps = round(volume_ul / self.barrel_ul * self._steps)
        if steps == 0:
            raise LimitError(self.name, f"{volume_ul:g} ul is less than half a step of its plunger")
        if not self._initialized:
            raise self._line.fault(codec.NOT_INITIALIZED)
        speed = round(flow_ul_per_s * self._speed_units / self.barrel_ul)
        await self._actions.do(self._move_by(direction * steps, valve, speed))

    async def _move_by(self, steps: int, valve: str, speed: int) -> None:
        await self._must_be_ready()
        start = await self._position()
        target = start + steps
        if not 0 <= target <= self._steps:
            per_step_ul = self.barrel_ul / self._steps
            raise LimitError(
                self.name,
                f"a stroke of {steps * per_step_ul:+g} ul does not fit: {start * per_step_ul:g} ul of "
                f"{self.barrel_ul:g} ul are in the barrel",
                remedy="Nothing was moved.",
            )
        try:
            error = await self._line.order(f"V{speed}{valve}A{target}R")
        except Disconnected:
            raise
        except LinkError as failure:
            await self._ask_whether_begun(start, failure)
        else:
            self._check(error)
        travel_s = abs(steps) / self._steps * self._speed_units / speed
        allowed_s = _SLACK * travel_s + self._valve_s + _MARGIN_S
        self._check(await self._until_ready(travel_s, allowed_s, "for a stroke") or self._line.held_error)
        self._check_arrival(start, target, await self._position())

    async def _ask_whether_begun(self, start: int, failure: LinkError) -> None:
        """Return where a stroke runs or has run, though the line failed."""
        state = await self._line.ask("Q")
        if not state.ready:
            return
        self._check(state.error or self._line.held_error)
        if await self._position() == start:
            held_ul = start * self.barrel_ul / self._steps
            raise type(failure)(
                self.name,
                f"the stroke did not begin, {held_ul:g} ul are in the barrel: {failure.problem}",
                remedy=failure.remedy,
                wire=self._transport.dump(),
            ) from failure

    def _check_arrival(self, start: int, target: int, found: int) -> None:
        if abs(found - target) <= self._tolerance:
            return
        self._initialized = False
        kind = StallError if min(start, target) <= found <= max(start, target) else PositionError
        per_step_ul = self.barrel_ul / self._steps
        raise kind(
            self.name,
            "position",
            f"the plunger stands at {found * per_step_ul:g} ul after a stroke from {start * per_step_ul:g} to "
            f"{target * per_step_ul:g} ul",
            remedy=REINITIALIZE,
            wire=self._transport.dump(),
        )

    async def _must_be_ready(self) -> None:
        state = await self._line.ask("Q")
        if not state.ready:
            raise Busy(self.name, "is at work", remedy="Wait until it has ended, or stop it.")
        if self._initialized and state.error in self._dialect.uninitialized:
            self._check(state.error)

    async def _until_ready(self, expected_s: float, allowed_s: float, what: str) -> int:
        """Return the pump's error once it is at rest; a line that fails meanwhile is borne until the deadline."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        while True:
            ahead_s = begun_s + expected_s - loop.time()
            await asyncio.sleep(min(_LOOK_S, max(_POLL_S, ahead_s)))
            late = loop.time() - begun_s > allowed_s
            try:
                state = await self._line.ask("Q")
            except LinkError as error:
                if late or isinstance(error, Disconnected):
                    raise
                continue
            if state.ready:
                return state.error
            if late:
                self._halt()
                raise DeviceFault(
                    self.name,
                    "busy",
                    f"still at work after {loop.time() - begun_s:.3g} s, though it may take {allowed_s:.3g} s {what}",
                    remedy="Check its syringe and valve, and the steps and speeds in the instrument file.",
                    wire=self._transport.dump(),
                )

    async def _set_step_mode(self) -> None:
        if self._step_mode is not None and (await self._line.ask("Q")).ready:
            error = await self._line.order_again(f"N{self._step_mode}R")
            if error not in self._dialect.uninitialized:
                self._check(error)
            await self._until_ready(0.0, _MARGIN_S, "to set its step mode")

    async def _position(self) -> int:
        """Return the plunger's place in steps."""
        answer = await self._line.ask("?", _NUMBER)
        if not answer.data:
            self._check(answer.error)
        return int(answer.data)

    def _valve(self, port: str) -> str:
        try:
            return self._valves[port]
        except KeyError:
            raise LimitError(self.name, f"has no port {port!r}, its ports are {', '.join(self._valves)}") from None

    @property
    def _tolerance(self) -> int:
        return max(1, self._steps // 1000)

    def _check(self, error: int) -> None:
        """Raise what an error number stands for; 0 is none."""
        if error:
            self._line.held_error = 0
            if error in self._dialect.uninitialized:
                self._initialized = False
            raise self._line.fault(error)

    def _not_ours(self, why: str) -> DeviceFault:
        return DeviceFault(
            self.name,
            "identity",
            f"is not the {self._dialect.maker} pump that is configured: {why}",
            remedy="Check its address switch, and dialect, framing and steps_per_stroke in the instrument file.",
            wire=self._transport.dump(),
        )
