"""Molecules against plain dictionaries: exact, whatever the order, the batches, the shards and the growth."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cartoseq.analysis import moleculetable as tables
from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.molecules import Molecules, MoleculeSet, shards_of

Reads = list[tuple[int, int, int]]

NARROW = (16, 20)
WIDE = (33, 20)
KEYS = [NARROW, (33, 0), (0, 0), (20, 6), WIDE, (64, 16), (40, 8), (48, 32)]


def arrays(reads: Reads) -> tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint64]]:
    spots, features, mids = zip(*reads, strict=True) if reads else ((), (), ())
    return np.array(spots, np.uint32), np.array(features, np.uint64), np.array(mids, np.uint64)


def reference(reads: Reads) -> dict[tuple[int, int, int], int]:
    """Copies by (feature, spot, MID), the plain way."""
    return dict(sorted(Counter((feature, spot, mid) for spot, feature, mid in reads).items()))


def as_dict(molecules: Molecules) -> dict[tuple[int, int, int], int]:
    columns = (molecules.features, molecules.spots, molecules.mids, molecules.copies)
    return {(f, s, m): c for f, s, m, c in zip(*(column.tolist() for column in columns), strict=True)}


def filled(reads: Reads, bits: tuple[int, int], batch: int = 50) -> MoleculeSet:
    found = MoleculeSet(*bits)
    for first in range(0, len(reads), batch):
        found.add(*arrays(reads[first : first + batch]))
    return found


def some_reads(seed: int, n: int, bits: tuple[int, int], *, spots: int = 1 << 30, few: int = 4) -> Reads:
    """Reads of which half are all over the key space and half come again and again."""
    random = np.random.default_rng(seed)
    features, mids = (1 << bits[0]) - 1, (1 << bits[1]) - 1
    wide = random.integers(0, 2**64, (n, 3), dtype=np.uint64).tolist()
    low = random.integers(0, few, (n, 3)).tolist()
    mixed = [row if i % 2 else small for i, (row, small) in enumerate(zip(wide, low, strict=True))]
    return [(s % spots, f & features, m & mids) for s, f, m in mixed]


@st.composite
def keyed_reads(draw: st.DrawFn) -> tuple[tuple[int, int], Reads]:
    bits = draw(st.sampled_from(KEYS))
    feature = st.one_of(st.integers(0, min(3, (1 << bits[0]) - 1)), st.integers(0, (1 << bits[0]) - 1))
    mid = st.one_of(st.integers(0, min(3, (1 << bits[1]) - 1)), st.integers(0, (1 << bits[1]) - 1))
    spot = st.one_of(st.integers(0, 3), st.integers(65534, 65538), st.integers(0, (1 << 30) - 1))
    return bits, draw(st.lists(st.tuples(spot, feature, mid), max_size=200))


@settings(max_examples=60, deadline=None)
@given(keyed_reads(), st.integers(1, 64))
def test_the_set_is_what_a_dictionary_would_hold(keyed: tuple[tuple[int, int], Reads], batch: int) -> None:
    bits, reads = keyed
    found = filled(reads, bits, batch)
    expected = reference(reads)
    assert list(as_dict(found.sorted_molecules()).items()) == list(expected.items())
    assert (found.molecules, found.reads) == (len(expected), len(reads))
    histogram = np.bincount(list(expected.values()), minlength=tables.HISTOGRAM_BINS)
    assert found.copy_histogram().tolist() == histogram.tolist()


@pytest.mark.parametrize("bits", KEYS)
def test_shards_grow_and_lose_nothing(bits: tuple[int, int]) -> None:
    reads = some_reads(1, 20_000, bits, spots=1 << 18)
    assert as_dict(filled(reads, bits, 3_000).sorted_molecules()) == reference(reads)


@pytest.mark.parametrize("bits", [NARROW, WIDE])
def test_one_crowded_shard_beside_empty_ones_is_exact(bits: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    crowded = [(int(s), 7, int(m)) for s, m in random.integers(0, 256, (15_000, 2))]
    reads = crowded + some_reads(3, 500, bits)
    assert as_dict(filled(reads, bits, 4_096).sorted_molecules()) == reference(reads)


@pytest.mark.parametrize("bits", [NARROW, WIDE])
def test_a_presized_set_holds_the_same_and_grows_when_the_plan_was_too_small(bits: tuple[int, int]) -> None:
    reads = some_reads(4, 10_000, bits, spots=1 << 18)
    planned = MoleculeSet(*bits, expected_molecules=400, shards=np.arange(3, dtype=np.uint32))
    planned.add(*arrays(reads))
    assert as_dict(planned.sorted_molecules()) == reference(reads)


@pytest.mark.parametrize("bits", [NARROW, WIDE])
def test_the_first_read_of_a_molecule_is_told_from_its_copies(bits: tuple[int, int]) -> None:
    reads = some_reads(5, 3_000, bits, spots=1 << 17)
    found = MoleculeSet(*bits)
    fresh = np.full(len(reads), 9, np.uint8)
    new = found.add(*arrays(reads), fresh)
    seen: set[tuple[int, int, int]] = set()
    expected = []
    for read in reads:
        expected.append(0 if read in seen else 1)
        seen.add(read)
    assert fresh.tolist() == expected
    assert new == sum(expected)


@pytest.mark.parametrize("bits", [NARROW, WIDE])
def test_key_zero_is_a_molecule_and_an_empty_slot_is_not(bits: tuple[int, int]) -> None:
    found = filled([(0, 0, 0)], bits)
    assert as_dict(found.sorted_molecules()) == {(0, 0, 0): 1}
    assert as_dict(MoleculeSet(*bits).sorted_molecules()) == {}


def test_keys_with_every_bit_set_are_kept_apart_from_their_neighbours() -> None:
    top = (1 << 64) - 1
    reads = [((1 << 30) - 1, top, 0xFFFF), ((1 << 30) - 1, top, 0xFFFE), ((1 << 30) - 1, top - 1, 0xFFFF), (0, top, 0)]
    assert as_dict(filled(reads, (64, 16)).sorted_molecules()) == reference(reads)


def test_copies_of_a_narrow_slot_stop_at_4095_but_reads_do_not() -> None:
    spots, features, mids = np.zeros(5_000, np.uint32), np.zeros(5_000, np.uint64), np.zeros(5_000, np.uint64)
    found = MoleculeSet(*NARROW)
    found.add(spots, features, mids)
    assert found.sorted_molecules().copies.tolist() == [4095]
    assert found.reads == 5_000
    assert (found.copy_histogram()[4095], found.copy_histogram().sum()) == (1, 1)


def test_copies_of_a_wide_slot_go_on_and_its_histogram_ends_at_4095() -> None:
    spots, features, mids = np.zeros(5_000, np.uint32), np.zeros(5_000, np.uint64), np.zeros(5_000, np.uint64)
    found = MoleculeSet(*WIDE)
    found.add(spots, features, mids)
    found.merge(filled([(0, 0, 0)], WIDE))
    assert found.sorted_molecules().copies.tolist() == [5_001]
    assert (found.copy_histogram()[4095], found.copy_histogram().sum()) == (1, 1)


@pytest.mark.parametrize("bits", [NARROW, WIDE])
def test_merging_is_adding_the_reads_in_any_order_and_grouping(bits: tuple[int, int]) -> None:
    parts = [some_reads(seed, 2_000, bits, spots=1 << 17) for seed in (6, 7, 8)]
    left, right = filled(parts[0], bits), filled(parts[2], bits)
    left.merge(filled(parts[1], bits))
    left.merge(filled(parts[2], bits))
    right.merge(filled(parts[0], bits))
    inner = filled(parts[1], bits)
    inner.merge(right)
    whole = filled([read for part in parts for read in part], bits)
    for merged in (left, inner):
        assert as_dict(merged.sorted_molecules()) == as_dict(whole.sorted_molecules())
        assert merged.copy_histogram().tolist() == whole.copy_histogram().tolist()
        assert (merged.molecules, merged.reads) == (whole.molecules, whole.reads)


def test_merged_copies_stop_where_added_copies_stop() -> None:
    many = filled([(0, 1, 1)] * 3_000, NARROW, 3_000)
    many.merge(filled([(0, 1, 1)] * 2_000, NARROW, 2_000))
    assert many.sorted_molecules().copies.tolist() == [4095]
    assert many.copy_histogram()[4095] == 1
    assert many.reads == 5_000


def test_sets_of_other_keys_do_not_merge() -> None:
    with pytest.raises(ValueError, match=r"Keys of 33 \+ 20 bits do not merge"):
        MoleculeSet(*NARROW).merge(MoleculeSet(*WIDE))


@pytest.mark.parametrize("bits", [NARROW, WIDE])
def test_order_and_batches_of_reads_change_no_byte_of_a_checkpoint(bits: tuple[int, int], tmp_path: Path) -> None:
    reads = some_reads(9, 5_000, bits, spots=1 << 18)
    written = []
    for number, (order, batch) in enumerate(((1, 700), (-1, 5_000))):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            filled(reads[::order], bits, batch).checkpoint(file.create_group("molecules"))
        written.append(path.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("bits", [NARROW, WIDE])
@pytest.mark.parametrize("planned", [False, True])
def test_a_restored_set_goes_on_as_if_nothing_had_happened(
    bits: tuple[int, int], planned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cartoseq.analysis.molecules._CHECKPOINT_ROWS", 500)
    reads = some_reads(10, 8_000, bits, spots=1 << 18)
    with h5py.File(tmp_path / "state.h5", "w") as file:
        filled(reads[:4_000], bits).checkpoint(file.create_group("molecules"))
    restored = MoleculeSet(*bits)
    if planned:
        restored = MoleculeSet(*bits, expected_molecules=3_000, shards=np.arange(4, dtype=np.uint32))
    restored.add(*arrays([(5, 0, 0)]))
    with h5py.File(tmp_path / "state.h5") as file:
        restored.restore(file["molecules"])
    restored.add(*arrays(reads[4_000:]))
    assert as_dict(restored.sorted_molecules()) == reference(reads)
    assert restored.reads == len(reads)
    assert restored.copy_histogram().tolist() == filled(reads, bits).copy_histogram().tolist()


def test_an_empty_set_is_kept_and_restored(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "state.h5", "w") as file:
        MoleculeSet(*NARROW).checkpoint(file.create_group("molecules"))
    restored = MoleculeSet(*NARROW)
    with h5py.File(tmp_path / "state.h5") as file:
        restored.restore(file["molecules"])
    assert (restored.molecules, restored.reads) == (0, 0)


def test_a_checkpoint_of_other_keys_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "state.h5", "w") as file:
        MoleculeSet(*NARROW).checkpoint(file.create_group("molecules"))
        with pytest.raises(ValueError, match=r"kept keys have 16 \+ 20 bits, not 33 \+ 20"):
            MoleculeSet(*WIDE).restore(file["molecules"])


def test_a_checkpoint_with_a_molecule_twice_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "state.h5", "w") as file:
        group = file.create_group("molecules")
        filled([(0, 1, 1), (0, 1, 2)], NARROW).checkpoint(group)
        group["slots"][1] = group["slots"][0]
        with pytest.raises(ValueError, match="are 1 different ones, not 2"):
            MoleculeSet(*NARROW).restore(group)


@pytest.mark.parametrize(
    "read",
    [(1 << 30, 0, 0), (0, 1 << 16, 0), (0, 0, 1 << 20), (0xFFFFFFFF, 0, 0)],
    ids=["spot", "feature", "mid", "none"],
)
def test_a_read_that_does_not_fit_the_key_is_named_and_nothing_is_added(read: tuple[int, int, int]) -> None:
    found = MoleculeSet(*NARROW)
    with pytest.raises(ValueError, match="Read 1 of the batch"):
        found.add(*arrays([(1, 1, 1), read]))
    assert (found.molecules, found.reads) == (0, 0)


def test_arrays_of_different_length_are_refused() -> None:
    spots, features, mids = arrays([(1, 1, 1), (2, 2, 2)])
    with pytest.raises(ValueError, match="no batch of reads"):
        MoleculeSet(*NARROW).add(spots, features[:1], mids)


@pytest.mark.parametrize("bits", [(16, 34), (65, 0), (60, 32)])
def test_keys_that_fit_no_slot_are_refused(bits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at most 64 and 32 fit"):
        MoleculeSet(*bits)


def test_parts_hold_each_spot_whole() -> None:
    reads = some_reads(11, 3_000, NARROW, spots=1 << 19)
    parts = list(filled(reads, NARROW).parts())
    assert sum(len(part) for part in parts) == len(reference(reads))
    spots = [set(part.spots.tolist()) for part in parts]
    assert sum(len(one) for one in spots) == len(set().union(*spots))


def test_skewed_features_and_consecutive_mids_spread_over_the_table() -> None:
    """Probing stays short: no key lies far from its home, though all keys are neighbours of each other."""
    spots, mids = np.meshgrid(np.arange(256, dtype=np.uint32), np.arange(64, dtype=np.uint64))
    found = MoleculeSet(*NARROW, expected_molecules=spots.size, shards=np.zeros(1, np.uint32))
    found.add(spots.ravel(), np.full(spots.size, 3, np.uint64), mids.ravel())
    buckets = int(found._table[1])
    keys = (np.uint64(3) << np.uint64(36)) | (spots.ravel().astype(np.uint64) << np.uint64(20)) | mids.ravel()
    homes = np.bincount([_home(int(key), buckets) for key in keys], minlength=buckets)
    # Poisson with a mean of 6.7 per bucket: the fullest of 2,400 is above 21 once in a hundred draws.
    assert homes.max() <= 21


def _home(key: int, buckets: int) -> int:
    """The plain reference of the kernel's hash."""
    mask = (1 << 64) - 1
    mixed = key * 0x9E3779B97F4A7C15 & mask
    mixed ^= mixed >> 32
    mixed = mixed * 0xD6E8FEB86659FD93 & mask
    return ((mixed >> 32) * buckets) >> 32


