"""The journal of a run: what happened, append-only, one event a line, durable before what comes next happens.

Each line is a JSON object: ``number`` (from 1), ``time`` (UTC, for people), ``time_s`` (seconds since 1970),
``event``, and what belongs to it. Several processes may write, one at a time. A line that a crash cut short is dropped
with the next append; every line before it stands.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from cartoseq.streaming.errors import CorruptionError

_TAIL_BYTES = 1 << 14


def entry_of(event: str, at_s: float, facts: Mapping[str, object]) -> dict[str, Any]:
    """One event, not numbered yet, at a time in seconds since 1970."""
    at_s = round(at_s, 3)
    told = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
    return {"number": 0, "time": told, "time_s": at_s, "event": event, **facts}


def append(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Append events behind the last whole line, all or none; they are numbered on, and on the disk when this returns.

    Raises:
        OSError: the disk does not take them.
    """
    with path.open("ab+", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        end, last = _end_of(stream)
        stream.truncate(end)
        for number, entry in enumerate(entries, start=last + 1):
            entry["number"] = number
        lines = b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in entries)
        try:
            if stream.write(lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fdatasync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise


def _end_of(stream: FileIO) -> tuple[int, int]:
    """Where the last whole line ends, and its number."""
    size = stream.seek(0, os.SEEK_END)
    wanted = _TAIL_BYTES
    while True:
        start = stream.seek(max(0, size - wanted))
        tail = stream.read()
        end = tail.rfind(b"\n") + 1
        begin = tail.rfind(b"\n", 0, end - 1) + 1 if end else 0
        if start == 0 or begin:
            break
        wanted *= 2
    if not end:
        return 0, 0
    return start + end, _number_of(tail[begin:end]) or _lines_in(stream, start + end)


def _number_of(line: bytes) -> int:
    try:
        return int(json.loads(line)["number"])
    except (ValueError, KeyError, TypeError):
        return 0


def _lines_in(stream: FileIO, end: int) -> int:
    """The lines of a journal whose last one is damaged, or was not numbered by the program that wrote it."""
    stream.seek(0)
    return stream.read(end).count(b"\n")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Every whole event of a journal that somebody else may be writing.

    Raises:
        CorruptionError: a line no longer reads.
        OSError: the file cannot be read.
    """
    whole = path.read_bytes()
    events = []
    for number, line in enumerate(whole[: whole.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or entry["number"] != number or not isinstance(entry["event"], str):
                raise ValueError("it is no event")
        except (ValueError, KeyError) as error:
            raise CorruptionError(f"{path}: line {number} no longer reads as it was written: {error}.") from error
        events.append(entry)
    return events
