from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.drivers.capabilities import SyringePump
from cartoseq.drivers.cavro import CavroPump
from cartoseq.drivers.cavrocodec import check_byte
from cartoseq.drivers.errors import (
    Busy,
    ChecksumError,
    DeviceError,
    DeviceFault,
    Disconnected,
    LimitError,
    LinkError,
    NotInitialized,
    PositionError,
    ReplyTimeout,
    StallError,
    Stopped,
)
from cartoseq.drivers.transport import Probe, Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Bus, Outbox
from cartoseq.streaming.errors import InputError

BUSY, READY = 0x40, 0x60
MOVE = re.compile(r"V(\d+)([IOBE]\d*)A(\d+)R")


class ScriptedPump:
    """Answers as the manual's examples do, 5 ms after a command; what it is to do wrong is set from outside.

    A unit of speed is a step of the position, so that 1000 steps at 500 a second take 2 s.
    """

    def __init__(
        self, address: int = 0x31, *, oem: bool = False, kloehn: bool = False, reports: dict[str, str] | None = None
    ) -> None:
        self.heard: list[str] = []
        self.strokes: list[str] = []
        self.reports = {"&": "P/N 12345 Rev A", "?76": "XCalibur"} | (reports or {})
        self.position = 0
        #: Orders, counted from 0, whose answers are lost, garbled, or that are not heard at all.
        self.lost: set[int] = set()
        self.deaf: set[int] = set()
        self.garbled: set[int] = set()
        self.deaf_to_everything = False
        self.deaf_to_stops = 0
        #: The error with which the next stroke or initialisation ends, and where the plunger then stands.
        self.error = 0
        self.stops_at: int | None = None
        #: The error in the immediate answer to orders.
        self.refusal = 0
        self.busy_for_s: float | None = None
        self.orders = 0
        self.late_s = 0.0
        self._oem, self._kloehn, self._address = oem, kloehn, address
        self._last_sequence = 0
        self._last_text = ""
        self._from = self._to = 0
        self._begin_s = self._end_s = 0.0
        self._told_error = 0
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        command = re.compile(rb"\x02(.)(.)([^\x03]*)\x03." if self._oem else rb"/(.)()([^\r]*)\r", re.DOTALL)
        while found := command.search(self._buffer):
            self._buffer = self._buffer[found.end() :]
            if found[1][0] == self._address and not self.deaf_to_everything:
                self._hear(found[3].decode(), found[2][0] if self._oem else 0, now_s)

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)

    def place(self, now_s: float) -> int:
        if now_s >= self._end_s:
            return self.position
        share = (now_s - self._begin_s) / (self._end_s - self._begin_s)
        return round(self._from + share * (self._to - self._from))

    def _hear(self, text: str, sequence: int, now_s: float) -> None:
        self.heard.append(text)
        order = text.endswith("R")
        self.orders += order
        if order and self.orders - 1 in self.deaf:
            return
        marked = bool(sequence & 8)
        # A repeat of what was heard last is only acknowledged; Cavro's tells it by its number.
        repeated = marked and (text == self._last_text if self._kloehn else sequence & 7 == self._last_sequence & 7)
        self._last_sequence, self._last_text = sequence, text
        at_rest = now_s >= self._end_s
        status = READY if at_rest else BUSY
        if text == "Q":
            self._answer(status | (self._told_error if at_rest else 0), "", now_s)
        elif text == "?":
            self._answer(status, str(self.place(now_s)), now_s)
        elif text in self.reports:
            self._answer(status, self.reports[text], now_s)
        elif text == "T":
            if self.deaf_to_stops:
                self.deaf_to_stops -= 1
                return
            self.position, self._end_s = self.place(now_s), now_s
            self._answer(READY, "", now_s)
        elif order:
            self._order(text, repeated, at_rest, now_s)
        else:
            self._answer(status | 2, "", now_s)

    def _order(self, text: str, repeated: bool, at_rest: bool, now_s: float) -> None:
        number = self.orders - 1
        error = 0 if at_rest or repeated else 15
        if not error and not repeated:
            error = self.refusal
            if not error:
                self._run(text, now_s)
        if number not in self.lost:
            self._answer((READY if error else BUSY) | error, "", now_s, garbled=number in self.garbled)

    def _run(self, text: str, now_s: float) -> None:
        self._told_error = self.error
        if move := MOVE.fullmatch(text):
            self.strokes.append(text)
            target = int(move[3]) if self.stops_at is None else self.stops_at
            duration_s = abs(target - self.position) / int(move[1])
        else:
            duration_s = 0.2
            target = 0 if re.search("[ZYW]", text) else self.position
        self._from, self._to = self.position, target
        self._begin_s, self._end_s = now_s, now_s + (self.busy_for_s or duration_s)
        self.position = target

    def _answer(self, status: int, data: str, now_s: float, *, garbled: bool = False) -> None:
        if self._oem:
            body = b"\x020%c%b\x03" % (status, data.encode())
            message = b"\xff" + body + bytes([check_byte(body) ^ garbled])
        else:
            message = b"/0%c%b\x03\r\n\xff" % (status, data.encode())
        self._out.put(now_s + (self.late_s or 0.005), message)


