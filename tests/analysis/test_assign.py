"""Templates find their genes and places: made genomes with known truth, and real reads beside other mappers."""

from __future__ import annotations

import csv
import gzip
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import dnaio
import numpy as np
import pytest
from numpy.typing import NDArray

from cartoseq.analysis.assign import (
    ANTISENSE,
    ASSIGNED,
    INTERGENIC,
    INTRONIC,
    MULTI_GENE,
    MULTI_MAPPED,
    NO_GENE,
    UNMAPPED,
    Assignments,
    AssignSettings,
    assign,
)
from cartoseq.analysis.reference import Reference, build_reference
from cartoseq.streaming.errors import InputError

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def calls_of(sequences: list[str]) -> NDArray[np.uint8]:
    """BCL bytes of reads, one column each, no-calls for N and beyond the end."""
    table = np.zeros(256, np.uint8)
    for code, letter in enumerate(b"ACGT"):
        table[letter] = code | 37 << 2
    longest = max(map(len, sequences))
    text = "".join(sequence.ljust(longest, "N") for sequence in sequences).encode()
    return np.ascontiguousarray(table[np.frombuffer(text, np.uint8).reshape(len(sequences), longest)].T)


def reverse_complement(sequence: str) -> str:
    return sequence.translate(COMPLEMENT)[::-1]


def letters(rng: np.random.Generator, n: int) -> str:
    return "".join(rng.choice(list("ACGT"), n))


def change(rng: np.random.Generator, sequence: str, rate: float) -> str:
    other = {"A": "CGT", "C": "AGT", "G": "ACT", "T": "ACG", "N": "N"}
    return "".join(str(rng.choice(list(other[c]))) if rng.random() < rate else c for c in sequence)


