r"""ASI MS-2000 and TG-1000 "Tiger": stages in tenths of a micrometre.

A command ends with ``<CR>``; a reply is one line that ends with ``<CR><LF>``, and several lines are separated by
``<CR>``. Success begins ``:A``, failure is ``:N-k``. Commands are not case sensitive; a missing number is 0. Answers
for several axes come in the controller's order of axes, whatever the order in the question.

What the sources leave open, and how it is here: a target beyond a soft limit is refused (``:N-4``) and no axis moves;
``!`` goes to the upper limit switch; ``H`` moves the soft limits' numbers along, so that they stay in place; where it
stands at power-on counts as 0; backlash, finish error and drift error are kept and answered, and do not act on motion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from cartoseq.simulators.motion import Axis
from cartoseq.simulators.motiondevice import MotionDevice

UNKNOWN_COMMAND: Final = 1
UNKNOWN_AXIS: Final = 2
MISSING_PARAMETER: Final = 3
OUT_OF_RANGE: Final = 4
NO_SUCH_CARD: Final = 7
HALTED: Final = 21

_UM_PER_MM: Final = 1000.0
_COUNTS_PER_UM: Final = 10.0
_TRAVEL_UM: Final = {"X": (-57_500.0, 57_500.0), "Y": (-37_500.0, 37_500.0), "Z": (-5_000.0, 5_000.0)}
_OTHER_TRAVEL_UM: Final = (-10_000.0, 10_000.0)
_ADDRESS: Final = re.compile(r"^([0-9]{1,2}|[\x81-\xff])\s*")
_WORD: Final = re.compile(r"^([A-Z]+|[/\\!])")
_ARGUMENT: Final = re.compile(r"\s*([A-Z])(?:(\?)|\s*=\s*([-+]?(?:\d+\.?\d*|\.\d+))?)?(?=\s|$)")


class _RefusalError(Exception):
    """The command is answered with an error."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class _Settings:
    """What can be set of an axis; as after power-on.

    Attributes:
        speed_mm_per_s: Speed of moves.
        ramp_ms: Time in which it gains that speed.
        backlash_mm: Kept only.
        finish_error_mm: Kept only.
        drift_error_mm: Kept only.
        low_um: Lower soft limit, in the axis's own um.
        high_um: Upper soft limit.
        origin_um: Where the position counts as 0.
    """

    low_um: float
    high_um: float
    origin_um: float
    speed_mm_per_s: float = 5.745
    ramp_ms: float = 50.0
    backlash_mm: float = 0.04
    finish_error_mm: float = 0.000024
    drift_error_mm: float = 0.0004


@dataclass
class _Request:
    """The axes of a command, in the controller's order.

    Attributes:
        values: Number of each axis that was named; a missing one is 0.
        asked: Axes with a question mark.
    """

    values: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


