"""Cards of where visual tokens look."""

from ...layout.visual_tokens import VisualTokenLayout
from ...shown import view
from ..picture import Html, card, picture


@view(VisualTokenLayout)
def layout_card(layout: VisualTokenLayout) -> Html:
    """What each visual token sees, outlined."""
    return card(type(layout).__name__, layout.facts(), picture(layout.image_size, boxes=layout.boxes))
