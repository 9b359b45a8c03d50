"""A disk that fills holds the run back and loses nothing; with space again it goes on to the same files."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import command

SETTINGS = "\n[run]\nblock_clusters = 500\ncheckpoint_s = 0.3\nsegment_mib = 1\nreserve_mib = {reserve}\n"
DISK_BYTES = 48 << 20
#: What the run may write before the disk is full: more than its first blocks, less than its log.
ROOM_BYTES = 5 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a full disk cannot be tried: mounting a small one needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def undisturbed(simulated, cartoseq, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "RUN"
    cartoseq("map", _experiment(simulated, run.parent / "experiment", 0), "--out", run)
    return run


def _experiment(simulated: Path, folder: Path, reserve_mib: int) -> Path:
    shutil.copytree(simulated.parent, folder, ignore=shutil.ignore_patterns("truth"))
    with (folder / simulated.name).open("a") as stream:
        stream.write(SETTINGS.format(reserve=reserve_mib))
    return folder / simulated.name


def _fill(disk: Path, leave_bytes: int) -> Path:
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - leave_bytes))
    return filler


def _events(run: Path) -> list[str]:
    journal = run / "journal.jsonl"
    return [json.loads(line)["event"] for line in journal.read_text().splitlines()] if journal.exists() else []


def _until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


@contextmanager
def _started(*arguments: object, said: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        said.open("w") as stream,
        subprocess.Popen(command("map", *arguments), stdout=subprocess.DEVNULL, stderr=stream, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _same_results(run: Path, expected: Path) -> None:
    for name in ("maps.h5", "qc.json"):
        assert (run / name).read_bytes() == (expected / name).read_bytes()
    assert (run / "report.html").is_file()


@pytest.mark.timeout(300)
def test_a_run_waits_for_space_and_goes_on_by_itself(disk, simulated, undisturbed, tmp_path):
    experiment = _experiment(simulated, tmp_path / "experiment", 0)
    filler = _fill(disk, ROOM_BYTES)
    run, said = disk / "RUN", tmp_path / "said"
    with _started(experiment, "--out", run, said=said) as process:
        _until(lambda: "WAITING: the disk is full" in said.read_text(), process)
        time.sleep(4)
        assert process.poll() is None
        assert "going on" not in said.read_text()
        filler.unlink()
        assert process.wait(120) == 0, said.read_text()
    _same_results(run, undisturbed)
    events = _events(run)
    assert events.count("waiting") == events.count("going on") == 1
    assert "process died" not in events


@pytest.mark.timeout(300)
def test_a_run_stopped_while_it_waits_ends_soon_and_resumes(disk, simulated, undisturbed, cartoseq, tmp_path):
    experiment = _experiment(simulated, tmp_path / "experiment", 8)
    filler = _fill(disk, ROOM_BYTES + (8 << 20))
    run, said = disk / "RUN", tmp_path / "said"
    with _started(experiment, "--out", run, said=said) as process:
        _until(lambda: "waiting" in _events(run), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130, said.read_text()
    assert "--resume" in said.read_text()
    filler.unlink()
    cartoseq("map", experiment, "--out", run, "--resume")
    _same_results(run, undisturbed)


@pytest.mark.timeout(300)
def test_no_space_for_the_last_maps_is_one_message_and_is_made_up_for(disk, simulated, undisturbed, cartoseq, tmp_path):
    experiment = _experiment(simulated, tmp_path / "experiment", 0)
    run, said = disk / "RUN", tmp_path / "said"
    follow = experiment.read_text().replace('name = "rna"', 'name = "rna"\nfollow_until = "done"', 1)
    experiment.write_text(follow)
    with _started(experiment, "--out", run, said=said) as process:
        _until(lambda: (run / "state" / "fold.h5").exists(), process)
        time.sleep(6)
        filler = _fill(disk, 256 << 10)
        (experiment.parent / "done").touch()
        assert process.wait(60) == 7, said.read_text()
    complaint = said.read_text().strip().splitlines()[-1]
    assert complaint.startswith("cartoseq: ")
    assert "free some space" in complaint.lower()
    assert "Traceback" not in said.read_text()
    filler.unlink()
    cartoseq("map", experiment, "--out", run, "--resume")
    _same_results(run, undisturbed)
