"""What the acceptance tests share: the command line as a user calls it, and a small simulated experiment."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment

Cartoseq = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    """The command line of one call."""
    return [sys.executable, "-m", "cartoseq.controller.cli", *map(str, arguments)]


@pytest.fixture(scope="session")
def cartoseq() -> Cartoseq:
    """Call the command line; ``code`` is the exit code that must come back."""

    def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated experiment: the path of its experiment file."""
    folder = tmp_path_factory.mktemp("simulated")
    return simulate_experiment(folder, ExperimentSettings(seed=5, reads=60_000))


def digests(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder, by its relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def results(run: Path) -> dict[str, str]:
    """The hashes of all that a run is for: maps, counters, report and exports."""
    return {
        name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in ("maps.h5", "qc.json", "report.html")
    } | digests(run / "exports")
