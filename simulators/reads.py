"""Reads: from a molecule to the bytes of its two FASTQ records, errors and qualities included.

Every random number of a read comes from a counter-based generator (splitmix64) seeded by the run's seed and the read's
number, so the bytes of a read do not depend on the size of the blocks that they are written in.

Read names are those of MGI sequencers: ``@<slide>L<lane>C<column>R<row><number>/1``, one field of view after another.
Qualities fall with the cycle; a wrong base has a low quality more often than a right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.chip import Chip
from cartoseq.simulators.files import gzip_writer
from cartoseq.simulators.kernel import inlined, kernel
from cartoseq.simulators.library import (
    ADAPTER,
    CHIP_DNA,
    MOLECULE,
    OFF_CHIP,
    UNREADABLE_MID,
    LibrarySettings,
    Molecules,
    ReadPlan,
)

_BLOCK_READS: Final = 32_768
_READS_PER_VIEW: Final = 250_000
_VIEW_COLUMNS: Final = 24
_SLIDE: Final = "E100026571"
_NAME_BYTES: Final = 32  # '@', slide, L1, C000, R000, 8 digits, '/1', newline
_TABLE: Final = 4096
#: Common adapter of MGI libraries behind read 2, and where it starts at the latest.
_ADAPTER: Final = "AAGTCGGATCGTAGCCATGTCGTTCTGTGAGCCAAGGAGTTG"
_ADAPTER_INSERT: Final = 30
#: Rows of the tally: CID and MID reads with 0, 1, 2 or more wrong bases (N counts as wrong), then sums.
TALLY: Final = (
    "cid_exact", "cid_one_wrong", "cid_more_wrong", "cid_with_n",
    "mid_exact", "mid_one_wrong", "mid_more_wrong", "mid_with_n",
    "template_wrong_bases", "template_bases", "q30_cid_bases", "q30_mid_bases", "q30_template_bases",
)  # fmt: skip


@dataclass(frozen=True)
class ReadTally:
    """What was written.

    Attributes:
        counts: By the names of ``TALLY``. The rows of CID and MID count the reads of kind ``MOLECULE``, the Q30 rows
            all reads.
        readable: Reads of each molecule whose CID has at most one wrong base and whose MID passes the usual filter
            (no N, not one base only, at most one base below Q10), uint32, shape (molecules,).
    """

    counts: dict[str, int]
    readable: NDArray[np.uint32]


def write_reads(
    paths: tuple[Path, Path],
    settings: LibrarySettings,
    chip: Chip,
    pool: NDArray[np.uint8],
    molecules: Molecules,
    plan: ReadPlan,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> ReadTally:
    """Write both FASTQ files, block by block.

    Args:
        paths: Read 1 (CID, MID) and read 2 (cDNA), gzipped.
        settings: Error and quality rates.
        chip: Lends the CIDs.
        pool: The sequence that templates are cut from.
        molecules: The molecules.
        plan: The reads in order.
        seed: Seed.
        progress: Called with reads done and reads in all after each block.
    """
    reads = plan.kinds.size
    readable = np.zeros(molecules.x.size, dtype=np.uint32)
    tally = np.zeros(len(TALLY), dtype=np.int64)
    with gzip_writer(paths[0]) as first, gzip_writer(paths[1]) as second:
        blocks = _blocks(settings, chip, pool, molecules, plan, seed, readable, tally)
        for done, read_1, read_2 in blocks:
            first.write(read_1)
            second.write(read_2)
            if progress is not None:
                progress(done, reads)
    return ReadTally(dict(zip(TALLY, tally.tolist(), strict=True)), readable)


def _blocks(
    settings: LibrarySettings,
    chip: Chip,
    pool: NDArray[np.uint8],
    molecules: Molecules,
    plan: ReadPlan,
    seed: int,
    readable: NDArray[np.uint32],
    tally: NDArray[np.int64],
) -> Iterator[tuple[int, memoryview, memoryview]]:
    cid_length, mid_length = chip.settings.barcode_length, settings.mid_length
    lengths = np.array([cid_length, mid_length, settings.template_length], dtype=np.int64)
    qualities, wrong_qualities = quality_tables(settings, cid_length)
    rates = (settings.cid_error, settings.mid_error, settings.template_error)
    # Thresholds on 32 random bits.
    thresholds = np.array([int(rate * 2**32) for rate in (*rates, settings.n_rate)], dtype=np.uint64)
    adapter = np.array(["ACGT".index(base) for base in _ADAPTER], dtype=np.uint8)
    # The sequence of the chip's own DNA is not published: any fixed one serves.
    chip_dna = np.random.default_rng(20_220_504).integers(0, 4, 211, dtype=np.uint8)
    cids = chip.cids[molecules.y, molecules.x]
    reverse = molecules.reverse.view(np.uint8)
    reads = plan.kinds.size
    read_bytes = (_NAME_BYTES + 2 * (cid_length + mid_length) + 4, _NAME_BYTES + 2 * settings.template_length + 4)
    names = np.frombuffer(f"@{_SLIDE}L1C000R00000000000/1\n".encode(), dtype=np.uint8).copy()
    buffers = [np.empty(_BLOCK_READS * size, dtype=np.uint8) for size in read_bytes]
    for start in range(0, reads, _BLOCK_READS):
        stop = min(start + _BLOCK_READS, reads)
        _fill_block(
            start, np.uint64(seed), plan.kinds[start:stop], plan.molecules[start:stop], cids, molecules.mids,
            molecules.places, reverse, pool, adapter, chip_dna, lengths, thresholds, qualities,
            wrong_qualities, names, buffers[0], buffers[1], readable, tally,
        )  # fmt: skip
        filled = [buffer[: (stop - start) * size].data for buffer, size in zip(buffers, read_bytes, strict=True)]
        yield stop, filled[0], filled[1]


def quality_tables(settings: LibrarySettings, cid_length: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Inverse distributions of the quality byte: of right bases by cycle, of wrong bases.

    Returns:
        Right bases, uint8, shape (cycles of both reads, 4096); wrong bases, uint8, shape (4096,). A uniform index
        below 4096 gives the FASTQ byte.
    """
    score = np.arange(2, 41)
    low, middle, high = score < 10, (score >= 10) & (score < 30), score >= 30
    shape_low = low / low.sum()
    shape_middle = np.where(middle, np.exp((score - 29) / 6.0), 0.0)
    shape_middle /= shape_middle.sum()
    shape_high = np.where(high, np.exp(-(((score - 37) / 2.5) ** 2)), 0.0)
    shape_high /= shape_high.sum()
    # Of the wrong bases 30 % still look good: a polymerase's error is read as clearly as the truth.
    wrong_high, wrong_low = 0.30, 0.15
    wrong = wrong_low * shape_low + (1 - wrong_high - wrong_low) * shape_middle + wrong_high * shape_high
    targets = _q30_by_cycle(settings, cid_length)
    errors = np.concatenate(
        [
            np.full(cid_length, settings.cid_error),
            np.full(settings.mid_length, settings.mid_error),
            np.full(settings.template_length, settings.template_error),
        ]
    )
    good = np.clip((targets - errors * wrong_high) / (1 - errors), 0.0, 1 - 1e-3)
    one_entry = 1.0 / _TABLE
    right = one_entry * shape_low + np.outer(1 - one_entry - good, shape_middle) + np.outer(good, shape_high)
    ticks = (np.arange(_TABLE) + 0.5) / _TABLE
    tables = np.stack([score[np.searchsorted(np.cumsum(row), ticks)] for row in right])
    wrong_table = score[np.minimum(np.searchsorted(np.cumsum(wrong), ticks), score.size - 1)]
    return (tables + 33).astype(np.uint8), (wrong_table + 33).astype(np.uint8)


