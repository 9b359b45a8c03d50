from __future__ import annotations

import asyncio
import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers import zaber
from cartoseq.drivers.capabilities import XY, FocusStage, Range, XYLimits, XYStage
from cartoseq.drivers.errors import (
    Busy,
    ChecksumError,
    DeviceFault,
    LimitError,
    NotInitialized,
    OverTemperature,
    PositionError,
    ReplyTimeout,
    StallError,
    Stopped,
)
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.zaber import ZaberAxis, ZaberFocus, ZaberStage
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.streaming.errors import InputError

from .scripted import EvenAxis, Scripted, now_s, run_with

MICROSTEP_UM = 0.15625
X = ZaberAxis(1, 1, MICROSTEP_UM, Range(0, 100_000))
Y = ZaberAxis(1, 2, MICROSTEP_UM, Range(0, 200_000))
Z = ZaberAxis(2, 1, 0.05, Range(0, 10_000))


def sealed(content: str) -> bytes:
    return f"{content}:{-sum(content[1:].encode()) & 0xFF:02X}\r\n".encode()


class Chain:
    """Device 1 with axes 1 and 2, device 2 with axis 1; all begin without a reference unless `homed`."""

    def __init__(self, homed: bool = True) -> None:
        self.axes = {(1, 1): EvenAxis(64_000, 1000), (1, 2): EvenAxis(64_000, 1000), (2, 1): EvenAxis(64_000, 1000)}
        self.flags: dict[tuple[int, int], list[str]] = {key: [] if homed else ["WR"] for key in self.axes}
        self.rejects: dict[str, str] = {}
        self.spoil = 0  # so many replies have a bit flipped
        self.lost: set[str] = set()

    def answer(self, command: bytes, now_s: float) -> bytes | None:
        found = re.fullmatch(rb"/((\d\d) (\d) (\d\d) (.*)):([0-9A-F]{2})", command)
        assert found, command
        assert -sum(found[1]) & 0xFF == int(found[6], 16)
        key, text = (int(found[2]), int(found[3])), found[5].decode()
        if key[0] not in (1, 2):
            return None
        flag, data = "OK", "0"
        if text in self.rejects:
            flag, data = "RJ", self.rejects[text]
        elif key[1] == 0:
            data = {"get device.id": "50952", "get version": "7.35", "get system.axiscount": str(3 - key[0])}[text]
        else:
            data = self.axis_reply(key, text, now_s)
        busy = "BUSY" if key[1] and self.axes[key].moving(now_s) else "IDLE"
        warning = next(iter(self.flags.get(key, [])), "--")
        reply = sealed(f"@{key[0]:02d} {key[1]} {found[4].decode()} {flag} {busy} {warning} {data}")
        if text in self.lost:
            self.lost.remove(text)
            return None
        if self.spoil:
            self.spoil -= 1
            reply = reply[:-6] + bytes([reply[-6] ^ 1]) + reply[-5:]
        return reply

    def axis_reply(self, key: tuple[int, int], text: str, now_s: float) -> str:
        axis, flags = self.axes[key], self.flags[key]
        if text.startswith("move abs"):
            axis.go(float(text.split()[2]), now_s)
        elif text == "home":
            axis.go(0, now_s)
            flags.clear()
        elif text == "stop":
            axis.stop(now_s)
        elif text.startswith("warnings"):
            data = " ".join([f"{len(flags):02d}", *flags])
            if text == "warnings clear":
                flags[:] = [flag for flag in flags if flag == "WR"]
            return data
        elif text.startswith("get"):
            return {
                "pos": f"{axis.at(now_s):.0f}",
                "limit.min": "0",
                "limit.max": "960000",
                "maxspeed": str(round(64_000 * 1.6384)),
                "accel": "0",
            }[text[4:]]
        return "0"


