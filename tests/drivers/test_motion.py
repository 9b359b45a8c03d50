from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers import motion
from cartoseq.drivers.errors import (
    Busy,
    DeviceFault,
    Disconnected,
    PositionError,
    ReplyTimeout,
    StallError,
    Stopped,
)
from cartoseq.drivers.motion import Motion, await_rest, begin, check_arrival, travel_s
from cartoseq.simulators.clock import run_virtual


@given(st.floats(0, 1e6), st.floats(0.1, 1e5), st.floats(0.1, 1e6), st.integers(200, 400))
def test_travel_takes_as_long_as_its_profile_summed_up(distance: float, speed: float, rate: float, steps: int) -> None:
    duration_s = travel_s(-distance, speed, rate)
    # The distance under the profile of that duration, by the rule of trapezoids.
    times = [duration_s * i / steps for i in range(steps + 1)]
    speeds = [min(speed, rate * t, rate * (duration_s - t)) for t in times]
    area = sum((a + b) / 2 * duration_s / steps for a, b in itertools.pairwise(speeds))
    assert area == pytest.approx(distance, rel=0.02, abs=1e-9)


def test_without_a_ramp_travel_is_distance_by_speed() -> None:
    assert travel_s(10, 2, math.inf) == 5


def test_what_stops_on_its_way_stalled_and_what_is_elsewhere_was_moved() -> None:
    check_arrival("stage", "X", 0, 100, 100.5, 1, "")
    with pytest.raises(StallError, match="X came to rest at 40 um after a move from 0 to 100 um"):
        check_arrival("stage", "X", 0, 100, 40, 1, "")
    with pytest.raises(PositionError):
        check_arrival("stage", "X", 0, 100, 140, 1, "")


class Mover:
    """Moves for `duration_s` from its start, slows down within `brake_s` once halted."""

    def __init__(self, duration_s: float, brake_s: float = 0.05) -> None:
        self.end_s = duration_s
        self.brake_s = brake_s
        self.halts = 0
        self.deaf = False

    async def is_moving(self) -> bool:
        return asyncio.get_running_loop().time() < self.end_s

    def halt(self) -> None:
        self.halts += 1
        if not self.deaf:
            self.end_s = min(self.end_s, asyncio.get_running_loop().time() + self.brake_s)

    def motion(self) -> Motion:
        return Motion("stage", self.halt, self.is_moving)

    async def move(self, expected_s: float = 10.0) -> None:
        await await_rest("stage", self.is_moving, self.halt, expected_s)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_a_move_ends_when_the_device_rests() -> None:
    async def main() -> None:
        mover = Mover(9.9)
        await mover.motion().run(mover.move())
        assert 9.9 <= now_s() <= 9.9 + motion.POLL_S
        assert mover.halts == 0

    run_virtual(main())


def test_a_move_without_end_is_stopped_at_its_deadline() -> None:
    async def main() -> None:
        mover = Mover(math.inf)
        with pytest.raises(DeviceFault, match="still moving 17 s after the start of a move that takes 10 s"):
            await mover.motion().run(mover.move())
        assert mover.halts == 1

    run_virtual(main())


def test_a_stop_ends_the_move_at_once_and_waits_for_rest() -> None:
    async def main() -> None:
        mover = Mover(10)
        moves = mover.motion()
        moving = asyncio.ensure_future(moves.run(mover.move()))
        await asyncio.sleep(1)
        await moves.stop(0.1)
        assert 1.05 <= now_s() <= 1.05 + motion.POLL_S
        with pytest.raises(Stopped):
            await moving
        await moves.stop(0.1)
        assert mover.halts == 2
        await moves.run(mover.move(0))

    run_virtual(main())


def test_a_stop_before_the_move_has_sent_anything_leaves_it_unsent() -> None:
    async def main() -> None:
        mover = Mover(0)
        moves = mover.motion()
        sent = []

        async def move() -> None:
            sent.append(1)

        moving = asyncio.ensure_future(moves.run(move()))
        await asyncio.sleep(0)
        await moves.stop(0.1)
        with pytest.raises(Stopped):
            await moving
        assert not sent

    run_virtual(main())


def test_a_stop_that_is_not_obeyed_is_said_again_and_then_a_fault() -> None:
    async def main() -> None:
        mover = Mover(math.inf)
        mover.deaf = True
        with pytest.raises(DeviceFault, match=r"still moving .* after it was told to stop"):
            await mover.motion().stop(0.1)
        assert mover.halts == 5

    run_virtual(main())


def test_a_second_move_is_refused_while_the_first_goes_on() -> None:
    async def main() -> None:
        mover = Mover(10)
        moves = mover.motion()
        moving = asyncio.ensure_future(moves.run(mover.move()))
        await asyncio.sleep(1)
        with pytest.raises(Busy):
            await moves.run(mover.move())
        await moving
        assert mover.halts == 0

    run_virtual(main())


def test_a_cancelled_move_is_stopped_and_stays_cancelled() -> None:
    async def main() -> None:
        mover = Mover(10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await mover.motion().run(mover.move())
        assert mover.halts == 1

    run_virtual(main())


@pytest.mark.parametrize(("begun", "sends"), [(True, 1), (False, 3)])
def test_a_move_whose_reply_was_lost_is_sent_again_only_if_it_did_not_begin(begun: bool, sends: int) -> None:
    async def main() -> None:
        sent = []

        async def send() -> None:
            sent.append(1)
            raise ReplyTimeout("stage", "no reply")

        async def has_begun() -> bool:
            return begun

        if begun:
            await begin(send, has_begun)
        else:
            with pytest.raises(ReplyTimeout):
                await begin(send, has_begun)
        assert len(sent) == sends

    run_virtual(main())


def test_a_gone_line_is_not_asked() -> None:
    async def main() -> None:
        async def send() -> None:
            raise Disconnected("stage", "gone")

        async def has_begun() -> Any:
            pytest.fail("asked")

        with pytest.raises(Disconnected):
            await begin(send, has_begun)

    run_virtual(main())


def test_what_still_moves_from_before_is_stopped_and_what_rests_is_left_alone() -> None:
    async def main() -> None:
        mover = Mover(10)
        moves = mover.motion()
        await moves.rest(0.1)
        assert now_s() < 0.1
        assert mover.halts == 1
        await moves.rest(0.1)
        assert mover.halts == 1

    run_virtual(main())
