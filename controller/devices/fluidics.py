"""Pumps and valves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, StrictBool, StrictInt, StrictStr

from cartoseq.controller.devices.tables import DeviceTable, Name, Positive, Role, Wire
from cartoseq.controller.settingsfile import fault, shown
from cartoseq.drivers.cavro import PORTS, CavroPump
from cartoseq.drivers.cavrocodec import DialectName, Framing
from cartoseq.drivers.vici import ViciDialect, ViciValve


def _valve_command(value: object) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise fault(f"expected a port's number or a valve command, found {shown(value)}", 'Such as 3, "I" or "O3".')
    return value


ValveCommand = Annotated[Any, PlainValidator(_valve_command)]


class CavroPumpTable(DeviceTable):
    """A syringe pump of the Cavro family, or a Kloehn VersaPump."""

    role: ClassVar[Role] = "pump"
    wire: ClassVar[Wire] = Wire("Cavro", 9600)
    makes: ClassVar[Callable[..., Any]] = CavroPump

    driver: Literal["cavro_pump"]
    line: Name
    barrel_ul: Positive
    switch: Annotated[StrictInt, Field(ge=0, le=14)] = 0
    framing: Framing = "dt"
    dialect: DialectName = "cavro"
    repeats: DialectName | None = None
    steps_per_stroke: Annotated[StrictInt, Field(gt=0)] = 3000
    half_steps_per_stroke: Annotated[StrictInt, Field(gt=0)] | None = None
    step_mode: Literal[0, 1] | None = None
    ports: dict[Name, ValveCommand] = Field(default_factory=lambda: dict(PORTS), min_length=1)
    initialize: Name | None = None
    initialize_s: Positive = 60.0
    valve_s: Positive = 10.0
    max_flow_ul_per_s: Annotated[float, Field(strict=True, gt=0)] = math.inf
    reply_s: Positive = 0.5

    def spoken(self) -> Wire:
        """Pumps of both framings do not bear each other on one line."""
        return Wire(f"Cavro, {self.framing} framing", self.wire.baud_rate)

    def seats(self) -> frozenset[str]:
        """Its address."""
        return frozenset({f"switch {self.switch}"})


class ViciValveTable(DeviceTable):
    """A VICI selector valve."""

    role: ClassVar[Role] = "valve"
    wire: ClassVar[Wire] = Wire("VICI", 9600)
    makes: ClassVar[Callable[..., Any]] = ViciValve

    driver: Literal["vici_valve"]
    line: Name
    n_ports: Annotated[StrictInt, Field(ge=2, le=99)]
    dialect: ViciDialect = "universal"
    actuator_id: StrictStr = ""
    rs485: StrictBool = False
    port_s: Positive = 0.3
    reply_s: Positive = 0.3

    def seats(self) -> frozenset[str]:
        """Its ID on RS-485; on RS-232 a valve is alone."""
        return frozenset({f"ID {self.actuator_id}"}) if self.rs485 else frozenset()
