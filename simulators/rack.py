"""A rack of simulated devices: from a file to open ports, with a channel to look in and to disturb them.

A rack file (TOML) lists devices and where each is served::

    speed = 1.0                     # simulated seconds per second, optional
    control_port = 0                # of the control channel; 0, the default: any that is free

    [[device]]
    name = "stage"
    kind = "asi"
    tcp = 4001                      # a port of this machine; 0: any that is free
    baud_rate = 115200              # every byte takes its time; 0, the default: none
    settings = {controller = "tiger"}

      [[device.fault]]              # of the line or of the device: `simulators.faults`
      fault = "drop"
      on_command = 3

    [[device]]
    name = "focus"
    kind = "zaber"
    shares = "stage"                # the line of another device
    settings = {address = 2, travel_um = [20000.0]}

    [[device]]
    name = "x"
    kind = "mdrive"
    pty = "/tmp/x"                  # a terminal with a link to it; "": a terminal alone

A device with two ports has an address for each: ``tcp = {commands = 4002, answers = 4003}``.

The control channel takes a JSON object a line over TCP on loopback, and answers each with one::

    {"do": "list"}
    {"do": "inspect", "device": "stage"}
    {"do": "inspect"}               # the bench behind the devices: fluids, heat and light
    {"do": "inject", "device": "stage", "fault": "stall", "values": {"axis": "X", "position_um": 1500}}
    {"do": "clear", "device": "stage"}
    {"do": "schedule", "device": "stage", "faults": [{"fault": "drop", "on_command": 3}]}

``ok`` tells whether it was done; if not, ``error`` tells why. A schedule replaces that of the device's line, and its
times count from the moment of the request.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final

from cartoseq.simulators.devices.arm9chem import Arm9ChemSim
from cartoseq.simulators.devices.asi import AsiSim
from cartoseq.simulators.devices.cavro import CavroSim
from cartoseq.simulators.devices.cobolt import CoboltSim
from cartoseq.simulators.devices.hiseqfpga import HiseqFpgaSim
from cartoseq.simulators.devices.mdrive import MDriveSim
from cartoseq.simulators.devices.meerstetter import MeerstetterSim
from cartoseq.simulators.devices.obis import ObisSim
from cartoseq.simulators.devices.pm100 import Pm100Sim
from cartoseq.simulators.devices.prior import PriorSim
from cartoseq.simulators.devices.pulsegenerator import PulseGeneratorSim
from cartoseq.simulators.devices.smdlaser import SmdLaserSim
from cartoseq.simulators.devices.vici import ViciSim
from cartoseq.simulators.devices.vix import VixSim
from cartoseq.simulators.devices.zaber import ZaberSim
from cartoseq.simulators.faults import LINK_FAULTS, FaultyLine, read_script
from cartoseq.simulators.hosts import PtyHost, TcpHost
from cartoseq.simulators.wire import Bus, ByteServer, SimulatedDevice
from cartoseq.simulators.world import World, make_world

#: What can stand in a rack: kind, and what makes one from its name and settings. A setting that is another device is
#: given by that device's name. A device with several ports has them as `ports`: name of the port, byte server.
KINDS: Final[dict[str, Callable[..., SimulatedDevice]]] = {
    "arm9chem": Arm9ChemSim,
    "asi": AsiSim,
    "cavro": CavroSim,
    "cobolt": CoboltSim,
    "hiseq-fpga": HiseqFpgaSim,
    "mdrive": MDriveSim,
    "meerstetter": MeerstetterSim,
    "obis": ObisSim,
    "pm100": Pm100Sim,
    "prior": PriorSim,
    "pulse-generator": PulseGeneratorSim,
    "smd-laser": SmdLaserSim,
    "vici": ViciSim,
    "vix": VixSim,
    "zaber": ZaberSim,
}

_RACK_KEYS: Final = {"speed", "control_port", "world", "device"}
_DEVICE_KEYS: Final = {"name", "kind", "settings", "tcp", "pty", "shares", "baud_rate", "command_ends", "fault"}
_LONGEST_REQUEST: Final = 1 << 16


class RackError(ValueError):
    """A rack file that is not understood.

    Args:
        path: The way to what is at fault: keys, and numbers in lists, from 0.
        problem: What was expected and what was found.
    """

    def __init__(self, path: Sequence[str | int], problem: str) -> None:
        self.path = tuple(path)
        self.problem = problem
        super().__init__(problem)


@dataclass
class RackLine:
    """One line and where it is served.

    Attributes:
        name: That of its first device; with several ports, ``device.port``.
        server: What is on it.
        devices: Names of the devices on it.
        tcp: Its port, or none.
        pty: Where its terminal's link is; empty for no link; none if it is no terminal.
        baud_rate: Bits per second; 0 takes no time.
        host: What serves it, while the rack is served.
    """

    name: str
    server: FaultyLine
    devices: list[str]
    tcp: int | None
    pty: str | None
    baud_rate: int
    host: TcpHost | PtyHost | None = None

    @property
    def address(self) -> str:
        """What a driver opens."""
        if isinstance(self.host, TcpHost):
            return f"tcp://{self.host.host}:{self.host.port}"
        return self.host.path if self.host is not None else ""


@dataclass
class Rack:
    """Devices and their lines; `build` makes it, `serve` opens the ports.

    Attributes:
        devices: By name.
        lines: By name; in memory, `hosts.MemoryHost` serves ``lines[name].server``.
        speed: Simulated seconds per second.
        control_port: Of the control channel; once it is served, the one that it has.
        world: The bench that the devices act on.
    """

    devices: dict[str, SimulatedDevice]
    lines: dict[str, RackLine]
    speed: float = 1.0
    control_port: int = 0
    world: World = field(default_factory=World)
    _control: asyncio.Server | None = field(default=None, repr=False)
    _clients: set[asyncio.StreamWriter] = field(default_factory=set, repr=False)

    async def serve(self) -> None:
        """Open every port, and the control channel.

        Raises:
            RackError: one cannot be opened.
        """
        try:
            for line in self.lines.values():
                await self._serve_line(line)
            for line in self.lines.values():
                self._introduce(line)
            try:
                self._control = await asyncio.start_server(
                    self._talk, "127.0.0.1", self.control_port, limit=_LONGEST_REQUEST
                )
            except (OSError, OverflowError) as error:
                raise RackError(["control_port"], f"port {self.control_port} cannot be opened: {error}") from error
            self.control_port = self._control.sockets[0].getsockname()[1]
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close every port."""
        if self._control is not None:
            self._control.close()
            for client in list(self._clients):
                client.close()
            await self._control.wait_closed()
            self._control = None
        for line in self.lines.values():
            if line.host is not None:
                await line.host.close()
                line.host = None

    def request(self, request: object, now_s: float) -> dict[str, object]:
        """Answer a request of the control channel; see the module's list.

        Args:
            request: As it came, decoded.
            now_s: The simulated time.
        """
        try:
            answer = self._carry_out(request, now_s)
        except ValueError as error:
            return {"ok": False, "error": str(error)}
        return {"ok": True, **answer}

    def _carry_out(self, request: object, now_s: float) -> dict[str, object]:
        if not isinstance(request, dict):
            raise ValueError("expected a JSON object")
        what = request.get("do")
        wanted = {"list": set(), "inspect": {"device"}, "clear": {"device"}}.get(str(what))
        if what in ("inject", "schedule"):
            wanted = {"device", "fault", "values"} if what == "inject" else {"device", "faults"}
        if wanted is None:
            raise ValueError(f"expected do = list, inspect, inject, clear or schedule, found {what!r}")
        if unknown := set(request) - wanted - {"do"}:
            raise ValueError(f"{what} takes no {', '.join(sorted(unknown))}")
        if what == "list":
            return {"devices": {name: self._about(name) for name in self.devices}}
        if what == "inspect" and "device" not in request:
            return {"time_s": now_s, "truth": self.world.inspect(now_s)}
        name = request.get("device")
        lines = [line for line in self.lines.values() if name in line.devices or line.name == name]
        if not lines:
            raise ValueError(f"no device {name!r}; there are {', '.join(self.devices)}")
        device = self.devices.get(str(name))
        match what:
            case "inspect":
                return {"time_s": now_s, "truth": device.inspect(now_s) if device is not None else {}}
            case "clear":
                for one in lines:
                    one.server.clear(now_s)
                if device is not None:
                    device.clear(now_s)
            case "inject":
                # Replies are what is spoilt: of a device with several ports, its last carries them.
                self._inject(request.get("fault"), request.get("values", {}), device, lines[-1], now_s)
            case _:
                faults = request.get("faults")
                if not isinstance(faults, list):
                    raise ValueError(f"expected faults = a list, found {faults!r}")
                lines[0].server.schedule(read_script(faults), now_s)
        for one in self.lines.values():
            if one.host is not None:
                one.host.look()
        return {}

    def _inject(
        self, fault: object, values: object, device: SimulatedDevice | None, line: RackLine, now_s: float
    ) -> None:
        if not isinstance(fault, str) or not isinstance(values, dict):
            raise ValueError(f"expected fault = a name and values = an object, found {fault!r} and {values!r}")
        if fault in LINK_FAULTS:
            line.server.inject(fault, now_s, **values)
        elif device is not None:
            device.inject(fault, now_s, **values)
        else:
            raise ValueError(f"the line knows no fault {fault!r}; it knows {', '.join(LINK_FAULTS)}")

    def _about(self, name: str) -> dict[str, object]:
        lines = [line for line in self.lines.values() if name in line.devices]
        return {"addresses": {line.name: line.address for line in lines}, "faults": self.devices[name].faults}

    async def _serve_line(self, line: RackLine) -> None:
        if line.pty is not None:
            link = Path(line.pty) if line.pty else None
            host: TcpHost | PtyHost = PtyHost(line.server, link=link, speed=self.speed, baud_rate=line.baud_rate)
        else:
            host = TcpHost(line.server, port=line.tcp or 0, speed=self.speed, baud_rate=line.baud_rate)
        try:
            await host.start()
        except (OSError, OverflowError) as error:
            place = line.pty if line.pty is not None else f"port {line.tcp}"
            raise RackError(["device", line.name], f"{line.name}: {place} cannot be opened: {error}") from error
        line.host = host

    def _introduce(self, line: RackLine) -> None:
        """Let the ports of one device look at each other's news."""
        for other in self.lines.values():
            if other is not line and set(other.devices) & set(line.devices) and line.host and other.host:
                line.host.siblings.append(other.host)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while text := await reader.readline():
                try:
                    request = json.loads(text)
                except ValueError as error:
                    answer: dict[str, object] = {"ok": False, "error": f"no JSON: {error}"}
                else:
                    answer = self.request(request, asyncio.get_running_loop().time() * self.speed)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ValueError, OSError):  # a line that is too long, or a client that is gone
            pass
        finally:
            self._clients.discard(writer)
            writer.close()


