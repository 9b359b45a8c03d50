"""Source, recorder and feed over real sockets, and a recorder that is killed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from cartoseq.streaming.block import BaseCallBlock
from cartoseq.streaming.errors import InputError, RunError
from cartoseq.streaming.feed import BlockFeed, BlockSource
from cartoseq.streaming.log import LogReader
from cartoseq.streaming.recorder import RecorderStatus, serve

RUN = 0xFEEDBEEF
RECORDER = """
import sys, threading
from pathlib import Path
from cartoseq.streaming.recorder import serve
serve(Path(sys.argv[1]), {"run": int(sys.argv[3])}, sys.argv[2], stop=threading.Event(), segment_bytes=1 << 18,
      reserve_bytes=0, ready=lambda bound: print(bound, flush=True))
"""


def numbered(number: int, clusters: int = 100) -> BaseCallBlock:
    calls = np.random.default_rng(number).integers(0, 256, (30, clusters), np.uint8)
    return BaseCallBlock(0, 1, 1101, number * clusters, 1, (10, 20), calls)


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's path has at most 107 bytes, so not below tmp_path.
    path = Path(tempfile.mkdtemp(prefix="cartoseq-"))
    yield path
    shutil.rmtree(path)


class Recorder:
    """A recorder in a thread of this process."""

    def __init__(self, folder: Path, endpoint: str, **options: object) -> None:
        self.stop = threading.Event()
        self.endpoint = ""
        self.statuses: list[RecorderStatus] = []
        listening = threading.Event()

        def ready(bound: str) -> None:
            self.endpoint = bound
            listening.set()

        arguments = {"reserve_bytes": 0, "ready": ready, "on_status": self.statuses.append, **options}
        self.thread = threading.Thread(
            target=serve, args=(folder, {"run": RUN}, endpoint), kwargs={"stop": self.stop, **arguments}
        )
        self.thread.start()
        assert listening.wait(20)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_blocks_come_out_as_they_went_in(folder: Path, transport: str) -> None:
    endpoint = f"ipc://{folder}/s" if transport == "ipc" else "tcp://127.0.0.1:*"
    with (
        Recorder(folder / "log", endpoint) as recorder,
        BlockSource(recorder.endpoint, 5, RUN) as source,
        BlockFeed(recorder.endpoint, RUN, 0, fetch_ahead_bytes=10_000) as feed,
    ):
        assert source.open(20) == 0
        for number in range(20):
            source.send(numbered(number), 20)
        source.finish({"reads": 2000}, 20)
        assert source.acknowledged == 21
        for number in range(20):
            record = feed.next(20)
            assert record is not None
            assert record.block is not None
            assert record.index == record.header.sequence == number
            assert record.header.source == 5
            assert record.block.first_cluster == number * 100
            assert np.array_equal(record.block.calls, numbered(number).calls)
        last = feed.next(20)
        assert last is not None
        assert last.totals == {"reads": 2000}
        assert last.block is None
        assert feed.next(0.05) is None
    with LogReader(folder / "log") as log:
        assert log.verify() == 21


def test_a_resumed_source_is_told_where_to_go_on(folder: Path) -> None:
    endpoint = f"ipc://{folder}/s"
    with Recorder(folder / "log", endpoint):
        with BlockSource(endpoint, 1, RUN) as source:
            source.open(20)
            for number in range(3):
                source.send(numbered(number))
            assert source.poll(20)
        with BlockSource(endpoint, 1, RUN) as source:
            assert source.open(20) == 3
            assert source.recorded_clusters == 300
            source.send(numbered(3))
            source.finish({"reads": 400}, 20)
        with BlockSource(endpoint, 1, RUN) as source:
            assert source.open(20) == 5
            assert source.ended
            source.finish({"reads": 400}, 20)
            with pytest.raises(RunError, match="END was already sent"):
                source.send(numbered(4))


def test_killing_the_recorder_loses_and_repeats_nothing(folder: Path) -> None:
    endpoint = f"ipc://{folder}/s"
    blocks, kills = 120, 3

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", RECORDER, str(folder / "log"), endpoint, str(RUN)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ipc://")
        return process

    received: list[int] = []
    failures: list[BaseException] = []

    def consume() -> None:
        try:
            with BlockFeed(endpoint, RUN, 0, fetch_ahead_bytes=20_000) as feed:
                while True:
                    record = feed.next(60)
                    assert record is not None
                    assert record.index == len(received)
                    if record.totals is not None:
                        return
                    received.append(record.header.sequence)
        except BaseException as error:
            failures.append(error)

    process = start()
    consumer = threading.Thread(target=consume)
    consumer.start()
    with BlockSource(endpoint, 1, RUN) as source:
        source.open(20)
        for number in range(blocks):
            source.send(numbered(number), 60)
            if number in range(20, 20 + 30 * kills, 30):
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
                process = start()
        source.finish({"reads": blocks * 100}, 60)
    consumer.join(60)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert failures == []
    assert received == list(range(blocks))


def test_a_reader_that_was_replaced_ends_itself(folder: Path) -> None:
    endpoint = f"ipc://{folder}/s"
    with (
        Recorder(folder / "log", endpoint),
        BlockSource(endpoint, 1, RUN) as old,
        BlockSource(endpoint, 1, RUN) as new,
    ):
        old.open(20)
        old.send(numbered(0))
        assert old.poll(20)
        assert new.open(20) == 1
        new.send(numbered(1))
        new.send(numbered(2))
        assert new.poll(20)
        old.send(numbered(1))
        with pytest.raises(RunError, match="another reader has taken over source 1"):
            old.poll(20)
        new.finish({"reads": 300}, 20)
    with LogReader(folder / "log") as log:
        assert [header.sequence for _, header, _ in log] == [0, 1, 2, 3]


def test_a_block_that_was_sent_cannot_be_overwritten(folder: Path) -> None:
    endpoint = f"ipc://{folder}/s"
    with Recorder(folder / "log", endpoint), BlockSource(endpoint, 1, RUN) as source:
        block = numbered(0)
        source.send(block, 20)
        with pytest.raises(ValueError, match="read-only"):
            block.calls[0, 0] = 1


def test_junk_is_counted_and_dropped(folder: Path) -> None:
    endpoint = f"ipc://{folder}/s"
    with Recorder(folder / "log", endpoint) as recorder:
        context = zmq.Context()
        stranger = context.socket(zmq.DEALER)
        stranger.setsockopt(zmq.LINGER, 1000)
        stranger.connect(endpoint)
        for junk in ([b"x"], [b"", b""], [b"SQST" + bytes(60)], [bytes(64)] * 20, [b"\x80\x04N."]):
            stranger.send_multipart(junk)
        with BlockSource(endpoint, 1, RUN) as source:
            source.open(20)
            source.send(numbered(0))
            source.finish({"reads": 100}, 20)
        stranger.close()
        context.term()
        while recorder.statuses[-1].junk < 5 or recorder.statuses[-1].durable_index < 2:
            assert recorder.thread.is_alive()
            recorder.stop.wait(0.05)


def test_another_run_is_refused_with_the_reason(folder: Path) -> None:
    endpoint = f"ipc://{folder}/s"
    with Recorder(folder / "log", endpoint), BlockSource(endpoint, 1, RUN + 1) as source:
        with pytest.raises(RunError, match="keeps run 00000000feedbeef"):
            source.open(20)
        with BlockFeed(endpoint, RUN + 1, 0) as feed, pytest.raises(RunError, match="keeps run"):
            feed.next(20)
        with BlockFeed(endpoint, RUN, 5) as feed, pytest.raises(RunError, match="shorter than it was"):
            feed.next(20)


def test_waiting_ends_in_time_when_there_is_no_recorder(folder: Path) -> None:
    with BlockSource(f"ipc://{folder}/s", 1, RUN) as source, pytest.raises(RunError, match="no recorder answered"):
        source.open(0.05)
    with BlockFeed(f"ipc://{folder}/s", RUN, 0) as feed:
        assert feed.next(0.05) is None


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.168.0.7:5555", "tcp://example.org:5555", "tcp://eth0:5555"],
)
def test_an_endpoint_beyond_this_machine_is_refused(folder: Path, endpoint: str) -> None:
    with pytest.raises(InputError, match="CURVE"):
        serve(folder / "log", {"run": RUN}, endpoint, stop=threading.Event())
    assert not (folder / "log").exists()
    with pytest.raises(InputError, match="CURVE"):
        BlockSource(endpoint, 1, RUN)


@pytest.mark.parametrize(
    "endpoint", ["", "ipc://", "inproc://x", "udp://127.0.0.1:1", "tcp://127.0.0.1", "ipc:///" + "x" * 107]
)
def test_what_is_no_endpoint_is_refused(folder: Path, endpoint: str) -> None:
    with pytest.raises(InputError):
        serve(folder / "log", {"run": RUN}, endpoint, stop=threading.Event())


def test_two_recorders_cannot_share_a_log(folder: Path) -> None:
    with Recorder(folder / "log", f"ipc://{folder}/s"), pytest.raises(RunError, match="another process"):
        serve(folder / "log", {"run": RUN}, f"ipc://{folder}/t", stop=threading.Event())
