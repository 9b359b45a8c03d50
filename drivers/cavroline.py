"""Exchanges with one pump of the Cavro family: queries, commands that run, their repeats, and errors as exceptions.

A query is sent up to three times. A command that runs is sent once in DT framing; in OEM framing it is sent again as a
marked repeat, which a pump that has run it only acknowledges. After a failure the pump is first asked for its firmware,
whose answer is like no other, so that no late answer is taken for the next one's.
"""

from __future__ import annotations

import itertools
import re
from typing import Final

from cartoseq.drivers import cavrocodec as codec
from cartoseq.drivers.cavrocodec import Answer, DialectName, Framing
from cartoseq.drivers.errors import (
    Busy,
    ChecksumError,
    DeviceError,
    DeviceFault,
    Disconnected,
    Interrupted,
    LinkError,
    NotInitialized,
    PositionError,
    StallError,
)
from cartoseq.drivers.transport import Transport

REINITIALIZE: Final = "Initialise the pump; what is in its syringe goes to the waste port."

_TRIES: Final = 3


class CavroLine:
    """The way to one pump on a line that it may share.

    Args:
        transport: The line.
        name: The pump's name in messages.
        switch: Its address switch.
        framing: As it is set.
        dialect: Whose pump it is.
        repeats: Whose scheme of OEM sequence bytes it follows.
        reply_s: How long an answer may take.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        switch: int,
        framing: Framing,
        dialect: DialectName,
        repeats: DialectName,
        reply_s: float,
    ) -> None:
        self.transport = transport
        self.dialect = codec.DIALECTS[dialect]
        #: What the pump answers to ``&``, once it was asked.
        self.firmware = ""
        #: An error that an answer told before anyone asked for it: the pump tells some of them only once.
        self.held_error = 0
        self._name = name
        self._switch = switch
        self._framing = framing
        self._repeats = repeats
        self._reply_s = reply_s
        self._commands = 0
        self._in_doubt = False

    async def identify(self) -> str:
        """Return the pump's firmware, which is asked for after failures from now on."""
        self.firmware = ""
        self.firmware = (await self.ask("&", ".+")).data
        return self.firmware

    async def ask(self, text: str, pattern: str = "") -> Answer:
        """Ask something.

        Args:
            text: The query.
            pattern: What the data of its answer look like; other answers are another query's, unless they have no
                data but an error.

        Raises:
            LinkError: no sound answer came.
        """
        failures = 0
        while True:
            try:
                await self._bring_in_step()
                return await self._exchange(text, self._next_number(), 0, pattern)
            except LinkError as error:
                failures = self._count(failures, error)

    async def order(self, text: str) -> int:
        """Send what the pump shall run, once or with marked repeats; return the error number of its answer.

        Raises:
            LinkError: no sound answer came; whether it runs is not known.
        """
        if self._in_doubt:
            await self.ask("Q")
        self.held_error = 0
        number = self._next_number()
        failures = 0
        for attempt in itertools.count():
            try:
                return (await self._exchange(text, number, attempt, "")).error
            except LinkError as error:
                if self._framing == "dt":
                    self._in_doubt = True
                    raise
                failures = self._count(failures, error)
        raise AssertionError("unreachable")

    async def order_again(self, text: str) -> int:
        """Send what may run twice, until the pump has heard it; return the error number of its answer.

        Raises:
            LinkError: no sound answer came.
        """
        failures = 0
        while True:
            try:
                return await self.order(text)
            except LinkError as error:
                failures = self._count(failures, error)
                if not (await self.ask("Q")).ready:
                    return 0

    def halt(self) -> None:
        """Write the stop at once.

        Raises:
            Disconnected: the line is gone.
        """
        self._in_doubt = True
        self.transport.interrupt(self._encode("T", self._next_number(), 0))

    def fault(self, error: int) -> DeviceError:
        """Return what to raise for an error number."""
        text, wire = self.text(error), self.transport.dump()
        if error == codec.OVERFLOW:
            return Busy(self._name, text, wire=wire)
        lost = error in self.dialect.uninitialized
        kind = DeviceFault
        if error in self.dialect.stalled:
            kind = StallError
        elif error == codec.VALVE_POSITION:
            kind = PositionError
        elif lost and error != codec.INITIALIZATION:
            kind = NotInitialized
        return kind(self._name, error, text, remedy=REINITIALIZE if lost else "", wire=wire)

    def text(self, error: int) -> str:
        """Return what an error number means."""
        return self.dialect.errors.get(error, "it reports an error that its manual does not list")

    async def _exchange(self, text: str, number: int, attempt: int, pattern: str) -> Answer:
        expected = re.compile(pattern, re.DOTALL)

        def accept(frame: bytes) -> bool:
            if not self._is_sound(frame):
                return True
            answer = self._parse(frame)
            return expected.fullmatch(answer.data) is not None or (answer.error != 0 and not answer.data)

        frame = await self.transport.exchange(
            self._encode(text, number, attempt),
            codec.frame_dt if self._framing == "dt" else codec.frame_oem,
            timeout_s=self._reply_s,
            accept=accept,
        )
        if not self._is_sound(frame):
            self.transport.doubt()
            raise ChecksumError(self._name, f"{frame!r} has a wrong check byte", wire=self.transport.dump())
        answer = self._parse(frame)
        if answer.error == self.dialect.garbled:
            raise ChecksumError(self._name, f"{text!r} came garbled to the pump", wire=self.transport.dump())
        if answer.error:
            self.held_error = answer.error
        return answer

    def _count(self, failures: int, error: LinkError) -> int:
        """Return the number of failures with this one, or raise it; another pump's stop on the line is none."""
        self._in_doubt = True
        if isinstance(error, Interrupted):
            return failures
        if failures + 1 == _TRIES or isinstance(error, Disconnected):
            raise error
        return failures + 1

    async def _bring_in_step(self) -> None:
        if self._in_doubt and self.firmware:
            await self._exchange("&", self._next_number(), 0, re.escape(self.firmware))
        self._in_doubt = False

    def _is_sound(self, frame: bytes) -> bool:
        return self._framing == "dt" or codec.is_sound(frame)

    def _parse(self, frame: bytes) -> Answer:
        return codec.parse_dt(frame) if self._framing == "dt" else codec.parse_oem(frame)

    def _encode(self, text: str, number: int, attempt: int) -> bytes:
        if self._framing == "dt":
            return codec.encode_dt(self._switch, text)
        return codec.encode_oem(self._switch, codec.sequence_byte(self._repeats, number, attempt), text)

    def _next_number(self) -> int:
        self._commands += 1
        return self._commands - 1
