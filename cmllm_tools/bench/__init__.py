"""Referring data sets in their public formats, matchers of answers, and evaluations."""

from .embedded import chooses, evaluate
from .heldout import DEMO_SCENE, DESCRIPTIONS, HELDOUT, QUESTIONS, demo_scene, held_out
from .roc import ReferringExample, read_roc

__all__ = [
    "DEMO_SCENE",
    "DESCRIPTIONS",
    "HELDOUT",
    "QUESTIONS",
    "ReferringExample",
    "chooses",
    "demo_scene",
    "evaluate",
    "held_out",
    "read_roc",
]
