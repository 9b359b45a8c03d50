"""`cartoseq run` on a simulated instrument, looked at and told what to do from another process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cartoseq.controller.engine import EndReason
from cartoseq.controller.ledger import Ledger
from cartoseq.controller.runjournal import read_journal
from cartoseq.controller.running import EndedEarly, Simulation, order, run_recipe, status
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.streaming.errors import InputError, RunError

from .benches import PROJECT, with_zaber_stage

INSTRUMENT = PROJECT / "controller" / "demonstration" / "instrument.toml"
HEAD = """\
name = "two flows and a picture"
[chip]
barcode_bases = 25
width_um = 300
height_um = 300
[reagents]
mix = { port = 2, loaded_ul = 5000 }
"""
PICTURES = """\
[[step]]
do = "autofocus"
points = 1
sweep_um = 40
channel = { name = "nuclei", light = "green", power_mw = 10, exposure_ms = 20 }
[[step]]
do = "image_tiles"
channels = [{ name = "nuclei", light = "green", power_mw = 10, exposure_ms = 20 }]
"""
FLOWS = """\
[[step]]
do = "flow"
reagent = "mix"
volume_ul = 200
flow_ul_per_s = 20
[[step]]
do = "checkpoint"
label = "middle"
[[step]]
do = "incubate"
duration_s = 300
[[step]]
do = "flow"
reagent = "mix"
volume_ul = 200
flow_ul_per_s = 20
"""
RECIPE = HEAD + PICTURES + FLOWS
#: So that the five minutes' incubation takes fifteen seconds.
SPEED = 20.0
PATIENCE_S = 60.0


class Quiet:
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def doing(self, what: str, fraction: float | None = None) -> None:
        pass

    def step(self, what: str, fraction: float) -> None:
        assert 0 <= fraction <= 1
        self.steps.append(what)

    def show(self, state: Any) -> None:
        pass


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def run_it(recipe: Path, folder: Path, **options: Any) -> Quiet:
    screen = Quiet()
    run_recipe(recipe, INSTRUMENT, folder, simulation=Simulation(), screen=screen, **options)
    return screen


def lines_of(folder: Path) -> dict[str, str]:
    """What `cartoseq status` says."""
    said: list[str] = []
    status(folder, said.append)
    return {line.split(None, 1)[0]: line.split(None, 1)[1] for line in said}


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_journal(folder / "journal.jsonl") if event["event"] == kind]


def test_a_run_leaves_its_recipe_its_instrument_its_journal_and_its_pictures(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "RUN"
    screen = run_it(recipe, folder)
    assert (folder / "recipe.toml").read_text() == RECIPE
    assert (folder / "instrument.toml").read_bytes() == INSTRUMENT.read_bytes()
    assert len(list((folder / "images" / "tissue").glob("*.ome.tif"))) == 1
    assert events(folder, "opened")[0]["simulated"] is True
    assert events(folder, "ended")[0]["reason"] == "completed"
    assert Ledger.of(read_journal(folder / "journal.jsonl")).drawn_ul == {"mix": 400}
    assert screen.said[:3] == [
        "Focus found at 1 points, within 0 um of a plane.",
        "Imaged tissue: 1 tiles",
        "Every device is safe.",
    ]
    assert "as they are" in screen.said[-1], "one tile cannot be registered, and is kept"
    assert not (folder / "control").exists()
    said = lines_of(folder)
    assert said["state"] == "no program does this run now"
    assert said["ended"] == "completed"
    assert said["done"].endswith("actions of two flows and a picture")


def test_a_simulated_stage_that_must_be_homed_keeps_nobody_waiting(recipe: Path, tmp_path: Path) -> None:
    instrument = tmp_path / "instrument.toml"
    instrument.write_text(with_zaber_stage(INSTRUMENT.read_text()))
    run_recipe(recipe, instrument, tmp_path / "RUN", simulation=Simulation(), screen=Quiet())
    assert events(tmp_path / "RUN", "fault") == []
    assert events(tmp_path / "RUN", "ended")[0]["reason"] == EndReason.COMPLETED.value


def test_a_folder_with_another_run_in_it_is_refused_and_a_done_run_is_not_done_again(
    recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "RUN"
    run_it(recipe, folder)
    with pytest.raises(InputError, match="something lies there already"):
        run_it(recipe, folder)
    before = (folder / "journal.jsonl").read_bytes()
    assert run_it(recipe, folder, resume=True).said == [f"{folder}: its recipe was done to the end."]
    assert (folder / "journal.jsonl").read_bytes() == before
    recipe.write_text(RECIPE.replace("duration_s = 300", "duration_s = 301"))
    with pytest.raises(InputError, match="the recipe is not the one that this run was started with"):
        run_it(recipe, folder, resume=True)
    with pytest.raises(RunError, match="no program does this run now"):
        order(folder, "pause", print)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (RECIPE.replace("port = 2", "port = 11"), "port 11 is not one of the valve's 10"),
        (RECIPE + "[[step]]\ndo = 'fly'\n", "fly"),
    ],
)
def test_a_recipe_that_cannot_be_run_leaves_no_folder(recipe: Path, tmp_path: Path, text: str, problem: str) -> None:
    recipe.write_text(text)
    with pytest.raises(InputError, match=problem):
        run_it(recipe, tmp_path / "RUN")
    assert not (tmp_path / "RUN").exists()


@pytest.mark.parametrize("what", [status, lambda folder, say: order(folder, "stop", say)])
def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path, what: Callable[..., None]) -> None:
    with pytest.raises(InputError, match=r"it holds no recipe\.toml"):
        what(tmp_path, print)


def test_a_device_that_is_not_there_ends_the_run_before_it_begins(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot be opened") as caught:
        run_recipe(recipe, INSTRUMENT, tmp_path / "RUN", screen=Quiet())
    assert getattr(caught.value, "exit_code", 0) == 6
    assert lines_of(tmp_path / "RUN")["ended"] == "it never began: no device was opened"


def test_the_reads_of_an_experiment_are_mapped_into_the_same_folder(recipe: Path, tmp_path: Path) -> None:
    experiment = simulate_experiment(tmp_path / "simulated", ExperimentSettings(seed=2, reads=5_000))
    folder = tmp_path / "RUN"
    run_it(recipe, folder, experiment_path=experiment)
    for name in ("maps.h5", "qc.json", "report.html", "run.toml", "recipe.toml"):
        assert (folder / name).is_file(), name
    kinds = [event["event"] for event in read_journal(folder / "journal.jsonl")]
    assert kinds.index("ended") < kinds.index("process started") < kinds.index("published")
    with pytest.raises(InputError, match="this run has an experiment"):
        run_it(recipe, folder, resume=True)


# ------------------------------------------------------------------------------------------------- in another process


class Program:
    """`cartoseq run` in a process of its own."""

    def __init__(self, recipe: Path, folder: Path, *more: str) -> None:
        self.folder = folder
        arguments = ["run", recipe, "--instrument", INSTRUMENT, "--simulate", "--out", folder, *more]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cartoseq.controller.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, done: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline_s, "it does not happen"
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.01)

    def at(self, action: str) -> None:
        """Wait until it does this."""
        self.wait_for(lambda: (self.folder / "control").exists() and action in lines_of(self.folder).get("step", ""))

    def ends(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said


@pytest.fixture
def program(recipe: Path, tmp_path: Path) -> Iterator[Program]:
    recipe.write_text(HEAD + FLOWS)
    found = Program(recipe, tmp_path / "RUN", "--speed", str(SPEED))
    yield found
    found.process.kill()
    found.process.wait()
    assert found.process.stdout is not None
    found.process.stdout.close()


def test_a_run_is_watched_paused_resumed_and_stopped_from_another_process(program: Program) -> None:
    folder, said = program.folder, list[str]()
    program.at("incubate")
    assert lines_of(folder)["state"] == "running"
    assert lines_of(folder)["time"].endswith("left, by the plan")
    order(folder, "pause", said.append, now=True)
    assert "held by  operator: paused by the operator" in said
    order(folder, "resume", said.append)
    assert "held" not in lines_of(folder)
    order(folder, "stop", said.append)
    code, output = program.ends()
    assert code == 130
    assert "The run ended: stopped by the operator" in output
    assert "--resume" in output
    orders = [(event["order"], event["by"]) for event in events(folder, "order")]
    assert orders == [("pause", "control socket"), ("resume", "control socket"), ("stop", "control socket")]
    assert lines_of(folder)["ended"] == "stopped by the operator"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_safely(program: Program, number: signal.Signals) -> None:
    program.at("incubate")
    program.process.send_signal(number)
    code, output = program.ends()
    assert (code, events(program.folder, "ended")[0]["reason"]) == (130, "stopped_by_user")
    assert "Every device is safe." in output


def test_a_second_interrupt_breaks_a_stroke_off(program: Program) -> None:
    program.at("draw")
    program.process.send_signal(signal.SIGINT)
    program.wait_for(lambda: bool(events(program.folder, "order")))
    program.process.send_signal(signal.SIGINT)
    assert program.ends()[0] == 130
    assert events(program.folder, "ended")[0]["reason"] == "aborted_by_user"
    (delivered,) = events(program.folder, "delivered")
    assert delivered["volume_ul"] < 200


def test_a_killed_run_is_told_of_and_taken_up_again(program: Program, recipe: Path) -> None:
    program.at("incubate")
    program.process.kill()
    program.process.communicate()
    said = lines_of(program.folder)
    assert said["state"] == "no program does this run now"
    assert said["ended"].startswith("killed")
    assert said["at"].startswith("incubate")
    screen = run_it(recipe, program.folder, resume=True)
    assert screen.said[0].startswith("Taken up again")
    assert lines_of(program.folder)["ended"] == "completed"
    # What the syringe held is not drawn again: the simulated instrument is a new one, with all bottles full.
    assert Ledger.of(read_journal(program.folder / "journal.jsonl")).drawn_ul == {"mix": 400}


def test_a_run_that_a_program_works_on_is_no_other_s(program: Program, recipe: Path) -> None:
    program.at("incubate")
    with pytest.raises(RunError, match="another cartoseq is working on this run"):
        run_it(recipe, program.folder, resume=True)


def test_what_ended_early_names_its_reason_in_the_exit_code() -> None:
    assert EndedEarly("", EndReason.DEVICE_FAULT).exit_code == 6
    assert EndedEarly("", EndReason.DISK_FULL).exit_code == 7
