from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cartoseq.streaming import journal
from cartoseq.streaming.errors import CorruptionError
from cartoseq.streaming.journal import append, entry_of, read_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_an_event_says_its_time_for_people_and_for_programs(path: Path) -> None:
    append(path, [entry_of("stroke", 1_700_000_000.1234, {"volume_ul": 200})])
    (event,) = read_journal(path)
    assert event == {
        "number": 1,
        "time": "2023-11-14T22:13:20Z",
        "time_s": 1_700_000_000.123,
        "event": "stroke",
        "volume_ul": 200,
    }


def test_events_are_numbered_on_whoever_writes(path: Path) -> None:
    def write(name: int) -> None:
        for _ in range(20):
            append(path, [entry_of(f"{name}", 1.0, {}), entry_of(f"{name}", 1.0, {})])

    threads = [threading.Thread(target=write, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["number"] for event in read_journal(path)] == list(range(1, 121))


@pytest.mark.parametrize("long", [10, 20_000, 100_000])
def test_the_last_line_is_found_however_long_it_is(path: Path, long: int) -> None:
    append(path, [entry_of("one", 1.0, {}), entry_of("two", 1.0, {"wire": "x" * long})])
    append(path, [entry_of("three", 2.0, {"wire": "x" * long})])
    with path.open("ab") as stream:
        stream.write(b'{"number": 4, "torn' + b"x" * long)
    append(path, [entry_of("four", 2.0, {})])
    assert [event["event"] for event in read_journal(path)] == ["one", "two", "three", "four"]


def test_events_go_on_behind_lines_that_have_no_number(path: Path) -> None:
    path.write_bytes(b'{"time": "2026-01-01T00:00:00Z", "event": "started"}\n' * 3)
    append(path, [entry_of("four", 1.0, {})])
    assert b'"number": 4' in path.read_bytes().splitlines()[-1]
    with pytest.raises(CorruptionError, match="line 1 no longer reads"):
        read_journal(path)


def test_a_sync_that_fails_leaves_the_journal_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    append(path, [entry_of("one", 1.0, {})])
    before = path.read_bytes()
    monkeypatch.setattr(journal.os, "fdatasync", fails)
    with pytest.raises(OSError, match="Input/output"):
        append(path, [entry_of("two", 2.0, {})])
    assert path.read_bytes() == before
