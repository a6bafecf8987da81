"""Which layers and heads look at what, and whether that says anything about the answer."""

from .examples import Example
from .layers import HeadGrid, region_share

__all__ = ["Example", "HeadGrid", "region_share"]
