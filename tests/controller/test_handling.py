from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from cartoseq.controller import cli
from cartoseq.controller.handling import check_devices, list_devices, move_device
from cartoseq.controller.instrument import build_devices, parse_instrument
from cartoseq.drivers.errors import DeviceError, InterlockOpen, LimitError, NotInitialized
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.wire import SimulatedDevice
from cartoseq.streaming.errors import InputError

from .benches import BENCH, HISEQ, INSTRUMENTS, Lines, bench_world, hiseq_world, without_camera

ON_LINES = without_camera(BENCH)


def moved(name: str, *settings: str, text: str = ON_LINES, lines: Lines | None = None) -> list[str]:
    said: list[str] = []
    instrument = parse_instrument(text)
    devices = build_devices(instrument, lines or bench_world())
    run_virtual(move_device(instrument, devices, name, settings, said.append))
    return said


def device(lines: Lines, address: str) -> SimulatedDevice:
    return cast(SimulatedDevice, lines.hosts[address].server)


# ---------------------------------------------------------------------------------------------------------------- list


def test_ports_and_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    port = ListPortInfo("/dev/ttyUSB7")
    port.description = "FT232R USB UART"
    monkeypatch.setattr(list_ports, "comports", lambda: [port])
    said: list[str] = []
    list_devices(parse_instrument(BENCH), said.append)
    assert said[:2] == ["serial ports", "  /dev/ttyUSB7    FT232R USB UART"]
    rows = [line.split(maxsplit=3) for line in said[3:]]
    assert rows[0] == ["device", "driver", "role", "where"]
    assert ["pump", "cavro_pump", "pump", "/dev/ttyUSB0"] in rows
    assert ["obis", "obis_laser", "lasers.green", "/dev/ttyACM0"] in rows
    assert ["meter", "thorlabs_power_meter", "meters.sample", "USB0::0x1313::0x8078::P0012345::INSTR"] in rows
    assert ["camera", "micro_manager_camera", "camera", "Micro-Manager"] in rows


def test_no_ports_are_told_and_a_device_on_two_lines_has_both() -> None:
    said: list[str] = []
    list_devices(parse_instrument(HISEQ), said.append)
    assert "/dev/ttyUSB7, /dev/ttyUSB8" in next(line for line in said if "hiseq_stage" in line)
    assert next(line for line in said if "pump_b" in line).split()[2] == "-"


# --------------------------------------------------------------------------------------------------------------- check


def checked(text: str, lines: Lines) -> list[str]:
    """What is said; at the end the error, if there is one."""
    said: list[str] = []
    try:
        instrument = parse_instrument(text)
        run_virtual(check_devices(instrument, build_devices(instrument, lines), said.append))
    except DeviceError as error:
        said.append(str(error))
    return said


def test_every_device_says_who_it_is_and_how_it_stands() -> None:
    said = checked(ON_LINES, bench_world())
    assert said[-1] == "All 8 devices are well."
    for line in (
        "pump: Cavro XP3000-1.30 3000 500, firmware XP3000-1.30",
        "  note   this driver has not met its hardware yet",
        "  state  0.0 of 500 ul in the syringe",
        "  state  port 1 of 10",
        "  state  22.00 C (targets 10 to 80)",
        "  state  at z 0.00 um (-2000 to 2000)",
        "  state  off (1 to 100 mW), safety circuit closed",
    ):
        assert line in said


def test_the_parts_of_a_hiseq_are_well() -> None:
    said = checked(HISEQ, hiseq_world())
    assert said[-1] == "All 19 devices are well."
    assert said[said.index("shut_off: Illumina Bruno Fluidics Controller, firmware v2.0340") + 2] == "  state  shut"


