from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.simulators.devices.asi import AsiSim


def ask(sim: AsiSim, command: bytes, now_s: float = 0.0) -> bytes:
    """Send a command, and return what comes within 50 ms."""
    sim.receive(command, now_s)
    return b"".join(sim.messages(now_s + 0.05))


def tiger() -> AsiSim:
    return AsiSim("stage", controller="tiger")


def test_the_session_with_a_tiger() -> None:
    sim = tiger()
    assert ask(sim, b"BU X\r") == (
        b"TIGER_COMM\rMotor Axes: X Y Z\rAxis Types: x x z\rAxis Addr: 1 1 2\r"
        b"Hex Addr: 31 31 32\rAxis Props: 10 10 10\r\r\n"
    )
    assert ask(sim, b"M X=12345 Y=-200\r") == b":A \r\n"
    assert ask(sim, b"RS X? Y? Z?\r", 0.2) == b":A BNN \r\n"
    assert ask(sim, b"W X Y\r", 9.0) == b":A 12345 -200 \r\n"
    assert ask(sim, b"RS X? Y? Z?\r", 9.0).strip() == b":A NNN"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"/\r", b"N\r\n"),
        (b"w x y\r", b":A 0 0 \r\n"),
        (b"W Z X\r", b":A 0 0 \r\n"),
        (b"R X=-1000\r", b":A \r\n"),
        (b"\\\r", b":A \r\n"),
        (b"HALT\r", b":A \r\n"),
        (b"H X=0 Y=0\r", b":A \r\n"),
        (b"S X=5.745 Y=5.745\r", b":A \r\n"),
        (b"S X?\r", b":A X=5.745 \r\n"),
        (b"S X? Y?\r", b":A X=5.745 Y=5.745 \r\n"),
        (b"AC X?\r", b":X=50 \r\n"),
        (b"B X?\r", b":X=0.040000 \r\n"),
        (b"E Y?\r", b":Y=0.000400 \r\n"),
        (b"PC X?\r", b":A X=0.000024 \r\n"),
        (b"SL X?\r", b":A X=-57.500 \r\n"),
        (b"SU X?\r", b":A X=57.500 \r\n"),
        (b"V\r", b":A Version: USB-9.2m \r\n"),
        (b"VB F=0\r", b":A \r\n"),
        (b"M X\r", b":A \r\n"),
        (b"M X=\r", b":A \r\n"),
        (b"FOO\r", b":N-1\r\n"),
        (b"FOO X=1\r", b":N-1\r\n"),
        (b"M Q=1\r", b":N-2\r\n"),
        (b"M X=a\r", b":N-2\r\n"),
        (b"M\r", b":N-3\r\n"),
        (b"W\r", b":N-3\r\n"),
        (b"M X=575001\r", b":N-4\r\n"),
        (b"S X=99\r", b":N-4\r\n"),
        (b"2HALT\r", b":N-1\r\n"),
        (b"RS X\r", b":A 10 \r\n"),
        (b"RS X?\r", b":N-2\r\n"),
        (b"M X=" + b"0" * 200 + b"\r", b":N-1\r\n"),
        (b"\r\r", b""),
    ],
)
def test_replies_of_an_ms2000(command: bytes, reply: bytes) -> None:
    assert ask(AsiSim("stage"), command) == reply


def test_firmware_without_blanks_and_with_decimals() -> None:
    sim = AsiSim("stage", spaces=False, decimals=1)
    assert ask(sim, b"M X=12345\r") == b":A\r\n"
    assert ask(sim, b"W X Y\r", 9.0) == b":A 12345.0 0.0\r\n"


def test_a_move_takes_the_time_of_its_speed_and_ramp() -> None:
    sim = AsiSim("stage")
    assert ask(sim, b"M X=12345 Y=-200\r", 10.0) == b":A \r\n"
    end_s = 10.0 + 1.2345 / 5.745 + 0.05
    assert ask(sim, b"/\r", end_s - 0.001) == b"B\r\n"
    assert ask(sim, b"/\r", end_s + 0.001) == b"N\r\n"
    assert sim.inspect(end_s + 1)["x_position_um"] == 1234.5


def test_speed_and_ramp_are_set_for_the_next_move() -> None:
    sim = AsiSim("stage")
    ask(sim, b"S X=1\r")
    ask(sim, b"AC X=200\r")
    ask(sim, b"M X=10000\r", 1.0)
    assert ask(sim, b"/\r", 2.19) == b"B\r\n"
    assert ask(sim, b"/\r", 2.21) == b"N\r\n"
    assert ask(sim, b"S X?\r", 3.0) == b":A X=1.000 \r\n"


