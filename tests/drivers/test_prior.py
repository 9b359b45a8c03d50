from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers import prior
from cartoseq.drivers.capabilities import XY, FocusStage, Range, XYLimits, XYStage
from cartoseq.drivers.errors import Busy, DeviceFault, LimitError, StallError, Stopped
from cartoseq.drivers.prior import PriorFocus, PriorStage
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.streaming.errors import InputError

from .scripted import EvenAxis, Scripted, now_s, run_with

INFORMATION = "PROSCAN INFORMATION\rDSP_1 IS 4-AXIS STEPPER VERSION 1.11\rEND\r"
STAGE = "STAGE = H101/2\rTYPE = 1\rSIZE_X = 108 MM\rSIZE_Y = 71 MM\rMICROSTEPS/MICRON = 25\rEND\r"
FOCUS = "FOCUS = NORMAL\rTYPE = 0\rMICRONS/REV = 100\rEND\r"
LIMITS = XYLimits(Range(-50_000, 50_000), Range(-30_000, 30_000))


class Controller:
    """Three axes at 10 mm/s in steps of 0.1 um."""

    def __init__(self) -> None:
        self.axes = {axis: EvenAxis(100_000) for axis in "XYZ"}
        self.replies: dict[str, str] = {}
        self.lost: set[str] = set()

    def answer(self, command: bytes, now_s: float) -> bytes | None:
        text = command.decode()
        reply = self.replies.get(text) or self.reply(text, now_s)
        if text in self.lost:
            self.lost.remove(text)
            return None
        return reply.encode() + b"\r"

    def reply(self, text: str, now_s: float) -> str:
        word, *numbers = text.split(",")
        if word in ("G", "V"):
            for name, number in zip("XY" if word == "G" else "Z", numbers, strict=True):
                self.axes[name].go(float(number), now_s)
            return "R"
        if word == "I":
            for axis in self.axes.values():
                axis.stop(now_s)
            return "R"
        if word == "$":
            return str(sum(bit for bit, name in ((1, "X"), (2, "Y"), (4, "Z")) if self.axes[name].moving(now_s)))
        if word == "P":
            return ",".join(f"{axis.at(now_s):.0f}" for axis in self.axes.values())
        texts = {"?": INFORMATION, "STAGE": STAGE, "FOCUS": FOCUS}
        if word in texts:
            return texts[word][:-1]
        if word.startswith(("SM", "SA")) and not numbers:
            return "120"
        if word == "RES" and len(numbers) == 1:
            return "0.1"
        if word in ("LMT", "="):
            return "00"
        return "0" if word in ("COMP 0", "RES", "SMS", "SMZ") else "E,5"


def stage_on(transport: Transport, limits: XYLimits = LIMITS) -> PriorStage:
    return PriorStage(transport, "stage", limits=limits, full_speed_mm_per_s=10, full_acceleration_mm_per_s2=1000)


def focus_on(transport: Transport) -> PriorFocus:
    return PriorFocus(
        transport, "focus", limits_um=Range(-500, 500), full_speed_mm_per_s=10, full_acceleration_mm_per_s2=1000
    )


def test_bytes_are_those_of_the_protocol() -> None:
    prior.parse_word("R\r", "R")
    prior.parse_word("\xff0\r", "0")
    assert prior.parse_integers("1000,2000\r", 2) == [1000, 2000]
    assert prior.parse_integers("3\r", 1) == [3]
    assert prior.parse_error("E,5\r") == 5
    assert prior.parse_error("R\r") is None
    assert prior.parse_title(INFORMATION) == "PROSCAN"
    assert prior.parse_properties(STAGE)["SIZE_X"] == "108 MM"
    assert prior.parse_mask("0A\r") == 10
    assert prior.texts(STAGE.encode()) == (0, len(STAGE))
    assert prior.texts(STAGE.encode()[:-1]) is None
    assert prior.texts(b"E,5\r") == (0, 4)


@given(st.binary(max_size=40))
def test_parsers_take_any_bytes(data: bytes) -> None:
    parsers: list[Callable[[str], object]] = [
        prior.parse_error,
        prior.parse_number,
        prior.parse_title,
        prior.parse_properties,
        prior.parse_mask,
        lambda text: prior.parse_word(text, "R"),
        lambda text: prior.parse_integers(text, 2),
    ]
    prior.texts(data)
    for parse in parsers:
        with contextlib.suppress(ValueError):
            parse(data.decode("latin-1"))


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=4))
def test_integers_read_back(numbers: list[int]) -> None:
    text = ",".join(map(str, numbers)) + "\r"
    assert prior.parse_integers(text, len(numbers)) == numbers
    with pytest.raises(ValueError, match="expected"):
        prior.parse_integers(text, len(numbers) + 1)


