"""The 64 bytes before every payload: the same on the wire and on disk.

Little endian: ``magic 'SQST' | version u8 | kind u8 | header length u16 | schema u32 | run u64 | source u16 |
epoch u16 | flags u16 | codec u16 | sequence u64 | count u32 | payload length u32 | monotonic ns u64 |
CRC32C of payload u32 | reserved u32 | CRC32C of header u32``. The table of fields is in ``docs/formats/log.md``.

Version: major in the upper four bits, minor in the lower. A higher minor is read; another major is refused. Whatever
the major, magic, version byte and the CRC over bytes 0 to 59 stay in place, so that rot is never taken for a new
version. Flags: an unknown bit in the upper byte is refused, one in the lower byte is ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from crc32c import crc32c

from cartoseq.streaming.errors import VersionError

Buffer: TypeAlias = bytes | bytearray | memoryview

MAGIC = b"SQST"
VERSION = 0x10
HEADER_BYTES = 64

SCHEMA_NONE = 0
SCHEMA_BLOCK = 1
SCHEMA_JSON = 2
CODEC_RAW = 0

FLAG_RESET = 0x0100
"""FETCH: forget what was sent, send again from the index asked for."""
FLAG_ENDED = 0x0200
"""RESUME: the log already holds this source's END."""
_KNOWN_UPPER_FLAGS = FLAG_RESET | FLAG_ENDED

_STRUCT = struct.Struct("<4sBBHIQHHHHQIIQII")
_CRC = struct.Struct("<I")


class RecordKind(IntEnum):
    """What a record or message is. DATA and END are numbered and kept; RUN, COMMIT and FOOTER live on disk only."""

    HELLO = 1
    RESUME = 2
    DATA = 3
    ACK = 4
    NACK = 5
    FETCH = 6
    RECORD = 7
    END = 8
    ABORT = 9
    RUN = 10
    COMMIT = 11
    FOOTER = 12


KEPT = frozenset((RecordKind.DATA, RecordKind.END))


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """One record's header.

    Attributes:
        kind: What the record is.
        run: The run's 64-bit number.
        source: Which source wrote it.
        sequence: DATA and END: the source's running number from 0. RECORD, FETCH, COMMIT: a log index.
        count: DATA: clusters in the block. ACK, NACK, RESUME, FETCH: credit in bytes. RECORD: records still to come.
        payload_bytes: Bytes that follow the header.
        payload_crc: CRC32C of them.
        monotonic_ns: The sender's monotonic clock. DATA, END: when it was sent, for latency only, since order is by
            sequence. HELLO: when the source was born.
        epoch: Number of the HELLO that opened the source's session.
        schema: What the payload is: ``SCHEMA_BLOCK``, ``SCHEMA_JSON`` or ``SCHEMA_NONE``.
        codec: How the payload is packed: ``CODEC_RAW``.
        flags: ``FLAG_RESET``, ``FLAG_ENDED``.
        version: Major in the upper four bits, minor in the lower.
        reserved: 0 in version 1.0.
    """

    kind: RecordKind
    run: int
    source: int = 0
    sequence: int = 0
    count: int = 0
    payload_bytes: int = 0
    payload_crc: int = 0
    monotonic_ns: int = 0
    epoch: int = 0
    schema: int = SCHEMA_NONE
    codec: int = CODEC_RAW
    flags: int = 0
    version: int = VERSION
    reserved: int = 0

    def pack(self) -> bytes:
        """Return the 64 bytes, closed by their CRC32C."""
        body = _STRUCT.pack(
            MAGIC,
            self.version,
            self.kind,
            HEADER_BYTES,
            self.schema,
            self.run,
            self.source,
            self.epoch,
            self.flags,
            self.codec,
            self.sequence,
            self.count,
            self.payload_bytes,
            self.monotonic_ns,
            self.payload_crc,
            self.reserved,
        )
        return body + _CRC.pack(crc32c(body))

    @staticmethod
    def unpack(data: Buffer) -> RecordHeader:
        """Read the first 64 bytes of ``data``.

        Raises:
            ValueError: these are not the bytes of a header, or some of them changed.
            VersionError: written by a major version, or with a record type or flag, that this program does not know.
        """
        view = memoryview(data)
        if view.nbytes < HEADER_BYTES:
            raise ValueError(f"a header has {HEADER_BYTES} bytes, here are {view.nbytes}")
        body = view[: HEADER_BYTES - 4]
        fields = _STRUCT.unpack(body)
        if fields[0] != MAGIC:
            raise ValueError("no record starts here (magic bytes SQST not found)")
        if crc32c(body) != _CRC.unpack(view[HEADER_BYTES - 4 : HEADER_BYTES])[0]:
            raise ValueError("header checksum does not fit its bytes")
        version, kind, length, flags = fields[1], fields[2], fields[3], fields[8]
        if version >> 4 != VERSION >> 4:
            raise VersionError(
                f"Record of format version {version >> 4}.{version & 15}: this program reads version {VERSION >> 4}.x. "
                "Use the release of Cartoseq that wrote it, or a newer one."
            )
        if length != HEADER_BYTES or kind not in _KINDS or flags & 0xFF00 & ~_KNOWN_UPPER_FLAGS:
            raise VersionError(
                f"Record of type {kind}, header length {length}, flags {flags:#06x}: not known to this program. "
                "Use the release of Cartoseq that wrote it, or a newer one."
            )
        return RecordHeader(
            kind=RecordKind(kind),
            run=fields[5],
            source=fields[6],
            sequence=fields[10],
            count=fields[11],
            payload_bytes=fields[12],
            payload_crc=fields[14],
            monotonic_ns=fields[13],
            epoch=fields[7],
            schema=fields[4],
            codec=fields[9],
            flags=flags,
            version=version,
            reserved=fields[15],
        )


_KINDS = frozenset(int(kind) for kind in RecordKind)


def crc_of(parts: Sequence[Buffer]) -> int:
    """CRC32C over several buffers as if they were one."""
    value = 0
    for part in parts:
        value = crc32c(part, value)
    return value


def bytes_in(parts: Sequence[Buffer]) -> int:
    """Total size of several buffers in bytes."""
    return sum(memoryview(part).nbytes for part in parts)
