"""What SCPI instruments have in common: headers, chains, the error queue and the registers of IEEE 488.2.

A message ends with ``<LF>``. It holds commands, parted by ``;``; one that does not begin with ``:`` goes on in the path
of the one before it. Keywords may be short (their capitals) or long, in any case. What a message asks is answered in
one line, parted by ``;``.

``*WAI`` and ``*OPC?`` let what follows wait until the instrument's operation has ended; messages that come meanwhile
wait as well. A message that comes before the last answer was sent cuts that answer off (-410). A wrong question is not
answered: its error is in the queue.

After a command error the rest of its message is thrown away; after an execution error it goes on.
Sources: IEEE 488.2 and SCPI-1999 as far as protocols of instruments quote them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cartoseq.simulators.wire import Outbox

COMMAND_ERROR, SYNTAX, DATA_TYPE, NOT_ALLOWED, MISSING, UNDEFINED = -100, -102, -104, -108, -109, -113
EXECUTION, CONFLICT, OUT_OF_RANGE, ILLEGAL_VALUE = -200, -221, -222, -224
TRIGGER_IGNORED: Final = -211
OVERFLOW, INTERRUPTED = -350, -410
_TEXTS: Final = {
    0: "No error",
    COMMAND_ERROR: "Command error",
    SYNTAX: "Syntax error",
    DATA_TYPE: "Data type error",
    NOT_ALLOWED: "Parameter not allowed",
    MISSING: "Missing parameter",
    UNDEFINED: "Undefined header",
    EXECUTION: "Execution error",
    TRIGGER_IGNORED: "Trigger ignored",
    CONFLICT: "Settings conflict",
    OUT_OF_RANGE: "Data out of range",
    ILLEGAL_VALUE: "Illegal parameter value",
    -310: "System error",
    OVERFLOW: "Queue overflow",
    INTERRUPTED: "Query INTERRUPTED",
}
OPERATION_COMPLETE, QUERY_ERROR, DEVICE_ERROR, EXECUTION_ERROR, COMMAND_ERROR_BIT, POWER_ON = 1, 4, 8, 16, 32, 128
_QUEUE: Final = 16
_LONGEST: Final = 4096


class ScpiError(Exception):
    """A command that cannot be done."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Keyword:
    """One part of a header: `SENSe`, `[SENSe]` where it may be left out, `SOURce#` where a number may follow."""

    name: str
    optional: bool
    numbered: bool

    def matches(self, word: str) -> bool:
        """Whether a word is its short or long form."""
        return is_word(word.rstrip("0123456789") if self.numbered else word, self.name)


def is_word(word: str, keyword: str) -> bool:
    """Whether a word is a keyword's short form (its capitals) or long form, in any case."""
    short = "".join(letter for letter in keyword if not letter.islower())
    return word.upper() in (short, keyword.upper())


def read_header(header: str) -> tuple[Keyword, ...]:
    """Return the keywords of a header as manuals write it: ``[SENSe#]:CORRection:WAVelength``."""
    words = re.findall(r"(\[?):?([*A-Za-z]+)(#?)\]?", header)
    return tuple(Keyword(name, bool(bracket), bool(number)) for bracket, name, number in words)


def header_matches(words: Sequence[str], keywords: Sequence[Keyword]) -> bool:
    """Whether the words of a command are a header, parts that may be left out left out or not."""
    if not keywords:
        return not words
    if words and keywords[0].matches(words[0]) and header_matches(words[1:], keywords[1:]):
        return True
    return keywords[0].optional and header_matches(words, keywords[1:])


@dataclass(frozen=True)
class Command:
    """What an instrument can do.

    Attributes:
        header: Its keywords.
        asks: Whether it is a query.
        does: Is given the parameters; returns the answer of a query.
        least: Parameters that it needs.
        most: Parameters that it takes.
    """

    header: tuple[Keyword, ...]
    asks: bool
    does: Callable[[list[str]], str | None]
    least: int
    most: int


@dataclass(frozen=True)
class _Unit:
    """A command of a message: the words of its header, whether it asks, and its parameters."""

    words: tuple[str, ...]
    asks: bool
    parameters: list[str]


