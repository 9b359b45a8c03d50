"""Recipes run on drivers that talk to simulated devices byte by byte: fluid, heat and light, in virtual time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cartoseq.controller.bench import Bench
from cartoseq.controller.engine import EndReason, Engine
from cartoseq.controller.ledger import Ledger
from cartoseq.controller.plan import Facts, Plan, compile_recipe
from cartoseq.controller.recipe import Recipe, load_recipe, parse_recipe
from cartoseq.controller.runjournal import RunJournal, read_journal
from cartoseq.controller.timing import Estimates
from cartoseq.drivers.capabilities import Range
from cartoseq.drivers.cavro import CavroPump
from cartoseq.drivers.cobolt import CoboltLaser
from cartoseq.drivers.meerstetter import MeerstetterTec
from cartoseq.drivers.obis import ObisLaser
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.vici import ViciValve
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.devices.cavro import CavroSim
from cartoseq.simulators.devices.cobolt import CoboltSim
from cartoseq.simulators.devices.meerstetter import MeerstetterSim
from cartoseq.simulators.devices.obis import ObisSim
from cartoseq.simulators.devices.vici import ViciSim
from cartoseq.simulators.faults import FaultyLine
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.world import World, make_world

RECIPES = Path(__file__).parents[2] / "recipes"
BARREL_UL = 500.0
FACTS = Facts(
    barrel_ul=BARREL_UL,
    flow_ul_per_s=Range(1, 150),
    ports=10,
    temperature_c=Range(4, 80),
    estimates=Estimates(ramp_c_per_s=0.35),
    lights_mw={"green": Range(1, 100), "red": Range(1, 100)},
)
RECIPE = """\
name = "two flows"
[reagents]
mix = { port = 2, loaded_ul = 5000, role = "incorporation" }
wash = { port = 3, loaded_ul = 5000, role = "wash" }
[[step]]
do = "laser"
device = "green"
on = true
power_mw = 20
[[step]]
do = "laser"
device = "red"
on = true
power_mw = 30
[[step]]
do = "set_temperature"
temperature_c = 50
verify = true
[[step]]
do = "flow"
reagent = "mix"
volume_ul = 200
flow_ul_per_s = 20
to_waste = false
[[step]]
do = "incubate"
duration_s = 60
[[step]]
do = "push_back"
volume_ul = 50
flow_ul_per_s = 20
[[step]]
do = "empty"
[[step]]
do = "checkpoint"
label = "middle"
[[step]]
do = "wash"
reagent = "wash"
volume_ul = 300
flow_ul_per_s = 40
times = 2
"""


class Rig:
    """A bench of simulated devices behind byte servers, and the drivers that talk to them."""

    def __init__(self, path: Path, recipe: Recipe, plan: Plan) -> None:
        self.path, self.plan = path / "journal.jsonl", plan
        ports = {bottle.port: name for name, bottle in recipe.reagents.items()}
        self.world: World = make_world(
            {
                "vessels": {
                    **{name: {"volume_ul": bottle.loaded_ul} for name, bottle in recipe.reagents.items()},
                    **{f"empty_{port}": {"volume_ul": 1} for port in range(1, 11) if port not in ports},
                    "waste": {},
                },
                "selectors": {"inlets": {"ports": {port: ports.get(port, f"empty_{port}") for port in range(1, 11)}}},
                "pipes": {"flow_cell": {"volume_ul": 80, "far": "inlets", "reagent": next(iter(recipe.reagents))}},
                "syringes": {"pump": {"barrel_ul": BARREL_UL, "ports": {"I": "flow_cell", "O": "waste"}, "port": "O"}},
                "plates": {"flow_cell_plate": {}},
                "lasers": {
                    "green": {"wavelength_nm": 532, "rated_mw": 150},
                    "red": {"wavelength_nm": 640, "rated_mw": 150},
                },
            }
        )
        world = self.world
        self.sims: dict[str, Any] = {
            "pump": CavroSim("pump", world, syringe="pump"),
            "valve": ViciSim("valve", world, selector="inlets", n_ports=10),
            "tec": MeerstetterSim("tec", world, plates=["flow_cell_plate"], address=2),
            "green": ObisSim("green", world, head="green"),
            "red": CoboltSim("red", world, head="red"),
        }
        self.lines = {name: FaultyLine(sim) for name, sim in self.sims.items()}
        bauds = {"pump": 9600, "valve": 9600, "tec": 57600, "green": 115200, "red": 115200}
        self.hosts = {name: MemoryHost(self.lines[name], baud_rate=bauds[name]) for name in self.sims}
        self.bench = self.drivers()

    def drivers(self) -> Bench:
        def line(name: str, silence_s: float = 0.05) -> Transport:
            return Transport(name, self.hosts[name].connect, silence_s=silence_s)

        return Bench(
            pump=CavroPump(line("pump"), "pump", barrel_ul=BARREL_UL),
            valve=ViciValve(line("valve"), "valve", n_ports=10),
            temperature=MeerstetterTec(line("tec"), "tec", low_c=4, high_c=80),
            lasers={
                "green": ObisLaser(line("green"), "green", wavelength_nm=532, max_power_mw=100),
                "red": CoboltLaser(line("red"), "red", wavelength_nm=640, max_power_mw=100),
            },
        )

    def engine(self, **options: Any) -> Engine:
        journal = RunJournal(self.path, lambda: asyncio.get_running_loop().time())
        return Engine(self.plan, self.bench, journal, **options)

    def true(self) -> dict[str, Any]:
        return self.world.inspect(asyncio.get_running_loop().time())

    def hold_true(self, recipe: Recipe, pushed_to: str = "") -> None:
        """The ledger is true to the fluids within a microlitre, and everything is safe."""
        ledger, true = Ledger.of(read_journal(self.path)), self.true()
        drawn = dict(ledger.drawn_ul)
        for name, bottle in recipe.reagents.items():
            left_ul = float(true[f"{name}.volume_ul"])
            pushed_ul = ledger.pushed_back_ul if name == pushed_to else 0.0
            assert bottle.loaded_ul - left_ul == pytest.approx(drawn.get(name, 0.0) - pushed_ul, abs=1.0), name
        assert true["waste.volume_ul"] == pytest.approx(ledger.waste_ul, abs=1.0)
        for name in ("green", "red"):
            assert not self.sims[name].inspect(asyncio.get_running_loop().time())["emitting"]


def run_it(
    tmp_path: Path,
    text: str = RECIPE,
    use: Callable[[Rig, Engine], Coroutine[Any, Any, None]] | None = None,
    pushed_to: str = "mix",
) -> tuple[EndReason, list[dict[str, Any]]]:
    recipe = parse_recipe(text)
    plan = compile_recipe(recipe, FACTS, text)

    async def main() -> EndReason:
        rig = Rig(tmp_path, recipe, plan)
        await rig.bench.open()
        engine = rig.engine()
        running = asyncio.create_task(engine.run())
        if use is not None:
            await use(rig, engine)
        reason = await running
        rig.hold_true(recipe, pushed_to)
        await rig.bench.close()
        return reason

    return run_virtual(main()), read_journal(tmp_path / "journal.jsonl")


def test_a_recipe_runs_on_real_protocols_and_its_ledger_is_true(tmp_path: Path) -> None:
    reason, events = run_it(tmp_path)
    assert reason is EndReason.COMPLETED
    assert not [event for event in events if event["event"] == "fault"]


def test_the_plan_s_time_is_that_of_the_run(tmp_path: Path) -> None:
    _, events = run_it(tmp_path)
    begin_s = next(event["time_s"] for event in events if event["event"] == "step")
    took_s = next(event["time_s"] for event in events if event["event"] == "safe") - begin_s
    planned_s = compile_recipe(parse_recipe(RECIPE), FACTS, RECIPE).duration_s
    assert took_s == pytest.approx(planned_s, rel=0.25)


def test_the_same_run_gives_the_same_journal(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run_it(tmp_path / name)
        texts.append((tmp_path / name / "journal.jsonl").read_bytes())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("seed", range(12))
def test_an_abort_at_any_time_leaves_everything_safe_and_accounted_for(tmp_path: Path, seed: int) -> None:
    at_s = random.Random(seed).uniform(1, 160)

    async def use(rig: Rig, engine: Engine) -> None:
        await asyncio.sleep(at_s)
        engine.abort()

    reason, _ = run_it(tmp_path, use=use)
    assert reason is EndReason.ABORTED_BY_USER


@pytest.mark.parametrize("seed", range(30))
def test_a_killed_controller_is_taken_up_and_no_fluid_moves_twice(tmp_path: Path, seed: int) -> None:
    recipe = parse_recipe(RECIPE)
    plan = compile_recipe(recipe, FACTS, RECIPE)

    async def main() -> None:
        rig = Rig(tmp_path, recipe, plan)
        await rig.bench.open()
        engine = rig.engine()
        running = asyncio.create_task(engine.run())
        await asyncio.sleep(random.Random(seed).uniform(0.5, 170))
        # As kill -9: not a byte more goes out, and not a line more is written. Pump and heater go on by themselves.
        engine.journal.note = lambda *_args, **_facts: None  # type: ignore[method-assign]
        for host in rig.hosts.values():
            host.cut()
        running.cancel()
        await asyncio.wait([running])
        await asyncio.sleep(random.Random(seed + 1).uniform(0.0, 20.0))
        rig.bench = rig.drivers()
        await rig.bench.open()
        second = rig.engine()
        running = asyncio.create_task(second.run())
        while not running.done():
            await asyncio.sleep(1.0)
            second.resume()
        assert running.result() is EndReason.COMPLETED, second.message
        rig.hold_true(recipe, "mix")
        true = rig.true()
        assert recipe.reagents["wash"].loaded_ul - float(true["wash.volume_ul"]) == pytest.approx(600, abs=1)

    run_virtual(main())


def test_a_pause_at_the_checkpoint_puts_real_lights_out_and_on_again(tmp_path: Path) -> None:
    async def use(rig: Rig, engine: Engine) -> None:
        await asyncio.sleep(5)
        engine.pause()
        await asyncio.sleep(1000)
        now_s = asyncio.get_running_loop().time()
        assert not rig.sims["green"].inspect(now_s)["emitting"]
        engine.resume()
        await asyncio.sleep(15)
        assert rig.sims["green"].inspect(asyncio.get_running_loop().time())["emitting"]

    assert run_it(tmp_path, use=use)[0] is EndReason.COMPLETED


def chemistry_of(text: str) -> str:
    """A recipe without its pictures."""
    parts = text.split("[[")
    kept = [part for part in parts if 'do = "image_tiles"' not in part and 'do = "autofocus"' not in part]
    return "[[".join(kept)


def test_a_whole_sequencing_run_is_proved_in_seconds(tmp_path: Path) -> None:
    _, text = load_recipe(RECIPES / "stereo-seq-library.toml")
    begin_s = time.process_time()
    reason, events = run_it(tmp_path, chemistry_of(text), pushed_to="cleavage_mix")
    assert reason is EndReason.COMPLETED
    assert events[-1]["time_s"] > 4.5 * 3600
    assert time.process_time() - begin_s < 240
