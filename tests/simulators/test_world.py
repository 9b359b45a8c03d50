"""The world: events in their order, its begin, and how it is built."""

from __future__ import annotations

from typing import Any

import pytest

from cartoseq.simulators.fluidics import Speeds, make_fluidics
from cartoseq.simulators.optics import LaserHead, Optics
from cartoseq.simulators.thermal import Plate
from cartoseq.simulators.world import World, make_world


def test_events_happen_in_the_order_of_their_times() -> None:
    world = World()
    seen: list[tuple[str, float]] = []
    world.at(2.0, lambda now_s: seen.append(("b", now_s)))
    world.at(1.0, lambda now_s: world.at(1.5, lambda then_s: seen.append(("a", then_s))) and None)
    world.at(2.0, lambda now_s: seen.append(("c", now_s)))
    world.at(0.5, lambda now_s: seen.append(("never", now_s))).cancel()
    world.at(3.0, lambda now_s: seen.append(("late", now_s)))
    world.advance(2.5)
    assert seen == [("a", 1.5), ("b", 2.0), ("c", 2.0)]
    world.advance(1.0)
    assert world.now_s == 2.5


def test_a_valve_that_turns_in_the_middle_of_a_stroke_parts_the_plugs_there() -> None:
    fluidics = make_fluidics(
        {
            "vessels": {"a": {"volume_ul": 100}, "b": {"volume_ul": 100}},
            "selectors": {"inlets": {"ports": {"1": "a", "2": "b"}}},
            "syringes": {"pump": {"barrel_ul": 100, "ports": {"I": "inlets"}, "port": "I"}},
        }
    )
    world = World(fluidics)
    fluidics.syringes["pump"].move(100.0, 0.0, Speeds(10.0))
    world.at(3.0, lambda now_s: setattr(fluidics.selectors["inlets"], "port", 2))
    seen = world.inspect(10.0)
    assert (seen["a.drawn_ul"], seen["b.drawn_ul"]) == (30.0, 70.0)


def test_the_whole_bench_can_be_looked_into() -> None:
    world = World(plates={"flow_cell": Plate()}, optics=Optics([LaserHead("green", 532.0, 100.0)]))
    assert world.inspect(1.0) == {
        "doors_closed": True,
        "green.emitting": False,
        "green.power_mw": 0.0,
        "flow_cell.plate_c": 22.0,
        "flow_cell.sink_c": 22.0,
        "flow_cell.target_c": 22.0,
        "flow_cell.current_a": 0.0,
        "flow_cell.regulated": False,
    }


def test_it_begins_when_it_is_first_looked_at() -> None:
    plate = Plate()
    plate.set_target(80.0)
    plate.regulate(True)
    world = World(plates={"flow_cell": plate})
    assert world.inspect(1e9)["flow_cell.plate_c"] == 22.0
    world.advance(1e9 + 1.0)
    assert plate.plate_c > 22.5


def test_a_bench_is_built_from_tables() -> None:
    world = make_world(
        {
            "vessels": {"wash": {"volume_ul": 10}},
            "plates": {"flow_cell": {"ambient_c": 25, "ti_s": 40.0}},
            "lasers": {"green": {"wavelength_nm": 532, "rated_mw": 100}},
            "beam": {"filter": 0.5},
        }
    )
    assert world.plates["flow_cell"].plate_c == 25.0
    assert world.plates["flow_cell"].gains.ti_s == 40.0
    assert world.optics.heads["green"].rated_mw == 100.0
    assert world.inspect(0.0)["wash.volume_ul"] == 10.0


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ({"bottles": {}}, "expected vessels, .*; found 'bottles'"),
        ({"plates": {"a": {"size": 1}}}, "plates.a: 'size' is not known"),
        ({"plates": {"a": {"ambient_c": "warm"}}}, "plates.a.ambient_c: expected a number, found 'warm'"),
        ({"lasers": {"a": {"wavelength_nm": 500}}}, "lasers.a.rated_mw is missing"),
        ({"beam": {"filter": 2.0}}, "filter: expected a share"),
    ],
)
def test_a_bench_with_a_mistake_is_refused(description: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make_world(description)
