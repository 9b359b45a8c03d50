from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.faults import (
    LINK_FAULTS,
    FaultyLine,
    Rule,
    Schedule,
    at,
    flip_bit,
    on_nth_command,
    read_script,
    with_probability,
)
from cartoseq.simulators.hosts import MemoryHost, PtyHost, TcpHost
from cartoseq.simulators.wire import Outbox


class Parrot:
    """Repeats each line at once, and knows one fault: to say other words."""

    name = "parrot"

    def __init__(self) -> None:
        self.faults = {"words": "It says another word instead of what it heard."}
        self.word = b""
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            if line:
                self._out.put(now_s, (self.word or line) + b"\r")

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        if set(values) != {"word"}:
            raise ValueError("words needs word, and nothing else")
        self.word = str(values["word"]).encode()

    def clear(self, now_s: float) -> None:
        self.word = b""

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        return {"word": self.word.decode()}


def hear(line: FaultyLine, commands: bytes, until_s: float = 100.0) -> list[tuple[float, bytes]]:
    """Send commands at 0 s, and return every message with its time, asking only when something is due."""
    line.receive(commands, 0.0)
    heard = [(0.0, message) for message in line.messages(0.0)]
    while (due_s := line.due_s()) is not None and due_s <= until_s:
        heard += [(due_s, message) for message in line.messages(due_s)]
    return heard


@pytest.mark.parametrize(
    ("fault", "values", "heard"),
    [
        ("drop", {}, [(0, b"two\r")]),
        ("delay", {"by_s": 0.5}, [(0.5, b"one\r"), (0.5, b"two\r")]),
        ("late", {"by_s": 0.5}, [(0, b"two\r"), (0.5, b"one\r")]),
        ("duplicate", {}, [(0, b"one\r"), (0, b"one\r"), (0, b"two\r")]),
        ("duplicate", {"gap_s": 0.1}, [(0, b"one\r"), (0.1, b"one\r"), (0.1, b"two\r")]),
        ("truncate", {"bytes": 2}, [(0, b"on"), (0, b"two\r")]),
        ("truncate", {"bytes": 0}, [(0, b"two\r")]),
        ("flip", {"bit": 8}, [(0, b"ooe\r"), (0, b"two\r")]),
        ("split", {"chunks": 2, "gap_s": 0.1}, [(0, b"on"), (0.1, b"e\r"), (0.1, b"two\r")]),
        ("split", {"chunks": 9, "gap_s": 0.0}, [(0, b"o"), (0, b"n"), (0, b"e"), (0, b"\r"), (0, b"two\r")]),
        ("garbage", {"byte": 255}, [(0, b"\xffone\r"), (0, b"two\r")]),
        ("swap", {}, [(0, b"two\r"), (0, b"one\r")]),
        ("disconnect", {"bytes": 6}, [(0, b"one\r"), (0, b"tw")]),
        ("disconnect", {}, []),
        ("refuse", {}, [(0, b"one\r"), (0, b"two\r")]),
    ],
)
def test_what_each_fault_does_to_two_messages(
    fault: str, values: dict[str, float], heard: list[tuple[float, bytes]]
) -> None:
    line = FaultyLine(Parrot())
    line.inject(fault, 0.0, **values)
    assert hear(line, b"one\rtwo\r") == heard
    assert line.take_cut() == (fault == "disconnect")
    assert not line.take_cut()
    assert line.refuses(0.0) == (fault == "refuse")


def test_every_fault_of_the_line_is_among_them() -> None:
    listed = {"drop", "delay", "late", "duplicate", "truncate", "flip", "split", "garbage", "swap", "disconnect"}
    assert set(LINK_FAULTS) == {*listed, "refuse"}


def test_faults_add_up_on_one_message() -> None:
    line = FaultyLine(Parrot())
    for fault, values in (("garbage", {"byte": 42}), ("truncate", {"bytes": 3}), ("delay", {"by_s": 0.2})):
        line.inject(fault, 0.0, **values)
    assert hear(line, b"one\r") == [(0.2, b"*on")]


def test_what_is_held_back_is_let_go_when_faults_are_cleared() -> None:
    line = FaultyLine(Parrot())
    line.inject("swap", 0.0)
    line.inject("refuse", 0.0)
    assert hear(line, b"one\r") == []
    line.clear(1.0)
    assert line.messages(1.0) == [b"one\r"]
    assert not line.refuses(1.0)


