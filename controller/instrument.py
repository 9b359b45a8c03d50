"""The instrument: which devices there are, on which lines, and what each is for, as data.

An instrument is one TOML file (docs/instrument.md). `build_bench` makes its drivers, and `facts_of` tells the compiler
of recipes what they can do; neither opens anything. What one device's table says is in `controller.devices`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Protocol, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from cartoseq.controller.bench import Bench
from cartoseq.controller.devices.catalog import DRIVERS, AnyDevice
from cartoseq.controller.devices.fluidics import CavroPumpTable
from cartoseq.controller.devices.micromanager import MICRO_MANAGER
from cartoseq.controller.devices.tables import Name, Number, Plug, Positive, Role
from cartoseq.controller.plan import Facts
from cartoseq.controller.settingsfile import (
    FileKind,
    Problem,
    fault,
    faults,
    parse,
    problems_of,
    read_text,
    settings_error,
    shown,
)
from cartoseq.controller.timing import Estimates
from cartoseq.controller.toml_lines import KeyPath
from cartoseq.drivers.capabilities import (
    Camera,
    Device,
    FocusStage,
    Laser,
    PowerMeter,
    Range,
    SelectorValve,
    SyringePump,
    TemperatureController,
    XYStage,
)
from cartoseq.drivers.hiseqfpga import HiSeqFpga
from cartoseq.drivers.links import connector, paired
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.drivers.transport import Connect, Transport
from cartoseq.streaming.errors import InputError

T = TypeVar("T")


class Connector(Protocol):
    """Turns the address of a line into what opens it, as `drivers.links.connector` does."""

    def __call__(self, address: str, *, baud_rate: int) -> Connect:
        """Return what opens the link. Raises `InputError` where the address is none."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Line(_Table):
    """A way to one device, or to several that share it."""

    address: Name
    """A serial port, a URL that pyserial knows, or tcp://host:port."""
    answer_address: Name | None = None
    """The port that answers come from, where it is not the one that takes commands (the FPGA of a HiSeq)."""
    baud_rate: Annotated[StrictInt, Field(ge=50, le=4_000_000)] | None = None
    """Of a serial port; without it, the one that the maker of its devices ships."""
    silence_s: Positive | None = None
    """A line that is silent for so long has nothing more to say; without it, what its devices need."""


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value.strip():
        raise fault(f"expected a path, found {shown(value)}", "Write the path in quotes.")
    path = Path(value).expanduser()
    folder: Path | None = (info.context or {}).get("folder")
    return folder / path if folder else path


FilePath = Annotated[Path, PlainValidator(_path)]


class MicroManager(_Table):
    """Micro-Manager, for the devices that it drives; relative paths start at the instrument file's folder."""

    configuration: FilePath
    """The configuration file, as Micro-Manager's wizard writes it."""
    adapter_folders: tuple[FilePath, ...] = ()
    """Where its device adapters lie."""


_SINGLE_ROLES: Final[tuple[Role, ...]] = ("pump", "valve", "temperature", "stage", "focus", "camera")


class Roles(_Table):
    """What each device is for, by its name. A device without a role is opened and made safe with the others."""

    pump: Name | None = None
    """Draws through the flow cell."""
    valve: Name | None = None
    """Chooses the bottle."""
    temperature: Name | None = None
    """Heats and cools the flow cell."""
    stage: Name | None = None
    """Moves the chip under the objective."""
    focus: Name | None = None
    """Moves the objective."""
    camera: Name | None = None
    """Takes pictures."""
    lasers: dict[Name, Name] = {}
    """The lasers, by the names that recipes call them."""
    meters: dict[Name, Name] = {}
    """The power meters, by names of your choice."""

    def filled(self) -> Iterator[tuple[KeyPath, Role, str]]:
        """Each role that is filled: its key, what it asks for, and the name of the device."""
        for role in _SINGLE_ROLES:
            if (name := getattr(self, role)) is not None:
                yield (role,), role, name
        for key, name in self.lasers.items():
            yield ("lasers", key), "laser", name
        for key, name in self.meters.items():
            yield ("meters", key), "meter", name


