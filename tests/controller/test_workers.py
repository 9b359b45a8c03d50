"""How a process of a run ends, and how a reader waits."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time

import pytest

from cartoseq.analysis.runfolder import RunFolder
from cartoseq.controller import workers
from cartoseq.controller.config import freeze, load_experiment
from cartoseq.controller.supervisor import Supervisor
from cartoseq.controller.workers import STOPPED, _patiently
from cartoseq.streaming.errors import RunError
from cartoseq.streaming.feed import NoAnswerError

from .test_mapping import World


@pytest.fixture
def run(tmp_path):
    experiment = load_experiment(World(tmp_path).experiment)
    run = RunFolder(tmp_path / "RUN")
    run.create(freeze(experiment), '{"run": 7, "program": "a test"}\n')
    return run


@pytest.fixture
def started(run, tmp_path_factory):
    """Start a process as the supervisor does."""
    processes = []
    sockets = tmp_path_factory.mktemp("s")

    def start(role: str) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "cartoseq.controller.workers", role, str(run.path), str(sockets), "0"]
        processes.append(subprocess.Popen(program, stdin=subprocess.PIPE, stderr=subprocess.PIPE))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def until_recording(run: RunFolder) -> None:
    deadline_s = time.monotonic() + 60
    while not (run.log / "lock").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    time.sleep(0.2)


@pytest.mark.parametrize("how", ["asked", "supervisor gone"])
def test_a_recorder_ends_when_asked_and_when_its_supervisor_is_gone(how, run, started):
    process = started("recorder")
    until_recording(run)
    if how == "asked":
        process.terminate()
    else:
        process.stdin.close()
        process.stdin = None
    assert process.wait(20) == STOPPED


def test_a_reader_without_a_recorder_ends_soon_when_its_supervisor_is_gone(run, started):
    process = started("reader")
    time.sleep(1)
    process.stdin.close()
    process.stdin = None
    assert process.wait(20) == STOPPED


def test_an_error_for_the_user_is_the_last_line(run, started):
    run.settings.write_text("[chip]\n")
    process = started("recorder")
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 3
    assert complaint.decode().startswith(str(run.settings))
    assert b"Traceback" not in complaint


def test_a_full_disk_ends_a_process_with_7(run, monkeypatch, capsys):
    def fail(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "RUN/state/fold.h5")

    monkeypatch.setattr(workers, "_stop_when_told", lambda _told: None)
    monkeypatch.setattr(workers, "bin_live", fail)
    assert workers.main(["binner", str(run.path), "-"]) == 7
    assert capsys.readouterr().err.startswith("RUN/state/fold.h5: the disk is full. Free some space")


def test_a_message_that_nobody_can_hear_changes_no_code(run, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workers, "_stop_when_told", lambda _told: None)
    monkeypatch.setattr(workers, "bin_live", fail)
    monkeypatch.setattr(sys, "stderr", type("Full", (), {"write": fail, "flush": fail})())
    assert workers.main(["binner", str(run.path), "-"]) == 7


def test_a_reader_waits_as_long_as_the_disk_is_full():
    answers = iter([NoAnswerError("full")] * 5)

    def send(wait_s):
        error = next(answers, None)
        if error:
            raise error

    assert _patiently(send, threading.Event())


def test_a_reader_waits_for_its_recorder_only_so_long():
    def never(wait_s):
        time.sleep(0.01)
        raise NoAnswerError("nobody there")

    with pytest.raises(NoAnswerError):
        _patiently(never, threading.Event(), timeout_s=0.05)


def test_a_stop_ends_the_waiting():
    stop = threading.Event()

    def full(wait_s):
        stop.set()
        raise NoAnswerError("full")

    assert not _patiently(full, stop)
    assert not _patiently(lambda _wait_s: None, stop)


def test_a_refusal_is_no_reason_to_wait():
    def refused(wait_s):
        raise RunError("another reader has taken over")

    with pytest.raises(RunError, match="taken over"):
        _patiently(refused, threading.Event())


def test_every_process_of_a_supervisor_is_a_known_role(run, tmp_path):
    roles = {child._arguments[0] for child in Supervisor(run, ["rna"], tmp_path).children}
    assert roles == {"recorder", "binner", "reader"}
