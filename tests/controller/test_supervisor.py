"""The supervisor over small stand-ins for the processes of a run."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path

import pytest

from cartoseq.analysis.runfolder import RunFolder
from cartoseq.controller import child as child_module
from cartoseq.controller import supervisor as supervisor_module
from cartoseq.controller.supervisor import Outcome, Supervisor, pause_s, supervise

STAND_IN = """
import os, signal, sys, time
from pathlib import Path
role, run = sys.argv[1], Path(sys.argv[2])
name = role + (sys.argv[4] if len(sys.argv) > 4 else "")
count = run / (name + ".starts")
starts = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(starts))

def last():
    with (run / "order").open("a") as stream:
        stream.write(name + "\\n")

def until_told():
    def told(*_):
        last()
        sys.exit(0)
    signal.signal(signal.SIGTERM, told)
    (run / (name + ".ready")).touch()
    while True:
        time.sleep(0.02)

def after(*names):
    while not all((run / (other + ".ready")).exists() for other in names):
        time.sleep(0.01)

exec((run / (name + ".py")).read_text())
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(child_module, "PROGRAM", (sys.executable, "-I", str(tmp_path / "stand_in.py")))
    monkeypatch.setattr(supervisor_module, "_FIRST_PAUSE_S", 0.01)
    run = RunFolder(tmp_path / "RUN")
    run.create("", "{}")
    return run


def behave(run: RunFolder, **roles: str) -> None:
    """What each process does; unless told, it waits to be ended."""
    for name in ("recorder", "binner", "reader0", "reader1"):
        (run.path / f"{name}.py").write_text(textwrap.dedent(roles.get(name, "until_told()")))


def watched(run: RunFolder, libraries=("rna",), stopped=lambda: False, show=lambda _state: None):
    ending = supervise(run, libraries, stopped, show)
    assert not left_behind(run)
    return ending


def events(run: RunFolder) -> list[dict]:
    return [json.loads(line) for line in run.journal.read_text().splitlines()]


def left_behind(run: RunFolder) -> list[int]:
    alive = []
    for event in events(run):
        if "pid" in event:
            try:
                os.kill(event["pid"], 0)
            except ProcessLookupError:
                continue
            alive.append(event["pid"])
    return alive


def starts(run: RunFolder, name: str) -> int:
    return int((run.path / f"{name}.starts").read_text())


def test_when_the_binner_is_done_readers_end_first_and_the_recorder_last(run):
    behave(run, binner="after('reader0', 'reader1', 'recorder')")
    assert watched(run, ("rna", "dna")).outcome is Outcome.FINISHED
    order = (run.path / "order").read_text().split()
    assert sorted(order[:2]) == ["reader0", "reader1"]
    assert order[2:] == ["recorder"]
    assert [event["process"] for event in events(run) if event["event"] == "process ended"] == ["binner"]


def test_a_stop_ends_readers_then_binner_then_recorder(run):
    behave(run)
    ready = [run.path / f"{name}.ready" for name in ("recorder", "binner", "reader0")]
    seen = []
    ending = watched(run, stopped=lambda: all(map(Path.exists, ready)), show=lambda state: seen.append(state.stopping))
    assert ending.outcome is Outcome.STOPPED
    assert (run.path / "order").read_text().split() == ["reader0", "binner", "recorder"]
    assert not seen[0]
    assert seen[-1]


def test_what_dies_is_started_again(run):
    behave(
        run,
        reader0="import os; sys.exit(1) if starts < 3 else until_told()",
        recorder="os.kill(os.getpid(), signal.SIGKILL) if starts == 1 else until_told()",
        binner="after('reader0', 'recorder')",
    )
    states = []
    assert watched(run, show=states.append).outcome is Outcome.FINISHED
    assert starts(run, "reader0") == 3
    assert starts(run, "recorder") == 2
    assert states[-1].restarts == 3
    died = [(event["process"], event["exit_code"]) for event in events(run) if event["event"] == "process died"]
    assert sorted(died) == [("reader-rna", 1), ("reader-rna", 1), ("recorder", -9)]


def test_a_recorder_that_ends_by_itself_is_started_again(run):
    behave(run, recorder="sys.exit(0) if starts == 1 else until_told()", binner="after('recorder')")
    assert watched(run).outcome is Outcome.FINISHED
    assert starts(run, "recorder") == 2


def test_a_message_for_the_user_ends_the_run(run):
    behave(
        run,
        reader0="print('noise', flush=True); print('a.fq: record 17: it is damaged.', file=sys.stderr); sys.exit(3)",
    )
    ending = watched(run)
    assert (ending.outcome, ending.exit_code) == (Outcome.FAILED, 3)
    assert ending.message == "a.fq: record 17: it is damaged."


def test_a_process_that_could_not_say_why_it_ended_gets_words(run):
    behave(run, binner="sys.exit(7)")
    ending = watched(run)
    assert ending.exit_code == 7
    assert ending.message == f"{run.path}: the disk is full. Free some space and go on with --resume."


@pytest.mark.parametrize(
    ("death", "how"),
    [("print('it broke'); sys.exit(1)", "ended with code 1"), ("os.kill(os.getpid(), 9)", "was killed by SIGKILL")],
)
def test_a_process_that_never_gets_on_ends_the_run(death, how, run, monkeypatch):
    monkeypatch.setattr(supervisor_module, "RESTARTS_WITHOUT_PROGRESS", 3)
    behave(run, binner=death)
    ending = watched(run)
    assert (ending.outcome, ending.exit_code) == (Outcome.FAILED, 5)
    assert f"the binner {how} 4 times without getting on" in ending.message
    assert starts(run, "binner") == 4


def test_the_pauses_before_a_start_grow_up_to_two_seconds():
    assert [pause_s(restarts) for restarts in range(8)] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2]


def test_a_second_interrupt_kills_at_once(run):
    behave(run, reader0="signal.signal(signal.SIGTERM, signal.SIG_IGN); (run / 'deaf').touch(); time.sleep(100)")

    def show(state):
        if state.stopping:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervise(run, ["rna"], (run.path / "deaf").exists, show)
    assert not left_behind(run)


class Said:
    """A viewer that sees what it is given."""

    def __init__(self, *news):
        self.news = list(news)

    def latest(self, timeout_s):
        return self.news.pop(0) if self.news else {}


def recorder(paused: str, durable: int) -> dict[str, bytes]:
    return {"recorder": json.dumps({"paused": paused, "durable_index": durable}).encode()}


def test_waiting_is_noted_once_when_it_begins_and_once_when_it_ends(run, tmp_path):
    supervisor = Supervisor(run, ["rna"], tmp_path)
    said = Said(
        recorder("", 5),
        recorder("full", 5),
        recorder("", 5),
        recorder("still full", 5),
        recorder("", 6),
        recorder("", 7),
    )
    seen = []
    for _ in range(6):
        supervisor._look({"recorder-status": said})
        seen.append(supervisor.live.waiting)
    assert seen == ["", "full", "full", "still full", "", ""]
    assert [event["event"] for event in events(run)] == ["waiting", "going on"]


def test_a_step_forward_forgives_restarts(run, tmp_path):
    supervisor = Supervisor(run, ["rna"], tmp_path)
    for child in supervisor.children:
        child.restarts = 7
    progress = json.dumps({"bytes_done": 1, "bytes_total": 2, "reads": 0, "growing": False}).encode()
    supervisor._look({0: Said({"progress": progress})})
    assert [child.restarts for child in supervisor.children] == [0, 0, 0]
    supervisor.recorder.restarts = 7
    supervisor._look({0: Said({"progress": progress})})
    assert supervisor.recorder.restarts == 7
