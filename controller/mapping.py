"""The main job on files: from an experiment to a run folder with maps, pictures and a report."""

from __future__ import annotations

import json
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import cartoseq
from cartoseq.analysis.runfolder import RunFolder, existing_run
from cartoseq.controller.child import Child, ChildError
from cartoseq.controller.closing import command
from cartoseq.controller.config import Experiment, freeze, load_experiment, thaw
from cartoseq.controller.runlock import working_on
from cartoseq.controller.supervisor import Ending, LiveState, Outcome, supervise
from cartoseq.controller.workers import CODEC_FOUND, PREPARATIONS, fold_log
from cartoseq.streaming.errors import CartoseqError, CorruptionError, DiskError, InputError, RunError
from cartoseq.streaming.log import LogReader


class Screen(Protocol):
    """What a person is told while it goes on (``controller.progress``)."""

    def say(self, line: str) -> None:
        """Say something that stays."""

    def doing(self, what: str, fraction: float | None = None) -> None:
        """Say what is being done, until the next word, and how far it is, if that is known."""

    def step(self, what: str, fraction: float) -> None:
        """Say what an instrument does, and how far it is; called many times a second."""

    def show(self, state: LiveState) -> None:
        """Show how far the run is; called many times a second."""


class InterruptedRunError(CartoseqError):
    """The user stopped the run; it goes on with ``--resume``."""

    exit_code = 130


def map_experiment(experiment_path: Path, folder: Path, *, resume: bool, screen: Screen) -> RunFolder:
    """Map an experiment into a run folder.

    Args:
        experiment_path: The experiment file.
        folder: The run's folder.
        resume: Whether to go on with the run that lies there.
        screen: Is told what goes on.

    Returns:
        The folder, with maps, counters, pictures and report.

    Raises:
        InputError: something that the user gave is missing, malformed or does not fit.
        InterruptedRunError: the user stopped the run.
        CartoseqError: the run failed; what came before is kept.
    """
    experiment = load_experiment(experiment_path)
    run = _resumed(experiment, folder) if resume else _created(experiment, folder)
    try:
        with working_on(run, screen.say) as held:
            if not run.complete:
                _fold(run, experiment, held, screen, resumed=resume)
            elif _published(run):
                screen.say(f"{folder} is complete: nothing is left to do.")
                return run
            publish(run, screen)
            run.note("published")
    except (InterruptedRunError, KeyboardInterrupt):
        again = command("map", experiment_path, "--out", folder, "--resume")
        raise InterruptedRunError(f"Stopped. Everything read so far is safe. Go on with:\n  {again}") from None
    return run


def replay(folder: Path, target: Path, screen: Screen) -> RunFolder:
    """Fold the log of a run again, from its start, into another folder.

    Raises:
        InputError: the folder is no run, or the target exists.
        InterruptedRunError: the user stopped it.
        CorruptionError: the log is damaged.
    """
    source = existing_run(folder)
    settings = source.settings.read_text(encoding="utf-8")
    experiment = thaw(settings, source.settings)
    run = RunFolder(target)
    run.create(settings, json.dumps(_whole_log(source)) + "\n")
    with working_on(run, screen.say) as held:
        run.note("replay", of=str(folder.resolve()), version=cartoseq.__version__)
        with _interrupts() as interrupted:
            if not prepare(run, held, screen, interrupted.is_set, look_at_reads=False):
                raise InterruptedRunError(f"Stopped. {target} holds no maps.")
        screen.doing("opening the chip and the references")
        fold_log(run, source.log, experiment, _shown_on(screen, source.log))
        publish(run, screen)
    if not run.complete:
        screen.say(f"The log of {folder} ends before its reads do: these are the maps of what it holds.")
    return run


def publish(run: RunFolder, screen: Screen) -> None:
    """Write the pictures and the report of a run."""
    screen.doing("drawing the maps and writing the report")
    from cartoseq.analysis.exports.export import export_run
    from cartoseq.analysis.report import write_report

    export_run(run.path, ["png"])
    write_report(run.path)


def prepare(run: RunFolder, held: int, screen: Screen, stopped: Callable[[], bool], *, look_at_reads: bool) -> bool:
    """Index the chip and the references, compile the kernels, and look whether the reads fit the chip.

    A process of its own does it, so that the memory is free again when the run's processes start.

    Args:
        run: The run's folder.
        held: The descriptor that every process of the run holds.
        screen: Is told what goes on.
        stopped: Whether the user wants to stop.
        look_at_reads: Whether there are reads to look at; a replay has them in its log.

    Returns:
        Whether it was done; if not, it was stopped.

    Raises:
        ChildError: something does not fit.
    """
    screen.doing("preparing")
    noted = len(_events(run))
    role = PREPARATIONS[0] if look_at_reads else PREPARATIONS[1]
    child = Child("preparation", [role, str(run.path), "-"], run.processes / "preparation.log", [held])
    child.start(relay=True)
    done = child.finish(screen.doing, stopped)
    for event in _events(run)[noted:]:
        if event["event"] == CODEC_FOUND:
            screen.say(f"{event['library']}: the barcodes in the names of the reads are written as {event['codec']}.")
    return done


