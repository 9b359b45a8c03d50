"""The imaging stage on the drivers of stage, focus and lasers, that talk to simulated devices; the camera sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cartoseq.controller.engine import EndReason, Engine
from cartoseq.controller.imaging import imager_of
from cartoseq.controller.instrument import Instrument, facts_of, parse_instrument
from cartoseq.controller.plan import compile_recipe
from cartoseq.controller.recipe import parse_recipe
from cartoseq.controller.runjournal import RunJournal, read_journal
from cartoseq.controller.simulatedbench import SimulatedInstrument, simulate_instrument
from cartoseq.drivers.errors import DeviceFault
from cartoseq.simulators.clock import run_virtual

PROJECT = Path(__file__).parents[2]
#: The recipe as it is, on a small chip, so that there are few tiles.
TISSUE = (PROJECT / "recipes" / "tissue-imaging.toml").read_text().replace("4_000", "700").replace("3_000", "600")


def microscope() -> Instrument:
    """The bench, with a camera of fewer pixels."""
    text = (PROJECT / "instruments" / "bench.toml").read_text()
    for old, new in (
        ("0.325 ", "0.65 "),
        ("width_px = 2_048", "width_px = 400"),
        ("height_px = 2_048", "height_px = 320"),
    ):
        assert old in text
        text = text.replace(old, new)
    return parse_instrument(text)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def scan(
    folder: Path, upset: Callable[[SimulatedInstrument], None] = lambda _simulated: None, text: str = TISSUE
) -> tuple[EndReason, dict[str, Any], list[dict[str, Any]]]:
    """Run the recipe, something going wrong; return how it ended, what was found of the tiles, and the journal."""
    instrument = microscope()
    recipe = parse_recipe(text)
    plan = compile_recipe(recipe, facts_of(instrument, 1 << 40), text)

    async def main() -> EndReason:
        simulated = simulate_instrument(instrument, recipe)
        bench = simulated.bench()
        await bench.open()
        upset(simulated)
        imager = imager_of(instrument, recipe.chip, bench, folder)
        engine = Engine(plan, bench, RunJournal(folder / "journal", now_s), imager=imager)
        running = asyncio.create_task(engine.run())
        while not running.done():
            await asyncio.sleep(1.0)
            engine.resume()
        await bench.close()
        return running.result()

    reason = run_virtual(main())
    return reason, json.loads((folder / "tissue" / "tiles.json").read_text()), read_journal(folder / "journal")


def at_picture(simulated: SimulatedInstrument, number: int, do: Callable[[], None]) -> None:
    """Do something as a picture is begun; the sweeps for the focus take the first ones."""

    def notice(_now_s: float, taken: int) -> None:
        if taken == number:
            do()

    simulated.cameras["camera"].watchers.append(notice)


#: The sweeps of the recipe's nine points take 14 pictures each; the upset comes at the eighth tile.
EIGHTH_TILE = 9 * 14 + 7


def test_the_focus_is_found_and_all_tiles_are_good(tmp_path: Path) -> None:
    reason, summary, events = scan(tmp_path)
    assert reason is EndReason.COMPLETED
    assert (summary["tiles"], summary["taken_again"], summary["bad"]) == (12, 0, [])
    assert summary["worst_deviation_um"] < 2.0
    focused = next(event for event in events if event["event"] == "focused")
    assert focused["points"] >= 8
    # The chip is tilted, and sharp 7 um above where the focus axis stands at first.
    a, b, c = focused["surface"]
    assert (b, c) == pytest.approx((0.0012, -0.0008), abs=0.002)
    assert a + b * 20_000 + c * 15_000 == pytest.approx(7.0, abs=1.0)


def test_a_displaced_stage_is_noticed_and_the_tile_taken_again(tmp_path: Path) -> None:
    def upset(simulated: SimulatedInstrument) -> None:
        at_picture(
            simulated, EIGHTH_TILE, lambda: simulated.devices["stage"].inject("jump", now_s(), axis="X", by_um=8)
        )

    reason, summary, _ = scan(tmp_path, upset)
    assert reason is EndReason.COMPLETED
    assert summary["bad"] == []
    assert [report["takes"] for report in summary["reports"]].index(2) == 7


def test_a_displaced_focus_is_noticed_and_the_tile_taken_again(tmp_path: Path) -> None:
    def upset(simulated: SimulatedInstrument) -> None:
        at_picture(
            simulated, EIGHTH_TILE, lambda: simulated.devices["focus"].inject("jump", now_s(), axis="Z", by_um=25)
        )

    reason, summary, _ = scan(tmp_path, upset)
    assert reason is EndReason.COMPLETED
    assert summary["bad"] == []
    assert [report["takes"] for report in summary["reports"]].index(2) == 7


def test_an_overexposed_tile_is_taken_again(tmp_path: Path) -> None:
    def upset(simulated: SimulatedInstrument) -> None:
        camera = simulated.cameras["camera"]
        at_picture(simulated, EIGHTH_TILE, lambda: camera.inject("saturated_frame", now_s()))

    _, summary, _ = scan(tmp_path, upset)
    assert summary["bad"] == []
    assert [report["takes"] for report in summary["reports"]].index(2) == 7


def test_a_late_frame_is_awaited_and_a_lost_one_is_a_fault_after_which_the_tiles_are_taken_anew(tmp_path: Path) -> None:
    def upset(simulated: SimulatedInstrument) -> None:
        camera = simulated.cameras["camera"]
        at_picture(simulated, EIGHTH_TILE, lambda: camera.inject("late_frame", now_s(), seconds=3.0))
        at_picture(simulated, EIGHTH_TILE + 1, lambda: camera.inject("dropped_frame", now_s()))

    text = TISSUE.replace('do = "image_tiles"', 'do = "image_tiles"\non_fault = "pause"')
    reason, summary, events = scan(tmp_path, upset, text)
    faults = [event for event in events if event["event"] == "fault"]
    assert [(fault["device"], fault["kind"]) for fault in faults] == [("camera", DeviceFault.__name__)]
    assert reason is EndReason.COMPLETED
    assert (summary["tiles"], summary["bad"]) == (12, [])


def test_lasers_light_the_pictures(tmp_path: Path) -> None:
    instrument = microscope()

    async def main() -> None:
        simulated = simulate_instrument(instrument)
        bench = simulated.bench()
        await bench.open()
        assert bench.camera is not None
        assert bench.stage is not None
        await bench.stage.move_to(20_500, 15_500)
        await bench.camera.configure(50)
        dark = (await bench.camera.snap()).pixels
        await bench.lasers["green"].set_power_mw(20)
        await bench.lasers["green"].set_emission(True)
        lit = (await bench.camera.snap()).pixels
        simulated.world.optics.move_doors(closed=False)
        shut = (await bench.camera.snap()).pixels
        assert float(np.std(lit)) > 20 * float(np.std(dark))
        assert float(np.std(shut)) < 2 * float(np.std(dark))
        await bench.make_safe()
        await bench.close()

    run_virtual(main())
