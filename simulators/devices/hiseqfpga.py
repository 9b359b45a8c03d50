"""The FPGA board of a HiSeq 2500: objective, tilt motors, TDI trigger, filters, shutter, LEDs. Two ports.

Commands come in at one port and end with ``<LF>``; answers leave by the other and end with ``<CR><LF>``. Each command
is acknowledged by its name, with a number if it asked for one. Lines that begin with ``@`` come by themselves:
``@TILTPOS1 n`` when a tilt motor has arrived.

What the sources leave open, and how it is here: every command is acknowledged at once, and `RESET` too; the objective's
DAC and ADC count alike, so `ZDACR` is where it was sent and `ZADCR` where it is; what is not known, or not within its
range, is answered with ``@LOG`` and a sentence, and with no acknowledgement; tilt motors do not know where they stand
until ``T1HM`` or ``T1CR``, and count from 0 at power-on; `TDIPULSES` counts lines of 0.375 um from the first position
downwards; filter wheels and shutter take no time.
"""

from __future__ import annotations

import re
from typing import Final

from cartoseq.simulators.devices.vix import VixSim
from cartoseq.simulators.motion import Axis
from cartoseq.simulators.motiondevice import MotionDevice
from cartoseq.simulators.wire import ByteServer

#: Positions of the wheels with optical densities; 0 blocks the laser.
FILTERS: Final = (143, 107, 71, 36, -36, -71, -107, 0)

_Z_STEPS_PER_UM: Final = 262.0
_Z_TOP: Final = 65_535
_Z_SPEED_PER_MM_PER_S: Final = 1_288_471
_Z_MM_PER_S: Final = 1.0
_Z_UM_PER_S2: Final = 100_000.0
_TILT_STEPS_PER_UM: Final = 0.656
_TILT_TOP: Final = 25_000
_TILT_UM_PER_S: Final = 5_000.0
_TILT_UM_PER_S2: Final = 20_000.0
_Y_COUNTS_PER_UM: Final = 100
_LINE_COUNTS: Final = 37.5
_TILT: Final = re.compile(r"T([123])(MOVETO|RD|HM|CR|VL|CUR)")


class _RefusedError(Exception):
    """The command is not acknowledged; the text is logged."""