@dataclass
class World:
    """A genome of one contig of 60,000 bases, its genes, and the reference built from both."""

    genome: str
    reference: Reference

    def place(self, position: int) -> int:
        return int(self.reference.contig_offsets[0]) + position

    def gene(self, name: str) -> int:
        return self.reference.gene_ids.tolist().index(name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """FWD spliced at 1000-4000 (+); REV at 6000-9000 (-); two that overlap at 12000; paralogs; repeats."""
    rng = np.random.default_rng(21)
    genome = letters(rng, 60_000)
    paralog = change(rng, genome[20_000:21_000], 0.03)
    genome = genome[:30_000] + paralog + genome[31_000:]
    genome = genome[:40_000] + genome[22_000:22_500] + genome[40_500:]
    for copy in range(12):  # a repeat that is cut from the lists
        at = 45_000 + copy * 700
        genome = genome[:at] + genome[45_000:45_200] + genome[at + 200 :]
    genome = genome[:58_000] + "N" * 300 + genome[58_300:]
    exons = {
        ("FWD", "+"): [(1000, 1200), (2000, 2060), (3000, 4000)],
        ("REV", "-"): [(6000, 6500), (8000, 9000)],
        ("LEFT", "+"): [(12_000, 13_000)],
        ("RIGHT", "+"): [(12_600, 14_000)],
        ("PAR1", "+"): [(20_000, 21_000)],
        ("PAR2", "+"): [(30_000, 31_000)],
        ("SAME1", "+"): [(22_000, 22_500)],
        ("SAME2", "+"): [(40_000, 40_500)],
    }
    folder = tmp_path_factory.mktemp("world")
    (folder / "genome.fa").write_text(f">c\n{genome}\n>short\n{letters(rng, 150)}\n")
    with (folder / "genes.gtf").open("w") as gtf:
        for (name, strand), blocks in exons.items():
            for start, end in blocks:
                gtf.write(
                    f'c\tx\texon\t{start + 1}\t{end}\t.\t{strand}\t.\tgene_id "{name}"; transcript_id "{name}t";\n'
                )
    return World(genome, build_reference(folder / "genome.fa", folder / "genes.gtf"))


def one(world: World, sequence: str, settings: AssignSettings | None = None) -> tuple[int, int | None, int, int]:
    """Verdict, gene, contig position and strand of one read."""
    found = assign(calls_of([sequence]), world.reference, settings or AssignSettings())
    gene = None if found.genes[0] == NO_GENE else int(found.genes[0])
    return int(found.verdicts[0]), gene, int(found.positions[0]) - world.place(0), int(found.strands[0])


@pytest.mark.parametrize("length", [20, 32, 50, 100, 150])
def test_reads_of_any_length_get_gene_place_and_strand(world: World, length: int) -> None:
    g = world.genome
    assert one(world, g[3200 : 3200 + length]) == (ASSIGNED, world.gene("FWD"), 3200, 0)
    sense = reverse_complement(g[8200 : 8200 + length])
    assert one(world, sense) == (ASSIGNED, world.gene("REV"), 8200 + length - 1, 1)
    assert one(world, g[8200 : 8200 + length]) == (ANTISENSE, None, 8200, 0)
    assert one(world, g[1500 : 1500 + length]) == (INTRONIC, world.gene("FWD"), 1500, 0)
    assert one(world, g[16_000 : 16_000 + length]) == (INTERGENIC, None, 16_000, 0)
    unstranded = AssignSettings(strand="unstranded")
    assert one(world, g[8200 : 8200 + length], unstranded) == (ASSIGNED, world.gene("REV"), 8200, 0)
    reverse = AssignSettings(strand="reverse")
    assert one(world, g[8200 : 8200 + length], reverse) == (ASSIGNED, world.gene("REV"), 8200, 0)


def test_a_read_cut_at_any_cycle_keeps_its_place(world: World) -> None:
    calls = calls_of([world.genome[3300:3400], reverse_complement(world.genome[8500:8600])])
    for cycles in range(20, 101):
        found = assign(calls[:cycles], world.reference, AssignSettings())
        assert found.verdicts.tolist() == [ASSIGNED, ASSIGNED]
        assert found.positions.tolist() == [world.place(3300), world.place(8599)]


def test_spliced_reads_are_placed_wherever_the_junctions_lie(world: World) -> None:
    g = world.genome
    transcript = g[1000:1200] + g[2000:2060] + g[3000:4000]
    sequences, starts = [], []
    for length in (48, 100):
        for start in range(200 - length, 262):
            sequences.append(transcript[start : start + length])
            starts.append(1000 + start if start < 200 else 1800 + start if start < 260 else 2740 + start)
    found = assign(calls_of(sequences[:215]), world.reference, AssignSettings())
    found_long = assign(calls_of(sequences[215:]), world.reference, AssignSettings())
    verdicts = np.concatenate([found.verdicts, found_long.verdicts])
    genes = np.concatenate([found.genes, found_long.genes])
    assert (verdicts == ASSIGNED).mean() >= 0.98
    assert (genes[verdicts == ASSIGNED] == world.gene("FWD")).all()
    places = np.concatenate([found.positions, found_long.positions]).astype(np.int64) - world.place(0)
    # A few bases before a junction may be clipped; the place is then that of the next exon.
    assert (np.abs(places - np.array(starts)) <= 0).mean() >= 0.9


def test_genes_that_overlap_share_no_read(world: World) -> None:
    g = world.genome
    assert one(world, g[12_700:12_800])[0] == MULTI_GENE
    assert one(world, g[12_100:12_200])[:2] == (ASSIGNED, world.gene("LEFT"))
    assert one(world, g[13_500:13_600])[:2] == (ASSIGNED, world.gene("RIGHT"))
    # Forty of a hundred bases in the other gene are less than half.
    assert one(world, g[12_540:12_640])[:2] == (ASSIGNED, world.gene("LEFT"))


def test_half_of_the_bases_decide_between_exon_and_intron(world: World) -> None:
    g = world.genome
    assert one(world, g[1150:1250])[:2] == (ASSIGNED, world.gene("FWD"))
    assert one(world, g[1151:1251])[:2] == (INTRONIC, world.gene("FWD"))


def test_paralogs_are_told_apart_and_exact_repeats_are_not(world: World) -> None:
    g = world.genome
    rng = np.random.default_rng(2)
    starts = rng.integers(0, 900, 300)
    for first, name in ((20_000, "PAR1"), (30_000, "PAR2")):
        reads = [change(rng, g[first + s : first + s + 100], 0.006) for s in starts]
        found = assign(calls_of(reads), world.reference, AssignSettings())
        placed = found.verdicts == ASSIGNED
        assert placed.mean() > 0.85
        assert (found.genes[placed] == world.gene(name)).mean() >= 0.995
    for start in (22_100, 40_100, 45_020, 45_720):
        assert one(world, g[start : start + 100])[:2] == (MULTI_MAPPED, None)
    # Half in a repeat, half not: one place.
    assert one(world, g[22_450:22_550])[0] == ASSIGNED
    assert one(world, g[45_850:45_950])[0] == INTERGENIC


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_reads_with_a_gap_in_the_middle_are_rescued(world: World, size: int) -> None:
    g = world.genome
    lacking = g[3300:3350] + g[3350 + size : 3400 + size]
    adding = g[3300:3350] + "ACGTTGCA"[:size] + g[3350:3400]
    for sequence, span in ((lacking, 100 + size), (adding, 100)):
        assert one(world, sequence) == (ASSIGNED, world.gene("FWD"), 3300, 0)
        verdict, gene, position, strand = one(world, reverse_complement(sequence), AssignSettings(strand="reverse"))
        assert (verdict, gene, strand) == (ASSIGNED, world.gene("FWD"), 1)
        assert position == 3300 + span - 1


def test_tails_oligos_and_adapters_are_clipped_or_trimmed(world: World) -> None:
    g = world.genome
    oligo = "AAGCAGTGGTATCAACGCAGAGTACATGGG"
    fwd = world.gene("FWD")
    assert one(world, oligo + g[3300:3370]) == (ASSIGNED, fwd, 3270, 0)
    assert one(world, g[3300:3330] + "A" * 70) == (ASSIGNED, fwd, 3300, 0)
    assert one(world, g[3300:3330] + "A" * 70, AssignSettings(trim_poly_a=0, poly_a_mismatches=0))[0] == UNMAPPED
    adapter = "AGATCGGAAGAGCACACGTC"
    junk = letters(np.random.default_rng(5), 40)
    assert one(world, g[3300:3340] + adapter + junk)[0] == UNMAPPED
    assert one(world, g[3300:3340] + adapter + junk, AssignSettings(adapters=(adapter,))) == (ASSIGNED, fwd, 3300, 0)
    # The other strand: poly-T first, then the end of the transcript; the place counts the T's in.
    reverse = AssignSettings(strand="reverse")
    assert one(world, "T" * 60 + reverse_complement(g[3300:3340]), reverse) == (ASSIGNED, fwd, 3339 + 60, 1)
    found = assign(calls_of([oligo + g[3300:3370]]), world.reference, AssignSettings())
    assert int(found.aligned_from[0]) in (28, 29, 30)
    assert int(found.aligned_to[0]) == 100


def test_no_calls_and_unknown_bases_are_mismatches(world: World) -> None:
    g = world.genome
    read = g[3300:3340] + "NN" + g[3342:3400]
    found = assign(calls_of([read, read + "N" * 40]), world.reference, AssignSettings())
    assert found.verdicts.tolist() == [ASSIGNED, ASSIGNED]
    assert found.mismatches.tolist() == [2, 2]
    assert one(world, "N" * 100)[0] == UNMAPPED
    assert one(world, g[57_930:58_000] + letters(np.random.default_rng(1), 30))[0] == INTERGENIC
    assert one(world, "A" * 100, AssignSettings(trim_poly_a=0, poly_a_mismatches=0))[0] == UNMAPPED


def test_a_read_hanging_over_a_contigs_end_is_clipped(world: World) -> None:
    rng = np.random.default_rng(9)
    found = assign(calls_of([letters(rng, 20) + world.genome[:80]]), world.reference, AssignSettings(layer="dna"))
    assert found.verdicts[0] == ASSIGNED
    contigs, positions = world.reference.contig_positions(found.positions)
    assert contigs.tolist() == [0]
    assert positions.tolist() == [-20]


def test_random_reads_get_no_gene(world: World) -> None:
    rng = np.random.default_rng(13)
    reads = [letters(rng, 100) for _ in range(3000)]
    found = assign(calls_of(reads), world.reference, AssignSettings())
    assert (found.verdicts == UNMAPPED).all()
    assert (found.genes == NO_GENE).all()


def test_dna_knows_places_only_and_confidence_grows_with_uniqueness(world: World) -> None:
    g = world.genome
    reads = [g[3300:3400], g[22_100:22_200], g[20_100:20_200], letters(np.random.default_rng(3), 100)]
    found = assign(calls_of(reads), world.reference, AssignSettings(layer="dna"))
    assert found.verdicts.tolist() == [ASSIGNED, MULTI_MAPPED, ASSIGNED, UNMAPPED]
    assert (found.genes == NO_GENE).all()
    assert found.confidence[0] == 60
    assert found.confidence[1] == found.confidence[3] == 0
    assert 20 <= found.confidence[2] <= 60


def assert_same(a: Assignments, b: Assignments) -> None:
    for field in Assignments._fields:
        assert getattr(a, field).tolist() == getattr(b, field).tolist(), field


def test_blocks_and_threads_change_nothing(world: World) -> None:
    rng = np.random.default_rng(17)
    starts = rng.integers(0, 57_900, 6000)
    calls = calls_of([change(rng, world.genome[s : s + 60], 0.02) for s in starts])
    settings = AssignSettings()
    whole = assign(calls, world.reference, settings)
    cuts = [0, 1, 64, 777, 3000, 6000]
    parts = [np.ascontiguousarray(calls[:, a:b]) for a, b in pairwise(cuts)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda part: assign(part, world.reference, settings), parts))
    joined = Assignments(**{f: np.concatenate([getattr(p, f) for p in found]) for f in Assignments._fields})
    assert_same(whole, joined)
    assert assign(calls[:, :0], world.reference, settings).verdicts.size == 0


