"""Placing barcodes: against a plain dictionary that tries every substitution, on hard tables, and on real reads."""

from __future__ import annotations

import gzip
import logging
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import dnaio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cartoseq.analysis import barcodestore
from cartoseq.analysis.barcodeindex import SHARED_BY_SPOTS, BarcodeIndex, choose_layout
from cartoseq.analysis.barcodes import decode_cid, encode_cid, pack_cids
from cartoseq.analysis.chip import ChipOptions, read_chip
from cartoseq.analysis.locate import (
    AMBIGUOUS,
    BARCODE_N,
    CORRECTED,
    CORRECTED_N,
    EXACT,
    NO_SPOT,
    SMALL_FOR_CORRECTION,
    SMALL_FOR_EXACT,
    UNMATCHED,
    locate,
    open_index,
)
from cartoseq.analysis.lowlevel import empty_table
from cartoseq.streaming.errors import InputError


class Reference:
    """The rule in a dictionary: exact, else every substitution of every base, and never a choice between two."""

    def __init__(self, cids: NDArray[np.uint64], spots: NDArray[np.uint32], length: int) -> None:
        self.length = length
        self.spots_of: dict[int, set[int]] = defaultdict(set)
        for cid, spot in zip(cids.tolist(), spots.tolist(), strict=True):
            self.spots_of[cid].add(spot)

    def place(self, cid: int, n_count: int, n_position: int, max_mismatch: int) -> tuple[int, int]:
        if n_count == 0 and cid in self.spots_of:
            return self._judged([cid], EXACT, AMBIGUOUS, UNMATCHED)
        if n_count > 1 or max_mismatch == 0:
            return NO_SPOT, BARCODE_N if n_count else UNMATCHED
        if n_count:
            tried = [cid ^ change << 2 * n_position for change in range(4)]
            return self._judged(tried, CORRECTED_N, BARCODE_N, BARCODE_N)
        tried = [cid ^ change << 2 * base for base in range(self.length) for change in (1, 2, 3)]
        return self._judged(tried, CORRECTED, AMBIGUOUS, UNMATCHED)

    def _judged(self, tried: list[int], placed: int, several: int, none: int) -> tuple[int, int]:
        hits = [spot for cid in tried for spot in self.spots_of.get(cid, ())]
        if len(hits) == 1:
            return hits[0], placed
        return NO_SPOT, several if hits else none


def find(
    index: BarcodeIndex,
    cids: NDArray[np.uint64],
    n_counts: NDArray[np.uint8] | None = None,
    n_positions: NDArray[np.uint8] | None = None,
    max_mismatch: int = 1,
) -> tuple[NDArray[np.uint32], NDArray[np.uint8], int]:
    zeros = np.zeros(cids.size, np.uint8)
    # Filled with rubbish: the kernel must write every element.
    spots = np.full(cids.size, 12345, np.uint32)
    verdicts = np.full(cids.size, 77, np.uint8)
    n_counts = zeros if n_counts is None else n_counts
    n_positions = zeros if n_positions is None else n_positions
    work = locate(cids, n_counts, n_positions, index, max_mismatch, spots, verdicts)
    return spots, verdicts, work


def assert_as_reference(
    index: BarcodeIndex,
    reference: Reference,
    reads: NDArray[np.uint64],
    n_counts: NDArray[np.uint8],
    n_positions: NDArray[np.uint8],
) -> None:
    for max_mismatch in (0, 1):
        spots, verdicts, _ = find(index, reads, n_counts, n_positions, max_mismatch)
        found = list(zip(spots.tolist(), verdicts.tolist(), strict=True))
        queries = zip(reads.tolist(), n_counts.tolist(), n_positions.tolist(), strict=True)
        assert found == [reference.place(*query, max_mismatch) for query in queries]


def random_keys(rng: np.random.Generator, n: int, length: int) -> NDArray[np.uint64]:
    return rng.integers(0, 4**length - 1, n, np.uint64, endpoint=True)


