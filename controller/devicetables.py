"""The [device.NAME] tables of an instrument file: one model for each kind of device, with the driver's own settings.

The keys of a table are the keyword arguments of its driver, with the same defaults; what they mean stands there and in
docs/drivers. Besides, `driver` says which it is, and `line` on which line it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Protocol, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from cartoseq.controller.settingsfile import fault, shown
from cartoseq.controller.toml_lines import KeyPath
from cartoseq.drivers import hiseqfpga, mdrive, vix
from cartoseq.drivers.arm9chem import Arm9Switch, Arm9Temperature, Part
from cartoseq.drivers.asi import AsiFocus, AsiStage
from cartoseq.drivers.capabilities import XY, Device, Range, XYLimits
from cartoseq.drivers.cavro import PORTS, CavroPump
from cartoseq.drivers.cavrocodec import DialectName, Framing
from cartoseq.drivers.cobolt import CoboltLaser
from cartoseq.drivers.hiseqfpga import HiSeqFpga, Objective, TiltMotor
from cartoseq.drivers.hiseqstage import HiSeqStage
from cartoseq.drivers.mdrive import MDriveAxis
from cartoseq.drivers.meerstetter import MeerstetterTec
from cartoseq.drivers.mmcamera import MicroManagerCamera, TriggerSetting
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.drivers.mmstage import MicroManagerFocus, MicroManagerStage
from cartoseq.drivers.obis import ObisLaser
from cartoseq.drivers.pm100 import ThorlabsPowerMeter
from cartoseq.drivers.prior import PriorFocus, PriorStage
from cartoseq.drivers.pulsegenerator import PulseGenerator
from cartoseq.drivers.scpi import LineSession, ScpiSession
from cartoseq.drivers.smdlaser import HIGHEST_MW, SmdLaser
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.vici import ViciDialect, ViciValve
from cartoseq.drivers.visa import VisaSession
from cartoseq.drivers.vix import VixAxis
from cartoseq.drivers.zaber import ZaberAxis, ZaberFocus, ZaberStage

Role = Literal["pump", "valve", "temperature", "stage", "focus", "camera", "laser", "meter", "other"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _range(value: object) -> Range:
    if not (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))):
        raise fault(f"expected two numbers, found {shown(value)}", "Write both ends of the range: [low, high].")
    if not value[0] < value[1]:
        raise fault(f"the range from {value[0]:g} to {value[1]:g} is empty", "Write the lower end first.")
    return Range(float(value[0]), float(value[1]))


def _gains(value: object) -> tuple[float, ...] | None:
    if not (isinstance(value, list) and len(value) in (0, 5) and all(map(_is_number, value))):
        raise fault(
            f"expected five numbers, found {shown(value)}",
            "Write feed-forward, integral, proportional, velocity and filter gain, or [] to leave them as they are.",
        )
    return tuple(map(float, value)) or None


def _valve_command(value: object) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise fault(f"expected a port's number or a valve command, found {shown(value)}", 'Such as 3, "I" or "O3".')
    return value


def _axis(value: object) -> str:
    if not (isinstance(value, str) and len(value) == 1 and "A" <= value <= "Z"):
        raise fault(f"expected an axis, found {shown(value)}", 'Write its letter as the controller does: "X".')
    return value


Name = Annotated[StrictStr, Field(min_length=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Limits = Annotated[Range, PlainValidator(_range)]
Gains = Annotated[Any, PlainValidator(_gains)]
ValveCommand = Annotated[Any, PlainValidator(_valve_command)]
Axis = Annotated[str, PlainValidator(_axis)]


class Parts(Protocol):
    """What a device is put together from; every line, board and core is there once, whoever shares it."""

    def transport(self, line: str) -> Transport:
        """The transport of a line."""

    def fpga(self, line: str) -> HiSeqFpga:
        """The FPGA of a HiSeq on a line."""

    def core(self) -> MicroManagerCore:
        """Micro-Manager's core."""


@dataclass(frozen=True)
class Wire:
    """What is spoken on a device's line, as its maker ships it.

    Attributes:
        protocol: Devices of one protocol may share a line.
        baud_rate: Of a serial port.
        silence_s: See `Transport`.
        n_ports: How many ports make the line.
    """

    protocol: str
    baud_rate: int
    silence_s: float = 0.02
    n_ports: int = 1


