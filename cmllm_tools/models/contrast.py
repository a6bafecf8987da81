"""Contrastive decoding: an answer picked from two branches, one with what is done to the model and one without."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from transformers import LogitsProcessor, LogitsProcessorList

from ..errors import SettingsError
from ..strict import number


@dataclass(frozen=True)
class Contrast:
    """Contrastive decoding between logits with an intervention and without it (PromptDebias of ControlMLLM++).

    Each step picks from `(1 + alpha) * with - alpha * without`, among tokens whose logit with it is at least
    `max + log(beta)`. The paper's code does not spell the formula out; this is that of visual contrastive decoding
    (VCD, arXiv 2311.16922), which its argument names (cd_alpha, cd_beta) follow.

    Args:
        alpha: strength; 0 decodes plainly.
        beta: 0..1; 1 keeps the most likely token only, 0 keeps all.

    Raises:
        SettingsError: outside these ranges.

    Examples:
        >>> print(mllm.generate(prompt, cm.LatentAdded(trace.latent, contrast=cm.Contrast(alpha=0.5))))
        red cross at the right
    """

    alpha: float
    beta: float = 0.1

    def __post_init__(self) -> None:
        alpha, beta = (number(getattr(self, name), f"A contrast's {name}") for name in ("alpha", "beta"))
        if not alpha >= 0 or not 0 <= beta <= 1:
            raise SettingsError(f"Contrast needs alpha >= 0 and 0 <= beta <= 1; got alpha={self.alpha}, beta={self.beta}.")
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "beta", beta)

    def combine(
        self, steered: Float[torch.Tensor, " vocabulary"], plain: Float[torch.Tensor, " vocabulary"]
    ) -> Float[torch.Tensor, " vocabulary"]:
        """Scores (vocabulary,) from the two branches' logits (vocabulary,)."""
        combined = self.mixed(steered, plain)
        least = steered.max() + math.log(self.beta) if self.beta else torch.finfo(steered.dtype).min
        return combined.masked_fill(steered < least, float("-inf"))

    def mixed(
        self, steered: Float[torch.Tensor, "*token vocabulary"], plain: Float[torch.Tensor, "*token vocabulary"]
    ) -> Float[torch.Tensor, "*token vocabulary"]:
        """The same without the cut that leaves out implausible tokens."""
        combined = (1 + self.alpha) * steered - self.alpha * plain
        # What one branch rules out, as models rule out tokens that stand for an image, has no difference.
        return combined.masked_fill(torch.isneginf(steered), float("-inf"))


class ContrastRows(LogitsProcessor):
    """Row 0 of the batch is steered, row 1 is not; both go on with the contrast's choice.

    The caller's own processors see one row, as without a contrast: the scores that it combines.
    """

    def __init__(self, contrast: Contrast, theirs: LogitsProcessorList):
        self.contrast, self.theirs = contrast, theirs

    def __call__(
        self, input_ids: Int[torch.Tensor, "2 token"], scores: Float[torch.Tensor, "2 vocabulary"]
    ) -> Float[torch.Tensor, "2 vocabulary"]:
        combined = self.contrast.combine(scores[0], scores[1])[None]
        result: torch.Tensor = self.theirs(input_ids[:1], combined).expand_as(scores)
        return result


class FirstRow:
    """Hands a streamer, which takes one answer, the first of the pair."""

    def __init__(self, streamer: Any):
        self.streamer = streamer

    def put(self, value: torch.Tensor) -> None:
        self.streamer.put(value[:1])

    def end(self) -> None:
        self.streamer.end()
