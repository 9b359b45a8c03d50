"""Gzip of export files: without a file name and a time in its header, so that the same content is the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from isal import igzip, isal_zlib

from cartoseq.streaming.errors import InputError

_decompress: Callable[[bytes], bytes] = igzip.decompress
_open_writer: Callable[..., object] = igzip.IGzipFile
_DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, cast(type[Exception], isal_zlib.error))


@contextmanager
def gzip_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a gzip file for writing bytes."""
    with path.open("wb") as raw:
        writer = cast(IO[bytes], _open_writer(filename="", mode="wb", fileobj=raw, compresslevel=2, mtime=0))
        with writer as stream:
            yield stream


def read_maybe_gzip(path: Path) -> bytes:
    """Read a whole file, decompressed where it is gzip.

    Raises:
        InputError: the gzip is damaged.
    """
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return _decompress(data)
    except _DAMAGED as error:
        raise InputError(path, f"damaged gzip: {error}", remedy="Copy the file again.") from error
