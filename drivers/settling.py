"""What temperature controllers share: the wait until a part has been at its target for a while."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from cartoseq.drivers.errors import DeviceFault, LimitError


def check_wait(device: str, tolerance_c: float, dwell_s: float, timeout_s: float) -> None:
    """Hold that a wait makes sense.

    Raises:
        LimitError: it does not.
    """
    if not (0 < tolerance_c < math.inf and 0 <= dwell_s < math.inf and 0 < timeout_s < math.inf):
        raise LimitError(
            device, f"cannot wait for ±{tolerance_c} K over {dwell_s} s within {timeout_s} s: no such times"
        )


async def await_settled(
    device: str,
    measure_c: Callable[[], Awaitable[float]],
    target_c: float,
    tolerance_c: float,
    dwell_s: float,
    timeout_s: float,
    *,
    poll_s: float,
    longest_poll_s: float | None = None,
    wire: Callable[[], str],
) -> None:
    """Return when a temperature has been within the tolerance of its target for the dwell time.

    Args:
        device: The device's name.
        measure_c: Measures it, and raises where it makes no sense to wait any longer.
        target_c: Its target.
        tolerance_c: How far from its target it may be.
        dwell_s: How long it must have been there.
        timeout_s: How long that may take in all.
        poll_s: How often it is measured at most.
        longest_poll_s: How often at least: so often while it is far, by the speed so far, and within its tolerance;
            `poll_s` if not given.
        wire: The last bytes on the line.

    Raises:
        DeviceFault: it is not there in time.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    longest_s = longest_poll_s or poll_s
    within_since_s: float | None = None
    before_s, before_k = loop.time(), math.nan
    while True:
        measured_c = await measure_c()
        now_s = loop.time()
        too_far_c = abs(measured_c - target_c) - tolerance_c
        if too_far_c > 0:
            within_since_s = None
            came_k, took_s = before_k - too_far_c, now_s - before_s
            # Most of the way that is left, at the speed so far.
            ahead_s = 0.8 * too_far_c * took_s / came_k if came_k > 0 else longest_s
            pause_s = min(max(ahead_s, poll_s), longest_s)
        else:
            within_since_s = now_s if within_since_s is None else within_since_s
            left_s = within_since_s + dwell_s - now_s
            if left_s <= 0:
                return
            pause_s = min(longest_s, left_s)
        if now_s >= deadline_s:
            raise DeviceFault(
                device,
                "not stable",
                f"{measured_c:.2f} °C after {timeout_s:g} s; expected {target_c:.2f} ± {tolerance_c:g} °C "
                f"for {dwell_s:g} s",
                remedy="Is the part in contact, the fan running, and the target within reach?",
                wire=wire(),
            )
        before_s, before_k = now_s, too_far_c
        await asyncio.sleep(min(pause_s, deadline_s - now_s))
