"""The held-out set that comes with the package: scenes that the embedded model never saw, in the ROC format."""

import json
from functools import cache
from pathlib import Path

from ..data.formats.roc import ReferringExample, read_roc
from ..errors import DataError
from ..strict import kind_of

HELDOUT = Path(__file__).parents[1] / "embedded" / "heldout"
# The same scenes twice: "is the object a A or a B?", and "describe the object".
QUESTIONS, DESCRIPTIONS = "question_roc.json", "question_describe.json"
# The words that the set's objects are named with, colour and kind.
VOCABULARY = "vocabulary.json"
# Unsteered, the model names another object of this scene than the one referred to.
DEMO_SCENE = 7


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
