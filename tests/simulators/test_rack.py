from __future__ import annotations

import asyncio
import inspect
import json
import os
import tomllib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from cartoseq.simulators import rack as racks
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.devices.asi import AsiSim
from cartoseq.simulators.faults import FaultyLine
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.rack import KINDS, RackError, build
from cartoseq.simulators.wire import Outbox

STAGE = '[[device]]\nname = "stage"\nkind = "asi"\ntcp = 0\n'


class TwoPorts:
    """Hears at one port, answers at the other what it heard; may be told of a stage."""

    def __init__(self, name: str, *, stage: AsiSim | None = None, mode: Literal["a", "b"] = "a", fast: bool = False):
        self.name, self.stage, self.mode = name, stage, mode
        self.faults = {"mute": "It says nothing."}
        self.mute = False
        self.out = Outbox()
        self.ports = {"commands": self, "answers": _Answers(self.out)}

    def receive(self, data: bytes, now_s: float) -> None:
        if not self.mute:
            self.out.put(now_s + 0.01, data)

    def due_s(self) -> float | None:
        return None

    def messages(self, now_s: float) -> list[bytes]:
        return []

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        self.mute = True

    def clear(self, now_s: float) -> None:
        self.mute = False

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        return {"mute": self.mute}


class _Answers:
    def __init__(self, out: Outbox) -> None:
        self.out = out

    def receive(self, data: bytes, now_s: float) -> None:
        pass

    def due_s(self) -> float | None:
        return self.out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self.out.take(now_s)


@pytest.fixture
def two_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "two-ports", TwoPorts)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(in_time())