def test_bytes_are_those_of_the_protocol() -> None:
    assert zaber.encode(1, 1, 5, "move abs 10000") == b"/01 1 05 move abs 10000:8B\n"
    assert zaber.checksum(b"1 1 00 get pos") == 0x2C
    assert zaber.parse_reply(b"@01 0 OK IDLE -- 0:8D\r\n") == zaber.Reply(1, 0, None, True, False, "--", "0")
    assert zaber.parse_reply(b"@01 1 OK BUSY WR 12345:49\r\n") == zaber.Reply(1, 1, None, True, True, "WR", "12345")
    assert zaber.parse_reply(b"@01 1 05 RJ IDLE -- BADDATA:54\r\n") == zaber.Reply(
        1, 1, 5, False, False, "--", "BADDATA"
    )
    assert zaber.parse_reply(b"@01 0 OK IDLE -- 0\r\n").data == "0"
    assert zaber.parse_warnings("02 WR FS") == ["WR", "FS"]
    assert zaber.parse_warnings("00") == []


@pytest.mark.parametrize(
    "frame", [b"", b"!01 1 IDLE FS\r\n", b"#01 1 05 text\r\n", b"@01 1 OK IDLE\r\n", b"@01 1 05 OK IDLE --", b"@@@"]
)
def test_what_is_no_reply_is_not_taken_for_one(frame: bytes) -> None:
    with pytest.raises(ValueError, match="is no reply"):
        zaber.parse_reply(frame)


@given(st.binary(max_size=50))
def test_parsers_take_any_bytes(data: bytes) -> None:
    for frame in (data, b"@" + data, b"@01 1 05 OK IDLE -- " + data):
        with contextlib.suppress(ValueError):
            zaber.parse_reply(frame)
    for parse in (zaber.parse_number, zaber.parse_warnings):
        with contextlib.suppress(ValueError):
            parse(data.decode("latin-1"))


@given(
    st.integers(0, 99),
    st.integers(0, 9),
    st.integers(0, 99),
    st.sampled_from(["IDLE", "BUSY"]),
    st.sampled_from(["--", *zaber.FLAGS]),
    st.from_regex(r"[0-9A-Z][0-9A-Z ]{0,20}[0-9A-Z]", fullmatch=True),
    st.integers(0, 7),
    st.data(),
)
def test_replies_read_back_and_one_flipped_bit_never_passes(
    device: int, axis: int, number: int, status: str, warning: str, data: str, bit: int, draw: st.DataObject
) -> None:
    frame = sealed(f"@{device:02d} {axis} {number:02d} OK {status} {warning} {data}")
    reply = zaber.Reply(device, axis, number, True, status == "BUSY", warning, data)
    assert zaber.parse_reply(b"\xff" + frame) == reply
    place = draw.draw(st.integers(1, len(frame) - 6))  # the content; what follows tells where it ends
    flipped = frame[:place] + bytes([frame[place] ^ 1 << bit]) + frame[place + 1 :]
    with pytest.raises(ValueError, match=r"checksum|no reply"):
        zaber.parse_reply(flipped)


@given(st.floats(0.001, 1000), st.floats(0.01, 10))
def test_speeds_convert_there_and_back(speed_mm_per_s: float, microstep_um: float) -> None:
    device = zaber.device_speed(speed_mm_per_s, microstep_um)
    # 1.6384 units are one microstep a second.
    assert device == round(speed_mm_per_s * 1000 / microstep_um * 1.6384)
    assert zaber.speed_mm_per_s(device, microstep_um) == pytest.approx(speed_mm_per_s, abs=microstep_um / 3000)


def stage_on(transport: Transport) -> ZaberStage:
    return ZaberStage(transport, "stage", x=X, y=Y)


def test_opening_tells_who_it_is_and_narrows_the_limits() -> None:
    server = Scripted(Chain().answer, terminator=b"\n")

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = ZaberStage(transport, "stage", x=X, y=ZaberAxis(2, 1, 0.05, Range(-5, 10_000), 3.2))
        assert isinstance(stage, XYStage)
        identity = await stage.open()
        assert (identity.maker, identity.model, identity.firmware) == ("Zaber", "device id 50952", "7.35")
        assert stage.limits == XYLimits(Range(0, 100_000), Range(0, 10_000))
        await stage.close()
        assert not transport.is_open

    run_with(server, use)
    assert any(b"set maxspeed 104858:" in command for command in server.commands)


