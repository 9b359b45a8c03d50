"""Alleles at known loci: which base each molecule shows, spot by spot.

Of each read at one place, every base on a known locus is kept as evidence if the place and the call are sure enough.
The evidence is an exact set (:mod:`.molecules`): (spot, locus, base, molecule), and how many reads said so; thus it
does not depend on the order of reads, and parts merge.

**What a molecule is.** With a molecular barcode: (spot, locus, barcode). The library's own key for DNA holds the
fragment's end as well; here it is left out, since pieces of one tagged molecule may end at different places, and two
molecules of one spot that share a locus and a barcode of ten bases are a chance of one in a million. Without a barcode,
the fragment's end and strand stand for it, counted from the locus: the library's own key.

When drawn, barcodes one substitution apart collapse as the library's do (within one base: a barcode and the allele are
seldom both misread), and each molecule gets the base that most of its reads show; a tie is no call. The base itself is
kept, not whether it is the reference's: both views follow from it.

The same rules as Drop-seq's GenotypeSperm (mapping quality, base quality, reads and barcodes per locus and cell) give
the same counts; see tests/acceptance/test_real_alleles.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.alignment import BAND
from cartoseq.analysis.assign import Assignments
from cartoseq.analysis.chip import ChipFrame
from cartoseq.analysis.loci import Loci
from cartoseq.analysis.molecules import Molecules
from cartoseq.analysis.packed import Text, signed
from cartoseq.analysis.pieces import BEGIN, END, LINE, MAX_PIECES, pieces_of_read
from cartoseq.streaming.kernel import kernel

BASES: Final = "ACGT"
ALLELE_COUNTERS: Final = ("locus_bases", "locus_bases_low_quality", "locus_reads_unresolved")
"""Bases on loci that were counted; those of too low quality; reads over loci that lie on more than two lines."""
FRAGMENT_BITS: Final = 12
"""Bits of a fragment's name where there is no barcode: its end, counted from the locus, and its strand."""
_FURTHEST: Final = (1 << (FRAGMENT_BITS - 1)) - 1
_BLOCK_SHIFT: Final = 10


@dataclass(frozen=True)
class LocusIndex:
    """Loci as the kernel looks them up.

    Attributes:
        places: Global positions, ascending, int64.
        first_of_block: First locus in each block of 1,024 bases or later, uint32.
    """

    places: NDArray[np.int64]
    first_of_block: NDArray[np.uint32]


def index_loci(loci: Loci, bases: int) -> LocusIndex:
    """Make the index of loci in a text of so many bases."""
    blocks = np.arange((bases >> _BLOCK_SHIFT) + 2, dtype=np.int64) << _BLOCK_SHIFT
    return LocusIndex(loci.places, np.searchsorted(loci.places, blocks).astype(np.uint32))


@dataclass(frozen=True)
class Evidence:
    """Bases on loci, one row each.

    Attributes:
        rows: Which of the kept reads, int64.
        features: locus << 2 | base (A0 C1 G2 T3, of the genome's forward strand), uint64.
        fragments: End of the fragment from the locus << 1 | strand, uint64.
    """

    rows: NDArray[np.int64]
    features: NDArray[np.uint64]
    fragments: NDArray[np.uint64]


def find_evidence(
    calls: NDArray[np.uint8],
    kept: NDArray[np.int64],
    found: Assignments,
    index: LocusIndex,
    text: Text,
    least_confidence: int,
    least_quality: int,
    counters: dict[str, int],
) -> Evidence:
    """Find the bases of a block that lie on known loci.

    Args:
        calls: BCL bytes of the template, shape (bases, clusters).
        kept: The clusters to look at, shape (n,).
        found: Where the templates of the block lie.
        index: The loci.
        text: The genome.
        least_confidence: Of the place.
        least_quality: Of the base call.
        counters: In and out: those of ALLELE_COUNTERS.
    """
    near = np.empty(kept.size, np.int64)
    count = reads_near_loci(
        kept, found.positions, found.far_positions, found.strands, found.confidence, calls.shape[0], index.places,
        index.first_of_block, least_confidence, near,
    )  # fmt: skip
    tally = np.zeros(len(ALLELE_COUNTERS), np.int64)
    room = 4 * count + 64
    pieces = np.zeros((MAX_PIECES, 3), np.int64)
    while True:
        rows, features = np.empty(room, np.int64), np.empty(room, np.uint64)
        fragments = np.empty(room, np.uint64)
        tally[:] = 0
        size = read_loci_bases(
            calls, kept, near[:count], found.positions, found.far_positions, found.strands, found.aligned_from,
            found.aligned_to, index.places, index.first_of_block, text, least_quality, pieces, rows, features,
            fragments, tally,
        )  # fmt: skip
        if size <= room:
            break
        room = size
    for name, number in zip(ALLELE_COUNTERS, tally.tolist(), strict=True):
        counters[name] += number
    return Evidence(rows[:size], features[:size], fragments[:size])


