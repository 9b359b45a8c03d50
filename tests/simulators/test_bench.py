"""Pump, valves, board and laser on one bench, each on its own wire: what one does, the others see."""

from __future__ import annotations

import pytest

from cartoseq.simulators.devices.arm9chem import Arm9ChemSim
from cartoseq.simulators.devices.cavro import CavroSim
from cartoseq.simulators.devices.obis import ObisSim
from cartoseq.simulators.devices.pm100 import Pm100Sim
from cartoseq.simulators.devices.vici import ViciSim
from cartoseq.simulators.wire import ByteServer
from cartoseq.simulators.world import World, make_world


def bench() -> World:
    return make_world(
        {
            "vessels": {"scan": {"volume_ul": 2000}, "wash": {"volume_ul": 5000}, "waste": {}},
            "selectors": {
                "inlets": {"ports": {1: "scan", 2: "wash"}, "port": 2},
                "shut_off": {"ports": {1: "inlets"}},
            },
            "pipes": {
                "tube": {"volume_ul": 50, "far": "shut_off", "reagent": "wash"},
                "flow_cell": {"volume_ul": 30, "far": "tube", "reagent": "wash"},
            },
            "syringes": {"pump": {"barrel_ul": 250, "ports": {"I": "flow_cell", "O": "waste"}, "port": "O"}},
            "plates": {"flow_cell_plate": {}},
            "lasers": {"green": {"wavelength_nm": 532, "rated_mw": 100, "swing": 0, "rise_s": 0}},
            "beam": {"objective": 0.5},
        }
    )


def say(server: ByteServer, text: bytes, at_s: float) -> bytes:
    server.receive(text, at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply


def test_a_reagent_is_drawn_through_the_flow_cell_into_the_waste() -> None:
    world = bench()
    pump = CavroSim("pump", world, syringe="pump", dialect="kloehn", full_stroke_steps=48000)
    valve = ViciSim("valve", world, selector="inlets", n_ports=10, dialect="emt")
    board = Arm9ChemSim("board", world, flow_cells=["flow_cell_plate"], shut_off="shut_off")
    before = world.fluidics.volumes_fl()
    say(pump, b"/1W4R\r", 0.0)
    say(board, b"asyphon:0:1\r", 1.0)
    say(valve, b"GO1\r", 1.0)
    assert say(valve, b"CP\r", 5.0) == b"Position is  = 1\r\n"
    say(pump, b"/1IV4000A24000R\r", 5.0)
    assert say(pump, b"/1Q\r", 8.0) == b"/0@\x03\r\n\xff"
    assert say(pump, b"/1Q\r", 12.0) == b"/0`\x03\r\n\xff"
    seen = world.inspect(12.0)
    assert (seen["flow_cell.reagent"], seen["flow_cell.purity"]) == ("scan", 1.0)
    assert seen["scan.drawn_ul"] == pytest.approx(125.0)
    say(pump, b"/1OV7000A0R\r", 12.0)
    seen = world.inspect(30.0)
    assert seen["waste.volume_ul"] == pytest.approx(125.0)
    assert world.fluidics.volumes_fl() == before


def test_a_valve_that_turns_under_a_stroke_stalls_the_pump() -> None:
    world = bench()
    pump = CavroSim("pump", world, syringe="pump", dialect="kloehn", full_stroke_steps=48000)
    valve = ViciSim("valve", world, selector="inlets", dialect="emt")
    world.fluidics.selectors["shut_off"].port = 1
    say(pump, b"/1W4R\r", 0.0)
    say(pump, b"/1IV400A24000R\r", 2.0)
    say(valve, b"GO1\r", 20.0)
    assert say(pump, b"/1Q\r", 21.0) == b"/0i\x03\r\n\xff"
    assert world.inspect(100.0)["pump.volume_ul"] == pytest.approx(17.75 * 400 / 48000 * 250, rel=0.01)


def test_the_power_meter_sees_the_laser_until_the_doors_open() -> None:
    world = bench()
    laser = ObisSim("laser", world, head="green", warm_up_s=0.0)
    meter = Pm100Sim("meter", world)
    say(meter, b"SENS:CORR:WAV 532;:SENS:AVER:COUN 100\n", 0.0)
    say(laser, b"SOUR:POW:LEV:IMM:AMPL 0.08\r\n", 0.0)
    say(laser, b"SOUR:AM:STAT ON\r\n", 0.0)
    assert float(say(meter, b"MEAS:POW?\n", 4.0)) < 1e-6
    assert float(say(meter, b"MEAS:POW?\n", 6.0)) == pytest.approx(0.04, rel=0.01)
    world.optics.move_doors(closed=False)
    assert float(say(meter, b"MEAS:POW?\n", 7.0)) < 1e-6
