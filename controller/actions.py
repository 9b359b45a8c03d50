"""What a plan is made of: single actions, each of one device, and what may be done with one that was interrupted.

* *idempotent*: may be done again (a valve, a temperature, a picture);
* *consuming*: moves fluid, and is never done again blindly; the ledger knows how much was delivered;
* *timed*: chemistry that goes on, whether the run waits or not;
* *waiting*: for the operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cartoseq.controller.recipe import Area, Channel

StepClass = Literal["idempotent", "consuming", "timed", "waiting"]


@dataclass(frozen=True)
class SelectReagent:
    """Turn the selector valve to a bottle."""

    reagent: str
    port: int
    step_class: StepClass = "idempotent"

    def __str__(self) -> str:
        return f"select {self.reagent} (port {self.port})"


@dataclass(frozen=True)
class Draw:
    """Draw from the selected bottle through the flow cell into the syringe."""

    reagent: str
    volume_ul: float
    flow_ul_per_s: float
    step_class: StepClass = "consuming"

    def __str__(self) -> str:
        return f"draw {self.volume_ul:g} ul of {self.reagent} at {self.flow_ul_per_s:g} ul/s"


@dataclass(frozen=True)
class Push:
    """Push from the syringe: through the flow cell ("flow_cell") or to waste ("waste")."""

    to: Literal["flow_cell", "waste"]
    volume_ul: float
    flow_ul_per_s: float
    step_class: StepClass = "consuming"

    def __str__(self) -> str:
        where = "to waste" if self.to == "waste" else "back through the flow cell"
        return f"push {self.volume_ul:g} ul {where} at {self.flow_ul_per_s:g} ul/s"


@dataclass(frozen=True)
class Incubation:
    """Let chemistry work."""

    duration_s: float
    most_s: float
    step_class: StepClass = "timed"

    def __str__(self) -> str:
        return f"incubate {self.duration_s:g} s"


@dataclass(frozen=True)
class Settle:
    """Let pressure even out."""

    duration_s: float
    step_class: StepClass = "idempotent"

    def __str__(self) -> str:
        return f"settle {self.duration_s:g} s"


@dataclass(frozen=True)
class Target:
    """Set the flow cell's temperature."""

    temperature_c: float
    step_class: StepClass = "idempotent"

    def __str__(self) -> str:
        return f"set {self.temperature_c:g} C"


@dataclass(frozen=True)
class Stable:
    """Wait until the temperature is reached."""

    temperature_c: float
    tolerance_c: float
    dwell_s: float
    timeout_s: float
    step_class: StepClass = "idempotent"

    def __str__(self) -> str:
        return f"wait for {self.temperature_c:g} C within {self.tolerance_c:g} C"


@dataclass(frozen=True)
class RegulationOff:
    """Switch the flow cell's regulation off."""

    step_class: StepClass = "idempotent"

    def __str__(self) -> str:
        return "temperature regulation off"


@dataclass(frozen=True)
class Emission:
    """Switch a laser."""

    device: str
    on: bool
    power_mw: float
    step_class: StepClass = "idempotent"

    def __str__(self) -> str:
        return f"{self.device} on at {self.power_mw:g} mW" if self.on else f"{self.device} off"


@dataclass(frozen=True)
class Focus:
    """Find the focus over an area."""

    channel: Channel
    area: Area
    points: int
    sweep_um: float
    step_class: StepClass = "idempotent"

    def __str__(self) -> str:
        return f"focus at {self.points} points with {self.channel.name}"


@dataclass(frozen=True)
class Image:
    """Take the tiles of an area: in a cycle, counted from 1 through all reads, or in none, 0."""

    channels: tuple[Channel, ...]
    area: Area
    overlap_percent: float
    tiles_x: int
    tiles_y: int
    most_retakes: int
    cycle: int
    step_class: StepClass = "idempotent"

    def __str__(self) -> str:
        names = ", ".join(channel.name for channel in self.channels)
        return f"image {self.tiles_x} x {self.tiles_y} tiles in {names}"


@dataclass(frozen=True)
class PausePoint:
    """A point where the run may pause."""

    label: str
    step_class: StepClass = "idempotent"

    def __str__(self) -> str:
        return f"checkpoint {self.label}"


@dataclass(frozen=True)
class AskOperator:
    """Wait for the operator."""

    message: str
    step_class: StepClass = "waiting"

    def __str__(self) -> str:
        return f"hold: {self.message}"


Action = (
    SelectReagent
    | Draw
    | Push
    | Incubation
    | Settle
    | Target
    | Stable
    | RegulationOff
    | Emission
    | Focus
    | Image
    | PausePoint
    | AskOperator
)
