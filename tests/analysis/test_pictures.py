from __future__ import annotations

import numpy as np
import pytest

from cartoseq.analysis.pictures import (
    LEAST_PEAK,
    best_of_sweep,
    fit_surface,
    focus_score,
    gradient_energy,
    noise_variance,
    saturated_share,
    shift_between,
)
from cartoseq.simulators.chipimage import Scene, render, track_lines_um


def scene(seed: int = 1) -> Scene:
    rng = np.random.default_rng(seed)
    n = 900
    return Scene(
        width_um=1_000,
        height_um=1_000,
        lines_x_um=track_lines_um(1_000),
        lines_y_um=track_lines_um(1_000),
        nuclei_um=rng.uniform(0, 1_000, (n, 2)),
        radii_um=rng.uniform(2.5, 4, n),
        brightness=rng.uniform(0.5, 1.5, n),
    )


def picture(x_um: float, y_um: float, z_um: float, light: float = 600, seed: int = 1) -> np.ndarray:
    return render(scene(), x_um, y_um, z_um, width_px=256, height_px=200, pixel_um=1.0, light=light, seed=seed)


def test_the_score_falls_away_from_the_focus_whatever_the_light() -> None:
    for light in (200, 600, 1_500):
        scores = [focus_score(picture(500, 500, z_um, light, seed=int(z_um + 50))) for z_um in range(-30, 31, 5)]
        assert int(np.argmax(scores)) == 6
        assert np.all(np.diff(scores[3:7]) > 0)
        assert np.all(np.diff(scores[6:10]) < 0)
    assert focus_score(np.full((20, 20), 7, np.uint16)) == 0.0


def test_noise_is_not_taken_for_sharpness_where_blur_leaves_little_else() -> None:
    sweep = [picture(500, 500, z_um, light=60, seed=z_um + 100) for z_um in range(-60, 61, 10)]
    assert int(np.argmax([gradient_energy(one) for one in sweep])) == 6
    scores = [focus_score(one) for one in sweep]
    assert int(np.argmax(scores)) == 6
    assert max(scores[0], scores[-1]) < 0.5 * scores[6]
    dark = np.random.default_rng(2).normal(100, 5, (200, 256)).astype(np.uint16)
    assert focus_score(dark) < 0.5 * scores[6]


def test_the_noise_is_told_from_what_is_seen() -> None:
    still = picture(500, 500, 0, light=600).astype(np.float64)
    rng = np.random.default_rng(4)
    for sigma in (10.0, 40.0):
        noisy = still + rng.normal(0, sigma, still.shape)
        assert noise_variance(noisy) - noise_variance(still) == pytest.approx(sigma**2, rel=0.1)
    assert noise_variance(np.zeros((2, 5))) == 0.0
    straight = np.outer(np.arange(50.0), np.ones(60))
    assert noise_variance(straight) == 0.0


def test_saturation_is_counted() -> None:
    grey = np.array([[4095, 4094], [4095, 0]], np.uint16)
    assert saturated_share(grey, 12) == 0.5


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -7), (-12, 20), (2.5, -1.4)])
def test_a_shift_is_found_to_a_pixel(down: float, right: float) -> None:
    rows, columns, peak = shift_between(picture(500, 500, 0), picture(500 - right, 500 - down, 0, seed=2))
    assert peak > LEAST_PEAK
    assert (rows, columns) == pytest.approx((down, right), abs=1.0)


def test_pictures_of_different_places_have_no_believable_shift() -> None:
    noise = np.random.default_rng(3).normal(100, 5, (2, 128, 128)).astype(np.uint16)
    assert shift_between(noise[0], noise[1])[2] < LEAST_PEAK


def test_a_sweep_finds_its_focus_between_the_steps() -> None:
    heights = np.arange(-20.0, 21.0, 5.0)
    scores = np.exp(-0.5 * ((heights - 3.2) / 8.0) ** 2)
    assert best_of_sweep(heights, scores) == pytest.approx(3.2, abs=1e-6)


@pytest.mark.parametrize("focus_um", [-40.0, 40.0])
def test_the_end_of_a_sweep_is_no_focus(focus_um: float) -> None:
    heights = np.arange(-20.0, 21.0, 5.0)
    with pytest.raises(ValueError, match="end of the sweep"):
        best_of_sweep(heights, np.exp(-0.5 * ((heights - focus_um) / 8.0) ** 2))


def test_a_plane_is_fitted_and_one_bad_point_does_not_tilt_it() -> None:
    rng = np.random.default_rng(4)
    points = rng.uniform(0, 4_000, (12, 2))
    heights = 5.0 + 0.002 * points[:, 0] - 0.001 * points[:, 1] + rng.normal(0, 0.05, 12)
    heights[7] += 30
    assert fit_surface(points, heights) == pytest.approx([5.0, 0.002, -0.001], abs=0.15)


def test_too_few_points_make_a_flat_surface() -> None:
    line = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    assert fit_surface(line, np.array([1.0, 2.0, 3.0])).tolist() == [2.0, 0.0, 0.0]
