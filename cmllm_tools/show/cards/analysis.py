"""Cards of what analysis finds: grids of layers and heads, attributions, sweeps."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from markupsafe import Markup
from PIL import Image

from ...analysis.attribution.agreement import Agreement
from ...analysis.attribution.attribute import Attribution
from ...analysis.attribution.faithfulness import Curves
from ...analysis.choices import FIGURES, Choice
from ...analysis.controls import Controls
from ...analysis.frontier import BOUND, Frontier
from ...analysis.gradients import GradientProfile
from ...analysis.head_ranking import HeadRanking, interval_words
from ...analysis.intervals import interval_text
from ...analysis.region_shares import HeadGrid
from ...analysis.sinks import Sinks
from ...analysis.sweep import Sweep
from ...errors import DataError
from ...inputs.regions import Box, short
from ...layout.visual_tokens import VisualTokenLayout
from ...models.prompt import queries_name
from ...notation import layers_text, number_ranges
from ...shown import view
from ...strict import kind_of
from ..html import bar, card, table, text
from ..picture import grid_picture, map_picture

# Heads, choices and maps that a card lists.
HEADS, CHOICES, MAPS = 8, 8, 20


@view(HeadGrid)
def head_grid_card(grid: HeadGrid) -> Markup:
    """All heads as a picture, the best in a table."""
    ranked = np.dstack(np.unravel_index(np.argsort(-grid.values, axis=None), grid.values.shape))[0][:HEADS]
    rows = [
        [
            grid.layers[layer],
            grid.heads[head],
            f"{grid.values[layer, head]:.1%}",
            bar(grid.values[layer, head]),
            f"{grid.over_chance[layer, head]:.2f}",
            f"{grid.rank[layer, head]:.0%}" if len(grid.elsewhere) else "-",
        ]
        for layer, head in ranked
    ]
    listed = table(["layer", "head", "share", text(short(grid.where)), "over chance", "above other places"], rows)
    shown = head_picture(grid.values, grid.layers, grid.heads, grid.where)
    return card(type(grid).__name__, grid.facts(), shown, below=listed)


@view(Controls)
def controls_card(controls: Controls) -> Markup:
    """The controls in a table, each with a bar of its effect as a share of the largest."""
    top = max((abs(each.mean) for each in controls.controls if each.effects), default=0.0) or 1.0
    rows: list[list[object]] = []
    for each in controls.controls:
        name, *cells, words = controls.cells(each)
        rows.append([text(name), *cells, bar(abs(each.mean) / top if each.effects else 0.0), words])
    *head, last = controls.head
    facts = [fact for fact in controls.facts() if fact[0] in ("", "effect")]
    return card(type(controls).__name__, facts, below=table([text(head[0]), *head[1:], text(""), last], rows))


@view(HeadRanking)
def head_ranking_card(ranking: HeadRanking) -> Markup:
    """All heads as a picture, the best in a table."""
    rows = [
        [
            row["layer"],
            row["head"],
            f"{row['pointing']:.1%}",
            bar(row["pointing"]),
            "{:.1%} .. {:.1%}".format(*row["pointing_ci"]),
            f"{row['over_chance']:.2f}",
            interval_words(row["over_chance_ci"], ".2f"),
        ]
        for row in ranking.rows(ranking.order[:HEADS])
    ]
    head = ["layer", "head", "pointing", text("at the object"), "95 % interval", "share over chance", "95 % interval"]
    shown = head_picture(ranking.pointing, ranking.layers, ranking.heads, "at the object")
    return card(type(ranking).__name__, ranking.facts(), shown, below=table(head, rows))


@view(GradientProfile)
def gradient_card(profile: GradientProfile) -> Markup:
    """A row to each layer."""
    rows = [
        [
            layer,
            f"{energy:.4f}",
            f"{norm:.3g}",
            bar(norm / max(profile.norms.max(), 1e-30)),
            f"{together:+.2f}",
            f"layer {profile.layers[cosines.argmin()]}: {cosines.min():+.2f}",
        ]
        for layer, energy, norm, together, cosines in zip(
            profile.layers, profile.energies, profile.norms, profile.together, profile.cosines, strict=True
        )
    ]
    head = ["layer", "energy", "|gradient|", text("of the largest"), "cosine with all", "least cosine"]
    return card(type(profile).__name__, profile.facts(), below=table(head, rows))


@view(Attribution)
def attribution_card(found: Attribution) -> Markup:
    """What speaks for the answer and what against it, on one scale."""
    top = max(float(np.abs(found.grid).max()), 1e-30)
    pictures = [
        map_picture(np.clip(sign * found.grid, 0, None), found.layout, found.image, top=top, caption=caption)
        for sign, caption in ((1, "speaks for it"), (-1, "speaks against it"))
    ]
    return card(f"{type(found).__name__} of {found.target}", found.facts()[1:], *pictures)


@view(Curves)
def curves_card(curves: Curves) -> Markup:
    """The areas in words."""
    return card(f"Insertion and deletion, {curves.target}", curves.facts()[1:])


@view(Sinks)
def sinks_card(sinks: Sinks) -> Markup:
    """The sinks on the image, a row to each."""
    shown = map_picture(
        sinks.grid,
        sinks.layout,
        sinks.image,
        boxes=sinks.layout.boxes[list(sinks.tokens)],
        caption="least attention over all questions, sinks outlined",
    )
    rows = [[token, *(f"{value:.1f}" for value in sinks.excess[:, token]), ""] for token in sinks.tokens]
    listed = table(["token", *(repr(question) for question in sinks.questions), ""], rows) if rows else None
    return card(type(sinks).__name__, sinks.facts(), shown, below=listed)


@view(Agreement)
def agreement_card(found: Agreement) -> Markup:
    """The attribution and the best map, the areas by layer, a row to each of the best maps."""
    layout, image, best = found.attribution.layout, found.attribution.image, found.best
    shown = [
        _positive(layout, image, found.attribution.values.numpy(), "attribution"),
        _positive(layout, image, best.values, best.name),
    ]
    largest = max(found.attribution_curves.area, best.curves.area, 1e-30)
    own = [text("the attribution itself"), "", *_measured(found.attribution_curves, largest)]
    rows = [[text(each.name), f"{each.correlation:.2f}", *_measured(each.curves, largest)] for each in found.maps[:MAPS]]
    head = [text("map"), "rank correlation", "insertion", "deletion", "sd above random", "area between", ""]
    below = _by_layer(found, largest) + table(head, [own, *rows])
    return card(type(found).__name__, found.facts(), *shown, below=below)


def _by_layer(found: Agreement, largest: float) -> Markup:
    """The areas of single layers' maps, a row to each layer and a column to each context token; empty without any."""
    areas = {(each.layers, each.queries): each.curves.area for each in found.maps if len(each.layers) == 1}
    if not areas:
        return Markup()
    queries = list(dict.fromkeys(choice for _, choice in areas))
    rows: list[list[object]] = []
    for layer in sorted({layer for layer, _ in areas}):
        each = [areas.get((layer, choice)) for choice in queries]
        cells = [("-", "") if area is None else (f"{area:.2f}", bar(area / largest)) for area in each]
        rows.append([text(f"layer {layer[0]}"), *chain.from_iterable(cells), ""])
    head = [text("area between"), *chain.from_iterable((queries_name(choice), "") for choice in queries), ""]
    return table(head, rows)


