"""What the documents and the help show is run: experiment files, Python, and command lines."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cartoseq
from cartoseq.controller.cli import cli
from cartoseq.controller.instrument import build_bench, parse_instrument
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.simulators.rack import build

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
#: What the TOML of these pages describes; that of the other pages, experiments.
RACKS, INSTRUMENTS, RECIPES = (PROJECT / "docs" / f"{kind}.md" for kind in ("rack", "instrument", "recipe"))
#: What ./run knows besides the commands of cartoseq.
OF_RUN = {"test", "lint", "bench"}
EXAMPLE = re.compile(r"^ *cartoseq .*$", re.MULTILINE)


def blocks(language: str, pages: list[Path] = PAGES) -> list[object]:
    """The blocks of one language, each with its page and line for a name."""
    found_blocks = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, found.start()) + 1
            name = f"{page.relative_to(PROJECT)}:{line}"
            found_blocks.append(pytest.param(textwrap.dedent(found[2]), id=name))
    return found_blocks


def command_lines() -> list[tuple[str, str]]:
    """Every whole command line that a block shows, with its page."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^ *```sh\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            found += [(page.name, line.split("#")[0].strip()) for line in block.splitlines() if line.strip()]
    return found


def parsed(line: str) -> None:
    """Let click take a command line apart, without running it.

    Raises:
        click.ClickException: there is no such command, option or value.
    """
    program, *arguments = shlex.split(line.split(" > ")[0])
    assert program in ("cartoseq", "./run"), line
    if not arguments or (program == "./run" and arguments[0] in OF_RUN):
        return
    name, *rest = arguments
    assert name in cli.commands, line
    cli.commands[name].make_context(name, rest)


@pytest.mark.parametrize("text", blocks("toml", [RACKS]))
def test_every_rack_that_is_shown_is_sound(text):
    assert build(tomllib.loads(text)).lines


@pytest.mark.parametrize("text", blocks("toml", [INSTRUMENTS]))
def test_every_instrument_that_is_shown_is_sound(text):
    assert list(build_bench(parse_instrument(text)).devices())


@pytest.mark.parametrize("text", blocks("toml", [RECIPES]))
def test_every_recipe_that_is_shown_can_be_planned(text, tmp_path):
    (tmp_path / "recipe.toml").write_text(text)
    bench = PROJECT / "instruments" / "bench.toml"
    arguments = ["plan", str(tmp_path / "recipe.toml"), "--instrument", str(bench), "--out", str(tmp_path)]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "time  " in result.output
    assert "dry run   completed in" in result.output


@pytest.mark.parametrize("text", blocks("toml", [page for page in PAGES if page not in (RACKS, INSTRUMENTS, RECIPES)]))
def test_every_experiment_that_is_shown_is_sound(text, tmp_path):
    content = tomllib.loads(text)
    names = [content["chip"]["barcodes"]]
    for library in content["library"]:
        names += [name for row in library["reads"] for name in row]
        names += [library[key] for key in ("genome", "genes", "loci") if key in library]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "experiment.toml").write_text(text)
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "experiment.toml")], catch_exceptions=False)
    assert "sound. Libraries: " in result.output


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a finished run in it, as the examples take it."""
    folder = tmp_path_factory.mktemp("workplace")
    experiment = simulate_experiment(folder / "simulated", ExperimentSettings(seed=2, reads=5_000))
    call("map", experiment, "--out", folder / "RUN")
    call("export", folder / "RUN", "--format", "h5ad")
    (folder / "maps.h5").symlink_to(folder / "RUN" / "maps.h5")
    return folder


def call(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cartoseq.controller.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", blocks("python"))
def test_every_piece_of_python_that_is_shown_runs(text, workplace):
    gene = cartoseq.open_run(workplace / "RUN").libraries["rna"].feature_names[0]
    for shown, meant in (('"GENE"', f'"{gene}"'), ('"Doc2g"', f'"{gene}"'), ("reads=1_000_000", "reads=2_000")):
        text = text.replace(shown, meant)
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=workplace, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_every_command_line_that_is_shown_is_one():
    lines = command_lines()
    assert len(lines) >= 7
    for page, line in lines:
        try:
            parsed(line)
        except click.ClickException as error:
            pytest.fail(f"{page}: {line}: {error.format_message()}")


def test_every_command_and_option_that_a_text_names_exists():
    for page in PAGES:
        for program, name, rest in re.findall(r"`(cartoseq|\./run) ([a-z]+)([^`]*)`", page.read_text(encoding="utf-8")):
            if program == "./run" and name in OF_RUN:
                continue
            assert name in cli.commands, (page.name, name)
            known = {text for option in cli.commands[name].params for text in option.opts} | {"--help"}
            assert set(re.findall(r"--[a-z-]+", rest)) <= known, (page.name, name, rest)


def test_the_index_of_drivers_has_every_page_and_module_and_no_other():
    index = (PROJECT / "docs" / "drivers" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (PROJECT / "docs" / "drivers").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\(([a-z0-9]+\.md)\)", index)) == pages
    rows = [row.split("|")[1:-1] for row in re.findall(r"^\|.*\]\(.*\|$", index, re.MULTILINE)]
    drivers = set(re.findall(r"`([a-z0-9]+\.py)`", "".join(row[3] for row in rows) + index.rsplit("|", 1)[1]))
    assert drivers == {path.name for path in (PROJECT / "drivers").glob("*.py")} - {"__init__.py"}
    simulators = set(re.findall(r"`([a-z0-9]+\.py)`", "".join(row[4] for row in rows)))
    simulated = {path.name for path in (PROJECT / "simulators" / "devices").glob("*.py")}
    assert simulators == simulated - {"__init__.py", "disturbances.py"}


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_every_help_shows_an_example_that_can_be_typed(name):
    result = CliRunner().invoke(cli, [*name.split(), "--help"], prog_name="cartoseq", terminal_width=200)
    assert result.exit_code == 0
    examples = [line.strip() for line in EXAMPLE.findall(result.output)]
    assert examples
    for line in examples:
        assert not name or line.split()[1] == name
        parsed(line)


def loaded(code: str) -> set[str]:
    """The modules that a piece of Python loads."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import cartoseq", "import cartoseq.controller.cli"])
def test_what_is_not_needed_yet_is_not_loaded(code):
    heavy = {"numba", "numpy", "h5py", "textual", "polars", "matplotlib", "pydantic", "zmq", "rich"}
    assert loaded(code) & heavy == set()
