"""Recipes run on drivers that talk to simulated devices byte by byte: fluid, heat and light, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cartoseq.controller.engine import EndReason, Engine
from cartoseq.controller.plan import compile_recipe
from cartoseq.controller.recipe import parse_recipe
from cartoseq.controller.runjournal import read_journal
from cartoseq.simulators.clock import run_virtual

from .rig import FACTS, Rig

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
