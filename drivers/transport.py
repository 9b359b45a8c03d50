"""One line to a device, or to several that share it: whole replies by a deadline, and stops that never wait.

A `Transport` turns the bytes of a link into replies. It parses by framing and never by read size, since a reply may
come in pieces and two may come at once. After an exchange that did not end well the line is in doubt: a late reply
would be taken for the next command's. So the line is drained until it has been silent for a while, and where the
protocol has a harmless query (`Probe`), that is asked first.

A stop does not wait for its turn: `interrupt` writes at once, and whoever awaited a reply gets `Interrupted`.

Times are those of the event loop, so that all of it runs in virtual time as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from cartoseq.drivers.errors import DeviceFault, Disconnected, FramingError, Interrupted, LinkError, ReplyTimeout

T = TypeVar("T")
V = TypeVar("V")

#: Given what has come so far: where the first whole reply begins and ends, or nothing while there is none. What lies
#: before it is noise. May raise `ValueError` where no reply can begin like this.
Framer = Callable[[bytes], tuple[int, int] | None]
#: Whether a whole frame is the reply that is awaited; it may be another's, late, or said without being asked.
Accept = Callable[[bytes], bool]
#: Called in the event loop with bytes as they come, and with nothing once the line is gone.
Receive = Callable[[bytes], None]

_LONGEST_NOISE: Final = 1 << 16
_RING: Final = 64
_DRAIN_LIMIT_S: Final = 2.0


class Link(Protocol):
    """A stream of bytes to a device: a serial port, a socket, or a simulator in memory."""

    def write(self, data: bytes) -> None:
        """Put bytes on the line at once. Raises `OSError` where it is gone."""

    async def close(self) -> None:
        """Let go of it."""


#: Opens a link that gives its bytes to `Receive`. Raises `OSError` where it cannot be opened.
Connect = Callable[[Receive], Awaitable[Link]]


@dataclass(frozen=True)
class Probe:
    """A harmless query by which a line in doubt is brought back in step.

    Attributes:
        command: The query's bytes.
        framer: How its reply is framed.
        accept: Whether a frame is its reply and no other's.
        timeout_s: How long the reply may take.
    """

    command: bytes
    framer: Framer
    accept: Accept
    timeout_s: float = 0.5


def lines(terminator: bytes) -> Framer:
    """Return the framer of replies that end with a terminator; empty lines are noise."""

    def frame(buffer: bytes) -> tuple[int, int] | None:
        begin = 0
        while (end := buffer.find(terminator, begin)) == begin:
            begin += len(terminator)
        return None if end < 0 else (begin, end + len(terminator))

    return frame


def anything(_frame: bytes) -> bool:
    """Accept any frame."""
    return True


async def repeat(exchange: Callable[[], Awaitable[T]], *, tries: int = 3) -> T:
    """Do an exchange, and again where the line failed: for queries, and commands that change nothing by being repeated.

    Args:
        exchange: One exchange.
        tries: How often in all.

    Raises:
        LinkError: the last one's; that of a line that is gone at once.
    """
    while True:
        tries -= 1
        try:
            return await exchange()
        except LinkError as error:
            if tries <= 0 or isinstance(error, Disconnected):
                raise


def is_understood(parse: Callable[[V], object], value: V) -> bool:
    """Whether a parser takes a value: that of the reply that is awaited, and no other's."""
    try:
        parse(value)
    except ValueError:
        return False
    return True