def test_opening_chooses_the_standard_mode_and_tells_who_it_is() -> None:
    server = Scripted(Controller().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage, focus = stage_on(transport), focus_on(transport)
        assert isinstance(stage, XYStage)
        assert isinstance(focus, FocusStage)
        identity = await stage.open()
        assert (identity.maker, identity.model) == ("Prior", "PROSCAN H101/2")
        assert (await focus.open()).model == "PROSCAN NORMAL"
        assert await stage.read_faults() == []
        await stage.clear_faults()
        await stage.close()
        await focus.close()
        assert not transport.is_open

    run_with(server, use)
    assert server.commands[:5] == [b"$", b"COMP 0", b"?", b"STAGE", b"RES,s,0.1"]


def test_a_move_is_the_session_of_the_protocol() -> None:
    server = Scripted(Controller().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        del server.heard[:]
        await stage.move_to(100, 200)
        assert await stage.position() == XY(100, 200)
        await stage.move_to(-20_000, 200)
        assert 2 < now_s() < 2.5
        await stage.close()

    run_with(server, use)
    assert server.commands[:3] == [b"P", b"G,1000,2000", b"$"]


@pytest.mark.parametrize(("x_um", "y_um"), [(50_001, 0), (0, float("nan"))])
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


def test_a_stop_goes_out_at_once_and_ends_every_move_of_the_controller() -> None:
    server = Scripted(Controller().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage, focus = stage_on(transport), focus_on(transport)
        await stage.open()
        await focus.open()
        await focus.move_to_um(-500)
        begun_s = now_s()
        moving = asyncio.ensure_future(stage.move_to(50_000, 0))
        await asyncio.sleep(1)
        focusing = asyncio.ensure_future(focus.move_to_um(500))
        await asyncio.sleep(0.05)
        await stage.stop()
        with pytest.raises(Stopped, match="stage: was stopped"):
            await moving
        with pytest.raises(Stopped, match="focus: the move was ended by a halt of the whole controller"):
            await focusing
        assert [time_s for time_s, command in server.heard if command == b"I"] == [pytest.approx(begun_s + 1.05)]
        await stage.make_safe()
        await stage.close()
        await focus.close()

    run_with(server, use)


def test_a_stage_that_stops_short_has_stalled_and_its_switch_is_told() -> None:
    controller = Controller()
    controller.axes["Y"].wall = -50_000

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        with pytest.raises(StallError, match="Y came to rest at -5000 um"):
            await stage.move_to(0, -20_000)
        controller.replies["LMT"] = "08"
        assert [fault.code for fault in await stage.read_faults()] == ["LMT 08"]
        await stage.close()

    run_with(Scripted(controller.answer), use)


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [("E,8", DeviceFault, "value out of range"), ("E,18", Busy, "queue full"), ("E,99", DeviceFault, "unknown error")],
)
def test_errors_have_their_meaning(reply: str, error: type[Exception], message: str) -> None:
    controller = Controller()
    controller.replies["G,10,0"] = reply

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        with pytest.raises(error, match=f"refused G,10,0: {message}"):
            await stage.move_to(1, 0)
        await stage.close()

    run_with(Scripted(controller.answer), use)


def test_a_move_whose_reply_was_lost_is_not_sent_twice() -> None:
    controller = Controller()
    server = Scripted(controller.answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        focus = focus_on(transport)
        await focus.open()
        controller.lost = {"V,5000", "$"}
        await focus.move_to_um(500)
        await focus.close()

    run_with(server, use)
    assert server.commands.count(b"V,5000") == 1


def test_home_waits_for_its_late_answer_and_can_be_stopped() -> None:
    controller = Controller()
    controller.replies["SIS"] = "R"

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        await stage.home()
        controller.lost = {"SIS"}
        homing = asyncio.ensure_future(stage.home())
        await asyncio.sleep(5)
        begun_s = now_s()
        await stage.stop()
        with pytest.raises(Stopped):
            await homing
        assert now_s() - begun_s < 0.1
        await stage.close()

    run_with(Scripted(controller.answer), use)


def test_a_controller_without_resolution_is_opened_with_a_notice() -> None:
    controller = Controller()
    controller.replies["RES,s"] = "0"

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        assert "0.1 um is assumed" in (await stage.open()).notice
        await stage.close()

    run_with(Scripted(controller.answer), use)


def test_what_does_not_fit_is_told_when_it_is_opened() -> None:
    controller = Controller()

    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(InputError, match="limits of X span 120 mm, but H101/2 travels 108 mm"):
            await stage_on(transport, XYLimits(Range(0, 120_000), Range(0, 1))).open()
        controller.replies["FOCUS"] = "FOCUS = NONE\rEND"
        with pytest.raises(InputError, match="no focus is fitted"):
            await focus_on(transport).open()
        controller.replies["$"] = ":N-1"
        transport.doubt()
        with pytest.raises(DeviceFault, match="does not speak as a Prior"):
            await stage_on(transport).open()
        assert not transport.is_open

    run_with(Scripted(controller.answer), use)
