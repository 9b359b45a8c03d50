"""Live equals batch: kills, replays, other orders and pauses give the same files, byte for byte.

The run has an RNA and a DNA library, both with known loci, so that alleles and junctions take part.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from cartoseq.analysis.maps import read_maps

from .conftest import command, results

FORMATS = ("--format", "gef", "--format", "gem", "--format", "h5ad", "--format", "mtx")
KILLS = 50
DNA_READS = 8_000
DNA_LIBRARY = """
[[library]]
name = "dna"
layer = "dna"
read_structures = ["25C10M", "80T"]
reads = [["dna_1.fq.gz", "dna_2.fq.gz"]]
genome = "genome.fa.gz"
loci = "known.vcf"
window_bp = 100_000
"""


def _copy(experiment: Path, folder: Path) -> Path:
    shutil.copytree(experiment.parent, folder, ignore=shutil.ignore_patterns("truth"))
    return folder / experiment.name


@pytest.fixture(scope="module")
def undisturbed(simulated, cartoseq, tmp_path_factory):
    """A run that nothing happened to, with its exports."""
    folder = tmp_path_factory.mktemp("undisturbed")
    experiment = _copy(simulated, folder / "experiment")
    _add_dna(experiment)
    with experiment.open("a") as stream:
        stream.write(DNA_LIBRARY + "\n[run]\nblock_clusters = 500\ncheckpoint_s = 0.3\nsegment_mib = 1\n")
    run = folder / "RUN"
    cartoseq("map", experiment, "--out", run)
    cartoseq("export", run, *FORMATS)
    return experiment, run


def _add_dna(experiment: Path) -> None:
    """Write known loci, which the RNA library counts as well, and reads of DNA, some of them across a junction."""
    folder = experiment.parent
    fasta = gzip.decompress((folder / "genome.fa.gz").read_bytes()).decode()
    contigs = {part.split()[0]: "".join(part.split("\n")[1:]) for part in fasta.split(">")[1:]}
    rows = ["##fileformat=VCFv4.2", *(f"##contig=<ID={name}>" for name in contigs)]
    rows.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    for name, sequence in contigs.items():
        for position in range(0, len(sequence), 97):
            if sequence[position] in "ACGT":
                alt = "A" if sequence[position] != "A" else "G"
                rows.append(f"{name}\t{position + 1}\t.\t{sequence[position]}\t{alt}\t.\t.\t.")
    (folder / "known.vcf").write_text("\n".join(rows) + "\n")
    text = experiment.read_text()
    experiment.write_text(text.replace('layer = "rna"', 'layer = "rna"\nloci = "known.vcf"', 1))
    contig = max(contigs.values(), key=len)
    third = len(contig) // 3
    joined = contig[:third] + contig[2 * third :]
    chance = np.random.default_rng(6)
    starts = chance.integers(0, len(joined) - 80, DNA_READS)
    starts[: DNA_READS // 20] = chance.integers(third - 60, third - 20, DNA_READS // 20)
    barcodes = gzip.decompress((folder / "rna_1.fq.gz").read_bytes()).decode().splitlines()[1::4]
    for number, bases in (
        (1, [barcode[:35] for barcode in barcodes[:DNA_READS]]),
        (2, [joined[start : start + 80] for start in starts.tolist()]),
    ):
        records = "".join(f"@d{k}/{number}\n{read}\n+\n{'I' * len(read)}\n" for k, read in enumerate(bases))
        (folder / f"dna_{number}.fq.gz").write_bytes(gzip.compress(records.encode(), 1, mtime=0))


def test_alleles_and_junctions_are_in_what_is_compared(undisturbed):
    libraries = read_maps(undisturbed[1] / "maps.h5").libraries
    assert libraries["rna"].dna.alleles.molecules.sum() > 1_000
    assert libraries["dna"].dna.alleles.molecules.sum() > 1_000
    assert libraries["dna"].dna.junctions.molecules[0] > 100


def _starts(run: Path) -> int:
    """How often the processes of a run were started."""
    journal = run / "journal.jsonl"
    return journal.read_text().count('"process started", "process": "binner"') if journal.exists() else 0


def _pids(run: Path) -> dict[str, int]:
    """The newest process of each name that the journal tells of."""
    if not (run / "journal.jsonl").exists():
        return {}
    pids = {}
    for line in (run / "journal.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "process started":
            pids[event["process"]] = event["pid"]
    return pids


@pytest.mark.timeout(400)
def test_fifty_kills_leave_no_trace(undisturbed, cartoseq, tmp_path):
    source, expected = undisturbed
    experiment = _copy(source, tmp_path / "experiment")
    text = experiment.read_text()
    for name in ("rna", "dna"):
        text = text.replace(f'name = "{name}"', f'name = "{name}"\nfollow_until = "sequencing.done"', 1)
    experiment.write_text(text)
    whole = {path.name: path.read_bytes() for path in source.parent.glob("*.fq.gz")}
    for name in whole:
        (experiment.parent / name).write_bytes(b"")
    run = tmp_path / "RUN"
    chance = random.Random(11)
    grown = dict.fromkeys(whole, 0)

    def grow(share: float) -> None:
        for name, content in whole.items():
            end = len(content) if share >= 1 else int(share * len(content))
            with (experiment.parent / name).open("ab") as stream:
                stream.write(content[grown[name] : end])
            grown[name] = end

    grow(0.05)
    process = subprocess.Popen(
        command("map", experiment, "--out", run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    killed: dict[str, int] = {}
    while sum(killed.values()) < KILLS:
        time.sleep(chance.uniform(0.2, 2.0))
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        pids = _pids(run)
        if not pids:
            continue
        name = chance.choice(sorted(pids))
        try:
            os.kill(pids[name], signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed[name] = killed.get(name, 0) + 1
        grow(0.05 + 0.9 * sum(killed.values()) / KILLS)
    grow(1.0)
    (experiment.parent / "sequencing.done").touch()
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert set(killed) == {"recorder", "binner", "reader-rna", "reader-dna"}
    cartoseq("export", run, *FORMATS)
    assert _comparable(run) == _comparable(expected)


def _comparable(run: Path) -> dict[str, str]:
    # The report shows the configuration, and with it the folder and the marker of the growing files.
    return {name: digest for name, digest in results(run).items() if name != "report.html"}


def test_a_replay_gives_the_same_files(undisturbed, cartoseq, tmp_path):
    _, expected = undisturbed
    cartoseq("replay", expected, "--out", tmp_path / "RUN")
    cartoseq("export", tmp_path / "RUN", *FORMATS)
    assert results(tmp_path / "RUN") == results(expected)


@pytest.mark.timeout(300)
def test_a_run_stopped_and_resumed_gives_the_same_files(undisturbed, cartoseq, tmp_path):
    experiment, expected = undisturbed
    run = tmp_path / "RUN"
    for attempt in range(8):
        arguments = ["map", experiment, "--out", run, *(["--resume"] if attempt else [])]
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline_s = time.monotonic() + 60
        while process.poll() is None and _starts(run) <= attempt and time.monotonic() < deadline_s:
            time.sleep(0.05)
        time.sleep(1.0 + 0.4 * attempt)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=90)
        if process.returncode == 0:
            break
        assert process.returncode == 130, said
        assert "Traceback" not in said
    else:
        cartoseq("map", experiment, "--out", run, "--resume")
    cartoseq("export", run, *FORMATS)
    assert results(run) == results(expected)


def _workers_of(run: Path) -> list[int]:
    """The processes that name the run's folder, whoever started them."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "cartoseq.controller.workers" in words and str(run) in words:
                found.append(int(folder.name))
    return found


