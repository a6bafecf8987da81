"""The matchers as they were imported before there was `evaluation`, which has them now."""

from ..evaluation.matching import names_it, reference_match, strict_match

__all__ = ["names_it", "reference_match", "strict_match"]
