"""Several settings, runs or regions in one picture, to compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...errors import SettingsError
from ...inputs.images import read_image
from ...inputs.regions import Regions
from ...layout.visual_tokens import VisualTokenLayout
from ...referring.target import Target
from ...strict import kind_of, number, numbers_or_gaps, several, shown
from ..html import card
from ..picture import map_picture
from .lines import framed, legend_name, look
from .panels import arrange, aspect_of, panelled
from .parts import (
    STYLE,
    Numbers,
    add_image,
    add_outlines,
    graph_objects,
    heat,
    must_be,
    new_figure,
    on_panel,
    stills,
    value_tables,
)
from .words import TEXT, head, whole, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Lines of more points show no markers.
_MARKED = 30


Line = tuple[Numbers, Numbers] | tuple[Numbers, Numbers, np.ndarray]


def curves(lines: Mapping[str, Line], x: str, y: str, title: str = "") -> Figure:
    """Curves of several runs or settings in one picture.

    Args:
        lines: name -> (positions, values), up to 36 that differ in look; or (positions, values, intervals), where
            intervals (point, 2) are the low and high ends of a bar through each point.
        x, y: names of the axes.
        title: of the figure.

    Raises:
        SettingsError: for lines that are not named, or not of as many positions as values, with intervals of another shape,
            and for names of axes that are no texts.

    Examples:
        >>> figure = cm.figures.curves({"box": ([0, 1, 2], [0.9, 0.5, 0.3])}, "step", "energy")
        >>> figure.layout.yaxis.title.text
        'energy'
    """
    must_be(lines, Mapping, "The lines of curves", "{name: (positions, values)}")
    for what, text in (("The x axis", x), ("The y axis", y), ("The title", title)):
        kind_of(text, str, f"{what} of curves must be a text")
    drawn = {kind_of(name, str, "The name of a line must be a text"): _line(name, line) for name, line in lines.items()}
    go = graph_objects()
    listed = {name: _listed(*line) for name, line in drawn.items()}
    figure = new_figure(card(f"{title}: {y}" if title else y, [], *value_tables(listed, x)))
    for at, (name, (positions, values, intervals)) in enumerate(drawn.items()):
        mode = "lines+markers" if len(positions) <= _MARKED else "lines"
        label = written(name, TEXT, 12)
        hover = f"{label}<br>%{{x}}: %{{y:.4g}}<extra></extra>"
        figure.add_trace(
            go.Scatter(
                x=positions,
                y=values,
                error_y=_bars(values, intervals),
                name=legend_name(name),
                mode=mode,
                hovertemplate=hover,
                **look(at),
            )
        )
    figure.update_xaxes(title=written(x, TEXT, 1))
    figure.update_yaxes(title=written(y, 280, 1))
    framed(figure, list(drawn), head(figure, written(title), whole(title)))
    figure.update_layout(showlegend=True, **STYLE)
    return figure


def _line(name: str, line: object) -> tuple[list[float], list[float | None], np.ndarray | None]:
    """Positions and values of a line, None where it has a gap, and intervals (point, 2) where it has them."""
    if not isinstance(line, tuple | list) or len(line) not in (2, 3):
        raise SettingsError(
            "Each line of curves must be a pair (positions, values), or have intervals (point, 2) too; "
            f"{shown(name)} is not."
        )
    what = f"the positions of {shown(name)}"
    positions = [number(each, f"Each of {what}") for each in several(line[0], f"{what} must be several numbers")]
    values = list(numbers_or_gaps(line[1], f"the values of {shown(name)}"))
    if len(positions) != len(values):
        raise SettingsError(
            f"A line must have as many positions as values; {shown(name)} has {len(positions)} and {len(values)}."
        )
    return positions, values, None if len(line) == 2 else _intervals(name, line[2], len(values))


def _intervals(name: str, given: Any, count: int) -> np.ndarray:
    what = f"Each line of curves must have intervals (point, 2), or none; those of {shown(name)} are others"
    rows = [several(row, what) for row in several(given, what)]
    if len(rows) != count or any(len(row) != 2 for row in rows):
        raise SettingsError(f"{what}.")
    return np.array([tuple(numbers_or_gaps(row, f"the intervals of {shown(name)}")) for row in rows], float)


def _bars(values: Sequence[float | None], intervals: np.ndarray | None) -> dict[str, Any] | None:
    """Intervals as plotly draws them: by how far they reach from the point."""
    if intervals is None:
        return None
    middle, (low, high) = np.array(values, float), intervals.T
    reach = {"array": (high - middle).tolist(), "arrayminus": (middle - low).tolist()}
    return {**reach, "symmetric": False, "thickness": 1, "width": 2}


def _listed(
    positions: Sequence[float], values: Sequence[float | None], intervals: np.ndarray | None
) -> tuple[Sequence[float], Sequence[float | None] | list[str]]:
    """A line for a table; its intervals stand behind its values."""
    if intervals is None:
        return positions, values
    ends = zip(np.array(values, float), intervals, strict=True)
    return positions, [f"{value:.4g} ({low:.4g} to {high:.4g})" for value, (low, high) in ends]


def token_weights(
    layout: VisualTokenLayout, image: Image.Image, panels: Mapping[str, Regions], *, sigma: float = 0.1
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

    Examples:
        >>> figure = cm.figures.token_weights(prompt.layout, prompt.image, {"box": box, "point": cm.Point(169, 103)})
    """
    must_be(layout, VisualTokenLayout, "The layout of token_weights", "prompt.layout")
    must_be(panels, Mapping, "The panels of token_weights", "{title: regions}")
    if not panels:
        raise SettingsError("token_weights must be given at least one panel; got none.")
    for title in panels:
        kind_of(title, str, "The title of a panel must be a text")
    image = read_image(image)
    cells = VisualTokenLayout(layout.image_size, layout.cells.reshape(-1, 4), layout.grid, layout.rule)
    shown = {title: layout.on_sheet(regions) for title, regions in panels.items()}
    grids = [cells.raster(Target.of(cells, regions, sigma).weights().numpy()) for regions in shown.values()]
    pictures = [
        map_picture(grid, layout, image, top=1.0, regions=regions, caption=title)
        for grid, (title, regions) in zip(grids, shown.items(), strict=True)
    ]
    figure = panelled(len(grids), aspect_of(layout), stills("Weight of each visual token, 0 to 1", pictures))
    for at, (grid, given) in enumerate(zip(grids, shown.values(), strict=True), 1):
        add_image(figure, image, layout, at)
        weights = heat(grid, layout, 1.0)
        weights.update(
            colorbar_title_text="weight",
            hovertemplate="weight %{z:.2f}<extra></extra>",
            showscale=at == 1,
            **on_panel(at),
        )
        figure.add_trace(weights)
        add_outlines(figure, given, at)
    arrange(figure, list(panels), aspect_of(layout), top=12)
    figure.update_layout(**STYLE)
    return figure
