"""The chemistry board of the HiSeq 2500 (ARM9CHEM): temperatures of flow cells and chiller, vacuum, shut-off valve.

115200 baud; a command ends with ``<CR>``; an answer is fields parted by colons, of which the last is ``A1``, or ``N1``
where the board refuses. Temperatures are in °C: ``?FCTEMP:0`` is answered by ``37.1C:A1``, ``?RETEMP:3`` by those of
all three chiller blocks, ``4.0C:4.1C:10.2:A1``. The board tells neither targets nor whether it has settled: this driver
keeps the target, and judges by what is measured.

Source: the HiSeq projects pyseq2501 and PySeq2500. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from typing import Final, Literal

from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.errors import DeviceFault, NotInitialized, OverTemperature
from cartoseq.drivers.limits import check_within
from cartoseq.drivers.settling import await_settled, check_wait
from cartoseq.drivers.stops import Actions
from cartoseq.drivers.transport import Transport
from cartoseq.streaming.errors import InputError

Part = Literal["flow_cell", "chiller"]

CHANNELS: Final[dict[Part, int]] = {"flow_cell": 2, "chiller": 3}
#: The targets that HiSeq software allows.
LIMITS_C: Final[dict[Part, Range]] = {"flow_cell": Range(20.0, 60.0), "chiller": Range(0.1, 20.0)}

_GAINS: Final = "PIDSF"
_REPLY_S: Final = 0.5
_TRIES: Final = 3
_POLL_S: Final = 1.0
#: How far above its highest target a part may read before it counts as too hot, in K.
_OVERSHOOT_K: Final = 5.0
_ANSWER: Final = re.compile(rb"(?:\A|(?<=[\r\n]))(?:[^\r\n]*?:)?[AN]1")


# ---------------------------------------------------------------------------------------------------------- the codec


def frame_answer(buffer: bytes) -> tuple[int, int] | None:
    """Find the first whole answer: from the begin of a line to ``A1`` or ``N1``."""
    found = _ANSWER.search(buffer)
    return found.span() if found else None


def parse_fields(frame: bytes) -> list[str] | None:
    """Return the fields of an answer before ``A1``; nothing where the board refuses.

    Raises:
        ValueError: it is no answer.
    """
    *fields, verdict = frame.decode("latin-1").split(":")
    if verdict not in ("A1", "N1"):
        raise ValueError(f"{frame!r} is no answer of the board")
    return fields if verdict == "A1" else None


def parse_celsius(field: str) -> float:
    """Return a temperature, with or without its ``C``. Raises `ValueError` where it is none."""
    if not re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?C?", field):
        raise ValueError(f"{field!r} is no temperature")
    return float(field.removesuffix("C"))


class _Board:
    """Exchanges with the board for one device; several devices share its line."""

    def __init__(self, transport: Transport, name: str) -> None:
        self.transport = transport
        self._name = name

    async def open(self) -> Identity:
        """Share the line; the first to open it initialises the board."""
        first = not self.transport.is_open
        async with self.transport.opening():
            fields = await self.ask("?IDN", r"[^:]*")
            parts = fields[0].split(",")
            if len(parts) < 4 or "Fluidics Controller" not in parts[1]:
                raise DeviceFault(
                    self._name,
                    "?IDN",
                    f"is not the HiSeq's chemistry board: it says {fields[0]!r}",
                    remedy="Check the port in the instrument file.",
                    wire=self.transport.dump(),
                )
            if first:
                await self.order("INIT")
        return Identity(parts[0], parts[1], firmware=parts[3], notice=NOTICE)

    async def ask(self, query: str, pattern: str) -> list[str]:
        """Return the fields that answer a query; frames of another form are another query's."""
        expected = re.compile(f"(?:{pattern}:A1|N1)".encode("ascii"))
        return await self._exchange(query, expected)

    async def order(self, command: str) -> None:
        """Send a command that sets something to a value; it may be sent again."""
        await self._exchange(command, re.compile(rb"[AN]1"))

    async def _exchange(self, text: str, expected: re.Pattern[bytes]) -> list[str]:
        frame = await self.transport.exchange(
            encode(text),
            frame_answer,
            timeout_s=_REPLY_S,
            accept=lambda frame: expected.fullmatch(frame) is not None,
            tries=_TRIES,
        )
        fields = parse_fields(frame)
        if fields is None:
            raise DeviceFault(self._name, "N1", f"the board refuses {text}", wire=self.transport.dump())
        return fields


