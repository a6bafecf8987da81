"""Layers and heads as a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...analysis.head_ranking import HeadRanking
from ...analysis.region_shares import HeadGrid, head_shares
from ...attention.capture import Attention
from ...causes.grid import CauseGrid
from ...inputs.regions import Regions
from ...strict import one_of
from ..html import card
from ..picture import grid_picture
from .panels import BAR
from .parts import LEFT, RIGHT, SIGNED_SCALE, STYLE, color_scale, graph_objects, must_be, new_figure, place_scale, scale_bar
from .words import head, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Heads that the static version names.
_LISTED = 6


def layer_head_grid(attention: Attention, regions: Regions, *, sigma: float = 0.1) -> Figure:
    """Share of each layer's and head's attention that lies in the regions; `head_grid` of what `head_shares` measures.

    Raises:
        SettingsError: for what is no attention.
        RegionError: for a region the model does not see.

    Examples:
        >>> figure = cm.figures.layer_head_grid(attention, box)
        >>> figure.data[0].z.shape
        (6, 6)
    """
    must_be(attention, Attention, "The attention of layer_head_grid", "from capture_attention(mllm, prompt)")
    return head_grid(head_shares(attention, regions, sigma=sigma))


def head_grid(grid: HeadGrid, show: Literal["share", "over_chance", "rank"] = "share") -> Figure:
    """What each layer's and head's attention has in the region, as a grid; all three figures at the pointer.

    Args:
        grid: from `analysis.head_shares`.
        show: which figure is coloured: the share of the attention on the image; the same as a multiple of the share of
            area; or the fraction of other places that the head looks at less.

    Raises:
        SettingsError: for another kind of thing, or another figure.
        RegionError: for the rank where there are no other places.

    Examples:
        >>> figure = cm.figures.head_grid(cm.analysis.head_shares(attention, box), "over_chance")
        >>> figure.data[0].z.shape
        (6, 6)
    """
    must_be(grid, HeadGrid, "The grid of head_grid", "from analysis.head_shares")
    one_of(show, "show", ("share", "over_chance", "rank"))
    ranks = grid.rank if len(grid.elsewhere) or show == "rank" else np.full(grid.values.shape, np.nan)
    shown, title, form = {
        "share": (grid.values, f"Share of attention {grid.where} (uniform attention: {grid.chance:.1%})", ".0%"),
        "over_chance": (grid.over_chance, f"Share of attention {grid.where} over chance ({grid.chance:.1%})", ".1f"),
        "rank": (ranks, "Fraction of other places that the head looks at less", ".0%"),
    }[show]
    hover = f"%{{customdata[0]:.1%}} {grid.where}<br>%{{customdata[1]:.2f}} x chance"
    if len(grid.elsewhere):
        hover += "<br>above %{customdata[2]:.0%} of other places"
    return _grid(shown, grid.layers, grid.heads, np.dstack([grid.values, grid.over_chance, ranks]), hover, title, form)


def head_ranking(ranking: HeadRanking) -> Figure:
    """How often each layer's and head's attention points at the referred object, with its interval at the pointer.

    Raises:
        SettingsError: for what is no ranking.

    Examples:
        >>> figure = cm.figures.head_ranking(cm.analysis.rank_heads(mllm, examples, progress=False))
        >>> figure.data[0].z.shape
        (6, 6)
    """
    must_be(ranking, HeadRanking, "The ranking of head_ranking", "from analysis.rank_heads")
    figures = [ranking.pointing, *ranking.pointing_interval, ranking.lift]
    hover = (
        "points at the object in %{customdata[0]:.1%}<br>(%{customdata[1]:.1%} .. %{customdata[2]:.1%})<br>"
        "share %{customdata[3]:.2f} x chance"
    )
    several = "s" * (ranking.examples != 1)
    title = f"Pointing at the object, {ranking.examples} example{several} (by chance: {ranking.pointing_chance:.1%})"
    return _grid(ranking.pointing, ranking.layers, ranking.heads, np.dstack(figures), hover, title, ".0%")


def cause_grid(grid: CauseGrid, show: Literal["change", "effect"] = "change") -> Figure:
    """What each change inside the model does to its answer: vermilion for more of the measure, blue for less.

    Args:
        grid: from `causes.knockout_grid`, `ablate_grid` or `patch`.
        show: "change", in nats; or the normalised "effect" of patching.

    Raises:
        SettingsError: for another kind of thing, or another figure.
        DataError: for the effect where nothing was patched.

    Examples:
        >>> grid = cm.causes.knockout_grid(mllm, prompt, "last", layers=[4, 5], candidates=two, progress=False)
        >>> cm.figures.cause_grid(grid).data[0].z.shape
        (2, 6)
    """
    must_be(grid, CauseGrid, "The grid of cause_grid", "from causes.knockout_grid(mllm, prompt)")
    one_of(show, "show", ("change", "effect"))
    values = grid.change if show == "change" else grid.effect
    against = f" against {', '.join(map(repr, grid.answers[1:]))}" if len(grid.answers) > 1 else ""
    unit = "in nats" if show == "change" else "0 as corrupted, 1 as clean"
    title = f"{grid.what}: {show} of the {grid.measure} of {grid.answers[0]!r}{against}, {unit}"
    hover = "%{customdata[0]:+.3f} nats, to %{customdata[1]:.3f}"
    details = np.dstack([grid.change, grid.values])
    return _grid(values, grid.rows, grid.columns, details, hover, title, "+.3~g", grid.axes, signed=True)


def _grid(
    values: np.ndarray,
    layers: Sequence[int] | Sequence[str],
    heads: Sequence[int] | Sequence[str],
    details: np.ndarray,
    hover: str,
    title: str,
    form: str,
    axes: tuple[str, str] = ("layer", "head"),
    signed: bool = False,
) -> Figure:
    """A layer x head heat map, or one of other `axes`. `details` (layer, head, figure) are for `hover`."""
    order = np.argsort(-np.nan_to_num(np.abs(values) if signed else values), axis=None, kind="stable")
    best = np.dstack(np.unravel_index(order, values.shape))[0][:_LISTED]
    down, across = axes
    facts = [
        (f"{down} {layers[layer]}, {across} {heads[head]}", format(values[layer, head], form.replace("~", "")))
        for layer, head in best
    ]
    figure = new_figure(card(title, facts, grid_picture(values, f"{down} (down) x {across}", signed=signed)))
    top = max(float(np.nan_to_num(np.abs(values)).max()), 1e-6)
    figure.add_trace(
        graph_objects().Heatmap(
            z=values,
            x=[str(number) for number in heads],
            y=[str(layer) for layer in layers],
            customdata=details.astype(np.float32),
            colorscale=SIGNED_SCALE if signed else color_scale(opaque=True),
            zmin=-top if signed else 0,
            zmax=top,
            colorbar=scale_bar(form=form),
            hoverongaps=False,
            hovertemplate=f"{down} %{{y}}, {across} %{{x}}<br>{hover}<extra></extra>",
        )
    )
    figure.update_xaxes(title=across, type="category", title_standoff=4, showgrid=False)
    figure.update_yaxes(title=down, type="category", autorange="reversed", title_standoff=4, showgrid=False)
    above = head(figure, written(title))
    # A row is high enough to be told from its neighbours, and a grid of few is not a slab.
    height = min(max(len(layers) * 11, 160), 440)
    margin = {"t": above, "b": BAR + 42, "l": LEFT + 46, "r": RIGHT, "pad": 0}
    place_scale(figure, 44)
    figure.update_layout(height=above + height + margin["b"], margin=margin, **STYLE)
    return figure
