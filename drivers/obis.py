"""Coherent OBIS lasers (LS, LX): SCPI-like text over USB or RS-232 (115200 baud), powers in watts on the wire.

``<CR><LF>`` ends a line both ways. With the handshake on, every command is answered by ``OK``, every query by its value
and then ``OK``, and what fails by ``ERR-nnn`` instead of the ``OK``. An ``OK`` says that a command was taken, not that
there is light: in warm-up, and for five seconds after switching on (CDRH), the head emits later. So light is always
read from the status word. Source: OBIS LX/LS operator's manual, as working clients use it. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import Final, TypeVar

from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.errors import DeviceFault, FramingError, InterlockOpen, OverTemperature
from cartoseq.drivers.limits import check_within, common_range
from cartoseq.drivers.stops import Actions, see_off
from cartoseq.drivers.transport import Probe, Transport, repeat
from cartoseq.streaming.errors import InputError

T = TypeVar("T")
V = TypeVar("V")

FAULT: Final = 1 << 0
EMISSION: Final = 1 << 1
CDRH_DELAY: Final = 1 << 4
HARDWARE_FAULT: Final = 1 << 5
ERROR_QUEUED: Final = 1 << 6
WARM_UP: Final = 1 << 8
NOISE: Final = 1 << 9
INTERLOCK: Final = 1 << 26

FAULT_TEXT: Final = {
    0: "the base plate's temperature is out of range",
    1: "the diode's temperature is out of range",
    2: "the internal temperature is out of range",
    3: "the diode's supply is out of range",
    4: "the internal bus (I2C) failed",
    5: "over-current in the diode",
    6: "the checksum of the settings memory is wrong",
    7: "default settings were restored",
    8: "a buffer ran over",
    9: "the warm-up took too long",
    10: "the driver of the temperature control failed",
    11: "the bus to the controller failed",
    12: "the diode's temperature reached its limit",
    13: "the power cannot be reached",
    14: "the photodiode failed",
    15: "a fatal fault",
    16: "the start failed",
    17: "the watchdog restarted the head",
    18: "the field calibration failed",
    20: "over-power",
    30: "the controller's checksum is wrong",
    31: "the controller reports a fault",
}
_HOT: Final = frozenset({0, 1, 2, 12})
ERROR_TEXT: Final = {
    -100: "unrecognised command",
    -102: "syntax error",
    -109: "a parameter is missing",
    -200: "the command failed",
    -203: "the command is protected",
    -220: "a parameter is invalid",
    -221: "settings conflict",
    -241: "the device is not available",
    -256: "the file is not there",
    -257: "the file's name is wrong",
    -310: "an unrecoverable fault",
    -321: "out of memory",
    -350: "the error queue is full",
    -400: "a query was sent to all devices",
    -500: "a fault of the bus",
    -510: "a fault of the bus",
    -520: "a fault of the bus",
    -900: "a fault of the bus",
}

_REPLY_S: Final = 0.5
_POLL_S: Final = 0.1
_CDRH_S: Final = 5.0
_SWITCH_S: Final = 2.0
_LONGEST_QUEUE: Final = 32
_SET_POINT_TOLERANCE_MW: Final = 0.011  # powers go out in steps of 0.01 mW
_WAVELENGTH_TOLERANCE_NM: Final = 5.0

_END = re.compile(rb"(?:\A|[\r\n])(?:OK|ERR ?-?\d+)[ \t]*\r?\n")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


# ---------------------------------------------------------------------------------------------------------- the codec


def frame_reply(buffer: bytes) -> tuple[int, int] | None:
    """Find the first whole reply: all lines up to one that is ``OK`` or ``ERR-nnn``."""
    end = _END.search(buffer)
    return (0, end.end()) if end else None


def parse_reply(frame: bytes) -> tuple[list[str], int]:
    """Return the lines of a reply without its end, and the error's number: 0 for ``OK``.

    Raises:
        ValueError: it has no such end.
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", frame.decode("latin-1")) if line.strip()]
    if not lines:
        raise ValueError("an empty reply")
    last = lines.pop()
    if last == "OK":
        return lines, 0
    error = re.fullmatch(r"ERR ?(-?\d+)", last)
    if error is None:
        raise ValueError(f"{last!r} is neither OK nor an error")
    return lines, int(error[1])


