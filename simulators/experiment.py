"""A whole experiment as files: the chip's barcode table, a reference, the reads, and the truth beside them.

    FOLDER/ experiment.toml          what is what, for the program that reads it
            chip.barcodeToPos.h5     barcode of each spot
            genome.fa.gz genes.gtf.gz
            rna_1.fq.gz rna_2.fq.gz  read 1: CID and MID; read 2: cDNA
            truth/truth.h5           molecules, genes, regions, cells (and every read, if asked for)
            truth/truth.json         settings, counts of every kind, rates as they came out

The same settings give the same bytes. Beside the reads of one block, memory holds five bytes a read (twice that
while they are put in random order) and about 60 bytes a molecule.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.chip import Chip, ChipSettings, make_chip, write_chip
from cartoseq.simulators.genome import (
    GENE_CLASSES,
    UNIQUE,
    Genome,
    GenomeSettings,
    make_genome,
    read_genome,
    write_genome,
)
from cartoseq.simulators.library import (
    EXONIC,
    MOLECULE,
    NO_GENE,
    ORIGINS,
    READ_KINDS,
    LibrarySettings,
    Molecules,
    ReadPlan,
    draw_copies,
    draw_molecules,
    expected_loss,
    make_templates,
    plan_reads,
    split_reads,
)
from cartoseq.simulators.reads import ReadTally, write_reads
from cartoseq.simulators.tissue import PROGRAMMES, REGIONS, Tissue, TissueSettings, gene_names, make_tissue

Progress = Callable[[int, int], None]
_DESCRIPTION: Final = """\
[chip]
barcodes = "chip.barcodeToPos.h5"

