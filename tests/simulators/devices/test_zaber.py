from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.simulators.devices.zaber import WARNINGS, ZaberSim, checksum
from cartoseq.simulators.wire import Bus


def ask(sim: ZaberSim | Bus, command: bytes, now_s: float = 0.0) -> bytes:
    """Send a command, and return what comes within 5 ms."""
    sim.receive(command + b"\n", now_s)
    return b"".join(sim.messages(now_s + 0.005))


def homed(**settings: object) -> ZaberSim:
    """A device whose axes are at 0 and homed, at 10 s."""
    sim = ZaberSim("stage", **settings)  # type: ignore[arg-type]
    assert ask(sim, b"/1 home") == b"@01 0 OK BUSY WR 0\r\n"
    assert ask(sim, b"/1", 10.0).endswith(b"@01 0 OK IDLE -- 0\r\n")
    return sim


@pytest.mark.parametrize(
    "message",
    [
        b"@01 0 OK IDLE -- 0:8D",
        b"@01 1 OK BUSY WR 12345:49",
        b"@01 1 05 RJ IDLE -- BADDATA:54",
        b"/01 1 05 move abs 10000:8B",
        b"/1 1 00 get pos:2C",
    ],
)
def test_the_checksum_is_that_of_the_protocol(message: bytes) -> None:
    body, check = message[1:].split(b":")
    assert checksum(body) == check


def test_replies_repeat_the_id_and_carry_a_checksum_if_the_command_did() -> None:
    sim = homed()
    assert ask(sim, b"/1", 10.0) == b"@01 0 OK IDLE -- 0\r\n"
    assert ask(sim, b"/1 0:" + checksum(b"1 0"), 10.0) == b"@01 0 OK IDLE -- 0:8D\r\n"
    assert ask(sim, b"/1 1 5 move abs x:" + checksum(b"1 1 5 move abs x"), 10.0) == (
        b"@01 1 05 RJ IDLE -- BADDATA:54\r\n"
    )
    assert ask(sim, b"/01 1 05 move abs 10000:8B", 10.0) == b"@01 1 05 OK BUSY -- 0:" + checksum(
        b"01 1 05 OK BUSY -- 0"
    ) + (b"\r\n")
    assert ask(sim, b"/1 1 00 get pos:2C", 20.0).startswith(b"@01 1 00 OK IDLE -- 10000:")
    assert ask(sim, b"/1 1 -- get pos", 20.0) == b"@01 1 OK IDLE -- 10000\r\n"


