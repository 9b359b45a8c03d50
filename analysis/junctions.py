"""Junctions: where a read leaves one place of the genome and goes on at another, as evidence of rearrangements.

A read that lies at one place with a part of it, and whose clipped rest, placed by itself, lies at one other place, is a
*split read*: it names two break ends. A break end is the last base before the break and the side on which the read's
DNA lies: LEFT of the break (the read runs up to it along the genome) or RIGHT. The two are put in order by place, so
that reads of both strands name the same junction. Within a contig, LEFT-RIGHT is a deletion, RIGHT-LEFT a duplication,
LEFT-LEFT and RIGHT-RIGHT are inversions (the four orientations of VCF's BND records).

There is one template in a cluster, so there are no discordant pairs: split reads are the only evidence. A read whose
two parts are equally long has two places and is none (three reads in a hundred, at 100 bases).

What is kept is a set: (pair of bins of 1,024 bases, sides, spot, molecule), with its reads and the least pair of places
that they named. It is bounded. When it outgrows the bound, only those whose hash begins with a zero bit stay, then two,
and so on: what stays is a fair sample, and which one depends on the set alone, not on the order of reads, so parts of a
run merge into the state of the whole. The rate is kept and shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.assign import ASSIGNED, Assignments
from cartoseq.analysis.chip import ChipFrame
from cartoseq.analysis.packed import signed
from cartoseq.analysis.pieces import last_called
from cartoseq.analysis.reference import CONTIG_GAP
from cartoseq.streaming.kernel import kernel

if TYPE_CHECKING:
    import h5py

LEFT: Final = 0
"""The read's DNA lies left of the break: at the break end and at smaller positions."""
RIGHT: Final = 1
JUNCTION_COUNTERS: Final = ("clipped_reads", "clips_placed", "clips_near", "split_reads")
"""Reads with a long clip; those whose clip has one place; of these, too near to the rest; and the split reads."""
BIN_SHIFT: Final = 10
SAME_BREAK_BP: Final = 50
"""Break ends of two molecules within so many bases are one: what both sides share is cut off now here, now there."""
_UINT32: Final = np.uint64(0xFFFFFFFF)
_COMPACT_ROWS: Final = 1 << 16


@dataclass(frozen=True)
class SplitReads:
    """Split reads, as arrays of one length.

    Attributes:
        rows: Which of the kept reads, int64.
        places: Global positions of both break ends, ascending, int64, shape (n, 2).
        sides: LEFT or RIGHT of each, uint8, shape (n, 2).
        fragments: How many of the read's bases lie before the break << 1 | whether it begins at the second break end:
            the fragment's name where it has no barcode; uint64.
    """

    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    sides: NDArray[np.uint8]
    fragments: NDArray[np.uint64]


