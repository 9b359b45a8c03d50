"""One run of a short recipe with one fault in it, and what was seen of it: by the journal, and by the world itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cartoseq.controller.engine import Engine, State, Suspender
from cartoseq.controller.plan import compile_recipe
from cartoseq.controller.recipe import parse_recipe
from cartoseq.controller.runjournal import read_journal
from cartoseq.controller.suspenders import circuits_closed, devices_well, temperature_in_band
from cartoseq.drivers.errors import DeviceError
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.faults import with_probability

from .faultmatrix import Row
from .rig import FACTS, Rig

TEXT = """\
name = "one of each"
[reagents]
mix = { port = 2, loaded_ul = 1000, role = "incorporation" }
wash = { port = 5, loaded_ul = 1000, role = "wash" }
[[step]]
do = "laser"
device = "green"
on = true
power_mw = 20
tries = 2
on_fault = "pause"
[[step]]
do = "set_temperature"
temperature_c = 30
verify = true
tries = 2
on_fault = "pause"
[[step]]
do = "flow"
reagent = "mix"
volume_ul = 100
flow_ul_per_s = 20
to_waste = false
tries = 2
on_fault = "pause"
[[step]]
do = "autofocus"
channel = { name = "nuclei", light = "red", power_mw = 10, exposure_ms = 20 }
area = { x_um = 0, y_um = 0, width_um = 100, height_um = 40 }
points = 1
sweep_um = 40
tries = 2
on_fault = "pause"
[[step]]
do = "image_tiles"
channels = [{ name = "nuclei", light = "red", power_mw = 10, exposure_ms = 20 }]
area = { x_um = 0, y_um = 0, width_um = 100, height_um = 40 }
tries = 2
on_fault = "pause"
[[step]]
do = "push_back"
volume_ul = 30
flow_ul_per_s = 20
on_fault = "pause"
[[step]]
do = "empty"
on_fault = "pause"
[[step]]
do = "flow"
reagent = "wash"
volume_ul = 60
flow_ul_per_s = 40
tries = 2
on_fault = "pause"
"""
RECIPE = parse_recipe(TEXT)
PLAN = compile_recipe(RECIPE, FACTS, TEXT)
#: An operator who is asked again so often gives up.
MOST_ORDERS = 8
_LOOK_S = 20.0


@dataclass(frozen=True)
class Seen:
    """What came of a run.

    Attributes:
        kinds: The driver's exceptions, as the journal names them, in order.
        holds: Who held the run, each time that it was held: "fault", or the name of what was watched.
        reason: How it ended; empty where it did not begin.
        why: What was said of that.
        alight_in_hold: Lasers that emitted, and devices that moved, while it was held.
        unsafe: The devices that were not safe at the end, by the world.
        told: The devices that the journal names as not known to be safe.
        ledger_ul: How far the ledger was off, the worst of bottles and waste.
        open_ul: What the journal says that it could not account for.
        took_s: How long it took.
        bad_tiles: What the journal says of tiles.
    """

    kinds: tuple[str, ...]
    holds: tuple[str, ...]
    reason: str
    why: str
    alight_in_hold: tuple[str, ...]
    unsafe: tuple[str, ...]
    told: tuple[str, ...]
    ledger_ul: float
    open_ul: float
    took_s: float
    bad_tiles: tuple[str, ...]


def run_with(row: Row, folder: Path) -> Seen:
    """Run the recipe with a row's fault."""
    return run_virtual(_run(row, folder))


