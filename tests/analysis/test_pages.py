"""Pages: never given twice, zero when taken, used again; tables of shards that keep what they hold."""

from __future__ import annotations

import ctypes

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.analysis.pages import HUGE_BYTES, PAGE_BYTES, PAGE_LINES, Pages, ShardPages


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 9)), max_size=40))
def test_pages_are_zero_aligned_and_apart(steps: list[tuple[int, int]]) -> None:
    pages = Pages()
    taken: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []
    for count, choice in steps:
        if taken and choice < 4:
            pages.give(taken.pop(choice % len(taken)))
            continue
        piece = pages.take(count)
        assert piece.shape == (count,)
        for address in piece.tolist():
            assert address % PAGE_BYTES == 0
            assert not any(ctypes.string_at(address, PAGE_BYTES))
            ctypes.memset(address, 0xFF, PAGE_BYTES)
        taken.append(piece)
    held = np.concatenate([np.zeros(0, np.uint64), *taken])
    assert np.unique(held).size == held.size
    assert pages.nbytes >= held.size * PAGE_BYTES


def test_pages_that_were_given_back_are_taken_before_new_ones() -> None:
    pages = Pages()
    first = pages.take(HUGE_BYTES // PAGE_BYTES)
    assert pages.nbytes == HUGE_BYTES
    pages.give(first[:200])
    assert set(pages.take(200).tolist()) == set(first[:200].tolist())
    assert pages.nbytes == HUGE_BYTES
    pages.take(1)
    assert pages.nbytes == 2 * HUGE_BYTES


def test_what_is_reserved_is_taken_without_more_memory() -> None:
    pages = Pages()
    pages.reserve(40_000)
    size = pages.nbytes
    assert 40_000 * PAGE_BYTES <= size < 40_000 * PAGE_BYTES + HUGE_BYTES
    pages.take(40_000)
    assert pages.nbytes == size


def test_a_shard_is_extended_behind_its_pages_and_renewed_empty() -> None:
    shards = ShardPages(Pages(), 4)
    shards.renew(2, 3, 77)
    address = int(shards.table[8])
    first = int(ctypes.c_uint64.from_address(address).value)
    ctypes.memset(first, 0xFF, PAGE_BYTES)
    shards.table[10] = 5
    shards.extend(2, 5, 78)
    assert shards.table[9:12].tolist() == [5 * PAGE_LINES, 5, 78]
    assert int(ctypes.c_uint64.from_address(int(shards.table[8])).value) == first
    assert (shards.count(2), shards.used(2), shards.count(1)) == (5, 5, 0)
    shards.renew(2, 2, 79)
    assert shards.table[9:12].tolist() == [2 * PAGE_LINES, 0, 79]
    for place in range(2):
        page = int(ctypes.c_uint64.from_address(int(shards.table[8]) + 8 * place).value)
        assert not any(ctypes.string_at(page, PAGE_BYTES))
