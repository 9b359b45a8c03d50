"""Function and pulse generators as sources of camera triggers: bursts of pulses over SCPI.

The generator waits for ``*TRG`` (trigger source BUS) and then sends one burst; ``*OPC?`` answers when it has ended.
Frequencies are hertz and widths seconds on the wire. Source: the common command set of Keysight, Rigol and Siglent
function generators, not checked against one of them. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from cartoseq.drivers.capabilities import Fault, Identity
from cartoseq.drivers.errors import DeviceFault, LimitError, NotInitialized
from cartoseq.drivers.scpi import Scpi, ScpiSession, parse_number, parse_switch
from cartoseq.drivers.stops import Actions, see_off
from cartoseq.drivers.transport import repeat
from cartoseq.streaming.errors import InputError

_MOST_PULSES: Final = 1_000_000
_END_S: Final = 1.0
_CLOCK_ERROR: Final = 0.01  # generators are better than 1 %, event loops on a busy machine are not


class PulseGenerator:
    """A generator that sends bursts of trigger pulses.

    Args:
        session: The way to it.
        name: The device's name in messages.
        high_v: The level of a pulse.
        low_v: The level between pulses.
    """

    def __init__(self, session: ScpiSession, name: str, *, high_v: float = 5.0, low_v: float = 0.0) -> None:
        if not -10.0 <= low_v < high_v <= 10.0:
            raise InputError(name, f"expected -10 <= low_v < high_v <= 10, found {low_v} and {high_v}")
        self.name = name
        self._scpi = Scpi(session, name)
        self._actions = Actions(name)
        self._high_v = high_v
        self._low_v = low_v
        self._burst_s = 0.0
        self._armed = False

    async def open(self) -> Identity:
        """Connect and identify; the output stays as it is."""
        return await self._scpi.open()

    async def close(self) -> None:
        """Let go of it; the output stays as it is."""
        self._actions.stop()
        self._armed = False
        await self._scpi.close()

    async def make_safe(self) -> None:
        """Switch the output off, and hold that it is off; a burst ends there.

        Raises:
            DeviceFault: it stays on.
        """
        self._actions.stop()
        self._armed = False
        self._scpi.session.interrupt("OUTP OFF")
        await see_off(
            lambda: self._scpi.ask("OUTP?", parse_switch),
            lambda: self._set("OUTP OFF"),
            lambda: self._fault("output", "the output stays on after it was switched off"),
        )

    async def configure(self, period_ms: float, width_ms: float, count: int) -> None:
        """Set the pulses of one burst; the output is off until `arm`.

        Raises:
            LimitError: there are no such pulses; nothing was sent.
            DeviceFault: the generator refuses them.
            Stopped: it was stopped meanwhile.
        """
        if not 0 < width_ms < period_ms < math.inf:
            raise LimitError(self.name, f"expected 0 < width < period, found {width_ms} ms and {period_ms} ms")
        if not 1 <= count <= _MOST_PULSES:
            raise LimitError(self.name, f"expected 1 to {_MOST_PULSES} pulses, found {count}")
        await self._actions.do(self._configure(period_ms, width_ms, count))

    async def _configure(self, period_ms: float, width_ms: float, count: int) -> None:
        self._armed = False
        frequency_hz = 1e3 / period_ms
        old_hz = await self._scpi.ask("FREQ?", parse_number)
        timing = [f"FREQ {frequency_hz:.9g}", f"PULS:WIDT {width_ms / 1e3:.9g}"]
        if frequency_hz > old_hz:
            timing.reverse()  # a pulse may at no time be longer than its period
        await self._set(
            "OUTP OFF",
            "FUNC PULS",
            *timing,
            f"VOLT:HIGH {self._high_v:g}",
            f"VOLT:LOW {self._low_v:g}",
            "BURS:STAT ON",
            f"BURS:NCYC {count}",
            "TRIG:SOUR BUS",
        )
        self._burst_s = count * period_ms / 1e3

    async def arm(self) -> None:
        """Switch the output on; no pulse goes out before `fire`.

        Raises:
            NotInitialized: nothing was configured.
            DeviceFault: the generator refuses, or its output stays off.
            Stopped: it was stopped meanwhile.
        """
        if not self._burst_s:
            raise NotInitialized(self.name, "pulses", "no pulses are configured")
        await self._actions.do(self._arm())

    async def _arm(self) -> None:
        await self._set("OUTP ON")
        if not await self._scpi.ask("OUTP?", parse_switch):
            raise self._fault("output", "the output stays off after it was switched on")
        self._armed = True

    async def fire(self) -> None:
        """Send the burst, and return when its last pulse has ended.

        The trigger is sent once only. Where its reply is lost it is not known whether the burst went out.

        Raises:
            NotInitialized: it was not armed, or was stopped since.
            DeviceFault: the generator refuses.
            LinkError: the line failed, or the burst does not end in time (`ReplyTimeout`).
            Stopped: it was stopped meanwhile.
        """
        if not self._armed:
            raise NotInitialized(self.name, "armed", "it is not armed", remedy="Configure and arm it first.")
        await self._actions.do(self._fire())

    async def _fire(self) -> None:
        await self._scpi.tell("*TRG")
        await asyncio.sleep(self._burst_s)
        await self._scpi.ask("*OPC?", parse_switch, timeout_s=_END_S + _CLOCK_ERROR * self._burst_s)

    async def read_faults(self) -> list[Fault]:
        """The entries of its error queue, which reading takes out."""
        return [Fault(str(code), text, severe=False) for code, text in await self._scpi.errors()]

    async def clear_faults(self) -> None:
        """Empty its error queue."""
        await self._scpi.errors()

    async def _set(self, *commands: str) -> None:
        await repeat(lambda: self._scpi.tell(*commands))

    def _fault(self, code: str, text: str) -> DeviceFault:
        return DeviceFault(self.name, code, text, wire=self._scpi.session.dump())
