"""Where a byte server lives: in memory for virtual time, behind a TCP port, or behind a pseudo-terminal.

The same server object serves in all three. The clock is the event loop's, times `speed` where it is a real one. A baud
rate makes every byte take its time on the line (10 bits each at 8N1), as sockets and pseudo-terminals do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from cartoseq.simulators.wire import Breakable, ByteServer

BITS_A_BYTE = 10
_REFUSAL_POLL_S: Final = 0.05


class Host(Protocol):
    """Where a byte server lives."""

    def look(self) -> None:
        """See whether the server has something to say: after it was disturbed from elsewhere."""

    def cut(self) -> None:
        """Cut its lines."""


def _look_at(hosts: Sequence[Host]) -> None:
    for host in hosts:
        host.look()


def refuses(server: ByteServer, now_s: float) -> bool:
    """Whether a server's port does not open now."""
    return isinstance(server, Breakable) and server.refuses(now_s)


class Line:
    """One connection to a server: carries bytes both ways, each at its time.

    Args:
        server: The device, or the devices.
        send: Is given the bytes that reach the other end, and nothing when the line is cut.
        baud_rate: Bits per second; 0 takes no time.
        speed: Simulated seconds per second of the loop's clock.
        heard: Called after the server has taken bytes.
    """

    def __init__(
        self,
        server: ByteServer,
        send: Callable[[bytes], None],
        *,
        baud_rate: int = 0,
        speed: float = 1.0,
        heard: Callable[[], None] | None = None,
    ) -> None:
        self._server = server
        self._breakable = server if isinstance(server, Breakable) else None
        self._heard = heard
        self._send = send
        self._byte_s = BITS_A_BYTE / baud_rate if baud_rate else 0.0
        self._speed = speed
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._said_s = 0.0
        # The loop does not keep the order of timers of one time; a line does.
        self._coming: deque[bytes] = deque()
        self._going: deque[bytes | None] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._open = True
        if self._breakable is not None:
            self._breakable.take_cut()  # one that found no line to cut
        self._look()

    @property
    def now_s(self) -> float:
        """The server's time."""
        return self._loop.time() * self._speed

    def write(self, data: bytes) -> None:
        """Put bytes on the line towards the server.

        Raises:
            OSError: the line is cut.
        """
        if not self._open:
            raise ConnectionResetError("the simulated line is cut")
        self._heard_s = max(self._heard_s, self.now_s) + len(data) * self._byte_s
        self._coming.append(data)
        self._loop.call_at(self._heard_s / self._speed, self._arrive)

    async def close(self) -> None:
        """Hang up; the server stays as it is."""
        self.hang_up()

    def hang_up(self) -> None:
        """Hang up at once; the server stays as it is."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()

    def cut(self) -> None:
        """Cut the line, as by a pulled cable: the other end is told."""
        if self._open:
            self._open = False
            if self._timer is not None:
                self._timer.cancel()
            self._send(b"")

    def look(self) -> None:
        """See whether the server has something to say: after it was disturbed from elsewhere."""
        self._look()

    def _arrive(self) -> None:
        data = self._coming.popleft()
        if self._open:
            self._server.receive(data, self.now_s)
            self._look()
            if self._heard is not None:
                self._heard()

    def _look(self) -> None:
        if not self._open:
            return
        for message in self._server.messages(self.now_s):
            self._said_s = max(self._said_s, self.now_s) + len(message) * self._byte_s
            self._going.append(message)
            self._loop.call_at(self._said_s / self._speed, self._reach)
        if self._breakable is not None and self._breakable.take_cut():
            self._going.append(None)  # cut, after the bytes that were sent before
            self._loop.call_at(max(self._said_s, self.now_s) / self._speed, self._reach)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = self._server.due_s()
        if due_s is not None:
            self._timer = self._loop.call_at(due_s / self._speed, self._look)

    def _reach(self) -> None:
        message = self._going.popleft()
        if message is None:
            self.cut()
        elif self._open:
            self._send(message)


class MemoryHost:
    """A server in the same process: `connect` is what a driver's transport opens.

    Args:
        server: The device, or the devices.
        baud_rate: Bits per second; 0 takes no time.
    """

    def __init__(self, server: ByteServer, *, baud_rate: int = 0) -> None:
        self.server = server
        self.lines: list[Line] = []
        #: Set to refuse to open, as a port that is not there.
        self.refuses = False
        #: Hosts of other ports of the same device, which may have something to say when this one has heard.
        self.siblings: list[Host] = []
        self._baud_rate = baud_rate

    def look(self) -> None:
        """See whether the server has something to say: after it was disturbed from elsewhere."""
        for line in self.lines:
            line.look()

    async def connect(self, receive: Callable[[bytes], None]) -> Line:
        """Open a line; `receive` is given what the server says, and nothing when the line is cut.

        Raises:
            OSError: the host refuses.
        """
        if self.refuses or refuses(self.server, asyncio.get_running_loop().time()):
            raise ConnectionRefusedError("the simulated port does not open")
        line = Line(self.server, receive, baud_rate=self._baud_rate, heard=lambda: _look_at(self.siblings))
        self.lines.append(line)
        return line

    def cut(self) -> None:
        """Cut every line that is open."""
        for line in self.lines:
            line.cut()
        self.lines.clear()


class TcpHost:
    """A server behind a TCP port of this machine; one client at a time is served, a further one shares the device.

    A port that refuses takes the call and hangs up at once, as serial servers do whose port is in use.

    Args:
        server: The device, or the devices.
        port: 0 takes any that is free.
        host: The address to listen at; loopback by default.
        speed: Simulated seconds per second.
        baud_rate: Bits per second; 0 takes no time.
    """

    def __init__(
        self, server: ByteServer, *, port: int = 0, host: str = "127.0.0.1", speed: float = 1.0, baud_rate: int = 0
    ) -> None:
        self.server = server
        self.host = host
        self.port = port
        self._speed = speed
        self._baud_rate = baud_rate
        #: Hosts of other ports of the same device, which may have something to say when this one has heard.
        self.siblings: list[Host] = []
        self._listener: asyncio.Server | None = None
        self._clients: set[_TcpClient] = set()

    async def start(self) -> None:
        """Listen; `port` says where."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _TcpClient(self), self.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    def look(self) -> None:
        """See whether the server has something to say: after it was disturbed from elsewhere."""
        for client in list(self._clients):
            client.look()

    def cut(self) -> None:
        """Cut every connection."""
        for client in list(self._clients):
            client.cut()

    async def close(self) -> None:
        """Stop listening, and cut every connection."""
        if self._listener is not None:
            self._listener.close()
            self.cut()
            await self._listener.wait_closed()


