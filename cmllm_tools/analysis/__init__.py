"""Which layers and heads look at what, and whether that says anything about the answer."""

from .activation import grad_cam, token_activation
from .attribution.agreement import Agreement, agreement, rank_correlations
from .attribution.attribute import Attribution, attribute
from .attribution.faithfulness import Curves, infidelity, insertion_deletion, sensitivity
from .choices import Choice
from .examples import Example
from .frontier import Frontier, frontier
from .gradients import GradientProfile, gradient_profile
from .head_ranking import HeadRanking
from .intervals import bootstrap
from .maps import relevancy, rollout
from .ranking_run import answer_words, rank_heads
from .recommend import Recommendation, recommend
from .region_shares import HeadGrid, head_shares
from .sinks import Sinks, sinks, sinks_in
from .sweep import Sweep
from .window_sweep import sweep_windows

__all__ = [
    "Agreement",
    "Attribution",
    "Choice",
    "Curves",
    "Example",
    "Frontier",
    "GradientProfile",
    "HeadGrid",
    "HeadRanking",
    "Recommendation",
    "Sinks",
    "Sweep",
    "agreement",
    "answer_words",
    "attribute",
    "bootstrap",
    "frontier",
    "grad_cam",
    "gradient_profile",
    "infidelity",
    "insertion_deletion",
    "rank_correlations",
    "rank_heads",
    "recommend",
    "head_shares",
    "relevancy",
    "rollout",
    "sensitivity",
    "sinks",
    "sinks_in",
    "sweep_windows",
    "token_activation",
]
