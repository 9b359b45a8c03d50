from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cartoseq.drivers.errors import Disconnected
from cartoseq.drivers.links import connector
from cartoseq.drivers.transport import Transport, lines
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost, PtyHost, TcpHost
from cartoseq.simulators.wire import Outbox
from cartoseq.streaming.errors import InputError

CR = lines(b"\r")


class Counter:
    """Answers each line with how many lines it has had, after 2 ms."""

    def __init__(self) -> None:
        self.count = 0
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\r" in self._buffer:
            _, self._buffer = self._buffer.split(b"\r", 1)
            self.count += 1
            self._out.put(now_s + 0.002, b"%d\r" % self.count)

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


async def _count(address: str, times: int, first: int = 1) -> None:
    transport = Transport("counter", connector(address, baud_rate=115200))
    await transport.open()
    try:
        for number in range(first, first + times):
            assert await transport.exchange(b"x\r", CR, timeout_s=5.0) == b"%d\r" % number
    finally:
        await transport.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_a_tcp_port_serves_the_same_device_to_one_client_after_the_other() -> None:
    async def main() -> None:
        host = TcpHost(Counter())
        await host.start()
        await _count(f"tcp://127.0.0.1:{host.port}", 3)
        await _count(f"socket://127.0.0.1:{host.port}", 3, first=4)
        await host.close()

    run(main)


def test_a_pseudo_terminal_serves_a_serial_port_and_lets_it_come_back() -> None:
    async def main() -> None:
        host = PtyHost(Counter(), baud_rate=115200)
        await host.start()
        await _count(host.path, 3)
        await _count(host.path, 3, first=4)
        await host.close()

    run(main)


def test_a_cut_tcp_line_is_noticed() -> None:
    async def main() -> None:
        host = TcpHost(Counter())
        await host.start()
        transport = Transport("counter", connector(f"tcp://127.0.0.1:{host.port}"))
        await transport.open()
        assert await transport.exchange(b"x\r", CR, timeout_s=5.0) == b"1\r"
        host.cut()
        with pytest.raises(Disconnected):
            await transport.exchange(b"x\r", CR, timeout_s=5.0)
        await transport.close()
        await host.close()

    run(main)


def test_a_port_that_is_not_there_is_one_message() -> None:
    async def main() -> None:
        with pytest.raises(Disconnected, match="cannot be opened"):
            await Transport("stage", connector("/dev/no-such-port")).open()

    run(main)


@pytest.mark.parametrize("address", ["", "  ", "tcp://", "tcp://host", "tcp://host:port", "tcp://host:1/x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InputError):
        connector(address)


class Recorder:
    """Keeps whole lines, and says them back at once."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._out = Outbox()

    def receive(self, data: bytes, now_s: float) -> None:
        self.lines.append(data)
        self._out.put(now_s, data)

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


def test_what_is_written_at_one_time_arrives_in_order_both_ways() -> None:
    async def main() -> None:
        recorder = Recorder()
        back: list[bytes] = []
        line = await MemoryHost(recorder).connect(back.append)
        written = [b"%d\r" % number for number in range(20)]
        for data in written:
            line.write(data)
        await asyncio.sleep(1)
        assert recorder.lines == back == written
        await line.close()

    run_virtual(main())
