"""A run, opened for looking at: in a notebook, by the exports and by the report.

``cartoseq.open_run("RUN")`` opens the folder of a run, finished or still going, at its latest whole snapshot.
"""

from __future__ import annotations

import base64
import difflib
import html
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.dnaevidence import allele_frame
from cartoseq.analysis.exports.picture import Picture, draw_png, picture_of_map
from cartoseq.analysis.maps import LibraryMap, Maps, SpatialMap, read_maps
from cartoseq.analysis.runfolder import RunFolder, existing_run
from cartoseq.analysis.tissueimages import TissueImages, read_tissue_images
from cartoseq.streaming.errors import CorruptionError, InputError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Run:
    """A run at its latest whole snapshot. A run that is still going has a newer one when it is opened again.

    Args:
        folder: Where it lies.
        maps: All that ``maps.h5`` holds.
        qc: All that ``qc.json`` holds.
        configuration: The experiment as frozen in ``run.toml``.
    """

    folder: RunFolder
    maps: Maps
    qc: dict[str, Any]
    configuration: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.path.resolve().name

    @property
    def complete(self) -> bool:
        """Whether every read of the run is in the maps."""
        return bool(self.qc.get("complete", False))

    @property
    def libraries(self) -> dict[str, SpatialMap]:
        """The map of each library, by name: molecules of each gene (or genome window) at each spot."""
        return {name: library.map for name, library in self.maps.libraries.items()}

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """What became of the reads of each library: named counts that add up."""
        return {name: dict(library["counters"]) for name, library in self.qc["libraries"].items()}

    @property
    def images(self) -> TissueImages | None:
        """The tissue under the microscope, registered to the chip: pictures, mask, quality. None if not registered.

        Raises:
            InputError: they no longer read as they were written.
        """
        return read_tissue_images(self.folder.tissue)

    @property
    def located(self) -> dict[str, NDArray[np.uint32]]:
        """Where the reads of each library lie, whatever became of their template: shape (rows = y, columns = x)."""
        return {name: library.located for name, library in self.maps.libraries.items()}

    @property
    def genes(self) -> pl.DataFrame:
        """Every gene (or genome window) seen: library, id, name, molecules, reads, spots; most molecules first."""
        import polars as pl

        parts = [_feature_table(name, library.map) for name, library in self.maps.libraries.items()]
        return pl.concat(parts).sort(["library", "molecules", "id"], descending=[False, True, False])

    def library(self, name: str | None = None) -> LibraryMap:
        """All that is known of one library: its map, its saturation curve, its cycles.

        Args:
            name: Its name; not needed where the run has one library only.

        Raises:
            InputError: there is no such library, or the name is needed.
        """
        names = list(self.maps.libraries)
        if name is None and len(names) == 1:
            name = names[0]
        if name is None or name not in self.maps.libraries:
            wanted = "no library was named" if name is None else f"there is no library {name!r}"
            remedy = "Name one of them." if names else "It has mapped nothing yet."
            raise InputError(self.folder.path, f"{wanted}; this run has {', '.join(names) or 'none'}", remedy=remedy)
        return self.maps.libraries[name]

    def alleles(self, library: str | None = None) -> pl.DataFrame:
        """Molecules of each allele at the known loci: a row for each locus and spot where a base was read.

        Columns: contig, position (1-based), id, ref, alt, haplotype (which one carries the alternative; -1 unknown),
        x, y, ref_molecules, alt_molecules, other_molecules, undecided_molecules; then reads and molecules of each base.

        Args:
            library: Its name; not needed where the run has one library only.

        Raises:
            InputError: there is no such library, the name is needed, or it has no known loci.
        """
        evidence = self.library(library).dna
        if evidence is None or evidence.alleles is None:
            problem = f"library {library or next(iter(self.maps.libraries))} has no known loci"
            raise InputError(self.folder.path, problem, remedy='Give it loci = "known.vcf" in the experiment file.')
        return allele_frame(evidence)

    def picture(
        self, gene: str | int | None = None, *, library: str | None = None, bin_size: float | None = None
    ) -> Picture:
        """The picture of a library, or of one gene of it; a notebook shows it, ``.save("map.png")`` writes it.

        Args:
            gene: Gene (or genome window) by name, identifier or number; all molecules if None.
            library: Name of the library; the first that has the gene if None.
            bin_size: Side of a bin, in spots; one that reads well if None.

        Raises:
            InputError: there is no such gene or library.
        """
        names = [library] if library is not None else list(self.maps.libraries)
        maps = [self.library(name).map for name in names]
        if not maps:
            raise InputError(self.folder.path, "this run has no library")
        if gene is None:
            return picture_of_map(maps[0], bin_size=bin_size)
        for spatial in maps:
            try:
                return picture_of_map(spatial, bin_size=bin_size, feature=gene)
            except KeyError:
                continue
        raise unknown_feature(gene, maps, self.folder.path)

    def _repr_html_(self) -> str:
        """How a notebook shows the run: a small table, and the picture of each library."""
        rows = "".join(self._summary_row(name) for name in self.maps.libraries)
        pictures = "".join(
            f'<img style="max-width:380px" alt="{html.escape(name)}" src="data:image/png;base64,'
            f'{base64.b64encode(draw_png(picture_of_map(spatial))).decode()}">'
            for name, spatial in self.libraries.items()
        )
        state = "complete" if self.complete else "still going, or stopped: this is its latest snapshot"
        head = "".join(
            f'<th style="text-align:{side}">{title}</th>'
            for side, title in (
                ("left", "library"),
                ("right", "reads"),
                ("right", "located"),
                ("right", "molecules"),
                ("right", "features"),
                ("right", "saturation"),
            )
        )
        return (
            f"<div><p><strong>{html.escape(self.name)}</strong> · chip {html.escape(self.maps.frame.name or '?')} · "
            f"{state}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{pictures}</div>"
        )

    def _summary_row(self, name: str) -> str:
        spatial = self.maps.libraries[name].map
        qc = self.qc["libraries"].get(name, {})
        counters = qc.get("counters", {})
        total = counters.get("reads_total", 0)
        located = counters.get("located_exact", 0) + counters.get("located_corrected", 0)
        cells = (
            f"{total:,}",
            f"{located / total:.1%}" if total else "–",
            f"{int(spatial.molecules.sum(dtype=np.uint64)):,}",
            f"{int(np.count_nonzero(np.diff(spatial.offsets))):,}",
            f"{qc['saturation']:.1%}" if "saturation" in qc else "–",
        )
        numbers = "".join(f'<td style="text-align:right">{cell}</td>' for cell in cells)
        label = name if name == spatial.layer else f"{name} ({spatial.layer})"
        return f'<tr><td style="text-align:left">{html.escape(label)}</td>{numbers}</tr>'


