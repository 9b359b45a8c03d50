"""The two ends that the rest of Cartoseq uses: a source that sends blocks, and a feed that hands them out.

Both are plain blocking objects for one thread. Both outlive a recorder that dies and comes back on the same endpoint.
What was sent is safe once acknowledged; :meth:`BlockSource.send` returns before that, :meth:`BlockSource.finish` after.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

import zmq

from cartoseq.streaming.block import BaseCallBlock
from cartoseq.streaming.errors import InputError, RunError, VersionError
from cartoseq.streaming.header import SCHEMA_BLOCK, SCHEMA_JSON, Buffer, RecordHeader, RecordKind
from cartoseq.streaming.protocol import ConsumerMachine, Message, SourceMachine, parse
from cartoseq.streaming.sockets import check_endpoint, open_socket, reuse_memory

FETCH_AHEAD_BYTES = 16 << 20
_LINGER_MS = 500


class NoAnswerError(RunError):
    """The recorder did not answer, gave no credit or acknowledged nothing in the time allowed; call again to go on."""


class _Link:
    """A DEALER socket that carries messages and drops junk.

    Its name is its own: two peers of one name would cut each other off at the ROUTER until heartbeats time out.
    """

    def __init__(self, endpoint: str, name: bytes) -> None:
        check_endpoint(endpoint)
        reuse_memory()
        self.junk = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = open_socket(self._context, zmq.DEALER, linger_ms=_LINGER_MS)
        self._socket.setsockopt(zmq.ROUTING_ID, name)
        self._socket.connect(endpoint)

    def send(self, messages: list[Message]) -> None:
        """Send without waiting. What cannot go out now is lost, and sent again when the machine notices."""
        for message in messages:
            try:
                self._socket.send_multipart(message.frames(), zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next good message, or ``None`` if there is none in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            wait_ms = max(0, int((deadline - time.monotonic()) * 1000 + 0.999))
            if not self._socket.poll(wait_ms):
                return None
            frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            buffers: list[Buffer] = [frame.buffer for frame in frames]
            try:
                return parse(buffers)
            except ValueError:
                self.junk += 1

    def close(self, linger_ms: int) -> None:
        self._socket.close(linger=linger_ms)
        self._context.term()


class BlockSource:
    """Sends the blocks of one source to the recorder.

    Args:
        endpoint: Where the recorder listens.
        source: This source's number.
        run: The run's number.

    Raises:
        InputError: the endpoint is not on this machine.
    """

    def __init__(self, endpoint: str, source: int, run: int) -> None:
        self._endpoint = endpoint
        self._machine = SourceMachine(run, source, epoch=int.from_bytes(os.urandom(2), "little"))
        self._link = _Link(endpoint, b"source-%d-" % source + os.urandom(8))

    @property
    def next_sequence(self) -> int:
        """Number that the next block gets: block k of a source always holds the same reads."""
        return self._machine.next_sequence

    @property
    def recorded_clusters(self) -> int:
        """Clusters that the log held of this source when it was opened: a reader that starts again skips so many."""
        return self._machine.recorded_clusters

    @property
    def acknowledged(self) -> int:
        """Blocks of this source that are safe."""
        return self._machine.acked

    @property
    def ended(self) -> bool:
        """Whether the source has ended, now or before it was opened."""
        return self._machine.ended

    def open(self, timeout_s: float = 30.0) -> int:
        """Connect, and learn which block the recorder wants next.

        Returns:
            Its number: skip so many blocks. If :attr:`ended` is true there is nothing left to send.

        Raises:
            NoAnswerError: no recorder answered in time.
            RunError: it keeps another run.
        """
        now = time.monotonic()
        self._link.send(self._machine.hello(now))
        self._pump(lambda: self._machine.opened, timeout_s)
        if not self._machine.opened:
            raise NoAnswerError(f"{self._endpoint}: no recorder answered within {timeout_s:g} s. Is it running?")
        return self._machine.next_sequence

    def send(self, block: BaseCallBlock, timeout_s: float | None = None) -> None:
        """Send a block; waits while the recorder grants no credit.

        The block is kept until it is acknowledged, and sent, perhaps several times, from where it lies. So
        ``block.calls`` is made read-only here: who fills a buffer again and again hears of it at once.

        Args:
            block: The next block of this source.
            timeout_s: How long to wait for credit; ``None`` waits as long as the recorder holds this source back.

        Raises:
            NoAnswerError: the recorder gave no credit in time; the block was not taken.
            RunError: the recorder lost acknowledged data, or refused this source.
        """
        block.calls.flags.writeable = False
        header = RecordHeader(RecordKind.DATA, 0, count=block.clusters, schema=SCHEMA_BLOCK)
        self._submit(header, block.payload(), timeout_s)

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Attend to the connection while there is nothing to send; returns early when all is acknowledged.

        Returns:
            Whether all blocks sent are acknowledged.
        """
        self._pump(lambda: self._machine.all_acknowledged, timeout_s)
        return self._machine.all_acknowledged

    def finish(self, totals: Mapping[str, int], timeout_s: float | None = None) -> None:
        """Send the END with the source's totals, and return when everything is safe.

        Does nothing if the source had ended before it was opened.

        Raises:
            NoAnswerError: not everything was acknowledged in time.
            RunError: as :meth:`send`.
        """
        if not self._machine.ended:
            text = json.dumps(dict(totals), sort_keys=True, separators=(",", ":")).encode()
            self._submit(RecordHeader(RecordKind.END, 0, schema=SCHEMA_JSON), [text], timeout_s)
        if not self._pump(lambda: self._machine.all_acknowledged, timeout_s):
            raise NoAnswerError(
                f"{self._endpoint}: the recorder did not acknowledge everything within {timeout_s:g} s."
            )

    def close(self) -> None:
        """Close the connection. What is not acknowledged by now may be lost."""
        self._link.close(0)

    def __enter__(self) -> BlockSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, header: RecordHeader, payload: list[Buffer], timeout_s: float | None) -> None:
        if not self._machine.opened:
            self.open()
        self._pump(lambda: True, 0.0)
        if not self._pump(lambda: self._machine.can_submit or self._machine.ended, timeout_s):
            raise NoAnswerError(f"{self._endpoint}: the recorder took no data for {timeout_s:g} s. Is its disk full?")
        self._link.send(self._machine.submit(header, payload, time.monotonic()))

    def _pump(self, done: Callable[[], bool], timeout_s: float | None) -> bool:
        """Take what has arrived, then wait until ``done`` or the time is up; say which."""
        end = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while True:
            message = self._link.receive(0.0)
            while message is not None:
                self._link.send(self._machine.receive(message, time.monotonic()))
                message = self._link.receive(0.0)
            now = time.monotonic()
            self._link.send(self._machine.tick(now))
            if done():
                return True
            if now >= end:
                return False
            wait_s = min(end, max(self._machine.deadline, now + 0.001), now + 0.5) - now
            message = self._link.receive(wait_s)
            if message is not None:
                self._link.send(self._machine.receive(message, time.monotonic()))


