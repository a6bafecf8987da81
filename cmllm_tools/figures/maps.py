"""Maps and visual tokens on their image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from ..context import ContextMap
from ..display import card, picture
from ..errors import ImageError
from ..layout import VisualTokenLayout
from ..regions import Box, Regions, as_regions
from .parts import (
    COLUMNS,
    PANEL,
    STYLE,
    add_image,
    add_outlines,
    graph_objects,
    heat,
    new_figure,
    panel_height,
    percent_grid,
    still,
    stills,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..analysis.sinks import Sinks

_TOKEN_COLORS = ("#D55E00", "#56B4E9", "#009E73", "#F0E442")


def map_on_image(cmap: ContextMap, image: Image.Image, regions: Regions | None = None) -> Figure:
    """A context-token map over its image, with the regions outlined.

    Args:
        cmap: from `context_map`.
        image: the prompt's image (`prompt.image`).
        regions: to outline.
    """
    percent = percent_grid(_values(cmap), cmap.layout)
    outlined = as_regions(regions) if regions is not None else ()
    title, top = f"Attention of {' '.join(cmap.words)!r}", max(float(percent.max()), 1e-30)
    shown = still(percent / top, cmap.layout, image, outlined, f"0 to {top:.1f} % of the attention on the image")
    figure = new_figure(stills(title, [shown]))
    add_image(figure, image, cmap.layout)
    figure.add_trace(heat(percent, cmap.layout, percent.max()))
    add_outlines(figure, outlined)
    figure.update_layout(
        title=escape(title, quote=False),
        width=PANEL + 120,
        height=panel_height(cmap.layout) + 100,
        **STYLE,
    )
    return figure


def maps_on_image(
    maps: Sequence[tuple[str, ContextMap | torch.Tensor | np.ndarray]],
    image: Image.Image,
    layout: VisualTokenLayout,
    regions: Regions | None = None,
    what: str = "map",
) -> Figure:
    """Maps side by side on the image and on one scale: each in percent of its own sum (of sizes, where some are negative).

    Args:
        maps: title and values (visual token,) of each.
        image: the prompt's image.
        layout: where each visual token looks.
        regions: to outline in each.
        what: what the maps are made of, for the scale: "attention", "attribution".
    """
    from plotly.subplots import make_subplots

    percents = [percent_grid(_values(values), layout) for _, values in maps]
    top = max(float(np.abs(percent).max()) for percent in percents)
    signed = any(float(percent.min()) < 0 for percent in percents)
    columns = min(len(maps), COLUMNS)
    rows = -(-len(maps) // columns)
    titles = [escape(title) for title, _ in maps]
    outlined = as_regions(regions) if regions is not None else ()
    scale = f"{-top if signed else 0:.1f} to {top:.1f} % of the {what} on the image"
    pictures = [
        still(percent / max(top, 1e-30), layout, image, outlined, title, signed)
        for percent, (title, _) in zip(percents, maps, strict=True)
    ]
    figure = make_subplots(
        rows,
        columns,
        figure=new_figure(stills(scale, pictures)),
        horizontal_spacing=0.04,
        vertical_spacing=0.12 / rows,
        subplot_titles=titles,
    )
    for index, percent in enumerate(percents):
        add_image(figure, image, layout, index + 1)
        drawn = heat(percent, layout, top, what=escape(what), signed=signed)
        drawn.showscale = index == 0
        figure.add_trace(drawn, index // columns + 1, index % columns + 1)
        add_outlines(figure, outlined, index + 1)
    figure.update_layout(
        width=columns * PANEL * 0.8 + 120,
        height=rows * panel_height(layout) * 0.8 + 90,
        **STYLE | {"margin": {"t": 50, "b": 20, "l": 20, "r": 20}},
    )
    return figure


def sinks_on_image(found: Sinks, image: Image.Image | None = None) -> Figure:
    """Each visual token's attention at its least over the questions, as a multiple of the median's; sinks are outlined.

    Args:
        found: from `analysis.sinks`.
        image: the prompt's image; that of the maps when None.

    Raises:
        ImageError: when neither has an image.
    """
    image = found.image if image is None else image
    if image is None:
        raise ImageError("Sinks are shown on the image, which their maps do not have; give it as image=.")
    layout = found.layout
    figure = new_figure(replace(found, image=image)._repr_html_())
    add_image(figure, image, layout)
    drawn = heat(found.grid, layout, max(float(found.grid.max()), found.factor))
    drawn.colorbar.title.text = "x the<br>median<br>token"
    drawn.hovertemplate = "%{z:.1f} x the median token<extra></extra>"
    figure.add_trace(drawn)
    width, height = layout.image_size
    boxes = np.clip(layout.boxes[list(found)], 0, [width, height] * 2)
    add_outlines(figure, [Box(*box) for box in boxes.tolist()])
    figure.update_layout(
        title=f"{len(found)} sinks of {len(layout)} visual tokens<br>"
        f"<sub>above {found.factor:g} x the median token for each question</sub>",
        width=PANEL + 120,
        height=panel_height(layout) + 100,
        **STYLE,
    )
    return figure


def _values(values: ContextMap | torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, ContextMap):
        values = values.values
    return values.detach().float().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def visual_tokens(layout: VisualTokenLayout, image: Image.Image) -> Figure:
    """What each visual token sees, outlined on the image; each size of token (tile, thumbnail) has its color."""
    go = graph_objects()
    title = f"{len(layout)} visual tokens"
    shown = picture(layout.image_size, image, boxes=layout.boxes, caption=layout.rule)
    figure = new_figure(card(title, [], shown))
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
        title=f"{title}<br><sub>{escape(layout.rule)}</sub>",
        width=PANEL + 120,
        height=panel_height(layout) + 150,
        legend={"orientation": "h", "y": 0, "yanchor": "top"},
        **STYLE | {"margin": {"t": 80, "b": 60, "l": 40, "r": 40}},
    )
    return figure
