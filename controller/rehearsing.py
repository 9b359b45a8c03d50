"""Compiling beside the work: a first start compiles its kernels on more than one core."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rehearsals_beside() -> Iterator[None]:
    """Compile what this process will need last in processes of their own, while it does what comes before.

    With the machine code on disk, or on one core, nothing is started. Where the work fails, so does the compiling.
    """
    from cartoseq.analysis.rehearsal import missing_steps

    steps = missing_steps() if len(os.sched_getaffinity(0)) > 1 else []
    program = [sys.executable, "-m", "cartoseq.analysis.rehearsal"]
    helpers = [
        subprocess.Popen([*program, step], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for step in steps
    ]
    try:
        yield
    except BaseException:
        for helper in helpers:
            helper.kill()
        raise
    finally:
        for helper in helpers:
            helper.wait()
