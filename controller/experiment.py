"""What an experiment consists of: a chip, the libraries sequenced on it, and how the run is kept.

The tables of the experiment file (docs/experiment.md) as immutable objects. A table checks itself when it is made;
its faults are :class:`Problem` objects, so that the reader of the file (config.py) can add line and key to each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from cartoseq.controller.settingsfile import Problem, fault, faults, shown
from cartoseq.controller.toml_lines import KeyPath, key_name
from cartoseq.streaming.errors import InputError
from cartoseq.streaming.readstructure import ReadStructure, SegmentKind

LONGEST_BARCODE = 32
"""Bases of a spatial barcode that fit into 64 bits."""
LONGEST_MID = 16
"""Bases of a molecular barcode; a longer one is a mistake in the read structure."""
CHIP_TABLES = (".txt", ".csv", ".tsv")
CHIP_FILES = (".h5", ".bin", *CHIP_TABLES)
LOCI_FILES = (".vcf", ".vcf.gz", ".bcf")
RNA_KEYS = frozenset({"genes", "strand", "count_intronic", "trim_poly_a"})
"""Keys that say something about transcripts only."""
DNA_KEYS = frozenset({"window_bp"})


def _path_in_folder(value: object, info: ValidationInfo) -> object:
    """Take a path as it is meant: from the folder of the experiment file, ``~`` being the home folder."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise fault(f"expected the path of a file, found {shown(value)}", "Write the path in quotes.")
    if not value.strip():
        raise fault("the path is empty", "Write the path of the file, or leave the key out.")
    folder = (info.context or {}).get("folder")
    path = Path(value).expanduser()
    return folder / path if folder else path


