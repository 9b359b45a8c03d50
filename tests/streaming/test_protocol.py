"""Source, recorder and consumer over a transport that drops, doubles, reorders and flips bits, while they die."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.streaming.errors import CorruptionError, DiskError, RunError, VersionError
from cartoseq.streaming.header import FLAG_RESET, RecordHeader, RecordKind, crc_of
from cartoseq.streaming.log import LogWriter
from cartoseq.streaming.protocol import ConsumerMachine, Message, SourceMachine, abort, parse, resume
from cartoseq.streaming.recorder import RecorderMachine

RUN = 9
FOLDER = Path("/log")
BLOCKS = 8
SOURCES = (1, 2)
LIMIT_S = 300.0


def payload_of(source: int, sequence: int) -> bytes:
    return random.Random(source * 1000 + sequence).randbytes(20 + 17 * (sequence % 5))


class World:
    """Two sources, a recorder and two consumers in virtual time."""

    def __init__(
        self,
        seed: int,
        disk: Any,
        *,
        calm: bool = False,
        machine: Callable[..., RecorderMachine] = RecorderMachine,
        read: Callable[[list[bytes]], Message] = parse,
    ) -> None:
        self.rng = random.Random(seed)
        self.disk = disk
        self.machine_type = machine
        self.read = read
        self.now = 0.0
        self.calm_at = 0.0 if calm else self.rng.uniform(1.0, 6.0)
        self.loss = 0.0 if calm else self.rng.choice((0.0, 0.05, 0.3))
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.acked = dict.fromkeys(SOURCES, 0)
        self.sources: dict[int, SourceMachine] = {}
        self.names: dict[int, bytes] = {}
        self.lives = 0
        self.recorder: RecorderMachine | None = None
        self.consumers: dict[bytes, ConsumerMachine] = {}
        self.checkpoints: dict[bytes, list[tuple[int, int, bytes]]] = {b"consumer-1": [], b"consumer-2": []}
        self.states: dict[bytes, list[tuple[int, int, bytes]]] = {}

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + delay, self.count, action))

    @property
    def calm(self) -> bool:
        return self.now >= self.calm_at

    def start(self) -> None:
        disk_chance = self.rng.choice((0.0, 0.0, 0.03))

        def chance(_: str) -> str:
            if self.calm or self.rng.random() >= disk_chance:
                return ""
            return self.rng.choice(("EIO", "ENOSPC", "short"))

        if disk_chance:
            self.disk.chance = chance
        self.start_recorder()
        for source in SOURCES:
            self.start_source(source)
        for name in self.checkpoints:
            self.start_consumer(name)
        for _ in range(0 if self.calm else self.rng.randrange(8)):
            victim = self.rng.choice(
                (self.kill_recorder, self.cut_power, lambda: self.start_source(1), lambda: self.start_source(2))
            )
            self.at(self.rng.uniform(0.0, self.calm_at), victim)
            self.at(self.rng.uniform(0.0, self.calm_at), lambda: self.start_consumer(b"consumer-1"))
        self.tick()

    def start_recorder(self) -> None:
        try:
            log = LogWriter(FOLDER, {"run": RUN}, segment_bytes=self.rng.choice((300, 900, 10_000)), disk=self.disk)
        except DiskError:
            self.at(0.1, self.start_recorder)
            return
        for source in SOURCES:
            assert log.next_sequence(source) >= self.acked[source], "acknowledged data is lost"
        self.recorder = self.machine_type(log, credit_bytes=self.rng.choice((1, 150, 10_000)), reserve_bytes=0)

    def kill_recorder(self) -> None:
        if self.recorder is not None:
            self.recorder = None
            self.lives += 1
            self.at(self.rng.uniform(0.0, 0.5), self.start_recorder)

    def cut_power(self) -> None:
        if self.recorder is not None:
            self.kill_recorder()
            self.disk.lose_power(self.rng)

    def start_source(self, source: int) -> None:
        self.count += 1
        self.names[source] = b"source-%d-%d" % (source, self.count)
        self.sources[source] = SourceMachine(RUN, source, epoch=self.rng.randrange(1 << 16), silence_s=1.0)
        self.send_from_source(source, self.sources[source].hello(self.now))

    def start_consumer(self, name: bytes) -> None:
        state = self.states[name] = list(self.checkpoints[name])
        self.consumers[name] = ConsumerMachine(RUN, len(state), credit_bytes=self.rng.choice((1, 200, 5000)))
        self.send(b"", name, self.consumers[name].fetch(self.now, reset=True))

    def send_from_source(self, source: int, messages: list[Message]) -> None:
        self.send(b"", self.names[source], messages)

    def send(self, to: bytes, sender: bytes, messages: list[Message]) -> None:
        for message in messages:
            frames = [bytes(frame) for frame in message.frames()]
            copies = 1
            if not self.calm:
                copies = self.rng.choice((1, 1, 1, 1, 2)) if self.rng.random() >= self.loss else 0
                if self.loss and self.rng.random() < 0.03:
                    place = self.rng.randrange(len(frames))
                    changed = bytearray(frames[place] or b"?")
                    changed[self.rng.randrange(len(changed))] ^= 1 << self.rng.randrange(8)
                    frames[place] = bytes(changed)
            for _ in range(copies):
                delay = self.rng.uniform(0.001, 0.05) if self.loss else 0.01
                life = self.lives  # what is under way to a process dies with its connection
                self.at(delay, lambda frames=frames, life=life: self.deliver(to, sender, frames, life))

    def deliver(self, to: bytes, sender: bytes, frames: list[bytes], life: int) -> None:
        try:
            message = self.read(frames)
        except (ValueError, VersionError):
            return
        if to == b"":
            if self.recorder is not None and life == self.lives:
                self.recorder.receive(sender, message, self.now)
                if self.rng.random() < 0.3:
                    self.commit()
        elif to in self.checkpoints:
            try:
                self.send(b"", to, self.consumers[to].receive(message, self.now))
            except RunError as error:
                if "Input/output" not in str(error) and "No space" not in str(error):
                    raise
                self.start_consumer(to)
        else:
            source = int(to.split(b"-")[1])
            if to != self.names[source]:
                return  # that process is dead
            self.send_from_source(source, self.sources[source].receive(message, self.now))
            self.acked[source] = max(self.acked[source], self.sources[source].acked)

    def commit(self) -> None:
        assert self.recorder is not None
        for peer, message in self.recorder.commit(self.now):
            self.send(peer, b"", [message])

    def tick(self) -> None:
        """What the loops around the machines do: commit, act on silence, submit, take, checkpoint."""
        if self.recorder is not None:
            self.commit()
        for source, machine in self.sources.items():
            self.send_from_source(source, machine.tick(self.now))
            if machine.can_submit and not machine.ended:
                sequence = machine.next_sequence
                kind = RecordKind.DATA if sequence < BLOCKS else RecordKind.END
                header = RecordHeader(kind, 0, count=sequence, schema=1)
                data = payload_of(source, sequence)
                self.send_from_source(source, machine.submit(header, [data[:5], data[5:]], self.now))
        for name, machine in self.consumers.items():
            self.send(b"", name, machine.tick(self.now))
            delivery, messages = machine.take(self.now)
            self.send(b"", name, messages)
            if delivery is not None:
                state = self.states[name]
                assert delivery.index == len(state)
                header = delivery.header
                state.append((header.source, header.sequence, b"".join(delivery.payload)))
                if self.rng.random() < 0.3:
                    self.checkpoints[name] = list(state)
        self.at(0.02, self.tick)

    def finished(self) -> bool:
        total = len(SOURCES) * (BLOCKS + 1)
        return all(machine.ended and machine.all_acknowledged for machine in self.sources.values()) and all(
            len(state) == total for state in self.states.values()
        )

    def run(self) -> None:
        self.start()
        while not self.finished():
            self.now, _, action = heapq.heappop(self.events)
            assert self.now < LIMIT_S, "it never comes to an end"
            action()
        first, second = self.states.values()
        assert first == second
        for source in SOURCES:
            mine = [(sequence, data) for owner, sequence, data in first if owner == source]
            assert mine == [(sequence, payload_of(source, sequence)) for sequence in range(BLOCKS + 1)]


def test_whatever_happens_nothing_acknowledged_is_lost_doubled_or_out_of_order(memory_disk: Any) -> None:
    for seed in range(300):
        try:
            World(seed, memory_disk()).run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "short"])
def test_a_run_ends_well_whichever_disk_call_fails(memory_disk: Any, fault: str) -> None:
    for number in range(1000):
        disk = memory_disk()
        disk.faults = {number: fault}
        World(3, disk, calm=True).run()
        if len(disk.calls) <= number:
            return
    pytest.fail("never got to the end of the calls")


def is_found_out(memory_disk: Any, *, lies: frozenset[str] = frozenset(), **broken: Any) -> bool:
    for seed in range(100):
        disk = memory_disk()
        disk.lies = lies
        try:
            World(seed, disk, **broken).run()
        except (AssertionError, RunError, CorruptionError):
            return True
    return False


class AcknowledgesTooEarly(RecorderMachine):
    """The recorder with rule 2 broken: its answers do not wait for the medium."""

    def commit(self, now: float) -> list[tuple[bytes, Message]]:
        sync, self.log.sync = self.log.sync, lambda: None  # type: ignore[method-assign]
        answers = super().commit(now)
        self.log.sync = sync  # type: ignore[method-assign]
        return answers + super().commit(now) if int(now * 50) % 10 == 0 else answers


class SkipsGaps(RecorderMachine):
    """The recorder with rule 1 broken: it believes a source that a gap is none."""

    def receive(self, peer: bytes, message: Message, now: float) -> None:
        expected = self.log.next_sequence(message.header.source)
        if message.header.kind is RecordKind.DATA and message.header.sequence > expected:
            message = Message(replace(message.header, sequence=expected), message.payload)
        super().receive(peer, message, now)


def without_checksums(frames: list[bytes]) -> Message:
    header = RecordHeader.unpack(frames[0])
    if header.kind is RecordKind.RECORD:
        return parse(frames)
    payload = tuple(frames[1:])
    return Message(replace(header, payload_crc=crc_of(payload)), payload)


def test_an_acknowledgement_before_the_sync_is_found_out(memory_disk: Any) -> None:
    assert is_found_out(memory_disk, machine=AcknowledgesTooEarly)


def test_a_gap_that_is_skipped_is_found_out(memory_disk: Any) -> None:
    assert is_found_out(memory_disk, machine=SkipsGaps)


def test_payloads_that_are_not_checked_are_found_out(memory_disk: Any) -> None:
    assert is_found_out(memory_disk, read=without_checksums)


@pytest.mark.parametrize("call", ["sync", "sync_folder"])
def test_a_sync_that_does_nothing_is_found_out(memory_disk: Any, call: str) -> None:
    assert is_found_out(memory_disk, lies=frozenset({call}))


def test_a_full_disk_stops_the_credit_serves_the_consumers_and_goes_on(memory_disk: Any) -> None:
    disk = memory_disk()
    log = LogWriter(FOLDER, {"run": RUN}, disk=disk)
    recorder = RecorderMachine(log, credit_bytes=1000, reserve_bytes=500)
    source = SourceMachine(RUN, 1)

    def exchange(messages: list[Message], now: float) -> None:
        for message in messages:
            recorder.receive(b"source-1", message, now)
        for peer, answer in recorder.commit(now):
            if peer == b"source-1":
                exchange_again = source.receive(answer, now)
                assert exchange_again == [] or now >= 10.0
                resent.extend(exchange_again)

    resent: list[Message] = []
    exchange(source.hello(0.0), 0.0)
    assert source.can_submit
    exchange(source.submit(RecordHeader(RecordKind.DATA, 0), [bytes(100)], 0.0), 0.0)
    assert source.acked == 1

    disk.capacity = 600  # below the reserve: no credit, but what is under way still fits
    exchange([], 2.0)
    assert "reserved" in recorder.paused
    assert not source.can_submit
    exchange(source.submit(RecordHeader(RecordKind.DATA, 0), [bytes(100)], 2.0), 2.0)
    assert (source.acked, log.durable_index) == (1, 1)  # not sent at all: there is no credit

    consumer = ConsumerMachine(RUN, 0)
    for message in consumer.fetch(3.0, reset=True):
        recorder.receive(b"consumer", message, 3.0)
    for peer, answer in recorder.commit(3.0):
        assert peer == b"consumer"
        consumer.receive(answer, 3.0)
    assert consumer.position == 1

    disk.capacity = 1 << 30
    exchange([], 10.0)
    assert recorder.paused == ""
    assert len(resent) == 1
    exchange(resent, 10.0)
    assert source.acked == 2
    assert source.all_acknowledged


def test_a_disk_that_fills_up_suddenly_holds_the_sources_until_there_is_space(memory_disk: Any) -> None:
    for seed in range(20):
        disk = memory_disk()
        world = World(seed, disk, calm=True)
        disk.capacity = 500 + 37 * seed
        world.at(5.0, lambda disk=disk: setattr(disk, "capacity", 1 << 30))
        world.run()
        assert world.now > 5.0


def opened(acked: int = 0) -> SourceMachine:
    source = SourceMachine(RUN, 1, epoch=5)
    source.hello(0.0)
    source.receive(answer(RecordKind.RESUME, acked, 5), 0.0)
    return source


def answer(kind: RecordKind, sequence: int, epoch: int, credit: int = 1000) -> Message:
    header = RecordHeader(kind, RUN, 1, sequence, count=credit, epoch=epoch)
    return resume(header, ended=False, clusters=0) if kind is RecordKind.RESUME else Message(header)


def submit(source: SourceMachine, size: int = 10) -> list[Message]:
    return source.submit(RecordHeader(RecordKind.DATA, 0), [bytes(size)], 0.0)


def test_a_recorder_that_forgot_acknowledged_data_ends_the_run() -> None:
    source = opened()
    submit(source)
    submit(source)
    source.receive(answer(RecordKind.ACK, 2, 5), 0.0)
    source.hello(1.0)
    with pytest.raises(RunError, match="lost acknowledged data: it asks source 1 for record 1"):
        source.receive(answer(RecordKind.RESUME, 1, 6), 1.0)


def test_a_recorder_that_knows_more_than_was_sent_ends_the_run() -> None:
    source = opened()
    source.hello(1.0)
    with pytest.raises(RunError, match="another reader"):
        source.receive(answer(RecordKind.RESUME, 3, 6), 1.0)
    with pytest.raises(RunError, match="never sent"):
        opened().receive(answer(RecordKind.ACK, 1, 5), 1.0)


def test_stale_answers_change_nothing() -> None:
    source = opened(7)
    assert source.next_sequence == 7
    submit(source)
    for stale in (
        answer(RecordKind.RESUME, 3, 5),
        answer(RecordKind.RESUME, 3, 4),
        answer(RecordKind.ACK, 8, 4),
        answer(RecordKind.NACK, 2, 5),
        Message(RecordHeader(RecordKind.ACK, RUN + 1, 1, 8, epoch=5)),
        Message(RecordHeader(RecordKind.ACK, RUN, 2, 8, epoch=5)),
        Message(RecordHeader(RecordKind.DATA, RUN, 1, 8, epoch=5)),
    ):
        assert source.receive(stale, 0.0) == []
    assert (source.acked, source.stale) == (7, 7)
    assert source.receive(answer(RecordKind.RESUME, 8, 5), 0.0) == []  # a repeated answer is as good as an ACK
    assert source.acked == 8


def test_a_source_sends_within_its_credit_and_goes_back_when_asked() -> None:
    source = opened()
    source.receive(answer(RecordKind.ACK, 0, 5, credit=25), 0.0)
    sent = [len(submit(source)) for _ in range(5)]
    assert sent == [1, 1, 1, 0, 0]
    assert not source.can_submit
    again = source.receive(answer(RecordKind.NACK, 1, 5, credit=25), 0.0)
    assert [message.header.sequence for message in again] == [1, 2, 3]
    assert source.receive(answer(RecordKind.ACK, 4, 5, credit=0), 0.0) == []
    assert [m.header.sequence for m in source.receive(answer(RecordKind.ACK, 4, 5, credit=1), 0.0)] == [4]


def test_silence_opens_a_new_session() -> None:
    source = opened()
    assert source.tick(100.0) == []  # nothing is under way
    source.submit(RecordHeader(RecordKind.DATA, 0), [b"x"], 100.0)
    assert source.tick(101.0) == []
    (hello,) = source.tick(102.0)
    assert (hello.header.kind, hello.header.epoch) == (RecordKind.HELLO, 6)
    (again,) = source.receive(answer(RecordKind.RESUME, 0, 6), 102.0)
    assert (again.header.kind, again.header.epoch, again.header.sequence) == (RecordKind.DATA, 6, 0)


def test_a_recorder_slower_than_the_repeated_hello_is_still_understood() -> None:
    source = SourceMachine(RUN, 1, epoch=5)
    hellos = [*source.hello(0.0), *source.tick(1.0), *source.tick(2.0)]
    assert [message.header.epoch for message in hellos] == [5, 5, 5]
    source.receive(answer(RecordKind.RESUME, 0, 5), 3.0)
    assert source.can_submit


def test_a_source_without_credit_asks_again() -> None:
    source = opened()
    source.receive(answer(RecordKind.ACK, 0, 5, credit=0), 0.0)
    assert not source.can_submit
    assert [m.header.kind for m in source.tick(3.0)] == [RecordKind.HELLO]


def test_a_refusal_is_raised_with_its_reason() -> None:
    with pytest.raises(RunError, match="refused: wrong run"):
        opened().receive(abort(RUN, "wrong run", source=1), 0.0)
    with pytest.raises(CorruptionError, match="offset 64"):
        ConsumerMachine(RUN, 0).receive(abort(RUN, "x.log: offset 64", corrupt=True), 0.0)


@pytest.fixture
def served(memory_disk: Any) -> Iterator[tuple[RecorderMachine, Callable[..., list[Message]]]]:
    recorder = RecorderMachine(LogWriter(FOLDER, {"run": RUN}, disk=memory_disk()), reserve_bytes=0)

    def tell(kind: RecordKind, sequence: int = 0, payload: bytes = b"", **fields: int) -> list[Message]:
        header = RecordHeader(
            kind, RUN, 1, sequence, payload_bytes=len(payload), payload_crc=crc_of([payload]), **fields
        )
        recorder.receive(b"peer", Message(header, (payload,)), 0.0)
        return [message for _, message in recorder.commit(0.0)]

    yield recorder, tell
    recorder.log.close()


def test_the_recorder_takes_only_the_next_number(
    served: tuple[RecorderMachine, Callable[..., list[Message]]],
) -> None:
    recorder, tell = served
    assert [m.header.kind for m in tell(RecordKind.DATA, 0, b"a")] == [RecordKind.HELLO]  # no session yet
    assert [m.header.kind for m in tell(RecordKind.HELLO, epoch=3)] == [RecordKind.RESUME]
    assert [m.header.kind for m in tell(RecordKind.DATA, 0, b"a", epoch=2)] == [RecordKind.HELLO]  # stale session
    assert [(m.header.kind, m.header.sequence) for m in tell(RecordKind.DATA, 1, b"b", epoch=3)] == [
        (RecordKind.NACK, 0)
    ]
    assert tell(RecordKind.DATA, 2, b"c", epoch=3) == []  # one request per gap
    for _ in range(2):
        assert [(m.header.kind, m.header.sequence) for m in tell(RecordKind.DATA, 0, b"a", epoch=3)] == [
            (RecordKind.ACK, 1)
        ]
    assert recorder.log.durable_index == 1
    assert [m.header.sequence for m in tell(RecordKind.END, 1, b"{}", epoch=3)] == [2]
    assert [m.header.kind for m in tell(RecordKind.DATA, 2, b"c", epoch=3)] == [RecordKind.ABORT]
    assert recorder.log.durable_index == 2


def test_a_reader_that_was_replaced_cannot_come_back(
    served: tuple[RecorderMachine, Callable[..., list[Message]]],
) -> None:
    recorder, _ = served

    def hello(peer: bytes, born_ns: int) -> list[RecordKind]:
        recorder.receive(peer, Message(RecordHeader(RecordKind.HELLO, RUN, 1, monotonic_ns=born_ns, epoch=9)), 0.0)
        return [message.header.kind for to, message in recorder.commit(0.0) if to == peer]

    assert hello(b"old", 5) == [RecordKind.RESUME]
    assert hello(b"old", 5) == [RecordKind.RESUME]
    assert hello(b"new", 6) == [RecordKind.RESUME]
    assert hello(b"old", 5) == [RecordKind.ABORT]
    assert hello(b"new", 6) == [RecordKind.RESUME]


def test_no_number_is_given_that_a_crash_could_still_raise(memory_disk: Any) -> None:
    disk = memory_disk()
    log = LogWriter(FOLDER, {"run": RUN}, disk=disk)
    recorder = RecorderMachine(log, reserve_bytes=0)

    def hello(peer: bytes, now: float) -> list[tuple[RecordKind, int]]:
        recorder.receive(peer, Message(RecordHeader(RecordKind.HELLO, RUN, 1, epoch=3)), now)
        return [(message.header.kind, message.header.sequence) for _, message in recorder.commit(now)]

    assert hello(b"old", 0.0) == [(RecordKind.RESUME, 0)]
    recorder.receive(b"old", Message(RecordHeader(RecordKind.DATA, RUN, 1, epoch=3)), 0.0)
    disk.chance = lambda name: "EIO" if name in ("sync", "truncate") else ""
    recorder.commit(0.0)
    assert log.uncertain  # the record was taken out, but may still be on the medium
    assert hello(b"new", 0.5) == []
    assert hello(b"new", 5.0) == []
    disk.chance = lambda name: ""
    assert hello(b"new", 10.0) == [(RecordKind.RESUME, 0)]
    disk.lose_power(random.Random(1))
    assert LogWriter(FOLDER, {"run": RUN}, disk=disk).next_sequence(1) == 0


def test_a_consumer_gets_each_record_once_within_its_credit(
    served: tuple[RecorderMachine, Callable[..., list[Message]]],
) -> None:
    recorder, tell = served
    tell(RecordKind.HELLO, epoch=3)
    for sequence in range(5):
        tell(RecordKind.DATA, sequence, bytes(36), epoch=3)
    got = tell(RecordKind.FETCH, 0, count=150, flags=FLAG_RESET)
    assert [(m.header.kind, m.header.sequence, m.header.count) for m in got] == [
        (RecordKind.RECORD, 0, 4),
        (RecordKind.RECORD, 1, 3),
    ]
    assert [m.header.sequence for m in tell(RecordKind.FETCH, 1, count=150)] == [2]
    assert [m.header.sequence for m in tell(RecordKind.FETCH, 1, count=150, flags=FLAG_RESET)] == [1, 2]
    assert [m.header.kind for m in tell(RecordKind.FETCH, 6, count=150)] == [RecordKind.ABORT]
    assert recorder.consumers == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=10))
def test_any_frames_are_read_or_refused(frames: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"message|header|record|payload"):
        parse(frames)


def test_every_flipped_bit_of_a_message_is_refused() -> None:
    payload = b"calls"
    inner = RecordHeader(RecordKind.DATA, RUN, payload_bytes=5, payload_crc=crc_of([payload])).pack()
    for frames in (
        [RecordHeader(RecordKind.DATA, RUN, payload_bytes=5, payload_crc=crc_of([payload])).pack(), payload],
        [RecordHeader(RecordKind.RECORD, RUN, payload_bytes=69, payload_crc=crc_of([inner])).pack(), inner, payload],
    ):
        assert parse(frames).header.run == RUN
        for place, frame in enumerate(frames[:2]):
            for bit in range(8 * len(frame)):
                changed = bytearray(frame)
                changed[bit // 8] ^= 1 << bit % 8
                with pytest.raises(ValueError, match=r"checksum|magic"):
                    parse([*frames[:place], bytes(changed), *frames[place + 1 :]])
    bad = RecordHeader(RecordKind.RECORD, RUN, payload_bytes=69, payload_crc=crc_of([inner]))
    consumer = ConsumerMachine(RUN, 0)
    (fetch,) = consumer.receive(Message(bad, (inner, b"CALLS")), 0.0)
    assert fetch.header.flags == FLAG_RESET
    assert consumer.position == 0
