"""The progress of a run in words and in a picture of characters: what a screen shows of a :class:`LiveState`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from rich.text import Text

from cartoseq.controller.supervisor import LiveState

#: The rate is taken over so many seconds.
_RATE_WINDOW_S = 30.0
#: Before so many seconds nobody can tell how long it will take.
_RATE_SETTLES_S = 3.0
#: No new reads for so long, and it is said.
_STILL_S = 5.0
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
_SHADES = " ░▒▓█"


class Rate:
    """Reads per second over the last seconds, and what is left at that pace.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int, float]] = deque()
        self._moved_s = clock()

    def add(self, reads: int, fraction: float) -> None:
        """Note how far it is. What comes before the first read is no part of the pace."""
        now_s = self._clock()
        if not self._seen or reads != self._seen[-1][1]:
            self._moved_s = now_s
        if reads == 0:
            return
        self._seen.append((now_s, reads, fraction))
        while len(self._seen) > 2 and now_s - self._seen[0][0] > _RATE_WINDOW_S:
            self._seen.popleft()

    @property
    def reads_per_s(self) -> float | None:
        """Reads per second, or None while that cannot be told."""
        if self._took_s < _RATE_SETTLES_S:
            return None
        return (self._seen[-1][1] - self._seen[0][1]) / self._took_s

    @property
    def left_s(self) -> float | None:
        """Seconds left, or None while that cannot be told."""
        if self._took_s < _RATE_SETTLES_S:
            return None
        gained = self._seen[-1][2] - self._seen[0][2]
        return (1.0 - self._seen[-1][2]) * self._took_s / gained if gained > 0 else None

    @property
    def still_s(self) -> float:
        """Seconds since reads came, once the first have."""
        return self._clock() - self._moved_s if self._seen else 0.0

    @property
    def _took_s(self) -> float:
        return self._seen[-1][0] - self._seen[0][0] if self._seen else 0.0


def duration(seconds: float) -> str:
    """A duration as a person says it: "42 s", "3 min 10 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def about(seconds: float) -> str:
    """A duration that is an estimate: above a minute in steps of ten seconds, so that it does not flicker."""
    return duration(seconds if seconds < 60 else round(seconds, -1))


def phase(state: LiveState) -> str:
    """What is going on, where that is not the folding of reads; empty while it is."""
    if state.status.get("complete"):
        return "writing the maps"
    if state.stopping:
        return "stopping: what was read is brought to safety (Ctrl-C again: at once)"
    if not state.status:
        return "opening the chip and the references"
    if not state.reads and not state.waiting:
        read = any(reader["reads"] for reader in state.readers.values())
        return "folding the first reads" if read else "waiting for the first reads"
    return ""


def waiting(state: LiveState) -> str:
    """Why the run waits, for the user to mend; empty while it does not."""
    if not state.waiting:
        return ""
    if "free" in state.waiting or "No space" in state.waiting or "quota" in state.waiting:
        return f"WAITING: the disk is full: {state.waiting}"
    return f"WAITING: {state.waiting}"


def pace(state: LiveState, rate: Rate) -> list[str]:
    """How far it is and how fast, in a few parts; nothing that is not known yet."""
    parts = [f"{state.reads:,} reads"]
    if rate.still_s > _STILL_S:
        parts.append(f"no new reads for {duration(rate.still_s)}")
    else:
        if rate.reads_per_s is not None:
            parts.append(f"{rate.reads_per_s:,.0f} reads/s")
        if rate.left_s is not None and not state.growing:
            parts.append(f"{about(rate.left_s)} left")
    if state.restarts:
        parts.append(f"{state.restarts} restart{'s' if state.restarts > 1 else ''}")
    return parts


def library_lines(state: LiveState) -> list[str]:
    """What became of the reads so far, a line for each library that has any."""
    counted = {name: counts for name, counts in state.status.get("libraries", {}).items() if counts["reads_total"]}
    width = max(map(len, counted), default=0)
    lines = []
    for name, counts in counted.items():
        total = counts["reads_total"]
        placed = counts["located_exact"] + counts["located_corrected"]
        lines.append(
            f"{name:<{width}}  {100 * placed / total:.1f} % on the chip, {100 * counts['assigned'] / total:.1f} % "
            f"assigned, {counts['molecules']:,} molecules, saturation {100 * counts['saturation']:.1f} %"
        )
    return lines


def half_block_picture(image: NDArray[np.uint32], columns: int, rows: int, *, colours: bool = True) -> list[Text]:
    """Draw a count image with half blocks: two pixels a character, square pixels, dark to light by the square root.

    Args:
        image: Counts, shape (height, width).
        columns: Characters to a line at most.
        rows: Lines at most.
        colours: Whether there are colours; without, a character is one of five shades.

    Returns:
        The lines, all of one width.
    """
    scale = min(1.0, columns / image.shape[1], 2 * rows / image.shape[0])
    small = _shrunk(_shrunk(image.astype(np.float64), 0, scale), 1, scale)
    if small.shape[0] % 2:
        small = np.vstack([small, np.zeros((1, small.shape[1]))])
    if not colours:
        shades = _levels(small[0::2] + small[1::2], len(_SHADES))
        return [Text("".join(_SHADES[shade] for shade in line)) for line in shades.tolist()]
    levels = _levels(small, len(_PALETTE))
    return [
        Text("").join(_run(high, low, len(list(cells))) for (high, low), cells in groupby(zip(*pair, strict=True)))
        for pair in _pairs(levels)
    ]


def _shrunk(image: NDArray[np.float64], axis: int, scale: float) -> NDArray[np.float64]:
    """Make one side shorter. A pixel is the mean of those that fall into it: uneven numbers leave no stripes."""
    length = image.shape[axis]
    wanted = max(1, int(length * scale))
    starts = np.arange(wanted) * length // wanted
    sizes = np.diff(starts, append=length)
    sums = np.add.reduceat(image, starts, axis=axis)
    return np.asarray(sums / (sizes[:, None] if axis == 0 else sizes))


def _pairs(levels: NDArray[np.int64]) -> Iterator[tuple[list[int], list[int]]]:
    return zip(levels[0::2].tolist(), levels[1::2].tolist(), strict=True)


def _run(high: int, low: int, cells: int) -> Text:
    return Text("▀" * cells, Style(color=_rgb(high), bgcolor=_rgb(low)))


def _levels(counts: NDArray[np.float64], levels: int) -> NDArray[np.int64]:
    """The step of each count on a scale from nothing to nearly the most."""
    root = np.sqrt(counts)
    top = np.quantile(root, 0.995) or root.max() or 1.0
    steps = np.minimum(root / top * (levels - 1), levels - 1).astype(np.int64)
    return np.asarray(steps)


def _rgb(level: int) -> str:
    red, green, blue = _PALETTE[level]
    return f"rgb({red},{green},{blue})"
