"""The two processes of `test_kill`, as a script: a rack of simulators, and a controller that runs a recipe on it.

::

    killed.py rack RACK_FILE                    prints the control port, and serves until it is killed
    killed.py run ADDRESSES JOURNAL SPEED       prints "begun" and runs, or goes on with, the recipe

Both count the same time, `SPEED` times faster than the wall's, so that the controller waits as it would at the bench.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from cartoseq.controller.bench import Bench
from cartoseq.controller.engine import Engine
from cartoseq.controller.plan import Facts, compile_recipe
from cartoseq.controller.recipe import parse_recipe
from cartoseq.controller.runjournal import RunJournal
from cartoseq.drivers.capabilities import Range
from cartoseq.drivers.cavro import CavroPump
from cartoseq.drivers.cobolt import CoboltLaser
from cartoseq.drivers.links import connector
from cartoseq.drivers.meerstetter import MeerstetterTec
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.vici import ViciValve
from cartoseq.simulators.rack import build

RECIPE = """\
name = "flows"
[reagents]
mix = { port = 2, loaded_ul = 1000, role = "incorporation" }
wash = { port = 4, loaded_ul = 1000, role = "wash" }
[[step]]
do = "laser"
device = "red"
on = true
power_mw = 20
[[step]]
do = "set_temperature"
temperature_c = 30
[[step]]
do = "flow"
reagent = "wash"
volume_ul = 80
flow_ul_per_s = 40
[[step]]
do = "wait_stable"
[[step]]
do = "flow"
reagent = "mix"
volume_ul = 100
flow_ul_per_s = 20
[[step]]
do = "incubate"
duration_s = 5
[[step]]
do = "wash"
reagent = "wash"
volume_ul = 100
flow_ul_per_s = 20
times = 4
""".replace("[[step]]\n", '[[step]]\non_fault = "pause"\ntries = 5\n')
FACTS = Facts(
    barrel_ul=500,
    flow_ul_per_s=Range(1, 150),
    ports=10,
    temperature_c=Range(4, 80),
    lights_mw={"red": Range(1, 100)},
)


class _FasterSelector:
    def __init__(self, speed: float) -> None:
        self._inner = selectors.DefaultSelector()
        self._speed = speed

    def select(self, timeout: float | None = None) -> Any:
        return self._inner.select(None if timeout is None else timeout / self._speed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class FasterLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds are shorter than the wall's."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        super().__init__(_FasterSelector(speed))  # type: ignore[arg-type]

    def time(self) -> float:
        """Its seconds, of the machine's monotonic clock: the same for every process."""
        return time.monotonic() * self._speed


async def serve(content: dict[str, Any]) -> None:
    """Serve a rack until the process is killed."""
    rack = build(content)
    await rack.serve()
    print(rack.control_port, flush=True)
    await asyncio.Event().wait()


async def run(addresses: dict[str, str], journal: Path) -> None:
    """Run the recipe; what asks for the operator is resumed."""

    def line(name: str) -> Transport:
        return Transport(name, connector(addresses[name]), silence_s=0.2)

    bench = Bench(
        pump=CavroPump(line("pump"), "pump", barrel_ul=500, reply_s=3.0),
        valve=ViciValve(line("valve"), "valve", n_ports=10, reply_s=3.0),
        temperature=MeerstetterTec(line("tec"), "tec", low_c=4, high_c=80),
        lasers={"red": CoboltLaser(line("red"), "red", wavelength_nm=640, max_power_mw=100)},
    )
    await bench.open()
    plan = compile_recipe(parse_recipe(RECIPE), FACTS, RECIPE)
    engine = Engine(plan, bench, RunJournal(journal, asyncio.get_running_loop().time))
    running = asyncio.create_task(engine.run())
    print("begun", flush=True)
    while not running.done():
        await asyncio.wait([running], timeout=1.0)
        engine.resume()
    print(running.result().value, engine.message, flush=True)
    await bench.close()


def main() -> None:
    """See the module."""
    if sys.argv[1] == "rack":
        asyncio.run(serve(tomllib.loads(Path(sys.argv[2]).read_text())))
    else:
        addresses, journal, speed = json.loads(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
        with asyncio.Runner(loop_factory=lambda: FasterLoop(speed)) as runner:
            runner.run(run(addresses, journal))


if __name__ == "__main__":
    main()
