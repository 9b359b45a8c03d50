"""One simulated device of each kind, behind memory, TCP ports or pseudo-terminals: what drivers are measured on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal

from cartoseq.controller.instrument import build_devices, parse_instrument
from cartoseq.controller.simulatedbench import SimulatedInstrument, simulate_instrument
from cartoseq.drivers.capabilities import Device
from cartoseq.drivers.errors import DeviceError
from cartoseq.drivers.links import connector
from cartoseq.drivers.transport import Connect, Link, Receive
from cartoseq.simulators.hosts import PtyHost, TcpHost

Way = Literal["memory", "pty", "tcp"]

INSTRUMENT: Final = """\
name = "One of each kind"
[line]
cavro = { address = "cavro" }
kloehn = { address = "kloehn" }
vici = { address = "vici" }
meerstetter = { address = "meerstetter" }
arm9 = { address = "arm9" }
asi = { address = "asi" }
zaber = { address = "zaber" }
prior = { address = "prior" }
mdrive = { address = "mdrive" }
vix = { address = "vix" }
fpga = { address = "fpga", answer_address = "fpga.answers" }
obis = { address = "obis" }
cobolt = { address = "cobolt" }
smd = { address = "smd" }
[device]
cavro = { driver = "cavro_pump", line = "cavro", barrel_ul = 500 }
kloehn = { driver = "cavro_pump", line = "kloehn", dialect = "kloehn", barrel_ul = 2_000, steps_per_stroke = 48_000 }
vici = { driver = "vici_valve", line = "vici", n_ports = 10 }
meerstetter = { driver = "meerstetter_tec", line = "meerstetter" }
arm9 = { driver = "arm9_temperature", line = "arm9", part = "flow_cell", channel = 0 }
fpga = { driver = "hiseq_fpga", line = "fpga" }
objective = { driver = "hiseq_objective", line = "fpga" }
obis = { driver = "obis_laser", line = "obis", wavelength_nm = 532, max_power_mw = 100, min_power_mw = 1 }
cobolt = { driver = "cobolt_laser", line = "cobolt", wavelength_nm = 638, max_power_mw = 140 }
smd = { driver = "smd_laser", line = "smd", wavelength_nm = 660 }
[device.asi]
driver = "asi_stage"
line = "asi"
limits = { x_um = [0, 100_000], y_um = [0, 75_000] }
[device.zaber]
driver = "zaber_stage"
line = "zaber"
x = { device = 1, axis = 1, limits_um = [0, 100_000], microstep_um = 0.124_023_437_5 }
y = { device = 1, axis = 2, limits_um = [0, 75_000], microstep_um = 0.124_023_437_5 }
[device.prior]
driver = "prior_stage"
line = "prior"
limits = { x_um = [-50_000, 50_000], y_um = [-35_000, 35_000] }
full_speed_mm_per_s = 20
full_acceleration_mm_per_s2 = 100
[device.hiseq]
driver = "hiseq_stage"
x = { line = "mdrive" }
y = { line = "vix", travel_um_per_rev = 10_000 }
[roles]
pump = "cavro"
valve = "vici"
temperature = "meerstetter"
stage = "asi"
[fluidics]
flow_cell_port = "input"
waste_port = "output"
"""


@dataclass(frozen=True)
class Write:
    """Bytes that went out, and when that was: on the clock of the wall, and on that of the thread's own work."""

    at_s: float
    at_cpu_s: float
    data: bytes


class Writes:
    """What drivers wrote, by the lines' names."""

    def __init__(self) -> None:
        self.of_line: dict[str, list[Write]] = {}

    def watching(self, line: str, connect: Connect) -> Connect:
        """The same link, watched."""
        writes = self.of_line.setdefault(line, [])

        async def watched(receive: Receive) -> Link:
            return _WatchedLink(await connect(receive), writes)

        return watched


class _WatchedLink:
    def __init__(self, link: Link, writes: list[Write]) -> None:
        self._link = link
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._link.write(data)
        self._writes.append(Write(time.perf_counter(), time.thread_time(), data))

    async def close(self) -> None:
        await self._link.close()


class Rig:
    """Drivers on hosted lines.

    Attributes:
        simulated: The devices behind them.
        devices: The drivers, by name.
        writes: What they write.
    """

    def __init__(self, simulated: SimulatedInstrument, devices: dict[str, Device], writes: Writes) -> None:
        self.simulated = simulated
        self.devices = devices
        self.writes = writes


async def opened(device: Device, tries: int = 3) -> None:
    """Open a device: again where a busy machine held an answer back for longer than the line may be silent."""
    while True:
        tries -= 1
        try:
            await device.open()
        except DeviceError:
            if tries <= 0:
                raise
        else:
            return


@asynccontextmanager
async def hosted(way: Way) -> AsyncIterator[Rig]:
    """Host every line in this process, and make drivers on them; in memory at the baud rates of the devices."""
    instrument = parse_instrument(INSTRUMENT)
    simulated = simulate_instrument(instrument)
    if way == "memory":
        links: dict[str, Connect] = {name: host.connect for name, host in simulated.hosts.items()}
        yield rig_on(links, simulated)
        return
    async with served(way, simulated) as addresses:
        yield rig_on({name: connector(address) for name, address in addresses.items()}, simulated)


@asynccontextmanager
async def served(way: Way, simulated: SimulatedInstrument, speed: float = 1.0) -> AsyncIterator[dict[str, str]]:
    """Host every line on a port or a terminal, where no byte takes time; gives their addresses by name."""
    hosts: dict[str, TcpHost | PtyHost] = {
        name: TcpHost(line, speed=speed) if way == "tcp" else PtyHost(line, speed=speed)
        for name, line in simulated.lines.items()
    }
    for name, host in hosts.items():
        if f"{name}.answers" in hosts:
            host.siblings.append(hosts[f"{name}.answers"])
        await host.start()
    try:
        yield {
            name: f"tcp://{host.host}:{host.port}" if isinstance(host, TcpHost) else host.path
            for name, host in hosts.items()
        }
    finally:
        for host in hosts.values():
            await host.close()


def rig_on(links: dict[str, Connect], simulated: SimulatedInstrument) -> Rig:
    """Make the drivers on links, by the names of their lines, and watch what they write."""
    writes = Writes()
    # The addresses of this instrument are the names of its lines.
    devices = build_devices(
        parse_instrument(INSTRUMENT), lambda address, *, baud_rate: writes.watching(address, links[address])
    )
    return Rig(simulated, devices, writes)
