"""The sequences of pictures that run in one MMCore: begun, and seen to their end.

A camera's adapter takes a sequence in a thread of its own. If the sequence ends by itself, since all pictures are taken
or the buffer ran over, the adapter says so a moment before that thread calls MMCore for the last time. Whoever lets go
of the devices in between crashes the process; Micro-Manager's demonstration camera, from which many adapters were
made, does not wait for its thread then. What tells that the last call was made is MMCore's event.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pymmcore import CMMCore

#: Some adapters never make the last call; the event comes within milliseconds otherwise.
_EVENT_S: Final = 1.0


class Sequences:
    """The sequences of one core; all its methods are to be called in the core's thread."""

    def __init__(self) -> None:
        self._ended: dict[str, threading.Event] = {}
        self._events: Any = None

    def begin(self, core: CMMCore, label: str, count: int) -> None:
        """Let a camera take so many pictures, or fewer if the buffer runs over.

        Raises:
            RuntimeError: it refuses.
        """
        self.end(core, label)
        if not self._ended:
            self._events = self._receiver()
            core.registerCallback(self._events)
        self._ended[label] = threading.Event()
        try:
            core.startSequenceAcquisition(label, count, 0, True)
        except BaseException:
            self._ended[label].set()
            self.end(core, label)
            raise

    def end(self, core: CMMCore, label: str) -> None:
        """End a camera's sequence, and return when its thread calls MMCore no more; without one, nothing is done.

        Raises:
            RuntimeError: it cannot be ended.
        """
        if label not in self._ended:
            return
        try:
            if core.isSequenceRunning(label):
                core.stopSequenceAcquisition(label)
            self._ended[label].wait(_EVENT_S)
        finally:
            del self._ended[label]
            if not self._ended:
                core.registerCallback(None)
                self._events = None

    def _receiver(self) -> Any:
        import pymmcore

        def ended(_: Any, label: str) -> None:
            if label in self._ended:
                self._ended[label].set()

        # Where a method is not replaced, MMCore prints the event.
        methods = {name: _ignore for name in dir(pymmcore.MMEventCallback) if name.startswith("on")}
        return type("Events", (pymmcore.MMEventCallback,), {**methods, "onSequenceAcquisitionStopped": ended})()


def _ignore(*_: object) -> None:
    """Do nothing with an event."""
