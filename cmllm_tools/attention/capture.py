"""Capture attention from chosen text tokens to the visual tokens, per layer and head, differentiable in the latent."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from ..errors import CaptureError
from ..models.changing import ChosenBy
from ..models.checkpointing import checkpointed
from ..models.finite import not_finite
from ..models.interrupts import restoring
from ..models.interventions import Intervention
from ..models.latent import Latent, read_latent_or_other
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, Queries
from ..models.undisturbed import unaffected, undisturbed
from ..notation import layers_text, number_ranges
from ..shown import Fact, Shown
from ..strict import one_of
from .context_token import ContextToken, existing
from .heads import Heads
from .observe import AttentionCall, Observer, observed


@dataclass(frozen=True, eq=False, repr=False)
class Attention(Shown):
    """Attention weights from query tokens to visual tokens.

    Args:
        values: (layer, head, query, visual token), float32 or wider, on the model's device; each is the weight after the
            softmax over all keys, so that a row's sum is the share of the query's attention that goes to the image.
        layers: layer number of each entry of the first axis.
        heads: head number of each entry of the second.
        queries: position of each query token in the prompt.
        prompt: what was captured.
        pairs: the (layer, head) pairs that were asked for, where they were pairs: what `context_map` averages.
        columns: positions of the tokens on the last axis, where these are others than the visual tokens.

    Examples:
        >>> attention
        Attention(layer, head, query, visual token = (6, 6, 4, 64), layers 0..5 (6), heads 0..5, queries
        'describe the object .', 75.6% of it on the image, cpu)
        >>> attention.values.shape  # (layer, head, query, visual token)
        torch.Size([6, 6, 4, 64])
    """

    values: torch.Tensor
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    queries: tuple[int, ...]
    prompt: Prompt = field(repr=False)
    pairs: tuple[tuple[int, int], ...] | None = None
    columns: tuple[int, ...] | None = None

    def on_image(self) -> "Attention":
        """The same to the visual tokens alone.

        Raises:
            CaptureError: for attention that was captured to other tokens.
        """
        if self.columns is None:
            return self
        visual = self.prompt.visual
        if not set(visual) <= set(self.columns):
            raise CaptureError(
                "A map is of attention to the visual tokens; this is to the text's alone. Capture with columns='image' or "
                "'all'."
            )
        places = torch.tensor([self.columns.index(position) for position in visual], device=self.values.device)
        return replace(self, values=self.values[..., places], columns=None)

    @property
    def words(self) -> tuple[str, ...]:
        """The query tokens as strings."""
        return self.prompt.words(self.queries)

    def facts(self) -> list[Fact]:
        known = self.values.detach().sum(-1).mean().item()
        image = self.columns is None
        facts = [
            ("", f"layer, head, query, {'visual ' * image}token = {tuple(self.values.shape)}"),
            ("", layers_text(self.layers)),
            ("heads", number_ranges(self.heads) if self.pairs is None else f"of {len(self.pairs)} (layer, head) pairs"),
            ("queries", repr(" ".join(self.words))),
            ("", f"{known:.1%} of it on {'the image' if image else 'these tokens'}"),
            ("", str(self.values.device)),
        ]
        return facts + [("", "differentiable")] * self.values.requires_grad


def capture_attention(
    mllm: Mllm,
    prompt: Prompt,
    layers: Iterable[int] | None = None,
    heads: Heads | None = None,
    queries: Queries = "text",
    latent: Latent | Intervention | None = None,
    columns: Literal["image", "text", "all"] = "image",
) -> Attention:
    """Replay the prompt and capture attention from `queries` to the visual tokens, or to others.

    Only the rows, layers and heads asked for are computed, beside the model's own attention kernel, and the forward
    stops after the last layer asked for. Memory grows with queries x tokens.

    Args:
        mllm: the model that prepared the prompt.
        layers: layer numbers, ascending in the result; when None, all that look at visual states.
        heads: head numbers, all when None; or (layer, head) pairs, of which those in `layers` count. For pairs, every layer
            named is captured with every head named; a map of it takes just the pairs.
        queries: which text tokens; see `Prompt.positions`.
        latent: (visual token, width) added to the visual tokens, or a run that has one; or another intervention, or what
            has one. The result carries gradient to a latent that requires one.
        columns: the tokens that are looked at: the "image"'s visual tokens; the "text"'s, every other one of the sequence,
            where queries may stand before the image too; or "all".

    Raises:
        CaptureError: for layers or heads out of range, attention that cannot be reproduced, and text that is looked at in a
            family whose text is no part of what is captured.
        NotFiniteError: for attention that is not finite, as in a model whose float16 overflows.
        PromptError: for queries that are not in the prompt, or stand before the image, or a prompt of another model.

    Examples:
        >>> attention = cm.capture_attention(mllm, prompt, layers=range(2, 6), queries="last")
        >>> attention.values.shape
        torch.Size([4, 6, 1, 64])
    """
    require(mllm, prompt)
    if prompt.call.copies != 1:
        raise CaptureError(f"Attention is captured for one prompt at a time; got a batch of {prompt.call.copies} copies.")
    token = ContextToken(queries, layers, heads)
    keys = _columns(mllm, prompt, columns)
    rows = token.resolve(mllm, prompt, seeing=keys is None)
    values, other = read_latent_or_other(latent, prompt.call)
    other = other.read(mllm, prompt) if isinstance(other, ChosenBy) and not mllm.model.config.is_encoder_decoder else other
    wanted = None if token.heads is None else rows.heads
    seen = prompt.visual if keys is None else keys
    recorder = capture(mllm, prompt, rows.layers, wanted, rows.queries, seen, values, other=other)
    device = prompt.call.states.device
    with unaffected(gradient=True):
        stacked = torch.stack([recorder.captured[layer][0].to(device) for layer in recorder.layers])
    return Attention(stacked, rows.layers, rows.heads, rows.queries, prompt, rows.pairs, keys)


def _columns(mllm: Mllm, prompt: Prompt, columns: str) -> tuple[int, ...] | None:
    """Positions of the tokens that are looked at; None for the visual ones.

    Raises:
        CaptureError: where the text's are not known.
    """
    if one_of(columns, "columns", ("image", "text", "all"), CaptureError) == "image":
        return None
    if not mllm.family.site.in_sequence or prompt.learned:
        raise CaptureError(
            f"Attention to text is known where visual tokens are part of its sequence; in {mllm.family.name} they are not "
            f"({mllm.family.way_in}). Capture with columns='image'."
        )
    visual = set(prompt.visual) if columns == "text" else set()
    return tuple(position for position in range(len(prompt.tokens)) if position not in visual)


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
    other: Intervention | None = None,
    forward: Callable[[], Any] | None = None,
) -> "Recorder":
    """Replay the prompt with a recorder that keeps these rows and columns (all keys when None) of these layers.

    The prompt may be several copies in one batch (`models.batch.copies`), each with its own latent.

    Args:
        finite: whether what was captured must be finite.
        other: what else is done to the model.
        forward: what is run in the replay's place, with a latent of its own kind; the last tokens alone, say.

    Raises:
        CaptureError: for layers or heads out of range, or attention that cannot be reproduced.
        NotFiniteError: naming the first layer whose attention is not finite.
    """
    numbers = existing(layers, mllm.attention_layers, "Layers")
    modules = {module: layer for module, layer in mllm.attention_modules.items() if layer in numbers}
    kept_heads = None if heads is None else existing(heads, range(mllm.heads), "Heads")
    states = prompt.call.states
    total = states.shape[1] if mllm.family.site.in_sequence and not prompt.learned and states.dim() == 3 else None
    recorder = Recorder(modules.values(), kept_heads, rows, columns, total)
    replay(mllm, prompt, recorder, latent, modules, other, forward)
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


def replay(
    mllm: Mllm,
    prompt: Prompt,
    observer: Observer,
    latent: torch.Tensor | None,
    modules: Mapping[Any, int] | None = None,
    other: Intervention | None = None,
    forward: Callable[[], Any] | None = None,
) -> None:
    """Replay the prompt while attention modules show their calls to `observer`.

    Args:
        modules: those that do, with their layers' numbers; all that look at visual states when None.
        other: an intervention that is no latent, open meanwhile.
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
        nullcontext() if other is None else other.opened(mllm, prompt),
        observed(mllm, observer, modules),
        nullcontext() if small is None else _kept_small(mllm, prompt, small, modules, other),
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
        rows = call.rows([row - cached for row in self.rows], self.heads)
        self.captured[call.layer] = (
            rows if self.columns is None else rows[..., torch.tensor(self.columns, device=rows.device)]
        )
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
def _kept_small(
    mllm: Mllm, prompt: Prompt, recorder: Recorder, modules: Mapping[Any, int] | None, other: Intervention | None
) -> Iterator[None]:
    """While open, the layers before the last one asked for are checkpointed; that one ends the forward."""

    @restoring
    def again() -> Iterator[None]:
        # The same rows are computed, as autograd counts on it, and dropped: those of the first pass carry the gradient.
        second = Recorder(recorder.layers, recorder.heads, recorder.rows, recorder.columns, recorder.total)
        with (
            undisturbed(mllm.model, gradient=True),
            nullcontext() if other is None else other.opened(mllm, prompt),
            observed(mllm, second, modules),
        ):
            yield

    with checkpointed(mllm.family.layer_modules(mllm.model)[: recorder.layers[-1]], again):
        yield
