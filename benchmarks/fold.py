"""Benchmark: blocks to molecules, end to end: locate, filter, assign, count, on a chip of real size.

Run ``python -m benchmarks.fold [--spots 16_777_216] [--megabases 100] [--json FILE]``. Three quarters of the
reads have a barcode of the chip as it stands, 15 % one substitution, the rest none. Templates are those of
``benchmarks.assign``; molecules are read about 2.5 times. Rates are per CPU second of one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.assign import make_genome, make_reads, write_genome
from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.fold import LibraryFold, LibrarySettings
from cartoseq.analysis.locate import BarcodeIndex
from cartoseq.analysis.reference import build_reference
from cartoseq.streaming.block import BaseCallBlock
from cartoseq.streaming.readstructure import ReadStructure

FLOOR, GOAL = 1.2e6, 2.2e6
CLUSTERS = 32_768
BLOCKS = 16
ROUNDS = 5
READS_A_MOLECULE = 2.5
QUALITY = np.uint8(36 << 2)


def make_chip(rng: np.random.Generator, spots: int) -> tuple[NDArray[np.uint64], BarcodeIndex, ChipFrame]:
    """A square chip of random barcodes."""
    side = int(spots**0.5)
    frame = ChipFrame(
        kind=FrameKind.LATTICE,
        origin_x=0,
        origin_y=0,
        width=side,
        height=side,
        pitch_um=0.5,
        x=None,
        y=None,
        name="made",
    )
    y, x = np.divmod(np.arange(side * side), side)
    cids = rng.integers(1, 4**25, side * side, dtype=np.uint64)
    return cids, BarcodeIndex.build(cids, frame.lattice_spots(x, y), 25), frame


def bases_of(packed: NDArray[np.uint64], bases: int) -> NDArray[np.uint8]:
    """Base codes A0 C1 G2 T3 of packed barcodes (A0 C1 T2 G3, first base lowest), shape (bases, n)."""
    shifts = 2 * np.arange(bases, dtype=np.uint64)[:, None]
    codes = (packed[None, :] >> shifts & np.uint64(3)).astype(np.uint8)
    return codes ^ (codes >> 1)


def make_blocks(
    rng: np.random.Generator, cids: NDArray[np.uint64], templates: NDArray[np.uint8]
) -> list[BaseCallBlock]:
    """Reads of a pool of molecules, in blocks."""
    reads = CLUSTERS * BLOCKS
    pool = int(reads / READS_A_MOLECULE)
    molecule = rng.integers(0, pool, reads)
    spot = rng.integers(0, cids.size, pool)[molecule]
    cid = bases_of(cids[spot], 25)
    kind = rng.random(reads)
    wrong = np.flatnonzero((kind >= 0.75) & (kind < 0.9))
    where = rng.integers(0, 25, wrong.size)
    cid[where, wrong] = (cid[where, wrong] + rng.integers(1, 4, wrong.size)) & 3
    lost = np.flatnonzero(kind >= 0.9)
    cid[:, lost] = rng.integers(0, 4, (25, lost.size))
    mid = rng.integers(0, 4, (10, pool), dtype=np.uint8)[:, molecule]
    template = templates[molecule % len(templates)].T
    calls = (np.concatenate([cid, mid, template]) | QUALITY).astype(np.uint8)
    return [
        BaseCallBlock(0, 0, 0, first, 0, (35, 100), np.ascontiguousarray(calls[:, first : first + CLUSTERS]))
        for first in range(0, reads, CLUSTERS)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--spots", type=int, default=1 << 24)
    parser.add_argument("--megabases", type=int, default=100)
    options = parser.parse_args()
    rng = np.random.default_rng(12)
    with tempfile.TemporaryDirectory() as folder:
        contigs, genes = make_genome(rng, options.megabases * 1_000_000)
        reference = build_reference(*write_genome(Path(folder), contigs, genes))
        templates = make_reads(rng, contigs, genes, 200_000).codes
    cids, index, frame = make_chip(rng, options.spots)
    blocks = make_blocks(rng, cids, templates)
    settings = LibrarySettings("rna", "rna", (ReadStructure.parse("25C10M"), ReadStructure.parse("100T")))
    LibraryFold(settings, index, frame, reference).add(blocks[0])
    rates = []
    for _ in range(ROUNDS):
        fold = LibraryFold(settings, index, frame, reference)
        start = time.process_time()
        for block in blocks:
            fold.add(block)
        rates.append(CLUSTERS * BLOCKS / (time.process_time() - start))
    rate = statistics.median(rates)
    counters = fold.counters
    results = {
        "reads_per_cpu_second": rate,
        "spots": cids.size,
        "bytes_per_spot": index.bytes_per_barcode,
        "located": (counters["located_exact"] + counters["located_corrected"]) / counters["reads_total"],
        "assigned": counters["assigned"] / counters["reads_total"],
        "floor": FLOOR,
        "goal": GOAL,
    }
    for name, value in results.items():
        print(f"{name:24s}{value:16,.3f}")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
