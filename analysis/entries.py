"""Eight entries of a table compared at once, without a branch: the vector instructions that numba does not offer.

A bucket of a few entries, searched one by one, ends where no branch predictor foresees it; that costs more than to
compare eight, whatever the bucket holds. Where no intrinsics can be compiled (JIT switched off, or a numba without
them) the plain functions serve, which also say what the result is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

LANES = 8

# A uint64 scalar within a kernel: numba's range() hands them out, which no type checker knows.
U64 = Any


def plain_equal_entries(entries: NDArray[Any], start: U64, shift: U64, rest: U64) -> U64:
    """Which of eight entries are equal to a number.

    Args:
        entries: uint64 or uint32; the eight must lie in the array.
        start: The first of the eight.
        shift: By how many bits entries are shifted down before they are compared.
        rest: The number, no wider than an entry.

    Returns:
        Bit i for entry ``start + i``.
    """
    mask = np.uint64(0)
    for i in range(np.uint64(LANES)):
        if np.uint64(entries[start + i]) >> shift == rest:
            mask |= np.uint64(1) << i
    return mask


def plain_near_entries(entries: NDArray[Any], start: U64, shift: U64, rest: U64, allowed: U64) -> U64:
    """Which of eight entries differ from a number in one base, of those allowed, or in none.

    Args:
        entries: uint64 or uint32; the eight must lie in the array.
        start: The first of the eight.
        shift: By how many bits entries are shifted down before they are compared.
        rest: The number, no wider than an entry.
        allowed: The bases that may differ: the lower bit of the two of each.

    Returns:
        Bit i for entry ``start + i``.
    """
    mask = np.uint64(0)
    for i in range(np.uint64(LANES)):
        difference = (np.uint64(entries[start + i]) >> shift) ^ rest
        bases = (difference | (difference >> np.uint64(1))) & np.uint64(0x5555555555555555)
        if (bases & (bases - np.uint64(1)) if bases else bases) | (bases & ~allowed) == np.uint64(0):
            mask |= np.uint64(1) << i
    return mask


def plain_lowest_bit(mask: U64) -> U64:
    """Number of the lowest bit that is set, 64 if none is."""
    bit = np.uint64(0)
    while bit < np.uint64(64) and (mask >> bit) & np.uint64(1) == np.uint64(0):
        bit += np.uint64(1)
    return bit


def _compiled() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    def shifted(context: Any, builder: Any, signature: Any, arguments: Any) -> tuple[Any, Callable[[Any], Any]]:
        """The entries, shifted down and compared with the number bit by bit; and how to spread a number over lanes."""
        array = signature.args[0]
        bits = array.dtype.bitwidth
        lane = ir.IntType(bits)
        lanes = ir.VectorType(lane, LANES)
        index = ir.IntType(32)

        def everywhere(value: Any) -> Any:
            value = value if bits == 64 else builder.trunc(value, lane)
            undefined = ir.Constant(lanes, ir.Undefined)
            first = builder.insert_element(undefined, value, ir.Constant(index, 0))
            order = ir.Constant(ir.VectorType(index, LANES), [0] * LANES)
            return builder.shuffle_vector(first, undefined, order)

        view = context.make_array(array)(context, builder, arguments[0])
        entries = builder.load(builder.bitcast(builder.gep(view.data, [arguments[1]]), lanes.as_pointer()))
        entries.align = bits // 8
        return builder.xor(builder.lshr(entries, everywhere(arguments[2])), everywhere(arguments[3])), everywhere

    def mask(builder: Any, differences: Any) -> Any:
        equal = builder.icmp_unsigned("==", differences, ir.Constant(differences.type, None))
        return builder.zext(builder.bitcast(equal, ir.IntType(LANES)), ir.IntType(64))

    @intrinsic
    def equal_entries(_context: Any, entries: Any, start: Any, shift: Any, rest: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return mask(builder, shifted(context, builder, signature, arguments)[0])

        return types.uint64(entries, start, shift, rest), generate

    @intrinsic
    def near_entries(_context: Any, entries: Any, start: Any, shift: Any, rest: Any, allowed: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            difference, everywhere = shifted(context, builder, signature, arguments)
            one = everywhere(ir.Constant(ir.IntType(64), 1))
            bases = builder.or_(difference, builder.lshr(difference, one))
            bases = builder.and_(bases, everywhere(ir.Constant(ir.IntType(64), 0x5555555555555555)))
            forbidden = everywhere(builder.not_(arguments[4]))
            several = builder.and_(bases, builder.sub(bases, one))
            return mask(builder, builder.or_(several, builder.and_(bases, forbidden)))

        return types.uint64(entries, start, shift, rest, allowed), generate

    @intrinsic
    def lowest_bit(_context: Any, _mask: Any) -> Any:
        def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

        return types.uint64(types.uint64), generate

    return equal_entries, near_entries, lowest_bit


def _choose() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    plain = plain_equal_entries, plain_near_entries, plain_lowest_bit
    if vars(numba.config)["DISABLE_JIT"]:
        return plain
    try:
        return _compiled()
    except (ImportError, AttributeError):
        one, two, three = (numba.njit(nogil=True)(function) for function in plain)
        return one, two, three


equal_entries, near_entries, lowest_bit = _choose()
