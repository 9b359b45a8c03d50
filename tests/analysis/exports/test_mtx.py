from __future__ import annotations

import csv
import gzip
from dataclasses import replace

import numpy as np
import pytest

from cartoseq.analysis.exports import mtx
from cartoseq.analysis.exports.gem import read_gem
from cartoseq.analysis.exports.mtx import write_mtx

scanpy = pytest.importorskip("scanpy", reason="the test extra brings scanpy")


def test_scanpy_opens_it_with_equal_sums(make_table, tmp_path):
    table = replace(make_table(), resolution_nm=500).rebinned(20)
    write_mtx(tmp_path / "mtx", table)
    data = scanpy.read_10x_mtx(tmp_path / "mtx", var_names="gene_ids")
    assert data.X.sum() == table.molecules
    assert data.var_names.tolist() == table.feature_ids.tolist()
    assert data.var["gene_symbols"].tolist() == table.feature_names.tolist()
    frame = data.to_df()
    for feature, x, y, count in zip(table.features(), table.x, table.y, table.counts, strict=True):
        assert frame.loc[f"{x}_{y}", table.feature_ids[feature]] == count
    assert int((frame.to_numpy() > 0).sum()) == table.rows


def test_positions_are_those_of_the_barcodes(make_table, tmp_path):
    table = replace(make_table(), resolution_nm=500).rebinned(20)
    write_mtx(tmp_path / "mtx", table)
    barcodes = gzip.decompress((tmp_path / "mtx" / "barcodes.tsv.gz").read_bytes()).decode().split()
    with (tmp_path / "mtx" / "tissue_positions.csv").open() as stream:
        positions = list(csv.DictReader(stream))
    assert [position["barcode"] for position in positions] == barcodes
    for position in positions:
        x, y = (int(part) for part in position["barcode"].split("_"))
        assert (int(position["array_col"]) * 20, int(position["array_row"]) * 20) == (x, y)
        assert float(position["pxl_col_in_fullres"]) == (x + 9.5) * 0.5
        assert float(position["pxl_row_in_fullres"]) == (y + 9.5) * 0.5


def test_genome_windows_are_told_apart_from_genes(make_table, tmp_path):
    table = make_table(omics="Genomics")
    write_mtx(tmp_path / "mtx", table)
    data = scanpy.read_10x_mtx(tmp_path / "mtx", gex_only=False)
    assert data.X.sum() == table.molecules
    assert set(data.var["feature_types"]) == {"Genome Window"}


def test_same_table_same_bytes(make_table, tmp_path, monkeypatch):
    write_mtx(tmp_path / "a", make_table())
    monkeypatch.setattr(mtx, "_ROWS_PER_WRITE", 7)
    write_mtx(tmp_path / "b", make_table())
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["barcodes.tsv.gz", "features.tsv.gz", "matrix.mtx.gz", "tissue_positions.csv"]
    for name in names:
        a, b = ((tmp_path / folder / name).read_bytes() for folder in "ab")
        if name.endswith(".gz"):
            assert a[4:8] == bytes(4)
            a, b = gzip.decompress(a), gzip.decompress(b)
        assert a == b, name


def test_an_old_folder_is_replaced_whole(make_table, tmp_path):
    write_mtx(tmp_path / "mtx", make_table())
    (tmp_path / "mtx" / "stale.txt").write_text("old")
    write_mtx(tmp_path / "mtx", make_table(seed=2))
    assert not (tmp_path / "mtx" / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mtx"]


def test_a_failed_write_leaves_the_old_folder(make_table, tmp_path, monkeypatch):
    write_mtx(tmp_path / "mtx", make_table())
    before = (tmp_path / "mtx" / "matrix.mtx.gz").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mtx, "_write_lines", full)
    with pytest.raises(OSError, match="No space"):
        write_mtx(tmp_path / "mtx", make_table(seed=2))
    assert (tmp_path / "mtx" / "matrix.mtx.gz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mtx"]


def test_the_real_crop_keeps_its_sums(real_data, tmp_path):
    table = read_gem(real_data / "gem_stereoseq" / "SS200000135TL_D1_bin1_small.gem.gz").rebinned(50)
    write_mtx(tmp_path / "crop", table)
    data = scanpy.read_10x_mtx(tmp_path / "crop", var_names="gene_ids")
    assert (int(data.X.sum()), data.shape) == (131_002, (36, 10_631))
    assert np.asarray(data.X.sum(axis=1)).max() == 9_866
