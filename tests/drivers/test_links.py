from __future__ import annotations

import asyncio

import pytest

from cartoseq.drivers.errors import Disconnected
from cartoseq.drivers.links import paired
from cartoseq.drivers.transport import Transport, lines
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost

from .scripted import Scripted

LF = lines(b"\n")


class TwoPorts:
    """What is heard at one port is answered at the other; the first port chatters."""

    def __init__(self) -> None:
        self.answers = Scripted(lambda command, now_s: None)
        self.commands = Scripted(self.answer)
        self.out, self.back = MemoryHost(self.commands), MemoryHost(self.answers)

    def answer(self, command: bytes, now_s: float) -> bytes:
        self.answers.say(command + b"\n", now_s)
        for line in self.back.lines:
            line.look()
        return b"chatter\n"

    def transport(self) -> Transport:
        return Transport("fpga", paired(self.out.connect, self.back.connect))


def test_commands_go_out_at_one_port_and_answers_come_back_at_the_other() -> None:
    async def main() -> None:
        ports = TwoPorts()
        transport = ports.transport()
        await transport.open()
        assert await transport.exchange(b"hello\r", LF, timeout_s=0.1) == b"hello\n"
        await transport.close()

    run_virtual(main())


@pytest.mark.parametrize("which", ["out", "back"])
def test_the_loss_of_either_port_is_the_loss_of_the_line_and_the_other_is_closed(which: str) -> None:
    async def main() -> None:
        ports = TwoPorts()
        transport = ports.transport()
        await transport.open()
        ways = list(ports.out.lines + ports.back.lines)
        (ports.out if which == "out" else ports.back).cut()
        with pytest.raises(Disconnected):
            await transport.exchange(b"hello\r", LF, timeout_s=0.1)
        await asyncio.sleep(0)
        for way in ways:
            with pytest.raises(OSError, match="cut"):
                way.write(b"x")
        await transport.close()

    run_virtual(main())


def test_a_port_that_does_not_open_leaves_the_other_closed() -> None:
    async def main() -> None:
        ports = TwoPorts()
        ports.out.refuses = True
        with pytest.raises(Disconnected, match="cannot be opened"):
            await ports.transport().open()
        with pytest.raises(OSError, match="cut"):
            ports.back.lines[0].write(b"x")

    run_virtual(main())
