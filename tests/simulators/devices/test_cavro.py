"""Pumps of the Cavro family on their wire: golden bytes, when errors show, and what really moves."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.simulators.devices.cavro import CavroSim
from cartoseq.simulators.devices.cavroframes import Ear, check_byte
from cartoseq.simulators.fluidics import FL_PER_UL, make_fluidics
from cartoseq.simulators.wire import Bus, ByteServer
from cartoseq.simulators.world import World


def bench(*, distribution: bool = False, barrel_ul: float = 500.0) -> World:
    ports = {"1": "wash", "2": "dye", "3": "waste", "4": "waste"} if distribution else {"I": "wash", "O": "waste"}
    syringe = {"barrel_ul": barrel_ul, "ports": ports}
    return World(
        make_fluidics(
            {
                "vessels": {"wash": {"volume_ul": 2000.0}, "dye": {"volume_ul": 2000.0}, "waste": {}},
                "syringes": {"one": syringe, "two": syringe},
            }
        )
    )


def pump(**options: Any) -> CavroSim:
    return CavroSim("pump", bench(distribution=options.pop("distribution", False)), syringe="one", **options)


def ask(server: ByteServer, data: bytes, at_s: float) -> bytes:
    """Say something at a time and return what is answered, whenever it comes."""
    server.receive(data, at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply


def dt(sim: ByteServer, text: str, at_s: float) -> str:
    """Send a DT string to pump 1 and return status and data."""
    reply = ask(sim, b"/1" + text.encode() + b"\r", at_s)
    assert reply[:2] == b"/0"
    assert reply[-3:] == b"\x03\r\n"
    return reply[2:-3].decode()


def ready(sim: CavroSim, at_s: float = 0.0) -> float:
    """Initialise and return a time at which it is ready."""
    assert dt(sim, "ZR", at_s) == "@"
    assert dt(sim, "Q", at_s + 30.0) == "`"
    return at_s + 30.0


# -------------------------------------------------------------------------------------------------------- golden bytes


def test_a_session_in_the_terminal_protocol() -> None:
    sim = pump()
    assert ask(sim, b"/1ZR\r", 0.0) == b"/0@\x03\r\n"
    assert ask(sim, b"/1Q\r", 0.1) == b"/0@\x03\r\n"
    assert ask(sim, b"/1Q\r", 10.0) == b"/0`\x03\r\n"
    sim = pump(distribution=True)
    ready(sim)
    assert ask(sim, b"/1V1000I3A3000R\r", 40.0) == b"/0@\x03\r\n"
    assert ask(sim, b"/1?\r", 43.5).startswith(b"/0@1")
    assert ask(sim, b"/1?\r", 60.0) == b"/0`3000\x03\r\n"


def test_the_vectors_of_the_oem_protocol() -> None:
    for frame in (
        "02 31 31 5A 52 03 09",
        "02 31 39 5A 52 03 01",
        "02 31 32 3F 03 3D",
        "02 30 60 33 30 30 30 03 52",
        "02 30 40 03 71",
        "02 30 69 03 58",
        "02 31 3A 57 34 52 03 3B",
    ):
        data = bytes.fromhex(frame)
        assert check_byte(data[:-1]) == data[-1]
    sim = pump(framing="oem")
    assert ask(sim, bytes.fromhex("02 31 31 5A 52 03 09"), 0.0).hex(" ") == "ff 02 30 40 03 71"
    assert ask(sim, bytes.fromhex("02 31 33 49 41 33 30 30 30 52 03 5A"), 30.0) != b""
    assert ask(sim, bytes.fromhex("FF 02 31 32 3F 03 3D"), 60.0).hex(" ") == "ff 02 30 60 33 30 30 30 03 52"


def test_a_kloehn_pump_adds_a_byte_and_takes_12_ms() -> None:
    sim = pump(dialect="kloehn", full_stroke_steps=48000)
    sim.receive(b"/1\r", 5.0)
    assert sim.due_s() == pytest.approx(5.012)
    assert sim.messages(5.012) == [b"/0`\x03\r\n\xff"]
    assert ask(sim, b"/1W4R\r", 6.0) == b"/0@\x03\r\n\xff"
    assert ask(sim, b"/1IV400A24000R\r", 60.0) == b"/0@\x03\r\n\xff"
    assert ask(sim, b"/1?\r", 90.0).startswith(b"/0@119")  # 400 steps/s for 30 s
    assert ask(sim, b"/1?\r", 130.0) == b"/0`24000\x03\r\n\xff"
    assert sim.inspect(130.0)["plunger_ul"] == pytest.approx(250.0)
    assert ask(sim, b"/1OV7000A0R\r", 130.0) == b"/0@\x03\r\n\xff"
    sim.inspect(150.0)
    assert sim.world.inspect(150.0)["waste.volume_ul"] == pytest.approx(250.0)


def test_a_kloehn_oem_answer_ends_with_a_byte_more() -> None:
    sim = pump(dialect="kloehn", framing="oem")
    assert ask(sim, bytes.fromhex("02 31 31 57 34 52 03") + bytes([0x30]), 0.0).hex(" ") == "ff 02 30 40 03 71 ff"


def test_some_firmware_begins_its_answers_with_a_byte() -> None:
    assert ask(pump(leading_byte=True), b"/1Q\r", 0.0) == b"\xff/0`\x03\r\n"


# --------------------------------------------------------------------------------------------------- when errors show


def test_an_unknown_letter_is_answered_at_once_and_nothing_runs() -> None:
    sim = pump()
    now_s = ready(sim)
    assert dt(sim, "IA100jA200R", now_s) == "b"
    assert dt(sim, "Q", now_s + 5) == "`"
    assert dt(sim, "?", now_s + 5) == "`0"


def test_an_operand_that_is_too_large_shows_at_the_next_query() -> None:
    sim = pump()
    now_s = ready(sim)
    assert dt(sim, "IA4000R", now_s) == "@"
    assert dt(sim, "Q", now_s + 1) == "c"
    assert dt(sim, "IA1000R", now_s + 2) == "@"
    assert dt(sim, "Q", now_s + 9) == "`"


def test_what_comes_before_a_wrong_move_runs() -> None:
    sim = pump()
    now_s = ready(sim)
    assert dt(sim, "IA3000A3500R", now_s) == "@"
    assert dt(sim, "Q", now_s + 1) == "@"
    assert dt(sim, "Q", now_s + 20) == "c"
    assert dt(sim, "?", now_s + 20) == "c3000"


def test_without_initialisation_no_plunger_moves() -> None:
    sim = pump()
    assert dt(sim, "Q", 0.0) == "`"
    assert dt(sim, "A100R", 0.0) == "@"
    assert dt(sim, "Q", 1.0) == "g"
    assert dt(sim, "A100R", 1.0) == "g"
    ready(sim, 2.0)


def test_in_the_bypass_no_plunger_moves() -> None:
    sim = pump()
    now_s = ready(sim)
    assert dt(sim, "BA100R", now_s) == "@"
    assert dt(sim, "Q", now_s + 2) == "k"
    assert dt(sim, "?6", now_s + 2) == "kb"


def test_a_command_while_it_runs_is_thrown_away() -> None:
    sim = pump()
    now_s = ready(sim)
    dt(sim, "IA3000R", now_s)
    assert dt(sim, "A0R", now_s + 1) == "O"
    assert dt(sim, "Q", now_s + 1.1) == "@"
    assert dt(sim, "?", now_s + 20) == "`3000"


def test_a_stuck_plunger_is_an_overload_until_it_is_initialised() -> None:
    sim = pump()
    now_s = ready(sim)
    sim.inject("stall", now_s, at_ul=200.0)
    dt(sim, "IA3000R", now_s)
    assert dt(sim, "Q", now_s + 1) == "@"
    assert dt(sim, "Q", now_s + 20) == "i"
    assert sim.inspect(now_s + 20)["plunger_ul"] == 200.0
    assert dt(sim, "A0R", now_s + 21) == "i"
    sim.clear(now_s + 22)
    assert dt(sim, "Q", now_s + 22) == "i"
    assert dt(sim, "?", ready(sim, now_s + 23)) == "`0"


def test_a_stuck_plunger_fails_the_initialisation_too() -> None:
    sim = pump()
    now_s = ready(sim)
    dt(sim, "IA3000R", now_s)
    sim.inspect(now_s + 30)
    sim.inject("stall", now_s + 30, at_ul=200.0)
    assert dt(sim, "ZR", now_s + 30) == "@"
    assert dt(sim, "Q", now_s + 60) == "a"


def test_a_stuck_valve_is_an_overload() -> None:
    sim = pump()
    now_s = ready(sim)
    sim.inject("valve_stuck", now_s)
    dt(sim, "IA100R", now_s)
    assert dt(sim, "Q", now_s + 0.5) == "@"
    assert dt(sim, "Q", now_s + 2) == "j"
    assert sim.inspect(now_s + 2)["port"] == "O"


# ---------------------------------------------------------------------------------------------------------- what moves


def test_speeds_and_loops_and_pauses_take_their_time() -> None:
    sim = pump()
    now_s = ready(sim)
    # 3000 steps are 6000 half-steps: 20 s at 300/s, without acceleration from a start at 900/s.
    dt(sim, "OV300A3000R", now_s)
    assert dt(sim, "Q", now_s + 19.9) == "@"
    assert dt(sim, "Q", now_s + 20.1) == "`"
    now_s += 21
    dt(sim, "gD10M1000G3R", now_s)
    assert dt(sim, "Q", now_s + 2.9) == "@"
    assert dt(sim, "?", now_s + 3.5) == "`2970"
    dt(sim, "XR", now_s + 4)
    assert dt(sim, "?", now_s + 8) == "`2940"


def test_a_program_runs_on_while_nobody_asks() -> None:
    sim = pump()
    now_s = ready(sim)
    dt(sim, "gIA3000OA0G2R", now_s)
    assert sim.world.inspect(now_s + 120)["waste.volume_ul"] == pytest.approx(1000.0)


def test_a_string_without_a_run_is_kept() -> None:
    sim = pump()
    now_s = ready(sim)
    assert dt(sim, "IA300", now_s) == "`"
    assert dt(sim, "?10", now_s) == "`1"
    assert dt(sim, "?", now_s + 5) == "`0"
    assert dt(sim, "R", now_s + 5) == "@"
    assert dt(sim, "?", now_s + 10) == "`300"
    assert dt(sim, "F", now_s + 10) == "`0"


def test_a_halt_waits_for_the_run() -> None:
    sim = pump()
    now_s = ready(sim)
    dt(sim, "IA300HA600R", now_s)
    assert dt(sim, "?", now_s + 10) == "`300"
    assert dt(sim, "R", now_s + 10) == "@"
    assert dt(sim, "?", now_s + 20) == "`600"


def test_lower_case_moves_show_ready() -> None:
    sim = pump()
    now_s = ready(sim)
    dt(sim, "V100a3000R", now_s)
    assert dt(sim, "Q", now_s + 1) == "`"
    assert dt(sim, "?", now_s + 100) == "`3000"


def test_fine_steps_are_eight_to_one() -> None:
    sim = pump()
    now_s = ready(sim)
    dt(sim, "IA1500R", now_s)
    dt(sim, "N1R", now_s + 20)
    assert dt(sim, "?", now_s + 21) == "`12000"
    dt(sim, "P1R", now_s + 21)
    assert sim.inspect(now_s + 25)["plunger_ul"] == pytest.approx(500 * 12001 / 24000)


def test_a_stop_leaves_the_plunger_between_and_the_speed_can_change_on_the_way() -> None:
    sim = pump()
    now_s = ready(sim)
    dt(sim, "IV100A3000R", now_s)
    assert dt(sim, "V1000R", now_s + 10) == "@"
    assert dt(sim, "T", now_s + 12) == "`"
    # 0.25 s for the valve, then 50 steps/s, then 500 steps/s.
    assert sim.inspect(now_s + 20)["counter_steps"] == pytest.approx(9.75 * 50 + 2 * 500, abs=20)


def test_a_kloehn_pump_stopped_from_a_high_speed_loses_steps_and_says_so_later() -> None:
    sim = pump(dialect="kloehn", full_stroke_steps=48000)
    ask(sim, b"/1W4R\r", 0.0)
    ask(sim, b"/1IV8000A48000R\r", 60.0)
    ask(sim, b"/1TR\r", 64.0)
    seen = sim.inspect(64.0)
    true_steps = float(seen["plunger_ul"]) / 500 * 48000
    assert float(seen["counter_steps"]) == pytest.approx(true_steps + 30, abs=0.6)
    ask(sim, b"/1A0R\r", 65.0)
    assert ask(sim, b"/1Q\r", 66.0) == b"/0z\x03\r\n\xff"  # Z, error 26: may pass home


def test_a_jump_of_the_position_makes_a_cavro_pump_run_against_its_end() -> None:
    sim = pump()
    now_s = ready(sim)
    dt(sim, "IA1000R", now_s)
    sim.inject("position_jump", now_s + 20, steps=50)
    assert dt(sim, "?", now_s + 20) == "`1050"
    dt(sim, "OA0R", now_s + 20)
    assert dt(sim, "Q", now_s + 40) == "i"
    assert sim.inspect(now_s + 40)["plunger_ul"] == 0.0


def test_a_power_cycle_forgets_everything() -> None:
    sim = pump()
    now_s = ready(sim)
    dt(sim, "IV100A3000R", now_s)
    sim.inject("power_cycle", now_s + 5)
    assert dt(sim, "?2", now_s + 6) == "`1400"
    dt(sim, "A0R", now_s + 6)
    assert dt(sim, "Q", now_s + 7) == "g"
    sim.inject("power_off", now_s + 8)
    assert ask(sim, b"/1Q\r", now_s + 8) == b""
    sim.clear(now_s + 9)
    assert dt(sim, "Q", now_s + 9) == "`"


def test_other_faults_and_wrong_ones() -> None:
    sim = pump()
    sim.inject("busy_for_ever", 0.0)
    assert dt(sim, "Q", 1000.0) == "@"
    with pytest.raises(ValueError, match="expected one of busy_for_ever"):
        sim.inject("fire", 0.0)
    with pytest.raises(ValueError, match="stall: the value 'at' is not known"):
        sim.inject("stall", 0.0, at=1.0)
    with pytest.raises(ValueError, match=r"stall.at_ul: expected such as 10.0, found 'x'"):
        sim.inject("stall", 0.0, at_ul="x")
    with pytest.raises(ValueError, match="does not watch its supply"):
        sim.inject("supply_low", 0.0)
    kloehn = pump(dialect="kloehn", full_stroke_steps=48000)
    ask(kloehn, b"/1W4R\r", 0.0)
    kloehn.inject("supply_low", 50.0)
    ask(kloehn, b"/1A100R\r", 50.0)
    assert ask(kloehn, b"/1Q\r", 51.0) == b"/0f\x03\r\n\xff"


# ------------------------------------------------------------------------------------------------------- repeats, lines


def oem(sim: ByteServer, sequence: int, text: str, at_s: float) -> bytes:
    frame = bytes([0x02, 0x31, sequence]) + text.encode() + b"\x03"
    return ask(sim, frame + bytes([check_byte(frame)]), at_s)


def test_a_repeated_stroke_is_done_once() -> None:
    sim = pump(framing="oem")
    oem(sim, 0x31, "ZR", 0.0)
    assert oem(sim, 0x32, "IP500R", 30.0) == bytes.fromhex("FF 02 30 40 03 71")
    assert oem(sim, 0x3A, "IP500R", 40.0) == bytes.fromhex("FF 02 30 60 03 51")
    assert sim.inspect(50.0)["counter_steps"] == 500
    # The first frame of this one was lost: its repeat is the first that is heard.
    oem(sim, 0x3B, "IP500R", 50.0)
    assert sim.inspect(60.0)["counter_steps"] == 1000


def test_a_kloehn_pump_knows_repeats_by_another_rule() -> None:
    sim = pump(framing="oem", dialect="kloehn", full_stroke_steps=48000)
    oem(sim, 0x31, "W4R", 0.0)
    oem(sim, 0x31, "IP500R", 60.0)
    for repeat in (0x3A, 0x3B, 0x3F):
        oem(sim, repeat, "IP500R", 70.0)
    assert sim.inspect(80.0)["counter_steps"] == 500
    oem(sim, 0x31, "IP500R", 80.0)
    assert sim.inspect(90.0)["counter_steps"] == 1000


def test_a_broken_frame_is_not_run() -> None:
    broken = bytes.fromhex("02 31 31 5A 52 03 08")
    assert ask(pump(framing="oem"), broken, 0.0) == b""
    assert ask(pump(framing="oem", dialect="kloehn"), broken, 0.0) == bytes.fromhex("FF 02 30 64 03 55 FF")


def test_several_pumps_share_a_line_and_none_answers_a_group() -> None:
    world = bench()
    one = CavroSim("one", world, syringe="one", address="1")
    two = CavroSim("two", world, syringe="two", address="2")
    line = Bus([one, two])
    assert ask(line, b"/AZR\r", 0.0) == b""
    assert one.inspect(30.0)["initialized"]
    assert two.inspect(30.0)["initialized"]
    assert ask(line, b"/2IA300R\r", 30.0) == b"/0@\x03\r\n"
    assert ask(line, b"/5Q\r", 30.0) == b""
    assert ask(line, b"/_IA600R\r", 40.0) == b""
    assert (one.inspect(50.0)["counter_steps"], two.inspect(50.0)["counter_steps"]) == (600, 600)
    assert ask(line, b"/CQ\r", 50.0) == b""


@pytest.mark.parametrize("report", ["?", "?1", "?2", "?3", "?4", "?6", "?10", "F", "?12", "?13", "?14", "?76", "&"])
def test_every_report_says_something(report: str) -> None:
    assert len(dt(pump(), report, 0.0)) > 1


@pytest.mark.parametrize("report", ["?", "?1", "?2", "?3", "?8", "$", "%", "&", "*", "?30", "~V", "~B", "~P"])
def test_every_report_of_a_kloehn_pump_says_something(report: str) -> None:
    reply = ask(pump(dialect="kloehn"), f"/1{report}\r".encode(), 0.0)
    assert len(reply) > len(b"/0`\x03\r\n\xff")


@pytest.mark.parametrize(
    "options", [{"address": "0"}, {"address": "12"}, {"dialect": "tecan"}, {"framing": "x"}, {"syringe": "none"}]
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pump: "):
        CavroSim("pump", bench(), **({"syringe": "one"} | options))


# ----------------------------------------------------------------------------------------------------------- anything

_ANSWERS = {
    "dt": re.compile(rb"(/0[@-z][^\x03]*\x03\r\n\xff?)*"),
    "oem": re.compile(rb"(\xff\x020[@-z][^\x03]*\x03.\xff?)*", re.DOTALL),
}
_BYTES = st.binary(max_size=40)
_LETTERS = st.text(alphabet="/1AaPDIOBZWYgGVvcSLNMHXKRTQF?&0123456789,\r\x02\x03", max_size=60)


@settings(max_examples=150, deadline=None)
@given(st.lists(_BYTES | _LETTERS.map(str.encode), max_size=12), st.sampled_from(["dt", "oem"]), st.booleans())
def test_whatever_comes_it_answers_soundly_and_keeps_every_drop(pieces: list[bytes], framing: Any, more: bool) -> None:
    sim = pump(framing=framing, dialect="kloehn" if more else "cavro")
    before = sim.world.fluidics.volumes_fl()
    for second, piece in enumerate([b"/1ZR\r", *pieces]):
        reply = ask(sim, piece, float(second))
        assert _ANSWERS[framing].fullmatch(reply)
    assert sim.world.fluidics.volumes_fl() == before
    assert 0 <= sim.pump.syringe.column.volume_fl <= 500 * FL_PER_UL


@given(st.lists(st.integers(1, 5)), st.binary(max_size=30))
def test_frames_come_out_the_same_however_they_are_cut(cuts: list[int], noise: bytes) -> None:
    stream = noise + b"\r/1ZR\r" + b"/2Q\r" + noise + b"\r/1?\r"
    whole = Ear(False).hear(stream)
    ear, pieces, at = Ear(False), [], 0
    for cut in [*cuts, len(stream)]:
        pieces += ear.hear(stream[at : at + cut])
        at += cut
    assert pieces == whole
    assert [frame.text for frame in whole if frame.address == "1"][-1] == "?"
