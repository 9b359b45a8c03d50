"""What Micro-Manager drives: cameras, stages and focus axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal

from cartoseq.controller.devices.tables import DeviceTable, Name, Number, Parts, PartTable, Positive, Role, Travel
from cartoseq.drivers.mmcamera import MicroManagerCamera, TriggerSetting
from cartoseq.drivers.mmstage import MicroManagerFocus, MicroManagerStage


class TriggerTable(PartTable):
    """The property by which a camera is told what starts a picture."""

    makes: ClassVar[Callable[..., Any]] = TriggerSetting

    label: Name
    software: Name
    external: Name


class MicroManagerCameraTable(DeviceTable):
    """A camera of the Micro-Manager configuration."""

    role: ClassVar[Role] = "camera"
    makes: ClassVar[Callable[..., Any]] = MicroManagerCamera

    driver: Literal["micro_manager_camera"]
    label: Name = "Camera"
    trigger: TriggerTable | None = None
    trigger_timeout_s: Positive = 60.0

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """The core."""
        return (parts.core(),)


class MicroManagerStageTable(DeviceTable):
    """A stage of the Micro-Manager configuration."""

    role: ClassVar[Role] = "stage"
    makes: ClassVar[Callable[..., Any]] = MicroManagerStage

    driver: Literal["micro_manager_stage"]
    limits: Travel
    speed_um_per_s: Positive
    label: Name = "XY"
    tolerance_um: Positive = 1.0

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """The core."""
        return (parts.core(),)


class MicroManagerFocusTable(DeviceTable):
    """A focus drive of the Micro-Manager configuration."""

    role: ClassVar[Role] = "focus"
    makes: ClassVar[Callable[..., Any]] = MicroManagerFocus

    driver: Literal["micro_manager_focus"]
    low_um: Number
    high_um: Number
    speed_um_per_s: Positive
    label: Name = "Z"
    tolerance_um: Positive = 0.2

    def way(self, name: str, parts: Parts) -> tuple[object, ...]:
        """The core."""
        return (parts.core(),)


MICRO_MANAGER: Final = (MicroManagerCameraTable, MicroManagerStageTable, MicroManagerFocusTable)
