"""How likely an answer is, as a function of which visual tokens are there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from typing import Any, Literal

import torch
from PIL import Image

from ...errors import SettingsError
from ...models.gradient import computes_in_half
from ...models.mllm import Mllm, require
from ...models.prompt import MOST_COPIES, Prompt
from ...models.scoring import AnswerScore
from ...models.undisturbed import unaffected
from ...progress import progress_bar
from ...strict import shown, whole_number

BaselineStates = Literal["mean", "blank", "zero"] | torch.Tensor

# Copies of a prompt in one forward.
BATCH = 16
GREY = (128, 128, 128)


class PresenceScore:
    """Log-probability of an answer when each visual token is there to some degree.

    A token of presence m has the state `m e + (1 - m) b`: with 1 its own, e; with 0 the baseline's, b. Gradients with
    respect to m are those with respect to the states, times `e - b`, summed over the width. The vision encoder runs once
    for each number of copies. What a family adds to its layers beside the states (deepstack) stays as it is.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: whose log-probability is asked for, as text or token ids; the model's own answer when None.
        token: number of the answer's token to score alone, given those before it; all when None.
        against: another answer, whose log-probability is subtracted: what speaks for the one rather than the other.
        baseline: what stands in for a token that is not there: "mean", the mean of the visual states, which is like those
            that the model knows and takes no other image; "blank", the states of a grey image; "zero"; or states (visual
            token, width) or (width,).
        batch: copies in one forward; when None, BATCH, or 1 for a family whose batches are not kept apart.

    Raises:
        PromptError: for an empty answer.
        SettingsError: for a token that the answer does not have, a token together with `against`, or a baseline that is
            not one of these.
    """

    @unaffected(gradient=False)
    def __init__(
        self,
        mllm: Mllm,
        prompt: Prompt,
        answer: str | Sequence[int] | None = None,
        *,
        token: int | None = None,
        against: str | Sequence[int] | None = None,
        baseline: BaselineStates = "mean",
        batch: int | None = None,
    ):
        require(mllm, prompt)
        if token is not None and against is not None:
            raise SettingsError(
                "One token is scored alone, or the answer against another; give token or against, not both."
            )
        if batch is not None:
            batch = min(whole_number(batch, "The batch", least=1), MOST_COPIES)
        if token is not None:
            token = whole_number(token, "The token")
        self.batch = batch or (BATCH if mllm.family.batch else 1)
        self.half = computes_in_half(mllm.model)
        self.states = _wide(prompt)
        self.baseline = baseline_states(mllm, prompt, baseline)
        answers = [mllm.generate(prompt) if answer is None else answer, *([] if against is None else [against])]
        self._scores = [AnswerScore(mllm, prompt, each) for each in answers]
        self.answer = self._scores[0].answer
        words = mllm.words(self._scores[0].ids)
        if token is not None and not 0 <= token < len(words):
            raise SettingsError(f"The token must be one of the answer's, 0..{len(words) - 1} of {words}; got {token}.")
        self._token = token
        named = repr(self.answer) if token is None else f"{words[token]!r} in {self.answer!r}"
        self.target = f"log p({named})" if against is None else f"log p({named}) - log p({self._scores[1].answer!r})"
        self._shift: torch.Tensor | float = 0.0
        self._bar: Any = None

    def __repr__(self) -> str:
        return f"PresenceScore({self.target}: {len(self)} visual tokens)"

    def __len__(self) -> int:
        return len(self.states)

    def __call__(self, presence: torch.Tensor) -> torch.Tensor:
        """(copy,): the score for presences (copy, visual token), differentiable in them; `batch` copies at a time."""
        return torch.cat([self._batch(part) for part in presence.split(self.batch)])

    def _batch(self, presence: torch.Tensor) -> torch.Tensor:
        absence = (1 - presence.to(self.states))[..., None]
        latent = absence * (self.baseline - self.states - self._shift) + self._shift
        parts = []
        for score in self._scores:
            tokens = score.tokens(latent)
            parts.append(tokens.sum(-1) if self._token is None else tokens[:, self._token])
        if self._bar is not None:
            self._bar.update(len(latent))
        return parts[0] - parts[1] if len(parts) > 1 else parts[0]

    @cached_property
    def present(self) -> float:
        """The score of the prompt as it is."""
        return self._at(1.0)

    @cached_property
    def absent(self) -> float:
        """The score with every visual token at the baseline."""
        return self._at(0.0)

    def _at(self, presence: float) -> float:
        with unaffected(gradient=False):
            return self(self.states.new_full((1, len(self)), presence)).item()

    def moved(self, shift: torch.Tensor) -> "PresenceScore":
        """The same score with the visual states moved by `shift` (visual token, width), towards the same baseline."""
        other = copy(self)
        other._shift = shift.detach().to(self.states)
        for cached in ("present", "absent"):
            vars(other).pop(cached, None)
        return other

    @contextmanager
    def progress(self, total: int, label: str, shown: bool) -> Iterator[None]:
        """While open, a progress bar counts the copies that are scored."""
        with progress_bar(total=total, desc=label, leave=False, shown=shown) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None


def baseline_states(mllm: Mllm, prompt: Prompt, baseline: BaselineStates) -> torch.Tensor:
    """(visual token, width): the states that stand in for visual tokens that are not there.

    Raises:
        SettingsError: for a baseline that is not one of those, or of another shape.
    """
    states = _wide(prompt)
    if isinstance(baseline, torch.Tensor):
        if tuple(baseline.shape) not in (tuple(states.shape), tuple(states.shape[1:])):
            raise SettingsError(
                f"Baseline states must have shape (visual token, width) = {tuple(states.shape)} or (width,); "
                f"got {tuple(baseline.shape)}."
            )
        if not bool(torch.isfinite(baseline).all()):
            raise SettingsError("Baseline states must be finite; some of these are not.")
        return baseline.detach().to(states).expand_as(states)
    if not isinstance(baseline, str):
        raise SettingsError(f"A baseline must be 'mean', 'blank', 'zero' or a tensor of states; got {shown(baseline)}.")
    if baseline == "mean":
        return states.mean(0).expand_as(states)
    if baseline == "zero":
        return torch.zeros_like(states)
    if baseline != "blank":
        raise SettingsError(f"A baseline must be 'mean', 'blank', 'zero' or a tensor of states; got {shown(baseline)}.")
    blank = _wide(mllm.prepare(*prompt.showing(Image.new("RGB", prompt.image.size, GREY))))
    if blank.shape != states.shape:
        raise SettingsError(
            f"A blank image must give as many visual tokens as the prompt's, {len(states)}; it gave {len(blank)}. "
            "Prepare a blank image with the prompt's own processor options, and give its call's visual_states."
        )
    return blank


def _wide(prompt: Prompt) -> torch.Tensor:
    """The prompt's visual states, in float32 or wider."""
    states = prompt.call.visual_states
    return states.to(torch.promote_types(states.dtype, torch.float32))
