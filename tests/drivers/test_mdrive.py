from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers import mdrive
from cartoseq.drivers.capabilities import FocusStage, Range
from cartoseq.drivers.errors import (
    DeviceFault,
    LimitError,
    NotInitialized,
    ReplyTimeout,
    StallError,
    Stopped,
)
from cartoseq.drivers.mdrive import MDriveAxis
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.streaming.errors import InputError

from .scripted import EvenAxis, Scripted, now_s, run_with


class Drive:
    """Echoes until it is told ``EM=2``; moves 1024 counts a second; home is at 30000 of its true place."""

    def __init__(self, true_steps: float = 30_000) -> None:
        self.axis = EvenAxis(1024, true_steps)
        self.offset = 0.0  # what it counts less its true place
        self.values = {"ER": 0, "EM": 0}
        self.program: list[str] | None = None
        self.running_until_s: float | None = None
        self.finds_home = True
        self.loses = 0  # so many moves do not reach it

    def power_cycle(self, now_s: float) -> None:
        self.axis.stop(now_s)
        self.offset = -self.axis.at(now_s)
        self.values = {"ER": 0, "EM": 0}

    def answer(self, command: bytes, now_s: float) -> bytes | None:
        if command.startswith(b"\x1b"):
            self.axis.stop(now_s)
            self.running_until_s = None
            command = command[1:]
        if self.running_until_s is not None and now_s >= self.running_until_s:
            self.offset, self.running_until_s = 0.0, None
        reply = self.reply(command.decode(), now_s)
        echoing = self.values["EM"] == 0
        return (
            (command + b"\r\n" if echoing else b"")
            + (b"%d\r\n" % reply if reply is not None else b"")
            + (b">" if echoing else b"")
        )

    def reply(self, text: str, now_s: float) -> int | None:
        if self.program is not None:
            if text == "PG":
                assert self.program == ["HM 1", "H", "P=30000", "E"]
                self.program = None
            else:
                self.program.append(text)
        elif text.startswith("PR "):
            if text[3:] == "P":
                return round(self.axis.at(now_s) + self.offset)
            return int(self.axis.moving(now_s)) if text[3:] == "MV" else self.values.get(text[3:], 0)
        elif text == "PG 1":
            self.program = []
        elif text == "EX 1":
            self.axis.go(30_000 if self.finds_home else self.axis.at(now_s), now_s)
            if self.finds_home:
                self.running_until_s = now_s + abs(self.axis.at(now_s) - 30_000) / 1024
        elif text.startswith("MA "):
            if self.loses:
                self.loses -= 1
            else:
                self.axis.go(int(text[3:]) - self.offset, now_s)
        elif text.startswith("P="):
            self.offset = int(text[2:]) - self.axis.at(now_s)
        else:
            word, value = text.split("=")
            self.values[word] = int(value.split(",")[0])
        return None


def axis_on(transport: Transport) -> MDriveAxis:
    return MDriveAxis(transport, "stage")


class Line(Scripted):
    """ESC is heard at once, without an end of line."""

    def receive(self, data: bytes, now_s: float) -> None:
        super().receive(data.replace(b"\x1b", b"\x1b\r"), now_s)


def test_bytes_are_those_of_the_protocol() -> None:
    assert mdrive.parse_value(b"30000\r\n") == mdrive.parse_value(b"\xff> 30000\r\n") == 30_000
    assert mdrive.parse_value(b">-5\r\n") == -5
    assert mdrive.home_program(30_000) == ("PG 1", "HM 1", "H", "P=30000", "E", "PG")
    assert mdrive.ESCAPE == b"\x1b"
    for echo in (b"PR P\r\n", b"MA 30000\r\n", b">\r\n", "Copyright \xa9 2001\r\n".encode("latin-1"), b""):
        with pytest.raises(ValueError, match="is no number"):
            mdrive.parse_value(echo)


@given(st.binary(max_size=20), st.integers(-(10**9), 10**9))
def test_the_parser_takes_any_bytes_and_reads_numbers_back(data: bytes, number: int) -> None:
    with contextlib.suppress(ValueError):
        mdrive.parse_value(data)
    assert mdrive.parse_value(b"%d\r\n" % number) == number


