"""Zaber devices with the ASCII protocol (firmware 6 and 7): an XY stage of two axes, and a focus axis.

::

    /01 1 05 move abs 10000:8B<LF>            device 1, axis 1, message 5; the checksum is optional
    @01 1 05 OK BUSY -- 0:..<CR><LF>          reply: OK or RJ, BUSY or IDLE, the gravest warning, data
    #01 1 05 text<CR><LF>                     further information
    !01 1 IDLE FS<CR><LF>                     alert, unasked

Every command carries a message id, which its reply repeats, and a checksum: the sum of all bytes after the first
character, negated, in two hex digits. Positions are microsteps; speeds are microsteps/s times 1.6384, accelerations
microsteps/s^2 times 1.6384/10000. A stop is addressed to the axes of the one device that is stopped.

Sources: Zaber's ASCII protocol as zaber-motion speaks it, and other clients. Not yet on hardware.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from cartoseq.drivers.axes import AxesFocus, AxesStage
from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.errors import (
    Busy,
    ChecksumError,
    DeviceError,
    DeviceFault,
    FramingError,
    NotInitialized,
    OverTemperature,
    StallError,
    Stopped,
)
from cartoseq.drivers.limits import check_within, common_range
from cartoseq.drivers.motion import (
    SEARCH_POLL_S,
    Motion,
    await_rest,
    begin,
    check_arrivals,
    travel_s,
)
from cartoseq.drivers.transport import Transport, lines
from cartoseq.streaming.errors import InputError

SPEED_UNIT: Final = 1.6384
FLAGS: Final = {
    "FF": "critical system error",
    "FN": "peripheral not supported",
    "FZ": "peripheral inactive",
    "FH": "emergency stop by hardware",
    "FV": "supply voltage out of range",
    "FO": "driver disabled, no fault",
    "FC": "inrush current too high",
    "FM": "motor too hot",
    "FD": "driver disabled",
    "FQ": "encoder error",
    "FI": "index error",
    "FA": "analog encoder out of step",
    "FR": "overdrive limit exceeded",
    "FS": "stalled and stopped",
    "FB": "stream out of bounds",
    "FP": "path deviation",
    "FE": "limit switch reached",
    "FT": "twist too large",
    "WL": "limit switch where none was expected",
    "WV": "supply voltage",
    "WT": "controller hot",
    "WS": "stalled and recovered",
    "WM": "displaced when at rest",
    "WP": "type of calibration",
    "WR": "no reference position",
    "WH": "not homed",
    "NC": "moved by hand",
    "NI": "movement interrupted",
    "ND": "stream discontinuity",
    "NR": "value rounded",
    "NT": "value truncated",
    "NU": "setting pending",
    "NJ": "joystick calibrating",
    "NB": "firmware update",
}
REASONS: Final = {
    "BADCOMMAND": "unknown command",
    "BADDATA": "value out of range",
    "BADAXIS": "no such axis",
    "BADMESSAGEID": "message id out of range",
    "DEVICEONLY": "not a command for one axis",
    "FULL": "queue full",
    "LOCKSTEP": "axis is locked to another",
    "NOACCESS": "no access at this level",
    "PARKED": "parked",
    "STATUSBUSY": "busy",
    "DRIVERDISABLED": "driver disabled",
    "REMOTE": "in the hands of another protocol",
}

_FRAME: Final = lines(b"\r\n")
_REPLY_S: Final = 0.5
_TRIES: Final = 3
_IDS: Final = 100
_NO_REFERENCE: Final = ("WR", "WH")
_REPLY: Final = re.compile(r"@(\d{1,2}) (\d)(?: (\d{1,2}))? (OK|RJ) (IDLE|BUSY) (--|[A-Z]{2}) (\S.*)")


class ChecksumMismatchError(ValueError):
    """A message's checksum is not that of its bytes."""


@dataclass(frozen=True)
class Reply:
    """A reply.

    Attributes:
        device: Address of the device.
        axis: Number of the axis; 0 is the device itself.
        message_id: Of the command, where it had one.
        accepted: Whether the command was taken.
        busy: Whether the axis, or any axis of the device, moves.
        warning: The gravest warning flag, or ``--``.
        data: What was asked for, or why the command was rejected.
    """

    device: int
    axis: int
    message_id: int | None
    accepted: bool
    busy: bool
    warning: str
    data: str


def checksum(content: bytes) -> int:
    """Return what makes the sum of all bytes zero in its low byte."""
    return -sum(content) & 0xFF


def encode(device: int, axis: int, message_id: int, command: str) -> bytes:
    """Write a command with id, checksum and its end."""
    content = f"{device:02d} {axis} {message_id:02d} {command}".encode("ascii")
    return b"/%b:%02X\n" % (content, checksum(content))


