"""A prompt and what is said after it, run in several edited copies: only what an edit can change is computed again.

What stands before the first token that is edited does not depend on it in a causal decoder: its keys and values are kept.
Nor do the layers before the first that is edited: what they gave is given again. Whether that holds for a model is found
out, not believed; where it does not, copies run whole.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float

from ..models.batch import Copies, followed_by
from ..models.finite import check_logits
from ..models.hooks import given_again
from ..models.interrupts import restoring
from ..models.mllm import Mllm
from ..models.prefix import Prefix, continued_answer, prefilled, prefix_or_none
from ..models.prompt import Prompt
from ..models.residual import given, kept_outputs, states_of, with_states
from ..models.scoring import answer_logits, picked
from ..models.undisturbed import undisturbed

# Largest difference of the answer's log-probabilities between what is kept and a whole forward, in nats: rounding, in the
# model's dtype, is below this.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}

# Opens, while copies are run, what edits each of them in its way.
Open = Callable[[], AbstractContextManager[Any]]


class Runs:
    """One prompt followed by an answer.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        ids: the answer's tokens.
        first: position of the first token that edits change.

    Attributes:
        answered: the prompt with the answer after it.
        clean: (answer token,), log-probability of each without an edit.

    Raises:
        PromptError: for a prompt of another model.
        NotFiniteError: for logits that are not finite.
    """

    def __init__(self, mllm: Mllm, prompt: Prompt, ids: Sequence[int], first: int = 0):
        self.mllm, self.ids = mllm, list(ids)
        self.answered = followed_by(mllm, prompt, ids)
        self._copies = Copies(mllm, self.answered, keep_before=True)
        self.layers = mllm.family.layer_modules(mllm.model)
        kept = prefix_or_none(mllm, prompt) is not None
        self._prefix: Prefix | None = None
        if kept and first >= prompt.image_end:
            self._prefix = prefilled(mllm, self.answered, first)
        self.clean = self._forward(1)[0]
        self._skips = kept

    def __call__(
        self,
        copies: int,
        edit: Open | None = None,
        begin: int = 0,
        latent: Float[torch.Tensor, "copy visual width"] | None = None,
    ) -> Float[torch.Tensor, "copy token"]:
        """(copy, answer token): log-probability of each token of the answer in each edited copy.

        Args:
            copies: how many.
            edit: what is done to them.
            begin: number of the first layer that is edited.
            latent: what is added to the visual tokens of each copy, where all of the sequence is run.

        Raises:
            NotFiniteError: for logits that are not finite.
        """
        return self._forward(copies, edit, begin if begin and self._skips and self._may_skip else 0, latent)

    @cached_property
    def outputs(self) -> dict[int, Any]:
        """What each layer gives without an edit, of the tokens that are run."""
        found: dict[int, Any] = {}

        @restoring
        def keeping() -> Iterator[None]:
            with kept_outputs(self.layers) as outputs:
                yield
            found.update(outputs)

        self._forward(1, keeping)
        return found

    @cached_property
    def _may_skip(self) -> bool:
        """Whether the last layer, given what the ones before it gave, comes to what a whole forward does."""
        off = (self._forward(1, None, len(self.layers) - 1)[0] - self.clean).abs().max().item()
        return off <= ROUNDING.get(self.mllm.model.dtype, 0.05)

    def _forward(
        self, copies: int, edit: Open | None = None, begin: int = 0, latent: torch.Tensor | None = None
    ) -> Float[torch.Tensor, "copy token"]:
        outputs = {number: self.outputs[number] for number in range(begin)}
        logits = self.logits(copies, edit, outputs, len(self.ids), latent)
        check_logits(logits, self.mllm.model.dtype)
        return picked(logits, self.ids)

    def logits(
        self,
        copies: int,
        edit: Open | None,
        outputs: dict[int, Any],
        length: int | None,
        latent: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (copy, token, vocabulary) of the answer's last `length` tokens, or of all of the sequence when None.

        Args:
            outputs: what layers give in place of what they would compute, by their numbers.
        """
        answered = self._copies.of(copies)
        skipped = {self.layers[number]: [output] for number, output in _given(outputs, copies).items()}
        with ExitStack() as opened:
            opened.enter_context(undisturbed(self.mllm.model))
            if self._prefix is None:
                opened.enter_context(answered.call.resumed(latent))
            else:
                opened.enter_context(given_again(answered.call.before))
                wide = [
                    (key.expand(copies, -1, -1, -1), value.expand(copies, -1, -1, -1)) for key, value in self._prefix.layers
                ]
                opened.enter_context(continued_answer(self._prefix, lambda: wide))
            opened.enter_context(given_again(skipped))
            if edit is not None:
                opened.enter_context(edit())
            return answer_logits(self.mllm, answered.inputs, length)


def _given(outputs: dict[int, Any], copies: int) -> dict[int, Any]:
    """What layers gave of one prompt, for several copies of it.

    Where the next layer is skipped too, nothing reads the states: these layers share a place that may be written into.
    """
    unread = [number for number in outputs if number + 1 in outputs]
    shared = states_of(outputs[unread[0]]).expand(copies, -1, -1).clone() if unread else None
    return {
        number: given(output, copies) if shared is None or number not in unread else with_states(output, shared)
        for number, output in outputs.items()
    }
