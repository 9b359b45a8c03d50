"""`cartoseq run`: a recipe on an instrument, from the first device opened to the last one made safe, and the maps.

A recipe that cannot be run is refused before anything is opened. While the run goes on, another shell can look and
give orders (`controller.control`). A run that was killed is taken up again where its journal left off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cartoseq
from cartoseq.analysis.atomic import write_text_atomically
from cartoseq.analysis.runfolder import RunFolder
from cartoseq.controller.bench import Bench
from cartoseq.controller.closing import command
from cartoseq.controller.config import Experiment, freeze, load_experiment
from cartoseq.controller.control import ORDERS, ControlServer, ask
from cartoseq.controller.engine import EndReason, Engine, State
from cartoseq.controller.imaging import imager_of
from cartoseq.controller.instrument import FILE as INSTRUMENT_FILE
from cartoseq.controller.instrument import Instrument, build_bench, facts_of, parse_instrument
from cartoseq.controller.mapping import Screen, map_experiment
from cartoseq.controller.plan import Plan, compile_recipe
from cartoseq.controller.planning import free_bytes_of
from cartoseq.controller.recipe import Recipe, load_recipe
from cartoseq.controller.registering import register_imaged
from cartoseq.controller.runjournal import RunJournal, read_journal
from cartoseq.controller.runlock import is_worked_on, working_on
from cartoseq.controller.runwords import doing, ending, event_line, fraction, left, status_lines, told_by_journal
from cartoseq.controller.settingsfile import read_text
from cartoseq.controller.suspenders import circuits_closed, devices_well, disk_free, temperature_in_band
from cartoseq.simulators.clock import VirtualTimeLoop
from cartoseq.streaming.errors import CartoseqError, InputError, RunError

_LOOK_S: Final = 0.2
#: What a run ends the program with, by why it ended.
_EXIT_CODES: Final = {
    EndReason.COMPLETED: 0,
    EndReason.STOPPED_BY_USER: 130,
    EndReason.ABORTED_BY_USER: 130,
    EndReason.DEVICE_FAULT: 6,
    EndReason.INTERLOCK: 6,
    EndReason.TEMPERATURE_OUT_OF_RANGE: 6,
    EndReason.DISK_FULL: 7,
    EndReason.DATA_PATH_STALLED: 5,
    EndReason.CONTROLLER_ERROR: 5,
}


class EndedEarly(RunError):  # noqa: N818
    """The run ended before its recipe did; the exit code tells why.

    Args:
        message: For a person.
        reason: Why.
    """

    def __init__(self, message: str, reason: EndReason) -> None:
        super().__init__(message)
        self.exit_code = _EXIT_CODES[reason]


@dataclass(frozen=True)
class Simulation:
    """How a run is simulated.

    Attributes:
        speed: Simulated seconds per second of the wall's clock.
        seed: Of all noise.
    """

    speed: float = math.inf
    seed: int = 0


def run_recipe(
    recipe_path: Path,
    instrument_path: Path,
    folder: Path,
    *,
    experiment_path: Path | None = None,
    resume: bool = False,
    simulation: Simulation | None = None,
    screen: Screen,
) -> RunFolder:
    """Run a recipe on an instrument, then map the reads of an experiment, if there is one.

    Args:
        recipe_path: The recipe.
        instrument_path: The instrument.
        folder: The run's folder, to be made.
        experiment_path: Whose reads are mapped once sequencing has ended.
        resume: Whether to go on with the run that lies there.
        simulation: Simulates the instrument, in virtual time; the chip's picture is that of the experiment's tissue,
            where that was simulated as well.
        screen: Is told what goes on.

    Returns:
        The run's folder.

    Raises:
        InputError: something that the user gave is missing, malformed or does not fit; nothing was opened.
        DeviceError: a device could not be opened.
        EndedEarly: the run ended before its recipe did.
        CartoseqError: the maps could not be made.
    """
    instrument_text = read_text(instrument_path, INSTRUMENT_FILE)
    instrument = parse_instrument(instrument_text, instrument_path, folder=instrument_path.absolute().parent)
    recipe, recipe_text = load_recipe(recipe_path)
    plan = compile_recipe(recipe, facts_of(instrument, free_bytes_of(folder)), recipe_text, recipe_path)
    experiment = load_experiment(experiment_path) if experiment_path is not None else None
    frozen = {"recipe": recipe_text, "instrument": instrument_text}
    run = RunFolder(folder)
    if resume:
        _hold_the_same(run, frozen, experiment)
    else:
        _lay_out(run, frozen, experiment)
    with working_on(run, screen.say):
        if _completed(run):
            screen.say(f"{folder}: its recipe was done to the end.")
        else:
            nuclei_um = None
            if simulation is not None and experiment_path is not None:
                from cartoseq.simulators.experiment import cells_um

                nuclei_um = cells_um(experiment_path.parent)
            work = _Work(run, plan, recipe, instrument, simulation, nuclei_um, screen)
            again = _command_again(recipe_path, instrument_path, folder, experiment_path, simulation)
            engine = work.do()
            register_imaged(run, screen.say)
            _hold_completed(run, engine, again)
    if experiment_path is not None:
        map_experiment(experiment_path, folder, resume=True, screen=screen)
    return run


def _lay_out(run: RunFolder, frozen: Mapping[str, str], experiment: Experiment | None) -> None:
    run.claim()
    if experiment is not None:
        descriptor = {"run": secrets.randbits(64), "program": f"cartoseq {cartoseq.__version__}"}
        run.freeze(freeze(experiment), json.dumps(descriptor) + "\n")
    write_text_atomically(run.instrument, frozen["instrument"])
    # Last, because a folder with a recipe in it is a run of an instrument.
    write_text_atomically(run.recipe, frozen["recipe"])


def existing_instrument_run(path: Path) -> RunFolder:
    """The folder of an instrument's run that was started before.

    Raises:
        InputError: it is none.
    """
    run = RunFolder(path)
    try:
        if run.recipe.is_file():
            return run
        problem = "this is no run of an instrument: it holds no recipe.toml"
    except PermissionError as error:
        problem = f"cannot be read: {error.strerror}"
    raise InputError(path, problem, remedy="Name the folder that `cartoseq run --out` wrote.")


def _hold_the_same(run: RunFolder, frozen: Mapping[str, str], experiment: Experiment | None) -> None:
    """A run is taken up as it was begun.

    Raises:
        InputError: with something else.
    """
    existing_instrument_run(run.path)
    for name, text in frozen.items():
        kept: Path = getattr(run, name)
        if not kept.is_file() or kept.read_text(encoding="utf-8") != text:
            raise InputError(
                kept,
                f"the {name} is not the one that this run was started with",
                remedy=f"Give the {name} file of this run, or start a new run in another folder.",
            )
    if (experiment is not None) != run.settings.is_file():
        raise InputError(
            run.path,
            "this run was started without --experiment" if experiment is not None else "this run has an experiment",
            remedy="Leave it out." if experiment is not None else "Give it again, with --experiment.",
        )


def _completed(run: RunFolder) -> bool:
    events = read_journal(run.journal) if run.journal.exists() else []
    return any(event["event"] == "ended" and event.get("reason") == EndReason.COMPLETED.value for event in events)


def _hold_completed(run: RunFolder, engine: Engine, again: str) -> None:
    """Go on only where the recipe was done to its end.

    Raises:
        EndedEarly: it was not.
    """
    assert engine.reason is not None
    if engine.reason is EndReason.COMPLETED:
        return
    raise EndedEarly(
        f"The run ended: {ending(engine.reason.value, engine.message)}\n"
        f"What was done is in {run.journal}; go on from there with:\n  {again}",
        engine.reason,
    )


def _command_again(
    recipe: Path, instrument: Path, folder: Path, experiment: Path | None, simulation: Simulation | None
) -> str:
    more: list[object] = ["--experiment", experiment] if experiment is not None else []
    if simulation is not None:
        more += ["--simulate"] if math.isinf(simulation.speed) else ["--simulate", "--speed", f"{simulation.speed:g}"]
    return command("run", recipe, "--instrument", instrument, *more, "--out", folder, "--resume")


# ------------------------------------------------------------------------------------------------------------ the work


class _Work:
    """The instrument's part of one run, in one event loop."""

    def __init__(
        self,
        run: RunFolder,
        plan: Plan,
        recipe: Recipe,
        instrument: Instrument,
        simulation: Simulation | None,
        nuclei_um: NDArray[np.float64] | None,
        screen: Screen,
    ) -> None:
        self._run = run
        self._plan = plan
        self._recipe = recipe
        self._instrument = instrument
        self._simulation = simulation
        self._nuclei_um = nuclei_um
        self._screen = screen
        self._asked_to_stop = False

    def do(self) -> Engine:
        """Do it; return the engine, which has ended."""
        speed = self._simulation.speed if self._simulation is not None else None
        loop_factory = None if speed is None else partial(VirtualTimeLoop, speed, wakes=True)
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(self._in_loop())

    async def _in_loop(self) -> Engine:
        loop = asyncio.get_running_loop()
        journal = RunJournal(self._run.journal, self._clock(loop))
        bench = self._bench()
        self._screen.doing("opening the devices")
        identities = await bench.open()
        try:
            journal.note(
                "opened",
                version=cartoseq.__version__,
                simulated=self._simulation is not None,
                devices={name: asdict(identity) for name, identity in identities.items()},
            )
            if self._simulation is not None:
                from cartoseq.controller.dryrun import make_ready

                await make_ready(self._instrument, bench)
            else:
                for name, identity in identities.items():
                    if identity.notice:
                        self._screen.say(f"{name}: {identity.notice}")
            camera = identities.get(bench.camera.name) if bench.camera else None
            imager = imager_of(self._instrument, self._recipe.chip, bench, self._run.images, camera)
            engine = Engine(self._plan, bench, journal, imager=imager)
            engine.suspenders = (
                *((temperature_in_band(bench.temperature, lambda: engine.target_c),) if bench.temperature else ()),
                *((circuits_closed(bench.lasers),) if bench.lasers else ()),
                disk_free(self._run.path),
                devices_well(list(bench.devices())),
            )
            journal.heard = partial(self._keep_pace, engine)
            with (
                _signals(loop, partial(self._interrupted, engine)),
                ControlServer(self._run, partial(self._handle, engine), loop),
                _telling(engine, self._screen),
            ):
                await engine.run()
            return engine
        finally:
            await bench.close()

    def _clock(self, loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
        """The journal's clock: the wall's, or the simulated instrument's, from now or from where it left off."""
        if self._simulation is None:
            return time.time
        events = read_journal(self._run.journal) if self._run.journal.exists() else []
        begin_s = max([time.time(), *(event["time_s"] for event in events[-1:])])
        return lambda: begin_s + loop.time()

    def _bench(self) -> Bench:
        if self._simulation is None:
            return build_bench(self._instrument)
        from cartoseq.controller.simulatedbench import simulate_instrument

        simulated = simulate_instrument(
            self._instrument, self._recipe, seed=self._simulation.seed, nuclei_um=self._nuclei_um
        )
        return simulated.bench()

    # --------------------------------------------------------------------------------------------------------- orders

    def _handle(self, engine: Engine, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request of the control socket; an order is carried out first, whatever the disk says."""
        what = request.get("do")
        if what in ORDERS:
            self._order(engine, str(what), now=bool(request.get("now", False)), by="control socket")
        elif what != "status":
            raise ValueError(f"expected do = status, {', '.join(ORDERS)}; found {what!r}")
        return status_of(engine)

    def _order(self, engine: Engine, order: str, *, now: bool = False, by: str) -> None:
        match order:
            case "pause":
                engine.pause(now=now)
            case "resume":
                engine.resume()
            case "stop":
                engine.stop()
            case "abort":
                engine.abort()
        with contextlib.suppress(OSError):
            engine.journal.note("order", order=order, by=by, **({"now": now} if order == "pause" else {}))

    def _interrupted(self, engine: Engine, number: int) -> None:
        """Ctrl-C stops, a second one aborts; SIGTERM stops."""
        name = signal.Signals(number).name
        if number == signal.SIGINT and self._asked_to_stop:
            self._screen.say("Aborting: everything is broken off and made safe.")
            self._order(engine, "abort", by=name)
            return
        self._asked_to_stop = True
        self._screen.say("Stopping once the stroke under way is done (Ctrl-C again: at once).")
        self._order(engine, "stop", by=name)

    def _keep_pace(self, engine: Engine) -> None:
        """While a simulated run waits for a person, its time goes as a person's does."""
        if self._simulation is not None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualTimeLoop)
            waits = bool({"operator", "fault"} & engine.status.holds.keys())
            loop.speed = min(1.0, self._simulation.speed) if waits else self._simulation.speed


def status_of(engine: Engine) -> dict[str, Any]:
    """What the control socket says of an engine."""
    status = engine.status
    return {**asdict(status), "state": status.state.value}


@contextmanager
def _signals(loop: asyncio.AbstractEventLoop, interrupted: Callable[[int], None]) -> Iterator[None]:
    """Hear Ctrl-C and SIGTERM. A terminal that goes away ends no run: `cartoseq stop` does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted, number)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGHUP, before)


@contextmanager
def _telling(engine: Engine, screen: Screen) -> Iterator[None]:
    """Show from a thread of its own what the engine does: in virtual time the loop never waits for a screen."""
    ended = threading.Event()
    told = len(engine.journal.events)

    def tell() -> None:
        nonlocal told
        while told < len(engine.journal.events):
            line = event_line(engine.journal.events[told])
            told += 1
            if line:
                screen.say(line)
        if engine.state is not State.ENDED:
            status = status_of(engine)
            screen.step(f"{doing(status)}, {left(status)}", fraction(status))

    def run() -> None:
        while not ended.wait(_LOOK_S):
            tell()

    thread = threading.Thread(target=run, name="telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell()


# --------------------------------------------------------------------------------------------------- from another shell


def order(folder: Path, what: str, say: Callable[[str], None], **values: object) -> None:
    """Give an order to the run in a folder, and say how it stands then.

    Raises:
        InputError: the folder is no instrument's run.
        RunError: no program does this run, or it refuses.
    """
    run = existing_instrument_run(folder)
    answer = ask(run, {"do": what, **values})
    if answer is None:
        raise RunError(f"{folder}: {_nobody(run)}.")
    for line in status_lines(answer):
        say(line)


def status(folder: Path, say: Callable[[str], None]) -> None:
    """Say how the run in a folder stands: as the program tells that does it, or else as its journal does.

    Raises:
        InputError: the folder is no instrument's run.
        CorruptionError: the journal no longer reads.
    """
    run = existing_instrument_run(folder)
    answer = None
    with contextlib.suppress(CartoseqError):
        answer = ask(run, {"do": "status"})
    if answer is not None:
        lines = status_lines(answer)
    else:
        say(f"state    {_nobody(run)}")
        lines = told_by_journal(read_journal(run.journal) if run.journal.exists() else [])
    for line in lines:
        say(line)


def _nobody(run: RunFolder) -> str:
    """Why there is nobody to talk to."""
    if is_worked_on(run):
        return "a program works on this run, and the instrument is not, or no longer, part of it: the reads are mapped"
    return "no program does this run now"
