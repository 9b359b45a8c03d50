"""Gene annotation: a GTF file read into genes, their exons, and the introns that spliced reads jump over.

GTF (GFF version 2.2): nine tab-separated columns, positions 1-based with both ends inside. `gene_id` is needed on every
`gene` and `exon` row; `gene_name` (Ensembl, GENCODE) or `gene_symbol` (FlyBase) is shown where present; `transcript_id`
orders exons into introns. A gene without a `gene` row spans its exons. In memory positions are 0-based and half-open.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cartoseq.analysis.filefaults import COPY_AGAIN, gzip_fault
from cartoseq.streaming.errors import InputError

_IN_GTF = "Give the genes in GTF; GFF3 and BED must be converted first."
_COLUMNS = ("contig", "source", "feature", "start", "end", "score", "strand", "frame", "attributes")


@dataclass(frozen=True)
class Annotation:
    """Genes on the contigs of one genome.

    Attributes:
        gene_ids: In order of first appearance in the file, dtype str.
        gene_names: The name to show; the id where the file gives no name.
        spans: Gene spans: gene, contig, strand (0 forward, 1 reverse), start, end; int64, shape (spans, 5). A gene that
            lies on several contigs or strands has several.
        exons: Exonic blocks, overlaps within a gene merged; the same columns.
        introns: Distinct annotated introns: contig, start, end; int64, shape (introns, 3), sorted.
        skipped_rows: Rows on contigs that the genome does not have.
        skipped_contigs: Names of those contigs.
    """

    gene_ids: NDArray[np.str_]
    gene_names: NDArray[np.str_]
    spans: NDArray[np.int64]
    exons: NDArray[np.int64]
    introns: NDArray[np.int64]
    skipped_rows: int
    skipped_contigs: tuple[str, ...]


def read_annotation(path: Path, contig_names: Sequence[str], contig_lengths: Sequence[int]) -> Annotation:
    """Read a GTF file, gzipped or not, against the contigs of a genome.

    Args:
        path: The GTF file.
        contig_names: Contigs of the genome, in its order.
        contig_lengths: Their lengths in bases.

    Raises:
        InputError: the file is missing, empty, cut short or malformed, or does not fit the genome. The message names
            the line.
    """
    text = read_text(path)
    rows = _rows(path, text)
    rows, skipped_rows, skipped_contigs = _on_contigs(path, rows, contig_names)
    _check_ranges(path, rows, contig_names, contig_lengths)
    if not (rows["feature"] == "exon").any():
        raise InputError(
            path,
            "there is no exon row on the contigs of the genome",
            remedy="Give a GTF file with exons: they are what is counted.",
        )
    return _annotation(rows, contig_names, skipped_rows, skipped_contigs)


def read_text(path: Path) -> bytes:
    """Return a file's bytes, inflated when it is gzipped.

    Raises:
        InputError: the file is missing, unreadable, empty, or its gzip stream is damaged or cut short.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(path, "there is no such file", remedy="Check the path.") from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", remedy="Check its permissions.") from None
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(path, gzip_fault(error), remedy=COPY_AGAIN) from None
    if not data.strip():
        raise InputError(path, "the file is empty", remedy="Copy or download it again.")
    return data


def _rows(path: Path, text: bytes) -> pl.DataFrame:
    """Return the gene and exon rows: line number, contig, feature, start, end, strand and the attributes in use."""
    try:
        lines = pl.read_csv(
            io.BytesIO(text),
            separator="\x1f",
            quote_char=None,
            has_header=False,
            schema={"line_text": pl.String},
            truncate_ragged_lines=True,
        )
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputError(path, f"this is not a GTF text file ({error})", remedy=_IN_GTF) from None
    rows = (
        lines.with_row_index("line", offset=1)
        .filter((pl.col("line_text").str.strip_chars() != "") & ~pl.col("line_text").str.starts_with("#"))
        .with_columns(pl.col("line_text").str.split_exact("\t", len(_COLUMNS) - 1).struct.rename_fields(list(_COLUMNS)))
        .unnest("line_text")
    )
    if rows.is_empty():
        raise InputError(path, "it holds only comments", remedy=_IN_GTF)
    short = rows.filter(pl.col("attributes").is_null())
    if not short.is_empty():
        raise InputError(
            path,
            f"expected nine columns with tabs between them, as GTF has, found {_columns_of(short)}",
            place=f"line {short['line'][0]}",
            remedy=_IN_GTF,
        )
    rows = rows.filter(pl.col("feature").is_in(["gene", "exon"])).with_columns(
        pl.col("start").cast(pl.Int64, strict=False).alias("start_number"),
        pl.col("end").str.strip_chars().cast(pl.Int64, strict=False).alias("end_number"),
        *(
            pl.col("attributes").str.extract(rf'(?:^|;)\s*{name}\s+"?([^";]*)"?').alias(name)
            for name in ("gene_id", "gene_name", "gene_symbol", "transcript_id")
        ),
    )
    _refuse(path, rows, pl.col("start_number").is_null(), "start", "expected a whole number as start, found {!r}")
    _refuse(path, rows, pl.col("end_number").is_null(), "end", "expected a whole number as end, found {!r}")
    unnamed = pl.col("gene_id").is_null() | (pl.col("gene_id") == "")
    _refuse(
        path, rows, unnamed, "feature", "this {} row has no gene_id", f"Every gene and exon row needs one. {_IN_GTF}"
    )
    strange = ~pl.col("strand").is_in(["+", "-", "."])
    _refuse(path, rows, strange, "strand", "expected strand + or - or ., found {!r}")
    return rows.drop("start", "end").rename({"start_number": "start", "end_number": "end"})


