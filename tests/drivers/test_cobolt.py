from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers.capabilities import Laser, Range
from cartoseq.drivers.cobolt import (
    CoboltLaser,
    encode_power,
    frame_line,
    parse_code,
    parse_flag,
    parse_number,
    parse_text,
)
from cartoseq.drivers.errors import (
    DeviceFault,
    FramingError,
    InterlockOpen,
    LimitError,
    OverTemperature,
    Stopped,
)
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox
from cartoseq.streaming.errors import InputError


@pytest.mark.parametrize(("power_mw", "text"), [(50.0, "0.05"), (0.0, "0"), (0.01, "0.00001"), (1500.0, "1.5")])
def test_powers_are_watts_without_an_exponent(power_mw: float, text: str) -> None:
    assert encode_power(power_mw) == text


@given(st.floats(0, 2000))
def test_powers_come_back(power_mw: float) -> None:
    assert 1e3 * parse_number(encode_power(power_mw)) == pytest.approx(power_mw, abs=1e-3)


def test_an_empty_line_is_a_reply() -> None:
    assert frame_line(b"\r\n0.05\r\n") == (0, 2)
    assert frame_line(b"0.05\r") is None


@given(st.text(max_size=12))
def test_garbage_raises_nothing_but_value_errors(text: str) -> None:
    for parse in (parse_number, parse_code, parse_flag, parse_text):
        try:
            parse(text)
        except ValueError:
            continue


class Head:
    """A diode head that emits `delay_s` after it was switched on."""

    def __init__(self) -> None:
        self.values = {"sn?": "12345", "glm?": "0488-06-01-0060-100", "gfv?": "50070", "gmlp?": "66", "gam?": "0"}
        self.values |= {"p?": "0.02", "pa?": "0.0498", "ilk?": "0", "f?": "0", "@cobas?": "0"}
        self.delay_s = 0.5
        self.modes = (0, 1, 2)  # off, on its way, emitting
        self.on_s: float | None = None
        self.heard: list[tuple[float, str]] = []
        self.reply_faults: list[Callable[[bytes], bytes]] = []
        self.deaf_to = ""
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            command = line.decode()
            self.heard.append((now_s, command))
            reply = self.reply(command, now_s).encode() + b"\r\n"
            if self.reply_faults and command != "sn?":
                reply = self.reply_faults.pop(0)(reply)
            if reply:
                self._out.put(now_s + 0.004, reply)

    def reply(self, command: str, now_s: float) -> str:
        emitting = self.on_s is not None and now_s >= self.on_s + self.delay_s
        if command == "l?":
            return "1" if self.on_s is not None else "0"
        if command == "gom?":
            return str(self.modes[0 if self.on_s is None else 2 if emitting else 1])
        if command in self.values:
            return self.values[command]
        if command == "l1" and self.values["@cobas?"] == "1":
            return "Syntax error: only allowed when autostart is disabled"
        if command in ("l0", "l1", "@cob1"):
            if command != self.deaf_to:
                self.on_s = None if command == "l0" else now_s
            return "OK"
        if command.startswith("p "):
            self.values["p?"] = command[2:]
            return "OK"
        if command in ("cp", "cf"):
            self.values["gam?" if command == "cp" else "f?"] = "1" if command == "cp" else "0"
            return "OK"
        return "Syntax error: illegal command"

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


def laser_of(head: Head, **settings: Any) -> CoboltLaser:
    settings = {"wavelength_nm": 488.0, "max_power_mw": 100.0, **settings}
    return CoboltLaser(Transport("blue", MemoryHost(head).connect), "blue", **settings)


def shine(use: Callable[[CoboltLaser], Coroutine[Any, Any, None]], head: Head, **settings: Any) -> list[str]:
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


def test_opening_identifies_it_and_chooses_constant_power() -> None:
    head = Head()

    async def main() -> None:
        laser = laser_of(head)
        identity = await laser.open()
        assert (identity.model, identity.serial_number, identity.firmware) == ("0488-06-01-0060-100", "12345", "50070")
        assert laser.power_limits_mw == Range(0.0, 66.0)
        await laser.close()

    run_virtual(main())
    assert head.values["gam?"] == "1"
    assert head.on_s is None


def test_a_head_that_is_too_weak_is_refused() -> None:
    with pytest.raises(InputError, match="the limits of power are 70 to 100 mW, but the device keeps 0 to 66 mW"):
        shine(lambda laser: laser.clear_faults(), Head(), min_power_mw=70.0)


def test_another_device_is_refused() -> None:
    head = Head()
    del head.values["gmlp?"]
    with pytest.raises(DeviceFault, match="illegal command"):
        shine(lambda laser: laser.clear_faults(), head)


def test_powers_are_watts_on_the_wire() -> None:
    async def use(laser: CoboltLaser) -> None:
        await laser.set_power_mw(50.0)
        assert await laser.power_mw() == pytest.approx(49.8)

    assert shine(use, Head()) == ["p 0.05", "p?", "pa?"]


@pytest.mark.parametrize("power_mw", [66.1, -0.1, float("nan"), float("inf")])
def test_a_power_outside_the_limits_is_refused_and_nothing_is_sent(power_mw: float) -> None:
    async def use(laser: CoboltLaser) -> None:
        with pytest.raises(LimitError):
            await laser.set_power_mw(power_mw)

    assert shine(use, Head()) == []


@pytest.mark.parametrize("reply", [b"\r\n", b"1\r\n", b"", b"\r\n0.0498\r\n", b"OK\r\n"])
def test_a_quirk_is_asked_again(reply: bytes) -> None:
    head = Head()

    async def use(laser: CoboltLaser) -> None:
        head.reply_faults = [lambda _: reply]
        assert await laser.power_mw() == pytest.approx(49.8)
        assert await laser.interlock_ok()

    shine(use, head)


