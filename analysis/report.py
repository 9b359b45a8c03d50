"""The report of a run: one HTML file that needs no network, no scripts and no other file.

Its terms are those of the SAW report (Total Reads, Valid CID, Clean, Uniquely Mapped, Transcriptome, Unique Reads,
Sequencing Saturation), so that a run can be laid beside one that SAW analysed. What is counted, and what is not, stands
in the report itself. Same run folder, same bytes. ``docs/formats/report.md`` explains every number.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from cartoseq import __version__
from cartoseq.analysis.atomic import write_text_atomically
from cartoseq.analysis.charts import OKABE_ITO, Line, line_chart
from cartoseq.analysis.exports.export import matrix_bin
from cartoseq.analysis.exports.expression import table_of_map
from cartoseq.analysis.exports.picture import (
    COLOURS,
    SMALLEST_SIDE,
    Picture,
    brightest,
    draw_plain_png,
    draw_png,
    picture_of_map,
)
from cartoseq.analysis.maps import LibraryMap
from cartoseq.analysis.run import Run, open_run
from cartoseq.analysis.tissueimages import TissueImages
from cartoseq.analysis.tissuepicture import draw_map, draw_tissue, map_outline, tissue_outline
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.readstructure import ReadStructure, SegmentKind, rows_of

_TEMPLATE = Path(__file__).with_name("report.html")
_TOP_FEATURES = 20
_TOP_PICTURES = 4
_READS_PER_BIN = 8
_Q30 = 30
_MOLECULE = {
    "rna": "molecules: distinct spot, gene and molecular barcode",
    "dna": "molecules: distinct spot, place and strand in the genome, and molecular barcode if there is one",
}
_SEGMENTS = (
    (SegmentKind.SPATIAL, "CID (spatial barcode)"),
    (SegmentKind.MOLECULAR, "MID (molecular barcode)"),
    (SegmentKind.TEMPLATE, "template"),
)


def write_report(run_folder: str | Path) -> Path:
    """Write ``RUN/report.html``, whole or not at all.

    Raises:
        InputError: the folder is no run, or holds no map yet.
    """
    run = open_run(run_folder)
    write_text_atomically(run.folder.report, render_report(run))
    return run.folder.report


def render_report(run: Run) -> str:
    """The report as HTML text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    frame = run.maps.frame
    configured = {str(table.get("name")): table for table in run.configuration.get("library", [])}
    versions = dict(run.qc.get("versions", {}))
    return template.render(
        run=run.name,
        chip=frame.name or "unnamed chip",
        complete=run.complete,
        records=run.maps.log_position,
        libraries=[_library(run, name, configured.get(name, {})) for name in _rna_first(run)],
        tissue=_tissue(run, images) if (images := run.images) is not None else None,
        settings=run.folder.settings.read_text(encoding="utf-8"),
        versions=sorted(versions.items()),
        version=__version__,
    )


@dataclass(frozen=True)
class Step:
    """A line of the waterfall: reads that go on, or reads that leave with a reason."""

    name: str
    reads: int
    share: float
    level: int
    kept: bool
    meaning: str


