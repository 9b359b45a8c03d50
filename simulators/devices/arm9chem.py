"""The chemistry board of a HiSeq 2500 (ARM9CHEM) on its wire: temperatures, vacuum, shut-off valve.

Commands end with ``<CR>``; an answer is text in fields parted by colons, the last of which is ``A1``, and ends with
``<CR><LF>``. What is not known or not allowed is answered with ``N1``. A flow cell is regulated once its output is
switched on (``FCTEC``), a chiller once it has a target.

Source: client code, which reads lines to ``<LF>`` and takes ``N1`` for the other answer. Assumed: that ``N1`` is said
to every mistake, and that the shut-off valve is open at 1 (clients set it so while they pump). Gains of the servos are
kept and do nothing, since their units are not known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.thermal import Plate
from cartoseq.simulators.wire import Outbox
from cartoseq.simulators.world import World

VERSION: Final = "Illumina,Bruno Fluidics Controller,0,v2.0340"
FLOW_CELL_C: Final = (0.0, 65.0)
CHILLER_C: Final = (0.1, 20.0)
_LATENCY_S: Final = 0.005
_LONGEST: Final = 128
_NUMBER: Final = r"(-?\d+(?:\.\d+)?)"
_FAULTS: Final = {
    "weak": FaultKind("Only `share` of the current reaches the elements of the flow cells.", {"share": 0.05}),
    "over_temperature": FaultKind(
        "Flow cell `channel` gets `degrees` hotter by itself.", {"channel": 0.0, "degrees": 40.0}
    ),
    "sensor_drift": FaultKind(
        "The sensor of flow cell `channel` is wrong by `kelvin`.", {"channel": 0.0, "kelvin": 2.0}
    ),
    "chiller_warm": FaultKind("The chillers' elements get only `share` of their current.", {"share": 0.02}),
    "vacuum_leak": FaultKind("The vacuum does not hold the flow cells, and the board does not notice."),
    "refuses": FaultKind("Everything is answered with `N1`."),
    "dead": FaultKind("It says nothing."),
    "power_cycle": FaultKind(
        "The power was off for a moment: nothing is regulated, the vacuum is off, the valve shut."
    ),
}


class Arm9ChemSim:
    """The board.

    Args:
        name: What it is called in the rack.
        world: The bench that it acts on.
        flow_cells: The plates of the flow cells, one or two.
        chillers: The plates of the chillers, up to three.
        shut_off: A selector that stands for the shut-off valve: its port 1 is what it opens to; empty for none.
    """

    def __init__(
        self,
        name: str,
        world: World,
        *,
        flow_cells: Sequence[str],
        chillers: Sequence[str] = (),
        shut_off: str = "",
    ) -> None:
        if missing := [plate for plate in (*flow_cells, *chillers) if plate not in world.plates]:
            raise ValueError(f"{name}: there is no plate {missing[0]!r}")
        if not 1 <= len(flow_cells) <= 2 or len(chillers) > 3:
            raise ValueError(f"{name}: expected one or two flow cells and at most three chillers")
        if shut_off and shut_off not in world.fluidics.selectors:
            raise ValueError(f"{name}: there is no selector {shut_off!r}")
        self.name = name
        self.world = world
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        self._flow_cells: list[Plate] = [world.plates[plate] for plate in flow_cells]
        self._chillers: list[Plate] = [world.plates[plate] for plate in chillers]
        self._shut_off = world.fluidics.selectors[shut_off] if shut_off else None
        self._buffer = b""
        self._out = Outbox()
        self._gains: dict[str, float] = {}
        self._power_on()

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self.world.advance(now_s)
        self._buffer = (self._buffer + data)[-_LONGEST:]
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            text = line.decode("latin-1").strip()
            if text and "dead" not in self.disturbances:
                answer = "N1" if "refuses" in self.disturbances else self._do(text)
                self._out.put(now_s + _LATENCY_S, answer.encode() + b"\r\n")

    def due_s(self) -> float | None:
        """When the next answer is due."""
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """Answers that are due by now."""
        return self._out.take(now_s)

    # -------------------------------------------------------------------------------------------------------- commands

    def _do(self, text: str) -> str:
        """Carry out a command and return its answer."""
        if text == "INIT":
            return "A1"
        if text == "?IDN":
            return f"{VERSION}:A1"
        if text == "?asyphon:0":
            return f"{int(self._open)}:A1"
        if text == "?RETEMP:3" and self._chillers:
            fields = [f"{plate.measured_c:.1f}" for plate in self._chillers]
            return ":".join([*(field + "C" for field in fields[:2]), *fields[2:], "A1"])
        if ask := re.fullmatch(r"\?FCTEMP:([01])", text):
            plate = self._plate(self._flow_cells, ask[1])
            return f"{plate.measured_c:.1f}C:A1" if plate else "N1"
        return "A1" if self._set(text) else "N1"

    def _set(self, text: str) -> bool:
        """Carry out a command that sets something; return False if it is none, or not allowed."""
        if put := re.fullmatch(rf"(FCTEMP|RETEMP):(\d):{_NUMBER}", text):
            plates, (low_c, high_c) = (
                (self._flow_cells, FLOW_CELL_C) if put[1] == "FCTEMP" else (self._chillers, CHILLER_C)
            )
            plate = self._plate(plates, put[2])
            if plate is None or not low_c <= float(put[3]) <= high_c:
                return False
            plate.set_target(float(put[3]))
            if put[1] == "RETEMP":
                plate.regulate(True)
        elif switch := re.fullmatch(r"FCTEC:(\d):([01])", text):
            plate = self._plate(self._flow_cells, switch[1])
            if plate is None:
                return False
            plate.regulate(switch[2] == "1")
        elif gain := re.fullmatch(rf"(FCTEMP:[01]|RETEC:[012]):([PIDSF]):{_NUMBER}", text):
            self._gains[f"{gain[1]}:{gain[2]}"] = float(gain[3])
        elif valve := re.fullmatch(r"asyphon:0:([01])", text):
            self._turn_valve(is_open=valve[1] == "1")
        elif vacuum := re.fullmatch(r"VACUUM:([01])", text):
            self._vacuum = vacuum[1] == "1"
        else:
            return False
        return True

    @staticmethod
    def _plate(plates: list[Plate], channel: str) -> Plate | None:
        return plates[int(channel)] if int(channel) < len(plates) else None

    def _turn_valve(self, *, is_open: bool) -> None:
        self._open = is_open
        if self._shut_off is not None:
            self._shut_off.port = 1 if is_open else None

    def _power_on(self) -> None:
        self._vacuum = False
        self._gains.clear()
        for plate in (*self._flow_cells, *self._chillers):
            plate.regulate(False)
        self._turn_valve(is_open=False)

    # ---------------------------------------------------------------------------------------------------------- faults

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self.world.advance(now_s)
        given = self.disturbances.inject(fault, values)
        channel = int(float(given.get("channel", 0.0)))
        if not 0 <= channel < len(self._flow_cells):
            self.disturbances.end(fault)
            raise ValueError(f"{fault}.channel: expected 0 to {len(self._flow_cells) - 1}, found {channel}")
        if fault == "over_temperature":
            self._flow_cells[channel].plate_c += float(given["degrees"])
            self.disturbances.end(fault)
        elif fault == "sensor_drift":
            self._flow_cells[channel].sensor_error_k = float(given["kelvin"])
        elif fault in ("weak", "chiller_warm"):
            for plate in self._flow_cells if fault == "weak" else self._chillers:
                plate.drive = float(given["share"])
        elif fault == "power_cycle":
            self._out.clear()
            self._buffer = b""
            self._power_on()
            self.disturbances.end(fault)

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; what it did stays."""
        self.world.advance(now_s)
        self.disturbances.clear()
        for plate in (*self._flow_cells, *self._chillers):
            plate.drive, plate.sensor_error_k = 1.0, 0.0

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self.world.advance(now_s)
        seen: dict[str, float | str | bool] = {
            "held_by_vacuum": self._vacuum and "vacuum_leak" not in self.disturbances,
            "shut_off_open": self._open,
        }
        for kind, plates in (("flow_cell", self._flow_cells), ("chiller", self._chillers)):
            for number, plate in enumerate(plates):
                seen |= {f"{kind}_{number}.{key}": value for key, value in plate.inspect().items()}
        return seen
