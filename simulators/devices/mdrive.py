"""IMS/Schneider MDrive in MCode: the X axis of a HiSeq 2500.

A command ends with ``<CR>``, or ``<LF>`` in party mode (``PY=1``), where it begins with the device's name. What comes
back depends on the echo mode: 0 echoes each character, then says ``<CR><LF>``, the value and the prompt ``>``; 1 does
not echo, and says the value or an empty line; 2 answers to `PR` and `L` only; 3 echoes the whole command at its end.
With ``CK=1`` a command carries a checksum byte at its end and is acknowledged by 0x06, or refused by 0x15. ESC stops
on the spot; 0x03 does so and starts anew, with a banner.

What the sources leave open, and how it is here: the prompt is ``?`` after an error; reading `ER` clears it; at start
the counter is 0 wherever the axis stands, and `EM`, `PY` and `CK` are 0; speeds and accelerations are in encoder steps;
all kinds of `HM` go straight to the home switch; `VI`, the currents and the inputs' settings are kept only.
"""

from __future__ import annotations

import re
from typing import Final

from cartoseq.simulators.motion import Axis
from cartoseq.simulators.motiondevice import MotionDevice

ACKNOWLEDGED: Final = b"\x06"
REFUSED: Final = b"\x15"
BANNER: Final = b"Copyright \xa9 2001-2009 by Intelligent Motion Systems, Inc.\r\nAll Rights Reserved.\r\n>"

_STEPS_PER_UM: Final = 0.4096
_HOME_STEPS: Final = 30_000
_ENDS_STEPS: Final = (500, 50_500)
_ESCAPE: Final = 0x1B
_RESET: Final = 0x03
_DEFAULTS: Final = {
    **{"EE": "0", "VI": "100", "VM": "6144", "A": "20000", "D": "20000", "LM": "1", "DB": "1", "HC": "5", "RC": "25"},
    **{"S1": "0,0,0", "S2": "0,0,0", "S3": "0,0,0", "EM": "0", "PY": "0", "CK": "0"},
}
_LARGEST: Final = {"EE": 1, "EM": 3, "PY": 1, "CK": 1, "LM": 6, "HC": 100, "RC": 100}
_READ_ONLY: Final = ("MV", "I1")
_INTEGER: Final = re.compile(r"[-+]?\d{1,10}")


class _Error(Exception):
    """An error of MCode, by its number."""

    def __init__(self, number: int) -> None:
        self.number = number


def checksum(command: bytes) -> int:
    """Return the byte that follows a command where ``CK=1``."""
    return (-sum(command) & 0xFF) | 0x80


