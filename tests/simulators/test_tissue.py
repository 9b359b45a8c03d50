"""Sections: regions, cells, programmes, and where molecules land."""

from __future__ import annotations

import numpy as np
import pytest

from cartoseq.simulators.chip import ChipSettings, make_chip
from cartoseq.simulators.clones import CLONE_B, CLONE_OF_GENOME, NORMAL
from cartoseq.simulators.tissue import (
    LEAST_TUMOUR_SHARE,
    PROGRAMMES,
    REGIONS,
    Tissue,
    TissueSettings,
    gene_names,
    land_molecules,
    make_tissue,
    tile_truth,
)

FAMILIES = np.full(100, -1, dtype=np.int64)
FAMILIES[[3, 50]] = 0


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return make_tissue(TissueSettings(), 400, 500, 500, FAMILIES, seed=9)


@pytest.mark.parametrize("seed", range(6))
def test_every_region_is_there_and_the_tissue_leaves_a_margin(seed: int) -> None:
    regions = make_tissue(TissueSettings(), 200, 240, 500, FAMILIES, seed).regions
    shares = np.bincount(regions.ravel(), minlength=len(REGIONS)) / regions.size
    assert (shares > 0.015).all()
    assert 0.3 < shares[0] < 0.6
    assert not regions[[0, -1], :].any()
    assert not regions[:, [0, -1]].any()


def test_cells_keep_their_distance_and_lie_in_tissue(tissue: Tissue) -> None:
    cells = tissue.cells
    assert cells.x.size > 100
    assert (tissue.regions[cells.y.astype(int), cells.x.astype(int)] == cells.regions).all()
    assert (cells.regions > 0).all()
    apart = np.hypot(cells.x[:, None] - cells.x, cells.y[:, None] - cells.y) / tissue.spots_per_um
    np.fill_diagonal(apart, np.inf)
    assert apart.min() >= 6.5
    core = cells.regions == REGIONS.index("core")
    assert apart[np.ix_(core, core)].min() >= 11.0


def test_programmes_add_up_and_markers_mark(tissue: Tissue) -> None:
    assert tissue.expression.shape == (len(PROGRAMMES), 100)
    np.testing.assert_allclose(tissue.expression.sum(axis=1), 1.0)
    marking = np.flatnonzero(tissue.markers >= 0)
    assert 10 <= marking.size <= 45
    assert (tissue.expression[:, marking].argmax(axis=0) == tissue.markers[marking]).all()
    assert tissue.markers[3] == tissue.markers[50]
    names = gene_names(tissue.markers)
    assert len(set(names)) == 100


def test_molecules_land_on_barcodes_and_mostly_in_the_tissue(tissue: Tissue) -> None:
    carries = make_chip(ChipSettings(500, 400), seed=1).cids > 0
    landings = land_molecules(tissue, carries, 20_000, seed=1)
    assert landings.x.size == landings.ambient.size == 20_000
    assert carries[landings.y, landings.x].all()
    assert landings.ambient.mean() == pytest.approx(0.05, abs=0.01)
    inside = tissue.regions[landings.y, landings.x] > 0
    assert inside[~landings.ambient].mean() > 0.9
    assert inside[landings.ambient].mean() == pytest.approx((tissue.regions > 0).mean(), abs=0.06)


def test_without_diffusion_a_molecule_stays_in_the_spot_of_its_cell() -> None:
    settings = TissueSettings(diffusion_um=0, cell_radius_um=0, ambient_share=0)
    tissue = make_tissue(settings, 300, 300, 500, FAMILIES, seed=2)
    landings = land_molecules(tissue, np.ones((300, 300), dtype=np.bool_), 2000, seed=2)
    centres = set(zip(tissue.cells.x.astype(int).tolist(), tissue.cells.y.astype(int).tolist(), strict=True))
    assert set(zip(landings.x.tolist(), landings.y.tolist(), strict=True)) <= centres


@pytest.fixture(scope="module")
def tumour() -> Tissue:
    return make_tissue(TissueSettings(tumour_share=0.5), 2400, 2400, 500, FAMILIES, seed=4)


def test_a_tumour_grows_where_its_clones_have_territory(tumour: Tissue) -> None:
    shares = np.bincount(tumour.cells.genomes, minlength=4) / tumour.cells.x.size
    # Half of the area, two thirds of the cells in it.
    assert 1 - shares[NORMAL] == pytest.approx(0.33, abs=0.08)
    assert (shares[1:] > 0.01).all()
    assert shares[CLONE_B] / (1 - shares[NORMAL]) == pytest.approx(0.45, abs=0.12)


def test_the_density_around_a_tumour_cell_is_higher_than_around_others(tumour: Tissue) -> None:
    density = tumour.cells.tumour_density
    assert density.min() >= 0
    assert density.max() <= 1
    assert density[tumour.cells.genomes != NORMAL].mean() > density[tumour.cells.genomes == NORMAL].mean() + 0.2


def test_a_tumour_changes_nothing_else_of_the_section(tumour: Tissue) -> None:
    healthy = make_tissue(TissueSettings(), 2400, 2400, 500, FAMILIES, seed=4)
    assert np.array_equal(healthy.cells.x, tumour.cells.x)
    assert np.array_equal(healthy.expression, tumour.expression)
    assert not healthy.cells.genomes.any()


def test_tiles_are_summed_cell_by_cell(tumour: Tissue) -> None:
    truth = tile_truth(tumour, 500)
    assert (truth.rows, truth.columns) == (5, 5)
    assert truth.cells.sum() == tumour.cells.x.size
    cells = tumour.cells
    inside = (cells.x >= 1000) & (cells.x < 1500) & (cells.y >= 500) & (cells.y < 1000)
    tile = 1 * 5 + 2
    assert truth.cells[tile] == np.count_nonzero(inside)
    share = (cells.genomes[inside] != NORMAL).mean()
    assert truth.tumour_share[tile] == pytest.approx(share)
    counts = np.bincount(CLONE_OF_GENOME[cells.genomes[inside]], minlength=3)
    assert truth.clone[tile] == (1 + counts[1:].argmax() if share >= LEAST_TUMOUR_SHARE else 0)
    empty = truth.cells == 0
    assert np.isnan(truth.tumour_share[empty]).all()
    assert (truth.clone[empty] == -1).all()


def test_a_chip_without_room_for_a_cell_is_refused() -> None:
    tissue = make_tissue(TissueSettings(), 2, 2, 500, FAMILIES, seed=1)
    with pytest.raises(ValueError, match="use a larger chip"):
        land_molecules(tissue, np.ones((2, 2), dtype=np.bool_), 10, seed=1)


def test_large_chips_are_drawn_in_steps_of_several_spots() -> None:
    regions = make_tissue(TissueSettings(), 60, 4100, 500, FAMILIES, seed=1).regions
    assert regions.shape == (60, 4100)
    np.testing.assert_array_equal(regions[:, 0:4098:3], regions[:, 2:4098:3])
