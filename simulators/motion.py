"""How an axis moves: constant acceleration, constant speed, constant deceleration; exact at any time that is asked for.

Nothing here steps through time. A move is planned when it begins, as a few phases of constant acceleration, and asked
where it is afterwards. A new target, a stop or a wall in the way changes the plan from the place and speed of that
moment. Lengths are in micrometres, times in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

#: How a move ended, or will end. A `limit` is the end of the travel; `stalled` is a body in the way.
Outcome = Literal["arrived", "stopped", "limit", "stalled"]

#: A move that would go less than this beyond a wall, by rounding, comes to rest at it.
_TOUCH_UM: Final = 1e-6


@dataclass(frozen=True)
class Phase:
    """A stretch of constant acceleration.

    Attributes:
        begin_s: When it begins.
        duration_s: How long it lasts.
        position_um: Where it begins.
        velocity_um_per_s: Velocity at its beginning.
        acceleration_um_per_s2: Acceleration throughout.
    """

    begin_s: float
    duration_s: float
    position_um: float
    velocity_um_per_s: float
    acceleration_um_per_s2: float

    def position_at_um(self, after_s: float) -> float:
        """Where it is, so long after it began."""
        return self.position_um + after_s * (self.velocity_um_per_s + self.acceleration_um_per_s2 * after_s / 2)

    def velocity_at_um_per_s(self, after_s: float) -> float:
        """How fast it is, so long after it began."""
        return self.velocity_um_per_s + self.acceleration_um_per_s2 * after_s


@dataclass(frozen=True)
class Path:
    """A whole move: phases that join without a jump in place or speed, and rest after them.

    Attributes:
        phases: In order of time; none for an axis at rest.
        end_s: When it comes to rest.
        end_um: Where.
        outcome: How it ends.
    """

    phases: tuple[Phase, ...]
    end_s: float
    end_um: float
    outcome: Outcome

    def position_um(self, now_s: float) -> float:
        """Where it is."""
        phase = self._phase(now_s)
        return self.end_um if phase is None else phase.position_at_um(now_s - phase.begin_s)

    def velocity_um_per_s(self, now_s: float) -> float:
        """How fast it is; 0 at rest."""
        phase = self._phase(now_s)
        return 0.0 if phase is None else phase.velocity_at_um_per_s(now_s - phase.begin_s)

    def acceleration_um_per_s2(self, now_s: float) -> float:
        """Its acceleration; 0 at rest and at constant speed."""
        phase = self._phase(now_s)
        return 0.0 if phase is None else phase.acceleration_um_per_s2

    def _phase(self, now_s: float) -> Phase | None:
        """The phase that runs, or none at rest."""
        if now_s >= self.end_s:
            return None
        running = None
        for phase in self.phases:
            if phase.begin_s <= now_s:
                running = phase
        return running


def rest(position_um: float, since_s: float, outcome: Outcome = "arrived") -> Path:
    """Return the path of an axis that stands still."""
    return Path((), since_s, position_um, outcome)


def plan_stop(position_um: float, velocity_um_per_s: float, now_s: float, deceleration_um_per_s2: float) -> Path:
    """Plan to come to rest as soon as the deceleration allows; an infinite one stops on the spot."""
    if velocity_um_per_s == 0.0 or math.isinf(deceleration_um_per_s2):
        return rest(position_um, now_s, "stopped")
    duration_s = abs(velocity_um_per_s) / deceleration_um_per_s2
    braking = Phase(
        now_s, duration_s, position_um, velocity_um_per_s, -math.copysign(deceleration_um_per_s2, velocity_um_per_s)
    )
    return Path((braking,), now_s + duration_s, position_um + velocity_um_per_s * duration_s / 2, "stopped")


def plan_move(
    position_um: float,
    velocity_um_per_s: float,
    target_um: float,
    now_s: float,
    *,
    speed_um_per_s: float,
    acceleration_um_per_s2: float,
    deceleration_um_per_s2: float,
) -> Path:
    """Plan the quickest way to rest at a target.

    An axis that moves away from the target, or too fast to stop before it, is brought to rest first and comes back.

    Args:
        position_um: Where it is.
        velocity_um_per_s: How fast it is, with sign.
        target_um: Where it shall rest.
        now_s: When the plan begins.
        speed_um_per_s: Greatest speed; a faster axis slows down to it.
        acceleration_um_per_s2: For gaining speed.
        deceleration_um_per_s2: For losing it.
    """
    phases: list[Phase] = []
    braking_um = velocity_um_per_s * abs(velocity_um_per_s) / (2 * deceleration_um_per_s2)
    distance_um = target_um - position_um
    if velocity_um_per_s * distance_um < 0 or abs(braking_um) > abs(distance_um):
        first = plan_stop(position_um, velocity_um_per_s, now_s, deceleration_um_per_s2)
        phases.extend(first.phases)
        position_um, velocity_um_per_s, now_s = first.end_um, 0.0, first.end_s
        distance_um = target_um - position_um
    if distance_um == 0.0:
        return Path(tuple(phases), now_s, target_um, "arrived")
    sign = math.copysign(1.0, distance_um)
    distance_um, speed = abs(distance_um), abs(velocity_um_per_s)
    up, down = acceleration_um_per_s2, deceleration_um_per_s2
    peak = min(speed_um_per_s, math.sqrt((2 * up * down * distance_um + down * speed**2) / (up + down)))
    change = up if peak >= speed else -down
    change_s = (peak - speed) / change
    brake_s = peak / down
    cruise_um = distance_um - (speed + peak) / 2 * change_s - peak / 2 * brake_s
    cruise_s = max(0.0, cruise_um) / peak
    for duration_s, begin_speed, acceleration in (
        (change_s, speed, change),
        (cruise_s, peak, 0.0),
        (brake_s, peak, -down),
    ):
        if duration_s > 0:
            phase = Phase(now_s, duration_s, position_um, sign * begin_speed, sign * acceleration)
            phases.append(phase)
            position_um, now_s = phase.position_at_um(duration_s), now_s + duration_s
    return Path(tuple(phases), now_s, target_um, "arrived")


def end_at_wall(path: Path, wall_um: float, side: Literal[-1, 1], since_s: float, outcome: Outcome) -> Path:
    """Return the path as it ends where it first runs into a wall.

    Args:
        path: The path as planned.
        wall_um: Where the wall is; the axis stands before it or at it at `since_s`.
        side: 1 for a wall towards greater positions, -1 for one towards smaller.
        since_s: From when on the wall is there.
        outcome: How a path that meets it ends.
    """
    for number, phase in enumerate(path.phases):
        begin_s = max(since_s, phase.begin_s)
        end_s = phase.begin_s + phase.duration_s
        if begin_s >= end_s:
            continue
        hit_s = _reaches(phase, wall_um, side, begin_s - phase.begin_s)
        if hit_s is not None:
            return Path(path.phases[: number + 1], phase.begin_s + hit_s, wall_um, outcome)
    return path


def _reaches(phase: Phase, wall_um: float, side: int, from_s: float) -> float | None:
    """How long after its beginning, and not before `from_s`, a phase moves through a wall towards its side."""
    # In the wall's own frame the wall is at 0, and to move through it is to become positive.
    offset = side * (phase.position_um - wall_um)
    velocity = side * phase.velocity_um_per_s
    half = side * phase.acceleration_um_per_s2 / 2

    def moves_in(after_s: float) -> bool:
        speed = velocity + 2 * half * after_s
        if half < 0:  # one that comes to rest at the wall does not run into it
            return speed > 0 and speed * speed > -4 * half * _TOUCH_UM
        return speed > 0 or (speed == 0 and half > 0)

    if offset + from_s * (velocity + half * from_s) >= 0 and moves_in(from_s):
        return from_s
    roots: Sequence[float]
    if half == 0:
        roots = () if velocity == 0 else (-offset / velocity,)
    else:
        under = velocity**2 - 4 * half * offset
        if under < 0:
            return None
        # The two roots without the loss of digits of the school formula.
        q = -(velocity + math.copysign(math.sqrt(under), velocity)) / 2
        roots = sorted(({q / half} if half else set()) | ({offset / q} if q else set()))
    for root in roots:
        if from_s < root < phase.duration_s and moves_in(root):
            return root
    return None


class Axis:
    """One motor axis between two ends.

    Its speed and accelerations may be set at any time and hold for the next move.

    Args:
        low_um: The lower end of the travel.
        high_um: The upper end.
        speed_um_per_s: Greatest speed of a move.
        acceleration_um_per_s2: For gaining speed.
        deceleration_um_per_s2: For losing it; the same, if not given.
        position_um: Where it stands at first.

    Raises:
        ValueError: the travel is empty, or the axis would stand outside it, or could not move.
    """

    def __init__(
        self,
        low_um: float,
        high_um: float,
        *,
        speed_um_per_s: float,
        acceleration_um_per_s2: float,
        deceleration_um_per_s2: float | None = None,
        position_um: float = 0.0,
    ) -> None:
        if not low_um <= position_um <= high_um or low_um == high_um:
            raise ValueError(f"a position within a travel, found {position_um} um of {low_um} to {high_um} um")
        if deceleration_um_per_s2 is None:
            deceleration_um_per_s2 = acceleration_um_per_s2
        if min(speed_um_per_s, acceleration_um_per_s2, deceleration_um_per_s2) <= 0:
            raise ValueError("speed and accelerations above 0")
        self.low_um = low_um
        self.high_um = high_um
        self.speed_um_per_s = speed_um_per_s
        self.acceleration_um_per_s2 = acceleration_um_per_s2
        self.deceleration_um_per_s2 = deceleration_um_per_s2
        self._plan = self._path = rest(position_um, -math.inf)
        self._target_um = position_um
        self._body_low_um = -math.inf
        self._body_high_um = math.inf
        self._end_low_um = -math.inf
        self._end_high_um = math.inf

    # -------------------------------------------------------------------------------------------------- what is true

    def position_um(self, now_s: float) -> float:
        """Where it is."""
        return self._path.position_um(now_s)

    def velocity_um_per_s(self, now_s: float) -> float:
        """How fast it is, with sign."""
        return self._path.velocity_um_per_s(now_s)

    def acceleration_at_um_per_s2(self, now_s: float) -> float:
        """Its acceleration now, with sign."""
        return self._path.acceleration_um_per_s2(now_s)

    def busy(self, now_s: float) -> bool:
        """Whether it moves."""
        return now_s < self._path.end_s

    @property
    def end_s(self) -> float:
        """When the last move ends, or has ended, by what is known now; minus infinity before the first."""
        return self._path.end_s

    @property
    def outcome(self) -> Outcome:
        """How the last move ends, or has ended."""
        return self._path.outcome

    @property
    def target_um(self) -> float:
        """Where the last move was sent to; after a stop, where that ends."""
        return self._target_um

    def at_low_end(self, now_s: float) -> bool:
        """Whether the lower limit switch is closed."""
        return self.position_um(now_s) <= max(self.low_um, self._end_low_um)

    def at_high_end(self, now_s: float) -> bool:
        """Whether the upper limit switch is closed."""
        return self.position_um(now_s) >= min(self.high_um, self._end_high_um)

    # ------------------------------------------------------------------------------------------------- what it is told

    def move_to(self, target_um: float, now_s: float) -> None:
        """Move to a target; one beyond the travel's end ends there."""
        self._target_um = target_um
        self._follow(self._planned(self.position_um(now_s), now_s), now_s)

    def stop(self, now_s: float, deceleration_um_per_s2: float | None = None) -> None:
        """Come to rest with the axis's own deceleration or another; at rest, nothing happens."""
        if self.busy(now_s):
            deceleration = deceleration_um_per_s2 or self.deceleration_um_per_s2
            plan = plan_stop(self.position_um(now_s), self.velocity_um_per_s(now_s), now_s, deceleration)
            self._target_um = plan.end_um
            self._follow(plan, now_s)

    def halt(self, now_s: float) -> None:
        """Stop on the spot."""
        self.stop(now_s, math.inf)

    # --------------------------------------------------------------------------------------------- what is done to it

    def jump(self, by_um: float, now_s: float) -> None:
        """Displace it, as by a joystick or a hand; a move that runs goes on to its target from there."""
        low_um, high_um = self._walls()
        position_um = min(max(self.position_um(now_s) + by_um, low_um), high_um)
        if self.busy(now_s):
            self._follow(self._planned(position_um, now_s), now_s)
        else:
            self._plan = self._path = rest(position_um, self.end_s, self.outcome)

    def block(self, at_um: float, now_s: float) -> None:
        """Put a body in the way: the axis cannot pass it from where it is now. One that it stands on holds it fast."""
        position_um = self.position_um(now_s)
        if at_um >= position_um:
            self._body_high_um = min(self._body_high_um, at_um)
        if at_um <= position_um:
            self._body_low_um = max(self._body_low_um, at_um)
        self._follow(self._path, now_s)

    def shorten(self, at_um: float, now_s: float) -> None:
        """Put a limit switch where none should be: the travel now ends there, on the side away from the axis."""
        if at_um >= self.position_um(now_s):
            self._end_high_um = min(self._end_high_um, at_um)
        else:
            self._end_low_um = max(self._end_low_um, at_um)
        self._follow(self._path, now_s)

    def unblock(self, now_s: float) -> None:
        """Take bodies and wrong limit switches away; a move that has not met them yet goes on as planned."""
        self._body_low_um = self._end_low_um = -math.inf
        self._body_high_um = self._end_high_um = math.inf
        if self.busy(now_s):
            self._follow(self._plan, now_s)

    def _walls(self) -> tuple[float, float]:
        return (
            max(self.low_um, self._body_low_um, self._end_low_um),
            min(self.high_um, self._body_high_um, self._end_high_um),
        )

    def _planned(self, from_um: float, now_s: float) -> Path:
        return plan_move(
            from_um,
            self.velocity_um_per_s(now_s),
            self._target_um,
            now_s,
            speed_um_per_s=self.speed_um_per_s,
            acceleration_um_per_s2=self.acceleration_um_per_s2,
            deceleration_um_per_s2=self.deceleration_um_per_s2,
        )

    def _follow(self, plan: Path, now_s: float) -> None:
        """Take a plan up, as far as the walls let it go."""
        if plan is not self._path:
            self._plan = plan
        low_um, high_um = self._walls()
        low_outcome: Outcome = "stalled" if low_um == self._body_low_um else "limit"
        high_outcome: Outcome = "stalled" if high_um == self._body_high_um else "limit"
        path = end_at_wall(plan, high_um, 1, now_s, high_outcome)
        other = end_at_wall(plan, low_um, -1, now_s, low_outcome)
        self._path = other if other.end_s < path.end_s else path
