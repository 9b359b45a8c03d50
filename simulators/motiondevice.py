"""What simulated motion controllers have in common: commands in lines, replies in turn, axes, power, and their faults.

A controller is a `MotionDevice` that obeys whole commands (`obey`) and says what it is after power-on (`wake_up`). Its
device faults are its methods named ``fault_...``: their parameters are the fault's values, their first line says what
the fault does.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

from cartoseq.simulators.motion import Axis
from cartoseq.simulators.wire import Outbox


class MotionDevice(ABC):
    """A motion controller on a wire.

    Args:
        name: What it is called in the rack.
        axes: Its axes by name; names are upper case.
        latency_s: How long it takes over a command, from the command's last byte to the reply's first.
        ends: The bytes that end a command; an empty command is none.
        longest: How many bytes its command buffer holds.
    """

    def __init__(
        self, name: str, axes: Mapping[str, Axis], *, latency_s: float, ends: bytes = b"\r", longest: int = 128
    ) -> None:
        self.name = name
        self.axes = dict(axes)
        self.faults = {
            method.removeprefix("fault_"): (inspect.getdoc(getattr(self, method)) or "").split("\n")[0]
            for method in dir(self)
            if method.startswith("fault_")
        }
        self._latency_s = latency_s
        self._ends = ends
        self._longest = longest
        self._command = bytearray()
        self._too_long = False
        self._out = Outbox()
        self._free_s = -math.inf
        self._off_until_s = -math.inf
        self._busy_for_ever: set[str] = set()

    # ------------------------------------------------------------------------------------------- what each one must say

    @abstractmethod
    def obey(self, command: bytes, now_s: float) -> None:
        """Carry out a command, without its end."""

    @abstractmethod
    def overflow(self, now_s: float) -> None:
        """Answer a command that was longer than the buffer; it is lost."""

    @abstractmethod
    def wake_up(self, now_s: float) -> None:
        """Begin as after power-on: settings as they were made, no reference, and the banner if there is one."""

    def hear(self, byte: int, now_s: float) -> bool:
        """Take a byte that acts at once and belongs to no command; return whether it was one."""
        return False

    def next_event_s(self) -> float | None:
        """When something will happen in it without being told to, such as a report at the end of a move."""
        return None

    def advance(self, now_s: float) -> None:  # noqa: B027 - most have nothing of the kind
        """Let happen what was due by now."""

    # ------------------------------------------------------------------------------------------------- as a byte server

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host; a command may come in pieces."""
        self._catch_up(now_s)
        for byte in data:
            if not self.is_on(now_s) or self.hear(byte, now_s):
                continue
            if byte not in self._ends:
                if len(self._command) < self._longest:
                    self._command.append(byte)
                else:
                    self._too_long = True
                continue
            command, too_long = bytes(self._command), self._too_long
            self._forget_command()
            if too_long:
                self.overflow(now_s)
            elif command:
                self.obey(command, now_s)

    def due_s(self) -> float | None:
        """When there will next be something to send, or to happen."""
        if self._off_until_s > -math.inf:
            return self._off_until_s if math.isfinite(self._off_until_s) else None
        times = (self._out.due_s(), self.next_event_s())
        return min((time_s for time_s in times if time_s is not None), default=None)

    def messages(self, now_s: float) -> list[bytes]:
        """Whole messages that are due by now."""
        self._catch_up(now_s)
        return self._out.take(now_s)

    # ------------------------------------------------------------------------------------------------ as a simulation

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it.

        Raises:
            ValueError: it does not know the fault, or the values do not fit.
        """
        if fault not in self.faults:
            raise ValueError(f"{self.name} knows no fault {fault!r}; it knows {', '.join(sorted(self.faults))}")
        method = getattr(self, f"fault_{fault}")
        wanted = dict(list(inspect.signature(method, eval_str=True).parameters.items())[1:])
        for value_name, value in values.items():
            if value_name not in wanted:
                known = f"it takes {', '.join(wanted)}" if wanted else "it takes none"
                raise ValueError(f"fault {fault} of {self.name} takes no {value_name}; {known}")
            if wanted[value_name].annotation is str:
                if not isinstance(value, str):
                    raise ValueError(f"fault {fault} of {self.name}: {value_name} is a text, found {value!r}")
            elif isinstance(value, str | bool) or not math.isfinite(value):
                raise ValueError(f"fault {fault} of {self.name}: {value_name} is a finite number, found {value!r}")
        for value_name, parameter in wanted.items():
            if parameter.default is inspect.Parameter.empty and value_name not in values:
                raise ValueError(f"fault {fault} of {self.name} needs {value_name}")
        self._catch_up(now_s)
        method(now_s, **values)

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; what it did stays."""
        self._catch_up(now_s)
        self._busy_for_ever.clear()
        for axis in self.axes.values():
            axis.unblock(now_s)
        if self._off_until_s == math.inf:
            self._off_until_s = now_s
            self._catch_up(now_s)

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now, whatever it says on the wire."""
        self._catch_up(now_s)
        truth: dict[str, float | str | bool] = {"powered": self.is_on(now_s)}
        for name, axis in self.axes.items():
            truth[f"{name.lower()}_position_um"] = axis.position_um(now_s)
            truth[f"{name.lower()}_velocity_um_per_s"] = axis.velocity_um_per_s(now_s)
            truth[f"{name.lower()}_moving"] = axis.busy(now_s)
            truth[f"{name.lower()}_last_move"] = axis.outcome
        return truth

    # ----------------------------------------------------------------------------------------------- faults of them all

    def fault_busy_for_ever(self, now_s: float, axis: str = "") -> None:
        """It says of an axis (none given: of all) that it is busy, moving or not."""
        self._busy_for_ever |= {self.axis_name(axis)} if axis else set(self.axes)

    def fault_stall(self, now_s: float, axis: str, position_um: float) -> None:
        """A body at a position, in um from where the axis's travel counts, stops the motor there."""
        self.axes[self.axis_name(axis)].block(position_um, now_s)

    def fault_limit(self, now_s: float, axis: str, position_um: float) -> None:
        """A limit switch closes at a position within the travel, and the axis stops there."""
        self.axes[self.axis_name(axis)].shorten(position_um, now_s)

    def fault_jump(self, now_s: float, axis: str, by_um: float) -> None:
        """A joystick or a hand displaces an axis by so much."""
        self.axes[self.axis_name(axis)].jump(by_um, now_s)

    def fault_power_off(self, now_s: float) -> None:
        """It has no power until the fault is cleared: no motion, no reply, then everything as after power-on."""
        self._switch_off(now_s, math.inf)

    def fault_power_cycle(self, now_s: float, off_s: float = 1.0) -> None:
        """It loses power for so long: no motion, no reply, then everything as after power-on."""
        if off_s < 0:
            raise ValueError(f"fault power_cycle of {self.name}: off_s is at least 0, found {off_s}")
        self._switch_off(now_s, now_s + off_s)

    def fault_reset(self, now_s: float) -> None:
        """It starts anew by itself, as after power-on."""
        self._switch_off(now_s, now_s)

    # ---------------------------------------------------------------------------------------------- for the controllers

    def is_on(self, now_s: float) -> bool:
        """Whether it has power."""
        return now_s >= self._off_until_s

    def says_busy(self, name: str, now_s: float) -> bool:
        """Whether it takes an axis for busy."""
        return name in self._busy_for_ever or self.axes[name].busy(now_s)

    def axis_name(self, name: str) -> str:
        """Return the name of an axis as it is kept.

        Raises:
            ValueError: there is none.
        """
        if name.upper() not in self.axes:
            raise ValueError(f"{self.name} has no axis {name!r}; it has {', '.join(self.axes)}")
        return name.upper()

    def reply(self, message: bytes, now_s: float) -> None:
        """Answer a command: after the answers to those before it."""
        self._free_s = max(self._free_s, now_s) + self._latency_s
        self._out.put(self._free_s, message)

    def say(self, message: bytes, at_s: float) -> None:
        """Say something at a time of its own."""
        self._out.put(at_s, message)

    def _forget_command(self) -> None:
        self._command.clear()
        self._too_long = False

    def _switch_off(self, now_s: float, until_s: float) -> None:
        for axis in self.axes.values():
            axis.halt(now_s)
        self._out.clear()
        self._forget_command()
        self._free_s = -math.inf
        self._off_until_s = until_s
        self._catch_up(now_s)

    def _catch_up(self, now_s: float) -> None:
        if math.isfinite(self._off_until_s) and now_s >= self._off_until_s:
            begin_s, self._off_until_s = self._off_until_s, -math.inf
            self.wake_up(begin_s)
        if self.is_on(now_s):
            self.advance(now_s)
