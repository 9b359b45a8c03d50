from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.simulators.devices.prior import PriorSim


def ask(sim: PriorSim, command: bytes, now_s: float = 0.0) -> bytes:
    """Send a command, and return what comes within 10 ms."""
    sim.receive(command + b"\r", now_s)
    return b"".join(sim.messages(now_s + 0.01))


def test_the_session_in_standard_mode() -> None:
    sim = PriorSim("stage", compatibility=True)
    assert ask(sim, b"COMP 0", 0.0) == b"0\r"
    assert ask(sim, b"G,1000,2000", 1.0) == b"R\r"
    assert ask(sim, b"$", 1.02) == b"3\r"
    assert ask(sim, b"$", 2.0) == b"0\r"
    assert ask(sim, b"PS", 3.0) == b"1000,2000\r"
    assert ask(sim, b"FOO", 4.0) == b"E,5\r"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"P", b"0,0,0\r"),
        (b"ps", b"0,0\r"),
        (b"PX", b"0\r"),
        (b"G 1 2", b"R\r"),
        (b"G=1;2:3", b"R\r"),
        (b"GR,-1,2", b"R\r"),
        (b"GX,5", b"R\r"),
        (b"GY\t5", b"R\r"),
        (b"V,-5", b"R\r"),
        (b"P,1,2,3", b"0\r"),
        (b"PS,1,2", b"0\r"),
        (b"Z", b"0\r"),
        (b"$,S", b"0\r"),
        (b"=", b"00\r"),
        (b"LMT", b"00\r"),
        (b"I", b"R\r"),
        (b"K", b"R\r"),
        (b"SMS", b"50\r"),
        (b"SMS,80", b"0\r"),
        (b"SAZ 1", b"0\r"),
        (b"SMS,0", b"E,8\r"),
        (b"RES,s", b"0.1\r"),
        (b"RES,s,0.5", b"0\r"),
        (b"RES,q", b"E,10\r"),
        (b"RES,s,0", b"E,11\r"),
        (b"RES,s,a", b"E,4\r"),
        (b"COMP", b"0\r"),
        (b"COMP 7", b"E,10\r"),
        (b"G,1", b"E,4\r"),
        (b"G,1,2,3,4", b"E,4\r"),
        (b"G,1,b", b"E,4\r"),
        (b"G," + b"1" * 200, b"E,4\r"),
        (b"VERSION", b"290\r"),
        (b"", b""),
        (b" ,", b""),
    ],
)
def test_replies_in_standard_mode(command: bytes, reply: bytes) -> None:
    assert ask(PriorSim("stage"), command) == reply


def test_texts_of_several_lines_end_with_end() -> None:
    sim = PriorSim("stage")
    lines = ask(sim, b"?").split(b"\r")
    assert lines[0] == b"PROSCAN INFORMATION"
    assert lines[-2:] == [b"END", b""]
    stage = ask(sim, b"STAGE", 1.0).split(b"\r")
    assert stage[0] == b"STAGE = H101/2"
    assert b"SIZE_X = 108 MM" in stage
    assert b"MICROSTEPS/MICRON = 25" in stage
    assert stage[-2:] == [b"END", b""]


def test_a_move_takes_the_time_of_its_percentages() -> None:
    sim = PriorSim("stage")  # 10 mm/s and 100 mm/s^2 at 50 %
    ask(sim, b"G,100000,0", 1.0)
    assert ask(sim, b"$", 2.09) == b"1\r"
    assert ask(sim, b"$", 2.11) == b"0\r"
    ask(sim, b"SMS,100", 3.0)
    ask(sim, b"SAS,100", 3.0)
    ask(sim, b"G,0,0", 4.0)
    assert ask(sim, b"$", 4.59) == b"1\r"
    assert ask(sim, b"$", 4.61) == b"0\r"


def test_moves_queue_up_and_a_relative_one_begins_where_the_last_ended() -> None:
    sim = PriorSim("stage")
    assert ask(sim, b"G,1000,0") == b"R\r"
    assert ask(sim, b"GR,10,20", 0.01) == b"R\r"
    assert ask(sim, b"V,-50", 0.02) == b"R\r"
    assert ask(sim, b"$", 0.03) == b"7\r"
    assert ask(sim, b"$", 9.0) == b"0\r"
    assert ask(sim, b"P", 9.0) == b"1010,20,-50\r"


def test_a_hundred_moves_wait_and_no_more() -> None:
    sim = PriorSim("stage")
    for _ in range(101):
        assert ask(sim, b"GR,1000,0", 0.0)[-2:] in (b"R\r", b"")
    assert sim.inspect(0.0)["queued_moves"] == 100
    sim.messages(5.0)
    ask(sim, b"I", 5.0)
    for _ in range(101):
        sim.receive(b"GR,300000,0\r", 5.0)
    sim.messages(6.0)
    assert ask(sim, b"GR,1000,0", 6.0) == b"E,18\r"


@pytest.mark.parametrize(("stop", "rest_steps"), [(b"I", 60_000), (b"K", 55_000)])
def test_a_stop_empties_the_queue_and_leaves_it_in_between(stop: bytes, rest_steps: int) -> None:
    sim = PriorSim("stage")
    ask(sim, b"G,100000,0")
    ask(sim, b"G,0,0", 0.01)
    assert ask(sim, stop, 0.6) == b"R\r"
    assert ask(sim, b"$", 1.0) == b"0\r"
    assert ask(sim, b"PX", 1.0) == b"%d\r" % rest_steps


