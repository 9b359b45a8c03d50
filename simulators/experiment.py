"""A whole experiment as files: the chip's barcode table, a reference, the reads, and the truth beside them.

    FOLDER/ experiment.toml          what is what, for the program that reads it
            chip.barcodeToPos.h5     barcode of each spot
            genome.fa.gz genes.gtf.gz
            rna_1.fq.gz rna_2.fq.gz  read 1: CID and MID; read 2: cDNA
            dna_1.fq.gz dna_2.fq.gz  read 2: genomic DNA, if asked for
            known.vcf                variants that are known before the run
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
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.chip import Chip, ChipSettings, make_chip, write_chip
from cartoseq.simulators.clones import GENOMES, Clones, CloneSettings, make_clones
from cartoseq.simulators.dnalibrary import (
    DnaSettings,
    draw_fragments,
    five_prime_ends,
    fragment_pool,
    molecules_of,
    sightings,
)
from cartoseq.simulators.expression import EFFECTS, Effects, draw_effects, no_effects
from cartoseq.simulators.genome import (
    GENE_CLASSES,
    UNIQUE,
    Genome,
    GenomeSettings,
    make_genome,
    read_genome,
    write_genome,
)
from cartoseq.simulators.knownvariants import write_known_variants
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
_DNA_DESCRIPTION: Final = """
[[library]]
name = "dna"
layer = "dna"
read_structures = ["{cid}C{mid}M", "{template}T"]
reads = [["dna_1.fq.gz", "dna_2.fq.gz"]]
genome = "genome.fa.gz"
window_bp = {window_bp}
"""
#: A genome is cut into about so many windows, as a human one is by 1 Mb; plain numbers only.
_WINDOWS: Final = 3_000
#: What sets the random numbers of the DNA library apart from those of the RNA library.
_DNA_SEED: Final = 1_000_003


@dataclass(frozen=True)
class ExperimentSettings:
    """What to simulate.

    Attributes:
        seed: The same seed gives the same experiment.
        reads: Read pairs of the RNA library.
        dna_reads: Read pairs of the DNA library; 0 for none.
        chip: The chip.
        genome: The made-up reference; unused if ``fasta`` and ``gtf`` are given.
        tissue: The section.
        library: The RNA library and how it is read.
        dna: The DNA library's fragments.
        dna_library: How these are copied and read; what it says of transcripts has no meaning.
        clones: Variants of the tumour; its size is the tissue's ``tumour_share``.
        fasta: A real reference, gzipped or not.
        gtf: Its genes.
        read_truth: Keep what every read is (13 bytes a read before compression).
    """

    seed: int = 1
    reads: int = 1_000_000
    dna_reads: int = 0
    chip: ChipSettings = field(default_factory=ChipSettings)
    genome: GenomeSettings = field(default_factory=GenomeSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    library: LibrarySettings = field(default_factory=LibrarySettings)
    dna: DnaSettings = field(default_factory=DnaSettings)
    dna_library: LibrarySettings = field(default_factory=lambda: LibrarySettings(mean_copies=1.5))
    clones: CloneSettings = field(default_factory=CloneSettings)
    fasta: Path | None = None
    gtf: Path | None = None
    read_truth: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.reads < 2**32:
            raise ValueError(f"{self.reads} read pairs: 1 to 2**32 - 1 are possible")
        if not 0 <= self.dna_reads < 2**32:
            raise ValueError(f"{self.dna_reads} read pairs of DNA: 0 to 2**32 - 1 are possible")
        if self.dna.template_length != self.dna_library.template_length:
            raise ValueError("dna and dna_library must agree in template_length")
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
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / "experiment.toml"
    description.unlink(missing_ok=True)
    chip = make_chip(settings.chip, settings.seed)
    write_chip(chip, folder / "chip.barcodeToPos.h5")
    biology = _make_biology(folder, settings)
    truth = folder / "truth"
    truth.mkdir(exist_ok=True)
    reads_in_all = settings.reads + settings.dna_reads

    def told_from(first: int) -> Progress | None:
        return None if progress is None else lambda done, _: progress(first + done, reads_in_all)

    with h5py.File(truth / "truth.h5", "w") as file:
        file.attrs["format"], file.attrs["version"] = "cartoseq-truth", 1
        _put_biology(file, settings, biology)
        summary = _write_rna(folder, settings, chip, biology, file, told_from(0))
        if biology.clones is not None and settings.dna_reads:
            dna_progress = told_from(settings.reads)
            summary["dna"] = _write_dna(folder, settings, chip, biology, biology.clones, file, dna_progress)
    (truth / "truth.json").write_text(json.dumps(summary, indent=1) + "\n")
    lengths = {"cid": settings.chip.barcode_length}
    text = _DESCRIPTION.format(mid=settings.library.mid_length, template=settings.library.template_length, **lengths)
    if settings.dna_reads:
        dna = settings.dna_library
        window_bp = plain_window(sum(contig.size for contig in biology.genome.contigs))
        text += _DNA_DESCRIPTION.format(
            mid=dna.mid_length, template=dna.template_length, window_bp=window_bp, **lengths
        )
    description.write_text(text)
    return description


@dataclass(frozen=True)
class Biology:
    """What lies on the chip, and in its cells; ``clones`` where there is a tumour, or DNA is read."""

    genome: Genome
    tissue: Tissue
    clones: Clones | None
    effects: Effects


def plain_window(bases: int) -> int:
    """A width of windows that cuts so many bases into about 3,000: 1, 2 or 5 times a power of ten, 1,000 and more."""
    wanted = max(bases / _WINDOWS, 1_000)
    power = 10 ** int(np.floor(np.log10(wanted)))
    return int(min((power * step for step in (1, 2, 5, 10)), key=lambda width: abs(np.log(width / wanted))))


def _write_rna(
    folder: Path, settings: ExperimentSettings, chip: Chip, biology: Biology, file: h5py.File, progress: Progress | None
) -> dict[str, object]:
    """Write the reads of the RNA library and its truth; returns its summary."""
    library, genome = settings.library, biology.genome
    templates = make_templates(genome, library.template_length)
    copies = draw_copies(library, split_reads(library, settings.reads)[MOLECULE], settings.seed)
    molecules = draw_molecules(library, chip, biology.tissue, genome, templates, biology.effects, copies, settings.seed)
    plan = plan_reads(library, copies, settings.reads, settings.seed)
    paths = (folder / "rna_1.fq.gz", folder / "rna_2.fq.gz")
    tally = write_reads(paths, library, chip, templates.pool, molecules, plan, settings.seed, progress)
    _put_molecules(file, settings, molecules, plan, tally)
    return _summary(settings, chip, genome, molecules, plan, tally)


def _write_dna(
    folder: Path,
    settings: ExperimentSettings,
    chip: Chip,
    biology: Biology,
    clones: Clones,
    file: h5py.File,
    progress: Progress | None,
) -> dict[str, object]:
    """Write the reads of the DNA library, what is known of its variants, and its truth; returns its summary."""
    library, seed = settings.dna_library, settings.seed + _DNA_SEED
    write_known_variants(biology.genome, clones.loci, folder / "known.vcf")
    copies = draw_copies(library, split_reads(library, settings.dna_reads)[MOLECULE], seed)
    fragments = draw_fragments(settings.dna, chip, biology.tissue, biology.genome, clones, copies.size, settings.seed)
    seen = sightings(settings.dna, clones, fragments, settings.seed)
    pool, places = fragment_pool(settings.dna, biology.genome, clones, fragments, seen)
    molecules = molecules_of(library, fragments, places, copies, seed)
    plan = plan_reads(library, copies, settings.dna_reads, seed)
    paths = (folder / "dna_1.fq.gz", folder / "dna_2.fq.gz")
    tally = write_reads(paths, library, chip, pool, molecules, plan, seed, progress)
    for name, column in vars(fragments).items():
        _put(file, f"dna/fragments/{name}", column)
    for name, column in (("mid", molecules.mids), ("copies", molecules.copies), ("readable", tally.readable)):
        _put(file, f"dna/fragments/{name}", column)
    for name, column in vars(five_prime_ends(settings.dna, clones, fragments)).items():
        _put(file, f"dna/ends/{name}", column)
    for name, column in vars(seen).items():
        _put(file, f"dna/sightings/{name}", column)
    kinds = np.bincount(plan.kinds, minlength=len(READ_KINDS)).tolist()
    return {
        "reads": settings.dna_reads,
        "reads_by_kind": dict(zip(READ_KINDS, kinds, strict=True)),
        "fragments": int(fragments.x.size),
        "fragments_across_junctions": int(np.count_nonzero(fragments.junction >= 0)),
        "saturation": 1.0 - fragments.x.size / int(np.count_nonzero(plan.kinds == MOLECULE)),
        "tally": tally.counts,
    }


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


def _make_biology(folder: Path, settings: ExperimentSettings) -> Biology:
    """The reference, written to the folder, the section, and what is in the genomes of its cells."""
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
    clones, effects = None, no_effects(len(genome.genes))
    if settings.tissue.tumour_share or settings.dna_reads:
        clones = make_clones(settings.clones, genome, settings.seed)
    if clones is not None and settings.tissue.tumour_share:
        effects = draw_effects(genome, clones, settings.seed)
    return Biology(genome, tissue, clones, effects)


def _copy_gzipped(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if zipped:
        shutil.copyfile(source, target)
    else:
        target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))


def _put(file: h5py.File, name: str, values: NDArray[Any], **attributes: object) -> None:
    stored = values.astype("S") if values.dtype.kind == "U" else values
    dataset = file.create_dataset(
        name, data=stored, compression="gzip", compression_opts=1, shuffle=True, track_times=False
    )
    dataset.attrs.update(attributes)


def _put_biology(file: h5py.File, settings: ExperimentSettings, biology: Biology) -> None:
    """Write what lies on the chip; docs/simulation.md describes each dataset."""
    genome, tissue, clones, effects = biology.genome, biology.tissue, biology.clones, biology.effects
    for name, texts in (
        ("id", [gene.gene_id for gene in genome.genes]),
        ("name", [gene.name for gene in genome.genes]),
    ):
        _put(file, f"genes/{name}", np.array([text.encode() for text in texts]))
    _put(file, "genes/class", genome.gene_classes)
    _put(file, "genes/marks", tissue.markers)
    _put(file, "genes/family", genome.families)
    file["genes"].attrs["classes"] = np.array(GENE_CLASSES, dtype="S")
    _put(file, "expression", tissue.expression, programmes=np.array(PROGRAMMES, dtype="S"))
    _put(file, "regions", tissue.regions, names=np.array(REGIONS, dtype="S"))
    for name in ("x", "y", "regions", "programmes", "brightness"):
        _put(file, f"cells/{name}", getattr(tissue.cells, name))
    file["cells"].attrs["pitch_nm"] = settings.chip.pitch_nm
    if clones is None:
        return
    for name in ("genomes", "tumour_density"):
        _put(file, f"cells/{name}", getattr(tissue.cells, name))
    _put(file, "genes/effect", effects.classes, classes=np.array(EFFECTS, dtype="S"))
    for name in ("dosage_slope", "clone_log2_fold", "density_log2_fold"):
        _put(file, f"genes/{name}", getattr(effects, name))
    for part in ("segments", "loci"):
        for name, column in vars(getattr(clones, part)).items():
            _put(file, f"clones/{part}/{name}", column)
    file["clones"].attrs["genomes"] = np.array(GENOMES, dtype="S")
    for name in ("kind", "haplotype", "contig_a", "place_a", "contig_b", "place_b", "reversed_a", "reversed_b"):
        _put(file, f"clones/rearrangements/{name}", np.array([getattr(one, name) for one in clones.rearrangements]))
    carriers = np.array(
        [[number in found.genomes for number in range(len(GENOMES))] for found in clones.rearrangements]
    )
    _put(file, "clones/rearrangements/genomes", carriers)


def _put_molecules(
    file: h5py.File, settings: ExperimentSettings, molecules: Molecules, plan: ReadPlan, tally: ReadTally
) -> None:
    """Write the molecules of RNA, and what each read is if that is asked for."""
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
        _put(file, f"molecules/{name}", values)
    file["molecules"].attrs["origins"] = np.array(ORIGINS, dtype="S")
    if settings.read_truth:
        # What lends a read its spot is true of it, except for the reads that never were on this chip.
        on_chip = plan.kinds != READ_KINDS.index("off_chip")
        of_molecule = plan.kinds == MOLECULE
        _put(file, "reads/kind", plan.kinds, kinds=np.array(READ_KINDS, dtype="S"))
        _put(file, "reads/x", np.where(on_chip, molecules.x[plan.molecules], -1).astype(np.int32))
        _put(file, "reads/y", np.where(on_chip, molecules.y[plan.molecules], -1).astype(np.int32))
        _put(file, "reads/gene", np.where(of_molecule, molecules.genes[plan.molecules], NO_GENE).astype(np.uint32))
        _put(file, "reads/molecule", np.where(of_molecule, plan.molecules, 0xFFFFFFFF).astype(np.uint32))


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
