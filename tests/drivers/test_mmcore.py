from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from cartoseq.drivers.errors import DeviceFault, Disconnected
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.simulators.clock import run_virtual
from cartoseq.streaming.errors import InputError


def test_without_pymmcore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymmcore", None)
    with pytest.raises(InputError, match=r"not installed. Install the extra: cartoseq\[mm\]"):
        run_virtual(MicroManagerCore("microscope", "x.cfg").open())


def test_a_core_that_is_not_open_says_so() -> None:
    with pytest.raises(Disconnected, match="camera: is not open"):
        run_virtual(MicroManagerCore("microscope", "x.cfg").call("camera", lambda core: None))


def test_configurations_that_cannot_be_loaded_are_one_message(tmp_path: Path, demonstration_adapters: str) -> None:
    broken = tmp_path / "broken.cfg"
    broken.write_text("Device,Camera,NoSuchAdapter,DCam\n")

    async def main() -> None:
        with pytest.raises(InputError, match="no such Micro-Manager configuration"):
            await MicroManagerCore("microscope", tmp_path / "absent.cfg").open()
        with pytest.raises(Disconnected, match="NoSuchAdapter"):
            await MicroManagerCore("microscope", broken, adapter_folders=[demonstration_adapters]).open()

    asyncio.run(main())


def test_a_core_is_shared_and_the_last_one_lets_go(tmp_path: Path, demonstration_adapters: str) -> None:
    configuration = tmp_path / "demo.cfg"
    configuration.write_text("Device,Z,DemoCamera,DStage\nProperty,Core,Initialize,1\n")

    async def main() -> None:
        core = MicroManagerCore("microscope", configuration, adapter_folders=[demonstration_adapters])
        await asyncio.gather(core.open(), core.open())
        await core.close()
        assert await core.call("z", lambda mm: mm.getPosition("Z")) == 0.0
        with pytest.raises(DeviceFault, match="out of range"):
            await core.call("z", lambda mm: mm.setPosition("Z", 1e6))
        await core.close()
        with pytest.raises(Disconnected):
            await core.call("z", lambda mm: mm.getPosition("Z"))
        await core.close()

    asyncio.run(main())
