"""The Meerstetter driver and the simulated controller, written apart from each other, on one line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from cartoseq.drivers.errors import Busy, ChecksumError, DeviceFault, LinkError, OverTemperature, ReplyTimeout, Stopped
from cartoseq.drivers.links import connector
from cartoseq.drivers.meerstetter import MeerstetterTec
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.devices.meerstetter import MeerstetterSim
from cartoseq.simulators.faults import FaultyLine, Rule, with_probability
from cartoseq.simulators.hosts import MemoryHost, PtyHost, TcpHost
from cartoseq.simulators.thermal import Plate
from cartoseq.simulators.world import World

Use = Callable[[MeerstetterTec, MeerstetterSim], Coroutine[Any, Any, None]]


def simulated() -> MeerstetterSim:
    return MeerstetterSim("plate", World(plates={"plate": Plate()}), plates=["plate"], address=2)


def control(use: Use, rules: Sequence[Rule] = ()) -> None:
    async def main() -> None:
        sim = simulated()
        host = MemoryHost(FaultyLine(sim, schedule=rules), baud_rate=57600)
        tec = MeerstetterTec(Transport("plate", host.connect), "plate", high_c=80.0)
        await tec.open()
        await use(tec, sim)
        await tec.close()

    run_virtual(main())


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def heat(tec: MeerstetterTec, sim: MeerstetterSim) -> None:
    await tec.set_target_c(55.0)
    await tec.wait_stable(0.5, 10.0, 300.0)
    assert sim.inspect(now_s())["channel_1.plate_c"] == pytest.approx(55.0, abs=0.6)
    assert await tec.temperature_c() == pytest.approx(55.0, abs=0.6)
    assert await tec.read_faults() == []
    await tec.disable()
    inspected = sim.inspect(now_s())
    assert not inspected["channel_1.regulated"]
    assert inspected["channel_1.current_a"] == 0.0
    assert inspected["flash_writes"] == 0


def test_a_plate_is_heated_and_held() -> None:
    control(heat)


NOISE = ("drop", "delay", "duplicate", "truncate", "flip", "split", "garbage", "swap")


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_line_is_got_over(seed: int) -> None:
    control(heat, [with_probability(0.01, 10 * seed + number, fault) for number, fault in enumerate(NOISE)])


def test_what_the_device_says_of_itself_comes_through() -> None:
    async def use(tec: MeerstetterTec, sim: MeerstetterSim) -> None:
        await tec.set_target_c(40.0)
        assert not await tec.is_stable()
        assert await tec.target_c() == 40.0
        await tec.wait_stable(0.1, 30.0, 300.0)
        assert await tec.is_stable()

    control(use)


@pytest.mark.parametrize(
    ("fault", "values", "kind"),
    [
        ("sensor_open", {}, DeviceFault),
        ("over_temperature", {"degrees": 70.0}, OverTemperature),
        ("power_cycle", {}, DeviceFault),
        ("weak", {"share": 0.02}, DeviceFault),
        ("busy", {}, Busy),
    ],
)
def test_faults_end_the_wait_and_clearing_them_brings_the_target_back(
    fault: str, values: dict[str, float], kind: type[Exception]
) -> None:
    async def use(tec: MeerstetterTec, sim: MeerstetterSim) -> None:
        await tec.set_target_c(60.0)
        await asyncio.sleep(1.0)
        sim.inject(fault, now_s(), **values)
        with pytest.raises(kind) as failed:
            await tec.wait_stable(0.5, 10.0, 300.0)
        assert type(failed.value) is kind
        sim.clear(now_s())
        await asyncio.sleep(300.0)  # what is too hot cools
        await tec.clear_faults()
        await tec.wait_stable(0.5, 10.0, 300.0)

    control(use)


@pytest.mark.parametrize("fault", ["wrong_checksum", "wrong_sequence", "twice"])
def test_bad_answers_are_asked_for_again(fault: str) -> None:
    async def use(tec: MeerstetterTec, sim: MeerstetterSim) -> None:
        sim.inject(fault, now_s(), answers=2.0)
        assert await tec.temperature_c() == pytest.approx(22.0, abs=0.5)
        await tec.set_target_c(40.0)
        sim.inject(fault, now_s(), answers=2.0)
        await tec.set_target_c(41.0)
        assert await tec.target_c() == 41.0

    control(use)


@pytest.mark.parametrize(("fault", "kind"), [("wrong_checksum", ChecksumError), ("wrong_sequence", ReplyTimeout)])
def test_answers_that_stay_bad_are_errors_of_the_line(fault: str, kind: type[LinkError]) -> None:
    async def use(tec: MeerstetterTec, sim: MeerstetterSim) -> None:
        sim.inject(fault, now_s(), answers=99.0)
        with pytest.raises(kind):
            await tec.temperature_c()

    control(use)


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.007, 0.012, 0.02, 0.03, 5.0])
def test_a_stop_at_any_time_leaves_the_output_off(after_s: float) -> None:
    async def use(tec: MeerstetterTec, sim: MeerstetterSim) -> None:
        async def regulate() -> None:
            await tec.set_target_c(55.0)
            await tec.wait_stable(0.5, 10.0, 300.0)

        regulating = asyncio.ensure_future(regulate())
        await asyncio.sleep(after_s)
        await tec.make_safe()
        with pytest.raises(Stopped):
            await regulating
        assert not sim.inspect(now_s())["channel_1.regulated"]

    control(use)


@pytest.mark.parametrize("host_kind", [TcpHost, PtyHost])
def test_it_is_the_same_over_a_port(host_kind: type[TcpHost] | type[PtyHost]) -> None:
    async def main() -> None:
        host = host_kind(simulated())
        await host.start()
        address = f"tcp://127.0.0.1:{host.port}" if isinstance(host, TcpHost) else host.path
        tec = MeerstetterTec(Transport("plate", connector(address, baud_rate=57600)), "plate")
        await tec.open()
        await tec.set_target_c(30.0)
        assert await tec.target_c() == 30.0
        await tec.make_safe()
        await tec.close()
        await host.close()

    asyncio.run(main())