def test_both_axes_move_at_once_and_arrive() -> None:
    server = Scripted(Chain().answer, terminator=b"\n")

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage, focus = stage_on(transport), ZaberFocus(transport, "focus", axis=Z)
        assert isinstance(focus, FocusStage)
        await stage.open()
        await focus.open()
        begun_s = now_s()
        await asyncio.gather(stage.move_to(20_156.25, 20_156.25), focus.move_to_um(500))
        assert 2 < now_s() - begun_s < 2.2  # 20 mm at 10 mm/s
        assert await stage.position() == XY(20_156.25, 20_156.25)
        assert await focus.position_um() == 500
        await stage.close()
        await focus.close()

    run_with(server, use)


@pytest.mark.parametrize(("x_um", "y_um"), [(100_001, 0), (0, -1), (float("nan"), 0)])
def test_beyond_the_limits_nothing_is_sent(x_um: float, y_um: float) -> None:
    server = Scripted(Chain().answer, terminator=b"\n")

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        sent = len(server.heard)
        with pytest.raises(LimitError):
            await stage.move_to(x_um, y_um)
        assert len(server.heard) == sent
        await stage.close()

    run_with(server, use)


def test_without_a_reference_it_must_be_homed_first() -> None:
    server = Scripted(Chain(homed=False).answer, terminator=b"\n")

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        with pytest.raises(NotInitialized, match="X: no reference position"):
            await stage.move_to(1000, 1000)
        assert not any(b"move" in command for command in server.commands)
        await stage.home()
        await stage.move_to(1000, 1000)
        await stage.close()

    run_with(server, use)


def test_a_stall_is_raised_and_must_be_cleared() -> None:
    chain = Chain()
    chain.axes[1, 2].wall = 50_000

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        moving = asyncio.ensure_future(stage.move_to(1000, 40_000))
        await asyncio.sleep(0.9)
        chain.flags[1, 2] = ["FS", "WM"]
        with pytest.raises(StallError, match="Y: stalled and stopped"):
            await moving
        assert [(fault.code, fault.severe) for fault in await stage.read_faults()] == [("Y FS", True), ("Y WM", False)]
        with pytest.raises(StallError):
            await stage.move_to(1000, 1000)
        await stage.clear_faults()
        chain.axes[1, 2].wall = None
        await stage.move_to(1000, 1000)
        await stage.close()

    run_with(Scripted(chain.answer, terminator=b"\n"), use)


@pytest.mark.parametrize(
    ("flag", "error"),
    [("FM", OverTemperature), ("FE", DeviceFault), ("FQ", DeviceFault), ("WR", NotInitialized), ("FS", StallError)],
)
def test_flags_at_the_end_of_a_move_are_errors_though_it_rests_at_its_target(flag: str, error: type[Exception]) -> None:
    chain = Chain()

    async def use(transport: Transport, host: MemoryHost) -> None:
        focus = ZaberFocus(transport, "focus", axis=Z)
        await focus.open()
        moving = asyncio.ensure_future(focus.move_to_um(5000))
        await asyncio.sleep(1)
        chain.flags[2, 1] = [flag]
        with pytest.raises(error):
            await moving
        await focus.close()

    run_with(Scripted(chain.answer, terminator=b"\n"), use)


@pytest.mark.parametrize(("flags", "error"), [([], PositionError), (["NI"], Stopped), (["NC"], Stopped)])
def test_a_hand_at_the_knob_and_a_jump_are_told_apart(flags: list[str], error: type[Exception]) -> None:
    chain = Chain()

    async def use(transport: Transport, host: MemoryHost) -> None:
        focus = ZaberFocus(transport, "focus", axis=Z)
        await focus.open()
        chain.flags[2, 1] = ["NI"]  # of an earlier move
        moving = asyncio.ensure_future(focus.move_to_um(5000))
        await asyncio.sleep(0.5)
        chain.axes[2, 1] = EvenAxis(64_000, 150_000)
        chain.flags[2, 1] += flags
        with pytest.raises(error):
            await moving
        await focus.close()

    run_with(Scripted(chain.answer, terminator=b"\n"), use)


