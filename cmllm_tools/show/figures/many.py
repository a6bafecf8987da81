"""Many maps at once: every head's, and those of several runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...attention.capture import Attention
from ...errors import SettingsError
from ...inputs.regions import where_text
from ...layout.visual_tokens import VisualTokenLayout
from ...referring.trace import Trace
from ...strict import kind_of, one_of
from ..html import card
from ..palette import LINE
from ..picture import grid_picture, map_picture
from .maps import Scale
from .panels import BAR, WIDE, arrange, aspect_of, panelled
from .parts import (
    LEFT,
    RIGHT,
    STYLE,
    add_image,
    add_outlines,
    color_scale,
    graph_objects,
    heat,
    must_be,
    new_figure,
    on_panel,
    percent_grid,
    place_scale,
    scale_bar,
    stills,
)
from .words import head, whole, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Cells of all maps together: a figure of more would be heavy in a notebook.
_MOST = 1_500_000
_HIGHEST = 900


def head_maps(attention: Attention, scale: Scale = "own") -> Figure:
    """The map of every layer (down) and head (across), averaged over the queries, as small multiples.

    Args:
        attention: from `capture_attention`, whose `layers=` and `heads=` say which.
        scale: "own" to see the shape of each map, from 0 to its largest weight; "common" to compare their sizes.

    Raises:
        SettingsError: for what is no attention, or for more maps than a page can hold.
        CaptureError: for attention that was captured to the text alone.

    Examples:
        >>> figure = cm.figures.head_maps(attention)
        >>> figure.data[0].z.shape  # 6 layers of 8 rows, 6 heads of 8 columns
        (48, 48)
    """
    must_be(attention, Attention, "The attention of head_maps", "from capture_attention(mllm, prompt)")
    one_of(scale, "scale", ("common", "own"))
    attention = attention.on_image()
    layout: VisualTokenLayout = attention.prompt.layout
    rows, columns = layout.grid
    down, across = len(attention.layers), len(attention.heads)
    if down * across * rows * columns > _MOST:
        raise SettingsError(
            f"head_maps must have at most {_MOST} cells; {down} layers of {across} heads of {rows} x {columns} have "
            f"{down * across * rows * columns}. Capture fewer layers or heads."
        )
    weights = attention.values.detach().float().mean(2).flatten(0, 1).cpu().numpy()
    maps = np.stack([percent_grid(each, layout) for each in weights])
    top = maps.max(axis=(1, 2), keepdims=True) if scale == "own" else maps.max()
    # In hundredths, a byte each.
    shown = np.round(100 * maps / np.maximum(top, 1e-30)).astype(np.uint8)
    tiled = shown.reshape(down, across, rows, columns).transpose(0, 2, 1, 3).reshape(down * rows, across * columns)
    title = f"Attention of {' '.join(attention.prompt.tokens[at] for at in attention.queries)!r}, layer (down) x head"
    of = "% of each head's largest weight" if scale == "own" else "% of the largest weight of all heads"
    figure = new_figure(card(title, [], grid_picture(tiled.astype(float), of)))
    figure.add_trace(
        graph_objects().Heatmap(
            z=tiled, zmin=0, zmax=100, colorscale=color_scale(opaque=True), colorbar=scale_bar(of), hoverinfo="skip"
        )
    )
    for count, size, which in ((down, rows, "y"), (across, columns, "x")):
        for at in range(1, count):
            _rule(figure, which, at * size - 0.5, (across * columns if which == "y" else down * rows) - 0.5)
    figure.update_xaxes(title="head", title_standoff=4, **_numbered(attention.heads, columns))
    figure.update_yaxes(title="layer", title_standoff=4, **_numbered(attention.layers, rows))
    figure.update_yaxes(range=[down * rows - 0.5, -0.5])
    figure.update_xaxes(range=[-0.5, across * columns - 0.5])
    height = min((WIDE - 46) * down * rows / (across * columns) * _cell_aspect(layout), _HIGHEST)
    above = head(figure, written(title), whole(title))
    place_scale(figure, 44)
    margin = {"t": above, "b": BAR + 42, "l": LEFT + 46, "r": RIGHT, "pad": 0}
    figure.update_layout(height=round(above + max(height, 120) + margin["b"]), margin=margin, **STYLE)
    return figure


def _rule(figure: Figure, which: str, at: float, end: float) -> None:
    """A line between rows or columns of maps."""
    along = {"x0": -0.5, "x1": end, "y0": at, "y1": at} if which == "y" else {"x0": at, "x1": at, "y0": -0.5, "y1": end}
    figure.add_shape(type="line", line={"color": LINE, "width": 1}, xref="x", yref="y", **along)


def _numbered(numbers: tuple[int, ...], size: int) -> dict[str, object]:
    """Ticks of an axis in the middle of each map, of some where they are many."""
    step = -(-len(numbers) // 16)
    chosen = range(0, len(numbers), step)
    middles = [(at + 0.5) * size - 0.5 for at in chosen]
    return {"tickvals": middles, "ticktext": [str(numbers[at]) for at in chosen], "showgrid": False, "zeroline": False}


def _cell_aspect(layout: VisualTokenLayout) -> float:
    """Height of a cell as a share of its width, in the image."""
    (width, height), (rows, columns) = layout.image_size, layout.grid
    return (height / rows) / (width / columns)


def runs_side_by_side(traces: Mapping[str, Trace], scale: Scale = "common") -> Figure:
    """Where the model looks after each of several runs, on one scale, with their answers.

    Args:
        traces: name -> run; up to 12, of one image or of several.
        scale: "common" to compare the maps' sizes; "own" to see the shape of each.

    Raises:
        SettingsError: for what are no named runs, too many, or one without steps.

    Examples:
        >>> other = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=3))
        >>> figure = cm.figures.runs_side_by_side({"++": trace, "plain": other})
    """
    must_be(traces, Mapping, "The runs of runs_side_by_side", "{name: trace}")
    one_of(scale, "scale", ("common", "own"))
    for name, trace in traces.items():
        kind_of(name, str, "The name of a run must be a text")
        must_be(trace, Trace, f"The run {name!r} of runs_side_by_side", "from optimize(...) or Trace.load(path)")
    if not 1 <= len(traces) <= 12 or not all(trace.steps for trace in traces.values()):
        raise SettingsError(f"runs_side_by_side must have 1 to 12 runs, each with a step at least; got {len(traces)}.")
    runs = list(traces.values())
    percents = [percent_grid(run.steps[-1].maps.mean(0).numpy(), run.layout) for run in runs]
    tops = [max(float(percent.max()), 1e-30) for percent in percents]
    if scale == "common":
        tops = [max(tops)] * len(tops)
    said = [f"{name}: {run.steps[-1].share:.0%} {where_text(run.regions)}" for name, run in traces.items()]
    answers = [run.steps[-1].answer or "" for run in runs]
    pictures = [
        map_picture(percent, run.layout, run.image, top=top, regions=run.regions, caption=", ".join(filter(None, words)))
        for percent, run, top, words in zip(percents, runs, tops, zip(said, answers, strict=True), strict=True)
    ]
    aspect = max(aspect_of(run.layout) for run in runs)
    figure = panelled(len(runs), aspect, stills(f"After {len(runs)} runs, % of the attention on the image", pictures))
    for panel, (percent, run, top) in enumerate(zip(percents, runs, tops, strict=True), 1):
        add_image(figure, Image.fromarray(run.image), run.layout, panel)
        drawn = heat(percent, run.layout, top)
        drawn.showscale = panel == 1 and scale == "common"
        figure.add_trace(drawn.update(on_panel(panel)))
        add_outlines(figure, run.regions, panel)
    bottom = BAR if scale == "common" else 12
    arrange(figure, answers, aspect, top=12, bottom=bottom, lines=6, marked="bold", subtitles=said)
    figure.update_layout(**STYLE)
    return figure
