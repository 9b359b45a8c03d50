"""The decorator that every numba kernel wears: compiled, typed by its arguments, without the GIL, cached on disk.

A kernel is a free function, arrays in and arrays out, with no Python object per read. Integer literals in key code
are ``np.uint64(n)``: mixing uint64 with int64 loses bits. Kernels that call each other live in one module, since the
cache does not notice a change in another file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a function with numba, without the GIL, and keep the machine code on disk for the next start."""
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def inlined(function: F) -> F:
    """Compile a leaf helper that is called from a kernel of the same module, and inline it there."""
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")(function))
