"""The pulse generator's driver and the simulated generator, written apart from each other, on one line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cartoseq.drivers.errors import DeviceError, NotInitialized, ReplyTimeout, Stopped
from cartoseq.drivers.pulsegenerator import PulseGenerator
from cartoseq.drivers.scpi import LineSession
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.devices.pulsegenerator import PulseGeneratorSim
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.world import World


def pulse(use: Callable[[PulseGenerator, PulseGeneratorSim], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        sim = PulseGeneratorSim("trigger", World())
        source = PulseGenerator(LineSession(Transport("trigger", MemoryHost(sim, baud_rate=115200).connect)), "trigger")
        await source.open()
        await use(source, sim)
        await source.close()

    run_virtual(main())


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_every_pulse_of_a_burst_has_come_when_fire_returns() -> None:
    async def use(source: PulseGenerator, sim: PulseGeneratorSim) -> None:
        for period_ms, width_ms, count in ((20.0, 1.0, 100), (0.5, 0.4, 10), (100.0, 90.0, 7)):
            before = sim.inspect(now_s())["pulses"]
            await source.configure(period_ms, width_ms, count)
            await source.arm()
            begin_s = now_s()
            await source.fire()
            assert now_s() - begin_s == pytest.approx(count * period_ms / 1e3, abs=0.05)
            inspected = sim.inspect(now_s())
            assert inspected["pulses"] == before + count  # type: ignore[operator]
            assert inspected["width_ms"] == pytest.approx(width_ms)

    pulse(use)


def test_a_stop_ends_a_burst() -> None:
    async def use(source: PulseGenerator, sim: PulseGeneratorSim) -> None:
        await source.configure(20.0, 1.0, 1000)
        await source.arm()
        firing = asyncio.ensure_future(source.fire())
        await asyncio.sleep(2.0)
        await source.make_safe()
        with pytest.raises(Stopped):
            await firing
        pulses = sim.inspect(now_s())["pulses"]
        assert 95 <= pulses <= 105  # type: ignore[operator]
        await asyncio.sleep(5.0)
        inspected = sim.inspect(now_s())
        assert (inspected["pulses"], inspected["output"]) == (pulses, False)
        with pytest.raises(NotInitialized):
            await source.fire()

    pulse(use)


def test_a_burst_that_never_ends_and_a_power_cycle_are_told() -> None:
    async def use(source: PulseGenerator, sim: PulseGeneratorSim) -> None:
        await source.configure(20.0, 1.0, 10)
        await source.arm()
        sim.inject("busy_for_ever", now_s())
        with pytest.raises(ReplyTimeout):
            await source.fire()
        sim.clear(now_s())
        await source.arm()
        sim.inject("power_cycle", now_s())
        before = sim.inspect(now_s())["pulses"]
        with pytest.raises(DeviceError):
            await source.fire()
        assert sim.inspect(now_s())["pulses"] == before

    pulse(use)
