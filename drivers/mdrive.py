"""IMS/Schneider MDrive with MCode: the X axis of a HiSeq 2500.

ASCII, 9600 baud; a command ends with ``<CR>``. In echo mode 2, which the driver sets, only ``PR`` answers, with the
value and ``<CR><LF>``; in any other mode echoes and prompts come as well and are passed over. ``MA n`` moves to a count
of the encoder, ``PR MV`` tells whether it moves, ``PR P`` where it is, ``PR ER`` the last error. ESC stops without
slowing down.

Homing is a program in the drive: it looks for the switch and then sets the count. A drive that was switched on anew
counts from 0, which is outside the travel: then it must be homed.

Sources: the drive's MCode manual; pyseq2501 and PySeq2500 as clients. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.errors import DeviceFault, NotInitialized, StallError
from cartoseq.drivers.limits import check_within, common_range
from cartoseq.drivers.motion import (
    MARGIN_S,
    SEARCH_POLL_S,
    SLACK,
    Motion,
    await_rest,
    check_arrival,
    travel_s,
)
from cartoseq.drivers.transport import Probe, Transport, is_understood, lines

ESCAPE: Final = b"\x1b"
STEPS_PER_UM: Final = 0.4096
HOME_STEPS: Final = 30_000
TRAVEL_STEPS: Final = Range(1000, 50_000)
ERRORS: Final = {
    20: "unknown variable",
    21: "incorrect value",
    24: "illegal data",
    25: "read only",
    30: "unknown label",
    40: "no program runs",
    41: "a program runs",
    60: "unknown command",
    61: "bad baud rate",
    80: "home is not defined",
    82: "both limits were reached without finding home",
    83: "upper limit switch reached",
    84: "lower limit switch reached",
    85: "told to move while it moves",
    86: "stalled",
}

#: Encoder on; inputs 1 to 3 are the switches of home and of both ends; limits stop; deadband; hold and run current.
SETTINGS: Final = ("EE=1", "S1=1,0,0", "S2=3,1,0", "S3=2,1,0", "LM=1", "DB=8", "HC=20", "RC=100")
_REPLY_S: Final = 0.5
_TRIES: Final = 3
_FRAME: Final = lines(b"\r\n")
_STALLED: Final = 86
_ERRORS_OF_MOTION: Final = range(80, 87)


def parse_value(frame: bytes) -> int:
    """Read the whole number that answers ``PR``; prompts before it are skipped.

    Raises:
        ValueError: it is an echo, a banner, or garbage.
    """
    found = re.fullmatch(rb"[^\x20-\x7e]*[> ]*(-?\d{1,10})\s*", frame)
    if found is None:
        raise ValueError(f"{frame!r} is no number")
    return int(found[1])


def home_program(home_steps: int) -> tuple[str, ...]:
    """Return the lines that store the homing program and leave the program mode again."""
    return ("PG 1", "HM 1", "H", f"P={home_steps}", "E", "PG")


class MDriveAxis:
    """One axis. Its origin is the home switch; um grow as the count does.

    Args:
        transport: The line.
        name: Of the device, in messages.
        axis: What the axis is called in messages.
        limits_um: Allowed travel from home, narrowed to the drive's; none takes the drive's whole travel.
        steps_per_um: Counts of the encoder for a micrometre.
        home_steps: Count at the home switch.
        travel_steps: Counts between the ends of the travel.
        start_speed_mm_per_s: From which it speeds up (``VI``).
        speed_mm_per_s: Full speed (``VM``).
        acceleration_mm_per_s2: Up and down (``A``, ``D``).
        tolerance_um: How far from its target it may come to rest; the drive's own dead band is 8 counts, 20 um.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        axis: str = "X",
        limits_um: Range | None = None,
        steps_per_um: float = STEPS_PER_UM,
        home_steps: int = HOME_STEPS,
        travel_steps: Range = TRAVEL_STEPS,
        start_speed_mm_per_s: float = 0.1,
        speed_mm_per_s: float = 2.5,
        acceleration_mm_per_s2: float = 10.0,
        tolerance_um: float = 25.0,
    ) -> None:
        self.name = name
        self._axis = axis
        self._transport = transport
        self._steps_per_um = steps_per_um
        self._home_steps = home_steps
        self._travel_steps = travel_steps
        self._travel_um = Range(*(self._um(steps) for steps in (travel_steps.low, travel_steps.high)))
        self.limits_um = common_range(name, axis, limits_um or self._travel_um, self._travel_um)
        self._speed_um_per_s = speed_mm_per_s * 1000
        self._acceleration_um_per_s2 = acceleration_mm_per_s2 * 1000
        self._slow_down_s = speed_mm_per_s / acceleration_mm_per_s2
        rates = {
            "VI": start_speed_mm_per_s,
            "VM": speed_mm_per_s,
            "A": acceleration_mm_per_s2,
            "D": acceleration_mm_per_s2,
        }
        self._rates = {word: round(value * 1000 * steps_per_um) for word, value in rates.items()}
        self._tolerance_um = tolerance_um
        self._count_is_true = True  # until a search for home is broken off, or the count is outside the travel
        self._motion = Motion(name, self._halt, self._is_moving)
        if transport.probe is None:
            transport.probe = Probe(b"PR MV\r", _FRAME, lambda frame: is_understood(parse_value, frame), _REPLY_S)

    async def open(self) -> Identity:
        """Connect, set it up, and hold that it took the settings.

        Raises:
            DeviceFault: another device answers, or it did not take a setting.
            LinkError: nothing answers.
        """
        async with self._transport.opening("an MDrive"):
            await self._set_up()
        return Identity("IMS/Schneider", "MDrive", notice=NOTICE)

    async def close(self) -> None:
        """Let go of the line."""
        await self._transport.close()

    async def home(self) -> None:
        """Set it up anew, run the homing program, and hold that the count is set.

        Raises:
            NotInitialized: the switch was not found.
            Stopped: a stop ended it.
        """
        await self._motion.run(self._find_home())

    async def steps(self) -> int:
        """Where it is, as a count of the encoder."""
        # A number does not say what it answers. A line that was silent holds no reply to an earlier command.
        self._transport.doubt()
        return await self._value("P")

    async def position_um(self) -> float:
        """Where it is."""
        return self._um(await self.steps())

    async def move_to_um(self, x_um: float) -> None:
        """Move and return when it is at rest at the target.

        Raises:
            LimitError: the target is outside the travel; nothing was sent.
            NotInitialized: it must be homed first.
            StallError: it stopped short of the target.
            PositionError: it is somewhere else.
            Stopped: a stop ended it.
            Busy: it moves already.
        """
        self.check(x_um)
        await self._motion.run(self._move(x_um))

    def check(self, x_um: float) -> None:
        """Hold that a target is within the limits. Raises `LimitError` if it is not."""
        check_within(self.name, self._axis, x_um, self.limits_um)

    async def stop(self) -> None:
        """Stop at once, without slowing down, and return when it is at rest."""
        await self._motion.stop(self._slow_down_s)

    async def make_safe(self) -> None:
        """Stop."""
        await self.stop()

    async def read_faults(self) -> list[Fault]:
        """The last error that it keeps."""
        code = await self._value("ER")
        return [Fault(f"{self._axis} {code}", ERRORS.get(code, "unknown error"))] if code else []

    async def clear_faults(self) -> None:
        """Nothing can be cleared: the drive keeps its last error until the next."""

    async def _set_up(self) -> None:
        await self._transport.send(b"EM=2\r")
        self._transport.doubt()  # it echoes what it heard before, and perhaps that
        await self._motion.rest(self._slow_down_s)
        for setting in (*SETTINGS, *(f"{word}={value}" for word, value in self._rates.items())):
            await self._transport.send(setting.encode() + b"\r")
        for word, value in self._rates.items():
            found = await self._value(word)
            if found != value:
                raise DeviceFault(
                    self.name, word, f"{word} was set to {value} and reads {found}", wire=self._transport.dump()
                )

    async def _value(self, word: str) -> int:
        frame = await self._transport.exchange(
            f"PR {word}\r".encode(),
            _FRAME,
            timeout_s=_REPLY_S,
            accept=lambda frame: is_understood(parse_value, frame),
            tries=_TRIES,
        )
        return parse_value(frame)

    async def _is_moving(self) -> bool:
        return bool(await self._value("MV"))

    def _halt(self) -> None:
        self._transport.interrupt(ESCAPE)

    def _um(self, steps: float) -> float:
        return (steps - self._home_steps) / self._steps_per_um

    async def _move(self, target_um: float) -> None:
        start_steps = await self.steps()
        if not self._count_is_true or start_steps not in self._travel_steps:
            raise NotInitialized(
                self.name,
                "P",
                f"{self._axis} does not know where it is: it counts {start_steps}, its travel is "
                f"{self._travel_steps.low:.0f} to {self._travel_steps.high:.0f}",
                remedy="Home it first.",
                wire=self._transport.dump(),
            )
        target_steps = round(target_um * self._steps_per_um) + self._home_steps
        for _ in range(_TRIES):  # there is no answer: a command that was lost shows as an axis that does not stir
            await self._transport.send(f"MA {target_steps}\r".encode())
            if await self._is_moving() or await self.steps() != start_steps or target_steps == start_steps:
                break
        start_um = self._um(start_steps)
        expected_s = travel_s(target_um - start_um, self._speed_um_per_s, self._acceleration_um_per_s2)
        await await_rest(self.name, self._is_moving, self._halt, expected_s)
        found_um = await self.position_um()
        if abs(found_um - target_um) > self._tolerance_um:
            await self._explain(f"{self._axis} came to rest at {found_um:.1f} um instead of {target_um:.1f} um")
        check_arrival(self.name, self._axis, start_um, target_um, found_um, self._tolerance_um, self._transport.dump())

    async def _explain(self, what: str) -> None:
        """Raise what the drive itself says of a move that failed, if it says anything."""
        code = await self._value("ER")
        if code in _ERRORS_OF_MOTION:
            kind = StallError if code == _STALLED else DeviceFault
            raise kind(self.name, code, f"{what}: {ERRORS.get(code, 'unknown error')}", wire=self._transport.dump())

    async def _find_home(self) -> None:
        self._count_is_true = False
        await self._set_up()
        # The count is first put where home is not, so that it tells when the program has set it.
        for command in (*home_program(self._home_steps), "P=0", "EX 1"):
            await self._transport.send(command.encode() + b"\r")
        loop = asyncio.get_running_loop()
        span_um = self._travel_um.high - self._travel_um.low
        expected_s = travel_s(2 * span_um, self._speed_um_per_s, self._acceleration_um_per_s2)
        limit_s = SLACK * expected_s + MARGIN_S
        deadline_s = loop.time() + limit_s
        while abs(await self.position_um()) > self._tolerance_um or await self._is_moving():
            if loop.time() > deadline_s:
                self._halt()
                code = await self._value("ER")
                raise NotInitialized(
                    self.name,
                    code,
                    f"{self._axis} did not find home within {limit_s:.0f} s: {ERRORS.get(code, 'it names no error')}",
                    remedy="Check the home switch and the way to it.",
                    wire=self._transport.dump(),
                )
            await asyncio.sleep(SEARCH_POLL_S)
        self._count_is_true = True
