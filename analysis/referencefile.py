"""The saved reference index: facts and arrays in one file, replaced as a whole, checked when read.

Layout (docs/formats/reference-index.md): the magic, the length of the header, the header (JSON, UTF-8: content key,
facts, and name, dtype, shape, offset and CRC-32C of each array), then the arrays, little-endian, each at a multiple of
64 bytes.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import crc32c
import numpy as np
from numpy.typing import NDArray

MAGIC: Final = b"CSEQREF1"
_ALIGNMENT: Final = 64
_PIECE: Final = 1 << 24


def write_reference(path: Path, key: str, facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write a saved index; readers see the old file or the new one, never a part.

    Args:
        path: File to replace; its folder is made.
        key: Hash of the content that the index was built from.
        facts: What is not an array; JSON.
        arrays: Arrays of numbers by name.

    Raises:
        OSError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table = []
    offset = 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array)
        table.append(
            {
                "name": name,
                "dtype": data.dtype.newbyteorder("<").str,
                "shape": list(data.shape),
                "offset": offset,
                "crc32c": crc32c.crc32c(_bytes(data)),
            }
        )
        offset += -(-data.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps({"key": key, "facts": facts, "arrays": table}, sort_keys=True).encode()
    start = -(-(len(MAGIC) + 8 + len(header)) // _ALIGNMENT) * _ALIGNMENT
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write((MAGIC + len(header).to_bytes(8, "little") + header).ljust(start, b"\0"))
            for array in arrays.values():
                data = np.ascontiguousarray(array)
                for first in range(0, data.nbytes, _PIECE):
                    file.write(_bytes(data)[first : first + _PIECE])
                file.write(b"\0" * (-data.nbytes % _ALIGNMENT))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_reference(path: Path, key: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """Return facts and arrays of a saved index, or None where there is none that is true.

    A file that is missing, was built from other content or another layout, or is damaged is no error: what it holds
    can be built again.

    Args:
        path: The saved index.
        key: Hash of the content that it must have been built from.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            length = int.from_bytes(file.read(8), "little")
            if length > os.fstat(file.fileno()).st_size:
                return None
            header = json.loads(file.read(length))
            if header["key"] != key:
                return None
            start = -(-(len(MAGIC) + 8 + length) // _ALIGNMENT) * _ALIGNMENT
            arrays: dict[str, NDArray[Any]] = {}
            for entry in header["arrays"]:
                array = np.empty(entry["shape"], dtype=entry["dtype"])
                file.seek(start + entry["offset"])
                data = _bytes(array)
                if file.readinto(data) != array.nbytes or crc32c.crc32c(data) != entry["crc32c"]:
                    return None
                arrays[entry["name"]] = array
            return header["facts"], arrays
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bytes(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array, without a copy."""
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # NumPy's stubs hide its buffer
