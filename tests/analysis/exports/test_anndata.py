from __future__ import annotations

import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from cartoseq.analysis.exports.anndata import write_h5ad
from cartoseq.analysis.exports.gem import read_gem

anndata = pytest.importorskip("anndata", reason="the test extra brings anndata")


@pytest.mark.parametrize("bin_size", [1, 20, 50])
def test_anndata_opens_it_with_equal_sums(make_table, tmp_path, bin_size):
    table = replace(make_table(), resolution_nm=500).rebinned(bin_size)
    write_h5ad(tmp_path / "a.h5ad", table, library="rna")
    data = anndata.read_h5ad(tmp_path / "a.h5ad")

    assert data.X.sum() == table.molecules
    assert data.X.has_sorted_indices
    assert data.var_names.tolist() == table.feature_ids.tolist()
    assert data.var["gene_name"].tolist() == table.feature_names.tolist()
    expected = {}
    for feature, x, y, count in zip(table.features(), table.x, table.y, table.counts, strict=True):
        expected[f"{x}_{y}", table.feature_ids[feature]] = count
    counts = data.X.tocoo()
    found = {
        (data.obs_names[bin_], data.var_names[feature]): count
        for bin_, feature, count in zip(counts.row, counts.col, counts.data, strict=True)
    }
    assert found == expected
    centre = (bin_size - 1) / 2
    np.testing.assert_array_equal(data.obsm["spatial"][:, 0], (data.obs["x"] + centre) * 0.5)
    np.testing.assert_array_equal(data.obsm["spatial"][:, 1], (data.obs["y"] + centre) * 0.5)
    about = data.uns["cartoseq"]
    assert (about["chip"], about["library"], about["bin_size"]) == ("SS200000135TL_D1", "rna", bin_size)
    assert (about["spatial_unit"], about["resolution_um"]) == ("um", 0.5)


def test_without_a_pitch_positions_are_in_spots(make_table, tmp_path):
    write_h5ad(tmp_path / "a.h5ad", make_table())
    data = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert data.uns["cartoseq"]["spatial_unit"] == "spots"
    np.testing.assert_array_equal(data.obsm["spatial"], data.obs[["x", "y"]])


def test_genome_windows_tell_chromosome_start_and_end(make_table, tmp_path):
    write_h5ad(tmp_path / "dna.h5ad", make_table(omics="Genomics"))
    windows = anndata.read_h5ad(tmp_path / "dna.h5ad").var
    assert windows.loc["chr1:2000000-3000000", ["chrom", "start", "end"]].tolist() == ["chr1", 2_000_000, 3_000_000]


def test_scanpy_works_on_it(make_table, tmp_path):
    scanpy = pytest.importorskip("scanpy", reason="the test extra brings scanpy")
    table = make_table().rebinned(50)
    write_h5ad(tmp_path / "a.h5ad", table)
    data = scanpy.read_h5ad(tmp_path / "a.h5ad")
    assert data.X.sum() == table.molecules
    scanpy.pp.normalize_total(data, target_sum=100)
    np.testing.assert_allclose(np.asarray(data.X.sum(axis=1)).ravel(), 100, rtol=1e-5)


def test_it_opens_in_backed_mode(make_table, tmp_path):
    write_h5ad(tmp_path / "a.h5ad", make_table())
    data = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert data[:5].to_memory().shape == (5, 12)
    data.file.close()


def test_an_empty_table_is_an_empty_matrix(make_table, tmp_path):
    write_h5ad(tmp_path / "a.h5ad", make_table(rows=0))
    assert anndata.read_h5ad(tmp_path / "a.h5ad").shape == (0, 12)


def test_same_table_same_bytes_whenever_written(make_table, tmp_path):
    write_h5ad(tmp_path / "a.h5ad", make_table())
    time.sleep(1.1)  # a time stamp in HDF5 counts seconds
    write_h5ad(tmp_path / "b.h5ad", make_table())
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


def test_every_element_says_its_encoding(make_table, tmp_path):
    write_h5ad(tmp_path / "a.h5ad", make_table())
    with h5py.File(tmp_path / "a.h5ad") as file:
        assert file.attrs["encoding-type"] == "anndata"
        unsaid: list[str] = []
        file.visititems(
            lambda name, item: (
                unsaid.append(name) if "encoding-type" not in item.attrs and not name.startswith("X/") else None
            )
        )
        assert unsaid == []


def test_the_writer_does_not_import_anndata():
    assert "anndata" not in sys.modules["cartoseq.analysis.exports.anndata"].__dict__


def test_the_real_crop_keeps_its_sums(real_data, tmp_path):
    table = read_gem(real_data / "gem_stereoseq" / "SS200000135TL_D1_bin1_small.gem.gz").rebinned(50)
    write_h5ad(tmp_path / "crop.h5ad", table)
    data = anndata.read_h5ad(tmp_path / "crop.h5ad")
    assert (data.X.sum(), data.shape) == (131_002, (36, 10_631))
