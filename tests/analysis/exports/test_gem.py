from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.analysis.exports.gem import read_gem, write_gem
from cartoseq.streaming.errors import InputError

ROWS = "A\t3\t4\t2\nA\t3\t5\t1\nB\t9\t9\t7\n"


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 300),
    largest=st.sampled_from([1, 300, 10_000_000]),
    origin=st.sampled_from([(0, 0), (1000, 2000), (-50, 7)]),
    exons=st.booleans(),
    bin_size=st.sampled_from([1, 20]),
    name=st.sampled_from(["a.gem", "a.gem.gz"]),
)
def test_what_is_written_is_read(make_table, same_table, seed, rows, largest, origin, exons, bin_size, name):
    table = make_table(rows, seed=seed, side=60, largest=largest, origin=origin, exons=exons).rebinned(bin_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_gem(path, table)
        same_table(read_gem(path), table)


def test_the_header_is_that_of_version_0_2(make_table, tmp_path):
    table = make_table(origin=(1000, 2000))
    write_gem(tmp_path / "a.gem", table)
    lines = (tmp_path / "a.gem").read_text().splitlines()
    assert lines[:9] == [
        "#FileFormat=GEMv0.2",
        "#SortedBy=None",
        "#BinType=Bin",
        "#BinSize=1",
        "#Omics=Transcriptomics",
        "#Stereo-seqChip=SS200000135TL_D1",
        "#OffsetX=1000",
        "#OffsetY=2000",
        "geneID\tgeneName\tx\ty\tMIDCount",
    ]
    first = lines[9].split("\t")
    # The coordinate on the chip is x + OffsetX.
    assert first == [
        "ENSG00000",
        "Gene0",
        str(table.x[0] - 1000),
        str(table.y[0] - 2000),
        str(table.counts[0]),
    ]
    assert len(lines) == 9 + table.rows


def test_same_table_same_bytes(make_table, tmp_path):
    for name in ("a.gem.gz", "b.gem.gz"):
        write_gem(tmp_path / name, make_table())
    data = (tmp_path / "a.gem.gz").read_bytes()
    assert data == (tmp_path / "b.gem.gz").read_bytes()
    assert data[4:8] == b"\0\0\0\0"
    assert data[3] == 0  # no file name in the header
    assert gzip.decompress(data).startswith(b"#FileFormat=GEMv0.2\n")


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "geneID\tx\ty\tMIDCounts\n" + ROWS,
        "geneID\tx\ty\tMIDCount\n" + ROWS.replace("\n", "\r\n"),
        "#FileFormat=GEMv0.1\n#OffsetX=0\n#OffsetY=0\ngeneID\tx\ty\tMIDCount\n" + ROWS,
        "geneID\tx\ty\tMIDCount\tExonCount\tCellID\nA\t3\t4\t2\t1\t5\nA\t3\t5\t1\t1\t5\nB\t9\t9\t7\t0\t6\n",
        "#FileFormat=GEMv0.2\n#OffsetX=3\n#OffsetY=2\n"
        "geneID\tgeneName\tx\ty\tMIDCount\nA\ta\t0\t2\t2\nA\ta\t0\t3\t1\nB\tb\t6\t7\t7\n",
        "A\ta\t3\t4\t2\nA\ta\t3\t5\t1\nB\tb\t9\t9\t7",
        "x\ty\tgeneID\tMIDCount\tlabel\n3\t4\tA\t1\tk\n3\t4\tA\t1\tk\n3\t5\tA\t1\tk\n9\t9\tB\t7\tk\n",
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_way_of_writing_a_gem_is_understood(tmp_path, text, compressed):
    path = tmp_path / "a.gem.gz"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    table = read_gem(path)
    assert table.feature_ids.tolist() == ["A", "B"]
    assert table.feature_names.tolist() == (["a", "b"] if "\ta\t" in text else ["A", "B"])
    assert table.offsets.tolist() == [0, 2, 3]
    assert (table.x.tolist(), table.y.tolist()) == ([3, 3, 9], [4, 5, 9])
    assert table.counts.tolist() == [2, 1, 7]
    assert (None if table.exon_counts is None else table.exon_counts.tolist()) == (
        [1, 1, 0] if "ExonCount" in text else None
    )


def test_what_the_header_says_is_kept(tmp_path):
    text = "#FileFormat=GEMv0.2\n#BinSize=50\n#Omics=Proteomics\n#Stereo-seqChip=B01\n#OffsetX=100\n#OffsetY=50\n"
    table = read_gem(_write(tmp_path / "a.gem", text + "geneID\tx\ty\tMIDCount\nA\t0\t50\t3\n"))
    assert (table.bin_size, table.omics, table.chip, table.origin) == (50, "Proteomics", "B01", (100, 50))
    assert (table.x[0], table.y[0]) == (100, 100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("geneID\tx\ty\tMIDCount\n" + ROWS + "C\t1\tno\t2\n", "line 5, y: expected a whole number, found 'no'"),
        ("#FileFormat=GEMv0.2\ngeneID\tx\ty\tMIDCount\nA\t1\t1\n", "line 3: expected 4 columns, found 3"),
        ("geneID\tx\ty\tMIDCount\n" + ROWS + "C\t1\t2\t3\t4\n", "line 5: expected 4 columns, found 5"),
        ("geneID\tx\ty\tMIDCount\nA\t1\t1\t\n", "line 2, count: expected a whole number, found ''"),
        (ROWS + "C\t1\t1\t0\n", "line 4: expected a molecule count of at least 1"),
        (ROWS + "C\t1\t1\t5000000000\n", "32 bits"),
        ("not a gem\n", "line 1: expected the columns geneID"),
        ("", "line 1: expected the columns geneID"),
        ("#FileFormat=GEMv9\n" + ROWS, "expected GEMv0.1 or GEMv0.2, found GEMv9"),
        ("#OffsetX=ten\n" + ROWS, "OffsetX: expected a whole number, found 'ten'"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        read_gem(_write(tmp_path / "a.gem", text))
    assert message in str(caught.value)


def test_a_missing_or_damaged_file_is_said_so(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_gem(tmp_path / "none.gem")
    whole = gzip.compress(ROWS.encode() * 1000)
    for damaged in (whole[:-12], whole[:50] + b"\xff" * 20 + whole[70:]):
        (tmp_path / "cut.gem.gz").write_bytes(damaged)
        with pytest.raises(InputError, match="damaged gzip"):
            read_gem(tmp_path / "cut.gem.gz")


def test_a_header_without_rows_is_an_empty_table(tmp_path):
    table = read_gem(_write(tmp_path / "a.gem", "geneID\tx\ty\tMIDCount\n"))
    assert (table.rows, table.feature_ids.size) == (0, 0)


def test_a_name_that_breaks_the_table_is_refused_and_leaves_no_file(make_table, tmp_path):
    table = make_table()
    table.feature_names[3] = "a\tb"
    try:
        with pytest.raises(InputError, match="feature"):
            write_gem(tmp_path / "a.gem", table)
    finally:
        table.feature_names[3] = "Gene3"
    assert list(tmp_path.iterdir()) == []


def test_the_real_crop_is_read_and_written_back(real_data, same_table, tmp_path):
    table = read_gem(real_data / "gem_stereoseq" / "SS200000135TL_D1_bin1_small.gem.gz")
    assert (table.rows, table.molecules, table.features_seen) == (77_634, 131_002, 10_631)
    width, height = int(np.ptp(table.x)) + 1, int(np.ptp(table.y)) + 1
    assert (width, height) == (299, 300)

    spots = np.unique(table.x.astype(np.int64) << 32 | table.y)
    assert round(100 * spots.size / (width * height), 1) == 46.7

    bin50 = table.rebinned(50)
    assert bin50.molecules == 131_002
    corners, place = np.unique(bin50.x.astype(np.int64) << 32 | bin50.y, return_inverse=True)
    totals = np.bincount(place, bin50.counts)
    whole = (corners >> 32) + 50 <= int(table.x.max()) + 1  # the last column of bins is cut off by the crop
    assert (corners.size, int(whole.sum())) == (36, 30)
    assert np.median(totals[whole]) == 3_003.5

    write_gem(tmp_path / "back.gem.gz", table)
    same_table(read_gem(tmp_path / "back.gem.gz"), table)
