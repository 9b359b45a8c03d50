from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cartoseq.controller.config import (
    Chip,
    Experiment,
    Library,
    RunSettings,
    experiment_schema,
    freeze,
    load_experiment,
    thaw,
)
from cartoseq.controller.experiment import CODECS
from cartoseq.controller.settingsfile import value_text
from cartoseq.drivers.basecalls import groupednames
from cartoseq.streaming.errors import InputError

PROJECT = Path(__file__).resolve().parents[2]

RNA_AND_DNA = """\
[chip]
barcodes = "chip.barcodeToPos.h5"
name = "B01234C5"
pitch_um = 0.5

[[library]]
name = "rna"
layer = "rna"
read_structures = ["25C10M", "100T"]
reads = [
    ["L01_1.fq.gz", "L01_2.fq.gz"],
    ["L02_1.fq.gz", "L02_2.fq.gz"],
]
genome = "genome.fa.gz"
genes = "genes.gtf.gz"

[[library]]
name = "dna"
layer = "dna"
read_structures = ["25C", "+T"]
reads = [["L03_1.fq.gz", "L03_2.fq.gz"]]
genome = "genome.fa.gz"
window_bp = 50_000

[run]
checkpoint_s = 2
"""
CHIP, FIRST, RUN = '"chip.barcodeToPos.h5"', '["25C10M", "100T"]', "checkpoint_s = 2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds every file the experiment names."""
    reads = [f"L0{lane}_{read}.fq.gz" for lane in (1, 2, 3) for read in (1, 2)]
    for name in ["chip.barcodeToPos.h5", "chip.tsv.gz", "genome.fa.gz", "genes.gtf.gz", *reads]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more").mkdir()
    return tmp_path


def load(folder: Path, text: str) -> Experiment:
    (folder / "mouse.toml").write_text(text, encoding="utf-8")
    return load_experiment(folder / "mouse.toml")


def fault(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, text)
    assert caught.value.exit_code == 3
    assert caught.value.source == str(folder / "mouse.toml")
    assert "pydantic" not in str(caught.value)
    return str(caught.value)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_an_experiment_is_read_with_its_defaults_and_its_folder(folder: Path) -> None:
    experiment = load(folder, RNA_AND_DNA)
    rna, dna = experiment.library
    assert experiment.chip.barcodes == folder / "chip.barcodeToPos.h5"
    assert experiment.chip.pitch_um == 0.5
    assert rna.reads[1] == (folder / "L02_1.fq.gz", folder / "L02_2.fq.gz")
    assert (rna.genome, rna.genes) == (folder / "genome.fa.gz", folder / "genes.gtf.gz")
    assert (rna.mismatches, rna.strand, rna.count_intronic, rna.mid_collapse) == (1, "forward", True, "greedy")
    assert (rna.trim_poly_a, rna.adapters, rna.grouped_names, rna.follow_until) == (True, (), False, None)
    assert dna.window_bp == 50_000
    assert experiment.run == RunSettings(block_clusters=32768, checkpoint_s=2.0, segment_mib=128, reserve_mib=1024)


def test_the_lengths_of_the_barcodes_follow_from_the_read_structures(folder: Path) -> None:
    experiment = load(folder, RNA_AND_DNA)
    rna, dna = experiment.library
    assert experiment.barcode_length == 25
    assert [str(structure) for structure in rna.structures] == ["25C10M", "100T"]
    assert (rna.barcode_length, rna.mid_length) == (25, 10)
    assert (dna.barcode_length, dna.mid_length) == (25, 0)


def test_relative_paths_start_at_the_file_wherever_one_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mouse.toml").write_text(RNA_AND_DNA)
    monkeypatch.chdir(folder / "more")
    assert load_experiment("../mouse.toml").chip.barcodes.samefile(folder / "chip.barcodeToPos.h5")
    assert load_experiment("../mouse.toml").chip.barcodes.is_absolute()


