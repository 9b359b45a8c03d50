"""Sequencing saturation: how much of what is left to read has been read already.

Saturation is ``1 - molecules / reads`` over reads that were assigned to a feature (SAW's and 10x Genomics' definition).
The curve says what it would have been with fewer reads. During a run it could be noted as reads come in, but blocks may
come in another order when a run is replayed or its parts are merged, and the map must not depend on that. The curve is
therefore the expectation over random subsamples of the reads, computed from the histogram of copies alone: of ``N``
reads, keep each with probability ``p``; a molecule that was read ``k`` times is still seen with ``1 - (1 - p)**k``:

    E[molecules] = sum over k of h_k * (1 - (1 - p)**k)        E[reads] = p * N

(rarefaction with binomial thinning; K. L. Heck, G. van Belle and D. Simberloff, Ecology 56, 1459, 1975, give it for
sampling without replacement, which it approaches for large N.) SAW draws such subsamples at fractions from .05 to 1.0
and counts; this is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FRACTIONS: tuple[float, ...] = (0.05, *(step / 20 for step in range(2, 21)))
"""The fractions of the reads at which the curve is drawn."""


def saturation(molecules: int, assigned: int) -> float:
    """``1 - molecules / assigned``: the part of the assigned reads that told nothing new; 0 without reads."""
    return 1.0 - molecules / assigned if assigned else 0.0


def expected_molecules(copies: NDArray[np.uint64], fraction: float) -> float:
    """Molecules still seen, on average, when each read is kept with this probability.

    Args:
        copies: ``copies[k]`` molecules were read k times; index 0 is not used.
        fraction: Between 0 and 1.
    """
    seen = 1.0 - (1.0 - fraction) ** np.arange(copies.shape[0], dtype=np.float64)
    return float(np.dot(copies[1:].astype(np.float64), seen[1:]))


def saturation_curve(
    copies: NDArray[np.uint64], reads: int | None = None, fractions: Sequence[float] = FRACTIONS
) -> NDArray[np.uint64]:
    """The saturation curve of a set of molecules; it does not depend on the order of the reads.

    Args:
        copies: ``copies[k]`` molecules were read k times; index 0 is not used.
        reads: All reads; by default those of the histogram. (Its last bin holds molecules of more copies, too.)
        fractions: Where to draw it; 1.0 gives the present state, exactly.

    Returns:
        uint64, shape (fractions, 2): reads, molecules; rounded to whole numbers. Empty without reads.
    """
    counted = int(sum(int(k) * int(count) for k, count in enumerate(copies)))
    total = counted if reads is None else reads
    if total == 0:
        return np.zeros((0, 2), np.uint64)
    points = [(round(fraction * total), round(expected_molecules(copies, fraction))) for fraction in fractions]
    return np.array(points, np.uint64)
