"""The scene of the demo, the README and the lessons."""

from ..models.embedded import DEMO_SCENE, HELDOUT
from .roc import ReferringExample, read_roc


def demo_scene() -> ReferringExample:
    """A held-out scene of the embedded model, to try things on: it comes with the package.

    Returns:
        `image` (192 x 192 px), `question` ("describe the object."), `region(kind)` of the object to refer to, as "box",
        "mask", "scribble" or "point", its name first in `names`, and all `objects` of the scene. Unsteered, the model
        names another object.
    """
    return read_roc(HELDOUT, "question_describe.json")[DEMO_SCENE]
