"""Files that may still be growing: read what is there, wait for more, until the end is declared.

A sequencer's own software writes its FASTQ files while the run goes on. Whether a file that has stopped growing is
finished cannot be seen from the file; somebody must say so. The usual way is an empty marker file written last
(Illumina's ``RTAComplete.txt`` and ``CopyComplete.txt`` are such). Until it exists, the end of the data is only the end
so far, and the part of a record that lies there is waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from cartoseq.streaming.errors import InputError, RunError


@dataclass(frozen=True)
class Follow:
    """How to follow files that grow.

    Attributes:
        end_marker: The file whose existence declares that all followed files are complete. None: only silence ends them
            (``quiet_timeout_s``).
        poll_s: Seconds between two looks at a file that has nothing new.
        quiet_timeout_s: A file that has not grown for so many seconds is at its end if there is no ``end_marker``;
            with one it is an error. None: wait for ever.
        stop: Set it from another thread or a signal handler to end the waiting with a :class:`RunError`.
        sleep: What waits; None waits on ``stop``, so that setting it ends the wait at once.
        clock: Seconds, never going backwards.
    """

    end_marker: Path | None = None
    poll_s: float = 1.0
    quiet_timeout_s: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    sleep: Callable[[float], object] | None = None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.end_marker is None and self.quiet_timeout_s is None:
            raise InputError(
                "follow",
                "neither an end marker nor a time of silence is given, so a growing file would never end",
                remedy="Name the file that the sequencer writes last, or a number of seconds without growth.",
            )

    @property
    def ended(self) -> bool:
        """Whether the end has been declared by the marker file."""
        return self.end_marker is not None and self.end_marker.exists()


class GrowingFile:
    """A file read from its beginning; where it is followed, :meth:`read` waits for data until the end is declared.

    Args:
        path: The file. A followed file need not exist yet.
        follow: How to wait; None takes the file as it is.

    Raises:
        InputError: there is no such file, or it cannot be read.
        RunError: the waiting was stopped.
    """

    def __init__(self, path: Path, follow: Follow | None = None) -> None:
        self.path = path
        self.bytes_read = 0
        self._follow = follow
        self._waiting_since_s: float | None = None
        while follow is not None and not path.exists() and not follow.ended:
            if self._wait_for_growth(follow):
                break
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise InputError(path, "there is no such file", remedy="Check the path.") from None
        except OSError as error:
            raise InputError(
                path, f"cannot be read: {error.strerror}", remedy="Check that it is a file and its permissions."
            ) from error

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes, waiting for at least one; empty only at the (declared) end.

        Raises:
            InputError: the file cannot be read, became shorter, or fell silent before its end was declared.
            RunError: the waiting was stopped.
        """
        while True:
            # The marker is looked for before the data: what was written before the marker is then surely seen.
            ended = self._follow is None or self._follow.ended
            try:
                piece = self._file.read(size)
            except OSError as error:
                raise InputError(
                    self.path,
                    f"cannot be read: {error.strerror}",
                    place=f"byte {self.bytes_read}",
                    remedy="Check the disk, or that it is a file and not a folder.",
                ) from error
            if piece:
                self.bytes_read += len(piece)
                self._waiting_since_s = None
                return piece
            if self._follow is None or ended:
                return b""
            if self.size() < self.bytes_read:
                raise InputError(
                    self.path,
                    f"became shorter while it was read: {self.size():,} bytes, and {self.bytes_read:,} were read",
                    remedy="A followed file may only grow; write to a new file instead, and start again.",
                )
            if self._wait_for_growth(self._follow):
                return b""

    def size(self) -> int:
        """The file's size now, in bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _wait_for_growth(self, follow: Follow) -> bool:
        """Wait one poll; tell whether silence has declared the end."""
        # Counted from the first look in vain: the reader may have been busy elsewhere before.
        if self._waiting_since_s is None:
            self._waiting_since_s = follow.clock()
        quiet_s = follow.clock() - self._waiting_since_s
        if follow.quiet_timeout_s is not None and quiet_s >= follow.quiet_timeout_s:
            if follow.end_marker is None:
                return True
            raise InputError(
                self.path,
                f"has not grown for {quiet_s:.0f} s and its end was not declared by {follow.end_marker}",
                remedy="See whether the sequencer still writes; create that file if the run is complete.",
            )
        if follow.sleep is not None:
            follow.sleep(follow.poll_s)
        else:
            follow.stop.wait(follow.poll_s)
        if follow.stop.is_set():
            raise RunError(f"{self.path}: stopped while waiting for it to grow")
        return False
