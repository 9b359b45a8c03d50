from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import zmq

from cartoseq.analysis.runfolder import RunFolder
from cartoseq.controller.control import ControlServer, ask
from cartoseq.simulators.clock import VirtualTimeLoop
from cartoseq.streaming.errors import RunError


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def handle(request: Mapping[str, Any]) -> dict[str, Any]:
    match request.get("do"):
        case "status":
            return {"thread": threading.current_thread().name, "now": request.get("now")}
        case "full":
            raise OSError(28, "No space left on device")
        case what:
            raise ValueError(f"there is no {what!r}")


async def asked(run: RunFolder, *requests: dict[str, Any]) -> list[Any]:
    """What the server answers, in a loop that must go on by itself meanwhile."""
    loop = asyncio.get_running_loop()
    answers: list[Any] = []
    done = asyncio.Event()

    def ask_all() -> None:
        for request in requests:
            try:
                answers.append(ask(run, request))
            except RunError as error:
                answers.append(error)
        loop.call_soon_threadsafe(done.set)

    with ControlServer(run, handle, loop):
        thread = threading.Thread(target=ask_all)
        thread.start()
        await done.wait()
        thread.join()
    return answers


@pytest.mark.parametrize("speed", [None, math.inf, 100.0])
def test_requests_are_handled_in_the_loop_s_thread_in_wall_and_in_virtual_time(
    run: RunFolder, speed: float | None
) -> None:
    factory = None if speed is None else lambda: VirtualTimeLoop(speed, wakes=True)
    with asyncio.Runner(loop_factory=factory) as runner:
        (answer,) = runner.run(asked(run, {"do": "status", "now": True}))
    assert answer == {"ok": True, "thread": threading.main_thread().name, "now": True}


def test_what_makes_no_sense_or_fails_is_told_and_the_server_goes_on(run: RunFolder) -> None:
    wrong, full, right = asyncio.run(asked(run, {"do": "fly"}, {"do": "full"}, {"do": "status"}))
    assert str(wrong) == f"{run.path}: there is no 'fly'."
    assert "No space left on device" in str(full)
    assert right["ok"]


def test_bytes_that_are_no_request_are_answered(run: RunFolder) -> None:
    async def main() -> list[dict[str, Any]]:
        answers = []
        with ControlServer(run, handle, asyncio.get_running_loop()), zmq.Context() as context:
            for parts in ([b"\xff\xfe"], [b"[1]"], [b'{"do":', b'"status"}'], [b""]):
                with context.socket(zmq.REQ) as socket:
                    socket.setsockopt(zmq.LINGER, 0)
                    socket.connect(run.control.read_text().strip())
                    socket.send_multipart(parts)
                    answers.append(json.loads(await asyncio.to_thread(socket.recv)))
        return answers

    assert [answer["ok"] for answer in asyncio.run(main())] == [False, False, True, False]


def test_the_socket_is_private_and_leaves_nothing_behind(run: RunFolder) -> None:
    async def main() -> Path:
        with ControlServer(run, handle, asyncio.get_running_loop()):
            socket = Path(run.control.read_text().strip().removeprefix("ipc://"))
            assert socket.stat().st_mode & 0o077 == 0
            assert socket.parent.stat().st_mode & 0o077 == 0
        return socket

    socket = asyncio.run(main())
    assert not socket.parent.exists()
    assert not run.control.exists()


@pytest.mark.parametrize("left_behind", [None, "", "nonsense", "ipc:///tmp/cartoseq-is-not-here/control"])
def test_a_run_that_nobody_does_gives_no_answer(run: RunFolder, left_behind: str | None) -> None:
    if left_behind is not None:
        run.control.write_text(left_behind)
    assert ask(run, {"do": "status"}) is None


def test_the_socket_file_of_a_killed_program_gives_no_answer(run: RunFolder, tmp_path: Path) -> None:
    import socket

    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    run.control.write_text(f"ipc://{path}\n")
    assert ask(run, {"do": "status"}, timeout_s=0.1) is None
