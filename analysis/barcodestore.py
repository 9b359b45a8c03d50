"""A chip's barcode index on disk, so that the table is read and indexed once.

The file lies beside the chip's table, or in a cache folder where that folder cannot be written. It is tied to the
table by a hash of its content, to the options that it was read with, and to the layout of the index; every array
has a checksum. A file that does not fit any more, or is damaged, is built anew. It is read with plain reads into
private memory, which can have huge pages; mapped files cannot. Byte layout: docs/formats/barcode-index.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import struct
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs
from crc32c import crc32c
from numpy.typing import NDArray

from cartoseq.analysis.barcodeindex import BarcodeIndex
from cartoseq.analysis.chip import ChipFrame, ChipOptions, FrameKind, read_chip
from cartoseq.analysis.lowlevel import empty_table
from cartoseq.streaming.errors import InputError

LAYOUT_VERSION = 1
SUFFIX = ".barcodeindex"

_MAGIC = b"CARTOIDX"
_PREAMBLE = struct.Struct("<8sIII")  # magic, layout version, header bytes, CRC-32C of the header
_ALIGNMENT = 64
_INDEX_ARRAYS = ("a_offsets", "a_entries", "a_spots", "b_offsets", "b_entries")

_log = logging.getLogger(__name__)


class StaleIndexError(Exception):
    """The index file is whole, but belongs to another table, other options or another layout."""


class DamagedIndexError(Exception):
    """The index file is cut off or altered."""


def open_index(
    chip_path: str | Path, options: ChipOptions | None = None, cache_folder: Path | None = None
) -> tuple[BarcodeIndex, ChipFrame]:
    """Read a chip's saved index, or build it from the chip's table and save it for the next time.

    Args:
        chip_path: The chip's table: ``barcodeToPos.h5``, ``.bin`` or text.
        options: How the table is to be read.
        cache_folder: Where the index is kept; by default beside the table, or where that cannot be written
            in the user's cache folder.

    Raises:
        InputError: the table is missing or malformed.
    """
    chip_path = Path(chip_path)
    options = options or ChipOptions()
    fingerprint = table_fingerprint(chip_path, options)
    places = _places(chip_path, options, cache_folder)
    for place in places:
        try:
            return load_index(place, fingerprint)
        except FileNotFoundError:
            continue
        except StaleIndexError as error:
            _log.info("%s: %s; building the barcode index anew", place, error)
        except (DamagedIndexError, OSError) as error:
            _log.warning("%s: the barcode index is damaged (%s); building it anew", place, error)
    chip = read_chip(chip_path, options)
    index = BarcodeIndex.build(chip.cids, chip.spots, chip.barcode_length)
    frame = chip.frame
    del chip
    if index.shared_barcodes:
        _log.warning(
            "%s: %d barcodes stand at several spots; their reads are counted as ambiguous",
            chip_path,
            index.shared_barcodes,
        )
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            save_index(place, index, frame, fingerprint)
            break
        except OSError as error:
            _log.info("%s: the barcode index cannot be kept here (%s)", place, error.strerror)
    else:
        _log.warning("%s: its barcode index could not be kept and will be built again next time", chip_path)
    return index, frame


def table_fingerprint(chip_path: Path, options: ChipOptions) -> str:
    """A hash of a table's content and of the options that it is read with.

    Raises:
        InputError: the table is missing or cannot be read.
    """
    try:
        with chip_path.open("rb") as file:
            content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20))
    except FileNotFoundError:
        raise InputError(chip_path, "there is no such file", remedy="Check the chip's path.") from None
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror}"
        raise InputError(chip_path, problem, remedy="Check the chip's path and permissions.") from error
    # Where no name is given the file's name is the chip's: it belongs to what the index says.
    read_as = {**dataclasses.asdict(options), "file": chip_path.name}
    content.update(json.dumps(read_as, sort_keys=True).encode())
    return content.hexdigest()


def save_index(path: Path, index: BarcodeIndex, frame: ChipFrame, fingerprint: str) -> None:
    """Write an index and its frame, whole or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    arrays: dict[str, NDArray[Any]] = {name: getattr(index, name) for name in _INDEX_ARRAYS}
    if frame.x is not None and frame.y is not None:
        arrays |= {"frame_x": frame.x, "frame_y": frame.y}
    header = {
        "fingerprint": fingerprint,
        "index": {key: getattr(index, key) for key in ("barcode_length", "a_bits", "b_bits", "shared_barcodes")},
        "frame": {
            "kind": str(frame.kind),
            "name": frame.name,
            "pitch_um": frame.pitch_um,
            **{key: getattr(frame, key) for key in ("origin_x", "origin_y", "width", "height")},
        },
        "arrays": [
            {"name": name, "dtype": array.dtype.str, "size": array.size, "crc32c": crc32c(_bytes_of(array))}
            for name, array in arrays.items()
        ],
    }
    text = json.dumps(header, sort_keys=True).encode()
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_PREAMBLE.pack(_MAGIC, LAYOUT_VERSION, len(text), crc32c(text)))
            file.write(text)
            for array in arrays.values():
                file.write(bytes(-file.tell() % _ALIGNMENT))
                file.write(_bytes_of(array))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_index(path: Path, fingerprint: str) -> tuple[BarcodeIndex, ChipFrame]:
    """Read a saved index into private memory, and check it.

    Raises:
        FileNotFoundError: there is none.
        StaleIndexError: it belongs to another table, other options or another layout.
        DamagedIndexError: it is cut off or altered.
    """
    with path.open("rb", buffering=0) as file:
        header = _read_header(file, fingerprint)
        try:
            arrays: dict[str, NDArray[Any]] = {}
            for entry in header["arrays"]:
                file.seek(-file.tell() % _ALIGNMENT, os.SEEK_CUR)
                array = empty_table(entry["size"], np.dtype(entry["dtype"]))
                _read_fully(file, _bytes_of(array))
                if crc32c(_bytes_of(array)) != entry["crc32c"]:
                    raise DamagedIndexError(f"the checksum of {entry['name']} is wrong")
                arrays[entry["name"]] = array
            parts: dict[str, Any] = header["index"] | {name: arrays[name] for name in _INDEX_ARRAYS}
            index = BarcodeIndex(**parts)
            place = header["frame"] | {"kind": FrameKind(header["frame"]["kind"])}
            return index, ChipFrame(**place, x=arrays.get("frame_x"), y=arrays.get("frame_y"))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedIndexError(f"its header is incomplete: {error!r}") from error


