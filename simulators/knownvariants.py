"""The variants of a section as a VCF file: what is known of the patient before the run.

Germline variants with the normal cells' phased genotype, somatic ones (of a panel, or of an earlier biopsy) without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from cartoseq.simulators.clones import GERMLINE, Loci
from cartoseq.simulators.genome import BASES, Genome

_HEADER: Final = """\
##fileformat=VCFv4.2
##source=cartoseq
##INFO=<ID=SOMATIC,Number=0,Type=Flag,Description="Somatic variant">
##INFO=<ID=DRIVER,Number=1,Type=String,Description="Gene that the variant drives">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Phased genotype of the normal cells, maternal | paternal">
"""


def write_known_variants(genome: Genome, loci: Loci, path: Path) -> None:
    """Write the loci as VCF, plain text."""
    contigs = [
        f"##contig=<ID={name},length={contig.size}>\n"
        for name, contig in zip(genome.contig_names, genome.contigs, strict=True)
    ]
    letters = BASES.decode()
    genotypes = np.where(loci.clone == GERMLINE, np.where(loci.haplotype == 0, "1|0", "0|1"), "0|0")
    lines = []
    names = {gene.gene_id: gene.name for gene in genome.genes}
    columns = (loci.contig, loci.position, loci.reference, loci.alternative, loci.clone, loci.driver, genotypes)
    for contig, position, reference, alternative, clone, driver, genotype in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        info = "." if clone == GERMLINE else "SOMATIC" + (f";DRIVER={names[driver]}" if driver else "")
        identifier = f"driver_{names[driver]}" if driver else "."
        lines.append(
            f"{genome.contig_names[contig]}\t{position + 1}\t{identifier}\t{letters[reference]}\t"
            f"{letters[alternative]}\t.\tPASS\t{info}\tGT\t{genotype}\n"
        )
    head = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tnormal\n"
    path.write_text(_HEADER + "".join(contigs) + head + "".join(lines))
