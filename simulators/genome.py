"""A reference: chromosomes, genes with introns on both strands, and the transcripts that reads are taken from.

Either made up (GC isochores, interspersed repeats, families of near-identical paralogs, so that a small genome poses
the questions of a large one) or read from a FASTA and a GTF. Sequences are codes 0-3 = A C G T, 4 = anything else.
One transcript per gene is expressed: its longest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.files import read_maybe_gzip, write_gzip
from cartoseq.simulators.kernel import kernel

BASES: Final = b"ACGTN"
#: Of a gene whose reads tell it from every other place in the reference.
UNIQUE: Final = 0
#: Of a gene that shares sequence (a paralog, a repeat) with another place.
SHARED_SEQUENCE: Final = 1
#: Of a gene with an exon that lies in an exon of another gene of the same strand.
OVERLAPPING: Final = 2
GENE_CLASSES: Final = ("unique", "shared_sequence", "overlapping")

#: Megabases of the human chromosomes 1 to 22 (GRCh38, rounded).
HUMAN_MBP: Final = (
    249, 242, 198, 190, 182, 171, 159, 145, 138, 134, 135, 133, 114, 107, 102, 90, 83, 80, 59, 64, 47, 51,
)  # fmt: skip

_CODE_OF_BYTE: Final = np.full(256, 4, dtype=np.uint8)
for _code, _letters in enumerate(("Aa", "Cc", "Gg", "Tt")):
    for _letter in _letters:
        _CODE_OF_BYTE[ord(_letter)] = _code
_COMPLEMENT: Final = np.array([3, 2, 1, 0, 4], dtype=np.uint8)
_WORD: Final = 25
_ATTRIBUTE: Final = re.compile(r'(\w+) "([^"]*)"')


@dataclass(frozen=True)
class Gene:
    """A gene and its expressed transcript.

    Attributes:
        gene_id: Identifier.
        name: Symbol.
        contig: Number of its chromosome.
        strand: 0 forward, 1 reverse.
        exons: Half-open intervals on the chromosome, 0-based, ascending, not overlapping.
    """

    gene_id: str
    name: str
    contig: int
    strand: int
    exons: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        """Bases of the spliced transcript."""
        return sum(end - start for start, end in self.exons)


@dataclass(frozen=True)
class Genome:
    """Chromosomes and genes.

    Attributes:
        contig_names: Name of each chromosome.
        contigs: Codes of each chromosome, uint8.
        genes: The genes, in the order of their numbers.
        gene_classes: ``UNIQUE``, ``SHARED_SEQUENCE`` or ``OVERLAPPING`` of each gene, uint8.
        families: Number of the paralog family that each gene was made in, -1 for none, int64.
        exons: Every exon of every annotated transcript: contig, start, end (half-open), int64, shape (n, 3).
    """

    contig_names: tuple[str, ...]
    contigs: tuple[NDArray[np.uint8], ...]
    genes: tuple[Gene, ...]
    gene_classes: NDArray[np.uint8]
    families: NDArray[np.int64]
    exons: NDArray[np.int64]

    def transcript(self, gene: int) -> NDArray[np.uint8]:
        """The spliced transcript of a gene, 5' to 3', codes."""
        return spliced(self.contigs[self.genes[gene].contig], self.genes[gene])


@dataclass(frozen=True)
class GenomeSettings:
    """How a genome is made up.

    Attributes:
        bases: Total length.
        contigs: Number of chromosomes, of decreasing length; 22 have the proportions of a human's.
        genes: Number of genes.
        repeat_share: Share of the genome that is interspersed repeats.
        paralog_share: Share of the genes that belong to a family of 2 or 3 with 95-99 % identity.
    """

    bases: int = 5_000_000
    contigs: int = 4
    genes: int = 500
    repeat_share: float = 0.10
    paralog_share: float = 0.10

    def __post_init__(self) -> None:
        if self.contigs < 1 or self.genes < 1:
            raise ValueError(f"{self.contigs} chromosomes with {self.genes} genes: both must be at least 1")
        if not 0 <= self.repeat_share <= 0.5 or not 0 <= self.paralog_share <= 1:
            raise ValueError(
                f"repeat_share {self.repeat_share} (0 to 0.5), paralog_share {self.paralog_share} (0 to 1)"
            )


def spliced(contig: NDArray[np.uint8], gene: Gene) -> NDArray[np.uint8]:
    """The exons of a gene joined and read in its direction."""
    joined = np.concatenate([contig[start:end] for start, end in gene.exons])
    return _COMPLEMENT[joined[::-1]] if gene.strand else joined


# --- made up ----------------------------------------------------------------------------------------------------------


def make_genome(settings: GenomeSettings, seed: int) -> Genome:
    """Make up a genome.

    Raises:
        ValueError: the genes do not fit into the bases.
    """
    rng = np.random.default_rng([seed, 202])
    weights = np.linspace(1.6, 0.7, settings.contigs)
    if settings.contigs == len(HUMAN_MBP):
        weights = np.array(HUMAN_MBP, dtype=np.float64)
    lengths = np.floor(settings.bases * weights / weights.sum()).astype(np.int64)
    contents = [_isochores(rng, int(length)) for length in lengths]
    contigs = [_random_bases(rng, content) for content in contents]
    _scatter_repeats(rng, contigs, settings.repeat_share)
    families = _draw_families(rng, settings)
    structures = _draw_structures(rng, families)
    genes = _place_genes(rng, structures, lengths)
    _write_exons(rng, contigs, contents, genes, families)
    names = tuple(f"chr{number + 1}" for number in range(settings.contigs))
    exons = np.array([(gene.contig, *exon) for gene in genes for exon in gene.exons], dtype=np.int64)
    return Genome(names, tuple(contigs), tuple(genes), classify_genes(contigs, genes), families, exons)


def _isochores(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """GC content of each base: segments of 50-200 kb between 36 and 58 %."""
    content = np.empty(length)
    start = 0
    while start < length:
        end = start + int(rng.integers(50_000, 200_000))
        content[start:end] = rng.uniform(0.36, 0.58)
        start = end
    return content


def _random_bases(rng: np.random.Generator, gc_content: NDArray[np.float64]) -> NDArray[np.uint8]:
    strong = rng.random(gc_content.size) < gc_content
    second = rng.integers(0, 2, gc_content.size, dtype=np.uint8)
    # A 0, T 3 are weak; C 1, G 2 are strong.
    return np.where(strong, 1 + second, 3 * second).astype(np.uint8)


def _substitute(rng: np.random.Generator, bases: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    changed = bases.copy()
    places = np.flatnonzero(rng.random(bases.size) < share)
    changed[places] = (changed[places] + rng.integers(1, 4, places.size, dtype=np.uint8)) % 4
    return changed


def _scatter_repeats(rng: np.random.Generator, contigs: list[NDArray[np.uint8]], share: float) -> None:
    """Paste copies of ten repeat families (0.3 to 3 kb, 5-15 % diverged, either strand) over the chromosomes."""
    total = sum(contig.size for contig in contigs)
    families = [_random_bases(rng, np.full(int(rng.integers(300, 3000)), 0.45)) for _ in range(10)]
    pasted = 0
    while pasted < share * total:
        copy = _substitute(rng, families[int(rng.integers(10))], rng.uniform(0.05, 0.15))
        if rng.random() < 0.5:
            copy = _COMPLEMENT[copy[::-1]]
        contig = contigs[int(rng.integers(len(contigs)))]
        if contig.size <= copy.size:
            copy = copy[: contig.size // 2]
        start = int(rng.integers(0, contig.size - copy.size + 1))
        contig[start : start + copy.size] = copy
        pasted += copy.size


def _draw_families(rng: np.random.Generator, settings: GenomeSettings) -> NDArray[np.int64]:
    """Family number of each gene, -1 for the genes that stand alone."""
    families = np.full(settings.genes, -1, dtype=np.int64)
    members = rng.permutation(settings.genes)[: round(settings.genes * settings.paralog_share)]
    start, family = 0, 0
    while members.size - start >= 2:
        size = 3 if members.size - start == 3 or rng.random() < 0.3 else 2
        families[members[start : start + size]] = family
        start, family = start + size, family + 1
    return families


def _draw_structures(rng: np.random.Generator, families: NDArray[np.int64]) -> list[tuple[list[int], list[int]]]:
    """Exon and intron lengths of each gene in the direction of transcription; a family shares its exon lengths."""
    exons_of_family: dict[int, list[int]] = {}
    structures = []
    for family in families.tolist():
        count = int(rng.integers(2, 9))
        exons = [int(length) for length in rng.integers(90, 300, count - 1)] + [int(rng.integers(400, 1000))]
        if family >= 0:
            exons = exons_of_family.setdefault(family, exons)
        introns = [int(length) for length in np.clip(rng.lognormal(6.2, 0.7, len(exons) - 1), 90, 3000)]
        structures.append((exons, introns))
    return structures


def _place_genes(
    rng: np.random.Generator, structures: Sequence[tuple[list[int], list[int]]], lengths: NDArray[np.int64]
) -> list[Gene]:
    """Lay the genes along the chromosomes in order, with random gaps of at least 200 bases between them."""
    spans = np.array([sum(exons) + sum(introns) for exons, introns in structures], dtype=np.int64)
    shares = np.concatenate([[0.0], np.cumsum(lengths) / lengths.sum()])
    bounds = np.round(shares * len(structures)).astype(np.int64)
    genes = []
    for contig, (first, last) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        count = last - first
        room = int(lengths[contig] - spans[first:last].sum() - 200 * (count + 1))
        if room < 0:
            raise ValueError(
                f"{count} genes of together {spans[first:last].sum():,} bases do not fit into a chromosome "
                f"of {lengths[contig]:,}: ask for fewer genes or more bases"
            )
        # Uneven gaps: gene-dense stretches and deserts.
        gaps = 200 + rng.multinomial(room, rng.dirichlet(np.full(count + 1, 1.5)))
        position = 0
        for number in range(first, last):
            position += int(gaps[number - first])
            genes.append(_lay_gene(number, contig, int(rng.integers(2)), position, *structures[number]))
            position += int(spans[number])
    return genes


def _lay_gene(number: int, contig: int, strand: int, start: int, exons: list[int], introns: list[int]) -> Gene:
    along, gaps = (exons[::-1], introns[::-1]) if strand else (exons, introns)
    intervals, position = [], start
    for place, length in enumerate(along):
        intervals.append((position, position + length))
        position += length + (gaps[place] if place < len(gaps) else 0)
    return Gene(f"CSG{number + 1:06d}", f"Gene{number + 1}", contig, strand, tuple(intervals))


def _write_exons(
    rng: np.random.Generator,
    contigs: list[NDArray[np.uint8]],
    contents: list[NDArray[np.float64]],
    genes: Sequence[Gene],
    families: NDArray[np.int64],
) -> None:
    """Give every gene an own transcript, free of repeats, or a diverged copy of its family's; introns are GT..AG."""
    founders: dict[int, NDArray[np.uint8]] = {}
    for gene, family in zip(genes, families.tolist(), strict=True):
        first = gene.exons[0][0]
        fresh = _random_bases(rng, np.full(gene.length, contents[gene.contig][first]))
        if family >= 0:
            founder = founders.setdefault(family, fresh)
            fresh = _substitute(rng, founder, rng.uniform(0.01, 0.05)) if founder is not fresh else fresh
        along = _COMPLEMENT[fresh[::-1]] if gene.strand else fresh
        contig, place = contigs[gene.contig], 0
        for start, end in gene.exons:
            contig[start:end] = along[place : place + end - start]
            place += end - start
        # GT..AG in the direction of transcription reads CT..AC from the other strand.
        left, right = ((1, 3), (0, 1)) if gene.strand else ((2, 3), (0, 2))
        for (_, end), (start, _) in zip(gene.exons[:-1], gene.exons[1:], strict=True):
            contig[end : end + 2] = left
            contig[start - 2 : start] = right


