"""What is said where a model's own numbers are not finite: attention, and logits, of which answers are made."""

import torch
from transformers import LogitsProcessor

from ..errors import NotFiniteError


def not_finite(what: str, dtype: torch.dtype) -> NotFiniteError:
    """The error, with what to do in a model of this dtype."""
    advice = (
        "Values above 65504 overflow in float16: load the model in bfloat16 or float32 (cm.load(..., dtype=torch.bfloat16))"
        if dtype == torch.float16
        else "The model's weights, or the latent that was given, hold values that are too large or not finite"
    )
    return NotFiniteError(f"{what} (dtype {dtype}). {advice}.")


def check_logits(logits: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Logits (..., vocabulary), unchanged. Tokens that a model rules out may be -inf.

    Raises:
        NotFiniteError: where some are NaN or +inf, of which no token is the most likely one.
    """
    # The largest is NaN where any is.
    if not bool(torch.isfinite(logits.detach().amax(-1)).all()):
        raise not_finite("The model's logits must be finite, as they say which token comes next; they are not", dtype)
    return logits


class Finite(LogitsProcessor):
    """Refuses logits that are not finite, which transformers would make an empty answer of, or the first token's."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return check_logits(scores, self.dtype)
