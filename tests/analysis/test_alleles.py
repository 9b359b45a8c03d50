"""Alleles: what counts as evidence, what a molecule shows, and the table that is drawn."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from cartoseq.analysis.alleles import BASES, draw_alleles, find_evidence, index_loci
from cartoseq.analysis.assign import AssignSettings, arrays_of, assign
from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.loci import Loci
from cartoseq.analysis.molecules import Molecules, MoleculeSet
from cartoseq.analysis.reference import build_reference

READ_BASES = 80
DNA = AssignSettings(layer="dna", min_aligned_bases=30, min_aligned_fraction=0.2)
CONTIGS = [np.random.default_rng(70 + k).integers(0, 4, 40_000).astype(np.uint8) for k in range(2)]
FRAME = ChipFrame(FrameKind.LATTICE, 10, 20, 300, 300, 0.5, None, None, "made")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text("".join(f">c{k}\n{''.join(BASES[code] for code in codes)}\n" for k, codes in enumerate(CONTIGS)))
    return build_reference(path, None)


def loci_at(reference, contigs, positions):
    contigs, positions = np.array(contigs), np.array(positions)
    order = np.lexsort((positions, contigs))
    contigs, positions = contigs[order], positions[order]
    refs = np.array([CONTIGS[c][p] for c, p in zip(contigs, positions, strict=True)], np.uint8)
    return Loci(
        places=reference.contig_offsets[contigs] + positions,
        contigs=contigs.astype(np.int32),
        positions=positions,
        refs=refs,
        alts=(refs + 1) & 3,
        haplotypes=np.full(contigs.size, -1, np.int8),
        ids=np.array([f"rs{k}" for k in range(contigs.size)]),
        skipped={},
    )


@pytest.fixture(scope="module")
def loci(reference):
    random = np.random.default_rng(5)
    spread = random.choice(40_000, 400, replace=False)
    return loci_at(reference, np.repeat([0, 1], 200), spread)


def evidence_of(calls, reference, loci, least_quality=10):
    kept = np.arange(calls.shape[1])
    counters = dict.fromkeys(("locus_bases", "locus_bases_low_quality", "locus_reads_unresolved"), 0)
    found = assign(calls, reference, DNA)
    index = index_loci(loci, reference.bases)
    return find_evidence(calls, kept, found, index, arrays_of(reference)[0], 10, least_quality, counters), counters


def test_evidence_is_that_of_plain_counting(reference, loci):
    random = np.random.default_rng(6)
    n = 4_000
    contig = random.integers(0, 2, n)
    start = random.integers(0, 40_000 - READ_BASES, n)
    strand = random.integers(0, 2, n)
    codes = np.stack([CONTIGS[c][s : s + READ_BASES] for c, s in zip(contig, start, strict=True)], axis=1)
    wrong = random.random(codes.shape) < 0.01
    codes = np.where(wrong, (codes + random.integers(1, 4, codes.shape)) & 3, codes).astype(np.uint8)
    quality = random.integers(2, 41, codes.shape)
    calls = (codes | quality << 2).astype(np.uint8)
    calls[random.random(codes.shape) < 0.01] = 0
    expected = set()
    low = 0
    at = {(int(c), int(p)): k for k, (c, p) in enumerate(zip(loci.contigs, loci.positions, strict=True))}
    for read in range(n):
        for base in range(READ_BASES):
            locus = at.get((int(contig[read]), int(start[read]) + base))
            if locus is None:
                continue
            call = int(calls[base, read])
            if call == 0 or call >> 2 < 10:
                low += 1
                continue
            end = READ_BASES - 1 - base if strand[read] else base
            expected.add((read, locus << 2 | call & 3, end << 1 | int(strand[read])))
    turned = np.where(strand == 1, np.where(calls > 0, calls ^ 3, 0)[::-1], calls).astype(np.uint8)
    evidence, counters = evidence_of(np.ascontiguousarray(turned), reference, loci)
    found = set(zip(evidence.rows.tolist(), evidence.features.tolist(), evidence.fragments.tolist(), strict=True))
    assert len(found) == evidence.rows.size
    assert found <= expected
    # A read that ends in no-calls is shorter, and two errors among its last bases clip it.
    assert len(found) >= 0.995 * len(expected)
    assert counters["locus_bases"] == len(found)
    assert abs(counters["locus_bases_low_quality"] - low) <= 0.03 * low
    assert counters["locus_reads_unresolved"] == 0


def test_an_alternative_is_seen_as_often_as_the_reference_wherever_it_lies_in_the_read(reference):
    position = 20_000
    loci = loci_at(reference, [0], [position])
    seen = Counter()
    for alternative in (False, True):
        sequence = CONTIGS[0].copy()
        if alternative:
            sequence[position] = loci.alts[0]
        starts = np.arange(position - READ_BASES + 1, position + 1)
        codes = np.stack([sequence[s : s + READ_BASES] for s in starts], axis=1)
        evidence, _ = evidence_of((codes | 37 << 2).astype(np.uint8), reference, loci)
        seen[alternative] = int((evidence.features == (loci.alts[0] if alternative else loci.refs[0])).sum())
    assert seen == {False: READ_BASES, True: READ_BASES}


def test_a_read_of_two_places_or_of_low_confidence_is_no_evidence(reference, loci):
    calls = np.zeros((READ_BASES, 1), np.uint8)
    evidence, counters = evidence_of(calls, reference, loci)
    assert evidence.rows.size == 0
    assert set(counters.values()) == {0}


def plain_alleles(rows, frame):
    """Molecules, undecided ones and reads by locus, x and y, from (spot, locus, base, mid, copies) rows."""
    reads = defaultdict(Counter)
    for spot, locus, base, mid, copies in rows:
        reads[spot, locus, mid][base] += copies
    table = defaultdict(lambda: np.zeros(9, int))
    for (spot, locus, _), bases in reads.items():
        (x,), (y,) = frame.coordinates(np.array([spot], np.uint32))
        row = table[locus, int(y), int(x)]
        best = bases.most_common()
        tied = len(best) > 1 and best[0][1] == best[1][1]
        row[4 if tied else best[0][0]] += 1
        for base, count in bases.items():
            row[5 + base] += count
    return table


def test_molecules_show_the_base_of_most_of_their_reads_and_a_tie_is_no_call():
    random = np.random.default_rng(3)
    n = 6_000
    spots = FRAME.lattice_spots(10 + random.integers(0, 300, n) // 60 * 60, 20 + random.integers(0, 300, n) // 60 * 60)
    loci, bases = random.integers(0, 12, n), np.minimum(random.geometric(0.6, n) - 1, 3)
    mids = random.integers(0, 5, n)
    kept = MoleculeSet(6, 20)
    kept.add(spots, (loci << 2 | bases).astype(np.uint64), mids.astype(np.uint64))
    rows = [(*row, 1) for row in zip(spots.tolist(), loci.tolist(), bases.tolist(), mids.tolist(), strict=True)]
    expected = plain_alleles(rows, FRAME)
    alleles = draw_alleles(kept.parts(), 12, FRAME)
    places = list(zip(alleles.loci.tolist(), alleles.y.tolist(), alleles.x.tolist(), strict=True))
    assert places == sorted(expected)
    counts = np.column_stack([alleles.molecules, alleles.undecided, alleles.reads])
    assert np.array_equal(counts, np.array([expected[place] for place in places]))
    assert alleles.undecided.sum() > 0
    assert int(alleles.reads.sum()) == n


def test_reference_alternative_and_others_are_views_of_the_bases():
    molecules = Molecules(
        np.zeros(5, np.uint32), np.array([0, 1, 1, 6, 7]), np.arange(5, dtype=np.uint64), np.ones(5, np.uint32)
    )
    alleles = draw_alleles([molecules], 2, FRAME)
    refs, alts = np.array([1, 3], np.uint8), np.array([0, 1], np.uint8)
    assert alleles.of(refs, alts).tolist() == [[2, 1, 0], [1, 0, 1]]


def test_without_evidence_the_table_is_empty():
    alleles = draw_alleles([], 3, FRAME)
    assert alleles.offsets.tolist() == [0, 0, 0, 0]
    assert alleles.of(np.zeros(3, np.uint8), np.ones(3, np.uint8)).shape == (0, 3)
