from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers.capabilities import Laser
from cartoseq.drivers.errors import (
    DeviceFault,
    Disconnected,
    InterlockOpen,
    LimitError,
    LinkError,
    ReplyTimeout,
    Stopped,
)
from cartoseq.drivers.smdlaser import SmdLaser, encode, frame_reply, parse_power_mw
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox
from cartoseq.streaming.errors import InputError


class ScriptedLaser:
    """Swallows what comes within 0.1 s of a command; its power is reached 0.5 s after it was set."""

    def __init__(self, version: str = "SMD-G-1.1.2") -> None:
        self.heard: list[tuple[float, str]] = []
        self.swallowed: list[str] = []
        self.version = version
        self.on = False
        self.set_mw = 10
        self.doors_open = False
        self.stuck_on = False
        self.drift_mw = 0
        self.lost: list[str] = []
        self.first_status = ""
        self._before_mw = 10
        self._set_s = self._heard_s = -math.inf
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            text = line.decode()
            if now_s - self._heard_s < 0.0999:
                self.swallowed.append(text)
            elif text in self.lost:
                self.lost.remove(text)
            else:
                self._hear(text, now_s)
            self._heard_s = now_s

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)

    def _hear(self, text: str, now_s: float) -> None:
        self.heard.append((now_s, text))
        match text.split("="):
            case ["ON"]:
                self.on = not self.doors_open
            case ["OFF"]:
                self.on = self.stuck_on
            case ["POWER", value]:
                self._before_mw, self.set_mw, self._set_s = self.set_mw, int(value), now_s
            case ["POWER?"]:
                power_mw = self.set_mw if now_s - self._set_s >= 0.5 else self._before_mw
                self._say(f"{power_mw + self.drift_mw if self.on and not self.doors_open else 0:04}mW", now_s)
            case ["STAT?"]:
                status, self.first_status = self.first_status, ""
                self._say(status or ("ENABLED" if self.on else "DISABLED"), now_s)
            case ["VERSION?"]:
                self._say(self.version, now_s)

    def _say(self, text: str, now_s: float) -> None:
        self._out.put(now_s + 0.008, text.encode() + b"\r")


def talk(use: Callable[[SmdLaser], Coroutine[Any, Any, None]], device: ScriptedLaser | None = None) -> ScriptedLaser:
    device = device or ScriptedLaser()

    async def main() -> None:
        transport = Transport("laser", MemoryHost(device, baud_rate=9600).connect)
        laser = SmdLaser(transport, "laser", wavelength_nm=532, max_power_mw=400)
        identity = await laser.open()
        assert identity.firmware == "SMD-G-1.1.2"
        assert "has not met its hardware" in identity.notice
        try:
            await use(laser)
        finally:
            await laser.close()

    run_virtual(main())
    return device


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_commands_and_replies_are_the_protocols() -> None:
    assert encode("POWER=50") == b"POWER=50\r"
    assert parse_power_mw("0050mW") == 50
    assert frame_reply(b"\r\n0050mW\r") == (2, 9)


@given(st.integers(0, 9999), st.sampled_from([b"\r", b"\r\n"]))
def test_a_power_is_found_only_once_it_is_whole(power_mw: int, end: bytes) -> None:
    frame = f"{power_mw:04}mW".encode() + end
    assert all(frame_reply(frame[:n]) is None for n in range(frame.index(b"\r") + 1))
    assert frame_reply(frame) == (0, frame.index(b"\r") + 1)
    assert parse_power_mw(frame.decode().strip()) == power_mw


@given(st.text(max_size=12))
def test_what_is_no_power_is_refused(text: str) -> None:
    try:
        assert parse_power_mw(text) >= 0
    except ValueError as error:
        assert "is no power" in str(error)  # noqa: PT017


def test_light_is_on_when_it_is_measured() -> None:
    async def use(laser: SmdLaser) -> None:
        assert isinstance(laser, Laser)
        await laser.set_power_mw(50)
        assert not await laser.is_emitting()
        await laser.set_emission(True)
        assert await laser.is_emitting()
        assert await laser.power_mw() == 50
        await laser.set_power_mw(120.4)
        assert await laser.power_mw() == 120
        assert await laser.interlock_ok()
        assert await laser.read_faults() == []
        await laser.set_emission(False)
        assert not await laser.is_emitting()
        assert await laser.interlock_ok()

    device = talk(use)
    assert device.swallowed == []
    assert device.heard[0][1] == "VERSION?"
    assert not device.on


def test_commands_that_were_lost_are_said_again() -> None:
    async def use(laser: SmdLaser) -> None:
        device.lost = ["POWER=50", "ON", "STAT?", "POWER=50", "OFF"]
        await laser.set_power_mw(50)
        await laser.set_emission(True)
        assert await laser.power_mw() == 50
        await laser.set_emission(False)
        assert device.lost == []
        assert not device.on

    device = ScriptedLaser()
    talk(use, device)


def test_a_first_status_that_is_an_error_is_asked_again() -> None:
    device = ScriptedLaser()
    device.first_status = "Error:- 00"

    async def use(laser: SmdLaser) -> None:
        device.first_status = "Error:- 00"
        assert not await laser.is_emitting()

    talk(use, device)


