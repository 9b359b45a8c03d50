"""Packing, reversing and trimming of templates, against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cartoseq.analysis import template
from cartoseq.analysis.assign import make_scratch
from cartoseq.analysis.packed import Limits

RNG_SEED = 11


def make_calls(rng: np.random.Generator, bases: int, n: int) -> NDArray[np.uint8]:
    calls = (rng.integers(0, 4, (bases, n)) | 30 << 2).astype(np.uint8)
    calls[rng.random((bases, n)) < 0.05] = 0
    for i in range(0, n, 3):
        calls[rng.integers(0, bases + 1) :, i] = 0
    return calls


def unpack(words: NDArray[np.uint64], n: int) -> list[int]:
    return [int(words[i // 32]) >> 2 * (i % 32) & 3 for i in range(n)]


def packed(sequences: list[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint16]]:
    bases = max(map(len, sequences))
    calls = np.zeros((bases, len(sequences)), np.uint8)
    for i, sequence in enumerate(sequences):
        for j, letter in enumerate(sequence):
            calls[j, i] = 0 if letter == "N" else "ACGT".index(letter) | 40 << 2
    words = bases // 32 + 2
    forward, lost = np.zeros((len(sequences), words), np.uint64), np.zeros((len(sequences), words), np.uint64)
    lengths = np.zeros(len(sequences), np.uint16)
    template.pack_reads(calls, 0, forward, lost, lengths, make_scratch(bases + 32, len(sequences)))
    return forward, lost, lengths


@pytest.mark.parametrize("bases", [1, 20, 31, 32, 33, 64, 90, 150])
def test_reads_are_packed_and_reversed(bases: int) -> None:
    rng = np.random.default_rng(RNG_SEED)
    calls = make_calls(rng, bases, 70)
    n, first, words = 50, 13, bases // 32 + 2
    arrays = [np.full((n, words), 7, np.uint64) for _ in range(4)]
    forward, lost, reverse, reverse_lost = arrays
    lengths = np.zeros(n, np.uint16)
    template.pack_reads(calls, first, forward, lost, lengths, make_scratch(bases, n))
    template.reverse_reads(forward, lost, lengths, reverse, reverse_lost, make_scratch(bases, n))
    for r in range(n):
        read = calls[:, first + r]
        called = np.flatnonzero(read)
        length = int(called[-1]) + 1 if called.size else 0
        assert lengths[r] == length
        codes = (read[:length] & 3).tolist()
        no_call = (read[:length] == 0).astype(int).tolist()
        assert unpack(forward[r], length) == codes
        assert unpack(lost[r], length) == no_call
        assert unpack(reverse[r], length) == [3 - code for code in codes[::-1]]
        assert unpack(reverse_lost[r], length) == no_call[::-1]
        for row in (forward[r], lost[r], reverse[r], reverse_lost[r]):
            assert not any(unpack(row, 32 * words)[length:])


def first_run(sequence: str, letter: str, run: int, mismatches: int) -> int:
    for i in range(len(sequence) - run + 1):
        window = sequence[i : i + run]
        if window[0] == letter and sum(other != letter for other in window) <= mismatches:
            return i
    return len(sequence)


@pytest.mark.parametrize(("run", "mismatches"), [(4, 0), (15, 0), (15, 1), (20, 3), (40, 0), (70, 2)])
def test_tails_end_where_the_first_run_begins(run: int, mismatches: int) -> None:
    rng = np.random.default_rng(RNG_SEED)
    sequences = ["A" * 100, "C" * 100, "ACGT" * 25]
    for _ in range(400):
        letters = rng.choice(list("ACGTN"), 100, p=[0.4, 0.2, 0.2, 0.18, 0.02])
        start = int(rng.integers(0, 100))
        letters[start : start + int(rng.integers(1, run + 10))] = "A"
        letters[rng.random(100) < 0.03] = "G"
        sequences.append("".join(letters[: rng.integers(1, 101)]).rstrip("N") or "C")
    forward, lost, lengths = packed(sequences)
    template.trim_tails(forward, lost, 0, run, mismatches, lengths, make_scratch(128, 1))
    assert lengths.tolist() == [first_run(sequence, "A", run, mismatches) for sequence in sequences]


def test_a_poly_t_head_is_cut_off_and_counted() -> None:
    rest = "ACGATCGGCTAGCTAGGATCGATCGGCTAACGGTCA"
    sequences = ["T" * 18 + rest, "T" * 9 + "G" + "T" * 30 + rest, rest, "T" * 40, "T" * 10 + rest]
    forward, lost, lengths = packed(sequences)
    heads = np.zeros(len(sequences), np.uint16)
    template.trim_heads(forward, lost, 3, 15, 1, lengths, heads)
    assert heads.tolist() == [18, 40, 0, 40, 0]
    assert lengths.tolist() == [len(rest), len(rest), len(rest), 0, len(rest) + 10]
    for row in range(3):
        assert "".join("ACGT"[code] for code in unpack(forward[row], len(rest))) == rest


def test_an_adapter_is_cut_whole_with_mismatches_and_short_at_the_end() -> None:
    adapter = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCAC"
    insert = "CCTTGACCGTTAACGGCTTA"
    changed = "AGATCGGTAGAGCACACGTCTGATCTCCAGTCAC"
    sequences = [insert + adapter + "GG", insert + adapter[:9], insert + adapter[:7], insert + changed, adapter, insert]
    forward, _, lengths = packed(sequences)
    codes = np.array(["ACGT".index(letter) for letter in adapter], np.uint8)
    template.trim_adapter(forward, codes, 8, 0.1, lengths)
    assert lengths.tolist() == [20, 20, 27, 20, 0, 20]


@pytest.mark.parametrize("length", [7, 31, 32, 33, 64, 100])
def test_no_run_of_seven_is_overlooked(length: int) -> None:
    rng = np.random.default_rng(length)
    for _ in range(200):
        codes = rng.integers(0, 4, length)
        codes[codes == 0] = 3
        at = int(rng.integers(0, length - 6))
        codes[at : at + 7] = 0
        row = np.zeros(5, np.uint64)
        for i, code in enumerate(codes.tolist()):
            row[i // 32] |= np.uint64(code) << np.uint64(2 * (i % 32))
        assert template._may_hold_run(row, np.uint64(0), length)


def test_a_read_without_four_equal_bases_in_a_row_holds_no_run() -> None:
    row = np.full(5, 0b11100100 * 0x0101010101010101, np.uint64)
    assert not any(template._may_hold_run(row, np.uint64(letter), 100) for letter in range(4))


def test_the_bases_that_must_align_are_the_whole_part_of_the_share() -> None:
    lengths = np.array([0, 1, 20, 31, 48, 100, 512], np.uint16)
    needed = np.zeros(lengths.size, np.uint16)
    template.count_needed(lengths, Limits(0.1, 3, 0.66, 20, 0), needed)
    assert needed.tolist() == [max(20, int(0.66 * max(int(length) - 1, 0))) for length in lengths]
