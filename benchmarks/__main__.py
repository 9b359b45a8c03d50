"""Run the benchmarks: ``./run bench [NAME ...] [--json FILE]``.

Without a name all are run, which takes about a quarter of an hour. Rates are per CPU second of one thread; machines are
noisy, so read the ratios. One benchmark alone takes options of its own: ``./run bench locate --spots 67000000``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

#: Name, and which rows of the goals it measures.
BENCHMARKS = {
    "locate": "barcodes to spots: rate, share of the machine's random-line rate, bytes a spot, build",
    "molecules": "molecule set: adds, bytes, longest pause; one gene's map, a snapshot",
    "assign": "templates to genes: rate beside minimap2, recall, precision",
    "fastq": "FASTQ to blocks: rate beside inflation alone",
    "fold": "blocks to molecules, end to end, on a chip of 16 million spots",
    "replay": "gzipped FASTQ to molecules through the log, end to end",
    "start": "process start to the first folded block, warm and cold",
    "stop": "from a stop's call to its bytes on the wire while a reply is awaited, every driver",
    "roundtrips": "exchanges a second by protocol beside a bare echo; exchanges of an operation",
    "virtualtime": "virtual seconds per second of a whole run's chemistry",
}


def main() -> int:
    """Run the benchmarks that were asked for, one process each."""
    parser = argparse.ArgumentParser(prog="run bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results here")
    options, rest = parser.parse_known_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if rest and len(options.names) != 1:
        parser.error(f"{' '.join(rest)}: options go to one benchmark, so name one")
    results, failed = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or BENCHMARKS:
            print(f"\n== {name}: {BENCHMARKS[name]}", flush=True)
            target = Path(folder) / f"{name}.json"
            done = subprocess.run(
                [sys.executable, "-m", f"benchmarks.{name}", "--json", str(target), *rest], check=False
            )
            failed |= done.returncode
            if target.exists():
                results[name] = json.loads(target.read_text())
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
