"""From an experiment to its reads: the whole of them, and from the middle on."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from cartoseq.analysis.locate import BarcodeIndex
from cartoseq.controller.config import Experiment, load_experiment
from cartoseq.controller.sources import hit_rate, open_source
from cartoseq.streaming.errors import CartoseqError, InputError

from .test_mapping import World

READS = 25


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    chance = np.random.default_rng(3)
    world = World(tmp_path)
    for name, length in (("1.fq", 35), ("2.fq", 100)):
        bases = np.array(list("ACGT"))[chance.integers(0, 4, (READS, length))]
        records = [f"@r{number}\n{''.join(row)}\n+\n{'F' * length}\n" for number, row in enumerate(bases)]
        (tmp_path / name).write_text("".join(records))
    world.experiment.write_text(world.experiment.read_text() + "[run]\nblock_clusters = 10\n")
    return load_experiment(world.experiment)


def calls_of(experiment, **more) -> np.ndarray:
    with open_source(experiment, 0, **more) as source:
        blocks = list(source)
    assert all(block.library == 0 for block in blocks)
    return np.concatenate([block.calls for block in blocks], axis=1)


def test_blocks_have_the_size_that_the_experiment_says(experiment):
    with open_source(experiment, 0) as source:
        assert [block.clusters for block in source] == [10, 10, 5]
        assert source.reads == READS


@pytest.mark.parametrize("skipped", [0, 1, 10, 13, 25])
def test_a_reader_that_starts_again_goes_on_where_it_was(skipped, experiment):
    whole = calls_of(experiment)
    with open_source(experiment, 0, skip_reads=skipped) as source:
        rest = [block.calls for block in source]
        assert source.reads == READS
    assert np.array_equal(np.concatenate([np.empty((135, 0), np.uint8), *rest], axis=1), whole[:, skipped:])


def test_a_file_that_is_gone_is_said(experiment):
    experiment.library[0].reads[0][1].unlink()
    with pytest.raises(InputError, match=r"2\.fq"):
        calls_of(experiment)


def test_a_stop_ends_the_waiting_for_a_growing_file(experiment, tmp_path):
    library = experiment.library[0].model_copy(update={"follow_until": tmp_path / "done"})
    growing = experiment.model_copy(update={"library": (library,)})
    stop = threading.Event()
    stop.set()
    with pytest.raises(CartoseqError):
        calls_of(growing, stop=stop)


def test_the_hit_rate_counts_what_is_on_the_chip_or_one_substitution_away():
    cids = np.arange(0, 4**10, 4096, dtype=np.uint64)
    index = BarcodeIndex.build(cids, np.arange(cids.size, dtype=np.uint32), 10)
    assert hit_rate(cids[:10], index) == 1
    assert hit_rate(np.concatenate([cids[:2] ^ np.uint64(1), [np.uint64(0b010101), np.uint64(0b101010)]]), index) == 0.5
    assert hit_rate(cids[:0], index) == 0
