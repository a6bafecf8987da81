"""Scores while visual tokens are put in and taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from ...analysis.attribution.faithfulness import Curves
from ..palette import BLUE, VERMILION, rgba
from .lines import framed
from .parts import STYLE, graph_objects, must_be, new_figure, value_tables
from .words import head, whole, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Dashes tell the curves apart without colour.
_LINES = {
    "insertion": (BLUE, "solid"),
    "deletion": (VERMILION, "dash"),
}


def insertion_deletion(curves: Curves) -> Figure:
    """Insertion and deletion curves of a map, each over the range of the same in random orders.

    Args:
        curves: from `analysis.insertion_deletion`.

    Raises:
        SettingsError: for another kind of thing.

    Examples:
        >>> curves = cm.analysis.insertion_deletion(mllm, prompt, None, cmap, points=4, orders=2, progress=False)
        >>> figure = cm.figures.insertion_deletion(curves)
    """
    must_be(curves, Curves, "The curves of figures.insertion_deletion", "from analysis.insertion_deletion")
    go = graph_objects()
    x, what = curves.fractions, "share of the visual tokens put in, or taken out"
    listed = value_tables({name: (x, getattr(curves, name)) for name in _LINES}, what)
    figure = new_figure(Markup().join([curves._repr_html_(), *listed]))
    for name, (color, _) in _LINES.items():
        randoms = getattr(curves, f"random_{name}")
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([randoms.min(0), randoms.max(0)[::-1]]),
                mode="lines",
                fill="toself",
                fillcolor=rgba(color, 0.15),
                line={"width": 0},
                name=f"{name}, {len(randoms)} random orders",
                hoverinfo="skip",
            )
        )
    for name, (color, dash) in _LINES.items():
        figure.add_trace(
            go.Scatter(
                x=x,
                y=getattr(curves, name),
                mode="lines+markers",
                line={"color": color, "dash": dash},
                name=name,
                hovertemplate=f"{name}, %{{x:.0%}}: %{{y:.3f}}<extra></extra>",
            )
        )
    figure.update_xaxes(title=what, tickformat=".0%")
    figure.update_yaxes(title="score (nats)")
    below = f"area between the curves {curves.area:.2f}, above {curves.percentile:.0%} of random orders"
    top = head(figure, f"{written(curves.target)}<br><sub>{below}</sub>", whole(curves.target))
    framed(figure, [str(line.name) for line in figure.data], top)
    figure.update_layout(**STYLE)
    return figure