def parse_reply(frame: bytes) -> Reply:
    """Read a reply; noise before it is skipped, a checksum is verified where there is one.

    Raises:
        ChecksumMismatchError: the checksum is wrong.
        ValueError: it is no reply: an alert, an information, or garbage.
    """
    begin_ = frame.rfind(b"@")
    if begin_ < 0:
        raise ValueError(f"{frame!r} is no reply")
    content = frame[begin_:].rstrip(b"\r\n")
    if content[-3:-2] == b":" and re.fullmatch(rb"[0-9A-Fa-f]{2}", content[-2:]):
        if checksum(content[1:-3]) != int(content[-2:], 16):
            raise ChecksumMismatchError(f"the checksum of {content!r} should be {checksum(content[1:-3]):02X}")
        content = content[:-3]
    found = _REPLY.fullmatch(content.decode("latin-1"))
    if found is None:
        raise ValueError(f"{frame!r} is no reply")
    device, axis, message_id, flag, status, warning, data = found.groups()
    return Reply(
        int(device),
        int(axis),
        None if message_id is None else int(message_id),
        flag == "OK",
        status == "BUSY",
        warning,
        data.strip(),
    )


def parse_number(data: str) -> float:
    """Read one finite number. Raises `ValueError` for anything else."""
    if not re.fullmatch(r"-?\d+(\.\d*)?", data):
        raise ValueError(f"expected a number, found {data!r}")
    return float(data)


def parse_warnings(data: str) -> list[str]:
    """Read the flags from ``02 WR FS``. Raises `ValueError` for anything else."""
    count, *flags = data.split() or [""]
    if not re.fullmatch(r"\d{1,2}", count) or int(count) != len(flags):
        raise ValueError(f"expected the number of flags and the flags, found {data!r}")
    return flags


def speed_mm_per_s(device_speed: float, microstep_um: float) -> float:
    """Return a speed in mm/s from the device's unit."""
    return device_speed / SPEED_UNIT * microstep_um / 1000


def device_speed(speed_mm_per_s: float, microstep_um: float) -> int:
    """Return a speed in the device's unit from mm/s."""
    return round(speed_mm_per_s * 1000 / microstep_um * SPEED_UNIT)


@dataclass(frozen=True)
class ZaberAxis:
    """One axis, as the instrument file describes it.

    Attributes:
        device: Address of its device on the line, from 1.
        axis: Its number at the device, from 1.
        microstep_um: Travel of one microstep, from the data sheet of the stage at its resolution setting.
        limits_um: Allowed travel; at `open` it is narrowed to what the device allows.
        speed_mm_per_s: Is set at `open`; none leaves it as it is.
    """

    device: int
    axis: int
    microstep_um: float
    limits_um: Range
    speed_mm_per_s: float | None = None


