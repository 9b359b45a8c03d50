"""A run on disk: what lies where in its folder.

::

    RUN/ recipe.toml      what the instrument does, and which instrument, frozen at the start;
         instrument.toml  where reads are mapped that were made elsewhere, there are none
         control          where the run can be talked to, while it runs
         images/          the pictures of the tissue
         run.toml         what is mapped, frozen at the start; none where nothing is
         descriptor.json  the run's number, and the program that began it
         journal.jsonl    what happened, append-only, one event a line
         lock             held by the program that works on the run
         log/             the base calls, in checksummed segments
         state/           the fold's state and log position, replaced atomically
         maps.h5          the latest whole snapshot of the maps
         qc.json          the counters of every read
         exports/         pictures and files for other programs
         report.html      the report, one file without a network
         processes/       what each process said
"""

from __future__ import annotations

import errno
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cartoseq.analysis.atomic import write_text_atomically
from cartoseq.streaming.errors import CartoseqError, CorruptionError, InputError
from cartoseq.streaming.journal import append, entry_of

log = logging.getLogger(__name__)

QC_SCHEMA = 1
#: A disk that takes no more, or no more of this user.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_FROM_THE_LOG = "Make the run again from its log, with `cartoseq replay`."

#: So many lines of the journal wait at most for the disk to take them.
_MOST_UNWRITTEN = 1000


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Args:
        path: The folder.
    """

    path: Path
    _unwritten: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def recipe(self) -> Path:
        """What the instrument does, frozen at the start."""
        return self.path / "recipe.toml"

    @property
    def instrument(self) -> Path:
        """The instrument, frozen at the start."""
        return self.path / "instrument.toml"

    @property
    def control(self) -> Path:
        """Where the run can be talked to, while it runs."""
        return self.path / "control"

    @property
    def images(self) -> Path:
        """The pictures of the tissue."""
        return self.path / "images"

    @property
    def settings(self) -> Path:
        """What is mapped, frozen at the start."""
        return self.path / "run.toml"

    @property
    def journal(self) -> Path:
        """What happened, one event a line."""
        return self.path / "journal.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the program that works on the run."""
        return self.path / "lock"

    @property
    def descriptor(self) -> Path:
        """The run's number and the program that began it, as every segment of the log says them."""
        return self.path / "descriptor.json"

    @property
    def log(self) -> Path:
        """The base calls."""
        return self.path / "log"

    @property
    def state(self) -> Path:
        """The fold's state and log position."""
        return self.path / "state" / "fold.h5"

    @property
    def maps(self) -> Path:
        """The latest whole snapshot of the maps."""
        return self.path / "maps.h5"

    @property
    def qc(self) -> Path:
        """The counters of every read."""
        return self.path / "qc.json"

    @property
    def exports(self) -> Path:
        """Pictures and files for other programs."""
        return self.path / "exports"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def processes(self) -> Path:
        """What each process said."""
        return self.path / "processes"

    @property
    def complete(self) -> bool:
        """Whether the maps of the whole run are written; a run whose counters are damaged can be gone on with."""
        try:
            return self.qc.is_file() and bool(self.read_qc()["complete"])
        except CartoseqError:
            return False

    def read_qc(self) -> dict[str, Any]:
        """The counters of every read, as ``qc.json`` holds them (docs/formats/run.md).

        Raises:
            CorruptionError: it no longer reads as it was written.
            InputError: it is of another schema.
        """
        content = _read_json(self.qc)
        if content.get("schema") != QC_SCHEMA:
            problem = f"expected schema {QC_SCHEMA}, found {content.get('schema', 'none')}"
            raise InputError(self.qc, problem, remedy="Read it with the version of Cartoseq that wrote it.")
        return content

    def read_descriptor(self) -> dict[str, Any]:
        """What every segment of the log says of the run.

        Raises:
            CorruptionError: it no longer reads as it was written.
        """
        return _read_json(self.descriptor)

    def create(self, settings: str, descriptor: str) -> None:
        """Lay the folder out for reads that are mapped.

        Args:
            settings: The frozen experiment, TOML.
            descriptor: What every segment of the log says of the run, JSON.

        Raises:
            InputError: something lies there already.
        """
        self.claim()
        self.freeze(settings, descriptor)

    def claim(self) -> None:
        """Make the folder.

        Raises:
            InputError: something lies there already.
        """
        taken = InputError(
            self.path,
            "something lies there already",
            remedy="Name a folder that does not exist, or go on with this run with --resume.",
        )
        try:
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise taken
            self.path.mkdir(parents=True, exist_ok=True)
            self.processes.mkdir()
        except FileExistsError:
            raise taken from None
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            raise unwritable_folder(self.path, error) from error

    def freeze(self, settings: str, descriptor: str) -> None:
        """Write down what is mapped; see `create`."""
        write_text_atomically(self.descriptor, descriptor)
        # Last, because a folder with these settings in it has reads to map.
        write_text_atomically(self.settings, settings)

    def note(self, event: str, **facts: object) -> None:
        """Write one event into the journal, durable when this returns.

        A journal that cannot be written ends no run: the line waits, and is written before the next one.
        """
        self._unwritten.append(entry_of(event, time.time(), facts))
        del self._unwritten[:-_MOST_UNWRITTEN]
        try:
            append(self.journal, self._unwritten)
        except OSError as error:
            log.warning("%s: the journal cannot be written now (%s): %s %s", self.journal, error.strerror, event, facts)
        else:
            self._unwritten.clear()


def unwritable_folder(path: Path, error: OSError) -> InputError:
    """The error for a folder that cannot be made, or not be looked into."""
    return InputError(
        path, f"this folder cannot be made: {error.strerror}", remedy="Name a folder in a place where you may write."
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no table")
    except FileNotFoundError:
        raise CorruptionError(f"{path}: the file is missing. {_FROM_THE_LOG}") from None
    except ValueError as error:
        raise CorruptionError(f"{path}: no longer reads as it was written: {error}. {_FROM_THE_LOG}") from error
    return content


def existing_run(path: Path) -> RunFolder:
    """The folder of a run that was started before.

    Raises:
        InputError: the folder is no run.
    """
    run = RunFolder(path)
    try:
        found = run.settings.is_file()
    except PermissionError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", remedy="Correct its permissions.") from error
    if not found:
        raise InputError(
            path, "this is no run: it holds no run.toml", remedy="Name the folder that `cartoseq map --out` wrote."
        )
    return run
