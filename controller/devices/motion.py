"""Stages, focus axes and tilt motors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, PlainValidator, StrictInt, model_validator

from cartoseq.controller.devices.tables import (
    DeviceTable,
    Limits,
    Name,
    Number,
    Parts,
    PartTable,
    Plug,
    Positive,
    Role,
    Travel,
    Wire,
    is_number,
)
from cartoseq.controller.settingsfile import fault, shown
from cartoseq.drivers import hiseqfpga, mdrive, vix
from cartoseq.drivers.asi import AsiFocus, AsiStage
from cartoseq.drivers.capabilities import XY
from cartoseq.drivers.hiseqfpga import HiSeqFpga, Objective, TiltMotor
from cartoseq.drivers.hiseqstage import HiSeqStage
from cartoseq.drivers.mdrive import MDriveAxis
from cartoseq.drivers.prior import PriorFocus, PriorStage
from cartoseq.drivers.vix import VixAxis
from cartoseq.drivers.zaber import ZaberAxis, ZaberFocus, ZaberStage


def _axis(value: object) -> str:
    if not (isinstance(value, str) and len(value) == 1 and "A" <= value <= "Z"):
        raise fault(f"expected an axis, found {shown(value)}", 'Write its letter as the controller does: "X".')
    return value


def _gains(value: object) -> tuple[float, ...] | None:
    if not (isinstance(value, list) and len(value) in (0, 5) and all(map(is_number, value))):
        raise fault(
            f"expected five numbers, found {shown(value)}",
            "Write feed-forward, integral, proportional, velocity and filter gain, or [] to leave them as they are.",
        )
    return tuple(map(float, value)) or None


Axis = Annotated[str, PlainValidator(_axis)]
Gains = Annotated[Any, PlainValidator(_gains)]


class Place(PartTable):
    """A place on a stage."""

    makes: ClassVar[Callable[..., Any]] = XY
    x_um: Number
    y_um: Number


class AsiStageTable(DeviceTable):
    """An XY stage on an ASI controller."""

    role: ClassVar[Role] = "stage"
    wire: ClassVar[Wire] = Wire("ASI", 115_200)
    makes: ClassVar[Callable[..., Any]] = AsiStage

    driver: Literal["asi_stage"]
    line: Name
    limits: Travel
    axes: tuple[Axis, Axis] = ("X", "Y")
    speed_mm_per_s: Positive | None = None
    acceleration_ms: Positive | None = None
    home: Place | None = None
    tolerance_um: Positive = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.axes[0] == self.axes[1]:
            raise fault("both axes are the same", 'Name two: axes = ["X", "Y"].')
        return self

    def seats(self) -> frozenset[str]:
        """Its axes."""
        return frozenset(f"axis {axis}" for axis in self.axes)


class AsiFocusTable(DeviceTable):
    """A focus axis on an ASI controller."""

    role: ClassVar[Role] = "focus"
    wire: ClassVar[Wire] = AsiStageTable.wire
    makes: ClassVar[Callable[..., Any]] = AsiFocus

    driver: Literal["asi_focus"]
    line: Name
    limits_um: Limits
    axis: Axis = "Z"
    speed_mm_per_s: Positive | None = None
    acceleration_ms: Positive | None = None
    tolerance_um: Positive = 0.3

    def seats(self) -> frozenset[str]:
        """Its axis."""
        return frozenset({f"axis {self.axis}"})


class ZaberAxisTable(PartTable):
    """One axis of a Zaber device."""

    makes: ClassVar[Callable[..., Any]] = ZaberAxis

    device: Annotated[StrictInt, Field(ge=1, le=99)]
    axis: Annotated[StrictInt, Field(ge=1, le=9)]
    microstep_um: Positive
    limits_um: Limits
    speed_mm_per_s: Positive | None = None

    def seat(self) -> str:
        """Device and axis."""
        return f"axis {self.axis} of device {self.device}"


class ZaberStageTable(DeviceTable):
    """An XY stage of two Zaber axes."""

    role: ClassVar[Role] = "stage"
    wire: ClassVar[Wire] = Wire("Zaber", 115_200)
    makes: ClassVar[Callable[..., Any]] = ZaberStage

    driver: Literal["zaber_stage"]
    line: Name
    x: ZaberAxisTable
    y: ZaberAxisTable
    tolerance_um: Positive = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.x.seat() == self.y.seat():
            raise fault(f"x and y are both {self.x.seat()}", "Give each its axis.")
        return self

    def seats(self) -> frozenset[str]:
        """Its axes."""
        return frozenset({self.x.seat(), self.y.seat()})


class ZaberFocusTable(DeviceTable):
    """A focus axis of Zaber."""

    role: ClassVar[Role] = "focus"
    wire: ClassVar[Wire] = ZaberStageTable.wire
    makes: ClassVar[Callable[..., Any]] = ZaberFocus

    driver: Literal["zaber_focus"]
    line: Name
    axis: ZaberAxisTable
    tolerance_um: Positive = 0.3

    def seats(self) -> frozenset[str]:
        """Its axis."""
        return frozenset({self.axis.seat()})


class PriorStageTable(DeviceTable):
    """An XY stage on a Prior controller."""

    role: ClassVar[Role] = "stage"
    wire: ClassVar[Wire] = Wire("Prior", 9600)
    makes: ClassVar[Callable[..., Any]] = PriorStage

    driver: Literal["prior_stage"]
    line: Name
    limits: Travel
    full_speed_mm_per_s: Positive
    full_acceleration_mm_per_s2: Positive
    speed_percent: Annotated[StrictInt, Field(ge=1, le=100)] | None = None
    tolerance_um: Positive = 1.0

    def seats(self) -> frozenset[str]:
        """The controller's stage."""
        return frozenset({"stage"})