def _read_header(file: BinaryIO | Any, fingerprint: str) -> dict[str, Any]:
    preamble = bytearray(_PREAMBLE.size)
    _read_fully(file, memoryview(preamble))
    magic, version, length, checksum = _PREAMBLE.unpack(preamble)
    if magic != _MAGIC:
        raise DamagedIndexError("it does not begin as an index")
    if version != LAYOUT_VERSION:
        raise StaleIndexError(f"it has layout {version}, this program's is {LAYOUT_VERSION}")
    if length > 1 << 20:
        raise DamagedIndexError("its header is too long")
    text = bytearray(length)
    _read_fully(file, memoryview(text))
    if crc32c(bytes(text)) != checksum:
        raise DamagedIndexError("the checksum of its header is wrong")
    header: dict[str, Any] = json.loads(text)
    if header.get("fingerprint") != fingerprint:
        raise StaleIndexError("the table or its options have changed")
    return header


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.view(np.uint8).data


def _read_fully(file: Any, into: memoryview) -> None:
    at = 0
    while at < len(into):
        got = file.readinto(into[at : at + (1 << 30)])
        if not got:
            raise DamagedIndexError("it is cut off")
        at += got


def _places(chip_path: Path, options: ChipOptions, cache_folder: Path | None) -> list[Path]:
    """Where the index may lie, the best place first. Other options have another file."""
    read_as = json.dumps(dataclasses.asdict(options), sort_keys=True)
    if cache_folder is not None:
        return [Path(cache_folder) / _file_name(chip_path.name, str(chip_path.resolve()) + read_as)]
    beside = chip_path.with_name(_file_name(chip_path.name, read_as))
    cache = platformdirs.user_cache_path("cartoseq") / "barcodes"
    return [beside, cache / _file_name(chip_path.name, str(chip_path.resolve()) + read_as)]


def _file_name(table: str, distinction: str) -> str:
    digest = hashlib.blake2b(distinction.encode(), digest_size=4).hexdigest()
    return f"{table}.{digest}{SUFFIX}"
