"""Which layers and heads look at what, and whether that says anything about the answer."""

from .examples import Example
from .gradients import GradientProfile, gradient_profile
from .heads import HeadRanking, named, rank_heads
from .layers import HeadGrid, region_share
from .maps import relevancy, rollout
from .sinks import Sinks, sinks, sinks_in

__all__ = [
    "Example",
    "GradientProfile",
    "HeadGrid",
    "HeadRanking",
    "Sinks",
    "gradient_profile",
    "named",
    "rank_heads",
    "region_share",
    "relevancy",
    "rollout",
    "sinks",
    "sinks_in",
]
