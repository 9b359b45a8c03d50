from __future__ import annotations

import math

import pytest

from cartoseq.drivers.capabilities import Range
from cartoseq.drivers.errors import LimitError
from cartoseq.drivers.limits import check_within, common_range
from cartoseq.streaming.errors import InputError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10.001, -0.001])
def test_only_finite_targets_within_the_limits_pass(value: float) -> None:
    with pytest.raises(LimitError, match=r"stage: X: .* um was asked for, allowed is 0 to 10 um"):
        check_within("stage", "X", value, Range(0, 10))
    check_within("stage", "X", 10, Range(0, 10))


def test_limits_are_what_file_and_device_both_allow() -> None:
    assert common_range("stage", "X", Range(-5, 5), Range(0, 9)) == Range(0, 5)
    with pytest.raises(InputError, match="the limits of X are 0 to 1 um, but the device keeps 2 to 3 um"):
        common_range("stage", "X", Range(0, 1), Range(2, 3))