def open_run(folder: str | Path) -> Run:
    """Open the folder of a run, finished or still going.

    Raises:
        InputError: the folder is no run, or holds no map yet; the message says how far it is.
        CorruptionError: ``qc.json`` or ``run.toml`` no longer reads as it was written.
    """
    run = existing_run(Path(folder))
    if not run.maps.is_file() or not run.qc.is_file():
        raise InputError(
            run.path,
            f"this run holds no map yet: {_progress(run)}",
            remedy="The first map is written some time after the first reads; open the folder again then.",
        )
    qc = run.read_qc()
    try:
        configuration = tomllib.loads(run.settings.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptionError(
            f"{run.settings}: no longer reads as it was written: {error}. If it was edited, undo that."
        ) from error
    return Run(run, _in_order_of(qc["libraries"], read_maps(run.maps)), qc, configuration)


def unknown_feature(wanted: str | int, maps: list[SpatialMap], source: Path) -> InputError:
    """The error for a gene that no map has, with names that look alike."""
    known: dict[str, str] = {}
    for spatial in maps:
        for name in (*spatial.feature_names.tolist(), *spatial.feature_ids.tolist()):
            known.setdefault(name.lower(), name)
    near = [known[name] for name in difflib.get_close_matches(str(wanted).lower(), known, n=3, cutoff=0.6)]
    where = "libraries " + ", ".join(spatial.library for spatial in maps) if len(maps) > 1 else maps[0].library
    remedy = f"Did you mean {' or '.join(near)}?" if near else "Names and identifiers are those of the annotation."
    return InputError(source, f"no gene or window {wanted!r} in {where}", remedy=remedy)


def _feature_table(library: str, spatial: SpatialMap) -> pl.DataFrame:
    import polars as pl

    seen = np.flatnonzero(np.diff(spatial.offsets))
    starts = spatial.offsets[seen]
    if seen.size:
        molecules = np.add.reduceat(spatial.molecules.astype(np.int64), starts)
        reads = np.add.reduceat(spatial.reads.astype(np.int64), starts)
    else:
        molecules = reads = np.zeros(0, np.int64)
    return pl.DataFrame(
        {
            "library": np.full(seen.size, library),
            "id": spatial.feature_ids[seen],
            "name": spatial.feature_names[seen],
            "molecules": molecules,
            "reads": reads,
            "spots": np.diff(spatial.offsets)[seen],
        },
        schema_overrides={"library": pl.String, "id": pl.String, "name": pl.String},
    )


def _in_order_of(names: Iterable[str], maps: Maps) -> Maps:
    """Maps with their libraries in the order of the experiment, which HDF5 does not keep."""
    order = dict.fromkeys([*names, *maps.libraries])
    return replace(maps, libraries={name: maps.libraries[name] for name in order if name in maps.libraries})


def _progress(run: RunFolder) -> str:
    """How far a run without a map is, from its log and journal."""
    files = [path for path in run.log.iterdir() if path.is_file()] if run.log.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    logged = f"its log holds {size / 1e6:,.1f} MB" if size else "its log is empty"
    event = ""
    if run.journal.is_file():
        for line in reversed(run.journal.read_text(encoding="utf-8", errors="replace").splitlines()):
            try:
                event = str(json.loads(line)["event"])
                break
            except (ValueError, KeyError, TypeError):
                continue  # a torn last line
    return f"{logged}, and the last event in its journal is {event!r}" if event else logged
