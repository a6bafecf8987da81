"""Attention editing: what the text looks at is moved by a bias on the logits, inside the attention function."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch

from ..errors import CaptureError
from ..models.interrupts import restoring
from ..models.interventions import Intervention
from ..models.latent import as_numbers
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..strict import shown, whole_numbers
from .context_token import ContextToken
from .heads import as_heads
from .observe import AttentionCall, Observer, observed
from .rows import check_mask


@dataclass(frozen=True, eq=False)
class AttentionBias(Intervention):
    """A number added to the attention logits of the visual tokens, before the softmax.

    Every token after the image looks so, those of the answer too; the image's own tokens, and those before it, look as
    ever. A bias of ln(k) on some tokens makes their weights k times what they were, before all are divided by their sum.

    Args:
        bias: (visual token,).
        layers: numbers of the layers; () for all that look at visual states.
        heads: head numbers, all when None; or (layer, head) pairs, of which those in `layers` count.
        contrast: how the answer is decoded against the one without; None decodes plainly.

    Raises:
        CaptureError: for a bias that is no numbers, or layers or heads that are none.
    """

    bias: torch.Tensor = field(repr=False)
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] | tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        bias = as_numbers(self.bias)
        if bias.dim() != 1 or not bool(torch.isfinite(bias).all()):
            raise CaptureError(f"A bias must be one finite number for each visual token; got {shown(self.bias)}.")
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "layers", whole_numbers(self.layers, "the layers", error=CaptureError))
        object.__setattr__(self, "heads", as_heads(self.heads))

    def opened(self, mllm: Mllm, prompt: Prompt, copies: int = 1) -> AbstractContextManager[None]:
        if len(self.bias) != len(prompt.visual):
            raise CaptureError(
                f"A bias must be one finite number for each of the prompt's {len(prompt.visual)} visual tokens; got "
                f"{len(self.bias)}. It belongs to one prompt: make it again for another image or model."
            )
        # Whatever does not exist is refused, and not left out.
        rows = ContextToken(layers=self.layers or None, heads=self.heads).resolve(mllm, prompt)
        pairs = rows.pairs or [(layer, head) for layer in rows.layers for head in rows.heads]
        heads = {layer: [head for at, head in pairs if at == layer] for layer in rows.layers}
        return _biased(mllm, prompt, self.bias, heads, copies)


@restoring
def _biased(mllm: Mllm, prompt: Prompt, bias: torch.Tensor, heads: dict[int, list[int]], copies: int) -> Iterator[None]:
    modules = {module: layer for module, layer in mllm.attention_modules.items() if layer in heads}
    first = prompt.image_end if mllm.family.site.in_sequence and not prompt.learned else None
    with observed(mllm, _Biasing(bias, heads, prompt.visual, first, len(prompt.tokens), copies), modules):
        yield


class _Biasing(Observer):
    """Adds the bias to the mask that a layer's kernel is given."""

    def __init__(
        self,
        bias: torch.Tensor,
        heads: dict[int, list[int]],
        columns: Sequence[int],
        first: int | None,
        length: int,
        copies: int,
    ):
        self.bias, self.heads, self.columns = bias, heads, torch.tensor(list(columns))
        # Position of the first token that looks otherwise; None for all, which look at states beside their own sequence.
        self.first, self.copies = first, copies
        # How many tokens there are, the prompt's at first; and the layer of the call before.
        self._total, self._layer = length, -1

    def before(self, call: AttentionCall) -> AttentionCall:
        check_mask(call.module, call.mask, call.options)
        device, dtype = call.query.device, call.query.dtype
        mask = _additive(call).expand(call.query.shape[0], call.heads, -1, -1).clone()
        rows, dropped = self._places(call)
        columns = self.columns.to(device) - dropped
        held = (columns >= 0) & (columns < mask.shape[-1])
        added = torch.zeros(mask.shape[-1], device=device, dtype=dtype)
        added[columns[held]] = self.bias.to(device, dtype)[held]
        # Of several copies the first is changed; beams and returned sequences are rows of that one.
        chosen = torch.zeros(mask.shape[:3], device=device, dtype=dtype)
        chosen[: len(mask) // self.copies, self.heads[call.layer], rows:] = 1
        return replace(call, mask=mask + chosen[..., None] * added)

    def _places(self, call: AttentionCall) -> tuple[int, int]:
        """The first of the call's rows that looks otherwise, and how many of the oldest keys a cache has dropped."""
        if self.first is None:
            return 0, 0
        queries, keys = call.query.shape[2], call.key.shape[2]
        if call.layer <= self._layer:
            # Another forward: the whole sequence once more, where there is no cache, or what was added to it.
            self._total = queries if queries == keys else self._total + queries
        self._layer = call.layer
        # Some models' last layers are given the last token alone.
        return max(self.first - (self._total - queries), 0), max(self._total - keys, 0)


def _additive(call: AttentionCall) -> torch.Tensor:
    """The call's mask (1 or prompt, 1 or head, token, key) as numbers to add to logits; hidden keys have the least."""
    dtype, queries, keys = call.query.dtype, call.query.shape[2], call.key.shape[2]
    least = torch.finfo(dtype).min
    if call.mask is not None:
        mask = call.mask[..., :keys]
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, least) if mask.dtype == torch.bool else mask.to(dtype)
    mask = torch.zeros(1, 1, queries, keys, dtype=dtype, device=call.query.device)
    causal = call.options.get("is_causal")
    causal = getattr(call.module, "is_causal", True) if causal is None else causal
    if not causal or queries == 1:
        return mask
    distance = torch.arange(queries, device=mask.device)[:, None] - torch.arange(keys, device=mask.device)
    window = call.options.get("sliding_window")
    return mask.masked_fill((distance < 0) if window is None else (distance < 0) | (distance >= window), least)
