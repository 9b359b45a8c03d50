"""The progress of a run for a person: a live picture on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.style import Style
from rich.text import Text

from cartoseq.analysis.binner import decode_image
from cartoseq.controller.supervisor import LiveState

_PLAIN_INTERVAL_S = 5.0
_LIVE_INTERVAL_S = 0.25
#: The rate is taken over so many seconds.
_RATE_WINDOW_S = 10.0
_PICTURE_COLUMNS = 60
_PICTURE_ROWS = 20
#: Dark violet to yellow, evenly light: readable without colour vision.
_PALETTE = (
    (13, 8, 35),
    (59, 15, 112),
    (114, 31, 129),
    (171, 51, 124),
    (225, 83, 98),
    (250, 132, 86),
    (254, 187, 113),
    (252, 246, 190),
)


class Rate:
    """Reads per second over the last seconds, and what is left at that pace.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int, float]] = deque()

    def add(self, reads: int, fraction: float) -> None:
        """Note how far it is."""
        now_s = self._clock()
        self._seen.append((now_s, reads, fraction))
        while len(self._seen) > 2 and now_s - self._seen[0][0] > _RATE_WINDOW_S:
            self._seen.popleft()

    @property
    def reads_per_s(self) -> float:
        """Reads per second."""
        if len(self._seen) < 2 or self._seen[-1][0] == self._seen[0][0]:
            return 0.0
        return (self._seen[-1][1] - self._seen[0][1]) / (self._seen[-1][0] - self._seen[0][0])

    @property
    def left_s(self) -> float | None:
        """Seconds left, or None while that cannot be told."""
        if len(self._seen) < 2:
            return None
        gained = self._seen[-1][2] - self._seen[0][2]
        took_s = self._seen[-1][0] - self._seen[0][0]
        return (1.0 - self._seen[-1][2]) * took_s / gained if gained > 0 else None


def duration(seconds: float | None) -> str:
    """A duration as a person says it: "42 s", "3 min 10 s", "2 h 5 min"; "?" for None."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def summary(state: LiveState, rate: Rate) -> list[str]:
    """What is known so far, a line for each library after the line of the pace."""
    lines = [
        f"{state.reads:,} reads folded, {rate.reads_per_s:,.0f} reads/s, {duration(rate.left_s)} left"
        + (f", {state.restarts} restarts" if state.restarts else "")
    ]
    for name, counts in state.status.get("libraries", {}).items():
        total = counts["reads_total"] or 1
        placed = counts["located_exact"] + counts["located_corrected"]
        lines.append(
            f"{name}: {100 * placed / total:.1f} % on the chip, {100 * counts['assigned'] / total:.1f} % assigned, "
            f"{counts['molecules']:,} molecules, saturation {100 * counts['saturation']:.1f} %"
        )
    return lines


def half_block_picture(image: NDArray[np.uint32], columns: int, rows: int) -> Text:
    """Draw a count image with half blocks: two pixels a character, square pixels, dark to light by the square root.

    Args:
        image: Counts, shape (height, width).
        columns: Characters to a line at most.
        rows: Lines at most.
    """
    step = max(1, -(-image.shape[1] // columns), -(-image.shape[0] // (2 * rows)))
    height, width = (-(-side // step) for side in image.shape)
    height += height % 2
    padded = np.zeros((height * step, width * step))
    padded[: image.shape[0], : image.shape[1]] = image
    small = np.sqrt(padded.reshape(height, step, width, step).sum(axis=(1, 3)))
    top = np.quantile(small, 0.995) or small.max() or 1.0
    levels = np.minimum(small / top * (len(_PALETTE) - 1), len(_PALETTE) - 1).astype(int)
    text = Text()
    for upper, lower in zip(levels[0::2], levels[1::2], strict=True):
        for high, low in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", Style(color=_rgb(high), bgcolor=_rgb(low)))
        text.append("\n")
    return text


def _rgb(level: int) -> str:
    red, green, blue = _PALETTE[level]
    return f"rgb({red},{green},{blue})"


@contextmanager
def shown(console: Console) -> Iterator[Callable[[LiveState], None]]:
    """Give a function that shows the live state: on a terminal as a picture that stays in place, else as lines."""
    if console.is_terminal:
        with _on_terminal(console) as show:
            yield show
    else:
        yield _as_lines(console)


@contextmanager
def _on_terminal(console: Console) -> Iterator[Callable[[LiveState], None]]:
    rate = Rate()
    bar = Progress(TextColumn("[bold]mapping"), BarColumn(bar_width=40), TaskProgressColumn(), console=console)
    task = bar.add_task("mapping", total=1.0)
    due_s = 0.0
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(state: LiveState) -> None:
            nonlocal due_s
            now_s = time.monotonic()
            if now_s < due_s:
                return
            due_s = now_s + _LIVE_INTERVAL_S
            rate.add(state.reads, state.fraction)
            bar.update(task, completed=state.fraction)
            parts: list[RenderableType] = [
                half_block_picture(
                    decode_image(payload),
                    min(_PICTURE_COLUMNS, console.width),
                    min(_PICTURE_ROWS, max(4, console.height - 8)),
                )
                for payload in list(state.images.values())[:1]
            ]
            live.update(Group(*parts, bar, *summary(state, rate)), refresh=True)

        yield show


def _as_lines(console: Console) -> Callable[[LiveState], None]:
    rate = Rate()
    said_s = time.monotonic()

    def show(state: LiveState) -> None:
        nonlocal said_s
        now_s = time.monotonic()
        if now_s - said_s < _PLAIN_INTERVAL_S:
            return
        said_s = now_s
        rate.add(state.reads, state.fraction)
        console.print(
            f"{100 * state.fraction:.0f} % " + "; ".join(summary(state, rate)), highlight=False, soft_wrap=True
        )

    return show


def final_lines(qc: dict[str, Any]) -> list[str]:
    """What became of the reads, a line for each library, from qc.json."""
    lines = []
    for name, library in qc["libraries"].items():
        counts = library["counters"]
        total = counts["reads_total"] or 1
        placed = counts["located_exact"] + counts["located_corrected"]
        lines.append(
            f"{name}: {counts['reads_total']:,} reads, {100 * placed / total:.1f} % on the chip, "
            f"{100 * counts['assigned'] / total:.1f} % assigned, {counts['molecules']:,} molecules, "
            f"saturation {100 * library['saturation']:.1f} %"
        )
    return lines
