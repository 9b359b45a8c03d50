"""Eight entries compared at once, against the plain functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.analysis.entries import (
    equal_entries,
    lowest_bit,
    near_entries,
    plain_equal_entries,
    plain_lowest_bit,
    plain_near_entries,
)
from cartoseq.streaming.kernel import kernel

ALL_BASES = 0x5555555555555555


@kernel
def _equal(entries: Any, start: Any, shift: Any, rest: Any) -> Any:
    return equal_entries(entries, start, shift, rest)


@kernel
def _near(entries: Any, start: Any, shift: Any, rest: Any, allowed: Any) -> Any:
    return near_entries(entries, start, shift, rest, allowed)


@kernel
def _lowest(mask: Any) -> Any:
    return lowest_bit(mask)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([(np.uint64, 64, 30), (np.uint64, 64, 0), (np.uint32, 32, 0)]))
def test_eight_entries_are_judged_as_one_by_one(data: st.DataObject, layout: tuple[type[Any], int, int]) -> None:
    dtype, bits, shift = layout
    rest = data.draw(st.integers(0, (1 << (bits - shift)) - 1))
    change = st.one_of(
        st.just(0),
        st.builds(lambda base, by: by << (2 * base), st.integers(0, (bits - shift) // 2 - 1), st.integers(1, 3)),
        st.integers(0, (1 << (bits - shift)) - 1),
    )
    low = st.integers(0, (1 << shift) - 1)
    drawn = data.draw(st.lists(st.tuples(change, low), min_size=11, max_size=11))
    entries = np.array([(rest ^ by) << shift | below for by, below in drawn], dtype)
    start, numbers = np.uint64(data.draw(st.integers(0, 3))), (np.uint64(shift), np.uint64(rest))
    equal = plain_equal_entries(entries, start, *numbers)
    assert equal == sum((drawn[int(start) + i][0] == 0) << i for i in range(8))
    assert _equal(entries, start, *numbers) == equal
    for allowed in (ALL_BASES, 0, 1 << (2 * data.draw(st.integers(0, 31)))):
        expected = plain_near_entries(entries, start, *numbers, np.uint64(allowed))
        assert expected & equal == equal
        assert _near(entries, start, *numbers, np.uint64(allowed)) == expected


@pytest.mark.parametrize("mask", [1, 2, 12, 1 << 63, (1 << 64) - 1, 0])
def test_the_lowest_bit_is_numbered(mask: int) -> None:
    assert _lowest(np.uint64(mask)) == plain_lowest_bit(np.uint64(mask)) == ((mask & -mask).bit_length() - 1) % 65
