"""Examples by the thousand: the one runner, its records, scorers, and what they come to."""

from ..running.cluster import Workers
from .matching import published_match, strict_match
from .published import Reproduction, reproduce
from .records import Record, merge, read_records
from .runner import Unsteered, evaluate, spread
from .scorers import SCORERS, Captions, Figure, Judged, Published, Scorer, Strict, scorer
from .summary import Difference, Evaluation

__all__ = [
    "SCORERS",
    "Captions",
    "Difference",
    "Evaluation",
    "Figure",
    "Judged",
    "Published",
    "Record",
    "Reproduction",
    "Scorer",
    "Strict",
    "Unsteered",
    "Workers",
    "evaluate",
    "merge",
    "published_match",
    "read_records",
    "reproduce",
    "scorer",
    "spread",
    "strict_match",
]
