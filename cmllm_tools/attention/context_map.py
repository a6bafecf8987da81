"""Context-token maps: attention reduced to one weight per visual token, by a choice of queries, layers and heads."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from ..errors import CaptureError
from ..layout.visual_tokens import VisualTokenLayout
from ..models.prompt import Queries
from ..models.undisturbed import unaffected
from ..shown import Fact, Shown
from ..strict import kind_of, whole_numbers
from .capture import Attention
from .context_token import Rows, left_out, mean_maps
from .heads import Heads, pairs_within


@dataclass(frozen=True, eq=False, repr=False)
class ContextMap(Shown):
    """How much the context token attends to each visual token (ControlMLLM, section 3.2).

    Args:
        values: (visual token,) mean attention weight; it carries the attention's gradient.
        layout: where each visual token looks.
        words: the query tokens it is the mean of.
        image: what the visual tokens look at, for showing the map on it.

    Examples:
        >>> cmap
        ContextMap(64 visual tokens on 8 x 8, mean over 'describe the object .', 75.6% of it on the image,
        highest at x 120..144 y 168..192)
        >>> cmap.values.shape  # (visual token,)
        torch.Size([64])
    """

    values: torch.Tensor
    layout: VisualTokenLayout = field(repr=False)
    words: tuple[str, ...]
    image: Image.Image | None = field(default=None, repr=False)

    def facts(self) -> list[Fact]:
        rows, columns = self.layout.grid
        peak = int(self.values.argmax())
        x0, y0, x1, y1 = self.layout.boxes[peak]
        return [
            ("", f"{len(self.layout)} visual tokens on {rows} x {columns}"),
            ("mean over", repr(" ".join(self.words))),
            ("", f"{self.values.sum().item():.1%} of it on the image"),
            ("highest at", f"x {x0:.0f}..{x1:.0f} y {y0:.0f}..{y1:.0f}"),
        ]

    @property
    def grid(self) -> np.ndarray:
        """The map as (rows, columns), detached and on the CPU; see `VisualTokenLayout.raster`."""
        return self.layout.raster(self.values.detach().float().cpu().numpy())


@unaffected(gradient=True)
def context_map(
    attention: Attention,
    queries: Queries | None = None,
    *,
    layers: Iterable[int] | None = None,
    heads: Heads | None = None,
    without: Iterable[int] = (),
) -> ContextMap:
    """Average captured attention over queries, layers and heads.

    Args:
        attention: from `capture_attention`.
        queries: which of the captured queries, in the words of `Prompt.positions`; all when None.
        layers: which of the captured layers; all when None.
        heads: which of the captured heads: numbers, or (layer, head) pairs, of which those in `layers` count; when None,
            the pairs it was captured with, or all.
        without: numbers of visual tokens to leave out: they weigh 0 in the map, and in the sum that an energy divides by.
            See `analysis.sinks`.

    Raises:
        CaptureError: for queries, layers or heads that were not captured, or visual tokens that do not exist.
        PromptError: for queries that are not in the prompt.

    Examples:
        >>> cmap = cm.context_map(attention, layers=[2, 3])
        >>> f"{cmap.values.sum().item():.2f}"  # of the attention is on the image
        '0.72'
    """
    kind_of(attention, Attention, "A map is made of what capture_attention gives", CaptureError)
    attention, prompt = attention.on_image(), attention.prompt
    values = layer_maps(attention, queries, layers, heads, without).mean(0)
    words = prompt.words(attention.queries if queries is None else prompt.positions(queries))
    return ContextMap(values, prompt.layout, words, prompt.image)


def layer_maps(
    attention: Attention,
    queries: Queries | None = None,
    layers: Iterable[int] | None = None,
    heads: Heads | None = None,
    without: Iterable[int] = (),
) -> torch.Tensor:
    """Each layer's part in the context-token map: (layer, visual token), of which the map is the mean.

    Mean over queries and heads; where (layer, head) pairs are chosen, a layer with more of them has the larger part.

    Args and errors are those of `context_map`.
    """
    chosen = (
        attention.layers
        if layers is None
        else tuple(dict.fromkeys(whole_numbers(layers, "the layers", error=CaptureError)))
    )
    pairs, numbers = pairs_within(attention.pairs if heads is None else heads, None if layers is None else chosen)
    if pairs is not None:
        chosen, numbers = tuple(sorted({layer for layer, _ in pairs})), [head for _, head in pairs]
    positions = attention.queries if queries is None else attention.prompt.positions(queries)
    heads = attention.heads if numbers is None else tuple(dict.fromkeys(numbers))
    rows = Rows(positions, chosen, heads, pairs)
    weights = rows.weights(attention.layers, attention.heads, attention.queries)
    without = whole_numbers(without, "the visual tokens to leave out", error=CaptureError)
    maps = left_out(mean_maps(attention.values, weights.to(attention.values.device)), without)
    index = [attention.layers.index(layer) for layer in chosen]
    return maps if index == list(range(len(maps))) else maps[index]