def _events(run: RunFolder) -> list[dict[str, Any]]:
    """What the journal tells, without the half line that a crash may have left."""
    events = []
    for line in run.journal.read_bytes().splitlines() if run.journal.exists() else ():
        with suppress(ValueError):
            events.append(json.loads(line))
    return events


def _fold(run: RunFolder, experiment: Experiment, held: int, screen: Screen, *, resumed: bool) -> None:
    """Run the processes of a run to their end.

    Raises:
        InterruptedRunError: the user stopped the run.
        CartoseqError: the run failed; the maps of what came before are made.
    """
    run.note("started", resumed=resumed, version=cartoseq.__version__)
    _forget_what_the_log_lost(run)
    ending = Ending(Outcome.STOPPED)
    with _interrupts() as interrupted:
        if prepare(run, held, screen, interrupted.is_set, look_at_reads=True):
            names = [library.name for library in experiment.library]
            ending = supervise(run, names, interrupted.is_set, screen.show, inherited=[held])
    run.note(ending.outcome.value, message=ending.message)
    if ending.outcome is Outcome.STOPPED:
        raise InterruptedRunError("Stopped.")
    if ending.outcome is Outcome.FAILED:
        _map_what_came(run, experiment, ending, screen)


def _created(experiment: Experiment, folder: Path) -> RunFolder:
    run = RunFolder(folder)
    descriptor = {"run": secrets.randbits(64), "program": f"cartoseq {cartoseq.__version__}"}
    run.create(freeze(experiment), json.dumps(descriptor) + "\n")
    return run


def _resumed(experiment: Experiment, folder: Path) -> RunFolder:
    run = existing_run(folder)
    # The kept settings are read and written anew, so that a default which is newer than the run is no difference.
    if freeze(experiment) != freeze(thaw(run.settings.read_text(encoding="utf-8"), run.settings)):
        raise InputError(
            run.settings,
            "the experiment is not the one that this run was started with",
            remedy="Give the experiment file of this run, or start a new run in another folder.",
        )
    run.read_descriptor()
    return run


def _whole_log(run: RunFolder) -> dict[str, object]:
    """The descriptor of a run's log, which must hold all that the run's maps were made of.

    Raises:
        InputError: there is no log.
        CorruptionError: it is damaged, or lost its end.
    """
    if not any(run.log.glob("*.log")):
        problem = "there is no log here, and so nothing to replay"
        raise InputError(run.log, problem, remedy="Put the log of the run back, or map the reads again.")
    with LogReader(run.log) as reader:
        kept, descriptor = reader.end, dict(reader.descriptor)
    folded = 0
    with suppress(CartoseqError):
        folded = run.read_qc()["log_position"]
    if kept < folded:
        raise CorruptionError(
            f"{run.log}: the log holds {kept:,} records, and the maps of this run were made of {folded:,}: its end is "
            "missing. Put the log back from a copy, or map the reads again."
        )
    return descriptor


def _forget_what_the_log_lost(run: RunFolder) -> None:
    """Drop a state that knows of more than the log holds: what the log lost will come again, maybe in another order."""
    from cartoseq.analysis.checkpoint import kept_position

    known = kept_position(run.state)
    if known is None:
        return
    kept = 0
    if any(run.log.glob("*.log")):
        with LogReader(run.log) as reader:
            kept = reader.end
    if known > kept:
        run.state.unlink()
        run.note("state dropped", its_records=known, log_records=kept)


def _published(run: RunFolder) -> bool:
    """Whether the report, which is written last, is of the final counters."""
    return run.report.is_file() and run.report.stat().st_mtime_ns >= run.qc.stat().st_mtime_ns


def _map_what_came(run: RunFolder, experiment: Experiment, ending: Ending, screen: Screen) -> None:
    """Make the maps of what came before a failure, then raise the failure."""
    error = ChildError(ending.message, ending.exit_code)
    if ending.exit_code == DiskError.exit_code or not any(run.log.glob("*.log")):
        raise error
    screen.doing("making the maps of what came before")
    try:
        fold_log(run, run.log, experiment, _shown_on(screen, run.log))
        publish(run, screen)
    except (CartoseqError, OSError) as second:
        if str(second) in str(error):
            raise error from second
        raise RunError(f"{error} (And the maps of what came before could not be made: {second})") from second
    raise error


def _shown_on(screen: Screen, log: Path) -> Callable[[str, bytes], None]:
    """Show what the fold of a whole log publishes, as the supervisor shows what the binner publishes."""
    with LogReader(log) as reader:
        state = LiveState(records=reader.end)

    def publish(topic: str, payload: bytes) -> None:
        state.take(topic, payload)
        screen.show(state)

    return publish


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or the end of the terminal sets; a second Ctrl-C interrupts at once."""
    interrupted = threading.Event()

    def note(number: int, _frame: FrameType | None) -> None:
        if interrupted.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupted.set()

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else it was started with nohup
        signals.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
