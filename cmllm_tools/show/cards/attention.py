"""Cards of attention: maps on their image."""

from ...attention.capture import Attention
from ...attention.context_map import ContextMap
from ...shown import view
from ..picture import Html, card, picture


@view(Attention)
def attention_card(attention: Attention) -> Html:
    """The mean over layers, heads and queries, on the image."""
    layout = attention.prompt.layout
    heat = layout.raster(attention.values.detach().float().mean((0, 1, 2)).cpu().numpy())
    shown = picture(
        layout.image_size,
        attention.prompt.image,
        cells=layout.cells,
        heat=heat / max(heat.max(), 1e-30),
        caption="mean over layers, heads and queries",
    )
    return card(type(attention).__name__, attention.facts(), shown)


@view(ContextMap)
def map_card(cmap: ContextMap) -> Html:
    """The map on the image."""
    heat = cmap.grid / max(cmap.grid.max(), 1e-30)
    shown = picture(cmap.layout.image_size, cmap.image, cells=cmap.layout.cells, heat=heat)
    return card(type(cmap).__name__, cmap.facts(), shown)
