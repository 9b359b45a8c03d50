"""Prior ProScan II/III and OptiScan controllers: an XY stage and a focus axis, which may sit on one controller.

ASCII. A command ends with ``<CR>``, a reply with ``<CR>``; texts of several lines end with a line ``END``. ``COMP 0``
selects the standard mode, in which a move is answered with ``R`` as soon as it is queued and ``$`` tells which axes
move: 1 X, 2 Y, 4 Z. Positions are integers of the resolution (``RES``). ``I`` stops every axis of the controller: who
moves another of its axes gets `Stopped`. Errors are ``E,n``.

The controller tells speeds and accelerations in percent only; what 100 % is must be known of the stage.

Sources: Micro-Manager and python-microscope as clients; the table of errors is from general knowledge. Not yet on
hardware.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from cartoseq.drivers.axes import AxesFocus, AxesStage
from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range, XYLimits
from cartoseq.drivers.errors import Busy, DeviceFault, LinkError
from cartoseq.drivers.limits import check_within
from cartoseq.drivers.motion import (
    SEARCH_POLL_S,
    Motion,
    await_rest,
    travel_s,
)
from cartoseq.drivers.sharedhalt import HaltWatch, move_there
from cartoseq.drivers.transport import Framer, Probe, Transport, is_understood, lines
from cartoseq.streaming.errors import InputError

T = TypeVar("T")

STOP: Final = b"I\r"
RESOLUTION_UM: Final = 0.1
ERRORS: Final = {
    1: "no stage",
    2: "not idle",
    3: "no drive",
    4: "the command cannot be parsed",
    5: "unknown command",
    6: "invalid shutter",
    7: "no focus axis",
    8: "value out of range",
    9: "invalid filter wheel",
    10: "argument 1 out of range",
    11: "argument 2 out of range",
    12: "argument 3 out of range",
    13: "argument 4 out of range",
    14: "argument 5 out of range",
    15: "argument 6 out of range",
    16: "incorrect state",
    17: "no filter wheel",
    18: "queue full",
    19: "compatibility mode is set",
    20: "no shutter",
    21: "invalid checksum",
    60: "encoder error",
    61: "encoder ran off",
}

_AXES: Final = "XYZ"
_REPLY_S: Final = 1.0
_TRIES: Final = 3
_FRAME: Final = lines(b"\r")
_ERROR: Final = re.compile(r"E,(\d{1,3})")


def texts(buffer: bytes) -> tuple[int, int] | None:
    """Frame a text of several lines, which ends with a line ``END``, or an error of one line."""
    found = re.search(rb"(?:^|\r)\s*(?:END|E,\d+)\r", buffer)
    return None if found is None else (0, found.end())


def parse_error(text: str) -> int | None:
    """Read the number of ``E,5``; nothing if it is no error."""
    found = _ERROR.fullmatch(_clean(text))
    return None if found is None else int(found[1])


def parse_word(text: str, word: str) -> None:
    """Read one word, such as ``R`` or ``0``. Raises `ValueError` for anything else."""
    if _clean(text) != word:
        raise ValueError(f"expected {word}, found {text!r}")


def parse_integers(text: str, count: int) -> list[int]:
    """Read so many integers from ``1000,2000``. Raises `ValueError` for anything else."""
    if not re.fullmatch(rf"-?\d{{1,12}}(?:,-?\d{{1,12}}){{{count - 1}}}", _clean(text)):
        raise ValueError(f"expected {count} integers, found {text!r}")
    return [int(number) for number in _clean(text).split(",")]


def parse_number(text: str) -> float:
    """Read one number. Raises `ValueError` for anything else."""
    if not re.fullmatch(r"-?\d{1,12}(?:\.\d*)?", _clean(text)):
        raise ValueError(f"expected a number, found {text!r}")
    return float(_clean(text))


def parse_mask(text: str) -> int:
    """Read two hexadecimal digits. Raises `ValueError` for anything else."""
    if not re.fullmatch(r"[0-9A-Fa-f]{2}", _clean(text)):
        raise ValueError(f"expected two hexadecimal digits, found {text!r}")
    return int(_clean(text), 16)


def parse_properties(text: str) -> dict[str, str]:
    """Read the lines ``NAME = value`` of a text that ends with ``END``; other lines are passed over.

    Raises:
        ValueError: it does not end so.
    """
    found = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    if not found or found[-1] != "END":
        raise ValueError(f"expected lines and END, found {text!r}")
    pairs = (line.split("=", 1) for line in found if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def parse_title(text: str) -> str:
    """Read the name in ``PROSCAN INFORMATION``, the first line that answers ``?``. Raises `ValueError` for others."""
    parse_properties(text)
    title = _clean(re.split(r"[\r\n]+", text.strip())[0])
    if not title.endswith("INFORMATION"):
        raise ValueError(f"expected ... INFORMATION, found {title!r}")
    return title.removesuffix("INFORMATION").strip()


class _Controller:
    """The grammar over a line that the stage and the focus axis of a controller share.

    Args:
        transport: The line.
        name: Of the device that asks.
        axes: Its axes.
    """

    def __init__(self, transport: Transport, name: str, axes: Iterable[str]) -> None:
        self.name = name
        self.transport = transport
        self.step_um = RESOLUTION_UM
        self._places = {axis: _AXES.index(axis) for axis in axes}
        if transport.probe is None:
            transport.probe = Probe(
                b"$\r", _FRAME, lambda frame: is_understood(parse_number, frame.decode("latin-1")), _REPLY_S
            )

    async def ask(
        self,
        command: str,
        parse: Callable[[str], T],
        *,
        framer: Framer = _FRAME,
        tries: int = _TRIES,
        timeout_s: float = _REPLY_S,
    ) -> T:
        frame = await self.transport.exchange(
            command.encode() + b"\r",
            framer,
            timeout_s=timeout_s,
            accept=lambda frame: parse_error(_text(frame)) is not None or is_understood(parse, _text(frame)),
            tries=tries,
        )
        text = _text(frame)
        code = parse_error(text)
        if code is None:
            return parse(text)
        meaning = f"the controller refused {command}: {ERRORS.get(code, 'unknown error')}"
        if code in (2, 18):
            raise Busy(self.name, meaning, remedy="Stop it, or wait.", wire=self.transport.dump())
        raise DeviceFault(self.name, f"E,{code}", meaning, wire=self.transport.dump())

    async def do(self, command: str, answer: str = "0", *, tries: int = _TRIES) -> None:
        await self.ask(command, lambda text: parse_word(text, answer), tries=tries)

    async def is_moving(self) -> bool:
        moving = await self.ask("$", lambda text: parse_integers(text, 1)[0])
        return any(moving >> place & 1 for place in self._places.values())

    async def positions_um(self) -> dict[str, float]:
        # All three: PZ would answer one number, as $ does, and a reply does not say to which command it belongs.
        steps = await self.ask("P", lambda text: parse_integers(text, len(_AXES)))
        return {axis: steps[place] * self.step_um for axis, place in self._places.items()}

    def halt(self) -> None:
        self.transport.interrupt(STOP)


class _Axes:
    """Axes of a controller that move together, in steps of one resolution."""

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        limits_um: dict[str, Range],
        tolerance_um: float,
        speed_percent: int | None,
        full_speed_mm_per_s: float,
        full_acceleration_mm_per_s2: float,
    ) -> None:
        if full_speed_mm_per_s <= 0 or full_acceleration_mm_per_s2 <= 0:
            raise InputError(name, "full_speed_mm_per_s and full_acceleration_mm_per_s2 must be above 0")
        if speed_percent is not None and not 1 <= speed_percent <= 100:
            raise InputError(name, f"speed_percent is {speed_percent}, expected 1 to 100")
        self.limits_um = limits_um
        self.controller = _Controller(transport, name, limits_um)
        self._name = name
        self._letter = "Z" if "Z" in limits_um else "S"
        self._tolerance_um = tolerance_um
        self._speed_percent = speed_percent
        self._full = {"SM": full_speed_mm_per_s * 1000, "SA": full_acceleration_mm_per_s2 * 1000}
        self._speed_um_per_s, self._acceleration_um_per_s2 = self._full["SM"] / 100, self._full["SA"] / 100
        self._motion = Motion(name, self.controller.halt, self.controller.is_moving)

    async def open(self) -> Identity:
        transport = self.controller.transport
        async with transport.opening("a Prior ProScan or OptiScan"):
            identity = await self._identify()
            await self._motion.rest(self._speed_um_per_s / self._acceleration_um_per_s2)
        return identity

    async def move_to(self, target_um: dict[str, float]) -> None:
        for axis, value_um in target_um.items():
            check_within(self._name, axis, value_um, self.limits_um[axis])
        await self._motion.run(self._in_turn(self._move, target_um))

    async def home(self) -> None:
        await self._motion.run(self._in_turn(self._find_home))

    async def stop(self) -> None:
        await self._motion.stop(self._speed_um_per_s / self._acceleration_um_per_s2)

    async def close(self) -> None:
        await self.controller.transport.close()

    async def positions_um(self) -> dict[str, float]:
        return await self.controller.positions_um()

    async def read_faults(self) -> list[Fault]:
        closed = await self.controller.ask("LMT", parse_mask)
        return [Fault(f"LMT {closed:02X}", "limit switches of the controller are closed")] if closed else []

    async def clear_faults(self) -> None:
        await self.controller.ask("=", parse_mask)

    async def _identify(self) -> Identity:
        ask = self.controller.ask
        await self.controller.do("COMP 0")
        title = await ask("?", parse_title, framer=texts)
        part = "FOCUS" if self._letter == "Z" else "STAGE"
        properties = await ask(part, parse_properties, framer=texts)
        fitted = properties.get(part, "")
        if fitted == "NONE":
            raise InputError(
                self._name, f"the controller says that no {part.lower()} is fitted", remedy="Check its plug."
            )
        for axis, limits in self.limits_um.items():
            size = re.match(r"(\d+(?:\.\d+)?)\s*MM", properties.get(f"SIZE_{axis}", ""))
            if size is not None and limits.high - limits.low > 1000 * float(size[1]):
                raise InputError(
                    self._name,
                    f"the limits of {axis} span {(limits.high - limits.low) / 1000:.6g} mm, "
                    f"but {fitted} travels {size[1]} mm",
                    remedy="Correct them in the instrument file.",
                )
        notes = [NOTICE]
        # A set command answers 0 even where the value is not taken: what counts is what is read back.
        await self.controller.do(f"RES,{self._letter.lower()},{RESOLUTION_UM}")
        step_um = await ask(f"RES,{self._letter.lower()}", lambda text: parse_number(text.split(",")[0]))
        self.controller.step_um = step_um if step_um > 0 else RESOLUTION_UM
        if step_um <= 0:
            notes.append(f"the controller tells no resolution, {RESOLUTION_UM} um is assumed: check one move")
        if self._speed_percent is not None:
            await self.controller.do(f"SM{self._letter},{self._speed_percent}")
        rates = {}
        for word, full in self._full.items():
            percent = await ask(f"{word}{self._letter}", parse_number)
            rates[word] = full * min(max(percent, 1), 100) / 100  # some say more than 100 after they were switched on
        self._speed_um_per_s, self._acceleration_um_per_s2 = rates["SM"], rates["SA"]
        return Identity("Prior", f"{title} {fitted}".strip(), notice="; ".join(notes))

    async def _in_turn(self, move: Callable[..., Awaitable[None]], *target_um: dict[str, float]) -> None:
        """Move when no other axis of the controller does: it would queue the move, and nobody could tell its end."""
        watch = HaltWatch(self.controller)
        async with self.controller.transport.whole:
            watch.check()
            await move(*target_um)

    async def _move(self, target_um: dict[str, float]) -> None:
        controller = self.controller
        steps = ",".join(str(round(value_um / controller.step_um)) for value_um in target_um.values())
        command = f"{'V' if self._letter == 'Z' else 'G'},{steps}"
        await move_there(
            controller,
            target_um,
            lambda: controller.do(command, "R", tries=1),
            lambda distance_um: max(map(self._travel_s, distance_um.values())),
            self._tolerance_um,
        )

    def _travel_s(self, distance_um: float) -> float:
        return travel_s(distance_um, self._speed_um_per_s, self._acceleration_um_per_s2)

    async def _find_home(self) -> None:
        controller = self.controller
        watch = HaltWatch(controller)
        span_um = max(limits.high - limits.low for limits in self.limits_um.values())
        limit_s = 4 * self._travel_s(2 * span_um) + 5
        try:  # R comes when the stage is home, at last
            await controller.ask("SIS", lambda text: parse_word(text, "R"), tries=1, timeout_s=limit_s)
        except LinkError:
            watch.check()
            raise
        await await_rest(self._name, controller.is_moving, controller.halt, limit_s, poll_from_start_s=SEARCH_POLL_S)
        watch.check()


class PriorStage(AxesStage):
    """XY stage on a Prior controller.

    Args:
        transport: The line; the focus axis of the same controller shares it.
        name: Of the device, in messages.
        limits: Allowed travel; the controller keeps none of its own.
        full_speed_mm_per_s: Speed at 100 %, from the stage's data sheet.
        full_acceleration_mm_per_s2: Acceleration at 100 %.
        speed_percent: Is set at `open`, 1 to 100; none leaves it as it is.
        tolerance_um: How far from its target the stage may come to rest.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        limits: XYLimits,
        full_speed_mm_per_s: float,
        full_acceleration_mm_per_s2: float,
        speed_percent: int | None = None,
        tolerance_um: float = 1.0,
    ) -> None:
        axes = _Axes(
            transport,
            name,
            limits_um={"X": limits.x_um, "Y": limits.y_um},
            tolerance_um=tolerance_um,
            speed_percent=speed_percent,
            full_speed_mm_per_s=full_speed_mm_per_s,
            full_acceleration_mm_per_s2=full_acceleration_mm_per_s2,
        )
        super().__init__(name, axes)