def test_it_moves_between_um_and_counts() -> None:
    drive = Drive()
    server = Line(drive.answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        assert isinstance(axis, FocusStage)  # one axis is one axis
        identity = await axis.open()
        assert identity.model == "MDrive"
        assert axis.limits_um.low == pytest.approx(-29_000 / 0.4096)
        await axis.move_to_um(10_000)
        assert await axis.steps() == 34_096
        assert await axis.position_um() == 10_000
        assert await axis.read_faults() == []
        await axis.clear_faults()
        await axis.close()

    run_with(server, use)
    assert b"MA 34096" in server.commands
    assert {b"EM=2", b"EE=1", b"S1=1,0,0", b"S2=3,1,0", b"S3=2,1,0", b"LM=1", b"DB=8", b"HC=20", b"RC=100"} <= set(
        server.commands
    )
    assert b"VM=1024" in server.commands


@pytest.mark.parametrize("x_um", [48_829, -70_802, float("nan")])
def test_beyond_the_limits_nothing_is_sent(x_um: float) -> None:
    server = Line(Drive().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        sent = len(server.heard)
        with pytest.raises(LimitError):
            await axis.move_to_um(x_um)
        assert len(server.heard) == sent
        await axis.close()

    run_with(server, use)


def test_after_a_power_cycle_it_must_be_homed() -> None:
    drive = Drive(20_000)
    drive.power_cycle(0)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        with pytest.raises(NotInitialized, match="it counts 0, its travel is 1000 to 50000"):
            await axis.move_to_um(0)
        await axis.home()
        assert await axis.steps() == 30_000
        await axis.move_to_um(100)
        drive.power_cycle(now_s())
        with pytest.raises(NotInitialized):
            await axis.move_to_um(0)
        await axis.home()
        await axis.move_to_um(100)
        await axis.close()

    run_with(Line(drive.answer), use)


def test_home_that_is_not_found_and_home_that_is_stopped_leave_it_lost() -> None:
    drive = Drive(20_000)
    drive.finds_home = False

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        drive.values["ER"] = 82
        with pytest.raises(NotInitialized, match=r"did not find home within .* both limits were reached"):
            await axis.home()
        drive.finds_home = True
        homing = asyncio.ensure_future(axis.home())
        await asyncio.sleep(5)
        await axis.stop()
        with pytest.raises(Stopped):
            await homing
        assert 1000 < await axis.steps() < 10_000
        with pytest.raises(NotInitialized):
            await axis.move_to_um(0)
        await axis.close()

    run_with(Line(drive.answer), use)


def test_a_stop_goes_out_at_once() -> None:
    server = Line(Drive().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        begun_s = now_s()
        moving = asyncio.ensure_future(axis.move_to_um(20_000))
        await asyncio.sleep(2)
        await axis.make_safe()
        with pytest.raises(Stopped):
            await moving
        assert (begun_s + 2, b"\x1b") in server.heard
        assert 4700 < await axis.position_um() < 5000
        await axis.close()

    run_with(server, use)


@pytest.mark.parametrize(("code", "error", "message"), [(86, StallError, "stalled"), (83, DeviceFault, "upper limit")])
def test_a_drive_that_stops_short_says_why(code: int, error: type[Exception], message: str) -> None:
    drive = Drive()
    drive.axis.wall = 32_000

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        drive.values["ER"] = 20  # of before: explains nothing
        with pytest.raises(StallError, match="after a move from 0 to 10000 um"):
            await axis.move_to_um(10_000)
        drive.axis = EvenAxis(1024, 30_000)
        drive.axis.wall = 32_000
        drive.values["ER"] = code
        with pytest.raises(error, match=message):
            await axis.move_to_um(10_000)
        assert [fault.code for fault in await axis.read_faults()] == [f"X {code}"]
        await axis.close()

    run_with(Line(drive.answer), use)


@pytest.mark.parametrize(("lost", "sent"), [(0, 1), (2, 3)])
def test_a_move_that_was_lost_on_the_line_is_sent_again(lost: int, sent: int) -> None:
    drive = Drive()
    drive.loses = lost
    server = Line(drive.answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        await axis.move_to_um(10_000)
        await axis.close()

    run_with(server, use)
    assert server.commands.count(b"MA 34096") == sent


def test_a_setting_that_it_does_not_take_and_another_device_are_told() -> None:
    drive = Drive()

    def stubborn(command: bytes, now_s: float) -> bytes | None:
        return None if command.startswith(b"VM=") else drive.answer(command, now_s)

    async def use(transport: Transport, host: MemoryHost) -> None:
        drive.values["VM"] = 7
        with pytest.raises(DeviceFault, match="VM was set to 1024 and reads 7"):
            await axis_on(transport).open()
        assert not transport.is_open

    run_with(Line(stubborn), use)

    async def meet_another(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(DeviceFault, match="does not speak as an MDrive does"):
            await axis_on(transport).open()

    run_with(Line(lambda command, now_s: b"?\r\n"), meet_another)

    async def meet_none(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(ReplyTimeout):
            await axis_on(transport).open()
        with pytest.raises(InputError, match="the device keeps"):
            MDriveAxis(transport, "stage", limits_um=Range(60_000, 70_000))

    run_with(Line(lambda command, now_s: None), meet_none)
