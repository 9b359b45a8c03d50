from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cartoseq.analysis.tissuemask import tissue_mask
from cartoseq.analysis.trackcross import Expected, Registration, Tile, find_lines, register
from cartoseq.simulators.chipimage import Pose, Scene, render, track_lines_um

WIDTH_UM, HEIGHT_UM = 1_900.0, 1_500.0
PIXEL_UM = 1.5
TILE_PX = 400
STEP_UM = 540.0
CELL_UM = 5.0


def in_tissue(points_um: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A lobed tissue in the chip's middle."""
    away = (points_um - [WIDTH_UM / 2, HEIGHT_UM / 2]) / [0.4 * WIDTH_UM, 0.4 * HEIGHT_UM]
    inside: NDArray[np.bool_] = (away**2).sum(-1) < 1 + 0.15 * np.sin(5 * np.arctan2(away[..., 1], away[..., 0]))
    return inside


def chip(seed: int) -> tuple[Scene, list[Tile], Expected]:
    """A chip of random pose, its tiles, and what the holder says of it."""
    rng = np.random.default_rng(seed)
    mirrored = seed % 4 == 3
    corner = (3_000.0 + (WIDTH_UM if mirrored else 0.0), 2_000.0)
    pose = Pose(
        (corner[0] + rng.uniform(-200, 200), corner[1] + rng.uniform(-200, 200)),
        rng.uniform(-3, 3),
        rng.uniform(0.985, 1.015),
        mirrored,
    )
    nuclei = rng.uniform(0, 1, (11_000, 2)) * [WIDTH_UM, HEIGHT_UM]
    nuclei = nuclei[in_tissue(nuclei)]
    lines = track_lines_um(WIDTH_UM), track_lines_um(HEIGHT_UM)
    scene = Scene(
        WIDTH_UM, HEIGHT_UM, *lines, nuclei, rng.uniform(2.5, 4, len(nuclei)), rng.uniform(0.5, 1.5, len(nuclei)), pose
    )
    tiles = []
    for x_um in np.arange(3_200, 4_900, STEP_UM):
        for y_um in np.arange(2_200, 3_600, STEP_UM):
            pixels = render(
                scene,
                x_um,
                y_um,
                0.0,
                width_px=512,
                height_px=512,
                pixel_um=PIXEL_UM,
                light=600,
                seed=seed + len(tiles),
            )
            tiles.append(Tile(pixels, float(x_um), float(y_um)))
    return scene, tiles, Expected(corner, 0.0, mirrored, *lines)


def registered(tiles: list[Tile], expected: Expected) -> Registration:
    return register(tiles, [find_lines(tile, PIXEL_UM) for tile in tiles], PIXEL_UM, expected)


@pytest.mark.parametrize("seed", range(20))
def test_chips_of_random_pose_are_registered_and_their_tissue_found(seed: int) -> None:
    scene, tiles, expected = chip(seed)
    found = registered(tiles, expected)
    crossings = np.stack(np.meshgrid(scene.lines_x_um, scene.lines_y_um), axis=-1).reshape(-1, 2)
    off_um = np.hypot(*(found.to_stage(crossings) - scene.pose.to_stage(crossings)).T)
    assert off_um.max() < 5 * PIXEL_UM
    assert found.recall > 0.95
    assert np.allclose(found.to_chip(found.to_stage(crossings)), crossings)
    mask = tissue_mask(tiles, found, PIXEL_UM, (WIDTH_UM, HEIGHT_UM), (scene.lines_x_um, scene.lines_y_um), CELL_UM)
    rows, columns = np.indices(mask.mask.shape)
    truth = in_tissue(np.stack([(columns + 0.5) * CELL_UM, (rows + 0.5) * CELL_UM], axis=-1)) & mask.seen
    assert (mask.mask & truth).sum() / (mask.mask | truth).sum() >= 0.95
    assert mask.area_um2 == pytest.approx(truth.sum() * CELL_UM**2, rel=0.05)


def test_pictures_without_lines_are_refused() -> None:
    scene, tiles, expected = chip(1)
    none = np.zeros(0)
    blank = replace(scene, lines_x_um=none, lines_y_um=none)
    views = []
    for tile in tiles[:6]:
        size = {"width_px": TILE_PX, "height_px": TILE_PX}
        pixels = render(blank, tile.x_um, tile.y_um, 0, pixel_um=PIXEL_UM, light=600, seed=1, **size)
        views.append(Tile(pixels, tile.x_um, tile.y_um))
    with pytest.raises(ValueError, match="lines"):
        registered(views, expected)


def test_another_chip_s_pattern_does_not_fit() -> None:
    _, tiles, expected = chip(2)
    rng = np.random.default_rng(5)
    wrong = replace(
        expected,
        lines_x_um=np.sort(rng.uniform(0, WIDTH_UM, expected.lines_x_um.size)),
        lines_y_um=np.sort(rng.uniform(0, HEIGHT_UM, expected.lines_y_um.size)),
    )
    with pytest.raises(ValueError, match="fit the chip's pattern"):
        registered(tiles, wrong)


def test_lines_are_found_where_they_are() -> None:
    scene, tiles, _ = chip(0)
    found = find_lines(tiles[7], PIXEL_UM)
    assert found.direction_deg == pytest.approx(scene.pose.rotation_deg, abs=0.1)
    assert found.crossings >= 4


@pytest.mark.parametrize("covered", [True, False])
def test_a_chip_all_covered_is_all_tissue_and_an_empty_one_is_none(covered: bool) -> None:
    scene, tiles, expected = chip(6)
    rng = np.random.default_rng(6)
    nuclei = rng.uniform(0, 1, (9_000 if covered else 0, 2)) * [WIDTH_UM, HEIGHT_UM]
    other = replace(
        scene,
        nuclei_um=nuclei,
        radii_um=rng.uniform(2.5, 4, len(nuclei)),
        brightness=rng.uniform(0.5, 1.5, len(nuclei)),
    )
    size = {"width_px": 512, "height_px": 512}
    views = [
        Tile(
            render(other, tile.x_um, tile.y_um, 0.0, pixel_um=PIXEL_UM, light=600, seed=number, **size),
            tile.x_um,
            tile.y_um,
        )
        for number, tile in enumerate(tiles)
    ]
    found = registered(views, expected)
    mask = tissue_mask(views, found, PIXEL_UM, (WIDTH_UM, HEIGHT_UM), (scene.lines_x_um, scene.lines_y_um), CELL_UM)
    assert mask.seen.mean() > 0.9
    assert (mask.mask == (mask.seen & covered)).mean() > 0.98
