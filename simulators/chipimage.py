"""What a camera sees of a chip under the objective: nuclei, bright track lines, defocus, uneven light and noise.

A chip lies on the stage in a *pose*: shifted, turned, a little larger or smaller than it should be, perhaps mirrored::

    stage_um = offset_um + scale * turn(rotation) * mirror * chip_um

A picture is taken with the optical axis at a stage position; its columns grow with the stage's x, its rows with y.
The chip's surface is a tilted plane: away from it nuclei and lines are blurred, and as much dimmer as they are wider.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.chip import TRACK_LINE_DISTANCES
from cartoseq.simulators.kernel import kernel

Floats = NDArray[np.float64]

#: Widths of a line and of the sharpest spot of light, standard deviations in micrometres.
LINE_SIGMA_UM: Final = 1.0
OPTICS_SIGMA_UM: Final = 0.35
#: Blur grows by so much for each micrometre away from the focus: a numerical aperture of about 0.5.
BLUR_PER_UM: Final = 0.3
_REACH: Final = 4.0


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


def scattered_scene(
    width_um: float,
    height_um: float,
    *,
    seed: int = 1,
    nucleus_every_um: float = 20.0,
    pose: Pose | None = None,
    focus_um: float = 0.0,
    tilt: tuple[float, float] = (0.0, 0.0),
) -> Scene:
    """A chip with its track lines, and with nuclei scattered all over it.

    Args:
        width_um: Of the chip.
        height_um: Of the chip.
        seed: Of the nuclei.
        nucleus_every_um: There is one nucleus for each square of this side.
        pose: How the chip lies.
        focus_um: Height of sharp focus at the chip's corner.
        tilt: See `Scene`.
    """
    rng = np.random.default_rng(seed)
    count = max(1, round(width_um * height_um / nucleus_every_um**2))
    return Scene(
        width_um,
        height_um,
        track_lines_um(width_um),
        track_lines_um(height_um),
        rng.uniform(0.0, 1.0, (count, 2)) * [width_um, height_um],
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
    image = np.zeros((height_px, width_px))
    blur_um = math.hypot(OPTICS_SIGMA_UM, BLUR_PER_UM * (z_um - scene.sharp_at_um(x_um, y_um)))
    columns = x_um + (np.arange(width_px) - (width_px - 1) / 2) * pixel_um
    rows = y_um + (np.arange(height_px) - (height_px - 1) / 2) * pixel_um
    inverse = np.linalg.inv(scene.pose.matrix)
    away_x, away_y = np.meshgrid(columns - scene.pose.offset_um[0], rows - scene.pose.offset_um[1])
    chip_x = inverse[0, 0] * away_x + inverse[0, 1] * away_y
    chip_y = inverse[1, 0] * away_x + inverse[1, 1] * away_y
    on_chip = (chip_x >= 0) & (chip_x <= scene.width_um) & (chip_y >= 0) & (chip_y <= scene.height_um)
    sigma_um = math.hypot(LINE_SIGMA_UM, blur_um)
    dim = scene.line_brightness * math.hypot(LINE_SIGMA_UM, OPTICS_SIGMA_UM) / sigma_um
    for along, lines in ((chip_x, scene.lines_x_um), (chip_y, scene.lines_y_um)):
        if lines.size:
            image += dim * np.exp(-0.5 * (_distance(along, lines) / sigma_um) ** 2) * on_chip
    centres = scene.pose.to_stage(scene.nuclei_um)
    reach_um = _REACH * math.hypot(float(scene.radii_um.max(initial=0.0)), blur_um)
    near = (np.abs(centres[:, 0] - x_um) < width_px / 2 * pixel_um + reach_um) & (
        np.abs(centres[:, 1] - y_um) < height_px / 2 * pixel_um + reach_um
    )
    sigmas_um = np.hypot(scene.radii_um[near], blur_um)
    sharp_um = np.hypot(scene.radii_um[near], OPTICS_SIGMA_UM)
    _add_spots(
        image,
        (centres[near, 0] - columns[0]) / pixel_um,
        (centres[near, 1] - rows[0]) / pixel_um,
        sigmas_um / pixel_um,
        scene.brightness[near] * (sharp_um / sigmas_um) ** 2,
    )
    from_axis = np.hypot(*np.meshgrid(np.linspace(-1, 1, width_px), np.linspace(-1, 1, height_px)))
    photons = light * image * (1 - vignetting * (from_axis / math.sqrt(2)) ** 2)
    rng = np.random.default_rng(seed)
    grey = background + photons + rng.normal(0.0, 1.0, image.shape) * np.sqrt(np.maximum(photons, 0) + noise**2)
    return np.clip(np.rint(grey), 0, 2**bit_depth - 1).astype(np.uint16)


def _distance(values: Floats, places: Floats) -> Floats:
    """Distance of each value to the nearest of some places."""
    after = np.searchsorted(places, values)
    below = np.abs(values - places[np.maximum(after - 1, 0)])
    above = np.abs(places[np.minimum(after, places.size - 1)] - values)
    return np.minimum(below, above)


@kernel
def _add_spots(image: Floats, x_px: Floats, y_px: Floats, sigmas_px: Floats, heights: Floats) -> None:
    """Add round spots of light to an image, as far as they reach."""
    for n in range(x_px.size):
        reach = 4.0 * sigmas_px[n]
        scale = -0.5 / (sigmas_px[n] * sigmas_px[n])
        for row in range(max(0, int(y_px[n] - reach)), min(image.shape[0], int(y_px[n] + reach) + 2)):
            down = (row - y_px[n]) ** 2
            for column in range(max(0, int(x_px[n] - reach)), min(image.shape[1], int(x_px[n] + reach) + 2)):
                image[row, column] += heights[n] * np.exp(scale * (down + (column - x_px[n]) ** 2))