def test_a_port_refuses_for_a_while() -> None:
    line = FaultyLine(Parrot())
    line.inject("refuse", 1.0, for_s=2.0)
    assert line.refuses(2.9)
    assert not line.refuses(3.0)


# -------------------------------------------------------------------------------------------------------------- when


def test_a_fault_at_a_command_falls_on_its_reply_however_the_bytes_come() -> None:
    for commands in ([b"a\rb\rc\r"], [b"a", b"\r\n", b"b\rc", b"\r"]):
        line = FaultyLine(Parrot(), schedule=[on_nth_command(2, "drop")])
        heard = []
        for number, piece in enumerate(commands):
            line.receive(piece, float(number))
            heard += [message.strip() for message in line.messages(float(number))]
        # All commands in one piece are obeyed before the line is asked for replies: the next message is the first.
        assert heard == ([b"b", b"c"] if len(commands) == 1 else [b"a", b"c"])


def test_a_fault_of_the_device_at_a_command_is_there_when_it_is_obeyed() -> None:
    parrot = Parrot()
    line = FaultyLine(parrot, devices=[parrot], schedule=[on_nth_command(2, "words", word="no")])
    assert [message for _, message in hear(line, b"a\rb\rc\r")] == [b"a\r", b"no\r", b"no\r"]


def test_a_fault_at_a_time_counts_from_the_beginning_and_is_due() -> None:
    parrot = Parrot()
    line = FaultyLine(parrot, devices=[parrot], schedule=[at(2.0, "words", word="no"), at(1.0, "drop")], start_s=10.0)
    assert line.due_s() == 11.0
    assert line.messages(11.0) == []
    line.receive(b"a\rb\r", 11.5)
    assert line.messages(11.5) == [b"b\r"]
    line.receive(b"c\r", 12.0)
    assert line.messages(12.0) == [b"no\r"]
    assert line.due_s() is None


def test_dice_of_one_seed_fall_alike_and_as_often_as_told() -> None:
    def dropped(seed: int, times: int | None = None) -> list[int]:
        schedule = Schedule([with_probability(0.2, seed, "drop", times=times)])
        return [command for command in range(1, 1001) if schedule.at_command()]

    assert dropped(1) == dropped(1)
    assert dropped(1) != dropped(2)
    assert 150 < len(dropped(1)) < 250
    assert dropped(1, times=3) == dropped(1)[:3]


def test_a_script_says_the_same_as_the_functions() -> None:
    assert read_script(
        [
            {"fault": "drop", "on_command": 3},
            {"fault": "delay", "at_s": 12.5, "by_s": 0.8},
            {"fault": "flip", "probability": 0.01, "seed": 7, "bit": 12},
            {"fault": "stall", "probability": 1, "seed": 7, "times": 2, "axis": "X"},
        ]
    ) == [
        _like(on_nth_command(3, "drop")),
        _like(at(12.5, "delay", by_s=0.8)),
        _like(with_probability(0.01, 7, "flip", bit=12)),
        _like(with_probability(1, 7, "stall", times=2, axis="X")),
    ]


