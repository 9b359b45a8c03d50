"""Drivers of stages and focus axes against simulated controllers: written apart from each other, they meet as bytes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from cartoseq.drivers.asi import AsiFocus, AsiStage
from cartoseq.drivers.capabilities import XY, FocusStage, Range, XYLimits, XYStage
from cartoseq.drivers.errors import (
    DeviceError,
    DeviceFault,
    Disconnected,
    LinkError,
    NotInitialized,
    OverTemperature,
    PositionError,
    StallError,
    Stopped,
)
from cartoseq.drivers.hiseqfpga import HiSeqFpga, Objective, TiltMotor
from cartoseq.drivers.hiseqstage import HiSeqStage
from cartoseq.drivers.links import paired
from cartoseq.drivers.mdrive import MDriveAxis
from cartoseq.drivers.prior import PriorFocus, PriorStage
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.vix import VixAxis
from cartoseq.drivers.zaber import ZaberAxis, ZaberFocus, ZaberStage
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.devices.asi import AsiSim
from cartoseq.simulators.devices.hiseqfpga import HiseqFpgaSim
from cartoseq.simulators.devices.mdrive import MDriveSim
from cartoseq.simulators.devices.prior import PriorSim
from cartoseq.simulators.devices.vix import VixSim
from cartoseq.simulators.devices.zaber import ZaberSim
from cartoseq.simulators.faults import FaultyLine
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Bus, SimulatedDevice

LIMITS = XYLimits(Range(-50_000, 50_000), Range(-30_000, 30_000))


class Bench:
    """A stage and a focus axis, the devices behind them, and the lines between."""

    def __init__(self, kind: str) -> None:
        self.hosts: list[MemoryHost] = []
        self.lines: list[FaultyLine] = []
        self.x: SimulatedDevice
        self.y: SimulatedDevice
        self.z: SimulatedDevice
        getattr(self, f"_{kind}")()
        self.stage: XYStage
        self.focus: FocusStage

    def line(self, server: Any, baud_rate: int) -> Transport:
        self.lines.append(FaultyLine(server))
        self.hosts.append(MemoryHost(self.lines[-1], baud_rate=baud_rate))
        # A simulated line gives a reply whole, at its end: 43 ms for a ViX's status word at 9600 baud.
        return Transport("line", self.hosts[-1].connect, silence_s=0.1 if baud_rate == 9600 else 0.02)

    def _ms2000(self) -> None:
        self._asi("ms2000", 9600)

    def _tiger(self) -> None:
        self._asi("tiger", 115_200)

    def _asi(self, controller: Literal["ms2000", "tiger"], baud_rate: int) -> None:
        self.x = self.y = self.z = AsiSim("asi", controller=controller)
        line = self.line(self.x, baud_rate)
        self.stage = AsiStage(line, "stage", limits=LIMITS)
        self.focus = AsiFocus(line, "focus", limits_um=Range(-5000, 5000))

    def _prior(self) -> None:
        self.x = self.y = self.z = PriorSim("prior")
        line = self.line(self.x, 9600)
        self.stage = PriorStage(line, "stage", limits=LIMITS, full_speed_mm_per_s=20, full_acceleration_mm_per_s2=100)
        self.focus = PriorFocus(
            line, "focus", limits_um=Range(-5000, 5000), full_speed_mm_per_s=2, full_acceleration_mm_per_s2=10
        )

    def _zaber(self) -> None:
        self.x = self.y = ZaberSim("stage", alerts=True)
        self.z = ZaberSim("focus", address=2, travel_um=(10_000.0,), microstep_um=0.05, start_um=1000.0)
        line = self.line(Bus([self.x, self.z]), 115_200)
        axes = [ZaberAxis(1, number, 0.15625, Range(0, 200_000)) for number in (1, 2)]
        self.stage = ZaberStage(line, "stage", x=axes[0], y=axes[1])
        self.focus = ZaberFocus(line, "focus", axis=ZaberAxis(2, 1, 0.05, Range(0, 20_000)))

    def _hiseq(self) -> None:
        self.x, y = MDriveSim("x"), VixSim("y")
        self.y, board = y, HiseqFpgaSim("fpga", y=y)
        self.z = board
        self.stage = HiSeqStage(
            "stage",
            x=MDriveAxis(self.line(self.x, 9600), "stage"),
            y=VixAxis(self.line(self.y, 9600), "stage", travel_um_per_rev=10_000),
        )
        self.fpga = HiSeqFpga(two_ports(board), "fpga")
        self.focus = Objective(self.fpga, "focus", speed_mm_per_s=0.1)

    async def ready(self) -> None:
        await self.stage.open()
        await self.focus.open()
        if isinstance(self.stage, (ZaberStage, HiSeqStage)):
            await self.stage.home()
        if isinstance(self.focus, ZaberFocus):
            await self.focus.home()

    async def close(self) -> None:
        await self.focus.close()
        await self.stage.close()


def two_ports(board: HiseqFpgaSim) -> Transport:
    answers = MemoryHost(board.ports["answers"], baud_rate=115_200)

    class Commands:
        """What is heard at one port is answered at the other, whose line must look."""

        def receive(self, data: bytes, now_s: float) -> None:
            board.receive(data, now_s)
            for line in answers.lines:
                line.look()

        def due_s(self) -> float | None:
            return None

        def messages(self, now_s: float) -> list[bytes]:
            return []

    commands = MemoryHost(Commands(), baud_rate=115_200)
    return Transport("fpga", paired(commands.connect, answers.connect))


ALL = ["ms2000", "tiger", "prior", "zaber", "hiseq"]


def on_a_bench(kind: str, use: Callable[[Bench], Awaitable[Any]]) -> None:
    async def main() -> None:
        bench = Bench(kind)
        await bench.ready()
        await use(bench)
        await bench.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def now_s() -> float:
    return asyncio.get_running_loop().time()


def truth(device: SimulatedDevice, axis: str = "") -> dict[str, float | str | bool]:
    return {name: value for name, value in device.inspect(now_s()).items() if name.startswith(axis)}


def moving(device: SimulatedDevice) -> bool:
    return any(value for name, value in device.inspect(now_s()).items() if name.endswith("_moving"))


@pytest.mark.parametrize("kind", ALL)
def test_what_moves_when_it_is_opened_is_stopped(kind: str) -> None:
    async def use(bench: Bench) -> None:
        await bench.stage.move_to(0, 0)
        task = asyncio.ensure_future(bench.stage.move_to(25_000, 25_000))
        await asyncio.sleep(0.5)
        for host in bench.hosts:
            host.cut()
        with pytest.raises(Disconnected):
            await task
        assert moving(bench.x)
        await bench.focus.close()
        await bench.stage.close()
        await bench.stage.open()
        await bench.focus.open()
        assert not moving(bench.x)
        assert not moving(bench.y)

    on_a_bench(kind, use)


@pytest.mark.parametrize("kind", ALL)
def test_stage_and_focus_arrive_and_rest_where_they_say(kind: str) -> None:
    async def use(bench: Bench) -> None:
        for x_um, y_um, z_um in ((1000, 2000, 50), (20_000, 25_000, 200), (1250, 2500, 100)):
            await asyncio.gather(bench.stage.move_to(x_um, y_um), bench.focus.move_to_um(z_um))
            assert not any(moving(device) for device in (bench.x, bench.y, bench.z))
            found = await bench.stage.position()
            assert found.x_um == pytest.approx(x_um, abs=2)
            assert found.y_um == pytest.approx(y_um, abs=0.2)
            assert await bench.focus.position_um() == pytest.approx(z_um, abs=0.1)
        assert await bench.stage.read_faults() == await bench.focus.read_faults() == []
        await bench.stage.clear_faults()
        await bench.focus.clear_faults()

    on_a_bench(kind, use)


@pytest.mark.parametrize("kind", ALL)
def test_a_stop_on_its_way_leaves_it_at_rest_and_ready(kind: str) -> None:
    async def use(bench: Bench) -> None:
        await bench.stage.move_to(1000, 1000)
        task = asyncio.ensure_future(bench.stage.move_to(25_000, 25_000))
        await asyncio.sleep(0.7)
        begun_s = now_s()
        await bench.stage.make_safe()
        assert now_s() - begun_s < 1
        with pytest.raises(Stopped):
            await task
        assert not moving(bench.x)
        assert not moving(bench.y)
        found = await bench.stage.position()
        assert 1000 < found.x_um < 25_000
        assert 1000 < found.y_um < 25_000
        await bench.stage.move_to(1000, 1000)
        focusing = asyncio.ensure_future(bench.focus.move_to_um(240))
        await asyncio.sleep(0.05)
        await bench.focus.stop()
        with pytest.raises(Stopped):
            await focusing
        assert not moving(bench.z)
        await bench.focus.move_to_um(10)

    on_a_bench(kind, use)


@pytest.mark.parametrize("kind", ALL)
def test_a_body_in_the_way_is_a_stall(kind: str) -> None:
    async def use(bench: Bench) -> None:
        await bench.stage.move_to(0, 0)
        axis = next(name for name in ("X", "1") if f"{name.lower()}_position_um" in truth(bench.x))
        here = truth(bench.x)[f"{axis.lower()}_position_um"]
        assert isinstance(here, float)
        bench.x.inject("stall", now_s(), axis=axis, position_um=here + 5000)
        with pytest.raises(StallError):
            await bench.stage.move_to(20_000, 0)
        bench.x.clear(now_s())
        await bench.stage.clear_faults()
        await bench.stage.move_to(1000, 0)

    on_a_bench(kind, use)


@pytest.mark.parametrize("kind", ALL)
def test_a_device_that_says_for_ever_that_it_moves_is_a_fault_and_so_is_its_stop(kind: str) -> None:
    async def use(bench: Bench) -> None:
        await bench.stage.move_to(0, 0)
        bench.x.inject("busy_for_ever", now_s())
        begun_s = now_s()
        with pytest.raises(DeviceFault, match="still moving"):
            await bench.stage.move_to(1000, 0)
        with pytest.raises(DeviceFault, match="after it was told to stop"):
            await bench.stage.stop()
        assert now_s() - begun_s < 20
        bench.x.clear(now_s())
        await bench.stage.move_to(2000, 0)

    on_a_bench(kind, use)


@pytest.mark.parametrize("kind", ALL)
def test_without_power_the_move_fails_and_comes_back_after_it_was_opened_and_homed(kind: str) -> None:
    async def use(bench: Bench) -> None:
        task = asyncio.ensure_future(bench.stage.move_to(25_000, 25_000))
        await asyncio.sleep(0.5)
        for device in {id(device): device for device in (bench.x, bench.y)}.values():
            device.inject("power_off", now_s())
        with pytest.raises(LinkError):
            await task
        for device in (bench.x, bench.y):
            device.clear(now_s())
        await asyncio.sleep(3)
        await bench.stage.close()
        await bench.stage.open()
        await bench.stage.home()
        await bench.stage.move_to(2000, 3000)
        assert (await bench.stage.position()).y_um == pytest.approx(3000, abs=0.2)

    on_a_bench(kind, use)


@pytest.mark.parametrize("fault", ["drop", "late", "delay", "duplicate", "truncate", "split", "garbage", "flip"])
@pytest.mark.parametrize("kind", ALL)
def test_on_a_bad_line_a_move_arrives_or_says_that_it_did_not(kind: str, fault: str) -> None:
    dice = random.Random(f"{kind} {fault}")

    async def spoil(bench: Bench) -> None:
        while True:
            await asyncio.sleep(dice.uniform(1.0, 6.0))
            values = {"late": {"by_s": 1.2}, "delay": {"by_s": 0.8}, "garbage": {"byte": 0xFF}, "flip": {"bit": 7}}
            dice.choice(bench.lines).inject(fault, now_s(), **values.get(fault, {}))

    async def use(bench: Bench) -> None:
        arrived = 0
        await bench.stage.move_to(0, 0)
        origin = bench.x.inspect(now_s()), bench.y.inspect(now_s())
        spoiling = asyncio.ensure_future(spoil(bench))
        for _ in range(20):
            x_um, y_um = round(dice.uniform(0, 30_000)), round(dice.uniform(0, 30_000))
            try:
                await bench.stage.move_to(x_um, y_um)
            except DeviceError:
                continue
            arrived += 1
            x_name, y_name = ("1", "2") if kind == "zaber" else ("x", "y")
            went = [
                float(device.inspect(now_s())[f"{name}_position_um"]) - float(before[f"{name}_position_um"])
                for device, name, before in zip((bench.x, bench.y), (x_name, y_name), origin, strict=True)
            ]
            assert [abs(way) for way in went] == pytest.approx([x_um, y_um], abs=2.5)
        spoiling.cancel()
        await asyncio.wait([spoiling])
        assert arrived >= 12

    on_a_bench(kind, use)


@pytest.mark.parametrize("kind", ["zaber", "hiseq"])
def test_a_device_that_starts_anew_by_itself_must_be_homed(kind: str) -> None:
    async def use(bench: Bench) -> None:
        await bench.stage.move_to(1000, 1000)
        for device in {id(device): device for device in (bench.x, bench.y)}.values():
            device.inject("reset", now_s())
        await asyncio.sleep(3)
        with pytest.raises(NotInitialized):
            await bench.stage.move_to(1000, 1000)
        await bench.stage.home()
        await bench.stage.move_to(1000, 1000)

    on_a_bench(kind, use)


@pytest.mark.parametrize("kind", ["ms2000", "tiger", "prior"])
def test_a_joystick_is_told_from_a_stall(kind: str) -> None:
    async def use(bench: Bench) -> None:
        await bench.stage.move_to(0, 0)
        task = asyncio.ensure_future(bench.stage.move_to(1000, 0))
        await asyncio.sleep(0.1)
        bench.x.inject("jump", now_s(), axis="Y", by_um=-300)
        with pytest.raises(PositionError):
            await task
        assert (await bench.stage.position()).y_um == pytest.approx(-300, abs=1)

    on_a_bench(kind, use)


@pytest.mark.parametrize("kind", ALL)
def test_a_cut_line_is_told_and_can_be_opened_again(kind: str) -> None:
    async def use(bench: Bench) -> None:
        task = asyncio.ensure_future(bench.stage.move_to(25_000, 25_000))
        await asyncio.sleep(0.5)
        for host in bench.hosts:
            host.cut()
        with pytest.raises(Disconnected):
            await task
        with pytest.raises(DeviceError):
            await bench.stage.make_safe()
        await bench.focus.close()
        await bench.stage.close()
        await bench.ready()
        assert not moving(bench.x)
        await bench.stage.move_to(1000, 1000)

    on_a_bench(kind, use)


def test_the_drive_faults_of_y_have_their_kinds() -> None:
    async def use(bench: Bench) -> None:
        task = asyncio.ensure_future(bench.stage.move_to(0, 40_000))
        await asyncio.sleep(1)
        bench.y.inject("drive", now_s(), bit=11)
        with pytest.raises(OverTemperature):
            await task

    on_a_bench("hiseq", use)


def test_the_boards_tilt_motors_trigger_and_shutter_work() -> None:
    async def use(bench: Bench) -> None:
        fpga = bench.fpga
        tilts = [TiltMotor(fpga, f"tilt {number}", number=number) for number in (1, 2, 3)]
        await asyncio.gather(*(tilt.open() for tilt in tilts))
        await asyncio.gather(*(tilt.home() for tilt in tilts))
        await asyncio.gather(*(tilt.move_to_um(1000) for tilt in tilts))
        for tilt in tilts:
            assert await tilt.position_um() == pytest.approx(1000, abs=2)
            await tilt.close()
        await bench.stage.move_to(0, 20_000)
        await fpga.set_encoder(2_000_000)
        await fpga.arm_trigger(1280, 2_000_000)
        await bench.stage.move_to(0, 15_000)
        assert await fpga.encoder_steps() == pytest.approx(1_500_000, abs=200)
        assert await fpga.trigger_pulses() == 1280
        await fpga.set_shutter(True)
        await fpga.make_safe()
        assert await bench.stage.position() == XY(0, 15_000)

    on_a_bench("hiseq", use)
