"""The reference is built from FASTA and GTF, saved, read back, and built anew when either changed."""

from __future__ import annotations

import gzip
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from cartoseq.analysis import reference as module
from cartoseq.analysis.kmerindex import EMPTY, MAX_POSTINGS, build_index, sampled_words
from cartoseq.analysis.reference import CONTIG_GAP, Reference, build_reference, open_reference, pack_text, read_fasta
from cartoseq.streaming.errors import InputError

GTF = 'one\tx\texon\t101\t200\t.\t+\t.\tgene_id "A"; transcript_id "A1";\n' + (
    'one\tx\texon\t301\t400\t.\t+\t.\tgene_id "A"; transcript_id "A1";\n'
)


def letters(rng: np.random.Generator, n: int) -> str:
    return "".join(rng.choice(list("ACGT"), n))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(3)
    fasta, gtf = tmp_path / "genome.fa", tmp_path / "genes.gtf"
    one = letters(rng, 1000)
    fasta.write_text(f">one first contig\n{one[:600]}\n{one[600:]}\n>two\nACGTNNNNacgtr{letters(rng, 300)}\n")
    gtf.write_text(GTF)
    return fasta, gtf


def saved_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.cartoseq-reference"))


def assert_same(a: Reference, b: Reference) -> None:
    for field in fields(Reference):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if field.name == "index":
            assert left.slots.tobytes() == right.slots.tobytes()
            assert left.postings.tobytes() == right.postings.tobytes()
            assert (left.k, left.sampling, left.junction_base) == (right.k, right.sampling, right.junction_base)
        elif isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, field.name
            assert left.tolist() == right.tolist(), field.name
        else:
            assert left == right, field.name


def test_contigs_lie_in_one_text_with_gaps_and_unknown_bases(files: tuple[Path, Path]) -> None:
    found = build_reference(*files)
    assert found.contig_names == ("one", "two")
    assert found.contig_lengths.tolist() == [1000, 313]
    two = int(found.contig_offsets[1])
    assert found.sequence(two, two + 13).tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 0, 1, 2, 3, 4]
    assert set(found.sequence(two - 200, two).tolist()) == {4}
    assert set(found.sequence(two + 313, two + 400).tolist()) == {4}
    contigs, places = found.contig_positions(np.array([two, two + 5, two - 3, CONTIG_GAP, CONTIG_GAP - 1], np.uint64))
    assert contigs.tolist() == [1, 1, 1, 0, 0]
    assert places.tolist() == [0, 5, -3, 0, -1]


