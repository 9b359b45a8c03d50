"""The bench behind the devices: fluids, heat and light, moved on together in one time.

Devices act on the world and ask it; each first says what time it is (`advance`). What a device does later without being
asked again (a valve that arrives, the next step of a pump's program) it leaves here as an event, so that all things
happen in the order of their times, whoever looks first.

The world begins when it is first looked at: a clock may show any time then.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from cartoseq.simulators.fluidics import Fluidics, make_fluidics
from cartoseq.simulators.optics import LaserHead, Optics
from cartoseq.simulators.thermal import Gains, Plate, PlateSettings


class Event:
    """Something that will happen, unless it is cancelled."""

    def __init__(self, at_s: float, action: Callable[[float], object]) -> None:
        self.at_s = at_s
        self.action: Callable[[float], object] | None = action

    def cancel(self) -> None:
        """Let it not happen."""
        self.action = None


class World:
    """All that is not a device's electronics.

    Args:
        fluidics: Bottles, valves, tubing, flow cells and syringes.
        plates: Heated and cooled parts by name.
        optics: Lasers and their beam.
    """

    def __init__(
        self,
        fluidics: Fluidics | None = None,
        plates: Mapping[str, Plate] | None = None,
        optics: Optics | None = None,
    ) -> None:
        self.fluidics = fluidics or Fluidics()
        self.plates = dict(plates or {})
        self.optics = optics or Optics()
        self.now_s = 0.0
        self._has_begun = False
        self._events: list[tuple[float, int, Event]] = []
        self._number = 0

    def at(self, at_s: float, action: Callable[[float], object]) -> Event:
        """Let something happen at a time, given that time; what is past happens at the next `advance`.

        Events of one time happen in the order in which they were planned.
        """
        event = Event(at_s, action)
        self._number += 1
        heapq.heappush(self._events, (at_s, self._number, event))
        return event

    def advance(self, now_s: float) -> None:
        """Move on to a time, event by event; a time that is past changes nothing."""
        while self._events and self._events[0][0] <= now_s:
            at_s, _, event = heapq.heappop(self._events)
            if event.action is not None:
                self._flow(at_s)
                event.action(self.now_s)
        self._flow(now_s)

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true at a time, by name of the part; units in the names."""
        self.advance(now_s)
        seen = self.fluidics.inspect() | self.optics.inspect(self.now_s)
        for name, plate in self.plates.items():
            seen |= {f"{name}.{key}": value for key, value in plate.inspect().items()}
        return seen

    def _flow(self, now_s: float) -> None:
        if not self._has_begun:
            self._has_begun = True
            for plate in self.plates.values():
                plate.begin(now_s)
        if now_s > self.now_s:
            self.now_s = now_s
        self.fluidics.advance(self.now_s)
        for plate in self.plates.values():
            plate.advance(self.now_s)


_FLUIDS = ("vessels", "selectors", "pipes", "syringes")
_OTHERS = ("plates", "lasers", "beam")


def make_world(description: Mapping[str, Mapping[str, Any]]) -> World:
    """Build a bench from tables, as they stand in a rack file.

    Besides those of `make_fluidics`::

        [plates.flow_cell]        ambient_c = 22.0, current_limit_a = 6.0      # fields of PlateSettings and Gains
        [lasers.green]            wavelength_nm = 532, rated_mw = 100
        [beam]                    filter = 0.9                                 # the share that each part lets through

    Raises:
        ValueError: a table, key or name is not known, or a value is no such thing.
    """
    for kind in description:
        if kind not in (*_FLUIDS, *_OTHERS):
            raise ValueError(f"expected {', '.join((*_FLUIDS, *_OTHERS))}; found {kind!r}")
    plates = {name: _plate(name, table) for name, table in description.get("plates", {}).items()}
    heads = [_head(name, table) for name, table in description.get("lasers", {}).items()]
    return World(
        make_fluidics({kind: description[kind] for kind in _FLUIDS if kind in description}),
        plates,
        Optics(heads, dict(description.get("beam", {}))),
    )


def _plate(name: str, table: Mapping[str, Any]) -> Plate:
    made_of, gains = ({field.name for field in fields(kind)} for kind in (PlateSettings, Gains))
    _only_numbers(f"plates.{name}", table, made_of | gains)
    return Plate(
        PlateSettings(**{key: float(value) for key, value in table.items() if key in made_of}),
        Gains(**{key: float(value) for key, value in table.items() if key in gains}),
    )


def _head(name: str, table: Mapping[str, Any]) -> LaserHead:
    _only_numbers(f"lasers.{name}", table, {"wavelength_nm", "rated_mw", "rise_s", "swing"})
    for key in ("wavelength_nm", "rated_mw"):
        if key not in table:
            raise ValueError(f"lasers.{name}.{key} is missing")
    return LaserHead(name, **{key: float(value) for key, value in table.items()})


def _only_numbers(name: str, table: Mapping[str, Any], known: set[str]) -> None:
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{name}: {key!r} is not known")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{name}.{key}: expected a number, found {value!r}")
