from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cartoseq.drivers.capabilities import TemperatureController
from cartoseq.drivers.errors import (
    Busy,
    ChecksumError,
    DeviceFault,
    LimitError,
    OverTemperature,
    ReplyTimeout,
    Stopped,
)
from cartoseq.drivers.meerstetter import MeerstetterTec
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox
from cartoseq.streaming.errors import InputError

FLOATS = {1000, 1001, 1010, 3000, 3003, 6310}


def crc(data: bytes) -> int:
    """The checksum, bit by bit."""
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x1021 if value & 0x8000 else value << 1) & 0xFFFF
    return value


class Controller:
    """A table of parameters behind MeCom; `heat` moves the object temperature while it runs."""

    def __init__(self) -> None:
        self.table: dict[int, float] = {
            **{100: 1091, 102: 4711, 103: 320, 104: 1, 105: 0, 106: 0, 107: 0, 108: 0, 1000: 25.0, 1001: 26.0},
            **{1010: 25.0, 1200: 0, 2010: 0, 3003: 1.0, 6310: 1.0},
        }
        self.heard: list[tuple[float, bytes]] = []
        self.answer_faults: list[Callable[[bytes], bytes]] = []
        self.refusals: list[bytes] = []
        self.seen: set[bytes] = set()
        self.repeats = 0
        self.reset_takes_s = 0.5
        self.heat: Callable[[float], float] | None = None
        self.deaf_until_s = self._back_s = 0.0
        self._out = Outbox()
        self._buffer = b""

    def payloads(self) -> list[bytes]:
        return [frame[7:-5] for _, frame in self.heard]

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            frame = line + b"\r"
            self.heard.append((now_s, frame))
            assert crc(frame[:-5]) == int(frame[-5:-1], 16)
            if frame[1:3] != b"02" or now_s < max(self._back_s, self.deaf_until_s):
                continue
            self.repeats += frame in self.seen
            self.seen.add(frame)
            answer = self.answer(frame, now_s)
            if self.answer_faults:
                answer = self.answer_faults.pop(0)(answer)
            if answer:
                self._out.put(now_s + 0.005, answer)

    def answer(self, frame: bytes, now_s: float) -> bytes:
        head, payload = b"!" + frame[1:7], frame[7:-5]
        if self.refusals:
            return self.sealed(head + self.refusals.pop(0))
        if payload == b"?IF":
            return self.sealed(head + b"TEC-1091 SW D       ")
        if payload == b"RS":
            self._back_s = now_s + self.reset_takes_s
            self.table.update({104: 1, 105: 0, 108: 0, 2010: 0})
            return head + frame[-5:]
        number = int(payload[3:7] if payload[:1] == b"?" else payload[2:6], 16)
        if number not in self.table and number != 3000:
            return self.sealed(head + b"+05")
        if payload[:1] == b"?":
            if number == 1000 and self.heat is not None:
                self.table[1000] = self.heat(now_s)
            bits = (
                struct.pack(">f", self.table[number])
                if number in FLOATS
                else struct.pack(">i", int(self.table[number]))
            )
            return self.sealed(head + bits.hex().upper().encode())
        bits = bytes.fromhex(payload[8:].decode())
        if number == 3000:
            self.table[1010] = struct.unpack(">f", bits)[0]
        else:
            self.table[number] = struct.unpack(">i", bits)[0]
        if number == 2010 and self.table[104] in (1, 2):
            self.table[104] = 2 if self.table[2010] else 1
        return head + frame[-5:]

    @staticmethod
    def sealed(body: bytes) -> bytes:
        return body + b"%04X\r" % crc(body)

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


def control(
    use: Callable[[MeerstetterTec], Coroutine[Any, Any, None]], controller: Controller | None = None, **settings: Any
) -> Controller:
    controller = controller or Controller()

    async def main() -> None:
        tec = MeerstetterTec(Transport("plate", MemoryHost(controller).connect), "plate", **settings)
        await tec.open()
        controller.heard.clear()
        try:
            await use(tec)
        finally:
            await tec.close()

    run_virtual(main())
    return controller


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_it_has_the_methods_of_a_temperature_controller() -> None:
    assert isinstance(
        MeerstetterTec(Transport("plate", MemoryHost(Controller()).connect), "plate"), TemperatureController
    )