@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are looked up in /proc")
def test_a_supervisor_killed_three_times_leaves_no_process_and_no_trace(undisturbed, cartoseq, tmp_path):
    experiment, expected = undisturbed
    run = tmp_path / "RUN"
    for attempt in range(3):
        arguments = ["map", experiment, "--out", run, *(["--resume"] if attempt else [])]
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline_s = time.monotonic() + 60
        while _starts(run) <= attempt and time.monotonic() < deadline_s:
            time.sleep(0.05)
        time.sleep(0.3 + 0.8 * attempt)
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        if attempt == 1:  # the next start finds the old processes still ending, and waits for them
            continue
        deadline_s = time.monotonic() + 20
        while _workers_of(run) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert not _workers_of(run)
    cartoseq("map", experiment, "--out", run, "--resume")
    for name in ("maps.h5", "qc.json", "report.html"):
        assert (run / name).read_bytes() == (expected / name).read_bytes()


def test_a_run_that_is_being_worked_on_is_left_alone(undisturbed, cartoseq, tmp_path):
    experiment, expected = undisturbed
    run = tmp_path / "RUN"
    first = subprocess.Popen(
        command("map", experiment, "--out", run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline_s = time.monotonic() + 60
    while not (run / "journal.jsonl").exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    second = cartoseq("map", experiment, "--out", run, "--resume", code=5)
    assert second.stderr.startswith(f"cartoseq: {run}: another cartoseq is working on this run.")
    assert second.stderr.count("\n") == 1
    _, said = first.communicate(timeout=120)
    assert first.returncode == 0, said
    assert (run / "maps.h5").read_bytes() == (expected / "maps.h5").read_bytes()