async def ask(port: int, *messages: bytes, count: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for message in messages:
        writer.write(message)
    answer = await reader.readexactly(count)
    writer.close()
    await writer.wait_closed()
    return answer


async def control(port: int, *requests: object) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for request in requests:
        writer.write(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")
        answers.append(json.loads(await reader.readline()))
    writer.close()
    await writer.wait_closed()
    return answers


def tcp_port(rack: racks.Rack, line: str) -> int:
    return int(rack.lines[line].address.rpartition(":")[2])


def test_a_rack_serves_its_devices_over_tcp_and_terminals_until_it_is_closed(tmp_path: Path) -> None:
    link = tmp_path / "zaber"

    async def main() -> None:
        rack = build(tomllib.loads(f"{STAGE}[[device]]\nname = 'xy'\nkind = 'zaber'\npty = '{link}'\n"))
        await rack.serve()
        assert await ask(tcp_port(rack, "stage"), b"W X Y\r", count=9) == b":A 0 0 \r\n"
        assert rack.lines["xy"].address == str(link)
        terminal = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        os.write(terminal, b"/1 1\n")
        answer = b""
        while not answer.endswith(b"\r\n"):
            await asyncio.sleep(0.002)
            try:
                answer += os.read(terminal, 100)
            except BlockingIOError:
                continue
        assert answer == b"@01 1 OK IDLE WR 0\r\n"
        os.close(terminal)
        port = tcp_port(rack, "stage")
        await rack.close()
        assert not link.is_symlink()
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection("127.0.0.1", port)

    run(main)


def test_devices_share_a_line_and_each_has_its_faults() -> None:
    text = """
    [[device]]
    name = "xy"
    kind = "zaber"
    tcp = 0
      [[device.fault]]
      fault = "reject"
      on_command = 2
      reason = "FULL"
    [[device]]
    name = "z"
    kind = "zaber"
    shares = "xy"
    settings = {address = 2, travel_um = [5000]}
      [[device.fault]]
      fault = "reject"
      on_command = 1
      reason = "PARKED"
      [[device.fault]]
      fault = "garbage"
      on_command = 3
      byte = 7
    """
    rack = build(tomllib.loads(text))
    assert list(rack.lines) == ["xy"]
    assert rack.lines["xy"].devices == ["xy", "z"]
    line = rack.lines["xy"].server
    heard = []
    for now_s, command in enumerate((b"/2 1 home\n", b"/1 1 home\n", b"/2 1\n")):
        line.receive(command, float(now_s))
        heard += line.messages(now_s + 0.5)
    assert heard == [b"@02 1 RJ IDLE WR PARKED\r\n", b"@01 1 RJ IDLE WR FULL\r\n", b"\x07@02 1 OK IDLE WR 0\r\n"]


@pytest.mark.usefixtures("two_ports")
def test_a_device_with_two_ports_is_heard_at_the_other_and_may_know_another_device() -> None:
    text = STAGE + (
        '[[device]]\nname = "two"\nkind = "two-ports"\ntcp = {commands = 0, answers = 0}\n'
        'settings = {stage = "stage", mode = "b", fast = true}\n'
        '[[device.fault]]\nfault = "truncate"\non_command = 2\nbytes = 1\n'
    )

    async def main() -> None:
        rack = build(tomllib.loads(text))
        two = rack.devices["two"]
        assert isinstance(two, TwoPorts)
        assert (two.stage, two.mode) == (rack.devices["stage"], "b")
        await rack.serve()
        reader, answers = await asyncio.open_connection("127.0.0.1", tcp_port(rack, "two.answers"))
        _, commands = await asyncio.open_connection("127.0.0.1", tcp_port(rack, "two.commands"))
        commands.write(b"one\r")
        assert await reader.readexactly(4) == b"one\r"
        commands.write(b"two\r")
        assert await reader.readexactly(1) == b"t"
        for writer in (answers, commands):
            writer.close()
            await writer.wait_closed()
        await rack.close()

    run(main)


def test_in_memory_a_rack_runs_in_virtual_time() -> None:
    heard: list[bytes] = []

    async def main() -> None:
        rack = build(tomllib.loads(STAGE + '[[device.fault]]\nfault = "jump"\nat_s = 3600\naxis = "X"\nby_um = 1.5\n'))
        line = await MemoryHost(rack.lines["stage"].server).connect(heard.append)
        for _ in range(2):
            line.write(b"W X\r")
            await asyncio.sleep(3601)

    run_virtual(main())
    assert heard == [b":A 0 \r\n", b":A 15 \r\n"]


def test_the_control_channel_looks_in_and_disturbs() -> None:
    async def main() -> None:
        rack = build(tomllib.loads(STAGE))
        await rack.serve()
        listed, injected, spoilt, inspected = await control(
            rack.control_port,
            {"do": "list"},
            {"do": "inject", "device": "stage", "fault": "jump", "values": {"axis": "X", "by_um": 2}},
            {"do": "inject", "device": "stage", "fault": "garbage", "values": {"byte": 33}},
            {"do": "inspect", "device": "stage"},
        )
        assert listed["devices"]["stage"]["addresses"] == {"stage": rack.lines["stage"].address}
        assert "jump" in listed["devices"]["stage"]["faults"]
        assert injected == spoilt == {"ok": True}
        assert inspected["truth"]["x_position_um"] == 2.0
        assert await ask(tcp_port(rack, "stage"), b"W X\r", count=9) == b"!:A 20 \r\n"
        scheduled, injected, cleared = await control(
            rack.control_port,
            {"do": "schedule", "device": "stage", "faults": [{"fault": "drop", "on_command": 1}]},
            {"do": "inject", "device": "stage", "fault": "busy_for_ever"},
            {"do": "clear", "device": "stage"},
        )
        assert scheduled == injected == cleared == {"ok": True}
        assert await ask(tcp_port(rack, "stage"), b"/\r", count=3) == b"N\r\n"
        await rack.close()

    run(main)


def test_a_cut_over_the_control_channel_reaches_the_client_at_once() -> None:
    async def main() -> None:
        rack = build(tomllib.loads(STAGE))
        await rack.serve()
        reader, writer = await asyncio.open_connection("127.0.0.1", tcp_port(rack, "stage"))
        writer.write(b"/\r")
        assert await reader.readexactly(3) == b"N\r\n"
        assert await control(
            rack.control_port, {"do": "inject", "device": "stage", "fault": "disconnect"}
        ) == [{"ok": True}]  # fmt: skip
        assert await reader.read() == b""
        writer.close()
        await rack.close()

    run(main)


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (b"{\n", "no JSON"),
        (b"\xff\n", "no JSON"),
        (7, "expected a JSON object"),
        ({}, "expected do = list, inspect, inject, clear or schedule, found None"),
        ({"do": ["list"]}, "expected do ="),
        ({"do": "list", "what": 1}, "list takes no what"),
        ({"do": "inspect", "device": None}, "no device None; there are stage"),
        ({"do": "inspect", "device": ["x"]}, "no device"),
        ({"do": "inject", "device": "stage", "fault": "melt"}, "knows no fault 'melt'"),
        ({"do": "inject", "device": "stage", "fault": "stall"}, "needs axis"),
        ({"do": "inject", "device": "stage", "fault": "stall", "values": [1]}, "expected fault = a name and values"),
        ({"do": "inject", "device": "stage", "fault": "drop", "values": {"by_s": 1}}, "it takes no by_s"),
        ({"do": "inject", "device": "stage", "fault": "flip", "values": {"bit": None}}, "bit is a whole number"),
        ({"do": "schedule", "device": "stage"}, "expected faults = a list"),
        ({"do": "schedule", "device": "stage", "faults": [{"fault": "drop"}]}, "expected one of at_s"),
        ({"do": "schedule", "device": "stage", "faults": [{"fault": "melt", "at_s": 1}]}, "no such fault"),
    ],
)
def test_a_request_that_makes_no_sense_is_answered(request_: object, complaint: str) -> None:
    async def main() -> None:
        rack = build(tomllib.loads(STAGE))
        await rack.serve()
        answer, after = await control(rack.control_port, request_, {"do": "list"})
        assert answer["ok"] is False
        assert complaint in answer["error"]
        assert after["ok"] is True
        await rack.close()

    run(main)


