"""Benchmark: molecules counted per CPU second, their bytes, the longest pause; a gene's live map and a snapshot.

Run ``python -m benchmarks.molecules [--molecules 20_000_000] [--json FILE]``. Reads of a 16-bit gene and a 10-base
barcode fall on a square chip until saturation reaches 60 %, in batches of 65,536; genes are skewed. The set is presized
for the planned molecules. Beside it, in the same batches, a plain random read-modify-write of a table of as many
bytes is timed: what this machine can do at that size. Rates are per CPU second of one thread; the rest is wall time.

The same reads go once more to a set that was not told how many will come and grows by itself: it moves each molecule
several times, so it takes fewer reads per second, but no more memory than its growth by a sixth needs.

The goal for bytes (5.2) was set for 32-bit fingerprints, which lose molecules. An exact set cannot reach it: 10^8 of
the 2^66 possible molecules are 5.1 bytes of information each, and their copies a quarter of a byte more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.maps import build_map
from cartoseq.analysis.molecules import MoleculeSet, shards_of
from cartoseq.analysis.totals import DenseTotals
from cartoseq.streaming.kernel import kernel

BATCH = 65_536
SATURATION = 0.6
GENES = 30_000
MOLECULES_PER_SHARD = 16_000
SNAPSHOT_BIN = 20
QUERY_BIN = 50
BARS: dict[str, tuple[float, float]] = {
    "adds, M/s": (15, 33),
    "bytes per molecule": (8, 5.2),
    "longest pause, ms": (250, 50),
    "growing: bytes per molecule": (8, 5.2),
    "growing: longest pause, ms": (250, 50),
    "gene map, ms": (500, 150),
    "snapshot, ms": (20, 5),
}


@kernel
def touch(table: NDArray[np.uint64], keys: NDArray[np.uint64]) -> None:
    """Read, change and write a random word of a table for every key."""
    words = np.uint64(table.shape[0])
    for i in range(keys.shape[0]):
        word = ((keys[i] >> np.uint64(32)) * words) >> np.uint64(32)
        table[word] += np.uint64(1)


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Random-looking numbers, different for different ones (splitmix64)."""
    out = numbers + np.uint64(0x9E3779B97F4A7C15)
    out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: NDArray[np.uint64] = out ^ (out >> np.uint64(31))
    return result


def molecules_in_pool(molecules: int) -> int:
    """Of how many molecules reads must be drawn, so that 2.5 reads each show ``molecules`` of them (60 %)."""
    reads = molecules / (1 - SATURATION)
    low, high = float(molecules), 4.0 * molecules
    for _ in range(60):
        pool = (low + high) / 2
        low, high = (pool, high) if pool * (1 - np.exp(-reads / pool)) < molecules else (low, pool)
    return int(low)


