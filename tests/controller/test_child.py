from __future__ import annotations

import sys
import time

import pytest

from cartoseq.controller import child as child_module
from cartoseq.controller.child import Child, ChildError, how_it_ended
from cartoseq.streaming.errors import RunError


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Start a process that runs some code; it is gone when the test is."""
    monkeypatch.setattr(child_module, "PROGRAM", (sys.executable, "-I", "-c"))
    children = []

    def start(code: str, *, relay: bool = False) -> Child:
        child = Child("child", [f"import os, signal, sys, time\n{code}"], tmp_path / "child.log")
        children.append(child)
        child.start(relay=relay)
        return child

    yield start
    for child in children:
        child.kill()


def wait(child: Child) -> int:
    while child.exit_code is None:
        time.sleep(0.01)
    return child.exit_code


def until_said(child: Child, words: str) -> None:
    while child.last_words() != words:
        time.sleep(0.01)


def test_its_last_words_are_those_since_its_last_start(started):
    child = started("print('first')\nsys.exit(4)")
    assert wait(child) == 4
    assert child.last_words() == "first"
    child.start()
    wait(child)
    assert child.output.read_text() == "first\nfirst\n"
    assert child.last_words() == "first"


def test_a_process_that_does_not_end_when_asked_is_killed(started):
    child = started("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(100)")
    until_said(child, "deaf")
    child.stop(timeout_s=0.2)
    assert child.exit_code == -9


def test_a_process_that_ends_when_asked_is_not_killed(started):
    child = started("signal.signal(15, lambda *_: sys.exit(0))\nprint('ready', flush=True)\ntime.sleep(100)")
    until_said(child, "ready")
    child.stop()
    assert child.exit_code == 0
    child.stop()


def test_its_input_ends_only_with_this_process(started):
    child = started("print('reading', flush=True)\nprint(os.read(0, 1))")
    until_said(child, "reading")
    time.sleep(0.1)
    assert child.exit_code is None
    child._let_go()
    assert wait(child) == 0
    assert child.last_words() == "b''"


def test_what_it_says_is_passed_on(started):
    said = []
    child = started("print('one', flush=True)\ntime.sleep(0.05)\nprint('two')\nprint('three')", relay=True)
    assert child.finish(said.append, lambda: False)
    assert said == ["one", "two", "three"]


def test_a_message_and_its_code_are_passed_on(started):
    with pytest.raises(ChildError, match=r"^chip.h5: it is damaged\.$") as caught:
        started("print('chip.h5: it is damaged.', file=sys.stderr)\nsys.exit(3)", relay=True).finish(
            print, lambda: False
        )
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("end", "how"), [("sys.exit(1)", "ended with code 1"), ("os.kill(os.getpid(), 11)", "SIGSEGV")]
)
def test_a_fault_of_the_program_names_the_file_of_what_it_said(end, how, started):
    with pytest.raises(RunError, match=how) as caught:
        started(f"print('oh', file=sys.stderr, flush=True)\n{end}", relay=True).finish(print, lambda: False)
    assert "oh" in str(caught.value)
    assert "child.log" in str(caught.value)


def test_a_stop_ends_it(started):
    said = []
    child = started("print('at work', flush=True)\ntime.sleep(100)", relay=True)
    assert not child.finish(said.append, lambda: bool(said))
    assert child.exit_code == -15


def test_an_interrupt_kills_it(started):
    child = started("print('at work', flush=True)\ntime.sleep(100)", relay=True)

    def say(_line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.finish(say, lambda: False)
    assert child.exit_code == -9


def test_how_it_ended_in_words():
    assert [how_it_ended(code) for code in (1, -9, -63)] == [
        "ended with code 1",
        "was killed by SIGKILL",
        "was killed by signal 63",
    ]
