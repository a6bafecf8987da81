"""Answers: greedy or beam search with a latent on the visual tokens, and contrastive decoding."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StopStringCriteria

from ..errors import PromptError, SettingsError
from ..strict import number, shown
from .answer import Answer, said
from .family import Family
from .finite import check_logits
from .latent import Latent, Steered, read_latent
from .options import LAST_ID, read_options, unread_named
from .prompt import Prompt
from .replay import latent_added
from .undisturbed import locked, undisturbed


@dataclass(frozen=True)
class Contrast:
    """Contrastive decoding between logits with the latent and without it (PromptDebias of ControlMLLM++).

    Each step picks from `(1 + alpha) * with - alpha * without`, among tokens whose logit with the latent is at least
    `max + log(beta)`. The paper's code does not spell the formula out; this is that of visual contrastive decoding
    (VCD, arXiv 2311.16922), which its argument names (cd_alpha, cd_beta) follow.

    Args:
        alpha: strength; 0 decodes plainly.
        beta: in (0, 1]; 1 keeps the most likely token only.

    Raises:
        SettingsError: outside these ranges.
    """

    alpha: float
    beta: float = 0.1

    def __post_init__(self) -> None:
        alpha, beta = (number(getattr(self, name), f"A contrast's {name}") for name in ("alpha", "beta"))
        if not alpha >= 0 or not 0 < beta <= 1:
            raise SettingsError(f"Contrast needs alpha >= 0 and 0 < beta <= 1; got alpha={self.alpha}, beta={self.beta}.")
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "beta", beta)

    def combine(self, steered: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        """Scores (vocabulary,) from the two branches' logits (vocabulary,)."""
        combined = (1 + self.alpha) * steered - self.alpha * plain
        implausible = steered < steered.max() + torch.log(torch.tensor(self.beta))
        return combined.masked_fill(implausible, float("-inf"))


class _Finite(LogitsProcessor):
    """Refuses logits that are not finite, which transformers would make an empty answer of, or the first token's."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return check_logits(scores, self.dtype)


class _ContrastRows(LogitsProcessor):
    """Row 0 of the batch carries the latent, row 1 does not; both go on with the contrast's choice.

    The caller's own processors see one row, as without a contrast: the scores that it combines.
    """

    def __init__(self, contrast: Contrast, theirs: LogitsProcessorList):
        self.contrast, self.theirs = contrast, theirs

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        combined = self.contrast.combine(scores[0], scores[1])[None]
        return self.theirs(input_ids[:1], combined).expand_as(scores)


class _FirstRow:
    """Hands a streamer, which takes one answer, the first of the pair."""

    def __init__(self, streamer: Any):
        self.streamer = streamer

    def put(self, value: torch.Tensor) -> None:
        self.streamer.put(value[:1])

    def end(self) -> None:
        self.streamer.end()


def read_contrast(contrast: Contrast | float | None, latent: Latent | None) -> Contrast | None:
    """How to decode: as given, a number being a strength; else as the run does that the latent comes from.

    Raises:
        SettingsError: for what is neither a `Contrast` nor a number of at least 0.
    """
    if contrast is None:
        contrast = latent.method.contrast_decoding if isinstance(latent, Steered) else None
    elif not isinstance(contrast, Contrast):
        contrast = Contrast(number(contrast, "contrast, where it is no Contrast(alpha, beta),", 0))
    return contrast if contrast is not None and contrast.alpha > 0 else None


def generate(
    model: Any,
    processor: Any,
    family: Family,
    prompt: Prompt,
    latent: Latent | None,
    contrast: Contrast | float | None,
    options: dict[str, Any],
) -> Answer:
    """The model's answer to a prompt; see `Mllm.generate`."""
    if prompt.call.copies != 1:
        raise PromptError(f"An answer is given to one prompt; got {prompt.call.copies} copies.")
    contrast = read_contrast(contrast, latent)
    values = None if latent is None else read_latent(latent, prompt.call).detach()
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", LAST_ID)
    options = read_options(options, family, prompt.inputs, vocabulary)
    if options.get("stop_strings") is not None:
        options.setdefault("tokenizer", processor.tokenizer)
        try:
            StopStringCriteria(options["tokenizer"], options["stop_strings"])
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise SettingsError(
                f"stop_strings must be texts that the tokenizer's tokens can spell; got {shown(options['stop_strings'])}."
            ) from error
    inputs = prompt.inputs
    processors = [_Finite(model.dtype), *(options.get("logits_processor") or ())]
    if contrast is not None:
        _check_contrast(family, options)
    if contrast is not None and values is not None:
        # The pair is one batch, so that both branches share every step.
        values = values.reshape(1, *values.shape[-2:])
        inputs, values = prompt.repeated(2), torch.cat([values, torch.zeros_like(values)])
        processors = [processors[0], _ContrastRows(contrast, LogitsProcessorList([*processors]))]
        if options.get("streamer") is not None:
            options["streamer"] = _FirstRow(options["streamer"])
    options["logits_processor"] = LogitsProcessorList(processors)
    with undisturbed(model), latent_added(prompt.call, values), unread_named(options):
        output = model.generate(**inputs, **options)
    # A checkpoint's own generation config may ask for more than the tokens.
    rows = output if torch.is_tensor(output) else output.sequences
    # A decoder-only model repeats the prompt; an encoder's is no part of what its decoder says, but for one token to begin.
    begin = 1 if model.config.is_encoder_decoder else prompt.inputs["input_ids"].shape[1]
    with locked(processor.tokenizer):
        return said(processor.tokenizer, rows[0, begin:].tolist(), _stops(model, processor.tokenizer, options))


def _check_contrast(family: Family, options: dict[str, Any]) -> None:
    if not family.contrast:
        raise SettingsError(
            f"Contrastive decoding needs two copies of a prompt in one batch, which {family.name} does not keep "
            "apart (see `cmllm families`); leave out the contrast (contrast=0)."
        )
    if options["num_beams"] != 1 or options["do_sample"]:
        raise SettingsError("Contrastive decoding is greedy: leave out num_beams and do_sample, or give contrast=0.")


def _stops(model: Any, tokenizer: Any, options: dict[str, Any]) -> set[int]:
    """Tokens that may end an answer, or fill up what follows its end."""
    config = model.generation_config
    given = [options.get("eos_token_id"), options.get("pad_token_id"), config.eos_token_id, config.pad_token_id]
    several = [each if isinstance(each, list | tuple) else [each] for each in [*given, tokenizer.eos_token_id]]
    return {int(token) for each in several for token in each if token is not None}
