"""Fluids: what stands where, exact volumes, and plungers in time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.simulators.fluidics import (
    AIR,
    FL_PER_UL,
    Column,
    Filling,
    Fluidics,
    Plug,
    Speeds,
    Stroke,
    femtolitres,
    make_fluidics,
    volume_of,
)

QUICK = Speeds(50.0)


def bench(bottle_ul: float = 1000.0) -> Fluidics:
    return make_fluidics(
        {
            "vessels": {
                "dye": {"volume_ul": bottle_ul},
                "wash": {"volume_ul": 5000.0},
                "waste": {},
            },
            "selectors": {"inlets": {"ports": {1: "dye", 2: "wash"}, "port": 2}},
            "pipes": {
                "tube": {"volume_ul": 40.0, "far": "inlets", "reagent": "wash"},
                "flow_cell": {"volume_ul": 20.0, "far": "tube", "reagent": "wash"},
            },
            "syringes": {"pump": {"barrel_ul": 250.0, "ports": {"I": "flow_cell", "O": "waste"}, "port": "I"}},
        }
    )


def stroke(fluids: Fluidics, target_ul: float, begin_s: float = 0.0) -> float:
    pump = fluids.syringes["pump"]
    end_s = pump.move(target_ul, begin_s, QUICK)
    pump.advance(end_s)
    return end_s


def test_a_reagent_reaches_the_flow_cell_once_the_tube_is_displaced() -> None:
    fluids = bench()
    fluids.selectors["inlets"].port = 1
    flow_cell = fluids.pipes["flow_cell"]
    stroke(fluids, 40.0)
    assert flow_cell.filling() == Filling("wash", 1.0)
    stroke(fluids, 45.0)
    assert flow_cell.filling() == Filling("wash", 0.75)
    stroke(fluids, 55.0)
    assert flow_cell.filling() == Filling("dye", 0.75)
    stroke(fluids, 60.0)
    assert flow_cell.filling() == Filling("dye", 1.0)
    assert fluids.vessels["dye"].drawn_fl == 60 * FL_PER_UL
    assert fluids.syringes["pump"].column.volumes_fl() == {"wash": 60 * FL_PER_UL}


def test_what_is_drawn_ends_in_the_waste() -> None:
    fluids = bench()
    end_s = stroke(fluids, 100.0)
    fluids.syringes["pump"].port = "O"
    stroke(fluids, 0.0, end_s)
    assert fluids.vessels["waste"].column.plugs() == [Plug("wash", 100 * FL_PER_UL)]


def test_an_empty_bottle_gives_air_and_air_leaves_through_the_vent() -> None:
    fluids = bench(bottle_ul=10.0)
    fluids.selectors["inlets"].port = 1
    before = fluids.volumes_fl()
    end_s = stroke(fluids, 100.0)
    assert fluids.pipes["flow_cell"].filling() == Filling(AIR, 1.0)
    assert fluids.inspect()["dye.volume_ul"] == 0.0
    fluids.syringes["pump"].port = "O"
    stroke(fluids, 0.0, end_s)
    assert fluids.vessels["waste"].column.volumes_fl() == {"wash": 60 * FL_PER_UL, "dye": 10 * FL_PER_UL}
    assert fluids.volumes_fl() == before


def test_pushing_back_soils_the_bottle_that_is_connected() -> None:
    fluids = bench()
    end_s = stroke(fluids, 100.0)
    fluids.selectors["inlets"].port = 1
    stroke(fluids, 90.0, end_s)
    assert fluids.vessels["dye"].column.plugs()[0] == Plug("wash", 10 * FL_PER_UL)


@pytest.mark.parametrize("port", [None, "B"])
def test_without_a_path_the_plunger_stalls_at_once(port: str | None) -> None:
    fluids = bench()
    pump = fluids.syringes["pump"]
    pump.port = port
    stroke(fluids, 10.0)
    assert pump.stalled
    assert pump.volume_ul == 0.0


def test_a_selector_between_two_ports_is_closed() -> None:
    fluids = bench()
    fluids.selectors["inlets"].port = None
    stroke(fluids, 10.0)
    assert fluids.syringes["pump"].stalled
    assert fluids.inspect()["inlets.port"] == 0


def test_a_plunger_sticks_runs_against_its_ends_and_is_free_again() -> None:
    fluids = bench()
    pump = fluids.syringes["pump"]
    pump.sticks_at_ul = 70.0
    stroke(fluids, 100.0)
    assert (pump.stalled, pump.volume_ul) == (True, 70.0)
    pump.sticks_at_ul = None
    stroke(fluids, 300.0)
    assert (pump.stalled, pump.volume_ul) == (True, 250.0)
    stroke(fluids, -5.0)
    assert (pump.stalled, pump.volume_ul) == (True, 0.0)
    stroke(fluids, 5.0)
    assert (pump.stalled, pump.volume_ul) == (False, 5.0)


def test_a_stop_leaves_the_plunger_between() -> None:
    fluids = bench()
    pump = fluids.syringes["pump"]
    pump.move(100.0, 0.0, QUICK)
    assert pump.stop(1.0) == 50.0
    fluids.advance(10.0)
    assert (pump.volume_ul, pump.stroke, pump.stalled) == (50.0, None, False)


# --------------------------------------------------------------------------------------------------------- properties

_MOVES = st.lists(
    st.tuples(
        st.sampled_from(["I", "O", None]),
        st.sampled_from([1, 2, 3, None]),
        st.floats(-20.0, 300.0),
        st.floats(0.0, 8.0),
    ),
    max_size=30,
)


@given(_MOVES)
def test_no_femtolitre_is_lost_whatever_is_moved(moves: list[tuple[str | None, int | None, float, float]]) -> None:
    fluids = bench(bottle_ul=150.0)
    before = fluids.volumes_fl()
    pump = fluids.syringes["pump"]
    now_s = 0.0
    for pump_port, inlet, target_ul, wait_s in moves:
        fluids.advance(now_s)
        pump.port, fluids.selectors["inlets"].port = pump_port, inlet
        pump.move(target_ul, now_s, Speeds(40.0, 5.0, 8.0, 30.0))
        now_s += wait_s
    fluids.advance(now_s)
    assert fluids.volumes_fl() == before
    assert all(plug.volume_fl > 0 for pipe in fluids.pipes.values() for plug in pipe.column.plugs())
    assert fluids.pipes["tube"].column.volume_fl == 40 * FL_PER_UL
    assert fluids.pipes["flow_cell"].column.volume_fl == 20 * FL_PER_UL


@given(_MOVES, st.integers(1, 7))
def test_looking_more_often_changes_nothing(
    moves: list[tuple[str | None, int | None, float, float]], looks: int
) -> None:
    def play(looks: int) -> Any:
        fluids = bench(bottle_ul=150.0)
        pump = fluids.syringes["pump"]
        now_s = 0.0
        for pump_port, inlet, target_ul, wait_s in moves:
            fluids.advance(now_s)
            pump.port, fluids.selectors["inlets"].port = pump_port, inlet
            pump.move(target_ul, now_s, QUICK)
            for look in range(looks):
                fluids.advance(now_s + wait_s * (look + 1) / looks)
            now_s += wait_s
        return fluids.inspect()

    assert play(looks) == play(1)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("abc"), st.integers(0, 50)), max_size=40),
)
def test_a_column_is_a_row_of_single_femtolitres(steps: list[tuple[bool, bool, str, int]]) -> None:
    column, row = Column(), ""
    for add, near, reagent, volume in steps:
        if add:
            (column.add_near if near else column.add_far)([Plug(reagent, volume)])
            row = reagent * volume + row if near else row + reagent * volume
        else:
            volume = min(volume, len(row))
            taken = (column.take_near if near else column.take_far)(volume)
            gone = row[:volume] if near else row[len(row) - volume :][::-1]
            row = row[volume:] if near else row[: len(row) - volume]
            assert "".join(plug.reagent * plug.volume_fl for plug in taken) == gone
    assert "".join(plug.reagent * plug.volume_fl for plug in column.plugs()) == row
    assert column.volume_fl == volume_of(column.plugs()) == len(row)
    with pytest.raises(ValueError, match="cannot take"):
        column.take_near(len(row) + 1)


_VOLUME = st.integers(0, 250 * FL_PER_UL).map(lambda volume_fl: volume_fl / FL_PER_UL)
_SPEED = st.floats(0.5, 500.0)


@given(_VOLUME, _VOLUME, _SPEED, _SPEED, _SPEED, st.floats(1.0, 1e4))
def test_a_stroke_goes_one_way_no_faster_than_its_top_speed_and_arrives(
    begin_ul: float, end_ul: float, top: float, start: float, end: float, slope: float
) -> None:
    move = Stroke(begin_ul, end_ul, 3.0, Speeds(top, start, end, slope))
    duration_s = move.end_s - 3.0
    assert duration_s >= abs(end_ul - begin_ul) / top - 1e-9
    assert move.volume_ul(0.0) == move.volume_ul(3.0) == begin_ul
    assert move.volume_ul(move.end_s) == end_ul
    times = [3.0 + duration_s * i / 50 for i in range(51)]
    sign = math.copysign(1, end_ul - begin_ul)
    for earlier, later in itertools.pairwise(times):
        way = sign * (move.volume_ul(later) - move.volume_ul(earlier))
        assert -1e-9 <= way <= top * (later - earlier) + 1e-6
        assert move.speed_ul_per_s(earlier) <= top * (1 + 1e-9)
    if abs(end_ul - begin_ul) > 1e-6:
        # The last step before the end leads to the end: no jump.
        assert move.volume_ul(move.end_s - 1e-9) == pytest.approx(end_ul, abs=1e-5)


def test_a_trapezoid_takes_the_time_of_its_three_parts() -> None:
    # 10 to 50 ul/s at 40 ul/s2: 1 s and 30 ul; the same down; 40 ul at 50 ul/s between them.
    assert Stroke(0.0, 100.0, 0.0, Speeds(50.0, 10.0, 10.0, 40.0)).end_s == pytest.approx(2.8)
    assert Stroke(100.0, 0.0, 0.0, Speeds(50.0)).end_s == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ({"bottles": {}}, "expected vessels, selectors, pipes, syringes; found 'bottles'"),
        ({"vessels": {"a": {"volume": 1}}}, "vessels.a: 'volume' is not known"),
        ({"vessels": {"a": {"volume_ul": -1}}}, "a.volume_ul: expected a number of at least 0, found -1"),
        ({"vessels": {"a": {}}, "pipes": {"a": {}}}, "pipes.a: there is a vessels.a already"),
        ({"pipes": {"a": {"volume_ul": 1, "far": "b"}}}, "'b' is no vessel, selector or pipe"),
        ({"pipes": {"a": {"volume_ul": 1, "far": "a"}}}, "a -> a leads in a circle"),
        ({"vessels": {"b": {}}, "pipes": {"a": {"volume_ul": 0, "far": "b"}}}, "a.volume_ul: expected more than 0"),
        ({"syringes": {"p": {"barrel_ul": 0, "ports": {}}}}, "p.barrel_ul: expected more than 0"),
        ({"syringes": {"p": {"barrel_ul": 5}}}, "p.ports: expected a table of ports, found None"),
    ],
)
def test_a_description_with_a_mistake_is_refused(description: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make_fluidics(description)


def test_femtolitres_are_whole() -> None:
    assert femtolitres(0.1) == 10**8
    assert isinstance(femtolitres(1 / 3), int)
