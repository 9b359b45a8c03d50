"""Benchmark: how fast a whole sequencing run goes by in virtual time, drivers and simulated devices byte by byte.

Run ``python -m benchmarks.virtualtime [--json FILE]``. The chemistry of `recipes/stereo-seq-pe100.toml`, 160 cycles, on
`instruments/bench.toml`, three times with the same seed: the journals must be the same. CPU time, with
the journal on a disk in memory where there is one. Pictures cost what their pixels cost, so they are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from cartoseq.controller.engine import EndReason, Engine
from cartoseq.controller.instrument import facts_of, load_instrument
from cartoseq.controller.plan import compile_recipe
from cartoseq.controller.recipe import parse_recipe
from cartoseq.controller.runjournal import RunJournal
from cartoseq.controller.simulatedbench import simulate_instrument
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.wire import ByteServer

PROJECT = Path(__file__).parents[1]
#: Ten hours in a minute, and in ten seconds.
FLOOR, GOAL = 600.0, 3600.0
ROUNDS = 3
MEMORY_DISK = Path("/dev/shm")


def chemistry() -> str:
    """The recipe without its pictures."""
    text = (PROJECT / "recipes" / "stereo-seq-pe100.toml").read_text(encoding="utf-8")
    parts = text.split("[[")
    return "[[".join(part for part in parts if 'do = "image_tiles"' not in part and 'do = "autofocus"' not in part)


class Counted:
    """A byte server whose commands are counted."""

    def __init__(self, server: ByteServer) -> None:
        self.commands = 0
        self.due_s, self.messages = server.due_s, server.messages
        self._receive = server.receive

    def receive(self, data: bytes, now_s: float) -> None:
        """Pass bytes on; drivers write a command at a time."""
        self.commands += 1
        self._receive(data, now_s)


def run(journal: Path) -> tuple[float, int]:
    """Do the run; its length in virtual seconds, and how many commands drivers sent."""
    instrument = load_instrument(PROJECT / "instruments" / "bench.toml")
    text = chemistry()
    recipe = parse_recipe(text)
    plan = compile_recipe(recipe, facts_of(instrument, 1 << 50), text)

    async def main() -> tuple[float, int]:
        simulated = simulate_instrument(instrument, recipe, seed=1)
        counted = [Counted(host.server) for host in simulated.hosts.values()]
        for host, server in zip(simulated.hosts.values(), counted, strict=True):
            host.server = server
        bench = simulated.bench()
        await bench.open()
        clock = asyncio.get_running_loop()
        engine = Engine(plan, bench, RunJournal(journal, clock.time))
        if await engine.run() is not EndReason.COMPLETED:
            raise RuntimeError(engine.message)
        await bench.close()
        return clock.time(), sum(server.commands for server in counted)

    return run_virtual(main())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rates, journals, length_s, commands = [], [], 0.0, 0
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as folder:
        for number in range(ROUNDS):
            journal = Path(folder) / f"{number}.jsonl"
            start_s = time.process_time()
            length_s, commands = run(journal)
            rates.append(length_s / (time.process_time() - start_s))
            journals.append(journal.read_bytes())
    rate = statistics.median(rates)
    results = {
        "virtual_hours": length_s / 3600,
        "commands": commands,
        "virtual_seconds_per_cpu_second": rate,
        "cpu_seconds": length_s / rate,
        "cpu_microseconds_per_command": 1e6 * length_s / rate / commands,
        "journal_events": journals[0].count(b"\n"),
        "journals_that_differ": len(set(journals)) - 1,
        "floor": FLOOR,
        "goal": GOAL,
    }
    for name, value in results.items():
        print(f"{name:32s}{value:14,.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
