"""Several settings, runs or regions in one picture, to compare them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from ..display import card
from ..energy import Target
from ..layout import VisualTokenLayout
from ..regions import Regions, as_regions
from .parts import (
    PANEL,
    STYLE,
    Values,
    add_image,
    add_outlines,
    graph_objects,
    heat,
    new_figure,
    panel_height,
    still,
    stills,
    value_tables,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's palette; dashes and markers tell the lines apart without colour.
_LINES = [
    {"line": {"color": color, "dash": dash}, "marker": {"symbol": symbol, "size": 8}}
    for color, dash, symbol in (
        ("#0072B2", "solid", "circle"),
        ("#D55E00", "dash", "square"),
        ("#009E73", "dot", "diamond"),
        ("#CC79A7", "dashdot", "cross"),
        ("#E69F00", "longdash", "triangle-up"),
        ("#000000", "longdashdot", "x"),
    )
]
# Lines of more points show no markers.
_MARKED = 30


def curves(lines: Mapping[str, tuple[Values, Values]], x: str, y: str, title: str = "") -> Figure:
    """Curves of several runs or settings in one picture.

    Args:
        lines: name -> (positions, values), up to six that differ in look.
        x, y: names of the axes.
        title: of the figure.
    """
    go = graph_objects()
    figure = new_figure(card(f"{title}: {y}" if title else y, [], *value_tables(lines, x)))
    for number, (name, (positions, values)) in enumerate(lines.items()):
        mode = "lines+markers" if len(positions) <= _MARKED else "lines"
        look = _LINES[number % len(_LINES)]
        figure.add_trace(go.Scatter(x=list(positions), y=list(values), name=escape(name), mode=mode, **look))
    figure.update_xaxes(title=escape(x))
    figure.update_yaxes(title=escape(y))
    margin = {"t": 60, "b": 60, "l": 70, "r": 20}
    figure.update_layout(title=escape(title), width=780, height=420, showlegend=True, **STYLE | {"margin": margin})
    return figure


def token_weights(
    layout: VisualTokenLayout, image: Image.Image, panels: Mapping[str, Regions], sigma: float = 0.1
) -> Figure:
    """How much each visual token counts for several regions, side by side; see `Target.weights`.

    Where tokens overlap, the cells that maps are shown on are weighed in their place.

    Args:
        layout: of the prompt (`prompt.layout`).
        image: the prompt's image.
        panels: title -> one region or several.
        sigma: width of the Gaussian of scribbles and points.

    Raises:
        RegionError: for a region the model does not see.
    """
    from plotly.subplots import make_subplots

    cells = VisualTokenLayout(layout.image_size, layout.cells.reshape(-1, 4), layout.grid, layout.rule)
    grids = [cells.raster(Target.of(cells, regions, sigma).weights().numpy()) for regions in panels.values()]
    pictures = [
        still(grid, layout, image, as_regions(regions), title)
        for grid, (title, regions) in zip(grids, panels.items(), strict=True)
    ]
    figure = make_subplots(
        1,
        len(panels),
        figure=new_figure(stills("Weight of each visual token, 0 to 1", pictures)),
        horizontal_spacing=0.02,
        subplot_titles=[escape(title) for title in panels],
    )
    for panel, (grid, regions) in enumerate(zip(grids, panels.values(), strict=True), 1):
        add_image(figure, image, layout, panel)
        weights = heat(grid, layout, 1.0)
        weights.update(colorbar_title="weight", hovertemplate="weight %{z:.2f}<extra></extra>")
        figure.add_trace(weights, 1, panel)
        add_outlines(figure, as_regions(regions), panel)
    figure.update_layout(
        width=round(len(panels) * 0.45 * PANEL) + 110,
        height=round(0.45 * panel_height(layout)) + 60,
        **STYLE | {"margin": {"t": 40, "b": 10, "l": 10, "r": 20}},
    )
    return figure
