"""A run: a slider over its steps, before and after, the curves of energy and share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...errors import SettingsError
from ...inputs.regions import where_text
from ...referring.trace import Step, Trace
from ...strict import one_of
from ..cards.referring import steps_table
from ..html import card
from ..palette import BLUE, CLEAR, GREY, VERMILION, rgba
from .lines import framed
from .maps import Scale
from .panels import BAR, WIDE, arrange, aspect_of, panelled, picture_height, set_height
from .parts import (
    INSTANT,
    LEFT,
    RIGHT,
    STYLE,
    add_image,
    add_outlines,
    graph_objects,
    heat,
    must_be,
    new_figure,
    percent_grid,
    place_scale,
    slider,
)
from .words import TEXT, TITLE_SIZE, head, whole, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ENERGY_COLOR, SHARE_COLOR = BLUE, VERMILION
# Bytes of all maps of a player, as plotly writes them: a longer run shows some of its steps, evenly chosen.
_MAPS = 1_000_000
# Lines of the question and of an answer.
_LINES = 6
# Pixels for the names of curves, for the axis and the scale, and for the slider.
_NAMES, _FOOT, _SLIDER = 46, 74, 62


def step_player(trace: Trace) -> Figure:
    """A trace with a slider over its steps: the map on the image, energy and share with a cursor, the answers.

    It opens at the last step. The color scale is the same for all steps; the map is the mean over the trace's layers. A
    long run with many visual tokens shows some of its steps, evenly chosen, so that the figure stays below 2 MB.

    Raises:
        SettingsError: for what is no trace, or one without steps.

    Examples:
        >>> figure = cm.figures.step_player(trace)
        >>> len(figure.layout.sliders[0].steps)
        4
    """
    from plotly.subplots import make_subplots

    _check(trace, "step_player")
    go = graph_objects()
    steps = _steps_shown(trace)
    percents = [percent_grid(step.maps.mean(0).numpy(), trace.layout) for step in steps]
    scale = max(*(float(percent.max()) for percent in percents), 1e-30)
    figure = make_subplots(1, 2, figure=new_figure(trace._repr_html_()))
    add_image(figure, Image.fromarray(trace.image), trace.layout)
    figure.add_trace(heat(percents[-1], trace.layout, scale), 1, 1)
    add_outlines(figure, trace.regions)
    for curve in _curves(trace):
        figure.add_trace(curve, 1, 2)
    ceiling = max(1.0, *(step.energy for step in trace.steps)) * 1.04
    line = {"color": GREY, "width": 2}
    at = [steps[-1].number] * 2
    figure.add_trace(go.Scatter(x=at, y=[0, ceiling], mode="lines", line=line, hoverinfo="skip", showlegend=False), 1, 2)
    heat_index = next(i for i, item in enumerate(figure.data) if item.type == "heatmap")
    cursor_index = len(figure.data) - 1
    titles = [_step_title(trace, step) for step in steps]
    figure.frames = [
        go.Frame(
            name=str(step.number),
            data=[{"type": "heatmap", "z": percent.astype(np.float32)}, {"type": "scatter", "x": [step.number] * 2}],
            traces=[heat_index, cursor_index],
            layout={"title": {"text": title}},
        )
        for step, percent, title in zip(steps, percents, titles, strict=True)
    ]
    # As high as the longest title, so that nothing jumps.
    top = max(head(figure, title) for title in titles)
    head(figure, titles[-1], whole(trace.question, lines=_LINES, size=TITLE_SIZE))
    _place(figure, trace, top, ceiling)
    numbers = [str(step.number) for step in steps]
    figure.update_layout(sliders=[slider(numbers, numbers, _FOOT + 8, begin=0.28)], updatemenus=[_play_buttons()], **STYLE)
    return figure


def before_after(trace: Trace, scale: Scale = "common") -> Figure:
    """The maps of the first and the last step side by side, with their answers: a picture to print.

    Args:
        trace: of a run.
        scale: "common" to compare the maps' sizes; "own" to see the shape of each, with its largest value in its title.

    Raises:
        SettingsError: for what is no trace, or one without steps.

    Examples:
        >>> figure = cm.figures.before_after(trace)
        >>> len(figure.data) > 1
        True
    """
    _check(trace, "before_after")
    one_of(scale, "scale", ("common", "own"))
    ends = [trace.steps[0], trace.steps[-1]]
    percents = [percent_grid(step.maps.mean(0).numpy(), trace.layout) for step in ends]
    tops = [max(float(percent.max()), 1e-30) for percent in percents]
    firsts = [
        f"{when}: {step.share:.0%} of attention {where_text(trace.regions)}"
        + (f", up to {top:.2g} %" if scale == "own" else "")
        for when, step, top in zip(("before", "after"), ends, tops, strict=True)
    ]
    figure = panelled(2, aspect_of(trace.layout), trace._repr_html_())
    for panel, (percent, top) in enumerate(zip(percents, tops, strict=True), 1):
        add_image(figure, Image.fromarray(trace.image), trace.layout, panel)
        drawn = heat(percent, trace.layout, max(tops) if scale == "common" else top)
        drawn.showscale = panel == 1 and scale == "common"
        figure.add_trace(drawn, 1, panel)
        add_outlines(figure, trace.regions, panel)
    question = trace.question
    top = head(figure, written(question, lines=_LINES, size=TITLE_SIZE), whole(question, lines=_LINES, size=TITLE_SIZE))
    arrange(
        figure,
        [step.answer or "" for step in ends],
        aspect_of(trace.layout),
        top=top,
        bottom=BAR if scale == "common" else 12,
        lines=12,
        marked="bold",
        subtitles=firsts,
    )
    figure.update_layout(**STYLE)
    return figure


def energy_curve(trace: Trace) -> Figure:
    """Energy and share of attention in the regions over the steps.

    Raises:
        SettingsError: for what is no trace, or one without steps.

    Examples:
        >>> figure = cm.figures.energy_curve(trace)
        >>> len(figure.data[0].y) == len(trace.steps)
        True
    """
    _check(trace, "energy_curve")
    title = f"Energy and share of attention {where_text(trace.regions)}"
    figure = new_figure(card(title, [], below=steps_table(trace.steps)))
    for curve in _curves(trace):
        figure.add_trace(curve)
    figure.update_xaxes(title="step", dtick=_ticks(trace))
    figure.update_yaxes(rangemode="tozero")
    framed(figure, [curve.name for curve in figure.data], head(figure, title))
    figure.update_layout(**STYLE)
    return figure


def _check(trace: Trace, name: str) -> None:
    must_be(trace, Trace, f"The trace of {name}", "from optimize(...) or Trace.load(path)")
    if not trace.steps:
        raise SettingsError(f"The trace of {name} must have at least one step; this one has none.")


def _steps_shown(trace: Trace) -> list[Step]:
    """All steps, or as many as keep the maps below _MAPS: float32, in base64."""
    rows, columns = trace.layout.grid
    most = max(int(_MAPS / (rows * columns * 4 * 4 / 3)), 2)
    chosen = np.unique(np.linspace(0, len(trace) - 1, min(len(trace), most)).round().astype(int))
    return [trace.steps[index] for index in chosen]


def _ticks(trace: Trace) -> int:
    return next((step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if len(trace) <= 8 * step), 1000)


def _place(figure: Figure, trace: Trace, top: int, ceiling: float) -> None:
    """The map on the left, the curves on the right, scale, slider and buttons below."""
    half = WIDE * 0.5
    high = max(picture_height(aspect_of(trace.layout), half), 210)
    bottom = _FOOT + _SLIDER
    fixed = {"constrain": "range", "automargin": False}
    set_height(figure, top + high + bottom, high)
    figure.update_layout(
        xaxis={"domain": [0, 0.5], "constraintoward": "left", **fixed},
        yaxis={"domain": [0, 1], "constraintoward": "top", **fixed},
        margin={"t": top, "b": bottom, "l": LEFT, "r": RIGHT, "pad": 0, "autoexpand": False},
        legend={"x": 0.57, "y": 1, "xanchor": "left", "yanchor": "top", "bgcolor": CLEAR},
    )
    # Of a tall image the curves take the upper part.
    low = max(1 - 320 / high, 0.0)
    figure.update_xaxes(title="step", dtick=_ticks(trace), domain=[0.58, 1], row=1, col=2)
    figure.update_xaxes(title_standoff=4, automargin=False, row=1, col=2)
    figure.update_yaxes(range=[0, ceiling], domain=[low, 1 - _NAMES / high], automargin=False, row=1, col=2)
    figure.data[0].colorbar.len = 250
    place_scale(figure, 8)


def _curves(trace: Trace) -> list[Any]:
    go = graph_objects()
    numbers = [step.number for step in trace.steps]
    answers = ["" if step.answer is None else f"<br>{written(step.answer, 400, 30)}" for step in trace.steps]
    return [
        go.Scatter(
            x=numbers,
            y=[step.energy for step in trace.steps],
            customdata=answers,
            name="energy",
            mode="lines+markers",
            line={"color": ENERGY_COLOR},
            hovertemplate="step %{x}: energy %{y:.4f}%{customdata}<extra></extra>",
        ),
        go.Scatter(
            x=numbers,
            y=[step.share for step in trace.steps],
            name=f"share {where_text(trace.regions)}",
            mode="lines+markers",
            line={"color": SHARE_COLOR, "dash": "dash"},
            marker={"symbol": "square"},
            hovertemplate="step %{x}: %{y:.1%} " + where_text(trace.regions) + "<extra></extra>",
        ),
    ]


def _step_title(trace: Trace, step: Step) -> str:
    share = f"{step.share:.0%} of attention {where_text(trace.regions)}"
    parts = [
        written(trace.question, TEXT, _LINES, TITLE_SIZE),
        f"step {step.number} of {trace.steps[-1].number}: energy {step.energy:.3f}, {share}",
    ]
    if step.answer is not None:
        parts.append(written(step.answer, TEXT, _LINES, TITLE_SIZE, bold=True))
    return "<br>".join(parts)


def _play_buttons() -> dict[str, Any]:
    play = [None, {"fromcurrent": True, "frame": {"duration": 600, "redraw": True}, "transition": {"duration": 0}}]
    pause = [[None], {"mode": "immediate", **INSTANT}]
    return {
        "type": "buttons",
        "direction": "left",
        "x": 0.0,
        "y": 0,
        "xanchor": "left",
        "yanchor": "top",
        "pad": {"t": _FOOT, "l": 0, "r": 0, "b": 0},
        "showactive": False,
        "bgcolor": rgba(GREY, 0.15),
        "bordercolor": GREY,
        "font": {"size": 12},
        "buttons": [
            {"label": "Play", "method": "animate", "args": play},
            {"label": "Pause", "method": "animate", "args": pause},
        ],
    }
