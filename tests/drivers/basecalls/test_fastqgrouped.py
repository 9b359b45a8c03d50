"""Stereo-seq's grouped FASTQ: barcodes in hexadecimal digits in the read's name."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cartoseq.drivers.basecalls.fastq import FastqSource, open_fastq
from cartoseq.drivers.basecalls.groupednames import (
    CODECS,
    INVENTED_QUALITY,
    GroupedCodec,
    GroupedNames,
    detect_grouped_codec,
    pack_as_chip,
)
from cartoseq.drivers.basecalls.growing import Follow
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.readstructure import ReadStructure

# From the instrument maker's manual.
PUBLISHED = """@FP300000513L1C002R00400000218 CE242DF29A57 97D26
GTGTAGTGAACCCCATGGTAGTTTTCTGATTGTTGTTAAAAAAAATGACTTAACATATTACATGGACACTCAATAAAAATGTTTTATTTCCTGTTGAAAA
+
FFFFFFFFFFFF8FFFFFFFFFFFFF8FFFFFFFFF8FF8FFF8FFFFFFF,FFFFFFFFFFF8FFFFFF8F8F,F8FFFFFF,FFFFFFFFFF,FFF
"""


def structure(notation: str) -> ReadStructure:
    return ReadStructure.parse(notation)


def spelled(column: NDArray[np.uint8]) -> str:
    return "".join("ACGT"[call & 3] if call else "N" for call in column.tolist())


def slow_decode(digits: str, bases: int, codec: GroupedCodec) -> str:
    value = int(digits, 16)
    codes = [value // 4**k % 4 for k in range(bases)]
    letters = [codec.alphabet[code] for code in codes]
    return "".join(letters if codec.first_base_is_low else letters[::-1])


def encoded(sequence: str, codec: GroupedCodec) -> int:
    ordered = sequence[::-1] if codec.first_base_is_low else sequence
    value = 0
    for base in ordered:
        value = 4 * value + codec.alphabet.index(base)
    return value


def chip_code(sequence: str) -> int:
    return encoded(sequence, GroupedCodec("ACTG", True))


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_the_published_example_is_read_under_each_codec(tmp_path: Path, codec: GroupedCodec) -> None:
    path = tmp_path / "grouped.fq"
    name, bases, plus, qualities = PUBLISHED.splitlines()
    # As the manual prints it, the last two qualities are missing.
    path.write_text("\n".join((name, bases, plus, qualities.ljust(100, "F"))) + "\n")
    source = open_fastq([[path]], [structure("24C10M100T")], grouped=GroupedNames(codec, cid_length=24))
    assert source.read_lengths == (134,)
    (block,) = source
    assert (block.lane, block.tile, block.read_lengths) == (1, 2004, (134,))
    text = spelled(block.calls[:, 0])
    assert text[:24] == slow_decode("CE242DF29A57", 24, codec)
    assert text[24:34] == slow_decode("97D26", 10, GroupedCodec("ACGT", False)) == "GCCTTCAGCG"
    assert text[34:] == bases
    assert set((block.calls[:34, 0] >> 2).tolist()) == {INVENTED_QUALITY}
    assert (block.calls[34:47, 0] >> 2).tolist() == [37] * 12 + [23]
    assert codec.decode(int("CE242DF29A57", 16), 24) == text[:24]


def test_the_real_excerpt_is_the_published_example(real_data: Path) -> None:
    assert PUBLISHED in (real_data / "gem_stereoseq" / "stereoseq_format_examples.txt").read_text()


def test_the_golden_barcodes_of_a_chip_are_read(tmp_path: Path) -> None:
    path = tmp_path / "grouped.fq"
    path.write_text(f"@L1C001R001x {100904410303266:X} 6B507\nACG\n+\nIII\n")
    (block,) = open_fastq([[path]], [structure("25C10M3T")], grouped=GroupedNames(GroupedCodec.parse("ACTG-first-low")))
    assert spelled(block.calls[:, 0]) == "TATAGTACATATGATTCCAGGTCCACGGTCCAACTACG"


def test_dropped_leading_zeros_and_the_names_of_cleaned_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "grouped.fq"
    path.write_text(
        "@E1L1C001R0011 166620F16A075 C2DA3\nA\n+\nI\n"
        "@E1L1C001R0012|Cx:i:9028|Cy:i:15069 12C942003C10 7C7BE\nA\n+\nI\n"
        "@E1L1C001R0013 0 ecd\nA\n+\nI\n"
    )
    codec = GroupedCodec("ACTG", True)
    (block,) = open_fastq([[path]], [structure("25C10M1T")], grouped=GroupedNames(codec))
    golden = GroupedCodec("ACGT", False)
    assert [spelled(block.calls[:, i]) for i in range(3)] == [
        slow_decode("166620F16A075", 25, codec) + slow_decode("C2DA3", 10, golden) + "A",
        slow_decode("12C942003C10", 25, codec) + slow_decode("7C7BE", 10, golden) + "A",
        "A" * 25 + slow_decode("00ECD", 10, golden) + "A",
    ]


@pytest.mark.parametrize("notation", ["25C10M+T", "25C10M12T"])
@pytest.mark.parametrize("chunk_bytes", [1, 64, 1 << 18])
def test_many_reads_of_the_grouped_form_come_out_as_they_went_in(
    tmp_path: Path, notation: str, chunk_bytes: int
) -> None:
    rng = np.random.default_rng(4)
    codec = GroupedCodec("ACGT", True)
    rows = []
    for _ in range(50):
        length = 12 if notation.endswith("12T") else int(rng.integers(0, 13))
        rows.append(tuple("".join(rng.choice(list("ACGT"), n)) for n in (25, 10, length)))
    text = "".join(
        f"@r{i} {encoded(cid, codec):X} {encoded(mid, GroupedCodec('ACGT', False)):X}\n{bases}\n+\n{'I' * len(bases)}\n"
        for i, (cid, mid, bases) in enumerate(rows)
    )
    path = tmp_path / "grouped.fq.gz"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    source = FastqSource(
        [[path]], [structure(notation)], grouped=GroupedNames(codec), clusters_per_block=20, chunk_bytes=chunk_bytes
    )
    found = [spelled(block.calls[:, i]).rstrip("N") for block in source for i in range(block.clusters)]
    assert found == ["".join(row) for row in rows]


@pytest.mark.parametrize("name", ["x", "x 1234", "x 123G 1", "x 1 123456", "x FFFFFFFFFFFFF 1", "x 00000000000000 1"])
def test_names_without_barcodes_are_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "grouped.fq"
    path.write_text("@n 1 1\nACG\n+\nIII\n" * 2 + f"@{name}\nACG\n+\nIII\n" + "@n 1 1\nACG\n+\nIII\n")
    source = open_fastq([[path]], [structure("25C10M3T")], grouped=GroupedNames(CODECS[0]))
    assert next(source).clusters == 2
    with pytest.raises(InputError, match=rf"record 3 \(line 9\): the name '{name}' does not end in the hexadecimal"):
        next(source)


def test_a_read_of_the_wrong_length_is_named_by_its_length_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "grouped.fq"
    path.write_text("@n 1 1\nACGT\n+\nIIII\n")
    with pytest.raises(InputError, match="the read n 1 1 has 4 bases, and the read structure says 3"):
        open_fastq([[path]], [structure("25C10M3T")], grouped=GroupedNames(CODECS[0]))


def test_the_read_structure_must_begin_with_the_barcodes_of_the_name(tmp_path: Path) -> None:
    path = tmp_path / "grouped.fq"
    path.write_text(PUBLISHED)
    for notation in ("100T", "24C10M100T", "25C", "10M25C100T"):
        with pytest.raises(InputError, match="the names hold 25C10M, so the read structure must begin with that"):
            open_fastq([[path]], [structure(notation)], grouped=GroupedNames(CODECS[0]))
    with pytest.raises(InputError, match="one read, and here are several"):
        open_fastq([[path], [path]], [structure("25C10M100T"), structure("100T")], grouped=GroupedNames(CODECS[0]))


def test_codecs_are_written_and_read_as_configuration() -> None:
    assert [str(codec) for codec in CODECS] == [
        "ACTG-first-low",
        "ACTG-first-high",
        "ACGT-first-low",
        "ACGT-first-high",
    ]
    assert [GroupedCodec.parse(str(codec)) for codec in CODECS] == list(CODECS)
    with pytest.raises(InputError, match="It must be one of ACTG-first-low, ACTG-first-high"):
        GroupedCodec.parse("ACTG")
    with pytest.raises(InputError, match="ACTG or ACGT"):
        GroupedCodec("GATC", True)
    with pytest.raises(InputError, match="the CID has 33 bases"):
        GroupedNames(CODECS[0], cid_length=33)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_barcodes_of_names_are_packed_as_the_chip_has_them(codec: GroupedCodec) -> None:
    sequences = ["".join(np.random.default_rng(i).choice(list("ACGT"), 25)) for i in range(20)]
    values = np.array([encoded(sequence, codec) for sequence in sequences], dtype=np.uint64)
    assert pack_as_chip(values, 25, codec).tolist() == [chip_code(sequence) for sequence in sequences]


def grouped_library(
    folder: Path, codec: GroupedCodec, length: int, on_chip: float
) -> tuple[list[Path], Callable[[NDArray[np.uint64]], float]]:
    """Two files of 6,000 reads each, and how many of their CIDs a chip of 5,000 spots has."""
    rng = np.random.default_rng(5)
    chip = ["".join(row) for row in rng.choice(list("ACGT"), (5000, length))]
    codes = np.array([chip_code(sequence) for sequence in chip], dtype=np.uint64)
    paths = []
    for number in range(2):
        lines = []
        for i in range(6000):
            sequence = chip[rng.integers(5000)] if rng.random() < on_chip else "".join(rng.choice(list("ACGT"), length))
            lines.append(f"@r{i} {encoded(sequence, codec):X} 1\nA\n+\nI\n")
        paths.append(folder / f"{number}.fq.gz")
        paths[-1].write_bytes(gzip.compress("".join(lines).encode(), 1, mtime=0))
    seen: list[int] = []

    def hit_rate(cids: NDArray[np.uint64]) -> float:
        seen.append(cids.size)
        assert seen[-1] == 10_000
        return float(np.isin(cids, codes).mean())

    return paths, hit_rate


@pytest.mark.parametrize("length", [24, 25])
@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_the_codec_is_found_by_the_barcodes_on_the_chip(tmp_path: Path, codec: GroupedCodec, length: int) -> None:
    paths, hit_rate = grouped_library(tmp_path, codec, length, 0.5)
    assert detect_grouped_codec(paths, hit_rate, cid_length=length) == codec


def test_no_codec_is_guessed_if_the_chip_is_not_of_the_library(tmp_path: Path) -> None:
    paths, hit_rate = grouped_library(tmp_path, CODECS[0], 25, 0.0)
    with pytest.raises(InputError, match="no reading of the CIDs in the names fits this chip"):
        detect_grouped_codec(paths, hit_rate)


def test_no_codec_is_guessed_between_two(tmp_path: Path) -> None:
    path = tmp_path / "grouped.fq"
    path.write_text("@n 0 0\nA\n+\nI\n" * 5)
    with pytest.raises(InputError, match="no reading of the CIDs"):
        detect_grouped_codec([path], lambda cids: float(np.mean(cids == np.uint64(0))))
    path.write_text("@n\nA\n+\nI\n")
    with pytest.raises(InputError, match=r"record 1 \(line 1\): the name 'n' does not end"):
        detect_grouped_codec([path], lambda _: 1.0)


def test_the_codec_of_files_that_grow_is_found_when_their_first_reads_are_there(tmp_path: Path) -> None:
    paths, hit_rate = grouped_library(tmp_path, CODECS[3], 25, 0.5)
    whole = gzip.decompress(paths[0].read_bytes()) + gzip.decompress(paths[1].read_bytes())
    growing, later, marker = tmp_path / "growing.fq", tmp_path / "later.fq", tmp_path / "finished"
    waits = []

    def sleep(_: float) -> None:
        # At first there is no file, then half of the reads, then all; the marker never comes.
        waits.append(len(waits))
        growing.write_bytes(whole[: len(whole) * len(waits) // 3])

    follow = Follow(marker, sleep=sleep)
    assert detect_grouped_codec([growing, later], hit_rate, follow=follow) == CODECS[3]
    assert 1 < len(waits) <= 3