def test_a_wrong_checksum_is_not_answered_and_not_obeyed() -> None:
    sim = homed()
    assert ask(sim, b"/01 1 05 move abs 10000:8C", 10.0) == b""
    assert ask(sim, b"/1", 10.0) == b"@01 0 OK IDLE -- 0\r\n"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"/", b"@01 0 OK IDLE -- 0"),
        (b"/get pos", b"@01 0 OK IDLE -- 0 0"),
        (b"/1 2 get pos", b"@01 2 OK IDLE -- 0"),
        (b"/1 get limit.max", b"@01 0 OK IDLE -- 640000 768000"),
        (b"/1 1 get limit.min", b"@01 1 OK IDLE -- 0"),
        (b"/1 1 get maxspeed", b"@01 1 OK IDLE -- 209715"),
        (b"/1 1 get accel", b"@01 1 OK IDLE -- 210"),
        (b"/1 1 get resolution", b"@01 1 OK IDLE -- 64"),
        (b"/1 get version", b"@01 0 OK IDLE -- 7.35"),
        (b"/1 get device.id", b"@01 0 OK IDLE -- 50081"),
        (b"/1 get system.axiscount", b"@01 0 OK IDLE -- 2"),
        (b"/1 1 set maxspeed 1000", b"@01 1 OK IDLE -- 0"),
        (b"/1 1 stop", b"@01 1 OK IDLE -- 0"),
        (b"/1 1 estop", b"@01 1 OK IDLE -- 0"),
        (b"/1 1 move abs 640000", b"@01 1 OK BUSY -- 0"),
        (b"/1 1 move rel 100", b"@01 1 OK BUSY -- 0"),
        (b"/1 1 move vel 100", b"@01 1 OK BUSY -- 0"),
        (b"/1 1 move vel 0", b"@01 1 OK IDLE -- 0"),
        (b"/1 1 move max", b"@01 1 OK BUSY -- 0"),
        (b"/1 1 move min", b"@01 1 OK IDLE -- 0"),
        (b"/1 move abs 100", b"@01 0 OK BUSY -- 0"),
        (b"/1 1 warnings", b"@01 1 OK IDLE -- 00"),
        (b"/1 1 move abs 640001", b"@01 1 RJ IDLE -- BADDATA"),
        (b"/1 1 move abs -1", b"@01 1 RJ IDLE -- BADDATA"),
        (b"/1 1 move abs 1.5", b"@01 1 RJ IDLE -- BADDATA"),
        (b"/1 1 move up", b"@01 1 RJ IDLE -- BADDATA"),
        (b"/1 1 move vel 209716", b"@01 1 RJ IDLE -- BADDATA"),
        (b"/1 1 set maxspeed 0", b"@01 1 RJ IDLE -- BADDATA"),
        (b"/1 1 set resolution 1", b"@01 1 RJ IDLE -- NOACCESS"),
        (b"/1 1 get version", b"@01 1 RJ IDLE -- DEVICEONLY"),
        (b"/1 1 fly", b"@01 1 RJ IDLE -- BADCOMMAND"),
        (b"/1 1 get wings", b"@01 1 RJ IDLE -- BADCOMMAND"),
        (b"/1 3 home", b"@01 0 RJ IDLE -- BADAXIS"),
        (b"/1 1 100 home", b"@01 1 RJ IDLE -- BADMESSAGEID"),
        (b"/1 1 " + b"x" * 200, b"@01 0 RJ IDLE -- BADCOMMAND"),
        (b"noise/1 1 get pos", b"@01 1 OK IDLE -- 0"),
        (b"/2 home", b""),
        (b"home", b""),
    ],
)
def test_replies_of_a_homed_device(command: bytes, reply: bytes) -> None:
    assert ask(homed(), command, 10.0) == (reply + b"\r\n" if reply else b"")


def test_either_end_of_line_will_do_and_empty_lines_are_none() -> None:
    sim = ZaberSim("stage")
    for end in (b"\n", b"\r\n", b"\r"):
        sim.receive(b"/1 1" + end, 0.0)
    assert sim.messages(1.0) == [b"@01 1 OK IDLE WR 0\r\n"] * 3


def test_before_it_is_homed_only_relative_moves_are_allowed() -> None:
    sim = ZaberSim("stage")
    assert ask(sim, b"/1 1 move abs 10") == b"@01 1 RJ IDLE WR BADDATA\r\n"
    assert ask(sim, b"/1 1 move max") == b"@01 1 RJ IDLE WR BADDATA\r\n"
    assert ask(sim, b"/1 1 move rel -10") == b"@01 1 OK BUSY WR 0\r\n"
    assert ask(sim, b"/1 1 get pos", 5.0) == b"@01 1 OK IDLE WR -10\r\n"


def test_homing_goes_to_the_lower_end_and_counts_from_there() -> None:
    sim = ZaberSim("stage", start_um=10_000.0)
    ask(sim, b"/1 1 home")
    end_s = 10_000 / 20_000 + 20_000 / 200_000
    assert ask(sim, b"/1 1", end_s - 0.01) == b"@01 1 OK BUSY WR 0\r\n"
    assert ask(sim, b"/1 1", end_s + 0.01) == b"@01 1 OK IDLE -- 0\r\n"
    assert ask(sim, b"/1", end_s + 0.01) == b"@01 0 OK IDLE WR 0\r\n"
    assert sim.inspect(end_s + 1)["1_position_um"] == 0.0


def test_a_stopped_homing_gives_no_reference() -> None:
    sim = ZaberSim("stage")
    ask(sim, b"/1 1 home")
    assert ask(sim, b"/1 1 stop", 0.2) == b"@01 1 OK BUSY WR 0\r\n"
    assert ask(sim, b"/1 1 warnings", 5.0) == b"@01 1 OK IDLE WR 02 WR NI\r\n"


def test_a_move_takes_the_time_of_its_speed_in_the_devices_units() -> None:
    sim = homed()
    ask(sim, b"/1 1 set maxspeed 16384", 10.0)  # 10000 microsteps/s
    ask(sim, b"/1 1 set accel 16384", 10.0)  # 10^8 microsteps/s^2
    ask(sim, b"/1 1 move abs 20000", 10.0)
    assert ask(sim, b"/1 1", 11.99) == b"@01 1 OK BUSY -- 0\r\n"
    assert ask(sim, b"/1 1", 12.01) == b"@01 1 OK IDLE -- 0\r\n"
    assert sim.inspect(13.0)["1_position_um"] == 20_000 * 0.15625


