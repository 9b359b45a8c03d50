"""A power meter: what it shows of the light at the sample, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest

from cartoseq.simulators.devices.pm100 import Pm100Sim
from cartoseq.simulators.optics import LaserHead, Optics
from cartoseq.simulators.wire import ByteServer
from cartoseq.simulators.world import World


def meter(power_mw: float = 0.0, **options: Any) -> Pm100Sim:
    head = LaserHead("green", 532.0, 400.0, rise_s=0.0, swing=0.0)
    head.set_mw = power_mw
    head.emit(power_mw > 0, 0.0)
    return Pm100Sim("meter", World(optics=Optics([head], {"objective": 0.5})), **options)


def ask(server: ByteServer, text: str, at_s: float = 0.0) -> str:
    server.receive(text.encode() + b"\n", at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply.decode()


def power_w(sim: Pm100Sim, at_s: float = 0.0) -> float:
    return float(ask(sim, "MEAS:POW?", at_s))


def test_it_says_who_it_is_and_what_its_sensor_is() -> None:
    sim = meter()
    assert ask(sim, "*IDN?").startswith("Thorlabs,PM100D,")
    assert ask(sim, "SYST:SENS:IDN?") == "S120C,12345678,10-Jan-2024,1,1,33\n"
    sim.inject("no_sensor", 0.0)
    assert ask(sim, "SYSTEM:SENSOR:IDN?").startswith("no sensor,")
    assert ask(sim, "MEAS:POW?") == ""
    assert ask(sim, "SYST:ERR?") == '-310,"System error"\n'


def test_it_shows_the_light_at_the_sample() -> None:
    sim = meter(100.0)
    assert ask(sim, "SENS:CORR:WAV 532;:SENS:AVER:COUN 100") == ""
    assert power_w(sim) == pytest.approx(0.05, rel=0.002)
    assert sim.inspect(0.0)["light_mw"] == 50.0
    assert ask(sim, "CONF:POW;:READ?", 1.0).endswith("E-02\n")


def test_a_wrong_wavelength_shows_a_wrong_power() -> None:
    sim = meter(100.0)
    ask(sim, "SENS:CORR:WAV 1064;:SENS:AVER:COUN 100")
    assert power_w(sim) == pytest.approx(0.025, rel=0.002)


def test_a_wavelength_out_of_the_sensors_range_is_refused() -> None:
    sim = meter()
    assert ask(sim, "SENS:CORR:WAV? MIN;WAV? MAX") == "4.000000E+02;1.100000E+03\n"
    ask(sim, "SENS:CORR:WAV 1200")
    assert ask(sim, "SYST:ERR?") == '-222,"Data out of range"\n'
    assert ask(sim, "SENS:CORR:WAV?") == "6.350000E+02\n"


def test_zeroing_takes_off_what_is_there_and_takes_its_time() -> None:
    sim = meter()
    assert power_w(sim) == pytest.approx(5e-8, rel=0.5)
    ask(sim, "SENS:CORR:COLL:ZERO:INIT", 1.0)
    assert ask(sim, "SENS:CORR:COLL:ZERO:STAT?", 2.0) == "1\n"
    assert ask(sim, "SENS:CORR:COLL:ZERO:STAT?", 3.1) == "0\n"
    assert abs(power_w(sim, 4.0)) < 3e-8
    sim.receive(b"SENS:CORR:COLL:ZERO:INIT;*OPC?\n", 10.0)
    assert sim.messages(11.9) == []
    assert sim.messages(12.1) == [b"1\n"]


def test_zeroing_under_stray_light_is_wrong_afterwards() -> None:
    sim = meter(100.0)
    ask(sim, "SENS:CORR:WAV 532;:SENS:AVER:COUN 100")
    sim.inject("stray_light", 0.0, power_mw=10.0)
    assert power_w(sim) == pytest.approx(0.06, rel=0.002)
    ask(sim, "SENS:CORR:COLL:ZERO", 1.0)
    sim.clear(5.0)
    assert power_w(sim, 5.0) == pytest.approx(-0.01, abs=2e-4)


def test_averages_take_time_and_lessen_the_noise() -> None:
    sim = meter(100.0)
    ask(sim, "SENS:CORR:WAV 532")
    single = [power_w(sim, float(i)) for i in range(50)]
    ask(sim, "SENS:AVER:COUN 1000", 60.0)
    sim.receive(b"MEAS:POW?\n", 60.0)
    assert sim.due_s() == pytest.approx(60.302)
    sim.messages(61.0)
    averaged = [power_w(sim, 70.0 + i) for i in range(50)]
    assert max(averaged) - min(averaged) < (max(single) - min(single)) / 10


def test_ranges_and_units() -> None:
    sim = meter(100.0)
    ask(sim, "SENS:CORR:WAV 532;:SENS:POW:RANG 0.001")
    assert ask(sim, "SENS:POW:RANG?;RANG:AUTO?") == "5.000000E-03;0\n"
    assert power_w(sim) == 9.9e37
    ask(sim, "SENS:POW:RANG:AUTO ON;:SENS:POW:UNIT DBM")
    assert power_w(sim) == pytest.approx(16.99, abs=0.1)
    assert ask(sim, "SENS:POW:UNIT?") == "DBM\n"
    ask(sim, "*RST")
    assert ask(sim, "SENS:POW:UNIT?") == "W\n"


def test_faults() -> None:
    sim = meter(100.0)
    ask(sim, "SENS:CORR:WAV 532")
    sim.inject("gain_error", 0.0, factor=2.0)
    assert power_w(sim) == pytest.approx(0.1, rel=0.02)
    sim.inject("busy_for_ever", 1.0)
    assert ask(sim, "MEAS:POW?", 1.0) == ""
    assert ask(sim, "*OPC?", 2.0) == ""
    sim.clear(3.0)
    assert sim.messages(3.1) == [b"1\n"]
    sim.inject("power_cycle", 4.0)
    assert ask(sim, "SENS:CORR:WAV?", 4.0) == "6.350000E+02\n"
    assert ask(sim, "*ESR?", 4.0) == "128\n"


def test_the_same_seed_shows_the_same() -> None:
    assert [power_w(meter(100.0, seed=5)) for _ in range(2)] == [power_w(meter(100.0, seed=5))] * 2
    assert power_w(meter(100.0, seed=5)) != power_w(meter(100.0, seed=6))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a range of wavelengths"):
        meter(low_nm=500.0, high_nm=400.0)
