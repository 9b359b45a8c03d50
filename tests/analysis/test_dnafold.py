"""The DNA state of the fold: a phantom with a known truth; any order, any place to stop, any parts, the same bytes."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter

import numpy as np
import polars as pl
import pytest

import cartoseq as package
from cartoseq.analysis.checkpoint import restore_checkpoint, save_checkpoint
from cartoseq.analysis.dnafold import DnaSettings
from cartoseq.analysis.maps import read_maps, write_maps
from cartoseq.analysis.snapshot import write_snapshot
from cartoseq.controller.config import freeze, load_experiment
from cartoseq.controller.folding import fingerprint, make_fold
from cartoseq.controller.sources import open_source
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.feed import FeedRecord
from cartoseq.streaming.header import RecordHeader, RecordKind

SIDE = 20
READ_BASES = 90
FRAGMENTS = 6_000
COPIES = 2
ERRORS = 0.003
#: A deletion that the cells of the right half carry: last base before it, first base after it.
DELETION = 30_000, 70_000
LIBRARY = """
[chip]
barcodes = "chip.tsv"

[[library]]
name = "dna"
layer = "dna"
read_structures = ["{structure}", "+T"]
reads = [["1.fq.gz", "2.fq.gz"]]
genome = "genome.fa"
window_bp = 10_000
loci = "known.vcf"

