"""Reads: bytes, errors, qualities, names."""

from __future__ import annotations

import dataclasses
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cartoseq.simulators import reads as reads_module
from cartoseq.simulators.chip import Chip, ChipSettings, decode_cid, make_chip
from cartoseq.simulators.expression import no_effects
from cartoseq.simulators.genome import Genome, GenomeSettings, make_genome
from cartoseq.simulators.library import (
    ADAPTER,
    CHIP_DNA,
    EXONIC,
    MOLECULE,
    OFF_CHIP,
    UNREADABLE_MID,
    LibrarySettings,
    Molecules,
    ReadPlan,
    draw_copies,
    draw_molecules,
    make_templates,
    plan_reads,
    split_reads,
)
from cartoseq.simulators.reads import ReadTally, quality_tables, write_reads
from cartoseq.simulators.tissue import TissueSettings, make_tissue

READS = 40_000
PERFECT = LibrarySettings(cid_error=0, mid_error=0, template_error=0, n_rate=0, tail_share=0)


@dataclass(frozen=True)
class Library:
    settings: LibrarySettings
    chip: Chip
    genome: Genome
    molecules: Molecules
    plan: ReadPlan
    tally: ReadTally
    paths: tuple[Path, Path]

    def records(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[bytes]]:
        """Bases and qualities, shape (reads, cycles), and names."""
        lines = gzip.decompress(self.paths[number].read_bytes()).split(b"\n")
        assert lines.pop() == b""
        assert set(lines[2::4]) == {b"+"}
        bases, qualities = (np.array([list(line) for line in lines[offset::4]], dtype=np.uint8) for offset in (1, 3))
        return bases, qualities, lines[0::4]


def make_library(folder: Path, settings: LibrarySettings, reads: int = READS, seed: int = 3) -> Library:
    chip = make_chip(ChipSettings(240, 240), seed)
    genome = make_genome(GenomeSettings(bases=300_000, contigs=2, genes=20, paralog_share=0), seed)
    tissue = make_tissue(TissueSettings(), 240, 240, 500, genome.families, seed)
    templates = make_templates(genome, settings.template_length)
    copies = draw_copies(settings, split_reads(settings, reads)[MOLECULE], seed)
    molecules = draw_molecules(settings, chip, tissue, genome, templates, no_effects(len(genome.genes)), copies, seed)
    plan = plan_reads(settings, copies, reads, seed)
    folder.mkdir(exist_ok=True)
    paths = (folder / "1.fq.gz", folder / "2.fq.gz")
    tally = write_reads(paths, settings, chip, templates.pool, molecules, plan, seed)
    return Library(settings, chip, genome, molecules, plan, tally, paths)


