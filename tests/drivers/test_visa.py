from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cartoseq.drivers.errors import DeviceFault, Disconnected, ReplyTimeout
from cartoseq.drivers.scpi import Scpi, parse_number
from cartoseq.drivers.visa import VisaSession
from cartoseq.streaming.errors import InputError


class Server:
    """A TCP port that answers lines from a script: a list of pieces with pauses between; None says nothing."""

    def __init__(self) -> None:
        self.script: dict[str, list[bytes]] = {
            "*IDN?": [b"ACME,X1,0001,1.0\n"],
            "VOLT?": [b"1.5\n"],
            "SYST:ERR?": [b'0,"No error"\n'],
        }
        self.heard: list[str] = []
        self.pause_s = 0.0
        self.late_s: dict[str, float] = {}
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                command = line.decode().strip()
                self.heard.append(command)
                await asyncio.sleep(self.late_s.get(command, 0.0))
                for piece in self.script.get(command, []):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(self.pause_s)
        except ConnectionError:
            pass
        finally:
            writer.close()


def talk(use: Callable[[Scpi, Server], Coroutine[Any, Any, None]]) -> Server:
    server = Server()

    async def main() -> None:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]
        scpi = Scpi(VisaSession("source", f"TCPIP::127.0.0.1::{server.port}::SOCKET"), "source")
        await scpi.open()
        try:
            await use(scpi, server)
        finally:
            await scpi.close()
            listener.close()
            await listener.wait_closed()

    asyncio.run(main())
    return server


def test_commands_and_queries_go_over_pyvisa() -> None:
    async def use(scpi: Scpi, server: Server) -> None:
        await scpi.tell("VOLT 1")
        assert await asyncio.gather(*(scpi.ask("VOLT?", parse_number) for _ in range(3))) == [1.5] * 3
        assert "< b'1.5\\n'" in scpi.session.dump()

    assert talk(use).heard[:4] == ["*CLS", "*IDN?", "VOLT 1", "SYST:ERR?"]


def test_a_reply_in_pieces_is_put_together() -> None:
    async def use(scpi: Scpi, server: Server) -> None:
        server.script["VOLT?"] = [b"1.", b"5\n"]
        server.pause_s = 0.005
        assert await scpi.ask("VOLT?", parse_number) == 1.5
        assert server.heard.count("VOLT?") == 1

    talk(use)


def test_an_erroneous_query_explains_itself() -> None:
    async def use(scpi: Scpi, server: Server) -> None:
        server.script["SYST:ERR?"] = [b'-113,"Undefined header"\n']
        with pytest.raises(DeviceFault, match="Undefined header; Undefined header"):
            await scpi.ask("FOO?", parse_number, timeout_s=0.02)

    talk(use)


def test_silence_is_a_timeout_and_the_session_goes_on() -> None:
    async def use(scpi: Scpi, server: Server) -> None:
        with pytest.raises(ReplyTimeout, match="source: no whole reply in time"):
            await scpi.ask("FOO?", parse_number, timeout_s=0.02)
        assert await scpi.ask("VOLT?", parse_number) == 1.5

    talk(use)


def test_a_reply_that_nobody_awaits_any_more_is_not_taken_for_the_next_ones() -> None:
    async def use(scpi: Scpi, server: Server) -> None:
        server.script["CURR?"] = [b"0.25\n"]
        asking = asyncio.ensure_future(scpi.ask("VOLT?", parse_number))
        await asyncio.sleep(0)
        asking.cancel()
        assert await scpi.ask("CURR?", parse_number) == 0.25

    talk(use)


def test_a_late_reply_is_not_taken_for_the_next_ones() -> None:
    async def use(scpi: Scpi, server: Server) -> None:
        server.late_s = {"VOLT?": 0.03}
        server.script["CURR?"] = [b"0.25\n"]
        with pytest.raises(ReplyTimeout):
            await scpi.session.query("VOLT?", 0.01)
        assert await scpi.ask("CURR?", parse_number) == 0.25

    talk(use)


def test_the_loop_goes_on_while_a_reply_is_awaited_and_a_stop_follows_it() -> None:
    async def use(scpi: Scpi, server: Server) -> None:
        asking = asyncio.ensure_future(scpi.ask("FOO?", parse_number, timeout_s=0.02))
        while server.heard[-1] != "FOO?":
            await asyncio.sleep(0)
        scpi.session.interrupt("OUTP OFF")
        with pytest.raises(ReplyTimeout):
            await asking

    heard = talk(use).heard
    assert heard[heard.index("FOO?") + 1] == "OUTP OFF"


def test_what_cannot_be_opened_is_one_message() -> None:
    async def main() -> None:
        with pytest.raises(InputError, match="expected a VISA resource, found 'nonsense'"):
            await VisaSession("meter", "nonsense").open()
        with pytest.raises(InputError, match="no VISA library"):
            await VisaSession("meter", "TCPIP::127.0.0.1::1::SOCKET", library="/no/such/library").open()
        with pytest.raises(Disconnected, match="cannot be opened"):
            await VisaSession("meter", "ASRL/dev/no-such-port::INSTR").open()
        closed = VisaSession("meter", "TCPIP::127.0.0.1::1::SOCKET")
        with pytest.raises(Disconnected, match="is not open"):
            await closed.write("*CLS")
        with pytest.raises(Disconnected, match="is not open"):
            closed.interrupt("*CLS")
        await closed.close()

    asyncio.run(main())
