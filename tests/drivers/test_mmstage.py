from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cartoseq.drivers.capabilities import XY, FocusStage, Range, XYLimits, XYStage
from cartoseq.drivers.errors import DeviceFault, LimitError, StallError, Stopped
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.drivers.mmstage import MicroManagerFocus, MicroManagerStage
from cartoseq.simulators.clock import run_virtual
from cartoseq.streaming.errors import InputError

LIMITS = XYLimits(Range(-1000.0, 1000.0), Range(-500.0, 500.0))

Use = Callable[[MicroManagerStage, MicroManagerFocus], Coroutine[Any, Any, None]]


async def with_stages(core: MicroManagerCore, use: Use) -> None:
    stage = MicroManagerStage(core, "stage", limits=LIMITS, speed_um_per_s=100.0)
    focus = MicroManagerFocus(core, "focus", low_um=-50.0, high_um=50.0, speed_um_per_s=10.0)
    assert isinstance(stage, XYStage)
    assert isinstance(focus, FocusStage)
    await stage.open()
    await focus.open()
    try:
        await use(stage, focus)
    finally:
        await focus.close()
        await stage.close()


class Core:
    """Stands for MMCore in virtual time: axes that move at 200 µm/s (XY) and 20 µm/s (Z)."""

    def __init__(self) -> None:
        self.at = {"XY": (0.0, 0.0), "Z": (0.0,)}
        self.goal = dict(self.at)
        self.arrives_s = {"XY": 0.0, "Z": 0.0}
        self.polls = 0
        self.short_um = 0.0
        self.busy_for_ever = False

    def _move(self, label: str, goal: tuple[float, ...], um_per_s: float) -> None:
        distance_um = max(abs(a - b) for a, b in zip(goal, self.at[label], strict=True))
        self.at[label] = tuple(value - self.short_um for value in goal)
        self.arrives_s[label] = now_s() + distance_um / um_per_s

    def setXYPosition(self, label: str, x_um: float, y_um: float) -> None:  # noqa: N802
        self._move(label, (x_um, y_um), 200.0)

    def setPosition(self, label: str, z_um: float) -> None:  # noqa: N802
        self._move(label, (z_um,), 20.0)

    def getXYPosition(self, label: str) -> list[float]:  # noqa: N802
        return list(self.at[label])

    def getPosition(self, label: str) -> float:  # noqa: N802
        return self.at[label][0]

    def home(self, label: str) -> None:
        self._move(label, (0.0, 0.0), 200.0)

    def deviceBusy(self, label: str) -> bool:  # noqa: N802
        self.polls += 1
        return self.busy_for_ever or now_s() < self.arrives_s[label]

    def stop(self, label: str) -> None:
        self.arrives_s[label] = now_s()

    def getLoadedDevicesOfType(self, kind: int) -> tuple[str, ...]:  # noqa: N802
        return {5: ("Z",), 6: ("XY",)}[kind]

    def getDeviceLibrary(self, label: str) -> str:  # noqa: N802
        return "Acme"

    getDeviceName = getDeviceLibrary  # noqa: N815

    def getVersionInfo(self) -> str:  # noqa: N802
        return "MMCore version 12"

    def loadSystemConfiguration(self, path: str) -> None:  # noqa: N802
        pass

    def reset(self) -> None:
        pass

    def setCircularBufferMemoryFootprint(self, size_mb: int) -> None:  # noqa: N802
        pass


@pytest.fixture
def mm(monkeypatch: pytest.MonkeyPatch) -> Core:
    core = Core()
    module = types.ModuleType("pymmcore")
    module.CMMCore = lambda: core  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pymmcore", module)
    return core


def in_virtual_time(use: Use, folder: Path) -> None:
    (folder / "x.cfg").write_text("")
    run_virtual(with_stages(MicroManagerCore("microscope", folder / "x.cfg"), use))


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_a_move_ends_when_it_is_at_rest(mm: Core, tmp_path: Path) -> None:
    async def use(stage: MicroManagerStage, focus: MicroManagerFocus) -> None:
        await stage.move_to(1000.0, -500.0)
        assert now_s() == pytest.approx(5.0, abs=0.05)
        assert await stage.position() == XY(1000.0, -500.0)
        await focus.move_to_um(-40.0)
        assert now_s() == pytest.approx(7.0, abs=0.1)
        assert await focus.position_um() == -40.0
        await stage.home()
        assert await stage.position() == XY(0.0, 0.0)

    in_virtual_time(use, tmp_path)


