from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers import asi
from cartoseq.drivers.asi import AsiFocus, AsiStage
from cartoseq.drivers.capabilities import XY, FocusStage, Range, XYLimits, XYStage
from cartoseq.drivers.errors import DeviceFault, Disconnected, LimitError, ReplyTimeout, StallError, Stopped
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.streaming.errors import InputError

from .scripted import EvenAxis, Scripted, now_s, run_with

TIGER = "TIGER_COMM\rMotor Axes: X Y Z\rAxis Types: x x z\rAxis Addr: 1 1 2\rHex Addr: 31 31 32\rAxis Props: 10 10 10\r"
LIMITS = XYLimits(Range(-1000, 50_000), Range(-1000, 50_000))


class Controller:
    """Three axes at 5.745 mm/s; answers as in protocols of the maker."""

    def __init__(self, build: str = TIGER, asks_each_axis: bool = True) -> None:
        self.axes = {axis: EvenAxis(57_450) for axis in "XYZ"}
        self.build = build
        self.asks_each_axis = asks_each_axis
        self.status = 10
        self.lost: set[str] = set()  # commands whose next reply does not come
        self.muted = ""

    def answer(self, command: bytes, now_s: float) -> bytes | None:
        text = command.decode()
        reply = self.reply(text, now_s)
        if text in self.lost:
            self.lost.remove(text)
            return None
        return None if self.muted and re.match(self.muted, text) else reply.encode() + b"\r\n"

    def reply(self, text: str, now_s: float) -> str:
        word, *rest = text.split()
        if text == "\\":
            for axis in self.axes.values():
                axis.stop(now_s)
            return ":A"
        if text == "/":
            return "B" if any(axis.moving(now_s) for axis in self.axes.values()) else "N"
        if text == "BU X":
            return self.build
        if word == "V":
            return ":A Version: USB-9.2m"
        if word == "W":
            return ":A " + " ".join(f"{self.axes[name].at(now_s):.1f}" for name in rest) + " "
        if word == "RS" and text.endswith("?"):
            if not self.asks_each_axis:
                return ":N-3 "
            return ":A " + "".join("NB"[self.axes[part[0]].moving(now_s)] for part in rest)
        if word == "RS":
            return f":A {self.status}"
        if word in ("SL", "SU", "S", "AC") and text.endswith("?"):
            value = {"SL": -110.0, "SU": 40.0, "S": 5.745, "AC": 70}[word]
            return f":{'' if word == 'AC' else 'A '}{rest[0][0]}={value:.3f}"
        if word in ("M", "H"):
            for part in rest:
                name, value = part.split("=")
                if word == "M":
                    self.axes[name].go(float(value), now_s)
                else:
                    self.axes[name] = EvenAxis(57_450, float(value))
            return ":A "
        if word == "!":
            for name in rest:
                self.axes[name].go(-200_000, now_s)
            return ":A"
        return ":A" if word in ("S", "AC", "VB") else ":N-1"


def test_bytes_are_those_of_the_protocol() -> None:
    assert asi.encode_targets("M", {"X": 1234.5, "Y": -20.0}) == "M X=12345 Y=-200"
    assert asi.HALT == b"\\\r"
    assert asi.parse_positions(":A 12345 -200 \r\n", 2) == [1234.5, -20.0]
    assert asi.parse_positions(":A 12345.0\r\n", 1) == [1234.5]
    assert asi.parse_moving(":A NNN\r\n", 3) == [False] * 3
    assert asi.parse_moving(":A NB\r\n", 2) == [False, True]
    assert asi.parse_moving("10 11\r\n", 2) == [False, True]
    assert asi.parse_setting(":A X=5.745\r\n", "X") == asi.parse_setting(":X=5.745 \r\n", "X") == 5.745
    assert asi.parse_version(":A Version: USB-9.2m\r\n") == "USB-9.2m"
    assert asi.parse_build(TIGER + "\r\n") == ("TIGER_COMM", ["X", "Y", "Z"])
    assert asi.parse_busy("B\r\n")
    assert not asi.parse_busy("\xffN\r\n")
    for done in (":A\r\n", ":A \r\n", "\xff:A\r\n"):
        asi.parse_done(done)


