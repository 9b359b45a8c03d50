"""What a library says of the genome, in memory and in ``maps.h5``: alleles at known loci, junctions, GC strata.

All of it lies in one group of the library, ``dna``; each part is there where the library has it. Layout:
docs/formats/maps.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.alleles import Alleles
from cartoseq.analysis.gcstrata import GcStrata
from cartoseq.analysis.junctions import Junctions
from cartoseq.analysis.loci import Loci

if TYPE_CHECKING:
    import h5py
    import polars as pl

    from cartoseq.analysis.chip import ChipFrame


@dataclass(frozen=True)
class LocusTable:
    """Known loci, in the order of the genome.

    Attributes:
        ids: Names of the loci, str.
        contigs: Names of their contigs, str.
        positions: Positions in these, 0-based, int64.
        refs: Reference base, A0 C1 G2 T3, uint8.
        alts: Alternative base, uint8.
        haplotypes: Which haplotype carries the alternative, 0 or 1; -1 where it is not known; int8.
        skipped: Rows of the file that are no loci, by reason (``analysis.loci.SKIPPED``).
    """

    ids: NDArray[np.str_]
    contigs: NDArray[np.str_]
    positions: NDArray[np.int64]
    refs: NDArray[np.uint8]
    alts: NDArray[np.uint8]
    haplotypes: NDArray[np.int8]
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DnaEvidence:
    """What a library says of the genome; parts that it does not have are None.

    Attributes:
        contig_names: Contigs of the genome, which junctions number, str.
        loci: Known loci.
        alleles: Molecules of each base at each locus and spot.
        junctions: Where reads leave one place and go on at another.
        gc: Fragments by the GC of their place.
        counters: What became of the bases on loci and of the clipped reads, by name.
    """

    contig_names: NDArray[np.str_]
    loci: LocusTable | None = None
    alleles: Alleles | None = None
    junctions: Junctions | None = None
    gc: GcStrata | None = None
    counters: Mapping[str, int] = field(default_factory=dict)


def locus_table(loci: Loci, contig_names: NDArray[np.str_]) -> LocusTable:
    """Loci with the names of their contigs."""
    contigs = contig_names[loci.contigs]
    return LocusTable(loci.ids, contigs, loci.positions, loci.refs, loci.alts, loci.haplotypes, loci.skipped)


def allele_frame(evidence: DnaEvidence) -> pl.DataFrame:
    """Alleles as a table, a row for each locus and spot with evidence.

    Columns: ``contig``, ``position`` (1-based, as in the VCF), ``id``, ``ref``, ``alt``, ``haplotype``, ``x``, ``y``,
    ``ref_molecules``, ``alt_molecules``, ``other_molecules``, ``undecided_molecules``, ``A_reads`` to ``T_reads``,
    ``A_molecules`` to ``T_molecules``.

    Args:
        evidence: Of one library.

    Raises:
        ValueError: it has no known loci.
    """
    import polars as pl

    loci, alleles = evidence.loci, evidence.alleles
    if loci is None or alleles is None:
        raise ValueError("This library has no known loci.")
    rows = alleles.loci
    letters = np.array(list("ACGT"))
    sums = alleles.of(loci.refs, loci.alts)
    columns: dict[str, Any] = {
        "contig": loci.contigs[rows],
        "position": loci.positions[rows] + 1,
        "id": loci.ids[rows],
        "ref": letters[loci.refs[rows]],
        "alt": letters[loci.alts[rows]],
        "haplotype": loci.haplotypes[rows],
        "x": alleles.x,
        "y": alleles.y,
        "ref_molecules": sums[:, 0],
        "alt_molecules": sums[:, 1],
        "other_molecules": sums[:, 2],
        "undecided_molecules": alleles.undecided,
    }
    for kind, values in (("reads", alleles.reads), ("molecules", alleles.molecules)):
        columns |= {f"{letter}_{kind}": values[:, code] for code, letter in enumerate("ACGT")}
    return pl.DataFrame(columns, schema_overrides=dict.fromkeys(("contig", "id", "ref", "alt"), pl.String))


def write_evidence(group: h5py.Group, evidence: DnaEvidence, frame: ChipFrame) -> None:
    """Write the evidence into an HDF5 group of its own: the same evidence, the same bytes."""
    for name in sorted(evidence.counters):
        group.attrs[name] = np.int64(evidence.counters[name])
    group.create_dataset("contig", data=_encoded(evidence.contig_names), track_times=False)
    coordinate = np.int32 if frame.kind == "lattice" else np.float64
    if evidence.loci is not None:
        loci = group.create_group("loci")
        for reason in sorted(evidence.loci.skipped):
            loci.attrs[reason] = np.int64(evidence.loci.skipped[reason])
        _write_columns(loci, evidence.loci, coordinate)
    for name in ("alleles", "junctions", "gc"):
        table = getattr(evidence, name)
        if table is not None:
            _write_columns(group.create_group(name), table, coordinate)


def read_evidence(group: h5py.Group) -> DnaEvidence:
    """Read what :func:`write_evidence` wrote."""
    loci = group.get("loci")
    return DnaEvidence(
        contig_names=_decoded(group["contig"][()]),
        loci=None
        if loci is None
        else LocusTable(**_columns(loci, LocusTable), skipped={key: int(value) for key, value in loci.attrs.items()}),
        alleles=Alleles(**_columns(group["alleles"], Alleles)) if "alleles" in group else None,
        junctions=Junctions(**_columns(group["junctions"], Junctions)) if "junctions" in group else None,
        gc=GcStrata(**_columns(group["gc"], GcStrata)) if "gc" in group else None,
        counters={key: int(value) for key, value in group.attrs.items()},
    )


def _write_columns(group: h5py.Group, table: Any, coordinate: type[np.generic]) -> None:
    """Write the arrays of a table as datasets of their names, and its numbers as attributes."""
    for column in fields(table):
        values = getattr(table, column.name)
        if isinstance(values, Mapping):
            continue
        if not isinstance(values, np.ndarray):
            group.attrs[column.name] = np.float64(values) if isinstance(values, float) else np.int64(values)
            continue
        if column.name in ("x", "y"):
            values = values.astype(coordinate, copy=False)
        encoded = _encoded(values) if values.dtype.kind == "U" else values
        group.create_dataset(column.name, data=encoded, track_times=False)


def _columns(group: h5py.Group, kind: type[Any]) -> dict[str, Any]:
    """The arrays and numbers of a table, by name."""
    columns: dict[str, Any] = {}
    for column in fields(kind):
        if column.name in group:
            values = group[column.name][()]
            columns[column.name] = _decoded(values) if values.dtype.kind == "S" else values
        elif column.name in group.attrs:
            columns[column.name] = group.attrs[column.name].item()
    return columns


def _encoded(names: NDArray[np.str_]) -> NDArray[np.bytes_]:
    encoded = [str(name).encode() for name in names]
    return np.array(encoded, dtype=f"S{max((len(name) for name in encoded), default=1) or 1}")


def _decoded(names: NDArray[np.bytes_]) -> NDArray[np.str_]:
    return np.array([bytes(name).decode() for name in names], dtype=np.str_)
