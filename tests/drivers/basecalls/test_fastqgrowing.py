"""FASTQ files that grow while they are read: what is there is handed out, and the end is where it is declared."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cartoseq.drivers.basecalls.fastq import FastqSource, open_fastq
from cartoseq.drivers.basecalls.growing import Follow, GrowingFile
from cartoseq.streaming.errors import InputError, RunError
from cartoseq.streaming.readstructure import ReadStructure

STRUCTURES = [ReadStructure.parse("5C"), ReadStructure.parse("3T")]


class Writer:
    """What happens while the reader sleeps: one step at each sleep, in order; its clock goes by the sleeps."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.steps:
            self.steps.pop(0)()

    def clock(self) -> float:
        return self.now_s

    def follow(self, marker: Path | None, quiet_timeout_s: float | None = 1000.0) -> Follow:
        return Follow(marker, 1.0, quiet_timeout_s, sleep=self.sleep, clock=self.clock)


def record(number: int, bases: str) -> bytes:
    return f"@n{number}\n{bases}\n+\n{'I' * len(bases)}\n".encode()


def add(path: Path, text: bytes) -> Callable[[], object]:
    def write() -> None:
        with path.open("ab") as file:
            file.write(text)

    return write


def packed(text: bytes) -> bytes:
    return gzip.compress(text, mtime=0)


def test_a_pair_of_files_is_followed_byte_by_byte_until_the_marker(tmp_path: Path) -> None:
    one, two, marker = tmp_path / "1.fq", tmp_path / "2.fq", tmp_path / "done"
    text_one = b"".join(record(i, "ACGTA") for i in range(7))
    text_two = b"".join(record(i, "TTT") for i in range(7))
    steps = [add(one, text_one[i : i + 1]) for i in range(len(text_one))]
    steps += [add(two, text_two[i : i + 1]) for i in range(len(text_two))]
    writer = Writer(*steps, marker.touch)
    blocks = list(open_fastq([[one], [two]], STRUCTURES, clusters_per_block=3, follow=writer.follow(marker)))
    assert [block.clusters for block in blocks] == [3, 3, 1]
    assert not writer.steps
    (whole,) = open_fastq([[one], [two]], STRUCTURES)
    np.testing.assert_array_equal(np.concatenate([block.calls for block in blocks], axis=1), whole.calls)


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 18])
def test_a_block_is_handed_out_as_soon_as_its_records_are_there(tmp_path: Path, chunk_bytes: int) -> None:
    path, marker = tmp_path / "1.fq.gz", tmp_path / "done"
    path.write_bytes(packed(record(0, "ACGTA") + record(1, "ACGTA")))
    writer = Writer(add(path, packed(record(2, "CCCCC"))), marker.touch)
    source = FastqSource(
        [[path]], STRUCTURES[:1], clusters_per_block=2, follow=writer.follow(marker), chunk_bytes=chunk_bytes
    )
    assert next(source).clusters == 2
    assert len(writer.steps) == 2
    assert [block.clusters for block in source] == [1]


def test_a_gzip_file_is_followed_in_the_middle_of_a_member(tmp_path: Path) -> None:
    path, marker = tmp_path / "1.fq.gz", tmp_path / "done"
    members = [packed(record(i, "ACGTA")) for i in range(5)]
    data = b"".join(members)
    writer = Writer(*[add(path, data[i : i + 7]) for i in range(0, len(data), 7)], marker.touch)
    blocks = list(open_fastq([[path]], STRUCTURES[:1], clusters_per_block=2, follow=writer.follow(marker)))
    assert [block.clusters for block in blocks] == [2, 2, 1]


def test_what_was_written_before_the_marker_is_read_after_it(tmp_path: Path) -> None:
    path, marker = tmp_path / "1.fq", tmp_path / "done"
    path.write_bytes(record(0, "ACGTA"))

    def last_words() -> None:
        add(path, record(1, "CCCCC"))()
        marker.touch()

    writer = Writer(last_words)
    (block,) = open_fastq([[path]], STRUCTURES[:1], follow=writer.follow(marker))
    assert block.clusters == 2


def test_a_part_of_a_record_is_an_error_only_once_the_end_is_declared(tmp_path: Path) -> None:
    path, marker = tmp_path / "1.fq", tmp_path / "done"
    path.write_bytes(record(0, "ACGTA") + b"@n1\nAC")
    writer = Writer(*[lambda: None] * 20, marker.touch)
    source = open_fastq([[path]], STRUCTURES[:1], follow=writer.follow(marker))
    assert next(source).clusters == 1
    assert not writer.steps
    with pytest.raises(InputError, match=r"record 2 \(line 5\): the file ends in the middle of '@n1'"):
        next(source)