def test_a_halt_leaves_it_in_between_and_says_so() -> None:
    sim = AsiSim("stage")
    ask(sim, b"M X=100000 Y=100\r")
    assert ask(sim, b"\\\r", 1.0) == b":N-21\r\n"
    assert ask(sim, b"/\r", 1.2) == b"N\r\n"
    counts = sim.inspect(2.0)["x_counts"]
    assert isinstance(counts, float)
    assert 50_000 < counts < 60_000
    assert ask(sim, b"W X Y\r", 2.0) == b":A %d 100 \r\n" % round(counts)
    assert ask(sim, b"\\\r", 2.0) == b":A \r\n"


def test_a_refused_target_moves_no_axis() -> None:
    sim = AsiSim("stage")
    assert ask(sim, b"M X=100 Y=999999\r") == b":N-4\r\n"
    assert ask(sim, b"/\r") == b"N\r\n"


def test_soft_limits_hold_and_stay_in_place_when_the_origin_moves() -> None:
    sim = AsiSim("stage")
    ask(sim, b"SU X=1.5\r")
    assert ask(sim, b"M X=15001\r") == b":N-4\r\n"
    assert ask(sim, b"M X=10000\r") == b":A \r\n"
    ask(sim, b"H X=0\r", 9.0)
    assert ask(sim, b"W X\r", 9.0) == b":A 0 \r\n"
    assert ask(sim, b"SU X?\r", 9.0) == b":A X=0.500 \r\n"
    assert ask(sim, b"M X=5001\r", 9.0) == b":N-4\r\n"


def test_the_status_byte_tells_ramps_and_limits() -> None:
    sim = AsiSim("stage")
    ask(sim, b"! X\r")
    assert ask(sim, b"RS X\r", 0.01) == b":A 31 \r\n"
    assert ask(sim, b"RS X\r", 1.0) == b":A 15 \r\n"
    assert ask(sim, b"RS X\r", 60.0) == b":A 74 \r\n"
    assert sim.inspect(60.0)["x_position_um"] == 57_500.0


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"31BU X\r", b"STD_XY\rMotor Axes: X Y\rAxis Types: x x\rAxis Props: 10 10\r\r\n"),
        (b"2BU X\r", b"STD_Z\rMotor Axes: Z\rAxis Types: z\rAxis Props: 10\r\r\n"),
        (b"0 V\r", b":A Version: USB-9.2m \r\n"),
        (b"5V\r", b":N-7\r\n"),
        (b"\x81V\r", b":N-7\r\n"),
        (b"1HALT\r", b":A \r\n"),
    ],
)
def test_cards_of_a_tiger(command: bytes, reply: bytes) -> None:
    assert ask(tiger(), command) == reply


def test_a_card_is_halted_alone() -> None:
    sim = tiger()
    ask(sim, b"M X=100000 Z=20000\r")
    assert ask(sim, b"2HALT\r", 0.2) == b":N-21\r\n"
    assert ask(sim, b"RS X? Z?\r", 0.3).strip() == b":A BN"


def test_replies_come_in_turn_and_commands_in_pieces() -> None:
    sim = AsiSim("stage", latency_s=0.01)
    sim.receive(b"W ", 0.0)
    sim.receive(b"X\r/\r", 0.5)
    assert sim.due_s() == pytest.approx(0.51)
    assert sim.messages(0.515) == [b":A 0 \r\n"]
    assert sim.messages(0.52) == [b"N\r\n"]


# ------------------------------------------------------------------------------------------------------------- faults


def test_every_fault_says_what_it_does() -> None:
    sim = AsiSim("stage")
    assert set(sim.faults) == {
        *("busy_for_ever", "jump", "limit", "power_cycle", "power_off", "refuse", "reset", "stall"),
    }
    assert all(sentence.endswith(".") for sentence in sim.faults.values())


def test_a_stall_ends_the_move_short_of_its_target() -> None:
    sim = AsiSim("stage")
    sim.inject("stall", 0.0, axis="x", position_um=400.0)
    ask(sim, b"M X=10000\r")
    assert ask(sim, b"/\r", 9.0) == b"N\r\n"
    assert ask(sim, b"W X\r", 9.0) == b":A 4000 \r\n"
    assert sim.inspect(9.0)["x_last_move"] == "stalled"
    sim.clear(9.0)
    ask(sim, b"M X=10000\r", 9.0)
    assert ask(sim, b"W X\r", 20.0) == b":A 10000 \r\n"


