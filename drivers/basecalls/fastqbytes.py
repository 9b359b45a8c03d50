"""The bytes of a FASTQ file: record boundaries, names that pair, and letters turned into base calls, as numba kernels.

A FASTQ record is four lines: ``@name``, the bases, ``+`` (the name may follow), and one quality character a base
(Cock et al. 2010, doi:10.1093/nar/gkp1137; offset 33). Wrapped records, which that paper allows but no sequencer
writes, are refused. The kernels work on a piece of such text: :func:`find_records` marks where each record's parts lie,
:func:`pair_names` compares the names of two reads, :func:`fill_calls` turns letters into BCL bytes
(``base | quality << 2``, A0 C1 G2 T3, 0 = no call) and lays them down cycle by cycle, and :func:`read_hex_words` with
:func:`fill_coded_calls` does the same for barcodes written in hexadecimal digits in the read's name.

Lines are found eight bytes at a time in 64-bit words (the "has a byte below n" test of Hacker's Delight, section 6-1);
the turn from reads to cycles goes through tiles of 128 reads, in squares of 8 x 8 bytes (section 7-3 of that book), so
that each cycle's row is written 128 bytes at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cartoseq.streaming.kernel import inlined, kernel

# The rows of the array that find_records fills: offsets into the text, and the number of bases.
NAME, KEY_END, NAME_END, BASES, QUALITIES, LENGTH = range(6)
RECORD_ROWS = 6

# Why find_records stopped.
ENOUGH = 0  # as many records as there is room for
CUT = 1  # the text ends inside a record, or exactly after one
NO_AT = 2  # a record does not begin with "@"
BLANK_LINE = 3  # an empty line where a record should begin
CARRIAGE_RETURN = 4  # a line ends with CR LF
NO_PLUS = 5  # the third line does not begin with "+"
UNEQUAL = 6  # bases and qualities are not equally many

TILE_READS = 128
"""Reads that are turned at a time: two cache lines of a cycle's row, which lie far apart from the next cycle's."""

VECTOR_BYTES = 32
"""Letters that are turned into calls at a time."""

PADDING = 64
"""Bytes that must lie behind the text in its buffer, so that whole words and vectors may be read."""

_FAULT = np.uint8(1)  # no base call: a called base has a quality of at least 1

_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_NEWLINES = np.uint64(0x0A0A0A0A0A0A0A0A)
_BLANKS = np.uint64(0x2121212121212121)
_WHICH_BYTE = np.uint64(0x0001020304050607)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@inlined
def _find_newline(words: NDArray[np.uint64], start: np.uint64, stop: np.uint64) -> np.uint64:
    """The offset of the first newline in [start, stop), or stop."""
    index = start >> np.uint64(3)
    # The bytes of the first word that lie before `start` are made to differ from a newline.
    keep = _ALL << ((start & np.uint64(7)) << np.uint64(3))
    word = (words[index] ^ _NEWLINES) | ~keep
    hit = (word - _ONES) & ~word & _HIGH
    while hit == np.uint64(0):
        index += np.uint64(1)
        if index << np.uint64(3) >= stop:
            return stop
        word = words[index] ^ _NEWLINES
        hit = (word - _ONES) & ~word & _HIGH
    lowest = (hit & (~hit + np.uint64(1))) >> np.uint64(7)
    found = (index << np.uint64(3)) + ((lowest * _WHICH_BYTE) >> np.uint64(56))
    return min(found, stop)


@inlined
def _find_blank(words: NDArray[np.uint64], start: np.uint64, stop: np.uint64) -> np.uint64:
    """The offset of the first byte up to the space character (blank, tab, line end) in [start, stop), or stop."""
    index = start >> np.uint64(3)
    keep = _ALL << ((start & np.uint64(7)) << np.uint64(3))
    word = words[index] | ~keep
    hit = (word - _BLANKS) & ~word & _HIGH
    while hit == np.uint64(0):
        index += np.uint64(1)
        if index << np.uint64(3) >= stop:
            return stop
        word = words[index]
        hit = (word - _BLANKS) & ~word & _HIGH
    lowest = (hit & (~hit + np.uint64(1))) >> np.uint64(7)
    found = (index << np.uint64(3)) + ((lowest * _WHICH_BYTE) >> np.uint64(56))
    return min(found, stop)


@kernel
def find_records(
    text: NDArray[np.uint8],
    words: NDArray[np.uint64],
    start: int,
    stop: int,
    records: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Mark the parts of each whole record in a piece of FASTQ text.

    Args:
        text: The buffer, uint8, shape (n,), n a multiple of 8, with at least ``PADDING`` bytes behind ``stop``.
        words: The same buffer seen as uint64, shape (n / 8,).
        start: Where a record begins.
        stop: Where the text ends.
        records: Out: int64, shape (``RECORD_ROWS``, room): for each record the offset of its name (after the ``@``),
            the end of the name's part that the reads of one cluster share (up to the first blank, without ``/1``), the
            end of the name line, the offset of the bases, the offset of the qualities, and the number of bases.

    Returns:
        (number of records, offset behind the last of them, why it stopped: ``ENOUGH``, ``CUT``, ...). For a reason
        other than the first two the record at that offset is at fault.
    """
    name = records[NAME]
    key_end = records[KEY_END]
    name_end = records[NAME_END]
    bases = records[BASES]
    qualities = records[QUALITIES]
    length = records[LENGTH]
    one = np.uint64(1)
    room = np.uint64(records.shape[1])
    end = np.uint64(stop)
    position = np.uint64(start)
    count = np.uint64(0)
    reason = ENOUGH
    while count < room:
        reason = CUT
        if position >= end:
            break
        if text[position] != 64:  # "@"
            reason = BLANK_LINE if text[position] == 10 else NO_AT
            break
        begin = position + one
        key = _find_blank(words, begin, end)
        line = key
        if key < end and text[key] != 10:
            line = _find_newline(words, key, end)
        if line >= end:
            break
        if text[line - one] == 13:
            reason = CARRIAGE_RETURN
            break
        # "/1" to "/4" at the end of the name tells the read, not the cluster.
        if key >= begin + np.uint64(2) and text[key - np.uint64(2)] == 47 and 49 <= text[key - one] <= 52:
            key -= np.uint64(2)
        sequence = line + one
        line = _find_newline(words, sequence, end)
        if line >= end:
            break
        size = line - sequence
        if size > np.uint64(0) and text[line - one] == 13:
            reason = CARRIAGE_RETURN
            break
        plus = line + one
        if plus + one >= end:
            if plus < end and text[plus] != 43:
                reason = NO_PLUS
            break
        if text[plus] != 43:  # "+"
            reason = NO_PLUS
            break
        line = plus + one
        if text[line] != 10:
            line = _find_newline(words, line, end)
            if line >= end:
                break
        quality = line + one
        if quality + size >= end:
            break
        if text[quality + size] != 10:
            reason = CARRIAGE_RETURN if text[quality + size] == 13 else UNEQUAL
            break
        name[count] = np.int64(begin)
        key_end[count] = np.int64(key)
        name_end[count] = np.int64(sequence - one)
        bases[count] = np.int64(sequence)
        qualities[count] = np.int64(quality)
        length[count] = np.int64(size)
        position = quality + size + one
        count += one
        reason = ENOUGH
    return int(count), int(position), reason