class PriorFocusTable(DeviceTable):
    """A focus axis on a Prior controller."""

    role: ClassVar[Role] = "focus"
    wire: ClassVar[Wire] = PriorStageTable.wire
    makes: ClassVar[Callable[..., Any]] = PriorFocus

    driver: Literal["prior_focus"]
    line: Name
    limits_um: Limits
    full_speed_mm_per_s: Positive
    full_acceleration_mm_per_s2: Positive
    speed_percent: Annotated[StrictInt, Field(ge=1, le=100)] | None = None
    tolerance_um: Positive = 0.3

    def seats(self) -> frozenset[str]:
        """The controller's focus axis."""
        return frozenset({"focus axis"})


class MDriveTable(PartTable):
    """The X axis of a HiSeq."""

    makes: ClassVar[Callable[..., Any]] = MDriveAxis

    line: Name
    limits_um: Limits | None = None
    steps_per_um: Positive = mdrive.STEPS_PER_UM
    home_steps: StrictInt = mdrive.HOME_STEPS
    travel_steps: Limits = mdrive.TRAVEL_STEPS
    start_speed_mm_per_s: Positive = 0.1
    speed_mm_per_s: Positive = 2.5
    acceleration_mm_per_s2: Positive = 10.0
    tolerance_um: Positive = 25.0


class VixTable(PartTable):
    """The Y axis of a HiSeq."""

    makes: ClassVar[Callable[..., Any]] = VixAxis

    line: Name
    travel_um_per_rev: Positive
    limits_um: Limits = vix.TRAVEL_UM
    speed_rps: Positive = 1.0
    gains: Gains = vix.IMAGING_GAINS
    address: Annotated[StrictInt, Field(ge=1, le=255)] = 1
    steps_per_um: Positive = float(vix.STEPS_PER_UM)
    tolerance_um: Positive = 1.0


class HiSeqStageTable(DeviceTable):
    """The XY stage of a HiSeq: two drives on a line each."""

    role: ClassVar[Role] = "stage"
    makes: ClassVar[Callable[..., Any]] = HiSeqStage

    driver: Literal["hiseq_stage"]
    x: MDriveTable
    y: VixTable

    def plugs(self) -> tuple[Plug, ...]:
        """Both lines."""
        nobody_else: frozenset[str] = frozenset()
        return (
            Plug(("x", "line"), self.x.line, Wire("MDrive", 9600, silence_s=0.1), nobody_else),
            Plug(("y", "line"), self.y.line, Wire("ViX", 9600, silence_s=0.1), nobody_else),
        )

    def make(self, name: str, parts: Parts) -> HiSeqStage:
        """Make both axes, and the stage of them."""
        x = MDriveAxis(parts.transport(self.x.line), name, **self.x.settings())
        y = VixAxis(parts.transport(self.y.line), name, **self.y.settings())
        return HiSeqStage(name, x=x, y=y)


_FPGA: Final = Wire("HiSeq FPGA", 115_200, n_ports=2)


class ObjectiveTable(DeviceTable):
    """The objective of a HiSeq."""

    role: ClassVar[Role] = "focus"
    wire: ClassVar[Wire] = _FPGA
    makes: ClassVar[Callable[..., Any]] = Objective

    driver: Literal["hiseq_objective"]
    line: Name
    limits_um: Limits = hiseqfpga.OBJECTIVE_UM
    speed_mm_per_s: Positive = 1.0
    tolerance_um: Positive = 0.1

    def seats(self) -> frozenset[str]:
        """Its part of the board."""
        return frozenset({"objective"})

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """The board."""
        return (parts.fpga(self.line),)


class TiltMotorTable(DeviceTable):
    """One of the motors that tilt the stage of a HiSeq."""

    wire: ClassVar[Wire] = _FPGA
    makes: ClassVar[Callable[..., Any]] = TiltMotor

    driver: Literal["hiseq_tilt"]
    line: Name
    number: Literal[1, 2, 3]
    limits_um: Limits = hiseqfpga.TILT_UM
    speed_um_per_s: Positive = 1000.0
    tolerance_um: Positive = 5.0

    def seats(self) -> frozenset[str]:
        """Its part of the board."""
        return frozenset({f"tilt motor {self.number}"})

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """The board."""
        return (parts.fpga(self.line),)


class FpgaTable(DeviceTable):
    """The FPGA of a HiSeq itself: its laser shutter is shut to make it safe."""

    wire: ClassVar[Wire] = _FPGA

    driver: Literal["hiseq_fpga"]
    line: Name

    def seats(self) -> frozenset[str]:
        """The rest of the board."""
        return frozenset({"board"})

    def make(self, name: str, parts: Parts) -> HiSeqFpga:
        """The board that all share."""
        return parts.fpga(self.line)
