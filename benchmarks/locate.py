"""Placing reads by their spatial barcode: rate, memory and build time, as ratios.

Compared, interleaved in one process and by CPU time, medians of at least five rounds:

* the mixed stream (75 % exact, 15 % with one wrong base, 10 % of no spot) with the rate of random cache lines that
  this machine reaches in a table of the same size, both by plain independent reads and by reads that branch;
* reads with one wrong base with a plain hash table asked for all 75 substitutions, our own baseline.

ST_BarcodeMap, the tool of the field, is not in any package registry and so is no part of this benchmark; the 75-probe
table stands in its place (it is what ST_BarcodeMap does, without its strings).

Run: ``python -m benchmarks.locate [--spots 16_777_216] [--rounds 7] [--json FILE]``
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import available_bytes, describe, probe_lines, random_lines, read_lines
from cartoseq.analysis.barcodeindex import BarcodeIndex
from cartoseq.analysis.barcodes import pack_cids
from cartoseq.analysis.locate import CORRECTED, EXACT, UNMATCHED, locate
from cartoseq.streaming.kernel import inlined, kernel

BASES = 25
READS = 2_000_000
BASELINE_READS = 200_000
# Keys, spots and the index, while it is being built.
BUILD_BYTES_PER_SPOT = 12 + 15 + 9

_ONE = np.uint64(1)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


@inlined
def _slot_of(cid: Any, mask: Any) -> Any:
    mixed = cid * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(32))) & mask


@kernel
def build_hash_table(cids: NDArray[np.uint64], keys: NDArray[np.uint64], values: NDArray[np.uint32]) -> None:
    """Open addressing, linear probing."""
    mask = np.uint64(keys.size) - _ONE
    for i in range(np.uint64(cids.size)):
        slot = _slot_of(cids[i], mask)
        while keys[slot] != _EMPTY and keys[slot] != cids[i]:
            slot = (slot + _ONE) & mask
        keys[slot] = cids[i]
        values[slot] = np.uint32(i)


@kernel
def locate_by_75_probes(
    cids: NDArray[np.uint64], keys: NDArray[np.uint64], values: NDArray[np.uint32], spots_out: NDArray[np.uint32]
) -> None:
    """Exact, else all substitutions, accepted if one hits: the baseline."""
    mask = np.uint64(keys.size) - _ONE
    for i in range(np.uint64(cids.size)):
        spots_out[i] = np.uint32(0xFFFFFFFF)
        slot = _slot_of(cids[i], mask)
        while keys[slot] != _EMPTY and keys[slot] != cids[i]:
            slot = (slot + _ONE) & mask
        if keys[slot] == cids[i]:
            spots_out[i] = values[slot]
            continue
        hits = 0
        for base in range(np.uint64(BASES)):
            for change in range(_ONE, np.uint64(4)):
                cid = cids[i] ^ change << (np.uint64(2) * base)
                slot = _slot_of(cid, mask)
                while keys[slot] != _EMPTY and keys[slot] != cid:
                    slot = (slot + _ONE) & mask
                if keys[slot] == cid:
                    hits += 1
                    spots_out[i] = values[slot]
        if hits != 1:
            spots_out[i] = np.uint32(0xFFFFFFFF)


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of one call in this thread."""
    began = time.thread_time()
    call()
    return time.thread_time() - began


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, NDArray[np.float64]]:
    """CPU seconds of every call in every round, the calls taking turns."""
    for call in calls.values():
        call()
    times = [[cpu_seconds(call) for call in calls.values()] for _ in range(rounds)]
    return dict(zip(calls, np.array(times).T, strict=True))


def random_cids(rng: np.random.Generator, n: int) -> NDArray[np.uint64]:
    """Random barcodes."""
    return rng.integers(0, 4**BASES, n, np.uint64)


