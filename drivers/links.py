"""Links: the ways to a device. `connector` turns the address in an instrument file into one.

======================================  ==================================================================
``/dev/ttyUSB0``, ``COM3``, a PTY       a serial port
``socket://``, ``rfc2217://``, ...      whatever pyserial's `serial_for_url` opens
``tcp://host:port``                     a TCP connection
======================================  ==================================================================

Serial ports are read in a thread each, since not every kind that pyserial knows can be waited for by the event loop.
A write goes out from the loop at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any, Final
from urllib.parse import urlsplit

import serial

from cartoseq.drivers.transport import Connect, Link, Receive
from cartoseq.streaming.errors import InputError

_READ_TIMEOUT_S: Final = 0.05
_WRITE_TIMEOUT_S: Final = 1.0
_CONNECT_TIMEOUT_S: Final = 5.0


def connector(address: str, *, baud_rate: int = 9600) -> Connect:
    """Return what opens the link to an address.

    Args:
        address: See the module's table.
        baud_rate: Of a serial port, 8 data bits, no parity, 1 stop bit.

    Raises:
        InputError: the address is none.
    """
    if address.startswith("tcp://"):
        parts = urlsplit(address)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port or parts.path not in ("", "/"):
            raise InputError("address", f"expected tcp://host:port, found {address!r}")
        return _tcp(host, port)
    if not address.strip():
        raise InputError("address", "expected a serial port, a pyserial URL or tcp://host:port, found nothing")
    return _serial(address, baud_rate)


def paired(out: Connect, back: Connect) -> Connect:
    """Return what opens a device with two ports: one that takes commands, and one that gives answers.

    What comes back on the first port is passed over; the loss of either is the loss of the line.
    """

    async def connect(receive: Receive) -> Link:
        link = _PairedLink(receive)
        link.back = await back(link.hear_back)
        try:
            link.out = await out(link.hear_out)
        except BaseException:
            await link.back.close()
            raise
        return link

    return connect


def _tcp(host: str, port: int) -> Connect:
    async def connect(receive: Receive) -> Link:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            _, link = await asyncio.get_running_loop().create_connection(lambda: _TcpLink(receive), host, port)
        return link

    return connect


def _serial(address: str, baud_rate: int) -> Connect:
    async def connect(receive: Receive) -> Link:
        try:
            port = await asyncio.to_thread(
                serial.serial_for_url,
                address,
                baudrate=baud_rate,
                timeout=_READ_TIMEOUT_S,
                write_timeout=_WRITE_TIMEOUT_S,
            )
        except ValueError as error:  # pyserial's word for an unknown kind of URL, or a baud rate that there is not
            raise OSError(str(error)) from error
        return _SerialLink(port, receive)

    return connect


class _PairedLink:
    def __init__(self, receive: Receive) -> None:
        self.out: Link | None = None
        self.back: Link | None = None
        self._receive = receive
        self._closing: asyncio.Task[None] | None = None

    def hear_back(self, data: bytes) -> None:
        if data:
            self._receive(data)
        else:
            self._lose()

    def hear_out(self, data: bytes) -> None:
        if not data:
            self._lose()

    def write(self, data: bytes) -> None:
        if self.out is None:
            raise OSError("the line is closed")
        self.out.write(data)

    async def close(self) -> None:
        links, self.out, self.back = (self.out, self.back), None, None
        for link in links:
            if link is not None:
                await link.close()

    def _lose(self) -> None:
        if self._closing is None and (self.out is not None or self.back is not None):
            self._closing = asyncio.ensure_future(self.close())  # the port that is left
            self._receive(b"")


class _TcpLink(asyncio.Protocol):
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._socket: asyncio.Transport | None = None
        self._lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._socket = transport

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set_result(None)
        self._receive(b"")

    def write(self, data: bytes) -> None:
        if self._socket is None or self._socket.is_closing():
            raise OSError("the connection is closed")
        self._socket.write(data)

    async def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            await self._lost


class _SerialLink:
    """A pyserial port; its thread hands what it reads to the loop, and nothing once the port is gone."""

    def __init__(self, port: Any, receive: Receive) -> None:
        self._port = port
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._thread = threading.Thread(target=self._read_on, name=f"read {port.port}", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        self._port.write(data)

    async def close(self) -> None:
        self._closing = True
        # Not every kind of port can cancel a read; the others come back within the read timeout.
        with contextlib.suppress(AttributeError, OSError):
            self._port.cancel_read()
        await asyncio.to_thread(self._thread.join)
        self._port.close()

    def _read_on(self) -> None:
        while not self._closing:
            try:
                data = self._port.read(1)
                if data:
                    data += self._port.read(self._port.in_waiting or 0)
            except (OSError, TypeError):  # pyserial lets a TypeError out where a port is closed under a read
                break
            if data:
                self._hand_over(data)
        self._hand_over(b"")

    def _hand_over(self, data: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._receive, data)
