from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cartoseq.simulators.motion import Axis, Path, plan_move, plan_stop

positions = st.floats(-1e5, 1e5)
speeds = st.floats(1.0, 1e5)
accelerations = st.floats(10.0, 1e7)
SLACK_UM = 1e-6


def axis(position_um: float = 0.0, **settings: float) -> Axis:
    made = {"speed_um_per_s": 1000.0, "acceleration_um_per_s2": 10_000.0, **settings}
    return Axis(-50_000, 50_000, position_um=position_um, **made)


def times(path: Path, begin_s: float, count: int = 60) -> list[float]:
    joints = [begin_s, path.end_s, *(phase.begin_s for phase in path.phases)]
    return sorted([*joints, *(begin_s + (path.end_s - begin_s) * i / count for i in range(count + 1))])


# ------------------------------------------------------------------------------------------------------ known numbers


def test_a_trapezoid_has_the_times_of_the_school_formula() -> None:
    x = axis()
    x.move_to(500.0, 10.0)
    # 0.1 s and 50 um up to speed, 0.4 s and 400 um at it, 0.1 s and 50 um down.
    assert x.end_s == pytest.approx(10.6)
    assert x.position_um(10.0) == 0.0
    assert x.position_um(10.1) == pytest.approx(50.0)
    assert x.velocity_um_per_s(10.3) == pytest.approx(1000.0)
    assert x.position_um(10.5) == pytest.approx(450.0)
    assert x.busy(10.59)
    assert not x.busy(x.end_s)
    assert x.position_um(x.end_s) == 500.0
    assert x.outcome == "arrived"


def test_a_short_move_is_a_triangle() -> None:
    x = axis()
    x.move_to(-25.0, 0.0)
    assert x.end_s == pytest.approx(2 * math.sqrt(25 / 10_000))
    assert x.velocity_um_per_s(x.end_s / 2) == pytest.approx(-math.sqrt(25 * 10_000))


def test_gaining_and_losing_speed_may_differ() -> None:
    x = axis(deceleration_um_per_s2=5_000.0)
    x.move_to(500.0, 0.0)
    assert x.end_s == pytest.approx(0.1 + (500 - 50 - 100) / 1000 + 0.2)


def test_a_stop_on_the_way_takes_the_braking_distance() -> None:
    x = axis()
    x.move_to(500.0, 0.0)
    x.stop(0.3)
    assert x.end_s == pytest.approx(0.4)
    assert x.position_um(1.0) == pytest.approx(250.0 + 50.0)
    assert x.outcome == "stopped"
    assert x.target_um == x.position_um(1.0)


def test_a_halt_stands_on_the_spot() -> None:
    x = axis()
    x.move_to(500.0, 0.0)
    x.halt(0.3)
    assert not x.busy(0.3)
    assert x.position_um(0.3) == pytest.approx(250.0)


def test_a_stop_at_rest_changes_nothing() -> None:
    x = axis()
    x.move_to(500.0, 0.0)
    x.stop(2.0)
    assert (x.position_um(3.0), x.outcome) == (500.0, "arrived")


def test_a_target_beyond_the_travel_ends_at_its_end() -> None:
    x = axis(49_900)
    x.move_to(60_000.0, 0.0)
    assert x.position_um(9.0) == 50_000.0
    assert x.outcome == "limit"
    assert x.at_high_end(9.0)
    assert not x.at_low_end(9.0)
    x.move_to(60_000.0, 9.0)
    assert not x.busy(9.0)
    x.move_to(0.0, 10.0)
    assert x.position_um(99.0) == 0.0


def test_a_target_at_the_travels_end_is_reached_and_no_limit() -> None:
    x = axis(12.3)
    x.move_to(50_000.0, 0.0)
    assert (x.position_um(99.0), x.outcome) == (50_000.0, "arrived")


