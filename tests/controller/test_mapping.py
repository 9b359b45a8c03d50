"""The main job, its processes replaced: what is done in which case."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from cartoseq.analysis.runfolder import RunFolder
from cartoseq.controller import mapping
from cartoseq.controller.child import ChildError
from cartoseq.controller.mapping import InterruptedRunError, map_experiment
from cartoseq.controller.supervisor import Ending, Outcome
from cartoseq.streaming.errors import InputError, RunError

EXPERIMENT = """
[chip]
barcodes = "chip.txt"
[[library]]
name = "rna"
layer = "rna"
read_structures = ["25C10M", "100T"]
reads = [["1.fq", "2.fq"]]
genome = "genome.fa"
genes = "genes.gtf"
"""


class Silence:
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)

    def doing(self, what, fraction=None):
        pass

    def show(self, state):
        pass


class World:
    """An experiment, and what its processes would do."""

    def __init__(self, folder: Path):
        for name in ("chip.txt", "1.fq", "2.fq", "genome.fa", "genes.gtf"):
            (folder / name).touch()
        self.experiment = folder / "experiment.toml"
        self.experiment.write_text(EXPERIMENT)
        self.run = RunFolder(folder / "RUN")
        self.ending = Ending(Outcome.FINISHED)
        self.did: list[str] = []
        self.screen = Silence()

    def prepare(self, run, held, screen, stopped, *, look_at_reads):
        assert look_at_reads
        os.fstat(held)
        self.did.append("prepare")
        return not stopped()

    def supervise(self, run, names, stopped, show, *, inherited):
        self.did.append("supervise")
        if self.ending.outcome is Outcome.FINISHED:
            run.qc.write_text('{"schema": 1, "complete": true}')
        return self.ending

    def publish(self, run, screen):
        self.did.append("publish")
        run.report.write_text("report")

    def map(self, *, resume=False):
        self.did.clear()
        map_experiment(self.experiment, self.run.path, resume=resume, screen=self.screen)
        return self.did

    def events(self):
        return [json.loads(line)["event"] for line in self.run.journal.read_text().splitlines()]


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    for name in ("prepare", "supervise", "publish"):
        monkeypatch.setattr(mapping, name, getattr(world, name))
    return world


def test_a_run_is_prepared_supervised_and_published(world):
    assert world.map() == ["prepare", "supervise", "publish"]
    assert world.events() == ["started", "finished", "published"]


def test_a_complete_run_is_left_alone(world):
    world.map()
    assert world.map(resume=True) == []
    assert "nothing is left to do" in world.screen.said[-1]


def test_a_run_interrupted_before_its_report_gets_it(world, monkeypatch):
    def interrupted(run, screen):
        raise KeyboardInterrupt

    monkeypatch.setattr(mapping, "publish", interrupted)
    with pytest.raises(InterruptedRunError, match="--resume"):
        world.map()
    monkeypatch.setattr(mapping, "publish", world.publish)
    assert world.map(resume=True) == ["publish"]


def test_a_stopped_run_says_how_to_go_on(world):
    world.ending = Ending(Outcome.STOPPED)
    with pytest.raises(InterruptedRunError) as caught:
        world.map()
    assert str(caught.value).endswith(f"\n  cartoseq map {world.experiment} --out {world.run.path} --resume")
    assert world.events() == ["started", "stopped"]
    world.ending = Ending(Outcome.FINISHED)
    assert world.map(resume=True) == ["prepare", "supervise", "publish"]


def test_a_stop_while_preparing_starts_nothing(world, monkeypatch):
    monkeypatch.setattr(mapping, "prepare", lambda *_, **__: False)
    with pytest.raises(InterruptedRunError):
        world.map()
    assert world.did == []


def test_a_failure_makes_the_maps_of_what_came_before(world, monkeypatch):
    world.ending = Ending(Outcome.FAILED, "1.fq: it is damaged.", 3)
    with pytest.raises(ChildError, match=r"^1.fq: it is damaged\.$"):
        world.map()
    assert world.did == ["prepare", "supervise"]
    world.run.log.mkdir()
    (world.run.log / "0.log").touch()
    monkeypatch.setattr(mapping, "_shown_on", lambda *_: None)
    monkeypatch.setattr(mapping, "fold_log", lambda *_: world.did.append("fold"))
    with pytest.raises(ChildError):
        world.map(resume=True)
    assert world.did == ["prepare", "supervise", "fold", "publish"]


def test_a_full_disk_is_not_filled_further(world):
    world.ending = Ending(Outcome.FAILED, "RUN: the disk is full.", 7)
    world.run.path.mkdir()
    with pytest.raises(ChildError, match=r"^RUN: the disk is full\.$") as caught:
        world.map()
    assert caught.value.exit_code == 7
    assert "publish" not in world.did


def test_another_experiment_is_not_taken_for_this_one(world):
    world.map()
    world.experiment.write_text(EXPERIMENT.replace('"rna"\nlayer', '"other"\nlayer'))
    with pytest.raises(InputError, match="not the one that this run was started with"):
        world.map(resume=True)


def test_a_default_that_is_newer_than_the_run_is_no_difference(world):
    world.map()
    settings = world.run.settings.read_text()
    assert "reserve_mib = 1024\n" in settings
    world.run.settings.write_text(settings.replace("reserve_mib = 1024\n", ""))
    assert world.map(resume=True) == []


def test_a_run_is_not_started_over(world):
    world.map()
    with pytest.raises(InputError, match="something lies there already"):
        world.map()


def test_two_do_not_work_on_one_run(world, monkeypatch):
    def supervise(*_, **__):
        with pytest.raises(RunError, match="another cartoseq is working on this run"):
            map_experiment(world.experiment, world.run.path, resume=True, screen=Silence())
        return Ending(Outcome.STOPPED)

    monkeypatch.setattr(mapping, "supervise", supervise)
    with pytest.raises(InterruptedRunError):
        world.map()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_ask_for_a_stop(number):
    with mapping._interrupts() as interrupted:
        assert not interrupted.is_set()
        os.kill(os.getpid(), number)
        assert interrupted.wait(5)


def test_a_second_interrupt_is_one():
    with mapping._interrupts() as interrupted:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupted.wait(5)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with mapping._interrupts() as interrupted:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupted.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)
