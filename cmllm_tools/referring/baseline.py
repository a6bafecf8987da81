"""What a model says by itself, and how far an outcome moves it: towards an answer, and away from its language."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ..attention.capture import capture_attention
from ..attention.context_map import context_map
from ..errors import SettingsError
from ..inputs.conversation import Conversation, Messages
from ..inputs.images import ImageSource
from ..inputs.regions import Regions
from ..models.answer import Answer
from ..models.interventions import Intervention
from ..models.look import Look
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..models.scoring import continuation
from ..models.undisturbed import locked
from ..strict import kind_of, several, shown
from .asked import Asked
from .cost import measured
from .outcome import Outcome, Sent
from .target import region_share

# Texts that have nothing to do with any picture; the first one is taken all of whose words the tokenizer knows.
UNRELATED = (
    "The committee met on Tuesday to discuss the budget, and nobody could agree on how much the new road would cost.",
    "there is nothing in the picture. what is it? it is a kind of object.",
)


@dataclass(frozen=True)
class Effect:
    """What an outcome, or nothing, does to a model's answer.

    Args:
        log_odds: for each candidate, ln p - ln (1 - p) of its probability p among the candidates.
        share: of the question's attention on the image, over all layers and heads, what lies in the regions; 0..1.
        damage: nats per token by which a text that has nothing to do with the picture is less likely than without.
        own_damage: the same of the model's own unsteered answer; it is also what a changed answer costs.

    Examples:
        >>> effect = cm.Baseline(mllm, scene.image, "describe the object.", candidates=two).effect(outcome)
        >>> 0 < effect.share < 1, len(effect.log_odds)
        (True, 2)
    """

    log_odds: tuple[float, ...]
    share: float
    damage: float
    own_damage: float


class Baseline:
    """What a model answers by itself, which outcomes for the same image and question are measured against.

    Args:
        mllm: the model.
        image: all that `read_image` takes, a `Look` of this model, or a conversation, as for `Mllm.prepare`.
        question: the user's words; `{place}` in them is left out. None of a conversation.
        candidates: answers whose log-odds are asked for: none, or two or more.
        text: that damage is measured on; of `UNRELATED` the first that the tokenizer knows when None.
        max_new_tokens: upper bound on the answer's length.

    Attributes:
        answer: the unsteered one.
        prompt: of image and question.
        cost: of prompt and answer.

    Raises:
        SettingsError: for one candidate alone, or what are no texts.
        PromptError, ImageError: as `Mllm.prepare` does.

    Examples:
        >>> baseline = cm.Baseline(mllm, scene.image, "describe the object.", candidates=two)
        >>> print(baseline.answer)
        blue zero at the center
        >>> baseline.effect(outcome).log_odds[0] > 0  # "red cross" is now the likelier of the two
        True
    """

    def __init__(
        self,
        mllm: Mllm,
        image: ImageSource | Look | Conversation | Messages,
        question: str | None,
        *,
        candidates: Sequence[str] = (),
        text: str | None = None,
        max_new_tokens: int = 64,
    ):
        require(mllm)
        self.mllm = mllm
        self.candidates = read_candidates(candidates)
        self.text = (
            known_text(mllm) if text is None else kind_of(text, str, "The text that damage is measured on must be one")
        )
        with measured(mllm.device) as self.cost:
            self.prompt: Prompt = Asked.of(image, question).named("").prepared(mllm)
            self.answer: Answer = mllm.generate(self.prompt, max_new_tokens=max_new_tokens)
        self._unsteered = self._likelihoods(self.prompt, None)

    @property
    def plain(self) -> tuple[float, float]:
        """Log-probability per token of the text unsteered, and that of one drawn by lot from the whole vocabulary."""
        vocabulary = self.mllm.model.get_input_embeddings().num_embeddings
        return self._unsteered[0].mean().item(), -math.log(vocabulary)

    @property
    def log_odds(self) -> tuple[float, ...]:
        """Log-odds of each candidate, unsteered."""
        return _odds_among(self._unsteered[2:])

    def unsteered(self, regions: Regions) -> Effect:
        """The effect of doing nothing, with the share of attention in these regions."""
        return self._effect(self.prompt, None, regions)

    def effect(self, outcome: Outcome) -> Effect:
        """What an outcome does, measured on what was sent.

        Raises:
            PromptError, CaptureError: for an outcome of another model.
        """
        return self._effect(self.prompt_of(outcome), outcome.intervention, outcome.sent.regions)

    def prompt_of(self, outcome: Outcome) -> Prompt:
        """What an outcome sent: this baseline's own prompt where that is the same.

        Raises:
            SettingsError: for what is no outcome.
        """
        kind_of(outcome, Outcome, "A baseline measures an Outcome, as refer(...) gives it")
        # The text has all of a conversation, of which the question is the last turn.
        same = outcome.sent.question == self.prompt.question and outcome.sent.text == self.prompt.text
        same = same and outcome.sent.image_hash == self._hash
        return self.prompt if same else outcome.prompt(self.mllm)

    @cached_property
    def _hash(self) -> str:
        return Sent.of(self.prompt.image, "", "", ()).image_hash

    @property
    def speaks(self) -> bool:
        """Whether the text is in a language of the model's: likelier than one drawn by lot."""
        return self.plain[0] >= self.plain[1]

    def moved(self, outcome: Outcome, speaks: bool | None = None) -> tuple[float, float]:
        """Change of the first candidate's log-odds against the others, and damage in nats per token.

        Damage is to the text. Of a model that does not speak its language it is to the candidates, all of which make sense:
        by how much they, together, get less likely, for each token of the first.

        Args:
            speaks: whether damage is to the text, so that it is to the same for all of a set; as `speaks` says when None.

        Raises:
            SettingsError: where there are no candidates, or for what is no outcome.
        """
        prompt, before = self.prompt_of(outcome), [each.sum().item() for each in self._unsteered[2:]]
        after = self._scores(prompt, outcome.intervention)
        if self.speaks if speaks is None else speaks:
            text = continuation(self.mllm, prompt, self.text, outcome.intervention)
            damage = (self._unsteered[0] - text).mean().item()
        else:
            lost = torch.tensor(before).logsumexp(0) - torch.tensor(after).logsumexp(0)
            damage = lost.item() / len(self._unsteered[2])
        return log_odds(after)[0] - log_odds(before)[0], damage

    def odds(self, outcome: Outcome | None = None) -> float:
        """Log-odds of the first candidate against the others, with an outcome or unsteered.

        Raises:
            SettingsError: where there are no candidates.
        """
        if outcome is not None:
            return self.odds_of(self.prompt_of(outcome), outcome.intervention)
        self._check_candidates()
        return self.log_odds[0]

    def odds_of(self, prompt: Prompt, intervention: Intervention | None) -> float:
        """The same for any prompt and intervention."""
        return log_odds(self._scores(prompt, intervention))[0]

    def _check_candidates(self) -> None:
        if not self.candidates:
            raise SettingsError("Log-odds need candidates; this baseline has none. Give two answers or more.")

    def _scores(self, prompt: Prompt, intervention: Intervention | None) -> list[float]:
        """Log-probability of each candidate."""
        self._check_candidates()
        return [continuation(self.mllm, prompt, each, intervention).sum().item() for each in self.candidates]

    def _effect(self, prompt: Prompt, intervention: Intervention | None, regions: Regions) -> Effect:
        likelihoods = (
            self._unsteered if intervention is None and prompt is self.prompt else self._likelihoods(prompt, intervention)
        )
        damage, own = (
            (before - after).mean().item() if len(before) else 0.0
            for before, after in zip(self._unsteered[:2], likelihoods[:2], strict=True)
        )
        share = attention_share(self.mllm, prompt, intervention, regions)
        return Effect(_odds_among(likelihoods[2:]), share, damage, own)

    def _likelihoods(self, prompt: Prompt, intervention: Intervention | None) -> list[torch.Tensor]:
        """Log-probabilities (token,) of the text, the unsteered answer and the candidates."""
        # An answer of nothing has no tokens to become less likely.
        texts = [self.text, self.answer, *self.candidates]
        return [continuation(self.mllm, prompt, each, intervention) if each else torch.zeros(0) for each in texts]


