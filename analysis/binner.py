"""The binner: folds the log as it grows, keeps its state, shows it live, and writes the maps.

It takes records from a feed in log order. The feed may be a recorder's (live), or a log on disk (replay); what comes
out is the same, because the fold is the same. A state is kept every few seconds, so that a killed binner resumes.
"""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.checkpoint import restore_checkpoint, save_checkpoint
from cartoseq.analysis.fold import Fold
from cartoseq.analysis.saturation import saturation
from cartoseq.analysis.snapshot import write_snapshot
from cartoseq.streaming.feed import FeedRecord, feed_record
from cartoseq.streaming.log import LogReader

log = logging.getLogger(__name__)

#: A state or a snapshot may take at most this share of the time, however large it has grown.
_UPKEEP_SHARE = 0.05
_LIVE_INTERVAL_S = 0.5
_SNAPSHOT_INTERVAL_S = 30.0
_IMAGE_HEADER = struct.Struct("<II")


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

    @property
    def ended(self) -> bool:
        """Whether every record of the log was given."""
        return self._position >= self._reader.end

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
        work: What to do.
        interval_s: The shortest time between two.
        clock: Monotonic seconds.
    """

    def __init__(self, work: Callable[[], None], interval_s: float, clock: Callable[[], float]) -> None:
        self._work = work
        self._interval_s = interval_s
        self._clock = clock
        self._due_s = clock() + interval_s

    def when_due(self) -> None:
        """Do it if it is time."""
        start_s = self._clock()
        if start_s >= self._due_s:
            self._work()
            end_s = self._clock()
            self._due_s = end_s + max(self._interval_s, (end_s - start_s) / _UPKEEP_SHARE)


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
        self._upkeep = (
            Upkeep(self.keep, checkpoint_s, clock),
            Upkeep(self.write, max(_SNAPSHOT_INTERVAL_S, checkpoint_s), clock),
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
        """Write maps and counters as they stand."""
        write_snapshot(self._maps_path, self._qc_path, self.fold)

    def show(self) -> None:
        """Show counters and pictures to live viewers."""
        self._publish("status", live_status(self.fold))
        for library in self.fold.libraries:
            self._publish(f"located/{library.settings.name}", encode_image(library.located))

    def run(self, feed: Feed, *, stopped: Callable[[], bool], ended: Callable[[], bool]) -> None:
        """Fold until every source has ended, the feed has, or a stop is asked for; then keep the state.

        Maps are written unless it was stopped: a stopped run goes on later.

        Args:
            feed: The records, from the fold's position on.
            stopped: Whether to stop now.
            ended: Whether the feed will bring nothing more.
        """
        self.show()
        while not self.fold.complete and not ended() and not stopped():
            record = feed.next(timeout_s=0.25)
            if record is not None:
                self.fold.add(record)
            for upkeep in self._upkeep:
                upkeep.when_due()
        self.fold.check()
        self.keep()
        if not stopped():
            self.write()
        self.show()


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


def encode_image(image: NDArray[np.uint32]) -> bytes:
    """A count image as bytes: height and width (uint32, little endian), then its rows."""
    return _IMAGE_HEADER.pack(*image.shape) + image.astype("<u4", copy=False).tobytes()


def decode_image(payload: bytes) -> NDArray[np.uint32]:
    """The count image that :func:`encode_image` made, shape (height, width)."""
    height, width = _IMAGE_HEADER.unpack_from(payload)
    return np.frombuffer(payload, "<u4", offset=_IMAGE_HEADER.size).reshape(height, width)
