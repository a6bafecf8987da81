"""The context token: which attention is averaged, as a value that is checked once and weighs every captured row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from ..errors import CaptureError
from ..models.mllm import Mllm
from ..models.prompt import Prompt, Queries, as_queries
from ..notation import number_ranges
from ..strict import shown, whole_numbers
from .heads import Heads, as_heads, pairs_within


@dataclass(frozen=True)
class ContextToken:
    """A choice of query tokens, layers and heads, whose attention is averaged (ControlMLLM, section 3.2).

    Args:
        queries: which text tokens; see `Prompt.positions`.
        layers: layer numbers; all that look at visual states when None. A window is a range.
        heads: head numbers, all when None; or (layer, head) pairs, of which those in `layers` count.
        without: numbers of visual tokens that are left out of the map.

    Raises:
        CaptureError: for what are no numbers.
        PromptError: for what are no query tokens.
    """

    queries: Queries = "text"
    layers: Iterable[int] | None = None
    heads: Heads | None = None
    without: Iterable[int] = ()

    def __post_init__(self) -> None:
        layers = None if self.layers is None else whole_numbers(self.layers, "the layers", error=CaptureError)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "queries", as_queries(self.queries))
        object.__setattr__(self, "heads", as_heads(self.heads))
        without = whole_numbers(self.without, "the visual tokens to leave out", error=CaptureError)
        object.__setattr__(self, "without", without)

    def resolve(self, mllm: Mllm, prompt: Prompt, seeing: bool = True) -> "Rows":
        """The rows of attention that it is the mean of, all of them known to exist.

        Args:
            seeing: whether its query tokens must be able to look at the image.

        Raises:
            CaptureError: for layers or heads out of range, an empty choice, or visual tokens that do not exist.
            PromptError: for queries that are not in the prompt, or stand before the image.
        """
        pairs, numbers = pairs_within(self.heads, self.layers)
        chosen: Iterable[int] = mllm.attention_layers if self.layers is None else self.layers
        if pairs is not None:
            chosen, numbers = {layer for layer, _ in pairs}, [head for _, head in pairs]
        layers = existing(chosen, mllm.attention_layers, "Layers")
        heads = tuple(range(mllm.heads)) if numbers is None else existing(numbers, range(mllm.heads), "Heads")
        without = tuple(self.without)
        keep_weights(without, len(prompt.visual))
        queries = prompt.seeing(self.queries) if seeing else prompt.positions(self.queries)
        return Rows(queries, layers, heads, pairs, without)


@dataclass(frozen=True)
class Rows:
    """Rows of attention that a context token is the mean of.

    Args:
        queries: positions in the prompt.
        layers: numbers, ascending.
        heads: numbers; with pairs, those that some pair has.
        pairs: the (layer, head) pairs, where these were chosen; every head of every layer when None.
        without: numbers of visual tokens that are left out.
    """

    queries: tuple[int, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] | None = None
    without: tuple[int, ...] = ()

    def weights(
        self, layers: Sequence[int], heads: Sequence[int], queries: Sequence[int]
    ) -> Float[torch.Tensor, "layer head query"]:
        """(layer, head, query): how much each captured row counts.

        Of its own layers the mean of `sum over heads and queries of weight x attention` is the map; in a layer with more
        of the pairs, heads count for as much as elsewhere, so that it has the larger part.

        Args:
            layers, heads, queries: what was captured; others than the token's own weigh nothing.

        Raises:
            CaptureError: for rows of the token that were not captured.
        """
        found = torch.zeros(len(layers), len(heads), len(queries), dtype=torch.float32)
        pairs = self.pairs or [(layer, head) for layer in self.layers for head in self.heads]
        at, of = _places(self.layers, layers, "layers"), _places(self.heads, heads, "heads")
        rows = torch.tensor(list(_places(self.queries, queries, "query positions").values()))
        layer = torch.tensor([[at[layer]] for layer, _ in pairs])
        head = torch.tensor([[of[head]] for _, head in pairs])
        found[layer, head, rows] = len(self.layers) / (len(pairs) * len(self.queries))
        return found


def mean_maps(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """A layer's part in a context-token map, (..., visual token); of all layers' parts the map is the mean.

    Args:
        values: (..., head, query, visual token), of a layer; `...` may have the layers.
        weights: (..., head, query); see `Rows.weights`.
    """
    return torch.einsum("...hqv,...hq->...v", values, weights.to(values))


def left_out(maps: torch.Tensor, without: Sequence[int]) -> torch.Tensor:
    """Maps (..., visual token) in which the visual tokens of these numbers weigh 0."""
    return maps * keep_weights(without, maps.shape[-1]).to(maps) if without else maps


def keep_weights(without: Sequence[int], count: int) -> Float[torch.Tensor, " visual"]:
    """(visual token,): 1 for each of `count`, but 0 for those to leave out.

    Raises:
        CaptureError: for numbers of visual tokens that do not exist, or of all of them.
    """
    if not set(without) < set(range(count)):
        raise CaptureError(
            f"Visual tokens to leave out must be numbers in 0..{count - 1}, and not all of them; "
            f"got {shown(list(without))}."
        )
    weights = torch.ones(count, dtype=torch.float32)
    weights[list(without)] = 0
    return weights


def existing(numbers: Iterable[int], known: Sequence[int], what: str) -> tuple[int, ...]:
    """The numbers, ascending, each once.

    Raises:
        CaptureError: for none, or one that is not known.
    """
    chosen = tuple(dict.fromkeys(whole_numbers(numbers, f"the {what.lower()}", error=CaptureError)))
    if not chosen or not set(chosen) <= set(known):
        raise CaptureError(f"{what} must be at least one number in {number_ranges(known)}; got {shown(list(chosen))}.")
    return tuple(sorted(chosen))


def _places(wanted: Sequence[int], captured: Sequence[int], what: str) -> dict[int, int]:
    """Where each number is among those captured."""
    missing = [number for number in wanted if number not in captured]
    if missing or not wanted:
        raise CaptureError(
            f"The map's {what} must be among those captured, {shown(list(captured))}; got {shown(list(wanted))}. "
            f"Capture attention with these {what} first."
        )
    return {number: captured.index(number) for number in wanted}