def substituted(rng: np.random.Generator, cids: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    base = rng.integers(0, length, cids.size).astype(np.uint64)
    return cids ^ rng.integers(1, 4, cids.size).astype(np.uint64) << np.uint64(2) * base


def reads_of(
    rng: np.random.Generator, cids: NDArray[np.uint64], length: int, n: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]]:
    """Reads with no, one or two wrong bases, strangers, and no-calls."""
    reads = rng.choice(cids, n) if cids.size else random_keys(rng, n, length)
    for _ in range(2):
        changed = rng.random(n) < 0.4
        reads = np.where(changed, substituted(rng, reads, length), reads)
    strange = rng.random(n) < 0.1
    reads = np.where(strange, random_keys(rng, n, length), reads)
    n_counts = np.where(rng.random(n) < 0.3, rng.integers(1, 3, n), 0).astype(np.uint8)
    n_positions = np.where(n_counts > 0, rng.integers(0, length, n), 0).astype(np.uint8)
    # A no-call is packed as A.
    absent = np.uint64(3) << np.uint64(2) * n_positions.astype(np.uint64)
    return np.where(n_counts > 0, reads & ~absent, reads), n_counts, n_positions


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32), length=st.integers(8, 32), chip=st.sampled_from([0, 1, 40, 1500]), related=st.booleans()
)
def test_every_decision_is_the_dictionarys(seed: int, length: int, chip: int, related: bool) -> None:
    rng = np.random.default_rng(seed)
    cids = random_keys(rng, chip, length)
    if related and chip:
        # Neighbours of neighbours, and barcodes that stand at two spots.
        cids = np.concatenate([cids, substituted(rng, cids, length), substituted(rng, cids[::3], length), cids[::5]])
    spots = rng.permutation(cids.size).astype(np.uint32)
    index = BarcodeIndex.build(cids, spots, length)
    assert_as_reference(index, Reference(cids, spots, length), *reads_of(rng, cids, length, 300))


