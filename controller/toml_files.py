"""Settings files in TOML: from a path to a table, and what cannot be read said in one sentence."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from cartoseq.streaming.errors import InputError


def read_text(path: Path, what: str) -> str:
    """Read a settings file.

    Args:
        path: The file.
        what: What kind of file it is, as a person says it: "experiment".

    Raises:
        InputError: it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(path, f"there is no such {what} file", remedy="Correct the path.") from None
    except IsADirectoryError:
        raise InputError(path, "this is a folder", remedy=f"Name the {what} file (.toml) in it.") from None
    except UnicodeDecodeError as error:
        raise InputError(
            path, f"not a text file in UTF-8 (byte {error.start})", remedy="Save it as a UTF-8 text file."
        ) from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", remedy="Correct its permissions.") from error


def parse(text: str, source: str | Path) -> dict[str, Any]:
    """Parse TOML.

    Args:
        text: The document.
        source: Where it comes from, for error messages.

    Raises:
        InputError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*?) \(at (.*)\)", str(error), re.DOTALL)
        problem, place = found.groups() if found else (str(error), "")
        raise InputError(
            source,
            f"not valid TOML: {problem[:1].lower()}{problem[1:]}",
            place=place,
            remedy='Correct the line: a setting reads key = value, with texts and paths in "quotes".',
        ) from None
