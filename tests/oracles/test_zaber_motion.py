"""Zaber's own client against the simulator, over TCP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cartoseq.simulators.devices.zaber import ZaberSim
from cartoseq.simulators.hosts import TcpHost
from cartoseq.simulators.wire import Bus

zaber_motion = pytest.importorskip(
    "zaber_motion", reason="zaber-motion is not installed: the Zaber simulator is not checked against it"
)

SPEED = 5.0


@pytest.fixture
def stages() -> tuple[ZaberSim, ZaberSim]:
    """A device with X and Y, and one with Z, on one line."""
    return ZaberSim("xy"), ZaberSim("z", address=2, travel_um=[20_000.0], microstep_um=0.1)


@pytest.fixture
def devices(serve: Callable[[Any], Any], stages: tuple[ZaberSim, ZaberSim]) -> Iterator[list[Any]]:
    from zaber_motion.ascii import Connection

    host = serve(lambda: TcpHost(Bus(stages), speed=SPEED))
    with Connection.open_tcp("127.0.0.1", host.port) as connection:
        yield connection.detect_devices(identify_devices=False)


def test_it_finds_both_devices(devices: list[Any]) -> None:
    assert [device.device_address for device in devices] == [1, 2]
    reply = devices[0].generic_command("get pos")
    assert (reply.reply_flag, reply.status, reply.warning_flag, reply.data) == ("OK", "IDLE", "WR", "0 0")


def test_it_homes_and_moves(devices: list[Any]) -> None:
    for device, number, target in ((devices[0], 1, 10_000), (devices[0], 2, 200), (devices[1], 1, 4321)):
        axis = device.get_axis(number)
        assert axis.warnings.get_flags() == {"WR"}
        axis.home()
        assert axis.warnings.get_flags() == set()
        assert axis.get_position() == 0
        axis.move_absolute(target)
        axis.move_relative(-21)
        assert not axis.is_busy()
        assert axis.get_position() == target - 21


def test_it_stops_a_move(devices: list[Any]) -> None:
    axis = devices[0].get_axis(1)
    axis.home()
    axis.move_max(wait_until_idle=False)
    assert axis.is_busy()
    axis.stop()
    assert 0 < axis.get_position() < 640_000


def test_it_reads_and_sets_settings(devices: list[Any]) -> None:
    settings = devices[0].get_axis(1).settings
    assert settings.get("limit.max") == 640_000
    settings.set("maxspeed", 5000)
    assert settings.get("maxspeed") == 5000


def test_it_understands_rejections(devices: list[Any]) -> None:
    from zaber_motion.exceptions.bad_command_exception import BadCommandException
    from zaber_motion.exceptions.bad_data_exception import BadDataException

    axis = devices[0].get_axis(1)
    with pytest.raises(BadCommandException):
        axis.generic_command("fly")
    with pytest.raises(BadDataException):
        axis.move_absolute(10)


def test_it_understands_a_stall(devices: list[Any], stages: tuple[ZaberSim, ZaberSim]) -> None:
    from zaber_motion.exceptions.movement_failed_exception import MovementFailedException

    axis = devices[0].get_axis(1)
    axis.home()
    stages[0].axes["1"].block(1000.0, 0.0)
    with pytest.raises(MovementFailedException, match="FS"):
        axis.move_absolute(64_000)
    assert axis.get_position() == 6400
