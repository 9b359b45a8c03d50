"""Memory for tables that grow one at a time: taken from large slabs, given back, and joined with free neighbours.

Tables of a few kilobytes to megabytes, each from ``malloc``, would lie in 4 KiB pages, and every random read of a table
would first miss the page table. Slabs are large enough for huge pages and are touched when they are made, not during
a batch. Tables that grow in step leave neighbouring holes, which join and serve the next, larger ones.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

LINE_BYTES = 64
_FIRST_SLAB_LINES = 1 << 10
_LARGEST_SLAB_LINES = 1 << 19


class Arena:
    """Zeroed memory in cache lines. Addresses are valid as long as the arena lives."""

    def __init__(self) -> None:
        self._slabs: list[NDArray[np.uint64]] = []
        # Free pieces three ways: lines by start, start by end, and (lines, start) in order.
        self._lines: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        self._by_size: list[tuple[int, int]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all slabs, free pieces included."""
        return sum(slab.nbytes for slab in self._slabs)

    def reserve(self, lines: int) -> None:
        """Add a slab of at least so many lines, touched."""
        slab = np.empty((lines + 1) * (LINE_BYTES // 8), np.uint64)
        slab.fill(0)
        self._slabs.append(slab)
        address = slab.ctypes.data
        self._free(address + -address % LINE_BYTES, lines)

    def take(self, lines: int) -> int:
        """The address of so many zeroed lines, the start of a cache line."""
        place = bisect_left(self._by_size, (lines, 0))
        if place == len(self._by_size):
            grown = self.nbytes // LINE_BYTES // 4
            self.reserve(max(lines, min(max(grown, _FIRST_SLAB_LINES), _LARGEST_SLAB_LINES)))
            place = bisect_left(self._by_size, (lines, 0))
        size, start = self._by_size.pop(place)
        del self._lines[start], self._starts[start + size * LINE_BYTES]
        if size > lines:
            self._free(start + lines * LINE_BYTES, size - lines)
        ctypes.memset(start, 0, lines * LINE_BYTES)
        return start

    def give(self, address: int, lines: int) -> None:
        """Take back what :meth:`take` gave."""
        before = self._starts.get(address)
        if before is not None:
            lines += self._remove(before)
            address = before
        after = address + lines * LINE_BYTES
        if after in self._lines:
            lines += self._remove(after)
        self._free(address, lines)

    def _free(self, start: int, lines: int) -> None:
        self._lines[start] = lines
        self._starts[start + lines * LINE_BYTES] = start
        insort(self._by_size, (lines, start))

    def _remove(self, start: int) -> int:
        lines = self._lines.pop(start)
        del self._starts[start + lines * LINE_BYTES]
        del self._by_size[bisect_left(self._by_size, (lines, start))]
        return lines
