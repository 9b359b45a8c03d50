from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from cartoseq.controller.devices.catalog import DRIVERS
from cartoseq.controller.devices.micromanager import TriggerTable
from cartoseq.controller.devices.motion import MDriveTable, Place, VixTable, ZaberAxisTable
from cartoseq.controller.devices.tables import Travel
from cartoseq.controller.instrument import (
    Estimates,
    Fluidics,
    Imaging,
    Line,
    MicroManager,
    Roles,
    build_bench,
    build_devices,
    facts_of,
    load_instrument,
    parse_instrument,
)
from cartoseq.controller.plan import compile_recipe
from cartoseq.controller.recipe import load_recipe
from cartoseq.controller.settingsfile import value_text
from cartoseq.drivers.capabilities import (
    Camera,
    FocusStage,
    Laser,
    PowerMeter,
    Range,
    SelectorValve,
    SyringePump,
    TemperatureController,
    XYStage,
)
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.devices.asi import AsiSim
from cartoseq.streaming.errors import InputError

from .benches import BENCH, HISEQ, INSTRUMENTS, PROJECT, Lines, bench_world, hiseq_world, without_camera

MANUAL = PROJECT / "docs" / "instrument.md"
CAPABILITIES: dict[str, type] = {
    "pump": SyringePump,
    "valve": SelectorValve,
    "temperature": TemperatureController,
    "stage": XYStage,
    "focus": FocusStage,
    "camera": Camera,
    "laser": Laser,
    "meter": PowerMeter,
}


# ------------------------------------------------------------------------------------------------------- the examples


