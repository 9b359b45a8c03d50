"""The devices of an instrument by their roles, and how all of them are brought into their safe state."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cartoseq.drivers.capabilities import (
    Camera,
    Device,
    FocusStage,
    Identity,
    Laser,
    PowerMeter,
    SelectorValve,
    SyringePump,
    TemperatureController,
    XYStage,
)
from cartoseq.drivers.errors import DeviceError

#: How long one device may take to become safe before the next one's turn; the call goes on meanwhile.
SAFE_DEADLINE_S: Final = 5.0


@dataclass
class Bench:
    """The devices of an instrument.

    Attributes:
        pump: Draws through the flow cell.
        valve: Chooses the bottle.
        temperature: Of the flow cell.
        stage: Moves the chip under the objective.
        focus: Moves the objective.
        camera: Takes pictures.
        lasers: By name.
        meters: By name.
        others: What no recipe asks for (a chiller, a second stage), made safe with the rest; by name.
        flow_cell_port: The port of the pump's own valve that leads through the flow cell.
        waste_port: The one that leads to waste.
        waste_flow_ul_per_s: How fast the syringe is emptied.
    """

    pump: SyringePump | None = None
    valve: SelectorValve | None = None
    temperature: TemperatureController | None = None
    stage: XYStage | None = None
    focus: FocusStage | None = None
    camera: Camera | None = None
    lasers: dict[str, Laser] = field(default_factory=dict)
    meters: dict[str, PowerMeter] = field(default_factory=dict)
    others: dict[str, Device] = field(default_factory=dict)
    flow_cell_port: str = "input"
    waste_port: str = "output"
    waste_flow_ul_per_s: float = 100.0

    def devices(self) -> Iterator[Device]:
        """Every device once, in the order in which they are made safe: light, pumps, motion, heat, the rest."""
        found = [
            *self.lasers.values(),
            self.pump,
            self.stage,
            self.focus,
            self.temperature,
            self.camera,
            self.valve,
            *self.meters.values(),
            *self.others.values(),
        ]
        seen: set[int] = set()
        for device in found:
            if device is not None and id(device) not in seen:
                seen.add(id(device))
                yield device

    async def open(self) -> dict[str, Identity]:
        """Open every device; if one fails, close those that are open and raise.

        Raises:
            DeviceError: a device does not answer, or is another one.
        """
        identities: dict[str, Identity] = {}
        opened: list[Device] = []
        try:
            for device in self.devices():
                identities[device.name] = await device.open()
                opened.append(device)
        except BaseException:
            for device in opened:
                await device.close()
            raise
        return identities

    async def close(self) -> None:
        """Close every device."""
        for device in self.devices():
            await device.close()

    async def make_safe(self) -> dict[str, str]:
        """Bring every device into its safe state, all at once, each within its deadline; none is left out.

        Returns:
            What went wrong, by device; empty if all is safe.
        """
        devices = list(self.devices())
        failures = await asyncio.gather(*(self._make_one_safe(device) for device in devices))
        return {device.name: failure for device, failure in zip(devices, failures, strict=True) if failure}

    async def _make_one_safe(self, device: Device) -> str:
        try:
            async with asyncio.timeout(SAFE_DEADLINE_S):
                await device.make_safe()
        except TimeoutError:
            return f"not known to be safe after {SAFE_DEADLINE_S:g} s"
        except (DeviceError, OSError) as error:
            return str(error)
        return ""