def build(content: Mapping[str, Any], *, start_s: float = 0.0) -> Rack:
    """Make the rack that a file describes; nothing is opened yet.

    Args:
        content: The file, as `tomllib` reads it.
        start_s: The simulated time from which the faults' times count.

    Raises:
        RackError: it is not understood.
    """
    _known(content, _RACK_KEYS, [])
    speed = content.get("speed", 1.0)
    if not _is(speed, float) or not 0 < speed < 1e6:
        raise RackError(["speed"], f"speed is a number above 0, found {speed!r}")
    control_port = _port(content.get("control_port", 0), ["control_port"])
    entries = content.get("device")
    if not isinstance(entries, list) or not entries:
        raise RackError(["device"], "expected at least one table [[device]]")
    world = _world(content.get("world", {}))
    devices: dict[str, SimulatedDevice] = {}
    shared: dict[str, list[str]] = {}
    for number, entry in enumerate(entries):
        path: list[str | int] = ["device", number]
        if not isinstance(entry, dict):
            raise RackError(path, f"expected a table, found {entry!r}")
        _known(entry, _DEVICE_KEYS, path)
        name = entry.get("name")
        if not isinstance(name, str) or not name or "." in name:
            raise RackError([*path, "name"], f"expected a name without a point, found {name!r}")
        if name in devices:
            raise RackError([*path, "name"], f"there is a device {name!r} already")
        devices[name] = _make(entry, name, devices, world, path)
        _place(entry, name, devices[name], shared, path)
    lines: dict[str, RackLine] = {}
    for number, entry in enumerate(entries):
        if entry["name"] in shared:
            own = _lines_of(entry, devices, shared[entry["name"]], ["device", number])
            _schedule(own[0].server, own[0].devices, entries, start_s)
            lines.update({line.name: line for line in own})
    return Rack(devices, lines, float(speed), control_port, world)


