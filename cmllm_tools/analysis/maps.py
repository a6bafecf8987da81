"""Maps that follow attention through all layers: rollout, and gradient-weighted relevancy.

Both start from the row of a query token and multiply it by one (token, token) matrix for each layer, from the last to the
first, so that what a token heard from others counts for where these had looked themselves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..attention.context_map import ContextMap
from ..attention.observe import AttentionCall, Observer, observed
from ..attention.recorder import check_finite, replay
from ..errors import CaptureError, SettingsError
from ..models.batch import answer_tokens
from ..models.finite import check_logits
from ..models.gradient import computes_in_half
from ..models.gradient import gradients as gradients_of
from ..models.latent import Latent, read_latent
from ..models.latent_states import latent_added
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, Queries
from ..models.undisturbed import unaffected, undisturbed
from ..strict import number


@unaffected(gradient=False)
def rollout(
    mllm: Mllm,
    prompt: Prompt,
    queries: Queries = "text",
    *,
    residual: float = 0.5,
    latent: Latent | None = None,
) -> ContextMap:
    """Follow attention through all layers, as if heads were averaged and tokens mixed by their weights alone.

    The product over layers of `residual I + (1 - residual) A`, A being the mean over heads, rows summing to one (Abnar and
    Zuidema, arXiv 2005.00928, where residual = 0.5). Layers that mix tokens otherwise (convolutions, linear attention)
    count as passing them on.

    One replay. Memory is heads x tokens squared, for one layer at a time, beside the queries and keys of all.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        queries: which tokens' rows are averaged; see `Prompt.positions`.
        residual: weight of the residual connection, in [0, 1).
        latent: (visual token, width) added to the visual tokens, or a run that has one; see `Mllm.generate`.

    Returns:
        The map (visual token,): the share of the queries that comes from each; 1 minus their sum is from the other tokens.

    Raises:
        CaptureError: for a family whose visual states are not in the text's sequence, or attention that cannot be
            reproduced, or is not finite (NotFiniteError).
        PromptError: for queries that are not in the prompt.
        SettingsError: for a residual out of range.

    Examples:
        >>> cmap = cm.analysis.rollout(mllm, prompt, "last")
        >>> 0 < cmap.values.sum().item() < 1
        True
    """
    require(mllm, prompt)
    residual = number(residual, "residual", least=0)
    if residual >= 1:
        raise SettingsError(f"residual must be at least 0 and below 1; got {residual!r}.")
    _check_in_sequence(mllm)
    calls = _Calls(mllm, prompt)
    positions = prompt.positions(queries)
    replay(mllm, prompt, calls, None if latent is None else read_latent(latent, prompt.call).detach())
    rows = _rows(positions, prompt).mean(0)
    for made in calls.last_to_first():
        weights = made.weights().mean(0)
        # Attention sinks of the model's own take from what rows sum to.
        mixed = rows.to(weights) @ (weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny))
        rows = residual * rows.to(mixed) + (1 - residual) * mixed
    calls.check_finite(mllm, rows)
    return _map(rows, prompt, prompt.words(positions))


@unaffected(gradient=True)
def relevancy(
    mllm: Mllm, prompt: Prompt, answer: str | Sequence[int] | None = None, *, latent: Latent | None = None
) -> ContextMap:
    """Follow attention through all layers, weighted by what it does for one token of the answer.

    `R <- R + mean over heads of (A * dy/dA)^+ R` over the layers, y being the logit of the answer's first token (Chefer et
    al., arXiv 2103.15679, equations 5 and 6); the row of the prompt's last token, its own relevance left out, as shares of
    its sum. The gradient at the attention weights is that at the kernel's output times the values, so that no eager
    attention is needed.

    One forward of the whole model and one backward pass. Memory is that of all layers' activations, and heads x tokens
    squared twice, for one layer at a time.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: whose first token is explained; the model's most likely one when None.
        latent: (visual token, width) added to the visual tokens, or a run that has one; see `Mllm.generate`.

    Returns:
        The map (visual token,): each one's share of the relevance of all tokens; its words are the token explained.

    Raises:
        CaptureError: for a family whose visual states are not in the text's sequence, or attention that cannot be
            reproduced, or is not finite, or whose logits are not (NotFiniteError).
        PromptError: for an empty answer.

    Examples:
        >>> cmap = cm.analysis.relevancy(mllm, prompt)
        >>> cmap.words, f"{cm.region_share(cmap, box):.0%}"
        (('blue',), '10%')
    """
    require(mllm, prompt)
    prompt.check(mllm)
    _check_in_sequence(mllm)
    calls = _Calls(mllm, prompt)
    # Something has to require a gradient for a graph to be kept, as the model's own weights do not.
    start = prompt.zero_latent() if latent is None else read_latent(latent, prompt.call).detach().clone().requires_grad_()
    with (
        undisturbed(mllm.model, gradient=True),
        observed(mllm, calls),
        latent_added(prompt.call, start),
    ):
        logits = mllm.model(**prompt.inputs, use_cache=False).logits[0, -1]
    # Where attention is at fault, its layer is named.
    calls.check_finite(mllm, logits)
    check_logits(logits, mllm.model.dtype)
    token = int(logits.argmax()) if answer is None else answer_tokens(mllm, answer)[0]
    kept = list(calls.last_to_first())
    gradients = gradients_of(logits[token], [made.output for made in kept], computes_in_half(mllm.model))
    rows = _rows([len(prompt.tokens) - 1], prompt)[0]
    total = torch.zeros_like(rows)
    with unaffected(gradient=False):
        for made, gradient in zip(kept, gradients, strict=True):
            weights = made.weights()
            pull = gradient[0].transpose(0, 1).to(weights) @ made.call.head_values(weights).transpose(-1, -2)
            pulls = (pull * weights).clamp_min(0)
            heard = (rows + total).to(weights) @ pulls.mean(0)
            total = total.to(heard) + heard
    calls.check_finite(mllm, total)
    total = total / total.sum().clamp_min(torch.finfo(total.dtype).tiny)
    return _map(total, prompt, mllm.words([token]))


@dataclass(frozen=True, eq=False)
class _Made:
    """A layer's attention call, and what its kernel made of it; `padding` (token,) is True before the prompt."""

    call: AttentionCall
    output: torch.Tensor
    padding: torch.Tensor

    def weights(self) -> torch.Tensor:
        """(head, token, token)."""
        rows = self.call.rows(range(self.call.query.shape[2]))
        # Padding attends to nothing, and has no softmax.
        return rows.flatten(0, -3).masked_fill(self.padding.to(rows.device)[:, None], 0)


