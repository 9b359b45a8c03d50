from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.devices.hiseqfpga import FILTERS, HiseqFpgaSim
from cartoseq.simulators.devices.vix import VixSim
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.rack import build

ONLINE = b"@LOG The FPGA is now online.  Enjoy!\r\n"


def ask(sim: HiseqFpgaSim, command: bytes, now_s: float = 0.0) -> bytes:
    """Send a command to the one port, and return what comes from the other within 10 ms."""
    sim.ports["commands"].receive(command + b"\n", now_s)
    assert sim.ports["commands"].messages(now_s + 0.01) == []
    return b"".join(sim.ports["answers"].messages(now_s + 0.01))


def test_a_reset_says_that_it_is_online_and_then_its_name() -> None:
    assert ask(HiseqFpgaSim("fpga"), b"RESET") == ONLINE + b"RESET\r\n"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"ZDACW 100", b"ZDACW\r\n"),
        (b"ZMV 100", b"ZMV\r\n"),
        (b"ZDACR", b"ZDACR 0\r\n"),
        (b"ZADCR", b"ZADCR 0\r\n"),
        (b"ZSTEP 1288471", b"ZSTEP\r\n"),
        (b"ZTRG 60292", b"ZTRG\r\n"),
        (b"ZYT 0 3", b"ZYT\r\n"),
        (b"T1RD", b"T1RD 0\r\n"),
        (b"T2CR", b"T2CR\r\n"),
        (b"T3VL 62500", b"T3VL\r\n"),
        (b"T3CUR 35", b"T3CUR\r\n"),
        (b"TDIYERD", b"TDIYERD 0\r\n"),
        (b"TDIYEWR 7000000", b"TDIYEWR\r\n"),
        (b"TDIYPOS 6920000", b"TDIYPOS\r\n"),
        (b"TDIYARM3 1000 6990000 1", b"TDIYARM3\r\n"),
        (b"TDIPULSES", b"TDIPULSES 0\r\n"),
        (b"EX1HM", b"EX1HM\r\n"),
        (b"EX1MV 143", b"EX1MV\r\n"),
        (b"EM2I", b"EM2I\r\n"),
        (b"SWLSRSHUT 1", b"SWLSRSHUT\r\n"),
        (b"LEDMODE1 7", b"LEDMODE1\r\n"),
        (b"", b""),
        (b"FOO", b"@LOG unknown command FOO\r\n"),
        (b"ZFOO", b"@LOG unknown command ZFOO\r\n"),
        (b"TDIFOO", b"@LOG unknown command TDIFOO\r\n"),
        (b"ZDACW", b"@LOG expected 1 arguments, found 0\r\n"),
        (b"ZDACW 65536", b"@LOG expected a whole number, 0 to 65535, found 65536\r\n"),
        (b"T1MOVETO 25001", b"@LOG expected a whole number, 0 to 25000, found 25001\r\n"),
        (b"EX1MV 5", b"@LOG no filter at 5\r\n"),
        (b"Z" * 300, b"@LOG command too long\r\n"),
    ],
)
def test_acknowledgements(command: bytes, answer: bytes) -> None:
    assert ask(HiseqFpgaSim("fpga"), command) == answer


def test_the_objective_moves_at_the_speed_that_is_set() -> None:
    sim = HiseqFpgaSim("fpga")
    ask(sim, b"ZSTEP %d" % int(1_288_471 * 0.1))
    ask(sim, b"ZDACW 26200", 1.0)  # 100 um at 100 um/s
    assert ask(sim, b"ZDACR", 1.5) == b"ZDACR 26200\r\n"
    assert int(ask(sim, b"ZADCR", 1.5).split()[1]) == pytest.approx(13_100, rel=0.01)
    assert ask(sim, b"ZADCR", 2.1) == b"ZADCR 26200\r\n"
    assert sim.inspect(3.0)["z_position_um"] == pytest.approx(100.0)


def test_a_tilt_motor_reports_when_it_arrives_and_takes_no_second_command_until_then() -> None:
    sim = HiseqFpgaSim("fpga")
    assert ask(sim, b"T1MOVETO 21000") == b"T1MOVETO\r\n"
    assert ask(sim, b"T1MOVETO 100", 1.0) == b"Command already in progress\r\n"
    assert ask(sim, b"T1HM", 1.1) == b"Command already in progress\r\n"
    assert ask(sim, b"T2MOVETO 10", 1.2) == b"T2MOVETO\r\n"
    assert sim.messages(5.0) == [b"@TILTPOS2 10\r\n"]
    end_s = sim.due_s()
    assert end_s == pytest.approx(21_000 / 0.656 / 5000 + 0.25)
    assert sim.messages(9.0) == [b"@TILTPOS1 21000\r\n"]
    assert ask(sim, b"T1RD", 9.0) == b"T1RD 21000\r\n"
    ask(sim, b"T1HM", 10.0)
    assert sim.messages(30.0) == [b"@TILTPOS1 0\r\n"]


