"""Gzip files with the same bytes for the same content: no time, no file name in the header."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from isal import igzip

_GZIP_MAGIC: Final = b"\x1f\x8b"
#: igzip is untyped; its files are binary streams like any other.
_open_igzip: Final = cast(Callable[..., BinaryIO], igzip.IGzipFile)


@contextmanager
def gzip_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a gzip file for writing as one deflate stream (igzip level 1, what a sequencer's writer trades too)."""
    with (
        path.open("wb") as raw,
        _open_igzip(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as stream,
    ):
        yield stream


def write_gzip(path: Path, content: bytes) -> None:
    """Write one file in one go."""
    with gzip_writer(path) as stream:
        stream.write(content)


def read_maybe_gzip(path: Path) -> bytes:
    """The content of a file that may be gzipped; its first two bytes tell, not its name."""
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == _GZIP_MAGIC else content
