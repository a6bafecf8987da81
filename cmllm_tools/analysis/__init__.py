"""Which layers and heads look at what, and whether that says anything about the answer."""

from .attribution import Attribution, attribute
from .examples import Example
from .gradients import GradientProfile, gradient_profile
from .heads import HeadRanking, named, rank_heads
from .layers import HeadGrid, region_share
from .maps import relevancy, rollout
from .sinks import Sinks, sinks, sinks_in
from .sweep import Choice, Recommendation, Sweep, recommend
from .windows import sweep_windows

__all__ = [
    "Attribution",
    "Choice",
    "Example",
    "GradientProfile",
    "HeadGrid",
    "HeadRanking",
    "Recommendation",
    "Sinks",
    "Sweep",
    "attribute",
    "gradient_profile",
    "named",
    "rank_heads",
    "recommend",
    "region_share",
    "relevancy",
    "rollout",
    "sinks",
    "sinks_in",
    "sweep_windows",
]
