"""The engine on devices that are nothing but their capabilities, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cartoseq.controller.bench import Bench
from cartoseq.controller.engine import EndReason, Engine, State, Suspender
from cartoseq.controller.ledger import Ledger
from cartoseq.controller.plan import Facts, Plan, compile_recipe
from cartoseq.controller.recipe import parse_recipe
from cartoseq.controller.runjournal import RunJournal, read_journal
from cartoseq.drivers.capabilities import Fault, Identity, Range
from cartoseq.drivers.errors import (
    DeviceError,
    DeviceFault,
    Disconnected,
    InterlockOpen,
    NotInitialized,
    ReplyTimeout,
    StallError,
    Stopped,
)
from cartoseq.simulators.clock import run_virtual
from cartoseq.streaming.errors import CorruptionError, InputError


class Plain:
    """What all of them share: made safe as often as asked, and failing when told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.safe = 0
        self.fail: DeviceError | None = None
        self.fails = 0
        self.calls: list[str] = []
        self.cleared = 0
        self.keeps: list[Fault] = []
        #: Whether its line is gone, and whether it stays so or another device answers when it is opened anew.
        self.lost = self.stays_lost = self.is_another = False

    def note(self, call: str) -> None:
        self.hold_line()
        self.calls.append(call)
        if self.fail is not None and self.fails != 0:
            self.fails -= 1
            raise self.fail

    def hold_line(self) -> None:
        if self.lost:
            raise Disconnected(self.name, "the line is gone")

    async def open(self) -> Identity:
        if self.stays_lost:
            raise Disconnected(self.name, "cannot be opened")
        if self.is_another:
            raise InputError(self.name, "expected an oven, found a kettle")
        self.lost = False
        return Identity("nobody", self.name)

    async def close(self) -> None:
        pass

    async def make_safe(self) -> None:
        self.hold_line()
        self.safe += 1

    async def read_faults(self) -> list[Fault]:
        return self.keeps

    async def clear_faults(self) -> None:
        self.cleared += 1
        self.keeps = []


class Pump(Plain):
    barrel_ul = 500.0
    flow_ul_per_s = Range(0.5, 100.0)

    def __init__(self) -> None:
        super().__init__("pump")
        self.at_ul = 0.0
        self.initialized = False
        self.through_ul = 0.0
        self.wasted_ul = 0.0
        self.stall_after_ul: float | None = None
        self._move: tuple[float, float, float, float] | None = None
        self._port = ""
        self._stopped = False

    def _now(self) -> float:
        """The plunger goes on, whoever listens; what it moves is counted as it moves."""
        if self._move is not None:
            begin_s, begin_ul, speed, end_ul = self._move
            moved = speed * (asyncio.get_running_loop().time() - begin_s)
            before_ul = self.at_ul
            self.at_ul = min(end_ul, begin_ul + moved) if speed > 0 else max(end_ul, begin_ul + moved)
            if speed > 0:
                self.through_ul += self.at_ul - before_ul
            elif self._port == "output":
                self.wasted_ul += before_ul - self.at_ul
        return self.at_ul

    async def initialize(self) -> None:
        self.note("initialize")
        self.wasted_ul += self._now()
        self._move, self.at_ul, self.initialized = None, 0.0, True

    async def plunger_ul(self) -> float:
        self.hold_line()
        return self._now()

    async def _stroke(self, volume_ul: float, port: str, flow_ul_per_s: float) -> None:
        if not self.initialized:
            raise NotInitialized(self.name, 7, "not initialised")
        self._stopped = False
        end_ul = self.at_ul + volume_ul
        if self.stall_after_ul is not None:
            end_ul = self.at_ul + self.stall_after_ul * (1 if volume_ul > 0 else -1)
        speed = flow_ul_per_s if volume_ul > 0 else -flow_ul_per_s
        self._port = port
        self._move = (asyncio.get_running_loop().time(), self.at_ul, speed, end_ul)
        await asyncio.sleep(abs(end_ul - self.at_ul) / flow_ul_per_s)
        self.hold_line()
        if self._stopped:
            raise Stopped(self.name, "stopped")
        self._now()
        self._move = None
        if self.stall_after_ul is not None:
            self.stall_after_ul, self.initialized = None, False
            raise StallError(self.name, 9, "plunger overload")

    async def aspirate(self, volume_ul: float, port: str, flow_ul_per_s: float) -> None:
        self.note(f"aspirate {volume_ul:g} {port}")
        await self._stroke(volume_ul, port, flow_ul_per_s)

    async def dispense(self, volume_ul: float, port: str, flow_ul_per_s: float) -> None:
        self.note(f"dispense {volume_ul:g} {port}")
        await self._stroke(-volume_ul, port, flow_ul_per_s)

    async def stop(self) -> None:
        self.hold_line()
        self._now()
        if self._move is not None:
            self._move, self.initialized, self._stopped = None, False, True

    async def make_safe(self) -> None:
        await super().make_safe()
        await self.stop()


