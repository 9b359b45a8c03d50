"""Heat: a plate on a Peltier element on a sink, and the regulator that feeds the element.

The plate carries the flow cell; the sink gives its heat to the air. A current `I` through the element moves the heat
`a I T` from the face that it cools to the other, makes the heat `I² R`, half of it on either side, and the difference
of temperature drives heat back through the element (the standard equations of a thermoelectric module). Integrated in
fixed steps on one grid of time, so that what is read does not depend on when one looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

ZERO_C_IN_K: Final = 273.15
STEP_S: Final = 0.1


@dataclass(frozen=True)
class PlateSettings:
    """What a plate and its sink are made of.

    Attributes:
        plate_j_per_k: Heat capacity of the plate and what lies on it.
        sink_j_per_k: Heat capacity of the sink.
        seebeck_v_per_k: Of the whole element.
        resistance_ohm: Of the whole element.
        element_w_per_k: Heat that flows through the element, per kelvin between plate and sink.
        plate_loss_w_per_k: Heat that the plate gives to the air.
        sink_loss_w_per_k: Heat that the sink gives to the air.
        ambient_c: Temperature of the air.
        current_limit_a: Greatest current either way that the supply can give.
    """

    plate_j_per_k: float = 120.0
    sink_j_per_k: float = 900.0
    seebeck_v_per_k: float = 0.05
    resistance_ohm: float = 2.0
    element_w_per_k: float = 0.5
    plate_loss_w_per_k: float = 0.15
    sink_loss_w_per_k: float = 6.0
    ambient_c: float = 22.0
    current_limit_a: float = 6.0

    def __post_init__(self) -> None:
        """Hold that heat capacities are more than nothing.

        Raises:
            ValueError: one is not, or a value is no number.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or (field.name != "ambient_c" and value < 0):
                raise ValueError(f"{field.name}: expected a number of at least 0, found {value!r}")
        for name in ("plate_j_per_k", "sink_j_per_k"):
            # A step must be short against the time constants, or the integration would not be stable.
            if getattr(self, name) < 5.0:
                raise ValueError(f"{name}: expected at least 5 J/K, found {getattr(self, name)}")


@dataclass
class Gains:
    """How the regulator turns an error of temperature into a current.

    Attributes:
        kp_a_per_k: Current per kelvin.
        ti_s: Time in which the integral makes up for a lasting error; 0 for no integral.
        td_s: How far it looks ahead.
        ramp_k_per_s: How fast the nominal temperature goes to the target; 0 for at once.
    """

    kp_a_per_k: float = 4.0
    ti_s: float = 30.0
    td_s: float = 0.0
    ramp_k_per_s: float = 0.0


