"""The three ends of the data path as state machines: events in, messages out, no socket, no clock, no thread.

A *source* numbers its records and keeps each until it is acknowledged. The *recorder* takes only the next number of
each source, acknowledges after the log is on the medium, and hands out only what is. A *consumer* takes only the next
index. Whatever the transport drops, doubles or reorders, and whoever dies: each record is in the log once, in its
source's order, and each consumer sees the log without a gap.

* Credit is in bytes. ACK, NACK and RESUME say "I have all below *n*; you may have so many bytes beyond it under way".
  FETCH says the same from the consumer's side. A sender may exceed its credit by less than one record.
* HELLO opens a session of a source, with a new epoch; RESUME answers it. Messages of another epoch are stale and
  dropped. A recorder that does not know the session answers HELLO: say HELLO again. HELLO says when its process was
  born, by the machine's monotonic clock: the youngest process of a source has the session, an older one is refused.
* A RESUME below what was acknowledged means that the recorder has lost acknowledged data. That ends the run.
* A message is a header, and a payload in one or more frames. A RECORD's payload is one whole record of the log,
  in one frame or with its header in a frame of its own; its payload CRC covers that record's header, which in turn
  covers the rest.

Credit and go-back-N after the ZeroMQ guide, chapter 7.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from crc32c import crc32c

from cartoseq.streaming.errors import CorruptionError, RunError
from cartoseq.streaming.header import (
    FLAG_ENDED,
    FLAG_RESET,
    HEADER_BYTES,
    KEPT,
    SCHEMA_JSON,
    Buffer,
    RecordHeader,
    RecordKind,
    bytes_in,
    crc_of,
)

MAX_FRAMES = 8
MAX_CREDIT = (1 << 32) - 1
MAX_REASON_BYTES = 4096


class Message(NamedTuple):
    """A header and the frames of its payload."""

    header: RecordHeader
    payload: tuple[Buffer, ...] = ()

    def frames(self) -> list[Buffer]:
        """Frames as they go over the wire."""
        return [self.header.pack(), *self.payload]


def parse(frames: Sequence[Buffer]) -> Message:
    """Read a message and check that it is whole.

    Raises:
        ValueError: junk, or bytes that changed on the way.
        VersionError: a message of a version that this program does not know.
    """
    if not 1 <= len(frames) <= MAX_FRAMES or memoryview(frames[0]).nbytes != HEADER_BYTES:
        raise ValueError("not a message of this protocol")
    header = RecordHeader.unpack(frames[0])
    payload = tuple(frames[1:])
    if bytes_in(payload) != header.payload_bytes:
        raise ValueError(f"payload of {bytes_in(payload)} bytes, the header says {header.payload_bytes}")
    if header.kind is RecordKind.RECORD:
        if not payload or memoryview(payload[0]).nbytes < HEADER_BYTES:
            raise ValueError("a RECORD message carries one record")
        if crc32c(memoryview(payload[0])[:HEADER_BYTES]) != header.payload_crc:
            raise ValueError("checksum of the enclosed header does not fit")
    elif crc_of(payload) != header.payload_crc:
        raise ValueError("payload checksum does not fit its bytes")
    return Message(header, payload)


def abort(run: int, reason: str, *, source: int = 0, epoch: int = 0, corrupt: bool = False) -> Message:
    """Message that ends the other side's part in the run, with the reason."""
    text = json.dumps({"reason": reason[:MAX_REASON_BYTES], "corrupt": corrupt}).encode()
    return Message(
        RecordHeader(
            RecordKind.ABORT,
            run,
            source=source,
            epoch=epoch,
            payload_bytes=len(text),
            payload_crc=crc32c(text),
            schema=SCHEMA_JSON,
        ),
        (text,),
    )


def resume(header: RecordHeader, *, ended: bool, clusters: int) -> Message:
    """Message that tells a source where to go on.

    Args:
        header: Its header: kind, source, the number wanted next, credit.
        ended: Whether the log holds the source's END.
        clusters: Clusters of the source's blocks in the log, all together.
    """
    text = json.dumps({"clusters": clusters}).encode()
    flags = FLAG_ENDED if ended else 0
    return Message(
        replace(header, flags=flags, payload_bytes=len(text), payload_crc=crc32c(text), schema=SCHEMA_JSON), (text,)
    )


def raise_abort(message: Message) -> None:
    """Raise what an ABORT says.

    Raises:
        CorruptionError: the recorder found rot in its log.
        RunError: any other reason.
    """
    try:
        content = json.loads(b"".join(message.payload))
        reason, corrupt = str(content["reason"]), bool(content["corrupt"])
    except (ValueError, KeyError, TypeError):
        reason, corrupt = "no reason given", False
    raise (CorruptionError if corrupt else RunError)(f"The recorder refused: {reason}")


