"""The FASTQ kernels against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cartoseq.drivers.basecalls import fastqbytes
from cartoseq.drivers.basecalls.fastqbytes import (
    PADDING,
    RECORD_ROWS,
    TILE_READS,
    fill_calls,
    fill_coded_calls,
    find_records,
    names_begin_with,
    pair_names,
    read_hex_words,
)

Bytes = NDArray[np.uint8]

NAMES = st.text(alphabet="ABCxyz019:_#+/@", min_size=0, max_size=20)
COMMENTS = st.sampled_from(["", " 1:N:0:ACGT", "\tcomment", " ", " /1"])
LENGTHS = st.integers(0, 70)


def buffer_of(text: bytes, begin: int = 0) -> tuple[Bytes, NDArray[np.uint64], int, int]:
    buffer = np.full((begin + len(text) + PADDING + 7) // 8 * 8, 10, dtype=np.uint8)
    buffer[begin : begin + len(text)] = np.frombuffer(text, dtype=np.uint8)
    return buffer, buffer.view(np.uint64), begin, begin + len(text)


def marked(text: bytes, begin: int = 0) -> tuple[Bytes, NDArray[np.int64], int]:
    buffer, words, start, stop = buffer_of(text, begin)
    records = np.zeros((RECORD_ROWS, len(text) // 6 + 1), dtype=np.int64)
    count, _, _ = find_records(buffer, words, start, stop, records)
    return buffer, records, count


def shared_part(line: str) -> str:
    """The part of a name that the reads of one cluster share, the slow way."""
    word = line.replace("\t", " ").split(" ")[0]
    return word[:-2] if len(word) >= 2 and word[-2] == "/" and word[-1] in "1234" else word


@st.composite
def records_strategy(draw: st.DrawFn) -> list[tuple[str, str, str, str]]:
    records = []
    for _ in range(draw(st.integers(0, 8))):
        length = draw(LENGTHS)
        bases = draw(st.text(alphabet="ACGTNacgtn", min_size=length, max_size=length))
        qualities = draw(st.text(alphabet=[chr(c) for c in range(33, 127)], min_size=length, max_size=length))
        name = draw(NAMES) + draw(COMMENTS)
        records.append((name, bases, draw(st.sampled_from(["+", "+" + name, "+x"])), qualities))
    return records


@settings(deadline=None, max_examples=60)
@given(records_strategy(), st.integers(0, 17), st.data())
def test_every_record_is_marked_wherever_the_text_lies_and_ends(
    records: list[tuple[str, str, str, str]], begin: int, data: st.DataObject
) -> None:
    lines = ["@{}\n{}\n{}\n{}\n".format(*record).encode() for record in records]
    text = b"".join(lines)
    cut = data.draw(st.integers(0, len(text)))
    whole = sum(sum(map(len, lines[: i + 1])) <= cut for i in range(len(lines)))
    buffer, words, start, stop = buffer_of(text[:cut], begin)
    found = np.zeros((RECORD_ROWS, 20), dtype=np.int64)
    count, position, reason = find_records(buffer, words, start, stop, found)
    assert (count, position, reason) == (whole, begin + sum(map(len, lines[:whole])), fastqbytes.CUT)
    for i, (name, bases, _, qualities) in enumerate(records[:whole]):
        at, key_end, end, sequence, quality, length = found[:, i].tolist()
        assert buffer[at:end].tobytes().decode() == name
        assert buffer[at:key_end].tobytes().decode() == shared_part(name)
        assert length == len(bases)
        assert buffer[sequence : sequence + length].tobytes().decode() == bases
        assert buffer[quality : quality + length].tobytes().decode() == qualities


def test_no_more_records_are_marked_than_there_is_room_for() -> None:
    buffer, words, start, stop = buffer_of(b"@a\nA\n+\nI\n" * 5)
    records = np.zeros((RECORD_ROWS, 3), dtype=np.int64)
    assert find_records(buffer, words, start, stop, records) == (3, 27, fastqbytes.ENOUGH)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b">a\nACG\n", fastqbytes.NO_AT),
        (b"\n@a\nA\n+\nI\n", fastqbytes.BLANK_LINE),
        (b"@a\r\nA\r\n+\r\nI\r\n", fastqbytes.CARRIAGE_RETURN),
        (b"@a\nA\r\n+\nI\n", fastqbytes.CARRIAGE_RETURN),
        (b"@a\nA\n+\nI\r\n", fastqbytes.CARRIAGE_RETURN),
        (b"@a\nACG\nACG\n+\nIIIIII\n", fastqbytes.NO_PLUS),
        (b"@a\nACG\n+\nIIII\n", fastqbytes.UNEQUAL),
        (b"@a\nACG\n+\nII\n@b\nACG\n+\nIII\n", fastqbytes.UNEQUAL),
    ],
)
def test_a_fault_stops_at_its_record(text: bytes, reason: int) -> None:
    good = b"@good/1\nACGT\n+\nIIII\n"
    buffer, words, start, stop = buffer_of(good * 2 + text)
    records = np.zeros((RECORD_ROWS, 20), dtype=np.int64)
    assert find_records(buffer, words, start, stop, records) == (2, 2 * len(good), reason)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(NAMES, COMMENTS, NAMES, COMMENTS, st.booleans()), max_size=12))
def test_names_pair_up_to_read_number_and_blank(names: list[tuple[str, str, str, str, bool]]) -> None:
    one = [name + comment for name, comment, _, _, _ in names]
    two = [(name if same else other) + comment for name, _, other, comment, same in names]
    text, records, count = marked(b"".join(f"@{name}\nA\n+\nI\n".encode() for name in one))
    other, other_records, _ = marked(b"".join(f"@{name}\nAC\n+\nII\n".encode() for name in two), begin=3)
    pairs = [shared_part(a) == shared_part(b) for a, b in zip(one, two, strict=True)]
    expected = pairs.index(False) if False in pairs else len(pairs)
    assert pair_names(text, records, 0, other, other_records, 0, count) == expected


def test_names_share_a_beginning_or_do_not() -> None:
    text, records, count = marked(b"@L1C001R001x\nA\n+\nI\n@L1C001R002\nA\n+\nI\n@L1\nA\n+\nI\n")

    def share(first: int, number: int, beginning: bytes) -> bool:
        return names_begin_with(text, records, first, number, np.frombuffer(beginning, dtype=np.uint8).copy())

    assert share(0, count, b"L1")
    assert not share(0, count, b"L1C")
    assert share(0, 2, b"L1C001R00")
    assert not share(0, 2, b"L1C001R001")


def slow_call(base: str, quality: str) -> int:
    if base in "Nn":
        return 0
    return "ACGT".index(base.upper()) | min(max(ord(quality) - 33, 1), 63) << 2


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 300),
    st.integers(1, 75),
    st.integers(0, 5),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_calls_are_the_letters_cycle_by_cycle(
    reads: int, longest: int, row: int, column: int, seed: int, padded: bool
) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, reads) if padded else np.full(reads, longest)
    bases = ["".join(rng.choice(list("ACGTNacgtn"), length)) for length in lengths]
    qualities = ["".join(map(chr, rng.integers(33, 127, length))) for length in lengths]
    text = "".join(f"@{i}\n{b}\n+\n{q}\n" for i, (b, q) in enumerate(zip(bases, qualities, strict=True))).encode()
    buffer, records, count = marked(text)
    calls = np.full((row + longest + 2, column + reads + 3), 255, dtype=np.uint8)
    expected = calls.copy()
    for i in range(reads):
        for k in range(longest):
            inside = k < lengths[i]
            expected[row + k, column + i] = slow_call(bases[i][k], qualities[i][k]) if inside else 0
    assert fill_calls(buffer, records, 0, count, 0, longest, calls, row, column) == reads
    np.testing.assert_array_equal(calls, expected)


@pytest.mark.parametrize("bad", [0, 1, TILE_READS - 1, TILE_READS, 200, 299])
@pytest.mark.parametrize(
    ("base", "quality", "length"),
    [
        ("*", "I", 40),
        ("\n", "I", 40),
        ("A", " ", 40),
        ("A", "\x7f", 40),
        ("N", "\x80", 40),
        ("A", "I", 39),
        ("A", "I", 41),
    ],
)
def test_the_first_record_at_fault_is_named_and_those_before_are_filled(
    bad: int, base: str, quality: str, length: int
) -> None:
    text, records, count = marked(_many(300))
    position = 37
    text[records[fastqbytes.BASES, bad] + position] = ord(base)
    text[records[fastqbytes.QUALITIES, bad] + position] = ord(quality)
    records[fastqbytes.LENGTH, bad] = length
    if length < 40:
        position = 0
    # A later fault must not hide the first.
    if bad + 1 < count:
        text[records[fastqbytes.BASES, bad + 1]] = ord("?")
    calls = np.zeros((40, count), dtype=np.uint8)
    assert fill_calls(text, records, 0, count, 40, 40, calls, 0, 0) == bad
    assert np.all(calls[:, :bad] == (1 | 40 << 2))


def _many(count: int) -> bytes:
    assert count > 2 * TILE_READS
    return b"".join(b"@%d\n%s\n+\n%s\n" % (i, b"C" * 40, b"I" * 40) for i in range(count))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**20 - 1), st.booleans()), max_size=10))
def test_hexadecimal_words_are_read_with_or_without_leading_zeros(words: list[tuple[int, int, bool]]) -> None:
    text = "".join(
        f"@L1C001|Cx:i:9 {cid:016X} {mid:05x} rest\nA\n+\nI\n" if full else f"@L1/1\t{cid:X}  {mid:X}\nA\n+\nI\n"
        for cid, mid, full in words
    ).encode()
    buffer, records, count = marked(text)
    values = np.zeros((2, max(count, 1)), dtype=np.uint64)
    assert read_hex_words(buffer, records, 0, count, np.array([16, 5], dtype=np.int64), values) == len(words)
    assert values[:, :count].T.tolist() == [[cid, mid] for cid, mid, _ in words]


@pytest.mark.parametrize("name", [b"n", b"n A", b"n A ", b"n AG 1", b"n 12345 1", b"n A 123456", b"n A:1", b"n A @"])
def test_names_without_two_fitting_hexadecimal_words_are_at_fault(name: bytes) -> None:
    buffer, records, count = marked(b"@n A 1\nA\n+\nI\n@%s\nA\n+\nI\n" % name)
    values = np.zeros((2, 2), dtype=np.uint64)
    assert read_hex_words(buffer, records, 0, count, np.array([4, 5], dtype=np.int64), values) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 32),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9),
    st.integers(1, 63),
)
def test_coded_bases_become_calls(bases: int, actg: bool, low: bool, numbers: list[int], quality: int) -> None:
    numbers = [number % 4**bases for number in numbers]
    calls = np.zeros((bases + 2, len(numbers) + 1), dtype=np.uint8)
    values = np.array(numbers, dtype=np.uint64)
    assert fill_coded_calls(values, values.size, bases, actg, low, quality, calls, 1, 1) == values.size
    alphabet = "ACTG" if actg else "ACGT"
    for i, number in enumerate(numbers):
        letters = [alphabet[number // 4**k % 4] for k in range(bases)]
        sequence = letters if low else letters[::-1]
        assert calls[1:-1, i + 1].tolist() == ["ACGT".index(base) | quality << 2 for base in sequence]
    assert not calls[0].any()
    assert not calls[-1].any()
    assert not calls[:, 0].any()


def test_a_code_with_more_bases_than_expected_is_at_fault() -> None:
    values = np.array([4**10 - 1, 4**10, 0], dtype=np.uint64)
    calls = np.zeros((10, 3), dtype=np.uint8)
    assert fill_coded_calls(values, 3, 10, False, False, 40, calls, 0, 0) == 1
