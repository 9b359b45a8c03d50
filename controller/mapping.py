"""The main job on files: from an experiment to a run folder with maps, pictures and a report."""

from __future__ import annotations

import json
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import cartoseq
from cartoseq.analysis.runfolder import RunFolder, existing_run
from cartoseq.controller.child import Child, ChildError
from cartoseq.controller.config import Experiment, freeze, load_experiment, thaw
from cartoseq.controller.supervisor import Ending, LiveState, Outcome, supervise
from cartoseq.controller.workers import fold_log
from cartoseq.streaming.errors import CartoseqError, InputError, RunError


class InterruptedRunError(CartoseqError):
    """The user stopped the run; it goes on with ``--resume``."""

    exit_code = 130


def map_experiment(
    experiment_path: Path, folder: Path, *, resume: bool, show: Callable[[LiveState], None], say: Callable[[str], None]
) -> RunFolder:
    """Map an experiment into a run folder.

    Args:
        experiment_path: The experiment file.
        folder: The run's folder.
        resume: Whether to go on with the run that lies there.
        show: Is given the live state, some times a second.
        say: Is given a line for the user where something takes a while.

    Returns:
        The folder, with maps, counters, pictures and report.

    Raises:
        InputError: something that the user gave is missing, malformed or does not fit.
        InterruptedRunError: the user stopped the run.
        CartoseqError: the run failed; what came before is kept.
    """
    experiment = load_experiment(experiment_path)
    run = _resumed(experiment, folder) if resume else _created(experiment, folder)
    if run.complete:
        say(f"{folder} is complete: nothing is left to do.")
        return run
    prepare(run, say)
    run.note("started", resumed=resume, version=cartoseq.__version__)
    with _interrupts() as interrupted:
        names = [library.name for library in experiment.library]
        ending = supervise(run, names, interrupted.is_set, show)
    run.note(ending.outcome.value, message=ending.message)
    if ending.outcome is Outcome.STOPPED:
        raise InterruptedRunError(f"Stopped. Everything read so far is safe in {folder}; go on with --resume.")
    if ending.outcome is Outcome.FAILED:
        _map_what_came(run, experiment, ending)
    publish(run, say)
    run.note("published")
    return run


def replay(folder: Path, target: Path, show: Callable[[str, bytes], None], say: Callable[[str], None]) -> RunFolder:
    """Fold the log of a run again, from its start, into another folder.

    Raises:
        InputError: the folder is no run, or the target exists.
        CorruptionError: the log is damaged.
    """
    source = existing_run(folder)
    settings = source.settings.read_text(encoding="utf-8")
    experiment = thaw(settings, source.settings)
    run = RunFolder(target)
    run.create(settings, source.descriptor.read_text(encoding="utf-8"))
    run.note("replay", of=str(folder.resolve()), version=cartoseq.__version__)
    prepare(run, say)
    fold_log(run, source.log, experiment, show)
    publish(run, say)
    return run


def publish(run: RunFolder, say: Callable[[str], None]) -> None:
    """Write the pictures and the report of a run."""
    from cartoseq.analysis.exports.export import export_run
    from cartoseq.analysis.report import write_report

    say("Drawing the maps and writing the report.")
    export_run(run.path, ["png"])
    write_report(run.path)


def prepare(run: RunFolder, say: Callable[[str], None]) -> None:
    """Index the chip and the references, compile the kernels, and look whether the reads fit the chip.

    A process of its own does it, so that the memory is free again when the run's processes start.

    Raises:
        ChildError: something does not fit.
    """
    say("Preparing: chip, references, kernels (slower the first time).")
    child = Child("preparation", ["prepare", str(run.path), "-"], run.processes / "preparation.log")
    child.start()
    child.finish()


def _created(experiment: Experiment, folder: Path) -> RunFolder:
    run = RunFolder(folder)
    descriptor = {"run": secrets.randbits(64), "program": f"cartoseq {cartoseq.__version__}"}
    run.create(freeze(experiment), json.dumps(descriptor) + "\n")
    return run


def _resumed(experiment: Experiment, folder: Path) -> RunFolder:
    run = existing_run(folder)
    if freeze(experiment) != run.settings.read_text(encoding="utf-8"):
        raise InputError(
            run.settings,
            "the experiment is not the one that this run was started with",
            remedy="Give the experiment file of this run, or start a new run in another folder.",
        )
    return run


def _map_what_came(run: RunFolder, experiment: Experiment, ending: Ending) -> None:
    """Make the maps of what came before a failure, then raise the failure."""
    error = ChildError(ending.message, ending.exit_code)
    if not any(run.log.glob("*.log")):
        raise error
    try:
        fold_log(run, run.log, experiment, lambda _topic, _payload: None)
        publish(run, lambda _line: None)
    except (CartoseqError, OSError) as second:
        raise RunError(f"{error} (And the maps of what came before could not be made: {second})") from second
    raise error


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C interrupts at once."""
    interrupted = threading.Event()

    def note(number: int, _frame: FrameType | None) -> None:
        if interrupted.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupted.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
