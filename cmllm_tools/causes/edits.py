"""What is done to attention: knocked out, or what heads draw put at a value, copy by copy; and what they draw, kept."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from ..attention.context_token import existing
from ..attention.edits import RowPlaces, additive_mask
from ..attention.observe import AttentionCall, Observer, observed
from ..attention.rows import check_mask
from ..errors import CaptureError
from ..models.interventions import Intervention
from ..models.latent import as_numbers
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..strict import flag, several, shown, whole_numbers
from .tokens import Places

# (layer, head) pairs, or every head of a layer where the head is None.
Where = tuple[tuple[int, int | None], ...]


class Edit(Observer):
    """What edits share: which copies' heads are edited in a layer, and which rows.

    Args:
        cells: for each copy of the prompt, the layers and heads that are edited.
        rows: the tokens whose attention is edited.
        mllm, prompt: what is replayed, an answer's tokens included.
    """

    def __init__(self, cells: Sequence[Where], rows: Places, mllm: Mllm, prompt: Prompt):
        self.cells, self.rows = cells, rows
        self.layers = {layer for cell in cells for layer, _ in cell}
        self._length = len(prompt.tokens) - prompt.answered
        within = not mllm.family.beside
        # Learned queries are all there at once, and have no cache.
        self._stands = None if prompt.learned else RowPlaces(len(prompt.tokens), within)

    def opened(self, mllm: Mllm) -> AbstractContextManager[None]:
        """While open, the layers are edited."""
        modules = {module: layer for module, layer in mllm.attention_modules.items() if layer in self.layers}
        return observed(mllm, self, modules)

    def chosen(self, call: AttentionCall) -> torch.Tensor:
        """(prompt, head, or 1 for all): whether it is edited; beams and returned sequences are rows of a copy."""
        found = torch.zeros(len(self.cells), call.heads, dtype=torch.bool)
        for copy, cell in enumerate(self.cells):
            heads = [head for layer, head in cell if layer == call.layer]
            found[copy, slice(None) if None in heads else [head for head in heads if head is not None]] = True
        if bool((found == found[:, :1]).all()):
            # One mask for all heads, as one for each is many times as large.
            found = found[:, :1]
        return found.repeat_interleave(call.query.shape[0] // len(self.cells), 0).to(call.query.device)

    def places(self, call: AttentionCall) -> tuple[torch.Tensor, int]:
        """(token,): whether each of the call's rows is edited; how many of the oldest keys a cache has dropped."""
        first, dropped = (0, 0) if self._stands is None else self._stands.of(call)
        count = call.query.shape[2]
        edited = set(self.rows.upto(max(first + count, self._length), self._length))
        return torch.tensor([first + at in edited for at in range(count)], device=call.query.device), dropped


class KnockOut(Edit):
    """Hides keys from the edited rows before the softmax; a row that is left with nothing to see gives zeros.

    Attributes:
        met: whether any key was hidden that could be seen before.
    """

    def __init__(self, cells: Sequence[Where], rows: Places, keys: Sequence[int], mllm: Mllm, prompt: Prompt):
        super().__init__(cells, rows, mllm, prompt)
        self._keys, self.met, self._blind = torch.tensor(list(keys), dtype=torch.long), False, torch.zeros(())

    def before(self, call: AttentionCall) -> AttentionCall:
        check_mask(call.module, call.mask, call.options)
        mask = additive_mask(call)
        # Numbers about the least that there is are what masks hide keys with.
        hidden = mask <= torch.finfo(mask.dtype).min / 2
        rows, dropped = self.places(call)
        keys = self._keys.to(mask.device) - dropped
        columns = torch.zeros(mask.shape[-1], dtype=torch.bool, device=mask.device)
        columns[keys[(keys >= 0) & (keys < len(columns))]] = True
        cut = self.chosen(call)[..., None, None] & rows[:, None] & columns
        self.met = self.met or bool((cut & ~hidden).any())
        self._blind = (cut | hidden).all(-1) & cut.any(-1)
        return replace(call, mask=mask.masked_fill(cut | self._blind[..., None], float("-inf")))

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        blind, self._blind = self._blind, torch.zeros(())
        return output.masked_fill(blind.transpose(1, 2)[..., None], 0)


class PutIn(Edit):
    """Puts values in the place of what heads draw at the edited rows.

    Args:
        values: of each layer, (head, width).
    """

    def __init__(
        self, cells: Sequence[Where], rows: Places, values: Mapping[int, torch.Tensor], mllm: Mllm, prompt: Prompt
    ):
        super().__init__(cells, rows, mllm, prompt)
        self._values = values

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        values = self._values[call.layer]
        if values.shape[1] not in (1, output.shape[-1]):
            raise CaptureError(
                f"Heads are put at one value each, or at values as wide as what they draw, {output.shape[-1]} in layer "
                f"{call.layer}; got {values.shape[1]}. Take them from this model."
            )
        rows, _ = self.places(call)
        chosen = self.chosen(call)[:, None, :, None] & rows[:, None, None]
        return torch.where(chosen, values.to(output), output)


class HeadOutputs(Observer):
    """Keeps what heads draw in a run of one prompt.

    Args:
        taken: what is kept of (token, head, width).

    Attributes:
        found: what was kept, by the layer's number.
    """

    def __init__(self, taken: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.clone):
        self._taken = taken
        self.found: dict[int, torch.Tensor] = {}

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        self.found[call.layer] = self._taken(output[0].detach())
        return output


