"""What is wrong with a gzip or an HDF5 file, in words: every library says it differently, and none for people."""

from __future__ import annotations

import re
from pathlib import Path

COPY_AGAIN = "Copy the file again from where it came; `gzip -t` must accept it."


def gzip_fault(error: Exception) -> str:
    """Say what an error that was met while inflating a file means.

    Args:
        error: What Python's ``gzip`` or isal's ``igzip`` raised: ``EOFError`` where the file ends too early, else an
            error of the checksum, of the length or of the compressed data themselves.
    """
    if isinstance(error, EOFError):
        return "the compressed file is cut off: it ends inside its gzip data"
    words = str(error)
    if "crc" in words.lower() or "checksum" in words.lower():
        return "the compressed data are damaged: the checksum is wrong"
    return f"the compressed data are damaged: gzip cannot read them ({words})"


def hdf5_fault(path: Path, error: Exception) -> str:
    """Say what an error that was met while reading an HDF5 file means.

    Args:
        path: The file.
        error: What ``h5py`` raised.
    """
    words = str(error)
    if whole := re.search(r"truncated file:.*stored_eof = (\d+)", words):
        return f"the file is cut off: {path.stat().st_size:,} of its {int(whole[1]):,} bytes are here"
    reason = re.search(r"\(([^()]*)\)$", words)
    return f"the HDF5 data are damaged and cannot be read ({reason[1] if reason else words})"
