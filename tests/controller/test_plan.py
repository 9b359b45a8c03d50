from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from cartoseq.controller.actions import Draw, Image, Push, SelectReagent, Stable, Target
from cartoseq.controller.plan import Facts, Plan, compile_recipe, tiles
from cartoseq.controller.recipe import Area, load_recipe, parse_recipe
from cartoseq.drivers.capabilities import Range, XYLimits
from cartoseq.streaming.errors import InputError

RECIPES = Path(__file__).parents[2] / "recipes"
FACTS = Facts(
    barrel_ul=500,
    flow_ul_per_s=Range(0.5, 100),
    ports=10,
    temperature_c=Range(4, 80),
    lights_mw={"green": Range(1, 100), "red": Range(1, 100)},
    travel=XYLimits(Range(0, 20_000), Range(0, 20_000)),
    chip_um=(1_000, 1_000),
    has_focus=True,
    tile_um=(500, 400),
    tile_bytes=2 * 1_000 * 800,
)
SOUND = """\
name = "short"
read_structures = ["2C"]
[chip]
barcode_bases = 2
mid_bases = 0
width_um = 900
height_um = 400
[reagents]
mix = { port = 1, loaded_ul = 1000, role = "incorporation" }
cleave = { port = 2, loaded_ul = 1000, role = "deblock" }
wash = { port = 3, loaded_ul = 1000, reserve_ul = 100, role = "wash", prime = true }
[[block.cycle]]
do = "set_temperature"
temperature_c = 60
verify = true
[[block.cycle]]
do = "flow"
reagent = "cleave"
volume_ul = 100
flow_ul_per_s = 10
[[block.cycle]]
do = "flow"
reagent = "mix"
volume_ul = 200
flow_ul_per_s = 10
to_waste = false
[[block.cycle]]
do = "push_back"
volume_ul = 50
flow_ul_per_s = 10
[[block.cycle]]
do = "empty"
[[block.cycle]]
do = "image_tiles"
overlap_percent = 10
channels = [{ name = "green", light = "green", power_mw = 50, exposure_ms = 100 }]
[[step]]
do = "prime"
volume_ul = 300
flow_ul_per_s = 30
[[step]]
do = "autofocus"
channel = { name = "green", light = "green", power_mw = 50, exposure_ms = 100 }
[[step]]
do = "cycles"
read = 1
block = "cycle"
[[step]]
do = "checkpoint"
label = "end"
"""


def compiled(text: str, facts: Facts = FACTS) -> Plan:
    return compile_recipe(parse_recipe(text), facts, text)


def test_a_recipe_becomes_numbered_actions_with_times_and_volumes() -> None:
    plan = compiled(SOUND)
    assert [step.number for step in plan.steps] == list(range(1, len(plan.steps) + 1))
    assert plan.drawn_ul == {"mix": 400, "cleave": 200, "wash": 300}
    assert plan.waste_ul == 900 - 2 * 50
    assert plan.pictures == 2 * 2
    first = [type(step.action) for step in plan.steps[:6]]
    assert first[:3] == [SelectReagent, Draw, Push]
    assert all(after.start_s == before.start_s + before.duration_s for before, after in pairwise(plan.steps))
    assert plan.steps[-2].place == "read 1, cycle 2: block cycle, step 6"


def test_a_temperature_that_holds_already_costs_no_ramp() -> None:
    waits = [step.duration_s for step in compiled(SOUND).steps if isinstance(step.action, Stable)]
    estimates = FACTS.estimates
    assert waits == pytest.approx([60 - 22 - estimates.order_s + estimates.settle_s + 5, 5])


def test_the_same_bottle_is_not_selected_twice_in_a_row() -> None:
    flow = '[[step]]\ndo = "flow"\nreagent = "{}"\nvolume_ul = 10\nflow_ul_per_s = 10\n'
    plan = compiled(SOUND + "".join(flow.format(name) for name in ("wash", "wash", "cleave", "wash")))
    selected = [step.action.reagent for step in plan.steps if isinstance(step.action, SelectReagent)]
    assert selected == ["wash", "cleave", "mix", "cleave", "mix", "wash", "cleave", "wash"]


def test_tiles_cover_the_area_and_no_more() -> None:
    area = Area(x_um=0, y_um=0, width_um=950, height_um=400)
    assert tiles(area, (500, 400), 10) == (2, 1)
    assert tiles(replace_width(area, 950.1), (500, 400), 10) == (3, 1)
    assert tiles(replace_width(area, 10), (500, 400), 10) == (1, 1)


def replace_width(area: Area, width_um: float) -> Area:
    return area.model_copy(update={"width_um": width_um})


