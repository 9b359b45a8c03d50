"""Instruments that speak SCPI, on a line or through VISA: power meters and pulse generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StrictInt, StrictStr, model_validator

from cartoseq.controller.devices.tables import DeviceTable, Name, Number, Parts, Role, Wire
from cartoseq.controller.settingsfile import fault
from cartoseq.drivers.pm100 import ThorlabsPowerMeter
from cartoseq.drivers.pulsegenerator import PulseGenerator
from cartoseq.drivers.scpi import LineSession, ScpiSession
from cartoseq.drivers.visa import VisaSession


def _session(name: str, line: str | None, resource: str | None, library: str, parts: Parts) -> ScpiSession:
    if line is not None:
        return LineSession(parts.transport(line))
    assert resource is not None
    return VisaSession(name, resource, library=library)


def _one_way(line: str | None, resource: str | None) -> None:
    if (line is None) == (resource is None):
        raise fault(
            "expected either a line or a VISA resource",
            'Write line = "..." for a serial port or a TCP port, or resource = "USB0::...::INSTR".',
        )


class PowerMeterTable(DeviceTable):
    """A Thorlabs power meter."""

    role: ClassVar[Role] = "meter"
    wire: ClassVar[Wire] = Wire("SCPI", 115_200)
    makes: ClassVar[Callable[..., Any]] = ThorlabsPowerMeter
    own: ClassVar[frozenset[str]] = frozenset({"driver", "line", "resource", "library"})

    driver: Literal["thorlabs_power_meter"]
    line: Name | None = None
    resource: Name | None = None
    library: StrictStr = "@py"
    average_count: Annotated[StrictInt, Field(ge=1)] = 10

    @model_validator(mode="after")
    def _check(self) -> Self:
        _one_way(self.line, self.resource)
        return self

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """An SCPI session."""
        return (_session(name, self.line, self.resource, self.library, parts),)


class PulseGeneratorTable(DeviceTable):
    """A generator of trigger pulses."""

    wire: ClassVar[Wire] = PowerMeterTable.wire
    makes: ClassVar[Callable[..., Any]] = PulseGenerator
    own: ClassVar[frozenset[str]] = PowerMeterTable.own

    driver: Literal["pulse_generator"]
    line: Name | None = None
    resource: Name | None = None
    library: StrictStr = "@py"
    high_v: Number = 5.0
    low_v: Number = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        _one_way(self.line, self.resource)
        return self

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """An SCPI session."""
        return (_session(name, self.line, self.resource, self.library, parts),)