def test_many_tasks_keep_the_spacing() -> None:
    async def use(laser: SmdLaser) -> None:
        await laser.set_power_mw(50)
        await asyncio.gather(laser.set_emission(True), *(laser.power_mw() for _ in range(10)), laser.is_emitting())

    assert talk(use).swallowed == []


@pytest.mark.parametrize("power_mw", [-1, 400.1, math.nan, math.inf])
def test_beyond_a_limit_nothing_is_sent(power_mw: float) -> None:
    async def use(laser: SmdLaser) -> None:
        with pytest.raises(LimitError, match="allowed is 0 to 400 mW"):
            await laser.set_power_mw(power_mw)

    assert [text for _, text in talk(use).heard] == ["VERSION?", "STAT?"]


def test_open_doors_are_an_open_interlock() -> None:
    async def use(laser: SmdLaser) -> None:
        await laser.set_power_mw(50)
        device.doors_open = True
        with pytest.raises(InterlockOpen, match="does not go on"):
            await laser.set_emission(True)
        device.doors_open = False
        await laser.set_emission(True)
        device.doors_open = True  # it stays enabled, without light
        assert not await laser.interlock_ok()
        assert not await laser.is_emitting()
        with pytest.raises(InterlockOpen, match="measures 0 mW 10 s after it was set to 70 mW"):
            await laser.set_power_mw(70)

    device = ScriptedLaser()
    talk(use, device)


def test_a_power_that_drifts_is_told() -> None:
    async def use(laser: SmdLaser) -> None:
        await laser.set_power_mw(50)
        await laser.set_emission(True)
        device.drift_mw = 5
        assert [fault.text for fault in await laser.read_faults()] == ["it measures 55 mW, 50 mW are set"]
        await laser.clear_faults()
        with pytest.raises(DeviceFault, match="measures 75 mW"):
            await laser.set_power_mw(70)

    device = ScriptedLaser()
    talk(use, device)


def test_make_safe_puts_the_light_out_at_any_moment_of_switching_it_on() -> None:
    async def use(laser: SmdLaser) -> None:
        await laser.set_power_mw(50)
        stopped: list[int] = []
        for delay_ms in range(0, 900, 17):
            device.heard.clear()
            switching = asyncio.ensure_future(laser.set_emission(True))
            await asyncio.sleep(delay_ms / 1000)
            done = switching.done()
            stop_s = now_s()
            await laser.make_safe()
            assert now_s() - stop_s < 0.7
            assert not device.on
            if done:
                await switching
            else:
                with pytest.raises(Stopped):
                    await switching
                stopped.append(delay_ms)
            await asyncio.sleep(1)
            assert not device.on
            # 3 bytes at 9600 baud may have been on their way
            assert not [text for at_s, text in device.heard if text == "ON" and at_s > stop_s + 0.005]
        assert len(stopped) > 10

    device = ScriptedLaser()
    talk(use, device)


def test_the_first_off_waits_for_no_reply_and_no_spacing() -> None:
    async def use(laser: SmdLaser) -> None:
        await laser.set_emission(True)
        await asyncio.sleep(1)
        device.lost = ["POWER?"]
        asking = asyncio.ensure_future(laser.power_mw())
        await asyncio.sleep(0.15)  # its reply is awaited for 0.3 s
        device.heard.clear()
        stop_s = now_s()
        await laser.make_safe()
        assert device.heard[0] == (pytest.approx(stop_s + 4 * 10 / 9600), "OFF")
        assert await asking == 0

    device = ScriptedLaser()
    talk(use, device)


def test_a_laser_that_does_not_go_off_is_told() -> None:
    async def use(laser: SmdLaser) -> None:
        await laser.set_emission(True)
        device.stuck_on = True
        with pytest.raises(DeviceFault, match="does not go off"):
            await laser.make_safe()

    device = ScriptedLaser()
    talk(use, device)


def test_a_caller_that_is_cancelled_is_not_told_of_a_stop() -> None:
    async def use(laser: SmdLaser) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await laser.set_emission(True)
        await laser.make_safe()

    talk(use)


@pytest.mark.parametrize(("version", "kind"), [("TOASTER 1", DeviceFault), ("", ReplyTimeout)])
def test_another_device_is_one_clear_error(version: str, kind: type[LinkError | DeviceFault]) -> None:
    async def main() -> None:
        transport = Transport("laser", MemoryHost(ScriptedLaser(version)).connect)
        with pytest.raises(kind):
            await SmdLaser(transport, "laser", wavelength_nm=532).open()
        assert not transport.is_open

    run_virtual(main())


def test_a_line_that_is_gone_is_told() -> None:
    async def main() -> None:
        host = MemoryHost(ScriptedLaser())
        laser = SmdLaser(Transport("laser", host.connect), "laser", wavelength_nm=532)
        with pytest.raises(Disconnected):
            await laser.make_safe()
        await laser.open()
        host.cut()
        with pytest.raises(Disconnected):
            await laser.set_emission(True)
        await laser.close()

    run_virtual(main())


@pytest.mark.parametrize("max_power_mw", [0, 501, math.nan])
def test_a_power_that_no_laser_could_have_is_refused(max_power_mw: Any) -> None:
    with pytest.raises(InputError, match="laser: max_power_mw"):
        SmdLaser(
            Transport("laser", MemoryHost(ScriptedLaser()).connect),
            "laser",
            wavelength_nm=532,
            max_power_mw=max_power_mw,
        )
