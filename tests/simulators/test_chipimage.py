"""Pictures of a chip: what is drawn where, how it blurs, and the noise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cartoseq.simulators.chipimage import (
    LINE_SIGMA_UM,
    OPTICS_SIGMA_UM,
    Pose,
    Scene,
    render,
    scattered_scene,
    track_lines_um,
)

NONE = np.zeros(0)
EMPTY = Scene(1000, 1000, NONE, NONE, np.zeros((0, 2)), NONE, NONE)
ONE = replace(EMPTY, nuclei_um=np.array([[500.0, 400.0]]), radii_um=np.array([3.0]), brightness=np.array([1.5]))
LOOK: dict[str, Any] = {
    "width_px": 200,
    "height_px": 100,
    "pixel_um": 0.5,
    "light": 1000.0,
    "seed": 3,
    "noise": 0.0,
    "vignetting": 0.0,
    "bit_depth": 16,
}


def test_a_nucleus_lies_where_it_lies_and_is_as_bright_and_wide_as_it_is() -> None:
    picture = render(ONE, 510.0, 405.0, 0.0, **LOOK).astype(float) - 100
    rows, columns = np.indices(picture.shape)
    weight = np.where(picture > 60, picture, 0)
    x_um = 510 + (float((columns * weight).sum() / weight.sum()) - 99.5) * 0.5
    y_um = 405 + (float((rows * weight).sum() / weight.sum()) - 49.5) * 0.5
    assert (x_um, y_um) == pytest.approx((500, 400), abs=0.1)
    assert picture.max() == pytest.approx(1500, rel=0.08)
    # All the light of a Gaussian spot: 2 pi sigma^2 times its height.
    sigma_px = math.hypot(3.0, OPTICS_SIGMA_UM) / 0.5
    assert picture.sum() == pytest.approx(1500 * 2 * math.pi * sigma_px**2, rel=0.02)


def test_defocus_widens_a_nucleus_and_keeps_its_light() -> None:
    sharp, blurred = (render(ONE, 500.0, 400.0, z_um, **LOOK).astype(float) - 100 for z_um in (0.0, 15.0))
    assert blurred.max() < 0.5 * sharp.max()
    assert blurred.sum() == pytest.approx(sharp.sum(), rel=0.02)


def test_track_lines_are_drawn_on_the_chip_only_and_follow_its_pose() -> None:
    scene = replace(EMPTY, lines_x_um=np.array([20.0, 60.0]), pose=Pose((100.0, 0.0)))
    picture = render(scene, 130.0, 500.0, 0.0, **LOOK).astype(float) - 100
    means = picture.mean(axis=0)
    assert 130 + (np.argmax(means) - 99.5) * 0.5 in (pytest.approx(120, abs=0.5), pytest.approx(160, abs=0.5))
    dim = scene.line_brightness * 1000
    at_120_um = round((120 - 130) / 0.5 + 99.5)
    assert means[at_120_um] == pytest.approx(dim, rel=0.1)
    sigma_px = math.hypot(LINE_SIGMA_UM, OPTICS_SIGMA_UM) / 0.5
    assert means[at_120_um + round(sigma_px)] == pytest.approx(dim * math.exp(-0.5), rel=0.25)
    assert np.abs(means[: round((100 - 130) / 0.5 + 99.5)]).max() < 20  # off the chip


def test_a_turned_chip_has_turned_lines() -> None:
    scene = replace(EMPTY, lines_x_um=np.array([500.0]), pose=Pose((0.0, 0.0), rotation_deg=10.0))
    x_um, y_um = scene.pose.to_stage(np.array([[500.0, 500.0]]))[0]
    picture = render(scene, float(x_um), float(y_um), 0.0, **LOOK)
    top, bottom = (np.argmax(picture[row]) for row in (0, 99))
    assert (top - bottom) / 99 == pytest.approx(math.tan(math.radians(10)), abs=0.03)


def test_the_noise_is_that_of_light_and_of_reading() -> None:
    scene = replace(ONE, radii_um=np.array([1e5]))  # all of it equally bright
    pictures = [
        render(scene, 500.0, 400.0, 0.0, **{**LOOK, "noise": 6.0, "seed": seed}).astype(float) for seed in range(40)
    ]
    stack = np.array(pictures)
    assert stack.mean() == pytest.approx(1600, rel=0.001)
    assert stack.std(axis=0).mean() == pytest.approx(math.sqrt(1500 + 36), rel=0.02)
    neighbours = np.corrcoef(stack[0, :, :-4].ravel(), stack[1, :, 4:].ravel())[0, 1]
    assert abs(neighbours) < 0.03
    assert (render(scene, 500.0, 400.0, 0.0, **LOOK) == render(scene, 500.0, 400.0, 0.0, **LOOK)).all()


def test_what_is_too_bright_is_cut_off() -> None:
    picture = render(ONE, 500.0, 400.0, 0.0, **{**LOOK, "bit_depth": 10})
    assert picture.max() == 1023
    assert (picture == 1023).sum() > 100


def test_a_scattered_scene_has_its_nuclei_on_the_chip_and_is_the_same_for_a_seed() -> None:
    scene = scattered_scene(400, 300, seed=5, nucleus_every_um=10)
    assert scene.nuclei_um.shape == (1200, 2)
    assert (scene.nuclei_um >= 0).all()
    assert (scene.nuclei_um <= [400, 300]).all()
    assert (scene.lines_x_um == track_lines_um(400)).all()
    assert (scattered_scene(400, 300, seed=5, nucleus_every_um=10).nuclei_um == scene.nuclei_um).all()
