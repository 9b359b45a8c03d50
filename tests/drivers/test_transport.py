from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cartoseq.drivers.errors import Disconnected, FramingError, Interrupted, LinkError, ReplyTimeout
from cartoseq.drivers.transport import Probe, Transport, lines, repeat
from cartoseq.simulators.clock import run_virtual
from cartoseq.simulators.hosts import MemoryHost
from cartoseq.simulators.wire import Outbox

CR = lines(b"\r")


class Parrot:
    """Repeats each line after `delay_s`; `mute` not at all, `twice` twice, and an alert comes before `alert`."""

    def __init__(self, delay_s: float = 0.01) -> None:
        self.delay_s = delay_s
        self.heard: list[tuple[float, bytes]] = []
        self._out = Outbox()
        self._buffer = b""

    def receive(self, data: bytes, now_s: float) -> None:
        self._buffer += data
        while b"\r" in self._buffer:
            line, self._buffer = self._buffer.split(b"\r", 1)
            self.heard.append((now_s, line))
            if line == b"mute":
                continue
            if line == b"twice":
                self._out.put(now_s + self.delay_s, b"twice\r")
            if line == b"alert":
                self._out.put(now_s + self.delay_s / 2, b"!alert\r")
            self._out.put(now_s + (1.0 if line == b"late" else self.delay_s), line + b"\r")

    def due_s(self) -> float | None:
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        return self._out.take(now_s)


def talk(
    use: Callable[[Transport, MemoryHost], Coroutine[Any, Any, None]],
    parrot: Parrot | None = None,
    baud_rate: int = 0,
    **options: Any,
) -> Parrot:
    parrot = parrot or Parrot()

    async def main() -> None:
        host = MemoryHost(parrot, baud_rate=baud_rate)
        transport = Transport("parrot", host.connect, **options)
        await transport.open()
        try:
            await use(transport, host)
        finally:
            await transport.close()

    run_virtual(main())
    return parrot


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_a_reply_is_returned_whole_and_in_its_time() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        await transport.exchange(b"hello\r", CR, timeout_s=0.1)
        begin_s = now_s()
        assert await transport.exchange(b"world\r", CR, timeout_s=0.1) == b"world\r"
        # 6 bytes out and 6 back at 9600 baud, and 10 ms to think.
        assert now_s() - begin_s == pytest.approx(0.01 + 120 / 9600)

    talk(use, baud_rate=9600)


def test_without_a_reply_the_deadline_ends_the_wait_and_the_bytes_are_told() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(ReplyTimeout, match=r"parrot: no whole reply to b'mute\\r' within 0.1 s") as failed:
            await transport.exchange(b"mute\r", CR, timeout_s=0.1)
        assert now_s() == pytest.approx(0.12)  # 20 ms of silence before the first exchange
        assert "> b'mute\\r'" in failed.value.wire

    talk(use)


def test_a_late_reply_is_not_taken_for_the_next_ones() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(ReplyTimeout):
            await transport.exchange(b"late\r", CR, timeout_s=0.99)
        assert await transport.exchange(b"next\r", CR, timeout_s=0.1) == b"next\r"

    talk(use)


def test_a_line_in_doubt_is_probed_first() -> None:
    probe = Probe(b"who\r", CR, lambda frame: frame == b"who\r")

    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(ReplyTimeout):
            await transport.exchange(b"late\r", CR, timeout_s=0.5)
        await asyncio.sleep(0.2)
        assert await transport.exchange(b"next\r", CR, timeout_s=0.1) == b"next\r"

    heard = [line for _, line in talk(use, probe=probe).heard]
    assert heard == [b"who", b"late", b"who", b"next"]


def test_queries_are_sent_again_as_often_as_allowed() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(ReplyTimeout):
            await transport.exchange(b"mute\r", CR, timeout_s=0.1, tries=3)

    assert [line for _, line in talk(use).heard] == [b"mute"] * 3


def test_a_stop_goes_out_at_once_while_a_reply_is_awaited() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        waiting = asyncio.ensure_future(transport.exchange(b"late\r", CR, timeout_s=5.0))
        await asyncio.sleep(0.5)
        transport.interrupt(b"stop\r")
        with pytest.raises(Interrupted, match="a stop went out"):
            await waiting
        assert now_s() == pytest.approx(0.5)
        assert await transport.exchange(b"next\r", CR, timeout_s=0.1) == b"next\r"

    heard = talk(use).heard
    assert heard[1] == (pytest.approx(0.5), b"stop")


def test_a_stop_that_finds_no_one_waiting_still_goes_out() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        transport.interrupt(b"stop\r")
        assert await transport.exchange(b"next\r", CR, timeout_s=0.1) == b"next\r"

    assert [line for _, line in talk(use).heard] == [b"stop", b"next"]