def _columns_of(rows: pl.DataFrame) -> int:
    """The number of columns that the first row has."""
    return sum(rows[column][0] is not None for column in _COLUMNS)


def _refuse(
    path: Path, rows: pl.DataFrame, fault: pl.Expr, column: str, problem: str, remedy: str = "Correct the line."
) -> None:
    """Raise an error about the first row at fault, if there is one."""
    bad = rows.filter(fault)
    if not bad.is_empty():
        raise InputError(path, problem.format(bad[column][0]), place=f"line {bad['line'][0]}", remedy=remedy)


def _on_contigs(
    path: Path, rows: pl.DataFrame, contig_names: Sequence[str]
) -> tuple[pl.DataFrame, int, tuple[str, ...]]:
    """Return the rows on contigs of the genome, the number of the others, and the names of their contigs."""
    present = rows["contig"].is_in(list(contig_names))
    absent = rows.filter(~present)
    names = absent["contig"].unique(maintain_order=True).to_list()
    if rows.height and not present.any():
        plain = {name.removeprefix("chr") for name in contig_names}
        hint = ""
        if any(name.removeprefix("chr") in plain for name in names):
            hint = 'The names differ by the prefix "chr" only: take genome and annotation from one source. '
        raise InputError(
            path,
            f"none of its contigs is in the genome: it has {_first(names)}; the genome has {_first(contig_names)}",
            remedy=f"{hint}Give the annotation made for this genome.",
        )
    return rows.filter(present), absent.height, tuple(names)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _check_ranges(path: Path, rows: pl.DataFrame, contig_names: Sequence[str], contig_lengths: Sequence[int]) -> None:
    lengths = pl.DataFrame({"contig": list(contig_names), "contig_length": np.asarray(contig_lengths, np.int64)})
    placed = rows.join(lengths, on="contig", how="left", maintain_order="left")
    for row in placed.filter(pl.col("start") > pl.col("end")).head(1).iter_rows(named=True):
        problem = f"start {row['start']:,} is after end {row['end']:,}"
        raise InputError(path, problem, place=f"line {row['line']}", remedy="Correct the line.")
    for row in placed.filter(pl.col("start") < 1).head(1).iter_rows(named=True):
        problem = f"start {row['start']:,} is before 1, the first base"
        raise InputError(path, problem, place=f"line {row['line']}", remedy=f"GTF counts from 1. {_IN_GTF}")
    for row in placed.filter(pl.col("end") > pl.col("contig_length")).head(1).iter_rows(named=True):
        raise InputError(
            path,
            f"{row['feature']} ends at {row['end']:,}, but {row['contig']} has only {row['contig_length']:,} bases",
            place=f"line {row['line']}",
            remedy="Give the annotation made for this genome.",
        )


def _annotation(
    rows: pl.DataFrame, contig_names: Sequence[str], skipped_rows: int, skipped_contigs: tuple[str, ...]
) -> Annotation:
    names = pl.col("gene_name").fill_null(pl.col("gene_symbol")).drop_nulls().first()
    genes = rows.group_by("gene_id", maintain_order=True).agg(names.alias("name"))
    genes = genes.with_columns(pl.col("name").fill_null(pl.col("gene_id"))).with_row_index("gene")
    contigs = pl.DataFrame({"contig": list(contig_names), "contig_number": np.arange(len(contig_names))})
    rows = (
        rows.join(genes.select("gene_id", "gene"), on="gene_id", maintain_order="left")
        .join(contigs, on="contig", maintain_order="left")
        .with_columns(
            (pl.col("strand") == "-").cast(pl.Int64).alias("reverse"),
            (pl.col("start") - 1).alias("start"),
        )
    )
    place = ["gene", "contig_number", "reverse"]
    spans = rows.group_by(place).agg(pl.col("start").min(), pl.col("end").max()).sort([*place, "start"])
    exons = rows.filter(pl.col("feature") == "exon")
    previous_end = pl.col("end").cum_max().shift(1).over(place)
    merged = (
        exons.sort([*place, "start", "end"])
        .with_columns((pl.col("start") > previous_end).fill_null(True).cum_sum().alias("run"))
        .group_by([*place, "run"])
        .agg(pl.col("start").min(), pl.col("end").max())
        .sort([*place, "start"])
    )
    order = ["transcript_id", "contig_number", "reverse"]
    introns = (
        exons.filter(pl.col("transcript_id").is_not_null())
        .sort([*order, "start", "end"])
        .with_columns(pl.col("end").shift(1).over(order).alias("intron_start"))
        .filter(pl.col("intron_start") < pl.col("start"))
        .select("contig_number", "intron_start", pl.col("start").alias("intron_end"))
        .unique()
        .sort(["contig_number", "intron_start", "intron_end"])
    )
    columns = [*place, "start", "end"]
    return Annotation(
        gene_ids=np.array(genes["gene_id"].to_list(), dtype=np.str_),
        gene_names=np.array(genes["name"].to_list(), dtype=np.str_),
        spans=_integers(spans.select(columns)),
        exons=_integers(merged.select(columns)),
        introns=_integers(introns),
        skipped_rows=skipped_rows,
        skipped_contigs=skipped_contigs,
    )


def _integers(frame: pl.DataFrame) -> NDArray[np.int64]:
    return np.ascontiguousarray(frame.select(pl.all().cast(pl.Int64)).to_numpy(), dtype=np.int64).reshape(
        frame.height, frame.width
    )
