"""Templates: from a matrix of base calls to packed reads, trimmed of poly-A, poly-T and adapters.

A packed read holds 2 bits a base (A0 C1 G2 T3), the first base least significant, 32 bases a word, and one word of
zeros beyond its last. Its *no-calls* are marked 01 in a matrix of the same shape. No-calls at its end are not part of
the read. What is cut from the front (`heads`) is gone from the packed read; positions count it back in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.bitcount import reverse_bytes
from cartoseq.analysis.leaf import leaf
from cartoseq.analysis.packed import Limits, Scratch, Trimming, signed

MAX_BASES = 512
"""Longest template that is packed."""
_ONES = np.uint64(0x5555555555555555)


@leaf
def _pack_four(
    calls: NDArray[np.uint8], base: int, first: int, packed: NDArray[np.uint8], lost: NDArray[np.uint8]
) -> None:
    """Pack four bases of each read, and their no-calls, into a byte each; beyond the last base both are 0."""
    n = np.uint64(packed.size)
    if base + 4 <= calls.shape[0]:
        end = first + packed.size
        a, b, c, d = (
            calls[base, first:end],
            calls[base + 1, first:end],
            calls[base + 2, first:end],
            calls[base + 3, first:end],
        )
        three, none = np.uint8(3), np.uint8(0)
        for i in range(n):
            low = (a[i] & three) | (b[i] & three) << np.uint8(2)
            packed[i] = low | (c[i] & three) << np.uint8(4) | (d[i] & three) << np.uint8(6)
            low_lost = np.uint8(a[i] == none) | np.uint8(b[i] == none) << np.uint8(2)
            lost[i] = low_lost | np.uint8(c[i] == none) << np.uint8(4) | np.uint8(d[i] == none) << np.uint8(6)
        return
    for i in range(n):
        packed[i] = np.uint8(0)
        lost[i] = np.uint8(0)
    for j in range(max(0, calls.shape[0] - base)):
        row = calls[base + j, first : first + packed.size]
        shift = np.uint8(2 * j)
        for i in range(n):
            packed[i] |= (row[i] & np.uint8(3)) << shift
            lost[i] |= np.uint8(row[i] == np.uint8(0)) << shift


@leaf
def _join_bytes(groups: NDArray[np.uint8], out: NDArray[np.uint64]) -> None:
    """Join eight bytes of each read to a word, the first least significant."""
    a, b, c, d = groups[0], groups[1], groups[2], groups[3]
    e, f, g, h = groups[4], groups[5], groups[6], groups[7]
    for i in range(np.uint64(out.size)):
        low = np.uint64(a[i]) | np.uint64(b[i]) << np.uint64(8) | np.uint64(c[i]) << np.uint64(16)
        middle = np.uint64(d[i]) << np.uint64(24) | np.uint64(e[i]) << np.uint64(32)
        high = np.uint64(f[i]) << np.uint64(40) | np.uint64(g[i]) << np.uint64(48) | np.uint64(h[i]) << np.uint64(56)
        out[i] = low | middle | high


@leaf
def pack_reads(
    calls: NDArray[np.uint8],
    first: int,
    forward: NDArray[np.uint64],
    unknown: NDArray[np.uint64],
    lengths: NDArray[np.uint16],
    scratch: Scratch,
) -> None:
    """Pack some clusters of a block.

    Args:
        calls: BCL bytes, shape (bases, clusters).
        first: First cluster.
        forward: Out: packed reads, shape (n, words).
        unknown: Out: no-calls, shape (n, words).
        lengths: Out: bases up to the last called one, shape (n,).
        scratch: Working space.
    """
    n = lengths.size
    bases = calls.shape[0]
    words = forward.shape[1]
    # Four bases make a byte, eight bytes a word: bytes of 8 bits fill vector registers better than words do.
    packed, lost = scratch.bytes_[0], scratch.bytes_[1]
    for word in range(words):
        for group in range(8):
            _pack_four(calls, word * 32 + group * 4, first, packed[group, :n], lost[group, :n])
        _join_bytes(packed, forward[:, word])
        _join_bytes(lost, unknown[:, word])
    for r in range(n):
        length = bases
        while length > 0 and (unknown[r, (length - 1) >> 5] >> np.uint64(2 * ((length - 1) & 31))) & np.uint64(1):
            length -= 1
        lengths[r] = np.uint16(length)


@leaf
def count_needed(lengths: NDArray[np.uint16], limits: Limits, needed: NDArray[np.uint16]) -> None:
    """Write how many bases of each read must align: the whole part of the share of all bases but one (STAR's rule).

    Args:
        lengths: Bases of each trimmed read, shape (n,).
        limits: What is accepted.
        needed: Out, shape (n,).
    """
    for r in range(np.uint64(lengths.size)):
        share = int(limits.aligned_share * max(signed(lengths[r]) - 1, 0))
        needed[r] = np.uint16(max(limits.aligned_least, share))


@leaf
def reverse_reads(
    forward: NDArray[np.uint64],
    unknown: NDArray[np.uint64],
    lengths: NDArray[np.uint16],
    reverse: NDArray[np.uint64],
    reverse_unknown: NDArray[np.uint64],
    scratch: Scratch,
) -> None:
    """Write the reverse complement of each read, and its no-calls; clear what lies beyond each read's end.

    Args:
        forward: In and out: packed reads, C-contiguous, shape (n, words).
        unknown: In and out: their no-calls.
        lengths: Bases of each, shape (n,).
        reverse: Out: packed reverse complements, C-contiguous.
        reverse_unknown: Out: their no-calls.
        scratch: Working space.
    """
    words = np.uint64(forward.shape[1])
    _turn(forward.reshape(-1), np.uint64(0xFFFFFFFFFFFFFFFF), reverse.reshape(-1))
    for r in range(np.uint64(lengths.size)):
        length = np.uint64(lengths[r])
        used = (length + np.uint64(31)) >> np.uint64(5)
        if length & np.uint64(31):
            keep = (np.uint64(1) << ((length & np.uint64(31)) << np.uint64(1))) - np.uint64(1)
            forward[r, used - np.uint64(1)] &= keep
            unknown[r, used - np.uint64(1)] &= keep
        for w in range(used, words):
            forward[r, w] = np.uint64(0)
            unknown[r, w] = np.uint64(0)
        any_lost = np.uint64(0)
        for w in range(used):
            any_lost |= unknown[r, w]
            reverse_unknown[r, w] = np.uint64(0)
        for w in range(used, words):
            reverse_unknown[r, w] = np.uint64(0)
        _turn_row(reverse[r], length, scratch.run)
        if any_lost:
            _turn(unknown[r], np.uint64(0), reverse_unknown[r])
            _turn_row(reverse_unknown[r], length, scratch.run)


@leaf
def _turn(words: NDArray[np.uint64], flip: np.uint64, out: NDArray[np.uint64]) -> None:
    """Write each word with its 2-bit groups in reverse order, xored with `flip`."""
    for i in range(np.uint64(words.size)):
        x = words[i] ^ flip
        x = ((x >> np.uint64(2)) & np.uint64(0x3333333333333333)) | (
            (x & np.uint64(0x3333333333333333)) << np.uint64(2)
        )
        x = ((x >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)) | (
            (x & np.uint64(0x0F0F0F0F0F0F0F0F)) << np.uint64(4)
        )
        out[i] = reverse_bytes(x)


@leaf
def _turn_row(row: NDArray[np.uint64], length: np.uint64, spare: NDArray[np.uint64]) -> None:
    """Put the turned words of a read in reverse order, its first base first, and clear what lies beyond its end.

    Args:
        row: In and out: the words, each of them turned.
        length: Bases of the read.
        spare: Scratch, a word more than a row.
    """
    used = (length + np.uint64(31)) >> np.uint64(5)
    rest = ((used << np.uint64(5)) - length) << np.uint64(1)
    for w in range(used):
        spare[w] = row[used - np.uint64(1) - w]
    spare[used] = np.uint64(0)
    for w in range(used):
        row[w] = (spare[w] >> rest) | ((spare[w + np.uint64(1)] << (np.uint64(63) - rest)) << np.uint64(1))
    for w in range(used, np.uint64(row.size)):
        row[w] = np.uint64(0)


@leaf
def trim_reads(
    forward: NDArray[np.uint64],
    unknown: NDArray[np.uint64],
    lengths: NDArray[np.uint16],
    heads: NDArray[np.uint16],
    trimming: Trimming,
    scratch: Scratch,
) -> None:
    """Cut adapters and tails off the reads.

    Args:
        forward: In and out: packed reads, shape (n, words).
        unknown: In and out: their no-calls.
        lengths: In and out: bases of each read.
        heads: Out: bases cut off the front.
        trimming: What is cut off.
        scratch: Working space.
    """
    for a in range(trimming.adapter_bases.size):
        adapter = trimming.adapters[a, : trimming.adapter_bases[a]]
        trim_adapter(forward, adapter, trimming.adapter_overlap, trimming.adapter_mismatch_rate, lengths)
    if trimming.tails:
        trim_tails(forward, unknown, 0, trimming.run, trimming.run_mismatches, lengths, scratch)
    for r in range(np.uint64(heads.size)):
        heads[r] = np.uint16(0)
    if trimming.heads:
        trim_heads(forward, unknown, 3, trimming.run, trimming.run_mismatches, lengths, heads)


@leaf
def trim_tails(
    forward: NDArray[np.uint64],
    unknown: NDArray[np.uint64],
    letter: int,
    run: int,
    mismatches: int,
    lengths: NDArray[np.uint16],
    scratch: Scratch,
) -> None:
    """End each read where a run of one base begins: its poly-A tail, whatever follows it.

    The run is the first window of `run` bases that begins with the base and has at most `mismatches` others.

    Args:
        forward: Packed reads, shape (n, words).
        unknown: Their no-calls: other bases.
        letter: Code of the base, A0 C1 G2 T3.
        run: Bases of the window.
        mismatches: Others allowed in it.
        lengths: In and out: bases of each read.
        scratch: Working space.
    """
    same = scratch.run
    least = max(1, (run - mismatches) // (mismatches + 1))
    for r in range(lengths.size):
        length = signed(lengths[r])
        if length < run or (least >= 7 and not _may_hold_run(forward[r], np.uint64(letter), length)):
            continue
        if _holds_run(forward[r], unknown[r], np.uint64(letter), least, length, same):
            at = _find_run(forward[r], unknown[r], np.uint64(letter), run, mismatches, length)
            if at >= 0:
                lengths[r] = np.uint16(at)


@leaf
def _other(row: NDArray[np.uint64], lost: NDArray[np.uint64], letter: np.uint64, at: int) -> int:
    """Return 1 if a base is another than `letter`, or not known."""
    word = np.uint64(at) >> np.uint64(5)
    shift = (np.uint64(at) & np.uint64(31)) << np.uint64(1)
    code = (row[word] >> shift) & np.uint64(3)
    return 1 if code != letter or (lost[word] >> shift) & np.uint64(1) else 0


@leaf
def _find_run(
    row: NDArray[np.uint64], lost: NDArray[np.uint64], letter: np.uint64, run: int, mismatches: int, length: int
) -> int:
    """Return where the first run begins, or -1."""
    others = 0
    for i in range(length):
        others += _other(row, lost, letter, i)
        if i >= run:
            others -= _other(row, lost, letter, i - run)
        if i >= run - 1 and others <= mismatches and _other(row, lost, letter, i - run + 1) == 0:
            return i - run + 1
    return -1


@leaf
def _may_hold_run(row: NDArray[np.uint64], letter: np.uint64, length: int) -> bool:
    """Tell whether seven equal bases in a row are possible: they fill a byte of four bases, wherever they begin.

    No-calls are packed as A, and may so be taken for one here.
    """
    pattern = letter * _ONES
    words = (length + 31) >> 5
    found = np.uint64(0)
    for w in range(words):
        x = row[w] ^ pattern
        if w == words - 1 and length & 31:
            x |= np.uint64(0xFFFFFFFFFFFFFFFF) << np.uint64(2 * (length & 31))
        # A byte is zero where subtracting one borrows into its highest bit (Mycroft, 1987).
        found |= (x - np.uint64(0x0101010101010101)) & ~x & np.uint64(0x8080808080808080)
    return bool(found != np.uint64(0))


@leaf
def _holds_run(
    row: NDArray[np.uint64],
    lost: NDArray[np.uint64],
    letter: np.uint64,
    least: int,
    length: int,
    same: NDArray[np.uint64],
) -> bool:
    """Tell whether there are `least` equal bases in a row anywhere.

    Runs are shortened by shifting them over themselves; what is left was long enough. `same` is scratch, one word
    longer than the row.
    """
    pattern = letter * _ONES
    words = (length + 31) // 32
    for w in range(words):
        x = row[w] ^ pattern
        same[w] = ~((x | (x >> np.uint64(1))) | lost[w]) & _ONES
    if length & 31:
        same[words - 1] &= (np.uint64(1) << np.uint64(2 * (length & 31))) - np.uint64(1)
    same[words] = np.uint64(0)
    known = 1
    while known < least:
        step = min(known, least - known, 31)
        left = np.uint64(2 * step)
        for w in range(words):
            same[w] &= (same[w] >> left) | (same[w + 1] << (np.uint64(64) - left))
        known += step
    found = np.uint64(0)
    for w in range(words):
        found |= same[w]
    return bool(found != np.uint64(0))


@leaf
def trim_heads(
    forward: NDArray[np.uint64],
    unknown: NDArray[np.uint64],
    letter: int,
    run: int,
    mismatches: int,
    lengths: NDArray[np.uint16],
    heads: NDArray[np.uint16],
) -> None:
    """Cut off a run of one base at each read's front: the poly-T of a read that begins in the tail.

    The run begins at the first base and goes on while no window of `run` bases has more than `mismatches` others.

    Args:
        forward: In and out: packed reads, shape (n, words).
        unknown: In and out: their no-calls.
        letter: Code of the base.
        run: Least bases of the run.
        mismatches: Others allowed in a window.
        lengths: In and out: bases of each read.
        heads: Out: bases cut off.
    """
    words = forward.shape[1]
    for r in range(lengths.size):
        heads[r] = 0
        length = signed(lengths[r])
        if length < run:
            continue
        row, lost = forward[r], unknown[r]
        others = 0
        for i in range(run):
            others += _other(row, lost, np.uint64(letter), i)
        if others > mismatches:
            continue
        end = run
        while end < length and others <= mismatches:
            others += _other(row, lost, np.uint64(letter), end) - _other(row, lost, np.uint64(letter), end - run)
            if others <= mismatches:
                end += 1
        while end > 0 and _other(row, lost, np.uint64(letter), end - 1) == 1:
            end -= 1
        heads[r] = np.uint16(end)
        lengths[r] = np.uint16(length - end)
        skip, shift = end // 32, np.uint64(2 * (end & 31))
        for w in range(words):
            source = w + skip
            low = row[source] if source < words else np.uint64(0)
            high = row[source + 1] if source + 1 < words else np.uint64(0)
            row[w] = (low >> shift) | ((high << (np.uint64(63) - shift)) << np.uint64(1))
            low = lost[source] if source < words else np.uint64(0)
            high = lost[source + 1] if source + 1 < words else np.uint64(0)
            lost[w] = (low >> shift) | ((high << (np.uint64(63) - shift)) << np.uint64(1))


@leaf
def trim_adapter(
    forward: NDArray[np.uint64],
    adapter: NDArray[np.uint8],
    least: int,
    rate: float,
    lengths: NDArray[np.uint16],
) -> None:
    """End each read where an adapter begins: its leftmost occurrence, whole or cut short by the read's end.

    Args:
        forward: Packed reads, shape (n, words).
        adapter: Codes of the adapter, shape (m,); only the first 32 bases are compared.
        least: Least overlap with an adapter that is cut short.
        rate: Mismatches allowed per compared base.
        lengths: In and out: bases of each read.
    """
    size = min(adapter.size, 32)
    pattern = np.uint64(0)
    for i in range(size):
        pattern |= np.uint64(adapter[i]) << np.uint64(2 * i)
    for r in range(lengths.size):
        row = forward[r]
        length = signed(lengths[r])
        for at in range(length - min(least, size) + 1):
            overlap = min(size, length - at)
            word = np.uint64(at) >> np.uint64(5)
            shift = (np.uint64(at) & np.uint64(31)) << np.uint64(1)
            x = (row[word] >> shift) | ((row[word + np.uint64(1)] << (np.uint64(63) - shift)) << np.uint64(1))
            x ^= pattern
            x = (x | (x >> np.uint64(1))) & _ONES
            if overlap < 32:
                x &= (np.uint64(1) << np.uint64(2 * overlap)) - np.uint64(1)
            allowed = signed(rate * overlap)
            count = 0
            while x and count <= allowed:
                x &= x - np.uint64(1)
                count += 1
            if count <= allowed:
                lengths[r] = np.uint16(at)
                break
