"""Read structures: fgbio notation in, rows of a block out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.streaming.errors import InputError
from cartoseq.streaming.readstructure import ReadStructure, Segment, SegmentKind, rows_of

KINDS = st.sampled_from(SegmentKind)


@st.composite
def structures(draw: st.DrawFn) -> ReadStructure:
    segments = draw(st.lists(st.builds(Segment, KINDS, st.integers(1, 300)), max_size=6))
    if not segments or draw(st.booleans()):
        segments.append(Segment(draw(KINDS), None))
    return ReadStructure(tuple(segments))


@settings(deadline=None)
@given(structures())
def test_what_is_printed_is_read_back(structure: ReadStructure) -> None:
    assert ReadStructure.parse(str(structure)) == structure


@settings(deadline=None)
@given(structures(), st.integers(0, 20))
def test_every_row_belongs_to_one_segment(structure: ReadStructure, rest: int) -> None:
    cycles = structure.fixed_length if structure.fixed_length is not None else structure.minimum_length + rest
    rows = np.concatenate([rows_of([structure], [cycles], kind) for kind in SegmentKind])
    assert sorted(rows) == list(range(cycles))


def test_stereoseq_reads() -> None:
    structures = [ReadStructure.parse("25C10M15S"), ReadStructure.parse("+T")]
    assert structures[0].fixed_length == 50
    assert structures[1].fixed_length is None
    assert structures[1].minimum_length == 0
    assert rows_of(structures, [50, 100], SegmentKind.SPATIAL).tolist() == list(range(25))
    assert rows_of(structures, [50, 100], SegmentKind.MOLECULAR).tolist() == list(range(25, 35))
    template = rows_of(structures, [50, 100], SegmentKind.TEMPLATE)
    assert template.dtype == np.int64
    assert template.tolist() == list(range(50, 150))
    assert rows_of(structures, [50, 100], SegmentKind.SAMPLE).tolist() == []


def test_segments_of_one_kind_are_joined_in_order() -> None:
    structure = ReadStructure.parse("8C18S6C8M")
    assert rows_of([structure], [40], SegmentKind.SPATIAL).tolist() == [*range(8), *range(26, 32)]


@pytest.mark.parametrize(
    ("notation", "said"),
    [
        ("", "empty"),
        ("25", "character 1"),
        ("C25", "character 1"),
        ("25C10X", "character 4"),
        ("25c", "character 1"),
        ("+C10M", "not the last"),
        ("10M+", "character 4"),
        ("0C10M", "length of 0"),
        ("25C 10M", "character 4"),
        ("999999999999999C", "expected 1 to"),
        ("٣C", "character 1"),
    ],
)
def test_bad_notation_is_refused_with_its_place_and_a_remedy(notation: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        ReadStructure.parse(notation)
    assert said in str(caught.value)
    assert "25C10M15S" in str(caught.value)


@settings(deadline=None)
@given(st.text(alphabet="0123456789+CMTSBX ", max_size=12))
def test_any_text_is_read_or_refused(notation: str) -> None:
    try:
        structure = ReadStructure.parse(notation)
    except InputError:
        return
    assert ReadStructure.parse(str(structure)) == structure


def test_reads_that_do_not_fit_are_refused() -> None:
    structure = ReadStructure.parse("25C10M")
    with pytest.raises(InputError, match="needs 35"):
        rows_of([structure], [34], SegmentKind.SPATIAL)
    with pytest.raises(InputError, match=r"say so: 25C10M\+S"):
        rows_of([structure], [50], SegmentKind.SPATIAL)
    with pytest.raises(InputError, match="1 read structures for 2 reads"):
        rows_of([structure], [35, 100], SegmentKind.SPATIAL)