Use = Callable[[CavroPump], Coroutine[Any, Any, None]]


def talk(use: Use, device: ScriptedPump | None = None, *, ready: bool = True, **settings: Any) -> ScriptedPump:
    """Use a pump, opened and initialised, with a 1 ml syringe of 3000 steps."""
    oem = settings.get("framing") == "oem"
    device = device or ScriptedPump(oem=oem)
    settings = {"barrel_ul": 1000.0, "half_steps_per_stroke": 3000, "valve_s": 2.0} | settings

    async def main() -> None:
        transport = Transport("pumps", MemoryHost(device, baud_rate=9600).connect)
        pump = CavroPump(transport, "pump", **settings)
        await pump.open()
        try:
            if ready:
                await pump.initialize()
                device.heard.clear()
                device.orders = 0
            await use(pump)
        finally:
            await pump.close()

    run_virtual(main())
    return device


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_it_is_a_syringe_pump() -> None:
    async def use(pump: CavroPump) -> None:
        assert isinstance(pump, SyringePump)
        assert pump.flow_ul_per_s.low == pytest.approx(1000 * 5 / 3000)
        assert pump.flow_ul_per_s.high == pytest.approx(1000 * 6000 / 3000)

    talk(use)


def test_a_stroke_is_one_string_and_returns_when_it_is_done() -> None:
    async def use(pump: CavroPump) -> None:
        begin_s = now_s()
        await pump.aspirate(500, "input", 500 / 3)
        assert 3.0 < now_s() - begin_s < 3.2
        assert await pump.plunger_ul() == 500
        await pump.dispense(100, "output", 100)
        assert await pump.plunger_ul() == 400

    assert talk(use).strokes == ["V500IA1500R", "V300OA1200R"]


def test_ports_may_be_those_of_a_distribution_valve() -> None:
    ports = {"wash": 3, "flow cell": "O5", "waste": "9"}

    async def use(pump: CavroPump) -> None:
        await pump.aspirate(100, "wash", 100)
        await pump.dispense(50, "flow cell", 100)
        await pump.turn_valve("waste")
        with pytest.raises(LimitError, match="has no port 'input', its ports are wash, flow cell, waste"):
            await pump.dispense(50, "input", 100)

    device = talk(use, ports=ports, initialize="Z1,1,9")
    assert device.strokes == ["V300I3A300R", "V300O5A150R"]
    assert "I9R" in device.heard


def test_a_long_stroke_is_looked_at_now_and_then_only() -> None:
    async def use(pump: CavroPump) -> None:
        await pump.aspirate(1000, "input", 2)  # 500 s

    assert 99 <= talk(use).heard.count("Q") <= 105


