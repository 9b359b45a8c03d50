"""From an experiment to a fold: the chip's index, the references, and how each library's reads are understood."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cartoseq.analysis.assign import AssignSettings
from cartoseq.analysis.chip import ChipFrame, ChipOptions
from cartoseq.analysis.fold import Fold, LibraryFold, LibrarySettings
from cartoseq.analysis.locate import BarcodeIndex, open_index
from cartoseq.analysis.loci import Loci, read_loci, told
from cartoseq.analysis.reference import Reference, open_reference
from cartoseq.controller.config import Chip, Experiment, Library
from cartoseq.streaming.errors import InputError

#: So much of a DNA template must align: 30 bases, as for bwa mem (-T 30). Amplified genomes have fragments that
#: join two places; a part that is unique by itself has a place. Of random bases, 3 in 100,000 find one in 150 Mbp.
_DNA_ALIGNED_BASES = 30
_DNA_ALIGNED_FRACTION = 0.2
#: In a repeat of which the index holds some copies only, a place that beats all others seen by eight mismatches counts.
_DNA_SEEN_DIFFERENCE = 24


def chip_options(chip: Chip, barcode_length: int | None) -> ChipOptions:
    """How the chip's table is to be read. The experiment counts columns from 0, the table's reader from 1."""

    def column(value: int | str | None) -> int | str | None:
        return value + 1 if isinstance(value, int) else value

    return ChipOptions(
        barcode_column=column(chip.barcode_column),
        x_column=column(chip.x_column),
        y_column=column(chip.y_column),
        one_based=chip.one_based,
        add_shift=chip.add_shift,
        barcode_length=barcode_length if chip.barcodes.suffix in {".h5", ".bin"} else None,
        pitch_um=chip.pitch_um,
        name=chip.name,
    )


def open_chip(experiment: Experiment) -> tuple[BarcodeIndex, ChipFrame]:
    """Open the chip's index, building it if need be.

    Raises:
        InputError: the table is malformed, or its barcodes are not as long as the reads'.
    """
    length = experiment.library[0].barcode_length
    index, frame = open_index(experiment.chip.barcodes, chip_options(experiment.chip, length))
    if length is not None and index.barcode_length != length:
        raise InputError(
            experiment.chip.barcodes,
            f"its barcodes have {index.barcode_length} bases, the read structures say {length}",
            remedy="Correct the C segments of read_structures, or name the chip of this library.",
        )
    return index, frame


def library_settings(library: Library) -> LibrarySettings:
    """How the reads of a library are understood."""
    assign = AssignSettings(layer=library.layer, strand=library.strand, adapters=library.adapters)
    if library.layer == "dna":
        assign = replace(
            assign,
            min_aligned_bases=_DNA_ALIGNED_BASES,
            min_aligned_fraction=_DNA_ALIGNED_FRACTION,
            min_seen_difference=_DNA_SEEN_DIFFERENCE,
        )
    if not library.trim_poly_a:
        assign = replace(assign, trim_poly_a=0, poly_a_mismatches=0)
    return LibrarySettings(
        name=library.name,
        layer=library.layer,
        structures=library.structures,
        mismatches=library.mismatches,
        count_intronic=library.count_intronic,
        mid_collapse=library.mid_collapse,
        assign=assign,
        window_bp=library.window_bp,
    )


def make_fold(experiment: Experiment, say: Callable[[str], None] = lambda _phase: None) -> Fold:
    """Open the chip and the references and make the fresh fold of an experiment.

    Args:
        experiment: The experiment.
        say: Is told what is being done, where that can take a while.

    Raises:
        InputError: a table or a reference is missing, malformed or does not fit.
    """
    say(f"indexing the chip {experiment.chip.barcodes.name}")
    index, frame = open_chip(experiment)
    references: dict[tuple[Path, Path | None], Reference] = {}
    libraries = []
    for library in experiment.library:
        genes = library.genes if library.layer == "rna" else None
        key = (library.genome, genes)
        if key not in references:
            say(f"indexing the reference {library.genome.name}")
            references[key] = open_reference(*key)
        loci = None if library.loci is None else _open_loci(library.loci, references[key], say)
        libraries.append(
            LibraryFold(
                library_settings(library), index, frame, references[key], experiment.run.expected_molecules or 0, loci
            )
        )
    return Fold(libraries, fingerprint(experiment))


def _open_loci(path: Path, reference: Reference, say: Callable[[str], None]) -> Loci:
    say(f"reading the known loci {path.name}")
    loci = read_loci(path, reference)
    if skipped := told(loci.skipped):
        say(f"{path.name}: {len(loci):,} loci; left out: {skipped}")
    return loci


def fingerprint(experiment: Experiment) -> str:
    """What the result depends on beside the log: the settings, and which files the chip and the references are.

    A file is known by its path, size and time of change: enough to notice that a state belongs to another one.
    """
    files = [experiment.chip.barcodes]
    for library in experiment.library:
        files += [path for path in (library.genome, library.genes, library.loci) if path is not None]
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    text = json.dumps([experiment.model_dump(mode="json"), stamps], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
