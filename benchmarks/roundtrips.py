"""Benchmark: exchanges with a device per second, by protocol, beside a bare echo; and how many an operation takes.

Run ``python -m benchmarks.roundtrips [--json FILE]``. The simulated devices are in another process, which answers at
once (their own delays are sped up) and where no byte takes the time of a baud rate. Beside each protocol, in the same
run, 16 bytes go to and fro over the same kind of port with nothing but blocking reads and writes at both ends: that is
the machine's limit. Two devices are slow by what they bear, and their drivers keep to it: a HiSeq's laser (smd) takes
nine commands per second, and its stage is asked for a number only after a silence of 0.1 s.

The second table is in virtual time, at the devices' own speeds and baud rates.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pty
import socket
import statistics
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast

from benchmarks.lines import INSTRUMENT, Rig, Way, hosted, opened, rig_on, served
from cartoseq.controller.instrument import parse_instrument
from cartoseq.controller.simulatedbench import simulate_instrument
from cartoseq.drivers.links import connector
from cartoseq.simulators.clock import run_virtual

SECONDS = 0.15
ROUNDS = 3
SPEED = 1000.0
ECHO_BYTES = 16
#: A question that takes one exchange on each of the device's lines.
QUESTIONS: Final = {
    "cavro": "plunger_ul",
    "vici": "port",
    "meerstetter": "temperature_c",
    "arm9": "temperature_c",
    "asi": "position",
    "zaber": "position",
    "prior": "position",
    "hiseq": "position",
    "objective": "position_um",
    "obis": "power_mw",
    "cobolt": "power_mw",
    "smd": "power_mw",
}


# ------------------------------------------------------------------------------------------------- the other process


def serve(way: Way) -> None:
    """Serve all devices and the echo until standard input ends; say on standard output where."""

    async def main() -> None:
        echo = echo_on_terminal() if way == "pty" else echo_on_port()
        async with served(way, simulate_instrument(parse_instrument(INSTRUMENT)), SPEED) as addresses:
            print(json.dumps(addresses | {"echo": echo}), flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())


def echo_on_port() -> str:
    """Give back what comes to a TCP port, one client after the other."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client:
                while data := client.recv(4096):
                    client.sendall(data)

    threading.Thread(target=run, daemon=True).start()
    return f"{listener.getsockname()[1]}"


def echo_on_terminal() -> str:
    """Give back what comes to a pseudo-terminal."""
    near, far = pty.openpty()
    tty.setraw(near)
    tty.setraw(far)

    def run() -> None:
        while data := os.read(near, 4096):
            os.write(near, data)

    threading.Thread(target=run, daemon=True).start()
    return os.ttyname(far)


# -------------------------------------------------------------------------------------------------------- this process


def echoes_per_s(way: Way, address: str) -> float:
    """How often the bytes go to and fro in a second."""
    data, count = bytes(ECHO_BYTES), 0
    with contextlib.ExitStack() as stack:
        if way == "tcp":
            line = stack.enter_context(socket.create_connection(("127.0.0.1", int(address))))
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            file = line.fileno()
        else:
            file = os.open(address, os.O_RDWR | os.O_NOCTTY)
            stack.callback(os.close, file)
        begin_s = time.perf_counter()
        while (now_s := time.perf_counter()) < begin_s + SECONDS:
            os.write(file, data)
            left = ECHO_BYTES
            while left:
                left -= len(os.read(file, left))
            count += 1
    return count / (now_s - begin_s)


async def questions_per_s(rig: Rig, name: str) -> tuple[float, float]:
    """Exchanges per second, and the CPU time of this process for one."""
    ask = cast(Callable[[], Awaitable[Any]], getattr(rig.devices[name], QUESTIONS[name]))
    before = written(rig)
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    while (now_s := time.perf_counter()) < begin_s + SECONDS:
        await ask()
    exchanges = written(rig) - before
    return exchanges / (now_s - begin_s), (time.process_time() - begin_cpu_s) / exchanges