def _column(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise fault(
            f"expected a column's name or number, found {shown(value)}",
            'Write the name in quotes ("barcode") or the number, counted from 0.',
        )
    if value == "" or (isinstance(value, int) and value < 0):
        raise fault(f"{shown(value)} is no column", "Columns are counted from 0.")
    return value


def _grouped_names(value: object) -> object:
    if value is not False and value not in ("auto", *CODECS):
        raise fault(
            f'expected false, "auto" or a codec, found {shown(value)}',
            f'Write grouped_names = "auto" to find out the codec, or one of {", ".join(CODECS)}.',
        )
    return value


def _read_structure(value: object) -> object:
    if not isinstance(value, str):
        raise fault(
            f"expected a read structure, found {shown(value)}", 'Write one text for each read, such as "25C10M".'
        )
    try:
        ReadStructure.parse(value)
    except InputError as error:
        raise fault(
            f"{shown(value)} is no read structure: {error.problem}",
            error.remedy
            or 'Write lengths and letters, such as "25C10M": C spatial barcode, M molecular barcode, '
            "T template, S skip, B sample index.",
        ) from error
    return value


def _adapter(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[ACGT]{8,}", value):
        raise fault(
            f"{shown(value)} is no adapter sequence", "Write at least eight of the capital letters A, C, G and T."
        )
    return value


FilePath = Annotated[Path, BeforeValidator(_path_in_folder)]
Column = Annotated[int | str, BeforeValidator(_column)]
Codec = Literal["ACTG-first-low", "ACTG-first-high", "ACGT-first-low", "ACGT-first-high"]
CODECS: tuple[str, ...] = get_args(Codec)
"""How the hexadecimal barcode of a read's name may stand for bases (drivers.basecalls.groupednames)."""
GroupedNames = Annotated[Literal[False, "auto"] | Codec, BeforeValidator(_grouped_names)]
ReadStructureText = Annotated[
    str,
    BeforeValidator(_read_structure),
    WithJsonSchema({"type": "string", "pattern": r"^([1-9][0-9]*[CMTSB])*([1-9][0-9]*|\+)[CMTSB]$"}),
]
Adapter = Annotated[str, BeforeValidator(_adapter), WithJsonSchema({"type": "string", "pattern": "^[ACGT]{8,}$"})]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Table(BaseModel):
    """A table of the experiment file: immutable, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Chip(_Table):
    """The chip: which spatial barcode lies at which position."""

    barcodes: FilePath
    """The chip's table of barcodes and positions: .h5 (Stereo-seq barcodeToPos), .bin, or a text table
    .txt, .csv, .tsv; a text table may be compressed (.gz)."""
    name: Annotated[StrictStr, Field(min_length=1)] | None = None
    """Name of the chip for reports, such as its serial number. Without it, the name of the file."""
    one_based: StrictBool = False
    """Do the table's coordinates count from 1?"""
    pitch_um: Annotated[Number, Field(gt=0)] | None = None
    """Distance of neighbouring spots, in micrometres. Without it, what the table itself says, if anything."""
    barcode_column: Column | None = None
    """Text tables only: name of the barcode's column, or its number from 0."""
    x_column: Column | None = None
    """Text tables only: name of the x column, or its number from 0."""
    y_column: Column | None = None
    """Text tables only: name of the y column, or its number from 0."""
    add_shift: StrictBool = False
    """barcodeToPos.h5 only: add the shift of rows and columns that the file records to the coordinates."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := _chip_problems(self):
            raise faults(problems)
        return self


class Library(_Table):
    """One sequencing library: its reads, what their bases mean, and what they are counted against."""

    name: StrictStr
    """Name of the library in maps, exports and file names."""
    layer: Literal["rna", "dna"]
    """What is mapped: molecules of genes (rna) or of genome windows (dna)."""
    read_structures: Annotated[tuple[ReadStructureText, ...], Field(min_length=1)]
    """What the bases of each read mean, one text a read: C spatial barcode, M molecular barcode, T template,
    S skip, B sample index."""
    reads: Annotated[tuple[tuple[FilePath, ...], ...], Field(min_length=1)]
    """FASTQ files: one row for each lane or file set, in each row one file for each read structure."""
    genome: FilePath
    """Genome sequence, FASTA, possibly compressed (.gz)."""
    genes: FilePath | None = None
    """Genes, GTF, possibly compressed (.gz). Needed by rna libraries."""
    loci: FilePath | None = None
    """Known single-base variants whose alleles are counted at every spot: .vcf, .vcf.gz (bgzip) or .bcf."""
    mismatches: Literal[0, 1] = 1
    """Substitutions that a spatial barcode may have."""
    strand: Literal["forward", "reverse", "unstranded"] = "forward"
    """rna only: strand of the template read, relative to the transcript."""
    count_intronic: StrictBool = True
    """rna only: count reads from introns with their gene."""
    mid_collapse: Literal["greedy", "saw", "off"] = "greedy"
    """How molecular barcodes one substitution apart are taken as one: as Drop-seq (greedy), as SAW (saw), or not."""
    trim_poly_a: StrictBool = True
    """rna only: cut the poly-A tail off templates before they are placed."""
    adapters: tuple[Adapter, ...] = ()
    """Adapter sequences to cut off the end of templates."""
    grouped_names: GroupedNames = False
    """Are both barcodes written in the names of the reads (grouped single-end FASTQ of Stereo-seq)? "auto" finds out
    how, another text names the codec. The one read structure begins with the barcodes of the name."""
    window_bp: Annotated[StrictInt, Field(ge=1000)] = 1_000_000
    """dna only: width of a genome window, in base pairs."""
    follow_until: FilePath | None = None
    """Keep reading while the files grow, until a file of this name appears."""

    @property
    def structures(self) -> tuple[ReadStructure, ...]:
        """The read structures, parsed."""
        return tuple(ReadStructure.parse(text) for text in self.read_structures)

    @property
    def barcode_length(self) -> int:
        """Bases of the spatial barcode."""
        return _bases(self.structures, SegmentKind.SPATIAL)

    @property
    def mid_length(self) -> int:
        """Bases of the molecular barcode, 0 without one."""
        return _bases(self.structures, SegmentKind.MOLECULAR)

    @field_validator("name")
    @classmethod
    def _safe_as_file_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise fault(
                f"{shown(name)} cannot be part of a file name",
                "Begin with a letter or a digit and use letters, digits, '.', '_' and '-' only, at most 64 of them.",
            )
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := [*_structure_problems(self), *_layer_problems(self)]:
            raise faults(problems)
        return self


class RunSettings(_Table):
    """How the run is cut into blocks and kept on disk."""

    block_clusters: Annotated[StrictInt, Field(ge=1, le=1 << 20)] = 32768
    """Clusters in a block of base calls."""
    checkpoint_s: Annotated[Number, Field(gt=0)] = 10.0
    """Seconds between two checkpoints of the maps' state."""
    segment_mib: Annotated[StrictInt, Field(ge=1, le=4096)] = 128
    """Size of a segment of the log, in MiB."""
    reserve_mib: Annotated[StrictInt, Field(ge=0)] = 1024
    """Free space to leave on the run's disk, in MiB: with less, reading waits until there is more."""
    expected_molecules: Annotated[StrictInt, Field(ge=1)] | None = None
    """Molecules that the run will find, if known: memory is then reserved once."""


class Experiment(_Table):
    """What is sequenced, on which chip, against which references, and how the run is kept."""

    chip: Chip
    """The chip that all libraries share."""
    library: Annotated[tuple[Library, ...], Field(min_length=1)]
    """The libraries, one [[library]] table each."""
    run: RunSettings = RunSettings()
    """How the run is kept."""

    @property
    def barcode_length(self) -> int:
        """Bases of the spatial barcode, the same in all libraries."""
        return self.library[0].barcode_length

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := libraries_problems(dict(enumerate(self.library))):
            raise faults(problems)
        return self


# The checks that a type alone cannot make.


def _chip_problems(chip: Chip) -> list[Problem]:
    problems = []
    name = chip.barcodes.name.lower()
    kind = Path(name.removesuffix(".gz")).suffix
    if kind not in CHIP_FILES or (name.endswith(".gz") and kind not in CHIP_TABLES):
        problems.append(
            Problem(
                ("barcodes",),
                f"{shown(chip.barcodes.name)} is no chip table by its name",
                "Name a .h5 or .bin file, or a .txt, .csv or .tsv table (these also with .gz).",
            )
        )
        return problems
    columns = {key: getattr(chip, key) for key in ("barcode_column", "x_column", "y_column")}
    given = {key: column for key, column in columns.items() if column is not None}
    if kind not in CHIP_TABLES:
        problems += [
            Problem((key,), f"a {kind} chip file has no columns to choose from", f"Remove {key}.") for key in given
        ]
    elif len(set(given.values())) < len(given):
        problems.append(
            Problem(
                (next(reversed(given)),),
                "two columns are the same: " + ", ".join(f"{key} = {shown(given[key])}" for key in given),
                "Give barcode, x and y a column each; numbers count from 0.",
            )
        )
    if chip.add_shift and kind != ".h5":
        problems.append(
            Problem(("add_shift",), f"a {kind} chip file records no shift of rows and columns", "Remove add_shift.")
        )
    return problems


def _structure_problems(library: Library) -> Iterable[Problem]:
    structures = library.structures
    notation = ", ".join(f'"{text}"' for text in library.read_structures)
    for number, row in enumerate(library.reads):
        if len(row) != len(structures):
            yield Problem(
                ("reads", number),
                f"expected {_count(len(structures), 'file')}, one for each of the read structures {notation}, "
                f"found {len(row)}",
                "Put the files of one lane or file set into one row, read 1 first.",
            )
    kinds = {segment.kind for structure in structures for segment in structure.segments}
    if SegmentKind.TEMPLATE not in kinds:
        yield Problem(
            ("read_structures",),
            f"no read holds a template (T): {notation}",
            'Give the read of the insert a T segment, such as "100T".',
        )
    if library.grouped_names:
        begin = [segment.kind for segment in structures[0].segments[:2]]
        if len(structures) != 1 or begin != [SegmentKind.SPATIAL, SegmentKind.MOLECULAR]:
            yield Problem(
                ("read_structures",),
                f"with grouped_names there is one read, beginning with the barcodes of its name, found {notation}",
                'Write the barcodes of the name, then the bases of the file: read_structures = ["25C10M100T"].',
            )
            return
    barcodes = {
        SegmentKind.SPATIAL: ("spatial barcode", LONGEST_BARCODE, True),
        SegmentKind.MOLECULAR: ("molecular barcode", LONGEST_MID, library.layer == "rna"),
    }
    for kind, (words, longest, needed) in barcodes.items():
        if any(s.kind is kind and s.length is None for structure in structures for s in structure.segments):
            yield Problem(
                ("read_structures",),
                f"the {words} has no fixed length (+{kind.value})",
                f'Write its number of bases, such as "{10 if kind is SegmentKind.MOLECULAR else 25}{kind.value}".',
            )
        elif kind not in kinds and needed:
            yield Problem(
                ("read_structures",),
                f"no read holds the {words} ({kind.value}): {notation}",
                'Write where it stands, such as "25C10M".',
            )
        elif _bases(structures, kind) > longest:
            yield Problem(
                ("read_structures",),
                f"the {words} has {_bases(structures, kind)} bases, more than the {longest} that can be used",
                f"Shorten it to {longest}{kind.value}, and skip the rest with S.",
            )


def _layer_problems(library: Library) -> Iterable[Problem]:
    if library.loci is not None and not library.loci.name.lower().endswith(LOCI_FILES):
        yield Problem(
            ("loci",),
            f"{shown(library.loci.name)} is no file of variants by its name",
            "Name a .vcf, .vcf.gz (compressed with bgzip) or .bcf file.",
        )
    if library.layer == "rna" and library.genes is None:
        yield Problem(("genes",), "an rna library needs genes to count", 'Add genes = "genes.gtf.gz".')
    for key in sorted(library.model_fields_set & foreign_keys(library.layer)):
        if getattr(library, key) != Library.model_fields[key].default:
            other = "dna" if library.layer == "rna" else "rna"
            yield Problem(
                (key,),
                f"{key} has no meaning for this {library.layer} library",
                f'It belongs to layer = "{other}": remove it here.',
            )


def libraries_problems(libraries: Mapping[int, Library]) -> list[Problem]:
    """What only several libraries can get wrong; those that are wrong themselves are left out."""
    problems = []
    names: dict[str, int] = {}
    files: dict[Path, KeyPath] = {}
    for number, library in libraries.items():
        here: KeyPath = ("library", number)
        if library.name.lower() in names:
            problems.append(
                Problem(
                    (*here, "name"),
                    f"{shown(library.name)} is also the name of library[{names[library.name.lower()]}]",
                    "Give each library a name of its own; capitals alone make no difference.",
                )
            )
        names.setdefault(library.name.lower(), number)
        for row, paths in enumerate(library.reads):
            for column, path in enumerate(paths):
                key = (*here, "reads", row, column)
                if (known := files.setdefault(path.resolve(), key)) != key:
                    problems.append(
                        Problem(
                            key,
                            f"{path.name} is given twice, first as {key_name(known)}",
                            "Name each file once: its reads would count double.",
                        )
                    )
        first = libraries[min(libraries)]
        if library.barcode_length != first.barcode_length:
            problems.append(
                Problem(
                    (*here, "read_structures"),
                    f"the spatial barcode has {library.barcode_length} bases, that of library[{min(libraries)}] has "
                    f"{first.barcode_length}",
                    "All libraries share the chip, and so one length of barcode: correct one of them.",
                )
            )
    return problems


def foreign_keys(layer: str) -> frozenset[str]:
    """The keys that mean nothing to a library of this layer."""
    return DNA_KEYS if layer == "rna" else RNA_KEYS


def _bases(structures: Iterable[ReadStructure], kind: SegmentKind) -> int:
    return sum(s.length or 0 for structure in structures for s in structure.segments if s.kind is kind)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
