"""Maps: built from molecules, summed into bins and images, written and read, against plain dictionaries."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartoseq.analysis.chip import ChipFrame, FrameKind
from cartoseq.analysis.maps import LibraryMap, Maps, SpatialMap, bin_grid, build_map, read_maps, write_maps
from cartoseq.analysis.molecules import Molecules, MoleculeSet
from cartoseq.analysis.windows import window_features
from cartoseq.streaming.errors import DiskError, InputError

LATTICE = ChipFrame(
    FrameKind.LATTICE, origin_x=-700, origin_y=1_003, width=900, height=700, pitch_um=0.5, name="B01234C5"
)
LISTED = ChipFrame(
    FrameKind.LISTED,
    origin_x=-3,
    origin_y=0,
    width=41,
    height=30,
    x=np.random.default_rng(1).uniform(-3, 38, 500),
    y=np.random.default_rng(2).uniform(0, 30, 500),
    name="beads",
)
GENES = [f"ENSMUSG{number:011d}" for number in range(6)]
NAMES = ["Penk", "Doc2g", "Kctd12", "Doc2g", "", "µ-crystallin"]

Rows = dict[tuple[int, float, float], tuple[int, int]]


def random_molecules(seed: int, n: int, frame: ChipFrame) -> Molecules:
    """Distinct molecules, by (feature, spot, MID), of the first five genes."""
    random = np.random.default_rng(seed)
    if frame.kind is FrameKind.LATTICE:
        x = random.integers(0, frame.width, n) + frame.origin_x
        y = random.integers(0, frame.height, n) // 7 * 7 + frame.origin_y
        spots = frame.lattice_spots(x, y)
    else:
        spots = random.integers(0, 500, n).astype(np.uint32)
    found = MoleculeSet(16, 8)
    features = np.minimum(random.integers(0, 5, n), random.integers(0, 5, n))
    found.add(spots, features.astype(np.uint64), random.integers(0, 256, n).astype(np.uint64))
    return found.sorted_molecules()


def shuffled(molecules: Molecules, seed: int) -> Molecules:
    order = np.random.default_rng(seed).permutation(len(molecules))
    return Molecules(*(getattr(molecules, column.name)[order] for column in fields(Molecules)))


def plain_rows(molecules: Molecules, frame: ChipFrame) -> Rows:
    x, y = frame.coordinates(molecules.spots)
    counts: dict[tuple[int, float, float], list[int]] = defaultdict(lambda: [0, 0])
    for feature, down, across, copies in zip(
        molecules.features.tolist(), y.tolist(), x.tolist(), molecules.copies.tolist(), strict=True
    ):
        counts[feature, down, across][0] += 1
        counts[feature, down, across][1] += copies
    return {key: (value[0], value[1]) for key, value in sorted(counts.items())}


def rows_of(spatial: SpatialMap) -> Rows:
    features = np.repeat(np.arange(len(spatial.feature_ids)), np.diff(spatial.offsets)).tolist()
    keys = zip(features, spatial.y.tolist(), spatial.x.tolist(), strict=True)
    return dict(zip(keys, zip(spatial.molecules.tolist(), spatial.reads.tolist(), strict=True), strict=True))


def some_map(frame: ChipFrame = LATTICE, seed: int = 3, n: int = 4_000) -> SpatialMap:
    return build_map(random_molecules(seed, n, frame), frame, GENES, NAMES, library="rna", layer="rna")


def some_maps(frame: ChipFrame = LATTICE) -> Maps:
    library = LibraryMap(
        map=some_map(frame),
        totals={"reads_total": 5_000, "located_exact": 4_000},
        copies=np.array([0, 3, 2, 1], np.uint64),
        saturation=np.array([[10, 9], [20, 15]], np.uint64),
        located=np.arange(12, dtype=np.uint32).reshape(3, 4),
        located_bin=300,
        base_counts=np.arange(10, dtype=np.uint64).reshape(2, 5),
        quality_counts=np.arange(128, dtype=np.uint64).reshape(2, 64),
    )
    windows = window_features(["chr1", "chrMT"], [2_500, 16], 1_000)
    dna = build_map(random_molecules(4, 900, frame), frame, [*windows.ids, "x"], ["w"] * 5, library="d", layer="dna")
    return Maps(frame, {"rna": library, "d": LibraryMap(map=dna)}, log_position=77, generation=3)


# ------------------------------------------------------------------------------------------------------------- building


@pytest.mark.parametrize("frame", [LATTICE, LISTED], ids=["lattice", "listed"])
def test_a_map_counts_molecules_and_reads_per_feature_and_spot_in_order(frame: ChipFrame) -> None:
    molecules = random_molecules(3, 4_000, frame)
    spatial = build_map(molecules, frame, GENES, NAMES, library="rna", layer="rna")
    assert list(rows_of(spatial).items()) == list(plain_rows(molecules, frame).items())
    assert spatial.x.dtype == (np.int32 if frame is LATTICE else np.float64)
    assert spatial.total_molecules == len(molecules)


@pytest.mark.parametrize("frame", [LATTICE, LISTED], ids=["lattice", "listed"])
def test_a_map_does_not_depend_on_order_or_parts(frame: ChipFrame) -> None:
    molecules = shuffled(random_molecules(3, 4_000, frame), 5)
    parts = [
        Molecules(*(getattr(molecules, column.name)[first::3] for column in fields(Molecules))) for first in (2, 0, 1)
    ]
    whole = some_map(frame)
    assert rows_of(build_map(molecules, frame, GENES, NAMES, library="rna", layer="rna")) == rows_of(whole)
    assert list(rows_of(build_map(parts, frame, GENES, NAMES, library="rna", layer="rna")).items()) == list(
        rows_of(whole).items()
    )


def test_the_parts_of_a_molecule_set_make_the_same_map() -> None:
    molecules = random_molecules(3, 4_000, LATTICE)
    found = MoleculeSet(16, 8)
    for _ in range(2):
        found.add(molecules.spots, molecules.features.astype(np.uint64), molecules.mids)
    from_parts = build_map(found.parts(), LATTICE, GENES, NAMES, library="rna", layer="rna")
    from_whole = build_map(found.sorted_molecules(), LATTICE, GENES, NAMES, library="rna", layer="rna")
    assert list(rows_of(from_parts).items()) == list(rows_of(from_whole).items())


@pytest.mark.parametrize("parts", [[], [random_molecules(1, 0, LATTICE)]], ids=["no part", "an empty part"])
def test_a_map_of_nothing_has_its_features_and_no_rows(parts: list[Molecules]) -> None:
    spatial = build_map(parts, LATTICE, GENES, NAMES, library="rna", layer="rna")
    assert (spatial.rows, spatial.offsets.tolist()) == (0, [0] * 7)
    assert spatial.total(100).sum() == 0
    assert spatial.binned(100).x.size == 0


def test_a_molecule_of_an_unnamed_feature_is_refused() -> None:
    with pytest.raises(ValueError, match=r"feature number 4; there are 2 features"):
        build_map(random_molecules(3, 4_000, LATTICE), LATTICE, GENES[:2], NAMES[:2], library="rna", layer="rna")


def test_sums_of_reads_stop_at_32_bits() -> None:
    many = Molecules(
        np.zeros(3, np.uint32), np.zeros(3, np.uint32), np.arange(3, dtype=np.uint64), np.full(3, 2**31, np.uint32)
    )
    frame = replace(LATTICE, origin_x=0, origin_y=0)
    assert build_map(many, frame, GENES, NAMES, library="rna", layer="rna").reads.tolist() == [2**32 - 1]


def test_columns_that_do_not_fit_are_refused() -> None:
    spatial = some_map()
    with pytest.raises(ValueError, match="different lengths"):
        replace(spatial, reads=spatial.reads[1:])
    with pytest.raises(ValueError, match="do not fit each other"):
        replace(spatial, feature_ids=spatial.feature_ids[1:])
    with pytest.raises(ValueError, match="do not cover"):
        replace(spatial, offsets=spatial.offsets + 1)
    with pytest.raises(ValueError, match="outside the chip"):
        replace(spatial, x=spatial.x + np.int32(900))


# ----------------------------------------------------------------------------------------------------------------- bins


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 1_200))
def test_bins_of_a_lattice_are_floored_on_the_chips_own_coordinates(bin_size: int) -> None:
    check_bins(some_map(LATTICE), bin_size)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 60))
def test_bins_of_a_listed_frame_are_floored_in_its_own_unit(bin_size: float) -> None:
    check_bins(some_map(LISTED), bin_size)


def check_bins(spatial: SpatialMap, bin_size: float) -> None:
    grid = bin_grid(spatial.frame, bin_size)
    expected: Counter[tuple[int, int, int]] = Counter()
    reads: Counter[tuple[int, int, int]] = Counter()
    for (feature, y, x), (molecules, copies) in rows_of(spatial).items():
        key = (feature, math.floor(y / bin_size), math.floor(x / bin_size))
        expected[key] += molecules
        reads[key] += copies
    binned = spatial.binned(bin_size)
    features = np.repeat(np.arange(6), np.diff(binned.offsets)).tolist()
    rows, columns = np.rint(binned.y / bin_size).astype(int).tolist(), np.rint(binned.x / bin_size).astype(int).tolist()
    keys = list(zip(features, rows, columns, strict=True))
    assert keys == sorted(expected)
    assert dict(zip(keys, binned.molecules.tolist(), strict=True)) == dict(expected)
    assert dict(zip(keys, binned.reads.tolist(), strict=True)) == dict(reads)

    image = np.zeros((6, *grid.shape), np.uint32)
    for (feature, row, column), molecules in expected.items():
        image[feature, row - grid.first_row, column - grid.first_column] = molecules
    assert (spatial.total(bin_size) == image.sum(axis=0)).all()
    assert (spatial.feature_image(2, bin_size) == image[2]).all()
    assert spatial.total(bin_size).dtype == np.uint32


def test_the_grid_covers_the_frame_and_no_more() -> None:
    grid = bin_grid(LATTICE, 50)
    assert (grid.first_column, grid.first_row, grid.shape) == (-14, 20, (15, 18))
    assert bin_grid(LATTICE, 1).shape == (700, 900)


@pytest.mark.parametrize("bin_size", [0, -1, math.nan, math.inf])
def test_a_bin_without_a_size_is_refused(bin_size: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        some_map(LISTED, n=5).total(bin_size)


def test_a_fraction_of_a_lattice_spot_is_no_bin() -> None:
    with pytest.raises(ValueError, match=r"whole number of spots; got 2\.5"):
        some_map(n=5).total(2.5)


def test_a_feature_is_found_by_number_id_and_name_and_namesakes_are_summed() -> None:
    spatial = some_map()
    assert (spatial.feature_image("ENSMUSG00000000002", 50) == spatial.feature_image(2, 50)).all()
    both = spatial.feature_image(1, 50) + spatial.feature_image(3, 50)
    assert (spatial.feature_image("Doc2g", 50) == both).all()
    assert spatial.features_named("µ-crystallin").tolist() == [5]


@pytest.mark.parametrize("feature", ["Nope", 6, -1])
def test_a_feature_that_is_not_there_is_named(feature: int | str) -> None:
    with pytest.raises(KeyError, match=r"Nope|number 6|number -1"):
        some_map(n=5).feature_image(feature)


# -------------------------------------------------------------------------------------------------------------- windows


def test_windows_are_named_by_contig_start_and_end() -> None:
    windows = window_features(["chr1", "chrMT"], [2_500, 1_000], 1_000)
    assert windows.ids.tolist() == ["chr1:0-1000", "chr1:1000-2000", "chr1:2000-2500", "chrMT:0-1000"]


@given(st.integers(0, 9_000), st.integers(1, 4_000))
def test_a_position_lies_in_the_window_that_its_name_says(position: int, window_bp: int) -> None:
    offsets, lengths, names = [100, 3_000, 5_000], [2_500, 1_000, 3_333], ["a", "b", "c"]
    windows = window_features(names, lengths, window_bp, offsets)
    found = str(windows.ids[windows.windows_of(np.array([position], np.uint64))[0]])
    every = [(contig, place) for contig in range(3) for place in (0, lengths[contig] - 1)]
    inside = [contig for contig in range(3) if offsets[contig] <= position < offsets[contig] + lengths[contig]]
    if inside:
        contig, place = inside[0], position - offsets[inside[0]]
    else:
        contig, place = min(every, key=lambda one: (abs(offsets[one[0]] + one[1] - position), one))
    start = place // window_bp * window_bp
    assert found == f"{names[contig]}:{start}-{min(start + window_bp, lengths[contig])}"


def test_contigs_follow_each_other_without_a_gap_where_no_offsets_are_given() -> None:
    windows = window_features(["a", "b"], [10, 10], 10)
    assert windows.windows_of(np.array([0, 9, 10, 19, 50], np.uint64)).tolist() == [0, 0, 1, 1, 1]


def test_molecules_of_both_strands_fall_into_the_window_of_their_position() -> None:
    windows = window_features(["a"], [4_000_000_000], 1_000_000)
    positions = np.array([5, 3_999_999_999, 1_000_000], np.uint64)
    features = positions | np.array([1 << 32, 1 << 32, 0], np.uint64)
    molecules = Molecules(np.zeros(3, np.uint32), features, np.zeros(3, np.uint64), np.ones(3, np.uint32))
    found = windows.in_windows(molecules, 32)
    assert found.features.tolist() == [0, 3_999, 1]
    assert found.spots is molecules.spots


@pytest.mark.parametrize(("lengths", "window_bp"), [([10], 0), ([0, 5], 10)])
def test_windows_and_contigs_have_at_least_one_base(lengths: list[int], window_bp: int) -> None:
    with pytest.raises(ValueError, match="at least one base"):
        window_features([str(length) for length in lengths], lengths, window_bp)


# ------------------------------------------------------------------------------------------------------------- the file


def assert_same(one: Maps, other: Maps) -> None:
    assert (one.log_position, one.generation, list(one.libraries)) == (
        other.log_position,
        other.generation,
        sorted(other.libraries),
    )
    assert (one.frame.kind, one.frame.extent, one.frame.name) == (
        other.frame.kind,
        other.frame.extent,
        other.frame.name,
    )
    for name, library in one.libraries.items():
        twin = other.libraries[name]
        assert (library.map.library, library.map.layer) == (name, twin.map.layer)
        assert dict(library.totals) == dict(twin.totals)
        assert library.located_bin == twin.located_bin
        for column in ("feature_ids", "feature_names", "offsets", "x", "y", "molecules", "reads"):
            assert (getattr(library.map, column) == getattr(twin.map, column)).all()
            assert getattr(library.map, column).dtype.kind == getattr(twin.map, column).dtype.kind
        for column in ("copies", "saturation", "located", "base_counts", "quality_counts"):
            assert getattr(library, column).shape == getattr(twin, column).shape
            assert (getattr(library, column) == getattr(twin, column)).all()


@pytest.mark.parametrize("frame", [LATTICE, LISTED], ids=["lattice", "listed"])
def test_maps_are_read_as_they_were_written(frame: ChipFrame, tmp_path: Path) -> None:
    write_maps(tmp_path / "maps.h5", some_maps(frame))
    assert_same(read_maps(tmp_path / "maps.h5"), some_maps(frame))


def test_a_map_without_features_is_kept(tmp_path: Path) -> None:
    nothing = Maps(LATTICE, {"rna": LibraryMap(build_map([], LATTICE, [], [], library="rna", layer="rna"))})
    write_maps(tmp_path / "maps.h5", nothing)
    assert_same(read_maps(tmp_path / "maps.h5"), nothing)


def test_the_same_maps_are_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    write_maps(tmp_path / "one.h5", some_maps())
    time.sleep(1.1)  # HDF5 keeps times, where it keeps them, in whole seconds
    write_maps(tmp_path / "two.h5", replace(some_maps(), libraries=dict(reversed(some_maps().libraries.items()))))
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_a_write_that_fails_leaves_the_older_maps_whole(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps.h5", some_maps())
    before = (tmp_path / "maps.h5").read_bytes()
    broken = some_maps()
    broken = replace(broken, libraries={"a": broken.libraries["rna"], "b/c": broken.libraries["rna"]})
    with pytest.raises(ValueError, match="cannot be called 'b/c'"):
        write_maps(tmp_path / "maps.h5", broken)
    assert (tmp_path / "maps.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["maps.h5"]


def test_a_disk_that_refuses_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskError, match=r"No space left on device.*older maps are still whole"):
        write_maps(tmp_path / "maps.h5", some_maps())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_maps(tmp_path / "maps.h5")


def test_a_file_that_is_no_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("geneID\tx\ty\tMIDCount\n")
    with pytest.raises(InputError, match="expected maps"):
        read_maps(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["geneExp"] = 1
    with pytest.raises(InputError, match="expected format 'cartoseq-maps', found 'none'"):
        read_maps(tmp_path / "other.h5")


def test_a_newer_version_is_refused_with_a_remedy(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps.h5", some_maps())
    with h5py.File(tmp_path / "maps.h5", "a") as file:
        file.attrs["version"] = 2
    with pytest.raises(InputError, match=r"version 2; this program reads up to 1.*that wrote it"):
        read_maps(tmp_path / "maps.h5")


def test_maps_that_are_cut_or_changed_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "maps.h5"
    write_maps(path, some_maps())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"cut off: {len(whole) // 2:,} of its {len(whole) - 16:,} bytes.*replay"):
        read_maps(path)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(InputError, match="checksum is wrong"):
        read_maps(path)
    # Another program that adds to the file leaves no seal.
    path.write_bytes(whole[:-16])
    assert read_maps(path).libraries.keys() == some_maps().libraries.keys()


@pytest.mark.parametrize("missing", ["libraries/rna/offset", "libraries/rna/located", "chip"])
def test_maps_with_a_part_missing_are_damaged(missing: str, tmp_path: Path) -> None:
    write_maps(tmp_path / "maps.h5", some_maps())
    with h5py.File(tmp_path / "maps.h5", "a") as file:
        del file[missing]
    with pytest.raises(InputError, match="damaged maps"):
        read_maps(tmp_path / "maps.h5")


def test_maps_whose_columns_do_not_fit_are_damaged(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps.h5", some_maps())
    with h5py.File(tmp_path / "maps.h5", "a") as file:
        file["libraries/rna/offset"][-1] += 1
    with pytest.raises(InputError, match="do not cover"):
        read_maps(tmp_path / "maps.h5")
