"""SCPI over VISA: TCP, USB, GPIB or serial resources, as PyVISA names them.

PyVISA blocks, and a session of it may be used by one thread only; so each instrument has a thread of its own, and the
event loop waits for it. A stop waits for the exchange that is under way, at most its timeout: an instrument whose stop
must be quick belongs on a plain line (`drivers.scpi.LineSession`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from cartoseq.drivers.errors import Disconnected, ReplyTimeout
from cartoseq.streaming.errors import InputError

T = TypeVar("T")

_RING: Final = 64
_LATE_MS: Final = 50
_LONGEST_LATE: Final = 1000
_WRITE_MS: Final = 1000


class VisaSession:
    """A VISA resource; an `ScpiSession`.

    Args:
        name: The device's name in messages.
        resource: The resource's name: ``TCPIP::192.168.0.7::5025::SOCKET``, ``USB0::0x1313::0x8078::P0001::INSTR``.
        library: Which VISA: PyVISA-py by default; empty for the one that is installed.
        baud_rate: Of a serial resource.
    """

    def __init__(self, name: str, resource: str, *, library: str = "@py", baud_rate: int = 9600) -> None:
        self._name = name
        self._address = resource
        self._library = library
        self._baud_rate = baud_rate
        self._resource: Any = None
        self._is_stream = False
        self._in_doubt = False
        self._thread: ThreadPoolExecutor | None = None
        self._ring: deque[tuple[float, str, bytes]] = deque(maxlen=_RING)

    async def open(self) -> None:
        """Open the resource.

        Raises:
            InputError: there is no such resource name, or no such VISA library.
            Disconnected: it cannot be opened.
        """
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"visa {self._name}")
        try:
            await self._run(self._open)
        except BaseException:
            self._end_thread()
            raise

    async def close(self) -> None:
        """Close the resource, once what is under way has ended."""
        if self._resource is not None:
            resource, self._resource = self._resource, None
            await self._run(resource.close)
        self._end_thread()

    async def write(self, command: str) -> None:
        """Send a command that has no reply."""
        await self._run(lambda: self._write(command))

    async def query(self, command: str, timeout_s: float) -> str:
        """Send a query once, and return its reply without the line's end.

        Raises:
            ReplyTimeout: no whole reply came in time.
            Disconnected: the resource is gone.
        """
        late, self._in_doubt = self._in_doubt, True
        reply = await self._run(lambda: self._query(command, timeout_s, late))
        self._in_doubt = False
        self._ring.append((asyncio.get_running_loop().time(), "<", reply))
        return reply.decode("latin-1").strip()

    def interrupt(self, command: str) -> None:
        """Send a command after the exchange that is under way, if there is one.

        Raises:
            Disconnected: the resource is not open.
        """
        if self._thread is None:
            raise self._gone("is not open")
        self._thread.submit(self._write, command)

    def doubt(self) -> None:
        """Say that a reply was not what it should be."""
        self._in_doubt = True

    def dump(self) -> str:
        """The last bytes, oldest first: a line each, time in seconds, direction, the bytes."""
        return "\n".join(f"{time_s:.6f} {direction} {data!r}" for time_s, direction, data in list(self._ring))

    # --------------------------------------------------------------------------------------------------- in the thread

    def _open(self) -> None:
        import pyvisa  # its import takes a third of a second, and not every instrument has a VISA resource

        try:
            manager = pyvisa.ResourceManager(self._library)
        except (ValueError, OSError) as error:
            raise InputError(
                self._name, f"there is no VISA library {self._library!r}: {error}", remedy="Install it, or use '@py'."
            ) from error
        try:
            pyvisa.rname.ResourceName.from_string(self._address)
        except pyvisa.rname.InvalidResourceName as error:
            raise InputError(self._name, f"expected a VISA resource, found {self._address!r}") from error
        try:
            resource: Any = manager.open_resource(self._address)
        except (
            pyvisa.errors.Error,
            OSError,
            ValueError,
        ) as error:  # ValueError: a part that its backend needs is absent
            raise self._gone(f"cannot be opened: {error}") from error
        is_serial = resource.interface_type == pyvisa.constants.InterfaceType.asrl
        self._is_stream = is_serial or resource.resource_class == "SOCKET"
        if self._is_stream:
            resource.read_termination = "\n"  # a reply in pieces is read to its end
        if is_serial:
            resource.baud_rate = self._baud_rate
        self._resource = resource

    def _write(self, command: str) -> None:
        self._resource.timeout = _WRITE_MS
        self._resource.write_raw(command.encode() + b"\n")

    def _query(self, command: str, timeout_s: float, late: bool) -> bytes:
        if late:
            self._throw_away()
        self._write(command)
        self._resource.timeout = max(1, round(1e3 * timeout_s))
        reply: bytes = self._resource.read_raw()
        return reply

    def _throw_away(self) -> None:
        """Throw away replies that come late."""
        import pyvisa

        if not self._is_stream:
            self._resource.clear()
            return
        self._resource.timeout = _LATE_MS
        try:
            for _ in range(_LONGEST_LATE):
                self._resource.read_raw()
        except pyvisa.errors.VisaIOError as error:
            if error.error_code != pyvisa.constants.StatusCode.error_timeout:
                raise

    # --------------------------------------------------------------------------------------------------- from the loop

    async def _run(self, work: Callable[[], T]) -> T:
        import pyvisa

        if self._thread is None:
            raise self._gone("is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except pyvisa.errors.VisaIOError as error:
            if error.error_code == pyvisa.constants.StatusCode.error_timeout:
                raise ReplyTimeout(
                    self._name,
                    "no whole reply in time",
                    remedy="Check its power, its cable, and the resource in the instrument file.",
                    wire=self.dump(),
                ) from error
            raise self._gone(f"the resource is gone: {error}") from error
        except (pyvisa.errors.InvalidSession, OSError) as error:
            raise self._gone(f"the resource is gone: {error}") from error

    def _gone(self, problem: str) -> Disconnected:
        return Disconnected(
            self._name,
            problem,
            remedy="Check the cable, the power, and the resource in the instrument file.",
            wire=self.dump(),
        )

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None
