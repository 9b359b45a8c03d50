"""The supervisor: starts a run's processes, watches them, restarts a dead one, and ends them in order.

A process that dies without a reason that the user can act on (killed, crashed) is started again and resumes from what
is durable: a reader from the recorder's word, the recorder from its log, the binner from its state. A process that
ends with such a reason (a damaged file) ends the run: the others are stopped cleanly, everything that was
acknowledged is kept, and the message is the run's. A process that keeps dying is given more and more time between its
starts, and after some twenty deaths without anything moving forward the run ends.
"""

from __future__ import annotations

import enum
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cartoseq.analysis.runfolder import RunFolder
from cartoseq.controller.child import MESSAGE_CODES, Child, how_it_ended
from cartoseq.controller.workers import endpoint
from cartoseq.streaming.liveview import LiveViewer

#: A process that dies this often without anything moving forward in between ends the run.
RESTARTS_WITHOUT_PROGRESS = 20
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_POLL_S = 0.05
_SURELY_GOING_ON_S = 3.0
_DISK_FULL = 7


class Outcome(enum.Enum):
    """How the processes ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Ending:
    """How the processes ended, and for a failure the message and the exit code."""

    outcome: Outcome
    message: str = ""
    exit_code: int = 0


@dataclass
class LiveState:
    """What the processes last said.

    Attributes:
        status: The binner's counters and position (``analysis.binner.live_status``).
        images: Its pictures, by library.
        readers: Each reader's ``bytes_done``, ``bytes_total``, ``reads`` and ``growing`` (whether more may be written
            to its files), by the library's number.
        waiting: Why the recorder takes nothing now; empty while it does.
        stopping: Whether the processes were asked to end.
        restarts: How often a process was started again.
        records: Records that will be folded, where that is known: in a replay.
    """

    status: dict[str, Any] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    readers: dict[int, dict[str, int]] = field(default_factory=dict)
    waiting: str = ""
    stopping: bool = False
    restarts: int = 0
    records: int = 0

    def take(self, topic: str, payload: bytes) -> None:
        """Take what a binner published."""
        if topic == "status":
            self.status = json.loads(payload)
        elif topic.startswith("molecules/"):
            self.images[topic.removeprefix("molecules/")] = payload

    @property
    def reads(self) -> int:
        """Reads folded so far, all libraries together."""
        return sum(library["reads_total"] for library in self.status.get("libraries", {}).values())

    @property
    def fraction(self) -> float:
        """The share of the input that is folded, 0 to 1: what is read of it, less what still waits in the log."""
        if self.records:
            return float(self.status.get("position", 0) / self.records)
        total = sum(reader["bytes_total"] for reader in self.readers.values())
        read = sum(reader["reads"] for reader in self.readers.values())
        if not total or not read:
            return 0.0
        return sum(reader["bytes_done"] for reader in self.readers.values()) / total * min(1.0, self.reads / read)

    @property
    def growing(self) -> bool:
        """Whether more may be written to the files that are read, so that nobody knows how much is left."""
        return any(reader["growing"] for reader in self.readers.values())


def pause_s(restarts: int) -> float:
    """How long to wait before a process is started for the so-manyth time since something moved forward."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (restarts - 1)) if restarts else 0.0


