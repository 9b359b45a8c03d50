"""Line charts as SVG text: small, without scripts and fonts of their own, for the report."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Colours that colour-blind readers tell apart (Okabe and Ito).
OKABE_ITO = {
    "orange": "#e69f00",
    "sky": "#56b4e9",
    "green": "#009e73",
    "blue": "#0072b2",
    "vermilion": "#d55e00",
    "purple": "#cc79a7",
    "grey": "#8a8a8a",
}

_WIDTH, _HEIGHT = 560, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 20, 40


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: What it is, in the legend.
        x: Values.
        y: Values; NaN makes a gap.
        colour: As in SVG.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float],
    x_range: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    x_text: Callable[[float], str] = lambda value: f"{value:,.6g}",
) -> str:
    """Draw lines over a common x.

    Args:
        lines: What to draw; a legend names them if there are several.
        title: For readers who do not see the picture.
        x_label: Below the axis, with unit.
        y_label: Above the axis, with unit.
        y_range: Lowest and highest y shown.
        x_range: Lowest and highest x shown; that of the data if None.
        marks: Vertical lines: where, and what begins there.
        x_text: How a number on the x axis is written.

    Returns:
        An ``<svg>`` element.
    """
    every_x = [value for line in lines for value in line.x]
    low_x, high_x = x_range or (min(every_x, default=0), max(every_x, default=1))
    if high_x <= low_x:
        high_x = low_x + 1
    low_y, high_y = y_range
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at_x(value: float) -> float:
        return _LEFT + (value - low_x) / (high_x - low_x) * inner_width

    def at_y(value: float) -> float:
        return _TOP + (1 - (value - low_y) / (high_y - low_y)) * inner_height

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{html.escape(title)}</title>",
    ]
    for tick in ticks(low_y, high_y, 5):
        y = at_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(low_x, high_x, 6):
        x = at_x(tick)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEIGHT - _BOTTOM}" y2="{_HEIGHT - _BOTTOM + 4}"/>'
        )
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{x_text(tick)}</text>'
        )
    for where, name in marks:
        x = at_x(where)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x + 1:.1f}" y="{_TOP - 7}">{html.escape(name)}</text>')
    stroke = 'fill="none" stroke-width="1.8" stroke-linejoin="round" stroke-linecap="round"'
    parts.extend(f'<path d="{_path(line, at_x, at_y)}" {stroke} stroke="{line.colour}"/>' for line in lines)
    parts.append(
        f'<text class="label" x="{_LEFT + inner_width / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>"
        f'<text class="label" transform="translate(13 {_TOP + inner_height / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text></svg>"
    )
    if len(lines) > 1:
        keys = "".join(
            f'<span><i style="background:{line.colour}"></i>{html.escape(line.name)}</span>' for line in lines
        )
        parts.append(f'<div class="legend">{keys}</div>')
    return "".join(parts)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between two limits: about as many as asked for."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _path(line: Line, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> str:
    commands = []
    pen_down = False
    for x, y in zip(line.x, line.y, strict=True):
        if math.isnan(y):
            pen_down = False
            continue
        commands.append(f"{'L' if pen_down else 'M'}{at_x(x):.1f} {at_y(y):.1f}")
        pen_down = True
    return "".join(commands)