def test_the_dialect_of_kloehn() -> None:
    device = ScriptedPump(reports={"~P": "1"})

    async def use(pump: CavroPump) -> None:
        assert pump.flow_ul_per_s.low == pytest.approx(0.2083, abs=1e-4)
        assert pump.flow_ul_per_s.high == pytest.approx(41.67, abs=1e-2)
        await pump.initialize()
        await pump.aspirate(125, "input", 400 * 250 / 48000)
        await pump.dispense(125, "output", 7000 * 250 / 48000)

    settings = {"dialect": "kloehn", "barrel_ul": 250, "steps_per_stroke": 48000, "half_steps_per_stroke": None}
    talk(use, device, ready=False, **settings)
    assert [text for text in device.heard if text.endswith("R")] == ["W4R", "V400IA24000R", "V7000OA0R"]


@pytest.mark.parametrize("framing", ["dt", "oem"])
def test_the_first_bytes_of_a_session(framing: str) -> None:
    sent: list[bytes] = []

    class Ear(ScriptedPump):
        def receive(self, data: bytes, now_s: float) -> None:
            sent.append(data)
            super().receive(data, now_s)

    async def use(pump: CavroPump) -> None:
        await pump.initialize()

    talk(use, Ear(oem=framing == "oem"), ready=False, framing=framing)
    if framing == "dt":
        assert sent[:6] == [b"/1&\r", b"/1?76\r", b"/1?\r", b"/1Q\r", b"/1ZR\r", b"/1Q\r"]
    else:
        assert sent[0] == bytes.fromhex("02 31 31 26 03 27")
        assert [data[2] for data in sent[:9]] == [0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x31, 0x32]


def test_the_step_mode_is_set_when_opened_and_initialised() -> None:
    async def use(pump: CavroPump) -> None:
        await pump.initialize()

    heard = talk(use, ready=False, step_mode=1, steps_per_stroke=24000).heard
    assert [text for text in heard if text.endswith("R")] == ["N1R", "ZR", "N1R"]


# ----------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("volume_ul", "port", "flow_ul_per_s"),
    [
        (0, "input", 100),
        (-1, "input", 100),
        (1000.1, "input", 100),
        (0.1, "input", 100),
        (math.nan, "input", 100),
        (math.inf, "input", 100),
        (100, "input", 1.6),
        (100, "input", 2001),
        (100, "input", math.nan),
        (100, "nowhere", 100),
        (100, "bypass", 100),
    ],
)
def test_beyond_a_limit_nothing_is_sent(volume_ul: float, port: str, flow_ul_per_s: float) -> None:
    async def use(pump: CavroPump) -> None:
        for stroke in (pump.aspirate, pump.dispense):
            with pytest.raises(LimitError):
                await stroke(volume_ul, port, flow_ul_per_s)

    assert talk(use).heard == []


def test_what_is_not_in_the_barrel_cannot_be_pushed_out() -> None:
    async def use(pump: CavroPump) -> None:
        await pump.aspirate(300, "input", 100)
        with pytest.raises(LimitError, match=r"-400 ul does not fit: 300 ul of 1000 ul are in the barrel"):
            await pump.dispense(400, "output", 100)
        with pytest.raises(LimitError, match=r"\+800 ul does not fit"):
            await pump.aspirate(800, "output", 100)
        await pump.dispense(300, "output", 100)

    assert len(talk(use).strokes) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"barrel_ul": 0},
        {"barrel_ul": math.nan},
        {"switch": 15},
        {"steps_per_stroke": 0},
        {"max_flow_ul_per_s": 0.01},
        {"initialize": "A0"},
        {"ports": {"input": "X"}},
        {"ports": {"input": 0}},
        {"ports": {"input": "I3"}, "dialect": "kloehn"},
        {"step_mode": 2},
        {"step_mode": 1, "dialect": "kloehn"},
    ],
)
def test_settings_that_no_pump_could_have_are_refused(settings: dict[str, Any]) -> None:
    transport = Transport("pumps", MemoryHost(ScriptedPump()).connect)
    with pytest.raises(InputError, match="pump: "):
        CavroPump(transport, "pump", **{"barrel_ul": 100.0} | settings)


# ----------------------------------------------------------------------------------------------------- faults and links


def test_before_it_is_initialised_no_stroke_is_sent() -> None:
    async def use(pump: CavroPump) -> None:
        with pytest.raises(NotInitialized, match="Initialise the pump"):
            await pump.aspirate(100, "input", 100)

    assert talk(use, ready=False).strokes == []