def find_split_reads(
    calls: NDArray[np.uint8],
    kept: NDArray[np.int64],
    found: Assignments,
    place: Callable[[NDArray[np.uint8]], Assignments],
    contig_offsets: NDArray[np.int64],
    least_confidence: int,
    least_clip: int,
    least_span_bp: int,
    counters: dict[str, int],
) -> SplitReads:
    """Find the split reads of a block.

    Args:
        calls: BCL bytes of the template, shape (bases, clusters).
        kept: The clusters to look at, shape (n,).
        found: Where the templates of the block lie.
        place: Places templates: the second pass.
        contig_offsets: Global position of each contig's first base.
        least_confidence: Of both places.
        least_clip: Least bases of a clip.
        least_span_bp: Break ends of one contig that are nearer are a gap, not a junction.
        counters: In and out: those of JUNCTION_COUNTERS.
    """
    begins, ends = np.zeros(kept.size, np.int64), np.zeros(kept.size, np.int64)
    long_clips(
        calls, kept, found.verdicts, found.confidence, found.aligned_from, found.aligned_to, least_confidence,
        least_clip, begins, ends,
    )  # fmt: skip
    rows = np.flatnonzero(ends)
    counters["clipped_reads"] += rows.size
    if not rows.size:
        return _no_split_reads()
    clips = np.zeros((calls.shape[0], rows.size), np.uint8)
    copy_clips(calls, kept[rows], begins[rows], ends[rows], clips)
    second = place(clips)
    sure = (second.verdicts == ASSIGNED) & (second.confidence >= least_confidence)
    sure &= second.positions == second.far_positions
    counters["clips_placed"] += int(sure.sum())
    rows = rows[sure]
    split = _break_ends(kept[rows], rows, begins[rows], found, Assignments(*(column[sure] for column in second)))
    contigs = np.searchsorted(contig_offsets - CONTIG_GAP // 2, split.places, side="right")
    far = (contigs[:, 0] != contigs[:, 1]) | (split.places[:, 1] - split.places[:, 0] >= least_span_bp)
    counters["clips_near"] += int((~far).sum())
    counters["split_reads"] += int(far.sum())
    return SplitReads(split.rows[far], split.places[far], split.sides[far], split.fragments[far])


def _no_split_reads() -> SplitReads:
    return SplitReads(
        np.zeros(0, np.int64), np.zeros((0, 2), np.int64), np.zeros((0, 2), np.uint8), np.zeros(0, np.uint64)
    )


def _break_ends(
    reads: NDArray[np.int64],
    rows: NDArray[np.int64],
    clip_begins: NDArray[np.int64],
    found: Assignments,
    second: Assignments,
) -> SplitReads:
    """Name the two break ends of reads whose clip, beginning at some base, was placed by itself."""
    whole = _aligned(found, reads, np.zeros(reads.size, np.int64))
    clip = _aligned(second, np.arange(reads.size), clip_begins)
    clip_first = (clip_begins < found.aligned_from[reads])[:, None]
    # Begin, end, line and strand of the parts before and after the break.
    before, after = np.where(clip_first, clip, whole), np.where(clip_first, whole, clip)
    last, first = before[:, 1] - 1, after[:, 0]
    place_before = before[:, 2] + np.where(before[:, 3] == 1, -last, last)
    place_after = after[:, 2] + np.where(after[:, 3] == 1, -first, first)
    side_before = np.where(before[:, 3] == 1, RIGHT, LEFT)
    side_after = np.where(after[:, 3] == 1, LEFT, RIGHT)
    turned = 2 * place_before + side_before > 2 * place_after + side_after
    places = np.stack([place_before, place_after], axis=1)
    sides = np.stack([side_before, side_after], axis=1).astype(np.uint8)
    places[turned], sides[turned] = places[turned][:, ::-1], sides[turned][:, ::-1]
    fragments = (before[:, 1].astype(np.uint64) << np.uint64(1)) | turned.astype(np.uint64)
    return SplitReads(rows, places, sides, fragments)


def _aligned(found: Assignments, reads: NDArray[np.int64], shift: NDArray[np.int64]) -> NDArray[np.int64]:
    """Begin, end, line and strand of reads that were placed without their first `shift` bases; shape (n, 4)."""
    strands = found.strands[reads].astype(np.int64)
    lines = found.positions[reads].astype(np.int64) + np.where(strands == 1, shift, -shift)
    begins, ends = (column[reads].astype(np.int64) + shift for column in (found.aligned_from, found.aligned_to))
    return np.stack([begins, ends, lines, strands], axis=1)


@kernel
def long_clips(
    calls: NDArray[np.uint8],
    kept: NDArray[np.int64],
    verdicts: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
    aligned_from: NDArray[np.uint16],
    aligned_to: NDArray[np.uint16],
    least_confidence: int,
    least_clip: int,
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> None:
    """Find the longer clip of each read that lies at one place.

    Args:
        calls: BCL bytes of the template, shape (bases, clusters).
        kept: Clusters, shape (n,).
        verdicts: Of each cluster, as are the three that follow: from `assign`.
        confidence: uint8.
        aligned_from: uint16.
        aligned_to: uint16.
        least_confidence: Reads with less are passed over.
        least_clip: Shorter clips are passed over.
        begins: Out: first base of the clip.
        ends: Out: one beyond its last; 0 where there is none.
    """
    bases = calls.shape[0]
    for row in range(kept.size):
        read = kept[row]
        begins[row], ends[row] = 0, 0
        if verdicts[read] != ASSIGNED or confidence[read] < least_confidence:
            continue
        head, to = signed(aligned_from[read]), signed(aligned_to[read])
        if head >= least_clip:
            ends[row] = head
        if bases - to >= max(least_clip, head):
            end = last_called(calls, read)
            if end - to >= max(least_clip, head):
                begins[row], ends[row] = to, end


@kernel
def copy_clips(
    calls: NDArray[np.uint8],
    reads: NDArray[np.int64],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    clips: NDArray[np.uint8],
) -> None:
    """Copy the clips of some reads into a block of their own.

    Args:
        calls: BCL bytes, shape (bases, clusters).
        reads: Clusters, shape (n,).
        begins: First base of each clip.
        ends: One beyond its last.
        clips: Out: BCL bytes, shape (bases, n), no-calls where nothing is written.
    """
    for column in range(reads.size):
        for base in range(begins[column], ends[column]):
            clips[base - begins[column], column] = calls[base, reads[column]]


class JunctionSet:
    """The molecules that name a junction, up to a bound.

    Args:
        bound: Most molecules that are kept.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        #: Molecules stay whose hash begins with so many zero bits: one in 2**level.
        self.level = 0
        # Key (two words), least pair of places, reads.
        self._rows: NDArray[np.uint64] = np.zeros((0, 4), np.uint64)
        self._waiting: list[NDArray[np.uint64]] = []
        self._waiting_rows = 0

    @property
    def rows(self) -> NDArray[np.uint64]:
        """The set in order, uint64, shape (molecules, 4).

        Columns: bin of the first break end << 24, bin of the second << 2, their sides in the two lowest bits;
        spot << 32 and the molecule; place << 32 of the first break end and place of the second; reads.
        """
        self._compact()
        return self._rows

    def add(self, split: SplitReads, spots: NDArray[np.uint32], molecules: NDArray[np.uint64]) -> None:
        """Add split reads.

        Args:
            split: Their break ends.
            spots: The spot of each, uint32.
            molecules: Barcode of each, or its fragment's name, less than 2**32, uint64.
        """
        places = split.places.astype(np.uint64)
        bins = places >> np.uint64(BIN_SHIFT)
        sides = split.sides.astype(np.uint64)
        junctions = (bins[:, 0] << np.uint64(24)) | (bins[:, 1] << np.uint64(2)) | (sides[:, 0] << np.uint64(1))
        keys = (spots.astype(np.uint64) << np.uint64(32)) | molecules
        pairs = (places[:, 0] << np.uint64(32)) | places[:, 1]
        self._take(np.stack([junctions | sides[:, 1], keys, pairs, np.ones_like(keys)], axis=1), 0)

    def merge(self, other: JunctionSet) -> None:
        """Take in another set of the same bound; the order of merging does not matter.

        Raises:
            ValueError: the bounds differ.
        """
        if self.bound != other.bound:
            raise ValueError(f"A set of at most {other.bound} molecules does not merge into one of {self.bound}.")
        self._take(other.rows, other.level)

    def checkpoint(self, group: h5py.Group) -> None:
        """Write the set into an HDF5 group: the same set, the same bytes."""
        group.create_dataset("rows", data=self.rows, track_times=False)
        group.attrs["level"] = np.int64(self.level)

    def restore(self, group: h5py.Group) -> None:
        """Become the set that was written."""
        self._rows = np.asarray(group["rows"][()], np.uint64)
        self.level = int(group.attrs["level"])
        self._waiting, self._waiting_rows = [], 0

    def _take(self, rows: NDArray[np.uint64], level: int) -> None:
        self.level = max(self.level, level)
        self._waiting.append(rows)
        self._waiting_rows += rows.shape[0]
        if self._waiting_rows > max(_COMPACT_ROWS, self._rows.shape[0] // 2):
            self._compact()

    def _compact(self) -> None:
        """Join equal rows, and thin the set out until it is within its bound."""
        if not self._waiting:
            return
        rows = np.concatenate([self._rows, *self._waiting])
        self._waiting, self._waiting_rows = [], 0
        rows = rows[_zero_bits(rows) >= self.level]
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        if rows.shape[0]:
            new = np.ones(rows.shape[0], np.bool_)
            new[1:] = (rows[1:, :2] != rows[:-1, :2]).any(axis=1)
            starts = np.flatnonzero(new)
            least, reads = np.minimum.reduceat(rows[:, 2], starts), np.add.reduceat(rows[:, 3], starts)
            rows = np.column_stack([rows[starts, :2], least, reads])
        zero_bits = _zero_bits(rows)
        while rows.shape[0] > self.bound:
            self.level += 1
            rows, zero_bits = rows[zero_bits >= self.level], zero_bits[zero_bits >= self.level]
        self._rows = rows


def _zero_bits(rows: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many zero bits the hash of each key begins with (a mix of both words, after splitmix64)."""
    mixed = rows[:, 0] * np.uint64(0x9E3779B97F4A7C15) + rows[:, 1]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    bits = np.zeros(rows.shape[0], np.int64)
    for width in (32, 16, 8, 4, 2, 1):
        empty = mixed >> np.uint64(64 - width) == 0
        bits += width * empty
        mixed = np.where(empty, mixed << np.uint64(width), mixed)
    return bits


@dataclass(frozen=True)
class Junctions:
    """Junctions and where they were seen; those that most molecules show first.

    Attributes:
        contigs: Contig numbers of both break ends, int32, shape (junctions, 2).
        positions: Their positions in these, 0-based, the median of the molecules, int64, shape (junctions, 2).
        sides: LEFT or RIGHT of each, uint8, shape (junctions, 2).
        molecules: Distinct molecules of each junction, uint32.
        offsets: Rows ``offsets[k]`` to ``offsets[k + 1]`` below belong to junction k, int64, shape (junctions + 1,).
        x: Chip coordinate of each row, by (y, x) within a junction: int32 on a lattice, float64 on a listed frame.
        y: As x.
        spot_molecules: Molecules of the junction at this spot, uint32.
        spot_reads: Their reads, uint32.
        sampling: Which share of the molecules is in the table: 1, unless there were more than the bound.
    """

    contigs: NDArray[np.int32]
    positions: NDArray[np.int64]
    sides: NDArray[np.uint8]
    molecules: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    x: NDArray[Any]
    y: NDArray[Any]
    spot_molecules: NDArray[np.uint32]
    spot_reads: NDArray[np.uint32]
    sampling: float


def draw_junctions(seen: JunctionSet, contig_offsets: NDArray[np.int64], frame: ChipFrame) -> Junctions:
    """Bring the molecules together to junctions: those whose break ends lie within SAME_BREAK_BP of each other.

    Args:
        seen: The set.
        contig_offsets: Global position of each contig's first base.
        frame: Where the spots are.
    """
    rows = seen.rows
    places = np.stack([rows[:, 2] >> np.uint64(32), rows[:, 2] & _UINT32], axis=1).astype(np.int64)
    sides = (rows[:, 0] & np.uint64(3)).astype(np.int64)
    spots, molecules = (rows[:, 1] >> np.uint64(32)).astype(np.uint32), rows[:, 1] & _UINT32
    group = _linked(sides, places[:, 0], places[:, 1])
    group = _linked(group, places[:, 1], places[:, 0])
    x, y = frame.coordinates(spots)
    order = np.lexsort((molecules, x, y, group))
    unsorted = group
    group, x, y, reads = group[order], x[order], y[order], rows[order, 3]
    new_row = _changes(group) | _changes(x) | _changes(y)
    # A molecule whose reads named two neighbouring bins is one.
    new_molecule = (new_row | _changes(molecules[order])).astype(np.uint32)
    starts, firsts = np.flatnonzero(new_row), np.flatnonzero(_changes(group))
    row_molecules = _sums(new_molecule, starts)
    totals = _sums(new_molecule, firsts)
    sizes = np.diff(np.append(firsts, group.size))
    medians = np.stack(
        [places[np.lexsort((places[:, side], unsorted))][firsts + sizes // 2, side] for side in range(2)], axis=1
    )
    rank = np.lexsort((medians[:, 1], medians[:, 0], -totals.astype(np.int64)))
    # The rows of each junction, in the order of the junctions' ranks.
    bounds = np.searchsorted(starts, np.append(firsts, group.size))
    lengths = np.diff(bounds)[rank]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    take = np.repeat(bounds[:-1][rank] - offsets[:-1], lengths) + np.arange(int(offsets[-1]))
    contigs = np.searchsorted(contig_offsets - CONTIG_GAP // 2, medians[rank], side="right") - 1
    ranked_sides = sides[order][firsts][rank]
    return Junctions(
        contigs=contigs.astype(np.int32),
        positions=medians[rank] - contig_offsets[contigs],
        sides=np.stack([ranked_sides >> 1, ranked_sides & 1], axis=1).astype(np.uint8),
        molecules=totals[rank],
        offsets=offsets,
        x=x[starts][take],
        y=y[starts][take],
        spot_molecules=row_molecules[take],
        spot_reads=_sums(reads, starts)[take],
        sampling=0.5**seen.level,
    )


def _linked(group: NDArray[np.int64], places: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the chains of places within each group in which one is at most SAME_BREAK_BP from the next."""
    order = np.lexsort((others, places, group))
    new = _changes(group[order])
    new[1:] |= np.diff(places[order]) > SAME_BREAK_BP
    numbers = np.empty(group.size, np.int64)
    numbers[order] = np.cumsum(new)
    return numbers


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before; the first does."""
    changed = np.ones(values.shape[0], np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed


def _sums(values: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Sums of the runs that begin at `starts`, at most 2**32 - 1."""
    if not starts.size:
        return np.zeros(0, np.uint32)
    return np.minimum(np.add.reduceat(values.astype(np.uint64), starts), _UINT32).astype(np.uint32)
