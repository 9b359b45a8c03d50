"""The recipe: what a run does, step after step, as data.

A recipe is one TOML file (docs/recipe.md). It names its reagents, may collect steps in blocks, and lists the steps of
the run. It says nothing of ports, drivers or speeds of motors: these stand in the instrument file. What a recipe comes
to on a given instrument, and whether it can be run at all, is the compiler's business (`controller.plan`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from cartoseq.controller.experiment import ReadStructureText
from cartoseq.controller.settingsfile import (
    FileKind,
    Problem,
    faults,
    parse,
    problems_of,
    read_text,
    settings_error,
    shown,
)
from cartoseq.controller.toml_lines import KeyPath
from cartoseq.streaming.readstructure import ReadStructure

Name = Annotated[StrictStr, Field(min_length=1)]
Volume = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FlowRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Celsius = Annotated[float, Field(ge=-40, le=120, allow_inf_nan=False)]
Role = Literal["incorporation", "deblock", "wash", "scan", "primer", "stain", "other"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Step(_Table):
    on_fault: Literal["abort", "pause"] = "abort"
    """What a device's fault does to the run: end it safely, or hold it for the operator."""
    tries: Annotated[StrictInt, Field(ge=1, le=5)] = 1
    """How often the step may be tried in all when the line to a device fails; steps that move fluid are tried once."""


class Flow(_Step):
    """Draw a reagent through the flow cell."""

    do: Literal["flow"]
    reagent: Name
    """Which; a name of the [reagents] table."""
    volume_ul: Volume
    """How much, at most a syringe full."""
    flow_ul_per_s: FlowRate
    """How fast it is drawn through the flow cell."""
    settle_s: Seconds = 0.0
    """How long pressure may even out before the syringe is turned to waste."""
    to_waste: StrictBool = True
    """Whether the syringe is then emptied; if not, what it holds can be pushed back."""


class PushBack(_Step):
    """Push what the syringe holds back through the flow cell, against the way in which it came."""

    do: Literal["push_back"]
    volume_ul: Volume
    """How much."""
    flow_ul_per_s: FlowRate
    """How fast."""


class Empty(_Step):
    """Empty the syringe to waste."""

    do: Literal["empty"]


class Prime(_Step):
    """Fill the lines: a flow of each reagent."""

    do: Literal["prime"]
    reagents: tuple[Name, ...] = ()
    """Which; none: all that the [reagents] table marks with prime."""
    volume_ul: Volume
    """How much of each."""
    flow_ul_per_s: FlowRate
    """How fast."""


class Wash(_Step):
    """Flow one reagent several times."""

    do: Literal["wash"]
    reagent: Name
    """Which."""
    volume_ul: Volume
    """How much each time."""
    flow_ul_per_s: FlowRate
    """How fast."""
    times: Annotated[StrictInt, Field(ge=1, le=100)] = 1
    """How often."""


class Incubate(_Step):
    """Let chemistry work. The time goes on while the run is paused; what is too long is noted."""

    do: Literal["incubate"]
    duration_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """How long."""
    most_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Longer than this, a pause included, is noted as an overrun; without it, one and a half times the duration."""


class SetTemperature(_Step):
    """Set the flow cell's temperature."""

    do: Literal["set_temperature"]
    temperature_c: Celsius
    """The target."""
    verify: StrictBool = False
    """Whether to wait until it is reached: needed before an incorporation."""
    tolerance_c: Annotated[float, Field(gt=0, le=5)] = 0.5
    """How near is reached."""
    dwell_s: Seconds = 5.0
    """For how long it must be that near."""


class WaitStable(_Step):
    """Wait until the flow cell's temperature is reached."""

    do: Literal["wait_stable"]
    tolerance_c: Annotated[float, Field(gt=0, le=5)] = 0.5
    """How near."""
    dwell_s: Seconds = 5.0
    """For how long."""


class TemperatureOff(_Step):
    """Switch the flow cell's regulation off."""

    do: Literal["temperature_off"]


class Laser(_Step):
    """Switch a laser. Imaging switches its own; this is for warming up and alignment."""

    do: Literal["laser"]
    device: Name
    """Which; a name of the instrument's lasers."""
    on: StrictBool
    """Whether it emits."""
    power_mw: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """At which power; needed to switch it on."""


