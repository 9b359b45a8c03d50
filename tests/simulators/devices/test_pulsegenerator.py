"""A source of trigger pulses: bursts, pulses without end, and who is told."""

from __future__ import annotations

import pytest

from cartoseq.simulators.devices.pulsegenerator import PulseGeneratorSim
from cartoseq.simulators.wire import ByteServer
from cartoseq.simulators.world import World

BURST = "FUNC PULS;:FREQ 50;:VOLT:HIGH 5;LOW 0;:PULS:WIDT 0.001;:BURS:STAT ON;NCYC 4;:TRIG:SOUR BUS;:OUTP ON"


def generator() -> tuple[PulseGeneratorSim, list[float]]:
    sim = PulseGeneratorSim("pulses", World())
    edges: list[float] = []
    sim.watchers.append(lambda at_s, width_s: edges.append(at_s))
    return sim, edges


def ask(server: ByteServer, text: str, at_s: float) -> str:
    server.receive(text.encode() + b"\n", at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply.decode()


def test_a_burst_has_its_pulses_and_ends() -> None:
    sim, edges = generator()
    assert ask(sim, BURST, 0.0) == ""
    assert ask(sim, "SYST:ERR?", 0.0) == '0,"No error"\n'
    sim.receive(b"*TRG;*OPC?\n", 1.0)
    assert sim.messages(1.06) == []
    assert sim.messages(1.07) == [b"1\n"]
    sim.inspect(10.0)
    assert edges == pytest.approx([1.0, 1.02, 1.04, 1.06])
    assert ask(sim, "FREQ?;:PULS:WIDT?;:BURS:NCYC?", 10.0) == "+5.00000000E+01;+1.00000000E-03;+4.00000000E+00\n"


def test_a_trigger_that_cannot_be_is_ignored_and_said() -> None:
    sim, edges = generator()
    ask(sim, BURST, 0.0)
    ask(sim, "*TRG", 1.0)
    ask(sim, "*TRG", 1.01)
    assert ask(sim, "SYST:ERR?", 1.01) == '-211,"Trigger ignored"\n'
    ask(sim, "OUTP OFF;*TRG", 2.0)
    assert ask(sim, "SYST:ERR?", 2.0) == '-211,"Trigger ignored"\n'
    assert len(edges) == 4


def test_switching_off_ends_a_burst() -> None:
    sim, edges = generator()
    ask(sim, BURST, 0.0)
    ask(sim, "*TRG", 1.0)
    ask(sim, "OUTP OFF", 1.03)
    assert sim.inspect(5.0)["pulses"] == 2
    assert ask(sim, "*OPC?", 5.0) == "1\n"
    assert len(edges) == 2


def test_an_edge_from_outside_starts_a_burst() -> None:
    sim, edges = generator()
    ask(sim, BURST + ";:TRIG:SOUR EXT", 0.0)
    sim.trigger(3.0)
    sim.inspect(4.0)
    assert edges == pytest.approx([3.0, 3.02, 3.04, 3.06])


def test_without_bursts_it_goes_on_while_the_output_is_on() -> None:
    sim, edges = generator()
    ask(sim, "FREQ 10;:PULS:WIDT 0.01;:OUTP ON", 1.0)
    ask(sim, "OUTP OFF", 2.05)
    sim.inspect(10.0)
    assert edges == pytest.approx([1.0 + i / 10 for i in range(11)])


@pytest.mark.parametrize("message", ["PULS:WIDT 0.1", "VOLT:LOW 6", "FREQ 100000"])
def test_what_does_not_fit_together_is_a_conflict(message: str) -> None:
    sim, _ = generator()
    ask(sim, message, 0.0)
    assert ask(sim, "SYST:ERR?", 0.0) == '-221,"Settings conflict"\n'


def test_faults() -> None:
    sim, edges = generator()
    ask(sim, BURST, 0.0)
    sim.inject("lost_pulses", 0.5, pulses=2)
    ask(sim, "*TRG", 1.0)
    assert sim.inspect(2.0)["pulses"] == 2
    assert edges == pytest.approx([1.04, 1.06])
    sim.inject("busy_for_ever", 3.0)
    assert ask(sim, "*TRG;*OPC?", 3.0) == ""
    sim.clear(4.0)
    assert sim.messages(4.1) == [b"1\n"]
    sim.inject("power_cycle", 5.0)
    assert ask(sim, "OUTP?;:TRIG:SOUR?", 5.0) == "0;IMM\n"
