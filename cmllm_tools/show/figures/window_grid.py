"""A sweep over windows of layers, as heat maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...analysis.recommend import Recommendation
from ...analysis.sweep import Sweep
from ...models.prompt import queries_name
from ...notation import window_text
from ..cards.analysis import sweep_pictures
from ..html import table, text
from ..palette import VERMILION
from .panels import arrange, columns_of, panelled
from .parts import STYLE, color_scale, graph_objects, must_be, on_panel, scale_bar, stills
from .words import head, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Windows that the static version names.
_LISTED = 6
# Grids of more layers have cells too small for figures.
_WITH_FIGURES = 8
# Figures that are shares: their scale starts at 0 and ends at 1 at most.
_SHARES = ("share before", "share", "right")
_TITLES = {
    "energy before": "energy of step 0",
    "energy": "energy reached",
    "share before": "share in the region at step 0",
    "share": "share in the region reached",
    "moved": "log-probability of the right answer: how far it moved, in nats",
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
        SettingsError: for another kind of thing.
        DataError: for a figure that a sweep does not have.

    Examples:
        >>> figure = cm.figures.window_grid(sweep, "share", cm.analysis.recommend(sweep))
    """
    must_be(sweep, Sweep, "The sweep of window_grid", "from analysis.sweep_windows")
    must_be(recommended, (Recommendation, type(None)), "The recommended of window_grid", "from analysis.recommend")
    go = graph_objects()
    contexts = list(dict.fromkeys(choice.queries for choice in sweep.choices))
    grids = [sweep.grid(figure, context) for context in contexts]
    known = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    low, high = _span(known, figure in _SHARES)
    titles = [f"context token: {queries_name(context)}" for context in contexts]
    title = _TITLES.get(figure, figure)
    rows = [[text(row["choice"]), f"{row[figure]:.3f}", ""] for row in sweep.rows(figure)[:_LISTED]]
    pictures = sweep_pictures(sweep, figure, recommended.choice if recommended else None)
    static = stills(title, pictures) + table([text("choice"), figure, ""], rows)
    shown = panelled(len(contexts), 1.0, static)
    # Numbers of layers on the axes, where a window cannot end before it begins: such cells stay empty.
    hover = [[window_text((a, b + 1)) if b >= a else "" for b in range(len(grids[0]))] for a in range(len(grids[0]))]
    figures = len(grids[0]) <= _WITH_FIGURES and columns_of(len(contexts)) < 3
    for panel, (context, grid) in enumerate(zip(contexts, grids, strict=True), 1):
        axes = on_panel(panel)
        shown.add_trace(
            go.Heatmap(
                z=grid,
                customdata=hover,
                zmin=low,
                zmax=high,
                colorscale=color_scale(opaque=True),
                showscale=panel == 1,
                colorbar=scale_bar(form=".3~g"),
                text=[["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in grid] if figures else None,
                texttemplate="%{text}" if figures else None,
                textfont={"size": 10},
                hoverongaps=False,
                hovertemplate="%{customdata}: %{z:.3f}<extra></extra>",
                **axes,
            )
        )
        if recommended is not None and recommended.choice.queries == context:
            first, last = recommended.choice.layers[0], recommended.choice.layers[1] - 1
            frame = {"x0": last - 0.5, "x1": last + 0.5, "y0": first - 0.5, "y1": first + 0.5}
            shown.add_shape(
                **frame, line={"color": VERMILION, "width": 3}, xref=axes["xaxis"], yref=axes["yaxis"], type="rect"
            )
        common = {"dtick": max(1, -(-len(grid) // 6)), "title_standoff": 2, "showgrid": False, "zeroline": False}
        edge = [-0.5, len(grid) - 0.5]
        shown.update_layout({f"xaxis{panel}": {"title": "last layer", "range": edge, **common}})
        anchored = {"title": "first layer", "range": edge[::-1], "scaleanchor": axes["xaxis"], **common}
        shown.update_layout({f"yaxis{panel}": anchored})
    done = f"{sweep.done} examples, {type(sweep.method).__name__}"
    arrange(shown, titles, 1.0, top=head(shown, f"{written(title)}<br><sub>{written(done)}</sub>"), axes=(48, 44))
    shown.update_layout(**STYLE)
    return shown


def _span(known: np.ndarray, share: bool) -> tuple[float, float]:
    """Ends of the scale; where all values are equal it starts at 0, and a share's ends at 1 at most."""
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high or (share and high > 1):
        high = 1.0
    return low, high
