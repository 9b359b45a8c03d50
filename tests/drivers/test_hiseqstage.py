from __future__ import annotations

import asyncio

import pytest

from cartoseq.drivers.capabilities import XY, Range, XYLimits, XYStage
from cartoseq.drivers.errors import Disconnected, LimitError, NotInitialized, StallError, Stopped
from cartoseq.drivers.hiseqstage import HiSeqStage
from cartoseq.drivers.mdrive import MDriveAxis
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.vix import VixAxis
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost

from .scripted import EvenAxis, Scripted, now_s


class X:
    """An MDrive of few words: homed, 1024 counts a second."""

    def __init__(self) -> None:
        self.axis = EvenAxis(1024, 30_000)
        self.values = {"ER": 0}

    def answer(self, command: bytes, now_s: float) -> bytes | None:
        text = command.decode()
        if text == "\x1b":
            self.axis.stop(now_s)
        elif text.startswith("MA "):
            self.axis.go(int(text[3:]), now_s)
        elif text.startswith("PR "):
            known = {"P": round(self.axis.at(now_s)), "MV": int(self.axis.moving(now_s))}
            return b"%d\r\n" % known.get(text[3:], self.values.get(text[3:], 0))
        elif "=" in text:
            word, value = text.split("=")
            self.values[word] = int(value.split(",")[0])
        return None


class Y:
    """A ViX of few words: energised, 10 mm a second."""

    def __init__(self) -> None:
        self.axis = EvenAxis(1_000_000)
        self.target = 0

    def answer(self, command: bytes, now_s: float) -> bytes | None:
        text = command.decode()[1:]
        if text[0] == "D":
            self.target = int(text[1:])
        elif text in ("G", "GH"):
            self.axis.go(self.target if text == "G" else 0, now_s)
        elif text == "S":
            self.axis.stop(now_s)
        moving = self.axis.moving(now_s)
        reports = {
            "R(PA)": f"{self.axis.at(now_s):+.0f}",
            "R(PT)": f"{self.target:+d}",
            "R(ST)": f"0000_0000_1000_0000_00{'10' if moving else '01'}",
            "R(DF)": "0000",
            "R(UF)": "0000",
        }
        return f"*{reports[text]}\r\n".encode() if text in reports else None


class Line(Scripted):
    def receive(self, data: bytes, now_s: float) -> None:
        super().receive(data.replace(b"\x1b", b"\x1b\r"), now_s)


class Bench:
    def __init__(self) -> None:
        self.x, self.y = X(), Y()
        self.x_line, self.y_line = Line(self.x.answer), Scripted(self.y.answer)
        self.x_host, self.y_host = MemoryHost(self.x_line), MemoryHost(self.y_line)

    def stage(self) -> HiSeqStage:
        return HiSeqStage(
            "stage",
            x=MDriveAxis(Transport("x", self.x_host.connect), "stage"),
            y=VixAxis(Transport("y", self.y_host.connect), "stage", travel_um_per_rev=10_000),
        )


def test_it_is_an_xy_stage_that_moves_both_axes_at_once() -> None:
    async def main() -> None:
        bench = Bench()
        stage = bench.stage()
        assert isinstance(stage, XYStage)
        assert "MDrive, ViX" in (await stage.open()).model
        assert stage.limits == XYLimits(Range(-29_000 / 0.4096, 20_000 / 0.4096), Range(-70_000, 75_000))
        with pytest.raises(NotInitialized):
            await stage.move_to(0, 0)
        await stage.y.home()
        begun_s = now_s()
        await stage.move_to(10_000, -40_000)
        assert 4 < now_s() - begun_s < 4.3  # 4096 counts at 1024 a second, 40 mm at 10 mm/s
        assert await stage.position() == XY(10_000, -40_000)
        assert await stage.read_faults() == []
        await stage.clear_faults()
        await stage.close()

    run_virtual(main())


@pytest.mark.parametrize(("x_um", "y_um"), [(0, 75_001), (48_829, 0), (0, float("nan"))])
def test_beyond_the_limits_of_either_axis_nothing_is_sent(x_um: float, y_um: float) -> None:
    async def main() -> None:
        bench = Bench()
        stage = bench.stage()
        await stage.open()
        sent = len(bench.x_line.heard), len(bench.y_line.heard)
        with pytest.raises(LimitError):
            await stage.move_to(x_um, y_um)
        assert (len(bench.x_line.heard), len(bench.y_line.heard)) == sent
        await stage.close()

    run_virtual(main())


def test_a_stop_goes_out_on_both_lines_at_once() -> None:
    async def main() -> None:
        bench = Bench()
        stage = bench.stage()
        await stage.open()
        await stage.y.home()
        begun_s = now_s()
        moving = asyncio.ensure_future(stage.move_to(20_000, 60_000))
        await asyncio.sleep(2)
        await stage.stop()
        with pytest.raises(Stopped):
            await moving
        assert (begun_s + 2, b"\x1b") in bench.x_line.heard
        assert (begun_s + 2, b"1S") in bench.y_line.heard
        await stage.make_safe()
        await stage.close()

    run_virtual(main())


def test_an_axis_that_stalls_ends_the_move_of_the_other() -> None:
    async def main() -> None:
        bench = Bench()
        stage = bench.stage()
        await stage.open()
        await stage.y.home()
        bench.y.axis.wall = 1_000_000
        with pytest.raises(StallError, match="Y came to rest at 10000 um"):
            await stage.move_to(40_000, 20_000)
        await asyncio.sleep(0.01)
        assert not bench.x.axis.moving(now_s())
        assert bench.x.axis.at(now_s()) < 40_000
        await stage.close()

    run_virtual(main())


def test_with_one_line_gone_the_other_axis_is_still_stopped() -> None:
    async def main() -> None:
        bench = Bench()
        stage = bench.stage()
        await stage.open()
        await stage.y.home()
        moving = asyncio.ensure_future(stage.move_to(20_000, 60_000))
        await asyncio.sleep(1)
        bench.x_host.cut()
        with pytest.raises(Disconnected):
            await stage.make_safe()
        with pytest.raises((Disconnected, Stopped)):
            await moving
        assert not bench.y.axis.moving(now_s())
        await stage.close()

    run_virtual(main())


def test_home_finds_both_switches_and_a_missing_drive_leaves_nothing_open() -> None:
    async def main() -> None:
        bench = Bench()
        stage = bench.stage()
        await stage.open()
        plain = bench.x.answer

        def find_home(command: bytes, now_s: float) -> bytes | None:
            if command == b"EX 1":
                bench.x.axis = EvenAxis(1024, 30_000)
            return plain(command, now_s)

        bench.x_line.answer = find_home
        await stage.home()
        assert await stage.position() == XY(0, 0)
        await stage.close()
        bench.y_host.refuses = True
        with pytest.raises(Disconnected):
            await stage.open()
        with pytest.raises(Disconnected, match=r"is not open|is gone"):
            await stage.x.position_um()

    run_virtual(main())