def test_one_that_does_not_answer_or_complains_is_told_and_the_others_are_checked() -> None:
    lines = bench_world()
    lines.hosts["/dev/ttyUSB1"].refuses = True
    device(lines, "/dev/ttyACM0").inject("interlock_open", 0.0)
    said = checked(ON_LINES, lines)
    assert said[-1] == "Bench: 2 of 8 devices are not well. What is wrong with each is told above."
    at = said.index("valve: does not work")
    assert "cannot be opened" in said[at + 1]
    assert "Check the cable" in said[at + 1]
    assert "  state  off (1 to 100 mW), safety circuit OPEN" in said
    assert any(line.startswith("  fault  ") for line in said)


# ---------------------------------------------------------------------------------------------------------------- move


@pytest.mark.parametrize(
    ("name", "settings", "last"),
    [
        ("stage", ["x_um=1000", "y_um=2000"], "stage: at x 1000.0 um (0 to 57500), y 2000.0 um (0 to 37500)"),
        ("stage", ["y_um=2000"], "stage: at x 0.0 um (0 to 57500), y 2000.0 um (0 to 37500)"),
        ("focus", ["z_um=-50"], "focus: at z -50.00 um (-2000 to 2000)"),
        ("valve", ["port=1"], "valve: port 1 of 10"),
        (
            "pump",
            ["initialize=yes", "aspirate_ul=100", "dispense_ul=40", "flow_ul_per_s=10"],
            "pump: 60.0 of 500 ul in the syringe",
        ),
        ("plate", ["target_c=37"], "It stays so when this command has ended."),
        ("plate", ["off=yes"], "plate: 22.00 C (targets 10 to 80)"),
        ("obis", ["power_mw=5", "emission=on"], "It stays so when this command has ended."),
        ("cobolt", ["emission=off"], "cobolt: off (0 to 140 mW), safety circuit closed"),
    ],
)
def test_a_device_is_moved_by_hand(name: str, settings: Sequence[str], last: str) -> None:
    assert moved(name, *settings)[-1] == last


def test_light_goes_on_and_stays_until_it_is_switched_off() -> None:
    lines = bench_world()
    instrument = parse_instrument(ON_LINES)

    async def use() -> None:
        loop = asyncio.get_running_loop()
        await move_device(
            instrument, build_devices(instrument, lines), "obis", ["power_mw=5", "emission=on"], lambda _: None
        )
        await asyncio.sleep(60.0)
        truth = device(lines, "/dev/ttyACM0").inspect(loop.time())
        assert (truth["emitting"], truth["set_mw"]) == (True, 5.0)
        await move_device(instrument, build_devices(instrument, lines), "obis", ["emission=off"], lambda _: None)
        assert device(lines, "/dev/ttyACM0").inspect(loop.time())["emitting"] is False

    run_virtual(use())


def test_a_stage_that_must_be_homed_first_is_homed_in_the_same_command() -> None:
    with pytest.raises(NotInitialized):
        moved("stage", "x_um=1000", text=HISEQ, lines=hiseq_world())
    said = moved("stage", "x_um=1000", "y_um=500", "home=yes", text=HISEQ, lines=hiseq_world())
    assert said == ["stage: at x 1001.0 um (-70800.8 to 48828.1), y 500.0 um (-70000 to 75000)"]
    assert moved("shut_off", "on=yes", text=HISEQ, lines=hiseq_world()) == ["shut_off: open"]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("stag", ["x_um=1"], "stag: there is no such device. The file has: pump, valve, plate"),
        ("meter", ["on=yes"], "meter: this device cannot be moved by hand"),
        ("stage", ["z_um=1"], "does not know 'z_um=1'. It takes: home=..., x_um=..., y_um=...."),
        ("focus", ["home=yes"], "does not know 'home=yes'. It takes: z_um=...."),
        ("stage", ["x_um"], "does not know 'x_um'"),
        ("stage", ["x_um=far"], "expected a number, found 'x_um=far'"),
        ("valve", ["port=2.5"], "expected a number, found 'port=2.5'"),
        ("obis", ["emission=5"], "expected emission=yes or emission=no, found 'emission=5'"),
        ("pump", ["aspirate_ul=10"], "how fast is not said. Add flow_ul_per_s=..."),
        ("stage", ["home=no"], "nothing says what it should do"),
        ("stage", [], "nothing says what it should do. It takes: home="),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(
    name: str, settings: Sequence[str], message: str
) -> None:
    lines = bench_world()
    with pytest.raises(InputError) as caught:
        moved(name, *settings, lines=lines)
    assert message in str(caught.value)
    assert not any(host.lines for host in lines.hosts.values())


