"""Cards of prompts."""

from markupsafe import Markup

from ...models.prompt import Prompt
from ...shown import view
from ..html import card
from ..picture import picture


@view(Prompt)
def prompt_card(prompt: Prompt) -> Markup:
    """The image, and what each visual token sees of it."""
    shown = picture(prompt.image.size, prompt.image, boxes=prompt.layout.boxes, caption="what each visual token sees")
    return card(f"{type(prompt).__name__} {prompt.question!r}", prompt.facts(), shown)
