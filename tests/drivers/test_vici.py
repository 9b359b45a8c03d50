from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.drivers.capabilities import SelectorValve
from cartoseq.drivers.errors import DeviceFault, Disconnected, LimitError, PositionError, ReplyTimeout
from cartoseq.drivers.transport import Transport
from cartoseq.drivers.vici import ViciValve, frame_reply, parse_port_count, parse_position, ports_between
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Bus, Outbox
from cartoseq.streaming.errors import InputError


class ScriptedValve:
    """A valve of ten ports that takes 0.2 s from one to the next."""

    def __init__(self, style: str = "universal", *, prefix: str = "", ports: int = 10, bogus: bytes = b"") -> None:
        self.heard: list[str] = []
        self.position = 1
        self.stuck = False
        self.goes_to: int | None = None
        self.deaf_to_moves = 0
        #: Whether it answers moves when they are done (IFM1), and anything at all while it moves.
        self.confirms = False
        self.mute_while_moving = False
        self.mode_letter = ""
        self._style, self._prefix, self._ports, self._bogus = style, prefix, ports, bogus
        self._at_s = 0.0
        self._from = 1
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            text = line.decode()
            if text.startswith(self._prefix):
                self._hear(text.removeprefix(self._prefix), now_s)

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)

    def _hear(self, text: str, now_s: float) -> None:
        self.heard.append(text)
        moving = now_s < self._at_s
        if moving and self.mute_while_moving:
            return
        shown = self.mode_letter or (self._from if moving else self.position)
        emt = self._style == "emt"
        if text == "CP":
            self._say(f"Position is  = {shown}" if emt else f"CP{self.mode_letter or f'{shown:0>2}'}", now_s)
        elif text == "NP":
            self._say(f"NP = {self._ports}" if emt else f"NP{self._ports}", now_s)
        elif text == "VR" and not emt:
            self._say("I-PD-UMT88RD1\rJul 9 2014", now_s)
        elif text.startswith("GO"):
            self._move(int(text[2:]), now_s)
        else:
            self._say(f"{text} = Bad command", now_s)

    def _move(self, port: int, now_s: float) -> None:
        if self.deaf_to_moves:
            self.deaf_to_moves -= 1
            return
        if self._style == "emt" and port == self.position:
            self._say(f"GO{port} = Bad command", now_s)
            return
        self._from = self.position
        self._at_s = now_s + 0.2 * ports_between(self.position, port, self._ports)
        if not self.stuck:
            self.position = port if self.goes_to is None else self.goes_to
        if self.confirms:
            self._say(f"GO{port}", self._at_s)

    def _say(self, text: str, at_s: float) -> None:
        self._out.put(at_s + 0.004, self._bogus + text.encode() + b"\r")


def talk(
    use: Callable[[ViciValve], Coroutine[Any, Any, None]], device: ScriptedValve, **settings: Any
) -> ScriptedValve:
    async def main() -> None:
        valve = ViciValve(
            Transport("valve", MemoryHost(device, baud_rate=9600).connect), "valve", **{"n_ports": 10} | settings
        )
        identity = await valve.open()
        assert "has not met its hardware" in identity.notice
        device.heard.clear()
        try:
            await use(valve)
        finally:
            await valve.close()

    run_virtual(main())
    return device


def now_s() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("reply", "position"),
    [
        (b"CP05\r", "5"),
        (b"CP = 5\r", "5"),
        (b"CP10\r\n", "10"),
        (b"Position is  = 3\r", "3"),
        (b"\xfeCP07\r", "7"),
        (b"\x00Position is  = 1\r", "1"),
        (b"CPA\r", "A"),
        (b"CP00\r", "0"),
        (b"GO5\r", None),
        (b"NP10\r", None),
        (b"GO5 = Bad command\r", None),
        (b"", None),
    ],
)
def test_positions_are_read_in_every_style(reply: bytes, position: str | None) -> None:
    assert parse_position(reply) == position


