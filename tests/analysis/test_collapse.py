"""Collapse of molecular barcodes, against a plain reference and against published counts of real reads."""

from __future__ import annotations

import csv
import gzip
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.analysis.collapse import CollapseMethod, collapse_mids
from cartoseq.analysis.molecules import Molecules, MoleculeSet

Group = dict[str, int]


def packed(mid: str) -> int:
    value = 0
    for base in mid:
        value = value << 2 | "ACGT".index(base)
    return value


def unpacked(mid: int, length: int) -> str:
    return "".join("ACGT"[mid >> 2 * (length - 1 - i) & 3] for i in range(length))


def plain_collapse(group: Group, method: CollapseMethod) -> Group:
    """The rule, word for word, on text."""
    if method == "off" or (method == "saw" and len(group) < 5):
        return dict(group)
    left = dict(group)
    order = sorted(group, key=lambda mid: (-group[mid], mid))
    for place, keeper in enumerate(order):
        if keeper not in left:
            continue
        for later in order[place + 1 :]:
            if later in left and sum(a != b for a, b in zip(keeper, later, strict=True)) <= 1:
                left[keeper] += left.pop(later)
    return left


def molecules_of(groups: dict[tuple[int, int], Group]) -> Molecules:
    """Molecules by (feature, spot), barcodes in rising order."""
    rows = [
        (spot, feature, packed(mid), copies)
        for (feature, spot), group in sorted(groups.items())
        for mid, copies in sorted(group.items())
    ]
    spots, features, mids, copies = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Molecules(
        np.array(spots, np.uint32),
        np.array(features, np.uint32),
        np.array(mids, np.uint64),
        np.array(copies, np.uint32),
    )


def groups_of(molecules: Molecules, mid_length: int) -> dict[tuple[int, int], Group]:
    groups: dict[tuple[int, int], Group] = defaultdict(dict)
    columns = (molecules.features, molecules.spots, molecules.mids, molecules.copies)
    for feature, spot, mid, copies in zip(*(column.tolist() for column in columns), strict=True):
        groups[feature, spot][unpacked(mid, mid_length)] = copies
    return dict(groups)


mids_of_four = st.text("ACGT", min_size=4, max_size=4)
some_groups = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(0, 3)),
    st.dictionaries(mids_of_four, st.integers(1, 6), min_size=1, max_size=40),
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(some_groups, st.sampled_from(["off", "saw", "greedy"]))
def test_every_group_is_collapsed_by_the_rule(groups: dict[tuple[int, int], Group], method: CollapseMethod) -> None:
    found = collapse_mids(molecules_of(groups), method, 4)
    assert groups_of(found, 4) == {key: plain_collapse(group, method) for key, group in groups.items()}


@settings(max_examples=30, deadline=None)
@given(some_groups, st.sampled_from(["saw", "greedy"]))
def test_collapse_loses_no_read_and_keeps_the_order(
    groups: dict[tuple[int, int], Group], method: CollapseMethod
) -> None:
    molecules = molecules_of(groups)
    found = collapse_mids(molecules, method, 4)
    assert found.copies.sum() == molecules.copies.sum()
    keys = list(zip(found.features.tolist(), found.spots.tolist(), found.mids.tolist(), strict=True))
    assert keys == sorted(keys)


@pytest.mark.parametrize(("seed", "size", "length"), [(1, 65, 5), (2, 64, 5), (3, 900, 5), (4, 1_000, 8)])
def test_a_crowded_group_is_collapsed_by_the_same_rule(seed: int, size: int, length: int) -> None:
    random = np.random.default_rng(seed)
    mids = random.choice(4**length, size, replace=False)
    group = {unpacked(int(mid), length): int(random.integers(1, 9)) for mid in mids}
    found = collapse_mids(molecules_of({(0, 0): group}), "greedy", length)
    assert groups_of(found, length) == {(0, 0): plain_collapse(group, "greedy")}


def test_saw_leaves_four_barcodes_alone_and_merges_among_five() -> None:
    four = {"AAAA": 9, "AAAC": 1, "AAAG": 1, "AAAT": 1}
    assert groups_of(collapse_mids(molecules_of({(0, 0): four}), "saw", 4), 4) == {(0, 0): four}
    five = four | {"TTTT": 2}
    assert groups_of(collapse_mids(molecules_of({(0, 0): five}), "saw", 4), 4) == {(0, 0): {"AAAA": 12, "TTTT": 2}}


def test_barcodes_are_not_merged_across_spots_or_features() -> None:
    groups = {(0, 0): {"AAAA": 1}, (0, 1): {"AAAC": 1}, (1, 1): {"AAAG": 1}}
    assert groups_of(collapse_mids(molecules_of(groups), "greedy", 4), 4) == groups


def test_a_chain_of_errors_is_taken_in_by_the_most_read_only_as_far_as_one_base() -> None:
    groups = {(0, 0): {"AAAA": 5, "AAAC": 3, "AACC": 2}}
    assert groups_of(collapse_mids(molecules_of(groups), "greedy", 4), 4) == {(0, 0): {"AAAA": 8, "AACC": 2}}


def test_features_of_more_than_32_bits_collapse_alike() -> None:
    found = MoleculeSet(40, 8)
    mids = np.array([packed("AAAA"), packed("AAAC"), packed("TTTT")], np.uint64)
    found.add(np.zeros(3, np.uint32), np.full(3, 1 << 39, np.uint64), mids)
    assert len(collapse_mids(found.sorted_molecules(), "greedy", 4)) == 2


