"""Laser drivers and simulated lasers, written apart from each other, on one line; a power meter sees the light."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from cartoseq.drivers.cobolt import CoboltLaser
from cartoseq.drivers.errors import DeviceError, DeviceFault, InterlockOpen, OverTemperature, ReplyTimeout, Stopped
from cartoseq.drivers.links import connector
from cartoseq.drivers.obis import ObisLaser
from cartoseq.drivers.pm100 import ThorlabsPowerMeter
from cartoseq.drivers.scpi import LineSession
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.visa import VisaSession
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.devices.cobolt import CoboltSim
from cartoseq.simulators.devices.obis import ObisSim
from cartoseq.simulators.devices.pm100 import Pm100Sim
from cartoseq.simulators.faults import FaultyLine, Rule, with_probability
from cartoseq.simulators.hosts import MemoryHost, TcpHost
from cartoseq.simulators.optics import LaserHead, Optics
from cartoseq.simulators.world import World

Laser = ObisLaser | CoboltLaser
Sim = ObisSim | CoboltSim
Use = Callable[[Laser, Sim, ThorlabsPowerMeter], Coroutine[Any, Any, None]]

KINDS = ["obis", "cobolt", "cobolt, dpss", "cobolt, autostart"]


def simulated(kind: str, world: World) -> Sim:
    if kind == "obis":
        return ObisSim("blue", world, head="blue", handshake=False)
    return CoboltSim(
        "blue", world, head="blue", kind="dpss" if "dpss" in kind else "diode", autostart="autostart" in kind
    )


def driver(kind: str, transport: Transport) -> Laser:
    if kind == "obis":
        return ObisLaser(transport, "blue", wavelength_nm=488.0, max_power_mw=80.0)
    return CoboltLaser(
        transport, "blue", wavelength_nm=488.0, max_power_mw=80.0, kind="dpss" if "dpss" in kind else "diode"
    )


def shine(kind: str, use: Use, rules: Sequence[Rule] = ()) -> None:
    async def main() -> None:
        world = World(optics=Optics([LaserHead("blue", 488.0, 100.0)]))
        sim = simulated(kind, world)
        laser = driver(kind, Transport("blue", MemoryHost(FaultyLine(sim, schedule=rules), baud_rate=115200).connect))
        meter = ThorlabsPowerMeter(
            LineSession(Transport("meter", MemoryHost(Pm100Sim("meter", world), baud_rate=115200).connect)), "meter"
        )
        await laser.open()
        await meter.open()
        await meter.set_wavelength_nm(488.0)
        await laser.set_emission(False)  # one with autostart comes up by itself
        await use(laser, sim, meter)
        await laser.close()
        await meter.close()

    run_virtual(main())


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def light(laser: Laser, sim: Sim, meter: ThorlabsPowerMeter) -> None:
    assert await meter.power_mw() == pytest.approx(0.0, abs=0.01)
    await laser.set_power_mw(50.0)
    await laser.set_emission(True)
    assert sim.inspect(now_s())["emitting"]
    await asyncio.sleep(2.0)
    assert await laser.power_mw() == pytest.approx(50.0, rel=0.02)
    assert await meter.power_mw() == pytest.approx(50.0, rel=0.02)
    assert await laser.is_emitting()
    assert await laser.interlock_ok()
    await laser.set_emission(False)
    assert not sim.inspect(now_s())["emitting"]
    assert await laser.read_faults() == []


@pytest.mark.parametrize("kind", KINDS)
def test_light_comes_and_goes_and_has_the_power_that_was_set(kind: str) -> None:
    shine(kind, light)


#: Without a checksum a flipped bit, or another's reply, may pass for a value: no driver can know.
NOISE = ("drop", "delay", "duplicate", "truncate", "split", "garbage")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_line_is_got_over(kind: str, seed: int) -> None:
    shine(kind, light, [with_probability(0.01, 10 * seed + number, fault) for number, fault in enumerate(NOISE)])


@pytest.mark.parametrize(
    ("kind", "fault", "expected"),
    [
        ("obis", "interlock_open", InterlockOpen),
        ("obis", "base_plate_temperature", OverTemperature),
        ("obis", "diode_temperature", OverTemperature),
        ("obis", "over_current", DeviceFault),
        ("obis", "fails_to_reach_power", DeviceFault),
        ("obis", "over_power", DeviceFault),
        ("cobolt", "interlock_open", InterlockOpen),
        ("cobolt", "key_off", DeviceFault),
        ("cobolt", "over_temperature", OverTemperature),
        ("cobolt", "power_not_reached", DeviceFault),
    ],
)
def test_a_fault_puts_the_light_out_is_told_and_keeps_it_out(
    kind: str, fault: str, expected: type[DeviceFault]
) -> None:
    async def use(laser: Laser, sim: Sim, meter: ThorlabsPowerMeter) -> None:
        await laser.set_power_mw(50.0)
        await laser.set_emission(True)
        sim.inject(fault, now_s())
        await asyncio.sleep(1.0)
        assert not await laser.is_emitting()
        assert await meter.power_mw() == pytest.approx(0.0, abs=0.01)
        if fault != "key_off":  # a key is no fault of the head
            assert [found.severe for found in await laser.read_faults()].count(True) >= 1
        assert await laser.interlock_ok() == (fault != "interlock_open")
        with pytest.raises(expected) as failed:
            await laser.set_emission(True)
        assert isinstance(failed.value, expected)
        assert not sim.inspect(now_s())["emitting"]

    shine(kind, use)


def test_a_power_cycle_is_got_over_by_switching_on_again() -> None:
    async def use(laser: Laser, sim: Sim, meter: ThorlabsPowerMeter) -> None:
        await laser.set_power_mw(50.0)
        await laser.set_emission(True)
        sim.inject("power_cycle", now_s())
        assert not await laser.is_emitting()
        await laser.set_emission(True)
        assert sim.inspect(now_s())["emitting"]

    shine("cobolt", use)


@pytest.mark.parametrize("fault", ["empty_reply", "stray_one"])
def test_the_quirks_of_a_cobolt_are_got_over(fault: str) -> None:
    async def use(laser: Laser, sim: Sim, meter: ThorlabsPowerMeter) -> None:
        await laser.set_power_mw(50.0)
        await laser.set_emission(True)
        await asyncio.sleep(2.0)
        sim.inject(fault, now_s(), replies=1.0)
        assert await laser.power_mw() == pytest.approx(50.0, rel=0.02)
        sim.inject(fault, now_s(), replies=1.0)
        await laser.set_power_mw(40.0)

    shine("cobolt", use)


def test_a_full_error_queue_is_read_and_cleared() -> None:
    async def use(laser: Laser, sim: Sim, meter: ThorlabsPowerMeter) -> None:
        assert isinstance(laser, ObisLaser)
        sim.inject("queue_full", now_s())
        for clear in (laser.read_faults, laser.clear_faults):
            with pytest.raises(DeviceFault, match="unrecognised command"):
                await laser._tell("FOO")
            found = await clear()
            assert found is None or [(fault.code, fault.severe) for fault in found] == [("-350", False)]
            assert await laser.read_faults() == []

    shine("obis", use)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after_s", [0.0, 0.003, 0.009, 0.015, 0.03, 1.0, 4.9])
def test_a_stop_at_any_time_leaves_it_dark(kind: str, after_s: float) -> None:
    async def use(laser: Laser, sim: Sim, meter: ThorlabsPowerMeter) -> None:
        switching = asyncio.ensure_future(laser.set_emission(True))
        await asyncio.sleep(after_s)
        await asyncio.gather(laser.make_safe(), laser.make_safe())
        (result,) = await asyncio.gather(switching, return_exceptions=True)
        assert result is None or isinstance(result, Stopped)
        await asyncio.sleep(60.0)
        assert not sim.inspect(now_s())["emitting"]
        assert await meter.power_mw() == pytest.approx(0.0, abs=0.01)

    shine(kind, use)


def test_a_meter_without_its_head_and_one_that_hangs_are_told() -> None:
    async def main() -> None:
        world = World(optics=Optics([LaserHead("blue", 488.0, 100.0)]))
        sim = Pm100Sim("meter", world)
        meter = ThorlabsPowerMeter(LineSession(Transport("meter", MemoryHost(sim).connect)), "meter")
        await meter.open()
        sim.inject("stray_light", now_s(), power_mw=3.0)
        assert await meter.power_mw() == pytest.approx(3.0, rel=0.4)  # the wavelength is not that of the light
        sim.inject("busy_for_ever", now_s())
        with pytest.raises(ReplyTimeout):
            await meter.power_mw()
        sim.clear(now_s())
        sim.inject("no_sensor", now_s())
        assert "head" in [fault.code for fault in await meter.read_faults()]
        with pytest.raises(DeviceError):
            await meter.power_mw()
        await meter.close()

    run_virtual(main())


@pytest.mark.parametrize("way", ["line", "visa"])
def test_it_is_the_same_over_a_port(way: str) -> None:
    async def main() -> None:
        world = World(optics=Optics([LaserHead("blue", 488.0, 100.0)]))
        hosts = [TcpHost(server) for server in (simulated("obis", world), Pm100Sim("meter", world))]
        for host in hosts:
            await host.start()
        laser = driver("obis", Transport("blue", connector(f"tcp://127.0.0.1:{hosts[0].port}")))
        port = hosts[1].port
        meter = ThorlabsPowerMeter(
            LineSession(Transport("meter", connector(f"tcp://127.0.0.1:{port}")))
            if way == "line"
            else VisaSession("meter", f"TCPIP::127.0.0.1::{port}::SOCKET"),
            "meter",
        )
        await laser.open()
        await meter.open()
        await laser.set_power_mw(20.0)
        await meter.set_wavelength_nm(488.0)
        assert await meter.power_mw() == pytest.approx(0.0, abs=0.01)
        await laser.make_safe()
        await laser.close()
        await meter.close()
        for host in hosts:
            await host.close()

    asyncio.run(main())
