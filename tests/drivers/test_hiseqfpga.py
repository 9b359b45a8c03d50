from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers import hiseqfpga
from cartoseq.drivers.capabilities import FocusStage, Range
from cartoseq.drivers.errors import (
    Busy,
    DeviceFault,
    LimitError,
    NotInitialized,
    ReplyTimeout,
    StallError,
    Stopped,
)
from cartoseq.drivers.hiseqfpga import HiSeqFpga, Objective, TiltMotor
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.streaming.errors import InputError

from .scripted import EvenAxis, Scripted, now_s, run_with


class Fpga:
    """Objective at 1 mm/s, tilt motors at 1 mm/s, which answer nothing else while they move."""

    def __init__(self) -> None:
        self.objective = EvenAxis(262_000)
        self.tilt = EvenAxis(656, 500)
        self.encoder = 7_000_000
        self.sticks = False
        self.lost: set[str] = set()

    def answer(self, command: bytes, now_s: float) -> bytes | None:
        text = command.decode()
        reply = self.reply(text, now_s)
        if text in self.lost:
            self.lost.remove(text)
            return None
        return b"@LOG heard\r\n" + reply.encode() + b"\r\n"

    def reply(self, text: str, now_s: float) -> str:
        name, *numbers = text.split()
        if name == "RESET":
            return "@LOG The FPGA is now online.  Enjoy!\r\nRESET"
        if name == "ZMV" and not self.sticks:
            self.objective.go(int(numbers[0]), now_s)
        elif name == "ZADCR":
            return f"ZADCR {self.objective.at(now_s):.0f}"
        elif name.startswith("T1"):
            if self.tilt.moving(now_s):
                return "Command already in progress"
            if name in ("T1MOVETO", "T1HM"):
                self.tilt.go(int(numbers[0]) if numbers else 0, now_s)
            elif name == "T1RD":
                return f"T1RD {self.tilt.at(now_s):.0f}"
        elif name == "TDIYEWR":
            self.encoder = int(numbers[0])
        elif name == "TDIYERD":
            return f"TDIYERD {self.encoder}"
        elif name == "TDIPULSES":
            return "TDIPULSES 1280"
        return name


def line(fpga: Fpga) -> Scripted:
    return Scripted(fpga.answer, terminator=b"\n")


def test_bytes_are_those_of_the_protocol() -> None:
    assert hiseqfpga.parse_answer(b"ZDACR 32768\r\n", "ZDACR") == [32_768]
    assert hiseqfpga.parse_answer(b"T1MOVETO\r\n", "T1MOVETO 100") == []
    assert hiseqfpga.parse_answer(b"Command already in progress\r\n", "T1MOVETO 100") is None
    assert hiseqfpga.speed_units(0.5) == 644_235
    for other in (b"@LOG heard\r\n", b"@TILTPOS1 5\r\n", b"ZDACR x\r\n", b"RESET\r\n", b""):
        with pytest.raises(ValueError, match=r"does not answer|invalid literal"):
            hiseqfpga.parse_answer(other, "ZDACR")


@given(st.binary(max_size=30), st.lists(st.integers(-(10**9), 10**9), max_size=3))
def test_the_parser_takes_any_bytes_and_reads_numbers_back(data: bytes, numbers: list[int]) -> None:
    with contextlib.suppress(ValueError):
        hiseqfpga.parse_answer(data, "ZDACR")
    frame = " ".join(["ZDACR", *map(str, numbers)]).encode() + b"\r\n"
    assert hiseqfpga.parse_answer(frame, "ZDACR") == numbers


def test_it_is_reset_by_the_first_that_opens_it_only() -> None:
    server = line(Fpga())

    async def use(transport: Transport, host: MemoryHost) -> None:
        fpga = HiSeqFpga(transport, "fpga")
        objective = Objective(fpga, "focus")
        assert isinstance(objective, FocusStage)
        assert (await fpga.open()).model == "HiSeq 2500 FPGA"
        await objective.open()
        await fpga.close()
        assert await objective.position_um() == 0
        assert await fpga.read_faults() == await objective.read_faults() == []
        await fpga.clear_faults()
        await objective.clear_faults()
        await objective.close()
        assert not transport.is_open

    run_with(server, use)
    assert server.commands.count(b"RESET") == 1
    assert b"ZSTEP 1288471" in server.commands


def test_trigger_and_optics_send_what_the_protocol_lists() -> None:
    server = line(Fpga())

    async def use(transport: Transport, host: MemoryHost) -> None:
        fpga = HiSeqFpga(transport, "fpga")
        await fpga.open()
        del server.heard[:]
        await fpga.set_encoder(1_000_000)
        assert await fpga.encoder_steps() == 1_000_000
        await fpga.arm_trigger(1280, 1_000_000)
        assert await fpga.trigger_pulses() == 1280
        await fpga.arm_focus_sweep(1000)
        await fpga.set_shutter(True)
        await fpga.home_wheel(1)
        await fpga.move_wheel(1, -36)
        await fpga.set_emission_filter(True)
        await fpga.set_emission_filter(False)
        await fpga.set_led_mode(1, 5)
        await fpga.make_safe()
        await fpga.close()

    run_with(server, use)
    assert server.commands == [
        *(b"TDIYEWR 8000000", b"TDIYERD", b"TDIYERD", b"TDIYPOS 7920000", b"TDIYARM3 1280 7990000 1", b"TDIPULSES"),
        *(b"ZTRG 1000", b"ZYT 0 3", b"SWLSRSHUT 1", b"EX1HM", b"EX1MV -36", b"EM2I", b"EM2O", b"LEDMODE1 5"),
        *(b"SWLSRSHUT 0", b"TDIYERD", b"SWLSRSHUT 0"),
    ]