# --- files ------------------------------------------------------------------------------------------------------------


def write_genome(genome: Genome, fasta: Path, gtf: Path) -> None:
    """Write ``.fa.gz`` (60 bases a line) and ``.gtf.gz`` (gene, transcript, exon; 1-based, closed)."""
    letters = np.frombuffer(BASES, dtype=np.uint8)
    chunks = []
    for name, contig in zip(genome.contig_names, genome.contigs, strict=True):
        text = letters[contig].tobytes()
        lines = b"\n".join(text[start : start + 60] for start in range(0, len(text), 60))
        chunks.append(b">" + name.encode() + b"\n" + lines + b"\n")
    write_gzip(fasta, b"".join(chunks))
    write_gzip(gtf, "".join(_gtf_lines(genome)).encode())


def _gtf_lines(genome: Genome) -> list[str]:
    lines = []
    for gene in genome.genes:
        head, strand = f"{genome.contig_names[gene.contig]}\tcartoseq", "-" if gene.strand else "+"
        named = f'gene_id "{gene.gene_id}"; gene_name "{gene.name}";'
        transcript = f'gene_id "{gene.gene_id}"; transcript_id "{gene.gene_id}.1"; gene_name "{gene.name}";'
        span = f"{gene.exons[0][0] + 1}\t{gene.exons[-1][1]}"
        lines.append(f"{head}\tgene\t{span}\t.\t{strand}\t.\t{named}\n")
        lines.append(f"{head}\ttranscript\t{span}\t.\t{strand}\t.\t{transcript}\n")
        lines += [f"{head}\texon\t{start + 1}\t{end}\t.\t{strand}\t.\t{transcript}\n" for start, end in gene.exons]
    return lines