class Transport:
    """A line to one device or to a bus of them; whoever shares the line shares the transport.

    Args:
        name: What the line is called in messages: the device's name, or the bus's.
        connect: Opens the link.
        silence_s: A line that was silent for so long has nothing more to say: longer than the longest pause within a
            reply and than the device takes to begin one.
        probe: What to ask when the line is in doubt.
        unasked: Is given every frame that was no reply (alerts); what it raises is raised to who awaits a reply.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        silence_s: float = 0.02,
        probe: Probe | None = None,
        unasked: Callable[[bytes], None] | None = None,
    ) -> None:
        self.name = name
        self.probe = probe
        self.unasked = unasked
        #: Held by who occupies the whole device behind the line, where it does but one thing at a time.
        self.whole = asyncio.Lock()
        self._connect = connect
        self._silence_s = silence_s
        self._link: Link | None = None
        self._users = 0
        self._turn = asyncio.Lock()
        self._buffer = b""
        self._in_doubt = False
        self._interrupts = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ring: deque[tuple[float, str, bytes]] = deque(maxlen=_RING)

    @property
    def is_open(self) -> bool:
        """Whether the link is there."""
        return self._link is not None

    @property
    def interrupts(self) -> int:
        """How many stops went out on this line so far, of whichever device: where a stop halts a whole controller."""
        return self._interrupts

    async def open(self) -> None:
        """Open the link, or share it; what the line still holds is thrown away before the first exchange.

        Raises:
            Disconnected: it cannot be opened.
        """
        async with self._turn:
            if self._link is None:
                try:
                    self._link = await self._connect(self._receive)
                except OSError as error:
                    raise Disconnected(
                        self.name,
                        f"cannot be opened: {error.strerror or str(error) or 'no answer'}",
                        remedy="Check the cable, the power, and the address in the instrument file.",
                    ) from error
                self._in_doubt = True
            self._users += 1

    @contextlib.asynccontextmanager
    async def opening(self, expected: str = "") -> AsyncIterator[None]:
        """Open the link, or share it, for a device that is set up in the block; give it back if that fails.

        Args:
            expected: The device that should be there, with its article, if the block asks nothing but what any such
                device answers.

        Raises:
            Disconnected: the link cannot be opened.
            DeviceFault: what answered in the block is not the device that is expected.
        """
        await self.open()
        try:
            yield
        except LinkError as error:
            await self.close()
            # Something answered, if bytes came since the last command.
            if not expected or isinstance(error, Disconnected) or " < " not in error.wire.rsplit(" > ", 1)[-1]:
                raise
            raise DeviceFault(
                error.device,
                "dialect",
                f"what answers does not speak as {expected} does",
                remedy="Check the kind of device and the baud rate in the instrument file.",
                wire=error.wire,
            ) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give the link back; the last one to do so closes it."""
        self._users = max(0, self._users - 1)
        if self._users == 0 and self._link is not None:
            link = self._link
            self._lose()
            await link.close()

    async def exchange(
        self, command: bytes, framer: Framer, *, timeout_s: float, accept: Accept = anything, tries: int = 1
    ) -> bytes:
        """Send a command and return its reply, whole, framing bytes included.

        Args:
            command: The bytes of the command.
            framer: How the reply is framed.
            timeout_s: How long the whole reply may take once the command is sent.
            accept: Whether a frame is the reply; others go to `unasked`.
            tries: How often the command may be sent in all. More than once only where sending it twice changes
                nothing: queries, and commands whose repeats the device knows.

        Raises:
            LinkError: no sound reply came, at the last try.
        """

        async def once() -> bytes:
            async with self._turn:
                if self._in_doubt:
                    await self._bring_in_step()
                return await self._ask(command, framer, timeout_s, accept)

        return await repeat(once, tries=tries)

    async def send(self, command: bytes) -> None:
        """Send a command that has no reply.

        Raises:
            LinkError: the line is gone, or cannot be brought in step.
        """
        async with self._turn:
            if self._in_doubt:
                await self._bring_in_step()
            self._write(command)

    def interrupt(self, command: bytes) -> None:
        """Write a stop at once, whatever is awaited: who awaits it gets `Interrupted`. The stop's reply is drained.

        Raises:
            Disconnected: the line is gone.
        """
        self._interrupts += 1
        self._in_doubt = True
        try:
            self._write(command)
        finally:
            self._wake()

    def doubt(self) -> None:
        """Say that a reply was not what it should be (a checksum): the next exchange waits for a silent line first."""
        self._in_doubt = True

    def dump(self) -> str:
        """The last bytes on the line, oldest first: a line each, time in seconds, direction, the bytes."""
        return "\n".join(f"{time_s:.6f} {direction} {data!r}" for time_s, direction, data in self._ring)

    # ------------------------------------------------------------------------------------------------------ the inside

    async def _ask(self, command: bytes, framer: Framer, timeout_s: float, accept: Accept) -> bytes:
        """Write a command and await its reply; however else this ends, the line is in doubt."""
        self._set_aside(framer)
        before = self._interrupts
        self._in_doubt = True
        self._write(command)
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while True:
            while (frame := self._take_frame(framer)) is not None:
                if accept(frame):
                    self._in_doubt = self._interrupts != before
                    return frame
                if self.unasked is not None:
                    self.unasked(frame)
            in_time = await self._more(deadline_s)
            if self._interrupts != before:
                raise Interrupted(
                    self.name, f"a stop went out while the reply to {command!r} was awaited", wire=self.dump()
                )
            if not in_time:
                raise ReplyTimeout(
                    self.name,
                    f"no whole reply to {command!r} within {timeout_s:.3g} s"
                    + (f"; what came: {self._buffer!r}" if self._buffer else ""),
                    remedy="Check its power, its cable, and the address and baud rate in the instrument file.",
                    wire=self.dump(),
                )

    def _set_aside(self, framer: Framer) -> None:
        """Hand on what has come before a command is sent: alerts, or a reply said twice; it answers nothing."""
        try:
            while (frame := self._take_frame(framer)) is not None:
                if self.unasked is not None:
                    self.unasked(frame)
        except FramingError:
            self._buffer = b""

    async def _more(self, deadline_s: float) -> bool:
        """Wait until more bytes have come, or a stop went out; return False at the deadline."""
        if self._link is None:
            raise self._gone()
        loop = asyncio.get_running_loop()
        if loop.time() >= deadline_s:
            return False
        held, interrupts = len(self._buffer), self._interrupts
        self._waiter = loop.create_future()
        alarm = loop.call_at(deadline_s, self._wake)
        try:
            await self._waiter
        finally:
            alarm.cancel()
            self._waiter = None
        if self._link is None:
            raise self._gone()
        return len(self._buffer) > held or self._interrupts != interrupts

    def _take_frame(self, framer: Framer) -> bytes | None:
        try:
            found = framer(self._buffer)
            if found is None and len(self._buffer) > _LONGEST_NOISE:
                raise ValueError(f"{len(self._buffer)} bytes without an end")
        except ValueError as error:
            raise FramingError(self.name, f"what came is no reply: {error}", wire=self.dump()) from error
        if found is None:
            return None
        begin, end = found
        frame, self._buffer = self._buffer[begin:end], self._buffer[end:]
        return frame

    async def _bring_in_step(self) -> None:
        """Throw away what comes until the line is silent, then ask the probe."""
        loop = asyncio.get_running_loop()
        limit_s = loop.time() + _DRAIN_LIMIT_S
        self._buffer = b""
        while loop.time() < limit_s and await self._more(loop.time() + self._silence_s):
            self._buffer = b""
        self._in_doubt = False
        if self.probe is not None:
            await self._ask(self.probe.command, self.probe.framer, self.probe.timeout_s, self.probe.accept)

    def _write(self, data: bytes) -> None:
        if self._link is None:
            raise Disconnected(self.name, "is not open", remedy="Open the device first.")
        self._ring.append((asyncio.get_running_loop().time(), ">", data))
        try:
            self._link.write(data)
        except OSError as error:
            self._lose()
            raise self._gone() from error

    def _receive(self, data: bytes) -> None:
        if data:
            self._ring.append((asyncio.get_running_loop().time(), "<", data))
            self._buffer += data
            self._wake()
        else:
            self._lose()

    def _lose(self) -> None:
        self._link = None
        self._buffer = b""
        self._wake()

    def _gone(self) -> Disconnected:
        return Disconnected(
            self.name, "the line is gone", remedy="Check the cable and the power, then open it again.", wire=self.dump()
        )

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
