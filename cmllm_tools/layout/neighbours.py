"""Which visual tokens look beside which: within a grid, a tile, or several tiles that lie side by side."""

import numpy as np
from scipy.spatial import cKDTree

from .sheet import SheetLayout
from .visual_tokens import VisualTokenLayout

# How far a box may lie from where its neighbour's would, as a share of its shorter side: edges are rounded to pixels.
APART = 0.25


def neighbourhoods(layout: VisualTokenLayout) -> np.ndarray:
    """The 3 x 3 visual tokens around each: (visual token, 9), row by row, the token itself in the middle.

    Beyond an edge stands what lies on the other side of the token, as if the map were mirrored there; where nothing of the
    token's size lies beside it (a class token, one alone), the token itself.
    """
    if isinstance(layout, SheetLayout):
        found = np.zeros((len(layout), 9), int)
        for number, one in enumerate(layout.layouts):
            own = np.arange(len(layout))[layout.tokens_of(number)]
            found[own] = own[neighbourhoods(one)]
        return found
    boxes = layout.boxes.astype(float)
    itself = np.arange(len(boxes))
    tree, sides = cKDTree(boxes), boxes[:, 2:] - boxes[:, :2]

    def beside(axis: int, way: int) -> np.ndarray:
        """(visual token,): the token next along an axis; -1 where there is none."""
        step = np.zeros_like(boxes)
        step[:, [axis, axis + 2]] = way * sides[:, axis, None]
        distance, nearest = tree.query(boxes + step)
        return np.where((distance < APART * sides.min(1)) & (nearest != itself), nearest, -1)

    def three(axis: int) -> list[np.ndarray]:
        before, after = beside(axis, -1), beside(axis, 1)
        mirrored = np.where(before >= 0, before, after), np.where(after >= 0, after, before)
        first, last = (np.where(each >= 0, each, itself) for each in mirrored)
        return [first, itself, last]

    return np.stack([column[row] for row in three(1) for column in three(0)], 1)
