"""Dense totals against the map of the same molecules."""

from __future__ import annotations

import numpy as np
import pytest

from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.maps import build_map
from cartoseq.analysis.molecules import MoleculeSet
from cartoseq.analysis.totals import DenseTotals

LATTICE = ChipFrame(FrameKind.LATTICE, origin_x=-70, origin_y=33, width=600, height=300)
LISTED = ChipFrame(
    FrameKind.LISTED,
    origin_x=-3,
    origin_y=0,
    width=41,
    height=30,
    x=np.random.default_rng(1).uniform(-3, 38, 500),
    y=np.random.default_rng(2).uniform(0, 30, 500),
)


@pytest.mark.parametrize("frame", [LATTICE, LISTED], ids=["lattice", "listed"])
def test_totals_as_reads_come_in_are_the_totals_of_the_map(frame: ChipFrame) -> None:
    random = np.random.default_rng(3)
    found = MoleculeSet(4, 4)
    live = DenseTotals(frame, 20)
    for _ in range(5):
        spots = random.integers(0, 500, 3_000).astype(np.uint32)
        if frame is LATTICE:
            spots = frame.lattice_spots(random.integers(-70, 530, 3_000), random.integers(33, 333, 3_000))
        fresh = np.zeros(3_000, np.uint8)
        features, mids = (random.integers(0, 3, 3_000).astype(np.uint64) for _ in range(2))
        found.add(spots, features, mids, fresh)
        live.add(spots, fresh)
    expected = build_map(found.parts(), frame, ["a", "b", "c"], ["a", "b", "c"], library="r", layer="rna").total(20)
    assert np.array_equal(live.snapshot(), expected)
    again = DenseTotals(frame, 20)
    again.add(np.zeros(1, np.uint32), np.ones(1, np.uint8))
    again.draw(found)
    assert np.array_equal(again.image, expected)
