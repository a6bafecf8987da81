"""Which layers and heads look at what, and whether that says anything about the answer."""

from .agreement import Agreement, agreement, rank_correlations
from .attribution import Attribution, attribute
from .choices import Choice
from .examples import Example
from .faithfulness import Curves, infidelity, insertion_deletion, sensitivity
from .gradients import GradientProfile, gradient_profile
from .heads import HeadRanking, named, rank_heads
from .layers import HeadGrid, region_share
from .maps import relevancy, rollout
from .sinks import Sinks, sinks, sinks_in
from .sweep import Recommendation, Sweep, recommend
from .windows import sweep_windows

__all__ = [
    "Agreement",
    "Attribution",
    "Choice",
    "Curves",
    "Example",
    "GradientProfile",
    "HeadGrid",
    "HeadRanking",
    "Recommendation",
    "Sinks",
    "Sweep",
    "agreement",
    "attribute",
    "gradient_profile",
    "infidelity",
    "insertion_deletion",
    "named",
    "rank_correlations",
    "rank_heads",
    "recommend",
    "region_share",
    "relevancy",
    "rollout",
    "sensitivity",
    "sinks",
    "sinks_in",
    "sweep_windows",
]
