"""A camera over the chip: its pictures show what the stage, the focus axis and the lasers of the bench make of it.

Light is gathered from the begin of an exposure to its end, by what the lasers give at the sample meanwhile; where the
chip lies under the objective is asked half-way. So a laser that is off, a stage that was displaced and a focus that is
wrong are seen in the picture, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.chipimage import Scene, render
from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.world import World

#: Electrons of a nucleus of brightness 1, in focus, for each millijoule of light at the sample.
ELECTRONS_PER_MJ: Final = 1000.0
#: Electrons that a pixel holds: the greatest grey value.
FULL_WELL: Final = 60_000.0
#: Standard deviation of the reading, electrons.
READ_NOISE: Final = 4.0
_SAMPLES: Final = 5
_FAULTS: Final = {
    "dropped_frame": FaultKind("The next frame is lost: it never comes."),
    "late_frame": FaultKind("The next frame comes so many seconds later.", {"seconds": 1.0}),
    "saturated_frame": FaultKind("The next frame gets so many times its light.", {"times": 1000.0}),
}


@dataclass(frozen=True)
class Sight:
    """What lies under the objective, in micrometres: the optical axis on the stage, and the height of the focus."""

    x_um: float
    y_um: float
    z_um: float


class CameraSim:
    """One camera.

    Args:
        name: What it is called.
        world: The bench whose light it gathers.
        scene: What lies on the stage.
        sight: Tells what lies under the objective at a time.
        width_px: Of its sensor.
        height_px: See above.
        pixel_um: Size of a pixel on the chip.
        bit_depth: Of a grey value.
        readout_s: From the end of an exposure until its picture is there.
        seed: Of the noise.
    """

    def __init__(
        self,
        name: str,
        world: World,
        *,
        scene: Scene,
        sight: Callable[[float], Sight],
        width_px: int,
        height_px: int,
        pixel_um: float,
        bit_depth: int = 16,
        readout_s: float = 0.01,
        seed: int = 1,
    ) -> None:
        self.name = name
        self.world = world
        self.scene = scene
        self.width_px, self.height_px = width_px, height_px
        self.pixel_um = pixel_um
        self.bit_depth = bit_depth
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        #: Pictures that were begun.
        self.taken = 0
        #: Called at the begin of each exposure with its time and number.
        self.watchers: list[Callable[[float, int], None]] = []
        self.sight = sight
        self.readout_s = readout_s
        self._seed = seed
        self._power_mw: list[float] = []
        self._seen = Sight(0.0, 0.0, 0.0)

    def expose(self, now_s: float, exposure_s: float) -> float:
        """Begin a picture; what it would have seen of one that is under way is lost.

        Returns:
            When the picture is there; infinity where it is lost.
        """
        self.world.advance(now_s)
        number, self.taken = self.taken, self.taken + 1
        for notice in self.watchers:
            notice(now_s, number)
        powers = self._power_mw = []
        for part in range(_SAMPLES):
            at_s = now_s + exposure_s * part / (_SAMPLES - 1)
            self.world.at(at_s, lambda then_s: powers.append(sum(self.world.optics.at_sample_mw(then_s).values())))
        self.world.at(now_s + exposure_s / 2, self._look)
        ready_s = now_s + exposure_s + self.readout_s
        if "dropped_frame" in self.disturbances:
            self.disturbances.end("dropped_frame")
            return math.inf
        if "late_frame" in self.disturbances:
            ready_s += self.disturbances.number("late_frame", "seconds")
            self.disturbances.end("late_frame")
        return ready_s

    def _look(self, now_s: float) -> None:
        self._seen = self.sight(now_s)

    def read(self, now_s: float, exposure_s: float) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The picture whose exposure has ended: grey values, shape (height, width)."""
        self.world.advance(now_s)
        energy_mj = float(np.mean(self._power_mw)) * exposure_s if self._power_mw else 0.0
        if "saturated_frame" in self.disturbances:
            energy_mj *= self.disturbances.number("saturated_frame", "times")
            self.disturbances.end("saturated_frame")
        electrons_per_grey = FULL_WELL / (2**self.bit_depth - 1)
        grey = render(
            self.scene,
            self._seen.x_um,
            self._seen.y_um,
            self._seen.z_um,
            width_px=self.width_px,
            height_px=self.height_px,
            pixel_um=self.pixel_um,
            light=ELECTRONS_PER_MJ * energy_mj / electrons_per_grey,
            seed=self._seed + self.taken,
            bit_depth=self.bit_depth,
            background=2**self.bit_depth / 64,
            noise=READ_NOISE / electrons_per_grey,
        )
        return grey.astype(np.uint8) if self.bit_depth <= 8 else grey

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self.world.advance(now_s)
        self.disturbances.inject(fault, values)

    def clear(self, now_s: float) -> None:
        """Take back every disturbance."""
        self.world.advance(now_s)
        self.disturbances.clear()

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self.world.advance(now_s)
        seen = self.sight(now_s)
        blur_um = abs(seen.z_um - self.scene.sharp_at_um(seen.x_um, seen.y_um))
        return {
            "pictures": self.taken,
            "x_um": seen.x_um,
            "y_um": seen.y_um,
            "z_um": seen.z_um,
            "from_focus_um": blur_um,
        }
