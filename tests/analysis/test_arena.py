"""The arena: pieces never overlap, are zero when taken, and holes join."""

from __future__ import annotations

import ctypes
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.analysis.arena import LINE_BYTES, Arena


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3_000), st.integers(0, 9)), max_size=60))
def test_pieces_are_zero_aligned_and_apart(steps: list[tuple[int, int]]) -> None:
    arena = Arena()
    taken: list[tuple[int, int]] = []
    for lines, choice in steps:
        if taken and choice < 4:
            arena.give(*taken.pop(choice % len(taken)))
            continue
        address = arena.take(lines)
        assert address % LINE_BYTES == 0
        assert not any(ctypes.string_at(address, lines * LINE_BYTES))
        ctypes.memset(address, 0xFF, lines * LINE_BYTES)
        taken.append((address, lines))
    ordered = sorted(taken)
    assert all(start + lines * LINE_BYTES <= after for (start, lines), (after, _) in itertools.pairwise(ordered))


def test_neighbouring_holes_join_and_serve_a_larger_piece() -> None:
    arena = Arena()
    arena.reserve(5_000)
    pieces = [arena.take(1_000) for _ in range(5)]
    size = arena.nbytes
    for place in (1, 3, 2, 0):
        arena.give(pieces[place], 1_000)
    assert arena.take(4_000) == pieces[0]
    assert arena.nbytes == size
    arena.take(1)
    assert arena.nbytes > size


def test_slabs_start_small() -> None:
    arena = Arena()
    arena.take(8)
    assert arena.nbytes <= 128 << 10
