from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from cartoseq.analysis.runfolder import RunFolder
from cartoseq.controller import runlock
from cartoseq.controller.runlock import working_on
from cartoseq.streaming.errors import RunError


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "RUN")
    run.create("", "{}")
    return run


def refuse(line):
    raise AssertionError(line)


def test_a_run_is_held_by_one_and_then_free_again(run):
    with working_on(run, refuse), pytest.raises(RunError, match="another cartoseq"), working_on(run, refuse):
        pass
    with working_on(run, refuse):
        pass


def test_what_an_old_process_holds_is_waited_for(run):
    with working_on(run, refuse) as held:
        old = subprocess.Popen(
            [sys.executable, "-Ic", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[held]
        )
    said = []

    def say(line):
        said.append(line)
        threading.Thread(target=old.stdin.close).start()

    with working_on(run, say):
        assert old.wait(20) is not None
    assert said == ["Waiting until the processes of the interrupted run have ended."]


def test_an_old_process_that_does_not_end_is_said(run, monkeypatch):
    monkeypatch.setattr(runlock, "_OLD_PROCESSES_S", 0.05)
    with working_on(run, refuse) as held:
        copy = os.dup(held)
    with pytest.raises(RunError, match="an earlier start left behind"), working_on(run, lambda _line: None):
        pass
    os.close(copy)
    with working_on(run, refuse):
        pass