def test_a_body_in_the_way_stalls_it_until_it_is_taken_away() -> None:
    x = axis()
    x.move_to(500.0, 0.0)
    x.block(300.0, 0.1)
    assert x.end_s == pytest.approx(0.35)
    assert (x.position_um(1.0), x.outcome) == (300.0, "stalled")
    x.move_to(500.0, 1.0)
    assert (x.busy(1.0), x.position_um(1.0), x.outcome) == (False, 300.0, "stalled")
    x.move_to(100.0, 2.0)
    assert (x.position_um(3.0), x.outcome) == (100.0, "arrived")
    x.unblock(3.0)
    x.move_to(500.0, 3.0)
    assert (x.position_um(9.0), x.outcome) == (500.0, "arrived")


def test_a_body_that_is_taken_away_in_time_is_not_met() -> None:
    x = axis()
    x.move_to(500.0, 0.0)
    x.block(300.0, 0.1)
    x.unblock(0.2)
    assert (x.position_um(9.0), x.outcome) == (500.0, "arrived")


def test_a_body_under_the_axis_holds_it_fast() -> None:
    x = axis()
    x.block(0.0, 0.0)
    for target_um in (-10.0, 10.0):
        x.move_to(target_um, 1.0)
        assert (x.busy(1.0), x.position_um(2.0), x.outcome) == (False, 0.0, "stalled")


def test_a_wrong_limit_switch_ends_the_travel() -> None:
    x = axis()
    x.shorten(-200.0, 0.0)
    x.move_to(-500.0, 0.0)
    assert (x.position_um(9.0), x.outcome) == (-200.0, "limit")
    assert x.at_low_end(9.0)


def test_a_hand_displaces_it_and_a_move_goes_on_to_its_target() -> None:
    x = axis()
    x.jump(30.0, 0.0)
    assert (x.position_um(0.0), x.busy(0.0)) == (30.0, False)
    x.move_to(500.0, 1.0)
    x.jump(-200.0, 1.2)
    assert x.position_um(1.2) == pytest.approx(30 + 50 + 100 - 200)
    assert x.position_um(9.0) == 500.0
    x.jump(1e9, 9.0)
    assert x.position_um(9.0) == 50_000.0


def test_a_new_target_on_the_way_needs_no_stop_between() -> None:
    x = axis()
    x.move_to(500.0, 0.0)
    x.move_to(400.0, 0.2)
    assert x.end_s == pytest.approx(0.5)
    x.move_to(-100.0, 0.4)  # the wrong way: brake at 350 um first, to rest at 400 um
    assert x.end_s == pytest.approx(0.5 + 0.1 + 0.4 + 0.1)


@pytest.mark.parametrize(
    ("low", "high", "position", "speed"), [(0, 0, 0, 1), (0, 1, 2, 1), (0, 1, -1, 1), (0, 1, 0, 0), (0, 1, 0, -1)]
)
def test_an_axis_that_cannot_be_is_refused(low: float, high: float, position: float, speed: float) -> None:
    with pytest.raises(ValueError, match=r"a position within|above 0"):
        Axis(low, high, position_um=position, speed_um_per_s=speed, acceleration_um_per_s2=1.0)


# ----------------------------------------------------------------------------------------------------------- for all


@given(positions, st.floats(-1e5, 1e5), positions, speeds, accelerations, accelerations, st.floats(0, 1e6))
def test_every_plan_is_smooth_and_within_what_the_motor_can(
    start_um: float, velocity: float, target_um: float, speed: float, up: float, down: float, now_s: float
) -> None:
    assume(velocity == 0 or abs(velocity) > 1e-6)
    path = plan_move(
        start_um,
        velocity,
        target_um,
        now_s,
        speed_um_per_s=speed,
        acceleration_um_per_s2=up,
        deceleration_um_per_s2=down,
    )
    assert path.position_um(path.end_s) == target_um
    fastest, hardest = max(speed, abs(velocity)), max(up, down)
    # What a time of 1e6 s, kept in 64 bits, does not resolve.
    grain_s = 4 * math.ulp(now_s + (path.end_s - now_s))
    slack_um, slack_um_per_s = SLACK_UM + grain_s * fastest, 1e-6 * fastest + grain_s * hardest
    place_um, pace, at_s = start_um, velocity, now_s
    for moment_s in times(path, now_s):
        assert abs(path.velocity_um_per_s(moment_s)) <= fastest + slack_um_per_s
        assert abs(path.acceleration_um_per_s2(moment_s)) <= hardest
        step_s = moment_s - at_s
        assert abs(path.position_um(moment_s) - place_um) <= fastest * step_s + 2 * slack_um
        assert abs(path.velocity_um_per_s(moment_s) - pace) <= hardest * step_s + 2 * slack_um_per_s
        place_um, pace, at_s = path.position_um(moment_s), path.velocity_um_per_s(moment_s), moment_s