class _Calls(Observer):
    """Keeps the calls of all layers, whose rows are computed from them one layer at a time."""

    def __init__(self, mllm: Mllm, prompt: Prompt):
        self.layers = mllm.attention_layers
        self.calls: dict[int, _Made] = {}
        seen = prompt.inputs.get("attention_mask")
        self.padding = torch.zeros(len(prompt.tokens), dtype=torch.bool) if seen is None else seen[0] == 0

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        self.calls[call.layer] = _Made(call, output, self.padding)
        return output

    def last_to_first(self) -> Iterator[_Made]:
        missing = [layer for layer in self.layers if layer not in self.calls]
        if missing:
            raise CaptureError(f"Every layer must call transformers' attention interface; layers {missing} did not.")
        return (self.calls[layer] for layer in reversed(self.layers))

    def check_finite(self, mllm: Mllm, followed: torch.Tensor) -> None:
        """Refuse what was followed through all layers where it is not finite, and say in which layer that began."""
        if not followed.isfinite().all():
            with unaffected(gradient=False):
                for layer in self.layers:
                    check_finite(mllm, {layer: self.calls[layer].weights()})


def _check_in_sequence(mllm: Mllm) -> None:
    if mllm.family.beside:
        raise CaptureError(
            "Following attention through layers needs visual tokens in the text's own sequence; those of "
            f"{mllm.family.name} are seen by {mllm.family.way_in}. Use context_map, whose attention is of single layers."
        )


def _rows(positions: Any, prompt: Prompt) -> torch.Tensor:
    """(position, token): 1 at each position."""
    device = prompt.call.states.device
    return torch.eye(len(prompt.tokens), dtype=torch.float32, device=device)[torch.tensor(list(positions), device=device)]


def _map(rows: torch.Tensor, prompt: Prompt, words: tuple[str, ...]) -> ContextMap:
    return ContextMap(rows[torch.tensor(prompt.visual, device=rows.device)], prompt.layout, words, prompt.image)
