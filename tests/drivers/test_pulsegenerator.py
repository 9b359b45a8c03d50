from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cartoseq.drivers.capabilities import TriggerSource
from cartoseq.drivers.errors import DeviceFault, LimitError, NotInitialized, ReplyTimeout, Stopped
from cartoseq.drivers.pulsegenerator import PulseGenerator
from cartoseq.drivers.scpi import LineSession
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox
from cartoseq.streaming.errors import InputError


class Generator:
    """A generator that sends its burst at *TRG if its output is on, and answers *OPC? at the end."""

    def __init__(self) -> None:
        self.settings = {"FREQ": "1000", "PULS:WIDT": "0.0001", "BURS:NCYC": "1", "OUTP": "OFF"}
        self.bursts: list[tuple[float, int]] = []
        self.queue: list[str] = []
        self.heard: list[tuple[float, str]] = []
        self.deaf_to = ""
        self.endless = False
        self.mute = 0
        self._end_s = 0.0
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            command = line.decode()
            self.heard.append((now_s, command))
            reply = self.reply(command, now_s)
            if reply:
                at_s = max(now_s, self._end_s) if command == "*OPC?" else now_s
                if not (command == "*OPC?" and self.endless):
                    self._out.put(at_s + 0.002, reply.encode() + b"\n")

    def reply(self, command: str, now_s: float) -> str:
        match command.split(" "):
            case ["*IDN?"]:
                return "ACME,AFG1,0001,1.0"
            case ["SYST:ERR?"] if self.mute:
                self.mute -= 1
            case ["SYST:ERR?"]:
                return self.queue.pop(0) if self.queue else '0,"No error"'
            case ["*OPC?"]:
                return "1"
            case ["OUTP?"]:
                return "1" if self.settings["OUTP"] == "ON" else "0"
            case ["FREQ?"]:
                return self.settings["FREQ"]
            case ["*TRG"]:
                if self.settings["OUTP"] == "ON":
                    count = int(self.settings["BURS:NCYC"])
                    self.bursts.append((now_s, count))
                    self._end_s = now_s + count / float(self.settings["FREQ"])
                else:
                    self.queue.append('-211,"Trigger ignored"')
            case [header, value] if command != self.deaf_to:
                self.settings[header] = value
                if float(self.settings["PULS:WIDT"]) >= 1 / float(self.settings["FREQ"]):
                    self.queue.append('-221,"Settings conflict"')
        return ""

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


def pulse(
    use: Callable[[PulseGenerator], Coroutine[Any, Any, None]], generator: Generator, **settings: Any
) -> list[str]:
    async def main() -> None:
        source = PulseGenerator(LineSession(Transport("trigger", MemoryHost(generator).connect)), "trigger", **settings)
        assert isinstance(source, TriggerSource)
        assert (await source.open()).model == "AFG1"
        generator.heard.clear()
        try:
            await use(source)
        finally:
            await source.close()

    run_virtual(main())
    return [command for _, command in generator.heard]


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_a_burst_is_set_armed_and_fired() -> None:
    generator = Generator()

    async def use(source: PulseGenerator) -> None:
        await source.configure(20.0, 1.0, 100)
        await source.arm()
        assert generator.bursts == []
        begin_s = now_s()
        await source.fire()
        assert now_s() - begin_s == pytest.approx(2.0, abs=0.05)
        await source.fire()

    heard = pulse(use, generator)
    commands = ["FUNC PULS", "FREQ 50", "VOLT:HIGH 5", "VOLT:LOW 0", "PULS:WIDT 0.001", "BURS:STAT ON", "BURS:NCYC 100"]
    assert {*commands, "TRIG:SOUR BUS", "OUTP ON", "*TRG"} < set(heard)
    assert [count for _, count in generator.bursts] == [100, 100]


@pytest.mark.parametrize("periods_ms", [(20.0, 0.5), (0.5, 20.0)])
def test_a_pulse_is_never_longer_than_its_period_while_it_is_set(periods_ms: tuple[float, float]) -> None:
    async def use(source: PulseGenerator) -> None:
        for period_ms in periods_ms:
            await source.configure(period_ms, 0.9 * period_ms, 1)

    pulse(use, Generator())


@pytest.mark.parametrize(
    ("period_ms", "width_ms", "count"),
    [
        (20.0, 20.0, 1),
        (20.0, 0.0, 1),
        (0.0, 0.0, 1),
        (float("inf"), 1.0, 1),
        (float("nan"), 1.0, 1),
        (20.0, float("nan"), 1),
        (20.0, 1.0, 0),
        (20.0, 1.0, 1_000_001),
    ],
)
def test_pulses_that_cannot_be_are_refused_and_nothing_is_sent(period_ms: float, width_ms: float, count: int) -> None:
    async def use(source: PulseGenerator) -> None:
        with pytest.raises(LimitError):
            await source.configure(period_ms, width_ms, count)

    assert pulse(use, Generator()) == []


