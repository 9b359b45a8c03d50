"""Two machine instructions on 64-bit words that the comparison of reads needs: count the set bits, find the lowest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numba


def _compiled() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def count(typingctx: Any, word: Any) -> Any:
        """Count the bits of a uint64 that are set."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.ctpop(arguments[0])

        return types.uint64(types.uint64), codegen

    @intrinsic
    def lowest(typingctx: Any, word: Any) -> Any:
        """Return the place of the lowest bit of a uint64 that is set; 64 of zero."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

        return types.uint64(types.uint64), codegen

    return cast(Callable[[Any], Any], count), cast(Callable[[Any], Any], lowest)


def _count_plainly(word: Any) -> Any:
    return int(word).bit_count()


def _lowest_plainly(word: Any) -> Any:
    number = int(word)
    return (number & -number).bit_length() - 1 if number else 64


count_bits, lowest_bit = (_count_plainly, _lowest_plainly) if vars(numba.config)["DISABLE_JIT"] else _compiled()
