"""The fold of a library: any order of blocks, any place to stop and go on, the same files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from cartoseq.analysis import counters as names
from cartoseq.analysis.binner import Binner
from cartoseq.analysis.checkpoint import kept_position, restore_checkpoint, save_checkpoint
from cartoseq.analysis.fold import Fold, LibraryFold, count_calls
from cartoseq.analysis.liveimage import decode_image
from cartoseq.analysis.maps import read_maps
from cartoseq.analysis.snapshot import cycle_counts, write_snapshot
from cartoseq.controller.config import load_experiment
from cartoseq.controller.folding import make_fold
from cartoseq.controller.sources import open_source
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.streaming.errors import RunError
from cartoseq.streaming.feed import FeedRecord
from cartoseq.streaming.header import RecordHeader, RecordKind

READS = 20_000


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    path = simulate_experiment(folder, ExperimentSettings(seed=8, reads=READS))
    with path.open("a") as stream:
        stream.write("\n[run]\nblock_clusters = 700\n")
    return load_experiment(path)


@pytest.fixture(scope="module")
def blocks(experiment):
    with open_source(experiment, 0) as source:
        return list(source)


@pytest.fixture(scope="module")
def whole(experiment, blocks, tmp_path_factory):
    """The files of the fold over all blocks in order."""
    return _files(_folded(experiment, blocks), tmp_path_factory.mktemp("whole"))


def _records(blocks):
    for index, block in enumerate(blocks):
        yield FeedRecord(index, RecordHeader(RecordKind.DATA, 0, sequence=index, count=block.clusters), block, None)
    total = sum(block.clusters for block in blocks)
    yield FeedRecord(len(blocks), RecordHeader(RecordKind.END, 0, sequence=len(blocks)), None, {"reads": total})


def _folded(experiment, blocks) -> Fold:
    fold = make_fold(experiment)
    for record in _records(blocks):
        fold.add(record)
    return fold


def _files(fold: Fold, folder: Path) -> dict[str, bytes]:
    write_snapshot(folder / "maps.h5", folder / "qc.json", fold)
    return {name: (folder / name).read_bytes() for name in ("maps.h5", "qc.json")}


def test_every_read_ends_in_one_counter_of_each_level(whole):
    library = json.loads(whole["qc.json"])["libraries"]["rna"]
    counters = library["counters"]
    assert counters["reads_total"] == READS
    names.check(counters, "rna")
    assert counters["molecules_distinct"] == counters["molecules"] + counters["molecules_collapsed"]
    assert library["saturation"] == 1 - counters["molecules"] / counters["assigned"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_blocks_in_any_order_give_the_same_bytes(seed, experiment, blocks, whole, tmp_path):
    shuffled = list(blocks)
    random.Random(seed).shuffle(shuffled)
    assert _files(_folded(experiment, shuffled), tmp_path) == whole


def test_blocks_of_another_size_give_the_same_bytes_but_the_position(experiment, whole, tmp_path):
    other = experiment.model_copy(update={"run": experiment.run.model_copy(update={"block_clusters": 9_999})})
    with open_source(other, 0) as source:
        fold = _folded(experiment, list(source))
    fold.position = json.loads(whole["qc.json"])["log_position"]
    assert _files(fold, tmp_path) == whole


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_fold_taken_up_from_its_state_gives_the_same_bytes(share, experiment, blocks, whole, tmp_path):
    records = list(_records(blocks))
    first = make_fold(experiment)
    for record in records[: int(share * len(records))]:
        first.add(record)
    save_checkpoint(tmp_path / "state" / "fold.h5", first)
    second = make_fold(experiment)
    assert restore_checkpoint(tmp_path / "state" / "fold.h5", second)
    for record in records[second.position :]:
        second.add(record)
    second.check()
    assert _files(second, tmp_path) == whole


@pytest.mark.parametrize("place", [0, 700, -1, -10])
def test_a_damaged_state_is_not_taken_up(place, experiment, blocks, tmp_path, caplog):
    fold = _folded(experiment, blocks[:3])
    path = tmp_path / "fold.h5"
    save_checkpoint(path, fold)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    fresh = make_fold(experiment)
    assert not restore_checkpoint(path, fresh)
    assert fresh.position == 0
    assert fresh.libraries[0].molecules.molecules == 0
    assert "folded again" in caplog.text


def test_a_state_cut_short_or_of_other_settings_is_not_taken_up(experiment, blocks, tmp_path):
    fold = _folded(experiment, blocks[:2])
    path = tmp_path / "fold.h5"
    save_checkpoint(path, fold)
    whole_state = path.read_bytes()
    for size in (0, 5, len(whole_state) // 2, len(whole_state) - 1):
        path.write_bytes(whole_state[:size])
        assert not restore_checkpoint(path, make_fold(experiment))
    path.write_bytes(whole_state)
    other = make_fold(experiment)
    other.fingerprint = "another"
    assert not restore_checkpoint(path, other)
    assert restore_checkpoint(path, make_fold(experiment))


def test_the_position_of_a_state_is_known_without_taking_it_up(experiment, blocks, tmp_path):
    path = tmp_path / "fold.h5"
    assert kept_position(path) is None
    save_checkpoint(path, _folded(experiment, blocks[:2]))
    with h5py.File(path, "r") as file:
        assert kept_position(path) == file.attrs["position"] > 0
    path.write_bytes(path.read_bytes()[:-1])
    assert kept_position(path) is None


def test_a_record_out_of_order_is_refused(experiment, blocks):
    fold = make_fold(experiment)
    records = list(_records(blocks))
    fold.add(records[0])
    with pytest.raises(RunError, match="expected"):
        fold.add(records[2])


def test_a_source_that_says_it_sent_more_is_noticed(experiment, blocks):
    fold = _folded(experiment, blocks)
    fold.ended[0] += 1
    with pytest.raises(RunError, match=r"20,001 reads but 20,000"):
        fold.check()


def test_the_map_lies_where_the_reads_are(whole, tmp_path):
    (tmp_path / "maps.h5").write_bytes(whole["maps.h5"])
    maps = read_maps(tmp_path / "maps.h5")
    library = maps.libraries["rna"]
    counters = library.totals
    assert int(library.located.sum()) == counters["located_exact"] + counters["located_corrected"]
    assert int(library.map.molecules.sum()) == counters["molecules"]
    assert int(library.map.total(50).sum()) == counters["molecules"]
    assert int(library.map.reads.sum()) == counters["assigned"]
    assert library.base_counts.sum(axis=1).tolist() == [READS] * 135
    assert library.quality_counts.sum(axis=1).tolist() == [READS] * 135


def test_cycle_counts_agree_with_plain_counting(blocks):
    calls = blocks[0].calls
    counts = np.zeros((calls.shape[0], 256), np.uint64)
    count_calls(calls, counts)
    bases, qualities = cycle_counts(counts)
    for cycle in range(calls.shape[0]):
        called = calls[cycle][calls[cycle] > 0]
        expected = [int((called & 3 == base).sum()) for base in range(4)]
        assert bases[cycle].tolist() == [*expected, calls.shape[1] - called.size]
        assert np.array_equal(qualities[cycle], np.bincount(calls[cycle] >> 2, minlength=64))


class _Given:
    """A feed that gives what it is given."""

    def __init__(self, records):
        self.records = list(records)

    def next(self, timeout_s: float):
        return self.records.pop(0) if self.records else None


def _binner(experiment, folder, published):
    return Binner(
        make_fold(experiment),
        state_path=folder / "state" / "fold.h5",
        maps_path=folder / "maps.h5",
        qc_path=folder / "qc.json",
        publish=lambda topic, payload: published.__setitem__(topic, payload),
        checkpoint_s=0.01,
    )


def test_a_binner_stopped_anywhere_resumes_and_writes_the_same_files(experiment, blocks, whole, tmp_path):
    records = list(_records(blocks))
    published: dict[str, bytes] = {}
    for end in (4, 5, 19):
        binner = _binner(experiment, tmp_path, published)
        feed = _Given(records[binner.fold.position : end])
        binner.run(feed, stopped=lambda feed=feed: not feed.records, ended=lambda: False)
        assert binner.fold.position == end
        assert not (tmp_path / "maps.h5").exists()
    binner = _binner(experiment, tmp_path, published)
    assert binner.fold.position == 19
    binner.run(_Given(records[19:]), stopped=lambda: False, ended=lambda: False)
    assert {name: (tmp_path / name).read_bytes() for name in whole} == whole
    assert json.loads(published["status"])["complete"]
    library = binner.fold.libraries[0]
    assert np.array_equal(decode_image(published["molecules/rna"]), library.seen.image)
    assert int(library.seen.image.sum()) == library.molecules.molecules


def test_two_libraries_share_the_chip_and_keep_their_counts_apart(experiment, blocks):
    library = experiment.library[0]
    both = experiment.model_copy(
        update={"library": (library, library.model_copy(update={"name": "again", "mismatches": 0}))}
    )
    fold = make_fold(both)
    assert all(isinstance(part, LibraryFold) for part in fold.libraries)
    fold.libraries[0].add(blocks[0])
    fold.libraries[1].add(blocks[0])
    one, other = (part.counters for part in fold.libraries)
    assert one["located_exact"] == other["located_exact"]
    assert other["located_corrected"] == 0 < one["located_corrected"]
    assert other["unmatched"] + other["barcode_n"] > one["unmatched"] + one["barcode_n"]
