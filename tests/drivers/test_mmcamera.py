from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cartoseq.drivers.capabilities import Camera, Frame, Region
from cartoseq.drivers.errors import DeviceFault, LimitError, Stopped
from cartoseq.drivers.mmcamera import MicroManagerCamera, TriggerSetting
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.streaming.errors import InputError

CONFIGURATION = """
Device,Camera,DemoCamera,DCam
Device,Z,DemoCamera,DStage
Property,Camera,MaximumExposureMs,1000
Property,Core,Initialize,1
Property,Camera,PixelType,16bit
Property,Camera,BitDepth,12
"""

Use = Callable[[MicroManagerCamera, MicroManagerCore], Coroutine[Any, Any, None]]


async def take_all(stream: AsyncIterator[Frame]) -> list[Frame]:
    return [frame async for frame in stream]


@pytest.fixture
def photograph(tmp_path: Path, demonstration_adapters: str) -> Callable[..., None]:
    configuration = tmp_path / "demo.cfg"

    def run(use: Use, text: str = CONFIGURATION, **settings: Any) -> None:
        configuration.write_text(text)

        async def main() -> None:
            core = MicroManagerCore("microscope", configuration, adapter_folders=[demonstration_adapters])
            camera = MicroManagerCamera(core, "camera", **settings)
            assert isinstance(camera, Camera)
            await camera.open()
            try:
                await use(camera, core)
            finally:
                await camera.close()

        asyncio.run(main())

    return run


def test_pictures_have_the_sensors_size_and_count_up(photograph: Callable[..., None]) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        assert (camera.width_px, camera.height_px, camera.bit_depth) == (512, 512, 12)
        await camera.configure(2.0)
        before_s = asyncio.get_running_loop().time()
        first = await camera.snap()
        kept = first.pixels.copy()
        second = await camera.snap()
        assert (first.number, second.number) == (0, 1)
        assert (first.pixels.shape, first.pixels.dtype) == ((512, 512), np.dtype(np.uint16))
        assert 0 < first.pixels.max() < 1 << 12
        assert before_s <= first.time_s < second.time_s
        assert first.exposure_ms == 2.0
        assert not np.array_equal(first.pixels, second.pixels)
        assert np.array_equal(first.pixels, kept)  # a picture is not overwritten by the next

    photograph(use)


def test_a_region_has_its_height_before_its_width(photograph: Callable[..., None]) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        await camera.configure(1.0, Region(x=16, y=32, width=100, height=60))
        assert (await camera.snap()).pixels.shape == (60, 100)
        await camera.configure(1.0)
        assert (await camera.snap()).pixels.shape == (512, 512)

    photograph(use)


def test_a_stream_gives_every_picture_in_order(photograph: Callable[..., None]) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        await camera.configure(2.0, Region(0, 0, 64, 32))
        await camera.snap()
        frames = await take_all(camera.stream(7))
        assert [frame.number for frame in frames] == list(range(1, 8))
        assert {frame.pixels.shape for frame in frames} == {(32, 64)}
        assert [frame.time_s for frame in frames] == sorted(frame.time_s for frame in frames)
        assert (await camera.snap()).number == 8

    photograph(use)


def test_a_stop_ends_a_stream(photograph: Callable[..., None]) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        await camera.configure(2.0, Region(0, 0, 64, 32))
        stream = camera.stream(100_000)
        await anext(stream)
        await camera.make_safe()
        await camera.make_safe()
        with pytest.raises(Stopped):
            await take_all(stream)
        assert not await core.call("camera", lambda mm: mm.isSequenceRunning("Camera"))

    photograph(use)


