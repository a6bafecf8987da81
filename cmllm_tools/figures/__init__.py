"""Plotly figures of maps and traces. Each function returns a figure and shows nothing; plotly loads at the first call.

Text that comes from a model or a user is escaped: plotly renders a subset of HTML.
"""

from .compare import curves, token_weights
from .grids import layer_head_grid
from .maps import map_on_image, visual_tokens
from .runs import before_after, energy_curve, step_player

__all__ = [
    "before_after",
    "curves",
    "energy_curve",
    "layer_head_grid",
    "map_on_image",
    "step_player",
    "token_weights",
    "visual_tokens",
]