def parse_bits(value: str) -> int:
    """Return a word of 8 hexadecimal digits. Raises `ValueError` where it is none."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", value) is None:
        raise ValueError(f"{value!r} are no 8 hexadecimal digits")
    return int(value, 16)


def parse_number(value: str) -> float:
    """Return the number with which a value begins; units may follow it. Raises `ValueError` where there is none."""
    found = _NUMBER.match(value.strip())
    if found is None or not math.isfinite(number := float(found[0])):
        raise ValueError(f"{value!r} is no number")
    return number


def parse_switch(value: str) -> bool:
    """Return whether a value is ``ON``. Raises `ValueError` where it is neither that nor ``OFF``."""
    if value.upper() not in ("ON", "OFF"):
        raise ValueError(f"{value!r} is neither ON nor OFF")
    return value.upper() == "ON"


def fault_bits(word: int) -> list[int]:
    """Return the numbers of the bits that are set."""
    return [bit for bit in range(32) if word >> bit & 1]


def _is_identity(frame: bytes) -> bool:
    return b"coherent" in frame.lower() or b"obis" in frame.lower()


# --------------------------------------------------------------------------------------------------------- the driver


class ObisLaser:
    """A Coherent OBIS laser, run at constant power.

    Args:
        transport: The line.
        name: The device's name in messages.
        wavelength_nm: Its wavelength; a head of another one is refused at opening.
        max_power_mw: Greatest power that is allowed; the head's own limit narrows it at opening.
        min_power_mw: Least power that is allowed.
        index: The head's number behind an OBIS Remote with several (``SOUR2:...``); none where there is one head.
        warm_up_s: How long a cold head may take before it emits.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        wavelength_nm: float,
        max_power_mw: float,
        min_power_mw: float = 0.0,
        index: int | None = None,
        warm_up_s: float = 300.0,
    ) -> None:
        if not 0.0 <= min_power_mw < max_power_mw < math.inf:
            raise InputError(name, f"expected 0 <= min_power_mw < max_power_mw, found {min_power_mw}, {max_power_mw}")
        self.name = name
        self.wavelength_nm = wavelength_nm
        self.power_limits_mw = Range(min_power_mw, max_power_mw)
        self._transport = transport
        self._index = "" if index is None else str(index)
        self._warm_up_s = warm_up_s
        self._actions = Actions(name)

    async def open(self) -> Identity:
        """Connect, switch the handshake on, identify, and hold wavelength and power limits against the head's.

        The light stays as it is.

        Raises:
            LinkError: no sound answer.
            DeviceFault: it is no OBIS, or refuses.
            InputError: its wavelength or power range is not that of the instrument file.
        """
        async with self._transport.opening():
            await self._shake_hands()
            model = await self._ask("SYST:INF:MOD?", str)
            identity = Identity(
                maker="Coherent",
                model=model,
                serial_number=await self._ask("SYST:INF:SNUM?", str),
                firmware=await self._ask("SYST:INF:FVER?", str),
                notice=NOTICE,
            )
            wavelength_nm = await self._number("SYST:INF:WAV?")
            if abs(wavelength_nm - self.wavelength_nm) > _WAVELENGTH_TOLERANCE_NM:
                raise InputError(
                    self.name,
                    f"expected a laser of {self.wavelength_nm:g} nm, found {model} of {wavelength_nm:g} nm",
                    remedy="Check the address and the wavelength in the instrument file.",
                )
            low_mw = 1e3 * await self._number("SOUR:POW:LIM:LOW?")
            high_mw = 1e3 * await self._number("SOUR:POW:LIM:HIGH?")
            self.power_limits_mw = common_range(self.name, "power", self.power_limits_mw, Range(low_mw, high_mw), "mW")
            await self._tell("SYST:ERR:CLE")
            # A head that emits, as one may after a crash of ours, refuses to be told its mode, even the one it has.
            if await self._ask("SOUR:AM:SOUR?", str) != "CWP":
                await self._tell("SOUR:AM:INT CWP")
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
        self._transport.interrupt(self._line("SOUR:AM:STAT OFF"))
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
        await self._tell(f"SOUR:POW:LEV:IMM:AMPL {power_mw / 1e3:.5f}")
        taken_mw = 1e3 * await self._number("SOUR:POW:LEV:IMM:AMPL?")
        if abs(taken_mw - power_mw) > _SET_POINT_TOLERANCE_MW:
            raise DeviceFault(
                self.name, "set point", f"expected {power_mw} mW, found {taken_mw:.2f} mW", wire=self._transport.dump()
            )

    async def power_mw(self) -> float:
        """The power that the head measures."""
        return 1e3 * await self._number("SOUR:POW:LEV?")

    async def set_emission(self, on: bool) -> None:
        """Switch the light, and return when the status word says that it is on (or off).

        Raises:
            InterlockOpen: the safety circuit is open.
            DeviceFault: the head has a fault, or there is no light in time.
            Stopped: it was switched off meanwhile.
        """
        if not on:
            self._actions.stop()
            await self._tell("SOUR:AM:STAT OFF")
            await self._see_dark()
            return
        await self._actions.do(self._switch_on())

    async def _switch_on(self) -> None:
        await self._hold_ready(await self._status())
        if not await self._interlock_ok():
            raise self._interlock_open()
        await self._tell("SOUR:AM:STAT ON")
        began_s = warm_s = asyncio.get_running_loop().time()
        while True:
            status = await self._status()
            await self._hold_ready(status)
            if status & EMISSION and not status & CDRH_DELAY:
                return
            now_s = asyncio.get_running_loop().time()
            if status & WARM_UP:
                warm_s = now_s
            if now_s > min(warm_s, began_s + self._warm_up_s) + _CDRH_S + _SWITCH_S:
                await self._tell("SOUR:AM:STAT OFF")  # no light may come later, when nobody expects it
                raise DeviceFault(
                    self.name,
                    f"{status:08X}",
                    f"no light {now_s - began_s:.1f} s after it was switched on"
                    + (", still warming up" if status & WARM_UP else ""),
                    remedy="Check its key switch, shutter and temperature.",
                    wire=self._transport.dump(),
                )
            await asyncio.sleep(_POLL_S)

    async def is_emitting(self) -> bool:
        """Whether there is light."""
        return bool(await self._status() & EMISSION)

    async def interlock_ok(self) -> bool:
        """Whether the safety circuit is closed."""
        return await self._interlock_ok()

    async def read_faults(self) -> list[Fault]:
        """The head's faults, an open interlock, and the errors that its queue holds; reading takes those out."""
        status = await self._status()
        faults = [self._fault(bit) for bit in await self._fault_bits()]
        if status & (FAULT | HARDWARE_FAULT) and not faults:
            faults.append(Fault(f"{status:08X}", "the head reports a fault and does not say which"))
        if not await self._interlock_ok():
            faults.append(Fault("interlock", "the safety circuit is open"))
        if status & NOISE:
            faults.append(Fault("noise", "the power's noise is above 30 %", severe=False))
        faults += [Fault(str(code), text, severe=False) for code, text in await self._drain_queue()]
        return faults

    async def clear_faults(self) -> None:
        """Empty the error queue; a fault of the head stays until its cause is gone and its power was off."""
        await self._actions.do(self._tell("SYST:ERR:CLE"))

    # ------------------------------------------------------------------------------------------------------ the inside

    async def _shake_hands(self) -> None:
        """Bring the line into the one state in which replies have an end, whatever state it was in."""
        self._transport.probe = None
        # In doubt after each: whether there is an answer, and which, depends on the state before.
        for command in ("SYST:COMM:PROM OFF", "SYST:COMM:HAND ON"):
            await self._transport.send(self._line(command))
            self._transport.doubt()
        frame = await self._transport.exchange(b"*IDN?\r\n", frame_reply, timeout_s=_REPLY_S, tries=3)
        if not _is_identity(frame):
            raise DeviceFault(
                self.name,
                "identity",
                f"expected a Coherent OBIS, found {frame!r}",
                remedy="Check the address in the instrument file.",
                wire=self._transport.dump(),
            )
        self._transport.probe = Probe(b"*IDN?\r\n", frame_reply, _is_identity, _REPLY_S)

    async def _see_dark(self) -> None:
        await see_off(
            self.is_emitting,
            lambda: self._tell("SOUR:AM:STAT OFF"),
            lambda: DeviceFault(
                self.name,
                "emission",
                "there is light after it was switched off",
                remedy="Turn its key switch off.",
                wire=self._transport.dump(),
            ),
        )

    async def _hold_ready(self, status: int) -> None:
        """Raise what keeps the head from emitting."""
        if status & (FAULT | HARDWARE_FAULT):
            raise await self._fault_error(status)
        # The controller shows the interlock's bit in warm-up as well, so the interlock itself is asked.
        if status & INTERLOCK and not await self._interlock_ok():
            raise self._interlock_open()

    async def _fault_error(self, status: int) -> DeviceFault:
        bits = await self._fault_bits()
        texts = "; ".join(self._fault(bit).text for bit in bits) or "the head reports a fault and does not say which"
        kind = OverTemperature if _HOT.intersection(bits) else DeviceFault
        return kind(
            self.name,
            ", ".join(map(str, bits)) or f"{status:08X}",
            texts,
            remedy="Switch its power off and on once the cause is gone.",
            wire=self._transport.dump(),
        )

    def _interlock_open(self) -> InterlockOpen:
        return InterlockOpen(
            self.name,
            "interlock",
            "the safety circuit is open",
            remedy="Close the doors and covers, and check the interlock plug.",
            wire=self._transport.dump(),
        )

    @staticmethod
    def _fault(bit: int) -> Fault:
        return Fault(str(bit), FAULT_TEXT.get(bit, f"fault bit {bit}"))

    async def _status(self) -> int:
        return await self._ask("SYST:STAT?", parse_bits)

    async def _fault_bits(self) -> list[int]:
        return fault_bits(await self._ask("SYST:FAUL?", parse_bits))

    async def _interlock_ok(self) -> bool:
        return await self._ask("SYST:LOCK?", parse_switch)

    async def _number(self, query: str) -> float:
        return await self._ask(query, parse_number)

    async def _drain_queue(self) -> list[tuple[int, str]]:
        """Take the errors out of the queue, oldest first; no more than it can hold."""
        count = int(await self._number("SYST:ERR:COUN?"))
        errors = []
        for _ in range(min(count, _LONGEST_QUEUE)):
            code = int(await self._number("SYST:ERR:NEXT?"))
            errors.append((code, ERROR_TEXT.get(code, f"error {code}")))
        return errors

    async def _tell(self, command: str) -> None:
        """Send a command that sets a value, again where the line fails. Raises `DeviceFault` for a refusal."""
        await repeat(lambda: self._exchange(command, 0))

    async def _ask(self, query: str, parse: Callable[[str], T]) -> T:
        """Send a query, again where the line fails or the value is malformed. Raises `DeviceFault` for a refusal."""

        async def exchange() -> T:
            return self._parsed(parse, (await self._exchange(query, 1))[0])

        return await repeat(exchange)

    async def _exchange(self, command: str, n_values: int) -> list[str]:
        frame = await self._transport.exchange(self._line(command), frame_reply, timeout_s=_REPLY_S)
        values, code = self._parsed(parse_reply, frame)
        if code:
            raise DeviceFault(
                self.name,
                code,
                f"the head refuses {command}: {ERROR_TEXT.get(code, 'unknown error')}",
                wire=self._transport.dump(),
            )
        if len(values) != n_values:
            raise self._malformed(f"{command} was answered by {values}")
        return values

    def _line(self, command: str) -> bytes:
        head, rest = command[:4], command[4:]
        return f"{head}{self._index}{rest}\r\n".encode()

    def _parsed(self, parse: Callable[[V], T], value: V) -> T:
        try:
            return parse(value)
        except ValueError as error:
            raise self._malformed(str(error)) from error

    def _malformed(self, problem: str) -> FramingError:
        self._transport.doubt()
        return FramingError(self.name, problem, wire=self._transport.dump())
