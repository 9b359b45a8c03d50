"""A rig: fluid, heat, light and motion, simulated devices on them, and the drivers that talk to those by bytes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from cartoseq.controller.bench import Bench
from cartoseq.controller.engine import Engine
from cartoseq.controller.imaging import Optics, ScanImager
from cartoseq.controller.ledger import Ledger
from cartoseq.controller.plan import Facts, Plan
from cartoseq.controller.recipe import Recipe
from cartoseq.controller.runjournal import RunJournal, read_journal
from cartoseq.controller.timing import Estimates
from cartoseq.drivers.asi import AsiFocus
from cartoseq.drivers.capabilities import Fault, Frame, Identity, Range, Region, XYLimits, XYStage
from cartoseq.drivers.cavro import CavroPump
from cartoseq.drivers.cobolt import CoboltLaser
from cartoseq.drivers.errors import DeviceFault
from cartoseq.drivers.meerstetter import MeerstetterTec
from cartoseq.drivers.obis import ObisLaser
from cartoseq.drivers.prior import PriorStage
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.vici import ViciValve
from cartoseq.drivers.zaber import ZaberAxis, ZaberStage
from cartoseq.simulators.devices.asi import AsiSim
from cartoseq.simulators.devices.cavro import CavroSim
from cartoseq.simulators.devices.cobolt import CoboltSim
from cartoseq.simulators.devices.meerstetter import MeerstetterSim
from cartoseq.simulators.devices.obis import ObisSim
from cartoseq.simulators.devices.prior import PriorSim
from cartoseq.simulators.devices.vici import ViciSim
from cartoseq.simulators.devices.zaber import ZaberSim
from cartoseq.simulators.faults import FaultyLine
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.world import World, make_world

BARREL_UL = 500.0
WIDTH_PX, HEIGHT_PX, BIT_DEPTH = 64, 48, 12
SHARP_UM = 3.0
FACTS = Facts(
    barrel_ul=BARREL_UL,
    flow_ul_per_s=Range(1, 150),
    ports=10,
    temperature_c=Range(4, 80),
    estimates=Estimates(ramp_c_per_s=0.35),
    lights_mw={"green": Range(1, 100), "red": Range(1, 100)},
    travel=XYLimits(Range(0, 50_000), Range(0, 50_000)),
    chip_um=(10_000, 10_000),
    has_focus=True,
    tile_um=(WIDTH_PX, HEIGHT_PX),
    tile_bytes=2 * WIDTH_PX * HEIGHT_PX,
)

StageKind = Literal["zaber", "prior"]
_BAUDS = {"valve": 9600, "pump": 9600, "tec": 57600, "green": 115200, "red": 115200, "stage": 115200, "focus": 115200}


class Eye:
    """A camera that sees the light that there is, sharp at one height. It fails as a driver of one does, when told."""

    width_px, height_px, bit_depth = WIDTH_PX, HEIGHT_PX, BIT_DEPTH

    def __init__(self, name: str, light_mw: Callable[[], float], height_um: Callable[[], float]) -> None:
        self.name = name
        #: What the next pictures do, one each: "dropped", "late", "very late", "saturated".
        self.upsets: list[str] = []
        self._light_mw, self._height_um = light_mw, height_um
        self._exposure_ms = 10.0
        self._number = 0

    async def open(self) -> Identity:
        return Identity("nobody", "eye")

    async def close(self) -> None:
        pass

    async def make_safe(self) -> None:
        pass

    async def read_faults(self) -> list[Fault]:
        return []

    async def clear_faults(self) -> None:
        pass

    async def configure(
        self,
        exposure_ms: float,
        region: Region | None = None,
        trigger: Literal["software", "external"] = "software",
    ) -> None:
        self._exposure_ms = exposure_ms

    async def snap(self) -> Frame:
        begin_s = asyncio.get_running_loop().time()
        upset = self.upsets.pop(0) if self.upsets else ""
        await asyncio.sleep(self._exposure_ms / 1e3 + {"late": 1.0, "very late": 5.0}.get(upset, 0.0))
        self._number += 1
        if upset == "dropped":
            raise DeviceFault(self.name, "lost", "expected picture 0 of 1, found 1: one was lost")
        if upset == "very late":
            raise DeviceFault(self.name, "no picture", "no picture within 5 s")
        contrast = math.exp(-(((self._height_um() - SHARP_UM) / 10) ** 2))
        fine = np.random.default_rng(1).uniform(-20, 20, (HEIGHT_PX, WIDTH_PX)) * contrast
        grey = (50 + np.linspace(-20, 20, WIDTH_PX) + fine) * min(20.0, self._light_mw())
        if upset == "saturated":
            grey[:] = 1 << BIT_DEPTH
        pixels = np.clip(grey, 0, (1 << BIT_DEPTH) - 1).astype(np.uint16)
        return Frame(pixels, self._exposure_ms, begin_s, self._number)

    async def stream(self, count: int) -> AsyncIterator[Frame]:
        for _ in range(count):
            yield await self.snap()


class Rig:
    """A bench of simulated devices behind byte servers, and the drivers that talk to them.

    Args:
        path: Folder of the journal and the pictures.
        recipe: What will be run.
        plan: The same on `FACTS`.
        stage: Whose imaging stage it has, with a focus axis and a camera; none for a rig without.
        warm_up_s: Of the lasers.
    """

    def __init__(
        self, path: Path, recipe: Recipe, plan: Plan, *, stage: StageKind | None = None, warm_up_s: float | None = None
    ) -> None:
        self.path, self.plan, self.stage = path / "journal.jsonl", plan, stage
        ports = {bottle.port: name for name, bottle in recipe.reagents.items()}
        self.world: World = make_world(
            {
                "vessels": {
                    **{name: {"volume_ul": bottle.loaded_ul} for name, bottle in recipe.reagents.items()},
                    **{f"empty_{port}": {"volume_ul": 1} for port in range(1, 11) if port not in ports},
                    "waste": {},
                },
                "selectors": {"inlets": {"ports": {port: ports.get(port, f"empty_{port}") for port in range(1, 11)}}},
                "pipes": {"flow_cell": {"volume_ul": 80, "far": "inlets", "reagent": next(iter(recipe.reagents))}},
                "syringes": {"pump": {"barrel_ul": BARREL_UL, "ports": {"I": "flow_cell", "O": "waste"}, "port": "O"}},
                "plates": {"flow_cell_plate": {}},
                "lasers": {
                    "green": {"wavelength_nm": 532, "rated_mw": 150, "rise_s": 0},
                    "red": {"wavelength_nm": 640, "rated_mw": 150, "rise_s": 0},
                },
            }
        )
        world = self.world
        warm_up = {} if warm_up_s is None else {"warm_up_s": warm_up_s}
        self.sims: dict[str, Any] = {
            "pump": CavroSim("pump", world, syringe="pump"),
            "valve": ViciSim("valve", world, selector="inlets", n_ports=10),
            "tec": MeerstetterSim("tec", world, plates=["flow_cell_plate"], address=2),
            "green": ObisSim("green", world, head="green", **warm_up),
            "red": CoboltSim("red", world, head="red", **warm_up),
        }
        if stage is not None:
            self.sims["stage"] = PriorSim("stage") if stage == "prior" else ZaberSim("stage", alerts=True)
            self.sims["focus"] = AsiSim("focus")
        self.lines = {name: FaultyLine(sim) for name, sim in self.sims.items()}
        self.hosts = {name: MemoryHost(self.lines[name], baud_rate=_BAUDS[name]) for name in self.sims}
        self.eye = Eye("camera", self._red_mw, self._height_um)
        self.bench = self.drivers()

    def _red_mw(self) -> float:
        return self.world.optics.heads["red"].power_mw(self.now_s)

    def _height_um(self) -> float:
        return float(self.sims["focus"].inspect(self.now_s)["z_position_um"])

    def drivers(self) -> Bench:
        def line(name: str, silence_s: float = 0.05) -> Transport:
            return Transport(name, self.hosts[name].connect, silence_s=silence_s)

        bench = Bench(
            pump=CavroPump(line("pump"), "pump", barrel_ul=BARREL_UL),
            valve=ViciValve(line("valve"), "valve", n_ports=10),
            temperature=MeerstetterTec(line("tec"), "tec", low_c=4, high_c=80),
            lasers={
                "green": ObisLaser(line("green"), "green", wavelength_nm=532, max_power_mw=100),
                "red": CoboltLaser(line("red"), "red", wavelength_nm=640, max_power_mw=100),
            },
        )
        if self.stage is not None:
            bench.stage = self._stage_driver(line("stage"))
            bench.focus = AsiFocus(line("focus"), "focus", limits_um=Range(-5_000, 5_000))
            bench.camera = self.eye
        return bench

    def _stage_driver(self, line: Transport) -> XYStage:
        if self.stage == "prior":
            limits = XYLimits(Range(0, 50_000), Range(0, 50_000))
            speeds = {"full_speed_mm_per_s": 20.0, "full_acceleration_mm_per_s2": 100.0}
            return PriorStage(line, "stage", limits=limits, **speeds)
        x, y = (ZaberAxis(1, number, 0.15625, Range(0, 50_000)) for number in (1, 2))
        return ZaberStage(line, "stage", x=x, y=y)

    async def open(self) -> None:
        """Open every driver; a stage that needs it is homed."""
        await self.bench.open()
        if isinstance(self.bench.stage, ZaberStage):
            await self.bench.stage.home()

    def engine(self, **options: Any) -> Engine:
        journal = RunJournal(self.path, lambda: self.now_s)
        bench = self.bench
        if bench.stage is not None:
            optics = Optics(1.0, WIDTH_PX, HEIGHT_PX, BIT_DEPTH, FACTS.chip_um)
            options["imager"] = ScanImager(bench.stage, bench.focus, self.eye, bench.lasers, optics, self.path.parent)
        return Engine(self.plan, bench, journal, **options)

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def true(self) -> dict[str, Any]:
        """What is true of fluid, heat and light."""
        return self.world.inspect(self.now_s)

    def unsafe(self) -> list[str]:
        """The devices that are not in their safe state, by the world and the simulators, whatever the drivers say."""
        true = self.true()
        found = [name for name in self.world.optics.heads if true[f"{name}.emitting"]]
        if self.world.fluidics.syringes["pump"].stroke is not None:
            found.append("pump")
        if true["flow_cell_plate.regulated"] or true["flow_cell_plate.current_a"]:
            found.append("tec")
        for name in ("stage", "focus"):
            if name in self.sims:
                seen = self.sims[name].inspect(self.now_s)
                found += [name] if any(seen[key] for key in seen if key.endswith("_moving")) else []
        return sorted(found)

    def ledger_errors_ul(self, recipe: Recipe, pushed_to: str = "") -> dict[str, float]:
        """How far the ledger is off from what stands in the bottles and in the waste.

        Args:
            recipe: What was run.
            pushed_to: The reagent in whose bottle what was pushed back ended.
        """
        ledger, true = Ledger.of(read_journal(self.path)), self.true()
        errors = {"waste": ledger.waste_ul - float(true["waste.volume_ul"])}
        for name, bottle in recipe.reagents.items():
            taken_ul = bottle.loaded_ul - float(true[f"{name}.volume_ul"])
            pushed_ul = ledger.pushed_back_ul if name == pushed_to else 0.0
            errors[name] = ledger.drawn_ul.get(name, 0.0) - pushed_ul - taken_ul
        return errors

    def hold_true(self, recipe: Recipe, pushed_to: str = "") -> None:
        """The ledger is true to the fluids within a microlitre, and everything is safe."""
        errors_ul = self.ledger_errors_ul(recipe, pushed_to)
        assert errors_ul == pytest.approx(dict.fromkeys(errors_ul, 0.0), abs=1.0)
        assert self.unsafe() == []
