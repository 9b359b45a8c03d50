"""The kernels of alignment against plain Python."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from cartoseq.analysis import alignment
from cartoseq.analysis.bitcount import count_bits, lowest_bit
from cartoseq.analysis.packed import Introns, Text
from cartoseq.analysis.reference import intron_edges, pack_text, unknown_blocks
from cartoseq.streaming.kernel import kernel


@kernel
def _bits(words: NDArray[np.uint64], counts: NDArray[np.uint64], lowest: NDArray[np.uint64]) -> None:
    for i in range(words.size):
        counts[i] = count_bits(words[i])
        lowest[i] = lowest_bit(words[i])


def pack(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words, unknown = np.zeros(codes.size // 32 + 4, np.uint64), np.full(codes.size // 64 + 4, ~np.uint64(0))
    pack_text(codes, 0, words, unknown)
    return words, unknown


def mark(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    words = np.zeros(bits.size // 32 + 2, np.uint64)
    for i in np.flatnonzero(bits):
        words[i // 32] |= np.uint64(1 << 2 * (int(i) % 32))
    return words


def test_bits_are_counted_and_found() -> None:
    words = np.array([0, 1, 8, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF], np.uint64)
    counts, lowest = np.zeros(5, np.uint64), np.zeros(5, np.uint64)
    _bits(words, counts, lowest)
    assert counts.tolist() == [0, 1, 1, 1, 64]
    assert lowest.tolist() == [64, 0, 3, 63, 0]


def test_mismatches_are_marked_with_unknown_bases_on_either_side() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 4, 3000).astype(np.uint8)
    codes[1500:1503] = 4
    codes[2990:] = 4
    text, unknown = pack(codes)
    for length in (20, 32, 50, 64, 100, 150):
        for diagonal in (0, 5, 700, 1500 - length // 2, 1503, 2990 - length + 4):
            read = codes[diagonal : diagonal + length].copy()
            read[rng.random(length) < 0.1] ^= 1
            no_call = rng.random(length) < 0.03
            reads, _ = pack(np.where(read > 3, 0, read).astype(np.uint8))
            out = np.zeros(8, np.uint64)
            total = alignment.compare(
                np.concatenate([np.zeros(3, np.uint64), reads]),
                np.concatenate([np.zeros(3, np.uint64), mark(no_call), np.zeros(8, np.uint64)]),
                3,
                length,
                Text(text, unknown, unknown_blocks(unknown)),
                diagonal,
                out,
                1,
            )
            window = codes[diagonal : diagonal + length]
            expected = (window != np.where(read > 3, 0, read)) | (window == 4) | no_call
            assert total == expected.sum()
            assert out[1 : 1 + (length + 31) // 32].tolist() == mark(expected)[: (length + 31) // 32].tolist()


def test_a_read_outside_the_text_mismatches_everywhere() -> None:
    text, unknown = pack(np.zeros(400, np.uint8))
    out = np.zeros(4, np.uint64)
    zeros = np.zeros(4, np.uint64)
    for diagonal in (-1, 480, 10_000):
        assert (
            alignment.compare(zeros, zeros, 0, 40, Text(text, unknown, unknown_blocks(unknown)), diagonal, out, 0) == 40
        )


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.75, 1.0])
def test_best_stretches_are_the_best_of_all_intervals(rate: float) -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        n = int(rng.integers(1, 101))
        bits = rng.random(n) < rate
        begin = int(rng.integers(0, n))
        end = int(rng.integers(begin, n + 1))
        sums = np.concatenate([[0], np.cumsum(np.where(bits, -alignment.MISMATCH, 1))])
        wrong = np.concatenate([[0], np.cumsum(bits)])
        marks = np.concatenate([np.zeros(2, np.uint64), mark(bits)])
        best, start, stop, mismatches = alignment.best_stretch(marks, 2, begin, end)
        assert best == max(sums[b] - sums[a] for a in range(begin, end + 1) for b in range(a, end + 1))
        assert best == sums[stop] - sums[start]
        assert mismatches == wrong[stop] - wrong[start]
        best, start, mismatches = alignment.best_ending(marks, 2, begin, end)
        assert best == max(sums[end] - sums[a] for a in range(begin, end + 1)) == sums[end] - sums[start]
        assert mismatches == wrong[end] - wrong[start]
        best, stop, mismatches = alignment.best_beginning(marks, 2, begin, end)
        assert best == max(sums[b] - sums[begin] for b in range(begin, end + 1)) == sums[stop] - sums[begin]
        assert mismatches == wrong[stop] - wrong[begin]


def gapped_score(read: list[int], window: list[int]) -> int:
    """Local alignment with affine gaps, cell by cell (Gotoh), within the band."""
    low = -(10**9)
    open_, extend = alignment.GAP_OPEN + alignment.GAP_EXTEND, alignment.GAP_EXTEND
    n, m = len(read), len(window)
    match = [[low] * (m + 1) for _ in range(n + 1)]
    skip = [[low] * (m + 1) for _ in range(n + 1)]
    add = [[low] * (m + 1) for _ in range(n + 1)]
    best = 0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            if not 0 <= j - i <= 2 * alignment.BAND:
                continue
            before = max(0, match[i - 1][j - 1], skip[i - 1][j - 1], add[i - 1][j - 1])
            match[i][j] = before + (1 if read[i - 1] == window[j - 1] else -alignment.MISMATCH)
            skip[i][j] = max(match[i][j - 1] - open_, skip[i][j - 1] - extend)
            add[i][j] = max(match[i - 1][j] - open_, add[i - 1][j] - extend)
            best = max(best, match[i][j])
    return best


def test_gapped_alignment_scores_as_the_plain_matrix() -> None:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 4, 2000).astype(np.uint8)
    text, unknown = pack(codes)
    for case in range(40):
        length, diagonal = int(rng.integers(30, 80)), 500
        read = codes[diagonal : diagonal + length + 20].tolist()
        for _ in range(case % 3):
            at, size = int(rng.integers(5, length - 5)), int(rng.integers(1, 8))
            read = read[:at] + (read[at + size :] if rng.random() < 0.5 else [0] * size + read[at:])
        read = [code ^ 1 if rng.random() < 0.02 else code for code in read[:length]]
        row = np.zeros(alignment.ROW, np.int64)
        words, _ = pack(np.array(read, np.uint8))
        alignment.align_gapped(
            words,
            np.zeros(8, np.uint64),
            0,
            length,
            Text(text, unknown, unknown_blocks(unknown)),
            diagonal,
            np.zeros((6, 2 * alignment.BAND + 1), np.int64),
            row,
        )
        window = codes[diagonal - alignment.BAND : diagonal + length + alignment.BAND].tolist()
        assert row[alignment.SCORE] == gapped_score(read, window)


@pytest.mark.parametrize("gap", [-8, -3, -1, 1, 2, 8])
def test_a_gap_is_bridged_with_both_ends_in_their_places(gap: int) -> None:
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 4, 1000).astype(np.uint8)
    text, unknown = pack(codes)
    if gap > 0:  # bases that the read lacks
        read = np.concatenate([codes[300:350], codes[350 + gap : 400 + gap]])
    else:
        read = np.concatenate([codes[300:350], rng.integers(0, 4, -gap).astype(np.uint8), codes[350:400]])
    row = np.zeros(alignment.ROW, np.int64)
    words, _ = pack(read)
    alignment.align_gapped(
        words,
        np.zeros(8, np.uint64),
        0,
        read.size,
        Text(text, unknown, unknown_blocks(unknown)),
        300,
        np.zeros((6, 2 * alignment.BAND + 1), np.int64),
        row,
    )
    assert row[alignment.FROM] == 0
    assert row[alignment.TO] == read.size
    assert row[alignment.FIRST_BLOCK] == 300
    assert row[alignment.FIRST_BLOCK + 1] == 400 + max(gap, 0)
    assert row[alignment.MISMATCHES] == abs(gap)


def test_a_read_over_two_introns_is_joined_from_any_exon() -> None:
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 4, 8000).astype(np.uint8)
    text, unknown = pack(codes)
    introns = np.array([[1030, 2000], [2040, 5000], [2040, 6000]])
    starts, ends = np.ascontiguousarray(introns[:, 0]), np.ascontiguousarray(introns[:, 1])
    by_end = np.argsort(ends, kind="stable").astype(np.int64)
    blocks = np.arange(5) << alignment.INTRON_BLOCK_SHIFT
    start_of = np.searchsorted(starts, blocks).astype(np.uint32)
    end_of = np.searchsorted(np.sort(ends), blocks).astype(np.uint32)
    exons = [(1000, 1030), (2000, 2040), (5000, 5030)]
    read = np.concatenate([codes[a:b] for a, b in exons])
    read[50] ^= 2
    words, _ = pack(read)
    for diagonal in (1000, 2000 - 30, 5000 - 70):
        row = np.zeros(alignment.ROW, np.int64)
        alignment.align_at(
            words,
            np.zeros(8, np.uint64),
            0,
            100,
            Text(text, unknown, unknown_blocks(unknown)),
            Introns(starts, ends, by_end, start_of, end_of, intron_edges(introns, codes.size)),
            diagonal,
            100,
            np.zeros(15, np.uint64),
            row,
        )
        assert row[: alignment.FIRST_BLOCK].tolist() == [100 - 3 - 2, 1, 0, 100, 3]
        columns = row[alignment.FIRST_BLOCK : alignment.FIRST_BLOCK + 9].reshape(3, 3)
        assert [tuple(column[:2]) for column in columns.tolist()] == exons
        assert all(a[1] < b[0] for a, b in pairwise(columns.tolist()))
