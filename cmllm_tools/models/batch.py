"""A prompt several times in one batch, or followed by an answer: its inputs changed, and its call recorded again."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..errors import PromptError, SettingsError
from .mllm import Mllm
from .prompt import Prompt
from .replay import record


def copies(mllm: Mllm, prompt: Prompt, count: int, keep_before: bool = False) -> Prompt:
    """The prompt `count` times as one batch, whose call takes latents (copy, visual token, width).

    The vision encoder runs once, over all copies.

    Args:
        keep_before: keep what ran before the call; see `LanguageCall.resumed`.

    Raises:
        SettingsError: for a family whose batches are not kept apart.
        PromptError: for a prompt that is several copies already.
    """
    if prompt.call.copies != 1:
        raise PromptError(f"Copies are made of one prompt; got {prompt.call.copies} copies already.")
    if count > 1 and not mllm.family.batch:
        raise SettingsError(
            f"Several copies of a prompt in one batch are not kept apart by {mllm.family.name} (see `cmllm families`); "
            f"run them one by one, and not {count} at a time."
        )
    inputs = prompt.repeated(count)
    call = record(mllm.model, prompt.call.site, inputs, prompt.call.visual, count, keep_before)
    return replace(prompt, inputs=inputs, call=call)


def answer_tokens(mllm: Mllm, answer: str) -> list[int]:
    """The tokens of an answer's text.

    Raises:
        PromptError: for an empty answer.
    """
    ids = mllm.processor.tokenizer(answer, add_special_tokens=False)["input_ids"] if isinstance(answer, str) else []
    if not ids:
        raise PromptError(f"An answer must be a text with at least one word; got {answer!r}.")
    return list(ids)


def followed_by(mllm: Mllm, prompt: Prompt, ids: Sequence[int]) -> Prompt:
    """The prompt with an answer's tokens after it; an encoder-decoder's decoder is given them."""
    tokens = prompt.inputs["input_ids"]
    answer = torch.tensor([list(ids)], device=tokens.device)
    if mllm.model.config.is_encoder_decoder:
        start = torch.full_like(answer[:, :1], mllm.model.generation_config.decoder_start_token_id)
        inputs = prompt.inputs | {"decoder_input_ids": torch.cat([start, answer[:, :-1]], 1)}
        return replace(prompt, inputs=inputs)
    given = {name: value for name, value in prompt.inputs.items() if name != "labels"}
    added = {"input_ids": answer, "token_type_ids": torch.full_like(answer, mllm.family.answer_type)}
    inputs = {name: _longer(name, value, added, tokens.shape) for name, value in given.items()}
    call = record(mllm.model, prompt.call.site, inputs, prompt.call.visual)
    return replace(prompt, inputs=inputs, tokens=prompt.tokens + mllm.words(list(ids)), call=call)


def _longer(name: str, value: torch.Tensor, added: dict[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """An input with a value for each of the sequence's tokens, lengthened: by what is added, or its last value."""
    if value.shape[:2] != shape or name.startswith("qformer_"):
        return value
    last = value[:, -1:].expand(-1, added["input_ids"].shape[1], *value.shape[2:])
    return torch.cat([value, added.get(name, last)], 1)
