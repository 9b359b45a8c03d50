"""Chips: track lines, fill, barcodes, and the table as written."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from cartoseq.simulators.chip import ChipSettings, decode_cid, encode_cid, make_chip, track_lines, write_chip


def test_a_real_barcode_has_the_code_of_the_real_table() -> None:
    assert encode_cid("TATAGTACATATGATTCCAGGTCCA") == 100904410303266
    assert decode_cid(100904410303266, 25) == "TATAGTACATATGATTCCAGGTCCA"


def test_track_lines_keep_the_published_distances_and_period() -> None:
    lines = track_lines(26_460)
    assert lines.size == 81
    assert np.diff(lines, prepend=-1).tolist() == [240, 300, 330, 390, 390, 330, 300, 240, 420] * 9


def test_track_lines_are_empty_and_the_rest_is_filled_as_asked() -> None:
    chip = make_chip(ChipSettings(700, 600), seed=5)
    carries = chip.cids > 0
    assert not carries[track_lines(600), :].any()
    assert not carries[:, track_lines(700)].any()
    assert np.count_nonzero(carries.any(axis=1)) == 600 - track_lines(600).size
    # Five standard deviations of a binomial.
    assert carries.mean() == pytest.approx(0.922, abs=5 * (0.922 * 0.078 / carries.size) ** 0.5)


def test_barcodes_are_distinct_unless_duplicates_are_asked_for() -> None:
    distinct = make_chip(ChipSettings(300, 300), seed=1).cids
    assert np.unique(distinct[distinct > 0]).size == np.count_nonzero(distinct)
    assert distinct.max() < 4**25
    shared = make_chip(ChipSettings(300, 300, duplicate_share=0.001), seed=1).cids
    spots = np.count_nonzero(shared)
    assert spots - np.unique(shared[shared > 0]).size == round(0.001 * spots)


def test_short_barcodes_stay_distinct_though_random_ones_would_collide() -> None:
    cids = make_chip(ChipSettings(300, 300, barcode_length=12), seed=1).cids
    assert np.unique(cids[cids > 0]).size == np.count_nonzero(cids)


def test_the_table_is_written_as_the_mapper_expects(tmp_path: Path) -> None:
    chip = make_chip(ChipSettings(320, 310), seed=2)
    write_chip(chip, tmp_path / "chip.barcodeToPos.h5")
    with h5py.File(tmp_path / "chip.barcodeToPos.h5") as file:
        table = file["bpMatrix_1"]
        assert table.shape == (310, 320, 1)
        assert table.dtype == np.dtype("<u8")
        assert table.chunks == (310, 320, 1)
        assert table.compression == "gzip"
        assert table.attrs["dnbInfo"].tolist() == [0, 0, 25, 500, 0, 0]
        assert table.attrs["dnbInfo"].dtype == np.dtype("<u4")
        assert table.attrs["chipInfo"] == ord("S")
        np.testing.assert_array_equal(table[..., 0], chip.cids)


def test_chunks_are_no_larger_than_those_of_real_tables(tmp_path: Path) -> None:
    chip = make_chip(ChipSettings(1600, 40), seed=2)
    write_chip(chip, tmp_path / "wide.h5")
    with h5py.File(tmp_path / "wide.h5") as file:
        assert file["bpMatrix_1"].chunks == (40, 1537, 1)


def test_a_chip_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="track lines leave only"):
        make_chip(ChipSettings(300, 300, fill=1.0), seed=1)
    with pytest.raises(ValueError, match="pitch 400 nm"):
        ChipSettings(pitch_nm=400)
    with pytest.raises(ValueError, match="at least 1"):
        ChipSettings(width=0)
