"""Plotly figures of maps and traces. Each function returns a figure and shows nothing; plotly loads at the first call.

`figure.save("figure.pdf")` writes any of them for a paper, drawn by matplotlib: PDF, SVG or PNG, a column wide or two.

A notebook stores each figure with static HTML, so that it reads well on GitHub, exported, and where plotly.js is missing.

Text that comes from a model or a user is escaped: plotly renders a subset of HTML.

Examples:
    >>> figure = cm.figures.map_on_image(cmap, prompt.image, box)
    >>> type(figure).__name__
    'Figure'
"""

from .compare import curves, token_weights
from .effects import comparison, frontier
from .faithfulness import insertion_deletion
from .grids import cause_grid, head_grid, head_ranking, layer_head_grid
from .many import head_maps, runs_side_by_side
from .maps import map_on_image, maps_on_image, sinks_on_image, visual_tokens
from .readings import answer_regions, words_by_token, words_on_image
from .runs import before_after, energy_curve, step_player
from .window_grid import window_grid

__all__ = [
    "answer_regions",
    "before_after",
    "cause_grid",
    "comparison",
    "curves",
    "energy_curve",
    "frontier",
    "head_grid",
    "head_maps",
    "head_ranking",
    "insertion_deletion",
    "layer_head_grid",
    "map_on_image",
    "maps_on_image",
    "runs_side_by_side",
    "sinks_on_image",
    "step_player",
    "token_weights",
    "visual_tokens",
    "window_grid",
    "words_by_token",
    "words_on_image",
]
