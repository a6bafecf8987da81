"""Cards of attention: maps on their image."""

from markupsafe import Markup

from ...attention.capture import Attention
from ...attention.context_map import ContextMap
from ...shown import view
from ..html import card
from ..picture import map_picture


@view(Attention)
def attention_card(attention: Attention) -> Markup:
    """The mean over layers, heads and queries, on the image."""
    if attention.columns is not None:
        return card(type(attention).__name__, attention.facts())
    layout = attention.prompt.layout
    mean = layout.raster(attention.values.detach().float().mean((0, 1, 2)).cpu().numpy())
    shown = map_picture(mean, layout, attention.prompt.image, caption="mean over layers, heads and queries")
    return card(type(attention).__name__, attention.facts(), shown)


@view(ContextMap)
def map_card(cmap: ContextMap) -> Markup:
    """The map on the image."""
    return card(type(cmap).__name__, cmap.facts(), map_picture(cmap.grid, cmap.layout, cmap.image))