class Fluidics(_Table):
    """The ways of the fluid."""

    flow_cell_port: Name = "input"
    """The port of the pump's own valve that leads through the flow cell."""
    waste_port: Name = "output"
    """The one that leads to waste."""
    waste_flow_ul_per_s: Positive = 100.0
    """How fast the syringe is emptied."""


class Imaging(_Table):
    """What a picture shows, and where the chip lies."""

    pixel_um: Positive
    """Size of a pixel on the chip: that of the camera divided by the magnification."""
    width_px: Annotated[StrictInt, Field(gt=0)]
    """Width of a picture."""
    height_px: Annotated[StrictInt, Field(gt=0)]
    """Height of a picture."""
    bit_depth: Annotated[StrictInt, Field(ge=8, le=16)]
    """Bits of a grey value."""
    chip_x_um: Number
    """Where the holder puts the chip's corner on the stage."""
    chip_y_um: Number
    """See above."""
    chip_mirrored: StrictBool = False
    """Whether the holder lays the chip with its x running backwards."""
    chip_quarter_turns: Annotated[StrictInt, Field(ge=0, le=3)] = 0
    """By how many right angles the chip is then turned, x towards y."""


class Instrument(_Table):
    """An instrument."""

    name: Name
    """What it is called."""
    line: dict[Name, Line] = {}
    """The lines, by name."""
    micro_manager: MicroManager | None = None
    """Where there are devices that Micro-Manager drives."""
    device: Annotated[dict[Name, AnyDevice], Field(min_length=1)]
    """The devices, by name."""
    roles: Roles = Roles()
    """What they are for."""
    fluidics: Fluidics = Fluidics()
    """The ways of the fluid."""
    imaging: Imaging | None = None
    """What a picture shows; needed with a camera."""
    estimates: Estimates = Estimates()
    """What things take."""

    def plugs(self, line: str) -> list[tuple[str, Plug]]:
        """The devices on a line, by name."""
        found = [(name, plug) for name, device in self.device.items() for plug in device.plugs()]
        return [(name, plug) for name, plug in found if plug.line == line]

    def baud_rate(self, line: str) -> int:
        """The baud rate of a line: what its table says, or its devices' maker ships."""
        return self.line[line].baud_rate or max((plug.wire.baud_rate for _, plug in self.plugs(line)), default=9600)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [*_line_problems(self), *_role_problems(self)]
        if not problems:
            problems = list(_part_problems(self))
        if problems:
            raise faults(problems)
        return self


# -------------------------------------------------------------------------------------------------- what fits together


def _line_problems(instrument: Instrument) -> Iterator[Problem]:
    known = ", ".join(instrument.line) or "none"
    for name, device in instrument.device.items():
        for plug in device.plugs():
            key: KeyPath = ("device", name, *plug.key)
            if plug.line not in instrument.line:
                yield Problem(
                    key, f"there is no line {shown(plug.line)}", f"The file has: {known}; add [line.{plug.line}]."
                )
        if isinstance(device, MICRO_MANAGER) and instrument.micro_manager is None:
            yield Problem(
                ("device", name, "driver"), "there is no [micro_manager] table", 'Add it, with configuration = "...".'
            )
    for line, table in instrument.line.items():
        yield from _sharing_problems(instrument, line)
        plugs = instrument.plugs(line)
        if plugs and (table.answer_address is not None) != (plugs[0][1].wire.n_ports == 2):
            name, plug = plugs[0]
            yield Problem(
                ("line", line) if table.answer_address is None else ("line", line, "answer_address"),
                f"{name} needs {plug.wire.n_ports} port{'s'[: plug.wire.n_ports - 1]}",
                "Add answer_address = ..., the port that gives the answers."
                if table.answer_address is None
                else "Leave answer_address out.",
            )
    homes: dict[str, str] = {}
    for name, line_table in instrument.line.items():
        for key_word in ("address", "answer_address"):
            address = getattr(line_table, key_word)
            if address is not None and (other := homes.setdefault(address, name)) != name:
                yield Problem(
                    ("line", name, key_word),
                    f"{shown(address)} is also the address of line {other}",
                    "Devices on one port share one line: name it in each.",
                )


