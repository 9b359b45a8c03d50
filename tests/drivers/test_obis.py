from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers.capabilities import Laser, Range
from cartoseq.drivers.errors import (
    DeviceFault,
    FramingError,
    InterlockOpen,
    LimitError,
    OverTemperature,
    ReplyTimeout,
    Stopped,
)
from cartoseq.drivers.obis import (
    ObisLaser,
    fault_bits,
    frame_reply,
    parse_bits,
    parse_number,
    parse_reply,
    parse_switch,
)
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox
from cartoseq.streaming.errors import InputError


@pytest.mark.parametrize(
    ("frame", "values", "code"),
    [
        (b"OK\r\n", [], 0),
        (b"C8001010\r\nOK\r\n", ["C8001010"], 0),
        (b"\r\n25.3C\r\nOK\r\n", ["25.3C"], 0),
        (b"ERR-221\r\n", [], -221),
        (b"ERR -100\r\n", [], -100),
    ],
)
def test_replies_are_framed_and_understood(frame: bytes, values: list[str], code: int) -> None:
    assert frame_reply(frame + b"OK\r\n") == (0, len(frame))
    assert all(frame_reply(frame[:end]) is None for end in range(len(frame)))
    assert parse_reply(frame) == (values, code)


def test_a_value_that_contains_ok_is_no_end() -> None:
    assert frame_reply(b"OKLAHOMA\r\nBOOK\r\n") is None


@given(st.binary(max_size=60), st.text(max_size=20))
def test_garbage_raises_nothing_but_value_errors(garbage: bytes, text: str) -> None:
    frame_reply(garbage)
    calls: list[Callable[[], object]] = [
        lambda: parse_reply(garbage),
        lambda: parse_bits(text),
        lambda: parse_number(text),
        lambda: parse_switch(text),
    ]
    for call in calls:
        try:
            call()
        except ValueError:
            continue


@given(st.integers(0, 2**32 - 1))
def test_bits_come_back(word: int) -> None:
    assert sum(1 << bit for bit in fault_bits(parse_bits(f"{word:08X}"))) == word


@given(st.floats(0, 1e3))
def test_powers_come_back_with_and_without_a_unit(power_w: float) -> None:
    assert parse_number(f"{power_w:.5f}") == pytest.approx(power_w, abs=1e-5)
    assert parse_number(f"{power_w:.5f}W") == pytest.approx(power_w, abs=1e-5)


class Head:
    """A head that answers in `states` from the time of switching on: (seconds after, status word)."""

    def __init__(self) -> None:
        self.dark = 0xC8001008
        self.states: list[tuple[float, int]] = [(0.0, 0xC8001010), (5.0, 0xC8001002)]
        self.fault_word = 0
        self.errors: list[int] = []
        self.values = {
            "*IDN?": "Coherent, Inc - OBIS 488nm 150mW - V1.0.1 - Dec 14 2010",
            "SYST:INF:MOD?": "OBIS 488-150 LS",
            "SYST:INF:SNUM?": "16-0123",
            "SYST:INF:FVER?": "V1.0.1",
            "SYST:INF:WAV?": "488",
            "SYST:LOCK?": "ON",
            "SOUR:AM:SOUR?": "CWC",
            "SOUR:POW:LIM:LOW?": "0.00150",
            "SOUR:POW:LIM:HIGH?": "0.16500",
            "SOUR:POW:LEV:IMM:AMPL?": "0.02000",
            "SOUR:POW:LEV?": "0.04987",
        }
        self.handshake = False
        self.on_s: float | None = None
        self.heard: list[tuple[float, str]] = []
        self.refusals: dict[str, int] = {}
        self.deaf_to: str = ""
        self.reply_faults: list[Callable[[bytes], bytes]] = []
        self._out = Outbox()
        self._buffer = b""

    def status(self, now_s: float) -> int:
        if self.on_s is None:
            return self.dark
        return [word for after_s, word in self.states if now_s - self.on_s >= after_s][-1]

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\r\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r\n", 1)
            command = line.decode()
            self.heard.append((now_s, command))
            reply = self.reply(command, now_s)
            if self.reply_faults and command != "*IDN?":
                reply = self.reply_faults.pop(0)(reply)
            if reply:
                self._out.put(now_s + 0.008, reply)

    def reply(self, command: str, now_s: float) -> bytes:
        if command in self.refusals:
            return b"ERR%d\r\n" % self.refusals[command]
        value = self.values.get(command)
        if command == "SYST:STAT?":
            value = f"{self.status(now_s):08X}"
        elif command == "SYST:FAUL?":
            value = f"{self.fault_word:08X}"
        elif command == "SYST:ERR:COUN?":
            value = str(len(self.errors))
        elif command == "SYST:ERR:NEXT?":
            value = str(self.errors.pop(0))
        elif command == "SYST:ERR:CLE":
            self.errors.clear()
        elif command.startswith("SOUR:POW:LEV:IMM:AMPL "):
            self.values["SOUR:POW:LEV:IMM:AMPL?"] = command.split()[1]
        elif command.startswith("SOUR:AM:STAT ") and command != self.deaf_to:
            self.on_s = now_s if command.endswith("ON") else None
        elif command.startswith("SYST:COMM:HAND"):
            self.handshake = command.endswith("ON")
        if command.endswith("?") and value is None:
            return b"ERR-100\r\n"
        return (value.encode() + b"\r\n" if value else b"") + (b"OK\r\n" if self.handshake else b"")

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


