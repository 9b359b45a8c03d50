"""Molecules: the exact set of (spot, feature, molecular barcode), with how often each was read.

The set is kept in shards: a shard is a tile of 256 x 256 spots (``spot >> 16``) and owns an open-addressing table of
exact keys. No fingerprint: two molecules are never taken for one, so the set does not depend on the order of the reads,
and sets of parts of a run merge into the set of the whole. A molecule takes a slot of 6.4 bytes (16 where the key is
longer than 52 bits), divided by the fill of its table: at most 0.95.

Layout and search: :mod:`cartoseq.analysis.narrowtable` and :mod:`cartoseq.analysis.widetable`, where also those few
molecules are that the narrow table cannot hold. Copies stop counting at 4,095 (narrow) or 2**32 - 1 (wide).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis import moleculerows, narrowtable, widetable
from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.pages import PAGE_LINES, Pages, ShardPages

if TYPE_CHECKING:
    import h5py

SPOT_BITS = 30
SHARDS = 1 << (SPOT_BITS - moleculerows.LOCAL_BITS)
HISTOGRAM_BINS = narrowtable.COUNT_MAX + 1
"""Copies are counted up to this; the last bin holds that many and all above."""

# A shard that is full grows by this share of itself, on average: more is quicker, less is smaller.
_GROWTH = 1 / 6
_CHECKPOINT_ROWS = 1 << 21
_SORT_BUCKET_BITS = 16


def _growth(shard: int, pages: int) -> float:
    """By which share of itself a full shard grows: not all alike, or all shards of an even chip would grow at once."""
    return _GROWTH * (0.5 + ((shard * 40503 + pages * 9973) & 0xFFFF) / 0x10000)


def _inverse(pages: int) -> int:
    return (1 << narrowtable.KEY_BITS) // (pages * PAGE_LINES)


@dataclass(frozen=True)
class Molecules:
    """Distinct molecules, as arrays of one length, ordered by (feature, spot, MID).

    Attributes:
        spots: Spot numbers, uint32.
        features: Gene number, or strand and position: uint32, or uint64 where a feature has more than 32 bits.
        mids: Packed molecular barcodes, uint64.
        copies: Reads of each molecule, uint32.
    """

    spots: NDArray[np.uint32]
    features: NDArray[Any]
    mids: NDArray[np.uint64]
    copies: NDArray[np.uint32]

    def __len__(self) -> int:
        return int(self.spots.shape[0])


def shards_of(frame: ChipFrame) -> NDArray[np.uint32]:
    """The shards that spots of a chip can lie in, for presizing."""
    if frame.kind is FrameKind.LISTED:
        return np.arange(frame.shards, dtype=np.uint32)
    across, down = -(-frame.width // 256), -(-frame.height // 256)
    shards = np.arange(down, dtype=np.uint32)[:, None] << np.uint32(7) | np.arange(across, dtype=np.uint32)
    return shards.ravel().astype(np.uint32)


class MoleculeSet:
    """Molecules seen so far, exactly; one owner at a time.

    Args:
        feature_bits: Bits of a feature number (16 for up to 65,536 genes; 1 + 32 for strand and position).
        mid_bits: Bits of a molecular barcode, two a base; 0 where there is none. At most 32.
        expected_molecules: Make room for so many at once, and touch the memory now instead of during the run.
        shards: The shards that the expected molecules are spread over evenly: uint32 numbers, all different.
            See :func:`shards_of`. Without it, room
            is made as shards come up.

    Raises:
        ValueError: the key would be longer than 96 bits.
    """

    def __init__(
        self,
        feature_bits: int,
        mid_bits: int,
        *,
        expected_molecules: int = 0,
        shards: NDArray[np.uint32] | None = None,
    ) -> None:
        key_bits = moleculerows.LOCAL_BITS + feature_bits + mid_bits
        if not 0 <= mid_bits <= 32 or not 0 <= feature_bits <= 64 or key_bits > widetable.KEY_BITS:
            raise ValueError(
                f"A molecule's key has {feature_bits} bits of feature and {mid_bits} of MID; "
                f"at most 64 and 32 fit, and {widetable.KEY_BITS - moleculerows.LOCAL_BITS} together."
            )
        self.feature_bits = feature_bits
        self.mid_bits = mid_bits
        self.wide = key_bits > narrowtable.KEY_BITS
        self._words = 2 if self.wide else 1
        self._expected = expected_molecules
        self._expected_shards = shards
        self._clear()
        if expected_molecules and shards is not None and len(shards):
            self._presize(expected_molecules, np.asarray(shards, np.uint32))

    def _clear(self) -> None:
        self._pages = Pages()
        # The molecules with narrow keys, and those with wide ones or spilled from the narrow tables.
        self._narrow = ShardPages(self._pages, 0 if self.wide else SHARDS)
        self._wide = ShardPages(self._pages, SHARDS if self.wide else SHARDS // narrowtable.SPILL_GROUP)
        self._histogram = np.zeros(HISTOGRAM_BINS, np.uint64)
        self._fresh = np.zeros(0, np.uint8)
        # Room for the kernels: rows to spill and their reads, the lines of a shard that grows; and a histogram that
        # takes what is only moved.
        self._spilled = np.zeros((0, 2), np.uint64)
        self._spilled_reads = np.zeros(0, np.int64)
        self._old_lines = np.zeros(0, np.uint64)
        self._nowhere = np.zeros(HISTOGRAM_BINS, np.uint64)
        self._reads = 0

    # ------------------------------------------------------------------------------------------------------- numbers

    @property
    def molecules(self) -> int:
        """Distinct molecules in the set."""
        return int(self._histogram.sum())

    @property
    def reads(self) -> int:
        """Reads added, copies included; exact even where a molecule's copies stopped counting."""
        return self._reads

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the tables take."""
        return self._pages.nbytes + self._narrow.nbytes + self._wide.nbytes

    def copy_histogram(self) -> NDArray[np.uint64]:
        """Molecules by copies: ``[k]`` were read k times, k from 1; the last bin (4,095) holds all above. A copy."""
        return self._histogram.copy()

    def shards(self) -> NDArray[np.int64]:
        """The shards that hold molecules, ascending."""
        return np.flatnonzero((self._wide if self.wide else self._narrow).table[2::4])

    # ---------------------------------------------------------------------------------------------------------- adding

    def add(
        self,
        spots: NDArray[np.uint32],
        features: NDArray[np.uint64],
        mids: NDArray[np.uint64],
        fresh: NDArray[np.uint8] | None = None,
    ) -> int:
        """Count a batch of reads.

        Args:
            spots: uint32, shape (n,).
            features: uint64, shape (n,).
            mids: uint64, shape (n,).
            fresh: Out, where given: 1 for the first read of a molecule, 0 for a further copy; uint8, shape (n,).

        Returns:
            How many of the reads were of new molecules.

        Raises:
            ValueError: the arrays differ in length, or a value has more bits than the key; nothing was added.
        """
        n = spots.shape[0]
        spots = np.ascontiguousarray(spots, np.uint32)
        features = np.ascontiguousarray(features, np.uint64)
        mids = np.ascontiguousarray(mids, np.uint64)
        if features.shape != (n,) or mids.shape != (n,):
            raise ValueError(f"{n} spots, {features.shape[0]} features and {mids.shape[0]} MIDs are no batch of reads.")
        feature_bits, mid_bits = np.uint64(self.feature_bits), np.uint64(self.mid_bits)
        misfit = moleculerows.first_misfit(spots, features, mids, feature_bits, mid_bits)
        if misfit >= 0:
            raise ValueError(
                f"Read {misfit} of the batch (spot {spots[misfit]}, feature {features[misfit]}, MID {mids[misfit]}) "
                f"does not fit {SPOT_BITS}, {self.feature_bits} and {self.mid_bits} bits."
            )
        if fresh is None:
            if self._fresh.shape[0] < n:
                self._fresh = np.zeros(n, np.uint8)
            fresh = self._fresh[:n]
        before = self.molecules
        done = 0
        while done < n:
            if self.wide:
                done = widetable.add_wide(
                    spots, features, mids, done, mid_bits, self._wide.table, self._histogram, fresh
                )
            else:
                done = self._add_narrow(spots, features, mids, done, fresh)
            if done < n:
                self._grow(int(spots[done]) >> moleculerows.LOCAL_BITS)
        self._reads += n
        return self.molecules - before

    def _add_narrow(
        self,
        spots: NDArray[np.uint32],
        features: NDArray[np.uint64],
        mids: NDArray[np.uint64],
        done: int,
        fresh: NDArray[np.uint8],
    ) -> int:
        self._make_spill_room(spots.shape[0])
        reads = self._spilled_reads
        done, spills = narrowtable.add_narrow(
            spots, features, mids, done, np.uint64(self.mid_bits), self._narrow.table, self._histogram, fresh,
            self._spilled, reads,
        )  # fmt: skip
        if spills:
            shards = spots[reads[:spills]] >> np.uint32(moleculerows.LOCAL_BITS)
            new = self._merge_wide(self._spilled[:spills], shards // narrowtable.SPILL_GROUP, self._histogram)
            # One with more copies had a slot before: it has moved, and is not new.
            fresh[reads[:spills]] = new & (self._spilled[:spills, 1].astype(np.uint32) == 1)
        return int(done)

    def _make_spill_room(self, rows: int) -> None:
        if self._spilled.shape[0] < rows:
            self._spilled = np.empty((rows, 2), np.uint64)
            self._spilled_reads = np.empty(rows, np.int64)

    def merge(self, other: MoleculeSet) -> None:
        """Take in another set: molecules of either, copies and reads added. The order of merging does not matter.

        Raises:
            ValueError: the sets have different keys.
        """
        if (self.feature_bits, self.mid_bits) != (other.feature_bits, other.mid_bits):
            raise ValueError(
                f"Keys of {other.feature_bits} + {other.mid_bits} bits do not merge into keys of "
                f"{self.feature_bits} + {self.mid_bits} bits."
            )
        for shard in other.shards():
            self._merge_rows(int(shard), other._rows(int(shard)), self._histogram)
        self._reads += other._reads

    def _merge_rows(self, shard: int, rows: NDArray[np.uint64], histogram: NDArray[np.uint64]) -> None:
        """Add rows of one shard, as :meth:`_rows` gives them."""
        if self.wide:
            self._merge_wide(rows, np.full(rows.shape[0], shard, np.uint32), histogram)
            return
        self._make_spill_room(rows.shape[0])
        done = 0
        while True:
            done, spills = narrowtable.merge_narrow(
                rows[:, 0], done, np.uint64(shard), self._narrow.table, histogram, self._spilled
            )
            self._spill(shard, spills, histogram)
            if done == rows.shape[0]:
                return
            self._grow(shard)

    def _spill(self, shard: int, spills: int, histogram: NDArray[np.uint64]) -> None:
        """Add the rows that a kernel left in the spill buffer, all of one shard."""
        if spills:
            groups = np.full(spills, shard // narrowtable.SPILL_GROUP, np.uint32)
            self._merge_wide(self._spilled[:spills], groups, histogram)

    def _merge_wide(
        self, slots: NDArray[np.uint64], shards: NDArray[np.uint32], histogram: NDArray[np.uint64]
    ) -> NDArray[np.uint8]:
        """Add slots to the wide tables; returned is 1 for each molecule that was not in them."""
        most = np.uint64(widetable.COUNT_MAX if self.wide else narrowtable.COUNT_MAX)
        new = np.empty(slots.shape[0], np.uint8)
        done = 0
        while True:
            done = widetable.merge_wide(slots, shards, done, most, self._wide.table, histogram, new)
            if done == slots.shape[0]:
                return new
            self._grow_wide(int(shards[done]))

    # --------------------------------------------------------------------------------------------------------- memory

    def _presize(self, molecules: int, shards: NDArray[np.uint32]) -> None:
        """Make the tables of the expected shards, all alike, in one piece of memory."""
        share = molecules / len(shards)
        pages = self._pages_for(share + 4.0 * share**0.5)
        self._pages.reserve(len(shards) * pages + (0 if self.wide else len(shards) // narrowtable.SPILL_GROUP + 1))
        for shard in shards.tolist():
            self._renew(shard, pages)

    def _pages_for(self, molecules: float) -> int:
        """Pages of a shard that is to hold so many molecules."""
        if self.wide:
            return int(molecules / (widetable.FILL_LIMIT * widetable.LINE_SLOTS * PAGE_LINES)) + 1
        pages = int(molecules / (narrowtable.FILL_LIMIT * narrowtable.LINE_SLOTS * PAGE_LINES)) + 1
        return max(pages, narrowtable.LEAST_LINES // PAGE_LINES)

    def _renew(self, shard: int, pages: int) -> None:
        """Give a shard an empty table of so many pages."""
        if self.wide:
            limit = int(pages * PAGE_LINES * widetable.LINE_SLOTS * widetable.FILL_LIMIT)
            self._wide.renew(shard, pages, limit)
        else:
            self._narrow.renew(shard, pages, _inverse(pages))

    def _grow(self, shard: int) -> None:
        """Make one shard's table larger by a part; the others stay as they are."""
        if self.wide:
            self._grow_wide(shard)
            return
        pages = self._narrow.count(shard)
        if not pages:
            self._renew(shard, self._pages_for(0))
            return
        self._make_spill_room(self._narrow.used(shard))
        lines = pages * PAGE_LINES
        if self._old_lines.size < 8 * lines:
            self._old_lines = np.empty(16 * lines, np.uint64)
        larger = pages + max(1, int(pages * _growth(shard, pages)))
        self._narrow.extend(shard, larger, _inverse(larger))
        nowhere = self._nowhere
        spills = narrowtable.spread(
            np.uint64(shard), np.uint64(lines), self._narrow.table, self._old_lines, self._spilled
        )
        group = shard // narrowtable.SPILL_GROUP
        if self._wide.used(group):
            mine, others = self._spilled_slots(shard)
            self._renew_wide(group, self._wide.count(group))
            self._merge_wide(others, np.full(others.shape[0], group, np.uint32), nowhere)
            self._spill(shard, spills, nowhere)
            rows = np.empty((mine.shape[0], 1), np.uint64)
            narrowtable.rows_of_spilled(mine, rows[:, 0])
            self._merge_rows(shard, rows, nowhere)
        else:
            self._spill(shard, spills, nowhere)

    def _grow_wide(self, shard: int) -> None:
        pages = self._wide.count(shard)
        slots = self._wide_slots(np.array([shard]))[0]
        self._renew_wide(shard, pages + max(1, int(pages * _GROWTH)))
        self._merge_wide(slots, np.full(slots.shape[0], shard, np.uint32), self._nowhere)

    def _renew_wide(self, shard: int, pages: int) -> None:
        self._wide.renew(shard, pages, int(pages * PAGE_LINES * widetable.LINE_SLOTS * widetable.FILL_LIMIT))

    # -------------------------------------------------------------------------------------------------------- read out

    def _wide_slots(self, shards: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """The slots of some shards in the wide tables, shape (n, 2), and the shard of each."""
        used = int(self._wide.table[2::4][shards].sum())
        slots, shards_out = np.empty((used, 2), np.uint64), np.empty(used, np.uint32)
        widetable.take_out_wide(shards, self._wide.table, slots, shards_out)
        return slots, shards_out

    def _spilled_slots(self, shard: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The wide slots that a shard spilled, and those that others of its group did."""
        group, member = divmod(shard, narrowtable.SPILL_GROUP)
        slots = self._wide_slots(np.array([group]))[0]
        mine, others = np.empty_like(slots), np.empty_like(slots)
        found = widetable.part_members(slots, np.uint64(member), mine, others)
        return mine[:found], others[: slots.shape[0] - found]

    def _rows(self, shard: int) -> NDArray[np.uint64]:
        """The molecules of a shard in no order, shape (n, words); keys as the tables keep them."""
        if self.wide:
            return self._wide_slots(np.array([shard]))[0]
        slots = self._spilled_slots(shard)[0]
        rows = np.empty((self._narrow.used(shard) + slots.shape[0], 1), np.uint64)
        found = narrowtable.take_out(np.uint64(shard), self._narrow.table, rows[:, 0])
        narrowtable.rows_of_spilled(slots, rows[found:, 0])
        return rows[: found + slots.shape[0]]

    def _sorted_rows(self, shard: int) -> NDArray[np.uint64]:
        """The molecules of a shard by (feature, spot, MID), shape (n, words)."""
        rows = self._rows(shard)
        if self.wide:
            return np.ascontiguousarray(rows[np.lexsort((rows[:, 1], rows[:, 0]))])
        narrowtable.turn_back(rows[:, 0], self._feature_shift)
        rows[:, 0].sort()
        return rows

    @property
    def _feature_shift(self) -> np.uint64:
        return np.uint64(moleculerows.LOCAL_BITS + self.mid_bits)

    @property
    def _feature_dtype(self) -> type[np.unsignedinteger[Any]]:
        return np.uint32 if self.feature_bits <= 32 else np.uint64

    def shard_molecules(self, shard: int) -> Molecules:
        """The molecules of one shard, by (feature, spot, MID)."""
        slots = self._sorted_rows(shard)
        n = slots.shape[0]
        part = Molecules(
            np.empty(n, np.uint32), np.empty(n, self._feature_dtype), np.empty(n, np.uint64), np.empty(n, np.uint32)
        )
        moleculerows.unpack(
            slots, np.uint64(shard), np.uint64(self.mid_bits), part.spots, part.features, part.mids, part.copies
        )
        return part

    def feature_spots(self, feature: int) -> NDArray[np.uint32]:
        """The spot of every molecule of one feature, uint32, in no order: what a live map of one gene is drawn from."""
        if self.wide:
            parts = [part.spots[part.features == feature] for part in self.parts()]
            return np.concatenate([np.zeros(0, np.uint32), *parts])
        shards = self.shards()
        spots = np.empty(1 << 20, np.uint32)
        done = found = 0
        bits = np.uint64(self.feature_bits), np.uint64(self.mid_bits)
        while True:
            done, found = narrowtable.find_feature(
                np.uint64(feature), shards, done, *bits, self._narrow.table, spots, found
            )
            if done == shards.shape[0]:
                break
            room = found + max(spots.shape[0], self._narrow.used(int(shards[done])))
            spots = np.concatenate([spots[:found], np.empty(room, np.uint32)])
        slots, groups = self._wide_slots(np.unique(shards // narrowtable.SPILL_GROUP))
        spilled_shards = groups * np.uint32(narrowtable.SPILL_GROUP) + (slots[:, 1] >> np.uint64(32)).astype(np.uint32)
        rows = np.empty(slots.shape[0], np.uint64)
        narrowtable.rows_of_spilled(slots, rows)
        narrowtable.turn_back(rows, self._feature_shift)
        keys = rows >> np.uint64(narrowtable.COUNT_BITS)
        spilled = (spilled_shards << np.uint32(16)) | (keys >> bits[1] & np.uint64(0xFFFF)).astype(np.uint32)
        return np.concatenate((spots[:found], spilled[keys >> self._feature_shift == feature]))

    def parts(self) -> Iterator[Molecules]:
        """The molecules, a shard at a time (ascending): all molecules of a spot are in one part."""
        for shard in self.shards():
            yield self.shard_molecules(int(shard))

    def sorted_molecules(self) -> Molecules:
        """All molecules by (feature, spot, MID), whatever order they came in."""
        n = self.molecules
        shift = np.uint64(max(0, self.feature_bits - _SORT_BUCKET_BITS))
        ends = np.zeros((1 << min(self.feature_bits, _SORT_BUCKET_BITS)) + 1, np.int64)
        for part in self.parts():
            moleculerows.count_buckets(part.features, shift, ends)
        np.cumsum(ends, out=ends)
        whole = Molecules(
            np.empty(n, np.uint32), np.empty(n, self._feature_dtype), np.empty(n, np.uint64), np.empty(n, np.uint32)
        )
        columns = (whole.spots, whole.features, whole.mids, whole.copies)
        for part in self.parts():
            moleculerows.scatter(shift, ends, part.spots, part.features, part.mids, part.copies, *columns)
        if shift:
            moleculerows.sort_buckets(ends[:-1], *columns)
        return whole

    # ------------------------------------------------------------------------------------------------------ checkpoint

    def checkpoint(self, group: h5py.Group) -> None:
        """Write the set into an HDF5 group: the same set, the same bytes, whatever order it was read in.

        Datasets: ``shard`` (uint32) and ``used`` (int64), one row per shard in use; ``slots`` (uint64, shape
        (molecules, words)), the slots of those shards one after the other, sorted. Attributes: ``feature_bits``,
        ``mid_bits``, ``reads``.
        """
        shards = self.shards()
        group.attrs["feature_bits"] = np.int64(self.feature_bits)
        group.attrs["mid_bits"] = np.int64(self.mid_bits)
        group.attrs["reads"] = np.int64(self._reads)
        group.create_dataset("shard", data=shards.astype(np.uint32), track_times=False)
        used = group.create_dataset("used", (len(shards),), np.int64, track_times=False)
        slots = group.create_dataset("slots", (self.molecules, self._words), np.uint64, track_times=False)
        counts = np.empty(len(shards), np.int64)
        row = 0
        waiting: list[NDArray[np.uint64]] = []
        rows_waiting = 0
        for number, shard in enumerate(shards):
            waiting.append(self._sorted_rows(int(shard)))
            counts[number] = waiting[-1].shape[0]
            rows_waiting += waiting[-1].shape[0]
            if rows_waiting >= _CHECKPOINT_ROWS or number == len(shards) - 1:
                slots[row : row + rows_waiting] = np.concatenate(waiting)
                row += rows_waiting
                waiting, rows_waiting = [], 0
        used[...] = counts

    def restore(self, group: h5py.Group) -> None:
        """Become the set that was written; what was in the set before is forgotten.

        Raises:
            ValueError: it was written with other keys, or its parts do not fit each other.
        """
        bits = int(group.attrs["feature_bits"]), int(group.attrs["mid_bits"])
        if bits != (self.feature_bits, self.mid_bits):
            raise ValueError(
                f"The kept keys have {bits[0]} + {bits[1]} bits, not {self.feature_bits} + {self.mid_bits}."
            )
        shards, used = group["shard"][()], group["used"][()]
        slots = group["slots"]
        if shards.shape != used.shape or slots.shape != (int(used.sum()), self._words):
            raise ValueError("The kept molecules are not whole: their shards and slots do not fit each other.")
        self._clear()
        if self._expected and self._expected_shards is not None and len(self._expected_shards):
            self._presize(self._expected, np.asarray(self._expected_shards, np.uint32))
        row = 0
        for shard, count in zip(shards.tolist(), used.tolist(), strict=True):
            if shard >= SHARDS:
                raise ValueError(f"The kept molecules name shard {shard}; there are {SHARDS}.")
            if count > 0 and (self._wide if self.wide else self._narrow).count(shard) < self._pages_for(count):
                self._renew(shard, self._pages_for(count))
            rows = np.ascontiguousarray(slots[row : row + count])
            if not self.wide:
                narrowtable.turn(rows[:, 0], self._feature_shift)
            self._merge_rows(shard, rows, self._histogram)
            row += count
        if self.molecules != row:
            raise ValueError(f"The kept molecules are {self.molecules} different ones, not {row} as they say.")
        self._reads = int(group.attrs["reads"])
