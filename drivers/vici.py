"""VICI Valco selector valves: the universal actuators (EUT, EUD, UMT, UMD) and the older microelectric EMT.

9600 baud; a command ends with ``<CR>``, a reply with ``<CR>``, ``<LF>`` or both. On RS-485 a command begins with ``/``
and the actuator's ID, on RS-232 with the ID if one is set. ``GOn`` moves the shortest way; ``CP`` tells the position as
``CP05``, as ``CP = 5``, or, from an EMT, as ``Position is  = 5``; ``NP`` tells the number of ports.

An EMT answers no move, and a universal actuator only if its interface mode is so set (``IFM1``, ``IFM2``), so no reply
to a move is awaited: the position is asked until it is the port, and whatever else comes is passed over. ``GOn`` to the
port already held is ``Bad command`` to an EMT, so it is not sent. On a shared line one bogus byte may come before a
reply.

Sources: the universal actuator manual, TN-415, and the HiSeq projects pyseq2501 and PySeq2500. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final, Literal

from cartoseq.drivers.capabilities import NOTICE, Fault, Identity
from cartoseq.drivers.errors import DeviceFault, Disconnected, LimitError, LinkError, PositionError
from cartoseq.drivers.transport import Transport
from cartoseq.streaming.errors import InputError

ViciDialect = Literal["universal", "emt"]

_POLL_S: Final = 0.1
_SLACK: Final = 1.5
_MARGIN_S: Final = 2.0
#: A move may be sent again, since it is to an absolute port.
_MOVE_TRIES: Final = 2
_SETTLED: Final = re.compile(rb"(?:CP\s*=?\s*|Position is\s*=\s*)([0-9]{1,3}|[AB])\s*$", re.IGNORECASE)
_PORTS: Final = re.compile(rb"NP\s*=?\s*([0-9]{1,3})\s*$", re.IGNORECASE)
_REFUSED: Final = re.compile(rb"(CP|NP)\s*=?\s*Bad command", re.IGNORECASE)
#: Printable characters at the end of a line; a bogus byte may stand before them.
_TEXT: Final = re.compile(rb"[ -~]{3,}\s*$")


def frame_reply(buffer: bytes) -> tuple[int, int] | None:
    """Find the first line that is not empty, ended by ``<CR>`` or ``<LF>``."""
    found = re.search(rb"[^\r\n]+[\r\n]", buffer)
    return found.span() if found else None


def parse_position(frame: bytes) -> str | None:
    """Return the position in a reply to ``CP``, or nothing where the frame is another reply.

    It is a number, 0 for a positioning error, or the letter A or B of an actuator that is set to two positions.
    """
    found = _SETTLED.search(frame)
    return None if found is None else found[1].decode().upper().lstrip("0") or "0"


def parse_port_count(frame: bytes) -> int | None:
    """Return the number of ports in a reply to ``NP``; nothing where the frame is another reply."""
    found = _PORTS.search(frame)
    return None if found is None else int(found[1])


def ports_between(start: int, end: int, n_ports: int) -> int:
    """Return how many ports the shortest way between two goes over."""
    return min((end - start) % n_ports, (start - end) % n_ports)


class ViciValve:
    """A selector valve.

    Args:
        transport: The line; several actuators with different IDs may share it on RS-485.
        name: The device's name in messages.
        n_ports: How many ports it has.
        dialect: "universal" or "emt".
        actuator_id: Its ID, 0 to 9 or A to Z, if one is set; on RS-485 there is always one, Z from the factory.
        rs485: Whether the line is RS-485.
        port_s: How long it may take from one port to the next.
        reply_s: How long a reply may take.

    Raises:
        InputError: a setting is none that the valve could have.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        n_ports: int,
        dialect: ViciDialect = "universal",
        actuator_id: str = "",
        rs485: bool = False,
        port_s: float = 0.3,
        reply_s: float = 0.3,
    ) -> None:
        if not re.fullmatch(r"[0-9A-Z]?", actuator_id):
            raise InputError(name, f"actuator_id is {actuator_id!r}, expected one of 0 to 9 or A to Z")
        if rs485 and not actuator_id:
            raise InputError(name, "actuator_id is missing, expected one on RS-485", remedy="From the factory it is Z.")
        if n_ports < 2:
            raise InputError(name, f"n_ports is {n_ports}, expected at least 2")
        self.name = name
        self.n_ports = n_ports
        self._transport = transport
        self._dialect = dialect
        self._prefix = f"{'/' if rs485 else ''}{actuator_id}"
        self._port_s = port_s
        self._reply_s = reply_s
        self._turn = asyncio.Lock()

    async def open(self) -> Identity:
        """Connect, and hold that it has as many ports as configured and stands at one.

        Raises:
            LinkError: nobody answers.
            DeviceFault: it is not the valve that is configured.
        """
        async with self._transport.opening():
            return await self._identify()

    async def _identify(self) -> Identity:
        found = parse_port_count(await self._ask("NP"))
        if found != self.n_ports:
            raise self._not_ours("NP", f"it has {found} ports, {self.n_ports} are configured")
        await self.port()
        firmware = ""
        if self._dialect == "universal":
            try:
                reply = await self._exchange("VR", _TEXT)
                firmware = reply.decode("ascii", "replace").strip()
            except Disconnected:
                raise
            except LinkError:
                pass  # not every actuator tells it
            self._transport.doubt()  # it may be several lines long
        return Identity("VICI Valco", f"{self.n_ports}-port valve", firmware=firmware, notice=NOTICE)

    async def close(self) -> None:
        """Let go of the line."""
        await self._transport.close()

    async def make_safe(self) -> None:
        """Do nothing: a valve is safe where it stands, and turning it would let liquid go another way."""

    async def read_faults(self) -> list[Fault]:
        """Whether it reports a positioning error."""
        position = await self._position()
        return [Fault("EP", "the valve is between two ports")] if position == 0 else []

    async def clear_faults(self) -> None:
        """Do nothing: a positioning error ends with the next good move."""

    async def port(self) -> int:
        """The port that is connected, from 1.

        Raises:
            PositionError: it stands at none.
            LinkError: it does not answer.
        """
        position = await self._position()
        if not 1 <= position <= self.n_ports:
            raise self._astray(f"reports position {position}, expected 1 to {self.n_ports}")
        return position

    async def select(self, port: int) -> None:
        """Connect a port, and hold that it is; nothing is moved if it is already.

        Raises:
            LimitError: there is no such port; nothing was sent.
            PositionError: it is not there after the time that the move may take.
            LinkError: it does not answer.
        """
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= self.n_ports:
            raise LimitError(self.name, f"has no port {port}, its ports are 1 to {self.n_ports}")
        async with self._turn:
            start = position = await self._position()
            for _ in range(_MOVE_TRIES):
                if position == port:
                    return
                await self._transport.send(self._command(f"GO{port}"))
                position = await self._await_port(position, port)
                if position not in (start, port):
                    break
        if position != port:
            raise self._astray(f"was sent from port {start} to port {port} and stands at {position}")

    async def _await_port(self, start: int, port: int) -> int:
        """Return where it stands: the port, or something else once the move may take no longer."""
        known = 1 <= start <= self.n_ports
        travel_s = self._port_s * (ports_between(start, port, self.n_ports) if known else self.n_ports)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _SLACK * travel_s + _MARGIN_S
        await asyncio.sleep(travel_s / 2)
        while loop.time() < deadline_s:
            try:
                position = _number(parse_position(await self._exchange("CP", _SETTLED)))
            except Disconnected:
                raise
            except LinkError:
                pass  # it may not answer while it moves
            else:
                if position == port:
                    return position
            await asyncio.sleep(_POLL_S)
        return await self._position()

    async def _position(self) -> int:
        """Return the position; 0 where it is between two ports."""
        text = parse_position(await self._ask("CP"))
        if text in ("A", "B"):
            raise self._not_ours("CP", f"it is set to two positions and stands at {text}")
        return _number(text)

    async def _ask(self, query: str) -> bytes:
        """Return the frame that answers a query."""
        frame = await self._exchange(query, _SETTLED if query == "CP" else _PORTS, tries=3)
        if _REFUSED.search(frame):
            raise self._not_ours(query, f"it answers {query} with {frame!r}")
        return frame

    async def _exchange(self, query: str, answer: re.Pattern[bytes], tries: int = 1) -> bytes:
        def accept(frame: bytes) -> bool:
            return answer.search(frame) is not None or _refuses(frame, query)

        return await self._transport.exchange(
            self._command(query), frame_reply, timeout_s=self._reply_s, accept=accept, tries=tries
        )

    def _command(self, text: str) -> bytes:
        return f"{self._prefix}{text}\r".encode("ascii")

    def _astray(self, problem: str) -> PositionError:
        return PositionError(
            self.name,
            "CP",
            problem,
            remedy="Check that the valve turns freely and that its actuator is aligned (command LRN).",
            wire=self._transport.dump(),
        )

    def _not_ours(self, code: str, why: str) -> DeviceFault:
        return DeviceFault(
            self.name,
            code,
            f"is not the valve that is configured: {why}",
            remedy="Check n_ports, dialect and actuator_id in the instrument file, and the actuator's mode (AM3).",
            wire=self._transport.dump(),
        )


def _refuses(frame: bytes, query: str) -> bool:
    found = _REFUSED.search(frame)
    return found is not None and found[1].upper() == query.encode()


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