def _sharing_problems(instrument: Instrument, line: str) -> Iterator[Problem]:
    """Devices on one line speak the same, and none is where another is."""
    others: list[tuple[str, Plug]] = []
    for name, plug in instrument.plugs(line):
        for other, there in others:
            if plug.wire.protocol != there.wire.protocol:
                text = f"it speaks {plug.wire.protocol}, and {other} on the same line {there.wire.protocol}"
                remedy = "Give each its own line."
            elif not plug.seats or not there.seats:
                text, remedy = f"{other} is on this line, which they cannot share", "Give each its own line."
            elif common := plug.seats & there.seats:
                text, remedy = f"{other} on the same line is {min(common)} too", "Give each its own, as they are set."
            else:
                continue
            yield Problem(("device", name, *plug.key), text, remedy)
            break
        others.append((name, plug))


def _role_problems(instrument: Instrument) -> Iterator[Problem]:
    holders: dict[str, KeyPath] = {}
    for key, role, name in instrument.roles.filled():
        here: KeyPath = ("roles", *key)
        fitting = [known for known, device in instrument.device.items() if device.role == role]
        known = f"Of this kind there is: {', '.join(fitting) or 'none'}."
        if name not in instrument.device:
            yield Problem(here, f"there is no device {shown(name)}", known)
            continue
        device = instrument.device[name]
        if device.role != role:
            yield Problem(here, f"{name} is a {device.driver}, which is no {_WORDS.get(role, role)}", known)
        elif holders.setdefault(name, here) != here:
            yield Problem(here, f"{name} has a role already", "Give each role its own device.")
    roles = instrument.roles
    pump = instrument.device.get(roles.pump or "")
    if isinstance(pump, CavroPumpTable):
        for key_word in ("flow_cell_port", "waste_port"):
            port = getattr(instrument.fluidics, key_word)
            if port not in pump.ports:
                yield Problem(
                    ("fluidics", key_word),
                    f"the pump {roles.pump} has no port {shown(port)}",
                    f"Its ports are: {', '.join(pump.ports)}.",
                )
    if roles.camera is not None and instrument.imaging is None:
        yield Problem(
            ("roles", "camera"), "there is a camera, and no [imaging] table", "Add it: it says what a picture shows."
        )


_WORDS: Final[dict[Role, str]] = {
    "temperature": "temperature controller",
    "focus": "focus axis",
    "meter": "power meter",
    "valve": "selector valve",
}


def _part_problems(instrument: Instrument) -> Iterator[Problem]:
    """What the drivers themselves say of their settings, and whether what they can do fits the other tables."""
    found = False
    for name, line in instrument.line.items():
        for key_word in ("address", "answer_address"):
            if (address := getattr(line, key_word)) is not None:
                try:
                    connector(address, baud_rate=instrument.baud_rate(name))
                except InputError as error:
                    found = True
                    yield Problem(
                        ("line", name, key_word), error.problem, "Such as /dev/ttyUSB0 or tcp://192.168.0.7:4001."
                    )
    parts = _Parts(instrument, connector)
    for name, device in instrument.device.items():
        if found:
            break
        try:
            device.make(name, parts)
        except InputError as error:
            found = True
            yield Problem(("device", name), error.problem, error.remedy or f"Correct it; {FILE.page} shows how.")
    if not found:
        yield from _fit_problems(instrument)