@pytest.mark.parametrize("bits", [(16, 18), (20, 22), (22, 20), (26, 18), (18, 26)])
def test_the_narrow_layout_decides_like_the_wide_one(bits: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    cids = random_keys(rng, 3000, 25)
    cids = np.concatenate([cids, substituted(rng, cids, 25), cids[:50]])
    spots = rng.integers(0, SHARED_BY_SPOTS, cids.size).astype(np.uint32)
    index = BarcodeIndex.build(cids, spots, 25, a_bits=bits[0], b_bits=bits[1])
    assert index.a_spots.size == 0
    assert index.b_entries.dtype == np.uint32
    assert_as_reference(index, Reference(cids, spots, 25), *reads_of(rng, cids, 25, 4000))


@pytest.mark.parametrize(("length", "bits"), [(25, 8), (25, 4), (8, 6), (8, 4), (32, 8)])
@pytest.mark.parametrize("is_even", [True, False])
def test_deep_buckets_are_searched_like_shallow_ones(length: int, bits: int, is_even: bool) -> None:
    rng = np.random.default_rng(4)
    cids = random_keys(rng, 3000, length)
    if not is_even:  # what stands where it should not be: half of the barcodes have the same last bases
        cids[::2] &= (np.uint64(1) << np.uint64(2 * length - 6)) - np.uint64(1)
    cids = np.unique(np.concatenate([cids, substituted(rng, cids, length), cids[:50]]))
    spots = rng.permutation(cids.size).astype(np.uint32)
    index = BarcodeIndex.build(cids, spots, length, a_bits=bits, b_bits=bits)
    assert cids.size >> bits >= 8
    assert_as_reference(index, Reference(cids, spots, length), *reads_of(rng, cids, length, 4000))


def test_deep_buckets_of_narrow_entries_are_searched_like_shallow_ones() -> None:
    rng = np.random.default_rng(6)
    cids = random_keys(rng, 10 << 16, 25)
    spots = rng.permutation(cids.size).astype(np.uint32)
    deep = BarcodeIndex.build(cids, spots, 25, a_bits=16, b_bits=18)
    shallow = BarcodeIndex.build(cids, spots, 25, a_bits=20, b_bits=22)
    assert deep.a_spots.size == shallow.a_spots.size == 0
    reads = reads_of(rng, cids, 25, 50_000)
    for max_mismatch in (0, 1):
        found, wanted = find(deep, *reads, max_mismatch=max_mismatch), find(shallow, *reads, max_mismatch=max_mismatch)
        assert np.array_equal(found[0], wanted[0])
        assert np.array_equal(found[1], wanted[1])


def test_a_batch_of_many_pieces_is_decided_read_by_read() -> None:
    rng = np.random.default_rng(8)
    cids = random_keys(rng, 20_000, 25)
    spots = np.arange(cids.size, dtype=np.uint32)
    index = BarcodeIndex.build(cids, spots, 25)
    assert_as_reference(index, Reference(cids, spots, 25), *reads_of(rng, cids, 25, 7000))


def test_a_no_call_is_tried_at_its_own_place_only() -> None:
    barcode = "TATAGTACATATGATTCCAGGTCCA"
    index = BarcodeIndex.build(np.array([encode_cid(barcode)], np.uint64), np.array([9], np.uint32), 25)
    for place in range(25):
        read = barcode[:place] + "A" + barcode[place + 1 :]
        other = (place + 7) % 25
        wrong = read[:other] + ("C" if read[other] != "C" else "G") + read[other + 1 :]
        cids = np.array([encode_cid(read), encode_cid(wrong)], np.uint64)
        one, at = np.ones(2, np.uint8), np.full(2, place, np.uint8)
        spots, verdicts, _ = find(index, cids, one, at)
        assert spots.tolist() == [9, NO_SPOT]
        assert verdicts.tolist() == [CORRECTED_N, BARCODE_N]
        assert find(index, cids, one, at, max_mismatch=0)[1].tolist() == [BARCODE_N, BARCODE_N]
        assert find(index, cids, one * np.uint8(2), at)[1].tolist() == [BARCODE_N, BARCODE_N]


def test_two_candidates_are_no_answer() -> None:
    chip = [encode_cid("ACGTACGTAC"), encode_cid("ACGTACGTAG"), encode_cid("TTTTTTTTTT")]
    index = BarcodeIndex.build(np.array(chip, np.uint64), np.arange(3, dtype=np.uint32), 10)
    reads = np.array(
        [encode_cid(bases) for bases in ("ACGTACGTAT", "ACGTACGTAC", "TTTTTTTTTG", "GGGGGGGGGG")], np.uint64
    )
    spots, verdicts, _ = find(index, reads)
    assert verdicts.tolist() == [AMBIGUOUS, EXACT, CORRECTED, UNMATCHED]
    assert spots.tolist() == [NO_SPOT, 0, 2, NO_SPOT]
    _, verdicts, _ = find(index, reads[:1], np.ones(1, np.uint8), np.full(1, 9, np.uint8))
    assert verdicts.tolist() == [BARCODE_N]


@pytest.mark.parametrize("length", [10, 25, 32])
def test_a_barcode_at_two_spots_leads_to_neither(length: int) -> None:
    twice, once = encode_cid("ACGTACGTAC".ljust(length, "G")), encode_cid("TTTTTTTTTT".ljust(length, "T"))
    cids = np.array([twice, once, twice, once, twice], np.uint64)
    index = BarcodeIndex.build(cids, np.array([4, 5, 6, 5, 7], np.uint32), length)
    assert (index.barcodes, index.shared_barcodes) == (2, 1)
    reads = np.array([twice, twice ^ 3, once, once ^ 3, twice & ~np.uint64(3)], np.uint64)
    spots, verdicts, _ = find(index, reads, np.array([0, 0, 0, 0, 1], np.uint8))
    assert verdicts.tolist() == [AMBIGUOUS, AMBIGUOUS, EXACT, CORRECTED, BARCODE_N]
    assert spots.tolist() == [NO_SPOT, NO_SPOT, 5, 5, NO_SPOT]


def test_poly_a_is_a_barcode_like_any_other() -> None:
    index = BarcodeIndex.build(np.array([0, 2**64 - 1], np.uint64), np.array([0, 1], np.uint32), 32)
    reads = np.array([0, 1, 2**64 - 1, 2**64 - 1 - 2**63, 2**63], np.uint64)
    spots, verdicts, _ = find(index, reads)
    assert verdicts.tolist() == [EXACT, CORRECTED, EXACT, CORRECTED, CORRECTED]
    assert spots.tolist() == [0, 0, 1, 1, 0]


def test_no_reads_and_no_barcodes_are_fine() -> None:
    empty = np.empty(0, np.uint64)
    index = BarcodeIndex.build(empty, np.empty(0, np.uint32), 25)
    assert find(index, empty)[0].size == 0
    assert find(index, np.arange(5, dtype=np.uint64))[1].tolist() == [UNMATCHED] * 5
    full = BarcodeIndex.build(np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint32), 25)
    assert find(full, empty)[0].size == 0


