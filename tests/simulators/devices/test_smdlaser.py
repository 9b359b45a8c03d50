"""A HiSeq's lasers on their wire: silence, the pause between commands, and the doors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.simulators.devices.smdlaser import SmdLaserSim
from cartoseq.simulators.optics import LaserHead, Optics
from cartoseq.simulators.wire import ByteServer
from cartoseq.simulators.world import World


def laser(**options: Any) -> SmdLaserSim:
    world = World(optics=Optics([LaserHead("green", 532.0, 500.0, swing=0.0)]))
    return SmdLaserSim("laser", world, **({"head": "green"} | options))


def ask(server: ByteServer, text: str, at_s: float) -> str:
    server.receive(text.encode() + b"\r", at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply.decode()


def test_only_questions_are_answered() -> None:
    sim = laser()
    assert ask(sim, "VERSION?", 0.0) == "SMD-G-1.1.2\r\n"
    assert ask(sim, "POWER=50", 1.0) == ""
    assert ask(sim, "POWER?", 2.0) == "0050mW\r\n"
    assert ask(sim, "STAT?", 3.0) == "DISABLED\r\n"
    assert ask(sim, "ON", 4.0) == ""
    assert ask(sim, "STAT?", 5.0) == "ENABLED\r\n"
    assert ask(sim, "POWER?", 6.0) == "0050mW\r\n"
    assert sim.inspect(6.0)["power_mw"] == pytest.approx(50.0)
    assert ask(sim, "OFF", 7.0) == ""
    assert ask(sim, "STAT?", 8.0) == "DISABLED\r\n"
    assert ask(sim, "FOO", 9.0) == ""


def test_a_command_that_comes_too_soon_is_swallowed() -> None:
    sim = laser()
    ask(sim, "POWER=50", 1.0)
    ask(sim, "POWER=70", 1.099)
    assert sim.inspect(1.1)["set_mw"] == 50
    ask(sim, "POWER=90", 1.1)
    assert sim.inspect(1.2)["set_mw"] == 90
    assert ask(sim, "POWER?", 1.15) == ""


@pytest.mark.parametrize("power", ["501", "-1", "5.5", "x", ""])
def test_a_power_out_of_range_is_thrown_away(power: str) -> None:
    sim = laser()
    before = sim.inspect(0.0)["set_mw"]
    assert ask(sim, f"POWER={power}", 1.0) == ""
    assert sim.inspect(1.0)["set_mw"] == before


def test_the_doors_cut_the_light() -> None:
    sim = laser()
    ask(sim, "ON", 0.0)
    sim.world.optics.move_doors(closed=False)
    assert ask(sim, "STAT?", 1.0) == "DISABLED\r\n"
    ask(sim, "ON", 2.0)
    assert ask(sim, "STAT?", 3.0) == "DISABLED\r\n"
    sim.world.optics.move_doors(closed=True)
    assert ask(sim, "STAT?", 4.0) == "DISABLED\r\n"
    ask(sim, "ON", 5.0)
    assert ask(sim, "STAT?", 6.0) == "ENABLED\r\n"


def test_faults() -> None:
    sim = laser()
    ask(sim, "POWER=100", 0.0)
    ask(sim, "ON", 1.0)
    sim.inject("power_drift", 1.0, share_per_hour=-0.5)
    assert ask(sim, "POWER?", 3601.0) == "0050mW\r\n"
    sim.inject("interlock_open", 3602.0)
    assert not sim.inspect(3602.0)["emitting"]
    sim.inject("dead", 3603.0)
    assert ask(sim, "STAT?", 3604.0) == ""
    sim.clear(3605.0)
    ask(sim, "ON", 3606.0)
    assert sim.inspect(3607.0)["emitting"]
    sim.inject("power_cycle", 3608.0)
    assert ask(sim, "STAT?", 3609.0) == "DISABLED\r\n"
    with pytest.raises(ValueError, match="there is no laser head 'x'"):
        laser(head="x")


@given(st.lists(st.binary(max_size=20)))
def test_whatever_comes_the_power_stays_in_its_range(pieces: list[bytes]) -> None:
    sim = laser()
    for second, piece in enumerate(pieces):
        sim.receive(piece + b"\r", float(second))
        sim.receive(b"POWER=" + piece + b"\r", second + 0.5)
    assert 0 <= float(sim.inspect(1000.0)["set_mw"]) <= 500