class Stream:
    """Batches of reads drawn at random from a pool of molecules."""

    def __init__(self, pool: int, side: int) -> None:
        self.pool = pool
        self.side = np.uint64(side)
        self.random = np.random.default_rng(1)

    def batch(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
        """Spots, genes, barcodes, and random keys for the reference."""
        keys = mixed(self.random.integers(0, self.pool, BATCH, dtype=np.uint64))
        more = mixed(keys)
        x = ((keys >> np.uint64(32)) * self.side) >> np.uint64(32)
        y = ((keys & np.uint64(0xFFFFFFFF)) * self.side) >> np.uint64(32)
        shard = ((y >> np.uint64(8)) << np.uint64(7)) | (x >> np.uint64(8))
        spots = (shard << np.uint64(16)) | ((y & np.uint64(255)) << np.uint64(8)) | (x & np.uint64(255))
        genes = (more & np.uint64(0xFFFF)) * ((more >> np.uint64(16)) & np.uint64(0xFFFF)) * np.uint64(GENES)
        return spots.astype(np.uint32), genes >> np.uint64(32), more >> np.uint64(44), mixed(more)


def measure(molecules: int) -> dict[str, float]:
    """Run it all; every value by its name."""
    side = 256 * max(1, round((molecules / MOLECULES_PER_SHARD) ** 0.5))
    frame = ChipFrame(FrameKind.LATTICE, origin_x=0, origin_y=0, width=side, height=side, name="made")
    stream = Stream(molecules_in_pool(molecules), side)
    warm = MoleculeSet(16, 20, expected_molecules=10, shards=np.zeros(1, np.uint32))
    none = np.zeros(1, np.uint64)
    warm.add(np.zeros(1, np.uint32), none, none)
    warm.feature_spots(0)
    found = MoleculeSet(16, 20, expected_molecules=molecules, shards=shards_of(frame))
    table = np.empty(found.nbytes // 8, np.uint64)
    table.fill(0)
    touch(table, none)
    totals = DenseTotals(frame, SNAPSHOT_BIN)
    fresh = np.zeros(BATCH, np.uint8)
    totals.add(np.zeros(1, np.uint32), fresh[:1])

    cpu = {"add": 0.0, "touch": 0.0, "totals": 0.0}
    pauses: list[float] = []
    while found.reads * (1 - SATURATION) < molecules:
        spots, genes, mids, keys = stream.batch()
        wall, start = time.perf_counter(), time.thread_time()
        found.add(spots, genes, mids, fresh)
        cpu["add"] += time.thread_time() - start
        pauses.append(1e3 * (time.perf_counter() - wall))
        start = time.thread_time()
        touch(table, keys)
        cpu["touch"] += time.thread_time() - start
        start = time.thread_time()
        totals.add(spots, fresh)
        cpu["totals"] += time.thread_time() - start
    values = {
        "molecules": float(found.molecules),
        "saturation": 1 - found.molecules / found.reads,
        "adds, M/s": found.reads / cpu["add"] / 1e6,
        "plain read-modify-write, M/s": found.reads / cpu["touch"] / 1e6,
        "adds / plain read-modify-write": cpu["touch"] / cpu["add"],
        "dense totals, M/s": found.reads / cpu["totals"] / 1e6,
        "bytes per molecule": found.nbytes / found.molecules,
        "longest pause, ms": max(pauses),
        "median batch, ms": statistics.median(pauses),
    }
    del table

    def wall_ms(action: Callable[[], object], rounds: int = 5) -> float:
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            action()
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    gene = int(found.shard_molecules(0).features[0]) + 1

    def gene_map() -> NDArray[np.uint32]:
        spots = found.feature_spots(gene)
        image = DenseTotals(frame, QUERY_BIN)
        image.add(spots, np.ones(spots.shape[0], np.uint8))
        return image.image

    values |= measure_growing(molecules, side)
    values["gene map, ms"] = wall_ms(gene_map)
    values["snapshot, ms"] = wall_ms(totals.snapshot)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.h5"
        start = time.perf_counter()
        with h5py.File(path, "w") as file:
            found.checkpoint(file.create_group("molecules"))
        values["checkpoint, s"] = time.perf_counter() - start
        values["checkpoint, bytes per molecule"] = path.stat().st_size / found.molecules
    names = [str(number) for number in range(GENES)]
    start = time.perf_counter()
    spatial = build_map(found.parts(), frame, names, names, library="made", layer="rna")
    values["map, s"] = time.perf_counter() - start
    if spatial.total_molecules != found.molecules:
        raise RuntimeError(f"The map has {spatial.total_molecules} molecules, the set {found.molecules}.")
    return values


def measure_growing(molecules: int, side: int) -> dict[str, float]:
    """The set that grows by itself. Bytes are the most that there were from half of the molecules on."""
    stream = Stream(molecules_in_pool(molecules), side)
    found = MoleculeSet(16, 20)
    cpu = longest = most = 0.0
    while found.reads * (1 - SATURATION) < molecules:
        spots, genes, mids, _ = stream.batch()
        wall, start = time.perf_counter(), time.thread_time()
        found.add(spots, genes, mids)
        cpu += time.thread_time() - start
        longest = max(longest, time.perf_counter() - wall)
        if 2 * found.molecules >= molecules:
            most = max(most, found.nbytes / found.molecules)
    return {
        "growing: adds, M/s": found.reads / cpu / 1e6,
        "growing: bytes per molecule": most,
        "growing: longest pause, ms": 1e3 * longest,
    }


def main() -> None:
    """Print value, floor and goal of each, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description="Molecules counted per CPU second, and what they cost.")
    parser.add_argument("--molecules", type=int, default=20_000_000, help="distinct molecules to end with")
    parser.add_argument("--json", type=Path, help="write the values here")
    arguments = parser.parse_args()
    values = measure(arguments.molecules)
    print(f"{'':34}{'value':>12}{'floor':>9}{'goal':>9}")
    for name, value in values.items():
        floor, goal = (f"{bar:g}" for bar in BARS[name]) if name in BARS else ("", "")
        print(f"{name:34}{value:12,.3f}{floor:>9}{goal:>9}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"benchmark": "molecules", "values": values, "bars": BARS}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
