"""The FPGA of a HiSeq 2500: objective, tilt motors, the trigger of the line cameras, filters, shutter and lamps.

Two serial ports at 115200 baud: one takes commands, which end with ``<LF>``, the other gives answers, which end with
``<CR><LF>`` (`cartoseq.drivers.links.paired` makes one line of them). A command is acknowledged by its own name, with a
number where one was asked for. Lines that begin with ``@`` are said unasked and are passed over.

==================  ===============================================================================================
objective           0..65535, 262 steps/um: ``ZMV n``, ``ZADCR``; ``ZSTEP int(1288471 * mm/s)`` is its speed
tilt motors 1 to 3  0..25000, 0.656 steps/um: ``T1HM``, ``T1MOVETO n``, ``T1RD``
camera trigger      encoder of Y plus 7,000,000: ``TDIYERD``, ``TDIYEWR n``, ``TDIYPOS n``, ``TDIYARM3 lines n 1``
focus sweep         ``ZTRG n``, ``ZYT 0 3``
optics              ``EX1HM``, ``EX1MV n`` (filter wheel), ``EM2I``, ``EM2O`` (filter), ``SWLSRSHUT 0|1`` (shutter)
==================  ===============================================================================================

Sources: pyseq2501 and PySeq2500 as clients. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Final, Literal

from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.errors import Busy, DeviceFault, LimitError, NotInitialized
from cartoseq.drivers.limits import check_within, common_range
from cartoseq.drivers.motion import (
    POLL_S,
    SEARCH_POLL_S,
    Motion,
    await_rest,
    begin,
    check_arrival,
    travel_s,
)
from cartoseq.drivers.transport import Accept, Probe, Transport, is_understood, lines
from cartoseq.streaming.errors import InputError

OBJECTIVE_STEPS_PER_UM: Final = 262
OBJECTIVE_STEPS: Final = Range(0, 65_535)
OBJECTIVE_UM: Final = Range(0, 65_535 / OBJECTIVE_STEPS_PER_UM)
TILT_STEPS_PER_UM: Final = 0.656
TILT_STEPS: Final = Range(0, 25_000)
TILT_UM: Final = Range(0, 25_000 / TILT_STEPS_PER_UM)
ENCODER_OFFSET: Final = 7_000_000
LINES_A_BUNDLE: Final = 128
#: Of a filter wheel, from open to blocked.
WHEEL_POSITIONS: Final = (143, 107, 71, 36, -36, -71, -107, 0)
LED_MODES: Final = range(8)

_SPEED_UNITS: Final = 1_288_471
_TRIGGER_LEAD: Final = 80_000
_ARM_LEAD: Final = 10_000
_IN_PROGRESS: Final = "Command already in progress"
_FRAME: Final = lines(b"\r\n")
_REPLY_S: Final = 0.5
_STEADY: Final = 10
_RESET_S: Final = 2.0
_WHEEL_S: Final = 5.0
_TRIES: Final = 3


def parse_answer(frame: bytes, command: str) -> list[int] | None:
    """Read the numbers that follow a command's name; nothing where a tilt motor is at work already.

    Raises:
        ValueError: it is no answer to this command.
    """
    text = frame.decode("latin-1").strip()
    if text == _IN_PROGRESS:
        return None
    name, *numbers = text.split() or [""]
    if name != command.split()[0]:
        raise ValueError(f"{text!r} does not answer {command}")
    return [int(number) for number in numbers]


def speed_units(speed_mm_per_s: float) -> int:
    """Return the objective's speed as ``ZSTEP`` takes it."""
    return int(_SPEED_UNITS * speed_mm_per_s)


def _answers(command: str) -> Accept:
    return lambda frame: is_understood(partial(parse_answer, command=command), frame)