def encode(text: str) -> bytes:
    """Return the bytes of a command."""
    return text.encode("ascii") + b"\r"


# ------------------------------------------------------------------------------------------------------- the drivers


class Arm9Temperature:
    """One flow cell's heater, or one block of the reagent chiller.

    Args:
        transport: The board's line, shared by all its devices.
        name: The device's name in messages.
        part: "flow_cell" or "chiller".
        channel: 0 or 1 for flow cells A and B; 0, 1 or 2 for the chiller's blocks.
        low_c: Least target that is allowed, the part's usual one if not given.
        high_c: Greatest target that is allowed, the part's usual one if not given.
        stable_c: How close to its target it is called stable, in K.
        gains: Gains of the servo loop by their letters P, I, D, S and F, set when opened; left as they are if not
            given.

    Raises:
        InputError: a setting is none that the board could have.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        part: Part,
        channel: int,
        low_c: float | None = None,
        high_c: float | None = None,
        stable_c: float = 0.5,
        gains: Mapping[str, float] | None = None,
    ) -> None:
        if not 0 <= channel < CHANNELS[part]:
            raise InputError(name, f"channel is {channel}, expected 0 to {CHANNELS[part] - 1} for a {part}")
        usual = LIMITS_C[part]
        self.name = name
        self.limits_c = Range(usual.low if low_c is None else low_c, usual.high if high_c is None else high_c)
        if not self.limits_c.low < self.limits_c.high:
            raise InputError(name, f"low_c is {self.limits_c.low}, expected less than high_c, {self.limits_c.high}")
        for letter, value in (gains or {}).items():
            if letter not in tuple(_GAINS) or not math.isfinite(value):
                raise InputError(name, f"gain {letter} is {value}, expected numbers for P, I, D, S or F")
        self._board = _Board(transport, name)
        self._part = part
        self._channel = channel
        self._stable_c = stable_c
        self._gains = dict(gains or {})
        self._target_c: float | None = None
        self._actions = Actions(name)
        self._setting = asyncio.Lock()

    async def open(self) -> Identity:
        """Connect, identify the board, and set the gains.

        Raises:
            LinkError: nobody answers.
            DeviceFault: it is not the board, or it refuses.
        """
        identity = await self._board.open()
        try:
            command = "FCTEMP" if self._part == "flow_cell" else "RETEC"
            for letter, value in self._gains.items():
                await self._board.order(f"{command}:{self._channel}:{letter}:{value}")
            await self.temperature_c()
        except BaseException:
            await self._board.transport.close()
            raise
        return identity

    async def close(self) -> None:
        """Let go of the line."""
        await self._board.transport.close()

    async def make_safe(self) -> None:
        """Switch a flow cell's heater off at once; a chiller goes on cooling the reagents."""
        self._actions.stop()
        if self._part == "flow_cell":
            self._board.transport.interrupt(encode(self._off))
            await self._switch_off()

    async def read_faults(self) -> list[Fault]:
        """Whether it is too hot."""
        temperature_c = await self.temperature_c()
        if temperature_c <= self._hottest_c:
            return []
        return [Fault("temperature", f"it reads {temperature_c:g} °C, above {self._hottest_c:g} °C")]

    async def clear_faults(self) -> None:
        """Do nothing: the board keeps no faults."""

    async def set_target_c(self, temperature_c: float) -> None:
        """Set the target, and switch a flow cell's heater on.

        Raises:
            LimitError: it is outside the limits; nothing was sent.
            Stopped: it was switched off meanwhile.
        """
        check_within(self.name, "target", temperature_c, self.limits_c, "°C")
        await self._actions.do(self._set_target(temperature_c))

    async def _set_target(self, temperature_c: float) -> None:
        async with self._setting:
            command = "FCTEMP" if self._part == "flow_cell" else "RETEMP"
            await self._board.order(f"{command}:{self._channel}:{round(float(temperature_c), 2)}")
            self._target_c = temperature_c
            if self._part == "flow_cell":
                await self._board.order(f"FCTEC:{self._channel}:1")

    async def target_c(self) -> float:
        """The target that was set since the device was opened; the board does not tell it.

        Raises:
            NotInitialized: none was, or it was switched off since.
        """
        if self._target_c is None:
            raise NotInitialized(self.name, "target", "no target is set", remedy="Set one first.")
        return self._target_c

    async def temperature_c(self) -> float:
        """What is measured."""
        if self._part == "flow_cell":
            fields = await self._board.ask(f"?FCTEMP:{self._channel}", r"-?[0-9]+(?:\.[0-9]+)?C?")
            return parse_celsius(fields[0])
        fields = await self._board.ask("?RETEMP:3", r"-?[0-9]+(?:\.[0-9]+)?C?(?::-?[0-9]+(?:\.[0-9]+)?C?){2}")
        return parse_celsius(fields[self._channel])

    async def is_stable(self) -> bool:
        """Whether it measures now within `stable_c` of its target; False without one."""
        return self._target_c is not None and abs(await self.temperature_c() - self._target_c) <= self._stable_c

    async def wait_stable(self, tolerance_c: float, dwell_s: float, timeout_s: float) -> None:
        """Return when it has been within the tolerance for the dwell time.

        Raises:
            LimitError: an argument makes no sense.
            NotInitialized: no target is set.
            DeviceFault: it was not, before the time was over.
            OverTemperature: it is far hotter than any target.
            Stopped: it was switched off meanwhile.
        """
        check_wait(self.name, tolerance_c, dwell_s, timeout_s)
        await self._actions.do(
            await_settled(
                self.name,
                self._bearable_c,
                await self.target_c(),
                tolerance_c,
                dwell_s,
                timeout_s,
                poll_s=_POLL_S,
                wire=self._board.transport.dump,
            )
        )

    async def _bearable_c(self) -> float:
        temperature_c = await self.temperature_c()
        if temperature_c > self._hottest_c:
            raise OverTemperature(
                self.name,
                "temperature",
                f"it reads {temperature_c:g} °C, above {self._hottest_c:g} °C",
                wire=self._board.transport.dump(),
            )
        return temperature_c

    async def disable(self) -> None:
        """Switch a flow cell's heater off.

        For a chiller the board has no such command: it is set to its highest target, at which it cools least.
        """
        self._actions.stop()
        if self._part == "flow_cell":
            await self._switch_off()
        else:
            async with self._setting:
                await self._board.order(f"RETEMP:{self._channel}:{float(self.limits_c.high)}")
                self._target_c = None

    async def _switch_off(self) -> None:
        async with self._setting:
            self._target_c = None
            await self._board.order(self._off)

    @property
    def _off(self) -> str:
        return f"FCTEC:{self._channel}:0"

    @property
    def _hottest_c(self) -> float:
        return self.limits_c.high + _OVERSHOOT_K


