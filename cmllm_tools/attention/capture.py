"""Capture attention from chosen text tokens to the visual tokens, per layer and head, differentiable in the latent."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch

from ..errors import CaptureError
from ..models.changing import ChosenBy
from ..models.interventions import Intervention
from ..models.latent import Latent, read_latent_or_other
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, Queries
from ..models.undisturbed import unaffected
from ..notation import layers_text, number_ranges
from ..shown import Fact, Shown
from ..strict import one_of
from .context_token import ContextToken
from .heads import Heads
from .recorder import capture


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
    meanwhile = nullcontext if other is None else partial(other.opened, mllm, prompt)
    recorder = capture(mllm, prompt, rows.layers, wanted, rows.queries, seen, values, meanwhile=meanwhile)
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
    if mllm.family.beside:
        raise CaptureError(
            f"Attention to text is known where visual tokens are part of its sequence; in {mllm.family.name} they are not "
            f"({mllm.family.way_in}). Capture with columns='image'."
        )
    visual = set(prompt.visual) if columns == "text" else set()
    return tuple(position for position in range(len(prompt.tokens)) if position not in visual)
