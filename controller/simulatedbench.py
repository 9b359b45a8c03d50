"""A simulated instrument: every device of an instrument file as a byte server, on one world of fluid, heat and light.

The drivers are the real ones, built by the instrument's own tables; only the links are simulated: each line has its
baud rate (`simulators.hosts.MemoryHost`) and can be disturbed (`simulators.faults.FaultyLine`). What has no line of its
own is put on one or replaced: a VISA resource speaks the same SCPI over a line; Micro-Manager's stage and focus drive
become ASI controllers; its cameras become `simulators.camera`, which see the chip from where stage and focus stand.

The simulated fluid takes the way of the roles: bottles, selector valve, flow cell, pump, waste. Valves and pumps that
have no role have bottles of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.controller.bench import Bench
from cartoseq.controller.devices.fluidics import CavroPumpTable, ViciValveTable
from cartoseq.controller.devices.heat import Arm9TemperatureTable, MeerstetterTable
from cartoseq.controller.devices.light import CoboltTable, ObisTable, SmdTable
from cartoseq.controller.devices.micromanager import (
    MicroManagerCameraTable,
    MicroManagerFocusTable,
    MicroManagerStageTable,
)
from cartoseq.controller.devices.motion import (
    AsiFocusTable,
    AsiStageTable,
    PriorFocusTable,
    PriorStageTable,
    ZaberStageTable,
)
from cartoseq.controller.devices.tables import DeviceTable
from cartoseq.controller.instrument import Instrument, Line, bench_of, build_devices
from cartoseq.controller.recipe import Recipe
from cartoseq.controller.simulatedcamera import SimulatedCamera
from cartoseq.drivers.capabilities import Device, Range
from cartoseq.drivers.transport import Connect, Link, Receive
from cartoseq.simulators.camera import CameraSim, Sight
from cartoseq.simulators.chipimage import laid_pose, scattered_scene
from cartoseq.simulators.devices.arm9chem import Arm9ChemSim
from cartoseq.simulators.devices.asi import AsiSim
from cartoseq.simulators.devices.cavro import CavroSim
from cartoseq.simulators.devices.cobolt import CoboltSim
from cartoseq.simulators.devices.hiseqfpga import HiseqFpgaSim
from cartoseq.simulators.devices.mdrive import MDriveSim
from cartoseq.simulators.devices.meerstetter import MeerstetterSim
from cartoseq.simulators.devices.obis import ObisSim
from cartoseq.simulators.devices.pm100 import Pm100Sim
from cartoseq.simulators.devices.prior import PriorSim
from cartoseq.simulators.devices.pulsegenerator import PulseGeneratorSim
from cartoseq.simulators.devices.smdlaser import SmdLaserSim
from cartoseq.simulators.devices.vici import ViciSim
from cartoseq.simulators.devices.vix import VixSim
from cartoseq.simulators.devices.zaber import ZaberSim
from cartoseq.simulators.faults import FaultyLine
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.motion import Axis
from cartoseq.simulators.thermal import Plate
from cartoseq.simulators.wire import Bus, ByteServer, SimulatedDevice
from cartoseq.simulators.world import World, make_world

FLOW_CELL: Final = "flow_cell"
WASTE: Final = "waste"
FLOW_CELL_UL: Final = 80.0
#: Of a bottle that no recipe tells of.
BOTTLE_UL: Final = 50_000.0
#: Size of a chip where no recipe tells it, and how it lies: a little beside where the holder should put it.
CHIP_UM: Final = (4_000.0, 3_000.0)
MISPLACED_UM: Final = (12.0, -8.0)
TURNED_DEG: Final = 0.1
#: The chip is in focus so far above where the focus axis stands at power-on, and tilted, in um for each um of way.
FOCUS_ABOVE_UM: Final = 7.0
TILT: Final = (0.0012, -0.0008)

_FASTEST_ASI_MM_PER_S: Final = 7.5
_VICI_PORT_S: Final = 0.2
_TO_SWITCH_UM: Final = 1_000.0


@dataclass
class SimulatedInstrument:
    """An instrument without hardware. Its state lasts: new drivers find the devices as the last ones left them.

    Attributes:
        instrument: What it was made from.
        world: Fluids, heat and light.
        devices: The simulated controllers by the names of their devices; those of one controller share it. A device
            with a drive on each axis has them as ``stage.x`` and ``stage.y``.
        lines: By the names of the instrument's lines; a line that answers elsewhere has also ``fpga.answers``. A device
            that the file puts on no line has one by its own name.
        hosts: The links to them, by the same names; `cut` and `refuses` are faults of the cable.
        cameras: By the names of their devices.
        heard: Is told what is sent to the devices on every line that is opened from now on: the line, and the bytes.
    """

    instrument: Instrument
    world: World
    devices: dict[str, SimulatedDevice]
    lines: dict[str, FaultyLine]
    hosts: dict[str, MemoryHost]
    cameras: dict[str, CameraSim]
    _addresses: dict[str, str] = field(repr=False)
    _on_lines: Instrument = field(repr=False)
    heard: Callable[[str, bytes], None] | None = field(default=None, repr=False)

    def connect(self, address: str, *, baud_rate: int) -> Connect:
        """Return what opens the simulated line at an address; a `Connector`."""
        line = self._addresses[address]

        async def connect(receive: Receive) -> Link:
            link = await self.hosts[line].connect(receive)
            return link if self.heard is None else _Tapped(link, line, self.heard)

        return connect

    def simulators(self) -> dict[str, str]:
        """What simulates each device of the instrument, by its name."""
        found: dict[str, object] = {**self.devices, **self.cameras}
        return {
            name: " and ".join(
                type(device).__name__
                for known, device in found.items()
                if known == name or known.startswith(f"{name}.")
            )
            for name in self.instrument.device
        }

    def drivers(self) -> dict[str, Device]:
        """Make the driver of every device, by name; new ones at each call. Nothing is opened."""
        made = build_devices(self._on_lines, self.connect)
        cameras = {name: SimulatedCamera(camera, name) for name, camera in self.cameras.items()}
        return {name: made[name] if name in made else cameras[name] for name in self.instrument.device}

    def bench(self) -> Bench:
        """Make the drivers, by their roles; new ones at each call. Nothing is opened."""
        return bench_of(self.instrument, self.drivers())


class _Tapped:
    """A link of which is told what is sent over it."""

    def __init__(self, link: Link, line: str, heard: Callable[[str, bytes], None]) -> None:
        self._link = link
        self._line = line
        self._heard = heard

    def write(self, data: bytes) -> None:
        """Tell it, and send it."""
        self._heard(self._line, data)
        self._link.write(data)

    async def close(self) -> None:
        """Let go of it."""
        await self._link.close()


def simulate_instrument(
    instrument: Instrument,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    nuclei_um: NDArray[np.float64] | None = None,
) -> SimulatedInstrument:
    """Make a simulated instrument; to be used within an event loop, best one of virtual time (`simulators.clock`).

    Args:
        instrument: What is simulated.
        recipe: Gives the bottles and the size of the chip; without it, every port has a bottle of its own.
        seed: Of all noise.
        nuclei_um: Where the nuclei lie on the chip, shape (n, 2); scattered all over it if not given.
    """
    on_lines = _on_lines(instrument)
    world = make_world(_world_tables(on_lines, recipe))
    made = _Made(world, seed)
    lines: dict[str, FaultyLine] = {}
    hosts: dict[str, MemoryHost] = {}
    addresses: dict[str, str] = {}
    # The board of a HiSeq reads the encoder of the stage: its line comes after the stage's.
    for line in sorted(on_lines.line, key=lambda name: on_lines.line[name].answer_address is not None):
        table = on_lines.line[line]
        servers = made.controllers(_seats(on_lines, line))
        ports: Mapping[str, ByteServer] = getattr(servers[0], "ports", {}) if servers else {}
        if ports and table.answer_address is not None:
            lines[f"{line}.answers"] = answers = FaultyLine(ports["answers"], devices=servers)
            lines[line] = FaultyLine(ports["commands"], devices=servers, answers=answers)
        else:
            lines[line] = FaultyLine(servers[0] if len(servers) == 1 else Bus(servers), devices=servers)
        ends = [(line, table.address)]
        if table.answer_address is not None:
            ends.append((f"{line}.answers", table.answer_address))
        for name, address in ends:
            hosts[name] = MemoryHost(lines[name], baud_rate=on_lines.baud_rate(line))
            addresses[address] = name
        if len(ends) == 2:
            hosts[line].siblings.append(hosts[f"{line}.answers"])
    cameras = _cameras(on_lines, instrument, recipe, made, nuclei_um)
    return SimulatedInstrument(instrument, world, made.devices, lines, hosts, cameras, addresses, on_lines)


# ------------------------------------------------------------------------------------------------- everything on lines


def _on_lines(instrument: Instrument) -> Instrument:
    """The instrument with every device on a line, but for its cameras, which are left out."""
    lines: dict[str, Line] = dict(instrument.line)
    devices: dict[str, DeviceTable] = {}
    for name, table in instrument.device.items():
        if isinstance(table, MicroManagerCameraTable):
            continue
        resource: str | None = getattr(table, "resource", None)
        if resource is not None or isinstance(table, MicroManagerStageTable | MicroManagerFocusTable):
            line = _free(name, lines)
            lines[line] = Line(address=resource or f"Micro-Manager: {name}")
            devices[name] = _on_line(table, line)
        else:
            devices[name] = table
    return instrument.model_copy(update={"line": lines, "device": devices, "micro_manager": None})


def _on_line(table: DeviceTable, line: str) -> DeviceTable:
    """A device that has no line as one that has."""
    if isinstance(table, MicroManagerStageTable):
        return AsiStageTable.model_construct(
            driver="asi_stage",
            line=line,
            limits=table.limits,
            speed_mm_per_s=min(table.speed_um_per_s / 1000, _FASTEST_ASI_MM_PER_S),
            tolerance_um=table.tolerance_um,
        )
    if isinstance(table, MicroManagerFocusTable):
        return AsiFocusTable.model_construct(
            driver="asi_focus",
            line=line,
            limits_um=Range(table.low_um, table.high_um),
            speed_mm_per_s=min(table.speed_um_per_s / 1000, _FASTEST_ASI_MM_PER_S),
            tolerance_um=table.tolerance_um,
        )
    return table.model_copy(update={"line": line, "resource": None})


def _free(name: str, taken: Iterable[str]) -> str:
    """The name, or one like it that is not taken."""
    while name in taken:
        name += "_"
    return name


@dataclass(frozen=True)
class _Seat:
    """A device, or one drive of it, on a line."""

    name: str
    driver: str
    table: Any


def _seats(instrument: Instrument, line: str) -> list[_Seat]:
    seats = []
    for name, plug in instrument.plugs(line):
        table = instrument.device[name]
        if len(plug.key) == 1:
            seats.append(_Seat(name, table.driver, table))
        else:
            part = str(plug.key[0])
            seats.append(_Seat(f"{name}.{part}", f"{table.driver}.{part}", getattr(table, part)))
    return seats


# ------------------------------------------------------------------------------------------------------------ the world


def _world_tables(instrument: Instrument, recipe: Recipe | None) -> dict[str, dict[str, dict[str, Any]]]:
    """What `make_world` is told: bottles on the valve of the roles, its flow cell and pump, plates and laser heads.

    A bottle has the name of its reagent, all else that of its device.
    """
    vessels: dict[str, dict[str, Any]] = {}
    selectors: dict[str, dict[str, Any]] = {}
    pipes: dict[str, dict[str, Any]] = {}
    syringes: dict[str, dict[str, Any]] = {}
    taken: set[str] = set(recipe.reagents) if recipe is not None else set()

    def name_of(name: str) -> str:
        free = _free(name, taken)
        taken.add(free)
        return free

    waste = name_of(WASTE)
    vessels[waste] = {}
    roles, fluidics = instrument.roles, instrument.fluidics
    inlet = ""
    for name, table in instrument.device.items():
        if not isinstance(table, ViciValveTable):
            continue
        bottles: dict[int, str] = {}
        if name == roles.valve and recipe is not None:
            bottles = {bottle.port: reagent for reagent, bottle in recipe.reagents.items()}
            vessels |= {reagent: {"volume_ul": bottle.loaded_ul} for reagent, bottle in recipe.reagents.items()}
        for port in range(1, table.n_ports + 1):
            if port not in bottles:
                bottles[port] = name_of(f"{name}_bottle_{port}")
                vessels[bottles[port]] = {"volume_ul": BOTTLE_UL}
        selector = name_of(name)
        selectors[selector] = {"ports": bottles, "port": 1}
        if name == roles.valve:
            inlet = selector
    for name, table in instrument.device.items():
        if not isinstance(table, CavroPumpTable):
            continue
        ports: dict[str, str] = {}
        for key, command in table.ports.items():
            end = _syringe_port(command)
            if key == fluidics.waste_port:
                ports[end] = waste
            elif key == fluidics.flow_cell_port and name == roles.pump and inlet:
                ports[end] = name_of(FLOW_CELL)
                first = next(iter(selectors[inlet]["ports"].values()))
                pipes[ports[end]] = {"volume_ul": FLOW_CELL_UL, "far": inlet, "reagent": first}
            elif end not in ports and end != "B":
                ports[end] = name_of(f"{name}_bottle_{key}")
                vessels[ports[end]] = {"volume_ul": BOTTLE_UL}
        rests = next((end for end, home in ports.items() if home == waste), next(iter(ports)))
        syringes[name_of(name)] = {"barrel_ul": table.barrel_ul, "ports": ports, "port": rests}
    heads = {
        name: {"wavelength_nm": table.wavelength_nm, "rated_mw": table.max_power_mw}
        for name, table in instrument.device.items()
        if isinstance(table, ObisTable | CoboltTable | SmdTable)
    }
    plates: dict[str, dict[str, Any]] = {
        name: {}
        for name, table in instrument.device.items()
        if isinstance(table, MeerstetterTable | Arm9TemperatureTable)
    }
    return {
        "vessels": vessels,
        "selectors": selectors,
        "pipes": pipes,
        "syringes": syringes,
        "plates": plates,
        "lasers": heads,
    }


def _syringe_port(command: str | int) -> str:
    """The port to which a valve command turns: ``3``, ``I3`` and ``O3`` to ``3``; ``I`` and ``O`` are ports."""
    text = str(command)
    return text[1:] if len(text) > 1 and text[1:].isdecimal() else text


# ----------------------------------------------------------------------------------------------------- the controllers


class _Made:
    """The simulated controllers, as they are made line by line."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.seed = seed
        self.devices: dict[str, SimulatedDevice] = {}
        #: Where the axes of each stage or focus axis are, as its driver counts them.
        self.axes: dict[str, tuple[Axis, ...]] = {}

    def controllers(self, seats: list[_Seat]) -> list[SimulatedDevice]:
        """Make the controllers on one line, each once."""
        if not seats:
            return []
        found = SIMULATORS[seats[0].driver](self, seats)
        self.devices |= found
        return list({id(device): device for device in found.values()}.values())

    def plates(self, name: str, tables: Mapping[int, str], count: int, first: int) -> list[str]:
        """The plates of a controller's channels; one that no device has is there all the same."""
        plates = [tables.get(channel, f"{name}_channel_{channel}") for channel in range(first, first + count)]
        for plate in plates:
            self.world.plates.setdefault(plate, Plate())
        return plates


