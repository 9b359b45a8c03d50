from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.simulators.devices.vix import BANNER, VixSim


def ask(sim: VixSim, command: bytes, now_s: float = 0.0) -> bytes:
    """Send a command, and return what comes within 10 ms."""
    sim.receive(command + b"\r\n", now_s)
    return b"".join(sim.messages(now_s + 0.01))


def ready(**settings: float) -> VixSim:
    """A drive that is homed, energised and quiet, at 60 s."""
    sim = VixSim("y", **settings)  # type: ignore[arg-type]
    ask(sim, b"1W(EX,0)", 0.0)
    for command in (b"1MA", b"1ON", b"1V1.5", b"1GH"):
        assert ask(sim, command, 1.0) == b""
    assert ask(sim, b"1R(PA)", 59.0) == b"*+0\r\n"
    return sim


def word(*bits: int) -> bytes:
    digits = "".join("1" if bit in bits else "0" for bit in range(1, 33))
    return b"*" + "_".join(digits[begin : begin + 4] for begin in range(0, 32, 4)).encode() + b"\r\n"


def test_a_reset_says_its_banner_after_a_while_and_is_deaf_until_then() -> None:
    sim = ready()
    assert ask(sim, b"1Z", 60.0) == b""
    assert ask(sim, b"1R(PA)", 61.0) == b""
    assert sim.messages(62.0) == [BANNER]
    assert BANNER.count(b"\r\n") > 2
    assert ask(sim, b"1W(EX,0)", 62.0) == b"1W(EX,0)\r"
    assert ask(sim, b"1R(PA)", 63.0) == b"*+0\r\n"
    assert ask(sim, b"1R(ST)", 64.0) == word()


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"1R(PA)", b"*+0\r\n"),
        (b"1R(PT)", b"*+0\r\n"),
        (b"1R(IP)", b"*1\r\n"),
        (b"1R(MV)", b"*0\r\n"),
        (b"1R(ST)", word(9, 20)),
        (b"1R(DF)", word()),
        (b"1R(UF)", word()),
        (b"1R(XX)", b"*E\r\n"),
        (b"1FOO", b""),
        (b"2R(PA)", b""),
        (b"1D-7000000", b""),
        (b"1GAINS(5,10,5,2,0)", b""),
        (b"1GAINS(5,10,7,1.5,0)", b""),
        (b"1V0.154", b""),
        (b"1S", b""),
        (b"1K", b""),
    ],
)
def test_replies_when_spoken_to(command: bytes, reply: bytes) -> None:
    assert ask(ready(), command, 60.0) == reply


@pytest.mark.parametrize(
    ("command", "bit"),
    [(b"1FOO", 2), (b"1D 5", 2), (b"1V0", 1), (b"1D9999999999", 1), (b"1W(EX,7)", 1), (b"1" + b"D" * 90, 2)],
)
def test_errors_are_user_faults_and_reading_clears_them(command: bytes, bit: int) -> None:
    sim = ready()
    assert ask(sim, command, 60.0) == b""
    assert ask(sim, b"1R(UF)", 61.0) == word(bit)
    assert ask(sim, b"1R(UF)", 62.0) == word()


@pytest.mark.parametrize(("mode", "heard"), [(0, b""), (1, b"*E\r\n"), (2, b"1FOO\r"), (3, b"1FOO\r*E\r\n")])
def test_what_is_said_in_each_mode(mode: int, heard: bytes) -> None:
    sim = VixSim("y")
    ask(sim, b"1W(EX,%d)" % mode)
    assert ask(sim, b"1FOO", 1.0) == heard


def test_a_move_takes_its_time_and_its_status_tells() -> None:
    sim = ready(um_per_rev=10_000.0, acceleration_um_per_s2=100_000.0)
    ask(sim, b"1V1", 60.0)
    ask(sim, b"1D1000000", 60.0)
    assert ask(sim, b"1R(IP)", 60.5) == b"*0\r\n"
    ask(sim, b"1G", 61.0)
    assert ask(sim, b"1R(ST)", 62.09) == word(9, 19)
    assert ask(sim, b"1R(ST)", 62.11) == word(9, 20)
    assert ask(sim, b"1R(PA)", 63.0) == b"*+1000000\r\n"
    ask(sim, b"1D-5", 63.0)
    ask(sim, b"1G", 63.0)
    assert ask(sim, b"1R(PA)", 70.0) == b"*-5\r\n"


