"""All kinds of devices that an instrument file may name."""

from __future__ import annotations

from typing import Annotated, Final, get_args

from pydantic import Field

from cartoseq.controller.devices.fluidics import CavroPumpTable, ViciValveTable
from cartoseq.controller.devices.heat import Arm9SwitchTable, Arm9TemperatureTable, MeerstetterTable
from cartoseq.controller.devices.light import CoboltTable, ObisTable, SmdTable
from cartoseq.controller.devices.micromanager import (
    MicroManagerCameraTable,
    MicroManagerFocusTable,
    MicroManagerStageTable,
)
from cartoseq.controller.devices.motion import (
    AsiFocusTable,
    AsiStageTable,
    FpgaTable,
    HiSeqStageTable,
    ObjectiveTable,
    PriorFocusTable,
    PriorStageTable,
    TiltMotorTable,
    ZaberFocusTable,
    ZaberStageTable,
)
from cartoseq.controller.devices.scpi import PowerMeterTable, PulseGeneratorTable
from cartoseq.controller.devices.tables import DeviceTable

AnyDevice = Annotated[
    CavroPumpTable
    | ViciValveTable
    | MeerstetterTable
    | Arm9TemperatureTable
    | Arm9SwitchTable
    | AsiStageTable
    | AsiFocusTable
    | ZaberStageTable
    | ZaberFocusTable
    | PriorStageTable
    | PriorFocusTable
    | HiSeqStageTable
    | ObjectiveTable
    | TiltMotorTable
    | FpgaTable
    | ObisTable
    | CoboltTable
    | SmdTable
    | PowerMeterTable
    | PulseGeneratorTable
    | MicroManagerCameraTable
    | MicroManagerStageTable
    | MicroManagerFocusTable,
    Field(discriminator="driver"),
]
DRIVERS: Final[dict[str, type[DeviceTable]]] = {
    get_args(model.model_fields["driver"].annotation)[0]: model for model in get_args(get_args(AnyDevice)[0])
}
"""The kinds of devices, by what `driver` says."""
