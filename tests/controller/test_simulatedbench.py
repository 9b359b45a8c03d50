"""Instrument files run with no hardware: every device a byte server, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cartoseq.controller.devices.catalog import DRIVERS
from cartoseq.controller.devices.micromanager import MicroManagerCameraTable
from cartoseq.controller.engine import EndReason, Engine
from cartoseq.controller.instrument import Instrument, facts_of, load_instrument, parse_instrument
from cartoseq.controller.ledger import Ledger
from cartoseq.controller.plan import compile_recipe
from cartoseq.controller.recipe import parse_recipe
from cartoseq.controller.runjournal import RunJournal, read_journal
from cartoseq.controller.simulatedbench import SIMULATORS, SimulatedInstrument, simulate_instrument
from cartoseq.drivers.capabilities import FocusStage, PowerMeter, XYStage
from cartoseq.drivers.errors import LinkError
from cartoseq.simulators.clock import run_virtual

from .benches import INSTRUMENTS

ALL = sorted(INSTRUMENTS.glob("*.toml"))
FLOWS = """\
name = "flows"
[reagents]
pump = { port = 2, loaded_ul = 5000, role = "incorporation" }
waste = { port = 3, loaded_ul = 5000, role = "wash" }
[[step]]
do = "set_temperature"
temperature_c = 40
verify = true
[[step]]
do = "flow"
reagent = "pump"
volume_ul = 200
flow_ul_per_s = 40
[[step]]
do = "laser"
device = "green"
on = true
power_mw = 20
[[step]]
do = "wash"
reagent = "waste"
volume_ul = 300
flow_ul_per_s = 40
times = 2
"""


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_every_driver_has_a_simulator() -> None:
    named = {name.partition(".")[0] for name in SIMULATORS}
    replaced = {"micro_manager_camera", "micro_manager_stage", "micro_manager_focus"}
    assert named | replaced == set(DRIVERS)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_device_of_an_instrument_opens_and_is_well(path: Path) -> None:
    async def main() -> None:
        instrument = load_instrument(path)
        simulated = simulate_instrument(instrument)
        bench = simulated.bench()
        identities = await bench.open()
        assert set(identities) == set(instrument.device)
        for device in bench.devices():
            assert [fault for fault in await device.read_faults() if fault.severe] == [], device.name
        assert await bench.make_safe() == {}
        await bench.close()
        cameras = {name for name, table in instrument.device.items() if isinstance(table, MicroManagerCameraTable)}
        assert set(simulated.cameras) == cameras

    run_virtual(main())


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_recipe_runs_on_it_and_its_ledger_is_true_and_its_journal_the_same_twice(path: Path, tmp_path: Path) -> None:
    instrument = load_instrument(path)
    recipe = parse_recipe(FLOWS)
    plan = compile_recipe(recipe, facts_of(instrument, 1 << 40), FLOWS)

    async def main(journal_path: Path) -> None:
        simulated = simulate_instrument(instrument, recipe)
        bench = simulated.bench()
        await bench.open()
        engine = Engine(plan, bench, RunJournal(journal_path, now_s))
        assert await engine.run() is EndReason.COMPLETED, engine.message
        true = simulated.world.inspect(now_s())
        assert true["pump.volume_ul"] == pytest.approx(4800, abs=1)
        assert true["waste.volume_ul"] == pytest.approx(4400, abs=1)
        assert true["waste_.volume_ul"] == pytest.approx(Ledger.of(read_journal(journal_path)).waste_ul, abs=1)
        await bench.close()

    for name in ("one", "two"):
        run_virtual(main(tmp_path / name))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert not [event for event in read_journal(tmp_path / "one") if event["event"] == "fault"]


def test_a_line_can_be_disturbed_and_new_drivers_find_the_devices_as_they_were() -> None:
    async def main() -> None:
        simulated = simulate_instrument(load_instrument(INSTRUMENTS / "bench.toml"))
        bench = simulated.bench()
        await bench.open()
        assert bench.valve is not None
        await bench.valve.select(7)
        simulated.hosts["valve"].refuses = True
        simulated.hosts["valve"].cut()
        with pytest.raises(LinkError):
            await bench.valve.port()
        simulated.hosts["valve"].refuses = False
        again = simulated.bench()
        assert again.valve is not None
        assert again.valve is not bench.valve
        await again.valve.open()
        assert await again.valve.port() == 7

    run_virtual(main())


def test_a_device_behind_visa_measures_the_light_of_the_bench() -> None:
    async def main() -> None:
        simulated = simulate_instrument(load_instrument(INSTRUMENTS / "bench.toml"))
        bench = simulated.bench()
        await bench.open()
        meter, laser = bench.meters["sample"], bench.lasers["red"]
        assert isinstance(meter, PowerMeter)
        await meter.set_wavelength_nm(638)
        await laser.set_power_mw(30)
        await laser.set_emission(True)
        await asyncio.sleep(1)
        assert await meter.power_mw() == pytest.approx(30, rel=0.05)
        await bench.make_safe()
        await bench.close()

    run_virtual(main())


STAGES = {
    "asi": """
