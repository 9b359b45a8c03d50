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

from cartoseq.analysis import narrowtable
from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.molecules import HISTOGRAM_BINS, Molecules, MoleculeSet, shards_of
from cartoseq.analysis.pages import HUGE_BYTES

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
    histogram = np.bincount(list(expected.values()), minlength=HISTOGRAM_BINS)
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
    """Though all keys are neighbours of each other, hardly any finds its four lines full."""
    spots, mids = np.meshgrid(np.arange(256, dtype=np.uint32), np.arange(64, dtype=np.uint64))
    found = MoleculeSet(*NARROW, expected_molecules=spots.size, shards=np.zeros(1, np.uint32))
    found.add(spots.ravel(), np.full(spots.size, 3, np.uint64), mids.ravel())
    assert found.molecules == spots.size
    assert found._wide.used(0) < 0.005 * spots.size


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, (1 << 52) - 1), min_size=1, max_size=20), st.integers(16, 48))
def test_a_turned_key_is_turned_back(keys: list[int], feature_shift: int) -> None:
    rows = np.array(keys, np.uint64) << np.uint64(12) | np.uint64(5)
    turned = rows.copy()
    narrowtable.turn(turned, np.uint64(feature_shift))
    assert np.all(turned & np.uint64(0xFFF) == 5)
    narrowtable.turn_back(turned, np.uint64(feature_shift))
    assert turned.tolist() == rows.tolist()


def crowd(keys: int, homes: int) -> Reads:
    """Reads of two neighbouring shards whose keys were chosen to have very few homes, whatever the table's size."""
    turned = np.arange(keys, dtype=np.uint64) % np.uint64(homes) * np.uint64(12345) << np.uint64(20)
    rows = (turned | np.arange(keys, dtype=np.uint64) // np.uint64(homes)) << np.uint64(12)
    narrowtable.turn_back(rows, np.uint64(36))
    whole = (rows >> np.uint64(12)).tolist()
    return [((shard << 16) | key >> 20 & 0xFFFF, key >> 36, key & 0xFFFFF) for key in whole for shard in (4, 5)]


@pytest.mark.parametrize("homes", [1, 40])
def test_keys_made_to_collide_are_exact_through_growth_merging_and_restoring(homes: int, tmp_path: Path) -> None:
    collide = crowd(2_000, homes)
    others = some_reads(20, 9_000, NARROW, spots=1 << 19)
    reads = collide + others + collide[:500] * 3 + some_reads(21, 9_000, NARROW, spots=1 << 19) + collide[300:]
    found = filled(reads, NARROW, 1_111)
    assert found._wide.used(1) > 100
    assert as_dict(found.sorted_molecules()) == reference(reads)
    merged = filled(reads[7_000:], NARROW)
    merged.merge(filled(reads[:7_000], NARROW))
    assert as_dict(merged.sorted_molecules()) == reference(reads)
    assert merged.copy_histogram().tolist() == found.copy_histogram().tolist()
    with h5py.File(tmp_path / "state.h5", "w") as file:
        found.checkpoint(file.create_group("molecules"))
        restored = MoleculeSet(*NARROW)
        restored.restore(file["molecules"])
    assert as_dict(restored.sorted_molecules()) == reference(reads)


def test_firsts_and_copies_are_told_apart_also_where_molecules_are_spilled() -> None:
    reads = crowd(300, 1) * 3
    found = MoleculeSet(*NARROW)
    fresh = np.full(len(reads), 9, np.uint8)
    assert found.add(*arrays(reads), fresh) == 600
    assert fresh.tolist() == [1] * 600 + [0] * 1_200


@pytest.mark.parametrize("molecules", [100, 12_000])
def test_copies_are_exact_up_to_4095_however_few_bits_a_slot_has_for_them(molecules: int) -> None:
    """A table of 256 lines counts to 14 in a slot, a larger one to more: the count goes on in the spill."""
    random = np.random.default_rng(22)
    others = [(int(s), 9, int(m)) for s, m in random.integers(0, 1 << 16, (molecules, 2))]
    many = [(3, 1, 13), (3, 1, 14), (3, 1, 15), (4, 1, 62), (4, 1, 63), (4, 1, 1_022), (5, 1, 4_094), (5, 1, 4_095)]
    copies = [read for read in many for _ in range(read[2])]
    for reads in (copies + others, others + copies, copies[::2] + others + copies[1::2]):
        found = filled(reads, NARROW, 2_000)
        assert as_dict(found.sorted_molecules()) == reference(reads)
        histogram = np.bincount(list(reference(reads).values()), minlength=HISTOGRAM_BINS)
        assert found.copy_histogram().tolist() == histogram.tolist()
        halves = filled(reads[1::2], NARROW)
        halves.merge(filled(reads[::2], NARROW))
        assert as_dict(halves.sorted_molecules()) == reference(reads)
        assert halves.copy_histogram().tolist() == histogram.tolist()


@pytest.mark.parametrize("planned", [True, False])
def test_a_molecule_takes_less_than_8_bytes_planned_or_grown(planned: bool) -> None:
    shards, molecules = 256, 4_000_000
    random = np.random.default_rng(23)
    found = MoleculeSet(*NARROW)
    if planned:
        found = MoleculeSet(*NARROW, expected_molecules=molecules, shards=np.arange(shards, dtype=np.uint32))
    for _ in range(4):
        n = molecules // 4
        spots = random.integers(0, shards << 16, n, np.uint32)
        found.add(spots, random.integers(0, 1 << 16, n, np.uint64), random.integers(0, 1 << 20, n, np.uint64))
    # A huge page of which little is used so far is no part of the rule.
    assert (found.nbytes - HUGE_BYTES) / found.molecules < 8


@pytest.mark.parametrize("bits", KEYS)
def test_the_spots_of_a_feature_are_those_of_its_molecules(bits: tuple[int, int]) -> None:
    reads = some_reads(12, 9_000, bits, spots=1 << 18)
    reads += reads[:40] * 20
    found = filled(reads, bits)
    for feature in (0, 3, max(feature for _, feature, _ in reads)):
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