def test_the_cycle_of_a_picture_is_told_and_counted_through_all_reads() -> None:
    text = SOUND.replace('["2C"]', '["2C", "1B"]')
    text += '[[step]]\ndo = "cycles"\nread = 2\nblock = "cycle"\n'
    text += '[[step]]\ndo = "use"\nblock = "look"\n[[block.look]]\ndo = "image_tiles"\n'
    text += 'channels = [{ name = "green", light = "green", power_mw = 50, exposure_ms = 100 }]\n'
    cycles = [step.action.cycle for step in compiled(text).steps if isinstance(step.action, Image)]
    assert cycles == [1, 2, 3, 0]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_compile(path: Path) -> None:
    recipe, text = load_recipe(path)
    plan = compile_recipe(recipe, FACTS, text, path)
    assert plan.duration_s > 0
    for name, drawn_ul in plan.drawn_ul.items():
        assert drawn_ul <= recipe.reagents[name].loaded_ul


def test_a_published_cycle_is_expressed_with_its_volumes_and_order() -> None:
    # Volumes per cycle as published: 972 wash, 296 cleavage, 380 second wash, 388 incorporation, 388 scan.
    recipe, text = load_recipe(RECIPES / "novaseq-s4-style.toml")
    plan = compile_recipe(recipe, FACTS, text)
    cycle = [step for step in plan.steps if step.place.startswith("read 1, cycle 7:")]
    drawn: dict[str, float] = {}
    for step in cycle:
        if isinstance(step.action, Draw):
            drawn[step.action.reagent] = drawn.get(step.action.reagent, 0) + step.action.volume_ul
    assert drawn == {"VB2": 972, "VCM": 296, "VB8": 380, "VIM": 388, "VSM": 388}
    assert [s.action.volume_ul for s in cycle if isinstance(s.action, Push) and s.action.to == "flow_cell"] == [
        41, 184, 41, 41, 204,
    ]  # fmt: skip
    assert [s.action.temperature_c for s in cycle if isinstance(s.action, Target)] == [55, 60, 20]


def test_the_second_published_cycle_is_expressed_as_well() -> None:
    recipe, text = load_recipe(RECIPES / "genome-analyzer-style.toml")
    plan = compile_recipe(recipe, FACTS, text)
    cycle = [step for step in plan.steps if step.place.startswith("read 1, cycle 3:")]
    drawn = [(s.action.reagent, s.action.volume_ul) for s in cycle if isinstance(s.action, Draw)]
    assert drawn == [
        ("rinse", 125), ("cleavage", 50), ("cleavage", 25), ("cleavage", 25), ("cleavage", 25), ("rinse", 75),
        ("incorporation", 50), ("incorporation", 25), ("incorporation", 25), ("incorporation", 25), ("rinse", 75),
        ("scan", 75),
    ]  # fmt: skip
    image = next(s.action for s in cycle if isinstance(s.action, Image))
    assert [channel.exposure_ms for channel in image.channels] == [500, 350, 200, 175]


