"""The journal of an instrument run, as the engine writes it: `streaming.journal`, with the events at hand.

What the disk does not take is an error here: the engine does nothing that it could not note.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cartoseq.streaming.journal import append, entry_of, read_journal

__all__ = ["RunJournal", "read_journal"]


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
        self.events: list[dict[str, Any]] = read_journal(path) if path.exists() else []
        """Every event so far, those of earlier sessions first."""
        self.heard: Callable[[], None] | None = None
        """Called after each event."""

    @property
    def now_s(self) -> float:
        """The run's clock."""
        return self._clock()

    def note(self, event: str, **facts: object) -> None:
        """Write one event; it is on the disk when this returns.

        Raises:
            OSError: the disk does not take it.
        """
        entry = entry_of(event, self._clock(), facts)
        append(self.path, [entry])
        self.events.append(entry)
        if self.heard is not None:
            self.heard()
