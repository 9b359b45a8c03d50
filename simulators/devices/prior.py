"""Prior ProScan II/III and OptiScan: stages that count in steps, in standard and in compatibility mode.

A command ends with ``<CR>``, a reply too; several lines end with a line ``END``. Any of ``, space tab = ; :`` separates
arguments. In standard mode (``COMP 0``) ``R`` is returned as soon as a move is queued, of up to 100, and ``$`` tells
what still moves; in compatibility mode (``COMP 1``) ``R`` is returned when the move has ended.

What the sources leave open, and how it is here: queries are answered at once in both modes; a stop empties the queue,
and in compatibility mode the moves that it ends are answered before it; a target beyond the travel is accepted, and the
axis stops at the limit switch; a speed or acceleration above 100 is answered with ``0`` and not taken; the homing
commands answer when they have ended in both modes, ``RIS`` back where it began; with ``ERROR,1`` the error's text
stands in place of its number; the S-curve is kept and does not act on the motion.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cartoseq.simulators.motion import Axis
from cartoseq.simulators.motiondevice import MotionDevice

ERRORS: Final = {
    1: "NO STAGE",
    2: "NOT IDLE",
    3: "NO DRIVE",
    4: "STRING PARSE",
    5: "COMMAND NOT FOUND",
    6: "INVALID SHUTTER",
    7: "NO FOCUS",
    8: "VALUE OUT OF RANGE",
    9: "INVALID WHEEL",
    **{9 + number: f"ARG{number} OUT OF RANGE" for number in range(1, 7)},
    16: "INCORRECT STATE",
    17: "NO FILTER WHEEL",
    18: "QUEUE FULL",
    19: "COMP MODE SET",
    20: "SHUTTER NOT FITTED",
    21: "INVALID CHECKSUM",
    60: "ENCODER ERROR",
    61: "ENCODER RUN OFF",
}
QUEUE_LENGTH: Final = 100

_SEPARATORS: Final = re.compile(r"[, \t=;:]+")
_MOTION_BITS: Final = {"X": 1, "Y": 2, "Z": 4}
_LIMIT_BITS: Final = {"X": (1, 2), "Y": (4, 8), "Z": (16, 32)}
_PERCENTAGES: Final = ("SMS", "SAS", "SCS", "SMZ", "SAZ", "SCZ")
_FULL_ACCELERATION_S: Final = 0.1


class _RefusalError(Exception):
    """The command is answered with an error."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class _Move:
    """A move that is queued or runs.

    Attributes:
        begin: Starts it, given the time.
        axes: Which axes it moves.
        answer: Whether ``R`` is sent when it has ended.
    """

    begin: Callable[[float], None]
    axes: Sequence[str]
    answer: bool