@pytest.mark.parametrize("garbage", ["", ":", ":A 1", "A\r\n", ":N-1\r\n", ":A 1 2 3\r\n", ":AB\r\n"])
def test_another_commands_reply_is_none(garbage: str) -> None:
    for parse in (asi.parse_done, asi.parse_busy, lambda text: asi.parse_positions(text, 2)):
        with pytest.raises(ValueError, match="is no such reply"):
            parse(garbage)


@given(st.binary(max_size=40))
def test_parsers_take_any_bytes(data: bytes) -> None:
    text = data.decode("latin-1")
    parsers: list[Callable[[str], object]] = [
        asi.parse_done,
        asi.parse_busy,
        asi.parse_version,
        asi.parse_build,
        asi.parse_status_byte,
        lambda text: asi.parse_positions(text, 2),
        lambda text: asi.parse_moving(text, 2),
        lambda text: asi.parse_setting(text, "X"),
    ]
    for parse in parsers:
        with contextlib.suppress(ValueError):
            parse(text)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_what_is_written_reads_back_to_a_tenth_of_a_micrometre(x_um: float, y_um: float) -> None:
    written = asi.encode_targets("M", {"X": x_um, "Y": y_um})
    reply = ":A " + " ".join(part.split("=")[1] for part in written.split()[1:]) + " \r\n"
    assert asi.parse_positions(reply, 2) == pytest.approx([x_um, y_um], abs=0.0501)


def stage_on(transport: Transport) -> AsiStage:
    return AsiStage(transport, "stage", limits=LIMITS)


def focus_on(transport: Transport) -> AsiFocus:
    return AsiFocus(transport, "focus", limits_um=Range(-500, 500))


def test_they_have_the_capabilities() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        assert isinstance(stage_on(transport), XYStage)
        assert isinstance(focus_on(transport), FocusStage)

    run_with(Scripted(Controller().answer), use)


