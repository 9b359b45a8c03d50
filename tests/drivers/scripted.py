"""A device of a few lines: answers each command by a function, and axes that move evenly in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox

Answer = Callable[[bytes, float], bytes | None]


class Scripted:
    """Answers whole commands after 3 ms; `heard` keeps them with their times."""

    def __init__(self, answer: Answer, *, terminator: bytes = b"\r", delay_s: float = 0.003) -> None:
        self.answer = answer
        self.heard: list[tuple[float, bytes]] = []
        self._terminator = terminator
        self._delay_s = delay_s
        self._out = Outbox()
        self._buffer = b""

    @property
    def commands(self) -> list[bytes]:
        return [command for _, command in self.heard]

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while self._terminator in self._buffer:
            command, self._buffer = self._buffer.split(self._terminator, 1)
            self.heard.append((now_s, command))
            reply = self.answer(command, now_s)
            if reply:
                self._out.put(now_s + self._delay_s, reply)

    def say(self, message: bytes, now_s: float) -> None:
        """Say something at a time, asked or not; the line must `look`."""
        self._out.put(now_s, message)

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


class EvenAxis:
    """Moves at one speed, in device units; `wall` is where it stops on its way."""

    def __init__(self, speed: float, position: float = 0.0) -> None:
        self.speed = speed
        self.wall: float | None = None
        self._begin_s = 0.0
        self._start = self._end = position

    def go(self, target: float, now_s: float) -> None:
        self._start, self._begin_s, self._end = self.at(now_s), now_s, target
        if self.wall is not None and min(self._start, target) <= self.wall <= max(self._start, target):
            self._end = self.wall

    def at(self, now_s: float) -> float:
        distance = min(abs(self._end - self._start), self.speed * (now_s - self._begin_s))
        return self._start + distance * (1 if self._end > self._start else -1)

    def moving(self, now_s: float) -> bool:
        return self.at(now_s) != self._end

    def stop(self, now_s: float) -> None:
        self._start = self._end = self.at(now_s)


def run_with(server: Scripted, use: Callable[[Transport, MemoryHost], Awaitable[Any]], **options: Any) -> None:
    """Run `use` in virtual time with a transport to the server; nothing of it may be left running."""

    async def main() -> None:
        host = MemoryHost(server)
        transport = Transport("line", host.connect, **options)
        await use(transport, host)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def now_s() -> float:
    return asyncio.get_running_loop().time()