[run]
block_clusters = 900
"""


def _letters(codes):
    return "".join("ACGT"[code] for code in codes)


def _make(folder, mid_bases):
    """Write a chip, a genome with known loci, and reads of a tissue whose right half has lost one copy of a piece."""
    chance = np.random.default_rng(7)
    genome = chance.integers(0, 4, 100_000).astype(np.uint8)
    (folder / "genome.fa").write_text(f">c\n{_letters(genome)}\n")
    cids = chance.permutation(4**8)[: SIDE * SIDE] + 4**8
    cid_text = [_letters([cid >> 2 * k & 3 for k in range(12)]) for cid in cids.tolist()]
    (folder / "chip.tsv").write_text("".join(f"{cid}\t{n % SIDE}\t{n // SIDE}\n" for n, cid in enumerate(cid_text)))
    loci = np.sort(chance.choice(np.arange(200, 99_800), 300, replace=False))
    alts = (genome[loci] + 1 + chance.integers(0, 3, loci.size)) & 3
    carries = chance.integers(0, 2, loci.size)
    rows = [
        f"c\t{at + 1}\trs{k}\t{'ACGT'[genome[at]]}\t{'ACGT'[alt]}\t.\t.\t.\tGT\t{'1|0' if carries[k] == 0 else '0|1'}\n"
        for k, (at, alt) in enumerate(zip(loci.tolist(), alts.tolist(), strict=True))
    ]
    head = '##fileformat=VCFv4.2\n##contig=<ID=c>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
    (folder / "known.vcf").write_text(
        head + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tpatient\n" + "".join(rows)
    )
    haplotypes = [genome.copy(), genome.copy()]
    for haplotype in (0, 1):
        haplotypes[haplotype][loci[carries == haplotype]] = alts[carries == haplotype]
    # The tumour's second haplotype has lost what lies between.
    lost = np.concatenate([haplotypes[1][: DELETION[0] + 1], haplotypes[1][DELETION[1] :]])
    reads = []
    for _ in range(FRAGMENTS):
        spot, strand = (int(v) for v in chance.integers(0, (SIDE * SIDE, 2)))
        copies = [haplotypes[0], lost if spot % SIDE >= SIDE // 2 else haplotypes[1]]
        haplotype = int(chance.random() * (copies[0].size + copies[1].size) >= copies[0].size)
        sequence = copies[haplotype]
        start = int(chance.integers(0, sequence.size - READ_BASES))
        if sequence is lost and chance.random() < 0.05:
            start = int(chance.integers(DELETION[0] - READ_BASES, DELETION[0]))
        piece = sequence[start : start + READ_BASES]
        piece = 3 - piece[::-1] if strand else piece
        mid = _letters(chance.integers(0, 4, mid_bases))
        for _ in range(COPIES):
            wrong = chance.random(READ_BASES) < ERRORS
            copy = np.where(wrong, (piece + chance.integers(1, 4, READ_BASES)) & 3, piece)
            reads.append((cid_text[spot] + mid, _letters(copy)))
    order = chance.permutation(len(reads)).tolist()
    for read in (0, 1):
        text = "".join(f"@r{k}/{read + 1}\n{reads[k][read]}\n+\n{'I' * len(reads[k][read])}\n" for k in order)
        (folder / f"{read + 1}.fq.gz").write_bytes(gzip.compress(text.encode(), 1, mtime=0))
    (folder / "experiment.toml").write_text(LIBRARY.format(structure=f"12C{mid_bases}M" if mid_bases else "12C"))
    return load_experiment(folder / "experiment.toml")


@pytest.fixture(scope="module", params=[8, 0], ids=["with barcodes", "without"])
def experiment(request, tmp_path_factory):
    return _make(tmp_path_factory.mktemp("phantom"), request.param)


@pytest.fixture(scope="module")
def blocks(experiment):
    with open_source(experiment, 0) as source:
        return list(source)


@pytest.fixture(scope="module")
def whole(experiment, blocks, tmp_path_factory):
    """The files of the fold over all blocks in order."""
    return _files(_folded(experiment, blocks), tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def library(whole, tmp_path_factory):
    path = tmp_path_factory.mktemp("read") / "maps.h5"
    path.write_bytes(whole["maps.h5"])
    return read_maps(path).libraries["dna"]


def _records(blocks):
    for index, block in enumerate(blocks):
        yield FeedRecord(index, RecordHeader(RecordKind.DATA, 0, sequence=index, count=block.clusters), block, None)
    total = sum(block.clusters for block in blocks)
    yield FeedRecord(len(blocks), RecordHeader(RecordKind.END, 0, sequence=len(blocks)), None, {"reads": total})


def _folded(experiment, blocks):
    fold = make_fold(experiment)
    for record in _records(blocks):
        fold.add(record)
    return fold


def _files(fold, folder):
    write_snapshot(folder / "maps.h5", folder / "qc.json", fold)
    return {name: (folder / name).read_bytes() for name in ("maps.h5", "qc.json")}


def test_the_right_half_has_lost_the_alleles_of_one_haplotype(library):
    loci, alleles = library.dna.loci, library.dna.alleles
    ref, alt, other = alleles.of(loci.refs, loci.alts).T.astype(int)
    row_loci = alleles.loci
    # Molecules that show the first haplotype: its alternatives, or the reference where the second has the alternative.
    first = np.where(loci.haplotypes[row_loci] == 0, alt, ref)
    second = ref + alt - first
    inside = (loci.positions[row_loci] > DELETION[0] + 100) & (loci.positions[row_loci] < DELETION[1] - 100)
    tumour = alleles.x >= SIDE // 2
    share = {
        (lost, half): second[(inside == lost) & (tumour == half)].sum()
        / (first + second)[(inside == lost) & (tumour == half)].sum()
        for lost in (False, True)
        for half in (False, True)
    }
    assert share[True, True] < 0.01
    assert all(0.4 < share[key] < 0.6 for key in ((True, False), (False, False), (False, True)))
    assert other.sum() + alleles.undecided.sum() <= 0.02 * (ref + alt).sum()
    assert (ref + alt).sum() > 800


def test_molecules_are_fragments_and_not_reads(library):
    alleles = library.dna.alleles
    molecules = int(alleles.molecules.sum()) + int(alleles.undecided.sum())
    assert int(alleles.reads.sum()) == library.dna.counters["locus_bases"]
    assert molecules == pytest.approx(int(alleles.reads.sum()) / COPIES, rel=0.02)


def test_the_deletion_is_the_first_junction_and_lies_in_the_right_half(library):
    junctions = library.dna.junctions
    assert np.abs(junctions.positions[0] - DELETION).max() <= 5
    assert junctions.sides[0].tolist() == [0, 1]
    assert junctions.molecules[0] >= 20
    assert junctions.molecules[1:].sum() <= 1
    rows = slice(0, junctions.offsets[1])
    assert junctions.x[rows].min() >= SIDE // 2
    assert junctions.spot_molecules[rows].sum() == junctions.molecules[0]
    assert junctions.sampling == 1


def test_every_fragment_has_its_stratum(library):
    gc = library.dna.gc
    total = library.map.total_molecules
    # Fragments at the contig's ends reach half out of it.
    assert 0.99 * total <= int(gc.fragments.sum()) <= total
    assert gc.window_fragments.sum() == gc.fragments.sum()
    windows = np.repeat(np.arange(10), np.diff(library.map.offsets))
    counted = np.bincount(windows, weights=library.map.molecules, minlength=10)
    assert np.all(gc.window_fragments.sum(axis=1) <= counted)
    assert gc.window_fragments.shape == gc.window_places.shape == (10, 21)
    mean = float(gc.fragments @ np.arange(101) / gc.fragments.sum())
    assert mean == pytest.approx(float(gc.places @ np.arange(101) / gc.places.sum()), abs=1)


@pytest.mark.parametrize("seed", [1, 2])
def test_blocks_in_any_order_give_the_same_bytes(seed, experiment, blocks, whole, tmp_path):
    shuffled = list(blocks)
    random.Random(seed).shuffle(shuffled)
    assert _files(_folded(experiment, shuffled), tmp_path) == whole


def test_blocks_of_another_size_give_the_same_bytes(experiment, whole, tmp_path):
    other = experiment.model_copy(update={"run": experiment.run.model_copy(update={"block_clusters": 377})})
    with open_source(other, 0) as source:
        fold = _folded(experiment, list(source))
    fold.position = json.loads(whole["qc.json"])["log_position"]
    assert _files(fold, tmp_path) == whole


def test_a_fold_stopped_again_and_again_gives_the_same_bytes(experiment, blocks, whole, tmp_path):
    records = list(_records(blocks))
    state = tmp_path / "fold.h5"
    save_checkpoint(state, make_fold(experiment))
    chance = random.Random(3)
    position = 0
    while position < len(records):
        fold = make_fold(experiment)
        assert restore_checkpoint(state, fold)
        assert fold.position == position
        for record in records[position : position + chance.randint(1, 5)]:
            fold.add(record)
        save_checkpoint(state, fold)
        position = fold.position
    fold.check()
    assert _files(fold, tmp_path) == whole


def test_states_of_parts_merge_into_the_state_of_the_whole(experiment, blocks, whole, tmp_path):
    parts = [make_fold(experiment).libraries[0] for _ in range(3)]
    for number, block in enumerate(blocks):
        parts[number % 3].add(block)
    fold = _folded(experiment, [])
    target = fold.libraries[0].dna
    for part in (parts[2], parts[0], parts[1]):
        target.merge(part.dna)
    complete = _folded(experiment, blocks)
    complete.libraries[0].dna = target
    assert _files(complete, tmp_path) == whole


def test_the_state_of_other_loci_is_not_taken_up(experiment, tmp_path):
    loci = tmp_path / "fewer.vcf"
    loci.write_text("".join(experiment.library[0].loci.read_text().splitlines(keepends=True)[:-1]))
    library = experiment.library[0].model_copy(update={"loci": loci})
    other = experiment.model_copy(update={"library": (library,)})
    assert fingerprint(other) != fingerprint(experiment)
    assert str(loci) in freeze(other)
    save_checkpoint(tmp_path / "fold.h5", make_fold(experiment))
    assert not restore_checkpoint(tmp_path / "fold.h5", make_fold(other))


def test_maps_without_the_group_still_read_and_those_with_it_come_back_the_same(library, whole, tmp_path):
    import h5py

    path = tmp_path / "maps.h5"
    path.write_bytes(whole["maps.h5"])
    write_maps(tmp_path / "again.h5", read_maps(path))
    assert (tmp_path / "again.h5").read_bytes() == whole["maps.h5"]
    with h5py.File(path, "r") as old, h5py.File(tmp_path / "old.h5", "w") as new:
        for key, value in old.attrs.items():
            new.attrs[key] = value
        old.copy("chip", new)
        old.copy("libraries", new)
        del new["libraries/dna/dna"]
    read = read_maps(tmp_path / "old.h5").libraries["dna"]
    assert read.dna is None
    assert np.array_equal(read.map.molecules, library.map.molecules)


def test_a_notebook_sees_the_alleles_as_a_table(experiment, whole, library, tmp_path):
    run = tmp_path / "RUN"
    run.mkdir()
    for name, content in whole.items():
        (run / name).write_bytes(content)
    (run / "run.toml").write_text(freeze(experiment))
    (run / "log").mkdir()
    (run / "descriptor.json").write_text("{}")
    table = package.open_run(run).alleles("dna")
    assert table.columns[:8] == ["contig", "position", "id", "ref", "alt", "haplotype", "x", "y"]
    assert table.height == library.dna.alleles.x.size
    loci = library.dna.loci
    assert table["alt_molecules"].sum() == int(library.dna.alleles.of(loci.refs, loci.alts)[:, 1].sum())
    lines = [line.split("\t") for line in experiment.library[0].loci.read_text().splitlines() if line[0] != "#"]
    known = {line[1]: line for line in lines}
    for row in table.unique(["position"]).iter_rows(named=True):
        line = known[str(row["position"])]
        assert (row["contig"], row["id"], row["ref"], row["alt"]) == (line[0], *line[2:5])
    both = table.group_by("haplotype").agg(pl.len())
    assert Counter(both["haplotype"].to_list()) == {0: 1, 1: 1}


def test_a_library_without_loci_says_so(tmp_path, make_run):
    run = make_run(tmp_path / "RUN")
    with pytest.raises(InputError, match=r"library rna has no known loci.*loci = "):
        package.open_run(run).alleles("rna")


@pytest.mark.parametrize(
    "wrong",
    [
        {"least_confidence": 0},
        {"least_base_quality": 64},
        {"least_clip_bases": 5},
        {"least_span_bp": 0},
        {"gc_fragment_bp": 501},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        DnaSettings(**wrong)
