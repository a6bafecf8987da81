"""Attention editing: what the text looks at is moved by a bias on the logits, inside the attention function."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from ..errors import CaptureError
from ..models.interrupts import restoring
from ..models.interventions import Intervention
from ..models.latent import as_numbers
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..strict import shown, whole_numbers
from .context_token import ContextToken
from .edits import RowPlaces, additive_mask
from .heads import Heads, as_heads
from .observe import AttentionCall, Observer, observed
from .rows import check_mask


@dataclass(frozen=True, eq=False)
class AttentionBias(Intervention):
    """A number added to the attention logits of the visual tokens, before the softmax.

    Every token after the image looks so, those of the answer too; the image's own tokens, and those before it, look as
    ever. A bias of ln(k) on some tokens makes their weights k times what they were, before all are divided by their sum.

    Args:
        bias: (visual token,); or (moment, visual token), to be another one while the answer goes on.
        layers: numbers of the layers; () for all that look at visual states.
        heads: head numbers, all when None; or (layer, head) pairs, of which those in `layers` count.
        since: of several moments, the number of the answer's token (the first is 0) that each begins with; the first of
            them is there from the beginning.
        contrast: how the answer is decoded against the one without; None decodes plainly.

    Raises:
        CaptureError: for a bias that is no numbers, layers or heads that are none, or other moments than biases.

    Examples:
        >>> import math, torch
        >>> inside = torch.from_numpy(prompt.layout.inside(box))
        >>> print(mllm.generate(prompt, cm.AttentionBias(math.log(20) * inside)))
        red cross at the right
    """

    by_token: ClassVar[tuple[str, int] | None] = ("bias", -1)

    bias: torch.Tensor = field(repr=False)
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] | tuple[tuple[int, int], ...] | None = None
    since: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        bias = as_numbers(self.bias)
        if bias.dim() not in (1, 2) or not bool(torch.isfinite(bias).all()):
            raise CaptureError(f"A bias must be one finite number for each visual token; got {shown(self.bias)}.")
        since = whole_numbers(self.since, "the moments", 0, error=CaptureError)
        moments = len(bias) if bias.dim() == 2 else 1
        if len(since) != moments or since[:1] != (0,) or list(since) != sorted(set(since)):
            raise CaptureError(f"A bias of {moments} moments needs as many rising token numbers from 0 on; got {since}.")
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "since", since)
        object.__setattr__(self, "layers", whole_numbers(self.layers, "the layers", error=CaptureError))
        object.__setattr__(self, "heads", as_heads(self.heads))

    def during(self, first: int, last: int | None) -> "AttentionBias":
        end = float("inf") if last is None else last
        since = sorted({0, first, *(at for at in self.since if first < at < end), *([] if last is None else [last])})
        own = self.bias.reshape(len(self.since), -1)
        moments = [own[bisect_right(self.since, at) - 1] if first <= at < end else torch.zeros_like(own[0]) for at in since]
        return replace(self, bias=torch.stack(moments), since=tuple(since))

    def opened(self, mllm: Mllm, prompt: Prompt, copies: int = 1) -> AbstractContextManager[None]:
        bias = self.bias.reshape(len(self.since), -1)
        biases = torch.stack([bias, *[torch.zeros_like(bias)] * (copies - 1)])
        return biased(mllm, prompt, biases, (self.layers, self.heads), self.since)


def biased(
    mllm: Mllm,
    prompt: Prompt,
    biases: torch.Tensor,
    where: tuple[tuple[int, ...], Heads | None],
    since: tuple[int, ...] = (0,),
    everywhere: bool = False,
) -> AbstractContextManager[None]:
    """While open, attention to the visual tokens has a bias, one for each copy of the prompt in a batch.

    Args:
        biases: (copy, moment, visual token).
        where: layers, () for all, and heads.
        since: see `AttentionBias`.
        everywhere: whether the image's own tokens look so too.

    Raises:
        CaptureError: for another number of visual tokens, layers or heads that do not exist, or moments where the visual
            tokens are no part of the text's sequence.
    """
    if biases.shape[-1] != len(prompt.visual):
        raise CaptureError(
            f"A bias must be one finite number for each of the prompt's {len(prompt.visual)} visual tokens; got "
            f"{biases.shape[-1]}. It belongs to one prompt: make it again for another image or model."
        )
    within = not mllm.family.beside
    if len(since) > 1 and not within:
        raise CaptureError(
            f"A bias can change while the answer goes on where visual tokens are part of the text's sequence; in "
            f"{mllm.family.name} they are not. Give one bias."
        )
    # Whatever does not exist is refused, and not left out.
    layers, heads = where
    rows = ContextToken(layers=layers or None, heads=heads).resolve(mllm, prompt)
    pairs = rows.pairs or [(layer, head) for layer in rows.layers for head in rows.heads]
    chosen = {layer: [head for at, head in pairs if at == layer] for layer in rows.layers}
    first = (0 if everywhere else prompt.image_end) if within else None
    # The token that is said after the prompt's last one is the answer's first.
    begins = torch.tensor(since) + len(prompt.tokens) - prompt.answered - 1
    return _biased(mllm, _Biasing(biases, begins, chosen, prompt.visual, first, len(prompt.tokens)))


@restoring
def _biased(mllm: Mllm, observer: "_Biasing") -> Iterator[None]:
    modules = {module: layer for module, layer in mllm.attention_modules.items() if layer in observer.heads}
    with observed(mllm, observer, modules):
        yield


class _Biasing(Observer):
    """Adds the bias to the mask that a layer's kernel is given."""

    def __init__(
        self,
        biases: torch.Tensor,
        begins: torch.Tensor,
        heads: dict[int, list[int]],
        columns: Sequence[int],
        first: int | None,
        length: int,
    ):
        self.biases, self.begins, self.heads, self.columns = biases, begins, heads, torch.tensor(list(columns))
        # Position of the first token that looks otherwise; None for all, which look at states beside their own sequence.
        self.first = first
        self._places = RowPlaces(length)

    def before(self, call: AttentionCall) -> AttentionCall:
        check_mask(call.module, call.mask, call.options)
        device, dtype = call.query.device, call.query.dtype
        mask = additive_mask(call)
        position, dropped = (None, 0) if self.first is None else self._places.of(call)
        columns = self.columns.to(device) - dropped
        held = (columns >= 0) & (columns < mask.shape[-1])
        added = torch.zeros(*self.biases.shape[:2], mask.shape[-1], device=device, dtype=dtype)
        added[..., columns[held]] = self.biases.to(device, dtype)[..., held]
        if position is None:
            changed = added[:, :1]
        else:
            at = position + torch.arange(call.query.shape[2])
            moments = (torch.searchsorted(self.begins, at, right=True) - 1).clamp_min(0)
            looking = (at >= (self.first or 0)).to(device, dtype)
            changed = added[:, moments.to(device)] * looking[:, None]
        # Beams and returned sequences are rows of a copy.
        changed = changed.repeat_interleave(call.query.shape[0] // len(self.biases), 0)[:, None]
        if len(self.heads[call.layer]) < call.heads:
            chosen = torch.zeros(call.heads, 1, 1, device=device, dtype=dtype)
            chosen[self.heads[call.layer]] = 1
            changed = changed * chosen
        return replace(call, mask=mask + changed)
