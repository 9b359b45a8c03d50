"""Parker ViX250/500-IH servo drive: the Y axis of a HiSeq 2500.

A command begins with the drive's address and ends with ``<CR>``; ``<LF>`` is ignored, and a blank is an error. Reports
begin with ``*``. The variable `EX` says what it says: 2 and 3 echo, 1 and 3 report errors (``*E``) when they happen,
0 and 2 only in place of a report; at start it is 3. Status words print as ``*0000_0000_...``, bit 1 first.

While it moves, `K`, `S`, `C` and the reports ``R(RB)``, ``R(UF)``, ``R(DF)`` and ``R(ST)`` act at once; `G` is the
error "still moving"; everything else waits in a buffer until the move has ended.

What the sources leave open, and how it is here: reports end with ``<CR><LF>``; a revolution is `um_per_rev`, and the
acceleration is fixed; `K` stops on the spot and leaves the motor energised; ``R(RB)`` is ``*1`` while it moves; a motor
that stalls is a tracking fault and loses its current; the gains are kept only; where it stands at power-on counts as 0.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

from cartoseq.simulators.motion import Axis
from cartoseq.simulators.motiondevice import MotionDevice

BANNER: Final = b"\r\n*PARKER ViX-IH SERVO DRIVE\r\n*REV 2.4\r\n*READY\r\n"
STEPS_PER_UM: Final = 100.0

_TRAVEL_UM: Final = (-72_000.0, 77_000.0)
_BUFFER: Final = 32
_IMMEDIATE: Final = ("C", "K", "S", "R(RB)", "R(UF)", "R(DF)", "R(ST)")
# Bits of the words, from 1.
_VALUE, _SYNTAX, _HOMING, _NO_CURRENT, _END_OF_TRAVEL, _STILL_MOVING = 1, 2, 6, 8, 13, 14
_ENERGISED, _LOW_END, _HIGH_END, _MOVING, _IN_POSITION = 9, 13, 14, 19, 20
_COMPOSITE, _TRACKING, _DISABLED = 1, 19, 21


class _Error(Exception):
    """A user fault, by its bit."""

    def __init__(self, bit: int) -> None:
        self.bit = bit


class VixSim(MotionDevice):
    """One drive with its stage; a step is 10 nm.

    Args:
        name: What it is called in the rack.
        address: Of the drive, 1 to 9.
        um_per_rev: Travel of a revolution.
        acceleration_um_per_s2: Of every move.
        start_um: Where it stands at power-on, from the home position.
        restart_s: How long it is deaf after `Z`.
        latency_s: Time from a command to its reply.
    """

    def __init__(
        self,
        name: str,
        *,
        address: int = 1,
        um_per_rev: float = 10_000.0,
        acceleration_um_per_s2: float = 100_000.0,
        start_um: float = 5_000.0,
        restart_s: float = 1.5,
        latency_s: float = 0.005,
    ) -> None:
        if not 1 <= address <= 9:
            raise ValueError(f"address is 1 to 9, found {address}")
        axis = Axis(
            *_TRAVEL_UM,
            speed_um_per_s=um_per_rev,
            acceleration_um_per_s2=acceleration_um_per_s2,
            position_um=start_um,
        )
        super().__init__(name, {"Y": axis}, latency_s=latency_s, longest=64)
        self._axis = axis
        self._address = str(address)
        self._um_per_rev = um_per_rev
        self._restart_s = restart_s
        self.wake_up(0.0)

    # ------------------------------------------------------------------------------------------------------- commands

    def wake_up(self, now_s: float) -> None:
        """Forget everything but the place where the stage stands; the motor has no current."""
        started = hasattr(self, "_pending")
        self._mode = 3
        self._energised = False
        self._absolute = True
        self._origin_um = self._axis.position_um(now_s)
        self._target = 0
        self._rps = 1.0
        self._gains = ""
        self._user_faults: set[int] = set()
        self._drive_faults: set[int] = set()
        self._ends_seen: set[int] = set()
        self._homing = False
        self._watched = False
        self._pending: deque[str] = deque()
        if started:
            self.say(BANNER, now_s + self._latency_s)

    def hear(self, byte: int, now_s: float) -> bool:
        """Ignore line feeds; echo the others where that is asked for."""
        if byte == 0x0A:
            return True
        if self._mode in (2, 3):
            self.say(bytes([byte]), now_s)
        return False

    def overflow(self, now_s: float) -> None:
        """Refuse a command that is too long."""
        self._complain(_SYNTAX, now_s, report=False)

    def obey(self, command: bytes, now_s: float) -> None:
        """Carry out one command, or let it wait for the end of the move."""
        text = command.decode("latin-1").upper()
        if not text.startswith(self._address):
            return
        text = text[1:]
        if self._moves(now_s) and text not in _IMMEDIATE:
            if text == "Z":
                self._pending.clear()
            elif text in ("G", "GH"):
                self._complain(_STILL_MOVING, now_s, report=False)
                return
            elif len(self._pending) < _BUFFER:
                self._pending.append(text)
                return
            else:
                self._complain(_SYNTAX, now_s, report=False)
                return
        self._run(text, now_s)

    def _run(self, text: str, now_s: float) -> None:
        try:
            report = self._carry_out(text, now_s)
        except _Error as error:
            self._complain(error.bit, now_s, report=text.startswith("R"))
        else:
            if report is not None:
                self.reply(f"*{report}\r\n".encode(), now_s)

    def _complain(self, bit: int, now_s: float, *, report: bool) -> None:
        self._user_faults.add(bit)
        if report or self._mode in (1, 3):
            self.reply(b"*E\r\n", now_s)

    def _carry_out(self, text: str, now_s: float) -> str | None:
        match text:
            case "MA":
                self._absolute = True
            case "ON":
                self._energised = True
                self._drive_faults.clear()
                self._user_faults.clear()
            case "OFF":
                self._axis.halt(now_s)
                self._energised = False
            case "G":
                self._go(self._origin_um + self._target / STEPS_PER_UM, now_s, homing=False)
            case "GH":
                self._go(0.0, now_s, homing=True)
            case "S":
                self._axis.stop(now_s)
                self._pending.clear()
            case "K":
                self._axis.halt(now_s)
                self._pending.clear()
            case "C":
                pass
            case "Z":
                self._switch_off(now_s, now_s + self._restart_s)
            case _:
                return self._set_or_report(text, now_s)
        return None

    def _set_or_report(self, text: str, now_s: float) -> str | None:
        if found := re.fullmatch(r"R\(([A-Z]{2})\)", text):
            return self._report(found[1], now_s)
        if found := re.fullmatch(r"D([-+]?\d{1,10})", text):
            if not abs(int(found[1])) < 2**31:
                raise _Error(_VALUE)
            self._target = int(found[1])
        elif found := re.fullmatch(r"V(\d+\.?\d*|\.\d+)", text):
            if not 0 < float(found[1]) <= 100:
                raise _Error(_VALUE)
            self._rps = float(found[1])
        elif found := re.fullmatch(r"W\(EX,(\d+)\)", text):
            if int(found[1]) > 3:
                raise _Error(_VALUE)
            self._mode = int(found[1])
        elif found := re.fullmatch(r"GAINS\(((?:\d+\.?\d*,){4}\d+\.?\d*)\)", text):
            self._gains = found[1]
        else:
            raise _Error(_SYNTAX)
        return None

    def _report(self, what: str, now_s: float) -> str:
        match what:
            case "PA":
                return f"{self._steps(now_s):+d}"
            case "PT":
                return f"{self._target:+d}"
            case "MV" | "RB":
                return str(int(self._moves(now_s)))
            case "IP":
                return str(int(self._in_position(now_s)))
            case "ST":
                return _word(self._status(now_s))
            case "DF":
                return _word(self._drive_faults)
            case "UF":
                faults, self._user_faults = self._user_faults, set()
                return _word(faults)
        raise _Error(_SYNTAX)

    def _status(self, now_s: float) -> set[int]:
        bits = set(self._ends_seen)
        for bit, is_set in (
            (_ENERGISED, self._energised),
            (_MOVING, self._moves(now_s)),
            (_IN_POSITION, self._in_position(now_s)),
        ):
            if is_set:
                bits.add(bit)
        return bits

    # --------------------------------------------------------------------------------------------------------- motion

    def _go(self, target_um: float, now_s: float, *, homing: bool) -> None:
        if not self._energised:
            raise _Error(_NO_CURRENT)
        self._ends_seen.clear()
        self._axis.speed_um_per_s = self._rps * self._um_per_rev
        self._axis.move_to(target_um, now_s)
        self._homing, self._watched = homing, True

    def next_event_s(self) -> float | None:
        """When the move ends."""
        waiting = self._pending and not self._busy_for_ever
        return self._axis.end_s if self._watched or waiting else None

    def advance(self, now_s: float) -> None:
        """Notice how a move ended, and carry out what waited for it."""
        while self._watched or self._pending:
            at_s = self._axis.end_s
            if at_s > now_s:
                return
            if self._watched:
                self._end_move(at_s)
            elif not self._busy_for_ever:
                self._run(self._pending.popleft(), at_s)
            else:
                return

    def _end_move(self, at_s: float) -> None:
        self._watched = False
        outcome = self._axis.outcome
        if outcome == "stalled":
            self._drive_faults |= {_COMPOSITE, _TRACKING, _DISABLED}
            self._energised = False
        elif outcome == "limit":
            self._ends_seen.add(_HIGH_END if self._axis.target_um > self._axis.position_um(at_s) else _LOW_END)
            self._complain(_END_OF_TRAVEL, at_s, report=False)
        if self._homing:
            self._homing = False
            if outcome == "arrived":
                self._origin_um = self._axis.position_um(at_s)
                self._target = 0
            else:
                self._complain(_HOMING, at_s, report=False)

    # ------------------------------------------------------------------------------------------------------ simulation

    def fault_drive(self, now_s: float, bit: float) -> None:
        """The drive reports a fault by its bit in DF, such as 4 (over-voltage) or 11 (too hot), and lets go."""
        if not 2 <= bit <= 32 or bit != int(bit):
            raise ValueError(f"fault drive of {self.name}: bit is a whole number, 2 to 32, found {bit}")
        self._drive_faults |= {_COMPOSITE, int(bit), _DISABLED}
        self._axis.halt(now_s)
        self._energised = False

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it; `y_steps` is what its counter says."""
        truth = super().inspect(now_s)
        truth["y_steps"] = self._steps(now_s)
        truth["energised"] = self._energised
        truth["gains"] = self._gains
        return truth

    def position_um(self, now_s: float) -> float:
        """Where the stage is, from its home: for an encoder beside it."""
        return self._axis.position_um(now_s)

    def _moves(self, now_s: float) -> bool:
        return self.says_busy("Y", now_s)

    def _in_position(self, now_s: float) -> bool:
        return not self._moves(now_s) and self._energised and self._steps(now_s) == self._target

    def _steps(self, now_s: float) -> int:
        return round((self._axis.position_um(now_s) - self._origin_um) * STEPS_PER_UM)


def _word(bits: set[int]) -> str:
    """Write 32 bits as the drive does: bit 1 first, in fours."""
    digits = "".join("1" if bit in bits else "0" for bit in range(1, 33))
    return "_".join(digits[begin : begin + 4] for begin in range(0, 32, 4))
