"""Cards of where visual tokens look."""

from markupsafe import Markup

from ...layout.visual_tokens import VisualTokenLayout
from ...shown import view
from ..html import card
from ..picture import picture


@view(VisualTokenLayout)
def layout_card(layout: VisualTokenLayout) -> Markup:
    """What each visual token sees, outlined."""
    return card(type(layout).__name__, layout.facts(), picture(layout.image_size, boxes=layout.boxes))
