"""What is measured when something inside is changed: log-probability of an answer, or log-odds among candidates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ..errors import SettingsError
from ..models.answer import Answer
from ..models.batch import answer_of, answer_tokens
from ..models.interventions import Intervention
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..models.scoring import OWN_TOKENS
from ..referring.baseline import log_odds, read_candidates
from ..shown import Fact, Shown
from .runs import Open, Runs

LOG_ODDS, LOG_PROBABILITY = "log-odds", "log-probability"


@dataclass(frozen=True, eq=False, repr=False)
class Change(Shown):
    """What a change inside the model does to its answer.

    Args:
        what: was changed, in words.
        measure: "log-odds" of the first candidate against the others, or "log-probability" of the answer; in nats.
        answers: the answer, or the candidates.
        before, after: the measure without and with the change.
        intervention: the change, to answer with (`mllm.generate(prompt, ...)`), or capture attention under.

    Examples:
        >>> change = cm.causes.knockout(mllm, prompt, answer="red cross")
        >>> change.measure, change.difference < 0
        ('log-probability', True)
    """

    what: str
    measure: str
    answers: tuple[str, ...]
    before: float
    after: float
    intervention: Intervention = field(repr=False)

    @property
    def difference(self) -> float:
        """After less before, in nats."""
        return self.after - self.before

    def facts(self) -> list[Fact]:
        return [
            ("", self.what),
            (f"{self.measure} of", repr(self.answers[0])),
            *[("against", ", ".join(map(repr, self.answers[1:])))] * (len(self.answers) > 1),
            ("", f"{self.before:.3f} to {self.after:.3f} ({self.difference:+.3f} nats)"),
        ]


class MeasuredPrompt:
    """A prompt with the answers that changes are measured on.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: as for `AnswerScore`; the model's own, up to 32 tokens, when None. Not beside candidates.
        candidates: two answers or more.
        first: position of the first token that edits change.

    Attributes:
        measure: see `Change`.
        texts: the answer, or the candidates.
        before: the measure without an edit.
        runs: of each text.

    Raises:
        SettingsError: for an answer beside candidates, or one candidate alone.
        PromptError: for an answer without tokens.
    """

    def __init__(
        self,
        mllm: Mllm,
        prompt: Prompt,
        answer: str | Sequence[int] | None = None,
        candidates: Sequence[str] = (),
        first: int = 0,
    ):
        several = read_candidates(candidates)
        if several and answer is not None:
            raise SettingsError("What is measured is an answer or candidates; got both. Leave out the answer.")
        self.measure = LOG_ODDS if several else LOG_PROBABILITY
        given = several or (mllm.generate(prompt, max_new_tokens=OWN_TOKENS) if answer is None else answer,)
        self.texts: tuple[Answer, ...] = tuple(answer_of(mllm, each) for each in given)
        self.runs = [Runs(mllm, prompt, answer_tokens(mllm, each), first) for each in self.texts]
        self.before = self._measured([each.clean[None] for each in self.runs])[0]

    def __call__(
        self,
        copies: int,
        edit: Callable[[Runs], Open] | None = None,
        begin: int = 0,
        latent: torch.Tensor | None = None,
    ) -> list[float]:
        """The measure in each copy, with what `edit` makes for a text's runs; see `Runs`."""
        return self._measured([each(copies, None if edit is None else edit(each), begin, latent) for each in self.runs])

    def _measured(self, tokens: Sequence[torch.Tensor]) -> list[float]:
        """Of log-probabilities (copy, answer token) of each text."""
        sums = torch.stack([each.sum(-1).double().cpu() for each in tokens]).T.tolist()
        return [each[0] if len(each) == 1 else log_odds(each)[0] for each in sums]
