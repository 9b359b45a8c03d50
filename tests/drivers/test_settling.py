from __future__ import annotations

import asyncio
import math

import pytest

from cartoseq.drivers.errors import DeviceFault, LimitError
from cartoseq.drivers.settling import await_settled, check_wait
from cartoseq.simulators.clock import run_virtual


def settle(course: dict[float, float], *, dwell_s: float = 5.0, timeout_s: float = 60.0, far_s: float = 1.0) -> float:
    """How long it takes to settle at 55 °C, where the temperature is so much from these times on."""

    async def main() -> float:
        async def measure_c() -> float:
            return next(value_c for since_s, value_c in reversed(course.items()) if since_s <= now_s())

        await await_settled(
            "plate",
            measure_c,
            55.0,
            0.5,
            dwell_s,
            timeout_s,
            poll_s=0.1,
            longest_poll_s=far_s,
            wire=lambda: "",
        )
        return now_s()

    return run_virtual(main())


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_it_has_settled_after_the_dwell_time_and_no_later() -> None:
    assert settle({0.0: 20.0, 9.95: 54.5}) == pytest.approx(15.0)
    assert settle({0.0: 55.0}, dwell_s=0.0) == 0.0


def test_an_excursion_begins_the_dwell_time_anew() -> None:
    assert settle({0.0: 55.0, 3.0: 55.6, 3.2: 55.0}, far_s=0.1) == pytest.approx(8.2, abs=0.11)


def test_what_does_not_settle_in_time_is_told() -> None:
    with pytest.raises(DeviceFault, match=r"plate: 40.00 °C after 60 s; expected 55.00 ± 0.5 °C for 5 s"):
        settle({0.0: 40.0})


@pytest.mark.parametrize("wait", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 0.0), (1.0, math.nan, 1.0)])
def test_a_wait_that_makes_no_sense_is_refused(wait: tuple[float, float, float]) -> None:
    with pytest.raises(LimitError, match="plate: cannot wait"):
        check_wait("plate", *wait)
    check_wait("plate", 1.0, 0.0, 1.0)