class Channel(_Table):
    """One picture of a tile: a light and an exposure."""

    name: Name
    """What it is called in the files."""
    light: Name
    """The laser; a name of the instrument's lasers."""
    power_mw: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Its power."""
    exposure_ms: Annotated[float, Field(gt=0, le=60_000)]
    """How long light is gathered."""


class Area(_Table):
    """A rectangle on the chip, from its corner, in micrometres."""

    x_um: float
    y_um: float
    width_um: Volume
    height_um: Volume


class Autofocus(_Step):
    """Find the focus over the area: a sweep at each of some points, and a plane or spline through them."""

    do: Literal["autofocus"]
    channel: Channel
    """With which light."""
    area: Area | None = None
    """Where; none: the chip."""
    points: Annotated[StrictInt, Field(ge=1, le=100)] = 9
    """How many."""
    sweep_um: Annotated[float, Field(gt=0, le=1000)] = 60.0
    """How far up and down together."""


class ImageTiles(_Step):
    """Take the tiles of an area, in rows to and fro, at the focus that was found."""

    do: Literal["image_tiles"]
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)]
    """The pictures of each tile."""
    area: Area | None = None
    """Where; none: the chip."""
    overlap_percent: Annotated[float, Field(ge=0, lt=50)] = 10.0
    """Share of a tile that the next one shows again."""
    most_retakes: Annotated[StrictInt, Field(ge=0, le=5)] = 2
    """How often a tile that fails its check is taken again."""


class Cycles(_Step):
    """Sequence one read: the block once for each of its cycles."""

    do: Literal["cycles"]
    read: Annotated[StrictInt, Field(ge=1)]
    """Which of the read structures, from 1."""
    block: Name
    """What is done in a cycle."""
    first_block: Name | None = None
    """What is done in the first cycle, if that is something else."""


class Repeat(_Step):
    """Do a block several times."""

    do: Literal["repeat"]
    block: Name
    """Which."""
    times: Annotated[StrictInt, Field(ge=1, le=10_000)]
    """How often."""


class Use(_Step):
    """Do a block once."""

    do: Literal["use"]
    block: Name
    """Which."""


class Checkpoint(_Step):
    """A point where the run may pause: nothing is in motion and no chemistry waits."""

    do: Literal["checkpoint"]
    label: Name
    """What it is called."""


class Hold(_Step):
    """Wait for the operator."""

    do: Literal["hold"]
    message: Name
    """What he is asked to do."""


Step = Annotated[
    Flow
    | PushBack
    | Empty
    | Prime
    | Wash
    | Incubate
    | SetTemperature
    | WaitStable
    | TemperatureOff
    | Laser
    | Autofocus
    | ImageTiles
    | Cycles
    | Repeat
    | Use
    | Checkpoint
    | Hold,
    Field(discriminator="do"),
]
STEPS: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["do"].annotation)[0]: model for model in get_args(get_args(Step)[0])
}
"""The kinds of steps, by what `do` says."""


class Reagent(_Table):
    """A bottle."""

    port: Annotated[StrictInt, Field(ge=1, le=64)]
    """The port of the selector valve at which it stands."""
    loaded_ul: Volume
    """How much is in it at the start."""
    reserve_ul: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How much cannot be drawn."""
    role: Role = "other"
    """What it does: the compiler holds that an incorporation has its temperature, and each cycle its deblock."""
    prime: StrictBool = False
    """Whether its line is filled before the run."""


class ChipFacts(_Table):
    """What the recipe expects of the chip."""

    barcode_bases: Annotated[StrictInt, Field(ge=1, le=32)]
    """Bases of a spatial barcode (CID)."""
    mid_bases: Annotated[StrictInt, Field(ge=0, le=16)] = 10
    """Bases of a molecular barcode (MID) behind it."""
    width_um: Volume = 10_000.0
    """Its width, along the stage's x."""
    height_um: Volume = 10_000.0
    """Its height."""
    pitch_nm: Literal[500, 600, 715] = 500
    """Distance of its neighbouring spots, which decides that of its track lines."""


class Recipe(_Table):
    """What a run does."""

    name: Name
    """What it is called."""
    read_structures: tuple[ReadStructureText, ...] = ()
    """One for each read, such as "25C10M"; none where nothing is sequenced."""
    clusters: Annotated[StrictInt, Field(ge=0)] = 0
    """How many clusters (DNBs) are expected, for the disk space of their base calls."""
    chip: ChipFacts | None = None
    """The chip, where there is one."""
    reagents: dict[Name, Reagent] = {}
    """The bottles, by name."""
    block: dict[Name, tuple[Step, ...]] = {}
    """Steps that are done more than once, by name."""
    step: Annotated[tuple[Step, ...], Field(min_length=1)]
    """The steps of the run."""

    @property
    def structures(self) -> tuple[ReadStructure, ...]:
        """The read structures, parsed."""
        return tuple(ReadStructure.parse(text) for text in self.read_structures)

    def every_step(self) -> Iterator[tuple[KeyPath, Any]]:
        """Every step as it stands in the file, blocks first, with its key."""
        for name, steps in self.block.items():
            for number, step in enumerate(steps):
                yield ("block", name, number), step
        for number, step in enumerate(self.step):
            yield ("step", number), step

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := [*_name_problems(self), *_block_problems(self), *_read_problems(self)]:
            raise faults(problems)
        return self