def test_a_saved_reference_is_read_back_the_same(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    built = open_reference(*files)
    assert [path.name for path in saved_files(files[0].parent)] == ["genome.fa.genes.gtf.cartoseq-reference"]
    monkeypatch.setattr(module, "build_reference", None)
    assert_same(built, open_reference(*files))


def test_the_saved_bytes_depend_on_the_input_only(files: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    open_reference(*files, cache_folder=first)
    open_reference(*files, cache_folder=second)
    assert saved_files(first)[0].read_bytes() == saved_files(second)[0].read_bytes()


@pytest.mark.parametrize("which", [0, 1])
def test_a_changed_file_or_layout_is_built_anew(
    files: tuple[Path, Path], which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_reference(*files)
    text = files[which].read_text()
    files[which].write_text(
        text.replace("two", "TWO") if which == 0 else text.replace("A1", "A2").replace('"A"', '"Z"')
    )
    again = open_reference(*files)
    assert again.contig_names[1] == ("TWO" if which == 0 else "two")
    assert again.gene_ids.tolist() == (["A"] if which == 0 else ["Z"])
    assert len(saved_files(files[0].parent)) == 1
    monkeypatch.setattr(module, "LAYOUT_VERSION", 0)
    before = saved_files(files[0].parent)[0].read_bytes()
    open_reference(*files)
    assert saved_files(files[0].parent)[0].read_bytes() != before


@pytest.mark.parametrize("damage", ["flip", "cut", "junk"])
def test_a_damaged_saved_reference_is_built_anew(files: tuple[Path, Path], damage: str) -> None:
    built = open_reference(*files)
    path = saved_files(files[0].parent)[0]
    good = path.read_bytes()
    middle = len(good) // 2
    bad = {"flip": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :], "cut": good[:middle], "junk": b"x"}
    path.write_bytes(bad[damage])
    assert_same(built, open_reference(*files))
    assert path.read_bytes() == good


def test_a_folder_that_cannot_be_written_sends_the_index_to_the_users_cache(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(module.platformdirs, "user_cache_dir", lambda _name: str(cache))
    write = module.write_reference

    def refuse(path: Path, *rest: object) -> None:
        if path.parent == files[0].parent:
            raise PermissionError(13, "Permission denied")
        write(path, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(module, "write_reference", refuse)
    built = open_reference(*files)
    assert saved_files(files[0].parent) == []
    assert len(saved_files(cache / "references")) == 1
    monkeypatch.setattr(module, "build_reference", None)
    assert_same(built, open_reference(*files))


def test_a_genome_without_genes(files: tuple[Path, Path]) -> None:
    found = open_reference(files[0], None)
    assert not found.has_genes
    assert found.gene_ids.size == 0
    assert_same(found, open_reference(files[0], None))


def test_gzipped_fasta_is_read_and_names_end_at_white_space(tmp_path: Path) -> None:
    path = tmp_path / "g.fa.gz"
    path.write_bytes(gzip.compress(b">a b c\nACGT\n", mtime=0))
    names, sequences = read_fasta(path)
    assert names == ["a"]
    assert sequences[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"@r\nACGT\n+\nIIII\n", "is not FASTA"),
        (b"ACGT\n", "is not FASTA"),
        (b">a\nACGT\n>a\nACGT\n", "record 2: two contigs are named a"),
        (b">a\nAC?T\n", "contig a: '?' at base 3 is no nucleotide"),
        (b">a\n>b\nACGT\n", "contig a: found no sequence"),
        (b">\nACGT\n", "record 1: found a header without a name"),
        (gzip.compress(b">a\n" + b"ACGT" * 5000, mtime=0)[:-12], "the compressed file is cut off"),
    ],
)
def test_a_malformed_genome_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "genome.fa"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        build_reference(path, None)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_genome_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_reference(tmp_path / "none.fa", None)


def test_segments_say_which_genes_lie_where(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    genes = [(int(a), int(a + rng.integers(50, 900)), int(rng.integers(2))) for a in rng.integers(0, 9000, 30)]
    rows, covered = [], np.zeros((30, 2, 10000), bool)
    for g, (start, end, strand) in enumerate(genes):
        covered[g, 0, start:end] = True
        exons = [(start, start + 20), (end - 20, end)]
        for a, b in exons:
            covered[g, 1, a:b] = True
            rows.append(f'c\tx\texon\t{a + 1}\t{b}\t.\t{"+-"[strand]}\t.\tgene_id "{g:02d}";\n')
    (tmp_path / "g.fa").write_text(f">c\n{letters(rng, 10000)}\n")
    (tmp_path / "g.gtf").write_text("".join(rows))
    found = build_reference(tmp_path / "g.fa", tmp_path / "g.gtf")
    for position in range(0, 10000, 7):
        at = CONTIG_GAP + position
        segment = int(found.segment_of_block[at >> 7])
        while found.segments[segment + 1, 0] <= at:
            segment += 1
        entries = found.entries[found.segments[segment, 1] : found.segments[segment + 1, 1]].tolist()
        expected = [
            g * 4 + genes[g][2] * 2 + int(covered[g, 1, position]) for g in range(30) if covered[g, 0, position]
        ]
        assert sorted(entries) == expected


def test_the_seed_table_holds_every_word_with_its_places() -> None:
    rng = np.random.default_rng(8)
    codes = rng.integers(0, 4, 3000).astype(np.uint8)
    codes[500:560] = codes[100:160]  # a repeat
    codes[1000:1040] = 3 - codes[200:240][::-1]  # and one on the other strand
    codes[2000:2100] = 0  # a homopolymer, more often than lists are long
    codes[700] = 4
    text, unknown = np.zeros(100, np.uint64), np.full(50, 0xFFFFFFFFFFFFFFFF, np.uint64)
    pack_text(codes, 0, text, unknown)
    k = 13
    index = build_index(text, unknown, 3000, np.array([[600, 900]]), k, 1)
    words: dict[tuple[int, ...], list[int]] = {}
    flank = index.junction_stride // 2
    joined = np.concatenate([codes[600 - flank : 600], codes[900 : 900 + flank]])
    for base, sequence in ((0, codes), (3000, joined)):
        for i in range(sequence.size - k + 1):
            word = sequence[i : i + k]
            if (word < 4).all():
                plus, minus = tuple(word.tolist()), tuple((3 - word[::-1]).tolist())
                # The last base is most significant.
                key, strand = (plus, 0) if plus[::-1] < minus[::-1] else (minus, 1)
                words.setdefault(key, []).append((base + i) * 2 + strand)
    slots = index.slots[index.slots != EMPTY]
    assert slots.size == len(words)
    found = []
    for slot in slots.tolist():
        if slot >> 33 & 1:
            at = slot & 0xFFFFFFFF
            count = int(index.postings[at])
            found.append((index.postings[at + 1 : at + 1 + count].tolist(), slot >> 34 & 1))
        else:
            found.append(([(slot & 0xFFFFFFFF) * 2 + (slot >> 32 & 1)], 0))
    expected = [(places[:MAX_POSTINGS], int(len(places) > MAX_POSTINGS)) for places in words.values()]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("sampling", [1, 2, 4, 8])
def test_sampled_words_are_those_with_unlike_bases_around_their_middle_on_either_strand(sampling: int) -> None:
    pairs = sampling.bit_length() - 1
    rng = np.random.default_rng(3)
    share = 0.0
    for _ in range(200):
        codes = rng.integers(0, 4, 32).tolist()
        marks = [
            int(sampled_words(np.uint64(sum(code << 2 * i for i, code in enumerate(bases))), np.uint64(pairs)))
            for bases in (codes, [3 - code for code in reversed(codes)])
        ]
        words = 32 - 2 * pairs
        expected = [
            all((codes[m - d] ^ codes[m + d]) >> (d + 1) % 2 & 1 for d in range(1, pairs + 1))
            for m in range(pairs, pairs + words)
        ]
        for found, there in zip(marks, (expected, expected[::-1]), strict=True):
            assert found == sum(int(sampled) << 2 * j for j, sampled in enumerate(there))
        share += sum(expected) / words / 200
    assert share == pytest.approx(1 / sampling, rel=0.15)


def test_bits_tell_which_blocks_hold_unknown_bases_or_ends_of_introns() -> None:
    unknown = np.zeros(2000, np.uint64)
    unknown[[0, 31, 1600]] = [1, 1 << 63, 4]
    blocks = module.unknown_blocks(unknown)
    held = [b for b in range(blocks.size * 64) if int(blocks[b // 64]) >> b % 64 & 1]
    assert held == [0, 1, 100]
    introns = np.array([[127, 128], [9000, 100_000]])
    edges = module.intron_edges(introns, 120_000)
    held = [b for b in range(edges.size * 64) if int(edges[b // 64]) >> b % 64 & 1]
    assert held == [0, 1, 9000 // 128, 100_000 // 128]
    assert blocks.size * 64 > 2000 // 16 + 63
    assert edges.size * 64 > 120_000 // 128 + 63
