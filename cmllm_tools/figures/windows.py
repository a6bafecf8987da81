"""A sweep over windows of layers, as heat maps."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.sweep import Recommendation, Sweep
from ..display import Html, html, table
from ..models.prompt import queries_name
from .parts import STYLE, graph_objects, new_figure, stills

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Windows that the static version names.
_LISTED = 6
_TITLES = {
    "energy before": "energy of step 0",
    "energy": "energy reached",
    "share before": "share in the region at step 0",
    "share": "share in the region reached",
    "moved": "log-probability of the right answer: how far it moved",
    "damage": "language damage: log-probability of any answer that makes sense, lost",
    "right": "share of examples with the right answer likeliest",
    "seconds": "seconds a run",
}


def window_grid(sweep: Sweep, figure: str = "moved", recommended: Recommendation | None = None) -> Figure:
    """A figure of a sweep for each window: its first layer down, its last layer across, a panel to each context token.

    Args:
        sweep: from `analysis.sweep_windows`.
        figure: one of `Sweep.values`' figures, as its mean over examples.
        recommended: marked with a frame.

    Raises:
        DataError: for a figure that a sweep does not have.
    """
    from plotly.subplots import make_subplots

    go = graph_objects()
    contexts = list(dict.fromkeys(choice.queries for choice in sweep.choices))
    grids = [sweep.grid(figure, context) for context in contexts]
    known = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    titles = [f"context token: {escape(queries_name(context))}" for context in contexts]
    title = _TITLES.get(figure, figure)
    rows = [[html(row["choice"]), f"{row[figure]:.3f}", ""] for row in sweep.rows(figure)[:_LISTED]]
    pictures = sweep.pictures(figure, recommended.choice if recommended else None)
    static = Html(stills(title, pictures) + table([Html("choice"), figure, ""], rows))
    shown = make_subplots(1, len(contexts), figure=new_figure(static), subplot_titles=titles, horizontal_spacing=0.08)
    numbers = list(range(len(grids[0])))
    for panel, (context, grid) in enumerate(zip(contexts, grids, strict=True), 1):
        heat = go.Heatmap(
            z=grid,
            x=numbers,
            y=numbers,
            zmin=low,
            zmax=high,
            colorscale="Viridis",
            showscale=panel == len(contexts),
            text=[["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in grid]
            if len(grid) <= 12
            else None,
            texttemplate="%{text}" if len(grid) <= 12 else None,
            hovertemplate="layers %{y} to %{x}: %{z:.3f}<extra></extra>",
        )
        shown.add_trace(heat, 1, panel)
        if recommended is not None and recommended.choice.queries == context:
            first, last = recommended.choice.layers[0], recommended.choice.layers[1] - 1
            frame = {"x0": last - 0.5, "x1": last + 0.5, "y0": first - 0.5, "y1": first + 0.5}
            shown.add_shape(**frame, line={"color": "#D55E00", "width": 4}, row=1, col=panel)
        shown.update_xaxes(title="last layer", dtick=max(1, len(grid) // 8), row=1, col=panel, constrain="domain")
        shown.update_yaxes(
            title="first layer" if panel == 1 else None,
            dtick=max(1, len(grid) // 8),
            autorange="reversed",
            scaleanchor=f"x{panel}" if panel > 1 else "x",
            row=1,
            col=panel,
        )
    shown.update_layout(
        title=f"{title}<br><sub>{sweep.done} examples, {escape(type(sweep.method).__name__)}</sub>",
        width=120 + 400 * len(contexts),
        height=480,
        **STYLE | {"margin": {"t": 110, "b": 50, "l": 60, "r": 20}},
    )
    return shown