class Valve(Plain):
    n_ports = 10

    def __init__(self) -> None:
        super().__init__("valve")
        self.at = 1

    async def port(self) -> int:
        return self.at

    async def select(self, port: int) -> None:
        self.note(f"select {port}")
        await asyncio.sleep(0.3)
        self.at = port


class Oven(Plain):
    limits_c = Range(4, 80)

    def __init__(self) -> None:
        super().__init__("oven")
        self.target = 22.0

    async def set_target_c(self, temperature_c: float) -> None:
        self.note(f"set {temperature_c:g}")
        self.target = temperature_c

    async def target_c(self) -> float:
        return self.target

    async def temperature_c(self) -> float:
        return self.target

    async def is_stable(self) -> bool:
        return True

    async def wait_stable(self, tolerance_c: float, dwell_s: float, timeout_s: float) -> None:
        self.note("wait")
        await asyncio.sleep(30 + dwell_s)

    async def disable(self) -> None:
        self.note("off")


class Light(Plain):
    wavelength_nm = 532.0
    power_limits_mw = Range(1, 100)

    def __init__(self) -> None:
        super().__init__("green")
        self.on = self.stays_lit = False

    async def set_power_mw(self, power_mw: float) -> None:
        self.note(f"power {power_mw:g}")

    async def power_mw(self) -> float:
        return 0.0

    async def set_emission(self, on: bool) -> None:
        self.note("on" if on else "off")
        self.on = on

    async def is_emitting(self) -> bool:
        return self.on

    async def interlock_ok(self) -> bool:
        return True

    async def make_safe(self) -> None:
        await super().make_safe()
        if self.stays_lit:
            self.stays_lit = False
            raise DeviceFault(self.name, "emission", "there is light after it was switched off")
        self.on = False


RECIPE = """\
name = "short"
[reagents]
mix = { port = 2, loaded_ul = 5000 }
wash = { port = 3, loaded_ul = 5000 }
[[step]]
do = "laser"
device = "green"
on = true
power_mw = 5
[[step]]
do = "set_temperature"
temperature_c = 60
verify = true
[[step]]
do = "flow"
reagent = "mix"
volume_ul = 200
flow_ul_per_s = 10
[[step]]
do = "incubate"
duration_s = 60
most_s = 90
[[step]]
do = "checkpoint"
label = "middle"
[[step]]
do = "flow"
reagent = "wash"
volume_ul = 300
flow_ul_per_s = 30
"""
FACTS = Facts(
    barrel_ul=500,
    flow_ul_per_s=Range(0.5, 100),
    ports=10,
    temperature_c=Range(4, 80),
    lights_mw={"green": Range(1, 100)},
)


def plan_of(text: str) -> Plan:
    return compile_recipe(parse_recipe(text), FACTS, text)


class Rig:
    """A plan on plain devices."""

    def __init__(self, path: Path, text: str = RECIPE, **options: Any) -> None:
        self.pump, self.valve, self.oven, self.light = Pump(), Valve(), Oven(), Light()
        self.path = path / "journal.jsonl"
        self.bench = Bench(pump=self.pump, valve=self.valve, temperature=self.oven, lasers={"green": self.light})
        self.plan = plan_of(text)
        self.options = options
        self.engine = self.again()

    def again(self) -> Engine:
        journal = RunJournal(self.path, lambda: asyncio.get_running_loop().time())
        return Engine(self.plan, self.bench, journal, **self.options)

    @property
    def devices(self) -> list[Plain]:
        return [self.pump, self.valve, self.oven, self.light]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read_journal(self.path) if event["event"] == kind]


