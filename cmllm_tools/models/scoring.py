"""How likely a model finds an answer, as a function of the latent on the visual tokens."""

import inspect
from collections.abc import Sequence

import torch
from jaxtyping import Float

from ..errors import CaptureError
from ..strict import flag
from .batch import Copies, answer_of, answer_tokens, followed_by
from .finite import check_logits
from .latent import as_numbers
from .mllm import Mllm, require
from .prompt import Prompt
from .undisturbed import unaffected, undisturbed


class AnswerScore:
    """Log-probability of an answer to a prompt, differentiable in the latent; the vision encoder is not run again for each.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: whose tokens are scored, one after another, each given those before it: a text, token ids, or what
            `Mllm.generate` gave, whose tokens are known.

    Raises:
        PromptError: for an empty answer, or a prompt of another model.
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
        model, answered, length = self.mllm.model, self._copies.of(len(latent)), len(self.ids)
        encoder_decoder = model.config.is_encoder_decoder
        # The logits of a whole prompt of a large vocabulary would be most of the memory.
        fewer = not encoder_decoder and "logits_to_keep" in inspect.signature(model.forward).parameters
        options = {"logits_to_keep": length + 1} if fewer else {}
        gradient = latent.requires_grad and torch.is_grad_enabled()
        with undisturbed(model, gradient), answered.call.resumed(latent):
            logits = model(**answered.inputs, use_cache=False, **options).logits
        with unaffected(gradient):
            logits = logits[:, :length] if encoder_decoder else logits[:, -length - 1 : -1]
            if finite:
                check_logits(logits, model.dtype)
            ids = torch.tensor(self.ids, device=logits.device).expand(len(latent), -1)
            wide = torch.promote_types(logits.dtype, torch.float32)
            logits = logits.to(wide)
            result: torch.Tensor = logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)
            return result
