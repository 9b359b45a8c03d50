"""Known loci: single-base variants of a VCF file, where alleles are counted.

A locus is one base of the genome with its reference and one alternative base. Where the file gives phased genotypes,
the first sample's says which haplotype carries the alternative. What is no such variant is left out and counted by its
reason, never silently. A reference base that is not the genome's is an error: the file is of another genome.

Format: VCF 4.x (the hts-specs document VCFv4.4), read by htslib through pysam: plain, bgzip-compressed, or BCF.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.filefaults import gzip_fault
from cartoseq.streaming.errors import InputError

if TYPE_CHECKING:
    from cartoseq.analysis.reference import Reference

UNPHASED: Final = -1
"""Haplotype of a locus that the file does not phase."""
SKIPPED: Final = {
    "other_contig": "on contigs that the genome does not have",
    "not_single_base": "insertions, deletions and others that are no exchange of one base",
    "several_alternatives": "with more than one alternative",
    "unknown_reference": "where the genome's base is not known",
    "given_twice": "at a place that an earlier row has",
}
"""Why a row of the file is no locus: the name of its count, and what a person is told."""

_BASES: Final = "ACGT"
_UNKNOWN: Final = 4
_GZIP_EXTRA: Final = 4
"""The flag of a gzip header with extra fields, which each block of bgzip has."""
_OTHER_GENOME: Final = "Give a VCF of the library's own genome, or the genome that the VCF was made with."


@dataclass(frozen=True)
class Loci:
    """Loci in the order of the genome, all at different places.

    Attributes:
        places: Global position of each in the reference's text, ascending, int64.
        contigs: Contig number, int32.
        positions: Position in the contig, 0-based, int64.
        refs: Reference base, A0 C1 G2 T3, uint8.
        alts: Alternative base, uint8.
        haplotypes: Which haplotype carries the alternative, 0 or 1; UNPHASED where it is not known; int8.
        ids: The file's ID of each, or ``contig:position`` (1-based) where it has none; str.
        skipped: Rows that are no loci, by the reasons of SKIPPED.
    """

    places: NDArray[np.int64]
    contigs: NDArray[np.int32]
    positions: NDArray[np.int64]
    refs: NDArray[np.uint8]
    alts: NDArray[np.uint8]
    haplotypes: NDArray[np.int8]
    ids: NDArray[np.str_]
    skipped: dict[str, int]

    def __len__(self) -> int:
        return int(self.places.size)


def read_loci(path: Path, reference: Reference) -> Loci:
    """Read the loci of a VCF file.

    Args:
        path: The file: .vcf, .vcf.gz or .bcf.
        reference: The genome that it speaks of.

    Raises:
        InputError: the file is missing, damaged or malformed, holds no locus, or is of another genome.
    """
    contigs = {name: number for number, name in enumerate(reference.contig_names)}
    skipped = dict.fromkeys(SKIPPED, 0)
    rows: list[tuple[int, int, int, int, int, int]] = []
    ids: list[str] = []
    for row, record in enumerate(_records(path), start=1):
        contig = contigs.get(record.contig)
        reason = "other_contig" if contig is None else _no_single_base(record)
        if contig is None or reason:
            skipped[reason] += 1
            continue
        if not 0 < record.pos <= int(reference.contig_lengths[contig]):
            problem = f"position {record.pos:,} lies outside {record.contig} of the genome"
            raise InputError(path, problem, place=_place(path, row), remedy=_OTHER_GENOME)
        ref, alt = _BASES.index(record.ref.upper()), _BASES.index(record.alts[0].upper())
        rows.append((row, contig, record.pos - 1, ref, alt, _haplotype(record)))
        ids.append(record.id or f"{record.contig}:{record.pos}")
    table = np.array(rows, np.int64).reshape(len(rows), 6)
    places = reference.contig_offsets[table[:, 1]] + table[:, 2]
    bases = reference.bases_at(places.astype(np.uint64))
    wrong = np.flatnonzero((bases != table[:, 3]) & (bases != _UNKNOWN))
    if wrong.size:
        row, contig, position, ref, *_ = table[wrong[0]].tolist()
        where = f"{reference.contig_names[contig]}:{position + 1:,}"
        problem = f"REF is {_BASES[ref]} at {where}, and the genome has {_BASES[bases[wrong[0]]]} there"
        raise InputError(path, problem, place=_place(path, row), remedy=_OTHER_GENOME)
    order = np.argsort(places, kind="stable")
    known = order[bases[order] != _UNKNOWN]
    skipped["unknown_reference"] = len(rows) - known.size
    kept = known[np.diff(places[known], prepend=-1) > 0]
    skipped["given_twice"] = known.size - kept.size
    if not kept.size:
        problem = f"holds no known locus of this genome ({told(skipped) or 'no rows at all'})"
        raise InputError(path, problem, remedy="Give a VCF of single-base variants of the library's genome.")
    return Loci(
        places=places[kept],
        contigs=table[kept, 1].astype(np.int32),
        positions=table[kept, 2],
        refs=table[kept, 3].astype(np.uint8),
        alts=table[kept, 4].astype(np.uint8),
        haplotypes=table[kept, 5].astype(np.int8),
        ids=np.array(ids, np.str_)[kept],
        skipped=skipped,
    )


def told(skipped: Mapping[str, int]) -> str:
    """Say in words what was left out; empty if nothing was."""
    return "; ".join(f"{skipped[reason]:,} rows {words}" for reason, words in SKIPPED.items() if skipped.get(reason))


def _no_single_base(record: Any) -> str:
    """Why a row is no exchange of one base for one other; empty if it is."""
    alternatives = record.alts or ()
    if len(record.ref) != 1 or record.ref.upper() not in _BASES or not alternatives:
        return "not_single_base"
    if any(len(base) != 1 or base.upper() not in _BASES for base in alternatives):
        return "not_single_base"
    return "several_alternatives" if len(alternatives) > 1 else ""


def _records(path: Path) -> Iterator[Any]:
    """The rows of the file.

    Raises:
        InputError: it is missing, damaged or no VCF.
    """
    import pysam  # a tenth of a second to import, and only needed where there are known loci

    if not path.is_file():
        raise InputError(path, "there is no such file", remedy="Check the path.")
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b" and not head[3] & _GZIP_EXTRA:
        problem = "is compressed with gzip, and htslib reads bgzip only"
        raise InputError(path, problem, remedy="Write it anew: gunzip it, then bgzip it.")
    # htslib would write what it thinks of a file to stderr; the one message is ours.
    before = pysam.set_verbosity(0)
    row = 0
    try:
        with pysam.VariantFile(str(path)) as records:
            for record in records:
                row += 1
                yield record
    except InputError:
        raise
    except (OSError, ValueError, EOFError, NotImplementedError) as error:
        problem = f"is no VCF, or damaged: {gzip_fault(error) if isinstance(error, EOFError) else error}"
        remedy = "Give a sound .vcf, .vcf.gz or .bcf file; bcftools view shows where it breaks off."
        raise InputError(path, problem, place=_place(path, row + 1), remedy=remedy) from None
    finally:
        pysam.set_verbosity(before)


def _haplotype(record: Any) -> int:
    """Which haplotype of the first sample carries the alternative, where it is phased and heterozygous."""
    if not len(record.samples):
        return UNPHASED
    sample = record.samples[0]
    alleles = sample.get("GT") if "GT" in record.format else None
    if alleles is None or not sample.phased or len(alleles) != 2 or sorted(a or 0 for a in alleles) != [0, 1]:
        return UNPHASED
    return 0 if alleles[0] == 1 else 1


def _place(path: Path, row: int) -> str:
    """Where a row stands: its line in a text file, its number in a binary one."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            found = 0
            for number, line in enumerate(lines, start=1):
                found += not line.startswith("#")
                if found == row:
                    return f"line {number}"
    except (OSError, EOFError, UnicodeDecodeError):
        pass
    return f"record {row}"
