"""Meerstetter TEC controllers (TEC-1089 ... TEC-1167) over MeCom, on a serial port (57600 baud) or TCP.

A query that is sent again keeps its sequence number (`drivers.mecom`), so that nothing happens twice. Temperatures are
in °C. Source: the maker's parameter list, as working clients use it. Not yet on hardware.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, TypeVar

from cartoseq.drivers.capabilities import NOTICE, Fault, Identity, Range
from cartoseq.drivers.errors import (
    Busy,
    ChecksumError,
    DeviceFault,
    FramingError,
    LinkError,
    OverTemperature,
)
from cartoseq.drivers.limits import check_within
from cartoseq.drivers.mecom import (
    Answer,
    encode_frame,
    encode_read,
    encode_write,
    frame_answer,
    parse_answer,
    parse_float,
    parse_int,
    parse_server_error,
)
from cartoseq.drivers.settling import await_settled, check_wait
from cartoseq.drivers.stops import Actions, see_off
from cartoseq.drivers.transport import Transport, repeat
from cartoseq.streaming.errors import InputError

T = TypeVar("T")

# Parameters by number, as the maker's list has them.
DEVICE_TYPE: Final = 100
SERIAL_NUMBER: Final = 102
FIRMWARE: Final = 103
STATUS: Final = 104
ERROR_NUMBER: Final = 105
ERROR_INSTANCE: Final = 106
ERROR_PARAMETER: Final = 107
FLASH_SAVE_OFF: Final = 108
OBJECT_TEMPERATURE: Final = 1000
SINK_TEMPERATURE: Final = 1001
REGULATED_TARGET: Final = 1010
STABLE: Final = 1200
OUTPUT_ENABLE: Final = 2010
TARGET: Final = 3000
RESTART_DELAY: Final = 6310

STATUS_RUN: Final = 2
STATUS_ERROR: Final = 3
_STATUS_TEXT: Final = {0: "starting", 1: "ready", 2: "running", 3: "error", 4: "in its bootloader", 5: "restarting"}
_SERVER_BUSY: Final = 2
_PARAMETER_ABSENT: Final = 5
_INSTANCE_ABSENT: Final = 8
_SERVER_TEXT: Final = {
    1: "knows no such command",
    2: "is busy",
    3: "had a communication error",
    4: "found the command malformed",
    5: "has no such parameter",
    6: "holds this parameter read-only",
    7: "finds the value out of its range",
    8: "has no such channel",
    9: "failed",
}
_EMERGENCY_STOP: Final = 11

_REPLY_S: Final = 0.3
_POLL_S: Final = 0.1
#: The longest between two measurements while a temperature is awaited, wherever it is.
_LONGEST_POLL_S: Final = 0.5
_SWITCH_S: Final = 2.0
_RESTART_S: Final = 10.0
#: How far beyond its limits a part may read before it counts as too hot or too cold, in K.
_OVERSHOOT_K: Final = 5.0


class MeerstetterTec:
    """A temperature controller: one channel of a Meerstetter TEC.

    Args:
        transport: The line; several controllers with different addresses may share it.
        name: The device's name in messages.
        address: The controller's address, 1 to 254; 0 is answered by whichever single one is on the line.
        channel: The output channel (the protocol's instance), from 1.
        low_c: Least target that is allowed.
        high_c: Greatest target that is allowed.
        sink_limit_c: A heat sink hotter than this counts as too hot when the controller has stopped on an error.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        address: int = 2,
        channel: int = 1,
        low_c: float = 4.0,
        high_c: float = 95.0,
        sink_limit_c: float = 60.0,
    ) -> None:
        if not 0 <= address <= 254:
            raise InputError(name, f"address: expected 0 to 254, found {address}")
        if not 1 <= channel <= 255:
            raise InputError(name, f"channel: expected 1 to 255, found {channel}")
        if not low_c < high_c:
            raise InputError(name, f"expected low_c below high_c, found {low_c} and {high_c}")
        self.name = name
        self.limits_c = Range(low_c, high_c)
        self._transport = transport
        self._address = address
        self._channel = channel
        self._sink_limit_c = sink_limit_c
        self._actions = Actions(name)
        self._sequence = 0
        #: The target that was asked for, while regulation is to be on.
        self._wanted_c: float | None = None

    async def open(self) -> Identity:
        """Connect, identify, hold that it has the channel, and keep settings out of its flash memory.

        Raises:
            LinkError: no sound answer.
            DeviceFault: it answers, but is no temperature controller with this channel.
        """
        async with self._transport.opening():
            model = (await self._ask(b"?IF")).decode("latin-1").strip()
            kind = await self._read_int(DEVICE_TYPE)
            identity = Identity(
                maker="Meerstetter Engineering",
                model=f"TEC-{kind} ({model})",
                serial_number=str(await self._read_int(SERIAL_NUMBER)),
                firmware=f"{await self._read_int(FIRMWARE) / 100:.2f}",
                notice=NOTICE,
            )
            try:
                await self._read_float(OBJECT_TEMPERATURE)
            except DeviceFault as fault:
                if fault.code not in (f"+{_PARAMETER_ABSENT:02X}", f"+{_INSTANCE_ABSENT:02X}"):
                    raise
                raise DeviceFault(
                    self.name,
                    fault.code,
                    f"{identity.model} at address {self._address} has no temperature channel {self._channel}",
                    remedy="Check address and channel in the instrument file.",
                    wire=self._transport.dump(),
                ) from fault
            await self._set_up()
        return identity

    async def close(self) -> None:
        """Let go of the line; it goes on regulating."""
        self._actions.stop()
        await self._transport.close()

    async def make_safe(self) -> None:
        """Switch the output off."""
        await self.disable()

    async def disable(self) -> None:
        """Switch the output off at once, whatever is awaited, and hold that it is off.

        Raises:
            DeviceFault: it stays on.
        """
        self._actions.stop()
        self._wanted_c = None
        off = encode_write(OUTPUT_ENABLE, self._channel, 0)
        self._transport.interrupt(self._query(off))
        await see_off(
            self._is_on,
            lambda: self._ask(off),
            lambda: DeviceFault(
                self.name, "on", "the output stays on after it was switched off", remedy="Switch off its supply."
            ),
        )

    async def set_target_c(self, temperature_c: float) -> None:
        """Set the target, switch regulation on, and return when the device says that it runs.

        Raises:
            LimitError: outside `limits_c`; nothing was sent.
            DeviceFault: it stands in an error, or refuses.
            Stopped: it was switched off meanwhile.
        """
        check_within(self.name, "target", temperature_c, self.limits_c, "°C")
        await self._actions.do(self._regulate(temperature_c))

    async def _regulate(self, temperature_c: float) -> None:
        if await self._read_int(STATUS) == STATUS_ERROR:
            raise await self._fault()
        await self._ask(encode_write(TARGET, self._channel, float(temperature_c)))
        self._wanted_c = temperature_c
        await self._ask(encode_write(OUTPUT_ENABLE, self._channel, 1))
        deadline_s = _now_s() + _SWITCH_S
        while not await self._runs():
            if _now_s() > deadline_s:
                raise DeviceFault(self.name, "off", "regulation does not start", wire=self._transport.dump())
            await asyncio.sleep(_POLL_S / 5)

    async def target_c(self) -> float:
        """The target that is regulated to."""
        return await self._read_float(REGULATED_TARGET)

    async def temperature_c(self) -> float:
        """What the object sensor measures.

        Raises:
            DeviceFault: the sensor gives no temperature.
        """
        return await self._measure()

    async def is_stable(self) -> bool:
        """Whether the device says that it has settled at its target."""
        return await self._read_int(STABLE) == 2

    async def wait_stable(self, tolerance_c: float, dwell_s: float, timeout_s: float) -> None:
        """Return when it has been within the tolerance of the target for the dwell time.

        It measures at least every half second, and more often as the tolerance comes near at the speed so far.

        Raises:
            LimitError: an argument makes no sense; nothing was sent.
            OverTemperature: it is beyond its limits.
            DeviceFault: it stands in an error, regulates no more, or is not there in time.
            Stopped: it was switched off meanwhile.
        """
        check_wait(self.name, tolerance_c, dwell_s, timeout_s)
        await self._actions.do(self._wait_stable(tolerance_c, dwell_s, timeout_s))

    async def _wait_stable(self, tolerance_c: float, dwell_s: float, timeout_s: float) -> None:
        await await_settled(
            self.name,
            self._measure_running,
            await self._read_float(REGULATED_TARGET),
            tolerance_c,
            dwell_s,
            timeout_s,
            poll_s=_POLL_S,
            longest_poll_s=_LONGEST_POLL_S,
            wire=self._transport.dump,
        )

    async def _measure_running(self) -> float:
        if not await self._runs():
            raise DeviceFault(
                self.name,
                "off",
                "regulation is off while the temperature is awaited; the controller may have restarted",
                remedy="Clear its faults, which switches it on again.",
                wire=self._transport.dump(),
            )
        measured_c = await self._measure()
        self._hold_limit(measured_c)
        return measured_c

    async def read_faults(self) -> list[Fault]:
        """The error in which it stands, and regulation that is off though a target was set: it has restarted."""
        status = await self._read_int(STATUS)
        if status == STATUS_ERROR:
            fault = await self._fault()
            return [Fault(str(fault.code), fault.text)]
        if status == STATUS_RUN or (status == 1 and self._wanted_c is None):
            return []
        if status == 1:
            return [Fault("off", f"regulation is off, though {self._wanted_c:g} °C were set: it may have restarted")]
        return [Fault(f"status {status}", f"the controller is {_STATUS_TEXT.get(status, 'in an unknown state')}")]

    async def clear_faults(self) -> None:
        """Restart it where it stands in an error, and bring back what was set: also the target, if one was wanted.

        Raises:
            DeviceFault: the error comes back, or the restart does not end.
        """
        await self._actions.do(self._recover())

    async def _recover(self) -> None:
        if await self._read_int(STATUS) == STATUS_ERROR:
            await self._restart()
        await self._set_up()
        if self._wanted_c is not None and not await self._runs():
            await self._regulate(self._wanted_c)

    # ------------------------------------------------------------------------------------------------------ the inside

    async def _set_up(self) -> None:
        """Keep settings out of the flash memory, which wears."""
        await self._ask(encode_write(FLASH_SAVE_OFF, 1, 1))
        if await self._read_int(FLASH_SAVE_OFF) != 1:
            raise DeviceFault(self.name, FLASH_SAVE_OFF, "the controller keeps writing its settings to flash memory")

    async def _restart(self) -> None:
        delay_s = await self._read_float(RESTART_DELAY)
        deadline_s = _now_s() + _RESTART_S + (delay_s if math.isfinite(delay_s) else 0.0)
        status: int | None = STATUS_ERROR
        try:
            await self._ask(b"RS")
        except LinkError:
            status = None  # it may have restarted before it could say so
        while status not in (1, STATUS_RUN):
            if _now_s() > deadline_s:
                if status == STATUS_ERROR:
                    raise await self._fault()
                raise DeviceFault(self.name, f"status {status}", "the controller does not come back after a restart")
            await asyncio.sleep(_POLL_S)
            try:
                status = await self._read_int(STATUS)
            except LinkError:
                status = None

    async def _runs(self) -> bool:
        status = await self._read_int(STATUS)
        if status == STATUS_ERROR:
            raise await self._fault()
        return status == STATUS_RUN

    async def _is_on(self) -> bool:
        # In an error the output is off, whatever the setting says.
        return await self._read_int(OUTPUT_ENABLE) != 0 and await self._read_int(STATUS) != STATUS_ERROR

    async def _measure(self) -> float:
        measured_c = await self._read_float(OBJECT_TEMPERATURE)
        if not math.isfinite(measured_c):
            raise DeviceFault(
                self.name,
                "sensor",
                f"the object sensor reads {measured_c}",
                remedy="Check the sensor and its plug.",
                wire=self._transport.dump(),
            )
        return measured_c

    def _hold_limit(self, measured_c: float) -> None:
        # There is no such lower bound: a cold start lies below the least target as often as not.
        if measured_c > self.limits_c.high + _OVERSHOOT_K:
            raise OverTemperature(
                self.name,
                "too hot",
                f"{measured_c:.2f} °C; no more than {self.limits_c.high} °C are allowed",
                remedy="Switch it off and let it cool.",
                wire=self._transport.dump(),
            )

    async def _fault(self) -> DeviceFault:
        """The error in which it stands, as an exception; one of temperature where a part is too hot."""
        number = await self._read_int(ERROR_NUMBER)
        instance = await self._read_int(ERROR_INSTANCE)
        parameter = await self._read_int(ERROR_PARAMETER)
        object_c = await self._read_float(OBJECT_TEMPERATURE)
        sink_c = await self._read_float(SINK_TEMPERATURE)
        what = "it was stopped by an emergency stop" if number == _EMERGENCY_STOP else "the controller stopped"
        hot = object_c > self.limits_c.high + _OVERSHOOT_K or sink_c > self._sink_limit_c
        return (OverTemperature if hot else DeviceFault)(
            self.name,
            number,
            f"{what} on an error of channel {instance} (parameter {parameter}) at {object_c:.1f} °C,"
            f" heat sink {sink_c:.1f} °C",
            remedy="The maker's manual lists the number. Clear the faults once the cause is gone.",
            wire=self._transport.dump(),
        )

    async def _read_int(self, parameter: int) -> int:
        return self._parsed(parse_int, await self._read(parameter))

    async def _read_float(self, parameter: int) -> float:
        return self._parsed(parse_float, await self._read(parameter))

    async def _read(self, parameter: int) -> bytes:
        channel = self._channel if parameter >= OBJECT_TEMPERATURE else 1  # the lower ones are the whole controller's
        return await self._ask(encode_read(parameter, channel))

    def _parsed(self, parse: Callable[[bytes], T], payload: bytes) -> T:
        try:
            return parse(payload)
        except ValueError as error:
            self._transport.doubt()
            raise FramingError(self.name, str(error), wire=self._transport.dump()) from error

    def _query(self, payload: bytes) -> bytes:
        self._sequence = (self._sequence + 1) & 0xFFFF
        return encode_frame(self._address, self._sequence, payload)

    async def _ask(self, payload: bytes) -> bytes:
        """Send a query, as often as needed with one number, and return the payload of its answer.

        Raises:
            LinkError: no sound answer at the last try.
            DeviceFault: the device refuses.
            Stopped: the driver was stopped meanwhile.
        """
        query = self._query(payload)

        async def exchange() -> bytes:
            frame = await self._transport.exchange(
                query, frame_answer, timeout_s=_REPLY_S, accept=lambda frame: self._answers(frame, query)
            )
            return self._payload(query, self._parsed(parse_answer, frame))

        try:
            return await repeat(exchange)
        except Busy:
            await asyncio.sleep(_POLL_S)
            return await repeat(exchange)

    def _answers(self, frame: bytes, query: bytes) -> bool:
        """Whether a frame answers a query, or is so damaged that this cannot be told."""
        try:
            answer = parse_answer(frame)
        except ValueError:
            return True
        if answer.payload and not answer.sound:
            return True
        return answer.sequence == int(query[3:7], 16) and (self._address == 0 or answer.address == self._address)

    def _payload(self, query: bytes, answer: Answer) -> bytes:
        if not answer.payload:
            if answer.crc != int(query[-5:-1], 16):
                self._transport.doubt()
                raise ChecksumError(
                    self.name, f"the acknowledgement of {query!r} carries another checksum", wire=self._transport.dump()
                )
            return b""
        if not answer.sound:
            self._transport.doubt()
            raise ChecksumError(self.name, f"the answer to {query!r} is damaged", wire=self._transport.dump())
        code = self._parsed(parse_server_error, answer.payload)
        if code == _SERVER_BUSY:
            raise Busy(self.name, "the controller is busy")
        if code is not None:
            raise DeviceFault(
                self.name,
                f"+{code:02X}",
                f"the controller {_SERVER_TEXT.get(code, 'refuses')}: {query[7:-5].decode()}",
                wire=self._transport.dump(),
            )
        return answer.payload


def _now_s() -> float:
    return asyncio.get_running_loop().time()
