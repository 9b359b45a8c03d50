"""OBIS lasers: the handshake, the queue of errors, delays before the light, and the safety circuit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.simulators.devices.obis import ObisSim
from cartoseq.simulators.optics import LaserHead, Optics
from cartoseq.simulators.wire import ByteServer
from cartoseq.simulators.world import World


def laser(**options: Any) -> ObisSim:
    world = World(optics=Optics([LaserHead("green", 532.0, 100.0, swing=0.0)]))
    return ObisSim("laser", world, **({"head": "green", "warm_up_s": 0.0} | options))


def ask(server: ByteServer, text: str, at_s: float) -> list[str]:
    server.receive(text.encode() + b"\r\n", at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply.decode().split("\r\n")[:-1]


def test_the_golden_session() -> None:
    sim = laser()
    assert ask(sim, "SOUR:POW:LEV:IMM:AMPL 0.05000", 0.0) == ["OK"]
    assert ask(sim, "SOUR:AM:STAT ON", 0.0) == ["OK"]
    assert ask(sim, "SYST:STAT?", 0.0) == ["C8001010", "OK"]
    assert ask(sim, "SYST:STAT?", 4.99) == ["C8001010", "OK"]
    assert not sim.inspect(4.99)["emitting"]
    assert ask(sim, "SYST:STAT?", 5.01) == ["C8001002", "OK"]
    assert sim.inspect(7.0)["power_mw"] == pytest.approx(50.0)
    assert ask(sim, "SOUR:POW:LEV?", 7.0) == ["0.05000", "OK"]
    assert ask(sim, "SOUR:AM:STAT?", 7.0) == ["ON", "OK"]
    assert ask(sim, "SOUR:AM:STAT OFF", 7.0) == ["OK"]
    assert sim.inspect(7.0)["power_mw"] == 0.0


def test_the_light_begins_by_itself_though_nobody_asks() -> None:
    sim = laser()
    ask(sim, "SOUR:AM:STAT ON", 0.0)
    assert sim.world.inspect(4.9)["green.emitting"] is False
    assert sim.world.inspect(5.0)["green.emitting"] is True


def test_while_it_warms_up_the_light_is_accepted_and_comes_later() -> None:
    sim = laser(warm_up_s=30.0)
    assert ask(sim, "SYST:STAT?", 1.0) == ["CE000100", "OK"]
    assert ask(sim, "SOUR:AM:STAT ON", 2.0) == ["OK"]
    assert ask(sim, "SYST:STAT?", 30.0) == ["CE000100", "OK"]
    assert ask(sim, "SYST:STAT?", 32.0) == ["C8001010", "OK"]
    assert not sim.inspect(35.9)["emitting"]
    assert sim.inspect(36.0)["emitting"]


def test_long_and_short_keywords_in_any_case() -> None:
    sim = laser()
    assert ask(sim, "source:power:level:immediate:amplitude 0.02", 0.0) == ["OK"]
    assert ask(sim, "SOURce:POW:LEVel:IMM:AMPLitude?", 0.0) == ["0.02000", "OK"]
    assert ask(sim, ":syst:inf:wav?", 0.0) == ["532", "OK"]
    assert ask(sim, "SYSTE:INF:WAV?", 0.0) == ["ERR-100"]


def test_without_the_handshake_only_values_come() -> None:
    sim = laser()
    assert ask(sim, "SYST:COMM:HAND OFF", 0.0) == []
    assert ask(sim, "SYST:STAT?", 0.0) == ["C8001004"]
    assert ask(sim, "SYST:COMM:HAND?", 0.0) == ["OFF"]
    assert ask(sim, "SYST:COMM:HAND ON", 0.0) == ["OK"]


def test_of_several_lasers_each_has_its_number() -> None:
    sim = laser(index=2)
    assert ask(sim, "SYST2:STAT?", 0.0) == ["C8001004", "OK"]
    assert ask(sim, "SYST:STAT?", 0.0) == ["ERR-100"]
    assert ask(sim, "*IDN?", 0.0)[0].startswith("Coherent, Inc - OBIS 532nm 100mW")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("FOO", -100),
        ("SYST:STAT", -100),
        ("SOUR:AM:STAT", -109),
        ("SOUR:AM:STAT MAYBE", -220),
        ("SOUR:POW:LEV:IMM:AMPL 0.2", -220),
        ("SOUR:POW:LEV:IMM:AMPL nan", -220),
        ("SOUR:POW:LEV:IMM:AMPL x", -220),
        ("SOUR:AM:INT FOO", -220),
        ("SYST:STAT? 1", -220),
    ],
)
def test_an_error_is_said_instead_of_ok_and_kept(command: str, code: int) -> None:
    sim = laser()
    assert ask(sim, command, 0.0) == [f"ERR{code}"]
    assert ask(sim, "SYST:ERR:COUN?", 0.0) == ["1", "OK"]
    assert ask(sim, "SYST:STAT?", 0.0) == ["C8001044", "OK"]
    assert ask(sim, "SYST:ERR:NEXT?", 0.0)[0].startswith(f"{code},")
    assert ask(sim, "SYST:ERR:NEXT?", 0.0)[0] == '0,"No error"'
    assert ask(sim, "SYST:STAT?", 0.0) == ["C8001004", "OK"]


def test_the_queue_of_errors_is_finite() -> None:
    sim = laser()
    for _ in range(25):
        ask(sim, "FOO", 0.0)
    assert ask(sim, "SYST:ERR:COUN?", 0.0) == ["20", "OK"]
    codes = [ask(sim, "SYST:ERR:NEXT?", 0.0)[0].split(",")[0] for _ in range(20)]
    assert codes == ["-100"] * 19 + ["-350"]
    ask(sim, "FOO", 0.0)
    assert ask(sim, "SYST:ERR:CLE", 0.0) == ["OK"]
    assert ask(sim, "SYST:ERR:COUN?", 0.0) == ["0", "OK"]
    sim.inject("queue_full", 0.0)
    ask(sim, "FOO", 0.0)
    assert ask(sim, "SYST:ERR:NEXT?", 0.0)[0].startswith("-350,")


@pytest.mark.parametrize("door", [True, False])
def test_an_open_safety_circuit_ends_the_light_for_good(door: bool) -> None:
    sim = laser(cdrh=False)
    ask(sim, "SOUR:AM:STAT ON", 0.0)
    assert sim.inspect(0.0)["emitting"]
    if door:
        sim.world.optics.move_doors(closed=False)
        assert not sim.world.optics.heads["green"].emitting
    else:
        sim.inject("interlock_open", 1.0)
    assert ask(sim, "SYST:STAT?", 1.0) == ["CC000008", "OK"]
    assert ask(sim, "SYST:LOCK?", 1.0) == ["OFF", "OK"]
    assert ask(sim, "SOUR:AM:STAT ON", 1.0) == ["ERR-200"]
    sim.world.optics.move_doors(closed=True)
    sim.clear(2.0)
    assert ask(sim, "SYST:LOCK?", 2.0) == ["ON", "OK"]
    assert ask(sim, "SOUR:AM:STAT?", 2.0) == ["OFF", "OK"]
    assert not sim.inspect(10.0)["emitting"]


def test_a_fault_has_its_bit_and_ends_the_light() -> None:
    sim = laser(cdrh=False)
    ask(sim, "SOUR:AM:STAT ON", 0.0)
    sim.inject("diode_temperature", 1.0)
    sim.inject("over_power", 1.0)
    assert ask(sim, "SYST:FAUL?", 1.0) == ["00100002", "OK"]
    assert ask(sim, "SYST:STAT?", 1.0) == ["C8001001", "OK"]
    assert not sim.inspect(1.0)["emitting"]
    sim.clear(2.0)
    assert ask(sim, "SYST:FAUL?", 2.0) == ["00000000", "OK"]


def test_the_power_may_drift_and_the_light_may_fail_unnoticed() -> None:
    sim = laser(cdrh=False)
    ask(sim, "SOUR:AM:STAT ON", 0.0)
    sim.inject("power_drift", 10.0, share_per_hour=-0.5)
    assert ask(sim, "SOUR:POW:LEV?", 3610.0) == ["0.05000", "OK"]
    sim.inject("no_light", 3611.0)
    assert ask(sim, "SYST:STAT?", 3611.0) == ["C8001002", "OK"]
    assert ask(sim, "SOUR:POW:LEV?", 3611.0) == ["0.00000", "OK"]


def test_after_a_power_cycle_it_warms_up_anew() -> None:
    sim = laser(warm_up_s=10.0)
    ask(sim, "SOUR:POW:LEV:IMM:AMPL 0.02", 0.0)
    ask(sim, "SOUR:AM:STAT ON", 20.0)
    assert sim.inspect(30.0)["emitting"]
    sim.inject("power_cycle", 30.0)
    assert not sim.inspect(30.0)["emitting"]
    assert ask(sim, "SYST:STAT?", 31.0) == ["CE000100", "OK"]
    assert ask(sim, "SOUR:POW:LEV:IMM:AMPL?", 31.0) == ["0.10000", "OK"]
    ask(sim, "SYST:AUT ON", 31.0)
    sim.inject("power_cycle", 50.0)
    assert not sim.inspect(64.9)["emitting"]
    assert sim.inspect(65.0)["emitting"]


def test_hours_of_light_are_counted_and_external_modes_have_a_bit() -> None:
    sim = laser(cdrh=False)
    ask(sim, "SOUR:AM:STAT ON", 0.0)
    assert ask(sim, "SYST:DIOD:HOUR?", 3600.0) == ["1.00", "OK"]
    ask(sim, "SOUR:AM:STAT OFF", 3600.0)
    assert ask(sim, "SYST:DIOD:HOUR?", 7200.0) == ["1.00", "OK"]
    assert ask(sim, "SOUR:AM:EXT DIG", 7200.0) == ["OK"]
    assert ask(sim, "SYST:STAT?", 7200.0) == ["C8001404", "OK"]
    assert ask(sim, "SOUR:AM:SOUR?", 7200.0) == ["DIG", "OK"]


@pytest.mark.parametrize(
    "query",
    [
        "*IDN?", "*TST?", "SOUR:POW:LIM:LOW?", "SOUR:POW:LIM:HIGH?", "SOUR:POW:NOM?", "SYST:CDRH?", "SYST:AUT?",
        "SOUR:TEMP:APR?", "SOUR:TEMP:BAS?", "SYST:INF:MOD?", "SYST:INF:SNUM?", "SYST:INF:TYP?", "SYST:INF:FVER?",
    ],
)  # fmt: skip
def test_every_query_has_a_value(query: str) -> None:
    value, ok = ask(laser(), query, 0.0)
    assert value
    assert ok == "OK"


def test_a_head_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="laser: there is no laser head 'x'"):
        laser(head="x")


_LINES = st.text(alphabet="SYTOURPWLEVIMAPCDH:?*01. \r\n", max_size=40).map(str.encode) | st.binary(max_size=30)


@settings(deadline=None)
@given(st.lists(_LINES, max_size=10))
def test_whatever_comes_every_line_is_answered(pieces: list[bytes]) -> None:
    sim = laser()
    for piece in pieces:
        sim.receive(piece + b"\r", 0.0)
        said = b"".join(sim.messages(1.0)).decode("latin-1")
        lines = [line for line in said.split("\r\n") if line]
        assert all(line for line in lines)
        heard = [part for part in piece.replace(b"\n", b"\r").split(b"\r") if part.decode("latin-1").strip()]
        assert len([line for line in lines if line == "OK" or line.startswith("ERR-")]) == len(heard)
