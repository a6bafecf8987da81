"""Capture attention from chosen text tokens to the visual tokens, per layer and head, differentiable in the latent."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .display import Fact, card, one_line, picture
from .errors import CaptureError
from .heads import Heads, pairs_within
from .models.checkpointing import checkpointed
from .models.finite import not_finite
from .models.hooks import this_use
from .models.interrupts import restoring
from .models.latent import Latent, read_latent
from .models.mllm import Mllm, require
from .models.prompt import Prompt, Queries
from .models.undisturbed import unaffected, undisturbed
from .notation import layers_text, number_ranges
from .rows import attention_rows
from .strict import whole_numbers


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
        pairs: the (layer, head) pairs that were asked for, where they were pairs: what `context_map` averages.
    """

    values: torch.Tensor
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    queries: tuple[int, ...]
    prompt: Prompt = field(repr=False)
    pairs: tuple[tuple[int, int], ...] | None = None

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
            ("", layers_text(self.layers)),
            ("heads", number_ranges(self.heads) if self.pairs is None else f"of {len(self.pairs)} (layer, head) pairs"),
            ("queries", repr(" ".join(self.words))),
            ("", f"{on_image:.1%} of it on the image"),
            ("", str(self.values.device)),
        ]
        return facts + [("", "differentiable")] * self.values.requires_grad


def capture_attention(
    mllm: Mllm,
    prompt: Prompt,
    layers: Iterable[int] | None = None,
    heads: Heads | None = None,
    queries: Queries = "text",
    latent: Latent | None = None,
) -> Attention:
    """Replay the prompt and capture attention from `queries` to the visual tokens.

    Only the rows, layers and heads asked for are computed, beside the model's own attention kernel, and the forward
    stops after the last layer asked for. Memory grows with queries x tokens.

    Args:
        mllm: the model that prepared the prompt.
        layers: layer numbers, ascending in the result; when None, all that look at visual states.
        heads: head numbers, all when None; or (layer, head) pairs, of which those in `layers` count. For pairs, every layer
            named is captured with every head named; a map of it takes just the pairs.
        queries: which text tokens; see `Prompt.positions`.
        latent: (visual token, width) added to the visual tokens, or a run that has one. The result carries
            gradient to it if it requires one.

    Raises:
        CaptureError: for layers or heads out of range, or attention that cannot be reproduced.
        NotFiniteError: for attention that is not finite, as in a model whose float16 overflows.
        PromptError: for queries that are not in the prompt, or stand before the image, or a prompt of another model.
    """
    require(mllm, prompt)
    if prompt.call.copies != 1:
        raise CaptureError(f"Attention is captured for one prompt at a time; got a batch of {prompt.call.copies} copies.")
    positions = prompt.seeing(queries)
    latent = None if latent is None else read_latent(latent, prompt.call)
    pairs, numbers = pairs_within(heads, layers)
    if pairs is not None:
        layers, numbers = {layer for layer, _ in pairs}, [head for _, head in pairs]
    chosen = mllm.attention_layers if layers is None else layers
    recorder = capture(mllm, prompt, chosen, numbers, positions, prompt.visual, latent)
    device = prompt.call.states.device
    with unaffected(gradient=True):
        values = torch.stack([recorder.captured[layer][0].to(device) for layer in recorder.layers])
    captured = recorder.heads or tuple(range(values.shape[1]))
    return Attention(values, recorder.layers, captured, positions, prompt, pairs)


def kernel_errors(mllm: Mllm, prompt: Prompt, rows: Sequence[int]) -> dict[int, float]:
    """For every layer, how far the computed rows are from the attention that the model's own kernel draws.

    Returns:
        `{layer: error}`: the largest difference between rows times values and the kernel's output, as a share of the
        largest value.

    Raises:
        CaptureError: for attention that cannot be reproduced.
    """
    errors: dict[int, float] = {}
    replay(mllm, prompt, Recorder(mllm.attention_modules, None, rows, None, errors), None)
    return errors


def capture(
    mllm: Mllm,
    prompt: Prompt,
    layers: Iterable[int],
    heads: Iterable[int] | None,
    rows: Sequence[int],
    columns: Sequence[int] | None,
    latent: torch.Tensor | None = None,
    finite: bool = True,
) -> "Recorder":
    """Replay the prompt with a recorder that keeps these rows and columns (all keys when None) of these layers.

    The prompt may be several copies in one batch (`models.batch.copies`), each with its own latent.

    Args:
        finite: whether what was captured must be finite.

    Raises:
        CaptureError: for layers or heads out of range, or attention that cannot be reproduced.
        NotFiniteError: naming the first layer whose attention is not finite.
    """
    numbers = _checked(layers, mllm.attention_layers, "Layers")
    modules = {module: layer for module, layer in mllm.attention_modules.items() if layer in numbers}
    kept_heads = None if heads is None else _checked(heads, range(mllm.heads), "Heads")
    recorder = Recorder(modules, kept_heads, rows, columns)
    replay(mllm, prompt, recorder, latent)
    missing = [layer for layer in numbers if layer not in recorder.captured]
    if missing:
        raise CaptureError(
            f"Every layer asked for must call transformers' attention interface; layers {number_ranges(missing)} of "
            f"{type(mllm.decoder).__name__} did not."
        )
    if finite:
        check_finite(mllm, {layer: recorder.captured[layer] for layer in numbers})
    return recorder


