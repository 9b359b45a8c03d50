from __future__ import annotations

import anndata
import numpy as np
import pytest

from cartoseq.analysis.exports import export
from cartoseq.analysis.exports.export import FORMATS, export_run
from cartoseq.analysis.exports.expression import table_of_map
from cartoseq.analysis.exports.gef import read_gef
from cartoseq.analysis.exports.gem import read_gem
from cartoseq.analysis.run import open_run
from cartoseq.streaming.errors import DiskError, InputError


def test_every_format_of_every_library_has_the_sums_of_the_map(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    written = export_run(folder, list(FORMATS))
    assert [path.relative_to(folder / "exports").as_posix() for path in written] == [
        "rna.gef",
        "rna.bin1.gem.gz",
        "rna.bin20.h5ad",
        "rna.bin20.mtx",
        "rna.bin2.png",
        "dna.gef",
        "dna.bin1.gem.gz",
        "dna.bin20.h5ad",
        "dna.bin20.mtx",
        "dna.bin2.png",
    ]
    assert sorted(path.name for path in (folder / "exports").iterdir()) == sorted(path.name for path in written)
    run = open_run(folder)
    for name, spatial in run.libraries.items():
        gef = read_gef(folder / "exports" / f"{name}.gef")
        gem = read_gem(folder / "exports" / f"{name}.bin1.gem.gz")
        for table in (gef, gem):
            assert table.molecules == spatial.total_molecules
            assert table.rows == spatial.rows
            assert table.omics == {"rna": "Transcriptomics", "dna": "Genomics"}[name]
            np.testing.assert_array_equal(table.x, spatial.x)
            np.testing.assert_array_equal(table.y, spatial.y)
            np.testing.assert_array_equal(table.counts, spatial.molecules)
        assert (gem.origin, gef.resolution_nm) == ((1000, 2000), 500)
        data = anndata.read_h5ad(folder / "exports" / f"{name}.bin20.h5ad")
        assert data.X.sum() == spatial.total_molecules
        assert data.uns["cartoseq"]["library"] == name


def test_two_exports_of_one_run_are_the_same_bytes(make_run, tmp_path):
    folder = make_run(tmp_path / "run", libraries=("rna",))
    first = export_run(folder, ["gef", "gem", "h5ad", "png"], out=tmp_path / "a")
    second = export_run(folder, ["gef", "gem", "h5ad", "png"], out=tmp_path / "b")
    for a, b in zip(first, second, strict=True):
        assert a.name == b.name
        assert a.read_bytes() == b.read_bytes()
    assert not (folder / "exports").exists()


def test_library_bin_and_gene_may_be_chosen(finished_run, tmp_path):
    written = export_run(finished_run, ["png", "h5ad"], library="rna", bin_size=10, gene="Gene3", out=tmp_path)
    assert [path.name for path in written] == ["rna.Gene3.bin10.png", "rna.bin10.h5ad"]
    written = export_run(finished_run, ["png"], gene="chr1:0-1000000", out=tmp_path)
    assert [path.name.split(".bin")[0] for path in written] == ["dna.chr1_0-1000000"]
    (path,) = export_run(finished_run, ["gef"], library="dna", bin_size=7, out=tmp_path)
    assert read_gef(path, bin_size=7).bin_size == 7


def test_a_listed_chip_is_put_on_a_grid(make_run, tmp_path):
    folder = make_run(tmp_path / "run", listed=True, pitch_um=None)
    spatial = open_run(folder).libraries["rna"]
    (path,) = export_run(folder, ["gef"], library="rna")
    table = read_gef(path)
    assert table.molecules == spatial.total_molecules
    assert table.resolution_nm == 500
    # Steps of 1 µm from 1000.3 on, on a grid of 0.5 µm.
    np.testing.assert_array_equal(table.x, np.rint(spatial.x / 0.5))
    assert export_run(folder, ["png"], bin_size=2.5, library="rna")[0].name == "rna.bin2.5.png"


def test_whole_coordinates_of_a_listed_chip_are_kept(make_run, tmp_path):
    spatial = open_run(make_run(tmp_path / "run", listed=True, pitch_um=100.0)).libraries["rna"]
    whole = type(spatial)(**{**spatial.__dict__, "x": np.floor(spatial.x), "y": np.floor(spatial.y)})
    table = table_of_map(whole)
    assert (table.resolution_nm, table.rows) == (100_000, spatial.rows)
    np.testing.assert_array_equal(table.x, whole.x)
    coarse = table_of_map(whole, resolution_um=200.0)
    assert (coarse.resolution_nm, coarse.molecules) == (200_000, spatial.total_molecules)
    assert coarse.rows < spatial.rows
    with pytest.raises(InputError, match="positive"):
        table_of_map(whole, resolution_um=0)


@pytest.mark.parametrize(
    ("formats", "options", "message"),
    [
        (["gff"], {}, r"format 'gff': expected one of gef, gem, h5ad, mtx, png"),
        ([], {}, r"expected some of gef"),
        (["gef"], {"library": "protein"}, r"there is no library 'protein'; this run has rna, dna"),
        (["png"], {"gene": "Gine3"}, r"no gene or window 'Gine3' in libraries rna, dna.*Did you mean Gene3"),
        (["png"], {"gene": "GENE3", "library": "rna"}, r"no gene or window 'GENE3' in rna.*Did you mean Gene3"),
        (["png"], {"gene": "zzz"}, r"Names and identifiers are those of the annotation"),
        (["gef"], {"gene": "Gene3"}, r"only a picture shows one gene"),
        (["gef"], {"bin_size": 0}, r"bin 0: expected a number of spots above 0"),
        (["gef", "png"], {"bin_size": 2.5}, r"a table's bin is a whole number of spots"),
        (["png"], {"bin_size": 2.5}, r"whole number of spots"),
    ],
)
def test_what_cannot_be_exported_is_said_clearly(finished_run, tmp_path, formats, options, message):
    with pytest.raises(InputError, match=message):
        export_run(finished_run, formats, out=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_said_so(tmp_path):
    with pytest.raises(InputError, match=r"no run: it holds no run\.toml"):
        export_run(tmp_path, ["gef"])


def test_a_full_disk_leaves_nothing_half_written(make_run, tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", libraries=("rna",))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_gem", full)
    with pytest.raises(DiskError, match="No space left"):
        export_run(folder, ["gef", "gem"])
    assert [path.name for path in (folder / "exports").iterdir()] == ["rna.gef"]


@pytest.mark.parametrize(
    ("side", "pitch_um", "bin_size"),
    [
        ((26_460, 26_460), 0.5, 50),
        ((400, 300), 0.5, 20),
        ((300, 300), 0.5, 1),
        ((5000, 5000), 10.0, 1),
        ((1000, 9), None, 50),
    ],
)
def test_the_bin_of_a_matrix_fits_the_chip(side, pitch_um, bin_size):
    from types import SimpleNamespace

    assert export.matrix_bin(SimpleNamespace(width=side[0], height=side[1], pitch_um=pitch_um)) == bin_size
