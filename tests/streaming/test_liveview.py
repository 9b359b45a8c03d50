"""The live view: the newest of each topic, late or slow viewers, and a publisher that never waits."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from cartoseq.streaming.errors import InputError
from cartoseq.streaming.liveview import LivePublisher, LiveViewer


@pytest.fixture
def endpoint() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="cartoseq-"))
    yield f"ipc://{folder}/live"
    shutil.rmtree(folder)


def test_a_late_viewer_sees_the_newest_of_each_topic(endpoint: str) -> None:
    with LivePublisher(endpoint) as publisher:
        for number in range(5):
            publisher.publish("map", b"map %d" % number)
        publisher.publish("quality", b"\0binary\0")
        seen: dict[str, bytes] = {}
        with LiveViewer(endpoint, ["map", "quality"]) as viewer:
            while len(seen) < 2:
                news = viewer.latest(20)
                assert news
                seen |= news
            assert viewer.latest(0.01) == {}
        assert seen == {"map": b"map 4", "quality": b"\0binary\0"}


def test_a_viewer_gets_only_its_topics(endpoint: str) -> None:
    with LivePublisher(endpoint) as publisher:
        publisher.publish("map", b"1")
        publisher.publish("maps", b"2")
        with LiveViewer(endpoint, ["map"]) as viewer:
            assert viewer.latest(20) == {"map": b"1"}
            publisher.publish("maps", b"3")
            publisher.publish("map", b"4")
            assert viewer.latest(20) == {"map": b"4"}


def test_a_slow_viewer_neither_blocks_nor_misses_the_end(endpoint: str) -> None:
    pictures = 300
    with LivePublisher(endpoint, refresh_s=0.2) as publisher, LiveViewer(endpoint) as viewer:
        publisher.publish("map", b"first")
        assert viewer.latest(20) == {"map": b"first"}
        done = threading.Event()

        def publish() -> None:
            for number in range(pictures):
                publisher.publish("map", bytes([number % 256]) * 1_000_000)
            done.set()

        # The viewer does not read at all until the publisher is through.
        thread = threading.Thread(target=publish)
        thread.start()
        assert done.wait(60)
        thread.join()
        last = bytes([(pictures - 1) % 256]) * 1_000_000
        while (news := viewer.latest(20)) != {"map": last}:
            assert news


def test_pictures_replaced_before_anybody_looked_are_counted(endpoint: str) -> None:
    with LivePublisher(endpoint) as publisher, LiveViewer(endpoint) as viewer:
        publisher.publish("map", b"0")
        assert viewer.latest(20)
        with LiveViewer(endpoint) as watcher:
            assert watcher.latest(20) == {"map": b"0"}
            for number in range(1, 6):
                publisher.publish("map", b"%d" % number)
                assert watcher.latest(20) == {"map": b"%d" % number}
            assert watcher.skipped == 0
        looked = 0
        news: dict[str, bytes] = {}
        while news.get("map") != b"5":
            news = viewer.latest(20)
            looked += len(news)
        assert looked + viewer.skipped == 5


def test_the_publisher_refuses_other_machines(endpoint: str) -> None:
    with pytest.raises(InputError, match="CURVE"):
        LivePublisher("tcp://0.0.0.0:0")
    with pytest.raises(InputError, match="CURVE"):
        LiveViewer("tcp://10.0.0.1:5")


def test_a_topic_with_nul_is_refused(endpoint: str) -> None:
    with LivePublisher(endpoint) as publisher, pytest.raises(ValueError, match="NUL"):
        publisher.publish("a\0b", b"")


def test_a_viewer_with_a_full_queue_outlives_its_publisher(tmp_path: Path) -> None:
    # With heartbeats, libzmq 4.3.5 aborts the viewer's process here: so in a process of its own.
    program = f"""
import time
from cartoseq.streaming.liveview import LivePublisher, LiveViewer
publisher = LivePublisher("ipc://{tmp_path}/live")
viewer = LiveViewer("ipc://{tmp_path}/live")
publisher.publish("a", b"first")
assert viewer.latest(10.0) == {{"a": b"first"}}
for number in range(200):
    publisher.publish("a", bytes(200_000) + number.to_bytes(4, "big"))
    time.sleep(0.003)
publisher.close()
time.sleep(1.5)
assert viewer.latest(1.0)["a"][:1] == bytes(1)
viewer.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_neither_end_sends_heartbeats(endpoint: str) -> None:
    # Seen now and then as an abort of the supervisor: a ping that waits behind a full queue when its sender dies.
    with LivePublisher(endpoint) as publisher, LiveViewer(endpoint) as viewer:
        assert publisher._socket.getsockopt(zmq.HEARTBEAT_IVL) == 0
        assert viewer._socket.getsockopt(zmq.HEARTBEAT_IVL) == 0
