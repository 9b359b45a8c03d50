from __future__ import annotations

import json
import threading

import pytest

from cartoseq.analysis import runfolder
from cartoseq.analysis.runfolder import QC_SCHEMA, RunFolder, existing_run
from cartoseq.streaming import journal
from cartoseq.streaming.errors import InputError


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "RUN")
    run.create("settings", "descriptor")
    return run


def events(run: RunFolder) -> list[str]:
    return [json.loads(line)["event"] for line in run.journal.read_text().splitlines()]


def test_a_new_folder_holds_what_a_run_needs(run):
    assert run.settings.read_text() == "settings"
    assert run.descriptor.read_text() == "descriptor"
    assert run.processes.is_dir()
    assert not run.complete
    assert existing_run(run.path) == run


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "RUN").mkdir()
    RunFolder(tmp_path / "RUN").create("", "")


@pytest.mark.parametrize("name", ["a file", "run.toml", "processes"])
def test_a_folder_with_something_in_it_is_not_taken(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match="something lies there already"):
        RunFolder(tmp_path).create("", "")
    with pytest.raises(InputError, match="something lies there already"):
        RunFolder(tmp_path / name).create("", "")


def test_a_folder_without_settings_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"holds no run\.toml"):
        existing_run(tmp_path)


@pytest.mark.parametrize("complete", [True, False])
def test_a_run_is_complete_when_its_counters_say_so(complete, run):
    run.qc.write_text(json.dumps({"schema": QC_SCHEMA, "complete": complete, "libraries": {}}))
    assert run.complete is complete


def test_events_carry_time_and_facts(run):
    run.note("process died", process="binner", exit_code=-9)
    run.note("µ")
    first, second = map(json.loads, run.journal.read_text(encoding="utf-8").splitlines())
    assert first.pop("time").endswith("Z")
    assert first.pop("time_s") <= second["time_s"]
    assert first == {"number": 1, "event": "process died", "process": "binner", "exit_code": -9}
    assert second["event"] == "µ"


@pytest.mark.parametrize("torn", ["", '{"time": "2026-01-01T', "x"])
def test_half_a_line_of_a_crash_is_cut_off(torn, run):
    run.note("one")
    with run.journal.open("a") as stream:
        stream.write(torn)
    run.note("two")
    assert events(run) == ["one", "two"]


def test_a_torn_first_line_is_cut_off(run):
    run.journal.write_text('{"time"')
    run.note("one")
    assert events(run) == ["one"]


def test_what_the_disk_does_not_take_is_written_later(run, monkeypatch, caplog):
    append = runfolder.append

    def full(*_):
        raise OSError(28, "No space left on device")

    run.note("one")
    monkeypatch.setattr(runfolder, "append", full)
    run.note("two")
    run.note("three")
    assert events(run) == ["one"]
    assert "the journal cannot be written now (No space left on device)" in caplog.text
    monkeypatch.setattr(runfolder, "append", append)
    run.note("four")
    run.note("five")
    assert events(run) == ["one", "two", "three", "four", "five"]


def test_a_sync_that_fails_leaves_no_half_line_and_no_line_twice(run, monkeypatch):
    def fails(_descriptor):
        raise OSError(5, "Input/output error")

    run.note("one")
    with monkeypatch.context() as context:
        context.setattr(journal.os, "fdatasync", fails)
        run.note("two")
    assert events(run) == ["one"]
    run.note("three")
    assert events(run) == ["one", "two", "three"]


def test_several_may_write_at_once(run):
    def write(number: int) -> None:
        own = existing_run(run.path)
        for event in range(20):
            own.note(f"{number}-{event}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(events(run)) == sorted(f"{number}-{event}" for number in range(4) for event in range(20))