@pytest.mark.parametrize(
    ("dialect", "error", "kind"),
    [
        ("cavro", 1, DeviceFault),
        ("cavro", 5, DeviceFault),
        ("cavro", 7, NotInitialized),
        ("cavro", 9, StallError),
        ("cavro", 10, StallError),
        ("cavro", 13, DeviceFault),
        ("kloehn", 6, DeviceFault),
        ("kloehn", 9, StallError),
        ("kloehn", 24, PositionError),
        ("kloehn", 26, NotInitialized),
    ],
)
def test_the_error_with_which_a_stroke_ends_is_raised(dialect: str, error: int, kind: type[DeviceFault]) -> None:
    async def use(pump: CavroPump) -> None:
        device.error = error
        with pytest.raises(kind, match=rf"code {error}\)") as failed:
            await pump.aspirate(100, "input", 100)
        assert type(failed.value) is kind
        assert "V" in failed.value.wire

    device = ScriptedPump(reports={"~P": "1"})
    talk(use, device, dialect=dialect)


def test_after_a_stall_it_must_be_initialised() -> None:
    async def use(pump: CavroPump) -> None:
        device.error, device.stops_at = 9, 123
        with pytest.raises(StallError, match="overloaded"):
            await pump.aspirate(100, "input", 100)
        assert [fault.code for fault in await pump.read_faults()] == ["9"]
        with pytest.raises(NotInitialized):
            await pump.aspirate(100, "input", 100)
        device.error, device.stops_at = 0, None
        await pump.initialize()
        await pump.aspirate(100, "input", 100)
        assert await pump.read_faults() == []

    device = ScriptedPump()
    talk(use, device)


def test_a_refused_stroke_is_told_at_once() -> None:
    async def use(pump: CavroPump) -> None:
        device.refusal = 2
        with pytest.raises(DeviceFault, match="knows no such command"):
            await pump.aspirate(100, "input", 100)
        device.refusal = 15
        with pytest.raises(Busy):
            await pump.aspirate(100, "input", 100)

    device = ScriptedPump()
    talk(use, device)


@pytest.mark.parametrize(("found", "kind"), [(200, StallError), (700, PositionError)])
def test_a_plunger_that_ends_elsewhere_is_noticed(found: int, kind: type[DeviceFault]) -> None:
    async def use(pump: CavroPump) -> None:
        device.stops_at = found
        with pytest.raises(kind, match="after a stroke from 0 to 100 ul"):
            await pump.aspirate(100, "input", 100)
        with pytest.raises(NotInitialized):
            await pump.aspirate(100, "input", 100)

    device = ScriptedPump()
    talk(use, device)


def test_an_initialisation_that_fails_is_told() -> None:
    async def use(pump: CavroPump) -> None:
        device.error = 1
        with pytest.raises(DeviceFault, match="initialisation failed"):
            await pump.initialize()
        with pytest.raises(NotInitialized):
            await pump.aspirate(100, "input", 100)

    device = ScriptedPump()
    talk(use, device, ready=False)


def test_a_pump_that_is_busy_for_ever_is_stopped_and_told() -> None:
    async def use(pump: CavroPump) -> None:
        device.busy_for_s = 1e6
        begin_s = now_s()
        with pytest.raises(DeviceFault, match="still at work after"):
            await pump.aspirate(100, "input", 100)
        assert 6 < now_s() - begin_s < 7  # 1 s of stroke by 1.25, 2 s for the valve, 3 s of margin
        await asyncio.sleep(0.01)

    device = ScriptedPump()
    talk(use, device)
    assert device.heard[-1] == "T"


def test_oem_framing_sends_a_stroke_again_and_the_pump_runs_it_once() -> None:
    async def use(pump: CavroPump) -> None:
        device.lost, device.garbled = {0}, {1}
        await pump.aspirate(100, "input", 100)
        assert await pump.plunger_ul() == 100

    device = ScriptedPump(oem=True)
    talk(use, device, framing="oem")
    assert device.heard.count("V300IA300R") == 3
    assert device.strokes == ["V300IA300R"]


