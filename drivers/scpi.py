"""SCPI instruments: commands, queries and the error queue, over a plain line or over VISA.

An erroneous command is not answered: it leaves an entry in the error queue (``SYST:ERR?``). So the queue is read to its
end after every setting, and all it held is raised at once. An erroneous *query* is a timeout and an entry: a query that
timed out reads the queue to explain itself. Source: IEEE 488.2 and SCPI-99.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from cartoseq.drivers.capabilities import NOTICE, Identity
from cartoseq.drivers.errors import DeviceFault, Disconnected, FramingError, LinkError, ReplyTimeout
from cartoseq.drivers.transport import Probe, Transport, lines

T = TypeVar("T")

#: No queue is longer; one that never empties is a fault of its own.
LONGEST_QUEUE: Final = 32
_QUEUE_REPLY_S: Final = 1.0
_TRIES: Final = 3
_QUERY_INTERRUPTED: Final = -410

_LINE = lines(b"\n")
_ENTRY = re.compile(r"([+-]?\d{1,9})\s*,\s*\"?(.*?)\"?")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class ScpiSession(Protocol):
    """A way to one instrument, on which commands and replies are lines of text."""

    async def open(self) -> None:
        """Connect. Raises `Disconnected`."""

    async def close(self) -> None:
        """Let go of it."""

    async def write(self, command: str) -> None:
        """Send a command that has no reply."""

    async def query(self, command: str, timeout_s: float) -> str:
        """Send a query once, and return its reply without the line's end. Raises `LinkError`."""

    def interrupt(self, command: str) -> None:
        """Send a command as soon as the way allows, and wait for nothing."""

    def doubt(self) -> None:
        """Say that a reply was not what it should be: what comes late is thrown away before the next query."""

    def dump(self) -> str:
        """The last bytes on the line, as `Transport.dump` writes them."""


class LineSession:
    """SCPI over a transport: a serial port, or the instrument's raw TCP port (5025 with most makers).

    Args:
        transport: The line, used by this instrument alone.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        transport.probe = Probe(b"*IDN?\n", _LINE, lambda frame: frame.count(b",") == 3)

    async def open(self) -> None:
        """Connect."""
        await self._transport.open()

    async def close(self) -> None:
        """Let go of the line."""
        await self._transport.close()

    async def write(self, command: str) -> None:
        """Send a command that has no reply."""
        await self._transport.send(command.encode() + b"\n")

    async def query(self, command: str, timeout_s: float) -> str:
        """Send a query once, and return its reply without the line's end."""
        frame = await self._transport.exchange(command.encode() + b"\n", _LINE, timeout_s=timeout_s)
        return frame.decode("latin-1").strip()

    def interrupt(self, command: str) -> None:
        """Send a command at once; who awaits a reply gets `Interrupted`."""
        self._transport.interrupt(command.encode() + b"\n")

    def doubt(self) -> None:
        """Say that a reply was not what it should be."""
        self._transport.doubt()

    def dump(self) -> str:
        """The last bytes on the line."""
        return self._transport.dump()


# ---------------------------------------------------------------------------------------------------------- the codec


def parse_entry(reply: str) -> tuple[int, str]:
    """Return the code and the text of an entry of the error queue: code 0 where it is empty.

    Raises:
        ValueError: it is none.
    """
    found = _ENTRY.fullmatch(reply.strip())
    if found is None:
        raise ValueError(f"{reply!r} is no entry of an error queue")
    return int(found[1]), found[2]


def parse_number(reply: str) -> float:
    """Return a finite number. Raises `ValueError` where it is none."""
    if _NUMBER.fullmatch(reply) is None or not math.isfinite(number := float(reply)):
        raise ValueError(f"{reply!r} is no number")
    return number


def parse_switch(reply: str) -> bool:
    """Return whether a switch is on. Raises `ValueError` where it is neither on nor off."""
    if reply.upper() not in ("0", "1", "OFF", "ON"):
        raise ValueError(f"{reply!r} is neither on nor off")
    return reply.upper() in ("1", "ON")


# -------------------------------------------------------------------------------------------------------- the client


