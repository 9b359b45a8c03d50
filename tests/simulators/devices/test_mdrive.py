from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.simulators.devices.mdrive import BANNER, MDriveSim, checksum

HOMING = (b"PG 1", b"HM 1", b"H", b"P=30000", b"E", b"PG", b"EX 1")


def ask(sim: MDriveSim, command: bytes, now_s: float = 0.0) -> bytes:
    """Send a command, and return what comes within 10 ms."""
    sim.receive(command + b"\r", now_s)
    return b"".join(sim.messages(now_s + 0.01))


def quiet(**settings: object) -> MDriveSim:
    sim = MDriveSim("x", **settings)  # type: ignore[arg-type]
    ask(sim, b"EM=2", -2.0)
    assert ask(sim, b"S1=1,0,0", -1.0) == b""
    return sim


def homed() -> MDriveSim:
    """A drive that is homed, at 60 s."""
    sim = quiet()
    for command in HOMING:
        assert ask(sim, command, 0.0) == b""
    assert ask(sim, b"PR MV", 1.0) == b"1\r\n"
    assert ask(sim, b"PR P", 60.0) == b"30000\r\n"
    return sim


def test_the_checksum_is_that_of_the_manual() -> None:
    assert checksum(b"MR 1") == 0x90


@pytest.mark.parametrize(
    ("mode", "set_reply", "print_reply", "error_reply"),
    [
        (0, b"VM=10\r\n>", b"PR VM\r\n10\r\n>", b"FOO\r\n?"),
        (1, b"\r\n", b"10\r\n", b"\r\n"),
        (2, b"", b"10\r\n", b""),
        (3, b"VM=10\r\n>", b"PR VM\r\n10\r\n>", b"FOO\r\n?"),
    ],
)
def test_what_is_said_in_each_echo_mode(mode: int, set_reply: bytes, print_reply: bytes, error_reply: bytes) -> None:
    sim = MDriveSim("x")
    ask(sim, b"EM=%d" % mode)
    assert ask(sim, b"VM=10", 1.0) == set_reply
    assert ask(sim, b"PR VM", 2.0) == print_reply
    assert ask(sim, b"FOO", 3.0) == error_reply


def test_mode_0_echoes_each_character_as_it_comes() -> None:
    sim = MDriveSim("x")
    sim.receive(b"P", 0.0)
    assert sim.messages(0.0) == [b"P"]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (b"FOO", 60),
        (b"PR XX", 20),
        (b"XX=1", 20),
        (b"VM=0", 21),
        (b"EM=4", 21),
        (b"S1=a", 21),
        (b"MA far", 24),
        (b"MA", 24),
        (b"VM=x", 24),
        (b"MV=1", 25),
        (b"EX 9", 30),
        (b"HM 9", 21),
        (b"MA " + b"1" * 100, 60),
        (b"EE=1", 0),
        (b"DB=8", 0),
        (b"S2=3,1,0", 0),
        (b"P=100", 0),
    ],
)
def test_errors_by_their_numbers_and_reading_clears_them(command: bytes, error: int) -> None:
    sim = quiet()
    ask(sim, command)
    assert ask(sim, b"PR ER", 1.0) == b"%d\r\n" % error
    assert ask(sim, b"PR ER", 2.0) == b"0\r\n"


def test_the_stored_program_homes_and_counts_from_there() -> None:
    sim = homed()
    assert ask(sim, b"PR I1", 60.0) == b"1\r\n"
    assert sim.inspect(60.0)["x_true_steps"] == 30_000
    assert ask(sim, b"EX 1", 61.0) == b""
    assert ask(sim, b"PR ER", 61.1) == b"0\r\n"
    assert ask(sim, b"L", 62.0) == b"HM 1\r\nH\r\nP=30000\r\nE\r\n"


def test_a_program_that_runs_cannot_be_started_again() -> None:
    sim = quiet()
    for command in (*HOMING, b"EX 1"):
        ask(sim, command)
    assert ask(sim, b"PR ER", 0.1) == b"41\r\n"


def test_a_program_goes_on_while_it_moves_unless_it_holds() -> None:
    sim = homed()
    for command in (b"PG 5", b"MA 20000", b"MA 10000", b"E", b"PG", b"EX 5"):
        ask(sim, command, 60.0)
    assert ask(sim, b"PR ER", 60.5) == b"85\r\n"
    for command in (b"PG 6", b"H 2000", b"MR 100", b"H", b"MR 10", b"E", b"PG", b"EX 6"):
        ask(sim, command, 90.0)
    assert ask(sim, b"PR P", 91.9) == b"20000\r\n"
    assert ask(sim, b"PR P", 99.0) == b"20110\r\n"


