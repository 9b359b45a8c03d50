"""`cartoseq simulate`: simulated devices on ports of this machine, until somebody ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cartoseq.controller.settingsfile import FileKind, Problem, parse, read_text, settings_error
from cartoseq.simulators.rack import Rack, RackError, build
from cartoseq.streaming.errors import InputError

#: A rack file checks itself (`simulators.rack`), since that room knows no models of ours.
RACK: Final = FileKind("rack", {})


def load_rack(path: Path, *, start_s: float = 0.0) -> Rack:
    """Make the rack that a file describes; nothing is opened yet.

    Args:
        path: The rack file (TOML, `simulators.rack`).
        start_s: The simulated time from which its faults count.

    Raises:
        InputError: the file cannot be read, or describes no sound rack; with line and key.
    """
    text = read_text(path, RACK)
    content = parse(text, path)
    try:
        return build(content, start_s=start_s)
    except RackError as error:
        raise _told(path, text, error) from None


def simulate(path: Path, say: Callable[[str], None]) -> None:
    """Serve a rack until it is interrupted (SIGINT or SIGTERM).

    Args:
        path: The rack file.
        say: Is told each address, a line each, once all are open.

    Raises:
        InputError: the file is not sound, or an address cannot be opened.
    """
    asyncio.run(_simulate(path, say))


async def _simulate(path: Path, say: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    # What the faults count from is known once the file is read: its speed scales the loop's time.
    speed = load_rack(path).speed
    rack = load_rack(path, start_s=loop.time() * speed)
    try:
        await rack.serve()
    except RackError as error:
        raise _told(path, read_text(path, RACK), error) from None
    with contextlib.suppress(BrokenPipeError):
        width = max(len("control"), *(len(name) for name in rack.lines))
        for name, line in rack.lines.items():
            others = [device for device in line.devices if device not in (name, name.partition(".")[0])]
            say(f"{name:<{width}}  {line.address}" + (f"  (with {', '.join(others)})" if others else ""))
        say(f"{'control':<{width}}  tcp://127.0.0.1:{rack.control_port}")
    try:
        await ended.wait()
    finally:
        await rack.close()


def _told(path: Path, text: str, error: RackError) -> InputError:
    """Say of a fault in a rack file on which line it is."""
    return settings_error(path, text, [Problem(error.path, error.problem, f"Correct it; {RACK.page} shows how.")])
