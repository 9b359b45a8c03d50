"""What must be so for a run to go on: temperature, laser safety circuits, disk, base calls on their way, devices.

Each function makes one `engine.Suspender`: the engine asks it again and again, holds the run while something is wrong,
and goes on when it has been right for a while. A chemistry that is under way goes on in its own time.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cartoseq.controller.engine import EndReason, Suspender
from cartoseq.drivers.capabilities import Device, Laser, TemperatureController
from cartoseq.drivers.errors import LinkError

#: How far the flow cell may be off its target once it has been there.
BAND_C: Final = 2.0
#: A run holds when less is free: enough for what is under way, the journal included.
LEAST_FREE_BYTES: Final = 256 << 20
_READINGS: Final = 2


def temperature_in_band(
    controller: TemperatureController,
    wanted_c: Callable[[], float | None],
    *,
    band_c: float = BAND_C,
    every_s: float = 1.0,
) -> Suspender:
    """Hold while the flow cell is off its target, once it has been there; a ramp to a new target is no fault.

    Args:
        controller: Measures.
        wanted_c: The target that the run has set, or nothing where it regulates none.
        band_c: How far off is too far; a single reading may be a disturbance, a second one is not.
        every_s: How often it is measured.
    """
    reached_c: float | None = None
    outside = 0

    async def check() -> str:
        nonlocal reached_c, outside
        target_c = wanted_c()
        if target_c is None:
            reached_c, outside = None, 0
            return ""
        found_c = await controller.temperature_c()
        if abs(found_c - target_c) <= band_c:
            reached_c, outside = target_c, 0
        elif reached_c == target_c:
            outside += 1
        else:
            outside = 0
        if outside < _READINGS:
            return ""
        return f"{controller.name}: {found_c:.1f} C, more than {band_c:g} C off the target of {target_c:g} C"

    return Suspender("temperature", check, every_s, reason=EndReason.TEMPERATURE_OUT_OF_RANGE, settle_s=10.0)


def circuits_closed(lasers: Mapping[str, Laser], *, every_s: float = 1.0) -> Suspender:
    """Hold while the safety circuit of a laser is open; closed again, the run waits for the operator.

    Args:
        lasers: By name.
        every_s: How often they are asked.
    """

    async def check() -> str:
        open_ones = [name for name, laser in lasers.items() if not await laser.interlock_ok()]
        return f"the safety circuit of {_and(open_ones)} is open" if open_ones else ""

    return Suspender("interlock", check, every_s, reason=EndReason.INTERLOCK, ask=True)


def disk_free(
    folder: Path,
    least_bytes: int = LEAST_FREE_BYTES,
    *,
    every_s: float = 5.0,
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Suspender:
    """Hold while the disk that the run writes to is nearly full.

    Args:
        folder: The run's.
        least_bytes: So much must be free.
        every_s: How often it is asked.
        free_bytes: Tells what is free.
    """

    async def check() -> str:
        free = await asyncio.to_thread(free_bytes, folder)
        if free >= least_bytes:
            return ""
        return f"{folder}: {free / 1e9:.2f} GB are free on its disk, and {least_bytes / 1e9:.2f} GB must be"

    return Suspender("disk", check, every_s, reason=EndReason.DISK_FULL)


def base_calls_taken(waiting: Callable[[], int], most: int, *, every_s: float = 5.0) -> Suspender:
    """Hold while more base calls wait to be kept than may; go on when half of them are.

    Args:
        waiting: Base calls that were made and are not safe yet.
        most: So many may wait.
        every_s: How often it is asked.
    """
    behind = False

    async def check() -> str:
        nonlocal behind
        count = waiting()
        behind = count > (most // 2 if behind else most)
        return f"{count:,} base calls wait to be written, and {most:,} may" if behind else ""

    return Suspender("backlog", check, every_s, reason=EndReason.DATA_PATH_STALLED)


def devices_well(devices: Sequence[Device], *, every_s: float = 10.0) -> Suspender:
    """Hold while a device reports a severe fault or does not answer, or until the operator resumes; see `Suspender`.

    One lost answer is none. A device whose line is gone is opened again by the engine, as soon as that works.

    Args:
        devices: All that the run needs.
        every_s: How often they are asked.
    """

    async def check() -> str:
        lost: LinkError | None = None
        for device in devices:
            try:
                faults = [fault for fault in await device.read_faults() if fault.severe]
            except LinkError as error:
                lost = lost or error
                continue
            if faults:
                return f"{device.name}: {', '.join(f'{fault.text} (code {fault.code})' for fault in faults)}"
        if lost is not None:
            # The engine tells one lost answer from a lost device.
            raise lost
        return ""

    return Suspender("device", check, every_s, reason=EndReason.DEVICE_FAULT, yields=True)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