def test_an_interrupted_move_is_noted_until_the_next() -> None:
    sim = homed()
    ask(sim, b"/1 1 move abs 100000", 10.0)
    assert ask(sim, b"/1 1 stop", 10.2) == b"@01 1 OK BUSY NI 0\r\n"
    assert ask(sim, b"/1 1 warnings", 11.0) == b"@01 1 OK IDLE NI 01 NI\r\n"
    assert 0 < int(ask(sim, b"/1 1 get pos", 11.0).split()[-1]) < 100_000
    assert ask(sim, b"/1 1 move abs 0", 11.0) == b"@01 1 OK BUSY -- 0\r\n"


def test_an_estop_stands_on_the_spot() -> None:
    sim = homed()
    ask(sim, b"/1 1 move vel 209715", 10.0)
    assert ask(sim, b"/1 1 estop", 10.5) == b"@01 1 OK IDLE NI 0\r\n"


def test_alerts_come_unasked_when_a_move_ends() -> None:
    sim = homed(alerts=True)
    assert sim.messages(10.0) == []  # those of homing came with the reply to the status query
    ask(sim, b"/1 2 move rel 640", 10.0)
    end_s = sim.due_s()
    assert end_s is not None
    assert end_s == pytest.approx(10 + 2 * (100 / 200_000) ** 0.5, rel=1e-4)
    assert sim.messages(end_s - 1e-6) == []
    assert sim.messages(end_s) == [b"!01 2 IDLE --\r\n"]
    assert ask(sim, b"/1 set comm.alert 0", 11.0) == b"@01 0 OK IDLE -- 0\r\n"
    ask(sim, b"/1 2 move rel 640", 12.0)
    assert sim.messages(13.0) == []


def test_checksums_may_be_asked_for() -> None:
    sim = homed()
    assert ask(sim, b"/1 set comm.checksum 1", 10.0) == b"@01 0 OK IDLE -- 0:8D\r\n"
    assert ask(sim, b"/1 get comm.checksum", 10.0).startswith(b"@01 0 OK IDLE -- 1:")


def test_devices_on_one_line_answer_to_their_own_number_and_all_to_none() -> None:
    bus = Bus([ZaberSim("xy"), ZaberSim("z", address=2, travel_um=[20_000.0], microstep_um=0.1)])
    assert ask(bus, b"/") == b"@01 0 OK IDLE WR 0\r\n@02 0 OK IDLE WR 0\r\n"
    assert ask(bus, b"/2 1 get limit.max", 1.0) == b"@02 1 OK IDLE WR 200000\r\n"
    assert ask(bus, b"/stop", 2.0) == b"@01 0 OK IDLE WR 0\r\n@02 0 OK IDLE WR 0\r\n"


# ------------------------------------------------------------------------------------------------------------- faults


def test_a_stall_shows_as_fs_though_it_is_idle_until_it_is_cleared() -> None:
    sim = homed()
    sim.inject("stall", 10.0, axis="1", position_um=1000.0)
    ask(sim, b"/1 1 move abs 64000", 10.0)
    assert ask(sim, b"/1 1", 11.0) == b"@01 1 OK IDLE FS 0\r\n"
    assert ask(sim, b"/1 1 get pos", 11.0) == b"@01 1 OK IDLE FS 6400\r\n"
    assert ask(sim, b"/1 1 warnings clear", 11.0) == b"@01 1 OK IDLE -- 01 FS\r\n"
    sim.clear(12.0)
    ask(sim, b"/1 1 move abs 64000", 12.0)
    assert ask(sim, b"/1 1 get pos", 20.0) == b"@01 1 OK IDLE -- 64000\r\n"


def test_a_limit_switch_within_the_travel_shows_as_fe() -> None:
    sim = homed()
    sim.inject("limit", 10.0, axis="2", position_um=1000.0)
    ask(sim, b"/1 2 move abs 64000", 10.0)
    assert ask(sim, b"/1 2", 11.0) == b"@01 2 OK IDLE FE 0\r\n"