def test_opening_identifies_it_and_keeps_its_flash_from_wearing() -> None:
    controller = Controller()

    async def main() -> None:
        tec = MeerstetterTec(Transport("plate", MemoryHost(controller).connect), "plate")
        identity = await tec.open()
        assert identity.model == "TEC-1091 (TEC-1091 SW D)"
        assert (identity.serial_number, identity.firmware) == ("4711", "3.20")
        assert "not met its hardware" in identity.notice
        await tec.close()

    run_virtual(main())
    assert controller.table[108] == 1
    assert controller.table[2010] == 0


def test_a_target_goes_out_as_the_vendors_bytes_and_regulation_runs() -> None:
    async def use(tec: MeerstetterTec) -> None:
        tec._sequence = 0x15AA
        await tec.set_target_c(55.0)
        assert await tec.target_c() == 55.0

    controller = control(use)
    assert b"VS0BB801425C0000" in controller.payloads()
    assert controller.heard[1][1] == b"#0215ACVS0BB801425C00004226\r"
    assert controller.heard[2][1] == b"#0215ADVS07DA010000000114DB\r"
    assert controller.table[104] == 2


@pytest.mark.parametrize("target_c", [3.9, 95.1, float("nan"), float("inf")])
def test_a_target_outside_the_limits_is_refused_and_nothing_is_sent(target_c: float) -> None:
    async def use(tec: MeerstetterTec) -> None:
        with pytest.raises(LimitError, match=r"plate: target: .* was asked for, allowed is 4 to 95"):
            await tec.set_target_c(target_c)

    assert control(use).heard == []


def flipped(answer: bytes) -> bytes:
    return answer[:8] + bytes([answer[8] ^ 1]) + answer[9:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda answer: b"",
        flipped,
        lambda answer: answer[:9],
        lambda answer: b"\xff\x00" + answer,
        lambda answer: answer + answer,
        lambda answer: Controller.sealed(b"!02FFFF00000000"),
        lambda answer: answer[:-5] + b"0000\r",
    ],
    ids=["lost", "flipped", "cut off", "noise before", "twice", "another's number", "wrong checksum"],
)
def test_a_damaged_answer_is_asked_for_again_with_the_same_number(damage: Callable[[bytes], bytes]) -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        controller.table[1000] = 37.25
        controller.answer_faults = [damage]
        assert await tec.temperature_c() == 37.25
        assert await tec.target_c() == 25.0

    control(use, controller)
    assert controller.repeats <= 1


def test_a_line_that_damages_everything_is_a_checksum_error() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        controller.answer_faults = [flipped] * 9
        with pytest.raises(ChecksumError, match="is damaged") as failed:
            await tec.temperature_c()
        assert "?VR03E801" in failed.value.wire

    control(use, controller)
    assert len(controller.heard) == 3


def test_silence_is_a_timeout_after_three_tries() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        controller.answer_faults = [lambda answer: b""] * 3
        with pytest.raises(ReplyTimeout):
            await tec.temperature_c()

    control(use, controller)
    assert len({frame for _, frame in controller.heard}) == 1


def test_a_refusal_says_what_the_controller_says() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        controller.refusals = [b"+07"]
        with pytest.raises(DeviceFault, match=r"out of its range.*code \+07"):
            await tec.target_c()
        controller.refusals = [b"+02"]
        assert await tec.target_c() == 25.0
        controller.refusals = [b"+02", b"+02"]
        with pytest.raises(Busy):
            await tec.target_c()

    control(use, controller)


def test_a_controller_without_the_channel_is_one_message() -> None:
    controller = Controller()
    del controller.table[1000]

    async def main() -> None:
        transport = Transport("plate", MemoryHost(controller).connect)
        with pytest.raises(DeviceFault, match=r"has no temperature channel 1.*Check address and channel"):
            await MeerstetterTec(transport, "plate").open()
        assert not transport.is_open

    run_virtual(main())