def test_unequal_files_are_an_error_only_once_the_end_is_declared(tmp_path: Path) -> None:
    one, two, marker = tmp_path / "1.fq", tmp_path / "2.fq", tmp_path / "done"
    one.write_bytes(record(0, "ACGTA") + record(1, "ACGTA"))
    two.write_bytes(record(0, "ACG"))
    writer = Writer(lambda: None, marker.touch)
    source = open_fastq([[one], [two]], STRUCTURES, follow=writer.follow(marker))
    assert next(source).clusters == 1
    with pytest.raises(InputError, match="ends after 1 records"):
        next(source)


def test_a_truncated_gzip_member_is_an_error_only_once_the_end_is_declared(tmp_path: Path) -> None:
    path, marker = tmp_path / "1.fq.gz", tmp_path / "done"
    path.write_bytes(packed(record(0, "ACGTA")) + packed(record(1, "ACGTA"))[:-9])
    writer = Writer(lambda: None, marker.touch)
    source = open_fastq([[path]], STRUCTURES[:1], follow=writer.follow(marker))
    assert next(source).clusters >= 1
    with pytest.raises(InputError, match="the compressed file is cut off"):
        next(source)


def test_a_file_that_never_comes_is_missing_when_the_end_is_declared(tmp_path: Path) -> None:
    marker = tmp_path / "done"
    writer = Writer(lambda: None, marker.touch)
    with pytest.raises(InputError, match="there is no such file"):
        open_fastq([[tmp_path / "absent"]], STRUCTURES[:1], follow=writer.follow(marker))


def test_silence_ends_a_file_without_a_marker_and_is_an_error_with_one(tmp_path: Path) -> None:
    path, marker = tmp_path / "1.fq", tmp_path / "done"
    path.write_bytes(record(0, "ACGTA"))
    writer = Writer(*[lambda: None] * 3, add(path, record(1, "ACGTA")))
    (block,) = open_fastq([[path]], STRUCTURES[:1], follow=writer.follow(None, 10.0))
    assert block.clusters == 2
    assert 10.0 <= writer.now_s <= 15.0
    source = open_fastq([[path]], STRUCTURES[:1], follow=Writer().follow(marker, 10.0))
    assert next(source).clusters == 2
    with pytest.raises(InputError, match=r"has not grown for 10 s and its end was not declared by .*done"):
        next(source)
    with pytest.raises(InputError, match="neither an end marker nor a time of silence"):
        Follow()


def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path) -> None:
    path, marker = tmp_path / "1.fq", tmp_path / "done"
    path.write_bytes(record(0, "ACGTA"))
    writer = Writer(lambda: path.write_bytes(b"@"))
    source = open_fastq([[path]], STRUCTURES[:1], follow=writer.follow(marker))
    assert next(source).clusters == 1
    with pytest.raises(InputError, match="became shorter while it was read: 1 bytes, and 18 were read"):
        next(source)


def test_waiting_ends_at_once_when_it_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "1.fq"
    path.write_bytes(record(0, "ACGTA"))
    stop = threading.Event()
    source = open_fastq([[path]], STRUCTURES[:1], follow=Follow(tmp_path / "done", poll_s=1000.0, stop=stop))
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    with pytest.raises(RunError, match="stopped while waiting for it to grow"):
        next(source)
    timer.join()


def test_later_files_of_a_read_may_appear_while_it_is_followed(tmp_path: Path) -> None:
    first, second, marker = tmp_path / "1.fq", tmp_path / "2.fq", tmp_path / "done"
    first.write_bytes(record(0, "ACGTA"))

    def finish() -> None:
        add(second, record(1, "CCCCC"))()
        marker.touch()

    writer = Writer(finish)
    (block,) = open_fastq([[first, second]], STRUCTURES[:1], follow=writer.follow(marker))
    assert block.clusters == 2


def test_a_growing_file_tells_its_size_and_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "1.fq"
    path.write_bytes(b"abcdef")
    with GrowingFile(path) as file:
        assert (file.size(), file.read(4), file.bytes_read, file.read(4), file.read(4)) == (6, b"abcd", 4, b"ef", b"")


def test_silence_is_counted_from_the_first_look_in_vain(tmp_path: Path) -> None:
    path = tmp_path / "1.fq"
    path.write_bytes(b"a")
    writer = Writer(add(path, b"b"))
    with GrowingFile(path, writer.follow(tmp_path / "done", 10.0)) as file:
        assert file.read(1) == b"a"
        writer.now_s += 500.0
        assert file.read(1) == b"b"