class PriorSim(MotionDevice):
    """A controller with a stage and, if wanted, a focus drive.

    Args:
        name: What it is called in the rack.
        focus: Whether a Z drive is fitted.
        compatibility: Whether it begins in compatibility mode.
        size_mm: Travel of the stage in X and Y; it stands in the middle.
        focus_mm: Travel of the focus drive; it stands in the middle.
        resolution_um: Length of a step in X and Y at power-on, as `RES` tells it; some stages say 0, and count 0.1 um.
        focus_resolution_um: Length of a step in Z at power-on.
        stage_speed_um_per_s: Speed at 100 %.
        focus_speed_um_per_s: Speed at 100 %.
        start_percent: All speeds and accelerations at power-on; some stages begin above 100.
        latency_s: Time from a command to its reply.
    """

    def __init__(
        self,
        name: str,
        *,
        focus: bool = True,
        compatibility: bool = False,
        size_mm: Sequence[float] = (108.0, 71.0),
        focus_mm: float = 20.0,
        resolution_um: float = 0.1,
        focus_resolution_um: float = 0.1,
        stage_speed_um_per_s: float = 20_000.0,
        focus_speed_um_per_s: float = 2_000.0,
        start_percent: int = 50,
        latency_s: float = 0.004,
    ) -> None:
        if len(size_mm) != 2:
            raise ValueError(f"size_mm has two lengths, found {len(size_mm)}")
        halves_um = {"X": size_mm[0] * 500, "Y": size_mm[1] * 500}
        if focus:
            halves_um["Z"] = focus_mm * 500
        self._full_speed_um_per_s = {"X": stage_speed_um_per_s, "Y": stage_speed_um_per_s, "Z": focus_speed_um_per_s}
        axes = {
            axis: Axis(-half_um, half_um, speed_um_per_s=1.0, acceleration_um_per_s2=1.0)
            for axis, half_um in halves_um.items()
        }
        super().__init__(name, axes, latency_s=latency_s)
        self._size_mm = size_mm
        self._made = (compatibility, resolution_um, focus_resolution_um, start_percent)
        self._queue: deque[_Move] = deque()
        self._running: _Move | None = None
        self._queue_full = False
        self._refuse: int | None = None
        self.wake_up(0.0)

    # ------------------------------------------------------------------------------------------------------- commands

    def obey(self, command: bytes, now_s: float) -> None:
        """Answer one command."""
        text = command.decode("latin-1").strip().upper()
        words = [word for word in _SEPARATORS.split(text) if word]
        if text == "=":
            words = ["="]
        if not words:
            return
        try:
            if self._refuse is not None:
                code, self._refuse = self._refuse, None
                raise _RefusalError(code)
            answer = self._carry_out(words[0], words[1:], now_s)
        except _RefusalError as refusal:
            answer = f"E,{ERRORS.get(refusal.code, '') if self._texts else refusal.code}"
        if answer is not None:
            self.reply(answer.encode("latin-1") + b"\r", now_s)

    def overflow(self, now_s: float) -> None:
        """Answer a command that is too long."""
        self.reply(b"E,4\r", now_s)

    def wake_up(self, now_s: float) -> None:
        """Take the settings that it was made with; where it stands counts as 0."""
        self._compatibility, resolution_um, focus_resolution_um, percent = self._made
        self._resolution_um = {"X": resolution_um, "Y": resolution_um, "Z": focus_resolution_um}
        self._percent = dict.fromkeys(_PERCENTAGES, percent)
        self._texts = False
        self._latched = 0
        self._queue.clear()
        self._running = None
        self._origin_um = {name: axis.position_um(now_s) for name, axis in self.axes.items()}
        self._set_up()

    def next_event_s(self) -> float | None:
        """When the move that runs ends."""
        return None if self._running is None else max(self.axes[name].end_s for name in self._running.axes)

    def advance(self, now_s: float) -> None:
        """End moves and begin those that wait, each where the one before it ended."""
        while self._running is not None:
            end_s = self.next_event_s()
            if end_s is None or end_s > now_s:
                return
            self._end_move(end_s)
            if self._queue:
                self._running = self._queue.popleft()
                self._running.begin(end_s)

    def _end_move(self, at_s: float) -> None:
        self._latched |= self._limits(at_s)
        if self._running is not None and self._running.answer:
            self.reply(b"R\r", at_s - self._latency_s)
        self._running = None

    def _carry_out(self, word: str, arguments: list[str], now_s: float) -> str | None:
        match word:
            case "COMP":
                return self._switch("_compatibility", arguments)
            case "ERROR":
                return self._switch("_texts", arguments)
            case "G" | "GR":
                self._count(arguments, 2, 3)
                return self._go(dict(zip("XYZ", _integers(arguments), strict=False)), word == "GR", now_s)
            case "GX" | "GY" | "V":
                self._count(arguments, 1, 1)
                return self._go({"Z" if word == "V" else word[1]: _integers(arguments)[0]}, False, now_s)
            case "P" | "PS" | "PX" | "PY" | "PZ":
                axes = {"P": "XYZ", "PS": "XY"}.get(word, word[1:])
                if arguments:
                    self._count(arguments, len(axes), len(axes))
                    return self._set_position(dict(zip(axes, _integers(arguments), strict=True)), now_s)
                if axes == "Z":
                    self._need_focus()
                return ",".join(str(self._steps(axis, now_s)) for axis in axes)
            case "Z":
                return self._set_position(dict.fromkeys(self.axes, 0), now_s)
            case "$":
                axes = {"": "XYZ", "S": "XY"}.get("".join(arguments), "".join(arguments))
                if not set(axes) <= set("XYZ"):
                    raise _RefusalError(10)
                return str(self._motion(axes, now_s))
            case "=":
                latched, self._latched = self._latched | self._limits(now_s), 0
                return f"{latched:02X}"
            case "LMT":
                return f"{self._limits(now_s):02X}"
            case "I" | "K":
                return self._stop(now_s, at_once=word == "K")
            case "SIS" | "RIS":
                return self._home(now_s, back=word == "RIS")
            case "RES":
                return self._resolution(arguments)
        if word in _PERCENTAGES:
            return self._percentage(word, arguments)
        texts = self._texts_about_it()
        if word in texts:
            return texts[word]
        raise _RefusalError(5)

    def _go(self, steps: dict[str, int], relative: bool, now_s: float) -> str | None:
        if "Z" in steps:
            self._need_focus()
        if self._queue_full or len(self._queue) >= QUEUE_LENGTH:
            raise _RefusalError(18)

        def begin(at_s: float) -> None:
            for axis, count in steps.items():
                from_um = self.axes[axis].position_um(at_s) if relative else self._origin_um[axis]
                self.axes[axis].move_to(from_um + count * self._step_um(axis), at_s)

        self._queue_up(_Move(begin, list(steps), self._compatibility), now_s)
        return None if self._compatibility else "R"

    def _queue_up(self, move: _Move, now_s: float) -> None:
        if self._running is None:
            self._running = move
            move.begin(now_s)
        else:
            self._queue.append(move)

    def _stop(self, now_s: float, *, at_once: bool) -> str:
        ended = [move for move in (self._running, *self._queue) if move is not None and move.answer]
        self._queue.clear()
        for axis in self.axes.values():
            if at_once:
                axis.halt(now_s)
            else:
                axis.stop(now_s)
        for _ in ended:
            self.reply(b"R\r", now_s)
        self._running = None
        return "R"

    def _home(self, now_s: float, *, back: bool) -> str | None:
        if self._moves(now_s):
            raise _RefusalError(2)
        begin_um = {axis: self.axes[axis].position_um(now_s) for axis in "XY"}

        def to_switches(at_s: float) -> None:
            for axis in "XY":
                self.axes[axis].move_to(self.axes[axis].low_um - 1.0, at_s)

        def then(at_s: float) -> None:
            for axis in "XY":
                if back:
                    self.axes[axis].move_to(begin_um[axis], at_s)
                else:
                    self._origin_um[axis] = self.axes[axis].position_um(at_s)

        self._queue_up(_Move(to_switches, "XY", False), now_s)
        self._queue_up(_Move(then, "XY", True), now_s)
        return None

    def _set_position(self, steps: dict[str, int], now_s: float) -> str:
        if self._moves(now_s):
            raise _RefusalError(2)
        for axis, count in steps.items():
            if axis in self.axes:
                self._origin_um[axis] = self.axes[axis].position_um(now_s) - count * self._step_um(axis)
        return "0"

    def _resolution(self, arguments: list[str]) -> str:
        self._count(arguments, 1, 2)
        axes = {"S": "XY"}.get(arguments[0], arguments[0])
        if axes not in ("XY", "X", "Y", "Z"):
            raise _RefusalError(10)
        if len(arguments) == 1:
            return f"{self._resolution_um[axes[0]]:g}"
        try:
            value_um = float(arguments[1])
        except ValueError:
            raise _RefusalError(4) from None
        if not 0 < value_um <= 1000:
            raise _RefusalError(11)
        for axis in axes:
            self._resolution_um[axis] = value_um
        return "0"

    def _percentage(self, word: str, arguments: list[str]) -> str:
        if not arguments:
            return str(self._percent[word])
        self._count(arguments, 1, 1)
        value = _integers(arguments)[0]
        if value < 1:
            raise _RefusalError(8)
        if value <= 100:
            self._percent[word] = value
            self._set_up()
        return "0"

    def _switch(self, what: str, arguments: list[str]) -> str:
        if not arguments:
            return str(int(getattr(self, what)))
        if arguments not in (["0"], ["1"]):
            raise _RefusalError(10)
        setattr(self, what, arguments == ["1"])
        return "0"

    def _texts_about_it(self) -> dict[str, str]:
        x_mm, y_mm = self._size_mm
        stage = ["STAGE = H101/2", "TYPE = 1", f"SIZE_X = {x_mm:g} MM", f"SIZE_Y = {y_mm:g} MM"]
        stage += ["MICROSTEPS/MICRON = 25", "LIMITS = NORMALLY CLOSED"]
        drive = ["FOCUS = NORMAL", "TYPE = 0", "MICRONS/REV = 100"] if "Z" in self.axes else ["FOCUS = NONE"]
        whole = ["PROSCAN INFORMATION", "DSP_1 IS 4 AXIS STEPPER VERSION 1.7", *stage, *drive]
        return {
            "?": "\r".join([*whole, "END"]),
            "STAGE": "\r".join([*stage, "END"]),
            "FOCUS": "\r".join([*drive, "END"]),
            "DATE": "Prior Scientific Instruments ProScan II Version 2.9 compiled Oct 11 2017 12:00:00",
            "VERSION": "290",
            "SERIAL": "12345",
        }

    # ------------------------------------------------------------------------------------------------------ simulation

    def fault_queue_full(self, now_s: float) -> None:
        """It refuses every move, since its queue is full, until the fault is cleared."""
        self._queue_full = True

    def fault_refuse(self, now_s: float, code: float = 60) -> None:
        """It answers the next command with an error of this code, and does not carry it out."""
        self._refuse = int(code)

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; what it did stays."""
        self._queue_full = False
        self._refuse = None
        super().clear(now_s)

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it; `..._steps` is what its counter says."""
        truth = super().inspect(now_s)
        truth["compatibility_mode"] = self._compatibility
        truth["queued_moves"] = len(self._queue)
        for axis in self.axes:
            truth[f"{axis.lower()}_steps"] = self._steps(axis, now_s)
        return truth

    def _moves(self, now_s: float) -> bool:
        return self._running is not None or any(self.says_busy(axis, now_s) for axis in self.axes)

    def _motion(self, axes: str, now_s: float) -> int:
        waiting = {axis for move in self._queue for axis in move.axes}
        return sum(
            bit
            for axis, bit in _MOTION_BITS.items()
            if axis in axes and axis in self.axes and (axis in waiting or self.says_busy(axis, now_s))
        )

    def _limits(self, now_s: float) -> int:
        bits = 0
        for name, axis in self.axes.items():
            high, low = _LIMIT_BITS[name]
            bits |= high * axis.at_high_end(now_s) | low * axis.at_low_end(now_s)
        return bits

    def _need_focus(self) -> None:
        if "Z" not in self.axes:
            raise _RefusalError(7)

    def _count(self, arguments: list[str], least: int, most: int) -> None:
        if not least <= len(arguments) <= most:
            raise _RefusalError(4)

    def _step_um(self, axis: str) -> float:
        return self._resolution_um[axis] or 0.1

    def _steps(self, axis: str, now_s: float) -> int:
        if axis not in self.axes:
            return 0
        return round((self.axes[axis].position_um(now_s) - self._origin_um[axis]) / self._step_um(axis))

    def _set_up(self) -> None:
        for name, axis in self.axes.items():
            kind = "Z" if name == "Z" else "S"
            full = self._full_speed_um_per_s[name]
            axis.speed_um_per_s = full * min(self._percent[f"SM{kind}"], 100) / 100
            axis.acceleration_um_per_s2 = full / _FULL_ACCELERATION_S * min(self._percent[f"SA{kind}"], 100) / 100
            axis.deceleration_um_per_s2 = axis.acceleration_um_per_s2


def _integers(arguments: Sequence[str]) -> list[int]:
    if any(not re.fullmatch(r"[-+]?\d{1,10}", argument) for argument in arguments):
        raise _RefusalError(4)
    return [int(argument) for argument in arguments]
