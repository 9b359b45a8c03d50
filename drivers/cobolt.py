"""Cobolt lasers of the 04, 05 and 06 series: text over a serial port (115200 baud), set powers in watts on the wire.

``<CR>`` ends a command, ``<CR><LF>`` a reply: a value, ``OK``, or a sentence that begins with ``Syntax error``. Known
quirks: a query is now and then answered by an empty line, and a power by a stray ``1``; both are asked for again.
``OK`` says that a command was taken; light is read from ``l?`` and the operating mode ``gom?``. Source: the maker's
command list for OEM lasers, as working clients use it. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import Final, Literal, TypeVar

from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.errors import DeviceFault, FramingError, InterlockOpen, OverTemperature
from cartoseq.drivers.limits import check_within, common_range
from cartoseq.drivers.stops import Actions, see_off
from cartoseq.drivers.transport import Probe, Transport, repeat
from cartoseq.streaming.errors import InputError

T = TypeVar("T")

FAULT_TEXT: Final = {
    1: "a temperature is out of range",
    3: "the interlock was opened",
    4: "constant power cannot be held within the current limit",
}
#: Operating modes (`gom?`) in which there is light, and what the others mean.
_EMITTING: Final = {"diode": frozenset({2, 3, 4}), "dpss": frozenset({4})}
_MODE_TEXT: Final = {
    "diode": {0: "off", 1: "waiting for its key", 5: "fault", 6: "aborted"},
    "dpss": {
        0: "off",
        1: "waiting for its temperature",
        2: "waiting for its key",
        3: "warming up",
        5: "fault",
        6: "aborted",
    },
}
_KEY_MODE: Final = {"diode": 1, "dpss": 2}
_FAULT_MODE: Final = 5
_ABORTED_MODE: Final = 6

_REPLY_S: Final = 0.3
_POLL_S: Final = 0.1
#: More than this share of the greatest power is no power but a stray reply.
_PLAUSIBLE: Final = 1.5
_SET_POINT_TOLERANCE_MW: Final = 0.11

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


# ---------------------------------------------------------------------------------------------------------- the codec


def frame_line(buffer: bytes) -> tuple[int, int] | None:
    """Find the first line; unlike elsewhere an empty one counts, since it is the (wrong) reply to a query."""
    end = buffer.find(b"\r\n")
    return None if end < 0 else (0, end + 2)


def encode_power(power_mw: float) -> str:
    """Return a power as the laser takes it: in watts, without an exponent."""
    return f"{power_mw / 1e3:.6f}".rstrip("0").rstrip(".")


def parse_number(value: str) -> float:
    """Return a number. Raises `ValueError` where it is none, or not finite."""
    if _NUMBER.fullmatch(value) is None or not math.isfinite(number := float(value)):
        raise ValueError(f"{value!r} is no number")
    return number


def parse_code(value: str) -> int:
    """Return a small whole number. Raises `ValueError` where it is none."""
    if re.fullmatch(r"[0-9]{1,4}", value) is None:
        raise ValueError(f"{value!r} is no code")
    return int(value)


def parse_flag(value: str) -> bool:
    """Return a flag. Raises `ValueError` where it is neither 0 nor 1."""
    if value not in ("0", "1"):
        raise ValueError(f"{value!r} is neither 0 nor 1")
    return value == "1"


def parse_text(value: str) -> str:
    """Return a text. Raises `ValueError` where it is empty."""
    if not value:
        raise ValueError("an empty reply")
    return value


# --------------------------------------------------------------------------------------------------------- the driver


class CoboltLaser:
    """A Cobolt laser, run at constant power.

    Args:
        transport: The line.
        name: The device's name in messages.
        wavelength_nm: Its wavelength; the protocol does not tell it.
        max_power_mw: Greatest power that is allowed; the head's own limit narrows it at opening.
        min_power_mw: Least power that is allowed.
        kind: ``diode`` (06-MLD) or ``dpss`` (04, 05, 06-DPL): what the operating modes mean.
        start_s: How long it may take to emit after it was switched on; 15 s for a diode, 300 s for a DPSS by default.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        wavelength_nm: float,
        max_power_mw: float,
        min_power_mw: float = 0.0,
        kind: Literal["diode", "dpss"] = "diode",
        start_s: float | None = None,
    ) -> None:
        if not 0.0 <= min_power_mw < max_power_mw < math.inf:
            raise InputError(name, f"expected 0 <= min_power_mw < max_power_mw, found {min_power_mw}, {max_power_mw}")
        if kind not in _EMITTING:
            raise InputError(name, f"kind: expected diode or dpss, found {kind!r}")
        self.name = name
        self.wavelength_nm = wavelength_nm
        self.power_limits_mw = Range(min_power_mw, max_power_mw)
        self._transport = transport
        self._kind = kind
        self._start_s = start_s if start_s is not None else (15.0 if kind == "diode" else 300.0)
        self._actions = Actions(name)

    async def open(self) -> Identity:
        """Connect, identify, hold the power limit against the head's, and choose constant power.

        The light stays as it is.

        Raises:
            LinkError: no sound reply.
            DeviceFault: it is no Cobolt, or refuses.
            InputError: it cannot emit a power that the instrument file allows.
        """
        self._transport.probe = None  # until its serial number is known
        async with self._transport.opening():
            serial_number = await self._ask("sn?", parse_text)
            expected = serial_number.encode("latin-1") + b"\r\n"
            self._transport.probe = Probe(b"sn?\r", frame_line, lambda frame: frame == expected, _REPLY_S)
            identity = Identity(
                maker="Cobolt",
                model=await self._ask("glm?", parse_text),
                serial_number=serial_number,
                firmware=await self._ask("gfv?", parse_text),
                notice=NOTICE,
            )
            high_mw = await self._ask("gmlp?", parse_number)
            self.power_limits_mw = common_range(self.name, "power", self.power_limits_mw, Range(0.0, high_mw), "mW")
            if await self._ask("gam?", parse_code) != 1:
                await self._tell("cp")
        return identity

    async def close(self) -> None:
        """Let go of the line; the light stays as it is."""
        self._actions.stop()
        await self._transport.close()

    async def make_safe(self) -> None:
        """Switch the light off at once, whatever is awaited, and hold that it is off.

        Raises:
            DeviceFault: it stays on.
        """
        self._actions.stop()
        self._transport.interrupt(b"l0\r")
        await self._see_dark()

    async def set_power_mw(self, power_mw: float) -> None:
        """Set the power that it emits when it is on, and hold that the head has taken it.

        Raises:
            LimitError: outside `power_limits_mw`; nothing was sent.
            DeviceFault: the head refuses it, or has another one afterwards.
            Stopped: it was switched off meanwhile.
        """
        check_within(self.name, "power", power_mw, self.power_limits_mw, "mW")
        await self._actions.do(self._set_power(power_mw))

    async def _set_power(self, power_mw: float) -> None:
        await self._tell(f"p {encode_power(power_mw)}")
        taken_mw = await self._ask("p?", self._parse_power_mw)
        if abs(taken_mw - power_mw) > _SET_POINT_TOLERANCE_MW:
            raise DeviceFault(
                self.name, "set point", f"expected {power_mw} mW, found {taken_mw:.2f} mW", wire=self._transport.dump()
            )

    async def power_mw(self) -> float:
        """The power that the head measures."""
        return await self._ask("pa?", self._parse_power_mw)

    async def set_emission(self, on: bool) -> None:
        """Switch the light, and return when the head says that it is on (or off).

        Raises:
            InterlockOpen: the safety circuit is open, or its key is off.
            OverTemperature: the head is too hot or too cold.
            DeviceFault: it has another fault, refuses, or there is no light in time.
            Stopped: it was switched off meanwhile.
        """
        if not on:
            self._actions.stop()
            await self._tell("l0")
            await self._see_dark()
            return
        await self._actions.do(self._switch_on())

    async def _switch_on(self) -> None:
        await self._hold_ready()
        if await self._emits():
            return
        # Switching on by hand is refused while autostart is set; the start sequence is not.
        autostart = await self._ask("@cobas?", parse_flag)
        await self._tell("@cob1" if autostart else "l1")
        deadline_s = asyncio.get_running_loop().time() + self._start_s
        while not await self._emits():
            await self._hold_ready()
            if asyncio.get_running_loop().time() > deadline_s:
                fault = await self._no_light()
                await self._tell("l0")  # no light may come later, when nobody expects it
                raise fault
            await asyncio.sleep(_POLL_S)

    async def is_emitting(self) -> bool:
        """Whether there is light: it is switched on, and in a mode that emits."""
        return await self._emits()

    async def interlock_ok(self) -> bool:
        """Whether the safety circuit is closed."""
        return not await self._ask("ilk?", parse_flag)

    async def read_faults(self) -> list[Fault]:
        """The head's fault, and an open interlock."""
        code = await self._ask("f?", parse_code)
        faults = [Fault(str(code), FAULT_TEXT.get(code, f"fault {code}"))] if code else []
        if await self._ask("ilk?", parse_flag):
            faults.append(Fault("interlock", "the safety circuit is open"))
        return faults

    async def clear_faults(self) -> None:
        """Clear the head's fault; it does not switch on by that."""
        await self._actions.do(self._tell("cf"))

    # ------------------------------------------------------------------------------------------------------ the inside

    async def _emits(self) -> bool:
        if not await self._ask("l?", parse_flag):
            return False
        return await self._ask("gom?", parse_code) in _EMITTING[self._kind]

    async def _see_dark(self) -> None:
        await see_off(
            lambda: self._ask("l?", parse_flag),
            lambda: self._tell("l0"),
            lambda: DeviceFault(
                self.name,
                "emission",
                "there is light after it was switched off",
                remedy="Turn its key off.",
                wire=self._transport.dump(),
            ),
        )

    async def _hold_ready(self) -> None:
        """Raise what keeps the head from emitting."""
        if await self._ask("ilk?", parse_flag):
            raise self._interlock_open("interlock", "the safety circuit is open")
        code = await self._ask("f?", parse_code)
        if code == 3:
            raise self._interlock_open(code, FAULT_TEXT[code])
        if code:
            raise (OverTemperature if code == 1 else DeviceFault)(
                self.name,
                code,
                FAULT_TEXT.get(code, "the head reports a fault"),
                remedy="Clear the faults once the cause is gone.",
                wire=self._transport.dump(),
            )

    async def _no_light(self) -> DeviceFault:
        mode = await self._ask("gom?", parse_code)
        text = _MODE_TEXT[self._kind].get(mode, "in an unknown mode")
        if mode == _KEY_MODE[self._kind]:
            return self._interlock_open("key", "its key is off")
        return DeviceFault(
            self.name,
            f"mode {mode}",
            f"no light {self._start_s:g} s after it was switched on; the head is {text}",
            wire=self._transport.dump(),
        )

    def _interlock_open(self, code: str | int, text: str) -> InterlockOpen:
        return InterlockOpen(
            self.name,
            code,
            text,
            remedy="Close the doors and covers, turn the key on, and clear the faults.",
            wire=self._transport.dump(),
        )

    def _parse_power_mw(self, value: str) -> float:
        power_mw = 1e3 * parse_number(value)
        if not -1.0 <= power_mw <= _PLAUSIBLE * self.power_limits_mw.high:
            raise ValueError(f"{value!r} W is no power of a laser of {self.power_limits_mw.high:g} mW")
        return power_mw

    async def _tell(self, command: str) -> None:
        """Send a command that sets a value, again where the line fails. Raises `DeviceFault` for a refusal."""
        await self._ask(command, self._parse_ok)

    async def _ask(self, query: str, parse: Callable[[str], T]) -> T:
        """Send a query, again where the line fails or the value is malformed. Raises `DeviceFault` for a refusal."""

        async def exchange() -> T:
            frame = await self._transport.exchange(query.encode() + b"\r", frame_line, timeout_s=_REPLY_S)
            reply = frame.decode("latin-1").strip()
            if reply.lower().startswith("syntax error"):
                raise DeviceFault(self.name, query, f"the head refuses: {reply}", wire=self._transport.dump())
            try:
                return parse(reply)
            except ValueError as error:
                self._transport.doubt()
                raise FramingError(
                    self.name, f"{query} was answered by {error}", wire=self._transport.dump()
                ) from error

        return await repeat(exchange)

    @staticmethod
    def _parse_ok(value: str) -> None:
        if value != "OK":
            raise ValueError(f"{value!r}, not OK")
