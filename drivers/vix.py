"""Parker ViX servo drive: the Y axis of a HiSeq 2500.

ASCII, 9600 baud. A command begins with the axis address and ends with ``<CR>``, without spaces. Reports begin with
``*`` and end with ``<CR>``; ``*E`` is an error, which ``R(UF)`` explains. The driver sets ``EX`` to 0: the drive speaks
when it is spoken to and echoes nothing. Status words are printed with bit 1 first: ``*0000_0000_...``.

While it moves, only ``S``, ``R(ST)`` and the reports of faults are served at once; whatever else is asked waits for the
end of the move. So its state is read from ``R(ST)``, and its position (``R(PA)``) at rest only.

A move sets the target (``D``), reads it back (``R(PT)``) and goes (``G``): in absolute mode, going twice is going once.

Sources: the drive's manual; pyseq2501 and PySeq2500 as clients. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import Final, TypeVar

from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.errors import Busy, DeviceFault, NotInitialized, OverTemperature, StallError
from cartoseq.drivers.limits import check_within
from cartoseq.drivers.motion import (
    SEARCH_POLL_S,
    Motion,
    await_rest,
    check_arrival,
    travel_s,
)
from cartoseq.drivers.transport import Probe, Transport, is_understood, lines
from cartoseq.streaming.errors import InputError

T = TypeVar("T")

STEPS_PER_UM: Final = 100
TRAVEL_UM: Final = Range(-70_000, 75_000)
IMAGING_GAINS: Final = (5.0, 10.0, 5.0, 2.0, 0.0)
STATUS: Final = {13: "lower limit reached", 14: "upper limit reached", 16: "current limited (I2t)"}
DRIVE_FAULTS: Final = {
    3: "supply voltage too low",
    4: "supply voltage too high",
    11: "drive too hot",
    12: "motor too hot",
    13: "too hot",
    17: "current too high",
    18: "current too high",
    19: "position error too large",
    21: "drive disabled",
}
USER_FAULTS: Final = {
    1: "value out of range",
    2: "unknown command",
    6: "homing failed",
    8: "motor not energised",
    13: "end of travel",
    14: "still moving",
}

_ENERGISED: Final = 9
_MOVING: Final = 19
_IN_POSITION: Final = 20
_HOT: Final = range(11, 14)
_TRACKING: Final = 19
_REPLY_S: Final = 0.5
_TRIES: Final = 3
_SETTLE_S: Final = 0.5
_SLOW_DOWN_S: Final = 1.0
_SETTLE_POLL_S: Final = 0.02
_FRAME: Final = lines(b"\r")


def parse_integer(frame: bytes) -> int:
    """Read ``*+0`` or ``*-1200``. Raises `ValueError` for anything else."""
    return int(_report(rb"([-+]?\d{1,12})", frame))


def parse_bits(frame: bytes) -> frozenset[int]:
    """Read which bits are set, from 1, in ``*0000_1000_...``. Raises `ValueError` for anything else."""
    digits = _report(rb"([01]{4}(?:_[01]{4}){0,7})", frame).replace("_", "")
    return frozenset(bit for bit, digit in enumerate(digits, 1) if digit == "1")


def is_error(frame: bytes) -> bool:
    """Whether it is ``*E``."""
    return re.search(rb"\*E\s*$", frame) is not None


def _report(pattern: bytes, frame: bytes) -> str:
    # An echo, or a byte of noise, may come before it.
    found = re.search(rb"\*" + pattern + rb"\s*$", frame)
    if found is None:
        raise ValueError(f"{frame!r} is no such report")
    return found[1].decode("ascii")


class VixAxis:
    """One axis. Its origin is home.

    Args:
        transport: The line.
        name: Of the device, in messages.
        axis: What the axis is called in messages.
        limits_um: Allowed travel.
        travel_um_per_rev: Travel of the stage for one turn of the motor: gives the time that a move may take.
        speed_rps: Speed of the motor, in turns a second.
        gains: Feed-forward, integral, proportional, velocity and filter gain; none leaves them as they are.
        address: Of the drive on its line.
        steps_per_um: Counts of the encoder for a micrometre.
        tolerance_um: How far from its target it may come to rest.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        travel_um_per_rev: float,
        axis: str = "Y",
        limits_um: Range = TRAVEL_UM,
        speed_rps: float = 1.0,
        gains: tuple[float, float, float, float, float] | None = IMAGING_GAINS,
        address: int = 1,
        steps_per_um: float = STEPS_PER_UM,
        tolerance_um: float = 1.0,
    ) -> None:
        if not (travel_um_per_rev > 0 and speed_rps > 0):
            raise InputError(name, "travel_um_per_rev and speed_rps must be above 0")
        self.name = name
        self.limits_um = limits_um
        self._axis = axis
        self._transport = transport
        self._travel_um_per_rev = travel_um_per_rev
        self._speed_rps = speed_rps
        self._gains = gains
        self._address = address
        self._steps_per_um = steps_per_um
        self._tolerance_um = tolerance_um
        self._homed = False
        self._motion = Motion(name, self._halt, self._is_moving)
        if transport.probe is None:
            transport.probe = Probe(self._command("R(ST)"), _FRAME, lambda frame: is_understood(parse_bits, frame))

    async def open(self) -> Identity:
        """Connect, choose silence and absolute moves, set speed and gains, and switch the motor on.

        Raises:
            DeviceFault: another device answers, or the motor is not energised.
            LinkError: nothing answers.
        """
        async with self._transport.opening("a ViX drive"):
            await self._set_up()
        return Identity("Parker", "ViX", notice=NOTICE)

    async def close(self) -> None:
        """Let go of the line."""
        await self._transport.close()

    async def set_speed_rps(self, speed_rps: float) -> None:
        """Set the speed of the next moves, in turns of the motor a second: 1 to 1.5 to move, 0.154 to image."""
        if not (math.isfinite(speed_rps) and speed_rps > 0):
            raise InputError(self.name, f"a speed of {speed_rps} turns a second is none")
        await self._transport.send(self._command(f"V{speed_rps:g}"))
        self._speed_rps = speed_rps

    async def set_gains(self, gains: tuple[float, float, float, float, float]) -> None:
        """Set feed-forward, integral, proportional, velocity and filter gain."""
        self._gains = gains
        await self._transport.send(self._command(f"GAINS({','.join(f'{gain:g}' for gain in gains)})"))

    async def home(self) -> None:
        """Set it up anew, find home, and hold that it was found.

        Raises:
            NotInitialized: it was not.
            Stopped: a stop ended it.
        """
        await self._motion.run(self._find_home())

    async def position_um(self) -> float:
        """Where it is. Raises `Busy` while it moves: it would answer at the end of the move only."""
        if await self._is_moving():
            raise Busy(self.name, f"{self._axis} tells its position at rest only", remedy="Await the move.")
        return await self._place_um()

    async def move_to_um(self, y_um: float) -> None:
        """Move and return when it is at rest at the target.

        Raises:
            LimitError: the target is outside the travel; nothing was sent.
            NotInitialized: it must be homed first.
            StallError: it stopped short of the target.
            PositionError: it is somewhere else.
            OverTemperature: the drive or its motor is too hot.
            Stopped: a stop ended it.
            Busy: it moves already.
        """
        self.check(y_um)
        await self._motion.run(self._move(y_um))

    def check(self, y_um: float) -> None:
        """Hold that a target is within the limits. Raises `LimitError` if it is not."""
        check_within(self.name, self._axis, y_um, self.limits_um)

    async def stop(self) -> None:
        """Stop at once, slowing down, and return when it is at rest."""
        await self._motion.stop(_SLOW_DOWN_S)

    async def make_safe(self) -> None:
        """Stop."""
        await self.stop()

    async def read_faults(self) -> list[Fault]:
        """What status, drive faults and user faults tell; reading the user faults clears them in the drive."""
        faults = []
        for word, meanings in (("ST", STATUS), ("DF", DRIVE_FAULTS), ("UF", USER_FAULTS)):
            bits = await self._report(f"R({word})", parse_bits)
            faults += [
                Fault(f"{word}{bit}", f"{self._axis}: {meanings[bit]}") for bit in sorted(bits & meanings.keys())
            ]
        return faults

    async def clear_faults(self) -> None:
        """Clear what can be cleared, and energise the motor; home it again if it had lost its place."""
        await self._transport.send(self._command("ON"))
        await self._report("R(UF)", parse_bits)

    async def _set_up(self) -> None:
        await self._transport.send(self._command("W(EX,0)"))
        self._transport.doubt()  # what it echoed so far is passed over
        await self._motion.rest(_SLOW_DOWN_S)
        for command in ("MA", "ON", f"V{self._speed_rps:g}"):
            await self._transport.send(self._command(command))
        if self._gains is not None:
            await self.set_gains(self._gains)
        await self._hold_energised()

    async def _report(self, command: str, parse: Callable[[bytes], T]) -> T:
        frame = await self._transport.exchange(
            self._command(command),
            _FRAME,
            timeout_s=_REPLY_S,
            accept=lambda frame: is_error(frame) or is_understood(parse, frame),
            tries=_TRIES,
        )
        if not is_error(frame):
            return parse(frame)
        if command != "R(UF)":
            bits = await self._report("R(UF)", parse_bits)
            texts = [USER_FAULTS.get(bit, f"user fault {bit}") for bit in sorted(bits)]
            raise DeviceFault(
                self.name,
                "*E",
                f"{command} was refused: {', '.join(texts) or 'no fault is named'}",
                wire=self._transport.dump(),
            )
        raise DeviceFault(self.name, "*E", "the report of its faults was refused", wire=self._transport.dump())

    async def _is_moving(self) -> bool:
        return _MOVING in await self._report("R(ST)", parse_bits)

    async def _place_um(self) -> float:
        return await self._report("R(PA)", parse_integer) / self._steps_per_um

    def _halt(self) -> None:
        self._transport.interrupt(self._command("S"))

    def _command(self, command: str) -> bytes:
        return f"{self._address}{command}\r".encode("ascii")

    async def _hold_energised(self) -> None:
        if _ENERGISED not in await self._report("R(ST)", parse_bits):
            self._homed = False  # it was switched off, or has tripped
            await self._raise_fault(f"{self._axis}: the motor is not energised")
            raise NotInitialized(
                self.name,
                f"ST{_ENERGISED}",
                f"{self._axis}: the motor is not energised",
                remedy="Clear its faults and home it.",
                wire=self._transport.dump(),
            )

    async def _raise_fault(self, what: str) -> None:
        """Raise what the drive itself complains of, if anything."""
        faults = await self.read_faults()
        if not faults:
            return
        codes = {fault.code for fault in faults}
        kind: type[DeviceFault] = DeviceFault
        if codes & {f"DF{bit}" for bit in _HOT}:
            kind = OverTemperature
        elif f"DF{_TRACKING}" in codes:
            kind = StallError
        raise kind(
            self.name,
            ", ".join(fault.code for fault in faults),
            f"{what}; the drive says: {', '.join(fault.text for fault in faults)}",
            remedy="Remove the cause, clear the faults, and home it.",
            wire=self._transport.dump(),
        )

    async def _move(self, target_um: float) -> None:
        await self._hold_energised()
        if not self._homed:
            raise NotInitialized(
                self.name, "home", f"{self._axis} was not homed since it was opened", remedy="Home it first."
            )
        start_um = await self.position_um()
        await self._set_target(round(target_um * self._steps_per_um))
        await self._transport.send(self._command("G"))
        expected_s = travel_s(target_um - start_um, self._speed_rps * self._travel_um_per_rev, math.inf)
        await await_rest(self.name, self._is_moving, self._halt, expected_s)
        found_um = await self._settled_um()
        if abs(found_um - target_um) > self._tolerance_um:
            await self._raise_fault(f"{self._axis} came to rest at {found_um:.2f} um instead of {target_um:.2f} um")
        check_arrival(self.name, self._axis, start_um, target_um, found_um, self._tolerance_um, self._transport.dump())

    async def _set_target(self, steps: int) -> None:
        for _ in range(_TRIES):
            await self._transport.send(self._command(f"D{steps}"))
            if (found := await self._report("R(PT)", parse_integer)) == steps:
                return
        raise DeviceFault(
            self.name,
            "PT",
            f"{self._axis}: the target was set to {steps} and reads {found}",
            wire=self._transport.dump(),
        )

    async def _settled_um(self) -> float:
        """Where it is once the servo has settled, or has had its time to."""
        loop = asyncio.get_running_loop()
        limit_s = loop.time() + _SETTLE_S
        while _IN_POSITION not in await self._report("R(ST)", parse_bits) and loop.time() < limit_s:
            await asyncio.sleep(_SETTLE_POLL_S)
        return await self._place_um()

    async def _find_home(self) -> None:
        self._homed = False
        await self._set_up()
        await self._transport.send(self._command("GH"))
        span_um = self.limits_um.high - self.limits_um.low
        expected_s = travel_s(2 * span_um, self._speed_rps * self._travel_um_per_rev, math.inf)
        await await_rest(self.name, self._is_moving, self._halt, expected_s, poll_from_start_s=SEARCH_POLL_S)
        found_um = await self._settled_um()
        faults = await self.read_faults()
        if abs(found_um) > self._tolerance_um or any(fault.code == "UF6" for fault in faults):
            raise NotInitialized(
                self.name,
                "home",
                f"{self._axis} did not find home; it is at {found_um:.2f} um"
                + "".join(f"; {fault.text}" for fault in faults),
                remedy="Check the home switch and the way to it.",
                wire=self._transport.dump(),
            )
        self._homed = True
