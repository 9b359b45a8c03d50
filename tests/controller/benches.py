"""The instruments that come along, and simulated devices behind their addresses, in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cartoseq.drivers.transport import Connect
from cartoseq.simulators.devices.arm9chem import Arm9ChemSim
from cartoseq.simulators.devices.asi import AsiSim
from cartoseq.simulators.devices.cavro import CavroSim
from cartoseq.simulators.devices.cobolt import CoboltSim
from cartoseq.simulators.devices.hiseqfpga import HiseqFpgaSim
from cartoseq.simulators.devices.mdrive import MDriveSim
from cartoseq.simulators.devices.meerstetter import MeerstetterSim
from cartoseq.simulators.devices.obis import ObisSim
from cartoseq.simulators.devices.pm100 import Pm100Sim
from cartoseq.simulators.devices.smdlaser import SmdLaserSim
from cartoseq.simulators.devices.vici import ViciSim
from cartoseq.simulators.devices.vix import VixSim
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import ByteServer
from cartoseq.simulators.world import make_world

PROJECT = Path(__file__).resolve().parents[2]
INSTRUMENTS = PROJECT / "instruments"
BENCH = (INSTRUMENTS / "bench.toml").read_text(encoding="utf-8")
HISEQ = (INSTRUMENTS / "hiseq2500.toml").read_text(encoding="utf-8")


class Lines:
    """Simulated devices behind the addresses of an instrument, in memory."""

    def __init__(self, servers: dict[str, ByteServer]) -> None:
        self.hosts = {address: MemoryHost(server) for address, server in servers.items()}
        self.opened: list[tuple[str, int]] = []

    def __call__(self, address: str, *, baud_rate: int) -> Connect:
        self.opened.append((address, baud_rate))
        return self.hosts[address].connect


def bench_world() -> Lines:
    """What stands behind the addresses of bench.toml; the power meter on a line of its own."""
    world = make_world(
        {
            "vessels": {"wash": {"volume_ul": 50_000}, "waste": {}},
            "selectors": {"inlets": {"ports": {1: "wash"}, "port": 1}},
            "pipes": {"flow_cell": {"volume_ul": 30, "far": "inlets", "reagent": "wash"}},
            "syringes": {"pump": {"barrel_ul": 500, "ports": {"I": "flow_cell", "O": "waste"}, "port": "O"}},
            "plates": {"plate": {}},
            "lasers": {
                "green": {"wavelength_nm": 532, "rated_mw": 100},
                "red": {"wavelength_nm": 638, "rated_mw": 140},
            },
        }
    )
    return Lines(
        {
            "/dev/ttyUSB0": CavroSim("pump", world, syringe="pump"),
            "/dev/ttyUSB1": ViciSim("valve", world, selector="inlets", n_ports=10),
            "/dev/ttyUSB2": MeerstetterSim("plate", world, plates=["plate"], address=2),
            "/dev/ttyUSB3": AsiSim("stage"),
            "/dev/ttyACM0": ObisSim("green", world, head="green"),
            "/dev/ttyACM1": CoboltSim("red", world, head="red"),
            "/dev/ttyACM2": Pm100Sim("meter", world),
        }
    )


def without_camera(text: str) -> str:
    """bench.toml without the camera that Micro-Manager drives, and its power meter on a line instead of VISA."""
    text = re.sub(r"\[micro_manager\].*?(?=\[roles\])", "", text, flags=re.DOTALL).replace('camera = "camera"\n', "")
    text = re.sub(r'resource = "USB0.*"', 'line = "meter"', text)
    return text.replace("[device.pump]", '[line.meter]\naddress = "/dev/ttyACM2"\n[device.pump]')


def hiseq_world() -> Lines:
    world = make_world(
        {
            "vessels": {"wash": {"volume_ul": 50_000}, "waste": {}},
            "selectors": {
                name: {"ports": {1: "wash"}, "port": 1} for name in ("reagents_a", "lanes_a", "reagents_b", "lanes_b")
            },
            "pipes": {
                f"cell_{side}": {"volume_ul": 30, "far": f"reagents_{side}", "reagent": "wash"} for side in ("a", "b")
            },
            "syringes": {
                f"pump_{side}": {"barrel_ul": 2000, "ports": {"I": f"cell_{side}", "O": "waste"}, "port": "O"}
                for side in ("a", "b")
            },
            "plates": {name: {} for name in ("a", "b", "chiller_0", "chiller_1", "chiller_2")},
            "lasers": {
                "green": {"wavelength_nm": 532, "rated_mw": 500},
                "red": {"wavelength_nm": 660, "rated_mw": 500},
            },
        }
    )
    y = VixSim("y")
    fpga = HiseqFpgaSim("fpga", y=y)
    chillers = ["chiller_0", "chiller_1", "chiller_2"]
    kloehn: dict[str, Any] = {"dialect": "kloehn", "full_stroke_steps": 48_000}
    servers: list[ByteServer] = [
        CavroSim("pump_a", world, syringe="pump_a", **kloehn),
        CavroSim("pump_b", world, syringe="pump_b", **kloehn),
        ViciSim("reagents_a", world, selector="reagents_a", n_ports=24, dialect="emt"),
        ViciSim("lanes_a", world, selector="lanes_a", n_ports=10, dialect="emt"),
        ViciSim("reagents_b", world, selector="reagents_b", n_ports=24, dialect="emt"),
        ViciSim("lanes_b", world, selector="lanes_b", n_ports=10, dialect="emt"),
        Arm9ChemSim("board", world, flow_cells=["a", "b"], chillers=chillers, shut_off="lanes_a"),
        MDriveSim("x"),
        y,
        fpga.ports["commands"],
        fpga.ports["answers"],
        SmdLaserSim("green", world, head="green"),
        SmdLaserSim("red", world, head="red"),
    ]
    lines = Lines({f"/dev/ttyUSB{number}": server for number, server in enumerate(servers)})
    commands, answers = lines.hosts["/dev/ttyUSB9"], lines.hosts["/dev/ttyUSB10"]
    commands.siblings.append(answers)
    return lines


def with_zaber_stage(text: str) -> str:
    """An instrument file whose stage and focus axis are Zaber's, which must be homed after power-on."""
    stage = """[device.stage]
driver = "zaber_stage"
line = "stage"
x = { device = 1, axis = 1, microstep_um = 0.15625, limits_um = [0, 100_000] }
y = { device = 1, axis = 2, microstep_um = 0.15625, limits_um = [0, 75_000] }
[device.focus]
driver = "zaber_focus"
line = "stage"
axis = { device = 2, axis = 1, microstep_um = 0.05, limits_um = [0, 20_000] }
"""
    return text[: text.index("[device.stage]")] + stage + text[text.index("[device.obis]") :]