def test_impossible_requests_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 512"):
        assign(np.zeros((513, 1), np.uint8), world.reference, AssignSettings())
    (tmp_path / "g.fa").write_text(">a\nACGTACGTACGTACGTACGT\n")
    bare = build_reference(tmp_path / "g.fa", None)
    with pytest.raises(InputError, match="no genes"):
        assign(np.zeros((30, 1), np.uint8), bare, AssignSettings())
    for wrong in (
        {"min_aligned_fraction": 0.0},
        {"min_aligned_bases": 0},
        {"max_mismatch_rate": 1.0},
        {"min_score_difference": 0},
        {"trim_poly_a": 1},
        {"poly_a_mismatches": 9},
        {"adapters": ("ACGT",)},
        {"adapters": ("ACGTNACGT",)},
    ):
        with pytest.raises(InputError):
            AssignSettings(**wrong)  # type: ignore[arg-type]  # each is wrong in its own way


def read_fastq(path: Path) -> tuple[list[str], list[str]]:
    with dnaio.open(path, open_threads=0) as records:
        pairs = [(record.name.split()[0], record.sequence) for record in records]
    return [name for name, _ in pairs], [sequence for _, sequence in pairs]


@pytest.fixture(scope="module")
def fly(real_data: Path) -> Reference:
    folder = real_data / "reference_dm6"
    return build_reference(folder / "dm6.small.fa.gz", folder / "dm6.small.gtf.gz")


