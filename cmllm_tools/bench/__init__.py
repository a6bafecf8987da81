"""Evaluations of the models that come with the package on their held-out scenes, and ROC read whole."""

from ..data.formats.roc import ReferringExample, read_roc
from .embedded import chooses, evaluate
from .heldout import DEMO_SCENE, DESCRIPTIONS, HELDOUT, QUESTIONS, demo_scene, held_out
from .smol_sets import smol_held_out, smol_scene
from .word_pictures import word_picture, word_reader, word_scenes

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
    "word_picture",
    "word_reader",
    "word_scenes",
]
