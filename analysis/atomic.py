"""Files that are replaced whole: a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: How HDF5 tells of a write that the system refused.
_HDF5_REFUSED = re.compile(r"errno = (\d+)")


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside the target; when the block ends well, it takes the target's place, durably.

    The temporary file is synced, renamed over the target, and the folder is synced. When the block raises, the
    temporary file is removed and the target stays as it was. The name is unique to this process, so that a process
    that was thought dead cannot write into the file of the one that took its place.

    Raises:
        OSError: the disk is full or refuses. A write that only fails while an HDF5 file is being closed comes out of
            h5py as a RuntimeError; it becomes the OSError that it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and (refused := _HDF5_REFUSED.search(str(error))):
            number = int(refused[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a text file (UTF-8)."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
