from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers import vix
from cartoseq.drivers.errors import (
    Busy,
    DeviceFault,
    LimitError,
    NotInitialized,
    OverTemperature,
    PositionError,
    StallError,
    Stopped,
)
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.vix import VixAxis
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.streaming.errors import InputError

from .scripted import EvenAxis, Scripted, now_s, run_with


def word(bits: set[int]) -> str:
    digits = "".join("1" if bit in bits else "0" for bit in range(1, 33))
    return "*" + "_".join(digits[i : i + 4] for i in range(0, 32, 4))


class Drive:
    """Echoes until ``EX`` is 0; moves 10 mm/s at a turn a second."""

    def __init__(self) -> None:
        self.axis = EvenAxis(1_000_000)
        self.target = 0
        self.speaks = True
        self.finds_home = True
        self.bits: dict[str, set[int]] = {"ST": set(), "DF": {21}, "UF": set()}
        self.refuses = ""
        self.loses_targets = 0

    def answer(self, command: bytes, now_s: float) -> bytes | None:
        text = command.decode()
        assert text[0] == "1"
        assert " " not in text
        reply = "*E" if text[1:] == self.refuses else self.reply(text[1:], now_s)
        echo = text + "\r" if self.speaks else ""
        return (echo + (f"{reply}\r\n" if reply else "")).encode()

    def reply(self, text: str, now_s: float) -> str:
        if text == "W(EX,0)":
            self.speaks = False
        elif text == "ON":
            self.bits = {"ST": {9}, "DF": set(), "UF": set()}
        elif text == "GH":
            self.axis.go(0 if self.finds_home else 500_000, now_s)
            if not self.finds_home:
                self.bits["UF"] = {6}
        elif text[0] == "D":
            if self.loses_targets:
                self.loses_targets -= 1
            else:
                self.target = int(text[1:])
        elif text == "G":
            self.axis.go(self.target, now_s)
        elif text == "S":
            self.axis.stop(now_s)
        elif text in ("R(ST)", "R(DF)", "R(UF)"):
            state = {19 if self.axis.moving(now_s) else 20} if text == "R(ST)" else set()
            return word(self.bits[text[2:4]] | state)
        elif self.axis.moving(now_s):
            pass  # it would answer at the end of the move
        elif text in ("R(PA)", "R(PT)"):
            return f"*{round(self.axis.at(now_s)) if text == 'R(PA)' else self.target:+d}"
        else:
            assert text == "MA" or text[0] == "V" or text.startswith("GAINS("), text
        return ""


def axis_on(transport: Transport) -> VixAxis:
    return VixAxis(transport, "stage", travel_um_per_rev=10_000)


def test_bytes_are_those_of_the_protocol() -> None:
    assert vix.parse_integer(b"*+0\r") == 0
    assert vix.parse_integer(b"\n*-1200\r") == -1200
    assert vix.parse_integer(b"1R(PA)*+7\r") == 7
    assert vix.parse_bits(b"*0000_0000_1000_0000_0010\r") == {9, 19}
    assert vix.parse_bits(word({9, 13, 32}).encode()) == {9, 13, 32}
    assert vix.is_error(b"\n*E\r")
    for garbage in (b"", b"*E\r", b"*\r", b"1R(MV)\r", b"*12*\r"):
        with pytest.raises(ValueError, match="is no such report"):
            vix.parse_integer(garbage)


@given(st.binary(max_size=50), st.sets(st.integers(1, 32)), st.integers(-(10**9), 10**9))
def test_parsers_take_any_bytes_and_read_back(data: bytes, bits: set[int], number: int) -> None:
    for parse in (vix.parse_integer, vix.parse_bits, vix.is_error):
        with contextlib.suppress(ValueError):
            parse(b"*" + data)
    assert vix.parse_bits(word(bits).encode() + b"\r") == bits
    assert vix.parse_integer(b"*%+d\r" % number) == number