def test_a_tilt_motor_that_stalls_reports_where_it_is() -> None:
    sim = HiseqFpgaSim("fpga")
    sim.inject("stall", 0.0, axis="T3", position_um=1000.0)
    ask(sim, b"T3MOVETO 21000")
    assert sim.messages(9.0) == [b"@TILTPOS3 656\r\n"]


def test_a_motor_that_is_busy_for_ever_never_reports() -> None:
    sim = HiseqFpgaSim("fpga")
    sim.inject("busy_for_ever", 0.0, axis="T1")
    assert ask(sim, b"T1MOVETO 5") == b"Command already in progress\r\n"
    sim.clear(1.0)
    ask(sim, b"T1MOVETO 5", 1.0)
    sim.inject("busy_for_ever", 1.0, axis="T1")
    assert sim.messages(9.0) == []
    assert sim.due_s() is None


def test_filters_shutter_and_leds_are_as_they_were_set() -> None:
    sim = HiseqFpgaSim("fpga")
    for command in (b"EX1MV %d" % FILTERS[2], b"EX2MV -36", b"EM2I", b"SWLSRSHUT 1", b"LEDMODE1 3"):
        ask(sim, command)
    truth = sim.inspect(1.0)
    assert (truth["excitation_1_filter"], truth["excitation_2_filter"]) == (71, -36)
    assert (truth["emission_filter_in"], truth["shutter_open"], truth["led_mode_1"]) == (True, True, 3)
    ask(sim, b"EM2O", 2.0)
    ask(sim, b"EX1HM", 2.0)
    assert (sim.inspect(3.0)["emission_filter_in"], sim.inspect(3.0)["excitation_1_filter"]) == (False, 0)


def test_the_trigger_counts_lines_as_the_stage_passes_them() -> None:
    stage = VixSim("y")
    for command in (b"1W(EX,0)\r", b"1ON\r", b"1GH\r"):
        stage.receive(command, 0.0)
    sim = HiseqFpgaSim("fpga", y=stage)
    stage.messages(30.0)
    ask(sim, b"TDIYEWR 7000000", 30.0)
    ask(sim, b"TDIYARM3 1000 6990000 1", 30.0)
    assert ask(sim, b"TDIPULSES", 30.0).endswith(b"TDIPULSES 0\r\n")
    stage.receive(b"1D-32500\r1G\r", 31.0)
    assert stage.messages(40.0) == []
    assert ask(sim, b"TDIYERD", 40.0) == b"TDIYERD 6967500\r\n"
    assert ask(sim, b"TDIPULSES", 40.0).endswith(b" 600\r\n")
    stage.receive(b"1D-100000\r1G\r", 41.0)
    stage.messages(50.0)
    assert ask(sim, b"TDIPULSES", 50.0) == b"TDIPULSES 1000\r\n"
    stage.receive(b"1D0\r1G\r", 51.0)
    stage.messages(60.0)
    assert ask(sim, b"TDIPULSES", 60.0) == b"TDIPULSES 1000\r\n"


def test_after_a_power_cycle_it_says_that_it_is_online() -> None:
    sim = HiseqFpgaSim("fpga")
    ask(sim, b"SWLSRSHUT 1")
    sim.inject("power_cycle", 1.0, off_s=2.0)
    assert ask(sim, b"T1RD", 2.0) == b""
    assert sim.due_s() == 3.0
    assert sim.messages(3.1) == [ONLINE]
    assert sim.inspect(3.2)["shutter_open"] is False


def test_a_rack_serves_its_two_ports_and_its_stage() -> None:
    content = {
        "device": [
            {"name": "y", "kind": "vix", "tcp": 0},
            {"name": "x", "kind": "mdrive", "tcp": 0},
            {
                "name": "fpga",
                "kind": "hiseq-fpga",
                "tcp": {"commands": 0, "answers": 0},
                "settings": {"y": "y"},
                "fault": [{"fault": "drop", "on_command": 1}],
            },
        ]
    }
    heard: list[bytes] = []

    async def main() -> None:
        rack = build(content)
        hears = MemoryHost(rack.lines["fpga.commands"].server)
        answers = MemoryHost(rack.lines["fpga.answers"].server)
        hears.siblings.append(answers)
        await answers.connect(heard.append)
        line = await hears.connect(heard.append)
        line.write(b"T1RD\n")
        await asyncio.sleep(1)
        line.write(b"T2MOVETO 10\n")
        await asyncio.sleep(9)

    run_virtual(main())
    assert heard == [b"T2MOVETO\r\n", b"@TILTPOS2 10\r\n"]


@given(st.lists(st.binary(max_size=16), max_size=10))
def test_no_bytes_break_it(pieces: list[bytes]) -> None:
    sim = HiseqFpgaSim("fpga", y=VixSim("y"))
    for number, piece in enumerate(pieces):
        sim.receive(piece + b"\n", float(number))
        for message in sim.messages(number + 0.5):
            assert message.endswith(b"\r\n")
        assert (sim.due_s() or 1e9) > number + 0.5
    assert ask(sim, b"\nT1RD", 99.0) == b"T1RD 0\r\n"