def test_what_is_not_armed_does_not_fire() -> None:
    generator = Generator()

    async def use(source: PulseGenerator) -> None:
        with pytest.raises(NotInitialized, match="no pulses are configured"):
            await source.arm()
        await source.configure(20.0, 1.0, 100)
        with pytest.raises(NotInitialized, match="not armed"):
            await source.fire()
        await source.arm()
        await source.configure(20.0, 1.0, 10)
        with pytest.raises(NotInitialized, match="not armed"):
            await source.fire()
        await source.arm()
        await source.make_safe()
        with pytest.raises(NotInitialized, match="not armed"):
            await source.fire()

    assert "*TRG" not in pulse(use, generator)


def test_a_refused_trigger_is_told() -> None:
    generator = Generator()

    async def use(source: PulseGenerator) -> None:
        await source.configure(20.0, 1.0, 100)
        await source.arm()
        generator.settings["OUTP"] = "OFF"
        with pytest.raises(DeviceFault, match=r"Trigger ignored \(code -211\)"):
            await source.fire()

    pulse(use, generator)


def test_a_trigger_whose_reply_is_lost_is_not_sent_again() -> None:
    generator = Generator()

    async def use(source: PulseGenerator) -> None:
        await source.configure(20.0, 1.0, 100)
        await source.arm()
        generator.mute = 1
        with pytest.raises(ReplyTimeout):
            await source.fire()

    assert pulse(use, generator).count("*TRG") == 1


def test_a_burst_that_does_not_end_is_a_timeout_and_no_second_trigger() -> None:
    generator = Generator()

    async def use(source: PulseGenerator) -> None:
        await source.configure(20.0, 1.0, 100)
        await source.arm()
        generator.endless = True
        with pytest.raises(ReplyTimeout):
            await source.fire()

    assert pulse(use, generator).count("*TRG") == 1


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.003, 1.0])
def test_a_stop_ends_a_burst_at_once(after_s: float) -> None:
    generator = Generator()

    async def use(source: PulseGenerator) -> None:
        await source.configure(20.0, 1.0, 1000)
        await source.arm()
        begin_s = now_s()
        firing = asyncio.ensure_future(source.fire())
        await asyncio.sleep(after_s)
        await asyncio.gather(source.make_safe(), source.make_safe())
        with pytest.raises(Stopped):
            await firing
        assert now_s() - begin_s < after_s + 0.2

    pulse(use, generator)
    assert generator.settings["OUTP"] == "OFF"


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.0025, 0.0045])
def test_a_stop_while_it_is_armed_leaves_it_off(after_s: float) -> None:
    generator = Generator()

    async def use(source: PulseGenerator) -> None:
        await source.configure(20.0, 1.0, 1000)
        arming = asyncio.ensure_future(source.arm())
        await asyncio.sleep(after_s)
        await source.make_safe()
        await asyncio.gather(arming, return_exceptions=True)
        with pytest.raises(NotInitialized):
            await source.fire()

    pulse(use, generator)
    assert generator.settings["OUTP"] == "OFF"


def test_an_output_that_does_not_switch_is_told() -> None:
    generator = Generator()

    async def use(source: PulseGenerator) -> None:
        await source.configure(20.0, 1.0, 1000)
        generator.deaf_to = "OUTP ON"
        with pytest.raises(DeviceFault, match="stays off"):
            await source.arm()
        generator.deaf_to = ""
        await source.arm()
        generator.deaf_to = "OUTP OFF"
        with pytest.raises(DeviceFault, match="stays on"):
            await source.make_safe()

    pulse(use, generator)


def test_its_errors_are_read_and_cleared() -> None:
    generator = Generator()

    async def use(source: PulseGenerator) -> None:
        generator.queue = ['-310,"System error"']
        assert [fault.code for fault in await source.read_faults()] == ["-310"]
        generator.queue = ['-310,"System error"']
        await source.clear_faults()
        assert await source.read_faults() == []

    pulse(use, generator)


@pytest.mark.parametrize("settings", [{"high_v": 0.0}, {"high_v": 11.0}, {"low_v": float("nan")}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        PulseGenerator(LineSession(Transport("t", MemoryHost(Generator()).connect)), "t", **settings)
