"""What can go wrong with a device: the tree of errors that drivers raise and the run engine decides by.

::

    DeviceError
      LinkError        nothing can be said of the device: the line failed
        ReplyTimeout     no whole reply came before the deadline
        ChecksumError    a reply came, but its checksum is wrong
        FramingError     bytes came that are no reply
        Disconnected     the port is gone, or cannot be opened
        Interrupted      a stop went out while the reply was awaited; whether the command ran is not known
      DeviceFault      the device itself says that it failed, in a sound reply
        StallError       a motor stopped short of its target
        PositionError    a valve or stage is not where it was sent
        InterlockOpen    a laser's safety circuit is open
        OverTemperature  a part is too hot or too cold
        NotInitialized   it must be homed or initialised first
      LimitError       the request is outside what is allowed; nothing was sent
      Busy             the device is at work and takes no such command now; nothing was done
      Stopped          the action was ended by a stop

Only a `LinkError` may be answered by trying again, and only where the command changes nothing by being sent twice.
"""

from __future__ import annotations

from cartoseq.streaming.errors import CartoseqError


class DeviceError(CartoseqError):
    """A device did not do what was asked.

    Args:
        device: The device's name in the instrument file.
        problem: What was expected and what was found, with units.
        remedy: What to do about it: a full sentence.
        wire: The last bytes on the line, as `Transport.dump` writes them; for the journal, not for the message.
    """

    exit_code = 6

    def __init__(self, device: str, problem: str, *, remedy: str = "", wire: str = "") -> None:
        self.device = device
        self.problem = problem
        self.remedy = remedy
        self.wire = wire
        super().__init__(device, problem, remedy)

    def __str__(self) -> str:
        end = "" if self.problem.endswith((".", "?", "!")) else "."
        return f"{self.device}: {self.problem}{end}{f' {self.remedy}' if self.remedy else ''}"


class LinkError(DeviceError):
    """The line failed: nothing can be said of the device."""


class ReplyTimeout(LinkError):
    """No whole reply came before the deadline."""


class ChecksumError(LinkError):
    """A reply came whose checksum is wrong."""


class FramingError(LinkError):
    """Bytes came that are no reply of this protocol."""


class Disconnected(LinkError):
    """The port is gone, or cannot be opened."""


class Interrupted(LinkError):
    """A stop went out while the reply was awaited; whether the command ran is not known."""


class DeviceFault(DeviceError):
    """The device says, in a sound reply, that it failed.

    Args:
        device: The device's name.
        code: The device's own code: a number or letters, as its manual lists them.
        text: What the code means.
        remedy: What to do about it.
        wire: The last bytes on the line.
    """

    def __init__(self, device: str, code: str | int, text: str, *, remedy: str = "", wire: str = "") -> None:
        self.code = code
        self.text = text
        super().__init__(device, f"{text} (code {code})", remedy=remedy, wire=wire)


class StallError(DeviceFault):
    """A motor stopped short of its target."""


class PositionError(DeviceFault):
    """A valve or stage is not where it was sent."""


class InterlockOpen(DeviceFault):
    """A laser's safety circuit is open."""


class OverTemperature(DeviceFault):
    """A part is too hot or too cold."""


class NotInitialized(DeviceFault):
    """The device must be homed or initialised first."""


class LimitError(DeviceError):
    """The request is outside what is allowed; nothing was sent."""


class Busy(DeviceError):
    """The device is at work and takes no such command now; nothing was done."""


class Stopped(DeviceError):
    """The action was ended by a stop before it was done."""
