from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers.arm9chem import Arm9Switch, Arm9Temperature, frame_answer, parse_celsius, parse_fields
from cartoseq.drivers.capabilities import TemperatureController
from cartoseq.drivers.errors import (
    DeviceFault,
    LimitError,
    NotInitialized,
    OverTemperature,
    ReplyTimeout,
    Stopped,
)
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox
from cartoseq.streaming.errors import InputError


class ScriptedBoard:
    """Answers as the protocol's examples do; flow cells warm by 1 K/s while switched on."""

    def __init__(self, end: bytes = b"") -> None:
        self.heard: list[str] = []
        self.answers = {
            "?IDN": "Illumina,Bruno Fluidics Controller,0,v2.0340:A1",
            "?RETEMP:3": "4.0C:4.1C:10.2:A1",
            "?asyphon:0": "0:A1",
        }
        self.mute_to: set[str] = set()
        self.temperature_c = 30.0
        self.target_c = 0.0
        self.on = False
        self.strength = 1.0
        self.valve_stuck = False
        self._now_s = 0.0
        self._end = end
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            self._warm(now_s)
            self._hear(line.decode(), now_s)

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)

    def _warm(self, now_s: float) -> None:
        if self.on:
            step = self.target_c - self.temperature_c
            most = self.strength * (now_s - self._now_s)
            self.temperature_c += max(-most, min(most, step))
        self._now_s = now_s

    def _hear(self, text: str, now_s: float) -> None:
        self.heard.append(text)
        if text in self.mute_to:
            self.mute_to.discard(text)
            return
        answer = self.answers.get(text, "A1")
        match text.split(":"):
            case ["?FCTEMP", "0"] if text not in self.answers:
                answer = f"{self.temperature_c:.1f}C:A1"
            case ["FCTEMP", "0", value]:
                self.target_c = float(value)
            case ["FCTEC", "0", on]:
                self.on = on == "1"
            case ["asyphon", "0", on] if not self.valve_stuck:
                self.answers["?asyphon:0"] = f"{on}:A1"
        self._out.put(now_s + 0.005, answer.encode() + self._end)


Make = Callable[[Transport], Any]


def heater(transport: Transport, **settings: Any) -> Arm9Temperature:
    return Arm9Temperature(transport, "heater", **{"part": "flow_cell", "channel": 0} | settings)


def talk(
    use: Callable[[Any], Coroutine[Any, Any, None]], board: ScriptedBoard | None = None, make: Make = heater
) -> ScriptedBoard:
    board = board or ScriptedBoard()

    async def main() -> None:
        device = make(Transport("board", MemoryHost(board, baud_rate=115200).connect))
        identity = await device.open()
        assert (identity.maker, identity.firmware) == ("Illumina", "v2.0340")
        assert "has not met its hardware" in identity.notice
        try:
            await use(device)
        finally:
            await device.close()

    run_virtual(main())
    return board


def now_s() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("received", "fields"),
    [
        (b"A1", []),
        (b"37.1C:A1", ["37.1C"]),
        (b"\r\n4.0C:4.1C:10.2:A1\r\n", ["4.0C", "4.1C", "10.2"]),
        (b"welcome\r\nA1", []),
        (b"N1", None),
        (b"Illumina,Bruno Fluidics Controller,0,v2.0340:A1", ["Illumina,Bruno Fluidics Controller,0,v2.0340"]),
    ],
)
def test_answers_are_found_and_read(received: bytes, fields: list[str] | None) -> None:
    found = frame_answer(received)
    assert found is not None
    assert parse_fields(received[slice(*found)]) == fields


@given(st.lists(st.text("0123456789.C-", min_size=1, max_size=6), max_size=4))
def test_an_answer_is_found_only_once_it_is_whole(fields: list[str]) -> None:
    frame = ":".join([*fields, "A1"]).encode()
    assert all(frame_answer(b"\r\n" + frame[:n]) is None for n in range(len(frame)))
    assert frame_answer(b"\r\n" + frame + b"\r\nA1") == (2, 2 + len(frame))
    assert parse_fields(frame) == fields


@given(st.binary(max_size=30))
def test_garbage_is_no_answer_or_an_answer_but_never_another_error(garbage: bytes) -> None:
    found = frame_answer(garbage)
    if found is not None:
        parse_fields(garbage[slice(*found)])
    if not garbage.endswith((b"A1", b"N1")):
        with pytest.raises(ValueError, match="is no answer"):
            parse_fields(garbage)