class _Axis:
    """One axis on the line: commands, replies, and what was read from it."""

    def __init__(self, transport: Transport, name: str, label: str, settings: ZaberAxis) -> None:
        if not (1 <= settings.device <= 99 and 1 <= settings.axis <= 9 and settings.microstep_um > 0):
            raise InputError(
                name,
                f"expected a device from 1 to 99, an axis from 1 to 9 and microsteps above 0 um, found {settings}",
            )
        self.name = name
        self.label = label
        self.settings = settings
        self.limits_um = settings.limits_um
        self._transport = transport
        self._message_id = 0
        self._speed_um_per_s = 1000.0
        self._acceleration_um_per_s2 = math.inf

    async def open(self) -> tuple[str, str]:
        """Read what matters of the axis; return the device's id and firmware."""
        settings = self.settings
        device_id = await self.ask("get device.id", whole_device=True)
        firmware = await self.ask("get version", whole_device=True)
        axes = await self.number("get system.axiscount", whole_device=True)
        if settings.axis > axes:
            raise InputError(self.name, f"device {settings.device} has {axes:.0f} axes, no axis {settings.axis}")
        if settings.speed_mm_per_s is not None:
            await self.ask(f"set maxspeed {device_speed(settings.speed_mm_per_s, settings.microstep_um)}")
        low_um, high_um = [await self.number(f"get limit.{end}") * settings.microstep_um for end in ("min", "max")]
        self.limits_um = common_range(self.name, self.label, settings.limits_um, Range(low_um, high_um))
        speed = await self.number("get maxspeed")
        if speed <= 0:
            raise InputError(self.name, f"maxspeed of {self.label} is {speed:g}, expected above 0")
        self._speed_um_per_s = speed_mm_per_s(speed, settings.microstep_um) * 1000
        acceleration = await self.number("get accel")  # 0 is none: full speed at once
        self._acceleration_um_per_s2 = acceleration * 10_000 / SPEED_UNIT * settings.microstep_um or math.inf
        return device_id.data, firmware.data

    async def ask(self, command: str, *, whole_device: bool = False, tries: int = _TRIES) -> Reply:
        """Send a command and return its reply. A rejection raises."""
        device, axis = self.settings.device, 0 if whole_device else self.settings.axis
        self._message_id = message_id = (self._message_id + 1) % _IDS

        def is_ours(frame: bytes) -> bool:
            try:
                reply = parse_reply(frame)
            except ChecksumMismatchError as error:
                raise ChecksumError(self.name, str(error), wire=self._transport.dump()) from error
            except ValueError:
                return False
            return (reply.device, reply.axis, reply.message_id) == (device, axis, message_id)

        reply = parse_reply(
            await self._transport.exchange(
                encode(device, axis, message_id, command), _FRAME, timeout_s=_REPLY_S, accept=is_ours, tries=tries
            )
        )
        if not reply.accepted:
            self._raise_rejected(command, reply)
        return reply

    async def number(self, command: str, *, whole_device: bool = False) -> float:
        """Ask for a number."""
        reply = await self.ask(command, whole_device=whole_device)
        try:
            return parse_number(reply.data)
        except ValueError as error:
            self._transport.doubt()
            raise FramingError(self.name, f"{command}: {error}", wire=self._transport.dump()) from error

    async def flags(self, command: str = "warnings") -> list[str]:
        """Ask for all warning flags, the gravest first."""
        reply = await self.ask(command)
        try:
            return parse_warnings(reply.data)
        except ValueError as error:
            self._transport.doubt()
            raise FramingError(self.name, f"{command}: {error}", wire=self._transport.dump()) from error

    async def position_um(self) -> float:
        return await self.number("get pos") * self.settings.microstep_um

    async def is_moving(self) -> bool:
        return (await self.ask("get pos")).busy

    async def check_flags(self) -> list[str]:
        """Return the flags; a fault, or a lost reference, raises."""
        flags = await self.flags()
        for flag in flags:
            text = f"{self.label}: {FLAGS.get(flag, 'unknown flag')}"
            wire = self._transport.dump()
            if flag.startswith("F"):
                kind = {"FS": StallError, "FM": OverTemperature}.get(flag, DeviceFault)
                raise kind(self.name, flag, text, remedy="Remove the cause, clear the faults, and home it.", wire=wire)
            if flag in _NO_REFERENCE:
                raise NotInitialized(self.name, flag, text, remedy="Home it first.", wire=wire)
        return flags

    def steps(self, value_um: float) -> int:
        return round(value_um / self.settings.microstep_um)

    def stop_command(self) -> bytes:
        self._message_id = (self._message_id + 1) % _IDS
        return encode(self.settings.device, self.settings.axis, self._message_id, "stop")

    def expected_s(self, distance_um: float) -> float:
        return travel_s(distance_um, self._speed_um_per_s, self._acceleration_um_per_s2)

    def slow_down_s(self) -> float:
        return self._speed_um_per_s / self._acceleration_um_per_s2

    def _raise_rejected(self, command: str, reply: Reply) -> None:
        text = f"{self.label} rejected {command}: {REASONS.get(reply.data, reply.data)}"
        wire = self._transport.dump()
        if reply.warning in _NO_REFERENCE and command.startswith("move"):
            raise NotInitialized(self.name, reply.data, f"{text}, not homed", remedy="Home it first.", wire=wire)
        if reply.data in ("STATUSBUSY", "FULL"):
            raise Busy(self.name, text, remedy="Stop it, or wait.", wire=wire)
        raise DeviceFault(self.name, reply.data, text, wire=wire)