def skewed_tables() -> dict[str, NDArray[np.uint64]]:
    """Barcodes of 25 bases whose composition crowds the buckets."""
    rng = np.random.default_rng(11)
    n = 60_000
    key = random_keys(rng, n, 25)
    low = np.uint64((1 << 24) - 1)
    bases = rng.choice(4, (25, n), p=[0.02, 0.47, 0.04, 0.47]).astype(np.uint64)
    biased = np.zeros(n, np.uint64)
    for place in range(25):
        biased |= bases[place] << np.uint64(2 * place)
    words = random_keys(rng, 40, 8)
    product = words[rng.integers(0, 40, n)] | words[rng.integers(0, 40, n)] << np.uint64(16)
    product |= words[rng.integers(0, 40, n)] << np.uint64(32)
    return {
        "the same first bases": key & ~low | np.uint64(0x123456),
        "the same last bases": key & low | np.uint64(0x2ABCDEF) << np.uint64(24),
        "almost no A and T": biased,
        "three words of eight bases": product,
        "consecutive numbers": np.arange(n, dtype=np.uint64),
    }


@pytest.mark.parametrize("kind", list(skewed_tables()))
@pytest.mark.parametrize("bits", [(None, None), (16, 18)])
def test_crowded_buckets_cost_a_bounded_number_of_comparisons(kind: str, bits: tuple[int | None, int | None]) -> None:
    cids = np.unique(skewed_tables()[kind])
    rng = np.random.default_rng(2)
    spots = rng.permutation(cids.size).astype(np.uint32)
    index = BarcodeIndex.build(cids, spots, 25, a_bits=bits[0], b_bits=bits[1])
    reads, n_counts, n_positions = reads_of(rng, cids, 25, 600)
    assert_as_reference(index, Reference(cids, spots, 25), reads, n_counts, n_positions)
    # One bisection ends in a run of SMALL_FOR_EXACT entries at most; a read needs one for its exact look-up, one
    # to resolve, and three for each of its bases, in buckets that are not simply gone through.
    bisection = int(cids.size).bit_length() + SMALL_FOR_EXACT + 1
    bound = 2 * bisection + 2 * SMALL_FOR_CORRECTION + (3 * 25 + 1) * bisection
    for read, n_count, n_position in zip(reads, n_counts, n_positions, strict=True):
        one = [
            np.array([value], array.dtype)
            for value, array in ((read, reads), (n_count, n_counts), (n_position, n_positions))
        ]
        assert find(index, *one)[2] <= bound
    # Gone through entry by entry, the most crowded bucket alone would cost more.
    assert kind not in ("the same first bases", "the same last bases") or bound < cids.size


