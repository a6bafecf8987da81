"""A quick look whether what this package assumes of a model holds (after nnterp's checks at load)."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..errors import CmllmError, UnsupportedModelError
from ..models.finite import check_logits
from ..models.latent_states import latent_added
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..models.undisturbed import unaffected, undisturbed
from ..shown import Fact, Shown
from .recorder import capture, kernel_errors

IMAGE_SIZE = (160, 120)
QUESTION = "what is this?"
# Rows times values may miss the kernel's output by this share of the largest value in half precision.
TOLERANCE = 3e-2
LEAST_CHANGE = 1e-6


@dataclass(frozen=True, repr=False)
class SelfCheck(Shown):
    """What a model was checked for, and found to keep.

    Args:
        model: its name and family.
        layers: how many layers were captured.
        off: the largest error of the captured rows against the model's own kernel, as a share of its largest value.
        attention: the largest change of attention to a visual token by a latent, 0..1.
        logits: the largest change of the answer's first logits by it, as a share of the largest of them.
    """

    model: str
    layers: int
    off: float
    attention: float
    logits: float

    def facts(self) -> list[Fact]:
        return [
            ("passed by", self.model),
            ("captured rows", f"off the kernel's by at most {self.off:.1g} in {self.layers} layers"),
            ("a latent changes attention by", f"{self.attention:.1g}"),
            ("and logits by", f"{self.logits:.1%} of the largest"),
        ]


@unaffected(gradient=False)
def self_check(mllm: Mllm) -> SelfCheck:
    """Prepare a small image and check what every step rests on, with four forwards of the model.

    Every layer that should look at visual tokens calls transformers' attention interface; the rows that are computed beside
    its kernel, multiplied with the values, give what the kernel gave; a latent on the visual tokens changes both the
    attention to them and the answer's logits.

    Returns:
        What was measured.

    Raises:
        UnsupportedModelError: naming the assumption that does not hold.

    Examples:
        >>> checked = cm.self_check(mllm)
        >>> checked
        SelfCheck(passed by embedded (llava), captured rows off the kernel's by at most ...)
    """
    require(mllm)
    noise = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE[1], IMAGE_SIZE[0], 3), np.uint8)
    try:
        prompt = mllm.prepare(Image.fromarray(noise), QUESTION)
        rows = prompt.positions("text")
        errors = kernel_errors(mllm, prompt, rows)
        captured = capture(mllm, prompt, mllm.attention_layers, None, rows, None).captured
        states = prompt.call.visual_states
        latent = (
            torch.randn(states.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(states)
            * states.float().std()
        )
        moved = capture(mllm, prompt, mllm.attention_layers, None, rows, None, latent.float()).captured
    except CmllmError as error:
        raise UnsupportedModelError(f"{mllm.name} fails the self-check: {error}") from error
    columns = list(prompt.visual)
    for layer, weights in captured.items():
        _must(
            mllm,
            tuple(weights.shape[:3]) == (1, mllm.heads, len(rows)) and weights.shape[3] > max(columns),
            f"layer {layer} must have weights of {mllm.heads} heads x {len(rows)} queries x more than {max(columns)} keys; "
            f"got {tuple(weights.shape)}",
        )
        _must(
            mllm,
            errors[layer] < TOLERANCE,
            f"attention of layer {layer} must give what the model's own kernel draws; it is off by {errors[layer]:.3g}",
        )
    change = max((moved[layer] - captured[layer])[..., columns].abs().max().item() for layer in captured)
    _must(mllm, change > LEAST_CHANGE, "a latent on the visual tokens must change the attention to them; it does not")
    heard = _logits_moved(mllm, prompt, latent)
    _must(mllm, heard > LEAST_CHANGE, "a latent on the visual tokens must change the logits; it does not")
    name = f"{mllm.name} ({mllm.family.name})"
    return SelfCheck(name, len(captured), max(errors[layer] for layer in captured), change, heard)


def _logits_moved(mllm: Mllm, prompt: Prompt, latent: torch.Tensor) -> float:
    """Largest change of the next token's logits, as a share of the largest of them."""
    logits = []
    for each in (None, latent.float()):
        with undisturbed(mllm.model), latent_added(prompt.call, each):
            heard = mllm.model(**prompt.inputs, use_cache=False).logits[:, -1]
            logits.append(check_logits(heard, mllm.model.dtype))
    return (logits[0] - logits[1]).abs().max().item() / max(logits[0].abs().max().item(), 1e-30)


def _must(mllm: Mllm, holds: bool, assumption: str) -> None:
    if not holds:
        raise UnsupportedModelError(
            f"{mllm.name} ({mllm.family.name}) fails the self-check: {assumption}. Its maps would be wrong."
        )
