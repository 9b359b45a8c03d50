"""A tissue section on the chip: outline, regions, cells, expression programmes, and where their molecules land.

The section is shaped after a brain hemisphere: a thin bright rim, layers that follow the outline, a pale fibre tract,
a core, and in the core a bright coiled band around a cavity, so that a map of molecules is told right from wrong at a
glance. Cells are laid by dart throwing (no two closer than their region allows). A molecule leaves its cell, moves by
diffusion (Gaussian, a few micrometres), and is captured with an efficiency that varies smoothly over the chip; a share
lands anywhere on the chip (ambient). Only positions that carry a barcode capture.

A tumour may grow in it: territories of clones A and B (:mod:`cartoseq.simulators.clones`) as smooth blobs that care for
no region, in which a cell is of the tumour with a probability (the purity) that varies smoothly from place to place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.clones import CLONE_A, CLONE_B, CLONE_OF_GENOME, CLONES, MIRRORED_A, NORMAL
from cartoseq.simulators.kernel import kernel

T = TypeVar("T", bound=np.generic)

#: Names of the region numbers; 0 is outside the tissue.
REGIONS: Final = ("outside", "rim", "outer", "middle", "tract", "core", "band")
#: A cell type that is strewn over all regions; its programme comes after those of the regions.
STREWN: Final = len(REGIONS)
PROGRAMMES: Final = (*REGIONS, "strewn")
_STREWN_SHARE: Final = 0.05
_FINEST_STEPS: Final = 2048
#: Standard deviation of the surroundings in which a cell feels tumour cells; on a small chip, a tenth of its side.
DENSITY_UM: Final = 150.0
#: Purity of a territory's places, as in solid tumours: mean 2/3.
_PURITY_SHAPE: Final = (6.0, 3.0)
#: Molecules of a cell relative to the others, and the least distance of cells in micrometres, by region.
_BRIGHTNESS: Final = (0.0, 1.2, 0.8, 1.25, 0.45, 0.8, 1.9)
_CELL_DISTANCE_UM: Final = (0.0, 7.0, 10.0, 8.0, 12.0, 11.0, 6.5)


@dataclass(frozen=True)
class TissueSettings:
    """How a section is made.

    Attributes:
        diffusion_um: Standard deviation of the way a molecule goes from its place in the cell, per axis.
        cell_radius_um: Standard deviation of a molecule's place around the cell's centre, per axis.
        ambient_share: Share of molecules that land anywhere on the chip.
        capture_variation: Relative spread of the capture field.
        marker_share: Share of the genes that mark one programme.
        marker_fold: Median fold of a marker over the other programmes.
        tumour_share: Share of the section's area that is territory of a clone; 0 for none.
        clone_b_share: Share of that area that is clone B's.
        mirrored_share: Share of clone A's area where its mirrored twin grows.
    """

    diffusion_um: float = 3.0
    cell_radius_um: float = 2.5
    ambient_share: float = 0.05
    capture_variation: float = 0.15
    marker_share: float = 0.25
    marker_fold: float = 16.0
    tumour_share: float = 0.0
    clone_b_share: float = 0.45
    mirrored_share: float = 0.2

    def __post_init__(self) -> None:
        if min(self.diffusion_um, self.cell_radius_um, self.capture_variation) < 0:
            raise ValueError("diffusion_um, cell_radius_um and capture_variation cannot be negative")
        if not 0 <= self.ambient_share < 1 or not 0 <= self.marker_share <= 1:
            raise ValueError(f"ambient_share {self.ambient_share}, marker_share {self.marker_share}: shares, 0 to 1")
        for name in ("tumour_share", "clone_b_share", "mirrored_share"):
            if not 0 <= getattr(self, name) <= 0.95:
                raise ValueError(f"{name} {getattr(self, name)}: a share, 0 to 0.95")


@dataclass(frozen=True)
class Cells:
    """The cells; every array has shape (n,).

    Attributes:
        x: Centre, in spots, float64.
        y: See ``x``.
        regions: Region, uint8.
        programmes: Expression programme, uint8.
        brightness: Molecules relative to other cells, float64.
        genomes: ``NORMAL``, ``CLONE_A``, ``CLONE_B`` or ``MIRRORED_A`` of :mod:`cartoseq.simulators.clones`, uint8.
        tumour_density: Share of tumour cells among the cells around, weighted by a Gaussian of ``DENSITY_UM``, float64.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    regions: NDArray[np.uint8]
    programmes: NDArray[np.uint8]
    brightness: NDArray[np.float64]
    genomes: NDArray[np.uint8]
    tumour_density: NDArray[np.float64]


