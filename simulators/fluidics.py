"""Fluids: bottles, valves, tubing, flow cells and syringes, as plugs of pure reagents that push one another on.

Everything is drawn or pushed by a syringe, through whatever path is open at the time: a *node* gives plugs (`pull`) or
takes them (`push`), and hands on what it does not hold itself. So a path is a chain of nodes that ends in a vessel::

    bottle 1 --+
    bottle 2 --+-- selector -- tube -- flow cell -- tube -- [pump valve] syringe
    bottle 3 --+                                            [pump valve] -- waste

Liquids do not mix here: a plug keeps its borders (plug flow), so the purity in a flow cell says how much of it was
replaced, not how well it was rinsed. Air counts as a reagent; an empty bottle gives air, and air that is pushed into a
vessel leaves through its vent.

Volumes are whole femtolitres, so that sums are exact and none is lost however often one looks. Times are those that
the caller says (`simulators.world`).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

AIR: Final = "air"
FL_PER_UL: Final = 10**9


def femtolitres(volume_ul: float) -> int:
    """Return a volume as whole femtolitres."""
    return round(volume_ul * FL_PER_UL)


@dataclass(frozen=True)
class Plug:
    """A piece of one pure reagent."""

    reagent: str
    volume_fl: int


def volume_of(plugs: Iterable[Plug]) -> int:
    """Return the volume of plugs together, in femtolitres."""
    return sum(plug.volume_fl for plug in plugs)


class Column:
    """Plugs in a row between two ends, the near and the far one. Lists of plugs are in the order in which they pass."""

    def __init__(self, plugs: Iterable[Plug] = ()) -> None:
        self._plugs: deque[Plug] = deque()
        self.volume_fl = 0
        self.add_far(plugs)

    def add_near(self, plugs: Iterable[Plug]) -> None:
        """Push plugs in at the near end."""
        for plug in plugs:
            if self._plugs and self._plugs[0].reagent == plug.reagent:
                plug_there = self._plugs.popleft()
                self._plugs.appendleft(Plug(plug.reagent, plug_there.volume_fl + plug.volume_fl))
            elif plug.volume_fl:
                self._plugs.appendleft(plug)
            self.volume_fl += plug.volume_fl

    def add_far(self, plugs: Iterable[Plug]) -> None:
        """Push plugs in at the far end."""
        self._plugs.reverse()
        self.add_near(plugs)
        self._plugs.reverse()

    def take_near(self, volume_fl: int) -> list[Plug]:
        """Take a volume out at the near end. Raises `ValueError` where it holds less."""
        if not 0 <= volume_fl <= self.volume_fl:
            raise ValueError(f"cannot take {volume_fl} fl of {self.volume_fl} fl")
        taken = []
        self.volume_fl -= volume_fl
        while volume_fl:
            plug = self._plugs.popleft()
            if plug.volume_fl > volume_fl:
                self._plugs.appendleft(Plug(plug.reagent, plug.volume_fl - volume_fl))
                plug = Plug(plug.reagent, volume_fl)
            taken.append(plug)
            volume_fl -= plug.volume_fl
        return taken

    def take_far(self, volume_fl: int) -> list[Plug]:
        """Take a volume out at the far end. Raises `ValueError` where it holds less."""
        self._plugs.reverse()
        try:
            return self.take_near(volume_fl)
        finally:
            self._plugs.reverse()

    def plugs(self) -> list[Plug]:
        """What it holds, from the near end to the far one."""
        return list(self._plugs)

    def volumes_fl(self) -> Counter[str]:
        """How much of each reagent it holds."""
        volumes: Counter[str] = Counter()
        for plug in self._plugs:
            volumes[plug.reagent] += plug.volume_fl
        return volumes


class Node(Protocol):
    """Something that liquid can be drawn from and pushed into."""

    name: str

    @property
    def is_open(self) -> bool:
        """Whether liquid can move; a closed node must be neither drawn from nor pushed into."""

    def pull(self, volume_fl: int) -> list[Plug]:
        """Draw a volume, in the order in which it comes."""

    def push(self, plugs: list[Plug]) -> None:
        """Push plugs in, in their order."""


class Vessel:
    """A bottle or a waste can, open to the air, with a tube that reaches its bottom.

    What is pushed back lies at the tube's mouth and is drawn first again.

    Args:
        name: What it is called.
        reagent: What is in it.
        volume_ul: How much of it.
    """

    def __init__(self, name: str, reagent: str = AIR, volume_ul: float = 0.0) -> None:
        self.name = name
        self.column = Column([Plug(reagent, femtolitres(volume_ul))])
        #: Liquid that was ever drawn out of it.
        self.drawn_fl = 0
        #: Air that came in through the vent and was drawn, less the air that left through it.
        self.air_fl = 0

    is_open = True

    def pull(self, volume_fl: int) -> list[Plug]:
        """Draw a volume; once it is empty, air."""
        plugs = self.column.take_near(min(volume_fl, self.column.volume_fl))
        self.drawn_fl += volume_of(plugs)
        missing_fl = volume_fl - volume_of(plugs)
        self.air_fl += missing_fl
        return [*plugs, Plug(AIR, missing_fl)] if missing_fl else plugs

    def push(self, plugs: list[Plug]) -> None:
        """Take liquid in; air bubbles up and leaves."""
        for plug in plugs:
            if plug.reagent == AIR:
                self.air_fl -= plug.volume_fl
            else:
                self.column.add_near([plug])


@dataclass(frozen=True)
class Filling:
    """What stands in a tube or a flow cell.

    Attributes:
        reagent: That of which there is most.
        purity: Its share of the volume.
    """

    reagent: str
    purity: float


class Pipe:
    """A tube or a flow cell: always full, what comes in at one end drives the same volume out at the other.

    Args:
        name: What it is called.
        volume_ul: Its inner volume.
        far: Where its far end leads; the near end is the syringe's side.
        reagent: What it is filled with.
    """

    def __init__(self, name: str, volume_ul: float, far: Node, reagent: str = AIR) -> None:
        self.name = name
        self.far = far
        self.column = Column([Plug(reagent, femtolitres(volume_ul))])

    @property
    def is_open(self) -> bool:
        """As its far end."""
        return self.far.is_open

    def pull(self, volume_fl: int) -> list[Plug]:
        """Draw a volume out of the near end."""
        self.column.add_far(self.far.pull(volume_fl))
        return self.column.take_near(volume_fl)

    def push(self, plugs: list[Plug]) -> None:
        """Push plugs into the near end."""
        self.column.add_near(plugs)
        self.far.push(self.column.take_far(volume_of(plugs)))

    def filling(self) -> Filling:
        """What stands in it; of two equal shares, the reagent that comes first by name."""
        volumes_fl = self.column.volumes_fl()
        reagent = min(volumes_fl, key=lambda name: (-volumes_fl[name], name))
        return Filling(reagent, volumes_fl[reagent] / self.column.volume_fl)


class Selector:
    """A valve that connects one of several inlets; between two positions, and at a port with nothing on it, none.

    Args:
        name: What it is called.
        inlets: What is at each port, from 1.
        port: Where it stands.
    """

    def __init__(self, name: str, inlets: Mapping[int, Node], port: int | None = 1) -> None:
        self.name = name
        self.inlets = dict(inlets)
        self.port = port

    @property
    def is_open(self) -> bool:
        """Whether it stands at a port with an open inlet."""
        return self.port in self.inlets and self.inlets[self.port].is_open

    def pull(self, volume_fl: int) -> list[Plug]:
        """Draw from the inlet that is connected."""
        return self._connected().pull(volume_fl)

    def push(self, plugs: list[Plug]) -> None:
        """Push into the inlet that is connected."""
        self._connected().push(plugs)

    def _connected(self) -> Node:
        if self.port is None or self.port not in self.inlets:
            raise ValueError(f"{self.name} is closed")
        return self.inlets[self.port]


@dataclass(frozen=True)
class Speeds:
    """How a plunger moves: it starts at one speed, is accelerated to the top speed, and slows down to the last one.

    Attributes:
        top_ul_per_s: Greatest speed.
        start_ul_per_s: Speed of the first step.
        end_ul_per_s: Speed of the last step.
        slope_ul_per_s2: Acceleration and deceleration; infinite for none.
    """

    top_ul_per_s: float
    start_ul_per_s: float = math.inf
    end_ul_per_s: float = math.inf
    slope_ul_per_s2: float = math.inf


class Stroke:
    """One move of a plunger, as a function of time.

    Args:
        begin_ul: Volume in the barrel at its begin.
        end_ul: Volume at its end.
        begin_s: When it begins.
        speeds: How it moves.
    """

    def __init__(self, begin_ul: float, end_ul: float, begin_s: float, speeds: Speeds) -> None:
        self.begin_ul = begin_ul
        self.target_ul = end_ul
        self.begin_s = begin_s
        way = abs(end_ul - begin_ul)
        self._sign = math.copysign(1.0, end_ul - begin_ul)
        first, last = min(speeds.start_ul_per_s, speeds.top_ul_per_s), min(speeds.end_ul_per_s, speeds.top_ul_per_s)
        slope = speeds.slope_ul_per_s2
        if math.isinf(slope):
            first = last = speeds.top_ul_per_s
        # Phases of constant acceleration: way, speed at the begin, acceleration.
        two_slopes_way = 2 * slope * way
        if math.isinf(slope) or way == 0:
            self._phases = [(way, speeds.top_ul_per_s, 0.0)]
        elif two_slopes_way <= last**2 - first**2:
            self._phases = [(way, first, slope)]
        elif two_slopes_way <= first**2 - last**2:
            self._phases = [(way, first, -slope)]
        else:
            peak = min(speeds.top_ul_per_s, math.sqrt((two_slopes_way + first**2 + last**2) / 2))
            faster, slower = (peak**2 - first**2) / (2 * slope), (peak**2 - last**2) / (2 * slope)
            self._phases = [(faster, first, slope), (way - faster - slower, peak, 0.0), (slower, peak, -slope)]
        self.end_s = begin_s + sum(_duration_s(*phase) for phase in self._phases)

    def volume_ul(self, now_s: float) -> float:
        """The volume in the barrel at a time; before the begin and after the end, that of these."""
        if now_s >= self.end_s:
            return self.target_ul
        left_s, way = max(0.0, now_s - self.begin_s), 0.0
        for length, speed, slope in self._phases:
            duration_s = _duration_s(length, speed, slope)
            if left_s < duration_s:
                way += min(length, speed * left_s + slope * left_s**2 / 2)
                break
            way += length
            left_s -= duration_s
        low, high = sorted((self.begin_ul, self.target_ul))
        return min(high, max(low, self.begin_ul + self._sign * way))

    def speed_ul_per_s(self, now_s: float) -> float:
        """Its speed at a time, without its direction."""
        left_s = now_s - self.begin_s
        if left_s < 0 or now_s >= self.end_s:
            return 0.0
        for length, speed, slope in self._phases:
            duration_s = _duration_s(length, speed, slope)
            if left_s < duration_s:
                return speed + slope * left_s
            left_s -= duration_s
        return 0.0


def _duration_s(way: float, speed: float, slope: float) -> float:
    if way <= 0:
        return 0.0
    if slope == 0:
        return way / speed
    return 2 * way / (speed + math.sqrt(max(0.0, speed**2 + 2 * slope * way)))


class Syringe:
    """A barrel with a plunger, and a valve at its head. What was drawn last leaves first.

    Args:
        name: What it is called.
        barrel_ul: Volume of the full stroke.
        ports: What is at each port of its valve.
        port: The port that is connected.
    """

    def __init__(self, name: str, barrel_ul: float, ports: Mapping[str, Node], port: str | None = None) -> None:
        self.name = name
        self.barrel_ul = barrel_ul
        self.ports = dict(ports)
        self.port = port
        self.column = Column()
        #: Whether the last stroke came to a halt before its target: at an end of the barrel, where the path was closed,
        #: or where the plunger sticks.
        self.stalled = False
        #: Where the plunger sticks, whichever way it passes; nothing for nowhere.
        self.sticks_at_ul: float | None = None
        self._stroke: Stroke | None = None

    @property
    def volume_ul(self) -> float:
        """What is in the barrel, as of the last `advance`."""
        return self.column.volume_fl / FL_PER_UL

    @property
    def stroke(self) -> Stroke | None:
        """The stroke that is under way, as of the last `advance`."""
        return self._stroke

    def move(self, target_ul: float, now_s: float, speeds: Speeds) -> float:
        """Begin a stroke and return when it will end; a target beyond the barrel is an end that it runs against."""
        self.advance(now_s)
        self.stalled = False
        self._stroke = Stroke(self.volume_ul, target_ul, now_s, speeds)
        return self._stroke.end_s

    def stop(self, now_s: float) -> float:
        """Stop the plunger where it is and return how fast it was, in ul/s."""
        self.advance(now_s)
        speed = self._stroke.speed_ul_per_s(now_s) if self._stroke is not None else 0.0
        self._stroke = None
        return speed

    def advance(self, now_s: float) -> None:
        """Move the plunger, and the liquid with it, to where it is at a time."""
        stroke = self._stroke
        if stroke is None:
            return
        wanted_ul = stroke.volume_ul(now_s)
        reach_ul = min(self.barrel_ul, max(0.0, wanted_ul))
        if self.sticks_at_ul is not None:
            low_ul, high_ul = sorted((self.volume_ul, reach_ul))
            if low_ul <= self.sticks_at_ul <= high_ul:
                reach_ul = self.sticks_at_ul
        moved = self._displace(femtolitres(reach_ul) - self.column.volume_fl)
        if not moved or reach_ul != wanted_ul:
            self.stalled = True
            self._stroke = None
        elif now_s >= stroke.end_s:
            self._stroke = None

    def _displace(self, change_fl: int) -> bool:
        """Draw or push a volume; return False where the path is closed."""
        if change_fl == 0:
            return True
        node = self.ports.get(self.port) if self.port is not None else None
        if node is None or not node.is_open:
            return False
        if change_fl > 0:
            self.column.add_near(node.pull(change_fl))
        else:
            node.push(self.column.take_near(-change_fl))
        return True


class Fluidics:
    """All fluids of a bench.

    Args:
        vessels: Bottles and waste cans.
        pipes: Tubing and flow cells.
        selectors: Selector valves.
        syringes: Syringes.
    """

    def __init__(
        self,
        vessels: Iterable[Vessel] = (),
        pipes: Iterable[Pipe] = (),
        selectors: Iterable[Selector] = (),
        syringes: Iterable[Syringe] = (),
    ) -> None:
        self.vessels = {vessel.name: vessel for vessel in vessels}
        self.pipes = {pipe.name: pipe for pipe in pipes}
        self.selectors = {selector.name: selector for selector in selectors}
        self.syringes = {syringe.name: syringe for syringe in syringes}

    def advance(self, now_s: float) -> None:
        """Let every syringe move up to a time; no valve may turn in between."""
        for syringe in self.syringes.values():
            syringe.advance(now_s)

    def volumes_fl(self) -> Counter[str]:
        """How much there is of each reagent in all; of air, what came in through the vents is taken off.

        Never changes, whatever is moved.
        """
        total: Counter[str] = Counter()
        columns = [
            node.column for kind in (self.vessels, self.pipes, self.syringes) for node in kind.values()
        ]  # fmt: skip
        for column in columns:
            total.update(column.volumes_fl())
        total[AIR] -= sum(vessel.air_fl for vessel in self.vessels.values())
        return total

    def inspect(self) -> dict[str, float | str | bool]:
        """What is where, as of the last `advance`."""
        seen: dict[str, float | str | bool] = {}
        for name, vessel in self.vessels.items():
            seen[f"{name}.volume_ul"] = vessel.column.volume_fl / FL_PER_UL
            seen[f"{name}.drawn_ul"] = vessel.drawn_fl / FL_PER_UL
        for name, pipe in self.pipes.items():
            filling = pipe.filling()
            seen[f"{name}.reagent"] = filling.reagent
            seen[f"{name}.purity"] = filling.purity
        for name, selector in self.selectors.items():
            seen[f"{name}.port"] = selector.port or 0
        for name, syringe in self.syringes.items():
            seen[f"{name}.volume_ul"] = syringe.volume_ul
            seen[f"{name}.port"] = syringe.port or ""
        return seen


def make_fluidics(description: Mapping[str, Mapping[str, Mapping[str, object]]]) -> Fluidics:
    """Build a bench's fluids from tables, as they stand in a rack file.

    ::

        [vessels.scan]            reagent = "scan mix", volume_ul = 50000
        [vessels.waste]
        [selectors.inlets]        ports = { 1 = "scan", 2 = "wash" }, port = 1
        [pipes.flow_cell]         volume_ul = 60, far = "inlets", reagent = "wash"
        [syringes.pump]           barrel_ul = 250, ports = { I = "flow_cell", O = "waste" }, port = "I"

    Args:
        description: The tables `vessels`, `selectors`, `pipes` and `syringes`, each by name.

    Raises:
        ValueError: a table, key or name is not known, or a value is no such thing.
    """
    known = {
        "vessels": {"reagent", "volume_ul"},
        "selectors": {"ports", "port"},
        "pipes": {"volume_ul", "far", "reagent"},
        "syringes": {"barrel_ul", "ports", "port"},
    }
    where: dict[str, tuple[str, Mapping[str, object]]] = {}
    for kind, tables in description.items():
        if kind not in known:
            raise ValueError(f"expected {', '.join(known)}; found {kind!r}")
        for name, table in tables.items():
            if name in where:
                raise ValueError(f"{kind}.{name}: there is a {where[name][0]}.{name} already")
            if unknown := set(table) - known[kind]:
                raise ValueError(f"{kind}.{name}: {sorted(unknown)[0]!r} is not known")
            where[name] = (kind, table)
    made: dict[str, Vessel | Selector | Pipe] = {}
    making: list[str] = []

    def node(name: str) -> Vessel | Selector | Pipe:
        if name in made:
            return made[name]
        if name not in where or where[name][0] == "syringes":
            raise ValueError(f"{name!r} is no vessel, selector or pipe")
        if name in making:
            raise ValueError(f"{' -> '.join([*making, name])} leads in a circle")
        making.append(name)
        kind, table = where[name]
        if kind == "vessels":
            volume_ul = _number(name, table, "volume_ul", 0.0)
            made[name] = Vessel(name, str(table.get("reagent", name)), volume_ul)
        elif kind == "selectors":
            inlets = {int(port): node(inlet) for port, inlet in _names(name, table, "ports").items()}
            made[name] = Selector(name, inlets, int(_number(name, table, "port", 1)))
        else:
            volume_ul = _number(name, table, "volume_ul")
            if volume_ul <= 0:
                raise ValueError(f"{name}.volume_ul: expected more than 0, found {volume_ul}")
            made[name] = Pipe(name, volume_ul, node(str(table.get("far"))), str(table.get("reagent", AIR)))
        making.pop()
        return made[name]

    syringes = []
    for name, (kind, table) in where.items():
        if kind == "syringes":
            ports = {port: node(there) for port, there in _names(name, table, "ports").items()}
            barrel_ul = _number(name, table, "barrel_ul")
            if barrel_ul <= 0:
                raise ValueError(f"{name}.barrel_ul: expected more than 0, found {barrel_ul}")
            syringes.append(Syringe(name, barrel_ul, ports, str(table["port"]) if "port" in table else None))
        else:
            node(name)
    nodes = list(made.values())
    return Fluidics(
        [one for one in nodes if isinstance(one, Vessel)],
        [one for one in nodes if isinstance(one, Pipe)],
        [one for one in nodes if isinstance(one, Selector)],
        syringes,
    )


def _number(name: str, table: Mapping[str, object], key: str, default: float | None = None) -> float:
    value = table.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}.{key}: expected a number of at least 0, found {value!r}")
    return float(value)


def _names(name: str, table: Mapping[str, object], key: str) -> dict[str, str]:
    value = table.get(key)
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}.{key}: expected a table of ports, found {value!r}")
    return {str(port): str(there) for port, there in value.items()}
