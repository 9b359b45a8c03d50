"""Benchmark: reads placed per CPU second, beside minimap2's short-read preset, on a large synthetic genome.

Run ``python -m benchmarks.assign [--json FILE] [--megabases 100]``. The genome is random, 40 % of it dispersed repeats
(5-25 % diverged), with spliced genes, 3 % of them followed by a paralog 3 % apart. Reads are 100 bases with 0.6 %
substitutions: 70 % from the 3' ends of transcripts, 20 % of genes with their introns, 5 % from anywhere, 5 % random.
Both tools run on one thread, in turn; minimap2 from a built index, less the CPU time that it needs for a single read.
A placed read is right if it overlaps where it comes from, on its strand. minimap2's count from mapping quality 10 on,
as pipelines take them; ours only where the place is unique.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.assign import MULTI_MAPPED, UNMAPPED, AssignSettings, assign
from cartoseq.analysis.reference import build_reference

CONTIGS = 4
READ_BASES = 100
OUR_READS = 400_000
THEIR_READS = 100_000
BLOCK = 32_768
SUBSTITUTIONS = 0.006
ROUNDS = 3
FLOOR, GOAL = 25.0, 50.0
RECALL_FLOOR, RECALL_GOAL = 0.03, 0.015
PRECISION_FLOOR, PRECISION_GOAL = 0.998, 0.999


@dataclass(frozen=True)
class Genes:
    """Made genes: contig, strand, and their exons, int64, shape (exons, 2), half-open."""

    contigs: list[int]
    strands: list[int]
    exons: list[NDArray[np.int64]]


@dataclass(frozen=True)
class Reads:
    """Made reads with where they come from; contig -1 for random ones."""

    codes: NDArray[np.uint8]
    contigs: NDArray[np.int64]
    strands: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def make_genome(rng: np.random.Generator, bases: int) -> tuple[list[NDArray[np.uint8]], Genes]:
    """Make contigs (codes A0 C1 G2 T3) and genes."""
    size = bases // CONTIGS
    contigs = [rng.integers(0, 4, size, dtype=np.uint8) for _ in range(CONTIGS)]
    for _ in range(bases // 2_500_000):  # families of 300 to 2,000 bases cover 40 % of the genome, as in a mammal
        length = int(rng.integers(300, 2000))
        family = rng.integers(0, 4, length, dtype=np.uint8)
        for _ in range(1_000_000 // length):
            copy = diverge(rng, family, rng.uniform(0.05, 0.25))
            at = int(rng.integers(0, size - length))
            contigs[int(rng.integers(CONTIGS))][at : at + length] = copy if rng.random() < 0.5 else 3 - copy[::-1]
    genes = Genes([], [], [])
    for contig in range(CONTIGS):
        at = 5000
        previous: tuple[int, int, NDArray[np.int64]] | None = None
        while at < size - 60_000:
            count = int(rng.integers(1, 10))
            strand = int(rng.integers(2))
            lengths = rng.integers(80, 300, count)
            lengths[0 if strand else -1] = rng.integers(300, 2000)  # the last exon, with its untranslated end, is long
            gaps = rng.integers(100, 3000, count)
            starts = at + np.cumsum(lengths + gaps) - lengths - gaps
            exons = np.stack([starts, starts + lengths], axis=1)
            if previous is not None and rng.random() < 0.03:  # a paralog of the gene before, 3 % apart
                first, last, shape = previous
                length = last - first
                contigs[contig][at : at + length] = diverge(rng, contigs[contig][first:last], 0.03)
                exons, strand = shape - first + at, genes.strands[-1]
            genes.contigs.append(contig)
            genes.strands.append(strand)
            genes.exons.append(exons)
            previous = (int(exons[0, 0]), int(exons[-1, 1]), exons)
            at = int(exons[-1, 1]) + int(rng.integers(500, 8000))
    return contigs, genes


def diverge(rng: np.random.Generator, sequence: NDArray[np.uint8], rate: float) -> NDArray[np.uint8]:
    """A copy with substitutions."""
    changed = rng.random(sequence.size) < rate
    return np.where(changed, (sequence + rng.integers(1, 4, sequence.size, dtype=np.uint8)) & 3, sequence).astype(
        np.uint8
    )


def make_reads(rng: np.random.Generator, contigs: list[NDArray[np.uint8]], genes: Genes, n: int) -> Reads:
    """Draw reads of transcripts, of genes with their introns, of anywhere, and of nothing."""
    codes = np.empty((n, READ_BASES), np.uint8)
    truth = np.full((n, 4), -1, np.int64)
    kinds = rng.choice(4, n, p=[0.7, 0.2, 0.05, 0.05])
    size = contigs[0].size
    for i, kind in enumerate(kinds):
        if kind == 3:
            codes[i] = rng.integers(0, 4, READ_BASES)
            continue
        if kind == 2:
            contig, strand = int(rng.integers(CONTIGS)), int(rng.integers(2))
            start = int(rng.integers(0, size - READ_BASES))
            blocks = np.array([[start, start + READ_BASES]])
        else:
            gene = int(rng.integers(len(genes.exons)))
            contig, strand, blocks = genes.contigs[gene], genes.strands[gene], genes.exons[gene]
            if kind == 1:
                blocks = np.array([[blocks[0, 0], blocks[-1, 1]]])
            blocks = cut(rng, blocks, strand if kind == 0 else None)
        sequence = np.concatenate([contigs[contig][a:b] for a, b in blocks])
        if sequence.size < READ_BASES:
            sequence = contigs[contig][blocks[0, 0] : blocks[0, 0] + READ_BASES]
        codes[i] = 3 - sequence[::-1] if strand else sequence
        truth[i] = contig, strand, blocks[0, 0], blocks[-1, 1]
    codes = diverge(rng, codes.reshape(-1), SUBSTITUTIONS).reshape(codes.shape)
    return Reads(codes, truth[:, 0], truth[:, 1], truth[:, 2], truth[:, 3])


def cut(rng: np.random.Generator, blocks: NDArray[np.int64], strand: int | None) -> NDArray[np.int64]:
    """A read's length of joined blocks: some 400 bases from the 3' end of a transcript, or anywhere (strand None)."""
    lengths = blocks[:, 1] - blocks[:, 0]
    total = int(lengths.sum())
    room = max(0, total - READ_BASES)
    start = int(rng.integers(0, room + 1))
    if strand is not None:
        start = min(room, int(rng.exponential(400)))
        start = start if strand else room - start
    ends = np.cumsum(lengths)
    from_ = np.clip(start - (ends - lengths), 0, lengths)
    to = np.clip(start + READ_BASES - (ends - lengths), 0, lengths)
    pieces = np.stack([blocks[:, 0] + from_, blocks[:, 0] + to], axis=1)
    return pieces[to > from_]


def write_genome(folder: Path, contigs: list[NDArray[np.uint8]], genes: Genes) -> tuple[Path, Path]:
    """Write FASTA and GTF."""
    letters = np.frombuffer(b"ACGT", np.uint8)
    fasta, gtf = folder / "genome.fa", folder / "genes.gtf"
    with fasta.open("wb") as file:
        for number, contig in enumerate(contigs):
            file.write(f">contig{number}\n".encode())
            file.write(letters[contig].tobytes())
            file.write(b"\n")
    with gtf.open("w") as text:
        for number, (contig, strand, exons) in enumerate(zip(genes.contigs, genes.strands, genes.exons, strict=True)):
            for start, end in exons:
                text.write(
                    f"contig{contig}\tmade\texon\t{start + 1}\t{end}\t.\t{'-' if strand else '+'}\t.\t"
                    f'gene_id "G{number}"; transcript_id "T{number}";\n'
                )
    return fasta, gtf


def write_reads(path: Path, codes: NDArray[np.uint8]) -> None:
    """Write reads as FASTQ, named by number."""
    letters = np.frombuffer(b"ACGT", np.uint8)[codes]
    quality = "I" * READ_BASES
    with path.open("w") as file:
        for i in range(len(codes)):
            file.write(f"@{i}\n{letters[i].tobytes().decode()}\n+\n{quality}\n")


def theirs(program: str, index: Path, reads: Path, output: Path) -> float:
    """CPU seconds of one minimap2 run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with output.open("wb") as out:
        subprocess.run(
            [program, "-ax", "sr", "-t", "1", str(index), str(reads)], stdout=out, stderr=subprocess.DEVNULL, check=True
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def score(reads: Reads, placed: NDArray[np.bool_], place: NDArray[np.int64]) -> tuple[float, float]:
    """Recall of the reads that have a place, and precision of those placed. `place`: contig, strand, start, end."""
    right = (
        placed
        & (place[:, 0] == reads.contigs)
        & (place[:, 1] == reads.strands)
        & (place[:, 2] < reads.ends)
        & (place[:, 3] > reads.starts)
    )
    return float(right.sum() / (reads.contigs >= 0).sum()), float(right.sum() / max(1, placed.sum()))


def their_places(sam: Path, n: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Primary alignments of mapping quality 10 and more."""
    place = np.full((n, 4), -1, np.int64)
    with sam.open() as lines:
        for line in lines:
            if line.startswith("@"):
                continue
            name, flags, contig, position, quality = line.split("\t", 5)[:5]
            flag = int(flags)
            if flag & 0x904 or int(quality) < 10:
                continue
            start = int(position) - 1
            # Clips only shorten what aligns; fifty bases on the right strand are more than chance.
            place[int(name)] = int(contig.removeprefix("contig")), flag >> 4 & 1, start, start + READ_BASES // 2
    return place[:, 0] >= 0, place


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--megabases", type=int, default=100)
    options = parser.parse_args()
    rng = np.random.default_rng(9)
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contigs, genes = make_genome(rng, options.megabases * 1_000_000)
        fasta, gtf = write_genome(folder, contigs, genes)
        reads = make_reads(rng, contigs, genes, OUR_READS)
        del contigs
        start = time.process_time()
        reference = build_reference(fasta, gtf)
        results["index_build_cpu_s"] = time.process_time() - start
        index_bytes = reference.index.slots.nbytes + reference.index.postings.nbytes + reference.text.nbytes
        results["index_bytes_per_base"] = index_bytes / reference.bases
        calls = np.ascontiguousarray((reads.codes | (37 << 2)).astype(np.uint8).T)
        blocks = [np.ascontiguousarray(calls[:, i : i + BLOCK]) for i in range(0, OUR_READS, BLOCK)]
        settings = AssignSettings()
        assign(blocks[0], reference, settings)
        program = shutil.which("minimap2")
        prefix = Reads(*(array[:THEIR_READS] for array in vars(reads).values()))
        if program is None:
            print("MINIMAP2 IS ABSENT: no ratio is measured. Install Debian's minimap2.", file=sys.stderr)
        else:
            subprocess.run(
                [program, "-x", "sr", "-d", str(folder / "index.mmi"), str(fasta)],
                stderr=subprocess.DEVNULL,
                check=True,
            )
            write_reads(folder / "reads.fq", prefix.codes)
            write_reads(folder / "one.fq", prefix.codes[:1])
        ours_rates, their_rates, ratios = [], [], []
        for _ in range(ROUNDS):
            start = time.process_time()
            found = [assign(block, reference, settings) for block in blocks]
            ours_rates.append(OUR_READS / (time.process_time() - start))
            if program is not None:
                load = theirs(program, folder / "index.mmi", folder / "one.fq", folder / "one.sam")
                whole = theirs(program, folder / "index.mmi", folder / "reads.fq", folder / "reads.sam")
                their_rates.append(THEIR_READS / (whole - load))
                ratios.append(ours_rates[-1] / their_rates[-1])
        verdicts = np.concatenate([a.verdicts for a in found])
        strands = np.concatenate([a.strands for a in found]).astype(np.int64)
        contig, position = reference.contig_positions(np.concatenate([a.positions for a in found]))
        near = np.where(strands == 1, position - READ_BASES // 2, position)
        placed = (verdicts != UNMAPPED) & (verdicts != MULTI_MAPPED)
        place = np.stack([contig, strands, near, near + READ_BASES // 2], axis=1)
        results["reads_per_cpu_second"] = statistics.median(ours_rates)
        results["recall"], results["precision"] = score(reads, placed, place)
        if program is not None:
            results["minimap2_reads_per_cpu_second"] = statistics.median(their_rates)
            results["minimap2_recall"], results["minimap2_precision"] = score(
                prefix, *their_places(folder / "reads.sam", THEIR_READS)
            )
            results["ratio"] = statistics.median(ratios)
            results["recall_behind"] = results["minimap2_recall"] - results["recall"]
    for key, value in results.items():
        print(f"{key:32s} {value:14,.4f}")
    print(f"floor {FLOOR:.0f}x, goal {GOAL:.0f}x minimap2; recall at most {RECALL_FLOOR} behind, goal {RECALL_GOAL};")
    print(f"precision at least {PRECISION_FLOOR}, goal {PRECISION_GOAL}")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
