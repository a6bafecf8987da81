"""Capture attention from chosen text tokens to the visual tokens, per layer and head, differentiable in the latent."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .errors import CaptureError
from .models.loading import Mllm
from .models.prompt import Prompt, Queries
from .models.replay import undisturbed


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention weights from query tokens to visual tokens.

    Args:
        values: (layer, head, query, visual token) float32 on the model's device; each is the weight after the softmax
            over all keys, so that a row's sum is the share of the query's attention that goes to the image.
        layers: layer number of each entry of the first axis.
        heads: head number of each entry of the second.
        queries: position of each query token in the prompt.
        prompt: what was captured.
    """

    values: torch.Tensor
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    queries: tuple[int, ...]
    prompt: Prompt = field(repr=False)

    @property
    def words(self) -> tuple[str, ...]:
        """The query tokens as strings."""
        return tuple(self.prompt.tokens[position] for position in self.queries)

    def __repr__(self) -> str:
        on_image = self.values.detach().sum(-1).mean().item()
        return (
            f"Attention(layer, head, query, visual token = {tuple(self.values.shape)}, "
            f"layers {_ranges(self.layers)}, heads {_ranges(self.heads)}, queries {' '.join(self.words)!r}, "
            f"{on_image:.1%} of it on the image, {self.values.device}"
            f"{', differentiable' if self.values.requires_grad else ''})"
        )


def capture_attention(
    mllm: Mllm,
    prompt: Prompt,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    queries: Queries = "text",
    latent: torch.Tensor | None = None,
) -> Attention:
    """Replay the prompt and capture attention from `queries` to the visual tokens.

    Only the rows, layers and heads asked for are computed, beside the model's own attention kernel, and the forward
    stops after the last layer asked for. Memory grows with queries x tokens.

    Args:
        mllm: the model that prepared the prompt.
        layers: layer numbers, ascending in the result; all when None.
        heads: head numbers; all when None.
        queries: which text tokens; see `Prompt.positions`.
        latent: (visual token, width) added to the visual tokens. The result carries gradient to it if it requires one.

    Raises:
        CaptureError: for layers or heads out of range, or attention that cannot be reproduced.
        PromptError: for queries that are not in the prompt.
    """
    chosen_layers = _checked(layers, mllm.layers, "Layers")
    chosen_heads = _checked(heads, mllm.heads, "Heads")
    positions = prompt.positions(queries)
    recorder = _Recorder(chosen_layers, chosen_heads, positions, prompt.visual)
    differentiable = latent is not None and latent.requires_grad
    with (
        torch.set_grad_enabled(differentiable),
        undisturbed(mllm.model),
        _attention_of(mllm.decoder, recorder),
        suppress(_Enough),
    ):
        prompt.call.replay(latent)
    missing = [layer for layer in chosen_layers if layer not in recorder.captured]
    if missing:
        raise CaptureError(
            f"Every layer asked for must call transformers' attention interface; layers {_ranges(missing)} of "
            f"{type(mllm.decoder).__name__} did not."
        )
    device = prompt.call.embeds.device
    values = torch.stack([recorder.captured[layer].to(device) for layer in chosen_layers])
    return Attention(values, chosen_layers, chosen_heads, positions, prompt)


class _Enough(Exception):
    """Ends the forward once the last layer asked for is captured."""


class _Recorder:
    """Computes the rows asked for, layer by layer."""

    def __init__(self, layers: Sequence[int], heads: Sequence[int], rows: Sequence[int], columns: Sequence[int]):
        self.layers, self.last = frozenset(layers), max(layers)
        self.heads, self.rows, self.columns = list(heads), list(rows), list(columns)
        self.captured: dict[int, torch.Tensor] = {}

    def see(self, module: Any, query: torch.Tensor, key: torch.Tensor, mask: Any, options: dict[str, Any]) -> None:
        layer = module.layer_idx
        if layer in self.layers:
            rows = attention_rows(module, query, key, mask, self.heads, self.rows, **options)
            self.captured[layer] = rows[..., torch.tensor(self.columns, device=rows.device)]
            if layer == self.last:
                raise _Enough


