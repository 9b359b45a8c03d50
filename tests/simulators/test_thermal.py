"""Heat: energy is kept, targets are reached, limits hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.simulators.thermal import STEP_S, ZERO_C_IN_K, Gains, Plate, PlateSettings


def regulated(target_c: float, plate: Plate | None = None) -> Plate:
    plate = plate or Plate()
    plate.set_target(target_c)
    plate.regulate(True)
    return plate


@pytest.mark.parametrize("target_c", [4.0, 20.0, 37.0, 55.0, 65.0])
def test_a_target_is_reached_and_held(target_c: float) -> None:
    plate = regulated(target_c)
    plate.advance(300.0)
    assert plate.plate_c == pytest.approx(target_c, abs=0.05)
    assert plate.settled_s > 60.0
    plate.advance(900.0)
    assert plate.plate_c == pytest.approx(target_c, abs=0.01)


def test_the_current_limit_makes_it_slower_and_unreachable_targets_stay_so() -> None:
    weak = Plate(PlateSettings(current_limit_a=1.0))
    strong = Plate()
    for plate in (weak, strong):
        regulated(50.0, plate).advance(20.0)
    assert abs(weak.current_a) == 1.0
    assert weak.plate_c < strong.plate_c - 5.0
    regulated(-30.0, weak).advance(3600.0)
    assert weak.plate_c > -10.0
    assert weak.current_a == -1.0


def test_without_current_it_goes_back_to_the_air() -> None:
    plate = regulated(60.0)
    plate.advance(200.0)
    plate.regulate(False)
    plate.advance(7200.0)
    assert plate.plate_c == pytest.approx(22.0, abs=0.05)
    assert plate.sink_c == pytest.approx(22.0, abs=0.05)


def test_at_rest_the_equations_of_a_peltier_element_hold() -> None:
    made = PlateSettings()
    plate = Plate(made)
    plate.fixed_current_a = 2.0
    plate.advance(14400.0)
    # Heat into the plate equals its loss, heat into the sink equals its loss.
    plate_k, sink_k = plate.plate_c + ZERO_C_IN_K, plate.sink_c + ZERO_C_IN_K
    flow = made.element_w_per_k * (sink_k - plate_k)
    into_plate = made.seebeck_v_per_k * 2.0 * plate_k + 2.0**2 * made.resistance_ohm / 2 + flow
    into_sink = -made.seebeck_v_per_k * 2.0 * sink_k + 2.0**2 * made.resistance_ohm / 2 - flow
    assert into_plate == pytest.approx(made.plate_loss_w_per_k * (plate.plate_c - 22.0), abs=1e-6)
    assert into_sink == pytest.approx(made.sink_loss_w_per_k * (plate.sink_c - 22.0), abs=1e-6)
    assert plate.plate_c > 60.0


def test_a_ramp_is_followed() -> None:
    plate = regulated(42.0, Plate(gains=Gains(ramp_k_per_s=0.2)))
    plate.advance(50.0)
    assert plate.nominal_c == pytest.approx(32.0)
    assert plate.plate_c == pytest.approx(32.0, abs=1.0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 60.0), st.floats(-10.0, 80.0), st.booleans(), st.floats(0.0, 1.0)), max_size=8)
)
def test_no_heat_appears_or_is_lost(changes: list[tuple[float, float, bool, float]]) -> None:
    made = PlateSettings()
    plate = Plate(made)
    now_s = 0.0
    for wait_s, target_c, on, drive in changes:
        plate.set_target(target_c)
        plate.regulate(on)
        plate.drive = drive
        now_s += wait_s
        plate.advance(now_s)
        assert abs(plate.current_a) <= made.current_limit_a
    kept_j = made.plate_j_per_k * (plate.plate_c - 22.0) + made.sink_j_per_k * (plate.sink_c - 22.0)
    assert kept_j == pytest.approx(plate.supplied_j - plate.lost_j, abs=1e-5, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.0, 5.0), max_size=30))
def test_looking_more_often_changes_nothing(waits_s: list[float]) -> None:
    often = regulated(50.0)
    now_s = 0.0
    for wait_s in waits_s:
        now_s += wait_s
        often.advance(now_s)
    once = regulated(50.0)
    once.advance(now_s)
    assert often.inspect() == once.inspect()
    assert often.plate_c == once.plate_c


def test_the_time_in_the_window_begins_anew_with_a_new_target() -> None:
    plate = regulated(40.0)
    plate.advance(300.0)
    assert plate.settled_s > 100
    plate.set_target(40.0)
    assert plate.settled_s > 100
    plate.set_target(40.05)
    assert plate.settled_s == 0.0
    plate.advance(300.0 + 2 * STEP_S)
    assert plate.settled_s == pytest.approx(2 * STEP_S)


@pytest.mark.parametrize(
    "wrong", [{"plate_j_per_k": 0.0}, {"sink_j_per_k": 1.0}, {"resistance_ohm": -1.0}, {"ambient_c": float("nan")}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PlateSettings(**wrong)


def test_a_part_that_gets_too_hot_switches_it_off_at_once() -> None:
    plate = regulated(70.0)
    plate.plate_allowed_c = (0.0, 60.0)
    plate.advance(300.0)
    assert plate.tripped == "plate"
    assert not plate.regulated
    assert plate.current_a == 0.0
    assert plate.plate_c < 60.0
    hot = regulated(0.0)
    hot.fan, hot.sink_allowed_c = 0.05, (-10.0, 50.0)
    hot.advance(3600.0)
    assert hot.tripped == "sink"
