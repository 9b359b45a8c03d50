from __future__ import annotations

import errno
import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from cartoseq import __version__
from cartoseq.analysis.runfolder import RunFolder
from cartoseq.controller import cli, closing, mapping
from cartoseq.controller.child import ChildError
from cartoseq.controller.mapping import InterruptedRunError
from cartoseq.streaming.errors import DiskError, InputError, RunError, VersionError


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the program; give its exit code, what it said and what it complained."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cartoseq", *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        else:
            code = 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_help_and_version_end_well(call):
    assert call("--version") == (0, f"cartoseq, version {__version__}\n", "")
    code, said, _ = call("--help")
    assert code == 0
    for command in cli.cli.commands:
        assert f"\n  {command} " in said


@pytest.mark.parametrize("command", sorted(cli.cli.commands))
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(cli.cli, [command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    if command != "schema":
        assert f"cartoseq {command}" in result.output


@pytest.mark.parametrize("arguments", [["map"], ["map", "x.toml"], ["nothing"], ["demo", "--reads", "few"], ["--what"]])
def test_a_call_that_makes_no_sense_ends_with_2(arguments, call):
    code, _, complaint = call(*arguments)
    assert code == 2
    assert "Error: " in complaint


def test_a_missing_experiment_ends_with_3_and_one_line(call, tmp_path):
    code, said, complaint = call("map", str(tmp_path / "none.toml"), "--out", str(tmp_path / "RUN"))
    assert (code, said) == (3, "")
    assert complaint == f"cartoseq: {tmp_path}/none.toml: there is no such experiment file. Correct the path.\n"
    assert not (tmp_path / "RUN").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("chip.h5", "it is damaged"), 3),
        (ChildError("reads.fq: it is damaged.", 3), 3),
        (RunError("the binner died."), 5),
        (DiskError("RUN: the disk is full."), 7),
        (OSError(errno.ENOSPC, "No space left on device", "RUN/maps.h5"), 7),
        (VersionError("maps.h5: version 9"), 9),
        (InterruptedRunError("Stopped."), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_end_has_its_code_and_one_line(error, code, call, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(mapping, "map_experiment", fail)
    ended, said, complaint = call("map", "experiment.toml", "--out", str(tmp_path / "RUN"))
    assert (ended, said) == (code, "")
    assert len(complaint.strip().splitlines()) == 1
    assert "Traceback" not in complaint


def test_a_fault_of_the_program_is_not_hidden(call, monkeypatch):
    monkeypatch.setattr(mapping, "map_experiment", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("map", "experiment.toml", "--out", "RUN")


def test_a_reader_of_the_output_may_leave_without_a_word():
    program = [sys.executable, "-m", "cartoseq.controller.cli", "schema"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom cartoseq.controller import cli\n"
        "try:\n    sys.argv = ['cartoseq', '--help']; cli.main()\nexcept SystemExit:\n    pass\n"
        "print('|', *[name for name in ('numpy', 'numba', 'zmq', 'rich', 'pydantic', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "|"


def test_the_parent_of_the_processes_imports_no_numba():
    code = "import sys, cartoseq.controller.mapping, cartoseq.controller.screen; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_demo_wants_an_empty_folder(call, tmp_path):
    (tmp_path / "something").touch()
    code, _, complaint = call("demo", "--out", str(tmp_path))
    assert code == 3
    assert "something lies there already" in complaint


def test_demo_chooses_a_folder_that_is_not_there(tmp_path):
    assert cli._unused(tmp_path, "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert cli._unused(tmp_path, "demo") == tmp_path / "demo-3"


COUNTERS = {"reads_total": 2000, "located_exact": 1500, "located_corrected": 100, "assigned": 1000, "molecules": 800}
QC = {"schema": 1, "complete": True, "libraries": {"rna": {"counters": COUNTERS, "saturation": 0.2}}}


def test_the_last_lines_can_be_pasted(call, monkeypatch, tmp_path):
    run = RunFolder(tmp_path / "my run")
    run.create("", "{}")
    run.exports.mkdir()
    (run.exports / "rna.png").touch()
    run.qc.write_text(json.dumps(QC))
    monkeypatch.setattr(mapping, "map_experiment", lambda *_, **__: run)
    code, said, complaint = call("map", "experiment.toml", "--out", str(run.path))
    assert (code, complaint) == (0, "")
    lines = said.splitlines()
    assert lines[0] == "rna: 2,000 reads, 80.0 % on the chip, 50.0 % assigned, 800 molecules, saturation 20.0 %"
    assert f"maps         {run.path}/maps.h5" in lines
    assert f"picture      {run.path}/exports/rna.png" in lines
    assert f"report       {run.path}/report.html" in lines
    assert f"other tools  cartoseq export '{run.path}' --format gef --format h5ad" in lines
    assert any(line.endswith(f"'{run.path}/report.html'") for line in lines)


def test_commands_name_the_program_as_it_was_called(monkeypatch, tmp_path):
    program = tmp_path / "bin" / "cartoseq"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert closing.command("qc", "a b") == f"{program} qc 'a b'"
    monkeypatch.chdir(tmp_path)
    assert closing.program() == "bin/cartoseq"
    monkeypatch.setenv("PATH", str(program.parent))
    assert closing.program() == "cartoseq"
    monkeypatch.setattr(sys, "argv", ["/x/cli.py"])
    assert closing.program() == "cartoseq"


def test_qc_tells_every_counter(call, tmp_path):
    run = RunFolder(tmp_path / "RUN")
    assert call("qc", str(run.path))[0] == 3
    run.create("", "{}")
    assert call("qc", str(run.path))[0] == 3
    run.qc.write_text(json.dumps(QC))
    code, said, _ = call("qc", str(run.path))
    assert code == 0
    assert [line.split()[0] for line in said.splitlines() if line.startswith("  ")] == list(COUNTERS)
    assert json.loads(call("qc", str(run.path), "--json")[1]) == QC


def test_abort_is_an_interruption(call, monkeypatch):
    def abort(*_, **__):
        raise click.Abort

    monkeypatch.setattr(mapping, "map_experiment", abort)
    assert call("map", "x.toml", "--out", "RUN")[0] == 130