def check_finite(mllm: Mllm, rows: Mapping[int, torch.Tensor]) -> None:
    """Refuse attention rows, by layer, that are not finite.

    Raises:
        NotFiniteError: naming the first such layer, the model's dtype, and what to do.
    """
    # One look at the device for all layers.
    flags = [values.detach().isfinite().all() for values in rows.values()]
    finite = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()
    if all(finite):
        return
    layer = list(rows)[finite.index(False)]
    raise not_finite(f"Attention must be finite; in layer {layer} it is not", mllm.model.dtype)


def replay(mllm: Mllm, prompt: Prompt, recorder: "Recorder", latent: torch.Tensor | None) -> None:
    """Replay the prompt while the attention modules show what they do to `recorder`.

    Raises:
        CaptureError: for a prompt that was prepared for another attention implementation.
        PromptError: for a prompt of another model, or of another dtype or device.
    """
    prompt.check(mllm, replayed=True)
    differentiable = latent is not None and latent.requires_grad
    with (
        undisturbed(mllm.model, differentiable),
        attention_shown(mllm, recorder),
        _kept_small(mllm, recorder) if differentiable and mllm.gradient_checkpointing else nullcontext(),
        suppress(_Enough),
    ):
        prompt.call.replay(latent)


class _Enough(Exception):
    """Ends the forward once the last layer asked for is captured."""


class Recorder:
    """Computes the rows asked for, layer by layer.

    Args:
        modules: the attention modules to listen to, with their layers' numbers.
        heads: head numbers; all when None.
        rows: query positions.
        columns: key positions; all when None.
        errors: when given, filled with how far each layer's rows times its values are from what the model's own kernel
            made of them: a share of the largest value.

    Attributes:
        captured: (prompt, head, row, column) of each layer.
    """

    def __init__(
        self,
        modules: Mapping[Any, int],
        heads: tuple[int, ...] | None,
        rows: Sequence[int],
        columns: Sequence[int] | None,
        errors: dict[int, float] | None = None,
    ):
        self.errors = errors
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

    def compare(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: Any,
        options: dict[str, Any],
        output: torch.Tensor,
    ) -> None:
        """Hold the rows of a layer, multiplied with its values, against its kernel's output (1, token, head, width)."""
        layer = self.modules.get(module)
        if layer is None or self.errors is None:
            return
        rows = attention_rows(module, query, key, mask, range(query.shape[1]), self.rows, **options)[0]
        values = value[0].to(rows).repeat_interleave(query.shape[1] // value.shape[1], 0)
        own = output[0].to(rows)[torch.tensor(self.rows, device=output.device)].transpose(0, 1)
        self.errors[layer] = ((rows @ values - own).abs().max() / values.abs().max()).item()


# In other threads, and in another use of the model within this one, nobody records: calls go on while a capture is open.
_ACTIVE: ContextVar[tuple[Recorder, tuple[int, int]] | None] = ContextVar("cmllm_recorder", default=None)


@restoring
def attention_shown(mllm: Mllm, recorder: Recorder) -> Iterator[None]:
    """While open, the attention modules that look at visual states show their queries and keys to `recorder`."""
    top = [mllm.decoder.config] if hasattr(mllm.decoder, "config") else []
    configs = {id(config): config for config in [*top, *(module.config for module in mllm.attention_modules)]}
    # Setting a config's implementation sets that of the configs within it: restored innermost last.
    before = [pair for config in configs.values() for pair in _implementations(config)]
    token = _ACTIVE.set((recorder, this_use()))
    try:
        for config in configs.values():
            config._attn_implementation = _register(config._attn_implementation)
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation
        _ACTIVE.reset(token)


@restoring
def _kept_small(mllm: Mllm, recorder: Recorder) -> Iterator[None]:
    """While open, the layers before the last one asked for are checkpointed; that one ends the forward."""

    @restoring
    def again() -> Iterator[None]:
        # The same rows are computed, as autograd counts on it, and dropped: those of the first pass carry the gradient.
        second = Recorder(recorder.modules, recorder.heads, recorder.rows, recorder.columns)
        with undisturbed(mllm.model, gradient=True), attention_shown(mllm, second):
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
        if original == "eager":
            own = sys.modules[type(module).__module__].eager_attention_forward
        else:
            own = ALL_ATTENTION_FUNCTIONS[original]
        active = _ACTIVE.get()
        recorder = active[0] if active is not None and active[1] == this_use() else None
        if recorder is not None and recorder.errors is None:
            recorder.see(module, query, key, attention_mask, options)
        result = own(module, query, key, value, attention_mask, **options)
        if recorder is not None and recorder.errors is not None:
            recorder.compare(module, query, key, value, attention_mask, options, result[0])
        return result

    return attend


def _checked(numbers: Iterable[int], existing: Sequence[int], what: str) -> tuple[int, ...]:
    chosen = tuple(dict.fromkeys(whole_numbers(numbers, f"the {what.lower()}", error=CaptureError)))
    if not chosen or not set(chosen) <= set(existing):
        raise CaptureError(f"{what} must be at least one number in {number_ranges(existing)}; got {list(chosen)}.")
    return tuple(sorted(chosen))
