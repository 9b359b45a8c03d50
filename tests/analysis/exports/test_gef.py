from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.analysis.exports import gef
from cartoseq.analysis.exports.gef import GEF_BINS, read_gef, write_gef
from cartoseq.analysis.exports.gem import read_gem
from cartoseq.streaming.errors import InputError

GOLDEN = Path(__file__).with_name("gef_v4_golden.json")


def _dtype(dtype: np.dtype[Any]) -> Any:
    if dtype.names:
        return [[name, _dtype(dtype[name])] for name in dtype.names]
    return "variable-length str" if h5py.check_string_dtype(dtype) and dtype.kind == "O" else dtype.str


def describe(path: Path) -> dict[str, Any]:
    """Every path of an HDF5 file: data type, rank, and the name, type and shape of each attribute."""
    described: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        attributes = {
            key: [_dtype(item.attrs.get_id(key).dtype), list(item.attrs.get_id(key).shape)] for key in item.attrs
        }
        entry: dict[str, Any] = {"attributes": attributes}
        if isinstance(item, h5py.Dataset):
            entry |= {"dtype": _dtype(item.dtype), "rank": len(item.shape)}
        described[f"/{name}"] = entry

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
    return described


def test_the_layout_is_the_golden_one(make_table, tmp_path):
    write_gef(tmp_path / "a.gef", make_table())
    assert describe(tmp_path / "a.gef") == json.loads(GOLDEN.read_text())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 300),
    largest=st.sampled_from([1, 255, 256, 65_535, 65_536, 10_000_000]),
    origin=st.sampled_from([(0, 0), (1000, 2000), (-50, 7)]),
    exons=st.booleans(),
    compression=st.sampled_from([None, 1]),
)
def test_what_is_written_is_read(make_table, same_table, seed, rows, largest, origin, exons, compression):
    table = make_table(rows, seed=seed, side=60, largest=largest, origin=origin, exons=exons)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gef"
        write_gef(path, table, bin_sizes=(1, 20), compression=compression)
        for bin_size in (1, 20, 40):  # 40 is not in the file
            same_table(read_gef(path, bin_size=bin_size), table.rebinned(bin_size))


@pytest.mark.parametrize(("largest", "dtype"), [(255, "|u1"), (256, "<u2"), (65_535, "<u2"), (65_536, "<u4")])
def test_a_count_is_as_narrow_as_the_largest_allows(make_table, tmp_path, largest, dtype):
    table = make_table(rows=50)
    table = replace(table, counts=np.where(np.arange(table.rows) == 7, largest, 1).astype(np.uint32))
    write_gef(tmp_path / "a.gef", table, bin_sizes=(1,))
    with h5py.File(tmp_path / "a.gef") as file:
        expression = file["geneExp/bin1/expression"]
        assert expression.dtype["count"].str == dtype
        assert expression.attrs["maxExp"].tolist() == [largest]
        assert file["wholeExp/bin1"].dtype["MIDcount"].itemsize >= expression.dtype["count"].itemsize


