"""How the settings of an experiment reach the fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cartoseq.analysis.assign import ASSIGNED, UNMAPPED, assign
from cartoseq.analysis.reference import open_reference
from cartoseq.controller.config import Library
from cartoseq.controller.folding import library_settings


def library(**more: object) -> Library:
    content = {
        "name": "l",
        "layer": "dna",
        "read_structures": ["25C10M", "100T"],
        "reads": [["r1.fq", "r2.fq"]],
        "genome": "g.fa",
    }
    return Library.model_validate(content | more)


@pytest.mark.parametrize(("bases", "verdict"), [(60, ASSIGNED), (40, ASSIGNED), (25, UNMAPPED)])
def test_a_dna_template_of_two_places_is_placed_by_its_longer_part(tmp_path: Path, bases: int, verdict: int) -> None:
    chance = np.random.default_rng(8)
    genome = chance.integers(0, 4, 20_000).astype(np.uint8)
    (tmp_path / "g.fa").write_text(">c\n" + "".join("ACGT"[code] for code in genome.tolist()) + "\n")
    reference = open_reference(tmp_path / "g.fa", None)
    template = np.concatenate([genome[7_000 : 7_000 + bases], chance.integers(0, 4, 100 - bases).astype(np.uint8)])
    calls = (template | 37 << 2).astype(np.uint8)[:, None]
    found = assign(calls, reference, library_settings(library()).assign)
    assert found.verdicts.tolist() == [verdict]
    if verdict == ASSIGNED:
        assert found.positions[0] - reference.contig_offsets[0] == 7_000


def test_an_rna_template_is_placed_by_two_thirds_of_it() -> None:
    settings = library_settings(library(layer="rna", genes="g.gtf"))
    assert settings.assign.min_aligned_fraction == 0.66