def laser_of(head: Head, **settings: Any) -> ObisLaser:
    settings = {"wavelength_nm": 488.0, "max_power_mw": 100.0, **settings}
    return ObisLaser(Transport("blue", MemoryHost(head).connect), "blue", **settings)


def shine(use: Callable[[ObisLaser], Coroutine[Any, Any, None]], head: Head, **settings: Any) -> list[str]:
    async def main() -> None:
        laser = laser_of(head, **settings)
        await laser.open()
        head.heard.clear()
        try:
            await use(laser)
        finally:
            await laser.close()

    run_virtual(main())
    return [command for _, command in head.heard]


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_it_has_the_methods_of_a_laser() -> None:
    assert isinstance(laser_of(Head()), Laser)


@pytest.mark.parametrize("handshake", [False, True])
def test_opening_switches_the_handshake_on_whatever_it_was(handshake: bool) -> None:
    head = Head()
    head.handshake = handshake

    async def main() -> None:
        laser = laser_of(head)
        identity = await laser.open()
        assert (identity.maker, identity.model, identity.serial_number) == ("Coherent", "OBIS 488-150 LS", "16-0123")
        assert laser.power_limits_mw == Range(1.5, 100.0)
        await laser.close()

    run_virtual(main())
    assert head.handshake
    assert head.on_s is None


@pytest.mark.parametrize(("mode", "sent"), [("CWC", True), ("DIGITAL", True), ("CWP", False)])
def test_opening_sets_constant_power_only_where_the_head_is_in_another_mode(mode: str, sent: bool) -> None:
    head = Head()
    head.values["SOUR:AM:SOUR?"] = mode
    if not sent:
        head.on_s, head.refusals["SOUR:AM:INT CWP"] = 0.0, -200  # it was left on, and takes no mode then

    async def main() -> None:
        laser = laser_of(head)
        await laser.open()
        await laser.set_emission(False)
        await laser.close()

    run_virtual(main())
    assert ("SOUR:AM:INT CWP" in [command for _, command in head.heard]) == sent
    assert head.on_s is None


def test_a_laser_of_another_wavelength_is_refused() -> None:
    head = Head()
    head.values["SYST:INF:WAV?"] = "561"
    with pytest.raises(InputError, match="expected a laser of 488 nm, found OBIS 488-150 LS of 561 nm"):
        shine(lambda laser: laser.clear_faults(), head)


def test_another_device_is_refused() -> None:
    head = Head()
    head.values["*IDN?"] = "THORLABS,PM100D,P0001,1.0"
    with pytest.raises(DeviceFault, match="expected a Coherent OBIS"):
        shine(lambda laser: laser.clear_faults(), head)


def test_powers_are_watts_on_the_wire() -> None:
    async def use(laser: ObisLaser) -> None:
        await laser.set_power_mw(50.0)
        assert await laser.power_mw() == pytest.approx(49.87)

    assert shine(use, Head())[0] == "SOUR:POW:LEV:IMM:AMPL 0.05000"


