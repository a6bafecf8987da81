"""How likely a model finds an answer: as a function of the latent on the visual tokens, or under an intervention."""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float

from ..errors import CaptureError, SettingsError
from ..strict import flag
from .batch import Copies, answer_of, answer_tokens, followed_by
from .decoding import read_contrast
from .finite import check_logits
from .interventions import Intervention
from .latent import Latent, as_numbers, read_intervention
from .mllm import Mllm, require
from .prompt import Prompt
from .together import opened_each, placed_each, rows_of
from .undisturbed import unaffected, undisturbed

# Of the model's own answer so many tokens are scored: of a long one its beginning is enough.
OWN_TOKENS = 32


class AnswerScore:
    """Log-probability of an answer to a prompt, differentiable in the latent; the vision encoder is not run again for each.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: whose tokens are scored, one after another, each given those before it: a text, token ids, or what
            `Mllm.generate` gave, whose tokens are known.

    Raises:
        PromptError: for an empty answer, or a prompt of another model.

    Examples:
        >>> score = cm.AnswerScore(mllm, prompt, "red cross")
        >>> with_latent = score(trace.latent[None]).item()  # a log-probability
        >>> with_latent > score(0 * trace.latent[None]).item()
        True
    """

    def __init__(self, mllm: Mllm, prompt: Prompt, answer: str | Sequence[int]):
        require(mllm, prompt)
        self.mllm, self.answer = mllm, answer_of(mllm, answer)
        self.ids = answer_tokens(mllm, self.answer)
        self._prompt = prompt
        self._copies = Copies(mllm, followed_by(mllm, prompt, self.ids), keep_before=True)

    def __repr__(self) -> str:
        return f"AnswerScore({self.answer!r}: {len(self.ids)} tokens)"

    def __call__(
        self, latent: Float[torch.Tensor, "copy visual width"], finite: bool = True
    ) -> Float[torch.Tensor, " copy"]:
        """(copy,): log-probability of the whole answer; see `tokens`."""
        return self.tokens(latent, finite).sum(-1)

    def tokens(
        self, latent: Float[torch.Tensor, "copy visual width"], finite: bool = True
    ) -> Float[torch.Tensor, "copy token"]:
        """(copy, answer token): log-probability of each token of the answer.

        Args:
            latent: (copy, visual token, width).
            finite: whether the logits must be; nan where they need not and are not.

        Raises:
            NotFiniteError: for logits that are not finite.
            SettingsError: for several copies with a family whose batches are not kept apart.
            CaptureError: for a latent of another shape.
        """
        finite, latent = flag(finite, "finite"), as_numbers(latent)
        if latent.dim() != 3 or not len(latent):
            raise CaptureError(
                f"A score needs latents (copy, visual token, width), one or more; got shape {tuple(latent.shape)}. "
                "Give latent[None] for one."
            )
        self._prompt.check(self.mllm, replayed=True)
        answered = self._copies.of(len(latent))
        gradient = latent.requires_grad and torch.is_grad_enabled()
        with undisturbed(self.mllm.model, gradient), answered.call.resumed(latent):
            logits = answer_logits(self.mllm, answered.inputs, len(self.ids))
        with unaffected(gradient):
            if finite:
                check_logits(logits, self.mllm.model.dtype)
            return picked(logits, self.ids)


@unaffected(gradient=False)
def continuation(
    mllm: Mllm, prompt: Prompt, answer: str | Sequence[int], intervention: Intervention | Latent | None = None
) -> Float[torch.Tensor, " token"]:
    """Log-probability of each token of a continuation of the prompt, with what an intervention does to the model: (token,).

    Where the intervention is decoded against something else, these are the probabilities that tokens are picked by, without
    the cut that leaves out implausible ones, as those would have none.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: as for `AnswerScore`.
        intervention: as for `Mllm.generate`.

    Raises:
        PromptError: for an empty answer, or a prompt of another model.
        CaptureError: for an intervention that does not fit the prompt.
        NotFiniteError: for logits that are not finite.
        SettingsError: for a contrast with a family that cannot decode with one.
    """
    require(mllm, prompt)
    ids = answer_tokens(mllm, answer_of(mllm, answer))
    found = read_intervention(intervention, prompt.call)
    contrast = read_contrast(None, found)
    if contrast is not None and not mllm.family.contrast:
        raise SettingsError(f"{mllm.family.name} cannot decode with a contrast (see `cmllm families`); give contrast=0.")
    answered, copies = followed_by(mllm, prompt, ids), 1 if contrast is None else 2
    inputs = answered.inputs if found is None else found.inputs(mllm, answered, copies)
    opened = nullcontext() if found is None else found.opened(mllm, answered, copies)
    with undisturbed(mllm.model), opened:
        logits = answer_logits(mllm, inputs, len(ids))
    check_logits(logits, mllm.model.dtype)
    if contrast is not None:
        logits = contrast.mixed(*logits.float())[None]
    return picked(logits, ids)[0]


@unaffected(gradient=False)
def continuations(
    mllm: Mllm, prompt: Prompt, answer: str | Sequence[int], interventions: Sequence[Intervention | None]
) -> Float[torch.Tensor, "intervention token"]:
    """`continuation` under each of several interventions: (intervention, token); in one batch where they can be.

    Args and errors are those of `continuation`.
    """
    require(mllm, prompt)
    ids = answer_tokens(mllm, answer_of(mllm, answer))
    answered = followed_by(mllm, prompt, ids)
    opened = opened_each(mllm, answered, interventions)
    if opened is None:
        return torch.stack([continuation(mllm, prompt, answer, each) for each in interventions])
    states, mask = rows_of(answered, len(interventions))
    placed = placed_each([answered] * len(states), 0, states.shape[1])
    with undisturbed(mllm.model), placed, opened:
        logits = answer_logits(mllm, {"inputs_embeds": states, "attention_mask": mask}, len(ids))
    check_logits(logits, mllm.model.dtype)
    return picked(logits, ids)


def answer_logits(
    mllm: Mllm, inputs: dict[str, torch.Tensor], length: int | None
) -> Float[torch.Tensor, "copy token vocabulary"]:
    """Logits that an answer of this length, which the inputs end with, is picked by; of every token when None."""
    model = mllm.model
    if length is None:
        every: torch.Tensor = model(**inputs, use_cache=False).logits
        return every
    encoder_decoder = model.config.is_encoder_decoder
    # The logits of a whole prompt of a large vocabulary would be most of the memory.
    fewer = not encoder_decoder and "logits_to_keep" in inspect.signature(model.forward).parameters
    logits = model(**inputs, use_cache=False, **({"logits_to_keep": length + 1} if fewer else {})).logits
    result: torch.Tensor = logits[:, :length] if encoder_decoder else logits[:, -length - 1 : -1]
    return result


def picked(logits: Float[torch.Tensor, "copy token vocabulary"], ids: Sequence[int]) -> Float[torch.Tensor, "copy token"]:
    """Log-probabilities of these tokens, float32 or wider."""
    chosen = torch.tensor(list(ids), device=logits.device).expand(len(logits), -1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    result: torch.Tensor = logits.gather(-1, chosen[..., None])[..., 0] - logits.logsumexp(-1)
    return result