def attention_share(mllm: Mllm, prompt: Prompt, intervention: Intervention | None, regions: Regions) -> float:
    """Of the question's attention on the image, over all layers and heads, what lies in the regions; 0..1."""
    return region_share(context_map(capture_attention(mllm, prompt, latent=intervention)), regions)


def _odds_among(candidates: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """Log-odds of candidates, given the log-probability of each token of each."""
    return log_odds([each.sum().item() for each in candidates])


def log_odds(scores: Sequence[float]) -> tuple[float, ...]:
    """For each log-probability, how much more likely it is than all the others together: ln p_i - ln sum of the others."""
    values = torch.tensor(scores, dtype=torch.float64)
    others = [torch.cat([values[:at], values[at + 1 :]]).logsumexp(0).item() for at in range(len(values))]
    return tuple(score - other for score, other in zip(values.tolist(), others, strict=True))


def read_candidates(candidates: object) -> tuple[str, ...]:
    """None, or two or more different texts.

    Raises:
        SettingsError: for anything else.
    """
    found = several(candidates, "Candidates must be several answers, as ('a cat', 'a dog')")
    if len(found) == 1 or len(set(found)) < len(found) or not all(isinstance(each, str) and each.strip() for each in found):
        raise SettingsError(f"Candidates must be two or more different answers, or none; got {shown(list(found))}.")
    return found


def known_text(mllm: Mllm) -> str:
    """The first of `UNRELATED` all of whose words the model's tokenizer knows; the last when there is none."""
    tokenizer = mllm.processor.tokenizer
    with locked(tokenizer):
        unknown = getattr(tokenizer, "unk_token_id", None)
        for text in UNRELATED:
            if unknown is None or unknown not in tokenizer(text, add_special_tokens=False)["input_ids"]:
                return text
    return UNRELATED[-1]