@pytest.mark.parametrize("power_mw", [1.4, 100.1, -1.0, float("nan"), float("inf")])
def test_a_power_outside_the_limits_is_refused_and_nothing_is_sent(power_mw: float) -> None:
    async def use(laser: ObisLaser) -> None:
        with pytest.raises(LimitError):
            await laser.set_power_mw(power_mw)

    assert shine(use, Head()) == []


def test_a_set_point_that_was_not_taken_is_told() -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        taken = head.reply
        head.reply = lambda command, at_s: b"OK\r\n" if " " in command else taken(command, at_s)  # type: ignore[method-assign]
        with pytest.raises(DeviceFault, match=r"expected 50.0 mW, found 20.00 mW"):
            await laser.set_power_mw(50.0)

    shine(use, head)


def test_light_is_on_when_the_delay_is_over_and_not_when_the_command_is_taken() -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        begin_s = now_s()
        await laser.set_emission(True)
        assert now_s() - begin_s == pytest.approx(5.0, abs=0.15)
        assert await laser.is_emitting()
        await laser.set_emission(False)
        assert not await laser.is_emitting()

    assert "SOUR:AM:STAT ON" in shine(use, head)


def test_a_cold_head_may_take_its_warm_up_and_the_delay() -> None:
    head = Head()
    head.states = [(0.0, 0xC8001100), (120.0, 0xC8001010), (125.0, 0xC8001002)]

    async def use(laser: ObisLaser) -> None:
        begin_s = now_s()
        await laser.set_emission(True)
        assert now_s() - begin_s == pytest.approx(125.0, abs=0.2)

    shine(use, head)


@pytest.mark.parametrize(
    ("states", "after_s", "text"),
    [([(0.0, 0xC8001008)], 7.0, "no light"), ([(0.0, 0xC8001100)], 307.0, "still warming up")],
)
def test_light_that_does_not_come_is_told(states: list[tuple[float, int]], after_s: float, text: str) -> None:
    head = Head()
    head.states = states

    async def use(laser: ObisLaser) -> None:
        begin_s = now_s()
        with pytest.raises(DeviceFault, match=text):
            await laser.set_emission(True)
        assert now_s() - begin_s == pytest.approx(after_s, abs=0.3)
        assert head.on_s is None

    shine(use, head)


def test_an_open_interlock_is_told_before_anything_is_switched() -> None:
    head = Head()
    head.values["SYST:LOCK?"] = "OFF"
    head.dark = 0xCC000008

    async def use(laser: ObisLaser) -> None:
        assert not await laser.interlock_ok()
        with pytest.raises(InterlockOpen, match="Close the doors"):
            await laser.set_emission(True)
        assert [fault.code for fault in await laser.read_faults()] == ["interlock"]

    assert "SOUR:AM:STAT ON" not in shine(use, head)


def test_an_interlock_that_opens_during_the_delay_is_told_at_once() -> None:
    head = Head()
    head.states = [(0.0, 0xC8001010), (2.0, 0xCC000008)]

    async def use(laser: ObisLaser) -> None:
        begin_s = now_s()
        switching = asyncio.ensure_future(laser.set_emission(True))
        await asyncio.sleep(1.9)
        head.values["SYST:LOCK?"] = "OFF"
        with pytest.raises(InterlockOpen):
            await switching
        assert now_s() - begin_s == pytest.approx(2.0, abs=0.2)

    shine(use, head)


def test_the_interlock_bit_of_a_warming_controller_is_no_open_interlock() -> None:
    head = Head()
    head.dark = 0xCE000100
    head.states = [(0.0, 0xCE000100), (20.0, 0xC8001002)]

    async def use(laser: ObisLaser) -> None:
        await laser.set_emission(True)

    shine(use, head)


@pytest.mark.parametrize(
    ("word", "kind", "text"),
    [
        (1 << 13, DeviceFault, "power cannot be reached"),
        (1 << 12 | 1, OverTemperature, "base plate.*diode"),
        (0, DeviceFault, "does not say"),
    ],
)
def test_a_fault_is_told_by_its_bits(word: int, kind: type[DeviceFault], text: str) -> None:
    head = Head()
    head.dark, head.fault_word = 0xC8001001, word

    async def use(laser: ObisLaser) -> None:
        with pytest.raises(kind, match=text) as failed:
            await laser.set_emission(True)
        assert type(failed.value) is kind
        assert len(await laser.read_faults()) == max(1, bin(word).count("1"))

    shine(use, head)