@pytest.mark.usefixtures("two_ports")
@pytest.mark.parametrize(
    ("text", "path", "complaint"),
    [
        ("", ["device"], "at least one table"),
        ("devices = 1", ["devices"], "no such key 'devices'; there are control_port, device, speed"),
        (f"speed = 0\n{STAGE}", ["speed"], "a number above 0"),
        (f"control_port = 70000\n{STAGE}", ["control_port"], "0 to 65535, found 70000"),
        ("device = [1]", ["device", 0], "expected a table"),
        (STAGE + "colour = 1", ["device", 0, "colour"], "no such key"),
        ("[[device]]\nkind = 'asi'", ["device", 0, "name"], "found None"),
        ("[[device]]\nname = 'a.b'", ["device", 0, "name"], "without a point"),
        (STAGE + STAGE, ["device", 1, "name"], "already"),
        (
            "[[device]]\nname = 'a'\nkind = 'lamp'",
            ["device", 0, "kind"],
            "no kind of device 'lamp'; there are arm9chem, asi",
        ),
        (STAGE + "settings = 1", ["device", 0, "settings"], "expected a table"),
        (STAGE + "settings = {speed = 1}", ["device", 0, "settings", "speed"], "asi has no setting speed; it has"),
        (STAGE + "settings = {spaces = 1}", ["device", 0, "settings", "spaces"], "true or false, found 1"),
        (STAGE + "settings = {decimals = true}", ["device", 0, "settings", "decimals"], "a whole number, found True"),
        (STAGE + "settings = {latency_s = 'x'}", ["device", 0, "settings", "latency_s"], "a number, found 'x'"),
        (STAGE + "settings = {controller = 'x'}", ["device", 0, "settings", "controller"], "ms2000 or tiger"),
        (STAGE + "settings = {axes = 'XY'}", ["device", 0, "settings", "axes"], "axes is a list"),
        (STAGE + "settings = {travel_um = {X = [0, 'a']}}", ["device", 0, "settings", "travel_um", "X", 1], "a number"),
        (STAGE + "settings = {axes = ['X', 'X']}", ["device", 0, "settings"], "different single letters"),
        ("[[device]]\nname = 'a'\nkind = 'asi'", ["device", 0], "expected one of tcp, pty, shares, found none"),
        (STAGE + "pty = ''", ["device", 0], "found tcp and pty"),
        (STAGE.replace("0", "'x'"), ["device", 0, "tcp"], "a port is"),
        (STAGE.replace("tcp = 0", "pty = 0"), ["device", 0, "pty"], "the path of a link"),
        (STAGE + "baud_rate = -1", ["device", 0, "baud_rate"], "from 0 on"),
        (STAGE + "command_ends = ''", ["device", 0, "command_ends"], "ASCII"),
        (STAGE.replace("tcp = 0", "shares = 'x'"), ["device", 0, "shares"], "no device 'x' with a line of its own"),
        (
            STAGE + "[[device.fault]]\nfault = 'melt'\nat_s = 1",
            ["device", 0, "fault", 0],
            r"\(melt\): no such fault|no such",
        ),
        (STAGE + "[[device.fault]]\nfault = 'drop'", ["device", 0, "fault", 0], "expected one of at_s"),
        (STAGE + "fault = 1", ["device", 0, "fault"], "expected tables"),
        ("[[device]]\nname = 'a'\nkind = 'two-ports'\ntcp = 0", ["device", 0, "tcp"], "ports commands, answers"),
        (
            "[[device]]\nname = 'a'\nkind = 'two-ports'\ntcp = {commands = 0, answers = 0}\nsettings = {stage = 'x'}",
            ["device", 0, "settings", "stage"],
            "the name of a device of kind AsiSim, found 'x'",
        ),
    ],
)
def test_a_rack_that_is_not_understood_is_refused_with_its_place(
    text: str, path: Sequence[str | int], complaint: str
) -> None:
    with pytest.raises(RackError, match=complaint) as refused:
        build(tomllib.loads(text))
    assert list(refused.value.path) == path


