"""What all tests share: where the real data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real reads with known results; a test that needs it is skipped, saying so, where it is absent."""
    folder = Path(os.environ.get("CARTOSEQ_REAL_DATA", PROJECT.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"REAL DATA ABSENT: {folder} (set CARTOSEQ_REAL_DATA to the folder that holds it)")
    return folder