def test_a_refusal_is_told_with_its_meaning() -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        head.refusals["SOUR:AM:STAT ON"] = -203
        with pytest.raises(DeviceFault, match=r"refuses SOUR:AM:STAT ON: the command is protected \(code -203\)"):
            await laser.set_emission(True)

    shine(use, head)


def test_the_error_queue_is_read_to_its_end_and_cleared() -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        head.errors = [-221, -350]
        assert [(fault.code, fault.severe) for fault in await laser.read_faults()] == [("-221", False), ("-350", False)]
        assert head.errors == []
        head.errors = [-221]
        await laser.clear_faults()
        assert await laser.read_faults() == []

    shine(use, head)


@pytest.mark.parametrize(
    "damage",
    [
        lambda reply: b"",
        lambda reply: reply[:5],
        lambda reply: b"OK\r\n",
        lambda reply: b"\xff\r\n" + reply,
        lambda reply: reply + reply,
    ],
    ids=["lost", "cut off", "value lost", "noise before", "twice"],
)
def test_a_damaged_reply_is_asked_for_again(damage: Callable[[bytes], bytes]) -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        head.reply_faults = [damage]
        assert await laser.power_mw() == pytest.approx(49.87)
        assert await laser.interlock_ok()

    shine(use, head)


def test_a_late_reply_is_not_taken_for_the_next_ones() -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        ask = asyncio.ensure_future(laser.power_mw())
        await asyncio.sleep(0.001)
        ask.cancel()
        assert await laser.interlock_ok()

    assert shine(use, head)[1] == "*IDN?"


@pytest.mark.parametrize(
    ("damage", "kind"), [(lambda reply: b"", ReplyTimeout), (lambda reply: b"x\r\ny\r\nOK\r\n", FramingError)]
)
def test_a_line_that_stays_bad_is_an_error_of_the_line(damage: Callable[[bytes], bytes], kind: type[Exception]) -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        head.reply_faults = [damage] * 3
        with pytest.raises(kind):
            await laser.power_mw()

    shine(use, head)


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.012, 0.02, 0.028, 1.0, 4.99, 5.02])
def test_a_stop_while_it_is_switched_on_leaves_it_dark(after_s: float) -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        switching = asyncio.ensure_future(laser.set_emission(True))
        await asyncio.sleep(after_s)
        await asyncio.gather(laser.make_safe(), laser.make_safe())
        result = (await asyncio.gather(switching, return_exceptions=True))[0]
        assert isinstance(result, Stopped)
        await asyncio.sleep(10.0)
        assert not await laser.is_emitting()

    shine(use, head)
    assert head.on_s is None
    first_off_s = next(at_s for at_s, command in head.heard if command == "SOUR:AM:STAT OFF")
    assert first_off_s - head.heard[0][0] <= after_s + 1e-9


def test_switching_off_ends_a_switching_on() -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        switching = asyncio.ensure_future(laser.set_emission(True))
        await asyncio.sleep(2.0)
        await laser.set_emission(False)
        with pytest.raises(Stopped):
            await switching

    shine(use, head)
    assert head.on_s is None


def test_a_stop_that_is_lost_on_the_line_is_sent_again() -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        await laser.set_emission(True)
        head.deaf_to = "SOUR:AM:STAT OFF"
        stopping = asyncio.ensure_future(laser.make_safe())
        await asyncio.sleep(0.001)
        head.deaf_to = ""
        await stopping

    shine(use, head)
    assert head.on_s is None


def test_light_that_stays_on_is_told() -> None:
    head = Head()

    async def use(laser: ObisLaser) -> None:
        await laser.set_emission(True)
        head.deaf_to = "SOUR:AM:STAT OFF"
        with pytest.raises(DeviceFault, match="light after it was switched off"):
            await laser.make_safe()

    shine(use, head)


def test_a_head_behind_a_remote_is_addressed_by_its_number() -> None:
    assert laser_of(Head(), index=2)._line("SOUR:AM:STAT ON") == b"SOUR2:AM:STAT ON\r\n"


@pytest.mark.parametrize("settings", [{"max_power_mw": 0.0}, {"min_power_mw": -1.0}, {"max_power_mw": float("nan")}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        laser_of(Head(), **settings)
