"""Which layers' attention agrees with what the answer depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr

from ...attention.capture import Attention, capture_attention
from ...attention.context_map import layer_maps
from ...errors import PromptError, SettingsError
from ...models.mllm import Mllm, require
from ...models.prompt import Prompt, Queries, queries_name
from ...shown import Fact, Shown
from ...strict import kind_of, several
from .attribute import Attribution, AttributionMethod, attribute
from .faithfulness import Curves, Values, as_map, check_curves, curves, random_curves
from .token_mask import BaselineStates, PresenceScore


def rank_correlations(attention: Attention, values: Values) -> np.ndarray:
    """Rank correlation (Spearman) of each layer's and head's attention with a map: (layer, head), -1..1.

    Args:
        attention: from `capture_attention`; averaged over its queries.
        values: (visual token,), an attribution for example.

    Raises:
        SettingsError: for values of another shape, or not finite.

    Examples:
        >>> found = cm.analysis.attribute(mllm, prompt, method="input_x_gradient", progress=False)
        >>> cm.analysis.rank_correlations(attention, found).shape
        (6, 6)
    """
    kind_of(attention, Attention, "Correlations are of what capture_attention gives", SettingsError)
    maps = attention.on_image().values.detach().float().mean(2).cpu().numpy()
    wanted = as_map(values, maps.shape[-1]).numpy()
    return np.array([[spearmanr(head, wanted).statistic for head in layer] for layer in maps])


@dataclass(frozen=True, eq=False)
class MeasuredMap:
    """One map, held against what the answer depends on.

    Args:
        name: of the map: its layers and context token, or the user's.
        values: (visual token,) the map.
        correlation: rank correlation (Spearman) with the attribution, -1..1.
        curves: insertion and deletion in the map's order.
        layers: the layers whose attention it is the mean of; none for a map of the user's.
        queries: the context token's choice, as `Prompt.positions` takes it; None for a map of the user's.
    """

    name: str
    values: np.ndarray
    correlation: float
    curves: Curves
    layers: tuple[int, ...] = ()
    queries: Queries | None = None

    def __repr__(self) -> str:
        return (
            f"MeasuredMap({self.name}: rank correlation {self.correlation:.2f}, area {self.curves.area:.2f}, "
            f"{self.curves.z:.1f} sd above random orders)"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(Shown):
    """Maps of one prompt, the most faithful first.

    Args:
        maps: ordered by the area between their insertion and deletion curves, largest first.
        attribution: what they were correlated with.
        attribution_curves: insertion and deletion in the attribution's own order.
        complete: False when an interrupt left maps out.

    Examples:
        >>> found = cm.analysis.agreement(
        ...     mllm, prompt, queries=["last"], method="input_x_gradient", points=2, orders=2, progress=False
        ... )
        >>> len(found.maps)  # of each layer, and of all together
        7
    """

    maps: tuple[MeasuredMap, ...]
    attribution: Attribution
    attribution_curves: Curves
    complete: bool

    @property
    def best(self) -> MeasuredMap:
        """The map with the largest area between its curves."""
        return self.maps[0]

    def facts(self) -> list[Fact]:
        above = sum(each.curves.percentile == 1 for each in self.maps)
        return [
            ("", f"{len(self.maps)} maps{'' if self.complete else ' (interrupted)'} for {self.attribution.target}"),
            ("best", self.best.name),
            ("", f"area {self.best.curves.area:.2f}, the attribution's own {self.attribution_curves.area:.2f}"),
            ("", f"{above} of {len(self.maps)} above every random order"),
        ]


def agreement(
    mllm: Mllm,
    prompt: Prompt,
    answer: str | None = None,
    *,
    queries: Sequence[Queries] = ("text", "last"),
    also: Mapping[str, Values] | None = None,
    method: AttributionMethod = "integrated_gradients",
    against: str | None = None,
    baseline: BaselineStates = "mean",
    points: int = 16,
    orders: int = 20,
    batch: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Agreement:
    """Find out which layers' attention agrees with what the answer depends on, for one prompt.

    For each layer, all layers together, and each choice of the context token: the rank correlation of the attention map
    with an attribution, and insertion and deletion of visual tokens in the map's order, against random orders. The second
    is the direct test, as it runs the model; the first says whether the map is like the attribution.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: the answer that attention is to agree with; the model's own when None.
        queries: choices of the context token; see `Prompt.positions`.
        also: further maps by name: rollout, relevancy, a region's weights.
        method: of `attribute`.
        against, baseline, batch: see `PresenceScore`.
        points: points of the curves after 0.
        orders: random orders to compare with, 2 or more.
        seed: of random orders and samples.
        progress: show a progress bar.

    Returns:
        The maps, the most faithful first. An interrupt leaves out those that were not measured by then.

    Raises:
        ImportError: without Captum.
        PromptError: for an empty answer, no queries, or queries that are not in the prompt.
        SettingsError: for a setting out of range, or a map of another shape or not finite.

    Examples:
        >>> found = cm.analysis.agreement(
        ...     mllm, prompt, "blue zero", queries=["last"], method="input_x_gradient", points=2, orders=2, progress=False
        ... )
        >>> found.complete
        True
    """
    require(mllm, prompt)
    queries = several(queries, "Queries must be a sequence of choices of the context token", PromptError)
    if not queries:
        raise PromptError("Queries must be a sequence of one or more choices of the context token; got none.")
    if also is not None:
        kind_of(also, dict, "Further maps must be given by name, as {'rollout': map}", SettingsError)
    check_curves(points, orders)
    maps = _attention_maps(mllm, prompt, queries)
    maps += [(name, as_map(values, len(prompt.visual)).numpy(), (), None) for name, values in (also or {}).items()]
    found = attribute(
        mllm,
        prompt,
        answer,
        method,
        against=against,
        baseline=baseline,
        batch=batch,
        seed=seed,
        progress=progress,
    )
    score = PresenceScore(mllm, prompt, found.answer, against=against, baseline=baseline, batch=batch)
    measured: list[MeasuredMap] = []
    with score.progress(2 * (points - 1) * (orders + 1 + len(maps)), "maps", progress):
        randoms = random_curves(score, points, orders, seed)
        own = curves(score, found.values, randoms)
        try:
            for name, values, layers, choice in maps:
                correlation = float(spearmanr(values, found.values.numpy()).statistic)
                drawn = curves(score, torch.from_numpy(values), randoms)
                measured.append(MeasuredMap(name, values, correlation, drawn, layers, choice))
        except KeyboardInterrupt:
            if not measured:
                raise
    ordered = tuple(sorted(measured, key=lambda each: -each.curves.area))
    return Agreement(ordered, found, own, len(measured) == len(maps))


# Name, values (visual token,), layers and context token of a map.
_Map = tuple[str, np.ndarray, tuple[int, ...], Queries | None]


def _attention_maps(mllm: Mllm, prompt: Prompt, queries: Sequence[Queries]) -> list[_Map]:
    """Each layer's map, and the mean over all layers, for each choice of the context token."""
    maps: list[_Map] = []
    # Names that stand for the same tokens are measured once.
    choices = {prompt.positions(choice): choice for choice in reversed(queries)}
    for choice in (tuple(each) if isinstance(each, list) else each for each in choices.values()):
        attention = capture_attention(mllm, prompt, queries=choice)
        each = layer_maps(attention).detach().float().cpu().numpy()
        maps += [
            (f"layer {layer}, {queries_name(choice)}", values, (layer,), choice)
            for layer, values in zip(attention.layers, each, strict=True)
        ]
        if len(each) > 1:
            maps.append((f"all layers, {queries_name(choice)}", each.mean(0), attention.layers, choice))
    return maps
