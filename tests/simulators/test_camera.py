"""The simulated camera: what light, place and focus make of its pictures, and its faults."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from cartoseq.simulators.camera import ELECTRONS_PER_MJ, FULL_WELL, CameraSim, Sight
from cartoseq.simulators.chipimage import Scene, scattered_scene
from cartoseq.simulators.optics import LaserHead, Optics
from cartoseq.simulators.world import World

SCENE = scattered_scene(300, 300, nucleus_every_um=15, focus_um=5.0)
NONE = np.zeros(0)
FLAT = Scene(300, 300, NONE, NONE, np.array([[150.0, 150.0]]), np.array([1e5]), np.array([1.0]))


class Rig:
    """A camera of which everything that it sees can be set."""

    def __init__(self, scene: Scene = SCENE, bit_depth: int = 16) -> None:
        self.head = LaserHead("green", 532, 200, rise_s=0.0, swing=0.0)
        self.world = World(optics=Optics([self.head]))
        self.at: Callable[[float], Sight] = lambda _now_s: Sight(150, 150, 5)
        self.camera = CameraSim(
            "camera",
            self.world,
            scene=scene,
            sight=lambda now_s: self.at(now_s),
            width_px=160,
            height_px=120,
            pixel_um=1.0,
            bit_depth=bit_depth,
        )

    def light(self, power_mw: float, now_s: float = 0.0) -> None:
        self.head.set_mw = power_mw
        self.head.emit(power_mw > 0, now_s)

    def picture(self, exposure_s: float = 0.02, now_s: float = 1.0) -> np.ndarray:
        ready_s = self.camera.expose(now_s, exposure_s)
        return self.camera.read(ready_s, exposure_s).astype(float)


def mean_electrons(picture: np.ndarray, bit_depth: int = 16) -> float:
    """Of the middle, where no light is lost to vignetting."""
    grey = picture[55:65, 75:85].mean() - 2**bit_depth / 64
    return float(grey * FULL_WELL / (2**bit_depth - 1))


def test_without_light_it_is_dark() -> None:
    picture = Rig().picture()
    assert picture.std() < 10
    assert picture.mean() == pytest.approx(1024, rel=0.01)


@pytest.mark.parametrize(("power_mw", "exposure_s"), [(10, 0.02), (20, 0.02), (10, 0.1), (50, 0.5)])
def test_it_gathers_power_times_exposure(power_mw: float, exposure_s: float) -> None:
    rig = Rig(FLAT)
    rig.light(power_mw)
    expected = ELECTRONS_PER_MJ * power_mw * exposure_s
    assert mean_electrons(rig.picture(exposure_s)) == pytest.approx(expected, rel=0.02)


def test_light_that_goes_out_half_way_counts_half() -> None:
    rig = Rig(FLAT)
    rig.light(10)
    rig.world.at(1.5, lambda now_s: rig.light(0, now_s))
    assert mean_electrons(rig.picture(1.0)) == pytest.approx(0.5 * ELECTRONS_PER_MJ * 10, rel=0.25)


def test_a_longer_exposure_of_fewer_bits_saturates() -> None:
    rig = Rig(FLAT, bit_depth=8)
    rig.light(100)
    assert rig.picture(1.0).max() == 255
    rig.camera.read(3.0, 1.0)
    assert rig.camera.read(3.0, 1.0).dtype == np.uint8
    assert Rig().camera.read(0.0, 1.0).dtype == np.uint16


def contrast(picture: np.ndarray) -> float:
    return float(picture.std())


def test_it_sees_what_lies_under_the_objective_half_way_and_how_sharp() -> None:
    rig = Rig()
    rig.light(50)
    still = rig.picture()
    rig.at = lambda now_s: Sight(150 + 20 * (now_s > 2.005), 150, 5)
    moved = rig.picture(now_s=2.0)
    assert np.corrcoef(still[:, 20:].ravel(), moved[:, :-20].ravel())[0, 1] > 0.9
    rig.at = lambda _now_s: Sight(150, 150, 25)
    assert contrast(rig.picture(now_s=3.0)) < 0.5 * contrast(still)
    assert rig.camera.inspect(4.0)["from_focus_um"] == pytest.approx(20.0)


def test_each_fault_is_of_one_frame() -> None:
    rig = Rig()
    rig.light(10)
    usual = rig.picture(0.02, 1.0)
    rig.camera.inject("dropped_frame", 2.0)
    assert rig.camera.expose(2.0, 0.02) == math.inf
    rig.camera.inject("late_frame", 3.0, seconds=2.5)
    assert rig.camera.expose(3.0, 0.02) == pytest.approx(5.53)
    rig.camera.inject("saturated_frame", 6.0)
    assert (rig.picture(0.02, 6.0) == 65535).mean() > 0.05
    assert rig.picture(0.02, 7.0).mean() == pytest.approx(usual.mean(), rel=0.01)
    rig.camera.inject("dropped_frame", 8.0)
    rig.camera.clear(8.0)
    assert rig.camera.expose(8.0, 0.02) < 9
    assert rig.camera.inspect(9.0)["pictures"] == 6
    with pytest.raises(ValueError, match="dropped_frame"):
        rig.camera.inject("smoke", 9.0)


def test_the_noise_is_another_in_every_picture_and_the_same_in_every_run() -> None:
    first, second = ([rig.picture(now_s=1.0), rig.picture(now_s=2.0)] for rig in (Rig(), Rig()))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
    assert (first[0] != first[1]).any()
