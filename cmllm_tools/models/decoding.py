"""Answers: greedy or beam search with a latent on the visual tokens, and contrastive decoding."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from ..errors import SettingsError
from ..strict import number
from .prompt import Prompt
from .replay import latent_added, undisturbed


@dataclass(frozen=True)
class Contrast:
    """Contrastive decoding between logits with the latent and without it (PromptDebias of ControlMLLM++).

    Each step picks from `(1 + alpha) * with - alpha * without`, among tokens whose logit with the latent is at least
    `max + log(beta)`. The paper's code does not spell the formula out; this is that of visual contrastive decoding
    (VCD, arXiv 2311.16922), which its argument names (cd_alpha, cd_beta) follow.

    Args:
        alpha: strength; 0 decodes plainly.
        beta: in (0, 1]; 1 keeps the most likely token only.

    Raises:
        SettingsError: outside these ranges.
    """

    alpha: float
    beta: float = 0.1

    def __post_init__(self) -> None:
        alpha, beta = number(self.alpha, "alpha of a contrast"), number(self.beta, "beta of a contrast")
        if not alpha >= 0 or not 0 < beta <= 1:
            raise SettingsError(f"Contrast needs alpha >= 0 and 0 < beta <= 1; got alpha={self.alpha}, beta={self.beta}.")

    def combine(self, steered: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        """Scores (vocabulary,) from the two branches' logits (vocabulary,)."""
        combined = (1 + self.alpha) * steered - self.alpha * plain
        implausible = steered < steered.max() + torch.log(torch.tensor(self.beta))
        return combined.masked_fill(implausible, float("-inf"))


class _ContrastRows(LogitsProcessor):
    """Row 0 of the batch carries the latent, row 1 does not; both go on with the contrast's choice."""

    def __init__(self, contrast: Contrast):
        self.contrast = contrast

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self.contrast.combine(scores[0], scores[1]).expand_as(scores)


def generate(
    model: Any,
    processor: Any,
    prompt: Prompt,
    latent: torch.Tensor | None,
    contrast: Contrast | None,
    **options: Any,
) -> str:
    """The model's answer to a prompt; see `Mllm.generate`."""
    inputs = prompt.inputs
    # Whatever the checkpoint's generation config says: answers before and after steering must be comparable.
    options = {"do_sample": False, "num_beams": 1} | options
    if contrast is not None and contrast.alpha > 0 and latent is not None:
        if options["num_beams"] != 1 or options["do_sample"]:
            raise SettingsError("Contrastive decoding is greedy: leave out num_beams and do_sample, or the contrast.")
        # The pair is one batch, so that both branches share every step.
        inputs, latent = prompt.repeated(2), torch.stack([latent, torch.zeros_like(latent)])
        options = options | {"logits_processor": LogitsProcessorList([_ContrastRows(contrast)])}
    if latent is not None:
        latent = latent.detach()
    with torch.no_grad(), undisturbed(model), latent_added(prompt.call, latent):
        output = model.generate(**inputs, **options)
    # An encoder's prompt is no part of what its decoder says.
    new = output[0] if model.config.is_encoder_decoder else output[0, prompt.inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(new, skip_special_tokens=True).strip()
