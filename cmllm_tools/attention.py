"""Capture attention from chosen text tokens to the visual tokens, per layer and head, differentiable in the latent."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .display import Fact, card, one_line, picture
from .errors import CaptureError
from .models.checkpointing import checkpointed
from .models.mllm import Mllm
from .models.prompt import Prompt, Queries
from .models.replay import implementation, undisturbed


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention weights from query tokens to visual tokens.

    Args:
        values: (layer, head, query, visual token), float32 or wider, on the model's device; each is the weight after the
            softmax over all keys, so that a row's sum is the share of the query's attention that goes to the image.
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
        return self.prompt.words(self.queries)

    def __repr__(self) -> str:
        return one_line("Attention", self._facts())

    def _repr_html_(self) -> str:
        layout = self.prompt.layout
        heat = layout.raster(self.values.detach().float().mean((0, 1, 2)).cpu().numpy())
        shown = picture(
            layout.image_size,
            self.prompt.image,
            cells=layout.cells,
            heat=heat / max(heat.max(), 1e-30),
            caption="mean over layers, heads and queries",
        )
        return card("Attention", self._facts(), shown)

    def _facts(self) -> list[Fact]:
        on_image = self.values.detach().sum(-1).mean().item()
        facts = [
            ("", f"layer, head, query, visual token = {tuple(self.values.shape)}"),
            ("layers", _ranges(self.layers)),
            ("heads", _ranges(self.heads)),
            ("queries", repr(" ".join(self.words))),
            ("", f"{on_image:.1%} of it on the image"),
            ("", str(self.values.device)),
        ]
        return facts + [("", "differentiable")] * self.values.requires_grad


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
        layers: layer numbers, ascending in the result; when None, all that look at visual states.
        heads: head numbers; all when None.
        queries: which text tokens; see `Prompt.positions`.
        latent: (visual token, width) added to the visual tokens. The result carries gradient to it if it requires one.

    Raises:
        CaptureError: for layers or heads out of range, or attention that cannot be reproduced.
        PromptError: for queries that are not in the prompt.
    """
    positions = prompt.positions(queries)
    chosen = mllm.attention_layers if layers is None else layers
    recorder = capture(mllm, prompt, chosen, heads, positions, prompt.visual, latent)
    device = prompt.call.states.device
    values = torch.stack([recorder.captured[layer].to(device) for layer in recorder.layers])
    return Attention(values, recorder.layers, recorder.heads or tuple(range(values.shape[1])), positions, prompt)


def capture(
    mllm: Mllm,
    prompt: Prompt,
    layers: Iterable[int],
    heads: Iterable[int] | None,
    rows: Sequence[int],
    columns: Sequence[int] | None,
    latent: torch.Tensor | None = None,
) -> "Recorder":
    """Replay the prompt with a recorder that keeps these rows and columns (all keys when None) of these layers.

    Raises:
        CaptureError: for layers or heads out of range, or attention that cannot be reproduced.
    """
    attention = implementation(mllm.model, mllm.family.site)
    if prompt.call.attention != attention:
        raise CaptureError(
            f"A prompt's masks fit the attention implementation it was prepared for, {prompt.call.attention!r}; "
            f"the model now has {attention!r}. Prepare the prompt again."
        )
    numbers = _checked(layers, mllm.attention_layers, "Layers")
    modules = {module: layer for module, layer in mllm.attention_modules.items() if layer in numbers}
    kept_heads = None if heads is None else _checked(heads, range(mllm.heads), "Heads")
    recorder = Recorder(modules, kept_heads, rows, columns)
    differentiable = latent is not None and latent.requires_grad
    with (
        torch.set_grad_enabled(differentiable),
        undisturbed(mllm.model),
        _attention_shown(mllm, recorder),
        _kept_small(mllm, recorder) if differentiable and mllm.gradient_checkpointing else nullcontext(),
        suppress(_Enough),
    ):
        prompt.call.replay(latent)
    missing = [layer for layer in numbers if layer not in recorder.captured]
    if missing:
        raise CaptureError(
            f"Every layer asked for must call transformers' attention interface; layers {_ranges(missing)} of "
            f"{type(mllm.decoder).__name__} did not."
        )
    return recorder


class _Enough(Exception):
    """Ends the forward once the last layer asked for is captured."""


