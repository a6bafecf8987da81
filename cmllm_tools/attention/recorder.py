"""Rows of attention that are kept while a prompt is replayed: the model's own kernel runs beside them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch

from ..errors import CaptureError
from ..models.checkpointing import checkpointed
from ..models.finite import not_finite
from ..models.interrupts import restoring
from ..models.mllm import Mllm
from ..models.positions import at_positions
from ..models.prompt import Prompt
from ..models.undisturbed import undisturbed
from ..notation import number_ranges
from .context_token import existing
from .observe import AttentionCall, Observer, observed

# Opens what is done to a model while it is looked at.
Meanwhile = Callable[[], AbstractContextManager[None]]


def kernel_errors(mllm: Mllm, prompt: Prompt, rows: Sequence[int]) -> dict[int, float]:
    """For every layer, how far the computed rows are from the attention that the model's own kernel draws.

    Returns:
        `{layer: error}`: the largest difference between rows times values and the kernel's output, as a share of the
        largest value.

    Raises:
        CaptureError: for attention that cannot be reproduced.
    """
    check = _KernelCheck(rows)
    replay(mllm, prompt, check, None)
    return check.errors


def capture(
    mllm: Mllm,
    prompt: Prompt,
    layers: Iterable[int],
    heads: Iterable[int] | None,
    rows: Sequence[int],
    columns: Sequence[int] | None,
    latent: torch.Tensor | None = None,
    finite: bool = True,
    meanwhile: Meanwhile = nullcontext,
    forward: Callable[[], Any] | None = None,
) -> "Recorder":
    """Replay the prompt with a recorder that keeps these rows and columns (all keys when None) of these layers.

    The prompt may be several copies in one batch (`models.batch.copies`), each with its own latent.

    Args:
        finite: whether what was captured must be finite.
        meanwhile: opens what else is done to the model.
        forward: what is run in the replay's place, with a latent of its own kind; the last tokens alone, say.

    Raises:
        CaptureError: for layers or heads out of range, or attention that cannot be reproduced.
        NotFiniteError: naming the first layer whose attention is not finite.
    """
    numbers = existing(layers, mllm.attention_layers, "Layers")
    modules = {module: layer for module, layer in mllm.attention_modules.items() if layer in numbers}
    kept_heads = None if heads is None else existing(heads, range(mllm.heads), "Heads")
    states = prompt.call.states
    total = states.shape[1] if not mllm.family.beside and states.dim() == 3 else None
    recorder = Recorder(modules.values(), kept_heads, rows, columns, total)
    replay(mllm, prompt, recorder, latent, modules, meanwhile, forward)
    check_seen(mllm, numbers, recorder.captured)
    if finite:
        check_finite(mllm, {layer: recorder.captured[layer] for layer in numbers})
    return recorder


def check_seen(mllm: Mllm, layers: Iterable[int], seen: Collection[int]) -> None:
    """Refuse layers whose attention was not seen in a forward.

    Raises:
        CaptureError: naming them.
    """
    if missing := [layer for layer in layers if layer not in seen]:
        raise CaptureError(
            f"Every layer asked for must call transformers' attention interface; layers {number_ranges(missing)} of "
            f"{type(mllm.decoder).__name__} did not."
        )


def check_finite(mllm: Mllm, rows: Mapping[int, torch.Tensor]) -> None:
    """Refuse attention rows, by layer, that are not finite.

    Raises:
        NotFiniteError: naming the first such layer, the model's dtype, and what to do.
    """
    # One look at the device for all layers.
    sums = [values.detach().sum() for values in rows.values()]
    if bool(torch.stack([each.to(sums[0].device) for each in sums]).isfinite().all()):
        return
    for layer, values in rows.items():
        if not bool(values.detach().isfinite().all()):
            raise not_finite(f"Attention must be finite; in layer {layer} it is not", mllm.model.dtype)


def replay(
    mllm: Mllm,
    prompt: Prompt,
    observer: Observer,
    latent: torch.Tensor | None,
    modules: Mapping[Any, int] | None = None,
    meanwhile: Meanwhile = nullcontext,
    forward: Callable[[], Any] | None = None,
) -> None:
    """Replay the prompt while attention modules show their calls to `observer`.

    Args:
        modules: those that do, with their layers' numbers; all that look at visual states when None.
        meanwhile: opens what else is done to the model, before `observer` hears of a call.
        forward: what is run in the replay's place.

    Raises:
        CaptureError: for a prompt that was prepared for another attention implementation.
        PromptError: for a prompt of another model, or of another dtype or device.
    """
    prompt.check(mllm, replayed=True)
    differentiable = latent is not None and latent.requires_grad
    # What continues from a cache cannot be computed twice: it would be added to the cache once more.
    again = differentiable and mllm.gradient_checkpointing and forward is None
    small = observer if again and isinstance(observer, Recorder) else None
    with (
        undisturbed(mllm.model, differentiable),
        meanwhile(),
        observed(mllm, observer, modules),
        nullcontext() if small is None else _kept_small(mllm, small, modules, meanwhile),
        suppress(_LastLayerSeen),
    ):
        if forward is None:
            prompt.call.replay(latent)
        else:
            forward()


class _LastLayerSeen(Exception):
    """Ends the forward once the last layer asked for is captured."""


class Recorder(Observer):
    """Computes the rows asked for, layer by layer, and ends the forward after the last of them.

    Args:
        layers: numbers of the layers asked for.
        heads: head numbers; all when None.
        rows: query positions.
        columns: key positions; all when None.
        total: how many tokens there are, where the last of them may come alone, over a cache of the others.

    Attributes:
        captured: (prompt, head, row, column) of each layer.
    """

    def __init__(
        self,
        layers: Iterable[int],
        heads: tuple[int, ...] | None,
        rows: Sequence[int],
        columns: Sequence[int] | None,
        total: int | None = None,
    ):
        self.total = total
        self.layers = tuple(sorted(layers))
        self.heads, self.rows, self.columns = heads, list(rows), None if columns is None else list(columns)
        self.captured: dict[int, torch.Tensor] = {}

    def before(self, call: AttentionCall) -> AttentionCall:
        cached = 0 if self.total is None else self.total - call.query.shape[2]
        if self.rows and min(self.rows) < cached:
            raise CaptureError(
                f"Queries must be tokens that are run: keys are moved in a cached prefix, of {cached} tokens, "
                f"which is not run again; got position {min(self.rows)}. Take tokens after the image."
            )
        rows = call.rows([row - cached for row in self.rows], self.heads)
        if self.columns is not None:
            # A view would keep all columns.
            rows = at_positions(rows, -1, self.columns).contiguous()
        self.captured[call.layer] = rows
        if len(self.captured) == len(self.layers):
            raise _LastLayerSeen
        return call


class _KernelCheck(Observer):
    """Holds each layer's rows, multiplied with its values, against its kernel's output."""

    def __init__(self, rows: Sequence[int]):
        self.rows = list(rows)
        self.errors: dict[int, float] = {}

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        rows = call.rows(self.rows)[0]
        values = call.head_values(rows)
        own = output[0].to(rows)[torch.tensor(self.rows, device=output.device)].transpose(0, 1)
        self.errors[call.layer] = ((rows @ values - own).abs().max() / values.abs().max()).item()
        return output


@restoring
def _kept_small(mllm: Mllm, recorder: Recorder, modules: Mapping[Any, int] | None, meanwhile: Meanwhile) -> Iterator[None]:
    """While open, the layers before the last one asked for are checkpointed; that one ends the forward."""

    @restoring
    def again() -> Iterator[None]:
        # The same rows are computed, as autograd counts on it, and dropped: those of the first pass carry the gradient.
        second = Recorder(recorder.layers, recorder.heads, recorder.rows, recorder.columns, recorder.total)
        with (
            undisturbed(mllm.model, gradient=True),
            meanwhile(),
            observed(mllm, second, modules),
        ):
            yield

    with checkpointed(mllm.family.layer_modules(mllm.model)[: recorder.layers[-1]], again):
        yield
