"""GC strata: percentages, windows and unknown bases, against plain counting."""

from __future__ import annotations

import numpy as np
import pytest

from cartoseq.analysis.gcstrata import COARSE, PLACE_STEP, STRATA, add_fragments, genome_strata
from cartoseq.analysis.molecules import Molecules
from cartoseq.analysis.reference import build_reference
from cartoseq.analysis.windows import window_features

POSITION_BITS = 20
WINDOW_BP = 1_000


@pytest.fixture(scope="module")
def genome():
    random = np.random.default_rng(4)
    contigs = []
    for length in (5_000, 3_333):
        strong = 0.2 + 0.6 * (np.arange(length) // 500 % 2)
        is_strong = random.random(length) < strong
        codes = np.where(is_strong, random.integers(1, 3, length), 3 * random.integers(0, 2, length))
        contigs.append(codes.astype(np.uint8))
    contigs[1][1_000:1_400] = 4
    return contigs


@pytest.fixture(scope="module")
def reference(genome, tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text(
        "".join(f">c{number}\n{''.join('ACGTN'[code] for code in codes)}\n" for number, codes in enumerate(genome))
    )
    return build_reference(path, None)


@pytest.fixture(scope="module")
def windows(reference):
    return window_features(reference.contig_names, reference.contig_lengths, WINDOW_BP, reference.contig_offsets)


def plain_percent(codes, begin, end):
    """The percentage of G and C in [begin, end) of a contig, half rounded up; None where too little is known."""
    known = [int(codes[at]) for at in range(max(0, begin), min(end, codes.size)) if codes[at] < 4]
    if 2 * len(known) < end - begin:
        return None
    return int(100 * sum(code in (1, 2) for code in known) / len(known) + 0.5)


@pytest.mark.parametrize("fragment_bp", [20, 64, 200])
def test_places_of_the_genome_are_those_of_plain_counting(genome, reference, windows, fragment_bp):
    strata = genome_strata(reference, windows, fragment_bp)
    expected, in_windows = np.zeros(STRATA, int), np.zeros((windows.ids.size, COARSE), int)
    for number, codes in enumerate(genome):
        for at in range(0, codes.size, PLACE_STEP):
            percent = plain_percent(codes, at, at + fragment_bp)
            if percent is not None:
                expected[percent] += 1
                in_windows[windows.first_window[number] + at // WINDOW_BP, percent // 5] += 1
    assert np.array_equal(strata.places, expected)
    assert np.array_equal(strata.window_places, in_windows)
    assert strata.fragments.sum() == 0


def test_fragments_are_counted_by_the_genome_from_their_end_on(genome, reference, windows):
    random = np.random.default_rng(9)
    n, fragment_bp = 3_000, 150
    contig = random.integers(0, 2, n)
    at = (random.random(n) * reference.contig_lengths[contig]).astype(np.int64)
    strand = random.integers(0, 2, n)
    places = reference.contig_offsets[contig] + at
    features = (strand << POSITION_BITS | places).astype(np.uint64)
    ones = np.ones(n, np.uint32)
    strata = genome_strata(reference, windows, fragment_bp)
    for part in (slice(0, 1_000), slice(1_000, n)):
        molecules = Molecules(ones[part], features[part], np.zeros(n, np.uint64)[part], ones[part])
        add_fragments(strata, molecules, reference, windows, POSITION_BITS)
    expected, in_windows = np.zeros(STRATA, int), np.zeros((windows.ids.size, COARSE), int)
    for one, position, reverse in zip(contig.tolist(), at.tolist(), strand.tolist(), strict=True):
        begin = position - fragment_bp + 1 if reverse else position
        percent = plain_percent(genome[one], begin, begin + fragment_bp)
        if percent is not None:
            expected[percent] += 1
            in_windows[windows.first_window[one] + position // WINDOW_BP, percent // 5] += 1
    assert 0 < expected.sum() < n
    assert np.array_equal(strata.fragments, expected)
    assert np.array_equal(strata.window_fragments, in_windows)
