"""The control of a run from another shell: a socket that answers questions and hands orders to the engine.

The socket is ZeroMQ on ``ipc://``, in a folder that only the user may enter; messages are JSON objects::

    {"do": "status"}                     {"ok": true, "state": "running", "step": 12, "steps": 340, ...}
    {"do": "pause", "now": true}         {"ok": true, ...}      and "resume", "stop", "abort"
    {"do": "fly"}                        {"ok": false, "error": "..."}

Every order is in the run's journal. The file ``control`` in the run's folder says where the socket is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import zmq

from cartoseq.analysis.runfolder import RunFolder
from cartoseq.streaming.errors import RunError
from cartoseq.streaming.sockets import bind, open_socket

#: What an engine can be told; "status" only asks.
ORDERS: Final = ("pause", "resume", "stop", "abort")
#: An engine that does not answer for so long is busy with something that it must not be busy with.
ANSWER_S: Final = 5.0
_LONGEST_REQUEST: Final = 1 << 16

Handle = Callable[[Mapping[str, Any]], dict[str, Any]]


class ControlServer:
    """Answers at a run's control socket, from a thread; what it is asked is handled in the event loop's own thread.

    Args:
        run: The run's folder; its `control` says where the socket is, as long as there is one.
        handle: Is given each request, and returns the answer; may raise `ValueError` for one that makes no sense.
        loop: The loop in which requests are handled, in wall time or in virtual time.
    """

    def __init__(self, run: RunFolder, handle: Handle, loop: asyncio.AbstractEventLoop) -> None:
        self._run = run
        self._handle = handle
        self._loop = loop
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def __enter__(self) -> ControlServer:
        # The path of a Unix socket may have about 100 characters: a run folder may lie too deep for that.
        self._folder = Path(tempfile.mkdtemp(prefix="cartoseq-", dir=os.environ.get("XDG_RUNTIME_DIR")))
        self._socket = open_socket(self._context, zmq.REP, linger_ms=200)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _LONGEST_REQUEST)
        try:
            endpoint = bind(self._socket, f"ipc://{self._folder}/control")
            self._run.control.write_text(endpoint + "\n", encoding="utf-8")
        except BaseException:
            self._close()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._close()

    def _close(self) -> None:
        self._run.control.unlink(missing_ok=True)
        self._socket.close()
        self._context.term()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        while not self._ended.is_set():
            if self._socket.poll(100):
                parts = self._socket.recv_multipart()
                self._socket.send(json.dumps(self._answer(parts)).encode())

    def _answer(self, parts: list[bytes]) -> dict[str, Any]:
        try:
            request = json.loads(b"".join(parts))
            if not isinstance(request, dict):
                raise ValueError("expected a JSON object")
        except ValueError as error:
            return {"ok": False, "error": f"no request: {error}"}
        answer: Future[dict[str, Any]] = Future()
        try:
            self._loop.call_soon_threadsafe(self._handle_into, answer, request)
            return answer.result(ANSWER_S)
        except (TimeoutError, RuntimeError):
            return {"ok": False, "error": "the engine does not answer"}

    def _handle_into(self, answer: Future[dict[str, Any]], request: Mapping[str, Any]) -> None:
        try:
            answer.set_result({"ok": True, **self._handle(request)})
        except (ValueError, OSError) as error:
            answer.set_result({"ok": False, "error": str(error)})
        except BaseException as error:
            answer.set_result({"ok": False, "error": f"{type(error).__name__}: {error}"})
            raise


def ask(run: RunFolder, request: Mapping[str, Any], *, timeout_s: float = 2 * ANSWER_S) -> dict[str, Any] | None:
    """Ask the program that does a run.

    Returns:
        Its answer; nothing where no program answers for this run.

    Raises:
        RunError: it refuses, and says why.
    """
    try:
        endpoint = run.control.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    # A killed program leaves the file behind, and may leave the socket.
    if not endpoint.startswith("ipc://") or not Path(endpoint.removeprefix("ipc://")).exists():
        return None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = open_socket(context, zmq.REQ, linger_ms=0)
    try:
        socket.connect(endpoint)
        # With IMMEDIATE a message is only taken once there is a connection.
        if not socket.poll(1000, zmq.POLLOUT):
            return None
        socket.send(json.dumps(request).encode())
        if not socket.poll(int(timeout_s * 1000)):
            return None
        answer = json.loads(socket.recv())
    finally:
        with contextlib.suppress(zmq.ZMQError):
            socket.close()
            context.term()
    if not answer.get("ok"):
        raise RunError(f"{run.path}: {answer.get('error', 'the run refuses')}.")
    return dict(answer)
