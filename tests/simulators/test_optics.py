"""Light: how it comes up, drifts, is weakened, and ends with the doors."""

from __future__ import annotations

import pytest

from cartoseq.simulators.optics import LaserHead, Optics


def test_light_comes_up_drifts_and_is_weakened_on_its_way() -> None:
    green, red = LaserHead("green", 532.0, 100.0, swing=0.0), LaserHead("red", 660.0, 80.0, swing=0.0)
    optics = Optics([green, red], {"filter": 0.5, "objective": 0.8})
    green.set_mw = 50.0
    green.emit(True, 10.0)
    assert optics.at_sample_mw(10.0) == {532.0: 0.0, 660.0: 0.0}
    assert optics.at_sample_mw(12.0) == {532.0: pytest.approx(20.0), 660.0: 0.0}
    green.drift_per_hour, green.drift_since_s = -0.5, 12.0
    assert green.power_mw(12.0 + 3600) == pytest.approx(25.0)
    assert green.power_mw(12.0 + 4 * 3600) == 0.0
    green.emit(False, 4000.0)
    assert green.power_mw(4000.0) == 0.0
    with pytest.raises(ValueError, match="filter: expected a share"):
        Optics([], {"filter": 1.5})


def test_a_warm_head_swings_no_more_than_it_may() -> None:
    head = LaserHead("green", 532.0, 100.0, rise_s=0.0, swing=0.01)
    head.set_mw = 100.0
    head.emit(True, 0.0)
    powers = [head.power_mw(t * 60.0) for t in range(60)]
    assert min(powers) == pytest.approx(99.0, abs=0.01)
    assert max(powers) == pytest.approx(101.0, abs=0.01)


def test_who_watches_the_doors_is_told_at_once() -> None:
    optics = Optics()
    told: list[bool] = []
    optics.door_watchers.append(lambda: told.append(optics.doors_closed))
    optics.move_doors(closed=False)
    optics.move_doors(closed=True)
    assert told == [False, True]
