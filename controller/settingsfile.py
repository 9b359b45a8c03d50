"""Settings files: from a TOML text to a checked table, every fault said at once with its line, key and remedy.

Each kind of file (experiment, recipe, instrument) is a pydantic model that checks itself; its faults are `Problem`
objects. What pydantic finds by itself is said here in our words.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from cartoseq.controller.toml_lines import KeyPath, key_lines, key_name
from cartoseq.streaming.errors import InputError

MOST_PROBLEMS_SHOWN = 20


@dataclass(frozen=True)
class Problem:
    """One fault of a settings file.

    Args:
        key: Where: ``("library", 0, "genome")``.
        text: What was expected and what was found.
        remedy: What to do about it: a full sentence.
    """

    key: KeyPath
    text: str
    remedy: str


@dataclass(frozen=True)
class FileKind:
    """What the messages about one kind of settings file say.

    Args:
        name: "experiment".
        tables: The model of each table by its name; "" for the file itself.
        arrays: Names of the tables that are written as [[name]].
        kinds: For entries of several kinds: the model of each kind, by what the entry's `tag` says.
        tag: The key that tells an entry's kind.
        depths: How many steps of a key lead to such an entry, by the first of them: ``step[3]`` has two.
        remedy: A better remedy than the general one, given the key and whether a list was expected; or nothing.
    """

    name: str
    tables: Mapping[str, type[BaseModel]]
    arrays: frozenset[str] = frozenset()
    kinds: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    tag: str = ""
    depths: Mapping[str, int] = field(default_factory=dict)
    remedy: Callable[[KeyPath], str] = lambda _key: ""

    @property
    def page(self) -> str:
        """The page that shows how it is written."""
        return f"docs/{self.name}.md"

    def split(self, place: Sequence[str | int]) -> tuple[KeyPath, str]:
        """Part a place as pydantic tells it into the key and the entry's kind, if it is in one: ``step[3].flow.port``.

        Only what stands right behind an entry is its kind: a block may be called "wash" as well.
        """
        place = [step for step in place if step != "[key]"]  # pydantic's mark of a key that is at fault itself
        depth = self.depths.get(str(place[0]), 0) if place else 0
        if not depth or len(place) <= depth:
            return tuple(place), ""
        return (*place[:depth], *place[depth + 1 :]), str(place[depth])

    def known(self, key: KeyPath, kind: str) -> type[BaseModel]:
        """The model of the table that a key stands in."""
        if kind:
            model, inside = self.kinds[kind], key[self.depths[str(key[0])] : -1]
        else:
            model, inside = self.tables[str(key[0]) if len(key) > 1 else ""], ()
        for step in inside:
            held = model.model_fields[str(step)].annotation if str(step) in model.model_fields else None
            tables = [one for one in (held, *get_args(held)) if isinstance(one, type) and issubclass(one, BaseModel)]
            if not tables:
                break
            model = tables[0]
        return model

    def header(self, table: str) -> str:
        """How a table begins in the file."""
        return f"[[{table}]]" if table in self.arrays else f"[{table}]"


def fault(text: str, remedy: str) -> PydanticCustomError:
    """A fault of the one value that is being validated."""
    return PydanticCustomError("problems", "{text}", {"text": text, "problems": [Problem((), text, remedy)]})


def faults(problems: Sequence[Problem]) -> PydanticCustomError:
    """Faults below the table that is being validated, their keys relative to it."""
    text = "; ".join(f"{key_name(problem.key)}: {problem.text}" for problem in problems)
    return PydanticCustomError("problems", "{text}", {"text": text, "problems": list(problems)})


def read_text(path: Path, kind: FileKind) -> str:
    """Read a settings file.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(path, f"there is no such {kind.name} file", remedy="Correct the path.") from None
    except IsADirectoryError:
        raise InputError(path, "this is a folder", remedy=f"Name the {kind.name} file (.toml) in it.") from None
    except UnicodeDecodeError as error:
        raise InputError(
            path, f"not a text file in UTF-8 (byte {error.start})", remedy="Save it as a UTF-8 text file."
        ) from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", remedy="Correct its permissions.") from error


