"""What the acceptance tests share: the command line as a user calls it, and a small simulated experiment."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cartoseq.controller.config import load_experiment
from cartoseq.controller.folding import make_fold
from cartoseq.simulators.chip import ChipSettings
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.simulators.genome import GenomeSettings

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


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny sound experiment in plain text, with the indexes of its chip and reference beside it.

    A test copies it and breaks the copy in one place. The indexes stay: a broken table beside the sound index of the
    table that it was is what a user has who copied a file badly, and the index must hide nothing.
    """
    settings = ExperimentSettings(
        seed=3,
        reads=3_000,
        chip=ChipSettings(width=300, height=300),
        genome=GenomeSettings(bases=300_000, genes=40),
    )
    folder = simulate_experiment(tmp_path_factory.mktemp("sound"), settings).parent
    for name in ("rna_1.fq", "rna_2.fq", "genes.gtf", "genome.fa"):
        (folder / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
        (folder / f"{name}.gz").unlink()
    text = (folder / "experiment.toml").read_text()
    (folder / "experiment.toml").write_text(re.sub(r"\.(fq|gtf|fa)\.gz", r".\1", text))
    shutil.rmtree(folder / "truth")
    make_fold(load_experiment(folder / "experiment.toml"))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound experiment, to be broken."""
    return Path(shutil.copytree(sound, tmp_path / "experiment"))


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