def test_it_is_set_up_homed_and_moved() -> None:
    server = Scripted(Drive().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        assert (await axis.open()).model == "ViX"
        with pytest.raises(NotInitialized, match="Y was not homed"):
            await axis.move_to_um(1)
        await axis.home()
        await axis.set_speed_rps(1.5)
        begun_s = now_s()
        await axis.move_to_um(-20_000.01)
        assert 2 < now_s() - begun_s < 2.2
        assert await axis.position_um() == -20_000.01
        await axis.clear_faults()
        assert await axis.read_faults() == []
        await axis.close()

    run_with(server, use)
    for command in (b"1W(EX,0)", b"1MA", b"1ON", b"1V1", b"1V1.5", b"1GAINS(5,10,5,2,0)", b"1GH", b"1D-2000001", b"1G"):
        assert command in server.commands


@pytest.mark.parametrize("y_um", [75_001, float("inf")])
def test_beyond_the_limits_nothing_is_sent(y_um: float) -> None:
    server = Scripted(Drive().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        sent = len(server.heard)
        with pytest.raises(LimitError):
            await axis.move_to_um(y_um)
        assert len(server.heard) == sent
        await axis.close()

    run_with(server, use)


def test_a_stop_goes_out_at_once() -> None:
    server = Scripted(Drive().answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        await axis.home()
        begun_s = now_s()
        moving = asyncio.ensure_future(axis.move_to_um(70_000))
        await asyncio.sleep(1)
        with pytest.raises(Busy):
            await axis.position_um()
        await asyncio.sleep(begun_s + 2 - now_s())
        await axis.make_safe()
        with pytest.raises(Stopped):
            await moving
        assert (begun_s + 2, b"1S") in server.heard
        assert 19_800 < await axis.position_um() < 20_100
        await axis.move_to_um(0)
        await axis.close()

    run_with(server, use)


def test_a_drive_that_was_switched_off_must_be_homed_and_is_set_up_anew() -> None:
    drive = Drive()
    server = Scripted(drive.answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        await axis.home()
        drive.bits = {"ST": set(), "DF": set(), "UF": set()}
        drive.speaks = True
        with pytest.raises(NotInitialized, match="motor is not energised"):
            await axis.move_to_um(0)
        await axis.clear_faults()
        with pytest.raises(NotInitialized, match="was not homed"):
            await axis.move_to_um(0)
        await axis.home()
        await axis.move_to_um(5)
        await axis.close()

    run_with(server, use)
    assert server.commands.count(b"1MA") == 3


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        ({}, StallError, "came to rest at 10000 um"),
        ({"DF": {1, 12}}, OverTemperature, "motor too hot"),
        ({"DF": {1, 19}}, StallError, "position error too large"),
        ({"ST": {9, 14}, "UF": {13}}, DeviceFault, "upper limit reached, Y: end of travel"),
    ],
)
def test_a_drive_that_stops_short_says_why(bits: dict[str, set[int]], error: type[Exception], message: str) -> None:
    drive = Drive()
    drive.axis.wall = 1_000_000

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        await axis.home()
        moving = asyncio.ensure_future(axis.move_to_um(20_000))
        await asyncio.sleep(0.5)
        drive.bits |= bits
        with pytest.raises(error, match=message):
            await moving
        await axis.close()

    run_with(Scripted(drive.answer), use)


def test_a_hand_that_moves_it_is_told_from_a_stall() -> None:
    drive = Drive()

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        await axis.home()
        moving = asyncio.ensure_future(axis.move_to_um(20_000))
        await asyncio.sleep(1)
        drive.axis = EvenAxis(1_000_000, 2_100_000)
        with pytest.raises(PositionError):
            await moving
        await axis.close()

    run_with(Scripted(drive.answer), use)


def test_home_that_is_not_found_is_told() -> None:
    drive = Drive()
    drive.finds_home = False

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        with pytest.raises(NotInitialized, match=r"did not find home; it is at 5000.00 um; Y: homing failed"):
            await axis.home()
        with pytest.raises(NotInitialized):
            await axis.move_to_um(0)
        await axis.close()

    run_with(Scripted(drive.answer), use)


def test_a_target_is_held_before_it_goes() -> None:
    drive = Drive()
    server = Scripted(drive.answer)

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        await axis.home()
        drive.loses_targets = 2
        await axis.move_to_um(100)
        drive.loses_targets = 9
        with pytest.raises(DeviceFault, match="the target was set to 20000 and reads 10000"):
            await axis.move_to_um(200)
        await axis.close()

    run_with(server, use)
    assert server.commands.count(b"1G") == 1


def test_refusals_are_explained_by_the_user_faults() -> None:
    drive = Drive()

    async def use(transport: Transport, host: MemoryHost) -> None:
        axis = axis_on(transport)
        await axis.open()
        drive.refuses, drive.bits["UF"] = "R(PA)", {2}
        with pytest.raises(DeviceFault, match=r"R\(PA\) was refused: unknown command"):
            await axis.position_um()
        with pytest.raises(InputError):
            await axis.set_speed_rps(float("nan"))
        with pytest.raises(InputError, match="above 0"):
            VixAxis(transport, "stage", travel_um_per_rev=0)
        await axis.close()

    run_with(Scripted(drive.answer), use)


def test_another_device_is_told() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(DeviceFault, match="does not speak as a ViX drive does"):
            await axis_on(transport).open()

    run_with(Scripted(lambda command, now_s: b"E,5\r"), use)