def test_a_port_that_is_taken_is_one_message_and_closes_the_others() -> None:
    async def main() -> None:
        first = build(tomllib.loads(STAGE))
        await first.serve()
        port = tcp_port(first, "stage")
        second = build(tomllib.loads(STAGE + STAGE.replace("stage", "other").replace("tcp = 0", f"tcp = {port}")))
        with pytest.raises(RackError, match=f"other: port {port} cannot be opened"):
            await second.serve()
        assert second.lines["stage"].host is None
        await first.close()

    run(main)


def test_a_link_gives_way_to_a_rack_and_a_file_does_not(tmp_path: Path) -> None:
    link = tmp_path / "stage"
    text = STAGE.replace("tcp = 0", f"pty = '{link}'")

    async def main() -> None:
        link.symlink_to("/dev/pts/no-such-terminal")
        rack = build(tomllib.loads(text))
        await rack.serve()
        assert link.exists()
        await rack.close()
        link.write_text("mine")
        with pytest.raises(RackError, match=r"stage: .* cannot be opened"):
            await build(tomllib.loads(text)).serve()
        assert link.read_text() == "mine"

    run(main)


def test_every_kind_without_a_bench_can_be_made_without_settings() -> None:
    for kind in KINDS:
        if "world" in inspect.signature(KINDS[kind]).parameters:
            continue
        device = KINDS[kind](kind)
        ports = getattr(device, "ports", {"": device})
        assert all(FaultyLine(server).due_s() is None for server in ports.values())
        assert all(sentence.endswith(".") for sentence in device.faults.values())
        assert all(not isinstance(value, bytes) for value in device.inspect(0.0).values())


WORLD = {
    "world": {
        "vessels": {"mix": {"volume_ul": 5000}, "waste": {}},
        "selectors": {"inlets": {"ports": {"1": "mix"}}},
        "pipes": {"flow_cell": {"volume_ul": 80, "far": "inlets"}},
        "syringes": {"syringe": {"barrel_ul": 500, "ports": {"I": "flow_cell", "O": "waste"}, "port": "O"}},
    },
    "device": [
        {"name": "pump", "kind": "cavro", "tcp": 0, "settings": {"syringe": "syringe"}},
        {"name": "valve", "kind": "vici", "tcp": 0, "settings": {"selector": "inlets"}},
    ],
}


def test_pump_and_valve_of_a_rack_act_on_one_bench() -> None:
    rack = build(WORLD)
    for text, at_s in ((b"/1ZR\r", 0.0), (b"/1IA3000R\r", 20.0)):
        rack.lines["pump"].server.receive(text, at_s)
    assert rack.devices["valve"].inspect(80.0)
    truth = rack.devices["pump"].inspect(80.0)
    assert truth["plunger_ul"] == pytest.approx(500)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("device", 0, "settings"), {}, "syringe"),
        (("device", 0, "settings"), {"syringe": "none"}, "there is no syringe 'none'"),
        (("world",), {"vessel": {}}, "found 'vessel'"),
        (("world",), 3, "expected tables"),
        (("world",), {"pipes": {"cell": {"volume_ul": 1, "far": "nowhere"}}}, "'nowhere' is no vessel"),
    ],
)
def test_a_bench_that_is_not_sound_is_refused(path: tuple[str | int, ...], value: object, says: str) -> None:
    content: Any = json.loads(json.dumps(WORLD))
    table = content
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    with pytest.raises(RackError, match=says):
        build(content)
