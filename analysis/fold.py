"""The fold: everything that is known of a run is a function of the blocks read so far.

One block at a time goes through the same steps, each a numba kernel with plain arrays in and out: the columns of the
spatial barcode are packed and located on the chip, the molecular barcode is filtered, the template is assigned to a
gene (RNA) or to a genome position (DNA), and the molecule is added to an exact set. What is kept are sums and sets
only, so the order of blocks does not matter, and two folds over the two halves of a log merge into the whole. What
reads say of the genome itself, alleles and junctions, is kept likewise (:mod:`.dnafold`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis import counters as names
from cartoseq.analysis.assign import ASSIGNED, INTRONIC, AssignSettings, assign
from cartoseq.analysis.barcodes import MID_OK, pack_cids, pack_mids
from cartoseq.analysis.dnafold import DnaFold, DnaSettings
from cartoseq.analysis.locate import CORRECTED_N, BarcodeIndex, locate
from cartoseq.analysis.molecules import MoleculeSet, shards_of
from cartoseq.analysis.totals import DenseTotals
from cartoseq.streaming.block import BaseCallBlock
from cartoseq.streaming.errors import RunError
from cartoseq.streaming.kernel import kernel
from cartoseq.streaming.readstructure import ReadStructure, SegmentKind, rows_of

if TYPE_CHECKING:
    from cartoseq.analysis.chip import ChipFrame
    from cartoseq.analysis.loci import Loci
    from cartoseq.analysis.reference import Reference
    from cartoseq.streaming.feed import FeedRecord

UInt8 = NDArray[np.uint8]
UInt32 = NDArray[np.uint32]
UInt64 = NDArray[np.uint64]
Int64 = NDArray[np.int64]

#: The image of located reads has at most this many pixels a side.
LOCATED_PIXELS = 512


@dataclass(frozen=True)
class LibrarySettings:
    """How the reads of one library are to be understood.

    Args:
        name: The library's name in maps and exports.
        layer: What its template tells: expression or genome position.
        structures: One read structure for each read of a cluster.
        mismatches: Substitutions allowed in the spatial barcode: 0 or 1.
        count_intronic: Whether an intronic sense read of one gene enters the map.
        mid_collapse: How molecular barcodes one substitution apart are merged when the map is made.
        assign: How templates are trimmed and assigned.
        window_bp: Width of the genomic windows of a DNA map.
        dna: What counts as evidence of alleles and junctions.
    """

    name: str
    layer: Literal["rna", "dna"]
    structures: tuple[ReadStructure, ...]
    mismatches: int = 1
    count_intronic: bool = True
    mid_collapse: Literal["off", "saw", "greedy"] = "greedy"
    assign: AssignSettings = field(default_factory=AssignSettings)
    window_bp: int = 1_000_000
    dna: DnaSettings = field(default_factory=DnaSettings)

    @property
    def mid_length(self) -> int:
        """Bases of the molecular barcode, 0 where the chemistry has none."""
        return sum(
            segment.length or 0
            for structure in self.structures
            for segment in structure.segments
            if segment.kind is SegmentKind.MOLECULAR
        )


@kernel
def count_calls(calls: UInt8, counts: UInt64) -> None:
    """Count every base-call byte of every cycle.

    Args:
        calls: Base calls, shape (cycles, clusters).
        counts: In and out: how often each byte was seen, shape (cycles or more, 256).
    """
    clusters = np.uint64(calls.shape[1])
    for cycle in range(calls.shape[0]):
        # Four histograms side by side: neighbouring clusters often have the same byte, and adding to the same
        # counter twice in a row waits for the first addition.
        lanes = np.zeros((4, 256), np.uint32)
        row = calls[cycle]
        whole = clusters & ~np.uint64(3)
        i = np.uint64(0)
        while i < whole:
            lanes[0, row[i]] += np.uint32(1)
            lanes[1, row[i + np.uint64(1)]] += np.uint32(1)
            lanes[2, row[i + np.uint64(2)]] += np.uint32(1)
            lanes[3, row[i + np.uint64(3)]] += np.uint32(1)
            i += np.uint64(4)
        while i < clusters:
            lanes[0, row[i]] += np.uint32(1)
            i += np.uint64(1)
        for byte in range(256):
            counts[cycle, byte] += np.uint64(lanes[0, byte] + lanes[1, byte] + lanes[2, byte] + lanes[3, byte])


def _rows_of_calls(calls: UInt8, rows: Int64) -> UInt8:
    """The rows of one kind: where they lie together, as they mostly do, without a copy."""
    if rows.size and int(rows[-1] - rows[0]) == rows.size - 1:
        return calls[rows[0] : rows[-1] + 1]
    return calls[rows]


class LibraryFold:
    """The fold over the blocks of one library.

    Args:
        settings: How the reads are to be understood.
        index: The chip's barcodes.
        frame: The chip's coordinates.
        reference: Genome and genes.
        expected_molecules: For how many molecules to make room at once; 0 grows as needed.
        loci: Known loci, whose alleles are counted; None for none.
    """

    def __init__(
        self,
        settings: LibrarySettings,
        index: BarcodeIndex,
        frame: ChipFrame,
        reference: Reference,
        expected_molecules: int = 0,
        loci: Loci | None = None,
    ) -> None:
        self.settings = settings
        self.index = index
        self.frame = frame
        self.reference = reference
        if settings.layer == "rna":
            feature_bits = max(1, int(len(reference.gene_ids) - 1).bit_length())
        else:
            # Position and strand: a fragment of DNA is known by where its 5' end lies.
            feature_bits = self.position_bits + 1
        self.molecules = MoleculeSet(
            feature_bits, 2 * settings.mid_length, expected_molecules=expected_molecules, shards=shards_of(frame)
        )
        #: Alleles and junctions; None where an RNA library has no known loci.
        self.dna: DnaFold | None = None
        if settings.layer == "dna" or loci is not None:
            self.dna = DnaFold(settings.dna, settings.layer, settings.assign, settings.mid_length, reference, loci)
        self.counters = dict.fromkeys(names.READ_COUNTERS, 0)
        self.call_counts = np.zeros((0, 256), np.uint64)
        self.located_bin = max(1, -(-int(max(frame.width, frame.height)) // LOCATED_PIXELS))
        #: Located reads, and molecules, per bin: the latter for the live view only, as it follows from the set.
        self.located = DenseTotals(frame, self.located_bin)
        self.seen = DenseTotals(frame, self.located_bin)

    @property
    def position_bits(self) -> int:
        """Bits that hold any position of the genome."""
        return max(1, int(self.reference.bases).bit_length())

    def add(self, block: BaseCallBlock) -> None:
        """Fold one block of whole reads into the state."""
        calls = block.calls
        clusters = block.clusters
        self._count_cycles(calls)
        spots, verdicts = self._locate(calls, block.read_lengths)
        tally = np.bincount(verdicts, minlength=len(names.LOCATE_COUNTERS))
        counters = self.counters
        counters["reads_total"] += clusters
        for name, count in zip(names.LOCATE_COUNTERS, tally.tolist(), strict=True):
            counters[name] += count
        counters["located_corrected"] += int(tally[CORRECTED_N])

        located = np.flatnonzero(verdicts <= CORRECTED_N)
        self.located.add(spots[located], np.ones(located.size, np.uint8))
        kept, mids = self._filter_mids(calls, block.read_lengths, located)
        self._assign(calls, block.read_lengths, kept, spots[kept], mids)

    def _rows(self, read_lengths: tuple[int, ...], kind: SegmentKind) -> Int64:
        return rows_of(self.settings.structures, read_lengths, kind)

    def _count_cycles(self, calls: UInt8) -> None:
        missing = calls.shape[0] - self.call_counts.shape[0]
        if missing > 0:
            self.call_counts = np.vstack([self.call_counts, np.zeros((missing, 256), np.uint64)])
        count_calls(calls, self.call_counts)

    def _locate(self, calls: UInt8, read_lengths: tuple[int, ...]) -> tuple[UInt32, UInt8]:
        clusters = calls.shape[1]
        cids = np.empty(clusters, np.uint64)
        n_counts = np.empty(clusters, np.uint8)
        n_positions = np.empty(clusters, np.uint8)
        pack_cids(calls, self._rows(read_lengths, SegmentKind.SPATIAL), cids, n_counts, n_positions)
        spots = np.empty(clusters, np.uint32)
        verdicts = np.empty(clusters, np.uint8)
        locate(cids, n_counts, n_positions, self.index, self.settings.mismatches, spots, verdicts)
        return spots, verdicts

    def _filter_mids(self, calls: UInt8, read_lengths: tuple[int, ...], located: Int64) -> tuple[Int64, UInt64]:
        if self.settings.mid_length == 0:
            return located, np.zeros(located.size, np.uint64)
        mids = np.empty(calls.shape[1], np.uint64)
        verdicts = np.empty(calls.shape[1], np.uint8)
        pack_mids(calls, self._rows(read_lengths, SegmentKind.MOLECULAR), mids, verdicts)
        tally = np.bincount(verdicts[located], minlength=len(names.MID_COUNTERS))
        for name, count in zip(names.MID_COUNTERS[1:], tally[1:].tolist(), strict=True):
            self.counters[name] += count
        kept = located[verdicts[located] == MID_OK]
        return kept, mids[kept]

    def _assign(self, calls: UInt8, read_lengths: tuple[int, ...], kept: Int64, spots: UInt32, mids: UInt64) -> None:
        template = _rows_of_calls(calls, self._rows(read_lengths, SegmentKind.TEMPLATE))
        wanted = np.zeros(calls.shape[1], np.bool_)
        wanted[kept] = True
        found = assign(template, self.reference, self.settings.assign, wanted)
        if self.dna is not None:
            self.dna.add(template, found, kept, spots, mids)
        verdicts = found.verdicts[kept]
        tally = np.bincount(verdicts, minlength=len(names.ASSIGN_COUNTERS))
        counters = self.counters
        for name, count in zip(names.ASSIGN_COUNTERS, tally.tolist(), strict=True):
            counters[name] += count
        counted = verdicts == ASSIGNED
        if self.settings.layer == "dna":
            features = found.positions[kept] | (found.strands[kept].astype(np.uint64) << np.uint64(self.position_bits))
        else:
            features = found.genes[kept].astype(np.uint64)
            if self.settings.count_intronic:
                intronic = int(tally[INTRONIC])
                counters["assigned"] += intronic
                counters["assigned_intronic"] += intronic
                counters["intronic"] -= intronic
                counted |= verdicts == INTRONIC
        spots = spots[counted]
        fresh = np.empty(spots.size, np.uint8)
        self.molecules.add(spots, features[counted], mids[counted], fresh=fresh)
        self.seen.add(spots, fresh)


class Fold:
    """The fold over a run's log: one :class:`LibraryFold` a library, and the position reached.

    Args:
        libraries: The folds, in the order of the libraries' numbers.
        fingerprint: What the result depends on beside the log (settings, chip, references): a state kept with
            another fingerprint is not taken up again.
    """

    def __init__(self, libraries: Sequence[LibraryFold], fingerprint: str) -> None:
        self.libraries = list(libraries)
        self.fingerprint = fingerprint
        #: The log index of the next record; everything before it is in the state.
        self.position = 0
        #: Reads that each ended source says it sent, by the source's number.
        self.ended: dict[int, int] = {}

    def add(self, record: FeedRecord) -> None:
        """Fold one record of the log.

        Raises:
            RunError: the record is not the next one, or belongs to a library that the run does not have.
        """
        if record.index != self.position:
            raise RunError(f"log record {record.index} came where {self.position} was expected: a fault of the feed.")
        if record.block is not None:
            if record.block.library >= len(self.libraries):
                raise RunError(
                    f"log record {record.index} belongs to library number {record.block.library}, "
                    f"but the run has {len(self.libraries)}. Is this log from another run?"
                )
            self.libraries[record.block.library].add(record.block)
        if record.totals is not None:
            self.ended[record.header.source] = int(record.totals["reads"])
        self.position += 1

    @property
    def complete(self) -> bool:
        """Whether every library's source has declared its end."""
        return len(self.ended) == len(self.libraries)

    def check(self) -> None:
        """Hold that every read that a source sent was folded, and that every level of the counters adds up.

        Raises:
            RunError: reads were lost or counted twice: a fault of the program.
        """
        for number, library in enumerate(self.libraries):
            names.check(library.counters, library.settings.name)
            sent = self.ended.get(number)
            if sent is not None and sent != library.counters["reads_total"]:
                raise RunError(
                    f"library {library.settings.name}: the source sent {sent:,} reads but "
                    f"{library.counters['reads_total']:,} were folded: a fault of the program, report it."
                )
