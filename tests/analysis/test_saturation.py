"""Saturation and its curve, against sampling and the plain sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.analysis.saturation import FRACTIONS, expected_molecules, saturation, saturation_curve

histograms = st.lists(st.integers(0, 10_000), min_size=1, max_size=30).map(lambda tail: np.array([0, *tail], np.uint64))


def test_saturation_is_the_part_of_reads_that_told_nothing_new() -> None:
    assert saturation(25, 100) == 0.75
    assert saturation(0, 0) == 0.0


@given(histograms, st.floats(0, 1))
def test_the_expectation_is_the_sum_over_molecules(copies: np.ndarray, fraction: float) -> None:
    plain = sum(int(count) * (1 - (1 - fraction) ** k) for k, count in enumerate(copies))
    assert expected_molecules(copies, fraction) == pytest.approx(plain, rel=1e-12, abs=1e-9)


@given(histograms)
def test_the_curve_ends_at_what_was_counted_and_never_falls(copies: np.ndarray) -> None:
    curve = saturation_curve(copies)
    reads = sum(k * int(count) for k, count in enumerate(copies))
    if reads == 0:
        assert curve.shape == (0, 2)
        return
    assert curve.shape == (len(FRACTIONS), 2)
    assert curve[-1].tolist() == [reads, int(copies.sum())]
    assert (np.diff(curve.astype(np.int64), axis=0) >= 0).all()
    assert (curve[:, 1] <= curve[:, 0] + 1).all()


def test_random_subsamples_of_reads_scatter_around_the_curve() -> None:
    random = np.random.default_rng(1)
    molecules = random.integers(0, 5_000, 20_000)
    copies = np.bincount(np.bincount(molecules, minlength=5_000)).astype(np.uint64)
    for reads, expected in saturation_curve(copies, fractions=(0.1, 0.5)).tolist():
        seen = [np.unique(random.permutation(molecules)[:reads]).size for _ in range(20)]
        assert abs(np.mean(seen) - expected) < 4 * np.std(seen) / np.sqrt(20) + 1


def test_reads_beyond_the_histograms_last_bin_are_counted_if_told() -> None:
    copies = np.array([0, 10, 1], np.uint64)
    assert saturation_curve(copies, reads=100, fractions=(0.5, 1.0))[:, 0].tolist() == [50, 100]


def test_fractions_go_by_twentieths_to_all_reads() -> None:
    assert FRACTIONS[0] == 0.05
    assert FRACTIONS[-1] == 1.0
    assert len(FRACTIONS) == 20
