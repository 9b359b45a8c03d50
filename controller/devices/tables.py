"""What the tables of all devices have, and the values that stand in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StrictStr

from cartoseq.controller.settingsfile import fault, shown
from cartoseq.controller.toml_lines import KeyPath
from cartoseq.drivers.capabilities import Device, Range, XYLimits
from cartoseq.drivers.hiseqfpga import HiSeqFpga
from cartoseq.drivers.mmcore import MicroManagerCore
from cartoseq.drivers.transport import Transport

Role = Literal["pump", "valve", "temperature", "stage", "focus", "camera", "laser", "meter", "other"]


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _range(value: object) -> Range:
    if not (isinstance(value, list) and len(value) == 2 and all(map(is_number, value))):
        raise fault(f"expected two numbers, found {shown(value)}", "Write both ends of the range: [low, high].")
    if not value[0] < value[1]:
        raise fault(f"the range from {value[0]:g} to {value[1]:g} is empty", "Write the lower end first.")
    return Range(float(value[0]), float(value[1]))


Name = Annotated[StrictStr, Field(min_length=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Limits = Annotated[Range, PlainValidator(_range)]


class Parts(Protocol):
    """What a device is put together from; every line, board and core is there once, whoever shares it."""

    def transport(self, line: str) -> Transport:
        """The transport of a line."""

    def fpga(self, line: str) -> HiSeqFpga:
        """The FPGA of a HiSeq on a line."""

    def core(self) -> MicroManagerCore:
        """Micro-Manager's core."""


@dataclass(frozen=True)
class Wire:
    """What is spoken on a device's line, as its maker ships it.

    Attributes:
        protocol: Devices of one protocol may share a line.
        baud_rate: Of a serial port.
        silence_s: See `Transport`.
        n_ports: How many ports make the line.
    """

    protocol: str
    baud_rate: int
    silence_s: float = 0.02
    n_ports: int = 1


@dataclass(frozen=True)
class Plug:
    """Where a device is on a line.

    Attributes:
        key: The key that names the line, within the device's table.
        line: The line's name.
        wire: What is spoken on it.
        seats: What the device occupies of the line: addresses, axes. Nothing: all of it.
    """

    key: KeyPath
    line: str
    wire: Wire
    seats: frozenset[str]


class PartTable(BaseModel):
    """A table of settings that becomes an object of the class `makes`, given those that are no key of our own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    makes: ClassVar[Callable[..., Any]]
    own: ClassVar[frozenset[str]] = frozenset({"driver", "line"})

    def settings(self) -> dict[str, Any]:
        """The keyword arguments."""
        given = {key: getattr(self, key) for key in type(self).model_fields if key not in self.own}
        return {key: value.made() if isinstance(value, PartTable) else value for key, value in given.items()}

    def made(self) -> Any:
        """The object, where its settings are all that it needs."""
        return type(self).makes(**self.settings())


class DeviceTable(PartTable):
    """What the tables of all devices have; here for those that are on one line, others say otherwise."""

    role: ClassVar[Role] = "other"
    wire: ClassVar[Wire]

    def spoken(self) -> Wire:
        """What is spoken on its line."""
        return type(self).wire

    def seats(self) -> frozenset[str]:
        """What it occupies of its line; nothing: all of it."""
        return frozenset()

    def plugs(self) -> tuple[Plug, ...]:
        """The lines that it is on."""
        line: str | None = getattr(self, "line", None)
        return (Plug(("line",), line, self.spoken(), self.seats()),) if line else ()

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """What the driver reaches its device by."""
        return tuple(parts.transport(plug.line) for plug in self.plugs())

    def make(self, name: str, parts: Parts) -> Device:
        """Make the driver; nothing is opened.

        Raises:
            InputError: a setting is none that the device could have.
        """
        device = type(self).makes(*self.way(name, parts), name, **self.settings())
        assert isinstance(device, Device)
        return device


class Travel(PartTable):
    """Allowed travel of a stage, along both axes."""

    makes: ClassVar[Callable[..., Any]] = XYLimits
    x_um: Limits
    y_um: Limits
