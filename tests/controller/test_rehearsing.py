"""Processes that compile beside the work."""

from __future__ import annotations

import os
import sys

import pytest

from cartoseq.analysis import rehearsal
from cartoseq.controller import rehearsing


@pytest.fixture
def started(monkeypatch):
    """Helpers that only wait, and a list of the steps that were asked for."""
    steps = []

    class Helper(rehearsing.subprocess.Popen):
        def __init__(self, program, **keywords):
            steps.append((program[-1], self))
            super().__init__([sys.executable, "-c", "import sys; sys.stdin.read()"], **keywords)

    monkeypatch.setattr(rehearsing.subprocess, "Popen", Helper)
    return steps


def cores(monkeypatch, number: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(number)))


def test_each_missing_step_has_a_process_that_is_waited_for(monkeypatch, started):
    cores(monkeypatch, 2)
    monkeypatch.setattr(rehearsal, "missing_steps", lambda: ["place", "count"])
    with rehearsing.rehearsals_beside():
        assert [step for step, _ in started] == ["place", "count"]
    assert [helper.returncode for _, helper in started] == [0, 0]


def test_with_the_work_ends_the_compiling(monkeypatch, started):
    cores(monkeypatch, 2)
    monkeypatch.setattr(rehearsal, "missing_steps", lambda: ["place"])
    with pytest.raises(KeyError), rehearsing.rehearsals_beside():
        raise KeyError
    assert all(helper.returncode is not None for _, helper in started)


@pytest.mark.parametrize(("number", "missing"), [(1, ["place"]), (4, [])])
def test_nothing_is_started_on_one_core_or_with_nothing_to_compile(monkeypatch, started, number, missing):
    cores(monkeypatch, number)
    monkeypatch.setattr(rehearsal, "missing_steps", lambda: missing)
    with rehearsing.rehearsals_beside():
        pass
    assert started == []
