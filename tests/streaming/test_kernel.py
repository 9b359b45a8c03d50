"""Kernels: what is compiled how often, by which process, and when machine code on disk is out of date."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = """
import sys
from cartoseq.streaming.kernel import compile_inner, is_kept, kernel
import numpy as np
from numba.core import event

STEP = {step}
@kernel
def add(a, step):
    return a + step * STEP

@kernel
def add_twice(a):
    return add(add(a, 1), 2)

class Count(event.Listener):
    compiled = []
    def on_start(self, event):
        self.compiled.append(event.data["dispatcher"].py_func.__name__)
    def on_end(self, event):
        pass

event.register("numba:compile", Count())
"""


def run(folder: Path, body: str, step: int = 10) -> list[str]:
    """Run a program with two kernels, in a process of its own with its cache in the folder; the words it prints."""
    return start(folder, body, step).communicate(timeout=120)[0].split()


def start(folder: Path, body: str, step: int = 10) -> subprocess.Popen[str]:
    program = folder / "program.py"
    text = KERNELS.format(step=step) + body
    if not program.exists() or program.read_text() != text:
        program.write_text(text)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")}
    return subprocess.Popen([sys.executable, program], env=environment, stdout=subprocess.PIPE, text=True)


def test_a_constant_compiles_nothing_anew_and_a_second_process_nothing_at_all(tmp_path: Path) -> None:
    body = "print(add_twice(1), *Count.compiled, is_kept(add_twice))"
    assert run(tmp_path, body) == ["31", "add_twice", "add", "True"]
    assert run(tmp_path, body) == ["31", "True"]


def test_a_kernel_within_another_can_be_called_from_python_too(tmp_path: Path) -> None:
    body = "print(add_twice(1), add(1, 1), *Count.compiled)"
    assert run(tmp_path, body) == ["31", "11", "add_twice", "add", "add"]
    assert run(tmp_path, body) == ["31", "11"]


def test_compiling_ahead_is_for_the_kernels_that_call_it(tmp_path: Path) -> None:
    body = """
if is_kept(add.inner):
    add_twice(1)
else:
    compile_inner(add, 1, 1)
print(*Count.compiled)
"""
    assert run(tmp_path, body) == ["add"]
    assert run(tmp_path, body) == ["add_twice"]


def test_machine_code_of_other_source_is_not_used(tmp_path: Path) -> None:
    body = "print(add_twice(1), *Count.compiled)"
    assert run(tmp_path, body, step=10) == ["31", "add_twice", "add"]
    assert run(tmp_path, body, step=20) == ["61", "add_twice", "add"]


def test_two_processes_at_once_compile_a_kernel_once(tmp_path: Path) -> None:
    body = "print(add_twice(1), *Count.compiled)"
    said = [child.communicate(timeout=120)[0].split() for child in [start(tmp_path, body) for _ in range(3)]]
    assert [words[0] for words in said] == ["31"] * 3
    assert sorted(word for words in said for word in words[1:]) == ["add", "add_twice"]


def test_a_file_system_without_locks_is_no_obstacle(tmp_path: Path) -> None:
    body = "import fcntl\ndef no(*_): raise OSError\nfcntl.flock = no\nprint(add_twice(1))"
    assert run(tmp_path, body) == ["31"]


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collection_of_garbage_is_as_it_was_before(tmp_path: Path, collecting: bool) -> None:
    body = f"import gc\nif not {collecting}: gc.disable()\nadd_twice(1)\nprint(gc.isenabled())"
    assert run(tmp_path, body) == [str(collecting)]


def test_without_a_compiler_kernels_are_plain_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert run(tmp_path, "print(add_twice(1), *Count.compiled, is_kept(add_twice))") == ["31", "True"]