def written(rig: Rig) -> int:
    """How many commands the drivers have sent so far."""
    return sum(map(len, rig.writes.of_line.values()))


def rates(way: Way) -> dict[str, dict[str, float]]:
    """Of every protocol: exchanges per second, the echo's beside it, their ratio, CPU time of an exchange."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.roundtrips", "--serve", way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        addresses: dict[str, str] = json.loads(server.stdout.readline())
        echo = addresses.pop("echo")
        simulated = simulate_instrument(parse_instrument(INSTRUMENT))

        async def main() -> dict[str, dict[str, float]]:
            found = {}
            rig = rig_on({name: connector(address) for name, address in addresses.items()}, simulated)
            for name in QUESTIONS:
                await opened(rig.devices[name])
                await questions_per_s(rig, name)
                rounds = [(*await questions_per_s(rig, name), echoes_per_s(way, echo)) for _ in range(ROUNDS)]
                found[name] = {
                    "exchanges_per_s": statistics.median(rate for rate, _, _ in rounds),
                    "echoes_per_s": statistics.median(echoed for _, _, echoed in rounds),
                    "of_echo": statistics.median(rate / echoed for rate, _, echoed in rounds),
                    "cpu_us_per_exchange": 1e6 * statistics.median(cpu_s for _, cpu_s, _ in rounds),
                }
                await rig.devices[name].close()
            return found

        try:
            return asyncio.run(main())
        finally:
            server.stdin.close()


async def operations() -> dict[str, tuple[int, float]]:
    """What some operations take: commands sent, and seconds."""
    found = {}
    async with hosted("memory") as rig:
        devices: dict[str, Any] = rig.devices
        pump, valve, tec, stage = devices["cavro"], devices["vici"], devices["meerstetter"], devices["asi"]
        for device in (pump, valve, tec, stage, devices["zaber"], devices["obis"], devices["cobolt"]):
            await device.open()
        await pump.initialize()
        await devices["zaber"].home()

        async def take(what: str, *doing: Awaitable[Any]) -> None:
            before, begin_s = written(rig), asyncio.get_running_loop().time()
            for one in doing:
                await one
            found[what] = (written(rig) - before, asyncio.get_running_loop().time() - begin_s)

        await take("draw 200 ul at 25 ul/s (cavro)", pump.aspirate(200, "input", 25))
        await take("push 200 ul at 80 ul/s (cavro)", pump.dispense(200, "output", 80))
        await take("turn to the next port (vici)", valve.select(2))
        await take("turn by five ports (vici)", valve.select(7))
        await take("set 60 C (meerstetter)", tec.set_target_c(60))
        await take("wait for it, 10 s within 0.5 K (meerstetter)", tec.wait_stable(0.5, 10, 120))
        for name in ("obis", "cobolt"):
            laser = devices[name]
            await take(
                f"20 mW, on, off ({name})", laser.set_power_mw(20), laser.set_emission(True), laser.set_emission(False)
            )
        for name in ("asi", "zaber"):
            await take(f"move by 600 um ({name})", devices[name].move_to(600, 0))
        for device in (pump, valve, tec, stage, devices["zaber"], devices["obis"], devices["cobolt"]):
            await device.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", choices=("tcp", "pty"))
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    results: dict[str, object] = {}
    columns = ("exchanges/s", "echoes/s", "of echo", "CPU us each")
    print(f"{'':20s}" + "".join(f"{column:>14s}" for column in columns))
    ways: tuple[Way, ...] = ("tcp", "pty")
    for way in ways:
        for name, row in rates(way).items():
            results[f"{way}.{name}"] = row
            rate, echo, ratio, cpu_us = row.values()
            print(f"{way + ' ' + name:20s}{rate:14,.0f}{echo:14,.0f}{ratio:14.3f}{cpu_us:14.0f}")
    print(f"\n{'':48s}{'commands':>10s}{'seconds':>10s}")
    for what, (commands, took_s) in run_virtual(operations()).items():
        results[what] = {"commands": commands, "seconds": took_s}
        print(f"{what:48s}{commands:10d}{took_s:10.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
