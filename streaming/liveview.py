"""The live view: the newest picture of each topic, for anybody who looks, at no cost to the run.

One XPUB socket with a last-value cache: who subscribes gets the newest message of each topic at once (ZeroMQ guide,
chapter 5). Messages have a single frame, ``topic NUL payload``. Nothing here is kept or acknowledged: a viewer that is
slow misses pictures, and the publisher never waits for it. Every few seconds all newest messages are sent again, so
that a viewer which lost the last one to a full queue still ends with it. What must not be lost goes over the log.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from types import TracebackType

import zmq

from cartoseq.streaming.sockets import bind, check_endpoint, open_socket

_QUEUED_MESSAGES = 16
_REFRESH_S = 5.0
_SUBSCRIBE = 1


class LivePublisher:
    """Publishes the newest state of each topic. The socket lives in a thread of its own; publishing never blocks.

    Args:
        endpoint: Where to listen: ``ipc:///a/path`` or ``tcp://127.0.0.1:PORT``.
        refresh_s: How often everything is sent again.

    Raises:
        InputError: the endpoint can be reached from other machines, or is taken.
    """

    def __init__(self, endpoint: str, *, refresh_s: float = _REFRESH_S) -> None:
        self._refresh_s = refresh_s
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = open_socket(self._context, zmq.XPUB, linger_ms=0)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.SNDHWM, _QUEUED_MESSAGES)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 0)  # see LiveViewer: a ping of the publisher's does the same harm
        try:
            self.endpoint = bind(self._socket, endpoint)
        except Exception:
            self._socket.close()
            self._context.term()
            raise
        self._lock = threading.Lock()
        self._newest: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self._closing = False
        wake_name = f"inproc://wake-{id(self)}"
        self._woken = self._context.socket(zmq.PAIR)
        self._woken.bind(wake_name)
        self._wake = self._context.socket(zmq.PAIR)
        self._wake.connect(wake_name)
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        self._thread.start()

    def publish(self, topic: str, payload: bytes) -> None:
        """Make ``payload`` the newest of ``topic``. An older one that has not gone out yet is replaced.

        Raises:
            ValueError: the topic contains NUL.
        """
        if "\0" in topic:
            raise ValueError(f"topic {topic!r} contains NUL")
        with self._lock:
            self._newest[topic] = topic.encode() + b"\0" + payload
            self._changed.add(topic)
            self._call()

    def close(self) -> None:
        """Send what is waiting to whoever takes it now, and close."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._call()
        self._thread.join()
        self._wake.close(linger=0)
        self._context.term()

    def __enter__(self) -> LivePublisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self) -> None:
        """Wake the thread; a call that finds the bell still ringing is not needed."""
        with contextlib.suppress(zmq.Again):
            self._wake.send(b"", zmq.NOBLOCK)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        closing = False
        refresh_at = time.monotonic() + self._refresh_s
        while not closing:
            poller.poll(int(max(0.0, refresh_at - time.monotonic()) * 1000) + 1)
            while self._woken.poll(0):
                self._woken.recv()
            with self._lock:
                due = {topic: self._newest[topic] for topic in self._changed}
                self._changed.clear()
                closing = self._closing
                newest = dict(self._newest)
            while self._socket.poll(0):
                event = self._socket.recv()
                if event[:1] == bytes((_SUBSCRIBE,)):
                    due.update((topic, frame) for topic, frame in newest.items() if frame.startswith(event[1:]))
            if time.monotonic() >= refresh_at:
                refresh_at = time.monotonic() + self._refresh_s
                due = newest
            for frame in due.values():
                # A viewer whose queue is full misses this one; XPUB drops it for that viewer alone.
                with contextlib.suppress(zmq.Again):
                    self._socket.send(frame, zmq.NOBLOCK)
        self._socket.close(linger=200)
        self._woken.close(linger=0)


class LiveViewer:
    """Looks at the newest state of some topics.

    Args:
        endpoint: Where the publisher listens.
        topics: Topics wanted, whole names; none for all.

    Raises:
        InputError: the endpoint is not on this machine.
    """

    def __init__(self, endpoint: str, topics: Iterable[str] = ()) -> None:
        check_endpoint(endpoint)
        self.skipped = 0
        """Pictures that arrived and were replaced by newer ones before anybody looked."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = open_socket(self._context, zmq.SUB, linger_ms=0)
        self._socket.setsockopt(zmq.RCVHWM, _QUEUED_MESSAGES)
        # A full queue and a publisher that goes away make libzmq 4.3.5 abort the whole process at its next heartbeat,
        # or at one of the publisher's that waits behind what is queued (out_event after an input error). So neither
        # end sends any. A viewer sees a lost link by the age of what it shows.
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
        for prefix in [topic.encode() + b"\0" for topic in topics] or [b""]:
            self._socket.setsockopt(zmq.SUBSCRIBE, prefix)
        self._socket.connect(endpoint)
        self._last: dict[str, bytes] = {}

    def latest(self, timeout_s: float) -> dict[str, bytes]:
        """Return the newest payload of each topic that changed since the last call; empty if none did in time."""
        news: dict[str, bytes] = {}
        deadline = time.monotonic() + timeout_s
        while True:
            wait_ms = 0 if news else max(0, int((deadline - time.monotonic()) * 1000 + 0.999))
            if not self._socket.poll(wait_ms):
                return news
            name, separator, payload = self._socket.recv(zmq.NOBLOCK).partition(b"\0")
            topic = name.decode(errors="replace")
            if separator and self._last.get(topic) != payload:
                self.skipped += topic in news
                news[topic] = self._last[topic] = payload

    def close(self) -> None:
        """Close the connection."""
        self._socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> LiveViewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
