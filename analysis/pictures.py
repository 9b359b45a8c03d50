"""What can be said of one picture, or of two that overlap: focus, saturation, and how far one is shifted."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8] | NDArray[np.uint16]

#: A shift whose correlation peak stands out less than this (in standard deviations) is not believed.
LEAST_PEAK: Final = 6.0


def gradient_energy(picture: Picture) -> float:
    """Energy of the differences over two pixels, along both axes, without that of noise; in squared grey values.

    Brenner's gradient (J. F. Brenner et al., 1976). It grows with the light: for pictures of one place in one light.
    Noise is as strong in focus and out of it, and is taken away so that a change of it counts for nothing.
    """
    return _energy(picture.astype(np.float64))[0]


def focus_score(picture: Picture) -> float:
    """How sharp a picture is: the energy of its gradient over its variance, so that light and exposure cancel.

    Both are without noise: otherwise a picture that is blurred until little but noise is left, in which neighbouring
    pixels differ most for its contrast, would be the sharpest. A contrast below that of noise counts as that.
    """
    grey = picture.astype(np.float64)
    energy, noise = _energy(grey)
    contrast = max(float(np.var(grey)) - noise, noise)
    return energy / contrast if contrast > 0 else 0.0


def _energy(grey: Floats) -> tuple[float, float]:
    """Gradient energy without noise, and the variance of the noise."""
    noise = noise_variance(grey)
    energy = float(np.mean((grey[:, 2:] - grey[:, :-2]) ** 2) + np.mean((grey[2:, :] - grey[:-2, :]) ** 2))
    return max(0.0, energy - 4 * noise), noise


def noise_variance(grey: Floats) -> float:
    """Variance of the noise that each pixel has for itself: from what no smooth structure and no straight line leaves.

    The mask is that of J. Immerkaer (1996), the difference of two Laplacians.

    Args:
        grey: Grey values, shape (height, width).
    """
    if min(grey.shape) < 3:
        return 0.0
    rows = grey[:-2] - 2 * grey[1:-1] + grey[2:]
    mask = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.mean(mask * mask)) / 36


def saturated_share(picture: Picture, bit_depth: int) -> float:
    """Share of the pixels that hold the greatest value."""
    return float(np.mean(picture >= 2**bit_depth - 1))


def shift_between(first: Picture, second: Picture) -> tuple[float, float, float]:
    """How far the content of the second picture is moved against that of the first, by phase correlation.

    Args:
        first: Grey values, shape (height, width).
        second: The same shape.

    Returns:
        Rows and columns by which to move the first so that it lies on the second, to a fraction of a pixel, and by how
        many standard deviations the peak stands out; below `LEAST_PEAK` the shift means nothing.
    """
    window = np.outer(np.hanning(first.shape[0]), np.hanning(first.shape[1]))
    spectra = [np.fft.rfft2((picture - np.mean(picture)) * window) for picture in (first, second)]
    cross = spectra[1] * np.conj(spectra[0])
    cross /= np.maximum(np.abs(cross), 1e-12)
    correlation: Floats = np.fft.irfft2(cross, first.shape)
    row, column = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    peak = float((correlation[row, column] - correlation.mean()) / correlation.std())
    return (
        _fine(correlation[:, column], int(row)),
        _fine(correlation[row, :], int(column)),
        peak,
    )


def _fine(line: Floats, at: int) -> float:
    """The peak's place to a fraction: the centre of mass of three values, wrapped to positive and negative shifts."""
    n = line.size
    three: Any = np.maximum(line[[(at - 1) % n, at, (at + 1) % n]], 0.0)
    place = at + float((three[2] - three[0]) / max(three.sum(), 1e-12))
    return place - n if place > n / 2 else place


def best_of_sweep(heights_um: Floats, scores: Floats) -> float:
    """The height of best focus of a sweep: a parabola through the logarithms of the three best scores' neighbourhood.

    Args:
        heights_um: Ascending, evenly spaced, shape (n,).
        scores: Of `gradient_energy`, shape (n,).

    Raises:
        ValueError: the best is at an end of the sweep: the focus may lie beyond.
    """
    best = int(np.argmax(scores))
    if best in (0, scores.size - 1):
        raise ValueError(f"the sharpest picture is at the end of the sweep, {heights_um[best]:.1f} um")
    left, centre, right = np.log(np.maximum(scores[best - 1 : best + 2], 1e-12))
    curve = left - 2 * centre + right
    move = 0.5 * (left - right) / curve if curve < 0 else 0.0
    return float(heights_um[best] + move * (heights_um[1] - heights_um[0]))


def fit_surface(points_um: Floats, heights_um: Floats) -> Floats:
    """Fit a plane z = a + b x + c y to heights of focus; a point far off the others is left out once.

    Args:
        points_um: Stage x and y, shape (n, 2).
        heights_um: Shape (n,).

    Returns:
        a, b, c. With fewer than three points, or all on a line, the flat mean.
    """
    design = np.column_stack([np.ones(len(points_um)), points_um])
    if np.linalg.matrix_rank(design - np.array([0, *points_um.mean(axis=0)])) < 3:
        return np.array([float(np.mean(heights_um)), 0.0, 0.0])
    keep = np.ones(len(points_um), np.bool_)
    for _ in range(2):
        plane = np.linalg.lstsq(design[keep], heights_um[keep], rcond=None)[0].astype(np.float64)
        off = np.abs(heights_um - design @ plane)
        spread = 1.4826 * float(np.median(off[keep]))
        keep = off <= max(4 * spread, 0.5)
        if keep.sum() < 4 or keep.all():
            break
    return plane