def read_genome(fasta: Path, gtf: Path) -> Genome:
    """Read a reference, gzipped or not; genes of contigs that the FASTA does not hold are left out.

    Raises:
        ValueError: no sequence, or no gene on any of the sequences.
    """
    names, contigs = [], []
    for record in read_maybe_gzip(fasta).split(b">")[1:]:
        header, _, sequence = record.partition(b"\n")
        names.append(header.split()[0].decode())
        contigs.append(_CODE_OF_BYTE[np.frombuffer(re.sub(rb"\s", b"", sequence), dtype=np.uint8)])
    if not contigs:
        raise ValueError(f"{fasta}: no sequence: a FASTA record starts with '>'")
    numbers = {name: number for number, name in enumerate(names)}
    genes, exons = _read_genes(read_maybe_gzip(gtf).decode(), numbers)
    if not genes:
        raise ValueError(f"{gtf}: no exon on any of the {len(names)} sequences of {fasta.name}")
    none = np.full(len(genes), -1, dtype=np.int64)
    return Genome(tuple(names), tuple(contigs), tuple(genes), classify_genes(contigs, genes), none, exons)


def _read_genes(text: str, contig_numbers: Mapping[str, int]) -> tuple[list[Gene], NDArray[np.int64]]:
    exons: dict[str, dict[str, list[tuple[int, int]]]] = {}
    places: dict[str, tuple[str, int, int]] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) < 9 or fields[2] != "exon" or fields[0] not in contig_numbers:
            continue
        attributes: dict[str, str] = dict(_ATTRIBUTE.findall(fields[8]))
        gene_id = attributes["gene_id"]
        name = attributes.get("gene_name") or attributes.get("gene_symbol") or gene_id
        places.setdefault(gene_id, (name, contig_numbers[fields[0]], int(fields[6] == "-")))
        transcript = exons.setdefault(gene_id, {}).setdefault(attributes.get("transcript_id", gene_id), [])
        transcript.append((int(fields[3]) - 1, int(fields[4])))
    genes = []
    for gene_id, transcripts in exons.items():
        # The longest; of equals the first by name.
        longest = min(transcripts.items(), key=lambda item: (-sum(end - start for start, end in item[1]), item[0]))[1]
        genes.append(Gene(gene_id, *places[gene_id], tuple(sorted(longest))))
    every = [
        (places[gene_id][1], *exon)
        for gene_id, transcripts in exons.items()
        for transcript in transcripts.values()
        for exon in transcript
    ]
    return genes, np.unique(np.array(every, dtype=np.int64).reshape(-1, 3), axis=0)