@dataclass(frozen=True, eq=False)
class AttentionCut(Intervention):
    """Attention that is forbidden: from some tokens to some others, in some layers and heads; see `knockout`.

    Args:
        queries: positions in the prompt of the tokens that may not look.
        keys: positions, among the keys, of those that they may not look at.
        onwards: whether the answer's tokens may not either.
        layers: numbers of the layers; () for all that look at visual states.
        heads: head numbers, all when None.
        contrast: how the answer is decoded against the one without; None decodes plainly.

    Raises:
        CaptureError: for what are no positions, layers or heads.

    Examples:
        >>> cut = cm.causes.AttentionCut(prompt.text_span, prompt.visual, layers=(0, 1))
        >>> cm.capture_attention(mllm, prompt, layers=[1], latent=cut).values.sum().item()
        0.0
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    onwards: bool = True
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("queries", "keys", "layers"):
            object.__setattr__(self, name, whole_numbers(getattr(self, name), f"the {name}", 0, error=CaptureError))
        object.__setattr__(self, "onwards", flag(self.onwards, "onwards", CaptureError))
        if self.heads is not None:
            object.__setattr__(self, "heads", whole_numbers(self.heads, "the heads", 0, error=CaptureError))

    def opened(self, mllm: Mllm, prompt: Prompt, copies: int = 1) -> AbstractContextManager[None]:
        check_positions(mllm, prompt, self.queries, self.keys)
        where = where_of(mllm, self.layers or None, self.heads)
        rows = Places(self.queries, self.onwards)
        return KnockOut([where, *[()] * (copies - 1)], rows, self.keys, mllm, prompt).opened(mllm)


@dataclass(frozen=True, eq=False)
class HeadsPut(Intervention):
    """Heads whose output is put at a value, at some tokens; see `ablate`.

    Args:
        values: (pair, width), what each of the heads gives in place of what it draws, before the layer mixes its heads.
        pairs: (layer, head) pairs.
        queries: positions in the prompt of the tokens where it does.
        onwards: whether it does at the answer's tokens too.
        contrast: how the answer is decoded against the one without; None decodes plainly.

    Raises:
        CaptureError: for what are no pairs, or another number of values.

    Examples:
        >>> cm.causes.ablate(mllm, prompt, [(2, 3)], how="mean", answer="red cross").intervention.pairs
        ((2, 3),)
    """

    values: torch.Tensor = field(repr=False)
    pairs: tuple[tuple[int, int], ...]
    queries: tuple[int, ...]
    onwards: bool = True

    by_token: ClassVar[tuple[str, int] | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        values = as_numbers(self.values)
        several_pairs = several(self.pairs, "Heads are put by (layer, head) pairs, as [(2, 3)]", CaptureError)
        pairs = tuple(whole_numbers(pair, "a (layer, head) pair", 0, error=CaptureError) for pair in several_pairs)
        if values.dim() != 2 or len(values) != len(pairs) or not pairs or any(len(pair) != 2 for pair in pairs):
            raise CaptureError(
                "Heads are put at values (pair, width), a row for each (layer, head) pair; got shape "
                f"{tuple(values.shape)} for {shown(self.pairs)}."
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "pairs", pairs)
        object.__setattr__(self, "queries", whole_numbers(self.queries, "the queries", 0, error=CaptureError))
        object.__setattr__(self, "onwards", flag(self.onwards, "onwards", CaptureError))

    def opened(self, mllm: Mllm, prompt: Prompt, copies: int = 1) -> AbstractContextManager[None]:
        check_positions(mllm, prompt, self.queries, ())
        existing([layer for layer, _ in self.pairs], mllm.attention_layers, "Layers")
        existing([head for _, head in self.pairs], range(mllm.heads), "Heads")
        values: dict[int, torch.Tensor] = {}
        for (layer, head), value in zip(self.pairs, self.values, strict=True):
            values.setdefault(layer, self.values.new_zeros(mllm.heads, self.values.shape[1]))[head] = value
        cells = [self.pairs, *[()] * (copies - 1)]
        return PutIn(cells, Places(self.queries, self.onwards), values, mllm, prompt).opened(mllm)


def where_of(mllm: Mllm, layers: Iterable[int] | None, heads: Iterable[int] | None) -> Where:
    """Layers, all when None, with some heads each, or all.

    Raises:
        CaptureError: for layers or heads that do not exist.
    """
    numbers = mllm.attention_layers if layers is None else existing(layers, mllm.attention_layers, "Layers")
    chosen: Sequence[int | None] = (None,) if heads is None else existing(heads, range(mllm.heads), "Heads")
    return tuple((layer, head) for layer in numbers for head in chosen)


def check_positions(mllm: Mllm, prompt: Prompt, queries: Sequence[int], keys: Sequence[int]) -> None:
    """Refuse positions that a prompt does not have: they are of another one.

    Raises:
        CaptureError: naming the bounds.
    """
    rows = prompt.learned or len(prompt.tokens)
    columns = max(prompt.visual) + 1 if mllm.family.beside else rows
    for what, numbers, count in (("Queries", queries, rows), ("Keys", keys, columns)):
        if any(number >= count for number in numbers):
            raise CaptureError(
                f"{what} must be positions in 0..{count - 1}; got {shown(list(numbers))}. They belong to one prompt: make "
                "the intervention again for another image or question."
            )
