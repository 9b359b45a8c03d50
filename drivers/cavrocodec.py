"""The bytes of the Cavro family of syringe pumps: two framings (DT, OEM) and two dialects (Cavro, Kloehn).

DT, for terminals: ``/`` address text ``<CR>``; the answer is ``/`` ``0`` status data ``<ETX><CR><LF>``, with a stray
0xFF before or after it from some firmware. OEM: ``<STX>`` address sequence text ``<ETX>`` check; the answer is 0xFF
``<STX>`` ``0`` status data ``<ETX>`` check, where check is the XOR of all bytes from ``<STX>`` to ``<ETX>``.

The address is 0x31 + the pump's switch (0 to 14). The status byte is ``01Reeeee``: R is 1 when the pump is ready, e is
the number of the error, so that errors are upper-case letters while busy and lower-case ones when ready.

Sources: the XP 3000, XCalibur and VersaPump 3 manuals, and tecancavro.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cartoseq.drivers.capabilities import Range

Framing = Literal["dt", "oem"]
DialectName = Literal["cavro", "kloehn"]

STX: Final = 0x02
ETX: Final = 0x03
HIGHEST_SWITCH: Final = 14

_HOST: Final = ord("0")
_FIRST_ADDRESS: Final = 0x31
_READY: Final = 0x20
_REPEAT: Final = 0x08
_LAST_KLOEHN: Final = 0x3F


@dataclass(frozen=True)
class Answer:
    """What a pump answers.

    Attributes:
        ready: Whether it would take a command; to be trusted in the answer to ``Q`` only.
        error: The number of its error; 0 is none.
        data: The report that was asked for, in ISO 8859-1; empty in other answers.
    """

    ready: bool
    error: int
    data: str


@dataclass(frozen=True)
class Dialect:
    """How the pumps of one maker differ.

    Attributes:
        maker: The maker.
        speeds: Top speeds that ``V`` takes, in the pump's speed units per second.
        half_steps_per_stroke: Speed units in a full stroke; 0 where a speed unit is a step of the position.
        initialize: The usual command that finds the plunger's zero.
        errors: What its error numbers mean.
        uninitialized: Errors after which the plunger's place is unknown until it is initialised.
        stalled: Errors that say that a motor stopped short.
        garbled: The error that says that the command came with a wrong checksum and was not done, if there is one.
    """

    maker: str
    speeds: Range
    half_steps_per_stroke: int
    initialize: str
    errors: dict[int, str]
    uninitialized: frozenset[int]
    stalled: frozenset[int]
    garbled: int | None


INITIALIZATION: Final = 1
NOT_INITIALIZED: Final = 7
OVERFLOW: Final = 15
VALVE_POSITION: Final = 24

DIALECTS: Final[dict[DialectName, Dialect]] = {
    "cavro": Dialect(
        maker="Cavro",
        speeds=Range(5, 6000),
        half_steps_per_stroke=6000,
        initialize="Z",
        errors={
            INITIALIZATION: "the initialisation failed",
            2: "it knows no such command",
            3: "it finds an operand out of range",
            4: "the commands stand in an order that it does not take",
            5: "the fluid detection failed",
            6: "its EEPROM failed",
            NOT_INITIALIZED: "it is not initialised",
            9: "the plunger was overloaded and stopped",
            10: "the valve was overloaded and stopped",
            11: "the plunger may not move while the valve stands in bypass",
            OVERFLOW: "a command came while it was at work, and was not done",
        },
        uninitialized=frozenset({INITIALIZATION, NOT_INITIALIZED, 9, 10}),
        stalled=frozenset({9, 10}),
        garbled=None,
    ),
    "kloehn": Dialect(
        maker="Kloehn",
        speeds=Range(40, 8000),
        half_steps_per_stroke=0,
        initialize="W4",
        errors={
            INITIALIZATION: "the initialisation failed",
            2: "it knows no such command",
            3: "it finds an argument out of range",
            4: "a command came with a wrong checksum or sequence byte",
            5: "the command may not be run by R",
            6: "its supply voltage is too low",
            NOT_INITIALIZED: "it is not initialised",
            8: "a program is running in it",
            9: "the syringe was overloaded and stopped",
            10: "the valve was overloaded and stopped",
            11: "the plunger may not move while the valve stands in bypass",
            12: "the plunger stands against the limit input",
            OVERFLOW: "a command came while it was at work, and was not done",
            16: "the command is for three-way valves only",
            17: "loops are nested wrongly",
            18: "a label is missing",
            19: "the end of a program is missing",
            20: "the memory for programs is full",
            21: "its home position is not set",
            22: "calls are nested too deeply",
            23: "the program was not found",
            VALVE_POSITION: "the valve is not where it was sent",
            25: "it has lost the position of the syringe",
            26: "the plunger may have passed its home position",
        },
        uninitialized=frozenset({INITIALIZATION, NOT_INITIALIZED, 9, 10, 21, 25, 26}),
        stalled=frozenset({9, 10, 12}),
        garbled=4,
    ),
}


def address_byte(switch: int) -> int:
    """Return the address byte of a pump's switch, 0 to 14."""
    return _FIRST_ADDRESS + switch


