"""Small expression tables for the tests of exports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cartoseq.analysis.exports.expression import ExpressionTable, aggregate

MakeTable = Callable[..., ExpressionTable]


def _make(
    rows: int = 400,
    features: int = 12,
    side: int = 300,
    *,
    seed: int = 1,
    largest: int = 9,
    origin: tuple[int, int] = (1000, 2000),
    omics: str = "Transcriptomics",
    exons: bool = False,
) -> ExpressionTable:
    random = np.random.default_rng(seed)
    if omics == "Genomics":
        ids = [f"chr1:{k * 1000000}-{(k + 1) * 1000000}" for k in range(features)]
        names = ids
    else:
        ids = [f"ENSG{k:05}" for k in range(features)]
        names = [f"Gene{k}" for k in range(features)]
    counts = random.integers(1, largest + 1, rows).astype(np.uint32)
    empty = ExpressionTable(
        feature_ids=np.array(ids),
        feature_names=np.array(names),
        offsets=np.zeros(features + 1, np.int64),
        x=np.zeros(0, np.int32),
        y=np.zeros(0, np.int32),
        counts=counts,
        exon_counts=random.integers(0, counts + 1).astype(np.uint32) if exons else None,
        chip="SS200000135TL_D1",
        omics=omics,
        origin=origin,
    )
    return aggregate(
        empty,
        # The last feature is left without a row.
        random.integers(0, max(1, features - 1), rows),
        random.integers(origin[0], origin[0] + side, rows),
        random.integers(origin[1], origin[1] + side, rows),
        1,
    )


@pytest.fixture(scope="session")
def make_table() -> MakeTable:
    return _make


def _without_empty(table: ExpressionTable) -> ExpressionTable:
    """What a file can tell of a table: features without a row are not in it."""
    seen = np.flatnonzero(np.diff(table.offsets))
    return replace(
        table,
        feature_ids=table.feature_ids[seen],
        feature_names=table.feature_names[seen],
        offsets=np.concatenate([[0], table.offsets[1:][seen]]),
    )


def _same(a: ExpressionTable, b: ExpressionTable) -> None:
    for name in ("feature_ids", "feature_names", "offsets", "x", "y", "counts", "exon_counts"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.bin_size, a.chip, a.omics) == (b.bin_size, b.chip, b.omics)


@pytest.fixture(scope="session")
def same_table() -> Callable[[ExpressionTable, ExpressionTable], None]:
    """Assert that a table read from a file is the one written, but for features without a row."""
    return lambda read, written: _same(read, _without_empty(written))