def test_oem_framing_makes_up_for_a_stroke_that_was_not_heard() -> None:
    async def use(pump: CavroPump) -> None:
        device.deaf = {0}
        await pump.aspirate(100, "input", 100)

    device = ScriptedPump(oem=True)
    talk(use, device, framing="oem")
    assert device.strokes == ["V300IA300R"]


def test_a_wrong_check_byte_at_every_try_is_a_checksum_error() -> None:
    async def use(pump: CavroPump) -> None:
        device.garbled = {0, 1, 2}
        device.stops_at = 0  # and the plunger stays
        with pytest.raises(ChecksumError, match="the stroke did not begin, 0 ul are in the barrel"):
            await pump.aspirate(100, "input", 100)

    device = ScriptedPump(oem=True)
    talk(use, device, framing="oem")


def test_dt_framing_never_sends_a_stroke_twice_and_asks_what_became_of_it() -> None:
    async def use(pump: CavroPump) -> None:
        device.lost = {0}
        await pump.aspirate(100, "input", 100)
        assert await pump.plunger_ul() == 100
        device.deaf = {1}
        with pytest.raises(ReplyTimeout, match="the stroke did not begin, 100 ul are in the barrel"):
            await pump.aspirate(100, "input", 100)
        await pump.aspirate(100, "input", 100)

    device = ScriptedPump()
    talk(use, device)
    assert [text for text in device.heard if text.endswith("R")] == ["V300IA300R", "V300IA600R", "V300IA600R"]
    assert device.strokes == ["V300IA300R", "V300IA600R"]


def test_a_late_answer_is_not_taken_for_the_next_ones() -> None:
    async def use(pump: CavroPump) -> None:
        device.position = 1500
        device.late_s = 0.6
        waiting = asyncio.ensure_future(pump.plunger_ul())
        await asyncio.sleep(0.55)
        device.late_s, device.position = 0.0, 900
        assert await waiting == 300

    device = ScriptedPump()
    talk(use, device)


def test_a_line_that_fails_during_a_stroke_is_borne_until_its_deadline() -> None:
    async def use(pump: CavroPump) -> None:
        stroke = asyncio.ensure_future(pump.aspirate(1000, "input", 50))  # 20 s
        await asyncio.sleep(4)
        device.deaf_to_everything = True
        await asyncio.sleep(10)
        device.deaf_to_everything = False
        await stroke
        stroke = asyncio.ensure_future(pump.dispense(1000, "output", 50))
        await asyncio.sleep(4)
        device.deaf_to_everything = True
        begin_s = now_s()
        with pytest.raises(ReplyTimeout):
            await stroke
        assert now_s() - begin_s < 30
        device.deaf_to_everything = False

    device = ScriptedPump()
    talk(use, device)


