"""Answers: greedy, sampled or beam search, with an intervention, and contrastive decoding against doing without it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList, StopStringCriteria

from ..errors import PromptError, SettingsError
from ..strict import number, shown
from .answer import Answer, Ended, said
from .contrast import Contrast, ContrastRows, FirstRow
from .family import Family
from .finite import Finite, OfAllTokens
from .hooks import given_again
from .interventions import Intervention
from .likelihoods import Likelihoods
from .options import LAST_ID, read_options, unread_named
from .origin import looked_once
from .prefix import continued_answer, prefix_at_hand, prefix_or_none
from .prompt import Prompt
from .undisturbed import locked, undisturbed

if TYPE_CHECKING:
    from .mllm import Mllm


def read_contrast(contrast: Contrast | float | None, intervention: Intervention | None) -> Contrast | None:
    """How to decode: as given, a number being a strength; else as the intervention says.

    Raises:
        SettingsError: for what is neither a `Contrast` nor a number of at least 0.
    """
    if contrast is None:
        contrast = None if intervention is None else intervention.contrast
    elif not isinstance(contrast, Contrast):
        contrast = Contrast(number(contrast, "contrast, where it is no Contrast(alpha, beta),", 0))
    return contrast if contrast is not None and contrast.alpha > 0 else None


def generate(
    mllm: "Mllm",
    prompt: Prompt,
    intervention: Intervention | None,
    contrast: Contrast | float | None,
    options: dict[str, Any],
) -> Answer:
    """The model's answer to a prompt; see `Mllm.generate`."""
    model, tokenizer, family = mllm.model, mllm.processor.tokenizer, mllm.family
    if prompt.call.copies != 1:
        raise PromptError(f"An answer is given to one prompt; got {prompt.call.copies} copies.")
    contrast = read_contrast(contrast, intervention)
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", LAST_ID)
    options = read_options(options, family, prompt.inputs, vocabulary)
    if options.get("stop_strings") is not None:
        options.setdefault("tokenizer", tokenizer)
        try:
            StopStringCriteria(options["tokenizer"], options["stop_strings"])
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise SettingsError(
                f"stop_strings must be texts that the tokenizer's tokens can spell; got {shown(options['stop_strings'])}."
            ) from error
    copies = 1
    first, theirs = Finite(model.dtype), options.get("logits_processor")
    processors = [first, *theirs, OfAllTokens(first)] if theirs else [first]
    if contrast is not None:
        _check_contrast(family, options)
    if contrast is not None and intervention is not None:
        # The pair is one batch, so that both branches share every step.
        copies = 2
        processors = [processors[0], ContrastRows(contrast, LogitsProcessorList([*processors]))]
        if options.get("streamer") is not None:
            options["streamer"] = FirstRow(options["streamer"])
    options["logits_processor"] = LogitsProcessorList(processors)
    inputs = prompt.inputs if intervention is None else intervention.inputs(mllm, prompt, copies)
    likelihoods = Likelihoods(model, contrast if copies > 1 else None)
    options["stopping_criteria"] = StoppingCriteriaList([*(options.get("stopping_criteria") or ()), likelihoods])
    with looked_once():
        opened = _answering(mllm, prompt, options) if intervention is None else intervention.opened(mllm, prompt, copies)
        seen = _seen(mllm, prompt, options["num_beams"]) if inputs is prompt.inputs else {}
    with undisturbed(model), given_again(seen), opened, likelihoods.heard(), unread_named(options):
        output = model.generate(**inputs, **options)
    # A checkpoint's own generation config may ask for more than the tokens.
    rows = output if torch.is_tensor(output) else output.sequences
    # A decoder-only model repeats the prompt; an encoder's is no part of what its decoder says, but for one token to begin.
    begin = 1 if model.config.is_encoder_decoder else prompt.inputs["input_ids"].shape[1]
    ids = rows[0, begin:].tolist()
    with locked(tokenizer):
        answer = said(tokenizer, ids, stops(model, tokenizer, options), why_ended(model, ids, options))
    if answer.ids and (options["num_beams"] > 1 or not mllm.family.processors):
        # Of beams the one that is kept is known at the end, and a family's own way to generate tells of no steps.
        return answer.weighed(_continued(mllm, prompt, answer, intervention, contrast))
    return answer.weighed(likelihoods.found()[0])


def _answering(mllm: "Mllm", prompt: Prompt, options: dict[str, Any]) -> AbstractContextManager[None]:
    """What is open for a plain answer: of a prompt of a look, it goes on from the prefix where there can be one."""
    if prompt.look is None or not options.get("use_cache", True) or options.get("cache_implementation") is not None:
        return nullcontext()
    if prompt.call is prompt.look.prompt.call and not prefix_at_hand(prompt):
        # The first question of an image: to run what is before it by itself pays with the next one.
        return nullcontext()
    prefix = prefix_or_none(mllm, prompt) if prompt.look.serves(mllm) else None
    return nullcontext() if prefix is None else continued_answer(prefix)


def _seen(mllm: "Mllm", prompt: Prompt, rows: int) -> Mapping[Any, list[Any]]:
    """What modules before the language model need not compute again: those of a prompt's look, for one row."""
    look = prompt.look
    return look.before if look is not None and rows == 1 and look.serves(mllm) else {}


def _continued(
    mllm: "Mllm", prompt: Prompt, answer: Answer, intervention: Intervention | None, contrast: Contrast | None
) -> list[float]:
    """Log-probabilities of an answer's tokens, by a forward of their own."""
    # It knows models, so that it cannot be imported where this module is.
    from .scoring import continuation

    if answer.without(mllm.image_token_id, mllm.video_token_id).ids != answer.ids:
        return []
    with_its_contrast = None if intervention is None else replace(intervention, contrast=contrast)
    found: list[float] = continuation(mllm, prompt, answer, with_its_contrast).tolist()
    return found


def why_ended(model: Any, ids: list[int], options: dict[str, Any]) -> Ended:
    """Why an answer of these tokens, with what filled up its row, ended."""
    given = options.get("eos_token_id")
    given = model.generation_config.eos_token_id if given is None else given
    if not set(_several(given)).isdisjoint(ids):
        return "end token"
    return "length" if len(ids) >= options["max_new_tokens"] else "stopped"


def _check_contrast(family: Family, options: dict[str, Any]) -> None:
    if not family.contrast:
        raise SettingsError(
            f"Contrastive decoding needs two copies of a prompt in one batch, which {family.name} does not keep "
            "apart (see `cmllm families`); leave out the contrast (contrast=0)."
        )
    if options["num_beams"] != 1 or options["do_sample"]:
        raise SettingsError("Contrastive decoding is greedy: leave out num_beams and do_sample, or give contrast=0.")


def stops(model: Any, tokenizer: Any, options: dict[str, Any]) -> set[int]:
    """Tokens that may end an answer, or fill up what follows its end."""
    config = model.generation_config
    given = [options.get("eos_token_id"), options.get("pad_token_id"), config.eos_token_id, config.pad_token_id]
    return {token for each in [*given, tokenizer.eos_token_id] for token in _several(each)}


def _several(ids: Any) -> list[int]:
    """None, one or several token ids as a list."""
    found = ids if isinstance(ids, list | tuple) else [ids]
    return [int(token) for token in found if token is not None]