def sequence_byte(repeats: DialectName, number: int, attempt: int) -> int:
    """Return the sequence byte of a command in OEM framing.

    Cavro: ``0011Rnnn``; n counts 1 to 7 with each new command, and R marks a repeat. Kloehn: 0x31 for a first try,
    0x3A for the first repeat, 0x3B for the second, and so on up to 0x3F.

    Args:
        repeats: Whose scheme.
        number: How many commands went before; any count.
        attempt: 0 for the first try, 1 for the first repeat.
    """
    if repeats == "kloehn":
        return 0x31 if attempt == 0 else min(0x39 + attempt, _LAST_KLOEHN)
    return 0x30 | (_REPEAT if attempt else 0) | number % 7 + 1


def encode_dt(switch: int, text: str) -> bytes:
    """Return a command in DT framing."""
    return b"/%c%b\r" % (address_byte(switch), text.encode("ascii"))


def encode_oem(switch: int, sequence: int, text: str) -> bytes:
    """Return a command in OEM framing, without the 0xFF that may go before it."""
    body = b"%c%c%c%b%c" % (STX, address_byte(switch), sequence, text.encode("ascii"), ETX)
    return body + bytes([check_byte(body)])


def check_byte(body: bytes) -> int:
    """Return the XOR of all bytes."""
    check = 0
    for byte in body:
        check ^= byte
    return check


def frame_dt(buffer: bytes) -> tuple[int, int] | None:
    """Find the first whole answer in DT framing."""
    return _frame(buffer, b"/0", b"\x03\r\n", 0)


def frame_oem(buffer: bytes) -> tuple[int, int] | None:
    """Find the first whole answer in OEM framing, its check byte included."""
    return _frame(buffer, b"\x020", b"\x03", 1)


def parse_dt(frame: bytes) -> Answer:
    """Take apart an answer in DT framing.

    Raises:
        ValueError: it is none.
    """
    if len(frame) < 6 or frame[:2] != b"/0" or frame[-3:] != b"\x03\r\n":
        raise ValueError(f"{frame!r} is no answer in DT framing")
    return _answer(frame[2], frame[3:-3])


def parse_oem(frame: bytes) -> Answer:
    """Take apart an answer in OEM framing, its check byte included but not looked at: see `is_sound`.

    Raises:
        ValueError: it is none.
    """
    if len(frame) < 5 or frame[:2] != b"\x020" or frame[-2] != ETX:
        raise ValueError(f"{frame!r} is no answer in OEM framing")
    return _answer(frame[2], frame[3:-2])


def is_sound(frame: bytes) -> bool:
    """Whether the check byte at the end of a frame in OEM framing is right."""
    return len(frame) > 1 and check_byte(frame[:-1]) == frame[-1]


def _frame(buffer: bytes, head: bytes, tail: bytes, check_bytes: int) -> tuple[int, int] | None:
    begin = buffer.find(head)
    while begin >= 0:
        status = begin + len(head)
        if status >= len(buffer):
            return None
        if buffer[status] & 0xC0 == 0x40:
            found = buffer.find(tail, status + 1)
            end = found + len(tail) + check_bytes
            return (begin, end) if found >= 0 and end <= len(buffer) else None
        begin = buffer.find(head, begin + 1)
    return None


def _answer(status: int, data: bytes) -> Answer:
    if status & 0xC0 != 0x40:
        raise ValueError(f"0x{status:02X} is no status byte")
    return Answer(ready=bool(status & _READY), error=status & 0x1F, data=data.decode("latin-1"))