def waterfall(counters: Mapping[str, int], layer: str) -> list[Step]:
    """What became of the reads, in the words of the SAW report; every level adds up to the one above it.

    Args:
        counters: The counters of a library.
        layer: ``rna`` or ``dna``.
    """
    c = counters
    valid = c["located_exact"] + c["located_corrected"]
    discarded = c["mid_n"] + c["mid_homopolymer"] + c["mid_low_quality"]
    unannotated = c["multi_gene"] + c["antisense"] + c["intronic"] + c["intergenic"]
    unique_map = c["assigned"] + unannotated
    feature = "Transcriptome" if layer == "rna" else "In genome windows"
    rows: list[tuple[int, bool, str, int, str]] = [
        (0, True, "Total Reads", c["reads_total"], "read pairs taken in"),
        (1, False, "Invalid CID", c["reads_total"] - valid, "spatial barcode without one spot of its own"),
        (2, False, "ambiguous", c["ambiguous"], "two spots or more are equally near"),
        (2, False, "unmatched", c["unmatched"], "no spot is near enough"),
        (2, False, "with N", c["barcode_n"], "bases not called"),
        (1, True, "Valid CID", valid, "spatial barcode matched to one spot"),
        (2, True, "exact", c["located_exact"], "as it stands on the chip"),
        (2, True, "corrected", c["located_corrected"], "one substitution, or one base not called, away"),
        (1, False, "Discarded MID", discarded, "molecular barcode of no use"),
        (2, False, "with N", c["mid_n"], "a base not called"),
        (2, False, "homopolymer", c["mid_homopolymer"], "one base throughout"),
        (2, False, "low quality", c["mid_low_quality"], "more than one base below Q10"),
        (1, True, "Clean", valid - discarded, "valid CID and a molecular barcode to count by"),
        (1, False, "Unmapped", c["unmapped"], "no place in the genome"),
        (1, False, "Multi-mapped", c["multi_mapped"], "several places are equally good"),
        (1, True, "Uniquely Mapped", unique_map, "one place in the genome"),
    ]
    if layer == "rna":
        rows += [
            (1, False, "Unannotated", unannotated, "mapped, but counted for no gene"),
            (2, False, "multi-gene", c["multi_gene"], "two genes or more overlap there"),
            (2, False, "antisense", c["antisense"], "against the strand of the gene"),
            (2, False, "intronic", c["intronic"], "in an intron, and introns are not counted here"),
            (2, False, "intergenic", c["intergenic"], "outside every gene"),
        ]
    rows.append(
        (1, True, feature, c["assigned"], "counted for one gene" if layer == "rna" else "counted for one window")
    )
    if layer == "rna":
        rows.append((2, True, "of these, intronic", c["assigned_intronic"], "in an intron of that gene"))
    # A snapshot tells how many molecules the merging of barcodes took away; they are duplicates too.
    merged = c.get("molecules_collapsed", 0)
    duplicates = c["assigned"] - c["molecules"]
    rows += [
        (1, False, "Duplicates", duplicates, "not a molecule of their own: the sequencing saturation"),
        (2, False, "copies", duplicates - merged, "further copies of a molecule"),
        (2, False, "merged", merged, "a barcode one substitution from a molecule's with more reads"),
        (1, True, "Unique Reads", c["molecules"], _MOLECULE[layer]),
    ]
    total = c["reads_total"]
    return [
        Step(name, reads, reads / total if total else 0.0, level, kept, meaning)
        for level, kept, name, reads, meaning in rows
        # A reason that never came up is left out, a level never.
        if level < 2 or reads
    ]


def _rna_first(run: Run) -> list[str]:
    return sorted(run.maps.libraries, key=lambda name: run.maps.libraries[name].map.layer != "rna")


def _library(run: Run, name: str, configured: Mapping[str, Any]) -> dict[str, Any]:
    library = run.maps.libraries[name]
    spatial = library.map
    qc = run.qc["libraries"][name]
    counters = qc["counters"]
    bin_size = matrix_bin(spatial.frame)
    table = table_of_map(spatial).rebinned(bin_size)
    per_bin = table.molecules_per_bin()
    bins = per_bin.size
    features = "genes" if spatial.layer == "rna" else "windows"
    figures = [
        ("Total Reads", f"{counters['reads_total']:,}", ""),
        ("Valid CID", _percent(_located(counters), counters["reads_total"]), "of all reads"),
        (f"Mean MID per bin {bin_size}", f"{table.molecules / bins:,.1f}" if bins else "–", _median(per_bin)),
        (f"Mean {features} per bin {bin_size}", f"{table.rows / bins:,.1f}" if bins else "–", ""),
        (f"Total {features}", f"{table.features_seen:,}", f"of {spatial.feature_ids.size:,}"),
        ("Unique Reads", f"{table.molecules:,}", "molecules in the map"),
        ("Sequencing Saturation", f"{qc['saturation']:.1%}", ""),
        ("Q30", _q30(library), "of called bases"),
    ]
    order = _by_molecules(library)
    return {
        "name": name,
        "layer": spatial.layer,
        "kind": "RNA: genes" if spatial.layer == "rna" else "DNA: genome windows",
        "features": features,
        "figures": figures,
        "bin_size": bin_size,
        "waterfall": waterfall(counters, spatial.layer),
        "total_picture": _image(picture_of_map(spatial)),
        "located_picture": _image(_located_picture(library, name)) if library.located.size else None,
        "top": [
            (str(spatial.feature_names[f]), str(spatial.feature_ids[f]), count, count / max(1, table.molecules))
            for f, count in order[:_TOP_FEATURES]
        ],
        "top_pictures": [
            (str(spatial.feature_names[f]), *_plain_image(picture_of_map(spatial, feature=f)))
            for f, _ in order[:_TOP_PICTURES]
        ],
        "saturation_chart": _saturation_chart(library),
        **_cycles(library, configured),
        "counted": _what_was_counted(spatial.layer, counters, {**configured, **_known(qc)}),
    }