@dataclass(frozen=True)
class Plug:
    """Where a device is on a line.

    Attributes:
        key: The key that names the line, within the device's table.
        line: The line's name.
        wire: What is spoken on it.
        seats: What the device occupies of the line: addresses, axes. Nothing: all of it.
    """

    key: KeyPath
    line: str
    wire: Wire
    seats: frozenset[str]


class _Part(BaseModel):
    """A table of settings that becomes an object of the class `makes`, given those that are no key of our own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    makes: ClassVar[Callable[..., Any]]
    own: ClassVar[frozenset[str]] = frozenset({"driver", "line"})

    def settings(self) -> dict[str, Any]:
        """The keyword arguments."""
        given = {key: getattr(self, key) for key in type(self).model_fields if key not in self.own}
        return {key: value.made() if isinstance(value, _Part) else value for key, value in given.items()}

    def made(self) -> Any:
        """The object, where its settings are all that it needs."""
        return type(self).makes(**self.settings())


class DeviceTable(_Part):
    """What the tables of all devices have; here for those that are on one line, others say otherwise."""

    role: ClassVar[Role] = "other"
    wire: ClassVar[Wire]

    def spoken(self) -> Wire:
        """What is spoken on its line."""
        return type(self).wire

    def seats(self) -> frozenset[str]:
        """What it occupies of its line; nothing: all of it."""
        return frozenset()

    def plugs(self) -> tuple[Plug, ...]:
        """The lines that it is on."""
        line: str | None = getattr(self, "line", None)
        return (Plug(("line",), line, self.spoken(), self.seats()),) if line else ()

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """What the driver reaches its device by."""
        return tuple(parts.transport(plug.line) for plug in self.plugs())

    def make(self, name: str, parts: Parts) -> Device:
        """Make the driver; nothing is opened.

        Raises:
            InputError: a setting is none that the device could have.
        """
        device = type(self).makes(*self.way(name, parts), name, **self.settings())
        assert isinstance(device, Device)
        return device


# ------------------------------------------------------------------------------------------------------------ fluidics


class CavroPumpTable(DeviceTable):
    """A syringe pump of the Cavro family, or a Kloehn VersaPump."""

    role: ClassVar[Role] = "pump"
    wire: ClassVar[Wire] = Wire("Cavro", 9600)
    makes: ClassVar[Callable[..., Any]] = CavroPump

    driver: Literal["cavro_pump"]
    line: Name
    barrel_ul: Positive
    switch: Annotated[StrictInt, Field(ge=0, le=14)] = 0
    framing: Framing = "dt"
    dialect: DialectName = "cavro"
    repeats: DialectName | None = None
    steps_per_stroke: Annotated[StrictInt, Field(gt=0)] = 3000
    half_steps_per_stroke: Annotated[StrictInt, Field(gt=0)] | None = None
    step_mode: Literal[0, 1] | None = None
    ports: dict[Name, ValveCommand] = Field(default_factory=lambda: dict(PORTS), min_length=1)
    initialize: Name | None = None
    initialize_s: Positive = 60.0
    valve_s: Positive = 10.0
    max_flow_ul_per_s: Annotated[float, Field(strict=True, gt=0)] = math.inf
    reply_s: Positive = 0.5

    def spoken(self) -> Wire:
        """Pumps of both framings do not bear each other on one line."""
        return Wire(f"Cavro, {self.framing} framing", self.wire.baud_rate)

    def seats(self) -> frozenset[str]:
        """Its address."""
        return frozenset({f"switch {self.switch}"})


class ViciValveTable(DeviceTable):
    """A VICI selector valve."""

    role: ClassVar[Role] = "valve"
    wire: ClassVar[Wire] = Wire("VICI", 9600)
    makes: ClassVar[Callable[..., Any]] = ViciValve

    driver: Literal["vici_valve"]
    line: Name
    n_ports: Annotated[StrictInt, Field(ge=2, le=99)]
    dialect: ViciDialect = "universal"
    actuator_id: StrictStr = ""
    rs485: StrictBool = False
    port_s: Positive = 0.3
    reply_s: Positive = 0.3

    def seats(self) -> frozenset[str]:
        """Its ID on RS-485; on RS-232 a valve is alone."""
        return frozenset({f"ID {self.actuator_id}"}) if self.rs485 else frozenset()


# ---------------------------------------------------------------------------------------------------------------- heat


class MeerstetterTable(DeviceTable):
    """A channel of a Meerstetter TEC controller."""

    role: ClassVar[Role] = "temperature"
    wire: ClassVar[Wire] = Wire("MeCom", 57_600)
    makes: ClassVar[Callable[..., Any]] = MeerstetterTec

    driver: Literal["meerstetter_tec"]
    line: Name
    address: Annotated[StrictInt, Field(ge=0, le=254)] = 2
    channel: Annotated[StrictInt, Field(ge=1)] = 1
    low_c: Number = 4.0
    high_c: Number = 95.0
    sink_limit_c: Number = 60.0

    def seats(self) -> frozenset[str]:
        """Its channel; address 0 is for a controller that is alone."""
        return frozenset({f"channel {self.channel} of address {self.address}"}) if self.address else frozenset()


class Arm9TemperatureTable(DeviceTable):
    """A flow cell or a chiller block at the chemistry board of a HiSeq."""

    role: ClassVar[Role] = "temperature"
    wire: ClassVar[Wire] = Wire("ARM9CHEM", 115_200)
    makes: ClassVar[Callable[..., Any]] = Arm9Temperature

    driver: Literal["arm9_temperature"]
    line: Name
    part: Part
    channel: Annotated[StrictInt, Field(ge=0, le=2)]
    low_c: Number | None = None
    high_c: Number | None = None
    stable_c: Positive = 0.5
    gains: dict[Literal["P", "I", "D", "S", "F"], Number] | None = None

    def seats(self) -> frozenset[str]:
        """Its channel of the board."""
        return frozenset({f"{self.part} {self.channel}"})


class Arm9SwitchTable(DeviceTable):
    """Vacuum pump or shut-off valve at the chemistry board of a HiSeq."""

    wire: ClassVar[Wire] = Arm9TemperatureTable.wire
    makes: ClassVar[Callable[..., Any]] = Arm9Switch

    driver: Literal["arm9_switch"]
    line: Name
    part: Literal["vacuum", "shutoff"]

    def seats(self) -> frozenset[str]:
        """Its part of the board."""
        return frozenset({self.part})


# -------------------------------------------------------------------------------------------------------------- motion


class Travel(_Part):
    """Allowed travel of a stage, along both axes."""

    makes: ClassVar[Callable[..., Any]] = XYLimits
    x_um: Limits
    y_um: Limits


class Place(_Part):
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


class ZaberAxisTable(_Part):
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


class MDriveTable(_Part):
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


class VixTable(_Part):
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


# --------------------------------------------------------------------------------------------------------------- light


class ObisTable(DeviceTable):
    """A Coherent OBIS laser."""

    role: ClassVar[Role] = "laser"
    wire: ClassVar[Wire] = Wire("OBIS", 115_200)
    makes: ClassVar[Callable[..., Any]] = ObisLaser

    driver: Literal["obis_laser"]
    line: Name
    wavelength_nm: Positive
    max_power_mw: Positive
    min_power_mw: NotNegative = 0.0
    index: Annotated[StrictInt, Field(ge=1)] | None = None
    warm_up_s: NotNegative = 300.0

    def seats(self) -> frozenset[str]:
        """Its number at the Remote, if it has one."""
        return frozenset() if self.index is None else frozenset({f"head {self.index}"})


class CoboltTable(DeviceTable):
    """A Cobolt laser."""

    role: ClassVar[Role] = "laser"
    wire: ClassVar[Wire] = Wire("Cobolt", 115_200)
    makes: ClassVar[Callable[..., Any]] = CoboltLaser

    driver: Literal["cobolt_laser"]
    line: Name
    wavelength_nm: Positive
    max_power_mw: Positive
    min_power_mw: NotNegative = 0.0
    kind: Literal["diode", "dpss"] = "diode"
    start_s: Positive | None = None


class SmdTable(DeviceTable):
    """A laser of a HiSeq."""

    role: ClassVar[Role] = "laser"
    wire: ClassVar[Wire] = Wire("SMD", 9600)
    makes: ClassVar[Callable[..., Any]] = SmdLaser

    driver: Literal["smd_laser"]
    line: Name
    wavelength_nm: Positive
    max_power_mw: Annotated[StrictInt, Field(gt=0)] = HIGHEST_MW
    tolerance_mw: Positive = 3.0
    settle_s: Positive = 10.0


# ---------------------------------------------------------------------------------------------------------------- SCPI


def _session(name: str, line: str | None, resource: str | None, library: str, parts: Parts) -> ScpiSession:
    if line is not None:
        return LineSession(parts.transport(line))
    assert resource is not None
    return VisaSession(name, resource, library=library)


def _one_way(line: str | None, resource: str | None) -> None:
    if (line is None) == (resource is None):
        raise fault(
            "expected either a line or a VISA resource",
            'Write line = "..." for a serial port or a TCP port, or resource = "USB0::...::INSTR".',
        )


class PowerMeterTable(DeviceTable):
    """A Thorlabs power meter."""

    role: ClassVar[Role] = "meter"
    wire: ClassVar[Wire] = Wire("SCPI", 115_200)
    makes: ClassVar[Callable[..., Any]] = ThorlabsPowerMeter
    own: ClassVar[frozenset[str]] = frozenset({"driver", "line", "resource", "library"})

    driver: Literal["thorlabs_power_meter"]
    line: Name | None = None
    resource: Name | None = None
    library: StrictStr = "@py"
    average_count: Annotated[StrictInt, Field(ge=1)] = 10

    @model_validator(mode="after")
    def _check(self) -> Self:
        _one_way(self.line, self.resource)
        return self

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """An SCPI session."""
        return (_session(name, self.line, self.resource, self.library, parts),)


class PulseGeneratorTable(DeviceTable):
    """A generator of trigger pulses."""

    wire: ClassVar[Wire] = PowerMeterTable.wire
    makes: ClassVar[Callable[..., Any]] = PulseGenerator
    own: ClassVar[frozenset[str]] = PowerMeterTable.own

    driver: Literal["pulse_generator"]
    line: Name | None = None
    resource: Name | None = None
    library: StrictStr = "@py"
    high_v: Number = 5.0
    low_v: Number = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        _one_way(self.line, self.resource)
        return self

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """An SCPI session."""
        return (_session(name, self.line, self.resource, self.library, parts),)


# ------------------------------------------------------------------------------------------------------- Micro-Manager


class TriggerTable(_Part):
    """The property by which a camera is told what starts a picture."""

    makes: ClassVar[Callable[..., Any]] = TriggerSetting

    label: Name
    software: Name
    external: Name


class MicroManagerCameraTable(DeviceTable):
    """A camera of the Micro-Manager configuration."""

    role: ClassVar[Role] = "camera"
    makes: ClassVar[Callable[..., Any]] = MicroManagerCamera

    driver: Literal["micro_manager_camera"]
    label: Name = "Camera"
    trigger: TriggerTable | None = None
    trigger_timeout_s: Positive = 60.0

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """The core."""
        return (parts.core(),)


class MicroManagerStageTable(DeviceTable):
    """A stage of the Micro-Manager configuration."""

    role: ClassVar[Role] = "stage"
    makes: ClassVar[Callable[..., Any]] = MicroManagerStage

    driver: Literal["micro_manager_stage"]
    limits: Travel
    speed_um_per_s: Positive
    label: Name = "XY"
    tolerance_um: Positive = 1.0

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """The core."""
        return (parts.core(),)


class MicroManagerFocusTable(DeviceTable):
    """A focus drive of the Micro-Manager configuration."""

    role: ClassVar[Role] = "focus"
    makes: ClassVar[Callable[..., Any]] = MicroManagerFocus

    driver: Literal["micro_manager_focus"]
    low_um: Number
    high_um: Number
    speed_um_per_s: Positive
    label: Name = "Z"
    tolerance_um: Positive = 0.2

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """The core."""
        return (parts.core(),)


MICRO_MANAGER: Final = (MicroManagerCameraTable, MicroManagerStageTable, MicroManagerFocusTable)

AnyDevice = Annotated[
    CavroPumpTable
    | ViciValveTable
    | MeerstetterTable
    | Arm9TemperatureTable
    | Arm9SwitchTable
    | AsiStageTable
    | AsiFocusTable
    | ZaberStageTable
    | ZaberFocusTable
    | PriorStageTable
    | PriorFocusTable
    | HiSeqStageTable
    | ObjectiveTable
    | TiltMotorTable
    | FpgaTable
    | ObisTable
    | CoboltTable
    | SmdTable
    | PowerMeterTable
    | PulseGeneratorTable
    | MicroManagerCameraTable
    | MicroManagerStageTable
    | MicroManagerFocusTable,
    Field(discriminator="driver"),
]
DRIVERS: Final[dict[str, type[DeviceTable]]] = {
    get_args(model.model_fields["driver"].annotation)[0]: model for model in get_args(get_args(AnyDevice)[0])
}
"""The kinds of devices, by what `driver` says."""