@dataclass(frozen=True)
class Tissue:
    """A section.

    Attributes:
        settings: What was asked for.
        regions: Region number of each spot, uint8, shape (height, width).
        capture: Relative efficiency of each spot, at most 1, float32, shape (height, width).
        cells: The cells.
        expression: Share of each gene in each programme, rows sum to 1, float64, shape (programmes, genes).
        markers: Programme that each gene marks, or -1, int64, shape (genes,).
        spots_per_um: Lattice positions per micrometre.
    """

    settings: TissueSettings
    regions: NDArray[np.uint8]
    capture: NDArray[np.float32]
    cells: Cells
    expression: NDArray[np.float64]
    markers: NDArray[np.int64]
    spots_per_um: float


@dataclass(frozen=True)
class Landings:
    """Captured molecules: spot (x, y int32), the cell that they left (int64), ambient or not; shape (n,)."""

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    cells: NDArray[np.int64]
    ambient: NDArray[np.bool_]


def make_tissue(
    settings: TissueSettings, height: int, width: int, pitch_nm: int, families: NDArray[np.int64], seed: int
) -> Tissue:
    """Make a section for a chip of ``height`` x ``width`` spots and as many genes as ``families`` has entries.

    Genes of one paralog family (number >= 0) share their programme: that is what makes mistaking them matter little
    for the picture and much for the counts.
    """
    rng = np.random.default_rng([seed, 303])
    spots_per_um = 1000.0 / pitch_nm
    # Shapes are drawn on at most 2,048 steps a side; on larger chips one step is several spots.
    step = (max(height, width) - 1) // _FINEST_STEPS + 1
    rows, columns = -(-height // step), -(-width // step)
    regions = _spread(_draw_regions(rng, rows, columns), step, height, width)
    capture = np.exp(settings.capture_variation * _smooth_field(rng, rows, columns, 5))
    capture = _spread((capture / capture.max()).astype(np.float32), step, height, width)
    cells = _lay_cells(rng, regions, spots_per_um)
    if settings.tumour_share:
        cells = _grow_tumour(settings, cells, regions[::step, ::step], step, spots_per_um, seed)
    expression, markers = _draw_expression(rng, settings, families)
    return Tissue(settings, regions, capture, cells, expression, markers, spots_per_um)


def _spread(drawn: NDArray[T], step: int, height: int, width: int) -> NDArray[T]:
    """Every drawn step as ``step`` x ``step`` spots."""
    return np.ascontiguousarray(drawn.repeat(step, axis=0)[:height].repeat(step, axis=1)[:, :width])


def _smooth_field(rng: np.random.Generator, height: int, width: int, waves: float) -> NDArray[np.float64]:
    """A smooth random field of mean 0 and spread 1, from cosines of at most ``waves`` periods a side."""
    rows, columns = np.arange(height) / height, np.arange(width) / width
    field = np.zeros((height, width))
    for _ in range(12):
        along_x, along_y = rng.uniform(-waves, waves, 2)
        phase = rng.uniform(0, 2 * np.pi)
        # cos(a + b) taken apart, so that a chip of any size costs one outer product a wave.
        field += np.outer(np.cos(2 * np.pi * along_y * rows + phase), np.cos(2 * np.pi * along_x * columns))
        field -= np.outer(np.sin(2 * np.pi * along_y * rows + phase), np.sin(2 * np.pi * along_x * columns))
    field -= field.mean()
    return field / max(float(field.std()), 1e-12)


def _draw_regions(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Region number of each spot.

    Coordinates run from -1 to 1 over the chip. The outline is an egg whose radius wavers with the angle; layers are
    steps of the depth below it, bent by a smooth field; the band is a coil about an off-centre cavity.
    """
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    tilt = rng.uniform(-0.35, 0.35)
    across, along = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    angle = np.arctan2(along, across)
    outline = 0.88 + sum(
        rng.uniform(-0.055, 0.055) / order**0.5 * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        for order in range(2, 7)
    )
    # A cleft at the lower side parts two lobes.
    cleft = rng.uniform(1.2, 1.9)
    outline = outline - 0.20 * np.exp(-((np.angle(np.exp(1j * (angle - cleft))) / 0.16) ** 2))
    depth = 1.0 - np.hypot(across, along * 1.08) / outline + 0.022 * _smooth_field(rng, height, width, 4)
    regions: NDArray[np.uint8] = np.digitize(depth, [0.0, 0.045, 0.20, 0.37, 0.45]).astype(np.uint8)
    # The coil: two arcs that wind towards the cavity, each open to one side and thin at its ends.
    u, v = across - 0.04, along + 0.06
    turn = np.arctan2(v, u)
    for radius, opening, thickness in ((0.30, -2.6, 0.050), (0.155, 0.5, 0.042)):
        phase = np.mod(turn - opening, 2 * np.pi)
        ridge = radius * (1.0 - 0.035 * phase)
        taper = np.sin(np.clip(phase / 5.0, 0, 1) * np.pi) ** 0.4
        regions[(np.abs(np.hypot(u, v * 1.25) - ridge) < thickness * taper) & (regions >= 4)] = 6
    cavity = np.hypot((u - 0.02) / 0.075, (v + 0.01) / 0.05) < 1.0 + 0.12 * np.cos(3 * turn)
    regions[cavity & (regions > 0)] = 0
    return regions


def _lay_cells(rng: np.random.Generator, regions: NDArray[np.uint8], spots_per_um: float) -> Cells:
    height, width = regions.shape
    least = min(distance for distance in _CELL_DISTANCE_UM if distance) * spots_per_um
    # Eight darts for each cell that fits by area fill the section to about nine tenths of the closest packing.
    darts = int(8 * height * width / least**2) + 1
    x, y = rng.random(darts) * width, rng.random(darts) * height
    at = regions[y.astype(np.int64), x.astype(np.int64)]
    inside = at > 0
    x, y, at = x[inside], y[inside], at[inside]
    distances = np.array(_CELL_DISTANCE_UM) * spots_per_um
    taken = np.zeros(x.size, dtype=np.bool_)
    _throw_darts(x, y, distances[at], float(distances.max()), float(height), float(width), taken)
    x, y, at = x[taken], y[taken], at[taken]
    strewn = rng.random(x.size) < _STREWN_SHARE
    brightness = np.array(_BRIGHTNESS)[at] * rng.lognormal(0.0, 0.35, x.size)
    programmes = np.where(strewn, STREWN, at).astype(np.uint8)
    return Cells(x, y, at, programmes, brightness, np.zeros(x.size, np.uint8), np.zeros(x.size))


def _grow_tumour(
    settings: TissueSettings,
    cells: Cells,
    regions: NDArray[np.uint8],
    step: int,
    spots_per_um: float,
    seed: int,
) -> Cells:
    """Give the cells of territories their genome; ``regions`` is drawn in steps of so many spots."""
    from scipy.ndimage import gaussian_filter
    from scipy.special import ndtr
    from scipy.stats import beta

    rng = np.random.default_rng([seed, 1_414])
    rows, columns = regions.shape
    tissue = regions > 0

    def highest(share: float, within: NDArray[np.bool_], waves: float) -> NDArray[np.bool_]:
        field = _smooth_field(rng, rows, columns, waves)
        return within & (field > np.quantile(field[within], 1.0 - share)) if within.any() else within

    territory = highest(settings.tumour_share, tissue, 1.2)
    in_b = highest(settings.clone_b_share, territory, 1.2)
    mirrored = highest(settings.mirrored_share, territory & ~in_b, 1.2)
    genomes = np.where(in_b, CLONE_B, np.where(mirrored, MIRRORED_A, CLONE_A)).astype(np.uint8)
    field = _smooth_field(rng, rows, columns, 6)
    purity = beta.ppf(ndtr(field), *_PURITY_SHAPE)
    row, column = (axis.astype(np.int64) // step for axis in (cells.y, cells.x))
    is_tumour = territory[row, column] & (rng.random(cells.x.size) < purity[row, column])
    of_cell = np.where(is_tumour, genomes[row, column], NORMAL).astype(np.uint8)
    # The share of tumour cells around: both kinds of cells, blurred alike on squares of 10 um.
    side = 10.0 * spots_per_um
    shape = (int(rows * step / side) + 1, int(columns * step / side) + 1)
    at = ((cells.y / side).astype(np.int64), (cells.x / side).astype(np.int64))
    sigma = min(DENSITY_UM / 10.0, max(shape) / 10.0)
    sums = []
    for weights in (is_tumour.astype(np.float64), np.ones(cells.x.size)):
        image = np.zeros(shape)
        np.add.at(image, at, weights)
        sums.append(gaussian_filter(image, sigma)[at])
    return dataclasses.replace(cells, genomes=of_cell, tumour_density=sums[0] / sums[1])


@kernel
def _throw_darts(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    distances: NDArray[np.float64],
    cell: float,
    height: float,
    width: float,
    taken: NDArray[np.bool_],
) -> None:
    """Take the darts in order, each unless a taken one lies closer than the mean of the two distances."""
    rows, columns = int(height / cell) + 1, int(width / cell) + 1
    head = np.full((rows, columns), -1, dtype=np.int64)
    following = np.full(x.size, -1, dtype=np.int64)
    for dart in range(x.size):
        row, column = int(y[dart] / cell), int(x[dart] / cell)
        free = True
        for other_row in range(max(row - 1, 0), min(row + 2, rows)):
            for other_column in range(max(column - 1, 0), min(column + 2, columns)):
                other = head[other_row, other_column]
                while other >= 0 and free:
                    apart = 0.5 * (distances[dart] + distances[other])
                    free = (x[dart] - x[other]) ** 2 + (y[dart] - y[other]) ** 2 >= apart * apart
                    other = following[other]
        if free:
            taken[dart] = True
            following[dart] = head[row, column]
            head[row, column] = dart


def _draw_expression(
    rng: np.random.Generator, settings: TissueSettings, families: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Base level of each gene (lognormal), raised in the one programme that it marks and lowered in the others."""
    genes = families.size
    programmes = len(PROGRAMMES)
    level = rng.lognormal(0.0, 1.2, genes)
    marks = rng.random(genes) < settings.marker_share
    markers = np.where(marks, 1 + np.arange(genes) % (programmes - 1), -1).astype(np.int64)
    for family in range(int(families.max(initial=-1)) + 1):
        members = np.flatnonzero(families == family)
        markers[members] = markers[members[0]]
    fold = np.sqrt(settings.marker_fold * rng.lognormal(0.0, 0.5, genes))
    expression = np.tile(level, (programmes, 1))
    marked = markers >= 0
    expression[:, marked] /= fold[marked]
    expression[markers[marked], np.flatnonzero(marked)] *= fold[marked] ** 2
    return expression / expression.sum(axis=1, keepdims=True), markers


def gene_names(markers: NDArray[np.int64]) -> list[str]:
    """Symbols for made-up genes: markers after their programme (Band03), the others Gene0042."""
    seen = dict.fromkeys(range(len(PROGRAMMES)), 0)
    names = []
    for number, programme in enumerate(markers.tolist()):
        if programme < 0:
            names.append(f"Gene{number + 1:04d}")
            continue
        seen[programme] += 1
        names.append(f"{PROGRAMMES[programme].capitalize()}{seen[programme]:02d}")
    return names


def land_molecules(tissue: Tissue, carries: NDArray[np.bool_], count: int, seed: int) -> Landings:
    """Draw ``count`` captured molecules of RNA; those that reach no barcode, or are not captured, are drawn again.

    Args:
        tissue: The section.
        carries: Which positions carry a barcode, shape (height, width).
        count: Molecules wanted.
        seed: Seed.

    Raises:
        ValueError: the section has no cell on this chip (too small a chip).
    """
    rng = np.random.default_rng([seed, 404])
    settings = tissue.settings
    reach_um = float(np.hypot(settings.diffusion_um, settings.cell_radius_um))
    return land(rng, tissue, carries, tissue.cells.brightness, reach_um, settings.ambient_share, count)


def land(
    rng: np.random.Generator,
    tissue: Tissue,
    carries: NDArray[np.bool_],
    weights: NDArray[np.float64],
    reach_um: float,
    ambient_share: float,
    count: int,
) -> Landings:
    """Draw captured molecules.

    Args:
        rng: Random numbers.
        tissue: The section.
        carries: Which positions carry a barcode, shape (height, width).
        weights: Molecules of each cell, relative to the others.
        reach_um: Standard deviation of the way from the cell's centre, per axis.
        ambient_share: Share of the molecules that land anywhere.
        count: Molecules wanted.

    Raises:
        ValueError: the section has no cell on this chip (too small a chip).
    """
    if not tissue.cells.x.size:
        raise ValueError(f"no cell fits on a chip of {carries.shape[1]} x {carries.shape[0]} spots: use a larger chip")
    height, width = carries.shape
    reach = reach_um * tissue.spots_per_um
    cumulated = np.cumsum(weights)
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]] = []
    found = 0
    while found < count:
        batch = min(2 * (count - found) + 1000, 4_000_000)
        cell = np.searchsorted(cumulated, rng.random(batch) * cumulated[-1], side="right")
        x = np.floor(tissue.cells.x[cell] + rng.normal(0.0, reach, batch)).astype(np.int64)
        y = np.floor(tissue.cells.y[cell] + rng.normal(0.0, reach, batch)).astype(np.int64)
        ambient = rng.random(batch) < ambient_share
        wanderers = int(np.count_nonzero(ambient))
        x[ambient], y[ambient] = rng.integers(0, width, wanderers), rng.integers(0, height, wanderers)
        on_chip = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y, cell, ambient = x[on_chip], y[on_chip], cell[on_chip], ambient[on_chip]
        caught = carries[y, x] & (rng.random(x.size, dtype=np.float32) < tissue.capture[y, x])
        keep = np.flatnonzero(caught)[: count - found]
        parts.append((x[keep].astype(np.int32), y[keep].astype(np.int32), cell[keep], ambient[keep]))
        found += keep.size
    return Landings(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class TileTruth:
    """What truly lies in square tiles, row by row; every array has shape (rows * columns,).

    Attributes:
        rows: Tiles along y.
        columns: Tiles along x.
        cells: Cells, int64.
        tumour_share: Share of them that are of the tumour, NaN without cells, float64.
        clone: The clone that most tumour cells are of where at least a fifth of the cells are of the tumour, else 0 for
            normal; -1 without cells; int8.
    """

    rows: int
    columns: int
    cells: NDArray[np.int64]
    tumour_share: NDArray[np.float64]
    clone: NDArray[np.int8]


#: With fewer tumour cells among its cells, a tile is normal.
LEAST_TUMOUR_SHARE: Final = 0.2


def tile_truth(tissue: Tissue, tile_spots: int) -> TileTruth:
    """Sum the cells in tiles of so many spots a side, which start at the chip's corner."""
    height, width = tissue.regions.shape
    rows, columns = -(-height // tile_spots), -(-width // tile_spots)
    cells = tissue.cells
    tile = (cells.y.astype(np.int64) // tile_spots) * columns + cells.x.astype(np.int64) // tile_spots
    kinds = CLONE_OF_GENOME[cells.genomes].astype(np.int64)
    counts = np.bincount(tile * len(CLONES) + kinds, minlength=rows * columns * len(CLONES)).reshape(-1, len(CLONES))
    total, tumour = counts.sum(axis=1), counts[:, 1:].sum(axis=1)
    with np.errstate(invalid="ignore"):
        share = np.where(total > 0, tumour / total, np.nan)
    clone = np.where(share >= LEAST_TUMOUR_SHARE, 1 + counts[:, 1:].argmax(axis=1), 0)
    return TileTruth(rows, columns, total, share, np.where(total > 0, clone, -1).astype(np.int8))
