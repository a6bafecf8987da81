"""Context-token maps: attention reduced to one weight per visual token, by a choice of queries, layers and heads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from .attention import Attention
from .display import Fact, card, one_line, picture
from .errors import CaptureError
from .heads import Heads, pairs_within
from .layout import VisualTokenLayout
from .models.prompt import Queries
from .strict import kind_of, shown, whole_numbers


@dataclass(frozen=True, eq=False)
class ContextMap:
    """How much the context token attends to each visual token (ControlMLLM, section 3.2).

    Args:
        values: (visual token,) mean attention weight; it carries the attention's gradient.
        layout: where each visual token looks.
        words: the query tokens it is the mean of.
        image: what the visual tokens look at, for showing the map on it.
    """

    values: torch.Tensor
    layout: VisualTokenLayout = field(repr=False)
    words: tuple[str, ...]
    image: Image.Image | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return one_line("ContextMap", self._facts())

    def _repr_html_(self) -> str:
        heat = self.grid / max(self.grid.max(), 1e-30)
        return card(
            "ContextMap",
            self._facts(),
            picture(self.layout.image_size, self.image, cells=self.layout.cells, heat=heat),
        )

    def _facts(self) -> list[Fact]:
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


def context_map(
    attention: Attention,
    queries: Queries | None = None,
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
    """
    kind_of(attention, Attention, "A map is made of what capture_attention gives", CaptureError)
    prompt = attention.prompt
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
    layers = None if layers is None else list(dict.fromkeys(whole_numbers(layers, "the layers", error=CaptureError)))
    pairs, numbers = pairs_within(attention.pairs if heads is None else heads, layers)
    if pairs is not None:
        layers = sorted({layer for layer, _ in pairs})
    positions = None if queries is None else attention.prompt.positions(queries)
    values = attention.values
    for axis, (wanted, captured, what) in enumerate(
        (
            (layers, attention.layers, "layers"),
            (numbers, attention.heads, "heads"),
            (positions, attention.queries, "query positions"),
        )
    ):
        if wanted is not None:
            index = _index(wanted, captured, what)
            if index != list(range(len(captured))):
                values = values.index_select(axis, torch.tensor(index, device=values.device))
    maps = values.mean(2)
    if pairs is None:
        maps = maps.mean(1)
    else:
        counted = maps.new_zeros(maps.shape[:2])
        named = _index([head for _, head in pairs], attention.heads, "heads")
        counted[_index([layer for layer, _ in pairs], layers or (), "layers"), named] = len(maps) / len(pairs)
        maps = (counted[..., None] * maps).sum(1)
    without = whole_numbers(without, "the visual tokens to leave out", error=CaptureError)
    return maps * kept(without, maps) if without else maps


def kept(without: Sequence[int], maps: torch.Tensor) -> torch.Tensor:
    """(visual token,): 1 for each, but 0 for those to leave out of maps (..., visual token).

    Raises:
        CaptureError: for numbers of visual tokens that do not exist, or of all of them.
    """
    count = maps.shape[-1]
    if not set(without) < set(range(count)):
        raise CaptureError(
            f"Visual tokens to leave out must be numbers in 0..{count - 1}, and not all of them; "
            f"got {shown(list(without))}."
        )
    weights = maps.new_ones(count)
    weights[list(without)] = 0
    return weights


def _index(wanted: Sequence[int], captured: Sequence[int], what: str) -> list[int]:
    missing = [number for number in wanted if number not in captured]
    if missing or not wanted:
        raise CaptureError(
            f"The map's {what} must be among those captured, {shown(list(captured))}; got {shown(list(wanted))}. "
            f"Capture attention with these {what} first."
        )
    return [captured.index(number) for number in wanted]