@given(positions, positions, speeds, accelerations)
def test_no_move_from_rest_is_quicker_or_slower_than_the_formula(
    start_um: float, target_um: float, speed: float, acceleration: float
) -> None:
    path = plan_move(
        start_um,
        0.0,
        target_um,
        0.0,
        speed_um_per_s=speed,
        acceleration_um_per_s2=acceleration,
        deceleration_um_per_s2=acceleration,
    )
    distance_um = abs(target_um - start_um)
    if distance_um >= speed**2 / acceleration:
        expected_s = distance_um / speed + speed / acceleration
    else:
        expected_s = 2 * math.sqrt(distance_um / acceleration)
    assert path.end_s == pytest.approx(expected_s, rel=1e-9, abs=1e-12)
    places = [path.position_um(moment_s) for moment_s in times(path, 0.0)]
    ordered = sorted(places, reverse=target_um < start_um)
    assert places == pytest.approx(ordered, abs=SLACK_UM)


@given(positions, st.floats(-1e5, 1e5), accelerations)
def test_a_stop_takes_v_squared_over_two_a(start_um: float, velocity: float, deceleration: float) -> None:
    path = plan_stop(start_um, velocity, 0.0, deceleration)
    assert path.end_um - start_um == pytest.approx(velocity * abs(velocity) / (2 * deceleration), abs=SLACK_UM)
    assert path.end_s == pytest.approx(abs(velocity) / deceleration)


orders = st.one_of(
    st.tuples(st.just("move"), st.floats(-3000, 3000)),
    st.tuples(st.just("stop"), st.just(0.0)),
    st.tuples(st.just("halt"), st.just(0.0)),
    st.tuples(st.just("block"), st.floats(-1000, 1000)),
    st.tuples(st.just("shorten"), st.floats(-1000, 1000)),
    st.tuples(st.just("unblock"), st.just(0.0)),
    st.tuples(st.just("jump"), st.floats(-500, 500)),
)


@given(st.lists(st.tuples(st.floats(0.0, 3.0), orders), max_size=12))
def test_whatever_is_asked_it_stays_within_its_travel_and_comes_to_rest(
    script: list[tuple[float, tuple[str, float]]],
) -> None:
    x = Axis(-1000, 1000, speed_um_per_s=700.0, acceleration_um_per_s2=3000.0)
    now_s = 0.0
    for wait_s, (order, value) in script:
        before_um, rests = x.position_um(now_s + wait_s), not x.busy(now_s + wait_s)
        now_s += wait_s
        match order:
            case "move":
                x.move_to(value, now_s)
            case "stop":
                x.stop(now_s)
            case "halt":
                x.halt(now_s)
                assert not x.busy(now_s)
            case "block":
                x.block(value, now_s)
            case "shorten":
                x.shorten(value, now_s)
            case "unblock":
                x.unblock(now_s)
            case _:
                x.jump(value, now_s)
        if order != "jump":
            assert x.position_um(now_s) == pytest.approx(before_um, abs=SLACK_UM)
            assert not (rests and order != "move") or not x.busy(now_s)
        for moment_s in (now_s, now_s + 0.1, now_s + 1.0, x.end_s, x.end_s + 1):
            assert -1000 - SLACK_UM <= x.position_um(moment_s) <= 1000 + SLACK_UM
        assert x.end_s <= now_s + 60
        if x.outcome == "arrived" and x.end_s >= now_s and order == "move":
            assert x.position_um(x.end_s) == value