@pytest.mark.parametrize(
    ("reply", "count"), [(b"NP10\r", 10), (b"NP = 10\r", 10), (b"\xf0NP6\r\n", 6), (b"CP05\r", None), (b"NP\r", None)]
)
def test_port_counts_are_read_in_every_style(reply: bytes, count: int | None) -> None:
    assert parse_port_count(reply) == count


@given(st.binary(max_size=30))
def test_garbage_is_another_reply(garbage: bytes) -> None:
    found = frame_reply(garbage)
    if found is not None:
        assert re.fullmatch(rb"[^\r\n]+[\r\n]", garbage[slice(*found)])
    position = parse_position(garbage)
    assert position is None or position in "AB" or int(position) >= 0
    count = parse_port_count(garbage)
    assert count is None or count >= 0


@given(st.integers(0, 99), st.sampled_from(["CP{:02}", "CP = {}", "Position is  = {}"]), st.binary(max_size=1))
def test_a_position_is_found_behind_a_bogus_byte(port: int, style: str, bogus: bytes) -> None:
    reply = bogus + style.format(port).encode() + b"\r"
    found = frame_reply(reply)
    assert found is not None
    assert parse_position(reply[slice(*found)]) == str(port)


@pytest.mark.parametrize(("start", "end", "ports"), [(1, 2, 1), (1, 10, 1), (1, 6, 5), (8, 3, 5), (4, 4, 0)])
def test_the_shortest_way(start: int, end: int, ports: int) -> None:
    assert ports_between(start, end, 10) == ports


@pytest.mark.parametrize("style", ["universal", "emt"])
@pytest.mark.parametrize("mute", [False, True])
@pytest.mark.parametrize("confirms", [False, True])
def test_a_port_is_selected_and_held_to_be(style: str, mute: bool, confirms: bool) -> None:
    device = ScriptedValve(style, bogus=b"\xfc")
    device.mute_while_moving, device.confirms = mute, confirms

    async def use(valve: ViciValve) -> None:
        assert isinstance(valve, SelectorValve)
        assert await valve.port() == 1
        begin_s = now_s()
        await valve.select(6)
        assert 1.0 < now_s() - begin_s < 1.5
        assert await valve.port() == 6
        await valve.select(5)
        assert await valve.read_faults() == []

    talk(use, device, dialect=style)
    assert [text for text in device.heard if text.startswith("GO")] == ["GO6", "GO5"]


@pytest.mark.parametrize("style", ["universal", "emt"])
def test_the_port_already_held_is_not_sent(style: str) -> None:
    async def use(valve: ViciValve) -> None:
        await valve.select(3)
        await valve.select(3)
        await valve.make_safe()
        await valve.clear_faults()

    heard = talk(use, ScriptedValve(style), dialect=style).heard
    assert heard.count("GO3") == 1


def test_a_move_that_was_not_heard_is_sent_again() -> None:
    device = ScriptedValve("emt")
    device.deaf_to_moves = 1

    async def use(valve: ViciValve) -> None:
        await valve.select(3)

    assert talk(use, device, dialect="emt").heard.count("GO3") == 2


def test_a_stuck_valve_is_a_position_error() -> None:
    device = ScriptedValve()
    device.stuck = True

    async def use(valve: ViciValve) -> None:
        begin_s = now_s()
        with pytest.raises(PositionError, match="was sent from port 1 to port 3 and stands at 1") as failed:
            await valve.select(3)
        assert now_s() - begin_s < 7
        assert "GO3" in failed.value.wire

    talk(use, device)