def _known(name: str, parts: Mapping[str, object]) -> str:
    """The name of a device's part of the world, which gave way to a bottle of the same name."""
    while name not in parts:
        name += "_"
    return name


def _cavro(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    return {
        seat.name: CavroSim(
            seat.name,
            made.world,
            syringe=_known(seat.name, made.world.fluidics.syringes),
            address=chr(ord("1") + seat.table.switch),
            dialect=seat.table.dialect,
            framing=seat.table.framing,
            full_stroke_steps=seat.table.steps_per_stroke,
        )
        for seat in seats
    }


def _vici(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    return {
        seat.name: ViciSim(
            seat.name,
            made.world,
            selector=_known(seat.name, made.world.fluidics.selectors),
            n_ports=seat.table.n_ports,
            dialect=seat.table.dialect,
            identifier=seat.table.actuator_id,
            rs485=seat.table.rs485,
            port_s=min(_VICI_PORT_S, seat.table.port_s),
        )
        for seat in seats
    }


def _meerstetter(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    found: dict[str, SimulatedDevice] = {}
    for address in dict.fromkeys(seat.table.address for seat in seats):
        mine = [seat for seat in seats if seat.table.address == address]
        channels = {seat.table.channel: seat.name for seat in mine}
        controller = MeerstetterSim(
            mine[0].name,
            made.world,
            plates=made.plates(mine[0].name, channels, max(channels), 1),
            address=address or 1,
            plate_allowed_c=(min(seat.table.low_c for seat in mine) - 25, max(seat.table.high_c for seat in mine) + 5),
        )
        found |= dict.fromkeys(channels.values(), controller)
    return found


def _arm9(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    parts: dict[str, dict[int, str]] = {"flow_cell": {}, "chiller": {}}
    for seat in seats:
        if isinstance(seat.table, Arm9TemperatureTable):
            parts[seat.table.part][seat.table.channel] = seat.name
    board = Arm9ChemSim(
        "chemistry board",
        made.world,
        flow_cells=made.plates("flow_cell", parts["flow_cell"], 2, 0),
        chillers=made.plates("chiller", parts["chiller"], 3, 0),
    )
    return dict.fromkeys((seat.name for seat in seats), board)


def _asi(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    travel_um: dict[str, tuple[float, float]] = {}
    axes: dict[str, tuple[str, ...]] = {}
    for seat in seats:
        table = seat.table
        if isinstance(table, AsiStageTable):
            axes[seat.name] = table.axes
            limits = dict(zip(table.axes, (table.limits.x_um, table.limits.y_um), strict=True))
        else:
            axes[seat.name] = (table.axis,)
            limits = {table.axis: table.limits_um}
        # It stands at 0 at power-on, which must be within its travel; the limit switches lie beyond what is allowed.
        for axis, limit in limits.items():
            travel_um[axis] = (min(0.0, limit.low) - _TO_SWITCH_UM, max(0.0, limit.high) + _TO_SWITCH_UM)
    controller = AsiSim(seats[0].name, axes=tuple(travel_um), travel_um=travel_um)
    for name, letters in axes.items():
        made.axes[name] = tuple(controller.axes[letter] for letter in letters)
    return dict.fromkeys(axes, controller)


def _zaber(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    tables = {
        seat.name: {"x": seat.table.x, "y": seat.table.y}
        if isinstance(seat.table, ZaberStageTable)
        else {"": seat.table.axis}
        for seat in seats
    }
    settings = [axis for axes in tables.values() for axis in axes.values()]
    controllers: dict[int, ZaberSim] = {}
    for number in dict.fromkeys(axis.device for axis in settings):
        mine = {axis.axis: axis for axis in settings if axis.device == number}
        usual_um = max(axis.limits_um.high for axis in mine.values())
        lengths_um = [mine[n].limits_um.high if n in mine else usual_um for n in range(1, max(mine) + 1)]
        controllers[number] = ZaberSim(
            f"device {number}",
            address=number,
            travel_um=lengths_um,
            microstep_um=next(iter(mine.values())).microstep_um,
        )
    found: dict[str, SimulatedDevice] = {}
    for name, axes in tables.items():
        made.axes[name] = tuple(controllers[axis.device].axes[str(axis.axis)] for axis in axes.values())
        if len({axis.device for axis in axes.values()}) == 1:
            found[name] = controllers[next(iter(axes.values())).device]
        else:
            found |= {f"{name}.{letter}": controllers[axis.device] for letter, axis in axes.items()}
    return found


def _prior(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    settings: dict[str, Any] = {"focus": False}
    for seat in seats:
        table = seat.table
        if isinstance(table, PriorStageTable):
            # The stage stands in the middle of its travel, which is 0.
            limits = (table.limits.x_um, table.limits.y_um)
            settings["size_mm"] = [max(-limit.low, limit.high) / 500 for limit in limits]
            settings["stage_speed_um_per_s"] = table.full_speed_mm_per_s * 1000
        elif isinstance(table, PriorFocusTable):
            settings["focus"] = True
            settings["focus_mm"] = max(-table.limits_um.low, table.limits_um.high) / 500
            settings["focus_speed_um_per_s"] = table.full_speed_mm_per_s * 1000
    controller = PriorSim(seats[0].name, **settings)
    for seat in seats:
        letters = "XY" if isinstance(seat.table, PriorStageTable) else "Z"
        made.axes[seat.name] = tuple(controller.axes[letter] for letter in letters)
    return dict.fromkeys((seat.name for seat in seats), controller)


def _mdrive(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    return {seat.name: MDriveSim(seat.name) for seat in seats}


def _vix(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    return {
        seat.name: VixSim(seat.name, address=seat.table.address, um_per_rev=seat.table.travel_um_per_rev)
        for seat in seats
    }


def _fpga(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    y = next((device for device in made.devices.values() if isinstance(device, VixSim)), None)
    board = HiseqFpgaSim("fpga", y=y)
    for seat in seats:
        if seat.driver == "hiseq_objective":
            made.axes[seat.name] = (board.axes["Z"],)
    return dict.fromkeys((seat.name for seat in seats), board)


def _obis(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    return {
        # A head that takes pictures has its five seconds of delay (CDRH) switched off, as docs/instrument.md asks.
        seat.name: ObisSim(
            seat.name,
            made.world,
            head=seat.name,
            low_mw=seat.table.min_power_mw,
            index=seat.table.index or 0,
            cdrh=False,
        )
        for seat in seats
    }


def _cobolt(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    return {seat.name: CoboltSim(seat.name, made.world, head=seat.name, kind=seat.table.kind) for seat in seats}


def _smd(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    return {seat.name: SmdLaserSim(seat.name, made.world, head=seat.name) for seat in seats}


def _power_meter(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    return {seat.name: Pm100Sim(seat.name, made.world, seed=made.seed + 1) for seat in seats}


def _pulse_generator(made: _Made, seats: list[_Seat]) -> dict[str, SimulatedDevice]:
    return {seat.name: PulseGeneratorSim(seat.name, made.world) for seat in seats}


#: What simulates the devices of a driver that are on one line: given them, their controllers by device.
SIMULATORS: Final[dict[str, Callable[[_Made, list[_Seat]], dict[str, SimulatedDevice]]]] = {
    "cavro_pump": _cavro,
    "vici_valve": _vici,
    "meerstetter_tec": _meerstetter,
    "arm9_temperature": _arm9,
    "arm9_switch": _arm9,
    "asi_stage": _asi,
    "asi_focus": _asi,
    "zaber_stage": _zaber,
    "zaber_focus": _zaber,
    "prior_stage": _prior,
    "prior_focus": _prior,
    "hiseq_stage.x": _mdrive,
    "hiseq_stage.y": _vix,
    "hiseq_fpga": _fpga,
    "hiseq_objective": _fpga,
    "hiseq_tilt": _fpga,
    "obis_laser": _obis,
    "cobolt_laser": _cobolt,
    "smd_laser": _smd,
    "thorlabs_power_meter": _power_meter,
    "pulse_generator": _pulse_generator,
}


# ------------------------------------------------------------------------------------------------------------- cameras


def _cameras(
    on_lines: Instrument,
    instrument: Instrument,
    recipe: Recipe | None,
    made: _Made,
    nuclei_um: NDArray[np.float64] | None,
) -> dict[str, CameraSim]:
    names = [name for name, table in instrument.device.items() if isinstance(table, MicroManagerCameraTable)]
    imaging = instrument.imaging
    if not names or imaging is None:
        return {}
    stage = made.axes.get(instrument.roles.stage or "", ())
    focus = made.axes.get(instrument.roles.focus or "", ())

    def sight(now_s: float) -> Sight:
        x_um, y_um = (axis.position_um(now_s) for axis in stage) if len(stage) == 2 else (0.0, 0.0)
        return Sight(x_um, y_um, focus[0].position_um(now_s) if focus else 0.0)

    chip = recipe.chip if recipe is not None else None
    # The recipe says how wide and high the chip is as it lies.
    width_um, height_um = (chip.width_um, chip.height_um) if chip is not None else CHIP_UM
    if imaging.chip_quarter_turns % 2:
        width_um, height_um = height_um, width_um
    corner_um = (imaging.chip_x_um + MISPLACED_UM[0], imaging.chip_y_um + MISPLACED_UM[1])
    scene = scattered_scene(
        width_um,
        height_um,
        seed=made.seed,
        pitch_nm=chip.pitch_nm if chip is not None else 500,
        nuclei_um=nuclei_um,
        pose=laid_pose(corner_um, TURNED_DEG, width_um, height_um, imaging.chip_mirrored, imaging.chip_quarter_turns),
        focus_um=sight(0.0).z_um + FOCUS_ABOVE_UM,
        tilt=TILT,
    )
    return {
        name: CameraSim(
            name,
            made.world,
            scene=scene,
            sight=sight,
            width_px=imaging.width_px,
            height_px=imaging.height_px,
            pixel_um=imaging.pixel_um,
            bit_depth=imaging.bit_depth,
            seed=made.seed,
        )
        for name in names
    }