class MDriveSim(MotionDevice):
    """One MDrive with its carriage; steps are 1/0.4096 um, and grow to the left.

    Args:
        name: What it is called in the rack.
        device_name: Its name in party mode.
        start_steps: Where it stands at power-on, counted as after homing, 500 to 50500.
        latency_s: Time over a command.
    """

    def __init__(
        self, name: str, *, device_name: str = "X", start_steps: int = 20_000, latency_s: float = 0.003
    ) -> None:
        axis = Axis(
            *(steps / _STEPS_PER_UM for steps in _ENDS_STEPS),
            speed_um_per_s=1.0,
            acceleration_um_per_s2=1.0,
            position_um=start_steps / _STEPS_PER_UM,
        )
        super().__init__(name, {"X": axis}, latency_s=latency_s, longest=64)
        if len(device_name) != 1:
            raise ValueError(f"device_name is one character, found {device_name!r}")
        self._axis = axis
        self._device_name = device_name.encode("latin-1")
        self._home_switch = True
        self.wake_up(0.0)

    # ------------------------------------------------------------------------------------------------------- commands

    def wake_up(self, now_s: float) -> None:
        """Forget everything but the place where the carriage stands."""
        started = hasattr(self, "_values")
        self._values = dict(_DEFAULTS)
        self._ends = b"\r"
        self._origin_um = self._axis.position_um(now_s)
        self._error = 0
        self._watched = False
        self._homing: list[float] = []
        self._programs: dict[int, list[str]] = {}
        self._entering: int | None = None
        self._running: list[str] | None = None
        self._hold_until_s = now_s
        if started:
            self.say(BANNER, now_s + self._latency_s)

    def hear(self, byte: int, now_s: float) -> bool:
        """Stop at ESC, start anew at Ctrl-C; echo what belongs to a command."""
        if byte == _ESCAPE:
            self._axis.halt(now_s)
            self._running, self._homing = None, []
            self._forget_command()
            return True
        if byte == _RESET:
            self._switch_off(now_s, now_s)
            return True
        if byte == 0x0A and self._ends != b"\n":
            return True
        if self._values["EM"] == "0" and byte not in self._ends:
            self.say(bytes([byte]), now_s)
        return False

    def overflow(self, now_s: float) -> None:
        """Refuse a command that is too long as one that is not known."""
        self._error = 60
        self._respond(b"", None, now_s)

    def obey(self, command: bytes, now_s: float) -> None:
        """Carry out one command, if it is for this device and sound."""
        acknowledged = b""
        if self._values["CK"] == "1":
            if len(command) < 2 or checksum(command[:-1]) != command[-1]:
                self.reply(REFUSED, now_s)
                return
            command, acknowledged = command[:-1], ACKNOWLEDGED
        whole = command
        if self._values["PY"] == "1":
            if command[:1] not in (self._device_name, b"*"):
                return
            command = command[1:]
        text = command.decode("latin-1").strip().upper()
        failed, value = False, None
        try:
            if self._entering is not None and not text.startswith("PG"):
                self._programs[self._entering].append(text)
            else:
                value = self._carry_out(text, now_s)
        except _Error as error:
            self._error, failed = error.number, True
        self._respond(whole, value, now_s, failed=failed, acknowledged=acknowledged)

    def _respond(
        self, command: bytes, value: str | None, now_s: float, *, failed: bool = False, acknowledged: bytes = b""
    ) -> None:
        text = b"" if value is None else value.encode() + b"\r\n"
        match self._values["EM"]:
            case "0":
                answer = b"\r\n" + text + (b"?" if failed else b">")
            case "1":
                answer = text or b"\r\n"
            case "2":
                answer = text
            case _:
                answer = command + b"\r\n" + text + (b"?" if failed else b">")
        if acknowledged + answer:
            self.reply(acknowledged + answer, now_s)

    def _carry_out(self, text: str, now_s: float) -> str | None:
        if assigned := re.fullmatch(r"([A-Z][A-Z0-9]?)\s*=\s*(\S*)", text):
            self._assign(assigned[1], assigned[2], now_s)
            return None
        word, _, rest = text.partition(" ")
        rest = rest.strip()
        match word:
            case "PR":
                return self._print(rest, now_s)
            case "L":
                return "\r\n".join(line for program in self._programs.values() for line in program)
            case "MA" | "MR":
                if self._moves(now_s):
                    raise _Error(85)
                from_um = self._origin_um if word == "MA" else self._axis.position_um(now_s)
                self._start(from_um + _integer(rest) / _STEPS_PER_UM, now_s)
            case "SL":
                self._slew(_integer(rest), now_s)
            case "HM":
                if rest not in ("1", "2", "3", "4"):
                    raise _Error(21)
                self._home(now_s)
            case "H":
                self._hold_until_s = now_s + (_integer(rest) / 1000 if rest else 0.0)
            case "PG":
                self._enter(rest)
            case "E":
                pass
            case "EX":
                if self._running is not None:
                    raise _Error(41)
                if _integer(rest) not in self._programs:
                    raise _Error(30)
                self._running = list(self._programs[_integer(rest)])
                self._hold_until_s = now_s
            case _:
                raise _Error(60)
        return None

    def _print(self, variable: str, now_s: float) -> str:
        match variable:
            case "P":
                return str(self._steps(now_s))
            case "MV":
                return str(int(self._moves(now_s)))
            case "I1":
                return str(int(self._home_switch and abs(self._axis.position_um(now_s) - self._home_um) < 1.0))
            case "ER":
                error, self._error = self._error, 0
                return str(error)
        if variable not in self._values:
            raise _Error(20)
        return self._values[variable]

    def _assign(self, variable: str, value: str, now_s: float) -> None:
        if variable in _READ_ONLY:
            raise _Error(25)
        if variable == "P":
            self._origin_um = self._axis.position_um(now_s) - _integer(value) / _STEPS_PER_UM
        elif variable == "ER":
            self._error = _integer(value)
        elif variable in ("S1", "S2", "S3"):
            if not re.fullmatch(r"\d{1,2},[01],[01]", value):
                raise _Error(21)
            self._values[variable] = value
        elif variable in self._values:
            if not (variable not in ("VM", "A", "D") or _integer(value) > 0):
                raise _Error(21)
            if not 0 <= _integer(value) <= _LARGEST.get(variable, 10**9):
                raise _Error(21)
            self._values[variable] = str(_integer(value))
            self._ends = b"\n" if self._values["PY"] == "1" else b"\r"
        else:
            raise _Error(20)

    def _enter(self, rest: str) -> None:
        if rest:
            self._entering = _integer(rest)
            self._programs[self._entering] = []
        else:
            self._entering = None

    # --------------------------------------------------------------------------------------------------------- motion

    def _start(self, target_um: float, now_s: float, speed_steps_per_s: float | None = None) -> None:
        axis = self._axis
        axis.speed_um_per_s = (speed_steps_per_s or int(self._values["VM"])) / _STEPS_PER_UM
        axis.acceleration_um_per_s2 = int(self._values["A"]) / _STEPS_PER_UM
        axis.deceleration_um_per_s2 = int(self._values["D"]) / _STEPS_PER_UM
        axis.move_to(target_um, now_s)
        self._watched = True

    def _slew(self, steps_per_s: int, now_s: float) -> None:
        if steps_per_s == 0:
            self._axis.stop(now_s, int(self._values["D"]) / _STEPS_PER_UM)
        else:
            beyond_um = self._axis.high_um + 1.0 if steps_per_s > 0 else self._axis.low_um - 1.0
            self._start(beyond_um, now_s, abs(steps_per_s))

    def _home(self, now_s: float) -> None:
        if self._moves(now_s):
            raise _Error(85)
        if self._values["S1"].split(",")[0] != "1":
            raise _Error(80)
        # Without its switch it runs to one end, then to the other.
        self._homing = [self._home_um] if self._home_switch else [self._axis.low_um - 1.0, self._axis.high_um + 1.0]
        self._start(self._homing.pop(0), now_s)

    def next_event_s(self) -> float | None:
        """When the move or the hold ends that something waits for."""
        times = [self._axis.end_s] if self._watched else []
        if self._running is not None and not (self._watched and self._running[:1] == ["H"]):
            times.append(self._hold_until_s)
        return min(times, default=None)

    def advance(self, now_s: float) -> None:
        """Notice how a move ended, and go on with the program that runs."""
        while True:
            at_s = self.next_event_s()
            if at_s is None or at_s > now_s:
                return
            if self._watched and self._axis.end_s <= at_s:
                self._end_move(at_s)
            elif self._running:
                try:
                    self._carry_out(self._running.pop(0), at_s)
                except _Error as error:
                    self._error, self._running = error.number, None
            else:
                self._running = None

    def _end_move(self, at_s: float) -> None:
        self._watched = False
        self._hold_until_s = max(self._hold_until_s, at_s)
        axis = self._axis
        if axis.outcome == "stalled":
            self._error, self._homing = 86, []
        elif axis.outcome == "limit":
            if self._homing:
                self._start(self._homing.pop(0), at_s)
            elif not self._home_switch and axis.target_um > axis.high_um:
                self._error = 82
            else:
                self._error = 83 if axis.target_um > axis.position_um(at_s) else 84

    # ------------------------------------------------------------------------------------------------------ simulation

    def fault_home_switch(self, now_s: float) -> None:
        """The home switch does not close: homing runs from end to end and fails."""
        self._home_switch = False

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; what it did stays."""
        self._home_switch = True
        super().clear(now_s)

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it; `x_steps` is what its counter says, `x_true_steps` what it says when homed."""
        truth = super().inspect(now_s)
        truth["x_steps"] = self._steps(now_s)
        truth["x_true_steps"] = round(self._axis.position_um(now_s) * _STEPS_PER_UM)
        truth["error"] = self._error
        return truth

    @property
    def _home_um(self) -> float:
        return _HOME_STEPS / _STEPS_PER_UM

    def _moves(self, now_s: float) -> bool:
        return self.says_busy("X", now_s)

    def _steps(self, now_s: float) -> int:
        return round((self._axis.position_um(now_s) - self._origin_um) * _STEPS_PER_UM)


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise _Error(24)
    return int(text)
