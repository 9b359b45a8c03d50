"""One program at a time works on a run.

Two ``flock`` locks, which the kernel lets go when their last holder ends, however it ends. ``lock`` is the program's
own: who finds it taken is told so at once. ``processes/lock`` is handed down to every process of the run, so that a
program that takes over after a kill waits until the last of the old processes has ended.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cartoseq.analysis.runfolder import RunFolder
from cartoseq.streaming.errors import InputError, RunError

#: Processes whose program is gone end within seconds; one that does not in this time hangs.
_OLD_PROCESSES_S = 60.0
_POLL_S = 0.1


@contextmanager
def working_on(run: RunFolder, say: Callable[[str], None]) -> Iterator[int]:
    """Hold a run for oneself.

    Args:
        run: The run.
        say: Is told what is waited for.

    Yields:
        The descriptor that every process of the run has to inherit.

    Raises:
        RunError: another program works on the run, or its processes do not end.
        InputError: the folder cannot be written.
    """
    own = _open(run.lock)
    try:
        if not _taken(own):
            raise RunError(
                f"{run.path}: another cartoseq is working on this run. Wait until it has ended, or stop it first "
                "(Ctrl-C there)."
            )
        shared = _open(run.processes / "lock")
        try:
            _wait(run, shared, say)
            yield shared
        finally:
            os.close(shared)
    finally:
        os.close(own)


def is_worked_on(run: RunFolder) -> bool:
    """Whether a program works on a run now."""
    try:
        descriptor = os.open(run.lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _taken(descriptor)
    finally:
        os.close(descriptor)


def _wait(run: RunFolder, shared: int, say: Callable[[str], None]) -> None:
    deadline_s = time.monotonic() + _OLD_PROCESSES_S
    told = False
    while not _taken(shared):
        if not told:
            told = True
            say("Waiting until the processes of the interrupted run have ended.")
        if time.monotonic() > deadline_s:
            raise RunError(
                f"{run.path}: processes that an earlier start left behind are still working on this run. "
                "End them first: they are called cartoseq.controller.workers and name this folder."
            )
        time.sleep(_POLL_S)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(path, f"cannot be written: {error.strerror}", remedy="Correct its permissions.") from error


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