def test_what_there_is_not_is_not_sent() -> None:
    server = line(Fpga())

    async def use(transport: Transport, host: MemoryHost) -> None:
        fpga = HiSeqFpga(transport, "fpga")
        objective = Objective(fpga, "focus", limits_um=Range(10, 300))
        assert objective.limits_um == Range(10, 65_535 / 262)
        await fpga.open()
        sent = len(server.heard)
        for call in (
            fpga.move_wheel(1, 5),
            fpga.set_led_mode(2, 8),
            fpga.arm_trigger(100, 0),
            fpga.arm_trigger(128, -7_000_000),
            fpga.set_encoder(-7_000_000),
            fpga.arm_focus_sweep(70_000),
            objective.move_to_um(9),
            objective.move_to_um(float("nan")),
        ):
            with pytest.raises(LimitError):
                await call
        assert len(server.heard) == sent
        with pytest.raises(InputError):
            Objective(fpga, "focus", speed_mm_per_s=0)
        with pytest.raises(InputError):
            TiltMotor(fpga, "tilt", number=1, speed_um_per_s=0)
        await fpga.close()

    run_with(server, use)


def test_an_encoder_that_does_not_take_its_value_is_told() -> None:
    fpga = Fpga()

    async def use(transport: Transport, host: MemoryHost) -> None:
        driver = HiSeqFpga(transport, "fpga")
        await driver.open()
        plain = fpga.reply
        fpga.reply = lambda text, now_s: text if text.startswith("TDIYEWR") else plain(text, now_s)  # type: ignore[method-assign]
        with pytest.raises(DeviceFault, match="the encoder was set to 5 and reads 0"):
            await driver.set_encoder(5)
        await driver.close()

    run_with(line(fpga), use)


def test_the_objective_moves_and_stops() -> None:
    fpga = Fpga()
    server = line(fpga)

    async def use(transport: Transport, host: MemoryHost) -> None:
        objective = Objective(HiSeqFpga(transport, "fpga"), "focus")
        await objective.open()
        begun_s = now_s()
        fpga.lost = {"ZMV 52400"}
        await objective.move_to_um(200)
        assert now_s() - begun_s < 1.2
        assert await objective.position_um() == 200
        sent = len(server.heard)
        await objective.make_safe()
        assert server.commands[sent:] == [b"ZADCR"]  # at rest it is not touched
        moving = asyncio.ensure_future(objective.move_to_um(0))
        await asyncio.sleep(0.1)
        await objective.stop()
        with pytest.raises(Stopped):
            await moving
        assert 80 < await objective.position_um() < 140
        await objective.move_to_um(10)
        await objective.close()

    run_with(server, use)
    assert server.commands.count(b"ZMV 52400") == 1


def test_an_objective_that_does_not_stir_has_stalled() -> None:
    fpga = Fpga()

    async def use(transport: Transport, host: MemoryHost) -> None:
        objective = Objective(HiSeqFpga(transport, "fpga"), "focus")
        await objective.open()
        fpga.sticks = True
        with pytest.raises(StallError, match="Z came to rest at 0 um after a move from 0 to 100 um"):
            await objective.move_to_um(100)
        await objective.close()

    run_with(line(fpga), use)


def test_a_tilt_motor_is_homed_and_moved() -> None:
    fpga = Fpga()
    server = line(fpga)

    async def use(transport: Transport, host: MemoryHost) -> None:
        tilt = TiltMotor(HiSeqFpga(transport, "fpga"), "tilt", number=1)
        await tilt.open()
        with pytest.raises(NotInitialized):
            await tilt.move_to_um(0)
        await tilt.home()
        fpga.lost = {"T1MOVETO 6560"}
        await tilt.move_to_um(10_000)
        assert await tilt.position_um() == 10_000
        moving = asyncio.ensure_future(tilt.move_to_um(5000))
        await asyncio.sleep(1)
        with pytest.raises(Busy):
            await tilt.position_um()
        await tilt.make_safe()  # cannot be stopped: it rests at its target
        with pytest.raises(Stopped):
            await moving
        assert await tilt.position_um() == 5000
        fpga.tilt.wall = 2000
        with pytest.raises(StallError):
            await tilt.move_to_um(0)
        with pytest.raises(NotInitialized, match="did not find home"):
            await tilt.home()
        assert await tilt.read_faults() == []
        await tilt.clear_faults()
        await tilt.close()

    run_with(server, use)
    assert server.commands.count(b"T1MOVETO 6560") == 1


def test_another_device_and_no_device_are_told_apart() -> None:
    async def meet_another(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(DeviceFault, match="does not speak as the FPGA of a HiSeq 2500 does"):
            await HiSeqFpga(transport, "fpga").open()

    async def meet_none(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(ReplyTimeout):
            await Objective(HiSeqFpga(transport, "fpga"), "focus").open()
        assert not transport.is_open

    run_with(Scripted(lambda command, now_s: b"E,5\r\n", terminator=b"\n"), meet_another)
    run_with(Scripted(lambda command, now_s: None, terminator=b"\n"), meet_none)
