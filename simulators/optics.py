"""Light: laser heads, what lies in their beam, and how much arrives.

A head gives the power that it is set to, once it has come up, times a drift: a slow swing of the warm head and what a
disturbance adds. A beam path is a row of parts that each let a share through. No camera here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

_SWING_PERIOD_S = 1800.0


class LaserHead:
    """A laser head as a source of light.

    Args:
        name: What it is called.
        wavelength_nm: Its line.
        rated_mw: Greatest power.
        rise_s: Time constant with which the power comes up once emission is on.
        swing: Amplitude of its slow drift, as a share of the power.
    """

    def __init__(
        self, name: str, wavelength_nm: float, rated_mw: float, *, rise_s: float = 0.05, swing: float = 0.005
    ) -> None:
        self.name = name
        self.wavelength_nm = wavelength_nm
        self.rated_mw = rated_mw
        self.set_mw = 0.0
        #: Disturbance: change of the power as a share of it per hour, from when it began.
        self.drift_per_hour = 0.0
        self.drift_since_s = 0.0
        self._rise_s = rise_s
        self._swing = swing
        self._on_since_s: float | None = None

    @property
    def emitting(self) -> bool:
        """Whether there is light."""
        return self._on_since_s is not None

    def emit(self, on: bool, now_s: float) -> None:
        """Switch the light."""
        if on != self.emitting:
            self._on_since_s = now_s if on else None

    def power_mw(self, now_s: float) -> float:
        """The power that leaves the head."""
        if self._on_since_s is None:
            return 0.0
        swing = 1.0 + self._swing * math.sin(2 * math.pi * now_s / _SWING_PERIOD_S)
        drift = max(0.0, 1.0 + self.drift_per_hour * max(0.0, now_s - self.drift_since_s) / 3600)
        rise = 1.0 - math.exp(-(now_s - self._on_since_s) / self._rise_s) if self._rise_s > 0 else 1.0
        return self.set_mw * swing * drift * rise


class Optics:
    """All lasers of a bench, and the path on which they reach the sample or a power meter there.

    Args:
        heads: The laser heads.
        parts: What lies in the common beam: the share of the light that each part lets through, by name.
    """

    def __init__(self, heads: Iterable[LaserHead] = (), parts: dict[str, float] | None = None) -> None:
        self.heads = {head.name: head for head in heads}
        self.parts = dict(parts or {})
        for name, share in self.parts.items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name}: expected a share of 0 to 1, found {share}")
        #: The doors of the bench: every laser's safety circuit runs through them.
        self.doors_closed = True
        #: Called when the doors open or close.
        self.door_watchers: list[Callable[[], None]] = []

    def move_doors(self, *, closed: bool) -> None:
        """Open or close the doors; the lasers notice at once."""
        self.doors_closed = closed
        for notice in self.door_watchers:
            notice()

    def at_sample_mw(self, now_s: float) -> dict[float, float]:
        """The power at the sample by wavelength in nm."""
        through = math.prod(self.parts.values())
        powers: dict[float, float] = {}
        for head in self.heads.values():
            powers[head.wavelength_nm] = powers.get(head.wavelength_nm, 0.0) + head.power_mw(now_s) * through
        return powers

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true now."""
        seen: dict[str, float | str | bool] = {"doors_closed": self.doors_closed}
        for name, head in self.heads.items():
            seen[f"{name}.emitting"] = head.emitting
            seen[f"{name}.power_mw"] = head.power_mw(now_s)
        return seen
