"""A run: a slider over its steps, before and after, the curves of energy and share."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..display import card
from ..trace import Step, Trace, steps_table
from .parts import PANEL, STYLE, add_image, add_outlines, graph_objects, heat, new_figure, panel_height, percent_grid

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's palette, told apart with any colour vision; dashes tell the curves apart without colour.
ENERGY_COLOR, SHARE_COLOR = "#0072B2", "#D55E00"


def step_player(trace: Trace) -> Figure:
    """A trace with a slider over its steps: the map on the image, energy and share with a cursor, the answers.

    The color scale is the same for all steps. The map is the mean over the trace's layers.
    """
    from plotly.subplots import make_subplots

    go = graph_objects()
    percents = [percent_grid(step.maps.mean(0).numpy(), trace.layout) for step in trace.steps]
    top = max(float(percent.max()) for percent in percents)
    figure = make_subplots(
        1,
        2,
        figure=new_figure(trace._repr_html_()),
        column_widths=[0.52, 0.48],
        horizontal_spacing=0.14,
        subplot_titles=["Attention of the context token", " "],
    )
    add_image(figure, Image.fromarray(trace.image), trace.layout)
    figure.add_trace(heat(percents[0], trace.layout, top, bar_x=0.46), 1, 1)
    add_outlines(figure, trace.regions)
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
        **STYLE | {"margin": {"t": 110, "b": 90, "l": 10, "r": 20}},
    )
    return figure


def before_after(trace: Trace) -> Figure:
    """The maps of the first and the last step side by side on one color scale, with their answers: a picture to print."""
    from plotly.subplots import make_subplots

    ends = [trace.steps[0], trace.steps[-1]]
    percents = [percent_grid(step.maps.mean(0).numpy(), trace.layout) for step in ends]
    top = max(float(percent.max()) for percent in percents)
    titles = [
        f"{when}: {step.share:.0%} of attention in the region<br><b>{escape(step.answer or '')}</b>"
        for when, step in zip(("before", "after"), ends, strict=True)
    ]
    figure = make_subplots(1, 2, figure=new_figure(trace._repr_html_()), horizontal_spacing=0.05, subplot_titles=titles)
    for panel, percent in enumerate(percents, 1):
        add_image(figure, Image.fromarray(trace.image), trace.layout, panel)
        figure.add_trace(heat(percent, trace.layout, top), 1, panel)
        add_outlines(figure, trace.regions, panel)
    figure.update_layout(
        title=escape(trace.question),
        width=2 * PANEL + 40,
        height=panel_height(trace.layout) + 150,
        **STYLE | {"margin": {"t": 110, "b": 20, "l": 20, "r": 20}},
    )
    return figure


def energy_curve(trace: Trace) -> Figure:
    """Energy and share of attention in the regions over the steps."""
    title = "Energy and share of attention in the region"
    figure = new_figure(card(title, [], below=steps_table(trace.steps)))
    for curve in _curves(trace):
        figure.add_trace(curve)
    figure.update_xaxes(title="step", dtick=max(1, len(trace) // 10))
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(title=title, width=620, height=380, **STYLE)
    return figure


def _curves(trace: Trace) -> list[Any]:
    go = graph_objects()
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
