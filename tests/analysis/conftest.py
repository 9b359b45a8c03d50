"""A small finished run on disk, with invented counts that add up, for the tests of exports, report and open_run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.counters import check
from cartoseq.analysis.maps import LibraryMap, Maps, SpatialMap, write_maps
from cartoseq.analysis.registration import register_scan
from cartoseq.analysis.saturation import saturation, saturation_curve
from cartoseq.analysis.tilefolder import TileFolder
from cartoseq.analysis.tissueimages import write_tissue_images

from ..scans import Microscope, scan, scene

MakeRun = Callable[..., Path]

SETTINGS = """\
[chip]
barcodes = "chip.barcodeToPos.h5"
name = "B01234C5"

[[library]]
name = "rna"
layer = "rna"
read_structures = ["25C10M", "+T"]
genome = "genome.fa"
genes = "genes.gtf"
mismatches = 1
count_intronic = true
mid_collapse = "greedy"

[[library]]
name = "dna"
layer = "dna"
read_structures = ["25C10M", "50T"]
genome = "genome.fa"
window_bp = 1_000_000
"""


def _map(frame: ChipFrame, library: str, layer: str, features: int, molecules: int, seed: int) -> SpatialMap:
    """A tissue of the shape of an ellipse; every feature has a band of its own."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 2 * np.pi, molecules)
    radius = np.sqrt(random.uniform(0, 1, molecules)) * 0.45
    x = ((0.5 + radius * np.cos(angle)) * frame.width).astype(np.int64)
    y = ((0.5 + 0.8 * radius * np.sin(angle)) * frame.height).astype(np.int64)
    feature = np.minimum(random.geometric(0.15, molecules) - 1, features - 2)
    feature = np.where(random.random(molecules) < 0.5, (x * (features - 1)) // frame.width, feature)
    keys, counts = np.unique(np.column_stack([feature, y, x]), axis=0, return_counts=True)
    if layer == "dna":
        names = ids = np.array([f"chr1:{k * 1000000}-{(k + 1) * 1000000}" for k in range(features)])
    else:
        ids = np.array([f"ENSMUSG{k:011}" for k in range(features)])
        names = np.array([f"Gene{k}" for k in range(features)])
    listed = frame.kind is FrameKind.LISTED
    dtype = np.float64 if listed else np.int32
    return SpatialMap(
        library=library,
        layer=layer,
        feature_ids=ids,
        feature_names=names,
        offsets=np.concatenate([[0], np.cumsum(np.bincount(keys[:, 0], minlength=features))]).astype(np.int64),
        x=(keys[:, 2] + frame.origin_x).astype(dtype) + (0.3 if listed else 0),
        y=(keys[:, 1] + frame.origin_y).astype(dtype) + (0.3 if listed else 0),
        molecules=counts.astype(np.uint32),
        reads=(2 * counts).astype(np.uint32),
        frame=frame,
    )


def _counters(molecules: int, layer: str) -> dict[str, int]:
    """Counts of reads that fit a number of molecules, each read twice."""
    counters = {
        "mid_n": molecules // 50,
        "mid_homopolymer": min(7, molecules),
        "mid_low_quality": molecules // 30,
        "assigned": 2 * molecules,
        "assigned_intronic": 0 if layer == "dna" else molecules // 5,
        "multi_gene": 0 if layer == "dna" else molecules // 40,
        "antisense": 0 if layer == "dna" else molecules // 9,
        "intronic": 0,
        "intergenic": 0 if layer == "dna" else molecules // 6,
        "multi_mapped": molecules // 8,
        "unmapped": molecules // 4,
    }
    located = sum(counters.values()) - counters["assigned_intronic"]
    counters |= {
        "located_corrected": located // 6,
        "located_exact": located - located // 6,
        "corrected_n": located // 90,
        "ambiguous": min(3, molecules),
        "unmatched": located // 5,
        "barcode_n": located // 70,
    }
    lost = counters["ambiguous"] + counters["unmatched"] + counters["barcode_n"]
    counters |= {
        "reads_total": located + lost,
        "molecules_distinct": molecules + molecules // 100,
        "molecules_collapsed": molecules // 100,
        "molecules": molecules,
    }
    check(counters, layer)
    return counters


def _cycles(reads: int, cycles: int) -> tuple[np.ndarray, np.ndarray]:
    bases = np.zeros((cycles, 5), np.uint64)
    qualities = np.zeros((cycles, 64), np.uint64)
    for cycle in range(cycles):
        n = cycle if reads > 5 * cycles else 0
        called = reads - n
        bases[cycle] = (called // 4 + n, called // 4, called // 4 - n, called - 3 * (called // 4), n)
        good = called - cycle * reads // (3 * cycles)
        qualities[cycle, 0], qualities[cycle, 14], qualities[cycle, 36] = n, called - good, good
    return bases, qualities


def _write(
    folder: Path,
    *,
    side: tuple[int, int] = (400, 300),
    molecules: int = 3000,
    listed: bool = False,
    pitch_um: float | None = 0.5,
    libraries: tuple[str, ...] = ("rna", "dna"),
) -> Path:
    width, height = side
    here = np.arange(4) / 3
    frame = ChipFrame(
        kind=FrameKind.LISTED if listed else FrameKind.LATTICE,
        origin_x=1000,
        origin_y=2000,
        width=width + listed,
        height=height + listed,
        pitch_um=pitch_um,
        x=1000 + here * width if listed else None,
        y=2000 + here * height if listed else None,
        name="B01234C5",
    )
    maps, qc = {}, {}
    for number, name in enumerate(libraries):
        layer, count = name[:3], molecules // (1 + number)
        spatial = _map(frame, name, layer, 40 if layer == "rna" else 25, count, seed=number)
        counters = _counters(count, layer)
        bases, qualities = _cycles(counters["reads_total"], 25 + 10 + (60 if layer == "rna" else 50))
        copies = np.zeros(8, np.uint64)
        copies[1], copies[2], copies[3] = count // 4, count - 2 * (count // 4), count // 4
        bin_size = max(1, -(-max(side) // 512))
        maps[name] = LibraryMap(
            map=spatial,
            totals=counters,
            copies=copies,
            saturation=saturation_curve(copies),
            located=np.asarray(spatial.total(bin_size) * np.uint32(3)),
            located_bin=bin_size,
            base_counts=bases,
            quality_counts=qualities,
        )
        qc[name] = {
            "layer": layer,
            "counters": counters,
            "chip_barcodes": width * height,
            "saturation": saturation(counters["molecules"], counters["assigned"]),
        }
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text(SETTINGS)
    write_maps(folder / "maps.h5", Maps(frame, maps, log_position=12))
    content = {
        "schema": 1,
        "libraries": qc,
        "versions": {"cartoseq": "0.1.0", "numpy": "2.4"},
        "log_position": 12,
        "complete": True,
    }
    (folder / "qc.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Write a run: ``make_run(folder, side=(400, 300), molecules=3000, listed=False, pitch_um=0.5, libraries=...)``."""
    return _write


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to read from, not to write into."""
    return _write(tmp_path_factory.mktemp("runs") / "mouse-brain")


@pytest.fixture(scope="session")
def run_with_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a chip of 1,900 x 1,500 um whose tissue was taken and registered; to read from."""
    run = _write(tmp_path_factory.mktemp("runs") / "with-images", side=(3800, 3000), molecules=6000)
    scan(run / "images", Microscope(scene(41)))
    write_tissue_images(register_scan(TileFolder(run / "images" / "tissue")), pixel_um=4.0)
    return run
