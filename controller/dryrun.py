"""The dry run: a plan done in virtual time on the simulated instrument, before anything of it is done for real.

Engine, drivers and imager are those of a run; so whatever a recipe asks of a device that it would refuse comes to light
here, and so does how long it all takes. Pictures are small test charts, sharp where the focus is right: tiles are moved
to and exposed, but none is judged by what a chip might show.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.controller.bench import Bench
from cartoseq.controller.engine import EndReason, Engine, State
from cartoseq.controller.imaging import imager_of
from cartoseq.controller.instrument import Instrument, bench_of
from cartoseq.controller.plan import Plan
from cartoseq.controller.recipe import Recipe
from cartoseq.controller.runjournal import RunJournal
from cartoseq.controller.simulatedbench import SimulatedInstrument, simulate_instrument
from cartoseq.controller.simulatedcamera import SimulatedCamera
from cartoseq.drivers.errors import NotInitialized
from cartoseq.simulators.camera import CameraSim
from cartoseq.simulators.clock import run_virtual

#: How long the instrument has been on before the run: lasers are warm.
ON_SINCE_S: Final = 600.0
#: So small that strips which neighbours share are too narrow to be compared.
_CHART_PX: Final = 40
#: The chart's contrast is half so far from the focus.
_DEPTH_UM: Final = 3.0


@dataclass(frozen=True)
class DryRun:
    """How a plan went on the simulated instrument.

    Attributes:
        reason: Why it ended.
        message: More of that, where it did not end well.
        duration_s: From the first action to the end of the last one.
        took_s: How long each action took, by its number; those that were not done are missing.
        commands: How many commands went to the devices.
        digest: SHA-256 of all of them with their times and lines, in hexadecimal.
        events: The journal.
    """

    reason: EndReason
    message: str
    duration_s: float
    took_s: dict[int, float]
    commands: int
    digest: str
    events: tuple[dict[str, Any], ...]

    @property
    def completed(self) -> bool:
        """Whether the recipe was done to its end."""
        return self.reason is EndReason.COMPLETED


def dry_run(plan: Plan, recipe: Recipe, instrument: Instrument, *, seed: int = 0) -> DryRun:
    """Do a plan on the simulated instrument, in virtual time; what it writes is removed again.

    Args:
        plan: What is done.
        recipe: What it was compiled from: its bottles are filled.
        instrument: What is simulated.
        seed: Of all noise.
    """
    with tempfile.TemporaryDirectory(prefix="cartoseq-dry-run-") as folder:
        return run_virtual(_do(plan, recipe, simulate_instrument(instrument, recipe, seed=seed), Path(folder)))


async def _do(plan: Plan, recipe: Recipe, simulated: SimulatedInstrument, folder: Path) -> DryRun:
    loop = asyncio.get_running_loop()
    sent = _Sent(loop.time)
    simulated.heard = sent.note
    drivers = simulated.drivers()
    drivers |= {name: SimulatedCamera(_Chart(camera), name) for name, camera in simulated.cameras.items()}
    bench = bench_of(simulated.instrument, drivers)
    await bench.open()
    await asyncio.sleep(ON_SINCE_S)
    await make_ready(simulated.instrument, bench)
    journal = _Notes(folder / "journal", loop.time)
    engine = Engine(plan, bench, journal, imager=imager_of(simulated.instrument, recipe.chip, bench, folder))
    journal.heard = lambda: _attend(engine)
    await engine.run()
    await bench.close()
    assert engine.reason is not None
    took_s = _times(journal.events)
    duration_s = sum(took_s.values())
    return DryRun(
        engine.reason, engine.message, duration_s, took_s, sent.commands, sent.digest(), tuple(journal.events)
    )


class _Notes(RunJournal):
    """A journal in memory."""

    def note(self, event: str, **facts: object) -> None:
        """Keep one event."""
        entry = {"number": len(self.events) + 1, "time_s": round(self.now_s, 3), "event": event, **facts}
        self.events.append(entry)
        if self.heard is not None:
            self.heard()


class _Sent:
    """The commands that went out: their number, and a digest of all of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.commands = 0
        self._clock = clock
        self._hash = hashlib.sha256()

    def note(self, line: str, data: bytes) -> None:
        """Add one."""
        self.commands += 1
        self._hash.update(f"{self._clock():.6f} {line} {data!r}\n".encode())

    def digest(self) -> str:
        """SHA-256 so far."""
        return self._hash.hexdigest()


class _Chart:
    """A camera in whose place a small test chart lies: as sharp as the focus is right, wherever the stage stands."""

    width_px = height_px = _CHART_PX

    def __init__(self, camera: CameraSim) -> None:
        self.bit_depth = camera.bit_depth
        self._camera = camera
        stripes = np.sin(np.arange(_CHART_PX) * (2 * np.pi / 8))
        self._chart: NDArray[np.float64] = np.add.outer(stripes, stripes) / 2

    def expose(self, now_s: float, exposure_s: float) -> float:
        """Begin a picture; return when it is there."""
        return now_s + exposure_s + self._camera.readout_s

    def read(self, now_s: float, exposure_s: float) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The picture: grey values, shape (height, width)."""
        seen = self._camera.sight(now_s)
        away_um = seen.z_um - self._camera.scene.sharp_at_um(seen.x_um, seen.y_um)
        middle = float(1 << (self.bit_depth - 2))
        grey = middle + middle / 2 / (1 + (away_um / _DEPTH_UM) ** 2) * self._chart
        return grey.astype(np.uint8) if self.bit_depth <= 8 else grey.astype(np.uint16)


async def make_ready(instrument: Instrument, bench: Bench) -> None:
    """Do what an operator does before a run: home what must be homed after power-on, and go to where the chip lies.

    Args:
        instrument: Tells where the chip lies.
        bench: Its devices, opened; simulated ones, since nobody looks whether something is in their way.

    Raises:
        DeviceError: a device fails.
    """
    if (imaging := instrument.imaging) is None or bench.stage is None:
        return
    if (focus := bench.focus) is not None and hasattr(focus, "home"):
        try:
            await focus.move_to_um(await focus.position_um())
        except NotInitialized:
            await focus.home()
    try:
        await bench.stage.move_to(imaging.chip_x_um, imaging.chip_y_um)
    except NotInitialized:
        await bench.stage.home()
        await bench.stage.move_to(imaging.chip_x_um, imaging.chip_y_um)


def _attend(engine: Engine) -> None:
    """Be the operator: go on where the recipe asks to, and end the run where a fault holds it."""
    loop = asyncio.get_running_loop()
    last = engine.journal.events[-1]
    if last["event"] == "fault":
        loop.call_soon(engine.stop)
    elif last["event"] == "state" and last["state"] == State.PAUSED.value:
        loop.call_soon(engine.resume)


def _times(events: list[dict[str, Any]]) -> dict[int, float]:
    """How long each action took, by its number."""
    begun = {event["step"]: event["time_s"] for event in events if event["event"] == "step"}
    return {event["step"]: event["time_s"] - begun[event["step"]] for event in events if event["event"] == "done"}
