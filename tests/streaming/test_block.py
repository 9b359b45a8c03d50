"""A block of base calls: bytes out, the same block back, nothing copied."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.streaming.block import BLOCK_HEADER_BYTES, BaseCallBlock
from cartoseq.streaming.errors import InputError


def a_block(cycles: int = 5, clusters: int = 7, lengths: tuple[int, ...] = (2, 3)) -> BaseCallBlock:
    calls = np.arange(cycles * clusters, dtype=np.uint8).reshape(cycles, clusters)
    return BaseCallBlock(1, 2, 1101, 1 << 40, 1, lengths, calls)


def joined(block: BaseCallBlock) -> bytearray:
    return bytearray(b"".join(block.payload()))


@settings(deadline=None)
@given(
    library=st.integers(0, 65535),
    lane=st.integers(0, 65535),
    tile=st.integers(0, 2**32 - 1),
    first=st.integers(0, 2**64 - 1),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4).map(tuple),
    clusters=st.integers(0, 50),
)
def test_a_payload_is_read_back(
    library: int, lane: int, tile: int, first: int, lengths: tuple[int, ...], clusters: int
) -> None:
    calls = np.random.default_rng(1).integers(0, 256, (sum(lengths), clusters), np.uint8)
    block = BaseCallBlock(library, lane, tile, first, 1, lengths, calls)
    again = BaseCallBlock.from_payload(joined(block))
    assert (again.library, again.lane, again.tile, again.first_cluster) == (library, lane, tile, first)
    assert (again.read_lengths, again.first_cycle) == (lengths, 1)
    assert (again.cycles, again.clusters) == (sum(lengths), clusters)
    assert np.array_equal(again.calls, calls)


def test_golden_bytes() -> None:
    header, calls = a_block().payload()
    assert len(header) == BLOCK_HEADER_BYTES
    assert bytes(header).hex() == (
        "01000200" + "4d040000" + "0100" + "02" + "00" + "0200030000000000" + "0500" + "0000"
        "07000000" + "00000000" + "0000000000010000" + "00" * 24
    )
    assert bytes(calls) == bytes(range(35))


def test_calls_are_shared_not_copied() -> None:
    block = a_block()
    assert np.shares_memory(np.frombuffer(block.payload()[1], np.uint8), block.calls)
    payload = joined(block)
    view = BaseCallBlock.from_payload(payload)
    payload[BLOCK_HEADER_BYTES] = 99
    assert view.calls[0, 0] == 99
    assert view.calls.flags.writeable
    assert view.calls.flags.c_contiguous


def test_header_and_calls_may_come_apart() -> None:
    block = a_block()
    again = BaseCallBlock.from_payload(*block.payload())
    assert np.shares_memory(again.calls, block.calls)
    assert again.read_lengths == block.read_lengths


def test_every_wrong_size_is_refused() -> None:
    payload = joined(a_block())
    for size in range(len(payload)):
        with pytest.raises(InputError):
            BaseCallBlock.from_payload(payload[:size])
    with pytest.raises(InputError, match="here are 36"):
        BaseCallBlock.from_payload(payload + b"\0")


@pytest.mark.parametrize("at", [11, 22, 28, 16])
def test_reserved_bytes_must_be_zero(at: int) -> None:
    payload = joined(a_block())
    struct.pack_into("<B", payload, at, 1)
    with pytest.raises(InputError):
        BaseCallBlock.from_payload(payload)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    try:
        BaseCallBlock.from_payload(payload)
    except InputError:
        return


@pytest.mark.parametrize(
    "calls",
    [
        np.zeros((5, 7), np.int8),
        np.zeros(35, np.uint8),
        np.zeros((7, 5), np.uint8).T,
        np.zeros((6, 7), np.uint8),
    ],
)
def test_other_arrays_are_refused(calls: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"calls|cycles"):
        BaseCallBlock(1, 2, 3, 0, 1, (2, 3), calls)


def test_numbers_that_do_not_fit_are_refused() -> None:
    calls = np.zeros((5, 7), np.uint8)
    with pytest.raises(ValueError, match="lane is 65536"):
        BaseCallBlock(1, 65536, 3, 0, 1, (2, 3), calls)
    with pytest.raises(ValueError, match="5 reads"):
        BaseCallBlock(1, 1, 3, 0, 1, (1, 1, 1, 1, 1), calls)
