"""The experiment file: from TOML to an experiment and back, every fault said at once.

An experiment is one TOML file (docs/experiment.md) of three tables: ``[chip]``, one ``[[library]]`` for each
sequencing library, and, if wanted, ``[run]``. Relative paths start at the file's own folder. Whatever is wrong with it
is said at once, each fault with its line, its key and what to do, before anything is opened or started.

``python -m cartoseq.controller.config`` prints the JSON Schema for editors (``schemas/experiment-v1.json``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cartoseq.controller.experiment import (
    Chip,
    Experiment,
    Library,
    Problem,
    RunSettings,
    foreign_keys,
    libraries_problems,
    shown,
    value_text,
)
from cartoseq.controller.toml_files import parse, read_text
from cartoseq.controller.toml_lines import KeyPath, key_lines, key_name
from cartoseq.streaming.errors import InputError

__all__ = ["Chip", "Experiment", "Library", "RunSettings", "experiment_schema", "freeze", "load_experiment", "thaw"]

MOST_PROBLEMS_SHOWN = 20


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment file and check all that can be checked without reading the data.

    Args:
        path: The TOML file. Relative paths in it start at its folder.

    Raises:
        InputError: the file cannot be read, is no TOML, or describes no sound experiment. All faults are in the one
            message, the first with its line and key as the error's place.
    """
    path = Path(path)
    text = read_text(path, "experiment")
    folder = path.absolute().parent
    experiment, problems = _validate(parse(text, path), folder)
    problems += _file_problems(parse(text, path), folder)
    if problems or experiment is None:
        raise _error(path, text, problems)
    return experiment


def freeze(experiment: Experiment) -> str:
    """Write an experiment as canonical TOML: every setting, defaults included, and paths as they were resolved."""
    document = experiment.model_dump(mode="json", exclude_none=True)
    for library in document["library"]:
        for key in foreign_keys(library["layer"]):
            library.pop(key, None)
    parts = ["# The experiment of this run, every setting included.\n", _table_text("[chip]", document["chip"])]
    parts += [_table_text("[[library]]", library) for library in document["library"]]
    parts += [_table_text("[run]", document["run"])]
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
        raise _error(source, text, problems)
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
        for key in ("genome", "genes"):
            check((*here, key), library.get(key))
        follow = library.get("follow_until")
        check((*here, "follow_until"), follow, may_come=True)
        rows = library.get("reads")
        for row, paths in enumerate(rows if isinstance(rows, list) else []):
            for column, value in enumerate(paths if isinstance(paths, list) else []):
                check((*here, "reads", row, column), value, may_come=isinstance(follow, str))
    return problems


# From a text to an experiment, and from faults to one message.


def _validate(document: Mapping[str, Any], folder: Path | None) -> tuple[Experiment | None, list[Problem]]:
    context = {"folder": folder}
    try:
        return Experiment.model_validate(document, context=context), []
    except ValidationError as error:
        problems = [problem for details in error.errors() for problem in _problems_of(details)]
    sound: dict[int, Library] = {}
    libraries = document.get("library")
    for number, table in enumerate(libraries if isinstance(libraries, list) else []):
        try:
            sound[number] = Library.model_validate(table, context=context)
        except ValidationError:
            continue
    known = set(problems)
    return None, problems + [problem for problem in libraries_problems(sound) if problem not in known]


def _problems_of(details: ErrorDetails) -> list[Problem]:
    """Say a fault that pydantic found in the words of this module."""
    key: KeyPath = tuple(details["loc"])
    found = shown(details["input"])
    limits: Mapping[str, Any] = details.get("ctx", {})
    kind = details["type"]
    if kind == "problems":
        return [Problem(key + problem.key, problem.text, problem.remedy) for problem in limits["problems"]]
    if kind == "too_short" and details["input"]:
        return []  # pydantic counts the sound entries only; what is wrong with the others is said by itself
    if kind == "extra_forbidden":
        return [_unknown_key(key)]
    if kind == "missing":
        text, remedy = f"{key[-1]} is missing", f"Add {key[-1]} = ..., as docs/experiment.md shows."
        if len(key) == 1:
            header = "[[library]]" if key == ("library",) else f"[{key[0]}]"
            text, remedy = f"there is no {header} table", f"Add {header}, as docs/experiment.md shows."
    elif kind in ("model_type", "model_attributes_type", "tuple_type"):
        text = f"expected a {'list' if kind == 'tuple_type' else 'table'}, found {found}"
        remedy = "Write it as docs/experiment.md shows."
        if key == ("library",):
            remedy = "Begin each library with [[library]], in double brackets."
        elif "reads" in key[-2:]:
            remedy = 'Write rows of files: reads = [["L01_1.fq.gz", "L01_2.fq.gz"]].'
        elif kind == "tuple_type":
            remedy = f'Write it in brackets: {key[-1]} = ["..."].'
    else:
        expected = {
            "string_type": "a text in quotes",
            "string_too_short": "a text that is not empty",
            "int_type": "a whole number",
            "float_type": "a number",
            "bool_type": "true or false",
            "finite_number": "a finite number",
            "literal_error": str(limits.get("expected", "")).replace("'", '"'),
            "too_short": "at least one entry",
            "greater_than": f"a number above {limits.get('gt')}",
            "greater_than_equal": f"a number of at least {limits.get('ge')}",
            "less_than_equal": f"a number of at most {limits.get('le')}",
        }.get(kind, details["msg"])
        text, remedy = f"expected {expected}, found {found}", f"Correct {key_name(key)}."
    return [Problem(key, text, remedy)]


def _unknown_key(key: KeyPath) -> Problem:
    tables: dict[str, type[BaseModel]] = {"": Experiment, "chip": Chip, "library": Library, "run": RunSettings}
    table = str(key[0]) if len(key) > 1 else ""
    name = str(key[-1])
    known = list(tables[table].model_fields)
    if near := get_close_matches(name, known, n=1, cutoff=0.6):
        remedy = f'Did you mean "{near[0]}"?'
    elif homes := [home for home, model in tables.items() if home and name in model.model_fields]:
        remedy = f"It belongs to {' or '.join('[[library]]' if home == 'library' else f'[{home}]' for home in homes)}."
    else:
        remedy = f"Known here: {', '.join(known)}."
    return Problem(key, f"unknown key {shown(name)}", remedy)


def _error(source: str | Path, text: str, problems: Iterable[Problem]) -> InputError:
    """All faults as one error, in the order of the file."""
    lines = key_lines(text)

    def line(problem: Problem) -> int:
        steps = problem.key
        while steps and steps not in lines:
            steps = steps[:-1]
        return lines.get(steps, 0)

    def place(problem: Problem) -> str:
        where = f"line {line(problem)}, " if line(problem) else ""
        return f"{where}key {key_name(problem.key)}"

    first, *others = sorted(problems, key=line)
    remedy = first.remedy
    if others:
        shown = others[: MOST_PROBLEMS_SHOWN - 1]
        listed = "".join(f"\n  {place(p)}: {p.text}. {p.remedy}" for p in shown)
        left = f"\n  ... and {len(others) - len(shown)} not shown" if len(shown) < len(others) else ""
        remedy = f"{remedy}\nand {len(others)} more:{listed}{left}"
    return InputError(source, first.text, place=place(first), remedy=remedy)


# TOML out: the values of an experiment are texts, numbers, truth values and lists of them.


def _table_text(header: str, table: Mapping[str, object]) -> str:
    return f"{header}\n" + "".join(f"{key} = {value_text(value)}\n" for key, value in table.items())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(experiment_schema(), indent=2) + "\n")
