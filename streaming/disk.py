"""The file layer under the log: the few calls that it makes, so that tests can fail or lose each of them.

``RealDisk`` is plain POSIX. The log is written by explicit offset, made durable by ``fdatasync``, and a new segment by
``fsync`` of its folder.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cartoseq.streaming.errors import RunError


class DiskFile(Protocol):
    """An open file. Every method may raise ``OSError``."""

    def write(self, parts: Sequence[memoryview], offset: int) -> int:
        """Write the parts one after the other at ``offset``; return the bytes written, which may be fewer."""

    def read_into(self, target: memoryview, offset: int) -> int:
        """Fill ``target`` from ``offset``; return the bytes read, fewer only at the end of the file."""

    def size(self) -> int:
        """Bytes in the file."""

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""

    def sync(self) -> None:
        """Return when all that was written is on the medium."""

    def close(self) -> None:
        """Close the file without waiting for the medium."""


class Disk(Protocol):
    """A place for files. Every method may raise ``OSError``."""

    def make_folder(self, folder: Path) -> None:
        """Make the folder, and those above it, durably."""

    def names(self, folder: Path) -> list[str]:
        """Names of the files in the folder."""

    def create(self, path: Path) -> DiskFile:
        """Create a file that must not exist yet, open for reading and writing."""

    def open(self, path: Path, *, write: bool = False) -> DiskFile:
        """Open a file that exists."""

    def remove(self, path: Path) -> None:
        """Remove a file."""

    def sync_folder(self, folder: Path) -> None:
        """Return when the folder's entries are on the medium."""

    def free_bytes(self, folder: Path) -> int:
        """Bytes that can still be written."""

    def lock(self, path: Path) -> DiskFile:
        """Hold the only lock on ``path`` until closed.

        Raises:
            RunError: another process holds it.
        """


class RealFile:
    """A POSIX file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, parts: Sequence[memoryview], offset: int) -> int:
        """Write by one ``pwritev``."""
        return os.pwritev(self._descriptor, parts, offset)

    def read_into(self, target: memoryview, offset: int) -> int:
        """Read until ``target`` is full or the file ends."""
        done = 0
        while done < target.nbytes:
            count = os.preadv(self._descriptor, [target[done:]], offset + done)
            if count == 0:
                break
            done += count
        return done

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """Wait for the medium: data, and the size needed to read it."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the descriptor; a lock on it is released."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RealDisk:
    """The machine's own file system."""

    def make_folder(self, folder: Path) -> None:
        """Make the folder and those above it, and sync each parent that gained an entry."""
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        for part in reversed(missing):
            part.mkdir(exist_ok=True)
            self.sync_folder(part.parent)

    def names(self, folder: Path) -> list[str]:
        """Names of the files in the folder."""
        return [entry.name for entry in folder.iterdir()]

    def create(self, path: Path) -> RealFile:
        """Create a file that must not exist yet."""
        return RealFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))

    def open(self, path: Path, *, write: bool = False) -> RealFile:
        """Open a file that exists."""
        return RealFile(os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC))

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        """Sync the folder's entries."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, folder: Path) -> int:
        """Bytes that an unprivileged process can still write."""
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize

    def lock(self, path: Path) -> RealFile:
        """Take an exclusive ``flock``; the kernel releases it when the process dies."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RunError(
                f"{path}: another process is writing this log. Stop it, or give this run a folder of its own."
            ) from error
        return RealFile(descriptor)
