"""A whole sequencing run of more than ten hours, with every device of a bench and its pictures, in virtual time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from cartoseq.controller.engine import EndReason, Engine
from cartoseq.controller.imaging import Optics, ScanImager
from cartoseq.controller.instrument import facts_of, parse_instrument
from cartoseq.controller.ledger import Ledger
from cartoseq.controller.plan import compile_recipe
from cartoseq.controller.recipe import parse_recipe
from cartoseq.controller.runjournal import RunJournal, read_journal
from cartoseq.controller.simulatedbench import simulate_instrument
from cartoseq.simulators.clock import run_virtual

PROJECT = Path(__file__).parents[2]
CYCLES = 160
#: What is looked at of the chip, with a small sensor: pictures are the work of the processor, not of the clock.
AREA = "area = { x_um = 100, y_um = 100, width_um = 150, height_um = 70 }\n"
SENSOR_PX = 256


def recipe_text() -> str:
    """The recipe as it is, but for the part of the chip that is looked at."""
    text = (PROJECT / "recipes" / "stereo-seq-pe100.toml").read_text(encoding="utf-8")
    for step in ("autofocus", "image_tiles"):
        assert text.count(f'do = "{step}"\n') == 1
        text = text.replace(f'do = "{step}"\n', f'do = "{step}"\n{AREA}')
    return text


def instrument_text() -> str:
    """The bench with a small sensor."""
    text = (PROJECT / "instruments" / "bench.toml").read_text(encoding="utf-8")
    assert text.count("_px = 2_048\n") == 2
    return text.replace("_px = 2_048\n", f"_px = {SENSOR_PX}\n")


def run_it(folder: Path, seed: int) -> dict[str, float | str | bool]:
    """Do the run; what is true of the fluids and the light at its end."""
    instrument = parse_instrument(instrument_text())
    text = recipe_text()
    recipe = parse_recipe(text)
    plan = compile_recipe(recipe, facts_of(instrument, 1 << 50), text)

    async def main() -> dict[str, float | str | bool]:
        simulated = simulate_instrument(instrument, recipe, seed=seed)
        bench = simulated.bench()
        await bench.open()
        assert bench.stage is not None
        assert bench.camera is not None
        optics = Optics(
            pixel_um=0.325, width_px=SENSOR_PX, height_px=SENSOR_PX, bit_depth=16, chip_um=(20_000.0, 15_000.0)
        )
        imager = ScanImager(bench.stage, bench.focus, bench.camera, bench.lasers, optics, folder / "pictures")
        clock = asyncio.get_running_loop()
        journal = RunJournal(folder / "journal.jsonl", clock.time)
        engine = Engine(plan, bench, journal, imager=imager)
        assert await engine.run() is EndReason.COMPLETED, engine.message
        await bench.close()
        return simulated.world.inspect(clock.time())

    return run_virtual(main())


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def test_a_run_of_eleven_hours_is_true_to_its_world_and_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the run is worth does not hang on the disk; that events are durable is the journal's own test.
    monkeypatch.setattr(os, "fdatasync", lambda _file: None)
    recipe = parse_recipe(recipe_text())
    journals = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        true = run_it(folder, seed=3)
        journals.append((folder / "journal.jsonl").read_bytes())
    assert journals[0] == journals[1]

    events = read_journal(tmp_path / "one" / "journal.jsonl")
    assert events[-1]["time_s"] > 10 * 3600
    assert of_kind(events, "fault") == []
    imaged = of_kind(events, "imaged")
    assert [event["folder"] for event in imaged] == [f"cycle-{number:03d}" for number in range(1, CYCLES + 1)]
    assert all(event["taken_again"] == 0 and event["bad"] == [] for event in imaged)
    ledger = Ledger.of(events)
    assert true["waste.volume_ul"] == pytest.approx(ledger.waste_ul, abs=1)
    for name, bottle in recipe.reagents.items():
        left_ul = bottle.loaded_ul - ledger.drawn_ul.get(name, 0.0)
        if name == "cleavage_mix":
            left_ul += ledger.pushed_back_ul
        assert true[f"{name}.volume_ul"] == pytest.approx(left_ul, abs=1), name
    assert not any(true[f"{name}.emitting"] for name in ("obis", "cobolt"))
