"""Pieces of reads: where each base of a gapped, spliced or clipped read lies."""

from __future__ import annotations

import numpy as np
import pytest

from cartoseq.analysis.assign import AssignSettings, arrays_of, assign
from cartoseq.analysis.packed import Text
from cartoseq.analysis.pieces import BEGIN, END, LINE, MAX_PIECES, last_called, pieces_of_read
from cartoseq.analysis.reference import build_reference
from cartoseq.streaming.kernel import kernel

BASES = 100
DNA = AssignSettings(layer="dna", min_aligned_bases=30, min_aligned_fraction=0.2)
CONTIG = np.random.default_rng(61).integers(0, 4, 30_000).astype(np.uint8)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text(">c\n" + "".join("ACGT"[code] for code in CONTIG.tolist()) + "\n")
    return build_reference(path, None)


@kernel
def _take_apart(calls, near, far, reverse, begin, end, text: Text, pieces):
    pieces_of_read(calls, 0, near, far, reverse, begin, end, text, pieces)


def calls_of(codes, reverse):
    codes = 3 - codes[::-1] if reverse else codes
    return (codes | 37 << 2).astype(np.uint8)[:, None]


def places_of(calls, reference, settings=DNA):
    """Contig position of each base of one read, and None where it has none; and on which strand it lies."""
    found = assign(calls, reference, settings)
    assert found.confidence[0] > 0
    pieces = np.zeros((MAX_PIECES, 3), np.int64)
    reverse = int(found.strands[0])
    _take_apart(
        calls, int(found.positions[0]), int(found.far_positions[0]), reverse, int(found.aligned_from[0]),
        int(found.aligned_to[0]), arrays_of(reference)[0], pieces,
    )  # fmt: skip
    places = [None] * calls.shape[0]
    for piece in pieces:
        for base in range(piece[BEGIN], piece[END]):
            assert places[base] is None
            place = piece[LINE] - base if reverse else piece[LINE] + base
            places[base] = int(place - reference.contig_offsets[0])
    return places, reverse


def changed(codes, *where):
    codes = codes.copy()
    codes[list(where)] = (codes[list(where)] + 1) & 3
    return codes


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("where", [(), (0,), (1,), (2, 50), (98,), (99,), (97, 99)])
def test_the_last_bases_of_a_read_have_a_place_though_they_differ(reference, where, reverse):
    calls = calls_of(changed(CONTIG[5_000:5_100], *where), reverse)
    places, strand = places_of(calls, reference)
    assert strand == reverse
    assert places == (list(range(5_099, 4_999, -1)) if reverse else list(range(5_000, 5_100)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("split", [15, 30, 50, 80])
@pytest.mark.parametrize("gap", [1, 3, 8])
def test_bases_beyond_a_deletion_lie_where_they_belong(reference, reverse, split, gap):
    truth = [*range(7_000, 7_000 + split), *range(7_000 + split + gap, 7_100 + gap)]
    calls = calls_of(CONTIG[truth], reverse)
    places, _ = places_of(calls, reference)
    truth = truth[::-1] if reverse else truth
    known = [(place, true) for place, true in zip(places, truth, strict=True) if place is not None]
    # Bases beside the gap may fit on both sides of it.
    assert len(known) >= BASES - 8
    for base, (place, true) in enumerate(zip(places, truth, strict=True)):
        assert place in (None, true) or CONTIG[place] == CONTIG[true], base
    assert places[:10] + places[-10:] == truth[:10] + truth[-10:]


@pytest.mark.parametrize("reverse", [False, True])
def test_bases_beyond_an_insertion_lie_where_they_belong(reference, reverse):
    codes = np.concatenate([CONTIG[9_000:9_060], [0, 1, 1, 2], CONTIG[9_060:9_096]]).astype(np.uint8)
    places, _ = places_of(calls_of(codes, reverse), reference)
    truth = [*range(9_000, 9_060), *[None] * 4, *range(9_060, 9_096)]
    truth = truth[::-1] if reverse else truth
    agree = sum(place == true for place, true in zip(places, truth, strict=True))
    assert agree >= 92
    assert places[:10] == truth[:10]
    assert places[-10:] == truth[-10:]


def test_what_belongs_elsewhere_has_no_place(reference):
    codes = np.concatenate([CONTIG[11_000:11_060], CONTIG[20_000:20_040]])
    places, _ = places_of(calls_of(codes, False), reference)
    assert places[:60] == list(range(11_000, 11_060))
    assert sum(place is not None for place in places[60:]) <= 3


def test_a_read_ends_with_its_last_call():
    calls = np.full((20, 2), 41, np.uint8)
    calls[12:, 1] = 0
    calls[3, 1] = 0
    assert [last_called(calls, read) for read in range(2)] == [20, 12]


def test_a_spliced_read_lies_on_two_lines(tmp_path):
    (tmp_path / "g.fa").write_text(">c\n" + "".join("ACGT"[code] for code in CONTIG.tolist()) + "\n")
    rows = ((1_001, 1_300), (2_001, 2_300))
    (tmp_path / "g.gtf").write_text(
        "".join(f'c\tx\texon\t{a}\t{b}\t.\t+\t.\tgene_id "G"; transcript_id "T";\n' for a, b in rows)
    )
    reference = build_reference(tmp_path / "g.fa", tmp_path / "g.gtf")
    truth = [*range(1_240, 1_300), *range(2_000, 2_040)]
    places, _ = places_of(calls_of(CONTIG[truth], False), reference, AssignSettings())
    assert sum(place == true for place, true in zip(places, truth, strict=True)) >= 97
    assert all(place in (None, true) for place, true in zip(places, truth, strict=True))