class Arm9Switch:
    """The board's vacuum pump, which holds the flow cells, or its shut-off valve, which keeps them from siphoning.

    Args:
        transport: The board's line, shared by all its devices.
        name: The device's name in messages.
        part: "vacuum" or "shutoff".
    """

    def __init__(self, transport: Transport, name: str, *, part: Literal["vacuum", "shutoff"]) -> None:
        self.name = name
        self._board = _Board(transport, name)
        self.part = part

    async def open(self) -> Identity:
        """Connect, and identify the board; raises what `Arm9Temperature.open` raises."""
        return await self._board.open()

    async def close(self) -> None:
        """Let go of the line."""
        await self._board.transport.close()

    async def make_safe(self) -> None:
        """Shut the shut-off valve; the vacuum stays, since a flow cell that is let go leaks."""
        if self.part == "shutoff":
            self._board.transport.interrupt(encode("asyphon:0:0"))
            await self.set_on(False)

    async def read_faults(self) -> list[Fault]:
        """Nothing: the board tells none."""
        return []

    async def clear_faults(self) -> None:
        """Do nothing: the board keeps no faults."""

    async def set_on(self, on: bool) -> None:
        """Switch the vacuum on, or open the shut-off valve, or the reverse; the valve is read back.

        Raises:
            DeviceFault: the board refuses, or the valve is not as it was set.
        """
        if self.part == "vacuum":
            await self._board.order(f"VACUUM:{on:d}")
            return
        await self._board.order(f"asyphon:0:{on:d}")
        if await self.is_open() != on:
            raise DeviceFault(
                self.name,
                "asyphon",
                f"the shut-off valve is {'shut' if on else 'open'} after it was {'opened' if on else 'shut'}",
                wire=self._board.transport.dump(),
            )

    async def is_open(self) -> bool:
        """Whether the shut-off valve is open.

        Raises:
            DeviceFault: it is the vacuum, of which the board tells nothing.
        """
        if self.part == "vacuum":
            raise DeviceFault(self.name, "VACUUM", "the board does not tell whether the vacuum is on")
        return (await self._board.ask("?asyphon:0", "[01]")) == ["1"]
