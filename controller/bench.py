"""The devices of an instrument by their roles, and how all of them are brought into their safe state."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
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
from cartoseq.drivers.errors import DeviceError, DeviceFault, Disconnected
from cartoseq.streaming.errors import InputError

#: How long one device may take to become safe before the next one's turn; the call goes on meanwhile.
SAFE_DEADLINE_S: Final = 5.0
#: A port that was lost may take so long to be there again, as a USB adapter does.
_REOPEN_S: Final = 3.0
_REOPEN_POLL_S: Final = 0.5


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
        lines: The names of the devices on each line, by the line's name, where that is not the device's.
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
    lines: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _reopening: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

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

    def named(self, name: str) -> list[Device]:
        """The device of that name, or those on the line of that name: errors name the one or the other."""
        return [device for device in self.devices() if device.name in (name, *self.lines.get(name, ()))]

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

    async def reopen(self, device: Device) -> None:
        """Open a device anew, as after its line was lost; a port that is just coming back is waited for.

        Raises:
            DeviceError: it does not answer, or is another one.
        """
        loop = asyncio.get_running_loop()
        limit_s = loop.time() + _REOPEN_S
        async with self._reopening:
            await device.close()
            while True:
                try:
                    await device.open()
                    return
                except InputError as error:  # what answers now is another device
                    raise DeviceFault(device.name, "identity", error.problem, remedy=error.remedy) from error
                except Disconnected:
                    if loop.time() + _REOPEN_POLL_S > limit_s:
                        raise
                await asyncio.sleep(_REOPEN_POLL_S)

    async def make_safe(self) -> dict[str, str]:
        """Bring every device into its safe state, all at once, each within its deadline; none is left out.

        A device whose line is lost is opened anew for it.

        Returns:
            What went wrong, by device; empty if all is safe.
        """
        return await self._make_all_safe(self.devices())

    async def lights_out(self) -> dict[str, str]:
        """Bring every laser into its safe state; see `make_safe`, but by the names that recipes call them."""
        failures = await self._make_all_safe(self.lasers.values())
        return {name: failures[laser.name] for name, laser in self.lasers.items() if laser.name in failures}

    async def _make_all_safe(self, chosen: Iterable[Device]) -> dict[str, str]:
        devices = list(chosen)
        failures = await asyncio.gather(*(self._make_one_safe(device) for device in devices))
        return {device.name: failure for device, failure in zip(devices, failures, strict=True) if failure}

    async def _make_one_safe(self, device: Device) -> str:
        try:
            async with asyncio.timeout(SAFE_DEADLINE_S):
                try:
                    await device.make_safe()
                except Disconnected:
                    await self.reopen(device)
                    await device.make_safe()
        except TimeoutError:
            return f"not known to be safe after {SAFE_DEADLINE_S:g} s"
        except (DeviceError, OSError) as error:
            return str(error)
        except Exception as error:  # a mistake in one driver must not keep the others from being heard of
            return f"{type(error).__name__}: {error}"
        return ""
