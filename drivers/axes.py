"""An XY stage and a focus drive that are axes of one motion controller: all that is the same for every controller.

A driver has its controller's axes (`Axes`), and its own constructors of the two devices.
"""

from __future__ import annotations

from typing import Protocol

from cartoseq.drivers.capabilities import XY, Fault, Identity, Range, XYLimits


class Axes(Protocol):
    """One or two axes that move together, by their names."""

    @property
    def limits_um(self) -> dict[str, Range]:
        """The travel that each is allowed."""

    async def open(self) -> Identity:
        """Connect, and hold that the controller has the axes."""

    async def close(self) -> None:
        """Let go of the line."""

    async def positions_um(self) -> dict[str, float]:
        """Where they are."""

    async def move_to(self, target_um: dict[str, float]) -> None:
        """Move all of them, and return when they are at rest there."""

    async def home(self) -> None:
        """Find the reference position."""

    async def stop(self) -> None:
        """Stop them at once."""

    async def read_faults(self) -> list[Fault]:
        """What they complain of."""

    async def clear_faults(self) -> None:
        """Clear what can be cleared."""


class AxesStage:
    """XY stage made of two axes of a controller.

    Args:
        name: Of the device, in messages.
        axes: Its axes.
        x: What the controller calls X.
        y: What it calls Y.
    """

    def __init__(self, name: str, axes: Axes, *, x: str = "X", y: str = "Y") -> None:
        self.name = name
        self._axes = axes
        self._x, self._y = x, y

    @property
    def limits(self) -> XYLimits:
        """Allowed travel; at `open` it is narrowed to what the controller allows, if it keeps limits."""
        return XYLimits(self._axes.limits_um[self._x], self._axes.limits_um[self._y])

    async def open(self) -> Identity:
        """Connect, identify, set it up, and hold that the controller has the axes; what moves is stopped.

        Raises:
            InputError: the axes or limits in the instrument file do not fit.
            DeviceFault: another device answers.
            LinkError: nothing answers.
        """
        return await self._axes.open()

    async def close(self) -> None:
        """Let go of the line."""
        await self._axes.close()

    async def home(self) -> None:
        """Find the reference position.

        Raises:
            DeviceFault: it was not found, or the controller refuses.
            Stopped: a stop ended it.
            Busy: it moves already.
        """
        await self._axes.home()

    async def position(self) -> XY:
        """Where it is."""
        found_um = await self._axes.positions_um()
        return XY(found_um[self._x], found_um[self._y])

    async def move_to(self, x_um: float, y_um: float) -> None:
        """Move both axes at once and return when they are at rest at the target.

        Raises:
            LimitError: the target is outside the travel; nothing was sent.
            NotInitialized: the controller says that an axis must be homed first; nothing moved.
            StallError: an axis stopped short of the target.
            PositionError: an axis is somewhere else.
            DeviceFault: the controller refuses, an axis has a fault, or does not come to rest in time.
            Stopped: a stop ended it, or a hand at the joystick, where the controller tells of it.
            Busy: it moves already.
        """
        await self._axes.move_to({self._x: x_um, self._y: y_um})

    async def stop(self) -> None:
        """Stop at once, and return when it is at rest; some controllers stop all their axes."""
        await self._axes.stop()

    async def make_safe(self) -> None:
        """Stop."""
        await self._axes.stop()

    async def read_faults(self) -> list[Fault]:
        """What the controller complains of."""
        return await self._axes.read_faults()

    async def clear_faults(self) -> None:
        """Clear what the controller lets be cleared."""
        await self._axes.clear_faults()


class AxesFocus:
    """Focus drive made of one axis of a controller.

    Args:
        name: Of the device, in messages.
        axes: Its axis.
        z: What the controller calls it.
    """

    def __init__(self, name: str, axes: Axes, *, z: str = "Z") -> None:
        self.name = name
        self._axes = axes
        self._z = z

    @property
    def limits_um(self) -> Range:
        """Allowed travel; at `open` it is narrowed to what the controller allows, if it keeps limits."""
        return self._axes.limits_um[self._z]

    async def open(self) -> Identity:
        """Connect, identify, set it up, and hold that the controller has the axis. Raises as `AxesStage.open`."""
        return await self._axes.open()

    async def close(self) -> None:
        """Let go of the line."""
        await self._axes.close()

    async def position_um(self) -> float:
        """Where it is."""
        return (await self._axes.positions_um())[self._z]

    async def move_to_um(self, z_um: float) -> None:
        """Move and return when it is at rest at the target. Raises as `AxesStage.move_to`."""
        await self._axes.move_to({self._z: z_um})

    async def stop(self) -> None:
        """Stop at once, and return when it is at rest; some controllers stop all their axes."""
        await self._axes.stop()

    async def make_safe(self) -> None:
        """Stop."""
        await self._axes.stop()

    async def read_faults(self) -> list[Fault]:
        """What the controller complains of."""
        return await self._axes.read_faults()

    async def clear_faults(self) -> None:
        """Clear what the controller lets be cleared."""
        await self._axes.clear_faults()