@dataclass(slots=True)
class _Outgoing:
    header: RecordHeader
    payload: tuple[Buffer, ...]


class SourceMachine:
    """A source's side: numbers records, keeps them until acknowledged, sends within its credit.

    Args:
        run: The run's number.
        source: This source's number.
        epoch: Epoch of the first HELLO: any number that an earlier process is unlikely to have had.
        hello_s: A HELLO is repeated after this many seconds without RESUME.
        silence_s: A new session is opened when records are under way and nothing was heard for so many seconds.
    """

    def __init__(self, run: int, source: int, *, epoch: int = 0, hello_s: float = 0.1, silence_s: float = 2.0) -> None:
        self.run = run
        self.source = source
        self.acked = 0
        self.next_sequence = 0
        self.recorded_clusters = 0
        self.opened = False
        self.resumed = False
        self.ended = False
        self.stale = 0
        self._epoch = epoch
        self._born_ns = -1
        self._hello_s = hello_s
        self._silence_s = silence_s
        self._records: deque[_Outgoing] = deque()
        self._sent = 0
        self._under_way = 0
        self._credit = 0
        self._deadline = 0.0

    @property
    def can_submit(self) -> bool:
        """Whether a record submitted now goes out at once."""
        return self.resumed and self._sent == self.next_sequence and self._under_way < self._credit

    @property
    def all_acknowledged(self) -> bool:
        """Whether every record submitted is on the recorder's medium."""
        return not self._records

    @property
    def deadline(self) -> float:
        """When :meth:`tick` has something to do, if nothing arrives before."""
        return self._deadline

    def hello(self, now: float) -> list[Message]:
        """Open a session: at the start, when asked to, after silence. A HELLO that is repeated keeps its epoch."""
        if self._born_ns < 0:
            self._born_ns = int(now * 1e9)
        if self.resumed:
            self._epoch = (self._epoch + 1) & 0xFFFF
        self.resumed = False
        self._deadline = now + self._hello_s
        return [
            Message(
                RecordHeader(
                    RecordKind.HELLO,
                    self.run,
                    self.source,
                    self.acked,
                    monotonic_ns=self._born_ns,
                    epoch=self._epoch,
                )
            )
        ]

    def submit(self, header: RecordHeader, payload: Sequence[Buffer], now: float) -> list[Message]:
        """Take a record. Run, source, sequence, epoch, size, CRC and time of its header are filled in here.

        The payload's memory must not change until the record is acknowledged.
        """
        if not self.opened or self.ended:
            raise RunError(f"source {self.source}: {'its END was already sent' if self.ended else 'it is not open'}")
        header = replace(
            header,
            run=self.run,
            source=self.source,
            sequence=self.next_sequence,
            payload_bytes=bytes_in(payload),
            payload_crc=crc_of(payload),
            monotonic_ns=int(now * 1e9),
        )
        self._records.append(_Outgoing(header, tuple(payload)))
        self.next_sequence += 1
        self.ended = header.kind is RecordKind.END
        return self._send(now)

    def receive(self, message: Message, now: float) -> list[Message]:
        """Take a message from the recorder.

        Raises:
            RunError: the recorder lost acknowledged data, or refused this source.
        """
        header = message.header
        if header.kind is RecordKind.ABORT and header.source == self.source:
            raise_abort(message)
        if header.run != self.run or header.source != self.source or header.epoch != self._epoch:
            self.stale += 1
            return []
        match header.kind:
            case RecordKind.HELLO:
                return self.hello(now)
            case RecordKind.RESUME if not self.resumed:
                self._resume(header, message.payload)
            case RecordKind.RESUME | RecordKind.ACK | RecordKind.NACK if self.resumed and self.acked <= header.sequence:
                if header.sequence > self.next_sequence:
                    raise RunError(f"source {self.source}: the recorder acknowledged what was never sent.")
                self._drop_below(header.sequence)
                self._credit = header.count
                if header.kind is RecordKind.NACK:
                    self._go_back()
            case _:
                self.stale += 1
                return []
        self._deadline = now + self._silence_s
        return self._send(now)

    def tick(self, now: float) -> list[Message]:
        """Act on silence while something is awaited: an acknowledgement, or credit."""
        if now < self._deadline or (self.resumed and not self._records and self._credit > 0):
            return []
        return self.hello(now)

    def _resume(self, header: RecordHeader, payload: tuple[Buffer, ...]) -> None:
        if not self.opened:
            self.recorded_clusters = int(json.loads(b"".join(payload))["clusters"])
            self.acked = self.next_sequence = header.sequence
            self.ended = bool(header.flags & FLAG_ENDED)
            self.opened = True
        elif header.sequence < self.acked:
            raise RunError(
                f"The recorder lost acknowledged data: it asks source {self.source} for record {header.sequence}, "
                f"but has acknowledged all below {self.acked}. Do not go on with this log; check the recorder's disk."
            )
        elif header.sequence > self.next_sequence:
            raise RunError(
                f"The recorder has {header.sequence} records of source {self.source}, only {self.next_sequence} were "
                "sent from here: another reader feeds the same source. Stop one of them."
            )
        self._drop_below(header.sequence)
        self._credit = header.count
        self.resumed = True
        self._go_back()

    def _drop_below(self, sequence: int) -> None:
        while self.acked < sequence:
            record = self._records.popleft()
            if self.acked < self._sent:
                self._under_way -= record.header.payload_bytes
            self.acked += 1
        self._sent = max(self._sent, self.acked)

    def _go_back(self) -> None:
        self._sent = self.acked
        self._under_way = 0

    def _send(self, now: float) -> list[Message]:
        messages: list[Message] = []
        if not self.resumed:
            return messages
        if self._sent < self.next_sequence and self._under_way == 0:
            self._deadline = now + self._silence_s
        while self._sent < self.next_sequence and self._under_way < self._credit:
            record = self._records[self._sent - self.acked]
            messages.append(Message(replace(record.header, epoch=self._epoch), record.payload))
            self._under_way += record.header.payload_bytes
            self._sent += 1
        return messages


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record of the log, as a consumer gets it; its payload in one or more buffers."""

    index: int
    header: RecordHeader
    payload: tuple[Buffer, ...]


class ConsumerMachine:
    """A consumer's side: asks for records by index, takes them without gap or repeat, keeps few in memory.

    Args:
        run: The run's number.
        position: Index of the first record wanted.
        credit_bytes: Bytes that may be under way or waiting here.
        silence_s: The request is repeated when nothing was heard for so many seconds.
    """

    def __init__(self, run: int, position: int, *, credit_bytes: int = 16 << 20, silence_s: float = 1.0) -> None:
        self.run = run
        self.position = position
        self.behind = 0
        self.dropped = 0
        self._credit_bytes = credit_bytes
        self._silence_s = silence_s
        self._waiting: deque[Delivery] = deque()
        self._waiting_bytes = 0
        self._granted = 0
        self._asked_again_at = -1
        self._deadline = 0.0

    @property
    def deadline(self) -> float:
        """When :meth:`tick` has something to do, if nothing arrives before."""
        return self._deadline

    def fetch(self, now: float, *, reset: bool) -> list[Message]:
        """Ask for records from ``position`` on; with ``reset`` all over again."""
        self._granted = max(0, self._credit_bytes - self._waiting_bytes)
        self._deadline = now + self._silence_s
        flags = FLAG_RESET if reset else 0
        return [
            Message(RecordHeader(RecordKind.FETCH, self.run, sequence=self.position, count=self._granted, flags=flags))
        ]

    def receive(self, message: Message, now: float) -> list[Message]:
        """Take a message from the recorder.

        Raises:
            RunError: the recorder refused.
        """
        outer = message.header
        if outer.kind is RecordKind.ABORT:
            raise_abort(message)
        if outer.kind is not RecordKind.RECORD or outer.run != self.run or outer.sequence < self.position:
            self.dropped += 1
            return []
        if outer.sequence > self.position:
            self.dropped += 1
            if self._asked_again_at == self.position:
                return []
            self._asked_again_at = self.position
            return self.fetch(now, reset=True)
        first = memoryview(message.payload[0])
        header = RecordHeader.unpack(first)
        joined = first.nbytes > HEADER_BYTES
        payload = (first[HEADER_BYTES:], *message.payload[1:]) if joined else message.payload[1:]
        if header.run != self.run or header.kind not in KEPT or crc_of(payload) != header.payload_crc:
            self.dropped += 1
            return self.fetch(now, reset=True)
        self._waiting.append(Delivery(outer.sequence, header, payload))
        self._waiting_bytes += outer.payload_bytes
        self._granted = max(0, self._granted - outer.payload_bytes)
        self.position += 1
        self.behind = outer.count
        self._deadline = now + self._silence_s
        return self._top_up(now)

    def take(self, now: float) -> tuple[Delivery | None, list[Message]]:
        """Take the next record out, if one is here; its memory counts as free from then on."""
        if not self._waiting:
            return None, []
        delivery = self._waiting.popleft()
        self._waiting_bytes -= HEADER_BYTES + delivery.header.payload_bytes
        return delivery, self._top_up(now)

    def tick(self, now: float) -> list[Message]:
        """Act on silence: what was under way may be lost, and the recorder may be another process now."""
        if now < self._deadline:
            return []
        self._asked_again_at = -1
        return self.fetch(now, reset=True)

    def _top_up(self, now: float) -> list[Message]:
        if self._credit_bytes - self._waiting_bytes - self._granted >= self._credit_bytes // 4:
            return self.fetch(now, reset=False)
        return []