def test_the_knob_displaces_it_and_is_noted() -> None:
    sim = homed()
    sim.inject("jump", 10.0, axis="1", by_um=15.625)
    assert ask(sim, b"/1 1 get pos", 10.0) == b"@01 1 OK IDLE NC 100\r\n"


def test_a_power_cycle_loses_reference_and_settings() -> None:
    sim = homed()
    ask(sim, b"/1 1 set maxspeed 1000", 10.0)
    sim.inject("power_cycle", 10.0, off_s=1.0)
    assert ask(sim, b"/1", 10.5) == b""
    assert ask(sim, b"/1 1 get maxspeed", 11.0) == b"@01 1 OK IDLE WR 209715\r\n"


def test_without_power_nothing_is_due() -> None:
    sim = homed(alerts=True)
    ask(sim, b"/1 1 move abs 64000", 10.0)
    sim.inject("power_off", 10.1)
    assert sim.due_s() is None
    sim.inject("power_cycle", 10.2, off_s=1.0)
    assert sim.due_s() == 11.2
    assert sim.messages(11.2) == []
    assert sim.due_s() is None


def test_a_fault_flag_ends_a_move_and_a_disabled_driver_rejects_the_next() -> None:
    sim = homed()
    ask(sim, b"/1 1 move abs 64000", 10.0)
    sim.inject("warning", 10.1, flag="FD", axis="1")
    assert ask(sim, b"/1 1", 10.1) == b"@01 1 OK IDLE FD 0\r\n"
    assert ask(sim, b"/1 1 move abs 0", 10.2) == b"@01 1 RJ IDLE FD DRIVERDISABLED\r\n"
    assert ask(sim, b"/1 1 warnings clear", 10.3) == b"@01 1 OK IDLE FD 01 FD\r\n"
    sim.clear(10.4)
    assert ask(sim, b"/1 1 move abs 0", 10.4) == b"@01 1 OK BUSY -- 0\r\n"


def test_one_command_is_rejected_with_a_reason() -> None:
    sim = homed()
    sim.inject("reject", 10.0, reason="FULL")
    assert ask(sim, b"/1 1 move abs 10", 10.0) == b"@01 1 RJ IDLE -- FULL\r\n"
    assert ask(sim, b"/1 1 move abs 10", 10.0) == b"@01 1 OK BUSY -- 0\r\n"


def test_busy_for_ever() -> None:
    sim = homed()
    sim.inject("busy_for_ever", 10.0, axis="1")
    assert ask(sim, b"/1", 99.0) == b"@01 0 OK BUSY -- 0\r\n"
    assert ask(sim, b"/1 1 set pos 5", 99.0) == b"@01 1 RJ BUSY -- STATUSBUSY\r\n"


@pytest.mark.parametrize(("fault", "values"), [("warning", {"flag": "XX"}), ("reject", {"reason": "too much"})])
def test_values_that_make_no_sense_are_refused(fault: str, values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="found"):
        ZaberSim("stage").inject(fault, 0.0, **values)


def test_the_gravest_warning_is_the_one_that_shows() -> None:
    sim = homed()
    for number, flag in enumerate(reversed(WARNINGS)):
        sim.inject("warning", 10.0, flag=flag, axis="2")
        assert ask(sim, b"/1 2", 11.0 + number).split()[4] == flag.encode()


@given(st.lists(st.binary(max_size=20), max_size=8), st.booleans())
def test_no_bytes_break_it(pieces: list[bytes], sound: bool) -> None:
    sim = ZaberSim("stage", alerts=True)
    for number, piece in enumerate(pieces):
        body = b"1 1 " + piece.replace(b":", b"") if sound else piece
        sim.receive(b"/" + body + (b":" + checksum(body) if sound else b"") + b"\n", float(number))
        for message in sim.messages(number + 0.5):
            assert message.endswith(b"\r\n")
        assert (sim.due_s() or 1e9) > number + 0.5
    assert ask(sim, b"\n/1 get version", 99.0).endswith(b"7.35\r\n")


@given(st.integers(0, 640_000))
def test_it_stands_where_it_was_sent_to_the_microstep(target: int) -> None:
    sim = homed()
    ask(sim, b"/1 1 move abs %d" % target, 10.0)
    assert ask(sim, b"/1 1 get pos", 60.0) == b"@01 1 OK IDLE -- %d\r\n" % target
