"""Reads that are still being written: the run waits, is stopped and resumed meanwhile, and ends by the marker."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from cartoseq.simulators.chip import ChipSettings
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.simulators.genome import GenomeSettings

from .conftest import command, results

READS = 12_000
#: 35 bases of barcodes and 100 of template.
BYTES_PER_READ = 135
RUN = "\n[run]\nblock_clusters = 500\ncheckpoint_s = 0.3\n"


@pytest.fixture(scope="module")
def batch(cartoseq, tmp_path_factory):
    """The experiment with whole files, and its run."""
    folder = tmp_path_factory.mktemp("batch")
    settings = ExperimentSettings(
        seed=41, reads=READS, chip=ChipSettings(width=300, height=300), genome=GenomeSettings(genes=60)
    )
    experiment = simulate_experiment(folder / "experiment", settings)
    with experiment.open("a") as stream:
        stream.write(RUN)
    cartoseq("map", experiment, "--out", folder / "RUN")
    return experiment, folder / "RUN"


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 90) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.mark.timeout(300)
def test_a_run_stopped_while_it_waits_for_reads_gives_the_files_of_a_batch(batch, tmp_path):
    source, expected = batch
    folder = tmp_path / "experiment"
    shutil.copytree(source.parent, folder, ignore=shutil.ignore_patterns("truth", "*.fq.gz"))
    experiment, run, marker = folder / source.name, tmp_path / "RUN", folder / "sequencing.done"
    text = experiment.read_text()
    experiment.write_text(text.replace('layer = "rna"', f'layer = "rna"\nfollow_until = "{marker.name}"'))
    whole = {name: (source.parent / name).read_bytes() for name in ("rna_1.fq.gz", "rna_2.fq.gz")}

    def start(*options: str) -> subprocess.Popen[str]:
        arguments = command("map", experiment, "--out", run, *options)
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def grow(name: str, share: float) -> None:
        """Let a file have so much of its content: cut in a gzip stream, in a record."""
        (folder / name).write_bytes(whole[name][: int(share * len(whole[name]))])

    def journal() -> str:
        return (run / "journal.jsonl").read_text() if (run / "journal.jsonl").exists() else ""

    def recorded() -> float:
        """Reads in the log, nearly."""
        return sum(path.stat().st_size for path in (run / "log").glob("*.log")) / BYTES_PER_READ

    def stop(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "--resume" in said

    # There is no file yet.
    process = start()
    wait_for(lambda: "reader-rna" in journal(), process)
    time.sleep(0.5)
    stop(process)

    # Half of read 1, a third of read 2: the pairs that are whole are folded.
    grow("rna_1.fq.gz", 0.5)
    grow("rna_2.fq.gz", 0.33)
    process = start("--resume")
    wait_for(lambda: recorded() >= 3_000, process)
    stop(process)
    assert recorded() < READS / 2

    # Read 1 is whole, read 2 not yet, and no marker: it waits for more, however long nothing comes.
    grow("rna_1.fq.gz", 1)
    grow("rna_2.fq.gz", 0.8)
    process = start("--resume")
    wait_for(lambda: recorded() >= 9_000, process)
    time.sleep(1.0)
    assert process.poll() is None
    grow("rna_2.fq.gz", 1)
    marker.touch()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    ours, theirs = results(run), results(expected)
    # The report shows the settings, and with them the folder and the marker.
    assert {name: ours[name] for name in ours if name != "report.html"} == {
        name: theirs[name] for name in theirs if name != "report.html"
    }
