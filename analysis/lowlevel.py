"""What large tables need of the machine: the prefetch of a cache line, which numba does not offer, and huge pages.

A table lookup in a chip of hundreds of megabytes waits for memory. Asking for the line some sixteen reads ahead
lets many such waits run side by side. A prefetch never faults and never changes a result, so where it cannot be
compiled (JIT switched off, or a numba without intrinsics) it is left out and the kernels are only slower.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from typing import Any, cast

import numba
import numpy as np
from numpy.typing import NDArray

# Tables below this gain nothing from pages of 2 MB.
_LARGE_TABLE = 8 << 20


def empty_table(size: int, dtype: np.dtype[Any] | type[np.generic]) -> NDArray[Any]:
    """An array of undefined or zero content for random access: private memory, in huge pages if it is large.

    A look-up in small pages waits for the page tables too. NumPy asks for huge pages likewise, but gets memory back
    from the allocator whose small pages are there already, and then has none.
    """
    dtype = np.dtype(dtype)
    nbytes = size * dtype.itemsize
    if nbytes < _LARGE_TABLE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(size, dtype)
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages is only slower
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype, size)


def _without_prefetch(array: Any, index: Any) -> None:
    """Do nothing: the stand-in where a prefetch cannot be compiled."""


def _compiled_prefetch() -> Callable[[Any, Any], None]:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def prefetch_element(typingctx: Any, array: Any, index: Any) -> Any:
        """Ask for the cache line of ``array[index]``; index must lie inside the array, or just behind it."""
        if not isinstance(array, types.Array) or not isinstance(index, types.Integer):
            return None

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            view = context.make_array(signature.args[0])(context, builder, arguments[0])
            element = builder.gep(view.data, [arguments[1]])
            byte_pointer = ir.IntType(8).as_pointer()
            flag = ir.IntType(32)
            function = builder.module.declare_intrinsic(
                f"llvm.prefetch.{_pointer_suffix(byte_pointer)}",
                fnty=ir.FunctionType(ir.VoidType(), [byte_pointer, flag, flag, flag]),
            )
            # For reading, kept in all cache levels, data.
            hints = [ir.Constant(flag, 0), ir.Constant(flag, 3), ir.Constant(flag, 1)]
            builder.call(function, [builder.bitcast(element, byte_pointer), *hints])
            return context.get_dummy_value()

        return types.void(array, index), codegen

    return cast(Callable[[Any, Any], None], prefetch_element)


def _pointer_suffix(pointer: Any) -> str:
    """How LLVM mangles the pointer in an intrinsic's name: ``p0`` with opaque pointers, ``p0i8`` before."""
    return "p0" if str(pointer) == "ptr" else "p0i8"


def _choose() -> Callable[[Any, Any], None]:
    if vars(numba.config)["DISABLE_JIT"]:
        return _without_prefetch
    try:
        return _compiled_prefetch()
    except (ImportError, AttributeError):
        return cast(Callable[[Any, Any], None], numba.njit(nogil=True)(_without_prefetch))


prefetch: Callable[[Any, Any], None] = _choose()
