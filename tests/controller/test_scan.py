from __future__ import annotations

import numpy as np
import pytest

from cartoseq.controller.recipe import Area
from cartoseq.controller.scan import focus_places, tile_places

AREA = Area(x_um=100, y_um=50, width_um=900, height_um=600)


def test_tiles_are_visited_to_and_fro_and_overlap() -> None:
    places = tile_places(AREA, (400, 300), 10, 3, 2)
    assert [(row, column) for row, column, _, _ in places] == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]
    assert places[0][2:] == (300, 200)
    assert places[1][2] - places[0][2] == pytest.approx(360)
    assert places[3][3] - places[2][3] == pytest.approx(270)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 30])
def test_focus_points_are_spread_over_the_area(count: int) -> None:
    places = np.array(focus_places(AREA, count))
    assert count <= len(places) <= count + 8
    assert places.mean(axis=0) == pytest.approx([550, 350])
    assert (places > [100, 50]).all()
    assert (places < [1000, 650]).all()
    steps = np.abs(np.diff(places, axis=0))
    assert all(step[0] < 1e-9 or step[1] < 1e-9 for step in steps)  # along a row, or to the next one