CHANNEL = '{ name = "green", light = "green", power_mw = 50, exposure_ms = 100 }'
#: What is changed in the sound recipe, on what line and key the message points, and what it says.
BAD: list[tuple[str, str, str, str]] = [
    ('reagent = "mix"', 'reagent = "mux"', "line 23, key block.cycle[2].reagent", 'no reagent "mux"'),
    ("mix = { port = 1,", "mix = { port = 11,", "key reagents.mix.port", "port 11 is not one of the valve's 10"),
    ("mix = { port = 1,", "mix = { port = 2,", "key reagents.cleave.port", "port 2 is also that of mix"),
    ("mix = { port = 1,", "mix = { port = 0,", "key reagents.mix.port", "at least 1"),
    ("volume_ul = 200", "volume_ul = 600", "line 24, key block.cycle[2].volume_ul", "do not fit into the syringe"),
    ("volume_ul = 200", "volume_ul = -1", "line 24, key block.cycle[2].volume_ul", "a number above 0"),
    ("volume_ul = 200", "volume_ul = inf", "line 24, key block.cycle[2].volume_ul", "finite"),
    ("volume_ul = 200", 'volume_ul = "much"', "line 24, key block.cycle[2].volume_ul", 'found "much"'),
    ("flow_ul_per_s = 30", "flow_ul_per_s = 300", "key step[0]", "300 ul/s is outside the pump's 0.5 to 100"),
    ("cleave = { port = 2, loaded_ul = 1000", "cleave = { port = 2, loaded_ul = 199", "line 10, key reagents.cleave",
     "draws 200 ul of cleave, 199 ul can be drawn"),
    ("reserve_ul = 100", "reserve_ul = 701", "line 11, key reagents.wash", "draws 300 ul of wash, 299 ul can be drawn"),
    ("reserve_ul = 100", "reserve_ul = 1000", "line 11, key reagents.wash.reserve_ul", "is not below"),
    ("verify = true", "verify = false", "line 21, key block.cycle[2]", "no temperature was verified before it"),
    ("temperature_c = 60", "temperature_c = 90", "line 14, key block.cycle[0].temperature_c", "outside the"),
    ("temperature_c = 60", "temperature_c = 900", "line 14, key block.cycle[0].temperature_c", "at most 120"),
    ('role = "deblock"', 'role = "wash"', "line 12, key block.cycle", "a cycle without a deblock"),
    ('role = "incorporation"', 'role = "scan"', "line 12, key block.cycle", "it incorporates nothing"),
    ("barcode_bases = 2", "barcode_bases = 25", "line 2, key read_structures", "2 bases of spatial barcodes (C)"),
    ('["2C"]', '["2C1M"]', "line 2, key read_structures", "1 bases of molecular barcodes (M)"),
    ('["2C"]', '["2C", "9T"]', "line 2, key read_structures[1]", "read 2 is never sequenced"),
    ('["2C"]', '["+C"]', "line 2, key read_structures[0]", "no fixed length"),
    ('["2C"]', '["2Q"]', "line 2, key read_structures[0]", "is no read structure"),
    ("read = 1", "read = 3", "key step[2].read", "there is no read 3"),
    ("width_um = 900", "width_um = 90000", "key step[1]", "outside the stage's travel of 0 to 20000 um"),
    ('do = "empty"', 'do = "checkpoint"\nlabel = "full"', "line 31, key block.cycle[4]", "the syringe holds 150 ul"),
    ("volume_ul = 50\n", "volume_ul = 250\n", "line 29, key block.cycle[3].volume_ul", "250 ul cannot be pushed back"),
    ('light = "green", power_mw = 50, exposure_ms = 100 }]', 'light = "blue", power_mw = 50, exposure_ms = 100 }]',
     "line 33, key block.cycle[5]", 'there is no laser "blue"'),
    ("power_mw = 50, exposure_ms = 100 }]", "power_mw = 500, exposure_ms = 100 }]", "line 33, key block.cycle[5]",
     "500 mW is outside the 1 to 100 mW of green"),
    ('[[step]]\ndo = "autofocus"\nchannel = ' + CHANNEL + "\n", "", "line 33, key block.cycle[5]", "before the focus"),
    ('block = "cycle"', 'block = "cycles"', "key step[2].block", 'there is no block "cycles"'),
    ('do = "empty"', 'do = "emty"', "line 32, key block.cycle[4].do", 'Did you mean "empty"?'),
    ('do = "empty"', 'do = "use"\nblock = "cycle"', "key block.cycle", "does itself again"),
    ('label = "end"', 'label = "end"\nlable = "x"', "line 51, key step[3].lable", 'Did you mean "label"?'),
    ("overlap_percent = 10", "overlap_percent = 50", "key block.cycle[5].overlap_percent", "a number below 50"),
    ("", "", "key name", "the disk has 0.0 GB free"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "place", "says"), BAD, ids=[f"{i:02d}" for i in range(len(BAD))])
def test_a_bad_recipe_is_rejected_by_line_and_key(old: str, new: str, place: str, says: str) -> None:
    assert old in SOUND
    text = SOUND.replace(old, new, 1)
    with pytest.raises(InputError) as rejected:
        compiled(text, FACTS if old else replace(FACTS, free_bytes=1_000))
    message = str(rejected.value)
    assert place in message
    assert says in message
    assert "line " in message


def test_thirty_kinds_of_bad_recipes_are_tried() -> None:
    assert len(BAD) >= 30


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        ({"barrel_ul": 0.0}, "no pump with a selector valve"),
        ({"temperature_c": None}, "no temperature controller"),
        ({"tile_um": None}, "no camera on a stage"),
        ({"has_focus": False}, "no focus axis"),
    ],
)
def test_what_an_instrument_lacks_is_said(lacking: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        compiled(SOUND, replace(FACTS, **lacking))  # type: ignore[arg-type]


def test_a_fault_in_a_block_that_is_called_as_its_step_has_its_line_and_key() -> None:
    text = SOUND.replace("block.cycle", "block.wash").replace('block = "cycle"', 'block = "wash"')
    text = text.replace("volume_ul = 50\n", "volume_ul = -50\n").replace("power_mw = 50", "power_mv = 50", 1)
    with pytest.raises(InputError) as caught:
        parse_recipe(text)
    message = str(caught.value)
    number = text[: text.index("volume_ul = -50")].count("\n") + 1
    assert message.startswith(f"recipe.toml: line {number}, key block.wash[3].volume_ul: expected a number above 0")
    assert 'key block.wash[5].channels[0].power_mv: unknown key "power_mv". Did you mean "power_mw"?' in message


def test_an_action_knows_its_place_in_the_run() -> None:
    repeated = '[[block.rinse]]\ndo = "use"\nblock = "once"\n[[block.once]]\ndo = "checkpoint"\nlabel = "x"\n'
    plan = compiled(SOUND + repeated + '[[step]]\ndo = "repeat"\nblock = "rinse"\ntimes = 2\n')
    assert [step.path for step in plan.steps[-2:]] == [(5, 1, 1, 1, 1), (5, 2, 1, 1, 1)]
    images = [step.path for step in plan.steps if isinstance(step.action, Image)]
    assert images == [(3, 1, 6), (3, 2, 6)]
