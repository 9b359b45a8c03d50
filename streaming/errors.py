"""Errors that a person reads: what is wrong, in which file, at which place, and what to do.

Every error that Cartoseq raises on purpose is a :class:`CartoseqError`. The command line prints its message
without a traceback and ends with its exit code. Any other exception is a fault of the program itself (exit code 1).
"""

from __future__ import annotations

from pathlib import Path


class CartoseqError(Exception):
    """Something went wrong that the user can understand and act on."""

    #: What the command line ends with.
    exit_code: int = 1


class InputError(CartoseqError):
    """A file or setting that the user gave is missing, malformed or does not fit.

    Args:
        source: The file (or the setting) at fault.
        problem: What was expected and what was found.
        place: Where in the file: "record 17", "line 4, key library[0].genome".
        remedy: What to do about it: a full sentence.
    """

    exit_code = 3

    def __init__(self, source: str | Path, problem: str, *, place: str = "", remedy: str = "") -> None:
        self.source = str(source)
        self.problem = problem
        self.place = place
        self.remedy = remedy
        super().__init__(self.source, problem, place, remedy)

    def __str__(self) -> str:
        where = f"{self.source}: {self.place}: " if self.place else f"{self.source}: "
        end = "" if self.problem.endswith((".", "?", "!")) else "."
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{where}{self.problem}{end}{remedy}"


class RunError(CartoseqError):
    """A run could not go on or did not end well."""

    exit_code = 5


class DiskError(CartoseqError):
    """The disk is full, or refuses to write."""

    exit_code = 7


class CorruptionError(RunError):
    """Data that was safely written no longer reads as it was written; the message names file and offset."""


class VersionError(CartoseqError):
    """A file or a peer speaks a version that this program does not know."""

    exit_code = 9
