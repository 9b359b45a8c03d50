"""Machine instructions on memory addresses, for kernels whose tables lie in pages that are no array.

An address is a uint64. Nothing is checked: a wrong address is a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_WORDS = {16: types.uint16, 32: types.uint32, 64: types.uint64}


def _loader(bits: int) -> Callable[[Any], Any]:
    def define(_context: Any, _address: Any) -> tuple[Any, Any]:
        def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            value = builder.load(builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer()))
            return value if bits == 64 else builder.zext(value, ir.IntType(64))

        return types.uint64(types.uint64), generate

    return cast(Callable[[Any], Any], intrinsic(define))


def _storer(bits: int) -> Callable[[Any, Any], None]:
    def define(_context: Any, _address: Any, _value: Any) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            value = arguments[1] if bits == 64 else builder.trunc(arguments[1], ir.IntType(bits))
            builder.store(value, builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer()))
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64), generate

    return cast(Callable[[Any, Any], None], intrinsic(define))


def _define_prefetch(_context: Any, _address: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        for_writing, keep_close, data = (ir.Constant(word, value) for value in (1, 3, 1))
        builder.call(function, [builder.inttoptr(arguments[0], byte), for_writing, keep_close, data])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


def _define_highest(_context: Any, _number: Any) -> tuple[Any, Any]:
    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(ir.Constant(ir.IntType(64), 63), zeros)

    return types.uint64(types.uint64), generate


def _define_equal_words(_context: Any, _first: Any, _second: Any, _word: Any) -> tuple[Any, Any]:
    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word, wide = ir.IntType(32), ir.IntType(64)
        lanes = ir.VectorType(word, 8)
        undefined = ir.Constant(lanes, ir.Undefined)
        first = builder.insert_element(undefined, builder.trunc(arguments[2], word), ir.Constant(word, 0))
        everywhere = builder.shuffle_vector(first, undefined, ir.Constant(lanes, [0] * 8))
        halves = []
        for start in arguments[:2]:
            for offset in (0, 32):
                address = builder.add(start, ir.Constant(wide, offset))
                words = builder.load(builder.inttoptr(address, lanes.as_pointer()))
                words.align = 32
                halves.append(builder.icmp_unsigned("==", words, everywhere))
        bits: Any = halves
        for size in (8, 16):
            order = ir.Constant(ir.VectorType(word, 2 * size), list(range(2 * size)))
            bits = [builder.shuffle_vector(bits[i], bits[i + 1], order) for i in range(0, len(bits), 2)]
        return builder.zext(builder.bitcast(bits[0], word), wide)

    return types.uint64(types.uint64, types.uint64, types.uint64), generate


load16, load32, load64 = _loader(16), _loader(32), _loader(64)
"""What stands at an address, widened to uint64."""
store16, store32, store64 = _storer(16), _storer(32), _storer(64)
"""Write the low bits of a uint64 to an address."""
prefetch_address = cast(Callable[[Any], None], intrinsic(_define_prefetch))
"""Ask for a cache line that will be written."""
highest_bit = cast(Callable[[Any], Any], intrinsic(_define_highest))
"""Number of the highest bit that is set."""
equal_words = cast(Callable[[Any, Any, Any], Any], intrinsic(_define_equal_words))
"""Which 32-bit words of two cache lines equal a word: bit i for word i of the first, bit 16 + i of the second."""
