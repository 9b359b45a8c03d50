"""Cobolt lasers (04, 05, 06 series) on their wire.

A command ends with ``<CR>``, an answer with ``<CR><LF>``; what sets something is answered with ``OK``. Powers are in
watts, currents in milliamperes. With autostart on, the light comes by itself after a warm-up, once the key is turned;
with autostart off, ``l1`` switches it.

Sources: client code. Assumed: what is said to a value out of range, how current and power of a diode go together, and
the time of the warm-up. The names of the fifth generation and the lines of a Skyra are not simulated.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.wire import Outbox
from cartoseq.simulators.world import World

ILLEGAL: Final = "Syntax error: illegal command"
OUT_OF_RANGE: Final = "Syntax error: value out of range"
ONLY_WITHOUT_AUTOSTART: Final = "Syntax error: only allowed when autostart is disabled"
ONLY_CLOSED: Final = "Syntax error: only allowed when interlock is closed"
ONLY_WITHOUT_FAULT: Final = "Syntax error: only allowed when there is no fault"

TEMPERATURE, INTERLOCK, POWER = 1, 3, 4
_LATENCY_S: Final = 0.002
_LONGEST: Final = 128
_MODES: Final = {"ci": 0, "cp": 1, "em": 2}
_THRESHOLD_MA: Final = 40.0
_MA_PER_MW: Final = 1.2
_FAULTS: Final = {
    "over_temperature": FaultKind("A temperature is out of its range: fault 1, the light goes out."),
    "interlock_open": FaultKind("The laser's own safety circuit is open: fault 3, the light goes out."),
    "power_not_reached": FaultKind("The current is at its limit without the power: fault 4, the light goes out."),
    "key_off": FaultKind("The key is turned off: the light goes out, and comes back with the key if autostart is on."),
    "power_drift": FaultKind("The power changes by this share of it per hour.", {"share_per_hour": -0.2}),
    "empty_reply": FaultKind("The next `replies` to queries are empty.", {"replies": 1.0}),
    "stray_one": FaultKind("The next `replies` to power queries are `1`.", {"replies": 1.0}),
    "power_cycle": FaultKind("The power was off for a moment: it begins anew, with what was set."),
}


class CoboltSim:
    """One laser.

    Args:
        name: What it is called in the rack.
        world: The bench that it acts on.
        head: The laser head.
        kind: A diode, or a diode-pumped crystal (DPSS): their operating modes have other numbers.
        warm_up_s: From power-on until it can emit.
        autostart: Whether it emits by itself.
        serial_number: As it says it.
    """

    def __init__(
        self,
        name: str,
        world: World,
        *,
        head: str,
        kind: Literal["diode", "dpss"] = "diode",
        warm_up_s: float = 10.0,
        autostart: bool = False,
        serial_number: str = "12345",
    ) -> None:
        if head not in world.optics.heads:
            raise ValueError(f"{name}: there is no laser head {head!r}")
        if kind not in ("diode", "dpss"):
            raise ValueError(f"{name}: expected diode or dpss, found {kind!r}")
        self.name = name
        self.world = world
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        self._head = world.optics.heads[head]
        self._is_diode = kind == "diode"
        self._warm_up_s = warm_up_s
        self._autostart = autostart
        self._serial_number = serial_number
        self._mode = 1
        self._set_mw = self._head.rated_mw / 2
        self._set_ma = _THRESHOLD_MA
        self._fault = 0
        self._asked = autostart
        self._began_s = 0.0
        self._has_begun = False
        self._planned_s = -1.0
        self._lit_s = 0.0
        self._lit_since_s: float | None = None
        self._buffer = b""
        self._out = Outbox()
        world.optics.door_watchers.append(self._update)

    # ------------------------------------------------------------------------------------------------------------ wire

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self._advance(now_s)
        self._buffer = (self._buffer + data)[-_LONGEST:]
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            text = line.decode("latin-1").strip()
            if text:
                reply = self._spoiled(text, self._do(text))
                self._update()
                self._out.put(now_s + _LATENCY_S, reply.encode() + b"\r\n")

    def due_s(self) -> float | None:
        """When the next answer is due."""
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """Answers that are due by now."""
        return self._out.take(now_s)

    def _spoiled(self, command: str, reply: str) -> str:
        for fault, wrong, hits in (("empty_reply", "", "?"), ("stray_one", "1", "p?|pa?")):
            if fault in self.disturbances and command.endswith(tuple(hits.split("|"))):
                left = self.disturbances.number(fault, "replies") - 1
                self.disturbances.end(fault)
                if left > 0:
                    self.disturbances.inject(fault, {"replies": left})
                return wrong
        return reply

    # -------------------------------------------------------------------------------------------------------- commands

    def _do(self, text: str) -> str:
        """Carry out a command and return its answer."""
        if text.endswith("?"):
            return self._answers().get(text[:-1], ILLEGAL)
        name, _, value = text.partition(" ")
        if name in ("p", "slc"):
            return self._set_number(name, value)
        if name == "@cobas" and value in ("0", "1"):
            self._autostart = value == "1"
        elif value:
            return ILLEGAL
        elif name in _MODES:
            self._mode = _MODES[name]
        elif name in ("@cob0", "l0"):
            self._asked = False
        elif name in ("@cob1", "l1"):
            return self._start(alone=name == "l1")
        elif name == "cf":
            self._fault = 0
        else:
            return ILLEGAL
        return "OK"

    def _start(self, *, alone: bool) -> str:
        if alone and self._autostart:
            return ONLY_WITHOUT_AUTOSTART
        if not self._interlock_closed():
            return ONLY_CLOSED
        if self._fault:
            return ONLY_WITHOUT_FAULT
        self._asked = True
        if not alone:
            self._began_s = self.world.now_s
        return "OK"

    def _set_number(self, name: str, value: str) -> str:
        if not re.fullmatch(r"\d*\.?\d+(e-?\d+)?", value):
            return ILLEGAL
        number = float(value)
        if name == "p":
            if number * 1000 > self._head.rated_mw:
                return OUT_OF_RANGE
            self._set_mw = number * 1000
        else:
            if number > self._current_of(self._head.rated_mw):
                return OUT_OF_RANGE
            self._set_ma = number
        return "OK"

    def _answers(self) -> dict[str, str]:
        now_s, head = self.world.now_s, self._head
        power_mw = head.power_mw(now_s)
        lit_s = self._lit_s + (now_s - self._lit_since_s if self._lit_since_s is not None else 0.0)
        return {
            "l": str(int(head.emitting)),
            "@cobas": str(int(self._autostart)),
            "@cobasks": str(int("key_off" not in self.disturbances)),
            "gam": str(self._mode),
            "p": f"{self._set_mw / 1000:.4f}",
            "pa": f"{power_mw / 1000:.4f}",
            "i": f"{self._current_of(power_mw) if head.emitting else 0.0:.1f}",
            "gmlp": f"{head.rated_mw:.1f}",
            "ilk": str(int(not self._interlock_closed())),
            "f": str(self._fault),
            "hrs": f"{lit_s / 3600:.2f}",
            "sn": self._serial_number,
            "gsn": self._serial_number,
            "gfv": "2.4.0",
            "glm": f"{head.wavelength_nm:04.0f}-{'06-01' if self._is_diode else '05-01'}-{head.rated_mw:04.0f}-300",
            "gom": str(self._operating_mode()),
        }

    def _operating_mode(self) -> int:
        waits = self.world.now_s < self._began_s + self._warm_up_s
        key_off = "key_off" in self.disturbances
        if self._fault:
            return 5
        if not self._asked:
            return 0
        if self._is_diode:
            return 1 if key_off or waits else 2 if self._mode != 2 else 4
        return 2 if key_off else 3 if waits else 4

    # ----------------------------------------------------------------------------------------------------------- light

    @staticmethod
    def _current_of(power_mw: float) -> float:
        return _THRESHOLD_MA + power_mw * _MA_PER_MW

    def _interlock_closed(self) -> bool:
        return self.world.optics.doors_closed and "interlock_open" not in self.disturbances

    def _advance(self, now_s: float) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._began_s = now_s
        self.world.advance(now_s)
        self._update()

    def _update(self) -> None:
        """Let there be light or not, as of now; what comes later by itself is planned."""
        now_s, head = self.world.now_s, self._head
        for code, wrong in (
            (INTERLOCK, not self._interlock_closed()),
            (TEMPERATURE, "over_temperature" in self.disturbances),
            (POWER, "power_not_reached" in self.disturbances),
        ):
            if wrong:
                self._fault = code
        if self._fault:
            self._asked = False
        if self._mode == 0:
            head.set_mw = max(0.0, (self._set_ma - _THRESHOLD_MA) / _MA_PER_MW)
        else:
            head.set_mw = self._set_mw
        begins_s = self._began_s + self._warm_up_s
        shines = self._asked and now_s >= begins_s and "key_off" not in self.disturbances
        if shines != head.emitting:
            if self._lit_since_s is not None:
                self._lit_s += now_s - self._lit_since_s
            self._lit_since_s = now_s if shines else None
            head.emit(shines, now_s)
        elif self._asked and now_s < begins_s != self._planned_s:
            self._planned_s = begins_s
            self.world.at(begins_s, lambda at_s: self._update())

    # ---------------------------------------------------------------------------------------------------------- faults

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self._advance(now_s)
        given = self.disturbances.inject(fault, values)
        if fault == "power_drift":
            self._head.drift_per_hour, self._head.drift_since_s = float(given["share_per_hour"]), now_s
        elif fault == "power_cycle":
            self._out.clear()
            self._buffer = b""
            self._fault = 0
            self._began_s = now_s
            self._asked = self._autostart
            self.disturbances.end(fault)
        self._update()

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; a fault stays until it is cleared."""
        self._advance(now_s)
        self.disturbances.clear()
        self._head.drift_per_hour = 0.0
        self._update()

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self._advance(now_s)
        return {
            "emitting": self._head.emitting,
            "power_mw": self._head.power_mw(now_s),
            "set_mw": self._set_mw,
            "interlock_closed": self._interlock_closed(),
            "fault": self._fault,
            "operating_mode": self._operating_mode(),
        }
