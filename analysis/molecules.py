"""Molecules: the exact set of (spot, feature, molecular barcode), with how often each was read.

The set is kept in shards: a shard is a tile of 256 x 256 spots (``spot >> 16``) and owns an open-addressing table of
exact keys. No fingerprint: two molecules are never taken for one, so the set does not depend on the order of the reads,
and sets of parts of a run merge into the set of the whole. A molecule takes 8 bytes (16 where the key is longer than
52 bits), divided by the fill of its table: at most 0.9, about 0.85 where the number of molecules was known beforehand.

Layout and search: :mod:`cartoseq.analysis.moleculetable`. Copies stop counting at 4,095 (narrow) or 2**32 - 1 (wide).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis import moleculetable as tables
from cartoseq.analysis.arena import Arena
from cartoseq.analysis.chip import ChipFrame, FrameKind

if TYPE_CHECKING:
    import h5py

SPOT_BITS = 30
SHARDS = 1 << (SPOT_BITS - tables.LOCAL_BITS)

_FILL_LIMIT = 0.9
_FILL_PLANNED = 0.85
_GROWTH = 1.5
_SMALLEST_BUCKETS = 8
_CHECKPOINT_ROWS = 1 << 21
_SORT_BUCKET_BITS = 16


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
        key_bits = tables.LOCAL_BITS + feature_bits + mid_bits
        if not 0 <= mid_bits <= 32 or not 0 <= feature_bits <= 64 or key_bits > tables.WIDE_KEY_BITS:
            raise ValueError(
                f"A molecule's key has {feature_bits} bits of feature and {mid_bits} of MID; "
                f"at most 64 and 32 fit, and {tables.WIDE_KEY_BITS - tables.LOCAL_BITS} together."
            )
        self.feature_bits = feature_bits
        self.mid_bits = mid_bits
        self.wide = key_bits > tables.NARROW_KEY_BITS
        self._words = 2 if self.wide else 1
        self._bucket_slots = tables.WIDE_BUCKET if self.wide else tables.NARROW_BUCKET
        self._expected = expected_molecules
        self._expected_shards = shards
        self._clear()
        if expected_molecules and shards is not None and len(shards):
            self._presize(expected_molecules, np.asarray(shards, np.uint32))

    def _clear(self) -> None:
        self._table = np.zeros(SHARDS * 4, np.uint64)
        self._arena = Arena()
        self._histogram = np.zeros(tables.HISTOGRAM_BINS, np.uint64)
        self._fresh = np.zeros(0, np.uint8)
        self._reads = 0

    # ------------------------------------------------------------------------------------------------------- numbers

    @property
    def molecules(self) -> int:
        """Distinct molecules in the set."""
        return int(self._table[2::4].sum())

    @property
    def reads(self) -> int:
        """Reads added, copies included; exact even where a molecule's copies stopped counting."""
        return self._reads

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the tables take."""
        return self._table.nbytes + self._arena.nbytes

    def copy_histogram(self) -> NDArray[np.uint64]:
        """Molecules by copies: ``[k]`` were read k times, k from 1; the last bin (4,095) holds all above. A copy."""
        return self._histogram.copy()

    def shards(self) -> NDArray[np.int64]:
        """The shards that hold molecules, ascending."""
        return np.flatnonzero(self._table[2::4])

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
        misfit = tables.first_misfit(spots, features, mids, feature_bits, mid_bits)
        if misfit >= 0:
            raise ValueError(
                f"Read {misfit} of the batch (spot {spots[misfit]}, feature {features[misfit]}, MID {mids[misfit]}) "
                f"does not fit {SPOT_BITS}, {self.feature_bits} and {self.mid_bits} bits."
            )
        if fresh is None:
            if self._fresh.shape[0] < n:
                self._fresh = np.zeros(n, np.uint8)
            fresh = self._fresh[:n]
        before = self._histogram_total
        add = tables.add_wide if self.wide else tables.add_narrow
        done = 0
        while True:
            done = add(spots, features, mids, done, mid_bits, self._table, self._histogram, fresh)
            if done == n:
                break
            self._grow(int(spots[done]) >> tables.LOCAL_BITS)
        self._reads += n
        return self._histogram_total - before

    @property
    def _histogram_total(self) -> int:
        return int(self._histogram.sum())

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
            self._merge_slots(int(shard), other._slots(int(shard)))
        self._reads += other._reads

    def _merge_slots(self, shard: int, slots: NDArray[np.uint64]) -> None:
        merge = tables.merge_wide if self.wide else tables.merge_narrow
        done = 0
        while True:
            done = merge(slots, done, np.uint64(shard), self._table, self._histogram)
            if done == slots.shape[0]:
                return
            self._grow(shard)

    # --------------------------------------------------------------------------------------------------------- memory

    def _presize(self, molecules: int, shards: NDArray[np.uint32]) -> None:
        """Make the tables of the expected shards, all alike, in one piece of memory."""
        share = molecules / len(shards)
        slots = share / _FILL_PLANNED + 4.0 * share**0.5
        buckets = max(_SMALLEST_BUCKETS, -(-int(slots) // self._bucket_slots))
        self._arena.reserve(len(shards) * buckets)
        for shard in shards:
            self._place(int(shard), self._arena.take(buckets), buckets)

    def _grow(self, shard: int) -> None:
        """Move one shard into a table half as large again; the others stay as they are."""
        address, buckets = int(self._table[4 * shard]), int(self._table[4 * shard + 1])
        slots = self._slots(shard)
        larger = max(_SMALLEST_BUCKETS, int(buckets * _GROWTH) + 1) if buckets else _SMALLEST_BUCKETS
        if buckets:
            self._arena.give(address, buckets)
        self._place(shard, self._arena.take(larger), larger)
        tables.move_in(slots, np.uint64(shard), self._table)

    def _place(self, shard: int, address: int, buckets: int) -> None:
        limit = int(buckets * self._bucket_slots * _FILL_LIMIT)
        self._table[4 * shard : 4 * shard + 4] = (address, buckets, 0, limit)

    # -------------------------------------------------------------------------------------------------------- read out

    def _slots(self, shard: int) -> NDArray[np.uint64]:
        """The used slots of a shard in table order, shape (used, words)."""
        slots = np.empty((int(self._table[4 * shard + 2]), self._words), np.uint64)
        tables.compact(np.uint64(shard), self._table, slots)
        return slots

    def _sorted_slots(self, shard: int) -> NDArray[np.uint64]:
        """The used slots of a shard by (feature, spot, MID), shape (used, words)."""
        slots = self._slots(shard)
        if self.wide:
            return np.ascontiguousarray(slots[np.lexsort((slots[:, 1], slots[:, 0]))])
        slots[:, 0].sort()
        return slots

    @property
    def _feature_dtype(self) -> type[np.unsignedinteger[Any]]:
        return np.uint32 if self.feature_bits <= 32 else np.uint64

    def shard_molecules(self, shard: int) -> Molecules:
        """The molecules of one shard, by (feature, spot, MID)."""
        slots = self._sorted_slots(shard)
        n = slots.shape[0]
        part = Molecules(
            np.empty(n, np.uint32), np.empty(n, self._feature_dtype), np.empty(n, np.uint64), np.empty(n, np.uint32)
        )
        tables.unpack(
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
        shift = np.uint64(tables.LOCAL_BITS + self.mid_bits)
        while True:
            done, found = tables.find_feature(np.uint64(feature), shards, done, shift, self._table, spots, found)
            if done == shards.shape[0]:
                return spots[:found].copy()
            room = found + max(spots.shape[0], int(self._table[4 * int(shards[done]) + 2]))
            spots = np.concatenate([spots[:found], np.empty(room, np.uint32)])

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
            tables.count_buckets(part.features, shift, ends)
        np.cumsum(ends, out=ends)
        whole = Molecules(
            np.empty(n, np.uint32), np.empty(n, self._feature_dtype), np.empty(n, np.uint64), np.empty(n, np.uint32)
        )
        columns = (whole.spots, whole.features, whole.mids, whole.copies)
        for part in self.parts():
            tables.scatter(shift, ends, part.spots, part.features, part.mids, part.copies, *columns)
        if shift:
            tables.sort_buckets(ends[:-1], *columns)
        return whole

    # ------------------------------------------------------------------------------------------------------ checkpoint

    def checkpoint(self, group: h5py.Group) -> None:
        """Write the set into an HDF5 group: the same set, the same bytes, whatever order it was read in.

        Datasets: ``shard`` (uint32) and ``used`` (int64), one row per shard in use; ``slots`` (uint64, shape
        (molecules, words)), the slots of those shards one after the other, sorted. Attributes: ``feature_bits``,
        ``mid_bits``, ``reads``.
        """
        shards = self.shards()
        used = self._table[2::4][shards].astype(np.int64)
        group.attrs["feature_bits"] = np.int64(self.feature_bits)
        group.attrs["mid_bits"] = np.int64(self.mid_bits)
        group.attrs["reads"] = np.int64(self._reads)
        group.create_dataset("shard", data=shards.astype(np.uint32), track_times=False)
        group.create_dataset("used", data=used, track_times=False)
        slots = group.create_dataset("slots", (int(used.sum()), self._words), np.uint64, track_times=False)
        row = 0
        waiting: list[NDArray[np.uint64]] = []
        rows_waiting = 0
        for number, shard in enumerate(shards):
            waiting.append(self._sorted_slots(int(shard)))
            rows_waiting += waiting[-1].shape[0]
            if rows_waiting >= _CHECKPOINT_ROWS or number == len(shards) - 1:
                slots[row : row + rows_waiting] = np.concatenate(waiting)
                row += rows_waiting
                waiting, rows_waiting = [], 0

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
            self._reserve(shard, count)
            self._merge_slots(shard, np.ascontiguousarray(slots[row : row + count]))
            row += count
        if self.molecules != row:
            raise ValueError(f"The kept molecules are {self.molecules} different ones, not {row} as they say.")
        self._reads = int(group.attrs["reads"])

    def _reserve(self, shard: int, molecules: int) -> None:
        """Make an empty shard large enough at once."""
        if molecules >= int(self._table[4 * shard + 3]):
            address, planned = int(self._table[4 * shard]), int(self._table[4 * shard + 1])
            if planned:
                self._arena.give(address, planned)
            buckets = max(_SMALLEST_BUCKETS, int(molecules / _FILL_PLANNED) // self._bucket_slots + 1)
            self._place(shard, self._arena.take(buckets), buckets)