@pytest.mark.parametrize("band_cells", [1, 700, 1 << 25])
def test_every_bin_and_picture_has_the_same_sum(make_table, tmp_path, monkeypatch, band_cells):
    monkeypatch.setattr(gef, "_BAND_CELLS", band_cells)
    table = make_table(rows=200, side=60, origin=(-30, 7))
    write_gef(tmp_path / "a.gef", table)
    with h5py.File(tmp_path / "a.gef") as file:
        for bin_size in GEF_BINS:
            binned = table.rebinned(bin_size)
            expression = file[f"geneExp/bin{bin_size}/expression"]
            whole = file[f"wholeExp/bin{bin_size}"]
            picture = whole[:]
            assert expression["count"].sum() == table.molecules
            assert np.all(expression["x"] % bin_size == 0)

            left, top = int(binned.x.min()), int(binned.y.min())
            expected = np.zeros(picture.shape, np.int64)
            genes = np.zeros(picture.shape, np.int64)
            for x, y, count in zip(binned.x, binned.y, binned.counts, strict=True):
                expected[(x - left) // bin_size, (y - top) // bin_size] += count
                genes[(x - left) // bin_size, (y - top) // bin_size] += 1
            np.testing.assert_array_equal(picture["MIDcount"], expected)
            np.testing.assert_array_equal(picture["genecount"], genes)
            attributes = {key: whole.attrs[key].tolist() for key in whole.attrs}
            assert attributes == {
                "minX": [left],
                "minY": [top],
                "lenX": [picture.shape[0] * bin_size],
                "lenY": [picture.shape[1] * bin_size],
                "maxMID": [expected.max()],
                "maxGene": [genes.max()],
                "number": [np.count_nonzero(genes)],
                "resolution": [500],
            }


def test_genes_are_ranked_by_molecules_with_their_concentration(make_table, tmp_path):
    table = make_table(rows=3000, features=4, side=2000, largest=200)
    write_gef(tmp_path / "a.gef", table, bin_sizes=(1,))
    with h5py.File(tmp_path / "a.gef") as file:
        ranked = file["stat/gene"][:]
        attributes = dict(file["stat/gene"].attrs)
    bin100 = table.rebinned(100)
    expected = []
    for feature, name in enumerate(table.feature_names):
        counts = sorted(bin100.counts[bin100.offsets[feature] : bin100.offsets[feature + 1]].tolist(), reverse=True)
        if counts:
            expected.append((sum(counts), name.encode(), 100 * sum(counts[: len(counts) // 10]) / sum(counts)))
    expected.sort(key=lambda gene: -gene[0])
    assert ranked["gene"].tolist() == [gene[1] for gene in expected]
    assert ranked["MIDcount"].tolist() == [gene[0] for gene in expected]
    np.testing.assert_allclose(ranked["E10"], [gene[2] for gene in expected], rtol=1e-6)
    assert attributes["minE10"] == ranked["E10"].min()
    assert attributes["maxE10"] == ranked["E10"].max()


def test_genomic_windows_are_written_as_genes(make_table, same_table, tmp_path):
    table = make_table(omics="Genomics")
    write_gef(tmp_path / "dna.gef", table)
    with h5py.File(tmp_path / "dna.gef") as file:
        assert file.attrs["omics"].tolist() == [b"Genomics"]
        assert file["geneExp/bin1/gene"]["geneID"][0] == b"chr1:0-1000000"
    same_table(read_gef(tmp_path / "dna.gef"), table)


def test_same_table_same_bytes(make_table, tmp_path):
    for name in ("a.gef", "b.gef"):
        write_gef(tmp_path / name, make_table())
    assert (tmp_path / "a.gef").read_bytes() == (tmp_path / "b.gef").read_bytes()


def test_the_area_is_that_of_the_occupied_spots(make_table, tmp_path):
    table = make_table()
    write_gef(tmp_path / "a.gef", table, bin_sizes=(1,))
    spots = {(x, y) for x, y in zip(table.x.tolist(), table.y.tolist(), strict=True)}
    with h5py.File(tmp_path / "a.gef") as file:
        assert file.attrs["gef_area"][0] == np.float32(len(spots) * 500.0**2)


def test_a_name_too_long_is_refused_and_leaves_the_old_file(make_table, tmp_path):
    path = tmp_path / "a.gef"
    write_gef(path, make_table(), bin_sizes=(1,))
    before = path.read_bytes()
    table = replace(make_table(), feature_ids=np.array([f"{'x' * 62}{k:03}" for k in range(12)]))
    with pytest.raises(InputError, match=r"at most 64 bytes.*has 65"):
        write_gef(path, table)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _version_2(path: Path, *, offset: str = "<u8") -> None:
    """A GEF as geftools 1.x writes it: one name per gene, another order of rows, no root attributes."""
    with h5py.File(path, "w") as file:
        group = file.create_group("geneExp/bin1")
        rows = np.array([(5, 6, 1), (2, 9, 4), (3, 3, 2)], [("x", "<i4"), ("y", "<i4"), ("count", "<u4")])
        group.create_dataset("expression", data=rows)
        genes = np.array([(b"B", 0, 2), (b"A", 2, 1)], [("gene", "S32"), ("offset", offset), ("count", offset)])
        group.create_dataset("gene", data=genes)


def test_version_2_is_read(tmp_path):
    _version_2(tmp_path / "old.gef")
    table = read_gef(tmp_path / "old.gef")
    assert table.feature_ids.tolist() == table.feature_names.tolist() == ["B", "A"]
    assert (table.x.tolist(), table.y.tolist(), table.counts.tolist()) == ([5, 2, 3], [6, 9, 3], [1, 4, 2])
    assert (table.omics, table.chip) == ("Transcriptomics", "")


def _break(path: Path, how: str) -> None:
    with h5py.File(path, "a") as file:
        if how == "cell bins":
            del file["geneExp"]
            file.create_group("cellBin")
        elif how == "genes":
            genes = file["geneExp/bin1/gene"][:]
            genes["count"] += 1
            file["geneExp/bin1/gene"][:] = genes
        elif how == "no rows":
            del file["geneExp/bin1/expression"]
        elif how == "columns":
            del file["geneExp/bin1/expression"]
            file["geneExp/bin1/expression"] = np.zeros(3, [("x", "<i4"), ("y", "<i4")])
        elif how == "bins":
            file["geneExp"].move("bin1", "bin7")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cell bins", "found a cell-bin GEF"),
        ("genes", "the genes claim 5 rows.*the list has 3"),
        ("no rows", "expected the data set expression"),
        ("columns", "expected the columns x, y, count"),
        ("bins", "expected bin1 .or bin1., found bin7"),
    ],
)
def test_a_gef_that_contradicts_itself_is_refused(tmp_path, how, message):
    _version_2(tmp_path / "a.gef")
    _break(tmp_path / "a.gef", how)
    with pytest.raises(InputError, match=message):
        read_gef(tmp_path / "a.gef")


def test_what_is_no_gef_is_said_so(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_gef(tmp_path / "none.gef")
    (tmp_path / "text.gef").write_text("geneID\tx\ty\n")
    with pytest.raises(InputError, match="HDF5"):
        read_gef(tmp_path / "text.gef")


def test_the_real_crop_keeps_its_sums(real_data, same_table, tmp_path):
    table = read_gem(real_data / "gem_stereoseq" / "SS200000135TL_D1_bin1_small.gem.gz")
    write_gef(tmp_path / "crop.gef", table)
    for bin_size in GEF_BINS:
        back = read_gef(tmp_path / "crop.gef", bin_size=bin_size)
        assert (back.molecules, back.features_seen) == (131_002, 10_631)
    same_table(read_gef(tmp_path / "crop.gef"), table)
