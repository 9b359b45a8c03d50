"""How a pump of the Cavro family hears and answers: the terminal (DT) and the OEM framing.

::

    DT    host  /  address  string  <CR>                          pump  /  0  status  data  <ETX> <CR> <LF>
    OEM   host  [FF] <STX> address sequence string <ETX> check    pump  FF <STX> 0 status data <ETX> check

`check` is the exclusive or of all bytes from <STX> to <ETX>. A Kloehn pump adds FF to either answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Final

STX: Final = 0x02
ETX: Final = 0x03
_LONGEST: Final = 1024
#: Addresses that mean several pumps, to which none answers: how many, and the first pump's number.
_GROUPS: Final = (
    {chr(0x41 + 2 * i): range(2 * i, 2 * i + 2) for i in range(8)}
    | {chr(0x51 + 4 * i): range(4 * i, 4 * i + 4) for i in range(4)}
    | {"_": range(16)}
)


@dataclass(frozen=True)
class Heard:
    """A whole frame.

    Attributes:
        address: The byte that says for whom it is.
        text: The command string.
        sequence: The OEM frame's sequence byte; nothing in a DT frame.
        sound: Whether its check byte is right.
    """

    address: str
    text: str
    sequence: int | None = None
    sound: bool = True

    def is_for(self, address: str) -> bool:
        """Whether a pump is meant, alone or with others."""
        return address == self.address or ord(address) - 0x31 in _GROUPS.get(self.address, ())

    @property
    def wants_answer(self) -> bool:
        """Whether it is for one pump alone."""
        return self.address not in _GROUPS


class Ear:
    """Puts frames together from bytes as they come; what belongs to none is noise.

    Args:
        oem: Whether frames are OEM ones.
    """

    def __init__(self, oem: bool) -> None:
        self._oem = oem
        self._buffer = b""

    def hear(self, data: bytes) -> list[Heard]:
        """Take bytes and return the frames that are whole now."""
        self._buffer = (self._buffer + data)[-_LONGEST:]
        frames = []
        while (frame := self._oem_frame() if self._oem else self._dt_frame()) is not None:
            frames.append(frame)
        return frames

    def _dt_frame(self) -> Heard | None:
        while (end := self._buffer.find(b"\r")) >= 0:
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            begin = line.rfind(b"/")
            if begin >= 0 and len(line) > begin + 1:
                text = line[begin + 1 :].decode("latin-1")
                return Heard(text[0], text[1:])
        return None

    def _oem_frame(self) -> Heard | None:
        while True:
            begin = self._buffer.find(STX)
            end = self._buffer.find(ETX, begin + 1)
            if begin < 0 or end < 0 or len(self._buffer) < end + 2:
                return None
            frame, check = self._buffer[begin : end + 1], self._buffer[end + 1]
            self._buffer = self._buffer[end + 2 :]
            if len(frame) >= 4:
                text = frame[3:-1].decode("latin-1")
                return Heard(chr(frame[1]), text, frame[2], check == check_byte(frame))


def check_byte(frame: bytes) -> int:
    """Return the check byte of an OEM frame from <STX> to <ETX>."""
    return reduce(xor, frame, 0)


def answer(status: int, data: str, *, oem: bool, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return an answer's bytes.

    Args:
        status: The status byte.
        data: What a report says.
        oem: The framing.
        before: What this make of pump sends before its DT answers.
        after: What it sends after every answer.
    """
    content = bytes([status]) + data.encode("latin-1") + bytes([ETX])
    if oem:
        frame = bytes([STX]) + b"0" + content
        return b"\xff" + frame + bytes([check_byte(frame)]) + after
    return before + b"/0" + content + b"\r\n" + after
