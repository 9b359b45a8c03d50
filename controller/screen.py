"""The screen of a command: on a terminal a block of lines that stays in place, everywhere else plain lines.

On a terminal the block is painted over itself, line by line and only where it changed, so that nothing flickers; lines
are cut at the edge and never wrap; the cursor is hidden meanwhile; the block is gone when the command ends. A terminal
that goes away ends no run: nothing is shown from then on.
"""

from __future__ import annotations

import io
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.text import Text

from cartoseq.analysis.liveimage import decode_image
from cartoseq.controller.progress import Rate, duration, half_block_picture, library_lines, pace, phase, waiting
from cartoseq.controller.supervisor import LiveState

_PLAIN_INTERVAL_S = 5.0
_WAITING_INTERVAL_S = 60.0
_STEP_INTERVAL_S = 60.0
_PAINT_INTERVAL_S = 0.1
_SHOW_INTERVAL_S = 0.25
_PICTURE_ROWS = 20
_FEWEST_ROWS = 6
_BAR_CELLS = 40
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_TO_LINE_END, _TO_SCREEN_END = "\x1b[K", "\x1b[J"


class PlainScreen:
    """Lines for a file, a pipe or a simple terminal: one every few seconds.

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rate = Rate()
        self._said_s = time.monotonic()
        self._doing = ""
        self._waiting = ""
        self._waiting_said_s = 0.0
        self._step_said_s: float | None = None

    def say(self, line: str) -> None:
        """Say a line."""
        try:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        except OSError:
            self._console.quiet = True

    def doing(self, what: str, fraction: float | None = None) -> None:
        """Say what is being done, once, and how far it is every few seconds."""
        now_s = time.monotonic()
        if what != self._doing:
            self.say(f"{what} ...")
        elif fraction is not None and now_s - self._said_s >= _PLAIN_INTERVAL_S:
            self.say(f"{what}: {100 * fraction:.0f} %")
        else:
            return
        self._doing, self._said_s = what, now_s

    def step(self, what: str, fraction: float) -> None:
        """Say every minute what an instrument does, and how far it is."""
        now_s = time.monotonic()
        if self._step_said_s is None or now_s - self._step_said_s >= _STEP_INTERVAL_S:
            self._step_said_s = now_s
            self.say(f"{100 * fraction:.0f} %, {what}")

    def show(self, state: LiveState) -> None:
        """Say every few seconds how far the run is, and at once when it has to wait."""
        now_s = time.monotonic()
        why = waiting(state)
        if bool(why) != bool(self._waiting) or (why and now_s - self._waiting_said_s >= _WAITING_INTERVAL_S):
            self._waiting_said_s = self._said_s = now_s
            self.say(why or "going on")
        self._waiting = why
        if now_s - self._said_s < _PLAIN_INTERVAL_S or why:
            return
        self._said_s = now_s
        self._rate.add(state.reads, state.fraction)
        self.say(phase(state) or "; ".join([", ".join([*_percent(state), *pace(state, self._rate)]), *_tidy(state)]))


class TerminalScreen:
    """A block of lines that stays in place, painted by a thread of its own.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._canvas = Console(
            file=io.StringIO(), force_terminal=True, color_system=_colours(console), width=1000, legacy_windows=False
        )
        self._lock = threading.RLock()
        self._painted: list[str] = []
        self._doing = ""
        self._fraction: float | None = None
        self._since_s = time.monotonic()
        self._state: LiveState | None = None
        self._rate = Rate()
        self._due_s = 0.0
        self._pictures: list[str] = []
        self._pictured: tuple[object, ...] = ()
        self._body: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)

    def __enter__(self) -> TerminalScreen:
        self._write(_HIDE_CURSOR)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._paint([])
            self._write(_SHOW_CURSOR)

    def say(self, line: str) -> None:
        """Say a line that stays, above the block."""
        with self._lock:
            block = self._painted
            self._paint([])
            self._write(line + "\n")
            self._paint(block)

    def doing(self, what: str, fraction: float | None = None) -> None:
        """Say what is being done, and how far it is, if that is known."""
        with self._lock:
            self._keep_picture()
            if what != self._doing:
                self._since_s = time.monotonic()
            self._doing, self._fraction, self._state = what, fraction, None

    def step(self, what: str, fraction: float) -> None:
        """Say what an instrument does, and how far it is."""
        self.doing(what, fraction)

    def show(self, state: LiveState) -> None:
        """Show how far the run is."""
        now_s = time.monotonic()
        if now_s < self._due_s and self._state is state and not state.stopping:
            return
        self._due_s = now_s + _SHOW_INTERVAL_S
        with self._lock:
            self._state = state
            self._doing = ""
            self._rate.add(state.reads, state.fraction)
            width, height = self._console.size
            self._body = self._lines_of(state, width)
            self._draw(state, width, height - len(self._body) - 2)

    def _run(self) -> None:
        while not self._ended.wait(_PAINT_INTERVAL_S):
            with self._lock:
                if self._state is not None:
                    self._paint([*self._pictures, *self._head(self._state), *self._body])
                elif self._doing:
                    self._paint([self._busy(self._doing, self._since_s, self._fraction)])

    def _busy(self, what: str, since_s: float | None, fraction: float | None) -> str:
        line = f"{self._spinner()} {what}"
        if fraction is not None:
            return f"{line}  {_bar(fraction, self._console.width - len(line) - 10)}"
        took_s = time.monotonic() - since_s if since_s is not None else 0.0
        return f"{line} ... {duration(took_s)}" if took_s >= 2 else f"{line} ..."

    def _head(self, state: LiveState) -> list[str]:
        """The line that moves."""
        if (why := waiting(state)) and not state.stopping:
            lines = textwrap.wrap(why, max(20, self._console.width - 1))
            return [self._styled(Text(line, "bold yellow")) for line in lines]
        if what := phase(state):
            return [self._busy(what, None, None)]
        if state.growing or not state.fraction:
            return [self._busy("mapping", None, None)]
        return [self._busy("mapping", None, state.fraction)]

    def _lines_of(self, state: LiveState, width: int) -> list[str]:
        lines = [", ".join(pace(state, self._rate))] if state.reads else []
        return [line[: width - 1] for line in [*lines, *library_lines(state)]]

    def _draw(self, state: LiveState, width: int, rows: int) -> None:
        """Draw the pictures side by side, unless they are what is there already."""
        images = dict(state.images) if state.reads else {}
        if rows < _FEWEST_ROWS or not _speaks_blocks(self._console):
            images = {}
        wanted = (tuple(images.values()), width, rows)
        if wanted == self._pictured:
            return
        self._pictured = wanted
        room = (width - 1) // max(1, len(images)) - 2
        colours = _colours(self._console) is not None
        drawn = [
            half_block_picture(decode_image(payload), room, min(_PICTURE_ROWS, rows), colours=colours)
            for payload in images.values()
        ]
        beside = zip(*drawn, strict=True) if drawn else ()
        self._pictures = [self._styled(Text("  ").join(line)) for line in beside]

    def _keep_picture(self) -> None:
        """Leave the picture of a run that is complete on the screen."""
        if self._state is not None and self._state.status.get("complete") and self._pictures:
            self._paint([])
            self._write("\n".join([*self._pictures, ""]))
            self._pictures, self._pictured = [], ()

    def _styled(self, text: Text) -> str:
        with self._canvas.capture() as capture:
            self._canvas.print(text, end="", no_wrap=True, crop=False)
        return capture.get()

    def _spinner(self) -> str:
        return (
            _SPINNER[int(time.monotonic() / _PAINT_INTERVAL_S) % len(_SPINNER)]
            if _speaks_blocks(self._console)
            else "-"
        )

    def _paint(self, lines: list[str]) -> None:
        """Paint the block over the one that is there."""
        lines = lines[-max(1, self._console.height - 1) :]
        if lines == self._painted:
            return
        parts = [_BEGIN, _NO_WRAP, "\r"]
        if self._painted:
            parts.append(f"\x1b[{len(self._painted)}A")
        for number, line in enumerate(lines):
            same = number < len(self._painted) and self._painted[number] == line
            parts.append("\n" if same else f"{line}{_TO_LINE_END}\n")
        parts += [_TO_SCREEN_END, _WRAP, _END]
        self._painted = lines
        self._write("".join(parts))

    def _write(self, text: str) -> None:
        if self._console.quiet:
            return
        try:
            self._console.file.write(text)
            self._console.file.flush()
        except OSError:
            # The terminal is gone; the run is not.
            self._console.quiet = True


@contextmanager
def screen_on(console: Console) -> Iterator[PlainScreen | TerminalScreen]:
    """The screen that fits where the console writes."""
    if console.is_terminal and not console.is_dumb_terminal:
        with TerminalScreen(console) as screen:
            yield screen
    else:
        yield PlainScreen(console)


def _bar(fraction: float, room: int) -> str:
    cells = max(5, min(_BAR_CELLS, room))
    filled = min(cells, int(fraction * cells))
    return f"{'━' * filled}{'─' * (cells - filled)} {int(100 * fraction):3d} %"


def _percent(state: LiveState) -> list[str]:
    return [] if state.growing or not state.fraction else [f"{100 * state.fraction:.0f} %"]


def _tidy(state: LiveState) -> list[str]:
    return [": ".join(line.split(None, 1)) for line in library_lines(state)]


def _colours(console: Console) -> Literal["256", "truecolor"] | None:
    """The colours that a picture can be drawn with; sixteen are too few."""
    if console.no_color:
        return None
    return "truecolor" if console.color_system == "truecolor" else "256" if console.color_system == "256" else None


def _speaks_blocks(console: Console) -> bool:
    return console.encoding.lower().replace("-", "") == "utf8"
