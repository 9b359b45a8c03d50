"""What actions take, for the time line of a plan: from what the instrument file estimates, and where things stand.

A valve turns as far as its port is away, a stroke turns the pump's own valve only where it stands elsewhere, a plate
that was switched off cools slowly. So the time line keeps where each of them is, action by action. Nothing waits by it:
a driver waits until its device is done. `cartoseq plan` holds it against a dry run (`controller.dryrun`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from cartoseq.controller.scan import SWEEP_COARSE, SWEEP_FINE

#: A plate so near to its target needs no time to settle.
_NEAR_C: Final = 0.5

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class Estimates(BaseModel):
    """What things take, for the time line of a recipe; nothing waits by these."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    stroke_overhead_s: _NotNegative = 0.12
    """A stroke beside its volume over its flow: starting, stopping, asking."""
    pump_valve_s: _NotNegative = 0.26
    """A turn of the pump's own valve, where a stroke goes through another port than the last."""
    port_s: _NotNegative = 0.08
    """A turn of the selector valve beside its way."""
    port_way_s: _NotNegative = 0.2
    """Each port of its way, the shorter way round."""
    order_s: _NotNegative = 0.04
    """An order that needs no waiting: a target, regulation off."""
    ramp_c_per_s: _Positive = 1.0
    """How fast the flow cell is warmed."""
    cool_c_per_s: _Positive | None = None
    """How fast it is cooled; without it, as fast as it is warmed."""
    settle_s: _NotNegative = 1.0
    """How long it takes to settle at its target once it is there."""
    relax_s: _Positive = 180.0
    """While it is not regulated, it comes nearer to `start_c` by the factor e in this time."""
    start_c: _Number = 22.0
    """Its temperature before the run."""
    move_s: _NotNegative = 0.08
    """A move of the stage beside its way."""
    stage_um_per_s: _Positive = 5_700.0
    """How fast the stage moves along each axis, both at once."""
    focus_move_s: _NotNegative = 0.025
    """A move of the focus axis beside its way."""
    focus_um_per_s: _Positive = 700.0
    """How fast the focus axis moves."""
    light_s: _NotNegative = 0.05
    """A picture beside its exposure: a laser on and off, and the camera's readout."""


class Timing:
    """What the next action takes, and where everything stands after it.

    Args:
        estimates: What things take.
        ports: Of the selector valve.
        place_um: Where the stage stands at first.
    """

    def __init__(self, estimates: Estimates, ports: int, place_um: tuple[float, float]) -> None:
        self._of = estimates
        self._ports = ports
        self._place_um = place_um
        self._port = 1
        self._pump_port = "waste"
        self._plate_c = estimates.start_c
        self._target_c: float | None = None
        self._unsettled_s = 0.0

    # ---------------------------------------------------------------------------------------------------------- fluid

    def select_s(self, port: int) -> float:
        """Turn the selector valve."""
        way = abs(port - self._port)
        self._port = port
        return self._of.port_s + self._of.port_way_s * min(way, abs(self._ports - way))

    def stroke_s(self, volume_ul: float, flow_ul_per_s: float, port: str) -> float:
        """A stroke of the pump through one of its ports, "flow_cell" or "waste"."""
        turn_s = 0.0 if port == self._pump_port else self._of.pump_valve_s
        self._pump_port = port
        return turn_s + volume_ul / flow_ul_per_s + self._of.stroke_overhead_s

    # ----------------------------------------------------------------------------------------------------------- heat

    def target_s(self, temperature_c: float) -> float:
        """Set the plate's target."""
        if self._target_c != temperature_c:
            self._unsettled_s = self._of.settle_s if abs(temperature_c - self._plate_c) > _NEAR_C else 0.0
        self._target_c = temperature_c
        return self._of.order_s

    def off_s(self) -> float:
        """Switch its regulation off."""
        self._target_c = None
        self._unsettled_s = 0.0
        return self._of.order_s

    def ramp_s(self) -> float:
        """Until the plate has settled at its target, which it has."""
        assert self._target_c is not None
        return self._way_s(self._plate_c, self._target_c) + self._unsettled_s

    def longest_ramp_s(self) -> float:
        """The same for a plate that has meanwhile come to where it was before the run."""
        assert self._target_c is not None
        return max(self.ramp_s(), self._way_s(self._of.start_c, self._target_c) + self._of.settle_s)

    def _way_s(self, from_c: float, to_c: float) -> float:
        return abs(to_c - from_c) / self._rate(from_c, to_c)

    def _rate(self, from_c: float, to_c: float) -> float:
        cool_c_per_s = self._of.cool_c_per_s or self._of.ramp_c_per_s
        return self._of.ramp_c_per_s if to_c >= from_c else cool_c_per_s

    def go_on(self, duration_s: float) -> None:
        """Let time go by for the plate."""
        start_c, target_c = self._of.start_c, self._target_c
        if target_c is None:
            self._plate_c = start_c + (self._plate_c - start_c) * math.exp(-duration_s / self._of.relax_s)
            return
        way_s = self._way_s(self._plate_c, target_c)
        if duration_s < way_s:
            self._plate_c += (target_c - self._plate_c) * duration_s / way_s
        else:
            self._plate_c = target_c
            self._unsettled_s = max(0.0, self._unsettled_s - (duration_s - way_s))

    # ------------------------------------------------------------------------------------------------------- pictures

    def light_s(self) -> float:
        """Switch a laser."""
        return self._of.light_s

    def pictures_s(self, exposures_ms: Iterable[float]) -> float:
        """Pictures at one place."""
        return sum(exposure_ms / 1000 + self._of.light_s for exposure_ms in exposures_ms)

    def move_s(self, x_um: float, y_um: float) -> float:
        """Move the stage."""
        way_um = max(abs(x_um - self._place_um[0]), abs(y_um - self._place_um[1]))
        self._place_um = (x_um, y_um)
        return self._of.move_s + way_um / self._of.stage_um_per_s

    def sweep_s(self, exposure_ms: float, sweep_um: float) -> float:
        """A sweep for the focus at one place: to its low end, through it, and back to the best height half-way."""
        pictures_s = (SWEEP_COARSE + SWEEP_FINE) * (self._of.focus_move_s + self.pictures_s([exposure_ms]))
        return pictures_s + 2 * sweep_um / self._of.focus_um_per_s

    def tile_s(self, exposures_ms: Iterable[float], *, has_focus: bool) -> float:
        """The pictures of a tile once the stage is there."""
        return (self._of.focus_move_s if has_focus else 0.0) + self.pictures_s(exposures_ms)
