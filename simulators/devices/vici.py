"""Selector valves by VICI Valco on their wire: the universal actuator, and the older microelectric one (EMT).

==============  =========================================  =================================================
of              universal                                  EMT
==============  =========================================  =================================================
``CP``          ``CP05``                                   ``Position is  = 5``
``NP``          ``NP10``                                   ``NP = 10``
a move          nothing; with ``IFM1`` its own text and    nothing; ``GO5 = Bad command`` if it stands there
                with ``IFM2`` the position, once it ended
addresses       ``/`` and a letter (RS-485), a letter      none
                (RS-232), ``*`` for all
their end       ``<CR>``, or as ``DEL`` says               ``<CR><LF>``
noise           none                                       a byte before an answer may be bogus
==============  =========================================  =================================================

Sources: VICI's manuals of the universal actuator and TN-415, and client code that reads an EMT's lines to ``<LF>``.
Assumed: what ``IFM2`` says; that a move is thrown away while another is under way; that ``CP`` on the way tells the
port that was passed last.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.wire import Outbox
from cartoseq.simulators.world import World

_LATENCY_S: Final = 0.004
_BOGUS_S: Final = 0.002
_LEARN_S: Final = 12.0
_LONGEST: Final = 256
_DELIMITERS: Final = {"1": b"\r", "2": b"\n", "3": b"\r\n"}
_BAUDS: Final = frozenset({"48", "96", "192", "384", "576", "1152"})
_COMMANDS: Final = "AM CC CNT CP CW DEL DT GO HM ID IFM LG LRN NP SB SM SO TO TT VR"
_FAULTS: Final = {
    "stuck": FaultKind("It does not turn; it says nothing of it, and goes on telling where it stands."),
    "one_off": FaultKind("It stops `ports` beyond where it was sent.", {"ports": 1.0}),
    "positioning_error": FaultKind("The next move loses its place: it stands between two ports and tells port 0."),
    "wrong_number_of_ports": FaultKind("It believes that it has `ports` ports.", {"ports": 6.0}),
    "slow": FaultKind("It turns so many times slower.", {"times": 4.0}),
    "power_off": FaultKind("It has no power until this is cleared: it hears nothing."),
    "power_cycle": FaultKind("The power was off for a moment; where it stands, and its settings, are kept."),
}


class ViciSim:
    """One actuator with its valve; several on one RS-485 line make a `simulators.wire.Bus`.

    Args:
        name: What it is called in the rack.
        world: The bench that it acts on.
        selector: The valve that it turns.
        n_ports: Ports of the valve.
        dialect: The kind of actuator.
        identifier: Its address, `0`-`9` or `A`-`Z`; empty for none.
        rs485: Whether commands begin with `/` and the address.
        response: The number of `IFM` after power-on.
        two_position: Whether it is set to a two-position valve (`AM1`), whose ports 1 and 2 are called A and B.
        bogus_byte: Whether an EMT's answers have a byte of noise before them.
        port_s: Time to turn by one port.
    """

    def __init__(
        self,
        name: str,
        world: World,
        *,
        selector: str,
        n_ports: int = 10,
        dialect: Literal["universal", "emt"] = "universal",
        identifier: str = "",
        rs485: bool = False,
        response: int = 0,
        two_position: bool = False,
        bogus_byte: bool = False,
        port_s: float = 0.2,
    ) -> None:
        if dialect not in ("universal", "emt") or not re.fullmatch(r"[0-9A-Z]?", identifier):
            raise ValueError(f"{name}: expected universal or emt and an identifier, found {dialect!r}, {identifier!r}")
        if selector not in world.fluidics.selectors:
            raise ValueError(f"{name}: there is no selector {selector!r}")
        if response not in (0, 1, 2) or n_ports < 2:
            raise ValueError(f"{name}: expected a response of 0, 1 or 2 and at least 2 ports")
        if rs485 and not identifier:
            raise ValueError(f"{name}: on RS-485 it needs an identifier")
        self.name = name
        self.world = world
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        self._selector = world.fluidics.selectors[selector]
        self._emt = dialect == "emt"
        self._identifier = identifier
        self._rs485 = rs485
        self._response = response
        self._mode = 1 if two_position else 3
        self._n_ports = 2 if two_position else n_ports
        self._bogus_byte = bogus_byte
        self._port_s = port_s
        self._direction = "A"
        self._delimiter = "1"
        self._equals = self._emt
        self._delay_ms = self._offset = self._count = 0
        self._port = self._selector.port or 1
        #: Where it was, which way it turns and over how many ports, when it began and when it will be there.
        self._way: tuple[int, int, int, float, float] = (self._port, 1, 0, 0.0, 0.0)
        self._buffer = b""
        self._out = Outbox()

    # ------------------------------------------------------------------------------------------------------------ wire

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self.world.advance(now_s)
        self._buffer = (self._buffer + data)[-_LONGEST:]
        while (end := b"\n" if self._delimiter == "2" else b"\r") in self._buffer:
            line, self._buffer = self._buffer.split(end, 1)
            text = line.decode("latin-1").strip("\r\n").upper()
            if text and "power_off" not in self.disturbances:
                command = self._addressed(text)
                if command is not None:
                    self._do(command, now_s)

    def due_s(self) -> float | None:
        """When the next answer is due."""
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """Answers that are due by now."""
        return self._out.take(now_s)

    def _addressed(self, text: str) -> str | None:
        """Return the command without its address, or nothing if it is for another."""
        if text.startswith("*"):
            return text[1:]
        if text == "/?":
            return "?"
        prefix = ("/" if self._rs485 else "") + self._identifier
        return text[len(prefix) :] if text.startswith(prefix) else None

    def _say(self, text: str, at_s: float) -> None:
        noise = b"\x00" if self._bogus_byte else b""
        self._out.put(at_s + _LATENCY_S + (_BOGUS_S if noise else 0.0), noise + text.encode() + self._end_of_line())

    def _end_of_line(self) -> bytes:
        return b"\r\n" if self._emt else _DELIMITERS[self._delimiter]

    # -------------------------------------------------------------------------------------------------------- commands

    def _do(self, command: str, now_s: float) -> None:
        if command == "?":
            self._say(_COMMANDS.replace(" ", "\r"), now_s)
            return
        if command == "ID*":
            self._identifier = ""
            return
        parts = re.fullmatch(r"(SM|ID|[A-Z]+?)([0-9]*|(?<=SM)[A-Z]|(?<=ID)[A-Z]|(?<=GO)[AB])", command)
        name, value = (parts[1], parts[2]) if parts else (command, "")
        known = self._turn_command(command, name, value, now_s) or self._setting(name, value, now_s)
        if parts is None or not known:
            self._bad(command, now_s)

    def _bad(self, command: str, now_s: float) -> None:
        self._say(self._pair(command, "Bad command"), now_s)

    def _pair(self, name: str, value: str) -> str:
        return f"{name} = {value}" if self._equals else f"{name}{value}"

    def _turn_command(self, command: str, name: str, value: str, now_s: float) -> bool:
        """Do a command that turns the valve; return False if it is none."""
        two = self._mode != 3
        if name == "GO":
            port, direction = self._port_named(value), self._direction
        elif name in ("CW", "CC"):
            direction = "F" if name == "CW" else "R"
            named = ("A" if name == "CW" else "B") if two and not value else value
            port = self._port_named(named) if named else self._neighbour(1 if direction == "F" else -1)
        elif name == "HM" and not two and not value:
            port, direction = 1, self._direction
        elif name in ("TO", "TT") and two and not value and not self._emt:
            port, direction = self._other(), self._direction
            if name == "TT":
                if not self._delay_ms:
                    return True
                back = self._port
                there_s = self._turn(port, direction, command, now_s)
                self.world.at(there_s + self._delay_ms / 1000, lambda at_s: self._turn(back, direction, "", at_s))
                return True
        else:
            return False
        if port is None or (self._emt and port == self._port):
            self._bad(command, now_s)
        elif self._is_turning(now_s):
            return True
        else:
            self._turn(port, direction, command, now_s)
        return True

    def _port_named(self, value: str) -> int | None:
        """The port that is meant, the next one if none is named, or nothing if there is no such."""
        if not value:
            return self._other() if self._mode != 3 else self._neighbour(-1 if self._direction == "R" else 1)
        if self._mode != 3:
            return {"A": 1, "B": 2}.get(value)
        return int(value) if value.isdigit() and 1 <= int(value) <= self._believed_ports() else None

    def _other(self) -> int:
        return 2 if self._port == 1 else 1

    def _neighbour(self, step: int) -> int:
        return (self._port - 1 + step) % self._n_ports + 1

    def _setting(self, name: str, value: str, now_s: float) -> bool:
        """Do a command that asks or sets something; return False if it is none."""
        if name == "CP" and not value:
            shown = self._shown(self._shown_port(now_s))
            self._say(f"Position is  = {shown}" if self._emt else self._pair("CP", shown), now_s)
        elif name == "NP" and not value:
            self._say(self._pair("NP", f"{self._believed_ports():{'' if self._emt else '02'}d}"), now_s)
        elif name == "ID" and not value:
            self._say(self._pair("ID", self._identifier or "not used"), now_s)
        elif name == "ID" and len(value) == 1:
            self._identifier = value
        elif name == "VR":
            self._say(self._pair("VR", "I-PD-EMT-4.7" if self._emt else "I-PD-CDGM88R1"), now_s)
        elif name == "SB" and (value in _BAUDS or (self._emt and len(value) == 4)):
            pass  # the speed of the line is the host's
        elif self._emt:
            return False
        else:
            return self._universal_setting(name, value, now_s)
        return True

    def _universal_setting(self, name: str, value: str, now_s: float) -> bool:
        if name == "AM" and value in ("1", "2", "3"):
            self._mode = int(value)
        elif name == "NP" and 2 <= int(value) <= 40:
            self._n_ports = int(value)
        elif name == "IFM" and value in ("0", "1", "2"):
            self._response = int(value)
        elif name == "LG" and value in ("0", "1"):
            self._equals = value == "1"
        elif name == "DEL" and value in _DELIMITERS:
            self._delimiter = value
        elif name == "SM" and value in ("F", "R", "A"):
            self._direction = value
        elif name == "CNT" and value:
            self._count = int(value) % 65536
        elif name == "DT" and value:
            self._delay_ms = min(65000, int(value))
        elif name == "SO" and value:
            self._offset = int(value)
        elif name == "LRN" and self._mode == 1 and not value:
            self._way = (self._port, 1, 0, now_s, now_s + _LEARN_S)
            self._selector.port = None
            self.world.at(now_s + _LEARN_S, lambda at_s: self._arrive(1))
            self._answer_move("LRN", now_s + _LEARN_S, 1)
        elif not value and name in ("AM", "CNT", "DT", "SO"):
            shown = {"AM": self._mode, "CNT": self._count, "DT": self._delay_ms, "SO": self._offset}[name]
            self._say(self._pair(name, str(shown)), now_s)
        else:
            return False
        return True

    # ------------------------------------------------------------------------------------------------------------ turns

    def _turn(self, port: int, direction: str, command: str, now_s: float) -> float:
        """Begin to turn and return when it arrives."""
        ahead = (port - self._port) % self._n_ports
        step = 1
        if direction == "R" or (direction == "A" and ahead > self._n_ports / 2):
            ahead, step = (-ahead) % self._n_ports, -1
        slower = self.disturbances.number("slow", "times") if "slow" in self.disturbances else 1.0
        arrives_s = now_s + ahead * self._port_s * slower
        self._answer_move(command, arrives_s, port)
        if "stuck" in self.disturbances or ahead == 0:
            return arrives_s
        self._count = (self._count + (ahead if self._mode == 3 else 1)) % 65536
        self._way = (self._port, step, ahead, now_s, arrives_s)
        if "positioning_error" in self.disturbances:
            self.disturbances.end("positioning_error")
            target = 0
        elif "one_off" in self.disturbances:
            target = int(port - 1 + self.disturbances.number("one_off", "ports")) % self._n_ports + 1
        else:
            target = port
        self._selector.port = None
        self.world.at(arrives_s, lambda at_s: self._arrive(target))
        return arrives_s

    def _arrive(self, port: int) -> None:
        self._port = port
        self._selector.port = port or None

    def _answer_move(self, command: str, at_s: float, port: int) -> None:
        if not command or self._emt or not self._response:
            return
        self._say(command if self._response == 1 else self._pair("CP", self._shown(port)), at_s)

    def _shown(self, port: int) -> str:
        if self._mode != 3:
            return {0: "0", 1: "A"}.get(port, "B")
        return str(port) if self._emt else f"{port:02d}"

    def _is_turning(self, now_s: float) -> bool:
        return now_s < self._way[4]

    def _shown_port(self, now_s: float) -> int:
        if not self._is_turning(now_s):
            return self._port
        start, step, ahead, begin_s, end_s = self._way
        passed = int((now_s - begin_s) / (end_s - begin_s) * ahead)
        return (start - 1 + step * passed) % self._n_ports + 1

    def _believed_ports(self) -> int:
        if "wrong_number_of_ports" in self.disturbances:
            return int(self.disturbances.number("wrong_number_of_ports", "ports"))
        return self._n_ports

    # ---------------------------------------------------------------------------------------------------------- faults

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self.world.advance(now_s)
        self.disturbances.inject(fault, values)
        if fault in ("power_cycle", "power_off"):
            self._buffer = b""
            self._out.clear()
        if fault == "power_cycle":
            self.disturbances.end(fault)

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; what it did stays."""
        self.world.advance(now_s)
        self.disturbances.clear()

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self.world.advance(now_s)
        return {"port": self._selector.port or 0, "turning": self._is_turning(now_s), "turns": self._count}