def test_while_it_moves_reports_of_status_come_at_once_and_others_at_the_end() -> None:
    sim = ready()
    ask(sim, b"1V1", 60.0)
    ask(sim, b"1D1000000", 60.0)
    ask(sim, b"1G", 61.0)
    assert ask(sim, b"1R(PA)", 61.5) == b""
    assert ask(sim, b"1R(DF)", 61.6) == word()
    assert sim.due_s() == pytest.approx(62.1)
    assert sim.messages(62.2) == [b"*+1000000\r\n"]


def test_a_second_go_while_it_moves_is_still_moving() -> None:
    sim = ready()
    ask(sim, b"1D1000000", 60.0)
    ask(sim, b"1G", 60.0)
    ask(sim, b"1G", 60.1)
    assert ask(sim, b"1R(UF)", 60.2) == word(14)


@pytest.mark.parametrize("stop", [b"1S", b"1K"])
def test_a_stop_leaves_it_in_between_and_drops_what_waited(stop: bytes) -> None:
    sim = ready()
    ask(sim, b"1D1000000", 60.0)
    ask(sim, b"1G", 60.0)
    ask(sim, b"1R(PA)", 60.1)
    assert ask(sim, stop, 60.3) == b""
    place = ask(sim, b"1R(PA)", 61.0)
    assert place.count(b"*") == 1
    assert 0 < int(place[1:]) < 1_000_000
    assert ask(sim, b"1R(IP)", 61.1) == b"*0\r\n"


def test_without_current_it_does_not_go() -> None:
    sim = ready()
    ask(sim, b"1OFF", 60.0)
    ask(sim, b"1D100", 60.0)
    ask(sim, b"1G", 60.0)
    assert ask(sim, b"1R(PA)", 61.0) == b"*+0\r\n"
    assert ask(sim, b"1R(UF)", 61.1) == word(8)


def test_the_end_of_travel_stops_it() -> None:
    sim = ready()
    ask(sim, b"1D9000000", 60.0)
    ask(sim, b"1G", 60.0)
    assert ask(sim, b"1R(ST)", 90.0) == word(9, 14)
    assert ask(sim, b"1R(UF)", 90.1) == word(13)
    assert ask(sim, b"1R(PA)", 90.2) == b"*+7700000\r\n"


def test_a_stall_is_a_tracking_fault_and_current_must_be_switched_on_again() -> None:
    sim = ready()
    sim.inject("stall", 60.0, axis="Y", position_um=1000.0)
    ask(sim, b"1D1000000", 60.0)
    ask(sim, b"1G", 60.0)
    assert ask(sim, b"1R(DF)", 70.0) == word(1, 19, 21)
    assert ask(sim, b"1R(ST)", 70.1) == word()
    sim.clear(71.0)
    ask(sim, b"1ON", 71.0)
    assert ask(sim, b"1R(DF)", 71.1) == word()
    ask(sim, b"1G", 72.0)
    assert ask(sim, b"1R(PA)", 90.0) == b"*+1000000\r\n"


def test_a_homing_that_is_stopped_has_failed() -> None:
    sim = VixSim("y", start_um=50_000.0)
    for command in (b"1W(EX,0)", b"1ON", b"1GH"):
        ask(sim, command)
    ask(sim, b"1S", 0.5)
    assert ask(sim, b"1R(UF)", 5.0) == word(6)


def test_a_drive_fault_lets_go() -> None:
    sim = ready()
    sim.inject("drive", 60.0, bit=4)
    assert ask(sim, b"1R(DF)", 60.0) == word(1, 4, 21)
    with pytest.raises(ValueError, match="2 to 32"):
        sim.inject("drive", 60.0, bit=1)


def test_busy_for_ever_keeps_what_waits_waiting() -> None:
    sim = ready()
    sim.inject("busy_for_ever", 60.0)
    assert ask(sim, b"1R(PA)", 61.0) == b""
    assert ask(sim, b"1R(ST)", 62.0) == word(9, 19)
    sim.clear(63.0)
    assert sim.messages(64.0) == [b"*+0\r\n"]


@given(st.lists(st.binary(max_size=12), max_size=10))
def test_no_bytes_break_it(pieces: list[bytes]) -> None:
    sim = ready()
    for number, piece in enumerate(pieces):
        sim.receive(b"1" + piece + b"\r", 60.0 + number)
        sim.messages(60.5 + number)
        assert (sim.due_s() or 1e9) > 60.5 + number
    ask(sim, b"1Z", 500.0)
    assert sim.messages(510.0)[-1] == BANNER