@pytest.mark.parametrize("settings", [["x_um=1e9"], ["x_um=nan"], ["y_um=-1"]])
def test_limits_hold_by_hand_as_well(settings: Sequence[str]) -> None:
    with pytest.raises(LimitError):
        moved("stage", *settings)


def test_a_laser_whose_circuit_is_open_does_not_go_on() -> None:
    lines = bench_world()
    device(lines, "/dev/ttyACM0").inject("interlock_open", 0.0)
    with pytest.raises(InterlockOpen):
        moved("obis", "power_mw=5", "emission=on", lines=lines)


def test_an_interrupted_move_is_stopped() -> None:
    lines = bench_world()
    instrument = parse_instrument(ON_LINES)

    async def use() -> None:
        move = asyncio.ensure_future(
            move_device(instrument, build_devices(instrument, lines), "stage", ["x_um=50000"], lambda _: None)
        )
        await asyncio.sleep(1.0)
        move.cancel()
        with pytest.raises(asyncio.CancelledError):
            await move
        now_s = asyncio.get_running_loop().time()
        before = device(lines, "/dev/ttyUSB3").inspect(now_s)
        await asyncio.sleep(5.0)
        assert device(lines, "/dev/ttyUSB3").inspect(now_s + 5.0) == before
        assert 0 < before["x_position_um"] < 50_000  # type: ignore[operator]

    run_virtual(use())


# ------------------------------------------------------------------------------------------------------------- command


def test_the_commands_end_with_their_exit_codes(tmp_path: Path) -> None:
    listed = CliRunner().invoke(cli.cli, ["devices", "list", str(INSTRUMENTS / "bench.toml")])
    assert listed.exit_code == 0
    assert "cavro_pump" in listed.output
    file = tmp_path / "valve.toml"
    line = f'[line.v]\naddress = "{tmp_path}/none"\n'
    file.write_text(f'name = "x"\n{line}[device.v]\ndriver = "vici_valve"\nline = "v"\nn_ports = 6\n')
    for arguments in (["check", str(file)], ["move", str(file), "v", "port=2"]):
        done = subprocess.run(
            [sys.executable, "-m", "cartoseq.controller.cli", "devices", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == DeviceError.exit_code
        assert done.stderr.startswith("cartoseq: ")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["bench.toml", "hiseq2500.toml"])
def test_simulated_devices_are_looked_after_like_real_ones(name: str) -> None:
    file = str(INSTRUMENTS / name)
    checked = CliRunner().invoke(cli.cli, ["devices", "check", file, "--simulate"])
    assert checked.exit_code == 0, checked.output
    assert checked.output.splitlines()[-1].endswith("devices are well.")
    moved = CliRunner().invoke(
        cli.cli, ["devices", "move", file, "stage", "home=yes", "x_um=900", "y_um=800", "--simulate"]
    )
    assert moved.exit_code == 0, moved.output
    assert moved.output.startswith("stage: at x 90")
    refused = CliRunner().invoke(cli.cli, ["devices", "move", file, "stage", "x_um=1e9", "--simulate"])
    assert isinstance(refused.exception, LimitError)
    listed = CliRunner().invoke(cli.cli, ["devices", "list", file, "--simulate"])
    assert listed.output.splitlines()[0].split() == ["device", "driver", "role", "simulated", "by"]
    stage = next(line for line in listed.output.splitlines() if line.startswith("stage"))
    assert "AsiSim" in stage or "MDriveSim and VixSim" in stage
