"""Rehearsals compile what a fold needs, for the arguments that a fold gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cartoseq.analysis import alignment, genecall, kmerindex, moleculerows, narrowtable, rehearsal
from cartoseq.analysis.assign import AssignSettings, assign, assign_reads
from cartoseq.analysis.molecules import MoleculeSet
from cartoseq.analysis.reference import build_reference


def kinds_on_disk(kernel) -> list[str]:
    """For which argument types there is machine code of a kernel."""
    return sorted({str(signature) for signature, *_ in kernel.cache._cache_file._load_index()})


def test_a_fold_needs_no_other_machine_code_than_its_rehearsal(tmp_path: Path) -> None:
    genome, genes = tmp_path / "genome.fa", tmp_path / "genes.gtf"
    bases = "".join(np.random.default_rng(3).choice(list("ACGT"), 1000))
    genome.write_text(f">one\n{bases}\n")
    genes.write_text('one\tmade\texon\t101\t400\t.\t+\t.\tgene_id "g"; gene_name "g";\n')
    for step in ("place", "count"):
        rehearsal._STEPS[step][0]()
    read = np.array(["ACGT".index(base) for base in bases[150:250]], np.uint8) | 36 << 2
    found = assign(np.tile(read[:, None], 3).astype(np.uint8), build_reference(genome, genes), AssignSettings())
    assert found.verdicts.tolist() == [0, 0, 0]
    MoleculeSet(12, 20).add(np.arange(3, dtype=np.uint32), np.arange(3, dtype=np.uint64), np.zeros(3, np.uint64))
    for kernel in (
        assign_reads,
        genecall.call_genes.inner,
        genecall.describe.inner,
        alignment.resolve.inner,
        kmerindex.all_seeds.inner,
        alignment.check_candidates.inner,
        moleculerows.first_misfit,
        narrowtable.add_narrow,
    ):
        assert len(kinds_on_disk(kernel)) == 1, kernel
    assert rehearsal.missing_steps() == []


def test_a_step_is_missing_until_its_machine_code_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    program = "from cartoseq.analysis import rehearsal; print(*rehearsal.missing_steps())"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == ["place", "count"]
