"""What became of every read: named counters that add up at each level.

``reads_total = located_exact + located_corrected + ambiguous + unmatched + barcode_n``; the located reads are
``mid_n + mid_homopolymer + mid_low_quality`` and those that go on to the template; these are
``assigned + multi_gene + antisense + intronic + intergenic + multi_mapped + unmapped``. A read placed by trying the
four bases at an N is a corrected one and is told apart in ``corrected_n``; an intronic read that the configuration
lets into the map is an assigned one and is told apart in ``assigned_intronic``.
"""

from __future__ import annotations

from collections.abc import Mapping

from cartoseq.streaming.errors import RunError

#: The verdicts of ``locate``, in the order of their codes, and the counter of each.
LOCATE_COUNTERS = ("located_exact", "located_corrected", "corrected_n", "ambiguous", "unmatched", "barcode_n")
#: The verdicts on the molecular barcode, in the order of their codes; the first passes.
MID_COUNTERS = ("mid_ok", "mid_n", "mid_homopolymer", "mid_low_quality")
#: The verdicts of ``assign``, in the order of their codes.
ASSIGN_COUNTERS = ("assigned", "multi_gene", "antisense", "intronic", "intergenic", "multi_mapped", "unmapped")

#: Every counter of reads, in the order in which a person reads them.
READ_COUNTERS = (
    "reads_total",
    "located_exact",
    "located_corrected",
    "corrected_n",
    "ambiguous",
    "unmatched",
    "barcode_n",
    "mid_n",
    "mid_homopolymer",
    "mid_low_quality",
    "assigned",
    "assigned_intronic",
    "multi_gene",
    "antisense",
    "intronic",
    "intergenic",
    "multi_mapped",
    "unmapped",
)


def located(counters: Mapping[str, int]) -> int:
    """How many reads found their spot."""
    return counters["located_exact"] + counters["located_corrected"]


def mid_filtered(counters: Mapping[str, int]) -> int:
    """How many located reads the filters of the molecular barcode took out."""
    return counters["mid_n"] + counters["mid_homopolymer"] + counters["mid_low_quality"]


def check(counters: Mapping[str, int], library: str) -> None:
    """Hold that no read was lost between two levels.

    Raises:
        RunError: a level does not add up: a fault of the program, named so that it can be reported.
    """
    placed = located(counters)
    levels = (
        (
            "reads_total",
            counters["reads_total"],
            placed + sum(counters[k] for k in ("ambiguous", "unmatched", "barcode_n")),
        ),
        ("located", placed, mid_filtered(counters) + sum(counters[k] for k in ASSIGN_COUNTERS)),
    )
    for name, have, parts in levels:
        if have != parts:
            raise RunError(
                f"library {library}: {name} is {have:,} but its parts add up to {parts:,}. "
                "This is a fault of the program: keep the run folder and report it."
            )
    for part, whole in (("corrected_n", "located_corrected"), ("assigned_intronic", "assigned")):
        if counters[part] > counters[whole]:
            raise RunError(f"library {library}: {part} is larger than {whole}: a fault of the program, report it.")
