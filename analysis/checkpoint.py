"""The fold's state on disk: state and log position in one file, replaced atomically.

The file is HDF5 with a seal behind it (:mod:`.sealed`, magic ``CSQSTATE``). A file that is
damaged, of another version or of other settings is no error: the log is the product, and the fold starts from zero.
Layout: docs/formats/state.md.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import h5py
import numpy as np

from cartoseq.analysis.atomic import replace_atomically
from cartoseq.analysis.fold import Fold, LibraryFold
from cartoseq.analysis.sealed import is_intact, seal, seal_of

log = logging.getLogger(__name__)

VERSION = 2
_MAGIC = b"CSQSTATE"


def save_checkpoint(path: Path, fold: Fold) -> None:
    """Write state and position, durable when this returns.

    Raises:
        OSError: the disk is full or refuses; the file that was there before is untouched.
    """
    with replace_atomically(path) as temporary:
        with h5py.File(temporary, "w") as file:
            file.attrs["position"] = fold.position
            file.attrs["fingerprint"] = fold.fingerprint
            file.attrs["ended"] = json.dumps(fold.ended, sort_keys=True)
            for number, library in enumerate(fold.libraries):
                _write_library(file.create_group(str(number)), library)
        seal(temporary, _MAGIC, VERSION)


def restore_checkpoint(path: Path, fold: Fold) -> bool:
    """Bring a fresh fold to the state kept in a file.

    Returns:
        Whether the state was taken up. If not, the fold is as fresh as before and the reason is logged.
    """
    if not path.is_file():
        return False
    reason = _unfit(path)
    if reason is None:
        with h5py.File(path, "r") as file:
            if file.attrs["fingerprint"] != fold.fingerprint:
                reason = "it belongs to other settings, another chip or another reference"
            else:
                fold.position = int(file.attrs["position"])
                fold.ended = {int(k): int(v) for k, v in json.loads(file.attrs["ended"]).items()}
                for number, library in enumerate(fold.libraries):
                    _read_library(file[str(number)], library)
                return True
    log.warning("%s: %s: the log is folded again from its start", path, reason)
    return False


def kept_position(path: Path) -> int | None:
    """The log position of a kept state; None if there is none that can be taken up."""
    if not path.is_file() or _unfit(path) is not None:
        return None
    with h5py.File(path, "r") as file:
        return int(file.attrs["position"])


def _unfit(path: Path) -> str | None:
    found = seal_of(path, _MAGIC)
    if found is None:
        return "the state is cut short"
    if found.version != VERSION:
        return f"the state is of version {found.version}, this program writes {VERSION}"
    if not is_intact(path, found):
        return "the state is damaged (checksum)"
    return None


def _write_library(group: h5py.Group, library: LibraryFold) -> None:
    group.attrs["counters"] = json.dumps(library.counters)
    group["call_counts"] = library.call_counts
    group["located"] = library.located.image
    library.molecules.checkpoint(group.create_group("molecules"))
    if library.dna is not None:
        library.dna.checkpoint(group.create_group("dna"))


def _read_library(group: h5py.Group, library: LibraryFold) -> None:
    library.counters.update(json.loads(group.attrs["counters"]))
    library.call_counts = np.asarray(group["call_counts"][...], np.uint64)
    library.located.image[...] = group["located"][...]
    library.molecules.restore(group["molecules"])
    if library.dna is not None:
        library.dna.restore(group["dna"])
    library.seen.draw(library.molecules)