@kernel
def reads_near_loci(
    kept: NDArray[np.int64],
    positions: NDArray[np.uint64],
    far_positions: NDArray[np.uint64],
    strands: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
    bases: int,
    places: NDArray[np.int64],
    first_of_block: NDArray[np.uint32],
    least_confidence: int,
    near: NDArray[np.int64],
) -> int:
    """Find the kept reads that a locus may lie on.

    Args:
        kept: Clusters, shape (n,).
        positions: Of each cluster, as are far_positions, strands and confidence: from `assign`.
        far_positions: uint64.
        strands: uint8.
        confidence: uint8.
        bases: Longest template.
        places: Loci, ascending.
        first_of_block: First locus of each block.
        least_confidence: Reads with less are passed over.
        near: Out: their rows in `kept`.

    Returns:
        How many there are.
    """
    count = 0
    blocks = first_of_block.size
    for row in range(kept.size):
        read = kept[row]
        if confidence[read] < least_confidence:
            continue
        hit = False
        for side in range(2):
            line = signed(positions[read]) if side == 0 else signed(far_positions[read])
            low = max(0, (line - bases if strands[read] else line) - BAND)
            high = low + bases + 2 * BAND
            i = signed(first_of_block[min(low >> _BLOCK_SHIFT, blocks - 1)])
            while i < places.size and places[i] < low:
                i += 1
            if i < places.size and places[i] < high:
                hit = True
        if hit:
            near[count] = row
            count += 1
    return count


@kernel
def read_loci_bases(
    calls: NDArray[np.uint8],
    kept: NDArray[np.int64],
    near: NDArray[np.int64],
    positions: NDArray[np.uint64],
    far_positions: NDArray[np.uint64],
    strands: NDArray[np.uint8],
    aligned_from: NDArray[np.uint16],
    aligned_to: NDArray[np.uint16],
    places: NDArray[np.int64],
    first_of_block: NDArray[np.uint32],
    text: Text,
    least_quality: int,
    pieces: NDArray[np.int64],
    rows: NDArray[np.int64],
    features: NDArray[np.uint64],
    fragments: NDArray[np.uint64],
    tally: NDArray[np.int64],
) -> int:
    """Read the bases that lie on loci.

    Args:
        calls: BCL bytes of the template, shape (bases, clusters).
        kept: Clusters.
        near: Rows of `kept` to look at.
        positions: Of each cluster, as are the four that follow: from `assign`.
        far_positions: uint64.
        strands: uint8.
        aligned_from: uint16.
        aligned_to: uint16.
        places: Loci, ascending.
        first_of_block: First locus of each block.
        text: The genome.
        least_quality: Calls of less are counted and passed over.
        pieces: Scratch, int64, shape (MAX_PIECES, 3).
        rows: Out, as are the next two, as far as there is room: `Evidence`.
        features: Out.
        fragments: Out.
        tally: In and out: ALLELE_COUNTERS.

    Returns:
        How many bases there are, which may be more than there is room for.
    """
    size = 0
    for n in range(near.size):
        read = kept[near[n]]
        reverse = signed(strands[read])
        start = signed(positions[read])
        pieces_of_read(
            calls, read, start, signed(far_positions[read]), reverse, signed(aligned_from[read]),
            signed(aligned_to[read]), text, pieces,
        )  # fmt: skip
        resolved = False
        for p in range(MAX_PIECES):
            begin, end, line = pieces[p, BEGIN], pieces[p, END], pieces[p, LINE]
            if end <= begin:
                continue
            resolved = True
            low = max(0, line - end + 1 if reverse else line + begin)
            high = line - begin + 1 if reverse else line + end
            i = signed(first_of_block[min(low >> _BLOCK_SHIFT, first_of_block.size - 1)])
            while i < places.size and places[i] < low:
                i += 1
            while i < places.size and places[i] < high:
                base = line - places[i] if reverse else places[i] - line
                call = calls[base, read]
                if call == np.uint8(0) or signed(call >> np.uint8(2)) < least_quality:
                    tally[1] += 1
                else:
                    tally[0] += 1
                    if size < rows.size:
                        code = signed(call & np.uint8(3))
                        code = 3 - code if reverse else code
                        away = min(abs(places[i] - start), _FURTHEST)
                        rows[size] = near[n]
                        features[size] = (np.uint64(i) << np.uint64(2)) | np.uint64(code)
                        fragments[size] = (np.uint64(away) << np.uint64(1)) | np.uint64(reverse)
                    size += 1
                i += 1
        if not resolved:
            tally[2] += 1
    return size