def _like(rule: Rule) -> object:
    class Like:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            kept = ("fault", "values", "at_s", "command", "probability", "seed", "times", "device")
            return all(getattr(rule, name) == getattr(other, name) for name in kept)

    return Like()


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"at_s": 1}, "fault 1: expected fault = NAME, found None"),
        ({"fault": "drop"}, r"fault 1 \(drop\): expected one of at_s, on_command, probability, found none"),
        ({"fault": "drop", "at_s": 1, "on_command": 1}, "found at_s and on_command"),
        ({"fault": "drop", "at_s": -1}, "at_s is a time from 0 on, found -1"),
        ({"fault": "drop", "at_s": "soon"}, "found 'soon'"),
        ({"fault": "drop", "on_command": 0}, "on_command is a number from 1 on, found 0"),
        ({"fault": "drop", "on_command": 1.5}, "found 1.5"),
        ({"fault": "drop", "probability": 1.5, "seed": 1}, "probability is 0 to 1"),
        ({"fault": "drop", "probability": 0.5}, "needs a seed"),
        ({"fault": "drop", "probability": 0.5, "seed": 1, "times": 0}, "times is a number from 1 on"),
        ({"fault": "drop", "at_s": 1, "seed": 1}, "seed and times belong to probability"),
        ({"fault": "drop", "at_s": 1, "by_s": [1]}, "by_s is a number or a text"),
        ({"fault": "drop", "at_s": 1, "device": 3}, "device is a name, found 3"),
        (7, "expected a table, found 7"),
    ],
)
def test_a_script_that_is_not_understood_is_refused(table: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_script([table])


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (at(1, "melt"), r"fault 1 \(melt\): no such fault; there are delay, .*, words"),
        (at(1, "drop", by_s=1), "it takes no by_s; it takes nothing"),
        (at(1, "delay", by_s="long"), "by_s is a number of seconds from 0 on, found 'long'"),
        (at(1, "delay", by_s=-1), "found -1"),
        (at(1, "flip", bit=1.5), "bit is a whole number"),
        (at(1, "garbage", byte=256), "byte is a whole number, 0 to 255, found 256"),
        (at(1, "split", chunks=0), "chunks is a whole number, 1 to"),
        (at(1, "words"), "words needs word"),
    ],
)
def test_a_schedule_is_tried_before_it_is_taken_and_disturbs_nothing(rule: Rule, complaint: str) -> None:
    parrot = Parrot()
    line = FaultyLine(parrot, devices=[parrot], schedule=[at(5, "words", word="no")])
    with pytest.raises(ValueError, match=complaint):
        line.schedule([rule], 0.0)
    assert parrot.word == b""
    assert line.due_s() == 5.0


def test_a_fault_that_two_devices_know_needs_the_name_of_one() -> None:
    one, two = Parrot(), Parrot()
    two.name = "budgie"
    with pytest.raises(ValueError, match="name the device: parrot, budgie know it"):
        FaultyLine(Parrot(), devices=[one, two], schedule=[at(1, "words", word="no")])
    script = read_script([{"fault": "words", "device": "budgie", "at_s": 1, "word": "no"}])
    line = FaultyLine(Parrot(), devices=[one, two], schedule=script)
    line.messages(1.0)
    assert (one.word, two.word) == (b"", b"no")


def test_where_replies_leave_by_another_line_its_messages_are_spoilt() -> None:
    replies = FaultyLine(Parrot())
    commands = FaultyLine(Parrot(), answers=replies, schedule=[on_nth_command(2, "drop")])
    assert hear(commands, b"a\rb\r") == [(0, b"a\r"), (0, b"b\r")]
    assert hear(replies, b"c\rd\r") == [(0, b"d\r")]


@given(st.binary(min_size=1, max_size=20), st.integers(0, 1000))
def test_a_flipped_bit_is_one_bit(message: bytes, bit: int) -> None:
    spoiled = flip_bit(message, bit)
    changed = int.from_bytes(message, "big") ^ int.from_bytes(spoiled, "big")
    assert len(spoiled) == len(message)
    assert changed.bit_count() == 1
    assert flip_bit(spoiled, bit) == message


@given(st.lists(st.sampled_from([b"a", b"bc", b"d\r", b"\r"])), st.data())
def test_without_faults_nothing_is_changed(pieces: list[bytes], data: st.DataObject) -> None:
    plain, line = Parrot(), FaultyLine(Parrot())
    for number, piece in enumerate(pieces):
        plain.receive(piece, float(number))
        line.receive(piece, float(number))
        if data.draw(st.booleans()):
            assert line.messages(float(number)) == plain.messages(float(number))
    assert line.messages(99.0) == plain.messages(99.0)


# -------------------------------------------------------------------------------------------------------------- hosts


def test_in_memory_the_line_is_cut_after_so_many_bytes_and_opens_again() -> None:
    heard: list[bytes] = []

    async def main() -> None:
        line = FaultyLine(Parrot(), schedule=[on_nth_command(2, "disconnect", bytes=2)])
        host = MemoryHost(line, baud_rate=9600)
        first = await host.connect(heard.append)
        first.write(b"one\r")
        await asyncio.sleep(1)
        first.write(b"two\r")
        await asyncio.sleep(1)
        with pytest.raises(OSError, match="cut"):
            first.write(b"three\r")
        line.inject("refuse", asyncio.get_running_loop().time(), for_s=10.0)
        with pytest.raises(ConnectionRefusedError):
            await host.connect(heard.append)
        await asyncio.sleep(10)
        second = await host.connect(heard.append)
        second.write(b"four\r")
        await asyncio.sleep(1)

    run_virtual(main())
    assert heard == [b"one\r", b"tw", b"", b"four\r"]


