"""Each row of the fault matrix, run; see `faultmatrix`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .faultmatrix import PAGE, ROWS, Row, page
from .faultrun import run_with


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_fault_is_found_borne_and_leaves_everything_safe_and_accounted_for(row: Row, tmp_path: Path) -> None:
    seen, expected = run_with(row, tmp_path), row.expected
    assert (seen.kinds, seen.reason) == (expected.kinds, expected.reason), seen.why
    if expected.reason == "completed":
        assert set(seen.holds) == expected.held_by
    assert seen.alight_in_hold == (), "while the run was held"
    assert seen.unsafe == expected.unsafe
    assert seen.told == expected.told, "what is not safe, or not known to be, is in the journal"
    assert set(seen.unsafe) <= set(seen.told)
    assert seen.ledger_ul == pytest.approx(expected.off_ul, abs=1.0)
    assert seen.open_ul == pytest.approx(expected.open_ul)
    assert len(seen.bad_tiles) == expected.bad_tiles


def test_rows_have_names_of_their_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_page_says_what_the_matrix_holds() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"{PAGE.name}: make it anew, see faultmatrix.py"
