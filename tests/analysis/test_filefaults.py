"""What the libraries say of broken gzip files, in words for people."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any

import pytest
from isal import igzip, igzip_lib

from cartoseq.analysis.filefaults import gzip_fault

TEXT = "".join(f"{n * 2654435761 % 1000003}\n" for n in range(5000)).encode()
PACKED = gzip.compress(TEXT, mtime=0)
FAULTS: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, igzip_lib.error)


def fault(library: Any, content: bytes) -> str:
    with pytest.raises(FAULTS) as caught, library.GzipFile(fileobj=io.BytesIO(content)) as file:
        file.read()
    return gzip_fault(caught.value)


@pytest.mark.parametrize("library", [gzip, igzip])
def test_a_cut_file_and_a_damaged_one_are_told_apart(library: Any) -> None:
    middle = len(PACKED) // 2
    assert "cut off" in fault(library, PACKED[:middle])
    assert "cut off" in fault(library, PACKED[:-3])
    assert "the checksum is wrong" in fault(library, PACKED[:-8] + bytes([PACKED[-8] ^ 1]) + PACKED[-7:])
    assert "damaged" in fault(library, PACKED[:middle] + bytes(300) + PACKED[middle + 300 :])
    assert "damaged" in fault(library, PACKED[:10] + b"\xff" * 20 + PACKED[30:])
