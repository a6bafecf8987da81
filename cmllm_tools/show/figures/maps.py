"""Maps and visual tokens on their image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image

from ...analysis.attribution.faithfulness import as_map
from ...analysis.sinks import Sinks
from ...attention.context_map import ContextMap
from ...errors import ImageError, SettingsError
from ...inputs.images import read_image
from ...inputs.regions import Box, Regions
from ...layout.visual_tokens import VisualTokenLayout
from ...strict import one_of
from ..html import card
from ..palette import BLUE, CLEAR, GREEN, ORANGE, VERMILION
from ..picture import map_picture, picture
from .panels import arrange, aspect_of, panelled
from .parts import (
    STYLE,
    add_image,
    add_outlines,
    graph_objects,
    heat,
    must_be,
    on_panel,
    percent_grid,
    stills,
)
from .words import head, height_of, whole, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_TOKEN_COLORS = (VERMILION, BLUE, GREEN, ORANGE)

# Whether maps side by side have one scale, or each its own.
Scale = Literal["common", "own"]


def map_on_image(cmap: ContextMap, image: Image.Image, regions: Regions | None = None) -> Figure:
    """A context-token map over its image, with the regions outlined.

    Args:
        cmap: from `context_map`.
        image: the prompt's image (`prompt.image`).
        regions: to outline.

    Raises:
        SettingsError: for another kind of map.
        ImageError: for what is no image.

    Examples:
        >>> figure = cm.figures.map_on_image(cmap, prompt.image, box)
        >>> figure.write_html("map.html", include_plotlyjs=False)
    """
    must_be(cmap, ContextMap, "The map of map_on_image", "from context_map(attention)")
    image = read_image(image)
    percent = percent_grid(_values(cmap, cmap.layout), cmap.layout)
    outlined = cmap.layout.on_sheet(regions) if regions is not None else ()
    title, top = f"Attention of {' '.join(cmap.words)!r}", max(float(percent.max()), 1e-30)
    shown = map_picture(
        percent, cmap.layout, image, top=top, regions=outlined, caption=f"0 to {top:.1f} % of the attention on the image"
    )
    figure = panelled(1, 1.0, stills(title, [shown]))
    add_image(figure, image, cmap.layout)
    figure.add_trace(heat(percent, cmap.layout, top))
    add_outlines(figure, outlined)
    arrange(figure, [""], aspect_of(cmap.layout), top=head(figure, written(title), whole(title)))
    figure.update_layout(**STYLE)
    return figure


def maps_on_image(
    maps: Sequence[tuple[str, ContextMap | torch.Tensor | np.ndarray]],
    image: Image.Image,
    layout: VisualTokenLayout,
    regions: Regions | None = None,
    *,
    what: str = "map",
    scale: Scale = "common",
) -> Figure:
    """Maps side by side on the image: each in percent of its own sum (of sizes, where some are negative).

    Args:
        maps: title and values (visual token,) of each.
        image: the prompt's image.
        layout: where each visual token looks.
        regions: to outline in each.
        what: what the maps are made of, for the scale: "attention", "attribution".
        scale: "common" to compare the maps' sizes; "own" to see the shape of each, with its largest value in its title.

    Raises:
        SettingsError: for no maps, another kind of thing, or a map of another number of visual tokens.
        ImageError: for what is no image.

    Examples:
        >>> maps = [("layer 2", cm.context_map(attention, layers=[2])), ("layer 5", cm.context_map(attention, layers=[5]))]
        >>> figure = cm.figures.maps_on_image(maps, prompt.image, prompt.layout, box, what="attention")
    """
    must_be(layout, VisualTokenLayout, "The layout of maps_on_image", "prompt.layout")
    one_of(scale, "scale", ("common", "own"))
    must_be(what, str, "What maps are made of", "as 'attention'")
    image = read_image(image)
    percents = [percent_grid(_values(values, layout), layout) for _, values in _titled(maps)]
    signed = any(float(percent.min()) < 0 for percent in percents)
    tops = [max(float(np.abs(percent).max()), 1e-30) for percent in percents]
    own = [f"up to {top:.2g} %" for top in tops] if scale == "own" else []
    if scale == "common":
        tops = [max(tops)] * len(tops)
    titles = [title for title, _ in maps]
    outlined = layout.on_sheet(regions) if regions is not None else ()
    span = f"{-tops[0] if signed else 0:.1f} to {tops[0]:.1f} %" if scale == "common" else "each on its own scale, %"
    pictures = [
        map_picture(
            percent,
            layout,
            image,
            top=top,
            signed=signed,
            regions=outlined,
            caption=", ".join([title, *own[at : at + 1]]),
        )
        for at, (percent, top, title) in enumerate(zip(percents, tops, titles, strict=True))
    ]
    figure = panelled(len(maps), aspect_of(layout), stills(f"{span} of the {what} on the image", pictures))
    for index, (percent, top) in enumerate(zip(percents, tops, strict=True), 1):
        add_image(figure, image, layout, index)
        drawn = heat(percent, layout, top, what=escape(what), signed=signed)
        drawn.showscale = index == 1 and scale == "common"
        figure.add_trace(drawn.update(on_panel(index)))
        add_outlines(figure, outlined, index)
    arrange(figure, titles, aspect_of(layout), top=12, bottom=12 if own else 62, subtitles=own)
    figure.update_layout(**STYLE)
    return figure


def sinks_on_image(found: Sinks, image: Image.Image | None = None) -> Figure:
    """Each visual token's attention at its least over the questions, as a multiple of the median's; sinks are outlined.

    Args:
        found: from `analysis.sinks`.
        image: the prompt's image; that of the maps when None.

    Raises:
        SettingsError: for another kind of thing.
        ImageError: when neither has an image.

    Examples:
        >>> found = cm.analysis.sinks(mllm, scene.image, ["describe the object.", scene.question])
        >>> figure = cm.figures.sinks_on_image(found)
    """
    must_be(found, Sinks, "The sinks of sinks_on_image", "from analysis.sinks")
    image = found.image if image is None else read_image(image)
    if image is None:
        raise ImageError("Sinks are shown on the image, which their maps do not have; give it as image=.")
    layout = found.layout
    figure = panelled(1, 1.0, replace(found, image=image)._repr_html_())
    add_image(figure, image, layout)
    drawn = heat(found.grid, layout, max(float(found.grid.max()), found.factor))
    drawn.colorbar.title.text = "x the median token"
    drawn.hovertemplate = "%{z:.1f} x the median token<extra></extra>"
    figure.add_trace(drawn)
    width, height = layout.image_size
    boxes = np.clip(layout.boxes[list(found)], 0, [width, height] * 2)
    add_outlines(figure, [Box(*box) for box in boxes.tolist()])
    title = (
        f"{len(found)} sinks of {len(layout)} visual tokens<br>"
        f"<sub>above {found.factor:g} x the median token for each question</sub>"
    )
    arrange(figure, [""], aspect_of(layout), top=head(figure, title))
    figure.update_layout(**STYLE)
    return figure


def visual_tokens(layout: VisualTokenLayout, image: Image.Image) -> Figure:
    """What each visual token sees, outlined on the image; each size of token (tile, thumbnail) has its color.

    Raises:
        SettingsError: for what is no layout.
        ImageError: for what is no image.

    Examples:
        >>> figure = cm.figures.visual_tokens(prompt.layout, prompt.image)
    """
    must_be(layout, VisualTokenLayout, "The layout of visual_tokens", "prompt.layout")
    image = read_image(image)
    go = graph_objects()
    title = f"{len(layout)} visual tokens"
    shown = picture(layout.image_size, image, boxes=layout.boxes, caption=layout.rule)
    figure = panelled(1, 1.0, card(title, [], shown))
    add_image(figure, image, layout, dim=False)
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
    top = head(figure, f"{title}<br><sub>{written(layout.rule, lines=3)}</sub>", whole(layout.rule, lines=3))
    arrange(figure, [""], aspect_of(layout), top=top, bottom=20 + height_of("<br>" * (len(sizes) - 1) + "x", 15))
    figure.update_layout(legend=LEGEND, **STYLE)
    return figure


# Below all else, one name to a line.
LEGEND = {"x": 0, "y": 0, "xanchor": "left", "yanchor": "bottom", "yref": "container", "bgcolor": CLEAR}


def _titled(maps: Sequence[tuple[str, ContextMap | torch.Tensor | np.ndarray]]) -> Sequence[tuple[str, object]]:
    pairs = isinstance(maps, list | tuple) and all(isinstance(each, list | tuple) and len(each) == 2 for each in maps)
    if not pairs or not maps or not all(isinstance(title, str) for title, _ in maps):
        raise SettingsError(
            "The maps of maps_on_image must be a list of pairs (title, map), at least one; "
            f"got {type(maps).__name__}{'' if pairs else ' of something else'}. For a single map: [('attention', cmap)]."
        )
    return maps


def _values(values: Any, layout: VisualTokenLayout) -> np.ndarray:
    must_be(values, (torch.Tensor, np.ndarray, ContextMap), "A map", "from context_map(attention), or of your own")
    return as_map(values, len(layout)).numpy()
