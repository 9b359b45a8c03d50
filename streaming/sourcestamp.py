"""What the machine code of a kernel was made of: its file and every file of ours that this one imports.

Numba looks at the kernel's own file only. A constant or a helper of another file is compiled into the kernel all the
same, and machine code on disk would outlive a change of it.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

_PACKAGE = __name__.split(".", maxsplit=1)[0]
_ROOT = Path(__file__).parents[__name__.count(".") - 1]
_IMPORT = re.compile(rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+([^\n]*))", re.M)
_NAME = re.compile(rb"[\w.]+")


@cache
def source_stamp(path: Path) -> str:
    """A digest of a file and of all files of this package that it imports, directly or through others."""
    seen = {path}
    waiting = [path]
    while waiting:
        fresh = _imported(waiting.pop()) - seen
        seen |= fresh
        waiting += fresh
    digest = hashlib.sha256()
    for file in sorted(seen):
        digest.update(_digest(file))
    return digest.hexdigest()


@cache
def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@cache
def _imported(path: Path) -> frozenset[Path]:
    """The files of this package that a file imports."""
    found = set()
    for origin, names, plain in _IMPORT.findall(path.read_bytes()):
        modules = _NAME.findall(plain)
        if origin:  # a name that is imported from a package may be a module
            modules += [origin, *(origin + b"." + name for name in _NAME.findall(names))]
        for module in modules:
            package, *parts = module.decode().split(".")
            if package == _PACKAGE:
                place = _ROOT.joinpath(*parts)
                found |= {
                    file for file in (place.with_name(place.name + ".py"), place / "__init__.py") if file.is_file()
                }
    return frozenset(found)
