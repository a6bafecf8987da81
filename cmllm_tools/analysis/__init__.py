"""Which layers and heads look at what, and whether that says anything about the answer."""

from .examples import Example

__all__ = ["Example"]
