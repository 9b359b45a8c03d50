"""Temperature controllers by Meerstetter (TEC family) on their wire: the MeCom protocol.

A frame is a control character, address (2 hex digits), sequence number (4), payload, checksum (4), ``<CR>``. The answer
repeats address and sequence number. A command that sets something is acknowledged by an empty payload, whose checksum
is that of the *command*. A broken frame, and one for another address, is not answered.

Each channel regulates a plate of the world (`simulators.thermal`). An error switches all outputs off until a reset.

Sources: the MeCom specification as read in vendor code; the vendor's client also sends the channel after ``?IF``.
Assumed: numbers of the errors other than 11, limits of the values, the window and dwell of "stable", and the time that
a reset takes. Metadata (``?VM``) is answered as not available.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.thermal import Plate
from cartoseq.simulators.wire import Outbox
from cartoseq.simulators.world import Event, World

UNKNOWN_COMMAND, BUSY, FORMAT, UNKNOWN_PARAMETER, READ_ONLY, OUT_OF_RANGE, UNKNOWN_INSTANCE = 1, 2, 4, 5, 6, 7, 8
INIT, READY, RUN, ERROR = 0, 1, 2, 3
#: Error numbers of the device; all but the first are this simulator's own.
EMERGENCY_STOP, PLATE_LIMIT, SINK_LIMIT, SENSOR_OPEN = 11, 30, 31, 33

_LATENCY_S: Final = 0.004
_RESET_S: Final = 0.2
_INIT_S: Final = 0.5
_LONGEST: Final = 256


@dataclass(frozen=True)
class Parameter:
    """A parameter that can be set.

    Attributes:
        default: Its value as delivered; its type is the parameter's.
        low: Least value.
        high: Greatest value.
        of_channel: Whether each channel has its own.
    """

    default: float | int
    low: float
    high: float
    of_channel: bool = True


_PARAMETERS: Final = {
    108: Parameter(0, 0, 1, of_channel=False),
    2000: Parameter(2, 0, 2),
    2010: Parameter(0, 0, 3),
    2020: Parameter(0.0, -16.0, 16.0),
    2021: Parameter(0.0, -30.0, 30.0),
    2030: Parameter(6.0, 0.0, 16.0),
    2031: Parameter(24.0, 0.0, 30.0),
    2032: Parameter(8.0, 0.0, 20.0),
    2033: Parameter(28.0, 0.0, 36.0),
    2051: Parameter(1, 0, 254, of_channel=False),
    3000: Parameter(25.0, -50.0, 120.0),
    3002: Parameter(0.5, 0.0, 50.0),
    3003: Parameter(0.0, 0.0, 100.0),
    3010: Parameter(60.0, 0.0, 1e6),
    3011: Parameter(30.0, 0.0, 1e6),
    3012: Parameter(0.0, 0.0, 1e6),
    6310: Parameter(0.0, 0.0, 3600.0, of_channel=False),
}
_READINGS: Final = frozenset({100, 102, 103, 104, 105, 106, 107, 1000, 1001, 1010, 1011, 1020, 1021, 1063, 1200})

_FAULTS: Final = {
    "sensor_open": FaultKind("The object sensor of `channel` is broken: an error, and no number.", {"channel": 1.0}),
    "over_temperature": FaultKind(
        "The plate of `channel` gets `degrees` hotter by itself.", {"channel": 1.0, "degrees": 90.0}
    ),
    "fan_off": FaultKind(
        "The sink of `channel` loses only `share` of the heat that it should.", {"channel": 1.0, "share": 0.05}
    ),
    "weak": FaultKind("Only `share` of the current reaches the element of `channel`.", {"channel": 1.0, "share": 0.05}),
    "sensor_drift": FaultKind("The sensor of `channel` is wrong by `kelvin`.", {"channel": 1.0, "kelvin": 1.0}),
    "wrong_checksum": FaultKind("The next `answers` have a wrong checksum.", {"answers": 1.0}),
    "wrong_sequence": FaultKind("The next `answers` carry another sequence number.", {"answers": 1.0}),
    "twice": FaultKind("The next `answers` are sent twice.", {"answers": 1.0}),
    "busy": FaultKind("Every command is answered with server error 2."),
    "power_cycle": FaultKind("The power was off for a moment: what was not saved is lost, outputs are as saved."),
}


def checksum(data: bytes) -> int:
    """Return the CRC of a frame: polynomial 0x1021, initial value 0, no reflection (CRC-16/XMODEM)."""
    crc = 0
    for byte in data:
        crc = crc << 8 & 0xFFFF ^ _CRC_OF_BYTE[crc >> 8 ^ byte]
    return crc


def _crc_of(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


_CRC_OF_BYTE: Final = tuple(_crc_of(byte) for byte in range(256))


class _ServerError(Exception):
    """The device does not do what is asked."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class MeerstetterSim:
    """One controller of one or two channels.

    Args:
        name: What it is called in the rack.
        world: The bench that it acts on.
        plates: The plate of each channel.
        address: 1 to 254.
        device_type: 1091, 1122 ...
        serial_number: As it says it.
        window_k: Distance from the target within which it counts as settled.
        dwell_s: How long it must be so to be called stable.
        plate_allowed_c: Outside of this a plate is an error.
        sink_allowed_c: Outside of this a sink is an error.
    """

    def __init__(
        self,
        name: str,
        world: World,
        *,
        plates: Sequence[str],
        address: int = 1,
        device_type: int = 1091,
        serial_number: int = 1234,
        window_k: float = 0.1,
        dwell_s: float = 10.0,
        plate_allowed_c: tuple[float, float] = (-20.0, 85.0),
        sink_allowed_c: tuple[float, float] = (-20.0, 65.0),
    ) -> None:
        if missing := [plate for plate in plates if plate not in world.plates]:
            raise ValueError(f"{name}: there is no plate {missing[0]!r}")
        if not plates or not 1 <= address <= 254:
            raise ValueError(f"{name}: expected a plate and an address of 1 to 254, found {plates!r}, {address}")
        self.name = name
        self.world = world
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        self._plates: list[Plate] = [world.plates[plate] for plate in plates]
        self._identity = {100: device_type, 102: serial_number, 103: 310}
        self._dwell_s = dwell_s
        self._buffer = b""
        self._out = Outbox()
        self._flash_writes = 0
        self._error = (0, 0, 0)
        self._starts_s = 0.0
        self._deaf_until_s = 0.0
        self._restart: Event | None = None
        for plate in self._plates:
            plate.window_k = window_k
            plate.plate_allowed_c, plate.sink_allowed_c = plate_allowed_c, sink_allowed_c
        channels = range(1, len(plates) + 1)
        self._values: dict[tuple[int, int], float | int] = {
            (number, channel): parameter.default
            for number, parameter in _PARAMETERS.items()
            for channel in (channels if parameter.of_channel else (1,))
        }
        self._values[2051, 1] = address
        self._saved = dict(self._values)
        self._apply()

    # ------------------------------------------------------------------------------------------------------------ wire

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self.world.advance(now_s)
        self._watch()
        self._buffer = (self._buffer + data)[-_LONGEST:]
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            begin = line.rfind(b"#")
            if begin >= 0 and now_s >= self._deaf_until_s:
                self._hear(line[begin:], now_s)

    def due_s(self) -> float | None:
        """When the next answer is due."""
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """Answers that are due by now."""
        return self._out.take(now_s)

    def _hear(self, frame: bytes, now_s: float) -> None:
        head, sum_field = frame[:-4], frame[-4:]
        if len(frame) < 11 or sum_field != b"%04X" % checksum(head):
            return
        address, sequence = _hex(head[1:3].decode("latin-1")), _hex(head[3:7].decode("latin-1"))
        if address is None or sequence is None or address not in (0, 255, self._values[2051, 1]):
            return
        try:
            data = "+02"
            if "busy" not in self.disturbances:
                data = self._do(head[7:].decode("latin-1"), now_s)
        except _ServerError as error:
            data = f"+{error.code:02X}"
        if address == 255:
            return
        answer = f"!{address:02X}{self._counted('wrong_sequence', sequence):04X}{data}".encode()
        crc = checksum(answer) if data else int(sum_field, 16)
        message = answer + b"%04X\r" % self._counted("wrong_checksum", crc)
        for _ in range(1 + self._counted("twice", 0)):
            self._out.put(now_s + _LATENCY_S, message)

    def _counted(self, fault: str, value: int) -> int:
        """Return a number, or a wrong one while a fault of so many answers lasts."""
        if fault not in self.disturbances:
            return value
        left = self.disturbances.number(fault, "answers") - 1
        self.disturbances.end(fault)
        if left > 0:
            self.disturbances.inject(fault, {"answers": left})
        return value + 1 & 0xFFFF

    # -------------------------------------------------------------------------------------------------------- commands

    def _do(self, payload: str, now_s: float) -> str:
        """Carry out a payload and return that of the answer; empty for an acknowledgement."""
        if payload == "?IF" or (payload.startswith("?IF") and len(payload) == 5):
            return f"{self._identity[100]}-TEC SN{self._identity[102]}".ljust(20)[:20]
        if payload.startswith("?VR"):
            number, channel = _fields(payload[3:], 6)
            return self._read(number, channel, now_s)
        if payload.startswith("VS"):
            number, channel = _fields(payload[2:8], 6)
            self._write(number, channel, payload[8:])
        elif payload == "RS":
            self._deaf_until_s = now_s + _RESET_S
            self._reset(now_s + _RESET_S)
        elif payload == "ES":
            self._fail(EMERGENCY_STOP, 1, 0)
        elif payload == "SP":
            self._save()
        else:
            raise _ServerError(UNKNOWN_COMMAND)
        return ""

    def _read(self, number: int, channel: int, now_s: float) -> str:
        parameter = _PARAMETERS.get(number)
        if parameter is None and number not in _READINGS:
            raise _ServerError(UNKNOWN_PARAMETER)
        self._check_channel(channel, number >= 1000 if parameter is None else parameter.of_channel)
        value = self._values[number, channel] if parameter else self._reading(number, channel, now_s)
        if isinstance(value, int):
            return f"{value & 0xFFFFFFFF:08X}"
        return struct.pack(">f", value).hex().upper()

    def _check_channel(self, channel: int, of_channel: bool) -> None:
        if not 1 <= channel <= (len(self._plates) if of_channel else 1):
            raise _ServerError(UNKNOWN_INSTANCE)

    def _reading(self, number: int, channel: int, now_s: float) -> float | int:
        plate = self._plates[channel - 1]
        if number in self._identity:
            return self._identity[number]
        if 105 <= number <= 107:
            return self._error[number - 105]
        broken = "sensor_open" in self.disturbances and self.disturbances.number("sensor_open", "channel") == channel
        readings: dict[int, float | int] = {
            104: self._status(now_s),
            1000: math.nan if broken else plate.measured_c,
            1001: plate.sink_c,
            1010: plate.target_c,
            1011: plate.nominal_c,
            1020: plate.current_a,
            1021: plate.voltage_v,
            1063: plate.ambient_c + 8.0,
            1200: 0 if not plate.regulated else 2 if plate.settled_s >= self._dwell_s else 1,
        }
        return readings[number]

    def _status(self, now_s: float) -> int:
        if self._error[0]:
            return ERROR
        if now_s < self._starts_s:
            return INIT
        return RUN if any(self._values[2010, channel + 1] for channel in range(len(self._plates))) else READY

    def _write(self, number: int, channel: int, digits: str) -> None:
        bits = _hex(digits)
        if bits is None or len(digits) != 8:
            raise _ServerError(FORMAT)
        if number in _READINGS:
            raise _ServerError(READ_ONLY)
        parameter = _PARAMETERS.get(number)
        if parameter is None:
            raise _ServerError(UNKNOWN_PARAMETER)
        self._check_channel(channel, parameter.of_channel)
        kind = ">i" if isinstance(parameter.default, int) else ">f"
        value: float | int = struct.unpack(kind, bits.to_bytes(4, "big"))[0]
        if not parameter.low <= value <= parameter.high:
            raise _ServerError(OUT_OF_RANGE)
        self._values[number, channel] = value
        if not self._values[108, 1]:
            self._save()
        self._apply()

    def _save(self) -> None:
        if self._saved != self._values:
            self._flash_writes += 1
            self._saved = dict(self._values)

    def _apply(self) -> None:
        """Let the plates do what the parameters say."""
        for channel, plate in enumerate(self._plates, 1):

            def value(number: int, channel: int = channel) -> float:
                return self._values[number, channel]

            limit_a = min(value(2030), plate.settings.current_limit_a)
            plate.current_limit_a = limit_a
            plate.gains.kp_a_per_k = value(3010) / 100 * limit_a
            plate.gains.ti_s, plate.gains.td_s, plate.gains.ramp_k_per_s = value(3011), value(3012), value(3003)
            plate.set_target(value(3000))
            on = value(2010) == 1 and not self._error[0]
            if not on or value(2000) != 2:
                plate.regulate(False)
            if on and value(2000) == 2:
                plate.regulate(True)
            elif on:
                plate.fixed_current_a = max(-limit_a, min(limit_a, value(2020)))

    def _fail(self, number: int, channel: int, parameter: int) -> None:
        """Go into the error state: outputs off until a reset."""
        if self._error[0]:
            return
        self._error = (number, channel, parameter)
        for each in range(1, len(self._plates) + 1):
            self._values[2010, each] = 0
        self._apply()
        delay_s = self._values[6310, 1]
        if delay_s:
            self._restart = self.world.at(self.world.now_s + delay_s, self._reset)

    def _reset(self, at_s: float) -> None:
        """Begin anew, with what was saved but for the outputs that an error has switched off."""
        if self._restart is not None:
            self._restart.cancel()
        self._restart = None
        was_error = bool(self._error[0])
        self._error = (0, 0, 0)
        self._starts_s = at_s + _INIT_S
        self._values = dict(self._saved)
        if was_error:
            for channel in range(1, len(self._plates) + 1):
                self._values[2010, channel] = 0
        for plate in self._plates:
            plate.tripped = ""
            plate.regulate(False)
        self._apply()
        self._watch()

    def _watch(self) -> None:
        """See whether something is wrong."""
        for channel, plate in enumerate(self._plates, 1):
            if plate.tripped:
                self._fail(PLATE_LIMIT if plate.tripped == "plate" else SINK_LIMIT, channel, 0)
        if "sensor_open" in self.disturbances:
            self._fail(SENSOR_OPEN, int(self.disturbances.number("sensor_open", "channel")), 1000)

    # ---------------------------------------------------------------------------------------------------------- faults

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self.world.advance(now_s)
        given = self.disturbances.inject(fault, values)
        channel = float(given.get("channel", 1.0))
        if not 1 <= channel <= len(self._plates):
            self.disturbances.end(fault)
            raise ValueError(f"{fault}.channel: expected 1 to {len(self._plates)}, found {channel:g}")
        plate = self._plates[int(channel) - 1]
        if fault == "over_temperature":
            plate.plate_c += float(given["degrees"])
            self.disturbances.end(fault)
        elif fault == "fan_off":
            plate.fan = float(given["share"])
        elif fault == "weak":
            plate.drive = float(given["share"])
        elif fault == "sensor_drift":
            plate.sensor_error_k = float(given["kelvin"])
        elif fault == "power_cycle":
            self._out.clear()
            self._buffer = b""
            self._error = (0, 0, 0)
            self._reset(now_s)
            self.disturbances.end(fault)
        self._watch()

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; what it did (an error) stays."""
        self.world.advance(now_s)
        self._watch()
        self.disturbances.clear()
        for plate in self._plates:
            plate.fan = plate.drive = 1.0
            plate.sensor_error_k = 0.0

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self.world.advance(now_s)
        self._watch()
        seen: dict[str, float | str | bool] = {
            "status": self._status(now_s),
            "error": self._error[0],
            "flash_writes": self._flash_writes,
        }
        for channel, plate in enumerate(self._plates, 1):
            seen |= {f"channel_{channel}.{key}": value for key, value in plate.inspect().items()}
        return seen


def _hex(digits: str) -> int | None:
    """Return a number of upper-case hex digits, or nothing."""
    return int(digits, 16) if digits and all(digit in "0123456789ABCDEF" for digit in digits) else None


def _fields(digits: str, length: int) -> tuple[int, int]:
    """Return the parameter number and instance."""
    number, channel = _hex(digits[:4]), _hex(digits[4:6])
    if len(digits) != length or number is None or channel is None:
        raise _ServerError(FORMAT)
    return number, channel