@kernel
def pair_names(
    text: NDArray[np.uint8],
    records: NDArray[np.int64],
    first: int,
    other_text: NDArray[np.uint8],
    other_records: NDArray[np.int64],
    other_first: int,
    count: int,
) -> int:
    """Compare the names of the records of two files, up to their read number or first blank.

    Args:
        text: Buffer of the one file, uint8, shape (n,).
        records: As :func:`find_records` filled them.
        first: The first record to compare.
        other_text: Buffer of the other file.
        other_records: Its records.
        other_first: The first record to compare there.
        count: Number of records to compare.

    Returns:
        How many pair before the first that does not: ``count`` if all do.
    """
    for i in range(count):
        a = np.uint64(records[NAME, first + i])
        b = np.uint64(other_records[NAME, other_first + i])
        size = np.uint64(records[KEY_END, first + i]) - a
        if np.uint64(other_records[KEY_END, other_first + i]) - b != size:
            return i
        differ = np.uint8(0)
        for k in range(size):
            differ = np.uint8(differ | np.uint8(text[a + k] ^ other_text[b + k]))
        if differ != 0:
            return i
    return count


@kernel
def names_begin_with(
    text: NDArray[np.uint8], records: NDArray[np.int64], first: int, count: int, beginning: NDArray[np.uint8]
) -> bool:
    """Tell whether the names of ``count`` records all begin with the same bytes (a lane's, or a tile's)."""
    size = np.uint64(beginning.shape[0])
    for i in range(first, first + count):
        a = np.uint64(records[NAME, i])
        if np.uint64(records[NAME_END, i]) < a + size:
            return False
        differ = np.uint8(0)
        for k in range(size):
            differ = np.uint8(differ | np.uint8(text[a + k] ^ beginning[k]))
        if differ != 0:
            return False
    return True


