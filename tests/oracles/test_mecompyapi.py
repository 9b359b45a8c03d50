"""A client of Meerstetter controllers against the simulator, over a pseudo-terminal."""

from __future__ import annotations

import importlib
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cartoseq.simulators.devices.meerstetter import MeerstetterSim, checksum
from cartoseq.simulators.hosts import PtyHost
from cartoseq.simulators.thermal import Plate
from cartoseq.simulators.world import World

pytest.importorskip(
    "mecompyapi", reason="mecompyapi is not installed: the Meerstetter simulator is not checked against it"
)
with pytest.MonkeyPatch.context() as patch:
    # It imports the FTDI maker's library, which is not on PyPI, even where only a serial port is used.
    patch.setitem(sys.modules, "ftd2xx", types.SimpleNamespace(FTD2XX=None, defines=None))
    tec: Any = importlib.import_module("mecompyapi.tec")


@pytest.fixture
def box(serve: Callable[[Any], Any]) -> Iterator[Any]:
    world = World(plates={"flow_cell": Plate()})
    sim = MeerstetterSim("tec", world, plates=["flow_cell"], address=7, serial_number=4242)
    host = serve(lambda: PtyHost(sim, speed=100.0))
    client = tec.MeerstetterTEC()
    client.connect_serial_port(port=host.path)
    # It begins with a random number and counts on above 65,535, where its frames become one digit too long.
    client.mecom_basic_cmd.mequery_set.sequence_number = 0
    yield client
    client.tear()


def test_it_finds_the_address_and_reads_who_it_is(box: Any) -> None:
    assert box.address == 7
    assert box.get_device_type() == 1091
    assert box.get_serial_number() == 4242
    assert box.get_firmware_version() == 310
    assert box.get_firmware_identification_string().startswith("1091")


def test_it_regulates_until_stable(box: Any) -> None:
    assert box.get_device_status() == tec.DeviceStatus.READY
    box.set_proportional_gain(70.0)
    assert box.get_proportional_gain() == 70.0
    box.set_temperature(45.0)
    box.enable()
    assert box.get_device_status() == tec.DeviceStatus.RUN
    assert box.get_setpoint_temperature() == 45.0
    deadline_s = time.monotonic() + 30
    while not box.is_temperature_stable():
        assert time.monotonic() < deadline_s
    assert box.get_temperature() == pytest.approx(45.0, abs=0.15)
    assert box.get_tec_current() > 0
    box.disable()
    assert box.get_tec_current() == 0.0


def test_it_sees_limits_as_errors(box: Any) -> None:
    box.set_current_limitation(2.5)
    assert box.get_current_limitation() == 2.5
    box.set_temperature(60.0)
    box.set_temperature(500.0)  # its client does not look at server errors
    assert box.get_output_stage_enable() == tec.OutputStageEnable.STATIC_OFF


def test_it_resets(box: Any) -> None:
    box.reset()
    time.sleep(0.05)
    assert box.get_device_status() in (tec.DeviceStatus.INIT, tec.DeviceStatus.READY)


def test_its_checksum_is_ours() -> None:
    crc = pytest.importorskip("PyCRC.CRCCCITT").CRCCCITT()
    for data in (b"123456789", b"", b"#0215AB?VR03E801", bytes(range(256))):
        assert crc.calculate(data) == checksum(data)
