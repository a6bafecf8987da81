"""What is said where a model's own numbers are not finite: attention, and logits, of which answers are made."""

import torch
from transformers import LogitsProcessor

from ..errors import NotFiniteError, SettingsError
from ..strict import shown


def not_finite(what: str, dtype: torch.dtype) -> NotFiniteError:
    """The error, with what to do in a model of this dtype."""
    advice = (
        "Values above 65504 overflow in float16: load the model in bfloat16 or float32 (cm.load(..., dtype=torch.bfloat16))"
        if dtype == torch.float16
        else "The model's weights, or the latent that was given, hold values that are too large or not finite"
    )
    return NotFiniteError(f"{what} (dtype {dtype}). {advice}.")


def finite_runs(values: torch.Tensor) -> torch.Tensor:
    """(run,): whether all values (run, ...) of each run are finite.

    A sum is one pass where a look at each value takes five, and is finite only of finite values; where it is not, as a sum
    may overflow itself, each value is looked at.
    """
    flat = values.detach().flatten(1)
    quick = flat.sum(1, dtype=torch.promote_types(flat.dtype, torch.float32)).isfinite()
    return quick if bool(quick.all()) else flat.isfinite().all(1)


def all_finite(values: torch.Tensor) -> bool:
    """Whether all values are finite."""
    return bool(finite_runs(values[None, None]))


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
        self.dtype, self.shape = dtype, torch.Size()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.shape = scores.shape
        return check_logits(scores, self.dtype)


class OfAllTokens(LogitsProcessor):
    """Refuses what a caller's processors made of other tokens' scores, or of none: an answer of other words."""

    def __init__(self, first: Finite):
        self.first = first

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not torch.is_tensor(scores) or scores.shape != self.first.shape:
            found = f"shape {tuple(scores.shape)}" if torch.is_tensor(scores) else shown(scores)
            raise SettingsError(
                f"A logits_processor must give back scores of the shape that it is given, {tuple(self.first.shape)}; "
                f"got {found}."
            )
        return scores
