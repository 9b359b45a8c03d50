"""Limits: those of the instrument file, and those that a device keeps itself."""

from __future__ import annotations

import math

from cartoseq.drivers.capabilities import Range
from cartoseq.drivers.errors import LimitError
from cartoseq.streaming.errors import InputError


def check_within(device: str, what: str, value: float, allowed: Range, unit: str = "um") -> None:
    """Hold that what is asked for is a number within the limits, both ends included.

    Args:
        device: The device's name.
        what: An axis, or another thing that has limits.
        value: What is asked for.
        allowed: Its limits.
        unit: Of all of them.

    Raises:
        LimitError: it is not.
    """
    if not (math.isfinite(value) and value in allowed):
        raise LimitError(
            device,
            f"{what}: {value:.10g} {unit} was asked for, allowed is {allowed.low:.10g} to {allowed.high:.10g} {unit}",
            remedy="Nothing was sent. Check the request, or the limits in the instrument file.",
        )


def common_range(device: str, axis: str, configured: Range, reported: Range, unit: str = "um") -> Range:
    """Return what lies within both the configured limits and those that the device keeps itself.

    Raises:
        InputError: nothing does.
    """
    low, high = max(configured.low, reported.low), min(configured.high, reported.high)
    if not low < high:
        raise InputError(
            device,
            f"the limits of {axis} are {configured.low:.10g} to {configured.high:.10g} {unit}, but the device keeps "
            f"{reported.low:.10g} to {reported.high:.10g} {unit}",
            remedy="Check the limits in the instrument file, and those of the device; a stage may have to be homed.",
        )
    return Range(low, high)
