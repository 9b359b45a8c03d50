"""Benchmark: gzipped FASTQ to molecules, end to end in one process: read, log, sync, read back, fold.

Run ``python -m benchmarks.replay [--reads 1_000_000] [--json FILE]``. The reads are simulated. Beside it, in turn, the
same files are only inflated (the physical limit of this input) and only turned into blocks. CPU time of all threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.fastq import inflate_only
from cartoseq.analysis.fold import Fold
from cartoseq.controller.config import Experiment, load_experiment
from cartoseq.controller.folding import make_fold
from cartoseq.controller.sources import open_source
from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment
from cartoseq.streaming.feed import feed_record
from cartoseq.streaming.header import SCHEMA_BLOCK, RecordHeader, RecordKind, bytes_in, crc_of
from cartoseq.streaming.log import LogReader, LogWriter

FLOOR, GOAL = 0.4e6, 0.85e6
ROUNDS = 3
RUN = 7


def through_the_log(experiment: Experiment, folder: Path, fold: Fold) -> None:
    """Read, log, and fold what was logged."""
    with LogWriter(folder, {"run": RUN}) as log, open_source(experiment, 0) as blocks:
        for sequence, block in enumerate(blocks):
            payload = block.payload()
            header = RecordHeader(
                RecordKind.DATA,
                RUN,
                sequence=sequence,
                count=block.clusters,
                payload_bytes=bytes_in(payload),
                payload_crc=crc_of(payload),
                schema=SCHEMA_BLOCK,
            )
            log.append(header, *payload)
            log.sync()
    with LogReader(folder) as log:
        for index, header, frame in log.records():
            fold.add(feed_record(index, header, frame))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--reads", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiment = load_experiment(
            simulate_experiment(folder / "experiment", ExperimentSettings(reads=options.reads))
        )
        paths = list(experiment.library[0].reads[0])
        number = iter(range(100))
        folds = [make_fold(experiment) for _ in range(ROUNDS + 1)]
        ways: dict[str, Callable[[], object]] = {
            "inflate": lambda: inflate_only(paths),
            "blocks": lambda: [block.clusters for block in open_source(experiment, 0)],
            "whole": lambda: through_the_log(experiment, folder / f"log{next(number)}", folds.pop()),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for round_number in range(ROUNDS + 1):
            for way, work in ways.items():
                start = time.process_time()
                work()
                if round_number:
                    rates[way].append(options.reads / (time.process_time() - start))
    results = {f"{way}_reads_per_cpu_second": statistics.median(values) for way, values in rates.items()}
    results["whole_of_inflate"] = statistics.median(
        whole / inflate for whole, inflate in zip(rates["whole"], rates["inflate"], strict=True)
    )
    results |= {"floor": FLOOR, "goal": GOAL}
    for name, value in results.items():
        print(f"{name:32s}{value:16,.3f}")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