def _q30_by_cycle(settings: LibrarySettings, cid_length: int) -> NDArray[np.float64]:
    """A line through the means of CID and MID over read 1; a fall of 5 points over read 2."""
    cid_middle, mid_middle = (cid_length - 1) / 2, cid_length + (settings.mid_length - 1) / 2
    slope = (settings.q30_mid - settings.q30_cid) / (mid_middle - cid_middle)
    read_1 = settings.q30_cid + slope * (np.arange(cid_length + settings.mid_length) - cid_middle)
    read_2 = settings.q30_template + np.linspace(0.025, -0.025, settings.template_length)
    targets: NDArray[np.float64] = np.clip(np.concatenate([read_1, read_2]), 0.02, 0.98)
    return targets


# --- kernels ----------------------------------------------------------------------------------------------------------


@inlined
def _mix(state: np.uint64) -> np.uint64:
    """Output of splitmix64 (Steele, Lea and Flood 2014) for a state."""
    value = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inlined
def _mistake(
    bits: np.uint64, below_n: np.uint64, base: np.int64, wrong_qualities: NDArray[np.uint8]
) -> tuple[np.int64, np.int64]:
    """Another base with the quality of a wrong one, or N."""
    if bits >> np.uint64(32) < below_n:
        return np.int64(4), np.int64(35)
    other = (base + np.int64(1) + np.int64((bits >> np.uint64(12)) % np.uint64(3))) & np.int64(3)
    return other, np.int64(wrong_qualities[bits & np.uint64(_TABLE - 1)])


