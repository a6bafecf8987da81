"""Cards of what is found by changing something inside the model."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ...causes.answering import AnswerTrace
from ...causes.grid import CauseGrid
from ...shown import view
from ..html import bar, card, table, text
from ..picture import grid_picture, map_picture

# Cells that a card lists; tokens that it has pictures of, how many in a row, and how wide each is, in pixels.
CELLS, TOKENS, ACROSS, STAMP = 8, 24, 8, 72


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


@view(AnswerTrace)
def answer_trace_card(trace: AnswerTrace) -> Markup:
    """A strip of small pictures, each token's map on one scale, with what lies in the regions; some of a long answer."""
    maps = [trace.layout.raster(each.numpy()) for each in trace.maps]
    top = max(float(each.max()) for each in maps) or 1.0
    chosen = np.unique(np.linspace(0, len(maps) - 1, min(len(maps), TOKENS)).round().astype(int)).tolist()
    strips = [chosen[at : at + ACROSS] for at in range(0, len(chosen), ACROSS)]
    return card(type(trace).__name__, trace.facts(), below=Markup().join(_strip(trace, each, maps, top) for each in strips))


def _strip(trace: AnswerTrace, tokens: Sequence[int], maps: Sequence[np.ndarray], top: float) -> Markup:
    pictures = [
        map_picture(maps[at], trace.layout, trace.image, top=top, regions=trace.regions, longest=STAMP) for at in tokens
    ]
    several = len(trace.regions) > 1
    rows = [
        [*(f"{trace.shares[at, number]:.0%}" for at in tokens), f"in region {number + 1}" if several else "in the region"]
        for number in range(len(trace.regions))
    ]
    rows.append([*(f"{trace.on_image[at]:.0%}" for at in tokens), "on the image"])
    return table([*(text(trace.words[at]) for at in tokens), ""], [[*pictures, ""], *rows])
