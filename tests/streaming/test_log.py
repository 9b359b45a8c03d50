"""The log: what was synced is there for ever, what tore is cut off, what rotted is reported."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c

from cartoseq.streaming.errors import CorruptionError, DiskError, InputError, RunError, VersionError
from cartoseq.streaming.header import HEADER_BYTES, RecordHeader, RecordKind
from cartoseq.streaming.log import LogReader, LogWriter

RUN = 77
DESCRIPTOR = {"run": RUN, "chip": "B01234C5"}
FOLDER = Path("/log")
RNG = np.random.default_rng(5)
PAYLOADS = [RNG.bytes(100 + 13 * number) for number in range(40)]


def header_of(sequence: int, payload: bytes, source: int = 1, kind: RecordKind = RecordKind.DATA) -> RecordHeader:
    return RecordHeader(
        kind, RUN, source, sequence, count=3, payload_bytes=len(payload), payload_crc=crc32c(payload), schema=1
    )


def put(log: LogWriter, first: int, last: int, source: int = 1) -> None:
    for sequence in range(first, last):
        payload = PAYLOADS[sequence]
        log.append(header_of(sequence, payload, source), payload[:40], memoryview(payload)[40:])


def fill(log: LogWriter, records: int) -> None:
    for _ in range(records):
        put(log, log.next_index, log.next_index + 1)
        log.sync()


def crash(log: LogWriter) -> None:
    """What is left of a writer that was killed: its files, not its lock."""
    log._release()


def contents(folder: Path, **options: Any) -> list[tuple[int, int, bytes]]:
    with LogReader(folder, **options) as log:
        return [(header.source, header.sequence, bytes(payload)) for _, header, payload in log]


def expected(last: int) -> list[tuple[int, int, bytes]]:
    return [(1, sequence, PAYLOADS[sequence]) for sequence in range(last)]


def test_what_is_appended_is_read_over_several_segments(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log", DESCRIPTOR, segment_bytes=2000) as log:
        put(log, 0, 20)
        log.sync()
        header, frame = log.read(7)
        assert header.sequence == 7
        assert frame[HEADER_BYTES:] == PAYLOADS[7]
        assert bytes(frame[:HEADER_BYTES]) == header_of(7, PAYLOADS[7]).pack()
        log.append(header_of(20, b"{}", kind=RecordKind.END), b"{}")
    assert len(list((tmp_path / "log").glob("*.log"))) > 3
    assert contents(tmp_path / "log") == [*expected(20), (1, 20, b"{}")]
    with LogReader(tmp_path / "log") as reader:
        assert reader.verify() == reader.end == 21
        assert reader.descriptor == DESCRIPTOR
        assert reader.run == RUN
        assert [index for index, _, _ in reader.records(18)] == [18, 19, 20]
        with pytest.raises(IndexError):
            reader.read(21)
    with LogWriter(tmp_path / "log", DESCRIPTOR) as log:
        assert (log.next_index, log.next_sequence(1), log.ended(1)) == (21, 21, True)
        assert (log.next_sequence(2), log.ended(2), log.sources) == (0, False, (1,))
        with pytest.raises(ValueError, match="does not belong"):
            log.append(header_of(21, b""))


def test_golden_bytes_of_a_segment(tmp_path: Path) -> None:
    with LogWriter(tmp_path, {"run": RUN}) as log:
        log.append(header_of(0, b"abc"), b"abc")
        log.sync()
    data = (tmp_path / "0000000000000000.log").read_bytes()
    text = b'{"descriptor":{"run":77},"first_index":0,"format":"cartoseq-log"}'
    run = RecordHeader(RecordKind.RUN, RUN, payload_bytes=len(text), payload_crc=crc32c(text), schema=2).pack()
    record = header_of(0, b"abc").pack() + b"abc"
    mark = RecordHeader(RecordKind.COMMIT, RUN, sequence=1).pack()
    start = run + text + record + mark
    assert data[: len(start)] == start
    footer = data[len(start) + HEADER_BYTES :]
    assert struct.unpack("<I4s", footer[-8:]) == (len(footer), b"SEAL")
    assert json.loads(footer[:-8]) == {
        "first_index": 0,
        "records": 1,
        "crc_of_crcs": crc32c(record[60:64]),
        "sources": {"1": {"first": 0, "last": 0, "ended": False, "clusters": 3}},
        "offsets": [len(run + text)],
        "sizes": [67],
    }


def test_a_reader_follows_a_log_that_grows_and_sees_only_what_is_durable(tmp_path: Path) -> None:
    with LogWriter(tmp_path, DESCRIPTOR, segment_bytes=1500) as log:
        put(log, 0, 1)
        log.sync()
        with LogReader(tmp_path) as reader:
            for sequence in range(1, 20):
                assert reader.end == sequence
                put(log, sequence, sequence + 1)
                # Unsynced; a full segment is synced as it is sealed, so that this record opens the next one.
                assert reader.end == sequence
                with pytest.raises(IndexError):
                    reader.read(sequence)
                log.sync()
                assert bytes(reader.read(sequence)[1]) == PAYLOADS[sequence]
            assert [index for index, _, _ in reader] == list(range(20))


def test_nothing_unsynced_is_handed_out_by_the_writer(tmp_path: Path) -> None:
    with LogWriter(tmp_path, DESCRIPTOR) as log:
        put(log, 0, 1)
        assert (log.next_index, log.durable_index) == (1, 0)
        with pytest.raises(IndexError):
            log.read(0)


def test_a_tail_torn_at_any_byte_is_cut_off(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, DESCRIPTOR)
    put(log, 0, 3)
    log.sync()
    start = (tmp_path / "0000000000000000.log").stat().st_size
    put(log, 3, 4)
    crash(log)
    whole = (tmp_path / "0000000000000000.log").read_bytes()
    for size in range(start, len(whole) + 1):
        (tmp_path / "0000000000000000.log").write_bytes(whole[:size])
        log = LogWriter(tmp_path, DESCRIPTOR)
        kept = 4 if size == len(whole) else 3
        assert log.next_index == log.durable_index == log.next_sequence(1) == kept
        crash(log)
        assert contents(tmp_path) == expected(kept)


def test_every_flipped_byte_of_synced_records_is_reported_with_file_and_offset(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, DESCRIPTOR)
    for sequence in range(4):
        put(log, sequence, sequence + 1)
        log.sync()
    crash(log)
    path = tmp_path / "0000000000000000.log"
    whole = path.read_bytes()
    offsets = [at for at in range(len(whole)) if whole.startswith(b"SQST", at)]
    last_mark = offsets[-1]
    for at in range(last_mark):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        with pytest.raises(CorruptionError) as caught:
            LogWriter(tmp_path, DESCRIPTOR)
        assert str(path) in str(caught.value)
        assert "offset" in str(caught.value)
        assert path.read_bytes() == data
    # Rot in the very last mark takes only the knowledge that the last group was synced: the records are all there.
    data = bytearray(whole)
    data[last_mark + 20] ^= 1
    path.write_bytes(data)
    log = LogWriter(tmp_path, DESCRIPTOR)
    assert log.durable_index == 4
    crash(log)


def test_every_flipped_byte_of_a_sealed_segment_is_reported_when_it_is_read(tmp_path: Path) -> None:
    with LogWriter(tmp_path, DESCRIPTOR, segment_bytes=600) as log:
        put(log, 0, 6)
    path = tmp_path / "0000000000000000.log"
    whole = path.read_bytes()
    marks = [at for at in range(len(whole)) if whole.startswith(b"SQST", at)]
    commits = [at for at in marks if whole[at + 5] == RecordKind.COMMIT]
    for at in range(len(whole)):
        if any(mark <= at < mark + HEADER_BYTES for mark in commits):
            continue
        data = bytearray(whole)
        data[at] ^= 0x10
        path.write_bytes(data)
        with pytest.raises((CorruptionError, VersionError), match=r"offset|version"):
            contents(tmp_path)


def test_a_missing_segment_is_reported(tmp_path: Path) -> None:
    with LogWriter(tmp_path, DESCRIPTOR, segment_bytes=600) as log:
        put(log, 0, 10)
    paths = sorted(tmp_path.glob("*.log"))
    paths[1].unlink()
    with pytest.raises(CorruptionError, match="missing"):
        LogReader(tmp_path)
    with pytest.raises(CorruptionError, match="missing"):
        LogWriter(tmp_path, DESCRIPTOR)


def test_another_major_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with LogWriter(tmp_path, DESCRIPTOR) as log:
        put(log, 0, 2)
    path = tmp_path / "0000000000000000.log"
    data = bytearray(path.read_bytes())
    data[4] = 0x20
    data[60:64] = struct.pack("<I", crc32c(data[:60]))
    path.write_bytes(data)
    for opened in (lambda: LogWriter(tmp_path, DESCRIPTOR), lambda: LogReader(tmp_path)):
        with pytest.raises(VersionError, match=r"version 2\.0"):
            opened()
    assert path.read_bytes() == data


def test_a_log_of_another_run_is_refused(tmp_path: Path) -> None:
    LogWriter(tmp_path, DESCRIPTOR).close()
    with LogWriter(tmp_path, DESCRIPTOR) as log:
        put(log, 0, 1)
    with pytest.raises(RunError, match="folder of its own"):
        LogWriter(tmp_path, {"run": 78})
    with pytest.raises(InputError, match="key run"):
        LogWriter(tmp_path, {})
    with pytest.raises(InputError, match="not JSON"):
        LogWriter(tmp_path, {"run": RUN, "chip": b"bytes"})


def test_a_folder_without_a_log_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no log segment"):
        LogReader(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        LogReader(tmp_path / "absent")


def test_a_crash_while_a_segment_is_created_leaves_nothing_behind(tmp_path: Path) -> None:
    with LogWriter(tmp_path, DESCRIPTOR) as log:
        put(log, 0, 2)
    with LogWriter(tmp_path, DESCRIPTOR) as log:
        put(log, 2, 3)
    newest = tmp_path / "0000000000000002.log"
    whole = newest.read_bytes()
    run_bytes = HEADER_BYTES + RecordHeader.unpack(whole).payload_bytes
    for size in range(run_bytes + 1):
        newest.write_bytes(whole[:size])
        log = LogWriter(tmp_path, DESCRIPTOR)
        assert log.next_index == 2
        put(log, 2, 4)
        log.sync()
        crash(log)
        assert contents(tmp_path) == expected(4)
        newest.unlink()


def test_wrong_records_are_refused(tmp_path: Path) -> None:
    with LogWriter(tmp_path, DESCRIPTOR) as log:
        with pytest.raises(ValueError, match="not the next one"):
            log.append(header_of(1, b""))
        with pytest.raises(ValueError, match="the payload has 2"):
            log.append(header_of(0, b"abc"), b"ab")
        with pytest.raises(ValueError, match="does not belong"):
            log.append(RecordHeader(RecordKind.FETCH, RUN))
        assert log.next_index == 0


def test_power_loss_at_any_time_takes_nothing_that_was_synced(memory_disk: Any) -> None:
    for seed in range(300):
        rng = random.Random(seed)
        disk = memory_disk()
        durable = 0
        for _ in range(3):
            log = LogWriter(FOLDER, DESCRIPTOR, segment_bytes=rng.choice((400, 1500, 100_000)), disk=disk)
            assert log.next_index >= durable, f"seed {seed}"
            for _ in range(rng.randrange(8)):
                put(log, log.next_index, log.next_index + 1)
                if rng.random() < 0.4:
                    log.sync()
            durable = log.durable_index
            disk.lose_power(rng)
        log = LogWriter(FOLDER, DESCRIPTOR, disk=disk)
        assert log.next_index >= durable, f"seed {seed}"
        if log.next_index:
            assert contents(FOLDER, disk=disk) == expected(log.next_index), f"seed {seed}"


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "short"])
def test_a_failing_disk_call_loses_nothing_whichever_it_is(memory_disk: Any, fault: str) -> None:
    failed_calls = 0
    for number in range(1000):
        disk = memory_disk()
        disk.faults = {number: fault}
        log = None
        durable = 0
        while durable < 10:
            try:
                log = log or LogWriter(FOLDER, DESCRIPTOR, segment_bytes=700, disk=disk)
                last = min(10, log.next_index + 2)
                put(log, log.next_index, last)
                log.sync()
            except DiskError:
                failed_calls += 1
                assert log is None or log.durable_index >= durable
                continue
            assert log.durable_index == last
            durable = last
        assert log is not None
        if len(disk.calls) <= number:
            break
        crash(log)
        disk.lose_power(random.Random(number))
        again = LogWriter(FOLDER, DESCRIPTOR, disk=disk)
        assert again.next_index == again.next_sequence(1) == 10, f"call {number}: {disk.calls[number]}"
        assert contents(FOLDER, disk=disk) == expected(10), f"call {number}: {disk.calls[number]}"
    else:
        pytest.fail("never got to the end of the calls")
    assert failed_calls > 20 or fault == "short"


def test_a_full_disk_is_an_error_each_time_and_the_log_goes_on_when_there_is_space(memory_disk: Any) -> None:
    for capacity in range(250, 900, 7):
        disk = memory_disk()
        disk.capacity = capacity
        log = LogWriter(FOLDER, DESCRIPTOR, segment_bytes=500, disk=disk)
        with pytest.raises(DiskError, match="No space left"):
            fill(log, 20)
        durable = log.durable_index
        with pytest.raises(DiskError):
            put(log, log.next_index, log.next_index + 1)
        assert log.next_index == log.durable_index == durable
        disk.capacity = 1 << 30
        put(log, log.next_index, 10)
        log.close()
        assert contents(FOLDER, disk=disk) == expected(10)


def test_a_disk_that_lies_about_syncing_is_found_out(memory_disk: Any) -> None:
    """The tests above would be worth nothing if it passed without a sync."""
    lost = 0
    for seed in range(20):
        disk = memory_disk()
        disk.lies = frozenset({"sync"})
        log = LogWriter(FOLDER, DESCRIPTOR, disk=disk)
        put(log, 0, 5)
        log.sync()
        disk.lose_power(random.Random(seed))
        try:
            lost += LogWriter(FOLDER, DESCRIPTOR, disk=disk).next_index < 5
        except CorruptionError:
            lost += 1
    assert lost > 0
