"""Prompt Highlighter: what is highlighted draws more attention, and is hidden from what the answer is decoded against."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from ..errors import CaptureError
from ..models.interrupts import restoring
from ..models.interventions import Intervention
from ..models.latent import as_numbers
from ..models.latent_states import latent_added
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..strict import number
from .bias import biased


@dataclass(frozen=True, eq=False)
class Highlight(Intervention):
    """Attention to some visual tokens is raised in one branch; in the other it is lowered, and they are scaled down.

    Prompt Highlighter (Zhang et al., CVPR 2024, arXiv 2312.04302) as its published code has it: all tokens look so, the
    image's own too; the logits of highlighted tokens have ln(activation) added in the branch that answers, and
    -(2 + ln(activation)) in the one that it is decoded against, where their embeddings are multiplied by `scale`.

    Args:
        weights: (visual token,), 0..1: how much each is highlighted; logits and scale change in proportion.
        activation: above 0.
        scale: what is left of a highlighted token in the other branch, 0..1.
        contrast: how the answer is decoded against the other branch; None decodes plainly.

    Raises:
        CaptureError: for weights that are none, or numbers out of range.
    """

    by_token: ClassVar[tuple[str, int] | None] = ("weights", 0)

    weights: torch.Tensor = field(repr=False)
    activation: float = 5.0
    scale: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = as_numbers(self.weights)
        if weights.dim() != 1 or not bool(((weights >= 0) & (weights <= 1)).all()):
            raise CaptureError(f"Weights must be one number in 0..1 for each visual token; got {tuple(weights.shape)}.")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "activation", number(self.activation, "activation", above=0, error=CaptureError))
        object.__setattr__(self, "scale", number(self.scale, "scale", 0, 1, error=CaptureError))

    def opened(self, mllm: Mllm, prompt: Prompt, copies: int = 1) -> AbstractContextManager[None]:
        raised = torch.log(torch.tensor(self.activation)).item()
        weights = self.weights.float()
        biases = torch.stack([raised * weights, *[-(2 + raised) * weights] * (copies - 1)])[:, None]
        attention = biased(mllm, prompt, biases, ((), None), everywhere=True)
        if copies == 1:
            return attention
        states = prompt.call.visual_states.detach()
        hidden = (self.scale - 1) * weights.to(states)[:, None] * states
        return _both(
            attention, latent_added(prompt.call, torch.stack([torch.zeros_like(hidden), *[hidden] * (copies - 1)]))
        )


@restoring
def _both(one: AbstractContextManager[None], other: AbstractContextManager[None]) -> Iterator[None]:
    with one, other:
        yield