class AsiSim(MotionDevice):
    """A controller with its axes.

    Args:
        name: What it is called in the rack.
        controller: MS-2000, or Tiger with cards: X and Y on card 1, each further axis on a card of its own.
        axes: Letters of its axes.
        travel_um: Ends of the travel of some axes, each a low and a high one; X, Y and Z have usual ones.
        firmware: What `V` says.
        spaces: Whether replies end with a blank before ``<CR><LF>``; firmware differs in it.
        decimals: Digits after the point in positions; firmware differs in it.
        latency_s: Time from a command to its reply.
    """

    def __init__(
        self,
        name: str,
        *,
        controller: Literal["ms2000", "tiger"] = "ms2000",
        axes: Sequence[str] = ("X", "Y", "Z"),
        travel_um: Mapping[str, Sequence[float]] | None = None,
        firmware: str = "USB-9.2m",
        spaces: bool = True,
        decimals: int = 0,
        latency_s: float = 0.004,
    ) -> None:
        if controller not in ("ms2000", "tiger"):
            raise ValueError(f"controller is ms2000 or tiger, found {controller!r}")
        names = [axis.upper() for axis in axes]
        if not names or len(set(names)) < len(names) or any(not re.fullmatch("[A-Z]", axis) for axis in names):
            raise ValueError(f"axes are different single letters, found {list(axes)}")
        travels = {axis.upper(): travel for axis, travel in (travel_um or {}).items()}
        if unknown := set(travels) - set(names):
            raise ValueError(f"travel_um names an axis that is not there: {', '.join(sorted(unknown))}")
        made = {}
        for axis in names:
            low_um, high_um = travels.get(axis, _TRAVEL_UM.get(axis, _OTHER_TRAVEL_UM))
            made[axis] = Axis(low_um, high_um, speed_um_per_s=1.0, acceleration_um_per_s2=1.0)
        super().__init__(name, made, latency_s=latency_s)
        self.tiger = controller == "tiger"
        self.firmware = firmware
        self._end = " \r\n" if spaces else "\r\n"
        self._decimals = decimals
        others = [axis for axis in names if axis not in "XY"]
        self._card = {axis: 1 if axis in "XY" else 2 + others.index(axis) for axis in names}
        self._refuse: int | None = None
        self._settings: dict[str, _Settings] = {}
        self._commands: dict[str, Callable[[str, float], str]] = {
            "M": self._move,
            "R": self._move_by,
            "W": self._where,
            "/": self._status,
            "RS": self._read_status,
            "\\": self._halt,
            "HALT": self._halt,
            "H": self._here,
            "!": self._home,
            "S": self._setting("speed_mm_per_s", 3, 0.001, 7.5, acknowledged=True),
            "AC": self._setting("ramp_ms", 0, 1, 60_000, acknowledged=False),
            "B": self._setting("backlash_mm", 6, 0, 10, acknowledged=False),
            "PC": self._setting("finish_error_mm", 6, 0, 10, acknowledged=True),
            "E": self._setting("drift_error_mm", 6, 0, 10, acknowledged=False),
            "SL": self._limit("low_um"),
            "SU": self._limit("high_um"),
            "V": lambda _text, _now_s: f":A Version: {self.firmware}",
            "BU": self._build,
            "CD": lambda _text, _now_s: ":A Dec 19 2018:16:19:00",
            "VB": lambda _text, _now_s: ":A",
        }
        self._restore(0.0)

    # ------------------------------------------------------------------------------------------------------- commands

    def obey(self, command: bytes, now_s: float) -> None:
        """Answer one command."""
        text = command.decode("latin-1").strip()
        text = "".join(letter.upper() if letter < "\x80" else letter for letter in text)
        if not text:
            return
        try:
            self._answer(self._carry_out(text, now_s), now_s)
        except _RefusalError as refusal:
            self.reply(f":N-{refusal.code}\r\n".encode(), now_s)

    def overflow(self, now_s: float) -> None:
        """Answer a command that is too long as one that is not known."""
        self.reply(f":N-{UNKNOWN_COMMAND}\r\n".encode(), now_s)

    def wake_up(self, now_s: float) -> None:
        """Take the settings that it was made with; the place where it stands counts as 0."""
        self._restore(now_s)

    def _answer(self, answer: str, now_s: float) -> None:
        if answer in ("B", "N"):
            answer += "\r\n"
        elif not answer.endswith("\r"):
            answer += self._end
        else:
            answer += "\r\n"
        self.reply(answer.encode("latin-1"), now_s)

    def _carry_out(self, text: str, now_s: float) -> str:
        if self._refuse is not None:
            code, self._refuse = self._refuse, None
            raise _RefusalError(code)
        card = None
        if self.tiger and (found := _ADDRESS.match(text)):
            card = _card_number(found[1])
            if card not in {0, *self._card.values()}:
                raise _RefusalError(NO_SUCH_CARD)
            text = text[found.end() :]
        word = _WORD.match(text)
        if word is None or word[1] not in self._commands:
            raise _RefusalError(UNKNOWN_COMMAND)
        rest = text[word.end() :]
        if card and word[1] in ("\\", "HALT"):
            return self._halt_axes([axis for axis in self.axes if self._card[axis] == card], now_s)
        if card and word[1] == "BU":
            return self._card_build(card)
        return self._commands[word[1]](rest, now_s)

    def _request(self, rest: str) -> _Request:
        found = _Request()
        given: dict[str, float] = {}
        asked = set()
        at = 0
        while at < len(rest):
            argument = _ARGUMENT.match(rest, at)
            if argument is None or argument[1] not in self.axes:
                raise _RefusalError(UNKNOWN_AXIS)
            if argument[2]:
                asked.add(argument[1])
            else:
                given[argument[1]] = float(argument[3] or 0)
            at = argument.end()
        found.values = {axis: given[axis] for axis in self.axes if axis in given}
        found.asked = [axis for axis in self.axes if axis in asked]
        if not given and not asked:
            raise _RefusalError(MISSING_PARAMETER)
        return found

    def _move(self, rest: str, now_s: float) -> str:
        values = self._request(rest).values
        return self._go(
            {axis: self._settings[axis].origin_um + count / _COUNTS_PER_UM for axis, count in values.items()}, now_s
        )

    def _move_by(self, rest: str, now_s: float) -> str:
        values = self._request(rest).values
        return self._go(
            {axis: self.axes[axis].position_um(now_s) + count / _COUNTS_PER_UM for axis, count in values.items()}, now_s
        )

    def _go(self, targets_um: Mapping[str, float], now_s: float) -> str:
        for axis, target_um in targets_um.items():
            settings = self._settings[axis]
            if not settings.low_um <= target_um <= settings.high_um:
                raise _RefusalError(OUT_OF_RANGE)
        for axis, target_um in targets_um.items():
            self.axes[axis].move_to(target_um, now_s)
        return ":A"

    def _where(self, rest: str, now_s: float) -> str:
        request = self._request(rest)
        places = [self._counts(axis, now_s) for axis in self.axes if axis in request.values or axis in request.asked]
        return ":A " + " ".join(f"{count:.{self._decimals}f}" for count in places)

    def _status(self, _rest: str, now_s: float) -> str:
        return "B" if any(self.says_busy(axis, now_s) for axis in self.axes) else "N"

    def _read_status(self, rest: str, now_s: float) -> str:
        request = self._request(rest)
        if request.asked:
            if not self.tiger:
                raise _RefusalError(UNKNOWN_AXIS)
            return ":A " + "".join("B" if self.says_busy(axis, now_s) else "N" for axis in request.asked)
        return ":A " + " ".join(str(self._status_byte(axis, now_s)) for axis in request.values)

    def _status_byte(self, name: str, now_s: float) -> int:
        axis = self.axes[name]
        acceleration = axis.acceleration_at_um_per_s2(now_s)
        bits = (
            self.says_busy(name, now_s),
            True,  # the axis is enabled
            self.says_busy(name, now_s),
            True,  # and so is its joystick
            acceleration != 0,
            acceleration * axis.velocity_um_per_s(now_s) < 0,
            axis.at_high_end(now_s),
            axis.at_low_end(now_s),
        )
        return sum(1 << number for number, bit in enumerate(bits) if bit)

    def _halt(self, _rest: str, now_s: float) -> str:
        return self._halt_axes(list(self.axes), now_s)

    def _halt_axes(self, names: Sequence[str], now_s: float) -> str:
        running = any(self.axes[axis].busy(now_s) for axis in names)
        for axis in names:
            self.axes[axis].stop(now_s)
        if running:
            raise _RefusalError(HALTED)
        return ":A"

    def _here(self, rest: str, now_s: float) -> str:
        for axis, count in self._request(rest).values.items():
            self._settings[axis].origin_um = self.axes[axis].position_um(now_s) - count / _COUNTS_PER_UM
        return ":A"

    def _home(self, rest: str, now_s: float) -> str:
        for axis in self._request(rest).values:
            self.axes[axis].move_to(self.axes[axis].high_um + 1.0, now_s)
        return ":A"

    def _setting(
        self, what: str, digits: int, low: float, high: float, *, acknowledged: bool
    ) -> Callable[[str, float], str]:
        def command(rest: str, now_s: float) -> str:
            request = self._request(rest)
            if request.asked:
                values = " ".join(f"{axis}={getattr(self._settings[axis], what):.{digits}f}" for axis in request.asked)
                return f":A {values}" if acknowledged else f":{values}"
            if any(not low <= value <= high for value in request.values.values()):
                raise _RefusalError(OUT_OF_RANGE)
            for axis, value in request.values.items():
                setattr(self._settings[axis], what, value)
                self._set_up(axis)
            return ":A"

        return command

    def _limit(self, which: Literal["low_um", "high_um"]) -> Callable[[str, float], str]:
        def command(rest: str, now_s: float) -> str:
            request = self._request(rest)
            if request.asked:
                values = (
                    f"{axis}={(getattr(settings, which) - settings.origin_um) / _UM_PER_MM:.3f}"
                    for axis, settings in self._settings.items()
                    if axis in request.asked
                )
                return ":A " + " ".join(values)
            for axis, value in request.values.items():
                setattr(self._settings[axis], which, self._settings[axis].origin_um + value * _UM_PER_MM)
            return ":A"

        return command

    def _build(self, rest: str, now_s: float) -> str:
        lines = ["TIGER_COMM" if self.tiger else f"STD_{''.join(self.axes)}"]
        if rest.strip() == "X":
            lines.append("Motor Axes: " + " ".join(self.axes))
            lines.append("Axis Types: " + " ".join(_kind(axis) for axis in self.axes))
            if self.tiger:
                lines.append("Axis Addr: " + " ".join(str(self._card[axis]) for axis in self.axes))
                lines.append("Hex Addr: " + " ".join(f"3{self._card[axis]}" for axis in self.axes))
            lines.append("Axis Props: " + " ".join("10" for _ in self.axes))
            return "".join(f"{line}\r" for line in lines)
        return lines[0]

    def _card_build(self, card: int) -> str:
        axes = [axis for axis in self.axes if self._card[axis] == card]
        lines = [f"STD_{''.join(axes)}", "Motor Axes: " + " ".join(axes)]
        lines.append("Axis Types: " + " ".join(_kind(axis) for axis in axes))
        lines.append("Axis Props: " + " ".join("10" for _ in axes))
        return "".join(f"{line}\r" for line in lines)

    # ------------------------------------------------------------------------------------------------------ simulation

    def fault_refuse(self, now_s: float, code: float = 5) -> None:
        """It answers the next command with an error of this code, and does not carry it out."""
        self._refuse = int(code)

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; what it did stays."""
        self._refuse = None
        super().clear(now_s)

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it; `..._counts` is what its counter says, in tenths of a micrometre."""
        truth = super().inspect(now_s)
        for axis in self.axes:
            truth[f"{axis.lower()}_counts"] = round(self._counts(axis, now_s), 1)
        return truth

    def _counts(self, axis: str, now_s: float) -> float:
        counts = (self.axes[axis].position_um(now_s) - self._settings[axis].origin_um) * _COUNTS_PER_UM
        return round(counts, self._decimals) + 0.0

    def _restore(self, now_s: float) -> None:
        for name, axis in self.axes.items():
            self._settings[name] = _Settings(axis.low_um, axis.high_um, axis.position_um(now_s))
            self._set_up(name)

    def _set_up(self, name: str) -> None:
        axis, settings = self.axes[name], self._settings[name]
        axis.speed_um_per_s = settings.speed_mm_per_s * _UM_PER_MM
        axis.acceleration_um_per_s2 = axis.deceleration_um_per_s2 = axis.speed_um_per_s / (settings.ramp_ms / 1000)


def _card_number(address: str) -> int:
    """A card's number from its address: a digit, the two hex digits of its character, or the character itself."""
    if len(address) == 2:
        return int(address, 16) - 0x30
    return int(address) if address in "0123456789" else ord(address) - 0x81 + 10


def _kind(axis: str) -> str:
    return "x" if axis in "XY" else "z"
