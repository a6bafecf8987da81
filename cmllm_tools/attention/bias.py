"""Attention editing: what the text looks at is moved by a bias on the logits, inside the attention function."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch

from ..errors import CaptureError
from ..models.interrupts import restoring
from ..models.interventions import Intervention
from ..models.mllm import Mllm
from ..models.prompt import Prompt
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
    """

    bias: torch.Tensor = field(repr=False)
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] | tuple[tuple[int, int], ...] | None = None

    def opened(self, mllm: Mllm, prompt: Prompt, copies: int = 1) -> AbstractContextManager[None]:
        if tuple(self.bias.shape) != (len(prompt.visual),) or not bool(torch.isfinite(self.bias).all()):
            raise CaptureError(
                f"A bias must be one finite number for each of the prompt's {len(prompt.visual)} visual tokens; got shape "
                f"{tuple(self.bias.shape)}. It belongs to one prompt: make it again for another image or model."
            )
        return _biased(mllm, prompt, self, copies)

    def heads_of(self, mllm: Mllm) -> dict[int, list[int]]:
        """Head numbers of each layer that is changed."""
        chosen = [layer for layer in mllm.attention_layers if not self.layers or layer in self.layers]
        every: dict[int, list[int]] = {layer: [] for layer in chosen}
        for head in range(mllm.heads) if self.heads is None else self.heads:
            for layer in chosen:
                if isinstance(head, tuple):
                    every[layer] += [head[1]] * (head[0] == layer)
                else:
                    every[layer].append(head)
        return {layer: heads for layer, heads in every.items() if heads}


@restoring
def _biased(mllm: Mllm, prompt: Prompt, edit: AttentionBias, copies: int) -> Iterator[None]:
    heads = edit.heads_of(mllm)
    modules = {module: layer for module, layer in mllm.attention_modules.items() if layer in heads}
    in_text = mllm.family.site.in_sequence and not prompt.learned
    observer = _Biasing(edit.bias, heads, prompt.visual, prompt.image_end if in_text else 0, len(prompt.tokens), copies)
    with observed(mllm, observer, modules):
        yield


class _Biasing(Observer):
    """Adds the bias to the mask that a layer's kernel is given."""

    def __init__(
        self,
        bias: torch.Tensor,
        heads: dict[int, list[int]],
        columns: Sequence[int],
        first: int,
        length: int,
        copies: int,
    ):
        self.bias, self.heads, self.columns = bias, heads, torch.tensor(list(columns))
        self.first, self.length, self.copies = first, length, copies

    def before(self, call: AttentionCall) -> AttentionCall:
        check_mask(call.module, call.mask, call.options)
        device, dtype = call.query.device, call.query.dtype
        queries, keys = call.query.shape[2], call.key.shape[2]
        mask = _additive(call).expand(call.query.shape[0], call.heads, -1, -1).clone()
        added = torch.zeros(keys, device=device, dtype=dtype)
        added[self.columns.to(device)] = self.bias.to(device, dtype)
        # Tokens of the answer come one by one, after the prompt.
        before = 0 if queries == self.length else keys - queries
        rows = [row for row in range(queries) if queries == 1 or before + row >= self.first]
        heads = torch.tensor(self.heads[call.layer], device=device)
        # Of several copies the first is changed; beams and returned sequences are rows of that one.
        count = len(mask) // self.copies
        chosen = mask[:count, heads[:, None], torch.tensor(rows, device=device, dtype=torch.long)]
        mask[:count, heads[:, None], torch.tensor(rows, device=device, dtype=torch.long)] = chosen + added
        return replace(call, mask=mask)


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
