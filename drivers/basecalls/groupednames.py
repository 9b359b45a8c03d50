"""Stereo-seq's grouped FASTQ: the spatial barcode (CID) and the molecular barcode (MID) in the read's name.

``@FP300000513L1C002R00400000218 CE242DF29A57 97D26``: 12 hexadecimal digits are 24 bases of CID (files split by the
CID's first bases), 13 are 25 bases; the MID has 5 digits for 10 bases, and leading zeros may be dropped. The sequencer
writes this form instead of read 1; what is left as FASTQ is the cDNA.

The MID's code is known from published examples: A0 C1 G2 T3, the first base in the highest bits. No document says the
CID's in these names. There are four candidates, two alphabets by two orders (:class:`GroupedCodec`), and the right one
shows itself: under it the barcodes are found on the chip (:func:`detect_grouped_codec`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cartoseq.drivers.basecalls.fastqbytes import fill_coded_calls, read_hex_words
from cartoseq.drivers.basecalls.fastqfile import FastqFile, place_of_record
from cartoseq.drivers.basecalls.growing import Follow
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.readstructure import ReadStructure, SegmentKind

INVENTED_QUALITY = 40
"""The names hold no qualities: every base of CID and MID is given this one."""

DETECTION_READS = 10_000
_LOWEST_HIT_RATE = 0.05
_LEAST_LEAD = 4.0


@dataclass(frozen=True, slots=True)
class GroupedCodec:
    """How the hexadecimal CID of a read's name stands for bases.

    Attributes:
        alphabet: The bases of the codes 0 to 3: "ACTG" or "ACGT".
        first_base_is_low: Whether the first base is in the lowest bits of the number; otherwise in the highest.
    """

    alphabet: str
    first_base_is_low: bool

    def __post_init__(self) -> None:
        if self.alphabet not in ("ACTG", "ACGT"):
            raise InputError("grouped codec", f"the alphabet is {self.alphabet!r}", remedy="It must be ACTG or ACGT.")

    @classmethod
    def parse(cls, text: str) -> GroupedCodec:
        """Read a codec as the configuration writes it, such as ``ACTG-first-low``.

        Raises:
            InputError: it is none of the four.
        """
        for codec in CODECS:
            if text == str(codec):
                return codec
        raise InputError("grouped codec", f"found {text!r}", remedy=f"It must be one of {', '.join(map(str, CODECS))}.")

    def __str__(self) -> str:
        return f"{self.alphabet}-first-{'low' if self.first_base_is_low else 'high'}"

    def decode(self, value: int, bases: int) -> str:
        """Spell out the bases that a number stands for."""
        order = range(bases) if self.first_base_is_low else reversed(range(bases))
        return "".join(self.alphabet[value >> 2 * i & 3] for i in order)


CODECS = tuple(GroupedCodec(alphabet, low) for alphabet in ("ACTG", "ACGT") for low in (True, False))
"""All codecs that a CID in a read's name may have."""


