"""What decides how much of each gene a cell makes: its programme, its clone, and the tumour around it.

Expression = programme x clone x neighbourhood. A gene belongs to one of four classes by what truly changes it:

* ``CLONE``: the clone alone. By dosage: in an altered stretch of the genome, log2 fold = slope x log2(copies / 2), with
  slopes between 0.4 and 1 for 70 % of the genes there and none for the others; or by signature: genes anywhere in the
  genome that clone B makes three times as much of.
* ``NEIGHBOURHOOD``: the share of tumour cells around, whatever the cell itself is: log2 fold = 2 x that share.
* ``BOTH``: three times as much in clone B, and the neighbourhood.
* ``NONE``: neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cartoseq.simulators.clones import CLONE_B, CLONE_OF_GENOME, CLONES, Clones
from cartoseq.simulators.genome import Genome
from cartoseq.simulators.tissue import PROGRAMMES, Tissue

NONE: Final = 0
CLONE: Final = 1
NEIGHBOURHOOD: Final = 2
BOTH: Final = 3
EFFECTS: Final = ("none", "clone", "neighbourhood", "both")

#: Genes of each signature, and at most this share of all genes.
_SIGNATURE_GENES: Final = 60
_SIGNATURE_SHARE: Final = 0.04
_SIGNATURE_FOLD: Final = 3.0
_DENSITY_LOG2_FOLD: Final = 2.0
_SENSITIVE_SHARE: Final = 0.7
_SLOPES: Final = (0.4, 1.0)
#: Steps in which the tumour around a cell counts.
_DENSITY_STEPS: Final = 12


@dataclass(frozen=True)
class Effects:
    """What changes each gene; the first axis is genes.

    Attributes:
        classes: ``NONE``, ``CLONE``, ``NEIGHBOURHOOD`` or ``BOTH``, uint8.
        dosage_slope: Slope of log2 expression over log2(copies / 2), 0 where dosage does nothing, float64.
        clone_log2_fold: Change in each clone against normal cells, float64, shape (genes, clones).
        density_log2_fold: Change from no tumour around to nothing but tumour, float64.
    """

    classes: NDArray[np.uint8]
    dosage_slope: NDArray[np.float64]
    clone_log2_fold: NDArray[np.float64]
    density_log2_fold: NDArray[np.float64]


def no_effects(genes: int) -> Effects:
    """Those of a section without a tumour."""
    return Effects(np.zeros(genes, np.uint8), np.zeros(genes), np.zeros((genes, len(CLONES))), np.zeros(genes))


def draw_effects(genome: Genome, clones: Clones, seed: int) -> Effects:
    """Draw what changes each gene."""
    rng = np.random.default_rng([seed, 1_212])
    genes = len(genome.genes)
    contig = np.array([gene.contig for gene in genome.genes], dtype=np.int64)
    middle = np.array([(gene.exons[0][0] + gene.exons[-1][1]) // 2 for gene in genome.genes], dtype=np.int64)
    copies = clones.copies(contig, middle).sum(axis=2)[:, : len(CLONES)]
    log2_dosage = np.log2(np.maximum(copies, 0.1) / 2.0)
    altered = np.any(copies != 2, axis=1)
    slopes = rng.uniform(*_SLOPES, genes)
    dosage_slope = np.where(altered & (rng.random(genes) < _SENSITIVE_SHARE), slopes, 0.0)
    clone_log2_fold = dosage_slope[:, None] * log2_dosage
    classes = np.where(dosage_slope > 0, CLONE, NONE).astype(np.uint8)
    density_log2_fold = np.zeros(genes)
    # The signatures are of genes whose dosage does nothing: what a gene is then has one reason.
    free = rng.permutation(np.flatnonzero(~altered))
    size = min(_SIGNATURE_GENES, int(genes * _SIGNATURE_SHARE), free.size // 4)
    for number, kind in enumerate((CLONE, NEIGHBOURHOOD, BOTH)):
        members = free[number * size : (number + 1) * size]
        classes[members] = kind
        if kind in (CLONE, BOTH):
            clone_log2_fold[members, CLONE_B] = np.log2(_SIGNATURE_FOLD)
        if kind in (NEIGHBOURHOOD, BOTH):
            density_log2_fold[members] = _DENSITY_LOG2_FOLD

    return Effects(classes, dosage_slope, clone_log2_fold, density_log2_fold)


def draw_genes(tissue: Tissue, effects: Effects, cells: NDArray[np.int64], seed: int) -> NDArray[np.uint32]:
    """A gene for each molecule, from the programme, the clone and the surroundings of the cell that it left."""
    rng = np.random.default_rng([seed, 505])
    clones = CLONE_OF_GENOME[tissue.cells.genomes]
    steps = np.minimum((tissue.cells.tumour_density * _DENSITY_STEPS).astype(np.int64), _DENSITY_STEPS - 1)
    kinds = (tissue.cells.programmes.astype(np.int64) * len(CLONES) + clones) * _DENSITY_STEPS + steps
    kind_of_molecule = kinds[cells]
    order = np.argsort(kind_of_molecule, kind="stable")
    edges = np.searchsorted(kind_of_molecule[order], np.arange(len(PROGRAMMES) * len(CLONES) * _DENSITY_STEPS + 1))
    genes = np.zeros(cells.size, dtype=np.uint32)
    for kind in np.flatnonzero(np.diff(edges)).tolist():
        members = order[edges[kind] : edges[kind + 1]]
        programme, rest = divmod(kind, len(CLONES) * _DENSITY_STEPS)
        clone, step = divmod(rest, _DENSITY_STEPS)
        density = (step + 0.5) / _DENSITY_STEPS if tissue.settings.tumour_share else 0.0
        fold = np.exp2(effects.clone_log2_fold[:, clone] + density * effects.density_log2_fold)
        cumulated = np.cumsum(tissue.expression[programme] * fold)
        genes[members] = np.searchsorted(cumulated, rng.random(members.size) * cumulated[-1], side="right")
    return genes
