"""The held-out sets of `smol`: everyday things in the styles that its eyes were trained on, and in one they never saw."""

import json
from functools import cache
from pathlib import Path

from ..data.formats.roc import ReferringExample, read_roc
from ..errors import SettingsError
from ..strict import one_of
from .heldout import DESCRIPTIONS, QUESTIONS, VOCABULARY

SMOL_HELDOUT = Path(__file__).parents[1] / "smol" / "heldout"
# Unsteered, the model names another thing of this scene than the one referred to.
DEMO_SCENE = 29
SEEN, UNSEEN = SETS = ("seen_styles", "held_out_style")


def smol_held_out(style: str = SEEN, questions: str = QUESTIONS) -> list[ReferringExample]:
    """The held-out scenes of a style, with one of their two files of questions.

    Raises:
        SettingsError: for a style that is neither "seen_styles" nor "held_out_style".

    Examples:
        >>> scenes = cm.bench.smol_held_out("held_out_style")
        >>> len(scenes), scenes[0].names[0] in scenes[0].objects
        (300, True)
    """
    return read_roc(SMOL_HELDOUT / one_of(style, "style", SETS, SettingsError), questions)


@cache
def smol_names() -> list[str]:
    """Names of all things that scenes may have."""
    found: list[str] = json.loads((SMOL_HELDOUT / VOCABULARY).read_text(encoding="utf-8"))["names"]
    return found


def smol_scene() -> ReferringExample:
    """A held-out scene of `smol`, to try things on; unsteered, it names another thing than the one referred to.

    Examples:
        >>> cm.bench.smol_scene().names
        ('giraffe',)
    """
    return smol_held_out(SEEN, DESCRIPTIONS)[DEMO_SCENE]