class ScpiInstrument:
    """The bytes of a SCPI instrument; what it can do is added with `command` and `query`.

    Args:
        identity: The four fields of `*IDN?`.
        reset: Called by `*RST`.
        latency_s: From a message's end to its answer.
    """

    def __init__(self, identity: str, *, reset: Callable[[], None], latency_s: float = 0.002) -> None:
        self.now_s = 0.0
        #: Until when an operation is under way.
        self.busy_until_s = 0.0
        #: The answer to this message does not come before: something is measured for it.
        self.answers_from_s = 0.0
        self._latency_s = latency_s
        self._reset = reset
        self._commands: list[Command] = []
        self._buffer = b""
        self._inbox: deque[str] = deque()
        self._units: deque[_Unit] | None = None
        self._answers: list[str] = []
        self._blocked_until_s: float | None = None
        self._completes_s: float | None = None
        self._out = Outbox()
        self._errors: deque[int] = deque()
        self._events = POWER_ON
        self._event_enable = self._service_enable = 0
        self._add_common(identity)

    # ---------------------------------------------------------------------------------------------- what it is made of

    def query(self, header: str, does: Callable[[list[str]], str], *, most: int = 0, least: int = 0) -> None:
        """Add a query."""
        self._commands.append(Command(read_header(header), True, does, least, most))

    def command(
        self, header: str, does: Callable[[list[str]], None], *, most: int = 0, least: int | None = None
    ) -> None:
        """Add a command; it needs all its parameters unless `least` says otherwise."""
        self._commands.append(Command(read_header(header), False, does, most if least is None else least, most))

    def error(self, code: int) -> None:
        """Put an error into the queue and its class into the register."""
        if len(self._errors) >= _QUEUE:
            self._errors[-1] = code = OVERFLOW
        else:
            self._errors.append(code)
        if -200 < code <= -100:
            self._events |= COMMAND_ERROR_BIT
        elif -300 < code <= -200:
            self._events |= EXECUTION_ERROR
        elif -500 < code <= -400:
            self._events |= QUERY_ERROR
        else:
            self._events |= DEVICE_ERROR

    def power_on(self) -> None:
        """Begin anew."""
        self._buffer = b""
        self._inbox.clear()
        self._out.clear()
        self._errors.clear()
        self._units = self._blocked_until_s = self._completes_s = None
        self._answers = []
        self._events = POWER_ON
        self._event_enable = self._service_enable = 0
        self.busy_until_s = self.answers_from_s = 0.0

    def release(self, now_s: float) -> None:
        """End an operation that was without end."""
        self.busy_until_s = now_s
        if self._blocked_until_s is not None:
            self._blocked_until_s = now_s
        if self._completes_s is not None:
            self._completes_s = now_s
        self.answers_from_s = 0.0

    def _add_common(self, identity: str) -> None:
        self.query("*IDN", lambda _: identity)
        self.query("*TST", lambda _: "0")
        self.query("*ESR", lambda _: str(self._take_events()))
        self.query("*ESE", lambda _: str(self._event_enable))
        self.query("*SRE", lambda _: str(self._service_enable))
        self.query("*STB", lambda _: str(self._status_byte()))
        self.query("*OPC", lambda _: "1")
        self.query("SYSTem:ERRor:[NEXT]", lambda _: self._next_error())
        self.query("SYSTem:ERRor:COUNt", lambda _: str(len(self._errors)))
        self.query("SYSTem:VERSion", lambda _: "1999.0")
        self.command("*WAI", lambda _: None)
        self.command("*RST", lambda _: self._reset())
        self.command("*CLS", lambda _: self._clear_status())
        self.command("*OPC", lambda _: self._report_completion())
        self.command("*ESE", lambda values: setattr(self, "_event_enable", int(number(values[0], 0, 255))), most=1)
        self.command("*SRE", lambda values: setattr(self, "_service_enable", int(number(values[0], 0, 255))), most=1)

    def _take_events(self) -> int:
        events, self._events = self._events, 0
        return events

    def _status_byte(self) -> int:
        status = (4 if self._errors else 0) | (16 if self._answers or self._out.due_s() is not None else 0)
        status |= 32 if self._events & self._event_enable else 0
        return status | (64 if status & self._service_enable else 0)

    def _next_error(self) -> str:
        code = self._errors.popleft() if self._errors else 0
        return f'{code},"{_TEXTS.get(code, "Device-specific error")}"'

    def _clear_status(self) -> None:
        self._errors.clear()
        self._events = 0
        self._completes_s = None

    def _report_completion(self) -> None:
        self._completes_s = max(self.now_s, self.busy_until_s)
        self._look_for_completion()

    def _look_for_completion(self) -> None:
        if self._completes_s is not None and self.now_s >= self._completes_s:
            self._completes_s = None
            self._events |= OPERATION_COMPLETE

    # ------------------------------------------------------------------------------------------------------------ wire

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self._go_on(now_s)
        self._buffer += data
        while b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            self._inbox.append(line.decode("latin-1").strip())
        if len(self._buffer) > _LONGEST:
            self._buffer = b""
            self.error(SYNTAX)
        self._work(now_s)

    def due_s(self) -> float | None:
        """When the next answer is due, or when something that waits goes on."""
        times = [time for time in (self._out.due_s(), self._blocked_until_s) if time is not None]
        return min((time for time in times if time != float("inf")), default=None)

    def messages(self, now_s: float) -> list[bytes]:
        """Answers that are due by now."""
        self._go_on(now_s)
        return self._out.take(now_s)

    def _go_on(self, now_s: float) -> None:
        """Do what has waited for the end of an operation, at the time of that end."""
        while self._blocked_until_s is not None and self._blocked_until_s <= now_s:
            at_s, self._blocked_until_s = self._blocked_until_s, None
            self._work(at_s)

    def _work(self, now_s: float) -> None:
        """Do messages one after the other until one must wait."""
        self.now_s = max(self.now_s, now_s)
        self._look_for_completion()
        while self._blocked_until_s is None and (self._units is not None or self._inbox):
            if self._units is None:
                self._begin_message(self._inbox.popleft())
            elif self._units:
                self._do(self._units.popleft())
            else:
                self._units = None
                if self._answers:
                    at_s = max(self.now_s, self.answers_from_s) + self._latency_s
                    self._out.put(at_s, ";".join(self._answers).encode("latin-1") + b"\n")
                    self._answers = []

    def _begin_message(self, message: str) -> None:
        if not message:
            return
        if self._out.due_s() is not None:
            self._out.clear()
            self.error(INTERRUPTED)
        try:
            self._units = deque(_read_message(message))
        except ScpiError as error:
            self.error(error.code)

    def _do(self, unit: _Unit) -> None:
        waits = unit.words == ("*WAI",) or (unit.words == ("*OPC",) and unit.asks)
        if waits and self.now_s < self.busy_until_s and self._units is not None:
            self._units.appendleft(unit)
            self._blocked_until_s = self.busy_until_s
            return
        try:
            answer = self._find(unit).does(unit.parameters)
            if unit.asks:
                self._answers.append(answer or "")
        except ScpiError as error:
            self.error(error.code)
            if error.code > EXECUTION:
                self._units = deque()

    def _find(self, unit: _Unit) -> Command:
        for command in self._commands:
            if command.asks == unit.asks and header_matches(unit.words, command.header):
                if len(unit.parameters) < command.least:
                    raise ScpiError(MISSING)
                if len(unit.parameters) > command.most:
                    raise ScpiError(NOT_ALLOWED)
                return command
        raise ScpiError(UNDEFINED)


