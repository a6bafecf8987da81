"""Which layers and heads look at what, and whether that says anything about the answer."""

from .examples import Example
from .sweep import Choice, Recommendation, Sweep, recommend
from .windows import sweep_windows

__all__ = ["Choice", "Example", "Recommendation", "Sweep", "recommend", "sweep_windows"]
