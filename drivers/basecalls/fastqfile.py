"""One FASTQ file: its text inflated piece by piece, its records marked, and its faults put into words.

Plain text, gzip and bgzip (gzip in many members, SAM specification section 4.1) are told apart by their first bytes
(RFC 1952: 1F 8B), not by the file's name. A fault is met where it lies: every record before it is handed out first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from cartoseq.drivers.basecalls.fastqbytes import (
    BASES,
    BLANK_LINE,
    CARRIAGE_RETURN,
    CUT,
    ENOUGH,
    KEY_END,
    LENGTH,
    NAME,
    NAME_END,
    NO_AT,
    NO_PLUS,
    PADDING,
    QUALITIES,
    RECORD_ROWS,
    find_records,
)
from cartoseq.drivers.basecalls.growing import Follow, GrowingFile
from cartoseq.streaming.errors import InputError

CHUNK_BYTES = 1 << 21
"""Text is handled in pieces of about this size, which stay in the cache from inflating to the base calls."""

_GZIP_MAGIC = b"\x1f\x8b"
_GzipError = cast("type[Exception]", isal_zlib.error)  # its type stub says that it is an instance
_GZIP_WINDOW = 31  # zlib's number for: a gzip header and trailer, with the checksum verified
_COMPRESSION = 4  # base calls shrink about so much; only the size of a piece depends on it
_INFLATED_BYTES = 1 << 16  # inflated at a time: what is lost before the place where damage shows
_EXPLAINED_BYTES = 4096  # of a record at fault, to say what is wrong with it
_FEWEST_RECORD_BYTES = 6  # "@", empty name, no bases: "@\n\n+\n\n"

# What else people hand in by mistake, by its first bytes.
_OTHER_FORMS = (
    (b">", "a FASTA file, which has no qualities", "Give the FASTQ files of the sequencer."),
    (b";", "a FASTA file, which has no qualities", "Give the FASTQ files of the sequencer."),
    (b"BAM\x01", "a BAM file", "Turn it into FASTQ first, for example with `samtools fastq`."),
    (b"CRAM", "a CRAM file", "Turn it into FASTQ first, for example with `samtools fastq`."),
    (b"@HD\t", "a SAM file", "Turn it into FASTQ first, for example with `samtools fastq`."),
    (b"@SQ\t", "a SAM file", "Turn it into FASTQ first, for example with `samtools fastq`."),
    (b"BZh", "compressed with bzip2", "Unpack it, or compress it with gzip."),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it, or compress it with gzip."),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it, or compress it with gzip."),
    (b"PK\x03\x04", "a zip archive", "Unpack it."),
    (b"\xef\xbb\xbf@", "text with a byte order mark", "Save it as plain text without a byte order mark."),
    (b"\xff\xfe", "text of 16-bit characters", "Save it as plain ASCII text."),
    (b"\x89HDF", "an HDF5 file", "Give the FASTQ files of the sequencer."),
    (_GZIP_MAGIC, "compressed twice", "Unpack it once."),
)


class _Inflater(Protocol):
    """What is used of isal's decompressor of one gzip member."""

    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, /) -> bytes: ...


