"""The MeCom protocol: golden frames, parameters, the flag of stability, and errors that last until a reset."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.simulators.devices.meerstetter import MeerstetterSim, checksum
from cartoseq.simulators.thermal import Plate
from cartoseq.simulators.wire import ByteServer
from cartoseq.simulators.world import World


def controller(**options: Any) -> MeerstetterSim:
    world = World(plates={"flow_cell": Plate(), "chiller": Plate()})
    return MeerstetterSim("tec", world, **({"plates": ["flow_cell"], "address": 2} | options))


def ask(server: ByteServer, data: bytes, at_s: float) -> bytes:
    server.receive(data, at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply


def say(sim: ByteServer, payload: str, at_s: float, *, address: int = 2, sequence: int = 0x15AB) -> str | None:
    """Send a payload and return that of the answer, empty for a sound acknowledgement, nothing for silence."""
    head = f"#{address:02X}{sequence:04X}{payload}".encode()
    reply = ask(sim, head + b"%04X\r" % checksum(head), at_s)
    if not reply:
        return None
    assert reply[:7] == f"!{address:02X}{sequence:04X}".encode()
    assert reply[-1:] == b"\r"
    payload_back = reply[7:-5].decode()
    assert int(reply[-5:-1], 16) == checksum(reply[:-5] if payload_back else head)
    return payload_back


def read(sim: ByteServer, number: int, at_s: float, channel: int = 1) -> float:
    answer = say(sim, f"?VR{number:04X}{channel:02X}", at_s)
    assert answer is not None
    return float(struct.unpack(">f", bytes.fromhex(answer))[0])


def count(sim: ByteServer, number: int, at_s: float, channel: int = 1) -> int:
    answer = say(sim, f"?VR{number:04X}{channel:02X}", at_s)
    assert answer is not None
    return int(answer, 16)


def write(sim: ByteServer, number: int, value: float | int, at_s: float, channel: int = 1) -> str | None:
    digits = struct.pack(">i" if isinstance(value, int) else ">f", value).hex().upper()
    return say(sim, f"VS{number:04X}{channel:02X}{digits}", at_s)


def test_the_checksum_is_the_xmodem_one() -> None:
    assert checksum(b"123456789") == 0x31C3


def test_the_golden_frames() -> None:
    sim = controller()
    plate = sim.world.plates["flow_cell"]
    plate.plate_c = 37.25
    assert ask(sim, b"#0215AB?VR03E80134D8\r", 0.0) == b"!0215AB421500009E27\r"
    assert ask(sim, b"#0215ACVS0BB801425C00004226\r", 0.0) == b"!0215AC4226\r"
    assert plate.target_c == 55.0
    assert ask(sim, b"#0215ADVS07DA010000000114DB\r", 1.0) == b"!0215AD14DB\r"
    assert plate.regulated
    assert ask(sim, b"#0215AE?VR0068011F59\r", 1.0) == b"!0215AE0000000206B7\r"
    out_of_range = say(sim, "VS0BB8017F800000", 1.0, sequence=0x15AD)
    assert f"!0215AD{out_of_range}{checksum(b'!0215AD+07'):04X}" == "!0215AD+07CC13"
    assert ask(sim, b"#0015AF?IF3383\r", 1.0)[:7] == b"!0015AF"
    assert ask(sim, b"#0215B1ES5951\r", 1.0) == b"!0215B15951\r"
    assert ask(sim, b"#0215B0RSF485\r", 1.0) == b"!0215B0F485\r"


def test_broken_frames_and_other_addresses_get_no_answer() -> None:
    sim = controller()
    assert ask(sim, b"#0215AB?VR03E80134D9\r", 0.0) == b""
    assert ask(sim, b"#0215ab?VR03E80134D8\r", 0.0) == b""
    assert ask(sim, b"#02\r\r#\r", 0.0) == b""
    assert say(sim, "?IF", 0.0, address=3) is None
    assert write(sim, 3000, 40.0, 0.0) == ""
    assert say(sim, "VS0BB80142480000", 0.0, address=255) is None
    assert read(sim, 3000, 0.0) == 50.0
    assert say(sim, "?IF", 0.0, address=0) == "1091-TEC SN1234     "


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("?VM03E801", 1),
        ("XX", 1),
        ("?VR03E8", 4),
        ("?VR03G801", 4),
        ("VS0BB801425C", 4),
        ("?VR270F01", 5),
        ("VS270F0100000000", 5),
        ("VS03E80100000000", 6),
        ("VS0BB8017FC00000", 7),
        ("VS07DA01000000FF", 7),
        ("?VR03E803", 8),
        ("?VR006802", 8),
    ],
)
def test_what_it_cannot_do_it_says(payload: str, code: int) -> None:
    assert say(controller(), payload, 0.0) == f"+{code:02X}"


def test_it_says_who_it_is() -> None:
    sim = controller(device_type=1122, serial_number=77)
    assert [count(sim, number, 0.0) for number in (100, 102, 103)] == [1122, 77, 310]
    assert count(sim, 2051, 0.0) == 2


def test_stable_is_only_said_after_the_dwell() -> None:
    sim = controller(dwell_s=10.0)
    assert count(sim, 104, 0.1) == 1
    assert count(sim, 1200, 0.1) == 0
    write(sim, 3000, 55.0, 1.0)
    write(sim, 2010, 1, 1.0)
    assert (count(sim, 104, 1.1), count(sim, 1200, 1.1)) == (2, 1)
    now_s = 1.0
    while abs(sim.world.plates["flow_cell"].plate_c - 55.0) > 0.1:
        now_s += 0.5
        sim.inspect(now_s)
        assert now_s < 100.0
    assert count(sim, 1200, now_s + 1.0) == 1
    assert count(sim, 1200, now_s + 120.0) == 2
    assert read(sim, 1000, now_s + 120.0) == pytest.approx(55.0, abs=0.05)
    write(sim, 3000, 20.0, now_s + 121.0)
    assert count(sim, 1200, now_s + 121.0) == 1
    write(sim, 2010, 0, now_s + 122.0)
    assert count(sim, 1200, now_s + 122.0) == 0
    assert read(sim, 1020, now_s + 122.0) == 0.0


def test_currents_are_limited_and_can_be_fixed() -> None:
    sim = controller()
    write(sim, 2030, 2.0, 0.0)
    write(sim, 3000, 80.0, 0.0)
    write(sim, 2010, 1, 0.0)
    assert read(sim, 1020, 5.0) == pytest.approx(2.0)
    assert read(sim, 1021, 5.0) > 3.0
    write(sim, 2000, 0, 6.0)
    write(sim, 2020, -1.0, 6.0)
    assert read(sim, 1020, 7.0) == -1.0


def test_a_ramp_is_followed() -> None:
    sim = controller()
    write(sim, 3003, 0.1, 0.0)
    write(sim, 3000, 42.0, 0.0)
    write(sim, 2010, 1, 0.0)
    assert read(sim, 1011, 50.0) == pytest.approx(27.0, abs=0.01)
    assert read(sim, 1010, 50.0) == 42.0


def test_an_emergency_stop_lasts_until_a_reset_and_the_output_stays_off() -> None:
    sim = controller()
    write(sim, 3000, 50.0, 0.0)
    write(sim, 2010, 1, 0.0)
    assert say(sim, "ES", 10.0) == ""
    assert [count(sim, number, 10.0) for number in (104, 105, 2010)] == [3, 11, 0]
    write(sim, 2010, 1, 11.0)
    assert not sim.inspect(20.0)["channel_1.regulated"]
    assert say(sim, "RS", 20.0) == ""
    assert say(sim, "?IF", 20.1) is None
    assert count(sim, 104, 20.3) == 0
    assert [count(sim, number, 21.0) for number in (104, 105, 2010)] == [1, 0, 0]
    write(sim, 2010, 1, 21.0)
    assert sim.inspect(21.0)["channel_1.regulated"]
    assert read(sim, 3000, 21.0) == 50.0


def test_it_can_begin_anew_by_itself() -> None:
    sim = controller()
    write(sim, 6310, 30.0, 0.0)
    say(sim, "ES", 1.0)
    assert count(sim, 104, 30.0) == 3
    assert count(sim, 104, 32.0) == 1


def test_what_is_not_saved_is_lost_with_the_power() -> None:
    sim = controller()
    write(sim, 108, 1, 0.0)
    writes = sim.inspect(0.0)["flash_writes"]
    write(sim, 3000, 50.0, 0.0)
    assert sim.inspect(0.0)["flash_writes"] == writes
    sim.inject("power_cycle", 1.0)
    assert read(sim, 3000, 2.0) == 25.0
    write(sim, 3000, 50.0, 3.0)
    say(sim, "SP", 3.0)
    sim.inject("power_cycle", 4.0)
    assert read(sim, 3000, 5.0) == 50.0


def test_two_channels_know_their_own_plates() -> None:
    sim = controller(plates=["flow_cell", "chiller"])
    write(sim, 3000, 40.0, 0.0, 1)
    write(sim, 3000, 10.0, 0.0, 2)
    write(sim, 2010, 1, 0.0, 1)
    write(sim, 2010, 1, 0.0, 2)
    assert read(sim, 1000, 300.0, 1) == pytest.approx(40.0, abs=0.05)
    assert read(sim, 1000, 300.0, 2) == pytest.approx(10.0, abs=0.05)


# -------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("fault", "values", "after_s", "error"),
    [
        ("sensor_open", {}, 0.1, 33),
        ("over_temperature", {"degrees": 80.0}, 0.2, 30),
        ("sensor_drift", {"kelvin": 60.0}, 0.2, 30),
    ],
)
def test_a_broken_part_is_an_error(fault: str, values: dict[str, float], after_s: float, error: int) -> None:
    sim = controller()
    write(sim, 3000, 37.0, 0.0)
    write(sim, 2010, 1, 0.0)
    sim.inspect(60.0)
    sim.inject(fault, 60.0, **values)
    assert [count(sim, number, 60.0 + after_s) for number in (104, 105, 106)] == [3, error, 1]
    assert read(sim, 1020, 60.0 + after_s) == 0.0


def test_an_open_sensor_tells_no_number_and_comes_back_after_a_reset() -> None:
    sim = controller()
    sim.inject("sensor_open", 0.0)
    assert math.isnan(read(sim, 1000, 0.0))
    say(sim, "RS", 1.0)
    assert count(sim, 105, 2.0) == 33
    sim.clear(3.0)
    assert count(sim, 105, 3.0) == 33
    say(sim, "RS", 4.0)
    assert count(sim, 104, 5.0) == 1


def test_without_its_fan_the_sink_gets_too_hot() -> None:
    sim = controller()
    sim.inject("fan_off", 0.0)
    write(sim, 3000, 2.0, 0.0)
    write(sim, 2010, 1, 0.0)
    sim.inspect(3600.0)
    assert count(sim, 105, 3600.0) == 31
    assert read(sim, 1001, 3600.0) > 40.0


def test_a_weak_element_never_gets_there() -> None:
    sim = controller()
    sim.inject("weak", 0.0)
    write(sim, 3000, 55.0, 0.0)
    write(sim, 2010, 1, 0.0)
    assert count(sim, 1200, 1800.0) == 1
    assert read(sim, 1000, 1800.0) < 50.0
    sim.clear(1800.0)
    assert count(sim, 1200, 3600.0) == 2


def test_faults_of_its_answers() -> None:
    sim = controller()
    sound = ask(sim, b"#0215AE?VR0068011F59\r", 1.0)
    sim.inject("wrong_checksum", 1.0)
    wrong = ask(sim, b"#0215AE?VR0068011F59\r", 1.0)
    assert wrong != sound
    assert wrong[:-5] == sound[:-5]
    sim.inject("wrong_sequence", 1.0, answers=2.0)
    for _ in range(2):
        assert ask(sim, b"#0215AE?VR0068011F59\r", 1.0)[:7] == b"!0215AF"
    assert ask(sim, b"#0215AE?VR0068011F59\r", 1.0) == sound
    sim.inject("twice", 1.0)
    assert ask(sim, b"#0215AE?VR0068011F59\r", 1.0) == sound * 2
    sim.inject("busy", 1.0)
    assert say(sim, "?IF", 1.0) == "+02"
    with pytest.raises(ValueError, match=r"weak.channel: expected 1 to 1, found 2"):
        sim.inject("weak", 1.0, channel=2.0)


@pytest.mark.parametrize("options", [{"plates": ["x"]}, {"plates": []}, {"address": 0}, {"address": 255}])
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tec: "):
        controller(**options)


_FIELD = st.text(alphabet="0123456789ABCDEFVRSI?#!+\r", max_size=20)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30) | _FIELD.map(str.encode), max_size=10), st.lists(_FIELD, max_size=5))
def test_whatever_comes_it_stays_sound(pieces: list[bytes], payloads: list[str]) -> None:
    sim = controller()
    for piece in pieces:
        ask(sim, piece, 0.0)
    for second, payload in enumerate(payloads):
        if "\r" not in payload and "#" not in payload:
            ask(sim, b"\r", float(second))
            answer = say(sim, payload, float(second))
            assert answer is not None
    assert math.isfinite(float(sim.inspect(10.0)["channel_1.plate_c"]))
