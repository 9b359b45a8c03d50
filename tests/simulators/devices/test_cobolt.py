"""Cobolt lasers on their wire: answers, autostart and key, faults, and the quirks that were seen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.simulators.devices.cobolt import CoboltSim
from cartoseq.simulators.optics import LaserHead, Optics
from cartoseq.simulators.wire import ByteServer
from cartoseq.simulators.world import World


def laser(**options: Any) -> CoboltSim:
    world = World(optics=Optics([LaserHead("blue", 473.0, 100.0, swing=0.0)]))
    return CoboltSim("laser", world, **({"head": "blue", "warm_up_s": 10.0} | options))


def ask(server: ByteServer, text: str, at_s: float) -> str:
    server.receive(text.encode() + b"\r", at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    assert reply.endswith(b"\r\n")
    return reply.decode()[:-2]


def test_light_by_command_after_the_warm_up() -> None:
    sim = laser()
    assert ask(sim, "@cobas?", 0.0) == "0"
    assert ask(sim, "p 0.05", 0.0) == "OK"
    assert ask(sim, "p?", 0.0) == "0.0500"
    assert ask(sim, "l1", 1.0) == "OK"
    assert ask(sim, "l?", 1.0) == "0"
    assert ask(sim, "gom?", 1.0) == "1"
    assert sim.world.inspect(10.1)["blue.emitting"]
    assert ask(sim, "l?", 11.0) == "1"
    assert ask(sim, "pa?", 12.0) == "0.0500"
    assert ask(sim, "i?", 12.0) == "100.0"
    assert ask(sim, "gom?", 12.0) == "2"
    assert ask(sim, "l0", 12.0) == "OK"
    assert ask(sim, "pa?", 12.0) == "0.0000"
    assert ask(sim, "gom?", 12.0) == "0"


def test_with_autostart_it_begins_by_itself_and_l1_is_not_allowed() -> None:
    sim = laser(autostart=True)
    assert ask(sim, "l1", 0.0) == "Syntax error: only allowed when autostart is disabled"
    assert ask(sim, "l?", 9.9) == "0"
    assert ask(sim, "l?", 10.1) == "1"
    assert ask(sim, "@cob0", 11.0) == "OK"
    assert ask(sim, "l?", 11.0) == "0"
    assert ask(sim, "@cob1", 12.0) == "OK"
    assert ask(sim, "l?", 20.0) == "0"
    assert ask(sim, "l?", 22.1) == "1"
    assert ask(sim, "@cobas 0", 23.0) == "OK"
    assert ask(sim, "l1", 23.0) == "OK"


def test_a_crystal_has_other_numbers_of_its_state() -> None:
    sim = laser(kind="dpss", autostart=True)
    assert ask(sim, "gom?", 1.0) == "3"
    assert ask(sim, "gom?", 11.0) == "4"
    sim.inject("key_off", 12.0)
    assert ask(sim, "gom?", 12.0) == "2"
    assert ask(sim, "@cobasks?", 12.0) == "0"
    assert ask(sim, "l?", 12.0) == "0"
    sim.clear(13.0)
    assert ask(sim, "l?", 13.0) == "1"


def test_modes_of_current_and_modulation() -> None:
    sim = laser(warm_up_s=0.0)
    assert ask(sim, "gam?", 0.0) == "1"
    assert ask(sim, "ci", 0.0) == "OK"
    assert ask(sim, "slc 64", 0.0) == "OK"
    assert ask(sim, "l1", 0.0) == "OK"
    assert ask(sim, "pa?", 5.0) == "0.0200"
    assert ask(sim, "em", 5.0) == "OK"
    assert ask(sim, "gam?", 5.0) == "2"
    assert ask(sim, "gom?", 5.0) == "4"
    assert ask(sim, "cp", 5.0) == "OK"


@pytest.mark.parametrize("command", ["foo", "foo?", "p", "p x", "p -1", "p nan", "l1 1", "@cobas 2", "1p?"])
def test_what_it_does_not_know_is_illegal(command: str) -> None:
    assert ask(laser(), command, 0.0) == "Syntax error: illegal command"


@pytest.mark.parametrize("command", ["p 0.1001", "slc 500"])
def test_what_is_too_much_is_refused(command: str) -> None:
    assert ask(laser(), command, 0.0) == "Syntax error: value out of range"


@pytest.mark.parametrize("door", [True, False])
def test_an_open_safety_circuit_is_a_fault_until_it_is_cleared(door: bool) -> None:
    sim = laser(warm_up_s=0.0)
    ask(sim, "l1", 0.0)
    if door:
        sim.world.optics.move_doors(closed=False)
        assert not sim.world.optics.heads["blue"].emitting
    else:
        sim.inject("interlock_open", 1.0)
    assert [ask(sim, query, 1.0) for query in ("l?", "ilk?", "f?", "gom?")] == ["0", "1", "3", "5"]
    assert ask(sim, "l1", 1.0) == "Syntax error: only allowed when interlock is closed"
    sim.world.optics.move_doors(closed=True)
    sim.clear(2.0)
    assert ask(sim, "l1", 2.0) == "Syntax error: only allowed when there is no fault"
    assert ask(sim, "cf", 2.0) == "OK"
    assert ask(sim, "f?", 2.0) == "0"
    assert ask(sim, "l?", 2.0) == "0"
    assert ask(sim, "l1", 2.0) == "OK"
    assert ask(sim, "l?", 2.0) == "1"


@pytest.mark.parametrize(("fault", "code"), [("over_temperature", "1"), ("power_not_reached", "4")])
def test_a_fault_that_is_still_there_comes_back(fault: str, code: str) -> None:
    sim = laser(warm_up_s=0.0)
    ask(sim, "l1", 0.0)
    sim.inject(fault, 1.0)
    assert not sim.inspect(1.0)["emitting"]
    ask(sim, "cf", 1.0)
    assert ask(sim, "f?", 1.0) == code


def test_the_quirks_that_were_seen() -> None:
    sim = laser()
    sim.inject("empty_reply", 0.0)
    assert ask(sim, "l0", 0.0) == "OK"
    assert ask(sim, "l?", 0.0) == ""
    assert ask(sim, "l?", 0.0) == "0"
    sim.inject("stray_one", 0.0, replies=2)
    assert [ask(sim, query, 0.0) for query in ("l?", "pa?", "p?", "pa?")] == ["0", "1", "1", "0.0000"]


def test_drift_hours_and_a_power_cycle() -> None:
    sim = laser(warm_up_s=0.0)
    ask(sim, "l1", 0.0)
    sim.inject("power_drift", 0.0, share_per_hour=-0.5)
    assert ask(sim, "pa?", 3600.0) == "0.0250"
    assert ask(sim, "hrs?", 3600.0) == "1.00"
    sim.inject("power_cycle", 3600.0)
    assert ask(sim, "l?", 3601.0) == "0"
    assert ask(sim, "hrs?", 7200.0) == "1.00"


@pytest.mark.parametrize("query", ["gmlp?", "sn?", "gsn?", "gfv?", "glm?", "i?"])
def test_every_query_has_a_value(query: str) -> None:
    assert ask(laser(), query, 0.0) not in ("", "Syntax error: illegal command")


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no laser head 'x'"):
        laser(head="x")
    with pytest.raises(ValueError, match="expected diode or dpss, found 'gas'"):
        laser(kind="gas")


@settings(deadline=None)
@given(st.lists(st.text(alphabet="@cobaslpgmie?f01. -\r", max_size=20).map(str.encode) | st.binary(max_size=20)))
def test_whatever_comes_every_line_is_answered(pieces: list[bytes]) -> None:
    sim = laser()
    for second, piece in enumerate(pieces):
        sim.receive(piece + b"\r", float(second))
        said = b"".join(sim.messages(second + 0.5))
        assert said.count(b"\r\n") == len([one for one in piece.split(b"\r") if one.decode("latin-1").strip()])
