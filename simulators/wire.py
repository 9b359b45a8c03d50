"""A device as seen from its wire: bytes in, whole messages out, at their times.

A byte server knows the protocol and asks the device model behind it; it reads no clock and opens no port. Whoever hosts
it (`simulators.hosts`) says what time it is. Messages are kept whole until they are sent, so that faults of the line
(`simulators.faults`) can lose, delay, cut or swap them as one.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class ByteServer(Protocol):
    """A simulated device, or a line with several."""

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host; a command may come in pieces."""

    def due_s(self) -> float | None:
        """When there will next be something to send, as far as is known now; nothing if nothing is planned."""

    def messages(self, now_s: float) -> list[bytes]:
        """Whole messages that are due by now, in order; each is given once."""


@runtime_checkable
class Breakable(Protocol):
    """A byte server whose line can break (`simulators.faults`); its host asks."""

    def take_cut(self) -> bool:
        """Whether the line is to be cut now; said once, and asked after `messages`."""

    def refuses(self, now_s: float) -> bool:
        """Whether the port does not open."""


class SimulatedDevice(ByteServer, Protocol):
    """A byte server that can be disturbed and looked into.

    Attributes:
        name: What it is called in the rack.
        faults: The names of the device faults that it knows, each with what it does and what its values mean.
    """

    name: str
    faults: dict[str, str]

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; what it did (a lost position) stays."""

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now, whatever it says on the wire; units in the names."""


class Outbox:
    """Messages that wait for their time."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, bytes]] = []
        self._number = 0

    def put(self, at_s: float, message: bytes) -> None:
        """Send a message at a time; those of one time go out in the order in which they were put."""
        self._number += 1
        heapq.heappush(self._waiting, (at_s, self._number, message))

    def clear(self) -> None:
        """Forget what was not sent."""
        self._waiting.clear()

    def due_s(self) -> float | None:
        """When the next is due."""
        return self._waiting[0][0] if self._waiting else None

    def take(self, now_s: float) -> list[bytes]:
        """Those that are due by now."""
        taken = []
        while self._waiting and self._waiting[0][0] <= now_s:
            taken.append(heapq.heappop(self._waiting)[2])
        return taken


class Bus:
    """Several devices on one line: each hears everything, and answers what is addressed to it.

    Args:
        servers: The devices.
    """

    def __init__(self, servers: Sequence[ByteServer]) -> None:
        self.servers = tuple(servers)

    def receive(self, data: bytes, now_s: float) -> None:
        """Let every device hear the bytes."""
        for server in self.servers:
            server.receive(data, now_s)

    def due_s(self) -> float | None:
        """When the first of them has something to send."""
        times = [due_s for server in self.servers if (due_s := server.due_s()) is not None]
        return min(times, default=None)

    def messages(self, now_s: float) -> list[bytes]:
        """What they send by now, device after device."""
        return [message for server in self.servers for message in server.messages(now_s)]
