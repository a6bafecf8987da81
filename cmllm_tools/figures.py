"""Plotly figures of maps and traces. Each function returns a figure and shows nothing; plotly loads at the first call.

Text that comes from a model or a user is escaped: plotly renders a subset of HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .attention import Attention
from .context import ContextMap
from .energy import Target
from .layout import VisualTokenLayout
from .regions import Region, Regions, as_regions
from .trace import Step, Trace

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's palette, told apart with any colour vision; dashes tell the curves apart without colour.
ENERGY_COLOR, SHARE_COLOR = "#0072B2", "#D55E00"
_TOKEN_COLORS = ("#D55E00", "#56B4E9", "#009E73", "#F0E442")
PANEL = 460


def map_on_image(cmap: ContextMap, image: Image.Image, regions: Regions | None = None) -> Figure:
    """A context-token map over its image, with the regions outlined.

    Args:
        cmap: from `context_map`.
        image: the prompt's image (`prompt.image`).
        regions: to outline.
    """
    percent = _percent(cmap.values.detach().float().cpu().numpy(), cmap.layout)
    figure = _figure()
    _add_image(figure, image, cmap.layout)
    figure.add_trace(_heat(percent, cmap.layout, percent.max()))
    _add_outlines(figure, as_regions(regions) if regions is not None else ())
    figure.update_layout(
        title=f"Attention of {escape(' '.join(cmap.words))!r}",
        width=PANEL + 120,
        height=_panel_height(cmap.layout) + 100,
        **_STYLE,
    )
    return figure


def visual_tokens(layout: VisualTokenLayout, image: Image.Image) -> Figure:
    """What each visual token sees, outlined on the image; each size of token (tile, thumbnail) has its color."""
    go = _graph_objects()
    figure = _figure()
    _add_image(figure, image, layout)
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
        height=_panel_height(layout) + 150,
        legend={"orientation": "h", "y": 0, "yanchor": "top"},
        **_STYLE | {"margin": {"t": 80, "b": 60, "l": 40, "r": 40}},
    )
    return figure


def step_player(trace: Trace) -> Figure:
    """A trace with a slider over its steps: the map on the image, energy and share with a cursor, the answers.

    The color scale is the same for all steps. The map is the mean over the trace's layers.
    """
    from plotly.subplots import make_subplots

    go = _graph_objects()
    percents = [_percent(step.maps.mean(0).numpy(), trace.layout) for step in trace.steps]
    top = max(float(percent.max()) for percent in percents)
    figure = make_subplots(
        1, 2, column_widths=[0.52, 0.48], horizontal_spacing=0.14, subplot_titles=["Attention of the context token", " "]
    )
    _add_image(figure, Image.fromarray(trace.image), trace.layout)
    figure.add_trace(_heat(percents[0], trace.layout, top, bar_x=0.46), 1, 1)
    _add_outlines(figure, trace.regions)
    for curve in _curves(trace):
        figure.add_trace(curve, 1, 2)
    ceiling = max(1.0, *(step.energy for step in trace.steps)) * 1.04
    cursor = go.Scatter(
        x=[0, 0], y=[0, ceiling], mode="lines", line={"color": "#888", "width": 2}, hoverinfo="skip", showlegend=False
    )
    figure.add_trace(cursor, 1, 2)
    heat_index = next(i for i, item in enumerate(figure.data) if item.type == "heatmap")
    cursor_index = len(figure.data) - 1
    figure.frames = [
        go.Frame(
            name=str(step.number),
            data=[{"type": "heatmap", "z": percent}, {"type": "scatter", "x": [step.number] * 2}],
            traces=[heat_index, cursor_index],
            layout={"title": {"text": _step_title(trace, step)}},
        )
        for step, percent in zip(trace.steps, percents, strict=True)
    ]
    figure.update_xaxes(title="step", dtick=max(1, len(trace) // 10), row=1, col=2)
    figure.update_yaxes(range=[0, ceiling], row=1, col=2)
    figure.update_layout(
        title=_step_title(trace, trace.steps[0]),
        width=2 * PANEL + 60,
        height=PANEL + 150,
        legend={"x": 0.78, "y": 1.08, "xanchor": "center", "orientation": "h"},
        sliders=[_slider(trace)],
        updatemenus=[_play_buttons()],
        **_STYLE | {"margin": {"t": 110, "b": 90, "l": 10, "r": 20}},
    )
    return figure


def before_after(trace: Trace) -> Figure:
    """The maps of the first and the last step side by side on one color scale, with their answers: a picture to print."""
    from plotly.subplots import make_subplots

    ends = [trace.steps[0], trace.steps[-1]]
    percents = [_percent(step.maps.mean(0).numpy(), trace.layout) for step in ends]
    top = max(float(percent.max()) for percent in percents)
    titles = [
        f"{when}: {step.share:.0%} of attention in the region<br><b>{escape(step.answer or '')}</b>"
        for when, step in zip(("before", "after"), ends, strict=True)
    ]
    figure = make_subplots(1, 2, horizontal_spacing=0.05, subplot_titles=titles)
    for panel, percent in enumerate(percents, 1):
        _add_image(figure, Image.fromarray(trace.image), trace.layout, panel)
        figure.add_trace(_heat(percent, trace.layout, top), 1, panel)
        _add_outlines(figure, trace.regions, panel)
    figure.update_layout(
        title=escape(trace.question),
        width=2 * PANEL + 40,
        height=_panel_height(trace.layout) + 150,
        **_STYLE | {"margin": {"t": 110, "b": 20, "l": 20, "r": 20}},
    )
    return figure


def energy_curve(trace: Trace) -> Figure:
    """Energy and share of attention in the regions over the steps."""
    figure = _figure()
    for curve in _curves(trace):
        figure.add_trace(curve)
    figure.update_xaxes(title="step", dtick=max(1, len(trace) // 10))
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(title="Energy and share of attention in the region", width=620, height=380, **_STYLE)
    return figure


def layer_head_grid(attention: Attention, regions: Regions, *, sigma: float = 0.1) -> Figure:
    """Share of each layer's and head's attention that lies in the regions, as a grid.

    The share is taken of the attention on the image, averaged over the captured queries; a uniform head would have the
    share of area, which the title gives.
    """
    target = Target.of(attention.prompt.layout, regions, sigma).to(attention.values)
    shares = target.share(attention.values.detach().mean(2)).cpu().numpy()
    uniform = target.share(attention.values.new_ones(len(attention.prompt.layout))).item()
    go = _graph_objects()
    figure = _figure()
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
        title=f"Share of attention in the region (uniform attention: {uniform:.1%})", width=560, height=460, **_STYLE
    )
    return figure


_STYLE: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"t": 60, "b": 40, "l": 40, "r": 20},
    "font": {"size": 13},
    "modebar": {"orientation": "v"},
}


def _graph_objects() -> Any:
    import plotly.graph_objects

    return plotly.graph_objects


def _figure() -> Figure:
    return _graph_objects().Figure()


def _panel_height(layout: VisualTokenLayout) -> int:
    """Height in pixels of an image drawn PANEL wide, or PANEL where it is taller than wide."""
    width, height = layout.image_size
    return round(PANEL * min(1.0, height / width))


def _percent(values: np.ndarray, layout: VisualTokenLayout) -> np.ndarray:
    """A map (visual token,) as (row, column), percent of the attention on the image."""
    return layout.raster(100 * values / max(float(values.sum()), 1e-30))


def _heat(percent: np.ndarray, layout: VisualTokenLayout, top: float, bar_x: float = 1.0) -> Any:
    boxes = layout.cells
    return _graph_objects().Heatmap(
        z=percent,
        x=[*boxes[0, :, 0], boxes[0, -1, 2]],
        y=[*boxes[:, 0, 1], boxes[-1, 0, 3]],
        zmin=0,
        zmax=top,
        colorscale=_transparent_scale(),
        colorbar={"title": "% of the<br>attention<br>on the image", "x": bar_x, "len": 0.8, "thickness": 14},
        hovertemplate="%{z:.2f} % of the attention on the image<extra></extra>",
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


def _add_image(figure: Figure, image: Image.Image, layout: VisualTokenLayout, panel: int = 1) -> None:
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


def _add_outlines(figure: Figure, regions: Sequence[Region], panel: int = 1) -> None:
    """White lines with a dark rim: visible on any image and any color of the scale."""
    go = _graph_objects()
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


def _curves(trace: Trace) -> list[Any]:
    go = _graph_objects()
    numbers = [step.number for step in trace.steps]
    return [
        go.Scatter(
            x=numbers,
            y=[step.energy for step in trace.steps],
            name="energy",
            mode="lines+markers",
            line={"color": ENERGY_COLOR},
            hovertemplate="step %{x}: energy %{y:.4f}<extra></extra>",
        ),
        go.Scatter(
            x=numbers,
            y=[step.share for step in trace.steps],
            name="share in region",
            mode="lines+markers",
            line={"color": SHARE_COLOR, "dash": "dash"},
            marker={"symbol": "square"},
            hovertemplate="step %{x}: %{y:.1%} in the region<extra></extra>",
        ),
    ]


def _step_title(trace: Trace, step: Step) -> str:
    answer = f"<br><b>{escape(step.answer)}</b>" if step.answer is not None else ""
    return (
        f"{escape(trace.question)} | step {step.number}: energy {step.energy:.3f}, share in region {step.share:.0%}{answer}"
    )


def _slider(trace: Trace) -> dict[str, Any]:
    return {
        "active": 0,
        "currentvalue": {"prefix": "step "},
        "pad": {"t": 40},
        "x": 0.12,
        "len": 0.86,
        "steps": [
            {
                "label": str(step.number),
                "method": "animate",
                "args": [[str(step.number)], {"mode": "immediate", **_INSTANT}],
            }
            for step in trace.steps
        ],
    }


def _play_buttons() -> dict[str, Any]:
    play = [None, {"fromcurrent": True, "frame": {"duration": 600, "redraw": True}, "transition": {"duration": 0}}]
    pause = [[None], {"mode": "immediate", **_INSTANT}]
    return {
        "type": "buttons",
        "direction": "left",
        "x": 0.0,
        "y": 0,
        "xanchor": "left",
        "yanchor": "top",
        "pad": {"t": 52},
        "showactive": False,
        "buttons": [
            {"label": "Play", "method": "animate", "args": play},
            {"label": "Pause", "method": "animate", "args": pause},
        ],
    }


_INSTANT = {"frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
