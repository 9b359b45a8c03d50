from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cartoseq.analysis.exports import picture
from cartoseq.analysis.exports.picture import (
    Picture,
    brightest,
    draw_plain_png,
    draw_png,
    length_text,
    picture_of_map,
    readable_bin,
    round_length,
    write_png,
)
from cartoseq.analysis.run import open_run

matplotlib_image = pytest.importorskip("matplotlib.image")


def _picture(image: np.ndarray, **changes: object) -> Picture:
    shown = Picture(image=image, title="all genes", unit="molecules per bin 1", bin_size=1, pixel=0.5, length_unit="um")
    return replace(shown, **changes)


def _pixels(png: bytes) -> np.ndarray:
    return np.round(matplotlib_image.imread(io.BytesIO(png))[..., :3] * 255).astype(int)


def _colour(value: float) -> np.ndarray:
    from matplotlib import colormaps

    return np.array(colormaps["viridis"](value, bytes=True)[:3]).astype(int)


def test_y_points_down_and_bins_are_square_and_whole():
    image = np.zeros((40, 60), np.uint32)
    image[0, 0] = 1  # the upper left bin
    image[10, 50] = 1
    pixels = _pixels(draw_plain_png(_picture(image)))
    zoom = pixels.shape[0] // 40
    assert pixels.shape[:2] == (40 * zoom, 60 * zoom)
    bright = np.argwhere((pixels == _colour(1.0)).all(axis=2))
    assert len(bright) == 2 * zoom * zoom
    assert bright.min(axis=0).tolist() == [0, 0]
    assert bright.max(axis=0).tolist() == [11 * zoom - 1, 51 * zoom - 1]


def test_the_full_picture_shows_the_same_bins():
    image = np.zeros((300, 300), np.uint32)
    image[100:150, 200:250] = 1
    pixels = _pixels(draw_png(_picture(image)))
    bright = np.argwhere((pixels[:, :640] == _colour(1.0)).all(axis=2))
    height, width = bright.max(axis=0) - bright.min(axis=0) + 1
    assert (height, width) == (100, 100)  # two pixels a bin


@pytest.mark.parametrize(
    "image", [np.zeros((5, 7), np.uint32), np.ones((1, 1), np.uint32), np.ones((3, 900), np.uint32)]
)
def test_odd_images_are_drawn(image):
    assert _pixels(draw_png(_picture(image))).shape[0] > image.shape[0]
    assert _pixels(draw_plain_png(_picture(image))).size


def test_same_picture_same_bytes_and_no_global_state(tmp_path):
    import sys

    image = np.arange(600, dtype=np.uint32).reshape(20, 30)
    write_png(tmp_path / "a.png", _picture(image))
    _picture(image).save(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert _picture(image)._repr_png_() == (tmp_path / "a.png").read_bytes()
    assert b"Matplotlib" not in (tmp_path / "a.png").read_bytes()
    assert not hasattr(picture, "pyplot")
    assert sys.modules.get("matplotlib.pyplot") is None or sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_the_scale_ends_where_few_bins_are_brighter():
    image = np.zeros((100, 100), np.uint32)
    image[:40] = 3
    image[0, :5] = 1000
    assert brightest(image) == 3
    assert brightest(np.zeros((2, 2))) == 1


@pytest.mark.parametrize(
    ("width", "height", "molecules", "size"),
    [
        (300, 300, 131_002, 2),  # the real crop
        (26_460, 26_460, 10**8, 100),
        (128, 78, 3000, 1),
        (500, 400, 10**7, 1),
        (501, 400, 10**7, 2),
        (500, 400, 0, 5),  # at most this coarse: 100 bins a side
        (1, 1, 0, 1),
    ],
)
def test_a_bin_that_reads_well(width, height, molecules, size):
    assert readable_bin(SimpleNamespace(width=width, height=height), molecules) == size


@pytest.mark.parametrize(("longest", "length"), [(1, 1), (1.99, 1), (2, 2), (49, 20), (50, 50), (999, 500), (0.3, 0.2)])
def test_a_scale_bar_has_a_round_length(longest, length):
    assert round_length(longest) == pytest.approx(length)


def test_lengths_for_people():
    assert [length_text(20, "um"), length_text(2000, "um"), length_text(5, "spots"), length_text(1, "spots")] == [
        "20 µm",
        "2 mm",
        "5 spots",
        "1 spot",
    ]


def test_the_picture_of_a_map_holds_every_molecule(finished_run):
    run = open_run(finished_run)
    for name, spatial in run.libraries.items():
        shown = picture_of_map(spatial)
        assert shown.image.sum() == spatial.total_molecules
        assert shown.title == f"all {'genes' if name == 'rna' else 'windows'} · {name} · B01234C5"
        assert shown.unit == f"molecules per bin {shown.bin_size:g}"
        assert (shown.pixel, shown.length_unit) == (shown.bin_size * 0.5, "um")
        gene = picture_of_map(spatial, feature=3)
        assert gene.image.sum() == spatial.molecules[spatial.offsets[3] : spatial.offsets[4]].sum()
        assert gene.bin_size >= shown.bin_size
    assert picture_of_map(run.libraries["rna"], feature="Gene3").title.startswith("Gene3 (ENSMUSG00000000003) · rna")


def test_without_a_pitch_the_scale_is_in_spots(make_run, tmp_path):
    spatial = open_run(make_run(tmp_path / "run", pitch_um=None)).libraries["rna"]
    shown = picture_of_map(spatial, bin_size=4)
    assert (shown.length_unit, shown.pixel) == ("spots", 4)
    assert draw_png(shown)