class Recorder:
    """Computes the rows asked for, layer by layer.

    Args:
        modules: the attention modules to listen to, with their layers' numbers.
        heads: head numbers; all when None.
        rows: query positions.
        columns: key positions; all when None.
    """

    def __init__(
        self,
        modules: Mapping[Any, int],
        heads: tuple[int, ...] | None,
        rows: Sequence[int],
        columns: Sequence[int] | None,
    ):
        self.modules = modules
        self.layers = tuple(sorted(modules.values()))
        self.heads, self.rows, self.columns = heads, list(rows), None if columns is None else list(columns)
        self.captured: dict[int, torch.Tensor] = {}

    def see(self, module: Any, query: torch.Tensor, key: torch.Tensor, mask: Any, options: dict[str, Any]) -> None:
        layer = self.modules.get(module)
        if layer is not None:
            heads = range(query.shape[1]) if self.heads is None else self.heads
            rows = attention_rows(module, query, key, mask, heads, self.rows, **options)
            self.captured[layer] = (
                rows if self.columns is None else rows[..., torch.tensor(self.columns, device=rows.device)]
            )
            if len(self.captured) == len(self.layers):
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
    sliding_window: int | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor:
    """Attention weights of some rows and heads over all keys: (head, row, key), float32 or wider.

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
    # bfloat16 is widened; float64, as in a check by finite differences, is kept.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) * (
        query.shape[-1] ** -0.5 if scaling is None else scaling
    )
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    logits = _masked(logits, mask, row_index, head_index, causal and query.shape[2] > 1, sliding_window)
    if s_aux is not None:
        sinks = s_aux.to(logits)[head_index, None, None].expand(-1, logits.shape[1], 1)
        return torch.cat([logits, sinks], -1).softmax(-1)[..., :-1]
    return logits.softmax(-1)


def _masked(
    logits: torch.Tensor,
    mask: torch.Tensor | None,
    rows: torch.Tensor,
    heads: torch.Tensor,
    causal: bool,
    window: int | None,
) -> torch.Tensor:
    if mask is None:
        if not causal:
            return logits
        distance = rows[:, None] - torch.arange(logits.shape[-1], device=logits.device)
        hidden = (distance < 0) if window is None else (distance < 0) | (distance >= window)
        return logits.masked_fill(hidden, float("-inf"))
    shared = mask.shape[1] == 1
    chosen = (mask[0, 0][rows] if shared else mask[0, heads[:, None], rows])[..., : logits.shape[-1]]
    if chosen.dtype == torch.bool:
        return logits.masked_fill(~chosen, float("-inf"))
    return logits + chosen.to(logits)


_ACTIVE: ContextVar[Recorder] = ContextVar("cmllm_recorder")


@contextmanager
def _attention_shown(mllm: Mllm, recorder: Recorder) -> Iterator[None]:
    """While open, the attention modules that look at visual states show their queries and keys to `recorder`."""
    top = [mllm.decoder.config] if hasattr(mllm.decoder, "config") else []
    configs = {id(config): config for config in [*top, *(module.config for module in mllm.attention_modules)]}
    # Setting a config's implementation sets that of the configs within it: restored innermost last.
    before = [pair for config in configs.values() for pair in _implementations(config)]
    token = _ACTIVE.set(recorder)
    try:
        for config in configs.values():
            config._attn_implementation = _register(config._attn_implementation)
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation
        _ACTIVE.reset(token)


@contextmanager
def _kept_small(mllm: Mllm, recorder: Recorder) -> Iterator[None]:
    """While open, the layers before the last one asked for are checkpointed; that one ends the forward."""

    @contextmanager
    def again() -> Iterator[None]:
        # The same rows are computed, as autograd counts on it, and dropped: those of the first pass carry the gradient.
        second = Recorder(recorder.modules, recorder.heads, recorder.rows, recorder.columns)
        with undisturbed(mllm.model), _attention_shown(mllm, second):
            yield

    with checkpointed(mllm.family.layer_modules(mllm.model)[: recorder.layers[-1]], again):
        yield


def _implementations(config: Any) -> Iterator[tuple[Any, str | None]]:
    yield config, config._attn_implementation
    for name in config.sub_configs:
        if (inner := getattr(config, name, None)) is not None:
            yield from _implementations(inner)


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


def _checked(numbers: Iterable[int], existing: Sequence[int], what: str) -> tuple[int, ...]:
    chosen = tuple(dict.fromkeys(int(number) for number in numbers))
    if not chosen or not set(chosen) <= set(existing):
        raise CaptureError(f"{what} must be at least one number in {_ranges(existing)}; got {list(chosen)}.")
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
