"""Benchmark: how long a stop takes to reach the wire while another reply is awaited, for every driver that has one.

Run ``python -m benchmarks.stop [--trials 200] [--ways memory,pty,tcp] [--json FILE]``. In each trial a query is on its
way whose reply is lost; then `make_safe` is called, and the time until the device's stop command was written to the
link is taken. In memory the devices are stopped one after the other, in virtual time: what is left is the program's own
time. On pseudo-terminals and sockets all devices are at it at once, drivers and simulators on one event loop, which is
more than a controller has to do; devices that need long between two stops get fewer trials. Where others use the
machine, the worst times are those of its scheduler: the last column counts only what this thread computed until then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.lines import Rig, Way, hosted, opened
from cartoseq.simulators.clock import run_virtual

BAR_MS = 5.0
TRIALS = 200
#: What stops a device, by its lines.
STOPS: Final[dict[str, dict[str, bytes]]] = {
    "cavro": {"cavro": b"/1T\r"},
    "kloehn": {"kloehn": b"/1T\r"},
    "asi": {"asi": b"\\\r"},
    "zaber": {"zaber": b"stop"},
    "prior": {"prior": b"I\r"},
    "hiseq": {"mdrive": b"\x1b", "vix": b"1S\r"},
    "fpga": {"fpga": b"SWLSRSHUT 0\n"},
    "obis": {"obis": b"SOUR:AM:STAT OFF"},
    "cobolt": {"cobolt": b"l0\r"},
    "smd": {"smd": b"OFF"},
    "meerstetter": {"meerstetter": b"VS07DA0100000000"},
    "arm9": {"arm9": b"FCTEC:0:0\r"},
}
#: What is asked of whom meanwhile, where it is not the device's faults: these two are asked for none.
QUERIES: Final = {"fpga": ("objective", "position_um"), "smd": ("smd", "power_mw")}
_LOOK_S = 0.0005
_LONGEST_S = 20.0


@dataclass(frozen=True)
class Took:
    """How long one stop took, by the clock on the wall and by the processor."""

    wall_s: float
    cpu_s: float


async def stop_s(rig: Rig, name: str) -> Took:
    """From the call of `make_safe` until the stop was written, to the last of the device's lines."""
    device, stops = rig.devices[name], STOPS[name]
    written = {line: rig.writes.of_line[line] for line in stops}
    before = {line: len(writes) for line, writes in written.items()}
    for line in stops:
        answers = rig.simulated.lines.get(f"{line}.answers", rig.simulated.lines[line])
        answers.inject("drop", asyncio.get_running_loop().time())
    asked, query = QUERIES.get(name, (name, "read_faults"))
    asking = asyncio.create_task(getattr(rig.devices[asked], query)())
    while all(len(writes) == before[line] for line, writes in written.items()):
        if asking.done():
            raise RuntimeError(f"{name} asks nothing")
        await asyncio.sleep(_LOOK_S)
    before = {line: len(writes) for line, writes in written.items()}
    if asking.done():
        raise RuntimeError(f"{name} has its answer already")
    begin_s, begin_cpu_s = time.perf_counter(), time.thread_time()
    await device.make_safe()
    asking.cancel()
    await asyncio.wait([asking])
    for line in stops:
        rig.simulated.lines[line].clear(asyncio.get_running_loop().time())
    sent = [
        next(write for write in writes[before[line] :] if stops[line] in write.data) for line, writes in written.items()
    ]
    return Took(max(write.at_s for write in sent) - begin_s, max(write.at_cpu_s for write in sent) - begin_cpu_s)


async def stops_s(way: Way, trials: int) -> dict[str, list[Took]]:
    """The times of every device; the first trial is not among them."""
    taken: dict[str, list[Took]] = {}

    async def stop_often(rig: Rig, name: str) -> None:
        devices = [rig.devices[one] for one in {name, QUERIES.get(name, (name, ""))[0]}]
        for device in devices:
            await opened(device)
        await stop_s(rig, name)
        times = taken[name] = []
        end_s = time.monotonic() + _LONGEST_S
        while len(times) < trials and time.monotonic() < end_s:
            times.append(await stop_s(rig, name))
        for device in devices:
            await device.close()

    async with hosted(way) as rig:
        if way == "memory":
            for name in STOPS:
                await stop_often(rig, name)
        else:
            await asyncio.gather(*(stop_often(rig, name) for name in STOPS))
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--ways", default="memory,pty")
    options = parser.parse_args()
    results: dict[str, object] = {"bar_ms": BAR_MS, "trials": options.trials}
    columns = ("trials", "median ms", "worst ms", f"over {BAR_MS:g} ms", "worst CPU ms")
    print(f"{'':24s}" + "".join(f"{column:>14s}" for column in columns))
    for way in options.ways.split(","):
        measuring = stops_s(way, options.trials)
        taken = run_virtual(measuring) if way == "memory" else asyncio.run(measuring)
        for name in STOPS:
            walls_ms = [1000 * took.wall_s for took in taken[name]]
            row = {
                "trials": len(walls_ms),
                "median_ms": statistics.median(walls_ms),
                "worst_ms": max(walls_ms),
                "over_bar": sum(wall_ms > BAR_MS for wall_ms in walls_ms),
                "worst_cpu_ms": max(1000 * took.cpu_s for took in taken[name]),
            }
            results[f"{way}.{name}"] = row
            cells = (f"{value:14d}" if isinstance(value, int) else f"{value:14.3f}" for value in row.values())
            print(f"{way + ' ' + name:24s}" + "".join(cells))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
