from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import cartoseq

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = ("streaming", "drivers", "analysis", "simulators", "controller")
CORE, TESTS, BUILD = (PROJECT / f"requirements{name}.lock" for name in ("", "-test", "-build"))

STAND_IN = """\
#!/bin/sh
# Stands in for Python: answers ./run as python, venv and pip would, in no time and without a network.
case "$1 ${2-}" in
"-V ") echo "Python 3.11.0" ;;
"-c "*) exit 0 ;;
"-m venv")
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    printf '#!/bin/sh\\necho "cartoseq in $PWD:"\\nprintf "<%%s>" "$@"\\n' >"$3/bin/cartoseq"
    chmod +x "$3/bin/cartoseq"
    ;;
"-m pip")
    echo "$@" >>"$PIP_CALLS"
    [ ! -e "$PIP_CALLS.breaks" ] || { echo "the wheel is broken"; exit 1; }
    sleep "${PIP_SECONDS:-0}"
    ;;
*) echo "python in $PWD:" && printf "<%s>" "$@" ;;
esac
"""


class Checkout:
    """A copy of the run script in a folder of its own, with a stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "my project"
        self.elsewhere = folder / "else where"
        self.pip_calls = folder / "pip"
        for path in (self.home, self.elsewhere, self.home / "tests"):
            path.mkdir()
        for name in ("run", "pyproject.toml", CORE.name, TESTS.name, BUILD.name):
            shutil.copy(PROJECT / name, self.home / name)
        (folder / "python").write_text(STAND_IN)
        (folder / "python").chmod(0o755)
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHON": str(folder / "python"),
            "PIP_CALLS": str(self.pip_calls),
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.home / "run", *arguments],
            cwd=self.elsewhere,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def installs(self) -> list[str]:
        calls = self.pip_calls.read_text().splitlines() if self.pip_calls.exists() else []
        self.pip_calls.unlink(missing_ok=True)
        return calls


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_first_time_sets_up_and_the_second_only_runs(checkout: Checkout) -> None:
    code, out, err = checkout.run("map", "my file.toml", "")
    assert (code, out) == (0, f"cartoseq in {checkout.elsewhere}:\n<map><my file.toml><>")
    assert err.splitlines() == [
        "run: making the environment .venv with Python 3.11.0",
        "run: installing what requirements.lock names, checksums verified (a minute or two)",
        "run: installing cartoseq itself",
    ]
    locked, editable = checkout.installs()
    assert locked == f"-m pip install --require-hashes -r {checkout.home / CORE.name} -r {checkout.home / BUILD.name}"
    assert editable == "-m pip install --no-build-isolation --no-deps -e ."
    assert checkout.run() == (0, f"cartoseq in {checkout.elsewhere}:\n<demo>", "")
    assert checkout.installs() == []
    assert not (checkout.home / ".venv.lock").is_symlink()


def test_tests_and_benchmarks_run_where_the_user_stands(checkout: Checkout) -> None:
    (checkout.elsewhere / "test_mine.py").touch()
    start = f"python in {checkout.elsewhere}:\n<-m><pytest><-c><{checkout.home}/pyproject.toml><-n><auto>"
    assert checkout.run("test", "-k", "some thing")[1] == f"{start}<-k><some thing><{checkout.home}/tests>"
    assert TESTS.name in checkout.installs()[0]
    assert checkout.run("test", "test_mine.py::test_x")[1] == f"{start}<test_mine.py::test_x>"
    assert checkout.run("bench", "--all")[1:] == (f"python in {checkout.elsewhere}:\n<-m><benchmarks><--all>", "")
    assert checkout.installs() == []


def test_the_tests_packages_come_on_top_of_a_made_environment(checkout: Checkout) -> None:
    checkout.run()
    checkout.installs()
    code, _, err = checkout.run("test")
    assert code == 0
    assert "making the environment" not in err
    assert TESTS.name in checkout.installs()[0]


def test_changed_pins_are_installed(checkout: Checkout) -> None:
    checkout.run()
    checkout.installs()
    with (checkout.home / CORE.name).open("a") as lock:
        lock.write("# changed\n")
    assert "installing what requirements.lock names" in checkout.run()[2]
    assert len(checkout.installs()) == 2


def test_a_failing_installation_shows_its_end_and_is_repaired_next_time(checkout: Checkout) -> None:
    breaks = checkout.pip_calls.with_name("pip.breaks")
    breaks.touch()
    code, out, err = checkout.run()
    assert (code, out) == (1, "")
    assert "the wheel is broken\nrun: that failed; the whole output is in" in err
    (checkout.home / ".venv" / "half-made").touch()
    breaks.unlink()
    code, out, _ = checkout.run()
    assert (code, out) == (0, f"cartoseq in {checkout.elsewhere}:\n<demo>")
    assert not (checkout.home / ".venv" / "half-made").exists()


def test_a_moved_folder_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.run()
    checkout.home = checkout.home.rename(checkout.home.with_name("moved"))
    assert "making the environment" in checkout.run()[2]


def test_two_at_once_set_up_once(checkout: Checkout) -> None:
    processes = [checkout.start(PIP_SECONDS="0.5") for _ in range(3)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [out for out, _ in results] == [f"cartoseq in {checkout.elsewhere}:\n<demo>"] * 3
    assert sum("making the environment" in err for _, err in results) == 1
    assert len(checkout.installs()) == 2


def test_the_lock_of_a_killed_set_up_holds_up_nobody(checkout: Checkout) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    (checkout.home / ".venv.lock").symlink_to(str(gone.pid))
    assert checkout.run()[0] == 0
    assert not list(checkout.home.glob(".venv.lock*"))


def test_an_environment_of_the_users_own_is_kept(checkout: Checkout) -> None:
    subprocess.run([checkout.environment["PYTHON"], "-m", "venv", checkout.home / ".venv"], check=True)
    (checkout.home / ".venv" / "mine").touch()
    assert checkout.run()[0] == 0
    assert (checkout.home / ".venv" / "mine").exists()
    assert len(checkout.installs()) == 2


def test_a_machine_without_python_is_told_so(checkout: Checkout, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "readlink", "dirname", "cat", "cksum", "ln", "rm", "rmdir", "ls"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    code, out, err = checkout.run(PATH=str(tools), PYTHON="python-nowhere")
    assert (code, out) == (1, "")
    assert err.startswith("run: no Python 3.11 or newer with pip and venv was found. Install one")


@pytest.mark.parametrize(("script", "shell"), [("run", "sh"), (".ci/run", "bash")])
def test_a_script_is_executable_and_parses(script: str, shell: str) -> None:
    assert os.access(PROJECT / script, os.X_OK)
    subprocess.run([shell, "-n", PROJECT / script], check=True)


def pins(lock: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ]+)", line):
            found.setdefault(normal(match[1]), set()).add(match[2])
    return found


def normal(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement)[0]).lower()


def project_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    return table


@pytest.mark.parametrize("lock", [CORE, TESTS, BUILD], ids=lambda path: path.name)
def test_a_lock_names_packages_and_checksums_and_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-", re.sub(r"^ +--hash=.*$", "", text, flags=re.MULTILINE), re.MULTILINE)
    entries = re.split(r"\n(?=[A-Za-z])", text)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_every_dependency_is_locked() -> None:
    project = project_table()
    extras = project["project"]["optional-dependencies"]
    assert {normal(name) for name in project["project"]["dependencies"]} <= set(pins(CORE))
    assert {normal(name) for name in (*extras["test"], *extras["lint"])} <= set(pins(TESTS))
    assert {normal(name) for name in project["build-system"]["requires"]} <= set(pins(BUILD))
    assert {name: pins(TESTS).get(name) for name in pins(CORE)} == pins(CORE)


def test_the_wheel_holds_all_rooms_whole(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "LICENSE", "README.md", "src", *ROOMS):
        if (PROJECT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(PROJECT / name, tree / name, symlinks=True, ignore=ignore)
        elif (PROJECT / name).exists():
            shutil.copy(PROJECT / name, tree / name)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    made = subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=tree, capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("cartoseq-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.startswith("cartoseq-")}
    kinds = (".py", ".json", ".toml", ".tcss", ".html")
    wanted = {
        f"cartoseq/{path.relative_to(tree)}"
        for room in ROOMS
        for path in (tree / room).rglob("*")
        if path.suffix in kinds
    }
    assert {f"cartoseq/{room}/__init__.py" for room in ROOMS} <= wanted
    assert wanted | {"cartoseq/__init__.py", "cartoseq/py.typed"} <= packed
    assert all(name.startswith("cartoseq/") for name in packed)


def test_the_citation_names_this_version() -> None:
    citation = (PROJECT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {cartoseq.__version__}\n" in citation
    assert f"\nlicense: {project_table()['project']['license']}\n" in citation
