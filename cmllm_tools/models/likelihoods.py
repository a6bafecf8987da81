"""How likely each token was when it was said, while an answer is generated."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import GenerationMixin, StoppingCriteria

from .contrast import Contrast
from .hooks import in_this_use, modules_of
from .interrupts import restoring


class Likelihoods(StoppingCriteria):
    """Keeps the log-probability of each token as it is chosen, by the model's own logits; ends no answer.

    It is told each token as transformers tells what may end an answer. The logits are those that the model gives, as
    processors are given what penalties and bans have changed already; of one step at a time, as all of a long answer would
    take gigabytes.

    Args:
        model: that generates the answers.
        contrast: how the first two rows of the batch are put together to one answer; None where each row is one.
        answers: how many.
    """

    def __init__(self, model: Any, contrast: Contrast | None = None, answers: int = 1):
        self._model, self._contrast, self._answers = model, contrast, answers
        self._logits: torch.Tensor | None = None
        self._found: list[torch.Tensor] = []

    @restoring
    def heard(self) -> Iterator[None]:
        """While open, the model's forwards are listened to."""

        @in_this_use
        def keep(module: Any, arguments: Any, output: Any) -> None:
            if torch.is_tensor(logits := getattr(output, "logits", None)):
                self._logits = logits[: self._answers if self._contrast is None else 2, -1].detach()

        # A model may hand the whole of an answer on to its language model, which says nothing of it to the outer one.
        handles = [
            each.register_forward_hook(keep) for each in modules_of(self._model) if isinstance(each, GenerationMixin)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        if self._logits is not None:
            logits = self._logits.to(torch.promote_types(self._logits.dtype, torch.float32))
            rows = logits if self._contrast is None else self._contrast.mixed(logits[0], logits[1])[None]
            chosen = rows.gather(-1, input_ids[: self._answers, -1:].to(rows.device))
            self._found.append((chosen[:, 0] - rows.logsumexp(-1)).cpu())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def found(self) -> list[list[float]]:
        """Of each answer, of each token that was told."""
        return torch.stack(self._found, -1).tolist() if self._found else [[]] * self._answers
