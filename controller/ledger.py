"""The ledger: which fluid was moved, counted from the journal and from nothing else.

Every stroke is noted before it begins, with where the plunger stands and where it shall go, and after it, with what was
delivered. So after a crash the plunger's place tells how much of an open stroke was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ledger:
    """What was moved so far.

    Attributes:
        drawn_ul: Of each reagent, through the flow cell into the syringe.
        pushed_back_ul: From the syringe back through the flow cell.
        waste_ul: From the syringe to waste.
        held_ul: In the syringe, by this account.
        delivered_ul: By each step of the plan; step 0 is what an initialisation sent to waste.
    """

    drawn_ul: dict[str, float] = field(default_factory=dict)
    pushed_back_ul: float = 0.0
    waste_ul: float = 0.0
    held_ul: float = 0.0
    delivered_ul: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[Mapping[str, Any]]) -> Ledger:
        """Count the events of a journal."""
        ledger = cls()
        for event in events:
            if event["event"] == "delivered":
                ledger.add(event["step"], event["way"], event["volume_ul"], event["reagent"])
        return ledger

    def add(self, step: int, way: str, volume_ul: float, reagent: str) -> None:
        """Count what a step moved: "draw" of a reagent, "flow_cell" (pushed back), or "waste"."""
        self.delivered_ul[step] = self.delivered_ul.get(step, 0.0) + volume_ul
        if way == "draw":
            self.drawn_ul[reagent] = self.drawn_ul.get(reagent, 0.0) + volume_ul
            self.held_ul += volume_ul
        else:
            self.held_ul -= volume_ul
            if way == "waste":
                self.waste_ul += volume_ul
            else:
                self.pushed_back_ul += volume_ul