def substituted(rng: np.random.Generator, cids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The barcodes with one wrong base each."""
    base = rng.integers(0, BASES, cids.size).astype(np.uint64)
    return cids ^ rng.integers(1, 4, cids.size).astype(np.uint64) << np.uint64(2) * base


def measure(spots: int, rounds: int) -> dict[str, Any]:
    """Build a chip of so many spots and measure everything on it."""
    rng = np.random.default_rng(1)
    if spots * BUILD_BYTES_PER_SPOT > available_bytes():
        needed = spots * BUILD_BYTES_PER_SPOT / 1e9
        sys.exit(f"{spots:,} spots need {needed:.1f} GB, this machine has {available_bytes() / 1e9:.1f} GB left")
    cids = random_cids(rng, spots)
    small = 1 << 20
    BarcodeIndex.build(cids[:small], np.arange(min(small, spots), dtype=np.uint32), BASES)  # compiles
    began = time.thread_time()
    index = BarcodeIndex.build(cids, np.arange(spots, dtype=np.uint32), BASES)
    build_s = time.thread_time() - began

    from_spot = rng.integers(0, spots, READS)
    exact = cids[from_spot]
    corrected = substituted(rng, exact)
    strange = random_cids(rng, READS)
    kind = rng.random(READS)
    mixed = np.where(kind < 0.75, exact, np.where(kind < 0.9, corrected, strange))
    no_calls, spots_out, verdicts = np.zeros(READS, np.uint8), np.empty(READS, np.uint32), np.empty(READS, np.uint8)

    def placed(reads: NDArray[np.uint64]) -> Callable[[], object]:
        n = reads.size
        return lambda: locate(reads, no_calls[:n], no_calls[:n], index, 1, spots_out[:n], verdicts[:n])

    words, lines = random_lines(index.nbytes, READS)
    calls = random_calls(rng, 32_768)
    packed = np.empty(calls.shape[1], np.uint64)
    n_counts, n_positions = np.empty(calls.shape[1], np.uint8), np.empty(calls.shape[1], np.uint8)
    rows = np.arange(BASES)
    streams = interleaved(
        {
            "mixed": placed(mixed),
            "lines": lambda: read_lines(words, lines),
            "probes": lambda: probe_lines(words, lines),
            "exact": placed(exact),
            "corrected": placed(corrected),
            "of no spot": placed(strange),
            "pack": lambda: [pack_cids(calls, rows, packed, n_counts, n_positions) for _ in range(20)],
        },
        rounds,
    )
    placed(mixed)()
    verdict_counts = np.bincount(verdicts, minlength=6)
    result: dict[str, Any] = {
        "machine": describe(),
        "spots": spots,
        "bytes_per_spot": index.nbytes / spots,
        "bucket_bits": [index.a_bits, index.b_bits],
        "build_cpu_s": build_s,
        "build_spots_per_s": spots / build_s,
        "verdicts": {"exact": int(verdict_counts[EXACT]), "corrected": int(verdict_counts[CORRECTED])},
        "unmatched": int(verdict_counts[UNMATCHED]),
        "pack_reads_per_s": 20 * calls.shape[1] / float(np.median(streams.pop("pack"))),
        "rates_per_s": {name: READS / float(np.median(times)) for name, times in streams.items()},
        "mixed_to_lines": float(np.median(streams["lines"] / streams["mixed"])),
        "mixed_to_probes": float(np.median(streams["probes"] / streams["mixed"])),
    }
    few = np.ascontiguousarray(corrected[:BASELINE_READS])
    result |= compare_with_75_probes(cids, few, placed(few), spots_out[: few.size], rounds)
    return result


def compare_with_75_probes(
    cids: NDArray[np.uint64],
    reads: NDArray[np.uint64],
    place: Callable[[], object],
    spots_out: NDArray[np.uint32],
    rounds: int,
) -> dict[str, float]:
    """Reads with one wrong base, in turn through the baseline and through ``place``, which fills ``spots_out``."""
    slots = 1 << (2 * cids.size - 1).bit_length()
    if slots * 12 > available_bytes():
        return {}
    keys, values = np.full(slots, _EMPTY), np.empty(slots, np.uint32)
    build_hash_table(cids, keys, values)
    baseline_out = np.empty(reads.size, np.uint32)
    times = interleaved(
        {"baseline": lambda: locate_by_75_probes(reads, keys, values, baseline_out), "index": place}, rounds
    )
    if not np.array_equal(baseline_out, spots_out):
        sys.exit("the baseline and the index disagree")
    return {
        "baseline_corrected_per_s": reads.size / float(np.median(times["baseline"])),
        "corrected_to_baseline": float(np.median(times["baseline"] / times["index"])),
    }


def random_calls(rng: np.random.Generator, clusters: int) -> NDArray[np.uint8]:
    """A block of base calls with one no-call in a thousand."""
    calls = (rng.integers(0, 4, (36, clusters)) | rng.integers(2, 41, (36, clusters)) << 2).astype(np.uint8)
    calls[rng.random(calls.shape) < 0.001] = 0
    return calls


def report(result: dict[str, Any]) -> str:
    """A small table: what, how much, floor and goal."""
    rates = {name: f"{rate / 1e6:.1f} M/s" for name, rate in result["rates_per_s"].items()}
    ratio = result.get("corrected_to_baseline")
    rows = [
        ("", "measured", "floor", "goal"),
        ("mixed / random lines, plain", f"{result['mixed_to_lines']:.2f}", "0.15", "0.25"),
        ("mixed / random lines, branching", f"{result['mixed_to_probes']:.2f}", "0.15", "0.25"),
        ("corrected / 75-probe table", f"{ratio:.0f} x" if ratio else "no memory", "10 x", "30 x"),
        ("bytes per spot", f"{result['bytes_per_spot']:.2f}", "18", "14"),
        ("build, spots per s", f"{result['build_spots_per_s'] / 1e6:.1f} M", "4.4 M", "10 M"),
        ("pack 25 bases", f"{result['pack_reads_per_s'] / 1e6:.0f} M/s", "", "100 M/s"),
        *((f"reads: {name}", rate, "", "") for name, rate in rates.items()),
    ]
    lines = [f"{what:34}{measured:>12}{floor:>8}{goal:>8}" for what, measured, floor, goal in rows]
    head = f"{result['spots']:,} spots, {result['bucket_bits']} bucket bits; {result['machine']}"
    note = "ST_BarcodeMap cannot be installed from a registry; the 75-probe table stands in its place."
    return "\n".join([head, *lines, note])


def main() -> None:
    """Measure, print the table, and keep the figures if so wished."""
    parser = argparse.ArgumentParser(description="Rate, memory and build time of placing reads by their barcode.")
    parser.add_argument("--spots", type=int, default=1 << 24, help="spots of the chip (400_000_000 is 1 cm x 1 cm)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of which the median is taken, at least 5")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    result = measure(options.spots, max(options.rounds, 5))
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