@pytest.mark.parametrize("target", [(1000.1, 0.0), (0.0, -500.1), (float("nan"), 0.0), (0.0, float("inf"))])
def test_a_target_outside_the_travel_is_refused(mm: Core, tmp_path: Path, target: tuple[float, float]) -> None:
    async def use(stage: MicroManagerStage, focus: MicroManagerFocus) -> None:
        with pytest.raises(LimitError):
            await stage.move_to(*target)
        with pytest.raises(LimitError):
            await focus.move_to_um(sum(target) + 51.0)

    in_virtual_time(use, tmp_path)
    assert (mm.at, mm.polls) == ({"XY": (0.0, 0.0), "Z": (0.0,)}, 0)


def test_coming_to_rest_elsewhere_is_a_stall(mm: Core, tmp_path: Path) -> None:
    async def use(stage: MicroManagerStage, focus: MicroManagerFocus) -> None:
        mm.short_um = 1.5
        with pytest.raises(StallError, match=r"stage: X came to rest at 98.5 um after a move from 0 to 100 um"):
            await stage.move_to(100.0, 0.0)
        with pytest.raises(StallError, match=r"focus: Z came to rest at 8.5 um"):
            await focus.move_to_um(10.0)

    in_virtual_time(use, tmp_path)


def test_a_stage_that_never_rests_is_told_when_its_time_is_over(mm: Core, tmp_path: Path) -> None:
    async def use(stage: MicroManagerStage, focus: MicroManagerFocus) -> None:
        mm.busy_for_ever = True
        with pytest.raises(DeviceFault, match=r"still moving 3.5 s after the start of a move that takes 1 s"):
            await stage.move_to(100.0, 0.0)
        assert now_s() == pytest.approx(3.5, abs=0.1)
        with pytest.raises(DeviceFault, match=r"still moving 2.0. s after it was told to stop"):
            await focus.stop()

    in_virtual_time(use, tmp_path)


@pytest.mark.parametrize("after_s", [0.0, 1.0, 4.0])
def test_a_stop_ends_a_move_at_once(mm: Core, tmp_path: Path, after_s: float) -> None:
    async def use(stage: MicroManagerStage, focus: MicroManagerFocus) -> None:
        moving = asyncio.ensure_future(stage.move_to(1000.0, 0.0))
        await asyncio.sleep(after_s)
        await asyncio.gather(stage.make_safe(), stage.stop(), focus.make_safe())
        with pytest.raises(Stopped):
            await moving
        assert now_s() == pytest.approx(after_s, abs=0.1)

    in_virtual_time(use, tmp_path)


@pytest.mark.parametrize("settings", [{"speed_um_per_s": 0.0}, {"speed_um_per_s": 1.0, "tolerance_um": float("nan")}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        MicroManagerStage(MicroManagerCore("m", "x.cfg"), "stage", limits=LIMITS, **settings)


def test_micro_managers_demonstration_stages_move(tmp_path: Path, demonstration_adapters: str) -> None:
    (tmp_path / "demo.cfg").write_text(
        "Device,XY,DemoCamera,DXYStage\nDevice,Z,DemoCamera,DStage\nProperty,Core,Initialize,1\n"
    )

    async def use(stage: MicroManagerStage, focus: MicroManagerFocus) -> None:
        await stage.move_to(20.0, -10.0)
        assert await stage.position() == XY(pytest.approx(20.0, abs=0.1), pytest.approx(-10.0, abs=0.1))
        await focus.move_to_um(5.0)
        assert await focus.position_um() == pytest.approx(5.0)
        await stage.stop()
        assert await stage.read_faults() == await focus.read_faults() == []

    core = MicroManagerCore("m", tmp_path / "demo.cfg", adapter_folders=[demonstration_adapters])
    asyncio.run(with_stages(core, use))
