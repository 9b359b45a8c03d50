"""What the run engine may ask of a device: small protocols, one for each kind of device, with units in every name.

Drivers do not inherit from these; they have the methods. Every action returns when it is done, within a deadline
computed from distance, speed, volume and flow, or raises an error of `drivers.errors`. A target outside the limits
raises `LimitError` and nothing is sent. Every call may be made twice without harm, but for pump strokes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

#: The notice in the identity of every device whose driver was only tested against a simulator so far.
NOTICE: Final = "this driver has not met its hardware yet"


@dataclass(frozen=True)
class Identity:
    """Who answered when a device was opened.

    Attributes:
        maker: Its maker.
        model: Its model, as it says it.
        serial_number: As it says it; empty where the protocol has none.
        firmware: As it says it; empty where the protocol has none.
        notice: What the operator must know, such as that the driver has not met this hardware yet.
    """

    maker: str
    model: str
    serial_number: str = ""
    firmware: str = ""
    notice: str = ""


@dataclass(frozen=True)
class Fault:
    """One fault that a device reports.

    Attributes:
        code: The device's own code.
        text: What it means.
        severe: Whether work must stop; a warning does not.
    """

    code: str
    text: str
    severe: bool = True


@dataclass(frozen=True)
class Range:
    """An allowed range, both ends included.

    Attributes:
        low: Least allowed value.
        high: Greatest allowed value.
    """

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class XYLimits:
    """Allowed travel of a stage, in micrometres."""

    x_um: Range
    y_um: Range


@dataclass(frozen=True)
class XY:
    """A position of a stage, in micrometres."""

    x_um: float
    y_um: float


@dataclass(frozen=True)
class Region:
    """A part of a camera's sensor, in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """One picture.

    Attributes:
        pixels: Grey values, uint8 or uint16, shape (height, width).
        exposure_ms: How long light was gathered.
        time_s: When the exposure began, in the event loop's time.
        number: Counts up with every picture since the camera was opened, also over lost ones.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    exposure_ms: float
    time_s: float
    number: int


@runtime_checkable
class Device(Protocol):
    """What every device can do."""

    name: str

    async def open(self) -> Identity:
        """Connect, clear stale input, identify, and hold that it is the model that is expected."""

    async def close(self) -> None:
        """Let go of the line. The device stays as it is."""

    async def make_safe(self) -> None:
        """Bring it into its safe state: no motion, no light, no heat above the safe target.

        May be called at any time, also while another call waits, and as often as one likes.
        """

    async def read_faults(self) -> list[Fault]:
        """Everything that the device complains of now."""

    async def clear_faults(self) -> None:
        """Clear what can be cleared; what is still true comes back."""


@runtime_checkable
class XYStage(Device, Protocol):
    """A stage that moves the chip under the objective."""

    limits: XYLimits

    async def home(self) -> None:
        """Find the reference position."""

    async def position(self) -> XY:
        """Where it is."""

    async def move_to(self, x_um: float, y_um: float) -> None:
        """Move, and return when it is at rest there."""

    async def stop(self) -> None:
        """Stop at once, wherever it is."""


@runtime_checkable
class FocusStage(Device, Protocol):
    """An axis that moves the objective or the chip along the light."""

    limits_um: Range

    async def position_um(self) -> float:
        """Where it is."""

    async def move_to_um(self, z_um: float) -> None:
        """Move, and return when it is at rest there."""

    async def stop(self) -> None:
        """Stop at once."""


@runtime_checkable
class SyringePump(Device, Protocol):
    """A syringe with a valve at its head.

    After a stop the plunger's place is not known to be true: every stroke raises `NotInitialized` until `initialize`.
    """

    barrel_ul: float
    flow_ul_per_s: Range

    async def initialize(self) -> None:
        """Find the plunger's zero; what is in the syringe goes to the waste port."""

    async def plunger_ul(self) -> float:
        """Volume in the barrel, as the plunger's place tells it."""

    async def aspirate(self, volume_ul: float, port: str, flow_ul_per_s: float) -> None:
        """Draw a volume in through a port of the pump's own valve."""

    async def dispense(self, volume_ul: float, port: str, flow_ul_per_s: float) -> None:
        """Push a volume out through a port of the pump's own valve."""

    async def stop(self) -> None:
        """Stop the plunger at once."""


@runtime_checkable
class SelectorValve(Device, Protocol):
    """A valve that connects one of several ports."""

    n_ports: int

    async def port(self) -> int:
        """The port that is connected, from 1."""

    async def select(self, port: int) -> None:
        """Connect a port, and hold that it is."""


@runtime_checkable
class TemperatureController(Device, Protocol):
    """A heated or cooled part."""

    limits_c: Range

    async def set_target_c(self, temperature_c: float) -> None:
        """Set the target, switch regulation on, and return at once."""

    async def target_c(self) -> float:
        """The target that is regulated to."""

    async def temperature_c(self) -> float:
        """What is measured."""

    async def is_stable(self) -> bool:
        """Whether the device says that it has settled at its target."""

    async def wait_stable(self, tolerance_c: float, dwell_s: float, timeout_s: float) -> None:
        """Return when it has been within the tolerance for the dwell time."""

    async def disable(self) -> None:
        """Switch regulation off."""


@runtime_checkable
class Laser(Device, Protocol):
    """A laser head."""

    wavelength_nm: float
    power_limits_mw: Range

    async def set_power_mw(self, power_mw: float) -> None:
        """Set the power that it emits when it is on."""

    async def power_mw(self) -> float:
        """The power that it measures."""

    async def set_emission(self, on: bool) -> None:
        """Switch the light, and return when it is on (or off) by the device's own status."""

    async def is_emitting(self) -> bool:
        """Whether there is light."""

    async def interlock_ok(self) -> bool:
        """Whether the safety circuit is closed."""


@runtime_checkable
class Camera(Device, Protocol):
    """A camera."""

    width_px: int
    height_px: int
    bit_depth: int

    async def configure(
        self,
        exposure_ms: float,
        region: Region | None = None,
        trigger: Literal["software", "external"] = "software",
    ) -> None:
        """Set exposure, the part of the sensor (none: all), and what starts a picture."""

    async def snap(self) -> Frame:
        """Take one picture."""

    def stream(self, count: int) -> AsyncIterator[Frame]:
        """Take so many pictures in a row; a lost one raises."""


@runtime_checkable
class PowerMeter(Device, Protocol):
    """A meter of optical power."""

    async def set_wavelength_nm(self, wavelength_nm: float) -> None:
        """Tell it the light's wavelength."""

    async def power_mw(self) -> float:
        """What it measures."""


@runtime_checkable
class TriggerSource(Device, Protocol):
    """A source of pulses that start exposures."""

    async def configure(self, period_ms: float, width_ms: float, count: int) -> None:
        """Set the pulses of one burst."""

    async def arm(self) -> None:
        """Make it ready."""

    async def fire(self) -> None:
        """Send the burst, and return when its last pulse has ended."""
