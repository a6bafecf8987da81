"""Cards of what is found by changing something inside the model."""

import numpy as np
from markupsafe import Markup

from ...causes.grid import CauseGrid
from ...shown import view
from ..html import bar, card, table, text
from ..picture import grid_picture

# Cells that a card lists.
CELLS = 8


@view(CauseGrid)
def cause_grid_card(grid: CauseGrid) -> Markup:
    """All cells as a picture, those that change most in a table."""
    down, across = grid.axes
    strongest = grid.strongest(CELLS)
    most = max((abs(change) for _, _, change in strongest), default=0.0) or 1.0
    rows = [[row, column, f"{change:+.3f}", bar(abs(change) / most), ""] for row, column, change in strongest]
    listed = table([down, across, f"change of the {grid.measure}", text(""), ""], rows)
    if not np.isfinite(grid.values).any():
        return card(type(grid).__name__, grid.facts())
    shown = grid_picture(grid.change, f"{down} (down) x {across}; vermilion: more", signed=True)
    return card(type(grid).__name__, grid.facts(), shown, below=listed)
