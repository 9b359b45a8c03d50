"""SCPI: headers, chains, registers, the error queue, and what waits for what."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.simulators.devices.scpi import (
    ScpiError,
    ScpiInstrument,
    boolean,
    choice,
    header_matches,
    is_word,
    number,
    read_header,
)
from cartoseq.simulators.wire import ByteServer


class Bench:
    """An instrument with a value of two names and an operation that takes five seconds."""

    def __init__(self) -> None:
        self.value = 1.0
        self.scpi = ScpiInstrument("Maker,Model,1,2", reset=self.reset)
        self.scpi.command("[SENSe]:CORRection:WAVelength", self.put, most=1)
        self.scpi.query("[SENSe]:CORRection:WAVelength", self.ask, most=1)
        self.scpi.command("CORRection:GO", self.go)
        self.scpi.query("OUTPut#:TEXT", lambda values: "|".join(values), most=3)

    def reset(self) -> None:
        self.value = 1.0

    def put(self, values: list[str]) -> None:
        self.value = number(values[0], 0.0, 10.0, 1.0)

    def ask(self, values: list[str]) -> str:
        return f"{number(values[0], 0.0, 10.0) if values else self.value:g}"

    def go(self, _values: list[str]) -> None:
        self.scpi.busy_until_s = self.scpi.now_s + 5.0


def ask(server: ByteServer, text: str, at_s: float = 0.0) -> str:
    server.receive(text.encode() + b"\n", at_s)
    reply = b""
    while (due_s := server.due_s()) is not None:
        reply += b"".join(server.messages(due_s))
    return reply.decode()


def errors(server: ByteServer, at_s: float = 0.0) -> list[int]:
    codes = []
    while (code := int(ask(server, "SYST:ERR?", at_s).split(",")[0])) != 0:
        codes.append(code)
    return codes


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("SENS:CORR:WAV", True),
        ("sense:correction:wavelength", True),
        ("CORR:WAV", True),
        ("SENS:CORR:WAVE", False),
        ("SENS:CORR", False),
        ("WAV", False),
        ("SENS:SENS:CORR:WAV", False),
        ("SENS2:CORR:WAV", False),
    ],
)
def test_a_header_has_short_and_long_forms_and_parts_that_may_be_left_out(words: str, same: bool) -> None:
    assert header_matches(words.split(":"), read_header("[SENSe]:CORRection:WAVelength")) == same


def test_a_number_may_follow_where_the_header_says_so() -> None:
    header = read_header("[SOURce#]:PULSe:WIDTh")
    assert header_matches(["SOUR2", "PULS", "WIDT"], header)
    assert header_matches(["PULS", "WIDT"], header)
    assert not header_matches(["SOUR", "PULS1", "WIDT"], header)


def test_commands_of_a_chain_go_on_in_the_path_of_the_last() -> None:
    bench = Bench()
    assert ask(bench.scpi, "SENS:CORR:WAV 3;WAV?") == "3\n"
    assert ask(bench.scpi, "SENS:CORR:WAV 4;*IDN?;WAV?") == "Maker,Model,1,2;4\n"
    assert ask(bench.scpi, "SENS:CORR:WAV 5;:CORR:WAV?") == "5\n"
    assert ask(bench.scpi, "SENS:CORR:WAV 6;SENS:CORR:WAV?") == ""
    assert errors(bench.scpi) == [-113]


def test_quoted_text_may_hold_separators() -> None:
    assert ask(Bench().scpi, "OUTP1:TEXT? \"a;b\",'c,d' , e") == "\"a;b\"|'c,d'|e\n"


@pytest.mark.parametrize(
    ("message", "code", "bit"),
    [
        ("FOO", -113, 32),
        ("FOO?", -113, 32),
        ("CORR:WAV", -109, 32),
        ("CORR:WAV 1,2", -108, 32),
        ("CORR:WAV abc", -104, 32),
        ("CORR:WAV nan", -104, 32),
        ("CORR:WAV 11", -222, 16),
        ("CORR::WAV 1", -102, 32),
        ("1", -102, 32),
        ("*ESE 256", -222, 16),
    ],
)
def test_a_mistake_is_in_the_queue_and_in_the_register_and_is_not_answered(message: str, code: int, bit: int) -> None:
    bench = Bench()
    assert ask(bench.scpi, "*CLS") == ""
    assert ask(bench.scpi, message) == ""
    assert ask(bench.scpi, "*STB?") == "4\n"
    assert ask(bench.scpi, "*ESR?") == f"{bit}\n"
    assert ask(bench.scpi, "*ESR?") == "0\n"
    assert ask(bench.scpi, "SYST:ERR:COUN?") == "1\n"
    assert errors(bench.scpi) == [code]
    assert ask(bench.scpi, "SYST:ERR?") == '0,"No error"\n'
    assert bench.value == 1.0


def test_after_a_command_error_the_rest_is_thrown_away_after_an_execution_error_it_is_not() -> None:
    bench = Bench()
    assert ask(bench.scpi, "CORR:WAV 3;FOO;WAV 4") == ""
    assert bench.value == 3.0
    assert ask(bench.scpi, ":CORR:WAV 99;WAV 4;WAV?") == "4\n"
    assert errors(bench.scpi) == [-113, -222]


def test_limits_and_defaults_have_names() -> None:
    bench = Bench()
    assert ask(bench.scpi, "CORR:WAV MAX;WAV?;WAV? MIN;WAV DEFAULT;WAV?") == "10;0;1\n"


def test_the_queue_is_finite_and_can_be_cleared() -> None:
    bench = Bench()
    for _ in range(30):
        ask(bench.scpi, "FOO")
    assert errors(bench.scpi) == [-113] * 15 + [-350]
    ask(bench.scpi, "FOO")
    ask(bench.scpi, "*CLS")
    assert errors(bench.scpi) == []
    assert ask(bench.scpi, "*ESR?") == "0\n"


def test_the_registers() -> None:
    bench = Bench()
    assert ask(bench.scpi, "*ESR?") == "128\n"
    ask(bench.scpi, "*ESE 32;*SRE 32")
    assert ask(bench.scpi, "*ESE?;*SRE?") == "32;32\n"
    assert ask(bench.scpi, "*STB?") == "0\n"
    ask(bench.scpi, "FOO")
    assert ask(bench.scpi, "*STB?") == str(4 + 32 + 64) + "\n"
    assert ask(bench.scpi, "*IDN?;*STB?").endswith(f";{4 + 16 + 32 + 64}\n")
    assert ask(bench.scpi, "*TST?") == "0\n"
    bench.value = 5.0
    ask(bench.scpi, "*RST")
    assert bench.value == 1.0


def test_completion_is_answered_when_the_operation_has_ended() -> None:
    bench = Bench()
    ask(bench.scpi, "*CLS")
    bench.scpi.receive(b"CORR:GO;*OPC?\n", 1.0)
    assert bench.scpi.due_s() == 6.0
    assert bench.scpi.messages(5.99) == []
    assert bench.scpi.messages(6.0) == []
    assert bench.scpi.due_s() == pytest.approx(6.002)
    assert bench.scpi.messages(6.01) == [b"1\n"]
    assert ask(bench.scpi, "CORR:GO;*OPC", 10.0) == ""
    assert ask(bench.scpi, "*ESR?", 14.9) == "0\n"
    assert ask(bench.scpi, "*ESR?", 15.1) == "1\n"
    assert ask(bench.scpi, "*OPC?", 20.0) == "1\n"


def test_what_follows_a_wait_waits_and_so_do_later_messages() -> None:
    bench = Bench()
    bench.scpi.receive(b"CORR:GO;*WAI;WAV 7\n", 1.0)
    bench.scpi.receive(b"CORR:WAV?\n", 2.0)
    assert bench.value == 1.0
    assert bench.scpi.messages(6.01) == [b"7\n"]


def test_a_second_question_before_the_answer_interrupts_it() -> None:
    bench = Bench()
    ask(bench.scpi, "*CLS")
    bench.scpi.receive(b"*IDN?\n", 1.0)
    bench.scpi.receive(b"CORR:WAV?\n", 1.001)
    assert bench.scpi.messages(2.0) == [b"1\n"]
    assert ask(bench.scpi, "*ESR?", 3.0) == "4\n"
    assert errors(bench.scpi, 3.0) == [-410]


def test_a_message_without_an_end_is_thrown_away() -> None:
    bench = Bench()
    bench.scpi.receive(b"x" * 5000, 0.0)
    assert ask(bench.scpi, "*IDN?") == "Maker,Model,1,2\n"
    assert errors(bench.scpi) == [-102]


def test_parameters() -> None:
    assert number("1e-3", 0, 1) == 0.001
    assert number("+.5", 0, 1) == 0.5
    assert number("min", -2, 1) == -2
    assert boolean("on")
    assert not boolean("0")
    assert choice("ext", ("BUS", "EXTernal")) == "EXT"
    assert is_word("External", "EXTernal")
    for wrong in (lambda: number("DEF", 0, 1), lambda: boolean("yes"), lambda: choice("x", ("BUS",))):
        with pytest.raises(ScpiError):
            wrong()


_MESSAGES = st.text(alphabet="SENCORWAV:;*?,\"' 0129.eOPCLI\n", max_size=40).map(str.encode) | st.binary(max_size=30)


@settings(deadline=None)
@given(st.lists(_MESSAGES, max_size=10))
def test_whatever_comes_it_goes_on(pieces: list[bytes]) -> None:
    bench = Bench()
    for second, piece in enumerate(pieces):
        bench.scpi.receive(piece, float(second))
        bench.scpi.messages(second + 0.5)
    bench.scpi.receive(b"\n", 100.0)
    bench.scpi.messages(150.0)
    assert ask(bench.scpi, "*IDN?", 200.0) == "Maker,Model,1,2\n"