@pytest.mark.parametrize("path", sorted(INSTRUMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_builds_and_each_role_is_filled_by_a_device_that_can_do_it(path: Path) -> None:
    instrument = load_instrument(path)
    bench = build_bench(instrument)
    assert {device.name for device in bench.devices()} == set(instrument.device)
    for role in ("pump", "valve", "temperature", "stage", "focus", "camera"):
        device = getattr(bench, role)
        assert device is None or isinstance(device, CAPABILITIES[role])
    assert all(isinstance(laser, Laser) for laser in bench.lasers.values())
    assert set(bench.lasers) == {"green", "red"}


def test_devices_on_one_line_share_its_transport_and_board() -> None:
    connect = Lines({f"/dev/ttyUSB{number}": AsiSim("any") for number in range(13)})
    devices: dict[str, Any] = dict(build_devices(parse_instrument(HISEQ), connect))
    boards = [devices[name]._fpga for name in ("objective", "tilt_1", "tilt_2", "tilt_3")]
    assert all(board is devices["fpga"] for board in boards)
    assert devices["flow_cell_a"]._board.transport is devices["chiller"]._board.transport
    # each port once, at its maker's baud rate
    assert sorted(connect.opened, key=lambda opened: int(opened[0][11:])) == [
        (f"/dev/ttyUSB{number}", 115_200 if number in (6, 9, 10) else 9600) for number in range(13)
    ]


def test_the_bench_opens_works_and_is_made_safe_on_simulated_lines() -> None:
    async def use() -> None:
        bench = build_bench(parse_instrument(without_camera(BENCH)), bench_world())
        identities = await bench.open()
        assert set(identities) == {"pump", "valve", "plate", "stage", "focus", "obis", "cobolt", "meter"}
        assert bench.pump is not None
        assert bench.stage is not None
        assert bench.valve is not None
        await bench.pump.initialize()
        await bench.valve.select(1)
        await bench.pump.aspirate(200, bench.flow_cell_port, 20)
        await bench.pump.dispense(200, bench.waste_port, bench.waste_flow_ul_per_s)
        await bench.stage.move_to(20_000, 15_000)
        assert (await bench.stage.position()).x_um == pytest.approx(20_000, abs=1)
        assert await bench.make_safe() == {}
        await bench.close()

    run_virtual(use())


def test_the_hiseq_opens_works_and_is_made_safe_on_simulated_lines() -> None:
    async def use() -> None:
        instrument = parse_instrument(HISEQ)
        bench = build_bench(instrument, hiseq_world())
        assert set(await bench.open()) == set(instrument.device)
        assert bench.stage is not None
        assert bench.focus is not None
        await bench.stage.home()
        await bench.stage.move_to(5_000, 10_000)
        await bench.focus.move_to_um(100)
        assert await bench.focus.position_um() == pytest.approx(100, abs=0.5)
        assert await bench.make_safe() == {}
        await bench.close()

    run_virtual(use())


def test_what_recipes_must_know_comes_from_file_and_drivers() -> None:
    facts = facts_of(parse_instrument(BENCH), 123)
    assert (facts.barrel_ul, facts.ports, facts.free_bytes) == (500, 10, 123)
    assert facts.flow_ul_per_s.high == 100
    assert facts.flow_ul_per_s.low == pytest.approx(500 / 6000 * 5)
    assert facts.temperature_c == Range(10, 80)
    assert facts.lights_mw == {"green": Range(1, 100), "red": Range(0, 140)}
    assert facts.travel is not None
    assert facts.travel.y_um == Range(0, 75_000)
    assert facts.tile_um == pytest.approx((2048 * 0.325, 2048 * 0.325))
    assert facts.tile_bytes == 2 * 2048 * 2048
    assert (facts.chip_um, facts.has_focus) == ((20_000, 15_000), True)
    assert facts.waste_flow_ul_per_s == 80
    assert (facts.estimates.ramp_c_per_s, facts.estimates.port_s) == (0.95, 0.08)


def test_an_instrument_without_a_camera_shows_no_tiles() -> None:
    facts = facts_of(parse_instrument(HISEQ), 1)
    assert (facts.tile_um, facts.tile_bytes) == (None, 0)
    assert facts.ports == 24


@pytest.mark.parametrize("path", sorted((PROJECT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_comes_along_can_be_planned_on_the_bench(path: Path) -> None:
    recipe, text = load_recipe(path)
    assert compile_recipe(recipe, facts_of(parse_instrument(BENCH), 1 << 50), text, path).duration_s > 0


# ------------------------------------------------------------------------------------------- tables, drivers, and pages


def keyword_defaults(makes: Any) -> dict[str, Any]:
    parameters = inspect.signature(makes).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY or makes in PLAIN
    }


PLAIN = [table.makes for table in (Travel, Place, ZaberAxisTable, TriggerTable)]
MIRRORS = [table for table in DRIVERS.values() if hasattr(table, "makes") and table.model_fields.keys() > {"driver"}]


@pytest.mark.parametrize(
    "table",
    [*MIRRORS, MDriveTable, VixTable, ZaberAxisTable, TriggerTable, Travel, Place],
    ids=lambda table: table.__name__,
)
def test_a_table_has_the_keyword_arguments_of_its_driver_with_the_same_defaults(table: type[BaseModel]) -> None:
    expected = keyword_defaults(table.makes)  # type: ignore[attr-defined]
    if table in (MDriveTable, VixTable):
        del expected["axis"]  # what it is called in messages, which the stage knows
    own = table.own  # type: ignore[attr-defined]
    found = {
        key: inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        for key, field in table.model_fields.items()
        if key not in own
    }
    assert found == expected


def test_the_manual_names_every_driver_and_its_page_every_setting() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|([^|]*)\|([^|]*)\|$", MANUAL.read_text(encoding="utf-8"), re.MULTILINE)
    shown = {driver: (baud.strip(), pages) for driver, _, baud, pages in rows if driver in DRIVERS}
    assert list(shown) == list(DRIVERS)
    for driver, table in DRIVERS.items():
        baud, pages = shown[driver]
        text = MANUAL.read_text(encoding="utf-8")
        for page in re.findall(r"\((drivers/\w+\.md)\)", pages):
            text += (MANUAL.parent / page).read_text(encoding="utf-8")
        missing = [key for key in keys_of(table) if f"`{key}`" not in text]
        assert not missing, (driver, missing)
        if hasattr(table, "wire"):
            assert baud == str(table.wire.baud_rate), driver


def keys_of(table: type[BaseModel]) -> list[str]:
    keys = list(table.model_fields)
    nested = {
        "hiseq_stage": (MDriveTable, VixTable),
        "zaber_stage": (ZaberAxisTable,),
        "zaber_focus": (ZaberAxisTable,),
    }
    for inner in nested.get(next(name for name, one in DRIVERS.items() if one is table), ()):
        keys += inner.model_fields
    return keys


def test_the_manual_names_every_key_with_its_default() -> None:
    sections = {
        found[1]: found[2]
        for found in re.finditer(r"^### `\[(\w+).*?$(.*?)(?=^##)", MANUAL.read_text(encoding="utf-8"), re.M | re.S)
    }
    tables = {
        "line": Line,
        "micro_manager": MicroManager,
        "roles": Roles,
        "fluidics": Fluidics,
        "imaging": Imaging,
        "estimates": Estimates,
    }
    for name, table in tables.items():
        rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", sections[name], re.MULTILINE)
        expected = []
        for key, field in table.model_fields.items():
            if field.is_required():
                default = "required"
            elif field.default is None:
                default = "–"
            else:
                value = field.default
                default = "`{}`" if value == {} else f"`{value_text(list(value) if value == () else value)}`"
            expected.append((key, default))
        assert rows == expected


# --------------------------------------------------------------------------------------------------------- bad files


#: What is replaced, by what; on which line the fault is (the first with this text); its key; what the message says.
BAD = {
    "unknown driver": (
        BENCH,
        'driver = "cavro_pump"',
        'driver = "cavo_pump"',
        "cavo_pump",
        "device.pump.driver",
        ['there is no driver = "cavo_pump"', 'Did you mean "cavro_pump"?'],
    ),
    "no driver": (
        BENCH,
        'driver = "cavro_pump"\n',
        "",
        "[device.pump]",
        "device.pump",
        ["expected a table with driver = ..., found a table", "Known: cavro_pump, "],
    ),
    "unknown dialect": (
        HISEQ,
        'dialect = "emt"',
        'dialect = "etm"',
        '"etm"',
        "device.reagents_a.dialect",
        ['expected "universal" or "emt", found "etm"', "Correct device.reagents_a.dialect."],
    ),
    "unknown framing": (
        BENCH,
        "barrel_ul = 500",
        'barrel_ul = 500\nframing = "DT"',
        '"DT"',
        "device.pump.framing",
        ['expected "dt" or "oem", found "DT"', "Correct device.pump.framing."],
    ),
    "unknown part": (
        HISEQ,
        'part = "vacuum"',
        'part = "vaccum"',
        '"vaccum"',
        "device.vacuum.part",
        ['expected "vacuum" or "shutoff", found "vaccum"', "Correct device.vacuum.part."],
    ),
    "unknown tilt motor": (
        HISEQ,
        "number = 3",
        "number = 4",
        "number = 4",
        "device.tilt_3.number",
        ["expected 1, 2 or 3, found 4", "Correct device.tilt_3.number."],
    ),
    "unknown gain": (
        HISEQ,
        "gains = { P = 0.2",
        "gains = { Q = 0.2",
        "gains = { Q",
        "device.flow_cell_a.gains.Q",
        ['expected "P", "I", "D", "S" or "F"', "Correct device.flow_cell_a.gains.Q."],
    ),
    "missing setting": (
        BENCH,
        "barrel_ul = 500\n",
        "",
        "[device.pump]",
        "device.pump.barrel_ul",
        ["barrel_ul is missing", "Add barrel_ul = ..., as docs/instrument.md shows."],
    ),
    "setting of another driver": (
        BENCH,
        "n_ports = 10",
        "n_ports = 10\nswitch = 1",
        "switch = 1",
        "device.valve.switch",
        ['unknown key "switch"', "Known here: driver, line, n_ports, dialect"],
    ),
    "misspelt setting": (
        BENCH,
        "n_ports = 10",
        "n_ports = 10\nreply = 0.5",
        "reply =",
        "device.valve.reply",
        ['unknown key "reply"', 'Did you mean "reply_s"?'],
    ),
    "misspelt setting within": (
        HISEQ,
        "travel_um_per_rev = ",
        "speed_rsp = 1.0, travel_um_per_rev = ",
        "speed_rsp",
        "device.stage.y.speed_rsp",
        ['unknown key "speed_rsp"', 'Did you mean "speed_rps"?'],
    ),
    "two ports of one": (
        BENCH,
        "baud_rate = 9600",
        'answer_address = "/dev/ttyUSB9"',
        "answer_address",
        "line.pump.answer_address",
        ["pump needs 1 port.", "Leave answer_address out."],
    ),
    "a text for a number": (
        BENCH,
        "barrel_ul = 500",
        'barrel_ul = "500 ul"',
        '"500 ul"',
        "device.pump.barrel_ul",
        ['expected a number, found "500 ul"', "Correct device.pump.barrel_ul."],
    ),
    "no barrel": (
        BENCH,
        "barrel_ul = 500",
        "barrel_ul = 0",
        "barrel_ul = 0",
        "device.pump.barrel_ul",
        ["expected a number above 0", "Correct device.pump.barrel_ul."],
    ),
    "half a range": (
        BENCH,
        "limits_um = [-2_000, 2_000]",
        "limits_um = [2_000]",
        "limits_um = [2_000]",
        "device.focus.limits_um",
        ["expected two numbers, found a list", "Write both ends of the range: [low, high]."],
    ),
    "a range upside down": (
        BENCH,
        "y_um = [0, 75_000]",
        "y_um = [75_000, 0]",
        "[75_000, 0]",
        "device.stage.limits.y_um",
        ["the range from 75000 to 0 is empty", "Write the lower end first."],
    ),
    "no axis": (
        BENCH,
        "limits_um = [-2_000, 2_000]",
        'limits_um = [-2_000, 2_000]\naxis = "z"',
        'axis = "z"',
        "device.focus.axis",
        ['expected an axis, found "z"', "Write its letter as the controller does"],
    ),
    "no valve command": (
        BENCH,
        'input = "I"',
        "input = 1.5",
        "input = 1.5",
        "device.pump.ports.input",
        ["expected a port's number or a valve command, found 1.5", 'Such as 3, "I" or "O3".'],
    ),
    "what the driver refuses": (
        BENCH,
        'input = "I"',
        'input = "Q"',
        "[device.pump]",
        "device.pump",
        ["port input is 'Q', which is no valve command of a", "Correct it; docs/instrument.md shows how."],
    ),
    "a line that is not there": (
        BENCH,
        'line = "pump"',
        'line = "pomp"',
        'line = "pomp"',
        "device.pump.line",
        ['there is no line "pomp"', "The file has: pump, valve, plate, stage, green, red; add [line.pomp]."],
    ),
    "a port of two lines": (
        BENCH,
        '"/dev/ttyUSB1"',
        '"/dev/ttyUSB0"',
        "[line.valve]+1",
        "line.valve.address",
        ['"/dev/ttyUSB0" is also the address of line pump', "Devices on one port share one line: name it in each."],
    ),
    "no address": (
        BENCH,
        '"/dev/ttyUSB1"',
        '"tcp://192.168.0.7"',
        "tcp://192.168.0.7",
        "line.valve.address",
        ["expected tcp://host:port, found 'tcp://192.168.0.7'", "Such as /dev/ttyUSB0 or tcp://192.168.0.7:4001."],
    ),
    "no baud rate": (
        BENCH,
        "baud_rate = 9600",
        "baud_rate = 9600.5",
        "9600.5",
        "line.pump.baud_rate",
        ["expected a whole number, found 9600.5", "Correct line.pump.baud_rate."],
    ),
    "a misspelt key of a line": (
        BENCH,
        "baud_rate = 9600",
        "baudrate = 9600",
        "baudrate",
        "line.pump.baudrate",
        ['unknown key "baudrate"', 'Did you mean "baud_rate"?'],
    ),
    "two protocols on a line": (
        BENCH,
        'line = "valve"',
        'line = "pump"',
        "[device.valve]+2",
        "device.valve.line",
        ["it speaks VICI, and pump on the same line Cavro, dt framing", "Give each its own line."],
    ),
    "two at one axis": (
        BENCH,
        "limits_um = [-2_000, 2_000]",
        'limits_um = [-2_000, 2_000]\naxis = "Y"',
        "[device.focus]+2",
        "device.focus.line",
        ["stage on the same line is axis Y too", "Give each its own"],
    ),
    "two pumps at one switch": (
        HISEQ,
        'line = "pump_b"',
        'line = "pump_a"',
        "[device.pump_b]+2",
        "device.pump_b.line",
        ["pump_a on the same line is switch 0 too", "Give each its own, as they are set."],
    ),
    "two that cannot share": (
        HISEQ,
        '"red"\nwavelength',
        '"green"\nwavelength',
        "[device.red]+2",
        "device.red.line",
        ["green is on this line, which they cannot share", "Give each its own line."],
    ),
    "one port of two": (
        HISEQ,
        'answer_address = "/dev/ttyUSB10"    # gives answers\n',
        "",
        "[line.fpga]",
        "line.fpga",
        ["fpga needs 2 ports", "Add answer_address = ..., the port that gives the answers."],
    ),
    "a role of nobody": (
        BENCH,
        'temperature = "plate"',
        'temperature = "plat"',
        '"plat"',
        "roles.temperature",
        ['there is no device "plat"', "Of this kind there is: plate."],
    ),
    "a role of the wrong kind": (
        BENCH,
        'valve = "valve"',
        'valve = "pump"',
        'valve = "pump"',
        "roles.valve",
        ["pump is a cavro_pump, which is no selector valve", "Of this kind there is: valve."],
    ),
    "two roles of one": (
        BENCH,
        'red = "cobolt"',
        'red = "obis"',
        "lasers = {",
        "roles.lasers.red",
        ["obis has a role already", "Give each role its own device."],
    ),
    "a role that there is not": (
        BENCH,
        'focus = "focus"',
        'focuss = "focus"',
        "focuss",
        "roles.focuss",
        ['unknown key "focuss"', 'Did you mean "focus"?'],
    ),
    "a port that the pump has not": (
        BENCH,
        'waste_port = "output"',
        'waste_port = "waste"',
        '"waste"',
        "fluidics.waste_port",
        ['the pump pump has no port "waste"', "Its ports are: input, output."],
    ),
    "a waste flow that the pump cannot do": (
        BENCH,
        "waste_flow_ul_per_s = 80",
        "waste_flow_ul_per_s = 120",
        "= 120",
        "fluidics.waste_flow_ul_per_s",
        ["120 ul/s is outside the 0.417 to 100 ul/s of the pump", "Choose a flow"],
    ),
    "a chip off the stage": (
        BENCH,
        "chip_x_um = 20_000",
        "chip_x_um = 120_000",
        "120_000",
        "imaging.chip_x_um",
        ["120000 um is outside the stage's travel of 0 to 100000 um", "Correct the chip's place"],
    ),
    "a camera without imaging": (
        BENCH,
        BENCH[BENCH.index("[imaging]") : BENCH.index("[estimates]")],
        "",
        'camera = "camera"',
        "roles.camera",
        ["there is a camera, and no [imaging] table", "Add it"],
    ),
    "a camera without Micro-Manager": (
        BENCH,
        BENCH[BENCH.index("[micro_manager]") : BENCH.index("[device.camera]")],
        "",
        '"micro_manager_camera"',
        "device.camera.driver",
        ["there is no [micro_manager] table", 'Add it, with configuration = "...".'],
    ),
    "neither line nor resource": (
        BENCH,
        'resource = "USB0::0x1313::0x8078::P0012345::INSTR"\n',
        "",
        "[device.meter]",
        "device.meter",
        ["expected either a line or a VISA resource", 'Write line = "..."'],
    ),
    "a table that there is not": (
        BENCH,
        "[estimates]",
        "[estimate]",
        "[estimate]",
        "estimate",
        ['unknown key "estimate"', 'Did you mean "estimates"?'],
    ),
    "no devices": ('name = "nothing"\n', "", "", "", "device", ["device is missing", "as docs/instrument.md shows."]),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_file_is_told_with_line_key_and_remedy(case: tuple[str, str, str, str, str, list[str]]) -> None:
    text, old, new, place, key, phrases = case
    assert old in text
    bad = text.replace(old, new, 1)
    with pytest.raises(InputError) as caught:
        parse_instrument(bad, "bad.toml")
    message = str(caught.value)
    needle, _, below = place.partition("+")
    line = f"line {bad[: bad.index(needle)].count(chr(10)) + 1 + int(below or 0)}, " if place else ""
    assert message.startswith(f"bad.toml: {line}key {key}: {phrases[0]}"), message
    assert all(phrase in message for phrase in phrases), message
    assert "more:" not in message, message


def test_all_faults_are_told_at_once() -> None:
    bad = BENCH.replace('"cavro_pump"', '"cavo_pump"').replace("n_ports = 10", "n_ports = 1").replace("2_000]", "x]")
    bad = bad.replace("[-2_000, x]", '[-2_000, "x"]')
    with pytest.raises(InputError) as caught:
        parse_instrument(bad)
    message = str(caught.value)
    assert "and 2 more:" in message
    for key in ("device.pump.driver", "device.valve.n_ports", "device.focus.limits_um"):
        assert f"key {key}: " in message


def test_a_device_may_be_called_as_its_driver() -> None:
    text = BENCH.replace("[device.pump]", "[device.cavro_pump]").replace("barrel_ul = 500", "barrel_ul = -1")
    with pytest.raises(InputError, match=r"key device\.cavro_pump\.barrel_ul: expected a number above 0"):
        parse_instrument(text)


def test_pumps_with_their_own_switches_share_a_line() -> None:
    text = HISEQ.replace('line = "pump_b"', 'line = "pump_a"\nswitch = 1')
    devices: dict[str, Any] = dict(build_devices(parse_instrument(text)))
    assert devices["pump_a"]._transport is devices["pump_b"]._transport


def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(BENCH)
    table = load_instrument(tmp_path / "bench.toml").micro_manager
    assert table is not None
    assert table.configuration == tmp_path / "camera.cfg"
    with pytest.raises(InputError, match="there is no such instrument file"):
        load_instrument(tmp_path / "none.toml")
