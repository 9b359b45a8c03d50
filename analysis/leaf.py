"""The decorator of kernels that allocate nothing: compiled without numba's reference counting.

Numba counts references to every array that a function touches, with atomic instructions at each call and each named
tuple that is opened. In kernels of a few dozen nanoseconds, called many times per read, that is most of the time
(aligning a read at one place: 190 ns with, 55 ns without). A leaf gets its scratch arrays from its caller, and only
works on views of what it was given, which the caller keeps alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cartoseq.streaming.kernel import compiled, inlined

F = TypeVar("F", bound=Callable[..., object])


def leaf(function: F) -> F:
    """Compile a function that allocates nothing: without the GIL, without reference counting, kept on disk."""
    return compiled(function, _nrt=False)


def inlined_leaf(function: F) -> F:
    """Compile a helper of leaves, and have LLVM put it where it is called: a call hands on some twenty registers."""
    return inlined(function, _nrt=False)
