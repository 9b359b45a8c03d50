"""Machine instructions on 64-bit words that reads need: count the set bits, find the lowest, reverse the bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numba


def _compiled() -> tuple[Callable[[Any], Any], ...]:
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

    @intrinsic
    def reverse(typingctx: Any, word: Any) -> Any:
        """Return the bytes of a uint64 in reverse order."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bswap(arguments[0])

        return types.uint64(types.uint64), codegen

    return cast(tuple[Callable[[Any], Any], ...], (count, lowest, reverse))


def _count_plainly(word: Any) -> Any:
    return int(word).bit_count()


def _lowest_plainly(word: Any) -> Any:
    number = int(word)
    return (number & -number).bit_length() - 1 if number else 64


def _reverse_plainly(word: Any) -> Any:
    return type(word)(int.from_bytes(int(word).to_bytes(8, "little"), "big"))


count_bits, lowest_bit, reverse_bytes = (
    (_count_plainly, _lowest_plainly, _reverse_plainly) if vars(numba.config)["DISABLE_JIT"] else _compiled()
)
