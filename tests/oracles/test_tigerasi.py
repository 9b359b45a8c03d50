"""The Allen Institute's client of the Tiger controller against the simulator, over a pseudo-terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cartoseq.simulators.devices.asi import AsiSim
from cartoseq.simulators.hosts import PtyHost

tiger_controller = pytest.importorskip(
    "tigerasi.tiger_controller", reason="tigerasi is not installed: the ASI simulator is not checked against it"
)


@pytest.fixture
def box(serve: Callable[[Any], Any]) -> Iterator[Any]:
    host = serve(lambda: PtyHost(AsiSim("stage", controller="tiger"), speed=5.0))
    controller = tiger_controller.TigerController(host.path)
    yield controller
    controller.ser.close()


def wait(box: Any) -> None:
    # Its own `wait` never ends: it takes a dict with False in it for true.
    deadline_s = time.monotonic() + 20
    while any(box.are_axes_moving().values()):
        assert time.monotonic() < deadline_s


def test_it_finds_the_axes_and_their_cards(box: Any) -> None:
    assert box.ordered_axes == ["X", "Y", "Z"]
    assert box.axis_to_card == {"X": ("31", 0), "Y": ("31", 1), "Z": ("32", 0)}
    assert box.axis_to_type == {"X": "x", "Y": "x", "Z": "z"}


def test_it_moves_there_and_reads_it(box: Any) -> None:
    box.move_absolute(x=40_000, y=-200)
    assert box.are_axes_moving()["X"]
    wait(box)
    assert box.get_position() == {"X": 40_000, "Y": -200, "Z": 0}
    box.move_relative(z=-100)
    wait(box)
    assert box.get_position("z", "x") == {"X": 40_000, "Z": -100}


def test_it_reads_and_sets_speed_and_limits(box: Any) -> None:
    assert box.get_speed("x", "y") == {"X": 5.745, "Y": 5.745}
    box.set_speed(x=2.5)
    assert box.get_speed("x") == {"X": 2.5}
    assert box.get_acceleration("x") == {"X": 50.0}
    assert box.get_axis_backlash("x") == {"X": 0.04}
    assert box.get_lower_travel_limit("x", "y") == {"X": -57.5, "Y": -37.5}
    box.set_upper_travel_limit(x=1.5)
    assert box.get_upper_travel_limit("x") == {"X": 1.5}


def test_it_sets_the_position(box: Any) -> None:
    box.move_absolute(x=1000)
    wait(box)
    box.set_position(x=0)
    assert box.get_position("x") == {"X": 0}


def test_it_understands_a_refused_target(box: Any) -> None:
    with pytest.raises(SyntaxError, match="PARAMETER_OUT_OF_RANGE"):
        box.move_absolute(x=99_999_999)
    with pytest.raises(SyntaxError, match="UNKNOWN_CMD"):
        box.send("FOO\r")


def test_it_understands_a_halt_and_finds_the_stage_in_between(box: Any) -> None:
    box.move_absolute(x=500_000)
    with pytest.raises(SyntaxError, match="SERIAL_CMD_HALTED"):
        box.halt()
    wait(box)
    box.halt()
    assert 0 < box.get_position("x")["X"] < 500_000