@given(
    st.sampled_from(["dt", "oem"]),
    st.sampled_from(["cavro", "kloehn"]),
    st.lists(st.sampled_from(["heard", "lost", "deaf", "garbled"]), min_size=12, max_size=12),
    st.lists(st.sampled_from([-400, -150, 150, 400]), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_line_does_a_stroke_runs_once_or_is_told_not_to_have_begun(
    framing: str, repeats: str, fates: list[str], volumes_ul: list[int]
) -> None:
    async def use(pump: CavroPump) -> None:
        for kind, numbers in (("lost", device.lost), ("deaf", device.deaf), ("garbled", device.garbled)):
            numbers.update(i for i, fate in enumerate(fates) if fate == kind)
        held_ul = 0.0
        for volume_ul in volumes_ul:
            stroke = pump.aspirate if volume_ul > 0 else pump.dispense
            before = len(device.strokes)
            try:
                await stroke(abs(volume_ul), "input", 500)
            except LinkError as error:
                assert "the stroke did not begin" in str(error)  # noqa: PT017
                assert len(device.strokes) == before
            except LimitError:
                assert not 0 <= held_ul + volume_ul <= 1000
                assert len(device.strokes) == before
            else:
                held_ul += volume_ul
                assert len(device.strokes) == before + 1
            assert await pump.plunger_ul() == pytest.approx(held_ul)

    device = ScriptedPump(oem=framing == "oem", kloehn=repeats == "kloehn")
    talk(use, device, framing=framing, repeats=repeats)


# ---------------------------------------------------------------------------------------------------------------- stops


def test_a_stop_ends_the_stroke_at_once_and_asks_for_a_new_zero() -> None:
    async def use(pump: CavroPump) -> None:
        stroke = asyncio.ensure_future(pump.aspirate(1000, "input", 100))
        await asyncio.sleep(3)
        begin_s = now_s()
        await pump.stop()
        assert now_s() - begin_s < 0.2
        with pytest.raises(Stopped):
            await stroke
        assert 200 < await pump.plunger_ul() < 320
        with pytest.raises(NotInitialized):
            await pump.dispense(100, "output", 100)
        await pump.stop()
        await pump.make_safe()
        await pump.initialize()
        await pump.aspirate(100, "input", 100)

    talk(use)


def test_a_stop_that_is_lost_is_said_again() -> None:
    async def use(pump: CavroPump) -> None:
        device.deaf_to_stops = 2
        stroke = asyncio.ensure_future(pump.aspirate(1000, "input", 100))
        await asyncio.sleep(3)
        await pump.stop()
        with pytest.raises(Stopped):
            await stroke
        assert await pump.plunger_ul() < 500

    device = ScriptedPump()
    talk(use, device)


def test_a_stop_that_has_no_effect_is_told() -> None:
    async def use(pump: CavroPump) -> None:
        device.deaf_to_stops = 1000
        stroke = asyncio.ensure_future(pump.aspirate(1000, "input", 10))
        await asyncio.sleep(3)
        with pytest.raises(DeviceFault, match="after it was told to stop"):
            await pump.stop()
        with pytest.raises(Stopped):
            await stroke

    device = ScriptedPump()
    talk(use, device)


def test_a_stroke_whose_caller_is_cancelled_is_stopped() -> None:
    async def use(pump: CavroPump) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await pump.aspirate(1000, "input", 100)
        with pytest.raises(NotInitialized):
            await pump.dispense(100, "output", 100)
        assert await pump.plunger_ul() < 320

    talk(use)


def test_a_second_stroke_at_the_same_time_is_refused() -> None:
    async def use(pump: CavroPump) -> None:
        stroke = asyncio.ensure_future(pump.aspirate(500, "input", 100))
        await asyncio.sleep(1)
        with pytest.raises(Busy):
            await pump.aspirate(100, "input", 100)
        await stroke

    assert len(talk(use).strokes) == 1


def test_a_pump_that_works_already_is_not_disturbed() -> None:
    async def use(pump: CavroPump) -> None:
        device._end_s = now_s() + 10
        with pytest.raises(Busy):
            await pump.aspirate(100, "input", 100)

    device = ScriptedPump()
    talk(use, device)
    assert device.strokes == []


@pytest.mark.parametrize("framing", ["dt", "oem"])
def test_pumps_on_one_line_work_at_the_same_time_and_bear_each_others_stops(framing: str) -> None:
    oem = framing == "oem"
    first, second = ScriptedPump(0x31, oem=oem), ScriptedPump(0x32, oem=oem)

    async def main() -> None:
        transport = Transport("pumps", MemoryHost(Bus([first, second]), baud_rate=9600).connect)
        pumps = [
            CavroPump(transport, f"pump {i}", barrel_ul=1000, half_steps_per_stroke=3000, switch=i, framing=framing)  # type: ignore[arg-type]
            for i in (0, 1)
        ]
        for pump in pumps:
            await pump.open()
        await asyncio.gather(*(pump.initialize() for pump in pumps))
        strokes = [asyncio.ensure_future(pump.aspirate(1000, "input", 100)) for pump in pumps]
        for _ in range(40):  # stops at all moments of the other pump's exchanges
            await asyncio.sleep(0.007)
            await pumps[1].stop()
        last_s = now_s()
        with pytest.raises(Stopped):
            await strokes[1]
        await strokes[0]
        assert now_s() - last_s < 10.5
        assert await pumps[0].plunger_ul() == 1000
        for pump in pumps:
            await pump.close()

    run_virtual(main())
    assert first.strokes == ["V300IA3000R"]
    assert len(second.strokes) <= 1


def test_no_stroke_goes_out_after_a_stop_that_found_it_waiting_for_the_line() -> None:
    first, second = ScriptedPump(0x31), ScriptedPump(0x32)

    async def main() -> None:
        transport = Transport("pumps", MemoryHost(Bus([first, second]), baud_rate=9600).connect)
        pumps = [
            CavroPump(transport, f"pump {i}", barrel_ul=1000, half_steps_per_stroke=3000, switch=i) for i in (0, 1)
        ]
        for pump in pumps:
            await pump.open()
            await pump.initialize()
        for delay_ms in range(0, 60, 3):
            asked = [asyncio.ensure_future(pumps[0].plunger_ul()) for _ in range(2)]
            strokes = len(second.strokes)
            stroke = asyncio.ensure_future(pumps[1].aspirate(10, "input", 100))
            await asyncio.sleep(delay_ms / 1000)
            heard = len(second.heard)
            await pumps[1].stop()
            with pytest.raises(Stopped):
                await stroke
            after = second.heard[heard:]
            assert not any(text.endswith("R") for text in after[after.index("T") :])
            assert len(second.strokes) - strokes <= 1
            await asyncio.gather(*asked)
            await pumps[1].initialize()
        for pump in pumps:
            await pump.close()

    run_virtual(main())


# -------------------------------------------------------------------------------------------------------------- opening


def opened(device: ScriptedPump, **settings: Any) -> CavroPump:
    """Open a pump and close it again; raises what `open` raises."""

    async def main() -> CavroPump:
        probe = settings.pop("probe", None)
        transport = Transport("pumps", MemoryHost(device).connect, probe=probe)
        pump = CavroPump(transport, "pump", **{"barrel_ul": 1000} | settings)
        try:
            identity = await pump.open()
        except DeviceError:
            assert not transport.is_open
            raise
        assert "has not met its hardware" in identity.notice
        assert identity.firmware == "P/N 12345 Rev A"
        await pump.close()
        return pump

    return run_virtual(main())


def test_the_pump_that_is_configured_is_known() -> None:
    opened(ScriptedPump())
    opened(ScriptedPump(reports={"~P": "2"}), dialect="kloehn")


@pytest.mark.parametrize(
    ("device", "settings", "kind", "message"),
    [
        (ScriptedPump(), {"dialect": "kloehn"}, DeviceFault, "is not the Kloehn pump"),
        (ScriptedPump(reports={"?": "24000"}), {}, DeviceFault, "stands at step 24000 of 3000"),
        (ScriptedPump(0x32), {}, ReplyTimeout, "its address switch .expected 0., and whether it is set to DT"),
        (ScriptedPump(), {"framing": "oem"}, ReplyTimeout, "set to OEM framing"),
        (ScriptedPump(oem=True), {}, ReplyTimeout, "set to DT framing"),
    ],
)
def test_another_pump_is_one_clear_error(
    device: ScriptedPump, settings: dict[str, Any], kind: type[DeviceError], message: str
) -> None:
    if "?" in device.reports:
        device.position = int(device.reports.pop("?"))
    with pytest.raises(kind, match=message):
        opened(device, **settings)


def test_oem_framing_and_a_probe_do_not_go_together() -> None:
    probe = Probe(b"/1&\r", lambda _: None, lambda _: True)
    with pytest.raises(InputError, match="has a probe"):
        opened(ScriptedPump(oem=True), framing="oem", probe=probe)


def test_a_pump_that_is_not_open_says_so() -> None:
    async def main() -> None:
        pump = CavroPump(Transport("pumps", MemoryHost(ScriptedPump()).connect), "pump", barrel_ul=1000)
        with pytest.raises(Disconnected):
            await pump.stop()
        with pytest.raises(Disconnected):
            await pump.initialize()

    run_virtual(main())