def test_a_picture_that_was_lost_ends_the_stream(
    photograph: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        await camera.configure(1.0, Region(0, 0, 64, 32))
        pop, seen = camera._pop, 0

        def losing(mm: Any) -> Any:
            nonlocal seen
            popped = pop(mm)
            seen += popped is not None
            return None if popped is not None and seen == 3 else popped

        monkeypatch.setattr(camera, "_pop", losing)
        with pytest.raises(DeviceFault, match="expected picture 2 of 9, found 3: one was lost"):
            await take_all(camera.stream(9))

    photograph(use)


def test_a_picture_that_does_not_come_is_told(photograph: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        await camera.configure(30.0, Region(0, 0, 64, 32), trigger="external")
        monkeypatch.setattr(camera, "_patience_s", lambda: 0.001)
        with pytest.raises(DeviceFault, match=r"no picture within 0.001 s.*Check the trigger cable"):
            await camera.snap()
        with pytest.raises(DeviceFault, match="no picture within"):
            await take_all(camera.stream(3))
        assert not await core.call("camera", lambda mm: mm.isSequenceRunning("Camera"))

    photograph(use, trigger=TriggerSetting("FastImage", software="0", external="1"))


def test_a_stream_that_ends_too_early_is_told(photograph: Callable[..., None]) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        await camera.configure(1.0, Region(0, 0, 64, 32))
        stream = camera.stream(100_000)
        await anext(stream)
        await core.call("camera", lambda mm: mm.stopSequenceAcquisition("Camera"))
        with pytest.raises(DeviceFault, match="ended the stream before its last picture"):
            await take_all(stream)

    photograph(use)


def test_a_buffer_that_runs_over_is_told(photograph: Callable[..., None]) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        await camera.configure(1.0)
        await core.call("camera", lambda mm: mm.setCircularBufferMemoryFootprint(2))
        stream = camera.stream(100_000)
        await anext(stream)
        while not await core.call("camera", lambda mm: mm.isBufferOverflowed()):
            await asyncio.sleep(0.001)
        with pytest.raises(DeviceFault, match="the buffer ran over"):
            await anext(stream)

    photograph(use)


@pytest.mark.parametrize(
    ("exposure_ms", "region"),
    [(0.0, None), (float("nan"), None), (float("inf"), None), (1000.1, None)]
    + [
        (1.0, region)
        for region in (Region(-1, 0, 8, 8), Region(0, 505, 8, 8), Region(0, 0, 0, 8), Region(0, 0, 8, 513))
    ],
)
def test_what_cannot_be_is_refused(photograph: Callable[..., None], exposure_ms: float, region: Region | None) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        before = await core.call("camera", lambda mm: (mm.getExposure("Camera"), list(mm.getROI("Camera"))))
        with pytest.raises(LimitError):
            await camera.configure(exposure_ms, region)
        assert await core.call("camera", lambda mm: (mm.getExposure("Camera"), list(mm.getROI("Camera")))) == before
        with pytest.raises(LimitError):
            await anext(camera.stream(0))

    photograph(use)


def test_a_trigger_is_set_by_the_property_that_is_named(photograph: Callable[..., None]) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        for trigger, value in (("external", "1"), ("software", "0")):
            await camera.configure(1.0, trigger=trigger)  # type: ignore[arg-type]
            assert await core.call("camera", lambda mm: mm.getProperty("Camera", "FastImage")) == value

    # The demonstration camera has no trigger; any property with two values shows which one is written.
    photograph(use, trigger=TriggerSetting("FastImage", software="0", external="1"))


def test_a_camera_without_a_trigger_says_so(photograph: Callable[..., None]) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        with pytest.raises(InputError, match="no external trigger"):
            await camera.configure(1.0, trigger="external")

    photograph(use)


def test_faults_are_what_micro_manager_raises(photograph: Callable[..., None]) -> None:
    async def use(camera: MicroManagerCamera, core: MicroManagerCore) -> None:
        assert await camera.read_faults() == []
        await camera.clear_faults()
        await core.call("camera", lambda mm: mm.unloadDevice("Camera"))
        assert [fault.code for fault in await camera.read_faults()] == ["Micro-Manager"]
        with pytest.raises(DeviceFault):
            await camera.snap()

    photograph(use)


@pytest.mark.parametrize(
    ("settings", "text", "problem"),
    [
        ({"label": "Kamera"}, CONFIGURATION, "expected one of Camera, found 'Kamera'"),
        ({"label": "Z"}, CONFIGURATION, "expected one of Camera, found 'Z'"),
        ({}, CONFIGURATION.replace("16bit", "32bitRGB").replace("Property,Camera,BitDepth,12", ""), "expected grey"),
    ],
)
def test_what_is_no_grey_camera_is_refused(
    photograph: Callable[..., None], settings: dict[str, Any], text: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        photograph(lambda camera, core: camera.make_safe(), text, **settings)