def ends(
    tmp_path: Path, use: Callable[[Rig, asyncio.Task[EndReason]], Coroutine[Any, Any, None]] | None = None, **rig: Any
) -> tuple[Rig, EndReason]:
    async def main() -> tuple[Rig, EndReason]:
        found = Rig(tmp_path, **rig)
        running = asyncio.create_task(found.engine.run())
        if use is not None:
            await use(found, running)
        return found, await running

    found, reason = run_virtual(main())
    assert found.engine.state is State.ENDED
    assert all(device.safe for device in found.devices), "every device was made safe"
    assert not found.light.on
    ledger, pump = Ledger.of(read_journal(found.path)), found.pump
    assert sum(ledger.drawn_ul.values()) == pytest.approx(pump.through_ul, abs=1)
    assert ledger.waste_ul == pytest.approx(pump.wasted_ul, abs=1)
    assert found.events("ended")[-1]["reason"] == reason.value
    return found, reason


def test_a_run_does_its_plan_and_ends_safe(tmp_path: Path) -> None:
    rig, reason = ends(tmp_path)
    assert reason is EndReason.COMPLETED
    assert rig.pump.calls == [
        "initialize",
        "aspirate 200 input",
        "dispense 200 output",
        "aspirate 300 input",
        "dispense 300 output",
    ]
    assert rig.valve.calls == ["select 2", "select 3"]
    assert [event["step"] for event in rig.events("done")] == list(range(1, len(rig.plan.steps) + 1))