class _Axes:
    """Axes that move together."""

    def __init__(self, transport: Transport, name: str, axes: Sequence[_Axis], tolerance_um: float) -> None:
        self.transport = transport
        self.axes = tuple(axes)
        self._name = name
        self._tolerance_um = tolerance_um
        self._motion = Motion(name, self._halt, self._is_moving)
        if len({(axis.settings.device, axis.settings.axis) for axis in axes}) < len(axes):
            raise InputError(name, "two of its axes are the same axis of the same device")

    async def open(self) -> Identity:
        async with self.transport.opening("a Zaber device in its ASCII protocol"):
            found = [await axis.open() for axis in self.axes]
            await self._motion.rest(self._slow_down_s())
        models, firmware = (" and ".join(dict.fromkeys(texts)) for texts in zip(*found, strict=True))
        return Identity("Zaber", f"device id {models}", firmware=firmware, notice=NOTICE)

    @property
    def limits_um(self) -> dict[str, Range]:
        return {axis.label: axis.limits_um for axis in self.axes}

    async def close(self) -> None:
        await self.transport.close()

    async def positions_um(self) -> dict[str, float]:
        return {axis.label: await axis.position_um() for axis in self.axes}

    async def move_to(self, target_um: dict[str, float]) -> None:
        for axis in self.axes:
            check_within(self._name, axis.label, target_um[axis.label], axis.limits_um)
        await self._motion.run(self._move(target_um))

    async def home(self) -> None:
        await self._motion.run(self._find_home())

    async def stop(self) -> None:
        await self._motion.stop(self._slow_down_s())

    async def read_faults(self) -> list[Fault]:
        return [
            Fault(f"{axis.label} {flag}", FLAGS.get(flag, "unknown flag"), severe=flag.startswith("F"))
            for axis in self.axes
            for flag in await axis.flags()
        ]

    async def clear_faults(self) -> None:
        for axis in self.axes:
            await axis.flags("warnings clear")

    async def _move(self, target_um: dict[str, float]) -> None:
        for axis in self.axes:
            if any(flag.startswith("N") for flag in await axis.check_flags()):
                await axis.flags("warnings clear")  # notes of an earlier move
        start_um = await self.positions_um()
        try:
            for axis in self.axes:
                await self._begin(axis, target_um[axis.label])
        except DeviceError:
            self._halt()  # the other axis may move already
            raise
        expected_s = max(axis.expected_s(target_um[axis.label] - start_um[axis.label]) for axis in self.axes)
        await await_rest(self._name, self._is_moving, self._halt, expected_s)
        flags = [flag for axis in self.axes for flag in await axis.check_flags()]
        found_um = await self.positions_um()
        try:
            check_arrivals(self._name, start_um, target_um, found_um, self._tolerance_um, self.transport.dump())
        except DeviceFault as error:
            if "NI" in flags or "NC" in flags:
                raise Stopped(self._name, f"the move was interrupted from elsewhere: {error.text}") from error
            raise

    async def _begin(self, axis: _Axis, value_um: float) -> None:
        async def has_begun() -> bool:
            reply = await axis.ask("get pos")
            return reply.busy or reply.data == str(axis.steps(value_um))

        await begin(lambda: axis.ask(f"move abs {axis.steps(value_um)}", tries=1), has_begun)

    async def _find_home(self) -> None:
        await self.clear_faults()
        try:
            for axis in self.axes:
                await begin(partial(axis.ask, "home", tries=1), axis.is_moving)
        except DeviceError:
            self._halt()
            raise
        # From anywhere to the switch, and once more slowly.
        expected_s = max(axis.expected_s(2 * (axis.limits_um.high - axis.limits_um.low)) for axis in self.axes)
        await await_rest(self._name, self._is_moving, self._halt, expected_s, poll_from_start_s=SEARCH_POLL_S)
        for axis in self.axes:
            await axis.check_flags()

    def _slow_down_s(self) -> float:
        return max(axis.slow_down_s() for axis in self.axes)

    async def _is_moving(self) -> bool:
        for axis in self.axes:
            if await axis.is_moving():
                return True
        return False

    def _halt(self) -> None:
        self.transport.interrupt(b"".join(axis.stop_command() for axis in self.axes))


class ZaberStage(AxesStage):
    """XY stage of two axes, of one device or of two on the same line.

    Args:
        transport: The line.
        name: Of the device, in messages.
        x: Its X axis.
        y: Its Y axis.
        tolerance_um: How far from its target an axis may come to rest.
    """

    def __init__(
        self, transport: Transport, name: str, *, x: ZaberAxis, y: ZaberAxis, tolerance_um: float = 1.0
    ) -> None:
        axes = (_Axis(transport, name, "X", x), _Axis(transport, name, "Y", y))
        super().__init__(name, _Axes(transport, name, axes, tolerance_um))


class ZaberFocus(AxesFocus):
    """Focus axis.

    Args:
        transport: The line.
        name: Of the device, in messages.
        axis: The axis.
        tolerance_um: How far from its target it may come to rest.
    """

    def __init__(self, transport: Transport, name: str, *, axis: ZaberAxis, tolerance_um: float = 0.3) -> None:
        super().__init__(name, _Axes(transport, name, (_Axis(transport, name, "Z", axis),), tolerance_um))

    async def home(self) -> None:
        """Find the home switch. Raises as `AxesStage.home`."""
        await self._axes.home()
