"""The compiler: a recipe on an instrument, as numbered actions with their times and volumes, or the reasons why not.

Everything that can be known before anything moves is held here: reagents and ports, syringe and budget, temperatures
before incorporations, a deblock in every cycle, barcodes against the chip, travel, lights, and disk space. The result
is plain data: what the engine does is the list, in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cartoseq.controller.actions import (
    Action,
    AskOperator,
    Draw,
    Emission,
    Focus,
    Image,
    Incubation,
    PausePoint,
    Push,
    RegulationOff,
    SelectReagent,
    Settle,
    Stable,
    Target,
)
from cartoseq.controller.recipe import (
    Area,
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
)
from cartoseq.controller.scan import focus_places, tile_places
from cartoseq.controller.settingsfile import Problem, settings_error, shown
from cartoseq.controller.timing import Estimates, Timing
from cartoseq.controller.toml_lines import KeyPath
from cartoseq.drivers.capabilities import Range, XYLimits
from cartoseq.streaming.readstructure import SegmentKind

#: Disk space is held to suffice for this many times what is expected.
DISK_MARGIN: Final = 1.2
_RESERVE_BYTES: Final = 1 << 30
_OVERRUN: Final = 1.5
_TIMEOUT_FACTOR: Final = 3.0
_TIMEOUT_MARGIN_S: Final = 60.0


@dataclass(frozen=True)
class Facts:
    """What the compiler must know of an instrument; from the instrument file (`controller.instrument`).

    Attributes:
        barrel_ul: Of the syringe; 0 where there is no pump.
        flow_ul_per_s: What the pump can do.
        waste_flow_ul_per_s: How fast it empties to waste.
        ports: Of the selector valve; 0 where there is none.
        temperature_c: Allowed targets; nothing where there is no controller.
        lights_mw: Power limits of each laser, by name.
        travel: Of the stage; nothing where there is none.
        chip_um: Where the chip's corner lies on the stage.
        has_focus: Whether there is a focus axis.
        tile_um: Width and height of a picture on the chip; nothing where there is no camera.
        tile_bytes: Of one picture.
        estimates: What things take.
        free_bytes: Of the disk that the run writes to.
    """

    barrel_ul: float = 0.0
    flow_ul_per_s: Range = field(default_factory=lambda: Range(0.0, 0.0))
    waste_flow_ul_per_s: float = 100.0
    ports: int = 0
    temperature_c: Range | None = None
    lights_mw: dict[str, Range] = field(default_factory=dict)
    travel: XYLimits | None = None
    chip_um: tuple[float, float] = (0.0, 0.0)
    has_focus: bool = False
    tile_um: tuple[float, float] | None = None
    tile_bytes: int = 0
    estimates: Estimates = field(default_factory=Estimates)
    free_bytes: int = 1 << 60


@dataclass(frozen=True)
class PlannedStep:
    """One action of a plan.

    Attributes:
        number: From 1, as the journal says it.
        action: What is done.
        place: Where it comes from, for people: "read 1, cycle 3: block cycle, step 4".
        key: Where it stands in the recipe.
        path: Where it stands in the run, all from 1: the number of the recipe's own step, and where that does a block,
            the turn (or cycle), and the number of the block's step; and so on.
        start_s: When it begins, from the start of the run, as far as can be known.
        duration_s: How long it takes.
        on_fault: "abort" or "pause".
        tries: How often it may be tried when the line fails.
    """

    number: int
    action: Action
    place: str
    key: KeyPath
    path: tuple[int, ...]
    start_s: float
    duration_s: float
    on_fault: str
    tries: int


@dataclass(frozen=True)
class Plan:
    """A recipe on an instrument.

    Attributes:
        name: The recipe's.
        steps: What is done, in order.
        drawn_ul: How much of each reagent is drawn.
        loaded_ul: How much of each there is.
        waste_ul: How much goes to waste.
        disk_bytes: What pictures and base calls take.
        pictures: How many are taken.
    """

    name: str
    steps: tuple[PlannedStep, ...]
    drawn_ul: dict[str, float]
    loaded_ul: dict[str, float]
    waste_ul: float
    disk_bytes: int
    pictures: int

    @property
    def duration_s(self) -> float:
        """How long the run takes."""
        return self.steps[-1].start_s + self.steps[-1].duration_s if self.steps else 0.0


def compile_recipe(recipe: Recipe, facts: Facts, text: str, source: str | Path = "recipe.toml") -> Plan:
    """Make the plan of a recipe on an instrument.

    Args:
        recipe: What to do.
        facts: On what.
        text: The recipe's text, for the lines of what is wrong.
        source: The recipe's file.

    Raises:
        InputError: it cannot be run on this instrument; all reasons in one message, with lines and keys.
    """
    compiler = _Compiler(recipe, facts)
    plan = compiler.plan()
    if compiler.problems:
        raise settings_error(source, text, list(dict.fromkeys(compiler.problems)))
    return plan


def tiles(area: Area, tile_um: tuple[float, float], overlap_percent: float) -> tuple[int, int]:
    """Return how many tiles cover an area, along x and y, with an overlap."""

    def along(length_um: float, tile: float) -> int:
        step = tile * (1 - overlap_percent / 100)
        return 1 + max(0, math.ceil((length_um - tile) / step - 1e-9))

    return along(area.width_um, tile_um[0]), along(area.height_um, tile_um[1])


class _Compiler:
    """One pass over a recipe; what it finds wrong is in `problems`."""

    def __init__(self, recipe: Recipe, facts: Facts) -> None:
        self.recipe = recipe
        self.facts = facts
        self.problems: list[Problem] = []
        self.steps: list[PlannedStep] = []
        self.now_s = 0.0
        self.path: tuple[int, ...] = ()
        self.selected: str | None = None
        self.held_ul = 0.0
        self.timing = Timing(facts.estimates, facts.ports, facts.chip_um)
        self.target_c = facts.estimates.start_c
        self.regulated = self.verified = False
        self.drawn_ul = dict.fromkeys(recipe.reagents, 0.0)
        self.waste_ul = 0.0
        self.disk_bytes = 0
        self.pictures = 0
        self.focused = False
        self.cycle = 0
        self.sequenced: dict[int, int] = {}

    def plan(self) -> Plan:
        self._check_chip()
        self._do(self.recipe.step, ("step",), "")
        self._check_reads()
        self._check_budget()
        self._check_disk()
        return Plan(
            self.recipe.name,
            tuple(self.steps),
            self.drawn_ul,
            {name: reagent.loaded_ul for name, reagent in self.recipe.reagents.items()},
            self.waste_ul,
            self.disk_bytes,
            self.pictures,
        )

    def wrong(self, key: KeyPath, text: str, remedy: str) -> None:
        self.problems.append(Problem(key, text, remedy))

    def add(self, action: Action, duration_s: float, place: str, key: KeyPath, step: Step) -> None:
        number = len(self.steps) + 1
        self.steps.append(
            PlannedStep(number, action, place, key, self.path, self.now_s, duration_s, step.on_fault, step.tries)
        )
        self.now_s += duration_s
        self.timing.go_on(duration_s)

    # ------------------------------------------------------------------------------------------------ steps to actions

    def _do(self, steps: tuple[Step, ...], key: KeyPath, where: str, path: tuple[int, ...] = ()) -> None:
        for number, step in enumerate(steps):
            here = (*key, number)
            place = f"{where}step {number + 1}"
            self.path = (*path, number + 1)
            match step:
                case Flow():
                    self._flow(step, step.reagent, step.volume_ul, step.flow_ul_per_s, place, here)
                    if step.settle_s:
                        self.add(Settle(step.settle_s), step.settle_s, place, here, step)
                    if step.to_waste:
                        self._empty(step, place, here)
                case Prime():
                    names = step.reagents or [name for name, bottle in self.recipe.reagents.items() if bottle.prime]
                    for name in names:
                        self._flow(step, name, step.volume_ul, step.flow_ul_per_s, place, here)
                        self._empty(step, place, here)
                case Wash():
                    for _ in range(step.times):
                        self._flow(step, step.reagent, step.volume_ul, step.flow_ul_per_s, place, here)
                        self._empty(step, place, here)
                case PushBack():
                    self._push_back(step, place, here)
                case Empty():
                    self._empty(step, place, here)
                case Incubate():
                    most_s = step.most_s if step.most_s is not None else _OVERRUN * step.duration_s
                    self.add(Incubation(step.duration_s, most_s), step.duration_s, place, here, step)
                case SetTemperature() | WaitStable() | TemperatureOff():
                    self._temperature(step, place, here)
                case Laser():
                    self._laser(step, place, here)
                case Autofocus():
                    self._autofocus(step, place, here)
                case ImageTiles():
                    self._image(step, place, here)
                case Checkpoint():
                    if self.held_ul:
                        self.wrong(
                            here,
                            f"the syringe holds {self.held_ul:g} ul at this checkpoint",
                            'Add do = "empty" before it: a run that pauses there may not be left so.',
                        )
                    self.add(PausePoint(step.label), 0.0, place, here, step)
                case Hold():
                    self.add(AskOperator(step.message), 0.0, place, here, step)
                case Cycles():
                    self._cycles(step, where, here)
                case Repeat() | Use():
                    times = step.times if isinstance(step, Repeat) else 1
                    for turn in range(times):
                        again = f"{turn + 1} of {times}, " if times > 1 else ""
                        steps_of = self.recipe.block[step.block]
                        before = f"{where}{again}block {step.block}, "
                        self._do(steps_of, ("block", step.block), before, (*path, number + 1, turn + 1))

    def _flow(self, step: Step, reagent: str, volume_ul: float, flow_ul_per_s: float, place: str, key: KeyPath) -> None:
        facts, bottle = self.facts, self.recipe.reagents[reagent]
        if not facts.barrel_ul or not facts.ports:
            self.wrong(key, "the instrument has no pump with a selector valve", "Describe them in the instrument file.")
            return
        if bottle.port > facts.ports:
            self.wrong(
                ("reagents", reagent, "port"),
                f"port {bottle.port} is not one of the valve's {facts.ports}",
                "Correct the port.",
            )
        if flow_ul_per_s not in facts.flow_ul_per_s:
            self.wrong(
                (*key, "flow_ul_per_s"),
                f"{flow_ul_per_s:g} ul/s is outside the pump's {_range(facts.flow_ul_per_s)} ul/s",
                "Choose a flow that the pump can do.",
            )
        if self.held_ul + volume_ul > facts.barrel_ul + 1e-9:
            held = f" besides the {self.held_ul:g} ul that it holds" if self.held_ul else ""
            self.wrong(
                (*key, "volume_ul"),
                f"{volume_ul:g} ul do not fit into the syringe of {facts.barrel_ul:g} ul{held}",
                "Split it, or empty the syringe before.",
            )
        if bottle.role == "incorporation" and not isinstance(step, Prime) and not (self.regulated and self.verified):
            self.wrong(
                key,
                f"{reagent} is an incorporation, but no temperature was verified before it",
                'Set it with verify = true before, or add do = "wait_stable".',
            )
        if self.selected != reagent:
            self.add(SelectReagent(reagent, bottle.port), self.timing.select_s(bottle.port), place, key, step)
            self.selected = reagent
        duration_s = self.timing.stroke_s(volume_ul, flow_ul_per_s, "flow_cell")
        self.add(Draw(reagent, volume_ul, flow_ul_per_s), duration_s, place, key, step)
        self.held_ul += volume_ul
        self.drawn_ul[reagent] += volume_ul

    def _push_back(self, step: PushBack, place: str, key: KeyPath) -> None:
        if step.volume_ul > self.held_ul + 1e-9:
            self.wrong(
                (*key, "volume_ul"),
                f"the syringe holds {self.held_ul:g} ul, {step.volume_ul:g} ul cannot be pushed back",
                "Flow with to_waste = false before, or push less.",
            )
            return
        if step.flow_ul_per_s not in self.facts.flow_ul_per_s:
            self.wrong(
                (*key, "flow_ul_per_s"),
                f"{step.flow_ul_per_s:g} ul/s is outside the pump's {_range(self.facts.flow_ul_per_s)} ul/s",
                "Choose a flow that the pump can do.",
            )
        duration_s = self.timing.stroke_s(step.volume_ul, step.flow_ul_per_s, "flow_cell")
        self.add(Push("flow_cell", step.volume_ul, step.flow_ul_per_s), duration_s, place, key, step)
        self.held_ul -= step.volume_ul

    def _empty(self, step: Step, place: str, key: KeyPath) -> None:
        if self.held_ul <= 1e-9:
            self.held_ul = 0.0
            return
        flow = self.facts.waste_flow_ul_per_s
        self.add(Push("waste", self.held_ul, flow), self.timing.stroke_s(self.held_ul, flow, "waste"), place, key, step)
        self.waste_ul += self.held_ul
        self.held_ul = 0.0

    def _temperature(self, step: SetTemperature | WaitStable | TemperatureOff, place: str, key: KeyPath) -> None:
        facts = self.facts
        if facts.temperature_c is None:
            self.wrong(key, "the instrument has no temperature controller", "Describe it in the instrument file.")
            return
        if isinstance(step, TemperatureOff):
            self.regulated = self.verified = False
            self.add(RegulationOff(), self.timing.off_s(), place, key, step)
            return
        if isinstance(step, SetTemperature):
            if step.temperature_c not in facts.temperature_c:
                self.wrong(
                    (*key, "temperature_c"),
                    f"{step.temperature_c:g} C is outside the controller's {_range(facts.temperature_c)} C",
                    "Choose an allowed temperature.",
                )
            if step.temperature_c != self.target_c or not self.regulated:
                self.verified = False
            self.target_c = step.temperature_c
            self.regulated = True
            self.add(Target(step.temperature_c), self.timing.target_s(step.temperature_c), place, key, step)
            if not step.verify:
                return
        elif not self.regulated:
            self.wrong(key, "no temperature was set that could be waited for", 'Add do = "set_temperature" before.')
            return
        # A run that is taken up again may find the plate as it was before the run.
        timeout_s = _TIMEOUT_FACTOR * (self.timing.longest_ramp_s() + step.dwell_s) + _TIMEOUT_MARGIN_S
        action = Stable(self.target_c, step.tolerance_c, step.dwell_s, timeout_s)
        self.add(action, self.timing.ramp_s() + step.dwell_s, place, key, step)
        self.verified = True

    def _laser(self, step: Laser, place: str, key: KeyPath) -> None:
        limits = self.facts.lights_mw.get(step.device)
        if limits is None:
            self._no_light(step.device, (*key, "device"))
            return
        power_mw = step.power_mw or 0.0
        if step.on and power_mw not in limits:
            self.wrong(
                (*key, "power_mw"),
                f"{power_mw:g} mW is outside the {_range(limits)} mW of {step.device}",
                "Choose an allowed power.",
            )
        self.add(Emission(step.device, step.on, power_mw), self.timing.light_s(), place, key, step)

    def _no_light(self, name: str, key: KeyPath) -> None:
        known = ", ".join(self.facts.lights_mw) or "none"
        self.wrong(key, f"there is no laser {shown(name)}", f"The instrument has: {known}.")

    def _view(self, channels: tuple[Channel, ...], area: Area | None, key: KeyPath) -> Area | None:
        """Check what imaging needs; return the area."""
        facts = self.facts
        if facts.tile_um is None or facts.travel is None:
            self.wrong(key, "the instrument has no camera on a stage", "Describe them in the instrument file.")
            return None
        for channel in channels:
            limits = facts.lights_mw.get(channel.light)
            if limits is None:
                self._no_light(channel.light, key)
            elif channel.power_mw not in limits:
                self.wrong(
                    key,
                    f"{channel.power_mw:g} mW is outside the {_range(limits)} mW of {channel.light}",
                    "Choose an allowed power.",
                )
        if area is None:
            if self.recipe.chip is None:
                self.wrong(
                    key, "neither an area nor a chip says what is imaged", "Add area = {...}, or a [chip] table."
                )
                return None
            area = Area(x_um=0, y_um=0, width_um=self.recipe.chip.width_um, height_um=self.recipe.chip.height_um)
        for word, low_um, size_um, corner_um, limits in (
            ("x", area.x_um, area.width_um, facts.chip_um[0], facts.travel.x_um),
            ("y", area.y_um, area.height_um, facts.chip_um[1], facts.travel.y_um),
        ):
            begin_um, end_um = corner_um + low_um, corner_um + low_um + size_um
            if begin_um not in limits or end_um not in limits:
                self.wrong(
                    key,
                    f"the area lies from {begin_um:g} to {end_um:g} um along {word}, "
                    f"outside the stage's travel of {_range(limits)} um",
                    "Correct the area, or the chip's place in the instrument file.",
                )
        return area

    def _autofocus(self, step: Autofocus, place: str, key: KeyPath) -> None:
        if not self.facts.has_focus:
            self.wrong(key, "the instrument has no focus axis", "Describe it in the instrument file.")
        area = self._view((step.channel,), step.area, key)
        if area is not None:
            self.focused = True
            action = Focus(step.channel, area, step.points, step.sweep_um)
            duration_s = sum(
                self._move_s(x_um, y_um) + self.timing.sweep_s(step.channel.exposure_ms, step.sweep_um)
                for x_um, y_um in focus_places(area, step.points)
            )
            self.add(action, duration_s, place, key, step)

    def _image(self, step: ImageTiles, place: str, key: KeyPath) -> None:
        area = self._view(step.channels, step.area, key)
        if area is None or self.facts.tile_um is None:
            return
        if self.facts.has_focus and not self.focused:
            self.wrong(key, "tiles are imaged before the focus was found", 'Add do = "autofocus" before.')
        across, down = tiles(area, self.facts.tile_um, step.overlap_percent)
        action = Image(step.channels, area, step.overlap_percent, across, down, step.most_retakes, self.cycle)
        exposures_ms = [channel.exposure_ms for channel in step.channels]
        duration_s = sum(
            self._move_s(x_um, y_um) + self.timing.tile_s(exposures_ms, has_focus=self.facts.has_focus)
            for _, _, x_um, y_um in tile_places(area, self.facts.tile_um, step.overlap_percent, across, down)
        )
        self.add(action, duration_s, place, key, step)
        self.pictures += across * down * len(step.channels)
        self.disk_bytes += across * down * len(step.channels) * self.facts.tile_bytes

    def _move_s(self, x_um: float, y_um: float) -> float:
        """Move to a place on the chip."""
        corner_um = self.facts.chip_um
        return self.timing.move_s(corner_um[0] + x_um, corner_um[1] + y_um)

    def _cycles(self, step: Cycles, where: str, key: KeyPath) -> None:
        length = sum(segment.length or 0 for segment in self.recipe.structures[step.read - 1].segments)
        self.sequenced[step.read] = self.sequenced.get(step.read, 0) + length
        for name in dict.fromkeys((step.block, step.first_block or step.block)):
            roles = [self.recipe.reagents[reagent].role for reagent in self._reagents_of(name)]
            if "incorporation" not in roles:
                self.wrong(
                    ("block", name),
                    f"read {step.read} is sequenced with it, but it incorporates nothing",
                    'Flow a reagent with role = "incorporation" in it.',
                )
            elif "deblock" not in roles and name == step.block:
                self.wrong(
                    ("block", name),
                    "a cycle without a deblock: its next incorporation would find every end blocked",
                    'Flow a reagent with role = "deblock" in it.',
                )
        path = self.path
        self.cycle = sum(self.sequenced.values()) - length
        for cycle in range(1, length + 1):
            self.cycle += 1
            name = step.first_block if cycle == 1 and step.first_block else step.block
            before = f"{where}read {step.read}, cycle {cycle}: block {name}, "
            self._do(self.recipe.block[name], ("block", name), before, (*path, cycle))
            self.disk_bytes += self.recipe.clusters
        self.cycle = 0

    def _reagents_of(self, block: str) -> Iterator[str]:
        for step in self.recipe.block[block]:
            if isinstance(step, Flow | Wash):
                yield step.reagent
            elif isinstance(step, Repeat | Use):
                yield from self._reagents_of(step.block)

    # --------------------------------------------------------------------------------------------------- whole recipe

    def _check_chip(self) -> None:
        chip, structures = self.recipe.chip, self.recipe.structures
        if chip is None or not structures:
            return
        bases = dict.fromkeys(SegmentKind, 0)
        for structure in structures:
            for segment in structure.segments:
                bases[segment.kind] += segment.length or 0
        for kind, words, expected in (
            (SegmentKind.SPATIAL, "spatial barcodes", chip.barcode_bases),
            (SegmentKind.MOLECULAR, "molecular barcodes", chip.mid_bases),
        ):
            if bases[kind] != expected:
                self.wrong(
                    ("read_structures",),
                    f"the reads have {bases[kind]} bases of {words} ({kind.value}), the chip has {expected}",
                    "Correct the read structures, or the [chip] table.",
                )

    def _check_reads(self) -> None:
        for number, structure in enumerate(self.recipe.structures, start=1):
            length = sum(segment.length or 0 for segment in structure.segments)
            done = self.sequenced.get(number, 0)
            if done == 0:
                text, remedy = f"read {number} is never sequenced", f'Add do = "cycles" with read = {number}.'
            elif done != length:
                text, remedy = f"read {number} is sequenced {done // max(1, length)} times", "Sequence each read once."
            else:
                continue
            self.wrong(("read_structures", number - 1), text, remedy)

    def _check_budget(self) -> None:
        for name, bottle in self.recipe.reagents.items():
            usable_ul = bottle.loaded_ul - bottle.reserve_ul
            if self.drawn_ul[name] > usable_ul + 1e-6:
                self.wrong(
                    ("reagents", name, "loaded_ul"),
                    f"the run draws {self.drawn_ul[name]:,.0f} ul of {name}, {usable_ul:,.0f} ul can be drawn",
                    f"Load at least {self.drawn_ul[name] + bottle.reserve_ul:,.0f} ul.",
                )
        if self.held_ul > 1e-9:
            self.wrong(
                ("step", len(self.recipe.step) - 1),
                f"the run ends with {self.held_ul:g} ul in the syringe",
                'Add do = "empty" at the end.',
            )

    def _check_disk(self) -> None:
        needed = int(DISK_MARGIN * self.disk_bytes) + _RESERVE_BYTES
        if self.disk_bytes and needed > self.facts.free_bytes:
            self.wrong(
                ("name",),
                f"the run writes about {self.disk_bytes / 1e9:,.1f} GB, and the disk has "
                f"{self.facts.free_bytes / 1e9:,.1f} GB free",
                f"Free {(needed - self.facts.free_bytes) / 1e9:,.1f} GB, or choose another disk with --out.",
            )


def _range(limits: Range) -> str:
    return f"{limits.low:g} to {limits.high:g}"
