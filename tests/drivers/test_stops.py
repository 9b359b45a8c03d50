from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cartoseq.drivers.errors import Busy, DeviceFault, Stopped
from cartoseq.drivers.stops import Actions, see_off
from cartoseq.simulators.clock import run_virtual


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_an_action_gives_what_it_returns_and_raises_what_it_raises() -> None:
    async def main() -> None:
        actions = Actions("laser")
        assert await actions.do(asyncio.sleep(1.0, "done")) == "done"
        with pytest.raises(TimeoutError):
            await actions.do(asyncio.wait_for(asyncio.sleep(9.0), 1.0))
        assert now_s() == pytest.approx(2.0)

    run_virtual(main())


def test_a_stop_ends_all_actions_at_once_and_nothing_of_theirs_goes_on() -> None:
    async def main() -> None:
        actions = Actions("laser", remedy="Begin again.")
        sent: list[float] = []

        async def send_now_and_then() -> None:
            while True:
                await asyncio.sleep(0.4)
                sent.append(now_s())

        both = [asyncio.ensure_future(actions.do(send_now_and_then())) for _ in range(2)]
        await asyncio.sleep(1.0)
        actions.stop()
        assert actions.stops == 1
        for action in both:
            with pytest.raises(Stopped, match=r"laser: was stopped before it was done. Begin again."):
                await action
        await asyncio.sleep(1.0)
        assert sent == pytest.approx([0.4, 0.4, 0.8, 0.8])

    run_virtual(main())


def test_an_action_that_was_about_to_begin_or_go_on_is_ended_as_well() -> None:
    async def main() -> None:
        actions = Actions("laser")
        reply = asyncio.get_running_loop().create_future()
        sent = []

        async def send_when_answered() -> None:
            await reply
            sent.append(1)

        waiting = asyncio.ensure_future(actions.do(send_when_answered()))
        await asyncio.sleep(0.1)
        beginning = asyncio.ensure_future(actions.do(send_when_answered()))
        asyncio.get_running_loop().call_soon(actions.stop)  # once `beginning` is a task that has not run yet
        reply.set_result(None)
        for action in (waiting, beginning):
            with pytest.raises(Stopped):
                await action
        assert not sent

    run_virtual(main())


def test_what_begins_after_a_stop_is_not_ended_by_it_and_stops_may_be_repeated() -> None:
    async def main() -> None:
        actions = Actions("laser")
        actions.stop()
        actions.stop()
        await actions.do(asyncio.sleep(2.0))
        assert now_s() == pytest.approx(2.0)

    run_virtual(main())


def test_an_action_within_an_action_is_ended_with_it() -> None:
    async def main() -> None:
        actions = Actions("laser")

        async def outer() -> None:
            await actions.do(asyncio.sleep(5.0))

        action = asyncio.ensure_future(actions.do(outer()))
        await asyncio.sleep(1.0)
        actions.stop()
        with pytest.raises(Stopped):
            await action

    run_virtual(main())


def test_there_may_be_but_one_action_at_a_time() -> None:
    async def main() -> None:
        actions = Actions("pump", one_at_a_time=True)
        first = asyncio.ensure_future(actions.do(asyncio.sleep(2.0)))
        await asyncio.sleep(1.0)
        with pytest.raises(Busy, match="pump: is at work already"):
            await actions.do(asyncio.sleep(1.0))
        await first
        await actions.do(asyncio.sleep(1.0))

    run_virtual(main())


@pytest.mark.parametrize("is_stopped", [False, True])
def test_who_is_cancelled_stays_so_and_abandons_the_device_unless_it_was_stopped(is_stopped: bool) -> None:
    abandoned: list[Any] = []

    async def main() -> None:
        actions = Actions("pump", abandon=lambda: abandoned.append(now_s()))
        caller = asyncio.ensure_future(actions.do(asyncio.sleep(9.0)))
        await asyncio.sleep(1.0)
        caller.cancel()
        if is_stopped:
            actions.stop()
        with pytest.raises(asyncio.CancelledError):
            await caller

    run_virtual(main())
    assert abandoned == ([] if is_stopped else [1.0])


@pytest.mark.parametrize(("deaf_to", "told"), [(0, 0), (2, 2)])
def test_what_is_not_off_is_switched_off_again(deaf_to: int, told: int) -> None:
    heard = 0

    async def is_on() -> bool:
        return heard < deaf_to

    async def switch_off() -> None:
        nonlocal heard
        heard += 1

    run_virtual(see_off(is_on, switch_off, lambda: DeviceFault("laser", "on", "stays on")))
    assert heard == told


def test_what_stays_on_is_a_fault() -> None:
    async def say(answer: bool) -> bool:
        return answer

    async def main() -> None:
        with pytest.raises(DeviceFault, match="laser: stays on"):
            await see_off(lambda: say(True), lambda: say(True), lambda: DeviceFault("laser", "on", "stays on"))
        assert now_s() == pytest.approx(2.0, abs=0.1)

    run_virtual(main())