def test_a_limit_switch_within_the_travel_shows_in_the_status() -> None:
    sim = AsiSim("stage")
    sim.inject("limit", 0.0, axis="Y", position_um=-300.0)
    ask(sim, b"M Y=-10000\r")
    assert ask(sim, b"RS Y\r", 9.0) == b":A 138 \r\n"


def test_a_joystick_moves_it_without_a_command() -> None:
    sim = AsiSim("stage")
    sim.inject("jump", 0.0, axis="Z", by_um=-12.5)
    assert ask(sim, b"W Z\r") == b":A -125 \r\n"


def test_busy_for_ever_until_it_is_cleared() -> None:
    sim = tiger()
    sim.inject("busy_for_ever", 0.0, axis="Y")
    assert ask(sim, b"/\r", 9.0) == b"B\r\n"
    assert ask(sim, b"RS X? Y?\r", 9.0).strip() == b":A NB"
    sim.clear(9.0)
    assert ask(sim, b"/\r", 9.0) == b"N\r\n"


def test_without_power_there_is_no_reply_and_the_counter_and_settings_are_lost() -> None:
    sim = AsiSim("stage")
    ask(sim, b"S X=1\r")
    ask(sim, b"M X=10000\r")
    sim.receive(b"/\r", 0.5)
    sim.inject("power_cycle", 0.5, off_s=2.0)
    assert sim.messages(1.0) == []
    assert ask(sim, b"W X\r", 1.0) == b""
    place_um = sim.inspect(1.0)["x_position_um"]
    assert sim.due_s() == 2.5
    assert ask(sim, b"W X\r", 2.5) == b":A 0 \r\n"
    assert ask(sim, b"S X?\r", 2.6) == b":A X=5.745 \r\n"
    assert sim.inspect(3.0)["x_position_um"] == place_um
    sim.inject("power_off", 3.0)
    assert ask(sim, b"/\r", 99.0) == b""
    assert sim.inspect(99.0)["powered"] is False
    sim.clear(100.0)
    assert ask(sim, b"/\r", 100.0) == b"N\r\n"


def test_one_command_is_refused_with_a_code() -> None:
    sim = AsiSim("stage")
    sim.inject("refuse", 0.0, code=5)
    assert ask(sim, b"M X=1\r") == b":N-5\r\n"
    assert ask(sim, b"M X=1\r") == b":A \r\n"


@pytest.mark.parametrize(
    ("fault", "values", "complaint"),
    [
        ("melt", {}, "knows no fault 'melt'; it knows busy_for_ever"),
        ("stall", {"axis": "X"}, "needs position_um"),
        ("stall", {"axis": "Q", "position_um": 1.0}, "has no axis 'Q'; it has X, Y, Z"),
        ("stall", {"axis": "X", "position_um": "far"}, "position_um is a finite number, found 'far'"),
        ("stall", {"axis": "X", "position_um": math.nan}, "position_um is a finite number"),
        ("stall", {"axis": 1.0, "position_um": 1.0}, "axis is a text"),
        ("reset", {"axis": "X"}, "takes no axis; it takes none"),
        ("power_cycle", {"off_s": -1.0}, "off_s is at least 0"),
    ],
)
def test_what_is_no_fault_is_refused(fault: str, values: dict[str, float | str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        AsiSim("stage").inject(fault, 0.0, **values)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"controller": "lx4000"}, "ms2000 or tiger"),
        ({"axes": ["X", "X"]}, "different single letters"),
        ({"travel_um": {"Q": [0, 1]}}, "not there: Q"),
        ({"travel_um": {"X": [5, 1]}}, "position within a travel"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        AsiSim("stage", **settings)  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=12), max_size=12), st.booleans())
def test_no_bytes_break_it(pieces: list[bytes], has_cards: bool) -> None:
    sim = tiger() if has_cards else AsiSim("stage")
    for number, piece in enumerate(pieces):
        sim.receive(piece + b"\r" * (number % 2), float(number))
        for message in sim.messages(float(number)):
            assert message.endswith(b"\r\n")
        assert (sim.due_s() or 1e9) > number
    sim.receive(b"\rV\r", 99.0)
    assert sim.messages(99.9)[-1] == b":A Version: USB-9.2m \r\n"


@given(st.integers(-575_000, 575_000), st.integers(-375_000, 375_000))
def test_it_stands_where_it_was_sent_to_the_count(x: int, y: int) -> None:
    sim = AsiSim("stage")
    ask(sim, b"M X=%d Y=%d\r" % (x, y))
    assert ask(sim, b"W X Y\r", 60.0) == b":A %d %d \r\n" % (x, y)
