"""The binner around a fold that only counts: when it keeps, writes and shows, and what a full disk does to that."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from crc32c import crc32c

from cartoseq.analysis import binner as binner_module
from cartoseq.analysis.binner import Binner, LogFeed, Upkeep
from cartoseq.streaming.errors import DiskError
from cartoseq.streaming.header import RecordHeader, RecordKind
from cartoseq.streaming.log import LogReader, LogWriter


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class Fold:
    """Takes records up to an end."""

    def __init__(self, end: int):
        self.end = end
        self.position = 0
        self.libraries = ()

    @property
    def complete(self):
        return self.position >= self.end

    def add(self, record):
        self.position += 1

    def check(self):
        pass


class Feed:
    """Gives a record a second."""

    def __init__(self, clock):
        self.clock = clock

    def next(self, timeout_s):
        self.clock.now_s += 1
        return object()


class Disk:
    """Takes states and maps, or refuses them."""

    def __init__(self, clock):
        self.clock = clock
        self.refuses: set[str] = set()
        self.tried: list[tuple[float, str, int]] = []

    def take(self, what, fold):
        self.tried.append((self.clock.now_s, what, fold.position))
        if what in self.refuses:
            raise DiskError("maps.h5: no space") if what == "maps" else OSError(28, "No space left on device")

    def times(self, what):
        return [at_s for at_s, tried, _ in self.tried if tried == what]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def disk(clock, monkeypatch):
    disk = Disk(clock)
    monkeypatch.setattr(binner_module, "restore_checkpoint", lambda _path, _fold: False)
    monkeypatch.setattr(binner_module, "save_checkpoint", lambda _path, fold: disk.take("state", fold))
    monkeypatch.setattr(binner_module, "write_snapshot", lambda _maps, _qc, fold: disk.take("maps", fold))
    return disk


def a_binner(clock, end: int, published: list[str] | None = None) -> Binner:
    return Binner(
        Fold(end),
        state_path=Path("state"),
        maps_path=Path("maps"),
        qc_path=Path("qc.json"),
        publish=lambda topic, _payload: None if published is None else published.append(topic),
        checkpoint_s=2,
        clock=clock,
    )


def run(binner, clock, stopped=lambda: False):
    binner.run(Feed(clock), stopped=stopped, ended=lambda: False)


def test_states_are_kept_now_and_then_and_maps_less_often(clock, disk):
    run(a_binner(clock, 65), clock)
    assert disk.times("state") == [*range(2, 66, 2), 65]
    assert disk.times("maps") == [30, 60, 65]


def test_a_state_that_is_kept_already_is_not_kept_again(clock, disk):
    binner = a_binner(clock, 4)
    run(binner, clock)
    assert [position for _, what, position in disk.tried if what == "state"] == [2, 4]


def test_a_stopped_binner_keeps_its_state_and_writes_no_maps(clock, disk):
    run(a_binner(clock, 100), clock, stopped=lambda: clock.now_s >= 7)
    assert disk.tried[-1] == (7, "state", 7)
    assert disk.times("maps") == []


def test_a_state_that_the_disk_refuses_is_tried_again_and_said_once(clock, disk, caplog):
    caplog.set_level(logging.INFO)
    disk.refuses = {"state"}
    binner = a_binner(clock, 30)
    feed = Feed(clock)
    binner.run(feed, stopped=lambda: clock.now_s >= 18, ended=lambda: False)
    assert disk.times("state") == [2, 7, 12, 17, 18]
    assert caplog.text.count("the state could not be written") == 1
    disk.refuses = set()
    binner.run(feed, stopped=lambda: False, ended=lambda: False)
    assert caplog.text.count("the state is written again") == 1


def test_a_snapshot_that_the_disk_refuses_is_tried_again(clock, disk):
    disk.refuses = {"maps"}
    binner = a_binner(clock, 100)
    run(binner, clock, stopped=lambda: clock.now_s >= 62)
    assert disk.times("maps") == [30, 60]


def test_only_the_last_maps_must_be_written(clock, disk):
    disk.refuses = {"state", "maps"}
    with pytest.raises(DiskError, match="no space"):
        run(a_binner(clock, 3), clock)
    disk.refuses = {"state"}
    run(a_binner(clock, 3), clock)


def test_counters_that_the_disk_refuses_are_the_disks_fault(clock, disk, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(binner_module, "write_snapshot", fail)
    with pytest.raises(DiskError, match=r"qc\.json: the counters could not be written: No space left on device"):
        run(a_binner(clock, 3), clock)


def test_what_is_folded_is_shown_before_the_last_maps_are_written(clock, disk, monkeypatch):
    shown = []
    binner = a_binner(clock, 3, shown)
    monkeypatch.setattr(binner_module, "write_snapshot", lambda *_: shown.append("maps"))
    run(binner, clock)
    assert shown[-3:] == ["status", "maps", "status"]


def test_upkeep_takes_only_a_small_share_of_the_time(clock):
    def work():
        clock.now_s += 2
        return True

    upkeep = Upkeep(work, 1, clock)
    begun = []
    while clock.now_s < 100:
        before_s = clock.now_s
        upkeep.when_due()
        if clock.now_s > before_s:
            begun.append(before_s)
        clock.now_s += 1
    assert begun == [1, 43, 85]


def test_the_end_of_a_log_is_looked_up_only_when_it_is_reached(tmp_path, monkeypatch):
    with LogWriter(tmp_path / "log", {"run": 1}) as writer:
        for sequence in range(6):
            end = RecordHeader(RecordKind.END, 1, source=sequence, payload_bytes=2, payload_crc=crc32c(b"{}"))
            writer.append(end, b"{}")
    looked = []
    look = LogReader.end.fget
    monkeypatch.setattr(LogReader, "end", property(lambda reader: looked.append(1) or look(reader)))
    with LogReader(tmp_path / "log") as reader:
        feed = LogFeed(reader, 0)
        monkeypatch.setattr(binner_module, "feed_record", lambda index, *_: index)
        given = []
        while not feed.ended:
            given.append(feed.next(0.1))
        assert feed.next(0.1) is None
    assert given == list(range(6))
    assert len(looked) <= 3