def test_a_path_may_be_absolute_or_start_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    text = RNA_AND_DNA.replace('"genes.gtf.gz"', '"~/genes.gtf.gz"')
    text = text.replace('"chip.barcodeToPos.h5"', json.dumps(str(folder / "chip.barcodeToPos.h5")))
    assert load(folder / "more", text.replace('"L0', '"../L0').replace('"genome', '"../genome')).library[0].genes == (
        folder / "genes.gtf.gz"
    )


def test_a_file_saved_by_a_windows_editor_is_read(folder: Path) -> None:
    (folder / "mouse.toml").write_bytes(b"\xef\xbb\xbf" + RNA_AND_DNA.replace("\n", "\r\n").encode())
    assert load_experiment(folder / "mouse.toml") == load(folder, RNA_AND_DNA)


def test_barcodes_in_the_names_of_the_reads_begin_the_one_read_structure(folder: Path) -> None:
    text = RNA_AND_DNA.replace(FIRST, '["25C10M100T"]\ngrouped_names = "auto"')
    text = text.replace(', "L01_2.fq.gz"]', "]").replace(', "L02_2.fq.gz"]', "]")
    rna = load(folder, text).library[0]
    assert (rna.grouped_names, rna.barcode_length, rna.mid_length) == ("auto", 25, 10)
    assert load(folder, text.replace("auto", CODECS[0])).library[0].grouped_names == CODECS[0]


def test_the_codecs_are_those_of_the_reader() -> None:
    assert set(CODECS) == {str(codec) for codec in groupednames.CODECS}


def test_files_that_are_still_to_come_may_be_followed(folder: Path) -> None:
    text = RNA_AND_DNA.replace("L03_", "more/new_").replace("window_bp", 'follow_until = "more/done"\nwindow_bp')
    assert load(folder, text).library[1].follow_until == folder / "more" / "done"


def test_an_experiment_is_immutable(folder: Path) -> None:
    experiment = load(folder, RNA_AND_DNA)
    with pytest.raises(ValidationError, match="frozen"):
        experiment.chip.one_based = True


def test_an_experiment_made_in_python_is_checked_too() -> None:
    library: dict[str, Any] = {"name": "dna", "layer": "dna", "read_structures": ("25C", "50T"), "genome": Path("g.fa")}
    made = Library(reads=((Path("a.fq"), Path("b.fq")),), **library)
    experiment = Experiment(chip=Chip(barcodes=Path("chip.bin")), library=(made,))
    assert experiment.barcode_length == 25
    with pytest.raises(ValidationError, match="one for each of the read structures"):
        Library(reads=((Path("a.fq"),),), **library)
    with pytest.raises(ValidationError, match="is also the name of"):
        Experiment(chip=Chip(barcodes=Path("chip.bin")), library=(made, made))


