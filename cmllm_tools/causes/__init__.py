"""Causes instead of looks: something inside the model is changed, to see what it does to the answer.

Examples:
    >>> change = cm.causes.knockout(mllm, prompt, from_="after_image", to="image")
    >>> change.difference < -10
    True
"""

from .cutting import knockout, knockout_grid
from .edits import AttentionCut, HeadsPut
from .grid import CauseGrid
from .patching import patch
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
    "patch",
]
