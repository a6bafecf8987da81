"""Which layers and heads look at what, and whether that says anything about the answer."""

from .examples import Example
from .heads import HeadRanking, named, rank_heads
from .layers import HeadGrid, region_share

__all__ = [
    "Example",
    "HeadGrid",
    "HeadRanking",
    "named",
    "rank_heads",
    "region_share",
]
