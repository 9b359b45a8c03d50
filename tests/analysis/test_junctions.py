"""Junctions: split reads of every kind name the right break, the set is bounded, and its order does not matter."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cartoseq.analysis.assign import AssignSettings, assign
from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.junctions import (
    JUNCTION_COUNTERS,
    LEFT,
    RIGHT,
    JunctionSet,
    SplitReads,
    draw_junctions,
    find_split_reads,
)
from cartoseq.analysis.reference import build_reference

READ_BASES = 100
DNA = AssignSettings(layer="dna", min_aligned_bases=30, min_aligned_fraction=0.2)
CLIP = AssignSettings(layer="dna", min_aligned_bases=20, min_aligned_fraction=0.8)
CONTIGS = [np.random.default_rng(80 + k).integers(0, 4, 60_000).astype(np.uint8) for k in range(2)]
FRAME = ChipFrame(FrameKind.LATTICE, 10, 20, 300, 300, 0.5, None, None, "made")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text("".join(f">c{k}\n{''.join('ACGT'[code] for code in codes)}\n" for k, codes in enumerate(CONTIGS)))
    return build_reference(path, None)


def joined(end_a, end_b):
    """The sequence across a junction, 200 bases on either side; an end is (contig, position, side)."""
    contig, position, side = end_a
    left = CONTIGS[contig]
    left = left[position - 199 : position + 1] if side == LEFT else 3 - left[position : position + 200][::-1]
    contig, position, side = end_b
    right = CONTIGS[contig]
    right = right[position : position + 200] if side == RIGHT else 3 - right[position - 199 : position + 1][::-1]
    return np.concatenate([left, right])


def reads_across(sequence, cuts, reverse):
    """Reads of which so many bases lie before the junction."""
    codes = np.stack([sequence[200 - cut : 200 - cut + READ_BASES] for cut in cuts], axis=1)
    codes = 3 - codes[::-1] if reverse else codes
    return np.ascontiguousarray((codes | 37 << 2).astype(np.uint8))


def split_reads(calls, reference, least_span_bp=1_000):
    counters = dict.fromkeys(JUNCTION_COUNTERS, 0)
    kept = np.arange(calls.shape[1])
    split = find_split_reads(
        calls,
        kept,
        assign(calls, reference, DNA),
        lambda clips: assign(clips, reference, CLIP),
        reference.contig_offsets,
        10,
        20,
        least_span_bp,
        counters,
    )
    return split, counters


KINDS = {
    "deletion": ((0, 10_000, LEFT), (0, 30_000, RIGHT)),
    "duplication": ((0, 10_000, RIGHT), (0, 30_000, LEFT)),
    "inversion, left ends": ((0, 10_000, LEFT), (0, 30_000, LEFT)),
    "inversion, right ends": ((0, 10_000, RIGHT), (0, 30_000, RIGHT)),
    "translocation": ((0, 50_000, LEFT), (1, 7_000, RIGHT)),
    "translocation, turned": ((0, 50_000, RIGHT), (1, 7_000, RIGHT)),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_junction_is_named_by_reads_of_either_strand(kind, reverse, reference):
    first, second = KINDS[kind]
    cuts = [cut for cut in range(25, 76, 5) if cut != READ_BASES // 2]
    calls = reads_across(joined(first, second), cuts, reverse)
    split, counters = split_reads(calls, reference)
    assert counters == dict(zip(JUNCTION_COUNTERS, (len(cuts), len(cuts), 0, len(cuts)), strict=True))
    for side, (contig, position, lies) in enumerate((first, second)):
        place = reference.contig_offsets[contig] + position
        # What both sides share by chance may be counted with either.
        assert np.abs(split.places[:, side] - place).max() <= 6
        assert set(split.sides[:, side].tolist()) == {lies}
    assert np.unique(split.fragments).size == len(cuts)


def test_a_read_cut_in_its_middle_has_no_place_of_its_own(reference):
    split, counters = split_reads(reads_across(joined(*KINDS["deletion"]), [50], False), reference)
    assert counters["clipped_reads"] == 0
    assert split.rows.size == 0


def test_short_clips_and_small_gaps_are_no_junctions(reference):
    sequence = joined(*KINDS["deletion"])
    _, counters = split_reads(reads_across(sequence, [8, 92], False), reference)
    assert counters["clipped_reads"] == 0
    near = joined((0, 10_000, LEFT), (0, 10_600, RIGHT))
    split, counters = split_reads(reads_across(near, [40, 60], False), reference)
    assert (counters["clips_placed"], counters["clips_near"], counters["split_reads"]) == (2, 2, 0)
    assert split.rows.size == 0


def test_a_clip_of_nowhere_is_no_junction(reference):
    sequence = joined(*KINDS["deletion"])
    sequence[200:] = np.random.default_rng(1).integers(0, 4, 200)
    split, counters = split_reads(reads_across(sequence, [50, 60, 70], False), reference)
    assert (counters["clipped_reads"], counters["clips_placed"]) == (3, 0)
    assert split.rows.size == 0


def made(random, n, junctions):
    """Split reads of some junctions, with spots and molecules."""
    which = random.integers(0, len(junctions), n)
    ends = np.array(junctions)[which]
    places = ends[:, :2] + random.integers(0, 4, (n, 1))
    split = SplitReads(np.arange(n), places, ends[:, 2:].astype(np.uint8), np.zeros(n, np.uint64))
    spots = FRAME.lattice_spots(10 + random.integers(0, 12, n), 20 + random.integers(0, 12, n))
    return split, spots, random.integers(0, 40, n).astype(np.uint64), which


def part_of(split, spots, molecules, rows):
    part = SplitReads(split.rows[rows], split.places[rows], split.sides[rows], split.fragments[rows])
    return part, spots[rows], molecules[rows]


JUNCTIONS = [(5_000 + 700 * k, 80_000 - 900 * k, k % 2, k // 2 % 2) for k in range(20)]


@pytest.mark.parametrize("bound", [1 << 20, 2_000, 60])
def test_any_order_any_parts_and_a_restart_give_the_same_set(bound, tmp_path):
    random = np.random.default_rng(2)
    split, spots, molecules, _ = made(random, 9_000, JUNCTIONS)
    whole = JunctionSet(bound)
    whole.add(*part_of(split, spots, molecules, np.arange(9_000)))
    distinct = {tuple(row) for row in whole.rows[:, :2].tolist()}
    assert len(distinct) == whole.rows.shape[0] <= bound
    assert (whole.level > 0) == (bound < 1 << 20)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(9_000)
        parts = [JunctionSet(bound) for _ in range(3)]
        for number, rows in enumerate(np.array_split(order, 40)):
            parts[number % 3].add(*part_of(split, spots, molecules, rows))
            if number % 7 == seed:
                assert parts[number % 3].rows.shape[0] <= bound
        with h5py.File(tmp_path / f"{seed}.h5", "w") as file:
            parts[0].checkpoint(file.create_group("a"))
            restored = JunctionSet(bound)
            restored.restore(file["a"])
        restored.merge(parts[2])
        restored.merge(parts[1])
        assert np.array_equal(restored.rows, whole.rows)
        assert restored.level == whole.level


def test_a_sample_is_fair():
    random = np.random.default_rng(3)
    split, spots, molecules, _ = made(random, 60_000, JUNCTIONS)
    every, some = JunctionSet(1 << 20), JunctionSet(4_000)
    for kept in (every, some):
        kept.add(split, spots, molecules)
    share = some.rows.shape[0] / every.rows.shape[0]
    assert share == pytest.approx(0.5**some.level, rel=0.1)
    assert {tuple(row) for row in some.rows.tolist()} <= {tuple(row) for row in every.rows.tolist()}


def test_sets_of_other_bounds_do_not_merge():
    with pytest.raises(ValueError, match="does not merge"):
        JunctionSet(5).merge(JunctionSet(6))


def test_the_table_holds_every_molecule_at_its_junction_and_spot():
    random = np.random.default_rng(4)
    split, spots, molecules, which = made(random, 5_000, JUNCTIONS)
    kept = JunctionSet(1 << 20)
    kept.add(split, spots, molecules)
    offsets = np.array([1_024, 50_000 + 2_048])
    table = draw_junctions(kept, offsets, FRAME)
    assert table.sampling == 1
    assert len(table.molecules) == len(JUNCTIONS)
    assert np.all(np.diff(table.molecules.astype(int)) <= 0)
    x, y = FRAME.coordinates(spots)
    expected = {}
    for number, *place in zip(which.tolist(), x.tolist(), y.tolist(), molecules.tolist(), strict=True):
        expected.setdefault(number, []).append(tuple(place))
    for row in range(len(JUNCTIONS)):
        places = table.positions[row] + offsets[table.contigs[row]]
        number = next(k for k, j in enumerate(JUNCTIONS) if np.abs(places - j[:2]).max() <= 3)
        assert tuple(table.sides[row]) == JUNCTIONS[number][2:]
        distinct = set(expected[number])
        assert table.molecules[row] == len(distinct)
        here = slice(table.offsets[row], table.offsets[row + 1])
        found = {
            (a, b): (m, r)
            for a, b, m, r in zip(
                table.x[here].tolist(),
                table.y[here].tolist(),
                table.spot_molecules[here].tolist(),
                table.spot_reads[here].tolist(),
                strict=True,
            )
        }
        for spot in {place[:2] for place in distinct}:
            reads = sum(place[:2] == spot for place in expected[number])
            assert found.pop(spot) == (sum(place[:2] == spot for place in distinct), reads)
        assert not found


def test_without_split_reads_the_table_is_empty():
    table = draw_junctions(JunctionSet(10), np.array([1_024]), FRAME)
    assert table.molecules.size == table.x.size == 0
    assert table.offsets.tolist() == [0]
