"""The chemistry board of a HiSeq on its wire: golden lines, what it regulates, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.simulators.devices.arm9chem import Arm9ChemSim
from cartoseq.simulators.fluidics import Speeds, make_fluidics
from cartoseq.simulators.thermal import Plate
from cartoseq.simulators.wire import ByteServer
from cartoseq.simulators.world import World


def board(**options: Any) -> Arm9ChemSim:
    fluids = make_fluidics(
        {
            "vessels": {"wash": {"volume_ul": 100.0}},
            "selectors": {"shut_off": {"ports": {1: "wash"}}},
            "syringes": {"pump": {"barrel_ul": 50.0, "ports": {"I": "shut_off"}, "port": "I"}},
        }
    )
    plates = {name: Plate() for name in ("a", "b", "c0", "c1", "c2")}
    world = World(fluids, plates)
    settings = {"flow_cells": ["a", "b"], "chillers": ["c0", "c1", "c2"], "shut_off": "shut_off"}
    return Arm9ChemSim("board", world, **(settings | options))


def ask(server: ByteServer, text: str, at_s: float) -> str:
    server.receive(text.encode() + b"\r", at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply.decode()


def test_the_golden_lines() -> None:
    sim = board()
    for name, temperature_c in (("a", 37.1), ("c0", 4.0), ("c1", 4.1), ("c2", 10.2)):
        sim.world.plates[name].plate_c = temperature_c
    assert ask(sim, "INIT", 0.0) == "A1\r\n"
    assert ask(sim, "?IDN", 0.0) == "Illumina,Bruno Fluidics Controller,0,v2.0340:A1\r\n"
    assert ask(sim, "?FCTEMP:0", 0.0) == "37.1C:A1\r\n"
    assert ask(sim, "FCTEMP:0:55.0", 0.0) == "A1\r\n"
    assert ask(sim, "?RETEMP:3", 0.0) == "4.0C:4.1C:10.2:A1\r\n"
    assert ask(sim, "?asyphon:0", 0.0) == "0:A1\r\n"
    assert ask(sim, "VACUUM:1", 0.0) == "A1\r\n"
    assert sim.inspect(0.0)["held_by_vacuum"]


def test_a_flow_cell_is_regulated_once_its_output_is_on() -> None:
    sim = board()
    ask(sim, "FCTEMP:1:55.0", 0.0)
    assert ask(sim, "?FCTEMP:1", 60.0) == "22.0C:A1\r\n"
    assert ask(sim, "FCTEC:1:1", 60.0) == "A1\r\n"
    assert ask(sim, "?FCTEMP:1", 360.0) == "55.0C:A1\r\n"
    assert ask(sim, "?FCTEMP:0", 360.0) == "22.0C:A1\r\n"
    assert ask(sim, "FCTEC:1:0", 360.0) == "A1\r\n"
    assert sim.inspect(4000.0)["flow_cell_1.plate_c"] == pytest.approx(22.0, abs=0.2)


def test_a_chiller_is_regulated_once_it_has_a_target() -> None:
    sim = board()
    assert ask(sim, "RETEMP:2:4.0", 0.0) == "A1\r\n"
    assert ask(sim, "?RETEMP:3", 600.0) == "22.0C:22.0C:4.0:A1\r\n"


def test_the_shut_off_valve_opens_the_path() -> None:
    sim = board()
    pump = sim.world.fluidics.syringes["pump"]
    pump.move(10.0, 0.0, Speeds(10.0))
    sim.inspect(2.0)
    assert pump.stalled
    assert ask(sim, "asyphon:0:1", 2.0) == "A1\r\n"
    pump.move(10.0, 2.0, Speeds(10.0))
    sim.inspect(4.0)
    assert pump.volume_ul == 10.0


def test_gains_are_taken() -> None:
    sim = board()
    assert ask(sim, "FCTEMP:0:P:0.2", 0.0) == "A1\r\n"
    assert ask(sim, "RETEC:2:I:1.1", 0.0) == "A1\r\n"


@pytest.mark.parametrize(
    "command",
    ["FOO", "FCTEMP:0:66", "FCTEMP:0:-1", "FCTEMP:2:30", "RETEMP:0:0.05", "RETEMP:0:21", "RETEMP:3:4", "FCTEC:0:2",
     "FCTEMP:0:nan", "FCTEMP:0:Q:1", "?FCTEMP:7", "VACUUM:2", "asyphon:1:1"],
)  # fmt: skip
def test_what_is_not_known_or_not_allowed_is_refused(command: str) -> None:
    assert ask(board(), command, 0.0) == "N1\r\n"


def test_faults() -> None:
    sim = board()
    ask(sim, "FCTEMP:0:50\rFCTEC:0:1", 0.0)
    sim.inspect(200.0)
    sim.inject("over_temperature", 200.0, channel=0.0, degrees=30.0)
    assert ask(sim, "?FCTEMP:0", 200.0) == "80.0C:A1\r\n"
    sim.inject("sensor_drift", 500.0, channel=0.0, kelvin=5.0)
    assert sim.inspect(800.0)["flow_cell_0.plate_c"] == pytest.approx(45.0, abs=0.1)
    sim.clear(800.0)
    sim.inject("weak", 800.0)
    assert float(sim.inspect(2600.0)["flow_cell_0.plate_c"]) < 48.0
    sim.inject("chiller_warm", 2600.0)
    ask(sim, "RETEMP:0:4", 2600.0)
    assert float(sim.inspect(4000.0)["chiller_0.plate_c"]) > 10.0
    ask(sim, "VACUUM:1", 4000.0)
    sim.inject("vacuum_leak", 4000.0)
    assert not sim.inspect(4000.0)["held_by_vacuum"]
    sim.inject("refuses", 4001.0)
    assert ask(sim, "INIT", 4001.0) == "N1\r\n"
    sim.inject("dead", 4002.0)
    assert ask(sim, "INIT", 4002.0) == ""
    sim.clear(4003.0)
    sim.inject("power_cycle", 4003.0)
    assert not sim.inspect(4003.0)["flow_cell_0.regulated"]
    with pytest.raises(ValueError, match=r"sensor_drift.channel: expected 0 to 1, found 2"):
        sim.inject("sensor_drift", 4004.0, channel=2.0)


@pytest.mark.parametrize(
    "options", [{"flow_cells": ["x"]}, {"flow_cells": []}, {"chillers": ["c0"] * 4}, {"shut_off": "x"}]
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="board: "):
        board(**options)


@settings(deadline=None)
@given(st.lists(st.text(alphabet="FCTEMRIN?VAU:0123.-PD\r", max_size=20).map(str.encode) | st.binary(max_size=20)))
def test_whatever_comes_every_line_is_answered(pieces: list[bytes]) -> None:
    sim = board()
    for piece in pieces:
        sim.receive(piece + b"\r", 0.0)
        said = b"".join(sim.messages(0.5))
        assert said.count(b"1\r\n") == len([one for one in piece.split(b"\r") if one.decode("latin-1").strip()])