[[library]]
name = "rna"
layer = "rna"
read_structures = ["{cid}C{mid}M", "{template}T"]
reads = [["rna_1.fq.gz", "rna_2.fq.gz"]]
genome = "genome.fa.gz"
genes = "genes.gtf.gz"
"""


@dataclass(frozen=True)
class ExperimentSettings:
    """What to simulate.

    Attributes:
        seed: The same seed gives the same experiment.
        reads: Read pairs.
        chip: The chip.
        genome: The made-up reference; unused if ``fasta`` and ``gtf`` are given.
        tissue: The section.
        library: The library and how it is read.
        fasta: A real reference, gzipped or not.
        gtf: Its genes.
        read_truth: Keep what every read is (13 bytes a read before compression).
    """

    seed: int = 1
    reads: int = 1_000_000
    chip: ChipSettings = field(default_factory=ChipSettings)
    genome: GenomeSettings = field(default_factory=GenomeSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    library: LibrarySettings = field(default_factory=LibrarySettings)
    fasta: Path | None = None
    gtf: Path | None = None
    read_truth: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.reads < 2**32:
            raise ValueError(f"{self.reads} read pairs: 1 to 2**32 - 1 are possible")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed}: seeds are not negative")
        if (self.fasta is None) != (self.gtf is None):
            raise ValueError("a real reference needs both fasta and gtf")


def simulate_experiment(folder: Path, settings: ExperimentSettings, progress: Progress | None = None) -> Path:
    """Simulate an experiment into ``folder``, which is made if need be.

    Args:
        folder: Where to write; files of these names are replaced.
        settings: What to simulate.
        progress: Called with read pairs written and read pairs in all.

    Returns:
        The path of ``experiment.toml``, which is written last: where it is, the experiment is whole.

    Raises:
        ValueError: the settings contradict each other, or the chip is too small for a tissue.
    """
    library = settings.library
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / "experiment.toml"
    description.unlink(missing_ok=True)
    chip = make_chip(settings.chip, settings.seed)
    write_chip(chip, folder / "chip.barcodeToPos.h5")
    genome, tissue = _make_biology(folder, settings)
    templates = make_templates(genome, library.template_length)
    copies = draw_copies(library, split_reads(library, settings.reads)[MOLECULE], settings.seed)
    molecules = draw_molecules(library, chip, tissue, genome, templates, copies, settings.seed)
    plan = plan_reads(library, copies, settings.reads, settings.seed)
    paths = (folder / "rna_1.fq.gz", folder / "rna_2.fq.gz")
    tally = write_reads(paths, library, chip, templates, molecules, plan, settings.seed, progress)
    truth = folder / "truth"
    truth.mkdir(exist_ok=True)
    _write_truth(truth / "truth.h5", settings, genome, tissue, molecules, plan, tally)
    summary = _summary(settings, chip, genome, molecules, plan, tally)
    (truth / "truth.json").write_text(json.dumps(summary, indent=1) + "\n")
    description.write_text(
        _DESCRIPTION.format(cid=settings.chip.barcode_length, mid=library.mid_length, template=library.template_length)
    )
    return description


def cells_um(folder: Path) -> NDArray[np.float64] | None:
    """Where the cells of a simulated experiment lie on its chip, micrometres, shape (n, 2); nothing of any other one.

    Args:
        folder: That of ``experiment.toml``.
    """
    truth = folder / "truth" / "truth.h5"
    if not truth.exists():
        return None
    with h5py.File(truth) as file:
        cells = file["cells"]
        places: NDArray[np.float64] = np.column_stack([cells["x"][()], cells["y"][()]])
        return places * (float(cells.attrs.get("pitch_nm", 500)) / 1000.0)


def _make_biology(folder: Path, settings: ExperimentSettings) -> tuple[Genome, Tissue]:
    """The reference, written to the folder, and the section that expresses its genes."""
    fasta, gtf = folder / "genome.fa.gz", folder / "genes.gtf.gz"
    if settings.fasta is not None and settings.gtf is not None:
        genome = read_genome(settings.fasta, settings.gtf)
        _copy_gzipped(settings.fasta, fasta)
        _copy_gzipped(settings.gtf, gtf)
    else:
        genome = make_genome(settings.genome, settings.seed)
    chip = settings.chip
    tissue = make_tissue(settings.tissue, chip.height, chip.width, chip.pitch_nm, genome.families, settings.seed)
    if settings.fasta is None:
        names = gene_names(tissue.markers)
        genes = tuple(dataclasses.replace(gene, name=name) for gene, name in zip(genome.genes, names, strict=True))
        genome = dataclasses.replace(genome, genes=genes)
        write_genome(genome, fasta, gtf)
    return genome, tissue


def _copy_gzipped(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if zipped:
        shutil.copyfile(source, target)
    else:
        target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))


def _write_truth(
    path: Path,
    settings: ExperimentSettings,
    genome: Genome,
    tissue: Tissue,
    molecules: Molecules,
    plan: ReadPlan,
    tally: ReadTally,
) -> None:
    """Write the truth; docs/simulation.md describes each dataset."""
    with h5py.File(path, "w") as file:

        def put(name: str, values: NDArray[np.generic], **attributes: object) -> None:
            dataset = file.create_dataset(
                name, data=values, compression="gzip", compression_opts=1, shuffle=True, track_times=False
            )
            dataset.attrs.update(attributes)

        file.attrs["format"], file.attrs["version"] = "cartoseq-truth", 1
        for name, values in (
            ("x", molecules.x),
            ("y", molecules.y),
            ("gene", molecules.genes),
            ("mid", molecules.mids),
            ("copies", molecules.copies),
            ("readable", tally.readable),
            ("origin", molecules.origins),
            ("start", molecules.starts),
            ("ambient", molecules.ambient),
        ):
            put(f"molecules/{name}", values)
        file["molecules"].attrs["origins"] = np.array(ORIGINS, dtype="S")
        for name, texts in (
            ("id", [gene.gene_id for gene in genome.genes]),
            ("name", [gene.name for gene in genome.genes]),
        ):
            put(f"genes/{name}", np.array([text.encode() for text in texts]))
        put("genes/class", genome.gene_classes)
        put("genes/marks", tissue.markers)
        put("genes/family", genome.families)
        file["genes"].attrs["classes"] = np.array(GENE_CLASSES, dtype="S")
        put("expression", tissue.expression, programmes=np.array(PROGRAMMES, dtype="S"))
        put("regions", tissue.regions, names=np.array(REGIONS, dtype="S"))
        for name, column in vars(tissue.cells).items():
            put(f"cells/{name}", column)
        file["cells"].attrs["pitch_nm"] = settings.chip.pitch_nm
        if settings.read_truth:
            # What lends a read its spot is true of it, except for the reads that never were on this chip.
            on_chip = plan.kinds != READ_KINDS.index("off_chip")
            of_molecule = plan.kinds == MOLECULE
            put("reads/kind", plan.kinds, kinds=np.array(READ_KINDS, dtype="S"))
            put("reads/x", np.where(on_chip, molecules.x[plan.molecules], -1).astype(np.int32))
            put("reads/y", np.where(on_chip, molecules.y[plan.molecules], -1).astype(np.int32))
            put("reads/gene", np.where(of_molecule, molecules.genes[plan.molecules], NO_GENE).astype(np.uint32))
            put("reads/molecule", np.where(of_molecule, plan.molecules, 0xFFFFFFFF).astype(np.uint32))


def _summary(
    settings: ExperimentSettings,
    chip: Chip,
    genome: Genome,
    molecules: Molecules,
    plan: ReadPlan,
    tally: ReadTally,
) -> dict[str, object]:
    library, reads = settings.library, settings.reads
    kinds = np.bincount(plan.kinds, minlength=len(READ_KINDS)).tolist()
    origins = np.bincount(molecules.origins, minlength=len(ORIGINS)).tolist()
    of_reads = np.bincount(molecules.origins, weights=molecules.copies, minlength=len(ORIGINS)).astype(int).tolist()
    exonic = molecules.origins == EXONIC
    unique = exonic.copy()
    unique[exonic] = genome.gene_classes[molecules.genes[exonic]] == UNIQUE
    counts = tally.counts
    placed = counts["cid_exact"] + counts["cid_one_wrong"] + counts["cid_more_wrong"]
    # The reads of the other on-chip kinds are read as well as those of molecules.
    on_chip = (reads - kinds[-1]) / reads
    parameters = dataclasses.asdict(settings)
    # Where a reference lay, and under what path, is no part of the truth.
    parameters["fasta"], parameters["gtf"] = (
        None if given is None else given.name for given in (settings.fasta, settings.gtf)
    )
    return {
        "settings": parameters,
        "spots": chip.spots,
        "reads": reads,
        "reads_by_kind": dict(zip(READ_KINDS, kinds, strict=True)),
        "molecules": int(molecules.x.size),
        "molecules_by_origin": dict(zip(ORIGINS, origins, strict=True)),
        "molecule_reads_by_origin": dict(zip(ORIGINS, of_reads, strict=True)),
        "exonic_molecules_of_unique_genes": int(np.count_nonzero(unique)),
        "unreadable_molecules": int(np.count_nonzero(tally.readable == 0)),
        "expected_unreadable_share": expected_loss(library, molecules.copies),
        "saturation": 1.0 - molecules.x.size / kinds[MOLECULE],
        "tally": counts,
        "rates": {
            "cid_exact_of_reads": on_chip * counts["cid_exact"] / placed,
            "cid_one_wrong_of_reads": on_chip * counts["cid_one_wrong"] / placed,
            "template_wrong_per_base": counts["template_wrong_bases"] / counts["template_bases"],
            "q30_cid": counts["q30_cid_bases"] / (reads * settings.chip.barcode_length),
            "q30_mid": counts["q30_mid_bases"] / (reads * library.mid_length),
            "q30_template": counts["q30_template_bases"] / (reads * library.template_length),
        },
    }
