"""Syringe pumps of the Cavro family (XP3000, XCalibur, XLP6000) and the Kloehn VersaPump, on the bytes of their wire.

A command string is checked letter by letter when it comes: one that is not known is answered with an error at once, and
nothing runs. One that asks for too much is answered well, runs up to there, and the error shows at the next query
(`simulators.devices.cavropump`). While a program runs, only reports, `T` and `Vn` are taken.

Sources: Tecan and Kloehn manuals. Assumed: a Cavro pump says nothing to a broken OEM frame; a Kloehn pump knows a
repeated frame by its holding the same string as the last one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from cartoseq.simulators.devices.cavroframes import Ear, Heard, answer
from cartoseq.simulators.devices.cavropump import (
    COMMUNICATION,
    INVALID_COMMAND,
    NEEDS_INIT,
    NOTHING_TO_RUN,
    OVERFLOW,
    Command,
    Limits,
    Pump,
)
from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.wire import Outbox
from cartoseq.simulators.world import World


@dataclass(frozen=True)
class Dialect:
    """How a make talks.

    Attributes:
        letters: Commands that a string may hold.
        reports: Queries; each stands alone.
        longest: Bytes that a string may have.
        latency_s: From the end of a command to its answer.
        after: Sent after every answer.
        firmware: What `&` reports.
        limits: Of its motors.
    """

    letters: str
    reports: frozenset[str]
    longest: int
    latency_s: float
    after: bytes
    firmware: str
    limits: Limits


DIALECTS: Final = {
    "cavro": Dialect(
        letters="ZYWAaPpDdIOBEVvcSLNgGMHXK",
        reports=frozenset(["Q", "?", "?1", "?2", "?3", "?4", "?6", "?10", "F", "?12", "?13", "?14", "?76", "&"]),
        longest=256,
        latency_s=0.005,
        after=b"",
        firmware="XP3000-1.30",
        limits=Limits(2, range(5, 6001), range(50, 1001), range(50, 2701), range(41), (1400, 900, 900, 14), False),
    ),
    "kloehn": Dialect(
        letters="WAPDIOBEVvcLgGMHX",
        reports=frozenset(["", "Q", "?", "?1", "?2", "?3", "?8", "$", "%", "&", "*", "?30", "~V", "~B", "~P"]),
        longest=170,
        latency_s=0.012,
        after=b"\xff",
        firmware="VersaPump3-23473",
        limits=Limits(1, range(40, 8001), range(40, 8001), range(40, 8001), range(0), (5000, 900, 900, 20), True),
    ),
}

_TOKEN: Final = re.compile(r"([A-Za-z])(\d{0,9}(?:,\d{1,9})*)")
_FAULTS: Final = {
    "stall": FaultKind("The plunger sticks where it passes `at_ul` of liquid in the barrel.", {"at_ul": 10.0}),
    "valve_stuck": FaultKind("The pump's valve does not turn."),
    "busy_for_ever": FaultKind("The pump says that it is busy, whatever it does."),
    "position_jump": FaultKind("The counter of the plunger is ahead by `steps` from now on.", {"steps": 100.0}),
    "power_off": FaultKind("It has no power until this is cleared: it stops, hears nothing, and forgets."),
    "power_cycle": FaultKind("The power was off for a moment: settings are lost and it is not initialised."),
    "supply_low": FaultKind("Its supply is too low: plunger moves end with error 6."),
}


class CavroSim:
    """One pump; several on one line make a `simulators.wire.Bus`.

    Args:
        name: What it is called in the rack.
        world: The bench that it acts on.
        syringe: The syringe in it; its ports are the pump's: `I`, `O` and `E` of a three-port valve (`B` is the bypass,
            to which the barrel is not connected), or `1` to `n` of a distribution valve.
        address: `1` to `?`: its address switch.
        dialect: Its make.
        framing: The protocol that it is set to.
        full_stroke_steps: Steps of the whole barrel.
        leading_byte: Whether its DT answers begin with FF, as some Cavro firmware's do.
    """

    def __init__(
        self,
        name: str,
        world: World,
        *,
        syringe: str,
        address: str = "1",
        dialect: Literal["cavro", "kloehn"] = "cavro",
        framing: Literal["dt", "oem"] = "dt",
        full_stroke_steps: int = 3000,
        leading_byte: bool = False,
    ) -> None:
        if len(address) != 1 or not "1" <= address <= "?":
            raise ValueError(f"{name}: expected an address of '1' to '?', found {address!r}")
        if dialect not in DIALECTS or framing not in ("dt", "oem"):
            raise ValueError(f"{name}: expected cavro or kloehn, dt or oem; found {dialect!r}, {framing!r}")
        if syringe not in world.fluidics.syringes:
            raise ValueError(f"{name}: there is no syringe {syringe!r}")
        self.name = name
        self.world = world
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        self._address = address
        self._is_kloehn = dialect == "kloehn"
        self._dialect = DIALECTS[dialect]
        self._oem = framing == "oem"
        self._before = b"\xff" if leading_byte else b""
        self._full_steps = full_stroke_steps
        self.pump = Pump(
            world, world.fluidics.syringes[syringe], self._dialect.limits, full_stroke_steps, self.disturbances
        )
        self._ear = Ear(self._oem)
        self._out = Outbox()
        self._stored: list[Command] = []
        self._done: list[Command] = []
        self._last: tuple[int, str] | None = None

    # ------------------------------------------------------------------------------------------------------------ wire

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self.world.advance(now_s)
        for heard in self._ear.hear(data):
            if heard.is_for(self._address) and "power_off" not in self.disturbances:
                self._hear(heard, now_s)

    def due_s(self) -> float | None:
        """When the next answer is due."""
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """Answers that are due by now."""
        return self._out.take(now_s)

    def _hear(self, heard: Heard, now_s: float) -> None:
        self.pump.look()
        if not heard.sound:
            if not self._is_kloehn:
                return
            error, data = COMMUNICATION, ""
        elif self._is_repeat(heard):
            error, data = self.pump.error, ""
        else:
            error, data = self._do(heard.text)
        if heard.wants_answer:
            status = 0x40 | (0 if self.pump.is_busy else 0x20) | error
            kind = self._dialect
            self._out.put(
                now_s + kind.latency_s, answer(status, data, oem=self._oem, before=self._before, after=kind.after)
            )

    def _is_repeat(self, heard: Heard) -> bool:
        """Whether an OEM frame is one that was done already, sent again; a new one is remembered."""
        sequence, last = heard.sequence, self._last
        if sequence is None:
            return False
        if self._is_kloehn:
            known = 0x3A <= sequence <= 0x3F and last is not None and heard.text == last[1]
        else:
            known = bool(sequence & 0x08) and last is not None and sequence & 0x07 == last[0] & 0x07
        if not known:
            self._last = (sequence, heard.text)
        return known

    # -------------------------------------------------------------------------------------------------------- commands

    def _do(self, text: str) -> tuple[int, str]:
        """Carry out a string and return the error and the data of its answer."""
        pump = self.pump
        name = text.removesuffix("R") if text != "R" else text
        if name in self._dialect.reports:
            return pump.error, self._report(name)
        if name == "T":
            pump.terminate()
            return pump.error, ""
        if pump.is_busy:
            if on_the_fly := re.fullmatch(r"V(\d{1,9})", name):
                return pump.change_speed(int(on_the_fly[1])), ""
            return OVERFLOW, ""
        if len(text) > self._dialect.longest:
            return OVERFLOW, ""
        if text == "R":
            return self._run_stored(), ""
        commands = self._parse(name)
        if not commands:
            return INVALID_COMMAND, ""
        if pump.error in NEEDS_INIT and not any(letter == "W" for letter, _ in commands):
            return pump.error, ""
        self._stored = self._done if commands == [("X", ())] else commands
        return (self._run_stored(), "") if text.endswith("R") else (pump.error, "")

    def _parse(self, text: str) -> list[Command]:
        """Return the commands of a string, or none where a letter is not known or a loop is not begun."""
        commands: list[Command] = []
        at = depth = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None or token[1] not in self._dialect.letters:
                return []
            letter, numbers = token[1], tuple(int(number) for number in token[2].split(",") if number)
            commands.append((letter, numbers))
            if letter in "ZY":  # turn the valve, then find home
                commands.append(("W", numbers[:1]))
            depth += (letter == "g") - (letter == "G")
            if depth < 0:
                return []
            at = token.end()
        return commands

    def _run_stored(self) -> int:
        """Run what is stored, or go on after a halt; return the error that the answer shows."""
        if self.pump.halted and not self._stored:
            self.pump.go_on()
        elif self._stored:
            self._done, self._stored = self._stored, []
            self.pump.run(self._done)
        else:
            return NOTHING_TO_RUN if self._is_kloehn else self.pump.error
        return 0

    def _report(self, name: str) -> str:
        pump = self.pump
        top, start, end, slope = pump.speeds
        port = pump.syringe.port or "B"
        reports: dict[str, float | str] = {
            "?": pump.counter_steps,
            "?1": start,
            "?2": top,
            "?3": end,
            "&": self._dialect.firmware,
        }
        if self._is_kloehn:
            reports |= {
                "?8": int(port) if port.isdigit() else "IOBE".index(port) + 1,
                "?30": slope,
                "$": pump.valve_stalls,
                "%": pump.valve_moves,
                "*": 85 if "supply_low" in self.disturbances else 120,
                "~V": len(pump.syringe.ports),
                "~B": 9600,
                "~P": 2 if self._oem else 1,
            }
        else:
            reports |= {
                "?4": round(pump.true_steps),
                "?6": port.lower(),
                "?10": int(bool(self._stored)),
                "F": int(bool(self._stored)),
                "?12": pump.backlash,
                "?13": 1,
                "?14": 1,
                "?76": f"{self._dialect.firmware} {self._full_steps} {pump.syringe.barrel_ul:g}",
            }
        return str(reports.get(name, ""))

    # ---------------------------------------------------------------------------------------------------------- faults

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self.world.advance(now_s)
        given = self.disturbances.inject(fault, values)
        if fault == "stall":
            self.pump.syringe.sticks_at_ul = float(given["at_ul"])
        elif fault == "position_jump":
            self.pump.offset_steps += float(given["steps"])
            self.disturbances.end(fault)
        elif fault == "supply_low" and not self._is_kloehn:
            self.disturbances.end(fault)
            raise ValueError("a Cavro pump does not watch its supply")
        elif fault in ("power_cycle", "power_off"):
            self._out.clear()
            self._stored, self._last = [], None
            self.pump.power_on()
            if fault == "power_cycle":
                self.disturbances.end(fault)

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; what it did stays."""
        self.world.advance(now_s)
        self.disturbances.clear()
        self.pump.syringe.sticks_at_ul = None

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self.world.advance(now_s)
        pump = self.pump
        pump.look()
        return {
            "plunger_ul": pump.syringe.volume_ul,
            "counter_steps": pump.counter_steps,
            "port": pump.syringe.port or "",
            "initialized": pump.initialized,
            "busy": pump.is_busy,
            "error": pump.error,
        }