[device.stage]
driver = "asi_stage"
line = "one"
axes = ["X", "V"]
limits = { x_um = [-5_000, 60_000], y_um = [1_000, 9_000] }
[device.focus]
driver = "asi_focus"
line = "one"
limits_um = [10, 900]
""",
    "zaber": """
[device.stage]
driver = "zaber_stage"
line = "one"
x = { device = 1, axis = 1, microstep_um = 0.15625, limits_um = [0, 80_000] }
y = { device = 2, axis = 2, microstep_um = 0.1, limits_um = [0, 70_000] }
[device.focus]
driver = "zaber_focus"
line = "one"
axis = { device = 3, axis = 1, microstep_um = 0.05, limits_um = [0, 20_000] }
""",
    "prior": """
[device.stage]
driver = "prior_stage"
line = "one"
limits = { x_um = [-40_000, 30_000], y_um = [-20_000, 25_000] }
full_speed_mm_per_s = 20
full_acceleration_mm_per_s2 = 100
[device.focus]
driver = "prior_focus"
line = "one"
limits_um = [-5_000, 5_000]
full_speed_mm_per_s = 2
full_acceleration_mm_per_s2 = 10
""",
    "micro_manager": """
[micro_manager]
configuration = "scope.cfg"
[device.stage]
driver = "micro_manager_stage"
limits = { x_um = [0, 100_000], y_um = [0, 75_000] }
speed_um_per_s = 20_000
[device.focus]
driver = "micro_manager_focus"
low_um = -100
high_um = 100
speed_um_per_s = 1_000
""",
}


def stage_instrument(kind: str) -> Instrument:
    line = "" if kind == "micro_manager" else '[line.one]\naddress = "tcp://10.0.0.1:4001"\n'
    return parse_instrument(f'name = "{kind}"\n{line}{STAGES[kind]}[roles]\nstage = "stage"\nfocus = "focus"\n')


async def ready(simulated: SimulatedInstrument) -> tuple[XYStage, FocusStage]:
    bench = simulated.bench()
    await bench.open()
    assert bench.stage is not None
    assert bench.focus is not None
    for device in (bench.stage, bench.focus):
        if simulated.instrument.name == "zaber":
            await device.home()  # type: ignore[union-attr]
    return bench.stage, bench.focus


@pytest.mark.parametrize("kind", STAGES)
def test_stages_of_every_make_move_where_the_world_sees_them(kind: str) -> None:
    async def main() -> None:
        simulated = simulate_instrument(stage_instrument(kind))
        stage, focus = await ready(simulated)
        await stage.move_to(2_500, 3_500)
        await focus.move_to_um(42)
        place = await stage.position()
        assert (place.x_um, place.y_um) == pytest.approx((2_500, 3_500), abs=1)
        for name, letters in (("stage", "xy"), ("focus", "z")):
            assert any(name == known or known.startswith(f"{name}.") for known in simulated.devices), letters
        assert await focus.position_um() == pytest.approx(42, abs=0.5)
        await stage.close()
        await focus.close()

    run_virtual(main())


def test_pumps_valves_and_controllers_share_their_lines() -> None:
    text = 'name = "shared"\n'
    for line in ("pumps", "valves", "plates"):
        text += f'[line.{line}]\naddress = "/dev/{line}"\n'
    for number in range(3):
        text += f'[device.pump_{number}]\ndriver = "cavro_pump"\nline = "pumps"\nbarrel_ul = 500\nswitch = {number}\n'
        text += f'[device.valve_{number}]\ndriver = "vici_valve"\nline = "valves"\nn_ports = {6 + number}\n'
        text += f'rs485 = true\nactuator_id = "{number}"\n'
        text += f'[device.plate_{number}]\ndriver = "meerstetter_tec"\nline = "plates"\n'
        text += f"address = {3 + number // 2}\nchannel = {1 + number % 2}\n"

    async def main() -> None:
        simulated = simulate_instrument(parse_instrument(text))
        drivers: dict[str, Any] = simulated.drivers()
        for driver in drivers.values():
            await driver.open()
        await asyncio.gather(*(drivers[f"valve_{number}"].select(2 + number) for number in range(3)))
        await asyncio.gather(*(drivers[f"pump_{number}"].initialize() for number in range(3)))
        await drivers["pump_1"].aspirate(100, "input", 50)
        await drivers["plate_1"].set_target_c(30)
        assert [await drivers[f"valve_{number}"].port() for number in range(3)] == [2, 3, 4]
        assert [await drivers[f"pump_{number}"].plunger_ul() for number in range(3)] == pytest.approx([0, 100, 0])
        await drivers["plate_1"].wait_stable(0.5, 5, 300)
        assert simulated.devices["plate_0"] is simulated.devices["plate_1"] is not simulated.devices["plate_2"]
        assert abs(await drivers["plate_0"].temperature_c() - 22) < 1
        for driver in drivers.values():
            await driver.close()

    run_virtual(main())
