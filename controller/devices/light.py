"""Lasers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictInt

from cartoseq.controller.devices.tables import DeviceTable, Name, NotNegative, Positive, Role, Wire
from cartoseq.drivers.cobolt import CoboltLaser
from cartoseq.drivers.obis import ObisLaser
from cartoseq.drivers.smdlaser import HIGHEST_MW, SmdLaser


class ObisTable(DeviceTable):
    """A Coherent OBIS laser."""

    role: ClassVar[Role] = "laser"
    wire: ClassVar[Wire] = Wire("OBIS", 115_200)
    makes: ClassVar[Callable[..., Any]] = ObisLaser

    driver: Literal["obis_laser"]
    line: Name
    wavelength_nm: Positive
    max_power_mw: Positive
    min_power_mw: NotNegative = 0.0
    index: Annotated[StrictInt, Field(ge=1)] | None = None
    warm_up_s: NotNegative = 300.0

    def seats(self) -> frozenset[str]:
        """Its number at the Remote, if it has one."""
        return frozenset() if self.index is None else frozenset({f"head {self.index}"})


class CoboltTable(DeviceTable):
    """A Cobolt laser."""

    role: ClassVar[Role] = "laser"
    wire: ClassVar[Wire] = Wire("Cobolt", 115_200)
    makes: ClassVar[Callable[..., Any]] = CoboltLaser

    driver: Literal["cobolt_laser"]
    line: Name
    wavelength_nm: Positive
    max_power_mw: Positive
    min_power_mw: NotNegative = 0.0
    kind: Literal["diode", "dpss"] = "diode"
    start_s: Positive | None = None


class SmdTable(DeviceTable):
    """A laser of a HiSeq."""

    role: ClassVar[Role] = "laser"
    wire: ClassVar[Wire] = Wire("SMD", 9600)
    makes: ClassVar[Callable[..., Any]] = SmdLaser

    driver: Literal["smd_laser"]
    line: Name
    wavelength_nm: Positive
    max_power_mw: Annotated[StrictInt, Field(gt=0)] = HIGHEST_MW
    tolerance_mw: Positive = 3.0
    settle_s: Positive = 10.0
