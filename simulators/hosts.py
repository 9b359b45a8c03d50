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
from collections.abc import Callable

from cartoseq.simulators.wire import ByteServer

BITS_A_BYTE = 10


class Line:
    """One connection to a server: carries bytes both ways, each at its time.

    Args:
        server: The device, or the devices.
        send: Is given the bytes that reach the other end, and nothing when the line is cut.
        baud_rate: Bits per second; 0 takes no time.
        speed: Simulated seconds per second of the loop's clock.
    """

    def __init__(
        self, server: ByteServer, send: Callable[[bytes], None], *, baud_rate: int = 0, speed: float = 1.0
    ) -> None:
        self._server = server
        self._send = send
        self._byte_s = BITS_A_BYTE / baud_rate if baud_rate else 0.0
        self._speed = speed
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._said_s = 0.0
        # The loop does not keep the order of timers of one time; a line does.
        self._coming: deque[bytes] = deque()
        self._going: deque[bytes] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._open = True
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

    def _look(self) -> None:
        if not self._open:
            return
        for message in self._server.messages(self.now_s):
            self._said_s = max(self._said_s, self.now_s) + len(message) * self._byte_s
            self._going.append(message)
            self._loop.call_at(self._said_s / self._speed, self._reach)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = self._server.due_s()
        if due_s is not None:
            self._timer = self._loop.call_at(due_s / self._speed, self._look)

    def _reach(self) -> None:
        message = self._going.popleft()
        if self._open:
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
        self._baud_rate = baud_rate

    async def connect(self, receive: Callable[[bytes], None]) -> Line:
        """Open a line; `receive` is given what the server says, and nothing when the line is cut.

        Raises:
            OSError: the host refuses.
        """
        if self.refuses:
            raise ConnectionRefusedError("the simulated port does not open")
        line = Line(self.server, receive, baud_rate=self._baud_rate)
        self.lines.append(line)
        return line

    def cut(self) -> None:
        """Cut every line that is open."""
        for line in self.lines:
            line.cut()
        self.lines.clear()


class TcpHost:
    """A server behind a TCP port of this machine; one client at a time is served, a further one shares the device.

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
        self._listener: asyncio.Server | None = None
        self._clients: set[_TcpClient] = set()

    async def start(self) -> None:
        """Listen; `port` says where."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _TcpClient(self), self.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

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
        self._line = Line(self._host.server, self._say, baud_rate=self._host._baud_rate, speed=self._host._speed)
        self._host._clients.add(self)

    def data_received(self, data: bytes) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host._clients.discard(self)
        if self._line is not None:
            self._line.cut()

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

    Both ends are raw, and the far end is held open here, so that a client may close it and come back.

    Args:
        server: The device, or the devices.
        speed: Simulated seconds per second.
        baud_rate: Bits per second; 0 takes no time.
    """

    def __init__(self, server: ByteServer, *, speed: float = 1.0, baud_rate: int = 0) -> None:
        self.server = server
        self.path = ""
        self._speed = speed
        self._baud_rate = baud_rate
        self._near = self._far = -1
        self._line: Line | None = None

    async def start(self) -> None:
        """Make the terminal; `path` says where."""
        self._near, self._far = pty.openpty()
        tty.setraw(self._near)
        tty.setraw(self._far)
        os.set_blocking(self._near, False)
        self.path = os.ttyname(self._far)
        self._line = Line(self.server, self._say, baud_rate=self._baud_rate, speed=self._speed)
        asyncio.get_running_loop().add_reader(self._near, self._hear)

    async def close(self) -> None:
        """Remove the terminal."""
        if self._line is not None:
            asyncio.get_running_loop().remove_reader(self._near)
            await self._line.close()
            os.close(self._near)
            os.close(self._far)
            self._line = None

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            data = os.read(self._near, 4096)
            if data and self._line is not None:
                self._line.write(data)

    def _say(self, data: bytes) -> None:
        # A client that reads nothing fills the terminal's buffer: the rest is lost, as on a serial line.
        with contextlib.suppress(BlockingIOError):
            if data:
                os.write(self._near, data)
