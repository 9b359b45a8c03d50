"""ASI MS-2000 and Tiger (TG-1000) controllers: an XY stage and a focus axis, which may sit on one controller.

ASCII. A command ends with ``<CR>``; a reply is one text that ends with ``<CR><LF>`` (lines within it with ``<CR>``).
Positions are integers of 0.1 um, limits are in mm, speeds in mm/s, acceleration is the time in ms to full speed.
Replies begin with ``:A``, refusals are ``:N-k``. ``RS X? Y?`` gives ``N`` or ``B`` for each axis, where the firmware
knows it; ``/`` gives one letter for the whole controller. HALT (a backslash) stops every axis of the controller: who
moves another of its axes gets `Stopped`.

Sources: ASI's command quick start; Micro-Manager, tigerasi and python-microscope as clients. Not yet on hardware.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from cartoseq.drivers.axes import AxesFocus, AxesStage
from cartoseq.drivers.capabilities import NOTICE, XY, Fault, Identity, Range, XYLimits
from cartoseq.drivers.errors import DeviceFault, LinkError, Stopped
from cartoseq.drivers.limits import check_within, common_range
from cartoseq.drivers.motion import (
    SEARCH_POLL_S,
    Motion,
    await_rest,
    travel_s,
)
from cartoseq.drivers.sharedhalt import HaltWatch, move_there
from cartoseq.drivers.transport import Probe, Transport, is_understood, lines
from cartoseq.streaming.errors import InputError

T = TypeVar("T")

HALT: Final = b"\\\r"
UNITS_PER_UM: Final = 10
REFUSALS: Final = {
    1: "unknown command",
    2: "unrecognised axis",
    3: "missing parameter",
    4: "parameter out of range",
    5: "operation failed",
    6: "undefined error",
    7: "invalid card address",
    21: "halted by HALT",
}

_REPLY_S: Final = 1.0
_TRIES: Final = 3
_HALTED: Final = 21
_LIMIT_SWITCHES: Final = {6: "upper", 7: "lower"}
_REFUSED: Final = re.compile(r":N-(\d{1,3})\s*$")
_NUMBER: Final = r"[-+]?\d+(?:\.\d*)?"
_FRAME: Final = lines(b"\r\n")


def encode_targets(word: str, values_um: dict[str, float]) -> str:
    """Write a command with a place for each axis: ``M X=12345 Y=-200``, in whole 0.1 um."""
    return " ".join([word, *(f"{axis}={round(value * UNITS_PER_UM)}" for axis, value in values_um.items())])


def parse_done(text: str) -> None:
    """Read the reply ``:A`` and nothing more. Raises `ValueError` for anything else."""
    _whole(r":A", text)


def parse_positions(text: str, count: int) -> list[float]:
    """Read so many positions in um from ``:A 12345 -200``. Raises `ValueError` for anything else."""
    found = _whole(rf":A\s*({_NUMBER}(?:\s+{_NUMBER}){{{count - 1}}})", text)
    return [float(number) / UNITS_PER_UM for number in found[1].split()]


def parse_setting(text: str, axis: str) -> float:
    """Read one number from ``:A X=5.745`` or ``:X=5.745``. Raises `ValueError` for anything else."""
    return float(_whole(rf":A?\s*{axis}=\s*({_NUMBER})", text)[1])


def parse_moving(text: str, count: int) -> list[bool]:
    """Read which axes move from ``:A NB``, or from status bytes ``:A 10 11``. Raises `ValueError` for anything else."""
    found = _whole(rf"(?::A)?\s*([NB](?:\s*[NB]){{{count - 1}}}|\d+(?:\s+\d+){{{count - 1}}})", text)
    if found[1][0] in "NB":
        return [letter == "B" for letter in found[1] if not letter.isspace()]
    return [bool(int(number) & 1) for number in found[1].split()]


def parse_status_byte(text: str) -> int:
    """Read the status byte of one axis from ``:A 10``. Raises `ValueError` for anything else."""
    return int(_whole(r"(?::A)?\s*(\d{1,3})", text)[1])


def parse_busy(text: str) -> bool:
    """Read ``B`` or ``N``, the answer to ``/``. Raises `ValueError` for anything else."""
    return _whole(r"([NB])", text)[1] == "B"


def parse_version(text: str) -> str:
    """Read ``:A Version: USB-9.2m``. Raises `ValueError` for anything else."""
    return _whole(r":A\s*(?:Version:)?\s*(\S.*?)", text)[1]


def parse_build(text: str) -> tuple[str, list[str]]:
    """Read the build's name and the axes from the lines that answer ``BU X``; no axes where it names none.

    Raises:
        ValueError: there is no name.
    """
    found = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    if not found:
        raise ValueError("the reply is empty")
    axes = next((line.split(":", 1)[1].split() for line in found if line.startswith("Motor Axes:")), [])
    return re.sub(r"^:A\s*", "", found[0]), [axis.upper() for axis in axes]


def _whole(pattern: str, text: str) -> re.Match[str]:
    # A byte of noise may come before a reply, and firmware differs in spaces.
    found = re.search(rf"(?:^|[^\x20-\x7e]){pattern}\s*$", text)
    if found is None:
        raise ValueError(f"{text!r} is no such reply")
    return found


class AsiController:
    """What the stage and the focus axis of one controller share: the grammar over a common line.

    Args:
        transport: The line.
        name: Of the device that asks.
        axes: The axes that it uses, as the controller calls them.
    """

    def __init__(self, transport: Transport, name: str, axes: Sequence[str]) -> None:
        self.name = name
        self.axes = tuple(axis.upper() for axis in axes)
        self.transport = transport
        self.asks_each_axis = True
        if any(not re.fullmatch("[A-Z]", axis) for axis in self.axes) or len(set(self.axes)) != len(self.axes):
            raise InputError(name, f"expected different letters as axes, found {', '.join(axes)}")
        if transport.probe is None:
            transport.probe = Probe(b"/\r", _FRAME, lambda frame: is_understood(parse_busy, _text(frame)), _REPLY_S)

    async def ask(self, command: str, parse: Callable[[str], T], *, tries: int = _TRIES) -> T:
        """Send a command and return what its reply means.

        Raises:
            DeviceFault: it was refused.
            Stopped: it was ended by HALT.
            LinkError: no such reply came.
        """
        frame = await self.transport.exchange(
            command.encode() + b"\r",
            _FRAME,
            timeout_s=_REPLY_S,
            accept=lambda frame: bool(_REFUSED.search(_text(frame))) or is_understood(parse, _text(frame)),
            tries=tries,
        )
        refused = _REFUSED.search(_text(frame))
        if refused is None:
            return parse(_text(frame))
        code = int(refused[1])
        if code == _HALTED:
            raise Stopped(self.name, f"{command} was ended by a halt of the controller")
        raise DeviceFault(
            self.name,
            f"N-{code}",
            f"the controller refused {command}: {REFUSALS.get(code, 'reserved error')}",
            remedy="Check the axes and limits in the instrument file against the controller's configuration.",
            wire=self.transport.dump(),
        )

    async def identify(self) -> Identity:
        """Ask who it is, hold that it has the axes, and learn how to ask whether they move."""
        await self._even_if_refused(
            "VB F=0", lambda text: text
        )  # the classic syntax of replies; old firmware has no other
        version = await self.ask("V", parse_version)
        build, present = await self._even_if_refused("BU X", parse_build) or ("", [])
        missing = [axis for axis in self.axes if present and axis not in present]
        if missing:
            raise InputError(
                self.name,
                f"the controller has the axes {', '.join(present)}, not {', '.join(missing)}",
                remedy="Name its axes in the instrument file.",
            )
        await self.positions_um()
        self.asks_each_axis = await self._even_if_refused(self._each_axis(), self._parse_each_axis) is not None
        model = "Tiger" if "TIGER" in build.upper() else "MS-2000"
        return Identity("ASI", f"{model} {build}".strip(), firmware=version, notice=NOTICE)

    async def positions_um(self) -> dict[str, float]:
        """Where each axis is."""
        found = await self.ask(f"W {' '.join(self.axes)}", lambda text: parse_positions(text, len(self.axes)))
        return dict(zip(self.axes, found, strict=True))

    async def is_moving(self) -> bool:
        """Whether an axis moves: one of these, or any of the controller where it cannot be asked for each."""
        if self.asks_each_axis:
            return any(await self.ask(self._each_axis(), self._parse_each_axis))
        return await self.ask("/", parse_busy)

    async def setting(self, word: str, axis: str) -> float:
        """Read a setting of an axis."""
        return await self.ask(f"{word} {axis}?", lambda text: parse_setting(text, axis))

    async def limits_um(self, axis: str) -> Range:
        """The limits that the controller keeps."""
        low_mm, high_mm = [await self.setting(word, axis) for word in ("SL", "SU")]
        return Range(low_mm * 1000, high_mm * 1000)

    def halt(self) -> None:
        """Stop all axes of the controller at once."""
        self.transport.interrupt(HALT)

    async def read_faults(self) -> list[Fault]:
        """The limit switches that are closed, where the firmware tells of them."""
        faults = []
        for axis in self.axes:
            status = await self._even_if_refused(f"RS {axis}", parse_status_byte) or 0
            faults += [
                Fault(f"{axis} bit {bit}", f"{which} limit switch of {axis} is closed")
                for bit, which in _LIMIT_SWITCHES.items()
                if status >> bit & 1
            ]
        return faults

    def _each_axis(self) -> str:
        return f"RS {' '.join(f'{axis}?' for axis in self.axes)}"

    def _parse_each_axis(self, text: str) -> list[bool]:
        return parse_moving(text, len(self.axes))

    async def _even_if_refused(self, command: str, parse: Callable[[str], T]) -> T | None:
        try:
            return await self.ask(command, parse)
        except DeviceFault:
            return None


class _AsiAxes:
    """Axes that move together: settings, moves, stops."""

    def __init__(
        self,
        controller: AsiController,
        limits_um: dict[str, Range],
        speed_mm_per_s: float | None,
        acceleration_ms: float | None,
        home_um: dict[str, float] | None,
        tolerance_um: float,
    ) -> None:
        self.controller = controller
        self.limits_um = limits_um
        self.motion = Motion(controller.name, controller.halt, controller.is_moving)
        self._configured_um = limits_um
        self._settings = {"S": speed_mm_per_s, "AC": acceleration_ms}
        self._home_um = home_um
        self._tolerance_um = tolerance_um
        self._speed_um_per_s = dict.fromkeys(limits_um, 1000.0)
        self._acceleration_s = dict.fromkeys(limits_um, 0.1)

    async def open(self) -> Identity:
        controller = self.controller
        in_use = controller.transport.is_open
        async with controller.transport.opening("an ASI MS-2000 or Tiger"):
            identity = await controller.identify()
            for word, value in self._settings.items():
                if value is not None:
                    command = " ".join([word, *(f"{axis}={value:.6g}" for axis in controller.axes)])
                    await controller.ask(command, parse_done)
            self.limits_um = {
                axis: common_range(controller.name, axis, self._configured_um[axis], await controller.limits_um(axis))
                for axis in controller.axes
            }
            for axis in controller.axes:
                speed_mm_per_s = await controller.setting("S", axis)
                if speed_mm_per_s <= 0:
                    raise InputError(controller.name, f"the speed of {axis} is {speed_mm_per_s} mm/s, expected above 0")
                self._speed_um_per_s[axis] = speed_mm_per_s * 1000
                self._acceleration_s[axis] = max(await controller.setting("AC", axis), 1) / 1000
            if controller.asks_each_axis or not in_use:
                await self.motion.rest(max(self._acceleration_s.values()))
        return identity

    async def move_to(self, target_um: dict[str, float]) -> None:
        for axis, value in target_um.items():
            check_within(self.controller.name, axis, value, self.limits_um[axis])
        await self.motion.run(self._in_turn(self._move, target_um))

    async def home(self) -> None:
        await self.motion.run(self._in_turn(self._find_home))

    async def stop(self) -> None:
        await self.motion.stop(max(self._acceleration_s.values()))

    async def close(self) -> None:
        await self.controller.transport.close()

    async def positions_um(self) -> dict[str, float]:
        return await self.controller.positions_um()

    async def read_faults(self) -> list[Fault]:
        return await self.controller.read_faults()

    async def clear_faults(self) -> None:
        pass  # nothing is latched: a limit switch opens when the stage leaves it

    def _expected_s(self, distance_um: dict[str, float]) -> float:
        return max(
            travel_s(distance, speed := self._speed_um_per_s[axis], speed / self._acceleration_s[axis])
            for axis, distance in distance_um.items()
        )

    async def _in_turn(self, move: Callable[..., Awaitable[None]], *target_um: dict[str, float]) -> None:
        """Move; if the controller can only say that any of its axes moves, when no other does."""
        watch = HaltWatch(self.controller)
        async with contextlib.nullcontext() if self.controller.asks_each_axis else self.controller.transport.whole:
            watch.check()
            await move(*target_um)

    async def _move(self, target_um: dict[str, float]) -> None:
        command = encode_targets("M", target_um)
        await move_there(
            self.controller,
            target_um,
            lambda: self.controller.ask(command, parse_done, tries=1),
            self._expected_s,
            self._tolerance_um,
        )

    async def _find_home(self) -> None:
        controller = self.controller
        watch = HaltWatch(controller)
        try:
            await controller.ask(f"! {' '.join(controller.axes)}", parse_done, tries=1)
        except LinkError:
            watch.check()
            if not await controller.is_moving():
                raise
        # From anywhere, and the travel between the switches is longer than between the limits.
        span_um = {axis: 2 * (limits.high - limits.low) for axis, limits in self.limits_um.items()}
        await await_rest(
            controller.name,
            controller.is_moving,
            controller.halt,
            self._expected_s(span_um),
            poll_from_start_s=SEARCH_POLL_S,
        )
        watch.check()
        if self._home_um is not None:
            await controller.ask(encode_targets("H", self._home_um), parse_done)


class AsiStage(AxesStage):
    """XY stage on an ASI controller.

    Args:
        transport: The line; a focus axis of the same controller shares it.
        name: Of the device, in messages.
        limits: Allowed travel; at `open` it is narrowed to what the controller allows.
        axes: What the controller calls X and Y.
        speed_mm_per_s: Is set at `open`; none leaves it as it is.
        acceleration_ms: Time to full speed; is set at `open`; none leaves it as it is.
        home: The coordinates that the reference place gets in `home`; none keeps the controller's own count.
        tolerance_um: How far from its target the stage may come to rest.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        limits: XYLimits,
        axes: tuple[str, str] = ("X", "Y"),
        speed_mm_per_s: float | None = None,
        acceleration_ms: float | None = None,
        home: XY | None = None,
        tolerance_um: float = 1.0,
    ) -> None:
        controller = AsiController(transport, name, axes)
        x, y = controller.axes
        found = _AsiAxes(
            controller,
            {x: limits.x_um, y: limits.y_um},
            speed_mm_per_s,
            acceleration_ms,
            None if home is None else {x: home.x_um, y: home.y_um},
            tolerance_um,
        )
        super().__init__(name, found, x=x, y=y)


class AsiFocus(AxesFocus):
    """Focus axis on an ASI controller.

    Args:
        transport: The line; the XY stage of the same controller shares it.
        name: Of the device, in messages.
        limits_um: Allowed travel; at `open` it is narrowed to what the controller allows.
        axis: What the controller calls it.
        speed_mm_per_s: Is set at `open`; none leaves it as it is.
        acceleration_ms: Time to full speed; is set at `open`; none leaves it as it is.
        tolerance_um: How far from its target the axis may come to rest.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        limits_um: Range,
        axis: str = "Z",
        speed_mm_per_s: float | None = None,
        acceleration_ms: float | None = None,
        tolerance_um: float = 0.3,
    ) -> None:
        controller = AsiController(transport, name, (axis,))
        z = controller.axes[0]
        super().__init__(
            name, _AsiAxes(controller, {z: limits_um}, speed_mm_per_s, acceleration_ms, None, tolerance_um), z=z
        )


def _text(frame: bytes) -> str:
    return frame.decode("latin-1")
