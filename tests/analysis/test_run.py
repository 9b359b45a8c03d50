from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import cartoseq
from cartoseq.analysis.run import open_run
from cartoseq.streaming.errors import CorruptionError, InputError


def test_a_run_tells_its_libraries_counters_genes_and_images(finished_run):
    run = cartoseq.open_run(finished_run)
    assert list(run.libraries) == list(run.located) == ["rna", "dna"]
    assert run.complete
    assert run.name == "mouse-brain"
    assert run.configuration["library"][0]["genes"] == "genes.gtf"
    assert run.counters["rna"]["molecules"] == run.libraries["rna"].total_molecules == 3000
    assert run.maps.log_position == run.qc["log_position"] == 12
    assert run.located["rna"].sum() == 3 * 3000


def test_genes_are_a_table_with_most_molecules_first(finished_run):
    run = open_run(finished_run)
    genes = run.genes
    assert genes.columns == ["library", "id", "name", "molecules", "reads", "spots"]
    for name, spatial in run.libraries.items():
        part = genes.filter(library=name)
        assert part["molecules"].sum() == spatial.total_molecules
        assert part["reads"].sum() == spatial.reads.sum()
        assert part["spots"].sum() == spatial.rows
        assert part["molecules"].is_sorted(descending=True)
        for row in part.iter_rows(named=True):
            (feature,) = spatial.features_named(row["id"])
            rows = slice(spatial.offsets[feature], spatial.offsets[feature + 1])
            assert row["molecules"] == spatial.molecules[rows].sum()


def test_a_picture_is_of_a_library_or_a_gene(finished_run):
    run = open_run(finished_run)
    assert run.picture(library="dna").title.startswith("all windows")
    assert run.picture("Gene3").title.startswith("Gene3 (ENSMUSG00000000003) · rna")
    assert run.picture("chr1:0-1000000", bin_size=10).bin_size == 10
    with pytest.raises(InputError, match=r"no gene or window 'Gene33x'.*Did you mean Gene33"):
        run.picture("Gene33x")
    with pytest.raises(InputError, match="no library 'atac'; this run has rna, dna"):
        run.picture(library="atac")
    with pytest.raises(InputError, match="no library was named"):
        run.library()


def test_a_single_library_needs_no_name(make_run, tmp_path):
    run = open_run(make_run(tmp_path / "run", libraries=("rna",)))
    assert run.library() is run.maps.libraries["rna"]


def test_a_notebook_shows_a_table_and_the_maps(finished_run):
    html = open_run(finished_run)._repr_html_()
    assert html.count("<img") == 2
    assert "3,000" in html
    assert "50.0%" in html
    assert "B01234C5" in html
    assert "complete" in html
    assert "<script" not in html


def test_names_are_escaped_in_a_notebook(make_run, tmp_path):
    html = open_run(make_run(tmp_path / "<b>run", libraries=("rna<i>",)))._repr_html_()
    assert "<i>" not in html
    assert "&lt;b&gt;run" in html


def test_an_empty_map_is_shown_too(make_run, tmp_path):
    run = open_run(make_run(tmp_path / "run", molecules=0))
    assert run.genes.height == 0
    assert run._repr_html_()


@pytest.mark.parametrize("kind", ["empty folder", "no folder", "a file"])
def test_what_is_no_run_is_said_so(tmp_path, kind):
    path = tmp_path / "here"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "a file":
        path.write_text("x")
    with pytest.raises(InputError, match=r"this is no run: it holds no run\.toml"):
        open_run(path)


def _without_maps(make_run, folder: Path) -> Path:
    make_run(folder, libraries=("rna",))
    (folder / "maps.h5").unlink()
    return folder


def test_a_run_without_a_map_says_how_far_it_is(make_run, tmp_path):
    folder = _without_maps(make_run, tmp_path / "run")
    with pytest.raises(InputError, match="no map yet: its log is empty"):
        open_run(folder)
    (folder / "log").mkdir()
    (folder / "log" / "segment").write_bytes(bytes(2_500_000))
    (folder / "journal.jsonl").write_text('{"time": "x", "event": "started"}\n{"time": "x", "ev')
    with pytest.raises(InputError, match=r"its log holds 2\.5 MB, and the last event in its journal is 'started'"):
        open_run(folder)


def test_damage_is_told_from_absence(finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    (folder / "qc.json").write_text('{"schema": 1, "libr')
    with pytest.raises(CorruptionError, match="no longer reads as it was written"):
        open_run(folder)
    (folder / "qc.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(InputError, match="expected schema 1, found 99"):
        open_run(folder)


def test_an_unfinished_run_says_so(make_run, tmp_path):
    folder = make_run(tmp_path / "run", libraries=("rna",))
    qc = json.loads((folder / "qc.json").read_text())
    (folder / "qc.json").write_text(json.dumps({**qc, "complete": False}))
    run = open_run(folder)
    assert not run.complete
    assert "latest snapshot" in run._repr_html_()
    assert np.all(run.located["rna"] >= 0)
