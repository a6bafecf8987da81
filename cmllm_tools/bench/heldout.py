"""The held-out set that comes with the package: scenes that the embedded model never saw, in the ROC format."""

import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..data.formats.roc import ReferringExample, read_roc
from ..errors import DataError
from ..inputs.overlays import draw_overlay
from ..strict import kind_of

HELDOUT = Path(__file__).parents[1] / "embedded" / "heldout"
# The same scenes twice: "is the object a A or a B?", and "describe the object".
QUESTIONS, DESCRIPTIONS = "question_roc.json", "question_describe.json"
# The words that the set's objects are named with, colour and kind.
VOCABULARY = "vocabulary.json"
# Unsteered, the model names another object of this scene than the one referred to.
DEMO_SCENE = 7

# How an overlay is drawn on a scene of 192 px, as the model saw it in training.
OVERLAY_SCALE = 0.7
OVERLAY_MIN_LINE = 3.5
LINE_ALPHA = (176, 255)
MASK_ALPHA = (64, 112)
# Scene pixels by which the mask overlay extends beyond the object, so that its tint shows against the background.
MASK_MARGIN = 5


def held_out(questions: str = QUESTIONS) -> list[ReferringExample]:
    """The held-out scenes, with one of their two files of questions.

    Examples:
        >>> len(cm.bench.held_out())
        500
    """
    kind_of(questions, str, "The name of a set's file must be a text", DataError)
    return [ReferringExample(each.root, dict(each.data)) for each in _checked(questions)]


@cache
def _checked(questions: str) -> tuple[ReferringExample, ...]:
    # To read and check 500 lines takes a tenth of a second, and one scene of them is asked for again and again.
    return tuple(read_roc(HELDOUT, questions))


def demo_scene() -> ReferringExample:
    """A held-out scene of the embedded model, to try things on: it comes with the package.

    Returns:
        `image` (192 x 192 px), `question` ("describe the object."), `region(kind)` of the object to refer to, as "box",
        "mask", "scribble" or "point", its name first in `names`, and all `objects` of the scene. Unsteered, the model
        names another object.

    Examples:
        >>> scene = cm.demo_scene()
        >>> scene.image.size, scene.names[0], scene.region("box")
        ((192, 192), 'red cross', Box(x0=146, y0=79, x1=192, y1=127))
    """
    return held_out(DESCRIPTIONS)[DEMO_SCENE]


@cache
def vocabulary() -> tuple[frozenset[str], frozenset[str]]:
    """Colours and kinds of the set's objects."""
    words = json.loads((HELDOUT / VOCABULARY).read_text(encoding="utf-8"))
    return frozenset(words["colors"]), frozenset(words["kinds"])


def marked(image: Image.Image, mask: np.ndarray, overlay: str, rng: np.random.Generator) -> Image.Image:
    """The scene with one of the eight overlays drawn on the object of this (row, column) mask."""
    if overlay == "mask":
        solid = Image.fromarray(mask.astype(np.uint8) * 255)
        mask = np.asarray(solid.filter(ImageFilter.MaxFilter(2 * MASK_MARGIN + 1))) > 0
    alpha = int(rng.integers(*(MASK_ALPHA if overlay == "mask" else LINE_ALPHA), endpoint=True))
    return draw_overlay(image, mask, overlay, rng, alpha=alpha, scale=OVERLAY_SCALE, min_line=OVERLAY_MIN_LINE)
