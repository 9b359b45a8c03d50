"""What reads say of the genome itself: the part of the fold that keeps alleles at known loci, and junctions.

It sees each block after its templates were placed, and keeps sets only (:mod:`.alleles`, :mod:`.junctions`), so that
any order of blocks gives the same state, and states of parts merge into the state of the whole. A DNA library has
junctions always and alleles where loci are known; an RNA library has alleles only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.alleles import ALLELE_COUNTERS, FRAGMENT_BITS, find_evidence, index_loci
from cartoseq.analysis.assign import Assignments, AssignSettings, arrays_of, assign
from cartoseq.analysis.gcstrata import MOST_FRAGMENT_BP, GcStrata, genome_strata
from cartoseq.analysis.junctions import JUNCTION_COUNTERS, JunctionSet, find_split_reads
from cartoseq.analysis.loci import Loci
from cartoseq.analysis.molecules import MoleculeSet
from cartoseq.analysis.windows import Windows
from cartoseq.streaming.errors import InputError

if TYPE_CHECKING:
    import h5py

    from cartoseq.analysis.reference import Reference

_LEAST_CLIP_ALIGNED: Final = 0.8
"""Share of a clip that must align by itself: what is left is mostly what both sides of a break share."""


@dataclass(frozen=True)
class DnaSettings:
    """What counts as evidence.

    Attributes:
        least_confidence: Of a read's place, 0 to 60.
        least_base_quality: Of a call on a known locus (Phred).
        least_clip_bases: Shorter clips are not looked up.
        least_span_bp: Break ends of one contig that are nearer are no junction.
        most_junction_molecules: Of more, a sample is kept.
        gc_fragment_bp: Bases of the genome whose GC a fragment has.
    """

    least_confidence: int = 10
    least_base_quality: int = 10
    least_clip_bases: int = 20
    least_span_bp: int = 1000
    most_junction_molecules: int = 1 << 22
    gc_fragment_bp: int = 200

    def __post_init__(self) -> None:
        if not 1 <= self.least_confidence <= 60:
            raise InputError("least_confidence", f"expected 1-60, got {self.least_confidence}")
        if not 0 <= self.least_base_quality <= 63:
            raise InputError("least_base_quality", f"expected 0-63, got {self.least_base_quality}")
        if self.least_clip_bases < 10:
            raise InputError("least_clip_bases", f"expected at least 10, got {self.least_clip_bases}")
        if self.least_span_bp < 1 or self.most_junction_molecules < 1:
            raise InputError("least_span_bp, most_junction_molecules", "expected at least 1")
        if not 20 <= self.gc_fragment_bp <= MOST_FRAGMENT_BP:
            raise InputError("gc_fragment_bp", f"expected 20-{MOST_FRAGMENT_BP}, got {self.gc_fragment_bp}")


class DnaFold:
    """Alleles and junctions of one library.

    Args:
        settings: What counts as evidence.
        layer: The library's layer.
        assign_settings: How its templates are placed.
        mid_length: Bases of its molecular barcode, 0 without one.
        reference: The genome.
        loci: Known loci, if any.
    """

    def __init__(
        self,
        settings: DnaSettings,
        layer: Literal["rna", "dna"],
        assign_settings: AssignSettings,
        mid_length: int,
        reference: Reference,
        loci: Loci | None,
    ) -> None:
        self.settings = settings
        self.mid_length = mid_length
        self.reference = reference
        self.loci = loci
        self.counters: dict[str, int] = {}
        #: Evidence on known loci: features are locus << 2 | base.
        self.alleles: MoleculeSet | None = None
        if loci is not None:
            self._index = index_loci(loci, reference.bases)
            bits = max(1, (len(loci) - 1).bit_length()) + 2
            self.alleles = MoleculeSet(bits, 2 * mid_length if mid_length else FRAGMENT_BITS)
            self.counters |= dict.fromkeys(ALLELE_COUNTERS, 0)
        self.junctions: JunctionSet | None = None
        if layer == "dna":
            self.junctions = JunctionSet(settings.most_junction_molecules)
            self.counters |= dict.fromkeys(JUNCTION_COUNTERS, 0)
        self._clip_settings = replace(
            assign_settings,
            min_aligned_bases=settings.least_clip_bases,
            min_aligned_fraction=_LEAST_CLIP_ALIGNED,
            min_seen_difference=0,
        )
        self._text = arrays_of(reference)[0]
        self._genome: GcStrata | None = None

    def add(
        self,
        calls: NDArray[np.uint8],
        found: Assignments,
        kept: NDArray[np.int64],
        spots: NDArray[np.uint32],
        mids: NDArray[np.uint64],
    ) -> None:
        """Take in a block.

        Args:
            calls: BCL bytes of the template, shape (bases, clusters).
            found: Where the templates lie.
            kept: The clusters that count, shape (n,).
            spots: The spot of each kept cluster, uint32.
            mids: The molecular barcode of each, uint64.
        """
        settings = self.settings
        if self.alleles is not None:
            evidence = find_evidence(
                calls,
                kept,
                found,
                self._index,
                self._text,
                settings.least_confidence,
                settings.least_base_quality,
                self.counters,
            )
            names = self._names(mids, evidence.rows, evidence.fragments)
            self.alleles.add(spots[evidence.rows], evidence.features, names)
        if self.junctions is not None:
            split = find_split_reads(
                calls,
                kept,
                found,
                lambda clips: assign(clips, self.reference, self._clip_settings),
                self.reference.contig_offsets,
                settings.least_confidence,
                settings.least_clip_bases,
                settings.least_span_bp,
                self.counters,
            )
            self.junctions.add(split, spots[split.rows], self._names(mids, split.rows, split.fragments))

    def _names(
        self, mids: NDArray[np.uint64], rows: NDArray[np.int64], fragments: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """What tells molecules of one spot apart: their barcodes, or the fragments themselves."""
        return mids[rows] if self.mid_length else fragments

    def merge(self, other: DnaFold) -> None:
        """Take in the state of another part of the same library; the order of merging does not matter."""
        for name in self.counters:
            self.counters[name] += other.counters[name]
        if self.alleles is not None and other.alleles is not None:
            self.alleles.merge(other.alleles)
        if self.junctions is not None and other.junctions is not None:
            self.junctions.merge(other.junctions)

    def checkpoint(self, group: h5py.Group) -> None:
        """Write the state into an HDF5 group: the same state, the same bytes."""
        group.attrs["counters"] = json.dumps(self.counters)
        if self.alleles is not None:
            self.alleles.checkpoint(group.create_group("alleles"))
        if self.junctions is not None:
            self.junctions.checkpoint(group.create_group("junctions"))

    def restore(self, group: h5py.Group) -> None:
        """Become the state that was written."""
        self.counters.update(json.loads(group.attrs["counters"]))
        if self.alleles is not None:
            self.alleles.restore(group["alleles"])
        if self.junctions is not None:
            self.junctions.restore(group["junctions"])

    def strata(self, windows: Windows) -> GcStrata:
        """The genome's GC strata, to count fragments into.

        Args:
            windows: The same at every call: the genome is looked through once.
        """
        if self._genome is None:
            self._genome = genome_strata(self.reference, windows, self.settings.gc_fragment_bp)
        known = self._genome
        return replace(
            known, fragments=np.zeros_like(known.fragments), window_fragments=np.zeros_like(known.window_fragments)
        )
