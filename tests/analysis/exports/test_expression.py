from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.analysis.exports.expression import ExpressionTable, aggregate
from cartoseq.streaming.errors import InputError


def _as_dict(table: ExpressionTable) -> dict[tuple[int, int, int], int]:
    rows = zip(table.features().tolist(), table.x.tolist(), table.y.tolist(), table.counts.tolist(), strict=True)
    return {(f, x, y): count for f, x, y, count in rows}


@pytest.mark.parametrize("bin_size", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("rows_per_block", [1, 50, 10**6])
def test_a_larger_bin_is_the_sum_of_its_spots(make_table, bin_size, rows_per_block):
    table = make_table(exons=True)
    expected: dict[tuple[int, int, int], int] = {}
    for (feature, x, y), count in _as_dict(table).items():
        corner = (feature, x // bin_size * bin_size, y // bin_size * bin_size)
        expected[corner] = expected.get(corner, 0) + count

    blocks = list(table.blocks(bin_size, rows_per_block))
    binned = table.rebinned(bin_size)

    assert _as_dict(binned) == expected
    assert binned.molecules == table.molecules
    assert binned.exon_counts.sum() == table.exon_counts.sum()
    assert sum(block.molecules for block in blocks) == table.molecules
    assert sum(block.feature_ids.size for block in blocks) == table.feature_ids.size
    keys = list(zip(binned.features(), binned.y, binned.x, strict=True))
    assert keys == sorted(keys)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 400),
    bin_size=st.integers(1, 90),
    origin=st.tuples(st.integers(-200, 200), st.integers(-200, 200)),
    exons=st.booleans(),
)
def test_binning_rows_in_order_is_the_same_as_sorting_them(make_table, seed, rows, bin_size, origin, exons):
    table = make_table(rows, seed=seed, side=70, origin=origin, exons=exons)
    x, y = table.x.astype(np.int64), table.y.astype(np.int64)
    sorted_rows = aggregate(table, table.features(), x, y, bin_size)
    binned = table.rebinned(bin_size)
    for name in ("offsets", "x", "y", "counts", "exon_counts"):
        np.testing.assert_array_equal(getattr(binned, name), getattr(sorted_rows, name), err_msg=name)


def test_a_bin_whose_sum_does_not_fit_is_refused(make_table):
    table = make_table(rows=9, features=2, side=5)
    huge = replace(table, counts=np.full(table.rows, 2**31, np.uint32))
    with pytest.raises(InputError, match="32 bits"):
        huge.rebinned(50)


def test_bins_left_of_zero_are_floored(make_table):
    table = make_table(origin=(-150, -7))
    binned = table.rebinned(20)
    assert binned.x.min() == table.x.min() // 20 * 20 < 0
    assert binned.molecules == table.molecules


def test_two_bins_give_the_same_as_one(make_table):
    table = make_table()
    assert _as_dict(table.rebinned(5).rebinned(50)) == _as_dict(table.rebinned(50))


def test_a_bin_that_is_no_multiple_is_refused(make_table):
    with pytest.raises(InputError, match=r"bin 20.*multiple"):
        make_table().rebinned(50).rebinned(20)


def test_an_empty_table_stays_empty(make_table):
    table = make_table(rows=0)
    assert (table.rows, table.molecules, table.rebinned(50).rows) == (0, 0, 0)


def test_coordinates_too_far_apart_for_one_sort_key_still_sort(make_table):
    table = make_table(rows=3)
    far = np.array([2**31 - 1, -(2**31) + 1, 5], np.int64)
    result = aggregate(table, np.array([10**6, 0, 0])[::-1] % 12, far, far, 1)
    assert sorted(result.x.tolist()) == sorted(far.tolist())


def test_a_sum_beyond_32_bits_is_refused(make_table):
    table = make_table(rows=2)
    huge = ExpressionTable(**{**table.__dict__, "counts": np.array([2**32 - 1, 1], np.uint32)})
    with pytest.raises(InputError, match="32 bits"):
        aggregate(huge, np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64), 1)