def test_in_compatibility_mode_the_reply_comes_when_the_move_has_ended() -> None:
    sim = PriorSim("stage", compatibility=True)
    assert ask(sim, b"G,100000,0", 1.0) == b""
    assert ask(sim, b"PX", 1.6) == b"55000\r"
    assert sim.due_s() == pytest.approx(2.1)
    assert sim.messages(2.05) == []
    assert sim.messages(2.1 + 1e-9) == [b"R\r"]


def test_in_compatibility_mode_a_stop_ends_the_move_and_both_are_answered() -> None:
    sim = PriorSim("stage", compatibility=True)
    ask(sim, b"G,100000,0")
    assert ask(sim, b"I", 0.5) == b"R\rR\r"
    assert sim.messages(9.0) == []


def test_homing_finds_the_switches_and_counts_from_there() -> None:
    sim = PriorSim("stage")
    assert ask(sim, b"SIS", 0.0) == b""
    assert ask(sim, b"SIS", 0.1) == b"E,2\r"
    assert ask(sim, b"P,0,0,0", 0.2) == b"E,2\r"
    assert sim.messages(20.0) == [b"R\r"]
    assert ask(sim, b"PS", 20.0) == b"0,0\r"
    assert ask(sim, b"=", 20.0) == b"0A\r"
    ask(sim, b"G,100,100", 21.0)
    assert ask(sim, b"LMT", 30.0) == b"00\r"


def test_restoring_the_index_comes_back() -> None:
    sim = PriorSim("stage")
    ask(sim, b"G,500,-500")
    sim.receive(b"RIS\r", 5.0)
    assert sim.messages(60.0) == [b"R\r"]
    assert ask(sim, b"PS", 60.0) == b"500,-500\r"


def test_limits_are_latched_until_they_are_read() -> None:
    sim = PriorSim("stage")
    ask(sim, b"G,9999999,0")
    ask(sim, b"G,0,0", 30.0)
    assert ask(sim, b"LMT", 60.0) == b"00\r"
    assert ask(sim, b"=", 60.0) == b"01\r"
    assert ask(sim, b"=", 60.1) == b"00\r"


def test_quirks_of_some_stages() -> None:
    sim = PriorSim("stage", focus=False, start_percent=150, resolution_um=0.0)
    assert ask(sim, b"SMS") == b"150\r"
    assert ask(sim, b"RES,s", 1.0) == b"0\r"
    assert ask(sim, b"SMS,150", 2.0) == b"0\r"
    assert ask(sim, b"V,1", 3.0) == b"E,7\r"
    assert ask(sim, b"P", 4.0) == b"0,0,0\r"
    ask(sim, b"G,10,0", 5.0)
    assert sim.inspect(9.0)["x_position_um"] == 1.0


def test_another_resolution_counts_the_same_place_otherwise() -> None:
    sim = PriorSim("stage")
    ask(sim, b"G,1000,0")
    ask(sim, b"RES,s,0.5", 9.0)
    assert ask(sim, b"PX", 9.0) == b"200\r"


def test_errors_may_be_texts() -> None:
    sim = PriorSim("stage")
    assert ask(sim, b"ERROR,1") == b"0\r"
    assert ask(sim, b"FOO", 1.0) == b"E,COMMAND NOT FOUND\r"


# ------------------------------------------------------------------------------------------------------------- faults


def test_device_faults() -> None:
    sim = PriorSim("stage")
    sim.inject("queue_full", 0.0)
    assert ask(sim, b"G,1,1") == b"E,18\r"
    sim.inject("busy_for_ever", 0.0, axis="Z")
    assert ask(sim, b"$", 1.0) == b"4\r"
    sim.clear(2.0)
    assert ask(sim, b"$", 2.0) == b"0\r"
    sim.inject("refuse", 2.0, code=61)
    assert ask(sim, b"G,1,1", 3.0) == b"E,61\r"
    sim.inject("stall", 3.0, axis="X", position_um=10.0)
    assert ask(sim, b"G,1000,0", 4.0) == b"R\r"
    assert ask(sim, b"$", 9.0) == b"0\r"
    assert ask(sim, b"PX", 9.1) == b"100\r"
    sim.inject("reset", 10.0)
    assert ask(sim, b"PX", 10.0) == b"0\r"


def test_a_power_cycle_ends_the_moves() -> None:
    sim = PriorSim("stage", compatibility=True)
    ask(sim, b"G,100000,0")
    ask(sim, b"SMS,100", 0.1)
    sim.inject("power_cycle", 0.5, off_s=1.0)
    assert sim.messages(9.0) == []
    assert ask(sim, b"SMS", 9.0) == b"50\r"
    assert ask(sim, b"P", 9.1) == b"0,0,0\r"


@given(st.lists(st.binary(max_size=16), max_size=10), st.booleans())
def test_no_bytes_break_it(pieces: list[bytes], compatibility: bool) -> None:
    sim = PriorSim("stage", compatibility=compatibility)
    for number, piece in enumerate(pieces):
        sim.receive(piece + b"\r", float(number))
        for message in sim.messages(float(number)):
            assert message.endswith(b"\r")
        assert (sim.due_s() or 1e9) > number
    sim.receive(b"\rVERSION\r", 99.0)
    assert sim.messages(99.9)[-1] == b"290\r"


@given(st.lists(st.tuples(st.integers(-200_000, 200_000), st.integers(-200_000, 200_000)), min_size=1, max_size=8))
def test_it_ends_at_the_last_target_to_the_step(targets: list[tuple[int, int]]) -> None:
    sim = PriorSim("stage")
    for x, y in targets:
        sim.receive(b"G,%d,%d\r" % (x, y), 0.0)
    assert sim.messages(1000.0) == [b"R\r"] * len(targets)
    assert ask(sim, b"PS", 1000.0) == b"%d,%d\r" % targets[-1]