class HiSeqFpga:
    """The FPGA; all that use one share this object, and the first that opens it resets it.

    Args:
        transport: The line of both ports.
        name: Of the device, in messages.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self.name = name
        self._transport = transport
        if transport.probe is None:
            transport.probe = Probe(b"TDIYERD\n", _FRAME, _answers("TDIYERD"), _REPLY_S)

    @property
    def transport(self) -> Transport:
        """Its line."""
        return self._transport

    async def open(self) -> Identity:
        """Connect, and reset it unless someone uses it already.

        Raises:
            DeviceFault: another device answers.
            LinkError: nothing answers.
        """
        in_use = self._transport.is_open
        async with self._transport.opening("the FPGA of a HiSeq 2500"):
            await self.ask("TDIYERD" if in_use else "RESET", timeout_s=_RESET_S)
        return Identity("Illumina", "HiSeq 2500 FPGA", notice=NOTICE)

    async def close(self) -> None:
        """Let go of the line."""
        await self._transport.close()

    async def make_safe(self) -> None:
        """Close the laser shutter at once, and hold that it was acknowledged."""
        self._transport.interrupt(b"SWLSRSHUT 0\n")
        await self.ask("SWLSRSHUT 0")

    async def read_faults(self) -> list[Fault]:
        """It tells of none."""
        return []

    async def clear_faults(self) -> None:
        """There are none to clear."""

    async def ask(self, command: str, *, timeout_s: float = _REPLY_S, tries: int = _TRIES) -> list[int]:
        """Send a command and return the numbers of its acknowledgement.

        Raises:
            Busy: a tilt motor is at work already.
            LinkError: it was not acknowledged.
        """
        frame = await self._transport.exchange(
            command.encode("ascii") + b"\n",
            _FRAME,
            timeout_s=timeout_s,
            accept=_answers(command),
            tries=tries,
        )
        numbers = parse_answer(frame, command)
        if numbers is None:
            raise Busy(self.name, f"takes no {command} while that motor moves", remedy="Await its move first.")
        return numbers

    async def number(self, command: str) -> int:
        """Ask for one number."""
        numbers = await self.ask(command)
        if len(numbers) != 1:
            raise DeviceFault(
                self.name, command, f"{command} answered {numbers}, expected one number", wire=self._transport.dump()
            )
        return numbers[0]

    # ------------------------------------------------------------------------------------------- trigger of the cameras

    async def encoder_steps(self) -> int:
        """Where the trigger believes Y to be, in the steps of the Y axis."""
        return await self.number("TDIYERD") - ENCODER_OFFSET

    async def set_encoder(self, y_steps: int) -> None:
        """Tell the trigger where Y is, and hold that it took it."""
        self._check_encoder(y_steps)
        await self.ask(f"TDIYEWR {y_steps + ENCODER_OFFSET}")
        found = await self.encoder_steps()
        if found != y_steps:
            raise DeviceFault(
                self.name, "TDIYEWR", f"the encoder was set to {y_steps} and reads {found}", wire=self._transport.dump()
            )

    async def arm_trigger(self, n_lines: int, y_steps: int) -> None:
        """Make the cameras take so many lines, in bundles of 128, once Y passes a position on its way."""
        self._check_encoder(y_steps)
        if n_lines <= 0 or n_lines % LINES_A_BUNDLE:
            raise LimitError(self.name, f"asked for {n_lines} lines, expected a multiple of {LINES_A_BUNDLE} above 0")
        position = y_steps + ENCODER_OFFSET
        await self.ask(f"TDIYPOS {position - _TRIGGER_LEAD}")
        await self.ask(f"TDIYARM3 {n_lines} {position - _ARM_LEAD} 1")

    async def trigger_pulses(self) -> int:
        """How many lines were triggered."""
        return await self.number("TDIPULSES")

    async def arm_focus_sweep(self, objective_steps: int) -> None:
        """Trigger the cameras while the objective sweeps, from a position on."""
        check_within(self.name, "the objective", objective_steps, OBJECTIVE_STEPS, "steps")
        await self.ask(f"ZTRG {objective_steps}")
        await self.ask("ZYT 0 3")

    # ---------------------------------------------------------------------------------------------------------- optics

    async def set_shutter(self, is_open: bool) -> None:
        """Open or close the laser shutter."""
        await self.ask(f"SWLSRSHUT {int(is_open)}")

    async def home_wheel(self, wheel: Literal[1, 2]) -> None:
        """Find the reference of a filter wheel."""
        await self.ask(f"EX{wheel}HM", timeout_s=_WHEEL_S)

    async def move_wheel(self, wheel: Literal[1, 2], position: int) -> None:
        """Turn a filter wheel to one of `WHEEL_POSITIONS`; 0 is blocked."""
        if position not in WHEEL_POSITIONS:
            raise LimitError(
                self.name, f"filter wheel {wheel} has no position {position}, expected one of {WHEEL_POSITIONS}"
            )
        await self.ask(f"EX{wheel}MV {position}", timeout_s=_WHEEL_S)

    async def set_emission_filter(self, is_in: bool) -> None:
        """Put the emission filter into the light, or take it out."""
        await self.ask("EM2I" if is_in else "EM2O", timeout_s=_WHEEL_S)

    async def set_led_mode(self, led: Literal[1, 2], mode: int) -> None:
        """Choose the mode of a lamp, 0 to 7."""
        if mode not in LED_MODES:
            raise LimitError(self.name, f"lamp {led} has no mode {mode}, expected 0 to 7")
        await self.ask(f"LEDMODE{led} {mode}")

    def _check_encoder(self, y_steps: int) -> None:
        if y_steps - _TRIGGER_LEAD + ENCODER_OFFSET < 0:
            raise LimitError(self.name, f"y is {y_steps} steps, the trigger's positions begin at {-ENCODER_OFFSET}")


class Objective:
    """The objective's axis, in um from its lower end.

    Where it is, is what is measured (``ZADCR``), not what is put out (``ZDACR``). There is no command that stops it: a
    stop sends it to where it was when it was last asked, a few um back.

    Args:
        fpga: The FPGA.
        name: Of the device, in messages.
        limits_um: Allowed travel.
        speed_mm_per_s: Its speed.
        tolerance_um: How far from its target it may come to rest.
    """

    def __init__(
        self,
        fpga: HiSeqFpga,
        name: str,
        *,
        limits_um: Range = OBJECTIVE_UM,
        speed_mm_per_s: float = 1.0,
        tolerance_um: float = 0.1,
    ) -> None:
        if not (math.isfinite(speed_mm_per_s) and speed_units(speed_mm_per_s) > 0):
            raise InputError(name, f"speed_mm_per_s is {speed_mm_per_s}, expected above 0")
        self.name = name
        self.limits_um = common_range(name, "Z", limits_um, OBJECTIVE_UM)
        self._fpga = fpga
        self._speed_mm_per_s = speed_mm_per_s
        self._tolerance_um = tolerance_um
        self._tolerance_steps = round(tolerance_um * OBJECTIVE_STEPS_PER_UM)
        self._last_steps = 0  # where it was when it was last asked
        self._target_steps: int | None = None  # where it is going
        self._steady = 0  # how often it was at the same place, one time after the other
        self._motion = Motion(name, self._halt, self._is_moving)

    async def open(self) -> Identity:
        """Connect, and set its speed."""
        identity = await self._fpga.open()
        try:
            await self._fpga.ask(f"ZSTEP {speed_units(self._speed_mm_per_s)}")
            await self.position_um()
        except BaseException:
            await self._fpga.close()
            raise
        return identity

    async def close(self) -> None:
        """Let go of the line."""
        await self._fpga.close()

    async def position_um(self) -> float:
        """Where it is."""
        self._last_steps = await self._fpga.number("ZADCR")
        return self._last_steps / OBJECTIVE_STEPS_PER_UM

    async def move_to_um(self, z_um: float) -> None:
        """Move and return when it is at the target.

        Raises:
            LimitError: the target is outside the travel; nothing was sent.
            StallError: it came to rest on its way.
            PositionError: it is somewhere else.
            Stopped: a stop ended it.
            Busy: it moves already.
        """
        check_within(self.name, "Z", z_um, self.limits_um)
        await self._motion.run(self._move(z_um))

    async def stop(self) -> None:
        """Send it to where it was last seen, and return when it is there. At rest, nothing is sent."""
        await self._motion.stop(0.1)

    async def make_safe(self) -> None:
        """Stop."""
        await self.stop()

    async def read_faults(self) -> list[Fault]:
        """It tells of none."""
        return []

    async def clear_faults(self) -> None:
        """There are none to clear."""

    def _halt(self) -> None:
        if self._target_steps is not None:
            self._target_steps = self._last_steps
            self._fpga.transport.interrupt(f"ZMV {self._last_steps}\n".encode("ascii"))

    async def _is_moving(self) -> bool:
        """Whether it is on its way: neither at its target, nor at the same place for some time."""
        before = self._last_steps
        await self.position_um()
        if self._target_steps is None:
            return False
        self._steady = self._steady + 1 if abs(self._last_steps - before) <= self._tolerance_steps else 0
        if abs(self._last_steps - self._target_steps) <= self._tolerance_steps or self._steady >= _STEADY:
            self._target_steps = None
        return self._target_steps is not None

    async def _move(self, target_um: float) -> None:
        start_um = await self.position_um()
        steps = round(target_um * OBJECTIVE_STEPS_PER_UM)

        async def has_begun() -> bool:
            before = self._last_steps
            await self.position_um()
            return self._last_steps != before or abs(self._last_steps - steps) <= self._tolerance_steps

        self._target_steps = steps
        self._steady = 0
        await begin(lambda: self._fpga.ask(f"ZMV {steps}", tries=1), has_begun)
        expected_s = travel_s(target_um - start_um, self._speed_mm_per_s * 1000, math.inf)
        await await_rest(self.name, self._is_moving, self._halt, expected_s, poll_from_start_s=POLL_S)
        check_arrival(
            self.name,
            "Z",
            start_um,
            target_um,
            self._last_steps / OBJECTIVE_STEPS_PER_UM,
            self._tolerance_um,
            self._fpga.transport.dump(),
        )


class TiltMotor:
    """One of the three motors that tilt and lift the stage, in um from its home.

    Args:
        fpga: The FPGA.
        name: Of the device, in messages.
        number: Which one.
        limits_um: Allowed travel.
        speed_um_per_s: From which the time that a move may take is computed.
        tolerance_um: How far from its target it may come to rest.
    """

    def __init__(
        self,
        fpga: HiSeqFpga,
        name: str,
        *,
        number: Literal[1, 2, 3],
        limits_um: Range = TILT_UM,
        speed_um_per_s: float = 1000.0,
        tolerance_um: float = 5.0,
    ) -> None:
        if not speed_um_per_s > 0:
            raise InputError(name, f"speed_um_per_s is {speed_um_per_s}, expected above 0")
        self.name = name
        self.limits_um = common_range(name, f"T{number}", limits_um, TILT_UM)
        self._fpga = fpga
        self._axis = f"T{number}"
        self._speed_um_per_s = speed_um_per_s
        self._tolerance_um = tolerance_um
        self._homed = False
        self._last_steps: int | None = None
        self._motion = Motion(name, self._halt, self._is_moving)

    async def open(self) -> Identity:
        """Connect."""
        return await self._fpga.open()

    async def close(self) -> None:
        """Let go of the line."""
        await self._fpga.close()

    async def home(self) -> None:
        """Find home, and hold that it counts from there."""
        await self._motion.run(self._find_home())

    async def position_um(self) -> float:
        """Where it is. Raises `Busy` while it moves."""
        return await self._fpga.number(f"{self._axis}RD") / TILT_STEPS_PER_UM

    async def move_to_um(self, z_um: float) -> None:
        """Move and return when it is at rest at the target.

        Raises:
            LimitError: the target is outside the travel; nothing was sent.
            NotInitialized: it must be homed first.
            StallError: it stopped short of the target.
            PositionError: it is somewhere else.
            Stopped: its task was ended by a stop; see there.
            Busy: it moves already.
        """
        check_within(self.name, self._axis, z_um, self.limits_um)
        await self._motion.run(self._move(z_um))

    async def stop(self) -> None:
        """End the task that awaits a move, and return when the motor rests.

        The FPGA has no command that stops a tilt motor: it goes on to its target, which lies within the limits.
        """
        await self._motion.stop((self.limits_um.high - self.limits_um.low) / self._speed_um_per_s)

    async def make_safe(self) -> None:
        """Await that it rests."""
        await self.stop()

    async def read_faults(self) -> list[Fault]:
        """It tells of none."""
        return []

    async def clear_faults(self) -> None:
        """There are none to clear."""

    def _halt(self) -> None:
        self._last_steps = None  # there is nothing to send: whether it rests must be asked anew

    async def _is_moving(self) -> bool:
        """Whether it refuses to answer, or answers differently than it did before."""
        try:
            steps = await self._fpga.number(f"{self._axis}RD")
        except Busy:
            self._last_steps = None
            return True
        last, self._last_steps = self._last_steps, steps
        return steps != last

    async def _move(self, target_um: float) -> None:
        if not self._homed:
            raise NotInitialized(
                self.name, "home", f"{self._axis} was not homed since it was opened", remedy="Home it first."
            )
        start_um = await self.position_um()
        self._last_steps = None

        async def has_begun() -> bool:
            try:
                found_um = await self.position_um()
                return found_um != start_um or abs(found_um - target_um) <= self._tolerance_um
            except Busy:
                return True

        steps = round(target_um * TILT_STEPS_PER_UM)
        await begin(lambda: self._fpga.ask(f"{self._axis}MOVETO {steps}", tries=1), has_begun)
        expected_s = travel_s(target_um - start_um, self._speed_um_per_s, math.inf)
        await await_rest(self.name, self._is_moving, self._halt, expected_s)
        found_um = await self.position_um()
        check_arrival(
            self.name, self._axis, start_um, target_um, found_um, self._tolerance_um, self._fpga.transport.dump()
        )

    async def _find_home(self) -> None:
        self._homed = False
        self._last_steps = None
        await self._fpga.ask(f"{self._axis}HM", tries=1)
        expected_s = travel_s(TILT_UM.high, self._speed_um_per_s, math.inf)
        await asyncio.sleep(0.1)  # it may not stir at once
        await await_rest(self.name, self._is_moving, self._halt, expected_s, poll_from_start_s=SEARCH_POLL_S)
        found_um = await self.position_um()
        if abs(found_um) > self._tolerance_um:
            raise NotInitialized(
                self.name,
                "home",
                f"{self._axis} did not find home; it is at {found_um:.1f} um",
                remedy="Check the home switch and the way to it.",
                wire=self._fpga.transport.dump(),
            )
        self._homed = True