class FastqFile:
    """One FASTQ file, its records marked a piece at a time.

    Usage: :meth:`more` makes records available; ``records[:, first : first + available]`` tells where they lie in
    ``text`` (see :func:`find_records`); :meth:`take` goes on behind those that were used.

    Attributes:
        path: The file.
        text: The buffer, uint8, shape (n,).
        records: Where records lie in it, int64, shape (``RECORD_ROWS``, room).
        first: The first record not yet taken, an index into ``records``.
        available: Number of records from there.
        taken: Number of records taken so far.

    Args:
        path: The file.
        follow: How to wait for a file that grows; None takes it as it is.
        chunk_bytes: Text is read in pieces of about this size.

    Raises:
        InputError: there is no such file.
    """

    def __init__(self, path: Path, follow: Follow | None = None, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.path = path
        self.taken = 0
        self.first = 0
        self.available = 0
        self._file = GrowingFile(path, follow)
        self._followed = follow is not None
        self._newline_added = False
        self._chunk_bytes = chunk_bytes
        self._gzip: bool | None = None
        self._head = b""
        self._member: _Inflater | None = None
        self._ended = False
        self._failure: InputError | None = None
        self._start = 0
        self._stop = 0
        self._reserve(chunk_bytes)

    @property
    def bytes_read(self) -> int:
        """Bytes read of the file as it lies on disk."""
        return self._file.bytes_read

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def more(self) -> bool:
        """Make at least one record available; False at the end of the file.

        Raises:
            InputError: the next record is at fault, or the file is; all records before it were available.
            RunError: waiting for the file to grow was stopped.
        """
        while self.available == 0:
            reason = CUT
            if self._start < self._stop:
                count, self._start, reason = find_records(self.text, self._words, self._start, self._stop, self.records)
                self.first, self.available = 0, count
                if count > 0:
                    break
            if reason not in (CUT, ENOUGH) and not (reason == BLANK_LINE and self._only_blank_lines_follow()):
                raise self._explain(reason)
            if self._ended:
                if self._failure is not None:
                    raise self._fault(self.taken + 1, self._failure.problem, self._failure.remedy)
                if self._start < self._stop:
                    raise self._explain(CUT)
                if self.taken == 0:
                    problem = "the file holds no reads" + ("" if self.bytes_read else ": it is empty")
                    raise InputError(self.path, problem, remedy="Copy it again from where it was written.")
                return False
            self._read_piece()
        return True

    def take(self, count: int) -> None:
        """Go on behind the next ``count`` of the available records."""
        self.first += count
        self.available -= count
        self.taken += count

    def name(self, index: int) -> bytes:
        """The name line of a record (an index into ``records``), without the ``@``."""
        return bytes(self.text[self.records[NAME, index] : self.records[NAME_END, index]])

    def key(self, index: int) -> bytes:
        """The part of a record's name that the reads of one cluster share."""
        return bytes(self.text[self.records[NAME, index] : self.records[KEY_END, index]])

    def explain_record(self, index: int, shortest: int, longest: int | None) -> InputError:
        """Say what is wrong with a record (an index into ``records``) that has four lines.

        Args:
            index: The record.
            shortest: The fewest bases that it may have.
            longest: The most; None: any number.
        """
        length = int(self.records[LENGTH, index])
        begin = int(self.records[BASES, index])
        bases = bytes(self.text[begin : begin + length])
        begin = int(self.records[QUALITIES, index])
        qualities = bytes(self.text[begin : begin + length])
        name = self.name(index).decode("ascii", "backslashreplace")
        number = self.taken + index - self.first + 1
        for position, letter in enumerate(bases):
            if letter not in b"ACGTNacgtn":
                return self._fault(
                    number,
                    f"{_character(letter)} at base {position + 1} of {name} is none of A C G T N",
                    f"The file is damaged, or no FASTQ of a sequencer; {self._again}",
                )
        for position, letter in enumerate(qualities):
            if not 33 <= letter <= 126:
                return self._fault(
                    number,
                    f"the quality at base {position + 1} of {name} is {_character(letter)}, outside ! (0) to ~ (93)",
                    f"The file is damaged, or bases and qualities are not equally many; {self._again}",
                )
        if length < shortest or longest is None:
            expected = f"{shortest}" if longest == shortest else f"at least {shortest}"
            return self._fault(
                number,
                f"the read {name} has {length} bases, and the read structure says {expected}",
                "Correct the read structure, or the order of the files; trimmed reads need one that ends in `+T`.",
            )
        return self._fault(
            number,
            f"the read {name} has {length} bases, and the read structure says {longest}",
            f"Correct the read structure, for example by {length - longest} more bases, skipped (S) or template (T), "
            "or the order of the files.",
        )

    @property
    def _again(self) -> str:
        # Damage inside a gzip file shows in its text long before the checksum at its end.
        return "copy it again; `gzip -t` must accept it." if self._gzip else "copy it again."

    def _fault(self, number: int, problem: str, remedy: str) -> InputError:
        return InputError(self.path, problem, place=place_of_record(number), remedy=remedy)

    def _explain(self, reason: int) -> InputError:
        """Say what is wrong with the text where the next record should be."""
        number = self.taken + 1
        while not self._ended and not self._followed and self._stop - self._start < _EXPLAINED_BYTES:
            self._read_piece()
        text = bytes(self.text[self._start : min(self._stop, self._start + _EXPLAINED_BYTES)])
        line = text.split(b"\n", 1)[0][:60].decode("ascii", "backslashreplace")
        if self.taken == 0:
            for magic, form, remedy in _OTHER_FORMS:
                if text.startswith(magic):
                    return InputError(self.path, f"is not FASTQ: it is {form}", remedy=remedy)
        if reason == CARRIAGE_RETURN:
            return self._fault(
                number,
                "the line ends are those of Windows (CR LF)",
                "Convert the file, for example with `dos2unix`, or `tr -d '\\r'` behind `zcat`.",
            )
        if reason == NO_AT and self.taken == 0:
            return InputError(
                self.path,
                f"is not FASTQ: it begins with {line!r}, and a FASTQ record begins with @",
                remedy="Give FASTQ files, plain or compressed with gzip.",
            )
        if reason == NO_AT:
            return self._fault(
                number,
                f"expected a name line that begins with @, found {line!r}",
                f"The file is damaged before here, or a record has more than four lines; {self._again}",
            )
        if reason == BLANK_LINE:
            return self._fault(
                number, "found an empty line between records", "Remove it; empty lines may only end the file."
            )
        lines = text.split(b"\n")
        if reason == NO_PLUS:
            return self._fault(
                number,
                f"expected + on the third line, found {lines[2][:60].decode('ascii', 'backslashreplace')!r}",
                f"The bases of a record must be on one line; if they are, the file is damaged: {self._again}",
            )
        cut = reason == CUT and self._newline_added
        if not cut and len(lines) >= 5 and len(lines[1]) != len(lines[3]):
            return self._fault(
                number,
                f"{len(lines[1])} bases and {len(lines[3])} qualities in {line!r}",
                f"The file is damaged here; {self._again}",
            )
        return self._fault(
            number,
            f"the file ends in the middle of {line!r}",
            "The file is cut off: copy it again, or take it after the sequencer has finished it.",
        )

    def _only_blank_lines_follow(self) -> bool:
        """Read on at an empty line; tell whether the file holds nothing else from there."""
        while True:
            text = self.text[self._start : self._stop]
            if np.any(text != 10):
                return False
            self._start = self._stop
            if self._ended:
                return True
            self._read_piece()

    def _read_piece(self) -> None:
        """Add a piece of text behind what is left, or find that there is none."""
        size = self._chunk_bytes if not self._gzip else max(1, self._chunk_bytes // _COMPRESSION)
        try:
            piece = self._file.read(size)
            if self._gzip is None:
                self._head += piece
                if piece and len(self._head) < len(_GZIP_MAGIC):
                    return
                self._gzip = self._head.startswith(_GZIP_MAGIC)
                piece, self._head = self._head, b""
            ended = not piece
            if self._gzip:
                self._inflate(piece[:_INFLATED_BYTES])
                for begin in range(_INFLATED_BYTES, len(piece), _INFLATED_BYTES):
                    self._inflate(piece[begin : begin + _INFLATED_BYTES])
            elif piece:
                self._append(piece)
        except InputError as failure:
            self._failure = failure
            self._ended = True
            return
        if ended:
            self._ended = True
            if self._start < self._stop and self.text[self._stop - 1] != 10:
                self._newline_added = True
                self._append(b"\n")  # the newline of a file's last line may be absent

    def _inflate(self, piece: bytes) -> None:
        if not piece and self._member is not None:
            raise InputError(
                self.path,
                "the compressed file is cut off: it ends inside a gzip member",
                remedy="Copy it again, or take it after the sequencer has finished it.",
            )
        while piece:
            if self._member is None:
                piece = piece.lstrip(b"\0")  # some writers pad the end of a file
                if not piece:
                    return
                self._member = isal_zlib.decompressobj(_GZIP_WINDOW)
            try:
                text = self._member.decompress(piece)
            except _GzipError as error:
                what = "the checksum is wrong" if "checksum" in str(error) else f"gzip cannot read it ({error})"
                raise InputError(
                    self.path,
                    f"the compressed data are damaged before byte {self.bytes_read:,}: {what}",
                    remedy="Copy the file again from where it was written; `gzip -t` must accept it.",
                ) from error
            self._append(text)
            if not self._member.eof:
                return
            piece = self._member.unused_data
            self._member = None

    def _append(self, piece: bytes) -> None:
        room = self.text.size - PADDING - self._stop
        if len(piece) > room:
            self._reserve(len(piece))
        self.text[self._stop : self._stop + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        self._stop += len(piece)

    def _reserve(self, size: int) -> None:
        """Move what is left to the front of the buffer, and make room for ``size`` bytes behind it."""
        left = self._stop - self._start
        needed = left + size + PADDING + 8
        old: NDArray[np.uint8] | None = getattr(self, "text", None)
        if old is None or needed > old.size:
            self.text = np.zeros((2 * needed + 7) // 8 * 8, dtype=np.uint8)
            self._words = self.text.view(np.uint64)
            self.records = np.zeros((RECORD_ROWS, self.text.size // _FEWEST_RECORD_BYTES + 1), dtype=np.int64)
        if old is not None and left > 0:
            self.text[:left] = old[self._start : self._stop].copy()
        self._start, self._stop = 0, left


def place_of_record(number: int) -> str:
    """Where a record stands, counted from 1: all before it have four lines."""
    return f"record {number:,} (line {4 * number - 3:,})"


def _character(code: int) -> str:
    """A byte as a person reads it."""
    return repr(chr(code)) if 32 <= code < 127 else f"byte 0x{code:02X}"
