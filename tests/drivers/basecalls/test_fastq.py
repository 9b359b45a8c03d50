"""FASTQ files to blocks: what is read, and what is refused with which words."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import dnaio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cartoseq.drivers.basecalls import fastqbytes
from cartoseq.drivers.basecalls.fastq import FastqSource, open_fastq
from cartoseq.drivers.basecalls.fastqfile import place_of_record
from cartoseq.streaming.block import BaseCallBlock
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.readstructure import ReadStructure

Record = tuple[str, str, str]
Pack = Callable[[bytes], bytes]


def structures(*notations: str) -> list[ReadStructure]:
    return [ReadStructure.parse(notation) for notation in notations]


def fastq(records: Sequence[Record]) -> bytes:
    return "".join(f"@{name}\n{bases}\n+\n{qualities}\n" for name, bases, qualities in records).encode()


def pack_gzip(text: bytes) -> bytes:
    return gzip.compress(text, 6, mtime=0)


def pack_bgzip(text: bytes) -> bytes:
    """Gzip in small members with the BC field, as bgzip writes it (SAM specification 4.1)."""
    members = []
    for piece in [text[i : i + 100] for i in range(0, len(text), 100)] + [b""]:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = packer.compress(piece) + packer.flush()
        header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(body) + 25)
        members.append(header + body + struct.pack("<II", zlib.crc32(piece), len(piece)))
    return b"".join(members)


def pack_plain(text: bytes) -> bytes:
    return text


PACKINGS = [pack_plain, pack_gzip, pack_bgzip]


def reference_calls(records_per_read: Sequence[Sequence[Record]]) -> NDArray[np.uint8]:
    """The calls of all clusters, letter by letter; shorter reads padded to the longest."""
    parts = []
    for records in records_per_read:
        calls = np.zeros((max((len(bases) for _, bases, _ in records), default=0), len(records)), dtype=np.uint8)
        for i, (_, bases, qualities) in enumerate(records):
            for k, (base, quality) in enumerate(zip(bases.upper(), qualities, strict=True)):
                if base != "N":
                    calls[k, i] = "ACGT".index(base) | min(max(ord(quality) - 33, 1), 63) << 2
        parts.append(calls)
    return np.concatenate(parts)


def joined(blocks: Sequence[BaseCallBlock]) -> NDArray[np.uint8]:
    return np.concatenate([block.calls for block in blocks], axis=1)


def random_records(rng: np.random.Generator, number: int, length: int, suffix: str = "") -> list[Record]:
    return [
        (
            f"E100026571L1C001R003{i:08d}{suffix}",
            "".join(rng.choice(list("ACGTN"), length)),
            "".join(map(chr, rng.integers(33, 75, length))),
        )
        for i in range(number)
    ]


def read_until_error(source: FastqSource) -> tuple[list[BaseCallBlock], InputError]:
    blocks: list[BaseCallBlock] = []
    with pytest.raises(InputError) as caught:
        blocks.extend(_collect(source, blocks))
    return blocks, caught.value


def _collect(source: FastqSource, blocks: list[BaseCallBlock]) -> list[BaseCallBlock]:
    for block in source:
        blocks.append(block)  # noqa: PERF402 - the list must keep what came before the error
    return []


@pytest.mark.parametrize("pack", PACKINGS)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 60), st.integers(1, 40), st.integers(1, 9), st.integers(1, 200), st.integers(1, 25), st.integers(0)
)
def test_pairs_come_out_as_they_went_in_whatever_the_pieces(
    tmp_path: Path, pack: Pack, number: int, length: int, short: int, chunk_bytes: int, per_block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    one, two = random_records(rng, number, short, "/1"), random_records(rng, number, length, "/2")
    (tmp_path / "1").write_bytes(pack(fastq(one)))
    (tmp_path / "2").write_bytes(pack(fastq(two)))
    source = FastqSource(
        [[tmp_path / "1"], [tmp_path / "2"]],
        structures(f"{short}C", f"{length}T"),
        library=3,
        clusters_per_block=per_block,
        chunk_bytes=chunk_bytes,
    )
    assert source.read_lengths == (short, length)
    blocks = list(source)
    np.testing.assert_array_equal(joined(blocks), reference_calls([one, two]))
    assert [block.clusters for block in blocks[:-1]] == [per_block] * (len(blocks) - 1)
    assert [block.first_cluster for block in blocks] == list(range(0, number, per_block))
    assert {(b.library, b.lane, b.tile, b.first_cycle, b.read_lengths) for b in blocks} == {
        (3, 1, 1003, 1, (short, length))
    }
    assert source.reads == number
    assert source.progress == (source.bytes_total, source.bytes_total)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(2, 50), st.integers(0, 40)), min_size=1, max_size=50),
    st.integers(1, 300),
    st.integers(1, 20),
    st.integers(0),
)
def test_reads_of_differing_length_are_padded_to_the_longest_of_their_block(
    tmp_path: Path, lengths: list[tuple[int, int]], chunk_bytes: int, per_block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    one = [random_records(rng, 1, a)[0] for a, _ in lengths]
    two = [random_records(rng, 1, b)[0] for _, b in lengths]
    (tmp_path / "1").write_bytes(fastq(one))
    (tmp_path / "2").write_bytes(fastq(two))
    paths = [[tmp_path / "1"], [tmp_path / "2"]]
    source = FastqSource(paths, structures("2M+T", "+T"), clusters_per_block=per_block, chunk_bytes=chunk_bytes)
    assert source.read_lengths == lengths[0]
    blocks = list(source)
    for k, block in enumerate(blocks):
        piece = slice(k * per_block, (k + 1) * per_block)
        np.testing.assert_array_equal(block.calls, reference_calls([one[piece], two[piece]]))
        longest = tuple(max(pair[i] for pair in lengths[piece]) for i in (0, 1))
        assert block.read_lengths == longest


@pytest.mark.parametrize("skip", [0, 10, 20, 30, 35])
@pytest.mark.parametrize("notation", ["20T", "+T"])
def test_skipping_whole_blocks_equals_dropping_them(tmp_path: Path, skip: int, notation: str) -> None:
    records = random_records(np.random.default_rng(1), 35, 20)
    path = tmp_path / "reads.fq.gz"
    path.write_bytes(pack_gzip(fastq(records)))
    every = list(FastqSource([[path]], structures(notation), clusters_per_block=10))
    source = FastqSource([[path]], structures(notation), clusters_per_block=10, skip_reads=skip, chunk_bytes=77)
    rest = list(source)
    assert [(b.first_cluster, b.calls.tobytes()) for b in rest] == [
        (b.first_cluster, b.calls.tobytes()) for b in every if b.first_cluster >= skip
    ]
    assert source.reads == 35


def test_blocks_begin_behind_the_skipped_reads_of_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    one, two = random_records(rng, 25, 4), random_records(rng, 25, 30)
    paths = [tmp_path / "1.fq", tmp_path / "2.fq"]
    for path, records in zip(paths, (one, two), strict=True):
        path.write_bytes(fastq(records))
    source = FastqSource(
        [[path] for path in paths], structures("4C", "30T"), clusters_per_block=10, skip_reads=7, chunk_bytes=200
    )
    blocks = list(source)
    assert [(block.first_cluster, block.clusters) for block in blocks] == [(7, 10), (17, 8)]
    np.testing.assert_array_equal(joined(blocks), reference_calls([one[7:], two[7:]]))


def test_skipping_more_reads_than_there_are_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "reads.fq"
    path.write_bytes(fastq(random_records(np.random.default_rng(1), 20, 5)))
    source = FastqSource([[path]], structures("5T"), skip_reads=21)
    with pytest.raises(InputError, match="holds 20 reads, and 21 were read of it before"):
        next(source)


def test_files_of_a_read_follow_each_other_even_if_the_reads_are_split_differently(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    one, two = random_records(rng, 30, 6, "/1"), random_records(rng, 30, 9, "/2")
    paths: list[list[Path]] = [[], []]
    for read, (records, cuts) in enumerate(((one, [0, 7, 30]), (two, [0, 12, 13, 30]))):
        for begin, end in pairwise(cuts):
            paths[read].append(tmp_path / f"{read}_{begin}.fq")
            # The newline of a file's last line may be absent.
            paths[read][-1].write_bytes(fastq(records[begin:end]).rstrip(b"\n"))
    blocks = list(FastqSource(paths, structures("6C", "9T"), clusters_per_block=8))
    np.testing.assert_array_equal(joined(blocks), reference_calls([one, two]))


def test_up_to_four_reads_a_cluster_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    reads = [random_records(rng, 5, length, f"/{length}") for length in (1, 2, 3, 4)]
    paths = [tmp_path / f"{i}.fq" for i in range(4)]
    for path, records in zip(paths, reads, strict=True):
        path.write_bytes(fastq(records))
    (block,) = FastqSource([[path] for path in paths], structures("1B", "2B", "3T", "4T"))
    assert block.read_lengths == (1, 2, 3, 4)
    np.testing.assert_array_equal(block.calls, reference_calls(reads))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0))
def test_base_calls_written_as_fastq_come_back_bit_for_bit(
    tmp_path: Path, cycles: int, clusters: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    calls = rng.integers(0, 4, (cycles, clusters)) | rng.integers(1, 64, (cycles, clusters)) << 2
    calls = np.where(rng.random((cycles, clusters)) < 0.1, 0, calls).astype(np.uint8)
    records = [
        (
            f"r{i}",
            "".join("N" if call == 0 else "ACGT"[call & 3] for call in calls[:, i].tolist()),
            "".join("!" if call == 0 else chr(33 + (call >> 2)) for call in calls[:, i].tolist()),
        )
        for i in range(clusters)
    ]
    path = tmp_path / "calls.fq"
    path.write_bytes(fastq(records))
    (block,) = open_fastq([[path]], structures(f"{cycles}T"))
    np.testing.assert_array_equal(block.calls, calls)


def test_a_called_base_keeps_being_called_at_quality_zero_and_quality_stops_at_63(tmp_path: Path) -> None:
    path = tmp_path / "a.fq"
    path.write_bytes(b"@a\nACGTNacgtn\n+\n!!!!!~~~~~\n")
    (block,) = open_fastq([[path]], structures("10T"))
    assert block.calls[:, 0].tolist() == [4, 5, 6, 7, 0, 252, 253, 254, 255, 0]


def test_blank_lines_may_end_a_file_and_the_plus_line_may_repeat_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.fq"
    path.write_bytes(b"@a b\nAC\n+a b\nII\n@c\nGT\n+\nII\n\n\n\n")
    for chunk_bytes in (1, 3, 100):
        (block,) = FastqSource([[path]], structures("2T"), chunk_bytes=chunk_bytes)
        assert block.clusters == 2


@pytest.mark.parametrize(
    ("names", "place"),
    [
        (["E1L2C003R004000", "E1L2C003R004001"], (2, 3004)),
        (["E1L2C003R004000", "E1L2C003R005001"], (2, 0)),
        (["E1L2C003R004000", "E1L3C003R004001"], (0, 0)),
        (["M1:7:FC:3:1101:15:16 1:N:0:1", "M1:7:FC:3:1101:17:18 1:N:0:1"], (3, 1101)),
        (["M1:7:FC:3:1101:15:16 1:N:0:1", "M1:7:FC:3:11012:17:18 1:N:0:1"], (3, 0)),
        (["M1:7:FC:3:1101:15:16", "M1:7:FC:4:1101:17:18"], (0, 0)),
        (["SRR1.1", "SRR1.2"], (0, 0)),
        (["E1L2C003R004000", ""], (0, 0)),
    ],
)
def test_lane_and_tile_are_those_that_all_clusters_of_the_block_share(
    tmp_path: Path, names: list[str], place: tuple[int, int]
) -> None:
    path = tmp_path / "a.fq"
    path.write_bytes(fastq([(name, "A", "I") for name in names]))
    for chunk_bytes in (5, 1000):
        (block,) = FastqSource([[path]], structures("1T"), chunk_bytes=chunk_bytes)
        assert (block.lane, block.tile) == place


GOOD = [(f"n{i}", "ACGTA", "IIIII") for i in range(12)]


def with_fault(text: bytes, at: int = 7) -> bytes:
    """Good records, the text in the place of record ``at`` + 1, and good records again."""
    return fastq(GOOD[:at]) + text + fastq(GOOD[at + 1 :])


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize("chunk_bytes", [1, 19, 100_000])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (with_fault(b"@n7\nACGTA\n+\nIIII\n"), "5 bases and 4 qualities"),
        (with_fault(b"@n7\nACGTA\n+\nIIIIII\n"), "5 bases and 6 qualities"),
        (with_fault(b"@n7\nACXTA\n+\nIIIII\n"), "'X' at base 3 of n7 is none of A C G T N"),
        (with_fault(b"@n7\nAC\xc3TA\n+\nIIIII\n"), "byte 0xC3 at base 3 of n7 is none of A C G T N"),
        (with_fault(b"@n7\nACGTA\n+\nII II\n"), "the quality at base 3 of n7 is ' ', outside"),
        (with_fault(b"@n7\nACGTA\n+\nII\x7fII\n"), "the quality at base 3 of n7 is byte 0x7F, outside"),
        (with_fault(b"@n7\nACGT\n+\nIIII\n"), "the read n7 has 4 bases, and the read structure says 5"),
        (with_fault(b"@n7\nACGTAC\n+\nIIIIII\n"), "the read n7 has 6 bases, and the read structure says 5"),
        (with_fault(b"@n7\r\nACGTA\r\n+\r\nIIIII\r\n"), "the line ends are those of Windows"),
        (with_fault(b"n7\nACGTA\n+\nIIIII\n"), "expected a name line that begins with @, found 'n7'"),
        (with_fault(b"\n@n7\nACGTA\n+\nIIIII\n"), "found an empty line between records"),
        (with_fault(b"@n7\nACGTA\nCCCCC\n+\nIIIII\n"), "expected + on the third line, found 'CCCCC'"),
        (fastq(GOOD[:7]) + b"@n7\nACGTA\n+\nII", "the file ends in the middle of '@n7'"),
        (fastq(GOOD[:7]) + b"@n7\nACGTA\n+", "the file ends in the middle of '@n7'"),
        (fastq(GOOD[:7]) + b"@n7\nACG", "the file ends in the middle of '@n7'"),
        (fastq(GOOD[:7]) + b"@", "the file ends in the middle of '@'"),
    ],
)
def test_a_fault_is_named_with_its_record_and_what_came_before_is_kept(
    tmp_path: Path, pack: Pack, chunk_bytes: int, text: bytes, problem: str
) -> None:
    path = tmp_path / "reads.fq.gz"
    path.write_bytes(pack(text))
    source = FastqSource([[path]], structures("5T"), clusters_per_block=4, chunk_bytes=chunk_bytes)
    blocks, error = read_until_error(source)
    assert [block.clusters for block in blocks] == [4, 3]
    assert error.source == str(path)
    assert error.place == "record 8 (line 29)"
    assert problem in error.problem
    assert error.remedy.endswith((".", "`."))
    assert list(source) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "the file holds no reads"),
        (b"\n\n", "the file holds no reads"),
        (b">chr1\nACGT\n", "is not FASTQ: it is a FASTA file, which has no qualities"),
        (b"BAM\x01\0\0\0\0", "is not FASTQ: it is a BAM file"),
        (b"@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:5\n", "is not FASTQ: it is a SAM file"),
        (b"hello\n", "is not FASTQ: it begins with 'hello'"),
        (b"BZh91AY", "is not FASTQ: it is compressed with bzip2"),
        (b"@n\r\nACGTA\r\n+\r\nIIIII\r\n", "the line ends are those of Windows"),
        (b"@n\nACG\n+\nIII\n", "the read n has 3 bases, and the read structure says 5"),
        (b"@n\nACGTACG\n+\nIIIIIII\n", "the read n has 7 bases, and the read structure says 5"),
    ],
)
@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize("second", [False, True])
def test_what_does_not_fit_is_told_at_the_start(
    tmp_path: Path, pack: Pack, second: bool, text: bytes, problem: str
) -> None:
    path, good = tmp_path / "reads.fq.gz", tmp_path / "good.fq"
    path.write_bytes(pack(text))
    good.write_bytes(fastq(GOOD))
    with pytest.raises(InputError) as caught:
        FastqSource([[good, path] if second else [path]], structures("5T"))
    assert problem in caught.value.problem
    assert caught.value.source == str(path)
    assert caught.value.remedy


def test_missing_files_and_folders_are_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        FastqSource([[tmp_path / "absent.fq"]], structures("5T"))
    with pytest.raises(InputError, match="cannot be read"):
        FastqSource([[tmp_path]], structures("5T"))


def test_reads_and_structures_must_fit_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.fq"
    path.write_bytes(fastq(GOOD))
    with pytest.raises(InputError, match="2 read structures for FASTQ files of 1 reads"):
        FastqSource([[path]], structures("5T", "5T"))
    with pytest.raises(InputError, match="5 read structures, and a cluster has 1 to 4 reads"):
        FastqSource([[path]] * 5, structures(*["5T"] * 5))
    with pytest.raises(InputError, match="read 2 has no FASTQ files"):
        FastqSource([[path], []], structures("5T", "5T"))


def test_a_read_of_the_rest_must_have_its_fewest_bases(tmp_path: Path) -> None:
    path = tmp_path / "a.fq"
    path.write_bytes(fastq([*GOOD, ("short", "AC", "II")]))
    blocks, error = read_until_error(FastqSource([[path]], structures("3M+T")))
    assert [block.clusters for block in blocks] == [12]
    assert error.problem == "the read short has 2 bases, and the read structure says at least 3"
    assert error.place == "record 13 (line 49)"


@pytest.mark.parametrize("chunk_bytes", [1, 100_000])
def test_names_that_do_not_pair_are_an_error(tmp_path: Path, chunk_bytes: int) -> None:
    one, two = tmp_path / "1.fq", tmp_path / "2.fq"
    one.write_bytes(fastq([(f"{name}/1", *rest) for name, *rest in GOOD]))
    swapped = [*GOOD[:9], GOOD[10], GOOD[9], GOOD[11]]
    two.write_bytes(fastq([(f"{name}/2", *rest) for name, *rest in swapped]))
    blocks, error = read_until_error(
        FastqSource([[one], [two]], structures("5C", "5T"), clusters_per_block=4, chunk_bytes=chunk_bytes)
    )
    assert [block.clusters for block in blocks] == [4, 4, 1]
    assert str(error).startswith(f"{two}: record 10 (line 37): the name n10 does not pair with n9, record 10 of {one}.")


@pytest.mark.parametrize("short", [0, 1])
def test_unequal_numbers_of_records_are_an_error(tmp_path: Path, short: int) -> None:
    paths = [tmp_path / "1.fq", tmp_path / "2.fq"]
    for i, path in enumerate(paths):
        path.write_bytes(fastq(GOOD[:9] if i == short else GOOD))
    blocks, error = read_until_error(
        FastqSource([[path] for path in paths], structures("5C", "5T"), clusters_per_block=4)
    )
    assert [block.clusters for block in blocks] == [4, 4, 1]
    assert error.source == str(paths[short])
    assert error.problem.startswith(f"ends after 9 records, and {paths[1 - short]} has more")


def test_the_nearest_fault_is_told_first(tmp_path: Path) -> None:
    one, two = tmp_path / "1.fq", tmp_path / "2.fq"
    one.write_bytes(with_fault(b"@n7\nACXTA\n+\nIIIII\n"))
    two.write_bytes(with_fault(b"@n5\nACGT*\n+\nIIIII\n", 5))
    blocks, error = read_until_error(FastqSource([[one], [two]], structures("5C", "5T")))
    assert [block.clusters for block in blocks] == [5]
    assert (error.source, error.place) == (str(two), "record 6 (line 21)")


@pytest.mark.parametrize("pack", [pack_gzip, pack_bgzip])
@pytest.mark.parametrize("chunk_bytes", [1, 100, 1 << 18])
def test_a_truncated_gzip_file_gives_what_it_has_and_an_error(tmp_path: Path, pack: Pack, chunk_bytes: int) -> None:
    records = random_records(np.random.default_rng(3), 2000, 30)
    path = tmp_path / "a.fq.gz"
    whole = pack(fastq(records))
    path.write_bytes(whole[: len(whole) // 2])
    blocks, error = read_until_error(
        FastqSource([[path]], structures("30T"), clusters_per_block=100, chunk_bytes=chunk_bytes)
    )
    calls = joined(blocks)
    assert 700 < calls.shape[1] < 1300
    np.testing.assert_array_equal(calls, reference_calls([records])[:, : calls.shape[1]])
    assert "the compressed file is cut off" in error.problem
    assert error.place == place_of_record(calls.shape[1] + 1)


@pytest.mark.parametrize("chunk_bytes", [4, 1 << 18])
def test_a_wrong_checksum_or_damaged_data_are_an_error(tmp_path: Path, chunk_bytes: int) -> None:
    records = random_records(np.random.default_rng(3), 300, 30)
    path = tmp_path / "a.fq.gz"
    first, second = pack_gzip(fastq(records[:100])), pack_gzip(fastq(records[100:]))
    for place, problem in ((-6, "the checksum is wrong"), (-2, "the compressed data are damaged"), (30, "damaged")):
        damaged = bytearray(second)
        damaged[place] ^= 0xFF
        path.write_bytes(first + bytes(damaged))
        blocks, error = read_until_error(FastqSource([[path]], structures("30T"), chunk_bytes=chunk_bytes))
        calls = joined(blocks)
        assert calls.shape[1] >= 100
        np.testing.assert_array_equal(calls, reference_calls([records])[:, : calls.shape[1]])
        assert problem in error.problem
        assert error.place == place_of_record(calls.shape[1] + 1)


def test_rubbish_behind_a_gzip_member_is_an_error_and_zeros_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.fq.gz"
    path.write_bytes(pack_gzip(fastq(GOOD)) + b"\0" * 512)
    assert sum(block.clusters for block in FastqSource([[path]], structures("5T"))) == 12
    path.write_bytes(pack_gzip(fastq(GOOD)) + b"rubbish, and not a gzip member")
    blocks, error = read_until_error(FastqSource([[path]], structures("5T")))
    assert [block.clusters for block in blocks] == [12]
    assert "the compressed data are damaged" in error.problem


def test_closing_early_closes_the_files(tmp_path: Path) -> None:
    path = tmp_path / "a.fq"
    path.write_bytes(fastq(GOOD))
    with FastqSource([[path]], structures("5T"), clusters_per_block=2) as source:
        assert next(source).clusters == 2
        assert source.reads == 2


def parsed_by_dnaio(*paths: Path) -> NDArray[np.uint8]:
    reads: list[list[Record]] = []
    for path in paths:
        with dnaio.open(path, open_threads=0) as file:
            reads.append([(record.name, record.sequence, record.qualities or "") for record in file])
    return reference_calls(reads)


def test_real_visium_pairs_equal_an_independent_parse(real_data: Path) -> None:
    paths = [real_data / "rna_visium" / f"vy3C_10k_R{read}.fq.gz" for read in (1, 2)]
    source = open_fastq([[path] for path in paths], structures("16C12M", "90T"), clusters_per_block=4096)
    blocks = list(source)
    np.testing.assert_array_equal(joined(blocks), parsed_by_dnaio(*paths))
    assert source.reads == 10_000
    assert [block.clusters for block in blocks] == [4096, 4096, 1808]
    assert {(block.lane, block.tile) for block in blocks} == {(1, 1101)}


def test_real_fly_pairs_equal_an_independent_parse(real_data: Path) -> None:
    paths = [real_data / "reference_dm6" / f"sample1.tiny_R{read}.fastq.gz" for read in (1, 2)]
    blocks = list(open_fastq([[path] for path in paths], structures("+T", "+T"), clusters_per_block=20_000))
    np.testing.assert_array_equal(joined(blocks), parsed_by_dnaio(*paths))


def test_no_kernel_is_compiled_a_second_time(tmp_path: Path) -> None:
    for pack in PACKINGS:
        path = tmp_path / pack.__name__
        path.write_bytes(pack(fastq(random_records(np.random.default_rng(6), 30, 12))))
        for notation in ("12T", "+T"):
            list(FastqSource([[path], [path]], structures(notation, notation), clusters_per_block=8, skip_reads=3))
    for name in ("find_records", "fill_calls", "pair_names", "names_begin_with"):
        assert len(getattr(fastqbytes, name).signatures) == 1, name