def attention_rows(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    heads: Sequence[int],
    rows: Sequence[int],
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor:
    """Attention weights of some rows and heads over all keys: (head, row, key), float32.

    Arguments are those of transformers' attention functions: query (1, head, token, width), key (1, key head, token,
    width), mask boolean or additive (1, 1 or head, token, key) or None for causal attention; `softcap` bounds the
    logits, `s_aux` holds attention sinks.

    Raises:
        CaptureError: for a batch, or a mask or bias of a form that is not understood.
    """
    if len(query) != 1:
        raise CaptureError(f"Attention is captured for one prompt at a time; got a batch of {len(query)}.")
    if position_bias is not None or not (mask is None or torch.is_tensor(mask)):
        raise CaptureError(
            f"{type(module).__name__} draws its attention with "
            f"{'a position bias' if position_bias is not None else type(mask).__name__}, which cannot be reproduced row by "
            "row. Load the model with attn_implementation='sdpa' or 'eager'."
        )
    group = query.shape[1] // key.shape[1]
    row_index = torch.tensor(list(rows), device=query.device)
    every_head = list(heads) == list(range(query.shape[1]))
    head_index = torch.tensor(list(heads), device=query.device)
    chosen = query[0, :, row_index] if every_head else query[0, head_index[:, None], row_index]
    if every_head:
        # Query heads that share a key head are folded into rows, so that keys are never repeated.
        folded = chosen.reshape(key.shape[1], group * len(row_index), -1)
        logits = (folded @ key[0].transpose(-1, -2)).reshape(len(head_index), len(row_index), -1)
    else:
        logits = chosen @ key[0, head_index // group].transpose(-1, -2)
    logits = logits.float() * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = _masked(logits, mask, row_index, head_index, module.is_causal if is_causal is None else is_causal)
    if s_aux is not None:
        sinks = s_aux.float()[head_index, None, None].expand(-1, logits.shape[1], 1)
        return torch.cat([logits, sinks], -1).softmax(-1)[..., :-1]
    return logits.softmax(-1)


def _masked(
    logits: torch.Tensor, mask: torch.Tensor | None, rows: torch.Tensor, heads: torch.Tensor, causal: bool
) -> torch.Tensor:
    if mask is None:
        if not causal:
            return logits
        keys = torch.arange(logits.shape[-1], device=logits.device)
        return logits.masked_fill(keys > rows[:, None], float("-inf"))
    shared = mask.shape[1] == 1
    chosen = (mask[0, 0][rows] if shared else mask[0, heads[:, None], rows])[..., : logits.shape[-1]]
    if chosen.dtype == torch.bool:
        return logits.masked_fill(~chosen, float("-inf"))
    return logits + chosen.float()


_ACTIVE: ContextVar[_Recorder] = ContextVar("cmllm_recorder")


@contextmanager
def _attention_of(decoder: Any, recorder: _Recorder) -> Iterator[None]:
    """While open, every attention layer of `decoder` shows its queries and keys to `recorder`."""
    config = decoder.config
    original = config._attn_implementation
    token = _ACTIVE.set(recorder)
    config._attn_implementation = _register(original)
    try:
        yield
    finally:
        config._attn_implementation = original
        _ACTIVE.reset(token)


def _register(original: str | None) -> str:
    """Name of the registered attention function that observes, then delegates to `original`."""
    if original != "eager" and original not in ALL_ATTENTION_FUNCTIONS:
        raise CaptureError(
            "The model's attention implementation must be 'eager' or one that transformers knows; "
            f"got {original!r}. Load it with attn_implementation='sdpa'."
        )
    name = f"cmllm_{original}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _observing(original))
        if original in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[original])
    return name


def _observing(original: str | None) -> Callable:
    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        _ACTIVE.get().see(module, query, key, attention_mask, options)
        if original == "eager":
            own = sys.modules[type(module).__module__].eager_attention_forward
        else:
            own = ALL_ATTENTION_FUNCTIONS[original]
        return own(module, query, key, value, attention_mask, **options)

    return attend


def _checked(numbers: Iterable[int] | None, count: int, what: str) -> tuple[int, ...]:
    if numbers is None:
        return tuple(range(count))
    chosen = tuple(dict.fromkeys(int(number) for number in numbers))
    if not chosen or not all(0 <= number < count for number in chosen):
        raise CaptureError(f"{what} must be at least one number in 0..{count - 1}; got {list(chosen)}.")
    return tuple(sorted(chosen))


def _ranges(numbers: Sequence[int]) -> str:
    """`0..3, 7` for (0, 1, 2, 3, 7)."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}..{part[-1]}" for part in parts)
