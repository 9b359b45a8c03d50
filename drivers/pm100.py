"""Thorlabs optical power meters PM100D, PM100USB and PM100A: SCPI, over USB (VISA) or a line.

Powers are watts on the wire, wavelengths nanometres. A head says what it is by ``SYST:SENS:IDN?``: name, serial number,
calibration, type, subtype, flags (1 a power sensor, 32 its wavelength can be set). Source: the PM100x SCPI reference,
as working clients use it. Not yet on hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cartoseq.drivers.capabilities import Fault, Identity, Range
from cartoseq.drivers.errors import DeviceFault
from cartoseq.drivers.limits import check_within
from cartoseq.drivers.scpi import Scpi, ScpiSession, parse_number
from cartoseq.drivers.transport import repeat
from cartoseq.streaming.errors import InputError

POWER_SENSOR: Final = 1
WAVELENGTH_SETTABLE: Final = 32

#: SCPI's words for "beyond the range" and "not a number" are numbers above this.
_NO_POWER_W: Final = 9e36
_SAMPLE_S: Final = 0.003
_REPLY_S: Final = 2.0
_WAVELENGTH_TOLERANCE_NM: Final = 0.5


@dataclass(frozen=True)
class Head:
    """A sensor head.

    Attributes:
        name: Its model; ``no sensor`` where there is none.
        serial_number: As it says it.
        calibration: The day of its calibration, as it says it.
        flags: What it can do.
    """

    name: str
    serial_number: str
    calibration: str
    flags: int


def parse_head(reply: str) -> Head:
    """Return what the meter says of its head. Raises `ValueError` where it is malformed."""
    fields = [field.strip().strip('"') for field in reply.split(",")]
    if fields[0].lower() == "no sensor":
        return Head("no sensor", "", "", 0)
    if len(fields) != 6 or not fields[5].isdecimal() or len(fields[5]) > 9:
        raise ValueError(f"{reply!r}, which names no sensor head")
    return Head(fields[0], fields[1], fields[2], int(fields[5]))


class ThorlabsPowerMeter:
    """A Thorlabs power meter.

    Args:
        session: The way to it.
        name: The device's name in messages.
        average_count: How many samples of 3 ms make a reading.
    """

    def __init__(self, session: ScpiSession, name: str, *, average_count: int = 10) -> None:
        if not 1 <= average_count <= 10_000:
            raise InputError(name, f"average_count: expected 1 to 10000, found {average_count}")
        self.name = name
        self.wavelength_limits_nm = Range(0.0, 0.0)
        self._scpi = Scpi(session, name)
        self._average_count = average_count
        self._settable = False

    async def open(self) -> Identity:
        """Connect, hold that it is a power meter with a head, and learn the head's range of wavelengths.

        Raises:
            LinkError: no sound reply.
            DeviceFault: it is no Thorlabs meter, or has no head for optical power.
        """
        identity = await self._scpi.open()
        try:
            if not identity.model.upper().startswith("PM"):
                raise self._fault(
                    "identity", f"expected a Thorlabs power meter, found {identity.maker} {identity.model}"
                )
            head = await self._head()
            if not head.flags & POWER_SENSOR:
                raise self._fault("head", f"expected a head for optical power, found {head.name}")
            self._settable = bool(head.flags & WAVELENGTH_SETTABLE)
            self.wavelength_limits_nm = Range(
                await self._scpi.ask("SENS:CORR:WAV? MIN", parse_number),
                await self._scpi.ask("SENS:CORR:WAV? MAX", parse_number),
            )
            await self._set("SENS:POW:RANG:AUTO ON", "SENS:POW:UNIT W", f"SENS:AVER:COUN {self._average_count}")
        except BaseException:
            await self._scpi.close()
            raise
        return identity

    async def close(self) -> None:
        """Let go of it."""
        await self._scpi.close()

    async def make_safe(self) -> None:
        """A meter does no harm: nothing is sent."""

    async def set_wavelength_nm(self, wavelength_nm: float) -> None:
        """Tell it the light's wavelength, and hold that it has taken it.

        Raises:
            LimitError: outside the head's range; nothing was sent.
            DeviceFault: the head's wavelength cannot be set, or it was not taken.
        """
        check_within(self.name, "wavelength", wavelength_nm, self.wavelength_limits_nm, "nm")
        if not self._settable:
            raise self._fault("head", "the wavelength of this head cannot be set")
        await self._set(f"SENS:CORR:WAV {wavelength_nm:g}")
        taken_nm = await self._scpi.ask("SENS:CORR:WAV?", parse_number)
        if abs(taken_nm - wavelength_nm) > _WAVELENGTH_TOLERANCE_NM:
            raise self._fault("wavelength", f"expected {wavelength_nm:g} nm, found {taken_nm:g} nm")

    async def power_mw(self) -> float:
        """What it measures; ambient light and noise may make it negative.

        Raises:
            DeviceFault: the light is beyond the head's range.
        """
        timeout_s = _REPLY_S + 2 * self._average_count * _SAMPLE_S
        power_w = await self._scpi.ask("MEAS:POW?", parse_number, timeout_s=timeout_s)
        if abs(power_w) > _NO_POWER_W:
            raise self._fault("range", "the light is beyond the head's range")
        return 1e3 * power_w

    async def read_faults(self) -> list[Fault]:
        """The entries of its error queue, which reading takes out, and a missing head."""
        faults = [Fault(str(code), text, severe=False) for code, text in await self._scpi.errors()]
        if not (await self._head()).flags:
            faults.append(Fault("head", "there is no sensor head"))
        return faults

    async def clear_faults(self) -> None:
        """Empty its error queue."""
        await self._scpi.errors()

    async def _head(self) -> Head:
        return await self._scpi.ask("SYST:SENS:IDN?", parse_head)

    async def _set(self, *commands: str) -> None:
        await repeat(lambda: self._scpi.tell(*commands))

    def _fault(self, code: str, text: str) -> DeviceFault:
        return DeviceFault(self.name, code, text, wire=self._scpi.session.dump())
