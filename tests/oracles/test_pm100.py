"""Two clients of Thorlabs power meters against the simulator, over pyvisa and TCP."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cartoseq.simulators.devices.pm100 import Pm100Sim
from cartoseq.simulators.hosts import TcpHost
from cartoseq.simulators.optics import LaserHead, Optics
from cartoseq.simulators.world import World

pyvisa = pytest.importorskip("pyvisa")
TERMINATION = {"read_termination": "\n", "write_termination": "\n", "timeout": 5000}


@pytest.fixture
def sim() -> Pm100Sim:
    head = LaserHead("green", 532.0, 200.0, rise_s=0.0, swing=0.0)
    head.set_mw = 20.0
    head.emit(True, 0.0)
    return Pm100Sim("meter", World(optics=Optics([head])))


@pytest.fixture
def resource(serve: Callable[[Any], Any], sim: Pm100Sim) -> str:
    host = serve(lambda: TcpHost(sim))
    return f"TCPIP::127.0.0.1::{host.port}::SOCKET"


@pytest.fixture
def session(resource: str) -> Iterator[Any]:
    manager = pyvisa.ResourceManager("@py")
    with manager.open_resource(resource, **TERMINATION) as instrument:
        yield instrument
    manager.close()


def test_pyvisa_sees_a_timeout_and_the_reason_in_the_queue(session: Any) -> None:
    assert session.query("*IDN?").startswith("Thorlabs,PM100D,")
    session.timeout = 50
    with pytest.raises(pyvisa.VisaIOError) as failed:
        session.query("SENS:CORR:WAVE?")
    assert failed.value.error_code == pyvisa.constants.StatusCode.error_timeout
    session.timeout = 5000
    assert session.query("SYST:ERR?") == '-113,"Undefined header"'
    assert session.query("SYST:ERR?") == '0,"No error"'


def test_the_thorlabs_client_reads_and_sets(session: Any) -> None:
    client = pytest.importorskip(
        "ThorlabsPM100", reason="ThorlabsPM100 is not installed: the power meter is not checked against it"
    )
    meter = client.ThorlabsPM100(inst=session)
    meter.sense.correction.wavelength = 532
    assert meter.sense.correction.wavelength == 532.0
    meter.sense.average.count = 100
    assert meter.sense.average.count == 100
    meter.sense.power.dc.range.auto = "ON"
    meter.configure.scalar.power()
    assert meter.read == pytest.approx(0.020, rel=0.005)
    assert session.query("SYST:ERR?") == '0,"No error"'


@pytest.mark.filterwarnings("ignore:It is not known whether this device support SCPI")
def test_pymeasure_reads_the_sensors_flags_and_the_power(resource: str) -> None:
    thorlabs = pytest.importorskip(
        "pymeasure.instruments.thorlabs",
        reason="pymeasure is not installed: the power meter is not checked against it",
    )
    meter = thorlabs.ThorlabsPM100USB(resource, visa_library="@py", **TERMINATION)
    try:
        assert meter.sensor_name == "S120C"
        assert meter.is_power_sensor
        assert meter.wavelength_settable
        assert not meter.is_energy_sensor
        assert (meter.wavelength_min, meter.wavelength_max) == (400.0, 1100.0)
        meter.wavelength = 532
        assert meter.wavelength == 532.0
        assert math.isclose(meter.power, 0.020, rel_tol=0.02)
        meter.wavelength = 2000  # it clips by itself
        assert meter.wavelength == 1100.0
    finally:
        meter.adapter.close()
