"""Read structures: what the cycles of a read mean, in fgbio's notation.

``25C10M15S`` says: 25 bases of spatial barcode, 10 of molecular barcode, 15 to skip. The letters are fgbio's operators:
``C`` barcode (here: the spatial one), ``M`` molecular barcode, ``T`` template, ``S`` skip, ``B`` sample barcode.
A kind may come several times (``8C18S6C8M``): its bases are joined in order. The last segment may have ``+`` for
"all the rest", which may be nothing. Source: fgbio wiki, "Read Structures".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from cartoseq.streaming.errors import InputError

_SEGMENT = re.compile(r"([0-9]+|\+)([CMTSB])")
_REMEDY = (
    "A read structure is pairs of a length and one of C (spatial barcode), M (molecular barcode), T (template), "
    "S (skip), B (sample index), such as 25C10M15S; the last length may be + for the rest, such as +T."
)
_LONGEST_READ = 65535


class SegmentKind(StrEnum):
    """What the bases of a segment are."""

    SPATIAL = "C"
    MOLECULAR = "M"
    TEMPLATE = "T"
    SKIP = "S"
    SAMPLE = "B"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a read: its kind, and its length in bases (``None``: the rest of the read)."""

    kind: SegmentKind
    length: int | None

    def __str__(self) -> str:
        return f"{'+' if self.length is None else self.length}{self.kind.value}"


@dataclass(frozen=True, slots=True)
class ReadStructure:
    """What the bases of one read mean, first base first."""

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        notation = str(self)
        if not self.segments:
            raise InputError("read structure", "it is empty", remedy=_REMEDY)
        for number, segment in enumerate(self.segments, start=1):
            if segment.length is None and number < len(self.segments):
                raise InputError(
                    notation, f"{segment} is not the last segment", place=f"segment {number}", remedy=_REMEDY
                )
            if segment.length is not None and not 0 < segment.length <= _LONGEST_READ:
                raise InputError(
                    notation,
                    f"{segment} has a length of {segment.length}, expected 1 to {_LONGEST_READ}",
                    place=f"segment {number}",
                    remedy=_REMEDY,
                )

    @classmethod
    def parse(cls, notation: str) -> ReadStructure:
        """Read the notation.

        Raises:
            InputError: with the notation itself as the source, and the character where it goes wrong.
        """
        segments: list[Segment] = []
        at = 0
        while at < len(notation):
            match = _SEGMENT.match(notation, at)
            if match is None:
                raise InputError(
                    notation,
                    f"expected a length and one of C M T S B, found {notation[at:]!r}",
                    place=f"character {at + 1}",
                    remedy=_REMEDY,
                )
            length, kind = match.groups()
            segments.append(Segment(SegmentKind(kind), None if length == "+" else int(length[:9])))
            at = match.end()
        return cls(tuple(segments))

    def __str__(self) -> str:
        return "".join(str(segment) for segment in self.segments)

    @property
    def minimum_length(self) -> int:
        """Bases that a read must have at least."""
        return sum(segment.length or 0 for segment in self.segments)

    @property
    def fixed_length(self) -> int | None:
        """Bases that a read has, or ``None`` if the last segment takes the rest."""
        return None if self.segments[-1].length is None else self.minimum_length


def rows_of(structures: Sequence[ReadStructure], read_lengths: Sequence[int], kind: SegmentKind) -> NDArray[np.int64]:
    """Find the rows of a block that hold a kind of base.

    Args:
        structures: One per read.
        read_lengths: Cycles of each read. The reads follow each other in the block.
        kind: The kind wanted.

    Returns:
        Row numbers in read order, shape (bases of that kind,); empty if there are none.

    Raises:
        InputError: a read does not fit its structure.
    """
    if len(structures) != len(read_lengths):
        raise InputError(
            " ".join(map(str, structures)),
            f"{len(structures)} read structures for {len(read_lengths)} reads",
            remedy="Give one read structure per read.",
        )
    rows: list[int] = []
    read_start = 0
    for number, (structure, cycles) in enumerate(zip(structures, read_lengths, strict=True), start=1):
        fixed = structure.fixed_length
        if cycles < structure.minimum_length:
            raise InputError(
                str(structure),
                f"read {number} has {cycles} bases, the read structure needs {structure.minimum_length}",
                remedy="Check which read is which, and the lengths.",
            )
        if fixed is not None and cycles > fixed:
            raise InputError(
                str(structure),
                f"read {number} has {cycles} bases, the read structure describes only {fixed}",
                remedy=f"If the rest is not wanted, say so: {structure}+S.",
            )
        row = read_start
        for segment in structure.segments:
            length = segment.length if segment.length is not None else cycles - structure.minimum_length
            if segment.kind is kind:
                rows.extend(range(row, row + length))
            row += length
        read_start += cycles
    return np.array(rows, dtype=np.int64)
