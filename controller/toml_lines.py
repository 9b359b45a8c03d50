"""On which line of a TOML text each key and each list item stands.

The standard library's ``tomllib`` gives values without places. An error that names the line saves the reader a search,
so this walks over a text that ``tomllib`` has already accepted and notes where things begin. It therefore checks
nothing: it only has to know where strings, comments, lists and inline tables end (TOML 1.0, https://toml.io).
"""

from __future__ import annotations

import tomllib

KeyPath = tuple[str | int, ...]
"""The way to a value: table names, positions in arrays of tables and in lists (from 0), keys."""


def key_lines(text: str) -> dict[KeyPath, int]:
    """Find the line of every table, key and list item.

    Args:
        text: A valid TOML document.

    Returns:
        Line numbers from 1. A table that is never opened by a header of its own has the line of its first key.
    """
    return _Walk(text.replace("\r\n", "\n")).walk()


def key_name(path: KeyPath) -> str:
    """Write a path as a person would: ``library[0].reads[1][0]``."""
    name = ""
    for step in path:
        name += f"[{step}]" if isinstance(step, int) else f".{step}" if name else step
    return name


class _Walk:
    """One pass over the text; ``at`` is the position of the next character to look at."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.counted = 0
        self.lines: dict[KeyPath, int] = {}
        self.tables: dict[KeyPath, int] = {}
        """Number of tables so far in each array of tables."""

    def walk(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip_blank():
            if self.text.startswith("[[", self.at):
                self.at += 2
                table = self._header(array=True)
            elif self.text[self.at] == "[":
                self.at += 1
                table = self._header(array=False)
            else:
                self._key_and_value(table)
        return self.lines

    def _header(self, *, array: bool) -> KeyPath:
        line = self._line()
        path = self._key("]")
        self.at += 2 if array else 1
        if array:
            parent = self._inside_last(path[:-1]) + path[-1:]
            number = self.tables.get(parent, 0)
            self.tables[parent] = number + 1
            self._note(parent, line)
            path = (*parent, number)
        else:
            path = self._inside_last(path)
        self._note(path, line)
        return path

    def _inside_last(self, path: KeyPath) -> KeyPath:
        """Follow a header's name through arrays of tables, each time into the last table so far."""
        found: KeyPath = ()
        for step in path:
            found = (*found, step)
            if found in self.tables:
                found = (*found, self.tables[found] - 1)
        return found

    def _key_and_value(self, table: KeyPath) -> None:
        line = self._line()
        path = table + self._key("=")
        for length in range(len(table) + 1, len(path) + 1):
            self._note(path[:length], line)
        self.at += 1
        self._value(path)

    def _key(self, end: str) -> KeyPath:
        """Read a key, dotted or not, up to the character that ends it."""
        start = self.at
        while self.text[self.at] != end:
            if self.text[self.at] in "\"'":
                self._string()
            else:
                self.at += 1
        steps: list[str] = []
        table: object = tomllib.loads(f"{self.text[start : self.at]}=0")
        while isinstance(table, dict):
            ((step, table),) = table.items()
            steps.append(step)
        return tuple(steps)

    def _value(self, path: KeyPath) -> None:
        self._skip_blank()
        first = self.text[self.at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._members(path, "]")
        elif first == "{":
            self._members(path, "}")
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1

    def _members(self, path: KeyPath, end: str) -> None:
        self.at += 1
        number = 0
        while self._skip_blank() and self.text[self.at] != end:
            if self.text[self.at] == ",":
                self.at += 1
            elif end == "}":
                self._key_and_value(path)
            else:
                self._note((*path, number), self._line())
                self._value((*path, number))
                number += 1
        self.at += 1

    def _string(self) -> None:
        quote = self.text[self.at]
        long = self.text.startswith(quote * 3, self.at)
        self.at += 3 if long else 1
        while not self.text.startswith(quote * 3 if long else quote, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += 3 if long else 1
        while long and self.text.startswith(quote, self.at):  # up to two quotes may stand before the closing three
            self.at += 1

    def _skip_blank(self) -> bool:
        """Pass over blanks and comments; is anything left?"""
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in " \t\n":
                self.at += 1
            else:
                return True
        return False

    def _line(self) -> int:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _note(self, path: KeyPath, line: int) -> None:
        self.lines.setdefault(path, line)
