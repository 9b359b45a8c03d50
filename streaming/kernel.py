"""The decorator that every numba kernel wears: compiled, typed by its arguments, without the GIL, cached on disk.

A kernel is a free function, arrays in and arrays out, with no Python object per read. Integer literals in key code
are ``np.uint64(n)``: mixing uint64 with int64 loses bits.

Compiling is what a first start waits for, so kernels differ from numba's own functions in a few points:

* A kernel that another one calls gets no way in from Python, which takes as long to compile as a short kernel.
* A constant argument does not compile a kernel anew.
* Processes that need the same kernel at once do not all compile it: the others wait, and take what the first one put
  on disk.
* No garbage is collected meanwhile: that is a fifth of the time.
* Machine code on disk is that of all the source that it was made of (`streaming.sourcestamp`), not of one file.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher

from cartoseq.streaming.sourcestamp import source_stamp

F = TypeVar("F", bound=Callable[..., object])

_NUMBA: Any = numba
_TYPES: Any = types
_CACHING: Any = caching
_OPTIONS = {"nopython": True, "nogil": True, "error_model": "numpy", "boundscheck": None, "no_cfunc_wrapper": True}


def kernel(function: F) -> F:
    """Compile a function with numba, without the GIL, and keep the machine code on disk for the next start."""
    return compiled(function)


def inlined(function: F, **options: Any) -> F:
    """Compile a helper of kernels, and have LLVM put it where it is called.

    (Numba's own way of inlining would infer the helper's types anew at each place.)
    """
    return compiled(function, forceinline=True, **options)


def compiled(function: F, **options: Any) -> F:
    """Compile a function with what all kernels have in common, and further options of numba."""
    if _NUMBA.config.DISABLE_JIT:
        return function
    return cast(F, _Kernel(function, targetoptions={**_OPTIONS, **options}))


def compile_inner(function: Callable[..., object], *arguments: object) -> None:
    """Compile a kernel as kernels call it, for arguments of these types, without calling it."""
    if isinstance(function, _Kernel):
        inner: Any = function.inner
        inner.compile(tuple(_NUMBA.typeof(argument) for argument in arguments))


def is_kept(function: Callable[..., object]) -> bool:
    """Tell whether machine code of a kernel, made of the source as it is now, is on disk, or none is wanted."""
    return not isinstance(function, _Function) or function.cache.is_filled


class _Cache(caching.FunctionCache):
    """The machine code of one kernel on disk."""

    def __init__(self, function: Callable[..., object], kind: str) -> None:
        parent: Any = super()
        parent.__init__(function)
        name = self._impl.filename_base + kind
        self._cache_file = _CACHING.IndexDataCacheFile(
            cache_path=self.cache_path,
            filename_base=name,
            source_stamp=source_stamp(Path(function.__code__.co_filename)),
        )
        self._lock_path = Path(self.cache_path) / f"{name}.lock"

    @property
    def is_filled(self) -> bool:
        index: Any = self._cache_file
        return bool(index._load_index())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this kernel against other processes; where the file system cannot, go on without."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):
                fcntl.flock(held.enter_context(self._lock_path.open("ab")), fcntl.LOCK_EX)
            yield


class _Function(CPUDispatcher):
    """A function that numba compiles when it is needed, in the way described above."""

    @cached_property
    def cache(self) -> _Cache:
        """Its machine code on disk. Not looked for before it is needed: there are a hundred kernels."""
        return _Cache(self.py_func, ".inner" if "no_cpython_wrapper" in self.targetoptions else "")

    def get_call_template(self, args: Any, kws: Any) -> Any:
        plain = [_TYPES.unliteral(kind) for kind in args]
        return super().get_call_template(plain, {name: _TYPES.unliteral(kind) for name, kind in kws.items()})

    def compile(self, sig: Any) -> Any:
        self._cache = self.cache
        # Within this process first: a thread that holds a kernel on disk must not wait for one that waits for it.
        with global_compiler_lock, self.cache.locked(), _no_collection():
            return super().compile(sig)


class _Kernel(_Function):
    """A function as Python calls it."""

    @cached_property
    def inner(self) -> _Function:
        """The same function as kernels call it."""
        return _Function(self.py_func, self.locals, {**self.targetoptions, "no_cpython_wrapper": True})

    @property
    def _numba_type_(self) -> Any:
        return _TYPES.Dispatcher(self.inner)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
