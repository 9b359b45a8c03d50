"""MeCom, the protocol of Meerstetter's controllers: frames, checksums and values; no I/O.

A frame is ASCII: ``#`` from the host or ``!`` from the device, address (2 hexadecimal digits), sequence number (4),
payload, CRC (4), ``<CR>``. The CRC is CRC-16/XMODEM over all before it. The answer repeats the sequence number. A set
is acknowledged by an empty payload and the CRC *of the query*. Values are 8 hexadecimal digits: float32 or int32, big
endian. A refusal is ``+`` and 2 digits.

Source: MeCom protocol specification 5117, as working clients use it.
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One frame of a device.

    Attributes:
        address: Who answers.
        sequence: The query's sequence number.
        payload: What it says.
        crc: The checksum as received: that of the frame, or, with an empty payload, that of the query.
        sound: Whether `crc` is that of the frame.
    """

    address: int
    sequence: int
    payload: bytes
    crc: int
    sound: bool


def crc16(data: bytes) -> int:
    """Return the CRC-16/XMODEM of bytes: polynomial 0x1021, from 0, most significant bit first."""
    return binascii.crc_hqx(data, 0)


def encode_frame(address: int, sequence: int, payload: bytes, control: bytes = b"#") -> bytes:
    """Return a whole frame with its checksum and ``<CR>``."""
    body = b"%c%02X%04X%b" % (control, address, sequence, payload)
    return b"%b%04X\r" % (body, crc16(body))


def encode_read(parameter: int, channel: int) -> bytes:
    """Return the payload that reads a parameter."""
    return b"?VR%04X%02X" % (parameter, channel)


def encode_write(parameter: int, channel: int, value: int | float) -> bytes:
    """Return the payload that writes a parameter: an int as int32, a float as float32."""
    bits = struct.pack(">i" if isinstance(value, int) else ">f", value)
    return b"VS%04X%02X%b" % (parameter, channel, bits.hex().upper().encode())


def frame_answer(buffer: bytes) -> tuple[int, int] | None:
    """Find the first whole answer: from the last ``!`` before a ``<CR>``, since an answer may have been cut off."""
    begin = 0
    while (end := buffer.find(b"\r", begin)) >= 0:
        start = buffer.rfind(b"!", begin, end)
        if start >= 0:
            return start, end + 1
        begin = end + 1
    return None


def parse_answer(frame: bytes) -> Answer:
    """Take an answer apart.

    Raises:
        ValueError: it is none.
    """
    if len(frame) < 12 or frame[:1] != b"!" or frame[-1:] != b"\r":
        raise ValueError(f"{frame!r} is no MeCom answer")
    crc = _hexadecimal(frame[-5:-1])
    return Answer(
        address=_hexadecimal(frame[1:3]),
        sequence=_hexadecimal(frame[3:7]),
        payload=frame[7:-5],
        crc=crc,
        sound=crc == crc16(frame[:-5]),
    )


def parse_int(payload: bytes) -> int:
    """Return an int32. Raises `ValueError` where it is none."""
    value: int = struct.unpack(">i", _value_bytes(payload))[0]
    return value


def parse_float(payload: bytes) -> float:
    """Return a float32, which may be NaN or infinite. Raises `ValueError` where it is none."""
    value: float = struct.unpack(">f", _value_bytes(payload))[0]
    return value


def parse_server_error(payload: bytes) -> int | None:
    """Return the number of a server error, or nothing where the payload is none."""
    return _hexadecimal(payload[1:]) if payload[:1] == b"+" and len(payload) == 3 else None


def _value_bytes(payload: bytes) -> bytes:
    if len(payload) != 8:
        raise ValueError(f"{payload!r} is no value of 8 hexadecimal digits")
    return _hexadecimal(payload).to_bytes(4)


def _hexadecimal(digits: bytes) -> int:
    if not digits.isalnum():  # `int` takes signs, spaces and underscores as well
        raise ValueError(f"{digits!r} are no hexadecimal digits")
    return int(digits, 16)