def _name_problems(recipe: Recipe) -> Iterator[Problem]:
    known = ", ".join(recipe.reagents) or "none"
    for key, step in recipe.every_step():
        named = [("reagent", step.reagent)] if isinstance(step, Flow | Wash) else []
        if isinstance(step, Prime):
            named += [("reagents", name) for name in step.reagents]
            if not step.reagents and not any(reagent.prime for reagent in recipe.reagents.values()):
                yield Problem(key, "no reagent is marked with prime = true", "Mark those, or list reagents = [...].")
        for word, name in named:
            if name not in recipe.reagents:
                yield Problem((*key, word), f"there is no reagent {shown(name)}", f"The [reagents] table has: {known}.")
        if isinstance(step, Laser) and step.on and step.power_mw is None:
            yield Problem(key, "a laser is switched on without a power", "Add power_mw = ... .")
    ports: dict[int, str] = {}
    for name, reagent in recipe.reagents.items():
        if (other := ports.setdefault(reagent.port, name)) != name:
            yield Problem(
                ("reagents", name, "port"), f"port {reagent.port} is also that of {other}", "Give each bottle its port."
            )
        if reagent.reserve_ul >= reagent.loaded_ul:
            yield Problem(
                ("reagents", name, "reserve_ul"),
                f"the reserve of {reagent.reserve_ul:g} ul is not below the {reagent.loaded_ul:g} ul loaded",
                "Load more, or lower the reserve.",
            )


def blocks_of(step: object) -> list[tuple[str, str]]:
    """Key and name of the blocks that a step does."""
    if isinstance(step, Cycles):
        return [("block", step.block)] + ([("first_block", step.first_block)] if step.first_block else [])
    return [("block", step.block)] if isinstance(step, Repeat | Use) else []


def _block_problems(recipe: Recipe) -> Iterator[Problem]:
    known = ", ".join(recipe.block) or "none"
    for key, step in recipe.every_step():
        for word, name in blocks_of(step):
            if name not in recipe.block:
                yield Problem((*key, word), f"there is no block {shown(name)}", f"The recipe has: {known}.")
    for name in recipe.block:
        if name in _reached(recipe, name, set()):
            yield Problem(("block", name), f"the block {shown(name)} does itself again", "Blocks cannot go in circles.")


def _reached(recipe: Recipe, name: str, seen: set[str]) -> set[str]:
    for step in recipe.block.get(name, ()):
        for _, inner in blocks_of(step):
            if inner not in seen:
                seen.add(inner)
                _reached(recipe, inner, seen)
    return seen


def _read_problems(recipe: Recipe) -> Iterator[Problem]:
    for key, step in recipe.every_step():
        if not isinstance(step, Cycles):
            continue
        if step.read > len(recipe.read_structures):
            yield Problem(
                (*key, "read"),
                f"there is no read {step.read}: read_structures lists {len(recipe.read_structures)}",
                'List one structure for each read: read_structures = ["25C10M", "100T"].',
            )
        elif any(segment.length is None for segment in recipe.structures[step.read - 1].segments):
            yield Problem(
                ("read_structures", step.read - 1), "a read that is sequenced has no fixed length", "Write its bases."
            )


def _remedy(key: KeyPath) -> str:
    return "Begin each step of a block with [[block.NAME]], in double brackets." if key[:1] == ("block",) else ""


FILE = FileKind(
    name="recipe",
    tables={"": Recipe, "reagents": Reagent, "chip": ChipFacts},
    arrays=frozenset({"step"}),
    kinds=STEPS,
    tag="do",
    depths={"step": 2, "block": 3},
    remedy=_remedy,
)


def parse_recipe(text: str, source: str | Path = "recipe.toml") -> Recipe:
    """Read a recipe from its text.

    Raises:
        InputError: it is none; all faults in one message, with lines and keys.
    """
    document = parse(text, source)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise settings_error(source, text, problems_of(error, FILE)) from None


def load_recipe(path: str | Path) -> tuple[Recipe, str]:
    """Read a recipe file; return the recipe and its text.

    Raises:
        InputError: it cannot be read or is no recipe.
    """
    path = Path(path)
    text = read_text(path, FILE)
    return parse_recipe(text, path), text
