"""A grid of causes to point at: how each change moves the answer, and what the model says under the one that is chosen."""

from collections.abc import Sequence
from typing import Any

import anywidget
import numpy as np
import traitlets

from ..causes import CauseGrid
from .modules import script, style


class CauseView(anywidget.AnyWidget):
    """A `CauseGrid` as cells with a colour and a number, which are clicked or reached by the arrow keys.

    Args:
        grid: some of its values may be nan still; a later state is set by `show`.

    Attributes:
        cell: row and column that were chosen last; None before.
        said: what is known of that cell, as `answered` set it.
    """

    _esm = script("cause_view")
    _css = style("picture", "cause_view")

    data = traitlets.Dict().tag(sync=True)
    cell = traitlets.List(traitlets.Int(), None, allow_none=True).tag(sync=True)
    said = traitlets.Dict().tag(sync=True)

    def __init__(self, grid: CauseGrid, **options: Any):
        super().__init__(data=cause_data(grid), **options)

    def show(self, grid: CauseGrid) -> None:
        """Show what the grid has become."""
        self.data = cause_data(grid)

    def answered(self, cell: Sequence[int], before: str, after: str) -> None:
        """Tell the answer unchanged, and under the change of a cell."""
        self.said = {"cell": list(cell), "before": before, "after": after}


def cause_data(grid: CauseGrid) -> dict[str, Any]:
    """What the browser needs of a grid, as plain JSON data: null where a value is not known yet."""
    change = np.where(np.isfinite(grid.values), grid.change, np.nan)
    return {
        "what": grid.what,
        "measure": grid.measure,
        "answers": [str(each) for each in grid.answers],
        "before": grid.before,
        "change": [[None if np.isnan(value) else float(value) for value in row] for row in change],
        "rows": list(grid.rows),
        "columns": list(grid.columns),
        "axes": list(grid.axes),
    }