def _read_message(message: str) -> list[_Unit]:
    """Return the commands of a message, each with its whole path."""
    units: list[_Unit] = []
    path: tuple[str, ...] = ()
    for text in _split(message, ";"):
        parts = re.fullmatch(r"(:?)(\*?[A-Za-z][A-Za-z0-9_:]*)(\??)(?:\s+(.*))?", text.strip(), re.DOTALL)
        if parts is None or "::" in parts[2] or parts[2].endswith(":"):
            raise ScpiError(SYNTAX)
        words = tuple(parts[2].upper().split(":"))
        if not words[0].startswith("*"):
            words = words if parts[1] else path + words
            path = words[:-1]
        parameters = [one.strip() for one in _split(parts[4], ",")] if parts[4] else []
        units.append(_Unit(words, bool(parts[3]), parameters))
    return units


def _split(text: str, separator: str) -> list[str]:
    """Split where a separator is not within quotes."""
    pieces, quote = [""], ""
    for letter in text:
        if letter in "\"'" and quote in ("", letter):
            quote = "" if quote else letter
        if letter == separator and not quote:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def number(text: str, low: float, high: float, default: float | None = None) -> float:
    """Return a numeric parameter: a number, or `MIN`, `MAX`, `DEF`.

    Raises:
        ScpiError: it is none, or out of the range.
    """
    for keyword, value in (("MINimum", low), ("MAXimum", high), ("DEFault", default)):
        if value is not None and is_word(text, keyword):
            return value
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text):
        raise ScpiError(DATA_TYPE)
    value = float(text)
    if not low <= value <= high:
        raise ScpiError(OUT_OF_RANGE)
    return value


def boolean(text: str) -> bool:
    """Return a parameter that is on or off.

    Raises:
        ScpiError: it is neither.
    """
    if text.upper() not in ("ON", "OFF", "1", "0"):
        raise ScpiError(ILLEGAL_VALUE)
    return text.upper() in ("ON", "1")


def choice(text: str, keywords: Sequence[str]) -> str:
    """Return which of several keywords a parameter is, in its short form.

    Raises:
        ScpiError: it is none of them.
    """
    for keyword in keywords:
        if is_word(text, keyword):
            return "".join(letter for letter in keyword if not letter.islower())
    raise ScpiError(ILLEGAL_VALUE)
