"""The lasers of the HiSeq 2500 (SMD drivers by Laser Quantum): power in whole mW, on, off.

9600 baud; commands and replies end with ``<CR>``. ``ON``, ``OFF`` and ``POWER=50`` have no reply, and a command that
comes within 0.1 s of another is swallowed: so all are spaced, and what they did is read back: ``STAT?`` is answered by
``ENABLED`` or ``DISABLED``, ``POWER?`` by ``0050mW``. The first status after a while may be an error text: it is asked
again. The doors interlock the light; the protocol does not tell the interlock.

Source: the HiSeq projects pyseq2501 and PySeq2500. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import Final

from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.errors import DeviceFault, Disconnected, InterlockOpen, LinkError
from cartoseq.drivers.limits import check_within
from cartoseq.drivers.stops import Actions
from cartoseq.drivers.transport import Transport
from cartoseq.streaming.errors import InputError

HIGHEST_MW: Final = 500

#: 0.1 s, and what the longest command takes on the line at 9600 baud, since the laser counts from its end.
_SPACING_S: Final = 0.115
_REPLY_S: Final = 0.3
_TRIES: Final = 3
#: How long it may take to switch.
_SWITCH_S: Final = 3.0
_POWER_AGAIN_S: Final = 1.0
_STATUS: Final = r"ENABLED|DISABLED"
_POWER: Final = r"[0-9]{1,5}mW"
_DOORS: Final = "Close the doors: they interlock the light. Then switch it on again."


def frame_reply(buffer: bytes) -> tuple[int, int] | None:
    """Find the first line that is not empty, ended by ``<CR>`` or ``<LF>``."""
    found = re.search(rb"[^\r\n]+[\r\n]", buffer)
    return found.span() if found else None


def encode(text: str) -> bytes:
    """Return the bytes of a command."""
    return text.encode("ascii") + b"\r"


def parse_power_mw(text: str) -> int:
    """Return the power in a reply to ``POWER?``. Raises `ValueError` where there is none."""
    if not re.fullmatch(_POWER, text):
        raise ValueError(f"{text!r} is no power")
    return int(text.removesuffix("mW"))


class SmdLaser:
    """A laser.

    Args:
        transport: The line.
        name: The device's name in messages.
        wavelength_nm: Of its light.
        max_power_mw: Greatest power that is allowed, up to 500 mW.
        tolerance_mw: How far the measured power may be from the one that was set.
        settle_s: How long the power may take to get there.

    Raises:
        InputError: a setting is none that the laser could have.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        wavelength_nm: float,
        max_power_mw: int = HIGHEST_MW,
        tolerance_mw: float = 3.0,
        settle_s: float = 10.0,
    ) -> None:
        if not 0 < max_power_mw <= HIGHEST_MW:
            raise InputError(name, f"max_power_mw is {max_power_mw}, expected above 0 and at most {HIGHEST_MW}")
        self.name = name
        self.wavelength_nm = wavelength_nm
        self.power_limits_mw = Range(0, max_power_mw)
        self._transport = transport
        self._tolerance_mw = tolerance_mw
        self._settle_s = settle_s
        #: The power that was set since the laser was opened.
        self._set_mw: int | None = None
        self._next_s = -math.inf
        self._spaced = asyncio.Lock()
        self._setting = asyncio.Lock()
        self._actions = Actions(name)

    async def open(self) -> Identity:
        """Connect and identify; the light stays as it is.

        Raises:
            LinkError: nobody answers.
            DeviceFault: it is another device.
        """
        async with self._transport.opening():
            version = await self._ask("VERSION?", r"[ -~]{3,}")
            if not version.startswith("SMD"):
                raise DeviceFault(
                    self.name,
                    "VERSION?",
                    f"is not an SMD laser: it says {version!r}",
                    remedy="Check the port in the instrument file.",
                    wire=self._transport.dump(),
                )
            await self._is_enabled()
        self._set_mw = None
        return Identity("Laser Quantum", "SMD", firmware=version, notice=NOTICE)

    async def close(self) -> None:
        """Let go of the line; the light stays as it is."""
        await self._transport.close()

    async def make_safe(self) -> None:
        """Switch the light off at once, end whoever sets it, and hold that it is off.

        Raises:
            LinkError: it cannot be told, or asked.
            DeviceFault: it stays on.
        """
        self._actions.stop()
        try:
            # This one may be swallowed, if something went out just before: it is said again below.
            self._transport.interrupt(encode("OFF"))
        finally:
            self._next_s = asyncio.get_running_loop().time() + _SPACING_S
        async with self._setting:
            await self._switch(on=False)

    async def read_faults(self) -> list[Fault]:
        """Whether it measures another power than was set, while it is on."""
        if self._set_mw is None or not await self._is_enabled():
            return []
        power_mw = await self._measured_mw()
        if abs(power_mw - self._set_mw) <= self._tolerance_mw:
            return []
        return [Fault("power", f"it measures {power_mw} mW, {self._set_mw} mW are set")]

    async def clear_faults(self) -> None:
        """Do nothing: the laser keeps no faults."""

    async def set_power_mw(self, power_mw: float) -> None:
        """Set the power, rounded to whole mW; while it is on, return when it measures it.

        Raises:
            LimitError: it is outside the limits; nothing was sent.
            InterlockOpen: it is on and measures nothing.
            DeviceFault: it does not get there.
            Stopped: it was switched off meanwhile.
        """
        check_within(self.name, "power", power_mw, self.power_limits_mw, "mW")
        await self._actions.do(self._set_power(round(power_mw)))

    async def power_mw(self) -> float:
        """The power that it measures."""
        return await self._measured_mw()

    async def set_emission(self, on: bool) -> None:
        """Switch the light; when on, return when it measures the power that was set.

        Raises:
            InterlockOpen: it does not go on, or measures nothing.
            DeviceFault: it does not go off, or does not get to its power.
            Stopped: it was switched off meanwhile.
        """
        await self._actions.do(self._emit(on))

    async def is_emitting(self) -> bool:
        """Whether it is on by its own status, and measures light."""
        return await self._is_enabled() and await self._measured_mw() > 0

    async def interlock_ok(self) -> bool:
        """Whether nothing speaks against it: False where it is on with a power set, and measures nothing.

        The protocol does not tell the interlock, so while it is off this is always True.
        """
        return not (self._set_mw and await self._is_enabled() and await self._measured_mw() == 0)

    # ----------------------------------------------------------------------------------------------------- the actions

    async def _set_power(self, power_mw: int) -> None:
        async with self._setting:
            self._set_mw = power_mw
            await self._send(f"POWER={power_mw}")
            # While it is off the power cannot be read back: it is set again when it goes on.
            if await self._is_enabled():
                await self._settle(power_mw)

    async def _emit(self, on: bool) -> None:
        async with self._setting:
            await self._switch(on=on)
            if on and self._set_mw is not None:
                await self._send(f"POWER={self._set_mw}")
                await self._settle(self._set_mw)

    async def _switch(self, *, on: bool) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _SWITCH_S
        while True:
            await self._send("ON" if on else "OFF")
            if await self._is_enabled() == on:
                return
            if loop.time() >= deadline_s:
                break
        if on:
            raise InterlockOpen(self.name, "DISABLED", "does not go on", remedy=_DOORS, wire=self._transport.dump())
        raise DeviceFault(self.name, "ENABLED", "does not go off", remedy="Cut its power.", wire=self._transport.dump())

    async def _settle(self, power_mw: int) -> None:
        """Return when it measures a power that was set; set it again now and then, as commands may be swallowed."""
        loop = asyncio.get_running_loop()
        said_s = loop.time()
        deadline_s = said_s + self._settle_s
        while True:
            measured_mw = await self._measured_mw()
            if abs(measured_mw - power_mw) <= self._tolerance_mw:
                return
            if loop.time() >= deadline_s:
                break
            if loop.time() - said_s >= _POWER_AGAIN_S:
                said_s = loop.time()
                await self._send(f"POWER={power_mw}")
        problem = f"measures {measured_mw} mW {self._settle_s:g} s after it was set to {power_mw} mW"
        if measured_mw == 0:
            raise InterlockOpen(self.name, "0000mW", problem, remedy=_DOORS, wire=self._transport.dump())
        raise DeviceFault(self.name, "power", problem, wire=self._transport.dump())

    # --------------------------------------------------------------------------------------------------- the exchanges

    async def _is_enabled(self) -> bool:
        return await self._ask("STAT?", _STATUS) == "ENABLED"

    async def _measured_mw(self) -> int:
        return parse_power_mw(await self._ask("POWER?", _POWER))

    async def _send(self, text: str) -> None:
        async with self._spaced:
            await self._space()
            try:
                await self._transport.send(encode(text))
            finally:
                self._note()

    async def _ask(self, query: str, pattern: str) -> str:
        """Return the reply to a query; lines of another form are passed over."""
        expected = re.compile(pattern)
        for tries_left in reversed(range(_TRIES)):
            async with self._spaced:
                await self._space()
                try:
                    frame = await self._transport.exchange(
                        encode(query),
                        frame_reply,
                        timeout_s=_REPLY_S,
                        accept=lambda frame: expected.fullmatch(_text(frame)) is not None,
                    )
                    return _text(frame)
                except Disconnected:
                    raise
                except LinkError:
                    if not tries_left:
                        raise
                finally:
                    self._note()
        raise AssertionError("unreachable")

    async def _space(self) -> None:
        """Sleep until the next command may be sent; a stop that goes out meanwhile moves that moment."""
        loop = asyncio.get_running_loop()
        while (wait_s := self._next_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)

    def _note(self) -> None:
        self._next_s = asyncio.get_running_loop().time() + _SPACING_S


def _text(frame: bytes) -> str:
    return frame.decode("latin-1").strip()