def _tissue(run: Run, images: TissueImages) -> dict[str, Any]:
    """The registered pictures, their quality, and what lies under the tissue."""
    qc, pose, area_um2 = images.qc, images.numbers["pose"], images.numbers["mask"]["area_um2"]
    found = {name: images.counts(run.maps.libraries[name].map) for name in _rna_first(run)}
    counts = {name: counted for name, counted in found.items() if counted is not None}
    outline = tissue_outline(images)
    first = next(iter(counts), None)
    over = [outline] if first is None else [outline, map_outline(counts[first], images.cell_um, first)]
    return {
        "passed": qc["passed"],
        "figures": [
            ("Image QC", "passed" if qc["passed"] else "not passed", ""),
            ("Track crossings found", f"{qc['template_recall']:.1%}", "within 5 pixels of the chip's pattern"),
            ("Tissue", f"{area_um2 / 1e6:,.3g} mm²", ""),
            *(
                (f"{name} molecules under tissue", _percent(counted.molecules, counted.molecules_total), "")
                for name, counted in counts.items()
            ),
        ],
        "picture": _png(draw_tissue(images, over), "the registered picture of the tissue"),
        "maps": [
            (name, _png(draw_map(images, counted, COLOURS[_layer(run, name)], [outline]), f"{name} on the tissue"))
            for name, counted in counts.items()
        ],
        "under": [
            (
                name,
                f"{counted.molecules:,}",
                _percent(counted.molecules, counted.molecules_total),
                f"{counted.reads:,}",
                _percent(counted.reads, counted.reads_total),
                f"{counted.molecules / area_um2 * 1e4:,.1f}" if area_um2 else "–",
            )
            for name, counted in counts.items()
        ],
        "qc": [
            ("Tiles (TotalFOVCount)", f"{qc['fields']:,}", None),
            ("of these, with more than 3 track crossings (GoodFOVCount)", f"{qc['good_fields']:,}", None),
            ("Track lines found (TrackLineScore)", f"{qc['line_recall']:.1%}", None),
            ("Track crossings found (TemplateRecall)", f"{qc['template_recall']:.1%}", qc["track_cross_passed"]),
            ("Overlaps that fit together (ScopeStitchQCScore)", f"{qc['stitch_score']:.1%}", qc["stitch_passed"]),
            ("what these are still off", f"{qc['seam_um']:.2f} µm", None),
            ("Tiles elsewhere than the stage said, put right", f"{qc['out_of_place']:,}", None),
            ("Clear tiles (ClarityScore)", f"{qc['clarity']:.1%}", qc["clarity_passed"]),
            ("Width of a track line", f"{qc['line_width_um']:.1f} µm", None),
            ("Turn of the chip (Rotation)", f"{pose['rotation_deg']:+.3f}°", None),
            ("Scale", f"{pose['scale']:.5f}", None),
            ("Mirrored (Flip)", "yes" if pose["mirrored"] else "no", None),
            ("Right angles (CounterRot90)", f"{pose['quarter_turns']}", None),
            ("Distance of lines from the pattern, rms", f"{pose['residual_um']:.2f} µm", None),
        ],
    }


def _layer(run: Run, name: str) -> str:
    return run.maps.libraries[name].map.layer


def _located(counters: Mapping[str, int]) -> int:
    return counters["located_exact"] + counters["located_corrected"]


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _q30(library: LibraryMap) -> str:
    return _percent(int(library.quality_counts[:, _Q30:].sum()), int(library.base_counts[:, :4].sum()))