async def _run(row: Row, folder: Path) -> Seen:
    rig = Rig(folder, RECIPE, PLAN, stage=row.stage, warm_up_s=0.5)
    if row.during == "opening":
        _inject(rig, row)
    try:
        await rig.open()
    except DeviceError as error:
        return _seen(rig, (type(error).__name__,), (), (), "", str(error))
    engine = rig.engine()
    if row.watched:
        engine.suspenders = watches(engine)
    _lie_in_wait(rig, engine, row)
    running = asyncio.create_task(engine.run())
    holds: list[str] = []
    orders = 0
    alight: list[str] = []
    while not running.done():
        await asyncio.wait([running], timeout=1.0)
        if engine.state is State.PAUSED and not running.done():
            holds += engine.status.holds
            await asyncio.wait([running], timeout=_LOOK_S)
            if engine.state is State.PAUSED and not running.done():
                alight += [name for name in rig.unsafe() if name != "tec"]
                orders += 1
                _operate(rig, engine, row, orders)
    reason = running.result()
    await asyncio.sleep(_LOOK_S)  # what nobody watches comes to rest by itself
    seen = _seen(rig, (), tuple(holds), tuple(alight), reason.value, engine.message)
    await rig.bench.close()
    return seen


def _seen(
    rig: Rig, kinds: tuple[str, ...], holds: tuple[str, ...], alight: tuple[str, ...], reason: str, why: str
) -> Seen:
    events = read_journal(rig.path) if rig.path.exists() else []

    def of(kind: str) -> list[dict[str, Any]]:
        return [event for event in events if event["event"] == kind]

    errors_ul = rig.ledger_errors_ul(RECIPE, "mix") if events else {"": 0.0}
    return Seen(
        kinds or tuple(event["kind"] for event in of("fault")),
        holds,
        reason,
        why,
        alight,
        tuple(rig.unsafe()),
        tuple(sorted(name for event in of("safe") for name in event["failures"])),
        max(map(abs, errors_ul.values())),
        sum(event["volume_ul"] for event in of("not accounted for")),
        rig.now_s,
        tuple(bad for event in of("imaged") for bad in event["bad"]),
    )


def watches(engine: Engine) -> tuple[Suspender, ...]:
    """What is watched while a run goes on."""
    bench = engine.bench
    assert bench.temperature is not None
    return (
        temperature_in_band(bench.temperature, lambda: engine.target_c),
        circuits_closed(bench.lasers),
        devices_well(list(bench.devices())),
    )


def _lie_in_wait(rig: Rig, engine: Engine, row: Row) -> None:
    """Let the fault happen when the action has begun."""
    loop = asyncio.get_running_loop()
    waiting = row.during != "opening"

    def hear() -> None:
        nonlocal waiting
        event = engine.journal.events[-1]
        if waiting and event["event"] == "step" and event["action"].startswith(row.during):
            waiting = False
            if row.after_s:
                loop.call_later(row.after_s, _inject, rig, row)
            else:
                _inject(rig, row)

    engine.journal.heard = hear


def _inject(rig: Rig, row: Row) -> None:
    now_s, values = rig.now_s, dict(row.values)
    if row.device == "camera":
        rig.eye.upsets += [row.inject] * int(values.get("pictures", 1))
        return
    if row.device == "doors":
        rig.world.advance(now_s)
        rig.world.optics.move_doors(closed=False)
        return
    if row.inject == "none":
        return
    line = rig.lines[row.device]
    if row.inject == "pulled":
        line.inject("refuse", now_s)
        line.inject("disconnect", now_s)
    elif row.inject == "noise":
        rig.sims[row.device].receive(b"x" * 300, now_s)
    elif row.lasts:
        line.schedule([with_probability(1.0, 0, row.inject, **values)], now_s)
    elif row.of_line:
        line.inject(row.inject, now_s, **values)
    else:
        rig.sims[row.device].inject(row.inject, now_s, **values)
    rig.hosts[row.device].look()


def _mend(rig: Rig, row: Row) -> None:
    """Take the cause away; what it did stays."""
    now_s = rig.now_s
    rig.eye.upsets.clear()
    rig.world.advance(now_s)
    rig.world.optics.move_doors(closed=True)
    if row.device in rig.sims:
        rig.lines[row.device].clear(now_s)
        rig.sims[row.device].clear(now_s)
        rig.hosts[row.device].look()


def _operate(rig: Rig, engine: Engine, row: Row, orders: int) -> None:
    """What the operator does in a hold."""
    if not row.mended or orders > MOST_ORDERS:
        engine.abort()
        return
    _mend(rig, row)
    engine.resume()