def _measured(found: Curves, largest: float) -> list[str]:
    shown = [found.insertion_auc, found.deletion_auc, found.z, found.area]
    return [*(f"{value:.2f}" for value in shown), bar(found.area / largest)]


def _positive(layout: VisualTokenLayout, image: Image.Image | None, values: np.ndarray, caption: str) -> Markup:
    """A map on its image; what is below 0 is clear."""
    return map_picture(np.clip(layout.raster(values), 0, None), layout, image, caption=caption)


@view(Frontier)
def frontier_card(found: Frontier) -> Markup:
    """What each way comes to for the same damage, the most first."""
    best = {name: each for name, each in found.effect_at().items() if each is not None}
    most = max([each[1] for each in best.values()], default=0.0)
    rows: list[list[object]] = []
    for name in found.effect_at():
        low, mean, high = best.get(name, (0.0, 0.0, 0.0))
        words = (
            [f"{mean:+.2f}", interval_text(found.examples, (low, high), "+.2f")] if name in best else ["-", "more damage"]
        )
        rows.append([text(name), *words, bar(max(mean, 0.0) / max(most, 1e-30))])
    listed = table([text("way"), f"effect at {BOUND:g} nats a token", "95 % interval", ""], rows)
    return card(type(found).__name__, found.facts(), below=listed)


@view(Sweep)
def sweep_card(sweep: Sweep) -> Markup:
    """The decisive figure's heat maps, a row to each of the best choices."""
    names = [name for name in FIGURES if np.isfinite(sweep.figure(name)).any()]
    best = sweep.rows(sweep.decisive)[:CHOICES]
    rows = [[text(str(row["choice"])), *(f"{row[name]:.3f}" for name in names), ""] for row in best]
    listed = table([text("best choices"), *names, ""], rows)
    return card(type(sweep).__name__, sweep.facts(), *sweep_pictures(sweep, sweep.decisive), below=listed)


def sweep_pictures(sweep: Sweep, name: str, framed: Choice | None = None) -> list[Markup]:
    """A small heat map of a figure to each context token: first layer down, last across; a choice may be framed."""
    if framed is not None:
        kind_of(framed, Choice, "What is framed must be a Choice", DataError)
    contexts = list(dict.fromkeys(choice.queries for choice in sweep.choices))
    grids = [sweep.grid(name, context) for context in contexts]
    known = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    shown = []
    for context, grid in zip(contexts, grids, strict=True):
        frames = []
        if framed is not None and framed.queries == context:
            first, end = framed.layers
            frames = [Box(end - 1, first, end, first + 1)]
        heat = (grid - low) / max(high - low, 1e-30)
        caption = f"{name}, {queries_name(context)}: {low:.3f} to {high:.3f}; first layer (down) x last layer"
        shown.append(grid_picture(heat, caption, top=1.0, regions=frames))
    return shown


def head_picture(values: np.ndarray, layers: Sequence[int], heads: Sequence[int], what: str) -> Markup:
    """A picture of (layer, head) fractions: layers from the top, heads from the left."""
    across = f"{layers_text(layers)} down, heads {number_ranges(heads)} across"
    return grid_picture(values, f"{across}: 0 to {values.max():.1%} {what}")