def parse(text: str, source: str | Path) -> dict[str, Any]:
    """Read TOML.

    Raises:
        InputError: it is none; the error's place is the line.
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


def problems_of(error: ValidationError, kind: FileKind) -> list[Problem]:
    """Say the faults that pydantic found in our words."""
    return [problem for details in error.errors() for problem in _problems_of(details, kind)]


def _problems_of(details: ErrorDetails, file: FileKind) -> list[Problem]:
    key, entry_kind = file.split(details["loc"])
    found = shown(details["input"])
    limits: Mapping[str, Any] = details.get("ctx", {})
    kind = details["type"]
    if kind == "problems":
        return [Problem(key + problem.key, problem.text, problem.remedy) for problem in limits["problems"]]
    if kind == "too_short" and details["input"]:
        return []  # pydantic counts the sound entries only; what is wrong with the others is said by itself
    if kind == "extra_forbidden":
        return [_unknown_key(key, entry_kind, file)]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return [_unknown_kind(key, details["input"], file)]
    as_shown = f"as {file.page} shows."
    if kind == "missing":
        text, remedy = f"{key[-1]} is missing", f"Add {key[-1]} = ..., {as_shown}"
        if len(key) == 1 and key[0] in file.tables:
            header = file.header(str(key[0]))
            text, remedy = f"there is no {header} table", f"Add {header}, {as_shown}"
    elif kind in ("model_type", "model_attributes_type", "tuple_type", "dict_type"):
        text = f"expected a {'list' if kind == 'tuple_type' else 'table'}, found {found}"
        remedy = f"Write it {as_shown}"
        if len(key) == 1 and key[0] in file.arrays:
            remedy = f"Begin each {key[0]} with [[{key[0]}]], in double brackets."
        elif special := file.remedy(key):
            remedy = special
        elif kind == "tuple_type":
            remedy = f'Write it in brackets: {key[-1]} = ["..."].'
    else:
        expected = {
            "string_type": "a text in quotes",
            "string_too_short": "a text that is not empty",
            "int_type": "a whole number",
            "float_type": "a number",
            "float_parsing": "a number",
            "bool_type": "true or false",
            "finite_number": "a finite number",
            "literal_error": str(limits.get("expected", "")).replace("'", '"'),
            "too_short": "at least one entry",
            "greater_than": f"a number above {limits.get('gt')}",
            "greater_than_equal": f"a number of at least {limits.get('ge')}",
            "less_than": f"a number below {limits.get('lt')}",
            "less_than_equal": f"a number of at most {limits.get('le')}",
        }.get(kind, details["msg"])
        text, remedy = f"expected {expected}, found {found}", f"Correct {key_name(key)}."
    return [Problem(key, text, remedy)]


def _unknown_key(key: KeyPath, kind: str, file: FileKind) -> Problem:
    name = str(key[-1])
    known = list(file.known(key, kind).model_fields)
    if near := get_close_matches(name, known, n=1, cutoff=0.6):
        remedy = f'Did you mean "{near[0]}"?'
    elif homes := [table for table, other in file.tables.items() if table and name in other.model_fields]:
        remedy = f"It belongs to {' or '.join(map(file.header, homes))}."
    else:
        remedy = f"Known here: {', '.join(known)}."
    return Problem(key, f"unknown key {shown(name)}", remedy)


def _unknown_kind(key: KeyPath, entry: object, file: FileKind) -> Problem:
    value = entry.get(file.tag) if isinstance(entry, Mapping) else None
    known = ", ".join(file.kinds)
    if value is None:
        return Problem(key, f"expected a table with {file.tag} = ..., found {shown(entry)}", f"Known: {known}.")
    near = get_close_matches(str(value), list(file.kinds), n=1, cutoff=0.6)
    remedy = f'Did you mean "{near[0]}"?' if near else f"Known: {known}."
    return Problem((*key, file.tag), f"there is no {file.tag} = {shown(value)}", remedy)


def settings_error(source: str | Path, text: str, problems: Iterable[Problem]) -> InputError:
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


def shown(value: object) -> str:
    """A value as it stands in the file, short."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = value_text(value) if isinstance(value, str | bool | int | float) else str(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def value_text(value: object) -> str:
    """Write a value as TOML: a text, a number, a truth value, or a list of such."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, str):  # JSON's escapes are TOML's, which wants DEL escaped too
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def table_text(header: str, table: Mapping[str, object]) -> str:
    """Write a table as TOML; its values are texts, numbers, truth values and lists of them."""
    return f"{header}\n" + "".join(f"{key} = {value_text(value)}\n" for key, value in table.items())