def test_real_fly_reads_find_one_place(real_data: Path, fly: Reference) -> None:
    for read in ("R1", "R2"):
        _, sequences = read_fastq(real_data / "reference_dm6" / f"sample1.tiny_{read}.fastq.gz")
        found = assign(calls_of(sequences), fly, AssignSettings(strand="unstranded"))
        assert len(sequences) == 10_100
        assert (found.verdicts != UNMAPPED).mean() >= 0.989  # STAR: 98.7 % unique
        assert np.isin(found.verdicts, [ASSIGNED, MULTI_GENE]).mean() >= 0.98


def test_real_fly_reads_lie_where_minimap2_puts_them(real_data: Path, fly: Reference, tmp_path: Path) -> None:
    program = shutil.which("minimap2")
    if program is None:
        pytest.skip("MINIMAP2 IS ABSENT: real reads are not compared with another mapper")
    folder = real_data / "reference_dm6"
    path = folder / "sample1.tiny_R1.fastq.gz"
    result = subprocess.run(
        [program, "-ax", "sr", "-k", "13", "-w", "3", "-s", "30", "-m", "15", folder / "dm6.small.fa.gz", path],
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = {}
    for line in result.stdout.splitlines():
        if not line.startswith("@"):
            name, flags, contig, position, quality, cigar = line.split("\t", 6)[:6]
            if not int(flags) & 0x904 and int(quality) >= 30 and cigar == "48M":
                theirs[name] = (contig, int(position) - 1, int(flags) >> 4 & 1)
    names, sequences = read_fastq(path)
    found = assign(calls_of(sequences), fly, AssignSettings(layer="dna"))
    contigs, places = fly.contig_positions(found.positions)
    ours = {
        name: (fly.contig_names[contigs[i]], int(places[i]) - 47 * int(found.strands[i]), int(found.strands[i]))
        for i, name in enumerate(names)
        if found.verdicts[i] == ASSIGNED
    }
    assert len(theirs) > 8000
    assert len(theirs.keys() & ours.keys()) >= 0.997 * len(theirs)
    common = theirs.keys() & ours.keys()
    assert sum(theirs[name] == ours[name] for name in common) >= 0.999 * len(common)


def test_transcripts_of_the_fly_with_errors_come_back_to_their_genes(real_data: Path, fly: Reference) -> None:
    """Reads of annotated transcripts, 0.6 % substitutions; the truth is every gene whose exons hold the read."""
    rng = np.random.default_rng(23)
    folder = real_data / "reference_dm6"
    with dnaio.open(folder / "dm6.small.fa.gz", open_threads=0) as records:
        genome = {record.name.split()[0]: record.sequence.upper() for record in records}
    transcripts: dict[str, tuple[str, str, str, list[tuple[int, int]]]] = {}
    with gzip.open(folder / "dm6.small.gtf.gz", "rt") as lines:
        for line in lines:
            columns = line.rstrip("\n").split("\t")
            values = dict(part.strip().split(" ", 1) for part in columns[8].strip().strip(";").split(";"))
            gene, name = values["gene_id"].strip('"'), values["transcript_id"].strip('"')
            transcripts.setdefault(name, (gene, columns[0], columns[6], []))[3].append(
                (int(columns[3]) - 1, int(columns[4]))
            )
    reads, genes, spliced = [], [], []
    for gene, contig, strand, exons in transcripts.values():
        exons.sort()
        sequence = "".join(genome[contig][a:b] for a, b in exons)
        joints = np.cumsum([b - a for a, b in exons])[:-1]
        for _ in range(20 if len(sequence) > 100 else 0):
            start = int(rng.integers(0, len(sequence) - 100))
            read = change(rng, sequence[start : start + 100], 0.006)
            reads.append(reverse_complement(read) if strand == "-" else read)
            genes.append(gene)
            spliced.append(bool(((joints > start) & (joints < start + 100)).any()))
    found = assign(calls_of(reads), fly, AssignSettings())
    truth, over = np.array(genes), np.array(spliced)
    placed = ~np.isin(found.verdicts, [UNMAPPED, MULTI_MAPPED])
    assert placed.mean() >= 0.98
    assert placed[over].mean() >= 0.98
    assigned = found.verdicts == ASSIGNED
    right = fly.gene_ids[np.where(assigned, found.genes, 0)] == truth
    decided = found.verdicts != MULTI_GENE
    assert (right & assigned)[decided].mean() >= 0.98
    assert (right & assigned)[decided & over].mean() >= 0.98
    assert right[assigned].mean() >= 0.999


def test_real_visium_reads_get_the_genes_that_starsolo_gives(real_data: Path) -> None:
    folder = real_data / "rna_visium"
    reference = build_reference(folder / "ref_mm_chrM_rRNA.fa", folder / "ref_mm_chrM_rRNA.gtf")
    names, sequences = read_fastq(folder / "vy3C_10k_R2.fq.gz")
    found = assign(calls_of(sequences), reference, AssignSettings())
    genes = {
        name: str(reference.gene_ids[gene])
        for name, gene, verdict in zip(names, found.genes, found.verdicts, strict=True)
        if verdict == ASSIGNED
    }
    with gzip.open(folder / "expected_starsolo" / "per_read.tsv.gz", "rt") as lines:
        expected = {row["read"]: row["gene"] for row in csv.DictReader(lines, delimiter="\t") if row["gene"] not in "-"}
    same = sum(genes.get(name) == gene for name, gene in expected.items())
    assert len(expected) > 3000
    assert same >= 0.99 * len(expected)
    assert sum(name in genes and genes[name] != gene for name, gene in expected.items()) <= 3
    assert len(genes.keys() - expected.keys()) <= 0.06 * len(expected)


def test_reads_that_are_not_wanted_change_nothing_for_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(77)
    codes = rng.integers(0, 4, 20_000).astype(np.uint8)
    fasta_like = "".join("ACGT"[code] for code in codes)
    (tmp_path / "genome.fa").write_text(f">a\n{fasta_like}\n")
    reference = build_reference(tmp_path / "genome.fa", None)
    starts = rng.integers(0, 19_900, 500)
    calls = np.ascontiguousarray((np.stack([codes[s : s + 100] for s in starts]) | (30 << 2)).astype(np.uint8).T)
    wanted = rng.random(500) < 0.5
    settings = AssignSettings(layer="dna")
    everything, some = assign(calls, reference, settings), assign(calls, reference, settings, wanted)
    assert (some.verdicts[~wanted] == UNMAPPED).all()
    for field in ("verdicts", "positions", "strands", "mismatches", "confidence"):
        assert np.array_equal(getattr(some, field)[wanted], getattr(everything, field)[wanted])