@contextmanager
def _socket_folder() -> Iterator[Path]:
    # The path of a Unix socket may have about 100 characters: a run folder may lie too deep for that.
    folder = Path(tempfile.mkdtemp(prefix="cartoseq-", dir=os.environ.get("XDG_RUNTIME_DIR")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Supervisor:
    """The processes of one run.

    Args:
        run: The run's folder.
        libraries: The libraries' names; each gets a reader.
        sockets: The private folder of the run's sockets.
        inherited: Descriptors that every process holds as long as it lives.
    """

    def __init__(
        self, run: RunFolder, libraries: Sequence[str], sockets: Path, *, inherited: Sequence[int] = ()
    ) -> None:
        self._run = run
        self._sockets = sockets
        self._inherited = inherited
        self.live = LiveState()
        self.recorder = self._child("recorder")
        self.binner = self._child("binner")
        self.readers = [
            self._child("reader", str(number), name=f"reader-{name}") for number, name in enumerate(libraries)
        ]
        self._progress = -1
        self._waits_since_s = self._paused_s = 0.0
        self._durable = 0

    def _child(self, role: str, *more: str, name: str | None = None) -> Child:
        name = name or role
        arguments = [role, str(self._run.path), str(self._sockets), *more]
        return Child(name, arguments, self._run.processes / f"{name}.log", self._inherited)

    @property
    def children(self) -> list[Child]:
        """Every process, in the order in which they are started."""
        return [self.recorder, self.binner, *self.readers]

    def watch(self, stopped: Callable[[], bool], show: Callable[[LiveState], None]) -> Ending:
        """Start the processes and see them through.

        Args:
            stopped: Whether the user wants to stop.
            show: Is given the live state, some times a second.

        Returns:
            How it ended. No process is left running.
        """
        viewers: dict[Any, LiveViewer] = {
            name: LiveViewer(endpoint(self._sockets, name)) for name in ("binner", "recorder-status")
        }
        viewers |= {
            number: LiveViewer(endpoint(self._sockets, f"reader-{number}")) for number in range(len(self.readers))
        }
        try:
            for child in self.children:
                self._start(child)
            while True:
                if stopped():
                    self._run.note("stopping", reason="asked for")
                    return Ending(Outcome.STOPPED)
                self._look(viewers)
                show(self.live)
                if (ending := self._check()) is not None:
                    return ending
                time.sleep(_POLL_S)
        finally:
            try:
                self.live.stopping = True
                show(self.live)
                self._stop()
                self._look(viewers)
                show(self.live)
            except BaseException:
                # A second Ctrl-C: what is acknowledged is safe all the same.
                for child in self.children:
                    child.kill()
                raise
            finally:
                for viewer in viewers.values():
                    viewer.close()

    def _stop(self) -> None:
        """End the processes: readers first, so that what they hold is acknowledged, the recorder last."""
        for group in (self.readers, [self.binner], [self.recorder]):
            for child in group:
                child.ask_to_end()
            for child in group:
                child.stop()

    def _start(self, child: Child) -> None:
        self._run.note("process started", process=child.name, pid=child.start())

    def _check(self) -> Ending | None:
        for child in self.children:
            if child.due_s is not None:
                if time.monotonic() >= child.due_s:
                    self._start(child)
                continue
            code = child.exit_code
            if code is None or child.done:
                continue
            if code == 0 and child is not self.recorder:
                child.done = True
                self._run.note("process ended", process=child.name)
                continue
            words = child.last_words()
            self._run.note("process died", process=child.name, exit_code=code, said=words)
            if code in MESSAGE_CODES:
                return Ending(Outcome.FAILED, words or self._speechless(child, code), code)
            if child.restarts >= RESTARTS_WITHOUT_PROGRESS:
                return Ending(Outcome.FAILED, self._gave_up(child, code, words), 5)
            child.due_s = time.monotonic() + pause_s(child.restarts)
            child.restarts += 1
            self.live.restarts += 1
        if not self.binner.done:
            return None
        self._note_going_on()
        return Ending(Outcome.FINISHED)

    def _gave_up(self, child: Child, code: int, words: str) -> str:
        return (
            f"{self._run.path}: the {child.name} {how_it_ended(code)} {child.restarts + 1} times without getting on. "
            f"It last said: {words or 'nothing'}. See {child.output}; everything acknowledged is safe in the log."
        )

    def _speechless(self, child: Child, code: int) -> str:
        """What is said for a process that could not even write down why it ended."""
        if code == _DISK_FULL:
            return f"{self._run.path}: the disk is full. Free some space and go on with --resume."
        return f"{self._run.path}: the {child.name} {how_it_ended(code)}. Is the disk full?"

    def _look(self, viewers: dict[Any, LiveViewer]) -> None:
        for name, viewer in viewers.items():
            for topic, payload in viewer.latest(timeout_s=0.0).items():
                if topic == "progress":
                    self.live.readers[name] = json.loads(payload)
                elif topic == "recorder":
                    status = json.loads(payload)
                    self._note_waiting(status["paused"], status["durable_index"])
                else:
                    self.live.take(topic, payload)
        progress = self.live.status.get("position", 0) + sum(reader["reads"] for reader in self.live.readers.values())
        if progress > self._progress:
            self._progress = progress
            for child in self.children:
                child.restarts = 0

    def _note_waiting(self, why: str, durable: int) -> None:
        """Note when the recorder begins to wait, and when it goes on: when it wrote, or asked for data for a while.

        On a disk that is full to the last byte the recorder tries again every second, and waits again.
        """
        now_s = time.monotonic()
        if why:
            if not self.live.waiting:
                self._waits_since_s, self._durable = now_s, durable
                self._run.note("waiting", reason=why)
            self._paused_s = now_s
            self.live.waiting = why
        elif durable > self._durable or now_s - self._paused_s > _SURELY_GOING_ON_S:
            self._note_going_on()

    def _note_going_on(self) -> None:
        if self.live.waiting:
            self.live.waiting = ""
            self._run.note("going on", waited_s=round(time.monotonic() - self._waits_since_s, 1))


def supervise(
    run: RunFolder,
    libraries: Sequence[str],
    stopped: Callable[[], bool],
    show: Callable[[LiveState], None],
    *,
    inherited: Sequence[int] = (),
) -> Ending:
    """Run the processes of a run to their end.

    Args:
        run: The run's folder, with its frozen settings in it.
        libraries: The libraries' names.
        stopped: Whether the user wants to stop.
        show: Is given the live state, some times a second.
        inherited: Descriptors that every process holds as long as it lives.
    """
    with _socket_folder() as sockets:
        return Supervisor(run, libraries, sockets, inherited=inherited).watch(stopped, show)