def test_a_quirk_that_stays_is_an_error_of_the_line() -> None:
    head = Head()

    async def use(laser: CoboltLaser) -> None:
        head.values["pa?"] = "1"
        with pytest.raises(FramingError, match=r"pa\? was answered by '1' W is no power of a laser of 66 mW"):
            await laser.power_mw()

    assert shine(use, head).count("pa?") == 3


def test_a_set_point_that_was_not_taken_is_told() -> None:
    head = Head()

    async def use(laser: CoboltLaser) -> None:
        head.reply_faults = [lambda reply: reply, lambda _: b"0.02\r\n"]
        with pytest.raises(DeviceFault, match=r"expected 50.0 mW, found 20.00 mW"):
            await laser.set_power_mw(50.0)

    shine(use, head)


@pytest.mark.parametrize(("autostart", "command"), [("0", "l1"), ("1", "@cob1")])
def test_it_is_switched_on_as_its_autostart_demands_and_light_is_awaited(autostart: str, command: str) -> None:
    head = Head()
    head.values["@cobas?"] = autostart

    async def use(laser: CoboltLaser) -> None:
        begin_s = now_s()
        await laser.set_emission(True)
        assert now_s() - begin_s == pytest.approx(0.5, abs=0.2)
        assert await laser.is_emitting()
        await laser.set_emission(True)
        await laser.set_emission(False)
        assert not await laser.is_emitting()

    assert shine(use, head).count(command) == 1


def test_a_dpss_head_may_warm_up_for_minutes() -> None:
    head = Head()
    head.delay_s = 200.0
    head.modes = (0, 3, 4)

    async def use(laser: CoboltLaser) -> None:
        begin_s = now_s()
        await laser.set_emission(True)
        assert now_s() - begin_s == pytest.approx(200.0, abs=0.2)

    shine(use, head, kind="dpss")


@pytest.mark.parametrize(
    ("mode", "kind", "text"), [(1, InterlockOpen, "its key is off"), (6, DeviceFault, "no light 15 s .*aborted")]
)
def test_light_that_does_not_come_is_told(mode: int, kind: type[DeviceFault], text: str) -> None:
    head = Head()
    head.delay_s = 1e9
    head.modes = (0, mode, 2)

    async def use(laser: CoboltLaser) -> None:
        begin_s = now_s()
        with pytest.raises(kind, match=text):
            await laser.set_emission(True)
        assert now_s() - begin_s == pytest.approx(15.0, abs=0.3)
        assert head.on_s is None

    shine(use, head)


@pytest.mark.parametrize(
    ("values", "kind", "code"),
    [
        ({"ilk?": "1"}, InterlockOpen, "interlock"),
        ({"f?": "1"}, OverTemperature, 1),
        ({"f?": "3"}, InterlockOpen, 3),
        ({"f?": "4"}, DeviceFault, 4),
        ({"f?": "77"}, DeviceFault, 77),
    ],
)
def test_what_keeps_it_from_emitting_is_told(values: dict[str, str], kind: type[DeviceFault], code: str | int) -> None:
    head = Head()
    head.values |= values

    async def use(laser: CoboltLaser) -> None:
        assert [fault.code for fault in await laser.read_faults()] == [str(code)]
        with pytest.raises(kind) as failed:
            await laser.set_emission(True)
        assert type(failed.value) is kind
        assert failed.value.code == code
        await laser.clear_faults()

    assert "l1" not in shine(use, head)
    assert head.values["f?"] == "0"


def test_an_interlock_that_opens_while_it_starts_is_told_at_once() -> None:
    head = Head()
    head.delay_s = 5.0

    async def use(laser: CoboltLaser) -> None:
        begin_s = now_s()
        switching = asyncio.ensure_future(laser.set_emission(True))
        await asyncio.sleep(2.0)
        head.values["ilk?"] = "1"
        with pytest.raises(InterlockOpen):
            await switching
        assert now_s() - begin_s == pytest.approx(2.0, abs=0.2)

    shine(use, head)


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.006, 0.01, 0.014, 0.018, 0.022, 0.3])
def test_a_stop_while_it_is_switched_on_leaves_it_dark(after_s: float) -> None:
    head = Head()

    async def use(laser: CoboltLaser) -> None:
        switching = asyncio.ensure_future(laser.set_emission(True))
        await asyncio.sleep(after_s)
        await asyncio.gather(laser.make_safe(), laser.make_safe())
        assert isinstance((await asyncio.gather(switching, return_exceptions=True))[0], Stopped)
        await asyncio.sleep(10.0)

    shine(use, head)
    assert head.on_s is None
    assert next(at_s for at_s, command in head.heard if command == "l0") - head.heard[0][0] <= after_s + 1e-9


def test_a_stop_that_is_lost_on_the_line_is_sent_again() -> None:
    head = Head()

    async def use(laser: CoboltLaser) -> None:
        await laser.set_emission(True)
        head.deaf_to = "l0"
        stopping = asyncio.ensure_future(laser.make_safe())
        await asyncio.sleep(0.001)
        head.deaf_to = ""
        await stopping

    shine(use, head)
    assert head.on_s is None


def test_light_that_stays_on_is_told() -> None:
    head = Head()

    async def use(laser: CoboltLaser) -> None:
        await laser.set_emission(True)
        head.deaf_to = "l0"
        with pytest.raises(DeviceFault, match="light after it was switched off"):
            await laser.make_safe()

    shine(use, head)


@pytest.mark.parametrize("settings", [{"max_power_mw": 0.0}, {"min_power_mw": -1.0}, {"kind": "gas"}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        laser_of(Head(), **settings)
