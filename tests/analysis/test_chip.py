"""Chip tables in every published form, and every way in which they are broken."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cartoseq.analysis import chiptables
from cartoseq.analysis.barcodes import encode_cid
from cartoseq.analysis.chip import Chip, ChipFrame, ChipOptions, FrameKind, read_chip
from cartoseq.streaming.errors import InputError


def places(chip: Chip) -> dict[int, set[tuple[float, float]]]:
    """The places of every packed barcode, as the chip tells them."""
    x, y = chip.frame.coordinates(chip.spots)
    found: dict[int, set[tuple[float, float]]] = {}
    for cid, place in zip(chip.cids.tolist(), zip(x.tolist(), y.tolist(), strict=True), strict=True):
        found.setdefault(cid, set()).add(place)
    return found


def written_mask(path: Path, mask: NDArray[Any], chunks: tuple[int, ...] | None = None, **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("bpMatrix_1", data=mask, chunks=chunks, compression="gzip" if chunks else None)
        dataset.attrs.update(attributes)
    return path


def problem_of(path: Path, text: str | bytes | None = None, options: ChipOptions | None = None) -> str:
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as caught:
        read_chip(path, options)
    message = str(caught.value)
    assert str(path) in message
    assert caught.value.remedy.endswith(".")
    return message


def test_a_lattice_spot_is_made_of_its_coordinates() -> None:
    frame = ChipFrame(FrameKind.LATTICE, 100, 50, 32768, 32767)
    x, y = np.array([100, 101, 355, 356, 100 + 32767]), np.array([50, 52, 305, 306, 50 + 32766])
    spots = frame.lattice_spots(x, y)
    assert spots.dtype == np.uint32
    assert spots.tolist()[:4] == [0, 2 << 8 | 1, 255 << 8 | 255, (1 << 7 | 1) << 16]
    assert spots.max() < 2**30 - 1
    back = frame.coordinates(spots)
    assert [array.dtype for array in back] == [np.int32, np.int32]
    assert (back[0].tolist(), back[1].tolist()) == (x.tolist(), y.tolist())
    assert frame.shards == int(spots.max() >> 16) + 1
    assert frame.extent == (100, 50, 32868, 32817)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 32767), st.integers(0, 32766)), min_size=1, max_size=50))
def test_lattice_numbers_are_undone_by_coordinates(points: list[tuple[int, int]]) -> None:
    frame = ChipFrame(FrameKind.LATTICE, 0, 0, 32768, 32767)
    x, y = np.array(points).T
    found = frame.coordinates(frame.lattice_spots(x, y))
    assert (found[0].tolist(), found[1].tolist()) == (x.tolist(), y.tolist())


def test_a_mask_is_read_with_x_the_column_and_y_the_row(tmp_path: Path) -> None:
    mask = np.zeros((37, 23), np.uint64)
    mask[12, 6], mask[36, 22], mask[0, 0] = 100904410303266, 7, 9
    path = written_mask(
        tmp_path / "A02598A4.barcodeToPos.h5", mask, (10, 10), dnbInfo=np.array([100, 200, 25, 500, 0, 0], np.uint32)
    )
    chip = read_chip(path)
    assert places(chip) == {100904410303266: {(6, 12)}, 7: {(22, 36)}, 9: {(0, 0)}}
    assert chip.barcode_length == 25
    frame = chip.frame
    assert (frame.kind, frame.extent, frame.pitch_um, frame.name) == ("lattice", (0, 0, 23, 37), 0.5, "A02598A4")
    shifted = read_chip(path, ChipOptions(add_shift=True))
    assert places(shifted) == {100904410303266: {(206, 112)}, 7: {(222, 136)}, 9: {(200, 100)}}
    assert shifted.frame.extent == (200, 100, 223, 137)


def test_a_mask_of_several_barcodes_a_spot_gives_all_of_them(tmp_path: Path) -> None:
    mask = np.zeros((5, 4, 2), np.uint64)
    mask[2, 3] = 11, 12
    mask[4, 0] = 13, 0
    for chunks in (None, (2, 2, 2)):
        chip = read_chip(written_mask(tmp_path / "chip.h5", mask, chunks), ChipOptions(pitch_um=0.7, name="SN1"))
        assert places(chip) == {11: {(3, 2)}, 12: {(3, 2)}, 13: {(0, 4)}}
        assert (chip.frame.pitch_um, chip.frame.name) == (0.7, "SN1")


def test_a_mask_tells_its_barcode_length_and_pitch(tmp_path: Path) -> None:
    path = written_mask(tmp_path / "chip.h5", np.eye(4, dtype=np.uint64), dnbInfo=np.array([0, 0, 20, 715], np.uint32))
    chip = read_chip(path)
    assert (chip.barcode_length, chip.frame.pitch_um) == (20, 0.715)
    assert read_chip(path, ChipOptions(barcode_length=24)).barcode_length == 24


def test_a_wide_mask_is_listed(tmp_path: Path) -> None:
    mask = np.zeros((3, 32769), np.uint64)
    mask[1, 32768], mask[2, 0] = 5, 6
    chip = read_chip(written_mask(tmp_path / "wide.h5", mask, (3, 4096)))
    assert chip.frame.kind is FrameKind.LISTED
    assert places(chip) == {5: {(32768, 1)}, 6: {(0, 2)}}


def test_broken_masks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "chip.h5"
    assert "not an HDF5 file" in problem_of(path, "ACGT\t1\t2\n")
    written_mask(path, np.ones((4, 4), np.float64))
    assert "64-bit whole numbers" in problem_of(path)
    written_mask(path, np.ones(4, np.uint64))
    assert "64-bit whole numbers" in problem_of(path)
    written_mask(path, np.zeros((4, 4), np.uint64))
    assert "no barcodes" in problem_of(path)
    written_mask(path, np.ones((4, 4), np.uint64))
    assert "add_shift off" in problem_of(path, options=ChipOptions(add_shift=True))
    written_mask(path, np.full((4, 4), 1 << 60, np.uint64))
    assert "expected barcodes of 25 bases, found one of 31 or more" in problem_of(path)
    with h5py.File(path, "w") as file:
        file["somethingElse"] = 1
    assert "expected a dataset bpMatrix_1, found somethingElse" in problem_of(path)


def test_a_mask_that_was_cut_off_or_damaged_is_named(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(1, 4**25, (64, 64), np.uint64)
    path = written_mask(tmp_path / "chip.h5", values, (16, 64))
    whole = path.read_bytes()
    with h5py.File(path) as file:
        chunk = file["bpMatrix_1"].id.get_chunk_info(2)
    path.write_bytes(whole[: len(whole) // 2])
    assert f"cut off: {len(whole) // 2:,} of its {len(whole):,} bytes are here" in problem_of(path)
    path.write_bytes(whole[: chunk.byte_offset] + bytes(chunk.size) + whole[chunk.byte_offset + chunk.size :])
    assert "dataset bpMatrix_1, rows 32 to 47: the HDF5 data are damaged" in problem_of(path)


def test_many_barcodes_that_are_all_shorter_than_asked_for_are_of_another_chip(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(1, 4**20, (40, 40), np.uint64)
    path = written_mask(tmp_path / "chip.h5", values)
    assert "expected barcodes of 25 bases, found 1,600 and none longer than 20" in problem_of(path)
    assert read_chip(path, ChipOptions(barcode_length=20)).barcode_length == 20
    # A few barcodes may all end in A.
    assert read_chip(written_mask(path, values[:10])).barcode_length == 25
    whole = written_mask(path, np.arange(40_000, dtype=np.uint64).reshape(200, 200), (20, 200)).read_bytes()
    problem_of(path, whole[: len(whole) // 2])
    assert "rename it" in problem_of(tmp_path / "chip.txt", whole)


def test_a_damaged_chunk_of_a_mask_is_named_by_its_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = written_mask(tmp_path / "chip.h5", rng.integers(1, 1 << 50, (200, 200), np.uint64), (20, 200))
    with h5py.File(path) as file:
        chunk = file["bpMatrix_1"].id.get_chunk_info(5)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    assert "rows 100 to 119" in problem_of(path)


def test_a_binary_mask_is_read_record_by_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chiptables, "_BIN_RECORDS_AT_ONCE", 7)
    records = np.zeros(30, chiptables.BIN_RECORD)
    records["cid"], records["x"], records["y"] = np.arange(30) + 100, np.arange(30) % 6 + 50, np.arange(30) // 6 + 10
    path = tmp_path / "SN7.bin"
    path.write_bytes(records.tobytes())
    chip = read_chip(path)
    assert chip.cids.tolist() == list(range(100, 130))
    assert places(chip) == {100 + i: {(i % 6 + 50, i // 6 + 10)} for i in range(30)}
    assert (chip.frame.extent, chip.frame.name, chip.barcode_length) == ((50, 10, 56, 15), "SN7", 25)
    assert read_chip(path, ChipOptions(one_based=True)).frame.extent == (49, 9, 55, 14)


def test_broken_binary_masks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "chip.bin"
    records = np.zeros(3, chiptables.BIN_RECORD)
    assert "ends inside one" in problem_of(path, records.tobytes()[:-1])
    assert "record 3" in problem_of(path)
    assert "empty" in problem_of(path, b"")
    assert "one_based" in problem_of(path, records.tobytes(), ChipOptions(one_based=True))
    records["x"] = 2**32 - 1
    assert "x = 4294967295 is outside 0 to 2147483647" in problem_of(path, records.tobytes())
    records["x"], records["cid"] = 1, 2**63
    assert "expected barcodes of 25 bases, found one of 32 or more" in problem_of(path, records.tobytes())


TEXTS = {
    "mask.txt": "ACGTACGTAC\t7\t3\nCCGTACGTAC\t8\t4\n",
    "five.txt": "ACGTACGTAC\ta\tb\t7\t3\nCCGTACGTAC\ta\tb\t8\t4\n",
    "crlf.txt": "ACGTACGTAC\t7\t3\r\nCCGTACGTAC\t8\t4\r\n",
    "open end.txt": "ACGTACGTAC\t7\t3\nCCGTACGTAC\t8\t4",
    "blank.txt": "\nACGTACGTAC\t7\t3\n\nCCGTACGTAC\t8\t4\n\n\n",
    "comment.txt": "# a chip\nACGTACGTAC\t7\t3\nCCGTACGTAC\t8\t4\n",
    "spaces.txt": "ACGTACGTAC 7 3\nCCGTACGTAC 8 4\n",
    "beads.csv": "barcode,xcoord,ycoord\nACGTACGTAC,7,3\nCCGTACGTAC,8,4\n",
    "R.csv": '"","barcodes","xcoord","ycoord"\n"1","ACGTACGTAC",7,3\n"2","CCGTACGTAC",8,4\n',
    "whole floats.csv": "barcode,x,y\nACGTACGTAC,7.0,3.0\nCCGTACGTAC,8.0,4.0\n",
    "swapped.csv": "y,x,barcode\n3,7,ACGTACGTAC\n4,8,CCGTACGTAC\n",
    "tissue_positions.csv": "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"
    "ACGTACGTAC-1,1,3,7,900,901\nCCGTACGTAC-1,0,4,8,950,951\n",
    "tissue_positions_list.csv": "ACGTACGTAC-1,1,3,7,900,901\nCCGTACGTAC-1,0,4,8,950,951\n",
    "bom.csv": "\ufeffbarcode,x,y\nACGTACGTAC,7,3\nCCGTACGTAC,8,4\n",
}
EXPECTED = {encode_cid("ACGTACGTAC"): {(7, 3)}, encode_cid("CCGTACGTAC"): {(8, 4)}}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_published_text_form_is_read(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / (name + ".gz" * zipped)
    text = TEXTS[name].encode()
    path.write_bytes(gzip.compress(text, mtime=0) if zipped else text)
    chip = read_chip(path)
    assert places(chip) == EXPECTED
    assert (chip.barcode_length, chip.frame.kind, chip.frame.extent) == (10, "lattice", (7, 3, 9, 5))
    assert chip.frame.name == name.rpartition(".")[0]
    assert chip.frame.pitch_um is None


def test_columns_can_be_named_or_numbered(tmp_path: Path) -> None:
    path = tmp_path / "tissue_positions.csv"
    path.write_text(TEXTS["tissue_positions.csv"])
    named = ChipOptions(x_column="pxl_col_in_fullres", y_column="PXL_ROW_IN_FULLRES")
    assert places(read_chip(path, named)) == {
        encode_cid("ACGTACGTAC"): {(901, 900)},
        encode_cid("CCGTACGTAC"): {(951, 950)},
    }
    path = tmp_path / "four.txt"
    path.write_text("9\tACGTACGTAC\t7\t3\n9\tCCGTACGTAC\t8\t4\n")
    assert places(read_chip(path, ChipOptions(barcode_column=2, x_column="3", y_column=4))) == EXPECTED


def test_a_table_that_counts_from_one_is_moved_to_zero(tmp_path: Path) -> None:
    path = tmp_path / "chip.txt"
    path.write_text(TEXTS["mask.txt"])
    assert places(read_chip(path, ChipOptions(one_based=True))) == {
        encode_cid("ACGTACGTAC"): {(6, 2)},
        encode_cid("CCGTACGTAC"): {(7, 3)},
    }


def test_fractional_coordinates_are_listed_in_space_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    letters = np.array(list("ACGT"))[rng.integers(0, 4, (500, 14))]
    barcodes = sorted({"".join(row) for row in letters})
    x, y = rng.random(len(barcodes)) * 3000, rng.random(len(barcodes)) * 3000
    path = tmp_path / "beads.csv"
    path.write_text(
        "".join(f"{bases},{a!r},{b!r}\n" for bases, a, b in zip(barcodes, x.tolist(), y.tolist(), strict=True))
    )
    chip = read_chip(path)
    assert chip.frame.kind is FrameKind.LISTED
    assert places(chip) == {
        encode_cid(bases): {(a, b)} for bases, a, b in zip(barcodes, x.tolist(), y.tolist(), strict=True)
    }
    assert sorted(chip.spots.tolist()) == list(range(len(barcodes)))
    assert chip.frame.shards == 1
    # The first quarter of the list lies in one quarter of the chip.
    first_x, first_y = chip.frame.coordinates(np.arange(60, dtype=np.uint32))
    assert first_x.max() < 1600
    assert first_y.max() < 1600
    least_x, least_y, end_x, end_y = chip.frame.extent
    assert least_x <= x.min() < x.max() < end_x
    assert least_y <= y.min() < y.max() < end_y


def test_barcodes_at_one_place_share_its_spot(tmp_path: Path) -> None:
    path = tmp_path / "beads.csv"
    path.write_text("ACGTACGTAC,1.5,2.5\nTTGTACGTAC,1.5,2.5\nGGGTACGTAC,1.5,2.75\n")
    spots = read_chip(path).spots.tolist()
    assert spots[0] == spots[1] != spots[2]


def test_a_barcode_at_two_spots_is_kept_at_both(tmp_path: Path) -> None:
    path = tmp_path / "chip.txt"
    path.write_text("ACGTACGTAC\t1\t1\nACGTACGTAC\t2\t1\n")
    assert places(read_chip(path)) == {encode_cid("ACGTACGTAC"): {(1, 1), (2, 1)}}


def test_a_table_is_read_in_blocks_that_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chip.csv"
    lines = [f"{''.join('ACGT'[i >> 2 * k & 3] for k in range(6))}ACGT,{i % 40},{i // 40}" for i in range(400)]
    path.write_text("\n".join(["barcode,x,y", *lines, ""]))
    whole = read_chip(path)
    for block in (1, 17, 100):
        monkeypatch.setattr(chiptables, "_TEXT_BYTES", block)
        assert np.array_equal(read_chip(path).cids, whole.cids)
        assert np.array_equal(read_chip(path).spots, whole.spots)
    lines[333] = lines[333].replace("ACGT,", "ACGN,")
    path.write_text("\n".join(["barcode,x,y", *lines, ""]))
    assert "line 335" in problem_of(path)


BROKEN = {
    "a strange base": (
        "ACGTACGTAC\t1\t2\nACGTACGNAC\t1\t3\n",
        "line 2: expected bases A, C, G and T, found 'ACGTACGNAC'",
    ),
    "lower case": ("ACGTACGTAC\t1\t2\nacgtacgtac\t1\t3\n", "line 2: expected bases"),
    "mixed lengths": ("ACGTACGTAC\t1\t2\nACGTACGTA\t1\t3\n", "line 2: expected a barcode of 10 bases"),
    "an empty barcode": ("ACGTACGTAC\t1\t2\n\t1\t3\n", "line 2: expected a barcode of 10 bases"),
    "a long barcode": ("A" * 33 + "\t1\t2\n", "line 1: a barcode has 2 to 32 bases, found 33"),
    "no number": ("ACGTACGTAC\t1\t2\nCCGTACGTAC\t1\there\n", "line 2: y = 'here' is not a number"),
    "not finite": ("ACGTACGTAC\t1\t2\nCCGTACGTAC\tnan\t3\n", "line 2: x = 'nan' is not a number"),
    "a negative number": ("ACGTACGTAC\t1\t2\nCCGTACGTAC\t-4\t3\n", "line 2: x = -4 is outside 0"),
    "a negative fraction": ("ACGTACGTAC\t1\t2\nCCGTACGTAC\t-0.5\t3\n", "line 2: x = -0.5 is outside 0"),
    "a huge number": ("ACGTACGTAC\t1\t2\nCCGTACGTAC\t4e9\t3\n", "line 2: x = 4e9 is outside 0"),
    "too few columns": ("ACGTACGTAC\t1\t2\nCCGTACGTAC\t4\n", "line 2: too few columns: there is no y"),
    "one column": ("ACGTACGTAC\nCCGTACGTAC\n", "line 1: expected a barcode, x and y, found 1 column"),
    "four columns": ("ACGTACGTAC\t1\t2\t3\n", "which are x and y?"),
    "a strange header": ("name,left,top\nACGTACGTAC,1,2\n", "no column named like barcode among name, left, top"),
    "nothing but blanks": ("\n\n", "the table is empty"),
    "a header alone": ("barcode,x,y\n", "the table has no barcodes"),
    "no text": (bytes(range(256)), "not a text table"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_text_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    text, expected = BROKEN[kind]
    assert expected in problem_of(tmp_path / "chip.txt", text)


def test_broken_options_are_named(tmp_path: Path) -> None:
    path = tmp_path / "chip.csv"
    text = "barcode,x,y\nACGTACGTAC,0,2\n"
    assert "no column umi among barcode, x, y" in problem_of(path, text, ChipOptions(barcode_column="umi"))
    assert "x = 0 is outside 1" in problem_of(path, text, ChipOptions(one_based=True))
    assert "expected barcodes of 25 bases, found 10" in problem_of(path, text, ChipOptions(barcode_length=25))
    assert "barcode_length is 40" in problem_of(path, text, ChipOptions(barcode_length=40))
    assert "no header" in problem_of(path, "ACGTACGTAC,0,2\n", ChipOptions(x_column="left"))
    assert "no column 9" in problem_of(path, "ACGTACGTAC,0,2\n", ChipOptions(x_column=9))


def test_a_missing_empty_or_truncated_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in problem_of(tmp_path / "absent.txt")
    assert "found a folder" in problem_of(tmp_path)
    assert "the file is empty" in problem_of(tmp_path / "chip.txt", "")
    whole = gzip.compress(b"".join(b"ACGTACGTAC\t%d\t%d\n" % (i, i * 7 % 1000) for i in range(3000)), mtime=0)
    assert "is cut off" in problem_of(tmp_path / "chip.txt.gz", whole[:-2000])
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    assert "compressed data are damaged" in problem_of(tmp_path / "chip.txt.gz", bytes(damaged))


def test_a_chip_of_too_many_barcodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cartoseq.analysis.chip.MAX_SPOTS", 1)
    assert "more than 1" in problem_of(tmp_path / "chip.txt", TEXTS["mask.txt"])
    assert "more than 1" in problem_of(tmp_path / "beads.txt", "ACGTACGTAC\t1.5\t2\nCCGTACGTAC\t2\t3\n")


@pytest.mark.parametrize("listed", [False, True])
def test_a_frame_is_kept_in_an_hdf5_group(tmp_path: Path, listed: bool) -> None:
    x = np.array([1.5, 9.25]) if listed else None
    kind = FrameKind.LISTED if listed else FrameKind.LATTICE
    frame = ChipFrame(kind, 1, 2, 30, 40, 0.5 if listed else None, x, x, "B01234C5")
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        frame.write(file.create_group("chip"))
        found = ChipFrame.read(file["chip"])
        assert (found.kind, found.extent, found.pitch_um, found.name) == (
            kind,
            frame.extent,
            frame.pitch_um,
            "B01234C5",
        )
        assert (found.x is None) == (not listed)
        if found.x is not None and found.y is not None:
            assert found.x.tolist() == found.y.tolist() == [1.5, 9.25]
        with pytest.raises(InputError, match="expected a chip frame"):
            ChipFrame.read(file.create_group("empty"))


def test_only_a_lattice_numbers_by_coordinate() -> None:
    frame = ChipFrame(FrameKind.LISTED, 0, 0, 9, 9, x=np.zeros(1), y=np.zeros(1))
    with pytest.raises(ValueError, match="lattice"):
        frame.lattice_spots(np.zeros(1), np.zeros(1))


def test_the_real_visium_list_is_a_lattice(real_data: Path) -> None:
    chip = read_chip(real_data / "rna_visium" / "visium-v1_coordinates.txt", ChipOptions(one_based=True))
    assert (chip.cids.size, chip.barcode_length) == (4992, 16)
    assert (chip.frame.kind, chip.frame.extent) == ("lattice", (0, 0, 128, 78))
    assert np.unique(chip.spots).size == 4992