def test_a_cancelled_wait_leaves_the_line_in_doubt() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.025):
                await transport.exchange(b"first\r", CR, timeout_s=1.0)
        assert await transport.exchange(b"next\r", CR, timeout_s=0.1) == b"next\r"

    talk(use)


def test_frames_that_are_no_reply_are_handed_on() -> None:
    alerts: list[bytes] = []

    async def use(transport: Transport, host: MemoryHost) -> None:
        reply = await transport.exchange(b"alert\r", CR, timeout_s=0.1, accept=lambda frame: frame[:1] != b"!")
        assert reply == b"alert\r"

    talk(use, unasked=alerts.append)
    assert alerts == [b"!alert\r"]


def test_a_reply_that_was_said_twice_is_not_taken_for_the_next_ones() -> None:
    unasked: list[bytes] = []

    async def use(transport: Transport, host: MemoryHost) -> None:
        assert await transport.exchange(b"twice\r", CR, timeout_s=0.1) == b"twice\r"
        await asyncio.sleep(0.001)
        assert await transport.exchange(b"next\r", CR, timeout_s=0.1) == b"next\r"

    talk(use, unasked=unasked.append)
    assert unasked == [b"twice\r"]


def test_every_second_copy_of_a_stutterer_is_passed_over() -> None:
    class Stutterer(Parrot):
        def messages(self, now_s: float) -> list[bytes]:
            return [message * 2 for message in super().messages(now_s)]

    passed_over: list[bytes] = []

    async def use(transport: Transport, host: MemoryHost) -> None:
        for command in (b"1\r", b"2\r", b"3\r"):
            assert await transport.exchange(command, CR, timeout_s=0.1) == command

    talk(use, Stutterer(), unasked=passed_over.append)
    assert passed_over == [b"1\r", b"2\r"]


def test_a_pulled_cable_is_told_at_once_and_for_every_later_call() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        waiting = asyncio.ensure_future(transport.exchange(b"late\r", CR, timeout_s=5.0, tries=3))
        await asyncio.sleep(0.1)
        host.cut()
        with pytest.raises(Disconnected, match="the line is gone"):
            await waiting
        assert now_s() == pytest.approx(0.1)
        with pytest.raises(Disconnected):
            await transport.exchange(b"hello\r", CR, timeout_s=0.1)
        with pytest.raises(Disconnected):
            transport.interrupt(b"stop\r")

    talk(use)


def test_a_port_that_does_not_open_is_one_message() -> None:
    async def main() -> None:
        host = MemoryHost(Parrot())
        host.refuses = True
        with pytest.raises(Disconnected, match=r"parrot: cannot be opened: .*Check the cable"):
            await Transport("parrot", host.connect).open()

    run_virtual(main())


def test_what_can_be_no_reply_is_a_framing_error() -> None:
    def never(buffer: bytes) -> tuple[int, int] | None:
        if buffer:
            raise ValueError(f"{buffer!r} begins no reply")
        return None

    async def use(transport: Transport, host: MemoryHost) -> None:
        with pytest.raises(FramingError, match="begins no reply"):
            await transport.exchange(b"hello\r", never, timeout_s=0.1)

    talk(use)


def test_two_that_share_a_line_take_turns() -> None:
    async def use(transport: Transport, host: MemoryHost) -> None:
        await transport.open()
        replies = await asyncio.gather(*(transport.exchange(b"%d\r" % i, CR, timeout_s=0.1) for i in range(5)))
        assert replies == [b"%d\r" % i for i in range(5)]
        await transport.close()
        assert transport.is_open

    talk(use)


def test_errors_of_the_line_are_one_kind() -> None:
    assert all(issubclass(kind, LinkError) for kind in (ReplyTimeout, FramingError, Interrupted, Disconnected))


@pytest.mark.parametrize(
    ("failures", "calls"),
    [([], 1), ([ReplyTimeout("x", "late")], 2), ([ReplyTimeout("x", "late"), FramingError("x", "bad")], 3)],
)
def test_an_exchange_is_repeated_until_it_succeeds(failures: list[Exception], calls: int) -> None:
    made = 0

    async def exchange() -> str:
        nonlocal made
        made += 1
        if failures:
            raise failures.pop(0)
        return "yes"

    assert run_virtual(repeat(exchange)) == "yes"
    assert made == calls


@pytest.mark.parametrize(("failure", "calls"), [(ReplyTimeout("x", "late"), 3), (Disconnected("x", "gone"), 1)])
def test_the_last_failure_is_raised_and_a_line_that_is_gone_at_once(failure: Exception, calls: int) -> None:
    made = 0

    async def exchange() -> None:
        nonlocal made
        made += 1
        raise failure

    with pytest.raises(type(failure)):
        run_virtual(repeat(exchange, tries=3))
    assert made == calls
