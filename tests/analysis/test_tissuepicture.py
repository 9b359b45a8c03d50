from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

import cartoseq
from cartoseq.analysis.tissuepicture import Outline, draw_map, draw_tissue, map_outline, shrunk, tissue_outline


def test_a_large_picture_is_shrunk_to_means():
    image = np.arange(1500 * 1000, dtype=np.float64).reshape(1500, 1000)
    small = shrunk(image)
    assert small.shape == (500, 334)
    assert small[2, 3] == image[6:9, 9:12].mean()
    assert small[0, -1] == image[:3, 999:].mean()
    assert np.array_equal(shrunk(image[:9, :7]), image[:9, :7])


def test_the_outline_of_a_map_is_where_its_molecules_are(run_with_images):
    run = cartoseq.open_run(run_with_images)
    counts = run.images.counts(run.libraries["rna"])
    area = map_outline(counts, 5.0, "rna").area
    # The map's tissue is an ellipse: half-axes of 0.45 times the width, 0.36 times the height.
    rows, columns = np.indices(area.shape)
    away = ((columns + 0.5) / 380 - 0.5) / 0.45, ((rows + 0.5) / 300 - 0.5) / 0.36
    truth = away[0] ** 2 + away[1] ** 2 < 1
    assert (area & truth).sum() / (area | truth).sum() > 0.8


def test_outlines_are_drawn_over_picture_and_map(run_with_images):
    run = cartoseq.open_run(run_with_images)
    images = run.images
    counts = images.counts(run.libraries["rna"])
    outlines = [tissue_outline(images), map_outline(counts, images.cell_um, "rna")]
    plain, drawn = (imread(io.BytesIO(draw_tissue(images, some))) for some in ([], outlines))
    assert plain.shape == drawn.shape
    orange = (np.abs(drawn[..., :3] - np.array([0xE6, 0x9F, 0x00]) / 255) < 0.05).all(axis=-1)
    assert orange.sum() > 500
    # The outline runs around the tissue: within a few pixels of the mask's border.
    rows, columns = np.nonzero(orange[: plain.shape[0] - 60])
    zoom = images.mask.shape[1] / plain.shape[1]
    at = images.mask[np.minimum(rows * zoom, 299).astype(int), np.minimum(columns * zoom, 379).astype(int)]
    assert at.mean() == pytest.approx(0.5, abs=0.2)
    data = draw_map(images, counts, "viridis", outlines[:1])
    assert data == draw_map(images, counts, "viridis", outlines[:1])
    assert data != draw_map(images, counts, "viridis", [])
    # An area without a border is left out, not a fault.
    assert draw_map(images, counts, "viridis", [Outline(np.zeros((3, 3), bool), "none", "red")])
