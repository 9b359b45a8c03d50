"""Benchmark: read pairs per CPU second from gzip FASTQ files to blocks, beside inflating alone and beside dnaio.

Run ``python -m benchmarks.fastq [--json FILE]``. The data are one million Stereo-seq pairs (35 and 100 bases) made on
the spot. The three are timed in turn, several times over, by the CPU time of the process; inflating the same bytes
with isal is the physical limit of any reader of such files.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dnaio
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from cartoseq.drivers.basecalls.fastq import open_fastq
from cartoseq.streaming.readstructure import ReadStructure

PAIRS = 1_000_000
STRUCTURES = (ReadStructure.parse("25C10M"), ReadStructure.parse("100T"))
PIECE_BYTES = 1 << 16


def fastq_text(rng: np.random.Generator, first: int, pairs: int, read: int, bases: int) -> NDArray[np.uint8]:
    """The text of some reads, as random bases and the uneven qualities of a sequencer, uint8, shape (bytes,)."""
    beginning = b"@E100026571L1C001R003"
    name = np.frombuffer(beginning + b"00000000/" + str(read).encode() + b"\n", dtype=np.uint8)
    text = np.empty((pairs, name.size + 2 * bases + 4), dtype=np.uint8)
    text[:, : name.size] = name
    number = np.arange(first, first + pairs)
    for digit in range(8):
        text[:, len(beginning) + 7 - digit] = 48 + number // 10**digit % 10
    at = name.size
    text[:, at : at + bases] = np.frombuffer(b"ACGT", dtype=np.uint8)[rng.integers(0, 4, (pairs, bases))]
    text[:, at + bases : at + bases + 3] = np.frombuffer(b"\n+\n", dtype=np.uint8)
    qualities = np.clip(70 - rng.geometric(0.3, (pairs, bases)), 35, 70)
    text[:, at + bases + 3 : -1] = qualities
    text[:, -1] = 10
    return text.reshape(-1)


def write_pairs(folder: Path, pairs: int) -> list[Path]:
    """Write the two files of the benchmark."""
    paths = []
    for read, bases in ((1, 35), (2, 100)):
        rng = np.random.default_rng(read)
        path = folder / f"R{read}.fastq.gz"
        with path.open("wb") as raw, gzip.GzipFile("", "wb", 4, raw, mtime=0) as file:
            for first in range(0, pairs, 100_000):
                file.write(fastq_text(rng, first, min(100_000, pairs - first), read, bases).data)
        paths.append(path)
    return paths


def read_blocks(paths: list[Path]) -> int:
    """Ours: from the files to blocks."""
    return sum(block.clusters for block in open_fastq([[path] for path in paths], STRUCTURES))


def inflate_only(paths: list[Path]) -> int:
    """The limit: inflate the same bytes and drop them."""
    text_bytes = 0
    for path in paths:
        member = isal_zlib.decompressobj(31)
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE_BYTES):
                text_bytes += len(member.decompress(piece))
    return text_bytes


def parse_dnaio(paths: list[Path]) -> int:
    """The peer: dnaio's records, in this process and one thread, and nothing done with them."""
    with dnaio.open(*paths, open_threads=0) as records:
        return sum(1 for _ in records)


def main() -> None:
    """Time the three in turn and print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="read pairs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is run (default: %(default)s)")
    arguments = parser.parse_args()
    ways: dict[str, Callable[[list[Path]], int]] = {
        "blocks": read_blocks,
        "inflate": inflate_only,
        "dnaio": parse_dnaio,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pairs(Path(folder), arguments.pairs)
        for way in ways.values():
            way(paths)  # compiled, and the files in memory
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                start = time.process_time()
                way(paths)
                rates[name].append(arguments.pairs / (time.process_time() - start))
    median = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in median.items():
        print(f"{name:8} {rate / 1e6:6.2f} M pairs per CPU second")
    ratios = {
        "blocks / inflate": statistics.median(
            ours / limit for ours, limit in zip(rates["blocks"], rates["inflate"], strict=True)
        ),
        "blocks / dnaio": statistics.median(
            ours / peer for ours, peer in zip(rates["blocks"], rates["dnaio"], strict=True)
        ),
    }
    for name, ratio in ratios.items():
        print(f"{name:17} {ratio:5.2f}")
    if arguments.json is not None:
        results = {"pairs": arguments.pairs, "pairs_per_cpu_second": median, "ratios": ratios}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
