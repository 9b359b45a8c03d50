"""The journal of an instrument run: what was done, append-only, a line each, durable before what comes next.

Each line is a JSON object: ``number`` (from 1), ``time_s`` (the run's clock), ``event``, and what belongs to it. A line
that a crash cut short is dropped when the journal is opened again; every line before it stands.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cartoseq.streaming.errors import CorruptionError


class RunJournal:
    """The journal of one run.

    Args:
        path: The file; what it holds already is kept.
        clock: Seconds, of the run's clock.

    Raises:
        CorruptionError: a line that is not the last one no longer reads.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path = path
        self._clock = clock
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        os.ftruncate(self._file, end)
        self.events = _parse(whole[:end], path)
        """Every event so far, those of earlier sessions first."""

    @property
    def now_s(self) -> float:
        """The run's clock."""
        return self._clock()

    def note(self, event: str, **facts: object) -> None:
        """Write one event; it is on the disk when this returns.

        Raises:
            OSError: the disk does not take it.
        """
        entry = {
            "number": len(self.events) + 1,
            "time_s": round(self._clock(), 3),
            "event": event,
            **facts,
        }
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise
        self.events.append(entry)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Every whole event of a journal that somebody else may be writing.

    Raises:
        CorruptionError: a line no longer reads.
    """
    whole = path.read_bytes()
    return _parse(whole[: whole.rfind(b"\n") + 1], path)


def _parse(lines: bytes, path: Path) -> list[dict[str, Any]]:
    events = []
    for number, line in enumerate(lines.splitlines(), start=1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or entry["number"] != number or not isinstance(entry["event"], str):
                raise ValueError("it is no event")
        except (ValueError, KeyError) as error:
            raise CorruptionError(f"{path}: line {number} no longer reads as it was written: {error}.") from error
        events.append(entry)
    return events
