"""Suspenders on simulated devices: a fault is injected, the run holds, and goes on when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cartoseq.controller.bench import Bench
from cartoseq.controller.engine import EndReason, Engine, State, Suspender
from cartoseq.controller.instrument import facts_of, load_instrument
from cartoseq.controller.plan import compile_recipe
from cartoseq.controller.recipe import parse_recipe
from cartoseq.controller.runjournal import RunJournal, read_journal
from cartoseq.controller.simulatedbench import SimulatedInstrument, simulate_instrument
from cartoseq.controller.suspenders import (
    base_calls_taken,
    circuits_closed,
    devices_well,
    disk_free,
    temperature_in_band,
)
from cartoseq.simulators.clock import run_virtual

from .benches import PROJECT

RECIPE = """\
name = "hot and lit"
[reagents]
mix = { port = 2, loaded_ul = 5000, role = "incorporation" }
[[step]]
do = "laser"
device = "green"
on = true
power_mw = 20
[[step]]
do = "set_temperature"
temperature_c = 50
verify = true
[[step]]
do = "incubate"
duration_s = 60
most_s = 10_000
[[step]]
do = "set_temperature"
temperature_c = 40
verify = true
[[step]]
do = "flow"
reagent = "mix"
volume_ul = 200
flow_ul_per_s = 20
[[step]]
do = "checkpoint"
label = "middle"
[[step]]
do = "flow"
reagent = "mix"
volume_ul = 200
flow_ul_per_s = 20
[[step]]
do = "temperature_off"
[[step]]
do = "incubate"
duration_s = 120
"""
#: In the incubation at 50 C; what comes before takes no longer.
INCUBATING_S = 70.0


def now_s() -> float:
    return asyncio.get_running_loop().time()


Use = Callable[[SimulatedInstrument, Engine], Coroutine[Any, Any, None]]
Make = Callable[[Bench, Engine], Suspender]


def run_it(path: Path, make: Make, use: Use | None = None) -> tuple[EndReason, list[dict[str, Any]]]:
    """Run the recipe with one suspender; return how it ended, and what the suspender said."""

    async def main() -> EndReason:
        instrument = load_instrument(PROJECT / "controller" / "demonstration" / "instrument.toml")
        recipe = parse_recipe(RECIPE)
        simulated = simulate_instrument(instrument, recipe)
        bench = simulated.bench()
        await bench.open()
        journal = RunJournal(path / "journal.jsonl", now_s)
        engine = Engine(compile_recipe(recipe, facts_of(instrument, 1 << 60), RECIPE), bench, journal)
        engine.suspenders = (make(bench, engine),)
        running = asyncio.create_task(engine.run())
        if use is not None:
            await use(simulated, engine)
        reason = await running
        await bench.close()
        return reason

    reason = run_virtual(main())
    events = read_journal(path / "journal.jsonl")
    return reason, [event for event in events if event["event"] == "suspender"]


def temperature(bench: Bench, engine: Engine) -> Suspender:
    assert bench.temperature is not None
    return temperature_in_band(bench.temperature, lambda: engine.target_c)


def devices(bench: Bench, _engine: Engine) -> Suspender:
    return devices_well(list(bench.devices()), every_s=5.0)


def test_ramps_and_a_regulation_that_is_off_hold_nothing(tmp_path: Path) -> None:
    assert run_it(tmp_path, temperature) == (EndReason.COMPLETED, [])


def test_a_flow_cell_that_leaves_its_band_holds_the_run_until_it_is_back(tmp_path: Path) -> None:
    async def use(simulated: SimulatedInstrument, engine: Engine) -> None:
        await asyncio.sleep(INCUBATING_S)
        assert engine.status.action.startswith("incubate")
        simulated.devices["plate"].inject("over_temperature", now_s(), degrees=8.0)

    reason, said = run_it(tmp_path, temperature, use)
    assert reason is EndReason.COMPLETED
    assert [bool(event["why"]) for event in said] == [True, False]
    assert said[0]["why"].startswith("plate: 5")
    assert "off the target of 50 C" in said[0]["why"]


def test_an_open_door_puts_the_lights_out_and_they_come_on_only_when_the_operator_says_so(tmp_path: Path) -> None:
    async def use(simulated: SimulatedInstrument, engine: Engine) -> None:
        def lit() -> bool:
            return bool(simulated.devices["obis"].inspect(now_s())["emitting"])

        await asyncio.sleep(INCUBATING_S)
        assert lit()
        simulated.world.optics.move_doors(closed=False)
        await asyncio.sleep(100)
        assert not lit()
        assert engine.status.holds == {"interlock": "the safety circuit of green and red is open"}
        simulated.world.optics.move_doors(closed=True)
        await asyncio.sleep(100)
        assert engine.state is State.PAUSED
        assert list(engine.status.holds) == ["operator"]
        assert "waits for you to resume: the safety circuit of green and red is open" in engine.status.doing
        assert not lit()
        engine.resume()
        await asyncio.sleep(30)  # by law an OBIS waits for some seconds
        assert lit()

    reason, said = run_it(tmp_path, lambda bench, _: circuits_closed(bench.lasers), use)
    assert reason is EndReason.COMPLETED
    assert len(said) == 2


def test_a_device_with_a_severe_fault_holds_the_run(tmp_path: Path) -> None:
    async def use(simulated: SimulatedInstrument, engine: Engine) -> None:
        await asyncio.sleep(INCUBATING_S)
        simulated.devices["cobolt"].inject("over_temperature", now_s())
        await asyncio.sleep(60)
        assert engine.state is State.PAUSED
        simulated.devices["cobolt"].clear(now_s())
        await engine.bench.lasers["red"].clear_faults()

    reason, said = run_it(tmp_path, devices, use)
    assert reason is EndReason.COMPLETED
    assert said[0]["why"].startswith("cobolt: ")
    assert said[1]["why"] == ""


@pytest.mark.parametrize(("lost_s", "holds"), [(4.0, 0), (60.0, 2)])
def test_a_device_that_is_lost_holds_the_run_and_one_lost_answer_does_not(
    tmp_path: Path, lost_s: float, holds: int
) -> None:
    async def use(simulated: SimulatedInstrument, _engine: Engine) -> None:
        await asyncio.sleep(INCUBATING_S)
        simulated.hosts["red"].refuses = True
        simulated.hosts["red"].cut()
        await asyncio.sleep(lost_s)
        simulated.hosts["red"].refuses = False

    reason, said = run_it(tmp_path, devices, use)
    assert reason is EndReason.COMPLETED
    assert len(said) == holds
    if said:
        assert said[0]["why"].startswith("red: the line is gone")


def test_a_full_disk_holds_the_run_until_there_is_room(tmp_path: Path) -> None:
    free = {"bytes": 1 << 40}

    async def use(_simulated: SimulatedInstrument, _engine: Engine) -> None:
        await asyncio.sleep(INCUBATING_S)
        free["bytes"] = 10_000_000
        await asyncio.sleep(50)
        free["bytes"] = 1 << 40

    make: Make = lambda *_: disk_free(tmp_path, 50_000_000, free_bytes=lambda _: free["bytes"])  # noqa: E731
    reason, said = run_it(tmp_path, make, use)
    assert reason is EndReason.COMPLETED
    assert [event["why"] for event in said] == [
        f"{tmp_path}: 0.01 GB are free on its disk, and 0.05 GB must be",
        "",
    ]


def test_the_disk_s_own_word_is_taken(tmp_path: Path) -> None:
    assert asyncio.run(disk_free(tmp_path, 1).check()) == ""  # type: ignore[arg-type]
    assert "must be" in asyncio.run(disk_free(tmp_path, 1 << 60).check())  # type: ignore[arg-type]


def test_base_calls_that_wait_hold_the_run_until_half_of_them_are_taken(tmp_path: Path) -> None:
    waiting = {"calls": 0}

    async def use(_simulated: SimulatedInstrument, engine: Engine) -> None:
        await asyncio.sleep(INCUBATING_S)
        waiting["calls"] = 1_001
        await asyncio.sleep(20)
        waiting["calls"] = 600
        await asyncio.sleep(100)
        assert engine.state is State.PAUSED
        waiting["calls"] = 500

    reason, said = run_it(tmp_path, lambda *_: base_calls_taken(lambda: waiting["calls"], 1_000), use)
    assert reason is EndReason.COMPLETED
    assert said[0]["why"] == "1,001 base calls wait to be written, and 1,000 may"
    assert len(said) == 2
