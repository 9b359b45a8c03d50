"""Temperature controllers, and what else hangs on a HiSeq's chemistry board."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictInt

from cartoseq.controller.devices.tables import DeviceTable, Name, Number, Positive, Role, Wire
from cartoseq.drivers.arm9chem import Arm9Switch, Arm9Temperature, Part
from cartoseq.drivers.meerstetter import MeerstetterTec


class MeerstetterTable(DeviceTable):
    """A channel of a Meerstetter TEC controller."""

    role: ClassVar[Role] = "temperature"
    wire: ClassVar[Wire] = Wire("MeCom", 57_600)
    makes: ClassVar[Callable[..., Any]] = MeerstetterTec

    driver: Literal["meerstetter_tec"]
    line: Name
    address: Annotated[StrictInt, Field(ge=0, le=254)] = 2
    channel: Annotated[StrictInt, Field(ge=1)] = 1
    low_c: Number = 4.0
    high_c: Number = 95.0
    sink_limit_c: Number = 60.0

    def seats(self) -> frozenset[str]:
        """Its channel; address 0 is for a controller that is alone."""
        return frozenset({f"channel {self.channel} of address {self.address}"}) if self.address else frozenset()


class Arm9TemperatureTable(DeviceTable):
    """A flow cell or a chiller block at the chemistry board of a HiSeq."""

    role: ClassVar[Role] = "temperature"
    wire: ClassVar[Wire] = Wire("ARM9CHEM", 115_200)
    makes: ClassVar[Callable[..., Any]] = Arm9Temperature

    driver: Literal["arm9_temperature"]
    line: Name
    part: Part
    channel: Annotated[StrictInt, Field(ge=0, le=2)]
    low_c: Number | None = None
    high_c: Number | None = None
    stable_c: Positive = 0.5
    gains: dict[Literal["P", "I", "D", "S", "F"], Number] | None = None

    def seats(self) -> frozenset[str]:
        """Its channel of the board."""
        return frozenset({f"{self.part} {self.channel}"})


class Arm9SwitchTable(DeviceTable):
    """Vacuum pump or shut-off valve at the chemistry board of a HiSeq."""

    wire: ClassVar[Wire] = Arm9TemperatureTable.wire
    makes: ClassVar[Callable[..., Any]] = Arm9Switch

    driver: Literal["arm9_switch"]
    line: Name
    part: Literal["vacuum", "shutoff"]

    def seats(self) -> frozenset[str]:
        """Its part of the board."""
        return frozenset({self.part})