def test_without_barcodes_or_molecules_nothing_is_merged() -> None:
    molecules = molecules_of({(0, 0): {"AAAA": 1, "AAAC": 1}})
    assert collapse_mids(molecules, "greedy", 0) is molecules
    assert len(collapse_mids(molecules_of({}), "greedy", 4)) == 0


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown collapse"):
        collapse_mids(molecules_of({}), "network", 4)


# ---------------------------------------------------------------------------------------------------------- real reads

CELLS = ("AGGGAAAATTGA", "ATCAGGGACAGA", "TACAATTAAGGC", "TGGCGAAGAGAT", "TTGCCTTACGCG")
GENES = ("CHUK", "NKTR", "SNRPA1")


def dropseq_reads(bam: Path) -> list[tuple[str, str, str]]:
    """(cell, gene, barcode) of reads of mapping quality 10 on the coding strand of one gene's exons."""
    reads = []
    with pysam.AlignmentFile(str(bam), check_sq=False) as file:
        for read in file:
            if read.mapping_quality < 10 or not read.has_tag("gn"):
                continue
            strand = "-" if read.is_reverse else "+"
            tags = (str(read.get_tag(tag)).split(",") for tag in ("gn", "gs", "gf"))
            genes = {
                gene for gene, side, what in zip(*tags, strict=False) if side == strand and what in ("CODING", "UTR")
            }
            if len(genes) == 1:
                reads.append((str(read.get_tag("XC")), genes.pop(), str(read.get_tag("XM"))))
    return reads


def dropseq_molecules(bam: Path) -> Molecules:
    reads = [read for read in dropseq_reads(bam) if read[0] in CELLS and read[1] in GENES and "N" not in read[2]]
    found = MoleculeSet(2, 16)
    found.add(
        np.array([CELLS.index(cell) for cell, _, _ in reads], np.uint32),
        np.array([GENES.index(gene) for _, gene, _ in reads], np.uint64),
        np.array([packed(mid) for _, _, mid in reads], np.uint64),
    )
    return found.sorted_molecules()


def named(groups: dict[tuple[int, int], Group]) -> dict[tuple[str, str], Group]:
    return {(CELLS[spot], GENES[feature]): group for (feature, spot), group in groups.items()}


def published(path: Path) -> dict[tuple[str, str], Group]:
    groups: dict[tuple[str, str], Group] = defaultdict(dict)
    with path.open() as file:
        for cell, gene, mid, reads in list(csv.reader(file, delimiter="\t"))[1:]:
            groups[cell, gene][mid] = int(reads)
    return dict(groups)


def test_greedy_collapse_gives_all_fifteen_published_dropseq_counts(real_data: Path) -> None:
    folder = real_data / "umi_dropseq"
    collapsed = collapse_mids(dropseq_molecules(folder / "5cell3gene_retagged.bam"), "greedy", 8)
    counts = {key: len(group) for key, group in named(groups_of(collapsed, 8)).items()}
    with (folder / "5cell3gene.dge_long.txt").open() as file:
        expected = {(cell, gene): int(count) for cell, gene, count in list(csv.reader(file, delimiter="\t"))[1:]}
    assert len(expected) == 15
    assert counts == expected


def test_reads_per_dropseq_barcode_before_and_after_collapse_are_the_published_ones(real_data: Path) -> None:
    folder = real_data / "umi_dropseq"
    molecules = dropseq_molecules(folder / "5cell3gene_retagged.bam")
    assert named(groups_of(molecules, 8)) == published(folder / "5cell3gene_retagged.molBC_ed0.txt")
    collapsed = collapse_mids(molecules, "greedy", 8)
    assert named(groups_of(collapsed, 8)) == published(folder / "5cell3gene_retagged.molBC.txt")


def test_the_set_counts_starsolos_molecules_entry_by_entry(real_data: Path) -> None:
    folder = real_data / "rna_visium" / "expected_starsolo"
    with gzip.open(folder / "per_read.tsv.gz", "rt") as text:
        reads = [(row["CB"], row["gene"], row["UB"]) for row in csv.DictReader(text, delimiter="\t")]
    reads = [read for read in reads if "-" not in read and all(read)]
    barcodes = (folder / "barcodes.tsv").read_text().split()
    genes = [line.split("\t") for line in (folder / "features.tsv").read_text().splitlines()]
    number = {name: row for row, line in enumerate(genes) for name in line[:2]}
    found = MoleculeSet(16, 24)
    spot_of = {barcode: row for row, barcode in enumerate(barcodes)}
    found.add(
        np.array([spot_of[cell] for cell, _, _ in reads], np.uint32),
        np.array([number[gene] for _, gene, _ in reads], np.uint64),
        np.array([packed(mid) for _, _, mid in reads], np.uint64),
    )
    molecules = found.sorted_molecules()
    counts = Counter(zip(molecules.features.tolist(), molecules.spots.tolist(), strict=True))
    lines = [line.split() for line in (folder / "matrix.mtx").read_text().splitlines() if not line.startswith("%")][1:]
    expected = {(int(gene) - 1, int(spot) - 1): int(count) for gene, spot, count in lines}
    assert (len(molecules), len(counts)) == (2_912, 2_135)
    assert dict(counts) == expected