@pytest.mark.parametrize("settings", [{"address": 255}, {"channel": 0}, {"low_c": 5.0, "high_c": 5.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        MeerstetterTec(Transport("plate", MemoryHost(Controller()).connect), "plate", **settings)


def test_two_tasks_may_ask_at_once() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        assert await asyncio.gather(tec.temperature_c(), tec.target_c(), tec.is_stable()) == [25.0, 25.0, False]

    control(use, controller)
    assert controller.repeats == 0


def warming(controller: Controller, k_per_s: float, start_s: float, top_c: float = 200.0) -> Callable[[float], float]:
    return lambda now_s: min(25.0 + k_per_s * (now_s - start_s), controller.table[1010], top_c)


def test_the_wait_ends_when_it_has_been_at_the_target_for_the_dwell_time() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        await tec.set_target_c(55.0)
        begin_s = now_s()
        controller.heat = warming(controller, 1.0, begin_s)
        await tec.wait_stable(0.5, 10.0, 100.0)
        # 29.5 s until it is within half a degree, then 10 s.
        assert now_s() - begin_s == pytest.approx(39.5, abs=0.6)

    control(use, controller)
    assert len(controller.heard) < 2 * (30 / 0.4 + 10 / 0.4)


def test_leaving_the_tolerance_begins_the_dwell_anew() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        await tec.set_target_c(25.0)
        begin_s = now_s()
        controller.heat = lambda at_s: 27.0 if 5.0 < at_s - begin_s < 6.0 else 25.0
        await tec.wait_stable(0.5, 10.0, 100.0)
        assert now_s() - begin_s == pytest.approx(16.0, abs=0.6)

    control(use, controller)


def test_a_target_that_is_not_reached_is_told_with_both_temperatures() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        await tec.set_target_c(55.0)
        begin_s = now_s()
        controller.heat = warming(controller, 1.0, begin_s, top_c=40.0)
        with pytest.raises(DeviceFault, match=r"40.00 °C after 60 s; expected 55.00 ± 0.5 °C for 10 s"):
            await tec.wait_stable(0.5, 10.0, 60.0)
        assert now_s() - begin_s == pytest.approx(60.0, abs=0.1)

    control(use, controller)


def test_a_controller_that_restarts_by_itself_is_noticed_and_brought_back() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        await tec.set_target_c(55.0)
        waiting = asyncio.ensure_future(tec.wait_stable(0.5, 10.0, 60.0))
        await asyncio.sleep(5.0)
        controller.table.update({104: 1, 108: 0, 1010: 20.0, 2010: 0})
        with pytest.raises(DeviceFault, match="regulation is off"):
            await waiting
        assert [fault.code for fault in await tec.read_faults()] == ["off"]
        await tec.clear_faults()
        assert await tec.read_faults() == []
        assert (controller.table[104], controller.table[108], controller.table[1010]) == (2, 1, 55.0)

    control(use, controller)
    assert b"RS" not in controller.payloads()


@pytest.mark.parametrize(
    ("sink_c", "kind", "text"),
    [(26.0, DeviceFault, "error of channel 1"), (85.0, OverTemperature, "heat sink 85.0")],
)
def test_an_error_is_told_and_cleared_by_a_restart_that_brings_the_target_back(
    sink_c: float, kind: type[DeviceFault], text: str
) -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        await tec.set_target_c(55.0)
        controller.table.update({104: 3, 105: 33, 106: 1, 107: 0, 1001: sink_c})
        with pytest.raises(kind, match=rf"{text}.*code 33") as failed:
            await tec.wait_stable(0.5, 10.0, 60.0)
        assert type(failed.value) is kind
        with pytest.raises(kind):
            await tec.set_target_c(55.0)
        assert [fault.code for fault in await tec.read_faults()] == ["33"]
        await tec.clear_faults()
        assert await tec.read_faults() == []
        assert (controller.table[104], controller.table[108], controller.table[2010]) == (2, 1, 1)

    control(use, controller)
    assert controller.payloads().count(b"RS") == 1


def test_after_a_stop_clearing_faults_does_not_heat() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        await tec.set_target_c(55.0)
        controller.table.update({104: 3, 105: 11})
        await tec.make_safe()
        await tec.clear_faults()

    control(use, controller)
    assert (controller.table[104], controller.table[2010]) == (1, 0)


def test_an_error_that_stays_after_the_restart_is_raised() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        controller.table.update({104: 3, 105: 33})
        begin_s = now_s()
        controller.reset_takes_s = 1e9
        with pytest.raises(DeviceFault, match="does not come back after a restart"):
            await tec.clear_faults()
        assert now_s() - begin_s == pytest.approx(11.0, abs=1.5)

    control(use, controller)


def test_an_open_sensor_is_a_fault_of_the_sensor() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        controller.table[1000] = float("nan")
        with pytest.raises(DeviceFault, match="sensor reads nan"):
            await tec.temperature_c()

    control(use, controller)


def test_heat_without_end_is_too_hot() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        await tec.set_target_c(55.0)
        controller.heat = lambda now_s: 101.0
        with pytest.raises(OverTemperature, match="no more than 95"):
            await tec.wait_stable(0.5, 10.0, 60.0)

    control(use, controller)


def test_a_stop_goes_out_at_once_ends_the_wait_and_is_confirmed() -> None:
    controller = Controller()
    stopped_s = 0.0

    async def use(tec: MeerstetterTec) -> None:
        nonlocal stopped_s
        await tec.set_target_c(55.0)
        waiting = asyncio.ensure_future(tec.wait_stable(0.5, 10.0, 60.0))
        await asyncio.sleep(3.001)
        stopped_s = now_s()
        await asyncio.gather(tec.make_safe(), tec.make_safe())
        with pytest.raises(Stopped):
            await waiting
        await tec.make_safe()

    control(use, controller)
    offs = [at_s for at_s, frame in controller.heard if frame[7:-5] == b"VS07DA0100000000"]
    assert offs[0] == stopped_s
    assert controller.table[2010] == 0


@pytest.mark.parametrize("after_s", [0.001 * step for step in range(0, 60, 3)])
def test_a_stop_while_the_target_is_set_leaves_it_off(after_s: float) -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        setting = asyncio.ensure_future(tec.set_target_c(55.0))
        await asyncio.sleep(after_s)
        await tec.make_safe()
        result = (await asyncio.gather(setting, return_exceptions=True))[0]
        assert result is None or isinstance(result, Stopped)
        assert controller.table[2010] == 0
        await asyncio.sleep(5.0)

    control(use, controller)
    assert controller.table[2010] == 0


def test_a_stop_that_is_lost_on_the_line_is_sent_again() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        await tec.set_target_c(55.0)
        controller.deaf_until_s = now_s() + 0.001
        await tec.make_safe()

    control(use, controller)
    assert controller.table[2010] == 0


def test_an_acknowledgement_with_another_checksum_is_none() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        controller.answer_faults = [lambda answer: answer, lambda answer: answer[:-5] + b"0000\r"]
        await tec.set_target_c(55.0)

    control(use, controller)
    assert controller.repeats == 1
    assert controller.payloads().count(b"VS0BB801425C0000") == 2


def test_an_output_that_stays_on_is_told() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        await tec.set_target_c(55.0)
        stuck = controller.answer

        def answer(frame: bytes, now_s: float) -> bytes:
            reply = stuck(frame, now_s)
            controller.table.update({104: 2, 2010: 1})
            return reply

        controller.answer = answer  # type: ignore[method-assign]
        with pytest.raises(DeviceFault, match="stays on"):
            await tec.disable()

    control(use, controller)


def test_what_the_device_says_of_itself_is_passed_on() -> None:
    controller = Controller()

    async def use(tec: MeerstetterTec) -> None:
        assert not await tec.is_stable()
        controller.table[1200] = 2
        assert await tec.is_stable()

    control(use, controller)
