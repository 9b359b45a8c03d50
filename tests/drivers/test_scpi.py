from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers.errors import DeviceFault, FramingError, Interrupted, ReplyTimeout
from cartoseq.drivers.scpi import LONGEST_QUEUE, LineSession, Scpi, parse_entry, parse_number, parse_switch
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox


@pytest.mark.parametrize(
    ("reply", "entry"),
    [
        ('0,"No error"', (0, "No error")),
        ('+0,"No error"', (0, "No error")),
        ('-113,"Undefined header"', (-113, "Undefined header")),
        ('-222, "Data out of range;SENS:CORR:WAV 5"', (-222, "Data out of range;SENS:CORR:WAV 5")),
        ("-350,Queue overflow", (-350, "Queue overflow")),
    ],
)
def test_entries_of_the_queue_are_understood(reply: str, entry: tuple[int, str]) -> None:
    assert parse_entry(reply) == entry


@given(st.text(max_size=30))
def test_garbage_raises_nothing_but_value_errors(text: str) -> None:
    for parse in (parse_entry, parse_number, parse_switch):
        try:
            parse(text)
        except ValueError:
            continue


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back(number: float) -> None:
    assert parse_number(f"{number:.6E}") == pytest.approx(number, rel=1e-6)


class Instrument:
    """Knows `values`; anything else leaves -113 in its queue and gets no answer."""

    def __init__(self) -> None:
        self.values = {"*IDN?": "ACME,X1,0001,1.0", "VOLT?": "1.5"}
        self.commands = {"*CLS", "VOLT 1"}
        self.queue: list[str] = []
        self.heard: list[str] = []
        self.delays_s: dict[str, list[float]] = {}
        self.mute: list[str] = []
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            command = line.decode()
            self.heard.append(command)
            if command in self.mute:
                self.mute.remove(command)
                continue
            if command == "SYST:ERR?":
                value: str | None = self.queue.pop(0) if self.queue else '0,"No error"'
            elif command == "*CLS":
                value = None
                self.queue.clear()
            else:
                value = self.values.get(command)
                if value is None and command not in self.commands:
                    self.queue.append('-113,"Undefined header"')
            if value is not None:
                delays_s = self.delays_s.get(command, [])
                self._out.put(now_s + (delays_s.pop(0) if delays_s else 0.003), value.encode() + b"\r\n")

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


def use_scpi(use: Callable[[Scpi], Coroutine[Any, Any, None]], instrument: Instrument) -> list[str]:
    async def main() -> None:
        scpi = Scpi(LineSession(Transport("source", MemoryHost(instrument).connect)), "source")
        identity = await scpi.open()
        assert (identity.maker, identity.model, identity.serial_number, identity.firmware) == (
            "ACME",
            "X1",
            "0001",
            "1.0",
        )
        instrument.heard.clear()
        await use(scpi)
        await scpi.close()

    run_virtual(main())
    return instrument.heard


def test_a_setting_is_followed_by_the_whole_queue() -> None:
    async def use(scpi: Scpi) -> None:
        await scpi.tell("VOLT 1")

    assert use_scpi(use, Instrument()) == ["VOLT 1", "SYST:ERR?"]


def test_all_entries_of_the_queue_are_one_exception() -> None:
    async def use(scpi: Scpi) -> None:
        with pytest.raises(DeviceFault, match=r"refuses 'FOO; BAR': Undefined header; Undefined header") as failed:
            await scpi.tell("FOO", "BAR")
        assert failed.value.code == "-113, -113"
        assert "> b'BAR\\n'" in failed.value.wire
        await scpi.tell("VOLT 1")

    use_scpi(use, Instrument())


def test_a_queue_that_never_empties_ends() -> None:
    instrument = Instrument()

    async def use(scpi: Scpi) -> None:
        instrument.queue = ['-310,"System error"'] * 1000
        with pytest.raises(DeviceFault, match="and more"):
            await scpi.tell("VOLT 1")

    assert use_scpi(use, instrument).count("SYST:ERR?") == LONGEST_QUEUE


