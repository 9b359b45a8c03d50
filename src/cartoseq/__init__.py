"""Cartoseq: acquisition and streaming controller for spatial DNA and RNA sequencing.

``cartoseq.open_run("RUN")`` opens the folder of a run and gives its maps, genes and counters. Importing the
package itself is light: nothing else is loaded until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cartoseq.analysis.run import Run

__all__ = ["__version__", "open_run"]

__version__ = "0.1.0"


def open_run(folder: str | Path) -> Run:
    """Open the folder of a run, finished or still going.

    Args:
        folder: The folder that ``cartoseq map --out`` wrote.

    Raises:
        InputError: the folder is no run, or holds no map yet.
    """
    from cartoseq.analysis.run import open_run as open_folder

    return open_folder(folder)
