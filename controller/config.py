"""The experiment file: from TOML to an experiment and back, every fault said at once.

An experiment is one TOML file (docs/experiment.md) of three tables: ``[chip]``, one ``[[library]]`` for each
sequencing library, and, if wanted, ``[run]``. Relative paths start at the file's own folder. Whatever is wrong with it
is said at once, each fault with its line, its key and what to do, before anything is opened or started.

``python -m cartoseq.controller.config`` prints the JSON Schema for editors (``schemas/experiment-v1.json``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cartoseq.controller.experiment import (
    Chip,
    Experiment,
    Library,
    RunSettings,
    foreign_keys,
    libraries_problems,
)
from cartoseq.controller.settingsfile import (
    FileKind,
    Problem,
    parse,
    problems_of,
    read_text,
    settings_error,
    table_text,
)
from cartoseq.controller.toml_lines import KeyPath

__all__ = ["Chip", "Experiment", "Library", "RunSettings", "experiment_schema", "freeze", "load_experiment", "thaw"]


def _remedy(key: KeyPath) -> str:
    return 'Write rows of files: reads = [["L01_1.fq.gz", "L01_2.fq.gz"]].' if "reads" in key[-2:] else ""


FILE = FileKind(
    name="experiment",
    tables={"": Experiment, "chip": Chip, "library": Library, "run": RunSettings},
    arrays=frozenset({"library"}),
    remedy=_remedy,
)


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment file and check all that can be checked without reading the data.

    Args:
        path: The TOML file. Relative paths in it start at its folder.

    Raises:
        InputError: the file cannot be read, is no TOML, or describes no sound experiment. All faults are in the one
            message, the first with its line and key as the error's place.
    """
    path = Path(path)
    text = read_text(path, FILE)
    folder = path.absolute().parent
    experiment, problems = _validate(parse(text, path), folder)
    problems += _file_problems(parse(text, path), folder)
    if problems or experiment is None:
        raise settings_error(path, text, problems)
    return experiment


def freeze(experiment: Experiment) -> str:
    """Write an experiment as canonical TOML: every setting, defaults included, and paths as they were resolved."""
    document = experiment.model_dump(mode="json", exclude_none=True)
    for library in document["library"]:
        for key in foreign_keys(library["layer"]):
            library.pop(key, None)
    parts = ["# The experiment of this run, every setting included.\n", table_text("[chip]", document["chip"])]
    parts += [table_text("[[library]]", library) for library in document["library"]]
    parts += [table_text("[run]", document["run"])]
    return "\n".join(parts)


def thaw(text: str, source: str | Path = "run.toml") -> Experiment:
    """Read what :func:`freeze` wrote; the files that it names need not be there any more.

    Args:
        text: The TOML text.
        source: Where the text comes from, for error messages.

    Raises:
        InputError: the text is no frozen experiment.
    """
    experiment, problems = _validate(parse(text, source), None)
    if problems or experiment is None:
        raise settings_error(source, text, problems)
    return experiment


def experiment_schema() -> dict[str, object]:
    """The JSON Schema of the experiment file, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Experiment.model_json_schema()}
    schema["title"] = "Cartoseq experiment"
    for table in (schema, *schema["$defs"].values()):
        for key in table["properties"].values():  # the docstrings were wrapped, an editor wraps by itself
            key["description"] = " ".join(key["description"].split())
    return schema


def _file_problems(document: Mapping[str, Any], folder: Path) -> list[Problem]:
    """The files that are not there. Looks at the raw document, so that a fault elsewhere hides none of them."""
    problems: list[Problem] = []

    def check(key: KeyPath, value: object, *, may_come: bool = False) -> None:
        if not isinstance(value, str) or not value.strip():
            return
        path = folder / Path(value).expanduser()
        wanted = path.parent if may_come else path
        if wanted.is_dir() if may_come else path.is_file():
            return
        text = (
            f"{path} is a folder, not a file"
            if path.is_dir()
            else f"there is no {'folder' if may_come else 'file'} {wanted}"
        )
        problems.append(Problem(key, text, "Correct the path; relative paths start at the experiment file's folder."))

    chip = document.get("chip")
    if isinstance(chip, dict):
        check(("chip", "barcodes"), chip.get("barcodes"))
    libraries = document.get("library")
    for number, library in enumerate(libraries if isinstance(libraries, list) else []):
        if not isinstance(library, dict):
            continue
        here: KeyPath = ("library", number)
        for key in ("genome", "genes", "loci"):
            check((*here, key), library.get(key))
        follow = library.get("follow_until")
        check((*here, "follow_until"), follow, may_come=True)
        rows = library.get("reads")
        for row, paths in enumerate(rows if isinstance(rows, list) else []):
            for column, value in enumerate(paths if isinstance(paths, list) else []):
                check((*here, "reads", row, column), value, may_come=isinstance(follow, str))
    return problems


def _validate(document: Mapping[str, Any], folder: Path | None) -> tuple[Experiment | None, list[Problem]]:
    context = {"folder": folder}
    try:
        return Experiment.model_validate(document, context=context), []
    except ValidationError as error:
        problems = problems_of(error, FILE)
    sound: dict[int, Library] = {}
    libraries = document.get("library")
    for number, table in enumerate(libraries if isinstance(libraries, list) else []):
        try:
            sound[number] = Library.model_validate(table, context=context)
        except ValidationError:
            continue
    known = set(problems)
    return None, problems + [problem for problem in libraries_problems(sound) if problem not in known]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(experiment_schema(), indent=2) + "\n")