def _fit_problems(instrument: Instrument) -> Iterator[Problem]:
    bench = build_bench(instrument)
    flow_ul_per_s = instrument.fluidics.waste_flow_ul_per_s
    if bench.pump is not None and flow_ul_per_s not in bench.pump.flow_ul_per_s:
        limits = bench.pump.flow_ul_per_s
        yield Problem(
            ("fluidics", "waste_flow_ul_per_s"),
            f"{flow_ul_per_s:g} ul/s is outside the {limits.low:.3g} to {limits.high:.3g} ul/s of the pump",
            "Choose a flow that the pump can do.",
        )
    if bench.stage is not None and instrument.imaging is not None:
        for key_word, axis in (("chip_x_um", bench.stage.limits.x_um), ("chip_y_um", bench.stage.limits.y_um)):
            corner_um = getattr(instrument.imaging, key_word)
            if corner_um not in axis:
                yield Problem(
                    ("imaging", key_word),
                    f"{corner_um:g} um is outside the stage's travel of {axis.low:g} to {axis.high:g} um",
                    "Correct the chip's place, or the stage's limits.",
                )


FILE: Final = FileKind(
    name="instrument",
    tables={
        "": Instrument,
        "line": Line,
        "micro_manager": MicroManager,
        "roles": Roles,
        "fluidics": Fluidics,
        "imaging": Imaging,
        "estimates": Estimates,
    },
    kinds=DRIVERS,
    tag="driver",
    depths={"device": 2},
)


def parse_instrument(text: str, source: str | Path = "instrument.toml", *, folder: Path | None = None) -> Instrument:
    """Read an instrument from its text; nothing is opened.

    Args:
        text: The file's text.
        source: The file, for messages.
        folder: Where relative paths start.

    Raises:
        InputError: it is none; all faults in one message, with lines and keys.
    """
    document = parse(text, source)
    try:
        return Instrument.model_validate(document, context={"folder": folder})
    except ValidationError as error:
        raise settings_error(source, text, problems_of(error, FILE)) from None


def load_instrument(path: str | Path) -> Instrument:
    """Read an instrument file; nothing is opened.

    Raises:
        InputError: it cannot be read or is no instrument.
    """
    path = Path(path)
    return parse_instrument(read_text(path, FILE), path, folder=path.absolute().parent)


# --------------------------------------------------------------------------------------------------- what is made of it


class _Parts:
    """Lines, boards and cores of an instrument, each made once."""

    def __init__(self, instrument: Instrument, connect: Connector) -> None:
        self._instrument = instrument
        self._connect = connect
        self._transports: dict[str, Transport] = {}
        self._fpgas: dict[str, HiSeqFpga] = {}
        self._core: MicroManagerCore | None = None

    def transport(self, line: str) -> Transport:
        """The transport of a line."""
        if line not in self._transports:
            self._transports[line] = self._make_transport(line)
        return self._transports[line]

    def _make_transport(self, line: str) -> Transport:
        table = self._instrument.line[line]
        plugs = [plug for _, plug in self._instrument.plugs(line)]
        baud_rate = self._instrument.baud_rate(line)
        connect = self._connect(table.address, baud_rate=baud_rate)
        if table.answer_address is not None:
            connect = paired(connect, self._connect(table.answer_address, baud_rate=baud_rate))
        silence_s = table.silence_s or max(plug.wire.silence_s for plug in plugs)
        return Transport(line, connect, silence_s=silence_s)

    def fpga(self, line: str) -> HiSeqFpga:
        """The FPGA of a HiSeq on a line."""
        if line not in self._fpgas:
            names = [
                name
                for name, device in self._instrument.device.items()
                if device.driver == "hiseq_fpga" and getattr(device, "line", None) == line
            ]
            self._fpgas[line] = HiSeqFpga(self.transport(line), names[0] if names else line)
        return self._fpgas[line]

    def core(self) -> MicroManagerCore:
        """Micro-Manager's core."""
        if self._core is None:
            table = self._instrument.micro_manager
            assert table is not None
            self._core = MicroManagerCore("Micro-Manager", table.configuration, adapter_folders=table.adapter_folders)
        return self._core