@inlined
def _swap(a: np.uint64, b: np.uint64, shift: np.uint64, mask: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Exchange the masked bytes of b with those of a that lie `shift` bits higher."""
    t = ((a >> shift) ^ b) & mask
    return a ^ (t << shift), b ^ t


@inlined
def _turn_square(
    rows: NDArray[np.uint64],
    row: np.uint64,
    row_step: np.uint64,
    columns: NDArray[np.uint64],
    column: np.uint64,
    column_step: np.uint64,
) -> None:
    """Transpose 8 x 8 bytes: eight words of one array become eight words of the other."""
    half = np.uint64(0x00000000FFFFFFFF)
    quarter = np.uint64(0x0000FFFF0000FFFF)
    eighth = np.uint64(0x00FF00FF00FF00FF)
    r0 = rows[row]
    r1 = rows[row + row_step]
    r2 = rows[row + np.uint64(2) * row_step]
    r3 = rows[row + np.uint64(3) * row_step]
    r4 = rows[row + np.uint64(4) * row_step]
    r5 = rows[row + np.uint64(5) * row_step]
    r6 = rows[row + np.uint64(6) * row_step]
    r7 = rows[row + np.uint64(7) * row_step]
    r0, r4 = _swap(r0, r4, np.uint64(32), half)
    r1, r5 = _swap(r1, r5, np.uint64(32), half)
    r2, r6 = _swap(r2, r6, np.uint64(32), half)
    r3, r7 = _swap(r3, r7, np.uint64(32), half)
    r0, r2 = _swap(r0, r2, np.uint64(16), quarter)
    r1, r3 = _swap(r1, r3, np.uint64(16), quarter)
    r4, r6 = _swap(r4, r6, np.uint64(16), quarter)
    r5, r7 = _swap(r5, r7, np.uint64(16), quarter)
    r0, r1 = _swap(r0, r1, np.uint64(8), eighth)
    r2, r3 = _swap(r2, r3, np.uint64(8), eighth)
    r4, r5 = _swap(r4, r5, np.uint64(8), eighth)
    r6, r7 = _swap(r6, r7, np.uint64(8), eighth)
    columns[column] = r0
    columns[column + column_step] = r1
    columns[column + np.uint64(2) * column_step] = r2
    columns[column + np.uint64(3) * column_step] = r3
    columns[column + np.uint64(4) * column_step] = r4
    columns[column + np.uint64(5) * column_step] = r5
    columns[column + np.uint64(6) * column_step] = r6
    columns[column + np.uint64(7) * column_step] = r7


@kernel
def fill_calls(
    text: NDArray[np.uint8],
    records: NDArray[np.int64],
    first: int,
    count: int,
    shortest: int,
    longest: int,
    calls: NDArray[np.uint8],
    row: int,
    column: int,
) -> int:
    """Turn the letters of records into base calls, cycle by cycle.

    Args:
        text: The buffer that the records lie in, uint8, shape (n,).
        records: As :func:`find_records` filled them.
        first: The first record to take.
        count: Number of records to take.
        shortest: The fewest bases that a record may have.
        longest: The most; as many rows are written, shorter reads padded with no-calls.
        calls: Out: BCL bytes, uint8, shape (cycles, clusters), C-contiguous.
        row: Row of the first base.
        column: Column of the first record.

    Returns:
        How many records were well before the first at fault (its number of bases, a letter that is no base, a
        quality out of range): ``count`` if all were. Columns behind are not to be used.
    """
    tile_reads = np.uint64(TILE_READS)
    eight = np.uint64(8)
    width = np.uint64(longest)
    vector = np.uint64(VECTOR_BYTES - 1)
    stride = (width + vector) & ~vector
    tile = np.zeros(tile_reads * stride, dtype=np.uint8)
    turned = np.zeros(stride * tile_reads, dtype=np.uint8)
    tile_words = tile.view(np.uint64)
    turned_words = turned.view(np.uint64)
    stride_words = stride >> np.uint64(3)
    turned_step = tile_reads >> np.uint64(3)
    base_row = records[BASES]
    quality_row = records[QUALITIES]
    length_row = records[LENGTH]
    total = np.uint64(count)
    start = np.uint64(0)
    well = total
    while start < well:
        reads = min(tile_reads, total - start)
        for j in range(np.uint64(0), reads):
            at = np.uint64(first) + start + j
            bases = np.uint64(base_row[at])
            qualities = np.uint64(quality_row[at])
            length = np.uint64(length_row[at])
            out = j * stride
            if length < np.uint64(shortest) or length > width:
                well = start + j
                reads = np.uint64(j)
                break
            # Whole vectors, and so up to 31 bytes beyond the bases, whose calls are not used.
            for k in range((length + vector) & ~vector):
                letter = np.uint8(text[bases + k] & np.uint8(0xDF))
                quality = np.uint8(text[qualities + k] - np.uint8(33))
                base = np.uint8(np.uint8(letter >> np.uint8(1)) & np.uint8(3))
                base = np.uint8(base ^ np.uint8(base >> np.uint8(1)))
                # A called base of quality 0 would read as no call, and above 63 does not fit: both are bounded.
                bounded = np.uint8(min(max(quality, np.uint8(1)), np.uint8(63)))
                call = np.uint8(np.uint8(bounded << np.uint8(2)) | base)
                no_call = letter == np.uint8(78)
                called = (
                    (letter == np.uint8(65))
                    | (letter == np.uint8(67))
                    | (letter == np.uint8(71))
                    | (letter == np.uint8(84))
                )
                call = call if called else (np.uint8(0) if no_call else _FAULT)
                tile[out + k] = call if quality <= np.uint8(93) else _FAULT
            for k in range(length, width):
                tile[out + k] = np.uint8(0)
        for c in range((width + np.uint64(7)) >> np.uint64(3)):
            for j in range(np.uint64(0), (reads + np.uint64(7)) >> np.uint64(3)):
                _turn_square(
                    tile_words,
                    j * eight * stride_words + c,
                    stride_words,
                    turned_words,
                    c * eight * turned_step + j,
                    turned_step,
                )
        at_column = np.uint64(column) + start
        fault = np.uint8(0)
        for c in range(width):
            line = calls[np.uint64(row) + c]
            source = c * tile_reads
            for j in range(reads):
                call = turned[source + j]
                line[at_column + j] = call
                fault = np.uint8(fault | np.uint8(call == _FAULT))
        if fault != 0:
            for j in range(np.uint64(0), reads):
                for k in range(width):
                    if tile[j * stride + k] == _FAULT:
                        return int(start + j)
        start += tile_reads
    return int(well)


@kernel
def read_hex_words(
    text: NDArray[np.uint8],
    records: NDArray[np.int64],
    first: int,
    count: int,
    digits: NDArray[np.int64],
    values: NDArray[np.uint64],
) -> int:
    """Read the hexadecimal words that follow the name of each record: ``@NAME CE242DF29A57 97D26``.

    Args:
        text: The buffer that the records lie in, uint8, shape (n,).
        records: As :func:`find_records` filled them.
        first: The first record to take.
        count: Number of records to take.
        digits: The most digits that each word may have, at most 16, int64, shape (words,). Fewer are taken as the
            lowest: leading zeros may be dropped.
        values: Out: uint64, shape (words, at least ``count``).

    Returns:
        How many records were well before the first that has not as many words, or one with other characters or more
        digits: ``count`` if all were. What follows the last word behind a blank is not looked at.
    """
    one = np.uint64(1)
    for i in range(count):
        at = np.uint64(records[KEY_END, first + i])
        end = np.uint64(records[NAME_END, first + i])
        while at < end and text[at] > 32:
            at += one
        for word in range(digits.shape[0]):
            while at < end and text[at] <= 32:
                at += one
            value = np.uint64(0)
            found = 0
            while at < end and text[at] > 32:
                letter = np.uint64(text[at])
                digit = letter - np.uint64(48)
                if digit > np.uint64(9):
                    digit = (letter & np.uint64(0xDF)) - np.uint64(65)
                    if digit > np.uint64(5):
                        return i
                    digit += np.uint64(10)
                value = (value << np.uint64(4)) | digit
                found += 1
                at += one
            if found == 0 or found > digits[word]:
                return i
            values[word, i] = value
    return count


@kernel
def fill_coded_calls(
    values: NDArray[np.uint64],
    count: int,
    bases: int,
    alphabet_is_actg: bool,
    first_base_is_low: bool,
    quality: int,
    calls: NDArray[np.uint8],
    row: int,
    column: int,
) -> int:
    """Turn sequences of two bits a base into base calls of one quality, cycle by cycle.

    Args:
        values: The sequences, uint64, shape (at least ``count``,).
        count: Number of sequences.
        bases: Bases of each, at most 32.
        alphabet_is_actg: Whether the codes 0 to 3 mean A C T G; otherwise A C G T.
        first_base_is_low: Whether the first base is in the lowest bits; otherwise the last one is.
        quality: The quality that every call gets.
        calls: Out: BCL bytes, uint8, shape (cycles, clusters), C-contiguous.
        row: Row of the first base.
        column: Column of the first sequence.

    Returns:
        How many sequences were well before the first that has bits beyond its bases: ``count`` if all were.
    """
    well = count
    if bases < 32:
        for i in range(count):
            if values[i] >> np.uint64(2 * bases) != np.uint64(0):
                well = i
                break
    high = np.uint8(quality << 2)
    size = np.uint64(count)
    at = np.uint64(column)
    for base in range(bases):
        shift = np.uint64(2 * base if first_base_is_low else 2 * (bases - 1 - base))
        line = calls[row + base]
        for i in range(size):
            code = np.uint8((values[i] >> shift) & np.uint64(3))
            if alphabet_is_actg:
                code = np.uint8(code ^ np.uint8(code >> np.uint8(1)))
            line[at + i] = np.uint8(high | code)
    return well
