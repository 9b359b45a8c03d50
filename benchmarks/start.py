"""Benchmark: from the start of a process to the first folded block, with compiled kernels and without.

Run ``python -m benchmarks.start [--json FILE]``. A process imports the kernels, opens a small chip and reference that
were indexed before, and folds one block. Warm: the kernels' machine code is on disk. Cold: an empty cache; the process
then compiles on more than one core, as the preparation of a run does, and the CPU time is that of all its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment

WARM_FLOOR_S, WARM_GOAL_S = 3.0, 1.0
COLD_FLOOR_S, COLD_GOAL_S = 25.0, 12.0
ROUNDS = 5
PROGRAM = """
import sys
from pathlib import Path
from cartoseq.controller.config import load_experiment
from cartoseq.controller.folding import make_fold
from cartoseq.controller.rehearsing import rehearsals_beside
from cartoseq.controller.sources import open_source
experiment = load_experiment(Path(sys.argv[1]))
with rehearsals_beside():
    fold = make_fold(experiment)
    with open_source(experiment, 0) as blocks:
        fold.libraries[0].add(next(blocks))
"""


def first_block_s(experiment: Path, cache: Path) -> tuple[float, float]:
    """Seconds from nothing to a folded block, and the CPU time of it."""
    start, before = time.perf_counter(), _cpu_s()
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(experiment)], env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, check=True
    )
    return time.perf_counter() - start, _cpu_s() - before


def _cpu_s() -> float:
    """CPU time of all processes that were started from here, and by these, and have ended."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiment = simulate_experiment(folder / "experiment", ExperimentSettings(reads=20_000))
        first_block_s(experiment, folder / "other")  # the chip's and the reference's index are on disk from now on
        cold, cold_cpu = first_block_s(experiment, folder / "cache")
        warm = statistics.median(first_block_s(experiment, folder / "cache")[0] for _ in range(ROUNDS))
        bare = statistics.median(_bare_python_s() for _ in range(ROUNDS))
    results = {
        "warm_s": warm,
        "warm_floor_s": WARM_FLOOR_S,
        "warm_goal_s": WARM_GOAL_S,
        "cold_s": cold,
        "cold_floor_s": COLD_FLOOR_S,
        "cold_goal_s": COLD_GOAL_S,
        "cold_cpu_s": cold_cpu,
        "cores": len(os.sched_getaffinity(0)),
        "python_numpy_numba_alone_s": bare,
        "warm_of_alone": warm / bare,
    }
    for name, value in results.items():
        print(f"{name:32s}{value:10.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def _bare_python_s() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import numpy, numba, h5py, pydantic"], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