@pytest.fixture(scope="module")
def perfect(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return make_library(tmp_path_factory.mktemp("perfect"), PERFECT, reads=8000)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return make_library(tmp_path_factory.mktemp("usual"), LibrarySettings())


def true_cids(library: Library) -> NDArray[np.uint8]:
    codes = library.chip.cids[library.molecules.y, library.molecules.x][library.plan.molecules]
    places = (codes[:, None] >> (2 * np.arange(25, dtype=np.uint64))) & np.uint64(3)
    return np.frombuffer(b"ACTG", dtype=np.uint8)[places.astype(np.int64)]


def true_mids(library: Library) -> NDArray[np.uint8]:
    codes = library.molecules.mids[library.plan.molecules].astype(np.int64)
    places = (codes[:, None] >> (2 * np.arange(9, -1, -1))) & 3
    return np.frombuffer(b"ACGT", dtype=np.uint8)[places]


def test_a_read_without_errors_spells_its_spot_and_mid(perfect: Library) -> None:
    bases, _, _ = perfect.records(0)
    kinds = perfect.plan.kinds
    on_chip = kinds != OFF_CHIP
    np.testing.assert_array_equal(bases[on_chip, :25], true_cids(perfect)[on_chip])
    of_molecule = kinds == MOLECULE
    np.testing.assert_array_equal(bases[of_molecule, 25:], true_mids(perfect)[of_molecule])
    # Once more by the plain decoder.
    first = int(np.flatnonzero(on_chip)[0])
    molecule = perfect.plan.molecules[first]
    code = int(perfect.chip.cids[perfect.molecules.y[molecule], perfect.molecules.x[molecule]])
    assert bases[first, :25].tobytes().decode() == decode_cid(code, 25)


def test_reads_off_the_chip_have_no_barcode_of_it(perfect: Library) -> None:
    bases, _, _ = perfect.records(0)
    off = bases[perfect.plan.kinds == OFF_CHIP][:, :25]
    known = {decode_cid(int(code), 25).encode() for code in perfect.chip.cids[perfect.chip.cids > 0]}
    assert not known & {row.tobytes() for row in off}


def test_exonic_reads_without_errors_lie_in_their_spliced_transcript(perfect: Library) -> None:
    bases, _, _ = perfect.records(1)
    letters = np.frombuffer(b"ACGTN", dtype=np.uint8)
    texts = [letters[perfect.genome.transcript(gene)].tobytes() for gene in range(len(perfect.genome.genes))]
    exonic = (perfect.plan.kinds == MOLECULE) & (perfect.molecules.origins[perfect.plan.molecules] == EXONIC)
    assert np.count_nonzero(exonic) > 3000
    for read in np.flatnonzero(exonic).tolist():
        molecule = perfect.plan.molecules[read]
        start = perfect.molecules.starts[molecule]
        text = texts[perfect.molecules.genes[molecule]]
        assert (text + b"A" * 100)[start : start + 100] == bases[read].tobytes()


def test_other_reads_of_molecules_lie_on_a_chromosome_strand(perfect: Library) -> None:
    bases, _, _ = perfect.records(1)
    letters = np.frombuffer(b"ACGTN", dtype=np.uint8)
    forward = b"|".join(letters[contig].tobytes() for contig in perfect.genome.contigs)
    backward = forward.translate(bytes.maketrans(b"ACGT", b"TGCA"))[::-1]
    origins = perfect.molecules.origins[perfect.plan.molecules]
    places = np.flatnonzero((perfect.plan.kinds == MOLECULE) & (origins != EXONIC) & (origins != 2))[:200]
    assert all((row := bases[read].tobytes()) in forward or row in backward for read in places.tolist())


def test_adapter_and_chip_dna_reads_are_what_they_say(perfect: Library) -> None:
    bases, _, _ = perfect.records(1)
    adapter = bases[perfect.plan.kinds == ADAPTER]
    assert adapter.shape[0] > 50
    assert all(b"AAGTCGGATCGTAGCCATGTCGTTCTGTGAGCCAAGGAGTTG" in row.tobytes() for row in adapter)
    own = {row.tobytes() for row in bases[perfect.plan.kinds == CHIP_DNA]}
    assert 100 < len(own) <= 211


def test_error_rates_are_those_asked_for(usual: Library) -> None:
    bases, _, _ = usual.records(0)
    settings = usual.settings
    of_molecule = usual.plan.kinds == MOLECULE
    wrong_cid = (bases[:, :25] != true_cids(usual))[of_molecule]
    wrong_mid = (bases[:, 25:] != true_mids(usual))[of_molecule]
    for wrong, rate in ((wrong_cid, settings.cid_error), (wrong_mid, settings.mid_error)):
        assert wrong.mean() == pytest.approx(rate, abs=5 * (rate / wrong.size) ** 0.5)
    counts = usual.tally.counts
    histogram = np.bincount(np.minimum(wrong_cid.sum(axis=1), 2), minlength=3)
    assert [counts["cid_exact"], counts["cid_one_wrong"], counts["cid_more_wrong"]] == histogram.tolist()
    histogram = np.bincount(np.minimum(wrong_mid.sum(axis=1), 2), minlength=3)
    assert [counts["mid_exact"], counts["mid_one_wrong"], counts["mid_more_wrong"]] == histogram.tolist()
    rate = settings.template_error
    measured = counts["template_wrong_bases"] / counts["template_bases"]
    assert measured == pytest.approx(rate, abs=5 * (rate / counts["template_bases"]) ** 0.5)
    # Exact to one mismatch as in the published run, 69.67 : 14.66.
    assert counts["cid_exact"] / counts["cid_one_wrong"] == pytest.approx(69.67 / 14.66, rel=0.05)


def test_readable_copies_are_counted_by_the_usual_rules(usual: Library) -> None:
    bases, qualities, _ = usual.records(0)
    mids = bases[:, 25:]
    readable = (
        (usual.plan.kinds == MOLECULE)
        & ((bases[:, :25] != true_cids(usual)).sum(axis=1) <= 1)
        & ~(mids == ord("N")).any(axis=1)
        & ~(mids == mids[:, :1]).all(axis=1)
        & ((qualities[:, 25:] < 33 + 10).sum(axis=1) <= 1)
    )
    counted = np.bincount(usual.plan.molecules[readable], minlength=usual.tally.readable.size)
    np.testing.assert_array_equal(counted, usual.tally.readable)
    assert np.count_nonzero(counted == 0) / counted.size < 0.006


def test_unreadable_mids_fail_the_filter_and_the_others_pass(usual: Library) -> None:
    bases, qualities, _ = usual.records(0)
    mids, low = bases[:, 25:], (qualities[:, 25:] < 33 + 10).sum(axis=1)
    fails = (mids == ord("N")).any(axis=1) | (mids == ord("A")).all(axis=1) | (low > 1)
    assert fails[usual.plan.kinds == UNREADABLE_MID].all()
    assert fails[usual.plan.kinds == MOLECULE].mean() < 0.001


def test_every_way_of_being_unreadable_occurs(tmp_path: Path) -> None:
    settings = LibrarySettings(unreadable_mid_share=0.7, off_chip_share=0.05)
    library = make_library(tmp_path, settings, reads=30_000)
    bases, _, _ = library.records(0)
    mids = bases[library.plan.kinds == UNREADABLE_MID][:, 25:]
    assert 10 < np.count_nonzero((mids == ord("A")).all(axis=1)) < 65
    assert 10 < np.count_nonzero((mids == ord("N")).any(axis=1)) < 65


def test_qualities_are_those_of_the_published_run(usual: Library) -> None:
    (_, first, _), (_, second, _) = usual.records(0), usual.records(1)
    q30 = [(part >= 33 + 30).mean() for part in (first[:, :25], first[:, 25:], second)]
    np.testing.assert_allclose(q30, [0.917, 0.895, 0.911], atol=0.006)
    counts = usual.tally.counts
    assert counts["q30_cid_bases"] == np.count_nonzero(first[:, :25] >= 63)
    assert counts["q30_mid_bases"] == np.count_nonzero(first[:, 25:] >= 63)
    assert counts["q30_template_bases"] == np.count_nonzero(second >= 63)
    # Later cycles are worse.
    assert (second[:, :20] >= 63).mean() > (second[:, -20:] >= 63).mean() + 0.02
    assert second.max() <= 33 + 40


def test_wrong_bases_have_low_quality_more_often() -> None:
    right, wrong = quality_tables(LibrarySettings(), 25)
    assert right.shape == (135, 4096)
    assert (wrong >= 63).mean() == pytest.approx(0.30, abs=0.01)
    assert (right < 43).mean(axis=1).max() <= 2 / 4096


def test_a_base_not_called_is_n_with_quality_two(tmp_path: Path) -> None:
    library = make_library(tmp_path, dataclasses.replace(LibrarySettings(), n_rate=0.01), reads=3000)
    for number in (0, 1):
        bases, qualities, _ = library.records(number)
        unknown = bases == ord("N")
        assert unknown.mean() == pytest.approx(0.01, abs=0.003)
        assert (qualities[unknown] == 33 + 2).all()


def test_names_pair_and_count(usual: Library) -> None:
    names_1, names_2 = usual.records(0)[2], usual.records(1)[2]
    assert names_1[0] == b"@E100026571L1C001R00100000000/1"
    assert names_2[-1] == b"@E100026571L1C001R00100039999/2"
    assert len(set(names_1)) == READS
    assert all(one[:-1] == two[:-1] for one, two in zip(names_1, names_2, strict=True))


def test_the_size_of_blocks_changes_nothing(usual: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads_module, "_BLOCK_READS", 1777)
    again = make_library(tmp_path, LibrarySettings())
    for one, other in zip(usual.paths, again.paths, strict=True):
        assert gzip.decompress(one.read_bytes()) == gzip.decompress(other.read_bytes())
    np.testing.assert_array_equal(usual.tally.readable, again.tally.readable)
    assert usual.tally.counts == again.tally.counts