def test_a_stop_is_for_its_own_axes_only() -> None:
    server = Scripted(Chain().answer, terminator=b"\n")

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage, focus = stage_on(transport), ZaberFocus(transport, "focus", axis=Z)
        await stage.open()
        await focus.open()
        begun_s = now_s()
        moving, focusing = (
            asyncio.ensure_future(stage.move_to(100_000, 0)),
            asyncio.ensure_future(focus.move_to_um(6000)),
        )
        await asyncio.sleep(1)
        await stage.stop()
        assert now_s() - begun_s < 1.1
        with pytest.raises(Stopped):
            await moving
        await focusing
        assert await focus.position_um() == 6000
        await stage.make_safe()
        await stage.close()
        await focus.close()

    run_with(server, use)
    stops = [(time_s, command[:5]) for time_s, command in server.heard if b"stop" in command]
    assert {device for _, device in stops} == {b"/01 1", b"/01 2"}
    assert stops[0][0] == stops[1][0]


def test_rejections_have_their_meaning() -> None:
    chain = Chain()
    server = Scripted(chain.answer, terminator=b"\n")

    async def use(transport: Transport, host: MemoryHost) -> None:
        stage = stage_on(transport)
        await stage.open()
        chain.rejects["move abs 128000"] = "BADDATA"
        with pytest.raises(DeviceFault, match="Y rejected move abs 128000: value out of range") as failed:
            await stage.move_to(10_000, 20_000)
        assert failed.value.code == "BADDATA"
        await asyncio.sleep(0.02)
        assert not chain.axes[1, 1].moving(now_s())  # X was under way and is stopped
        chain.rejects["move abs 128000"] = "STATUSBUSY"
        with pytest.raises(Busy):
            await stage.move_to(20_000, 10_000)
        await stage.close()

    run_with(server, use)


def test_damaged_and_lost_replies_are_asked_for_again_but_moves_are_not_doubled() -> None:
    chain = Chain()
    server = Scripted(chain.answer, terminator=b"\n")

    async def use(transport: Transport, host: MemoryHost) -> None:
        focus = ZaberFocus(transport, "focus", axis=Z)
        await focus.open()
        chain.lost = {"move abs 100000", "get pos", "warnings"}
        await focus.move_to_um(5000)
        chain.spoil = 2
        assert await focus.position_um() == 5000
        chain.spoil = 3
        with pytest.raises(ChecksumError):
            await focus.position_um()
        await focus.close()

    run_with(server, use)
    assert sum(b"move abs" in command for command in server.commands) == 1


def test_a_late_reply_and_an_alert_are_not_taken_for_the_answer() -> None:
    chain = Chain()

    def answer(command: bytes, now_s: float) -> bytes | None:
        reply = chain.answer(command, now_s)
        return b"!02 1 IDLE FS:" + b"00\r\n@02 1 98 OK IDLE -- 777\r\n" + (reply or b"")

    async def use(transport: Transport, host: MemoryHost) -> None:
        focus = ZaberFocus(transport, "focus", axis=Z)
        await focus.open()
        assert await focus.position_um() == 50
        await focus.close()

    run_with(Scripted(answer, terminator=b"\n"), use)


def test_an_axis_that_is_not_there_is_named() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(InputError, match="focus: device 2 has 1 axes, no axis 2"):
            await ZaberFocus(transport, "focus", axis=ZaberAxis(2, 2, 0.05, Range(0, 1))).open()
        with pytest.raises(ReplyTimeout):
            await ZaberFocus(transport, "focus", axis=ZaberAxis(3, 1, 0.05, Range(0, 1))).open()
        assert not transport.is_open
        with pytest.raises(InputError, match="microsteps above 0"):
            ZaberFocus(transport, "focus", axis=ZaberAxis(3, 1, 0, Range(0, 1)))
        with pytest.raises(InputError, match="same axis"):
            ZaberStage(transport, "stage", x=X, y=X)

    run_with(Scripted(Chain().answer, terminator=b"\n"), use)


def test_another_device_is_told() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(DeviceFault, match="does not speak as a Zaber device"):
            await stage_on(transport).open()

    run_with(Scripted(lambda command, now_s: b":N-1\r\n", terminator=b"\n"), use)
