"""The decorator of the simulators' numba kernels: compiled without the GIL, machine code kept on disk.

A twin of the one in ``streaming``: simulators import nothing of the parts that they test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a free function, arrays in and arrays out."""
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def inlined(function: F) -> F:
    """Compile a leaf helper of kernels in the same module, and inline it there."""
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")(function))
