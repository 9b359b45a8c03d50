from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cartoseq.analysis.pictures import binned, coarse_binning
from cartoseq.analysis.stitching import Overlap, measure_overlaps, place_tiles, shift_of_views
from cartoseq.analysis.trackcross import Tile
from cartoseq.simulators.chipimage import render

from ..scans import scene


def test_overlaps_tell_only_the_directions_that_they_show() -> None:
    rng = np.random.default_rng(3)

    def views(texture: Any) -> tuple[Any, Any]:
        noisy = [part + rng.normal(0, 2, part.shape) for part in (texture[10:74, 10:210], texture[5:69, 13:213])]
        return noisy[0].astype(np.uint16), noisy[1].astype(np.uint16)

    lines = np.tile(ndimage.gaussian_filter1d(rng.uniform(0, 2000, 230), 2), (90, 1))
    spots = ndimage.gaussian_filter(rng.uniform(0, 20_000, (90, 230)), 2)
    for texture, tells in ((lines, (True, False)), (spots, (True, True))):
        found = shift_of_views(*views(texture))
        assert found is not None
        assert found.tells == tells
        assert found.right_px == pytest.approx(-3, abs=0.5)
        if tells[1]:
            assert found.down_px == pytest.approx(5, abs=0.5)
        assert found.length_px == pytest.approx(np.hypot(3, 5) if tells[1] else 3, abs=0.5)
    assert shift_of_views(*views(np.full((90, 230), 100.0))) is None
    assert shift_of_views(np.zeros((20, 200), np.uint16), np.zeros((20, 200), np.uint16)) is None


def test_neighbours_are_compared_and_others_not() -> None:
    rng = np.random.default_rng(4)
    ground = rng.integers(0, 1000, (300, 300)).astype(np.uint16)
    places = {(0, 0): (0, 0), (0, 1): (100, 3), (1, 0): (-2, 101), (1, 1): (100, 100)}
    tiles = [
        Tile(ground[10 + y : 138 + y, 10 + x : 138 + x], 100.0 * column, 100.0 * row)
        for (row, column), (x, y) in places.items()
    ]
    found = measure_overlaps(tiles, {cell: number for number, cell in enumerate(places)}, 1.0)
    assert {(pair.first, pair.second, pair.side) for pair in found} == {
        (0, 1, "h"),
        (0, 2, "v"),
        (1, 3, "v"),
        (2, 3, "h"),
    }
    placed, agreeing = place_tiles(np.array([(tile.x_um, tile.y_um) for tile in tiles]), found)
    assert agreeing.all()
    assert placed - placed[0] == pytest.approx(np.array(list(places.values()), float), abs=0.2)


def test_a_mistaken_overlap_is_left_out() -> None:
    centres = np.array([(x, y) for y in (0.0, 100.0, 200.0) for x in (0.0, 100.0, 200.0)])
    rng = np.random.default_rng(5)
    off = rng.uniform(-8, 8, centres.shape)
    pairs = [(n, n + 1, "h") for n in range(9) if n % 3 < 2] + [(n, n + 3, "v") for n in range(6)]
    overlaps = []
    for first, second, side in pairs:
        x_um, y_um = off[second] - off[first]
        if (first, second) == (3, 4):
            x_um += 30.0
        overlaps.append(Overlap(first, second, "h" if side == "h" else "v", (x_um, y_um), (True, first != 0), 0.9))
    placed, agreeing = place_tiles(centres, overlaps)
    assert [pair for pair, agrees in zip(pairs, agreeing, strict=True) if not agrees] == [(3, 4, "h")]
    moved = placed - centres
    assert moved[:, 0] - moved[4, 0] == pytest.approx(off[:, 0] - off[4, 0], abs=0.05)
    # Nothing tells how far down the first tile lies: the stage is believed.
    assert moved[1:, 1] - moved[4, 1] == pytest.approx(off[1:, 1] - off[4, 1], abs=0.05)
    assert moved[0, 1] == 0.0


def test_without_overlaps_the_stage_is_believed() -> None:
    centres = np.array([(0.0, 0.0), (100.0, 0.0)])
    placed, agreeing = place_tiles(centres, ())
    assert np.array_equal(placed, centres)
    assert agreeing.size == 0


def test_fine_pixels_are_joined_before_they_are_compared() -> None:
    """The bench's pixels are 0.325 um: what is seen in a single one is noise."""
    pixel_um, slip_um = 0.325, (9.0, -6.0)
    true = scene(61)
    middle = true.pose.to_stage(np.array([[800.0, 800.0]]))[0]
    tiles = []
    for x_um, slip in ((0.0, (0.0, 0.0)), (280.0, slip_um)):
        at = middle + np.array([x_um, 0.0])
        pixels = render(
            true,
            at[0] + slip[0],
            at[1] + slip[1],
            0.0,
            width_px=1000,
            height_px=1000,
            pixel_um=pixel_um,
            light=600.0,
            seed=len(tiles),
        )
        step = coarse_binning(pixel_um)
        tiles.append(Tile(binned(pixels, step), float(at[0]), float(at[1])))
    (found,) = measure_overlaps(tiles, {(0, 0): 0, (0, 1): 1}, pixel_um * step)
    assert found.tells == (True, True)
    assert found.deviation_um == pytest.approx(slip_um, abs=0.5)
