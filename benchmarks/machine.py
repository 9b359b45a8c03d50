"""What this machine's memory can do: the roof that table look-ups are measured against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.lowlevel import prefetch
from cartoseq.streaming.kernel import kernel

WORDS_PER_LINE = 8
_AHEAD = np.uint64(24)
_ONE = np.uint64(1)


@kernel
def read_lines(words: NDArray[np.uint64], at: NDArray[np.uint64]) -> np.uint64:
    """Read one word of each given cache line; the reads do not wait for each other."""
    n = np.uint64(at.size)
    total = np.uint64(0)
    for i in range(n):
        prefetch(words, at[min(i + _AHEAD, n - _ONE)])
        total += words[at[i]]
    return total


@kernel
def probe_lines(words: NDArray[np.uint64], at: NDArray[np.uint64]) -> np.uint64:
    """Read one word of each given cache line and branch on it, as a look-up does: the roof of a table probe."""
    n = np.uint64(at.size)
    total = np.uint64(0)
    for i in range(n):
        prefetch(words, at[min(i + _AHEAD, n - _ONE)])
        if words[at[i]] & _ONE != np.uint64(0):
            total += words[at[i] + _ONE]
    return total


def random_lines(nbytes: int, reads: int, seed: int = 1) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """A table of so many bytes, touched, its words random; and the words at the head of random lines of it."""
    rng = np.random.default_rng(seed)
    lines = max(nbytes // 64, 1)
    words = rng.integers(0, 2**63, lines * WORDS_PER_LINE, np.uint64)
    return words, rng.integers(0, lines, reads).astype(np.uint64) * np.uint64(WORDS_PER_LINE)


def describe() -> str:
    """The processor's name, and how the kernel hands out huge pages."""
    processor = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = pages.read_text().partition("[")[2].partition("]")[0] if pages.is_file() else "unknown"
    return f"{processor}, huge pages: {chosen}"


def available_bytes() -> int:
    """Memory that can still be had, or a guess of 8 GB where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 8 << 30
