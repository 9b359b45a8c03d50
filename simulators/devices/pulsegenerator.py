"""A function generator as a source of trigger pulses, on its wire: SCPI (`simulators.devices.scpi`).

Only pulses: continuous while the output is on, or bursts of a number of pulses, each started by ``*TRG`` or from
outside. Whoever is triggered (a camera) adds itself to `watchers` and is told every rising edge at its time.

The commands are those that makers share; limits are this simulator's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.devices.scpi import (
    CONFLICT,
    TRIGGER_IGNORED,
    ScpiError,
    ScpiInstrument,
    boolean,
    choice,
    number,
)
from cartoseq.simulators.world import Event, World

_FREQUENCY_HZ: Final = (1e-3, 1e6)
_WIDTH_S: Final = (1e-7, 1e3)
_VOLTS: Final = (-10.0, 10.0)
_CYCLES: Final = (1, 1_000_000)
_FAULTS: Final = {
    "lost_pulses": FaultKind("The next `pulses` do not come out.", {"pulses": 1.0}),
    "busy_for_ever": FaultKind("A burst never ends for it: `*OPC?` is not answered."),
    "power_cycle": FaultKind("The power was off for a moment: settings are as delivered and the output is off."),
}


class PulseGeneratorSim:
    """One generator.

    Args:
        name: What it is called in the rack.
        world: The bench whose time it keeps.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        #: Given the time of each rising edge and the width of the pulse, in seconds.
        self.watchers: list[Callable[[float, float], None]] = []
        self.pulses = 0
        self._next: Event | None = None
        self._left = 0
        self._scpi = ScpiInstrument("Cartoseq,PULSE-1,0001,1.0", reset=self._reset)
        self._reset()
        self._add_commands()

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self.world.advance(now_s)
        self._scpi.receive(data, now_s)

    def due_s(self) -> float | None:
        """When the next answer is due."""
        return self._scpi.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """Answers that are due by now."""
        self.world.advance(now_s)
        return self._scpi.messages(now_s)

    def trigger(self, now_s: float) -> None:
        """Give it an edge at its trigger input."""
        self.world.advance(now_s)
        if self._source == "EXT" and self._can_start():
            self._start_burst(now_s)

    # -------------------------------------------------------------------------------------------------------- commands

    def _add_commands(self) -> None:
        scpi = self._scpi
        scpi.command("[SOURce#]:FUNCtion", self._set_function, most=1)
        scpi.query("[SOURce#]:FUNCtion", lambda _: "PULS")
        self._numeric("FREQuency", "_frequency_hz", *_FREQUENCY_HZ)
        self._numeric("PULSe:WIDTh", "_width_s", *_WIDTH_S)
        self._numeric("VOLTage:HIGH", "_high_v", *_VOLTS)
        self._numeric("VOLTage:LOW", "_low_v", *_VOLTS)
        self._numeric("BURSt:NCYCles", "_cycles", *_CYCLES)
        scpi.command("[SOURce#]:BURSt:STATe", self._set_burst, most=1)
        scpi.query("[SOURce#]:BURSt:STATe", lambda _: str(int(self._bursts)))
        scpi.command("TRIGger#:SOURce", self._set_source, most=1)
        scpi.query("TRIGger#:SOURce", lambda _: self._source)
        scpi.command("OUTPut#:[STATe]", self._set_output, most=1)
        scpi.query("OUTPut#:[STATe]", lambda _: str(int(self._output)))
        scpi.command("*TRG", lambda _: self._bus_trigger())

    def _numeric(self, header: str, attribute: str, low: float, high: float) -> None:
        """Add a command and a query of a number."""

        def put(values: list[str]) -> None:
            before = getattr(self, attribute)
            setattr(self, attribute, number(values[0], low, high))
            if self._width_s >= 1 / self._frequency_hz or self._low_v >= self._high_v:
                setattr(self, attribute, before)
                raise ScpiError(CONFLICT)

        def ask(values: list[str]) -> str:
            return f"{number(values[0], low, high) if values else getattr(self, attribute):+.8E}"

        self._scpi.command(f"[SOURce#]:{header}", put, most=1)
        self._scpi.query(f"[SOURce#]:{header}", ask, most=1)

    @staticmethod
    def _set_function(values: list[str]) -> None:
        choice(values[0], ("PULSe",))

    def _set_burst(self, values: list[str]) -> None:
        self._bursts = boolean(values[0])
        self._run()

    def _set_source(self, values: list[str]) -> None:
        self._source = choice(values[0], ("IMMediate", "BUS", "EXTernal"))
        self._run()

    def _set_output(self, values: list[str]) -> None:
        self._output = boolean(values[0])
        self._run()

    def _bus_trigger(self) -> None:
        if self._source != "BUS" or not self._can_start():
            raise ScpiError(TRIGGER_IGNORED)
        self._start_burst(self._scpi.now_s)

    # ---------------------------------------------------------------------------------------------------------- pulses

    def _reset(self) -> None:
        self._frequency_hz = 1000.0
        self._width_s = 1e-4
        self._high_v, self._low_v = 5.0, 0.0
        self._cycles = 1.0
        self._bursts = False
        self._source = "IMM"
        self._output = False
        self._run()

    def _run(self) -> None:
        """Begin to give pulses without end, or stop giving any."""
        if self._next is not None:
            self._next.cancel()
        self._next = None
        self._left = 0
        self._scpi.busy_until_s = min(self._scpi.busy_until_s, self._scpi.now_s)
        if self._output and not self._bursts:
            self._left = -1
            self._next = self.world.at(self._scpi.now_s, self._pulse)

    def _can_start(self) -> bool:
        return self._output and self._bursts and self._left == 0

    def _start_burst(self, now_s: float) -> None:
        self._left = int(self._cycles)
        self._next = self.world.at(now_s, self._pulse)
        length_s = (self._left - 1) / self._frequency_hz + self._width_s
        for_ever = "busy_for_ever" in self.disturbances
        self._scpi.busy_until_s = math.inf if for_ever else now_s + length_s

    def _pulse(self, now_s: float) -> None:
        """Give a pulse, and plan the next."""
        self._next = None
        if "lost_pulses" in self.disturbances:
            left = self.disturbances.number("lost_pulses", "pulses") - 1
            self.disturbances.end("lost_pulses")
            if left > 0:
                self.disturbances.inject("lost_pulses", {"pulses": left})
        else:
            self.pulses += 1
            for tell in self.watchers:
                tell(now_s, self._width_s)
        if self._left > 0:
            self._left -= 1
        if self._left:
            self._next = self.world.at(now_s + 1 / self._frequency_hz, self._pulse)

    # ---------------------------------------------------------------------------------------------------------- faults

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self.world.advance(now_s)
        self.disturbances.inject(fault, values)
        if fault == "power_cycle":
            self._scpi.power_on()
            self._reset()
            self.disturbances.end(fault)

    def clear(self, now_s: float) -> None:
        """Take back every disturbance."""
        self.world.advance(now_s)
        self.disturbances.clear()
        if math.isinf(self._scpi.busy_until_s):
            self._scpi.release(now_s)

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self.world.advance(now_s)
        return {
            "pulses": self.pulses,
            "output": self._output,
            "frequency_hz": self._frequency_hz,
            "width_ms": self._width_s * 1000,
            "pulses_left": max(0, self._left),
        }