def _world(tables: object) -> World:
    """Make the bench that the rack's devices act on."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise RackError(["world"], f"expected tables, found {tables!r}")
    try:
        return make_world(tables)
    except (ValueError, AttributeError, TypeError) as error:
        raise RackError(["world"], str(error)) from error


def _make(
    entry: Mapping[str, Any],
    name: str,
    devices: Mapping[str, SimulatedDevice],
    world: World,
    path: Sequence[str | int],
) -> SimulatedDevice:
    """Make one device from its table."""
    kind = entry.get("kind")
    if kind not in KINDS:
        raise RackError([*path, "kind"], f"no kind of device {kind!r}; there are {', '.join(sorted(KINDS))}")
    settings = entry.get("settings", {})
    path = [*path, "settings"]
    if not isinstance(settings, dict):
        raise RackError(path, f"expected a table, found {settings!r}")
    parameters = list(inspect.signature(KINDS[kind], eval_str=True).parameters.values())
    known = {
        parameter.name: parameter.annotation for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }
    given = {}
    for key, value in settings.items():
        if key not in known:
            raise RackError([*path, key], f"{kind} has no setting {key}; it has {', '.join(known) or 'none'}")
        given[key] = _setting(key, value, known[key], devices, [*path, key])
    # What moves fluid, heat or light acts on the rack's one bench.
    bench = [world] if any(parameter.name == "world" for parameter in parameters) else []
    try:
        return KINDS[kind](name, *bench, **given)
    except TypeError as error:
        raise RackError(path, f"{kind}: {str(error).partition('() ')[2] or error}") from error
    except ValueError as error:
        raise RackError(path, str(error)) from error


def _setting(
    key: str, value: object, wanted: Any, devices: Mapping[str, SimulatedDevice], path: Sequence[str | int]
) -> object:
    """Return a setting as its device wants it, or refuse it."""
    options = typing.get_args(wanted) if typing.get_origin(wanted) in (typing.Union, UnionType) else (wanted,)
    for option in options:
        origin, arguments = typing.get_origin(option) or option, typing.get_args(option)
        if option is NoneType:
            continue
        if origin is typing.Literal:
            if value in arguments:
                return value
        elif origin is Sequence or origin is list or origin is tuple:
            if isinstance(value, list):
                inner = arguments[0]
                return [_setting(key, one, inner, devices, [*path, place]) for place, one in enumerate(value)]
        elif origin is Mapping or origin is dict:
            if isinstance(value, dict):
                inner = arguments[1]
                return {name: _setting(key, one, inner, devices, [*path, name]) for name, one in value.items()}
        elif origin in (bool, int, float, str):
            if _is(value, origin):
                return float(value) if origin is float and isinstance(value, int) else value
        elif isinstance(value, str) and value in devices and isinstance(devices[value], origin):
            return devices[value]
    raise RackError(path, f"{key} is {_spoken(options)}, found {value!r}")


def _is(value: object, kind: type) -> typing.TypeGuard[Any]:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _spoken(options: Sequence[Any]) -> str:
    words: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    spoken = []
    for option in options:
        origin = typing.get_origin(option) or option
        if origin is typing.Literal:
            spoken.append(" or ".join(str(choice) for choice in typing.get_args(option)))
        elif origin in (Sequence, list, tuple):
            spoken.append("a list")
        elif origin in (Mapping, dict):
            spoken.append("a table")
        elif origin is not NoneType:
            spoken.append(words.get(origin) or f"the name of a device of kind {getattr(origin, '__name__', origin)}")
    return " or ".join(spoken)


def _place(
    entry: Mapping[str, Any],
    name: str,
    device: SimulatedDevice,
    shared: dict[str, list[str]],
    path: Sequence[str | int],
) -> None:
    """Note on whose line a device is: `shared` has the owner of each line, and who is on it."""
    where = [key for key in ("tcp", "pty", "shares") if key in entry]
    if len(where) != 1:
        raise RackError(path, f"{name}: expected one of tcp, pty, shares, found {' and '.join(where) or 'none'}")
    if where == ["shares"]:
        owner = entry["shares"]
        if owner not in shared:
            raise RackError([*path, "shares"], f"no device {owner!r} with a line of its own stands before this one")
        for key in ("baud_rate", "command_ends"):
            if key in entry:
                raise RackError([*path, key], f"{key} belongs to {owner}, whose line it is")
        if getattr(device, "ports", None):
            raise RackError([*path, "shares"], f"{name} has several ports and shares no line")
        shared[owner].append(name)
    else:
        shared[name] = [name]


def _lines_of(
    entry: Mapping[str, Any],
    devices: Mapping[str, SimulatedDevice],
    members: Sequence[str],
    path: Sequence[str | int],
) -> list[RackLine]:
    """The lines of a device that has its own: one, or one for each port."""
    name = str(entry["name"])
    ports: Mapping[str, ByteServer] = getattr(devices[name], "ports", {})
    if ports and len(members) > 1:
        raise RackError(path, f"{name} has several ports and shares no line")
    servers = ports or {"": devices[name] if len(members) == 1 else Bus([devices[member] for member in members])}
    key = "tcp" if "tcp" in entry else "pty"
    places = entry[key] if ports else {"": entry[key]}
    if not isinstance(places, dict) or set(places) != set(servers):
        raise RackError(
            [*path, key], f"{name} has the ports {', '.join(ports)}: expected {key} = {{port = ...}} for each"
        )
    baud_rate = entry.get("baud_rate", 0)
    if not _is(baud_rate, int) or baud_rate < 0:
        raise RackError([*path, "baud_rate"], f"baud_rate is a whole number from 0 on, found {baud_rate!r}")
    command_ends = entry.get("command_ends", "\r\n")
    if not isinstance(command_ends, str) or not command_ends or not command_ends.isascii():
        raise RackError([*path, "command_ends"], f"command_ends is a text of ASCII characters, found {command_ends!r}")
    lines: list[RackLine] = []
    # The last port carries the replies, the first hears the commands; so the last is made first.
    for port, server in reversed(list(servers.items())):
        place: list[str | int] = [*path, key, port] if ports else [*path, key]
        tcp = _port(places[port], place) if key == "tcp" else None
        if key == "pty" and not isinstance(places[port], str):
            raise RackError(place, f"pty is the path of a link, or empty, found {places[port]!r}")
        faulty = FaultyLine(
            server,
            devices=[devices[member] for member in members],
            command_ends=command_ends.encode(),
            answers=lines[0].server if lines else None,
        )
        line_name = f"{name}.{port}" if port else name
        lines.append(RackLine(line_name, faulty, list(members), tcp, places[port] if tcp is None else None, baud_rate))
    return lines[::-1]


def _schedule(line: FaultyLine, members: Sequence[str], entries: Sequence[Mapping[str, Any]], start_s: float) -> None:
    """Give a line the faults of its devices."""
    rules = []
    for number, entry in enumerate(entries):
        tables = entry.get("fault", []) if entry["name"] in members else []
        if not isinstance(tables, list):
            raise RackError(["device", number, "fault"], "expected tables [[device.fault]]")
        for place, table in enumerate(tables):
            try:
                (rule,) = read_script([table])
                rule.device = entry["name"]
                line.check(rule)
            except ValueError as error:
                problem = str(error).removeprefix("fault 1: ").removeprefix("fault 1 ")
                raise RackError(["device", number, "fault", place], problem) from error
            rules.append(rule)
    line.schedule(rules, start_s)


def _known(table: Mapping[str, Any], keys: set[str], path: Sequence[str | int]) -> None:
    for key in table:
        if key not in keys:
            raise RackError([*path, key], f"no such key {key!r}; there are {', '.join(sorted(keys))}")


def _port(value: object, path: Sequence[str | int]) -> int:
    if not _is(value, int) or not 0 <= value <= 65535:
        raise RackError(path, f"a port is a whole number, 0 to 65535, found {value!r}")
    return int(value)
