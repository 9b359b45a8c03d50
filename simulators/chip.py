"""A Stereo-seq chip: a lattice of DNA nanoballs, each with a spatial barcode (CID), cut by track lines.

The track lines are rows and columns without nanoballs, from which images of the chip are registered. Their distances
are those that CellBin's image quality control (``cellbin/iqc/settings.py``) lists for each pitch: nine segments that
repeat along both axes. At 500 nm they add up to 2,940 rows; nine such periods make the 26,460 rows of a 1 x 1 cm chip,
of which 92.2 % of the positions carry a barcode (645,784,920 in the published mouse brain chip).

The table that ties barcode to position is written as the sequencing of the chip leaves it:
``NAME.barcodeToPos.h5`` (ST_BarcodeMap ``chipMaskHDF5``), dataset ``bpMatrix_1`` of uint64 codes, rows = y,
columns = x, 0 = empty. A code has 2 bits a base, A0 C1 T2 G3, the first base in the least significant bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from numpy.typing import NDArray

#: Distances between track lines in rows (or columns), by pitch in nanometres [CellBin].
TRACK_LINE_DISTANCES: Final = {
    500: (240, 300, 330, 390, 390, 330, 300, 240, 420),
    600: (192, 240, 288, 312, 312, 288, 240, 192, 384),
    715: (112, 144, 208, 224, 224, 208, 144, 112, 160),
}
#: Base of each 2-bit code of a CID.
CID_ALPHABET: Final = "ACTG"
_CHUNK: Final = 1537


@dataclass(frozen=True)
class ChipSettings:
    """How a chip is made.

    Attributes:
        width: Columns (x).
        height: Rows (y).
        fill: Share of all lattice positions that carry a barcode, track lines included in the count.
        barcode_length: Bases of a CID, at most 31.
        pitch_nm: Distance of neighbouring spots; decides the distances of the track lines.
        duplicate_share: Share of spots whose barcode is also that of another spot.
        serial_number: SN of the chip; the file keeps only its first character.
    """

    width: int = 1200
    height: int = 1200
    fill: float = 0.922
    barcode_length: int = 25
    pitch_nm: int = 500
    duplicate_share: float = 0.0
    serial_number: str = "SIM0000001"

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a chip of {self.width} x {self.height} spots: both sides must be at least 1")
        if not 0 < self.fill <= 1 or not 0 <= self.duplicate_share < 1:
            raise ValueError(f"fill {self.fill} and duplicate_share {self.duplicate_share} are shares from 0 to 1")
        if not 12 <= self.barcode_length <= 31:
            raise ValueError(f"barcodes of {self.barcode_length} bases: 12 to 31 are possible")
        if self.pitch_nm not in TRACK_LINE_DISTANCES:
            raise ValueError(f"pitch {self.pitch_nm} nm: track lines are known for {sorted(TRACK_LINE_DISTANCES)}")


@dataclass(frozen=True)
class Chip:
    """A chip as made.

    Attributes:
        settings: What was asked for.
        cids: Barcode of each lattice position, 0 where there is none; uint64, shape (height, width).
    """

    settings: ChipSettings
    cids: NDArray[np.uint64]

    @property
    def spots(self) -> int:
        """Number of positions with a barcode."""
        return int(np.count_nonzero(self.cids))


def track_lines(extent: int, pitch_nm: int = 500) -> NDArray[np.int64]:
    """Rows (or columns) below ``extent`` that are track lines, ascending; the first period starts at row 0."""
    distances = TRACK_LINE_DISTANCES[pitch_nm]
    periods = extent // sum(distances) + 1
    lines = np.cumsum(np.tile(np.array(distances, dtype=np.int64), periods)) - 1
    return lines[lines < extent]


def encode_cid(bases: str) -> int:
    """The code of a CID: 2 bits a base, A0 C1 T2 G3, first base least significant."""
    return sum(CID_ALPHABET.index(base) << (2 * place) for place, base in enumerate(bases))


def decode_cid(code: int, length: int) -> str:
    """The bases of a CID code."""
    return "".join(CID_ALPHABET[(code >> (2 * place)) & 3] for place in range(length))


def make_chip(settings: ChipSettings, seed: int) -> Chip:
    """Make a chip: distinct random barcodes (never poly-A, whose code means empty) on the lattice between the lines.

    Raises:
        ValueError: the fill cannot be reached because the track lines alone leave fewer positions.
    """
    rng = np.random.default_rng([seed, 101])
    carries = np.ones((settings.height, settings.width), dtype=np.bool_)
    carries[track_lines(settings.height, settings.pitch_nm), :] = False
    carries[:, track_lines(settings.width, settings.pitch_nm)] = False
    open_share = np.count_nonzero(carries) / carries.size
    if settings.fill > open_share:
        raise ValueError(f"fill {settings.fill}: track lines leave only {open_share:.4f} of the positions")
    carries &= rng.random(carries.shape, dtype=np.float32) < settings.fill / open_share
    spots = int(np.count_nonzero(carries))
    codes = _distinct_codes(rng, spots, settings.barcode_length)
    if duplicates := min(round(spots * settings.duplicate_share), spots // 2):
        # Each of the first members of a random pairing takes the barcode of its partner.
        pairs = rng.permutation(spots)[: 2 * duplicates].reshape(2, duplicates)
        codes[pairs[0]] = codes[pairs[1]]
    cids = np.zeros(carries.shape, dtype=np.uint64)
    cids[carries] = codes
    return Chip(settings, cids)


def write_chip(chip: Chip, path: Path) -> None:
    """Write the barcode table as ``barcodeToPos.h5``."""
    height, width = chip.cids.shape
    with h5py.File(path, "w", track_order=False) as file:
        dataset = file.create_dataset(
            "bpMatrix_1",
            data=chip.cids[:, :, np.newaxis],
            dtype="<u8",
            chunks=(min(_CHUNK, height), min(_CHUNK, width), 1),
            compression="gzip",
            compression_opts=6,
            track_times=False,
        )
        settings = chip.settings
        # minY, minX, barcode length, pitch in nm, and two zeros: the order of chipMaskHDF5.
        dataset.attrs["dnbInfo"] = np.array([0, 0, settings.barcode_length, settings.pitch_nm, 0, 0], dtype="<u4")
        dataset.attrs["chipInfo"] = np.int8(ord(settings.serial_number[:1] or "S"))


def _distinct_codes(rng: np.random.Generator, count: int, length: int) -> NDArray[np.uint64]:
    """``count`` distinct random codes of ``length`` bases, none of them 0, in random order."""
    values = 1 << (2 * length)
    if count > values // 2:
        raise ValueError(f"{count} spots need more than {length} bases of barcode")
    codes = rng.integers(1, values, size=count, dtype=np.uint64)
    while True:
        _, first = np.unique(codes, return_index=True)
        if first.size == count:
            return codes
        repeated = np.ones(count, dtype=np.bool_)
        repeated[first] = False
        codes[repeated] = rng.integers(1, values, size=count - first.size, dtype=np.uint64)
