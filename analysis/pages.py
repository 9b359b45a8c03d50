"""Memory for tables that grow one at a time: pages of 4 KB, cut from large pieces.

A table is a list of pages, so it grows by a page without moving and without leaving a hole that no other table can use.
The pieces lie in the machine's huge pages of 2 MB, and are touched when they are cut, not during a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.lowlevel import empty_table
from cartoseq.analysis.rawmemory import store64
from cartoseq.streaming.kernel import kernel

PAGE_BYTES = 4096
LINE_BYTES = 64
PAGE_LINES = PAGE_BYTES // LINE_BYTES
HUGE_BYTES = 2 << 20
# Address space asked for at a time; it costs memory only as it is touched.
_REGION_BYTES = 32 * HUGE_BYTES


class Pages:
    """Zeroed pages of memory, aligned to their size. Addresses are valid as long as this object lives."""

    def __init__(self) -> None:
        self._regions: list[NDArray[np.uint8]] = []
        self._untouched = np.zeros(0, np.uint8)
        self._free = np.zeros(0, np.uint64)
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all pages, free ones included."""
        return self._nbytes

    def reserve(self, pages: int) -> None:
        """Have so many pages ready, or some more, touched."""
        missing = -(-(pages - self._free.size) * PAGE_BYTES // HUGE_BYTES) * HUGE_BYTES
        if missing <= 0:
            return
        if self._untouched.size < missing:
            region = empty_table(max(missing, _REGION_BYTES) + HUGE_BYTES, np.uint8)
            self._regions.append(region)
            start = -region.ctypes.data % HUGE_BYTES
            self._untouched = region[start : start + max(missing, _REGION_BYTES)]
        piece, self._untouched = self._untouched[:missing], self._untouched[missing:]
        piece.fill(0)
        self._nbytes += missing
        offsets = np.arange(0, missing, PAGE_BYTES, dtype=np.uint64)[::-1]
        self._free = np.concatenate((np.uint64(piece.ctypes.data) + offsets, self._free))

    def take(self, pages: int) -> NDArray[np.uint64]:
        """The addresses of so many zeroed pages."""
        self.reserve(pages)
        taken = self._free[self._free.size - pages :][::-1].copy()
        self._free = self._free[: self._free.size - pages]
        return taken

    def give(self, addresses: NDArray[np.uint64]) -> None:
        """Take back pages that :meth:`take` gave."""
        _clear(addresses)
        self._free = np.concatenate((self._free, addresses))


class ShardPages:
    """Which pages the table of each shard has.

    Args:
        pages: Where they come from.
        shards: Number of shards.

    Attributes:
        table: uint64, shape (shards * 4,), for the kernels: address of the list of page addresses, lines, slots in use,
            and a number that the kind of table needs.
    """

    def __init__(self, pages: Pages, shards: int) -> None:
        self.table = np.zeros(4 * shards, np.uint64)
        self._pages = pages
        self._lists: dict[int, NDArray[np.uint64]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the table and the lists; the pages are counted where they come from."""
        return self.table.nbytes + sum(pages.nbytes for pages in self._lists.values())

    def count(self, shard: int) -> int:
        """Pages of a shard."""
        return int(self.table[4 * shard + 1]) // PAGE_LINES

    def used(self, shard: int) -> int:
        """Slots of a shard in use."""
        return int(self.table[4 * shard + 2])

    def renew(self, shard: int, pages: int, number: int) -> None:
        """Empty a shard's table and give it so many pages, and the number that its kind needs."""
        held = self._lists.pop(shard, None)
        if held is not None:
            self._pages.give(held)
        self._set(shard, self._pages.take(pages), 0, number)

    def extend(self, shard: int, pages: int, number: int) -> None:
        """Give a shard's table more pages behind those that it has, which keep what they hold."""
        held = self._lists[shard]
        more = self._pages.take(pages - held.size)
        self._set(shard, np.concatenate((held, more)), self.used(shard), number)

    def _set(self, shard: int, pages: NDArray[np.uint64], used: int, number: int) -> None:
        self._lists[shard] = pages
        self.table[4 * shard : 4 * shard + 4] = (pages.ctypes.data, pages.size * PAGE_LINES, used, number)


@kernel
def _clear(addresses: Any) -> None:
    """Fill pages with zeros."""
    for i in range(addresses.shape[0]):
        for word in range(np.uint64(PAGE_BYTES // 8)):
            store64(addresses[i] + word * np.uint64(8), np.uint64(0))
