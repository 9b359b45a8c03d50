"""The folder of an experiment, and what can be found again of its truth."""

from __future__ import annotations

import gzip
import json
import tomllib
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from cartoseq.simulators.chip import ChipSettings
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.simulators.genome import GenomeSettings
from cartoseq.simulators.library import LibrarySettings
from cartoseq.simulators.tissue import TissueSettings

SMALL = ExperimentSettings(
    seed=7,
    reads=60_000,
    chip=ChipSettings(240, 240),
    genome=GenomeSettings(bases=400_000, contigs=2, genes=40),
    read_truth=True,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    assert simulate_experiment(folder, SMALL) == folder / "experiment.toml"
    return folder


def test_the_description_names_files_that_exist(folder: Path) -> None:
    description = tomllib.loads((folder / "experiment.toml").read_text())
    (library,) = description["library"]
    assert library["read_structures"] == ["25C10M", "100T"]
    assert (library["name"], library["layer"]) == ("rna", "rna")
    for name in (description["chip"]["barcodes"], library["genome"], library["genes"], *library["reads"][0]):
        assert (folder / name).stat().st_size > 0


def test_the_truth_adds_up_to_the_reads(folder: Path) -> None:
    summary = json.loads((folder / "truth" / "truth.json").read_text())
    with h5py.File(folder / "truth" / "truth.h5") as truth:
        copies, origins = truth["molecules/copies"][()], truth["molecules/origin"][()]
        kinds, molecule = truth["reads/kind"][()], truth["reads/molecule"][()]
        np.testing.assert_array_equal(np.bincount(molecule[kinds == 0], minlength=copies.size), copies)
        np.testing.assert_array_equal(truth["reads/x"][()][kinds == 0], truth["molecules/x"][()][molecule[kinds == 0]])
        genes = truth["molecules/gene"][()]
        np.testing.assert_array_equal(truth["reads/gene"][()][kinds == 0], genes[molecule[kinds == 0]])
        assert (truth["molecules/readable"][()] <= copies).all()
        assert truth["regions"].shape == (240, 240)
        assert len(truth["genes/name"]) == len(truth["genes/class"]) == 40
    assert sum(summary["reads_by_kind"].values()) == summary["reads"] == 60_000
    assert list(summary["reads_by_kind"].values()) == np.bincount(kinds, minlength=5).tolist()
    assert summary["reads_by_kind"]["molecule"] == copies.sum() == sum(summary["molecule_reads_by_origin"].values())
    assert list(summary["molecules_by_origin"].values()) == np.bincount(origins, minlength=4).tolist()
    with gzip.open(folder / "rna_2.fq.gz", "rb") as reads:
        assert sum(1 for _ in reads) == 4 * 60_000


def test_the_rates_are_those_of_the_published_run(folder: Path) -> None:
    summary = json.loads((folder / "truth" / "truth.json").read_text())
    rates = summary["rates"]
    assert rates["cid_exact_of_reads"] == pytest.approx(0.6967, abs=0.01)
    assert rates["cid_one_wrong_of_reads"] == pytest.approx(0.1466, abs=0.008)
    assert rates["q30_cid"] == pytest.approx(0.917, abs=0.005)
    assert rates["q30_mid"] == pytest.approx(0.895, abs=0.005)
    assert rates["q30_template"] == pytest.approx(0.911, abs=0.005)
    assert 0.60 < summary["saturation"] < 0.71
    # A binomial around the expectation.
    expected = summary["expected_unreadable_share"] * summary["molecules"]
    assert abs(summary["unreadable_molecules"] - expected) < 5 * expected**0.5


def test_a_perfect_mapper_with_a_one_mismatch_collapse_finds_the_emitted_molecules(folder: Path) -> None:
    lines = gzip.decompress((folder / "rna_1.fq.gz").read_bytes()).split(b"\n")
    with h5py.File(folder / "chip.barcodeToPos.h5") as file:
        table = file["bpMatrix_1"][..., 0]
    codes = np.uint64(3) & (table[..., None] >> (2 * np.arange(25, dtype=np.uint64)))
    cids = np.frombuffer(b"ACTG", dtype=np.uint8)[codes.astype(np.int64)]
    with h5py.File(folder / "truth" / "truth.h5") as truth:
        reads = {name: truth[f"reads/{name}"][()] for name in ("kind", "x", "y", "gene", "molecule")}
        origins, genes, classes = (truth[name][()] for name in ("molecules/origin", "molecules/gene", "genes/class"))
    unique = (origins == 0) & (classes[np.where(origins == 3, 0, genes)] == 0)
    groups: dict[tuple[int, int, int], Counter[bytes]] = {}
    for read in np.flatnonzero(reads["kind"] == 0).tolist():
        if not unique[reads["molecule"][read]]:
            continue
        x, y, gene = (int(reads[name][read]) for name in ("x", "y", "gene"))
        bases = np.frombuffer(lines[4 * read + 1], dtype=np.uint8)
        qualities = lines[4 * read + 3][25:]
        if np.count_nonzero(bases[:25] != cids[y, x]) > 1 or sum(quality < 43 for quality in qualities) > 1:
            continue
        mid = bases[25:].tobytes()
        if b"N" not in mid and len(set(mid)) > 1:
            groups.setdefault((x, y, gene), Counter())[mid] += 1
    found = 0
    for mids in groups.values():
        kept: list[bytes] = []
        for mid, _ in sorted(mids.items(), key=lambda item: (-item[1], item[0])):
            if all(sum(a != b for a, b in zip(mid, other, strict=True)) > 1 for other in kept):
                kept.append(mid)
        found += len(kept)
    emitted = np.count_nonzero(unique)
    # -0.3 % are expected; the allowance is five standard deviations of some 50 lost molecules on top.
    assert abs(found / emitted - 1) < 0.003 + 5 * 50**0.5 / emitted


def test_the_same_settings_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    simulate_experiment(tmp_path / "again", SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(32_768, 60_000), (60_000, 60_000)]
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_another_seed_gives_another_experiment(folder: Path, tmp_path: Path) -> None:
    settings = ExperimentSettings(
        seed=8, reads=1000, chip=ChipSettings(240, 240), genome=GenomeSettings(bases=400_000, contigs=2, genes=40)
    )
    simulate_experiment(tmp_path, settings)
    assert (tmp_path / "chip.barcodeToPos.h5").read_bytes() != (folder / "chip.barcodeToPos.h5").read_bytes()
    with h5py.File(tmp_path / "truth" / "truth.h5") as truth:
        assert "reads" not in truth


def test_a_real_reference_can_be_expressed(tmp_path: Path, real_data: Path) -> None:
    source = real_data / "reference_dm6"
    settings = ExperimentSettings(
        reads=5000,
        chip=ChipSettings(240, 240),
        fasta=source / "dm6.small.fa.gz",
        gtf=source / "dm6.small.gtf.gz",
    )
    simulate_experiment(tmp_path, settings)
    assert (tmp_path / "genome.fa.gz").read_bytes() == (source / "dm6.small.fa.gz").read_bytes()
    summary = json.loads((tmp_path / "truth" / "truth.json").read_text())
    assert summary["settings"]["fasta"] == "dm6.small.fa.gz"
    assert summary["molecules_by_origin"]["intergenic"] > 100
    with h5py.File(tmp_path / "truth" / "truth.h5") as truth:
        assert b"CG11023" in truth["genes/name"][()]


def test_plain_references_are_gzipped(tmp_path: Path) -> None:
    bases = "".join("ACGT"[code] for code in np.random.default_rng(1).integers(0, 4, 5000))
    (tmp_path / "g.fa").write_text(f">one\n{bases}\n")
    (tmp_path / "g.gtf").write_text('one\tx\texon\t1001\t1600\t.\t+\t.\tgene_id "G"; transcript_id "T";\n')
    settings = ExperimentSettings(
        reads=200, chip=ChipSettings(240, 240), fasta=tmp_path / "g.fa", gtf=tmp_path / "g.gtf"
    )
    simulate_experiment(tmp_path / "out", settings)
    with gzip.open(tmp_path / "out" / "genome.fa.gz", "rt") as file:
        assert file.read() == f">one\n{bases}\n"


def test_impossible_experiments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both fasta and gtf"):
        ExperimentSettings(fasta=tmp_path / "g.fa")
    with pytest.raises(ValueError, match="0 read pairs"):
        ExperimentSettings(reads=0)
    with pytest.raises(ValueError, match="seed -1"):
        ExperimentSettings(seed=-1)
    with pytest.raises(ValueError, match="add up"):
        ExperimentSettings(library=LibrarySettings(off_chip_share=0.95))


@pytest.fixture(scope="module")
def with_dna(tmp_path_factory):
    settings = ExperimentSettings(
        seed=4,
        reads=4_000,
        dna_reads=40_000,
        chip=ChipSettings(600, 600),
        genome=GenomeSettings(bases=2_000_000, contigs=22, genes=150),
        tissue=TissueSettings(tumour_share=0.5),
    )
    return simulate_experiment(tmp_path_factory.mktemp("with_dna"), settings).parent


def test_a_dna_library_lies_beside_the_rna(with_dna):
    description = tomllib.loads((with_dna / "experiment.toml").read_text())
    rna, dna = description["library"]
    assert (rna["layer"], dna["layer"]) == ("rna", "dna")
    assert 2_000_000 / dna["window_bp"] == pytest.approx(3_000, rel=0.5)
    with gzip.open(with_dna / "dna_2.fq.gz") as stream:
        assert sum(1 for _ in stream) == 4 * 40_000


def test_every_fragment_of_the_truth_is_where_its_reads_come_from(with_dna):
    with h5py.File(with_dna / "truth" / "truth.h5") as file:
        fragments = {name: column[()] for name, column in file["dna/fragments"].items()}
        loci = {name: column[()] for name, column in file["clones/loci"].items()}
    summary = json.loads((with_dna / "truth" / "truth.json").read_text())["dna"]
    assert summary["fragments"] == fragments["x"].size
    assert fragments["copies"].sum() == summary["reads_by_kind"]["molecule"]
    assert (fragments["readable"] <= fragments["copies"]).all()
    with h5py.File(with_dna / "truth" / "truth.h5") as file:
        ends = {name: column[()] for name, column in file["dna/ends"].items()}
        contigs = file["dna/fragments/contig"][()]
        kinds = file["clones/rearrangements/kind"][()].tolist()
    plain = fragments["junction"] < 0
    assert np.array_equal(ends["contig"][plain], contigs[plain])
    assert (abs(ends["position"] - fragments["left"])[plain] == 99 * fragments["reverse"][plain]).all()
    assert (len(kinds), set(kinds)) == (5, {b"deletion", b"inversion", b"translocation"})
    lines = [line for line in (with_dna / "known.vcf").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == loci["position"].size
    assert [int(line.split("\t")[1]) - 1 for line in lines] == loci["position"].tolist()


def test_an_rna_library_is_the_same_with_and_without_a_dna_library(with_dna, tmp_path):
    settings = ExperimentSettings(
        seed=4,
        reads=4_000,
        chip=ChipSettings(600, 600),
        genome=GenomeSettings(bases=2_000_000, contigs=22, genes=150),
        tissue=TissueSettings(tumour_share=0.5),
    )
    folder = simulate_experiment(tmp_path, settings).parent
    for name in ("rna_1.fq.gz", "rna_2.fq.gz", "genome.fa.gz", "chip.barcodeToPos.h5"):
        assert (folder / name).read_bytes() == (with_dna / name).read_bytes()
