"""The lasers of a HiSeq 2500 (SMD) on their wire.

Commands end with ``<CR>``. What sets something is not answered at all; what asks is answered with a line that ends
with ``<CR><LF>``. A command that comes within a tenth of a second of the last one is swallowed. The doors of the
instrument cut the light.

Source: client code, which reads lines to ``<LF>``. Assumed: that a value out of range is thrown away, that a command
that is not known gets no answer, that the light stays off after the doors were open, and that ``POWER?`` tells what is
measured while there is light and what is set while there is none.
"""

from __future__ import annotations

import re
from typing import Final

from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.wire import Outbox
from cartoseq.simulators.world import World

PAUSE_S: Final = 0.1
_LATENCY_S: Final = 0.01
_LONGEST: Final = 64
_MOST_MW: Final = 500
_FAULTS: Final = {
    "interlock_open": FaultKind(
        "The laser's own safety circuit is open: the light goes out and cannot be switched on."
    ),
    "power_drift": FaultKind("The power changes by this share of it per hour.", {"share_per_hour": -0.2}),
    "dead": FaultKind("It says nothing."),
    "power_cycle": FaultKind("The power was off for a moment: the light is off and the power as delivered."),
}


class SmdLaserSim:
    """One laser.

    Args:
        name: What it is called in the rack.
        world: The bench that it acts on.
        head: The laser head.
        version: What it says to `VERSION?`.
    """

    def __init__(self, name: str, world: World, *, head: str, version: str = "SMD-G-1.1.2") -> None:
        if head not in world.optics.heads:
            raise ValueError(f"{name}: there is no laser head {head!r}")
        self.name = name
        self.world = world
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        self._head = world.optics.heads[head]
        self._version = version
        self._buffer = b""
        self._out = Outbox()
        self._last_s: float | None = None
        self._set_mw = 10
        world.optics.door_watchers.append(self._update)

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self.world.advance(now_s)
        self._buffer = (self._buffer + data)[-_LONGEST:]
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            text = line.decode("latin-1").strip()
            swallowed = self._last_s is not None and now_s - self._last_s < PAUSE_S - 1e-9
            if text and not swallowed and "dead" not in self.disturbances:
                self._last_s = now_s
                self._do(text, now_s)

    def due_s(self) -> float | None:
        """When the next answer is due."""
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """Answers that are due by now."""
        return self._out.take(now_s)

    def _do(self, text: str, now_s: float) -> None:
        if text == "ON":
            if self._interlock_closed():
                self._head.set_mw = self._set_mw
                self._head.emit(True, now_s)
        elif text == "OFF":
            self._head.emit(False, now_s)
        elif power := re.fullmatch(r"POWER=(\d{1,4})", text):
            if int(power[1]) <= min(_MOST_MW, self._head.rated_mw):
                self._set_mw = int(power[1])
                self._head.set_mw = self._set_mw
        else:
            power_mw = self._head.power_mw(now_s) if self._head.emitting else self._set_mw
            answers = {
                "POWER?": f"{round(power_mw):04d}mW",
                "STAT?": "ENABLED" if self._head.emitting else "DISABLED",
                "VERSION?": self._version,
            }
            if text in answers:
                self._out.put(now_s + _LATENCY_S, answers[text].encode() + b"\r\n")

    def _interlock_closed(self) -> bool:
        return self.world.optics.doors_closed and "interlock_open" not in self.disturbances

    def _update(self) -> None:
        if not self._interlock_closed():
            self._head.emit(False, self.world.now_s)

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self.world.advance(now_s)
        given = self.disturbances.inject(fault, values)
        if fault == "power_drift":
            self._head.drift_per_hour, self._head.drift_since_s = float(given["share_per_hour"]), now_s
        elif fault == "power_cycle":
            self._out.clear()
            self._buffer = b""
            self._last_s, self._set_mw = None, 10
            self._head.emit(False, now_s)
            self.disturbances.end(fault)
        self._update()

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; a light that went out stays out."""
        self.world.advance(now_s)
        self.disturbances.clear()
        self._head.drift_per_hour = 0.0

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self.world.advance(now_s)
        return {
            "emitting": self._head.emitting,
            "power_mw": self._head.power_mw(now_s),
            "set_mw": self._set_mw,
            "interlock_closed": self._interlock_closed(),
        }