def test_moves_take_their_time_in_encoder_steps() -> None:
    sim = homed()
    for command in (b"VM=1000", b"A=10000", b"D=5000", b"MA 35000"):
        ask(sim, command, 60.0)
    end_s = 60.0 + 0.1 + (5000 - 50 - 100) / 1000 + 0.2
    assert ask(sim, b"PR MV", end_s - 0.01) == b"1\r\n"
    assert ask(sim, b"PR MV", end_s + 0.01) == b"0\r\n"
    ask(sim, b"MR -100", 70.0)
    assert ask(sim, b"PR P", 75.0) == b"34900\r\n"


def test_a_second_move_while_it_moves_is_error_85() -> None:
    sim = homed()
    ask(sim, b"MA 1000", 60.0)
    ask(sim, b"MA 2000", 60.5)
    assert ask(sim, b"PR ER", 60.6) == b"85\r\n"
    assert ask(sim, b"PR P", 80.0) == b"1000\r\n"


def test_escape_stops_on_the_spot_even_within_a_command() -> None:
    sim = homed()
    ask(sim, b"MA 1000", 60.0)
    sim.receive(b"PR \x1b", 61.0)
    place = sim.inspect(61.0)["x_steps"]
    assert ask(sim, b"PR P", 61.0) == b"%d\r\n" % int(place)
    assert ask(sim, b"PR P", 62.0) == b"%d\r\n" % int(place)
    assert 1000 < int(place) < 30_000


def test_control_c_starts_anew_with_a_banner_that_is_not_ascii() -> None:
    sim = homed()
    sim.receive(b"\x03", 60.0)
    assert sim.messages(60.1) == [BANNER]
    assert b"\xa9" in BANNER
    assert ask(sim, b"PR P", 61.0) == b"PR P\r\n0\r\n>"


def test_slewing_goes_on_until_it_is_stopped_or_at_the_end() -> None:
    sim = homed()
    ask(sim, b"SL 2000", 60.0)
    ask(sim, b"SL 0", 62.0)
    assert ask(sim, b"PR MV", 63.0) == b"0\r\n"
    assert ask(sim, b"PR ER", 63.0) == b"0\r\n"
    ask(sim, b"SL 9000", 64.0)
    assert ask(sim, b"PR ER", 90.0) == b"83\r\n"
    ask(sim, b"MA 0", 91.0)
    assert ask(sim, b"PR ER", 120.0) == b"84\r\n"
    assert ask(sim, b"PR P", 120.1) == b"500\r\n"


def test_party_mode_wants_the_name_and_a_line_feed() -> None:
    sim = quiet()
    ask(sim, b"PY=1")
    sim.receive(b"XPR VM\n", 1.0)
    assert sim.messages(1.1) == [b"6144\r\n"]
    sim.receive(b"YPR VM\n", 2.0)
    assert sim.messages(2.1) == []
    sim.receive(b"*PR VM\n", 3.0)
    assert sim.messages(3.1) == [b"6144\r\n"]


def test_checksums_are_acknowledged_or_refused() -> None:
    sim = quiet()
    ask(sim, b"CK=1")
    assert ask(sim, b"PR VM" + bytes([checksum(b"PR VM")]), 1.0) == b"\x066144\r\n"
    assert ask(sim, b"PR VM\x80", 2.0) == b"\x15"
    assert ask(sim, b"MR 1\x90", 3.0) == b"\x06"


def test_homing_without_a_defined_input_or_a_switch_fails() -> None:
    sim = MDriveSim("x")
    ask(sim, b"EM=2")
    ask(sim, b"HM 1", 1.0)
    assert ask(sim, b"PR ER", 2.0) == b"80\r\n"
    sim.inject("home_switch", 3.0)
    ask(sim, b"S1=1,0,0", 3.0)
    ask(sim, b"HM 1", 4.0)
    assert ask(sim, b"PR MV", 10.0) == b"1\r\n"
    assert ask(sim, b"PR ER", 90.0) == b"82\r\n"
    assert sim.inspect(90.0)["x_true_steps"] == 50_500


def test_a_stall_is_error_86() -> None:
    sim = homed()
    sim.inject("stall", 60.0, axis="X", position_um=40_000 / 0.4096)
    ask(sim, b"MA 45000", 60.0)
    assert ask(sim, b"PR ER", 80.0) == b"86\r\n"
    assert ask(sim, b"PR P", 80.1) == b"40000\r\n"


@given(st.lists(st.binary(max_size=12), max_size=10), st.integers(0, 3))
def test_no_bytes_break_it(pieces: list[bytes], mode: int) -> None:
    sim = MDriveSim("x")
    ask(sim, b"EM=%d" % mode)
    for number, piece in enumerate(pieces):
        sim.receive(piece + b"\r", float(number))
        sim.messages(number + 0.5)
        assert (sim.due_s() or 1e9) > number + 0.5
    sim.receive(b"\x03", 99.0)
    assert sim.messages(99.5)[-1] == BANNER
    assert ask(sim, b"PR VM", 100.0) == b"PR VM\r\n6144\r\n>"