@dataclass(frozen=True)
class Alleles:
    """Alleles per locus and spot; rows by locus, then (y, x).

    Attributes:
        offsets: Rows ``offsets[k]`` to ``offsets[k + 1]`` belong to locus k, int64, shape (loci + 1,).
        x: Chip coordinate of each row: int32 on a lattice, float64 on a listed frame.
        y: As x.
        molecules: Molecules that show A, C, G and T, uint32, shape (rows, 4).
        undecided: Molecules whose reads show two bases equally often, uint32, shape (rows,).
        reads: Reads that show A, C, G and T, uint32, shape (rows, 4).
    """

    offsets: NDArray[np.int64]
    x: NDArray[Any]
    y: NDArray[Any]
    molecules: NDArray[np.uint32]
    undecided: NDArray[np.uint32]
    reads: NDArray[np.uint32]

    @property
    def loci(self) -> NDArray[np.int64]:
        """The locus of each row, int64."""
        return np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))

    def of(self, refs: NDArray[np.uint8], alts: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """Molecules of the reference's base, the alternative and others, uint32, shape (rows, 3).

        Args:
            refs: Reference base of each locus, A0 C1 G2 T3.
            alts: Alternative base of each locus.
        """
        rows, loci = np.arange(self.x.shape[0]), self.loci
        ref, alt = self.molecules[rows, refs[loci]], self.molecules[rows, alts[loci]]
        return np.stack([ref, alt, self.molecules.sum(axis=1, dtype=np.uint32) - ref - alt], axis=1)


def draw_alleles(parts: Iterable[Molecules], loci: int, frame: ChipFrame) -> Alleles:
    """Count molecules per locus, spot and base.

    Args:
        parts: The evidence, all of a spot in one part, barcodes collapsed; features are locus << 2 | base.
        loci: How many loci there are.
        frame: Where the spots are.
    """
    shapes: list[tuple[NDArray[Any], ...]] = [
        (np.zeros(0, np.int64), np.zeros(0, np.uint32), np.zeros((0, 9), np.uint64))
    ]
    shapes += [_count_part(part) for part in parts if len(part)]
    locus, spot, counts = (np.concatenate(columns) for columns in zip(*shapes, strict=True))
    x, y = frame.coordinates(spot)
    order = np.lexsort((x, y, locus))
    counts = np.minimum(counts[order], np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return Alleles(
        offsets=np.searchsorted(locus[order], np.arange(loci + 1)).astype(np.int64),
        x=x[order],
        y=y[order],
        molecules=np.ascontiguousarray(counts[:, :4]),
        undecided=np.ascontiguousarray(counts[:, 4]),
        reads=np.ascontiguousarray(counts[:, 5:]),
    )


def _count_part(part: Molecules) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint64]]:
    """Loci, spots, and the counts of each: molecules of four bases, undecided ones, reads of four bases."""
    features = part.features.astype(np.int64)
    loci, bases = features >> 2, features & 3
    order = np.lexsort((part.mids, part.spots, loci))
    loci, bases, spots, mids = loci[order], bases[order], part.spots[order], part.mids[order]
    new_row = _changes(loci) | _changes(spots)
    new_molecule = new_row | _changes(mids)
    molecule = np.cumsum(new_molecule) - 1
    reads = np.zeros((int(molecule[-1]) + 1, 4), np.uint64)
    reads[molecule, bases] = part.copies[order]
    most = reads.max(axis=1)
    tied = (reads == most[:, None]).sum(axis=1) > 1
    firsts = np.flatnonzero(new_molecule)
    counts = np.zeros((reads.shape[0], 9), np.uint64)
    counts[np.arange(reads.shape[0]), np.where(tied, 4, reads.argmax(axis=1))] = 1
    counts[:, 5:] = reads
    starts = np.flatnonzero(new_row[firsts])
    rows = np.flatnonzero(new_row)
    return loci[rows], spots[rows], np.add.reduceat(counts, starts, axis=0)


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before; the first does."""
    changed = np.ones(values.size, np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed
