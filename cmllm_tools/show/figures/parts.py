"""What the figures share: the image below, a map on it, outlines above, one style; static HTML of the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from ...errors import SettingsError
from ...inputs.regions import Region
from ...layout.visual_tokens import VisualTokenLayout
from ..html import COLUMNS, card, table
from ..palette import CLEAR, GREY, INK, LESS, LINE, MORE, OPACITY, RIM, ramp, rgba
from ..picture import data_uri, dimmed, small
from .words import TITLE_SIZE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Of a line, None where it has a gap.
Numbers = Sequence[float | None] | np.ndarray

# Margins, in pixels; the right one is the tools'.
LEFT, RIGHT = 12, 44
# How a slider goes to a frame.
INSTANT = {"frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
# Values of a line that its table has.
_LISTED = 12
_LINES = rgba(GREY, 0.3)
_AXIS = {"gridcolor": _LINES, "zerolinecolor": _LINES, "linecolor": _LINES, "automargin": True}
STYLE: dict[str, Any] = {
    "template": {"layout": {"xaxis": _AXIS, "yaxis": _AXIS}},
    "autosize": True,
    "paper_bgcolor": CLEAR,
    "plot_bgcolor": CLEAR,
    "font": {"size": 13, "color": INK},
    "title_font_size": TITLE_SIZE,
    "title_x": 0,
    "title_xanchor": "left",
    "title_y": 1,
    "title_yanchor": "top",
    "title_pad": {"l": LEFT, "t": 16},
    "hoverlabel": {"align": "left", "namelength": -1},
    "modebar": {
        "orientation": "v",
        "bgcolor": CLEAR,
        "color": INK,
        "activecolor": GREY,
        "remove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    },
}

# Blue for less and vermilion for more, clear at 0.
SIGNED_SCALE = [
    [0, rgba(LESS, OPACITY)],
    [0.5, rgba("white", 0)],
    [1, rgba(MORE, OPACITY)],
]


def graph_objects() -> Any:
    """`plotly.graph_objects`, imported with the first figure."""
    import plotly.graph_objects

    return plotly.graph_objects


def must_be(value: Any, kind: type | tuple[type, ...], what: str, source: str) -> None:
    """Check what a figure is made of.

    Args:
        value: as given.
        kind: what it must be.
        what: the figure, and which argument.
        source: where one comes from.

    Raises:
        SettingsError: for another kind of thing.
    """
    if not isinstance(value, kind):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise SettingsError(f"{what} must be {_kind(names)}, {source}; got {_kind(type(value).__name__)}.")


def _kind(name: str) -> str:
    return f"an {name}" if name[:1] in "AEIOUaeiou" else f"a {name}"


def new_figure(static: str) -> Figure:
    """An empty figure, and the HTML that stands for it where plotly.js does not run."""
    from .static import Figure

    return Figure(static=static)


def stills(title: str, pictures: Sequence[Markup]) -> Markup:
    """Pictures under a title, at most COLUMNS side by side, in rows of much the same length."""
    columns = -(-len(pictures) // -(-len(pictures) // COLUMNS))
    rows = [pictures[at : at + columns] for at in range(0, len(pictures), columns)]
    return Markup().join(card("" if number else title, [], *row) for number, row in enumerate(rows))


def value_tables(lines: Mapping[str, tuple[Sequence[float] | np.ndarray, Numbers | Sequence[str]]], x: str) -> list[Markup]:
    """Some of the values, numbers or words, evenly chosen; lines that have the same positions share a table."""
    shared: dict[tuple[float, ...], dict[str, Numbers | Sequence[str]]] = {}
    for name, (positions, values) in lines.items():
        shared.setdefault(tuple(map(float, positions)), {})[name] = values
    tables = []
    for positions, columns in shared.items():
        points = list(zip(positions, *columns.values(), strict=False))
        chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), _LISTED)).round().astype(int))
        rows = [[f"{position:g}", *map(_value, values), ""] for position, *values in (points[at] for at in chosen)]
        tables.append(table([x, *columns, ""], rows))
    return tables


def _value(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None else f"{float(value):.4g}"


def percent_grid(values: np.ndarray, layout: VisualTokenLayout) -> np.ndarray:
    """A map (visual token,) as (row, column), percent of its sum; of the sum of its sizes where some are negative."""
    return layout.raster(100 * values / max(float(np.abs(values).sum()), 1e-30))


def heat(percent: np.ndarray, layout: VisualTokenLayout, top: float, what: str = "attention", signed: bool = False) -> Any:
    """A map on its image, on a scale from 0 to `top`, or from -`top` when signed."""
    boxes = layout.cells
    return graph_objects().Heatmap(
        z=percent,
        x=[*boxes[0, :, 0], boxes[0, -1, 2]],
        y=[*boxes[:, 0, 1], boxes[-1, 0, 3]],
        zmin=-top if signed else 0,
        zmax=top,
        colorscale=SIGNED_SCALE if signed else color_scale(),
        colorbar=scale_bar(f"% of the {what} on the image"),
        hovertemplate=f"%{{z:.2f}} % of the {what} on the image<extra></extra>",
    )


def scale_bar(title: str = "", form: str = "") -> dict[str, Any]:
    """A scale at the foot of a figure, of the same length in each; `place_scale` puts it there."""
    return {
        "orientation": "h",
        "lenmode": "pixels",
        "len": 300,
        "thickness": 10,
        "x": 0,
        "xanchor": "left",
        "xpad": 0,
        "y": 0,
        "yref": "paper",
        "yanchor": "top",
        "ypad": 0,
        "nticks": 6,
        "tickformat": form,
        "outlinewidth": 0,
        "tickfont": {"size": 11},
        "title": {"text": title, "side": "top", "font": {"size": 12}},
    }


def place_scale(figure: Figure, below: int) -> None:
    """Put the scale so many pixels below the plot area."""
    for item in figure.data:
        if item.type == "heatmap" and item.colorbar.orientation:
            item.colorbar.ypad = below


def on_panel(panel: int) -> dict[str, str]:
    """The axes of a panel, counted from 1, as a trace names them."""
    number = "" if panel == 1 else str(panel)
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def add_image(figure: Figure, image: Image.Image, layout: VisualTokenLayout, panel: int = 1, dim: bool = True) -> None:
    """The image below a panel, reduced once, and dimmed for a map to lie on."""
    width, height = layout.image_size
    x, y = on_panel(panel).values()
    shown = small(image)
    if dim:
        scale = np.array([shown.width / width, shown.height / height])
        shown = dimmed(shown, np.array(layout.seen[:2]) * scale, np.array(layout.seen[2:]) * scale)
    figure.add_layout_image(
        source=data_uri(shown), xref=x, yref=y, x=0, y=0, sizex=width, sizey=height, sizing="stretch", layer="below"
    )
    # An image's ranges are those that plotly finds by itself: else it would keep them as it widens them for the first size.
    axis = {"showgrid": False, "zeroline": False, "showticklabels": False, "constrain": "range"}
    across, down = ({"include": [0, size], "clipmin": 0, "clipmax": size} for size in (width, height))
    anchored = {"scaleanchor": x, "scaleratio": 1, "range": [height, 0], "autorange": "reversed", "autorangeoptions": down}
    figure.update_layout(
        {
            f"xaxis{panel}": {"range": [0, width], "autorange": True, "autorangeoptions": across, **axis},
            f"yaxis{panel}": {**anchored, **axis},
        }
    )


def add_outlines(figure: Figure, regions: Sequence[Region], panel: int = 1) -> None:
    """White lines with a dark rim: visible on any image and any color of the scale."""
    go = graph_objects()
    for region in regions:
        xs: list[float | None] = []
        ys: list[float | None] = []
        for line in region.outline():
            xs += [*(x for x, _ in line), None]
            ys += [*(y for _, y in line), None]
        for color, extra in ((RIM, 3), (LINE, 0)):
            figure.add_trace(
                go.Scatter(
                    x=xs,
                    y=ys,
                    mode="markers+lines" if region.soft else "lines",
                    line={"color": color, "width": 2 + extra},
                    marker={"color": color, "size": 7 + extra},
                    hoverinfo="skip",
                    showlegend=False,
                    **on_panel(panel),
                )
            )


def color_scale(opaque: bool = False) -> list[list[Any]]:
    """The package's palette for plotly: from transparent, so that an image is seen where there is little, or opaque."""
    stops = np.unique(np.round(255 * np.linspace(0, 1, 21) ** 2).astype(int))
    return [
        [at / 255, f"rgba({red}, {green}, {blue}, {1 if opaque else alpha / 255:.2f})"]
        for at, (red, green, blue, alpha) in zip(stops.tolist(), ramp()[stops].tolist(), strict=True)
    ]


def slider(labels: Sequence[str], frames: Sequence[str], below: float, begin: float = 0.0) -> dict[str, Any]:
    """A slider under the panels, at its last place.

    Args:
        labels: of its places.
        frames: names of the frames that they show.
        below: pixels under the panels.
        begin: where it begins, as a share of the panels' width.
    """
    return {
        "active": len(frames) - 1,
        "currentvalue": {"visible": False},
        "pad": {"t": below, "b": 0, "l": 0, "r": 0},
        "x": begin,
        "len": 1 - begin,
        "y": 0,
        "yanchor": "top",
        "bordercolor": GREY,
        "tickcolor": GREY,
        "font": {"size": 11},
        "steps": [
            {"label": label, "method": "animate", "args": [[name], {"mode": "immediate", **INSTANT}]}
            for label, name in zip(labels, frames, strict=True)
        ],
    }