def test_a_cut_that_finds_no_line_cuts_none_later() -> None:
    heard: list[bytes] = []

    async def main() -> None:
        line = FaultyLine(Parrot())
        line.inject("disconnect", 0.0)
        (await MemoryHost(line).connect(heard.append)).write(b"one\r")
        await asyncio.sleep(1)

    run_virtual(main())
    assert heard == [b"one\r"]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(in_time())


def test_over_tcp_the_line_is_cut_and_a_refusing_port_hangs_up() -> None:
    async def main() -> None:
        line = FaultyLine(Parrot(), schedule=[on_nth_command(1, "disconnect", bytes=2)])
        host = TcpHost(line)
        await host.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(b"one\r")
        assert await reader.read() == b"on"
        writer.close()
        line.inject("refuse", 0.0)
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        assert await reader.read() == b""
        writer.close()
        line.clear(0.0)
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(b"two\r")
        assert await reader.readexactly(4) == b"two\r"
        line.inject("disconnect", 0.0)
        host.look()
        assert await reader.read() == b""
        writer.close()
        await host.close()

    run(main)


def test_a_terminal_is_taken_away_and_its_link_leads_to_the_next(tmp_path: Path) -> None:
    link = tmp_path / "stage"

    def say(data: bytes) -> int:
        terminal = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        os.write(terminal, data)
        return terminal

    async def read(terminal: int, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                data += os.read(terminal, count)
            except BlockingIOError:
                await asyncio.sleep(0.002)
        os.close(terminal)
        return data

    async def main() -> None:
        line = FaultyLine(Parrot())
        host = PtyHost(line, link=link)
        await host.start()
        assert host.path == str(link)
        first = link.readlink()
        assert await read(say(b"one\r"), 4) == b"one\r"
        held = os.open(first, os.O_RDWR | os.O_NOCTTY)
        line.inject("disconnect", 0.0)
        host.look()
        while True:
            await asyncio.sleep(0.002)
            try:
                os.write(held, b"x")
            except OSError:
                break
        os.close(held)
        assert await read(say(b"two\r"), 4) == b"two\r"
        line.inject("refuse", asyncio.get_running_loop().time(), for_s=0.1)
        host.look()
        assert not link.exists()
        while not link.exists():
            await asyncio.sleep(0.002)
        assert await read(say(b"six\r"), 4) == b"six\r"
        await host.close()
        assert not link.is_symlink()

    run(main)


def test_a_host_hears_for_its_siblings() -> None:
    class Both:
        """Hears at one port and answers at the other."""

        def __init__(self) -> None:
            self.out = Outbox()

        def receive(self, data: bytes, now_s: float) -> None:
            self.out.put(now_s + 0.5, data)

        def due_s(self) -> float | None:
            return None

        def messages(self, now_s: float) -> list[bytes]:
            return []

    class Answers:
        def __init__(self, out: Outbox) -> None:
            self.due_s = out.due_s
            self.messages = out.take

        def receive(self, data: bytes, now_s: float) -> None:
            raise AssertionError("nobody talks to this port")

    heard: list[bytes] = []

    async def main() -> None:
        both = Both()
        asked, answered = MemoryHost(both), MemoryHost(Answers(both.out))
        asked.siblings.append(answered)
        await answered.connect(heard.append)
        (await asked.connect(lambda _data: None)).write(b"hello")
        await asyncio.sleep(1)

    run_virtual(main())
    assert heard == [b"hello"]


def test_link_values_are_those_that_the_sentences_name() -> None:
    named: Mapping[str, list[str]] = {
        fault: [word for word in ("by_s", "gap_s", "bytes", "chunks", "byte", "for_s") if word in sentence.split()]
        for fault, sentence in LINK_FAULTS.items()
    }
    for fault, words in named.items():
        line = FaultyLine(Parrot())
        for word in words:
            line.inject(fault, 0.0, **{word: 1})
