"""The 64-byte header: its golden bytes, and that no changed byte goes unseen."""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.streaming.errors import VersionError
from cartoseq.streaming.header import HEADER_BYTES, RecordHeader, RecordKind, bytes_in, crc_of

HEADER = RecordHeader(
    kind=RecordKind.DATA,
    run=0x0123456789ABCDEF,
    source=3,
    sequence=41,
    count=32768,
    payload_bytes=1000,
    payload_crc=0xDEADBEEF,
    monotonic_ns=123456789,
    epoch=7,
    schema=1,
)
GOLDEN = (
    "53515354" + "10" + "03" + "4000" + "01000000" + "efcdab8967452301" + "0300" + "0700" + "0000" + "0000"
    "2900000000000000" + "00800000" + "e8030000" + "15cd5b0700000000" + "efbeadde" + "00000000"
)


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", crc32c(body))


def test_golden_bytes() -> None:
    assert HEADER.pack() == sealed(bytes.fromhex(GOLDEN))
    assert HEADER.pack()[60:].hex() == "8a52e428"  # from a bit-by-bit CRC32C
    assert len(HEADER.pack()) == HEADER_BYTES


@settings(deadline=None)
@given(
    st.builds(
        RecordHeader,
        kind=st.sampled_from(RecordKind),
        run=st.integers(0, 2**64 - 1),
        source=st.integers(0, 2**16 - 1),
        sequence=st.integers(0, 2**64 - 1),
        count=st.integers(0, 2**32 - 1),
        payload_bytes=st.integers(0, 2**32 - 1),
        payload_crc=st.integers(0, 2**32 - 1),
        monotonic_ns=st.integers(0, 2**64 - 1),
        epoch=st.integers(0, 2**16 - 1),
        schema=st.integers(0, 2**32 - 1),
        codec=st.integers(0, 2**16 - 1),
        flags=st.sampled_from([0, 1, 0x0100, 0x02FF]),
        reserved=st.integers(0, 2**32 - 1),
    )
)
def test_a_header_is_read_back(header: RecordHeader) -> None:
    assert RecordHeader.unpack(header.pack()) == header


def test_every_flipped_bit_is_seen() -> None:
    for bit in range(HEADER_BYTES * 8):
        data = bytearray(HEADER.pack())
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"checksum|magic"):
            RecordHeader.unpack(data)


def test_too_few_bytes_are_refused() -> None:
    for size in range(HEADER_BYTES):
        with pytest.raises(ValueError, match="64 bytes"):
            RecordHeader.unpack(HEADER.pack()[:size])


def test_a_newer_minor_version_is_read_and_another_major_refused() -> None:
    body = bytearray.fromhex(GOLDEN)
    body[4] = 0x1F
    assert RecordHeader.unpack(sealed(bytes(body))).version == 0x1F
    for version in (0x00, 0x20, 0xF0):
        body[4] = version
        with pytest.raises(VersionError, match=f"version {version >> 4}.0"):
            RecordHeader.unpack(sealed(bytes(body)))


def test_unknown_upper_flags_and_types_are_refused_and_lower_flags_ignored() -> None:
    body = bytearray.fromhex(GOLDEN)
    body[24] = 0xFF
    assert RecordHeader.unpack(sealed(bytes(body))).flags == 0xFF
    body[25] = 0x80
    with pytest.raises(VersionError, match="flags 0x80ff"):
        RecordHeader.unpack(sealed(bytes(body)))
    body = bytearray.fromhex(GOLDEN)
    body[5] = 99
    with pytest.raises(VersionError, match="type 99"):
        RecordHeader.unpack(sealed(bytes(body)))


def test_crc32c_is_castagnoli() -> None:
    assert crc_of([b"123456789"]) == 0xE3069283
    assert crc_of([b"1234", b"", b"56789"]) == 0xE3069283
    assert bytes_in([b"1234", memoryview(b"56789")]) == 9
