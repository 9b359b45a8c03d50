"""Spatial and molecular barcodes (CID, MID): from base calls to packed integers, and their quality rules.

The two barcodes of a Stereo-seq read are packed differently, as its tools do (checked on a published read:
CID ``TATAGTACATATGATTCCAGGTCCA`` is 100904410303266, MID ``CGGTCCAACT`` is 0x6B507):

* CID: 2 bits a base, A0 C1 T2 G3, the first base least significant (ST_BarcodeMap, ``barcodeToPos.h5``).
* MID: 2 bits a base, A0 C1 G2 T3, the first base most significant (BAM tags UR and UB, in hexadecimal).

Base calls come as a cycle-major block: one row per cycle, one column per cluster, one BCL byte
(``base | quality << 2``, A0 C1 G2 T3, 0 = no call) each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cartoseq.streaming.kernel import kernel

MAX_BASES = 32

MID_OK = 0
MID_N = 1
MID_HOMOPOLYMER = 2
MID_LOW_QUALITY = 3

_CID_ALPHABET = "ACTG"
_MID_ALPHABET = "ACGT"
_CID_CODES = {base: code for code, base in enumerate(_CID_ALPHABET)}
_MID_CODES = {base: code for code, base in enumerate(_MID_ALPHABET)}

# A BCL byte below this has a quality below 10.
_QUALITY_10 = np.uint8(10 << 2)
# Clusters packed at a time: the rows of one piece, its scratch and its results stay in the first-level cache.
_PIECE = 1024


def encode_cid(bases: str) -> int:
    """Pack a spatial barcode of at most 32 bases.

    Raises:
        ValueError: a character outside ACGT, or more than 32 bases.
    """
    return sum(code << (2 * i) for i, code in enumerate(_codes(bases, _CID_CODES)))


def decode_cid(cid: int, length: int) -> str:
    """Unpack a spatial barcode of ``length`` bases."""
    return "".join(_CID_ALPHABET[(int(cid) >> (2 * i)) & 3] for i in range(length))


def encode_mid(bases: str) -> int:
    """Pack a molecular barcode of at most 32 bases.

    Raises:
        ValueError: a character outside ACGT, or more than 32 bases.
    """
    packed = 0
    for code in _codes(bases, _MID_CODES):
        packed = packed << 2 | code
    return packed


def decode_mid(mid: int, length: int) -> str:
    """Unpack a molecular barcode of ``length`` bases."""
    return "".join(_MID_ALPHABET[(int(mid) >> (2 * i)) & 3] for i in range(length - 1, -1, -1))


def _codes(bases: str, alphabet: dict[str, int]) -> list[int]:
    if len(bases) > MAX_BASES:
        raise ValueError(f"a barcode has at most {MAX_BASES} bases, {bases!r} has {len(bases)}")
    try:
        return [alphabet[base] for base in bases]
    except KeyError as error:
        raise ValueError(f"a barcode is made of A, C, G and T, {bases!r} has {error.args[0]!r}") from None


@kernel
def pack_cids(
    calls: NDArray[np.uint8],
    rows: NDArray[np.int64],
    cids_out: NDArray[np.uint64],
    n_counts_out: NDArray[np.uint8],
    n_positions_out: NDArray[np.uint8],
) -> None:
    """Pack the spatial barcode of every cluster of a block.

    Args:
        calls: BCL bytes, shape (cycles, clusters), C-contiguous.
        rows: The rows that hold the barcode's bases in order, at most 32.
        cids_out: Out: packed barcodes, a no-call packed as A, shape (clusters,).
        n_counts_out: Out: no-calls in the barcode, shape (clusters,).
        n_positions_out: Out: base position of the last no-call, 0 without one, shape (clusters,).
    """
    clusters = calls.shape[1]
    bases = rows.size
    packed = np.empty((8, _PIECE), np.uint8)
    no_row = np.zeros(_PIECE, np.uint8)
    for first in range(0, clusters, _PIECE):
        size = np.uint64(min(_PIECE, clusters - first))
        n_counts = n_counts_out[first : first + size]
        n_positions = n_positions_out[first : first + size]
        for i in range(size):
            n_counts[i] = 0
            n_positions[i] = 0
        # Four bases fill one byte: bytes are cheap lanes, so the wide integers are touched once only.
        for group in range(8):
            base = 4 * group
            row0 = calls[rows[base], first : first + size] if base < bases else no_row
            row1 = calls[rows[base + 1], first : first + size] if base + 1 < bases else no_row
            row2 = calls[rows[base + 2], first : first + size] if base + 2 < bases else no_row
            row3 = calls[rows[base + 3], first : first + size] if base + 3 < bases else no_row
            byte = packed[group]
            for i in range(size):
                four = np.uint8(row0[i] & np.uint8(3)) | np.uint8((row1[i] << np.uint8(2)) & np.uint8(0x0C))
                four |= np.uint8((row2[i] << np.uint8(4)) & np.uint8(0x30)) | np.uint8(row3[i] << np.uint8(6))
                byte[i] = np.uint8(four ^ np.uint8((four >> np.uint8(1)) & np.uint8(0x55)))
        for base in range(bases):
            row = calls[rows[base], first : first + size]
            for i in range(size):
                n_counts[i] += np.uint8(row[i] == np.uint8(0))
        cids = cids_out[first : first + size]
        for i in range(size):
            low = np.uint32(packed[0, i]) | np.uint32(packed[1, i]) << np.uint32(8)
            low |= np.uint32(packed[2, i]) << np.uint32(16) | np.uint32(packed[3, i]) << np.uint32(24)
            high = np.uint32(packed[4, i]) | np.uint32(packed[5, i]) << np.uint32(8)
            high |= np.uint32(packed[6, i]) << np.uint32(16) | np.uint32(packed[7, i]) << np.uint32(24)
            cids[i] = np.uint64(low) | np.uint64(high) << np.uint64(32)
        for i in range(size):
            if n_counts[i] != np.uint8(0):
                for base in range(bases):
                    if calls[rows[base], first + i] == np.uint8(0):
                        n_positions[i] = base


@kernel
def pack_mids(
    calls: NDArray[np.uint8],
    rows: NDArray[np.int64],
    mids_out: NDArray[np.uint64],
    verdicts_out: NDArray[np.uint8],
) -> None:
    """Pack the molecular barcode of every cluster of a block, and judge it.

    The rules are tested in this order: a no-call is ``MID_N``; one base repeated from end to end is
    ``MID_HOMOPOLYMER`` (ST_BarcodeMap's poly-A is the one that packs to 0); more than one base below Q10 is
    ``MID_LOW_QUALITY``.

    Args:
        calls: BCL bytes, shape (cycles, clusters), C-contiguous.
        rows: The rows that hold the barcode's bases in order, at most 32. With no rows at all every
            barcode is 0 and ``MID_OK``.
        mids_out: Out: packed barcodes, a no-call packed as A, shape (clusters,).
        verdicts_out: Out: one of the ``MID_`` codes, shape (clusters,).
    """
    clusters = calls.shape[1]
    bases = rows.size
    low = np.empty(_PIECE, np.uint8)
    differing = np.empty(_PIECE, np.uint8)
    absent = np.empty(_PIECE, np.uint8)
    for first in range(0, clusters, _PIECE):
        size = np.uint64(min(_PIECE, clusters - first))
        mids = mids_out[first : first + size]
        verdicts = verdicts_out[first : first + size]
        for i in range(size):
            mids[i] = np.uint64(0)
            verdicts[i] = 0
            low[i] = 0
            differing[i] = 0
            absent[i] = 0
        if bases == 0:
            continue
        leading = calls[rows[0], first : first + size]
        for base in range(bases):
            row = calls[rows[base], first : first + size]
            shift = np.uint64(2 * (bases - 1 - base))
            for i in range(size):
                mids[i] |= np.uint64(row[i] & np.uint8(3)) << shift
            for i in range(size):
                call = row[i]
                low[i] += np.uint8(call < _QUALITY_10)
                absent[i] |= np.uint8(call == np.uint8(0))
                differing[i] |= (call ^ leading[i]) & np.uint8(3)
        for i in range(size):
            verdict = np.uint8(MID_LOW_QUALITY) if low[i] > np.uint8(1) else np.uint8(MID_OK)
            verdict = np.uint8(MID_HOMOPOLYMER) if differing[i] == np.uint8(0) else verdict
            verdicts[i] = np.uint8(MID_N) if absent[i] != np.uint8(0) else verdict