class PriorFocus(AxesFocus):
    """Focus axis on a Prior controller.

    Args:
        transport: The line; the XY stage of the same controller shares it.
        name: Of the device, in messages.
        limits_um: Allowed travel; the controller keeps none of its own.
        full_speed_mm_per_s: Speed at 100 %, from the data sheet.
        full_acceleration_mm_per_s2: Acceleration at 100 %.
        speed_percent: Is set at `open`, 1 to 100; none leaves it as it is.
        tolerance_um: How far from its target the axis may come to rest.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        limits_um: Range,
        full_speed_mm_per_s: float,
        full_acceleration_mm_per_s2: float,
        speed_percent: int | None = None,
        tolerance_um: float = 0.3,
    ) -> None:
        axes = _Axes(
            transport,
            name,
            limits_um={"Z": limits_um},
            tolerance_um=tolerance_um,
            speed_percent=speed_percent,
            full_speed_mm_per_s=full_speed_mm_per_s,
            full_acceleration_mm_per_s2=full_acceleration_mm_per_s2,
        )
        super().__init__(name, axes)


def _text(frame: bytes) -> str:
    return frame.decode("latin-1")


def _clean(text: str) -> str:
    # A byte of noise may come before a reply.
    return re.sub(r"^[^\x20-\x7e]+", "", text.strip()).strip()