def _median(per_bin: NDArray[np.int64]) -> str:
    return f"median {np.median(per_bin):,.0f}" if per_bin.size else ""


def _by_molecules(library: LibraryMap) -> list[tuple[int, int]]:
    """Features with their molecules, most first."""
    spatial = library.map
    counts = np.zeros(spatial.feature_ids.size, np.int64)
    seen = np.flatnonzero(np.diff(spatial.offsets))
    if seen.size:
        counts[seen] = np.add.reduceat(spatial.molecules.astype(np.int64), spatial.offsets[seen])
    order = seen[np.lexsort((seen, -counts[seen]))]
    return [(int(feature), int(counts[feature])) for feature in order]


def _located_picture(library: LibraryMap, name: str) -> Picture:
    frame = library.map.frame
    image, bin_size = library.located, library.located_bin
    while image.sum() < _READS_PER_BIN * image.size and max(image.shape) >= 2 * SMALLEST_SIDE:
        image, bin_size = _halved(image), 2 * bin_size
    return Picture(
        image=image,
        title=f"located reads · {name}" + (f" · {frame.name}" if frame.name else ""),
        unit=f"reads per bin {bin_size:g}",
        bin_size=bin_size,
        pixel=bin_size * (frame.pitch_um or 1.0),
        length_unit="um" if frame.pitch_um else "spots",
        colours=COLOURS[library.map.layer],
    )