class Scpi:
    """An instrument that speaks SCPI; one command or query at a time.

    Args:
        session: The way to it.
        name: The device's name in messages.
        timeout_s: How long a reply may take, where a query does not say otherwise.
    """

    def __init__(self, session: ScpiSession, name: str, *, timeout_s: float = 2.0) -> None:
        self.name = name
        self.session = session
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        #: Whether a query of ours was given up: the instrument complains of it when the next command comes.
        self._gave_up = False

    async def open(self) -> Identity:
        """Connect, forget old errors, and ask who it is.

        Raises:
            LinkError: no sound reply.
        """
        await self.session.open()
        try:
            await self.session.write("*CLS")
            maker, model, serial_number, firmware = await self.ask("*IDN?", self._parse_identity)
        except BaseException:
            await self.session.close()
            raise
        return Identity(maker, model, serial_number, firmware, NOTICE)

    async def close(self) -> None:
        """Let go of it; it stays as it is."""
        await self.session.close()

    async def ask(self, query: str, parse: Callable[[str], T], *, timeout_s: float | None = None) -> T:
        """Send a query, up to three times where the line fails, and return its value.

        Args:
            query: The query.
            parse: Makes the value; may raise `ValueError`.
            timeout_s: How long the reply may take.

        Raises:
            DeviceFault: there was no reply, and the error queue says why.
            LinkError: there was no sound reply, and the queue is empty or cannot be read.
        """
        async with self._turn:
            tries = _TRIES
            while True:
                tries -= 1
                try:
                    reply = await self._query(query, self._timeout_s if timeout_s is None else timeout_s)
                    return self._parsed(query, reply, parse)
                except ReplyTimeout as timeout:
                    try:
                        entries = await self._drain()
                    except LinkError:
                        raise timeout from None
                    if entries:
                        raise self._fault(query, entries) from timeout
                    if tries <= 0:
                        raise
                except LinkError as error:
                    if tries <= 0 or isinstance(error, Disconnected):
                        raise

    async def tell(self, *commands: str) -> None:
        """Send commands, then read the error queue to its end.

        Raises:
            DeviceFault: the queue was not empty; all its entries in one.
            LinkError: it could not be read, so that it is not known whether the commands were taken.
        """
        async with self._turn:
            for command in commands:
                await self.session.write(command)
            entries = await self._drain()
        if entries:
            raise self._fault("; ".join(commands), entries)

    async def errors(self) -> list[tuple[int, str]]:
        """Take all entries out of the error queue, oldest first, each with its code and text."""
        async with self._turn:
            return await self._drain()

    async def _query(self, query: str, timeout_s: float) -> str:
        try:
            return await self.session.query(query, timeout_s)
        except BaseException:
            self._gave_up = True
            raise

    async def _drain(self) -> list[tuple[int, str]]:
        entries = []
        for _ in range(LONGEST_QUEUE):
            reply = await self._query("SYST:ERR?", min(self._timeout_s, _QUEUE_REPLY_S))
            code, text = self._parsed("SYST:ERR?", reply, parse_entry)
            if code == 0:
                self._gave_up = False
                break
            if not (code == _QUERY_INTERRUPTED and self._gave_up):
                entries.append((code, text))
        return entries

    def _fault(self, command: str, entries: list[tuple[int, str]]) -> DeviceFault:
        texts = "; ".join(text for _, text in entries)
        if len(entries) == LONGEST_QUEUE:
            texts += "; and more"
        return DeviceFault(
            self.name,
            ", ".join(str(code) for code, _ in entries),
            f"the instrument refuses {command!r}: {texts}",
            wire=self.session.dump(),
        )

    def _parsed(self, query: str, reply: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(reply)
        except ValueError as error:
            self.session.doubt()
            raise FramingError(self.name, f"{query} was answered by {error}", wire=self.session.dump()) from error

    @staticmethod
    def _parse_identity(reply: str) -> tuple[str, str, str, str]:
        fields = [field.strip() for field in reply.split(",")]
        if len(fields) != 4:
            raise ValueError(f"{reply!r}, not by maker, model, serial number and firmware")
        return fields[0], fields[1], fields[2], fields[3]