class Plate:
    """A regulated plate.

    Args:
        settings: What it is made of.
        gains: How it is regulated.
    """

    def __init__(self, settings: PlateSettings | None = None, gains: Gains | None = None) -> None:
        self.settings = settings or PlateSettings()
        self.gains = gains or Gains()
        self.ambient_c = self.settings.ambient_c
        self.plate_c = self.sink_c = self.ambient_c
        #: Positive heats.
        self.current_a = 0.0
        self.voltage_v = 0.0
        self.target_c = self.ambient_c
        #: Where the ramp is on its way to the target.
        self.nominal_c = self.ambient_c
        self.regulated = False
        #: Current that flows while it is not regulated.
        self.fixed_current_a = 0.0
        self.current_limit_a = self.settings.current_limit_a
        #: Disturbances: the share of the current that reaches the element, and what the sensor adds.
        self.drive = 1.0
        self.sensor_error_k = 0.0
        #: The share of the sink's loss that is left: less than 1 when its fan fails.
        self.fan = 1.0
        #: Outside these it switches itself off, and says why in `tripped`.
        self.plate_allowed_c = (-math.inf, math.inf)
        self.sink_allowed_c = (-math.inf, math.inf)
        self.tripped = ""
        #: Heat that went into the element, and that was lost to the air, since the begin.
        self.supplied_j = self.lost_j = 0.0
        #: How long the measured temperature has been within `window_k` of the target.
        self.window_k = 0.1
        self.settled_s = 0.0
        self._integral_a = 0.0
        self._last_c = self.plate_c
        self._steps = 0

    @property
    def measured_c(self) -> float:
        """What the plate's sensor says."""
        return self.plate_c + self.sensor_error_k

    def regulate(self, on: bool) -> None:
        """Switch regulation on or off; the ramp begins at what is measured."""
        if on and not self.regulated:
            self.nominal_c = self._last_c = self.measured_c
            self._integral_a = 0.0
        if not on:
            self.current_a = 0.0
            self.fixed_current_a = 0.0
        if on != self.regulated:
            self.settled_s = 0.0
        self.regulated = on

    def set_target(self, target_c: float) -> None:
        """Set the target; the time within the window begins anew."""
        if target_c != self.target_c:
            self.settled_s = 0.0
        self.target_c = target_c

    def begin(self, now_s: float) -> None:
        """Let it begin at a time as it is, instead of at 0."""
        self._steps = math.floor(now_s / STEP_S + 1e-9)

    def advance(self, now_s: float) -> None:
        """Integrate up to the last step of the grid that is not after a time."""
        last = math.floor(now_s / STEP_S + 1e-9)
        while self._steps < last:
            self._step()
            self._steps += 1

    def _step(self) -> None:
        made = self.settings
        self.current_a = self._current_a(self.plate_c + self.sensor_error_k) if self.regulated else self.fixed_current_a
        current_a = self.current_a * self.drive
        plate_k, sink_k = self.plate_c + ZERO_C_IN_K, self.sink_c + ZERO_C_IN_K
        joule_w = current_a**2 * made.resistance_ohm
        through_w = made.element_w_per_k * (sink_k - plate_k)
        into_plate_w = made.seebeck_v_per_k * current_a * plate_k + joule_w / 2 + through_w
        into_sink_w = -made.seebeck_v_per_k * current_a * sink_k + joule_w / 2 - through_w
        plate_loss_w = made.plate_loss_w_per_k * (self.plate_c - self.ambient_c)
        sink_loss_w = made.sink_loss_w_per_k * self.fan * (self.sink_c - self.ambient_c)
        self.plate_c += STEP_S * (into_plate_w - plate_loss_w) / made.plate_j_per_k
        self.sink_c += STEP_S * (into_sink_w - sink_loss_w) / made.sink_j_per_k
        # Driven against the Seebeck voltage; what the supply gives is what arrives on both sides together.
        self.voltage_v = current_a * made.resistance_ohm + made.seebeck_v_per_k * (plate_k - sink_k)
        self.supplied_j += STEP_S * current_a * self.voltage_v
        self.lost_j += STEP_S * (plate_loss_w + sink_loss_w)
        measured_c = self.plate_c + self.sensor_error_k
        within = self.regulated and abs(measured_c - self.target_c) <= self.window_k
        self.settled_s = self.settled_s + STEP_S if within else 0.0
        if not self.plate_allowed_c[0] <= measured_c <= self.plate_allowed_c[1]:
            self._trip("plate")
        elif not self.sink_allowed_c[0] <= self.sink_c <= self.sink_allowed_c[1]:
            self._trip("sink")

    def _trip(self, part: str) -> None:
        if not self.tripped:
            self.tripped = part
            self.regulate(False)

    def _current_a(self, measured_c: float) -> float:
        """One step of a PI regulator with a limit; the integral stands still while the limit holds."""
        gains, limit_a = self.gains, self.current_limit_a
        if gains.ramp_k_per_s > 0:
            way_k = gains.ramp_k_per_s * STEP_S
            self.nominal_c += max(-way_k, min(way_k, self.target_c - self.nominal_c))
        else:
            self.nominal_c = self.target_c
        error_k = self.nominal_c - measured_c
        rate_k_per_s = (measured_c - self._last_c) / STEP_S
        self._last_c = measured_c
        wanted_a = gains.kp_a_per_k * (error_k - gains.td_s * rate_k_per_s) + self._integral_a
        current_a = max(-limit_a, min(limit_a, wanted_a))
        if gains.ti_s > 0 and (current_a == wanted_a or (wanted_a - current_a) * error_k < 0):
            self._integral_a += gains.kp_a_per_k * error_k * STEP_S / gains.ti_s
        return current_a

    def inspect(self) -> dict[str, float | str | bool]:
        """What is true, as of the last `advance`."""
        return {
            "plate_c": self.plate_c,
            "sink_c": self.sink_c,
            "target_c": self.target_c,
            "current_a": self.current_a,
            "regulated": self.regulated,
        }