def _halved(image: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Sums of two by two bins."""
    rows, columns = image.shape
    even = np.pad(image, ((0, rows % 2), (0, columns % 2)))
    sums: NDArray[np.uint32] = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).sum(
        axis=(1, 3), dtype=np.uint32
    )
    return sums


def _image(picture: Picture, draw: Callable[[Picture], bytes] = draw_png) -> Markup:
    return _png(draw(picture), picture.title)


def _png(data: bytes, title: str) -> Markup:
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(title, base64.b64encode(data).decode("ascii"))


def _plain_image(picture: Picture) -> tuple[Markup, str]:
    """A small picture, and what its colours go up to."""
    return _image(picture, draw_plain_png), f"0 to {brightest(picture.image):,.0f} {picture.unit}"


def _saturation_chart(library: LibraryMap) -> Markup | None:
    points = library.saturation
    if points.shape[0] < 2:
        return None
    reads = points[:, 0].astype(np.float64)
    saturation = 100 * (1 - points[:, 1] / np.maximum(reads, 1))
    scale, unit = (
        (1e6, "million reads") if reads[-1] >= 2e6 else (1e3, "thousand reads") if reads[-1] >= 2e3 else (1, "reads")
    )
    line = Line("saturation", [0.0, *(reads / scale).tolist()], [0.0, *saturation.tolist()], OKABE_ITO["blue"])
    return Markup(
        line_chart(
            [line],
            title="Sequencing saturation against reads",
            x_label=f"assigned, {unit}",
            y_label="saturation, %",
            y_range=(0, 100),
        )
    )


def _cycles(library: LibraryMap, configured: Mapping[str, Any]) -> dict[str, Any]:
    """Charts and a table of what was called at every cycle."""
    bases = library.base_counts.astype(np.float64)
    qualities = library.quality_counts.astype(np.float64)
    cycles = bases.shape[0]
    if cycles == 0:
        return {"cycles": 0, "base_chart": None, "quality_chart": None, "segments": []}
    number = list(range(1, cycles + 1))
    share = 100 * bases / np.maximum(bases.sum(axis=1, keepdims=True), 1)
    colours = ("green", "blue", "orange", "vermilion", "grey")
    base_lines = [
        Line(base, number, share[:, column].tolist(), OKABE_ITO[colour])
        for column, (base, colour) in enumerate(zip("ACGTN", colours, strict=True))
    ]
    # A base that was not called has no quality: the mean and Q30 are over called bases.
    called = bases[:, :4].sum(axis=1)
    uncalled = bases[:, 4]
    zero = np.zeros_like(qualities)
    zero[:, 0] = np.minimum(uncalled, qualities[:, 0])
    qualities = qualities - zero
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(called > 0, qualities @ np.arange(64) / called, np.nan)
        q30 = np.where(called > 0, 100 * qualities[:, _Q30:].sum(axis=1) / called, np.nan)
    structures, lengths = _reads(configured, cycles)
    starts = np.cumsum([0, *lengths[:-1]]).tolist() if lengths else []
    marks = [(start + 0.5, f"read {read}") for read, start in enumerate(starts, 1)] if len(starts) > 1 else []
    x_range = (0.5, cycles + 0.5)
    base_chart = line_chart(
        base_lines,
        title="Base composition by cycle",
        x_label="cycle",
        y_label="bases, %",
        y_range=(0, max(50.0, float(np.ceil(share.max() / 10) * 10))),
        x_range=x_range,
        marks=marks,
    )
    quality_chart = line_chart(
        [
            Line("mean quality (Phred)", number, mean.tolist(), OKABE_ITO["blue"]),
            Line("bases of Q30 or better, %", number, q30.tolist(), OKABE_ITO["vermilion"]),
        ],
        title="Mean quality and Q30 by cycle",
        x_label="cycle",
        y_label="Phred, or %",
        y_range=(0, 100),
        x_range=x_range,
        marks=marks,
    )
    segments = []
    for kind, text in _SEGMENTS:
        rows = rows_of(structures, lengths, kind) if lengths else np.zeros(0, np.int64)
        total = called[rows].sum()
        if total:
            segments.append(
                (
                    text,
                    int(rows.size),
                    f"{(qualities[rows] @ np.arange(64)).sum() / total:.1f}",
                    f"{qualities[rows][:, _Q30:].sum() / total:.1%}",
                )
            )
    return {
        "cycles": cycles,
        "base_chart": Markup(base_chart),
        "quality_chart": Markup(quality_chart),
        "segments": segments,
    }


def _reads(configured: Mapping[str, Any], cycles: int) -> tuple[list[ReadStructure], list[int]]:
    """The read structures and the cycles of each read; empty where the configuration does not tell."""
    try:
        structures = [ReadStructure.parse(str(text)) for text in configured.get("read_structures", [])]
    except InputError:
        return [], []
    lengths = [structure.fixed_length for structure in structures]
    open_reads = [read for read, length in enumerate(lengths) if length is None]
    known = sum(length or 0 for length in lengths)
    if len(open_reads) > 1 or not structures or (not open_reads and known != cycles):
        return [], []
    whole = [length if length is not None else cycles - known for length in lengths]
    if any(length < structure.minimum_length for structure, length in zip(structures, whole, strict=True)):
        return [], []
    return structures, whole


def _known(qc: Mapping[str, Any]) -> dict[str, Any]:
    """What the snapshot itself says of the rules: no barcodes are merged where the chemistry has none."""
    return {key: qc[key] for key in ("mid_collapse",) if key in qc}


def _what_was_counted(layer: str, counters: Mapping[str, int], configured: Mapping[str, Any]) -> list[str]:
    """Sentences about the rules that the numbers follow."""
    mismatches = configured.get("mismatches", 1)
    sentences = [
        f"A spatial barcode may differ from the chip's by {mismatches} substitution{'' if mismatches == 1 else 's'}, "
        "if one spot only is that near; two candidates are no answer."
    ]
    if layer == "rna":
        if configured.get("count_intronic", counters["assigned_intronic"] > 0):
            intronic, assigned = counters["assigned_intronic"], counters["assigned"]
            sentences.append(
                f"Intronic reads are counted with their gene: {intronic:,} of {assigned:,} counted reads "
                f"({_percent(intronic, assigned)})."
            )
        else:
            sentences.append("Intronic reads are not counted: the map holds exonic molecules only.")
    else:
        window = configured.get("window_bp")
        width = f"{window:,} bp" if isinstance(window, int) else "a set width"
        sentences.append(
            f"A DNA molecule is counted in the genome window ({width}) in which its 5' end lies. "
            "Windows are not corrected for GC content or mappability."
        )
    collapse = configured.get("mid_collapse")
    if collapse == "off":
        sentences.append("Molecular barcodes are counted as read: none were merged.")
    elif collapse:
        rule = "" if collapse == "greedy" else ", where a spot and feature have five or more"
        sentences.append(
            f"Molecular barcodes one substitution apart are one molecule (method {collapse}{rule}). "
            "Map, Unique Reads and saturation are counted after that."
        )
    return sentences
