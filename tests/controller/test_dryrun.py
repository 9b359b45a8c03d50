"""Dry runs: the recipes of the project on the simulated instrument, against the plan's estimates."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from cartoseq.controller.dryrun import DryRun, dry_run
from cartoseq.controller.engine import EndReason
from cartoseq.controller.instrument import Instrument, facts_of, load_instrument, parse_instrument
from cartoseq.controller.plan import Plan, compile_recipe
from cartoseq.controller.recipe import parse_recipe

from .benches import BENCH, HISEQ, INSTRUMENTS, PROJECT, with_zaber_stage

RECIPES = [*sorted((PROJECT / "recipes").glob("*.toml")), PROJECT / "controller" / "demonstration" / "recipe.toml"]


def dry(text: str, instrument: Instrument) -> tuple[Plan, DryRun]:
    recipe = parse_recipe(text)
    plan = compile_recipe(recipe, facts_of(instrument, 1 << 60), text)
    return plan, dry_run(plan, recipe, instrument)


def without_pictures(text: str) -> str:
    parts = text.split("[[")
    return "[[".join(part for part in parts if not any(word in part for word in ('"image_tiles"', '"autofocus"')))


def hold_the_estimates(plan: Plan, done: DryRun) -> None:
    """The time line is right within 5 %, and each kind of action that takes a minute or more within 10 %."""
    assert done.reason is EndReason.COMPLETED, done.message
    assert len(done.took_s) == len(plan.steps)
    assert not [event for event in done.events if event["event"] == "fault"]
    assert plan.duration_s == pytest.approx(done.duration_s, rel=0.05)
    planned_s: dict[str, float] = defaultdict(float)
    took_s: dict[str, float] = defaultdict(float)
    for step in plan.steps:
        kind = type(step.action).__name__
        planned_s[kind] += step.duration_s
        took_s[kind] += done.took_s[step.number]
    for kind, took in took_s.items():
        if took >= 60:
            assert planned_s[kind] == pytest.approx(took, rel=0.1), kind


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_time_line_of_a_recipe_is_that_of_its_dry_run(path: Path) -> None:
    # A long second read is more of the same: ten of its hundred bases will do.
    text = path.read_text(encoding="utf-8").replace('"100T"', '"10T"')
    hold_the_estimates(*dry(text, load_instrument(INSTRUMENTS / "bench.toml")))


@pytest.mark.parametrize("name", ["novaseq-s4-style", "stereo-seq-library"])
def test_the_chemistry_of_a_recipe_fits_a_hiseq_as_well(name: str) -> None:
    text = (PROJECT / "recipes" / f"{name}.toml").read_text(encoding="utf-8").replace('"100T"', '"10T"')
    text = without_pictures(text).replace('"35C"', '"10C"')
    hold_the_estimates(*dry(text, parse_instrument(HISEQ)))


SHORT = """\
name = "short"
[reagents]
wash = { port = 4, loaded_ul = 5000, role = "wash" }
[[step]]
do = "hold"
message = "put the flow cell in"
[[step]]
do = "wash"
reagent = "wash"
volume_ul = 300
flow_ul_per_s = 40
[[step]]
do = "autofocus"
area = { x_um = 0, y_um = 0, width_um = 2_000, height_um = 1_000 }
channel = { name = "g", light = "green", power_mw = 100, exposure_ms = 2_000 }
[[step]]
do = "image_tiles"
area = { x_um = 0, y_um = 0, width_um = 2_000, height_um = 1_000 }
overlap_percent = 40
channels = [{ name = "g", light = "green", power_mw = 100, exposure_ms = 2_000 }]
"""


def test_a_second_dry_run_is_the_same_to_the_byte_and_another_recipe_is_not() -> None:
    instrument = parse_instrument(BENCH)
    _, one = dry(SHORT, instrument)
    _, two = dry(SHORT, instrument)
    assert one == two
    assert one.completed
    assert one.commands > 100
    assert dry(SHORT.replace("volume_ul = 300", "volume_ul = 301"), instrument)[1].digest != one.digest


def test_it_waits_for_nobody_and_judges_no_tile() -> None:
    _, done = dry(SHORT, parse_instrument(BENCH))
    imaged = next(event for event in done.events if event["event"] == "imaged")
    assert (imaged["taken_again"], imaged["bad"]) == (0, [])
    assert done.took_s[1] < 1


def test_a_fault_ends_it_with_the_reason() -> None:
    # The chip is sharp 7 um above where the focus axis stands: beyond the sweep.
    text = SHORT.replace('do = "autofocus"', 'do = "autofocus"\nsweep_um = 2')
    plan, done = dry(text, parse_instrument(BENCH))
    assert done.reason is EndReason.DEVICE_FAULT
    assert "no sharpest picture within 2 um" in done.message
    assert len(done.took_s) < len(plan.steps)


def test_stages_that_must_be_homed_are_homed_before() -> None:
    _, done = dry(SHORT, parse_instrument(with_zaber_stage(BENCH)))
    assert done.completed, done.message
