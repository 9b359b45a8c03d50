from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers.mecom import (
    crc16,
    encode_frame,
    encode_read,
    encode_write,
    frame_answer,
    parse_answer,
    parse_float,
    parse_int,
    parse_server_error,
)

GOLDEN_QUERIES = [
    (0x02, 0x15AB, encode_read(1000, 1), b"#0215AB?VR03E80134D8\r"),
    (0x02, 0x15AC, encode_write(3000, 1, 55.0), b"#0215ACVS0BB801425C00004226\r"),
    (0x02, 0x15AD, encode_write(2010, 1, 1), b"#0215ADVS07DA010000000114DB\r"),
    (0x02, 0x15AE, encode_read(104, 1), b"#0215AE?VR0068011F59\r"),
    (0x00, 0x15AF, b"?IF", b"#0015AF?IF3383\r"),
    (0x02, 0x15B0, b"RS", b"#0215B0RSF485\r"),
    (0x02, 0x15B1, b"ES", b"#0215B1ES5951\r"),
]

fields = st.tuples(st.integers(0, 255), st.integers(0, 0xFFFF), st.text("0123456789ABCDEF+?", max_size=24))


def test_the_checksum_is_crc_16_xmodem() -> None:
    assert crc16(b"123456789") == 0x31C3


@pytest.mark.parametrize(("address", "sequence", "payload", "frame"), GOLDEN_QUERIES)
def test_queries_are_the_vendors_bytes(address: int, sequence: int, payload: bytes, frame: bytes) -> None:
    assert encode_frame(address, sequence, payload) == frame


def test_the_vendors_answers_are_understood() -> None:
    value = parse_answer(b"!0215AB421500009E27\r")
    assert (value.address, value.sequence, value.sound) == (2, 0x15AB, True)
    assert parse_float(value.payload) == 37.25
    acknowledged = parse_answer(b"!0215AC4226\r")
    assert (acknowledged.payload, acknowledged.crc) == (b"", 0x4226)
    refused = parse_answer(b"!0215AD+07CC13\r")
    assert refused.sound
    assert parse_server_error(refused.payload) == 7
    running = parse_answer(b"!0215AE0000000206B7\r")
    assert running.sound
    assert parse_int(running.payload) == 2


@given(fields)
def test_an_answer_comes_back_as_it_was_made(made: tuple[int, int, str]) -> None:
    address, sequence, payload = made
    frame = encode_frame(address, sequence, payload.encode(), b"!")
    answer = parse_answer(frame)
    assert (answer.address, answer.sequence, answer.payload) == (address, sequence, payload.encode())
    assert answer.sound


@given(fields, st.data())
def test_a_changed_byte_never_passes_for_sound(made: tuple[int, int, str], data: st.DataObject) -> None:
    frame = bytearray(encode_frame(made[0], made[1], made[2].encode(), b"!"))
    at = data.draw(st.integers(1, len(frame) - 2))
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        answer = parse_answer(bytes(frame))
    except ValueError:
        return
    # A hexadecimal digit of the checksum itself may only change its case.
    assert not answer.sound or bytes(frame).upper() == encode_frame(made[0], made[1], made[2].encode(), b"!")


@given(st.integers(-(2**31), 2**31 - 1))
def test_integers_come_back(value: int) -> None:
    assert parse_int(encode_write(100, 1, value)[8:]) == value


@given(st.floats(width=32))
def test_floats_come_back(value: float) -> None:
    read = parse_float(encode_write(3000, 1, value)[8:])
    assert read == value or (math.isnan(read) and math.isnan(value))


@given(st.binary(max_size=60))
def test_garbage_raises_nothing_but_value_errors(garbage: bytes) -> None:
    for parse in (parse_answer, parse_int, parse_float, parse_server_error):
        try:
            parse(garbage)  # type: ignore[operator]
        except ValueError:
            continue


@given(
    st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=3), st.sampled_from([b"", b"\x00", b"!02", b"?\r", b"#0215"])
)
def test_answers_are_found_behind_noise_and_cut_off_answers(sequences: list[int], noise: bytes) -> None:
    frames = [encode_frame(2, sequence, b"00000001", b"!") for sequence in sequences]
    buffer = noise + b"".join(frames)
    for frame in frames:
        found = frame_answer(buffer)
        assert found is not None
        assert buffer[found[0] : found[1]] == frame
        buffer = buffer[found[1] :]
    assert frame_answer(buffer) is None


def test_an_answer_in_pieces_is_waited_for() -> None:
    whole = b"!0215AB421500009E27\r"
    assert all(frame_answer(whole[:end]) is None for end in range(len(whole)))
