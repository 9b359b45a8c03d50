"""What a file's digest depends on: itself, and what it imports of this package."""

from __future__ import annotations

from pathlib import Path

import pytest

from cartoseq.streaming import sourcestamp


@pytest.fixture
def stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The digest of ``room/kernels.py`` in a package of its own, read anew each time."""
    monkeypatch.setattr(sourcestamp, "_PACKAGE", "ours")
    monkeypatch.setattr(sourcestamp, "_ROOT", tmp_path)
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").touch()

    def current() -> str:
        for cached in (sourcestamp.source_stamp, sourcestamp._digest, sourcestamp._imported):
            cached.cache_clear()
        return sourcestamp.source_stamp(tmp_path / "room" / "kernels.py")

    yield current
    for cached in (sourcestamp.source_stamp, sourcestamp._digest, sourcestamp._imported):
        cached.cache_clear()


@pytest.mark.parametrize(
    "line",
    [
        "from ours.room.helpers import a, b",
        "from ours.room import helpers",
        "from ours.room import other, helpers as h",
        "from ours.room import (\n    other,\n    helpers,\n)",
        "import ours.room.helpers",
        "def f():\n    from ours.room.helpers import a",
        "from ours.room.between import c",
    ],
)
def test_a_change_of_an_imported_file_is_noticed(stamp, tmp_path: Path, line: str) -> None:
    room = tmp_path / "room"
    (room / "between.py").write_text("from ours.room.kernels import f\nfrom ours.room.helpers import a as c\n")
    (room / "helpers.py").write_text("a = 1\n")
    (room / "kernels.py").write_text(line + "\n")
    before = stamp()
    assert stamp() == before
    (room / "helpers.py").write_text("a = 2\n")
    assert stamp() != before


def test_a_change_of_the_file_itself_is_noticed_and_one_elsewhere_is_none(stamp, tmp_path: Path) -> None:
    room = tmp_path / "room"
    (room / "kernels.py").write_text("import numpy\nfrom theirs.room.helpers import a\n")
    (room / "helpers.py").write_text("a = 1\n")
    before = stamp()
    (room / "helpers.py").write_text("a = 2\n")
    assert stamp() == before
    (room / "kernels.py").write_text("import numpy\n")
    assert stamp() != before
