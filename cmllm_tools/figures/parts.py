"""What the figures share: the image below, a map on it, outlines above, one style; static HTML of the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..display import Html, card, picture, table
from ..layout import VisualTokenLayout
from ..regions import Region

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Values = Sequence[float] | np.ndarray

PANEL = 460
# Maps side by side in one row.
COLUMNS = 3
# Values of a line that its table has.
_LISTED = 12
STYLE: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"t": 60, "b": 40, "l": 40, "r": 20},
    "font": {"size": 13},
    "modebar": {"orientation": "v"},
}


# Okabe and Ito's blue for less and vermilion for more, clear at 0.
_SIGNED_SCALE = [[0, "rgba(0, 114, 178, 0.85)"], [0.5, "rgba(255, 255, 255, 0)"], [1, "rgba(213, 94, 0, 0.85)"]]


def graph_objects() -> Any:
    import plotly.graph_objects

    return plotly.graph_objects


def new_figure(static: str) -> Figure:
    """An empty figure, and the HTML that stands for it where plotly.js does not run."""
    from .static import Figure

    return Figure(static=static)


def still(
    heat: np.ndarray,
    layout: VisualTokenLayout,
    image: Image.Image,
    regions: Sequence[Region] = (),
    caption: str = "",
    signed: bool = False,
) -> Html:
    """A map (row, column) in 0..1, or -1..1 when signed, on its image as static HTML."""
    outlines = [region.drawing for region in regions]
    return picture(
        layout.image_size, image, cells=layout.cells, heat=heat, signed=signed, outlines=outlines, caption=caption
    )


def stills(title: str, pictures: Sequence[Html]) -> Html:
    """Pictures under a title, at most COLUMNS side by side, in rows of much the same length."""
    columns = -(-len(pictures) // -(-len(pictures) // COLUMNS))
    rows = [pictures[at : at + columns] for at in range(0, len(pictures), columns)]
    return Html("".join(card("" if number else title, [], *row) for number, row in enumerate(rows)))


def value_tables(lines: Mapping[str, tuple[Values, Values]], x: str) -> list[Html]:
    """Some of the values, evenly chosen; lines that have the same positions share a table."""
    shared: dict[tuple[float, ...], dict[str, Values]] = {}
    for name, (positions, values) in lines.items():
        shared.setdefault(tuple(map(float, positions)), {})[name] = values
    tables = []
    for positions, columns in shared.items():
        points = list(zip(positions, *columns.values(), strict=False))
        chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), _LISTED)).round().astype(int))
        rows = [
            [f"{position:g}", *("-" if value is None else f"{float(value):.4g}" for value in values), ""]
            for position, *values in (points[at] for at in chosen)
        ]
        tables.append(table([x, *columns, ""], rows))
    return tables


def panel_height(layout: VisualTokenLayout) -> int:
    """Height in pixels of an image drawn PANEL wide, or PANEL where it is taller than wide."""
    width, height = layout.image_size
    return round(PANEL * min(1.0, height / width))


def percent_grid(values: np.ndarray, layout: VisualTokenLayout) -> np.ndarray:
    """A map (visual token,) as (row, column), percent of its sum; of the sum of its sizes where some are negative."""
    return layout.raster(100 * values / max(float(np.abs(values).sum()), 1e-30))


def heat(
    percent: np.ndarray,
    layout: VisualTokenLayout,
    top: float,
    bar_x: float = 1.0,
    what: str = "attention",
    signed: bool = False,
) -> Any:
    """A map on its image, on a scale from 0 to `top`, or from -`top` when signed."""
    boxes = layout.cells
    return graph_objects().Heatmap(
        z=percent,
        x=[*boxes[0, :, 0], boxes[0, -1, 2]],
        y=[*boxes[:, 0, 1], boxes[-1, 0, 3]],
        zmin=-top if signed else 0,
        zmax=top,
        colorscale=_SIGNED_SCALE if signed else _transparent_scale(),
        colorbar={"title": f"% of the<br>{what}<br>on the image", "x": bar_x, "len": 0.8, "thickness": 14},
        hovertemplate=f"%{{z:.2f}} % of the {what} on the image<extra></extra>",
    )


def add_image(figure: Figure, image: Image.Image, layout: VisualTokenLayout, panel: int = 1) -> None:
    width, height = layout.image_size
    number = "" if panel == 1 else str(panel)
    x, y = f"x{number}", f"y{number}"
    figure.add_layout_image(
        source=image, xref=x, yref=y, x=0, y=0, sizex=width, sizey=height, sizing="stretch", layer="below"
    )
    axis = {"showgrid": False, "zeroline": False, "showticklabels": False, "constrain": "domain"}
    figure.update_layout(
        {
            f"xaxis{number}": {"range": [0, width], **axis},
            f"yaxis{number}": {"range": [height, 0], "scaleanchor": x, "scaleratio": 1, **axis},
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
        for color, extra in (("black", 3), ("white", 0)):
            figure.add_trace(
                go.Scatter(
                    x=xs,
                    y=ys,
                    mode="markers+lines" if region.soft else "lines",
                    line={"color": color, "width": 2 + extra},
                    marker={"color": color, "size": 7 + extra},
                    hoverinfo="skip",
                    showlegend=False,
                    xaxis="x" if panel == 1 else f"x{panel}",
                    yaxis="y" if panel == 1 else f"y{panel}",
                )
            )


def _transparent_scale() -> list[list[Any]]:
    """Viridis that starts transparent, so that the image stays visible where there is little attention."""
    from plotly.colors import sample_colorscale

    positions = np.linspace(0, 1, 12)
    colors = sample_colorscale("Viridis", positions)
    opacity = 0.75 * positions**0.7
    return [
        [float(at), color.replace("rgb(", "rgba(").replace(")", f", {alpha:.2f})")]
        for at, color, alpha in zip(positions, colors, opacity, strict=True)
    ]