# (what to replace, by what, where the fault is found, the key, what the message says)
FAULTS = {
    "unknown key": (
        "genome = ",
        "genom = ",
        "genom = ",
        "library[0].genom",
        ['unknown key "genom"', 'Did you mean "genome"?'],
    ),
    "missing key": (
        'layer = "rna"\n',
        "",
        "[[library]]",
        "library[0].layer",
        ["layer is missing", "docs/experiment.md"],
    ),
    "key of another table": (
        RUN,
        "pitch_um = 1",
        "pitch_um = 1",
        "run.pitch_um",
        ["unknown key", "It belongs to [chip]."],
    ),
    "unknown key like no other": (RUN, "zzz = 1", "zzz", "run.zzz", ["Known here: block_clusters, checkpoint_s"]),
    "unknown table": ("[run]", "[runs]", "[runs]", "runs", ['unknown key "runs"', 'Did you mean "run"?']),
    "single brackets": ("[chip]\n", "[[chip]]\n", "[[chip]]", "chip", ["expected a table, found a list"]),
    "wrong layer": (
        '"rna"\nread',
        '"atac"\nread',
        '"atac"',
        "library[0].layer",
        ['expected "rna" or "dna", found "atac"'],
    ),
    "text for a number": (
        "50_000",
        '"50 kb"',
        "50 kb",
        "library[1].window_bp",
        ['expected a whole number, found "50 kb"'],
    ),
    "fraction for a whole number": (
        RUN,
        "segment_mib = 1.5",
        "segment_mib",
        "run.segment_mib",
        ["a whole number, found 1.5"],
    ),
    "truth for a number": (RUN, "checkpoint_s = true", RUN[:8], "run.checkpoint_s", ["expected a number, found true"]),
    "number for truth": (
        "pitch_um = 0.5",
        "one_based = 1",
        "one_based",
        "chip.one_based",
        ["expected true or false, found 1"],
    ),
    "number for text": ('"B01234C5"', "1234", "1234", "chip.name", ["expected a text in quotes, found 1234"]),
    "number for a path": (
        '"genes.gtf.gz"',
        "7",
        "genes = 7",
        "library[0].genes",
        ["expected the path of a file, found 7"],
    ),
    "empty path": ('"genes.gtf.gz"', '" "', 'genes = " "', "library[0].genes", ["the path is empty"]),
    "infinity": (RUN, "checkpoint_s = inf", "inf", "run.checkpoint_s", ["expected a finite number"]),
    "nought": (RUN, "checkpoint_s = 0", "checkpoint_s", "run.checkpoint_s", ["expected a number above 0", "found 0"]),
    "too small": ("50_000", "10", "window_bp", "library[1].window_bp", ["at least 1000, found 10"]),
    "too large": (RUN, "segment_mib = 5000", "segment_mib", "run.segment_mib", ["at most 4096, found 5000"]),
    "mismatches": (
        "genes = ",
        "mismatches = 2\ngenes = ",
        "mismatches",
        "library[0].mismatches",
        ["expected 0 or 1, found 2"],
    ),
    "unsafe name": (
        'name = "rna"',
        'name = "my/rna"',
        "my/rna",
        "library[0].name",
        ["cannot be part of a file name", "letters, digits"],
    ),
    "same name": ('name = "dna"', 'name = "RNA"', '"RNA"', "library[1].name", ["also the name of library[0]"]),
    "bad read structure": (
        FIRST,
        '["25C10Q", "100T"]',
        '["25C10Q',
        "library[0].read_structures[0]",
        ['"25C10Q" is no read structure'],
    ),
    "read structure no text": (
        FIRST,
        '[25, "100T"]',
        "[25",
        "library[0].read_structures[0]",
        ["expected a read structure, found 25"],
    ),
    "read structures no list": (
        FIRST,
        '"25C10M"',
        '= "25C10M"',
        "library[0].read_structures",
        ["expected a list", '= ["..."]'],
    ),
    "no read structure": (FIRST, "[]", "= []", "library[0].read_structures", ["at least one entry"]),
    "no template": (
        FIRST,
        '["25C10M", "100S"]',
        "100S",
        "library[0].read_structures",
        ["no read holds a template (T)"],
    ),
    "no barcode": (
        FIRST,
        '["25S10M", "100T"]',
        "25S",
        "library[0].read_structures",
        ["no read holds the spatial barcode (C)", "25C10M"],
    ),
    "no MID": (
        FIRST,
        '["25C10S", "100T"]',
        "25C10S",
        "library[0].read_structures",
        ["no read holds the molecular barcode (M)"],
    ),
    "long barcode": (
        '["25C", "+T"]',
        '["25C8C", "+T"]',
        "25C8C",
        "library[1].read_structures",
        ["33 bases, more than the 32"],
    ),
    "long MID": (
        FIRST,
        '["25C17M", "100T"]',
        "17M",
        "library[0].read_structures",
        ["17 bases, more than the 16", "skip the rest with S"],
    ),
    "endless barcode": (FIRST, '["10M+C", "100T"]', "+C", "library[0].read_structures", ["no fixed length (+C)"]),
    "barcodes of two lengths": (
        '["25C", "+T"]',
        '["24C", "+T"]',
        "24C",
        "library[1].read_structures",
        ["24 bases", "library[0] has 25"],
    ),
    "both in read and name": (
        FIRST,
        FIRST + '\ngrouped_names = "auto"',
        FIRST,
        "library[0].read_structures",
        ["with grouped_names there is one read", 'read_structures = ["25C10M100T"]'],
    ),
    "grouped names true": (
        FIRST,
        FIRST + "\ngrouped_names = true",
        "grouped_names",
        "library[0].grouped_names",
        ["found true", 'grouped_names = "auto"'],
    ),
    "grouped names of unknown codec": (
        FIRST,
        FIRST + '\ngrouped_names = "TGCA"',
        "grouped_names",
        "library[0].grouped_names",
        ['found "TGCA"', "one of ACTG-first-low, "],
    ),
    "a file short": (', "L02_2.fq.gz"', "", '["L02_1', "library[0].reads[1]", ["expected 2 files", "found 1"]),
    "reads not in rows": (
        '[["L03_1.fq.gz", "L03_2.fq.gz"]]',
        '["L03_1.fq.gz"]',
        "L03",
        "library[1].reads[0]",
        ['found "L03_1.fq.gz"', "rows of files"],
    ),
    "same reads twice": (
        '"L02_1',
        '"more/../L01_1',
        "more/../L01_1",
        "library[0].reads[1][0]",
        ["L01_1.fq.gz is given twice, first as library[0].reads[0][0]"],
    ),
    "same reads in two libraries": (
        '"L03_2',
        '"L02_2',
        "L03_1",
        "library[1].reads[0][1]",
        ["given twice, first as library[0].reads[1][1]"],
    ),
    "no such reads": (
        '"L02_2',
        '"L09_2',
        "L09_2",
        "library[0].reads[1][1]",
        ["there is no file", "L09_2.fq.gz", "experiment file's folder"],
    ),
    "no such genome": ('"genome.fa.gz"\ngenes', '"g.fa"\ngenes', '"g.fa"', "library[0].genome", ["there is no file"]),
    "a folder for a file": (
        CHIP,
        '"more"',
        '"more"',
        "chip.barcodes",
        ["is no chip table by its name", "is a folder, not a file"],
    ),
    "end marker nowhere": (
        "window_bp",
        'follow_until = "x/done"\nwindow_bp',
        "x/done",
        "library[1].follow_until",
        ["there is no folder"],
    ),
    "no such loci": (
        'genome = "genome.fa.gz"\ngenes',
        'loci = "known.vcf"\ngenome = "genome.fa.gz"\ngenes',
        '"known.vcf"',
        "library[0].loci",
        ["there is no file"],
    ),
    "loci of another kind": (
        'genome = "genome.fa.gz"\ngenes',
        'loci = "genes.gtf.gz"\ngenome = "genome.fa.gz"\ngenes',
        "loci = ",
        "library[0].loci",
        ["is no file of variants by its name", "bgzip"],
    ),
    "genes missing": (
        'genes = "genes.gtf.gz"\n',
        "",
        "[[library]]",
        "library[0].genes",
        ["an rna library needs genes", 'Add genes = "genes.gtf.gz".'],
    ),
    "genes in dna": (
        "window_bp",
        'genes = "genes.gtf.gz"\nwindow_bp',
        None,
        "library[1].genes",
        ["no meaning for this dna library"],
    ),
    "window in rna": (
        "genes = ",
        "window_bp = 5000\ngenes = ",
        "window_bp = 5000",
        "library[0].window_bp",
        ["no meaning for this rna library"],
    ),
    "adapter": (
        "genes = ",
        'adapters = ["ACGU"]\ngenes = ',
        "adapters",
        "library[0].adapters[0]",
        ['"ACGU" is no adapter sequence'],
    ),
    "chip of unknown kind": (
        CHIP,
        '"genome.fa.gz"',
        "genome",
        "chip.barcodes",
        ["no chip table by its name", ".h5 or .bin"],
    ),
    "columns of an h5": (
        "pitch_um = 0.5",
        "x_column = 1",
        "x_column",
        "chip.x_column",
        ["has no columns to choose from"],
    ),
    "column below nought": (
        f"{CHIP}\n",
        '"chip.tsv.gz"\ny_column = -1\n',
        "y_column",
        "chip.y_column",
        ["-1 is no column"],
    ),
    "column true": (
        f"{CHIP}\n",
        '"chip.tsv.gz"\ny_column = true\n',
        "y_column",
        "chip.y_column",
        ["a column's name or number, found true"],
    ),
    "one column twice": (
        f"{CHIP}\n",
        '"chip.tsv.gz"\nx_column = 1\ny_column = 1\n',
        "y_column",
        "chip.y_column",
        ["two columns are the same"],
    ),
    "shift of a table": (
        f"{CHIP}\n",
        '"chip.tsv.gz"\nadd_shift = true\n',
        "add_shift",
        "chip.add_shift",
        ["records no shift"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_its_line_key_and_remedy(folder: Path, name: str) -> None:
    old, new, at, key, parts = FAULTS[name]
    assert old in RNA_AND_DNA
    text = RNA_AND_DNA.replace(old, new, 1)
    message = fault(folder, text)
    assert f"key {key}: " in message
    if at is not None:
        assert f"line {line_of(text, at)}, key {key}: " in message
    for part in parts:
        assert part in message


def test_a_missing_table_is_told(folder: Path) -> None:
    assert "key library: there is no [[library]] table. Add [[library]]" in fault(
        folder, '[chip]\nbarcodes = "chip.barcodeToPos.h5"\n'
    )
    assert "key chip: there is no [chip] table" in fault(folder, "[run]\n")
    library = RNA_AND_DNA[: RNA_AND_DNA.rindex("[[library]]")].replace("[[library]]", "[library]")
    assert "Begin each library with [[library]], in double brackets." in fault(folder, library)
    assert "line 1, key library: expected at least one entry" in fault(
        folder, "library = []\n[chip]\nbarcodes = 'chip.tsv.gz'\n"
    )


def test_all_faults_are_told_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = (
        RNA_AND_DNA.replace("pitch_um = 0.5", "pitch_um = -1")
        .replace('"L03_2', '"L01_2')
        .replace(RUN, "chekpoint_s = 2")
    )
    text = text.replace('genome = "genome.fa.gz"\ngenes', 'genome = "lost.fa"\ngenes')
    message = fault(folder, text)
    assert message.startswith(f"{folder / 'mouse.toml'}: line 4, key chip.pitch_um: expected a number above 0")
    assert "\nand 3 more:\n" in message
    keys = ["chip.pitch_um", "library[0].genome", "library[1].reads[0][1]", "run.chekpoint_s"]
    assert re.findall(r"key ([^:]+):", message) == keys


def test_a_flood_of_faults_is_cut_short(folder: Path) -> None:
    text = RNA_AND_DNA + "".join(f"zz{number} = 1\n" for number in range(40))
    message = fault(folder, text)
    assert "and 39 more:" in message
    assert message.endswith("... and 20 not shown")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("[chip]\nbarcodes = chip.h5\n", "line 2, column 12", "invalid value"),
        ("[chip\n", "line 1, column 6", "expected ']'"),
        ("[chip]\nname = 'a'\nname = 'b'\n", "line 3, column 11", "cannot overwrite a value"),
        ("x = [1,\n", "end of document", "invalid value"),
    ],
)
def test_a_slip_of_syntax_is_told_with_line_and_column(folder: Path, text: str, place: str, problem: str) -> None:
    message = fault(folder, text)
    assert f"mouse.toml: {place}: not valid TOML: {problem}" in message.lower().replace(
        "not valid toml", "not valid TOML"
    )
    assert "Correct the line" in message


def test_a_file_that_cannot_be_read_is_told(folder: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: there is no such experiment file"):
        load_experiment(folder / "none.toml")
    with pytest.raises(InputError, match=r"this is a folder\. Name the experiment file"):
        load_experiment(folder)
    (folder / "latin.toml").write_bytes("name = 'Zürich'".encode("latin-1"))
    with pytest.raises(InputError, match=r"not a text file in UTF-8 \(byte 9\)"):
        load_experiment(folder / "latin.toml")


def test_a_frozen_experiment_reads_back_equal(folder: Path) -> None:
    text = RNA_AND_DNA.replace("genes = ", 'adapters = ["AAGTCGGA", "AAGTCGGAGGCC"]\ngenes = ')
    experiment = load(folder, text)
    frozen = freeze(experiment)
    assert thaw(frozen) == experiment
    assert freeze(thaw(frozen)) == frozen
    run = {"block_clusters": 32768, "checkpoint_s": 2.0, "segment_mib": 128, "reserve_mib": 1024}
    assert tomllib.loads(frozen)["run"] == run
    assert load(folder / "more", frozen) == experiment


def test_freezing_does_not_depend_on_which_defaults_were_written(folder: Path) -> None:
    written = RNA_AND_DNA.replace("genes = ", "mismatches = 1\ngenes = ").replace(RUN, f"{RUN}\nsegment_mib = 128")
    assert freeze(load(folder, written)) == freeze(load(folder, RNA_AND_DNA))


def test_a_frozen_experiment_is_read_after_its_files_are_gone(folder: Path) -> None:
    frozen = freeze(load(folder, RNA_AND_DNA))
    (folder / "genome.fa.gz").unlink()
    assert thaw(frozen).library[0].genome == folder / "genome.fa.gz"


def test_a_damaged_frozen_experiment_is_told_by_its_own_name() -> None:
    with pytest.raises(InputError, match=r"RUN/run\.toml: line 1, key chip\.barcodes: barcodes is missing"):
        thaw(f"[chip]\n{RNA_AND_DNA[RNA_AND_DNA.index('[[') :]}", source="RUN/run.toml")
    with pytest.raises(InputError, match=r"run\.toml: end of document: not valid TOML"):
        thaw("[chip")


@given(
    st.recursive(
        st.text(st.characters(exclude_categories=["Cs"]))
        | st.integers(-(2**63), 2**63 - 1)
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda values: st.lists(values, max_size=4),
        max_leaves=8,
    )
)
def test_every_value_that_is_written_reads_back(value: object) -> None:
    assert tomllib.loads(f"key = {value_text(value)}\n") == {"key": value}


def test_the_committed_schema_is_up_to_date() -> None:
    committed = PROJECT / "controller" / "schemas" / "experiment-v1.json"
    printed = subprocess.run(
        [sys.executable, "-m", "cartoseq.controller.config"], capture_output=True, text=True, check=True, timeout=60
    )
    assert committed.read_text(encoding="utf-8") == printed.stdout
    assert json.loads(printed.stdout) == experiment_schema()


def examples_in_the_manual() -> list[str]:
    manual = (PROJECT / "docs" / "experiment.md").read_text(encoding="utf-8")
    return [text for text in re.findall(r"```toml\n(.*?)```", manual, re.DOTALL) if "[chip]" in text]


def test_the_schema_takes_the_examples_and_refuses_faults() -> None:
    schema = experiment_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    examples = examples_in_the_manual()
    assert len(examples) >= 3
    for text in [RNA_AND_DNA, *examples]:
        validator.validate(tomllib.loads(text))
    for old, new in [("genome = ", "genom = "), ('"rna"\nread', '"atac"\nread'), ("25C10M", "25C10Q"), ("0.5", "-1")]:
        assert not validator.is_valid(tomllib.loads(RNA_AND_DNA.replace(old, new, 1)))


def test_every_example_in_the_manual_loads(tmp_path: Path) -> None:
    for number, text in enumerate(examples_in_the_manual()):
        home = tmp_path / str(number)
        for name in re.findall(r'"([^"]+\.(?:h5|bin|csv|tsv|txt|fa|gtf|vcf|fastq|fq)(?:\.gz)?)"', text):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(b"")
        load(home, text)


def test_the_manual_names_every_key_with_its_default() -> None:
    manual = (PROJECT / "docs" / "experiment.md").read_text(encoding="utf-8")
    sections = manual.split("\n### ")[1:]
    for table, section in zip((Chip, Library, RunSettings), sections, strict=True):
        for key, field in table.model_fields.items():
            (row,) = re.findall(rf"^\| `{key}` \|.*\|$", section, re.MULTILINE)
            default = row.split("|")[3].strip().replace("_", "").replace(" ", "")
            if field.is_required():
                assert default == "required", key
            elif field.default is None:
                assert default == "–", key
            else:
                value = list(field.default) if isinstance(field.default, tuple) else field.default
                assert default == f"`{value_text(value)}`", key