def test_a_query_that_timed_out_explains_itself() -> None:
    async def use(scpi: Scpi) -> None:
        with pytest.raises(DeviceFault, match=r"refuses 'FOO\?': Undefined header \(code -113\)"):
            await scpi.ask("FOO?", parse_number)
        assert await scpi.ask("VOLT?", parse_number) == 1.5

    assert use_scpi(use, Instrument()).count("FOO?") == 1


def test_a_lost_reply_is_asked_for_again() -> None:
    instrument = Instrument()

    async def use(scpi: Scpi) -> None:
        instrument.mute = ["VOLT?"]
        assert await scpi.ask("VOLT?", parse_number) == 1.5

    assert use_scpi(use, instrument).count("VOLT?") == 2


def test_a_silent_instrument_is_a_timeout_and_is_not_asked_for_long() -> None:
    instrument = Instrument()

    async def use(scpi: Scpi) -> None:
        begin_s = asyncio.get_running_loop().time()
        instrument.mute = ["VOLT?", "*IDN?", "SYST:ERR?"] * 9
        with pytest.raises(ReplyTimeout, match=r"VOLT\?"):
            await scpi.ask("VOLT?", parse_number)
        assert asyncio.get_running_loop().time() - begin_s < 3.1

    use_scpi(use, instrument)


def test_a_late_reply_is_not_taken_for_the_next_ones() -> None:
    instrument = Instrument()

    async def use(scpi: Scpi) -> None:
        instrument.values["CURR?"] = "0.25"
        instrument.delays_s["VOLT?"] = [2.001]
        assert await scpi.ask("VOLT?", parse_number) == 1.5
        assert await scpi.ask("CURR?", parse_number) == 0.25

    use_scpi(use, instrument)


def test_what_the_instrument_says_of_a_query_that_was_given_up_is_no_error_of_the_next_command() -> None:
    instrument = Instrument()

    async def use(scpi: Scpi) -> None:
        asking = asyncio.ensure_future(scpi.ask("VOLT?", parse_number))
        await asyncio.sleep(0.001)
        asking.cancel()
        instrument.queue = ['-410,"Query INTERRUPTED"', '-222,"Data out of range"']
        with pytest.raises(DeviceFault) as failed:
            await scpi.tell("VOLT 1")
        assert failed.value.code == "-222"
        instrument.queue = ['-410,"Query INTERRUPTED"']
        with pytest.raises(DeviceFault):  # this one is another's
            await scpi.tell("VOLT 1")

    use_scpi(use, instrument)


def test_a_malformed_reply_is_asked_for_again_and_told_in_the_end() -> None:
    instrument = Instrument()

    async def use(scpi: Scpi) -> None:
        instrument.values["VOLT?"] = "1.5V"
        with pytest.raises(FramingError, match=r"VOLT\? was answered by '1.5V' is no number"):
            await scpi.ask("VOLT?", parse_number)

    assert use_scpi(use, instrument).count("VOLT?") == 3


def test_a_stop_goes_out_at_once_and_a_command_that_may_be_lost_is_told() -> None:
    instrument = Instrument()

    async def use(scpi: Scpi) -> None:
        instrument.commands.add("OUTP OFF")
        instrument.delays_s["SYST:ERR?"] = [1.0]
        begin_s = asyncio.get_running_loop().time()
        telling = asyncio.ensure_future(scpi.tell("VOLT 1"))
        await asyncio.sleep(0.1)
        scpi.session.interrupt("OUTP OFF")
        with pytest.raises(Interrupted):
            await telling
        assert asyncio.get_running_loop().time() - begin_s == pytest.approx(0.1)
        assert instrument.heard[-1] == "OUTP OFF"
        await scpi.tell("VOLT 1")

    use_scpi(use, instrument)


def test_another_kind_of_device_is_an_error_of_the_line() -> None:
    instrument = Instrument()
    instrument.values["*IDN?"] = "hello"
    with pytest.raises(ReplyTimeout):
        use_scpi(lambda scpi: scpi.tell(), instrument)
