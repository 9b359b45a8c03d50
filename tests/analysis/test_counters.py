"""Counters add up at every level, and a level that does not is named."""

import pytest

from cartoseq.analysis import counters
from cartoseq.streaming.errors import RunError


def _balanced() -> dict[str, int]:
    values = dict.fromkeys(counters.READ_COUNTERS, 0)
    values.update(
        reads_total=100,
        located_exact=60,
        located_corrected=20,
        corrected_n=3,
        ambiguous=5,
        unmatched=14,
        barcode_n=1,
        mid_n=2,
        mid_homopolymer=1,
        mid_low_quality=4,
        assigned=50,
        assigned_intronic=6,
        multi_gene=3,
        antisense=5,
        intronic=0,
        intergenic=7,
        multi_mapped=4,
        unmapped=4,
    )
    return values


def test_balanced_counters_pass():
    counters.check(_balanced(), "rna")


@pytest.mark.parametrize("name", [n for n in counters.READ_COUNTERS if n not in {"corrected_n", "assigned_intronic"}])
def test_one_read_too_many_anywhere_is_noticed(name):
    values = _balanced()
    values[name] += 1
    with pytest.raises(RunError, match="rna"):
        counters.check(values, "rna")


@pytest.mark.parametrize(("part", "whole"), [("corrected_n", 20), ("assigned_intronic", 50)])
def test_a_part_larger_than_its_whole_is_noticed(part, whole):
    values = _balanced()
    values[part] = whole + 1
    with pytest.raises(RunError, match=part):
        counters.check(values, "rna")