@dataclass(frozen=True, slots=True)
class GroupedNames:
    """What the names of a grouped FASTQ file hold.

    Attributes:
        codec: The CID's codec.
        cid_length: Bases of the CID: 25, or 24 in files split by the first bases.
        mid_length: Bases of the MID.
    """

    codec: GroupedCodec
    cid_length: int = 25
    mid_length: int = 10

    def __post_init__(self) -> None:
        for what, length in (("CID", self.cid_length), ("MID", self.mid_length)):
            if not 1 <= length <= 32:
                raise InputError("grouped names", f"the {what} has {length} bases", remedy="It must have 1 to 32.")

    @property
    def length(self) -> int:
        """Bases that the names hold: those of the CID and of the MID."""
        return self.cid_length + self.mid_length

    @property
    def digits(self) -> NDArray[np.int64]:
        """The most hexadecimal digits that CID and MID may have, int64, shape (2,)."""
        return np.array([(self.cid_length + 1) // 2, (self.mid_length + 1) // 2], dtype=np.int64)

    def check(self, structure: ReadStructure) -> None:
        """Check that a read structure begins with the CID and the MID of the names.

        Raises:
            InputError: it does not.
        """
        expected = f"{self.cid_length}C{self.mid_length}M"
        begin = [(segment.kind, segment.length) for segment in structure.segments[:2]]
        if begin != [(SegmentKind.SPATIAL, self.cid_length), (SegmentKind.MOLECULAR, self.mid_length)]:
            raise InputError(
                str(structure),
                f"the names hold {expected}, so the read structure must begin with that",
                remedy=f"Write it as CID and MID of the name, then the bases of the file: {expected}100T.",
            )

    def fill(self, file: FastqFile, count: int, calls: NDArray[np.uint8], column: int) -> int:
        """Turn the CID and the MID of the next records' names into base calls.

        Args:
            file: The file whose next ``count`` available records to take.
            count: Number of records.
            calls: Out: BCL bytes, uint8, shape (at least ``length``, clusters), C-contiguous.
            column: Column of the first record.

        Returns:
            How many were well before the first whose name has no such words: ``count`` if all were.
        """
        values = np.empty((2, count), dtype=np.uint64)
        well = read_hex_words(file.text, file.records, file.first, count, self.digits, values)
        well = fill_coded_calls(
            values[0],
            well,
            self.cid_length,
            self.codec.alphabet == "ACTG",
            self.codec.first_base_is_low,
            INVENTED_QUALITY,
            calls,
            0,
            column,
        )
        return fill_coded_calls(
            values[1], well, self.mid_length, False, False, INVENTED_QUALITY, calls, self.cid_length, column
        )

    def explain(self, file: FastqFile, index: int) -> InputError:
        """Say what is wrong with the name of a record (an index into ``file.records``)."""
        return InputError(
            file.path,
            f"the name {file.name(index).decode('ascii', 'backslashreplace')!r} does not end in the hexadecimal "
            f"digits of a CID of {self.cid_length} bases and a MID of {self.mid_length}",
            place=place_of_record(file.taken + index - file.first + 1),
            remedy="12 digits are 24 bases, 13 are 25. If the file is not of the grouped form, give both reads.",
        )


def detect_grouped_codec(
    paths: Sequence[Path],
    hit_rate: Callable[[NDArray[np.uint64]], float],
    *,
    cid_length: int = 25,
    mid_length: int = 10,
    follow: Follow | None = None,
) -> GroupedCodec:
    """Find out the CID's codec from the first 10,000 reads.

    Args:
        paths: The grouped FASTQ files.
        hit_rate: Given packed CIDs (two bits a base, A0 C1 T2 G3, the first base lowest; uint64, shape (n,)), the
            fraction of them that the chip has.
        cid_length: Bases of the CID.
        mid_length: Bases of the MID.
        follow: The files may be growing: how to wait for the first reads.

    Returns:
        The codec under which most CIDs are on the chip.

    Raises:
        InputError: under no codec, or under several, does the chip have them; or a file is at fault.
        RunError: waiting for a followed file was stopped.
    """
    values = np.concatenate([np.empty(0, dtype=np.uint64), *_name_cids(paths, cid_length, mid_length, follow)])
    if values.size == 0:
        raise InputError("grouped FASTQ", "no files were given", remedy="Give at least one file.")
    rates = {codec: hit_rate(pack_as_chip(values, cid_length, codec)) for codec in CODECS}
    (best, rate), (_, second), *_ = sorted(rates.items(), key=lambda item: -item[1])
    if rate < _LOWEST_HIT_RATE or rate < _LEAST_LEAD * second:
        found = ", ".join(f"{codec}: {100 * rate:.2f} %" for codec, rate in rates.items())
        raise InputError(
            paths[0],
            f"no reading of the CIDs in the names fits this chip (found of the first {values.size:,}: {found})",
            remedy="Check that this is the chip of this library, and the CID's length; or name the codec.",
        )
    return best


def pack_as_chip(values: NDArray[np.uint64], bases: int, codec: GroupedCodec) -> NDArray[np.uint64]:
    """Turn CIDs as the names have them into two bits a base, A0 C1 T2 G3, the first base lowest.

    Args:
        values: Numbers of the names, uint64, shape (n,).
        bases: Bases of the CID.
        codec: What they stand for.

    Returns:
        Packed CIDs, uint64, shape (n,).
    """
    packed = np.zeros_like(values)
    for base in range(bases):
        shift = base if codec.first_base_is_low else bases - 1 - base
        code = values >> np.uint64(2 * shift) & np.uint64(3)
        if codec.alphabet == "ACGT":
            code ^= code >> np.uint64(1)
        packed |= code << np.uint64(2 * base)
    return packed


def _name_cids(
    paths: Sequence[Path], cid_length: int, mid_length: int, follow: Follow | None
) -> Iterator[NDArray[np.uint64]]:
    names = GroupedNames(CODECS[0], cid_length, mid_length)
    wanted = DETECTION_READS
    for path in paths:
        if wanted == 0:
            # A followed file that is not needed may be hours away.
            break
        with closing(FastqFile(path, follow)) as file:
            while wanted > 0 and file.more():
                count = min(wanted, file.available)
                values = np.empty((2, count), dtype=np.uint64)
                well = read_hex_words(file.text, file.records, file.first, count, names.digits, values)
                if well < count:
                    raise names.explain(file, file.first + well)
                yield values[0]
                wanted -= count
                file.take(count)
