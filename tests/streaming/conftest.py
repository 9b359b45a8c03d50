"""A disk in memory that can lose what was not synced, fail at any call, and fill up."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

SECTOR_BYTES = 64


class MemoryFile:
    """A file's bytes as programs see them, and as the medium has them."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.kept = b""
        self.pending: list[tuple[int, bytes] | int] = []  # (offset, sector bytes), or the size of a truncation

    def after_power_loss(self, rng: random.Random) -> bytearray:
        image = bytearray(self.kept)
        fate = rng.random()  # mostly lost, mostly kept, or anything between
        for change in self.pending:
            if rng.random() > fate:
                continue
            if isinstance(change, int):
                del image[change:]
                image.extend(bytes(change - len(image)))
            else:
                offset, data = change
                image.extend(bytes(max(0, offset - len(image))))
                image[offset : offset + len(data)] = data
        return image


class Handle:
    def __init__(self, disk: MemoryDisk, file: MemoryFile) -> None:
        self.disk, self.file = disk, file

    def write(self, parts: Sequence[memoryview], offset: int) -> int:
        data = b"".join(parts)
        fault = self.disk.call("write")
        if fault == "short" and len(data) > 1:
            data = data[: len(data) // 2]
        room = self.disk.capacity - sum(len(file.seen) for file in self.disk.files.values())
        growth = offset + len(data) - len(self.file.seen)
        if growth > room:
            data = data[: len(data) - growth + max(0, room)]
            if not data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.file.seen.extend(bytes(max(0, offset - len(self.file.seen))))
        self.file.seen[offset : offset + len(data)] = data
        at = 0
        while at < len(data):
            end = min(len(data), (offset + at) // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - offset)
            self.file.pending.append((offset + at, data[at:end]))
            at = end
        return len(data)

    def read_into(self, target: memoryview, offset: int) -> int:
        self.disk.call("read")
        data = self.file.seen[offset : offset + target.nbytes]
        target[: len(data)] = data
        return len(data)

    def size(self) -> int:
        return len(self.file.seen)

    def truncate(self, size: int) -> None:
        self.disk.call("truncate")
        del self.file.seen[size:]
        self.file.pending.append(size)

    def sync(self) -> None:
        self.disk.call("sync")
        if "sync" in self.disk.lies:
            return
        self.file.kept = bytes(self.file.seen)
        self.file.pending.clear()

    def close(self) -> None:
        pass


class MemoryDisk:
    """The injectable disk of the log, all in memory.

    ``faults`` maps the number of a call to ``EIO``, ``ENOSPC`` or ``short``; ``chance`` makes any call fail at random;
    the calls named in ``lies`` (``sync``, ``sync_folder``) return without doing anything.
    """

    def __init__(self) -> None:
        self.files: dict[Path, MemoryFile] = {}
        self.kept_names: dict[Path, MemoryFile] = {}
        self.calls: list[str] = []
        self.faults: dict[int, str] = {}
        self.chance: Callable[[str], str] = lambda _: ""
        self.capacity = 1 << 40
        self.lies: frozenset[str] = frozenset()

    def call(self, name: str) -> str:
        fault = self.faults.get(len(self.calls), "") or self.chance(name)
        self.calls.append(name)
        if fault in ("EIO", "ENOSPC"):
            number = getattr(errno, fault)
            raise OSError(number, os.strerror(number))
        return fault

    def lose_power(self, rng: random.Random) -> None:
        """Go on with what the medium has: any part of what was not synced may be there or not."""
        names = dict(self.kept_names)
        for path in self.files.keys() | self.kept_names.keys():
            if (path in self.files) != (path in self.kept_names) and rng.random() < 0.5:
                if path in self.files:
                    names[path] = self.files[path]
                else:
                    del names[path]
        for file in names.values():
            file.seen = file.after_power_loss(rng)
            file.kept = bytes(file.seen)
            file.pending.clear()
        self.files, self.kept_names = dict(names), dict(names)

    def make_folder(self, folder: Path) -> None:
        pass

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in self.files if path.parent == folder]

    def create(self, path: Path) -> Handle:
        self.call("create")
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        self.files[path] = MemoryFile()
        return Handle(self, self.files[path])

    def open(self, path: Path, *, write: bool = False) -> Handle:
        self.call("open")
        return Handle(self, self.files[path])

    def remove(self, path: Path) -> None:
        self.call("remove")
        del self.files[path]

    def sync_folder(self, folder: Path) -> None:
        self.call("sync_folder")
        if "sync_folder" not in self.lies:
            self.kept_names = dict(self.files)

    def free_bytes(self, folder: Path) -> int:
        self.call("free")
        return self.capacity - sum(len(file.seen) for file in self.files.values())

    def lock(self, path: Path) -> Any:
        return Handle(self, MemoryFile())


@pytest.fixture(scope="session")
def memory_disk() -> type[MemoryDisk]:
    """The class: each test makes the disks that it needs."""
    return MemoryDisk