def test_more_than_one_mismatch_is_not_offered() -> None:
    index = BarcodeIndex.build(np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint32), 25)
    with pytest.raises(ValueError, match="0 or 1"):
        find(index, np.arange(2, dtype=np.uint64), max_mismatch=2)
    with pytest.raises(ValueError, match="per barcode"):
        find(index, np.arange(2, dtype=np.uint64), np.zeros(3, np.uint8))


def test_an_index_refuses_what_it_cannot_hold() -> None:
    one = np.ones(1, np.uint64)
    with pytest.raises(ValueError, match="2 to 32 bases"):
        BarcodeIndex.build(one, np.ones(1, np.uint32), 33)
    with pytest.raises(ValueError, match="spot numbers end"):
        BarcodeIndex.build(one, np.full(1, SHARED_BY_SPOTS, np.uint32), 25)
    with pytest.raises(ValueError, match="one spot per barcode"):
        BarcodeIndex.build(one, np.ones(2, np.uint32), 25)
    with pytest.raises(ValueError, match="bucket bits"):
        BarcodeIndex.build(one, np.ones(1, np.uint32), 25, a_bits=30, b_bits=30)


@pytest.mark.parametrize("barcodes", [16_000_000, 16_777_216, 64_000_000, 100_000_000, 400_000_000, 646_000_000])
def test_a_large_chip_takes_at_most_15_bytes_a_barcode(barcodes: int) -> None:
    layout = choose_layout(barcodes, 25)
    assert not layout.wide
    assert 12 + 4 * (2**layout.a_bits + 2**layout.b_bits) / barcodes <= 15


def test_tables_in_huge_pages_are_arrays_like_any_other() -> None:
    for size in (0, 10, 3_000_000):
        table = empty_table(size, np.uint32)
        table[:] = 7
        assert (table.size, table.dtype, table.flags.c_contiguous) == (size, np.uint32, True)
        assert int(table.sum()) == 7 * size


def test_without_compilation_the_decisions_are_the_same() -> None:
    program = """
import numpy as np
from cartoseq.analysis.barcodeindex import BarcodeIndex
from cartoseq.analysis.locate import locate
index = BarcodeIndex.build(np.arange(0, 4000, 100, dtype=np.uint64), np.arange(40, dtype=np.uint32), 25)
reads = np.array([100, 103, 2**49, 500, 77], np.uint64)
no_calls, spots, verdicts = np.zeros(5, np.uint8), np.zeros(5, np.uint32), np.zeros(5, np.uint8)
locate(reads, no_calls, no_calls, index, 1, spots, verdicts)
print(spots.tolist(), verdicts.tolist())
"""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[1, 1, 0, 5, {NO_SPOT}] [{EXACT}, {CORRECTED}, {CORRECTED}, {EXACT}, {UNMATCHED}]"


def test_a_small_chip_has_small_tables() -> None:
    cids = random_keys(np.random.default_rng(1), 5000, 25)
    assert BarcodeIndex.build(cids, np.arange(5000, dtype=np.uint32), 25).nbytes < 200_000


@pytest.fixture
def chip_table(tmp_path: Path) -> Path:
    folder = tmp_path / "chip"
    folder.mkdir()
    cids = np.unique(random_keys(np.random.default_rng(4), 400, 14))
    lines = [f"{decode_cid(int(cid), 14)}\t{i % 20}\t{i // 20}\n" for i, cid in enumerate(cids)]
    (folder / "chip.txt").write_text("".join(lines))
    return folder / "chip.txt"


def saved_index(table: Path) -> Path:
    (saved,) = table.parent.glob("*.barcodeindex")
    return saved


def assert_same(one: BarcodeIndex, other: BarcodeIndex) -> None:
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            assert value.dtype == getattr(other, name).dtype
            assert np.array_equal(value, getattr(other, name))
        else:
            assert value == getattr(other, name)


