"""Where pictures are taken: the places of tiles and of focus points over an area, in the order of the visits.

Places are in micrometres on the chip, from its corner; a picture's place is its middle.
"""

from __future__ import annotations

import math
from typing import Final

from cartoseq.controller.recipe import Area

#: Pictures of a sweep for the focus: coarse ones over all of it, then fine ones around the best.
SWEEP_COARSE: Final = 9
SWEEP_FINE: Final = 5


def tile_places(
    area: Area, tile_um: tuple[float, float], overlap_percent: float, across: int, down: int
) -> list[tuple[int, int, float, float]]:
    """Row, column, x and y of every tile, row by row to and fro.

    Args:
        area: What the tiles cover, from its corner on.
        tile_um: Width and height of a picture.
        overlap_percent: How much of it neighbours show again.
        across: Tiles in a row.
        down: Rows.
    """
    keep = 1 - overlap_percent / 100
    places = []
    for row in range(down):
        for column in range(across) if row % 2 == 0 else reversed(range(across)):
            x_um = area.x_um + tile_um[0] * (0.5 + column * keep)
            y_um = area.y_um + tile_um[1] * (0.5 + row * keep)
            places.append((row, column, x_um, y_um))
    return places


def focus_places(area: Area, count: int) -> list[tuple[float, float]]:
    """Points spread over an area, in rows to and fro; at least `count` of them."""
    across = max(1, round(math.sqrt(count * area.width_um / area.height_um)))
    down = max(1, math.ceil(count / across))
    return [
        (area.x_um + area.width_um * (column + 0.5) / across, area.y_um + area.height_um * (row + 0.5) / down)
        for row in range(down)
        for column in (range(across) if row % 2 == 0 else reversed(range(across)))
    ]
