"""Referring data sets in their public formats, matchers of answers, and evaluations."""

from .embedded import chooses, evaluate
from .heldout import DEMO_SCENE, DESCRIPTIONS, HELDOUT, QUESTIONS, demo_scene, held_out
from .roc import ReferringExample, read_roc
from .smol_sets import smol_held_out, smol_scene

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
    "smol_held_out",
    "smol_scene",
]