def test_an_index_is_kept_beside_its_table_and_read_back(chip_table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, frame = open_index(chip_table)
    first = saved_index(chip_table).read_bytes()
    monkeypatch.setattr(barcodestore, "read_chip", None)
    read, frame_read = open_index(chip_table)
    assert_same(built, read)
    assert frame == frame_read or vars(frame) == vars(frame_read)
    assert all(value.flags.writeable for value in vars(read).values() if isinstance(value, np.ndarray))
    monkeypatch.undo()
    saved_index(chip_table).unlink()
    open_index(chip_table)
    assert saved_index(chip_table).read_bytes() == first


def test_a_listed_frame_is_kept_with_its_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "beads.csv"
    table.write_text("barcode,xcoord,ycoord\nACGTACGTAC,1.5,2.25\nTCGTACGTAC,9.5,3\n")
    built, frame = open_index(table, ChipOptions(pitch_um=2.0))
    monkeypatch.setattr(barcodestore, "read_chip", None)
    read, again = open_index(table, ChipOptions(pitch_um=2.0))
    assert_same(built, read)
    assert frame.x is not None
    assert again.x is not None
    assert again.y is not None
    assert again.x.tolist() == frame.x.tolist() == [1.5, 9.5]
    assert again.y.tolist() == [2.25, 3.0]
    assert (again.kind, again.extent, again.pitch_um, again.name) == (frame.kind, frame.extent, 2.0, "beads")


def test_a_changed_table_is_indexed_anew(chip_table: Path) -> None:
    open_index(chip_table)
    chip_table.write_text("ACGTACGTACGTAC\t3\t4\n")
    index, frame = open_index(chip_table)
    assert index.barcodes == 1
    assert frame.origin_x == 3
    assert open_index(chip_table)[0].barcodes == 1


def test_other_options_have_an_index_of_their_own(chip_table: Path) -> None:
    assert open_index(chip_table)[1].pitch_um is None
    assert open_index(chip_table, ChipOptions(pitch_um=0.5))[1].pitch_um == 0.5
    assert len(list(chip_table.parent.glob("*.barcodeindex"))) == 2


def test_an_index_of_another_layout_is_built_anew(chip_table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, _ = open_index(chip_table)
    monkeypatch.setattr(barcodestore, "LAYOUT_VERSION", 99)
    assert_same(built, open_index(chip_table)[0])
    assert saved_index(chip_table).read_bytes()[8] == 99


@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped header", "emptied", "other file"])
def test_a_damaged_index_is_built_anew_and_said_so(
    chip_table: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    built, _ = open_index(chip_table)
    saved = saved_index(chip_table)
    whole = saved.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 4
    flipped_header = bytearray(whole)
    flipped_header[60] ^= 1
    damaged = {
        "cut": whole[:-100],
        "flipped": bytes(flipped),
        "flipped header": bytes(flipped_header),
        "emptied": b"",
        "other file": b"something else altogether, of some length" * 4,
    }
    saved.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        assert_same(built, open_index(chip_table)[0])
    assert "damaged" in caplog.text
    assert saved.read_bytes() == whole
    assert [file.name for file in chip_table.parent.iterdir() if file.name.startswith(".")] == []


def test_the_cache_folder_is_used_where_it_is_named(chip_table: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "deep"
    open_index(chip_table, cache_folder=cache)
    assert len(list(cache.glob("chip.txt.*.barcodeindex"))) == 1
    assert not list(chip_table.parent.glob("*.barcodeindex"))


def test_a_folder_that_cannot_be_written_falls_back_to_the_users_cache(
    chip_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(barcodestore.platformdirs, "user_cache_path", lambda name: cache / name)
    write = barcodestore.save_index

    def refuse_beside(path: Path, *rest: Any) -> None:
        if path.parent == chip_table.parent:
            raise PermissionError(13, "Permission denied")
        write(path, *rest)

    monkeypatch.setattr(barcodestore, "save_index", refuse_beside)
    built, _ = open_index(chip_table)
    assert len(list((cache / "cartoseq" / "barcodes").iterdir())) == 1
    monkeypatch.setattr(barcodestore, "read_chip", None)
    assert_same(built, open_index(chip_table)[0])
    monkeypatch.undo()

    def refuse(path: Path, *rest: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(barcodestore.platformdirs, "user_cache_path", lambda name: tmp_path / "other" / name)
    monkeypatch.setattr(barcodestore, "save_index", refuse)
    with caplog.at_level(logging.WARNING):
        assert_same(built, open_index(chip_table)[0])
    assert "built again next time" in caplog.text


def test_a_chip_without_a_table_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_index(tmp_path / "absent.txt")


def test_shared_barcodes_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = tmp_path / "chip.txt"
    table.write_text("ACGTACGTAC\t1\t1\nACGTACGTAC\t2\t1\nTTGTACGTAC\t2\t1\n")
    with caplog.at_level(logging.WARNING):
        index, _ = open_index(table)
    assert index.shared_barcodes == 1
    assert "1 barcodes stand at several spots" in caplog.text


def test_real_visium_reads_are_placed_as_the_reference_tool_did(real_data: Path) -> None:
    folder = real_data / "rna_visium"
    chip = read_chip(folder / "visium-v1_coordinates.txt", ChipOptions(one_based=True))
    index = BarcodeIndex.build(chip.cids, chip.spots, chip.barcode_length)
    barcode_of = dict(zip(chip.spots.tolist(), chip.cids.tolist(), strict=True))
    with dnaio.open(folder / "vy3C_10k_R1.fq.gz") as reads:
        records = [(record.name.split()[0], record.sequence[:16]) for record in reads]
    code = np.zeros(256, np.uint8)
    for base, letter in enumerate(b"ACGT"):
        code[letter] = base | 30 << 2
    letters = np.frombuffer("".join(bases for _, bases in records).encode(), np.uint8).reshape(-1, 16)
    calls = np.ascontiguousarray(code[letters].T)
    cids, n_counts, n_positions = (np.empty(len(records), kind) for kind in (np.uint64, np.uint8, np.uint8))
    pack_cids(calls, np.arange(16), cids, n_counts, n_positions)
    spots, verdicts, _ = find(index, cids, n_counts, n_positions)

    counts = Counter(verdicts.tolist())
    assert counts[EXACT] == 9378
    assert counts[CORRECTED] + counts[CORRECTED_N] == 270
    assert counts[CORRECTED_N] == 7
    assert counts[AMBIGUOUS] == 0
    assert counts[UNMATCHED] + counts[BARCODE_N] == 352
    found = {
        name: decode_cid(barcode_of[spot], 16)
        for (name, _), spot in zip(records, spots.tolist(), strict=True)
        if spot != NO_SPOT
    }
    with gzip.open(folder / "expected_starsolo" / "per_read.tsv.gz", "rt") as lines:
        header = next(lines).split("\t")
        expected = [line.rstrip("\n").split("\t") for line in lines]
    name, barcode = header.index("read"), header.index("CB")
    listed = [fields for fields in expected if fields[barcode] != "-"]
    assert len(listed) > 3000
    assert [fields for fields in listed if found.get(fields[name]) != fields[barcode]] == []
    # The reference counts a corrected read, but tags it only if its barcode has an exact read too: the prior of its
    # correction. All that we place among the untagged ones are of that kind.
    seen_exactly = {spot for spot, verdict in zip(spots.tolist(), verdicts.tolist(), strict=True) if verdict == EXACT}
    exact_barcodes = {decode_cid(barcode_of[spot], 16) for spot in seen_exactly}
    untagged = [found[fields[name]] for fields in expected if fields[barcode] == "-" and fields[name] in found]
    assert len(untagged) == 8
    assert exact_barcodes.isdisjoint(untagged)
