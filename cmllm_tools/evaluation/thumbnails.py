"""Attention before and after steps, small enough to stand in every record: a hexadecimal digit to each cell of its map."""

from functools import partial
from typing import Any

import numpy as np

from ..errors import DataError
from ..referring.trace import Trace
from ..stored import Reader, finite, items, pair_of, record, text_of, whole
from ..strict import shown

# Longest side of a map, in cells; of larger ones, neighbours are added up.
SIDE = 24
LEVELS = "0123456789abcdef"


def thumbnails(trace: Trace) -> dict[str, Any]:
    """The maps of a run's first and last step, as a record has them.

    Returns:
        `grid`: (rows, columns); `on`: corners (x0, y0, x1, y1) of the map in pixels of the image that was sent; `before`
        and `after`: the map row by row, each cell as one of 16 levels, of which the highest is the most of either map.
    """
    maps = np.stack([trace.steps[end].maps.float().mean(0).numpy() for end in (0, -1)])
    grids, cells = trace.layout.raster(maps), trace.layout.cells
    rows, columns = grids.shape[1:]
    low, high = cells[0, 0, :2], cells[-1, -1, 2:]
    if (by := -(-max(rows, columns) // SIDE)) > 1:
        # What is left of the last row and column is filled up with nothing, and the corner moved out with it.
        more = -rows % by, -columns % by
        grids = np.pad(grids, ((0, 0), (0, more[0]), (0, more[1])))
        high = low + (high - low) * (np.array([columns + more[1], rows + more[0]]) / (columns, rows))
        rows, columns = grids.shape[1] // by, grids.shape[2] // by
        grids = grids.reshape(2, rows, by, columns, by).sum((2, 4))
    levels = np.round(grids / max(float(grids.max()), 1e-30) * (len(LEVELS) - 1)).astype(int)
    before, after = ("".join(LEVELS[level] for level in each.ravel()) for each in levels)
    on = tuple(round(float(value), 1) for value in (*low, *high))
    return {"grid": (rows, columns), "on": on, "before": before, "after": after}


def read_thumbnails(value: Any, what: str) -> dict[str, Any]:
    """What `thumbnails` gave, from a file.

    Raises:
        DataError: for anything else.
    """
    found = record(value, what, _READERS)
    grid, corners = found["grid"], found["on"]
    if len(corners) != 4:
        raise DataError(f"{what} must have four corners; got {shown(corners)}.")
    for name in ("before", "after"):
        if len(found[name]) != grid[0] * grid[1] or not set(found[name]) <= set(LEVELS):
            raise DataError(f"{what}'s {name} must be {grid[0] * grid[1]} hexadecimal digits; got {shown(found[name])}.")
    return found


_READERS: dict[str, Reader] = {
    "grid": partial(pair_of, read=partial(whole, least=1, most=SIDE)),
    "on": partial(items, read=finite),
    "before": text_of,
    "after": text_of,
}
