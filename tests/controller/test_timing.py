from __future__ import annotations

import math

import pytest

from cartoseq.controller.scan import SWEEP_COARSE, SWEEP_FINE
from cartoseq.controller.timing import Estimates, Timing

OF = Estimates(ramp_c_per_s=2.0, cool_c_per_s=0.5, settle_s=3.0, relax_s=100.0)


def timing(estimates: Estimates = OF) -> Timing:
    return Timing(estimates, 10, (1_000.0, 2_000.0))


@pytest.mark.parametrize(("port", "ways"), [(1, 0), (2, 1), (6, 5), (7, 4), (10, 1)])
def test_a_selector_valve_turns_the_shorter_way(port: int, ways: int) -> None:
    assert timing().select_s(port) == pytest.approx(OF.port_s + ways * OF.port_way_s)


def test_a_stroke_turns_the_pumps_valve_only_where_it_stands_elsewhere() -> None:
    of = timing()
    assert of.stroke_s(100, 50, "flow_cell") == pytest.approx(2 + OF.stroke_overhead_s + OF.pump_valve_s)
    assert of.stroke_s(100, 50, "flow_cell") == pytest.approx(2 + OF.stroke_overhead_s)
    assert of.stroke_s(100, 50, "waste") == pytest.approx(2 + OF.stroke_overhead_s + OF.pump_valve_s)


def test_a_plate_is_warmed_and_cooled_at_its_rates_and_what_has_passed_counts() -> None:
    of = timing()
    of.target_s(62)
    assert of.ramp_s() == pytest.approx(20 + 3)
    of.go_on(5)
    assert of.ramp_s() == pytest.approx(15 + 3)
    of.go_on(16)
    assert of.ramp_s() == pytest.approx(2)
    of.go_on(100)
    assert of.ramp_s() == 0
    of.target_s(52)
    assert of.ramp_s() == pytest.approx(20 + 3)
    of.go_on(23)
    of.target_s(52.2)
    assert of.ramp_s() == pytest.approx(0.1)  # so near that nothing must settle
    assert of.longest_ramp_s() == pytest.approx(30.2 / 2 + 3)


def test_a_plate_that_is_not_regulated_comes_back_slowly() -> None:
    of = timing()
    of.target_s(82)
    of.go_on(100)
    of.off_s()
    of.go_on(100)
    of.target_s(82)
    assert of.ramp_s() == pytest.approx(60 * (1 - math.exp(-1)) / 2 + 3)


def test_both_axes_of_the_stage_move_at_once() -> None:
    of = timing()
    assert of.move_s(1_570, 2_000) == pytest.approx(OF.move_s + 0.1)
    assert of.move_s(1_000, 3_140) == pytest.approx(OF.move_s + 0.2)
    assert of.move_s(1_000, 3_140) == pytest.approx(OF.move_s)


def test_pictures_take_their_exposures() -> None:
    of = timing()
    assert of.tile_s([100, 50], has_focus=False) == pytest.approx(0.15 + 2 * OF.light_s)
    assert of.tile_s([100, 50], has_focus=True) == pytest.approx(0.15 + 2 * OF.light_s + OF.focus_move_s)
    one_s = OF.focus_move_s + 0.02 + of.light_s()
    assert of.sweep_s(20, 70) == pytest.approx((SWEEP_COARSE + SWEEP_FINE) * one_s + 140 / OF.focus_um_per_s)
