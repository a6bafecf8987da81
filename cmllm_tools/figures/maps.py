"""Maps and visual tokens on their image."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..context import ContextMap
from ..layout import VisualTokenLayout
from ..regions import Regions, as_regions
from .parts import PANEL, STYLE, add_image, add_outlines, graph_objects, heat, new_figure, panel_height, percent_grid

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_TOKEN_COLORS = ("#D55E00", "#56B4E9", "#009E73", "#F0E442")


def map_on_image(cmap: ContextMap, image: Image.Image, regions: Regions | None = None) -> Figure:
    """A context-token map over its image, with the regions outlined.

    Args:
        cmap: from `context_map`.
        image: the prompt's image (`prompt.image`).
        regions: to outline.
    """
    percent = percent_grid(cmap.values.detach().float().cpu().numpy(), cmap.layout)
    figure = new_figure()
    add_image(figure, image, cmap.layout)
    figure.add_trace(heat(percent, cmap.layout, percent.max()))
    add_outlines(figure, as_regions(regions) if regions is not None else ())
    figure.update_layout(
        title=f"Attention of {escape(' '.join(cmap.words))!r}",
        width=PANEL + 120,
        height=panel_height(cmap.layout) + 100,
        **STYLE,
    )
    return figure


def visual_tokens(layout: VisualTokenLayout, image: Image.Image) -> Figure:
    """What each visual token sees, outlined on the image; each size of token (tile, thumbnail) has its color."""
    go = graph_objects()
    figure = new_figure()
    add_image(figure, image, layout)
    width, height = layout.image_size
    boxes = np.clip(layout.boxes, 0, [width, height] * 2)
    spans = layout.boxes[:, 2:] - layout.boxes[:, :2]
    sizes, group = np.unique(np.round(spans.prod(1) / (width * height), 4), return_inverse=True)
    for number in range(len(sizes)):
        x0, y0, x1, y1 = boxes[group == number].T
        gap = np.full(len(x0), np.nan)
        span = spans[group == number].mean(0)
        figure.add_trace(
            go.Scatter(
                x=np.stack([x0, x1, x1, x0, x0, gap], 1).ravel(),
                y=np.stack([y0, y0, y1, y1, y0, gap], 1).ravel(),
                mode="lines",
                line={"color": _TOKEN_COLORS[number % len(_TOKEN_COLORS)], "width": 1.5},
                name=f"{len(x0)} tokens of {span[0]:.0f} x {span[1]:.0f} px",
                hoverinfo="skip",
                showlegend=True,
            )
        )
    figure.update_layout(
        title=f"{len(layout)} visual tokens<br><sub>{escape(layout.rule)}</sub>",
        width=PANEL + 120,
        height=panel_height(layout) + 150,
        legend={"orientation": "h", "y": 0, "yanchor": "top"},
        **STYLE | {"margin": {"t": 80, "b": 60, "l": 40, "r": 40}},
    )
    return figure
