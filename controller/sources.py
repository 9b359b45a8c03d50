"""From a library of the experiment to the blocks of its reads."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from cartoseq.analysis.locate import CORRECTED_N, BarcodeIndex, locate
from cartoseq.controller.config import Experiment, Library
from cartoseq.drivers.basecalls.fastq import FastqSource, open_fastq
from cartoseq.drivers.basecalls.groupednames import GroupedCodec, GroupedNames, detect_grouped_codec
from cartoseq.drivers.basecalls.growing import Follow

FOLLOW_POLL_S = 0.25


def open_source(
    experiment: Experiment, number: int, *, skip_reads: int = 0, stop: threading.Event | None = None
) -> FastqSource:
    """Open the reads of a library.

    Args:
        experiment: The experiment.
        number: The library's number.
        skip_reads: So many reads are passed over.
        stop: Set it to end the waiting for a growing file.

    Raises:
        InputError: a file is missing, is no FASTQ, or does not fit the read structures.
    """
    library = experiment.library[number]
    follow = None
    if library.follow_until is not None:
        follow = Follow(library.follow_until, poll_s=FOLLOW_POLL_S, stop=stop or threading.Event())
    return open_fastq(
        [[row[read] for row in library.reads] for read in range(len(library.structures))],
        library.structures,
        grouped=_grouped_names(experiment, library, follow),
        library=number,
        clusters_per_block=experiment.run.block_clusters,
        skip_reads=skip_reads,
        follow=follow,
    )


def hit_rate(cids: NDArray[np.uint64], index: BarcodeIndex) -> float:
    """The share of packed barcodes that the chip has, exactly or with one substitution."""
    spots = np.empty(cids.size, np.uint32)
    verdicts = np.empty(cids.size, np.uint8)
    none = np.zeros(cids.size, np.uint8)
    locate(cids, none, none, index, 1, spots, verdicts)
    return float(np.mean(verdicts <= CORRECTED_N)) if cids.size else 0.0


def _grouped_names(experiment: Experiment, library: Library, follow: Follow | None) -> GroupedNames | None:
    if library.grouped_names is False:
        return None
    cid_length, mid_length = library.barcode_length or 0, library.mid_length or 0
    if library.grouped_names == "auto":
        from cartoseq.controller.folding import open_chip

        index, _ = open_chip(experiment)
        codec = detect_grouped_codec(
            [row[0] for row in library.reads],
            lambda cids: hit_rate(cids, index),
            cid_length=cid_length,
            mid_length=mid_length,
            follow=follow,
        )
    else:
        codec = GroupedCodec.parse(library.grouped_names)
    return GroupedNames(codec, cid_length, mid_length)
