from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers.capabilities import PowerMeter, Range
from cartoseq.drivers.errors import DeviceFault, LimitError
from cartoseq.drivers.pm100 import Head, ThorlabsPowerMeter, parse_head
from cartoseq.drivers.scpi import LineSession
from cartoseq.drivers.transport import Transport
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox
from cartoseq.streaming.errors import InputError


def test_a_head_is_understood() -> None:
    assert parse_head("S120C,12345678,10-Jan-2024,1,1,33") == Head("S120C", "12345678", "10-Jan-2024", 33)
    assert parse_head("no sensor,,,0,0,0").flags == 0
    assert parse_head("no sensor").flags == 0


@given(st.text(max_size=40))
def test_garbage_raises_nothing_but_value_errors(text: str) -> None:
    try:
        head = parse_head(text)
    except ValueError:
        return
    assert head.flags >= 0


class Meter:
    def __init__(self) -> None:
        self.head = "S120C,12345678,10-Jan-2024,1,1,33"
        self.model = "PM100D"
        self.wavelength = "635.0"
        self.power = "1.234567E-03"
        self.takes_wavelength = True
        self.queue: list[str] = []
        self.heard: list[str] = []
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            command = line.decode()
            self.heard.append(command)
            values = {
                "*IDN?": f"THORLABS,{self.model},P0001234,2.4.0",
                "SYST:SENS:IDN?": self.head,
                "SENS:CORR:WAV? MIN": "4.000000E+02",
                "SENS:CORR:WAV? MAX": "1.100000E+03",
                "SENS:CORR:WAV?": self.wavelength,
                "MEAS:POW?": self.power,
            }
            if command.startswith("SENS:CORR:WAV ") and self.takes_wavelength:
                self.wavelength = command.split()[1]
            value = values.get(command)
            if command == "SYST:ERR?":
                value = self.queue.pop(0) if self.queue else '+0,"No error"'
            if value is not None:
                self._out.put(now_s + 0.005, value.encode() + b"\n")

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


def measure(use: Callable[[ThorlabsPowerMeter], Coroutine[Any, Any, None]], meter: Meter, **settings: Any) -> list[str]:
    async def main() -> None:
        session = LineSession(Transport("meter", MemoryHost(meter).connect))
        driver = ThorlabsPowerMeter(session, "meter", **settings)
        assert isinstance(driver, PowerMeter)
        identity = await driver.open()
        assert (identity.maker, identity.model) == ("THORLABS", "PM100D")
        await use(driver)
        await driver.close()

    run_virtual(main())
    return meter.heard


def test_powers_are_watts_on_the_wire_and_the_meter_is_set_up() -> None:
    async def use(driver: ThorlabsPowerMeter) -> None:
        assert driver.wavelength_limits_nm == Range(400.0, 1100.0)
        assert await driver.power_mw() == pytest.approx(1.234567)
        await driver.make_safe()

    heard = measure(use, Meter(), average_count=25)
    assert {"SENS:POW:RANG:AUTO ON", "SENS:POW:UNIT W", "SENS:AVER:COUN 25"} < set(heard)


def test_a_wavelength_is_set_and_read_back() -> None:
    meter = Meter()

    async def use(driver: ThorlabsPowerMeter) -> None:
        await driver.set_wavelength_nm(532.0)
        meter.takes_wavelength = False
        with pytest.raises(DeviceFault, match="expected 488 nm, found 532 nm"):
            await driver.set_wavelength_nm(488.0)

    assert "SENS:CORR:WAV 532" in measure(use, meter)


@pytest.mark.parametrize("wavelength_nm", [399.9, 1100.1, float("nan"), float("inf")])
def test_a_wavelength_outside_the_heads_range_is_refused_and_nothing_is_sent(wavelength_nm: float) -> None:
    meter = Meter()

    async def use(driver: ThorlabsPowerMeter) -> None:
        before = len(meter.heard)
        with pytest.raises(LimitError, match="allowed is 400 to 1100 nm"):
            await driver.set_wavelength_nm(wavelength_nm)
        assert len(meter.heard) == before

    measure(use, meter)


def test_a_head_of_fixed_wavelength_is_told() -> None:
    meter = Meter()
    meter.head = "S310C,12345678,10-Jan-2024,2,1,1"

    async def use(driver: ThorlabsPowerMeter) -> None:
        with pytest.raises(DeviceFault, match="cannot be set"):
            await driver.set_wavelength_nm(532.0)

    measure(use, meter)


def test_light_beyond_the_range_is_told() -> None:
    meter = Meter()

    async def use(driver: ThorlabsPowerMeter) -> None:
        meter.power = "9.9E+37"
        with pytest.raises(DeviceFault, match="beyond the head's range"):
            await driver.power_mw()

    measure(use, meter)


@pytest.mark.parametrize("head", ["no sensor,,,0,0,0", "ES111C,1,1-Jan-2024,3,1,2"])
def test_a_meter_without_a_head_for_power_is_refused(head: str) -> None:
    meter = Meter()
    meter.head = head
    with pytest.raises(DeviceFault, match="expected a head for optical power"):
        measure(lambda driver: driver.make_safe(), meter)


def test_another_instrument_is_refused() -> None:
    meter = Meter()
    meter.model = "DG1022Z"
    with pytest.raises(DeviceFault, match="expected a Thorlabs power meter, found THORLABS DG1022Z"):
        measure(lambda driver: driver.make_safe(), meter)


def test_a_head_that_is_pulled_out_and_old_errors_are_reported() -> None:
    meter = Meter()

    async def use(driver: ThorlabsPowerMeter) -> None:
        assert await driver.read_faults() == []
        meter.head = "no sensor"
        meter.queue = ['-310,"System error"']
        assert [(fault.code, fault.severe) for fault in await driver.read_faults()] == [("-310", False), ("head", True)]
        meter.queue = ['-310,"System error"']
        await driver.clear_faults()
        assert meter.queue == []

    measure(use, meter)


@pytest.mark.parametrize("count", [0, 10_001])
def test_settings_that_make_no_sense_are_refused(count: int) -> None:
    with pytest.raises(InputError):
        ThorlabsPowerMeter(LineSession(Transport("m", MemoryHost(Meter()).connect)), "m", average_count=count)