@kernel
def _fill_block(
    first_read: int,
    seed: np.uint64,
    kinds: NDArray[np.uint8],
    parents: NDArray[np.uint32],
    cids: NDArray[np.uint64],
    mids: NDArray[np.uint32],
    places: NDArray[np.int64],
    reverse: NDArray[np.uint8],
    pool: NDArray[np.uint8],
    adapter: NDArray[np.uint8],
    chip_dna: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    thresholds: NDArray[np.uint64],
    qualities: NDArray[np.uint8],
    wrong_qualities: NDArray[np.uint8],
    name: NDArray[np.uint8],
    out_1: NDArray[np.uint8],
    out_2: NDArray[np.uint8],
    readable: NDArray[np.uint32],
    tally: NDArray[np.int64],
) -> None:
    """Write the records of one block of reads into ``out_1`` and ``out_2``; add to ``readable`` and ``tally``."""
    gamma = np.uint64(0x9E3779B97F4A7C15)
    last_entry = np.uint64(_TABLE - 1)
    cid_length, mid_length, template_length = lengths[0], lengths[1], lengths[2]
    barcode_length = cid_length + mid_length
    half = np.uint64(32)
    below_n = thresholds[3]
    below_cid, below_mid, below_template = thresholds[0] + below_n, thresholds[1] + below_n, thresholds[2] + below_n
    q30_cid = q30_mid = q30_template = np.int64(0)
    letters = np.array([65, 67, 71, 84, 78], dtype=np.uint8)
    bases = np.empty(max(barcode_length, template_length), dtype=np.uint8)
    at_1 = at_2 = 0
    for row in range(kinds.size):
        read = first_read + row
        kind, parent = kinds[row], np.int64(parents[row])
        state = _mix(seed * gamma + np.uint64(read))
        # Names.
        view, number = read // _READS_PER_VIEW, read % _READS_PER_VIEW
        column, line = view % _VIEW_COLUMNS + 1, view // _VIEW_COLUMNS + 1
        for place in range(3):
            name[16 - place] = 48 + column % 10
            name[20 - place] = 48 + line % 10
            column //= 10
            line //= 10
        for place in range(8):
            name[28 - place] = 48 + number % 10
            number //= 10
        out_1[at_1 : at_1 + 32] = name
        out_2[at_2 : at_2 + 32] = name
        out_2[at_2 + 30] = 50
        # Read 1: true bases.
        state += gamma
        bits = _mix(state)
        code = cids[parent]
        if kind == OFF_CHIP:
            code = bits
            state += gamma
            bits = _mix(state)
        for place in range(cid_length):
            base = (code >> np.uint64(2 * place)) & np.uint64(3)
            bases[place] = base ^ (base >> np.uint64(1))  # A C T G to A C G T
        mid = np.uint64(mids[parent]) if kind <= UNREADABLE_MID else bits
        for place in range(mid_length):
            bases[cid_length + place] = (mid >> np.uint64(2 * (mid_length - 1 - place))) & np.uint64(3)
        # What is wrong with an unreadable MID: published 0.16 % with an N, 0.15 % poly-A, the others low quality.
        fault = np.uint64(10_000)
        if kind == UNREADABLE_MID:
            state += gamma
            fault = _mix(state) % fault
        poly_a, with_n = fault < np.uint64(15), (fault >= np.uint64(15)) & (fault < np.uint64(31))
        if poly_a:
            bases[cid_length:barcode_length] = 0
        # Read 1: as read, first the CID, then the MID.
        sequence, quality = at_1 + 32, at_1 + 32 + barcode_length + 3
        wrong_cid = 0
        n_cid = good = np.int64(0)
        for place in range(cid_length):
            state += gamma
            bits = _mix(state)
            base, score = np.int64(bases[place]), np.int64(qualities[place, bits & last_entry])
            if bits >> half < below_cid:
                wrong_cid += 1
                n_cid += bits >> half < below_n
                base, score = _mistake(bits, below_n, base, wrong_qualities)
            good += score >= 63
            out_1[sequence + place] = letters[base]
            out_1[quality + place] = score
        q30_cid += good
        wrong_mid = 0
        n_mid = low_mid = good = np.int64(0)
        for place in range(cid_length, barcode_length):
            state += gamma
            bits = _mix(state)
            base, score = np.int64(bases[place]), np.int64(qualities[place, bits & last_entry])
            if bits >> half < below_mid and not poly_a:
                wrong_mid += 1
                n_mid += bits >> half < below_n
                base, score = _mistake(bits, below_n, base, wrong_qualities)
            low_mid += score < 43
            good += score >= 63
            out_1[sequence + place] = letters[base]
            out_1[quality + place] = score
        q30_mid += good
        if kind == UNREADABLE_MID and not poly_a:
            state += gamma
            bits = _mix(state)
            if with_n:
                place = cid_length + np.int64(bits % np.uint64(mid_length))
                out_1[sequence + place], out_1[quality + place] = 78, 35
            else:
                # Two to four bases below Q10, a third of them wrong, spread from a random one on.
                low = 2 + np.int64((bits >> np.uint64(20)) % np.uint64(3))
                start = bits % np.uint64(mid_length)
                for number_low in range(low):
                    step = np.uint64(number_low) * np.uint64(3 if mid_length % 3 else 1)
                    place = cid_length + np.int64((start + step) % np.uint64(mid_length))
                    state += gamma
                    bits = _mix(state)
                    q30_mid -= out_1[quality + place] >= 63
                    out_1[quality + place] = 35 + np.int64((bits >> np.uint64(8)) % np.uint64(8))
                    if bits % np.uint64(3) == np.uint64(0):
                        out_1[sequence + place] = letters[(bits >> np.uint64(16)) & np.uint64(3)]
        if kind == MOLECULE:
            tally[min(wrong_cid, 2)] += 1
            tally[3] += n_cid > 0
            tally[4 + min(wrong_mid, 2)] += 1
            tally[7] += n_mid > 0
            if wrong_cid <= 1 and n_mid == 0 and low_mid <= 1:
                alike = True
                for place in range(1, mid_length):
                    alike &= out_1[sequence + cid_length + place] == out_1[sequence + cid_length]
                readable[parent] += not alike
        out_1[sequence + barcode_length] = 10
        out_1[sequence + barcode_length + 1] = 43
        out_1[sequence + barcode_length + 2] = 10
        out_1[quality + barcode_length] = 10
        at_1 = quality + barcode_length + 1
        # Read 2: true bases.
        if kind == CHIP_DNA:
            state += gamma
            phase = np.int64(_mix(state) % np.uint64(chip_dna.size))
            for place in range(template_length):
                bases[place] = chip_dna[(phase + place) % chip_dna.size]
        else:
            origin = places[parent]
            if reverse[parent]:
                for place in range(template_length):
                    bases[place] = 3 - pool[origin - place] if pool[origin - place] < 4 else 4
            else:
                for place in range(template_length):
                    bases[place] = pool[origin + place]
        if kind == ADAPTER:
            state += gamma
            insert = np.int64(_mix(state) % np.uint64(_ADAPTER_INSERT + 1))
            for place in range(insert, template_length):
                if place - insert < adapter.size:
                    bases[place] = adapter[place - insert]
                else:
                    state += gamma
                    bases[place] = _mix(state) & np.uint64(3)
        # Read 2: as read.
        sequence, quality = at_2 + 32, at_2 + 32 + template_length + 3
        wrong, good = 0, np.int64(0)
        for place in range(template_length):
            state += gamma
            bits = _mix(state)
            base = np.int64(bases[place])
            score = np.int64(qualities[barcode_length + place, bits & last_entry])
            if bits >> half < below_template:
                wrong += 1
                base, score = _mistake(bits, below_n, base, wrong_qualities)
            if base > 3:
                base, score = np.int64(4), np.int64(35)
            good += score >= 63
            out_2[sequence + place] = letters[base]
            out_2[quality + place] = score
        q30_template += good
        if kind == MOLECULE:
            tally[8] += wrong
            tally[9] += template_length
        out_2[sequence + template_length] = 10
        out_2[sequence + template_length + 1] = 43
        out_2[sequence + template_length + 2] = 10
        out_2[quality + template_length] = 10
        at_2 = quality + template_length + 1
    tally[10] += q30_cid
    tally[11] += q30_mid
    tally[12] += q30_template