def test_opening_tells_who_it_is_and_narrows_the_limits() -> None:
    server = Scripted(Controller().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = AsiStage(transport, "stage", limits=LIMITS, speed_mm_per_s=5.745, acceleration_ms=70)
        identity = await stage.open()
        assert (identity.maker, identity.model, identity.firmware) == ("ASI", "Tiger TIGER_COMM", "USB-9.2m")
        assert "not met its hardware" in identity.notice
        assert stage.limits == XYLimits(Range(-1000, 40_000), Range(-1000, 40_000))
        await stage.close()
        assert not transport.is_open

    run_with(server, use)
    assert b"S X=5.745 Y=5.745" in server.commands
    assert b"AC X=70 Y=70" in server.commands


def test_a_move_is_the_session_of_the_protocol() -> None:
    server = Scripted(Controller().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        del server.heard[:]
        begun_s = now_s()
        await stage.move_to(1234.5, -20.0)
        assert await stage.position() == XY(1234.5, -20.0)
        assert 0.2 < now_s() - begun_s < 0.4  # 1.2345 mm at 5.745 mm/s
        await stage.close()

    run_with(server, use)
    assert server.commands[:3] == [b"W X Y", b"M X=12345 Y=-200", b"RS X? Y?"]
    assert server.commands[-2:] == [b"W X Y", b"W X Y"]


@pytest.mark.parametrize(("x_um", "y_um"), [(40_001, 0), (0, float("nan")), (float("inf"), 0)])
def test_beyond_the_limits_nothing_is_sent(x_um: float, y_um: float) -> None:
    server = Scripted(Controller().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        sent = len(server.heard)
        with pytest.raises(LimitError):
            await stage.move_to(x_um, y_um)
        assert len(server.heard) == sent
        await stage.close()

    run_with(server, use)


@pytest.mark.parametrize("asks_each_axis", [True, False])
def test_a_stop_goes_out_at_once_and_leaves_the_stage_where_it_is(asks_each_axis: bool) -> None:
    server = Scripted(Controller(asks_each_axis=asks_each_axis).answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        begun_s = now_s()
        moving = asyncio.ensure_future(stage.move_to(40_000, 0))
        await asyncio.sleep(2)
        await asyncio.gather(stage.stop(), stage.make_safe())
        with pytest.raises(Stopped, match="stage: was stopped"):
            await moving
        halted_s = next(time_s for time_s, command in server.heard if command == b"\\")
        assert halted_s == begun_s + 2
        x_um = (await stage.position()).x_um
        assert 11_400 < x_um < 11_500
        await stage.move_to(x_um, 0)
        await stage.close()

    run_with(server, use)


def test_a_halt_of_the_controller_ends_the_moves_of_its_other_axes() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        stage, focus = stage_on(transport), focus_on(transport)
        await stage.open()
        await focus.open()
        moving = asyncio.ensure_future(stage.move_to(40_000, 0))
        await asyncio.sleep(1)
        await focus.stop()
        with pytest.raises(Stopped, match="halt of the whole controller"):
            await moving
        await focus.move_to_um(100)
        assert await focus.position_um() == 100
        await stage.close()
        assert transport.is_open
        await focus.close()
        assert not transport.is_open

    run_with(Scripted(Controller().answer), use)


def test_a_stage_that_stops_short_has_stalled() -> None:
    controller = Controller()
    controller.axes["X"].wall = 50_000

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        with pytest.raises(StallError, match="X came to rest at 5000 um after a move from 0 to 20000 um") as failed:
            await stage.move_to(20_000, 0)
        assert "M X=200000" in failed.value.wire
        controller.status = 10 | 1 << 6
        assert [fault.text for fault in await stage.read_faults()] == [
            "upper limit switch of X is closed",
            "upper limit switch of Y is closed",
        ]
        await stage.clear_faults()
        await stage.close()

    run_with(Scripted(controller.answer), use)


def test_a_move_whose_reply_was_lost_is_not_sent_twice() -> None:
    controller = Controller()
    server = Scripted(controller.answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        controller.lost = {"M X=200000 Y=0", "RS X? Y?"}
        await stage.move_to(20_000, 0)
        await stage.close()

    run_with(server, use)
    assert server.commands.count(b"M X=200000 Y=0") == 1


def test_a_stage_that_falls_silent_on_its_way_is_told_to_stop() -> None:
    controller = Controller()
    server = Scripted(controller.answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        moving = asyncio.ensure_future(stage.move_to(20_000, 0))
        await asyncio.sleep(1)
        controller.muted = "."
        with pytest.raises(ReplyTimeout):
            await moving
        await asyncio.sleep(0.01)  # the stop is on its way
        await stage.close()

    run_with(server, use)
    assert server.commands[-1] == b"\\"


def test_a_cut_line_is_told() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        moving = asyncio.ensure_future(stage.move_to(20_000, 0))
        await asyncio.sleep(1)
        host.cut()
        with pytest.raises(Disconnected):
            await moving
        with pytest.raises(Disconnected):
            await stage.make_safe()
        await stage.close()

    run_with(Scripted(Controller().answer), use)


def test_refusals_are_faults_with_their_meaning() -> None:
    controller = Controller()

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        plain = controller.reply
        controller.reply = lambda text, now_s: ":N-4" if text[0] == "M" else plain(text, now_s)  # type: ignore[method-assign]
        with pytest.raises(DeviceFault, match="refused M X=10 Y=0: parameter out of range") as failed:
            await stage.move_to(1, 0)
        assert failed.value.code == "N-4"
        await stage.close()

    run_with(Scripted(controller.answer), use)


def test_home_runs_to_the_limit_and_counts_from_the_given_place() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = AsiStage(transport, "stage", limits=LIMITS, home=XY(-1000, 0))
        await stage.open()
        await stage.home()
        assert await stage.position() == XY(-1000, 0)
        await stage.close()

    run_with(Scripted(Controller().answer), use)


def test_an_axis_that_the_controller_lacks_is_named() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(InputError, match="focus: the controller has the axes X, Y, Z, not F"):
            await AsiFocus(transport, "focus", limits_um=Range(0, 1), axis="F").open()
        assert not transport.is_open

    run_with(Scripted(Controller().answer), use)


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (b"E,5\r\n", DeviceFault, "does not speak as an ASI MS-2000 or Tiger does"),
        (None, ReplyTimeout, "no whole reply"),
    ],
)
def test_another_device_and_no_device_are_told_apart(reply: bytes | None, error: type[Exception], message: str) -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(error, match=message):
            await stage_on(transport).open()

    run_with(Scripted(lambda command, now_s: reply), use)