@pytest.mark.parametrize(("field", "celsius"), [("37.1C", 37.1), ("10.2", 10.2), ("-3C", -3.0), ("4.000C", 4.0)])
def test_temperatures_are_read(field: str, celsius: float) -> None:
    assert parse_celsius(field) == celsius


@pytest.mark.parametrize("field", ["", "C", "nan", "1e5C", "3.C", "37.1F", "²C"])
def test_what_is_no_temperature_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="no temperature"):
        parse_celsius(field)


@pytest.mark.parametrize("end", [b"", b"\r", b"\r\n"])
def test_a_flow_cell_is_warmed_and_waited_for(end: bytes) -> None:
    async def use(device: Arm9Temperature) -> None:
        assert isinstance(device, TemperatureController)
        assert not await device.is_stable()
        await device.set_target_c(55)
        assert await device.target_c() == 55
        assert not await device.is_stable()
        begin_s = now_s()
        await device.wait_stable(tolerance_c=0.5, dwell_s=10, timeout_s=100)
        assert 34 < now_s() - begin_s < 37
        assert await device.is_stable()
        assert await device.temperature_c() == 55
        await device.disable()
        with pytest.raises(NotInitialized):
            await device.target_c()

    board = talk(use, ScriptedBoard(end))
    assert board.heard[:3] == ["?IDN", "INIT", "?FCTEMP:0"]
    orders = [text for text in board.heard[3:] if not text.startswith("?")]
    assert orders == ["FCTEMP:0:55.0", "FCTEC:0:1", "FCTEC:0:0"]


def test_a_chiller_is_one_of_three_and_cannot_be_switched_off() -> None:
    def make(transport: Transport) -> Arm9Temperature:
        return Arm9Temperature(transport, "chiller", part="chiller", channel=2, gains={"P": 1.7, "I": 1.1})

    async def use(device: Arm9Temperature) -> None:
        assert await device.temperature_c() == 10.2
        await device.set_target_c(4.0)
        await device.make_safe()
        assert await device.target_c() == 4.0
        await device.disable()

    heard = talk(use, make=make).heard
    assert [text for text in heard if "RETE" in text and "?" not in text] == [
        "RETEC:2:P:1.7",
        "RETEC:2:I:1.1",
        "RETEMP:2:4.0",
        "RETEMP:2:20.0",
    ]


@pytest.mark.parametrize("temperature_c", [19.9, 60.1, math.nan, math.inf])
def test_beyond_a_limit_nothing_is_sent(temperature_c: float) -> None:
    async def use(device: Arm9Temperature) -> None:
        with pytest.raises(LimitError):
            await device.set_target_c(temperature_c)

    assert talk(use).heard == ["?IDN", "INIT", "?FCTEMP:0"]


def test_what_does_not_settle_in_time_is_told() -> None:
    async def use(device: Arm9Temperature) -> None:
        with pytest.raises(NotInitialized):
            await device.wait_stable(0.5, 10, 100)
        board.strength = 0.1
        await device.set_target_c(55)
        begin_s = now_s()
        with pytest.raises(DeviceFault, match=r"40.* °C after 100 s; expected 55.00 ± 0.5 °C for 10 s"):
            await device.wait_stable(0.5, 10, 100)
        assert 100 <= now_s() - begin_s < 101

    board = ScriptedBoard()
    talk(use, board)


def test_what_is_far_too_hot_is_told() -> None:
    async def use(device: Arm9Temperature) -> None:
        await device.set_target_c(55)
        board.answers["?FCTEMP:0"] = "80.0C:A1"
        with pytest.raises(OverTemperature, match="reads 80 °C, above 65 °C"):
            await device.wait_stable(0.5, 10, 100)
        assert [fault.code for fault in await device.read_faults()] == ["temperature"]
        await device.clear_faults()
        board.answers["?FCTEMP:0"] = "30.0C:A1"
        assert await device.read_faults() == []

    board = ScriptedBoard()
    talk(use, board)


def test_make_safe_switches_the_heater_off_and_ends_who_waits() -> None:
    async def use(device: Arm9Temperature) -> None:
        await device.set_target_c(55)
        waiting = asyncio.ensure_future(device.wait_stable(0.5, 10, 100))
        await asyncio.sleep(3.3)
        begin_s = now_s()
        await device.make_safe()
        assert now_s() - begin_s < 0.1
        with pytest.raises(Stopped):
            await waiting
        assert now_s() - begin_s < 0.1
        assert not board.on
        await device.make_safe()

    board = ScriptedBoard()
    talk(use, board)


