"""Cards of where visual tokens look."""

from ...display import Html, card, picture
from ...layout.visual_tokens import VisualTokenLayout
from ...shown import view


@view(VisualTokenLayout)
def layout_card(layout: VisualTokenLayout) -> Html:
    """What each visual token sees, outlined."""
    return card(type(layout).__name__, layout.facts(), picture(layout.image_size, boxes=layout.boxes))
