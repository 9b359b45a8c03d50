from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers.cavrocodec import (
    DIALECTS,
    HIGHEST_SWITCH,
    Answer,
    check_byte,
    encode_dt,
    encode_oem,
    frame_dt,
    frame_oem,
    is_sound,
    parse_dt,
    parse_oem,
    sequence_byte,
)

DATA = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFE), max_size=20)
NOISE = st.binary(max_size=12)


def test_commands_are_those_of_the_manuals() -> None:
    assert encode_dt(0, "ZR") == b"/1ZR\r"
    assert encode_dt(14, "Q") == b"/?Q\r"
    assert encode_oem(0, sequence_byte("cavro", 0, 0), "ZR") == bytes.fromhex("02 31 31 5A 52 03 09")
    assert encode_oem(0, sequence_byte("cavro", 0, 1), "ZR") == bytes.fromhex("02 31 39 5A 52 03 01")
    assert encode_oem(0, sequence_byte("cavro", 1, 0), "?") == bytes.fromhex("02 31 32 3F 03 3D")
    assert encode_oem(0, sequence_byte("kloehn", 5, 1), "W4R") == bytes.fromhex("02 31 3A 57 34 52 03 3B")


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        ("FF 02 30 60 33 30 30 30 03 52", Answer(ready=True, error=0, data="3000")),
        ("FF 02 30 40 03 71", Answer(ready=False, error=0, data="")),
        ("FF 02 30 69 03 58", Answer(ready=True, error=9, data="")),
    ],
)
def test_oem_answers_are_those_of_the_manuals(answer: str, meaning: Answer) -> None:
    received = bytes.fromhex(answer)
    assert frame_oem(received) == (1, len(received))
    assert is_sound(received[1:])
    assert parse_oem(received[1:]) == meaning


@pytest.mark.parametrize(
    ("received", "meaning"),
    [
        (b"/0@\x03\r\n", Answer(ready=False, error=0, data="")),
        (b"/0`\x03\r\n\xff", Answer(ready=True, error=0, data="")),
        (b"\xff/0@1512\x03\r\n", Answer(ready=False, error=0, data="1512")),
        (b"/0i\x03\r\n", Answer(ready=True, error=9, data="")),
        (b"/0Z\x03\r\n", Answer(ready=False, error=26, data="")),
        (b"/0`built 01/05/03\x03\r\n", Answer(ready=True, error=0, data="built 01/05/03")),
    ],
)
def test_dt_answers_are_found_and_read(received: bytes, meaning: Answer) -> None:
    found = frame_dt(received)
    assert found is not None
    assert parse_dt(received[slice(*found)]) == meaning


def test_sequence_numbers_go_round_and_repeats_are_marked() -> None:
    assert [sequence_byte("cavro", n, 0) for n in range(8)] == [0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x31]
    assert [sequence_byte("cavro", n, 2) for n in range(7)] == [0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F]
    assert [sequence_byte("kloehn", 3, attempt) for attempt in range(8)] == [
        0x31,
        0x3A,
        0x3B,
        0x3C,
        0x3D,
        0x3E,
        0x3F,
        0x3F,
    ]


def status_byte(ready: bool, error: int) -> int:
    return 0x40 | (0x20 if ready else 0) | error


@given(NOISE.filter(lambda noise: b"/0" not in noise + b"/"), st.booleans(), st.integers(0, 26), DATA, NOISE)
def test_a_dt_answer_is_found_behind_noise_and_only_once_it_is_whole(
    noise: bytes, ready: bool, error: int, data: str, tail: bytes
) -> None:
    frame = b"/0%c%b\x03\r\n" % (status_byte(ready, error), data.encode("latin-1"))
    whole = noise + frame
    assert all(frame_dt(whole[:n]) is None for n in range(len(whole)))
    assert frame_dt(whole + tail) == (len(noise), len(whole))
    assert parse_dt(frame) == Answer(ready, error, data)


@given(NOISE.filter(lambda noise: b"\x02" not in noise), st.booleans(), st.integers(0, 26), DATA, NOISE)
def test_an_oem_answer_is_found_behind_noise_and_only_once_it_is_whole(
    noise: bytes, ready: bool, error: int, data: str, tail: bytes
) -> None:
    body = b"\x020%c%b\x03" % (status_byte(ready, error), data.encode("latin-1"))
    frame = body + bytes([check_byte(body)])
    whole = noise + frame
    assert all(frame_oem(whole[:n]) is None for n in range(len(whole)))
    assert frame_oem(whole + tail) == (len(noise), len(whole))
    assert is_sound(frame)
    assert parse_oem(frame) == Answer(ready, error, data)


@given(st.integers(0, HIGHEST_SWITCH), st.integers(0, 6), st.text("ABDIOPVZ0123456789R", max_size=20), st.data())
def test_every_flipped_bit_of_an_oem_frame_is_noticed(switch: int, number: int, text: str, data: st.DataObject) -> None:
    frame = encode_oem(switch, sequence_byte("cavro", number, 0), text)
    assert is_sound(frame)
    at, bit = data.draw(st.integers(0, len(frame) - 1)), data.draw(st.integers(0, 7))
    assert not is_sound(frame[:at] + bytes([frame[at] ^ (1 << bit)]) + frame[at + 1 :])


@given(st.binary(max_size=40))
def test_garbage_is_no_answer_or_an_answer_but_never_another_error(garbage: bytes) -> None:
    for framer, parse in ((frame_dt, parse_dt), (frame_oem, parse_oem)):
        found = framer(garbage)
        if found is not None:
            parse(garbage[slice(*found)])
        with contextlib.suppress(ValueError):
            parse(garbage)


def test_every_error_of_a_dialect_is_told() -> None:
    for dialect in DIALECTS.values():
        assert dialect.uninitialized | dialect.stalled <= dialect.errors.keys()
        assert len(set(dialect.errors.values())) == len(dialect.errors)
