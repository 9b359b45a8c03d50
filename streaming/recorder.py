"""The recorder: takes blocks from sources, puts them on the medium, acknowledges, and hands them out.

``RecorderMachine`` is the protocol's third end: messages in, appends to the log, messages out. ``serve`` runs it
behind one ZeroMQ ROUTER in a plain thread or process: poll, drain what has come, one ``fdatasync`` for all of it, then
the ACKs and the records that consumers have credit for.

A disk that is full or fails does not end the recorder. It stops granting credit, so that sources wait; it goes on
serving consumers; it looks again every second, and once the disk takes data asks each source to go on from the first
number that is not in the log.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq

from cartoseq.streaming.disk import Disk
from cartoseq.streaming.errors import CorruptionError, DiskError, VersionError
from cartoseq.streaming.header import (
    FLAG_RESET,
    HEADER_BYTES,
    KEPT,
    Buffer,
    RecordHeader,
    RecordKind,
    bytes_in,
    crc_of,
)
from cartoseq.streaming.log import SEGMENT_BYTES, LogWriter
from cartoseq.streaming.protocol import Message, abort, parse, resume
from cartoseq.streaming.sockets import bind, check_endpoint, open_socket, reuse_memory

CREDIT_BYTES = 32 << 20
RESERVE_BYTES = 1 << 30
RECENT_BYTES = 64 << 20
_RETRY_S = 1.0
_FORGET_S = 60.0
_POLL_MS = 100
_GROUP_BYTES = 8 << 20
_LINGER_MS = 200


@dataclass(frozen=True, slots=True)
class RecorderStatus:
    """What the recorder is doing.

    Attributes:
        durable_index: Records on the medium.
        sources: Sources with an open session.
        consumers: Consumers heard of in the last minute.
        free_bytes: Space on the log's disk; -1 if it cannot be told.
        paused: Why no credit is granted; empty while recording.
        junk: Messages dropped because they were not of this protocol, run or version.
        sync_seconds: Duration of the last group's ``fdatasync``.
    """

    durable_index: int
    sources: int
    consumers: int
    free_bytes: int
    paused: str
    junk: int
    sync_seconds: float


@dataclass(slots=True)
class _Session:
    peer: bytes
    epoch: int
    born_ns: int
    answer: RecordKind | None
    asked_again_for: int = -1


@dataclass(slots=True)
class _Consumer:
    position: int
    sent: int
    credit: int
    under_way: int
    heard: float
    refused: bool = False


class RecorderMachine:
    """The recorder's side of the protocol.

    Args:
        log: Where records go.
        credit_bytes: What each source may have under way.
        reserve_bytes: Free space below which no credit is granted.
    """

    def __init__(self, log: LogWriter, *, credit_bytes: int = CREDIT_BYTES, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.log = log
        self.paused = ""
        self.junk = 0
        self.free_bytes = -1
        self._failed = False
        self._credit_bytes = credit_bytes
        self._reserve_bytes = reserve_bytes
        self._sessions: dict[int, _Session] = {}
        self._consumers: dict[bytes, _Consumer] = {}
        self._look_at = float("-inf")
        self._recent: OrderedDict[int, tuple[Buffer, ...]] = OrderedDict()
        self._recent_bytes = 0
        self._outbox: list[tuple[bytes, Message]] = []

    @property
    def sessions(self) -> int:
        """Sources with an open session."""
        return len(self._sessions)

    @property
    def consumers(self) -> int:
        """Consumers heard of lately."""
        return len(self._consumers)

    def receive(self, peer: bytes, message: Message, now: float) -> None:
        """Take one message. Answers come from :meth:`commit`."""
        header = message.header
        if header.run != self.log.run:
            self.junk += 1
            reason = f"this recorder keeps run {self.log.run:016x}, not run {header.run:016x}"
            if header.kind in (RecordKind.HELLO, RecordKind.FETCH):
                self._outbox.append((peer, abort(header.run, reason, source=header.source)))
        elif header.kind is RecordKind.HELLO:
            self._hello(peer, header)
        elif header.kind in KEPT:
            self._take(peer, message, now)
        elif header.kind is RecordKind.FETCH:
            self._fetch(peer, header, now)
        else:
            self.junk += 1

    def commit(self, now: float) -> list[tuple[bytes, Message]]:
        """Put on the medium what has come, and return what may be sent after that: ACKs, and records to consumers."""
        try:
            self.log.sync()
        except DiskError as error:
            self._fail(str(error), now)
        self._look(now)
        for source, session in self._sessions.items():
            # A fresh source must not hear a number that a crash could still raise.
            if session.answer is not None and not (session.answer is RecordKind.RESUME and self.log.uncertain):
                self._outbox.append((session.peer, self._answer(source, session)))
                session.answer = None
        for peer in list(self._consumers):
            self._serve(peer, now)
        outbox, self._outbox = self._outbox, []
        return outbox

    def forget(self, peer: bytes) -> None:
        """Drop a consumer that cannot be reached. It asks again when it is back."""
        self._consumers.pop(peer, None)

    def _hello(self, peer: bytes, header: RecordHeader) -> None:
        """Open a session. The youngest process of a source has it; one that was replaced is refused."""
        session = self._sessions.get(header.source)
        if session is not None and header.monotonic_ns < session.born_ns:
            reason = f"another reader has taken over source {header.source}"
            self._outbox.append((peer, abort(header.run, reason, source=header.source, epoch=header.epoch)))
            return
        self._sessions[header.source] = _Session(peer, header.epoch, header.monotonic_ns, RecordKind.RESUME)

    def _take(self, peer: bytes, message: Message, now: float) -> None:
        header = message.header
        session = self._sessions.get(header.source)
        if session is None or session.epoch != header.epoch or session.peer != peer:
            hello = RecordHeader(RecordKind.HELLO, self.log.run, header.source, epoch=header.epoch)
            self._outbox.append((peer, Message(hello)))
            return
        expected = self.log.next_sequence(header.source)
        if header.sequence < expected:
            session.answer = session.answer or RecordKind.ACK
        elif header.sequence > expected:
            if session.asked_again_for != expected and not self._failed:
                session.asked_again_for = expected
                session.answer = session.answer or RecordKind.NACK
        elif self.log.ended(header.source):
            reason = f"source {header.source} has ended already"
            self._outbox.append((peer, abort(header.run, reason, source=header.source, epoch=header.epoch)))
        elif not self._failed:
            try:
                index = self.log.append(header, *message.payload)
            except DiskError as error:
                self._fail(str(error), now)
            else:
                session.answer = session.answer or RecordKind.ACK
                self._remember(index, header, message.payload)

    def _remember(self, index: int, header: RecordHeader, payload: tuple[Buffer, ...]) -> None:
        """Keep the last records in memory: a consumer that keeps up is served without reading the disk."""
        self._recent[index] = (header.pack(), *payload)
        self._recent_bytes += header.payload_bytes
        while self._recent_bytes > RECENT_BYTES:
            _, frames = self._recent.popitem(last=False)
            self._recent_bytes -= bytes_in(frames[1:])

    def _record(self, index: int) -> tuple[Buffer, ...]:
        """A durable record, as frames; the header is in the first."""
        return self._recent.get(index) or (self.log.read(index)[1],)

    def _answer(self, source: int, session: _Session) -> Message:
        assert session.answer is not None
        header = RecordHeader(
            session.answer,
            self.log.run,
            source,
            sequence=self.log.next_sequence(source),
            count=0 if self.paused else self._credit_bytes,
            epoch=session.epoch,
        )
        if session.answer is RecordKind.RESUME:
            return resume(header, ended=self.log.ended(source), clusters=self.log.clusters(source))
        return Message(header)

    def _fail(self, reason: str, now: float) -> None:
        """Hold the sources back for a while: what they send meanwhile is dropped, and asked for again."""
        self._failed = True
        self._recent.clear()
        self._recent_bytes = 0
        self._look_at = now + _RETRY_S
        self._pause(reason)

    def _pause(self, reason: str) -> None:
        if not self.paused:
            for session in self._sessions.values():
                session.answer = session.answer or RecordKind.ACK
        self.paused = reason

    def _look(self, now: float) -> None:
        """Look at the disk once a second, and go on when it has space again."""
        if now < self._look_at:
            return
        self._look_at = now + _RETRY_S
        try:
            self.free_bytes = self.log.free_bytes()
            self.log.mend()
        except DiskError as error:
            self._pause(str(error))
            return
        if self.free_bytes < self._reserve_bytes:
            self._pause(
                f"{self.free_bytes >> 20} MiB are free on the log's disk, {self._reserve_bytes >> 20} are reserved. "
                "Free some space: the run waits."
            )
        elif self.paused:
            self.paused = ""
            self._failed = False
            for session in self._sessions.values():
                session.asked_again_for = -1
                session.answer = session.answer if session.answer is RecordKind.RESUME else RecordKind.NACK

    def _fetch(self, peer: bytes, header: RecordHeader, now: float) -> None:
        index = header.sequence
        if index > self.log.durable_index:
            reason = f"record {index} is asked for, the log has {self.log.durable_index}: it is shorter than it was"
            self._outbox.append((peer, abort(header.run, reason)))
            return
        consumer = self._consumers.get(peer)
        if consumer is None or header.flags & FLAG_RESET or not consumer.position <= index <= consumer.sent:
            self._consumers[peer] = _Consumer(index, index, header.count, 0, now)
            return
        consumer.under_way -= sum(map(self.log.record_bytes, range(consumer.position, index)))
        consumer.position = index
        consumer.credit = header.count
        consumer.heard = now

    def _serve(self, peer: bytes, now: float) -> None:
        consumer = self._consumers[peer]
        if now - consumer.heard > _FORGET_S:
            del self._consumers[peer]
            return
        while consumer.sent < self.log.durable_index and consumer.under_way < consumer.credit and not consumer.refused:
            index = consumer.sent
            try:
                frames = self._record(index)
            except (CorruptionError, DiskError) as error:
                consumer.refused = True
                corrupt = isinstance(error, CorruptionError)
                self._outbox.append((peer, abort(self.log.run, str(error), corrupt=corrupt)))
                return
            outer = RecordHeader(
                RecordKind.RECORD,
                self.log.run,
                sequence=index,
                count=min(self.log.durable_index - index - 1, 0xFFFFFFFF),
                payload_bytes=bytes_in(frames),
                payload_crc=crc_of((memoryview(frames[0])[:HEADER_BYTES],)),
            )
            self._outbox.append((peer, Message(outer, frames)))
            consumer.sent += 1
            consumer.under_way += outer.payload_bytes


def serve(
    folder: Path,
    descriptor: Mapping[str, object],
    endpoint: str,
    *,
    stop: threading.Event,
    ready: Callable[[str], None] | None = None,
    on_status: Callable[[RecorderStatus], None] | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    credit_bytes: int = CREDIT_BYTES,
    reserve_bytes: int = RESERVE_BYTES,
    disk: Disk | None = None,
) -> None:
    """Record until told to stop. Blocks; run it in a thread or process of its own.

    Args:
        folder: The log's folder.
        descriptor: What the run is; ``descriptor["run"]`` is its number.
        endpoint: Where to listen: ``ipc:///a/path`` or ``tcp://127.0.0.1:PORT``.
        stop: Set it to end: what has come is made durable and the log is sealed.
        ready: Called once with the bound endpoint, when the log is recovered and the socket listens.
        on_status: Called about once a second, from this thread.
        segment_bytes: Size at which a segment of the log is sealed.
        credit_bytes: What each source may have under way; bounds this process's memory.
        reserve_bytes: Free space below which sources are held back.
        disk: The file layer.

    Raises:
        InputError: the endpoint can be reached from other machines, or is taken.
        RunError: another process writes this log, or it belongs to another run.
        CorruptionError: the log no longer reads as it was written.
        VersionError: the log was written by a version that this program does not know.
    """
    check_endpoint(endpoint)
    reuse_memory()
    log = _open_log(folder, descriptor, segment_bytes, disk, stop)
    if log is None:
        return
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = open_socket(context, zmq.ROUTER, linger_ms=_LINGER_MS)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    try:
        with log:
            bound = bind(socket, endpoint)
            machine = RecorderMachine(log, credit_bytes=credit_bytes, reserve_bytes=reserve_bytes)
            if ready is not None:
                ready(bound)
            _loop(socket, machine, stop, on_status)
    finally:
        socket.close()
        context.term()


def _open_log(
    folder: Path,
    descriptor: Mapping[str, object],
    segment_bytes: int,
    disk: Disk | None,
    stop: threading.Event,
) -> LogWriter | None:
    """Open the log as soon as the disk lets us; ``None`` if told to stop before."""
    while not stop.is_set():
        try:
            return LogWriter(folder, descriptor, segment_bytes=segment_bytes, disk=disk)
        except DiskError:
            stop.wait(_RETRY_S)
    return None


def _loop(
    socket: zmq.Socket[bytes],
    machine: RecorderMachine,
    stop: threading.Event,
    on_status: Callable[[RecorderStatus], None] | None,
) -> None:
    status_at = 0.0
    while not stop.is_set():
        if socket.poll(_POLL_MS):
            _drain(socket, machine)
        before = time.monotonic()
        outbox = machine.commit(before)
        after = time.monotonic()
        for peer, message in outbox:
            _send(socket, machine, peer, message)
        if on_status is not None and after >= status_at:
            status_at = after + 1.0
            on_status(
                RecorderStatus(
                    durable_index=machine.log.durable_index,
                    sources=machine.sessions,
                    consumers=machine.consumers,
                    free_bytes=machine.free_bytes,
                    paused=machine.paused,
                    junk=machine.junk,
                    sync_seconds=after - before,
                )
            )


def _drain(socket: zmq.Socket[bytes], machine: RecorderMachine) -> None:
    """Take what has come, up to one group."""
    taken = 0
    while taken < _GROUP_BYTES:
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        peer = frames[0].bytes
        buffers: list[Buffer] = [frame.buffer for frame in frames[1:]]
        taken += HEADER_BYTES + sum(len(buffer) for buffer in buffers)
        try:
            message = parse(buffers)
        except ValueError:
            machine.junk += 1
        except VersionError as error:
            machine.junk += 1
            _send(socket, machine, peer, abort(machine.log.run, str(error)))
        else:
            machine.receive(peer, message, time.monotonic())


def _send(socket: zmq.Socket[bytes], machine: RecorderMachine, peer: bytes, message: Message) -> None:
    """Send without waiting. Whatever cannot be sent now is lost, and asked for again."""
    try:
        socket.send_multipart([peer, *message.frames()], zmq.NOBLOCK, copy=False)
    except zmq.ZMQError as error:
        if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            raise
        machine.forget(peer)
