"""Selector valves on their wire: both kinds of actuator, their silences, and what is really connected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.simulators.devices.vici import ViciSim
from cartoseq.simulators.fluidics import make_fluidics
from cartoseq.simulators.wire import Bus, ByteServer
from cartoseq.simulators.world import World


def world() -> World:
    return World(make_fluidics({"vessels": {"a": {}, "b": {}}, "selectors": {"one": {"ports": {1: "a", 5: "b"}}}}))


def valve(**options: Any) -> ViciSim:
    return ViciSim("valve", world(), selector="one", **options)


def ask(server: ByteServer, data: bytes, at_s: float) -> bytes:
    server.receive(data, at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply


def port(sim: ViciSim, at_s: float) -> int:
    return int(sim.inspect(at_s)["port"])


# ----------------------------------------------------------------------------------------------------------- universal


def test_queries_of_the_universal_actuator() -> None:
    sim = valve()
    assert ask(sim, b"CP\r", 0.0) == b"CP01\r"
    assert ask(sim, b"NP\r", 0.0) == b"NP10\r"
    assert ask(sim, b"AM\r", 0.0) == b"AM3\r"
    assert ask(sim, b"CNT\r", 0.0) == b"CNT0\r"
    assert ask(sim, b"VR\r", 0.0).startswith(b"VR")
    assert ask(sim, b"ID\r", 0.0) == b"IDnot used\r"
    assert b"GO" in ask(sim, b"/?\r", 0.0)


def test_a_move_takes_its_time_and_nothing_is_said() -> None:
    sim = valve(port_s=0.2)
    assert ask(sim, b"GO5\r", 1.0) == b""
    assert sim.inspect(1.5) == {"port": 0, "turning": True, "turns": 4}
    assert ask(sim, b"CP\r", 1.5) == b"CP03\r"
    assert ask(sim, b"CP\r", 1.81) == b"CP05\r"
    assert sim.world.inspect(2.0)["one.port"] == 5


def test_the_shorter_way_is_taken_unless_a_direction_is_set() -> None:
    sim = valve(port_s=0.2)
    for command, turned in [(b"GO9\r", 2), (b"CW1\r", 2), (b"CC9\r", 2), (b"CC1\r", 8), (b"SMF\rGO10\r", 9)]:
        before = float(sim.inspect(100.0)["turns"])
        start_s = sim.world.now_s + 10
        ask(sim, command, start_s)
        assert sim.inspect(start_s + turned * 0.2 - 0.01)["turning"]
        assert not sim.inspect(start_s + turned * 0.2)["turning"]
        assert float(sim.inspect(start_s + 5)["turns"]) - before == turned


def test_with_a_response_the_move_is_repeated_once_it_is_done() -> None:
    sim = valve(response=1, port_s=0.2)
    sim.receive(b"GO5\r", 1.0)
    assert sim.due_s() == pytest.approx(1.0 + 0.8 + 0.004)
    assert sim.messages(2.0) == [b"GO5\r"]
    assert ask(sim, b"IFM2\rGO1\r", 3.0) == b"CP01\r"
    assert ask(sim, b"IFM0\rGO5\r", 10.0) == b""


def test_next_home_and_steps() -> None:
    sim = valve(port_s=0.1)
    now_s = 0.0
    for command, there in [(b"GO\r", 2), (b"CW\r", 3), (b"CC\r", 2), (b"GO10\r", 10), (b"GO\r", 1), (b"HM\r", 1)]:
        now_s += 5.0
        ask(sim, command, now_s)
        assert port(sim, now_s + 2.0) == there


def test_the_old_style_of_answers() -> None:
    assert ask(valve(), b"LG1\rCP\rNP\r", 0.0) == b"CP = 01\rNP = 10\r"


@pytest.mark.parametrize("command", [b"GO11\r", b"GO0\r", b"GOA\r", b"XYZ\r", b"NP99\r", b"TO\r", b"AM7\r", b"-\r"])
def test_what_it_does_not_know_is_a_bad_command(command: bytes) -> None:
    sim = valve()
    assert ask(sim, command, 0.0) == command[:-1] + b"Bad command\r"
    assert port(sim, 10.0) == 1


def test_addresses_on_both_lines() -> None:
    sim = valve(rs485=True, identifier="Z")
    assert ask(sim, b"CP\rZCP\r/YCP\r", 0.0) == b""
    assert ask(sim, b"/ZCP\r", 0.0) == b"CP01\r"
    assert ask(sim, b"*CP\r", 0.0) == b"CP01\r"
    sim = valve()
    ask(sim, b"ID7\r", 0.0)
    assert ask(sim, b"CP\r", 0.0) == b""
    assert ask(sim, b"7CP\r7ID\r", 0.0) == b"CP01\rID7\r"
    ask(sim, b"*ID*\r", 0.0)
    assert ask(sim, b"CP\r", 0.0) == b"CP01\r"


def test_two_valves_on_one_line() -> None:
    line = Bus([valve(rs485=True, identifier="A", n_ports=6), valve(rs485=True, identifier="B", n_ports=12)])
    assert ask(line, b"/ANP\r", 0.0) == b"NP06\r"
    assert ask(line, b"/BNP\r", 0.0) == b"NP12\r"


def test_the_delimiter_can_be_changed() -> None:
    sim = valve()
    assert ask(sim, b"DEL3\rCP\r\n", 0.0) == b"CP01\r\n"
    assert ask(sim, b"DEL2\rCP\n", 0.0) == b"CP01\n"


def test_a_two_position_valve_has_letters() -> None:
    sim = valve(two_position=True, port_s=0.1)
    assert ask(sim, b"CP\r", 0.0) == b"CPA\r"
    ask(sim, b"GOB\r", 0.0)
    assert ask(sim, b"CP\r", 1.0) == b"CPB\r"
    ask(sim, b"TO\r", 1.0)
    assert ask(sim, b"CP\r", 2.0) == b"CPA\r"
    ask(sim, b"CC\r", 2.0)
    assert ask(sim, b"CP\r", 3.0) == b"CPB\r"
    ask(sim, b"DT500\rTT\r", 3.0)
    assert ask(sim, b"CP\r", 3.3) == b"CPA\r"
    assert ask(sim, b"CP\r", 4.0) == b"CPB\r"
    assert ask(sim, b"IFM1\rLRN\r", 5.0) == b"LRN\r"
    assert ask(sim, b"CP\r", 20.0) == b"CPA\r"


def test_a_second_move_on_the_way_is_thrown_away() -> None:
    sim = valve(port_s=0.2)
    ask(sim, b"GO5\r", 0.0)
    ask(sim, b"GO2\r", 0.3)
    assert port(sim, 5.0) == 5


# ----------------------------------------------------------------------------------------------------------------- EMT


def test_the_older_actuator_answers_in_sentences() -> None:
    sim = valve(dialect="emt")
    assert ask(sim, b"GO3\r\n", 0.0) == b""
    assert ask(sim, b"CP\r\n", 5.0) == b"Position is  = 3\r\n"
    assert ask(sim, b"NP\r", 5.0) == b"NP = 10\r\n"
    assert ask(sim, b"ID\r", 5.0) == b"ID = not used\r\n"
    assert ask(sim, b"GO3\r", 5.0) == b"GO3 = Bad command\r\n"
    assert ask(sim, b"IFM1\r", 5.0) == b"IFM1 = Bad command\r\n"
    assert ask(sim, b"SB9600\rSB9600\r", 5.0) == b""


def test_a_byte_of_noise_may_precede_an_answer() -> None:
    sim = valve(dialect="emt", bogus_byte=True)
    sim.receive(b"CP\r", 1.0)
    assert sim.due_s() == pytest.approx(1.006)
    assert sim.messages(2.0) == [b"\x00Position is  = 1\r\n"]


# -------------------------------------------------------------------------------------------------------------- faults


def test_a_stuck_valve_tells_where_it_stands() -> None:
    sim = valve(response=1)
    sim.inject("stuck", 0.0)
    assert ask(sim, b"GO5\r", 0.0) == b"GO5\r"
    assert ask(sim, b"CP\r", 5.0) == b"CP01\r"
    sim.clear(5.0)
    ask(sim, b"GO5\r", 5.0)
    assert ask(sim, b"CP\r", 10.0) == b"CP05\r"


def test_a_valve_may_stop_one_off_or_between() -> None:
    sim = valve()
    sim.inject("one_off", 0.0)
    ask(sim, b"GO5\r", 0.0)
    assert ask(sim, b"CP\r", 5.0) == b"CP06\r"
    sim.clear(5.0)
    sim.inject("positioning_error", 5.0)
    ask(sim, b"GO5\r", 5.0)
    assert ask(sim, b"CP\r", 10.0) == b"CP00\r"
    assert sim.world.inspect(10.0)["one.port"] == 0
    ask(sim, b"GO5\r", 10.0)
    assert ask(sim, b"CP\r", 15.0) == b"CP05\r"


def test_other_faults() -> None:
    sim = valve(port_s=0.2)
    sim.inject("wrong_number_of_ports", 0.0, ports=6)
    assert ask(sim, b"NP\rGO7\r", 0.0) == b"NP06\rGO7Bad command\r"
    sim.inject("slow", 0.0, times=3)
    ask(sim, b"GO3\r", 0.0)
    assert sim.inspect(1.1)["turning"]
    assert ask(sim, b"CP\r", 0.5) == b"CP01\r"
    assert ask(sim, b"CP\r", 1.0) == b"CP02\r", "it is not there before it is there"
    sim.inject("power_off", 2.0)
    assert ask(sim, b"CP\r", 2.0) == b""
    sim.clear(3.0)
    assert ask(sim, b"CP\r", 3.0) == b"CP03\r"
    sim.inject("power_cycle", 4.0)
    assert ask(sim, b"CP\r", 4.0) == b"CP03\r"


@pytest.mark.parametrize(
    "options",
    [{"selector": "x"}, {"dialect": "x"}, {"identifier": "zz"}, {"response": 3}, {"n_ports": 1}, {"rs485": True}],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="valve: "):
        ViciSim("valve", world(), **({"selector": "one"} | options))


_COMMANDS = st.text(alphabet="GOCPWNHMTLRAIDFSBVKE0123456789/*?\r\n", max_size=30).map(str.encode) | st.binary(
    max_size=20
)


@settings(deadline=None)
@given(st.lists(_COMMANDS, max_size=15), st.sampled_from(["universal", "emt"]), st.booleans())
def test_whatever_comes_it_stands_somewhere(pieces: list[bytes], dialect: Any, two: bool) -> None:
    sim = valve(dialect=dialect, two_position=two, response=1)
    for second, piece in enumerate(pieces):
        ask(sim, piece, float(second))
    assert 1 <= port(sim, 1000.0) <= 40
