"""What a user can get wrong about runs, and what can have become of their files: one clear message each."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from crc32c import crc32c

from cartoseq.controller import cli

Change = Callable[[Path], None]
EXPERIMENT = "experiment.toml"


@pytest.fixture(scope="module")
def run(sound, cartoseq, tmp_path_factory):
    """A run that is complete, beside its experiment."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(sound, folder / "experiment")
    cartoseq("map", folder / "experiment" / EXPERIMENT, "--out", folder / "RUN")
    return folder / "RUN"


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run, to be broken."""
    return Path(shutil.copytree(run, tmp_path / "RUN"))


@pytest.fixture
def said(monkeypatch, capsys, tmp_path):
    """Call the command line in this process, in an empty folder: its message on standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, code: int) -> str:
        monkeypatch.setattr(sys, "argv", ["cartoseq", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        error = capsys.readouterr().err
        assert ended.value.code == code, error
        if code != 2:
            assert error.count("cartoseq: ") == 1, error
            assert error.rstrip().endswith((".", "?")), error
            assert "Errno" not in error
        return error.split("cartoseq: ", 1)[-1]

    return call


def experiment_of(run: Path) -> Path:
    return run.parent / "experiment" / EXPERIMENT


# Where a run is put.


@pytest.mark.parametrize("command", ["map", "replay", "demo"])
def test_a_run_is_put_where_nothing_lies(command, run, said, tmp_path):
    what = {"map": [experiment_of(run)], "replay": [run], "demo": []}[command]
    assert f"{run}: something lies there already" in said(command, *what, "--out", run, code=3)
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'}: something lies there already" in said(
        command, *what, "--out", tmp_path / "file", code=3
    )
    below = tmp_path / "file" / "RUN"
    message = said(command, *what, "--out", below, code=3)
    assert f"{below}: this folder cannot be made: Not a directory. Name a folder" in message


def test_a_folder_that_may_not_be_written_is_named(run, said, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    if os.access(tmp_path / "shut", os.W_OK):
        pytest.skip("this user may write everywhere")
    out = tmp_path / "shut" / "RUN"
    message = said("map", experiment_of(run), "--out", out, code=3)
    assert f"{out}: this folder cannot be made: Permission denied" in message
    message = said("export", run, "--format", "png", "--out", out, code=3)
    assert f"{out}: this folder cannot be made: Permission denied" in message


def test_a_folder_whose_parents_do_not_exist_is_made(run, cartoseq, tmp_path):
    cartoseq("replay", run, "--out", tmp_path / "new" / "folders" / "RUN")
    assert json.loads((tmp_path / "new" / "folders" / "RUN" / "qc.json").read_text())["complete"]


# Going on with a run.


def test_resume_needs_a_run(run, said, tmp_path):
    message = said("map", experiment_of(run), "--out", tmp_path, "--resume", code=3)
    assert f"{tmp_path}: this is no run: it holds no run.toml. Name the folder" in message


def test_resume_needs_the_same_experiment(run, said, tmp_path):
    other = shutil.copytree(run.parent / "experiment", tmp_path / "other")
    message = said("map", other / EXPERIMENT, "--out", run, "--resume", code=3)
    assert f"{run / 'run.toml'}: the experiment is not the one that this run was started with" in message


def test_a_complete_run_has_nothing_to_resume(run, cartoseq):
    done = cartoseq("map", experiment_of(run), "--out", run, "--resume")
    assert f"{run} is complete: nothing is left to do." in done.stderr


def test_settings_edited_by_hand_are_not_gone_on_with(run, copy, said):
    settings = copy / "run.toml"
    settings.write_text(settings.read_text().replace("mismatches = 1", "mismatches = 0"))
    message = said("map", experiment_of(run), "--out", copy, "--resume", code=3)
    assert f"{settings}: the experiment is not the one" in message
    settings.write_text(settings.read_text().replace("mismatches = 0", "mismatches = "))
    for command in (
        ("map", experiment_of(run), "--out", copy, "--resume"),
        ("replay", copy, "--out", copy.parent / "RUN2"),
    ):
        message = said(*command, code=3)
        assert f"{settings}: line " in message
        assert "not valid TOML" in message
    message = said("export", copy, "--format", "gem", code=5)
    assert f"{settings}: no longer reads as it was written" in message
    assert "line " in message


def test_a_run_without_its_descriptor_is_refused_and_can_be_replayed(run, copy, said, cartoseq):
    (copy / "qc.json").unlink()
    (copy / "descriptor.json").write_text("{")
    message = said("map", experiment_of(run), "--out", copy, "--resume", code=5)
    assert f"{copy / 'descriptor.json'}: no longer reads as it was written" in message
    assert "cartoseq replay" in message
    (copy / "descriptor.json").unlink()
    assert f"{copy / 'descriptor.json'}: the file is missing" in said(
        "map", experiment_of(run), "--out", copy, "--resume", code=5
    )
    cartoseq("replay", copy, "--out", copy.parent / "RUN2")
    assert (copy.parent / "RUN2" / "maps.h5").read_bytes() == (run / "maps.h5").read_bytes()


def test_damaged_counters_and_a_log_that_lost_its_end_are_mended_by_going_on(run, copy, cartoseq):
    (copy / "qc.json").write_text('{"schema": 1, "compl')
    segment = the_segment(copy)
    segment.write_bytes(segment.read_bytes()[:100_000])
    cartoseq("map", experiment_of(run), "--out", copy, "--resume")
    assert (copy / "qc.json").read_bytes() == (run / "qc.json").read_bytes()
    assert (copy / "maps.h5").read_bytes() == (run / "maps.h5").read_bytes()
    assert '"state dropped"' in (copy / "journal.jsonl").read_text()


# Looking at a run.


@pytest.mark.parametrize("command", [("export", "--format", "gef"), ("report",), ("qc",), ("replay", "--out", "R")])
@pytest.mark.parametrize("kind", ["empty folder", "no folder", "a file"])
def test_commands_on_what_is_no_run(command, kind, said, tmp_path):
    here = tmp_path / "here"
    if kind == "empty folder":
        here.mkdir()
    elif kind == "a file":
        here.write_text("")
    name, *options = command
    assert f"{here}: this is no run: it holds no run.toml. Name the folder" in said(name, here, *options, code=3)


def without(name: str) -> Change:
    return lambda run: (run / name).unlink()


def holding(name: str, content: str) -> Change:
    return lambda run: (run / name).write_text(content) and None


def zeros_in_the_middle(run: Path) -> None:
    content = bytearray((run / "maps.h5").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    (run / "maps.h5").write_bytes(content)


def half(run: Path) -> None:
    content = (run / "maps.h5").read_bytes()
    (run / "maps.h5").write_bytes(content[: len(content) // 2])


def newer(run: Path) -> None:
    with h5py.File(run / "maps.h5", "r+") as file:
        file.attrs["version"] = 99


DAMAGED: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "no maps": (without("maps.h5"), 3, ("this run holds no map yet", "its log holds", "'published'")),
    "no counters": (without("qc.json"), 3, ("this run holds no map yet",)),
    "maps cut": (half, 3, ("maps.h5", "cut off", "cartoseq replay")),
    "maps with zeros in the middle": (zeros_in_the_middle, 3, ("maps.h5", "checksum is wrong", "cartoseq replay")),
    "maps of something else": (holding("maps.h5", "maps"), 3, ("maps.h5", "expected maps (HDF5)")),
    "maps of a newer version": (newer, 3, ("maps.h5", "version 99", "up to 1")),
    "counters cut": (
        holding("qc.json", '{"schema": 1, "compl'),
        5,
        ("qc.json", "no longer reads as it was written", "line 1 column 15", "cartoseq replay"),
    ),
    "counters of another schema": (holding("qc.json", '{"schema": 7}'), 3, ("qc.json", "expected schema 1, found 7")),
    "counters of nothing": (holding("qc.json", "[]"), 5, ("qc.json", "no longer reads as it was written", "no table")),
}


@pytest.mark.parametrize("name", list(DAMAGED))
def test_a_damaged_run_is_not_exported(name, copy, said):
    change, code, parts = DAMAGED[name]
    change(copy)
    for command in (("export", copy, "--format", "gem"), ("report", copy)):
        message = said(*command, code=code)
        assert str(copy) in message
        for part in parts:
            assert part in message, message
    assert not list((copy / "exports").glob("*.gem.gz"))


@pytest.mark.parametrize("name", [name for name in DAMAGED if "counters" in name])
def test_damaged_counters_are_not_shown(name, copy, said):
    change, code, parts = DAMAGED[name]
    change(copy)
    for options in ((), ("--json",)):
        message = said("qc", copy, *options, code=code)
        assert all(part in message for part in parts if name != "no counters"), message


def test_an_unknown_gene_names_near_ones(run, said):
    message = said("export", run, "--format", "png", "--gene", "Gene0001x", code=3)
    assert "no gene or window 'Gene0001x' in rna. Did you mean Gene00" in message


def test_an_unknown_library_names_the_known(run, said):
    message = said("export", run, "--format", "gem", "--library", "protein", code=3)
    assert f"{run}: there is no library 'protein'; this run has rna. Name one of them." in message


def test_an_export_goes_into_a_folder(run, said, tmp_path):
    (tmp_path / "file").write_text("")
    message = said("export", run, "--format", "gem", "--out", tmp_path / "file", code=3)
    assert f"{tmp_path / 'file'}: this folder cannot be made: File exists" in message


def test_settings_of_an_export_that_do_not_fit_are_named(run, said):
    assert "bin 1.5: a table's bin is a whole number" in said("export", run, "--format", "gem", "--bin", "1.5", code=3)
    assert "gene 'Gene0001': only a picture shows one gene. Add the format png" in said(
        "export", run, "--format", "gem", "--gene", "Gene0001", code=3
    )


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("export", "RUN", "--format", "bam"), "'bam' is not one of"),
        (("export", "RUN"), "Missing option '--format'"),
        (("export", "RUN", "--format", "gem", "--bin", "0"), "0.0 is not in the range x>0"),
        (("map",), "Missing argument 'EXPERIMENT'"),
        (("map", "e.toml"), "Missing option '--out'"),
        (("map", "e.toml", "--out", "RUN", "--fast"), "No such option"),
        (("fly",), "No such command 'fly'"),
        (("demo", "--reads", "many"), "'many' is not a valid integer"),
        (("demo", "--reads", "10"), "10 is not in the range x>=1000"),
    ],
)
def test_wrong_usage_is_told_with_the_usage(arguments, fault, said):
    message = said(*arguments, code=2)
    assert message.startswith("Usage: ")
    assert fault in message


# The log.


def the_segment(run: Path) -> Path:
    (segment,) = (run / "log").glob("*.log")
    return segment


def of_another_version(header: bytearray) -> None:
    header[4] = 0x20
    header[60:64] = crc32c(bytes(header[:60])).to_bytes(4, "little")


def edit_header(edit: Callable[[bytearray], None]) -> Change:
    def change(run: Path) -> None:
        content = bytearray(the_segment(run).read_bytes())
        header = content[:64]
        edit(header)
        the_segment(run).write_bytes(bytes(header) + content[64:])

    return change


def rotten(run: Path) -> None:
    content = bytearray(the_segment(run).read_bytes())
    content[len(content) // 2] ^= 0xFF
    the_segment(run).write_bytes(content)


def cut(run: Path) -> None:
    content = the_segment(run).read_bytes()
    the_segment(run).write_bytes(content[: len(content) // 3])


BAD_LOGS: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "no folder": (lambda run: shutil.rmtree(run / "log"), 3, ("log: there is no log here", "map the reads again")),
    "no segment": (lambda run: the_segment(run).unlink(), 3, ("log: there is no log here",)),
    "empty": (lambda run: the_segment(run).write_bytes(b"") and None, 3, ("log: no log segment is here",)),
    "of another version": (edit_header(of_another_version), 9, ("0000000000000000.log", "version 2", "1")),
    "of another kind": (
        edit_header(lambda header: header.__setitem__(0, 0)),
        5,
        ("0000000000000000.log", "offset 0"),
    ),
    "with a flipped bit": (rotten, 5, ("0000000000000000.log: offset ", "record 0", "checksum", "check the disk")),
    "without its end": (cut, 5, ("log: the log holds 0 records", "were made of 2", "its end is missing")),
}


@pytest.mark.parametrize("name", list(BAD_LOGS))
def test_a_bad_log_is_not_replayed(name, copy, cartoseq):
    change, code, parts = BAD_LOGS[name]
    change(copy)
    done = cartoseq("replay", copy, "--out", copy.parent / "RUN2", code=code)
    assert done.stderr.count("cartoseq: ") == 1
    for part in parts:
        assert part in done.stderr, done.stderr


def test_a_rotten_log_is_not_gone_on_with(run, copy, said):
    # Where its maps are made and its state is kept, nobody reads the log again.
    rotten(copy)
    (copy / "qc.json").unlink()
    (copy / "state" / "fold.h5").unlink()
    message = said("map", experiment_of(run), "--out", copy, "--resume", code=5)
    assert "0000000000000000.log: offset " in message
    assert message.count("offset") == 1
