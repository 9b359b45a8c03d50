"""Micro-Manager's device layer (MMCore), by which hundreds of cameras and stages can be used.

MMCore blocks, and a picture or a move may take seconds; so one thread of its own makes all calls, and the event loop
waits for it. Devices share one core as they share a line. It needs the extra ``mm`` (pymmcore) and the device adapters
of a Micro-Manager of the same device interface version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cartoseq.drivers.capabilities import Fault, Identity
from cartoseq.drivers.errors import DeviceFault, Disconnected
from cartoseq.drivers.mmsequence import Sequences
from cartoseq.streaming.errors import InputError

if TYPE_CHECKING:
    from pymmcore import CMMCore

T = TypeVar("T")

#: What MMCore's errors become in Python.
_ERRORS: Final = (RuntimeError, ValueError, OSError, IndexError)

NOTICE: Final = "this driver has met Micro-Manager's demonstration devices only"


class MicroManagerCore:
    """One MMCore with its configuration.

    Args:
        name: What it is called in messages.
        configuration: The configuration file, as Micro-Manager's wizard writes it.
        adapter_folders: Where the device adapters lie; in Micro-Manager's own folder, mostly.
    """

    def __init__(self, name: str, configuration: Path | str, *, adapter_folders: Sequence[Path | str] = ()) -> None:
        self.name = name
        self.sequences = Sequences()
        self._configuration = Path(configuration)
        self._adapter_folders = [str(folder) for folder in adapter_folders]
        self._core: CMMCore | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._users = 0
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Load the configuration, or share the core that has it.

        Raises:
            InputError: pymmcore or the configuration file is missing.
            Disconnected: a device of the configuration cannot be loaded or does not start.
        """
        async with self._turn:
            if self._core is None:
                self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"mm {self.name}")
                try:
                    self._core = await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
                except BaseException:
                    self._end_thread()
                    raise
            self._users += 1

    async def close(self) -> None:
        """Give the core back; the last one to do so lets go of all its devices."""
        async with self._turn:
            self._users = max(0, self._users - 1)
            if self._users == 0 and self._core is not None:
                try:
                    await self.call(self.name, _let_go)
                finally:
                    self._core = None
                    self._end_thread()

    async def call(self, device: str, work: Callable[[CMMCore], T]) -> T:
        """Do something with the core, in its thread.

        Args:
            device: The device's name in messages.
            work: What to do.

        Raises:
            DeviceFault: MMCore says that it failed.
            Disconnected: it is not open.
        """
        core, thread = self._opened(device)
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, lambda: work(core))
        except _ERRORS as error:
            raise DeviceFault(device, "Micro-Manager", str(error)) from error

    def interrupt(self, device: str, work: Callable[[CMMCore], object]) -> None:
        """Do something with the core once the call under way has ended, and wait for nothing, nor for its failure.

        Args:
            device: The device's name in messages.
            work: What to do.

        Raises:
            Disconnected: it is not open.
        """
        core, thread = self._opened(device)
        done = asyncio.get_running_loop().run_in_executor(thread, lambda: work(core))
        done.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def identify(self, device: str, label: str, kind: int) -> Identity:
        """Say what stands behind a label, and hold that it is of a kind.

        Raises:
            InputError: the configuration has no such device, or one of another kind.
        """

        def look(core: CMMCore) -> Identity | str:
            labels = core.getLoadedDevicesOfType(kind)
            if label not in labels:
                return f"expected one of {', '.join(labels) or 'no devices at all'}, found {label!r}"
            return Identity(
                maker=f"Micro-Manager {core.getDeviceLibrary(label)}",
                model=core.getDeviceName(label),
                firmware=core.getVersionInfo(),
                notice=NOTICE,
            )

        found = await self.call(device, look)
        if isinstance(found, str):
            raise InputError(device, found, remedy=f"Correct the label, or the configuration {self._configuration}.")
        return found

    async def faults(self, device: str, label: str) -> list[Fault]:
        """What keeps a device from answering: MMCore knows no faults as such."""
        try:
            await self.call(device, lambda core: core.deviceBusy(label))
        except DeviceFault as fault:
            return [Fault(str(fault.code), fault.text)]
        return []

    def _opened(self, device: str) -> tuple[CMMCore, ThreadPoolExecutor]:
        if self._core is None or self._thread is None:
            raise Disconnected(device, "is not open", remedy="Open the device first.")
        return self._core, self._thread

    def _load(self) -> Any:
        try:
            import pymmcore
        except ImportError as error:
            raise InputError(
                self.name, "Micro-Manager's device layer is not installed", remedy="Install the extra: cartoseq[mm]."
            ) from error
        if not self._configuration.is_file():
            raise InputError(self._configuration, "there is no such Micro-Manager configuration")
        core = pymmcore.CMMCore()
        # Python must not destroy it: now and then MMCore's destructor waits for ever, since its logger misses the order
        # to end if that comes just as it falls idle. What is left behind is one idle core for every opening.
        core.thisown = False  # type: ignore[attr-defined]
        if self._adapter_folders:
            core.setDeviceAdapterSearchPaths(self._adapter_folders)
        try:
            core.loadSystemConfiguration(str(self._configuration))
        except _ERRORS as error:
            _let_go(core)
            raise Disconnected(
                self.name,
                f"{self._configuration}: {error}",
                remedy="Does the configuration load in Micro-Manager, of the same version as the adapters?",
            ) from error
        return core

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None


def _let_go(core: CMMCore) -> None:
    """Unload all devices, and free the memory for pictures."""
    core.reset()
    core.setCircularBufferMemoryFootprint(1)