# --- which genes can be told apart ------------------------------------------------------------------------------------


def classify_genes(contigs: Sequence[NDArray[np.uint8]], genes: Sequence[Gene]) -> NDArray[np.uint8]:
    """Tell the genes whose every read names them from those that share sequence or exons with another place.

    A gene shares sequence if more than 2 % of the 25-base words of its transcript occur more than once in the genome,
    counting both strands (chance repeats of 25 bases are rarer than 1 in 10^6 in genomes of Mb).
    """
    words = np.sort(np.concatenate([_canonical_words(contig) for contig in contigs]))
    repeated = np.unique(words[1:][words[1:] == words[:-1]])
    classes = np.full(len(genes), UNIQUE, dtype=np.uint8)
    for number, gene in enumerate(genes):
        own = _canonical_words(spliced(contigs[gene.contig], gene))
        places = np.minimum(np.searchsorted(repeated, own), repeated.size - 1)
        if own.size and repeated.size and np.mean(repeated[places] == own) > 0.02:
            classes[number] = SHARED_SEQUENCE
    by_strand: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for number, gene in enumerate(genes):
        by_strand.setdefault((gene.contig, gene.strand), []).extend((*exon, number) for exon in gene.exons)
    for exons in by_strand.values():
        reach, owner = -1, -1
        for start, end, number in sorted(exons):
            if start < reach and number != owner:
                classes[number] = classes[owner] = OVERLAPPING
            if end > reach:
                reach, owner = end, number
    return classes


@kernel
def _scan_words(bases: NDArray[np.uint8], words: NDArray[np.uint64]) -> int:
    """Write the canonical words of ``bases`` into ``words`` and return how many there are."""
    top = np.uint64(2 * (_WORD - 1))
    mask = np.uint64((1 << (2 * _WORD)) - 1)
    forward = reverse = np.uint64(0)
    known = count = 0
    for place in range(bases.size):
        base = np.uint64(bases[place])
        if base > np.uint64(3):
            known = 0
            continue
        forward = ((forward << np.uint64(2)) | base) & mask
        reverse = (reverse >> np.uint64(2)) | ((np.uint64(3) - base) << top)
        known += 1
        if known >= _WORD:
            words[count] = min(forward, reverse)
            count += 1
    return count


def _canonical_words(bases: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Every 25-base word without an N, or its reverse complement if that is smaller, packed in 50 bits."""
    words = np.empty(max(bases.size - _WORD + 1, 0), dtype=np.uint64)
    return words[: _scan_words(bases, words)]