def test_make_safe_waits_for_no_other_answer() -> None:
    async def use(device: Arm9Temperature) -> None:
        await device.set_target_c(55)
        board.mute_to = {"?FCTEMP:0"}
        asking = asyncio.ensure_future(device.temperature_c())
        await asyncio.sleep(0.1)  # its answer is awaited for 0.5 s
        making_safe = asyncio.ensure_future(device.make_safe())
        await asyncio.sleep(0.002)
        assert not board.on
        await making_safe
        assert await asking > 30

    board = ScriptedBoard()
    talk(use, board)


def test_the_heater_is_off_after_make_safe_at_any_moment_of_setting_a_target() -> None:
    async def use(device: Arm9Temperature) -> None:
        for delay_ms in range(0, 30, 1):
            setting = asyncio.ensure_future(device.set_target_c(55))
            await asyncio.sleep(delay_ms / 1000)
            done = setting.done()
            await device.make_safe()
            assert not board.on
            if done:
                await setting
            else:
                with pytest.raises(Stopped):
                    await setting
            assert not board.on

    board = ScriptedBoard()
    talk(use, board)


def test_lost_answers_are_asked_for_again() -> None:
    async def use(device: Arm9Temperature) -> None:
        board.mute_to = {"?FCTEMP:0", "FCTEMP:0:50.0", "FCTEC:0:1"}
        await device.temperature_c()
        await device.set_target_c(50)
        assert board.on

    board = ScriptedBoard()
    talk(use, board)


def test_a_refusal_is_told() -> None:
    async def use(device: Arm9Temperature) -> None:
        board.answers["FCTEC:0:1"] = "N1"
        with pytest.raises(DeviceFault, match=r"refuses FCTEC:0:1 .code N1"):
            await device.set_target_c(50)

    board = ScriptedBoard()
    talk(use, board)


def test_another_device_is_one_clear_error() -> None:
    board = ScriptedBoard()

    async def main(answer: str) -> None:
        board.answers["?IDN"] = answer
        transport = Transport("board", MemoryHost(board).connect)
        try:
            await heater(transport).open()
        finally:
            assert not transport.is_open

    with pytest.raises(DeviceFault, match="is not the HiSeq's chemistry board"):
        run_virtual(main("ACME,Toaster,0,v1:A1"))
    with pytest.raises(ReplyTimeout):
        run_virtual(main("what?"))


def test_all_devices_share_the_line_and_only_the_first_initialises_the_board() -> None:
    board = ScriptedBoard()

    async def main() -> None:
        transport = Transport("board", MemoryHost(board, baud_rate=115200).connect)
        cell = heater(transport)
        vacuum = Arm9Switch(transport, "vacuum", part="vacuum")
        valve = Arm9Switch(transport, "valve", part="shutoff")
        for device in (cell, vacuum, valve):
            await device.open()
        await asyncio.gather(vacuum.set_on(True), valve.set_on(True), cell.set_target_c(40))
        assert await valve.is_open()
        makes_safe: list[Callable[[], Awaitable[None]]] = [cell.make_safe, vacuum.make_safe, valve.make_safe]
        await asyncio.gather(*(make_safe() for make_safe in makes_safe))
        assert not await valve.is_open()
        assert not board.on
        with pytest.raises(DeviceFault, match="does not tell"):
            await vacuum.is_open()
        assert await vacuum.read_faults() == []
        for device in (cell, vacuum, valve):
            await device.close()
        assert not transport.is_open

    run_virtual(main())
    assert board.heard.count("INIT") == 1
    assert [text for text in board.heard if text.startswith("VACUUM")] == ["VACUUM:1"]


def test_a_shut_off_valve_that_does_not_turn_is_told() -> None:
    async def use(device: Arm9Switch) -> None:
        board.valve_stuck = True
        with pytest.raises(DeviceFault, match="is shut after it was opened"):
            await device.set_on(True)

    board = ScriptedBoard()
    talk(use, board, make=lambda transport: Arm9Switch(transport, "valve", part="shutoff"))


@pytest.mark.parametrize(
    "settings",
    [
        {"channel": 2},
        {"part": "chiller", "channel": 3},
        {"low_c": 60.0},
        {"gains": {"X": 1}},
        {"gains": {"P": math.nan}},
    ],
)
def test_settings_that_the_board_could_not_have_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="heater: "):
        heater(Transport("board", MemoryHost(ScriptedBoard()).connect), **settings)