@pytest.mark.parametrize(("found", "faults"), [(4, []), (0, ["EP"])])
def test_a_valve_that_ends_elsewhere_is_a_position_error_and_is_not_moved_again(found: int, faults: list[str]) -> None:
    device = ScriptedValve()
    device.goes_to = found

    async def use(valve: ViciValve) -> None:
        with pytest.raises(PositionError, match=f"stands at {found}"):
            await valve.select(3)
        assert [fault.code for fault in await valve.read_faults()] == faults
        if found == 0:
            with pytest.raises(PositionError, match="reports position 0"):
                await valve.port()
        device.goes_to = None
        await valve.select(3)

    assert talk(use, device).heard.count("GO3") == 2


@pytest.mark.parametrize("port", [0, 11, -1, 2.0, True, "3"])
def test_a_port_that_it_has_not_is_refused_and_nothing_is_sent(port: Any) -> None:
    async def use(valve: ViciValve) -> None:
        with pytest.raises(LimitError, match="its ports are 1 to 10"):
            await valve.select(port)

    assert talk(use, ScriptedValve()).heard == []


@pytest.mark.parametrize(
    ("settings", "prefix"), [({"actuator_id": "3"}, "3"), ({"actuator_id": "Z", "rs485": True}, "/Z")]
)
def test_commands_begin_with_the_id(settings: dict[str, Any], prefix: str) -> None:
    async def use(valve: ViciValve) -> None:
        await valve.select(2)

    talk(use, ScriptedValve(prefix=prefix), **settings)


def test_two_valves_on_one_line() -> None:
    devices = [ScriptedValve(prefix="/1"), ScriptedValve(prefix="/2", ports=6)]

    async def main() -> None:
        transport = Transport("valves", MemoryHost(Bus(devices), baud_rate=9600).connect)
        valves = [
            ViciValve(transport, f"valve {i}", n_ports=n, actuator_id=i, rs485=True) for i, n in (("1", 10), ("2", 6))
        ]
        for valve in valves:
            await valve.open()
        await asyncio.gather(valves[0].select(4), valves[1].select(3), valves[0].select(7))
        assert [await valve.port() for valve in valves] == [7, 3]
        for valve in valves:
            await valve.close()

    run_virtual(main())


@pytest.mark.parametrize(
    ("device", "settings", "message"),
    [
        (ScriptedValve(), {"n_ports": 8}, "it has 10 ports, 8 are configured"),
        (ScriptedValve("emt", ports=6), {"dialect": "emt"}, "it has 6 ports, 10 are configured"),
    ],
)
def test_another_valve_is_one_clear_error(device: ScriptedValve, settings: dict[str, Any], message: str) -> None:
    async def use(valve: ViciValve) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(DeviceFault, match=message):
        talk(use, device, **settings)


def test_a_valve_that_is_set_to_two_positions_is_one_clear_error() -> None:
    device = ScriptedValve()
    device.mode_letter = "A"

    async def use(valve: ViciValve) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(DeviceFault, match=r"set to two positions.*mode .AM3"):
        talk(use, device)


def test_a_valve_that_does_not_answer_and_one_that_is_gone() -> None:
    async def main() -> None:
        host = MemoryHost(ScriptedValve(prefix="7"))
        transport = Transport("valve", host.connect)
        with pytest.raises(ReplyTimeout):
            await ViciValve(transport, "valve", n_ports=10).open()
        assert not transport.is_open
        valve = ViciValve(transport, "valve", n_ports=10, actuator_id="7")
        await valve.open()
        moving = asyncio.ensure_future(valve.select(6))
        await asyncio.sleep(0.3)
        host.cut()
        with pytest.raises(Disconnected):
            await moving
        await valve.close()

    run_virtual(main())


@pytest.mark.parametrize("settings", [{"actuator_id": "ab"}, {"actuator_id": "é"}, {"rs485": True}, {"n_ports": 1}])
def test_settings_that_no_valve_could_have_are_refused(settings: dict[str, Any]) -> None:
    transport = Transport("valve", MemoryHost(ScriptedValve()).connect)
    with pytest.raises(InputError, match="valve: "):
        ViciValve(transport, "valve", **{"n_ports": 10} | settings)
