"""`cartoseq plan`: what a recipe comes to on an instrument, for people: time line, reagents, time, pictures, disk."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cartoseq.controller.actions import AskOperator, Image
from cartoseq.controller.instrument import Instrument, facts_of, load_instrument
from cartoseq.controller.plan import Plan, PlannedStep, compile_recipe
from cartoseq.controller.recipe import (
    Autofocus,
    Channel,
    Checkpoint,
    Cycles,
    Empty,
    Flow,
    Hold,
    ImageTiles,
    Incubate,
    Laser,
    Prime,
    PushBack,
    Recipe,
    Repeat,
    SetTemperature,
    Step,
    TemperatureOff,
    Use,
    WaitStable,
    Wash,
    load_recipe,
)
from cartoseq.streaming.errors import RunError

if TYPE_CHECKING:
    from cartoseq.controller.dryrun import DryRun

_UNLIMITED = 1 << 60


def plan(
    path: Path, instrument_path: Path, folder: Path, say: Callable[[str], None], *, with_dry_run: bool = False
) -> None:
    """Compile a recipe for an instrument and say what it comes to.

    Args:
        path: The recipe.
        instrument_path: The instrument.
        folder: Where a run would write: its disk must have the space.
        say: Is told each line.
        with_dry_run: Whether it is then done on the simulated instrument, which takes up to minutes.

    Raises:
        InputError: a file is not sound, or the recipe cannot be run on this instrument or disk; all reasons at once.
        RunError: the dry run did not come to the recipe's end.
    """
    instrument = load_instrument(instrument_path)
    recipe, text = load_recipe(path)
    found = compile_recipe(recipe, facts_of(instrument, _UNLIMITED), text, path)
    free_bytes = free_bytes_of(folder)
    for line in plan_lines(recipe, instrument, found, free_bytes):
        say(line)
    compile_recipe(recipe, facts_of(instrument, free_bytes), text, path)
    if with_dry_run:
        # All simulators are imported only where one is asked for.
        from cartoseq.controller.dryrun import dry_run

        say("dry run   on the simulated instrument; --no-dry-run leaves it out")
        dry = dry_run(found, recipe, instrument)
        for line in dry_run_lines(dry, found):
            say(line)
        if not dry.completed:
            raise RunError(f"The dry run ended: {dry.reason.value}. {dry.message}".strip())


def free_bytes_of(folder: Path) -> int:
    """What is free on the disk of a folder, or of the nearest one above it that is there."""
    home = next(home for home in (folder.absolute(), *folder.absolute().parents) if home.is_dir())
    return shutil.disk_usage(home).free


def plan_lines(recipe: Recipe, instrument: Instrument, plan: Plan, free_bytes: int) -> Iterator[str]:
    """Write a plan: the steps of the recipe, and for each block once, what is done in it.

    Args:
        recipe: What was compiled.
        instrument: For which instrument.
        plan: The result.
        free_bytes: Of the disk.
    """
    yield f"{recipe.name}, on {instrument.name}"
    yield ""
    yield f"{'begins':>10} {'takes':>9}"
    yield from _step_lines(recipe, recipe.step, plan.steps, 0, set())
    if recipe.reagents:
        yield ""
        yield from _reagent_lines(recipe, plan)
    yield ""
    holds = sum(isinstance(step.action, AskOperator) for step in plan.steps)
    waits = f", and {holds} {'wait' if holds == 1 else 'waits'} for the operator" if holds else ""
    yield f"time      {_hours(plan.duration_s)} (h:min), {len(plan.steps):,} actions{waits}"
    if recipe.reagents:
        yield f"waste     {plan.waste_ul / 1000:,.1f} ml"
    yield f"pictures  {plan.pictures:,}"
    yield f"disk      {plan.disk_bytes / 1e9:,.1f} GB of pictures and base calls; {free_bytes / 1e9:,.1f} GB are free"


def dry_run_lines(dry: DryRun, plan: Plan) -> Iterator[str]:
    """Say how a dry run went, for people.

    Args:
        dry: How it went.
        plan: What was done.
    """
    took = f"{clock(dry.duration_s)} (h:min:s)"
    if dry.completed:
        off = plan.duration_s / dry.duration_s - 1 if dry.duration_s else 0.0
        yield f"dry run   completed in {took}; the time above is {abs(off):.1%} {'longer' if off > 0 else 'shorter'}"
    else:
        yield f"dry run   {dry.reason.value} after {took}: {dry.message}"
    yield f"commands  {dry.commands:,} to the devices, digest {dry.digest[:16]}"


def _step_lines(
    recipe: Recipe, steps: Sequence[Step], planned: Sequence[PlannedStep], depth: int, shown: set[str]
) -> Iterator[str]:
    """The steps of a recipe, or of one turn of a block; below a step the blocks that it does, each the first time."""
    for number, step in enumerate(steps, start=1):
        mine = [one for one in planned if one.path[2 * depth] == number]
        begins = clock(mine[0].start_s) if mine and depth == 0 else ""
        takes = clock(_length_s(mine)) if mine else "-"
        images = [str(one.action) for one in mine if isinstance(one.action, Image)]
        words = images[0] if isinstance(step, ImageTiles) and images else describe(recipe, step)
        yield f"{begins:>10} {takes:>9}  {'  ' * depth}{number:>2}  {words}"
        for name, turn in _turns(step):
            inside = [one for one in mine if one.path[2 * depth + 1] == turn]
            if name in shown or not inside:
                continue
            shown.add(name)
            if not isinstance(step, Use):
                one_turn = f"cycle {turn}" if isinstance(step, Cycles) else "one turn"
                yield f"{'':>10} {clock(_length_s(inside)):>9}  {'  ' * depth}    {one_turn}, block {name}:"
            yield from _step_lines(recipe, recipe.block[name], inside, depth + 1, shown)


def _turns(step: Step) -> list[tuple[str, int]]:
    """The blocks that a step does, each with a turn in which it does so."""
    if isinstance(step, Cycles):
        first = step.first_block or step.block
        return [(first, 1), (step.block, 2)] if first != step.block else [(first, 1)]
    return [(step.block, 1)] if isinstance(step, Repeat | Use) else []


def _length_s(steps: Sequence[PlannedStep]) -> float:
    return sum(step.duration_s for step in steps)


def _reagent_lines(recipe: Recipe, plan: Plan) -> Iterator[str]:
    width = max(len("reagent"), *map(len, recipe.reagents))
    yield f"{'reagent':<{width}}  port  {'drawn ul':>10}  {'loaded ul':>10}  {'reserve ul':>10}  {'left ul':>10}"
    for name, bottle in sorted(recipe.reagents.items(), key=lambda item: item[1].port):
        drawn_ul = plan.drawn_ul[name]
        yield (
            f"{name:<{width}}  {bottle.port:>4}  {drawn_ul:>10,.0f}  {bottle.loaded_ul:>10,.0f}  "
            f"{bottle.reserve_ul:>10,.0f}  {bottle.loaded_ul - drawn_ul:>10,.0f}"
        )


def clock(duration_s: float) -> str:
    """A time as h:min:s."""
    seconds = round(duration_s)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _hours(duration_s: float) -> str:
    minutes = math.ceil(duration_s / 60)
    return f"{minutes // 60}:{minutes % 60:02}"


def describe(recipe: Recipe, step: Step) -> str:
    """A step of a recipe in a few words."""
    match step:
        case Flow():
            held = "" if step.to_waste else ", kept in the syringe"
            settle = f", settle {step.settle_s:g} s" if step.settle_s else ""
            return f"flow {step.volume_ul:g} ul of {step.reagent} at {step.flow_ul_per_s:g} ul/s{settle}{held}"
        case PushBack():
            return f"push {step.volume_ul:g} ul back at {step.flow_ul_per_s:g} ul/s"
        case Empty():
            return "empty the syringe"
        case Prime():
            names = step.reagents or [name for name, bottle in recipe.reagents.items() if bottle.prime]
            return f"prime {', '.join(names)}: {step.volume_ul:g} ul each at {step.flow_ul_per_s:g} ul/s"
        case Wash():
            times = f"{step.times} times " if step.times > 1 else ""
            return f"wash {times}with {step.volume_ul:g} ul of {step.reagent} at {step.flow_ul_per_s:g} ul/s"
        case Incubate():
            return f"incubate {step.duration_s:g} s"
        case SetTemperature():
            return f"set {step.temperature_c:g} C" + (" and wait for it" if step.verify else "")
        case WaitStable():
            return "wait for the temperature"
        case TemperatureOff():
            return "temperature regulation off"
        case Laser():
            return f"{step.device} on at {step.power_mw:g} mW" if step.on else f"{step.device} off"
        case Autofocus():
            return f"focus at {step.points} points with {_channels([step.channel])}"
        case ImageTiles():
            return f"image tiles in {_channels(step.channels)}"
        case Cycles():
            structure = recipe.read_structures[step.read - 1]
            length = sum(segment.length or 0 for segment in recipe.structures[step.read - 1].segments)
            return f"sequence read {step.read} ({structure}): {length} cycles"
        case Repeat():
            return f"block {step.block}, {step.times} times"
        case Use():
            return f"block {step.block}"
        case Checkpoint():
            return f"checkpoint {step.label}"
        case Hold():
            return f"wait for the operator: {step.message}"


def _channels(channels: Sequence[Channel]) -> str:
    return ", ".join(channel.name for channel in channels)
