"""What is drawn from a fold's state: the maps (``maps.h5``) and the counters (``qc.json``).

What does not merge is done here and never kept: the collapse of molecular barcodes, the sums in genome windows, the
saturation curve. Both files are functions of the state alone, so that the same log gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cartoseq
from cartoseq.analysis import counters as names
from cartoseq.analysis.alleles import draw_alleles
from cartoseq.analysis.atomic import write_text_atomically
from cartoseq.analysis.collapse import collapse_mids
from cartoseq.analysis.dnaevidence import DnaEvidence, locus_table
from cartoseq.analysis.fold import Fold, LibraryFold
from cartoseq.analysis.gcstrata import GcStrata, add_fragments
from cartoseq.analysis.junctions import draw_junctions
from cartoseq.analysis.maps import LibraryMap, Maps, build_map, write_maps
from cartoseq.analysis.molecules import Molecules, MoleculeSet
from cartoseq.analysis.runfolder import QC_SCHEMA
from cartoseq.analysis.saturation import saturation, saturation_curve
from cartoseq.analysis.windows import Windows, window_features

#: The histogram of copies ends here; its last bin holds all above.
_COPIES = 256


def write_snapshot(maps_path: Path, qc_path: Path, fold: Fold) -> None:
    """Write maps and counters as they stand, each file whole or not at all.

    Raises:
        DiskError: the disk is full or refuses.
    """
    libraries = {library.settings.name: library_map(library) for library in fold.libraries}
    frame = fold.libraries[0].frame
    write_maps(maps_path, Maps(frame, libraries, log_position=fold.position, generation=fold.position))
    write_text_atomically(qc_path, json.dumps(quality(fold, libraries), indent=1) + "\n")


def library_map(library: LibraryFold) -> LibraryMap:
    """The map of one library and what else was counted on the way."""
    copies = np.zeros(_COPIES + 1, np.uint64)
    windows = _windows(library) if library.settings.layer == "dna" else None
    strata = library.dna.strata(windows) if windows is not None and library.dna is not None else None
    reference = library.reference
    spatial = build_map(
        _drawn(library, windows, strata, copies),
        library.frame,
        reference.gene_ids if windows is None else windows.ids,
        reference.gene_names if windows is None else windows.ids,
        library=library.settings.name,
        layer=library.settings.layer,
    )
    counters = {
        **library.counters,
        "molecules_distinct": library.molecules.molecules,
        "molecules_collapsed": library.molecules.molecules - spatial.total_molecules,
        "molecules": spatial.total_molecules,
    }
    base_counts, quality_counts = cycle_counts(library.call_counts)
    return LibraryMap(
        map=spatial,
        totals=counters,
        copies=copies,
        saturation=saturation_curve(copies, counters["assigned"]),
        located=library.located.image,
        located_bin=library.located_bin,
        base_counts=base_counts,
        quality_counts=quality_counts,
        dna=_dna_evidence(library, strata),
    )


def quality(fold: Fold, libraries: dict[str, LibraryMap]) -> dict[str, Any]:
    """The content of ``qc.json`` (docs/formats/run.md)."""
    described = {}
    for library in fold.libraries:
        settings, counters = library.settings, dict(libraries[library.settings.name].totals)
        names.check(counters, settings.name)
        described[settings.name] = {
            "layer": settings.layer,
            "counters": counters,
            "saturation": saturation(counters["molecules"], counters["assigned"]),
            "counted": _counted(library),
            "mid_collapse": settings.mid_collapse if settings.mid_length else "off",
            "chip_barcodes": library.index.barcodes,
        }
        if library.dna is not None:
            described[settings.name]["evidence"] = dict(library.dna.counters)
    return {
        "schema": QC_SCHEMA,
        "complete": fold.complete,
        "log_position": fold.position,
        "libraries": described,
        "versions": {"cartoseq": cartoseq.__version__},
    }


def cycle_counts(call_counts: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Split the counts of base-call bytes by base and by quality.

    Args:
        call_counts: How often each byte was seen, shape (cycles, 256).

    Returns:
        Counts of A, C, G, T and N, shape (cycles, 5); counts of each quality (no-calls have 0), shape (cycles, 64).
    """
    calls = call_counts.reshape(-1, 64, 4)
    no_calls = call_counts[:, 0]
    bases = calls.sum(axis=1)
    bases[:, 0] -= no_calls
    return np.column_stack([bases, no_calls]), calls.sum(axis=2)


def _drawn(
    library: LibraryFold, windows: Windows | None, strata: GcStrata | None, copies: NDArray[np.uint64]
) -> Iterator[Molecules]:
    """The molecules of the map, a shard at a time; their copies and the GC of their places are counted on the way."""
    for drawn in _collapsed(library, library.molecules):
        copies += np.bincount(np.minimum(drawn.copies, _COPIES), minlength=_COPIES + 1).astype(np.uint64)
        if windows is None or strata is None:
            yield drawn
            continue
        add_fragments(strata, drawn, library.reference, windows, library.position_bits)
        yield windows.in_windows(drawn, library.position_bits)


def _collapsed(library: LibraryFold, molecules: MoleculeSet) -> Iterator[Molecules]:
    """The molecules of a set, a shard at a time, barcodes collapsed as the library's are."""
    for part in molecules.parts():
        yield collapse_mids(part, library.settings.mid_collapse, library.settings.mid_length)


def _dna_evidence(library: LibraryFold, strata: GcStrata | None) -> DnaEvidence | None:
    """What the library says of the genome; None where nothing was asked."""
    dna = library.dna
    if dna is None:
        return None
    contigs, loci, alleles = np.array(library.reference.contig_names, np.str_), None, None
    if dna.loci is not None and dna.alleles is not None:
        loci = locus_table(dna.loci, contigs)
        alleles = draw_alleles(_collapsed(library, dna.alleles), len(dna.loci), library.frame)
    junctions = None
    if dna.junctions is not None:
        junctions = draw_junctions(dna.junctions, library.reference.contig_offsets, library.frame)
    return DnaEvidence(contigs, loci, alleles, junctions, strata, dict(dna.counters))


def _windows(library: LibraryFold) -> Windows:
    reference = library.reference
    return window_features(
        reference.contig_names, reference.contig_lengths, library.settings.window_bp, reference.contig_offsets
    )


def _counted(library: LibraryFold) -> str:
    if library.settings.layer == "dna":
        return "fragments at one place of the genome"
    return "exonic and intronic reads" if library.settings.count_intronic else "exonic reads"
