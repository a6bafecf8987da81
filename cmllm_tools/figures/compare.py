"""Several settings, runs or regions in one picture, to compare them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..display import card
from ..energy import Target
from ..errors import SettingsError
from ..images import read_image
from ..layout import VisualTokenLayout
from ..regions import Regions, as_regions
from .lines import framed, legend_name, look
from .panels import arrange, aspect_of, panelled
from .parts import (
    STYLE,
    Values,
    add_image,
    add_outlines,
    graph_objects,
    heat,
    must_be,
    new_figure,
    still,
    stills,
    value_tables,
)
from .words import TEXT, head, whole, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Lines of more points show no markers.
_MARKED = 30


Line = tuple[Values, Values] | tuple[Values, Values, np.ndarray]


def curves(lines: Mapping[str, Line], x: str, y: str, title: str = "") -> Figure:
    """Curves of several runs or settings in one picture.

    Args:
        lines: name -> (positions, values), up to 36 that differ in look; or (positions, values, intervals), where
            intervals (point, 2) are the low and high ends of a bar through each point.
        x, y: names of the axes.
        title: of the figure.

    Raises:
        SettingsError: for lines that are not named, not of two or three parts, or with intervals of another shape.
    """
    must_be(lines, Mapping, "The lines of curves", "{name: (positions, values)}")
    for name, line in lines.items():
        shapes = [np.shape(part) for part in line] if isinstance(line, tuple | list) else []
        if len(shapes) not in (2, 3) or shapes[2:] not in ([], [(*shapes[1], 2)]):
            raise SettingsError(
                f"Each line of curves must be a pair (positions, values), or have intervals (point, 2) too; {name!r} is"
                f" not so."
            )
    go = graph_objects()
    figure = new_figure(
        card(f"{title}: {y}" if title else y, [], *value_tables({name: _listed(*line) for name, line in lines.items()}, x))
    )
    for number, (name, (positions, values, *intervals)) in enumerate(lines.items()):
        mode = "lines+markers" if len(positions) <= _MARKED else "lines"
        label = written(name, TEXT, 12)
        hover = f"{label}<br>%{{x}}: %{{y:.4g}}<extra></extra>"
        figure.add_trace(
            go.Scatter(
                x=list(positions),
                y=list(values),
                error_y=_bars(values, *intervals),
                name=legend_name(name),
                mode=mode,
                hovertemplate=hover,
                **look(number),
            )
        )
    figure.update_xaxes(title=written(x, TEXT, 1))
    figure.update_yaxes(title=written(y, 280, 1))
    framed(figure, list(lines), head(figure, written(title), whole(title)))
    figure.update_layout(showlegend=True, **STYLE)
    return figure


def _bars(values: Values, intervals: np.ndarray | None = None) -> dict[str, Any] | None:
    """Intervals as plotly draws them: by how far they reach from the point."""
    if intervals is None:
        return None
    low, high = np.asarray(intervals, float).T
    return {"array": high - values, "arrayminus": values - low, "symmetric": False, "thickness": 1, "width": 2}


def _listed(positions: Values, values: Values, intervals: np.ndarray | None = None) -> tuple[Values, Values | list[str]]:
    """A line for a table; its intervals stand behind its values."""
    if intervals is None:
        return positions, values
    ends = zip(values, np.asarray(intervals, float), strict=True)
    return positions, [f"{float(value):.4g} ({low:.4g} to {high:.4g})" for value, (low, high) in ends]


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
        SettingsError: for another kind of thing, or no panels.
        RegionError: for a region the model does not see.
    """
    must_be(layout, VisualTokenLayout, "The layout of token_weights", "prompt.layout")
    must_be(panels, Mapping, "The panels of token_weights", "{title: regions}")
    if not panels:
        raise SettingsError("token_weights must be given at least one panel; got none.")
    image = read_image(image)
    cells = VisualTokenLayout(layout.image_size, layout.cells.reshape(-1, 4), layout.grid, layout.rule)
    grids = [cells.raster(Target.of(cells, regions, sigma).weights().numpy()) for regions in panels.values()]
    pictures = [
        still(grid, layout, image, as_regions(regions), title)
        for grid, (title, regions) in zip(grids, panels.items(), strict=True)
    ]
    figure = panelled(len(grids), aspect_of(layout), stills("Weight of each visual token, 0 to 1", pictures))
    for number, (grid, given) in enumerate(zip(grids, panels.values(), strict=True), 1):
        add_image(figure, image, layout, number)
        weights = heat(grid, layout, 1.0)
        weights.update(
            colorbar_title_text="weight",
            hovertemplate="weight %{z:.2f}<extra></extra>",
            showscale=number == 1,
            xaxis=f"x{number}" if number > 1 else "x",
            yaxis=f"y{number}" if number > 1 else "y",
        )
        figure.add_trace(weights)
        add_outlines(figure, as_regions(given), number)
    arrange(figure, list(panels), aspect_of(layout), top=12)
    figure.update_layout(**STYLE)
    return figure
