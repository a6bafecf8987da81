"""Layers and heads as a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..attention import Attention
from ..energy import Target
from ..regions import Regions
from .parts import STYLE, graph_objects, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def layer_head_grid(attention: Attention, regions: Regions, *, sigma: float = 0.1) -> Figure:
    """Share of each layer's and head's attention that lies in the regions, as a grid.

    The share is taken of the attention on the image, averaged over the captured queries; a uniform head would have the
    share of area, which the title gives.
    """
    target = Target.of(attention.prompt.layout, regions, sigma).to(attention.values)
    shares = target.share(attention.values.detach().mean(2)).cpu().numpy()
    uniform = target.share(attention.values.new_ones(len(attention.prompt.layout))).item()
    go = graph_objects()
    figure = new_figure()
    figure.add_trace(
        go.Heatmap(
            z=shares,
            x=[str(head) for head in attention.heads],
            y=[str(layer) for layer in attention.layers],
            colorscale="Cividis",
            zmin=0,
            zmax=max(float(shares.max()), 1e-6),
            colorbar={"title": "share", "tickformat": ".0%"},
            hovertemplate="layer %{y}, head %{x}: %{z:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(title="head", type="category")
    figure.update_yaxes(title="layer", type="category", autorange="reversed")
    figure.update_layout(
        title=f"Share of attention in the region (uniform attention: {uniform:.1%})", width=560, height=460, **STYLE
    )
    return figure