def build_devices(instrument: Instrument, connect: Connector = connector) -> dict[str, Device]:
    """Make the driver of every device, by name; those on one line share one transport. Nothing is opened.

    Args:
        instrument: The instrument.
        connect: Turns the address of a line into what opens it; tests and dry runs give simulated lines.
    """
    parts = _Parts(instrument, connect)
    return {name: device.make(name, parts) for name, device in instrument.device.items()}


def build_bench(instrument: Instrument, connect: Connector = connector) -> Bench:
    """Make the devices of an instrument, by their roles. Nothing is opened.

    Args:
        instrument: The instrument.
        connect: See `build_devices`.
    """
    return bench_of(instrument, build_devices(instrument, connect))


def bench_of(instrument: Instrument, devices: Mapping[str, Device]) -> Bench:
    """Give the devices of an instrument their roles.

    Args:
        instrument: The instrument.
        devices: All of its devices, by name.
    """
    roles = instrument.roles

    def held(kind: type[T], name: str | None) -> T | None:
        return None if name is None else _held(kind, devices[name])

    taken = {name for _, _, name in roles.filled()}
    return Bench(
        pump=held(SyringePump, roles.pump),  # type: ignore[type-abstract]
        valve=held(SelectorValve, roles.valve),  # type: ignore[type-abstract]
        temperature=held(TemperatureController, roles.temperature),  # type: ignore[type-abstract]
        stage=held(XYStage, roles.stage),  # type: ignore[type-abstract]
        focus=held(FocusStage, roles.focus),  # type: ignore[type-abstract]
        camera=held(Camera, roles.camera),  # type: ignore[type-abstract]
        lasers={key: _held(Laser, devices[name]) for key, name in roles.lasers.items()},  # type: ignore[type-abstract]
        meters={key: _held(PowerMeter, devices[name]) for key, name in roles.meters.items()},  # type: ignore[type-abstract]
        others={name: device for name, device in devices.items() if name not in taken},
        flow_cell_port=instrument.fluidics.flow_cell_port,
        waste_port=instrument.fluidics.waste_port,
        waste_flow_ul_per_s=instrument.fluidics.waste_flow_ul_per_s,
        lines={line: tuple(name for name, _ in instrument.plugs(line)) for line in instrument.line},
    )


def _held(kind: type[T], device: Device) -> T:
    assert isinstance(device, kind)
    return device


def facts_of(instrument: Instrument, free_bytes: int) -> Facts:
    """What the compiler of recipes must know of an instrument; nothing is opened.

    Limits are those of the file and of the drivers; a device may narrow them when it is opened.

    Args:
        instrument: The instrument.
        free_bytes: Of the disk that the run writes to.
    """
    bench, imaging = build_bench(instrument), instrument.imaging
    seen = imaging if bench.camera is not None else None
    return Facts(
        barrel_ul=bench.pump.barrel_ul if bench.pump else 0.0,
        flow_ul_per_s=bench.pump.flow_ul_per_s if bench.pump else Range(0.0, 0.0),
        ports=bench.valve.n_ports if bench.valve else 0,
        waste_flow_ul_per_s=instrument.fluidics.waste_flow_ul_per_s,
        temperature_c=bench.temperature.limits_c if bench.temperature else None,
        lights_mw={name: laser.power_limits_mw for name, laser in bench.lasers.items()},
        travel=bench.stage.limits if bench.stage else None,
        chip_um=(imaging.chip_x_um, imaging.chip_y_um) if imaging else (0.0, 0.0),
        has_focus=bench.focus is not None,
        tile_um=(seen.width_px * seen.pixel_um, seen.height_px * seen.pixel_um) if seen else None,
        tile_bytes=seen.width_px * seen.height_px * (1 if seen.bit_depth <= 8 else 2) if seen else 0,
        estimates=instrument.estimates,
        free_bytes=free_bytes,
    )