@dataclass(frozen=True, slots=True)
class FeedRecord:
    """One record of the log, as a consumer gets it.

    Attributes:
        index: Its log index.
        header: Its header, as the source wrote it.
        block: The block of a DATA record.
        totals: The totals of an END record.
    """

    index: int
    header: RecordHeader
    block: BaseCallBlock | None
    totals: Mapping[str, int] | None


def feed_record(index: int, header: RecordHeader, *payload: Buffer) -> FeedRecord:
    """Read a record's payload by its kind; the same for the live feed and for a log that is replayed.

    Raises:
        InputError: the payload is not what the header says.
        VersionError: a schema or codec that this program does not know.
    """
    if header.codec != 0 or header.schema != (SCHEMA_BLOCK if header.kind is RecordKind.DATA else SCHEMA_JSON):
        raise VersionError(
            f"Record {index}: payload of schema {header.schema}, codec {header.codec}: not known to this program. "
            "Use the release of Cartoseq that wrote it, or a newer one."
        )
    if header.kind is RecordKind.DATA:
        return FeedRecord(index, header, _block(index, payload), None)
    try:
        totals = json.loads(b"".join(payload))
    except ValueError as error:
        raise InputError(f"record {index}", f"its totals are not JSON ({error})") from error
    return FeedRecord(index, header, None, {str(key): int(value) for key, value in totals.items()})


def _block(index: int, payload: tuple[Buffer, ...]) -> BaseCallBlock:
    match payload:
        case (whole,):
            return BaseCallBlock.from_payload(whole)
        case (header, calls):
            return BaseCallBlock.from_payload(header, calls)
    raise InputError(f"record {index}", f"its block comes in {len(payload)} parts, expected one or two")


class BlockFeed:
    """Hands out the log's durable records, in order, from a position on.

    Args:
        endpoint: Where the recorder listens.
        run: The run's number.
        position: Index of the first record wanted.
        fetch_ahead_bytes: Bytes that may be under way or waiting here.

    Raises:
        InputError: the endpoint is not on this machine.
    """

    def __init__(self, endpoint: str, run: int, position: int, *, fetch_ahead_bytes: int = FETCH_AHEAD_BYTES) -> None:
        self._machine = ConsumerMachine(run, position, credit_bytes=fetch_ahead_bytes)
        self._link = _Link(endpoint, b"feed-" + os.urandom(8))

    @property
    def behind(self) -> int:
        """Records that the log held beyond the last one received."""
        return self._machine.behind

    def next(self, timeout_s: float) -> FeedRecord | None:
        """Return the next record, or ``None`` if there is none in time.

        Raises:
            RunError: the recorder keeps another run, or its log is shorter than it was.
            CorruptionError: the recorder found that its log no longer reads as it was written.
            InputError: the record's payload is not what its header says.
        """
        end = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            delivery, messages = self._machine.take(now)
            self._link.send(messages)
            self._link.send(self._machine.tick(now))
            if delivery is not None:
                return feed_record(delivery.index, delivery.header, *delivery.payload)
            wait_s = min(end, max(self._machine.deadline, now + 0.001)) - now
            message = self._link.receive(max(0.0, wait_s))
            if message is not None:
                self._link.send(self._machine.receive(message, time.monotonic()))
            elif time.monotonic() >= end:
                return None

    def close(self) -> None:
        """Close the connection."""
        self._link.close(0)

    def __enter__(self) -> BlockFeed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
