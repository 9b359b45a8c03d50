"""The reference: genome, genes and seed index, built once from FASTA and GTF and kept beside the genome.

All contigs lie in one *text* of 2 bits a base, with CONTIG_GAP unknown bases before, between and after them. A *global
position* is a place in this text: `contig_offsets[c] + position` (0-based) is base `position` of contig c. Unknown
bases (N and other ambiguity codes) are never seeds and mismatch everything.

Genes are looked up by *segments*: the text is cut wherever an exon or a gene begins or ends, so that every segment lies
in one fixed set of genes; `segment_of_block` leads to the segment of each 128th base.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import platformdirs
from numpy.typing import NDArray

from cartoseq.analysis.alignment import INTRON_BLOCK_SHIFT
from cartoseq.analysis.filefaults import COPY_AGAIN, gzip_fault
from cartoseq.analysis.kmerindex import KmerIndex, build_index
from cartoseq.analysis.referencefile import read_reference, write_reference
from cartoseq.streaming.errors import CartoseqError, DiskError, InputError
from cartoseq.streaming.kernel import kernel

if TYPE_CHECKING:
    from cartoseq.analysis.annotation import Annotation

LAYOUT_VERSION: Final = 3
"""Raised whenever the arrays or what they mean change: an older saved index is then built anew."""
NO_GENE: Final = np.uint32(0xFFFFFFFF)
CONTIG_GAP: Final = 1024
"""Unknown bases around each contig: no read (at most 512 bases) reaches from one contig into the next."""
MAX_TEXT: Final = 2**32 - 2**26
"""Bases of all contigs with their gaps; the rest of 32 bits is for the words of junctions."""
BLOCK_SHIFT: Final = 7
UNKNOWN_BLOCK_SHIFT: Final = 10
_IN_FASTA: Final = "Give the genome in FASTA, plain or compressed with gzip."

_CODES: Final = np.full(256, 255, dtype=np.uint8)
for _letter in b"RYSWKMBDHVNUryswkmbdhvnu.-*":
    _CODES[_letter] = 4
for _code, _pair in enumerate((b"Aa", b"Cc", b"Gg", b"Tt")):
    for _letter in _pair:
        _CODES[_letter] = _code
for _letter in b"Uu":
    _CODES[_letter] = 3


@dataclass(frozen=True)
class Reference:
    """A genome with its genes, ready to place reads; read-only, shared by threads.

    Attributes:
        contig_names: Names in the order of the FASTA file.
        contig_lengths: Bases of each, int64.
        contig_offsets: Global position of each contig's first base, int64.
        gene_ids: dtype str; empty for a genome without genes.
        gene_names: The names to show, dtype str.
        has_genes: Whether an annotation was given.
        skipped_rows: Annotation rows on contigs that the genome does not have.
        skipped_contigs: Names of those contigs.
        text: The genome, uint64, 32 bases a word, the first base least significant, A0 C1 G2 T3.
        unknown: One bit per base, set where the base is not known, uint64.
        unknown_blocks: One bit for each block of 1,024 bases, set if it holds an unknown base, uint64.
        bases: Length of the text.
        index: Seeds.
        intron_starts: Annotated introns in the text, half-open, sorted by start; int64.
        intron_ends: Their ends.
        introns_by_end: Order of the introns by end; int64.
        intron_start_of_block: First intron that starts in each block of 2,048 bases or later, uint32.
        intron_end_of_block: First in `introns_by_end` that ends there or later, uint32.
        intron_edges: One bit per 128 bases, set where an intron starts or ends among them, uint64.
        segments: Global position where each segment starts, and its first entry; one more at the end; int64, shape
            (segments + 1, 2).
        entries: gene * 4 + strand * 2 + exonic of each gene in a segment, uint64.
        segment_of_block: Segment of each 128th base, uint32.
    """

    contig_names: tuple[str, ...]
    contig_lengths: NDArray[np.int64]
    contig_offsets: NDArray[np.int64]
    gene_ids: NDArray[np.str_]
    gene_names: NDArray[np.str_]
    has_genes: bool
    skipped_rows: int
    skipped_contigs: tuple[str, ...]
    text: NDArray[np.uint64]
    unknown: NDArray[np.uint64]
    unknown_blocks: NDArray[np.uint64]
    bases: int
    index: KmerIndex
    intron_starts: NDArray[np.int64]
    intron_ends: NDArray[np.int64]
    introns_by_end: NDArray[np.int64]
    intron_start_of_block: NDArray[np.uint32]
    intron_end_of_block: NDArray[np.uint32]
    intron_edges: NDArray[np.uint64]
    segments: NDArray[np.int64]
    entries: NDArray[np.uint64]
    segment_of_block: NDArray[np.uint32]

    def contig_positions(self, positions: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return contig number and 0-based position of global positions.

        A position in the gap before or after a contig (a clipped read's end may lie there) gives that contig and a
        position below 0 or beyond its length.

        Args:
            positions: Global positions, shape (n,).
        """
        places = positions.astype(np.int64)
        contigs = np.searchsorted(self.contig_offsets - CONTIG_GAP // 2, places, side="right") - 1
        contigs = np.maximum(contigs, 0)
        return contigs, places - self.contig_offsets[contigs]

    def sequence(self, start: int, end: int) -> NDArray[np.uint8]:
        """Return base codes (A0 C1 G2 T3, 4 unknown) of the text from one global position to another.

        Args:
            start: First position.
            end: One beyond the last.
        """
        return self.bases_at(np.arange(start, end, dtype=np.uint64))

    def bases_at(self, positions: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Return base codes (A0 C1 G2 T3, 4 unknown) at global positions.

        Args:
            positions: Global positions within the text, shape (n,).
        """
        at = positions
        codes = (self.text[at >> np.uint64(5)] >> ((at & np.uint64(31)) << np.uint64(1))) & np.uint64(3)
        lost = (self.unknown[at >> np.uint64(6)] >> (at & np.uint64(63))) & np.uint64(1)
        return np.where(lost == 1, 4, codes).astype(np.uint8)


def open_reference(genome: Path, genes: Path | None, *, cache_folder: Path | None = None) -> Reference:
    """Return the reference of a genome and its genes: the saved index where it is still true, else built and saved.

    The index is kept in `cache_folder`, or beside the genome, or, where that cannot be written, in the user's cache
    folder. It is true while both files have the content that it was built from and the layout is the same.

    Args:
        genome: FASTA file, gzipped or not.
        genes: GTF file, gzipped or not; None for a genome without genes (DNA).
        cache_folder: Where to keep the index.

    Raises:
        InputError: a file is missing, damaged or malformed, or the two do not fit.
    """
    genome, genes = Path(genome), None if genes is None else Path(genes)
    key = _content_key(genome, genes)
    folders = _folders(genome, cache_folder)
    name = f"{genome.name}.{'dna' if genes is None else genes.name}.cartoseq-reference"
    unique = hashlib.sha256(str(genome.resolve().parent).encode()).hexdigest()[:12]
    paths = [folder / (name if folder == genome.parent else f"{unique}.{name}") for folder in folders]
    for path in paths:
        saved = read_reference(path, key)
        if saved is not None:
            return _from_saved(*saved)
    reference = build_reference(genome, genes)
    for number, path in enumerate(paths):
        try:
            write_reference(path, key, *_to_saved(reference))
        except OSError as error:
            if number + 1 == len(paths):
                raise DiskError(f"{path}: the reference index cannot be saved ({error.strerror})") from error
        else:
            break
    return reference


def build_reference(genome: Path, genes: Path | None) -> Reference:
    """Build the reference without looking for a saved one, and without saving it.

    Args:
        genome: FASTA file, gzipped or not.
        genes: GTF file, or None.

    Raises:
        InputError: a file is missing, damaged or malformed, or the two do not fit.
    """
    names, sequences = read_fasta(genome)
    lengths = np.array([sequence.size for sequence in sequences], dtype=np.int64)
    padded = -(-(lengths + CONTIG_GAP) // 64) * 64
    offsets = np.concatenate(([CONTIG_GAP], CONTIG_GAP + np.cumsum(padded)))
    bases = int(offsets[-1])
    if bases > MAX_TEXT:
        raise InputError(
            genome,
            f"has {int(lengths.sum()):,} bases in {len(names):,} contigs; at most {MAX_TEXT:,} with "
            f"{CONTIG_GAP:,} more per contig can be indexed",
            remedy="Leave out contigs that are not needed.",
        )
    text = np.zeros(bases // 32 + 2, dtype=np.uint64)
    unknown = np.full(bases // 64 + 2, 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    for offset, sequence in zip(offsets, sequences, strict=False):
        pack_text(sequence, int(offset), text, unknown)
    del sequences
    blocks = unknown_blocks(unknown)
    from cartoseq.analysis.annotation import read_annotation  # polars takes a quarter of a second to import

    annotation = None if genes is None else read_annotation(genes, names, lengths.tolist())
    introns = np.empty((0, 2), np.int64)
    if annotation is not None and annotation.introns.size:
        introns = np.unique(annotation.introns[:, 1:] + offsets[annotation.introns[:, 0], None], axis=0)
    k, sampling = seed_plan(int(lengths.sum()))
    index = build_index(text, unknown, bases, introns, k, sampling)
    segments, entries, of_block = _segments(annotation, offsets, bases)
    return Reference(
        contig_names=tuple(names),
        contig_lengths=lengths,
        contig_offsets=offsets[:-1].copy(),
        gene_ids=np.array([], np.str_) if annotation is None else annotation.gene_ids,
        gene_names=np.array([], np.str_) if annotation is None else annotation.gene_names,
        has_genes=annotation is not None,
        skipped_rows=0 if annotation is None else annotation.skipped_rows,
        skipped_contigs=() if annotation is None else annotation.skipped_contigs,
        text=text,
        unknown=unknown,
        unknown_blocks=blocks,
        bases=bases,
        index=index,
        intron_starts=np.ascontiguousarray(introns[:, 0]),
        intron_ends=np.ascontiguousarray(introns[:, 1]),
        introns_by_end=np.argsort(introns[:, 1], kind="stable").astype(np.int64),
        intron_start_of_block=_first_of_blocks(introns[:, 0], bases),
        intron_end_of_block=_first_of_blocks(np.sort(introns[:, 1]), bases),
        intron_edges=intron_edges(introns, bases),
        segments=segments,
        entries=entries,
        segment_of_block=of_block,
    )


def seed_plan(bases: int) -> tuple[int, int]:
    """Return k and sampling for a genome: words rare by chance, yet dense enough for reads of 20-32 bases.

    Args:
        bases: Bases of the genome.
    """
    if bases <= 1_000_000:
        return 13, 1
    if bases <= 16_000_000:
        return 15, 2
    if bases <= 512_000_000:
        return 19, 4
    return 21, 8


def read_fasta(path: Path) -> tuple[list[str], list[NDArray[np.uint8]]]:
    """Return contig names (the first word of each header) and sequences as codes A0 C1 G2 T3, 4 unknown.

    Args:
        path: FASTA file, gzipped or not.

    Raises:
        InputError: the file is missing, empty, cut short, not FASTA, or names a contig twice.
    """
    import dnaio

    names: dict[str, int] = {}
    sequences: list[NDArray[np.uint8]] = []
    _check_fasta_start(path)
    try:
        with dnaio.open(path, fileformat="fasta", open_threads=0) as records:
            for record in records:
                name = record.name.split(maxsplit=1)[0] if record.name.strip() else ""
                place = f"record {len(names) + 1}"
                if not name:
                    raise InputError(path, "found a header without a name", place=place, remedy=_IN_FASTA)
                if name in names:
                    remedy = "Rename one of them, or leave it out if it is the same."
                    raise InputError(path, f"two contigs are named {name}", place=place, remedy=remedy)
                codes = _CODES[np.frombuffer(record.sequence.encode("latin-1", "replace"), np.uint8)]
                if (codes == 255).any():
                    at = int(np.argmax(codes == 255))
                    problem = f"{record.sequence[at]!r} at base {at + 1:,} is no nucleotide"
                    raise InputError(path, problem, place=f"contig {name}", remedy=_IN_FASTA)
                if codes.size == 0:
                    remedy = "Copy the file again, or leave the contig out."
                    raise InputError(path, "found no sequence", place=f"contig {name}", remedy=remedy)
                names[name] = len(names)
                sequences.append(codes)
    except dnaio.FastaFormatError as error:
        where = f"line {error.line + 1}" if isinstance(error.line, int) else ""
        raise InputError(path, f"is not FASTA: {error}", place=where, remedy=_IN_FASTA) from None
    except CartoseqError:
        raise
    except (EOFError, OSError, ValueError, UnicodeDecodeError) as error:
        raise InputError(path, gzip_fault(error), remedy=COPY_AGAIN) from None
    return list(names), sequences


def _check_fasta_start(path: Path) -> None:
    """Refuse what is missing, empty or clearly something else, before a parser's message hides it."""
    try:
        with path.open("rb") as file:
            head = file.read(2)
    except FileNotFoundError:
        raise InputError(path, "there is no such file", remedy="Check the path.") from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", remedy="Check its permissions.") from None
    if not head:
        raise InputError(path, "the file is empty", remedy="Copy or download it again.")
    if head == b"\x1f\x8b":
        return
    if head[:1] not in b">;\n\r":
        problem = f"is not FASTA: expected '>' at the start, found {head[:1].decode('latin-1')!r}"
        raise InputError(path, problem, remedy=_IN_FASTA)


def _content_key(genome: Path, genes: Path | None) -> str:
    """Return a hash of what the index is made of: both files' content and the layout."""
    digest = hashlib.sha256(f"layout {LAYOUT_VERSION}".encode())
    for path in (genome, genes):
        if path is None:
            digest.update(b"no genes")
            continue
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError:
            raise InputError(path, "there is no such file", remedy="Check the path.") from None
        except OSError as error:
            raise InputError(path, f"cannot be read: {error.strerror}", remedy="Check its permissions.") from None
    return digest.hexdigest()


def _folders(genome: Path, cache_folder: Path | None) -> list[Path]:
    if cache_folder is not None:
        return [Path(cache_folder)]
    return [genome.parent, Path(platformdirs.user_cache_dir("cartoseq")) / "references"]


def _segments(
    annotation: Annotation | None, offsets: NDArray[np.int64], bases: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint32]]:
    """Cut the text at every end of a gene or an exon; return segments, entries, and segment of blocks."""
    if annotation is None:
        parts = np.empty((0, 5), np.int64)
        exonic = np.empty(0, np.int64)
    else:
        parts = np.concatenate([annotation.spans, annotation.exons])
        exonic = np.repeat(np.array([0, 1]), [len(annotation.spans), len(annotation.exons)])
    begins = parts[:, 3] + offsets[parts[:, 1]]
    ends = parts[:, 4] + offsets[parts[:, 1]]
    starts = np.unique(np.concatenate([[0], begins, ends])).astype(np.int64)
    low, high = np.searchsorted(starts, begins), np.searchsorted(starts, ends)
    sizes = high - low
    part = np.repeat(np.arange(len(parts)), sizes)
    segment = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[part]
    # A gene's exon and its span meet in one segment: sorted with the exon last, the last of each run is kept.
    entry = parts[part, 0] * 4 + parts[part, 2] * 2 + exonic[part]
    order = np.lexsort((entry, segment))
    segment, entry = segment[order], entry[order]
    last = np.ones(len(entry), dtype=bool)
    last[:-1] = (segment[1:] != segment[:-1]) | (entry[1:] >> 1 != entry[:-1] >> 1)
    segment, entry = segment[last], entry[last]
    first = np.searchsorted(segment, np.arange(starts.size + 1)).astype(np.int64)
    block_starts = np.arange((bases >> BLOCK_SHIFT) + 2, dtype=np.int64) << BLOCK_SHIFT
    of_block = (np.searchsorted(starts, block_starts, side="right") - 1).astype(np.uint32)
    segments = np.stack([np.append(starts, np.int64(1) << 62), first], axis=1)
    return segments, entry.astype(np.uint64), of_block


def _first_of_blocks(ordered: NDArray[np.int64], bases: int) -> NDArray[np.uint32]:
    blocks = np.arange((bases >> INTRON_BLOCK_SHIFT) + 2, dtype=np.int64) << INTRON_BLOCK_SHIFT
    return np.searchsorted(ordered, blocks).astype(np.uint32)


def intron_edges(introns: NDArray[np.int64], bases: int) -> NDArray[np.uint64]:
    """Return one bit per 128 bases, set where an intron starts or ends among them.

    Args:
        introns: Start and end of each, half-open, shape (introns, 2).
        bases: Length of the text.
    """
    holds = np.zeros((bases >> BLOCK_SHIFT) + 2, np.bool_)
    holds[introns.reshape(-1) >> BLOCK_SHIFT] = True
    return _bits(holds)


def unknown_blocks(unknown: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return one bit for each block of 1,024 bases, set if it holds an unknown base.

    Args:
        unknown: One bit per base, set where the base is not known.
    """
    words = 1 << (UNKNOWN_BLOCK_SHIFT - 6)
    padded = np.concatenate([unknown, np.zeros(-unknown.size % words, np.uint64)])
    return _bits((padded.reshape(-1, words) != 0).any(axis=1))


def _bits(flags: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack flags into words, the first least significant; kernels may look at those just beyond the last."""
    whole = np.concatenate([flags, np.zeros(64 + -flags.size % 64, np.bool_)])
    return np.packbits(whole, bitorder="little").view("<u8").astype(np.uint64)


@kernel
def pack_text(codes: NDArray[np.uint8], offset: int, text: NDArray[np.uint64], unknown: NDArray[np.uint64]) -> None:
    """Write codes into the text, and clear the unknown bits where they are known.

    Args:
        codes: A0 C1 G2 T3, 4 unknown, shape (n,).
        offset: Global position of the first.
        text: In and out: packed text, zero where nothing was written.
        unknown: In and out: one bit per base, set where nothing was written.
    """
    for i in range(codes.size):
        at = np.uint64(offset + i)
        code = np.uint64(codes[i])
        if code < np.uint64(4):
            text[at >> np.uint64(5)] |= code << ((at & np.uint64(31)) << np.uint64(1))
            unknown[at >> np.uint64(6)] &= ~(np.uint64(1) << (at & np.uint64(63)))


def _to_saved(reference: Reference) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what the saved index holds: facts and arrays."""
    index = reference.index
    facts = {
        "contig_names": list(reference.contig_names),
        "gene_ids": reference.gene_ids.tolist(),
        "gene_names": reference.gene_names.tolist(),
        "has_genes": reference.has_genes,
        "skipped_rows": reference.skipped_rows,
        "skipped_contigs": list(reference.skipped_contigs),
        "bases": reference.bases,
        "k": index.k,
        "sampling": index.sampling,
        "junction_base": index.junction_base,
        "junction_stride": index.junction_stride,
    }
    arrays = {name: getattr(reference, name) for name in _ARRAYS}
    return facts, {**arrays, "slots": index.slots, "postings": index.postings}


_ARRAYS: Final = (
    "contig_lengths",
    "contig_offsets",
    "text",
    "unknown",
    "unknown_blocks",
    "intron_starts",
    "intron_ends",
    "introns_by_end",
    "intron_start_of_block",
    "intron_end_of_block",
    "intron_edges",
    "segments",
    "entries",
    "segment_of_block",
)


def _from_saved(facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Reference:
    index = KmerIndex(
        facts["k"],
        facts["sampling"],
        arrays["slots"],
        arrays["postings"],
        facts["junction_base"],
        facts["junction_stride"],
    )
    return Reference(
        contig_names=tuple(facts["contig_names"]),
        gene_ids=np.array(facts["gene_ids"], np.str_),
        gene_names=np.array(facts["gene_names"], np.str_),
        has_genes=facts["has_genes"],
        skipped_rows=facts["skipped_rows"],
        skipped_contigs=tuple(facts["skipped_contigs"]),
        bases=facts["bases"],
        index=index,
        **{name: arrays[name] for name in _ARRAYS},
    )
