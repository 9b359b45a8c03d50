"""The binner: folds the log as it grows, keeps its state, shows it live, and writes the maps.

It takes records from a feed in log order. The feed may be a recorder's (live), or a log on disk (replay); what comes
out is the same, because the fold is the same. A state is kept every few seconds, so that a killed binner resumes.
A state or a snapshot that the disk does not take is tried again later; only the last maps must be written.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cartoseq.analysis.checkpoint import restore_checkpoint, save_checkpoint
from cartoseq.analysis.fold import Fold
from cartoseq.analysis.liveimage import encode_image
from cartoseq.analysis.saturation import saturation
from cartoseq.analysis.snapshot import write_snapshot
from cartoseq.streaming.errors import DiskError
from cartoseq.streaming.feed import FeedRecord, feed_record
from cartoseq.streaming.log import LogReader

log = logging.getLogger(__name__)

#: A state or a snapshot may take at most this share of the time, however large it has grown.
_UPKEEP_SHARE = 0.05
_LIVE_INTERVAL_S = 0.5
_SNAPSHOT_INTERVAL_S = 30.0
#: What the disk did not take is tried again after so long.
_RETRY_S = 5.0


class Feed(Protocol):
    """Where records come from, in log order and without gaps."""

    def next(self, timeout_s: float) -> FeedRecord | None:
        """Give the next record, or None if none came within the time."""


class LogFeed:
    """A log on disk as a feed that ends.

    Args:
        reader: The log.
        position: The index of the first record wanted.
    """

    def __init__(self, reader: LogReader, position: int) -> None:
        self._reader = reader
        self._position = position
        self._end = reader.end

    @property
    def ended(self) -> bool:
        """Whether every record of the log was given."""
        # Asking for the end walks through an open segment: once is enough until it is reached.
        if self._position >= self._end:
            self._end = self._reader.end
        return self._position >= self._end

    def next(self, timeout_s: float) -> FeedRecord | None:
        """Give the next record, or None at the end of the log."""
        if self.ended:
            return None
        header, payload = self._reader.read(self._position)
        record = feed_record(self._position, header, payload)
        self._position += 1
        return record


class Upkeep:
    """Something done every so often, but never for more than a small share of the time.

    Args:
        work: What to do; returns whether it was done, else it is tried again soon.
        interval_s: The shortest time between two.
        clock: Monotonic seconds.
    """

    def __init__(self, work: Callable[[], bool], interval_s: float, clock: Callable[[], float]) -> None:
        self._work = work
        self._interval_s = interval_s
        self._clock = clock
        self._due_s = clock() + interval_s

    def when_due(self) -> None:
        """Do it if it is time."""
        start_s = self._clock()
        if start_s >= self._due_s:
            done = self._work()
            end_s = self._clock()
            interval_s = self._interval_s if done else max(self._interval_s, _RETRY_S)
            self._due_s = end_s + max(interval_s, (end_s - start_s) / _UPKEEP_SHARE)


class Binner:
    """Folds a feed into a run folder.

    Args:
        fold: The fold, fresh.
        state_path: Where the state is kept.
        maps_path: Where the maps are written.
        qc_path: Where the counters are written.
        publish: Takes a topic and a payload for live viewers.
        checkpoint_s: Seconds between two states.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        fold: Fold,
        *,
        state_path: Path,
        maps_path: Path,
        qc_path: Path,
        publish: Callable[[str, bytes], None],
        checkpoint_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fold = fold
        self._state_path = state_path
        self._maps_path = maps_path
        self._qc_path = qc_path
        self._publish = publish
        self._kept_at = -1
        self._refused: set[str] = set()
        self._upkeep = (
            Upkeep(lambda: self._tried("state", self.keep), checkpoint_s, clock),
            Upkeep(lambda: self._tried("snapshot", self.write), max(_SNAPSHOT_INTERVAL_S, checkpoint_s), clock),
            Upkeep(self.show, _LIVE_INTERVAL_S, clock),
        )
        if restore_checkpoint(state_path, fold):
            self._kept_at = fold.position

    def keep(self) -> None:
        """Keep the state, unless it is the one already kept."""
        if self._kept_at != self.fold.position:
            save_checkpoint(self._state_path, self.fold)
            self._kept_at = self.fold.position

    def write(self) -> None:
        """Write maps and counters as they stand.

        Raises:
            DiskError: the disk is full or refuses; what was written before is whole.
        """
        try:
            write_snapshot(self._maps_path, self._qc_path, self.fold)
        except OSError as error:
            raise DiskError(
                f"{self._qc_path}: the counters could not be written: {error.strerror or error}."
            ) from error

    def show(self) -> bool:
        """Show counters and pictures to live viewers."""
        self._publish("status", live_status(self.fold))
        for library in self.fold.libraries:
            self._publish(f"molecules/{library.settings.name}", encode_image(library.seen.image))
        return True

    def run(self, feed: Feed, *, stopped: Callable[[], bool], ended: Callable[[], bool]) -> None:
        """Fold until every source has ended, the feed has, or a stop is asked for; then keep the state.

        Maps are written unless it was stopped: a stopped run goes on later.

        Args:
            feed: The records, from the fold's position on.
            stopped: Whether to stop now.
            ended: Whether the feed will bring nothing more.

        Raises:
            DiskError: the disk does not take the last maps; folding the same log again makes them.
        """
        self.show()
        while not self.fold.complete and not ended() and not stopped():
            record = feed.next(timeout_s=0.25)
            if record is not None:
                self.fold.add(record)
            for upkeep in self._upkeep:
                upkeep.when_due()
        self.fold.check()
        # Viewers see that all is folded before the last maps are made, which may take a while.
        self.show()
        self._tried("state", self.keep)
        if not stopped():
            self.write()
        self.show()

    def _tried(self, what: str, work: Callable[[], None]) -> bool:
        """Do what the disk may refuse, and say so when it begins to refuse and when it takes it again."""
        try:
            work()
        except (DiskError, OSError) as error:
            if what not in self._refused:
                self._refused.add(what)
                log.warning("the %s could not be written, it is tried again later: %s", what, error)
            return False
        if what in self._refused:
            self._refused.remove(what)
            log.info("the %s is written again", what)
        return True


def live_status(fold: Fold) -> bytes:
    """What a progress line needs, as JSON: the position, and each library's counters and molecules so far."""
    return json.dumps(
        {
            "position": fold.position,
            "complete": fold.complete,
            "libraries": {
                library.settings.name: {
                    **library.counters,
                    "molecules": library.molecules.molecules,
                    "saturation": saturation(library.molecules.molecules, library.counters["assigned"]),
                }
                for library in fold.libraries
            },
        }
    ).encode()
