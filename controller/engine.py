"""The run engine: does a plan on a bench of devices, one action after the other, and is never at a loss.

States::

    idle -> preparing -> running <-> paused -> stopping | aborting -> ended (with a reason)

A *pause* is deferred to the next checkpoint, or taken now: an action that may be done again is broken off and done anew
later; a stroke of the pump is let finish, since a plunger that was stopped must be initialised; an incubation goes on
in its own time, and what it lasted too long is noted. A *stop* ends the run as soon as the stroke under way is done. An
*abort* breaks off everything at once. All endings bring every device into its safe state, each within its deadline.

What failed is mended before its action is tried again, by the operator's `resume` or within the action's tries: a line
that failed is opened anew, faults are cleared, a stage that has lost its place is homed, and a pump whose stroke nobody
saw the end of is asked where its plunger is and then initialised. While the run is held no laser emits; where one
cannot be put out, the run ends.

Every event is in the journal, durable, before what follows it happens. So an engine that was killed finds by the
journal, and by asking the devices, what was done; see `resume`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from cartoseq.controller.actions import (
    Action,
    AskOperator,
    Draw,
    Emission,
    Focus,
    Image,
    Incubation,
    PausePoint,
    Push,
    RegulationOff,
    SelectReagent,
    Settle,
    Stable,
    Target,
)
from cartoseq.controller.bench import Bench
from cartoseq.controller.ledger import Ledger
from cartoseq.controller.plan import Plan, PlannedStep
from cartoseq.controller.runjournal import RunJournal
from cartoseq.controller.strokes import VOLUME_TOLERANCE_UL, Strokes
from cartoseq.drivers.capabilities import Device
from cartoseq.drivers.errors import (
    DeviceError,
    DeviceFault,
    Disconnected,
    InterlockOpen,
    LimitError,
    LinkError,
    NotInitialized,
    OverTemperature,
    Stopped,
)
from cartoseq.streaming.errors import RunError


class State(enum.Enum):
    """What the engine is at."""

    IDLE = "idle"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    ABORTING = "aborting"
    ENDED = "ended"


class EndReason(enum.Enum):
    """Why a run ended."""

    COMPLETED = "completed"
    STOPPED_BY_USER = "stopped_by_user"
    ABORTED_BY_USER = "aborted_by_user"
    DEVICE_FAULT = "device_fault"
    INTERLOCK = "interlock"
    TEMPERATURE_OUT_OF_RANGE = "temperature_out_of_range"
    DISK_FULL = "disk_full"
    DATA_PATH_STALLED = "data_path_stalled"
    CONTROLLER_ERROR = "controller_error"


class Imager(Protocol):
    """What finds the focus and takes the tiles (`controller.imaging`)."""

    async def focus(self, action: Focus) -> dict[str, Any]:
        """Find the focus; return what the journal shall say of it."""

    async def image(self, action: Image) -> dict[str, Any]:
        """Take the tiles; return what the journal shall say of them."""


@dataclass(frozen=True)
class Suspender:
    """Something that must be so for the run to go on.

    Attributes:
        name: What it is called: "temperature", "interlock", "disk", "backlog".
        check: Returns what is wrong, or an empty text.
        every_s: How often it is asked.
        abort: Whether what is wrong ends the run; otherwise it holds it until it is right again.
        reason: How the run then ends.
        settle_s: For how long it must be right again before the run goes on.
        ask: Whether it then waits for the operator: a laser whose safety circuit was open is never on by itself again.
        yields: Whether the operator's `resume` lets the run go on though it is not right: the next action may be what
            makes it right, as a valve that lost its place finds it with its next turn. It holds again for what is new.
    """

    name: str
    check: Callable[[], Awaitable[str]]
    every_s: float = 1.0
    abort: bool = False
    reason: EndReason = EndReason.DEVICE_FAULT
    settle_s: float = 5.0
    ask: bool = False
    yields: bool = False


@dataclass(frozen=True)
class Status:
    """What a person is told of the engine.

    Attributes:
        state: Its state.
        step: The number of the action under way, 0 before the first.
        steps: How many there are.
        action: The action under way.
        doing: What it does, or waits for.
        place: Where in the recipe.
        holds: Why it does not go on, by who holds it.
        elapsed_s: Since the run's start, by the plan's clock.
        left_s: Until the end, by the plan.
        reason: Why it ended, or empty.
    """

    state: State
    step: int
    steps: int
    action: str
    doing: str
    place: str
    holds: dict[str, str]
    elapsed_s: float
    left_s: float
    reason: str


class _Ended(Exception):  # noqa: N818
    """The run is over; not an error by itself."""

    def __init__(self, reason: EndReason, text: str = "") -> None:
        self.reason = reason
        self.text = text
        super().__init__(reason.value, text)


class Engine:
    """One run.

    Args:
        plan: What to do.
        bench: With what, opened.
        journal: Where it is noted.
        imager: Takes pictures, where the plan has any.
        suspenders: What must be so for the run to go on.
    """

    def __init__(
        self,
        plan: Plan,
        bench: Bench,
        journal: RunJournal,
        *,
        imager: Imager | None = None,
        suspenders: tuple[Suspender, ...] = (),
    ) -> None:
        self.plan = plan
        self.bench = bench
        self.journal = journal
        self.imager = imager
        self.suspenders = suspenders
        self.state = State.IDLE
        self.reason: EndReason | None = None
        self.message = ""
        self.target_c: float | None = None
        """What the flow cell is regulated to; nothing where it is not."""
        self.ledger = Ledger.of(journal.events)
        self._strokes = Strokes(bench, journal, self.ledger)
        self._current: PlannedStep | None = None
        self._action: asyncio.Task[None] | None = None
        self._holds: dict[str, str] = {}
        self._deferred = False
        self._ending: _Ended | None = None
        self._changed = asyncio.Event()
        self._emitting: dict[str, float] = {}
        self._may_emit: set[str] = set()
        self._dark = False
        self._failed: dict[str, _Failure] = {}
        self._resumes = 0
        self._resumed: _Open | None = None
        self._safing: asyncio.Task[dict[str, str]] | None = None

    # ------------------------------------------------------------------------------------------------------- commands

    def pause(self, *, now: bool = False) -> None:
        """Hold the run: at the next checkpoint, or now. Twice is as good as once."""
        if self.state in (State.STOPPING, State.ABORTING, State.ENDED):
            return
        if now:
            self._hold("operator", "paused by the operator")
        elif "operator" not in self._holds and not self._deferred:
            self._deferred = True
            self.journal.note("pause asked for", when="at the next checkpoint")

    def resume(self) -> None:
        """Go on, as far as the operator and faults hold the run; what a suspender holds goes on by itself.

        It is the operator's word that a cause is gone: faults that devices keep until they are cleared are cleared.
        """
        self._deferred = False
        self._resumes += 1
        for laser in self.bench.lasers.values():  # a safety circuit that was open leaves a fault in some heads
            self._failed.setdefault(laser.name, _Failure(laser)).has_fault = True
        for name in ("operator", "fault"):
            self._release(name)

    def stop(self) -> None:
        """End the run once the stroke under way is done."""
        self._end(_Ended(EndReason.STOPPED_BY_USER, "stopped by the operator"), at_once=False)

    def abort(self) -> None:
        """End the run at once; also the emergency stop."""
        self._end(_Ended(EndReason.ABORTED_BY_USER, "aborted by the operator"), at_once=True)

    @property
    def status(self) -> Status:
        """What a person is told."""
        step, steps = self._current, self.plan.steps
        doing = str(step.action) if step is not None else self.state.value
        if self._holds:
            doing = "; ".join(self._holds.values())
        elapsed_s = step.start_s if step is not None else 0.0
        return Status(
            self.state,
            step.number if step is not None else 0,
            len(steps),
            str(step.action) if step is not None else "",
            doing if self.reason is None else self.message or self.reason.value,
            step.place if step is not None else "",
            dict(self._holds),
            elapsed_s,
            max(0.0, self.plan.duration_s - elapsed_s) if self.reason is None else 0.0,
            self.reason.value if self.reason is not None else "",
        )

    # ------------------------------------------------------------------------------------------------------------ run

    async def run(self) -> EndReason:
        """Do the plan, from its start or, where the journal tells of a part of it, from there.

        Returns:
            Why it ended. Whatever happens, every device has been asked to be safe.
        """
        if self.state is not State.IDLE:
            raise RunError("this run has been started already")
        watchers: list[asyncio.Task[None]] = []
        ended = _Ended(EndReason.CONTROLLER_ERROR)
        try:
            self._enter(State.PREPARING)
            first = await self._take_up()
            watchers = [asyncio.create_task(self._watch(suspender)) for suspender in self.suspenders]
            if self._ending is None:
                self._enter(State.RUNNING)
            for step in self.plan.steps[first:]:
                await self._step(step)
            ended = _Ended(EndReason.COMPLETED)
        except _Ended as end:
            ended = end
        except DeviceError as error:
            # While devices were made ready; what an order to end breaks off then is no fault.
            if self._ending is None:
                self._note_fault(error)
            ended = self._ending or _Ended(_reason_of(error), str(error))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            ended = _Ended(EndReason.DISK_FULL if full else EndReason.CONTROLLER_ERROR, str(error))
        except Exception as error:
            ended = _Ended(EndReason.CONTROLLER_ERROR, f"{type(error).__name__}: {error}")
            raise
        finally:
            for watcher in watchers:
                watcher.cancel()
            await self._close_down(ended)
        return ended.reason

    async def _close_down(self, ended: _Ended) -> None:
        if self.state not in (State.STOPPING, State.ABORTING):
            self.state = State.STOPPING
        if self._safing is not None:
            await asyncio.wait([self._safing])
        failures = await self.bench.make_safe()
        self.message = ended.text
        if unknown := await self._strokes.settle_at_the_end(failures):
            self.message = f"{self.message} {unknown}".strip()
        self.reason = ended.reason
        self.state = State.ENDED
        self._holds.clear()
        self._try_to_note("safe", failures=failures)
        self._try_to_note("ended", reason=ended.reason.value, why=ended.text)
        self._changed.set()

    def _try_to_note(self, event: str, **facts: object) -> None:
        # A journal that the disk does not take must not keep the devices from being made safe.
        try:
            self.journal.note(event, **facts)
        except OSError as error:
            self.message = f"{self.message} (the journal could not be written: {error.strerror})".strip()

    async def _step(self, step: PlannedStep) -> None:
        self._current = step
        if isinstance(step.action, PausePoint) and self._deferred:
            self._deferred = False
            self._hold("operator", f"paused by the operator at checkpoint {step.action.label}")
        tries = step.tries if step.action.step_class == "idempotent" else 1
        while True:
            await self._clear_to_go()
            self.journal.note("step", step=step.number, action=str(step.action), place=step.place)
            self._action = asyncio.create_task(self._attempt(step))
            try:
                await self._action
            except asyncio.CancelledError:
                if not self._broken_off():
                    raise
                self.journal.note("broken off", step=step.number)
                continue
            except DeviceError as error:
                tries -= 1
                if self._ending is not None:
                    continue  # a stroke or move that the ending itself stopped
                self._note_fault(error)
                self._remember_failure(step, error)
                if isinstance(error, LinkError) and tries > 0:
                    continue
                if isinstance(error, LimitError) or step.on_fault == "abort":
                    raise _Ended(_reason_of(error), str(error)) from error
                self._hold("fault", str(error))
                continue
            finally:
                self._action = None
            if self._ending is not None:
                raise self._ending
            self.journal.note("done", step=step.number)
            return

    def _broken_off(self) -> bool:
        """Whether the action was cancelled by a command and not by who runs the engine."""
        task = asyncio.current_task()
        return task is not None and not task.cancelling() and (self._ending is not None or bool(self._holds))

    def _note_fault(self, error: DeviceError) -> None:
        self.journal.note(
            "fault",
            step=self._current.number if self._current is not None else 0,
            device=error.device,
            kind=type(error).__name__,
            problem=error.problem,
            wire=error.wire.splitlines()[-8:],
        )

    async def _clear_to_go(self) -> None:
        """Return when nothing holds the run; raise when it is to end."""
        if self._holds and self._ending is None:
            await self._stand_by(lambda: bool(self._holds))
        if self._ending is not None:
            raise self._ending

    async def _lights_out(self) -> None:
        """Let no laser emit while the run is held, whoever switched it on.

        Raises:
            _Ended: one that may emit is not known to be out.
        """
        self._dark = True
        failures = await self.bench.lights_out()
        alight = [failure for name, failure in failures.items() if name in self._may_emit]
        if alight and self._ending is None:
            raise _Ended(EndReason.DEVICE_FAULT, "; ".join(alight))
        self._may_emit.clear()

    async def _lights_on(self) -> None:
        """Bring back the lights that the recipe has switched on, if they were put out."""
        if self._dark:
            self._may_emit |= set(self._emitting)
            for name, power_mw in self._emitting.items():
                await self.bench.lasers[name].set_power_mw(power_mw)
                await self.bench.lasers[name].set_emission(True)
            self._dark = False

    # ---------------------------------------------------------------------------------------------------------- mending

    def _remember_failure(self, step: PlannedStep, error: DeviceError) -> None:
        """Know what is to be mended; where an error names no device, all that the step needs."""
        for device in self.bench.named(error.device) or _devices_of(step.action, self.bench):
            failure = self._failed.setdefault(device.name, _Failure(device))
            failure.line_failed |= isinstance(error, LinkError)
            failure.has_fault |= isinstance(error, DeviceFault)
            failure.lost_place |= isinstance(error, NotInitialized)

    async def _mend(self) -> None:
        """Bring back into service what failed.

        Raises:
            DeviceError: a device does not answer, or its fault comes back.
        """
        for name, failure in list(self._failed.items()):
            if failure.line_failed:
                await self._reopen(failure.device)
                failure.line_failed = False
            if failure.has_fault:
                await failure.device.clear_faults()
            if failure.lost_place and failure.device is self.bench.stage:
                self.journal.note("home", device=name)
                await self.bench.stage.home()
            self._failed.pop(name, None)

    async def _reopen(self, device: Device) -> None:
        await self.bench.reopen(device)
        self.journal.note("opened again", device=device.name)
        if device is self.bench.pump:
            self._strokes.is_in_doubt = True

    # -------------------------------------------------------------------------------------------------------- actions

    async def _attempt(self, step: PlannedStep) -> None:
        await self._mend()
        await self._lights_on()
        self._may_emit |= _lights_of(step.action)
        await self._perform(step)

    async def _perform(self, step: PlannedStep) -> None:
        bench = self.bench
        match step.action:
            case SelectReagent(port=port):
                assert bench.valve is not None
                await bench.valve.select(port)
            case Draw() | Push():
                await self._strokes.do(step.number, step.action)
            case Settle(duration_s=duration_s):
                await asyncio.sleep(duration_s)
            case Incubation():
                await self._incubate(step, step.action)
            case Target(temperature_c=target_c):
                assert bench.temperature is not None
                await bench.temperature.set_target_c(target_c)
                self.target_c = target_c
            case Stable(tolerance_c=tolerance_c, dwell_s=dwell_s, timeout_s=timeout_s):
                assert bench.temperature is not None
                await bench.temperature.wait_stable(tolerance_c, dwell_s, timeout_s)
            case RegulationOff():
                assert bench.temperature is not None
                self.target_c = None
                await bench.temperature.disable()
            case Emission():
                await self._emit(step.action)
            case Focus():
                assert self.imager is not None
                self.journal.note("focused", step=step.number, **await self.imager.focus(step.action))
            case Image():
                assert self.imager is not None
                self.journal.note("imaged", step=step.number, **await self.imager.image(step.action))
            case AskOperator(message=message):
                self._hold("operator", message)
                await self._stand_by(lambda: "operator" in self._holds)
            case PausePoint():
                pass

    async def _emit(self, action: Emission) -> None:
        laser = self.bench.lasers[action.device]
        if action.on:
            await laser.set_power_mw(action.power_mw)
            await laser.set_emission(True)
            self._emitting[action.device] = action.power_mw
        else:
            self._emitting.pop(action.device, None)
            await laser.set_emission(False)

    async def _stand_by(self, held: Callable[[], bool]) -> None:
        """Be paused, in the dark, for as long as it is held; the next action brings the lights back."""
        self._enter(State.PAUSED, why=list(self._holds.values()))
        await self._lights_out()
        while held() and self._ending is None:
            self._changed.clear()
            await self._changed.wait()
        if self._ending is None and not self._holds:
            self._enter(State.RUNNING)

    async def _incubate(self, step: PlannedStep, action: Incubation) -> None:
        loop = asyncio.get_running_loop()
        already_s = self._resumed.waited_s if self._resumed is not None and self._resumed.step == step.number else 0.0
        begin_s = loop.time() - already_s
        await asyncio.sleep(max(0.0, action.duration_s - already_s))
        if self._holds:
            await self._stand_by(lambda: bool(self._holds))
        lasted_s = loop.time() - begin_s
        if lasted_s > action.most_s:
            self.journal.note("overrun", step=step.number, planned_s=action.duration_s, lasted_s=round(lasted_s, 1))

    # -------------------------------------------------------------------------------------------------- holds and ends

    def _hold(self, name: str, why: str) -> None:
        if self._ending is not None or self._holds.get(name) == why:
            return
        self._holds[name] = why
        # What holds the run may have put lights out, or will.
        self._dark = True
        self._changed.set()
        idempotent = self._current is not None and self._current.action.step_class == "idempotent"
        if self._action is not None and idempotent and name != "fault":
            self._action.cancel()

    def _release(self, name: str) -> None:
        if self._holds.pop(name, None) is not None:
            self._changed.set()

    def _end(self, ending: _Ended, *, at_once: bool) -> None:
        """Take the first order to end; an abort overrides a stop that is still under way."""
        if self.state is State.ENDED or (self._ending is not None and not at_once):
            return
        self._ending = ending
        self.state = State.ABORTING if at_once else State.STOPPING
        self._try_to_note("state", state=self.state.value, why=[ending.text])
        self._changed.set()
        if at_once:
            # Lights and motion first; what is known of a stroke that is broken off is found out meanwhile.
            self._safing = asyncio.ensure_future(self.bench.make_safe())
        stroke = self._current is not None and self._current.action.step_class == "consuming"
        if self._action is not None and (at_once or not stroke):
            self._action.cancel()

    def _enter(self, state: State, **facts: object) -> None:
        if state is not self.state:
            self.state = state
            self.journal.note("state", state=state.value, **facts)

    async def _watch(self, suspender: Suspender) -> None:
        try:
            await self._ask_on(suspender)
        except OSError as error:
            self._ending = _Ended(EndReason.DISK_FULL, f"the journal cannot be written: {error.strerror}")
            self._changed.set()
        except Exception as error:  # a run that is no longer watched must not go on
            text = f"{suspender.name} can no longer be watched: {type(error).__name__}: {error}"
            self._end(_Ended(EndReason.CONTROLLER_ERROR, text), at_once=True)

    async def _ask_on(self, suspender: Suspender) -> None:
        """Ask a suspender for ever; two lost answers in a row are a lost device."""
        fine_since_s: float | None = 0.0
        wrong_before = waived = ""
        lost = resumes = 0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(suspender.every_s)
            try:
                wrong = await suspender.check()
                lost = 0
            except Stopped:
                continue  # the device was just told to stop, or its line is opened anew
            except DeviceError as error:
                lost += 1
                wrong = str(error) if lost > 1 or not isinstance(error, LinkError) else ""
                if isinstance(error, Disconnected):
                    await self._try_to_reopen(error)
            if wrong != waived:
                waived = ""
            if wrong and suspender.abort:
                self.journal.note("suspender", name=suspender.name, why=wrong)
                self._end(_Ended(suspender.reason, wrong), at_once=True)
                return
            if wrong and not waived:
                wrong_before = wrong
                if suspender.name not in self._holds:
                    self.journal.note("suspender", name=suspender.name, why=wrong)
                    self._hold(suspender.name, wrong)
                elif resumes != self._resumes:
                    await self._clear_faults()
                    if suspender.yields:
                        waived = wrong
                        self.journal.note("suspender", name=suspender.name, why="", waived=wrong)
                        self._release(suspender.name)
                resumes = self._resumes
                fine_since_s = None
            elif suspender.name in self._holds:
                fine_since_s = loop.time() if fine_since_s is None else fine_since_s
                if loop.time() - fine_since_s >= suspender.settle_s:
                    self.journal.note("suspender", name=suspender.name, why="")
                    if suspender.ask:
                        self._hold("operator", f"it is right again, and waits for you to resume: {wrong_before}")
                    self._release(suspender.name)

    async def _clear_faults(self) -> None:
        for device in self.bench.devices():
            with contextlib.suppress(DeviceError):
                if any(fault.severe for fault in await device.read_faults()):
                    await device.clear_faults()
                    self.journal.note("faults cleared", device=device.name)

    async def _try_to_reopen(self, error: DeviceError) -> None:
        for device in self.bench.named(error.device):
            with contextlib.suppress(DeviceError):
                await self._reopen(device)
                await device.clear_faults()

    # ------------------------------------------------------------------------------------------------ after a crash

    async def _take_up(self) -> int:
        """Find where the journal left off and what is true of the devices; return how many steps are done."""
        events = self.journal.events
        steps_begun = [event for event in events if event["event"] == "step"]
        if not steps_begun:
            self.journal.note("started", recipe=self.plan.name, steps=len(self.plan.steps))
            if self.bench.pump is not None:
                await self._strokes.initialize("before the first step")
            return 0
        done = [event["step"] for event in events if event["event"] == "done"]
        first = max(done, default=0)
        self.journal.note("taken up", done=first)
        opened = _open_step(events, first + 1, self.journal.now_s)
        self._resumed = opened
        if opened is not None and opened.stroke is not None:
            await self._settle_last_stroke(self.plan.steps[first], opened.stroke)
        if self.bench.pump is not None:
            # Nobody watched the plunger meanwhile: what it holds goes to waste, by the ledger as well.
            await self._strokes.come_to_rest()
            await self._strokes.initialize("nobody watched it for a while")
        await self._restore(first)
        return first

    async def _settle_last_stroke(self, step: PlannedStep, noted: dict[str, Any]) -> None:
        """A stroke was under way when the engine died; the pump may have finished it. Ask it."""
        assert isinstance(step.action, Draw | Push)
        volume_ul = float(noted["volume_ul"])
        moved_ul = await self._strokes.settle_noted(step.number, step.action, float(noted["from_ul"]), volume_ul)
        if volume_ul - moved_ul > VOLUME_TOLERANCE_UL:
            self._hold(
                "operator",
                f"a stroke was cut short: {moved_ul:.1f} of {volume_ul:.1f} ul were moved; "
                f"resume moves the other {volume_ul - moved_ul:.1f} ul",
            )

    async def _restore(self, done: int) -> None:
        """Bring valve, temperature and lights to where the steps that are done left them."""
        bench = self.bench
        last: dict[type, PlannedStep] = {}
        for step in self.plan.steps[:done]:
            kind = Target if isinstance(step.action, RegulationOff) else type(step.action)
            last[kind] = step
            if isinstance(step.action, Emission):
                if step.action.on:
                    self._emitting[step.action.device] = step.action.power_mw
                else:
                    self._emitting.pop(step.action.device, None)
        if (valve := last.get(SelectReagent)) is not None and bench.valve is not None:
            await bench.valve.select(valve.action.port)  # type: ignore[union-attr]
        if (target := last.get(Target)) is not None and isinstance(target.action, Target):
            assert bench.temperature is not None
            await bench.temperature.set_target_c(target.action.temperature_c)
            self.target_c = target.action.temperature_c
        self._dark = True


@dataclass
class _Failure:
    """What is to be mended of a device."""

    device: Device
    line_failed: bool = False
    has_fault: bool = False
    lost_place: bool = False


@dataclass(frozen=True)
class _Open:
    """The step that was under way when the engine died."""

    step: int
    stroke: dict[str, Any] | None
    waited_s: float


def _open_step(events: list[dict[str, Any]], number: int, now_s: float) -> _Open | None:
    """What the journal says of a step that was begun and not done."""
    begun = [event for event in events if event["event"] == "step" and event["step"] == number]
    if not begun:
        return None
    strokes = [e for e in events if e["event"] in ("stroke", "delivered") and e.get("step") == number]
    stroke = strokes[-1] if strokes and strokes[-1]["event"] == "stroke" else None
    return _Open(number, stroke, max(0.0, now_s - float(begun[-1]["time_s"])))


def _devices_of(action: Action, bench: Bench) -> Iterator[Device]:
    """The devices that an action needs."""
    devices: list[Device | None] = []
    match action:
        case SelectReagent():
            devices = [bench.valve]
        case Draw() | Push():
            devices = [bench.pump]
        case Target() | Stable() | RegulationOff():
            devices = [bench.temperature]
        case Emission(device=name):
            devices = [bench.lasers[name]]
        case Focus() | Image():
            devices = [bench.stage, bench.focus, bench.camera, *bench.lasers.values()]
    return (device for device in devices if device is not None)


def _lights_of(action: Action) -> set[str]:
    """The lasers that an action switches on."""
    match action:
        case Emission(device=name):
            return {name}
        case Focus(channel=channel):
            return {channel.light}
        case Image(channels=channels):
            return {channel.light for channel in channels}
    return set()


def _reason_of(error: DeviceError) -> EndReason:
    if isinstance(error, InterlockOpen):
        return EndReason.INTERLOCK
    if isinstance(error, OverTemperature):
        return EndReason.TEMPERATURE_OUT_OF_RANGE
    return EndReason.DEVICE_FAULT
