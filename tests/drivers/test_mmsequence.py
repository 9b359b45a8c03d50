from __future__ import annotations

import sys
import threading
import types
from typing import Any

import pytest

from cartoseq.drivers.mmsequence import Sequences


class Events:
    """As in pymmcore, where methods that are not replaced print the event."""

    def onSequenceAcquisitionStarted(self, label: str) -> None:  # noqa: N802
        raise AssertionError("printed")

    def onSequenceAcquisitionStopped(self, label: str) -> None:  # noqa: N802
        raise AssertionError("printed")


class Core:
    """Stands for MMCore, with a thread that calls it for the last time after a while."""

    def __init__(self) -> None:
        self.receiver: Any = None
        self.running = False
        self.refuses = False
        self.calls: list[str] = []
        self.last_call: threading.Timer | None = None

    def registerCallback(self, receiver: Any) -> None:  # noqa: N802
        self.calls.append("listen" if receiver else "do not listen")
        self.receiver = receiver

    def isSequenceRunning(self, label: str) -> bool:  # noqa: N802
        return self.running

    def startSequenceAcquisition(self, label: str, count: int, interval_ms: float, stop_on_overflow: bool) -> None:  # noqa: N802
        if self.refuses:
            raise RuntimeError("busy")
        self.calls.append(f"start {label} {count}")
        self.running = True
        self.receiver.onSequenceAcquisitionStarted(label)

    def stopSequenceAcquisition(self, label: str) -> None:  # noqa: N802
        self.calls.append(f"stop {label}")
        self.end_by_itself(label)

    def end_by_itself(self, label: str) -> None:
        self.running = False
        self.last_call = threading.Timer(0.005, self._call_for_the_last_time, [label])
        self.last_call.start()

    def _call_for_the_last_time(self, label: str) -> None:
        self.calls.append("last call")
        self.receiver.onSequenceAcquisitionStopped(label)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    module = types.ModuleType("pymmcore")
    module.MMEventCallback = Events  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pymmcore", module)
    return Core()


def test_a_sequence_that_ended_by_itself_is_over_after_its_threads_last_call(core: Core) -> None:
    sequences = Sequences()
    sequences.begin(core, "Camera", 3)
    core.end_by_itself("Camera")
    sequences.end(core, "Camera")
    sequences.end(core, "Camera")
    assert core.calls == ["listen", "start Camera 3", "last call", "do not listen"]


def test_a_sequence_that_runs_is_ended_also_by_the_next_one(core: Core) -> None:
    sequences = Sequences()
    sequences.begin(core, "Camera", 3)
    sequences.begin(core, "Camera", 4)
    sequences.end(core, "Camera")
    once = ["listen", "start Camera 3", "stop Camera", "last call", "do not listen"]
    assert core.calls == [*once, *(call.replace("3", "4") for call in once)]


def test_a_sequence_that_is_refused_leaves_nothing_behind(core: Core) -> None:
    sequences = Sequences()
    core.refuses = True
    with pytest.raises(RuntimeError, match="busy"):
        sequences.begin(core, "Camera", 3)
    sequences.end(core, "Camera")
    assert core.calls == ["listen", "do not listen"]


def test_a_thread_that_never_calls_is_not_waited_for_for_ever(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cartoseq.drivers.mmsequence._EVENT_S", 0.001)
    sequences = Sequences()
    sequences.begin(core, "Camera", 3)
    core.running = False
    sequences.end(core, "Camera")
    assert core.receiver is None
