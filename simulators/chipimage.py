"""What a camera sees of a chip under the objective: nuclei, bright track lines, defocus, uneven light and noise.

A chip lies on the stage in a *pose*: shifted, turned, a little larger or smaller than it should be, perhaps mirrored::

    stage_um = offset_um + scale * turn(rotation) * mirror * chip_um

A picture is taken with the optical axis at a stage position; its columns grow with the stage's x, its rows with y.
The chip's surface is a tilted plane: away from it nuclei and lines are blurred, and as much dimmer as they are wider.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.chip import TRACK_LINE_DISTANCES
from cartoseq.simulators.kernel import inlined, kernel

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

#: Widths of a line and of the sharpest spot of light, standard deviations in micrometres.
LINE_SIGMA_UM: Final = 1.0
OPTICS_SIGMA_UM: Final = 0.35
#: Blur grows by so much for each micrometre away from the focus: a numerical aperture of about 0.5.
BLUR_PER_UM: Final = 0.3
_REACH: Final = 4.0
_STEP_UM: Final = 0.1


@dataclass(frozen=True)
class Pose:
    """How a chip lies on the stage.

    Attributes:
        offset_um: Where its corner (0, 0) lies.
        rotation_deg: Turned counter-clockwise, x towards y.
        scale: Stage micrometres per chip micrometre.
        mirrored: Whether its x runs backwards.
    """

    offset_um: tuple[float, float] = (0.0, 0.0)
    rotation_deg: float = 0.0
    scale: float = 1.0
    mirrored: bool = False

    @property
    def matrix(self) -> Floats:
        """Takes chip to stage directions, shape (2, 2)."""
        angle = math.radians(self.rotation_deg)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix: Floats = self.scale * turn @ np.diag([-1.0 if self.mirrored else 1.0, 1.0])
        return matrix

    def to_stage(self, chip_um: Floats) -> Floats:
        """Stage coordinates of chip points, shape (n, 2)."""
        result: Floats = chip_um @ self.matrix.T + np.array(self.offset_um)
        return result

    def to_chip(self, stage_um: Floats) -> Floats:
        """Chip coordinates of stage points, shape (n, 2)."""
        result: Floats = (stage_um - np.array(self.offset_um)) @ np.linalg.inv(self.matrix).T
        return result


@dataclass(frozen=True)
class Scene:
    """A chip with its tissue on the stage.

    Attributes:
        width_um: Of the chip.
        height_um: Of the chip.
        lines_x_um: Track lines that run along y: their x on the chip, ascending.
        lines_y_um: Those that run along x: their y.
        nuclei_um: Centres of the nuclei on the chip, shape (n, 2).
        radii_um: Standard deviation of each nucleus, shape (n,).
        brightness: Of each, about 1, shape (n,).
        pose: How it lies.
        focus_um: Height of sharp focus at the chip's corner.
        tilt: By how much that changes along the stage's x and y, micrometres per micrometre.
        line_brightness: Of a track line, in the brightness of a nucleus.
    """

    width_um: float
    height_um: float
    lines_x_um: Floats
    lines_y_um: Floats
    nuclei_um: Floats
    radii_um: Floats
    brightness: Floats
    pose: Pose = Pose()
    focus_um: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    line_brightness: float = 0.5

    def sharp_at_um(self, x_um: float, y_um: float) -> float:
        """The height at which the stage position is in focus."""
        return (
            self.focus_um
            + self.tilt[0] * (x_um - self.pose.offset_um[0])
            + self.tilt[1] * (y_um - self.pose.offset_um[1])
        )


def track_lines_um(length_um: float, pitch_nm: int = 500) -> Floats:
    """Where the track lines of a chip lie along one side, in micrometres from its corner, the corner's own left out."""
    distances = np.array(TRACK_LINE_DISTANCES[pitch_nm]) * pitch_nm / 1000.0
    periods = int(length_um // distances.sum()) + 1
    places = np.cumsum(np.tile(distances, periods))
    result: Floats = places[places < length_um]
    return result


def laid_pose(
    corner_um: tuple[float, float],
    turn_deg: float,
    width_um: float,
    height_um: float,
    mirrored: bool = False,
    quarter_turns: int = 0,
    scale: float = 1.0,
) -> Pose:
    """How a chip lies whose holder may mirror it and turn it by right angles.

    Args:
        corner_um: Where the corner of the rectangle lies that the chip then fills: its least x and y without the turn.
        turn_deg: By how much this rectangle is turned.
        width_um: Of the chip, along its own x.
        height_um: Of the chip.
        mirrored: Whether its x runs backwards.
        quarter_turns: By how many right angles it is then turned, x towards y.
        scale: See `Pose`.
    """
    sides = np.array([[0.0, 0.0], [width_um, 0.0], [0.0, height_um], [width_um, height_um]])
    least = Pose((0.0, 0.0), 90.0 * quarter_turns, 1.0, mirrored).to_stage(sides).min(axis=0)
    away = Pose((0.0, 0.0), turn_deg, scale).to_stage(-least[None])[0]
    offset_um = (corner_um[0] + float(away[0]), corner_um[1] + float(away[1]))
    return Pose(offset_um, turn_deg + 90.0 * quarter_turns, scale, mirrored)


def scattered_scene(
    width_um: float,
    height_um: float,
    *,
    seed: int = 1,
    pitch_nm: int = 500,
    nucleus_every_um: float = 20.0,
    nuclei_um: Floats | None = None,
    pose: Pose | None = None,
    focus_um: float = 0.0,
    tilt: tuple[float, float] = (0.0, 0.0),
) -> Scene:
    """A chip with its track lines, and with nuclei where they are said to lie, or scattered all over it.

    Args:
        width_um: Of the chip.
        height_um: Of the chip.
        seed: Of the nuclei.
        pitch_nm: Decides the distances of the track lines.
        nucleus_every_um: There is one nucleus for each square of this side.
        nuclei_um: Where they lie instead, shape (n, 2).
        pose: How the chip lies.
        focus_um: Height of sharp focus at the chip's corner.
        tilt: See `Scene`.
    """
    rng = np.random.default_rng(seed)
    if nuclei_um is None:
        count = max(1, round(width_um * height_um / nucleus_every_um**2))
        nuclei_um = rng.uniform(0.0, 1.0, (count, 2)) * [width_um, height_um]
    count = len(nuclei_um)
    return Scene(
        width_um,
        height_um,
        track_lines_um(width_um, pitch_nm),
        track_lines_um(height_um, pitch_nm),
        nuclei_um,
        rng.uniform(2.5, 4.0, count),
        rng.uniform(0.5, 1.5, count),
        pose or Pose(),
        focus_um,
        tilt,
    )


def render(
    scene: Scene,
    x_um: float,
    y_um: float,
    z_um: float,
    *,
    width_px: int,
    height_px: int,
    pixel_um: float,
    light: float,
    seed: int,
    bit_depth: int = 12,
    background: float = 100.0,
    noise: float = 4.0,
    vignetting: float = 0.15,
) -> NDArray[np.uint16]:
    """Take a picture.

    Args:
        scene: What lies on the stage.
        x_um: The optical axis on the stage.
        y_um: See above.
        z_um: Height of the focus.
        width_px: Columns.
        height_px: Rows.
        pixel_um: Size of a pixel on the chip.
        light: Grey values of a nucleus of brightness 1 in focus: exposure times power.
        seed: Of the noise.
        bit_depth: Grey values above its range are cut off: the picture is saturated there.
        background: Grey value of darkness.
        noise: Standard deviation of the reading, grey values; that of light is its square root.
        vignetting: How much less light the corners get.

    Returns:
        Grey values, shape (height_px, width_px).
    """
    blur_um = math.hypot(OPTICS_SIGMA_UM, BLUR_PER_UM * (z_um - scene.sharp_at_um(x_um, y_um)))
    left_um = x_um - (width_px - 1) / 2 * pixel_um
    top_um = y_um - (height_px - 1) / 2 * pixel_um
    inverse = np.linalg.inv(scene.pose.matrix).astype(np.float64)
    corner = inverse @ (np.array([left_um, top_um]) - scene.pose.offset_um)
    sigma_um = math.hypot(LINE_SIGMA_UM, blur_um)
    dim = scene.line_brightness * math.hypot(LINE_SIGMA_UM, OPTICS_SIGMA_UM) / sigma_um
    profiles = []
    for axis, lines in ((0, scene.lines_x_um), (1, scene.lines_y_um)):
        ways = inverse[axis] * pixel_um * np.array([width_px, height_px])
        low_um = corner[axis] + np.minimum(ways, 0).sum()
        high_um = corner[axis] + np.maximum(ways, 0).sum()
        profiles.append((low_um, dim * _profile(lines, low_um, high_um, sigma_um)))
    image = np.empty((height_px, width_px), np.float32)
    (low_x_um, profile_x), (low_y_um, profile_y) = profiles
    size_um = (scene.width_um, scene.height_um)
    _draw_lines(image, corner, inverse * pixel_um, size_um, profile_x, low_x_um, profile_y, low_y_um)
    centres = scene.pose.to_stage(scene.nuclei_um)
    reach_um = _REACH * math.hypot(float(scene.radii_um.max(initial=0.0)), blur_um)
    near = (np.abs(centres[:, 0] - x_um) < width_px / 2 * pixel_um + reach_um) & (
        np.abs(centres[:, 1] - y_um) < height_px / 2 * pixel_um + reach_um
    )
    sigmas_um = np.hypot(scene.radii_um[near], blur_um)
    sharp_um = np.hypot(scene.radii_um[near], OPTICS_SIGMA_UM)
    _add_spots(
        image,
        (centres[near, 0] - left_um) / pixel_um,
        (centres[near, 1] - top_um) / pixel_um,
        sigmas_um / pixel_um,
        scene.brightness[near] * (sharp_um / sigmas_um) ** 2,
    )
    grey = np.empty((height_px, width_px), np.uint16)
    _expose(grey, image, light, background, noise, vignetting, 2**bit_depth - 1, np.uint64(seed), _normals())
    return grey


@cache
def _normals() -> Floats32:
    """Values of the normal distribution that are equally likely, as many as 16 bits tell apart."""
    return np.array([NormalDist().inv_cdf((n + 0.5) / 65536) for n in range(65536)], np.float32)


def _profile(lines_um: Floats, low_um: float, high_um: float, sigma_um: float) -> Floats:
    """Brightness of track lines across them, every `_STEP_UM` from `low_um` to beyond `high_um`."""
    places = low_um + _STEP_UM * np.arange(math.ceil((high_um - low_um) / _STEP_UM) + 2)
    if not lines_um.size:
        return np.zeros(places.size)
    after = np.searchsorted(lines_um, places)
    below = np.abs(places - lines_um[np.maximum(after - 1, 0)])
    above = np.abs(lines_um[np.minimum(after, lines_um.size - 1)] - places)
    profile: Floats = np.exp(-0.5 * (np.minimum(below, above) / sigma_um) ** 2)
    return profile


@kernel
def _draw_lines(
    image: Floats32,
    corner_um: Floats,
    step_um: Floats,
    size_um: tuple[float, float],
    profile_x: Floats,
    low_x_um: float,
    profile_y: Floats,
    low_y_um: float,
) -> None:
    """Draw the track lines that run along either side, on the chip; elsewhere it is dark.

    Args:
        image: Is filled.
        corner_um: Chip coordinates of its first pixel.
        step_um: By how much they change, x and y in rows, for each column and row of the image in columns.
        size_um: Of the chip.
        profile_x: Brightness across the lines whose x is given; see `_profile`.
        low_x_um: Where it begins.
        profile_y: The same of those whose y is given.
        low_y_um: See above.
    """
    for row in range(image.shape[0]):
        x_um = corner_um[0] + row * step_um[0, 1]
        y_um = corner_um[1] + row * step_um[1, 1]
        for column in range(image.shape[1]):
            chip_x = x_um + column * step_um[0, 0]
            chip_y = y_um + column * step_um[1, 0]
            if chip_x < 0 or chip_y < 0 or chip_x > size_um[0] or chip_y > size_um[1]:
                image[row, column] = 0
                continue
            at_x = (chip_x - low_x_um) * (1 / _STEP_UM)
            at_y = (chip_y - low_y_um) * (1 / _STEP_UM)
            i, j = int(at_x), int(at_y)
            image[row, column] = (
                profile_x[i]
                + (at_x - i) * (profile_x[i + 1] - profile_x[i])
                + profile_y[j]
                + (at_y - j) * (profile_y[j + 1] - profile_y[j])
            )


@kernel
def _add_spots(image: Floats32, x_px: Floats, y_px: Floats, sigmas_px: Floats, heights: Floats) -> None:
    """Add round spots of light to an image, as far as they reach."""
    across = np.empty(image.shape[1], np.float32)
    for n in range(x_px.size):
        reach = _REACH * sigmas_px[n]
        scale = -0.5 / (sigmas_px[n] * sigmas_px[n])
        first, last = max(0, int(x_px[n] - reach)), min(image.shape[1], int(x_px[n] + reach) + 2)
        for column in range(first, last):
            across[column] = np.exp(scale * (column - x_px[n]) ** 2)
        for row in range(max(0, int(y_px[n] - reach)), min(image.shape[0], int(y_px[n] + reach) + 2)):
            down = np.float32(heights[n] * np.exp(scale * (row - y_px[n]) ** 2))
            for column in range(first, last):
                image[row, column] += down * across[column]


@inlined
def _mixed(state: np.uint64) -> np.uint64:
    """What SplitMix64 makes of its state (G. Steele, D. Lea and C. Flood, 2014)."""
    bits = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@kernel
def _expose(
    grey: NDArray[np.uint16],
    image: Floats32,
    light: float,
    background: float,
    noise: float,
    vignetting: float,
    most: int,
    seed: np.uint64,
    normals: Floats32,
) -> None:
    """Turn brightness into grey values with the noise of light and of reading; see `render`.

    Of random bits, 16 at a time choose one of the `normals`. The seed is mixed as well, since states in a row give the
    same bits one after the other.
    """
    height, width = image.shape
    state = _mixed(seed)
    bits = np.uint64(0)
    for row in range(height):
        v = 2.0 * row / max(1, height - 1) - 1
        for column in range(width):
            u = 2.0 * column / max(1, width - 1) - 1
            photons = np.float32(light * (1 - 0.5 * vignetting * (u * u + v * v))) * image[row, column]
            if column % 4 == 0:
                state += np.uint64(0x9E3779B97F4A7C15)
                bits = _mixed(state)
            normal = normals[bits & np.uint64(0xFFFF)]
            bits >>= np.uint64(16)
            value = background + photons + normal * np.sqrt(max(photons, np.float32(0)) + noise * noise)
            grey[row, column] = min(max(int(value + 0.5), 0), most)