class HiseqFpgaSim(MotionDevice):
    """The board with its motors.

    Args:
        name: What it is called in the rack.
        y: The stage whose encoder it reads; without one, the encoder stands still.
        latency_s: Time from a command to its acknowledgement.
    """

    def __init__(self, name: str, *, y: VixSim | None = None, latency_s: float = 0.002) -> None:
        axes = {
            "Z": Axis(0.0, _Z_TOP / _Z_STEPS_PER_UM, speed_um_per_s=1.0, acceleration_um_per_s2=_Z_UM_PER_S2),
            **{
                f"T{number}": Axis(
                    0.0,
                    _TILT_TOP / _TILT_STEPS_PER_UM,
                    speed_um_per_s=_TILT_UM_PER_S,
                    acceleration_um_per_s2=_TILT_UM_PER_S2,
                )
                for number in (1, 2, 3)
            },
        }
        super().__init__(name, axes, latency_s=latency_s, ends=b"\n")
        self._y = y
        self.ports: dict[str, ByteServer] = {"commands": _Commands(self), "answers": _Answers(self)}
        self._begin(0.0)

    # ------------------------------------------------------------------------------------------------------- commands

    def wake_up(self, now_s: float) -> None:
        """Forget everything but where the motors stand, and say that it is there."""
        self._begin(now_s)
        self.say(b"@LOG The FPGA is now online.  Enjoy!\r\n", now_s + self._latency_s)

    def _begin(self, now_s: float) -> None:
        self._origin_um = {axis: self.axes[axis].position_um(now_s) for axis in ("T1", "T2", "T3")}
        self._watched: set[str] = set()
        self._z_target = round(self.axes["Z"].position_um(now_s) * _Z_STEPS_PER_UM)
        self.axes["Z"].speed_um_per_s = _Z_MM_PER_S * 1000
        self._y_origin_um = self._y_um(now_s)
        self._y_base = 0
        self._armed: tuple[int, int] | None = None
        self._pulses = 0
        self._state: dict[str, int] = {"EX1": 0, "EX2": 0, "EM2": 0, "SWLSRSHUT": 0, "LEDMODE1": 0, "LEDMODE2": 0}
        self._sweep = ""

    def overflow(self, now_s: float) -> None:
        """Log a command that is too long."""
        self._log("command too long", now_s)

    def obey(self, command: bytes, now_s: float) -> None:
        """Carry out one command and acknowledge it."""
        words = command.decode("latin-1").upper().split()
        if not words:
            return
        try:
            number = self._carry_out(words[0], words[1:], now_s)
        except _RefusedError as refused:
            if str(refused) == "busy":
                self.reply(b"Command already in progress\r\n", now_s)
            else:
                self._log(str(refused), now_s)
        else:
            self.reply(f"{words[0]}{'' if number is None else f' {number}'}\r\n".encode("latin-1"), now_s)

    def _log(self, text: str, now_s: float) -> None:
        self.reply(f"@LOG {text}\r\n".encode("latin-1", "replace"), now_s)

    def _carry_out(self, word: str, arguments: list[str], now_s: float) -> int | None:
        if tilt := _TILT.fullmatch(word):
            return self._tilt(f"T{tilt[1]}", tilt[2], arguments, now_s)
        if word.startswith("Z"):
            return self._objective(word, arguments, now_s)
        if word.startswith("TDI"):
            return self._tdi(word, arguments, now_s)
        match word:
            case "RESET":
                _count(arguments, 0)
                for axis in self.axes.values():
                    axis.halt(now_s)
                self._begin(now_s)
                self.reply(b"@LOG The FPGA is now online.  Enjoy!\r\n", now_s)
            case "EX1HM" | "EX2HM":
                _count(arguments, 0)
                self._state[word[:3]] = 0
            case "EX1MV" | "EX2MV":
                value = _number(arguments, -(10**6), 10**6)
                if value not in FILTERS:
                    raise _RefusedError(f"no filter at {value}")
                self._state[word[:3]] = value
            case "EM2I" | "EM2O":
                _count(arguments, 0)
                self._state["EM2"] = int(word == "EM2I")
            case "SWLSRSHUT":
                self._state[word] = _number(arguments, 0, 1)
            case "LEDMODE1" | "LEDMODE2":
                self._state[word] = _number(arguments, 0, 7)
            case _:
                raise _RefusedError(f"unknown command {word}")
        return None

    def _objective(self, word: str, arguments: list[str], now_s: float) -> int | None:
        axis = self.axes["Z"]
        match word:
            case "ZDACW" | "ZMV":
                self._z_target = _number(arguments, 0, _Z_TOP)
                axis.move_to(self._z_target / _Z_STEPS_PER_UM, now_s)
            case "ZDACR":
                _count(arguments, 0)
                return self._z_target
            case "ZADCR":
                _count(arguments, 0)
                return round(axis.position_um(now_s) * _Z_STEPS_PER_UM)
            case "ZSTEP":
                axis.speed_um_per_s = _number(arguments, 1, 100 * _Z_SPEED_PER_MM_PER_S) / _Z_SPEED_PER_MM_PER_S * 1000
            case "ZTRG":
                self._sweep = f"from {_number(arguments, 0, _Z_TOP)}"
            case "ZYT":
                _count(arguments, 2)
                self._sweep = f"{self._sweep} armed {' '.join(arguments)}".strip()
            case _:
                raise _RefusedError(f"unknown command {word}")
        return None

    def _tilt(self, motor: str, what: str, arguments: list[str], now_s: float) -> int | None:
        axis = self.axes[motor]
        match what:
            case "RD":
                _count(arguments, 0)
                return self._tilt_steps(motor, now_s)
            case "CR":
                _count(arguments, 0)
                self._origin_um[motor] = axis.position_um(now_s)
            case "VL":
                axis.speed_um_per_s = _number(arguments, 1, 10**6) / _TILT_STEPS_PER_UM
            case "CUR":
                _number(arguments, 0, 10**6)
            case _:
                if self.says_busy(motor, now_s):
                    raise _RefusedError("busy")
                if what == "HM":
                    _count(arguments, 0)
                    # The switch is at the lower end: home is where it counts as 0.
                    self._origin_um[motor] = axis.low_um
                    axis.move_to(axis.low_um, now_s)
                else:
                    steps = _number(arguments, 0, _TILT_TOP)
                    axis.move_to(self._origin_um[motor] + steps / _TILT_STEPS_PER_UM, now_s)
                self._watched.add(motor)
        return None

    def _tdi(self, word: str, arguments: list[str], now_s: float) -> int | None:
        match word:
            case "TDIYERD":
                _count(arguments, 0)
                return self._y_counts(now_s)
            case "TDIYEWR":
                self._y_base = _number(arguments, -(2**31), 2**31 - 1)
                self._y_origin_um = self._y_um(now_s)
            case "TDIYPOS":
                _number(arguments, -(2**31), 2**31 - 1)
            case "TDIYARM3":
                _count(arguments, 3)
                lines, begin = _number(arguments[:1], 1, 10**9), _number(arguments[1:2], -(2**31), 2**31 - 1)
                self._armed, self._pulses = (lines, begin), 0
            case "TDIPULSES":
                _count(arguments, 0)
                return self._pulses
            case _:
                raise _RefusedError(f"unknown command {word}")
        return None

    # --------------------------------------------------------------------------------------------------------- motion

    def next_event_s(self) -> float | None:
        """When the next tilt motor arrives."""
        return min((self.axes[motor].end_s for motor in self._watched), default=None)

    def advance(self, now_s: float) -> None:
        """Report tilt motors that have come to rest, and count the lines that the stage has passed."""
        for motor in sorted(self._watched):
            axis = self.axes[motor]
            if not axis.busy(now_s):
                self._watched.discard(motor)
                if motor not in self._busy_for_ever:
                    steps = self._tilt_steps(motor, now_s)
                    self.say(f"@TILTPOS{motor[1]} {steps}\r\n".encode(), axis.end_s)
        if self._armed is not None:
            lines, begin = self._armed
            passed = int((begin - self._y_counts(now_s)) // _LINE_COUNTS)
            self._pulses = max(self._pulses, min(passed, lines))

    # ------------------------------------------------------------------------------------------------------ simulation

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it: motors, filters, shutter, LEDs, triggers."""
        truth = super().inspect(now_s)
        truth["excitation_1_filter"] = self._state["EX1"]
        truth["excitation_2_filter"] = self._state["EX2"]
        truth["emission_filter_in"] = self._state["EM2"] == 1
        truth["shutter_open"] = self._state["SWLSRSHUT"] == 1
        truth["led_mode_1"] = self._state["LEDMODE1"]
        truth["led_mode_2"] = self._state["LEDMODE2"]
        truth["focus_sweep"] = self._sweep
        truth["tdi_lines"] = self._pulses
        truth["y_encoder_counts"] = self._y_counts(now_s)
        return truth

    def _y_um(self, now_s: float) -> float:
        return self._y.position_um(now_s) if self._y is not None else 0.0

    def _y_counts(self, now_s: float) -> int:
        return self._y_base + round((self._y_um(now_s) - self._y_origin_um) * _Y_COUNTS_PER_UM)

    def _tilt_steps(self, motor: str, now_s: float) -> int:
        return round((self.axes[motor].position_um(now_s) - self._origin_um[motor]) * _TILT_STEPS_PER_UM)


class _Commands:
    """The port that hears."""

    def __init__(self, board: HiseqFpgaSim) -> None:
        self._board = board

    def receive(self, data: bytes, now_s: float) -> None:
        """Take commands."""
        self._board.receive(data, now_s)

    def due_s(self) -> float | None:
        """Never: it says nothing."""
        return None

    def messages(self, now_s: float) -> list[bytes]:
        """Say nothing."""
        return []


class _Answers:
    """The port that answers."""

    def __init__(self, board: HiseqFpgaSim) -> None:
        self._board = board

    def receive(self, data: bytes, now_s: float) -> None:
        """Hear nothing."""

    def due_s(self) -> float | None:
        """When the board has something to say."""
        return self._board.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """What it says by now."""
        return self._board.messages(now_s)


def _count(arguments: list[str], count: int) -> None:
    if len(arguments) != count:
        raise _RefusedError(f"expected {count} arguments, found {len(arguments)}")


def _number(arguments: list[str], low: int, high: int) -> int:
    _count(arguments, 1)
    if not re.fullmatch(r"[-+]?\d{1,10}", arguments[0]) or not low <= int(arguments[0]) <= high:
        raise _RefusedError(f"expected a whole number, {low} to {high}, found {arguments[0]}")
    return int(arguments[0])