def test_the_same_run_gives_the_same_journal(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        texts.append(ends(tmp_path / name)[0].path.read_text())
    assert texts[0] == texts[1]


def test_a_deferred_pause_waits_for_the_checkpoint_and_puts_the_lights_out(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(1)
        rig.engine.pause()
        rig.engine.pause()
        await asyncio.sleep(1_000)
        assert rig.engine.state is State.PAUSED
        assert "checkpoint middle" in rig.engine.status.doing
        assert not rig.light.on
        assert rig.pump.through_ul == 200
        rig.engine.resume()
        await asyncio.sleep(0.1)
        assert rig.light.on

    assert ends(tmp_path, use)[1] is EndReason.COMPLETED


def test_a_pause_now_breaks_off_what_may_be_done_again(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(10)
        assert rig.oven.calls[-1] == "wait"
        rig.engine.pause(now=True)
        await asyncio.sleep(100)
        assert rig.engine.state is State.PAUSED
        rig.engine.resume()

    rig, reason = ends(tmp_path, use)
    assert reason is EndReason.COMPLETED
    assert rig.oven.calls.count("wait") == 2


def test_a_pause_now_lets_a_stroke_finish(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(40)
        assert rig.pump.calls[-1] == "aspirate 200 input"
        rig.engine.pause(now=True)
        await asyncio.sleep(100)
        assert rig.engine.state is State.PAUSED
        assert rig.pump.through_ul == 200
        rig.engine.resume()

    rig, reason = ends(tmp_path, use)
    assert reason is EndReason.COMPLETED
    assert rig.pump.calls.count("initialize") == 1


def test_an_incubation_goes_on_in_a_pause_and_an_overrun_is_noted(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(70)
        assert rig.engine.status.doing == "incubate 60 s"
        rig.engine.pause(now=True)
        await asyncio.sleep(100)
        rig.engine.resume()

    rig, reason = ends(tmp_path, use)
    assert reason is EndReason.COMPLETED
    assert [event["planned_s"] for event in rig.events("overrun")] == [60]


def test_a_stop_lets_the_stroke_finish_and_ends(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(40)
        rig.engine.stop()
        rig.engine.stop()

    rig, reason = ends(tmp_path, use)
    assert reason is EndReason.STOPPED_BY_USER
    assert rig.pump.through_ul == 200


@pytest.mark.parametrize("at_s", [0.5, 10, 40, 44.2, 70, 125, 129])
def test_an_abort_breaks_everything_off_at_once(tmp_path: Path, at_s: float) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(at_s)
        rig.engine.abort()
        begin_s = asyncio.get_running_loop().time()
        await asyncio.wait([running])
        assert asyncio.get_running_loop().time() - begin_s < 1

    assert ends(tmp_path, use)[1] is EndReason.ABORTED_BY_USER


def test_a_stall_ends_the_run_and_the_ledger_knows_how_far_it_came(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        rig.pump.stall_after_ul = 120.0

    rig, reason = ends(tmp_path, use)
    assert reason is EndReason.DEVICE_FAULT
    assert rig.pump.through_ul == 120
    assert rig.events("fault")[0]["kind"] == "StallError"


def test_a_fault_that_pauses_goes_on_with_the_remainder(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        rig.pump.stall_after_ul = 120.0
        await asyncio.sleep(200)
        assert rig.engine.state is State.PAUSED
        rig.engine.resume()

    text = RECIPE.replace("volume_ul = 200", 'volume_ul = 200\non_fault = "pause"')
    rig, reason = ends(tmp_path, use, text=text)
    assert reason is EndReason.COMPLETED
    assert rig.pump.calls[1:5] == ["aspirate 200 input", "initialize", "aspirate 80 input", "dispense 80 output"]


def test_only_the_line_s_errors_are_tried_again_and_only_where_that_is_harmless(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        rig.oven.fail, rig.oven.fails = ReplyTimeout("oven", "no reply"), 2

    rig, reason = ends(tmp_path, use, text=RECIPE.replace("verify = true", "verify = true\ntries = 3"))
    assert reason is EndReason.COMPLETED
    assert rig.oven.calls[:3] == ["set 60"] * 3


def test_an_open_interlock_has_its_own_end(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        rig.light.fail, rig.light.fails = InterlockOpen("green", 26, "interlock open"), -1

    assert ends(tmp_path, use)[1] is EndReason.INTERLOCK


def test_a_suspender_holds_the_run_until_it_is_right_again(tmp_path: Path) -> None:
    wrong = ""

    async def check() -> str:
        return wrong

    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        nonlocal wrong
        await asyncio.sleep(10)
        wrong = "the disk has 1.0 GB free"
        await asyncio.sleep(100)
        assert rig.engine.state is State.PAUSED
        rig.engine.resume()
        await asyncio.sleep(10)
        assert rig.engine.state is State.PAUSED, "the operator cannot wave it through"
        wrong = ""

    rig, reason = ends(tmp_path, use, suspenders=(Suspender("disk", check),))
    assert reason is EndReason.COMPLETED
    assert [event["why"] for event in rig.events("suspender")] == ["the disk has 1.0 GB free", ""]


def test_a_suspender_may_end_the_run(tmp_path: Path) -> None:
    async def check() -> str:
        return "62.5 C, more than 2 C from the target" if asyncio.get_running_loop().time() > 50 else ""

    hot = Suspender("temperature", check, abort=True, reason=EndReason.TEMPERATURE_OUT_OF_RANGE)
    assert ends(tmp_path, suspenders=(hot,))[1] is EndReason.TEMPERATURE_OUT_OF_RANGE


def test_a_device_that_answers_no_more_is_noticed_at_the_second_time(tmp_path: Path) -> None:
    async def check() -> str:
        raise ReplyTimeout("oven", "no reply")

    rig, reason = ends(tmp_path, suspenders=(Suspender("oven", check, abort=True),))
    assert reason is EndReason.DEVICE_FAULT
    assert rig.events("suspender")[0]["time_s"] == pytest.approx(2, abs=0.1)


def test_a_hold_waits_for_the_operator(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(500)
        assert rig.engine.status.holds == {"operator": "load the chip"}
        rig.engine.resume()

    text = RECIPE + '[[step]]\ndo = "hold"\nmessage = "load the chip"\n'
    assert ends(tmp_path, use, text=text)[1] is EndReason.COMPLETED


@pytest.mark.parametrize(
    "at_s", [0.0, 0.1, 20.0, 36.0, 45.0, 55.6, 56.2, 57.0, 58.5, 80.0, 118.0, 121.0, 125.0, 129.0, 131.0]
)
def test_a_killed_engine_is_taken_up_and_no_fluid_moves_twice(tmp_path: Path, at_s: float) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        engine = rig.engine
        running = asyncio.create_task(engine.run())
        await asyncio.sleep(at_s)
        if not running.done():
            # As kill -9: nothing more is written and nobody is made safe; the pump goes on by itself.
            engine.journal.note = lambda *_args, **_facts: None  # type: ignore[method-assign]
            engine.bench = Bench()
            rig.pump.stop = _nothing_later  # type: ignore[method-assign]
            running.cancel()
            await asyncio.wait([running])
            del rig.pump.stop
        rig.bench = Bench(pump=rig.pump, valve=rig.valve, temperature=rig.oven, lasers={"green": rig.light})
        await asyncio.sleep(3.0)
        second = rig.again()
        running = asyncio.create_task(second.run())
        while not running.done():
            await asyncio.sleep(1)
            second.resume()
        assert running.result() is EndReason.COMPLETED
        assert rig.pump.through_ul == pytest.approx(500, abs=1)
        assert rig.pump.wasted_ul == pytest.approx(500, abs=1)
        ledger = Ledger.of(read_journal(rig.path))
        assert sum(ledger.drawn_ul.values()) == pytest.approx(500, abs=1)

    async def _nothing_later() -> None:
        raise Stopped("pump", "gone")

    run_virtual(main())


def test_a_torn_last_line_is_dropped_and_any_other_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = RunJournal(path, lambda: 1.0)
    journal.note("one")
    journal.note("two")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert [event["event"] for event in RunJournal(path, lambda: 2.0).events] == ["one"]
    path.write_bytes(whole.replace(b'"one"', b'"on'))
    with pytest.raises(CorruptionError, match="line 1"):
        RunJournal(path, lambda: 2.0)
    assert json.loads(whole.splitlines()[1])["number"] == 2


def test_a_line_that_is_gone_is_opened_anew_and_the_action_tried_again(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        rig.oven.lost = True

    rig, reason = ends(tmp_path, use, text=RECIPE.replace("verify = true", "verify = true\ntries = 2"))
    assert reason is EndReason.COMPLETED
    assert [event["device"] for event in rig.events("opened again")] == ["oven"]


def test_a_line_that_answers_as_another_device_holds_the_run(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        rig.oven.lost, rig.oven.is_another = True, True
        await asyncio.sleep(100)
        assert rig.engine.state is State.PAUSED
        rig.oven.is_another = False
        rig.engine.resume()

    text = RECIPE.replace("verify = true", 'verify = true\ntries = 2\non_fault = "pause"')
    rig, reason = ends(tmp_path, use, text=text)
    assert reason is EndReason.COMPLETED
    assert [event["kind"] for event in rig.events("fault")] == ["Disconnected", "DeviceFault"]


def test_a_device_whose_line_is_gone_is_opened_anew_to_be_made_safe(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(40)
        rig.light.lost = True
        rig.engine.abort()

    rig, reason = ends(tmp_path, use)
    assert reason is EndReason.ABORTED_BY_USER
    assert rig.events("safe")[0]["failures"] == {}


def test_a_driver_s_mistake_does_not_keep_the_others_from_being_made_safe(tmp_path: Path) -> None:
    async def mistake() -> None:
        raise ZeroDivisionError("a mistake")

    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(40)
        rig.valve.make_safe = mistake  # type: ignore[method-assign]
        rig.valve.safe = 1
        rig.engine.abort()

    rig, _reason = ends(tmp_path, use)
    assert rig.events("safe")[0]["failures"] == {"valve": "ZeroDivisionError: a mistake"}


def test_a_stroke_whose_end_nobody_saw_is_accounted_for_when_the_pump_answers_again(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(40)
        rig.pump.lost = True
        await asyncio.sleep(100)
        assert rig.engine.state is State.PAUSED
        assert not [event for event in rig.events("delivered") if event["step"] == 5]
        rig.engine.resume()

    text = RECIPE.replace("volume_ul = 200", 'volume_ul = 200\non_fault = "pause"')
    rig, reason = ends(tmp_path, use, text=text)
    assert reason is EndReason.COMPLETED
    assert rig.pump.calls[1:3] == ["aspirate 200 input", "initialize"], "the pump had finished it by itself"


def test_a_stroke_that_cannot_be_accounted_for_is_told(tmp_path: Path) -> None:
    async def main() -> Engine:
        rig = Rig(tmp_path)
        running = asyncio.create_task(rig.engine.run())
        await asyncio.sleep(40)
        rig.pump.lost = rig.pump.stays_lost = True
        await running
        return rig.engine

    engine = run_virtual(main())
    assert "a stroke of 200.0 ul (draw)" in engine.message
    events = read_journal(engine.journal.path)
    assert [event["volume_ul"] for event in events if event["event"] == "not accounted for"] == [200]
    assert "pump" in next(event["failures"] for event in events if event["event"] == "safe")


def test_no_light_is_on_while_the_run_waits_for_the_operator(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(500)
        assert rig.engine.state is State.PAUSED
        assert not rig.light.on
        rig.engine.resume()
        await asyncio.sleep(1)
        assert rig.light.on

    hold = '[[step]]\ndo = "hold"\nmessage = "load the chip"\n[[step]]\ndo = "incubate"\nduration_s = 60\n'
    assert ends(tmp_path, use, text=RECIPE + hold)[1] is EndReason.COMPLETED


def test_a_light_that_cannot_be_put_out_ends_a_held_run(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(40)
        rig.light.stays_lit = True
        rig.engine.pause(now=True)

    rig, reason = ends(tmp_path, use)
    assert reason is EndReason.DEVICE_FAULT
    assert rig.events("safe")[0]["failures"] == {}, "the second time it went out"


def test_a_light_that_does_not_come_back_holds_the_run_again(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(40)
        rig.engine.pause(now=True)
        await asyncio.sleep(100)
        rig.light.fail, rig.light.fails = InterlockOpen("green", 26, "interlock open"), -1
        rig.engine.resume()
        await asyncio.sleep(10)
        assert rig.engine.state is State.PAUSED
        rig.light.fail = None
        rig.engine.resume()

    text = RECIPE.replace("duration_s = 60", 'duration_s = 60\non_fault = "pause"').replace(
        'reagent = "mix"', 'reagent = "mix"\non_fault = "pause"'
    )
    rig, reason = ends(tmp_path, use, text=text)
    assert reason is EndReason.COMPLETED
    assert rig.light.cleared, "its fault was cleared before it was tried again"


def test_a_device_that_fails_before_the_first_step_ends_the_run(tmp_path: Path) -> None:
    async def main() -> EndReason:
        rig = Rig(tmp_path)
        rig.pump.fail, rig.pump.fails = StallError("pump", 9, "plunger overload"), -1
        return await rig.engine.run()

    assert run_virtual(main()) is EndReason.DEVICE_FAULT
    assert [event["kind"] for event in read_journal(tmp_path / "journal.jsonl") if event["event"] == "fault"] == [
        "StallError"
    ]


def test_a_question_that_a_stop_cut_short_says_nothing(tmp_path: Path) -> None:
    async def check() -> str:
        raise Stopped("oven", "was stopped before it was done")

    _rig, reason = ends(tmp_path, suspenders=(Suspender("oven", check, abort=True),))
    assert reason is EndReason.COMPLETED


def test_the_operator_may_go_on_in_spite_of_a_suspender_that_yields(tmp_path: Path) -> None:
    wrong = "valve: it is between two ports"

    async def check() -> str:
        return wrong

    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        nonlocal wrong
        await asyncio.sleep(40)
        assert rig.engine.state is State.PAUSED
        rig.engine.resume()
        await asyncio.sleep(5)
        assert rig.engine.state is State.RUNNING
        wrong = "valve: it has no power"
        await asyncio.sleep(60)
        assert rig.engine.state is State.PAUSED
        rig.engine.resume()

    rig, reason = ends(tmp_path, use, suspenders=(Suspender("device", check, yields=True),))
    assert reason is EndReason.COMPLETED
    assert [event["why"] for event in rig.events("suspender")] == [
        "valve: it is between two ports",
        "",
        "valve: it has no power",
        "",
    ]


def test_resuming_clears_the_faults_that_devices_keep(tmp_path: Path) -> None:
    async def use(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        await asyncio.sleep(10)
        rig.oven.keeps = [Fault("33", "the sensor is open")]
        await asyncio.sleep(100)
        assert rig.engine.state is State.PAUSED
        rig.engine.resume()

    async def check() -> str:
        return "; ".join([fault.text for device in rigs for fault in await device.read_faults()])

    rigs: list[Plain] = []

    async def watched(rig: Rig, running: asyncio.Task[EndReason]) -> None:
        rigs.extend(rig.devices)
        await use(rig, running)

    rig, reason = ends(tmp_path, watched, suspenders=(Suspender("device", check),))
    assert reason is EndReason.COMPLETED
    assert [event["device"] for event in rig.events("faults cleared")] == ["oven"]


def test_a_watch_that_fails_by_a_mistake_ends_the_run(tmp_path: Path) -> None:
    async def check() -> str:
        raise ZeroDivisionError("a mistake")

    rig, reason = ends(tmp_path, suspenders=(Suspender("disk", check),))
    assert reason is EndReason.CONTROLLER_ERROR
    assert "disk can no longer be watched" in rig.engine.message
