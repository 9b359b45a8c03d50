"""The same reads as pairs and in the grouped form, barcodes in the names: the same map, and the codec is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import cartoseq as package
from cartoseq.analysis.fold import LibraryFold
from cartoseq.analysis.runfolder import RunFolder
from cartoseq.analysis.snapshot import library_map
from cartoseq.controller.config import load_experiment
from cartoseq.controller.folding import make_fold
from cartoseq.controller.sources import open_source
from cartoseq.controller.workers import prepare
from cartoseq.simulators.chip import ChipSettings
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.simulators.genome import GenomeSettings
from cartoseq.streaming.errors import InputError

CID, MID = 25, 10
CODECS = ("ACTG-first-low", "ACTG-first-high", "ACGT-first-low", "ACGT-first-high")
SHOWN = "ACGT-first-high"


def hexadecimal(bases: str, alphabet: str, *, first_is_low: bool) -> str:
    """Two bits a base, as a hexadecimal number of the digits that the bases need."""
    value = 0
    for base in reversed(bases) if first_is_low else bases:
        value = value << 2 | alphabet.index(base)
    return f"{value:0{-(-len(bases) // 2)}X}"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Simulated read pairs that the grouped form can hold: no N in the barcodes, no molecular one of low quality."""
    folder = tmp_path_factory.mktemp("pairs")
    settings = ExperimentSettings(
        seed=8, reads=24_000, chip=ChipSettings(width=400, height=400), genome=GenomeSettings(genes=60)
    )
    experiment = simulate_experiment(folder, settings)
    records = []
    for number in (1, 2):
        lines = gzip.decompress((folder / f"rna_{number}.fq.gz").read_bytes()).decode().splitlines()
        records.append(list(zip(*[iter(lines)] * 4, strict=True)))

    def fits(read: tuple[str, str, str, str]) -> bool:
        _, bases, _, qualities = read
        return "N" not in bases and sum(quality < chr(33 + 10) for quality in qualities[CID:]) <= 1

    kept = [pair for pair in zip(*records, strict=True) if fits(pair[0])]
    assert 20_000 < len(kept) < 24_000
    for number in (0, 1):
        text = "".join("\n".join(pair[number]) + "\n" for pair in kept)
        (folder / f"rna_{number + 1}.fq.gz").write_bytes(gzip.compress(text.encode(), 1, mtime=0))
    return experiment, kept


@pytest.fixture(scope="module")
def grouped(pairs):
    """The experiment files of the grouped form of the same reads, by codec and what grouped_names says."""
    experiment, kept = pairs
    written = {}
    for codec in CODECS:
        alphabet, _, order = codec.split("-")
        lines = []
        for (name, barcodes, *_), (_, bases, plus, qualities) in kept:
            cid = hexadecimal(barcodes[:CID], alphabet, first_is_low=order == "low")
            mid = hexadecimal(barcodes[CID:], "ACGT", first_is_low=False)
            lines.append(f"{name.removesuffix('/1')} {cid} {mid}\n{bases}\n{plus}\n{qualities}\n")
        reads = experiment.parent / f"{codec}.fq.gz"
        reads.write_bytes(gzip.compress("".join(lines).encode(), 1, mtime=0))
        for said in ("auto", codec):
            text = experiment.read_text()
            text = text.replace('["25C10M", "100T"]', '["25C10M100T"]')
            text = text.replace('[["rna_1.fq.gz", "rna_2.fq.gz"]]', f'[["{reads.name}"]]\ngrouped_names = "{said}"')
            written[codec, said] = experiment.with_name(f"{codec}.{said}.toml")
            written[codec, said].write_text(text)
    return written


def folded(experiment: Path) -> LibraryFold:
    """The fold over the reads of an experiment, made in this process."""
    found = load_experiment(experiment)
    (library,) = make_fold(found).libraries
    with open_source(found, 0) as blocks:
        for block in blocks:
            library.add(block)
    return library


@pytest.fixture(scope="module")
def expected(pairs):
    """What the pairs give."""
    return library_map(folded(pairs[0]))


def test_grouped_reads_give_the_map_of_the_pairs_and_the_codec_is_told(grouped, expected, cartoseq, tmp_path):
    run = tmp_path / "RUN"
    done = cartoseq("map", grouped[SHOWN, "auto"], "--out", run)
    assert f"rna: the barcodes in the names of the reads are written as {SHOWN}." in done.stderr.replace("\n", " ")
    noted = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    assert {event["codec"] for event in noted if "codec" in event} == {SHOWN}
    assert json.loads((run / "qc.json").read_text())["libraries"]["rna"]["counters"] == dict(expected.totals)
    assert expected.totals["molecules"] > 4_000
    found = package.open_run(run).libraries["rna"]
    for column in ("feature_ids", "offsets", "x", "y", "molecules", "reads"):
        assert np.array_equal(getattr(found, column), getattr(expected.map, column)), column


@pytest.mark.parametrize("said", ["auto", "named"])
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_found_out_or_named_gives_the_same_molecules(codec, said, grouped, expected):
    found = library_map(folded(grouped[codec, "auto" if said == "auto" else codec]))
    assert dict(found.totals) == dict(expected.totals)
    for column in ("offsets", "x", "y", "molecules", "reads"):
        assert np.array_equal(getattr(found.map, column), getattr(expected.map, column)), column


def test_a_codec_that_is_wrong_is_refused(grouped, tmp_path):
    experiment = grouped["ACTG-first-low", "ACTG-first-low"]
    wrong = experiment.with_name("wrong.toml")
    wrong.write_text(experiment.read_text().replace('"ACTG-first-low"', '"ACGT-first-low"'))
    with pytest.raises(InputError, match=r'no spot matches.*grouped_names = "auto" finds out'):
        prepare(RunFolder(tmp_path), load_experiment(wrong), lambda _: None, look_at_reads=True)