class _TcpClient(asyncio.Protocol):
    def __init__(self, host: TcpHost) -> None:
        self._host = host
        self._socket: asyncio.Transport | None = None
        self._line: Line | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._socket = transport
        if refuses(self._host.server, asyncio.get_running_loop().time() * self._host._speed):
            transport.abort()
            return
        self._line = Line(
            self._host.server,
            self._say,
            baud_rate=self._host._baud_rate,
            speed=self._host._speed,
            heard=lambda: _look_at(self._host.siblings),
        )
        self._host._clients.add(self)

    def data_received(self, data: bytes) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host._clients.discard(self)
        if self._line is not None:
            self._line.cut()

    def look(self) -> None:
        if self._line is not None:
            self._line.look()

    def cut(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    def _say(self, data: bytes) -> None:
        if self._socket is not None and not self._socket.is_closing():
            if data:
                self._socket.write(data)
            else:
                self._socket.close()


class PtyHost:
    """A server behind a pseudo-terminal: `path` is what a serial driver opens.

    Both ends are raw, and the far end is held open here, so that a client may close it and come back. A cut takes the
    terminal away, as when a USB adapter is pulled, and a new one is there at once, unless the port refuses: then it
    comes when that ends. A link keeps one path for all of them.

    Args:
        server: The device, or the devices.
        link: Where to put a symbolic link to the terminal; `path` is the link then.
        speed: Simulated seconds per second.
        baud_rate: Bits per second; 0 takes no time.
    """

    def __init__(self, server: ByteServer, *, link: Path | None = None, speed: float = 1.0, baud_rate: int = 0) -> None:
        self.server = server
        self.path = ""
        #: Hosts of other ports of the same device, which may have something to say when this one has heard.
        self.siblings: list[Host] = []
        self._link = link
        self._speed = speed
        self._baud_rate = baud_rate
        self._near = self._far = -1
        self._line: Line | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def start(self) -> None:
        """Make the terminal; `path` says where."""
        self._closed = False
        self.look()

    async def close(self) -> None:
        """Remove the terminal."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._remove()

    def cut(self) -> None:
        """Take the terminal away, and give a new one."""
        self._remove()
        self.look()

    def look(self) -> None:
        """See whether the server has something to say, or whether the terminal must go or come."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        refused = refuses(self.server, loop.time() * self._speed)
        if refused:
            self._remove()
        elif self._line is None:
            self._make()
        else:
            self._line.look()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(_REFUSAL_POLL_S, self.look) if refused else None

    def _make(self) -> None:
        self._near, self._far = pty.openpty()
        tty.setraw(self._near)
        tty.setraw(self._far)
        os.set_blocking(self._near, False)
        self.path = os.ttyname(self._far)
        if self._link is not None:
            self.path = str(self._link)
            try:
                # A link left behind by a killed host gives way; anything else that lies there does not.
                if self._link.is_symlink():
                    self._link.unlink()
                self._link.symlink_to(os.ttyname(self._far))
            except OSError:
                os.close(self._near)
                os.close(self._far)
                raise
        self._line = Line(
            self.server,
            self._say,
            baud_rate=self._baud_rate,
            speed=self._speed,
            heard=lambda: _look_at(self.siblings),
        )
        asyncio.get_running_loop().add_reader(self._near, self._hear)

    def _remove(self) -> None:
        if self._line is not None:
            line, self._line = self._line, None
            asyncio.get_running_loop().remove_reader(self._near)
            line.hang_up()
            os.close(self._near)
            os.close(self._far)
            if self._link is not None and self._link.is_symlink():
                self._link.unlink()

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            data = os.read(self._near, 4096)
            if refuses(self.server, asyncio.get_running_loop().time() * self._speed):
                self.look()
            elif data and self._line is not None:
                self._line.write(data)

    def _say(self, data: bytes) -> None:
        if not data:
            self.cut()
            return
        # A client that reads nothing fills the terminal's buffer: the rest is lost, as on a serial line.
        with contextlib.suppress(BlockingIOError):
            os.write(self._near, data)
