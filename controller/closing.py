"""The last lines of a command: what became of the reads, what lies where, and what to type next."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from cartoseq.analysis.runfolder import RunFolder


def program() -> str:
    """How this program was called, so that a line can be pasted into the same shell."""
    called = Path(sys.argv[0])
    if called.name != "cartoseq":
        return "cartoseq"
    found = shutil.which("cartoseq")
    if found and Path(found).resolve() == called.resolve():
        return "cartoseq"
    here = Path.cwd()
    absolute = called.absolute()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute))


def command(*arguments: object) -> str:
    """A command of this program, ready to be pasted into a shell."""
    return " ".join([program(), *(shlex.quote(str(argument)) for argument in arguments)])


def final_lines(qc: dict[str, Any]) -> list[str]:
    """What became of the reads, a line for each library, from qc.json."""
    width = max(map(len, qc["libraries"]), default=0)
    lines = []
    for name, library in qc["libraries"].items():
        counts = library["counters"]
        total = counts["reads_total"] or 1
        placed = counts["located_exact"] + counts["located_corrected"]
        lines.append(
            f"{name + ':':<{width + 1}} {counts['reads_total']:,} reads, {100 * placed / total:.1f} % on the chip, "
            f"{100 * counts['assigned'] / total:.1f} % assigned, {counts['molecules']:,} molecules, "
            f"saturation {100 * library['saturation']:.1f} %"
        )
    return lines


def where_lines(run: RunFolder) -> list[str]:
    """Where maps, pictures and report lie, and the commands that open them."""
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    rows = [("maps", str(run.maps))]
    rows += [("picture", str(picture)) for picture in sorted(run.exports.glob("*.png"))]
    if run.tissue.is_dir():
        from cartoseq.analysis.tissueimages import PICTURE

        if (picture := run.tissue / PICTURE).exists():
            rows.append(("tissue", str(picture)))
    rows += [("report", str(run.report))]
    todo = [
        ("look at it", f"{opener} {shlex.quote(str(run.report))}"),
        ("in Python", f"import cartoseq; run = cartoseq.open_run({str(run.path)!r})"),
        ("other tools", command("export", run.path, "--format", "gef", "--format", "h5ad")),
        ("every read", command("qc", run.path)),
    ]
    width = max(len(name) for name, _ in [*rows, *todo])
    return ["", *(f"{name:<{width}}  {text}" for name, text in rows), "", *(f"{n:<{width}}  {t}" for n, t in todo)]


def instrument_lines(run: RunFolder) -> list[str]:
    """Where what an instrument made lies."""
    rows = [("journal", run.journal)]
    rows += [("pictures", folder) for folder in sorted(run.images.glob("*")) if folder.is_dir()]
    return ["The recipe was done to its end.", "", *(f"{name:<9} {path}" for name, path in rows)]
