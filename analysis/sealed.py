"""Files with a seal behind their content: sixteen bytes that tell damage from what was written.

The seal is a magic word of 8 bytes, the CRC32C of all bytes before it (u32) and a version (u32), little endian. HDF5
files stay readable by every program: the HDF5 library looks at nothing behind its own end.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import crc32c

_SEAL = struct.Struct("<8sII")
_PIECE_BYTES = 16 << 20


class Seal(NamedTuple):
    """What stands behind a file's content: the checksum that it had when written, and its version."""

    crc: int
    version: int


def seal(path: Path, magic: bytes, version: int) -> None:
    """Put a seal behind a file's content.

    Args:
        path: The file.
        magic: 8 bytes that name its kind.
        version: Of its layout.
    """
    crc = _crc_of(path, path.stat().st_size)
    with path.open("ab") as stream:
        stream.write(_SEAL.pack(magic, crc, version))


def seal_of(path: Path, magic: bytes) -> Seal | None:
    """The seal of a file, or None if it ends in none of this kind."""
    size = path.stat().st_size - _SEAL.size
    if size <= 0:
        return None
    with path.open("rb") as stream:
        stream.seek(size)
        found, crc, version = _SEAL.unpack(stream.read(_SEAL.size))
    return Seal(crc, version) if found == magic else None


def is_intact(path: Path, found: Seal) -> bool:
    """Whether a sealed file's content still has the checksum of its seal."""
    return _crc_of(path, path.stat().st_size - _SEAL.size) == found.crc


def _crc_of(path: Path, size: int) -> int:
    crc = 0
    with path.open("rb") as stream:
        while size > 0:
            piece = stream.read(min(_PIECE_BYTES, size))
            crc = crc32c.crc32c(piece, crc)
            size -= len(piece)
    return crc
