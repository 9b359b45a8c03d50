"""The seal behind a file: damage is seen, and HDF5 files stay readable."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from cartoseq.analysis.sealed import is_intact, seal, seal_of

MAGIC = b"SOMEKIND"


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file["values"] = range(1000)
    seal(path, MAGIC, 7)
    return path


def test_a_sealed_file_is_still_hdf5(sealed: Path) -> None:
    found = seal_of(sealed, MAGIC)
    assert found is not None
    assert found.version == 7
    assert is_intact(sealed, found)
    with h5py.File(sealed, "r") as file:
        assert file["values"][-1] == 999


@pytest.mark.parametrize("place", [0, 100, 3000, -5])
def test_any_flipped_bit_is_seen(sealed: Path, place: int) -> None:
    content = bytearray(sealed.read_bytes())
    content[place] ^= 16
    sealed.write_bytes(content)
    found = seal_of(sealed, MAGIC)
    assert found is not None
    assert not is_intact(sealed, found)


def test_a_file_cut_or_of_another_kind_has_no_seal(sealed: Path) -> None:
    assert seal_of(sealed, b"ANOTHERK") is None
    whole = sealed.read_bytes()
    for size in (0, 10, 16, len(whole) // 2, len(whole) - 1):
        sealed.write_bytes(whole[:size])
        assert seal_of(sealed, MAGIC) is None


def test_the_checksum_is_crc32c_of_all_bytes_before(tmp_path: Path) -> None:
    # The check value of CRC-32C (Castagnoli), RFC 3720 and the catalogue of CRCs: of the digits 1 to 9.
    path = tmp_path / "digits"
    path.write_bytes(b"123456789")
    seal(path, MAGIC, 1)
    assert path.read_bytes() == b"123456789" + MAGIC + (0xE3069283).to_bytes(4, "little") + (1).to_bytes(4, "little")
