"""What is in a pump of the Cavro family: motors, counters, and a program of commands that it works through.

No bytes here (`simulators.devices.cavro`). What a command's numbers mean is looked at when its turn comes. The plunger,
the valve and the liquid are the world's (`simulators.fluidics`); the counter of steps is the pump's own and may be
wrong.

Errors stay until the next program runs; those of the motors (1, 7, 9, 10) until the pump is initialised.

Assumed, since no source tells: defaults of speed and slope, the time that a valve takes, and the speed of an
initialisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cartoseq.simulators.devices.disturbances import Disturbances
from cartoseq.simulators.fluidics import Speeds, Syringe
from cartoseq.simulators.world import Event, World

#: A letter and its numbers.
Command = tuple[str, tuple[int, ...]]

INIT_FAILED, INVALID_COMMAND, INVALID_OPERAND, INVALID_SEQUENCE = 1, 2, 3, 4
NOT_INITIALIZED, PLUNGER_OVERLOAD, VALVE_OVERLOAD, MOVE_NOT_ALLOWED, OVERFLOW = 7, 9, 10, 11, 15
#: Kloehn's own.
COMMUNICATION, NOTHING_TO_RUN, SUPPLY_LOW, MAY_PASS_HOME = 4, 5, 6, 26
NEEDS_INIT: Final = frozenset({INIT_FAILED, NOT_INITIALIZED, PLUNGER_OVERLOAD, VALVE_OVERLOAD})

_SPEED_CODES: Final = (
    6000, 5600, 5000, 4400, 3800, 3200, 2600, 2200, 2000, 1800, 1600, 1400, 1200, 1000, 800, 600, 400, 200,
    190, 180, 170, 160, 150, 140, 130, 120, 110, 100, 90, 80, 70, 60, 50, 40, 30, 20, 18, 16, 14, 12, 10,
)  # fmt: skip
_INIT_SPEED: Final = 1400
_SLOPE_UNIT: Final = 2500
_FINE: Final = 8
_COMMAND_S: Final = 0.001
_FIND_HOME_S: Final = 0.3
_VALVE_S, _PORT_S, _VALVE_STALL_S = 0.1, 0.15, 1.0
_SAFE_STOP_PER_S: Final = 2000
_SLIP_S: Final = 0.005
_WITHOUT_END: Final = 1 << 60


@dataclass(frozen=True)
class Limits:
    """What a make allows, and where it begins.

    Attributes:
        half_steps: Units of the speeds in one step of the plunger.
        top, start, end, code: Allowed numbers of V, v, c and S.
        speeds: V, v, c and L after power-on.
        knows_home: Whether it refuses to pass its home position, and loses steps when it is stopped from a high speed.
    """

    half_steps: int
    top: range
    start: range
    end: range
    code: range
    speeds: tuple[int, int, int, int]
    knows_home: bool


class ProgramError(Exception):
    """A command of a program cannot be done."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Pump:
    """The motors of one pump.

    Args:
        world: The bench that it acts on.
        syringe: Its syringe and valve.
        limits: Its make.
        full_stroke_steps: Steps of the whole barrel.
        disturbances: Which of its faults are on.
    """

    def __init__(
        self, world: World, syringe: Syringe, limits: Limits, full_stroke_steps: int, disturbances: Disturbances
    ) -> None:
        self.syringe = syringe
        self.halted = False
        self.valve_moves = self.valve_stalls = 0
        self._world = world
        self._limits = limits
        self._full_steps = full_stroke_steps
        self._disturbances = disturbances
        self._distribution = all(port.isdigit() for port in syringe.ports)
        self._next: Event | None = None
        self._valve_arrives_s = 0.0
        self._program: list[Command] | None = None
        self._at = 0
        self._loops: list[list[int]] = []
        self._target_ul = 0.0
        self._initializing = self._fine = False
        #: Steps that the counter is ahead of the plunger.
        self.offset_steps = 0.0
        if syringe.port is None and syringe.ports:
            syringe.port = "I" if "I" in syringe.ports else min(syringe.ports)
        self.power_on()

    def power_on(self) -> None:
        """Begin with the settings of the maker; where the plunger is, is not known."""
        self.terminate()
        self.speeds = self._limits.speeds
        self.backlash = 12
        self.error = 0
        self.initialized = self._initializing = self._shows_ready = False
        self._fine = False
        self.offset_steps = 0.0

    # -------------------------------------------------------------------------------------------------------- what is

    @property
    def steps_of_stroke(self) -> int:
        """Steps of the whole barrel, in the resolution that is set."""
        return self._full_steps * (_FINE if self._fine else 1)

    @property
    def true_steps(self) -> float:
        """Where the plunger is."""
        return self.syringe.volume_ul / self._ul_per_step

    @property
    def counter_steps(self) -> int:
        """Where the pump believes its plunger to be."""
        return round(self.true_steps + self.offset_steps)

    @property
    def is_busy(self) -> bool:
        """Whether it says that it is at work."""
        if "busy_for_ever" in self._disturbances:
            return True
        runs = (self._program is not None and not self.halted) or self._valve_arrives_s > self._world.now_s
        return runs and not self._shows_ready

    @property
    def _ul_per_step(self) -> float:
        return self.syringe.barrel_ul / self.steps_of_stroke

    def look(self) -> None:
        """Take note of a plunger that has come to a halt."""
        if self.syringe.stalled:
            self.syringe.stalled = False
            self._fail(INIT_FAILED if self._initializing else PLUNGER_OVERLOAD)

    # ---------------------------------------------------------------------------------------------------- what it does

    def run(self, program: list[Command]) -> None:
        """Begin a program."""
        if self.error not in NEEDS_INIT:
            self.error = 0
        self._program, self._at, self._loops = program, 0, []
        self.halted = self._shows_ready = False
        self._next = self._world.at(self._world.now_s, self._step)

    def go_on(self) -> None:
        """Go on after a halt."""
        self.halted = False
        self._next = self._world.at(self._world.now_s, self._step)

    def terminate(self) -> None:
        """Stop the plunger and the program; a valve that turns arrives."""
        speed = self.syringe.stop(self._world.now_s)
        self._end_program()
        if self._initializing:
            self._initializing = self.initialized = False
        if self._limits.knows_home and speed:
            # Stopped from a high speed, the rotor slips on: the counter no longer tells the truth.
            self.offset_steps += max(0.0, speed / self._ul_per_step - _SAFE_STOP_PER_S) * _SLIP_S

    def change_speed(self, top: int) -> int:
        """Change the top speed, also of a stroke that is under way; return 0 or an error."""
        if top not in self._limits.top:
            return INVALID_OPERAND
        self.speeds = (top, *self.speeds[1:])
        stroke = self.syringe.stroke
        if stroke is not None and self._next is not None and not self._initializing:
            now_s, speeds = self._world.now_s, self._plunger_speeds()
            goes_on = Speeds(
                speeds.top_ul_per_s, stroke.speed_ul_per_s(now_s), speeds.end_ul_per_s, speeds.slope_ul_per_s2
            )
            self._next.cancel()
            self._next = self._world.at(self.syringe.move(self._target_ul, now_s, goes_on), self._step)
        return 0

    def _step(self, now_s: float) -> None:
        """Do the program's next command; what takes time plans the one after it."""
        self._next = None
        self.look()
        if self._program is None:
            return
        if self._initializing:
            self._initializing, self.initialized, self.offset_steps = False, True, 0.0
        if self._at >= len(self._program):
            self._program = None
            return
        letter, numbers = self._program[self._at]
        self._at += 1
        try:
            end_s = self._execute(letter, numbers, now_s)
        except ProgramError as error:
            self._fail(error.code)
            return
        if not self.halted:
            self._next = self._world.at(end_s, self._step)

    def _execute(self, letter: str, numbers: tuple[int, ...], now_s: float) -> float:
        """Begin a command and return when it ends."""
        if letter in "ZY":
            return self._turn_to_empty(numbers, now_s)
        if letter == "W":
            return self._find_home(numbers, now_s)
        if letter in "AaPpDd":
            return self._move(letter, _one(numbers), now_s)
        if letter in "IOBE":
            return self._turn(self._port_of(letter, numbers), now_s)
        if letter == "M":
            return now_s + _one(numbers, range(30001)) / 1000
        if letter == "g":
            self._loops.append([self._at, -1])
        elif letter == "G":
            self._loop(_one(numbers))
        elif letter == "H":
            self.halted = True
        elif letter == "X":  # repeats a whole string, so it stands alone
            raise ProgramError(INVALID_SEQUENCE)
        else:
            self._set(letter, _one(numbers))
        return now_s + _COMMAND_S

    def _set(self, letter: str, number: int) -> None:
        top, start, end, slope = self.speeds
        limits = self._limits
        if letter == "V":
            top = _within(number, limits.top)
        elif letter == "S":
            top = _SPEED_CODES[_within(number, limits.code)]
        elif letter == "v":
            start = _within(number, limits.start)
        elif letter == "c":
            end = _within(number, limits.end)
        elif letter == "L":
            slope = _within(number, range(1, 21))
        elif letter == "K":
            self.backlash = _within(number, range(32))
        else:
            fine = bool(_within(number, range(2)))
            self.offset_steps *= (_FINE if fine else 1) / (_FINE if self._fine else 1)
            self._fine = fine
        self.speeds = (top, start, end, slope)

    def _loop(self, times: int) -> None:
        """Jump back to the begin of the innermost loop until it has run so often; 0 is without end."""
        loop = self._loops[-1]
        if loop[1] < 0:
            loop[1] = times or _WITHOUT_END
        loop[1] -= 1
        if loop[1] > 0:
            self._at = loop[0]
        else:
            self._loops.pop()

    def _turn_to_empty(self, numbers: tuple[int, ...], now_s: float) -> float:
        """Turn the valve to where the syringe is emptied at an initialisation: what `Z` does before `W`."""
        port = "O"
        if self._distribution:
            port = str(numbers[2] if len(numbers) > 2 and numbers[2] else len(self.syringe.ports))
        if port not in self.syringe.ports:
            raise ProgramError(INVALID_OPERAND)
        return self._turn(port, now_s)

    def _find_home(self, numbers: tuple[int, ...], now_s: float) -> float:
        force = numbers[0] if numbers else 0
        if 10 <= force < len(_SPEED_CODES):
            top: float = _SPEED_CODES[force]
        elif force in (0, 1, 2):
            top = _INIT_SPEED / (force + 1)
        elif self._limits.knows_home and force < 8:
            top = _INIT_SPEED
        else:
            raise ProgramError(INVALID_OPERAND)
        self.error = 0
        self._initializing = True
        barrels_per_s = top / (self._full_steps * self._limits.half_steps)
        return self.syringe.move(0.0, now_s, Speeds(barrels_per_s * self.syringe.barrel_ul)) + _FIND_HOME_S

    def _move(self, letter: str, number: int, now_s: float) -> float:
        if not self.initialized:
            raise ProgramError(NOT_INITIALIZED)
        here = self.counter_steps
        target = {"A": number, "P": here + number, "D": here - number}[letter.upper()]
        if not 0 <= target <= self.steps_of_stroke:
            raise ProgramError(INVALID_OPERAND)
        if self.syringe.port is None:
            raise ProgramError(MOVE_NOT_ALLOWED)
        if "supply_low" in self._disturbances:
            raise ProgramError(SUPPLY_LOW)
        true_steps = target - self.offset_steps
        if self._limits.knows_home and true_steps < -0.5:
            raise ProgramError(MAY_PASS_HOME)
        self._shows_ready = letter.islower()
        self._target_ul = true_steps * self._ul_per_step
        return self.syringe.move(self._target_ul, now_s, self._plunger_speeds())

    def _plunger_speeds(self) -> Speeds:
        unit_ul = self.syringe.barrel_ul / (self._full_steps * self._limits.half_steps)
        top, start, end, slope = self.speeds
        return Speeds(top * unit_ul, start * unit_ul, end * unit_ul, slope * _SLOPE_UNIT * unit_ul)

    def _port_of(self, letter: str, numbers: tuple[int, ...]) -> str | None:
        if self._distribution:
            port = str(_one(numbers)) if letter in "IO" else ""
        elif numbers:
            raise ProgramError(INVALID_OPERAND)
        elif letter == "B":
            return None
        else:
            port = letter
        if port not in self.syringe.ports:
            raise ProgramError(INVALID_OPERAND)
        return port

    def _turn(self, port: str | None, now_s: float) -> float:
        """Turn the pump's valve; until it arrives, the barrel is closed."""
        before = self.syringe.port
        if port == before:
            return now_s + _COMMAND_S
        self.valve_moves += 1
        if "valve_stuck" in self._disturbances:
            self.valve_stalls += 1
            self._valve_arrives_s = now_s + _VALVE_STALL_S
            self._world.at(self._valve_arrives_s, lambda at_s: self._fail(VALVE_OVERLOAD))
            return self._valve_arrives_s
        ports = 1
        if self._distribution and before is not None and port is not None:
            ahead = abs(int(port) - int(before))
            ports = min(ahead, len(self.syringe.ports) - ahead)
        self._valve_arrives_s = now_s + _VALVE_S + _PORT_S * ports
        self.syringe.port = None
        self._world.at(self._valve_arrives_s, lambda at_s: setattr(self.syringe, "port", port))
        return self._valve_arrives_s

    def _fail(self, code: int) -> None:
        self._end_program()
        self.error = code
        self._initializing = False
        if code in NEEDS_INIT:
            self.initialized = False

    def _end_program(self) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._program = None
        self.halted = self._shows_ready = False


def _one(numbers: tuple[int, ...], allowed: range | None = None) -> int:
    if len(numbers) != 1:
        raise ProgramError(INVALID_OPERAND)
    return numbers[0] if allowed is None else _within(numbers[0], allowed)


def _within(number: int, allowed: range) -> int:
    if number not in allowed:
        raise ProgramError(INVALID_OPERAND)
    return number
