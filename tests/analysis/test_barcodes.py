"""Packing of spatial and molecular barcodes against published values and a plain Python reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cartoseq.analysis.barcodes import (
    MID_HOMOPOLYMER,
    MID_LOW_QUALITY,
    MID_N,
    MID_OK,
    decode_cid,
    decode_mid,
    encode_cid,
    encode_mid,
    pack_cids,
    pack_mids,
)


def random_calls(seed: int, cycles: int, clusters: int, no_calls: float = 0.02) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    calls = (rng.integers(0, 4, (cycles, clusters)) | rng.integers(1, 42, (cycles, clusters)) << 2).astype(np.uint8)
    calls[rng.random(calls.shape) < no_calls] = 0
    return calls


def packed_cids(
    calls: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]]:
    clusters = calls.shape[1]
    # Filled with rubbish: a kernel must write every element.
    cids, n_counts, n_positions = (np.full(clusters, 77, kind) for kind in (np.uint64, np.uint8, np.uint8))
    pack_cids(calls, rows, cids, n_counts, n_positions)
    return cids, n_counts, n_positions


def packed_mids(calls: NDArray[np.uint8], rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    mids = np.full(calls.shape[1], 77, np.uint64)
    verdicts = np.full(calls.shape[1], 77, np.uint8)
    pack_mids(calls, rows, mids, verdicts)
    return mids, verdicts


def column(bases: str, quality: int = 30) -> NDArray[np.uint8]:
    return np.array([[0 if base == "N" else "ACGT".index(base) | quality << 2] for base in bases], np.uint8)


def expected_mid_verdict(calls: NDArray[np.uint8]) -> int:
    if (calls == 0).any():
        return MID_N
    if len(set(calls & 3)) == 1:
        return MID_HOMOPOLYMER
    return MID_LOW_QUALITY if ((calls >> 2) < 10).sum() > 1 else MID_OK


def test_a_published_cid_packs_to_its_mask_value() -> None:
    assert encode_cid("TATAGTACATATGATTCCAGGTCCA") == 100904410303266
    assert decode_cid(100904410303266, 25) == "TATAGTACATATGATTCCAGGTCCA"
    assert packed_cids(column("TATAGTACATATGATTCCAGGTCCA"), np.arange(25))[0][0] == 100904410303266


def test_a_published_mid_packs_to_its_hexadecimal() -> None:
    assert encode_mid("CGGTCCAACT") == 0x6B507
    assert decode_mid(0x6B507, 10) == "CGGTCCAACT"
    assert packed_mids(column("CGGTCCAACT"), np.arange(10))[0][0] == 0x6B507


@given(st.text("ACGT", max_size=32))
def test_packing_is_undone_by_unpacking(bases: str) -> None:
    assert decode_cid(encode_cid(bases), len(bases)) == bases
    assert decode_mid(encode_mid(bases), len(bases)) == bases


@pytest.mark.parametrize("bases", ["ACGN", "acgt", "A" * 33])
def test_what_is_no_barcode_is_refused(bases: str) -> None:
    with pytest.raises(ValueError, match="barcode"):
        encode_cid(bases)
    with pytest.raises(ValueError, match="barcode"):
        encode_mid(bases)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, 32), st.sampled_from([0, 1, 7, 300]))
def test_cids_of_a_block_are_packed_as_one_by_one(seed: int, bases: int, clusters: int) -> None:
    calls = random_calls(seed, 40, clusters)
    rows = np.random.default_rng(seed).permutation(40)[:bases]
    cids, n_counts, n_positions = packed_cids(calls, rows)
    for cluster in range(clusters):
        barcode = calls[rows, cluster]
        absent = np.flatnonzero(barcode == 0)
        assert cids[cluster] == encode_cid("".join("ACGT"[call & 3] for call in barcode))
        assert n_counts[cluster] == absent.size
        assert n_positions[cluster] == (absent[-1] if absent.size else 0)


def test_a_block_of_more_than_one_piece_is_packed_whole() -> None:
    calls = random_calls(5, 25, 2500)
    whole = packed_cids(calls, np.arange(25))
    for first in (0, 1000, 1023, 1024, 2047, 2499):
        part = packed_cids(np.ascontiguousarray(calls[:, first : first + 1]), np.arange(25))
        assert [array[first] for array in whole] == [array[0] for array in part]
    mids, verdicts = packed_mids(calls, np.arange(10))
    for first in (0, 1000, 1023, 1024, 2047, 2499):
        mid, verdict = packed_mids(np.ascontiguousarray(calls[:, first : first + 1]), np.arange(10))
        assert (mids[first], verdicts[first]) == (mid[0], verdict[0])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 32), st.sampled_from([0, 1, 300]))
def test_mids_of_a_block_are_packed_and_judged_as_one_by_one(seed: int, bases: int, clusters: int) -> None:
    calls = random_calls(seed, 40, clusters)
    rows = np.random.default_rng(seed).permutation(40)[:bases]
    mids, verdicts = packed_mids(calls, rows)
    for cluster in range(clusters):
        barcode = calls[rows, cluster]
        assert mids[cluster] == encode_mid("".join("ACGT"[call & 3] for call in barcode))
        assert verdicts[cluster] == expected_mid_verdict(barcode)


def test_mid_rules_are_tested_in_their_order() -> None:
    def verdict(bases: str, qualities: list[int]) -> int:
        calls = np.hstack([column(base, quality) for base, quality in zip(bases, qualities, strict=True)]).T
        return int(packed_mids(np.ascontiguousarray(calls), np.arange(len(bases)))[1][0])

    assert verdict("NAAA", [0, 5, 5, 5]) == MID_N
    assert verdict("AAAA", [5, 5, 5, 5]) == MID_HOMOPOLYMER
    assert verdict("GGGG", [30, 30, 30, 30]) == MID_HOMOPOLYMER
    assert verdict("ACGT", [9, 9, 30, 30]) == MID_LOW_QUALITY
    assert verdict("ACGT", [9, 10, 30, 30]) == MID_OK


def test_a_library_without_mids_has_good_empty_ones() -> None:
    mids, verdicts = packed_mids(random_calls(1, 5, 40), np.empty(0, np.int64))
    assert not mids.any()
    assert (verdicts == MID_OK).all()


def test_a_barcode_of_32_bases_fills_all_64_bits() -> None:
    calls = column("G" * 32)
    assert packed_cids(calls, np.arange(32))[0][0] == 2**64 - 1
    assert packed_mids(column("T" * 32), np.arange(32))[0][0] == 2**64 - 1