@pytest.mark.parametrize("bits", [NARROW, WIDE])
def test_the_spots_of_a_feature_are_those_of_its_molecules(bits: tuple[int, int]) -> None:
    reads = some_reads(12, 9_000, bits, spots=1 << 18)
    found = filled(reads, bits)
    for feature in (0, 3, 9_999):
        expected = sorted(spot for number, spot, _ in reference(reads) if number == feature)
        assert sorted(found.feature_spots(feature).tolist()) == expected


def test_a_feature_with_more_molecules_than_foreseen_is_found_whole() -> None:
    found = MoleculeSet(*NARROW)
    spots = np.arange(1_500_000, dtype=np.uint32) * 40
    found.add(spots, np.full(spots.size, 7, np.uint64), np.zeros(spots.size, np.uint64))
    assert np.array_equal(np.sort(found.feature_spots(7)), spots)


def test_the_shards_of_a_chip_are_those_that_its_spots_name() -> None:
    frame = ChipFrame(FrameKind.LATTICE, origin_x=5, origin_y=-9, width=513, height=300)
    y, x = np.mgrid[-9:291, 5:518]
    assert shards_of(frame).tolist() == np.unique(frame.lattice_spots(x.ravel(), y.ravel()) >> 16).tolist()
    places = np.zeros(70_000)
    listed = ChipFrame(FrameKind.LISTED, origin_x=0, origin_y=0, width=1, height=1, x=places, y=places)
    assert shards_of(listed).tolist() == [0, 1]
