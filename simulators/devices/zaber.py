"""Zaber controllers in the ASCII protocol of firmware 7: addressed, checksummed, warning and alerting.

::

    /1 1 05 move abs 10000:8B     to device 1, axis 1, message 5, with its checksum
    @01 1 05 OK BUSY WR 0         the reply
    !01 1 IDLE --                 an alert, where `comm.alert` is 1: the move has ended

A command ends with ``<CR>``, ``<LF>`` or both; what the device says ends with ``<CR><LF>``. Device 0 is every device,
axis 0 is the device with all its axes. The checksum is the two's complement of the sum of all bytes between the first
character and the colon. Positions are in microsteps, speeds in 1/1.6384 microsteps/s, accelerations in 10000/1.6384
microsteps/s^2.

What the sources leave open, and how it is here: a command with a wrong checksum is not answered; a reply carries a
checksum if the command did, or if `comm.checksum` is 1; absolute moves of an axis that is not homed are rejected with
``BADDATA``, as are targets outside the limits; warnings stay until ``warnings clear``, but for ``WR``, which ends when
the axis is homed, and the notes ``NI`` and ``NC``, which end with the next move.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cartoseq.simulators.motion import Axis
from cartoseq.simulators.motiondevice import MotionDevice

SPEED_UNIT: Final = 1.6384
ACCELERATION_UNIT: Final = 1.6384 / 10_000
MICROSTEPS_PER_STEP: Final = 64
#: From the gravest to the least; a reply shows the first that is there.
WARNINGS: Final = tuple(
    kind + letter
    for kind, letters in (("F", "FNZHVOCMDQIARSBPET"), ("W", "LVTSMPRH"), ("N", "CIDRTUJB"))
    for letter in letters
)
_NUMBER: Final = re.compile(r"[-+]?\d{1,10}")


class _RejectionError(Exception):
    """The command is answered with `RJ` and a reason."""


def checksum(body: bytes) -> bytes:
    """Return the two hex digits that follow the colon, for what stands between the first character and it."""
    return b"%02X" % (-sum(body) & 0xFF)


@dataclass
class _State:
    """What a device knows of an axis.

    Attributes:
        origin_um: Where its position counts as 0.
        limit_min: Least position, in microsteps.
        limit_max: Greatest position.
        maxspeed: In the protocol's unit.
        accel: In the protocol's unit.
        flags: Warnings that are there.
        homing: Whether the move that runs looks for the reference.
        watched: Whether the end of the move that runs is still to be noticed.
    """

    origin_um: float
    limit_min: int
    limit_max: int
    maxspeed: int
    accel: int
    flags: set[str] = field(default_factory=lambda: {"WR"})
    homing: bool = False
    watched: bool = False


class ZaberSim(MotionDevice):
    """One controller with its axes; several share a line as a `wire.Bus`.

    Args:
        name: What it is called in the rack.
        address: Its number, 1 to 99.
        travel_um: Length of the travel of each axis.
        microstep_um: Length of a microstep.
        speed_um_per_s: Greatest speed after power-on.
        acceleration_um_per_s2: Acceleration after power-on.
        start_um: Where each axis stands at power-on, from the lower end of its travel.
        device_id: What `get device.id` says.
        firmware: What `get version` says.
        alerts: Whether it reports the end of a move without being asked, until told otherwise.
        latency_s: Time from a command to its reply.
    """

    def __init__(
        self,
        name: str,
        *,
        address: int = 1,
        travel_um: Sequence[float] = (100_000.0, 120_000.0),
        microstep_um: float = 0.15625,
        speed_um_per_s: float = 20_000.0,
        acceleration_um_per_s2: float = 200_000.0,
        start_um: float = 10_000.0,
        device_id: int = 50_081,
        firmware: str = "7.35",
        alerts: bool = False,
        latency_s: float = 0.001,
    ) -> None:
        if not 1 <= address <= 99:
            raise ValueError(f"address is 1 to 99, found {address}")
        if not 1 <= len(travel_um) <= 9:
            raise ValueError(f"travel_um has a length for each of 1 to 9 axes, found {len(travel_um)}")
        axes = {
            str(number): Axis(
                0.0,
                length_um,
                speed_um_per_s=speed_um_per_s,
                acceleration_um_per_s2=acceleration_um_per_s2,
                position_um=min(start_um, length_um),
            )
            for number, length_um in enumerate(travel_um, 1)
        }
        super().__init__(name, axes, latency_s=latency_s, ends=b"\r\n")
        self.address = address
        self._microstep_um = microstep_um
        self._made_speed = round(speed_um_per_s / microstep_um * SPEED_UNIT)
        self._made_accel = max(1, round(acceleration_um_per_s2 / microstep_um * ACCELERATION_UNIT))
        self._alerts = alerts
        self._device_settings = {"device.id": str(device_id), "version": firmware, "system.axiscount": str(len(axes))}
        self._device_settings["system.serial"] = "12345"
        self._switches: dict[str, int] = {}
        self._states: dict[str, _State] = {}
        self._forced: dict[str, set[str]] = {}
        self._refuse = ""
        self.wake_up(0.0)

    # ------------------------------------------------------------------------------------------------------- messages

    def obey(self, command: bytes, now_s: float) -> None:
        """Answer one command, if it is for this device and sound."""
        begin = command.find(b"/")
        if begin < 0:
            return
        body, colon, check = command[begin + 1 :].partition(b":")
        if colon and check.strip().upper() != checksum(body):
            return
        words = body.decode("latin-1").split()
        head: list[str] = []
        while (
            words and len(head) < 3 and (re.fullmatch("[0-9]{1,3}", words[0]) or (len(head) == 2 and words[0] == "--"))
        ):
            head.append(words.pop(0))
        device, scope = (int(number) for number in [*head[:2], "0", "0"][:2])
        if device not in (0, self.address):
            return
        identity = head[2] if len(head) == 3 and head[2] != "--" else ""
        with_checksum = bool(colon)
        try:
            if int(identity or 0) > 99:
                identity = ""
                raise _RejectionError("BADMESSAGEID")
            if scope > len(self.axes):
                scope = 0
                raise _RejectionError("BADAXIS")
            flag, data = "OK", self._carry_out(words, scope, now_s)
        except _RejectionError as rejection:
            flag, data = "RJ", str(rejection)
        mark = f" {int(identity):02d}" if identity else ""
        text = f"{self.address:02d} {scope}{mark} {flag} {self._status(scope, now_s)} {data}"
        self._tell("@", text, now_s, with_checksum=with_checksum, after_s=None)

    def overflow(self, now_s: float) -> None:
        """Reject a command that is too long."""
        text = f"{self.address:02d} 0 RJ {self._status(0, now_s)} BADCOMMAND"
        self._tell("@", text, now_s, with_checksum=False, after_s=None)

    def wake_up(self, now_s: float) -> None:
        """Forget the references and settings; where each axis stands counts as 0."""
        self._switches = {"comm.alert": int(self._alerts), "comm.checksum": 0}
        for name, axis in self.axes.items():
            length = int((axis.high_um - axis.low_um) / self._microstep_um)
            self._states[name] = _State(axis.position_um(now_s), 0, length, self._made_speed, self._made_accel)
            self._set_up(name)

    def next_event_s(self) -> float | None:
        """When the next move ends that somebody waits for."""
        ends_s = [self.axes[name].end_s for name, state in self._states.items() if state.watched]
        return min(ends_s, default=None)

    def advance(self, now_s: float) -> None:
        """Notice moves that have ended: take the reference, set the warnings, and alert."""
        for name, state in self._states.items():
            axis = self.axes[name]
            if not state.watched or axis.busy(now_s):
                continue
            state.watched = False
            if axis.outcome == "stalled":
                state.flags.add("FS")
            elif axis.outcome == "limit":
                state.flags.add("FE")
            elif axis.outcome == "arrived" and state.homing:
                state.origin_um = axis.position_um(now_s)
                state.flags.discard("WR")
            state.homing = False
            if self._switches["comm.alert"]:
                text = f"{self.address:02d} {name} {self._status(int(name), now_s)}"
                self._tell("!", text, now_s, with_checksum=False, after_s=axis.end_s)

    def _tell(self, kind: str, text: str, now_s: float, *, with_checksum: bool, after_s: float | None) -> None:
        body = text.encode()
        if with_checksum or self._switches["comm.checksum"]:
            body += b":" + checksum(body)
        message = kind.encode() + body + b"\r\n"
        if after_s is None:
            # Devices on one line answer one after the other.
            self.reply(message, now_s + self._latency_s * (self.address - 1))
        else:
            self.say(message, after_s)

    def _status(self, scope: int, now_s: float) -> str:
        names = self._scope(scope)
        busy = any(self.says_busy(name, now_s) for name in names)
        flags = self._flags(scope)
        return f"{'BUSY' if busy else 'IDLE'} {flags[0] if flags else '--'}"

    def _flags(self, scope: int) -> list[str]:
        flags = {
            flag for name in self._scope(scope) for flag in self._states[name].flags | self._forced.get(name, set())
        }
        return [flag for flag in WARNINGS if flag in flags]

    def _scope(self, scope: int) -> list[str]:
        return [str(scope)] if scope else list(self.axes)

    # ------------------------------------------------------------------------------------------------------- commands

    def _carry_out(self, words: list[str], scope: int, now_s: float) -> str:
        if self._refuse:
            reason, self._refuse = self._refuse, ""
            raise _RejectionError(reason)
        names = self._scope(scope)
        match words:
            case []:
                pass
            case ["get", setting]:
                return self._get(setting, scope, now_s)
            case ["set", setting, value]:
                self._set(setting, _integer(value), scope, now_s)
            case ["move", ("abs" | "rel" | "vel") as how, value]:
                self._move(how, _integer(value), names, now_s)
            case ["move", ("min" | "max") as end]:
                limits = {name: self._states[name] for name in names}
                targets = {name: state.limit_min if end == "min" else state.limit_max for name, state in limits.items()}
                self._need_reference(names)
                self._start({name: self._um(name, target) for name, target in targets.items()}, now_s)
            case ["move", *_]:
                raise _RejectionError("BADDATA")
            case ["home"]:
                self._start({name: self.axes[name].low_um for name in names}, now_s, homing=True)
            case [("stop" | "estop") as how]:
                self._stop(names, now_s, at_once=how == "estop")
            case ["warnings"] | ["warnings", "clear"]:
                flags = self._flags(scope)
                if len(words) == 2:
                    for name in names:
                        self._states[name].flags &= {"WR"}
                return " ".join([f"{len(flags):02d}", *flags])
            case _:
                raise _RejectionError("BADCOMMAND")
        return "0"

    def _get(self, setting: str, scope: int, now_s: float) -> str:
        if setting in self._device_settings or setting in self._switches:
            if scope:
                raise _RejectionError("DEVICEONLY")
            return self._device_settings.get(setting) or str(self._switches[setting])
        read: dict[str, Callable[[str], int]] = {
            "pos": lambda name: self._microsteps(name, now_s),
            "limit.min": lambda name: self._states[name].limit_min,
            "limit.max": lambda name: self._states[name].limit_max,
            "maxspeed": lambda name: self._states[name].maxspeed,
            "accel": lambda name: self._states[name].accel,
            "resolution": lambda _name: MICROSTEPS_PER_STEP,
        }
        if setting not in read:
            raise _RejectionError("BADCOMMAND")
        return " ".join(str(read[setting](name)) for name in self._scope(scope))

    def _set(self, setting: str, value: int, scope: int, now_s: float) -> None:
        if setting in self._switches:
            if scope:
                raise _RejectionError("DEVICEONLY")
            if value not in (0, 1):
                raise _RejectionError("BADDATA")
            self._switches[setting] = value
            return
        if setting in self._device_settings or setting == "resolution":
            raise _RejectionError("NOACCESS")
        lowest = {"maxspeed": 1, "accel": 1, "limit.min": -(10**9), "limit.max": -(10**9), "pos": -(10**9)}
        if setting not in lowest:
            raise _RejectionError("BADCOMMAND")
        if not lowest[setting] <= value <= 10**9:
            raise _RejectionError("BADDATA")
        names = self._scope(scope)
        if setting not in ("maxspeed", "accel") and any(self.says_busy(name, now_s) for name in names):
            raise _RejectionError("STATUSBUSY")
        for name in names:
            if setting == "pos":
                self._states[name].origin_um = self.axes[name].position_um(now_s) - value * self._microstep_um
                self._states[name].flags.discard("WR")
            else:
                setattr(self._states[name], setting.replace(".", "_"), value)
                self._set_up(name)

    def _move(self, how: str, value: int, names: Sequence[str], now_s: float) -> None:
        if how == "vel":
            speed_um_per_s = abs(value) / SPEED_UNIT * self._microstep_um
            if any(abs(value) > self._states[name].maxspeed for name in names):
                raise _RejectionError("BADDATA")
            if value == 0:
                self._stop(names, now_s, at_once=False)
                return
            self._start(
                {name: self._end_um(name, upwards=value > 0) for name in names}, now_s, speed_um_per_s=speed_um_per_s
            )
            return
        if how == "abs":
            self._need_reference(names)
            targets = dict.fromkeys(names, value)
        else:
            targets = {name: self._microsteps(name, now_s) + value for name in names}
        for name, target in targets.items():
            state = self._states[name]
            if "WR" not in state.flags and not state.limit_min <= target <= state.limit_max:
                raise _RejectionError("BADDATA")
        self._start({name: self._um(name, target) for name, target in targets.items()}, now_s)

    def _need_reference(self, names: Sequence[str]) -> None:
        if any("WR" in self._states[name].flags for name in names):
            raise _RejectionError("BADDATA")

    def _start(
        self, targets_um: dict[str, float], now_s: float, *, homing: bool = False, speed_um_per_s: float = 0.0
    ) -> None:
        if any(flags & {"FD", "FO"} for name, flags in self._forced.items() if name in targets_um):
            raise _RejectionError("DRIVERDISABLED")
        for name, target_um in targets_um.items():
            state, axis = self._states[name], self.axes[name]
            state.flags -= {"NI", "NC"}
            if axis.busy(now_s):
                state.flags.add("NI")
            if speed_um_per_s:
                axis.speed_um_per_s = speed_um_per_s
            axis.move_to(target_um, now_s)
            self._set_up(name)
            state.homing, state.watched = homing, True

    def _stop(self, names: Sequence[str], now_s: float, *, at_once: bool) -> None:
        for name in names:
            axis, state = self.axes[name], self._states[name]
            if axis.busy(now_s):
                state.flags.add("NI")
                state.homing = False
                if at_once:
                    axis.halt(now_s)
                else:
                    axis.stop(now_s)

    # ------------------------------------------------------------------------------------------------------ simulation

    def fault_jump(self, now_s: float, axis: str, by_um: float) -> None:
        """The knob or a hand displaces an axis by so much; it warns of it (NC)."""
        super().fault_jump(now_s, axis, by_um)
        self._states[self.axis_name(axis)].flags.add("NC")

    def fault_warning(self, now_s: float, flag: str, axis: str = "1") -> None:
        """An axis shows a warning flag until the fault is cleared; any F ends a move, and FD and FO reject the next."""
        if flag not in WARNINGS:
            raise ValueError(f"fault warning of {self.name}: flag is one of {', '.join(WARNINGS)}, found {flag!r}")
        name = self.axis_name(axis)
        self._forced.setdefault(name, set()).add(flag)
        if flag.startswith("F"):
            self.axes[name].halt(now_s)

    def fault_reject(self, now_s: float, reason: str) -> None:
        """It rejects the next command with this reason, and does not carry it out."""
        if not re.fullmatch("[A-Z]+", reason):
            raise ValueError(f"fault reject of {self.name}: reason is a word such as FULL or PARKED, found {reason!r}")
        self._refuse = reason

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; warnings that came of them stay until they are cleared on the wire."""
        self._forced.clear()
        self._refuse = ""
        super().clear(now_s)

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it; `..._microsteps` is what its counter says."""
        truth = super().inspect(now_s)
        for name, state in self._states.items():
            truth[f"{name}_microsteps"] = self._microsteps(name, now_s)
            truth[f"{name}_homed"] = "WR" not in state.flags
            truth[f"{name}_warnings"] = " ".join(self._flags(int(name)))
        return truth

    def _microsteps(self, name: str, now_s: float) -> int:
        return round((self.axes[name].position_um(now_s) - self._states[name].origin_um) / self._microstep_um)

    def _um(self, name: str, microsteps: int) -> float:
        return self._states[name].origin_um + microsteps * self._microstep_um

    def _end_um(self, name: str, *, upwards: bool) -> float:
        """Where a move without a target ends: at its limit once that is known, else at the end of the travel."""
        state, axis = self._states[name], self.axes[name]
        if "WR" in state.flags:
            return axis.high_um if upwards else axis.low_um
        return self._um(name, state.limit_max if upwards else state.limit_min)

    def _set_up(self, name: str) -> None:
        axis, state = self.axes[name], self._states[name]
        axis.speed_um_per_s = state.maxspeed / SPEED_UNIT * self._microstep_um
        axis.acceleration_um_per_s2 = state.accel / ACCELERATION_UNIT * self._microstep_um
        axis.deceleration_um_per_s2 = axis.acceleration_um_per_s2


def _integer(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _RejectionError("BADDATA")
    return int(text)
