"""Causes instead of looks: something inside the model is changed, to see what it does to the answer."""

from .cutting import knockout, knockout_grid
from .edits import AttentionCut, HeadsPut
from .grid import CauseGrid
from .scored import Change
from .silencing import ablate, ablate_grid

__all__ = [
    "AttentionCut",
    "CauseGrid",
    "Change",
    "HeadsPut",
    "ablate",
    "ablate_grid",
    "knockout",
    "knockout_grid",
]
