from __future__ import annotations

import asyncio

import pytest

from cartoseq.drivers.errors import ChecksumError, Disconnected, ReplyTimeout, Stopped
from cartoseq.drivers.stops import Stops
from cartoseq.simulators.clock import run_virtual


def test_a_stop_wakes_who_sleeps_at_once() -> None:
    async def main() -> None:
        stops = Stops("laser")
        sleeping = asyncio.ensure_future(stops.begin().sleep(100.0))
        await asyncio.sleep(1.0)
        stops.stop()
        with pytest.raises(Stopped, match="laser: was stopped"):
            await sleeping
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)

    run_virtual(main())


def test_an_action_that_began_after_the_stop_is_not_ended_by_it() -> None:
    async def main() -> None:
        stops = Stops("laser")
        stops.stop()
        await stops.begin().sleep(2.0)
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)

    run_virtual(main())


def test_what_sees_a_stop_through_is_not_ended_by_a_second_one() -> None:
    async def main() -> None:
        stops = Stops("laser")
        first = stops.stop()
        stops.stop()
        first.check()

    run_virtual(main())


@pytest.mark.parametrize(
    ("failures", "tries", "calls"),
    [([], 3, 1), ([ReplyTimeout("x", "late")], 3, 2), ([ReplyTimeout("x", "late"), ChecksumError("x", "bad")], 3, 3)],
)
def test_an_exchange_is_repeated_until_it_succeeds(failures: list[Exception], tries: int, calls: int) -> None:
    made = 0

    async def exchange() -> str:
        nonlocal made
        made += 1
        if failures:
            raise failures.pop(0)
        return "yes"

    assert run_virtual(Stops("x").begin().repeat(exchange, tries=tries)) == "yes"
    assert made == calls


@pytest.mark.parametrize(("failure", "calls"), [(ReplyTimeout("x", "late"), 3), (Disconnected("x", "gone"), 1)])
def test_the_last_failure_is_raised_and_a_line_that_is_gone_at_once(failure: Exception, calls: int) -> None:
    made = 0

    async def exchange() -> None:
        nonlocal made
        made += 1
        raise failure

    with pytest.raises(type(failure)):
        run_virtual(Stops("x").begin().repeat(exchange, tries=3))
    assert made == calls


def test_nothing_is_sent_again_after_a_stop() -> None:
    made = 0

    async def main() -> None:
        stops = Stops("x")

        async def exchange() -> None:
            nonlocal made
            made += 1
            stops.stop()
            raise ReplyTimeout("x", "late")

        with pytest.raises(Stopped):
            await stops.begin().repeat(exchange)

    run_virtual(main())
    assert made == 1
